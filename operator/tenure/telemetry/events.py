"""Kubernetes Events about what the operator did, on the objects their owners look at.

`kopf.event` cannot serve here: it puts into a queue that is a context variable of Kopf's own handler tasks, and the
engine runs outside them. So this is a recorder of our own: a bounded queue, one background task, best effort. What must
not be lost stands in a finding's status; an Event only makes `kubectl describe` tell it, and expires after an hour.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from tenure.api.base import format_timestamp
from tenure.api.names import GROUP
from tenure.kube.resources import BY_KIND, EVENTS, Resource
from tenure.model.keys import Key

logger = logging.getLogger(__name__)

CONTROLLER: Final = f"{GROUP}/operator"

# Reasons: CamelCase, fixed here, at most 128 characters; each says what changed, never that something is still so.
DECISION_OVERDUE: Final = "DecisionOverdue"
ESCALATED: Final = "Escalated"
IDENTITY_QUARANTINED: Final = "IdentityQuarantined"
CREDENTIAL_QUARANTINED: Final = "CredentialQuarantined"
ENTITLEMENT_QUARANTINED: Final = "EntitlementQuarantined"
STAGE_VERIFIED: Final = "StageVerified"
QUARANTINE_RELEASED: Final = "QuarantineReleased"
CREDENTIAL_REVOKED: Final = "CredentialRevoked"
IDENTITY_REVOKED: Final = "IdentityRevoked"
ENTITLEMENT_REVOKED: Final = "EntitlementRevoked"
ENFORCEMENT_FAILED: Final = "EnforcementFailed"
ENFORCEMENT_REVERTED: Final = "EnforcementReverted"
TRIPWIRE: Final = "AttemptedUse"
BLAST_RADIUS_REACHED: Final = "BlastRadiusReached"

REASON_LIMIT: Final = 128
NOTE_LIMIT: Final = 1024
"""Bytes the API server takes in a note; a longer one is cut here, since it would be refused there."""
QUEUE_LIMIT: Final = 1000
"""Events that may wait: about a megabyte, and more than any blast radius lets happen between two turns of the
sender."""

BURST: Final = 25
REFILL: Final = 300.0
"""Events about one object: this many at once, then one per so many seconds, as client-go's spam filter has it. What
happens again and again (an act that is tried and blocked in turns) must not fill etcd with Events."""
_OBJECTS: Final = 4096
"""Objects whose allowance is remembered; the longest unheard-of is forgotten first, and then has its burst again."""

_CLUSTER_SCOPED_IN: Final = "default"
"""Where the API server wants Events about cluster-scoped objects."""


class Creator(Protocol):
    """What the recorder needs of `tenure.kube.client.Kube`."""

    async def create(self, resource: Resource, obj: dict[str, Any]) -> dict[str, Any]:
        """Creates the object; raises on anything but success."""


def reference(key: Key, uid: str) -> dict[str, str]:
    """The `regarding` of an object of a kind that Tenure observes or owns. Raises KeyError for any other kind."""
    resource = BY_KIND[key.kind]
    found = {
        "apiVersion": resource.api_version,
        "kind": key.kind,
        "namespace": key.namespace if resource.namespaced else "",
        "name": key.name,
    }
    return {field: value for field, value in {**found, "uid": uid}.items() if value}


class Recorder:
    """Sends Events in the background. `dropped` counts those that were not sent: the queue was full, too many were
    about one object, or the API server refused.

    Events of one process are sent one after the other, in the order in which they were recorded.
    """

    def __init__(
        self,
        kube: Creator,
        component: str = "tenure",
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        limit: int = QUEUE_LIMIT,
    ) -> None:
        """component becomes the Event's reportingInstance (a Pod's name, where there is one)."""
        self._kube = kube
        self._component = component
        self._now = now
        self._queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(limit)
        self._task: asyncio.Task[None] | None = None
        self._allowances: OrderedDict[tuple[str, ...], tuple[float, datetime]] = OrderedDict()
        self.dropped = 0

    def event(
        self, regarding: Mapping[str, str | None], reason: str, note: str, *, warning: bool = False, action: str = ""
    ) -> None:
        """Queues one Event and returns at once; never raises.

        `regarding` holds apiVersion, kind, namespace, name and uid (`reference` makes it); `reason` is one of the
        constants above; `note` is for people and must hold no value of a Secret; `action` is what was done
        ("Quarantine"), by default the reason; `warning` only for what nobody intended.
        """
        now = self._now()
        body = _body(regarding, reason, note, action or reason, warning, now, self._component)
        if not self._allowed(tuple(body["involvedObject"].values()), now):
            self._drop("too many about this object", body)
            return
        try:
            self._queue.put_nowait(body)
        except asyncio.QueueFull:
            self._drop("the queue is full", body)

    def _allowed(self, about: tuple[str, ...], now: datetime) -> bool:
        """Takes one from the object's allowance, if there is any left."""
        left, since = self._allowances.pop(about, (float(BURST), now))
        left = min(float(BURST), left + max(0.0, (now - since).total_seconds()) / REFILL)  # the clock may be set back
        allowed = left >= 1
        self._allowances[about] = (left - 1 if allowed else left, now)
        if len(self._allowances) > _OBJECTS:
            self._allowances.popitem(last=False)
        return allowed

    def start(self) -> None:
        """Starts the sender on the running loop; what was recorded before is sent then."""
        if self._task is None:
            self._task = asyncio.create_task(self._send(), name="events")

    async def stop(self, grace: float = 2.0) -> None:
        """Goes on sending what waits for at most `grace` seconds, then ends the sender."""
        if self._task is None:
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(self._queue.join(), grace)
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        self._task = None

    async def _send(self) -> None:
        while True:
            body = await self._queue.get()
            try:
                await self._kube.create(EVENTS, body)
            except Exception as error:  # best effort: no refusal and no lost connection may end the sender
                self._drop(str(error) or type(error).__name__, body)
            finally:
                self._queue.task_done()

    def _drop(self, why: str, body: Mapping[str, Any]) -> None:
        self.dropped += 1
        # The first, then every hundredth: a missing right would otherwise fill the log.
        if self.dropped % 100 == 1:
            logger.warning(
                "Event %s not sent (%d so far): %s",
                body["reason"],
                self.dropped,
                why,
                extra={"about": body["involvedObject"]},
            )


