"""What each rule is: its subjects, its base risk, and where it stands in the frameworks auditors ask for.

The OWASP Non-Human Identities Top 10 (2025) and NIST CSF 2.0 identifiers are those of ecosystem.md §4.5; the mapping
is ours. docs/rules.md shows the same table to readers, and a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from tenure.api.names import Risk, Rule, SubjectKind

_IDENTITY = (SubjectKind.SERVICE_ACCOUNT, SubjectKind.EXTERNAL)
_CREDENTIAL = (SubjectKind.SECRET,)
_ENTITLEMENT = (SubjectKind.ROLE_BINDING, SubjectKind.CLUSTER_ROLE_BINDING)
_CLAIM = (SubjectKind.OWNED_IDENTITY,)
_EXCEPTION = (SubjectKind.IDENTITY_EXCEPTION,)


@dataclass(frozen=True, slots=True)
class Entry:
    """One rule. `base` is the least risk a violation has; `owasp` and `nist` are identifiers without titles."""

    rule: Rule
    base: Risk
    subjects: tuple[SubjectKind, ...]
    holds_when: str
    owasp: tuple[str, ...]
    nist: tuple[str, ...]


_ENTRIES: Final = (
    Entry(
        Rule.UNOWNED,
        Risk.LOW,
        _IDENTITY + _CREDENTIAL,
        "ownership is none, or only derived where a claim is required",
        ("NHI1:2025",),
        ("GV.RR-02", "ID.AM-08", "PR.AA-01"),
    ),
    Entry(
        Rule.OWNER_VACANT,
        Risk.MEDIUM,
        _CLAIM,
        "the claim's owner is missing, suspended or cyclic",
        ("NHI1:2025",),
        ("GV.RR-02",),
    ),
    Entry(
        Rule.CLAIM_CONFLICT,
        Risk.LOW,
        _CLAIM,
        "the claim is the later of two equally specific ones",
        ("NHI1:2025",),
        ("GV.RR-02",),
    ),
    Entry(
        Rule.OWNERSHIP_EXPIRED,
        Risk.MEDIUM,
        _CLAIM,
        "the claim's expiresAt passed",
        ("NHI1:2025",),
        ("GV.RR-02", "ID.AM-08"),
    ),
    Entry(
        Rule.REVIEW_OVERDUE,
        Risk.LOW,
        _CLAIM + _EXCEPTION,
        "the review date passed without an attestation",
        ("NHI1:2025",),
        ("GV.RR-02", "PR.AA-05"),
    ),
    Entry(
        Rule.EXCEPTION_LAPSED,
        Risk.MEDIUM,
        _EXCEPTION,
        "the exception expired, and a target still violates a rule it named",
        ("NHI1:2025", "NHI7:2025"),
        ("GV.RM-06", "PR.AA-05"),
    ),
    Entry(
        Rule.LEGACY_TOKEN,
        Risk.MEDIUM,
        _CREDENTIAL,
        "a service-account-token Secret exists: a token that never expires",
        ("NHI4:2025", "NHI7:2025"),
        ("PR.AA-01", "PR.AA-03"),
    ),
    Entry(
        Rule.CREDENTIAL_TOO_OLD,
        Risk.MEDIUM,
        _CREDENTIAL,
        "the credential's data last changed longer ago than maxAge",
        ("NHI7:2025",),
        ("PR.AA-01",),
    ),
    Entry(
        Rule.CREDENTIAL_EXPIRED,
        Risk.MEDIUM,
        _CREDENTIAL,
        "the credential's own end passed",
        ("NHI1:2025",),
        ("PR.AA-01",),
    ),
    Entry(
        Rule.CREDENTIAL_EXPIRING,
        Risk.MEDIUM,
        _CREDENTIAL,
        "the credential's own end is near",
        ("NHI7:2025",),
        ("PR.AA-01",),
    ),
    Entry(
        Rule.UNUSED,
        Risk.MEDIUM,
        _IDENTITY + _CREDENTIAL + _ENTITLEMENT,
        "no use in the window, with a stated grade of evidence",
        ("NHI1:2025",),
        ("DE.CM-03", "ID.AM-08", "PR.AA-05"),
    ),
    Entry(
        Rule.ORPHANED,
        Risk.MEDIUM,
        _CREDENTIAL + _ENTITLEMENT,
        "its identity, role or consumer is gone",
        ("NHI1:2025",),
        ("ID.AM-08", "PR.AA-01"),
    ),
    Entry(
        Rule.ENTITLEMENT_UNDECLARED,
        Risk.MEDIUM,
        _ENTITLEMENT,
        "bound, but no claim lists it",
        ("NHI5:2025",),
        ("PR.AA-05",),
    ),
    Entry(
        Rule.ENTITLEMENT_EXCESSIVE,
        Risk.MEDIUM,
        _ENTITLEMENT,
        "graded High or Critical by the RBAC risk table",
        ("NHI5:2025",),
        ("GV.RM-06", "PR.AA-05"),
    ),
    Entry(
        Rule.EXPOSED,
        Risk.MEDIUM,
        _CREDENTIAL,
        "its value stands where others can read it",
        ("NHI2:2025",),
        ("DE.CM-09", "PR.AA-01"),
    ),
    Entry(
        Rule.IDENTITY_SHARED,
        Risk.MEDIUM,
        _IDENTITY,
        "used by workloads of several owners or systems",
        ("NHI9:2025",),
        ("PR.AA-01", "PR.AA-05"),
    ),
    Entry(
        Rule.DEFAULT_IDENTITY_USED,
        Risk.MEDIUM,
        (SubjectKind.SERVICE_ACCOUNT,),
        "a namespace's default ServiceAccount is bound, tokened or run by pods",
        ("NHI5:2025", "NHI9:2025"),
        ("PR.AA-05",),
    ),
    Entry(
        Rule.SHADOW_INTEGRATION,
        Risk.MEDIUM,
        _CREDENTIAL,
        "it points to a third party that nobody declared",
        ("NHI3:2025",),
        ("DE.CM-06", "ID.AM-04"),
    ),
)

CATALOGUE: Final[Mapping[Rule, Entry]] = MappingProxyType({entry.rule: entry for entry in _ENTRIES})
