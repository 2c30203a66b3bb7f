"""What has to be looked at: dirty keys, coalesced, and keys that become due at an instant.

A key is never handled twice at once: marked dirty while somebody works on it, it is handed out again afterwards.
That is what makes "read, decide, write" of one subject atomic without a lock.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from datetime import datetime, timedelta
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

_FIRST_RETRY = 0.2
_LONGEST_RETRY = 60.0
_LONGEST_SLEEP = 60.0  # seconds: the server's clock may be set while we sleep
_MOST_REPLACED = 16  # instants kept per key that waits for one
_LATER_SHARE = 8  # what may wait gets every eighth turn at least, or a busy cluster would hold it up for ever


class WorkQueue(Generic[K]):
    """Keys to handle. `now` is the API server's time; due instants are in that time. One event loop."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._ready: deque[K] = deque()
        self._waiting: set[K] = set()
        self._busy: set[K] = set()
        self._again: set[K] = set()
        self._due: dict[K, datetime] = {}
        self._heap: list[tuple[datetime, int, K]] = []
        self._sequence = 0
        self._later: OrderedDict[K, None] = OrderedDict()
        self._sweep: Iterator[K] | None = None
        self._turns = 0
        self._failures: dict[K, int] = {}
        self._ahead: Counter[K] = Counter()
        self._then: Callable[[], None] = lambda: None
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        """Keys that are dirty or being handled; those that only wait for an instant do not count."""
        return len(self._ready) + len(self._busy)

    @property
    def ready(self) -> int:
        """Keys that nobody has taken yet; what is left of a sweep counts as one."""
        return len(self._ready) + len(self._later) + (self._sweep is not None)

    def add(self, key: K) -> None:
        """Marks a key dirty; any number of marks until it is handed out are one."""
        self._later.pop(key, None)
        if key in self._busy:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.append(key)
            self._wake.set()

    def later(self, key: K) -> None:
        """Marks a key dirty that may stand behind all others: one of the many that a single change touched."""
        if key not in self._waiting:
            self._later[key] = None
            self._wake.set()

    def sweep(self, keys: Iterable[K]) -> None:
        """Hands these out too, behind all others. They are asked for one by one: a hundred thousand need no place here.
        A sweep that is under way is replaced."""
        self._sweep = iter(keys)
        self._wake.set()

    def at(self, key: K, instant: datetime | None) -> None:
        """Hands the key out at `instant` at the latest, in place of the instant set before; None takes that back."""
        if instant is None:
            self._due.pop(key, None)
            return
        if self._due.get(key) == instant:
            return
        self._due[key] = instant
        self._sequence += 1
        heapq.heappush(self._heap, (instant, self._sequence, key))
        if len(self._heap) > _MOST_REPLACED * len(self._due) + _MOST_REPLACED:
            self._drop_replaced()
        self._wake.set()

    def _drop_replaced(self) -> None:
        """Instants that were replaced or taken back would stay for as long as they lie ahead, which may be a year."""
        standing = {entry[2]: entry for entry in self._heap if self._due.get(entry[2]) == entry[0]}
        self._heap = sorted(standing.values())  # a sorted list is a heap

    def after(self, call: Callable[[], None]) -> None:
        """Calls once every key that is dirty now was handled, well or not; what is left of a sweep does not count. A
        call that still waits is replaced, with what it waits for."""
        self._ripen()
        self._ahead = Counter(self._waiting | self._busy | self._later.keys())
        self._ahead.update(key for key in self._busy if key in self._again or key in self._later)  # once more, then
        self._then = call
        if not self._ahead:
            call()

    async def take(self) -> K:
        """The next key; it counts as busy until `done`."""
        while True:
            self._ripen()
            self._draw()
            if self._ready:
                key = self._ready.popleft()
                if self._ready:
                    self._waiting.discard(key)
                else:
                    self._waiting.clear()  # unlike discard it gives back the memory of the longest queue there was
                self._busy.add(key)
                return key
            self._wake.clear()
            timeout = self._until_next()
            try:
                await asyncio.wait_for(self._wake.wait(), timeout)
            except TimeoutError:
                continue

    def done(self, key: K) -> None:
        """The key was handled; its failures are forgotten."""
        self._failures.pop(key, None)
        self._finish(key)

    def failed(self, key: K, retry_after: float | None = None) -> float:
        """The key could not be handled: it comes again after a growing delay. Returns that delay in seconds."""
        count = self._failures.get(key, 0)
        self._failures[key] = count + 1
        delay: float = max(retry_after or 0.0, min(_FIRST_RETRY * 2 ** min(count, 16), _LONGEST_RETRY))
        instant = self._now() + timedelta(seconds=delay)
        planned = self._due.get(key)
        self.at(key, min(instant, planned) if planned and planned > self._now() else instant)
        self._finish(key)
        return delay

    def _finish(self, key: K) -> None:
        self._busy.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)
        elif not self._ready:
            self._wake.set()
        if key in self._ahead:
            self._ahead[key] -= 1
            if not self._ahead[key]:
                del self._ahead[key]
            if not self._ahead:
                self._then()

    def _draw(self) -> None:
        """Takes over what this turn needs of the keys that may wait."""
        self._turns += 1
        wanted = self._turns % _LATER_SHARE == 0
        while wanted or not self._ready:
            wanted = False
            if self._later:
                key, _ = self._later.popitem(last=False)  # the oldest: what is marked again and again starves no other
            else:
                following = next(self._sweep, None) if self._sweep is not None else None
                if following is None:
                    self._sweep = None
                    return
                key = following
            self.add(key)

    def _ripen(self) -> None:
        now = self._now()
        while self._heap and self._heap[0][0] <= now:
            instant, _, key = heapq.heappop(self._heap)
            if self._due.get(key) == instant:
                del self._due[key]
                self.add(key)

    def _until_next(self) -> float:
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)  # replaced or taken back
        if not self._heap:
            return _LONGEST_SLEEP
        wait = (self._heap[0][0] - self._now()).total_seconds()
        return min(max(wait, 0.001), _LONGEST_SLEEP)
