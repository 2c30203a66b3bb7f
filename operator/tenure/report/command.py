"""`tenure inventory` and `tenure pending`: connect, look once, judge, print."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TextIO

from tenure.audit.file import AuditFile, everything
from tenure.inventory.store import Store
from tenure.kube.errors import NotFound
from tenure.report import pending, render
from tenure.report.collect import Collected, Gap, collect
from tenure.report.connection import Failure, connect, explained
from tenure.report.inventory import report
from tenure.settings import Settings

COMPLETE = 0
INCOMPLETE = 1


def show(settings: Settings, namespace: str | None, output: str, platform: bool, out: TextIO) -> int:
    """The exit status: COMPLETE, or INCOMPLETE when something could not be seen. Raises Failure."""
    seen = asyncio.run(_look(settings, namespace))
    found = report(seen, namespace, settings)
    print_to(out, lambda: render.write(found, output, out, platform=platform))
    return _told(found.gaps, output)


def list_pending(settings: Settings, namespace: str | None, mine: bool, output: str, out: TextIO) -> int:
    """The exit status, as of `show`. Raises Failure."""
    found = pending.look(settings, namespace, mine)
    print_to(out, lambda: pending.write(found, output, out))
    return _told(found.gaps, output)


def _told(gaps: Iterable[Gap], output: str) -> int:
    """The exit status; what could not be seen is told beside an output for pipelines."""
    gaps = tuple(gaps)
    if output != "table":
        for gap in gaps:
            print(f"tenure: {gap.why}: {gap.unknown}", file=sys.stderr)
    return INCOMPLETE if gaps else COMPLETE


def print_to(out: TextIO, write: Callable[[], None]) -> None:
    """Writes and flushes; a reader that has seen enough (`| head`) is no error."""
    try:
        write()
        out.flush()
    except BrokenPipeError:
        # What is still buffered must not fail again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


async def _look(settings: Settings, namespace: str | None) -> Collected:
    kube = await connect(settings)
    try:
        with explained(kube.server):
            try:
                seen = await collect(kube, namespace, settings.operator_namespace)
            except NotFound as error:
                raise Failure(f"there is no namespace {namespace}.") from error
    finally:
        await kube.close()
    if settings.audit_log:
        _note_usage(settings.audit_log, seen.store)
    return seen


def _note_usage(path: str, store: Store) -> None:
    """What the audit log, with what was rotated beside it, tells of what was listed. Raises Failure."""
    malformed = 0
    try:
        for requests, broken in everything(AuditFile(Path(path))):
            malformed += broken
            for request in requests:
                store.usage.note(request, store)
    except OSError as error:
        raise Failure(f"--audit-log {path} cannot be read: {error}") from error
    if malformed:
        print(f"tenure: {path}: {malformed} lines are no audit events", file=sys.stderr)
    if store.usage.since is None:
        print(f"tenure: {path} holds no audit event: nothing of it is known to be used", file=sys.stderr)
