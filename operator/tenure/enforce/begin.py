"""Begins acts, as far as the blast radius lets: ledger -> Quarantine, and straight on with its stages."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from tenure.api.names import TYPE_SERVICE_ACCOUNT_TOKEN, Stage, Verdict
from tenure.api.quarantine import QuarantineSpec, QuarantineSubject
from tenure.decide.hold import Quarantine
from tenure.decide.wish import Wish, order
from tenure.enforce.blast import pick
from tenure.enforce.means import LOOK_AGAIN, Means
from tenure.enforce.names import quarantine_name
from tenure.enforce.proof import PROVE
from tenure.enforce.quarantine import is_record
from tenure.enforce.work import WORK
from tenure.kube.errors import ApiError, Forbidden, Invalid
from tenure.model.keys import Key
from tenure.reconcile.ledger import RecordedAct
from tenure.telemetry import events
from tenure.telemetry.logs import about

log = logging.getLogger(__name__)

PICK = Key("", "", "pick")
"""Stands in the queue for "begin the act whose turn it is"."""
JUDGED = Key("", "", "judged")
"""Stands in the queue for "all that fell due with the first of these was judged"."""
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 60.0  # seconds between two tries to begin one subject's act


class Beginning:
    """Acts are few by design, and they begin one after the other: that is what the blast radius counts on."""

    def __init__(self, means: Means, drive: Callable[[Key, Quarantine, tuple[Wish, ...]], Awaitable[None]]) -> None:
        """`drive` takes a Quarantine as far as it can go."""
        self._means = means
        self._drive = drive
        self.pending: dict[Key, Wish] = {}
        """The most pressing wish of each subject whose act is due and not begun."""
        self.postponed: dict[Key, tuple[int, datetime]] = {}
        """Tries that failed, and when the next one is."""
        self._judging = False
        """Whether what was dirty when the first of these came is still being judged."""

    def plan(self, key: Key, wishes: tuple[Wish, ...]) -> None:
        """Lines the subject up for the blast radius when an act on it is due and none is under way."""
        due = [w for w in wishes if w.act is not None]
        # One that is still giving back has the name that a new one would get: that one waits until it is gone.
        standing = any(not is_record(q) for q in self._means.about(key))
        if not due or standing:
            self.pending.pop(key, None)
            if not standing:  # what blocks a standing Quarantine's next step is that step's to say
                self._means.unblock(key)
                self.postponed.pop(key, None)
            return
        if key in self.postponed and self._means.now() < self.postponed[key][1]:
            self._means.queue.at(key, self.postponed[key][1])
            return
        news = key not in self.pending
        self.pending[key] = wish = min(due, key=order)
        if news and not self._judging:
            # Much may have fallen due in the same second, and the worst of it be judged last: the turns are known only
            # when all of that was judged. One wait, then an act: what falls due meanwhile cannot hold it off for ever.
            self._judging = True
            self._means.engine.queue.after(lambda: self._means.consider(JUDGED))
        if wish.by_person or not self._judging:
            self._means.queue.add(PICK)

    async def judged(self) -> None:
        """Begins the first act of those that were judged together. It stands in the queue behind all of them."""
        self._judging = False
        await self.next()

    async def next(self) -> None:
        """Begins the one act whose turn it is; the others wait, and say for what."""
        stale = self._means.fresh()
        if stale:
            for key in self.pending:
                self._means.block(key, "InventoryStale")
            self._means.queue.at(PICK, self._means.now() + LOOK_AGAIN)
            return
        now = self._means.now()
        pending = {key: w for key, w in self.pending.items() if w.by_person} if self._judging else self.pending
        # An act that was entered before a crash has its place already: it must not wait for a second one.
        choice = pick(
            pending, lambda wish: self._means.budget(wish, now, but=opening(wish)), self._means.subjects_in, now
        )
        for key in pending:
            if key in choice.waiting:
                if self._means.waiting.get(key) != "BlastRadius":
                    self._means.waiting[key] = "BlastRadius"
                    self._means.tell_blast_radius(key)
                self._means.block(key, "BlastRadius")
            elif self._means.waiting.get(key) == "BlastRadius":
                del self._means.waiting[key]
        self._means.queue.at(PICK, choice.free_at)
        if choice.key is None:
            return
        if await self._means.proof.prove():
            for key in self.pending:
                self._means.block(key, self._means.proof.reason)
            self._means.queue.at(PICK, self._means.now() + LOOK_AGAIN)
            return
        key, wish = choice.key, self.pending.pop(choice.key)
        self._means.waiting.pop(key, None)
        try:
            await self._begin(key, wish)
        except ApiError as error:
            self._postpone(key, error)
        else:
            self.postponed.pop(key, None)
        if self.pending:
            self._means.queue.add(PICK)

    def _postpone(self, key: Key, error: ApiError) -> None:
        """A subject whose act cannot begin waits by itself, longer each time: it must not hold up the others."""
        tries = self.postponed[key][0] if key in self.postponed else 0
        delay = max(error.retry_after or 0.0, min(_FIRST_PAUSE * 2 ** min(tries, 16), _LONGEST_PAUSE))
        until = self._means.now() + timedelta(seconds=delay)
        self.postponed[key] = (tries + 1, until)
        self._means.waiting[key] = "Retry"
        self._means.queue.at(key, until)
        log.warning("%s: enforcement: %s; again in %.1f s", key, error, delay, extra=about(key))
        if isinstance(error, Forbidden | Invalid):
            self._means.block(key, "MissingRight")
            self._means.consider(PROVE)

    async def _begin(self, key: Key, wish: Wish) -> None:
        """Judges again on live facts, then writes the intent and goes straight on with its stages."""
        wishes = await self._means.confirmed(key)
        due = [w for w in wishes if w.act is not None]
        if not due:
            self._means.unblock(key)
            return
        missing = WORK[Stage.REMOVE_ENTITLEMENTS].held(self._means) if key.part else ""
        if missing:  # an entitlement is quarantined by nothing else
            self._means.block(key, missing)
            return
        now = self._means.now()
        uid = self._means.engine.judge.judge(key, now).evaluation.uid
        spec = self._intent(key, uid, tuple(due), now)
        if self._means.guards.overlook(key) and spec.stages == (Stage.GUARD,):
            self._means.block(key, "PlatformNamespace")  # nothing of it could be done
            return
        self._means.unblock(key)
        policy = wish.terms.reference.removeprefix("GovernancePolicy/")
        top = min(due, key=order)
        self._means.ledger.act(RecordedAct(f"{quarantine_name(key, uid)}{opening(top)}", now, key.namespace, policy))
        await self._means.ledger.flush()
        quarantine = await self._means.write_intent(key.namespace, quarantine_name(key, uid), spec)
        self._means.say(
            key, uid, wishes, _begun(key), f"Quarantine {quarantine.name} begins: {top.message}", "Quarantine"
        )
        await self._drive(key, quarantine, wishes)

    def _intent(self, key: Key, uid: str, wishes: tuple[Wish, ...], now: datetime) -> QuarantineSpec:
        top = min(wishes, key=order)
        revoke = any(w.act is Verdict.REVOKE for w in wishes)
        record = self._means.store.secrets.get((key.namespace, key.name)) if key.kind == "Secret" else None
        type_ = record.type if record is not None else None
        wanted = {stage for w in wishes for stage in w.terms.stages}
        if key.kind != "ServiceAccount":
            wanted.discard(Stage.DENY_WRITES)  # a Secret writes nothing
        if type_ not in (None, TYPE_SERVICE_ACCOUNT_TOKEN):
            wanted = {Stage.GUARD}  # it is no token that could be switched off, and nobody's binding
        if key.part:
            wanted = {Stage.GUARD, Stage.REMOVE_ENTITLEMENTS}
        elif key.kind == "Secret":
            wanted.discard(Stage.REMOVE_ENTITLEMENTS)
        return QuarantineSpec(
            subject=QuarantineSubject(
                kind=key.kind,
                namespace=None if key.kind == "ClusterRoleBinding" else key.namespace,
                name=key.name,
                uid=uid,
                type=type_,
                entitlement=key.part or None,
            ),
            findings=tuple(sorted(w.finding for w in wishes)),
            stages=tuple(stage for stage in WORK if stage in wanted) or (Stage.GUARD,),
            verdict=Verdict.REVOKE if revoke else Verdict.QUARANTINE,
            revoke_at=min(filter(None, (w.revoke_at(now) for w in wishes)), default=None),
            stage_interval=max(w.terms.stage_interval for w in wishes),
            hold_after_use=max(w.terms.hold_after_use for w in wishes),
            reason=top.message[:500],
        )


def opening(wish: Wish) -> str:
    """How the id of the act that begins for this opening of a finding ends."""
    return f"@{wish.finding}#{wish.opening}"


def _begun(key: Key) -> str:
    if key.part:
        return events.ENTITLEMENT_QUARANTINED
    return events.IDENTITY_QUARANTINED if key.kind == "ServiceAccount" else events.CREDENTIAL_QUARANTINED
