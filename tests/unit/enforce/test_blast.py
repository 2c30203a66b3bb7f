"""The blast radius, without a cluster."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from tenure.api.names import Mode, OnDeadline, Risk, Rule, Verdict
from tenure.api.policy import BlastRadius
from tenure.decide.terms import Terms
from tenure.decide.wish import Wish
from tenure.enforce.blast import Budget, pick
from tenure.model.keys import Key
from tenure.reconcile.ledger import RecordedAct

T0 = datetime(2026, 11, 1, 12, tzinfo=UTC)
TERMS = Terms(timedelta(days=1), OnDeadline.QUARANTINE, Mode.ENFORCE, "GovernancePolicy/default")


def wish(risk: Risk = Risk.LOW, due: datetime = T0) -> Wish:
    return Wish("f", Rule.UNOWNED, risk, Verdict.QUARANTINE, due, 1, TERMS)


def key(namespace: str, name: str) -> Key:
    return Key("ServiceAccount", namespace, name)


def budget(*namespaces: str, cap: BlastRadius | None = None) -> Budget:
    acts = tuple(RecordedAct(str(n), T0 - timedelta(minutes=30 - n), ns, "default") for n, ns in enumerate(namespaces))
    return Budget(cap or BlastRadius(), acts)


def test_at_least_one_act_is_always_allowed() -> None:
    cap = BlastRadius(max_actions=1, max_percent_per_namespace=1)
    assert budget(cap=cap).free_at("a", 0, T0) is None
    assert budget(cap=cap).free_at("a", 3, T0) is None


def test_the_cap_says_when_the_next_place_is_free() -> None:
    cap = BlastRadius(max_actions=2, max_percent_per_namespace=100)
    full = budget("a", "b", cap=cap)
    assert full.free_at("c", 100, T0) == full.acts[0].at + timedelta(hours=1)


def test_the_share_of_a_namespace_holds_beside_the_cap() -> None:
    cap = BlastRadius(max_actions=100, max_percent_per_namespace=20)
    used = budget("a", "a", cap=cap)
    assert used.free_at("a", 10, T0) == used.acts[0].at + timedelta(hours=1)
    assert used.free_at("a", 15, T0) is None
    assert used.free_at("b", 10, T0) is None


def test_namespaces_take_turns_and_the_worst_risk_goes_first_in_one() -> None:
    pending = {
        key("noisy", "a"): wish(Risk.CRITICAL),
        key("quiet", "b"): wish(Risk.LOW),
        key("quiet", "c"): wish(Risk.HIGH, T0 + timedelta(hours=1)),
    }
    choice = pick(pending, lambda _: budget("noisy"), lambda _: 100, T0)
    assert choice.key == key("quiet", "c")


def test_those_that_wait_are_named_with_the_instant() -> None:
    cap = BlastRadius(max_actions=1, max_percent_per_namespace=100)
    spent = budget("a", cap=cap)
    choice = pick({key("a", "x"): wish(), key("b", "y"): wish()}, lambda _: spent, lambda _: 100, T0)
    assert choice.key is None
    assert choice.waiting == {key("a", "x"), key("b", "y")}
    assert choice.free_at == spent.acts[0].at + timedelta(hours=1)


@given(
    st.dictionaries(st.sampled_from("abcd"), st.integers(1, 40), min_size=1),
    st.integers(1, 12),
    st.integers(1, 100),
)
def test_whatever_falls_due_at_once_no_window_ever_holds_more_than_the_cap(
    sizes: dict[str, int], most: int, percent: int
) -> None:
    cap = BlastRadius(max_actions=most, max_percent_per_namespace=percent)
    pending = {key(ns, f"s{n}"): wish() for ns, size in sizes.items() for n in range(size)}
    acts: list[RecordedAct] = []
    now = T0
    for _ in range(3 * most):
        recent = tuple(a for a in acts if a.at > now - cap.window)
        choice = pick(pending, lambda _: Budget(cap, recent), sizes.__getitem__, now)  # noqa: B023
        if choice.key is None:
            break
        del pending[choice.key]
        acts.append(RecordedAct(str(len(acts)), now, choice.key.namespace, "default"))
        now += timedelta(seconds=1)
    assert len(acts) <= most
    assert acts, "at least one"
    for ns, size in sizes.items():
        assert sum(a.namespace == ns for a in acts) <= max(1, size * percent // 100)
    if most >= len(sizes):
        assert {a.namespace for a in acts} == set(sizes), "no namespace is starved by another's flood"
