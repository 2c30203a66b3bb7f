"""Revocation: ledger -> names in status -> guard -> delete -> status -> finalizer off (a Secret's record stays)."""

from __future__ import annotations

from datetime import datetime, timedelta

from tenure.api.names import Verdict
from tenure.api.quarantine import DisabledToken, QuarantineStatus
from tenure.decide.hold import Quarantine
from tenure.decide.wish import Wish, may_not
from tenure.enforce import contention, live, release, tokens
from tenure.enforce.means import LOOK_AGAIN, Means
from tenure.enforce.quarantine import is_other_secret, revoked_entry, unrevoked
from tenure.inventory.projection import managed_by
from tenure.model.keys import Key
from tenure.reconcile.ledger import RecordedAct
from tenure.telemetry import events

MANAGED_AGAIN = timedelta(minutes=5)
"""When a Secret that another controller writes is looked at again; its own changes are seen at once."""


async def when_due(m: Means, key: Key, quarantine: Quarantine, wishes: tuple[Wish, ...], missing: str = "") -> None:
    """Deletes the quarantined token Secrets once `revokeAt` has passed, no use is recent and the cap allows it.
    What costs no request is looked at first: one that waits for days is considered often."""
    at, left = quarantine.spec.revoke_at, unrevoked(quarantine)
    now = m.now()
    if at is None or not left or now < at:
        if missing:  # a stage that this installation does not have
            m.block(key, missing)
        else:
            m.unblock(key)
        if at is not None and left:
            m.queue.at(key, at)
        return
    held = may_not(wishes)
    if held:
        m.block(key, held)
        return
    if is_other_secret(quarantine) and contention.stopped(m, quarantine, key):
        m.unblock(key)
        await contention.settle(m, quarantine, [contention.written_back(m, key)])
        return
    id_ = f"{quarantine.uid}/revoke"
    free = m.budget(wishes[0], now).free_at(key.namespace, m.subjects_in(key.namespace), now)
    if free is not None and not m.ledger.has_act(id_):
        if m.waiting.get(key) != "BlastRadius":
            m.tell_blast_radius(key)
        m.waiting[key] = "BlastRadius"
        m.block(key, "BlastRadius")
        m.queue.at(key, free)
        return
    until = await _used_until(m, quarantine, left)
    if until is not None and until > now:
        m.waiting[key] = "RecentlyUsed"
        m.block(key, "RecentlyUsed")
        m.queue.at(key, until)
        return
    if m.fresh():
        m.queue.at(key, now + LOOK_AGAIN)
        return
    if await m.proof.prove():
        m.block(key, m.proof.reason)
        m.queue.at(key, now + LOOK_AGAIN)
        return
    wishes = await m.still_wanted(key, quarantine, wishes)
    if not wishes:
        return
    at = asked_at(quarantine, wishes, now)
    if at is None or now < at:
        m.engine.mark(key)  # whatever asked for it was decided meanwhile: what still wants the quarantine does not
        return
    if await _written_back(m, quarantine):
        m.block(key, "ManagedByController")
        m.queue.at(key, now + MANAGED_AGAIN)
        return
    policy = wishes[0].terms.reference.removeprefix("GovernancePolicy/")
    m.ledger.act(RecordedAct(id_, now, key.namespace, policy))
    await m.ledger.flush()
    m.waiting.pop(key, None)
    m.unblock(key)
    await _revoke(m, key, quarantine, left, wishes)


def asked_at(quarantine: Quarantine, wishes: tuple[Wish, ...], now: datetime) -> datetime | None:
    """When its findings, as these wishes stand for them, ask for revocation; None when none does. It comes forward when
    one that joins asks for it, or a person; when one leaves, those that stay ask for it no earlier than each by
    itself."""
    spec = quarantine.spec
    staying = [wish for wish in wishes if wish.finding in spec.findings]
    kept = spec.revoke_at if any(wish.revokes for wish in staying) else None
    if kept is not None and len(staying) < len(spec.findings):
        own = [at for wish in staying if (at := wish.revoke_at(quarantine.created)) is not None]
        kept = max(kept, min(own)) if own else None
    joined = [wish.revoke_at(now) for wish in wishes if wish.finding not in spec.findings]
    return min(filter(None, (kept, *joined, *(wish.revoke for wish in wishes))), default=None)


