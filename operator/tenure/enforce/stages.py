"""The reversible stages in their order, each of them: judged again live -> done (tenure.enforce.work) -> status."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from tenure.api.conditions import ConditionType
from tenure.api.names import FINALIZER, Stage, Verdict
from tenure.api.quarantine import QuarantineSpec, QuarantineStatus, StageStatus
from tenure.decide.hold import Quarantine
from tenure.decide.wish import Wish
from tenure.enforce import contention, revoke
from tenure.enforce.means import Means
from tenure.enforce.quarantine import stage_of
from tenure.enforce.work import WORK
from tenure.model.keys import Key
from tenure.telemetry import events


async def advance(m: Means, key: Key, quarantine: Quarantine, wishes: tuple[Wish, ...]) -> None:
    """Stages in order, then revocation when its time has come."""
    spec = _renewed(m, quarantine, wishes)
    if spec != quarantine.spec or FINALIZER not in quarantine.finalizers:
        quarantine = await m.write_intent(quarantine.namespace, quarantine.name, spec, quarantine.uid)
    for further in m.store.further_objects(quarantine.namespace, quarantine.name):
        if FINALIZER not in further.finalizers:
            await m.write_intent(further.namespace, further.name, further.spec, further.uid)
    if m.guards.lacks(quarantine):
        await m.guards.rebuild(quarantine.namespace)
    previous: datetime | None = None
    missing, contended = "", False
    for stage in quarantine.spec.stages:
        not_here = "PlatformNamespace" if stage is Stage.GUARD and m.guards.overlook(key) else WORK[stage].held(m)
        if not_here:
            missing = missing or not_here
            continue
        done = stage_of(quarantine, stage)
        taken_back = WORK[stage].reverts(m, quarantine) if done is not None and done.verified else []
        if taken_back:
            quarantine = await contention.note(m, key, quarantine, stage, taken_back, wishes)
            done = stage_of(quarantine, stage)
        lacks = WORK[stage].undone(m, quarantine)
        if taken_back and not lacks:
            contended = True  # all that it lacks is what nothing more is done to
        elif lacks or done is None or not done.in_force:
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
    if contended:
        m.unblock(key)
        return
    await revoke.when_due(m, key, quarantine, wishes, missing)


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


async def _carry_out(m: Means, key: Key, quarantine: Quarantine, stage: Stage, wishes: tuple[Wish, ...]) -> bool:
    """One stage: judged again live, done, verified, written down. False when it must not go on."""
    wishes = await m.still_wanted(key, quarantine, wishes)
    if not wishes:
        return False
    kind = quarantine.spec.subject.kind
    quarantine, seen = await WORK[stage].carry_out(m, quarantine)
    fault = await m.proof.prove() or m.proof.faults.get(stage, "")
    verified = seen and not fault
    now = m.now()
    was = stage_of(quarantine, stage) or StageStatus(name=stage)
    entry = StageStatus(
        name=stage,
        done=was.done or now,
        verified=was.verified or (now if verified else None),
        error="" if verified else fault or "not in force when read back",
    )
    status = quarantine.status or QuarantineStatus()
    stages = (*(s for s in status.stages if s.name is not stage), entry)
    changes: dict[str, Any] = {"stages": stages, "reverts": contention.repeated(m, quarantine)}
    if verified:  # whatever was contended is as it is wanted now
        changes["conditions"] = tuple(c for c in status.conditions if c.type != ConditionType.CONTENDED)
    await m.write_status(quarantine, status.model_copy(update=changes))
    note = f"Stage {stage.value} of Quarantine {quarantine.name} is {'in force' if verified else 'NOT in force'}."
    said = events.STAGE_VERIFIED if verified else events.ENFORCEMENT_FAILED
    m.say(key, quarantine.spec.subject.uid, wishes, said, note, "Quarantine", warning=not verified)
    if stage is quarantine.spec.stages[-1] or not verified:
        m.metrics.action(Verdict.QUARANTINE.value, kind, "verified" if verified else "failed")
    if not verified:
        m.queue.at(key, now + timedelta(seconds=5))
    return verified
