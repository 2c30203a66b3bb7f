"""The statuses of what people write: an owner for whom nobody may decide says so, and where."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from tenure.api.base import format_timestamp
from tenure.api.conditions import Condition
from tenure.inventory.impact import affected, deciders_moved
from tenure.inventory.snapshot import Shared
from tenure.model.keys import Key
from tenure.model.records import Subject, Unprocessable
from tenure.reconcile.statuses import authored_status, is_processed, stalled_status
from tests.unit.rules.world import NOW, NS, World

HOUR = timedelta(hours=1)
TEAM = Subject("Group", "", "team-payments")


@pytest.fixture
def world() -> World:
    made = World()
    made.owner("payments")
    made.claim(subjects={"serviceAccounts": {"names": ["ci"]}})
    return made


def decider(world: World, *, ns: str = "", name: str = "approver") -> None:
    """A role that names a decision verb."""
    role = world.role(name, ns=ns)
    world.put("Role" if ns else "ClusterRole", replace(role, decides=("approve",), resource_version=0))


def nobody(world: World, owner: str = "payments") -> Condition | None:
    status, _ = authored_status(world.store, Key("IdentityOwner", "", owner), NOW, world.installation)
    assert status is not None
    found = [c for c in status.conditions if c.type == "NobodyMayDecide"]  # type: ignore[attr-defined]
    assert [c.status for c in status.conditions if c.type == "Ready"] == ["True"]  # type: ignore[attr-defined]
    return found[0] if found else None


def test_where_no_binding_names_a_decision_verb_nobody_may_decide(world: World) -> None:
    found = nobody(world)
    assert found is not None
    assert (found.reason, found.message.startswith(f"Accountable in {NS}, where no binding")) == ("NoBinding", True)


def test_a_wildcard_binding_is_nobody(world: World) -> None:
    world.role("cluster-admin", "R01")
    world.bind("cluster-admin", Subject("User", "", "root"), ns="")
    assert nobody(world) is not None


def test_a_bound_group_is_somebody(world: World) -> None:
    decider(world)
    world.bind("approver", TEAM)
    assert nobody(world) is None


def test_a_cluster_binding_counts_everywhere(world: World) -> None:
    decider(world)
    world.bind("approver", TEAM, ns="")
    assert nobody(world) is None


def test_a_role_of_the_namespace_counts_there_alone(world: World) -> None:
    decider(world, ns=NS)
    world.bind("approver", TEAM, role_kind="Role")
    assert nobody(world) is None
    world.claim("elsewhere", ns="ledger")
    found = nobody(world)
    assert found is not None
    assert "Accountable in ledger, where" in found.message


def test_a_binding_without_subjects_is_nobody(world: World) -> None:
    decider(world)
    world.put("RoleBinding", replace(world.bind("approver", TEAM), subjects=()))
    assert nobody(world) is not None


def test_a_role_nobody_is_bound_to_is_nobody(world: World) -> None:
    decider(world)
    assert nobody(world) is not None


def test_who_is_accountable_nowhere_lacks_nobody(world: World) -> None:
    world.owner("idle")
    assert nobody(world, "idle") is None


def test_who_stands_in_for_a_lost_owner_is_accountable_for_its_claims(world: World) -> None:
    world.owner("platform")
    world.owner("payments", {"suspended": True, "backup": "platform"})
    assert nobody(world, "payments") is None
    assert nobody(world, "platform") is not None


def test_a_label_on_a_namespace_makes_an_owner_accountable_there(world: World) -> None:
    world.owner("ledgers")
    world.namespace("ledger", {"team": "ledgers"})
    assert nobody(world, "ledgers") is None
    world.policy(spec={"ownership": {"namespaceLabels": ["team"]}})
    found = nobody(world, "ledgers")
    assert found is not None
    assert "Accountable in ledger, where" in found.message


def test_a_namespace_that_loses_the_label_is_no_longer_the_owners(world: World) -> None:
    world.owner("ledgers")
    world.namespace("ledger", {"tenure.dev/owner": "ledgers"})
    assert nobody(world, "ledgers") is not None
    world.namespace("ledger")
    assert nobody(world, "ledgers") is None


def test_platform_namespaces_are_left_out(world: World) -> None:
    world.owner("ledgers")
    world.namespace("kube-system", {"tenure.dev/owner": "ledgers"})
    assert nobody(world, "ledgers") is None


def test_many_namespaces_are_counted(world: World) -> None:
    for n in range(8):
        world.claim(ns=f"ns-{n}")
    found = nobody(world)
    assert found is not None
    assert "Accountable in ns-0, ns-1, ns-2, ns-3, ns-4 and 4 more, where" in found.message
    assert len(found.message) <= 512


# --- who is told


def test_owners_are_told_when_a_namespace_gets_its_first_decider_or_loses_its_last(world: World) -> None:
    told: list[bool] = []

    def listen(kind: str, old: object, new: object) -> None:
        affected(world.store, kind, old, new)  # type: ignore[arg-type]
        told.append(deciders_moved(world.store, kind, old, new))  # type: ignore[arg-type]

    assert Shared.of(world.store).deciders() == frozenset()
    world.store.listeners.append(listen)
    decider(world)
    world.bind("approver", TEAM, name="first")
    world.bind("approver", TEAM, name="second")
    world.role("viewer")
    world.bind("viewer", TEAM, name="reader")
    world.store.remove("RoleBinding", NS, "first")
    world.store.remove("RoleBinding", NS, "second")
    # role, its verbs | first | second | viewer | reader | first gone | second gone
    assert told == [False, False, True, False, False, False, False, True]
    world.bind("approver", TEAM, name="first")
    world.store.remove("ClusterRole", "", "approver")
    assert told[-2:] == [True, True]


# --- what cannot be read


def unread(kind: str, generation: int = 2, at: datetime = NOW) -> Unprocessable:
    return Unprocessable(kind, NS, "newer", "uid-1", generation, "1", "spec.more: unknown", spec_changed=at)


READY = {"type": "Ready", "status": "True", "reason": "SpecProcessed"}
CONFLICT = {"type": "Conflict", "status": "True", "reason": "EarlierClaim"}


def test_what_cannot_be_read_has_stalled_and_keeps_the_rest() -> None:
    stored = {"observedGeneration": 2, "accountable": "payments", "conditions": [READY, CONFLICT]}
    said = stalled_status(stored, unread("OwnedIdentity"), NOW)
    assert said is not None
    assert [c["type"] for c in said["conditions"]] == ["Stalled", "Conflict"]
    assert (said["observedGeneration"], said["accountable"]) == (2, "payments")
    assert stored["conditions"] == [READY, CONFLICT]
    assert stalled_status(said, unread("OwnedIdentity"), NOW) is None, "once"
    again = stalled_status(said, unread("OwnedIdentity", 3), NOW)
    assert again is not None
    assert again["observedGeneration"] == 3, "for each generation"


def test_pins_and_approvals_outlive_what_cannot_be_read_but_no_change_of_the_spec() -> None:
    stored = {"observedGeneration": 2, "stamped": "2026-01-01T00:00:00Z", "matched": [{"name": "a"}], "phase": "Active"}
    same = stalled_status(stored, unread("IdentityException"), NOW)
    assert same is not None
    assert (same["matched"], same["stamped"]) == (stored["matched"], stored["stamped"])
    changed = stalled_status(stored, unread("IdentityException", 3), NOW + HOUR)
    assert changed is not None
    assert changed.keys() == {"stamped", "conditions", "observedGeneration"}
    assert changed["stamped"] == format_timestamp(NOW), "when the spec was written"
    wiped = stalled_status({**stored, "stamped": format_timestamp(NOW + HOUR)}, unread("IdentityException", 3), NOW)
    assert wiped is not None
    assert wiped["stamped"] == format_timestamp(NOW + HOUR), "no generation is older than the one before it"


def test_processed_is_the_present_generation_alone() -> None:
    assert is_processed({"observedGeneration": 2, "conditions": [READY]}, 2)
    assert not is_processed({"observedGeneration": 1, "conditions": [READY]}, 2)
    assert not is_processed({"observedGeneration": 2, "conditions": [CONFLICT]}, 2)
    assert not is_processed({"observedGeneration": -1}, 1)
