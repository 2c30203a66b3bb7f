"""What became of each decision, for the ledger: whether it counted, why, for what, and whether it came in time.

Counted and Void are for good. What was decided about an exception or a claim is weighed by the rules and answered here;
a verdict on a finding or a Quarantine is answered by who judges and carries it out, unless there is no such object.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Final

from tenure.api.conditions import Condition, ConditionStatus, ConditionType, Reason
from tenure.api.decision import Attested, DecisionOutcome, DecisionReason, IdentityDecisionStatus
from tenure.api.exception import IdentityExceptionSpec
from tenure.api.names import Phase, TargetKind, Verdict
from tenure.decide.verdict import gone
from tenure.inventory.snapshot import Shared, evaluate, gather, is_about
from tenure.inventory.store import Decision, Store, subject_key
from tenure.model.evaluation import Ruling, settled
from tenure.model.facts import Facts
from tenure.model.keys import Key
from tenure.model.records import Authored, Secret, ServiceAccount
from tenure.rules.governance import Installation, terms_of

UNSEEN_FOR: Final = timedelta(seconds=60)
"""How long a decision waits for its target to be seen. Decision and target come by two watches, seconds apart at most;
after this time there is no such object."""
LOOK_AGAIN: Final = timedelta(days=1)
"""When a decision whose retention is over is looked at again, should nothing happen to what refers to it."""

CARRIED_OUT: Final = frozenset({TargetKind.IDENTITY_FINDING, TargetKind.QUARANTINE})
"""What verdicts are carried out on: decide.verdict answers those, beside what becomes of the target."""


def decision_status(
    store: Store, decision: Decision, now: datetime, installation: Installation
) -> tuple[IdentityDecisionStatus | None, datetime | None]:
    """The status that should stand, None where there is nothing to say, and when to look at the decision again."""
    after_retention = kept_until(store, decision, installation)
    again = after_retention if after_retention > now else now + LOOK_AGAIN
    if decision.status is not None and settled(decision) is not None:
        return decision.status.model_copy(update={"conditions": ready(decision, now)}), again
    if decision.spec.target.kind in CARRIED_OUT:
        further = store.stored_quarantines.get((decision.namespace, decision.spec.target.name))
        lost = gone(decision, store.get(_key(decision)), further.spec.continues if further else None)
        return lost.model_copy(update={"conditions": ready(decision, now)}) if lost is not None else None, again
    target = _target(store, decision)
    if target is None:
        absent = store.was_removed(decision.spec.target.uid) or now >= decision.created + UNSEEN_FOR
        what = f"{decision.spec.target.kind.value} {decision.spec.target.name} of uid {decision.spec.target.uid}"
        if absent:
            ruling = Ruling.void(DecisionReason.TARGET_GONE, f"There is no {what}.")
        else:
            ruling, again = Ruling.undecided(f"{what} was not seen yet."), decision.created + UNSEEN_FOR
        return _status(decision, ruling, None, now), again
    ruling = _ruling(store, decision, now, installation)
    status = _status(decision, ruling, _deadline(store, decision, target), now)
    if ruling.reason is DecisionReason.ATTESTED:
        facts = gather(store, _key(decision), installation)
        status = status.model_copy(update={"attested": _attested(store, facts, target)})
    return status, again


def _key(decision: Decision) -> Key:
    return Key(decision.spec.target.kind.value, decision.namespace, decision.spec.target.name)


def _target(store: Store, decision: Decision) -> Authored[Any, Any] | None:
    """The object of that uid; None when there is none, or it is another."""
    record = store.get(_key(decision))
    return record if isinstance(record, Authored) and record.uid == decision.spec.target.uid else None


def _ruling(store: Store, decision: Decision, now: datetime, installation: Installation) -> Ruling:
    evaluation = evaluate(store, _key(decision), now, installation)
    rulings = evaluation.standing.rulings if evaluation.standing is not None else evaluation.rulings
    return rulings.get(decision.name, Ruling.undecided())


# --- deadlines and effects


def _deadline(store: Store, decision: Decision, target: Authored[Any, Any]) -> datetime | None:
    """What the decision had to be in time for: the earliest deadline of what an exception is about, or the review's."""
    if decision.spec.verdict is Verdict.ATTEST and target.status is not None:
        due: datetime | None = target.status.review_due  # as it stood before this attestation
        return due
    if isinstance(target.spec, IdentityExceptionSpec):
        return min(_dues(store, target), default=None)
    return None


