"""The life of one finding: opened, excepted, quarantined, resolved, reopened.

`step` is the only place that moves a finding. It is level-based: it looks at what was written before, at what the
evaluator says now and at how the Quarantine stands, never at which event led here, so that a crash between any two
writes, a lost event and a repeated one all end in the same state.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tenure.api.conditions import Condition, ConditionStatus, ConditionType, Reason
from tenure.api.decision import IdentityDecisionStatus
from tenure.api.finding import (
    Accountable,
    Act,
    Debt,
    Evidence,
    FindingDecision,
    FindingRisk,
    FindingSubject,
    IdentityFindingSpec,
    IdentityFindingStatus,
    ManagedBy,
)
from tenure.api.names import (
    API_VERSION,
    DecisionSource,
    DueOutcome,
    IdentityClass,
    Mode,
    OnDeadline,
    Phase,
    Rule,
    Verdict,
)
from tenure.decide.advice import advice
from tenure.decide.held import HELD
from tenure.decide.hold import Hold
from tenure.decide.instants import whole
from tenure.decide.ladder import climb, facts_and_steps, history, upcoming
from tenure.decide.lever import lever
from tenure.decide.terms import ENFORCEABLE, Terms
from tenure.decide.verdict import Weighed, answers, weigh
from tenure.model.evaluation import Decision, Evaluation, Violation, Waiver
from tenure.model.keys import Key
from tenure.model.records import Authored

Finding = Authored[IdentityFindingSpec, IdentityFindingStatus]

LEAST_SHARE = 10
"""A reopened finding keeps at least a tenth of `decideWithin`, however much its lineage has used."""

# `model_copy` does not validate, so what is copied in is cut here to the bounds of tenure.api.finding; `fitted` then
# sees to it that all of it together is stored in less than 4 KiB (contract §3).
MESSAGE = 400
TEXT = 200
LINES = 8


_RBAC = "rbac.authorization.k8s.io/v1"
_API_VERSIONS = {"ServiceAccount": "v1", "Secret": "v1", "RoleBinding": _RBAC, "ClusterRoleBinding": _RBAC}


@dataclass(frozen=True, slots=True)
class Step:
    """What should be stored and what should happen next."""

    spec: IdentityFindingSpec | None = None
    status: IdentityFindingStatus | None = None
    delete: bool = False
    """The retention of a resolved finding is over."""
    act: Verdict | None = None
    """The act that is due now and not yet begun."""
    held: str = ""
    """Why that act may not begin (Suspended, EnforcementOff, PolicyConflict, PlatformNamespace, TurnNotRecorded; Audit
    where a person asks for it)."""
    wants: bool = False
    """The finding wants its subject quarantined: the act is due, or done and nothing has decided otherwise."""
    revoke: datetime | None = None
    """When a person asked for revocation, None when nobody did."""
    rulings: Mapping[str, IdentityDecisionStatus] = field(default_factory=dict)
    """What the statuses of the decisions about it are to say, by name, where that is news."""
    next: datetime | None = None

    @property
    def by_person(self) -> bool:
        """Whether a person's verdict decided it."""
        return self.status is not None and _by_verdict(self.status)


def finding_name(key: Key, rule: Rule) -> str:
    """Lineage name: deleting and re-creating the subject leads to the same object."""
    lineage = (key.namespace, key.kind, key.name, *((key.part,) if key.part else ()), rule.value)
    digest = hashlib.sha256("\0".join(lineage).encode()).hexdigest()
    return f"{rule.value.lower()}-{digest[:20]}"


