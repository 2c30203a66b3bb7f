"""The closed vocabularies of the contract: group, finalizer, labels, rules, risks, phases, verdicts.

Each set has its one home here, so that a schema's `enum`, a metric's label values and a rule's id cannot drift apart.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

GROUP: Final = "tenure.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
CATEGORY: Final = "tenure"

FINALIZER: Final = "tenure.dev/restore"
"""The only finalizer Tenure uses, and only on Quarantines."""

FIELD_MANAGER: Final = "tenure"
OPERATOR_NAMESPACE: Final = "tenure-system"
"""Where the operator is, unless its installation says otherwise (`--operator-namespace`). deploy/ carries the name as a
literal, which the chart and install.sh replace."""
OPERATOR_SERVICE_ACCOUNT: Final = "tenure"


def operator_user(namespace: str) -> str:
    """Whom the admission policies hold to its acts, where the operator is in that namespace."""
    return f"system:serviceaccount:{namespace}:{OPERATOR_SERVICE_ACCOUNT}"


GUARD_NAME: Final = "guard"
DECISIONS_NAME: Final = "decisions"
"""The QuarantineGuard object of a namespace that the guard on decisions compares with."""
STATE_CONFIG_MAP: Final = "tenure-state"
PROOF_ACCOUNT: Final = "tenure-proof"
"""The ServiceAccount of the operator's namespace on which it proves that the guards are in force. It has no rights."""
PROOF_TOKEN: Final = "tenure-proof"
"""That account's token Secret, switched off as it is installed: on it the operator proves what the label does."""

LABEL_RULE: Final = "tenure.dev/rule"
LABEL_RISK: Final = "tenure.dev/risk"
LABEL_OWNER: Final = "tenure.dev/owner"
LABEL_CLASS: Final = "tenure.dev/class"
LABEL_MODE: Final = "tenure.dev/mode"
ANNOTATION_REMOVED_SUBJECTS: Final = "tenure.dev/removed-subjects"

LABEL_TOKEN_INVALID_SINCE: Final = "kubernetes.io/legacy-token-invalid-since"
LABEL_TOKEN_LAST_USED: Final = "kubernetes.io/legacy-token-last-used"
ANNOTATION_SERVICE_ACCOUNT_NAME: Final = "kubernetes.io/service-account.name"
ANNOTATION_SERVICE_ACCOUNT_UID: Final = "kubernetes.io/service-account.uid"
TYPE_SERVICE_ACCOUNT_TOKEN: Final = "kubernetes.io/service-account-token"


class Rule(StrEnum):
    """Stable ids of the rules (contract §4)."""

    UNOWNED = "Unowned"
    OWNER_VACANT = "OwnerVacant"
    CLAIM_CONFLICT = "ClaimConflict"
    OWNERSHIP_EXPIRED = "OwnershipExpired"
    REVIEW_OVERDUE = "ReviewOverdue"
    EXCEPTION_LAPSED = "ExceptionLapsed"
    LEGACY_TOKEN = "LegacyToken"
    CREDENTIAL_TOO_OLD = "CredentialTooOld"
    CREDENTIAL_EXPIRED = "CredentialExpired"
    CREDENTIAL_EXPIRING = "CredentialExpiring"
    UNUSED = "Unused"
    ORPHANED = "Orphaned"
    ENTITLEMENT_UNDECLARED = "EntitlementUndeclared"
    ENTITLEMENT_EXCESSIVE = "EntitlementExcessive"
    EXPOSED = "Exposed"
    IDENTITY_SHARED = "IdentityShared"
    DEFAULT_IDENTITY_USED = "DefaultIdentityUsed"
    SHADOW_INTEGRATION = "ShadowIntegration"


class Risk(StrEnum):
    """A grade; orderable, so `max()` of several is the worst of them."""

    LOW = "Low"
    MEDIUM = "Medium"
    HIGH = "High"
    CRITICAL = "Critical"

    @property
    def rank(self) -> int:
        """0 for Low to 3 for Critical."""
        return _RISK_RANK[self.value]

    # All four are written out: `str` defines them already (alphabetically), so `total_ordering` would fill in nothing.
    def __lt__(self, other: str) -> bool:
        return self.rank < Risk(other).rank

    def __le__(self, other: str) -> bool:
        return self.rank <= Risk(other).rank

    def __gt__(self, other: str) -> bool:
        return self.rank > Risk(other).rank

    def __ge__(self, other: str) -> bool:
        return self.rank >= Risk(other).rank