def _dues(store: Store, exception: Authored[Any, Any]) -> Iterable[datetime]:
    for finding in store.findings_in(exception.namespace):
        status = finding.status
        if status is None or status.due is None or finding.spec.rule not in exception.spec.rules:
            continue
        if status.phase is Phase.RESOLVED:
            continue
        if is_about(store, exception, subject_key(finding)):
            yield status.due


def _attested(store: Store, facts: Facts, target: Authored[Any, Any]) -> Attested:
    """What the claim or exception covered when the attestation was taken in, and what that was bound to."""
    records = [covered.record for covered in facts.subjects] + [t.record for t in facts.targets if t.record is not None]
    accounts = [record for record in records if isinstance(record, ServiceAccount)]
    secrets = {record.name for record in records if isinstance(record, Secret)}
    for covered in facts.subjects:
        secrets.update(covered.tokens)
    grants = (grant for account in accounts for grant in Shared.of(store).grants(account.namespace, account.name))
    bindings = sorted({(grant.binding.namespace, grant.binding.name) for grant in grants})
    return Attested(
        generation=target.generation,
        service_accounts=len(accounts),
        secrets=len(secrets),
        entitlements=len(bindings),
        seen=(
            *(f"ServiceAccount/{account.name}" for account in accounts),
            *(f"Secret/{name}" for name in sorted(secrets)),
            *(f"RoleBinding/{space}/{name}" if space else f"ClusterRoleBinding/{name}" for space, name in bindings),
        ),
    )


def _status(decision: Decision, ruling: Ruling, deadline: datetime | None, now: datetime) -> IdentityDecisionStatus:
    target = decision.spec.target
    return IdentityDecisionStatus(
        observed_generation=decision.generation,
        outcome=ruling.outcome,
        verb=decision.spec.used_verb,
        reason=ruling.reason.value if ruling.reason is not None else "",
        message=ruling.message,
        deadline=deadline,
        late=deadline is not None and decision.created > deadline,
        effect=f"{target.kind.value}/{target.name}" if ruling.outcome is DecisionOutcome.COUNTED else "",
        conditions=ready(decision, now),
    )


def ready(decision: Decision, now: datetime) -> tuple[Condition, ...]:
    """The one condition of a decision: that it was processed, once for good."""
    stood = decision.status.conditions if decision.status is not None else ()
    if any(condition.type == ConditionType.READY for condition in stood):
        return stood
    return (
        Condition(
            type=ConditionType.READY,
            status=ConditionStatus.TRUE,
            reason=Reason.SPEC_PROCESSED,
            message="The spec was processed.",
            last_transition_time=now,
            observed_generation=decision.generation,
        ),
    )


# --- retention


def kept_until(store: Store, decision: Decision, installation: Installation) -> datetime:
    """Until when the policy in force in its namespace keeps the decision."""
    governance = Shared.of(store).surroundings(decision.namespace, installation).governance
    return decision.created + terms_of(governance).retention.decisions


def is_over(store: Store, decision: Decision, now: datetime, installation: Installation) -> bool:
    """Whether the decision may go: its time is over, it was taken in, and nothing that is kept refers to it."""
    if now < kept_until(store, decision, installation):
        return False
    ruling = settled(decision)
    if ruling is None:
        return False
    reference = f"IdentityDecision/{decision.name}"
    statuses = [finding.status for finding in store.findings_in(decision.namespace)]
    if any(status and status.decision and status.decision.reference == reference for status in statuses):
        return False
    return ruling.outcome is DecisionOutcome.VOID or not _still_counts(store, decision)


def _still_counts(store: Store, decision: Decision) -> bool:
    """Whether a decision that counted is what something that stands there rests on."""
    target = _target(store, decision)
    if target is None:
        return False
    if target.kind == "IdentityException":
        return bool(target.generation == decision.spec.target.generation)
    if target.kind == "OwnedIdentity":
        status = target.status
        return status is not None and status.attested == decision.created
    if target.kind == "IdentityFinding":
        return any(target.name in held.spec.findings for held in store.quarantines_in(target.namespace))
    return True
