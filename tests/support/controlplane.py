"""A real Kubernetes control plane on loopback: etcd, kube-apiserver and kube-controller-manager as processes.

There is no kubelet and no scheduler: pods stay Pending until a test binds them and patches their status. Everything
that Tenure relies on (authentication, RBAC, admission policies, CRDs, garbage collection, tokens) is the real thing.

    with ControlPlane.start(version="1.34") as control_plane:
        control_plane.kill("kube-apiserver")
        control_plane.start_component("kube-apiserver")
        control_plane.wait_ready()

As a command: `python -m tests.support.controlplane start|stop|build`.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import functools
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal

import urllib3
import yaml

from tests.support.binary import BuildError, ensure_binary
from tests.support.pki import Authority, SigningKey, service_account_key
from tests.support.rest import Credentials, Rest

Component = Literal["etcd", "kube-apiserver", "kube-controller-manager"]
COMPONENTS: tuple[Component, ...] = ("etcd", "kube-apiserver", "kube-controller-manager")
EMULATED_VERSIONS = ("1.33", "1.34", "1.35", "1.36")  # what `--emulated-version` of a 1.36 binary accepts

READY_TIMEOUT = 90.0  # seconds; about 3 are needed, the rest is for a busy machine
TERMINATION_TIMEOUT = 30.0  # seconds between SIGTERM and SIGKILL
POLL = 0.03  # seconds between two looks at a condition
TEMPORARY_PREFIX = "tenure-controlplane-"
START_ATTEMPTS = 5  # another process may take a port between our choice and our bind

CONTROLLERS = (
    "namespace",
    "serviceaccount",
    "serviceaccount-token",
    "legacy-serviceaccount-token-cleaner",
    "root-ca-certificate-publisher",
    "garbage-collector",
    "clusterrole-aggregation",
    "validatingadmissionpolicy-status",
    "ttl-after-finished",
    "deployment",
    "replicaset",
    "job",
    "cronjob",
    "statefulset",
)

AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}

# What the supervisor puts into its directory, and all that `stop` removes from it.
CONTENTS = ("pki", "etcd", "logs", "users", "tmp", "audit.log", "audit-policy.yaml", "admin.kubeconfig", "state.json")


class ControlPlaneError(RuntimeError):
    """A component did not start or ended by itself; the message carries the end of its log."""


class _PortTaken(ControlPlaneError):
    """Another process was faster; starting again with other ports helps."""


@dataclass(frozen=True)
class _Process:
    """One process, named so that a pid used again by something else is never mistaken for it."""

    pid: int
    started: int  # clock ticks after boot, field 22 of /proc/PID/stat

    @classmethod
    def of(cls, pid: int) -> _Process:
        return cls(pid, _start_ticks(pid) or 0)

    def alive(self) -> bool:
        ticks = _start_ticks(self.pid)
        return ticks is not None and ticks == self.started

    def signal(self, number: signal.Signals) -> None:
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


def _start_ticks(pid: int) -> int | None:
    """When the process started; None when it is gone or only waits to be reaped."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def _await(condition: Callable[[], bool], timeout: float, what: str) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise ControlPlaneError(f"{what}: not within {timeout:.0f} s")
        time.sleep(POLL)


