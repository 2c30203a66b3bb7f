"""What attempts an audit source tells of, when they are written down, and what position is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, cast

import pytest

from tenure.api.names import FINALIZER
from tenure.api.quarantine import DisabledToken, QuarantineSpec, QuarantineStatus, QuarantineSubject
from tenure.audit.event import request
from tenure.audit.source import Batch
from tenure.enforce.means import Means
from tenure.enforce.quarantine import subject_of
from tenure.enforce.tripwire import Tripwire
from tenure.inventory.store import Store
from tenure.kube.errors import ApiError
from tenure.model.records import Authored
from tests.unit.audit.events import START, event, refused, stamped, unauthorized

Q: Any = Authored(
    kind="Quarantine",
    namespace="shop",
    name="q",
    uid="uid-q",
    generation=1,
    resource_version="1",
    created=START - timedelta(hours=1),
    finalizers=(FINALIZER,),
    spec=QuarantineSpec(subject=QuarantineSubject(kind="ServiceAccount", name="ci", uid="uid-ci")),
    status=QuarantineStatus(disabled_tokens=(DisabledToken(name="ci-token", uid="uid-t", off=True),)),
)


def second(after: int = 0) -> datetime:
    return (START + timedelta(seconds=after)).replace(microsecond=0)


class World:
    """The source and what the tripwire asks of Means; stand-ins, since what is looked at is what is written when."""

    def __init__(self) -> None:
        self.store = Store()
        self.batches: dict[str, Batch] = {}
        self.time = START + timedelta(minutes=5)
        self.audit = ""
        self.attempts = 0
        self.told: list[str] = []
        self.considered: list[Any] = []
        self.fails = False
        self.meanwhile: Callable[[], Any] | None = None
        self.metrics = self.queue = self.ledger = self
        self.put(Q)
        self.wire = Tripwire(cast(Means, self), self)

    def put(self, quarantine: Any) -> None:
        self.store.upsert("Quarantine", quarantine, force=True)

    @property
    def quarantine(self) -> Any:
        return self.store.quarantines[("shop", "q")]

    def restarted(self) -> Tripwire:
        """Another process: it knows the Quarantines and the position that was kept."""
        self.wire = Tripwire(cast(Means, self), self)
        return self.wire

    def follows(self, position: str, *lines: bytes, then: str) -> None:
        found = tuple(r for line in lines if (r := request(line)) is not None)
        self.batches[position] = Batch(found, then)

    def read(self, position: str) -> Batch:
        return self.batches.get(position, Batch((), position))

    def now(self) -> datetime:
        return self.time

    def consider(self, key: Any) -> None:
        self.considered.append(key)

    def at(self, key: Any, when: datetime) -> None:
        self.considered.append((key, when))

    def tripwire(self, number: int) -> None:
        self.attempts += number

    def say(self, key: Any, uid: str, wishes: Any, reason: str, note: str, action: str, *, warning: bool) -> None:
        self.told.append(note)

    async def write_status(self, quarantine: Any, status: Any) -> Any:
        if self.fails:
            raise ApiError(500, "InternalError", "no")
        if self.meanwhile is not None:
            await self.meanwhile()
        self.put(replace(quarantine, status=status))
        return self.quarantine

    def note(self) -> Any:
        return asyncio.run(self.wire.note(subject_of(self.quarantine), self.quarantine, ()))

    def hear(self) -> str:
        return asyncio.run(self.wire.read())


@pytest.fixture
def world() -> World:
    return World()


def test_requests_that_still_work_and_refused_ones_are_attempts_by_whom(world: World) -> None:
    world.follows("", event("a"), event("b", username="ann"), refused("c", after=2), then="1")
    assert world.hear() == ""
    assert world.considered
    status = world.note().status
    assert status.last_attempt == status.attempt.at == second(2)
    assert (status.attempt.by, status.attempt.source, status.attempt.user_agent) == ("ann", "10.1.2.3", "curl/8.5.0")
    assert status.attempt.what == "create serviceaccounts/token shop/ci: refused by admission"
    assert world.attempts == 2
    [told] = world.told
    assert "ServiceAccount ci" in told
    assert "is alive" in told
    assert "(2 times)" in told


def test_what_is_no_use_of_it_is_none(world: World) -> None:
    world.follows(
        "",
        event("before", after=-7200),
        event("other", username="system:serviceaccount:shop:other"),
        event("namesake", user={"username": "system:serviceaccount:shop:ci", "uid": "uid-earlier"}),
        refused("theirs", "shop/gone"),
        refused("own", username="system:serviceaccount:tenure-system:tenure"),
        stamped("works", "other-token"),
        unauthorized("whose"),
        then="1",
    )
    world.hear()
    assert world.note().status == Q.status
    assert (world.attempts, world.told, world.audit) == (0, [], "1")


def test_one_request_counts_once_however_often_it_is_told(world: World) -> None:
    """Its start and its end are events of their own, and the source may repeat both."""
    begun, ended = event("watch", stage="ResponseStarted"), event("watch", took=30.0)
    world.follows("", begun, begun, ended, then="1")
    world.follows("1", begun, ended, then="2")
    world.hear()
    world.hear()
    world.note()
    assert world.attempts == 1


def test_a_client_that_chooses_one_id_for_all_its_requests_hides_none(world: World) -> None:
    world.follows("", event("mine"), event("mine", after=1), event("mine", after=2), then="1")
    world.hear()
    assert world.note().status.last_attempt == second(2)
    assert world.attempts == 3


def test_a_refused_token_is_told_by_the_stamp_within_its_request(world: World) -> None:
    world.follows("", unauthorized("x", after=-1), stamped("s", "ci-token", after=0.001), then="1")
    world.follows("1", unauthorized("r", after=0, userAgent="job/1"), then="2")
    world.hear()
    assert world.note().status == Q.status, "its own request is logged in a moment"
    world.hear()
    attempt = world.note().status.attempt
    assert (attempt.at, attempt.by, attempt.source, attempt.user_agent) == (second(), "", "10.1.2.3", "job/1")
    assert "ci-token" in attempt.what
    assert world.attempts == 1


def test_of_two_requests_around_a_stamp_neither_is_named(world: World) -> None:
    around = (unauthorized("r", after=0), unauthorized("t", after=0, sourceIPs=["10.9.9.9"]))
    world.follows("", stamped("s", "ci-token", after=0.001), *around, then="1")
    world.hear()
    assert world.note().status.attempt.source == ""


def test_the_label_of_the_same_day_is_no_second_attempt(world: World) -> None:
    """The watch brought the day first; the log then tells the instant."""
    midnight = START.replace(hour=0, minute=0, second=0, microsecond=0)
    world.put(replace(Q, status=Q.status.model_copy(update={"last_attempt": midnight})))
    world.restarted()
    world.time = START - timedelta(minutes=1)
    world.wire._started = world.time
    world.follows("", stamped("s", "ci-token", after=0.001), unauthorized("r"), then="1")
    world.hear()
    world.time = START + timedelta(minutes=5)
    assert world.note().status.last_attempt == second()
    assert (world.attempts, world.told) == (0, [])


def test_the_position_is_kept_once_the_quarantine_says_it(world: World) -> None:
    world.follows("", event("b", username="ann"), then="1")
    world.follows("1", event("a"), then="2")
    world.follows("2", event("b", after=9, username="ann"), then="3")
    for _ in range(3):
        world.hear()
    assert world.audit == "1"
    world.fails = True
    with pytest.raises(ApiError):
        world.note()
    assert (world.attempts, world.audit) == (0, "1")
    world.fails = False
    world.restarted()  # killed: what was not written is read again, and then it is
    world.hear()
    world.hear()
    assert world.note().status.last_attempt == second()
    world.hear()
    assert (world.attempts, world.audit) == (1, "3")


def test_what_a_restart_reads_again_is_not_told_again(world: World) -> None:
    world.follows("", event("a"), event("b", after=1), then="1")
    world.hear()
    world.note()
    assert world.attempts == 2
    world.audit = ""
    world.restarted()
    world.hear()
    world.note()
    assert (world.attempts, len(world.told)) == (2, 1)


def test_what_is_heard_while_it_is_written_is_kept(world: World) -> None:
    world.follows("", event("a"), then="1")
    world.follows("1", event("b", after=3), then="2")
    world.hear()

    async def read() -> None:
        world.meanwhile = None
        await world.wire.read()

    world.meanwhile = read
    assert world.note().status.last_attempt == second()
    assert (world.attempts, world.audit) == (1, "")
    assert world.wire.last(world.quarantine) == second(3)
    world.note()
    assert world.attempts == 1, "written again a minute later"
    assert world.considered[-1] == (subject_of(Q), world.time + timedelta(minutes=1))
    world.time += timedelta(minutes=1)
    assert world.note().status.last_attempt == second(3)
    assert world.attempts == 2


def test_a_released_quarantine_is_not_waited_for(world: World) -> None:
    world.follows("", event("a"), then="1")
    world.hear()
    assert world.audit == ""
    world.store.remove("Quarantine", "shop", "q")
    world.hear()
    assert world.audit == "1"


def test_a_source_that_cannot_be_read_says_so_until_it_can(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: str) -> Batch:
        raise PermissionError("denied")

    assert world.wire.state() == "Missing"
    world.hear()
    assert world.wire.state() == "Fresh"
    monkeypatch.setattr(world, "read", fails)
    assert "denied" in world.hear()
    world.time += timedelta(minutes=4)
    assert world.wire.state() == "Stale"
