"""How bad it is: the risk table of ecosystem.md §6 applied to what an identity is bound to.

Roles arrive graded (`inventory.grading` reads their rules once); here scope and neighbourhood decide which of a row's
two levels counts, and the worst row is the identity's grade: the maximum, not a sum, so that a person can undo it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from tenure.api.names import Risk, Rule
from tenure.model.evaluation import RiskGrade
from tenure.model.facts import UNGRADED, Grant
from tenure.model.records import Grade
from tenure.rules.catalogue import CATALOGUE

CLUSTER_NAMESPACES: Final = frozenset({"", "kube-system"})
"""Whoever has rights in kube-system has the cluster's controllers and their tokens: graded as a cluster binding."""

RUN_PODS: Final = "R11"
IMPERSONATING: Final = frozenset({"R01", "R04"})
"""Rows that let somebody act as another; R01 is every verb, that one among them."""
REASONS: Final = 5
"""Bindings named in a grade; the worst come first, the rest is counted (a finding stays below 4 KiB)."""
LINE: Final = 200

_LEVELS: Final = {level.value: level for level in Risk}


def level(grade: Grade, grant: Grant) -> Risk | None:
    """The level one row gives through one binding; None where the row does not apply in that scope."""
    clusterwide = grant.binding.namespace in CLUSTER_NAMESPACES
    found = _LEVELS.get(grade.cluster if clusterwide else grade.namespaced)
    if found is not None and grade.row == RUN_PODS and (clusterwide or grant.elevated):
        # R11 is critical where the namespace holds a critical ServiceAccount. kube-system does: the controllers'.
        return Risk.CRITICAL
    return found


def critical(grants: Iterable[Grant]) -> bool:
    """Whether an identity with these grants is Critical by itself, without looking at its neighbours."""
    return any(
        level(grade, Grant(grant.binding, grant.role)) is Risk.CRITICAL
        for grant in grants
        if grant.role is not None
        for grade in grant.role.grades
    )


def grade(grants: Iterable[Grant]) -> RiskGrade:
    """The worst level among the grants, with one reason for each binding that is graded, the worst first."""
    worst = Risk.LOW
    lines: list[tuple[int, str]] = []
    for grant in grants:
        rows = _graded(grant)
        if rows:
            top = max(found for found, _ in rows)
            worst = max(worst, top)
            lines.append((-top.rank, _reason(grant, [row for found, row in rows if found is top])))
    if not lines:
        return UNGRADED
    lines.sort()
    reasons = tuple(text for _, text in lines[:REASONS])
    if len(lines) > REASONS:
        reasons += (f"and {len(lines) - REASONS} more bindings, none of them worse",)
    return RiskGrade(worst, reasons)


def _graded(grant: Grant) -> list[tuple[Risk, Grade]]:
    if grant.role is None:
        return []
    return [(found, row) for row in grant.role.grades if (found := level(row, grant)) is not None]


def _reason(grant: Grant, rows: list[Grade]) -> str:
    """ "bound to ClusterRole edit by RoleBinding payments/ci-edit: create pods (R11)"."""
    binding = grant.binding
    where = (
        f"RoleBinding {binding.namespace}/{binding.name}" if binding.namespace else f"ClusterRoleBinding {binding.name}"
    )
    through = f" as {grant.through}" if grant.through else ""
    elevated = (
        grant.elevated and any(row.row == RUN_PODS for row in rows) and binding.namespace not in CLUSTER_NAMESPACES
    )
    beside = "; the namespace holds a Critical ServiceAccount" if elevated else ""
    rights = ", ".join(f"{row.what} ({row.row})" for row in rows)
    text = f"bound to {binding.role_kind} {binding.role_name} by {where}{through}: {rights}{beside}"
    return text if len(text) <= LINE else text[: LINE - 1] + "…"


def worst(grades: Iterable[RiskGrade]) -> RiskGrade:
    """The worst of several grades (of equals the first in the order of their reasons), Low for none."""
    return min(grades, key=lambda found: (-found.level.rank, found.reasons), default=UNGRADED)


def of_violation(rule: Rule, identity: RiskGrade) -> RiskGrade:
    """A violation's risk: the rule's base, or the identity's grade where that is higher."""
    base = CATALOGUE[rule].base
    if identity.level >= base:
        return identity
    return RiskGrade(base, (f"{rule.value} is at least {base.value}", *identity.reasons))
