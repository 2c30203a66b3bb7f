"""The loop: take a dirty key, judge it on the inventory as it stands, write what changed, say what is due next.

Level-based throughout: why a key is dirty does not matter, and handling one twice does nothing the second time.
The only writer of findings and of the statuses of the kinds people write.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any, Protocol

from tenure.api.base import ApiModel
from tenure.api.decision import IdentityDecisionStatus
from tenure.api.names import (
    API_VERSION,
    DECISIONS_NAME,
    LABEL_CLASS,
    LABEL_OWNER,
    LABEL_RISK,
    LABEL_RULE,
    DueOutcome,
    Phase,
    Rule,
)
from tenure.api.owner import IdentityOwnerStatus
from tenure.api.policy import GovernancePolicyStatus
from tenure.decide.finding import finding_name
from tenure.decide.hold import Quarantine
from tenure.decide.ladder import history
from tenure.decide.wish import Wish
from tenure.inventory import entitlements
from tenure.inventory.impact import affected, deciders_moved
from tenure.inventory.projection import PROJECTIONS
from tenure.inventory.snapshot import subjects
from tenure.inventory.store import Store, subject_key
from tenure.kube.client import Kube
from tenure.kube.errors import ApiError, Forbidden, NotFound
from tenure.kube.resources import BY_KIND, IDENTITY_DECISIONS, IDENTITY_FINDINGS
from tenure.model.evaluation import Evaluation, settled
from tenure.model.keys import Key
from tenure.model.records import Authored, Unprocessable
from tenure.reconcile.decision_guards import DecisionGuards
from tenure.reconcile.judge import Judge, Judgement, Moved
from tenure.reconcile.ledger import DUE, RENEWALS, Ledger
from tenure.reconcile.queue import WorkQueue
from tenure.reconcile.statuses import authored_status, is_processed, stalled_status
from tenure.reconcile.tallies import Tallies
from tenure.reconcile.verdicts import is_over, ready
from tenure.rules.owners import answer
from tenure.telemetry import events
from tenure.telemetry.events import Recorder
from tenure.telemetry.logs import about
from tenure.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

WORKERS = 8
"""Keys handled at once: their writes wait for the API server side by side, their judging takes turns on the loop."""

CEILING = 10_000
CEILING_PER_NAMESPACE = 1_000
"""Findings that may be stored, in all and per namespace (contract §3): a flood must not fill etcd. Those that are
written are never displaced."""

MANY = 500
"""Subjects that one change touches, above which they wait behind those that others touch."""

EVERYTHING = Key("Everything", "", "")
SWEEP = timedelta(days=30)
"""Everything is judged once in this time, whether anything changed or not."""
HORIZON = timedelta(days=40)
"""An instant that lies further ahead is not kept: the next sweep finds it again. Most credentials are due in months,
and their instants would weigh as much as they do."""

_SLICE = 0.005  # seconds a worker may judge without letting the loop serve watches, probes and scrapes

SUBJECT_KINDS = frozenset(
    {"ServiceAccount", "Secret", "RoleBinding", "ClusterRoleBinding", "OwnedIdentity", "IdentityException"}
)
AUTHORED_KINDS = frozenset(
    {"IdentityOwner", "OwnedIdentity", "IdentityException", "IdentityDecision", "GovernancePolicy"}
)


RIGHTS_KINDS = frozenset({"RoleBinding", "ClusterRoleBinding", "Role", "ClusterRole"})


class Enforcement(Protocol):
    """What the loop tells enforcement: look at this subject again."""

    def consider(self, key: Key) -> None: ...

    def vanished(self, quarantine: Quarantine) -> None:
        """A Quarantine is gone from the inventory."""

    def blocked(self, key: Key) -> str:
        """Why the act that is due on this subject has not begun, "" when nothing holds it."""

    def older_kinds(self) -> str:
        """What the cluster's kinds do not know of this version's, "" when they know all."""


class Engine:
    """Construct, `start` once every informer is synced, `stop`. One event loop."""

    def __init__(
        self,
        kube: Kube,
        store: Store,
        ledger: Ledger,
        judge: Judge,
        metrics: Metrics,
        recorder: Recorder,
        *,
        observed: tuple[str, ...] = (),
    ) -> None:
        """`observed` are the namespaces the installation is held to, () for the whole cluster."""
        self._observed = observed
        self._kube = kube
        self.store = store
        self._ledger = ledger
        self.judge = judge
        self._metrics = metrics
        self._recorder = recorder
        self._tallies = Tallies(store, metrics)
        self.now: Callable[[], datetime] = kube.clock.now
        self.queue: WorkQueue[Key] = WorkQueue(self.now)
        self._decision_guards = DecisionGuards(kube, store, self.now)
        self.enforcement: Enforcement | None = None
        self.wishes: dict[Key, tuple[Wish, ...]] = {}
        """What the findings of each subject want done, as last judged; only of subjects that wanted something once or
        are quarantined. A quarantined one that is not in here was not judged yet."""
        self._suppressed: dict[str, set[Key]] = {}
        self._named: dict[Key, tuple[str, int, str]] = {}
        """Unreadable objects that stand in the log, as (uid, generation, error)."""
        self._tasks: list[asyncio.Task[None]] = []
        self._slice_began = 0.0
        self.beat = 0.0
        """Loop time of the last key taken or idle turn, for the liveness probe."""

    async def start(self) -> None:
        """Records the installation's first complete inventory and every namespace's turn, then judges everything.
        Raises ApiError when that record cannot be written."""
        now = self.now()
        self._ledger.begin(now)
        for name in self.store.namespaces:
            self._turn(name, now)
        await self._ledger.flush()
        self.store.listeners.append(self._changed)
        self._tallies.all()
        for name in self.store.policies:
            self.queue.add(Key("GovernancePolicy", "", name))
        for name in self.store.owners:
            self.queue.add(Key("IdentityOwner", "", name))
        # What waives and what was written come before the rest: a waived finding is then not opened first.
        for namespace, name in self.store.exceptions:
            self.queue.add(Key("IdentityException", namespace, name))
        for decision in self.store.decisions.values():
            mark = self.queue.later if settled(decision) is not None else self.queue.add
            mark(Key("IdentityDecision", decision.namespace, decision.name))
        for finding in list(self.store.findings.values()):
            self.queue.add(subject_key(finding))
        for quarantine in list(self.store.quarantines.values()):
            self.queue.add(subject_key(quarantine))
        self.queue.sweep(key for key in subjects(self.store) if not self.store.findings_about(key))
        self.queue.at(EVERYTHING, now + SWEEP)
        for unread in list(self.store.unprocessable.values()):
            self._readable(unread.kind, None, unread)
        self._tasks = [asyncio.create_task(self._work(), name=f"reconcile-{n}") for n in range(WORKERS)]
        self._decision_guards.start()

    async def stop(self) -> None:
        """Ends the workers; writes under way are given up (they are repeated at the next start)."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._decision_guards.stop()

    def mark(self, key: Key) -> None:
        """Marks a key dirty."""
        self.queue.add(key)

    def answer_all(self) -> None:
        """Marks everything that people wrote: nothing was answered while the kinds were older."""
        store = self.store
        for table in (store.policies, store.owners, store.claims, store.exceptions, store.decisions):
            for record in table.values():
                self.queue.later(Key(record.kind, record.namespace, record.name))

    # --- what a change touches ---------------------------------------------------------------------------------

    def _changed(self, kind: str, old: Any, new: Any) -> None:
        """A store listener; runs inside every change, so it only marks."""
        self._tallies.changed(kind, old, new)
        self._decision_guards.changed(kind, old, new)
        self._readable(kind, old, new)
        self._decided_about(kind, old, new)
        touched = affected(self.store, kind, old, new)
        # A policy may touch every subject there is. Whatever else happens, or falls due, goes before.
        mark = self.queue.add if len(touched) <= MANY else self.queue.later
        for key in touched:
            mark(key)
        record = new or old
        if kind == "Namespace":
            self.queue.add(Key("Namespace", "", record.name))
            for name in self.store.policies:
                # Their statuses count namespaces: once per second is soon enough for a namespace factory.
                self.queue.at(Key("GovernancePolicy", "", name), self.now() + timedelta(seconds=1))
            self._owners_later({value for side in (old, new) if side is not None for _, value in side.labels})
        elif kind == "GovernancePolicy":
            self.queue.add(Key("GovernancePolicy", "", record.name))
            for name in self.store.namespaces:
                self.queue.add(Key("Namespace", "", name))
        elif kind in AUTHORED_KINDS:
            self._authored(kind, old, new)
        elif kind in RIGHTS_KINDS and deciders_moved(self.store, kind, old, new):
            self._owners_later(self.store.owners)
        elif kind == "IdentityFinding" and new is None and self._suppressed:
            for key in self._suppressed.pop(record.namespace, ()):
                self.queue.add(key)
        elif kind == "ServiceAccount" and old is not None and (new is None or new.uid != old.uid):
            for quarantine in self.store.quarantines_in(old.namespace):  # records of its revoked tokens end with it
                self.queue.add(subject_key(quarantine))
        elif kind == "Quarantine" and new is None and isinstance(old, Authored) and self.enforcement:
            self.enforcement.vanished(old)
        elif kind == "Quarantine" and isinstance(new, Authored) and new.deletion is not None and self.enforcement:
            # Also where its findings cannot be written any more: an end must not wait for that.
            self.enforcement.consider(subject_key(new))
        elif kind == "QuarantineGuard" and record.name != DECISIONS_NAME and self.enforcement:
            self.enforcement.consider(Key(kind, record.namespace, record.name))

    def _owners_later(self, names: Iterable[str]) -> None:
        """Owners whose status may say something else about where nobody may decide: soon is early enough, as for
        policies' statuses."""
        for name in names:
            if name in self.store.owners:
                self.queue.at(Key("IdentityOwner", "", name), self.now() + timedelta(seconds=1))

    def _decided_about(self, kind: str, old: Any, new: Any) -> None:
        """Marks the decisions that a change of their target may settle, or, once it is gone, set free to be deleted."""
        if kind not in ("IdentityException", "OwnedIdentity", "IdentityFinding", "Quarantine"):
            return
        for side in {(side.namespace, side.uid) for side in (old, new) if side is not None}:
            gone = new is None or new.uid != side[1] or (old is not None and old.generation != new.generation)
            for decision in self.store.decisions_about(*side):
                if gone or settled(decision) is None:
                    self.queue.add(Key("IdentityDecision", decision.namespace, decision.name))

    def _readable(self, kind: str, old: Any, new: Any) -> None:
        """Names an object that this version cannot read, once, and says when it can be read again."""
        if isinstance(new, Unprocessable):
            key, said = Key(kind, new.namespace, new.name), (new.uid, new.generation, new.error)
            if self._named.get(key) != said:
                self._named[key] = said
                text = "%s cannot be read by this version, so nothing begins where it may count: %s"
                log.error(text, key, new.error, extra=about(key, new.uid))
            self.queue.add(key)
        elif isinstance(old, Unprocessable):
            key = Key(kind, old.namespace, old.name)
            self._named.pop(key, None)
            log.info("%s %s", key, "can be read again" if new is not None else "is gone", extra=about(key, old.uid))
            if kind in ("IdentityFinding", "Quarantine") and isinstance(new, Authored):
                self.queue.add(subject_key(new))

    def _authored(self, kind: str, old: Any, new: Any) -> None:
        record = new or old
        self.queue.add(Key(kind, record.namespace, record.name))
        if kind == "IdentityOwner":
            for name in self.store.owners:  # a cycle or a lost backup shows on owners that were not touched
                self.queue.add(Key(kind, "", name))
        elif kind == "OwnedIdentity":
            for side in (old, new):
                if isinstance(side, Authored):
                    self.queue.add(Key("IdentityOwner", "", side.spec.owner))
                    self._owners_later((answer(side.spec.owner, self.store.owners).accountable,))

    # --- handling a key ----------------------------------------------------------------------------------------

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            key = await self.queue.take()
            self.beat = loop.time()
            try:
                await self._handle(key)
            except ApiError as error:
                delay = self.queue.failed(key, error.retry_after)
                log.warning("%s: %s; again in %.1f s", key, error, delay, extra=about(key))
            except Exception:
                # A defect in one subject must not end governance of all others.
                delay = self.queue.failed(key)
                log.exception("%s could not be judged; again in %.1f s", key, delay, extra=about(key))
            else:
                self.queue.done(key)
            if loop.time() - self._slice_began > _SLICE:
                await asyncio.sleep(0)
                self._slice_began = loop.time()

    async def _handle(self, key: Key) -> None:
        if key == EVERYTHING:
            self.queue.sweep(subjects(self.store))
            self.queue.at(EVERYTHING, self.now() + SWEEP)
            return
        if key.kind == "Namespace":
            if self._turn(key.name, self.now()):
                await self._ledger.flush()
                self._mark_namespace(key.name)
            return
        unread = self.store.unprocessable.get(key)
        if unread is not None:
            await self._stalled(unread)
            return
        if key.kind in AUTHORED_KINDS:
            await self._answer(key)
        if key.kind in SUBJECT_KINDS:
            await self._govern(key)

    def _mark_namespace(self, namespace: str) -> None:
        for account in self.store.service_accounts_in(namespace):
            self.queue.add(Key("ServiceAccount", namespace, account.name))
        for secret in self.store.secrets_in(namespace):
            self.queue.add(Key("Secret", namespace, secret.name))
        for key in entitlements.around(self.store, namespace):
            self.queue.add(key)

    def _turn(self, namespace: str, now: datetime) -> bool:
        """Notes when a namespace turns to enforcing or leaves it; adoptionGrace runs from there."""
        record = self.store.namespaces.get(namespace)
        enforcing = record is not None and self.judge.enforcing(namespace)
        return self._ledger.turn(namespace, enforcing, now)

    async def _govern(self, key: Key) -> None:
        if key in self.store.unprocessable:
            return  # what it says is unknown: judged, it would count as gone, and its findings as decided
        if self._unknown(key):
            self.wishes.pop(key, None)  # as if it was never judged: then enforcement leaves it as it is
            return
        now = self.now()
        blocked = self.enforcement.blocked(key) if self.enforcement else ""
        judgement = self.judge.judge(key, now, blocked)
        self._tallies.subject(judgement.evaluation)
        if not judgement.evaluation.exists and key.namespace in self._suppressed:
            self._suppressed[key.namespace].discard(key)  # what is gone waits for no place
        namespace = self.store.namespaces.get(key.namespace)
        leaving = namespace is None or namespace.deleting
        for moved in judgement.findings:
            if not leaving or moved.previous is not None:
                await self._write(judgement, moved)
                for name, status in moved.step.rulings.items():
                    await self.answer_decision(key.namespace, name, status)
        far = judgement.next is not None and judgement.next - now > HORIZON
        self.queue.at(key, None if far else judgement.next)
        before, quarantined = self.wishes.get(key), self._quarantined(key)
        if judgement.wishes or quarantined or (before is not None and judgement.evaluation.exists):
            self.wishes[key] = judgement.wishes
        else:
            self.wishes.pop(key, None)
        if self.enforcement and (judgement.wishes or before or quarantined):
            self.enforcement.consider(key)

    def _unknown(self, key: Key) -> bool:
        """Whether a finding of the subject cannot be read, or a Quarantine that may be the one its findings tell of:
        the clocks are in the one, what to give back in the other."""
        unread = self.store.unprocessable
        if not unread:
            return False
        if any(Key("IdentityFinding", key.namespace, finding_name(key, rule)) in unread for rule in Rule):
            return True
        if not any(found.kind == "Quarantine" and found.namespace == key.namespace for found in unread):
            return False
        listed = {name for q in self.store.quarantines_in(key.namespace) for name in q.spec.findings}
        return any(
            finding.name not in listed
            for finding in self.store.findings_about(key)
            if finding.status is not None and finding.status.phase is Phase.QUARANTINED
        )

    def _quarantined(self, key: Key) -> bool:
        return any(subject_key(quarantine) == key for quarantine in self.store.quarantines_in(key.namespace))

    # --- findings ----------------------------------------------------------------------------------------------

    async def _write(self, judgement: Judgement, moved: Moved) -> None:
        """Brings one finding to its next state: one server-side apply, or nothing when nothing changed."""
        step, previous = moved.step, moved.previous
        namespace = judgement.key.namespace
        if step.delete:
            if previous is not None:
                await self._forget(previous.namespace, previous.name, previous.uid)
            return
        if step.spec is None or step.status is None:
            return
        if previous is None and self._over_ceiling(judgement.key):
            return
        labels = {
            LABEL_RULE: moved.rule.value,
            LABEL_RISK: step.status.risk.level.value,
            LABEL_OWNER: step.status.accountable.owner,
            LABEL_CLASS: step.status.class_.value,
        }
        if (
            previous is not None
            and previous.spec == step.spec
            and previous.status == step.status
            and all(dict(previous.labels).get(name) == value for name, value in labels.items())
        ):
            return
        await self._count(judgement.evaluation, moved)
        manifest = {
            "apiVersion": API_VERSION,
            "kind": "IdentityFinding",
            "metadata": {"name": moved.name, "namespace": namespace, "labels": labels},
            "spec": step.spec.wire(),
            "status": step.status.wire(),
        }
        try:
            stored = await self._kube.apply(IDENTITY_FINDINGS, manifest)
        except Forbidden as error:
            if error.has_cause("NamespaceTerminating"):
                return  # it went between the judgement and the write
            raise
        self.store.upsert("IdentityFinding", PROJECTIONS["IdentityFinding"](stored))
        self._tell(judgement, moved)

    async def _count(self, evaluation: Evaluation, moved: Moved) -> None:
        """Counts an opening's outcome, and a renewal, before the finding that is stamped with it is written (see
        Ledger)."""
        renewed = self._count_renewal(evaluation, moved)
        if self._count_outcome(evaluation.key.namespace, moved) or renewed:
            await self._ledger.flush()

    def _count_renewal(self, evaluation: Evaluation, moved: Moved) -> bool:
        """A renewal follows on an end that was granted and stored: its finding has a uid."""
        status, previous = moved.step.status, moved.previous
        waiver = evaluation.waivers.get(moved.rule)
        if status is None or previous is None or previous.status is None or waiver is None:
            return False
        number = status.debt.renewals
        if number <= previous.status.debt.renewals:
            return False
        self._ledger.count(RENEWALS, (waiver.class_,), f"{previous.namespace}/{moved.name}~{previous.uid}~{number}")
        return True

    def _count_outcome(self, namespace: str, moved: Moved) -> bool:
        status, before = moved.step.status, moved.previous.status if moved.previous else None
        if status is None or status.due_outcome is DueOutcome.PENDING:
            return False
        if before and before.due_outcome is status.due_outcome and before.opening == status.opening:
            return False
        # A stored opening has its instant. One that this very write would open gets another instant when the write is
        # repeated after a crash: its number and its subject name it.
        stored = before is not None and before.opened == status.opened and before.opening == status.opening
        uid = moved.step.spec.subject.uid if moved.step.spec else ""
        mark = f"@{status.opened.isoformat()}" if stored and status.opened else f"#{status.opening}@{uid}"
        outcome = (status.risk.level.value, status.due_outcome.value)
        self._ledger.count(DUE, outcome, f"{namespace}/{moved.name}{mark}")
        return True

    def _tell(self, judgement: Judgement, moved: Moved) -> None:
        status, before = moved.step.status, moved.previous.status if moved.previous else None
        assert status is not None
        assert moved.step.spec is not None
        class_ = status.decision.class_ if status.decision else ""
        self._metrics.finding_written(before, moved.step.spec, status, exception_class=class_)
        overdue = status.due_outcome is DueOutcome.MISSED and status.decided is None
        if overdue and (before is None or before.due_outcome is DueOutcome.PENDING):
            finding = self.store.findings.get((judgement.key.namespace, moved.name))
            if finding is not None:
                self._recorder.event(
                    events.reference(Key("IdentityFinding", finding.namespace, finding.name), finding.uid),
                    events.DECISION_OVERDUE,
                    f"{moved.rule} of {status.subject} was due {status.due:%Y-%m-%dT%H:%M:%SZ} and nobody has decided.",
                    warning=True,
                    action="Escalate",
                )
        if before is not None and before.released != status.released and status.released is not None:
            self._metrics.released_early()
        self._tell_steps(judgement, moved)

    def _tell_steps(self, judgement: Judgement, moved: Moved) -> None:
        """Each step of escalation that this write stamped, once: in the metric, and as an Event on finding and
        subject."""
        status, before = moved.step.status, moved.previous.status if moved.previous else None
        assert status is not None
        taken = before.accountable.step if before is not None and before.opening == status.opening else 0
        steps = history(status)[taken:] if status.accountable.step > taken else ()
        finding = self.store.findings.get((judgement.key.namespace, moved.name))
        for number, line in enumerate(steps, start=taken + 1):
            self._metrics.escalated(number)
            note = (
                f"{moved.rule} of {status.subject} is undecided and due {status.due:%Y-%m-%dT%H:%M:%SZ}; {line.detail}."
            )
            about_it = [events.reference(judgement.key, judgement.evaluation.uid)]
            if finding is not None:
                about_it.append(events.reference(Key("IdentityFinding", finding.namespace, finding.name), finding.uid))
            for regarding in about_it:
                self._recorder.event(regarding, events.ESCALATED, note, warning=True, action="Escalate")

    async def _forget(self, namespace: str, name: str, uid: str) -> None:
        with contextlib.suppress(NotFound):
            await self._kube.delete(IDENTITY_FINDINGS, name, namespace, uid=uid)
        self.store.remove("IdentityFinding", namespace, name)

    def _over_ceiling(self, key: Key) -> bool:
        in_namespace = len(self.store.findings_in(key.namespace))
        if len(self.store.findings) < CEILING and in_namespace < CEILING_PER_NAMESPACE:
            return False
        suppressed = self._suppressed.setdefault(key.namespace, set())
        if not suppressed:
            self._metrics.blocked("Ceiling")
            log.warning(
                "namespace %s: the ceiling of findings is reached (%d here, %d in all); further ones are counted, "
                "neither written nor acted on. Decide or fix what is open there.",
                key.namespace,
                in_namespace,
                len(self.store.findings),
            )
        suppressed.add(key)
        return True

    # --- verdicts ------------------------------------------------------------------------------------------------

    async def answer_decision(self, namespace: str, name: str, status: IdentityDecisionStatus) -> None:
        """Says in a decision's status what became of it; what it led to must be stored before."""
        decision = self.store.decisions.get((namespace, name))
        if decision is None:
            return
        status = status.model_copy(update={"conditions": ready(decision, self.now())})
        with contextlib.suppress(NotFound):  # it went with its namespace
            stored = await self._kube.apply(
                IDENTITY_DECISIONS, _status_of(Key("IdentityDecision", namespace, name), status), subresource="status"
            )
            self.store.upsert("IdentityDecision", PROJECTIONS["IdentityDecision"](stored))

    # --- the kinds people write ----------------------------------------------------------------------------------

    async def _answer(self, key: Key) -> None:
        """Writes the status of an authored object, where it changed."""
        record = self.store.get(key)
        if not isinstance(record, Authored):
            return
        if key.kind == "IdentityDecision":
            if is_over(self.store, record, self.now(), self.judge.installation):
                await self._delete(record)
                return
        elif key.kind in SUBJECT_KINDS:
            # First what was decided about it: a review's deadline, for one, is what stood before it was attested.
            for decision in self.store.decisions_about(record.namespace, record.uid):
                if settled(decision) is None:
                    await self._answer(Key("IdentityDecision", decision.namespace, decision.name))
            record = self.store.get(key)
            if not isinstance(record, Authored):
                return
        status, due = authored_status(self.store, key, self.now(), self.judge.installation)
        if key.kind not in SUBJECT_KINDS:
            self.queue.at(key, due)  # a subject's own judgement knows this instant too and sets it
        if status is None or status == record.status or self._elsewhere(record, status):
            return
        if self.enforcement is not None and self.enforcement.older_kinds():
            return  # a write takes from the object what its kind does not know; `answer_all` comes later
        resource = BY_KIND[key.kind]
        try:
            stored = await self._kube.apply(resource, _status_of(key, status), subresource="status")
        except NotFound:
            return  # deleted meanwhile
        self.store.upsert(key.kind, PROJECTIONS[key.kind](stored))

    async def _delete(self, decision: Authored[Any, Any]) -> None:
        """Deletes a decision whose retention is over."""
        with contextlib.suppress(NotFound):
            await self._kube.delete(IDENTITY_DECISIONS, decision.name, decision.namespace, uid=decision.uid)
        self.store.remove(decision.kind, decision.namespace, decision.name)

    async def _stalled(self, unread: Unprocessable) -> None:
        """Says in the status of an authored object that its spec cannot be processed. One with a hidden field is not
        written to: that would lose the field."""
        key = Key(unread.kind, unread.namespace, unread.name)
        if key.kind not in AUTHORED_KINDS or unread.cut:
            return
        try:
            raw = await self._kube.get(BY_KIND[key.kind], key.name, key.namespace)
        except NotFound:
            return
        before = raw.get("status") or {}
        if self._observed and not key.namespace and is_processed(before, unread.generation):
            return  # another operator can read it
        status = stalled_status(before, unread, self.now())
        if status is None:
            return
        metadata = {"name": key.name} | ({"namespace": key.namespace} if key.namespace else {})
        manifest = {"apiVersion": API_VERSION, "kind": key.kind, "metadata": metadata, "status": status}
        with contextlib.suppress(NotFound):
            await self._kube.apply(BY_KIND[key.kind], manifest, subresource="status")

    def _elsewhere(self, record: Authored[Any, Any], status: ApiModel) -> bool:
        """Whether an operator that is held to some namespaces should leave a cluster-scoped object's status alone: it
        counts nothing there, and another operator's figures must not be overwritten with that. It speaks all the same
        where nobody has taken in the present spec: whoever waits for that would wait for good."""
        if not self._observed or record.status is None or record.status.observed_generation != record.generation:
            return False
        if isinstance(status, GovernancePolicyStatus):
            return status.namespaces == 0 and not status.conflicts
        return isinstance(status, IdentityOwnerStatus) and not self.store.claims_of_owner(record.name)

    # --- reading for others --------------------------------------------------------------------------------------

    def reviews(self) -> dict[str, int]:
        """Claims and exceptions by the state of their review."""
        return self._tallies.reviews(self.now())

    @property
    def suppressed(self) -> dict[str, int]:
        """Subjects whose findings the ceiling keeps unwritten, by namespace."""
        return {namespace: len(keys) for namespace, keys in self._suppressed.items() if keys}

    def stuck(self, seconds: float) -> str | None:
        """What is wrong when a worker has died, or keys wait and none was taken for so long; None when all is well."""
        dead = [task.get_name() for task in self._tasks if task.done()]
        if self._decision_guards.ended():
            dead.append("decision guards")
        if dead:
            return f"ended: {', '.join(dead)}"
        idle = asyncio.get_running_loop().time() - self.beat
        if self.queue.ready and idle > seconds:
            return f"{self.queue.ready} keys wait and none was taken for {idle:.0f} s"
        return None


def _status_of(key: Key, status: ApiModel) -> dict[str, Any]:
    metadata = {"name": key.name} | ({"namespace": key.namespace} if key.namespace else {})
    return {"apiVersion": API_VERSION, "kind": key.kind, "metadata": metadata, "status": status.wire()}
