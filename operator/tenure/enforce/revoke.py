"""Revocation: ledger -> names in status -> guard -> delete -> status -> finalizer off (a Secret's record stays)."""

from __future__ import annotations

from datetime import datetime, timedelta

from tenure.api.names import Verdict
from tenure.api.quarantine import DisabledToken, QuarantineStatus
from tenure.decide.hold import Quarantine
from tenure.decide.wish import Wish, may_not
from tenure.enforce import live, release, tokens
from tenure.enforce.means import LOOK_AGAIN, Means
from tenure.enforce.quarantine import revoked_entry, unrevoked
from tenure.model.keys import Key
from tenure.reconcile.ledger import RecordedAct
from tenure.telemetry import events


async def when_due(m: Means, key: Key, quarantine: Quarantine, wishes: tuple[Wish, ...]) -> None:
    """Deletes the quarantined token Secrets once `revokeAt` has passed, no use is recent and the cap allows it.
    What costs no request is looked at first: one that waits for days is considered often."""
    at, status = quarantine.spec.revoke_at, quarantine.status or QuarantineStatus()
    left = unrevoked(status)
    now = m.now()
    if at is None or not left or now < at:
        m.unblock(key)
        if at is not None and left:
            m.queue.at(key, at)
        return
    held = may_not(wishes)
    if held:
        m.block(key, held)
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
    wishes = await m.still_wanted(key, quarantine, wishes)
    if not wishes:
        return
    if not any(wish.revokes for wish in wishes):
        m.engine.mark(key)  # whatever asked for it was decided meanwhile: what still wants the quarantine does not
        return
    policy = wishes[0].terms.reference.removeprefix("GovernancePolicy/")
    m.ledger.act(RecordedAct(id_, now, key.namespace, policy))
    await m.ledger.flush()
    m.waiting.pop(key, None)
    m.unblock(key)
    await _revoke(m, key, quarantine, left, wishes)


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
        note = f"Revoked for good by Quarantine {quarantine.name}: {names}. The name stays refused."
        m.say(key, quarantine.spec.subject.uid, wishes, events.CREDENTIAL_REVOKED, note, "Revoke")
    if not complete:
        m.queue.at(key, now + timedelta(seconds=5))
    elif key.kind == "Secret":
        await m.drop_finalizer(quarantine)


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
