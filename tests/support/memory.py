"""What stands in the memory of a process: in all of it, by /proc, and in what its Python objects hold.

counts = scan(operator.pid, {"password": b"hunter2", "marker": b"ci-bot"})

with Walked(kubeconfig) as operator:      # the same program, in a process that can look at itself
    hits = operator.walk({"password": b"hunter2"})
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.support.cluster import REPOSITORY

_MAPPING = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ \S+ *(.*)$")
_PIECE = 8 << 20  # bytes read at a time
_KERNELS = frozenset({"[vvar]", "[vvar_vclock]", "[vsyscall]"})  # readable by name alone
WALK_TIMEOUT = 120.0


def scan(pid: int, needles: Mapping[str, bytes]) -> dict[str, int]:
    """How often each needle stands in the readable memory of a process, and under "" how many bytes were read.

    The process stands still meanwhile. Raises PermissionError where the kernel forbids to look (it must be our child).
    """
    counts = {"": 0, **dict.fromkeys(needles, 0)}
    overlap = max(map(len, needles.values())) - 1
    os.kill(pid, signal.SIGSTOP)
    try:
        regions = list(_readable(pid))
        with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
            for start, end in regions:
                tail = b""
                for at in range(start, end, _PIECE):
                    try:
                        memory.seek(at)
                        piece = memory.read(min(_PIECE, end - at))
                    except OSError:
                        break  # a mapping without pages behind it, such as a device's
                    counts[""] += len(piece)
                    seen = tail + piece
                    for name, needle in needles.items():
                        counts[name] += seen.count(needle)
                    # One byte less than the longest needle: one that lies across is found, none is counted twice
                    # but a shorter one in the overlap, and of those only whether there is any matters.
                    tail = seen[-overlap:] if overlap else b""
    finally:
        os.kill(pid, signal.SIGCONT)
    return counts


def _readable(pid: int) -> Iterator[tuple[int, int]]:
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        found = _MAPPING.match(line)
        if found and found[3].startswith("r") and found[4] not in _KERNELS:
            yield int(found[1], 16), int(found[2], 16)


class Walked:
    """The operator in a process that also answers what its own objects hold; a context manager, ready when entered.

    It runs `tenure.app.Operator` itself, with its informers, store, loop and enforcement, and beside it a thread that
    waits for questions on standard input.
    """

    def __init__(self, kubeconfig: Path) -> None:
        self._kubeconfig = kubeconfig
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Walked:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.memory", str(self._kubeconfig)],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "operator"), str(REPOSITORY)])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._answer() == "ready"
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            self._process.wait(WALK_TIMEOUT)
            self._process.stdout.close()

    def walk(self, needles: Mapping[str, bytes]) -> dict[str, list[str]]:
        """For each needle what holds it, as chains of types; under "" how many objects were looked at."""
        assert self._process is not None
        assert self._process.stdin is not None
        # In halves: the question itself must not be what is found.
        halves = {name: [needle[:4].decode(), needle[4:].decode()] for name, needle in needles.items()}
        self._process.stdin.write(json.dumps(halves) + "\n")
        self._process.stdin.flush()
        answer: dict[str, list[str]] = self._answer()
        return answer

    def _answer(self) -> Any:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the walked operator ended with status {self._process.wait()}")
        return json.loads(line)


def walk(halves: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Looks at every object that the garbage collector knows, and at all that these refer to: strings and bytes are not
    the collector's own, but every one that is reachable is referred to by something that is, down to the variables of
    suspended coroutines and generators; the frames of running threads are added."""
    gc.collect()
    names = list(halves)
    needles = ["".join(halves[name]).encode() for name in names]
    own = {id(needle) for needle in needles}
    found: dict[str, list[str]] = {name: [] for name in names}
    parents: dict[int, object] = {}
    frames: list[object] = [frame for thread, frame in sys._current_frames().items() if thread != threading.get_ident()]
    stack: list[object] = [*gc.get_objects(), *frames]
    skipped = {id(stack), id(parents), id(found), id(needles), id(own), id(halves)}
    seen: set[int] = set()
    skipped.add(id(seen))
    while stack:
        holder = stack.pop()
        if id(holder) in seen or id(holder) in skipped:
            continue
        seen.add(id(holder))
        for inner in gc.get_referents(holder):
            if isinstance(inner, str | bytes | bytearray):
                if id(inner) in seen or id(inner) in own:
                    continue
                seen.add(id(inner))
                raw = inner.encode(errors="replace") if isinstance(inner, str) else bytes(inner)
                for name, needle in zip(names, needles, strict=True):
                    if needle in raw:
                        found[name].append(_chain(holder, parents, type(inner).__name__))
            elif id(inner) not in seen:
                parents.setdefault(id(inner), holder)
                stack.append(inner)
    found[""] = [str(len(seen))]
    return found


def _chain(holder: object, parents: Mapping[int, object], leaf: str) -> str:
    """Who holds it, nearest first, without what it says."""
    names = [leaf]
    for _ in range(6):
        name = type(holder).__name__
        code = getattr(holder, "ag_code", None) or getattr(holder, "gi_code", None) or getattr(holder, "cr_code", None)
        names.append(f"{name} {code.co_qualname}" if code is not None else name)
        parent = parents.get(id(holder))
        if parent is None:
            break
        holder = parent
    return " < ".join(names)


async def _run(kubeconfig: str) -> None:
    from tenure.app import Operator
    from tenure.settings import Settings

    operator = Operator(Settings(kubeconfig=kubeconfig, metrics_address="127.0.0.1:0", log_level="debug"))
    running = asyncio.create_task(operator.run())
    while operator._ready() is not None:
        await asyncio.sleep(0.05)
        if running.done():
            running.result()
    print(json.dumps("ready"), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(walk(json.loads(line))), flush=True)
    operator._stop.set()
    await running


if __name__ == "__main__":
    asyncio.run(_run(sys.argv[1]))
