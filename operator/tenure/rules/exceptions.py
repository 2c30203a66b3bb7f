"""Exceptions: where one stands, what it waives at this instant, and when it has lapsed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Final

from tenure.api.base import format_duration, format_timestamp
from tenure.api.decision import DecisionReason
from tenure.api.exception import IdentityExceptionStatus
from tenure.api.finding import Debt
from tenure.api.names import ExceptionPhase, Rule, Verdict
from tenure.api.policy import ExceptionClassPolicy
from tenure.model.evaluation import (
    Decision,
    Evidence,
    ExceptionRecord,
    Governance,
    Pin,
    Ruling,
    Standing,
    Violation,
    Waiver,
    settled,
)
from tenure.model.facts import Facts, Record
from tenure.model.keys import Key
from tenure.rules import approvals, risk
from tenure.rules.approvals import Weighed, stamp
from tenure.rules.case import Case
from tenure.rules.governance import terms_of

EXPIRED: Final = "Expired"
REJECTED: Final = "Rejected"
WITHDRAWN: Final = "Withdrawn"
TOO_LONG: Final = "TooLong"
TOO_MANY_RENEWALS: Final = "TooManyRenewals"
AWAITING_POLICY: Final = "AwaitingPolicy"
AWAITING_ON_BEHALF_OF: Final = "AwaitingOnBehalfOf"
AWAITING_REQUESTER: Final = "AwaitingRequester"
AWAITING_APPROVAL: Final = "AwaitingApproval"
WAITING: Final = "Waiting"
APPROVED: Final = "Approved"
FORCED: Final = "Forced"
NOTHING_REQUIRED: Final = "NothingRequired"

Debts = Mapping[Key, Mapping[Rule, Debt]]
_NO_DEBTS: Final[Debts] = {}


def state(
    exception: ExceptionRecord,
    governance: Governance,
    now: datetime,
    decisions: Iterable[Decision] = (),
    debts: Debts = _NO_DEBTS,
) -> Standing:
    """Where the exception stands by its spec, the policy of its namespace (the documented defaults without one), the
    decisions about it, and what its targets' findings say of earlier waivers. While two policies conflict, or something
    that may count cannot be read, none becomes active but by force.

    What was rejected stays so until the spec changes. What became active for its present spec stays so, whatever the
    policy asks for by now: `disallowed` then says what. The longest duration, the end and the cap on renewals bind what
    was forced too."""
    spec = exception.spec
    bounds = terms_of(governance).exceptions.of(spec.class_)
    stamped = stamp(exception)
    decisions = tuple(decisions)
    weighed = approvals.weigh(exception, stamped, bounds, decisions)
    bound = _bound(exception, bounds, stamped, debts)
    reason, failing, until = bound or _asked(exception, governance, weighed, now)
    since = _since(exception, weighed, stamped, now) if not failing or active_since(exception) else None
    ended = _ended(exception, weighed, bound is None, now)
    if ended is not None:
        phase, over = ended
        reason, failing, until, since = phase.value, "" if phase is ExceptionPhase.EXPIRED else over, None, None
    elif since is not None:
        phase, over = ExceptionPhase.ACTIVE, "all approvals were there"
        reason = _because(exception, weighed)
    else:
        phase, over = ExceptionPhase.PENDING, ""
    end = spec.expires_at
    bounded = _bounded(weighed, failing) if phase is ExceptionPhase.PENDING else {}
    if governance.conflict or governance.unreadable:
        bounded |= _open(weighed, decisions)
    needed = _needed(weighed, stamped)
    return Standing(
        phase=phase,
        reason=reason,
        failing=failing if phase is not ExceptionPhase.ACTIVE else "",
        until=min(until or end, end) if ended is None else None,
        active_since=since,
        decided=needed.created if needed is not None else None,
        decided_by=(needed.spec.by or "") if needed is not None else "",
        decision=needed.name if needed is not None else "",
        approved=_frozen_at(weighed),
        forced=weighed.forced.created if weighed.forced else None,
        counted=weighed.counted,
        rulings=approvals.settle(weighed, bounded, over=over, since=since),
        missing=weighed.missing,
        unheard=tuple(wait.verb for wait in weighed.waits if wait.verb and now < wait.until),
        disallowed=failing if phase is ExceptionPhase.ACTIVE else "",
    )


def active_since(exception: ExceptionRecord) -> datetime | None:
    """Since when it has been active for its present spec, as its status says; None when it never was."""
    status = exception.status
    if status is None or status.observed_generation != exception.generation:
        return None
    return status.active_since or (stamp(exception) if status.phase is ExceptionPhase.ACTIVE else None)


_CLAUSE: Final = 256
"""Characters of a clause that names many objects."""

_Clause = tuple[str, str, datetime | None]
"""(reason, failing, when it changes by itself)"""


def _bound(exception: ExceptionRecord, bounds: ExceptionClassPolicy, stamped: datetime, debts: Debts) -> _Clause | None:
    """What no approval and no force gets past."""
    spec, class_ = exception.spec, exception.spec.class_.value
    if spec.expires_at - stamped > bounds.longest:
        length = f"{class_} may last {format_duration(bounds.longest)} from the last change of its spec"
        return TOO_LONG, f"expiresAt: {length}, until {format_timestamp(stamped + bounds.longest)}", None
    for key in sorted(debts):
        for rule in sorted(set(spec.rules) & debts[key].keys()):
            debt = debts[key][rule]
            if debt.until is not None and spec.expires_at > debt.until and debt.renewals >= bounds.most_renewals:
                done = f"{rule.value} of {key.kind}/{key.name} was renewed {debt.renewals} times"
                return TOO_MANY_RENEWALS, f"renewals: {done}, {class_} allows {bounds.most_renewals}", None
    return None


def _asked(exception: ExceptionRecord, governance: Governance, weighed: Weighed, now: datetime) -> _Clause:
    """What is still missing, the first clause of it; an empty `failing` when nothing is."""
    spec = exception.spec
    if weighed.forced is not None:
        return FORCED, "", None
    # What becomes active stays so: it must not do so by terms that are not those of the policy.
    if governance.conflict:
        text = f"policy: {' and '.join(governance.conflict)} have equal precedence here, so what it takes is open"
        return AWAITING_POLICY, text[:_CLAUSE], None
    if governance.unreadable:
        return AWAITING_POLICY, f"policy: {', '.join(governance.unreadable)} cannot be read"[:_CLAUSE], None
    if (
        terms_of(governance).exceptions.require_on_behalf_of
        and _by_machine(spec.requested_by)
        and not spec.on_behalf_of
    ):
        text = "onBehalfOf: a ServiceAccount asked for it; name the person behind it"
        return AWAITING_ON_BEHALF_OF, text, None
    if weighed.missing:
        if spec.requested_by is None:
            text = "requestedBy: it does not say who wrote it, so nobody can be told from its author; write it again"
            return AWAITING_REQUESTER, text, None
        return AWAITING_APPROVAL, f"approvals: {weighed.tally}; missing {', '.join(weighed.missing)}", None
    open_waits = [wait for wait in weighed.waits if now < wait.until]
    if open_waits:
        return WAITING, "; ".join(wait.words for wait in open_waits), min(wait.until for wait in open_waits)
    return "", "", None


def _ended(
    exception: ExceptionRecord, weighed: Weighed, unbound: bool, now: datetime
) -> tuple[ExceptionPhase, str] | None:
    """How it is over, and why; None while it is not."""
    status = exception.status
    before = status.phase if status is not None and status.observed_generation == exception.generation else None
    was_active = active_since(exception) is not None
    rejected = weighed.rejected
    if rejected is not None:
        withdrawn = was_active or (unbound and weighed.overruled)
        phase = ExceptionPhase.WITHDRAWN if withdrawn else ExceptionPhase.REJECTED
        who = rejected.spec.by or "somebody"
        return phase, f"{who} rejected it with {rejected.spec.used_verb} at {format_timestamp(rejected.created)}"
    if before in (ExceptionPhase.REJECTED, ExceptionPhase.WITHDRAWN) and weighed.forced is None:
        return before, "it was rejected, and the decision is gone from the ledger"
    if now >= exception.spec.expires_at:
        return ExceptionPhase.EXPIRED, f"it ended at {format_timestamp(exception.spec.expires_at)}"
    return None


def _since(exception: ExceptionRecord, weighed: Weighed, stamped: datetime, now: datetime) -> datetime:
    """When it became active, where it is."""
    known = active_since(exception)
    if known is not None:
        return known
    ready = weighed.ready(stamped)
    forced = weighed.forced.created if weighed.forced is not None else None
    return min(instant for instant in (ready, forced, now) if instant is not None)


def _because(exception: ExceptionRecord, weighed: Weighed) -> str:
    if weighed.forced is not None:
        return FORCED
    if weighed.last is not None:
        return APPROVED
    status = exception.status
    known = (APPROVED, FORCED, NOTHING_REQUIRED)
    if status is not None and active_since(exception) is not None and status.reason in known and weighed.missing:
        return status.reason
    return NOTHING_REQUIRED


def _needed(weighed: Weighed, stamped: datetime) -> Decision | None:
    """The last approval needed, or the force that came before nothing was missing."""
    ready, forced = weighed.ready(stamped), weighed.forced
    return forced if forced is not None and (ready is None or forced.created < ready) else weighed.last


def _frozen_at(weighed: Weighed) -> datetime | None:
    instants = [weighed.approved, weighed.forced.created if weighed.forced is not None else None]
    return min((instant for instant in instants if instant is not None), default=None)


def _bounded(weighed: Weighed, failing: str) -> dict[str, Ruling]:
    """A force that something binds has no effect yet; it is not void either, since the policy may change."""
    forced = weighed.forced
    if forced is None or settled(forced) is not None:
        return {}
    return {forced.name: Ruling.undecided(f"Nothing was forced: {failing}.")}


def _open(weighed: Weighed, decisions: Iterable[Decision]) -> dict[str, Ruling]:
    """What the policy decides about a decision is not said for good while the policy is not known."""
    new = (found.name for found in decisions if settled(found) is None)
    rulings = {name: weighed.rulings[name] for name in new if name in weighed.rulings}
    text = "What the policy asks for is not known: two are of equal precedence, or something here cannot be read."
    return {name: Ruling.undecided(text) for name, ruling in rulings.items() if ruling.reason in _BY_POLICY}


_BY_POLICY: Final = frozenset(
    {DecisionReason.APPROVED, DecisionReason.OPINION, DecisionReason.NOT_ASKED, DecisionReason.VETO_OVER}
)


def _by_machine(user: str | None) -> bool:
    return user is not None and user.startswith("system:serviceaccount:")


# --- targets


def selects(exception: ExceptionRecord, kind: str, record: Record) -> bool:
    """Whether the exception's target names or selects the object now."""
    target = exception.spec.target
    if target.kind.value != kind:
        return False
    if target.name is not None:
        return target.name == record.name and target.uid in (None, record.uid)
    return target.selector is not None and target.selector.matches(dict(record.labels))


