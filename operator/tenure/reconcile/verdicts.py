"""What became of each decision, for the ledger: whether it counted, why, for what, and whether it came in time.

Counted and Void are for good. Who decided on an exception or a claim is weighed by the rules; a verdict on a finding or
a Quarantine counts once those say so themselves, since whoever carries it out looks at them and not at this.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Final, cast

from tenure.api.conditions import Condition, ConditionStatus, ConditionType, Reason
from tenure.api.decision import Attested, DecisionOutcome, DecisionReason, IdentityDecisionStatus
from tenure.api.exception import IdentityExceptionSpec
from tenure.api.names import Phase, Verdict
from tenure.inventory.snapshot import Shared, evaluate, gather, is_about
from tenure.inventory.store import Decision, Finding, QuarantineRecord, Store
from tenure.model.evaluation import Evaluation, Ruling
from tenure.model.facts import Facts
from tenure.model.keys import Key
from tenure.model.records import Authored, Secret, ServiceAccount
from tenure.rules.approvals import counts, undecided, void
from tenure.rules.governance import Installation, terms_of

UNSEEN_FOR: Final = timedelta(seconds=60)
"""How long a decision waits for its target to be seen. Decision and target come by two watches, seconds apart at most;
after this time there is no such object."""
LOOK_AGAIN: Final = timedelta(days=1)
"""When a decision whose retention is over is looked at again, should nothing happen to what refers to it."""

ENFORCED_KINDS: Final = frozenset({"ServiceAccount", "Secret"})


def is_settled(decision: Decision) -> bool:
    """Whether it counted or is void, which is for good."""
    return decision.status is not None and decision.status.outcome is not DecisionOutcome.UNDECIDED


def decision_status(
    store: Store, decision: Decision, now: datetime, installation: Installation
) -> tuple[IdentityDecisionStatus, datetime | None]:
    """The status that should stand, and when to look at the decision again."""
    before = decision.status
    after_retention = kept_until(store, decision, installation)
    again = after_retention if after_retention > now else now + LOOK_AGAIN
    if before is not None and is_settled(decision):
        effect = before.effect or _effect(store, decision, before.outcome)
        return before.model_copy(update={"effect": effect}), again
    target = _target(store, decision)
    if target is None:
        gone = store.was_removed(decision.spec.target.uid) or now >= decision.created + UNSEEN_FOR
        what = f"{decision.spec.target.kind.value} {decision.spec.target.name} of uid {decision.spec.target.uid}"
        if gone and decision.spec.verdict is Verdict.RELEASE and _was_released(store, decision):
            ruling = counts(DecisionReason.RELEASED, "The quarantine was given back.")
        elif gone:
            ruling = void(DecisionReason.TARGET_GONE, f"There is no {what}.")
        else:
            ruling, again = undecided(f"{what} was not seen yet."), decision.created + UNSEEN_FOR
        return _status(store, decision, ruling, None, now), again
    ruling, evaluation = _ruling(store, decision, target, now, installation)
    status = _status(store, decision, ruling, _deadline(store, decision, target, evaluation), now)
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


def _ruling(
    store: Store, decision: Decision, target: Authored[Any, Any], now: datetime, installation: Installation
) -> tuple[Ruling, Evaluation | None]:
    if target.kind == "IdentityFinding":
        return _on_finding(store, decision, target, now), None
    if target.kind == "Quarantine":
        return _on_quarantine(decision, target), None
    evaluation = evaluate(store, _key(decision), now, installation)
    rulings = evaluation.standing.rulings if evaluation.standing is not None else evaluation.rulings
    return rulings.get(decision.name, undecided("")), evaluation


def _on_finding(store: Store, decision: Decision, finding: Finding, now: datetime) -> Ruling:
    """A verdict Quarantine or Revoke. The finding says itself when it was taken in; until then it waits."""
    spec, status, named = decision.spec, finding.status, decision.spec.target.revision or 0
    if status is None:
        return undecided("")
    quarantine = _quarantine_of(store, finding)
    decided = status.decision
    if decided is not None and decided.reference == f"IdentityDecision/{decision.name}":
        return counts(DecisionReason.ENFORCED, f"It decided the finding: {status.phase.value}.")
    if finding.spec.subject.kind not in ENFORCED_KINDS:
        text = f"A finding on a {finding.spec.subject.kind} enforces nothing: correct or delete that object."
        return void(DecisionReason.NOT_ASKED, text)
    if spec.verdict is Verdict.REVOKE and quarantine is not None and quarantine.spec.revoke_at is not None:
        if decision.created <= quarantine.spec.revoke_at <= now:
            return counts(DecisionReason.ENFORCED, "Revocation is due at once; it waits only while use is attempted.")
        if quarantine.spec.revoke_at < decision.created:
            return void(DecisionReason.ALREADY_DECIDED, "Revocation was due already.")
    if named < finding.spec.revision:
        text = f"It names revision {named}; the finding has changed since, to {finding.spec.revision}. Decide anew."
        return void(DecisionReason.STALE_TARGET, text)
    if named > finding.spec.revision:
        return undecided(f"It names revision {named}; {finding.spec.revision} is the last one seen.")
    if status.phase in (Phase.RESOLVED, Phase.EXCEPTED):
        return void(DecisionReason.ALREADY_DECIDED, f"The finding is {status.phase.value}: there is nothing to take.")
    if spec.verdict is Verdict.QUARANTINE and (status.phase is Phase.QUARANTINED or status.decided is not None):
        return void(DecisionReason.ALREADY_DECIDED, "It was decided before; the act is done or under way.")
    return undecided("It is taken up when the finding is judged next.")


def _on_quarantine(decision: Decision, quarantine: QuarantineRecord) -> Ruling:
    status = quarantine.status
    subject = quarantine.spec.subject
    if status is not None and any(gone.uid == subject.uid and gone.done for gone in status.revoked):
        text = f"{subject.kind} {subject.name} was revoked: there is nothing to give back. Create a new one."
        return void(DecisionReason.ALREADY_DECIDED, text)
    if status is not None and status.release is not None:
        if status.release.by == decision.spec.by:
            return counts(DecisionReason.RELEASED, "What was taken is given back; its findings are open again.")
        return void(DecisionReason.ALREADY_DECIDED, f"{status.release.by} released it before.")
    if quarantine.deletion is not None:
        return void(DecisionReason.ALREADY_DECIDED, "It was being released before.")
    return undecided("It is taken up at once.")


def _quarantine_of(store: Store, finding: Finding) -> QuarantineRecord | None:
    listing = [q for q in store.quarantines_in(finding.namespace) if finding.name in q.spec.findings]
    return max(listing, key=lambda q: q.created, default=None)


def _was_released(store: Store, decision: Decision) -> bool:
    """Whether the Quarantine went because of this decision, as its findings tell: it may be gone before we look."""
    for finding in store.findings_in(decision.namespace):
        subject, released = finding.spec.subject, finding.status.released if finding.status else None
        named = decision.spec.target.name.startswith(f"{subject.kind.lower()}-{subject.name}"[:40])
        if named and released is not None and released >= decision.created:
            return True
    return False


# --- deadlines and effects


def _deadline(
    store: Store, decision: Decision, target: Authored[Any, Any], evaluation: Evaluation | None
) -> datetime | None:
    """What the decision had to be in time for: the finding's deadline, the earliest of what an exception is about, or
    the review's."""
    if target.kind == "IdentityFinding":
        return target.status.due if target.status is not None else None
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
        if is_about(store, exception, Key(finding.spec.subject.kind, exception.namespace, finding.spec.subject.name)):
            yield status.due


