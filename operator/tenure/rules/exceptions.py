"""Exceptions: where one stands, what it waives at this instant, and when it has lapsed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from tenure.api.base import format_duration, format_timestamp
from tenure.api.names import ExceptionPhase, Rule
from tenure.api.policy import ExceptionClassPolicy
from tenure.model.evaluation import Evidence, ExceptionRecord, Governance, Pin, Standing, Violation, Waiver
from tenure.model.facts import Facts, Record
from tenure.model.keys import Key
from tenure.rules import risk
from tenure.rules.case import Case
from tenure.rules.governance import terms_of

EXPIRED: Final = "Expired"
TOO_LONG: Final = "TooLong"
AWAITING_ON_BEHALF_OF: Final = "AwaitingOnBehalfOf"
AWAITING_APPROVAL: Final = "AwaitingApproval"
WAITING: Final = "Waiting"
NOTHING_REQUIRED: Final = "NothingRequired"


def state(exception: ExceptionRecord, governance: Governance, now: datetime) -> Standing:
    """Where the exception stands by its spec and the policy of its namespace (the documented defaults without one, or
    while two conflict). Until decisions are read, only a policy that says `approvals: []` lets one become active."""
    spec = exception.spec
    if now >= spec.expires_at:
        return Standing(ExceptionPhase.EXPIRED, EXPIRED)
    stamped = exception.spec_changed or exception.created
    rules = terms_of(governance).exceptions
    bounds = rules.of(spec.class_)
    reason, failing, until = NOTHING_REQUIRED, "", spec.expires_at
    ready = stamped + _wait(bounds)
    if spec.expires_at - stamped > bounds.longest:
        length = f"{spec.class_.value} may last {format_duration(bounds.longest)} from the last change of its spec"
        reason, failing = TOO_LONG, f"expiresAt: {length}, until {format_timestamp(stamped + bounds.longest)}"
    elif rules.require_on_behalf_of and _by_machine(spec.requested_by) and not spec.on_behalf_of:
        reason, failing = AWAITING_ON_BEHALF_OF, "onBehalfOf: a ServiceAccount asked for it; name the person behind it"
    elif bounds.approvals:
        needed = ", ".join(f"{need.verb} 0 of {need.count}" for need in bounds.approvals)
        reason, failing = AWAITING_APPROVAL, f"approvals: {needed}"
    elif now < ready:
        reason, failing, until = WAITING, f"consult, veto: open until {format_timestamp(ready)}", min(ready, until)
    return Standing(ExceptionPhase.PENDING if failing else ExceptionPhase.ACTIVE, reason, failing, until)


def _wait(bounds: ExceptionClassPolicy) -> timedelta:
    """Nothing is active before every consulted verb's wait and the veto's time are over."""
    waits = [consulted.wait for consulted in bounds.consult]
    if bounds.veto is not None:
        waits.append(bounds.veto.within)
    return max(waits, default=timedelta(0))


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


def pins(facts: Facts) -> tuple[Pin, ...]:
    """What the exception's target names or selects now, to be frozen when it becomes active."""
    exception = facts.exception
    return tuple(
        Pin(target.key.kind, target.record.name, target.record.uid)
        for target in facts.targets
        if target.record is not None and selects(exception, target.key.kind, target.record)
    )


# --- waivers


def about(facts: Facts) -> tuple[ExceptionRecord, ...]:
    """Every exception that targets the subject, whatever its phase, by name."""
    record, key = facts.record, facts.key
    if record is None or not facts.exceptions:
        return ()
    return tuple(
        exception
        for exception in facts.exceptions
        if selects(exception, key.kind, record) or pinned(exception, key.kind, record.name, record.uid)
    )


def waives(exception: ExceptionRecord, facts: Facts, now: datetime) -> bool:
    """Whether the exception covers the subject at this very instant: active for its present spec, not past its end
    (whatever its status still says), and pinned to this uid (a namesake is not covered)."""
    status = exception.status
    return (
        facts.record is not None
        and status is not None
        and status.phase is ExceptionPhase.ACTIVE
        and now < exception.spec.expires_at
        and pinned(exception, facts.key.kind, facts.record.name, facts.record.uid)
    )


def waivers(exceptions: tuple[ExceptionRecord, ...], facts: Facts, now: datetime) -> dict[Rule, Waiver]:
    """For each rule the waiver that lasts longest (of equals the first by name)."""
    found: dict[Rule, Waiver] = {}
    for exception in exceptions:
        if not waives(exception, facts, now):
            continue
        assert exception.status is not None
        waiver = Waiver(
            exception=Key("IdentityException", exception.namespace, exception.name),
            class_=exception.spec.class_.value,
            active_since=exception.status.active_since or exception.spec_changed or exception.created,
            until=exception.spec.expires_at,
        )
        for rule in exception.spec.rules:
            if rule not in found or found[rule].until < waiver.until:
                found[rule] = waiver
    return dict(sorted(found.items()))


# --- ExceptionLapsed


def frozen(facts: Facts) -> Iterator[Facts]:
    """The targets an exception answers for after its end: those it was pinned to, or, if it never became active, those
    it names or selects now."""
    exception = facts.exception
    status = exception.status
    was_active = status is not None and status.observed_generation == exception.generation and bool(status.matched)
    for target in facts.targets:
        record = target.record
        if record is None:
            continue
        if was_active:
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
