"""Stands in for the kubelet in one namespace: a Pod that a controller made becomes a process of its arguments, with
a token of the Pod's own ServiceAccount and nothing else, and the Pod's status says what became of it.

No container is run. Of volumes, Secrets alone are there: where the environment names a mounted path, it names a
directory with the Secret's files. What a Pod may do through the API is exactly what its ServiceAccount may."""

from __future__ import annotations

import base64
import contextlib
import os
import ssl
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any

from tests.support.cluster import ApiError, Cluster
from tests.support.controlplane import free_ports
from tests.support.rest import STRATEGIC, Json


@dataclass
class _Running:
    process: subprocess.Popen[bytes]
    log: Path
    port: int
    scheme: str
    said: str = ""


def _any_certificate() -> ssl.SSLContext:
    """As a probe, which trusts them all."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


class Kubelet:
    """Runs every Pod of the namespace that has no end yet, until it is closed."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.logs: list[tuple[str, Path]] = []
        """(Pod's name, what it printed), in the order they were started."""
        self._directory = tempfile.TemporaryDirectory(prefix="tenure-kubelet-")
        self._running: dict[str, _Running] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kubelet", daemon=True)

    def log_of(self, prefix: str) -> str:
        """Everything that Pods whose name begins so have printed."""
        return "".join(path.read_text(errors="replace") for name, path in self.logs if name.startswith(prefix))

    def port_of(self, prefix: str) -> int:
        """Where the running Pod whose name begins so serves its metrics. Raises KeyError."""
        for name, path in reversed(self.logs):
            for running in self._running.values():
                if name.startswith(prefix) and running.log == path:
                    return running.port
        raise KeyError(prefix)

    def _run(self) -> None:
        while not self._end.wait(0.1):
            with contextlib.suppress(ApiError):
                pods = {pod["metadata"]["uid"]: pod for pod in self.cluster.list("pods", self.namespace)}
                for uid in self._running.keys() - pods.keys():
                    self._kill(self._running.pop(uid))
                for uid, pod in pods.items():
                    self._attend(uid, pod)

    def _attend(self, uid: str, pod: Json) -> None:
        running, name = self._running.get(uid), pod["metadata"]["name"]
        if running is None:
            if (
                pod.get("status", {}).get("phase", "Pending") == "Pending"
                and "deletionTimestamp" not in pod["metadata"]
            ):
                self._running[uid] = self._start(pod)
            return
        code = running.process.poll()
        ready = code is None and (pod["spec"]["containers"][0].get("readinessProbe") is None or self._is_ready(running))
        phase = "Running" if code is None else "Succeeded" if code == 0 else "Failed"
        said = f"{phase} {ready}"
        if said != running.said:
            conditions = [{"type": kind, "status": str(ready)} for kind in ("Ready", "ContainersReady")]
            status = {"phase": phase, "conditions": conditions}
            with contextlib.suppress(ApiError):
                self.cluster.patch(
                    "pods", name, {"status": status}, self.namespace, subresource="status", content_type=STRATEGIC
                )
                running.said = said

    def _start(self, pod: Json) -> _Running:
        container = pod["spec"]["containers"][0]
        [port] = free_ports(1)
        given = {entry["name"]: entry.get("value", "") for entry in container.get("env", ())}
        if "TENURE_METRICS_ADDRESS" in given:
            given["TENURE_METRICS_ADDRESS"] = f"127.0.0.1:{port}"
        for path, files in self._mounted(pod, container).items():
            given = {name: value.replace(path, str(files)) for name, value in given.items()}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("TENURE_", "KUBE"))}
        kubeconfig = self.cluster.token_kubeconfig(self.namespace, pod["spec"]["serviceAccountName"])
        name = pod["metadata"]["name"]
        log = Path(self._directory.name) / f"{len(self.logs)}-{name}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "tenure", *container.get("args", ())],
                env={**inherited, **given, "PYTHONUNBUFFERED": "1", "KUBECONFIG": str(kubeconfig)},
                cwd=self._directory.name,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        self.logs.append((name, log))
        scheme = container.get("readinessProbe", {}).get("httpGet", {}).get("scheme", "HTTP")
        return _Running(process, log, port, scheme.lower())

    def _mounted(self, pod: Json, container: Json) -> dict[str, Path]:
        """Where the files of each mounted Secret are, by the path that the container sees."""
        secrets = {
            one["name"]: one["secret"]["secretName"] for one in pod["spec"].get("volumes", ()) if "secret" in one
        }
        mounted = {}
        for mount in container.get("volumeMounts", ()):
            if mount["name"] not in secrets:
                continue
            found = self.cluster.get("secrets", secrets[mount["name"]], self.namespace)
            assert found is not None, f"no Secret {secrets[mount['name']]}"
            mounted[mount["mountPath"]] = Path(tempfile.mkdtemp(dir=self._directory.name))
            for name, value in found["data"].items():
                (mounted[mount["mountPath"]] / name).write_bytes(base64.b64decode(value))
        return mounted

    def _is_ready(self, running: _Running) -> bool:
        if running.scheme == "https":
            connection: HTTPConnection = HTTPSConnection(
                "127.0.0.1", running.port, timeout=2, context=_any_certificate()
            )
        else:
            connection = HTTPConnection("127.0.0.1", running.port, timeout=2)
        with contextlib.closing(connection):
            try:
                connection.request("GET", "/readyz")
                return connection.getresponse().status == 200
            except (OSError, HTTPException):
                return False

    @staticmethod
    def _kill(running: _Running) -> None:
        running.process.kill()
        running.process.wait()

    def __enter__(self) -> Kubelet:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._end.set()
        self._thread.join()
        for running in self._running.values():
            self._kill(running)
        self._directory.cleanup()
