"""List and watch against a scripted API server: deletions in a gap, broken streams, missing rights, bursts."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenure.kube import errors
from tenure.kube import resources as r
from tenure.kube.clock import ServerClock
from tenure.kube.informer import Informer, Rows, describe, pauses

Json = dict[str, Any]


class ApiServer:
    """One resource with a history, as list and watch show it. Faults are raised by the next list page or watch step."""

    def __init__(self) -> None:
        self.clock = ServerClock()
        self.version = 10
        self.objects: dict[str, Json] = {}
        self.history: list[tuple[int, str, Json]] = []
        self.compacted = 0
        self.list_faults: deque[Exception] = deque()
        self.watch_faults: deque[Exception] = deque()
        self.changed = asyncio.Condition()
        self.lists = 0
        self.watches: list[int] = []
        self.before_page: Callable[[], Any] = lambda: None

    def _note(self, kind: str, obj: Json) -> None:
        self.history.append((self.version, kind, obj))

    def put(self, name: str, value: object = 0) -> None:
        self.version += 1
        kind = "MODIFIED" if name in self.objects else "ADDED"
        self.objects[name] = {
            "metadata": {"name": name, "namespace": "ns", "resourceVersion": str(self.version)},
            "value": value,
        }
        self._note(kind, self.objects[name])

    def drop(self, name: str) -> None:
        self.version += 1
        gone = self.objects.pop(name)
        self._note("DELETED", {**gone, "metadata": {**gone["metadata"], "resourceVersion": str(self.version)}})

    def bookmark(self) -> None:
        self._note("BOOKMARK", {"metadata": {"resourceVersion": str(self.version)}})

    def compact(self) -> None:
        """What came until now is no longer to be watched."""
        self.compacted = self.version
        self.history.clear()

    async def tell(self) -> None:
        """Wakes the watches."""
        async with self.changed:
            self.changed.notify_all()

    async def pages(self, resource: r.Resource, namespace: str = "", **options: Any) -> AsyncIterator[Json]:
        self.lists += 1
        version = str(self.version)
        items = [self.objects[name] for name in sorted(self.objects)]
        for start in range(0, max(1, len(items)), 2):
            if self.list_faults:
                raise self.list_faults.popleft()
            self.before_page()
            yield {"metadata": {"resourceVersion": version}, "items": items[start : start + 2] or None}

    async def watch(
        self, resource: r.Resource, namespace: str, resource_version: str, **options: Any
    ) -> AsyncIterator[Json]:
        position = int(resource_version)
        self.watches.append(position)
        options["opened"]()
        while True:
            if self.watch_faults:
                raise self.watch_faults.popleft()
            if position < self.compacted:
                gone = errors.Gone(410, "Expired", f"too old resource version: {position} ({self.compacted})")
                gone.in_stream = True
                raise gone
            found = [entry for entry in self.history if entry[0] > position]
            for version, kind, obj in found:
                position = version
                yield {"type": kind, "object": obj}
            if not found and not self.watch_faults:
                async with self.changed:
                    await self.changed.wait()


class Sink:
    """What a store would hold, and what was called."""

    def __init__(self) -> None:
        self.held: dict[tuple[str, str], Json] = {}
        self.calls: list[tuple[str, Any]] = []
        self.explode = 0

    def names(self) -> Collection[tuple[str, str]]:
        return list(self.held)

    def upsert(self, record: Json, *, force: bool) -> None:
        if self.explode:
            self.explode -= 1
            raise RuntimeError("a listener of ours fails")
        self.held[(record["metadata"]["namespace"], record["metadata"]["name"])] = record
        self.calls.append(("force" if force else "upsert", record["metadata"]["name"]))

    def remove(self, namespace: str, name: str, *, resource_version: int) -> None:
        self.held.pop((namespace, name), None)
        self.calls.append(("remove", (name, resource_version)))

    @property
    def values(self) -> dict[str, object]:
        return {name: record["value"] for (_, name), record in self.held.items()}


class Running:
    def __init__(self, project: Callable[[Any], Any] = lambda raw: raw) -> None:
        self.server = ApiServer()
        self.sink = Sink()
        self.informer: Informer[Any] = Informer(
            self.server,  # type: ignore[arg-type]
            r.CONFIG_MAPS,
            self.sink,
            project,
            first_pause=0.001,
            longest_pause=0.002,
        )
        self.task = asyncio.create_task(self.informer.run())

    async def until(self, condition: Callable[[], object], what: str = "") -> None:
        """Lets the loop turn until it holds."""
        for _ in range(5_000):
            await self.server.tell()
            if condition():
                return
            assert not self.task.done(), self.task.exception()
            await asyncio.sleep(0.0002)
        raise AssertionError(f"never: {what or condition}; {self.sink.values}; {self.informer.failing!r}")

    async def settled(self) -> None:
        expected = {name: obj["value"] for name, obj in self.server.objects.items()}
        await self.until(lambda: self.informer.synced.is_set() and self.sink.values == expected, f"equal to {expected}")

    async def stop(self) -> None:
        self.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.task


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    started = Running()
    yield started
    await started.stop()


@contextmanager
def warnings(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    with caplog.at_level(logging.INFO, logger="tenure.kube.informer"):
        yield lambda: [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


async def test_lists_in_pages_then_follows(running: Running) -> None:
    for name in "abcde":
        running.server.put(name)
    await running.settled()
    assert running.informer.synced.is_set()
    assert running.informer.last_sync is not None
    running.server.put("f")
    running.server.put("a", 1)
    running.server.drop("b")
    await running.settled()
    assert running.server.lists == 1


async def test_deletions_in_a_gap_are_found_and_the_old_store_stays_until_the_list_is_whole(running: Running) -> None:
    for name in "abcdef":
        running.server.put(name)
    await running.settled()
    held_while_listing: list[set[str]] = []
    running.server.before_page = lambda: held_while_listing.append(set(running.sink.values))
    running.server.drop("b")
    running.server.drop("e")
    running.server.put("g")
    version = running.server.version
    running.server.compact()
    running.sink.calls.clear()
    await running.settled()
    assert all({"b", "e"} <= held for held in held_while_listing)
    removed = sorted(call for call in running.sink.calls if call[0] == "remove")
    assert removed == [("remove", ("b", version)), ("remove", ("e", version))]
    assert running.informer.failing == ""


def in_stream(error: errors.ApiError) -> errors.ApiError:
    error.in_stream = True
    return error


@pytest.mark.parametrize(
    "fault",
    [
        in_stream(errors.Gone(410, "Expired", "watch configmaps: too old")),
        in_stream(errors.Unavailable(500, "InternalError", "watch configmaps: etcd")),
        in_stream(errors.ApiError(0, "", "watch configmaps: ?")),
        errors.BrokenStream(0, "BrokenStream", "watch configmaps: the stream ended in the middle of a line"),
        errors.UnexpectedKind(200, "UnexpectedKind", "watch configmaps: an event carries no Table"),
        ValueError("a fault of our own"),
    ],
)
async def test_whatever_breaks_the_stream_leads_to_a_list(running: Running, fault: Exception) -> None:
    running.server.put("a")
    await running.settled()
    running.server.watch_faults.append(fault)
    running.server.history.clear()  # what a stream in doubt may have swallowed
    running.server.drop("a")
    running.server.history.clear()
    await running.settled()
    assert running.server.lists == 2


@pytest.mark.parametrize(
    "fault",
    [
        errors.Unreachable(0, "Unreachable", "watch configmaps: no answer"),
        errors.Unavailable(503, "ServiceUnavailable", "watch configmaps: not ready"),
        errors.TooManyRequests(429, "TooManyRequests", "watch configmaps: busy"),
        errors.Forbidden(403, "Forbidden", "watch configmaps: no"),
    ],
)
async def test_a_lost_connection_goes_on_where_it_was(running: Running, fault: Exception) -> None:
    running.server.put("a")
    await running.settled()
    running.server.put("b")
    await running.settled()
    running.server.watch_faults += [fault] * 5
    running.server.put("c")
    await running.settled()
    assert running.server.lists == 1
    assert running.server.watches[-1] >= 12


@pytest.mark.parametrize(
    "event",
    [
        {"type": "ADDED", "object": {"metadata": {"name": "x"}}},
        {"type": "ADDED", "object": {"metadata": {"name": "x", "resourceVersion": "soon"}}},
        {"type": "ADDED", "object": {"metadata": {"resourceVersion": "99"}}},
        {"type": "ADDED", "object": {"metadata": None}},
        {"type": "WHATEVER", "object": {"metadata": {"name": "x", "resourceVersion": "99"}}},
        {"object": {"metadata": {"name": "x", "resourceVersion": "99"}}},
    ],
)
async def test_an_event_that_is_none_leads_to_a_list(running: Running, event: Json) -> None:
    running.server.put("a")
    await running.settled()
    running.server.version += 1
    running.server.history.append((running.server.version, event.get("type", ""), event["object"]))
    await running.until(lambda: running.server.lists == 2, "a second list")
    await running.settled()


async def test_410_again_and_again_while_listing_is_survived(running: Running) -> None:
    running.server.list_faults += [errors.Gone(410, "Expired", f"list configmaps: token {n}") for n in range(4)]
    for name in "abc":
        running.server.put(name)
    await running.settled()
    assert running.informer.failing == ""


async def test_a_missing_right_is_named_once_and_its_return_noticed(caplog: pytest.LogCaptureFixture) -> None:
    running = Running()
    with warnings(caplog) as logged:
        running.server.list_faults += [errors.Forbidden(403, "Forbidden", f"no {n}") for n in range(6)]
        await running.until(lambda: running.informer.failing)
        assert not running.informer.synced.is_set()
        assert running.informer.failing == "list configmaps: forbidden: the right list on configmaps is missing"
        await running.settled()
        assert logged() == ["list configmaps: forbidden: the right list on configmaps is missing"]
        assert running.informer.failing == ""
        assert "list configmaps: works again" in caplog.text
    await running.stop()


async def test_silence_once_reconnects_twice_lists(running: Running) -> None:
    def silence() -> Exception:
        error = errors.Unreachable(0, "Unreachable", "watch configmaps: nothing for 90 s")
        error.__cause__ = TimeoutError()
        return error

    running.server.put("a")
    await running.settled()
    running.server.watch_faults.append(silence())
    running.server.put("b")
    await running.settled()
    assert running.server.lists == 1
    running.server.watch_faults += [silence(), silence()]
    await running.until(lambda: running.server.lists == 2, "a list")


async def test_a_server_whose_history_went_back_is_believed(running: Running) -> None:
    for n in range(5):
        running.server.put("a", n)
    await running.settled()
    running.server.version = 11  # etcd restored from a backup
    running.server.objects.clear()
    running.server.put("a", "old")
    running.server.history.clear()
    running.server.watch_faults.append(errors.BrokenStream(0, "BrokenStream", "watch configmaps: cut"))
    running.sink.calls.clear()
    await running.settled()
    assert ("force", "a") in running.sink.calls
    running.server.put("b")
    await running.settled()


async def test_an_object_that_cannot_be_read_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    def project(raw: Json) -> Json:
        if raw["value"] == "poison":
            raise KeyError("s3cr3t")
        return raw

    running = Running(project)
    running.server.put("a", 1)
    running.server.put("p", "poison")
    await running.until(lambda: running.sink.values == {"a": 1})
    running.server.put("a", "poison")
    running.server.put("b", 2)
    await running.until(lambda: running.sink.values == {"a": 1, "b": 2}, "the old a stays, b comes")
    running.server.put("p", "poison")
    running.server.compact()
    await running.until(lambda: running.server.lists == 2)
    assert running.sink.values == {"a": 1, "b": 2}
    running.server.put("p", 3)
    await running.until(lambda: running.sink.values.get("p") == 3)
    assert caplog.text.count("ns/p cannot be read") == 1
    assert "s3cr3t" not in caplog.text
    await running.stop()


async def test_an_unwanted_object_is_not_held() -> None:
    running = Running(lambda raw: None if raw["value"] == "unwanted" else raw)
    running.server.put("a", 1)
    await running.until(lambda: running.sink.values == {"a": 1})
    running.server.put("a", "unwanted")
    await running.until(lambda: running.sink.values == {})
    await running.stop()


async def test_a_fault_of_our_own_does_not_end_it(running: Running) -> None:
    running.server.put("a")
    await running.settled()
    running.sink.explode = 3
    running.server.put("b")
    await running.settled()
    await running.until(lambda: running.informer.failing == "", "works again")


async def test_a_burst_does_not_hold_the_loop(running: Running) -> None:
    await running.settled()
    for n in range(1_000):
        running.server.put("a", n)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while running.sink.values.get("a") != 999:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await running.server.tell()
    await task
    assert turns >= 9


async def test_the_backoff_grows_to_its_bound_and_starts_anew() -> None:
    steps = pauses(0.25, 30.0)
    drawn = [next(steps) for _ in range(200)]
    assert 0.125 <= drawn[0] <= 0.25
    assert max(drawn) <= 30.0
    assert min(drawn[20:]) >= 15.0
    assert 0.125 <= next(pauses(0.25, 30.0)) <= 0.25


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from("abcd"), st.integers(0, 3)),
        st.tuples(st.just("drop"), st.sampled_from("abcd"), st.just(0)),
        st.tuples(st.just("bookmark"), st.just(""), st.just(0)),
        st.tuples(st.just("compact"), st.just(""), st.just(0)),
        st.tuples(st.just("cut"), st.just(""), st.integers(0, 3)),
        st.tuples(st.just("listfault"), st.just(""), st.integers(0, 3)),
        st.tuples(st.just("turn"), st.just(""), st.integers(1, 20)),
    ),
    max_size=40,
)


@given(OPERATIONS)
@settings(max_examples=60, deadline=None)
def test_it_always_ends_up_equal_to_the_server(operations: list[tuple[str, str, int]]) -> None:
    faults: list[Callable[[], Exception]] = [
        lambda: errors.Unreachable(0, "Unreachable", "no answer"),
        lambda: errors.BrokenStream(0, "BrokenStream", "cut"),
        lambda: in_stream(errors.Gone(410, "Expired", "old")),
        lambda: in_stream(errors.Unavailable(500, "InternalError", "etcd")),
    ]

    async def scenario() -> None:
        logging.getLogger("tenure.kube.informer").disabled = True
        running = Running()
        server = running.server
        for what, name, number in operations:
            if what == "put":
                server.put(name, number)
            elif what == "drop" and name in server.objects:
                server.drop(name)
            elif what == "bookmark":
                server.bookmark()
            elif what == "compact":
                server.compact()
            elif what == "cut":
                server.watch_faults.append(faults[number]())
            elif what == "listfault":
                server.list_faults.append(faults[number]())
            for _ in range(number if what == "turn" else 0):
                await server.tell()
                await asyncio.sleep(0)
        await running.settled()
        await running.stop()

    try:
        asyncio.run(scenario())
    finally:
        logging.getLogger("tenure.kube.informer").disabled = False


# --- Tables ---------------------------------------------------------------------------------------------------------

COLUMNS = [{"name": "Name"}, {"name": "Type"}, {"name": "Data"}, {"name": "Age"}]


def row(name: str, type_: str = "Opaque") -> Json:
    return {
        "cells": [name, type_, 1, "0s"],
        "object": {"kind": "PartialObjectMetadata", "metadata": {"name": name, "namespace": "ns"}},
    }


def test_rows_of_a_list_and_events_without_columns() -> None:
    form = Rows()
    listed = list(form.listed({"kind": "Table", "columnDefinitions": COLUMNS, "rows": [row("a"), row("b", "x/y")]}))
    assert [(raw["metadata"]["name"], raw["type"]) for raw in listed] == [("a", "Opaque"), ("b", "x/y")]
    assert form.of_event({"kind": "Table", "rows": [row("c", "t")]})["type"] == "t"


def test_columns_are_found_by_name() -> None:
    moved = {"columnDefinitions": [{"name": "Type"}, {"name": "Name"}], "rows": [{**row("a"), "cells": ["t", "a"]}]}
    assert next(iter(Rows().listed(moved)))["type"] == "t"


def test_an_empty_table() -> None:
    assert list(Rows().listed({"columnDefinitions": COLUMNS, "rows": None})) == []


@pytest.mark.parametrize(
    "table",
    [
        {"rows": [row("a")]},  # no columns were ever seen
        {"columnDefinitions": [{"name": "Name"}], "rows": []},
        {"columnDefinitions": COLUMNS, "rows": [{**row("a"), "object": {"kind": "Secret", "data": {}}}]},
        {"columnDefinitions": COLUMNS, "rows": [{"cells": ["a", "Opaque"], "object": None}]},
        {"columnDefinitions": COLUMNS, "rows": [{**row("a"), "cells": ["a"]}]},
    ],
)
def test_a_table_that_is_not_as_expected_is_refused(table: Json) -> None:
    with pytest.raises(errors.ApiError):
        list(Rows().listed(table))


def test_an_event_has_one_row() -> None:
    form = Rows()
    form.listed({"columnDefinitions": COLUMNS, "rows": []})
    for rows in ([], None, [row("a"), row("b")]):
        with pytest.raises(errors.BrokenStream):
            form.of_event({"rows": rows})


# --- texts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resource", "namespace", "error", "text"),
    [
        (
            r.SECRETS,
            "",
            errors.Forbidden(403, "", "x"),
            "list secrets: forbidden: the right list on secrets is missing",
        ),
        (
            r.SECRETS,
            "payments",
            errors.Forbidden(403, "", "x"),
            "list secrets in payments: forbidden: the right list on secrets is missing",
        ),
        (
            r.IDENTITY_FINDINGS,
            "",
            errors.NotFound(404, "", "x"),
            "list identityfindings.tenure.dev: the CRD identityfindings.tenure.dev is not installed",
        ),
        (r.PODS, "", errors.NotFound(404, "", "x"), "list pods: the API server does not serve pods"),
        (r.PODS, "", errors.Unreachable(0, "", "list pods: no answer"), "list pods: no answer"),
        (r.PODS, "", errors.Gone(410, "", "list pods: 7 (9)"), "list pods: the server no longer keeps what came since"),
        (r.PODS, "", KeyError("s3cr3t"), "list pods: KeyError"),
    ],
)
def test_what_fails_is_said_for_people(resource: r.Resource, namespace: str, error: Exception, text: str) -> None:
    assert describe("list", resource, namespace, error) == text
