"""What the decisions about an exception come to: places, authors, states, waits, vetoes and force."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import permutations
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tenure.api.decision import DecisionOutcome, DecisionReason, IdentityDecisionStatus
from tenure.api.exception import IdentityExceptionStatus
from tenure.api.names import ExceptionPhase
from tenure.api.policy import ApprovalRequirement
from tenure.model.evaluation import Standing
from tenure.model.records import Unprocessable
from tenure.rules import approvals, exceptions
from tenure.rules.approvals import _Places
from tests.unit.rules.world import BEGIN, DAY, NOW, World, active

HOUR = timedelta(hours=1)
STAMP = NOW - DAY
"""When the spec of `World.exception` was written."""

TEAM = [{"verb": "approve", "count": 1}]
BOTH = [{"verb": "approve", "count": 1}, {"verb": "approve-security", "count": 1}]
VETO = {"verb": "reject-security", "within": "12h"}


def asking(world: World, approvals: list[dict[str, Any]], **more: Any) -> None:
    """A policy that asks for these approvals."""
    classes = [{"class": "AcceptedRisk", "approvals": approvals, **more}]
    world.policy("default", {"exceptions": {"classes": classes}})


def standing(world: World, record: Any, now: datetime = NOW) -> Standing:
    found = world.judge(record, now).standing
    assert found is not None
    return found


def ruled(world: World, record: Any, decision: Any, now: datetime = NOW) -> tuple[DecisionOutcome, Any]:
    ruling = standing(world, record, now).rulings[decision.name]
    assert ruling.message
    return ruling.outcome, ruling.reason


COUNTED, VOID, UNDECIDED = DecisionOutcome.COUNTED, DecisionOutcome.VOID, DecisionOutcome.UNDECIDED


@pytest.fixture
def world() -> World:
    world = World()
    world.owner()
    world.account()
    return world


class TestFourPatterns:
    def test_the_team_alone(self, world: World) -> None:
        asking(world, TEAM)
        record = world.exception()
        assert standing(world, record).failing == "approvals: approve 0 of 1; missing approve"
        approval = world.decision(record, at=NOW - HOUR)
        found = standing(world, record)
        assert (found.phase, found.reason, found.failing) == (ExceptionPhase.ACTIVE, "Approved", "")
        assert (found.decided, found.decided_by) == (NOW - HOUR, "bob@example.com")
        assert (found.decision, found.approved, found.active_since) == (approval.name, NOW - HOUR, NOW - HOUR)
        assert [(c.verb, c.by, c.at) for c in found.counted] == [("approve", "bob@example.com", NOW - HOUR)]
        assert ruled(world, record, approval) == (COUNTED, DecisionReason.APPROVED)

    def test_the_team_decides_and_security_may_veto(self, world: World) -> None:
        asking(world, TEAM, veto=VETO)
        record = world.exception()
        world.decision(record, at=STAMP + HOUR)
        early = standing(world, record, STAMP + 2 * HOUR)
        assert (early.phase, early.reason) == (ExceptionPhase.PENDING, "Waiting")
        assert early.failing == "veto: reject-security may object until 2026-04-10T12:00:00Z"
        assert early.until == STAMP + 12 * HOUR
        later = standing(world, record, STAMP + 12 * HOUR)
        assert (later.phase, later.active_since) == (ExceptionPhase.ACTIVE, STAMP + 12 * HOUR)
        veto = world.decision(record, "Reject", "sam@example.com", verb="reject-security", at=STAMP + 3 * HOUR)
        found = standing(world, record)
        assert (found.phase, found.reason, found.until) == (ExceptionPhase.REJECTED, "Rejected", None)
        assert found.failing.startswith("sam@example.com rejected it with reject-security")
        assert ruled(world, record, veto) == (COUNTED, DecisionReason.REJECTED)

    def test_a_veto_after_its_time_has_no_effect_and_any_other_reject_always_has(self, world: World) -> None:
        asking(world, TEAM, veto=VETO)
        record = world.exception()
        world.decision(record, at=STAMP + HOUR)
        late = world.decision(record, "Reject", "sam@example.com", verb="reject-security", at=STAMP + 12 * HOUR)
        assert standing(world, record).phase is ExceptionPhase.ACTIVE
        assert ruled(world, record, late) == (VOID, DecisionReason.VETO_OVER)
        other = world.decision(record, "Reject", "bob@example.com", at=STAMP + 13 * HOUR)
        assert standing(world, record).phase is ExceptionPhase.WITHDRAWN
        assert ruled(world, record, other) == (COUNTED, DecisionReason.REJECTED)

    def test_both_must_approve_and_the_failing_clause_is_named(self, world: World) -> None:
        asking(world, BOTH)
        record = world.exception()
        world.decision(record, at=NOW - 2 * HOUR)
        found = standing(world, record)
        assert found.phase is ExceptionPhase.PENDING
        assert found.failing == "approvals: approve 1 of 1, approve-security 0 of 1; missing approve-security"
        assert (found.missing, found.approved, found.decided) == (("approve-security",), NOW - 2 * HOUR, None)
        last = world.decision(record, by="sam@example.com", verb="approve-security", at=NOW - HOUR)
        found = standing(world, record)
        assert (found.phase, found.decided, found.decision) == (ExceptionPhase.ACTIVE, NOW - HOUR, last.name)

    def test_security_may_force_and_the_review_falls_due_within_seven_days(self, world: World) -> None:
        asking(world, BOTH, veto=VETO, consult=[{"verb": "consult", "wait": "36h"}])
        record = world.exception(spec={"reviewBy": (NOW + 20 * DAY).isoformat()})
        force = world.decision(record, by="sam@example.com", verb="force", at=STAMP + HOUR)
        judged = world.judge(record, STAMP + HOUR)
        assert judged.standing is not None
        assert (judged.standing.phase, judged.standing.reason) == (ExceptionPhase.ACTIVE, "Forced")
        assert (judged.standing.forced, judged.standing.decision) == (STAMP + HOUR, force.name)
        assert judged.review_due == STAMP + HOUR + 7 * DAY
        assert ruled(world, record, force) == (COUNTED, DecisionReason.FORCED)
        reject = world.decision(record, "Reject", at=STAMP + 2 * HOUR)
        assert standing(world, record).phase is ExceptionPhase.WITHDRAWN
        assert ruled(world, record, reject) == (COUNTED, DecisionReason.REJECTED)


class TestUnknownPolicy:
    def test_none_becomes_active_by_other_terms_while_the_policys_are_unknown(self, world: World) -> None:
        """The defaults ask for one approval, and what became active once would stay so."""
        asking(world, BOTH)
        unread = Unprocessable("GovernancePolicy", "", "default", "uid-p", 1, "800", "spec.new: Extra inputs")
        rival = world.policy("rival")
        record = world.exception()
        world.decision(record, at=NOW - HOUR)
        found = standing(world, record)
        assert (found.phase, found.reason) == (ExceptionPhase.PENDING, "AwaitingPolicy")
        assert "default and rival" in found.failing
        world.store.remove("GovernancePolicy", "", rival.name)
        world.put("GovernancePolicy", unread)
        found = standing(world, record)
        assert (found.phase, found.reason) == (ExceptionPhase.PENDING, "AwaitingPolicy")
        assert "GovernancePolicy/default" in found.failing
        world.decision(record, by="sam@example.com", verb="force", at=NOW - HOUR)
        assert standing(world, record).phase is ExceptionPhase.ACTIVE

    def test_what_it_does_not_ask_for_is_not_void_for_good_before_it_is_known(self, world: World) -> None:
        asking(world, BOTH)
        world.policy("rival")
        record = world.exception()
        made = world.decision(record, by="sam@example.com", verb="approve-security", at=NOW - HOUR)
        assert ruled(world, record, made) == (UNDECIDED, None)
        world.store.remove("GovernancePolicy", "", "rival")
        assert ruled(world, record, made) == (COUNTED, DecisionReason.APPROVED)

    def test_what_was_active_stays_so(self, world: World) -> None:
        world.policy("default")
        world.policy("rival")
        record = world.exception()
        stood = active(record)
        kept = replace(record, status=stood, resource_version="900")
        world.put("IdentityException", kept)
        assert standing(world, kept).phase is ExceptionPhase.ACTIVE


class TestForce:
    def test_it_wins_at_the_same_second_and_over_an_earlier_veto(self, world: World) -> None:
        asking(world, TEAM, veto=VETO)
        record = world.exception()
        world.decision(record, "Reject", "ann@example.com", verb="reject-security", at=STAMP + HOUR, name="z-veto")
        assert standing(world, record).phase is ExceptionPhase.REJECTED
        world.decision(record, by="sam@example.com", verb="force", at=STAMP + HOUR, name="a-force")
        assert standing(world, record).phase is ExceptionPhase.ACTIVE
        world.decision(record, "Reject", "ann@example.com", at=STAMP + 2 * HOUR)
        assert standing(world, record).phase is ExceptionPhase.WITHDRAWN
        world.decision(record, by="sam@example.com", verb="force", at=STAMP + 3 * HOUR)
        assert standing(world, record).phase is ExceptionPhase.ACTIVE

    def test_the_longest_duration_and_the_end_bind_it(self, world: World) -> None:
        asking(world, TEAM)
        record = world.exception(spec={"expiresAt": (NOW + 200 * DAY).isoformat()})
        force = world.decision(record, by="sam@example.com", verb="force")
        found = standing(world, record)
        assert (found.phase, found.reason) == (ExceptionPhase.PENDING, "TooLong")
        assert ruled(world, record, force) == (UNDECIDED, None)
        short = world.exception("short", spec={"expiresAt": NOW.isoformat()})
        world.decision(short, by="sam@example.com", verb="force", at=NOW - HOUR)
        assert standing(world, short).phase is ExceptionPhase.EXPIRED

    def test_who_forced_it_does_not_review_that(self, world: World) -> None:
        asking(world, TEAM)
        record = world.exception()
        world.decision(record, by="sam@example.com", verb="force", at=STAMP + HOUR)
        own = world.decision(record, "Attest", "sam@example.com", at=STAMP + 2 * HOUR)
        assert ruled(world, record, own) == (VOID, DecisionReason.OWN_REQUEST)
        assert world.judge(record).review_due is not None
        team = world.decision(record, "Attest", "ann@example.com", at=STAMP + 3 * HOUR)
        assert ruled(world, record, team) == (COUNTED, DecisionReason.ATTESTED)
        assert world.judge(record).review_due is None

    def test_a_decision_that_nobody_knows_the_author_of_forces_nothing(self, world: World) -> None:
        asking(world, TEAM)
        record = world.exception()
        anonymous = world.decision(record, by=None, verb="force")
        assert ruled(world, record, anonymous) == (VOID, DecisionReason.OWN_REQUEST)
        assert standing(world, record).phase is ExceptionPhase.PENDING


class TestWhoseItIs:
    @pytest.mark.parametrize("verb", [None, "force", "consult"])
    @pytest.mark.parametrize("author", ["alice@example.com", "carol@example.com"])
    def test_nobody_approves_what_they_requested(self, world: World, author: str, verb: str | None) -> None:
        asking(world, TEAM, consult=[{"verb": "consult", "wait": "36h"}])
        record = world.exception(spec={"onBehalfOf": "carol@example.com"})
        own = world.decision(record, by=author, verb=verb)
        assert ruled(world, record, own) == (VOID, DecisionReason.OWN_REQUEST)
        assert standing(world, record).phase is ExceptionPhase.PENDING

    def test_nor_gives_an_opinion_on_it_but_may_take_it_back(self, world: World) -> None:
        asking(world, TEAM, consult=[{"verb": "consult", "wait": "36h"}])
        record = world.exception()
        opinion = world.decision(record, "Reject", "alice@example.com", verb="consult")
        assert ruled(world, record, opinion) == (VOID, DecisionReason.OWN_REQUEST)
        world.decision(record, "Reject", "alice@example.com")
        assert standing(world, record).phase is ExceptionPhase.REJECTED

    def test_a_request_without_an_author_cannot_be_approved(self, world: World) -> None:
        asking(world, TEAM)
        record = world.exception(spec={"requestedBy": None})
        approval = world.decision(record)
        assert standing(world, record).reason == "AwaitingRequester"
        assert ruled(world, record, approval) == (VOID, DecisionReason.OWN_REQUEST)

    def test_two_verbs_by_one_person_count_once(self, world: World) -> None:
        asking(world, BOTH)
        record = world.exception()
        first = world.decision(record, at=NOW - 3 * HOUR)
        second = world.decision(record, verb="approve-security", at=NOW - 2 * HOUR)
        assert standing(world, record).phase is ExceptionPhase.PENDING
        assert ruled(world, record, first) == (COUNTED, DecisionReason.APPROVED)
        assert ruled(world, record, second) == (UNDECIDED, None)
        world.decision(record, by="sam@example.com", verb="approve-security", at=NOW - HOUR)
        assert standing(world, record).phase is ExceptionPhase.ACTIVE
        assert ruled(world, record, second) == (VOID, DecisionReason.NOT_ASKED)

    def test_a_later_one_of_the_same_second_pushes_nobody_from_their_place(self, world: World) -> None:
        asking(world, TEAM)
        record = world.exception()
        first = world.decision(record, name="yes")
        status = IdentityDecisionStatus(outcome=COUNTED, reason="Approved", message="it was")
        world.put("IdentityDecision", replace(first, status=status, resource_version="901"))
        second = world.decision(record, by="ann@example.com", name="also")
        assert standing(world, record).decision == "yes"
        assert ruled(world, record, second) == (VOID, DecisionReason.NOT_ASKED)

    def test_a_person_moves_to_the_place_that_only_they_can_fill(self, world: World) -> None:
        asking(world, BOTH)
        record = world.exception()
        world.decision(record, at=NOW - 3 * HOUR)
        world.decision(record, verb="approve-security", at=NOW - 2 * HOUR)
        last = world.decision(record, by="ann@example.com", at=NOW - HOUR)
        found = standing(world, record)
        assert (found.phase, found.decision) == (ExceptionPhase.ACTIVE, last.name)
        assert {(c.by, c.verb) for c in found.counted} == {
            ("bob@example.com", "approve-security"),
            ("ann@example.com", "approve"),
        }


class TestWhatItIsAbout:
    def test_an_edit_voids_what_was_decided_before(self, world: World) -> None:
        asking(world, TEAM)
        record = world.exception()
        approval = world.decision(record, at=NOW - HOUR)
        edited = world.put("IdentityException", replace(record, generation=2, spec_changed=NOW, resource_version="900"))
        assert standing(world, edited).phase is ExceptionPhase.PENDING
        assert ruled(world, edited, approval) == (VOID, DecisionReason.STALE_TARGET)

    def test_a_generation_cannot_be_approved_in_advance(self, world: World) -> None:
        asking(world, TEAM)
        record = world.exception()
        advance = world.decision(record, generation=2, at=NOW - HOUR)
        assert ruled(world, record, advance) == (UNDECIDED, None)
        edited = world.put("IdentityException", replace(record, generation=2, spec_changed=NOW, resource_version="900"))
        assert ruled(world, edited, advance) == (VOID, DecisionReason.STALE_TARGET)
        assert standing(world, edited).phase is ExceptionPhase.PENDING

    def test_what_counted_counts_although_the_stamp_of_the_spec_moved(self, world: World) -> None:
        """A manager's time in managedFields moves with its labels, too."""
        asking(world, TEAM)
        record = world.exception()
        approval = world.decision(record, at=NOW - HOUR)
        status = IdentityDecisionStatus(outcome=COUNTED, reason="Approved", message="it was")
        world.put("IdentityDecision", replace(approval, status=status, resource_version="901"))
        world.put("IdentityException", replace(record, spec_changed=NOW, resource_version="900"))
        assert standing(world, record).phase is ExceptionPhase.ACTIVE

    def test_wiping_managed_fields_shortens_no_veto(self, world: World) -> None:
        """Whoever may edit an exception may wipe or write its managedFields, and no generation tells of it."""
        asking(world, TEAM, veto=VETO)
        record = world.exception(created=BEGIN, spec_changed=BEGIN)
        stood = IdentityExceptionStatus(observed_generation=1, stamped=BEGIN)
        edited = replace(record, generation=2, spec_changed=STAMP, status=stood, resource_version="900")
        world.put("IdentityException", edited)
        world.decision(edited, at=STAMP + HOUR)
        assert standing(world, edited, STAMP + 2 * HOUR).reason == "Waiting"
        seen = stood.model_copy(update={"observed_generation": 2, "stamped": STAMP})
        for version, forged in enumerate((None, BEGIN, BEGIN - DAY), start=901):
            wiped = replace(edited, spec_changed=forged, resource_version=str(version))
            world.put("IdentityException", wiped)  # before its status tells when it was written
            assert standing(world, wiped, STAMP + 2 * HOUR).reason == "Waiting"
            assert approvals.stamp(replace(wiped, status=seen)) == STAMP
        assert (
            approvals.stamp(replace(edited, spec_changed=None, status=stood.model_copy(update={"stamped": NOW}))) == NOW
        )

    def test_what_is_void_never_counts_again(self, world: World) -> None:
        asking(world, TEAM)
        record = world.exception()
        approval = world.decision(record, verb="approve-security", by="sam@example.com", at=NOW - HOUR)
        assert ruled(world, record, approval) == (VOID, DecisionReason.NOT_ASKED)
        status = IdentityDecisionStatus(outcome=VOID, reason="NotAsked", message="nobody asked")
        world.put("IdentityDecision", replace(approval, status=status, resource_version="901"))
        asking(world, [{"verb": "approve-security", "count": 1}])
        assert standing(world, record).phase is ExceptionPhase.PENDING

    def test_another_uid_is_another_exception(self, world: World) -> None:
        asking(world, TEAM)
        record = world.exception()
        world.decision(replace(record, uid="an-earlier-one"), at=NOW - HOUR)
        assert standing(world, record).phase is ExceptionPhase.PENDING
        assert standing(world, record).rulings == {}

    def test_after_the_end_it_is_too_late(self, world: World) -> None:
        asking(world, TEAM)
        record = world.exception(spec={"expiresAt": (NOW - HOUR).isoformat()})
        late = world.decision(record, at=NOW - HOUR)
        intime = world.decision(record, at=NOW - 2 * HOUR, by="ann@example.com")
        assert ruled(world, record, late) == (VOID, DecisionReason.ALREADY_DECIDED)
        assert ruled(world, record, intime) == (COUNTED, DecisionReason.APPROVED)
        assert standing(world, record).phase is ExceptionPhase.EXPIRED

    def test_an_approval_after_a_reject_changes_nothing(self, world: World) -> None:
        asking(world, TEAM)
        record = world.exception()
        world.decision(record, "Reject", at=NOW - 2 * HOUR)
        approval = world.decision(record, by="ann@example.com", at=NOW - HOUR)
        assert standing(world, record).phase is ExceptionPhase.REJECTED
        assert ruled(world, record, approval) == (VOID, DecisionReason.ALREADY_DECIDED)


