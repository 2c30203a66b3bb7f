"""Risk: the table applied to bindings, scope, neighbourhood, groups."""

from __future__ import annotations

import pytest

from tenure.api.names import Risk, Rule
from tenure.model.keys import Key
from tenure.model.records import Subject
from tenure.rules import CATALOGUE
from tests.unit.rules.world import NS, World, violation

GROUP = Subject("Group", "", f"system:serviceaccounts:{NS}")


@pytest.fixture
def world() -> World:
    world = World()
    world.account()
    return world


def graded(world: World, name: str = "ci") -> Risk:
    return world.judge(Key("ServiceAccount", NS, name)).risk.level


def reasons(world: World) -> tuple[str, ...]:
    return world.judge(Key("ServiceAccount", NS, "ci")).risk.reasons


def test_the_worst_binding_counts_and_each_reason_names_binding_and_role(world: World) -> None:
    world.role("edit", "R11", "R12")
    world.role("read", "R07", ns=NS)
    world.bind("edit", name="ci-edit")
    world.bind("read", name="ci-read", role_kind="Role")
    assert graded(world) is Risk.HIGH
    assert reasons(world) == (
        "bound to ClusterRole edit by RoleBinding payments/ci-edit: create pods (R11)",
        "bound to Role read by RoleBinding payments/ci-read: get secrets (R07)",
    )


@pytest.mark.parametrize(("ns", "level"), [(NS, Risk.HIGH), ("", Risk.CRITICAL), ("kube-system", Risk.CRITICAL)])
def test_scope_decides_the_level(world: World, ns: str, level: Risk) -> None:
    world.role("read", "R07")
    world.bind("read", ns=ns)
    assert graded(world) is level


def test_a_binding_in_another_namespace_counts(world: World) -> None:
    world.role("read", "R07")
    world.bind("read", ns="ledger")
    assert reasons(world) == ("bound to ClusterRole read by RoleBinding ledger/read-ci: get secrets (R07)",)


def test_a_binding_as_user_counts_and_says_so(world: World) -> None:
    world.role("read", "R07")
    world.bind("read", Subject("User", "", f"system:serviceaccount:{NS}:ci"), name="b")
    assert "b as User system:serviceaccount:payments:ci: get secrets" in reasons(world)[0]


def test_a_missing_role_grades_nothing_until_it_comes(world: World) -> None:
    world.bind("read")
    judged = world.judge(Key("ServiceAccount", NS, "ci"))
    assert judged.risk.level is Risk.LOW
    assert judged.bindings == (Key("RoleBinding", NS, "read-ci"),)
    world.role("read", "R07")
    assert graded(world) is Risk.HIGH


def test_group_bindings_count_unless_they_are_the_clusters_own(world: World) -> None:
    world.role("read", "R07")
    world.bind("read", GROUP, name="all")
    judged = world.judge(Key("ServiceAccount", NS, "ci"))
    assert judged.risk.level is Risk.HIGH
    assert "all as Group system:serviceaccounts:payments: get secrets" in judged.risk.reasons[0]
    assert judged.bindings == (Key("RoleBinding", NS, "all"),)
    assert "rights through Group system:serviceaccounts:payments" in judged.residual
    world.bind("read", GROUP, name="all", bootstrap=True)
    assert graded(world) is Risk.LOW


@pytest.mark.parametrize("group", ["system:serviceaccounts", "system:authenticated"])
def test_every_group_an_account_is_in_counts(world: World, group: str) -> None:
    world.role("read", "R07")
    world.bind("read", Subject("Group", "", group), ns="")
    assert graded(world) is Risk.CRITICAL


def test_the_clusters_own_binding_of_one_account_counts(world: World) -> None:
    world.role("read", "R07")
    world.bind("read", ns="", bootstrap=True)
    assert graded(world) is Risk.CRITICAL