def step(
    rule: Rule,
    evaluation: Evaluation,
    previous: Finding | None,
    terms: Terms,
    hold: Hold | None,
    *,
    first_inventory: datetime,
    now: datetime,
    blocked: str = "",
    decisions: tuple[Decision, ...] = (),
) -> Step:
    """The finding's next state. `previous` is the stored object, `hold` the Quarantine that lists it, `decisions` those
    that name its uid; all instants are API-server time. `blocked` is why enforcement could not begin an act that is due
    (a key of held.HELD); it is shown while the act is due and changes nothing. Returns an empty Step when there is
    nothing to store."""
    violation = next((v for v in evaluation.violations if v.rule is rule), None)
    before = previous.status if previous else None
    if violation is None and before is None:
        return Step()
    if before and before.released and hold and hold.released == before.released:
        hold = None  # that release has been taken in; the object only waits for its finalizer
    if violation is None:
        assert before is not None
        after = _ended(before, evaluation, rule, terms, hold, now)
    else:
        renewed = bool(previous and previous.spec.subject.uid and previous.spec.subject.uid != evaluation.uid)
        after = _moved(before, violation, evaluation, terms, hold, renewed, first_inventory, now)
        after = _described(after, before, violation, evaluation, terms, now)
    after = _repaid(before, after, now)
    spec = _spec(previous, evaluation, rule, before, after)
    weighed = _weighed(decisions, previous, spec, after, hold, evaluation.key)
    after = _ruled(after, weighed, hold, now)
    if violation is not None:
        after = climb(after, evaluation.ownership, now)
        after = after.model_copy(update={"enforce_not_before": _not_before(after, terms)})
    standing = hold if hold and hold.released is None and not hold.ending else None
    if standing and after.phase in (Phase.OPEN, Phase.QUARANTINED):
        after = _held_by(after, standing, terms, now)
    elif hold and after.phase is Phase.RESOLVED and after.acts and hold.started >= (after.opened or hold.started):
        after = _with_acts(after, hold)  # what was begun before it was resolved is still told to its end
    if after.due_outcome is DueOutcome.PENDING and after.decided is None and after.due and now >= after.due:
        after = after.model_copy(update={"due_outcome": DueOutcome.MISSED})
    act, held = _due_act(after, terms, hold, weighed, now)
    waits_for = held or (blocked if act or standing else "")
    conditions = _conditions(after, before, rule, evaluation, waits_for, hold, now)
    after = after.model_copy(update={"conditions": conditions})
    after = after.fitted()
    resolved_until = after.resolved + terms.retention if after.phase is Phase.RESOLVED and after.resolved else None
    return Step(
        spec=spec,
        status=after,
        delete=bool(resolved_until and now >= resolved_until),
        act=act if not held else None,
        held=held,
        wants=after.phase is Phase.QUARANTINED
        or (act is not None and not held)
        or bool(after.phase is Phase.OPEN and standing),
        revoke=weighed.revoke.created if weighed.revoke else None,
        rulings=answers(decisions, weighed, after, standing, waits_for),
        next=_next(after, evaluation, resolved_until, now),
    )


def _moved(
    before: IdentityFindingStatus | None,
    violation: Violation,
    evaluation: Evaluation,
    terms: Terms,
    hold: Hold | None,
    renewed: bool,
    first_inventory: datetime,
    now: datetime,
) -> IdentityFindingStatus:
    """The rule holds: open, reopen, except, or go on. `renewed`: the subject is a namesake of the one written before;
    it goes on with that one's clock, or with what is left of it where that one's had been decided."""
    waiver = evaluation.waivers.get(violation.rule)
    if before is None or before.phase is Phase.RESOLVED:
        since = before.resolved if before and before.resolved else first_inventory
        after = _opened(before, violation, terms, since=max(since, first_inventory), now=now)
    elif before.phase is Phase.EXCEPTED and waiver is None:
        after = _opened(before, violation, terms, since=now, now=now, lapsed=True)
    elif renewed and before.decided is not None and before.phase is not Phase.EXCEPTED:
        after = _opened(before, violation, terms, since=now, now=now)
    elif hold is not None and hold.released is not None:
        after = _opened(before, violation, terms, since=hold.released, now=now, released=hold.released)
    elif before.phase is Phase.QUARANTINED and hold is None:
        # The Quarantine is gone without our having seen it end: somebody took its finalizer off. That is a release.
        after = _opened(before, violation, terms, since=now, now=now, released=now)
    else:
        after = before
    return after if waiver is None else _excepted(after, waiver, now)