class TestConsultation:
    def test_an_answer_ends_the_wait_and_counts_as_neither(self, world: World) -> None:
        asking(world, TEAM, consult=[{"verb": "consult", "wait": "36h"}])
        record = world.exception()
        world.decision(record, at=STAMP + HOUR)
        found = standing(world, record, STAMP + 2 * HOUR)
        assert (found.phase, found.reason, found.unheard) == (ExceptionPhase.PENDING, "Waiting", ("consult",))
        opinion = world.decision(record, "Reject", "dan@example.com", verb="consult", at=STAMP + 3 * HOUR)
        found = standing(world, record, STAMP + 3 * HOUR)
        assert (found.phase, found.decided) == (ExceptionPhase.ACTIVE, STAMP + HOUR)
        assert found.active_since == STAMP + 3 * HOUR
        assert ruled(world, record, opinion) == (COUNTED, DecisionReason.OPINION)

    def test_each_party_is_waited_for_and_an_opinion_is_no_approval(self, world: World) -> None:
        consult = [{"verb": "consult", "wait": "6h"}, {"verb": "consult-legal", "wait": "12h"}]
        asking(world, TEAM, consult=consult)
        record = world.exception()
        world.decision(record, by="dan@example.com", verb="consult", at=STAMP + HOUR)
        assert "approve 0 of 1" in standing(world, record).failing
        world.decision(record, at=STAMP + HOUR)
        found = standing(world, record, STAMP + 2 * HOUR)
        assert (found.unheard, found.until) == (("consult-legal",), STAMP + 12 * HOUR)
        nobody = world.decision(record, by="eve@example.com", verb="consult-press", at=STAMP + 2 * HOUR)
        assert ruled(world, record, nobody) == (VOID, DecisionReason.NOT_ASKED)
        assert standing(world, record, STAMP + 12 * HOUR).phase is ExceptionPhase.ACTIVE


