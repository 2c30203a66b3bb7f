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
    """Namespace labels whose value names an owner, beside tenure.dev/owner."""
    object_labels: Annotated[tuple[LabelKey, ...], Field(max_length=16), SET] = ()
    """Labels on the object itself that make an owner accountable."""
    object_labels_count: Annotated[bool, SERVER_DEFAULT] = False
    """Such a label also resolves Unowned."""
    require_declared: Annotated[tuple[Risk, ...], Field(max_length=len(Risk)), SET] = DEFAULT_REQUIRE_DECLARED
    """Risks for which a derived owner is not enough."""


class DeadlineRule(ApiModel):
    """Deadline and default action. What is left out matches everything, or takes the documented default."""

    rules: Annotated[tuple[Rule, ...], Field(max_length=len(Rule)), SET] = ()
    """Rules it is for; absent: all."""
    risks: Annotated[tuple[Risk, ...], Field(max_length=len(Risk)), SET] = ()
    """Risks it is for; absent: all."""
    classes: Annotated[tuple[IdentityClass, ...], Field(max_length=len(IdentityClass)), SET] = ()
    """Classes of identities it is for; absent: all."""
    decide_within: PositiveDuration | None = None
    """Time for a decision; default: 72h, 7d, 30d, 90d for Critical, High, Medium, Low."""
    on_deadline: OnDeadline = OnDeadline.NOTHING
    """What happens when nobody has decided; default: Nothing."""
    revoke_after: PositiveDuration | None = None
    """Quarantined that long, it is revoked; default: never."""
    stages: Annotated[tuple[Stage, ...], Field(min_length=1, max_length=len(Stage)), SET] = DEFAULT_STAGES
    """How a quarantine is enforced; default: Guard, DisableTokens."""
    stage_interval: Duration = DEFAULT_STAGE_INTERVAL
    """Time between two stages; default: 0s."""
    hold_after_use: Duration = DEFAULT_HOLD_AFTER_USE
    """Revocation waits that long after an attempted use; default: 48h."""


class ApprovalRequirement(ApiModel):
    """How many people must use which virtual verb."""

    verb: Verb
    """The virtual verb on identityexceptions."""
    count: Annotated[int, Field(ge=1, le=10)] = 1
    """How many people must use it."""


DEFAULT_APPROVALS: Final = (ApprovalRequirement(verb="approve", count=1),)


class ConsultRequirement(ApiModel):
    """Whose opinion is waited for, and how long."""

    verb: Verb
    """The virtual verb on identityexceptions."""
    wait: PositiveDuration
    """How long the answer is waited for."""


class VetoRequirement(ApiModel):
    """Who may veto, and until when."""

    verb: Verb
    """The virtual verb on identityexceptions."""
    within: PositiveDuration
    """Until when it has an effect."""


class ExceptionClassPolicy(ApiModel):
    """Bounds and approvals of one class. `approvals: []`, in so many words, asks for none; left out, for one."""

    class_: ExceptionClass
    """The class."""
    max_duration: PositiveDuration | None = None
    """The longest an exception may last; default: BreakGlass 24h, Migration 90d, VendorManaged 180d, AcceptedRisk
    90d.
    """
    max_renewals: Annotated[int, Field(ge=0, le=100)] | None = None
    """How often it may be renewed; default: 1, BreakGlass 0."""
    approvals: Annotated[tuple[ApprovalRequirement, ...], Field(max_length=8), ATOMIC] = DEFAULT_APPROVALS
    """What it takes; default: one approve. An empty list, in so many words, asks for none."""
    consult: Annotated[tuple[ConsultRequirement, ...], Field(max_length=8), ATOMIC] = ()
    """Who is heard first."""
    veto: VetoRequirement | None = None
    """Who may object."""

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
    """Bounds per class."""
    require_on_behalf_of: Annotated[bool, SERVER_DEFAULT] = False
    """A ServiceAccount must name the person behind it."""
    on_lapse: Annotated[OnLapse, SERVER_DEFAULT] = OnLapse.CONTINUE_CLOCK
    """Which clock a finding gets when its exception ends."""

    def of(self, class_: ExceptionClass) -> ExceptionClassPolicy:
        """The bounds of a class, documented defaults where the policy says nothing."""
        return next((c for c in self.classes if c.class_ is class_), ExceptionClassPolicy(class_=class_))


