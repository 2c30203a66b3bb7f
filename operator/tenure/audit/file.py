"""A file of audit events, one JSON object a line, followed as it grows, is rotated and is truncated.

A file is known by its first line, which no other one has (each event has its own id), and not by its name or inode: so
what was left to read is found again after a rename, in the copy that copytruncate makes, compressed, and after any time
that nobody was reading. The position is that line's digest and an offset; nothing else is remembered.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final, cast

from tenure.audit.event import request
from tenure.audit.source import Batch
from tenure.model.usage import Request

LONGEST_LINE: Final = 1 << 20
"""Bytes. An event at level Metadata has one or two thousand; the API server itself cuts at 100 KB where it cuts."""
_CHUNK: Final = 2 * LONGEST_LINE
"""Read at once: more than a line, or there would be no end of it."""
_HEAD: Final = 4096
"""Bytes of the first line that a file is known by."""


_STAMP: Final = re.compile(rb'"stageTimestamp":"([0-9T:.-]{19,30}Z)"')


@dataclass(frozen=True, slots=True)
class _Head:
    """What a file is known by, when it begins (RFC 3339), and how long it is where that is known."""

    known: str
    begun: str
    size: int


@dataclass(frozen=True, slots=True)
class _Place:
    """`within`: what follows is the rest of a line that was too long."""

    file: str
    offset: int = 0
    within: bool = False

    @classmethod
    def of(cls, position: str) -> _Place | None:
        found = re.fullmatch(r"([0-9a-f]{32})\+([0-9]{1,18})(~?)", position)
        return cls(found[1], int(found[2]), bool(found[3])) if found else None

    def __str__(self) -> str:
        return f"{self.file}+{self.offset}{'~' if self.within else ''}"


class AuditFile:
    """A `Source`. Rotated files stay beside it, under names as kube-apiserver's own rotation (`audit-2026-…log`) and
    logrotate (`audit.log.1`, `audit.log-20261126`) give them, compressed or not, until they were read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        stem, suffix = re.escape(path.stem), re.escape(path.suffix)
        self._rotated = re.compile(rf"{stem}(?:-\d[^/]*{suffix}|{suffix}[.-]\d[^/]*)(?:\.gz)?")

    def beginning(self) -> str:
        """The position before everything that is still there, rotated files included. Raises OSError."""
        files = [file for _, file in self._older()] + [_known_by(self._path)]
        return next((str(_Place(file.known)) for file in files if file is not None), "")

    def read(self, position: str) -> Batch:
        """See `Source.read`."""
        now, place = _known_by(self._path), _Place.of(position)
        if place is None:
            if now is None and not self._path.exists():
                raise FileNotFoundError(f"there is no {self._path}")
            if now is None:
                return Batch((), position)
            place = _Place(now.known)
        if now is not None and now.known == place.file:
            if now.size >= place.offset:
                return _read(self._path, place)
            lost = f"{self._path} was cut to less than was read of it"
            return replace(_read(self._path, _Place(now.known)), lost=lost)
        older, lost = self._older(), ""
        here = [index for index, (_, file) in enumerate(older) if file.known == place.file]
        if not here:
            lost = f"what followed in a file that was rotated beside {self._path} is gone"
        else:
            try:
                batch = _read(older[here[0]][0], place)
            except (OSError, EOFError) as error:
                lost = f"{older[here[0]][0]} cannot be read to its end: {error}"
            else:
                if batch.position != str(place):
                    return replace(batch, more=True)
        following = [*older[here[-1] + 1 :], (self._path, now)] if here else [(self._path, now)]
        for path, file in following:
            if file is not None:
                batch = _read(path, _Place(file.known))
                return replace(batch, lost=lost, more=batch.more or path != self._path)
        if not self._path.exists():
            raise FileNotFoundError(f"there is no {self._path}")
        return Batch((), str(place))  # what comes next is not there yet

    def _older(self) -> list[tuple[Path, _Head]]:
        """The rotated files, oldest first. One that is being compressed is there twice, the original first."""
        paths = sorted(path for path in self._path.parent.iterdir() if self._rotated.fullmatch(path.name))
        found = [(path, head) for path in paths if (head := _known_by(path)) is not None]
        return sorted(found, key=lambda file: (file[1].begun, file[1].known, file[0].suffix == ".gz"))


def split(data: bytes, within: bool, longest: int = LONGEST_LINE) -> tuple[list[bytes], int, bool, int]:
    """The whole lines of a piece of a file: (lines without their ends, bytes used, whether what follows is the rest of
    a line that is too long, how many were dropped for that). What is not used comes again with the next piece."""
    lines: list[bytes] = []
    start, dropped = 0, 0
    while (end := data.find(b"\n", start)) >= 0:
        if not within and end - start <= longest:
            lines.append(data[start:end])
        elif not within:
            dropped += 1
        within, start = False, end + 1
    if within or len(data) - start > longest:
        return lines, len(data), True, dropped + (not within)
    return lines, start, False, dropped


def _read(path: Path, place: _Place) -> Batch:
    """Up to a chunk of one file. Nothing where the file at that path has become another one meanwhile."""
    with _opened(path) as file:
        head = _head(file, path)
        if head is None or head.known != place.file:
            return Batch((), str(place), more=True)
        file.seek(place.offset)
        data = file.read(_CHUNK)
    lines, used, within, malformed = split(data, place.within)
    requests = []
    for line in lines:
        if not line.strip():
            continue
        try:
            found = request(line)
        except ValueError:
            malformed += 1
        else:
            if found is not None:
                requests.append(found)
    after = _Place(place.file, place.offset + used, within)
    return Batch(tuple(requests), str(after), more=len(data) == _CHUNK, size=used, malformed=malformed)


def _known_by(path: Path) -> _Head | None:
    """None while the file has no first line, or is not there. Raises OSError."""
    try:
        with _opened(path) as file:
            return _head(file, path)
    except (FileNotFoundError, EOFError, gzip.BadGzipFile):
        return None


def _head(file: IO[bytes], path: Path) -> _Head | None:
    head = file.read(_HEAD)
    first, newline, _ = head.partition(b"\n")
    if not newline and len(head) < _HEAD:
        return None
    status = os.fstat(file.fileno())
    stamped = _STAMP.search(first)
    begun = stamped[1].decode() if stamped else datetime.fromtimestamp(status.st_mtime, UTC).isoformat()
    size = sys.maxsize if path.suffix == ".gz" else status.st_size
    return _Head(hashlib.sha256(first).hexdigest()[:32], begun, size)


def _opened(path: Path) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def everything(source: AuditFile) -> Iterator[tuple[tuple[Request, ...], int]]:
    """All that is there now, in batches, each with how many lines were malformed. Raises OSError."""
    position = source.beginning()
    while True:
        batch = source.read(position)
        yield batch.requests, batch.malformed
        if batch.position == position or not batch.more:
            return
        position = batch.position