def _opened(
    before: IdentityFindingStatus | None,
    violation: Violation,
    terms: Terms,
    *,
    since: datetime,
    now: datetime,
    lapsed: bool = False,
    released: datetime | None = None,
) -> IdentityFindingStatus:
    """A new opening. `since` bounds `observable` from below: what happened in an earlier opening is not this one's."""
    used = timedelta(seconds=before.used_seconds) if before else timedelta(0)
    changed = violation.epoch is not None and before is not None and before.opened is not None
    if changed and violation.epoch > before.opened:  # type: ignore[operator, union-attr]
        used = timedelta(0)
    if lapsed and terms.restart_on_lapse:
        used = timedelta(0)
    due = (released + terms.decide_within) if released else now + _rest(terms.decide_within, used)
    return IdentityFindingStatus(
        subject=before.subject if before else "",
        phase=Phase.OPEN,
        risk=FindingRisk(level=violation.risk.level),
        class_=before.class_ if before else IdentityClass.WORKLOAD,
        accountable=before.accountable if before and before.accountable.step == 0 else Accountable(),
        observable=min(max(violation.observable, since), now),
        detected=now,
        opened=now,
        due=whole(due),
        opening=(before.opening if before else 0) + 1,
        used_seconds=int(used.total_seconds()),
        debt=before.debt if before else Debt(),
        released=released or (before.released if before else None),
        conditions=before.conditions if before else (),
    )


def _rest(within: timedelta, used: timedelta) -> timedelta:
    return max(within - used, within / LEAST_SHARE)


def _decided(
    status: IdentityFindingStatus,
    *,
    verdict: str,
    source: DecisionSource,
    at: datetime,
    reference: str,
    now: datetime,
    class_: str = "",
    by: str = "",
) -> IdentityFindingStatus:
    """Stamps the decision, once per opening. A stamp from before the finding was detected counts as when we saw it; one
    from the same second does not lie before it, since the API server cuts its stamps to the second."""
    if status.decided is not None or status.detected is None or status.due is None:
        return status
    moment = at if status.detected.replace(microsecond=0) <= at <= now else now
    late = moment > status.due
    used = status.used_seconds + max(0, int((moment - (status.opened or moment)).total_seconds()))
    outcome = status.due_outcome
    if outcome is DueOutcome.PENDING:
        outcome = DueOutcome.MISSED if late or source is DecisionSource.POLICY else DueOutcome.MET
    return status.model_copy(
        update={
            "decided": moment,
            "used_seconds": used,
            "due_outcome": outcome,
            "decision": FindingDecision(
                verdict=verdict,
                source=source,
                by=by,
                reference=reference,
                class_=class_,
                late=late and source is not DecisionSource.POLICY,
            ),
        }
    )


def _excepted(status: IdentityFindingStatus, waiver: Waiver, now: datetime) -> IdentityFindingStatus:
    """Waived, and what that adds to the lineage's debt: a later end than was ever granted is a renewal, whichever
    exception grants it."""
    since = waiver.decided or waiver.active_since
    status = _decided(
        status,
        verdict="",
        source=DecisionSource.EXCEPTION,
        at=since,
        reference=f"IdentityException/{waiver.exception.name}",
        now=now,
        class_=waiver.class_,
        by=waiver.by,
    )
    debt = status.debt
    if debt.until is None or waiver.until > debt.until:
        debt = debt.model_copy(
            update={"until": waiver.until, "renewals": debt.renewals + (1 if debt.until is not None else 0)}
        )
    if status.phase is not Phase.EXCEPTED:
        opened = status.opened.replace(microsecond=0) if status.opened is not None else now
        began = since if opened <= since <= now else now
        debt = debt.model_copy(update={"since": began})
    return status.model_copy(update={"phase": Phase.EXCEPTED, "enforce_not_before": None, "debt": debt})