class TestOnceActive:
    def test_a_later_policy_takes_nothing_away_and_says_what_it_would_refuse(self, world: World) -> None:
        asking(world, TEAM)
        record = world.exception()
        world.decision(record, at=NOW - HOUR)
        live = written(world, record)
        asking(world, BOTH)
        found = standing(world, live)
        assert (found.phase, found.reason) == (ExceptionPhase.ACTIVE, "Approved")
        assert found.disallowed == "approvals: approve 1 of 1, approve-security 0 of 1; missing approve-security"
        world.policy("default", {"exceptions": {"classes": [{"class": "AcceptedRisk", "maxDuration": "1d"}]}})
        assert standing(world, live).disallowed.startswith("expiresAt: AcceptedRisk may last 24h")
        edited = world.put("IdentityException", replace(live, generation=2, resource_version="990"))
        assert standing(world, edited).phase is ExceptionPhase.PENDING

    def test_a_rejection_whose_record_was_lost_stands(self, world: World) -> None:
        asking(world, TEAM)
        record = world.exception()
        world.decision(record, at=NOW - 2 * HOUR)
        reject = world.decision(record, "Reject", at=NOW - HOUR)
        gone = written(world, record)
        world.store.remove("IdentityDecision", reject.namespace, reject.name)
        assert standing(world, gone).phase is ExceptionPhase.WITHDRAWN