class CredentialsPolicy(ApiModel):
    """Rules on credentials."""

    max_age: Annotated[PositiveDuration, SERVER_DEFAULT] = DEFAULT_MAX_AGE
    """How old a credential may grow."""


class ReviewRule(ApiModel):
    """How often claims that set no interval are attested; first match wins, no classes match all."""

    classes: Annotated[tuple[IdentityClass, ...], Field(max_length=len(IdentityClass)), SET] = ()
    """Classes it is for; absent: all."""
    interval: PositiveDuration
    """Time between two attestations."""


class ContentionPolicy(ApiModel):
    """When Tenure stops repeating what others undo."""

    max_reverts: Annotated[int, Field(ge=0, le=1000), SERVER_DEFAULT] = DEFAULT_MAX_REVERTS
    """After how many reverts Tenure stops and says so."""


class BlastRadius(ApiModel):
    """How much may be enforced within a window; at least one act always may."""

    max_actions: Annotated[int, Field(ge=1, le=1_000_000), SERVER_DEFAULT] = DEFAULT_BLAST_ACTIONS
    """Acts within the window."""
    window: Annotated[PositiveDuration, SERVER_DEFAULT] = DEFAULT_BLAST_WINDOW
    """The window."""
    max_percent_per_namespace: Annotated[int, Field(ge=1, le=100), SERVER_DEFAULT] = DEFAULT_BLAST_PERCENT
    """Share of a namespace within the window; one act always may."""


class ExpectedSource(ApiModel):
    """An inventory source that is expected to report, and how old its report may be."""

    name: Annotated[str, Field(min_length=1, max_length=63)]
    """The source."""
    max_age: PositiveDuration | None = None
    """How old its report may be."""


class InventoryPolicy(ApiModel):
    """Which inventory sources are expected."""

    expected_sources: Annotated[tuple[ExpectedSource, ...], Field(max_length=32), keyed("name")] = ()
    """Sources that are expected to report."""


class Retention(ApiModel):
    """How long resolved findings and decisions are kept."""

    resolved: Annotated[PositiveDuration, SERVER_DEFAULT] = DEFAULT_RETENTION_RESOLVED
    """How long resolved findings are kept."""
    decisions: Annotated[PositiveDuration, SERVER_DEFAULT] = DEFAULT_RETENTION_DECISIONS
    """How long decisions are kept."""


class GovernancePolicySpec(ApiModel):
    """What people write of a policy."""

    suspend: Annotated[bool, SERVER_DEFAULT] = False
    """No act; guards and clocks stay."""
    namespace_selector: LabelSelector | None = None
    """Where the policy applies; absent: everywhere but platform namespaces."""
    platform_namespaces: Annotated[tuple[Namespace, ...], Field(max_length=64), SET] = ()
    """Platform namespaces to include, by name: the only way."""
    precedence: Annotated[int, Field(ge=-1_000_000, le=1_000_000), SERVER_DEFAULT] = 0
    """The highest that matches a namespace wins whole; equal ones conflict and act nowhere."""
    enforce_in: LabelSelector | None = None
    """Where it acts; absent: nowhere (audit); {}: wherever it applies."""
    effective_from: Date | None = None
    """No act before; absent: the creation of the policy."""
    adoption_grace: Annotated[Duration, SERVER_DEFAULT] = DEFAULT_ADOPTION_GRACE
    """Further time for what existed when a namespace turned to enforcing; 0s: none, on purpose."""
    ownership: OwnershipPolicy = OwnershipPolicy()
    """How ownership is derived."""
    deadlines: Annotated[tuple[DeadlineRule, ...], Field(max_length=64), ATOMIC] = ()
    """Deadlines and default actions; the first match wins."""
    exceptions: ExceptionsPolicy = ExceptionsPolicy()
    """What exceptions need."""
    credentials: CredentialsPolicy = CredentialsPolicy()
    """Rules on credentials."""
    reviews: Annotated[tuple[ReviewRule, ...], Field(max_length=16), ATOMIC] = ()
    """Reviews of claims that set none; the first match wins."""
    contention: ContentionPolicy = ContentionPolicy()
    """When Tenure yields to another writer."""
    blast_radius: BlastRadius = BlastRadius()
    """How much may be enforced at once."""
    inventory: InventoryPolicy = InventoryPolicy()
    """What completeness is measured against."""
    retention: Retention = Retention()
    """How long records are kept."""


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
