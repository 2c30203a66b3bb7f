"""The work queue: coalescing, one handler per key, due instants, growing retries."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from tenure.reconcile.queue import WorkQueue

T0 = datetime(2026, 11, 1, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.instant = T0

    def __call__(self) -> datetime:
        return self.instant


async def none_waits(queue: WorkQueue[str]) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.take(), 0.02)


async def test_marks_coalesce_until_a_key_is_taken() -> None:
    queue: WorkQueue[str] = WorkQueue(Clock())
    for _ in range(5):
        queue.add("a")
    queue.add("b")
    assert [await queue.take(), await queue.take()] == ["a", "b"]
    await none_waits(queue)


async def test_a_key_is_never_handled_twice_at_once() -> None:
    queue: WorkQueue[str] = WorkQueue(Clock())
    queue.add("a")
    assert await queue.take() == "a"
    queue.add("a")
    queue.add("a")
    await none_waits(queue)
    queue.done("a")
    assert await queue.take() == "a"
    queue.done("a")
    await none_waits(queue)


async def test_a_due_key_comes_at_its_instant_and_a_later_setting_replaces_the_earlier() -> None:
    clock = Clock()
    queue: WorkQueue[str] = WorkQueue(clock)
    queue.at("a", T0 + timedelta(hours=1))
    queue.at("a", T0 + timedelta(hours=2))
    clock.instant = T0 + timedelta(hours=1)
    await none_waits(queue)
    clock.instant = T0 + timedelta(hours=2)
    queue.add("wake")
    assert {await queue.take(), await queue.take()} == {"wake", "a"}


async def test_an_instant_can_be_taken_back() -> None:
    clock = Clock()
    queue: WorkQueue[str] = WorkQueue(clock)
    queue.at("a", T0 + timedelta(seconds=1))
    queue.at("a", None)
    clock.instant = T0 + timedelta(hours=1)
    await none_waits(queue)


async def test_instants_that_were_replaced_or_taken_back_take_no_memory() -> None:
    clock = Clock()
    queue: WorkQueue[str] = WorkQueue(clock)
    queue.at("other", T0 + timedelta(days=1))
    for day in range(1, 1_001):
        queue.at("a", T0 + timedelta(days=day))
        queue.at("a", None)
        queue.at("a", T0 + timedelta(days=day))
    assert len(queue._heap) < 100
    clock.instant = T0 + timedelta(days=1)
    assert await queue.take() == "other"
    await none_waits(queue)
    clock.instant = T0 + timedelta(days=1_000)
    queue.add("wake")
    assert {await queue.take(), await queue.take()} == {"wake", "a"}


async def test_a_sleeping_taker_wakes_at_the_instant() -> None:
    queue: WorkQueue[str] = WorkQueue(lambda: datetime.now(UTC))
    queue.at("a", datetime.now(UTC) + timedelta(milliseconds=50))
    assert await asyncio.wait_for(queue.take(), 5) == "a"


async def test_failures_come_back_after_growing_delays_and_success_forgets_them() -> None:
    clock = Clock()
    queue: WorkQueue[str] = WorkQueue(clock)
    delays = []
    for _ in range(12):
        queue.add("a")
        await queue.take()
        delays.append(queue.failed("a"))
        clock.instant += timedelta(seconds=delays[-1])
        assert await queue.take() == "a"
        queue.failed("a")
        clock.instant += timedelta(minutes=2)
        assert await queue.take() == "a"
        queue._finish("a")
    assert delays == sorted(delays)
    assert delays[0] == pytest.approx(0.2)
    assert delays[-1] == 60.0
    queue.add("a")
    await queue.take()
    queue.done("a")
    queue.add("a")
    await queue.take()
    assert queue.failed("a") == pytest.approx(0.2)


async def test_the_server_may_ask_for_more_patience() -> None:
    queue: WorkQueue[str] = WorkQueue(Clock())
    queue.add("a")
    await queue.take()
    assert queue.failed("a", retry_after=7.0) == 7.0


async def test_an_earlier_plan_survives_a_failure() -> None:
    clock = Clock()
    queue: WorkQueue[str] = WorkQueue(clock)
    queue.add("a")
    await queue.take()
    queue.at("a", T0 + timedelta(seconds=1))
    queue.failed("a", retry_after=30)
    clock.instant = T0 + timedelta(seconds=1)
    assert await asyncio.wait_for(queue.take(), 1) == "a"


async def test_a_sweep_stands_behind_what_is_dirty_and_is_asked_for_one_by_one() -> None:
    queue: WorkQueue[str] = WorkQueue(Clock())
    asked: list[str] = []

    def keys() -> Iterator[str]:
        for key in ("s1", "s2", "s3"):
            asked.append(key)
            yield key

    queue.add("a")
    queue.sweep(keys())
    assert await queue.take() == "a"
    assert asked == []
    assert await queue.take() == "s1"
    queue.add("b")
    assert await queue.take() == "b"
    assert asked == ["s1"]
    assert queue.ready == 1
    assert [await queue.take(), await queue.take()] == ["s2", "s3"]
    await none_waits(queue)
    assert queue.ready == 0


async def test_a_sweep_never_hands_out_a_key_twice_at_once() -> None:
    queue: WorkQueue[str] = WorkQueue(Clock())
    queue.add("a")
    assert await queue.take() == "a"
    queue.sweep(["a", "b"])
    assert await queue.take() == "b"
    await none_waits(queue)
    queue.done("a")
    assert await queue.take() == "a"


async def test_what_may_wait_goes_on_while_changes_never_end() -> None:
    queue: WorkQueue[str] = WorkQueue(Clock())
    queue.sweep(["swept"])
    queue.later("later")
    taken = []
    for number in range(50):
        queue.add(f"a{number}")
        queue.add(f"b{number}")
        taken.append(await queue.take())
        queue.done(taken[-1])
    assert {"swept", "later"} <= set(taken)


async def test_what_may_wait_stands_behind_what_is_dirty_or_due_and_before_a_sweep() -> None:
    clock = Clock()
    queue: WorkQueue[str] = WorkQueue(clock)
    queue.sweep(["swept"])
    queue.later("later")
    queue.at("due", T0 + timedelta(seconds=1))
    queue.add("dirty")
    clock.instant = T0 + timedelta(seconds=1)
    assert queue.ready == 3
    assert [await queue.take() for _ in range(4)] == ["dirty", "due", "later", "swept"]


async def test_marks_that_may_wait_coalesce_with_all_others() -> None:
    queue: WorkQueue[str] = WorkQueue(Clock())
    queue.later("a")
    queue.later("a")
    queue.add("a")
    queue.later("a")
    assert await queue.take() == "a"
    await none_waits(queue)
    queue.later("a")
    await none_waits(queue)
    queue.done("a")
    assert await queue.take() == "a"


async def test_a_sweep_wakes_who_sleeps_and_is_replaced_by_the_next() -> None:
    queue: WorkQueue[str] = WorkQueue(Clock())
    sleeping = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    queue.sweep(["a", "b"])
    assert await asyncio.wait_for(sleeping, 5) == "a"
    queue.sweep(["c"])
    assert await queue.take() == "c"
    await none_waits(queue)


async def test_a_call_comes_after_all_that_was_dirty_and_not_after_what_came_since() -> None:
    clock, queue, called = Clock(), WorkQueue[str](Clock()), list[str]()
    queue.after(lambda: called.append("at once"))
    assert called == ["at once"]
    queue = WorkQueue(clock)
    queue.add("busy")
    assert await queue.take() == "busy"
    queue.add("busy")  # once more, for a reason that this turn does not see
    queue.add("ready")
    queue.later("later")
    queue.at("due", T0 + timedelta(hours=1))
    queue.at("ahead", T0 + timedelta(hours=2))
    clock.instant = T0 + timedelta(hours=1)
    queue.after(lambda: called.append("after"))
    queue.done("busy")
    queue.failed(await queue.take())  # ready: it was handled, though not well
    handled = []
    while "after" not in called:
        queue.add("since")
        key = await queue.take()
        handled.append(key)
        assert len(called) == 1
        queue.done(key)
    assert set(handled) - {"since"} == {"due", "busy", "later"}
    queue.done(await queue.take())
    assert called == ["at once", "after"]


async def test_of_what_may_wait_the_oldest_comes_first() -> None:
    queue: WorkQueue[str] = WorkQueue(Clock())
    for key in "abc":
        queue.later(key)
    for expected in "abcabc":
        key = await queue.take()
        assert key == expected, "marked again, it stands behind the others"
        queue.done(key)
        queue.later(key)
