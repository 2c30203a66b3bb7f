"""Reviews by state: told by judgements, moved by time alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from tenure.reconcile.tallies import Review, Tallies
from tenure.telemetry.metrics import Metrics
from tenure.telemetry.observed import Nothing
from tests.unit.rules.world import BEGIN, DAY, NOW, World


@pytest.mark.parametrize(
    ("interval", "left", "state"),
    [
        (100 * DAY, 10 * DAY + timedelta(seconds=1), "Scheduled"),
        (100 * DAY, 10 * DAY, "Due"),
        (365 * DAY, 15 * DAY, "Scheduled"),
        (365 * DAY, 14 * DAY, "Due"),
        (100 * DAY, timedelta(0), "Overdue"),
        (100 * DAY, -DAY, "Overdue"),
    ],
)
def test_a_review_is_due_in_the_last_tenth_and_at_most_two_weeks_before(
    interval: timedelta, left: timedelta, state: str
) -> None:
    assert Review(BEGIN, BEGIN + interval).state(BEGIN + interval - left) == state


def test_reviews_are_counted_as_they_stand_now_and_end_with_their_claim() -> None:
    world = World()
    claim = world.claim("all")
    tallies = Tallies(world.store, Metrics(observed=Nothing()))
    judged = replace(world.judge(claim), review_due=NOW + DAY, attested=NOW - 9 * DAY)

    def counted(now: datetime) -> dict[str, int]:
        return dict(tallies.reviews(now))

    tallies.subject(judged)
    assert counted(NOW - DAY) == {"Scheduled": 1}
    assert counted(NOW) == {"Due": 1}
    assert counted(NOW + DAY) == {"Overdue": 1}
    tallies.subject(replace(judged, review_due=None))
    assert counted(NOW) == {}
    tallies.subject(judged)
    tallies.subject(replace(judged, exists=False))
    assert counted(NOW) == {}
