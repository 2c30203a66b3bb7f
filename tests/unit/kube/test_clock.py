"""The API server's time, from Date headers cut to a second."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime
from math import floor, inf

from hypothesis import given
from hypothesis import strategies as st

from tenure.kube.clock import DRIFT, ServerClock

START = 1_800_000_000.0


class World:
    """A server's clock and ours: `server` and `steady` are the true readings, moved by hand."""

    def __init__(self, offset: float = START, local: float = 0.0) -> None:
        self.steady = 1000.0
        self.offset = offset  # server time = steady + offset
        self.clock = ServerClock(steady=lambda: self.steady, local=lambda: local)

    @property
    def server(self) -> float:
        return self.steady + self.offset

    def request(self, there: float = 0.001, back: float = 0.001) -> None:
        """One exchange; the server stamps after `there` seconds, the headers arrive `back` seconds later."""
        sent = self.steady
        self.steady += there
        date = format_datetime(datetime.fromtimestamp(floor(self.server), UTC), usegmt=True)
        self.steady += back
        self.clock.observe(date, sent, self.steady)

    @property
    def error(self) -> float:
        return self.clock.now().timestamp() - self.server


def test_is_the_local_time_before_the_first_answer() -> None:
    world = World(local=START)
    assert world.clock.now() == datetime.fromtimestamp(START, UTC)
    assert not world.clock.known
    assert world.clock.uncertainty == inf


def test_one_answer_places_it_within_a_second() -> None:
    world = World(offset=START + 0.9)
    world.request()
    assert abs(world.error) <= world.clock.uncertainty <= 0.51


def test_answers_around_a_change_of_second_sharpen_it() -> None:
    world = World(offset=START - 0.002)
    for _ in range(40):
        world.request()
        world.steady += 0.05
    assert world.clock.uncertainty < 0.03
    assert abs(world.error) < 0.03


def test_a_slow_answer_does_not_blur_what_is_known() -> None:
    world = World(offset=START + 0.35)
    for _ in range(40):
        world.request()
        world.steady += 0.05
    before = world.clock.uncertainty
    world.request(there=3.0, back=4.0)
    assert world.clock.uncertainty <= before + 10 * DRIFT
    assert abs(world.error) < 0.05


def test_a_server_clock_that_is_set_is_followed_at_once_forward_and_back() -> None:
    world = World()
    for step in (+3600.0, -7200.0, +1.5):
        world.request()
        world.steady += 0.3
        world.offset += step
        world.request()
        assert abs(world.error) <= 0.52


def test_it_does_not_run_backwards_while_it_sharpens() -> None:
    world = World(offset=START + 0.999)
    seen = []
    for _ in range(100):
        world.request()
        seen.append(world.clock.now())
        world.steady += 0.013
    assert seen == sorted(seen)


def test_drift_over_days_is_followed() -> None:
    world = World()
    for _ in range(500):
        world.request()
        world.steady += 600.0
        world.offset += 600.0 * DRIFT * 0.9
    world.request()
    assert abs(world.error) <= 0.6


def test_headers_that_are_no_date_are_ignored() -> None:
    clock = World().clock
    for date in ("", "yesterday", "Mon, 99 Nov 2026 15:21:45 GMT"):
        clock.observe(date, 1.0, 2.0)
    assert not clock.known


@given(
    offset=st.floats(START, START + 10),
    exchanges=st.lists(st.tuples(st.floats(0, 2), st.floats(0, 2), st.floats(0, 30)), min_size=1, max_size=30),
)
def test_the_true_time_is_never_outside_what_it_claims(
    offset: float, exchanges: list[tuple[float, float, float]]
) -> None:
    world = World(offset=offset)
    for there, back, pause in exchanges:
        world.request(there, back)
        world.steady += pause
        clock = world.clock
        middle = world.steady + (clock._low + clock._high) / 2
        assert abs(middle - world.server) <= clock.uncertainty + 1e-3
