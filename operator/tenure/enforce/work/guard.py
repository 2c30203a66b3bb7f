"""Guard: what is quarantined is named in the parameters of the admission guards (tenure.enforce.guards)."""

from __future__ import annotations

from tenure.decide.hold import Quarantine
from tenure.enforce.contention import Reverted
from tenure.enforce.means import Means


def held(m: Means, /) -> str:
    return ""


async def carry_out(m: Means, quarantine: Quarantine, /) -> tuple[Quarantine, bool]:
    await m.guards.rebuild(quarantine.namespace)
    return quarantine, await m.guards.in_force(quarantine.namespace, quarantine)


def undone(m: Means, quarantine: Quarantine, /) -> bool:
    return False  # a guard that lacks something is rebuilt whole, for all Quarantines at once


def reverts(m: Means, quarantine: Quarantine, /) -> list[Reverted]:
    return []


async def give_back(m: Means, quarantine: Quarantine, /) -> list[str]:
    return []  # an ending Quarantine wants nothing: the next rebuild, after the other stages, takes its entries out