async def _written_back(m: Means, quarantine: Quarantine) -> bool:
    """Live: whether another controller writes the Secret, and would write it back. A token Secret is the API server's
    own, and its name stays refused: whoever applies it is told so."""
    if not is_other_secret(quarantine):
        return False
    subject = quarantine.spec.subject
    metadata = await tokens.read(m.kube, quarantine.namespace, subject.name, subject.uid)
    if metadata is None:
        return False
    return managed_by(metadata) is not None


async def _used_until(m: Means, quarantine: Quarantine, left: list[DisabledToken]) -> datetime | None:
    before = quarantine.status.tripwire.last_used_before if quarantine.status and quarantine.status.tripwire else ""
    hold = quarantine.spec.hold_after_use if quarantine.spec.hold_after_use is not None else timedelta(hours=48)
    instants = []
    for token in left:
        metadata = await tokens.read(m.kube, quarantine.namespace, token.name, token.uid)
        instants.append(tokens.held_until(metadata, quarantine.created, before, hold))
    return max((i for i in instants if i is not None), default=None)


async def _revoke(
    m: Means, key: Key, quarantine: Quarantine, left: list[DisabledToken], wishes: tuple[Wish, ...]
) -> None:
    status = quarantine.status or QuarantineStatus()
    intended = {r.uid for r in status.revoked}
    fresh = tuple(revoked_entry(token, intended=m.now()) for token in left if token.uid not in intended)
    if fresh:
        status = status.model_copy(update={"revoked": (*status.revoked, *fresh)})
        quarantine = await m.write_status(quarantine, status)
    await m.guards.rebuild(quarantine.namespace)
    gone = {
        token.uid for token in left if await tokens.delete(m.kube, m.store, quarantine.namespace, token.name, token.uid)
    }
    now = m.now()
    status = quarantine.status or QuarantineStatus()
    revoked = tuple(r.model_copy(update={"done": now}) if r.uid in gone and not r.done else r for r in status.revoked)
    quarantine = await m.write_status(quarantine, status.model_copy(update={"revoked": revoked}))
    names = ", ".join(sorted(token.name for token in left if token.uid in gone))
    complete = len(gone) == len(left)
    m.metrics.action(Verdict.REVOKE.value, key.kind, "verified" if complete else "failed")
    if gone:
        refused = "" if is_other_secret(quarantine) else " The name stays refused."
        note = f"Revoked for good by Quarantine {quarantine.name}: {names}.{refused}"
        m.say(key, quarantine.spec.subject.uid, wishes, events.CREDENTIAL_REVOKED, note, "Revoke")
    if not complete:
        m.queue.at(key, now + timedelta(seconds=5))
    elif key.kind == "Secret":
        if is_other_secret(quarantine):
            await m.guards.rebuild(quarantine.namespace)  # nothing is left to be kept from pods
            await live.one(m.kube, m.store, key)
        await m.drop_finalizer(quarantine)
        m.consider(key)


async def elsewhere(m: Means, key: Key, quarantine: Quarantine) -> None:
    """The quarantined token Secret is gone: by us, before a crash, or by somebody else. Either way it must not come
    back under its name (with an RSA key it would be the same token): the name stays refused like a revoked one."""
    status = quarantine.status or QuarantineStatus()
    now = m.now()
    if not status.revoked and not status.disabled_tokens:
        await release.release(m, key, quarantine)
        return
    metadata = await tokens.read(
        m.kube, quarantine.namespace, quarantine.spec.subject.name, quarantine.spec.subject.uid
    )
    if metadata is not None:
        await live.one(m.kube, m.store, key)
        return  # the inventory was behind
    entries = status.revoked or tuple(revoked_entry(t) for t in status.disabled_tokens)
    if any(not r.done for r in entries):
        done = tuple(r if r.done else r.model_copy(update={"done": now}) for r in entries)
        quarantine = await m.write_status(quarantine, status.model_copy(update={"revoked": done}))
    await m.guards.rebuild(quarantine.namespace)
    await m.drop_finalizer(quarantine)
