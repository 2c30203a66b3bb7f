"""What every part of enforcement works with."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from tenure.api.names import API_VERSION, FINALIZER, TYPE_SERVICE_ACCOUNT_TOKEN
from tenure.api.policy import BlastRadius
from tenure.api.quarantine import MOST_FURTHER, PreImage, QuarantineSpec, QuarantineStatus
from tenure.decide.held import Held
from tenure.decide.hold import Quarantine
from tenure.decide.verdict import releases
from tenure.decide.wish import Wish, may_not
from tenure.enforce import live
from tenure.enforce.blast import Budget
from tenure.enforce.guards import Guards
from tenure.enforce.names import further_name
from tenure.enforce.proof import Proof
from tenure.enforce.quarantine import stands, subject_of
from tenure.enforce.room import laid_out
from tenure.inventory import entitlements
from tenure.inventory.projection import PROJECTIONS
from tenure.inventory.store import Store
from tenure.kube.client import Kube
from tenure.kube.errors import NotFound
from tenure.kube.resources import QUARANTINES
from tenure.model.evaluation import Decision
from tenure.model.keys import Key
from tenure.model.records import Secret
from tenure.reconcile.engine import Engine
from tenure.reconcile.ledger import Ledger
from tenure.reconcile.queue import WorkQueue
from tenure.rules.secrets import is_credential
from tenure.telemetry import events, logs
from tenure.telemetry.events import Recorder, reference
from tenure.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

LOOK_AGAIN = timedelta(seconds=1)
"""While the inventory is not fresh."""


class Listening(Protocol):
    """What an audit source tells of attempted use (tenure.enforce.tripwire)."""

    async def read(self) -> str:
        """Takes in everything there is now; why that could not be done, "" when it was."""

    def last(self, quarantine: Quarantine, /) -> datetime | None:
        """When use was last attempted, whether its status says so yet or not."""


class Means:
    """The inventory, the memory, the guards and the queue; what waits and what is blocked; and the writes to a
    Quarantine. Nothing in here is needed again after a restart: that stands in the Quarantines."""

    def __init__(
        self,
        kube: Kube,
        store: Store,
        ledger: Ledger,
        engine: Engine,
        metrics: Metrics,
        recorder: Recorder,
        guards: Guards,
        fresh: Callable[[], str],
        proof: Proof,
    ) -> None:
        """`fresh` says why the inventory is not fresh, "" when it is; nothing begins while it is not."""
        self.kube = kube
        self.store = store
        self.ledger = ledger
        self.engine = engine
        self.metrics = metrics
        self.recorder = recorder
        self.guards = guards
        self.fresh = fresh
        self.proof = proof
        self.listening: Listening | None = None
        """Where an audit source is given."""
        self.queue: WorkQueue[Key] = WorkQueue(kube.clock.now)
        self.blocked: dict[Key, str] = {}
        """Why the act that is due on a subject, or its next step, does not happen: a key of decide.held.HELD."""
        self.waiting: dict[Key, str] = {}
        """Why a subject waits its turn, for the metric."""
        self.given_back: set[str] = set()
        """uids of the Quarantines whose end was ours."""

    async def unheard(self) -> str:
        """Reads the audit source, where one is given, to its end; why that cannot be done, "" when it was."""
        return "" if self.listening is None else await self.listening.read()

    def last_attempt(self, quarantine: Quarantine) -> datetime | None:
        """When use of it was last attempted, by the instant where an audit source tells it."""
        return None if self.listening is None else self.listening.last(quarantine)

    def now(self) -> datetime:
        """The API server's time."""
        return self.kube.clock.now().astimezone(UTC)

    def consider(self, key: Key) -> None:
        """Looks at a subject (or at a touched guard) again."""
        self.queue.add(key)

    def block(self, key: Key, reason: str) -> None:
        """Says why the subject's act does not happen, on its findings and, once, in the metric."""
        if self.blocked.get(key) != reason:
            self.blocked[key] = reason
            self.metrics.blocked(reason)
            self.engine.mark(key)

    def unblock(self, key: Key) -> None:
        """Nothing holds it any more."""
        if self.blocked.pop(key, None):
            self.engine.mark(key)

    async def confirmed(self, key: Key, quarantine: Quarantine | None = None) -> tuple[Wish, ...]:
        """Reads the facts live and judges again: what the findings want at this instant; nothing where somebody has
        released the Quarantine. Raises ApiError when any of it cannot be read; then nothing may be done."""
        await live.refresh(self.kube, self.store, key)
        if quarantine is not None:
            await live.one(self.kube, self.store, Key("Quarantine", quarantine.namespace, quarantine.name))
            now = self.store.quarantines.get((quarantine.namespace, quarantine.name))
            if now is None or now.uid != quarantine.uid or now.deletion is not None:
                return ()
        namespace = self.store.namespaces.get(key.namespace)
        if namespace is None or namespace.deleting:
            return ()
        if quarantine is not None:
            await live.decisions(self.kube, self.store, key.namespace, [quarantine.uid])
            if self.release_asked(quarantine) is not None:
                return ()
        return self.engine.judge.judge(key, self.now()).wishes

    def release_asked(self, quarantine: Quarantine) -> Decision | None:
        """The verdict Release on this very Quarantine, None without one."""
        return releases(self.store.decisions_about(quarantine.namespace, quarantine.uid), quarantine)

    async def still_wanted(self, key: Key, quarantine: Quarantine, wishes: tuple[Wish, ...]) -> tuple[Wish, ...]:
        """The wishes as they stand live when a further step may be taken, () when not. What is known to forbid it
        costs no request."""
        held = may_not(wishes)
        if not held:
            wishes = await self.confirmed(key, quarantine)
            if not wishes or self.is_gone(key, quarantine):
                self.engine.mark(key)
                return ()
            held = may_not(wishes)
        if held:
            self.block(key, held)
            return ()
        return wishes

    async def write_intent(self, namespace: str, name: str, spec: QuarantineSpec, uid: str = "") -> Quarantine:
        """`uid` says that it exists: without it an apply would bring back one that a person has just released."""
        standing = {"uid": uid} if uid else {}
        stored = await self.kube.apply(
            QUARANTINES,
            {
                "apiVersion": API_VERSION,
                "kind": "Quarantine",
                "metadata": {"name": name, "namespace": namespace, "finalizers": [FINALIZER], **standing},
                "spec": spec.wire(),
            },
        )
        return self._taken_in(stored)

    async def write_status(self, quarantine: Quarantine, status: QuarantineStatus) -> Quarantine:
        """Stores the status of this very object, and returns it as it then stands; but for the pre-images, which stay
        where they are (`remember`)."""
        images = self._own_images(quarantine.namespace, quarantine.name)
        return await self._write_status(quarantine, status.model_copy(update={"pre_images": images}))

    async def remember(self, quarantine: Quarantine, images: Iterable[PreImage]) -> Quarantine:
        """Stores all pre-images, before what they tell of is changed. Those for which the Quarantine has no room
        continue in further objects, which are written first. Raises ApiError, and Held where nothing was stored."""
        self.lost(quarantine)
        names = [further_name(quarantine.name, number) for number in range(2, 2 + MOST_FURTHER)]
        held = [self._own_images(quarantine.namespace, name) for name in (quarantine.name, *names)]
        while not held[-1] and len(held) > 1:
            held.pop()
        first, *rest = laid_out(held, images)
        for name, part in zip(names, rest, strict=False):
            await self.continue_in(quarantine, name, part)
        status = (quarantine.status or QuarantineStatus()).model_copy(update={"pre_images": first})
        return await self._write_status(
            quarantine, status.model_copy(update={"continued_in": tuple(names[: len(rest)])})
        )

    def _own_images(self, namespace: str, name: str) -> tuple[PreImage, ...]:
        """What this one object holds."""
        own = self.store.stored_quarantines.get((namespace, name))
        return own.status.pre_images if own is not None and own.status is not None else ()

    async def continue_in(self, quarantine: Quarantine, name: str, images: tuple[PreImage, ...]) -> None:
        """Brings one further object to hold these. It has the finalizer too: nobody takes it away alone."""
        further = self.store.stored_quarantines.get((quarantine.namespace, name))
        if further is None or FINALIZER not in further.finalizers:
            spec = QuarantineSpec(
                subject=quarantine.spec.subject,
                continues=quarantine.name,
                reason=f"holds what Quarantine {quarantine.name} has no room for, and goes with it",
            )
            uid = "" if further is None else further.uid
            further = await self.write_intent(quarantine.namespace, name, spec, uid)
        if images != (further.status.pre_images if further.status else ()):
            await self._write_status(further, QuarantineStatus(pre_images=images))

    def lost(self, quarantine: Quarantine) -> list[str]:
        """Its further objects that are gone, with what they remembered. Raises Held where one cannot be read: what it
        remembers is unknown, and is neither overwritten nor forgotten."""
        there = {further.name for further in self.store.further_objects(quarantine.namespace, quarantine.name)}
        missing = [n for n in (quarantine.status.continued_in if quarantine.status else ()) if n not in there]
        for name in missing:
            if Key("Quarantine", quarantine.namespace, name) in self.store.unprocessable:
                raise Held("Unreadable", f"Quarantine {name}, which continues {quarantine.name}")
        return missing

    async def _write_status(self, quarantine: Quarantine, status: QuarantineStatus) -> Quarantine:
        status = status.model_copy(update={"observed_generation": quarantine.generation})
        stored = await self.kube.apply(
            QUARANTINES,
            {
                "apiVersion": API_VERSION,
                "kind": "Quarantine",
                "metadata": {"name": quarantine.name, "namespace": quarantine.namespace, "uid": quarantine.uid},
                "status": status.wire(),
            },
            subresource="status",
        )
        return self._taken_in(stored)

    def _taken_in(self, stored: dict[str, Any]) -> Quarantine:
        """As it stands in the inventory: a further object as it is stored."""
        self.store.upsert("Quarantine", PROJECTIONS["Quarantine"](stored))
        at = (stored["metadata"]["namespace"], stored["metadata"]["name"])
        return self.store.quarantines.get(at) or self.store.stored_quarantines[at]

    async def drop_finalizer(self, quarantine: Quarantine) -> None:
        """Lets a Quarantine go, or leaves it as a record. What it remembered is given back, or never will be: its
        further objects go before it, and it says first that it has none."""
        if FINALIZER not in quarantine.finalizers:
            return
        status, further = quarantine.status, self.store.further_objects(quarantine.namespace, quarantine.name)
        if status is not None and status.continued_in:
            quarantine = await self.write_status(quarantine, status.model_copy(update={"continued_in": ()}))
        for one in further:
            await self.drop_further(one)
        left = [f for f in quarantine.finalizers if f != FINALIZER]
        try:
            stored = await self.kube.merge_patch(
                QUARANTINES,
                quarantine.name,
                quarantine.namespace,
                {"metadata": {"finalizers": left}},
                uid=quarantine.uid,
                resource_version=quarantine.resource_version,
            )
        except NotFound:
            self.store.remove("Quarantine", quarantine.namespace, quarantine.name)
            return
        self.store.upsert("Quarantine", PROJECTIONS["Quarantine"](stored))
        if quarantine.deletion is not None and not left:
            self.store.remove("Quarantine", quarantine.namespace, quarantine.name)

    async def drop_further(self, further: Quarantine) -> None:
        """Ends a further object that holds nothing any more that is to be given back."""
        self.given_back.add(further.uid)
        name, namespace = further.name, further.namespace
        with contextlib.suppress(NotFound):
            if FINALIZER in further.finalizers:
                left = [f for f in further.finalizers if f != FINALIZER]
                await self.kube.merge_patch(
                    QUARANTINES,
                    name,
                    namespace,
                    {"metadata": {"finalizers": left}},
                    uid=further.uid,
                    resource_version=further.resource_version,
                )
            await self.kube.delete(QUARANTINES, name, namespace, uid=further.uid)
        self.store.remove("Quarantine", namespace, name)

    async def delete(self, quarantine: Quarantine) -> None:
        """Sets the deletion mark; what was taken is given back when it is looked at again."""
        try:
            await self.kube.delete(QUARANTINES, quarantine.name, quarantine.namespace, uid=quarantine.uid)
            raw = await self.kube.get(QUARANTINES, quarantine.name, quarantine.namespace)
        except NotFound:
            self.store.remove("Quarantine", quarantine.namespace, quarantine.name)
            return
        record = PROJECTIONS["Quarantine"](raw)
        self.store.upsert("Quarantine", record)
        self.consider(subject_of(quarantine))

    def budget(self, wish: Wish, now: datetime, *, but: str = "") -> Budget:
        """What the wish's policy has used, without the act whose id ends so."""
        name = wish.terms.reference.removeprefix("GovernancePolicy/")
        policy = self.store.policies.get(name)
        cap = policy.spec.blast_radius if policy else BlastRadius()
        acts = self.ledger.acts(name, now - cap.window)
        return Budget(cap, tuple(act for act in acts if not but or not act.id.endswith(but)))

    def subjects_in(self, namespace: str) -> int:
        """What the blast radius takes its percentage of."""
        credentials = sum(map(is_credential, self.store.secrets_in(namespace)))
        bindings = self.store.bindings_in("" if namespace == self.store.home else namespace)
        entitled = sum(len(entitlements.within(self.store, found)) for found in bindings)
        return len(self.store.service_accounts_in(namespace)) + credentials + entitled

    def others(self, quarantine: Quarantine) -> list[Quarantine]:
        """Other Quarantines of the namespace that still hold something."""
        return [q for q in self.store.quarantines_in(quarantine.namespace) if q.name != quarantine.name and stands(q)]

    def tokens_of(self, quarantine: Quarantine) -> tuple[Secret, ...]:
        """The token Secrets there are now of what it is about."""
        subject = quarantine.spec.subject
        if subject.kind == "ServiceAccount":
            return self.store.tokens_of(quarantine.namespace, subject.name)
        if subject.kind != "Secret":
            return ()
        record = self.store.secrets.get((quarantine.namespace, subject.name))
        is_it = record is not None and record.uid == subject.uid and record.type == TYPE_SERVICE_ACCOUNT_TOKEN
        return (record,) if record is not None and is_it else ()

    def is_gone(self, key: Key, quarantine: Quarantine) -> bool:
        """Whether the very object it is about is no longer there."""
        record = self.store.get(key)
        return record is None or getattr(record, "uid", "") != quarantine.spec.subject.uid

    def about(self, key: Key) -> list[Quarantine]:
        """The subject's Quarantines, oldest first."""
        return sorted(
            (q for q in self.store.quarantines_in(key.namespace) if subject_of(q) == key),
            key=lambda q: (q.created, q.name),
        )

    def say(
        self,
        key: Key,
        uid: str,
        wishes: tuple[Wish, ...],
        reason: str,
        note: str,
        action: str,
        *,
        warning: bool = False,
    ) -> None:
        """An Event on the subject and on each of the wishes' findings, and a line in the log."""
        self.say_names(key, uid, tuple(w.finding for w in wishes), reason, note, action, warning=warning)

    def say_names(
        self, key: Key, uid: str, names: tuple[str, ...], reason: str, note: str, action: str, *, warning: bool = False
    ) -> None:
        """The same for the findings of these names."""
        log.info("%s: %s", key, note, extra=logs.about(key, uid))
        self.recorder.event(reference(key, uid), reason, note, warning=warning, action=action)
        for name in names:
            finding = self.store.findings.get((key.namespace, name))
            if finding is not None:
                self.recorder.event(
                    reference(Key("IdentityFinding", key.namespace, name), finding.uid),
                    reason,
                    note,
                    warning=warning,
                    action=action,
                )

    def tell_blast_radius(self, key: Key) -> None:
        """An Event on the finding whose act waits for the cap."""
        wishes = self.engine.wishes.get(key, ())
        note = f"The act due on {key} waits: the policy's blast radius is used up for now."
        for wish in wishes[:1]:
            finding = self.store.findings.get((key.namespace, wish.finding))
            if finding is not None:
                self.recorder.event(
                    reference(Key("IdentityFinding", key.namespace, wish.finding), finding.uid),
                    events.BLAST_RADIUS_REACHED,
                    note,
                    warning=True,
                    action="Quarantine",
                )
