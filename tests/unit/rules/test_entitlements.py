"""EntitlementUndeclared: what is bound, in which form, and what a claim has to say about it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tenure.api.names import IdentityClass, Risk
from tenure.decide.finding import finding_name
from tenure.inventory import entitlements
from tenure.model.keys import Key
from tenure.model.records import Binding, Subject
from tests.unit.rules.world import BEGIN, DAY, NOW, NS, World, active, rules_of, violation

UNDECLARED = "EntitlementUndeclared"
USER = Subject("User", "", f"system:serviceaccount:{NS}:ci")


@pytest.fixture
def world() -> World:
    """One account, one role that the risk table does not grade."""
    made = World()
    made.owner()
    made.namespace("ledger")
    made.account("ci")
    made.role("view")
    return made


def keys(binding: Binding) -> tuple[Key, ...]:
    return tuple(entitlements.of(binding, "tenure-system"))


def holds(world: World, binding: Binding, **more: Any) -> list[bool]:
    return [UNDECLARED in rules_of(world.judge(key, **more)) for key in keys(binding)]


def declare(world: World, *entries: Any, **more: Any) -> Any:
    return world.claim("claim", {"serviceAccounts": {"names": ["ci"]}}, spec={"entitlements": list(entries)}, **more)


VIEW = {"roleRef": {"kind": "ClusterRole", "name": "view"}}


def test_it_holds_for_whom_nobody_claimed_and_whoever_claims_without_listing_it(world: World) -> None:
    bound = world.bind("view")
    [key] = keys(bound)
    judged = world.judge(key)
    found = violation(judged, UNDECLARED)
    assert found.risk.level is Risk.MEDIUM
    assert found.observable == BEGIN
    assert "no claim covers the identity" in found.message
    assert judged.ownership.state == "none"
    declare(world)
    judged = world.judge(key)
    assert "claim payments/claim does not list it" in violation(judged, UNDECLARED).message
    assert judged.ownership.owner == "payments"


@pytest.mark.parametrize(
    ("entry", "declared"),
    [
        (VIEW, ["claim's"]),
        ({**VIEW, "namespace": "ledger"}, ["other's"]),
        ({**VIEW, "scope": "Cluster"}, ["cluster"]),
        ({"roleRef": {"kind": "Role", "name": "view"}}, []),
        ({"roleRef": {"kind": "ClusterRole", "name": "edit"}}, []),
    ],
)
def test_a_claim_declares_a_role_where_it_is_bound(world: World, entry: Any, declared: list[str]) -> None:
    bound = {
        "claim's": world.bind("view"),
        "other's": world.bind("view", ns="ledger"),
        "cluster": world.bind("view", ns=""),
    }
    declare(world, entry)
    assert [where for where, binding in bound.items() if holds(world, binding) == [False]] == declared


def test_the_first_claim_that_lists_it_declared_it(world: World) -> None:
    [key] = keys(world.bind("view"))
    assert (world.judge(key).declared_by, world.judge(key).declared) == (None, None)
    subjects = {"serviceAccounts": {"names": ["ci"]}}
    for name, days in (("later", 1), ("first", 3), ("silent", 5)):
        listed = {"entitlements": [VIEW] if name != "silent" else []}
        world.claim(name, subjects, spec=listed, spec_changed=NOW - days * DAY)
    judged = world.judge(key)
    assert judged.declared_by == Key("OwnedIdentity", NS, "first")
    assert judged.declared == NOW - 3 * DAY


def test_every_form_counts_and_has_its_own_lineage(world: World) -> None:
    bound = world.bind("view")
    both = world.put("RoleBinding", replace(bound, subjects=(*bound.subjects, USER, *bound.subjects)))
    assert holds(world, both) == [True, True]
    names = {finding_name(key, violation(world.judge(key), UNDECLARED).rule) for key in keys(both)}
    assert len(names) == 2
    people = world.bind("view", Subject("Group", "", f"system:serviceaccounts:{NS}"), name="group")
    assert keys(people) == ()


def test_it_lies_where_the_binding_is_and_the_cluster_s_in_the_operators(world: World) -> None:
    assert [key.namespace for key in keys(world.bind("view", ns="ledger"))] == ["ledger"]
    [key] = keys(world.bind("view", ns=""))
    assert key[:3] == ("ClusterRoleBinding", "tenure-system", "view-ci")
    assert world.judge(key).governed == NS


def test_a_lapsed_claim_and_one_on_somebody_else_declare_nothing(world: World) -> None:
    bound = world.bind("view")
    end = (NOW - DAY).isoformat()
    world.claim("old", {"serviceAccounts": {"names": ["ci"]}}, spec={"entitlements": [VIEW], "expiresAt": end})
    world.claim("other", {"serviceAccounts": {"names": ["cd"]}}, spec={"entitlements": [VIEW]})
    assert holds(world, bound) == [True]
    assert holds(world, bound, now=NOW - 2 * DAY) == [False]
    [key] = keys(bound)
    assert world.judge(key, NOW - 2 * DAY).next_change == NOW - DAY


def test_any_claim_that_covers_it_may_list_it_and_a_name_may_be_claimed_ahead(world: World) -> None:
    declare(world)
    world.claim("selecting", {"selector": {}}, spec={"entitlements": [VIEW]})
    assert holds(world, world.bind("view")) == [False]
    ahead = world.bind("view", Subject("ServiceAccount", NS, "soon"), name="soon")
    assert holds(world, ahead) == [False]
    world.claim("selecting", {"selector": {"matchLabels": {"a": "b"}}}, spec={"entitlements": [VIEW]})
    assert holds(world, ahead) == [True]


def test_platform_identities_and_bootstrap_bindings_are_the_clusters(world: World) -> None:
    world.account("controller", "kube-system")
    mine = Subject("ServiceAccount", "kube-system", "controller")
    assert holds(world, world.bind("view", mine, name="theirs")) == [False]
    assert holds(world, world.bind("view", name="kept", bootstrap=True)) == [False]
    there = world.bind("view", ns="kube-system", name="there")
    [key] = keys(there)
    judged = world.judge(key)
    assert UNDECLARED in rules_of(judged)
    assert judged.governance.platform
    assert not judged.governance.platform_named
    assert judged.ownership.class_ is IdentityClass.WORKLOAD
    world.policy(spec={"platformNamespaces": ["kube-system"], "namespaceSelector": {}})
    assert world.judge(key).governance.platform_named
    assert holds(world, world.bind("view", mine, name="theirs")) == [True]


def test_the_risk_is_that_of_this_binding(world: World) -> None:
    world.role("admin", "R02")
    world.bind("admin", ns="ledger")
    [mild], [grave] = keys(world.bind("view")), keys(world.bind("admin", ns="ledger"))
    assert violation(world.judge(mild), UNDECLARED).risk.level is Risk.MEDIUM
    assert violation(world.judge(grave), UNDECLARED).risk.level is Risk.CRITICAL


def test_an_exception_for_the_binding_waives_it(world: World) -> None:
    bound = world.bind("view")
    [key] = keys(bound)
    made = world.exception(target={"kind": "RoleBinding", "name": bound.name}, rules=(UNDECLARED,))
    status = active(made)
    pins = [{"kind": "RoleBinding", "name": bound.name, "uid": bound.uid}]
    status = type(status).read({**status.wire(), "matched": pins})
    world.put("IdentityException", replace(made, status=status))
    assert UNDECLARED in world.judge(key).waivers


def test_it_is_gone_with_its_subject_its_binding_or_its_role(world: World) -> None:
    bound = world.bind("view")
    [key] = keys(bound)
    world.put("RoleBinding", replace(bound, role_name="edit", uid="another"))
    assert not world.judge(key).exists
    world.put("RoleBinding", replace(bound, subjects=()))
    assert not world.judge(key).exists
    world.store.remove("RoleBinding", NS, bound.name)
    assert not world.judge(key).exists