def written(world: World, record: Any, now: datetime = NOW) -> Any:
    """The exception with the status that the operator would write."""
    from tenure.reconcile.statuses import authored_status
    from tests.unit.rules.world import key_of

    status, _ = authored_status(world.store, key_of(record), now, world.installation)
    return world.put("IdentityException", replace(record, status=status, resource_version="950"))


# --- as properties

PEOPLE = ("ann", "bob", "cid", "dee")
VERBS = ("approve", "approve-a", "approve-b")


def most(needs: dict[str, int], used: set[tuple[str, str]]) -> int:
    """The most places that can be filled, by trying every order of people at every choice of verb."""
    people = sorted({person for person, _ in used})

    def fill(left: tuple[str, ...], room: dict[str, int]) -> int:
        if not left:
            return 0
        best = fill(left[1:], room)
        for verb, free in room.items():
            if free and (left[0], verb) in used:
                best = max(best, 1 + fill(left[1:], {**room, verb: free - 1}))
        return best

    return fill(tuple(people), needs)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.sampled_from(VERBS), st.integers(1, 3), min_size=1),
    st.lists(st.tuples(st.sampled_from(PEOPLE), st.sampled_from(VERBS)), max_size=10),
)
def test_as_many_places_are_filled_as_can_be_by_one_person_each(
    needs: dict[str, int], used: list[tuple[str, str]]
) -> None:
    places = _Places(ApprovalRequirement(verb=verb, count=count) for verb, count in needs.items())
    before = 0
    for person, verb in used:
        if verb in needs:
            places.add(person, verb)
        filled = [sitting for people in places.filled.values() for sitting in people]
        assert len(filled) == len(set(filled)) >= before
        before = len(filled)
    asked = {(person, verb) for person, verb in used if verb in needs}
    assert before == most(needs, asked)
    assert all((person, verb) in asked for verb, people in places.filled.items() for person in people)


