"""What runs apart takes nothing of ours with it when it ends, however it ends."""

from __future__ import annotations

import asyncio
import threading

import pytest

from tenure.handlers.apart import Apart


async def test_it_runs_in_another_thread_until_it_is_told_to_end() -> None:
    threads: list[int] = []

    async def work(end: asyncio.Event) -> None:
        threads.append(threading.get_ident())
        await end.wait()

    running = Apart(work, "work")
    waiting = asyncio.create_task(running.wait())
    await running.stop()
    await waiting
    assert threads
    assert threads != [threading.get_ident()]


async def test_its_error_is_ours_to_see_and_a_cancellation_in_there_is_none_out_here() -> None:
    async def fails(_: asyncio.Event) -> None:
        raise LookupError("404")

    async def cancelled(_: asyncio.Event) -> None:
        raise asyncio.CancelledError

    with pytest.raises(LookupError, match="404"):
        await Apart(fails, "fails").wait()
    with pytest.raises(RuntimeError, match="CancelledError"):
        await Apart(cancelled, "cancelled").wait()


async def test_when_it_cancels_every_task_of_its_loop_ours_go_on() -> None:
    async def work(_: asyncio.Event) -> None:
        for task in asyncio.all_tasks() - {asyncio.current_task()}:  # as Kopf does in the end
            task.cancel()

    async def ours() -> str:
        try:
            await asyncio.wait_for(asyncio.Event().wait(), 0.5)
        except TimeoutError:
            return "whole"
        return ""

    worker = asyncio.create_task(ours())
    await asyncio.sleep(0)
    await Apart(work, "work").wait()
    assert await worker == "whole"


async def test_one_that_does_not_end_is_left_behind() -> None:
    release = threading.Event()

    async def deaf(_: asyncio.Event) -> None:
        await asyncio.get_running_loop().run_in_executor(None, release.wait)

    running = Apart(deaf, "deaf")
    started = asyncio.get_running_loop().time()
    await running.stop(grace=0.1)
    assert asyncio.get_running_loop().time() - started < 5
    release.set()
    await running.wait()


async def test_told_before_it_has_begun() -> None:
    async def work(end: asyncio.Event) -> None:
        await end.wait()

    running = Apart(work, "work")
    running.tell()
    await asyncio.wait_for(running.wait(), 10)
