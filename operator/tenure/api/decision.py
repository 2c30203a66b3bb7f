"""IdentityDecision: the immutable ledger of verdicts about Tenure's own objects."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from tenure.api.base import (
    AGE,
    ATOMIC,
    ApiModel,
    Cel,
    Column,
    Count,
    First,
    Generation,
    Kind,
    LineText,
    Name,
    NameText,
    Prose,
    ProseText,
    ShortText,
    Timestamp,
    Uid,
    User,
    rules,
)
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
    generation: Generation | None = None
    """metadata.generation of the exception or claim as it was judged."""
    revision: Generation | None = None
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
                " || ((self.verb == 'consult' || self.verb.startsWith('consult-'))"
                " && self.verdict in ['Approve', 'Reject'])"
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
    """What became of a decision. Counted and Void are for good: what changes later is another decision's matter."""

    UNDECIDED = ""
    COUNTED = "Counted"
    VOID = "Void"


class DecisionReason(StrEnum):
    """Why a decision counted, or what made it void."""

    # Counted
    APPROVED = "Approved"
    """One of the approvals that its class asks for."""
    FORCED = "Forced"
    """Active at once; to be reviewed within seven days."""
    REJECTED = "Rejected"
    """Rejected the pending exception, or withdrew the active one."""
    OPINION = "Opinion"
    """Heard: it ends a wait and counts as neither."""
    ATTESTED = "Attested"
    """The review starts anew."""
    ENFORCED = "Enforced"
    """It decided the finding; enforcement carries it out."""
    RELEASED = "Released"
    """The quarantine is given back."""
    # Void
    TARGET_GONE = "TargetGone"
    """There is no such object, or another one of that name."""
    STALE_TARGET = "StaleTarget"
    """It names a state that is no longer, or not the one that stands there."""
    OWN_REQUEST = "OwnRequest"
    """Nobody approves what they requested, or what was requested on their behalf."""
    NOT_ASKED = "NotAsked"
    """The policy asks for no such verb, or for no more of it, or not from somebody who has used another already."""
    VETO_OVER = "VetoOver"
    """The time for a veto is over."""
    ALREADY_DECIDED = "AlreadyDecided"
    """It came after the act, or after what ended the matter."""


class Attested(ApiModel):
    """What was attested: the state that stood there when the operator took the attestation in."""

    generation: Generation
    """metadata.generation of the claim or exception."""
    service_accounts: Count = 0
    """How many ServiceAccounts it covered."""
    secrets: Count = 0
    """How many Secrets it covered."""
    entitlements: Count = 0
    """How many bindings its identities had."""
    seen: Annotated[tuple[LineText, ...], First(64), ATOMIC] = ()
    """The first of them, such as ServiceAccount/ci or RoleBinding/payments/ci-edit."""


class IdentityDecisionStatus(ApiModel):
    """What the operator made of a decision."""

    observed_generation: int = -1
    outcome: DecisionOutcome = DecisionOutcome.UNDECIDED
    """Counted, Void, or empty while it is not taken in."""
    verb: ShortText = ""
    """The right that it used, also where it names none."""
    reason: ShortText = ""
    """Why, in one word (see DecisionReason)."""
    message: ProseText = ""
    """Why and with what effect, in words."""
    deadline: Timestamp | None = None
    """The deadline that it was about: the finding's, the earliest of the exception's, the review's."""
    late: bool = False
    """Made after that deadline."""
    effect: NameText = ""
    """What it led to, as Kind/name: the Quarantine, the exception, the claim."""
    attested: Attested | None = None
    """For Attest: what was seen."""
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
        Column("Verb", ".status.verb"),
        Column("Outcome", ".status.outcome"),
        Column("Late", ".status.late", "boolean"),
        Column("Effect", ".status.reason"),
        Column("Decided", ".metadata.creationTimestamp", wide=True),
        Column("Deadline", ".status.deadline", wide=True),
        Column("Led To", ".status.effect", wide=True),
        Column("Granted By", ".spec.grantedBy", wide=True),
        Column("Reason", ".spec.reason", wide=True),
        Column("Message", ".status.message", wide=True),
        AGE,
    ),
    selectable=(".spec.verdict", ".spec.target.kind", ".spec.target.name", ".spec.target.uid", ".spec.by"),
)
