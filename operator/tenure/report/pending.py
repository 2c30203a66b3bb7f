"""`tenure pending`: list what waits, ask what is mine, print it by deadline."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TextIO

from rich.padding import Padding
from rich.text import Text

from tenure.api.base import format_timestamp
from tenure.kube.client import Kube
from tenure.kube.errors import ApiError, NotFound, Unauthorized, Unreachable
from tenure.kube.resources import NAMESPACES
from tenure.report import rights
from tenure.report.collect import Gap, listed
from tenure.report.connection import Failure, connect, explained
from tenure.report.render import BAD, COLOUR, DIM, clean, console_on, span
from tenure.report.waiting import RELEVANT, Group, Waiting, Way, grouped, mine, waiting
from tenure.report.waiting import rights as wanted
from tenure.settings import Settings

SCHEMA: Final = "tenure.dev/pending/v1"
"""`schema` of the JSON output (docs/commands.md); a change that could break a reader brings another one."""

_NAMED: Final = 4
"""Namespaces named in a line; the rest is counted."""


@dataclass(frozen=True, slots=True)
class Pending:
    """What waits, the most urgent first."""

    now: datetime
    namespace: str | None
    user: str
    only_mine: bool
    rows: tuple[Waiting | Group, ...]
    gaps: tuple[Gap, ...]
    not_installed: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """Things that wait, those in groups one by one."""
        return sum(len(row.items) if isinstance(row, Group) else 1 for row in self.rows)


def look(settings: Settings, namespace: str | None, only_mine: bool) -> Pending:
    """Lists what waits in one namespace or in all (None). Raises Failure."""
    return asyncio.run(_look(settings, namespace, only_mine))


async def _look(settings: Settings, namespace: str | None, only_mine: bool) -> Pending:
    kube = await connect(settings)
    try:
        with explained(kube.server):
            return await _pending(kube, namespace, only_mine)
    finally:
        await kube.close()


async def _pending(kube: Kube, namespace: str | None, only_mine: bool) -> Pending:
    user, seen = await asyncio.gather(kube.self_user(), listed(kube, namespace, RELEVANT))
    rows = waiting(seen.store, seen.now)
    gaps = seen.gaps
    if namespace and not rows and not gaps:
        await _known(kube, namespace)
    if only_mine and rows:
        answers = await rights.ask(kube, wanted(rows))
        rows = tuple(mine(rows, answers.held, user))
        gaps += tuple(_unasked(*asked) for asked in answers.cut)
    return Pending(seen.now, namespace, user, only_mine, grouped(rows), gaps, seen.not_installed)


async def _known(kube: Kube, namespace: str) -> None:
    """An empty answer about a namespace that does not exist would be taken for good news."""
    try:
        await kube.get(NAMESPACES, namespace)
    except (Unauthorized, Unreachable):
        raise
    except NotFound as error:
        raise Failure(f"there is no namespace {namespace}.") from error
    except ApiError:
        return  # who may not look at namespaces is not told


def _unasked(verb: str, resource: Any, namespace: str) -> Gap:
    why = f"an authorizer of this cluster does not list rights, and {rights.MOST_NAMES} names were asked about"
    unknown = f"more of {resource.qualified} in {namespace} may wait for your {verb}"
    return Gap(resource.kind, namespace, why, unknown)


# --- for people


def table(pending: Pending, out: TextIO) -> None:
    """Writes it for people: per row a line of what, a line of when, and the command, which is never wrapped."""
    console = console_on(out)
    console.print(_headline(pending))
    if pending.gaps:
        console.print(Text("Not everything could be seen:", style="bold yellow"))
        for gap in pending.gaps:
            console.print(Padding(Text.assemble(clean(gap.why), (f": {gap.unknown}", DIM)), (0, 0, 0, 2)))
        if pending.namespace is None:
            console.print("  With rights in one namespace only, ask for that one: tenure pending -n NAME")
    if pending.not_installed:
        names = ", ".join(pending.not_installed)
        console.print(Text(f"Not installed in this cluster, so nothing of it waits: {names}.", style=DIM))
    for row in pending.rows:
        console.print()
        lines = _group(row, pending.now) if isinstance(row, Group) else _row(row, pending.now)
        for depth, line in lines:
            console.print(Padding(line, (0, 0, 0, depth)))
        for way in row.ways[: None if pending.only_mine else 1]:
            # Not wrapped, so that it can be copied.
            console.print(Text(f"  $ {clean(way.command)}", style="cyan"), soft_wrap=True)


def _headline(pending: Pending) -> Text:
    where = f"namespace {pending.namespace}" if pending.namespace else "all namespaces"
    what = f"Waits for {clean(pending.user)}" if pending.only_mine else "Waits for a decision"
    return Text.assemble((what, "bold"), f", {where}: ", (str(pending.count), "bold"))


def _row(row: Waiting, now: datetime) -> Iterator[tuple[int, Text]]:
    yield 0, _head(row.due, now, row.then).append(f"  {clean(row.about)}", "bold").append_text(_risk(row))
    owner = f"owner {row.owner}" if row.owner else "nobody answers" if row.sort == "Finding" else ""
    asks = f"still asks for {row.missing}" if row.missing else ""
    yield 2, Text(clean(", ".join(filter(None, (f"in {row.namespace}", owner, asks)))), style=DIM)


def _group(group: Group, now: datetime) -> Iterator[tuple[int, Text]]:
    count = len(group.items)
    head = _head(group.due, now, group.items[0].then)
    yield (
        0,
        head.append(f"  {group.rule}: owner {clean(group.owner)} leaves {count} claims behind", "bold").append_text(
            _risk(group)
        ),
    )
    spaces = list(dict.fromkeys(item.namespace for item in group.items))
    more = f" and {len(spaces) - _NAMED} more" if len(spaces) > _NAMED else ""
    answers = f"{group.answers} answers" if group.answers else "nobody answers"
    yield 2, Text(clean(f"in {', '.join(spaces[:_NAMED])}{more}, {answers}; each: tenure pending -o json"), style=DIM)


def _head(due: datetime | None, now: datetime, then: str) -> Text:
    if due is None:
        return Text("no deadline", style=DIM)
    left = due - now
    late = left < timedelta(0)
    word = f"overdue by {span(-left)}" if late else f"in {span(left)}"
    line = Text(word, style=BAD if late else "default")
    return line if late and then == "overdue" else line.append(f", then {then}" if then else "", DIM)


def _risk(row: Waiting | Group) -> Text:
    return Text(f"  {row.risk.value}", style=COLOUR[row.risk]) if row.risk is not None else Text("")


# --- for pipelines


def as_json(pending: Pending, out: TextIO) -> None:
    """Writes one JSON object (docs/commands.md)."""
    body = {
        "schema": SCHEMA,
        "generatedAt": format_timestamp(pending.now.replace(microsecond=0)),
        "namespace": pending.namespace,
        "user": pending.user,
        "mine": pending.only_mine,
        "complete": not pending.gaps,
        "unseen": [{"kind": g.kind, "where": g.where, "why": g.why, "unknown": g.unknown} for g in pending.gaps],
        "count": pending.count,
        "items": [_object(row) for row in pending.rows],
    }
    json.dump(body, out, indent=2)  # pure ASCII: a terminal that shows it acts on nothing in it
    out.write("\n")


def _object(row: Waiting | Group) -> dict[str, Any]:
    if isinstance(row, Group):
        return {
            "sort": "Group",
            "rule": row.rule,
            "owner": row.owner,
            "answers": row.answers or None,
            "risk": row.risk.value if row.risk else None,
            "due": format_timestamp(row.due) if row.due else None,
            "count": len(row.items),
            "ways": _ways(row.ways),
            "items": [_object(item) for item in row.items],
        }
    return {
        "sort": row.sort,
        "kind": row.kind,
        "namespace": row.namespace,
        "name": row.name,
        "about": row.about,
        "rule": row.rule or None,
        "owner": row.owner or None,
        "risk": row.risk.value if row.risk else None,
        "due": format_timestamp(row.due) if row.due else None,
        "then": row.then,
        "missing": row.missing or None,
        "ways": _ways(row.ways),
    }


def _ways(ways: Iterable[Way]) -> list[dict[str, Any]]:
    return [{"verb": way.right.verb, "resource": way.right.resource.qualified, "command": way.command} for way in ways]


def write(pending: Pending, output: str, out: TextIO) -> None:
    """Writes it as `table` or `json`. Raises KeyError for another word."""
    {"table": table, "json": as_json}[output](pending, out)
