"""What the metrics need to know of the engine: a small port that both sides import, so that neither imports the
other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from tenure.api.exception import IdentityExceptionSpec, IdentityExceptionStatus
from tenure.api.finding import IdentityFindingSpec, IdentityFindingStatus
from tenure.api.names import ExceptionClass, IdentityClass, Risk
from tenure.api.quarantine import QuarantineSpec, QuarantineStatus
from tenure.model.records import Authored

IdentityKind = Literal["ServiceAccount", "External"]
OwnershipState = Literal["declared", "derived", "none"]
CredentialType = Literal[
    "ServiceAccountToken", "TLS", "RegistryLogin", "BasicAuth", "SSHKey", "BootstrapToken", "APIKey"
]
CredentialState = Literal["Usable", "Invalidated"]
"""Invalidated: the API server refuses the token (label kubernetes.io/legacy-token-invalid-since)."""
EntitlementScope = Literal["Namespace", "Cluster"]
EntitlementState = Literal["Effective", "Dangling"]
"""Dangling: the binding names a role or an identity that does not exist; it may come alive without anybody binding
it."""

ReviewState = Literal["Scheduled", "Due", "Overdue"]
"""Due: within the last tenth of the interval, and at most 14 days before its end."""

_CREDENTIAL_TYPES: Mapping[str, CredentialType] = {
    "kubernetes.io/service-account-token": "ServiceAccountToken",
    "kubernetes.io/tls": "TLS",
    "kubernetes.io/dockerconfigjson": "RegistryLogin",
    "kubernetes.io/dockercfg": "RegistryLogin",
    "kubernetes.io/basic-auth": "BasicAuth",
    "kubernetes.io/ssh-auth": "SSHKey",
    "bootstrap.kubernetes.io/token": "BootstrapToken",
}


def credential_type(secret_type: str) -> CredentialType:
    """The label value `type` of `tenure_credentials` for a Secret's type; unknown types and Opaque are `APIKey`."""
    return _CREDENTIAL_TYPES.get(secret_type, "APIKey")


@dataclass(frozen=True, slots=True)
class Identity:
    """Where one identity counts in `tenure_identities`. class_ is Platform for platform identities, whatever a claim
    says."""

    kind: IdentityKind
    class_: IdentityClass
    ownership: OwnershipState
    escalation: bool
    """The accountable owner has an escalation path (contract: coverage = owner *and* escalation path)."""


@dataclass(frozen=True, slots=True)
class Credential:
    """Where one credential counts in `tenure_credentials`."""

    type: CredentialType
    state: CredentialState
    ownership: OwnershipState


@dataclass(frozen=True, slots=True)
class Entitlement:
    """Where one subject of one binding counts in `tenure_entitlements`."""

    scope: EntitlementScope
    state: EntitlementState


Bucket = Identity | Credential | Entitlement


@dataclass(frozen=True, slots=True)
class CredentialEnd:
    """A credential's own end, as its metadata tell it, and who has to see to it."""

    type: CredentialType
    class_: IdentityClass
    risk: Risk
    """That of the finding there would be."""
    owner: str
    """"" = nobody."""
    at: datetime


@dataclass(frozen=True, slots=True)
class ExceptionEnd:
    """The end of an active exception."""

    class_: ExceptionClass
    risk: Risk
    """That of the finding there will be, if nothing changes by then."""
    owner: str
    needed: bool
    """What it waives is there."""
    at: datetime


class Observed(Protocol):
    """What the collector reads at scrape time, on the event loop's thread. Each call is one pass over an in-memory
    index: no I/O, and nothing in what it returns is changed afterwards (records are frozen)."""

    def findings(self) -> Iterable[Authored[IdentityFindingSpec, IdentityFindingStatus]]:
        """Every finding as last read or written, resolved ones included."""

    def exceptions(self) -> Iterable[Authored[IdentityExceptionSpec, IdentityExceptionStatus]]: ...

    def quarantines(self) -> Iterable[Authored[QuarantineSpec, QuarantineStatus]]: ...

    def totals(self) -> Mapping[str, Mapping[tuple[str, ...], int]] | None:
        """The durable counters, names without prefix, values per label tuple in the contract's label order:
        {"decisions_due_total": {(risk, outcome): n}, "exception_renewals_total": {(class,): n}}. None while they are
        not known yet: a 0 in their place would be a reset to Prometheus, and all would count twice."""

    def reviews(self) -> Mapping[str, int]:
        """Claims and exceptions whose review is Scheduled, Due or Overdue."""

    def queue(self) -> Mapping[str, int]:
        """Acts that wait, by reason (see metrics.QUEUE_REASONS)."""

    def effective(self) -> Mapping[str, int]:
        """1 for each stage that was proven to be in force, else 0."""

    def last_sync(self) -> Mapping[str, datetime]:
        """Per informer kind ("ServiceAccount", …): when the inventory last agreed with the API server (list, event or
        bookmark)."""

    def sources(self) -> Mapping[str, int]:
        """Expected inventory sources by state: Fresh, Stale, Missing."""


class Nothing:
    """An `Observed` before there is an engine: every series at 0, nothing per object."""

    def findings(self) -> Iterable[Authored[IdentityFindingSpec, IdentityFindingStatus]]:
        return ()

    def exceptions(self) -> Iterable[Authored[IdentityExceptionSpec, IdentityExceptionStatus]]:
        return ()

    def quarantines(self) -> Iterable[Authored[QuarantineSpec, QuarantineStatus]]:
        return ()

    def totals(self) -> Mapping[str, Mapping[tuple[str, ...], int]] | None:
        return {}

    def reviews(self) -> Mapping[str, int]:
        return {}

    def queue(self) -> Mapping[str, int]:
        return {}

    def effective(self) -> Mapping[str, int]:
        return {}

    def last_sync(self) -> Mapping[str, datetime]:
        return {}

    def sources(self) -> Mapping[str, int]:
        return {}
