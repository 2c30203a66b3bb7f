"""One subject's facts and an instant -> everything the rules say about it. Pure, total, in a fixed order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType
from typing import Final

from tenure.api.names import PROOF_TOKEN, ExceptionPhase, IdentityClass
from tenure.model.evaluation import Evaluation, ExceptionRecord, Ownership, Standing, Violation
from tenure.model.facts import Facts
from tenure.model.keys import Key
from tenure.model.records import Binding, Secret, ServiceAccount
from tenure.rules import coverage, credentials, entitlements, exceptions, ownership, residual, reviews
from tenure.rules.case import Case
from tenure.rules.coverage import Cover
from tenure.rules.secrets import is_credential

Check = Callable[[Case], Violation | None]

CHECKS: Final[Mapping[str, tuple[Check, ...]]] = MappingProxyType(
    {
        "ServiceAccount": (ownership.unowned,),
        "Secret": (credentials.credential_too_old, credentials.legacy_token, ownership.unowned),
        "RoleBinding": (entitlements.entitlement_undeclared,),
        "ClusterRoleBinding": (entitlements.entitlement_undeclared,),
        "OwnedIdentity": (
            ownership.claim_conflict,
            ownership.owner_vacant,
            ownership.ownership_expired,
            reviews.review_overdue,
        ),
    }
)
"""The rules of each kind in the order of their ids (those on exceptions, which take more, stand in `_exception`)."""

KINDS: Final = frozenset({*CHECKS, "IdentityException"})
"""Kinds that can be evaluated."""


def evaluate(facts: Facts, now: datetime) -> Evaluation:
    """Everything the rules say of one subject at one instant.

    Violations are sorted by rule. `next_change` may lie before the next real change, never after it. Raises KeyError
    for a kind that is not in KINDS."""
    if facts.key.kind not in KINDS:
        raise KeyError(f"{facts.key.kind} is no kind the rules judge")
    if facts.record is None:
        return _gone(facts)
    if facts.key.kind == "IdentityException":
        return _exception(facts, now)
    if facts.key.kind == "OwnedIdentity":
        return _claim(facts, now)
    if isinstance(facts.record, Binding):
        return _entitlement(facts, now)
    return _subject(facts, now)


def _violated(target: Facts, now: datetime) -> Evaluation:
    """What an exception's target violates. A waiver changes nothing about that, so none is weighed: with two thousand
    exceptions from one object, each of them would weigh all others."""
    return evaluate(replace(target, exceptions=()), now)


def _subject(facts: Facts, now: datetime) -> Evaluation:
    record = facts.record
    assert isinstance(record, ServiceAccount | Secret)
    cover = coverage.cover(facts, now)
    case = Case(facts, now, cover, ownership.of_subject(facts, cover))
    found = exceptions.standings(facts, now)
    aging = isinstance(record, Secret) and is_credential(record)
    return Evaluation(
        key=facts.key,
        uid=record.uid,
        exists=True,
        created=record.created,
        deleting=_deleting(facts, record.deleting),
        governance=facts.governance,
        ownership=case.ownership,
        risk=facts.risk,
        violations=_violations(case),
        waivers=exceptions.waivers(found, facts),
        next_change=_next(
            now,
            coverage.ends(facts),
            exceptions.changes(found),
            (credentials.too_old_at(case),) if aging else (),
        ),
        managed_by=record.managed_by,
        residual=residual.of(facts),
        bindings=_bindings(facts) if isinstance(record, ServiceAccount) else (),
        credentials=tuple(Key("Secret", facts.key.namespace, name) for name in facts.tokens),
        exceptions=_keys(found),
    )


def _entitlement(facts: Facts, now: datetime) -> Evaluation:
    """Whoever answers for the ServiceAccount answers for what it is entitled to."""
    binding = facts.record
    assert isinstance(binding, Binding)
    assert facts.identity is not None
    assert facts.entitled is not None
    identity = replace(facts, record=facts.identity, identity=None, governance=facts.entitled)
    cover = coverage.cover(identity, now)
    listed = entitlements.listing(facts, now)
    case = Case(facts, now, cover, ownership.of_subject(identity, cover), listed)
    found = exceptions.standings(facts, now)
    return Evaluation(
        key=facts.key,
        uid=binding.uid,
        exists=True,
        created=binding.created,
        deleting=facts.leaving,
        governance=facts.governance,
        ownership=case.ownership,
        risk=facts.risk,
        violations=_violations(case),
        waivers=exceptions.waivers(found, facts),
        next_change=_next(now, coverage.ends(identity), exceptions.changes(found)),
        managed_by=binding.managed_by,
        exceptions=_keys(found),
        governed=binding.namespace or facts.identity.namespace,
        declared_by=Key("OwnedIdentity", listed.namespace, listed.name) if listed else None,
        declared=ownership.changed(listed) if listed else None,
    )


def _claim(facts: Facts, now: datetime) -> Evaluation:
    claim = facts.claim
    case = Case(facts, now, Cover(), ownership.of_claim(facts, claim))
    found = exceptions.standings(facts, now)
    review = reviews.of_claim(case)
    return Evaluation(
        key=facts.key,
        uid=claim.uid,
        exists=True,
        created=claim.created,
        deleting=_deleting(facts, claim.deletion is not None),
        governance=facts.governance,
        ownership=case.ownership,
        risk=facts.risk,
        violations=_violations(case),
        waivers=exceptions.waivers(found, facts),
        next_change=_next(now, [c.spec.expires_at for c in facts.claims], exceptions.changes(found), (review.due,)),
        exceptions=_keys(found),
        covered=coverage.counts(facts),
        review_due=review.due,
        attested=review.attested,
        attested_by=review.by,
        rulings=review.rulings,
    )


def _exception(facts: Facts, now: datetime) -> Evaluation:
    exception = facts.exception
    case = Case(facts, now, Cover(), ownership.of_exception(facts))
    standing = exceptions.standing_of(exception, facts, now)
    review = reviews.of_exception(exception, standing, facts.decisions.get(exception.uid, ()))
    found: list[Violation | None] = [reviews.overdue(facts, review, now)]
    needed, later = True, None
    if standing.phase is ExceptionPhase.EXPIRED:
        targets = {target.key: _violated(target, now) for target in exceptions.frozen(facts)}
        found.insert(0, exceptions.lapsed(case, {key: judged.violations for key, judged in targets.items()}))
        later = _next(now, (judged.next_change for judged in targets.values()))
    elif standing.phase is ExceptionPhase.ACTIVE:
        needed, later = _needed(facts, standing, now)
    return Evaluation(
        key=facts.key,
        uid=exception.uid,
        exists=True,
        created=exception.created,
        deleting=_deleting(facts, exception.deletion is not None),
        governance=facts.governance,
        ownership=case.ownership,
        risk=facts.risk,
        violations=tuple(violation for violation in found if violation is not None),
        next_change=_next(now, (standing.until, later, review.due)),
        standing=standing,
        pins=exceptions.pins(facts, standing),
        review_due=review.due,
        attested=review.attested,
        attested_by=review.by,
        needed=needed,
    )


def _needed(facts: Facts, standing: Standing, now: datetime) -> tuple[bool, datetime | None]:
    """Whether a target violates a rule that the exception names, and when that may change by itself. The first that
    does is enough: with five hundred targets, one of which changes, all others are left alone."""
    wanted = set(facts.exception.spec.rules)
    later: list[datetime | None] = []
    for target in facts.targets:
        if target.record is None or not exceptions.covers(facts.exception, standing, target.key.kind, target.record):
            continue
        judged = _violated(target, now)
        if any(violation.rule in wanted for violation in judged.violations):
            return True, judged.next_change
        later.append(judged.next_change)
    return False, _next(now, later)


def _gone(facts: Facts) -> Evaluation:
    return Evaluation(
        key=facts.key,
        uid="",
        exists=False,
        created=None,
        deleting=False,
        governance=facts.governance,
        ownership=Ownership(
            "none",
            why="it is gone",
            class_=IdentityClass.PLATFORM if facts.governance.platform else IdentityClass.WORKLOAD,
        ),
        risk=facts.risk,
    )


def _violations(case: Case) -> tuple[Violation, ...]:
    key = case.facts.key
    if case.facts.governance.own and (key.kind, key.name) == ("Secret", PROOF_TOKEN):
        return ()  # the operator's own synthetic token, off and without rights: nobody has to decide about it
    found = (check(case) for check in CHECKS[key.kind])
    return tuple(violation for violation in found if violation is not None)


def _deleting(facts: Facts, own: bool) -> bool:
    return own or (facts.namespace is not None and facts.namespace.deleting)


def _bindings(facts: Facts) -> tuple[Key, ...]:
    keys = (
        Key(
            grant.binding.kind,
            grant.binding.namespace,
            grant.binding.name,
        )
        for grant in facts.grants
    )
    return tuple(sorted(keys))


def _keys(found: Iterable[tuple[ExceptionRecord, Standing]]) -> tuple[Key, ...]:
    return tuple(Key(exception.kind, exception.namespace, exception.name) for exception, _ in found)


def _next(now: datetime, *instants: Iterable[datetime | None]) -> datetime | None:
    future = (instant for group in instants for instant in group if instant is not None and instant > now)
    return min(future, default=None)
