"""Reviews: when they fall due, what attests, and the rule about those that nobody did."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tenure.api.decision import DecisionOutcome, DecisionReason
from tenure.api.names import Risk
from tenure.rules.approvals import REVIEW_AFTER_FORCE
from tests.unit.rules.world import DAY, NOW, World, rules_of, violation

HALF_YEAR = {"review": {"interval": "180d"}}


@pytest.fixture
def world() -> World:
    world = World()
    world.owner()
    world.account()
    return world


class TestClaims:
    def test_without_an_interval_there_is_no_review(self, world: World) -> None:
        assert world.judge(world.claim()).review_due is None

    def test_its_own_interval_counts_before_the_policys_first_that_matches_its_class(self, world: World) -> None:
        reviews = [{"classes": ["Agent"], "interval": "90d"}, {"interval": "365d"}]
        world.policy("p", {"reviews": reviews})
        changed = NOW - 10 * DAY
        claim = world.claim(spec_changed=changed)
        assert world.judge(claim).review_due == changed + 365 * DAY
        agent = world.claim(spec={"class": "Agent"}, spec_changed=changed)
        assert world.judge(agent).review_due == changed + 90 * DAY
        own = world.claim(spec=HALF_YEAR, spec_changed=changed)
        judged = world.judge(own)
        assert judged.review_due == judged.next_change == changed + 180 * DAY

    def test_overdue_it_is_a_finding_of_low_risk_from_its_date_on(self, world: World) -> None:
        claim = world.claim(spec=HALF_YEAR, spec_changed=NOW - 180 * DAY)
        judged = world.judge(claim)
        assert rules_of(judged) == ["ReviewOverdue"]
        found = violation(judged, "ReviewOverdue")
        assert (found.observable, found.risk.level) == (NOW, Risk.LOW)
        assert "never attested" in found.message
        assert rules_of(world.judge(claim, NOW - DAY)) == []

    def test_an_attestation_starts_the_interval_anew(self, world: World) -> None:
        claim = world.claim(spec=HALF_YEAR, spec_changed=NOW - 200 * DAY)
        attest = world.decision(claim, "Attest", at=NOW - DAY)
        judged = world.judge(claim)
        assert (judged.attested, judged.attested_by) == (NOW - DAY, "bob@example.com")
        assert judged.review_due == NOW + 179 * DAY
        assert judged.rulings[attest.name].reason is DecisionReason.ATTESTED
        assert rules_of(judged) == []

    def test_the_right_to_attest_another_kind_attests_nothing(self, world: World) -> None:
        """Admission asked for the verb on the kind that the decision names."""
        spec = {"reviewBy": (NOW - DAY).isoformat()}
        claim = world.claim("same", spec=HALF_YEAR, spec_changed=NOW - 200 * DAY)
        waiver = world.exception("same", spec=spec, spec_changed=NOW - 9 * DAY)
        world.decision(waiver, at=NOW - 9 * DAY)
        for about, other in ((claim, "IdentityException"), (waiver, "OwnedIdentity")):
            world.decision(replace(about, kind=other), "Attest", at=NOW - DAY)
            judged = world.judge(about)
            assert judged.attested is None
            assert rules_of(judged) == ["ReviewOverdue"]

    def test_one_of_an_earlier_generation_is_void(self, world: World) -> None:
        claim = world.claim(spec=HALF_YEAR, spec_changed=NOW - 200 * DAY, generation=2)
        attest = world.decision(claim, "Attest", generation=1, at=NOW - DAY)
        judged = world.judge(claim)
        assert judged.rulings[attest.name].reason is DecisionReason.STALE_TARGET
        assert rules_of(judged) == ["ReviewOverdue"]

    def test_it_is_asked_only_where_there_is_something_to_decide(self, world: World) -> None:
        nothing = world.claim(
            subjects={"serviceAccounts": {"names": ["gone"]}}, spec=HALF_YEAR, spec_changed=NOW - 200 * DAY
        )
        assert world.judge(nothing).review_due is None
        spec = {**HALF_YEAR, "expiresAt": NOW.isoformat()}
        ended = world.claim("ended", spec=spec, spec_changed=NOW - 200 * DAY)
        judged = world.judge(ended)
        assert (judged.review_due, rules_of(judged)) == (None, ["OwnershipExpired"])
        late = world.decision(ended, "Attest")
        assert world.judge(ended).rulings[late.name].reason is DecisionReason.ALREADY_DECIDED


class TestExceptions:
    def approved(self, world: World, **spec: Any) -> Any:
        world.token()
        record = world.exception(spec=spec)
        world.decision(record, at=NOW - DAY / 2)
        return record

    def test_it_is_due_at_its_date_while_it_is_active(self, world: World) -> None:
        record = self.approved(world, reviewBy=(NOW + DAY).isoformat())
        judged = world.judge(record)
        assert judged.review_due == judged.next_change == NOW + DAY
        assert rules_of(world.judge(record, NOW + DAY)) == ["ReviewOverdue"]
        assert rules_of(world.judge(record, record.spec.expires_at)) == ["ExceptionLapsed"]
        pending = world.exception("pending", spec={"reviewBy": NOW.isoformat()})
        assert (world.judge(pending).review_due, rules_of(world.judge(pending))) == (None, [])

    def test_an_attestation_of_the_present_spec_is_enough(self, world: World) -> None:
        record = self.approved(world, reviewBy=(NOW - DAY / 4).isoformat())
        assert rules_of(world.judge(record)) == ["ReviewOverdue"]
        attest = world.decision(record, "Attest", at=NOW)
        judged = world.judge(record)
        assert judged.standing is not None
        assert judged.standing.rulings[attest.name].outcome is DecisionOutcome.COUNTED
        assert (judged.review_due, judged.attested, rules_of(judged)) == (None, NOW, [])

    def test_a_forced_one_is_reviewed_within_seven_days_by_whoever_comes_after(self, world: World) -> None:
        world.token()
        record = world.exception(spec={"reviewBy": (NOW + 20 * DAY).isoformat()})
        world.decision(record, at=NOW - DAY / 2)
        before = world.decision(record, "Attest", at=NOW - DAY / 4)
        world.decision(record, by="sam@example.com", verb="force", at=NOW)
        judged = world.judge(record)
        assert judged.standing is not None
        assert judged.standing.rulings[before.name].outcome is DecisionOutcome.COUNTED
        assert judged.review_due == NOW + REVIEW_AFTER_FORCE
        overdue = world.judge(record, NOW + REVIEW_AFTER_FORCE)
        assert rules_of(overdue) == ["ReviewOverdue"]
        world.decision(record, "Attest", at=NOW + REVIEW_AFTER_FORCE)
        assert rules_of(world.judge(record, NOW + REVIEW_AFTER_FORCE)) == []

    def test_there_is_nothing_to_attest_before_it_is_active(self, world: World) -> None:
        record = world.exception()
        early = world.decision(record, "Attest", at=NOW - DAY / 2)
        judged = world.judge(record).standing
        assert judged is not None
        assert judged.rulings[early.name].outcome is DecisionOutcome.UNDECIDED
        world.decision(record, at=NOW - DAY / 4)
        judged = world.judge(record).standing
        assert judged is not None
        assert judged.rulings[early.name].reason is DecisionReason.NOT_ASKED

    def test_an_edit_takes_the_attestation_away(self, world: World) -> None:
        record = self.approved(world, reviewBy=(NOW - DAY / 4).isoformat())
        world.decision(record, "Attest", at=NOW)
        edited = world.put("IdentityException", replace(record, generation=2, spec_changed=NOW, resource_version="900"))
        world.decision(edited, at=NOW)
        assert rules_of(world.judge(edited)) == ["ReviewOverdue"]
