"""The objects people write and read: frozen models, the single source of `crds/` (see `tenure.api.crd`)."""

from __future__ import annotations

from typing import Final

from tenure.api import claim, decision, exception, finding, guard, owner, policy, quarantine
from tenure.api.base import ApiModel, Duration, Kind, LabelSelector, Timestamp
from tenure.api.claim import OwnedIdentitySpec, OwnedIdentityStatus
from tenure.api.conditions import Condition, ConditionStatus, ConditionType, Reason
from tenure.api.decision import IdentityDecisionSpec, IdentityDecisionStatus
from tenure.api.exception import IdentityExceptionSpec, IdentityExceptionStatus
from tenure.api.finding import FindingSpec, FindingStatus, IdentityFindingSpec, IdentityFindingStatus
from tenure.api.guard import GuardEntry, QuarantineGuardSpec
from tenure.api.owner import IdentityOwnerSpec, IdentityOwnerStatus
from tenure.api.policy import GovernancePolicySpec, GovernancePolicyStatus
from tenure.api.quarantine import QuarantineSpec, QuarantineStatus

KINDS: Final[tuple[Kind, ...]] = (
    owner.KIND,
    claim.KIND,
    exception.KIND,
    decision.KIND,
    finding.KIND,
    quarantine.KIND,
    guard.KIND,
    policy.KIND,
)

__all__ = [
    "KINDS",
    "ApiModel",
    "Condition",
    "ConditionStatus",
    "ConditionType",
    "Duration",
    "FindingSpec",
    "FindingStatus",
    "GovernancePolicySpec",
    "GovernancePolicyStatus",
    "GuardEntry",
    "IdentityDecisionSpec",
    "IdentityDecisionStatus",
    "IdentityExceptionSpec",
    "IdentityExceptionStatus",
    "IdentityFindingSpec",
    "IdentityFindingStatus",
    "IdentityOwnerSpec",
    "IdentityOwnerStatus",
    "Kind",
    "LabelSelector",
    "OwnedIdentitySpec",
    "OwnedIdentityStatus",
    "QuarantineGuardSpec",
    "QuarantineSpec",
    "QuarantineStatus",
    "Reason",
    "Timestamp",
]
