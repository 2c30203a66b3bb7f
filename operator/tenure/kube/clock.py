"""The API server's clock, read off its answers.

Deadlines are compared with stamps that the API server wrote (creationTimestamp, managedFields), so "now" must be
its now, not this machine's. Every answer carries a Date header: the server's time cut to a whole second. One such
header places the server's clock only within a second (plus the time on the wire), but each answer gives another
interval, and all of them must hold: their intersection soon is some milliseconds wide.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

DRIFT = 200e-6
"""By how much two clocks may run apart, per second (NTP slews by up to 500 ppm for short, quartz drifts by < 100)."""
_GRAIN = 1.0  # seconds: the Date header is cut to a second
_SMOOTH = 2.0  # seconds: a smaller step backwards is a sharpened estimate, a larger one a clock that was set


def _steady() -> float:
    """Seconds that also pass while the machine is suspended, where the platform has such a clock."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class ServerClock:
    """`now()` in API-server time. Not thread-safe; one per API server, shared by the clients to it.

    steady gives seconds from any origin that never go backwards; local gives this machine's time, used until the
    first answer. Both are arguments for tests only.
    """

    def __init__(self, steady: Callable[[], float] = _steady, local: Callable[[], float] = time.time) -> None:
        self._steady = steady
        self._local = local
        self._low = 0.0
        self._high = 0.0
        self._at = 0.0
        self._known = False
        self._last = 0.0

    @property
    def known(self) -> bool:
        """Whether any answer has been seen."""
        return self._known

    @property
    def uncertainty(self) -> float:
        """Seconds by which `now()` may be off, either way; infinite before the first answer."""
        if not self._known:
            return float("inf")
        return (self._high - self._low) / 2 + DRIFT * (self._steady() - self._at)

    def steady(self) -> float:
        """The reading to take just before a request is sent and when its headers are there, for `observe`."""
        return self._steady()

    def observe(self, date: str, sent: float, received: float) -> None:
        """Takes one answer into account. date is its Date header (ignored when unreadable), sent and received are
        `steady()` before the request and at its headers: the server wrote the header at some instant in between."""
        try:
            stamp = parsedate_to_datetime(date).timestamp()
        except (TypeError, ValueError, OverflowError):
            return
        low, high = stamp - received, stamp + _GRAIN - sent
        if high <= low:
            return
        if self._known:
            widened = DRIFT * max(0.0, received - self._at)
            kept_low, kept_high = max(low, self._low - widened), min(high, self._high + widened)
            if kept_low < kept_high:
                low, high = kept_low, kept_high
            # else: the server's clock was set, or another server answered. The newest answer is right.
        self._low, self._high, self._at, self._known = low, high, received, True

    def now(self) -> datetime:
        """The API server's time, UTC. It does not run backwards while the estimate sharpens (by less than two
        seconds); it does when the server's clock was set back."""
        seconds = self._steady() + (self._low + self._high) / 2 if self._known else self._local()
        if seconds < self._last < seconds + _SMOOTH:
            seconds = self._last
        self._last = seconds
        return datetime.fromtimestamp(seconds, UTC)

    def ago(self, steady: float) -> timedelta:
        """How long ago the reading `steady()` was."""
        return timedelta(seconds=max(0.0, self._steady() - steady))