def pinned(exception: ExceptionRecord, kind: str, name: str, uid: str) -> bool:
    """Whether this very object was frozen as a target of the exception's present spec."""
    status = exception.status
    if status is None or status.observed_generation != exception.generation:
        return False
    return any(match.uid == uid and match.kind == kind and match.name == name for match in status.matched)


def is_frozen(exception: ExceptionRecord) -> bool:
    """Whether its targets are frozen for its present spec, be it that there were none."""
    status = exception.status
    if status is None or status.observed_generation != exception.generation:
        return False
    return bool(status.matched) or active_since(exception) is not None or _approved(status)


def _approved(status: IdentityExceptionStatus) -> bool:
    return any(found.verdict == Verdict.APPROVE and not approvals.is_consult(found.verb) for found in status.counted)


def covers(exception: ExceptionRecord, standing: Standing, kind: str, record: Record) -> bool:
    """Whether the object is one of its targets: frozen, or, while none are, named or selected now and no younger than
    what freezes them (the first approval; where none is needed, the beginning): a namesake is not covered."""
    if is_frozen(exception):
        return pinned(exception, kind, record.name, record.uid)
    since = standing.approved or standing.active_since
    return (since is None or record.created <= since) and selects(exception, kind, record)


def pins(facts: Facts, standing: Standing) -> tuple[Pin, ...]:
    """What the exception's target names or selects now, to be frozen at the first approval, or when it becomes active
    where none is needed."""
    exception, since = facts.exception, standing.approved or standing.active_since
    found = (
        Pin(target.key.kind, target.record.name, target.record.uid)
        for target in facts.targets
        if target.record is not None
        and selects(exception, target.key.kind, target.record)
        and (since is None or target.record.created <= since)
    )
    return tuple(dict.fromkeys(found))  # a binding is the target of each of its entitlements


