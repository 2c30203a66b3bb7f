"""GovernancePolicy: where Tenure acts, when, and on what (cluster-scoped); and the documented defaults."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Final

from pydantic import Field

from tenure.api.base import (
    AGE,
    ATOMIC,
    SERVER_DEFAULT,
    SET,
    ApiModel,
    Column,
    Count,
    Date,
    Duration,
    First,
    Kind,
    LabelKey,
    LabelSelector,
    Namespace,
    NameText,
    PositiveDuration,
    keyed,
)
from tenure.api.conditions import Conditions
from tenure.api.names import ExceptionClass, IdentityClass, OnDeadline, OnLapse, Risk, Rule, Stage

DEFAULT_DECIDE_WITHIN: Final = {
    Risk.CRITICAL: timedelta(hours=72),
    Risk.HIGH: timedelta(days=7),
    Risk.MEDIUM: timedelta(days=30),
    Risk.LOW: timedelta(days=90),
}
DEFAULT_EXCEPTION_MAX: Final = {
    ExceptionClass.BREAK_GLASS: timedelta(hours=24),
    ExceptionClass.MIGRATION: timedelta(days=90),
    ExceptionClass.VENDOR_MANAGED: timedelta(days=180),
    ExceptionClass.ACCEPTED_RISK: timedelta(days=90),
}
DEFAULT_MAX_RENEWALS: Final = {
    ExceptionClass.BREAK_GLASS: 0,
    ExceptionClass.MIGRATION: 1,
    ExceptionClass.VENDOR_MANAGED: 1,
    ExceptionClass.ACCEPTED_RISK: 1,
}
DEFAULT_ADOPTION_GRACE: Final = timedelta(days=30)
DEFAULT_STAGES: Final = (Stage.GUARD, Stage.DISABLE_TOKENS)
DEFAULT_STAGE_INTERVAL: Final = timedelta(0)
DEFAULT_HOLD_AFTER_USE: Final = timedelta(hours=48)
DEFAULT_MAX_AGE: Final = timedelta(days=365)
DEFAULT_REQUIRE_DECLARED: Final = (Risk.CRITICAL,)
DEFAULT_MAX_REVERTS: Final = 3
DEFAULT_BLAST_ACTIONS: Final = 10
DEFAULT_BLAST_WINDOW: Final = timedelta(hours=1)
DEFAULT_BLAST_PERCENT: Final = 20
DEFAULT_RETENTION_RESOLVED: Final = timedelta(days=90)
DEFAULT_RETENTION_DECISIONS: Final = timedelta(days=400)

Verb = Annotated[str, Field(min_length=1, max_length=63, pattern="^[a-z]+(-[a-z0-9]+)*$")]


class OwnershipPolicy(ApiModel):
    """Which labels name an owner, and for which risks a derived owner is not enough."""

    namespace_labels: Annotated[tuple[LabelKey, ...], Field(max_length=16), SET] = ()
    object_labels: Annotated[tuple[LabelKey, ...], Field(max_length=16), SET] = ()
    object_labels_count: Annotated[bool, SERVER_DEFAULT] = False
    require_declared: Annotated[tuple[Risk, ...], Field(max_length=len(Risk)), SET] = DEFAULT_REQUIRE_DECLARED


class DeadlineRule(ApiModel):
    """Deadline and default action; empty lists match everything, None takes the documented default of the risk."""

    rules: Annotated[tuple[Rule, ...], Field(max_length=len(Rule)), SET] = ()
    risks: Annotated[tuple[Risk, ...], Field(max_length=len(Risk)), SET] = ()
    classes: Annotated[tuple[IdentityClass, ...], Field(max_length=len(IdentityClass)), SET] = ()
    decide_within: PositiveDuration | None = None
    on_deadline: OnDeadline = OnDeadline.NOTHING
    revoke_after: PositiveDuration | None = None
    stages: Annotated[tuple[Stage, ...], Field(min_length=1, max_length=len(Stage)), SET] = DEFAULT_STAGES
    stage_interval: Duration = DEFAULT_STAGE_INTERVAL
    hold_after_use: Duration = DEFAULT_HOLD_AFTER_USE


class ApprovalRequirement(ApiModel):
    """How many people must use which virtual verb."""

    verb: Verb
    count: Annotated[int, Field(ge=1, le=10)] = 1


DEFAULT_APPROVALS: Final = (ApprovalRequirement(verb="approve", count=1),)


class ConsultRequirement(ApiModel):
    """Whose opinion is waited for, and how long."""

    verb: Verb
    wait: PositiveDuration


class VetoRequirement(ApiModel):
    """Who may veto, and until when."""

    verb: Verb
    within: PositiveDuration


class ExceptionClassPolicy(ApiModel):
    """Bounds and approvals of one class. `approvals: []`, in so many words, asks for none; left out, for one."""

    class_: ExceptionClass
    max_duration: PositiveDuration | None = None
    max_renewals: Annotated[int, Field(ge=0, le=100)] | None = None
    approvals: Annotated[tuple[ApprovalRequirement, ...], Field(max_length=8), ATOMIC] = DEFAULT_APPROVALS
    consult: Annotated[tuple[ConsultRequirement, ...], Field(max_length=8), ATOMIC] = ()
    veto: VetoRequirement | None = None

    @property
    def longest(self) -> timedelta:
        """The longest an exception of this class may last."""
        return self.max_duration or DEFAULT_EXCEPTION_MAX[self.class_]

    @property
    def most_renewals(self) -> int:
        """How often an exception of this class may be renewed."""
        return DEFAULT_MAX_RENEWALS[self.class_] if self.max_renewals is None else self.max_renewals


class ExceptionsPolicy(ApiModel):
    """What exceptions need."""

    classes: Annotated[tuple[ExceptionClassPolicy, ...], Field(max_length=len(ExceptionClass)), keyed("class")] = ()
    require_on_behalf_of: Annotated[bool, SERVER_DEFAULT] = False
    on_lapse: Annotated[OnLapse, SERVER_DEFAULT] = OnLapse.CONTINUE_CLOCK

    def of(self, class_: ExceptionClass) -> ExceptionClassPolicy:
        """The bounds of a class, documented defaults where the policy says nothing."""
        return next((c for c in self.classes if c.class_ is class_), ExceptionClassPolicy(class_=class_))


class CredentialsPolicy(ApiModel):
    """Rules on credentials."""

    max_age: Annotated[PositiveDuration, SERVER_DEFAULT] = DEFAULT_MAX_AGE


class ReviewRule(ApiModel):
    """How often claims that set no interval are attested; first match wins, no classes match all."""

    classes: Annotated[tuple[IdentityClass, ...], Field(max_length=len(IdentityClass)), SET] = ()
    interval: PositiveDuration


class ContentionPolicy(ApiModel):
    """When Tenure stops repeating what others undo."""

    max_reverts: Annotated[int, Field(ge=0, le=1000), SERVER_DEFAULT] = DEFAULT_MAX_REVERTS


class BlastRadius(ApiModel):
    """How much may be enforced within a window; at least one act always may."""

    max_actions: Annotated[int, Field(ge=1, le=1_000_000), SERVER_DEFAULT] = DEFAULT_BLAST_ACTIONS
    window: Annotated[PositiveDuration, SERVER_DEFAULT] = DEFAULT_BLAST_WINDOW
    max_percent_per_namespace: Annotated[int, Field(ge=1, le=100), SERVER_DEFAULT] = DEFAULT_BLAST_PERCENT


class ExpectedSource(ApiModel):
    """An inventory source that is expected to report, and how old its report may be."""

    name: Annotated[str, Field(min_length=1, max_length=63)]
    max_age: PositiveDuration | None = None


class InventoryPolicy(ApiModel):
    """Which inventory sources are expected."""

    expected_sources: Annotated[tuple[ExpectedSource, ...], Field(max_length=32), keyed("name")] = ()


class Retention(ApiModel):
    """How long resolved findings and decisions are kept."""

    resolved: Annotated[PositiveDuration, SERVER_DEFAULT] = DEFAULT_RETENTION_RESOLVED
    decisions: Annotated[PositiveDuration, SERVER_DEFAULT] = DEFAULT_RETENTION_DECISIONS


class GovernancePolicySpec(ApiModel):
    """What people write of a policy."""

    suspend: Annotated[bool, SERVER_DEFAULT] = False
    namespace_selector: LabelSelector | None = None
    platform_namespaces: Annotated[tuple[Namespace, ...], Field(max_length=64), SET] = ()
    precedence: Annotated[int, Field(ge=-1_000_000, le=1_000_000), SERVER_DEFAULT] = 0
    enforce_in: LabelSelector | None = None
    effective_from: Date | None = None
    adoption_grace: Annotated[Duration, SERVER_DEFAULT] = DEFAULT_ADOPTION_GRACE
    ownership: OwnershipPolicy = OwnershipPolicy()
    deadlines: Annotated[tuple[DeadlineRule, ...], Field(max_length=64), ATOMIC] = ()
    exceptions: ExceptionsPolicy = ExceptionsPolicy()
    credentials: CredentialsPolicy = CredentialsPolicy()
    reviews: Annotated[tuple[ReviewRule, ...], Field(max_length=16), ATOMIC] = ()
    contention: ContentionPolicy = ContentionPolicy()
    blast_radius: BlastRadius = BlastRadius()
    inventory: InventoryPolicy = InventoryPolicy()
    retention: Retention = Retention()


class GovernancePolicyStatus(ApiModel):
    """What the operator says of a policy; `conflicts` names the policies of equal precedence."""

    observed_generation: int = -1
    namespaces: Count = 0
    enforcing: Count = 0
    conflicts: Annotated[tuple[NameText, ...], First(64), SET] = ()
    conditions: Conditions = ()


KIND = Kind(
    kind="GovernancePolicy",
    plural="governancepolicies",
    singular="governancepolicy",
    short_name="govpol",
    namespaced=False,
    description="GovernancePolicy says where Tenure acts, when, and on what. No policy means audit, with defaults.",
    spec=GovernancePolicySpec,
    status=GovernancePolicyStatus,
    status_subresource=True,
    columns=(
        Column("Precedence", ".spec.precedence", "integer"),
        Column("Suspend", ".spec.suspend", "boolean"),
        Column("Namespaces", ".status.namespaces", "integer"),
        Column("Enforcing", ".status.enforcing", "integer"),
        Column("Effective From", ".spec.effectiveFrom", wide=True),
        AGE,
    ),
)
