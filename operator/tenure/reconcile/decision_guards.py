"""What the guard on decisions compares with: one QuarantineGuard object, `decisions`, per namespace.

It says which state of each exception, claim and finding counts now, and whose request an exception is, so that
admission refuses a decision about what is no longer, and one by its author, in so many words. It may lag, and the
operator may be away: what it does not refuse, the rules void. So it is written at leisure, once a second at most, and
whole, where it differs; that is also the answer to anybody who edits or deletes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from tenure.api.base import ApiModel
from tenure.api.guard import MAX_ENTRIES, QuarantineGuardSpec, RequestEntry, StateEntry
from tenure.api.names import API_VERSION, DECISIONS_NAME
from tenure.inventory.projection import PROJECTIONS
from tenure.inventory.store import Store
from tenure.kube.client import Kube
from tenure.kube.errors import ApiError, Forbidden, NotFound
from tenure.kube.resources import QUARANTINE_GUARDS
from tenure.model.namespaced import Namespaced
from tenure.model.records import Authored, Unprocessable
from tenure.reconcile.queue import WorkQueue

log = logging.getLogger(__name__)

KIND: Final = "QuarantineGuard"
PACE: Final = timedelta(seconds=1)  # between two writes to one namespace's object
LARGEST: Final = 1_000_000
"""Bytes of JSON one object may take; etcd's limit is 1.5 MB. Entries beyond are left to the rules."""

E = TypeVar("E", bound=ApiModel)


class DecisionGuards:
    """One worker. Told of every change by `changed`."""

    def __init__(self, kube: Kube, store: Store, now: Callable[[], datetime]) -> None:
        self._kube = kube
        self._store = store
        self._now = now
        self._queue: WorkQueue[str] = WorkQueue(now)
        self._written: dict[str, datetime] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Compares every namespace's object with what should stand there, and goes on from there."""
        store = self._store
        tables: tuple[Namespaced[Any], ...] = (store.exceptions, store.claims, store.findings, store.guards)
        for namespace in frozenset().union(*(table.namespaces() for table in tables)):
            self._queue.add(namespace)
        self._task = asyncio.create_task(self._work(), name="decision guards")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def ended(self) -> bool:
        """Whether the worker has died."""
        return self._task is not None and self._task.done()

    def changed(self, kind: str, old: Any, new: Any) -> None:
        """A store listener's part: only marks."""
        record = new or old
        if kind == KIND:
            touched = record.name == DECISIONS_NAME
        else:
            touched = kind in ("IdentityException", "OwnedIdentity", "IdentityFinding") and _entry(old) != _entry(new)
        if touched:
            written = self._written.get(record.namespace)
            if written is None or self._now() - written >= PACE:
                self._queue.add(record.namespace)
            else:
                self._queue.at(record.namespace, written + PACE)

    async def _work(self) -> None:
        while True:
            namespace = await self._queue.take()
            try:
                await self._write(namespace)
            except ApiError as error:
                delay = self._queue.failed(namespace, error.retry_after)
                text = "namespace %s: the guard on decisions could not be written: %s; again in %.1f s"
                log.warning(text, namespace, error, delay)
            except Exception:
                delay = self._queue.failed(namespace)
                log.exception("namespace %s: the guard on decisions; again in %.1f s", namespace, delay)
            else:
                self._queue.done(namespace)

    async def _write(self, namespace: str) -> None:
        here = self._store.namespaces.get(namespace)
        if here is None or here.deleting:
            self._written.pop(namespace, None)
            return
        held = self._store.guards.get((namespace, DECISIONS_NAME))
        wanted = decisions_guard(self._store, namespace)
        if (held.spec if held is not None else QuarantineGuardSpec()) == wanted:
            return
        self._written[namespace] = self._now()
        if wanted == QuarantineGuardSpec() and held is not None:
            with contextlib.suppress(NotFound):
                await self._kube.delete(QUARANTINE_GUARDS, DECISIONS_NAME, namespace, uid=held.uid)
            self._store.remove(KIND, namespace, DECISIONS_NAME)
            return
        metadata = {"name": DECISIONS_NAME, "namespace": namespace}
        manifest = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": wanted.wire()}
        try:
            stored = await self._kube.apply(QUARANTINE_GUARDS, manifest)
        except NotFound:
            return  # the namespace went, or somebody deleted the CRD: the rules void what should have been refused
        except Forbidden as error:
            if error.has_cause("NamespaceTerminating"):
                return
            raise
        self._store.upsert(KIND, PROJECTIONS[KIND](stored))


def decisions_guard(store: Store, namespace: str) -> QuarantineGuardSpec:
    """What the object should say. Claims and findings that never changed have nothing a decision could be behind of."""
    room = LARGEST
    exceptions: dict[str, RequestEntry] = {}
    claims: dict[str, StateEntry] = {}
    findings: dict[str, StateEntry] = {}
    unread = store.unprocessable_in(namespace) if store.unprocessable else ()
    for kind, entries, records in (
        ("IdentityException", exceptions, store.exceptions_in(namespace)),
        ("OwnedIdentity", claims, store.claims_in(namespace)),
        ("IdentityFinding", findings, store.findings_in(namespace)),
    ):
        room = _fill(entries, (*records, *(found for found in unread if found.kind == kind)), room)
    return QuarantineGuardSpec(exceptions=exceptions, claims=claims, findings=findings)


def _fill(entries: dict[str, Any], records: Iterable[Authored[Any, Any] | Unprocessable], room: int) -> int:
    for record, entry in _entries(records):
        size = len(entry.model_dump_json().encode()) + len(record.name) + 4
        if len(entries) >= MAX_ENTRIES or size > room:
            return room
        entries[record.name] = entry
        room -= size
    return room


def _entries(
    records: Iterable[Authored[Any, Any] | Unprocessable],
) -> Iterator[tuple[Authored[Any, Any] | Unprocessable, ApiModel]]:
    for record in sorted(records, key=lambda record: record.name):
        entry = _entry(record)
        if entry is not None:
            yield record, entry


def _entry(record: Any) -> ApiModel | None:
    """What is said of one object. Of an exception that this version cannot read, what stands in its metadata."""
    if record is None:
        return None
    if record.kind == "IdentityException":
        spec = record.spec if isinstance(record, Authored) else None
        return RequestEntry(
            uid=record.uid,
            generation=max(record.generation, 1),
            requested_by=(spec.requested_by or "") if spec is not None else "",
            on_behalf_of=(spec.on_behalf_of or "") if spec is not None else "",
        )
    if record.kind == "IdentityFinding":
        version = record.spec.revision if isinstance(record, Authored) else 1
    else:
        version = record.generation
    return StateEntry(uid=record.uid, version=version) if version > 1 else None