# --- waivers


Standings = tuple[tuple[ExceptionRecord, Standing], ...]


def standing_of(exception: ExceptionRecord, facts: Facts, now: datetime) -> Standing:
    """Where one of the namespace's exceptions stands, as the facts of any of its subjects tell it."""
    decisions = facts.decisions.get(exception.uid, ())
    return state(exception, facts.governance, now, decisions, facts.debts.get(exception.name, _NO_DEBTS))


def about(exceptions: Iterable[ExceptionRecord], kind: str, record: Record) -> Iterator[ExceptionRecord]:
    """Those of the exceptions that target the object, whatever their phase."""
    for exception in exceptions:
        if selects(exception, kind, record) or pinned(exception, kind, record.name, record.uid):
            yield exception


def standings(facts: Facts, now: datetime) -> Standings:
    """Every exception that targets the subject, whatever its phase, by name."""
    if facts.record is None or not facts.exceptions:
        return ()
    found = about(facts.exceptions, facts.key.kind, facts.record)
    return tuple((exception, standing_of(exception, facts, now)) for exception in found)


def waivers(found: Standings, facts: Facts) -> dict[Rule, Waiver]:
    """For each rule the waiver that lasts longest (of equals the first by name).

    Worked out from spec, policy and decisions, not read from a status: what was approved while nobody looked must
    come before what is due by now."""
    waived: dict[Rule, Waiver] = {}
    for exception, standing in found:
        if standing.phase is not ExceptionPhase.ACTIVE or standing.active_since is None or facts.record is None:
            continue
        if not covers(exception, standing, facts.key.kind, facts.record):
            continue
        waiver = Waiver(
            exception=Key("IdentityException", exception.namespace, exception.name),
            class_=exception.spec.class_.value,
            active_since=standing.active_since,
            until=exception.spec.expires_at,
            decided=standing.decided,
            by=standing.decided_by,
            reference=f"IdentityDecision/{standing.decision}" if standing.decision else "",
        )
        for rule in exception.spec.rules:
            if rule not in waived or waived[rule].until < waiver.until:
                waived[rule] = waiver
    return dict(sorted(waived.items()))


