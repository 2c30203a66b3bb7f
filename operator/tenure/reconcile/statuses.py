"""The statuses of the kinds people write, as pure functions of the inventory: what was processed, and what needs
attention. `Ready` says that the spec was processed, never that anything is compliant."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from tenure.api.base import ApiModel
from tenure.api.claim import MatchedCounts, OwnedIdentityStatus
from tenure.api.conditions import Condition, ConditionStatus, ConditionType, Reason
from tenure.api.exception import IdentityExceptionStatus, MatchedTarget
from tenure.api.names import LABEL_OWNER, ExceptionPhase, Rule
from tenure.api.owner import IdentityOwnerStatus
from tenure.api.policy import GovernancePolicyStatus
from tenure.inventory.snapshot import Shared, evaluate
from tenure.inventory.store import Store
from tenure.model.keys import Key
from tenure.model.records import Authored
from tenure.rules.governance import Installation, is_platform, terms_of
from tenure.rules.owners import answer, vacancy

_Wanted = tuple[ConditionType, str, str]


def authored_status(
    store: Store, key: Key, now: datetime, installation: Installation
) -> tuple[ApiModel | None, datetime | None]:
    """The status that should stand (None for a kind or object that is not there) and when it next changes by itself."""
    record = store.get(key)
    if not isinstance(record, Authored):
        return None, None
    if key.kind == "IdentityOwner":
        return _owner(store, record, now, installation), None
    if key.kind == "GovernancePolicy":
        return _policy(store, record, now, installation), None
    if key.kind == "OwnedIdentity":
        return _claim(store, key, record, now, installation)
    return _exception(store, key, record, now, installation)


def _owner(store: Store, record: Authored[Any, Any], now: datetime, installation: Installation) -> IdentityOwnerStatus:
    owners = store.owners
    vacant = vacancy(record.name, owners)
    wanted: list[_Wanted] = []
    if vacant is not None:
        wanted.append((ConditionType.VACANT, vacant, f"{answer(record.name, owners).words}."))
    deserted = undecidable(store, record.name, installation)
    if deserted:
        wanted.append((ConditionType.NOBODY_MAY_DECIDE, Reason.NO_BINDING, _nobody(deserted)))
    return IdentityOwnerStatus(
        observed_generation=record.generation,
        claims=len(store.claims_of_owner(record.name)),
        vacant=vacant is not None,
        conditions=_conditions(record, wanted, now),
    )


_NAMED: Final = 5
"""Namespaces that a message names; the rest is counted."""


def _nobody(namespaces: tuple[str, ...]) -> str:
    more = f" and {len(namespaces) - _NAMED} more" if len(namespaces) > _NAMED else ""
    return (
        f"Accountable in {', '.join(namespaces[:_NAMED])}{more}, where no binding grants anybody a decision verb "
        "(approve, reject, attest, quarantine, revoke, release) by name; the verb * does not count. Bind a role that "
        "grants one there, to a group of this owner for instance."
    )


def undecidable(store: Store, owner: str, installation: Installation) -> tuple[str, ...]:
    """The namespaces in which the owner is accountable and nobody may decide, sorted."""
    deciders = Shared.of(store).deciders()
    if "" in deciders:
        return ()
    return tuple(sorted(_accountable_in(store, owner, installation) - deciders))


def _accountable_in(store: Store, owner: str, installation: Installation) -> set[str]:
    """Where the owner answers: by claims, its own and those of vacant owners that it stands in for, and by labels on
    namespaces. What an object's own label says of single objects is left to their findings."""
    owners = store.owners
    names = {name for name in {owner, *_backed_by(store, owner)} if answer(name, owners).accountable == owner}
    found = {claim.namespace for name in names for claim in store.claims_of_owner(name)}
    shared = Shared.of(store)
    for name in {name for value in names for name in shared.labelled(value)}:
        governance = shared.surroundings(name, installation).governance
        keys = {LABEL_OWNER, *terms_of(governance).ownership.namespace_labels}
        if any(key in keys and value in names for key, value in store.namespaces[name].labels):
            found.add(name)
    return {name for name in found if not is_platform(name, installation)}


def _backed_by(store: Store, owner: str) -> set[str]:
    """The owners whose chain of backups leads to this one."""
    found = {owner}
    grown = True
    while grown:
        more = {name for name, other in store.owners.items() if other.spec.backup in found} - found
        found |= more
        grown = bool(more)
    return found


