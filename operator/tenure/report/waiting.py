"""What waits for a decision: undecided findings, exceptions without their approvals, reviews that are due, quarantines.

Pure: the listed records in, rows out, each with the ways in which somebody may decide it. Who may take which way is the
API server's to say (tenure.report.rights).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Literal

from tenure.api.conditions import Condition, ConditionType, Reason
from tenure.api.finding import IdentityFindingStatus
from tenure.api.names import API_VERSION, ExceptionPhase, Mode, OnDeadline, Phase, Risk, Rule, TargetKind, Verdict
from tenure.inventory.store import Claim, Finding, QuarantineRecord, Store
from tenure.kube.resources import (
    IDENTITY_DECISIONS,
    IDENTITY_EXCEPTIONS,
    IDENTITY_FINDINGS,
    IDENTITY_OWNERS,
    OWNED_IDENTITIES,
    QUARANTINES,
    Resource,
)
from tenure.model.evaluation import ExceptionRecord
from tenure.report import verdicts
from tenure.report.verdicts import Target

Sort = Literal["Finding", "Exception", "Review", "Quarantine"]

OWNER: Final = "OWNER"
"""Stands in a command for an owner's name that whoever runs it has to fill in."""

_COUNTED: Final = re.compile(r"\b([a-z]+(?:-[a-z0-9]+)*) (\d+) of (\d+)\b")
"""A requirement in an exception's status.failing: "approve-security 0 of 1"."""
_AWAITED: Final = re.compile(r"\b(?:answer with|veto:) ([a-z]+(?:-[a-z0-9]+)*)\b")
"""Whoever is consulted, or may veto for some time yet, in the same place: "consult: an answer with consult is waited
for", "veto: reject-security may object"."""
_OFFERED: Final = re.compile(r"--verb ([a-z]+(?:-[a-z0-9]+)*)")
"""A verb in the commands that a DecisionPending condition gives."""
_ABOUT_DOCUMENTS: Final = ("OwnedIdentity", "IdentityException")


