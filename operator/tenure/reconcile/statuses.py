"""The statuses of the kinds people write, as pure functions of the inventory: what was processed, and what needs
attention. `Ready` says that the spec was processed, never that anything is compliant."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from tenure.api.base import ApiModel, format_timestamp, parse_timestamp
from tenure.api.claim import MatchedCounts, OwnedIdentityStatus
from tenure.api.conditions import Condition, ConditionStatus, ConditionType, Reason
from tenure.api.exception import IdentityExceptionStatus, MatchedTarget
from tenure.api.names import LABEL_OWNER, ExceptionPhase, Rule
from tenure.api.owner import IdentityOwnerStatus
from tenure.api.policy import GovernancePolicyStatus
from tenure.inventory.snapshot import Shared, evaluate, is_about
from tenure.inventory.store import Store, subject_key
from tenure.model.evaluation import Evaluation, Standing
from tenure.model.keys import Key
from tenure.model.records import Authored, Binding, Secret, ServiceAccount, Unprocessable
from tenure.reconcile.verdicts import decision_status
from tenure.rules.approvals import stamp
from tenure.rules.exceptions import AWAITING_APPROVAL, AWAITING_POLICY, WAITING, active_since, is_frozen
from tenure.rules.governance import Installation, is_platform, terms_of
from tenure.rules.owners import answer, vacancy

_Wanted = tuple[ConditionType, str, str]
_TARGETS = (ServiceAccount, Secret, Binding, Authored)


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
    if key.kind == "IdentityDecision":
        return decision_status(store, record, now, installation)
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
    wanted += _review(key, violated)
    before: OwnedIdentityStatus | None = record.status
    accountable = evaluation.ownership.owner
    since = now
    if before is None or before.observed_generation < 0:
        since = record.spec_changed or record.created
    elif before.accountable == accountable:
        since = before.accountable_since or record.spec_changed or record.created
    expired = record.spec.expires_at if record.spec.expires_at and record.spec.expires_at <= now else None
    return OwnedIdentityStatus(
        observed_generation=record.generation,
        accountable=accountable,
        accountable_since=since,
        stamped=stamp(record),
        matched=MatchedCounts(
            service_accounts=evaluation.covered.get("ServiceAccount", 0),
            secrets=evaluation.covered.get("Secret", 0),
            external=len(record.spec.subjects.external),
            entitlements=len(record.spec.entitlements),
        ),
        expired=expired,
        attested=evaluation.attested,
        attested_by=evaluation.attested_by,
        review_due=evaluation.review_due,
        conditions=_conditions(record, wanted, now),
    ), evaluation.next_change


def _review(key: Key, violated: Mapping[Rule, str]) -> list[_Wanted]:
    """What to do about a review that nobody did."""
    if Rule.REVIEW_OVERDUE not in violated:
        return []
    text = f"{violated[Rule.REVIEW_OVERDUE]} Attest, or change it: `{command('attest', key)}`."
    return [(ConditionType.DECISION_PENDING, Reason.AWAITING_REVIEW, text)]


def command(verb: str, key: Key) -> str:
    """The command that decides with this verb: a party's verb such as approve-security goes with its verdict's."""
    verdict = {"consult": "approve", "force": "approve"}.get(verb.split("-")[0], verb.split("-")[0])
    with_verb = f" --verb {verb}" if verb != verdict else ""
    return f"tenure {verdict} {key.kind.lower()}/{key.name} -n {key.namespace}{with_verb} --reason …"


def _exception(
    store: Store, key: Key, record: Authored[Any, Any], now: datetime, installation: Installation
) -> tuple[IdentityExceptionStatus, datetime | None]:
    evaluation = evaluate(store, key, now, installation)
    standing = evaluation.standing
    if standing is None:
        return IdentityExceptionStatus(observed_generation=record.generation), None
    before: IdentityExceptionStatus | None = record.status
    active = standing.phase is ExceptionPhase.ACTIVE
    if before is not None and is_frozen(record):
        # What a selector matched is frozen at the first approval; only a change of spec asks anew.
        matched = before.matched
    elif active or standing.approved is not None:
        matched = tuple(MatchedTarget(kind=p.kind, name=p.name, uid=p.uid) for p in evaluation.pins[:1000])
    else:
        matched = ()
    return IdentityExceptionStatus(
        observed_generation=record.generation,
        phase=standing.phase,
        reason=standing.reason,
        message=_said(standing, len(matched)),
        failing=standing.failing,
        matched=matched,
        requested_by=record.spec.requested_by or "",
        stamped=stamp(record),
        active_since=active_since(record) or standing.active_since,
        decided=standing.decided,
        counted=standing.counted,
        forced=standing.forced,
        review_due=evaluation.review_due,
        attested=evaluation.attested,
        expired=record.spec.expires_at if standing.phase is ExceptionPhase.EXPIRED else None,
        renewals=_renewals(store, record),
        conditions=_conditions(record, _wanted(store, key, record, evaluation, standing), now),
    ), evaluation.next_change


def _wanted(
    store: Store, key: Key, record: Authored[Any, Any], evaluation: Evaluation, standing: Standing
) -> list[_Wanted]:
    """What of an exception needs somebody's attention."""
    violated = {v.rule: v.message for v in evaluation.violations}
    wanted = _review(key, violated)
    if standing.phase is ExceptionPhase.PENDING:
        text = f"It waives nothing yet. {standing.failing}."
        if standing.reason in (AWAITING_APPROVAL, WAITING):
            unheard = [consulted for consulted in standing.unheard if consulted not in standing.missing]
            decide = " ; ".join(f"`{command(verb, key)}`" for verb in (*standing.missing, *unheard))
            text += f" Decide with {decide}." if decide else " It becomes active then by itself."
        elif standing.reason == AWAITING_POLICY:
            text += " It goes on by itself once that is put in order."
        else:
            text += " Change its spec."
        wanted.append((ConditionType.DECISION_PENDING, Reason.AWAITING_APPROVAL, text))
    elif standing.phase is ExceptionPhase.ACTIVE:
        if standing.disallowed:
            text = f"It goes on until {format_timestamp(record.spec.expires_at)}, but now the policy would say no:"
            wanted.append((ConditionType.DISALLOWED, Reason.POLICY_CHANGED, f"{text} {standing.disallowed}."))
        if not evaluation.needed:
            wanted.append(_unneeded(store, record))
    return wanted


