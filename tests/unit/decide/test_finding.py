"""The life of a finding, instant by instant, without a cluster."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenure.api.names import DecisionSource, DueOutcome, Mode, Phase, Risk, Rule, Verdict
from tenure.model.evaluation import Ownership, RiskGrade, Rung, Violation
from tenure.model.keys import Key
from tests.unit.decide.life import (
    CLAIMED,
    DAY,
    OPEN,
    T0,
    TERMS,
    WAIVER,
    Life,
    at,
    evaluation,
    hold_of_policy,
    violation,
)


def test_it_opens_with_a_deadline_counted_from_detection() -> None:
    status = Life()(T0).status
    assert status is not None
    assert (status.phase, status.detected, status.due) == (Phase.OPEN, T0, at(10))
    assert status.observable == T0 - DAY
    assert status.enforce_not_before == at(10)
    assert status.opening == 1


def test_observable_is_never_before_the_first_inventory() -> None:
    status = Life()(T0, first=T0 - timedelta(minutes=1)).status
    assert status is not None
    assert status.observable == T0 - timedelta(minutes=1)


def test_a_deadline_never_lies_before_its_whole_time() -> None:
    status = Life()(T0 + timedelta(milliseconds=300)).status
    assert status is not None
    assert status.due == at(10) + timedelta(seconds=1)


def test_the_act_is_due_exactly_at_the_deadline() -> None:
    life = Life()
    life(T0)
    life(at(10) - timedelta(microseconds=1))
    assert life.last.act is None
    assert life.last.next == at(10)
    life(at(10))
    assert life.last.act is Verdict.QUARANTINE
    assert life.last.wants


def test_audit_never_acts_and_its_finding_is_overdue() -> None:
    life = Life(replace(TERMS, mode=Mode.AUDIT))
    life(T0)
    status = life(at(11)).status
    assert status is not None
    assert life.last.act is None
    assert not life.last.wants
    assert (status.decided, status.due_outcome, status.enforce_not_before) == (None, DueOutcome.MISSED, None)


@pytest.mark.parametrize("held", ["Suspended", "EnforcementOff", "PolicyConflict", "PlatformNamespace", "Unreadable"])
def test_what_holds_an_act_is_said_and_the_clock_goes_on(held: str) -> None:
    life = Life(replace(TERMS, held=held))
    life(T0)
    status = life(at(11)).status
    assert status is not None
    assert life.last.act is None
    assert not life.last.wants
    assert [c.reason for c in status.conditions if c.type == "Blocked"] == [held]
    assert status.due_outcome is DueOutcome.MISSED


def test_nothing_acts_before_the_adoption_grace_ends() -> None:
    life = Life(replace(TERMS, not_before=at(30)))
    life(T0)
    life(at(29))
    assert life.last.act is None
    life(at(30))
    assert life.last.act is Verdict.QUARANTINE


def test_nothing_acts_while_the_turn_is_not_recorded() -> None:
    life = Life(replace(TERMS, turn_known=False))
    life(T0)
    life(at(11))
    assert life.last.act is None
    assert life.last.held == "TurnNotRecorded"


def test_a_claim_in_time_decides_with_the_claims_stamp() -> None:
    life = Life()
    life(T0)
    status = life(at(5), CLAIMED).status
    assert status is not None
    assert (status.phase, status.decided, status.resolved) == (Phase.RESOLVED, at(4), at(5))
    assert status.decision is not None
    assert status.decision.source is DecisionSource.CLAIM
    assert status.decision.reference == "OwnedIdentity/all"
    assert (status.due_outcome, status.decision.late) == (DueOutcome.MET, False)


def test_a_claim_older_than_the_finding_counts_when_it_was_seen() -> None:
    life = Life()
    life(at(4.5))
    status = life(at(5), CLAIMED).status
    assert status is not None
    assert status.decided == at(5)


def test_a_claim_made_in_time_but_seen_late_still_counts_as_met() -> None:
    life = Life()
    life(T0)
    made = replace(CLAIMED, ownership=replace(CLAIMED.ownership, claim_changed=at(9.9)))
    status = life(at(10.1), made).status
    assert status is not None
    assert (status.due_outcome, status.decided) == (DueOutcome.MET, at(9.9))


def test_a_decision_after_the_deadline_and_before_the_act_wins_and_is_late() -> None:
    life = Life()
    life(T0)
    life(at(10.5))
    made = replace(CLAIMED, ownership=replace(CLAIMED.ownership, claim_changed=at(11)))
    status = life(at(11), made).status
    assert status is not None
    assert status.decision is not None
    assert (status.decision.source, status.decision.late) == (DecisionSource.CLAIM, True)
    assert status.due_outcome is DueOutcome.MISSED
    assert not life.last.wants


def test_a_reopened_finding_inherits_the_time_already_used() -> None:
    life = Life()
    life(T0)
    life(at(4), CLAIMED)
    status = life(at(100)).status
    assert status is not None
    assert (status.opening, status.phase, status.detected) == (2, Phase.OPEN, at(100))
    assert status.due == at(106)
    assert status.observable == at(4), "what lies in an earlier opening is not this one's"
    assert (status.decided, status.decision, status.due_outcome) == (None, None, DueOutcome.PENDING)


def test_a_tenth_of_the_time_is_always_left() -> None:
    life = Life()
    life(T0)
    life(at(9.9), replace(CLAIMED, ownership=replace(CLAIMED.ownership, claim_changed=at(9.9))))
    status = life(at(20)).status
    assert status is not None
    assert status.due == at(21)


def test_a_namesake_goes_on_with_the_clock_and_raises_the_revision() -> None:
    life = Life()
    life(T0)
    found = life(at(3), evaluation(violation(), uid="u2"))
    assert found.status is not None
    assert found.spec.revision == 2
    assert (found.status.opening, found.status.due) == (1, at(10))


def test_deleting_a_quarantined_subject_and_making_it_again_restarts_no_clock() -> None:
    life = Life()
    life(T0)
    life(at(10), hold=hold_of_policy(enforced=at(10)))
    status = life(at(10.1), evaluation(violation(), uid="u2")).status
    assert status is not None
    assert (status.phase, status.opening, status.due) == (Phase.OPEN, 2, at(11.1))


def test_a_rotated_credential_starts_anew() -> None:
    life = Life()
    life(T0, OPEN)
    life(at(9), evaluation(ownership=Ownership("none")))
    rotated = replace(violation(), epoch=at(9))
    status = life(at(20), evaluation(rotated)).status
    assert status is not None
    assert status.due == at(30)


def test_a_higher_risk_moves_the_deadline_forward_and_a_lower_one_not_back() -> None:
    life = Life()
    life(T0)
    life.terms = replace(TERMS, decide_within=3 * DAY)
    first = life(at(1), evaluation(violation(risk=Risk.HIGH)))
    assert first.status is not None
    assert (first.status.due, first.spec.revision) == (at(3), 2)
    life.terms = replace(TERMS, decide_within=90 * DAY)
    second = life(at(2), evaluation(violation(risk=Risk.LOW)))
    assert second.status is not None
    assert second.status.due == at(3)


def test_a_changed_policy_moves_no_deadline() -> None:
    life = Life()
    life(T0)
    for within in (DAY, 100 * DAY):
        life.terms = replace(TERMS, decide_within=within)
        status = life(at(2)).status
        assert status is not None
        assert status.due == at(10)


def test_an_exception_decides_and_its_end_reopens() -> None:
    life = Life()
    life(T0)
    status = life(at(2), evaluation(violation(), waiver=WAIVER)).status
    assert status is not None
    assert status.decision is not None
    assert (status.phase, status.decided, status.decision.class_) == (Phase.EXCEPTED, at(2), "Migration")
    status = life(at(20)).status
    assert status is not None
    assert (status.phase, status.due) == (Phase.OPEN, at(28))
    assert status.debt.exempt_seconds == 18 * 86_400


def test_restart_clock_gives_a_lapsed_exception_the_whole_time() -> None:
    life = Life(replace(TERMS, restart_on_lapse=True))
    life(T0)
    life(at(2), evaluation(violation(), waiver=WAIVER))
    status = life(at(20)).status
    assert status is not None
    assert status.due == at(30)


def test_the_policy_decides_at_the_deadline_whenever_its_act_begins() -> None:
    life = Life()
    life(T0)
    life(at(10.2))
    begun = life(at(10.2), hold=hold_of_policy()).status
    assert begun is not None
    assert begun.decision is not None
    assert (begun.phase, begun.decided, begun.decision.source) == (Phase.OPEN, at(10), DecisionSource.POLICY)
    done = life(at(10.3), hold=hold_of_policy(enforced=at(10.3))).status
    assert done is not None
    assert (done.phase, done.enforced, done.verified) == (Phase.QUARANTINED, at(10.3), at(10.3))
    assert done.due_outcome is DueOutcome.MISSED
    assert life.last.wants


def test_a_claim_ends_a_quarantine_and_the_policys_decision_stays() -> None:
    life = Life()
    life(T0)
    life(at(10), hold=hold_of_policy(enforced=at(10)))
    status = life(at(11), CLAIMED, hold_of_policy(enforced=at(10))).status
    assert status is not None
    assert status.decision is not None
    assert (status.phase, status.decision.source) == (Phase.RESOLVED, DecisionSource.POLICY)
    assert not life.last.wants


def test_a_persons_release_reopens_with_the_whole_time_from_the_release() -> None:
    life = Life()
    life(T0)
    life(at(10), hold=hold_of_policy(enforced=at(10)))
    released = hold_of_policy(enforced=at(10), released=at(12), ending=True)
    status = life(at(12.5), hold=released).status
    assert status is not None
    assert (status.phase, status.released, status.due) == (Phase.OPEN, at(12), at(22))
    assert (status.decided, status.acts) == (None, ())
    assert not life.last.wants, "the Quarantine that is going away holds it no longer"
    status = life(at(13)).status
    assert status is not None
    assert (status.opening, status.due) == (2, at(22))


def test_a_quarantine_that_vanished_counts_as_released() -> None:
    life = Life()
    life(T0)
    life(at(10), hold=hold_of_policy(enforced=at(10)))
    status = life(at(12)).status
    assert status is not None
    assert (status.phase, status.due, status.released) == (Phase.OPEN, at(22), at(12))


def test_a_claim_that_lists_the_entitlement_decides() -> None:
    undeclared = evaluation(violation(Rule.ENTITLEMENT_UNDECLARED))
    by_claim = replace(CLAIMED, declared_by=Key("OwnedIdentity", "payments", "ci"), declared=at(3))
    for listed, expected in ((by_claim, (DecisionSource.CLAIM, at(3))), (CLAIMED, (DecisionSource.FIX, at(5)))):
        life = Life(rule=Rule.ENTITLEMENT_UNDECLARED)
        life(T0, undeclared)
        status = life(at(5), listed).status
        assert status is not None
        assert status.decision is not None
        assert (status.decision.source, status.decided) == expected


def test_the_end_of_the_subject_decides() -> None:
    life = Life()
    life(T0)
    found = life(at(3), evaluation(uid=""))
    assert found.status is not None
    assert found.status.decision is not None
    assert found.status.decision.source is DecisionSource.SUBJECT_GONE
    assert found.spec.subject.uid == "u1", "the uid it was about stays readable"


def test_revocation_is_told_to_its_end() -> None:
    life = Life()
    life(T0)
    life(at(10), hold=hold_of_policy(enforced=at(10)))
    gone = hold_of_policy(enforced=at(10), revoke_at=at(11), revoke_started=at(11), revoked=at(11.1), ending=False)
    status = life(at(11.1), evaluation(uid=""), gone).status
    assert status is not None
    assert [(a.verdict, a.decided, a.verified) for a in status.acts] == [
        (Verdict.QUARANTINE, at(10), at(10)),
        (Verdict.REVOKE, at(11), at(11.1)),
    ]


def test_a_resolved_finding_is_kept_for_its_retention() -> None:
    life = Life()
    life(T0)
    life(at(1), CLAIMED)
    assert life.last.next == at(91)
    life(at(91), CLAIMED)
    assert life.last.delete


def test_a_finding_with_everything_in_it_stays_below_four_kibibytes() -> None:
    from tenure.model.evaluation import Evidence
    from tenure.model.records import ManagedBy

    risk = RiskGrade(Risk.CRITICAL, tuple(f"bound to ClusterRole {'x' * 250}{n}" for n in range(20)))
    long = Violation(Rule.UNOWNED, T0, "m" * 900, risk, tuple(Evidence("source", T0, "d" * 300) for _ in range(20)))
    judged = replace(
        evaluation(long),
        residual=tuple("r" * 300 for _ in range(20)),
        managed_by=ManagedBy("Helm", "n" * 253),
        ownership=Ownership("none", "o" * 63),
    )
    life = Life()
    life(T0, judged)
    found = life(at(10), judged, hold_of_policy(enforced=at(10), error="e" * 500))
    assert found.status is not None
    import json

    size = len(json.dumps({"spec": found.spec.wire(), "status": found.status.wire()}))
    assert size < 3500, "with metadata and managedFields it must stay below 4 KiB"


moves = st.lists(
    st.tuples(
        st.floats(min_value=-1, max_value=4),
        st.sampled_from(["open", "claimed", "waived", "gone", "high"]),
        st.sampled_from(["none", "hold", "enforced"]),
        st.sampled_from([None, None, Verdict.QUARANTINE, Verdict.REVOKE]),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=200, deadline=None)
@given(moves)
def test_while_it_is_open_due_never_moves_later_and_outcomes_count_once(
    history: list[tuple[float, str, str, Verdict | None]],
) -> None:
    """Whatever happens, in whatever order, and while the clock is set back now and then."""
    ladder = (Rung(0.3, "platform"), Rung(0.6, "security"))
    judged = {
        "open": OPEN,
        "claimed": CLAIMED,
        "waived": evaluation(violation(), waiver=WAIVER),
        "gone": evaluation(uid=""),
        "high": evaluation(violation(risk=Risk.HIGH), ownership=Ownership("none", "payments", ladder=ladder)),
    }
    life, now = Life(), T0
    life(now)
    for number, (days, what, holding, verdict) in enumerate(history):
        if verdict is not None:
            life.decide(verdict, now, f"d{number}", revision=life.stored.spec.revision if life.stored else 1)
        before = life.stored.status if life.stored else None
        assert before is not None
        now += timedelta(days=days)
        hold = None if holding == "none" else hold_of_policy(enforced=now if holding == "enforced" else None)
        after = life(now, judged[what], hold).status
        assert after is not None
        assert after.due is not None
        assert before.due is not None
        if after.opening == before.opening:
            assert after.due <= before.due
            assert after.detected == before.detected
            if before.decided is not None:
                assert (after.decided, after.decision) == (before.decided, before.decision)
            if before.due_outcome is not DueOutcome.PENDING:
                assert after.due_outcome is before.due_outcome
            assert after.accountable.step >= before.accountable.step
        else:
            assert after.opening == before.opening + 1
            assert after.debt.renewals >= before.debt.renewals
            assert after.debt.exempt_seconds >= before.debt.exempt_seconds
        if life.last.act is not None and not life.last.by_person:  # a person's waits for no instant
            assert after.enforce_not_before is not None
            assert now >= after.enforce_not_before
