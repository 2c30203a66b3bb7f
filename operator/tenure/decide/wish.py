"""What the findings of one subject want done to it, taken together: one Quarantine serves them all."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from tenure.api.names import Mode, OnDeadline, Risk, Rule, Verdict
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
    by_person: bool = False
    """A person's verdict decided: what the policy would do later, revoke above all, is not asked for."""
    revoke: datetime | None = None
    """When a person's Revoke was given: revocation is due from then on."""

    @property
    def revokes(self) -> bool:
        """Whether it asks for revocation at all, now or later."""
        by_policy = self.terms.on_deadline is OnDeadline.REVOKE or self.terms.revoke_after is not None
        return self.revoke is not None or (by_policy and not self.by_person)

    def revoke_at(self, since: datetime) -> datetime | None:
        """When revocation is due where the quarantine was asked for at `since`; None for never."""
        after = timedelta(0) if self.terms.on_deadline is OnDeadline.REVOKE else self.terms.revoke_after
        by_policy = since + after if after is not None and not self.by_person else None
        return min((at for at in (self.revoke, by_policy) if at is not None), default=None)


def order(wish: Wish) -> tuple[int, datetime, str]:
    """The worst risk first, then the longest overdue."""
    return (-wish.risk.rank, wish.due, wish.finding)


def may_not(wishes: tuple[Wish, ...]) -> str:
    """Why no further step of an act may be taken for any of these now (a key of decide.held.HELD), "" when one may.
    An act that had begun waits too while the policy is suspended, gone or back to audit; what it did stays."""
    reasons = [w.terms.held or ("Audit" if w.terms.mode is Mode.AUDIT else "") for w in wishes]
    return "" if "" in reasons or not reasons else reasons[0]
