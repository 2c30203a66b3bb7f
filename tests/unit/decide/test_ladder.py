"""Who is accountable for what nobody decides: each step once, whatever happens to clock, operator and owner."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

from tenure.api.finding import ESCALATION
from tenure.api.names import Mode, Phase, Verdict
from tenure.decide.hold import Hold
from tenure.model.evaluation import Evaluation, Evidence, Ownership, RiskGrade, Rung
from tests.unit.decide.life import CLAIMED, T0, TERMS, WAIVER, Life, at, evaluation, hold_of_policy, violation

LADDER = (Rung(0.5, "platform", "Chat #platform"), Rung(0.8, "security"))
OWNED = Ownership("none", "payments", contact="Email payments@example.com", ladder=LADDER)
JUDGED = evaluation(violation(), ownership=OWNED)


def steps(life: Life) -> list[tuple[str, object]]:
    """The history as the evidence tells it: the words and the instant of each step."""
    return [(e.detail, e.since) for e in life.status.evidence if e.source == ESCALATION]


def accountable(life: Life) -> tuple[str, object, int]:
    return (life.status.accountable.owner, life.status.accountable.since, life.status.accountable.step)


def pending(life: Life) -> str:
    return next(c.message for c in life.status.conditions if c.type == "DecisionPending")


def test_accountability_climbs_at_the_shares_of_the_decision_time() -> None:
    life = Life()
    life(T0, JUDGED)
    assert accountable(life) == ("payments", T0, 0)
    assert life.last.next == at(5)
    life(at(5), JUDGED)
    assert accountable(life) == ("platform", at(5), 1)
    assert life.last.next == at(8)
    life(at(9), JUDGED)
    assert accountable(life) == ("security", at(8), 2), "since the instant of the step, not since it was noticed"
    assert steps(life) == [
        ("step 1 at 50% of the time: platform", at(5)),
        ("step 2 at 80% of the time: security", at(8)),
    ]
    assert life.status.due == at(10), "no step moves the deadline"


def test_the_condition_says_who_is_accountable_and_how_to_decide() -> None:
    life = Life()
    life(T0, JUDGED)
    assert "payments (Email payments@example.com) is accountable" in pending(life)
    assert "tenure quarantine identityfinding/unowned-" in pending(life)
    life(at(5), JUDGED)
    assert "platform (Chat #platform) is accountable" in pending(life)
    life(at(6), replace(JUDGED, ownership=Ownership("none")))
    assert "nobody is accountable" in pending(life)


def test_steps_that_passed_while_nobody_looked_are_taken_at_once_and_each_is_told() -> None:
    life = Life()
    life(T0, JUDGED)
    life(at(9.5), JUDGED)
    assert accountable(life) == ("security", at(8), 2)
    assert [since for _, since in steps(life)] == [at(5), at(8)]


def test_at_the_deadline_the_history_stands_in_the_evidence() -> None:
    life = Life()
    life(T0, JUDGED)
    life(at(10), JUDGED)
    assert life.last.act is Verdict.QUARANTINE
    life(at(10.1), JUDGED, hold_of_policy(enforced=at(10.1)))
    assert life.status.phase is Phase.QUARANTINED
    assert [since for _, since in steps(life)] == [at(5), at(8)]
    assert accountable(life) == ("security", at(8), 2)


def test_a_decided_finding_climbs_no_further() -> None:
    life = Life()
    life(T0, JUDGED)
    life(at(5), JUDGED)
    life.decide(Verdict.QUARANTINE, at(6))
    life(at(6), JUDGED)
    life(at(9), JUDGED, Hold("Quarantine/q", Verdict.QUARANTINE, at(6)))
    assert accountable(life) == ("platform", at(5), 1)
    assert life.last.next is None or life.last.next > at(9)


def test_a_verdict_made_before_a_step_leaves_none_to_take_after_an_outage() -> None:
    life = Life()
    life(T0, JUDGED)
    life.decide(Verdict.QUARANTINE, at(4))
    life(at(9), JUDGED)
    assert accountable(life) == ("payments", T0, 0)
    assert steps(life) == []


def test_a_new_opening_begins_at_the_first_rung() -> None:
    life = Life()
    life(T0, JUDGED)
    life(at(6), JUDGED)
    life(at(6.5), CLAIMED)
    life(at(20), JUDGED)
    assert accountable(life) == ("payments", at(20), 0)
    assert steps(life) == []
    life(at(23), JUDGED)
    assert accountable(life) == ("platform", at(23), 1), "half of the six days that were left"


def test_a_waiver_keeps_the_steps_and_its_end_begins_anew() -> None:
    life = Life()
    life(T0, JUDGED)
    life(at(5), JUDGED)
    life(at(6), replace(JUDGED, waivers=evaluation(waiver=WAIVER).waivers))
    assert accountable(life) == ("platform", at(5), 1)
    life(at(20), JUDGED)
    assert accountable(life) == ("payments", at(20), 0)


def test_another_owners_ladder_takes_no_step_a_second_time() -> None:
    life = Life()
    life(T0, JUDGED)
    life(at(9), JUDGED)
    other = evaluation(violation(), ownership=Ownership("none", "web", ladder=(Rung(0.95, "ops"),)))
    life(at(9.1), other)
    assert accountable(life) == ("web", at(9.1), 2)
    life(at(9.6), other)
    assert accountable(life) == ("ops", at(9.6), 2)
    assert len(steps(life)) == 2


def test_a_clock_that_is_set_back_takes_nothing_back_and_repeats_nothing() -> None:
    life = Life()
    life(T0, JUDGED)
    life(at(8), JUDGED)
    stood = life.status
    for now in (at(1), T0 - timedelta(days=400), at(7.9), at(8)):
        life(now, JUDGED)
        assert life.status == stood


def test_a_clock_that_jumps_far_ahead_stamps_once_and_stays_so_when_it_comes_back() -> None:
    life = Life(replace(TERMS, mode=Mode.AUDIT))
    life(T0, JUDGED)
    life(at(4000), JUDGED)
    stood = life.status
    assert accountable(life) == ("security", at(8), 2)
    assert stood.due == at(10)
    for now in (at(1), at(4000), at(9)):
        life(now, JUDGED)
        assert life.status == stood


def test_the_history_survives_a_finding_that_has_to_be_cut() -> None:
    rungs = tuple(Rung(n / 10, f"owner-{n}-{'x' * 50}") for n in range(1, 9))
    risk = RiskGrade(violation().risk.level, tuple(f"bound to ClusterRole {'x' * 250}{n}" for n in range(20)))
    facts = tuple(Evidence("metadata", T0, "d" * 300) for _ in range(20))
    found = replace(violation(), message="m" * 900, risk=risk, evidence=facts)
    judged: Evaluation = replace(
        evaluation(found, ownership=Ownership("none", "o" * 63, ladder=rungs)),
        residual=tuple("r" * 300 for _ in "12345678"),
    )
    life = Life()
    life(T0, judged)
    life(at(9), judged)
    life.decide(Verdict.QUARANTINE, at(9.9), "d" * 253, by="b" * 253)
    life(at(10), judged, hold_of_policy(enforced=at(10), error="e" * 500))
    assert life.status.decision is not None
    assert life.status.decision.reference == f"IdentityDecision/{'d' * 253}"
    assert [detail.split(":")[0] for detail, _ in steps(life)] == [
        f"step {n} at {n}0% of the time" for n in range(1, 9)
    ]
    assert len(life.status.evidence) <= 8
    assert life.stored is not None
    size = len(json.dumps({"spec": life.stored.spec.wire(), "status": life.status.wire()}))
    assert size < 3500
