"""The blast radius: which act may begin next, and what keeps the others waiting.

Pure. At least one act per window is always allowed; namespaces take turns (the one with the fewest acts in the window
comes first), so that a flood of decoys in one cannot starve the others; within a namespace the worst risk goes first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from tenure.api.policy import BlastRadius
from tenure.decide.wish import Wish, order
from tenure.model.keys import Key
from tenure.reconcile.ledger import RecordedAct


@dataclass(frozen=True, slots=True)
class Budget:
    """One policy's cap and what it has used: `acts` are those of the window, oldest first."""

    cap: BlastRadius
    acts: tuple[RecordedAct, ...]

    def free_at(self, namespace: str, subjects: int, now: datetime) -> datetime | None:
        """None when an act in the namespace may begin now, else when the window next gives a place. `subjects` is how
        many the namespace has: the percentage is of these, and never less than one."""
        wait: list[datetime] = []
        if len(self.acts) >= self.cap.max_actions:
            wait.append(self.acts[-self.cap.max_actions].at + self.cap.window)
        here = [act for act in self.acts if act.namespace == namespace]
        share = max(1, subjects * self.cap.max_percent_per_namespace // 100)
        if len(here) >= share:
            wait.append(here[-share].at + self.cap.window)
        free = max(wait, default=None)
        return free if free is not None and free > now else None

    def used(self, namespace: str) -> int:
        """Acts in the namespace within the window."""
        return sum(1 for act in self.acts if act.namespace == namespace)


@dataclass(frozen=True, slots=True)
class Pick:
    """`key` may begin now; `waiting` may not, `free_at` is when the first of these may."""

    key: Key | None = None
    waiting: frozenset[Key] = field(default_factory=frozenset)
    free_at: datetime | None = None


def pick(
    pending: Mapping[Key, Wish],
    budget: Callable[[Wish], Budget],
    subjects: Callable[[str], int],
    now: datetime,
) -> Pick:
    """The next act among `pending` (the most pressing wish of each subject)."""
    waiting: set[Key] = set()
    free: datetime | None = None
    allowed: list[tuple[int, tuple[int, datetime, str], str, Key]] = []
    for key, wish in pending.items():
        of = budget(wish)
        until = of.free_at(key.namespace, subjects(key.namespace), now)
        if until is None:
            allowed.append((of.used(key.namespace), order(wish), key.namespace, key))
            continue
        waiting.add(key)
        free = until if free is None else min(free, until)
    return Pick(min(allowed)[3] if allowed else None, frozenset(waiting), free)
