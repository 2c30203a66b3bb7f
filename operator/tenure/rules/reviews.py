"""Reviews: when a claim or an exception has to be looked at again, who did, and the rule on those that nobody did."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tenure.api.base import format_timestamp
from tenure.api.decision import DecisionOutcome, DecisionReason
from tenure.api.names import ExceptionPhase, Rule, TargetKind, Verdict
from tenure.model.evaluation import Decision, Evidence, ExceptionRecord, Ruling, Standing, Violation, settled
from tenure.model.facts import Claim, Facts
from tenure.rules import approvals, coverage, risk
from tenure.rules.approvals import REVIEW_AFTER_FORCE
from tenure.rules.case import Case
from tenure.rules.governance import terms_of


@dataclass(frozen=True, slots=True)
class Review:
    due: datetime | None = None
    """None when none falls due, or there is nothing to decide."""
    attested: datetime | None = None
    """The last attestation that counts."""
    by: str = ""
    rulings: dict[str, Ruling] = field(default_factory=dict)
    """For a claim: what became of each decision about it, by name."""


def of_claim(case: Case) -> Review:
    """A claim is attested within its interval (its own, else the first of the policy's `reviews` for its class) from
    its last change or its last attestation on, as long as it covers something."""
    claim, facts = case.facts.claim, case.facts
    about = facts.decisions.get(claim.uid, ())
    # One that calls it by another kind had its right judged on that kind.
    decisions = [found for found in about if found.spec.target.kind is TargetKind.OWNED_IDENTITY]
    rulings = {decision.name: _on_claim(claim, decision) for decision in decisions}
    counted = [found for found in decisions if rulings[found.name].outcome is DecisionOutcome.COUNTED]
    last = counted[-1] if counted else None
    interval = _interval(case)
    due = None
    if interval is not None and coverage.in_force(claim, case.now) and any(coverage.counts(facts).values()):
        changed = approvals.stamp(claim)
        due = (max(changed, last.created) if last is not None else changed) + interval
    return Review(
        due, last.created if last is not None else None, (last.spec.by or "") if last is not None else "", rulings
    )


def _interval(case: Case) -> timedelta | None:
    claim = case.facts.claim
    if claim.spec.review is not None:
        return claim.spec.review.interval
    asked = terms_of(case.facts.governance).reviews
    return next((r.interval for r in asked if not r.classes or case.ownership.class_ in r.classes), None)


def _on_claim(claim: Claim, decision: Decision) -> Ruling:
    held = settled(decision)
    if held is not None:
        return held
    ruling = approvals.stale(decision, claim.name, claim.generation, approvals.stamp(claim))
    if ruling is not None:
        return ruling
    end = claim.spec.expires_at
    if end is not None and decision.created >= end:
        return Ruling.void(DecisionReason.ALREADY_DECIDED, f"The claim had ended, at {format_timestamp(end)}.")
    return Ruling.counted(DecisionReason.ATTESTED, "Attested: the claim was looked at, and goes on.")


def of_exception(exception: ExceptionRecord, standing: Standing, decisions: tuple[Decision, ...]) -> Review:
    """An active exception is reviewed at its `reviewBy`, or within seven days of having been forced, whichever is
    earlier, unless somebody has attested to the present spec since it became active (since the force)."""
    counted = [
        found
        for found in decisions
        if found.spec.verdict is Verdict.ATTEST
        and found.spec.target.generation == exception.generation
        and found.name in standing.rulings
        and standing.rulings[found.name].outcome is DecisionOutcome.COUNTED
    ]
    last = max(counted, key=lambda found: found.created, default=None)
    attested, by = (last.created, last.spec.by or "") if last is not None else (None, "")
    if standing.phase is not ExceptionPhase.ACTIVE:
        return Review(None, attested, by)
    forced = standing.forced
    asked = [exception.spec.review_by, forced + REVIEW_AFTER_FORCE if forced is not None else None]
    due = min((instant for instant in asked if instant is not None), default=None)
    done = attested is not None and (forced is None or attested >= forced)
    return Review(None if done else due, attested, by)


def overdue(facts: Facts, review: Review, now: datetime) -> Violation | None:
    """Holds from the review's instant on until somebody attests."""
    due = review.due
    if due is None or now < due:
        return None
    said = f"last attested at {format_timestamp(review.attested)}" if review.attested else "never attested"
    return Violation(
        rule=Rule.REVIEW_OVERDUE,
        observable=due,
        message=f"{facts.key} was to be reviewed by {format_timestamp(due)}; {said}.",
        risk=risk.of_violation(Rule.REVIEW_OVERDUE, facts.risk),
        evidence=(Evidence(source="review", since=due, detail=said),),
    )


def review_overdue(case: Case) -> Violation | None:
    """The rule on a claim; on an exception `overdue` is asked with its standing."""
    return overdue(case.facts, of_claim(case), case.now)
