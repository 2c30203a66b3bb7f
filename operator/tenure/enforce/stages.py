"""The reversible stages: guard -> pre-image in status -> guard with the tokens' names -> label -> status."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tenure.api.names import FINALIZER, Stage, Verdict
from tenure.api.quarantine import QuarantineSpec, QuarantineStatus, StageStatus, Tripwire
from tenure.decide.hold import Quarantine
from tenure.decide.wish import Wish
from tenure.enforce import revoke, tokens
from tenure.enforce.means import Means
from tenure.enforce.quarantine import stage_of
from tenure.model.keys import Key
from tenure.model.records import Secret
from tenure.telemetry import events


async def advance(m: Means, key: Key, quarantine: Quarantine, wishes: tuple[Wish, ...]) -> None:
    """Stages in order, then revocation when its time has come."""
    spec = _renewed(m, quarantine, wishes)
    if spec != quarantine.spec or FINALIZER not in quarantine.finalizers:
        quarantine = await m.write_intent(quarantine.namespace, quarantine.name, spec, quarantine.uid)
    if m.guards.lacks(quarantine):
        await m.guards.rebuild(quarantine.namespace)
    previous: datetime | None = None
    for stage in quarantine.spec.stages:
        done = stage_of(quarantine, stage)
        undone = _undone(m, quarantine, stage)
        if done is not None and done.verified is not None:
            for secret in _relit(m, quarantine, undone):
                m.metrics.reverted(secret.managed_by.manager if secret.managed_by else "")
        if done is None or done.verified is None or undone:
            interval = quarantine.spec.stage_interval or timedelta(0)
            if previous is not None and m.now() < previous + interval:
                m.waiting[key] = "StageInterval"
                m.queue.at(key, previous + interval)
                return
            if not await _carry_out(m, key, quarantine, stage, wishes):
                return
            quarantine = m.store.quarantines[(quarantine.namespace, quarantine.name)]
            done = stage_of(quarantine, stage)
        previous = done.done if done else None
    m.waiting.pop(key, None)
    quarantine = await _notice_use(m, key, quarantine, wishes)
    await revoke.when_due(m, key, quarantine, wishes)


def _renewed(m: Means, quarantine: Quarantine, wishes: tuple[Wish, ...]) -> QuarantineSpec:
    """The findings that want it now, and when they ask for revocation."""
    spec = quarantine.spec
    names = tuple(sorted(w.finding for w in wishes))
    revoke_at = revoke.asked_at(quarantine, wishes, m.now())
    if tuple(sorted(spec.findings)) == names and spec.revoke_at == revoke_at:
        return spec
    return spec.model_copy(update={"findings": names, "revoke_at": revoke_at})


async def _notice_use(m: Means, key: Key, quarantine: Quarantine, wishes: tuple[Wish, ...]) -> Quarantine:
    """The tripwire: the API server stamps the day of a refused attempt too. Told once per day that is stamped."""
    status = quarantine.status
    if status is None or status.tripwire is None:
        return quarantine
    seen = status.tripwire.last_used_before
    if status.last_attempt is not None:
        seen = max(seen, status.last_attempt.strftime("%Y-%m-%d"))
    used = max((secret.last_used for secret in m.tokens_of(quarantine)), default="")
    if used <= seen:
        return quarantine
    try:
        day = datetime.strptime(used, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        return quarantine
    m.metrics.tripwire()
    note = f"A token under Quarantine {quarantine.name} was used on {used}: this identity is alive."
    m.say(key, quarantine.spec.subject.uid, wishes, events.TRIPWIRE, note, "Quarantine", warning=True)
    return await m.write_status(quarantine, status.model_copy(update={"last_attempt": day}))


def _undone(m: Means, quarantine: Quarantine, stage: Stage) -> list[Secret]:
    """What a finished stage should hold and does not: a new token, or one whose label was taken off."""
    if stage is not Stage.DISABLE_TOKENS:
        return []
    gone = {r.name for r in quarantine.status.revoked} if quarantine.status else set()
    known = {t.uid for t in quarantine.status.disabled_tokens} if quarantine.status else set()
    return [
        secret
        for secret in m.tokens_of(quarantine)
        if (secret.uid not in known or not secret.invalid_since) and secret.name not in gone and not secret.deleting
    ]


def _relit(m: Means, quarantine: Quarantine, undone: list[Secret]) -> list[Secret]:
    """Those whose label we had set and somebody took off (a new token is no revert)."""
    known = {t.uid for t in quarantine.status.disabled_tokens} if quarantine.status else set()
    return [secret for secret in undone if secret.uid in known]


async def _carry_out(m: Means, key: Key, quarantine: Quarantine, stage: Stage, wishes: tuple[Wish, ...]) -> bool:
    """One stage: judged again live, done, verified, written down. False when it must not go on."""
    wishes = await m.still_wanted(key, quarantine, wishes)
    if not wishes:
        return False
    kind = quarantine.spec.subject.kind
    verified = False
    if stage is Stage.GUARD:
        await m.guards.rebuild(quarantine.namespace)
        verified = await m.guards.in_force(quarantine.namespace, quarantine)
    elif stage is Stage.DISABLE_TOKENS:
        quarantine = await _remember(m, quarantine)
        await m.guards.rebuild(quarantine.namespace)
        assert quarantine.status is not None
        today = m.now().strftime("%Y-%m-%d")
        for token in quarantine.status.disabled_tokens:
            await tokens.disable(m.kube, m.store, quarantine.namespace, token, today)
        verified = all(
            [
                await tokens.is_disabled(m.kube, quarantine.namespace, token)
                for token in quarantine.status.disabled_tokens
            ]
        )
    now = m.now()
    entry = StageStatus(
        name=stage,
        done=now,
        verified=now if verified else None,
        error="" if verified else "not in force when read back",
    )
    was = stage_of(quarantine, stage)
    if was is not None and was.done is not None and verified:
        entry = was.model_copy(update={"verified": was.verified or now, "error": ""})
    status = quarantine.status or QuarantineStatus()
    stages = (*(s for s in status.stages if s.name is not stage), entry)
    await m.write_status(quarantine, status.model_copy(update={"stages": stages}))
    note = f"Stage {stage.value} of Quarantine {quarantine.name} is {'in force' if verified else 'NOT in force'}."
    said = events.STAGE_VERIFIED if verified else events.ENFORCEMENT_FAILED
    m.say(key, quarantine.spec.subject.uid, wishes, said, note, "Quarantine", warning=not verified)
    if stage is quarantine.spec.stages[-1] or not verified:
        m.metrics.action(Verdict.QUARANTINE.value, kind, "verified" if verified else "failed")
    if not verified:
        m.queue.at(key, now + timedelta(seconds=5))
    return verified


async def _remember(m: Means, quarantine: Quarantine) -> Quarantine:
    """Stores the pre-image of every token before the first of them is changed."""
    status = quarantine.status or QuarantineStatus()
    known = {t.uid for t in status.disabled_tokens}
    identity = quarantine.spec.subject.uid if quarantine.spec.subject.kind == "ServiceAccount" else ""
    found = [s for s in m.tokens_of(quarantine) if s.uid not in known]
    if not found and status.tripwire is not None:
        return quarantine
    others = {t.uid: t for q in m.others(quarantine) if q.status for t in q.status.disabled_tokens}
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
    return await m.write_status(
        quarantine,
        status.model_copy(
            update={
                "disabled_tokens": (*status.disabled_tokens, *fresh),
                "tripwire": Tripwire(last_used_before=used),
            }
        ),
    )
