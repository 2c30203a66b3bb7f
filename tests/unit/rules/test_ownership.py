"""Ownership and the rules on it: Unowned, OwnerVacant, ClaimConflict, OwnershipExpired."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tenure.api.names import IdentityClass, Risk
from tenure.model.keys import Key
from tenure.model.records import Subject
from tests.unit.rules.world import BEGIN, DAY, NOW, NS, World, rules_of, violation


@pytest.fixture
def world() -> World:
    world = World()
    world.owner("payments", {"contacts": [{"type": "Email", "value": "payments@example.com"}]})
    return world


class TestDeclared:
    def test_a_claim_by_name_or_by_label_declares_the_owner_and_says_how(self, world: World) -> None:
        account = world.account("ci", labels={"app": "ci"})
        claim = world.claim("c", {"selector": {"matchLabels": {"app": "ci"}}}, spec_changed=BEGIN + DAY)
        judged = world.judge(account)
        assert rules_of(judged) == []
        assert judged.ownership.state == "declared"
        assert judged.ownership.owner == "payments"
        assert judged.ownership.why == "claim payments/c, by selector"
        assert judged.ownership.claim == Key("OwnedIdentity", NS, "c")
        assert judged.ownership.claim_changed == claim.spec_changed
        assert judged.ownership.contact == "Email payments@example.com"
        world.claim("named", {"serviceAccounts": {"names": ["ci"]}})
        assert world.judge(account).ownership.why == "claim payments/named, by name"

    @pytest.mark.parametrize(
        ("subjects", "covers"),
        [
            ({"selector": {"matchLabels": {"app": "ci"}}}, True),
            ({"selector": {"matchLabels": {"app": "other"}}}, False),
            ({"serviceAccounts": {"names": ["ci"]}}, True),
            ({"serviceAccounts": {"names": ["other"], "selector": {"matchLabels": {"app": "ci"}}}}, True),
            ({"serviceAccounts": {"selector": {}}}, True),
            ({"secrets": {"names": ["ci"], "selector": {}}}, False),
            ({"selector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["ci", "x"]}]}}, True),
            ({"selector": {"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}}, False),
            ({"external": [{"provider": "github", "id": "1"}]}, False),
        ],
    )
    def test_names_and_selectors_are_a_union(self, world: World, subjects: dict[str, object], covers: bool) -> None:
        account = world.account("ci", labels={"app": "ci"})
        world.claim("c", subjects)
        assert (world.judge(account).ownership.state == "declared") is covers

    def test_the_class_is_the_claims(self, world: World) -> None:
        account = world.account()
        world.claim("c", spec={"class": "Agent"})
        assert world.judge(account).ownership.class_ is IdentityClass.AGENT

    def test_the_empty_selector_takes_all_but_what_is_no_credential_or_the_platforms(self, world: World) -> None:
        world.claim("all", {"selector": {}})
        assert world.judge(world.account()).ownership.state == "declared"
        assert world.judge(world.secret("api", keys=("token",))).ownership.state == "declared"
        assert world.judge(world.secret("conf", keys=("config.yaml",))).ownership.state == "none"
        assert world.judge(world.secret("rel", type="helm.sh/release.v1", keys=("release",))).ownership.state == "none"
        world.namespace("kube-system")
        world.claim("all", {"selector": {}}, ns="kube-system")
        assert world.judge(world.account("x", "kube-system")).ownership.state == "none"
        world.claim("named", {"serviceAccounts": {"names": ["x"]}}, ns="kube-system")
        judged = world.judge(Key("ServiceAccount", "kube-system", "x"))
        assert judged.ownership.state == "declared"
        assert judged.ownership.class_ is IdentityClass.PLATFORM

    def test_claims_cover_their_own_namespace_only(self, world: World) -> None:
        world.claim("all", {"selector": {}}, ns="elsewhere")
        assert rules_of(world.judge(world.account())) == ["Unowned"]

    def test_an_owners_namespace_selector_is_judged_at_admission_not_here(self, world: World) -> None:
        world.owner("payments", {"namespaceSelector": {"matchLabels": {"team": "payments"}}})
        world.claim("c")
        assert world.judge(world.account()).ownership.state == "declared"


class TestDerived:
    def test_the_namespaces_label_names_the_owner(self, world: World) -> None:
        world.namespace(NS, {"tenure.dev/owner": "payments"})
        judged = world.judge(world.account())
        assert rules_of(judged) == []
        assert (judged.ownership.state, judged.ownership.owner) == ("derived", "payments")
        assert judged.ownership.why == "label tenure.dev/owner=payments on namespace payments"
        assert judged.ownership.claim is None

    def test_a_mapped_label_counts_only_where_the_policy_maps_it(self, world: World) -> None:
        world.namespace(NS, {"team": "payments"})
        account = world.account()
        assert rules_of(world.judge(account)) == ["Unowned"]
        world.policy("p", {"ownership": {"namespaceLabels": ["team"]}})
        assert world.judge(account).ownership.state == "derived"

    def test_the_first_label_whose_owner_answers_wins(self, world: World) -> None:
        world.namespace(NS, {"tenure.dev/owner": "ghost", "team": "payments"})
        world.policy("p", {"ownership": {"namespaceLabels": ["team"]}})
        assert world.judge(world.account()).ownership.why == "label team=payments on namespace payments"

    def test_a_label_that_names_nobody_gives_no_ownership_and_says_so(self, world: World) -> None:
        world.namespace(NS, {"tenure.dev/owner": "ghost"})
        judged = world.judge(world.account())
        assert rules_of(judged) == ["Unowned"]
        assert judged.ownership.owner == ""
        assert judged.ownership.vacant
        assert "owner ghost does not exist" in violation(judged, "Unowned").message

    def test_a_suspended_owner_on_a_label_leaves_its_backup_accountable_but_the_subject_unowned(
        self, world: World
    ) -> None:
        world.owner("old", {"suspended": True, "backup": "payments"})
        world.namespace(NS, {"tenure.dev/owner": "old"})
        judged = world.judge(world.account())
        assert rules_of(judged) == ["Unowned"]
        assert judged.ownership.owner == "payments"
        assert "its backup payments answers" in judged.ownership.why

    def test_derived_is_not_enough_for_critical(self, world: World) -> None:
        world.namespace(NS, {"tenure.dev/owner": "payments"})
        account = world.account()
        world.role("root", "R01")
        world.bind("root", ns="", created=BEGIN + 5 * DAY)
        found = violation(world.judge(account), "Unowned")
        assert found.risk.level is Risk.CRITICAL
        assert found.observable == BEGIN + 5 * DAY
        assert "is not enough" in found.message
        world.claim("c")
        assert rules_of(world.judge(account)) == []

    def test_the_policy_says_for_which_risks_a_claim_is_required(self, world: World) -> None:
        world.namespace(NS, {"tenure.dev/owner": "payments"})
        account = world.account()
        assert rules_of(world.judge(account)) == []
        world.policy("p", {"ownership": {"requireDeclared": ["Low"]}})
        assert rules_of(world.judge(account)) == ["Unowned"]
        world.policy("p", {"ownership": {"requireDeclared": []}})
        world.role("root", "R01")
        world.bind("root", ns="")
        assert rules_of(world.judge(account)) == []

    def test_an_objects_label_makes_accountable_and_resolves_nothing(self, world: World) -> None:
        world.policy("p", {"ownership": {"objectLabels": ["team"]}})
        account = world.account(labels={"team": "payments"})
        judged = world.judge(account)
        assert rules_of(judged) == ["Unowned"]
        assert (judged.ownership.state, judged.ownership.owner) == ("none", "payments")
        assert "does not count as ownership" in judged.ownership.why
        world.policy("p", {"ownership": {"objectLabels": ["team"], "objectLabelsCount": True}})
        judged = world.judge(account)
        assert rules_of(judged) == []
        assert judged.ownership.why == "label team=payments on the object itself"


class TestCredentialsFollowTheirIdentity:
    def test_a_claim_on_the_account_covers_its_tokens(self, world: World) -> None:
        world.account()
        token = world.token()
        world.claim("c", {"serviceAccounts": {"names": ["ci"]}})
        judged = world.judge(token)
        assert judged.ownership.state == "declared"
        assert judged.ownership.why == "claim payments/c on ServiceAccount ci, by name"

    def test_a_token_is_never_unowned_while_its_account_exists(self, world: World) -> None:
        token = world.token()
        assert "Unowned" in rules_of(world.judge(token))
        world.account()
        judged = world.judge(token)
        assert rules_of(judged) == ["LegacyToken"]
        assert judged.ownership.state == "none"

    def test_a_token_of_an_earlier_namesake_belongs_to_nobody(self, world: World) -> None:
        account = world.account()
        token = world.token(service_account_uid="uid-of-the-earlier-one")
        assert "Unowned" in rules_of(world.judge(token))
        assert world.judge(account).credentials == ()

    def test_the_accounts_claim_beats_one_that_only_selects_the_token(self, world: World) -> None:
        world.account()
        token = world.token()
        world.claim("all", {"selector": {}}, created=BEGIN - DAY)
        world.claim("one", {"serviceAccounts": {"names": ["ci"]}})
        assert world.judge(token).ownership.claim == Key("OwnedIdentity", NS, "one")

    def test_a_claim_that_names_the_token_beats_the_accounts(self, world: World) -> None:
        world.account()
        token = world.token()
        world.claim("account", {"serviceAccounts": {"names": ["ci"]}}, created=BEGIN - DAY)
        claim = world.claim("token", {"secrets": {"names": ["ci-token"]}})
        assert world.judge(token).ownership.claim == Key("OwnedIdentity", NS, "token")
        assert rules_of(world.judge(claim)) == []

    def test_another_credential_stands_for_itself(self, world: World) -> None:
        secret = world.secret("stripe", keys=("api-key",))
        found = violation(world.judge(secret), "Unowned")
        assert found.risk.level is Risk.LOW
        world.claim("c", {"secrets": {"names": ["stripe"]}})
        assert rules_of(world.judge(secret)) == []


class TestDefaultAccount:
    def test_unused_it_raises_nothing(self, world: World) -> None:
        account = world.account("default")
        world.role("view")
        world.bind("view", Subject("Group", "", f"system:serviceaccounts:{NS}"))
        world.pod("done", "default", finished=True)
        assert rules_of(world.judge(account)) == []

    @pytest.mark.parametrize("use", ["binding", "user", "token", "pod"])
    def test_any_use_makes_it_an_identity(self, world: World, use: str) -> None:
        account = world.account("default")
        world.role("view")
        match use:
            case "binding":
                world.bind("view", "default")
            case "user":
                world.bind("view", Subject("User", "", f"system:serviceaccount:{NS}:default"))
            case "token":
                world.token("t", "default")
            case "pod":
                world.pod("p", "default")
        assert rules_of(world.judge(account)) == ["Unowned"]


class TestPlatform:
    @pytest.mark.parametrize("ns", ["kube-system", "kube-public", "ingress", "tenure-system"])
    def test_nobody_is_asked_to_own_the_platform(self, world: World, ns: str) -> None:
        world.namespace(ns)
        judged = world.judge(world.account("x", ns))
        assert rules_of(judged) == []
        assert judged.governance.platform
        assert judged.ownership.class_ is IdentityClass.PLATFORM
        assert judged.ownership.state == "none"

    def test_its_credentials_are_judged_all_the_same(self, world: World) -> None:
        world.namespace("kube-system")
        world.account("x", "kube-system")
        assert rules_of(world.judge(world.token("t", "x", "kube-system"))) == ["LegacyToken"]

    def test_a_policy_that_names_the_namespace_asks(self, world: World) -> None:
        world.namespace("kube-system")
        world.namespace("tenure-system")
        world.policy("p", {"platformNamespaces": ["kube-system", "tenure-system"]})
        judged = world.judge(world.account("x", "kube-system"))
        assert rules_of(judged) == ["Unowned"]
        assert judged.governance.platform_named
        own = world.judge(world.account("tenure", "tenure-system"))
        assert rules_of(own) == []
        assert own.governance.policy is None
        assert not own.governance.platform_named


class TestExpiry:
    def test_an_expired_claim_covers_nothing_and_says_since_when(self, world: World) -> None:
        account = world.account()
        end = NOW - 3 * DAY
        claim = world.claim("c", spec={"expiresAt": end.isoformat()})
        found = violation(world.judge(claim), "OwnershipExpired")
        assert found.observable == end
        assert found.risk.level is Risk.MEDIUM
        unowned = violation(world.judge(account), "Unowned")
        assert unowned.observable == end
        assert "claim payments/c expired" in unowned.message

    def test_the_end_itself_is_expired_and_known_beforehand(self, world: World) -> None:
        account = world.account()
        end = NOW + DAY
        claim = world.claim("c", spec={"expiresAt": end.isoformat()})
        for record in (account, claim):
            judged = world.judge(record)
            assert rules_of(judged) == []
            assert judged.next_change == end
        assert rules_of(world.judge(account, end - timedelta(microseconds=1))) == []
        assert rules_of(world.judge(account, end)) == ["Unowned"]
        assert rules_of(world.judge(claim, end)) == ["OwnershipExpired"]
        assert world.judge(claim, end).next_change is None

    def test_another_claim_takes_over(self, world: World) -> None:
        account = world.account()
        world.claim("a", spec={"expiresAt": (NOW - DAY).isoformat()})
        later = world.claim("b", created=BEGIN + DAY)
        assert world.judge(account).ownership.claim == Key("OwnedIdentity", NS, "b")
        assert rules_of(world.judge(later)) == []

    def test_what_was_created_after_the_end_is_unowned_since_its_creation(self, world: World) -> None:
        world.claim("c", spec={"expiresAt": (BEGIN - DAY).isoformat()})
        assert violation(world.judge(world.account()), "Unowned").observable == BEGIN


class TestConflict:
    def test_the_later_of_two_equally_specific_claims_is_in_conflict_and_opens_nothing(self, world: World) -> None:
        account = world.account()
        first = world.claim("z-first")
        later = world.claim("a-later", created=BEGIN + 2 * DAY)
        assert world.judge(account).ownership.claim == Key("OwnedIdentity", NS, "z-first")
        assert rules_of(world.judge(account)) == []
        assert rules_of(world.judge(first)) == []
        found = violation(world.judge(later), "ClaimConflict")
        assert found.observable == BEGIN + 2 * DAY
        assert found.risk.level is Risk.LOW
        assert "z-first" in found.message
        assert "ServiceAccount ci" in found.message

    def test_of_one_age_the_name_decides(self, world: World) -> None:
        world.account()
        assert rules_of(world.judge(world.claim("b"))) == []
        assert rules_of(world.judge(world.claim("a"))) == []
        assert rules_of(world.judge(Key("OwnedIdentity", NS, "b"))) == ["ClaimConflict"]

    def test_two_claims_that_name_one_subject_conflict(self, world: World) -> None:
        world.account()
        world.claim("a", {"serviceAccounts": {"names": ["ci"]}})
        assert rules_of(world.judge(world.claim("b", {"serviceAccounts": {"names": ["ci"]}}))) == ["ClaimConflict"]

    def test_a_name_settles_a_dispute_of_selectors(self, world: World) -> None:
        world.account()
        world.claim("a")
        later = world.claim("b")
        assert rules_of(world.judge(later)) == ["ClaimConflict"]
        named = world.claim("c", {"serviceAccounts": {"names": ["ci"]}})
        assert rules_of(world.judge(later)) == []
        assert rules_of(world.judge(named)) == []

    def test_without_a_common_subject_there_is_none(self, world: World) -> None:
        world.account("ci", labels={"app": "ci"})
        world.claim("a", {"selector": {"matchLabels": {"app": "ci"}}})
        assert rules_of(world.judge(world.claim("b", {"selector": {"matchLabels": {"app": "x"}}}))) == []

    def test_neither_an_expired_claim_nor_against_one(self, world: World) -> None:
        world.account()
        over = {"expiresAt": (NOW - DAY).isoformat()}
        first = world.claim("a", spec=over)
        assert rules_of(world.judge(world.claim("b"))) == []
        assert rules_of(world.judge(first)) == ["OwnershipExpired"]
        assert rules_of(world.judge(world.claim("c", spec=over))) == ["OwnershipExpired"]

    def test_the_end_of_the_earlier_claim_is_a_next_change(self, world: World) -> None:
        world.account()
        world.claim("a", spec={"expiresAt": (NOW + DAY).isoformat()})
        later = world.claim("b")
        assert world.judge(later).next_change == NOW + DAY
        assert rules_of(world.judge(later, NOW + DAY)) == []

    def test_tokens_are_no_dispute_of_their_own(self, world: World) -> None:
        world.account()
        world.token()
        world.claim("a", {"serviceAccounts": {"names": ["ci"]}})
        assert rules_of(world.judge(world.claim("b", {"secrets": {"selector": {}}}))) == []


class TestVacant:
    def test_a_missing_owner_leaves_the_subject_declared_and_the_claim_vacant(self, world: World) -> None:
        account = world.account()
        claim = world.claim("c", spec={"owner": "ghost"}, spec_changed=BEGIN + DAY)
        found = violation(world.judge(claim), "OwnerVacant")
        assert found.observable == BEGIN + DAY
        assert found.risk.level is Risk.MEDIUM
        assert "owner ghost does not exist, and nobody stands in" in found.message
        judged = world.judge(account)
        assert rules_of(judged) == []
        assert (judged.ownership.state, judged.ownership.owner) == ("declared", "")
        assert judged.ownership.vacant

    def test_a_suspended_owners_backup_answers_transitively(self, world: World) -> None:
        account = world.account()
        world.owner("a", {"suspended": True, "backup": "b"}, spec_changed=BEGIN + 7 * DAY)
        world.owner("b", {"suspended": True, "backup": "payments"})
        claim = world.claim("c", spec={"owner": "a"})
        assert violation(world.judge(claim), "OwnerVacant").observable == BEGIN + 7 * DAY
        ownership = world.judge(account).ownership
        assert ownership.owner == "payments"
        assert "owner a is suspended, its backup payments answers" in ownership.why
        assert ownership.contact == "Email payments@example.com"

    def test_a_missing_backup_makes_nobody_vacant(self, world: World) -> None:
        world.owner("a", {"backup": "ghost"})
        assert rules_of(world.judge(world.claim("c", spec={"owner": "a"}))) == []

    def test_owners_on_a_cycle_of_backups_are_vacant_and_one_that_leads_there_is_not(self, world: World) -> None:
        world.owner("a", {"backup": "b"})
        world.owner("b", {"backup": "a"}, spec_changed=BEGIN + 9 * DAY)
        world.owner("c", {"backup": "a"})
        claim = world.claim("on", spec={"owner": "a"})
        found = violation(world.judge(claim), "OwnerVacant")
        assert found.observable == BEGIN + 9 * DAY
        assert "cycle" in found.message
        assert world.judge(claim).ownership.owner == "a"
        assert rules_of(world.judge(world.claim("off", spec={"owner": "c"}))) == []

    def test_a_cycle_of_escalations_counts_and_a_mixed_one_does_not(self, world: World) -> None:
        world.owner("a", {"escalation": [{"after": "50%", "to": "b"}]})
        world.owner("b", {"escalation": [{"after": "50%", "to": "a"}]})
        assert rules_of(world.judge(world.claim("x", spec={"owner": "a"}))) == ["OwnerVacant"]
        world.owner("b", {"backup": "a"})
        assert rules_of(world.judge(world.claim("x", spec={"owner": "a"}))) == []

    def test_escalation_counts_only_to_somebody_who_is_there(self, world: World) -> None:
        account = world.account()
        world.owner("a", {"escalation": [{"after": "50%", "to": "ghost"}]})
        world.claim("c", spec={"owner": "a"})
        assert not world.judge(account).ownership.escalation
        world.owner("a", {"escalation": [{"after": "50%", "to": "ghost"}, {"after": "80%", "to": "payments"}]})
        assert world.judge(account).ownership.escalation


class TestUnowned:
    def test_it_is_observable_since_the_subjects_creation(self, world: World) -> None:
        found = violation(world.judge(world.account()), "Unowned")
        assert found.observable == BEGIN
        assert found.risk.level is Risk.LOW
        assert found.message == (
            "Nobody owns ServiceAccount payments/ci: no claim covers it, and no label names an owner."
        )

    def test_what_is_gone_violates_nothing(self, world: World) -> None:
        judged = world.judge(Key("ServiceAccount", NS, "nobody"))
        assert not judged.exists
        assert judged.uid == ""
        assert judged.violations == ()
        assert judged.ownership.claim is None

    def test_deleting_shows_also_when_only_the_namespace_is(self, world: World) -> None:
        account = world.account()
        assert not world.judge(account).deleting
        world.namespace(NS, deleting=True)
        assert world.judge(account).deleting
