"""What waivers cost: renewals and exempt time of a lineage, whatever became of the exceptions and the subject."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest

from tenure.api.names import DueOutcome, Phase, Verdict
from tenure.model.evaluation import Evaluation, Ownership, Waiver
from tenure.model.keys import Key
from tests.unit.decide.life import CLAIMED, OPEN, T0, TERMS, Life, at, evaluation, hold_of_policy, violation

DAY = 86_400


def waived(until: float, name: str = "w", since: float = 2, **given: object) -> Evaluation:
    waiver = Waiver(Key("IdentityException", "payments", name), "Migration", at(since), at(until), **given)  # type: ignore[arg-type]
    return evaluation(violation(), waiver=waiver)


def debt(life: Life) -> tuple[int, int, datetime | None, datetime | None]:
    owed = life.status.debt
    return (owed.renewals, owed.exempt_seconds, owed.since, owed.until)


def test_the_last_approval_decides_and_names_its_approver() -> None:
    life = Life()
    life(T0)
    life(at(3), waived(20, decided=at(2.5), by="bob", reference="IdentityDecision/approve-1"))
    found = life.status.decision
    assert found is not None
    assert (life.status.decided, found.by, found.reference) == (at(2.5), "bob", "IdentityException/w")
    assert debt(life) == (0, 0, at(2.5), at(20))


def test_an_approval_given_in_time_while_the_operator_was_down_beats_the_deadline() -> None:
    life = Life()
    life(T0)
    life(at(12), waived(20, since=12, decided=at(9)))
    assert (life.status.phase, life.status.decided, life.status.due_outcome) == (Phase.EXCEPTED, at(9), DueOutcome.MET)
    assert life.last.act is None


def test_a_later_end_is_a_renewal_and_an_earlier_one_is_none() -> None:
    life = Life()
    life(T0)
    life(at(3), waived(20))
    life(at(4), waived(15))
    assert debt(life) == (0, 0, at(2), at(20)), "the furthest end that was granted stays"
    life(at(5), waived(19))
    life(at(6), waived(25))
    assert debt(life) == (1, 0, at(2), at(25))


def test_deleting_an_exception_and_making_it_again_under_another_name_is_a_renewal() -> None:
    life = Life()
    life(T0)
    life(at(2), waived(10))
    life(at(4), OPEN)
    assert debt(life) == (0, 2 * DAY, None, at(10))
    life(at(5), waived(30, name="quite-another", since=5))
    assert debt(life) == (1, 2 * DAY, at(5), at(30))


def test_the_debt_survives_a_claim_and_the_end_of_it() -> None:
    life = Life()
    life(T0)
    life(at(2), waived(10))
    life(at(6), CLAIMED)
    assert (life.status.phase, debt(life)) == (Phase.RESOLVED, (0, 4 * DAY, None, at(10)))
    life(at(7), waived(12, since=7))
    assert debt(life) == (1, 4 * DAY, at(7), at(12))
    life(at(9), evaluation(uid=""))
    assert debt(life) == (1, 6 * DAY, None, at(12))


def test_a_namesake_of_the_subject_inherits_the_debt() -> None:
    life = Life()
    life(T0)
    life(at(2), waived(10))
    life(at(3), evaluation(uid=""))
    life(at(4), replace(waived(11, since=4), uid="u2"))
    assert debt(life) == (1, 1 * DAY, at(4), at(11))


def test_exempt_time_that_ended_while_nobody_looked_ends_with_the_waiver() -> None:
    life = Life()
    life(T0)
    life(at(2), waived(10))
    life(at(30), OPEN)
    assert debt(life)[1] == 8 * DAY


def test_exempt_time_ends_once_also_when_a_person_releases_what_was_waived() -> None:
    life = Life()
    life(T0)
    life(at(10), hold=hold_of_policy(enforced=at(10)))
    life(at(12), waived(20, since=12), hold_of_policy(enforced=at(10)))
    life(at(13), waived(20, since=12), hold_of_policy(enforced=at(10), released=at(13), ending=True))
    assert (life.status.phase, debt(life)[1]) == (Phase.EXCEPTED, 1 * DAY)
    life(at(15), OPEN)
    assert debt(life)[1] == 3 * DAY


@pytest.mark.parametrize(("restart", "due"), [(False, 28), (True, 30)])
def test_what_lapses_goes_on_with_the_clock_the_policy_chose(restart: bool, due: float) -> None:
    life = Life(replace(TERMS, restart_on_lapse=restart))
    life(T0)
    life(at(2), waived(20))
    life(at(20), OPEN)
    assert (life.status.phase, life.status.due) == (Phase.OPEN, at(due))


def test_claiming_and_unclaiming_or_deleting_and_making_again_restarts_no_clock() -> None:
    life = Life()
    life(T0)
    again = replace(CLAIMED, ownership=Ownership("declared", "payments", claim=CLAIMED.ownership.claim))
    spent = 0.0
    for start, end in ((0, 4), (5, 7), (8, 11)):
        if start:
            life(at(start), OPEN)
        life(at(end), again if end != 7 else evaluation(uid=""))
        spent += end - start
    life(at(20), OPEN)
    assert spent == 9
    assert life.status.due == at(21), "nine of ten days are used; a tenth is always left"


def test_a_waiver_after_a_verdict_ends_what_the_verdict_wanted() -> None:
    life = Life()
    life(T0)
    life.decide(Verdict.QUARANTINE, at(1))
    life(at(1))
    life(at(3), waived(20))
    assert (life.status.phase, life.last.wants, life.status.decided) == (Phase.EXCEPTED, False, at(1))
    life(at(20), OPEN)
    assert (life.status.phase, life.status.decided, life.last.act) == (Phase.OPEN, None, None)
