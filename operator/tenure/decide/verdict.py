"""Verdicts by people about a finding: which of them count, and what is said to those that do not.

Whether its maker had the right was judged by admission when the decision was created. What is asked here is whether it
is about the finding as it stands: this object, this opening of it, this revision.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from tenure.api.decision import DecisionOutcome, DecisionReason, IdentityDecisionStatus
from tenure.api.finding import IdentityFindingStatus
from tenure.api.names import DecisionSource, Phase, TargetKind, Verdict
from tenure.decide.held import HELD
from tenure.decide.hold import Hold, Quarantine
from tenure.model.evaluation import Decision, Ruling, settled

VERDICTS = (Verdict.QUARANTINE, Verdict.REVOKE)


@dataclass(frozen=True, slots=True)
class Weighed:
    """The verdicts about one finding at one instant."""

    first: Decision | None = None
    """The one that decides a finding that nothing has decided yet."""
    revoke: Decision | None = None
    """The first that asks for revocation."""
    rulings: Mapping[str, Ruling] = field(default_factory=dict)
    """By the decision's name, of those on which there is something to say now."""


def weigh(
    decisions: Iterable[Decision],
    status: IdentityFindingStatus,
    hold: Hold | None,
    *,
    name: str,
    revision: int,
    known: int,
    asked: bool,
) -> Weighed:
    """`decisions` name the finding's uid; `status` is its next state without them, `name` is the finding's, `revision`
    what its revision is to be and `known` what it is. `asked` is False where findings escalate and enforce nothing. A
    decision about a later revision than is known waits until that is known too: whoever made it may have read what we
    have not. One that is about the revision to be was made before anybody could read it."""
    first: Decision | None = None
    revoke: Decision | None = None
    rulings: dict[str, Ruling] = {}
    for made in sorted(decisions, key=lambda decision: (decision.created, decision.name)):
        if made.spec.target.kind is not TargetKind.IDENTITY_FINDING or made.spec.verdict not in VERDICTS:
            continue
        before = made.status.outcome if made.status else DecisionOutcome.UNDECIDED
        decided_it = _decided_by(status, made)
        void = None if decided_it else _void(made, status, name=name, revision=revision, asked=asked, before=before)
        if before is DecisionOutcome.VOID or (before is DecisionOutcome.COUNTED and void is not None):
            continue  # what was said stands, and it has no effect any more
        if void is None and not decided_it and before is not DecisionOutcome.COUNTED:
            named = made.spec.target.revision or 0
            if named > revision:
                continue
            ahead = Ruling.void(
                DecisionReason.STALE_TARGET, f"Revision {named} was not there yet: look at it and decide anew."
            )
            void = ahead if named > known else _too_late(made, status, hold, first, revoke)
        if void is not None:
            rulings[made.name] = void
            continue
        rulings[made.name] = Ruling.counted(DecisionReason.ENFORCED)
        first = first or made
        if made.spec.verdict is Verdict.REVOKE:
            revoke = revoke or made
    return Weighed(first, revoke, rulings)


def _decided_by(status: IdentityFindingStatus, made: Decision) -> bool:
    decision = status.decision
    return (
        decision is not None
        and decision.source is DecisionSource.VERDICT
        and decision.reference == f"IdentityDecision/{made.name}"
        and not _earlier(made.created, status)
    )


def _void(
    made: Decision,
    status: IdentityFindingStatus,
    *,
    name: str,
    revision: int,
    asked: bool,
    before: DecisionOutcome,
) -> Ruling | None:
    """Why it has no effect on this opening of this finding, whatever else was decided; None when it may have one."""
    target = made.spec.target
    if target.name != name:
        return Ruling.void(DecisionReason.TARGET_GONE, f"The finding of that uid is {name}, not {target.name}.")
    if not asked:
        text = "A finding on a claim or an exception enforces nothing: decide about the claim or the exception."
        return Ruling.void(DecisionReason.NOT_ASKED, text)
    if _earlier(made.created, status):
        text = "The finding was closed and opened again since: decide anew."
        return Ruling.void(DecisionReason.ALREADY_DECIDED, text)
    if before is not DecisionOutcome.COUNTED and (target.revision or 0) < revision:
        text = f"It names revision {target.revision}; the finding is at {revision}. Look at it again and decide anew."
        return Ruling.void(DecisionReason.STALE_TARGET, text)
    return None


