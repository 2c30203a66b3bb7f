"""The ledger: what the status of each decision says, for good, and when a decision may go."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tenure.api.decision import IdentityDecisionStatus
from tenure.api.quarantine import QuarantineSpec
from tenure.reconcile.statuses import authored_status
from tenure.reconcile.verdicts import is_over
from tests.unit.rules.world import DAY, NOW, NS, World, key_of

HOUR = timedelta(hours=1)


@pytest.fixture
def world() -> World:
    world = World()
    world.owner()
    world.account()
    return world


def answered(world: World, record: Any, now: Any = NOW) -> Any:
    """The object with the status that the operator writes."""
    status, _ = authored_status(world.store, key_of(record), now, world.installation)
    kept = world.store.get(key_of(record))
    assert kept is not None
    version = str(int(kept.resource_version) + 1000)  # type: ignore[union-attr,arg-type]
    return world.put(record.kind, replace(kept, status=status, resource_version=version))  # type: ignore[type-var]


def said(world: World, decision: Any, now: Any = NOW) -> tuple[str, str, bool]:
    status: IdentityDecisionStatus = answered(world, decision, now).status
    return status.outcome.value, status.reason, status.late


class TestExceptions:
    def test_it_says_what_it_did_and_whether_in_time(self, world: World) -> None:
        token, record = world.token(), world.exception()
        world.finding(token, "LegacyToken", {"due": NOW.isoformat()})
        world.finding(token, "CredentialTooOld", {"due": (NOW - DAY).isoformat()})  # not what it is about
        intime = world.decision(record, at=NOW)
        status = answered(world, intime).status
        assert (status.outcome, status.reason, status.late) == ("Counted", "Approved", False)
        assert (status.deadline, status.effect) == (NOW, "IdentityException/waiver")
        late = world.decision(record, "Reject", at=NOW + timedelta(seconds=1))
        assert said(world, late, NOW + HOUR) == ("Counted", "Rejected", True)

    def test_what_it_says_is_for_good(self, world: World) -> None:
        record = world.exception()
        approval = answered(world, world.decision(record, at=NOW - HOUR))
        world.put("IdentityException", replace(record, generation=2, spec_changed=NOW, resource_version="2000"))
        assert answered(world, approval).status == approval.status
        assert world.judge(record).standing.phase == "Pending"  # type: ignore[union-attr]

    def test_a_target_not_seen_yet_is_waited_for_and_then_there_is_none(self, world: World) -> None:
        unseen = replace(world.exception("other"), name="unseen", uid="not-seen")
        decision = world.decision(unseen, at=NOW)
        status, again = authored_status(world.store, key_of(decision), NOW, world.installation)
        assert isinstance(status, IdentityDecisionStatus)
        assert (status.outcome, again) == ("", NOW + timedelta(seconds=60))
        assert said(world, decision, NOW + timedelta(seconds=60)) == ("Void", "TargetGone", False)

    def test_a_verdict_on_a_quarantine_that_is_not_there_is_void_for_good(self, world: World) -> None:
        spec = QuarantineSpec.read({"subject": {"kind": "ServiceAccount", "name": "ci", "uid": "u1"}})
        quarantine = replace(world.exception(), kind="Quarantine", name="q", uid="q1", spec=spec, status=None)
        made = answered(world, world.decision(quarantine, "Release"))
        assert (made.status.outcome, made.status.reason) == ("Void", "TargetGone")
        world.put("Quarantine", quarantine)  # one that comes later changes nothing of it
        assert answered(world, made).status == made.status

    def test_a_verdict_on_what_continues_a_quarantine_names_that_one(self, world: World) -> None:
        about = {"kind": "ServiceAccount", "name": "ci", "uid": "u1"}
        spec = QuarantineSpec.read({"subject": about, "continues": "q"})
        further = replace(world.exception(), kind="Quarantine", name="q-2", uid="q2", spec=spec, status=None)
        world.put("Quarantine", further)
        made = answered(world, world.decision(further, "Release"))
        assert (made.status.outcome, made.status.reason) == ("Void", "TargetGone")
        assert made.status.message == "q-2 goes with Quarantine q, of which it holds a part: decide on that one."

    def test_a_target_that_was_there_is_gone_at_once(self, world: World) -> None:
        record = world.exception()
        decision = world.decision(record)
        world.store.remove("IdentityException", NS, record.name)
        world.exception()  # a namesake
        assert said(world, decision) == ("Void", "TargetGone", False)


class TestReviews:
    def test_an_attestation_records_what_was_seen_and_the_review_it_was_for(self, world: World) -> None:
        world.token()
        world.role("view")
        world.bind("view")
        claim = world.claim(spec={"review": {"interval": "10d"}}, spec_changed=NOW - 11 * DAY)
        claim = answered(world, claim)
        assert claim.status.review_due == NOW - DAY
        [pending] = [found for found in claim.status.conditions if found.type == "DecisionPending"]
        assert pending.reason == "AwaitingReview"
        assert "`tenure attest ownedidentity/claim -n payments --reason …`" in pending.message
        status = answered(world, world.decision(claim, "Attest")).status
        assert (status.outcome, status.reason, status.late) == ("Counted", "Attested", True)
        assert status.deadline == NOW - DAY
        seen = status.attested
        assert (seen.generation, seen.service_accounts, seen.secrets, seen.entitlements) == (1, 1, 1, 1)
        assert seen.seen == ("ServiceAccount/ci", "Secret/ci-token", "RoleBinding/payments/view-ci")
        claim = answered(world, claim)
        assert (claim.status.attested, claim.status.attested_by) == (NOW, "bob@example.com")
        assert claim.status.review_due == NOW + 10 * DAY
        assert [found.type for found in claim.status.conditions] == ["Ready"]


class TestAccountability:
    def test_who_answers_and_since_when(self, world: World) -> None:
        world.owner("payments", {"backup": "platform"})
        world.owner("platform")
        claim = answered(world, world.claim(spec_changed=NOW - 9 * DAY))
        assert (claim.status.accountable, claim.status.accountable_since) == ("payments", NOW - 9 * DAY)
        assert answered(world, claim, NOW + DAY).status == claim.status
        world.owner("payments", {"backup": "platform", "suspended": True})
        claim = answered(world, claim, NOW + DAY)
        assert (claim.status.accountable, claim.status.accountable_since) == ("platform", NOW + DAY)


class TestVerdicts:
    """On findings and Quarantines, which decide.verdict answers: see tests/unit/decide/test_verdict.py."""

    def test_of_what_is_there_nothing_is_said_here(self, world: World) -> None:
        finding = world.finding(world.account(), "Unowned", {"phase": "Open"})
        verdict = world.decision(finding, "Quarantine")
        assert authored_status(world.store, key_of(verdict), NOW, world.installation)[0] is None

    def test_of_what_is_gone_it_is_void(self, world: World) -> None:
        finding = world.finding(world.account(), "Unowned", {"phase": "Open"})
        verdict = world.decision(finding, "Revoke")
        world.store.remove("IdentityFinding", NS, finding.name)
        assert said(world, verdict)[:2] == ("Void", "TargetGone")

    def test_what_was_said_of_it_stays(self, world: World) -> None:
        finding = world.finding(world.account(), "Unowned", {"phase": "Open"})
        verdict = taken_in(world, world.decision(finding, "Quarantine"))
        world.store.remove("IdentityFinding", NS, finding.name)
        assert said(world, verdict)[:2] == ("Counted", "Enforced")


def taken_in(world: World, verdict: Any) -> Any:
    """The verdict once its finding's act has begun."""
    status = IdentityDecisionStatus.read({"observedGeneration": 1, "outcome": "Counted", "reason": "Enforced"})
    return world.put("IdentityDecision", replace(verdict, status=status, resource_version="800"))


