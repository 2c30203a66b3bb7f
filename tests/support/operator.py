"""Runs the operator as tests see it: a separate process with a kubeconfig, a log, metrics and probes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import urllib3
from prometheus_client.parser import text_string_to_metric_families

from tests.support.cluster import eventually
from tests.support.controlplane import free_ports

READY_TIMEOUT = 60.0  # seconds
STOP_TIMEOUT = 30.0  # seconds between SIGTERM and SIGKILL

Labels = frozenset[tuple[str, str]]


class OperatorEnded(AssertionError):
    """The operator ended while a test still needed it; the message carries the end of its log."""


class Metrics(dict[tuple[str, Labels], float]):
    """One scrape: `metrics.value("tenure_findings", rule="Unowned")`; the key is (sample name, label set)."""

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples of that name that carry these labels. Raises KeyError when there is none."""
        wanted = set(labels.items())
        found = [value for (sample, pairs), value in self.items() if sample == name and wanted <= pairs]
        if not found:
            raise KeyError(f"{name}{labels}")
        return sum(found)

    def has(self, name: str, **labels: str) -> bool:
        """Whether there is such a sample."""
        wanted = set(labels.items())
        return any(sample == name and wanted <= pairs for sample, pairs in self)

    def samples(self, name: str) -> dict[Labels, float]:
        """All samples of that name."""
        return {pairs: value for (sample, pairs), value in self.items() if sample == name}


class Operator:
    """`tenure run` with a kubeconfig. A context manager: starts it and waits until it is ready; kills it in the end.

    Killed, since the operator promises to survive that at any instant, and Kopf takes seconds for an orderly end; a
    test of that calls `stop`.
    """

    def __init__(
        self,
        kubeconfig: Path,
        *,
        arguments: Iterable[str] = (),
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
        wait: bool = True,
        authority: Path | None = None,
    ) -> None:
        """`authority` signed the certificate that the arguments name: then it is asked over TLS."""
        self.kubeconfig = kubeconfig
        self.authority = authority
        self.arguments = list(arguments)
        self.environment = dict(environment or {})
        self._temporary = None if directory else tempfile.TemporaryDirectory(prefix="tenure-operator-")
        self.directory = directory or Path(self._temporary.name if self._temporary else ".")
        self.directory.mkdir(parents=True, exist_ok=True)
        self.log_file = self.directory / "operator.log"
        self._wait = wait
        self._process: subprocess.Popen[bytes] | None = None
        self._reaper: subprocess.Popen[bytes] | None = None
        self._http = urllib3.PoolManager(retries=False, ca_certs=str(authority) if authority else None)
        self.port = 0

    @property
    def command(self) -> list[str]:
        """What is run, without the interpreter's own settings."""
        beside = Path(sys.executable).with_name("tenure")
        program = [str(beside)] if beside.exists() else [sys.executable, "-m", "tenure"]
        return [*program, "run", "--metrics-address", f"127.0.0.1:{self.port}", *self.arguments]

    @property
    def url(self) -> str:
        """Where metrics and probes are served, such as http://127.0.0.1:23456."""
        return f"{'https' if self.authority else 'http'}://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process id; raises OperatorEnded when it does not run."""
        self.check()
        assert self._process is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, None while it runs or before it was started."""
        return self._process.poll() if self._process else None

    def start(self) -> Operator:
        """Starts the process on a free port; appends to the log of an earlier run."""
        assert self._process is None or self._process.poll() is not None, "it runs already"
        [self.port] = free_ports(1)
        # Settings come from the test alone, never from the shell that runs it.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TENURE_")}
        environment = {**inherited, "PYTHONUNBUFFERED": "1", **self.environment, "KUBECONFIG": str(self.kubeconfig)}
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                env=environment,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        # Kills the operator if this process ends without doing it: the kernel then closes the reaper's stdin.
        self._reaper = subprocess.Popen(
            ["sh", "-c", 'read -r _; kill -KILL "$1"', "reaper", str(self._process.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return self

    def check(self) -> None:
        """Raises OperatorEnded when the process is gone."""
        if self._process is None or self._process.poll() is not None:
            raise OperatorEnded(f"the operator ended with status {self.returncode}\n{self.log_tail()}")

    def probe(self, path: str = "/readyz") -> int:
        """The HTTP status of a probe, 0 when nobody answers."""
        try:
            return self._http.request("GET", self.url + path, timeout=5).status
        except urllib3.exceptions.HTTPError:
            return 0

    def wait_ready(self, timeout: float = READY_TIMEOUT) -> Operator:
        """Waits for 200 on /readyz: all informers have synced."""
        deadline = time.monotonic() + timeout
        while self.probe() != 200:
            self.check()
            if time.monotonic() > deadline:
                raise OperatorEnded(f"the operator was not ready within {timeout:g} s\n{self.log_tail()}")
            time.sleep(0.05)
        return self

    def wait_log(self, text: str, timeout: float = 30.0) -> None:
        """Waits until the log contains a text."""
        eventually(lambda: text in self.logs(), timeout, what=f"{text!r} in the operator's log")

    def wait_end(self, timeout: float = STOP_TIMEOUT) -> int:
        """Waits until it ends by itself; the exit status."""
        assert self._process is not None
        return self._process.wait(timeout)

    def kill(self) -> None:
        """SIGKILL, and waits until the process is gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> int | None:
        """SIGTERM, and waits for the end; SIGKILL after 30 s. The exit status."""
        self._end(signal.SIGTERM)
        return self.returncode

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        if self._reaper is not None:  # first, while the pid it knows is still the operator's
            self._reaper.kill()
            self._reaper.communicate()
            self._reaper = None
        if self._process.poll() is None:
            self._process.send_signal(number)
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def restart(self) -> Operator:
        """Kills it, starts it again and waits until it is ready."""
        self.kill()
        return self.start().wait_ready()

    def metrics_text(self) -> str:
        """One scrape, as text."""
        answer = self._http.request("GET", f"{self.url}/metrics", timeout=30)
        assert answer.status == 200, f"/metrics: {answer.status}"
        return answer.data.decode()

    def metrics(self) -> Metrics:
        """One scrape, parsed."""
        return Metrics(
            {
                (sample.name, frozenset(sample.labels.items())): sample.value
                for family in text_string_to_metric_families(self.metrics_text())
                for sample in family.samples
            }
        )

    def logs(self) -> str:
        """Everything it wrote so far, all runs of this object together."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def log_tail(self, lines: int = 40) -> str:
        """The last lines of the log."""
        return "\n".join(self.logs().splitlines()[-lines:])

    def close(self) -> None:
        """Kills it and removes its directory, if that was a temporary one."""
        self.kill()
        self._http.clear()
        if self._temporary is not None:
            with contextlib.suppress(OSError):
                self._temporary.cleanup()

    def __enter__(self) -> Operator:
        self.start()
        if self._wait:
            try:
                self.wait_ready()
            except BaseException:
                self.close()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
