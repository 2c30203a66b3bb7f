"""Which claim covers what: by name beats by selector, of equals the earlier counts.

A token Secret follows its ServiceAccount: only a claim that names the Secret itself beats the ServiceAccount's claim,
and a claim that merely selects the Secret counts only while no claim covers the ServiceAccount.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from tenure.api.base import LabelSelector
from tenure.model.facts import Claim, Facts
from tenure.model.records import Secret, ServiceAccount
from tenure.rules.secrets import is_credential

SELECTED: Final = 1
NAMED: Final = 2


@dataclass(frozen=True, slots=True)
class Cover:
    """What claims say of one subject. `claim` is None when none in force covers it; `lapsed` is then the one that
    covered it last, None when none ever did."""

    claim: Claim | None = None
    named: bool = False
    through: str = ""
    """For a token Secret covered by a claim on it: its ServiceAccount's name."""
    lapsed: Claim | None = None


def in_force(claim: Claim, now: datetime) -> bool:
    """Whether the claim has not expired."""
    return claim.spec.expires_at is None or now < claim.spec.expires_at


def whole_namespace(record: ServiceAccount | Secret, *, platform: bool) -> bool:
    """Whether `selector: {}` takes it: all but platform identities and Secrets that are no credentials."""
    return not platform and (isinstance(record, ServiceAccount) or is_credential(record))


def rank(claim: Claim, record: ServiceAccount | Secret, *, platform: bool) -> int:
    """How the claim covers the object itself: NAMED, SELECTED or 0. platform: the namespace is the platform's."""
    subjects = claim.spec.subjects
    own = subjects.service_accounts if isinstance(record, ServiceAccount) else subjects.secrets
    if own is not None:
        if record.name in own.names:
            return NAMED
        if own.selector is not None and _selects(own.selector, record, platform):
            return SELECTED
    if subjects.selector is not None and _selects(subjects.selector, record, platform):
        return SELECTED
    return 0


def _selects(selector: LabelSelector, record: ServiceAccount | Secret, platform: bool) -> bool:
    # Asked for every subject and every claim of its namespace: the common selector, one label, makes no dict.
    if selector.match_expressions:
        return selector.matches(dict(record.labels))
    if not selector.match_labels:
        return whole_namespace(record, platform=platform)
    labels = record.labels
    for pair in selector.match_labels.items():  # noqa: SIM110 - a generator would cost more than what it asks
        if pair not in labels:
            return False
    return True


def cover(facts: Facts, now: datetime) -> Cover:
    """Which claim answers for the ServiceAccount or Secret that the facts are about."""
    record = facts.record
    assert isinstance(record, ServiceAccount | Secret)
    return cover_of(record, facts.identity, facts.claims, now, platform=facts.governance.platform)


def cover_of(
    record: ServiceAccount | Secret,
    identity: ServiceAccount | None,
    claims: tuple[Claim, ...],
    now: datetime,
    *,
    platform: bool,
) -> Cover:
    """Which of the claims (the earlier first) answers for the object; identity is a token Secret's ServiceAccount."""
    if not claims:
        return Cover()
    own = _best(record, claims, now, platform)
    if identity is None or own.named:
        return own
    inherited = _best(identity, claims, now, platform)
    if inherited.claim is not None:
        return Cover(inherited.claim, inherited.named, identity.name)
    if own.claim is not None:
        return own
    lapsed = max((c for c in (own.lapsed, inherited.lapsed) if c is not None), key=_end, default=None)
    return Cover(lapsed=lapsed)


def _best(record: ServiceAccount | Secret, claims: tuple[Claim, ...], now: datetime, platform: bool) -> Cover:
    selecting: Claim | None = None
    lapsed: Claim | None = None
    for claim in claims:
        found = rank(claim, record, platform=platform)
        if not found:
            continue
        if not in_force(claim, now):
            lapsed = claim if lapsed is None else max(lapsed, claim, key=_end)
        elif found == NAMED:
            return Cover(claim, named=True)
        elif selecting is None:
            selecting = claim
    return Cover(selecting) if selecting is not None else Cover(lapsed=lapsed)


def _end(claim: Claim) -> datetime:
    end = claim.spec.expires_at
    assert end is not None
    return end


@dataclass(frozen=True, slots=True)
class Overlap:
    """One subject on which a claim is the later of two equally specific ones."""

    subject: ServiceAccount | Secret
    earlier: Claim


def overlaps(claim: Claim, facts: Facts, now: datetime) -> Iterator[Overlap]:
    """The subjects on which another claim counts instead, though it is no more specific. A subject on which a more
    specific claim counts is in nobody's dispute: that is how people settle one."""
    others = [c for c in facts.claims if (c.namespace, c.name) != (claim.namespace, claim.name)]
    if not in_force(claim, now) or not others:
        return
    platform = facts.governance.platform
    for covered in facts.subjects:
        mine = rank(claim, covered.record, platform=platform)
        if not mine:
            continue
        counting = cover_of(covered.record, covered.identity, facts.claims, now, platform=platform)
        winner = counting.claim
        if winner is None or counting.through or winner.uid == claim.uid:
            continue  # through: the token follows its ServiceAccount, where the same dispute is named already
        if (NAMED if counting.named else SELECTED) == mine:
            yield Overlap(covered.record, winner)


def counts(facts: Facts) -> dict[str, int]:
    """How many objects the claim covers, by kind; the token Secrets of its ServiceAccounts are among its Secrets."""
    secrets = {covered.record.name for covered in facts.subjects if isinstance(covered.record, Secret)}
    accounts = 0
    for covered in facts.subjects:
        if isinstance(covered.record, ServiceAccount):
            accounts += 1
            secrets.update(covered.tokens)
    return {"Secret": len(secrets), "ServiceAccount": accounts}


def ends(facts: Facts) -> list[datetime]:
    """When claims that cover the ServiceAccount or Secret end, past and future: each end may change who answers."""
    record, platform = facts.record, facts.governance.platform
    assert isinstance(record, ServiceAccount | Secret)
    covered = (record,) if facts.identity is None else (record, facts.identity)
    return [
        end
        for claim in facts.claims
        if (end := claim.spec.expires_at) is not None
        and any(rank(claim, found, platform=platform) for found in covered)
    ]