_RISK_RANK: Final = {"Low": 0, "Medium": 1, "High": 2, "Critical": 3}


class Phase(StrEnum):
    """Where a finding stands."""

    OPEN = "Open"
    EXCEPTED = "Excepted"
    QUARANTINED = "Quarantined"
    RESOLVED = "Resolved"


class ExceptionPhase(StrEnum):
    """Where an exception stands."""

    PENDING = "Pending"
    ACTIVE = "Active"
    REJECTED = "Rejected"
    EXPIRED = "Expired"
    WITHDRAWN = "Withdrawn"


class Verdict(StrEnum):
    """What an IdentityDecision decides."""

    APPROVE = "Approve"
    REJECT = "Reject"
    ATTEST = "Attest"
    QUARANTINE = "Quarantine"
    REVOKE = "Revoke"
    RELEASE = "Release"


class DecisionSource(StrEnum):
    """What ended a finding's indecision (label `source` of the latency metrics)."""

    CLAIM = "Claim"
    EXCEPTION = "Exception"
    VERDICT = "Verdict"
    FIX = "Fix"
    SUBJECT_GONE = "SubjectGone"
    POLICY = "Policy"


class OnDeadline(StrEnum):
    """What the policy does when a finding's time is up."""

    NOTHING = "Nothing"
    QUARANTINE = "Quarantine"
    REVOKE = "Revoke"


class OnLapse(StrEnum):
    """Which clock a finding gets when its exception ends."""

    CONTINUE_CLOCK = "ContinueClock"
    RESTART_CLOCK = "RestartClock"


class Stage(StrEnum):
    """The reversible stages of a quarantine, mildest first."""

    GUARD = "Guard"
    DISABLE_TOKENS = "DisableTokens"
    DENY_WRITES = "DenyWrites"
    REMOVE_ENTITLEMENTS = "RemoveEntitlements"


class IdentityClass(StrEnum):
    """What an identity is for; `Platform` is never claimed, it follows from where the identity lives."""

    WORKLOAD = "Workload"
    AGENT = "Agent"
    PIPELINE = "Pipeline"
    INTEGRATION = "Integration"
    VENDOR_MANAGED = "VendorManaged"
    BREAK_GLASS = "BreakGlass"
    MIGRATION = "Migration"
    PLATFORM = "Platform"


CLAIMABLE_CLASSES: Final = tuple(c for c in IdentityClass if c is not IdentityClass.PLATFORM)


class ExceptionClass(StrEnum):
    """Why a waiver is needed; bounds its length."""

    BREAK_GLASS = "BreakGlass"
    VENDOR_MANAGED = "VendorManaged"
    MIGRATION = "Migration"
    ACCEPTED_RISK = "AcceptedRisk"


class Mode(StrEnum):
    """Whether a finding's deadline would act."""

    AUDIT = "Audit"
    ENFORCE = "Enforce"


class DueOutcome(StrEnum):
    """How an opening counted in `decisions_due_total`; empty while it has not been counted."""

    PENDING = ""
    MET = "met"
    MISSED = "missed"


class SubjectKind(StrEnum):
    """What an exception may be about, and a finding."""

    SERVICE_ACCOUNT = "ServiceAccount"
    SECRET = "Secret"
    ROLE_BINDING = "RoleBinding"
    CLUSTER_ROLE_BINDING = "ClusterRoleBinding"
    EXTERNAL = "External"
    OWNED_IDENTITY = "OwnedIdentity"
    IDENTITY_EXCEPTION = "IdentityException"


class TargetKind(StrEnum):
    """What a decision may be about: Tenure's own objects only."""

    IDENTITY_EXCEPTION = "IdentityException"
    OWNED_IDENTITY = "OwnedIdentity"
    IDENTITY_FINDING = "IdentityFinding"
    QUARANTINE = "Quarantine"


class RoleKind(StrEnum):
    """What a roleRef may name."""

    ROLE = "Role"
    CLUSTER_ROLE = "ClusterRole"


class EntitlementScope(StrEnum):
    """How far a declared entitlement reaches."""

    NAMESPACE = "Namespace"
    CLUSTER = "Cluster"


class SelectorOperator(StrEnum):
    """Operators of a label selector's expressions."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"
