"""What the evaluator says about one subject at one instant: the input of every decision.

The same records come out whether the facts were gathered from the live inventory, from one object
read live just before an act, or from a directory of manifests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from tenure.api.decision import DecisionOutcome, DecisionReason, IdentityDecisionSpec, IdentityDecisionStatus
from tenure.api.exception import Counted, IdentityExceptionSpec, IdentityExceptionStatus
from tenure.api.names import ExceptionPhase, IdentityClass, Risk, Rule
from tenure.api.policy import GovernancePolicySpec, GovernancePolicyStatus
from tenure.model.keys import Key
from tenure.model.records import Authored, ManagedBy

Policy = Authored[GovernancePolicySpec, GovernancePolicyStatus]
ExceptionRecord = Authored[IdentityExceptionSpec, IdentityExceptionStatus]
Decision = Authored[IdentityDecisionSpec, IdentityDecisionStatus]


@dataclass(frozen=True, slots=True)
class Governance:
    """Which policy governs a namespace. policy is None without one (audit with the documented defaults) and
    when several of the highest precedence match (`conflict` then names them, and nothing acts)."""

    policy: Policy | None = None
    conflict: tuple[str, ...] = ()
    enforcing: bool = False
    """enforceIn matches the namespace; False means audit. suspend and --enforcement=off are not in here."""
    platform: bool = False
    """The namespace, or the identity, is the platform's."""
    platform_named: bool = False
    """… and the policy names that namespace literally in platformNamespaces."""
    own: bool = False
    """The namespace is Tenure's own."""
    unreadable: tuple[str, ...] = ()
    """Policies, owners, and this namespace's claims and exceptions that this version cannot read, as Kind/name. What
    they say is unknown, so the evaluation may be wrong about them: nothing may act while one stands."""


@dataclass(frozen=True, slots=True)
class Rung:
    """One step of an owner's escalation path."""

    share: float
    """Of the decision time: 0.5 is half of it."""
    owner: str
    """Who is accountable from then on."""
    contact: str = ""


@dataclass(frozen=True, slots=True)
class Ownership:
    """Who answers for a subject, and why."""

    state: Literal["declared", "derived", "none"]
    owner: str = ""
    """The accountable owner: the claim's or label's, its backup where that one is vacant, "" for none.
    May be set while state is "none": an object label names somebody accountable and resolves nothing."""
    why: str = ""
    """In words: "claim payments/invoice-api, by name"; "label tenure.dev/owner on namespace payments"."""
    claim: Key | None = None
    claim_changed: datetime | None = None
    """When the claim's spec last changed (API server's stamp), for decision latency."""
    class_: IdentityClass = IdentityClass.WORKLOAD
    vacant: bool = False
    """The named owner is missing, suspended or cyclic."""
    escalation: bool = False
    """The accountable owner has an escalation path."""
    contact: str = ""
    """The accountable owner's first contact as "Email payments@example.com", "" without one."""
    ladder: tuple[Rung, ...] = ()
    """The accountable owner's escalation, by share; rungs whose owner is vacant lead to that one's stand-in, and
    those that nobody answers on are left out."""


@dataclass(frozen=True, slots=True)
class RiskGrade:
    level: Risk
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Evidence:
    source: str
    since: datetime | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Violation:
    """One rule that holds for the subject now."""

    rule: Rule
    observable: datetime
    """When the rule first held, by the objects' own stamps (the caller bounds it by the first inventory)."""
    message: str
    risk: RiskGrade
    evidence: tuple[Evidence, ...] = ()
    epoch: datetime | None = None
    """For CredentialTooOld and CredentialExpired: when the data changed. A later epoch than a lineage's last
    one starts its clock anew; None = the clock goes on."""


@dataclass(frozen=True, slots=True)
class Waiver:
    """An active exception that covers the subject for one rule at this instant."""

    exception: Key
    class_: str
    active_since: datetime
    until: datetime
    decided: datetime | None = None
    """The last approval needed, by the API server's stamp; None = `active_since` counts."""
    by: str = ""
    """Who gave it."""
    reference: str = ""
    """The IdentityDecision it was given with, "" where none was needed."""


@dataclass(frozen=True, slots=True)
class Ruling:
    """What became of one decision, and why."""

    outcome: DecisionOutcome
    reason: DecisionReason | None = None
    message: str = ""

    @classmethod
    def counted(cls, reason: DecisionReason, message: str = "") -> Ruling:
        return cls(DecisionOutcome.COUNTED, reason, message)

    @classmethod
    def void(cls, reason: DecisionReason, message: str) -> Ruling:
        return cls(DecisionOutcome.VOID, reason, message)

    @classmethod
    def undecided(cls, message: str = "") -> Ruling:
        return cls(DecisionOutcome.UNDECIDED, None, message)


