"""Gathering: what an evaluation sees, live records, purity, determinism, and that caches forget."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from tenure import rules
from tenure.inventory.snapshot import Shared, evaluate, gather, subjects
from tenure.model.evaluation import Evaluation
from tenure.model.keys import Key
from tests.unit.rules.world import BEGIN, DAY, NOW, NS, World, rules_of


@pytest.fixture
def world() -> World:
    world = World()
    world.owner()
    return world


def test_an_account_shows_its_bindings_tokens_and_exceptions(world: World) -> None:
    account = world.account()
    world.token("b-token")
    world.token("a-token")
    world.role("view")
    world.bind("view")
    world.bind("view", ns="")
    world.exception(target={"kind": "ServiceAccount", "name": "ci"}, rules=("Unowned",))
    judged = world.judge(account)
    assert judged.key == Key("ServiceAccount", NS, "ci")
    assert (judged.uid, judged.created, judged.exists) == (account.uid, BEGIN, True)
    assert judged.bindings == (Key("ClusterRoleBinding", "", "view-ci"), Key("RoleBinding", NS, "view-ci"))
    assert judged.credentials == (Key("Secret", NS, "a-token"), Key("Secret", NS, "b-token"))
    assert judged.exceptions == (Key("IdentityException", NS, "waiver"),)


def test_a_claim_counts_what_it_covers_tokens_of_its_accounts_included(world: World) -> None:
    world.account()
    world.token()
    world.secret("api", keys=("token",))
    world.secret("conf", keys=("config.yaml",))
    world.account("other", "elsewhere")
    assert world.judge(world.claim("all")).covered == {"ServiceAccount": 1, "Secret": 2}
    named = world.claim("named", {"serviceAccounts": {"names": ["ci", "missing"]}})
    assert world.judge(named).covered == {"ServiceAccount": 1, "Secret": 1}


def test_residual_names_pods_only_while_the_subject_is_quarantined(world: World) -> None:
    account = world.account()
    always = (
        "bound tokens issued before work until they expire",
        "whoever may impersonate it acts as it; `tenure inventory` names them",
    )
    assert world.judge(account).residual == always
    for number in range(7):
        world.pod(f"pod-{number}")
    world.pod("done", finished=True)
    assert world.judge(account).residual[0] == "running pods hold bound tokens until they end"
    world.quarantine(account)
    assert world.judge(account).residual == (
        *(f"pod pod-{number} holds a bound token until it ends" for number in range(3)),
        "and 4 more pods",
        *always,
    )


def test_residual_of_secrets(world: World) -> None:
    world.account()
    assert world.judge(world.token()).residual == ()
    assert world.judge(world.secret("conf", keys=("config.yaml",))).residual == ()
    secret = world.secret("api", keys=("token",))
    assert len(world.judge(secret).residual) == 1
    world.pod("p", secrets=("api",))
    assert world.judge(secret).residual[1:] == ("running pods keep the content they consumed",)


class TestLive:
    """What is read just before an act takes the place of what is stored, and nothing else changes."""

    def test_a_changed_account_or_secret_is_judged_as_read(self, world: World) -> None:
        account = world.account()
        world.claim("c", {"selector": {"matchLabels": {"app": "ci"}}})
        assert rules_of(world.judge(account)) == ["Unowned"]
        claimed = replace(account, labels=(("app", "ci"),))
        assert rules_of(world.judge(account, live=claimed)) == []
        assert rules_of(world.judge(account)) == ["Unowned"]
        token = world.token()
        rotated = replace(token, data_changed=NOW - DAY)
        later = BEGIN + 400 * DAY
        assert rules_of(world.judge(token, later)) == ["CredentialTooOld", "LegacyToken"]
        assert rules_of(world.judge(token, later, live=rotated)) == ["LegacyToken"]

    def test_gone_is_gone_though_the_store_still_has_it(self, world: World) -> None:
        account = world.account()
        judged = world.judge(account, live=None)
        assert not judged.exists
        assert judged.violations == ()

    def test_another_uid_shows(self, world: World) -> None:
        account = world.account()
        assert world.judge(account, live=replace(account, uid="new")).uid == "new"

    def test_a_live_claim_or_exception_takes_its_own_place_among_the_others(self, world: World) -> None:
        world.account()
        first = world.claim("a")
        later = world.claim("b")
        assert rules_of(world.judge(later)) == ["ClaimConflict"]
        assert rules_of(world.judge(later, live=replace(later, created=BEGIN - DAY))) == []
        assert rules_of(world.judge(first)) == []
        record = world.exception()
        longer = record.spec.model_copy(update={"expires_at": NOW - DAY})
        standing = world.judge(record, live=replace(record, spec=longer)).standing
        assert standing is not None
        assert standing.phase == "Expired"


def test_subjects_are_everything_there_is_to_judge(world: World) -> None:
    world.account()
    world.secret("conf", keys=("config.yaml",))
    world.claim("c")
    world.exception()
    assert sorted(subjects(world.store)) == [
        Key("IdentityException", NS, "waiver"),
        Key("OwnedIdentity", NS, "c"),
        Key("Secret", NS, "conf"),
        Key("ServiceAccount", NS, "ci"),
    ]
    for key in subjects(world.store):
        assert evaluate(world.store, key, NOW, world.installation).exists


@pytest.mark.parametrize("kind", ["Pod", "Role", "IdentityFinding", "External"])
def test_other_kinds_are_not_judged(world: World, kind: str) -> None:
    with pytest.raises(KeyError, match=kind):
        world.judge(Key(kind, NS, "x"))


def _full(world: World) -> dict[Key, Evaluation]:
    return {key: evaluate(world.store, key, NOW, world.installation) for key in subjects(world.store)}


def _cluster(world: World, *, backwards: bool) -> None:
    """The same objects in one order or the other."""
    world.namespace(NS, {"team": "payments"})
    steps = [
        lambda: world.policy("p", {"ownership": {"namespaceLabels": ["team"]}}),
        lambda: [world.role("run", "R11"), world.role("root", "R02")],
        lambda: [world.bind("run"), world.bind("root", "root")],
        lambda: [world.account("ci", labels={"a": "b"}), world.account("root")],
        lambda: [world.token(), world.secret("api", keys=("token",))],
        lambda: world.claim("a"),
        lambda: world.claim("b", {"serviceAccounts": {"selector": {"matchLabels": {"a": "b"}}}}),
        lambda: world.exception(spec={"expiresAt": (NOW - DAY).isoformat()}),
        lambda: world.pod("p"),
    ]
    for step in reversed(steps) if backwards else steps:
        step()


def _plain(judged: dict[Key, Evaluation]) -> dict[Key, object]:
    return {
        key: replace(found, uid="", governance=replace(found.governance, policy=None)) for key, found in judged.items()
    }


def test_the_order_of_arrival_does_not_matter() -> None:
    one, other = World(), World()
    for world, backwards in ((one, False), (other, True)):
        world.owner()
        _cluster(world, backwards=backwards)
    first, second = _plain(_full(one)), _plain(_full(other))
    for judged in (first, second):
        for key, found in judged.items():
            judged[key] = replace(found, pins=())  # type: ignore[type-var]
    assert first == second


def test_facts_and_an_instant_are_all_that_counts(world: World) -> None:
    _cluster(world, backwards=False)
    for key in subjects(world.store):
        facts = gather(world.store, key, world.installation)
        once = rules.evaluate(facts, NOW)
        world.store.remove("RoleBinding", NS, "no-such")
        assert rules.evaluate(facts, NOW) == once
        assert once.violations == tuple(sorted(once.violations, key=lambda found: found.rule))


def test_facts_are_a_snapshot_that_later_changes_do_not_reach(world: World) -> None:
    account = world.account()
    facts = world.facts(account)
    before = rules.evaluate(facts, NOW)
    world.claim("c")
    world.owner("another")
    world.namespace(NS, {"tenure.dev/owner": "payments"})
    assert rules.evaluate(facts, NOW) == before
    assert rules_of(world.judge(account)) == []


def test_a_store_has_one_shared_among_its_listeners(world: World) -> None:
    assert Shared.of(world.store) is Shared.of(world.store)
    assert sum(isinstance(listener, Shared) for listener in world.store.listeners) == 1
    assert Shared.of(World().store) is not Shared.of(world.store)


def test_next_change_is_always_ahead(world: World) -> None:
    _cluster(world, backwards=False)
    world.claim("ends", spec={"expiresAt": (NOW + DAY).isoformat()})
    for at in (BEGIN, NOW, NOW + DAY, datetime(2030, 1, 1, tzinfo=UTC)):
        for key in subjects(world.store):
            following = evaluate(world.store, key, at, world.installation).next_change
            assert following is None or following > at
