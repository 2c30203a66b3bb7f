"""The escalation ladder: who is accountable for a finding that nobody decides, as its time passes.

The rungs are those of the accountable owner as they stand now; what is stored says which steps of this opening were
taken, and none of them is taken back or taken twice: not by a restart, not by another owner's shorter ladder, not by a
clock that was set back.
"""

from __future__ import annotations

from datetime import datetime

from tenure.api.finding import ESCALATION, Accountable, Evidence, IdentityFindingStatus
from tenure.decide.instants import whole
from tenure.model.evaluation import Ownership, Rung

LINES = 8
"""Lines of evidence that a finding holds; an owner has no more steps than that."""


def climb(status: IdentityFindingStatus, ownership: Ownership, now: datetime) -> IdentityFindingStatus:
    """The same finding with the steps that have passed. One that is decided or not open takes none."""
    stood = status.accountable
    if status.decided is not None or status.opened is None or status.due is None:
        return _settled(status, ownership, now)
    # A step that was taken has passed, whatever the clock says by now.
    at = max(now, stood.since) if stood.since and stood.step else now
    passed = [rung for rung in ownership.ladder if instant(status, rung) <= at]
    owner = passed[-1].owner if passed else ownership.owner
    step = max(stood.step, len(passed))
    if stood.since is not None and (stood.owner, stood.step) == (owner, step):
        return status
    since = instant(status, passed[-1]) if step > stood.step else now
    taken = tuple(_line(status, n, passed[n - 1]) for n in range(stood.step + 1, step + 1))
    facts = tuple(line for line in status.evidence if line.source != ESCALATION)
    return status.model_copy(
        update={
            "accountable": Accountable(owner=owner, since=since, step=step),
            "evidence": facts_and_steps(facts, (*history(status), *taken)),
        }
    )


def _settled(status: IdentityFindingStatus, ownership: Ownership, now: datetime) -> IdentityFindingStatus:
    """Whoever was accountable when it was decided stays so, unless the ownership itself changed."""
    stood = status.accountable
    known = {ownership.owner} if stood.step == 0 else {ownership.owner, *(rung.owner for rung in ownership.ladder)}
    if stood.since is not None and stood.owner in known:
        return status
    accountable = Accountable(owner=ownership.owner, since=now, step=stood.step)
    return status.model_copy(update={"accountable": accountable})


def instant(status: IdentityFindingStatus, rung: Rung) -> datetime:
    """When a rung's share of the decision time has passed: to the second, and never before the finding was opened."""
    assert status.opened is not None
    assert status.due is not None
    return whole(max(status.opened, status.opened + rung.share * (status.due - status.opened)))


def upcoming(status: IdentityFindingStatus, ownership: Ownership, now: datetime) -> datetime | None:
    """The next step's instant; None when none is left, and once it is decided."""
    if status.decided is not None or status.opened is None or status.due is None:
        return None
    return min((at for rung in ownership.ladder if (at := instant(status, rung)) > now), default=None)


def history(status: IdentityFindingStatus) -> tuple[Evidence, ...]:
    """The steps that this opening has taken, as its evidence tells them."""
    return tuple(line for line in status.evidence if line.source == ESCALATION)


def facts_and_steps(facts: tuple[Evidence, ...], steps: tuple[Evidence, ...]) -> tuple[Evidence, ...]:
    """The evidence within its bound; where both are many, the steps stay."""
    return (*facts[: LINES - len(steps)], *steps)


def _line(status: IdentityFindingStatus, step: int, rung: Rung) -> Evidence:
    detail = f"step {step} at {rung.share:.0%} of the time: {rung.owner}"
    return Evidence(source=ESCALATION, since=instant(status, rung), detail=detail)
