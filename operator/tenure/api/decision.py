"""IdentityDecision: the immutable ledger of verdicts about Tenure's own objects."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from tenure.api.base import AGE, ApiModel, Cel, Column, Kind, Name, Prose, ProseText, Uid, User, rules
from tenure.api.conditions import Conditions
from tenure.api.names import TargetKind, Verdict


class DecisionTarget(ApiModel):
    """The very state that was decided on: uid, and generation or revision."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Cel(
                "!(self.kind in ['IdentityException', 'OwnedIdentity']) || has(self.generation)",
                "name the target's generation (metadata.generation): the decision is about that state alone",
            ),
            Cel(
                "self.kind != 'IdentityFinding' || has(self.revision)",
                "name the finding's revision (spec.revision): the decision is about that state alone",
            ),
        )
    )

    kind: TargetKind
    """What is decided about."""
    name: Name
    """Its name, in this namespace."""
    uid: Uid
    """Its uid: a namesake is another."""
    generation: Annotated[int, Field(ge=1, le=9_007_199_254_740_991)] | None = None
    """metadata.generation of the exception or claim as it was judged."""
    revision: Annotated[int, Field(ge=1, le=9_007_199_254_740_991)] | None = None
    """spec.revision of the finding as it was judged."""


class IdentityDecisionSpec(ApiModel):
    """What the decider writes, once."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Cel("self == oldSelf", "a decision is immutable: give a new verdict with a new IdentityDecision"),
            Cel(
                "self.verdict in ['Approve', 'Reject'] ? self.target.kind == 'IdentityException'"
                " : self.verdict == 'Attest' ? self.target.kind in ['OwnedIdentity', 'IdentityException']"
                " : self.verdict in ['Quarantine', 'Revoke'] ? self.target.kind == 'IdentityFinding'"
                " : self.target.kind == 'Quarantine'",
                "the verdict does not fit the target: Approve and Reject are about an IdentityException, Attest is "
                "about an OwnedIdentity or IdentityException, Quarantine and Revoke are about an IdentityFinding, "
                "Release is about a Quarantine",
            ),
            Cel(
                "!has(self.verb) || self.verb == self.verdict.lowerAscii()"
                " || self.verb.startsWith(self.verdict.lowerAscii() + '-')"
                " || (self.verb == 'consult' && self.verdict in ['Approve', 'Reject'])"
                " || (self.verb == 'force' && self.verdict == 'Approve')",
                "the verb does not fit the verdict: it is the verdict in lower case, or that with - and a party's "
                "name; consult goes with Approve and Reject, force with Approve",
            ),
        )
    )

    target: DecisionTarget
    """The very state that is decided about."""
    verdict: Verdict
    """The decision."""
    verb: Annotated[str, Field(min_length=1, max_length=63, pattern="^[a-z]+(-[a-z0-9]+)*$")] | None = None
    """The right that is used; default: the verdict in lower case. A second party has its own, such as approve-
    security.
    """
    reason: Prose
    """Why."""
    by: User | None = None
    """Who decided: stamped where the API server can, else checked."""
    granted_by: Annotated[str, Field(max_length=1024)] | None = None
    """What granted the right: stamped where the API server can, else empty."""

    @property
    def used_verb(self) -> str:
        """The virtual verb this decision claims: as written, else the verdict in lower case."""
        return self.verb or self.verdict.lower()


class DecisionOutcome(StrEnum):
    """What became of a decision."""

    UNDECIDED = ""
    COUNTED = "Counted"
    VOID = "Void"


class IdentityDecisionStatus(ApiModel):
    """What the operator made of a decision."""

    observed_generation: int = -1
    outcome: DecisionOutcome = DecisionOutcome.UNDECIDED
    message: ProseText = ""
    conditions: Conditions = ()


KIND = Kind(
    kind="IdentityDecision",
    plural="identitydecisions",
    singular="identitydecision",
    short_name="iddec",
    namespaced=True,
    description="IdentityDecision is one verdict by one person about one state of one of Tenure's objects. Immutable.",
    spec=IdentityDecisionSpec,
    status=IdentityDecisionStatus,
    status_subresource=True,
    columns=(
        Column("Verdict", ".spec.verdict"),
        Column("Target", ".spec.target.kind"),
        Column("Name of Target", ".spec.target.name"),
        Column("By", ".spec.by"),
        Column("Outcome", ".status.outcome"),
        Column("Reason", ".spec.reason", wide=True),
        AGE,
    ),
    selectable=(".spec.verdict", ".spec.target.kind", ".spec.target.name", ".spec.target.uid", ".spec.by"),
)