@dataclass(frozen=True, slots=True)
class Right:
    """A verb on an object; on a cluster-scoped one within a namespace, as the admission guards ask for it. name "" = on
    any at all."""

    verb: str
    resource: Resource
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Way:
    """One way to decide, and the rights it takes. `OWNER` in the command stands for a name that the right leaves
    open."""

    right: Right
    command: str
    makes: Right | None = None
    """The right to create what the command creates, where it creates something."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """One thing that waits."""

    sort: Sort
    kind: str
    """Of the object that is decided about."""
    namespace: str
    name: str
    about: str
    """In words: "Unowned: ServiceAccount/ci"."""
    due: datetime | None
    then: str
    """What happens when nobody decides."""
    owner: str
    risk: Risk | None
    ways: tuple[Way, ...]
    rule: str = ""
    named_owner: str = ""
    """For OwnerVacant: the owner whose claim it is, which cannot answer."""
    missing: str = ""
    """For an exception: what it still asks for."""
    asked_by: tuple[str, ...] = ()
    """For an exception: who may not approve it, having requested it."""
    heard: tuple[str, ...] = ()
    """For an exception: who has decided about its present spec already."""


@dataclass(frozen=True, slots=True)
class Group:
    """Findings OwnerVacant of one lost owner: one thing to decide."""

    rule: str
    owner: str
    """The owner that is lost."""
    answers: str
    """Who stands in, "" for nobody."""
    items: tuple[Waiting, ...]
    """The most urgent first."""
    ways: tuple[Way, ...]

    @property
    def due(self) -> datetime | None:
        return self.items[0].due

    @property
    def risk(self) -> Risk | None:
        return max((item.risk for item in self.items if item.risk is not None), default=None)


def waiting(store: Store, now: datetime) -> tuple[Waiting, ...]:
    """Everything that waits, the most urgent first."""
    rows = [*_findings(store), *_exceptions(store, now), *_reviews(store, now), *_quarantines(store)]
    return tuple(sorted(rows, key=_urgency))


def _urgency(row: Waiting | Group) -> tuple[float, int, str, str]:
    due = row.due.timestamp() if row.due else float("inf")
    first = row.items[0] if isinstance(row, Group) else row
    return due, -(row.risk.rank if row.risk else 0), first.namespace, first.name


# --- findings


def _findings(store: Store) -> Iterator[Waiting]:
    for finding in store.findings.values():
        status: IdentityFindingStatus | None = finding.status
        if status is None or status.phase is not Phase.OPEN or status.decided is not None:
            continue
        subject = finding.spec.subject
        named = ""
        if finding.spec.rule is Rule.OWNER_VACANT:
            claim = store.claims.get((finding.namespace, subject.name))
            named = claim.spec.owner if claim is not None else ""
        yield Waiting(
            sort="Finding",
            kind="IdentityFinding",
            namespace=finding.namespace,
            name=finding.name,
            about=f"{finding.spec.rule.value}: {status.subject or f'{subject.kind}/{subject.name}'}",
            due=status.due,
            then=then(status),
            owner=status.accountable.owner,
            risk=status.risk.level,
            ways=tuple(_ways(finding, status, named)),
            rule=finding.spec.rule.value,
            named_owner=named,
        )


def then(status: IdentityFindingStatus) -> str:
    """What happens at the deadline, in a word or two."""
    if status.on_deadline is OnDeadline.NOTHING:
        return "overdue"
    return f"{status.on_deadline.value.lower()}{' (audit)' if status.mode is Mode.AUDIT else ''}"


def _ways(finding: Finding, status: IdentityFindingStatus, named: str) -> Iterator[Way]:
    """How a finding may be decided, the mildest first. Verdicts are not asked for on claims and exceptions: those are
    decided by what they say, or by their owner's return (`named`)."""
    rule, subject, here = finding.spec.rule, finding.spec.subject, finding.namespace
    if rule is Rule.REVIEW_OVERDUE:
        yield _verdict(Target(TargetKind(subject.kind), here, subject.name), Verdict.ATTEST)
    elif subject.kind in _ABOUT_DOCUMENTS:
        resource = OWNED_IDENTITIES if subject.kind == "OwnedIdentity" else IDENTITY_EXCEPTIONS
        command = f"kubectl edit {resource.kind.lower()} {subject.name} -n {here}"
        yield Way(Right("patch", resource, here, subject.name), command)
        if named:
            yield Way(Right("patch", IDENTITY_OWNERS, "", named), _restore(named))
    else:
        if rule is Rule.UNOWNED:
            owner = status.accountable.owner
            makes = Right("create", OWNED_IDENTITIES, here, "")
            yield Way(Right("claim", IDENTITY_OWNERS, here, owner), _claim(finding, owner or OWNER), makes)
        about = Target(TargetKind.IDENTITY_FINDING, here, finding.name)
        yield _verdict(about, Verdict.QUARANTINE)
        yield _verdict(about, Verdict.REVOKE)


def _verdict(about: Target, verdict: Verdict, verb: str = "") -> Way:
    used = verb or verdict.lower()
    right = Right(used, about.resource, about.namespace, about.name)
    return Way(right, about.command(verdict, used), Right("create", IDENTITY_DECISIONS, about.namespace, ""))


def _claim(finding: Finding, owner: str) -> str:
    subject = finding.spec.subject
    part = "serviceAccounts" if subject.kind == "ServiceAccount" else "secrets"
    spec = {"owner": owner, "purpose": "TEXT", "subjects": {part: {"names": [subject.name]}}}
    return _piped("create", "OwnedIdentity", {"name": subject.name, "namespace": finding.namespace}, spec)


def _restore(owner: str) -> str:
    """Brings an owner back that is missing or suspended, whichever it is."""
    return _piped("apply", "IdentityOwner", {"name": owner}, {"suspended": False})


def _piped(verb: str, kind: str, metadata: Mapping[str, str], spec: Mapping[str, Any]) -> str:
    """One line for a shell. JSON, so that a name such as 123 stays a text; names of objects hold no quote."""
    made = {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}
    return f"kubectl {verb} -f - <<<'{json.dumps(made)}'"


# --- exceptions