def changes(found: Standings) -> list[datetime]:
    """The instants at which one of them begins or ceases to waive by itself."""
    ends = [exception.spec.expires_at for exception, _ in found]
    return ends + [standing.until for _, standing in found if standing.until is not None]


# --- ExceptionLapsed


def frozen(facts: Facts) -> Iterator[Facts]:
    """The targets an exception answers for: those it was pinned to, or, while it is pinned to none, those it names or
    selects now."""
    exception = facts.exception
    fixed = is_frozen(exception)
    for target in facts.targets:
        record = target.record
        if record is None:
            continue
        if fixed:
            if pinned(exception, target.key.kind, record.name, record.uid):
                yield target
        elif selects(exception, target.key.kind, record):
            yield target


def lapsed(case: Case, violations: dict[Key, tuple[Violation, ...]]) -> Violation | None:
    """Holds when the exception expired and a target still violates a rule it named; `violations` are its targets'."""
    exception = case.facts.exception
    end = exception.spec.expires_at
    if case.now < end:
        return None
    still = [
        (target.key, violation)
        for target in frozen(case.facts)
        for violation in violations[target.key]
        if violation.rule in exception.spec.rules
    ]
    if not still:
        return None
    key, violation = still[0]
    more = f", and {len(still) - 1} more" if len(still) > 1 else ""
    return Violation(
        rule=Rule.EXCEPTION_LAPSED,
        observable=max(end, min(found.observable for _, found in still)),
        message=(
            f"{case.facts.key} ended at {format_timestamp(end)}, and {key} still violates {violation.rule.value}{more}."
        ),
        risk=risk.of_violation(Rule.EXCEPTION_LAPSED, case.facts.risk),
        evidence=(Evidence(source="spec.expiresAt", since=end),),
    )
