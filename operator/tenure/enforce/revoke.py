"""Revocation. Each step is written down before it is taken:

Secret           ledger -> names in status -> guard -> delete -> status -> finalizer off (its record stays)
ServiceAccount   the same with its tokens -> pre-images in status, out of every binding -> its name in status -> delete
                 -> status -> bindings tidied -> released, with nothing to give back
entitlement      ledger -> out of the binding (again) -> its name in status -> status -> binding tidied -> finalizer off
"""

from __future__ import annotations

import contextlib
from datetime import datetime, timedelta
from typing import Any

from tenure.api.names import Phase, Verdict
from tenure.api.quarantine import DisabledToken, QuarantineStatus, Revoked
from tenure.decide.hold import Quarantine
from tenure.decide.wish import Wish, may_not
from tenure.enforce import bindings, contention, live, release, tokens
from tenure.enforce.means import LOOK_AGAIN, Means
from tenure.enforce.quarantine import (
    is_being_revoked,
    is_itself_revoked,
    is_other_secret,
    others_out,
    revoked_entry,
    unrevoked,
)
from tenure.enforce.work import remove_entitlements
from tenure.inventory.projection import managed_by
from tenure.kube.errors import NotFound
from tenure.kube.resources import SERVICE_ACCOUNTS
from tenure.model.keys import Key
from tenure.reconcile.ledger import RecordedAct
from tenure.telemetry import events

MANAGED_AGAIN = timedelta(minutes=5)
"""When a Secret that another controller writes is looked at again; its own changes are seen at once."""


async def when_due(m: Means, key: Key, quarantine: Quarantine, wishes: tuple[Wish, ...], missing: str = "") -> None:
    """Revokes once `revokeAt` has passed, no use is recent and the cap allows it.
    What costs no request is looked at first: one that waits for days is considered often."""
    at, left = quarantine.spec.revoke_at, unrevoked(quarantine)
    outstanding = bool(left) or (key.kind != "Secret" and not is_itself_revoked(quarantine))
    now = m.now()
    if at is None or not outstanding or now < at:
        if missing:  # a stage that this installation does not have
            m.block(key, missing)
        else:
            m.unblock(key)
        if at is not None and outstanding:
            m.queue.at(key, at)
        return
    hindrance = await _hindrance(m, key, quarantine) if not left else ""
    if hindrance:
        m.block(key, hindrance)
        m.queue.at(key, now + MANAGED_AGAIN)
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
    if await m.unheard():  # it might tell of an attempt
        m.block(key, "InventoryStale")
        m.queue.at(key, now + LOOK_AGAIN)
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
    if left:
        quarantine = await _revoke(m, key, quarantine, left, wishes)
    if key.kind != "Secret" and not unrevoked(quarantine):
        hindrance = await _hindrance(m, key, quarantine)
        if hindrance:
            m.block(key, hindrance)
            m.queue.at(key, now + MANAGED_AGAIN)
            return
        await _itself(m, key, quarantine, wishes)


async def _hindrance(m: Means, key: Key, quarantine: Quarantine) -> str:
    """Why a ServiceAccount or an entitlement cannot be revoked now; a key of decide.held.HELD. Where it is bound and
    cannot be taken out, a namesake would inherit that: then it is not deleted."""
    if key.kind == "Secret":
        return ""
    bound = bool(key.part) or remove_entitlements.undone(m, quarantine)
    if bound and remove_entitlements.held(m):
        return remove_entitlements.held(m)
    if key.kind == "ServiceAccount":
        account = await _account(m, quarantine)
        if account is not None and managed_by(account["metadata"]) is not None:
            return "ManagedByController"
    return ""


async def _account(m: Means, quarantine: Quarantine) -> dict[str, Any] | None:
    """The ServiceAccount as it is now; None when it is gone or another one has its name."""
    subject = quarantine.spec.subject
    try:
        raw: dict[str, Any] = await m.kube.get(SERVICE_ACCOUNTS, subject.name, quarantine.namespace)
    except NotFound:
        return None
    return raw if raw["metadata"]["uid"] == subject.uid else None