def _exceptions(store: Store, now: datetime) -> Iterator[Waiting]:
    for exception in store.exceptions.values():
        spec, status = exception.spec, exception.status
        judged = status is not None and status.observed_generation == exception.generation
        phase = status.phase if status is not None and judged else ExceptionPhase.PENDING
        if phase is not ExceptionPhase.PENDING or now >= spec.expires_at:
            continue
        about = Target(TargetKind.IDENTITY_EXCEPTION, exception.namespace, exception.name)
        deadline = _deadline(exception, store)
        target = f"{spec.target.kind.value}/{spec.target.name}" if spec.target.name else f"{spec.target.kind.value}s"
        yield Waiting(
            sort="Exception",
            kind="IdentityException",
            namespace=exception.namespace,
            name=exception.name,
            about=f"{spec.class_.value} {exception.name}: {', '.join(spec.rules)} for {target}",
            due=deadline.due if deadline is not None else None,
            then=then(deadline) if deadline is not None else "",
            owner=spec.owner,
            risk=None,
            ways=tuple(_agreeing(about, exception, judged)),
            missing=status.failing if status is not None and judged else "",
            asked_by=tuple(user for user in (spec.requested_by, spec.on_behalf_of) if user),
            heard=tuple(entry.by for entry in status.counted) if status is not None and judged else (),
        )


def _agreeing(about: Target, exception: ExceptionRecord, judged: bool) -> Iterator[Way]:
    """The verbs that are still asked for, then the right to say no. Forcing is for an incident and not waited for."""
    for verb in asked(exception) if judged else (Verdict.APPROVE.lower(),):
        verdict = verdicts.verdict_of(verb)
        if verdict is not None:
            yield _verdict(about, verdict, verb)
    yield _verdict(about, Verdict.REJECT)


def asked(exception: ExceptionRecord) -> tuple[str, ...]:
    """The verbs that an exception still asks for, by what the operator says of it: who counts in which place is worked
    out there alone."""
    status = exception.status
    if status is None:
        return ()
    found = [verb for verb, count, needed in _COUNTED.findall(status.failing) if int(count) < int(needed)]
    found += _AWAITED.findall(status.failing)
    for condition in status.conditions:
        if condition.type == ConditionType.DECISION_PENDING:
            found += _OFFERED.findall(condition.message)
    return tuple(dict.fromkeys(verb for verb in found if verb != verdicts.FORCE))


def _deadline(exception: ExceptionRecord, store: Store) -> IdentityFindingStatus | None:
    """The finding with the earliest deadline among those that it would waive: later it may come too late."""
    target = exception.spec.target
    if target.name is None:
        return None
    statuses = [
        finding.status
        for finding in store.findings_in(exception.namespace)
        if finding.status is not None
        and finding.status.phase is Phase.OPEN
        and finding.status.due is not None
        and finding.spec.rule in exception.spec.rules
        and (finding.spec.subject.kind, finding.spec.subject.name) == (target.kind.value, target.name)
    ]
    return min(statuses, key=lambda status: status.due.timestamp() if status.due else 0.0, default=None)


# --- reviews and quarantines


def _reviews(store: Store, now: datetime) -> Iterator[Waiting]:
    """Reviews that are due; where the finding ReviewOverdue stands, that is the row."""
    overdue = {
        (finding.namespace, finding.spec.subject.kind, finding.spec.subject.name)
        for finding in store.findings.values()
        if finding.spec.rule is Rule.REVIEW_OVERDUE and finding.status and finding.status.phase is Phase.OPEN
    }
    documents: tuple[Claim | ExceptionRecord, ...] = (*store.claims.values(), *store.exceptions.values())
    for record in documents:
        status = record.status
        if status is None or (record.namespace, record.kind, record.name) in overdue:
            continue
        if not _awaits_review(status.conditions) and not (status.review_due and status.review_due <= now):
            continue
        about = Target(TargetKind(record.kind), record.namespace, record.name)
        yield Waiting(
            sort="Review",
            kind=record.kind,
            namespace=record.namespace,
            name=record.name,
            about=f"review of {record.kind}/{record.name}",
            due=status.review_due,
            then="ReviewOverdue",
            owner=record.spec.owner,
            risk=None,
            ways=(_verdict(about, Verdict.ATTEST),),
        )


def _awaits_review(conditions: Iterable[Condition]) -> bool:
    return any(c.type == ConditionType.DECISION_PENDING and c.reason == Reason.AWAITING_REVIEW for c in conditions)


