"""Events: their shape, the bounded queue, and that nothing makes the recorder fail."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tenure.kube.resources import EVENTS, Resource
from tenure.model.keys import Key
from tenure.telemetry import events
from tenure.telemetry.events import Recorder, reference

T0 = datetime(2026, 12, 4, 9, 0, 0, 123456, tzinfo=UTC)
REGARDING = reference(Key("ServiceAccount", "payments", "ci"), "6d0f")


class Server:
    """Takes what is created, or refuses it."""

    def __init__(self) -> None:
        self.created: list[dict[str, Any]] = []
        self.refusal: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def create(self, resource: Resource, obj: dict[str, Any]) -> dict[str, Any]:
        assert resource is EVENTS
        await self.gate.wait()
        if self.refusal:
            raise self.refusal
        self.created.append(obj)
        return obj


def recorder(server: Server, limit: int = 100) -> Recorder:
    return Recorder(server, "tenure-0", now=lambda: T0, limit=limit)


async def sent(made: Recorder) -> None:
    made.start()
    await made.stop()


async def test_the_shape() -> None:
    server = Server()
    made = recorder(server)
    made.event(REGARDING, events.IDENTITY_QUARANTINED, "Guard done", action="Quarantine")
    made.event(REGARDING, events.ENFORCEMENT_FAILED, "it did not work", warning=True)
    await sent(made)
    first, second = server.created
    assert first["metadata"]["name"].startswith("ci.")
    assert first["metadata"]["name"] != second["metadata"]["name"]
    del first["metadata"]["name"]
    assert first == {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"namespace": "payments"},
        "involvedObject": {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "namespace": "payments",
            "name": "ci",
            "uid": "6d0f",
        },
        "type": "Normal",
        "reason": "IdentityQuarantined",
        "action": "Quarantine",
        "message": "Guard done",
        "eventTime": "2026-12-04T09:00:00.123456Z",
        "firstTimestamp": "2026-12-04T09:00:00Z",
        "lastTimestamp": "2026-12-04T09:00:00Z",
        "count": 1,
        "reportingComponent": "tenure.dev/operator",
        "reportingInstance": "tenure-0",
        "source": {"component": "tenure.dev/operator"},
    }
    assert (second["type"], second["action"]) == ("Warning", "EnforcementFailed")
    assert made.dropped == 0


async def test_cluster_scoped_objects_have_theirs_in_default() -> None:
    server = Server()
    made = recorder(server)
    made.event(reference(Key("GovernancePolicy", "", "default"), "u"), "Reason", "note")
    made.event(reference(Key("ClusterRoleBinding", "", "system:node:x"), "u"), "Reason", "note")
    await sent(made)
    assert [e["metadata"]["namespace"] for e in server.created] == ["default", "default"]
    assert server.created[0]["involvedObject"]["apiVersion"] == "tenure.dev/v1alpha1"
    assert ":" not in server.created[1]["metadata"]["name"]


async def test_long_texts_are_cut_in_bytes() -> None:
    server = Server()
    made = recorder(server)
    made.event(REGARDING, "R" * 200, "ä" * 2000)
    made.event({**REGARDING, "name": "n" * 253}, "R", "short")
    await sent(made)
    note = server.created[0]["message"]
    assert len(note.encode()) <= events.NOTE_LIMIT
    assert note.endswith("ä…")
    assert len(server.created[0]["reason"]) == 128
    assert len(server.created[1]["metadata"]["name"]) <= 253


async def test_a_full_queue_drops_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    server = Server()
    made = recorder(server, limit=2)
    with caplog.at_level(logging.WARNING):
        for _ in range(20):
            made.event(REGARDING, "R", "note")
    assert made.dropped == 18
    assert len(caplog.records) == 1
    await sent(made)
    assert len(server.created) == 2


async def test_a_flood_about_one_object_is_cut_and_others_are_heard() -> None:
    server = Server()
    now = T0
    made = Recorder(server, now=lambda: now)
    other = reference(Key("ServiceAccount", "payments", "other"), "u")
    for _ in range(events.BURST + 10):
        made.event(REGARDING, "R", "again")
    made.event(other, "R", "heard")
    now += timedelta(seconds=2 * events.REFILL)
    for _ in range(5):
        made.event(REGARDING, "R", "later")
    await sent(made)
    notes = [event["message"] for event in server.created]
    assert [notes.count(note) for note in ("again", "heard", "later")] == [events.BURST, 1, 2]
    assert made.dropped == 13


async def test_a_refusal_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    server = Server()
    server.refusal = RuntimeError("forbidden")
    made = recorder(server)
    made.start()
    made.event(REGARDING, "R", "note")
    await asyncio.sleep(0.01)
    server.refusal = None
    made.event(REGARDING, "R", "note")
    await made.stop()
    assert made.dropped == 1
    assert len(server.created) == 1
    assert "forbidden" in caplog.text


async def test_stop_does_not_wait_for_ever() -> None:
    server = Server()
    server.gate.clear()
    made = recorder(server)
    made.start()
    made.event(REGARDING, "R", "note")
    async with asyncio.timeout(2):
        await made.stop(grace=0.05)
    await made.stop()


def test_reasons_are_what_the_api_server_takes() -> None:
    reasons = [v for k, v in vars(events).items() if k.isupper() and isinstance(v, str) and not k.startswith("_")]
    reasons = [reason for reason in reasons if "." not in reason]  # the group and the controller
    assert len(reasons) == len(set(reasons))
    assert all(reason.isalpha() and reason[0].isupper() and len(reason) <= events.REASON_LIMIT for reason in reasons)
