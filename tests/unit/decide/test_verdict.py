"""Verdicts by people: which count, for what, and what those that do not are told."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tenure.api.decision import IdentityDecisionSpec
from tenure.api.names import DecisionSource, DueOutcome, Mode, OnDeadline, Phase, Risk, Verdict
from tenure.api.quarantine import QuarantineSpec
from tenure.decide.hold import Hold, Quarantine
from tenure.decide.verdict import gone, releases
from tenure.model.evaluation import Decision
from tenure.model.keys import Key
from tenure.model.records import Authored
from tests.unit.decide.life import CLAIMED, OPEN, T0, TERMS, WAIVER, Life, at, evaluation, hold_of_policy, violation

COUNTED = ("Counted", "Enforced")
DECIDED = ("Void", "AlreadyDecided")


def opened(**terms: object) -> Life:
    life = Life(replace(TERMS, **terms))  # type: ignore[arg-type]
    life(T0)
    return life


def begun(when: float, **more: object) -> Hold:
    return Hold("Quarantine/q", Verdict.QUARANTINE, at(when), **more)  # type: ignore[arg-type]


def decision(life: Life) -> tuple[DecisionSource, str, str, str, bool]:
    found = life.status.decision
    assert found is not None
    return (found.source, found.verdict, found.by, found.reference, found.late)


def blocked(life: Life) -> list[str]:
    return [c.reason for c in life.status.conditions if c.type == "Blocked"]


def test_a_verdict_decides_at_once_with_the_api_servers_stamp() -> None:
    life = opened(not_before=at(300))
    life.decide(Verdict.QUARANTINE, at(2))
    life(at(3))
    assert (life.status.decided, life.status.due_outcome) == (at(2), DueOutcome.MET)
    assert decision(life) == (DecisionSource.VERDICT, "Quarantine", "bob", "IdentityDecision/d1", False)
    assert life.last.act is Verdict.QUARANTINE, "neither the deadline nor the adoption grace is waited for"
    assert life.last.by_person
    assert life.status.enforce_not_before == at(2)
    assert life.said() == COUNTED
    life(at(3), hold=begun(3, enforced=at(3.1), verified=at(3.1)))
    assert life.status.phase is Phase.QUARANTINED
    assert [(a.verdict, a.decided, a.started) for a in life.status.acts] == [(Verdict.QUARANTINE, at(2), at(3))]
    said = life.decisions["d1"].status
    assert said is not None
    assert (said.effect, said.late, said.deadline) == ("Quarantine/q", False, at(10))


def test_a_verdict_given_in_time_while_the_operator_was_down_beats_the_policys_act() -> None:
    life = opened()
    life.decide(Verdict.QUARANTINE, at(9.5))
    life(at(12))
    assert decision(life)[0] is DecisionSource.VERDICT
    assert (life.status.decided, life.status.due_outcome) == (at(9.5), DueOutcome.MET)


def test_a_verdict_in_the_very_second_of_detection_counts_from_its_stamp_also_after_an_outage() -> None:
    life = Life()
    life(T0 + timedelta(milliseconds=700))
    life.decide(Verdict.QUARANTINE, T0 + timedelta(milliseconds=900))
    life(at(12))
    assert (life.status.decided, life.status.due_outcome) == (T0, DueOutcome.MET)


def test_a_verdict_after_the_deadline_and_before_the_act_wins_and_is_late() -> None:
    life = opened()
    life(at(10.5))
    life.decide(Verdict.QUARANTINE, at(11))
    life(at(11))
    assert decision(life) == (DecisionSource.VERDICT, "Quarantine", "bob", "IdentityDecision/d1", True)
    assert life.status.due_outcome is DueOutcome.MISSED
    said = life.decisions["d1"].status
    assert said is not None
    assert said.late


def test_a_verdict_after_the_policys_act_began_does_nothing_and_is_told_so() -> None:
    life = opened()
    life.decide(Verdict.QUARANTINE, at(10.2))
    life(at(10.3), hold=hold_of_policy())
    assert decision(life)[0] is DecisionSource.POLICY
    assert life.said() == DECIDED


@pytest.mark.parametrize("held", ["Suspended", "EnforcementOff", "PolicyConflict", "PlatformNamespace", "Unreadable"])
def test_what_holds_the_policys_acts_holds_a_persons_too(held: str) -> None:
    life = opened(held=held)
    life.decide(Verdict.REVOKE, at(2))
    life(at(2))
    assert (life.last.act, life.last.wants, blocked(life)) == (None, False, [held])
    assert life.status.decided == at(2), "decided is not the same as done"
    said = life.decisions["d1"].status
    assert said is not None
    assert held in said.message


def test_in_audit_mode_a_verdict_waits_and_says_so_until_the_policy_enforces() -> None:
    life = opened(mode=Mode.AUDIT, on_deadline=OnDeadline.NOTHING)
    life.decide(Verdict.QUARANTINE, at(2))
    life(at(2))
    assert (life.last.act, blocked(life), life.status.enforce_not_before) == (None, ["Audit"], None)
    life.terms = replace(life.terms, mode=Mode.ENFORCE)
    life(at(40))
    assert (life.last.act, blocked(life)) == (Verdict.QUARANTINE, [])


def test_a_revoke_after_a_quarantine_escalates_and_the_first_remains_what_decided() -> None:
    life = opened()
    life.decide(Verdict.QUARANTINE, at(1))
    life(at(1))
    life(at(1.1), hold=begun(1.1, enforced=at(1.2), verified=at(1.2)))
    life.decide(Verdict.REVOKE, at(2), "d2", by="rita")
    life(at(2), hold=begun(1.1, enforced=at(1.2), verified=at(1.2)))
    assert life.last.revoke == at(2)
    assert decision(life)[1:4] == ("Quarantine", "bob", "IdentityDecision/d1")
    assert life.said("d2") == COUNTED


def test_a_persons_revoke_of_what_the_policy_quarantined() -> None:
    life = opened()
    life(at(10), hold=hold_of_policy(enforced=at(10)))
    life.decide(Verdict.REVOKE, at(12))
    life(at(12), hold=hold_of_policy(enforced=at(10)))
    assert life.last.revoke == at(12)
    assert decision(life)[0] is DecisionSource.POLICY
    assert not life.last.by_person


def test_of_several_the_first_counts_and_the_others_say_why_not() -> None:
    life = opened()
    life.decide(Verdict.REVOKE, at(1), "late-alphabet")
    life.decide(Verdict.QUARANTINE, at(2), "b")
    life.decide(Verdict.REVOKE, at(3), "c")
    life(at(4))
    assert (life.last.act, life.last.revoke) == (Verdict.REVOKE, at(1))
    assert life.said("late-alphabet") == COUNTED
    assert life.said("b") == DECIDED
    assert life.said("c") == DECIDED


def test_an_older_revision_is_stale_a_later_one_waits_and_none_is_decided_in_advance() -> None:
    life = opened()
    life.decide(Verdict.QUARANTINE, at(1), "old")
    life.decide(Verdict.QUARANTINE, at(1), "ahead", revision=3)
    high = evaluation(violation(risk=Risk.HIGH))
    life(at(2), high)
    assert life.status.decided is None
    assert life.said("old") == ("Void", "StaleTarget")
    assert life.said("ahead") == ("", "")
    life(at(3), evaluation(violation(risk=Risk.CRITICAL)))
    assert life.said("ahead") == ("Void", "StaleTarget")
    assert life.status.decided is None
    life.decide(Verdict.QUARANTINE, at(3), "seen", revision=3)
    life(at(3), evaluation(violation(risk=Risk.CRITICAL)))
    assert life.said("seen") == COUNTED


def test_a_verdict_about_a_namesake_that_is_gone_never_hits_the_new_one() -> None:
    life = opened()
    life.decide(Verdict.REVOKE, at(1))
    life(at(2), evaluation(violation(), uid="u2"))
    assert (life.status.decided, life.last.act, life.last.revoke) == (None, None, None)
    assert life.said() == ("Void", "StaleTarget")


def test_a_verdict_that_counted_is_not_undone_by_a_later_revision() -> None:
    life = opened(held="Suspended")
    life.decide(Verdict.QUARANTINE, at(1))
    life(at(1))
    life.decide(Verdict.REVOKE, at(1.5), "d2")
    life(at(1.5))
    life.terms = TERMS
    life(at(2), evaluation(violation(risk=Risk.HIGH)))
    assert (life.last.act, life.last.revoke) == (Verdict.REVOKE, at(1.5))


@pytest.mark.parametrize(
    ("state", "judged"), [("Resolved", CLAIMED), ("Excepted", evaluation(violation(), waiver=WAIVER))]
)
def test_what_is_decided_otherwise_needs_no_verdict(state: str, judged: object) -> None:
    life = opened()
    life.decide(Verdict.QUARANTINE, at(5))
    life(at(5), judged)  # type: ignore[arg-type]
    assert life.status.phase == state
    assert life.said() == DECIDED
    assert not life.last.wants


def test_a_claim_ends_a_persons_quarantine_as_it_ends_the_policys() -> None:
    life = opened()
    life.decide(Verdict.QUARANTINE, at(1))
    life(at(1), hold=begun(1, enforced=at(1), verified=at(1)))
    life(at(5), CLAIMED, begun(1, enforced=at(1), verified=at(1)))
    assert (life.status.phase, life.last.wants) == (Phase.RESOLVED, False)
    assert decision(life)[0] is DecisionSource.VERDICT


def test_after_a_release_the_earlier_verdict_does_not_act_again() -> None:
    life = opened()
    life.decide(Verdict.REVOKE, at(1))
    life(at(1), hold=begun(1, enforced=at(1), verified=at(1)))
    life(at(2), hold=begun(1, enforced=at(1), released=at(2), ending=True))
    assert (life.status.phase, life.status.decided, life.status.due) == (Phase.OPEN, None, at(12))
    life(at(2.1))
    assert (life.last.act, life.last.revoke, life.status.decided) == (None, None, None)
    life.decide(Verdict.QUARANTINE, at(2), "same-second")
    life.decide(Verdict.QUARANTINE, at(3), "anew")
    life(at(3))
    assert life.said("same-second") == DECIDED
    assert life.said("anew") == COUNTED
    assert life.status.decided == at(3)


def test_a_verdict_of_an_earlier_opening_says_nothing_about_this_one() -> None:
    life = opened()
    life(at(1), CLAIMED)
    life.decide(Verdict.QUARANTINE, at(2))
    life(at(30))
    assert life.status.decided is None
    assert life.said() == DECIDED


def test_findings_on_claims_and_exceptions_ask_for_no_verdict() -> None:
    life = Life(key=Key("OwnedIdentity", "payments", "all"))
    life(T0)
    life.decide(Verdict.QUARANTINE, at(1))
    life(at(1))
    assert life.said() == ("Void", "NotAsked")
    assert life.status.decided is None


def test_the_name_counts_as_well_as_the_uid() -> None:
    """The right was judged by name: a decision that names another finding's uid was not authorised for it."""
    life = opened()
    about = {"kind": "IdentityFinding", "name": "unowned-other", "uid": "f1", "revision": 1}
    spec = IdentityDecisionSpec.read({"target": about, "verdict": "Revoke", "reason": "tests", "by": "eve"})
    life.decisions["d1"] = Authored("IdentityDecision", "payments", "d1", "u", 1, "1", at(1), spec)
    life(at(1))
    assert (life.status.decided, life.last.act) == (None, None)
    assert life.said() == ("Void", "TargetGone")


