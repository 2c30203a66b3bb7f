"""IdentityFinding: one rule violated by one subject. Written by the operator alone.

It has no status subresource, so that one server-side apply is one write. It stays below 4 KiB as stored: every text and
list is clipped, `fitted` cuts what is still too much, and `spec` and `status` are atomic, since the `managedFields` of
their single writer would otherwise take as much room as the finding itself.
"""

from __future__ import annotations

import json
from typing import Annotated, Final, Self

from pydantic import ConfigDict

from tenure.api.base import (
    AGE,
    ATOMIC,
    MAP_TYPE,
    ApiModel,
    Clip,
    Column,
    Count,
    First,
    Generation,
    Kind,
    LineText,
    NameText,
    ShortText,
    Timestamp,
)
from tenure.api.conditions import Conditions
from tenure.api.names import DecisionSource, DueOutcome, IdentityClass, Mode, OnDeadline, Phase, Risk, Rule, Verdict

FITTED_BYTES: Final = 2_700
"""What a status may take of a finding's 4 KiB; metadata, labels, spec and managedFields need the rest."""

ESCALATION: Final = "Escalation"
"""`source` of the evidence that tells a step of the escalation ladder: it is never cut away."""


class FindingSubject(ApiModel):
    """What the finding is about; `namespace` is absent for cluster-scoped subjects, `uid` for external ones."""

    api_version: ShortText = ""
    kind: ShortText
    namespace: ShortText | None = None
    name: NameText
    uid: ShortText = ""
    entitlement: NameText | None = None
    """Of a binding: the role and the subject that is bound, as ClusterRole/edit/ServiceAccount:payments:ci."""


class IdentityFindingSpec(ApiModel):
    """The question a decision answers; `revision` rises when subject uid, risk or proposed act change."""

    model_config = ConfigDict(json_schema_extra={MAP_TYPE: "atomic"})

    rule: Rule
    """The rule that is violated."""
    revision: Generation = 1
    """Rises when the uid of the subject, the risk or the proposed act change."""
    subject: FindingSubject
    """What violates it."""


class FindingRisk(ApiModel):
    """The grade, and each reason with its binding and role."""

    level: Risk
    """The higher of the rule's base and the worst grade of what the subject is bound to."""
    reasons: Annotated[tuple[LineText, ...], First(8), ATOMIC] = ()
    """Each with its binding and role."""


class Accountable(ApiModel):
    """Who answers now, since when, after how many steps of escalation."""

    owner: ShortText = ""
    """The IdentityOwner; empty: nobody."""
    since: Timestamp | None = None
    """Since when."""
    step: Count = 0
    """Steps of escalation that have passed."""


class Act(ApiModel):
    """One act of enforcement."""

    verdict: Verdict
    """What was done."""
    decided: Timestamp | None = None
    """When it was decided."""
    started: Timestamp | None = None
    """When it began."""
    enforced: Timestamp | None = None
    """When it was done."""
    verified: Timestamp | None = None
    """When its effect was proved."""
    error: LineText = ""
    """Why it failed."""


class FindingDecision(ApiModel):
    """What decided the finding. `verdict` is empty where no verdict was given: a claim, a fix, the subject's end."""

    verdict: Annotated[str, Clip(32)] = ""
    """Empty where none was given: a claim, a fix, the end of the subject."""
    source: DecisionSource
    """What ended the indecision."""
    by: Annotated[str, Clip(253)] = ""
    """Who."""
    reference: Annotated[str, Clip(320)] = ""
    """The object that decided."""
    class_: Annotated[str, Clip(32)] = ""
    """The exception's class where one decided, so that exceptions distort no average; else empty."""
    late: bool = False
    """After the deadline."""


class Evidence(ApiModel):
    """What the finding rests on."""

    source: ShortText
    since: Timestamp | None = None
    detail: LineText = ""


class Debt(ApiModel):
    """How often and how long the lineage was exempted, across delete and re-create."""

    renewals: Count = 0
    """How often a waiver's end was moved further out."""
    exempt_seconds: Count = 0
    """How long it was exempt, in all periods that have ended."""
    since: Timestamp | None = None
    """When the present exempt period began; absent outside one."""
    until: Timestamp | None = None
    """The furthest end that was ever granted: a later one is a renewal."""


class ManagedBy(ApiModel):
    """What writes the subject."""

    manager: ShortText
    name: Annotated[str, Clip(253)] = ""
    lever: LineText = ""
    """The change that lasts, at the source: what is changed in the cluster is written back."""


