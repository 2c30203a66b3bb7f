"""A page of the docs as what it is to its reader: commands in their order, one shell, and queries between them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_FENCE: Final = re.compile(r"^```([a-z]+)((?: [a-z]+)*)$")


@dataclass(frozen=True)
class Block:
    """A fenced block: under which `##` heading it stands, its language, the words behind that, its text."""

    section: str
    language: str
    words: tuple[str, ...]
    text: str


def blocks(path: Path) -> list[Block]:
    """All of them, in their order. Raises AssertionError for a fence without a language, or that is not closed."""
    return list(_blocks(path))


def _blocks(path: Path) -> Iterator[Block]:
    section, opened, text = "", None, list[str]()
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if opened is not None:
            if line == "```":
                yield Block(section, opened[1], tuple(opened[2].split()), "\n".join(text))
                opened, text = None, []
            else:
                text.append(line)
        elif line.startswith("```"):
            opened = _FENCE.match(line)
            assert opened is not None, f"{path.name}:{number}: {line}"
        elif line.startswith("## "):
            section = line.removeprefix("## ")
    assert opened is None, f"{path.name}: a block is not closed"


class Shell:
    """Runs blocks one after the other in one directory; what one exports the next one has."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self.directory = directory
        self._environment = dict(environment)
        self._exported = directory / ".exported"
        self._exported.touch()

    def run(self, text: str, timeout: float = 300.0) -> str:
        """What it prints on both channels. Raises AssertionError when a command of it fails, in a pipe too."""
        script = f". {self._exported}\nset -euo pipefail\n{text}\nexport -p >{self._exported}\n"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, f"status {done.returncode}\n{text}\n{done.stdout}"
        return done.stdout
