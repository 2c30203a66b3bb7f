"""A file of audit events is followed through whatever happens to it, and no event is missed."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.audit import file as audit_file
from tenure.audit.file import AuditFile, everything, split
from tests.unit.audit.events import event

LINES = st.lists(st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"")), max_size=8)


@given(LINES, st.binary(max_size=12).map(lambda rest: rest.replace(b"\n", b"")), st.data())
def test_lines_come_out_whole_however_the_file_is_cut(lines: list[bytes], rest: bytes, data: st.DataObject) -> None:
    """Read in pieces, each beginning where the one before said; longer ones than 8 are dropped and counted."""
    text = b"".join(line + b"\n" for line in lines) + rest
    found: list[bytes] = []
    place, within, dropped = 0, False, 0
    while place < len(text):
        piece = text[place : place + data.draw(st.integers(9, 30))]
        got, used, within, lost = split(piece, within, longest=8)
        found += got
        dropped += lost
        place += used
        if not used:
            assert place + len(piece) == len(text), "it stands still only before an unfinished line"
            break
    assert found == [line for line in lines if len(line) <= 8]
    assert dropped == sum(len(line) > 8 for line in [*lines, rest])


class Log:
    """The file, its writer, and a reader that may be started anew at any position."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "audit.log"
        self.path.touch()
        self.position = ""
        self.lost: list[str] = []
        self.malformed = 0
        self._number = 0

    def write(self, count: int = 1) -> list[str]:
        ids = [f"id-{self._number + i}" for i in range(count)]
        with self.path.open("ab") as file:
            for id_ in ids:
                file.write(event(id_, after=self._number) + b"\n")
                self._number += 1
        return ids

    def read(self) -> list[str]:
        """To the end of what is there, by a reader that knows nothing but the position."""
        found: list[str] = []
        while True:
            batch = AuditFile(self.path).read(self.position)
            found += [request.id for request in batch.requests]
            self.malformed += batch.malformed
            if batch.lost:
                self.lost.append(batch.lost)
            self.position = batch.position
            if not batch.more:
                return found


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def test_it_goes_on_where_it_was(log: Log) -> None:
    assert log.read() == []
    assert log.write(3) == log.read()
    assert log.read() == []
    assert log.write() == log.read()
    assert not log.lost


@pytest.mark.parametrize("name", ["audit-2026-11-26T13-00-00.000.log", "audit.log.1", "audit.log-20261126"])
@pytest.mark.parametrize("how", ["rename", "copytruncate", "compressed"])
def test_a_rotation_loses_nothing(log: Log, name: str, how: str) -> None:
    log.write(2)
    log.read()
    rest = log.write(2)
    other = log.path.with_name(name)
    if how == "copytruncate":
        shutil.copy(log.path, other)
        log.path.write_bytes(b"")
        assert log.read() == rest
        rest = []
    elif how == "rename":
        log.path.rename(other)
        log.path.touch()
    else:
        log.path.rename(other)
        with gzip.open(f"{other}.gz", "wb") as packed:
            packed.write(other.read_bytes())
        other.unlink()
        log.path.touch()
    assert log.read() == rest
    assert log.write(2) == log.read()
    assert log.read() == []
    assert not log.lost


def test_a_file_that_is_compressed_right_now_is_read_once(log: Log) -> None:
    """Original and copy are both there, and the copy is not complete."""
    log.write(2)
    log.read()
    rest = log.write(1)
    other = log.path.with_name("audit-2026-11-26T13-00-00.000.log")
    log.path.rename(other)
    whole = gzip.compress(other.read_bytes())
    Path(f"{other}.gz").write_bytes(whole[: len(whole) // 2])
    new = log.write(1)
    assert log.read() == rest + new
    Path(f"{other}.gz").write_bytes(whole)
    other.unlink()
    assert log.read() == []
    assert not log.lost


def test_several_rotations_while_nobody_read_lose_nothing(log: Log) -> None:
    log.write(1)
    log.read()
    ids = []
    for number in (3, 2, 1):
        ids += log.write(2)
        log.path.rename(log.path.with_name(f"audit.log.{number}"))
    ids += log.write(2)
    (log.path.parent / "audit-webhook.log").write_text("another one's\n")
    assert log.read() == ids
    assert not log.lost


def test_what_was_rotated_away_is_said_to_be_lost(log: Log) -> None:
    log.write(2)
    log.read()
    log.write(1)
    log.path.write_bytes(b"")
    assert log.read() == []
    assert log.write(2) == log.read()
    assert "is gone" in log.lost[0]


def test_malformed_lines_are_counted_and_passed_by(log: Log) -> None:
    first = log.write()
    with log.path.open("ab") as file:
        file.write(b'{"kind":"Event"\nnot json\n\n\0\0\0\n')
    second = log.write()
    assert log.read() == first + second
    assert log.malformed == 3


def test_an_unfinished_line_is_waited_for(log: Log) -> None:
    log.write()
    log.read()
    line = event("late", after=9) + b"\n"
    with log.path.open("ab") as file:
        file.write(line[:100])
    assert log.read() == []
    with log.path.open("ab") as file:
        file.write(line[100:])
    assert log.read() == ["late"]


def test_a_line_without_end_is_passed_by_in_bounded_memory(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_file, "_CHUNK", 3000)
    monkeypatch.setattr(audit_file.split, "__defaults__", (2000,))
    log.write()
    with log.path.open("ab") as file:
        file.write(b"x" * 10_000)
    assert log.read() == ["id-0"]
    with log.path.open("ab") as file:
        file.write(b"x" * 5_000 + b"\n")
    assert log.write() == log.read()
    assert log.malformed == 1


def test_a_log_that_is_not_there_is_an_error(log: Log) -> None:
    log.path.unlink()
    with pytest.raises(FileNotFoundError):
        AuditFile(log.path).read("")
    log.write()
    log.read()
    log.path.unlink()
    with pytest.raises(FileNotFoundError):
        AuditFile(log.path).read(log.position)


def test_a_position_that_nobody_wrote_begins_anew(log: Log) -> None:
    log.position = "../../etc/passwd"
    assert log.write(2) == log.read()


def test_everything_that_is_there_is_read_for_a_report(log: Log) -> None:
    ids = log.write(2)
    log.path.rename(log.path.with_name("audit.log.1"))
    ids += log.write(2)
    assert [request.id for requests, _ in everything(AuditFile(log.path)) for request in requests] == ids