def test_a_clock_that_is_set_back_moves_no_stamp_of_a_verdict() -> None:
    life = opened()
    life.decide(Verdict.QUARANTINE, at(2))
    life(at(3))
    stood = life.status
    for now in (at(1), T0 - timedelta(days=400), at(2.5)):
        life(now)
        assert life.status == stood
        assert life.said() == COUNTED


# --- releases, and what is gone


def quarantine(name: str = "q", uid: str = "q1") -> Quarantine:
    spec = QuarantineSpec.read({"subject": {"kind": "ServiceAccount", "name": "ci", "uid": "u1"}})
    return Authored("Quarantine", "payments", name, uid, 1, "1", at(1), spec)


def release(name: str = "r1", when: float = 2, **about: str) -> Decision:
    target = {"kind": "Quarantine", "name": "q", "uid": "q1", **about}
    spec = IdentityDecisionSpec.read({"target": target, "verdict": "Release", "reason": "tests", "by": "rita"})
    return Authored("IdentityDecision", "payments", name, f"uid-{name}", 1, "1", at(when), spec)


def test_the_first_release_of_this_very_quarantine_counts() -> None:
    found = releases([release("b", 3), release("a", 3), release("c", 4)], quarantine())
    assert found is not None
    assert found.name == "a"
    assert releases([release(uid="q2")], quarantine()) is None
    assert releases([release()], quarantine(name="another")) is None


def test_a_verdict_about_what_is_not_there_is_void() -> None:
    status = gone(release(), None)
    assert status is not None
    assert (status.outcome.value, status.reason) == ("Void", "TargetGone")
    assert gone(release(), quarantine()) is None
    assert gone(release(), quarantine(uid="q2")) is not None


def test_an_open_finding_with_no_verdict_has_nothing_to_say() -> None:
    life = opened()
    life(at(1), OPEN)
    assert not life.last.rulings
