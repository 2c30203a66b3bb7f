"""Carries out what findings want: intent, stages, verification, revocation, release.

Driven by the Quarantines as stored, never by what this process remembers: whatever instant it is killed at, the next
one finds the Quarantine, sees which stages say `done`, and goes on. The order of writes is what makes that safe:

    begin     ledger (blast radius) -> Quarantine
    stages    guard -> pre-image in status -> guard with the tokens' names -> label -> status
    revoke    ledger -> names in status -> guard -> delete -> status -> finalizer off (a Secret's record stays)
    release   (release in status -> delete, or findings reopened) -> label back -> guard -> finalizer off

Each is the file of its name; `records` keeps revoked names refused, `means` is what all of them work with.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

from tenure.api.conditions import ConditionType
from tenure.api.names import GUARD_NAME, OPERATOR_NAMESPACE
from tenure.api.quarantine import QuarantineStatus
from tenure.audit.source import Source
from tenure.decide.held import HELD, Held
from tenure.decide.hold import Quarantine
from tenure.decide.lever import product
from tenure.decide.wish import Wish
from tenure.enforce import records, release, revoke, stages
from tenure.enforce.begin import JUDGED, PICK, Beginning
from tenure.enforce.guards import Guards
from tenure.enforce.means import Means
from tenure.enforce.proof import AGAIN, EVERY, PROVE, Proof
from tenure.enforce.quarantine import is_being_revoked, is_itself_revoked, is_record, subject_of
from tenure.enforce.tripwire import Tripwire
from tenure.inventory.store import Store, subject_key
from tenure.kube.client import Kube
from tenure.kube.errors import ApiError, Forbidden, Invalid
from tenure.model.keys import Key
from tenure.reconcile.engine import Engine
from tenure.reconcile.ledger import Ledger
from tenure.telemetry.events import Recorder
from tenure.telemetry.logs import about
from tenure.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

_HELD_AGAIN: Final = timedelta(minutes=5)
"""When what cannot be done as things stand is tried again."""


class Enforcer:
    """One worker: acts are few by design, and one after the other is what the blast radius counts on."""

    def __init__(
        self,
        kube: Kube,
        store: Store,
        ledger: Ledger,
        engine: Engine,
        metrics: Metrics,
        recorder: Recorder,
        *,
        operator_namespace: str = OPERATOR_NAMESPACE,
        observed: tuple[str, ...] = (),
        platform: tuple[str, ...] = (),
        fresh: Callable[[], str] = lambda: "",
        audit: Source | None = None,
    ) -> None:
        """`fresh` says why the inventory is not fresh, "" when it is; nothing begins while it is not. `audit` tells of
        attempted use by the instant."""
        guards = Guards(
            kube, store, operator_namespace, observed, lambda writer: metrics.reverted(product(writer)), platform
        )
        proof = Proof(kube, guards, operator_namespace, observed, lambda: self.consider(PROVE), platform)
        self._means = Means(kube, store, ledger, engine, metrics, recorder, guards, fresh, proof)
        self.tripwire = Tripwire(self._means, audit) if audit is not None else None
        self._means.listening = self.tripwire
        self._watches: list[asyncio.Task[Any]] = []
        self._beginning = Beginning(self._means, self._drive)
        self._vanished: dict[Key, list[Quarantine]] = {}
        self._task: asyncio.Task[None] | None = None

    # --- the port the loop sees --------------------------------------------------------------------------------

    def consider(self, key: Key) -> None:
        """Looks at a subject (or at a touched guard) again."""
        self._means.consider(key)

    def vanished(self, quarantine: Quarantine) -> None:
        """A Quarantine is gone. Where its finalizer was taken off by hand before we gave back, that is done now."""
        self.consider(Key("QuarantineGuard", quarantine.namespace, GUARD_NAME))
        if quarantine.uid in self._means.given_back:
            self._means.given_back.discard(quarantine.uid)
            return
        namespace, status = self._means.store.namespaces.get(quarantine.namespace), quarantine.status
        leaving = namespace is None or namespace.deleting
        if not leaving and not is_record(quarantine) and status and (status.disabled_tokens or status.pre_images):
            self._vanished.setdefault(subject_of(quarantine), []).append(quarantine)
        self.consider(subject_of(quarantine))  # for its further objects as well

    async def look_at_kinds(self) -> None:
        """Looks whether the cluster's kinds are older than this version, before anything is written. A missing right to
        is no reason not to begin: the proof names it. Raises ApiError."""
        with contextlib.suppress(Forbidden):
            await self._means.proof.look_at_kinds()

    def older_kinds(self) -> str:
        """What the cluster's kinds do not know of this version's, "" when they know all."""
        return self._means.proof.older_kinds

    def blocked(self, key: Key) -> str:
        """Why the act that is due on this subject has not begun; a key of decide.held.HELD."""
        return self._means.blocked.get(key, "")

    def queue(self) -> dict[str, int]:
        """Acts that wait, by reason, for the metric."""
        lengths: dict[str, int] = {}
        for key in self._beginning.pending:
            reason = self._means.waiting.get(key) or self._means.blocked.get(key) or "Ready"
            lengths[reason] = lengths.get(reason, 0) + 1
        for key, reason in self._means.waiting.items():
            if key not in self._beginning.pending:
                lengths[reason] = lengths.get(reason, 0) + 1
        return lengths

    def effective(self) -> dict[str, int]:
        """1 for each stage that was proven to be in force, for the metric."""
        return {stage.value: int(not fault) for stage, fault in self._means.proof.faults.items()}

    def start(self) -> None:
        """Begins to act; the loop must have been started (a subject that was not judged yet is left alone)."""
        self.consider(PROVE)  # first: what a stage rests on is known before one is looked at
        for finding in self._means.store.findings.values():
            # What held an act when the last process ended goes on holding it until we have looked: a restart alone
            # must not take the condition off and put it on again.
            conditions = finding.status.conditions if finding.status else ()
            for reason in (c.reason for c in conditions if c.type == ConditionType.BLOCKED and c.reason in HELD):
                self._means.blocked[subject_key(finding)] = reason
        for quarantine in self._means.store.quarantines.values():
            self.consider(subject_of(quarantine))
        for further in self._means.store.orphans():
            self.consider(subject_of(further))
        for namespace, _ in list(self._means.store.guards):
            self.consider(Key("QuarantineGuard", namespace, GUARD_NAME))
        self._watches = self._means.proof.watch()
        if self.tripwire is not None:
            self._watches.append(asyncio.create_task(self.tripwire.run(), name="audit"))
        self._task = asyncio.create_task(self._work(), name="enforce")

    def ended(self) -> str | None:
        """What is wrong when the worker has died, None when all is well."""
        if self._task is not None and self._task.done():
            return "ended: enforce"
        return next((f"ended: {task.get_name()}" for task in self._watches if task.done()), None)

    async def stop(self) -> None:
        """Ends the worker; an act under way is taken up again by the next process."""
        if self._task is not None:
            tasks = [self._task, *self._watches]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # --- the worker --------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        while True:
            key = await self._means.queue.take()
            try:
                await self._handle(key)
            except ApiError as error:
                await self._failed(key, error)
            except Exception:
                # A defect on one subject must not end enforcement, and above all not release, of all others.
                delay = self._means.queue.failed(key)
                log.exception("%s: enforcement failed; again in %.1f s", key, delay, extra=about(key))
            else:
                if self._means.waiting.get(key) == "Retry" and key not in self._beginning.postponed:
                    del self._means.waiting[key]
                self._means.queue.done(key)
            await asyncio.sleep(0)

    async def _failed(self, key: Key, error: ApiError) -> None:
        delay = self._means.queue.failed(key, error.retry_after)
        if key not in (PICK, JUDGED, PROVE):
            self._means.waiting[key] = "Retry"
        log.warning("%s: enforcement: %s; again in %.1f s", key, error, delay, extra=about(key))
        if isinstance(error, Forbidden | Invalid) and key not in (PICK, JUDGED, PROVE):
            self._means.block(key, "MissingRight")
            self.consider(PROVE)

    async def _handle(self, key: Key) -> None:
        if key == PICK:
            await self._beginning.next()
            return
        if key == JUDGED:
            await self._beginning.judged()
            return
        if key == PROVE:
            await self._prove()
            return
        if key.kind == "QuarantineGuard":
            await self._means.guards.rebuild(key.namespace)
            return
        for quarantine in self._vanished.get(key, []):
            await release.vanished(self._means, quarantine)
        self._vanished.pop(key, None)
        for further in self._means.store.orphans():
            if subject_of(further) == key:
                await release.end_orphan(self._means, further)
        wishes = self._means.engine.wishes.get(key)
        quarantines = self._means.about(key)
        for quarantine in quarantines:
            await self._drive(key, quarantine, wishes or ())
        if wishes is not None:
            self._beginning.plan(key, wishes)

    async def _prove(self) -> None:
        """Looks whether what enforces is in force, and takes up what waited for that."""
        before, faults, older = self._means.proof.fault, dict(self._means.proof.faults), self._means.proof.older_kinds
        await self._means.proof.look_at_rights()
        fault = await self._means.proof.prove()
        self._means.queue.at(PROVE, self._means.now() + (EVERY if self._means.proof.settled else AGAIN))
        if self._means.proof.faults != faults:
            waiting = ("NotEffective", "MissingRight", "DenyWritesMissing")
            for key in [key for key, reason in self._means.blocked.items() if reason in waiting]:
                self.consider(key)
        if before and not fault:
            self.consider(PICK)
        if older and not self._means.proof.older_kinds:
            self._means.engine.answer_all()

    async def _drive(self, key: Key, quarantine: Quarantine, wishes: tuple[Wish, ...]) -> None:
        """Takes one Quarantine as far as it can go now."""
        try:
            await self._step(key, quarantine, wishes)
        except Held as held:
            log.error("%s: %s", key, held, extra=about(key))
            self._means.block(key, held.reason)
            self._means.queue.at(key, self._means.now() + _HELD_AGAIN)

    async def _step(self, key: Key, quarantine: Quarantine, wishes: tuple[Wish, ...]) -> None:
        status = quarantine.status or QuarantineStatus()
        judged = key in self._means.engine.wishes
        if quarantine.deletion is not None:
            await release.end(self._means, key, quarantine)
        elif is_record(quarantine):
            await release.refuse(self._means, quarantine)
            await records.keep(self._means, quarantine)
        elif status.release is not None:
            await release.go_on(self._means, quarantine)
        elif (asked := self._means.release_asked(quarantine)) is not None and not is_being_revoked(quarantine):
            await release.by_verdict(self._means, quarantine, asked)
        elif records.pending(self._means, quarantine):
            return  # whose names it is to keep finishes it before it goes
        elif not judged:
            return  # after a restart nothing is released before its findings were looked at
        elif self._means.is_gone(key, quarantine) and key.kind == "Secret":
            await revoke.elsewhere(self._means, key, quarantine)
        elif is_being_revoked(quarantine) and (self._means.is_gone(key, quarantine) or is_itself_revoked(quarantine)):
            await revoke.finish(self._means, key, quarantine)
        elif self._means.is_gone(key, quarantine) or not wishes:
            await release.release(self._means, key, quarantine)
        else:
            if self.tripwire is not None:
                quarantine = await self.tripwire.note(key, quarantine, wishes)
            await stages.advance(self._means, key, quarantine, wishes)
