"""The installation's memory: exact counters, turns, acts; what it writes it reads back."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from tenure.kube.client import Kube
from tenure.kube.errors import NotFound, Unreachable
from tenure.reconcile.ledger import DUE, RENEWALS, Ledger, RecordedAct

T0 = datetime(2026, 11, 1, 12, tzinfo=UTC)


class Stored:
    """The two calls a Ledger makes, with the last object applied; a stand-in because the fault is a chosen failure."""

    def __init__(self) -> None:
        self.object: dict[str, Any] | None = None
        self.writes = 0
        self.fail = 0

    async def get(self, *_: Any) -> dict[str, Any]:
        if self.object is None:
            raise NotFound(404, "NotFound", "get configmaps: not found")
        return self.object

    async def apply(self, _: Any, obj: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0)
        if self.fail:
            self.fail -= 1
            raise Unreachable(0, "Unreachable", "apply configmaps: no answer")
        self.writes += 1
        self.object = obj
        return obj


async def opened(stored: Stored) -> Ledger:
    ledger = Ledger(cast(Kube, stored), "tenure-system")
    await ledger.load()
    return ledger


async def test_what_was_entered_is_read_back() -> None:
    stored = Stored()
    ledger = await opened(stored)
    assert ledger.first_inventory is None
    ledger.begin(T0)
    ledger.turn("payments", True, T0)
    ledger.count(DUE, ("High", "met"), "payments/f@1")
    ledger.act(RecordedAct("q@f#1", T0, "payments", "default"))
    await ledger.flush()
    again = await opened(stored)
    assert again.first_inventory == T0
    assert again.turns == {"payments": T0}
    assert again.counters[DUE] == {("High", "met"): 1}
    assert again.has_act("q@f#1")


async def test_the_first_inventory_is_recorded_once() -> None:
    ledger = await opened(Stored())
    ledger.begin(T0)
    ledger.begin(T0 + timedelta(days=1))
    assert ledger.first_inventory == T0


async def test_an_opening_is_counted_once_whatever_happens_between_count_and_stamp() -> None:
    stored = Stored()
    ledger = await opened(stored)
    ledger.count(DUE, ("Low", "missed"), "a@1")
    await ledger.flush()
    again = await opened(stored)  # killed before the finding was stamped
    again.count(DUE, ("Low", "missed"), "a@1")
    again.count(DUE, ("Low", "missed"), "a@2")
    assert again.counters[DUE] == {("Low", "missed"): 2}


async def test_leaving_and_returning_is_a_new_turn() -> None:
    ledger = await opened(Stored())
    assert ledger.turn("a", True, T0)
    assert not ledger.turn("a", True, T0 + timedelta(days=1))
    assert ledger.turn("a", False, T0 + timedelta(days=2))
    assert ledger.turn("a", True, T0 + timedelta(days=3))
    assert ledger.turns["a"] == T0 + timedelta(days=3)


async def test_callers_share_a_write_and_nothing_new_is_no_write() -> None:
    stored = Stored()
    ledger = await opened(stored)
    for number in range(50):
        ledger.count(DUE, ("Low", "met"), f"{number}")
    await asyncio.gather(*(ledger.flush() for _ in range(50)))
    assert stored.writes == 1
    await ledger.flush()
    assert stored.writes == 1


async def test_a_failed_write_loses_nothing() -> None:
    stored = Stored()
    ledger = await opened(stored)
    stored.fail = 1
    ledger.count(DUE, ("Low", "met"), "a")
    with pytest.raises(Unreachable):
        await ledger.flush()
    ledger.count(DUE, ("Low", "met"), "b")
    await ledger.flush()
    assert (await opened(stored)).counters[DUE] == {("Low", "met"): 2}


async def test_a_damaged_configmap_stops_the_operator_and_says_what_to_do() -> None:
    stored = Stored()
    stored.object = {"data": {"counters": "{not json"}}
    with pytest.raises(ValueError, match="Restore it from a backup"):
        await opened(stored)


async def test_the_window_counts_this_policys_acts_alone() -> None:
    ledger = await opened(Stored())
    ledger.act(RecordedAct("old", T0 - timedelta(hours=2), "a", "default"))
    ledger.act(RecordedAct("other", T0, "a", "other"))
    ledger.act(RecordedAct("new", T0, "a", "default"))
    ledger.act(RecordedAct("new", T0 + timedelta(minutes=1), "a", "default"))
    assert [act.id for act in ledger.acts("default", T0 - timedelta(hours=1))] == ["new"]


async def test_a_renewal_is_counted_once_however_often_its_finding_is_written() -> None:
    stored = Stored()
    ledger = await opened(stored)
    for number in (1, 1, 2):
        ledger.count(RENEWALS, ("Migration",), f"payments/legacytoken-1~uid~{number}")
    await ledger.flush()
    again = await opened(stored)
    again.count(RENEWALS, ("Migration",), "payments/legacytoken-1~uid~2")
    assert again.counters[RENEWALS] == {("Migration",): 2}
