"""The terms a finding lives under: what the effective policy, or the documented defaults, say about it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from tenure.api.names import IdentityClass, Mode, OnDeadline, Risk, Rule, Stage
from tenure.api.policy import DEFAULT_DECIDE_WITHIN, DEFAULT_MAX_REVERTS, GovernancePolicySpec
from tenure.model.evaluation import Governance
from tenure.model.keys import Key

ENFORCEABLE = frozenset({"ServiceAccount", "Secret", "RoleBinding", "ClusterRoleBinding"})
"""Kinds a finding can act on; findings on claims and exceptions escalate and enforce nothing."""

_DEFAULTS = GovernancePolicySpec()


@dataclass(frozen=True, slots=True)
class Terms:
    decide_within: timedelta
    on_deadline: OnDeadline
    mode: Mode
    reference: str
    """The policy that decides, as kind/name, or "documented defaults"."""
    held: str = ""
    """Why no act may happen now although the policy enforces: Suspended, EnforcementOff, PolicyConflict; "" = free."""
    not_before: datetime | None = None
    """The end of the adoption grace for this subject; None = no grace applies, `due` alone counts."""
    turn_known: bool = True
    """False while this namespace's turn to enforcing is not durably recorded: nothing may act before."""
    revoke_after: timedelta | None = None
    stages: tuple[Stage, ...] = (Stage.GUARD, Stage.DISABLE_TOKENS)
    stage_interval: timedelta = timedelta(0)
    hold_after_use: timedelta = timedelta(hours=48)
    retention: timedelta = timedelta(days=90)
    restart_on_lapse: bool = False
    max_reverts: int = DEFAULT_MAX_REVERTS


def terms(
    governance: Governance,
    *,
    rule: Rule,
    risk: Risk,
    class_: IdentityClass,
    key: Key,
    created: datetime | None,
    turn: datetime | None,
    enforcement: bool,
) -> Terms:
    """The terms for one rule on one subject. `turn` is when Tenure first saw the namespace enforced (None = not
    recorded); `enforcement` is the process's own switch. The first `deadlines` entry that matches wins."""
    policy = governance.policy
    spec = policy.spec if policy else _DEFAULTS
    entry = next(
        (
            d
            for d in spec.deadlines
            if (not d.rules or rule in d.rules)
            and (not d.risks or risk in d.risks)
            and (not d.classes or class_ in d.classes)
        ),
        None,
    )
    within = entry.decide_within if entry and entry.decide_within is not None else DEFAULT_DECIDE_WITHIN[risk]
    action = entry.on_deadline if entry else OnDeadline.NOTHING
    if key.kind not in ENFORCEABLE:
        action = OnDeadline.NOTHING
    mode = Mode.ENFORCE if governance.enforcing and policy is not None else Mode.AUDIT
    not_before: datetime | None = None
    turn_known = True
    if mode is Mode.ENFORCE and policy is not None:
        turn_known = turn is not None
        if turn is not None:
            at = max(turn, spec.effective_from or policy.created)
            if created is None or created < at:
                not_before = at + spec.adoption_grace
    return Terms(
        decide_within=max(within, timedelta(seconds=1)),
        on_deadline=action,
        mode=mode,
        reference=f"GovernancePolicy/{policy.name}" if policy else "documented defaults",
        held=_held(governance, spec, enforcement),
        not_before=not_before,
        turn_known=turn_known,
        revoke_after=entry.revoke_after if entry else None,
        stages=tuple(entry.stages) if entry and entry.stages else (Stage.GUARD, Stage.DISABLE_TOKENS),
        stage_interval=entry.stage_interval if entry else timedelta(0),
        hold_after_use=entry.hold_after_use if entry else timedelta(hours=48),
        retention=spec.retention.resolved,
        restart_on_lapse=spec.exceptions.on_lapse == "RestartClock",
        max_reverts=spec.contention.max_reverts,
    )


def _held(governance: Governance, spec: GovernancePolicySpec, enforcement: bool) -> str:
    if governance.unreadable:
        return "Unreadable"
    if governance.conflict:
        return "PolicyConflict"
    if not enforcement:
        return "EnforcementOff"
    if spec.suspend:
        return "Suspended"
    if governance.platform and not governance.platform_named:
        return "PlatformNamespace"
    return ""
