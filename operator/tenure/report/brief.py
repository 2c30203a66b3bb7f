"""What a decider is shown before deciding: what the object says in words, the findings it bears on, what was decided
about it before, and who else has to agree.

Pure: records in, lines out. All of it is about one state of the object, which the decision then names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TextIO

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tenure.api.base import LabelSelector, format_duration, format_timestamp
from tenure.api.claim import OwnedIdentitySpec, OwnedIdentityStatus
from tenure.api.exception import IdentityExceptionSpec, IdentityExceptionStatus
from tenure.api.finding import IdentityFindingSpec, IdentityFindingStatus
from tenure.api.names import Phase, TargetKind, Verdict
from tenure.api.quarantine import QuarantineSpec, QuarantineStatus
from tenure.inventory.store import Claim, Decision, Finding, QuarantineRecord, Store
from tenure.model.evaluation import ExceptionRecord
from tenure.model.facts import Record
from tenure.model.keys import Key
from tenure.model.records import Authored, Secret, ServiceAccount
from tenure.report.collect import Gap
from tenure.report.render import BAD, COLOUR, DIM, clean, console_on, span
from tenure.report.verdicts import CONSULT, FORCE, Target
from tenure.report.waiting import then
from tenure.rules import exceptions
from tenure.rules.coverage import rank

_NAMED: Final = 6
"""Names in a line; the rest is counted."""
_SHOWN: Final = 10
"""Findings, and earlier decisions; the rest is counted."""

Line = tuple[str, str]
"""A label and what is said under it."""


@dataclass(frozen=True, slots=True)
class Brief:
    """One state of one object, as a decider sees it."""

    about: Target
    record: Authored[Any, Any]
    now: datetime
    lines: tuple[Line, ...]
    findings: tuple[Finding, ...]
    """Those it bears on that are not resolved, the worst and most urgent first."""
    history: tuple[Decision, ...]
    """Decisions about an object of that kind and name, the latest first."""
    gaps: tuple[Gap, ...] = ()

    @property
    def stamp(self) -> Mapping[str, Any]:
        """What a decision names of the object: this very state."""
        found: dict[str, Any] = {"uid": self.record.uid}
        if self.about.kind in (TargetKind.IDENTITY_EXCEPTION, TargetKind.OWNED_IDENTITY):
            found["generation"] = self.record.generation
        elif self.about.kind is TargetKind.IDENTITY_FINDING:
            found["revision"] = self.record.spec.revision
        return found

    @property
    def state(self) -> str:
        """That state in words: "generation 2"."""
        return ", ".join(f"{word} {number}" for word, number in self.stamp.items() if word != "uid")


def brief(
    about: Target,
    record: Authored[Any, Any],
    store: Store,
    decisions: Iterable[Decision],
    now: datetime,
    gaps: tuple[Gap, ...] = (),
) -> Brief:
    """The brief on a record; `store` holds what was listed beside it."""
    concerned = _concerned(record, store)
    if about.kind is TargetKind.IDENTITY_EXCEPTION:
        lines = _exception(record, concerned, now)
    elif about.kind is TargetKind.OWNED_IDENTITY:
        lines = _claim(record, concerned, now)
    elif about.kind is TargetKind.IDENTITY_FINDING:
        lines = _finding(record, now)
    else:
        lines = _quarantine(record, now)
    return Brief(
        about=about,
        record=record,
        now=now,
        lines=tuple((label, words) for label, words in lines if words),
        findings=tuple(sorted(_findings(record, store, concerned), key=_urgency)),
        history=tuple(sorted(decisions, key=lambda made: (made.created, made.name), reverse=True)),
        gaps=gaps,
    )


def cautions(brief: Brief, verdict: Verdict, verb: str, by: str) -> Iterator[str]:
    """What the decider should know before it is refused or void."""
    spec = brief.record.spec
    barred = verdict is Verdict.APPROVE or verb.partition("-")[0] == CONSULT
    if barred and isinstance(spec, IdentityExceptionSpec) and by in (spec.requested_by, spec.on_behalf_of):
        yield "You asked for this yourself, and nobody approves what they requested: expect a refusal."
    earlier = [
        made
        for made in brief.history
        if made.spec.by == by and made.spec.target.uid == brief.record.uid and _same_state(made, brief)
    ]
    if earlier and verdict in (Verdict.APPROVE, Verdict.REJECT):
        yield f"You decided about this state before ({earlier[0].name}); one person counts once."
    if verdict is Verdict.REVOKE:
        yield "Revocation cannot be undone: the credential or entitlement is deleted."
    if brief.record.deletion is not None:
        yield "It is being deleted."
    if verb == FORCE:
        yield "Forced: active at once, whatever is missing or vetoed; its review falls due within 7 days."


def _same_state(made: Decision, brief: Brief) -> bool:
    target = made.spec.target
    return brief.state == ", ".join(
        f"{word} {number}"
        for word, number in (("generation", target.generation), ("revision", target.revision))
        if number is not None
    )


# --- what it bears on


def _concerned(record: Authored[Any, Any], store: Store) -> list[Key]:
    """The subjects that a claim covers or an exception is about, as far as they could be listed."""
    here = record.namespace
    if isinstance(record.spec, OwnedIdentitySpec):
        return list(_covered(record, store))
    if not isinstance(record.spec, IdentityExceptionSpec):
        return []
    status: IdentityExceptionStatus | None = record.status
    target = record.spec.target
    if status is not None and _judged(record) and status.matched:
        return [Key(match.kind, here, match.name) for match in status.matched]
    if target.name is not None:
        return [Key(target.kind.value, here, target.name)]
    tables: tuple[Iterable[Record], ...] = (
        store.service_accounts_in(here),
        store.secrets_in(here),
        store.claims_in(here),
    )
    kinds = ("ServiceAccount", "Secret", "OwnedIdentity")
    return [
        Key(kind, here, found.name)
        for kind, table in zip(kinds, tables, strict=True)
        for found in table
        if exceptions.selects(record, kind, found)
    ]


def _covered(claim: Claim, store: Store) -> Iterator[Key]:
    here = claim.namespace
    subjects: tuple[ServiceAccount | Secret, ...] = (*store.service_accounts_in(here), *store.secrets_in(here))
    for subject in subjects:
        if rank(claim, subject, platform=False):
            yield Key(type(subject).__name__, here, subject.name)


def _findings(record: Authored[Any, Any], store: Store, concerned: list[Key]) -> Iterator[Finding]:
    spec = record.spec
    for finding in store.findings_in(record.namespace):
        if finding.status is None or finding.status.phase is Phase.RESOLVED or finding.uid == record.uid:
            continue
        subject = finding.spec.subject
        key = Key(subject.kind, record.namespace, subject.name)
        if isinstance(spec, IdentityExceptionSpec):
            bears = finding.spec.rule in spec.rules and key in concerned
        elif isinstance(spec, OwnedIdentitySpec):
            bears = key in concerned or (key.kind, key.name) == ("OwnedIdentity", record.name)
        elif isinstance(spec, QuarantineSpec):
            bears = finding.name in spec.findings
        else:
            bears = (subject.kind, subject.name) == (spec.subject.kind, spec.subject.name)
        if bears:
            yield finding


def _urgency(finding: Finding) -> tuple[int, float, str]:
    status: IdentityFindingStatus = finding.status  # type: ignore[assignment]  # those without are left out
    return -status.risk.level.rank, status.due.timestamp() if status.due else float("inf"), finding.name


# --- the object in words


def _exception(record: ExceptionRecord, concerned: list[Key], now: datetime) -> list[Line]:
    spec, status = record.spec, record.status
    why = f"{spec.justification} ({spec.ticket})" if spec.ticket else spec.justification
    behalf = f", on behalf of {spec.on_behalf_of} (unverified)" if spec.on_behalf_of else ""
    return [
        ("waives", ", ".join(spec.rules)),
        ("for", _whom(record, concerned)),
        ("class", spec.class_.value),
        ("until", _when(spec.expires_at, now)),
        ("review by", _when(spec.review_by, now)),
        ("owner", spec.owner),
        ("because", why),
        ("requested by", f"{spec.requested_by or 'unknown'}{behalf}"),
        ("now", _standing(record)),
        ("still asks for", status.failing if status and _judged(record) else ""),
        ("counted", _counted(status) if status and _judged(record) else ""),
    ]


def _whom(record: ExceptionRecord, concerned: list[Key]) -> str:
    target = record.spec.target
    if target.name is not None:
        return f"{target.kind.value} {target.name}" + (f" of uid {target.uid}" if target.uid else "")
    names = _names([key.name for key in concerned])
    return f"every {target.kind.value} with {_selector(target.selector)}: {names or 'none is seen'}"


def _selector(selector: LabelSelector | None) -> str:
    if selector is None:
        return "no selector"
    words = [f"{key}={value}" for key, value in sorted(selector.match_labels.items())]
    words += [f"{e.key} {e.operator.value} {' '.join(e.values)}".strip() for e in selector.match_expressions]
    return ", ".join(words) or "any labels"


def _standing(record: ExceptionRecord) -> str:
    status = record.status
    if status is None or not _judged(record):
        return "not judged yet in this state: the operator has not seen it"
    said = "" if status.failing else status.message
    return f"{status.phase.value}: {said}" if said else status.phase.value


def _counted(status: IdentityExceptionStatus) -> str:
    return "; ".join(
        f"{entry.verdict} by {entry.by} with {entry.verb}" + (f", {format_timestamp(entry.at)}" if entry.at else "")
        for entry in status.counted
    )


def _claim(record: Claim, concerned: list[Key], now: datetime) -> list[Line]:
    spec: OwnedIdentitySpec = record.spec
    status: OwnedIdentityStatus | None = record.status
    accountable = (
        f"{spec.owner}; {status.accountable} answers"
        if status and status.accountable not in ("", spec.owner)
        else spec.owner
    )
    rights = [
        f"{e.role_ref.kind.value} {e.role_ref.name} in {e.namespace or record.namespace}" for e in spec.entitlements
    ]
    reviewed = f"every {format_duration(spec.review.interval)}" if spec.review else ""
    return [
        ("owner", accountable),
        ("purpose", spec.purpose),
        ("system", spec.system or ""),
        ("class", spec.class_.value),
        ("covers", _names([f"{key.kind} {key.name}" for key in concerned]) or _matched(status)),
        ("outside", _names([f"{account.provider} {account.id}" for account in spec.subjects.external])),
        ("entitlements", _names(rights)),
        ("ends", _when(spec.expires_at, now)),
        ("reviewed", reviewed),
        ("review due", _when(status.review_due, now) if status else ""),
        ("attested", _when(status.attested, now) if status else ""),
        ("now", _troubles(status.conditions) if status else ""),
    ]


def _matched(status: OwnedIdentityStatus | None) -> str:
    matched = status.matched if status is not None else None
    if matched is None:
        return ""
    return f"{matched.service_accounts} ServiceAccounts and {matched.secrets} Secrets, by the operator's count"


def _finding(record: Finding, now: datetime) -> list[Line]:
    spec: IdentityFindingSpec = record.spec
    status: IdentityFindingStatus | None = record.status
    lines: list[Line] = [("rule", spec.rule.value), ("about", f"{spec.subject.kind} {spec.subject.name}")]
    if status is None:
        return lines
    decided = status.decision
    return [
        *lines,
        ("because", status.message),
        ("risk", f"{status.risk.level.value}" + (f": {'; '.join(status.risk.reasons)}" if status.risk.reasons else "")),
        ("owner", status.accountable.owner or "nobody"),
        ("due", f"{_when(status.due, now)}, then {then(status)}" if status.due else ""),
        ("now", f"{status.phase.value}{f', decided by {decided.source.value} {decided.reference}' if decided else ''}"),
        ("managed by", f"{status.managed_by.manager} {status.managed_by.name}".strip() if status.managed_by else ""),
        ("stays open", "; ".join(status.residual)),
        ("evidence", "; ".join(f"{e.source}: {e.detail}" if e.detail else e.source for e in status.evidence)),
        ("held up by", _troubles(status.conditions)),
        ("exempt so far", _debt(record, now)),
    ]


def _quarantine(record: QuarantineRecord, now: datetime) -> list[Line]:
    spec: QuarantineSpec = record.spec
    status: QuarantineStatus | None = record.status
    stages = [stage.name.value for stage in status.stages if stage.done] if status else []
    tokens = [token.name for token in status.disabled_tokens] if status else []
    revoked = [f"{gone.kind} {gone.name}" for gone in status.revoked if gone.done] if status else []
    return [
        ("about", f"{spec.subject.kind} {spec.subject.name}"),
        ("because", spec.reason),
        ("in force", ", ".join(stages) or "nothing yet"),
        ("switched off", _names(tokens)),
        ("revoked", _names(revoked)),
        ("revocation", _when(spec.revoke_at, now)),
        ("last attempt", _attempt(status, now) if status else ""),
        ("now", "being released" if record.deletion else ""),
    ]


def _attempt(status: QuarantineStatus, now: datetime) -> str:
    """When, and by whom and for what where the audit log told."""
    told = status.attempt
    parts = (told.by, told.source, told.user_agent, told.what) if told else ()
    return "; ".join(filter(None, (_when(status.last_attempt, now), *parts)))


def _troubles(conditions: Iterable[Any]) -> str:
    plain = ("Ready", "Reconciling", "DecisionPending")
    return "; ".join(f"{c.type}: {c.message}" for c in conditions if c.type not in plain and c.status.value == "True")


def _judged(record: Authored[Any, Any]) -> bool:
    """Whether the status is about this very spec."""
    return record.status is not None and record.status.observed_generation == record.generation


def _when(instant: datetime | None, now: datetime) -> str:
    """`2027-01-31T00:00:00Z, in 58d`."""
    if instant is None:
        return ""
    left = instant - now
    return f"{format_timestamp(instant)}, " + (f"{span(-left)} ago" if left < timedelta(0) else f"in {span(left)}")


def _names(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _debt(finding: Finding, now: datetime) -> str:
    """How often and how long the finding was exempt, the present period included."""
    status = finding.status
    if status is None:
        return ""
    debt = status.debt
    exempt = timedelta(seconds=debt.exempt_seconds) + (now - debt.since if debt.since else timedelta(0))
    times = f"{debt.renewals} renewal{'' if debt.renewals == 1 else 's'}" if debt.renewals else ""
    return ", ".join(filter(None, (times, f"exempt for {span(exempt)}" if exempt > timedelta(0) else "")))


# --- on the screen


def show(brief: Brief, out: TextIO, *, verdict: Verdict, verb: str, by: str, reason: str) -> None:
    """Writes the brief for people, and what is about to be decided."""
    console = console_on(out)
    head = Text.assemble(
        (f"{brief.about.kind.value} ", "bold"), f"{brief.about.namespace}/", (brief.about.name, "bold")
    )
    console.print(head.append(f", {brief.state}" if brief.state else "", DIM))
    console.print(_pairs(brief.lines))
    if brief.findings:
        console.print(Text("Findings it bears on", style="bold"))
        console.print(_finding_grid(brief))
    if brief.history:
        console.print(Text("Decided before", style="bold"))
        console.print(_pairs(_earlier(brief)))
    for gap in brief.gaps:
        console.print(Text(clean(f"Not seen: {gap.why}: {gap.unknown}"), style="yellow"))
    if brief.gaps:
        console.print()
    console.print(
        Text.assemble(
            ("You decide ", "bold"),
            (verdict.value, "bold cyan"),
            f" with the verb {verb}, as {clean(by)}: {clean(reason)}",
        )
    )
    for caution in cautions(brief, verdict, verb, by):
        console.print(Text(clean(caution), style=BAD))


def _pairs(lines: Iterable[Line]) -> Padding:
    grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
    grid.add_column(style=DIM, no_wrap=True)
    grid.add_column(overflow="fold", ratio=1)
    for label, words in lines:
        grid.add_row(clean(label), clean(words))
    return Padding(grid, (0, 0, 1, 2))


def _finding_grid(brief: Brief) -> Padding:
    grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
    for share in (0, 2, 0, 3):  # a rule and a risk are never cut
        grid.add_column(overflow="fold", ratio=share or None, no_wrap=not share)
    for finding in brief.findings[:_SHOWN]:
        status: IdentityFindingStatus = finding.status  # type: ignore[assignment]
        level = status.risk.level
        state = status.phase.value.lower()
        if status.phase is Phase.OPEN and status.due is not None:
            state = f"due {_when(status.due, brief.now)}, then {then(status)}"
        about = "; ".join(filter(None, (state, _debt(finding, brief.now))))
        grid.add_row(
            finding.spec.rule.value,
            clean(f"{finding.spec.subject.kind} {finding.spec.subject.name}"),
            Text(level.value, COLOUR[level]),
            clean(about),
        )
    if len(brief.findings) > _SHOWN:
        grid.add_row(Text(f"and {len(brief.findings) - _SHOWN} more", style=DIM))
    return Padding(grid, (0, 0, 1, 2))


def _earlier(brief: Brief) -> Iterator[Line]:
    for made in brief.history[:_SHOWN]:
        spec, status = made.spec, made.status
        outcome = f" {status.outcome.value}: {status.reason}." if status and status.outcome.value else ""
        of = "" if spec.target.uid == brief.record.uid else " (of an earlier object of that name)"
        states = [
            (word, n) for word, n in (("generation", spec.target.generation), ("revision", spec.target.revision)) if n
        ]
        state = "".join(f", {word} {number}" for word, number in states)
        said = f"{spec.verdict.value} by {spec.by or 'unknown'} with {spec.used_verb}{state}{of}: {spec.reason}"
        yield format_timestamp(made.created), said.rstrip(".") + "." + outcome
    if len(brief.history) > _SHOWN:
        yield "", f"and {len(brief.history) - _SHOWN} more: kubectl get identitydecisions -n {brief.about.namespace}"
