"""Carries out what findings want: intent, stages, verification, revocation, release.

Driven by the Quarantines as stored, never by what this process remembers: whatever instant it is killed at, the next
one finds the Quarantine, sees which stages say `done`, and goes on. The order of writes is what makes that safe:

    start    ledger (blast radius) -> Quarantine -> guard -> pre-image in status -> label -> status
    revoke   ledger -> names in status -> guard -> delete -> status -> finalizer off (a Secret's record stays)
    release  findings reopened, or release in status and delete -> label back -> guard -> finalizer off
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from tenure.api.conditions import ConditionType
from tenure.api.names import (
    API_VERSION,
    FINALIZER,
    GUARD_NAME,
    OPERATOR_NAMESPACE,
    TYPE_SERVICE_ACCOUNT_TOKEN,
    OnDeadline,
    Phase,
    Stage,
    Verdict,
)
from tenure.api.policy import BlastRadius
from tenure.api.quarantine import (
    DisabledToken,
    QuarantineRelease,
    QuarantineSpec,
    QuarantineStatus,
    QuarantineSubject,
    Revoked,
    StageStatus,
    Tripwire,
)
from tenure.decide.held import HELD
from tenure.decide.hold import OPERATOR, Quarantine
from tenure.decide.wish import Wish, may_not, order
from tenure.enforce import live, tokens
from tenure.enforce.blast import Budget, pick
from tenure.enforce.guards import Guards
from tenure.enforce.names import quarantine_name
from tenure.inventory.projection import PROJECTIONS
from tenure.inventory.store import Store
from tenure.kube.client import Kube
from tenure.kube.errors import ApiError, Forbidden, Invalid, NotFound
from tenure.kube.resources import IDENTITY_FINDINGS, QUARANTINES
from tenure.model.keys import Key
from tenure.model.records import Secret
from tenure.reconcile.engine import Engine
from tenure.reconcile.ledger import Ledger, RecordedAct
from tenure.reconcile.queue import WorkQueue
from tenure.telemetry import events
from tenure.telemetry.events import Recorder, reference
from tenure.telemetry.logs import about
from tenure.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

STAGES = (Stage.GUARD, Stage.DISABLE_TOKENS)
"""The stages this version carries out; others that a policy names are left out of the intent."""

_PICK = Key("", "", "pick")
_LOOK_AGAIN = timedelta(seconds=1)  # while the inventory is not fresh
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 60.0  # seconds between two tries to begin one subject's act


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
        fresh: Callable[[], str] = lambda: "",
    ) -> None:
        """`fresh` says why the inventory is not fresh, "" when it is; nothing begins while it is not."""
        self._kube = kube
        self._store = store
        self._ledger = ledger
        self._engine = engine
        self._metrics = metrics
        self._recorder = recorder
        self._fresh = fresh
        self._guards = Guards(kube, store, operator_namespace, observed)
        self._queue: WorkQueue[Key] = WorkQueue(kube.clock.now)
        self._pending: dict[Key, Wish] = {}
        self._blocked: dict[Key, str] = {}
        self._waiting: dict[Key, str] = {}
        self._vanished: dict[Key, list[Quarantine]] = {}
        self._given_back: set[str] = set()
        self._postponed: dict[Key, tuple[int, datetime]] = {}  # tries that failed, and when the next one is
        self._task: asyncio.Task[None] | None = None

    # --- the port the loop sees --------------------------------------------------------------------------------

    def consider(self, key: Key) -> None:
        """Looks at a subject (or at a touched guard) again."""
        self._queue.add(key)

    def vanished(self, quarantine: Quarantine) -> None:
        """A Quarantine is gone. Where its finalizer was taken off by hand before we gave back, that is done now."""
        self.consider(Key("QuarantineGuard", quarantine.namespace, GUARD_NAME))
        namespace = self._store.namespaces.get(quarantine.namespace)
        if namespace is None or namespace.deleting:
            return
        if quarantine.uid in self._given_back:
            self._given_back.discard(quarantine.uid)
        elif not _is_record(quarantine) and quarantine.status and quarantine.status.disabled_tokens:
            self._vanished.setdefault(_subject(quarantine), []).append(quarantine)
            self.consider(_subject(quarantine))

    def blocked(self, key: Key) -> str:
        """Why the act that is due on this subject has not begun; a key of decide.held.HELD."""
        return self._blocked.get(key, "")

    def queue(self) -> dict[str, int]:
        """Acts that wait, by reason, for the metric."""
        lengths: dict[str, int] = {}
        for key in self._pending:
            reason = self._waiting.get(key) or self._blocked.get(key) or "Ready"
            lengths[reason] = lengths.get(reason, 0) + 1
        for key, reason in self._waiting.items():
            if key not in self._pending:
                lengths[reason] = lengths.get(reason, 0) + 1
        return lengths

    def start(self) -> None:
        """Begins to act; the loop must have been started (a subject that was not judged yet is left alone)."""
        for finding in self._store.findings.values():
            # What held an act when the last process ended goes on holding it until we have looked: a restart alone
            # must not take the condition off and put it on again.
            conditions = finding.status.conditions if finding.status else ()
            for reason in (c.reason for c in conditions if c.type == ConditionType.BLOCKED and c.reason in HELD):
                about_it = finding.spec.subject
                self._blocked[Key(about_it.kind, about_it.namespace or "", about_it.name)] = reason
        for quarantine in self._store.quarantines.values():
            self.consider(_subject(quarantine))
        for namespace, _ in list(self._store.guards):
            self.consider(Key("QuarantineGuard", namespace, GUARD_NAME))
        self._task = asyncio.create_task(self._work(), name="enforce")

    def ended(self) -> str | None:
        """What is wrong when the worker has died, None when all is well."""
        return "ended: enforce" if self._task is not None and self._task.done() else None

    async def stop(self) -> None:
        """Ends the worker; an act under way is taken up again by the next process."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # --- the worker --------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        while True:
            key = await self._queue.take()
            try:
                await self._handle(key)
            except ApiError as error:
                await self._failed(key, error)
            except Exception:
                # A defect on one subject must not end enforcement, and above all not release, of all others.
                delay = self._queue.failed(key)
                log.exception("%s: enforcement failed; again in %.1f s", key, delay, extra=about(key))
            else:
                if self._waiting.get(key) == "Retry" and key not in self._postponed:
                    del self._waiting[key]
                self._queue.done(key)
            await asyncio.sleep(0)

    async def _failed(self, key: Key, error: ApiError) -> None:
        delay = self._queue.failed(key, error.retry_after)
        if key is not _PICK:
            self._waiting[key] = "Retry"
        log.warning("%s: enforcement: %s; again in %.1f s", key, error, delay, extra=about(key))
        if isinstance(error, Forbidden | Invalid):
            self._block(key, "MissingRight")

    async def _handle(self, key: Key) -> None:
        if key == _PICK:
            await self._begin_next()
            return
        if key.kind == "QuarantineGuard":
            await self._guards.rebuild(key.namespace)
            return
        for quarantine in self._vanished.get(key, []):
            await self._give_back(quarantine)
        self._vanished.pop(key, None)
        wishes = self._engine.wishes.get(key)
        quarantines = self._about(key)
        for quarantine in quarantines:
            await self._drive(key, quarantine, wishes or ())
        if wishes is not None:
            self._plan(key, wishes)

    def _about(self, key: Key) -> list[Quarantine]:
        return sorted(
            (q for q in self._store.quarantines_in(key.namespace) if _subject(q) == key),
            key=lambda q: (q.created, q.name),
        )

    def _plan(self, key: Key, wishes: tuple[Wish, ...]) -> None:
        """Lines the subject up for the blast radius when an act on it is due and none is under way."""
        due = [w for w in wishes if w.act is not None]
        # One that is still giving back has the name that a new one would get: that one waits until it is gone.
        standing = any(not _is_record(q) for q in self._about(key))
        if not due or standing:
            self._pending.pop(key, None)
            if not standing:  # what blocks a standing Quarantine's next step is that step's to say
                self._unblock(key)
                self._postponed.pop(key, None)
            return
        if key in self._postponed and self._now() < self._postponed[key][1]:
            self._queue.at(key, self._postponed[key][1])
            return
        self._pending[key] = min(due, key=order)
        self._queue.add(_PICK)

    def _block(self, key: Key, reason: str) -> None:
        if self._blocked.get(key) != reason:
            self._blocked[key] = reason
            self._metrics.blocked(reason)
            self._engine.mark(key)

    def _unblock(self, key: Key) -> None:
        if self._blocked.pop(key, None):
            self._engine.mark(key)

    # --- beginning ---------------------------------------------------------------------------------------------

    async def _begin_next(self) -> None:
        """Begins the one act whose turn it is; the others wait, and say for what."""
        stale = self._fresh()
        if stale:
            for key in self._pending:
                self._block(key, "InventoryStale")
            self._queue.at(_PICK, self._now() + _LOOK_AGAIN)
            return
        now = self._now()
        # An act that was entered before a crash has its place already: it must not wait for a second one.
        choice = pick(self._pending, lambda wish: self._budget(wish, now, but=_opening(wish)), self._subjects_in, now)
        for key in self._pending:
            if key in choice.waiting:
                if self._waiting.get(key) != "BlastRadius":
                    self._waiting[key] = "BlastRadius"
                    self._tell_blast_radius(key)
                self._block(key, "BlastRadius")
            elif self._waiting.get(key) == "BlastRadius":
                del self._waiting[key]
        self._queue.at(_PICK, choice.free_at)
        if choice.key is None:
            return
        key, wish = choice.key, self._pending.pop(choice.key)
        self._waiting.pop(key, None)
        try:
            await self._begin(key, wish)
        except ApiError as error:
            self._postpone(key, error)
        else:
            self._postponed.pop(key, None)
        if self._pending:
            self._queue.add(_PICK)

    def _postpone(self, key: Key, error: ApiError) -> None:
        """A subject whose act cannot begin waits by itself, longer each time: it must not hold up the others."""
        tries = self._postponed[key][0] if key in self._postponed else 0
        delay = max(error.retry_after or 0.0, min(_FIRST_PAUSE * 2 ** min(tries, 16), _LONGEST_PAUSE))
        until = self._now() + timedelta(seconds=delay)
        self._postponed[key] = (tries + 1, until)
        self._waiting[key] = "Retry"
        self._queue.at(key, until)
        log.warning("%s: enforcement: %s; again in %.1f s", key, error, delay, extra=about(key))
        if isinstance(error, Forbidden | Invalid):
            self._block(key, "MissingRight")

    def _budget(self, wish: Wish, now: datetime, *, but: str = "") -> Budget:
        """What the wish's policy has used, without the act whose id ends so."""
        name = wish.terms.reference.removeprefix("GovernancePolicy/")
        policy = self._store.policies.get(name)
        cap = policy.spec.blast_radius if policy else BlastRadius()
        acts = self._ledger.acts(name, now - cap.window)
        return Budget(cap, tuple(act for act in acts if not but or not act.id.endswith(but)))

    def _subjects_in(self, namespace: str) -> int:
        secrets = self._store.secrets_in(namespace)
        return len(self._store.service_accounts_in(namespace)) + sum(
            1 for s in secrets if s.type == TYPE_SERVICE_ACCOUNT_TOKEN
        )

    async def _begin(self, key: Key, wish: Wish) -> None:
        """Judges again on live facts, then writes the intent and goes straight on with its stages."""
        wishes = await self._confirmed(key)
        due = [w for w in wishes if w.act is not None]
        if not due:
            self._unblock(key)
            return
        if key.kind == "Secret":
            record = self._store.secrets.get((key.namespace, key.name))
            if record is None or record.type != TYPE_SERVICE_ACCOUNT_TOKEN:
                self._block(key, "UnsupportedSubject")
                return
        self._unblock(key)
        now = self._now()
        uid = self._engine.judge.judge(key, now).evaluation.uid
        policy = wish.terms.reference.removeprefix("GovernancePolicy/")
        top = min(due, key=order)
        self._ledger.act(RecordedAct(f"{quarantine_name(key, uid)}{_opening(top)}", now, key.namespace, policy))
        await self._ledger.flush()
        spec = self._intent(key, uid, tuple(due), now)
        quarantine = await self._write_intent(key.namespace, quarantine_name(key, uid), spec)
        self._say(key, uid, wishes, _begun(key), f"Quarantine {quarantine.name} begins: {top.message}", "Quarantine")
        await self._drive(key, quarantine, wishes)

    def _intent(self, key: Key, uid: str, wishes: tuple[Wish, ...], now: datetime) -> QuarantineSpec:
        top = min(wishes, key=order)
        revoke = any(w.act is Verdict.REVOKE for w in wishes)
        after = [w.terms.revoke_after for w in wishes if w.terms.revoke_after is not None]
        wanted = {stage for w in wishes for stage in w.terms.stages}
        return QuarantineSpec(
            subject=QuarantineSubject(kind=key.kind, namespace=key.namespace, name=key.name, uid=uid),
            findings=tuple(sorted(w.finding for w in wishes)),
            stages=tuple(stage for stage in STAGES if stage in wanted) or STAGES[:1],
            verdict=Verdict.REVOKE if revoke else Verdict.QUARANTINE,
            revoke_at=now if revoke else (now + min(after) if after else None),
            stage_interval=max(w.terms.stage_interval for w in wishes),
            hold_after_use=max(w.terms.hold_after_use for w in wishes),
            reason=top.message[:500],
        )

    async def _write_intent(self, namespace: str, name: str, spec: QuarantineSpec, uid: str = "") -> Quarantine:
        """`uid` says that it exists: without it an apply would bring back one that a person has just released."""
        standing = {"uid": uid} if uid else {}
        stored = await self._kube.apply(
            QUARANTINES,
            {
                "apiVersion": API_VERSION,
                "kind": "Quarantine",
                "metadata": {"name": name, "namespace": namespace, "finalizers": [FINALIZER], **standing},
                "spec": spec.wire(),
            },
        )
        self._store.upsert("Quarantine", PROJECTIONS["Quarantine"](stored))
        return self._store.quarantines[(namespace, name)]

    async def _confirmed(self, key: Key, quarantine: Quarantine | None = None) -> tuple[Wish, ...]:
        """Reads the facts live and judges again: what the findings want at this instant; nothing where somebody has
        released the Quarantine. Raises ApiError when any of it cannot be read; then nothing may be done."""
        await live.refresh(self._kube, self._store, key)
        if quarantine is not None:
            await live.one(self._kube, self._store, Key("Quarantine", quarantine.namespace, quarantine.name))
            now = self._store.quarantines.get((quarantine.namespace, quarantine.name))
            if now is None or now.uid != quarantine.uid or now.deletion is not None:
                return ()
        namespace = self._store.namespaces.get(key.namespace)
        if namespace is None or namespace.deleting:
            return ()
        return self._engine.judge.judge(key, self._now()).wishes

    # --- one Quarantine ----------------------------------------------------------------------------------------

    async def _drive(self, key: Key, quarantine: Quarantine, wishes: tuple[Wish, ...]) -> None:
        """Takes one Quarantine as far as it can go now."""
        status = quarantine.status or QuarantineStatus()
        judged = key in self._engine.wishes
        if quarantine.deletion is not None:
            await self._end(key, quarantine)
        elif _is_record(quarantine):
            await self._keep_record(quarantine)
        elif status.release is not None:
            await self._delete(quarantine)
        elif self._is_being_recorded(quarantine):
            return  # whose names it is to keep finishes it before it goes
        elif not judged:
            return  # after a restart nothing is released before its findings were looked at
        elif self._is_gone(key, quarantine) and key.kind == "Secret":
            await self._revoked_elsewhere(key, quarantine)
        elif self._is_gone(key, quarantine) or not wishes:
            await self._release(key, quarantine)
        else:
            await self._advance(key, quarantine, wishes)

    def _is_being_recorded(self, quarantine: Quarantine) -> bool:
        """A crash came between the two writes of a record, and the Quarantine that revoked its subject still stands."""
        uid = quarantine.spec.subject.uid
        return _is_unfinished(quarantine) and any(
            entry.uid == uid
            for other in self._store.quarantines_in(quarantine.namespace)
            if other.name != quarantine.name and other.status
            for entry in other.status.revoked
        )

    def _is_gone(self, key: Key, quarantine: Quarantine) -> bool:
        record = self._store.get(key)
        return record is None or getattr(record, "uid", "") != quarantine.spec.subject.uid

    async def _advance(self, key: Key, quarantine: Quarantine, wishes: tuple[Wish, ...]) -> None:
        """Stages in order, then revocation when its time has come."""
        spec = self._renewed_intent(quarantine.spec, wishes)
        if spec != quarantine.spec or FINALIZER not in quarantine.finalizers:
            quarantine = await self._write_intent(quarantine.namespace, quarantine.name, spec, quarantine.uid)
        if self._guards.lacks(quarantine):
            await self._guards.rebuild(quarantine.namespace)
        previous: datetime | None = None
        for stage in quarantine.spec.stages:
            done = _stage(quarantine, stage)
            undone = self._undone(quarantine, stage)
            if done is not None and done.verified is not None:
                for secret in self._relit(quarantine, undone):
                    self._metrics.reverted(secret.managed_by.manager if secret.managed_by else "")
            if done is None or done.verified is None or undone:
                interval = quarantine.spec.stage_interval or timedelta(0)
                if previous is not None and self._now() < previous + interval:
                    self._waiting[key] = "StageInterval"
                    self._queue.at(key, previous + interval)
                    return
                if not await self._carry_out(key, quarantine, stage, wishes):
                    return
                quarantine = self._store.quarantines[(quarantine.namespace, quarantine.name)]
                done = _stage(quarantine, stage)
            previous = done.done if done else None
        self._waiting.pop(key, None)
        quarantine = await self._notice_use(key, quarantine, wishes)
        await self._revoke_when_due(key, quarantine, wishes)

    def _renewed_intent(self, spec: QuarantineSpec, wishes: tuple[Wish, ...]) -> QuarantineSpec:
        """The findings that want it now. Its revocation goes when none of them asks for one, and comes forward (never
        back) when one that joins does."""
        names = tuple(sorted(w.finding for w in wishes))
        joined = [w for w in wishes if w.finding not in spec.findings]
        revokes = any(w.terms.revoke_after is not None or w.terms.on_deadline is OnDeadline.REVOKE for w in wishes)
        revoke_at = spec.revoke_at if revokes else None
        for wish in joined:
            after = timedelta(0) if wish.terms.on_deadline is OnDeadline.REVOKE else wish.terms.revoke_after
            if after is not None:
                revoke_at = min(filter(None, (revoke_at, self._now() + after)))
        if tuple(sorted(spec.findings)) == names and spec.revoke_at == revoke_at:
            return spec
        return spec.model_copy(update={"findings": names, "revoke_at": revoke_at})

    async def _notice_use(self, key: Key, quarantine: Quarantine, wishes: tuple[Wish, ...]) -> Quarantine:
        """The tripwire: the API server stamps the day of a refused attempt too. Told once per day that is stamped."""
        status = quarantine.status
        if status is None or status.tripwire is None:
            return quarantine
        seen = status.tripwire.last_used_before
        if status.last_attempt is not None:
            seen = max(seen, status.last_attempt.strftime("%Y-%m-%d"))
        used = max((secret.last_used for secret in self._tokens_of(quarantine)), default="")
        if used <= seen:
            return quarantine
        try:
            day = datetime.strptime(used, "%Y-%m-%d").replace(tzinfo=UTC)
        except ValueError:
            return quarantine
        self._metrics.tripwire()
        note = f"A token under Quarantine {quarantine.name} was used on {used}: this identity is alive."
        self._say(key, quarantine.spec.subject.uid, wishes, events.TRIPWIRE, note, "Quarantine", warning=True)
        return await self._write_status(quarantine, status.model_copy(update={"last_attempt": day}))

    def _undone(self, quarantine: Quarantine, stage: Stage) -> list[Secret]:
        """What a finished stage should hold and does not: a new token, or one whose label was taken off."""
        if stage is not Stage.DISABLE_TOKENS:
            return []
        gone = {r.name for r in quarantine.status.revoked} if quarantine.status else set()
        known = {t.uid for t in quarantine.status.disabled_tokens} if quarantine.status else set()
        return [
            secret
            for secret in self._tokens_of(quarantine)
            if (secret.uid not in known or not secret.invalid_since) and secret.name not in gone and not secret.deleting
        ]

    def _relit(self, quarantine: Quarantine, undone: list[Secret]) -> list[Secret]:
        """Those whose label we had set and somebody took off (a new token is no revert)."""
        known = {t.uid for t in quarantine.status.disabled_tokens} if quarantine.status else set()
        return [secret for secret in undone if secret.uid in known]

    def _tokens_of(self, quarantine: Quarantine) -> tuple[Secret, ...]:
        subject = quarantine.spec.subject
        if subject.kind == "ServiceAccount":
            return self._store.tokens_of(quarantine.namespace, subject.name)
        record = self._store.secrets.get((quarantine.namespace, subject.name))
        return (record,) if record is not None and record.uid == subject.uid else ()

    async def _still_wanted(self, key: Key, quarantine: Quarantine, wishes: tuple[Wish, ...]) -> tuple[Wish, ...]:
        """The wishes as they stand live when a further step may be taken, () when not. What is known to forbid it
        costs no request."""
        held = may_not(wishes)
        if not held:
            wishes = await self._confirmed(key, quarantine)
            if not wishes or self._is_gone(key, quarantine):
                self._engine.mark(key)
                return ()
            held = may_not(wishes)
        if held:
            self._block(key, held)
            return ()
        return wishes

    async def _carry_out(self, key: Key, quarantine: Quarantine, stage: Stage, wishes: tuple[Wish, ...]) -> bool:
        """One stage: judged again live, done, verified, written down. False when it must not go on."""
        wishes = await self._still_wanted(key, quarantine, wishes)
        if not wishes:
            return False
        kind = quarantine.spec.subject.kind
        verified = False
        if stage is Stage.GUARD:
            await self._guards.rebuild(quarantine.namespace)
            verified = await self._guards.in_force(quarantine.namespace, quarantine)
        elif stage is Stage.DISABLE_TOKENS:
            quarantine = await self._remember(quarantine)
            await self._guards.rebuild(quarantine.namespace)
            assert quarantine.status is not None
            today = self._now().strftime("%Y-%m-%d")
            for token in quarantine.status.disabled_tokens:
                await tokens.disable(self._kube, self._store, quarantine.namespace, token, today)
            verified = all(
                [
                    await tokens.is_disabled(self._kube, quarantine.namespace, token)
                    for token in quarantine.status.disabled_tokens
                ]
            )
        now = self._now()
        entry = StageStatus(
            name=stage,
            done=now,
            verified=now if verified else None,
            error="" if verified else "not in force when read back",
        )
        was = _stage(quarantine, stage)
        if was is not None and was.done is not None and verified:
            entry = was.model_copy(update={"verified": was.verified or now, "error": ""})
        status = quarantine.status or QuarantineStatus()
        stages = (*(s for s in status.stages if s.name is not stage), entry)
        await self._write_status(quarantine, status.model_copy(update={"stages": stages}))
        note = f"Stage {stage.value} of Quarantine {quarantine.name} is {'in force' if verified else 'NOT in force'}."
        said = events.STAGE_VERIFIED if verified else events.ENFORCEMENT_FAILED
        self._say(key, quarantine.spec.subject.uid, wishes, said, note, "Quarantine", warning=not verified)
        if stage is quarantine.spec.stages[-1] or not verified:
            self._metrics.action(Verdict.QUARANTINE.value, kind, "verified" if verified else "failed")
        if not verified:
            self._queue.at(key, now + timedelta(seconds=5))
        return verified

    async def _remember(self, quarantine: Quarantine) -> Quarantine:
        """Stores the pre-image of every token before the first of them is changed."""
        status = quarantine.status or QuarantineStatus()
        known = {t.uid for t in status.disabled_tokens}
        identity = quarantine.spec.subject.uid if quarantine.spec.subject.kind == "ServiceAccount" else ""
        found = [s for s in self._tokens_of(quarantine) if s.uid not in known]
        if not found and status.tripwire is not None:
            return quarantine
        others = {t.uid: t for q in self._others(quarantine) if q.status for t in q.status.disabled_tokens}
        fresh = []
        for secret in sorted(found, key=lambda s: s.name):
            image = tokens.pre_image(secret, identity)
            # Where another Quarantine holds the token already, the pre-image is the one taken before that.
            fresh.append(
                image.model_copy(update={"label_before": others[secret.uid].label_before})
                if secret.uid in others
                else image
            )
        used = max([s.last_used for s in found] + [status.tripwire.last_used_before if status.tripwire else ""])
        return await self._write_status(
            quarantine,
            status.model_copy(
                update={
                    "disabled_tokens": (*status.disabled_tokens, *fresh),
                    "tripwire": Tripwire(last_used_before=used),
                }
            ),
        )

    def _others(self, quarantine: Quarantine) -> list[Quarantine]:
        """Other Quarantines of the namespace that still hold something."""
        return [
            q for q in self._store.quarantines_in(quarantine.namespace) if q.name != quarantine.name and _standing(q)
        ]

    async def _write_status(self, quarantine: Quarantine, status: QuarantineStatus) -> Quarantine:
        status = status.model_copy(update={"observed_generation": quarantine.generation})
        stored = await self._kube.apply(
            QUARANTINES,
            {
                "apiVersion": API_VERSION,
                "kind": "Quarantine",
                "metadata": {"name": quarantine.name, "namespace": quarantine.namespace, "uid": quarantine.uid},
                "status": status.wire(),
            },
            subresource="status",
        )
        self._store.upsert("Quarantine", PROJECTIONS["Quarantine"](stored))
        return self._store.quarantines[(quarantine.namespace, quarantine.name)]

    # --- revocation --------------------------------------------------------------------------------------------

    async def _revoke_when_due(self, key: Key, quarantine: Quarantine, wishes: tuple[Wish, ...]) -> None:
        """Deletes the quarantined token Secrets once `revokeAt` has passed, no use is recent and the cap allows it.
        What costs no request is looked at first: one that waits for days is considered often."""
        at, status = quarantine.spec.revoke_at, quarantine.status or QuarantineStatus()
        left = _unrevoked(status)
        now = self._now()
        if at is None or not left or now < at:
            self._unblock(key)
            if at is not None and left:
                self._queue.at(key, at)
            return
        held = may_not(wishes)
        if held:
            self._block(key, held)
            return
        id_ = f"{quarantine.uid}/revoke"
        free = self._budget(wishes[0], now).free_at(key.namespace, self._subjects_in(key.namespace), now)
        if free is not None and not self._ledger.has_act(id_):
            if self._waiting.get(key) != "BlastRadius":
                self._tell_blast_radius(key)
            self._waiting[key] = "BlastRadius"
            self._block(key, "BlastRadius")
            self._queue.at(key, free)
            return
        until = await self._used_until(quarantine, left)
        if until is not None and until > now:
            self._waiting[key] = "RecentlyUsed"
            self._block(key, "RecentlyUsed")
            self._queue.at(key, until)
            return
        if self._fresh():
            self._queue.at(key, now + _LOOK_AGAIN)
            return
        wishes = await self._still_wanted(key, quarantine, wishes)
        if not wishes:
            return
        policy = wishes[0].terms.reference.removeprefix("GovernancePolicy/")
        self._ledger.act(RecordedAct(id_, now, key.namespace, policy))
        await self._ledger.flush()
        self._waiting.pop(key, None)
        self._unblock(key)
        await self._revoke(key, quarantine, left, wishes)

    async def _used_until(self, quarantine: Quarantine, left: list[DisabledToken]) -> datetime | None:
        before = quarantine.status.tripwire.last_used_before if quarantine.status and quarantine.status.tripwire else ""
        hold = quarantine.spec.hold_after_use if quarantine.spec.hold_after_use is not None else timedelta(hours=48)
        instants = []
        for token in left:
            metadata = await tokens.read(self._kube, quarantine.namespace, token.name, token.uid)
            instants.append(tokens.held_until(metadata, quarantine.created, before, hold))
        return max((i for i in instants if i is not None), default=None)

    async def _revoke(
        self, key: Key, quarantine: Quarantine, left: list[DisabledToken], wishes: tuple[Wish, ...]
    ) -> None:
        status = quarantine.status or QuarantineStatus()
        intended = {r.uid for r in status.revoked}
        fresh = tuple(_revoked(token, intended=self._now()) for token in left if token.uid not in intended)
        if fresh:
            status = status.model_copy(update={"revoked": (*status.revoked, *fresh)})
            quarantine = await self._write_status(quarantine, status)
        await self._guards.rebuild(quarantine.namespace)
        gone = {
            token.uid
            for token in left
            if await tokens.delete(self._kube, self._store, quarantine.namespace, token.name, token.uid)
        }
        now = self._now()
        status = quarantine.status or QuarantineStatus()
        revoked = tuple(
            r.model_copy(update={"done": now}) if r.uid in gone and not r.done else r for r in status.revoked
        )
        quarantine = await self._write_status(quarantine, status.model_copy(update={"revoked": revoked}))
        names = ", ".join(sorted(token.name for token in left if token.uid in gone))
        complete = len(gone) == len(left)
        self._metrics.action(Verdict.REVOKE.value, key.kind, "verified" if complete else "failed")
        if gone:
            note = f"Revoked for good by Quarantine {quarantine.name}: {names}. The name stays refused."
            self._say(key, quarantine.spec.subject.uid, wishes, events.CREDENTIAL_REVOKED, note, "Revoke")
        if not complete:
            self._queue.at(key, now + timedelta(seconds=5))
        elif key.kind == "Secret":
            await self._drop_finalizer(quarantine)

    async def _revoked_elsewhere(self, key: Key, quarantine: Quarantine) -> None:
        """The quarantined token Secret is gone: by us, before a crash, or by somebody else. Either way it must not come
        back under its name (with an RSA key it would be the same token): the name stays refused like a revoked one."""
        status = quarantine.status or QuarantineStatus()
        now = self._now()
        if not status.revoked and not status.disabled_tokens:
            await self._release(key, quarantine)
            return
        metadata = await tokens.read(
            self._kube, quarantine.namespace, quarantine.spec.subject.name, quarantine.spec.subject.uid
        )
        if metadata is not None:
            await live.one(self._kube, self._store, key)
            return  # the inventory was behind
        entries = status.revoked or tuple(_revoked(t) for t in status.disabled_tokens)
        if any(not r.done for r in entries):
            done = tuple(r if r.done else r.model_copy(update={"done": now}) for r in entries)
            quarantine = await self._write_status(quarantine, status.model_copy(update={"revoked": done}))
        await self._guards.rebuild(quarantine.namespace)
        await self._drop_finalizer(quarantine)

    async def _keep_record(self, quarantine: Quarantine) -> None:
        """A revoked Secret's record keeps its name refused until its ServiceAccount's uid is gone, then it goes."""
        assert quarantine.status is not None
        alive = [
            entry
            for entry in quarantine.status.revoked
            if (account := self._store.service_accounts.get((quarantine.namespace, entry.service_account))) is not None
            and account.uid == entry.service_account_uid
        ]
        if not alive:
            await self._delete(quarantine)
            await self._guards.rebuild(quarantine.namespace)
        elif self._guards.lacks(quarantine):
            await self._guards.rebuild(quarantine.namespace)

    # --- release -----------------------------------------------------------------------------------------------

    async def _release(self, key: Key, quarantine: Quarantine) -> None:
        """No finding wants it any more: says so first, so that the deletion is not taken for a person's."""
        status = quarantine.status or QuarantineStatus()
        release = QuarantineRelease(by=OPERATOR, reason="none of its findings wants it any more", started=self._now())
        quarantine = await self._write_status(quarantine, status.model_copy(update={"release": release}))
        await self._delete(quarantine)

    async def _delete(self, quarantine: Quarantine) -> None:
        try:
            await self._kube.delete(QUARANTINES, quarantine.name, quarantine.namespace, uid=quarantine.uid)
            raw = await self._kube.get(QUARANTINES, quarantine.name, quarantine.namespace)
        except NotFound:
            self._store.remove("Quarantine", quarantine.namespace, quarantine.name)
            return
        record = PROJECTIONS["Quarantine"](raw)
        self._store.upsert("Quarantine", record)
        self.consider(_subject(quarantine))

    async def _end(self, key: Key, quarantine: Quarantine) -> None:
        """A deleted Quarantine: gives back what was taken, then lets it go."""
        namespace = self._store.namespaces.get(quarantine.namespace)
        if FINALIZER not in quarantine.finalizers:
            return
        if namespace is None or namespace.deleting:
            await self._drop_finalizer(quarantine)  # in a terminating namespace nothing is restored
            return
        status = quarantine.status or QuarantineStatus()
        person = status.release is None or status.release.by != OPERATOR
        if person and not await self._reopened(quarantine):
            self._engine.mark(key)
            self._queue.at(key, self._now() + timedelta(seconds=5))
            return  # the findings say that they are open again before the proof of the release is gone
        kept = await self._give_back(quarantine)
        await self._keep_names(quarantine)
        await self._guards.rebuild(quarantine.namespace)
        kind = quarantine.spec.subject.kind
        note = f"Quarantine {quarantine.name} is released" + (f"; not given back: {', '.join(kept)}" if kept else "")
        self._say_names(
            key, quarantine.spec.subject.uid, quarantine.spec.findings, events.QUARANTINE_RELEASED, note, "Release"
        )
        self._metrics.action(Verdict.RELEASE.value, kind, "verified")
        self._given_back.add(quarantine.uid)
        await self._drop_finalizer(quarantine)
        await self._guards.rebuild(quarantine.namespace)

    async def _give_back(self, quarantine: Quarantine) -> list[str]:
        """Puts every label back to its pre-image. Returns what was not given back, with the reason."""
        status = quarantine.status or QuarantineStatus()
        held = {t.uid for q in self._others(quarantine) if q.status for t in q.status.disabled_tokens}
        revoked = {r.uid for r in status.revoked}
        kept = []
        for token in status.disabled_tokens:
            if token.uid in revoked:
                continue
            if token.uid in held:
                kept.append(f"{token.name} (held by another Quarantine)")
            elif not await tokens.restore(self._kube, self._store, quarantine.namespace, token):
                kept.append(f"{token.name} (gone)")
        return kept

    async def _reopened(self, quarantine: Quarantine) -> bool:
        """Whether every finding that wanted it says that it is open again, or is not there to say so."""
        for name in quarantine.spec.findings:
            finding = self._store.findings.get((quarantine.namespace, name))
            if finding is None or finding.status is None:
                continue
            if finding.status.phase in (Phase.RESOLVED, Phase.EXCEPTED):
                continue
            if finding.status.released != quarantine.deletion:
                try:
                    await self._kube.get(IDENTITY_FINDINGS, name, quarantine.namespace)
                except NotFound:
                    continue  # it went with its CRD, which no watch says
                return False
        return True

    async def _keep_names(self, quarantine: Quarantine) -> None:
        """A released ServiceAccount's revoked tokens stay revoked: each gets a record of its own, without finalizer,
        before the Quarantine that refused their names goes."""
        if quarantine.spec.subject.kind != "ServiceAccount" or quarantine.status is None:
            return
        for entry in quarantine.status.revoked:
            account = self._store.service_accounts.get((quarantine.namespace, entry.service_account))
            if account is None or account.uid != entry.service_account_uid:
                continue
            name = quarantine_name(Key("Secret", quarantine.namespace, entry.name), entry.uid)
            record = self._store.quarantines.get((quarantine.namespace, name))
            if record is None:
                record = await self._begin_record(quarantine, entry, name)
            if _is_unfinished(record):
                done = entry if entry.done else entry.model_copy(update={"done": self._now()})
                await self._write_status(record, QuarantineStatus(revoked=(done,)))

    async def _begin_record(self, quarantine: Quarantine, entry: Revoked, name: str) -> Quarantine:
        """A record without its status, which takes a second write: until that, the released Quarantine stands."""
        stored = await self._kube.apply(
            QUARANTINES,
            {
                "apiVersion": API_VERSION,
                "kind": "Quarantine",
                "metadata": {"name": name, "namespace": quarantine.namespace},
                "spec": QuarantineSpec(
                    subject=QuarantineSubject(
                        kind="Secret", namespace=quarantine.namespace, name=entry.name, uid=entry.uid
                    ),
                    verdict=Verdict.REVOKE,
                    reason=f"revoked under Quarantine {quarantine.name}; the name stays refused",
                ).wire(),
            },
        )
        self._store.upsert("Quarantine", PROJECTIONS["Quarantine"](stored))
        return self._store.quarantines[(quarantine.namespace, name)]

    async def _drop_finalizer(self, quarantine: Quarantine) -> None:
        if FINALIZER not in quarantine.finalizers:
            return
        left = [f for f in quarantine.finalizers if f != FINALIZER]
        try:
            stored = await self._kube.merge_patch(
                QUARANTINES,
                quarantine.name,
                quarantine.namespace,
                {"metadata": {"finalizers": left}},
                uid=quarantine.uid,
                resource_version=quarantine.resource_version,
            )
        except NotFound:
            self._store.remove("Quarantine", quarantine.namespace, quarantine.name)
            return
        self._store.upsert("Quarantine", PROJECTIONS["Quarantine"](stored))
        if quarantine.deletion is not None and not left:
            self._store.remove("Quarantine", quarantine.namespace, quarantine.name)

    # --- saying it ---------------------------------------------------------------------------------------------

    def _say(
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
        self._say_names(key, uid, tuple(w.finding for w in wishes), reason, note, action, warning=warning)

    def _say_names(
        self, key: Key, uid: str, names: tuple[str, ...], reason: str, note: str, action: str, *, warning: bool = False
    ) -> None:
        """An Event on the subject and on each finding, and a line in the log."""
        log.info("%s: %s", key, note, extra=about(key, uid))
        self._recorder.event(reference(key, uid), reason, note, warning=warning, action=action)
        for name in names:
            finding = self._store.findings.get((key.namespace, name))
            if finding is not None:
                self._recorder.event(
                    reference(Key("IdentityFinding", key.namespace, name), finding.uid),
                    reason,
                    note,
                    warning=warning,
                    action=action,
                )

    def _tell_blast_radius(self, key: Key) -> None:
        wishes = self._engine.wishes.get(key, ())
        note = f"The act due on {key} waits: the policy's blast radius is used up for now."
        for wish in wishes[:1]:
            finding = self._store.findings.get((key.namespace, wish.finding))
            if finding is not None:
                self._recorder.event(
                    reference(Key("IdentityFinding", key.namespace, wish.finding), finding.uid),
                    events.BLAST_RADIUS_REACHED,
                    note,
                    warning=True,
                    action="Quarantine",
                )

    def _now(self) -> datetime:
        return self._kube.clock.now().astimezone(UTC)


def _subject(quarantine: Quarantine) -> Key:
    return Key(quarantine.spec.subject.kind, quarantine.namespace, quarantine.spec.subject.name)


def _begun(key: Key) -> str:
    return events.IDENTITY_QUARANTINED if key.kind == "ServiceAccount" else events.CREDENTIAL_QUARANTINED


def _standing(quarantine: Quarantine) -> bool:
    """It holds something: neither ending nor a mere record."""
    release = quarantine.status.release if quarantine.status else None
    return quarantine.deletion is None and release is None and not _is_record(quarantine)


def _is_record(quarantine: Quarantine) -> bool:
    """A revoked subject's Quarantine, kept without finalizer so that its names stay refused."""
    return (
        FINALIZER not in quarantine.finalizers
        and quarantine.spec.subject.kind == "Secret"
        and quarantine.status is not None
        and any(r.done for r in quarantine.status.revoked)
    )


def _is_unfinished(quarantine: Quarantine) -> bool:
    """A record that does not say yet what it is to keep refused."""
    revoked = quarantine.status.revoked if quarantine.status else ()
    asked = bool(quarantine.spec.findings) or FINALIZER in quarantine.finalizers
    return not asked and quarantine.spec.verdict is Verdict.REVOKE and not revoked


def _opening(wish: Wish) -> str:
    """How the id of the act that begins for this opening of a finding ends."""
    return f"@{wish.finding}#{wish.opening}"


def _stage(quarantine: Quarantine, stage: Stage) -> StageStatus | None:
    return next((s for s in quarantine.status.stages if s.name is stage), None) if quarantine.status else None


def _unrevoked(status: QuarantineStatus) -> list[DisabledToken]:
    done = {r.uid for r in status.revoked if r.done}
    return [token for token in status.disabled_tokens if token.uid not in done]


def _revoked(token: DisabledToken, intended: datetime | None = None) -> Revoked:
    return Revoked(
        kind="Secret",
        name=token.name,
        uid=token.uid,
        service_account=token.service_account,
        service_account_uid=token.service_account_uid,
        intended=intended,
    )