def _policy(
    store: Store, record: Authored[Any, Any], now: datetime, installation: Installation
) -> GovernancePolicyStatus:
    shared = Shared.of(store)
    governed = enforcing = 0
    rivals: set[str] = set()
    for namespace in store.namespaces:
        governance = shared.surroundings(namespace, installation).governance
        if record.name in governance.conflict:
            rivals.update(governance.conflict)
        elif governance.policy is not None and governance.policy.name == record.name:
            governed += 1
            enforcing += governance.enforcing
    rivals.discard(record.name)
    wanted: list[_Wanted] = []
    if rivals:
        wanted.append(
            (
                ConditionType.CONFLICT,
                Reason.EQUAL_PRECEDENCE,
                (
                    f"Equal precedence {record.spec.precedence} with {', '.join(sorted(rivals))} where both match: "
                    "nothing acts there. Give one of them a higher precedence or narrow a namespaceSelector."
                ),
            )
        )
    return GovernancePolicyStatus(
        observed_generation=record.generation,
        namespaces=governed,
        enforcing=enforcing,
        conflicts=tuple(sorted(rivals)),
        conditions=_conditions(record, wanted, now),
    )


def _claim(
    store: Store, key: Key, record: Authored[Any, Any], now: datetime, installation: Installation
) -> tuple[OwnedIdentityStatus, datetime | None]:
    evaluation = evaluate(store, key, now, installation)
    violated = {v.rule: v.message for v in evaluation.violations}
    wanted: list[_Wanted] = []
    if Rule.CLAIM_CONFLICT in violated:
        wanted.append((ConditionType.CONFLICT, Reason.EARLIER_CLAIM, violated[Rule.CLAIM_CONFLICT]))
    if Rule.OWNER_VACANT in violated:
        reason = vacancy(record.spec.owner, store.owners) or Reason.OWNER_MISSING
        wanted.append((ConditionType.VACANT, reason, violated[Rule.OWNER_VACANT]))
    before: OwnedIdentityStatus | None = record.status
    expired = record.spec.expires_at if record.spec.expires_at and record.spec.expires_at <= now else None
    return OwnedIdentityStatus(
        observed_generation=record.generation,
        accountable=evaluation.ownership.owner,
        matched=MatchedCounts(
            service_accounts=evaluation.covered.get("ServiceAccount", 0),
            secrets=evaluation.covered.get("Secret", 0),
            external=len(record.spec.subjects.external),
            entitlements=len(record.spec.entitlements),
        ),
        expired=expired,
        attested=before.attested if before else None,
        review_due=before.review_due if before else None,
        conditions=_conditions(record, wanted, now),
    ), evaluation.next_change


def _exception(
    store: Store, key: Key, record: Authored[Any, Any], now: datetime, installation: Installation
) -> tuple[IdentityExceptionStatus, datetime | None]:
    evaluation = evaluate(store, key, now, installation)
    standing = evaluation.standing
    if standing is None:
        return IdentityExceptionStatus(observed_generation=record.generation), None
    before: IdentityExceptionStatus | None = record.status
    same_spec = before is not None and before.observed_generation == record.generation
    active = standing.phase is ExceptionPhase.ACTIVE
    was_active = same_spec and before is not None and before.active_since is not None
    matched: tuple[MatchedTarget, ...] = ()
    since = None
    if before is not None and was_active:
        # What a selector matched is frozen when the exception becomes active; only a change of spec asks anew.
        matched, since = before.matched, before.active_since
    elif active:
        matched = tuple(MatchedTarget(kind=p.kind, name=p.name, uid=p.uid) for p in evaluation.pins[:1000])
        since = now
    wanted: list[_Wanted] = []
    if standing.phase is ExceptionPhase.PENDING:
        wanted.append(
            (ConditionType.DECISION_PENDING, Reason.AWAITING_APPROVAL, f"It waives nothing yet. {standing.failing}")
        )
    return IdentityExceptionStatus(
        observed_generation=record.generation,
        phase=standing.phase,
        reason=standing.reason,
        message=_said(standing.phase, standing.failing, len(matched)),
        failing=standing.failing,
        matched=matched,
        requested_by=record.spec.requested_by or "",
        active_since=since,
        expired=record.spec.expires_at if standing.phase is ExceptionPhase.EXPIRED else None,
        renewals=before.renewals if before else 0,
        conditions=_conditions(record, wanted, now),
    ), evaluation.next_change


def _said(phase: ExceptionPhase, failing: str, targets: int) -> str:
    if phase is ExceptionPhase.ACTIVE:
        return f"Waives the named rules for {targets} subject(s), frozen when it became active."
    if phase is ExceptionPhase.EXPIRED:
        return "It is over and waives nothing. What it waived is judged again."
    return f"It waives nothing yet: {failing}" if failing else ""


def _conditions(record: Authored[Any, Any], wanted: list[_Wanted], now: datetime) -> tuple[Condition, ...]:
    old = {c.type: c for c in record.status.conditions} if record.status else {}
    result = []
    for kind, reason, message in [
        (ConditionType.READY, str(Reason.SPEC_PROCESSED), "The spec was processed."),
        *wanted,
    ]:
        was = old.get(kind)
        same = was is not None and was.status is ConditionStatus.TRUE and was.reason == reason
        result.append(
            Condition(
                type=kind,
                status=ConditionStatus.TRUE,
                reason=reason,
                message=message,
                last_transition_time=was.last_transition_time if was is not None and same else now,
                observed_generation=record.generation,
            )
        )
    return tuple(result)