def _temporary_directory() -> Path:
    """A new directory, after removing those of supervisors that were killed and could not remove theirs."""
    base = Path(tempfile.gettempdir())
    for abandoned in base.glob(f"{TEMPORARY_PREFIX}*"):
        with contextlib.suppress(OSError), (abandoned / "lock").open() as handle:
            # A living supervisor holds the lock; the kernel releases it with the process.
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(abandoned, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX))


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on, below the range the kernel gives to outgoing connections.

    Below it, so that no client connection takes the API server's port while a test has it killed.
    """
    try:
        low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        low = 32768
    bounds = (12000, low - 1) if low > 14000 else (20000, 60000)
    chosen: list[int] = []
    with contextlib.ExitStack() as held:
        while len(chosen) < count:
            listener = held.enter_context(socket.socket())
            port = random.SystemRandom().randint(*bounds)
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            chosen.append(port)
    return chosen


def write_kubeconfig(
    path: Path,
    *,
    server: str,
    ca_file: Path,
    certificate: tuple[Path, Path] | None = None,
    token: str | None = None,
    namespace: str | None = None,
) -> Path:
    """Writes a kubeconfig of one context, `tenure-test`, with everything inline but the CA and certificate files."""
    user: dict[str, str] = {}
    if certificate:
        user = {"client-certificate": str(certificate[0]), "client-key": str(certificate[1])}
    if token:
        user = {"token": token}
    context = {"cluster": "tenure-test", "user": "tenure-test"}
    if namespace:
        context["namespace"] = namespace
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "tenure-test", "cluster": {"server": server, "certificate-authority": str(ca_file)}}],
        "users": [{"name": "tenure-test", "user": user}],
        "contexts": [{"name": "tenure-test", "context": context}],
        "current-context": "tenure-test",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(content))
    return path


class ControlPlane:
    """One control plane and its directory. `server` is its https URL, `kubeconfig` the administrator's file.

    Made by `ControlPlane.start`; ended by `stop`, by leaving the context, or with the supervising process, however
    that ends. Methods raise ControlPlaneError.
    """

    def __init__(
        self,
        directory: Path,
        binary: Path,
        *,
        version: str | None,
        audit: bool,
        audit_megabytes: int,
        signing_key: SigningKey,
        detached: bool,
        temporary: bool,
    ) -> None:
        self.directory = directory.resolve()
        self.version = version
        self.audit = audit
        self.audit_megabytes = audit_megabytes
        self.detached = detached
        self._owns_directory = temporary or not self.directory.exists()
        self._binary = binary
        self._processes: dict[Component, subprocess.Popen[bytes]] = {}
        self._lifelines: dict[Component, int] = {}  # our end of each child's stdin: when it closes, the child ends
        self._lock = threading.RLock()
        self._held: IO[str] | None = self._hold() if temporary else None
        for name in CONTENTS:
            if name in ("pki", "etcd", "logs", "users"):
                (self.directory / name).mkdir(parents=True, exist_ok=True)
        self._authority = Authority(self.directory / "pki")
        self.ca_file = self._authority.certificate_file
        self._token_key, self._token_public_key = service_account_key(self.directory / "pki", signing_key)
        self._serving = self.serving_certificate()
        self._admin = self._authority.issue("admin", "tenure-test-admin", organizations=["system:masters"])
        self._manager = self._authority.issue("kcm", "system:kube-controller-manager")
        self.audit_log = self.directory / "audit.log"
        (self.directory / "audit-policy.yaml").write_text(json.dumps(AUDIT_POLICY))
        self.kubeconfig = self.directory / "admin.kubeconfig"
        self._choose_ports()

    # Starting and ending -------------------------------------------------------------------------------------------

    @classmethod
    def start(
        cls,
        directory: Path | None = None,
        *,
        version: str | None = None,
        audit: bool = True,
        audit_megabytes: int = 0,
        signing_key: SigningKey = "rsa",
        detached: bool = False,
    ) -> ControlPlane:
        """Starts one and waits until it is ready, about 3 s. Builds the binary first when it is not cached.

        `directory` (default: a temporary one) is filled, and emptied again by `stop`. `version`, such as "1.34", is
        emulated. `audit_megabytes` is the size at which the audit log is rotated; 0: never, and positions in it stay
        valid. `detached` components outlive this process.
        """
        if version is not None and version not in EMULATED_VERSIONS:
            raise ControlPlaneError(f"version {version}: this binary emulates {', '.join(EMULATED_VERSIONS)}")
        binary = ensure_binary()
        control_plane = cls(
            directory or _temporary_directory(),
            binary,
            version=version,
            audit=audit,
            audit_megabytes=audit_megabytes,
            signing_key=signing_key,
            detached=detached,
            temporary=directory is None,
        )
        try:
            for attempt in range(START_ATTEMPTS):
                try:
                    control_plane._start_all()
                    break
                except _PortTaken:
                    if attempt == START_ATTEMPTS - 1:
                        raise
                    control_plane._kill_all()
                    control_plane.rest.close()
                    for data in ("etcd", "logs"):  # the log is what told of the collision
                        shutil.rmtree(control_plane.directory / data)
                        (control_plane.directory / data).mkdir()
                    control_plane._choose_ports()
        except BaseException:
            control_plane.stop()
            raise
        return control_plane

    def _hold(self) -> IO[str]:
        """Marks a temporary directory as one in use. Locked before it has its name, for `_temporary_directory`."""
        unnamed = self.directory / "lock.part"
        handle = unnamed.open("w")
        fcntl.flock(handle, fcntl.LOCK_EX)
        unnamed.rename(self.directory / "lock")
        return handle

    def _choose_ports(self) -> None:
        self._etcd_port, self._peer_port, self._port = free_ports(3)
        self.server = f"https://127.0.0.1:{self._port}"
        write_kubeconfig(self.kubeconfig, server=self.server, ca_file=self.ca_file, certificate=self._admin)
        write_kubeconfig(
            self.directory / "pki" / "kcm.kubeconfig",
            server=self.server,
            ca_file=self.ca_file,
            certificate=self._manager,
        )
        self.rest = Rest(
            Credentials(self.server, str(self.ca_file), (str(self._admin[0]), str(self._admin[1]))),
        )

    def _start_all(self) -> None:
        for component in COMPONENTS:
            self.start_component(component)
        self.wait_ready()

    def start_component(self, component: Component) -> None:
        """Starts one process; does not wait for it (`wait_ready` does). A running one is left as it is."""
        with self._lock:
            running = self._processes.get(component)
            if running is not None and running.poll() is None:
                return
            self._release(component)
            read_end, write_end = os.pipe()
            environment = {**os.environ, "TMPDIR": str(self._temporary())}
            if not self.detached:
                environment["CONTROLPLANE_EXIT_WITH_STDIN"] = "1"
            with (self.directory / "logs" / f"{component}.log").open("ab") as log:
                self._processes[component] = subprocess.Popen(
                    [str(self._binary), component, *self._arguments(component)],
                    stdin=read_end,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=self.directory,
                    env=environment,
                    # A Ctrl-C at the terminal is for the supervisor, which then ends its children in order.
                    start_new_session=True,
                )
            os.close(read_end)
            self._lifelines[component] = write_end
            if self.detached:
                self._write_state()

    def kill(self, component: Component) -> None:
        """SIGKILL, and waits until the process is gone."""
        self._end(component, signal.SIGKILL)

    def stop_component(self, component: Component) -> None:
        """SIGTERM, and waits for the end; SIGKILL after 30 s."""
        self._end(component, signal.SIGTERM)

    def restart(self, component: Component) -> None:
        """Kills one component, starts it on the same port with the same data, and waits until all is ready."""
        self.kill(component)
        self.start_component(component)
        self.wait_ready()

    def pid(self, component: Component) -> int | None:
        """The process id, None when it does not run."""
        process = self._processes.get(component)
        return process.pid if process is not None and process.poll() is None else None

    def _end(self, component: Component, number: signal.Signals) -> None:
        with self._lock:
            process = self._processes.pop(component, None)
            if process is not None:
                if process.poll() is None:
                    process.send_signal(number)
                try:
                    process.wait(TERMINATION_TIMEOUT)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            self._release(component)

    def _release(self, component: Component) -> None:
        lifeline = self._lifelines.pop(component, None)
        if lifeline is not None:
            os.close(lifeline)

    def _kill_all(self) -> None:
        # Nothing in here is worth an orderly end. The API server goes first, so that it does not log etcd's absence.
        for component in ("kube-controller-manager", "kube-apiserver", "etcd"):
            self._end(component, signal.SIGKILL)

    def stop(self) -> None:
        """Ends every process and removes everything it wrote. May be called twice."""
        self._kill_all()
        self.rest.close()
        _remove_contents(self.directory, itself=self._owns_directory)
        if self._held is not None:
            self._held.close()

    def __enter__(self) -> ControlPlane:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # Flags ---------------------------------------------------------------------------------------------------------

    def _temporary(self) -> Path:
        """Where components put their temporary files, so that a killed one leaves none in the system's."""
        path = self.directory / "tmp"
        path.mkdir(exist_ok=True)
        return path

    def _emulation(self) -> list[str]:
        return [f"--emulated-version={self.version}"] if self.version else []

    def _arguments(self, component: Component) -> list[str]:
        if component == "etcd":
            return [
                f"--data-dir={self.directory / 'etcd'}",
                f"--listen-client-url=http://127.0.0.1:{self._etcd_port}",
                f"--listen-peer-url=http://127.0.0.1:{self._peer_port}",
            ]
        if component == "kube-apiserver":
            arguments = [
                f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
                "--bind-address=127.0.0.1",
                f"--secure-port={self._port}",
                "--advertise-address=127.0.0.1",
                "--endpoint-reconciler-type=none",
                f"--tls-cert-file={self._serving[0]}",
                f"--tls-private-key-file={self._serving[1]}",
                f"--client-ca-file={self.ca_file}",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-key-file={self._token_public_key}",
                f"--service-account-signing-key-file={self._token_key}",
                "--authorization-mode=RBAC",
                "--allow-privileged=true",
                "--shutdown-watch-termination-grace-period=1s",  # without it, SIGTERM waits a minute for open watches
                "--service-cluster-ip-range=10.0.0.0/24",
                *self._emulation(),
            ]
            if self.version:
                arguments.append("--emulation-forward-compatible=false")
            if self.audit:
                arguments += [
                    f"--audit-policy-file={self.directory / 'audit-policy.yaml'}",
                    f"--audit-log-path={self.audit_log}",
                    f"--audit-log-maxsize={self.audit_megabytes}",
                ]
            return arguments
        return [
            f"--kubeconfig={self.directory / 'pki' / 'kcm.kubeconfig'}",
            "--leader-elect=false",
            "--use-service-account-credentials=true",
            f"--service-account-private-key-file={self._token_key}",
            f"--root-ca-file={self.ca_file}",
            "--secure-port=0",
            f"--controllers={','.join(f'{name}-controller' for name in CONTROLLERS)}",
            "--kube-api-qps=500",
            "--kube-api-burst=1000",
            "--concurrent-namespace-syncs=20",
            "--concurrent-serviceaccount-token-syncs=20",
            *self._emulation(),
        ]

    # Readiness -----------------------------------------------------------------------------------------------------

    def wait_ready(self, timeout: float = READY_TIMEOUT) -> None:
        """Waits until a test may begin: /readyz answers 200, and the controllers have filled `default`.

        Fails at once when a component was not started, or has ended by itself (then with the end of its log).
        """
        for component in COMPONENTS:
            if component not in self._processes:
                raise ControlPlaneError(f"{component} does not run: start it first")
        pending = [
            "/readyz",  # judged by its status: the body of a failure also contains "ok"
            "/api/v1/namespaces/default/serviceaccounts/default",
            "/api/v1/namespaces/default/configmaps/kube-root-ca.crt",
        ]

        def ready() -> bool:
            self._check_processes()
            while pending:
                if self._status(pending[0]) != 200:
                    return False
                pending.pop(0)
            return True

        _await(ready, timeout, f"control plane in {self.directory} ready")

    def is_ready(self) -> bool:
        """Whether /readyz answers 200 now."""
        return self._status("/readyz") == 200

    def _status(self, path: str) -> int:
        try:
            return self.rest.request("GET", path, timeout=5)[0]
        except urllib3.exceptions.HTTPError:
            return 0

    def _check_processes(self) -> None:
        for component, process in list(self._processes.items()):
            if process.poll() is None:
                continue
            tail = self.log_tail(component)
            if "address already in use" in tail:
                raise _PortTaken(f"{component}: its port was taken\n{tail}")
            if component == "kube-controller-manager" and "failed to wait for apiserver being healthy" in tail:
                # It gives the API server 10 s, less than a busy machine may need.
                self.start_component(component)
                continue
            raise ControlPlaneError(f"{component} ended with status {process.returncode}\n{tail}")

    def log_tail(self, component: Component, lines: int = 20) -> str:
        """The last lines of a component's log."""
        path = self.directory / "logs" / f"{component}.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""

    # Users ---------------------------------------------------------------------------------------------------------

    def serving_certificate(self, file_name: str = "serving") -> tuple[Path, Path]:
        """A certificate by the cluster's CA for 127.0.0.1 and localhost: (certificate file, key file)."""
        return self._authority.issue(
            file_name,
            "kube-apiserver",
            addresses=["127.0.0.1", "localhost", "kubernetes.default.svc", "10.0.0.1"],
        )

    def user(self, name: str, groups: Iterable[str] = ()) -> Path:
        """The kubeconfig of a user with a fresh client certificate. It holds no right until a binding gives one."""
        file_name = f"user-{_file_name(name)}-{uuid.uuid4().hex[:6]}"
        certificate = self._authority.issue(file_name, name, organizations=groups)
        return write_kubeconfig(
            self.directory / "users" / f"{file_name}.kubeconfig",
            server=self.server,
            ca_file=self.ca_file,
            certificate=certificate,
        )

    def token_kubeconfig(
        self, namespace: str, service_account: str, *, server: str | None = None, seconds: int = 86400
    ) -> Path:
        """The kubeconfig of a ServiceAccount, with a token from TokenRequest; `server` may be a proxy's URL."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{service_account}/token"
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": seconds},
        }
        answer = self.rest.expect("POST", path, request)
        file_name = f"token-{namespace}-{service_account}-{uuid.uuid4().hex[:6]}"
        return write_kubeconfig(
            self.directory / "users" / f"{file_name}.kubeconfig",
            server=server or self.server,
            ca_file=self.ca_file,
            token=answer["status"]["token"],
        )

    # Audit log -----------------------------------------------------------------------------------------------------

    def audit_position(self) -> int:
        """Where the log ends now, in bytes: `audit_events(since=…)` starts after it."""
        self._audit_barrier()
        return self.audit_log.stat().st_size

    def audit_events(self, since: int = 0) -> list[dict[str, Any]]:
        """Everything logged after `since`, parsed, up to now. A last line that is still being written is left out.

        One event per request (`ResponseComplete`), for watches a second one at their start (`ResponseStarted`).
        """
        self._audit_barrier()
        return list(self._read_audit(since))

    def _read_audit(self, since: int) -> Iterator[dict[str, Any]]:
        with self.audit_log.open("rb") as log:
            log.seek(since)
            for line in log:
                if not line.endswith(b"\n"):
                    return
                yield json.loads(line)

    def _audit_barrier(self) -> None:
        """Waits for the event of a request made now.

        An event is written when its request ends, which the client may see a moment earlier. Without a running API
        server there is nothing to wait for.
        """
        marker = f"/version?marker={uuid.uuid4().hex}"
        start = self.audit_log.stat().st_size if self.audit_log.exists() else 0
        if self._status(marker) != 200:
            return
        _await(
            lambda: any(event.get("requestURI") == marker for event in self._read_audit(start)),
            10,
            "audit event of a request",
        )

    # Detached ------------------------------------------------------------------------------------------------------

    def _write_state(self) -> None:
        processes = {
            component: {"pid": process.pid, "started": _Process.of(process.pid).started}
            for component, process in self._processes.items()
        }
        state = {"processes": processes, "kubeconfig": str(self.kubeconfig), "version": self.version}
        partial = self.directory / "state.json.part"
        partial.write_text(json.dumps(state, indent=2))
        partial.replace(self.directory / "state.json")

    def detach(self) -> None:
        """Lets the components outlive this process; only for those started with `detached`."""
        for component in list(self._lifelines):
            self._release(component)
        self._processes.clear()
        self.rest.close()


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]", "-", name)[:80]


def _remove_contents(directory: Path, *, itself: bool) -> None:
    """Removes what the supervisor wrote, and the directory if it made it and nothing else is in it."""
    for name in CONTENTS:
        path = directory / name
        if path.is_dir():
            # An ended process may still be closing a file for a moment: once more, then.
            shutil.rmtree(path, ignore_errors=True)
            if path.exists():
                shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    (directory / "state.json.part").unlink(missing_ok=True)
    if itself:
        (directory / "lock").unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            directory.rmdir()


def _read_state(directory: Path) -> dict[str, Any] | None:
    try:
        state: dict[str, Any] = json.loads((directory / "state.json").read_text())
    except FileNotFoundError:
        return None
    return state


def _state_processes(state: dict[str, Any]) -> list[_Process]:
    return [_Process(entry["pid"], entry["started"]) for entry in state["processes"].values()]


@contextlib.contextmanager
def _directory_lock(directory: Path) -> Iterator[None]:
    """Two commands on one directory take turns."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def start_detached(directory: Path, *, version: str | None = None) -> Path:
    """Starts a control plane that outlives this process; its kubeconfig. A running one is used again.

    Raises ControlPlaneError when the running one emulates another version.
    """
    directory = directory.resolve()
    with _directory_lock(directory):
        state = _read_state(directory)
        if state is not None:
            if len(state["processes"]) == len(COMPONENTS) and all(p.alive() for p in _state_processes(state)):
                if state["version"] != version:
                    raise ControlPlaneError(
                        f"{directory} runs version {state['version'] or 'of the binary'} already: stop it first"
                    )
                return Path(state["kubeconfig"])
            _end_all(_state_processes(state))
            _remove_contents(directory, itself=False)
        control_plane = ControlPlane.start(directory, version=version, detached=True)
        control_plane.detach()
        return control_plane.kubeconfig