ACTS = st.tuples(
    st.sampled_from(
        (
            ("Approve", None),
            ("Approve", "approve-security"),
            ("Approve", "force"),
            ("Approve", "consult"),
            ("Reject", None),
            ("Reject", "reject-security"),
            ("Reject", "consult"),
        )
    ),
    st.sampled_from((*PEOPLE, "alice@example.com")),
    st.integers(0, 30),
    st.sampled_from((1, 1, 1, 2, 3)),
)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(ACTS, max_size=7), st.integers(0, 40))
def test_whatever_is_decided_nothing_is_active_that_should_not_be(acts: list[Any], hours: int) -> None:
    world = World()
    asking(world, BOTH, veto=VETO, consult=[{"verb": "consult", "wait": "18h"}])
    record = world.put("IdentityException", replace(world.exception(), generation=2, resource_version="500"))
    now = STAMP + hours * HOUR
    made = [
        world.decision(record, verdict, by, verb=verb, at=STAMP + at * HOUR, generation=generation)
        for (verdict, verb), by, at, generation in acts
        if STAMP + at * HOUR <= now
    ]
    found = standing(world, record, now)
    assert set(found.rulings) == {decision.name for decision in made}
    fresh = [d for d in made if d.spec.target.generation == 2]
    others = [d for d in fresh if d.spec.by != "alice@example.com"]
    forces = [d for d in others if d.spec.verb == "force"]
    vetoes = [d for d in fresh if d.spec.verb == "reject-security" and d.created < STAMP + 12 * HOUR]
    rejects = [d for d in fresh if d.spec.used_verb == "reject"] + vetoes
    if found.phase is ExceptionPhase.ACTIVE:
        if not forces:
            assert now >= STAMP + 12 * HOUR
            assert not rejects
            first = {d.spec.by for d in others if d.spec.used_verb == "approve"}
            second = {d.spec.by for d in others if d.spec.used_verb == "approve-security"}
            assert any(a != b for a in first for b in second)
            assert now >= STAMP + 18 * HOUR or any(d.spec.verb == "consult" for d in others)
        else:
            last = max(d.created for d in forces)
            assert all(d.created <= last for d in rejects) or not rejects
    if forces and not rejects:
        assert found.phase is ExceptionPhase.ACTIVE
    for decision in made:
        if decision.spec.target.generation != 2:
            assert found.rulings[decision.name].outcome is not COUNTED
    assert all(counted.decision in {d.name for d in fresh} for counted in found.counted)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(ACTS, max_size=5))
