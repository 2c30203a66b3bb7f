"""The frozen input of the rules: everything one subject's evaluation may look at, and nothing else.

Gathered by `tenure.inventory.snapshot` from the live inventory, from one object read live just before an act, or from a
directory of manifests; the rules cannot tell which. All records are shared with the inventory, never copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from tenure.api.claim import OwnedIdentitySpec, OwnedIdentityStatus
from tenure.api.exception import IdentityExceptionSpec
from tenure.api.finding import Debt
from tenure.api.names import Risk, Rule
from tenure.api.owner import IdentityOwnerSpec, IdentityOwnerStatus
from tenure.model.evaluation import Decision, ExceptionRecord, Governance, RiskGrade
from tenure.model.keys import Key
from tenure.model.records import Authored, Binding, Namespace, Role, Secret, ServiceAccount

Claim = Authored[OwnedIdentitySpec, OwnedIdentityStatus]
Owner = Authored[IdentityOwnerSpec, IdentityOwnerStatus]
Record = ServiceAccount | Secret | Binding | Claim | ExceptionRecord

UNGRADED = RiskGrade(Risk.LOW)
"""What an identity is worth that is bound to nothing the risk table grades."""

NO_DEBTS: Mapping[str, Mapping[Key, Mapping[Rule, Debt]]] = MappingProxyType({})
NO_OWNERS: Mapping[str, Owner] = MappingProxyType({})
NO_DECISIONS: Mapping[str, tuple[Decision, ...]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Grant:
    """One binding that gives an identity a role, whichever way it names the identity."""

    binding: Binding
    role: Role | None
    """None: the role does not exist (a later one would arm the binding), so it is not graded."""
    through: str = ""
    """The form of the subject where it is not the ServiceAccount itself: "User system:serviceaccount:payments:ci",
    "Group system:serviceaccounts:payments"."""
    elevated: bool = False
    """The binding's namespace holds a ServiceAccount that is Critical by its own grades: who may run pods there
    may become it (row R11)."""


@dataclass(frozen=True, slots=True)
class Covered:
    """One object that a claim selects."""

    record: ServiceAccount | Secret
    risk: RiskGrade
    identity: ServiceAccount | None = None
    """The ServiceAccount a token Secret belongs to."""
    tokens: tuple[str, ...] = ()
    """Names of a ServiceAccount's token Secrets."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the evaluator sees of one subject. kind of `key`: ServiceAccount, Secret, RoleBinding or ClusterRoleBinding
    (one of its entitlements), OwnedIdentity or IdentityException; `record` is None when the subject is gone."""

    key: Key
    record: Record | None
    governance: Governance
    namespace: Namespace | None = None
    claims: tuple[Claim, ...] = ()
    """Every claim of the namespace, the earlier first (creation, then name): the order in which equals count."""
    exceptions: tuple[ExceptionRecord, ...] = ()
    """Every exception of the namespace, by name."""
    decisions: Mapping[str, tuple[Decision, ...]] = field(default_factory=lambda: NO_DECISIONS)
    """The decisions of the namespace by the uid they are about, each tuple in the order in which they were made
    (creation, then name)."""
    owners: Mapping[str, Owner] = field(default_factory=lambda: NO_OWNERS)
    """Every IdentityOwner of the cluster, by name."""
    risk: RiskGrade = UNGRADED
    """The identity's grade (its own, or that of the ServiceAccount a token Secret belongs to); an entitlement's own."""
    grants: tuple[Grant, ...] = ()
    """What the identity is bound to; those of a token Secret's identity too."""
    identity: ServiceAccount | None = None
    """For a token Secret: the ServiceAccount it belongs to, None when that is gone or another one of the name. For an
    entitlement whom it is for, without uid when there is none of the name."""
    entitled: Governance | None = None
    """For an entitlement: what governs the namespace of its ServiceAccount, while `governance` is what governs acts."""
    leaving: bool = False
    """For an entitlement: the namespace of its binding is being deleted (`namespace` is its ServiceAccount's)."""
    tokens: tuple[str, ...] = ()
    """For a ServiceAccount: names of its token Secrets, sorted."""
    running: bool = False
    """Unfinished pods use the ServiceAccount, or consume the Secret."""
    pods: tuple[str, ...] = ()
    """Their names, sorted; gathered only while the subject is quarantined, when somebody needs to find them."""
    subjects: tuple[Covered, ...] = ()
    """For a claim: what it names or selects itself, by kind and name. The token Secrets that it covers through their
    ServiceAccount are not repeated here."""
    targets: tuple[Facts, ...] = ()
    """For an exception: the facts of what it is about, by name."""
    debts: Mapping[str, Mapping[Key, Mapping[Rule, Debt]]] = field(default_factory=lambda: NO_DEBTS)
    """For an exception itself, and for every one that targets the subject, by its name: what its targets' findings say
    of earlier waivers, where they say anything."""

    @property
    def claim(self) -> Claim:
        """The claim that the facts are about. Raises TypeError when they are about something else."""
        if isinstance(self.record, Authored) and isinstance(self.record.spec, OwnedIdentitySpec):
            return self.record
        raise TypeError(f"{self.key} is no claim")

    @property
    def exception(self) -> ExceptionRecord:
        """The exception that the facts are about. Raises TypeError when they are about something else."""
        if isinstance(self.record, Authored) and isinstance(self.record.spec, IdentityExceptionSpec):
            return self.record
        raise TypeError(f"{self.key} is no exception")
