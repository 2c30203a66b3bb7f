"""DenyWrites: stage begun in status -> user name in the parameters of the opt-in policy, which only people install."""

from __future__ import annotations

from tenure.api.names import Stage
from tenure.api.quarantine import QuarantineStatus, StageStatus
from tenure.decide.hold import Quarantine
from tenure.enforce.contention import Reverted
from tenure.enforce.means import Means
from tenure.enforce.quarantine import stage_of


def held(m: Means, /) -> str:
    return "DenyWritesMissing" if m.proof.faults[Stage.DENY_WRITES] else ""


async def carry_out(m: Means, quarantine: Quarantine, /) -> tuple[Quarantine, bool]:
    if stage_of(quarantine, Stage.DENY_WRITES) is None:
        status = quarantine.status or QuarantineStatus()
        begun = (*status.stages, StageStatus(name=Stage.DENY_WRITES))
        quarantine = await m.write_status(quarantine, status.model_copy(update={"stages": begun}))
    await m.guards.rebuild(quarantine.namespace)
    return quarantine, await m.guards.in_force(quarantine.namespace, quarantine)


def undone(m: Means, quarantine: Quarantine, /) -> bool:
    return False  # a guard that lacks something is rebuilt whole, for all Quarantines at once


def reverts(m: Means, quarantine: Quarantine, /) -> list[Reverted]:
    return []


async def give_back(m: Means, quarantine: Quarantine, /) -> list[str]:
    return []  # an ending Quarantine wants nothing: the next rebuild takes its entry out