class TestRunningPods:
    """R11: who may run pods in a namespace may become any ServiceAccount of it."""

    def test_it_is_critical_beside_a_critical_account(self, world: World) -> None:
        world.role("run", "R11")
        world.bind("run")
        assert graded(world) is Risk.HIGH
        world.account("root")
        world.role("root", "R02")
        world.bind("root", "root")
        assert graded(world) is Risk.CRITICAL
        assert reasons(world)[0].endswith("create pods (R11); the namespace holds a Critical ServiceAccount")

    def test_a_neighbour_that_is_only_elevated_itself_does_not_count(self, world: World) -> None:
        world.account("root", "ledger")
        world.role("root", "R02")
        world.bind("root", Subject("ServiceAccount", "ledger", "root"))
        world.role("run", "R11")
        world.account("neighbour")
        world.bind("run", "neighbour", ns="ledger")
        world.bind("run")
        assert graded(world, "neighbour") is Risk.CRITICAL
        assert graded(world) is Risk.HIGH

    def test_the_binding_alone_without_its_account_does_not(self, world: World) -> None:
        world.role("run", "R11")
        world.bind("run")
        world.role("root", "R02")
        world.bind("root", "not-there")
        assert graded(world) is Risk.HIGH
        world.account("not-there")
        assert graded(world) is Risk.CRITICAL

    def test_the_bindings_namespace_is_what_counts(self, world: World) -> None:
        world.role("run", "R11")
        world.bind("run", ns="ledger")
        world.account("root", "ledger")
        world.role("root", "R02")
        world.bind("root", Subject("ServiceAccount", "ledger", "root"))
        assert graded(world) is Risk.CRITICAL

    @pytest.mark.parametrize("ns", ["", "kube-system"])
    def test_with_kube_system_within_reach_it_is_critical(self, world: World, ns: str) -> None:
        world.role("run", "R11")
        world.bind("run", ns=ns)
        assert graded(world) is Risk.CRITICAL


def test_a_claims_risk_is_the_highest_among_its_subjects(world: World) -> None:
    world.owner()
    world.token()
    world.role("read", "R07")
    world.bind("read", ns="")
    claim = world.claim("c", {"secrets": {"names": ["ci-token"]}}, spec={"owner": "ghost"})
    assert world.judge(claim).risk.level is Risk.CRITICAL
    assert violation(world.judge(claim), "OwnerVacant").risk.level is Risk.CRITICAL


def test_a_violation_has_at_least_its_rules_base(world: World) -> None:
    world.role("poke", "R12")
    world.bind("poke")
    token = world.token()
    assert world.judge(token).risk.level is Risk.MEDIUM
    assert violation(world.judge(token), "LegacyToken").risk.level is Risk.MEDIUM
    world.store.remove("RoleBinding", NS, "poke-ci")
    found = violation(world.judge(token), "LegacyToken")
    assert found.risk.level is Risk.MEDIUM
    assert found.risk.reasons == ("LegacyToken is at least Medium",)
    assert world.judge(token).risk.level is Risk.LOW


def test_many_bindings_are_counted_not_listed(world: World) -> None:
    world.role("r" * 250, "R07")
    for number in range(9):
        world.bind("r" * 250, name=f"b{number}")
    found = reasons(world)
    assert len(found) == 6
    assert found[-1] == "and 4 more bindings, none of them worse"
    assert all(len(line) <= 200 for line in found)


def test_every_rule_is_in_the_catalogue_with_its_base_risk() -> None:
    assert set(CATALOGUE) == set(Rule)
    low = {rule for rule, entry in CATALOGUE.items() if entry.base is Risk.LOW}
    assert low == {Rule.UNOWNED, Rule.CLAIM_CONFLICT, Rule.REVIEW_OVERDUE}
    assert all(entry.base in (Risk.LOW, Risk.MEDIUM) for entry in CATALOGUE.values())
    assert all(entry.owasp and entry.nist and entry.subjects for entry in CATALOGUE.values())