def _effect(store: Store, decision: Decision, outcome: DecisionOutcome) -> str:
    """What the decision led to; "" while that is not there."""
    target = decision.spec.target
    if outcome is not DecisionOutcome.COUNTED:
        return ""
    if target.kind.value != "IdentityFinding":
        return f"{target.kind.value}/{target.name}"
    finding = store.findings.get((decision.namespace, target.name))
    quarantine = _quarantine_of(store, finding) if finding is not None else None
    return f"Quarantine/{quarantine.name}" if quarantine is not None else ""


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


def _status(
    store: Store, decision: Decision, ruling: Ruling, deadline: datetime | None, now: datetime
) -> IdentityDecisionStatus:
    old = decision.status.conditions if decision.status is not None else ()
    ready = next((c for c in old if c.type == ConditionType.READY), None)
    return IdentityDecisionStatus(
        observed_generation=decision.generation,
        outcome=ruling.outcome,
        reason=ruling.reason.value if ruling.reason is not None else "",
        message=ruling.message,
        deadline=deadline,
        late=deadline is not None and decision.created > deadline,
        effect=_effect(store, decision, ruling.outcome),
        conditions=(
            ready
            or Condition(
                type=ConditionType.READY,
                status=ConditionStatus.TRUE,
                reason=Reason.SPEC_PROCESSED,
                message="The spec was processed.",
                last_transition_time=now,
                observed_generation=decision.generation,
            ),
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
    status = decision.status
    if status is None or status.outcome is DecisionOutcome.UNDECIDED:
        return False
    reference = f"IdentityDecision/{decision.name}"
    statuses = [finding.status for finding in store.findings_in(decision.namespace)]
    if any(status and status.decision and status.decision.reference == reference for status in statuses):
        return False
    return status.outcome is DecisionOutcome.VOID or not _still_counts(store, decision)


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
        return _quarantine_of(store, cast(Finding, target)) is not None
    return True
