"""IdentityFinding: one rule violated by one subject. Written by the operator alone.

It has no status subresource, so that one server-side apply is one write. It stays below 4 KiB as stored: every text and
list is clipped, `fitted` cuts what is still too much, and `spec` and `status` are atomic, since the `managedFields` of
their single writer would otherwise take as much room as the finding itself.
"""

from __future__ import annotations

import json
from typing import Annotated, Final, Self

from pydantic import ConfigDict, Field

from tenure.api.base import (
    AGE,
    ATOMIC,
    MAP_TYPE,
    ApiModel,
    Clip,
    Column,
    Count,
    First,
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


class FindingSubject(ApiModel):
    """What the finding is about; `namespace` is absent for cluster-scoped subjects, `uid` for external ones."""

    api_version: ShortText = ""
    kind: ShortText
    namespace: ShortText | None = None
    name: NameText
    uid: ShortText = ""


class IdentityFindingSpec(ApiModel):
    """The question a decision answers; `revision` rises when subject uid, risk or proposed act change."""

    model_config = ConfigDict(json_schema_extra={MAP_TYPE: "atomic"})

    rule: Rule
    revision: Annotated[int, Field(ge=1, le=9_007_199_254_740_991)] = 1
    subject: FindingSubject


class FindingRisk(ApiModel):
    """The grade, and each reason with its binding and role."""

    level: Risk
    reasons: Annotated[tuple[LineText, ...], First(8), ATOMIC] = ()


class Accountable(ApiModel):
    """Who answers now, since when, after how many steps of escalation."""

    owner: ShortText = ""
    since: Timestamp | None = None
    step: Count = 0


class Act(ApiModel):
    """One act of enforcement."""

    verdict: Verdict
    decided: Timestamp | None = None
    started: Timestamp | None = None
    enforced: Timestamp | None = None
    verified: Timestamp | None = None
    error: LineText = ""


class FindingDecision(ApiModel):
    """What decided the finding. `verdict` is empty where no verdict was given: a claim, a fix, the subject's end."""

    verdict: Annotated[str, Clip(32)] = ""
    source: DecisionSource
    by: Annotated[str, Clip(253)] = ""
    reference: Annotated[str, Clip(320)] = ""
    class_: Annotated[str, Clip(32)] = ""
    """The exception's class where one decided, so that exceptions distort no average; else empty."""
    late: bool = False


class Evidence(ApiModel):
    """What the finding rests on."""

    source: ShortText
    since: Timestamp | None = None
    detail: LineText = ""


class Debt(ApiModel):
    """How often and how long the lineage was exempted, across delete and re-create."""

    renewals: Count = 0
    exempt_seconds: Count = 0


class ManagedBy(ApiModel):
    """What writes the subject."""

    manager: ShortText
    name: Annotated[str, Clip(253)] = ""


class IdentityFindingStatus(ApiModel):
    """Everything the operator knows of a finding; the instants are stamped once per opening."""

    model_config = ConfigDict(json_schema_extra={MAP_TYPE: "atomic"})

    subject: Annotated[str, Clip(320)] = ""
    phase: Phase = Phase.OPEN
    risk: FindingRisk
    class_: IdentityClass = IdentityClass.WORKLOAD
    accountable: Accountable = Accountable()
    message: Annotated[str, Clip(400)] = ""
    observable: Timestamp | None = None
    detected: Timestamp | None = None
    due: Timestamp | None = None
    decided: Timestamp | None = None
    enforced: Timestamp | None = None
    verified: Timestamp | None = None
    opened: Timestamp | None = None
    opening: Count = 1
    used_seconds: Count = 0
    due_outcome: DueOutcome = DueOutcome.PENDING
    on_deadline: OnDeadline = OnDeadline.NOTHING
    enforce_not_before: Timestamp | None = None
    mode: Mode = Mode.AUDIT
    acts: Annotated[tuple[Act, ...], First(8), ATOMIC] = ()
    residual: Annotated[tuple[LineText, ...], First(8), ATOMIC] = ()
    decision: FindingDecision | None = None
    evidence: Annotated[tuple[Evidence, ...], First(8), ATOMIC] = ()
    debt: Debt = Debt()
    managed_by: ManagedBy | None = None
    released: Timestamp | None = None
    resolved: Timestamp | None = None
    conditions: Conditions = ()

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
        return self.model_copy(
            update={
                "subject": brief(self.subject, name),
                "message": brief(self.message),
                "decision": decision
                and decision.model_copy(
                    update={"by": brief(decision.by, name), "reference": brief(decision.reference, name)}
                ),
                "managed_by": manager and manager.model_copy(update={"name": brief(manager.name, name)}),
                "risk": self.risk.model_copy(update={"reasons": tuple(map(brief, self.risk.reasons[:items]))}),
                "residual": tuple(map(brief, self.residual[:items])),
                "evidence": tuple(e.model_copy(update={"detail": brief(e.detail)}) for e in self.evidence[:items]),
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
