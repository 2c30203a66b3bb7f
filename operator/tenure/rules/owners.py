"""Who answers where an owner is named: the owner, or its backup while it is missing, suspended or cyclic."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from tenure.api.conditions import Reason
from tenure.model.evaluation import Rung
from tenure.model.facts import Owner

Owners = Mapping[str, Owner]


@dataclass(frozen=True, slots=True)
class Answer:
    """What naming one owner comes to."""

    named: str
    accountable: str
    """The named owner, or who stands in for it; "" when nobody does."""
    vacant: Reason | None = None
    """OwnerMissing, OwnerSuspended or OwnerCyclic; None = the owner answers itself."""
    escalation: bool = False
    """The accountable owner has an escalation step to an owner that exists and is not suspended."""
    contact: str = ""
    """The accountable owner's first contact, "Email payments@example.com"."""
    ladder: tuple[Rung, ...] = ()
    """The accountable owner's steps of escalation on which somebody answers, by share."""

    @property
    def words(self) -> str:
        """The vacancy for a person: "owner payments is suspended, its backup platform answers"; "" without one."""
        if self.vacant is None:
            return ""
        state = {
            Reason.OWNER_MISSING: "does not exist",
            Reason.OWNER_SUSPENDED: "is suspended",
            Reason.OWNER_CYCLIC: "stands in a cycle of backups or escalations",
        }[self.vacant]
        if not self.accountable:
            return f"owner {self.named} {state}, and nobody stands in"
        if self.accountable == self.named:
            return f"owner {self.named} {state}"
        return f"owner {self.named} {state}, its backup {self.accountable} answers"


def answer(name: str, owners: Owners) -> Answer:
    """Who answers for the owner of this name."""
    vacant = vacancy(name, owners)
    accountable = name if vacant is None else _stand_in(name, owners)
    owner = owners.get(accountable)
    if owner is None:
        return Answer(name, accountable, vacant)
    return Answer(
        name,
        accountable,
        vacant,
        escalation=any(_live(step.to, owners) for step in owner.spec.escalation),
        contact=contact(owner),
        ladder=tuple(_rungs(owner, owners)),
    )


def contact(owner: Owner) -> str:
    """The owner's first contact, "Email payments@example.com", "" without one."""
    first = next(iter(owner.spec.contacts), None)
    return f"{first.type} {first.value}" if first is not None else ""


def _rungs(owner: Owner, owners: Owners) -> Iterator[Rung]:
    """Where a step leads to an owner that is vacant, its stand-in answers; where nobody does, the step is left out."""
    for step in sorted(owner.spec.escalation, key=lambda step: step.share):
        name = step.to if vacancy(step.to, owners) is None else _stand_in(step.to, owners)
        to = owners.get(name)
        if to is not None and _live(name, owners):
            yield Rung(step.share, name, contact(to))


def vacancy(name: str, owners: Owners) -> Reason | None:
    """Why nobody is at home: missing, suspended, or on a cycle of backups or of escalations. An owner whose chain
    only leads into a cycle of others is not vacant itself."""
    owner = owners.get(name)
    if owner is None:
        return Reason.OWNER_MISSING
    if owner.spec.suspended:
        return Reason.OWNER_SUSPENDED
    if cycle(name, owners):
        return Reason.OWNER_CYCLIC
    return None


def cycle(name: str, owners: Owners) -> frozenset[str]:
    """The owners that lie between an owner and itself, itself included; empty when it lies on no cycle. Backups and
    escalations are two graphs: that a backup escalates to the team it stands in for closes no circle."""
    return _circle(name, owners, backups) or _circle(name, owners, escalations)


def backups(owner: Owner) -> Iterable[str]:
    """The owner's edge in the graph of backups."""
    return (owner.spec.backup,) if owner.spec.backup else ()


def escalations(owner: Owner) -> Iterable[str]:
    """The owner's edges in the graph of escalations."""
    return [step.to for step in owner.spec.escalation]


def _circle(name: str, owners: Owners, edges: Callable[[Owner], Iterable[str]]) -> frozenset[str]:
    start = owners.get(name)
    if start is None:
        return frozenset()
    paths = [(to, frozenset({name})) for to in edges(start)]
    seen: set[str] = set()
    while paths:
        at, path = paths.pop()
        if at == name:
            return path
        owner = owners.get(at)
        if owner is None or at in seen:
            continue
        seen.add(at)
        paths.extend((to, path | {at}) for to in edges(owner))
    return frozenset()


def _stand_in(name: str, owners: Owners) -> str:
    """The first backup down the chain that is not vacant itself. Where all are cyclic, the named owner is still a
    team that exists, and after it the first backup that does: somebody must be told."""
    chain = [name]
    owner = owners.get(name)
    while owner is not None and owner.spec.backup and owner.spec.backup not in chain:
        chain.append(owner.spec.backup)
        owner = owners.get(owner.spec.backup)
    for backup in chain[1:]:
        if vacancy(backup, owners) is None:
            return backup
    return next((link for link in chain if _live(link, owners)), "")


def _live(name: str, owners: Owners) -> bool:
    owner = owners.get(name)
    return owner is not None and not owner.spec.suspended
