"""An event loop of its own, in a thread of its own, for what must not share ours.

When Kopf ends, it cancels every task of its loop that is younger than itself, whoever made it (its own code says so):
a worker of ours that waits with a timeout, a connection that is being made. And it arms a SIGKILL for ten minutes
later in case it hangs, which goes with its loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future


class Apart:
    """One run of a coroutine function in a thread of its own; it is given the event that tells it to end."""

    def __init__(self, work: Callable[[asyncio.Event], Awaitable[None]], name: str) -> None:
        self._work = work
        self._outcome: Future[None] = Future()
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None
        self._told = False
        self._outcome.set_running_or_notify_cancel()  # from now on nobody cancels it: the thread sets it
        # A daemon: what ends slowly, or never, holds up no end of the process. It has nothing to lose.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def wait(self) -> None:
        """Returns or raises as the work does. Cancelled, it leaves the work alone."""
        await asyncio.wrap_future(self._outcome)

    def tell(self) -> None:
        """Tells the work to end."""
        with self._lock:
            self._told = True
            if self._loop is not None and self._end is not None:
                with contextlib.suppress(RuntimeError):  # the loop is closed: it has ended already
                    self._loop.call_soon_threadsafe(self._end.set)

    async def stop(self, grace: float = 5.0) -> None:
        """Tells the work to end and waits for that, so many seconds at most."""
        self.tell()
        waiting = asyncio.wrap_future(self._outcome)
        await asyncio.wait({waiting}, timeout=grace)
        if waiting.done():
            waiting.exception()
        else:
            waiting.cancel()

    def _run(self) -> None:
        try:
            asyncio.run(self._inside())
        except Exception as error:
            self._outcome.set_exception(error)
        except BaseException as error:  # a cancellation in there is none out here
            self._outcome.set_exception(RuntimeError(type(error).__name__))
        else:
            self._outcome.set_result(None)

    async def _inside(self) -> None:
        end = asyncio.Event()
        with self._lock:
            self._loop, self._end = asyncio.get_running_loop(), end
            if self._told:
                end.set()
        await self._work(end)