def _body(
    regarding: Mapping[str, str | None],
    reason: str,
    note: str,
    action: str,
    warning: bool,
    at: datetime,
    component: str,
) -> dict[str, Any]:
    """A core/v1 Event. It carries the newer fields (eventTime, reporting*, action) and the older times as well: kubectl
    sorts and prints by the older ones, and the API server accepts both through this version alone."""
    about = {field: value for field, value in regarding.items() if value}
    stamp = format_timestamp(at.replace(microsecond=0))
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": _name(about.get("name", "")), "namespace": about.get("namespace", _CLUSTER_SCOPED_IN)},
        "involvedObject": about,
        "type": "Warning" if warning else "Normal",
        "reason": reason[:REASON_LIMIT],
        "action": action[:REASON_LIMIT],
        "message": _cut(note),
        "eventTime": at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "firstTimestamp": stamp,
        "lastTimestamp": stamp,
        "count": 1,
        "reportingComponent": CONTROLLER,
        "reportingInstance": component[:REASON_LIMIT],
        "source": {"component": CONTROLLER},
    }


def _name(of: str) -> str:
    """`<object>.<random>`, as Events are named; an Event's name must be a DNS subdomain, which an RBAC object's
    (system:node) need not be, and 253 long at most."""
    stem = of if len(of) <= 230 and re.fullmatch(r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?", of) else ""
    return f"{stem or hashlib.sha256(of.encode()).hexdigest()[:20]}.{secrets.token_hex(8)}"


def _cut(note: str) -> str:
    """The API server counts bytes; a character is never cut in two."""
    encoded = note.encode()
    if len(encoded) <= NOTE_LIMIT:
        return note
    return encoded[: NOTE_LIMIT - 3].decode(errors="ignore") + "…"
