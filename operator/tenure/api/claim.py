"""OwnedIdentity: the claim on identities and credentials for an owner."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from tenure.api.base import (
    AGE,
    ATOMIC,
    SERVER_DEFAULT,
    SET,
    ApiModel,
    Cel,
    Column,
    Count,
    Date,
    Kind,
    LabelSelector,
    Line,
    Name,
    Namespace,
    OwnerName,
    PositiveDuration,
    Prose,
    Schema,
    ShortText,
    Timestamp,
    rules,
)
from tenure.api.conditions import Conditions
from tenure.api.names import CLAIMABLE_CLASSES, EntitlementScope, IdentityClass, RoleKind


class SubjectSet(ApiModel):
    """Objects of one kind, by name and by label: a union."""

    names: Annotated[tuple[Name, ...], Field(max_length=256), SET] = ()
    """By name."""
    selector: LabelSelector | None = None
    """By label."""


class ExternalAccount(ApiModel):
    """An account that lives outside the cluster."""

    provider: Annotated[str, Field(min_length=1, max_length=63)]
    """Where the account lives, such as github."""
    id: Line
    """Its name there."""


class ClaimSubjects(ApiModel):
    """What is claimed: names and selectors are a union; `selector: {}` takes all but platform identities."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Cel(
                "has(self.selector)"
                " || (has(self.serviceAccounts) && (has(self.serviceAccounts.selector)"
                " || (has(self.serviceAccounts.names) && size(self.serviceAccounts.names) > 0)))"
                " || (has(self.secrets) && (has(self.secrets.selector)"
                " || (has(self.secrets.names) && size(self.secrets.names) > 0)))"
                " || (has(self.external) && size(self.external) > 0)",
                "a claim on nothing: give selector ({} for the whole namespace), or names or a selector under "
                "serviceAccounts or secrets, or external",
            )
        )
    )

    selector: LabelSelector | None = None
    """ServiceAccounts and Secrets alike; {} takes all but platform identities and Secrets that are no credentials."""
    service_accounts: SubjectSet | None = None
    """ServiceAccounts; their token Secrets are covered with them."""
    secrets: SubjectSet | None = None
    """Secrets."""
    external: Annotated[tuple[ExternalAccount, ...], Field(max_length=256), ATOMIC] = ()
    """Accounts outside the cluster."""


class RoleRef(ApiModel):
    """The role of a declared entitlement."""

    kind: RoleKind
    name: Name


class DeclaredEntitlement(ApiModel):
    """A right that the claim's identities need, and why."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Cel(
                "!has(self.scope) || self.scope != 'Cluster'"
                " || (!has(self.namespace) && self.roleRef.kind == 'ClusterRole')",
                "scope: Cluster needs a ClusterRole and takes no namespace",
            )
        )
    )

    role_ref: RoleRef
    """The Role or ClusterRole."""
    namespace: Namespace | None = None
    """Where it is bound; default: the namespace of the claim."""
    scope: EntitlementScope = EntitlementScope.NAMESPACE
    """Cluster: bound by a ClusterRoleBinding."""
    reason: Prose | None = None
    """What it is needed for."""


class ClaimCredentials(ApiModel):
    """Rules on the claim's credentials; they may only tighten the policy's."""

    max_age: PositiveDuration | None = None
    """How old a credential may grow; may only tighten the policy."""


class ClaimReview(ApiModel):
    """How often somebody attests to the claim."""

    interval: PositiveDuration
    """Time between two attestations."""


class OwnedIdentitySpec(ApiModel):
    """What people write of a claim."""

    owner: OwnerName
    """The IdentityOwner. Writing the claim needs the verb claim on it."""
    purpose: Prose
    """What the identities are for."""
    system: Annotated[str, Field(min_length=1, max_length=63)] | None = None
    """The system they belong to; default: the namespace."""
    class_: Annotated[IdentityClass, Schema({"enum": [c.value for c in CLAIMABLE_CLASSES]}), SERVER_DEFAULT] = (
        IdentityClass.WORKLOAD
    )
    """What sort of identity it is."""
    subjects: ClaimSubjects
    """What is claimed: names and selectors are a union."""
    entitlements: Annotated[tuple[DeclaredEntitlement, ...], Field(max_length=128), ATOMIC] = ()
    """Rights that the identities need, and why."""
    credentials: ClaimCredentials | None = None
    """Rules on the credentials."""
    expires_at: Date | None = None
    """When the claim ends; default: never. The past is accepted and counts as expired."""
    review: ClaimReview | None = None
    """How often somebody attests that the claim still holds."""


class MatchedCounts(ApiModel):
    """How many subjects the claim covers now."""

    service_accounts: Count = 0
    secrets: Count = 0
    external: Count = 0
    entitlements: Count = 0


class OwnedIdentityStatus(ApiModel):
    """What the operator says of a claim."""

    observed_generation: int = -1
    accountable: ShortText = ""
    """Who answers now: the owner, or its backup while it is vacant."""
    accountable_since: Timestamp | None = None
    """Since when."""
    stamped: Timestamp | None = None
    """When the present spec was written; its review runs from here."""
    matched: MatchedCounts | None = None
    expired: Timestamp | None = None
    attested: Timestamp | None = None
    """When somebody last attested to it."""
    attested_by: ShortText = ""
    """Who."""
    review_due: Timestamp | None = None
    conditions: Conditions = ()


KIND = Kind(
    kind="OwnedIdentity",
    plural="ownedidentities",
    singular="ownedidentity",
    short_name="owned",
    namespaced=True,
    description="OwnedIdentity claims identities and credentials of its namespace for an owner, with a purpose.",
    spec=OwnedIdentitySpec,
    status=OwnedIdentityStatus,
    status_subresource=True,
    columns=(
        Column("Owner", ".spec.owner"),
        Column("Class", ".spec.class"),
        Column("Accountable", ".status.accountable"),
        Column("Service Accounts", ".status.matched.serviceAccounts", "integer"),
        Column("Secrets", ".status.matched.secrets", "integer"),
        Column("Expires", ".spec.expiresAt"),
        Column("Accountable Since", ".status.accountableSince", wide=True),
        Column("Conflict", ".status.conditions[?(@.type=='Conflict')].status", wide=True),
        Column("System", ".spec.system", wide=True),
        AGE,
    ),
    selectable=(".spec.owner", ".spec.class", ".spec.system"),
)
