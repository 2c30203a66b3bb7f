"""Operators that start in a third of a second instead of two: forked from a process that has imported everything.

    with ForkServer() as server, ForkedOperator(kubeconfig, server=server) as operator:
        operator.kill()
        operator.start().wait_ready()

Four fifths of a start are Python's imports. A test that kills the operator a hundred times pays for them once: each
operator is a process of its own, forked before anything ran, with the program's own `main` and nothing else in it.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from tests.support.cluster import REPOSITORY
from tests.support.controlplane import free_ports
from tests.support.operator import STOP_TIMEOUT, Operator, OperatorEnded

__all__ = ["ForkServer", "ForkedOperator"]


class ForkServer:
    """The process that forks. A context manager; its operators end with it, and it ends with the test, however."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> ForkServer:
        """Starts it; returns once it has imported the operator."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.forked"],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "operator"), str(REPOSITORY)])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._answer()
        return self

    def close(self) -> None:
        """Ends it and every operator it still has."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.wait(STOP_TIMEOUT)
        self._process.stdout.close()
        self._process = None

    def __enter__(self) -> ForkServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def fork(self, command: Sequence[str], environment: Mapping[str, str], directory: Path, log: Path) -> int:
        """Forks an operator; its process id."""
        order = {"command": list(command), "environment": dict(environment), "cwd": str(directory), "log": str(log)}
        return int(self._ask(fork=order))

    def status(self, pid: int) -> int | None:
        """How an operator ended, as subprocess says it (-9: SIGKILL); None while it runs."""
        found = self._ask(status=pid)
        return None if found is None else int(found)

    def _ask(self, **request: Any) -> Any:
        assert self._process is not None, "the fork server is not started"
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the fork server ended with status {self._process.wait()}")
        return json.loads(line)


class ForkedOperator(Operator):
    """An Operator that a ForkServer starts; everything else is the same."""

    def __init__(self, kubeconfig: Path, *, server: ForkServer, **options: Any) -> None:
        super().__init__(kubeconfig, **options)
        self._server = server
        self._pid = 0
        self._ended: int | None = None

    @property
    def pid(self) -> int:
        self.check()
        return self._pid

    @property
    def returncode(self) -> int | None:
        if self._pid and self._ended is None:
            self._ended = self._server.status(self._pid)
        return self._ended

    def start(self) -> ForkedOperator:
        assert not self._pid or self.returncode is not None, "it runs already"
        [self.port] = free_ports(1)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TENURE_")}
        environment = {**inherited, **self.environment, "KUBECONFIG": str(self.kubeconfig)}
        self._ended = None
        self._pid = self._server.fork(self.command, environment, self.directory, self.log_file)
        return self

    def __enter__(self) -> ForkedOperator:
        super().__enter__()
        return self

    def check(self) -> None:
        if not self._pid or self.returncode is not None:
            raise OperatorEnded(f"the operator ended with status {self.returncode}\n{self.log_tail()}")

    def wait_end(self, timeout: float = STOP_TIMEOUT) -> int:
        deadline = time.monotonic() + timeout
        while (status := self.returncode) is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the operator did not end within {timeout:g} s")
            time.sleep(0.005)
        return status

    def _end(self, number: signal.Signals) -> None:
        if not self._pid or self.returncode is not None:
            return
        os.kill(self._pid, number)
        try:
            self.wait_end()
        except TimeoutError:
            os.kill(self._pid, signal.SIGKILL)
            self.wait_end()


def _serve() -> None:
    """Forks what it is told to, one line of JSON after the other; at the end of its input it kills what is left."""
    import tenure.app
    import tenure.cli  # noqa: F401

    assert threading.active_count() == 1, "a fork would not take the other threads along"
    gc.collect()
    gc.freeze()  # the children's collections then leave the shared pages alone
    children: set[int] = set()
    print("null", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        answer: int | None = None
        if "fork" in request:
            answer = _fork(request["fork"])
            children.add(answer)
        else:
            pid, status = os.waitpid(request["status"], os.WNOHANG)
            if pid:
                children.discard(pid)
                answer = os.waitstatus_to_exitcode(status)
        print(json.dumps(answer), flush=True)
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _fork(order: Mapping[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        _run(order)
    finally:
        os._exit(70)  # only after an error on the way


def _run(order: Mapping[str, Any]) -> NoReturn:
    """What the console script does, in a child with its own session, log, directory and environment."""
    os.setsid()
    log = os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.closerange(3, 64)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.argv = [str(part) for part in order["command"]]
    from tenure.__main__ import main

    status: Any = 0
    try:
        main()
    except SystemExit as end:
        status = end.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else int(status is not None))


if __name__ == "__main__":
    _serve()