def _too_late(
    made: Decision,
    status: IdentityFindingStatus,
    hold: Hold | None,
    first: Decision | None,
    revoke: Decision | None,
) -> Ruling | None:
    """What came before it. A verdict made after the deadline but before the act begins wins."""
    if status.phase in (Phase.RESOLVED, Phase.EXCEPTED):
        text = f"The finding is {status.phase.value}: nothing is to be done."
        return Ruling.void(DecisionReason.ALREADY_DECIDED, text)
    if made.spec.verdict is Verdict.REVOKE:
        begun = hold.revoke_started if hold is not None else None
        if revoke is not None or (begun is not None and made.created > begun):
            return Ruling.void(DecisionReason.ALREADY_DECIDED, "Revocation was decided before.")
        return None
    if first is not None or status.decided is not None or (hold is not None and made.created > hold.started):
        return Ruling.void(DecisionReason.ALREADY_DECIDED, "Something else decided the finding before.")
    return None


def _earlier(created: datetime, status: IdentityFindingStatus) -> bool:
    """Whether the stamp, which is cut to a second, lies before this opening. A finding's first opening is as old as the
    finding, so nobody can have named it earlier. In the second of a release the release comes last."""
    if status.released is not None and created <= status.released:
        return True
    return status.opening > 1 and status.opened is not None and created < status.opened.replace(microsecond=0)


def gone(made: Decision, target: object, continues: str | None = None) -> IdentityDecisionStatus | None:
    """The status of a verdict about a finding or Quarantine that is not there; `target` is what there is of that name,
    `continues` the Quarantine of which it is a further object. None when it is there."""
    about = made.spec.target
    if getattr(target, "uid", "") == about.uid:
        return None
    text = f"There is no {about.kind.value} {about.name} of that uid."
    if continues is not None:
        text = f"{about.name} goes with Quarantine {continues}, of which it holds a part: decide on that one."
    return answer(made, Ruling.void(DecisionReason.TARGET_GONE, text), text)


def releases(decisions: Iterable[Decision], quarantine: Quarantine) -> Decision | None:
    """The first Release that names this very Quarantine, None without one."""
    found = (
        made
        for made in decisions
        if made.spec.target.kind is TargetKind.QUARANTINE
        and made.spec.verdict is Verdict.RELEASE
        and made.spec.target.name == quarantine.name
        and made.spec.target.uid == quarantine.uid
        and (made.status is None or made.status.outcome is not DecisionOutcome.VOID)
    )
    return min(found, key=lambda made: (made.created, made.name), default=None)


def answers(
    decisions: Iterable[Decision], weighed: Weighed, status: IdentityFindingStatus, hold: Hold | None, waits: str
) -> Mapping[str, IdentityDecisionStatus]:
    """What the statuses of the decisions are to say, by name, where that differs from what they say. `waits` is why the
    act has not begun (a key of held.HELD), "" when it has or will."""
    news = {}
    for made in decisions:
        ruling = weighed.rulings.get(made.name)
        if ruling is None:
            continue
        text = ruling.message
        if not text and hold is None and status.phase in (Phase.RESOLVED, Phase.EXCEPTED):
            text = f"Nothing was left to do: the finding is {status.phase.value}."
        elif not text:
            text = f"It waits, {waits}: {HELD[waits]}" if waits else "It is carried out."
        due = None if _earlier(made.created, status) else status.due
        said = answer(made, ruling, text, due=due, effect=hold.reference if hold is not None else "")
        if said != made.status:
            news[made.name] = said
    return news


def answer(
    made: Decision, ruling: Ruling, message: str, *, due: datetime | None = None, effect: str = ""
) -> IdentityDecisionStatus:
    """A decision's status. The outcome is for good, and so is the effect once there is one."""
    stood = made.status
    if stood is not None and settled(made) is not None:
        if stood.outcome is not ruling.outcome or stood.effect:
            return stood
        due = stood.deadline or due
    return IdentityDecisionStatus(
        observed_generation=made.generation,
        outcome=ruling.outcome,
        verb=made.spec.used_verb,
        reason=ruling.reason or "",
        message=message,
        deadline=due,
        late=due is not None and made.created > due,
        effect=effect if ruling.outcome is DecisionOutcome.COUNTED else "",
        conditions=stood.conditions if stood else (),
    )