def stop_detached(directory: Path) -> bool:
    """Ends exactly the processes that `start_detached` recorded, and removes what they wrote. False: there is none."""
    directory = directory.resolve()
    if not directory.exists():
        return False
    with _directory_lock(directory):
        state = _read_state(directory)
        if state is not None:
            _end_all(_state_processes(state))
        _remove_contents(directory, itself=True)
    return state is not None


def _end_all(processes: list[_Process]) -> None:
    for process in reversed(processes):
        process.signal(signal.SIGKILL)
    _await(lambda: not any(process.alive() for process in processes), TERMINATION_TIMEOUT, "processes ended")


def main(arguments: list[str] | None = None) -> int:
    """The command line; the exit status. `start` prints `export KUBECONFIG=…` as its last line."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.controlplane", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    directory = functools.partial(argparse.ArgumentParser.add_argument, default=Path(".cluster"), type=Path)
    start = commands.add_parser("start", help="start one in the background")
    directory(start, "--dir", help="where it lives (default: .cluster)")
    start.add_argument("--version", help=f"emulate a version: {', '.join(EMULATED_VERSIONS)}")
    stop = commands.add_parser("stop", help="end the one that lives in a directory")
    directory(stop, "--dir", help="where it lives (default: .cluster)")
    commands.add_parser("build", help="only build the binary; prints its path")
    options = parser.parse_args(arguments)
    try:
        if options.command == "build":
            print(ensure_binary())
        elif options.command == "start":
            started = time.monotonic()
            kubeconfig = start_detached(options.dir, version=options.version or None)
            print(f"control plane ready after {time.monotonic() - started:.1f} s in {options.dir}", file=sys.stderr)
            print(f"export KUBECONFIG={kubeconfig}")
        elif not stop_detached(options.dir):
            print(f"no control plane in {options.dir}", file=sys.stderr)
    except (BuildError, ControlPlaneError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
