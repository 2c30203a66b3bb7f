"""A report as a table for people, as JSON and as CSV for pipelines. Pure: report in, text out.

Whatever an object's author wrote is data here: control characters are taken out of it (a name of an owner must not move
a terminal's cursor), and a CSV cell that a spreadsheet would take for a formula is quoted.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, Final, TextIO, cast

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tenure.api.base import format_timestamp
from tenure.api.names import ExceptionPhase, Phase, Risk
from tenure.model.records import ManagedBy
from tenure.model.usage import Use
from tenure.report.inventory import (
    Credential,
    Document,
    Entitled,
    Found,
    Held,
    Identity,
    Impersonator,
    Owned,
    Report,
    Waived,
    all_findings,
    totals,
)

SCHEMA: Final = "tenure.dev/inventory/v1"
"""`schema` of the JSON output (docs/inventory.md); a change that could break a reader brings another one."""

WIDTH: Final = 120
"""Columns where there is no terminal (pipes, files) and COLUMNS does not say."""
WIDEST: Final = 160
"""Columns beyond which a wider terminal only makes longer ways for the eye."""
_SHOWN: Final = 6
"""Entries per cell; the rest is counted, and stands in the JSON and CSV outputs."""

COLOUR: Final = {Risk.CRITICAL: "bold red", Risk.HIGH: "red", Risk.MEDIUM: "yellow", Risk.LOW: "default"}
DIM: Final = "dim"
BAD: Final = "red"
GOOD: Final = "green"
_FILL: Final = re.compile(r" +(?=\n)")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def clean(text: str) -> str:
    """The text without characters that a terminal acts on, direction marks included."""
    return _CONTROL.sub("�", text)


class _Trimmed:
    """What rich fills up to the width ends with its last word, for whoever pipes or pastes it."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def write(self, text: str) -> int:
        self._out.write(_FILL.sub("", text))
        return len(text)

    def flush(self) -> None:
        self._out.flush()


