"""What judgements tell the metrics: reviews by state, moved by time alone; the ends of credentials and exceptions."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from tenure.api.exception import IdentityExceptionStatus, MatchedTarget
from tenure.api.names import ExceptionClass, ExceptionPhase, IdentityClass, Risk
from tenure.model.keys import Key
from tenure.model.records import Secret
from tenure.reconcile.tallies import Review, Tallies
from tenure.telemetry.metrics import Metrics
from tenure.telemetry.observed import CredentialEnd, ExceptionEnd, Nothing
from tests.unit.rules.world import BEGIN, DAY, NOW, World


class Told(Metrics):
    """Metrics that remember what ends they were told of."""

    def __init__(self) -> None:
        super().__init__(observed=Nothing())
        self.ends: dict[str, CredentialEnd | ExceptionEnd | None] = {}

    def end(self, key: Key, end: CredentialEnd | ExceptionEnd | None) -> None:
        super().end(key, end)
        self.ends[key.name] = end


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


def test_a_credentials_end_is_told_with_who_has_to_see_to_it() -> None:
    world, told = World(), Told()
    tallies, end = Tallies(world.store, told), NOW + 3 * DAY
    tls = {"type": "kubernetes.io/tls", "keys": ("tls.crt", "tls.key")}
    unowned = world.secret("old-tls", expires=end, **tls)
    world.secret("config", keys=("a",), expires=end)
    world.secret("endless-tls", **tls)
    for name in ("old-tls", "config", "endless-tls"):
        tallies.subject(world.judge(Key("Secret", unowned.namespace, name)))
    assert told.ends == {
        "old-tls": CredentialEnd("TLS", IdentityClass.WORKLOAD, Risk.MEDIUM, "", end),
        "config": None,  # no credential
        "endless-tls": None,
    }
    world.owner()
    world.claim("all")
    tallies.subject(world.judge(unowned))
    found = told.ends["old-tls"]
    assert isinstance(found, CredentialEnd)
    assert found.owner == "payments"
    tallies.subject(replace(world.judge(unowned), exists=False))
    assert told.ends["old-tls"] is None
    world.namespace("ingress")
    tallies.subject(world.judge(world.secret("theirs", ns="ingress", expires=end, **tls)))
    platforms = told.ends["theirs"]
    assert isinstance(platforms, CredentialEnd)
    assert platforms.class_ is IdentityClass.PLATFORM


def test_an_exceptions_end_is_told_while_it_is_active() -> None:
    world, told = World(), Told()
    tallies = Tallies(world.store, told)
    world.owner()
    world.account("ci")
    token = world.token("ci-token")

    def active(*targets: Secret) -> IdentityExceptionStatus:
        matched = tuple(MatchedTarget(kind="Secret", name=target.name, uid=target.uid) for target in targets)
        return IdentityExceptionStatus(
            observed_generation=1, phase=ExceptionPhase.ACTIVE, active_since=NOW - DAY, matched=matched
        )

    waiver = world.exception(status=active(token))
    pending = world.exception("pending")
    for record in (waiver, pending):
        tallies.subject(world.judge(record))
    end = waiver.spec.expires_at
    assert told.ends["pending"] is None
    assert told.ends["waiver"] == ExceptionEnd(ExceptionClass.ACCEPTED_RISK, Risk.MEDIUM, "payments", True, end)
    config = world.secret("config", keys=("a",))
    idle = {"kind": "Secret", "name": "config"}
    tallies.subject(world.judge(world.exception("idle", idle, status=active(config))))
    assert told.ends["idle"] == ExceptionEnd(ExceptionClass.ACCEPTED_RISK, Risk.MEDIUM, "payments", False, end)
    tallies.subject(world.judge(waiver, end))
    assert told.ends["waiver"] is None
