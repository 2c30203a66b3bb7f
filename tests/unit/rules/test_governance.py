"""Which policy governs: precedence, conflict, selectors, platform namespaces, what cannot be read."""

from __future__ import annotations

import pytest

from tenure.model.evaluation import Governance
from tenure.model.keys import Key
from tenure.model.records import Unprocessable
from tests.unit.rules.world import NS, World


def governed(world: World, ns: str = NS) -> Governance:
    return world.judge(Key("ServiceAccount", ns, "ci")).governance


def policy_name(world: World, ns: str = NS) -> str | None:
    policy = governed(world, ns).policy
    return None if policy is None else policy.name


def test_no_policy_is_audit_with_the_defaults() -> None:
    assert governed(World()) == Governance()


def test_the_highest_precedence_that_matches_wins_whole() -> None:
    world = World()
    world.policy("low", {"enforceIn": {}})
    world.policy("high", {"precedence": 5, "namespaceSelector": {"matchLabels": {"team": "payments"}}})
    assert policy_name(world) == "low"
    assert governed(world).enforcing
    world.namespace(NS, {"team": "payments"})
    assert policy_name(world) == "high"
    assert not governed(world).enforcing


def test_two_equal_ones_conflict_and_govern_nothing_and_a_higher_one_settles_it() -> None:
    world = World()
    world.policy("b", {"enforceIn": {}})
    world.policy("a", {"enforceIn": {}})
    found = governed(world)
    assert found.policy is None
    assert found.conflict == ("a", "b")
    assert not found.enforcing
    world.policy("c", {"precedence": 1})
    assert policy_name(world) == "c"
    assert governed(world).conflict == ()


@pytest.mark.parametrize(
    ("spec", "enforcing"),
    [({}, False), ({"enforceIn": {}}, True), ({"enforceIn": {"matchLabels": {"tenure.dev/mode": "enforce"}}}, False)],
)
def test_enforce_in_absent_is_nowhere_and_empty_is_everywhere(spec: dict[str, object], enforcing: bool) -> None:
    world = World()
    world.policy("p", spec)
    assert governed(world).enforcing is enforcing
    world.namespace(NS, {"tenure.dev/mode": "enforce"})
    assert governed(world).enforcing is bool(spec)


def test_platform_namespaces_are_matched_by_name_alone() -> None:
    world = World()
    for ns in ("kube-system", "ingress", "tenure-system"):
        world.namespace(ns)
    world.policy("p", {"namespaceSelector": {}, "enforceIn": {}})
    assert policy_name(world, "kube-system") is None
    assert policy_name(world, "ingress") is None
    world.policy("q", {"precedence": -1, "platformNamespaces": ["ingress", "tenure-system"], "enforceIn": {}})
    found = governed(world, "ingress")
    assert (policy_name(world, "ingress"), found.enforcing, found.platform, found.platform_named) == (
        "q",
        True,
        True,
        True,
    )
    assert policy_name(world, "kube-system") is None
    own = governed(world, "tenure-system")
    assert own == Governance(platform=True, own=True)


def test_a_name_in_platform_namespaces_does_not_reach_an_ordinary_namespace() -> None:
    world = World()
    world.policy("p", {"namespaceSelector": {"matchLabels": {"a": "b"}}, "platformNamespaces": [NS]})
    assert policy_name(world) is None


@pytest.mark.parametrize(
    ("kind", "ns", "there", "elsewhere"),
    [
        ("GovernancePolicy", "", ("GovernancePolicy/broken",), ("GovernancePolicy/broken",)),
        ("IdentityOwner", "", ("IdentityOwner/broken",), ("IdentityOwner/broken",)),
        ("OwnedIdentity", NS, ("OwnedIdentity/broken",), ()),
        ("IdentityException", NS, ("IdentityException/broken",), ()),
    ],
)
def test_what_cannot_be_read_is_named_wherever_it_may_bear(
    kind: str, ns: str, there: tuple[str, ...], elsewhere: tuple[str, ...]
) -> None:
    world = World()
    world.store.upsert(kind, Unprocessable(kind, ns, "broken", "u", 1, "1", "spec.x: unknown"))
    assert governed(world).unreadable == there
    assert governed(world, "elsewhere").unreadable == elsewhere