def _unneeded(store: Store, record: Authored[Any, Any]) -> _Wanted:
    status: IdentityExceptionStatus | None = record.status
    if status is not None and is_frozen(record):
        found = [(store.get(Key(match.kind, record.namespace, match.name)), match.uid) for match in status.matched]
        if not any(isinstance(target, _TARGETS) and target.uid == uid for target, uid in found):
            text = "Nothing that it was approved for exists any more. Delete it."
            return ConditionType.UNNEEDED, Reason.TARGET_GONE, text
    rules = ", ".join(rule.value for rule in record.spec.rules)
    text = f"Nothing it covers violates {rules} any more. Delete it: debt that is paid back is not carried on."
    return ConditionType.UNNEEDED, Reason.NO_FINDING, text


def _renewals(store: Store, record: Authored[Any, Any]) -> int:
    """The most that any of its targets has been renewed for any of its rules."""
    rules = set(record.spec.rules)
    debts = [
        finding.status.debt.renewals
        for finding in store.findings_in(record.namespace)
        if finding.spec.rule in rules
        and finding.status is not None
        and finding.status.debt.renewals
        and is_about(store, record, subject_key(finding))
    ]
    return max(debts, default=0)


def _said(standing: Standing, targets: int) -> str:
    if standing.phase is ExceptionPhase.ACTIVE:
        return f"Waives the named rules for {targets} subject(s), frozen when it was approved."
    if standing.phase is ExceptionPhase.EXPIRED:
        return "It is over and waives nothing. What it waived is judged again."
    if standing.phase is ExceptionPhase.PENDING:
        return f"It waives nothing yet: {standing.failing}" if standing.failing else ""
    return f"It waives nothing until its spec changes: {standing.failing}"


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


# --- what cannot be read

_SPOKEN: Final = (ConditionType.READY, ConditionType.RECONCILING, ConditionType.STALLED)
_STAMPED: Final = ("OwnedIdentity", "IdentityException")


def is_processed(status: Mapping[str, Any], generation: int) -> bool:
    """Whether a status, as it is stored, says that this generation of the spec was processed."""
    said = {c["type"] for c in status.get("conditions") or () if c["status"] == ConditionStatus.TRUE}
    return status.get("observedGeneration") == generation and ConditionType.READY in said


def stalled_status(stored: Mapping[str, Any], unread: Unprocessable, now: datetime) -> dict[str, Any] | None:
    """The status, as it is stored, of an object whose spec this version cannot read; None where it says so already. All
    else in it stays: what an exception pinned is nowhere else. But pins and approvals are those of one spec, and after
    a change of it they are void, readable or not."""
    message = f"This version of Tenure cannot read it; nothing begins where it may count. {unread.error}"[:512]
    status, before = dict(stored), stored.get("conditions") or []
    known = stored.get("observedGeneration") == unread.generation
    if known and any(c["type"] == ConditionType.STALLED and c.get("message") == message for c in before):
        return None
    if not known and unread.kind in _STAMPED:
        written = unread.spec_changed or now
        earlier = parse_timestamp(stored["stamped"]) if stored.get("stamped") else written
        stamped = {"stamped": format_timestamp(max(written, earlier))}
        status = stamped if unread.kind == "IdentityException" else status | stamped
    stalled = {
        "type": ConditionType.STALLED.value,
        "status": ConditionStatus.TRUE.value,
        "reason": Reason.INVALID_SPEC.value,
        "message": message,
        "lastTransitionTime": format_timestamp(now),
        "observedGeneration": unread.generation,
    }
    status["conditions"] = [stalled, *(c for c in status.get("conditions") or () if c["type"] not in _SPOKEN)]
    status["observedGeneration"] = unread.generation
    return status