class TestRetention:
    def over(self, world: World, decision: Any, now: Any) -> bool:
        return is_over(world.store, world.store.decisions[NS, decision.name], now, world.installation)

    def test_a_decision_goes_when_its_time_is_over_and_nothing_rests_on_it(self, world: World) -> None:
        record = world.exception()
        approval = answered(world, world.decision(record, at=NOW - HOUR))
        void = answered(world, world.decision(record, verb="approve-nobody", by="ann@example.com", at=NOW - HOUR))
        year = NOW + 400 * DAY
        assert not self.over(world, void, NOW)
        assert self.over(world, void, year)
        assert not self.over(world, approval, year)
        world.policy("p", {"retention": {"decisions": "1h"}})
        assert self.over(world, void, NOW)
        edited = replace(record, generation=2, spec_changed=NOW, resource_version="900")
        world.put("IdentityException", edited)
        assert self.over(world, approval, NOW)

    def test_one_that_was_not_taken_in_stays(self, world: World) -> None:
        world.policy("p", {"retention": {"decisions": "1s"}})
        assert not self.over(world, world.decision(world.exception(), at=NOW - DAY), NOW)

    def test_a_claims_last_attestation_stays_and_earlier_ones_go(self, world: World) -> None:
        world.policy("p", {"retention": {"decisions": "1s"}})
        claim = world.claim(spec_changed=NOW - 10 * DAY)
        first = answered(world, world.decision(claim, "Attest", at=NOW - 2 * DAY))
        second = answered(world, world.decision(claim, "Attest", at=NOW - DAY))
        answered(world, claim)
        assert self.over(world, first, NOW)
        assert not self.over(world, second, NOW)

    def test_what_a_finding_refers_to_stays(self, world: World) -> None:
        world.policy("p", {"retention": {"decisions": "1s"}})
        finding = world.finding(world.account(), "Unowned", {"phase": "Open"})
        verdict = world.decision(finding, "Quarantine", at=NOW - DAY)
        decided = {"verdict": "Quarantine", "source": "Verdict", "reference": f"IdentityDecision/{verdict.name}"}
        status = finding.status.read({"risk": {"level": "Low"}, "decision": decided})
        world.put("IdentityFinding", replace(finding, status=status, resource_version="900"))
        taken_in(world, verdict)
        assert not self.over(world, verdict, NOW)
        world.store.remove("IdentityFinding", NS, finding.name)
        assert self.over(world, verdict, NOW)
