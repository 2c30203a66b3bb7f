"""When what findings want comes to revocation."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tenure.api.names import OnDeadline, Risk, Rule, Verdict
from tenure.decide.terms import Terms
from tenure.decide.wish import Wish
from tests.unit.decide.life import DAY, TERMS, at

FOLLOWS = replace(TERMS, revoke_after=14 * DAY)
REVOKES = replace(TERMS, on_deadline=OnDeadline.REVOKE)


def wish(terms: Terms, **more: object) -> Wish:
    return Wish("f", Rule.UNOWNED, Risk.HIGH, Verdict.QUARANTINE, at(10), 1, terms, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("terms", "after"), [(TERMS, None), (FOLLOWS, 14 * DAY), (REVOKES, timedelta(0))], ids=["none", "later", "at once"]
)
def test_the_policys_act_is_followed_by_what_the_policy_says(terms: Terms, after: timedelta | None) -> None:
    found = wish(terms)
    assert found.revoke_at(at(10)) == (at(10) + after if after is not None else None)
    assert found.revokes is (after is not None)


@pytest.mark.parametrize("terms", [TERMS, FOLLOWS, REVOKES])
def test_a_person_who_quarantines_has_decided_against_revocation(terms: Terms) -> None:
    found = wish(terms, by_person=True)
    assert (found.revoke_at(at(2)), found.revokes) == (None, False)


def test_a_persons_revoke_is_due_from_when_it_was_given() -> None:
    assert wish(TERMS, by_person=True, revoke=at(3)).revoke_at(at(4)) == at(3)
    assert wish(FOLLOWS, revoke=at(12)).revoke_at(at(10)) == at(12), "sooner than the policy would"
    assert wish(TERMS, revoke=at(12)).revokes
