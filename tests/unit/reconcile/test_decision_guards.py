"""What the guard on decisions is told."""

from __future__ import annotations

from dataclasses import replace

from tenure.api.guard import QuarantineGuardSpec
from tenure.model.records import Unprocessable
from tenure.reconcile.decision_guards import LARGEST, decisions_guard
from tests.unit.rules.world import NS, World


def test_it_knows_whose_request_each_exception_is_and_what_has_moved_on() -> None:
    world = World()
    assert decisions_guard(world.store, NS) == QuarantineGuardSpec()
    waiver = world.exception(spec={"onBehalfOf": "carol@example.com"}, generation=3)
    world.claim("first")
    moved = world.claim("moved", generation=2)
    world.finding(world.account(), "Unowned")
    risen = world.finding(world.token(), "LegacyToken", spec={"revision": 4})
    found = decisions_guard(world.store, NS).wire()
    assert found["exceptions"] == {
        "waiver": {
            "uid": waiver.uid,
            "generation": 3,
            "requestedBy": "alice@example.com",
            "onBehalfOf": "carol@example.com",
        }
    }
    assert found["claims"] == {"moved": {"uid": moved.uid, "version": 2}}
    assert found["findings"] == {risen.name: {"uid": risen.uid, "version": 4}}


def test_of_what_cannot_be_read_it_says_what_stands_in_the_metadata() -> None:
    world = World()
    unread = Unprocessable("IdentityException", NS, "newer", "uid-1", 7, "1", "spec.more: unknown")
    world.store.upsert("IdentityException", unread)
    [entry] = decisions_guard(world.store, NS).exceptions.values()
    assert (entry.uid, entry.generation, entry.requested_by) == ("uid-1", 7, "")


def test_it_stays_within_what_one_object_may_take() -> None:
    world = World()
    record = world.exception(spec={"requestedBy": "r" * 1024, "onBehalfOf": "o" * 1024})
    for number in range(1200):
        name = f"e-{number:04d}"
        world.put("IdentityException", replace(record, name=name, uid=name, resource_version="9"))
    found = decisions_guard(world.store, NS)
    assert len(found.model_dump_json()) <= LARGEST + 1000
    assert 300 < len(found.exceptions) < 1201
    assert min(found.exceptions) == "e-0000"
