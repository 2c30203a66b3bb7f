"""What the decisions about one exception come to: which of them count, for what, and what is still missing.

A decision that exists had its right: admission judged that when it was made, and it is never judged again. What is left
to ask is what it is about (this very state?), whose it is (not the requester's), and whether the policy asks for it.
What counts is worked out anew each time from all decisions; only what a decision's own status says of it is for good.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from tenure.api.base import format_timestamp
from tenure.api.decision import DecisionOutcome, DecisionReason
from tenure.api.exception import Counted
from tenure.api.names import TargetKind, Verdict
from tenure.api.policy import ApprovalRequirement, ExceptionClassPolicy
from tenure.model.evaluation import Decision, ExceptionRecord, Ruling, settled
from tenure.model.facts import Claim

CONSULT: Final = "consult"
FORCE: Final = "force"

_ORDER: Final = {Verdict.APPROVE: 0, Verdict.ATTEST: 1, Verdict.REJECT: 2}
_FORCED: Final = 3


@dataclass(frozen=True, slots=True)
class Wait:
    """A consultation, or the time for a veto."""

    words: str
    until: datetime
    verb: str = ""
    """What answers the consultation; "" for a veto, which nobody has to give."""


@dataclass(frozen=True, slots=True)
class Weighed:
    """What the decisions about an exception come to for its present spec, whatever the time is."""

    tally: str
    """ "approve 1 of 1, approve-security 0 of 1"; "" where no approval is asked for."""
    missing: tuple[str, ...]
    """The verbs that are still to be used, each once, in the order of the policy."""
    approved: datetime | None
    """The first approval that counts."""
    last: Decision | None
    """The last approval needed; None while one is missing, and where none is needed."""
    waits: tuple[Wait, ...]
    """What has to be over, besides."""
    forced: Decision | None
    """The force that stands: no later Reject undid it."""
    rejected: Decision | None
    """The Reject that stands: no later force undid it."""
    overruled: bool
    """The Reject that stands came after a force, or when nothing was missing any more."""
    counted: tuple[Counted, ...]
    """In the order in which they were made."""
    rulings: dict[str, Ruling] = field(default_factory=dict)
    """By name, of every decision but those in `surplus` and `attests`."""
    surplus: tuple[Decision, ...] = ()
    """Approvals that fill no place so far."""
    attests: tuple[Decision, ...] = ()
    """Attestations of the present state that are not ruled on yet, and those that count."""

    def ready(self, stamped: datetime) -> datetime | None:
        """The instant from which nothing is missing, None while an approval is."""
        if self.missing:
            return None
        instants: list[datetime] = [stamped, *(wait.until for wait in self.waits)]
        return max([*instants, self.last.created] if self.last is not None else instants)


def is_consult(verb: str) -> bool:
    """Whether the verb gives an opinion and decides nothing."""
    return verb == CONSULT or verb.startswith(f"{CONSULT}-")


def stale(decision: Decision, name: str, generation: int, stamped: datetime) -> Ruling | None:
    """Why a decision is not about the state that stands there; None when it is. stamped: when that state was written.

    One that names a later generation waits for it to be seen, and is void if that was written after the decision:
    nobody decides on what does not exist yet. One that counted before counts, though `stamped` may have moved since (it
    is an upper bound)."""
    named = decision.spec.target.generation or 0
    if decision.spec.target.name != name:
        return Ruling.void(DecisionReason.STALE_TARGET, f"The object of that uid is called {name}. Decide anew.")
    if named < generation:
        text = f"It names generation {named}; the spec has changed since, to generation {generation}. Decide anew."
        return Ruling.void(DecisionReason.STALE_TARGET, text)
    if named > generation:
        return Ruling.undecided(f"It names generation {named}; {generation} is the last one seen.")
    if decision.created < stamped and settled(decision) is None:
        text = f"Generation {named} was written at {format_timestamp(stamped)}, after this decision. Decide anew."
        return Ruling.void(DecisionReason.STALE_TARGET, text)
    return None


def stamp(record: ExceptionRecord | Claim) -> datetime:
    """When the present spec was written, by the API server's stamp. The first one seen for this generation counts, and
    no generation is older than the one before it: a manager that also owns a label moves its time later with every
    change of that label, and whoever may write the object may set or wipe its managedFields."""
    status = record.status
    written = record.spec_changed or record.created
    if status is None or status.stamped is None:
        return written
    return status.stamped if status.observed_generation == record.generation else max(status.stamped, written)


def weigh(
    exception: ExceptionRecord, stamped: datetime, bounds: ExceptionClassPolicy, decisions: Iterable[Decision]
) -> Weighed:
    """Weighs the decisions about the exception's uid. stamped is when the present spec was written. One that calls it
    by another kind had its right judged on that kind."""
    weighing = _Weighing(exception, stamped, bounds)
    for decision in sorted(decisions, key=_order):
        if decision.spec.target.kind is TargetKind.IDENTITY_EXCEPTION:
            weighing.take(decision)
    return weighing.weighed()


def settle(weighed: Weighed, rulings: dict[str, Ruling], *, over: str, since: datetime | None) -> dict[str, Ruling]:
    """The rulings with those that depend on where the exception stands. over: why no further approval can matter, ""
    while one can. since: when it became active, None when it is not."""
    found = {**weighed.rulings, **rulings}
    for decision in weighed.surplus:
        if over:
            text = f"It was not needed: {over}. One person fills one place."
            found[decision.name] = Ruling.void(DecisionReason.NOT_ASKED, text)
        else:
            text = f"It fills no place so far ({weighed.tally}): one person fills one place. Others must use "
            found[decision.name] = Ruling.undecided(f"{text}{', '.join(weighed.missing)}.")
    for decision in weighed.attests:
        found[decision.name] = _attestation(decision, weighed.forced, over, since)
    return found


def _attestation(decision: Decision, forced: Decision | None, over: str, since: datetime | None) -> Ruling:
    held = settled(decision)
    if held is not None:
        return held
    if forced is not None and decision.spec.by == forced.spec.by:
        text = f"{decision.spec.by} forced it: somebody else has to review that."
        return Ruling.void(DecisionReason.OWN_REQUEST, text)
    if since is not None and decision.created >= since:
        return Ruling.counted(DecisionReason.ATTESTED, "Attested: the present spec was looked at, and goes on.")
    if since is not None:
        text = "It came before the exception was active: there was nothing to review."
        return Ruling.void(DecisionReason.NOT_ASKED, text)
    if over:
        return Ruling.void(DecisionReason.ALREADY_DECIDED, f"There is nothing to review: {over}.")
    return Ruling.undecided("The exception is not active yet: there is nothing to review.")


def _order(decision: Decision) -> tuple[datetime, int, bool, str]:
    """As they were made. Within one second force wins over Reject, and Reject over Approve; among equals what was
    taken in before goes first, or a later one whose name happens to be smaller would push it from its place."""
    rank = _FORCED if decision.spec.used_verb == FORCE else _ORDER.get(decision.spec.verdict, 0)
    return (decision.created, rank, settled(decision) is None, decision.name)


class _Places:
    """Who fills which place: a person fills one, and as many places are filled as can be (augmenting paths)."""

    def __init__(self, needs: Iterable[ApprovalRequirement]) -> None:
        self.counts: dict[str, int] = {}
        for need in needs:
            self.counts[need.verb] = self.counts.get(need.verb, 0) + need.count
        self.filled: dict[str, list[str]] = {verb: [] for verb in self.counts}
        self._verbs: dict[str, list[str]] = {}
        self._place: dict[str, str] = {}

    @property
    def full(self) -> bool:
        return all(len(self.filled[verb]) == count for verb, count in self.counts.items())

    @property
    def tally(self) -> str:
        return ", ".join(f"{verb} {len(self.filled[verb])} of {count}" for verb, count in self.counts.items())

    @property
    def missing(self) -> tuple[str, ...]:
        return tuple(verb for verb, count in self.counts.items() if len(self.filled[verb]) < count)

    def holds(self, person: str, verb: str) -> bool:
        return self._place.get(person) == verb

    def add(self, person: str, verb: str) -> None:
        """The person has used the verb, which is one that is asked for."""
        used = self._verbs.setdefault(person, [])
        if verb in used or self.full:
            return
        used.append(verb)
        # One more way to a place fills one more at most: for this person, or, where they have one, for somebody else.
        waiting = [person] if person not in self._place else [p for p in self._verbs if p not in self._place]
        for candidate in waiting:
            if self._seat(candidate, set()):
                return

    def _seat(self, person: str, seen: set[str]) -> bool:
        for verb in self._verbs[person]:
            if verb in seen:
                continue
            seen.add(verb)
            holders = self.filled[verb]
            if len(holders) < self.counts[verb] or any(self._seat(other, seen) for other in tuple(holders)):
                if person in self._place:
                    self.filled[self._place[person]].remove(person)
                holders.append(person)
                self._place[person] = verb
                return True
        return False


class _Weighing:
    """The walk over the decisions in their order."""

    def __init__(self, exception: ExceptionRecord, stamped: datetime, bounds: ExceptionClassPolicy) -> None:
        self._exception = exception
        self._stamped = stamped
        self._bounds = bounds
        self._places = _Places(bounds.approvals)
        self._veto_until = stamped + bounds.veto.within if bounds.veto else None
        self._answers: dict[str, datetime] = {}
        self._approvals: list[Decision] = []
        self._counted: list[Decision] = []
        self._rulings: dict[str, Ruling] = {}
        self._attests: list[Decision] = []
        self._last: Decision | None = None
        self._forced: Decision | None = None
        self._rejected: Decision | None = None
        self._overruled = False

    def take(self, decision: Decision) -> None:
        held = settled(decision)
        ruling = stale(decision, self._exception.name, self._exception.generation, self._stamped)
        if held is not None and (held.outcome is DecisionOutcome.VOID or ruling is not None):
            self._rulings[decision.name] = held
            return
        if ruling is None and held is None:
            ruling = self._ruled_out(decision)
        if ruling is not None:
            self._rulings[decision.name] = ruling
            return
        verb = decision.spec.used_verb
        if decision.spec.verdict is Verdict.ATTEST:
            self._attests.append(decision)
        elif is_consult(verb):
            self._heard(decision, verb)
        elif verb == FORCE:
            self._force(decision)
        elif decision.spec.verdict is Verdict.REJECT:
            self._reject(decision, verb, held)
        else:
            self._approve(decision, verb)

    def _ruled_out(self, decision: Decision) -> Ruling | None:
        """What voids a decision on the state that stands there, whatever else was decided."""
        spec, request = decision.spec, self._exception.spec
        if decision.created >= request.expires_at:
            text = f"The exception had ended, at {format_timestamp(request.expires_at)}. Ask for a new one."
            return Ruling.void(DecisionReason.ALREADY_DECIDED, text)
        if spec.verdict is not Verdict.APPROVE and not is_consult(spec.used_verb):
            return None
        if spec.by is None:
            return Ruling.void(
                DecisionReason.OWN_REQUEST, "It does not say whose it is (spec.by): it might be the requester's."
            )
        if request.requested_by is None:
            text = "The exception does not say who wrote it (spec.requestedBy): it might be the decider's own request."
            return Ruling.void(DecisionReason.OWN_REQUEST, text)
        if spec.by in (request.requested_by, request.on_behalf_of):
            which = "wrote the present spec" if spec.by == request.requested_by else "is who it was requested for"
            return Ruling.void(DecisionReason.OWN_REQUEST, f"{spec.by} {which}: somebody else has to decide.")
        return None

    def _heard(self, decision: Decision, verb: str) -> None:
        if verb not in {consulted.verb for consulted in self._bounds.consult}:
            text = f"The policy consults nobody with the verb {verb} about {self._exception.spec.class_.value}."
            self._rulings[decision.name] = Ruling.void(DecisionReason.NOT_ASKED, text)
            return
        self._answers.setdefault(verb, decision.created)
        self._count(decision, DecisionReason.OPINION, f"Heard: {verb} is waited for no longer. It counts as neither.")

    def _force(self, decision: Decision) -> None:
        self._forced, self._rejected = decision, None
        self._count(decision, DecisionReason.FORCED, "Active at once; to be reviewed within seven days.")

    def _reject(self, decision: Decision, verb: str, held: Ruling | None) -> None:
        veto, until = self._bounds.veto, self._veto_until
        if self._rejected is not None and held is None:
            text = f"{self._rejected.spec.by or 'Somebody'} had rejected it before. Change its spec to ask anew."
            self._rulings[decision.name] = Ruling.void(DecisionReason.ALREADY_DECIDED, text)
            return
        if held is None and veto and until and veto.verb == verb and decision.created >= until:
            text = f"The time for a veto was over at {format_timestamp(until)}."
            self._rulings[decision.name] = Ruling.void(DecisionReason.VETO_OVER, text)
            return
        ready = self._ready()
        overruled = self._forced is not None or (ready is not None and ready < decision.created)
        self._rejected, self._forced, self._overruled = decision, None, overruled
        done = "Withdrawn" if overruled else "Rejected"
        self._count(decision, DecisionReason.REJECTED, f"{done} until the exception's spec changes.")

    def _approve(self, decision: Decision, verb: str) -> None:
        if self._rejected is not None:
            text = f"{self._rejected.spec.by or 'Somebody'} had rejected it before. Change its spec to ask anew."
            self._rulings[decision.name] = Ruling.void(DecisionReason.ALREADY_DECIDED, text)
        elif verb not in self._places.counts:
            class_, asked = self._exception.spec.class_.value, ", ".join(self._places.counts) or "no approval"
            text = f"The policy asks for {asked} about {class_}, not for {verb}."
            self._rulings[decision.name] = Ruling.void(DecisionReason.NOT_ASKED, text)
        else:
            was = self._places.full
            self._approvals.append(decision)
            self._places.add(decision.spec.by or "", verb)
            if not was and self._places.full:
                self._last = decision

    def _count(self, decision: Decision, reason: DecisionReason, message: str) -> None:
        self._counted.append(decision)
        self._rulings[decision.name] = settled(decision) or Ruling.counted(reason, message)

    def _waits(self) -> tuple[Wait, ...]:
        found = []
        for consulted in self._bounds.consult:
            end = self._stamped + consulted.wait
            answered = self._answers.get(consulted.verb)
            words = f"consult: an answer with {consulted.verb} is waited for until {format_timestamp(end)}"
            found.append(Wait(words, min(answered, end) if answered else end, consulted.verb))
        if self._bounds.veto is not None and self._veto_until is not None:
            words = f"veto: {self._bounds.veto.verb} may object until {format_timestamp(self._veto_until)}"
            found.append(Wait(words, self._veto_until))
        return tuple(found)

    def _ready(self) -> datetime | None:
        return self._sofar().ready(self._stamped)

    def _sofar(self) -> Weighed:
        return Weighed(
            tally=self._places.tally,
            missing=self._places.missing,
            approved=self._approvals[0].created if self._approvals else None,
            last=self._last,
            waits=self._waits(),
            forced=self._forced,
            rejected=self._rejected,
            overruled=self._overruled,
            counted=(),
        )

    def weighed(self) -> Weighed:
        surplus: list[Decision] = []
        seated: set[str] = set()
        for decision in self._approvals:
            person, verb = decision.spec.by or "", decision.spec.used_verb
            if self._places.holds(person, verb) and person not in seated:
                seated.add(person)
                self._count(decision, DecisionReason.APPROVED, f"Approved: {self._places.tally}.")
            elif (held := settled(decision)) is not None:
                self._rulings[decision.name] = held
            else:
                surplus.append(decision)
        return replace(
            self._sofar(),
            counted=tuple(_counted(decision) for decision in sorted(self._counted, key=_order)),
            rulings=self._rulings,
            surplus=tuple(surplus),
            attests=tuple(self._attests),
        )


def _counted(decision: Decision) -> Counted:
    spec = decision.spec
    return Counted(
        verb=spec.used_verb,
        verdict=spec.verdict.value,
        by=spec.by or "",
        at=decision.created,
        decision=decision.name,
    )


REVIEW_AFTER_FORCE: Final = timedelta(days=7)
"""A forced exception is reviewed within this time (contract §3)."""