def _repaid(before: IdentityFindingStatus | None, after: IdentityFindingStatus, now: datetime) -> IdentityFindingStatus:
    """Adds an exempt period to the debt when it ends, whatever ends it. One that was seen late ended when the waiver
    did."""
    if before is None or before.phase is not Phase.EXCEPTED:
        return after
    if after.phase is Phase.EXCEPTED and after.opening == before.opening:
        return after  # it goes on
    debt = before.debt
    began, ended = debt.since or before.decided or now, min(now, debt.until or now)
    seconds = debt.exempt_seconds + max(0, int((ended - began).total_seconds()))
    since = after.debt.since if after.phase is Phase.EXCEPTED else None
    return after.model_copy(update={"debt": after.debt.model_copy(update={"exempt_seconds": seconds, "since": since})})


def _weighed(
    decisions: tuple[Decision, ...],
    previous: Finding | None,
    spec: IdentityFindingSpec,
    after: IdentityFindingStatus,
    hold: Hold | None,
    key: Key,
) -> Weighed:
    """A finding that is not stored yet was seen by nobody."""
    if previous is None or not decisions:
        return Weighed()
    asked = key.kind in ENFORCEABLE
    known = previous.spec.revision
    return weigh(decisions, after, hold, name=previous.name, revision=spec.revision, known=known, asked=asked)


def _ruled(status: IdentityFindingStatus, weighed: Weighed, hold: Hold | None, now: datetime) -> IdentityFindingStatus:
    """A person's verdict decides what nothing has decided, unless the act began before it."""
    made = weighed.first
    if made is None or status.phase is not Phase.OPEN or (hold is not None and made.created > hold.started):
        return status
    return _decided(
        status,
        verdict=made.spec.verdict.value,
        source=DecisionSource.VERDICT,
        at=made.created,
        reference=f"IdentityDecision/{made.name}",
        now=now,
        by=made.spec.by or "",
    )


def _by_verdict(status: IdentityFindingStatus) -> bool:
    return status.decision is not None and status.decision.source is DecisionSource.VERDICT


def _ended(
    before: IdentityFindingStatus, evaluation: Evaluation, rule: Rule, terms: Terms, hold: Hold | None, now: datetime
) -> IdentityFindingStatus:
    """The rule no longer holds. What decided follows from what changed: the subject's end, a claim or label, a fix."""
    if before.phase is Phase.RESOLVED:
        return before
    ownership = evaluation.ownership
    source, at, reference = DecisionSource.FIX, now, ""
    if not evaluation.exists:
        source = DecisionSource.SUBJECT_GONE
    elif rule is Rule.UNOWNED and ownership.claim is not None:
        source, at = DecisionSource.CLAIM, ownership.claim_changed or now
        reference = f"OwnedIdentity/{ownership.claim.name}"
    elif rule is Rule.UNOWNED and ownership.state == "derived":
        source, reference = DecisionSource.CLAIM, ownership.why
    elif rule is Rule.ENTITLEMENT_UNDECLARED and evaluation.declared_by is not None:
        source, at = DecisionSource.CLAIM, evaluation.declared or now
        reference = f"OwnedIdentity/{evaluation.declared_by.name}"
    status = before
    if hold is not None and hold.revoke_started is not None and not evaluation.exists:
        status = _by_policy(status, hold, terms, Verdict.REVOKE, now)
    else:
        status = _decided(status, verdict="", source=source, at=at, reference=reference, now=now)
    accountable = status.accountable
    if evaluation.exists and ownership.owner != accountable.owner:
        accountable = Accountable(owner=ownership.owner, since=now, step=accountable.step)
    return status.model_copy(
        update={
            "phase": Phase.RESOLVED,
            "resolved": now,
            "enforce_not_before": None,
            "residual": (),
            "accountable": accountable,
        }
    )


def _by_policy(
    status: IdentityFindingStatus, hold: Hold, terms: Terms, verdict: Verdict, now: datetime
) -> IdentityFindingStatus:
    return _decided(
        status,
        verdict=verdict.value,
        source=DecisionSource.POLICY,
        at=status.enforce_not_before or hold.started,
        reference=terms.reference,
        now=now,
    )


