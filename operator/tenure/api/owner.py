"""IdentityOwner: who answers (cluster-scoped)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tenure.api.base import (
    AGE,
    ATOMIC,
    SERVER_DEFAULT,
    SET,
    ApiModel,
    Cel,
    Column,
    Count,
    Kind,
    LabelSelector,
    Line,
    OwnerName,
)
from tenure.api.conditions import Conditions


class Contact(ApiModel):
    """Where the owner is reached."""

    type: Annotated[str, Field(min_length=1, max_length=32, pattern="^[A-Z][A-Za-z0-9]*$")]
    """How: Email, Chat, Phone, Pager, Url, Ticket or a word of your own."""
    value: Line
    """The address, channel or number."""


class EscalationStep(ApiModel):
    """After which share of the decision time which owner is told."""

    after: Annotated[
        str,
        Field(min_length=2, max_length=4),
        Cel("self.matches('^([1-9][0-9]?|100)%$')", "must be a share of the decision time from 1% to 100%"),
    ]
    """Share of the decision time that has passed, from 1% to 100%."""
    to: OwnerName
    """The IdentityOwner that is told, and answers from then on."""

    @property
    def share(self) -> float:
        """`50%` as 0.5."""
        return int(self.after.removesuffix("%")) / 100


class IdentityOwnerSpec(ApiModel):
    """What people write of an owner."""

    display_name: Line | None = None
    """The name for people."""
    contacts: Annotated[tuple[Contact, ...], Field(max_length=16), ATOMIC] = ()
    """How the owner is reached; refusals and findings show the first."""
    groups: Annotated[tuple[Line, ...], Field(max_length=64), SET] = ()
    """RBAC groups that act for this owner. They are told and shown; rights come from RBAC alone."""
    backup: OwnerName | None = None
    """Another owner, accountable while this one is missing or suspended."""
    escalation: Annotated[tuple[EscalationStep, ...], Field(max_length=8), ATOMIC] = ()
    """Who is told when a decision is late."""
    namespace_selector: LabelSelector | None = None
    """Namespaces where it may be claimed for; absent: everywhere."""
    suspended: Annotated[bool, SERVER_DEFAULT] = False
    """No longer answers: its claims are vacant, its backup becomes accountable."""


class IdentityOwnerStatus(ApiModel):
    """What the operator says of an owner."""

    observed_generation: int = -1
    claims: Count = 0
    vacant: bool = False
    conditions: Conditions = ()


KIND = Kind(
    kind="IdentityOwner",
    plural="identityowners",
    singular="identityowner",
    short_name="idowner",
    namespaced=False,
    description="IdentityOwner is an accountable team: contacts, RBAC groups, a backup and an escalation path.",
    spec=IdentityOwnerSpec,
    status=IdentityOwnerStatus,
    status_subresource=True,
    columns=(
        Column("Display Name", ".spec.displayName"),
        Column("Backup", ".spec.backup"),
        Column("Claims", ".status.claims", "integer"),
        Column("Vacant", ".status.vacant", "boolean"),
        Column("Suspended", ".spec.suspended", "boolean", wide=True),
        AGE,
    ),
    selectable=(".spec.backup",),
    rules=(
        Cel(
            "size(self.metadata.name) <= 63",
            "an owner's name becomes the value of the label tenure.dev/owner: it has at most 63 characters",
            field_path=".metadata.name",
        ),
        Cel(
            "!has(self.spec.backup) || self.spec.backup != self.metadata.name",
            "an owner cannot be its own backup: name another owner in spec.backup, or leave it out",
            field_path=".spec.backup",
        ),
        Cel(
            "!has(self.spec.escalation) || self.spec.escalation.all(step, step.to != self.metadata.name)",
            "an owner cannot stand in its own escalation: name other owners in spec.escalation",
            field_path=".spec.escalation",
        ),
    ),
)
