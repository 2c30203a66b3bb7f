"""Conditions as kstatus reads them, and the constants for their types and reasons.

`Ready`, `Reconciling` and `Stalled` say whether the *spec* was processed, never whether anything is compliant
(contract §5.8); all other types here are abnormal-true: they stand only while something needs attention.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from tenure.api.base import ApiModel, Clip, First, ProseText, Timestamp, keyed


class ConditionType(StrEnum):
    """Types of conditions."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    CONFLICT = "Conflict"
    VACANT = "Vacant"
    NOBODY_MAY_DECIDE = "NobodyMayDecide"
    BLOCKED = "Blocked"
    CONTENDED = "Contended"
    ENFORCEMENT_FAILED = "EnforcementFailed"
    STALE = "Stale"
    DECISION_PENDING = "DecisionPending"
    UNNEEDED = "Unneeded"
    DISALLOWED = "Disallowed"


class Reason(StrEnum):
    """Reasons of conditions."""

    SPEC_PROCESSED = "SpecProcessed"
    PROGRESSING = "Progressing"
    INVALID_SPEC = "InvalidSpec"
    # Conflict
    EARLIER_CLAIM = "EarlierClaim"
    EQUAL_PRECEDENCE = "EqualPrecedence"
    # Vacant
    OWNER_MISSING = "OwnerMissing"
    OWNER_SUSPENDED = "OwnerSuspended"
    OWNER_CYCLIC = "OwnerCyclic"
    # NobodyMayDecide
    NO_BINDING = "NoBinding"
    # Blocked
    PLATFORM_NAMESPACE = "PlatformNamespace"
    MISSING_RIGHT = "MissingRight"
    BLAST_RADIUS = "BlastRadius"
    RECENTLY_USED = "RecentlyUsed"
    MANAGED_BY_CONTROLLER = "ManagedByController"
    SUSPENDED = "Suspended"
    POLICY_CONFLICT = "PolicyConflict"
    CEILING = "Ceiling"
    # Contended
    REVERTED = "Reverted"
    # EnforcementFailed
    ACT_FAILED = "ActFailed"
    NOT_VERIFIED = "NotVerified"
    # Stale
    INVENTORY_STALE = "InventoryStale"
    SUBJECT_CHANGED = "SubjectChanged"
    # Unneeded
    NO_FINDING = "NoFinding"
    TARGET_GONE = "TargetGone"
    # Disallowed
    POLICY_CHANGED = "PolicyChanged"
    # DecisionPending
    AWAITING_DECISION = "AwaitingDecision"
    AWAITING_APPROVAL = "AwaitingApproval"
    AWAITING_REVIEW = "AwaitingReview"


class ConditionStatus(StrEnum):
    """Status of a condition."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(ApiModel):
    """One condition; server-side apply merges them by `type`."""

    type: Annotated[str, Field(min_length=1, max_length=63)]
    status: ConditionStatus
    reason: Annotated[str, Clip(64), Field(min_length=1)]
    message: ProseText = ""
    last_transition_time: Timestamp
    observed_generation: int | None = None


Conditions = Annotated[tuple[Condition, ...], First(8), keyed("type")]
