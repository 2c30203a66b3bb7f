"""What the demo says: plain lines with the seconds since its start, the same on a terminal and in a log."""

from __future__ import annotations

import contextlib
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.markup import escape

from tests.support.cluster import eventually

T = TypeVar("T")

LOG_WIDTH = 110
INDENT = " " * 12


class Narrator:
    """Writes to stdout. On a terminal, waiting is shown as a line that goes away again."""

    def __init__(self) -> None:
        if not sys.stdout.isatty():
            # A log has no width of its own, and not every CI's locale knows a check mark.
            sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
        self.console = Console(highlight=False, soft_wrap=True)
        self._width = min(self.console.width, LOG_WIDTH) if self.console.is_terminal else LOG_WIDTH
        self._started = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def title(self, text: str) -> None:
        self.console.print(f"[bold]{escape(text)}[/]")

    def step(self, text: str) -> None:
        self.console.print()
        self.console.print(f"[bold]{escape(text)}[/]")

    def said(self, text: str) -> None:
        """Something that happened, now."""
        self._line("[dim]·[/]", text)

    def proven(self, text: str) -> None:
        """Something that was checked, now."""
        self._line("[green]✓[/]", text)

    def failed(self, text: str) -> None:
        self._line("[red]✗[/]", text)

    def _line(self, mark: str, text: str) -> None:
        first, *rest = textwrap.wrap(text, self._width - len(INDENT), break_on_hyphens=False) or [""]
        self.console.print(f"[dim]{self.elapsed:7.1f} s[/] {mark} {escape(first)}")
        for line in rest:
            self.console.print(f"{INDENT}{escape(line)}")

    def quote(self, text: str) -> None:
        """What somebody else said, such as the API server: below the line it belongs to."""
        for paragraph in text.strip().splitlines():
            for line in textwrap.wrap(paragraph, self._width - len(INDENT) - 2, break_on_hyphens=False) or [""]:
                self.console.print(f"[dim]{INDENT}│ {escape(line)}[/]")

    def log(self, text: str) -> None:
        """Lines of a log as they are, for people and for grep."""
        for line in text.splitlines():
            self.console.print(f"[dim]{escape(line)}[/]")

    def table(self, rows: Iterable[tuple[str, ...]]) -> None:
        """Rows in columns, the first row as heading."""
        listed = list(rows)
        widths = [max(len(row[column]) for row in listed) for column in range(len(listed[0]))]
        for number, row in enumerate(listed):
            text = "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            self.console.print(f"{INDENT}[dim]{escape(text)}[/]" if number == 0 else f"{INDENT}{escape(text)}")

    def wait(self, what: str, condition: Callable[[], T], timeout: float) -> T:
        """Returns the condition's first true value. Raises NotYet (an AssertionError) with what was seen last."""
        with self.waiting(what):
            return eventually(condition, timeout, interval=0.1, what=what)

    @contextlib.contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Shows that something is waited for."""
        if not self.console.is_terminal:
            yield
            return
        with self.console.status(f"[dim]{escape(what)}[/]", spinner="dots"):
            yield