def test_the_order_in_which_decisions_are_seen_is_of_no_account(acts: list[Any]) -> None:
    seen = set()
    for order in list(permutations(range(len(acts))))[:24]:
        world = World()
        asking(world, BOTH, veto=VETO)
        record = world.exception()
        for index in order:
            (verdict, verb), by, at, generation = acts[index]
            world.decision(
                record, verdict, by, verb=verb, at=STAMP + at * HOUR, generation=generation, name=f"decision-{index}"
            )
        found = standing(world, record, NOW + DAY)
        rulings = tuple(sorted((name, r.outcome, r.reason) for name, r in found.rulings.items()))
        seen.add((found.phase, found.reason, found.failing, found.decision, rulings))
    assert len(seen) == 1


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(ACTS, max_size=6))
def test_it_changes_by_itself_no_sooner_than_it_says(acts: list[Any]) -> None:
    world = World()
    asking(world, BOTH, veto=VETO, consult=[{"verb": "consult", "wait": "18h"}])
    record = world.exception()
    for (verdict, verb), by, at, generation in acts:
        world.decision(record, verdict, by, verb=verb, at=STAMP + (at % 4) * HOUR, generation=generation)
    now = STAMP + 4 * HOUR
    found = standing(world, record, now)
    until = found.until or record.spec.expires_at
    assert until > now
    just_before = standing(world, record, until - timedelta(microseconds=1))
    assert (just_before.phase, just_before.failing) == (found.phase, found.failing)


def test_a_thousand_races_of_approve_against_edit_never_approve_what_was_not_named() -> None:
    """Approvals of the first three generations and edits, in every order and with the store a step behind or not."""
    import random

    dice = random.Random(4)
    for _ in range(1000):
        world = World()
        asking(world, TEAM)
        record, at = world.exception(), STAMP
        named: set[int] = set()
        for _ in range(dice.randint(2, 6)):
            at += timedelta(seconds=dice.randint(0, 1))
            if dice.random() < 0.5:
                generation = dice.randint(1, 4)
                named.add(generation)
                world.decision(record, generation=generation, at=at, by=dice.choice(PEOPLE))
            else:
                edit = replace(record, generation=record.generation + 1, spec_changed=at)
                record = world.put("IdentityException", replace(edit, resource_version=str(1000 + edit.generation)))
            found = standing(world, record)
            if found.phase is ExceptionPhase.ACTIVE:
                assert record.generation in named
            assert exceptions.active_since(record) is None
