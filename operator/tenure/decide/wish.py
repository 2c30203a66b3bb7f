"""What the findings of one subject want done to it, taken together: one Quarantine serves them all."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from tenure.api.names import Mode, Risk, Rule, Verdict
from tenure.decide.terms import Terms


@dataclass(frozen=True, slots=True)
class Wish:
    """One finding that wants its subject quarantined or revoked. `act` is set while its act is due and not begun."""

    finding: str
    rule: Rule
    risk: Risk
    act: Verdict | None
    due: datetime
    opening: int
    terms: Terms
    owner: str = ""
    contact: str = ""
    message: str = ""


def order(wish: Wish) -> tuple[int, datetime, str]:
    """The worst risk first, then the longest overdue."""
    return (-wish.risk.rank, wish.due, wish.finding)


def may_not(wishes: tuple[Wish, ...]) -> str:
    """Why no further step of an act may be taken for any of these now (a key of decide.held.HELD), "" when one may.
    An act that had begun waits too while the policy is suspended, gone or back to audit; what it did stays."""
    reasons = [w.terms.held or ("Audit" if w.terms.mode is Mode.AUDIT else "") for w in wishes]
    return "" if "" in reasons or not reasons else reasons[0]