def console_on(out: TextIO) -> Console:
    """A console that writes there, as wide as the terminal up to WIDEST, or WIDTH where there is none."""
    file = out if out.isatty() else cast(TextIO, _Trimmed(out))
    console = Console(file=file, highlight=False, markup=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = WIDTH
    console.width = min(console.width, WIDEST)
    return console


# --- table ------------------------------------------------------------------------------------------------------------

_Lines = list[tuple[int, Text]]
"""Lines of a cell with their depth, so that what is wrapped keeps its indent."""


def table(report: Report, out: TextIO, *, platform: bool) -> None:
    """Writes the report for people: namespace by namespace, then what belongs to nobody, then what was left out and
    why."""
    console = console_on(out)
    for part in _Page(report, platform).parts():
        console.print(part)


class _Page:
    def __init__(self, report: Report, platform: bool) -> None:
        self._report = report
        self._platform = platform
        self._recorded = any(found.name for found in all_findings(report))

    def parts(self) -> Iterator[RenderableType]:
        yield self._headline()
        yield self._open_findings()
        yield from self._gaps()
        yield Text()
        yield from self._identities()
        yield from self._loose()
        yield from self._documents()
        yield from self._impersonators()
        yield from self._footer()

    def _shown(self, identity: Identity) -> bool:
        return (self._platform or not identity.platform) and not self._folded(identity)

    def _folded(self, identity: Identity) -> bool:
        """An unused `default` ServiceAccount in a view of many namespaces: every namespace has one."""
        return self._report.namespace is None and identity.idle_default and not (identity.findings or identity.waivers)

    def _local(self, one: Impersonator) -> bool:
        """In a view of many namespaces: who reaches ServiceAccounts of one alone, as every holder of `edit` does."""
        return self._report.namespace is None and bool(one.namespace)

    def _headline(self) -> Text:
        count = totals(self._report, platform=self._platform)
        where = f"namespace {self._report.namespace}" if self._report.namespace else "all namespaces"
        line = Text.assemble(("Workload identities", "bold"), f", {where}: ", (str(count["identities"]), "bold"))
        states = [(words, count[state], style) for state, words, style in _STATES if count.get(state)]
        for number, (words, found, style) in enumerate(states):
            line.append(", " if number else " (").append(f"{found} {words}", style)
        return line.append(")") if states else line

    def _open_findings(self) -> Text:
        count = totals(self._report, platform=self._platform)
        line = Text("Open findings: ")
        levels = [(level, count[level.value]) for level in reversed(Risk) if count.get(level.value)]
        for number, (level, found) in enumerate(levels):
            line.append(", " if number else "").append(f"{found} {level.value}", COLOUR[level])
        if not levels:
            return line.append("none", GOOD)
        return line if self._recorded else line.append("; none is recorded here, so there are no deadlines", DIM)

    def _gaps(self) -> Iterator[RenderableType]:
        if not self._report.gaps:
            return
        yield Text("Not everything could be seen:", style="bold yellow")
        for gap in self._report.gaps:
            yield _indented(Text.assemble(clean(gap.why), (f": {gap.unknown}", DIM)))
        if self._report.namespace is None:
            yield _indented(Text("With rights in one namespace only, ask for that one: tenure inventory -n NAME"))

    def _identities(self) -> Iterator[RenderableType]:
        shown = [identity for identity in self._report.identities if self._shown(identity)]
        for namespace, group in groupby(shown, key=lambda identity: identity.namespace):
            grid = _grid(
                ("IDENTITY", 22), ("OWNER", 25), ("CREDENTIALS", 21), ("ENTITLEMENTS", 24), ("FINDINGS, EXCEPTIONS", 28)
            )
            for identity in group:
                grid.add_row(
                    _cell([*_identity_lines(identity), *((0, line) for line in self._used(identity.last_use))]),
                    _cell(_owner_lines(identity.owned)),
                    self._credentials_cell(identity),
                    _entitlements_cell(identity, self._report.now),
                    self._findings_cell(identity, identity.credentials or ()),
                )
            yield _headed(namespace, grid)
        if not shown:
            yield Text("No identities to show.\n", style=DIM)

    def _loose(self) -> Iterator[RenderableType]:
        shown = [credential for credential in self._report.credentials if self._platform or not credential.platform]
        if not shown:
            return
        grid = _grid(("CREDENTIAL", 44), ("OWNER", 44), ("FINDINGS, EXCEPTIONS", 32))
        for credential in shown:
            head = Text.assemble((f"{credential.namespace}/", DIM), (credential.name, "bold"))
            lines = [(0, head), *self._credential_lines(credential)]
            grid.add_row(
                _cell([*lines, *_managed(credential.managed_by)]),
                _cell(_owner_lines(credential.owned)),
                self._findings_cell(credential, ()),
            )
        yield _headed("Credentials that belong to no identity", grid)

    def _documents(self) -> Iterator[RenderableType]:
        if not self._report.documents:
            return
        grid = _grid(("CLAIM OR EXCEPTION", 40), ("OWNER", 20), ("FINDINGS", 60))
        for document in self._report.documents:
            name = Text.assemble(f"{document.kind} ", (f"{document.namespace}/", DIM), (document.name, "bold"))
            lines: _Lines = []
            for found in document.findings:
                lines += [*self._finding(found), (1, Text(clean(found.message), style=DIM))]
            grid.add_row(name, Text(clean(document.owner)), _cell(lines))
        yield _headed("Claims and exceptions with findings of their own", grid)

    def _impersonators(self) -> Iterator[RenderableType]:
        """Who may decide in another's name, by role and place: hundreds may hold one role."""
        found = self._report.impersonators or ()
        shown = [one for one in found if (self._platform or not one.platform) and not self._local(one)]
        if not shown:
            return
        grid = _grid(("WHO", 46), ("WHERE", 24), ("BY", 26), ("MAY", 34))
        for _, group in groupby(shown, key=lambda one: (one.namespace, one.role_kind, one.role)):
            several = list(group)
            who: list[_Lines] = [[(0, Text(clean(f"{one.kind} {one.subject}")))] for one in several]
            first = several[0]
            where = f"in {first.namespace}" if first.namespace else "cluster-wide"
            role = Text(clean(f"{first.role_kind} {first.role}"))
            grid.add_row(_limited(who), Text(clean(where)), role, Text(clean(first.whom)))
        yield _headed("May impersonate others, and so decide in their name", grid)

    def _footer(self) -> Iterator[Text]:
        hidden = sum(identity.platform for identity in self._report.identities)
        folded = sum(self._folded(i) and (self._platform or not i.platform) for i in self._report.identities)
        lines = list(self._report.notes)
        if hidden and not self._platform:
            lines.append(f"{hidden} platform identities are not shown (--platform shows them).")
        others = self._report.impersonators or ()
        apart = sum(one.platform for one in others)
        if apart and not self._platform:
            lines.append(f"{apart} of the platform's own may impersonate others (--platform shows them).")
        local = len({one.namespace for one in others if self._local(one) and (self._platform or not one.platform)})
        if local:
            lines.append(
                f"In {local} namespaces somebody may impersonate their ServiceAccounts; not shown (-n NAME, -o json)."
            )
        if folded:
            lines.append(
                f"{folded} default ServiceAccounts that nothing uses are not shown (-n NAME, -o json, -o csv)."
            )
        for line in lines:
            yield Text(clean(line), style=DIM)

    # --- cells -------------------------------------------------------------------------------------------------

    def _credentials_cell(self, identity: Identity) -> RenderableType:
        if identity.credentials is None:
            return _NOT_VISIBLE
        entries: list[_Lines] = [
            [(0, Text(credential.name)), *((1, line) for _, line in self._credential_lines(credential))]
            for credential in identity.credentials
        ]
        if identity.cloud_role:
            entries.append([(0, Text("cloud role")), (1, Text(clean(identity.cloud_role), style=DIM))])
        return _limited(entries)

    def _credential_lines(self, credential: Credential) -> _Lines:
        age = span(self._report.now - credential.changed)
        lines: _Lines = [(0, Text(f"{_TYPES[credential.type]}, {age} old", style=DIM))]
        if credential.type == "ServiceAccountToken":
            if credential.invalid_since:
                lines.append((0, Text(f"switched off {clean(credential.invalid_since)}", style=GOOD)))
            elif credential.state == "Usable":
                lines.append((0, Text("works")))
            else:
                gone = f"refused: ServiceAccount {credential.service_account} is gone"
                lines.append((0, Text(clean(gone), style=DIM)))
            if credential.last_used:
                lines.append((0, Text(f"last used {clean(credential.last_used)}", style=DIM)))
        lines += [(0, line) for line in self._used(credential.last_use)]
        if credential.quarantine:
            lines.append((0, _held(credential.quarantine)))
        return lines

    def _used(self, use: Use | None) -> Iterator[Text]:
        """Where an audit log was given and tells of any."""
        if use is not None:
            by = ", ".join(part for part in (use.source, use.agent) if part)
            yield Text(clean(f"used {span(self._report.now - use.at)} ago{f' from {by}' if by else ''}"), style=DIM)

    def _findings_cell(self, subject: Identity | Credential, credentials: Iterable[Credential]) -> RenderableType:
        entries = [self._finding(found) for found in subject.findings]
        entries += [self._waiver(waived) for waived in subject.waivers]
        for credential in credentials:
            entries += [self._finding(found, credential.name) for found in credential.findings]
            entries += [self._waiver(waived, credential.name) for waived in credential.waivers]
        return _limited(entries)

    def _finding(self, found: Found, of: str = "") -> _Lines:
        lines: _Lines = [(0, Text.assemble(found.rule, " ", (found.risk.value, COLOUR[found.risk])))]
        about = [Text(of, style=DIM)] if of else []
        about += self._state(found)
        return [*lines, (1, Text(", ").join(about))] if about else lines

    def _state(self, found: Found) -> Iterator[Text]:
        if found.phase is not Phase.OPEN:
            yield Text(found.phase.value.lower(), style=DIM)
        elif not found.name:
            if self._recorded:
                yield Text("not recorded yet", style=DIM)
        elif found.due is not None:
            left = found.due - self._report.now
            late = left < timedelta(0)
            yield Text(f"overdue by {span(-left)}", style=BAD) if late else Text(f"due in {span(left)}")
            yield Text(f"then {found.on_deadline.lower()}{' (audit)' if found.mode == 'Audit' else ''}", style=DIM)

    def _waiver(self, waived: Waived, of: str = "") -> _Lines:
        active = waived.phase is ExceptionPhase.ACTIVE and waived.covers
        head = Text.assemble("exception ", (waived.phase.value.lower(), GOOD if active else "yellow"))
        left = f", {span(waived.expires - self._report.now)} left" if active else ""
        lines = [of, f"{waived.class_} {waived.name}{left}", f"for {', '.join(waived.rules)}", waived.failing]
        return [(0, head), *((1, Text(clean(line), style=DIM)) for line in lines if line)]


_STATES: Final = (
    ("declared", "declared", "default"),
    ("derived", "derived", "default"),
    ("none", "without owner", BAD),
    ("unknown", "of unknown ownership", BAD),
    ("idle", "unused default", DIM),
)
_TYPES: Final = {
    "ServiceAccountToken": "token",
    "TLS": "TLS pair",
    "RegistryLogin": "registry login",
    "BasicAuth": "user and password",
    "SSHKey": "SSH key",
    "BootstrapToken": "bootstrap token",
    "APIKey": "key or password",
}
_NOTHING: Final = Text("–", style=DIM)
_NOT_VISIBLE: Final = Text("not visible", style=BAD)


def _grid(*columns: tuple[str, int]) -> Table:
    """Widths are shares of the line: every namespace's table then has the same columns, whatever is in it."""
    grid = Table(box=box.SIMPLE_HEAD, expand=True, padding=(0, 1), show_edge=False, show_lines=True, header_style="dim")
    for name, share in columns:
        grid.add_column(name, ratio=share, overflow="fold")
    return grid


def _headed(title: str, body: RenderableType) -> RenderableType:
    return Group(Text(clean(title), style="bold underline"), Padding(body, (0, 0, 1, 0)))


def _indented(text: Text) -> RenderableType:
    return Padding(text, (0, 0, 0, 2))


def _cell(lines: _Lines) -> RenderableType:
    return Group(*(_indented(line) if depth else line for depth, line in lines))


def _limited(entries: list[_Lines]) -> RenderableType:
    """The first entries, and how many there are beside them."""
    if not entries:
        return _NOTHING
    lines = [line for entry in entries[:_SHOWN] for line in entry]
    if len(entries) > _SHOWN:
        lines.append((0, Text(f"and {len(entries) - _SHOWN} more", style=DIM)))
    return _cell(lines)


def _identity_lines(identity: Identity) -> _Lines:
    at_least = "at least " if identity.risk_at_least else ""
    about = Text(f"{identity.class_}, ", style=DIM).append(f"{at_least}{identity.risk.value}", COLOUR[identity.risk])
    lines: _Lines = [(0, Text(identity.name, style="bold")), (0, about), *_managed(identity.managed_by)]
    if identity.idle_default:
        lines.append((0, Text("nothing uses it", style=DIM)))
    if identity.quarantine:
        lines.append((0, _held(identity.quarantine)))
        lines += [(1, Text(f"still: {clean(line)}", style=DIM)) for line in identity.residual]
    return lines


def _managed(managed: ManagedBy | None) -> _Lines:
    return [(0, Text(clean(f"{managed.manager} {managed.name}".strip()), style=DIM))] if managed else []


def _held(held: Held) -> Text:
    word = "revoked" if held.revoked else "being released" if held.ending else "quarantined"
    stages = f": {', '.join(held.stages)}" if held.stages and not held.revoked else ""
    return Text.assemble((word, "bold magenta"), (stages, DIM))


def _owner_lines(owned: Owned) -> _Lines:
    if owned.state in ("none", "unknown"):
        head = Text(owned.state, style=BAD).append(f" ({clean(owned.owner)} is told)" if owned.owner else "", DIM)
    else:
        head = Text(clean(owned.owner) or "nobody", style="default" if owned.owner else BAD).append(
            f" {owned.state}", DIM
        )
    if owned.vacant and owned.state != "none":
        head.append(" vacant", BAD)
    return [(0, head), (0, Text(clean(owned.why), style=DIM))]


def _entitlements_cell(identity: Identity, now: datetime) -> RenderableType:
    if identity.entitlements is None:
        return _NOT_VISIBLE
    return _limited([_entitlement(entitled, now) for entitled in identity.entitlements])


def _entitlement(entitled: Entitled, now: datetime) -> _Lines:
    line = Text(clean(entitled.role))
    if entitled.risk is None:
        line.append(" role not found", "yellow")
    elif entitled.risk is not Risk.LOW:
        line.append(f" {entitled.risk.value}", COLOUR[entitled.risk])
    where = f"in {entitled.namespace}" if entitled.namespace else "cluster-wide"
    used = f"used {span(now - entitled.last_use.at)} ago" if entitled.last_use else ""
    lines = [f"{where}, by {entitled.binding}", f"as {entitled.through}" if entitled.through else "", used]
    return [(0, line), *((1, Text(clean(text), style=DIM)) for text in lines if text)]


def span(length: timedelta) -> str:
    """Roughly how long: `412d`, `3d 4h`, `5h 10m`, `12m`, `40s`."""
    seconds = max(0, int(length.total_seconds()))
    days, hours, minutes = seconds // 86_400, seconds // 3_600 % 24, seconds // 60 % 60
    if days >= 10 or (days and not hours):
        return f"{days}d"
    if days:
        return f"{days}d {hours}h"
    if hours:
        return f"{hours}h {minutes}m" if minutes else f"{hours}h"
    return f"{minutes}m" if minutes else f"{seconds}s"


# --- JSON -------------------------------------------------------------------------------------------------------------


def as_json(report: Report, out: TextIO, *, platform: bool) -> None:
    """Writes one JSON object (docs/inventory.md). Platform identities and their credentials are left out unless asked
    for, and counted in either case."""
    identities = [identity for identity in report.identities if platform or not identity.platform]
    loose = [credential for credential in report.credentials if platform or not credential.platform]
    body = {
        "schema": SCHEMA,
        "generatedAt": format_timestamp(report.now.replace(microsecond=0)),
        "namespace": report.namespace,
        "complete": report.complete,
        "unseen": [
            {"kind": gap.kind, "where": gap.where, "why": gap.why, "unknown": gap.unknown} for gap in report.gaps
        ],
        "notes": list(report.notes),
        "usedSince": format_timestamp(report.used_since) if report.used_since else None,
        "platformIdentities": sum(identity.platform for identity in report.identities),
        "identities": [_identity_object(identity) for identity in identities],
        "credentials": [_credential_object(credential) for credential in loose],
        "documents": [_document_object(document) for document in report.documents],
        "impersonators": _maybe(report.impersonators, _impersonator_object),
    }
    json.dump(body, out, indent=2)  # pure ASCII: a terminal that shows it acts on nothing in it
    out.write("\n")


def _identity_object(identity: Identity) -> dict[str, Any]:
    return {
        "kind": "ServiceAccount",
        "namespace": identity.namespace,
        "name": identity.name,
        "uid": identity.uid,
        "createdAt": format_timestamp(identity.created),
        "class": identity.class_,
        "platform": identity.platform,
        "unusedDefault": identity.idle_default,
        "ownership": _owned_object(identity.owned),
        "risk": {
            "level": identity.risk.value,
            "atLeast": identity.risk_at_least,
            "reasons": list(identity.risk_reasons),
        },
        "managedBy": _managed_object(identity.managed_by),
        "cloudRole": identity.cloud_role or None,
        "lastUse": _use_object(identity.last_use),
        "credentials": _maybe(identity.credentials, _credential_object),
        "entitlements": _maybe(identity.entitlements, _entitled_object),
        "findings": [_found_object(found) for found in identity.findings],
        "exceptions": [_waived_object(waived) for waived in identity.waivers],
        "quarantine": _held_object(identity.quarantine),
        "residual": list(identity.residual),
    }


def _maybe(entries: Iterable[Any] | None, form: Callable[[Any], dict[str, Any]]) -> list[dict[str, Any]] | None:
    return None if entries is None else [form(entry) for entry in entries]


def _credential_object(credential: Credential) -> dict[str, Any]:
    return {
        "kind": "Secret",
        "namespace": credential.namespace,
        "name": credential.name,
        "uid": credential.uid,
        "type": credential.type,
        "secretType": credential.secret_type,
        "serviceAccount": credential.service_account or None,
        "createdAt": format_timestamp(credential.created),
        "changedAt": format_timestamp(credential.changed),
        "state": credential.state,
        "invalidSince": credential.invalid_since or None,
        "lastUsed": credential.last_used or None,
        "lastUse": _use_object(credential.last_use),
        "platform": credential.platform,
        "ownership": _owned_object(credential.owned),
        "managedBy": _managed_object(credential.managed_by),
        "findings": [_found_object(found) for found in credential.findings],
        "exceptions": [_waived_object(waived) for waived in credential.waivers],
        "quarantine": _held_object(credential.quarantine),
    }


def _owned_object(owned: Owned) -> dict[str, Any]:
    return {
        "state": owned.state,
        "owner": owned.owner or None,
        "why": owned.why,
        "contact": owned.contact or None,
        "vacant": owned.vacant,
    }


def _entitled_object(entitled: Entitled) -> dict[str, Any]:
    return {
        "binding": {"kind": entitled.binding_kind, "namespace": entitled.namespace or None, "name": entitled.binding},
        "role": {"kind": entitled.role_kind, "name": entitled.role},
        "scope": "Namespace" if entitled.namespace else "Cluster",
        "through": entitled.through or None,
        "risk": entitled.risk.value if entitled.risk else None,
        "rights": list(entitled.rights),
        "managedBy": _managed_object(entitled.managed_by),
        "lastUse": _use_object(entitled.last_use),
    }


def _use_object(use: Use | None) -> dict[str, Any] | None:
    if use is None:
        return None
    return {"at": format_timestamp(use.at), "by": use.by, "source": use.source or None, "userAgent": use.agent or None}


def _found_object(found: Found) -> dict[str, Any]:
    return {
        "rule": found.rule,
        "risk": found.risk.value,
        "phase": found.phase.value,
        "holds": found.holds,
        "finding": found.name or None,
        "due": format_timestamp(found.due) if found.due else None,
        "onDeadline": found.on_deadline or None,
        "mode": found.mode or None,
        "message": found.message,
    }


def _waived_object(waived: Waived) -> dict[str, Any]:
    return {
        "name": waived.name,
        "class": waived.class_,
        "phase": waived.phase.value,
        "rules": list(waived.rules),
        "expiresAt": format_timestamp(waived.expires),
        "failing": waived.failing or None,
        "covers": waived.covers,
    }


def _held_object(held: Held | None) -> dict[str, Any] | None:
    if held is None:
        return None
    return {
        "name": held.name,
        "verdict": held.verdict,
        "stages": list(held.stages),
        "revoked": held.revoked,
        "ending": held.ending,
    }


def _managed_object(managed: ManagedBy | None) -> dict[str, str] | None:
    return {"manager": managed.manager, "name": managed.name} if managed else None


def _document_object(document: Document) -> dict[str, Any]:
    return {
        "kind": document.kind,
        "namespace": document.namespace,
        "name": document.name,
        "owner": document.owner,
        "findings": [_found_object(found) for found in document.findings],
    }


def _impersonator_object(one: Impersonator) -> dict[str, Any]:
    return {
        "kind": one.kind,
        "name": one.subject,
        "namespace": one.namespace or None,
        "scope": "Namespace" if one.namespace else "Cluster",
        "binding": one.binding,
        "role": {"kind": one.role_kind, "name": one.role},
        "may": one.whom,
        "platform": one.platform,
    }


# --- CSV --------------------------------------------------------------------------------------------------------------

COLUMNS: Final = (
    "kind",
    "namespace",
    "name",
    "uid",
    "created",
    "class",
    "ownership",
    "owner",
    "why",
    "contact",
    "risk",
    "credentials",
    "working_tokens",
    "oldest_credential",
    "entitlements",
    "findings",
    "exceptions",
    "quarantine",
    "managed_by",
)


def as_csv(report: Report, out: TextIO, *, platform: bool) -> None:
    """Writes one row per identity, and one of kind Secret for each credential that belongs to none. Lists within a cell
    are separated by blanks; "?" stands for what could not be seen."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for identity in report.identities:
        if platform or not identity.platform:
            writer.writerow(_csv_cell(value) for value in _identity_row(identity))
    for credential in report.credentials:
        if platform or not credential.platform:
            writer.writerow(_csv_cell(value) for value in _credential_row(credential))


def csv_text(report: Report, *, platform: bool) -> str:
    """The same as text."""
    out = io.StringIO()
    as_csv(report, out, platform=platform)
    return out.getvalue()


def _csv_cell(value: object) -> str:
    text = clean(str(value))
    # A spreadsheet runs a cell that begins with one of these as a formula.
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def _identity_row(identity: Identity) -> tuple[object, ...]:
    held = identity.credentials
    tokens = [c for c in held or () if c.type == "ServiceAccountToken" and c.state == "Usable"]
    waivers = [*identity.waivers, *(waived for credential in held or () for waived in credential.waivers)]
    return (
        "ServiceAccount",
        identity.namespace,
        identity.name,
        identity.uid,
        format_timestamp(identity.created),
        identity.class_,
        *_owner_columns(identity.owned),
        f"{'>=' if identity.risk_at_least else ''}{identity.risk.value}",
        "?" if held is None else " ".join(credential.name for credential in held),
        "?" if held is None else len(tokens),
        format_timestamp(min(c.changed for c in held)) if held else "",
        "?" if identity.entitlements is None else " ".join(_entitlement_word(e) for e in identity.entitlements),
        _finding_words([*identity.findings, *(found for credential in held or () for found in credential.findings)]),
        " ".join(dict.fromkeys(waived.name for waived in waivers)),
        identity.quarantine.name if identity.quarantine else "",
        _managed_word(identity.managed_by),
    )


def _credential_row(credential: Credential) -> tuple[object, ...]:
    works = credential.type == "ServiceAccountToken" and credential.state == "Usable"
    return (
        "Secret",
        credential.namespace,
        credential.name,
        credential.uid,
        format_timestamp(credential.created),
        "Platform" if credential.platform else "",
        *_owner_columns(credential.owned),
        max((found.risk for found in credential.findings), default=""),
        credential.name,
        int(works),
        format_timestamp(credential.changed),
        "",
        _finding_words(credential.findings),
        " ".join(waived.name for waived in credential.waivers),
        credential.quarantine.name if credential.quarantine else "",
        _managed_word(credential.managed_by),
    )


def _owner_columns(owned: Owned) -> tuple[str, str, str, str]:
    return owned.state, owned.owner, owned.why, owned.contact


def _entitlement_word(entitled: Entitled) -> str:
    risk = f"={entitled.risk.value}" if entitled.risk else "=missing"
    return f"{entitled.role_kind}/{entitled.role}@{entitled.namespace or '*'}{risk}"


def _finding_words(findings: Iterable[Found]) -> str:
    return " ".join(f"{found.rule}={found.risk.value}/{found.phase.value}" for found in findings)


def _managed_word(managed: ManagedBy | None) -> str:
    return f"{managed.manager}:{managed.name}" if managed else ""


def write(report: Report, output: str, out: TextIO, *, platform: bool) -> None:
    """Writes the report as `table`, `json` or `csv`. Raises KeyError for another word."""
    {"table": table, "json": as_json, "csv": as_csv}[output](report, out, platform=platform)
