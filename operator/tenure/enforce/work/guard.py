"""Guard: what is quarantined is named in the parameters of the admission guards (tenure.enforce.guards)."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from tenure.api.quarantine import QuarantineStatus
from tenure.decide.hold import Quarantine
from tenure.enforce import consumers
from tenure.enforce.contention import Reverted
from tenure.enforce.means import Means
from tenure.enforce.quarantine import is_other_secret
from tenure.model.records import Binding

READERS: Final = 3
"""Subjects named one by one; the rest is counted."""
_READING: Final = frozenset({"R01", "R06", "R07"})
"""Rows of the risk table that a role which reads Secrets fulfils."""


def held(m: Means, /) -> str:
    return ""


async def carry_out(m: Means, quarantine: Quarantine, /) -> tuple[Quarantine, bool]:
    await m.guards.rebuild(quarantine.namespace)
    if is_other_secret(quarantine):
        using = await consumers.of(m.kube, quarantine.namespace, quarantine.spec.subject.name)
        residual = (*using, *_readers(m, quarantine))
        status = (quarantine.status or QuarantineStatus()).model_copy(update={"residual": residual})
        quarantine = replace(quarantine, status=status)
    return quarantine, await m.guards.in_force(quarantine.namespace, quarantine)


def undone(m: Means, quarantine: Quarantine, /) -> bool:
    return False  # a guard that lacks something is rebuilt whole, for all Quarantines at once


def reverts(m: Means, quarantine: Quarantine, /) -> list[Reverted]:
    return []


async def give_back(m: Means, quarantine: Quarantine, /) -> list[str]:
    return []  # an ending Quarantine wants nothing: the next rebuild, after the other stages, takes its entries out


def _readers(m: Means, quarantine: Quarantine) -> tuple[str, ...]:
    """Who is bound to read the Secret through the API, one line each, as the inventory has it now. Kubernetes' own
    bindings are not listed."""
    bindings = (*m.store.bindings_in(quarantine.namespace), *m.store.bindings_in(""))
    lines = [
        f"{subject.kind} {subject.name} may read it ({found.kind} {found.name})"
        for found in bindings
        if not found.bootstrap and _reads(m, found, quarantine.spec.subject.name)
        for subject in found.subjects
    ]
    more = (f"and {len(lines) - READERS} more may read it",) if len(lines) > READERS else ()
    return (*lines[:READERS], *more)


def _reads(m: Means, binding: Binding, secret: str) -> bool:
    role = m.store.roles.get((binding.namespace if binding.role_kind == "Role" else "", binding.role_name))
    for grade in role.grades if role is not None else ():
        if grade.row in _READING:
            _, narrowed, names = grade.what.partition("(")
            if not narrowed or "…" in names or secret in names.rstrip(")").split(", "):
                return True
    return False
