"""Whether a revocation that is due is still asked for, without a cluster."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from tenure.api.names import Mode, OnDeadline, Risk, Rule, Verdict
from tenure.api.quarantine import DisabledToken, QuarantineSpec, QuarantineStatus, QuarantineSubject
from tenure.decide.terms import Terms
from tenure.decide.wish import Wish
from tenure.enforce import revoke
from tenure.enforce.means import Means
from tenure.model.keys import Key
from tenure.model.records import Authored

T0 = datetime(2026, 11, 1, 12, tzinfo=UTC)
KEY = Key("ServiceAccount", "payments", "ci")
TERMS = Terms(timedelta(days=1), OnDeadline.QUARANTINE, Mode.ENFORCE, "GovernancePolicy/default")
KEEPS = Wish("unowned-1", Rule.UNOWNED, Risk.LOW, None, T0, 1, TERMS)
REVOKES = replace(KEEPS, finding="legacy-1", rule=Rule.LEGACY_TOKEN, by_person=True, revoke=T0)
HELD: Any = Authored(
    kind="Quarantine",
    namespace="payments",
    name="q",
    uid="uid-q",
    generation=1,
    resource_version="1",
    created=T0,
    spec=QuarantineSpec(
        subject=QuarantineSubject(kind="ServiceAccount", name="ci", uid="uid-ci"),
        findings=("legacy-1", "unowned-1"),
        verdict=Verdict.REVOKE,
        revoke_at=T0,
        hold_after_use=timedelta(0),
    ),
    status=QuarantineStatus(disabled_tokens=(DisabledToken(name="ci-token", uid="uid-t", service_account="ci"),)),
)


LATER = replace(KEEPS, finding="too-old-1", terms=replace(TERMS, revoke_after=timedelta(days=30)))


@pytest.mark.parametrize(
    ("wishes", "at"),
    [
        ((KEEPS, REVOKES), T0),
        ((KEEPS,), None),
        ((LATER, REVOKES), T0),
        ((LATER,), T0 + timedelta(days=30)),  # a person's Revoke went with its finding: the policy's own time counts
    ],
)
def test_revocation_is_due_when_those_that_want_it_ask_for_it(wishes: tuple[Wish, ...], at: datetime | None) -> None:
    held = replace(HELD, spec=HELD.spec.model_copy(update={"findings": ("legacy-1", "too-old-1", "unowned-1")}))
    assert revoke.asked_at(held, wishes, T0 + timedelta(hours=1)) == at


def test_one_that_joins_brings_it_forward_and_none_that_leaves_does() -> None:
    now = T0 + timedelta(days=2)
    alone = replace(HELD, spec=HELD.spec.model_copy(update={"findings": ("unowned-1",), "revoke_at": None}))
    assert revoke.asked_at(alone, (KEEPS, LATER), now) == now + timedelta(days=30)
    assert revoke.asked_at(alone, (KEEPS, LATER, REVOKES), now) == T0
    both = replace(HELD, spec=HELD.spec.model_copy(update={"findings": ("too-old-1", "unowned-1"), "revoke_at": now}))
    assert revoke.asked_at(both, (KEEPS, LATER), now) == now
    assert revoke.asked_at(both, (LATER,), now) == T0 + timedelta(days=30)


class Found:
    """What a revocation asks of Means; a stand-in because the fault is what a live read tells and no watch yet does."""

    def __init__(self, live: tuple[Wish, ...], unread: str = "") -> None:
        self.live = live
        self.unread = unread
        self.blocked: list[str] = []
        self.waiting: dict[Key, str] = {}
        self.entered: list[str] = []
        self.marked: list[Key] = []
        self.engine = self.ledger = self.queue = self.proof = self

    def now(self) -> datetime:
        return T0

    def mark(self, key: Key) -> None:
        self.marked.append(key)

    def at(self, *_: Any) -> None: ...

    def block(self, _: Key, reason: str) -> None:
        self.blocked.append(reason)

    def unblock(self, *_: Any) -> None: ...

    def has_act(self, _: str) -> bool:
        return True

    def budget(self, *_: Any) -> Any:
        return self

    def free_at(self, *_: Any) -> None: ...

    def subjects_in(self, _: str) -> int:
        return 1

    def fresh(self) -> str:
        return ""

    async def prove(self) -> str:
        return ""

    async def unheard(self) -> str:
        return self.unread

    async def still_wanted(self, *_: Any) -> tuple[Wish, ...]:
        return self.live

    def act(self, entered: Any) -> None:
        self.entered.append(entered.id)

    async def flush(self) -> None: ...


@pytest.mark.parametrize(("live", "revoked"), [((KEEPS,), False), ((KEEPS, REVOKES), True)])
def test_what_only_wants_the_quarantine_revokes_nothing(
    monkeypatch: pytest.MonkeyPatch, live: tuple[Wish, ...], revoked: bool
) -> None:
    """The finding that asked for it was excepted a second ago, and the watch has not told yet."""
    means = Found(live)
    due(monkeypatch, means)
    assert bool(means.entered) is revoked
    assert bool(means.marked) is not revoked


@pytest.mark.parametrize("unread", ["", "the audit log cannot be read"])
def test_nothing_is_revoked_while_an_attempt_may_stand_unread(monkeypatch: pytest.MonkeyPatch, unread: str) -> None:
    means = Found((KEEPS, REVOKES), unread)
    due(monkeypatch, means)
    assert bool(means.entered) is not bool(unread)
    assert means.blocked == (["InventoryStale"] if unread else [])


def due(monkeypatch: pytest.MonkeyPatch, means: Found) -> None:
    """Its time has come, and nobody uses it as far as is known."""

    async def nothing(*_: Any) -> None: ...
    async def left_as_it_is(_: Any, __: Any, held: Any, *___: Any) -> Any:
        return held

    monkeypatch.setattr(revoke, "_used_until", nothing)
    monkeypatch.setattr(revoke, "_revoke", left_as_it_is)
    asyncio.run(revoke.when_due(cast(Means, means), KEY, HELD, (KEEPS, REVOKES)))
