"""IdentityException: a waiver that ends."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from tenure.api.base import (
    AGE,
    ATOMIC,
    SET,
    ApiModel,
    Cel,
    Clip,
    Column,
    Count,
    Date,
    First,
    Kind,
    LabelSelector,
    Line,
    LineText,
    Name,
    NameText,
    OwnerName,
    Prose,
    ProseText,
    Schema,
    ShortText,
    Timestamp,
    Uid,
    User,
    rules,
)
from tenure.api.conditions import Conditions
from tenure.api.names import ExceptionClass, ExceptionPhase, Rule, SubjectKind

EXCEPTABLE_KINDS = tuple(kind for kind in SubjectKind if kind is not SubjectKind.IDENTITY_EXCEPTION)
"""An exception from an exception would never end."""


class ExceptionTarget(ApiModel):
    """What the waiver covers: one subject by name, or what a selector matched at approval."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Cel("has(self.name) != has(self.selector)", "give either name or selector, and not both"),
            Cel("!has(self.uid) || has(self.name)", "uid goes with name: a selector's targets are pinned at approval"),
        )
    )

    kind: Annotated[SubjectKind, Schema({"enum": [kind.value for kind in EXCEPTABLE_KINDS]})]
    """What sort of thing is excepted."""
    name: Name | None = None
    """One of that kind."""
    selector: LabelSelector | None = None
    """Those of that kind with these labels; the list is frozen at approval."""
    uid: Uid | None = None
    """Only the object of this uid."""


class IdentityExceptionSpec(ApiModel):
    """What people write of an exception."""

    target: ExceptionTarget
    """What is excepted: kind and name, or kind and selector."""
    rules: Annotated[tuple[Rule, ...], Field(min_length=1, max_length=len(Rule)), SET]
    """Which rules are waived; there is no wildcard."""
    class_: ExceptionClass
    """Why a waiver is needed; bounds how long it may last."""
    owner: OwnerName
    """The IdentityOwner that answers for it."""
    justification: Prose
    """Why."""
    ticket: Line | None = None
    """Where it was agreed."""
    expires_at: Date
    """When it ends. The past is accepted and counts as expired."""
    review_by: Date | None = None
    """When it has to be looked at again."""
    requested_by: User | None = None
    """Who wrote this spec: stamped where the API server can, else checked."""
    on_behalf_of: User | None = None
    """The person behind a pipeline, unverified; that person cannot approve it."""


class MatchedTarget(ApiModel):
    """A target as pinned when the exception became active."""

    kind: ShortText
    name: NameText
    uid: ShortText = ""


class Counted(ApiModel):
    """One decision that counts for the present spec."""

    verb: ShortText
    """The right that was used."""
    verdict: ShortText
    """Approve or Reject."""
    by: Annotated[str, Clip(253)] = ""
    """Whose."""
    at: Timestamp | None = None
    """When, by the API server's stamp."""
    decision: NameText = ""
    """The IdentityDecision."""


class IdentityExceptionStatus(ApiModel):
    """What the operator says of an exception; `failing` names the clause that keeps it from being active."""

    observed_generation: int = -1
    phase: ExceptionPhase = ExceptionPhase.PENDING
    reason: ShortText = ""
    message: ProseText = ""
    failing: LineText = ""
    matched: Annotated[tuple[MatchedTarget, ...], Field(max_length=1000), ATOMIC] = ()
    requested_by: Annotated[str, Clip(1024)] = ""
    stamped: Timestamp | None = None
    """When the present spec was written; waits, vetoes and the longest duration run from here."""
    active_since: Timestamp | None = None
    """When it became active for the present spec."""
    decided: Timestamp | None = None
    """The last approval it needed, by the API server's stamp."""
    counted: Annotated[tuple[Counted, ...], First(32), ATOMIC] = ()
    """The approvals, opinions and rejections that count for the present spec."""
    forced: Timestamp | None = None
    """When somebody forced it."""
    review_due: Timestamp | None = None
    """When it has to be looked at again."""
    attested: Timestamp | None = None
    """When somebody last attested to the present spec."""
    expired: Timestamp | None = None
    renewals: Count = 0
    """The most that any of its targets has been renewed for any of its rules."""
    conditions: Conditions = ()


KIND = Kind(
    kind="IdentityException",
    plural="identityexceptions",
    singular="identityexception",
    short_name="idex",
    namespaced=True,
    description="IdentityException waives named rules for named subjects until a date.",
    spec=IdentityExceptionSpec,
    status=IdentityExceptionStatus,
    status_subresource=True,
    columns=(
        Column("Target", ".spec.target.kind"),
        Column("Name of Target", ".spec.target.name"),
        Column("Class", ".spec.class"),
        Column("Owner", ".spec.owner"),
        Column("Phase", ".status.phase"),
        Column("Expires", ".spec.expiresAt"),
        Column("Rules", ".spec.rules", wide=True),
        Column("Failing", ".status.failing", wide=True),
        AGE,
    ),
    selectable=(".spec.owner", ".spec.class", ".spec.target.kind", ".spec.target.name", ".status.phase"),
)
