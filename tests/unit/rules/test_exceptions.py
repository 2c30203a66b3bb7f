"""Exceptions: phase, waivers, ExceptionLapsed."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tenure.api.names import ExceptionPhase, Risk, Rule
from tenure.inventory.impact import affected
from tenure.model.evaluation import Governance, Pin
from tenure.model.keys import Key
from tenure.reconcile.statuses import authored_status
from tenure.rules import exceptions
from tests.unit.rules.world import BEGIN, DAY, NOW, NS, World, active, key_of, rules_of, violation

NOTHING_ASKED = {"exceptions": {"classes": [{"class": "AcceptedRisk", "approvals": []}]}}


@pytest.fixture
def world() -> World:
    world = World()
    world.owner()
    world.account()
    world.claim("all")
    return world


def standing(world: World, record: Any, now: Any = NOW) -> Any:
    judged = world.judge(record, now).standing
    facts = world.facts(record)
    decided = facts.decisions.get(record.uid, ())
    assert judged == exceptions.state(record, facts.governance, now, decided, facts.debts.get(record.name, {}))
    assert judged is not None
    return judged


class TestState:
    def test_it_waits_for_approval_unless_the_policy_says_none_in_so_many_words(self, world: World) -> None:
        record = world.exception()
        found = standing(world, record)
        assert (found.phase, found.reason) == (ExceptionPhase.PENDING, "AwaitingApproval")
        assert found.failing == "approvals: approve 0 of 1; missing approve"
        world.policy("p", {"exceptions": {"classes": [{"class": "AcceptedRisk"}]}})
        assert standing(world, record).phase is ExceptionPhase.PENDING
        world.policy("p", {"exceptions": {"classes": [{"class": "Migration", "approvals": []}]}})
        assert standing(world, record).phase is ExceptionPhase.PENDING
        world.policy("p", NOTHING_ASKED)
        found = standing(world, record)
        assert (found.phase, found.reason, found.failing) == (ExceptionPhase.ACTIVE, "NothingRequired", "")
        assert found.until == record.spec.expires_at

    def test_conflicting_policies_ask_for_the_documented_approval(self, world: World) -> None:
        world.policy("p", NOTHING_ASKED)
        world.policy("q", NOTHING_ASKED)
        assert standing(world, world.exception()).phase is ExceptionPhase.PENDING

    def test_it_expires_at_its_end_whatever_else_is_asked(self, world: World) -> None:
        record = world.exception(spec={"expiresAt": NOW.isoformat()})
        assert standing(world, record).phase is ExceptionPhase.EXPIRED
        world.policy("p", NOTHING_ASKED)
        assert standing(world, record).phase is ExceptionPhase.EXPIRED
        assert standing(world, record, NOW - timedelta(microseconds=1)).phase is ExceptionPhase.ACTIVE

    @pytest.mark.parametrize(
        ("class_", "days"), [("BreakGlass", 1), ("Migration", 90), ("VendorManaged", 180), ("AcceptedRisk", 90)]
    )
    def test_each_class_has_its_longest_time_from_the_last_change_of_the_spec(
        self, world: World, class_: str, days: int
    ) -> None:
        world.policy("p", {"exceptions": {"classes": [{"class": class_, "approvals": []}]}})
        changed = NOW - DAY / 2
        longest = changed + days * DAY
        record = world.exception(spec={"class": class_, "expiresAt": longest.isoformat()}, spec_changed=changed)
        assert standing(world, record).phase is ExceptionPhase.ACTIVE
        too_long = (longest + timedelta(seconds=1)).isoformat()
        record = world.exception(spec={"class": class_, "expiresAt": too_long}, spec_changed=changed)
        found = standing(world, record)
        assert (found.phase, found.reason) == (ExceptionPhase.PENDING, "TooLong")
        assert found.failing.startswith(f"expiresAt: {class_} may last")

    def test_the_policys_bound_beats_the_default_and_creation_counts_where_no_change_is_known(
        self, world: World
    ) -> None:
        classes = [{"class": "AcceptedRisk", "approvals": [], "maxDuration": "400d"}]
        world.policy("p", {"exceptions": {"classes": classes}})
        end = (BEGIN + 400 * DAY).isoformat()
        record = world.exception(spec={"expiresAt": end}, spec_changed=None)
        assert standing(world, record).phase is ExceptionPhase.ACTIVE

    def test_a_machines_request_may_need_the_person_behind_it(self, world: World) -> None:
        world.policy("p", {"exceptions": {**NOTHING_ASKED["exceptions"], "requireOnBehalfOf": True}})
        machine = {"requestedBy": "system:serviceaccount:argocd:controller"}
        assert standing(world, world.exception(spec=machine)).reason == "AwaitingOnBehalfOf"
        person = {**machine, "onBehalfOf": "alice@example.com"}
        assert standing(world, world.exception(spec=person)).phase is ExceptionPhase.ACTIVE
        assert standing(world, world.exception(spec={"requestedBy": "bob"})).phase is ExceptionPhase.ACTIVE

    def test_consultation_and_veto_are_waited_for(self, world: World) -> None:
        asked = {
            "class": "AcceptedRisk",
            "approvals": [],
            "consult": [{"verb": "consult", "wait": "36h"}],
            "veto": {"verb": "reject-security", "within": "12h"},
        }
        world.policy("p", {"exceptions": {"classes": [asked]}})
        record = world.exception(spec_changed=NOW - DAY)
        found = standing(world, record)
        assert (found.phase, found.reason) == (ExceptionPhase.PENDING, "Waiting")
        assert world.judge(record).next_change == NOW + DAY / 2
        assert standing(world, record, NOW + DAY / 2).phase is ExceptionPhase.ACTIVE


class TestWaivers:
    def test_an_active_exception_waives_the_rules_it_names_for_what_it_pinned(self, world: World) -> None:
        token = world.token()
        record = world.exception()
        world.put("IdentityException", replace(record, status=active(record, token), resource_version="1000"))
        judged = world.judge(token)
        assert rules_of(judged) == ["LegacyToken"]
        assert set(judged.waivers) == {Rule.LEGACY_TOKEN}
        waiver = judged.waivers[Rule.LEGACY_TOKEN]
        assert waiver.exception == Key("IdentityException", NS, "waiver")
        assert (waiver.class_, waiver.active_since) == ("AcceptedRisk", NOW - DAY)
        assert waiver.until == record.spec.expires_at == judged.next_change
        assert judged.exceptions == (waiver.exception,)

    def test_rules_it_names_are_waived_before_they_are_violated(self, world: World) -> None:
        token = world.token()
        record = world.exception(rules=("CredentialTooOld",))
        world.put("IdentityException", replace(record, status=active(record, token), resource_version="1000"))
        assert set(world.judge(token).waivers) == {Rule.CREDENTIAL_TOO_OLD}

    @pytest.mark.parametrize("wrong", ["pending", "rejected", "generation", "uid", "expired", "no status"])
    def test_anything_less_waives_nothing(self, world: World, wrong: str) -> None:
        token = world.token()
        record = world.exception()
        status = active(record, token)
        now = NOW
        match wrong:
            case "pending":
                status = active(record, token, phase="Pending", activeSince=None)
            case "rejected":
                status = active(record, token, phase="Withdrawn")
            case "generation":
                record = replace(record, generation=2)
            case "uid":
                status = active(record, replace(token, uid="a-namesake"))
            case "expired":
                now = record.spec.expires_at
            case "no status":
                status = None  # type: ignore[assignment]
        world.put("IdentityException", replace(record, status=status, resource_version="1000"))
        judged = world.judge(token, now)
        assert judged.waivers == {}
        assert judged.exceptions == (Key("IdentityException", NS, "waiver"),)

    def test_what_a_selector_matches_later_is_not_covered_and_what_it_no_longer_matches_is(self, world: World) -> None:
        label = {"app": "ci"}
        pinned = world.secret("old", keys=("token",), labels=label)
        record = world.exception(target={"kind": "Secret", "selector": {"matchLabels": label}}, rules=("Unowned",))
        world.put("IdentityException", replace(record, status=active(record, pinned), resource_version="1000"))
        later = world.secret("new", keys=("token",), labels=label)
        assert world.judge(later).waivers == {}
        assert world.judge(later).exceptions == (Key("IdentityException", NS, "waiver"),)
        world.put("Secret", replace(pinned, labels=()))
        assert set(world.judge(pinned).waivers) == {Rule.UNOWNED}
        judged = world.judge(record)
        assert judged.pins == (Pin("Secret", "new", later.uid),)

    def test_of_several_the_longest_counts(self, world: World) -> None:
        token = world.token()
        for name, days in (("a", 5), ("b", 9), ("c", 7)):
            record = world.exception(name, spec={"expiresAt": (NOW + days * DAY).isoformat()})
            world.put("IdentityException", replace(record, status=active(record, token), resource_version="1000"))
        judged = world.judge(token)
        assert judged.waivers[Rule.LEGACY_TOKEN].exception.name == "b"
        assert judged.next_change == NOW + 5 * DAY

    def test_a_claim_can_be_the_target(self, world: World) -> None:
        claim = world.claim("c", spec={"owner": "ghost"})
        record = world.exception(target={"kind": "OwnedIdentity", "name": "c"}, rules=("OwnerVacant",))
        world.put("IdentityException", replace(record, status=active(record, claim), resource_version="1000"))
        assert set(world.judge(claim).waivers) == {Rule.OWNER_VACANT}

    def test_the_target_is_a_kind_a_name_and_perhaps_a_uid(self, world: World) -> None:
        token = world.token()
        assert world.judge(world.exception()).pins == (Pin("Secret", "ci-token", token.uid),)
        other = world.exception(target={"kind": "ServiceAccount", "name": "ci-token"})
        assert world.judge(other).pins == ()
        stale = world.exception(target={"kind": "Secret", "name": "ci-token", "uid": "another"})
        assert world.judge(stale).pins == ()
        assert world.judge(token).exceptions == ()


class TestLapsed:
    def expired(self, world: World, *pinned: Any, **more: Any) -> Any:
        record = world.exception(spec={"expiresAt": (NOW - 2 * DAY).isoformat()}, **more)
        if pinned:
            status = active(record, *pinned, phase="Expired")
            record = world.put("IdentityException", replace(record, status=status, resource_version="1000"))
        return record

    def test_it_holds_while_a_target_still_violates_a_rule_it_named(self, world: World) -> None:
        token = world.token()
        record = self.expired(world, token)
        judged = world.judge(record)
        found = violation(judged, "ExceptionLapsed")
        assert found.observable == NOW - 2 * DAY
        assert found.risk.level is Risk.MEDIUM
        assert "Secret payments/ci-token still violates LegacyToken" in found.message
        assert judged.ownership.owner == "payments"
        world.store.remove("Secret", NS, "ci-token")
        assert rules_of(world.judge(record)) == []

    def test_one_that_never_became_active_lapses_too(self, world: World) -> None:
        world.token()
        assert rules_of(world.judge(self.expired(world))) == ["ExceptionLapsed"]

    def test_other_rules_and_other_objects_do_not_count(self, world: World) -> None:
        token = world.token()
        assert rules_of(world.judge(self.expired(world, token, rules=("Unowned",)))) == []
        world.token("another")
        assert rules_of(world.judge(self.expired(world, replace(token, uid="gone")))) == []

    def test_before_its_end_it_has_not_lapsed(self, world: World) -> None:
        world.token()
        record = world.exception()
        judged = world.judge(record)
        assert rules_of(judged) == []
        assert judged.next_change == record.spec.expires_at
        assert rules_of(world.judge(record, record.spec.expires_at)) == ["ExceptionLapsed"]

    def test_a_target_that_comes_to_violate_the_rule_later_is_known_beforehand(self, world: World) -> None:
        secret = world.secret("ci-token", keys=("password",))
        record = self.expired(world, secret, rules=("CredentialTooOld",))
        judged = world.judge(record)
        assert rules_of(judged) == []
        assert judged.next_change == BEGIN + 365 * DAY
        found = violation(world.judge(record, BEGIN + 365 * DAY), "ExceptionLapsed")
        assert found.observable == BEGIN + 365 * DAY

    def test_its_risk_is_the_highest_among_its_targets(self, world: World) -> None:
        token = world.token()
        world.role("root", "R01")
        world.bind("root", ns="")
        judged = world.judge(self.expired(world, token))
        assert judged.risk.level is Risk.CRITICAL
        assert violation(judged, "ExceptionLapsed").risk.level is Risk.CRITICAL


def test_governance_is_all_that_state_needs() -> None:
    record = World().exception()
    assert exceptions.state(record, Governance(), NOW).phase is ExceptionPhase.PENDING


class TestWorkedOut:
    """What waives follows from spec, policy and decisions, whatever a status says or does not say yet."""

    def test_an_approval_waives_before_any_status_is_written(self, world: World) -> None:
        token, record = world.token(), world.exception()
        approval = world.decision(record, at=NOW - DAY / 2)
        waiver = world.judge(token).waivers[Rule.LEGACY_TOKEN]
        assert (waiver.decided, waiver.by) == (NOW - DAY / 2, "bob@example.com")
        assert waiver.reference == f"IdentityDecision/{approval.name}"
        assert world.judge(token).next_change == record.spec.expires_at

    def test_a_namesake_created_after_the_approval_is_not_covered(self, world: World) -> None:
        record = world.exception()
        world.decision(record, at=NOW - DAY / 2)
        later = world.token(created=NOW - DAY / 4)
        assert world.judge(later).waivers == {}
        assert world.judge(record).pins == ()

    def test_what_a_selector_matched_is_frozen_at_the_first_approval(self, world: World) -> None:
        both = [{"verb": "approve"}, {"verb": "approve-security"}]
        world.policy("p", {"exceptions": {"classes": [{"class": "AcceptedRisk", "approvals": both}]}})
        label = {"app": "ci"}
        old = world.secret("old", keys=("token",), labels=label)
        record = world.exception(target={"kind": "Secret", "selector": {"matchLabels": label}}, rules=("Unowned",))
        world.decision(record, at=NOW - DAY / 2)
        pending = written(world, record)
        assert (pending.status.phase, [m.name for m in pending.status.matched]) == (ExceptionPhase.PENDING, ["old"])
        new = world.secret("new", keys=("token",), labels=label)
        world.decision(record, by="sam@example.com", verb="approve-security")
        assert set(world.judge(old).waivers) == {Rule.UNOWNED}
        assert world.judge(new).waivers == {}
        assert [m.name for m in written(world, pending).status.matched] == ["old"]

    def test_frozen_to_nothing_is_frozen(self, world: World) -> None:
        both = [{"verb": "approve"}, {"verb": "approve-security"}]
        world.policy("p", {"exceptions": {"classes": [{"class": "AcceptedRisk", "approvals": both}]}})
        record = world.exception(target={"kind": "Secret", "selector": {"matchLabels": {"app": "ci"}}})
        world.decision(record, at=NOW)
        pending = written(world, record)
        world.decision(record, by="sam@example.com", verb="approve-security")
        token = world.token(labels={"app": "ci"})
        assert world.judge(token).waivers == {}
        done = written(world, pending)
        assert (done.status.phase, done.status.matched) == (ExceptionPhase.ACTIVE, ())
        assert condition(done, "Unneeded") == "TargetGone"

    def test_it_says_when_nothing_needs_it(self, world: World) -> None:
        token, record = world.token(), world.exception(rules=("LegacyToken",))
        world.decision(record)
        live = written(world, record)
        assert condition(live, "Unneeded") == ""
        world.put("Secret", replace(token, type="Opaque", service_account=""))
        assert condition(written(world, live), "Unneeded") == "NoFinding"
        world.store.remove("Secret", NS, token.name)
        assert condition(written(world, live), "Unneeded") == "TargetGone"

    def test_its_conditions_carry_the_command_that_decides(self, world: World) -> None:
        both = [{"verb": "approve"}, {"verb": "approve-security"}]
        consult = [{"verb": "consult", "wait": "90d"}]
        asked = {"class": "AcceptedRisk", "approvals": both, "consult": consult}
        world.policy("p", {"exceptions": {"classes": [asked]}})
        record = world.exception()
        world.decision(record)
        pending = written(world, record)
        [said] = [c.message for c in pending.status.conditions if c.type == "DecisionPending"]
        with_verb = "tenure approve identityexception/waiver -n payments --verb approve-security --reason …"
        assert f"`{with_verb}`" in said
        world.decision(record, by="sam@example.com", verb="approve-security")
        [said] = [c.message for c in written(world, pending).status.conditions if c.type == "DecisionPending"]
        assert "`tenure approve identityexception/waiver -n payments --verb consult --reason …`" in said


class TestRenewals:
    """A waiver that ends later than any before it is one more; so many of them are allowed."""

    def owing(self, world: World, token: Any, renewals: int, until: Any) -> None:
        debt = {"renewals": renewals, "until": until.isoformat()}
        world.finding(token, "LegacyToken", {"debt": debt})

    def test_the_next_one_too_many_is_refused_with_the_count(self, world: World) -> None:
        token = world.token()
        self.owing(world, token, 1, NOW)
        record = world.exception()
        world.decision(record)
        found = standing(world, record)
        assert (found.phase, found.reason) == (ExceptionPhase.PENDING, "TooManyRenewals")
        assert found.failing == "renewals: LegacyToken of Secret/ci-token was renewed 1 times, AcceptedRisk allows 1"
        assert world.judge(token).waivers == {}
        self.owing(world, token, 0, NOW)
        assert standing(world, record).phase is ExceptionPhase.ACTIVE
        assert set(world.judge(token).waivers) == {Rule.LEGACY_TOKEN}

    def test_no_later_end_is_no_renewal(self, world: World) -> None:
        token, record = world.token(), world.exception()
        world.decision(record)
        self.owing(world, token, 1, record.spec.expires_at)
        assert standing(world, record).phase is ExceptionPhase.ACTIVE

    def test_the_cap_binds_force_and_the_class_has_its_own(self, world: World) -> None:
        token = world.token()
        self.owing(world, token, 0, NOW)
        soon = {"class": "BreakGlass", "expiresAt": (NOW + DAY / 4).isoformat()}
        record = world.exception(spec=soon, spec_changed=NOW - DAY / 4)
        world.decision(record, verb="force")
        assert standing(world, record).reason == "TooManyRenewals"
        world.policy("p", {"exceptions": {"classes": [{"class": "BreakGlass", "maxRenewals": 3}]}})
        assert standing(world, record).phase is ExceptionPhase.ACTIVE

    def test_it_follows_the_subject_through_another_name_uid_and_rule(self, world: World) -> None:
        token = world.token()
        self.owing(world, token, 1, NOW)
        world.store.remove("Secret", NS, token.name)
        again = world.token()
        record = world.exception("renamed", rules=("CredentialTooOld", "LegacyToken"))
        world.decision(record)
        assert standing(world, record).reason == "TooManyRenewals"
        other = world.exception("other", rules=("CredentialTooOld",))
        world.decision(other)
        assert set(world.judge(again).waivers) == {Rule.CREDENTIAL_TOO_OLD}

    def test_one_target_holds_up_the_waiver_for_all_and_all_are_judged_again(self, world: World) -> None:
        label = {"app": "ci"}
        token = world.token(labels=label)
        other = world.token("other", labels=label)
        record = world.exception(target={"kind": "Secret", "selector": {"matchLabels": label}})
        world.decision(record)
        touched: set[Key] = set()
        world.store.listeners.append(lambda *change: touched.update(affected(world.store, *change)))
        self.owing(world, token, 1, NOW)
        assert world.judge(other).waivers == {}
        assert touched >= {key_of(record), key_of(token), key_of(other)}
        touched.clear()
        world.put("Secret", replace(token, labels=()))
        assert set(world.judge(other).waivers) == {Rule.LEGACY_TOKEN}
        assert touched >= {key_of(record), key_of(token), key_of(other)}

    def test_an_active_one_is_not_asked_again_and_shows_the_most(self, world: World) -> None:
        token, record = world.token(), world.exception()
        world.decision(record)
        live = written(world, record)
        self.owing(world, token, 7, NOW)
        assert standing(world, live).phase is ExceptionPhase.ACTIVE
        assert written(world, live).status.renewals == 7


def condition(record: Any, kind: str) -> str:
    """The reason of its condition of that type, "" without one."""
    return next((found.reason for found in record.status.conditions if found.type == kind), "")


def written(world: World, record: Any) -> Any:
    """The exception with the status that the operator would write."""
    status, _ = authored_status(world.store, key_of(record), NOW, world.installation)
    version = str(int(record.resource_version) + 1000)
    return world.put("IdentityException", replace(record, status=status, resource_version=version))


def test_what_an_exception_costs_does_not_grow_with_the_others_from_its_target(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may request may request two thousand that are over, and each change of one has all looked at again."""
    world.token()
    over = {"expiresAt": (NOW - DAY / 2).isoformat()}
    records = [world.exception(f"waiver-{n}", spec=over) for n in range(5)]
    weighed: list[str] = []
    state = exceptions.state
    monkeypatch.setattr(exceptions, "state", lambda record, *more: weighed.append(record.name) or state(record, *more))
    assert rules_of(world.judge(records[0])) == ["ExceptionLapsed"]
    assert weighed == ["waiver-0"]