class IdentityFindingStatus(ApiModel):
    """Everything the operator knows of a finding; the instants are stamped once per opening."""

    model_config = ConfigDict(json_schema_extra={MAP_TYPE: "atomic"})

    subject: Annotated[str, Clip(320)] = ""
    """Kind/name, for a column."""
    phase: Phase = Phase.OPEN
    """Open, Excepted, Quarantined or Resolved."""
    risk: FindingRisk
    """How bad it is, and why."""
    class_: IdentityClass = IdentityClass.WORKLOAD
    """The class of the identity."""
    accountable: Accountable = Accountable()
    """Who answers now."""
    message: Annotated[str, Clip(400)] = ""
    """Why the rule holds, in words."""
    observable: Timestamp | None = None
    """When the rule first held, never before the first complete inventory."""
    detected: Timestamp | None = None
    """When Tenure saw it."""
    due: Timestamp | None = None
    """When its time is up."""
    decided: Timestamp | None = None
    """When it was decided."""
    enforced: Timestamp | None = None
    """When the first act was done."""
    verified: Timestamp | None = None
    """When the effect of the first act was proved."""
    opened: Timestamp | None = None
    """When the present opening began."""
    opening: Count = 1
    """How often it was opened."""
    used_seconds: Count = 0
    """Time used in earlier openings."""
    due_outcome: DueOutcome = DueOutcome.PENDING
    """How this opening counted: met, missed, or not yet."""
    on_deadline: OnDeadline = OnDeadline.NOTHING
    """What happens when its time is up."""
    enforce_not_before: Timestamp | None = None
    """No act before."""
    mode: Mode = Mode.AUDIT
    """Whether the deadline would act."""
    acts: Annotated[tuple[Act, ...], First(8), ATOMIC] = ()
    """What was done."""
    residual: Annotated[tuple[LineText, ...], First(8), ATOMIC] = ()
    """What stays possible."""
    decision: FindingDecision | None = None
    """What decided it."""
    evidence: Annotated[tuple[Evidence, ...], First(8), ATOMIC] = ()
    """What it rests on, and the steps of escalation that this opening took."""
    debt: Debt = Debt()
    """Renewals and exempt time of the lineage."""
    managed_by: ManagedBy | None = None
    """What writes the subject."""
    released: Timestamp | None = None
    """When a person last released it."""
    resolved: Timestamp | None = None
    """When the rule ceased to hold."""
    conditions: Conditions = ()
    """Blocked, Contended, EnforcementFailed, Stale, DecisionPending."""

    def fitted(self, limit: int = FITTED_BYTES) -> Self:
        """The same status in at most `limit` bytes of JSON: lists are cut first (acts lose the oldest), then words."""
        status = self
        for items, words in _CUTS:
            if status.size() <= limit:
                break
            status = self._cut(items, words)
        return status

    def _cut(self, items: int, words: int) -> Self:
        def brief(text: str, limit: int = words) -> str:
            encoded = text.encode()
            return text if len(encoded) <= limit else encoded[: limit - 3].decode(errors="ignore") + "…"

        name = max(words, 100)  # names, which still have to be recognised
        decision, manager = self.decision, self.managed_by
        steps = [e for e in self.evidence if e.source == ESCALATION]
        found = [e for e in self.evidence if e.source != ESCALATION]
        return self.model_copy(
            update={
                "subject": brief(self.subject, name),
                "message": brief(self.message),
                "decision": decision
                and decision.model_copy(update={"by": brief(decision.by, name)}),  # its reference is looked up by name
                "managed_by": manager
                and manager.model_copy(update={"name": brief(manager.name, name), "lever": brief(manager.lever)}),
                "risk": self.risk.model_copy(update={"reasons": tuple(map(brief, self.risk.reasons[:items]))}),
                "residual": tuple(map(brief, self.residual[:items])),
                "evidence": tuple(
                    e.model_copy(update={"detail": brief(e.detail, name if e.source == ESCALATION else words)})
                    for e in (*found[:items], *steps)
                ),
                "acts": tuple(a.model_copy(update={"error": brief(a.error)}) for a in self.acts[-items:]),
                "conditions": tuple(c.model_copy(update={"message": brief(c.message)}) for c in self.conditions),
            }
        )

    def size(self) -> int:
        """Bytes of JSON as the API server stores it."""
        return len(json.dumps(self.wire(), separators=(",", ":"), ensure_ascii=False).encode())


_CUTS: Final = ((4, 800), (2, 400), (1, 200), (1, 80), (1, 24))
"""Items kept and bytes of each text, harder with every step."""

FindingSpec = IdentityFindingSpec
FindingStatus = IdentityFindingStatus

KIND = Kind(
    kind="IdentityFinding",
    plural="identityfindings",
    singular="identityfinding",
    short_name="idf",
    namespaced=True,
    description="IdentityFinding is one rule violated by one subject: its risk, owner, deadline, decision and acts.",
    spec=IdentityFindingSpec,
    status=IdentityFindingStatus,
    status_subresource=False,
    columns=(
        Column("Rule", ".spec.rule"),
        Column("Subject", ".status.subject"),
        Column("Risk", ".status.risk.level"),
        Column("Owner", ".status.accountable.owner"),
        Column("Phase", ".status.phase"),
        Column("Due", ".status.due"),
        Column("On Deadline", ".status.onDeadline", wide=True),
        Column("Mode", ".status.mode", wide=True),
        Column("Message", ".status.message", wide=True),
        AGE,
    ),
    selectable=(
        ".spec.rule",
        ".spec.subject.kind",
        ".spec.subject.name",
        ".status.phase",
        ".status.risk.level",
        ".status.accountable.owner",
        ".status.mode",
    ),
)