def _held_by(status: IdentityFindingStatus, hold: Hold, terms: Terms, now: datetime) -> IdentityFindingStatus:
    """Takes the act's progress over from the Quarantine, and with it that the policy decided."""
    status = _with_acts(_by_policy(status, hold, terms, hold.verdict, now), hold)
    status = status.model_copy(update={"residual": tuple(dict.fromkeys((*hold.residual, *status.residual)))[:LINES]})
    if hold.contended and not hold.in_force:
        return status.model_copy(update={"phase": Phase.OPEN})  # nobody should take it for quarantined
    return status.model_copy(update={"phase": Phase.QUARANTINED}) if hold.enforced else status


def _with_acts(status: IdentityFindingStatus, hold: Hold) -> IdentityFindingStatus:
    """The acts as the Quarantine tells them; "enforced" and "verified" are the first act's."""
    first = Act(
        verdict=Verdict.QUARANTINE,
        decided=status.decided,
        started=hold.started,
        enforced=hold.enforced,
        verified=hold.verified,
        error=hold.error[:TEXT],
    )
    acts: tuple[Act, ...] = (first,)
    if hold.revoke_started is not None:
        acts += (
            Act(
                verdict=Verdict.REVOKE,
                decided=hold.revoke_at or status.decided,
                started=hold.revoke_started,
                enforced=hold.revoked,
                verified=hold.revoked,
            ),
        )
    return status.model_copy(
        update={
            "acts": acts,
            "enforced": status.enforced or first.enforced,
            "verified": status.verified or first.verified,
        }
    )


def _described(
    after: IdentityFindingStatus,
    before: IdentityFindingStatus | None,
    violation: Violation,
    evaluation: Evaluation,
    terms: Terms,
    now: datetime,
) -> IdentityFindingStatus:
    """Everything that may change without moving the finding: risk, terms, words. (Who is accountable: ladder.climb.)"""
    due = after.due
    if (
        before is not None
        and after.decided is None
        and due
        and after.opened
        and violation.risk.level > before.risk.level
    ):
        used = timedelta(seconds=after.used_seconds)
        due = min(due, max(whole(after.opened + _rest(terms.decide_within, used)), whole(now)))
    managed = evaluation.managed_by
    steps = history(before) if before is not None and before.opening == after.opening else ()
    return after.model_copy(
        update={
            "subject": _subject(evaluation.key),
            "risk": FindingRisk(level=violation.risk.level, reasons=violation.risk.reasons),
            "class_": evaluation.ownership.class_,
            "message": violation.message[:MESSAGE],
            "due": due,
            "on_deadline": terms.on_deadline,
            "mode": terms.mode,
            "residual": tuple(line[:TEXT] for line in evaluation.residual[:LINES]),
            "evidence": facts_and_steps(
                tuple(Evidence(source=x.source, since=x.since, detail=x.detail) for x in violation.evidence), steps
            ),
            "managed_by": managed
            and ManagedBy(manager=managed.manager, name=managed.name, lever=lever(managed)[:TEXT]),
        }
    )


def _subject(key: Key) -> str:
    """What a reader of the column `Subject` looks for."""
    return f"{key.kind}/{key.name}{f' {key.form}' if key.part else ''}"


def _not_before(status: IdentityFindingStatus, terms: Terms) -> datetime | None:
    """No act before: the deadline and the adoption grace, as they stood when it was decided; a person's verdict is
    carried out from when it was given. None where nothing is enforced."""
    if _by_verdict(status):
        return status.decided if terms.mode is Mode.ENFORCE else None
    not_before = None
    enforces = terms.mode is Mode.ENFORCE and terms.on_deadline is not OnDeadline.NOTHING
    if enforces and status.due is not None and terms.turn_known:
        not_before = max(status.due, whole(terms.not_before)) if terms.not_before else status.due
    return (status.enforce_not_before or not_before) if status.decided is not None else not_before


