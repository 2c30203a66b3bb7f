"""Somebody takes back what we did: told, counted, repeated a few times, and then left to the people who can end it.

How often stands in the Quarantine, so that a restart forgets none. Where it happened as often as the policy allows
(`contention.maxReverts`), nothing is done to that object any more: the finding names the change to commit, and the
quarantine is not called in force until the object is as it wants it, whoever saw to that.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from tenure.api.conditions import Condition, ConditionStatus, ConditionType, Reason
from tenure.api.names import FIELD_MANAGER, Stage
from tenure.api.policy import DEFAULT_MAX_REVERTS
from tenure.api.quarantine import QuarantineStatus, Revert, StageStatus
from tenure.decide.hold import Quarantine
from tenure.decide.lever import commit, product
from tenure.decide.wish import Wish
from tenure.enforce.means import Means
from tenure.enforce.quarantine import is_other_secret, stage_of, subject_of
from tenure.kube.errors import NotFound
from tenure.kube.resources import BY_KIND
from tenure.model.keys import Key
from tenure.model.records import ManagedBy
from tenure.telemetry import events

MOST: Final = 64
"""Objects that a Quarantine tells apart. Where more were taken back, nothing is done any more to those it does not
know."""


@dataclass(frozen=True, slots=True)
class Reverted:
    """One object on which our act is not in force any more, though it was."""

    key: Key
    what: str
    """In words: "label x is off"."""
    want: str
    """What its source has to say for the quarantine to stand."""
    field: tuple[str, ...]
    """Path of the field in managedFields: who owns it is who did it."""
    managed: ManagedBy | None = None
    """By its markers, as the inventory has them."""

    @property
    def object(self) -> str:
        return _named(self.key)


def _named(key: Key) -> str:
    """`Secret/<name>`, `RoleBinding/<namespace>/<name>` (a ServiceAccount is bound from anywhere)."""
    return "/".join((key.kind, key.namespace, key.name) if key.kind == "RoleBinding" else (key.kind, key.name))


def stopped(m: Means, quarantine: Quarantine, key: Key) -> bool:
    """Whether nothing is to be done to this object any more."""
    return _is_stopped(m, quarantine, _named(key))


def _is_stopped(m: Means, quarantine: Quarantine, object: str) -> bool:
    reverts = _reverts(m, quarantine)
    times = [revert.count for revert in reverts if revert.object == object]
    if not times:
        return len(reverts) >= MOST
    return sum(times) >= _most(m.engine.wishes.get(subject_of(quarantine), ()))


def _reverts(m: Means, quarantine: Quarantine) -> list[Revert]:
    """All that is known: what became of a Secret that was deleted stands in the record of that one."""
    told = m.about(subject_of(quarantine)) if is_other_secret(quarantine) else (quarantine,)
    return [revert for each in told if each.status for revert in each.status.reverts]


def _most(wishes: Iterable[Wish]) -> int:
    return max(1, min((wish.terms.max_reverts for wish in wishes), default=DEFAULT_MAX_REVERTS))


async def note(
    m: Means, key: Key, quarantine: Quarantine, stage: Stage, found: list[Reverted], wishes: tuple[Wish, ...]
) -> Quarantine:
    """Writes down what is news of it: who took back what, and that the stage is not in force, by one write, so that a
    crash counts nothing twice; and, where nothing more is done, what to commit. Raises ApiError."""
    news = [one for one in found if _is_news(quarantine, one)]
    if not news:
        return await settle(m, quarantine, found)
    status = quarantine.status or QuarantineStatus()
    reverts, note = await _entered(m, quarantine, news)
    was = stage_of(quarantine, stage)
    assert was is not None
    lost = StageStatus(name=stage, done=was.done, verified=was.verified, error=note)
    stages = tuple(lost if s.name is stage else s for s in status.stages)
    status = status.model_copy(update={"reverts": reverts, "stages": stages})
    status = status.model_copy(update={"conditions": _conditions(m, replace(quarantine, status=status), found)})
    quarantine = await m.write_status(quarantine, status)
    m.say(key, quarantine.spec.subject.uid, wishes, events.ENFORCEMENT_REVERTED, note, "Quarantine", warning=True)
    return quarantine


async def came_back(m: Means, key: Key, quarantine: Quarantine) -> None:
    """There is a Secret again of the name of one that was deleted: written back, as far as anybody can tell without
    reading it. Told once in the record of the one that was deleted; nobody calls the other one revoked."""
    status = quarantine.status or QuarantineStatus()
    record = m.store.secrets.get((key.namespace, key.name))
    if record is None or record.uid == quarantine.spec.subject.uid or status.reverts:
        return
    reverts, note = await _entered(m, quarantine, [written_back(m, key)])
    await m.write_status(quarantine, status.model_copy(update={"reverts": reverts}))
    m.say_names(key, record.uid, quarantine.spec.findings, events.ENFORCEMENT_REVERTED, note, "Revoke", warning=True)


def written_back(m: Means, key: Key) -> Reverted:
    """What is told of such a Secret."""
    record = m.store.secrets.get((key.namespace, key.name))
    managed = record.managed_by if record else None
    return Reverted(key, "it was written back after its deletion", "no such Secret.", ("f:data",), managed)


async def _entered(m: Means, quarantine: Quarantine, news: list[Reverted]) -> tuple[tuple[Revert, ...], str]:
    """The reverts with these among them, and what is said of them; counted in the metric."""
    reverts, told = list(quarantine.status.reverts if quarantine.status else ()), []
    for one in news:
        who = await _who(m, one)
        told.append(f"{one.object}: {one.what}, by {who or 'somebody'}")
        m.metrics.reverted(product(who) or (one.managed.manager if one.managed else ""))
        at = next((n for n, r in enumerate(reverts) if (r.object, r.manager) == (one.object, who)), None)
        count = 1 if at is None else reverts[at].count + 1
        entry = Revert(at=m.now(), object=one.object, manager=who, what=one.what, count=count)
        if at is not None:
            reverts[at] = entry
        elif len(reverts) < MOST:
            reverts.append(entry)
    return tuple(reverts), f"Taken back: {'; '.join(told)}."


async def _who(m: Means, one: Reverted) -> str:
    """The field manager that did it, "" where the API server does not tell: whoever only takes a field away with an
    update or a patch leaves no trace. One that applies does: as the owner of the field, or, where it took away what it
    had owned, by the time of its entry."""
    try:
        raw = await m.kube.get(BY_KIND[one.key.kind], one.key.name, one.key.namespace)
    except NotFound:
        return ""
    entries = [e for e in raw["metadata"].get("managedFields") or () if e.get("manager") != FIELD_MANAGER]
    owners = [e for e in entries if _owns(e, one.field)]
    applied = [e for e in entries if e.get("operation") == "Apply"]
    last: dict[str, Any] = max(owners or applied, key=lambda e: str(e.get("time", "")), default={})
    return str(last.get("manager", ""))[:64]


def _owns(entry: dict[str, Any], field: tuple[str, ...]) -> bool:
    place: Any = entry.get("fieldsV1") or {}
    for step in field:
        place = place.get(step)
        if place is None:
            return False
    return True


def _is_news(quarantine: Quarantine, one: Reverted) -> bool:
    """Once it is written down, it is news again when our act was repeated meanwhile."""
    reverts = quarantine.status.reverts if quarantine.status else ()
    return all(revert.repeated for revert in reverts if revert.object == one.object)


def repeated(m: Means, quarantine: Quarantine) -> tuple[Revert, ...]:
    """The reverts as they are to stand once the act was repeated on all objects on which it may be."""
    return tuple(
        revert if revert.repeated or _is_stopped(m, quarantine, revert.object) else _again(revert)
        for revert in (quarantine.status.reverts if quarantine.status else ())
    )


def _again(revert: Revert) -> Revert:
    return revert.model_copy(update={"repeated": True})


async def settle(m: Means, quarantine: Quarantine, found: list[Reverted]) -> Quarantine:
    """Says in the Quarantine, where that is news, on which of these nothing is done any more, and what to commit."""
    status = quarantine.status or QuarantineStatus()
    conditions = _conditions(m, quarantine, found)
    if conditions == status.conditions:
        return quarantine
    return await m.write_status(quarantine, status.model_copy(update={"conditions": conditions}))


def _conditions(m: Means, quarantine: Quarantine, found: list[Reverted]) -> tuple[Condition, ...]:
    stood = quarantine.status.conditions if quarantine.status else ()
    others = tuple(c for c in stood if c.type != ConditionType.CONTENDED)
    lines = [_line(_reverts(m, quarantine), one) for one in found if stopped(m, quarantine, one.key)]
    if not lines:
        return others
    said = Condition(
        type=ConditionType.CONTENDED,
        status=ConditionStatus.TRUE,
        reason=Reason.REVERTED,
        message=" ".join(lines),
        last_transition_time=next((c.last_transition_time for c in stood if c not in others), m.now()),
    )
    return (*others, said)


def _line(told: list[Revert], one: Reverted) -> str:
    reverts = [r for r in told if r.object == one.object]
    by = ", ".join(dict.fromkeys(r.manager or "somebody" for r in reverts))
    times = sum(r.count for r in reverts)
    return f"{one.object}: {one.what}, {times} times by {by}; nothing more is done. {commit(one.want, one.managed, by)}"
