"""Rules on credentials: LegacyToken and CredentialTooOld."""

from __future__ import annotations

from datetime import datetime, timedelta

from tenure.api.base import format_duration, format_timestamp
from tenure.api.names import Rule
from tenure.model.evaluation import Evidence, Violation
from tenure.model.records import Secret
from tenure.rules import risk
from tenure.rules.case import Case
from tenure.rules.governance import terms_of
from tenure.rules.secrets import is_credential, is_token


def max_age(case: Case) -> timedelta:
    """The policy's, or the documented default; the claim in force may only tighten it."""
    longest = terms_of(case.facts.governance).credentials.max_age
    claim = case.cover.claim
    rules = claim.spec.credentials if claim is not None else None
    return min(longest, rules.max_age) if rules is not None and rules.max_age is not None else longest


def too_old_at(case: Case) -> datetime:
    """When CredentialTooOld begins to hold for the credential that the case is about."""
    assert isinstance(case.facts.record, Secret)
    return case.facts.record.rotated + max_age(case)


def credential_too_old(case: Case) -> Violation | None:
    """Holds from last change of the data + maxAge on. A token Secret's data changes only when it is filled anew."""
    secret = case.facts.record
    if not isinstance(secret, Secret) or not is_credential(secret):
        return None
    longest = max_age(case)
    since = too_old_at(case)
    # The schedule wakes us at this very instant: an evaluation that then said "not yet" would name no next one.
    if case.now < since:
        return None
    known = secret.data_changed is not None
    return Violation(
        rule=Rule.CREDENTIAL_TOO_OLD,
        observable=since,
        message=(
            f"The data of {case.facts.key} last changed {format_timestamp(secret.rotated)}"
            f"{'' if known else ' (its creation; no later write is recorded)'}, longer ago than "
            f"{format_duration(longest)}."
        ),
        risk=risk.of_violation(Rule.CREDENTIAL_TOO_OLD, case.facts.risk),
        evidence=(
            Evidence(
                source="managedFields" if known else "creationTimestamp",
                since=secret.rotated,
                detail=f"last written by {secret.data_writer}" if secret.data_writer else "",
            ),
        ),
        epoch=secret.rotated,
    )


def legacy_token(case: Case) -> Violation | None:
    """Holds for every token Secret as long as it exists, disabled or not: a removed label revives it."""
    secret = case.facts.record
    if not isinstance(secret, Secret) or not is_token(secret):
        return None
    of = f" of ServiceAccount {secret.service_account}" if secret.service_account else ""
    evidence = [Evidence(source="creationTimestamp", since=secret.created)]
    used = _day(secret.last_used)
    if used is not None:
        evidence.append(Evidence(source="legacy-token-last-used", since=used, detail=f"used on {secret.last_used}"))
    return Violation(
        rule=Rule.LEGACY_TOKEN,
        observable=secret.created,
        message=f"{case.facts.key} holds a token{of} that never expires; bound tokens do.",
        risk=risk.of_violation(Rule.LEGACY_TOKEN, case.facts.risk),
        evidence=tuple(evidence),
    )


def _day(value: str) -> datetime | None:
    """The label's day (YYYY-MM-DD) as its first instant; None for anything that is no date."""
    try:
        return datetime.fromisoformat(f"{value}T00:00:00+00:00") if value else None
    except ValueError:
        return None