def _due_act(
    status: IdentityFindingStatus, terms: Terms, hold: Hold | None, weighed: Weighed, now: datetime
) -> tuple[Verdict | None, str]:
    """The act that is due and not begun, and what holds it. A person's is due at once, whatever the deadline and the
    adoption grace say, but also nothing is enforced for a person where no policy enforces."""
    if status.phase is not Phase.OPEN or hold is not None:
        return None, ""
    if _by_verdict(status):
        assert status.decision is not None
        revoke = weighed.revoke is not None or status.decision.verdict == Verdict.REVOKE
        held = terms.held or ("Audit" if terms.mode is Mode.AUDIT else "")
        return (Verdict.REVOKE if revoke else Verdict.QUARANTINE), held
    if terms.mode is not Mode.ENFORCE or terms.on_deadline is OnDeadline.NOTHING:
        return None, ""
    if status.due is None or now < status.due:
        return None, ""
    if not terms.turn_known:
        return Verdict.QUARANTINE, "TurnNotRecorded"
    if status.enforce_not_before is None or now < status.enforce_not_before:
        return None, ""
    verdict = Verdict.REVOKE if terms.on_deadline is OnDeadline.REVOKE else Verdict.QUARANTINE
    return verdict, terms.held


def _spec(
    previous: Finding | None,
    evaluation: Evaluation,
    rule: Rule,
    before: IdentityFindingStatus | None,
    after: IdentityFindingStatus,
) -> IdentityFindingSpec:
    """`revision` rises when the subject's uid, the risk or the proposed act changes: a verdict names what was seen."""
    old = previous.spec if previous else None
    uid = evaluation.uid or (old.subject.uid if old else "")
    changed = (
        old is not None
        and before is not None
        and (
            old.subject.uid != uid
            or before.risk.level is not after.risk.level
            or before.on_deadline is not after.on_deadline
        )
    )
    key = evaluation.key
    return IdentityFindingSpec(
        rule=rule,
        revision=(old.revision + (1 if changed else 0)) if old else 1,
        subject=FindingSubject(
            api_version=_API_VERSIONS.get(key.kind, API_VERSION),
            kind=key.kind,
            namespace=key.namespace if key.namespace and key.kind != "ClusterRoleBinding" else None,
            name=key.name,
            uid=uid,
            entitlement=key.part or None,
        ),
    )


def _conditions(
    status: IdentityFindingStatus,
    before: IdentityFindingStatus | None,
    rule: Rule,
    evaluation: Evaluation,
    held: str,
    hold: Hold | None,
    now: datetime,
) -> tuple[Condition, ...]:
    """The conditions that hold; a condition that no longer holds is dropped. Times move only when one appears."""
    wanted: list[tuple[ConditionType, str, str]] = []
    if status.phase is Phase.OPEN and status.decided is None:
        ownership, owner = evaluation.ownership, status.accountable.owner
        contacts = {ownership.owner: ownership.contact} | {rung.owner: rung.contact for rung in ownership.ladder}
        said = advice(rule, evaluation.key, finding_name(evaluation.key, rule), owner, contacts.get(owner, ""))
        wanted.append((ConditionType.DECISION_PENDING, Reason.AWAITING_DECISION, said))
    if held:
        source = evaluation.managed_by if held == "ManagedByController" else None
        wanted.append((ConditionType.BLOCKED, held, f"{HELD[held]} {lever(source) if source else ''}".rstrip()))
    if hold is not None and hold.contended:
        wanted.append((ConditionType.CONTENDED, Reason.REVERTED, hold.contended))
    elif hold is not None and hold.error:
        wanted.append((ConditionType.ENFORCEMENT_FAILED, Reason.ACT_FAILED, hold.error[:TEXT]))
    old = {c.type: c for c in before.conditions} if before else {}
    result = []
    for kind, reason, message in wanted:
        was = old.get(kind)
        since = was.last_transition_time if was and was.reason == reason else now
        result.append(
            Condition(
                type=kind, status=ConditionStatus.TRUE, reason=reason, message=message, last_transition_time=since
            )
        )
    return tuple(result)


def _next(
    status: IdentityFindingStatus, evaluation: Evaluation, resolved_until: datetime | None, now: datetime
) -> datetime | None:
    instants = [resolved_until]
    if status.phase is Phase.OPEN:
        instants += [status.due, status.enforce_not_before, upcoming(status, evaluation.ownership, now)]
    return min((i for i in instants if i is not None and i > now), default=None)