def _quarantines(store: Store) -> Iterator[Waiting]:
    for quarantine in store.quarantines.values():
        if quarantine.deletion is not None or _revoked(quarantine):
            continue
        spec = quarantine.spec
        about = Target(TargetKind.QUARANTINE, quarantine.namespace, quarantine.name)
        wanting = [store.findings.get((quarantine.namespace, name)) for name in spec.findings]
        graded = [found.status for found in wanting if found is not None and found.status is not None]
        yield Waiting(
            sort="Quarantine",
            kind="Quarantine",
            namespace=quarantine.namespace,
            name=quarantine.name,
            about=f"quarantine of {spec.subject.kind}/{spec.subject.name}",
            due=spec.revoke_at,
            then="revoke" if spec.revoke_at else "stays quarantined",
            owner=next((status.accountable.owner for status in graded), ""),
            risk=max((status.risk.level for status in graded), default=None),
            ways=(_verdict(about, Verdict.RELEASE),),
        )


def _revoked(quarantine: QuarantineRecord) -> bool:
    status = quarantine.status
    return status is not None and any(entry.done for entry in status.revoked)


# --- mine


@dataclass(frozen=True, slots=True)
class Reach:
    """On which objects somebody holds a verb: on every one, or on these."""

    every: bool = False
    names: frozenset[str] = frozenset()

    def covers(self, name: str) -> bool:
        """name "" asks for any at all."""
        return self.every or name in self.names or (not name and bool(self.names))


Held = Callable[[Right], Reach]


def mine(rows: Iterable[Waiting], held: Held, me: str) -> Iterator[Waiting]:
    """What I may decide, each with the ways that are mine. An exception that I requested is not mine to decide, and one
    that I have decided about waits for others: one person counts once."""
    for row in rows:
        if me in row.asked_by or me in row.heard:
            continue
        ways = tuple(
            _filled(way, reach)
            for way in row.ways
            if (reach := held(way.right)).covers(way.right.name) and (way.makes is None or held(way.makes).every)
        )
        if ways:
            yield replace(row, ways=ways)


def _filled(way: Way, reach: Reach) -> Way:
    """The command with the first owner that I may claim for, where it is left open."""
    if way.right.name or not reach.names:
        return way
    return replace(way, command=way.command.replace(f'"owner": "{OWNER}"', f'"owner": "{min(reach.names)}"'))


# --- groups


def grouped(rows: Iterable[Waiting]) -> tuple[Waiting | Group, ...]:
    """The rows, with the OwnerVacant findings of one lost owner as one; a single one stays as it is."""
    found: list[Waiting | Group] = []
    lost: dict[tuple[str, str], list[Waiting]] = {}
    for row in rows:
        if row.rule == Rule.OWNER_VACANT and row.named_owner:
            lost.setdefault((row.named_owner, row.owner), []).append(row)
        else:
            found.append(row)
    for (owner, answers), items in lost.items():
        if len(items) == 1:
            found += items
        else:
            items.sort(key=_urgency)
            # Bringing the owner back decides all of them; who may not do that names another, claim by claim.
            ways = tuple(way for way in items[0].ways if way.right.resource is IDENTITY_OWNERS) or items[0].ways
            found.append(Group(Rule.OWNER_VACANT.value, owner, answers, tuple(items), ways))
    return tuple(sorted(found, key=_urgency))


def rights(rows: Iterable[Waiting]) -> Mapping[tuple[str, Resource, str], frozenset[str]]:
    """The rights that the rows ask for, as (verb, resource, namespace) -> the names that wait ("" = any)."""
    found: dict[tuple[str, Resource, str], set[str]] = {}
    for row in rows:
        for right in (right for way in row.ways for right in (way.right, way.makes) if right is not None):
            found.setdefault((right.verb, right.resource, right.namespace), set()).add(right.name)
    return {key: frozenset(names) for key, names in found.items()}


RELEVANT: Final[Mapping[Resource, str]] = {
    IDENTITY_FINDINGS: "undecided findings are missing",
    IDENTITY_EXCEPTIONS: "pending exceptions and their reviews are missing",
    OWNED_IDENTITIES: "reviews of claims are missing, and lost owners are not grouped",
    QUARANTINES: "quarantines are missing",
}
"""What is listed, and what a gap leaves open."""