def settled(decision: Decision) -> Ruling | None:
    """What the decision's own status says of it, which is for good; None while it says nothing."""
    status = decision.status
    if status is None or status.outcome is DecisionOutcome.UNDECIDED:
        return None
    known = status.reason in set(DecisionReason)
    return Ruling(status.outcome, DecisionReason(status.reason) if known else None, status.message)


@dataclass(frozen=True, slots=True)
class Standing:
    """Where an exception stands at this instant, by its spec and the policy (see rules.exceptions.state)."""

    phase: ExceptionPhase
    reason: str
    """For `status.reason`: one of the constants of rules.exceptions."""
    failing: str = ""
    """The clause that keeps it from being active, in words; "" when none does."""
    until: datetime | None = None
    """The next instant at which this changes by itself, None for never."""
    active_since: datetime | None = None
    """While it is active: since when, by its status, else by the stamps of what made it active."""
    missing: tuple[str, ...] = ()
    """The verbs that are still to be used by somebody, each once."""
    unheard: tuple[str, ...] = ()
    """The verbs of those whose opinion is still waited for."""
    decided: datetime | None = None
    """The last approval needed (a forced one: the force), by the API server's stamp; None while one is missing, and
    where none is needed."""
    decided_by: str = ""
    decision: str = ""
    """The IdentityDecision that was the last one needed."""
    approved: datetime | None = None
    """The first approval that counts: what a selector matched is frozen from then on. None without one."""
    forced: datetime | None = None
    """When it was forced, None when it was not."""
    counted: tuple[Counted, ...] = ()
    """The decisions that count for the present spec, in the order in which they were made."""
    rulings: Mapping[str, Ruling] = field(default_factory=dict)
    """What became of each decision about it, by the decision's name."""
    disallowed: str = ""
    """An active exception: what the policy no longer allows about it, in words; "" when nothing."""


@dataclass(frozen=True, slots=True)
class Pin:
    """One target of an exception as it is now, to be frozen in `status.matched` when the exception becomes active."""

    kind: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Evaluation:
    key: Key
    uid: str
    """"" when the subject is gone; of an entitlement its binding's."""
    exists: bool
    created: datetime | None
    deleting: bool
    governance: Governance
    ownership: Ownership
    risk: RiskGrade
    """The identity's risk (what it is bound to) without any rule's base."""
    violations: tuple[Violation, ...] = ()
    waivers: Mapping[Rule, Waiver] = field(default_factory=dict)
    """For every rule, violated or not, that an active exception covers."""
    next_change: datetime | None = None
    """The earliest future instant at which this result changes without an event, None for never."""
    managed_by: ManagedBy | None = None
    residual: tuple[str, ...] = ()
    """What stays possible while the subject is quarantined, in words (running pods' bound tokens, group rights)."""
    bindings: tuple[Key, ...] = ()
    credentials: tuple[Key, ...] = ()
    exceptions: tuple[Key, ...] = ()
    """Every exception that targets the subject, whatever its phase."""
    covered: Mapping[str, int] = field(default_factory=dict)
    """For a claim: how many objects it covers, by kind; token Secrets of its ServiceAccounts are among its Secrets."""
    standing: Standing | None = None
    """For an exception: its phase, and what keeps it from being active."""
    pins: tuple[Pin, ...] = ()
    """For an exception: what its target names or selects now, by name."""
    review_due: datetime | None = None
    """For a claim or exception: when its review falls due; None when none does, or there is nothing to decide."""
    attested: datetime | None = None
    """For a claim or exception: the last attestation that counts."""
    attested_by: str = ""
    rulings: Mapping[str, Ruling] = field(default_factory=dict)
    """For a claim: what became of each decision about it, by name (an exception's stand in `standing`)."""
    governed: str = ""
    """The namespace whose policy counts where that is not the key's: of a ClusterRoleBinding the ServiceAccount's."""
    declared_by: Key | None = None
    """Of an entitlement: a claim that lists it."""
    declared: datetime | None = None
    """When that claim's spec last changed (API server's stamp)."""
    needed: bool = True
    """For an active exception: a target violates a rule it names (or it covers nothing that could be told)."""