async def _itself(m: Means, key: Key, quarantine: Quarantine, wishes: tuple[Wish, ...]) -> None:
    """A ServiceAccount, once its tokens are gone: out of every binding, then deleted. An entitlement: out for good."""
    if key.part or remove_entitlements.undone(m, quarantine):
        quarantine, seen = await remove_entitlements.carry_out(m, quarantine)
        if not seen:
            m.metrics.action(Verdict.REVOKE.value, key.kind, "failed")
            m.queue.at(key, m.now() + timedelta(seconds=5))
            return
    status, subject = quarantine.status or QuarantineStatus(), quarantine.spec.subject
    if not is_being_revoked(quarantine):
        entry = Revoked(kind=key.kind, name=subject.name, uid=subject.uid, intended=m.now())
        status = status.model_copy(update={"revoked": (*status.revoked, entry)})
        quarantine = await m.write_status(quarantine, status)
    if key.kind == "ServiceAccount":
        account = await _account(m, quarantine)
        if account is not None and not account["metadata"].get("deletionTimestamp"):
            with contextlib.suppress(NotFound):
                version = account["metadata"]["resourceVersion"]
                name, namespace = subject.name, quarantine.namespace
                await m.kube.delete(SERVICE_ACCOUNTS, name, namespace, uid=subject.uid, resource_version=version)
        if await _account(m, quarantine) is not None:
            m.queue.at(key, m.now() + timedelta(seconds=5))
            return  # a finalizer of somebody keeps it
        held = m.store.service_accounts.get((quarantine.namespace, subject.name))
        if held is not None and held.uid == subject.uid:
            m.store.remove("ServiceAccount", quarantine.namespace, subject.name)
    reason = events.ENTITLEMENT_REVOKED if key.part else events.IDENTITY_REVOKED
    m.say(key, subject.uid, wishes, reason, f"{key} is revoked for good by Quarantine {quarantine.name}.", "Revoke")
    await finish(m, key, quarantine)


async def finish(m: Means, key: Key, quarantine: Quarantine) -> None:
    """What was set out to be revoked is gone: says so, and then cleans up behind it. What was taken out of bindings may
    not be put back any more. A ServiceAccount's Quarantine goes once its findings tell of it (no name is left to be
    refused: what was made for its uid never works again); an entitlement's stays, and keeps the subject out."""
    status, subject = quarantine.status or QuarantineStatus(), quarantine.spec.subject
    if key.kind == "ServiceAccount" and await _account(m, quarantine) is not None:
        await live.one(m.kube, m.store, key)
        return  # the inventory was behind
    if not is_itself_revoked(quarantine):
        now = m.now()
        done = tuple(r if r.done else r.model_copy(update={"done": now}) for r in status.revoked)
        quarantine = await m.write_status(quarantine, status.model_copy(update={"revoked": done}))
        m.metrics.action(Verdict.REVOKE.value, key.kind, "verified")
    for image in status.pre_images:
        await bindings.finish(m, image, others_out(m.store, image.uid, quarantine))
    if key.part:
        await m.guards.rebuild(quarantine.namespace)
        await m.drop_finalizer(quarantine)
    elif _told(m, quarantine):
        await release.release(m, key, quarantine)
    else:
        m.engine.mark(Key(subject.kind, quarantine.namespace, subject.name))
        m.queue.at(key, m.now() + timedelta(seconds=2))


def _told(m: Means, quarantine: Quarantine) -> bool:
    """Whether every finding says that its subject was revoked, or is not there to say so."""
    for name in quarantine.spec.findings:
        finding = m.store.findings.get((quarantine.namespace, name))
        status = finding.status if finding is not None else None
        if status is None:
            continue
        revoked = [act for act in status.acts if act.verdict is Verdict.REVOKE]
        if status.phase is not Phase.RESOLVED or any(act.verified is None for act in revoked):
            return False
    return True


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
    last = m.last_attempt(quarantine)
    instants = [last + hold if last and hold else None]
    for token in left:
        metadata = await tokens.read(m.kube, quarantine.namespace, token.name, token.uid)
        instants.append(tokens.held_until(metadata, quarantine.created, before, hold))
    return max((i for i in instants if i is not None), default=None)


async def _revoke(
    m: Means, key: Key, quarantine: Quarantine, left: list[DisabledToken], wishes: tuple[Wish, ...]
) -> Quarantine:
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
    if key.kind == "Secret" or not complete:
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
    return quarantine


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
