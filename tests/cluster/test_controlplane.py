"""The control plane that every other cluster test stands on, tested on itself."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import binary, controlplane
from tests.support.cluster import REPOSITORY, Cluster, eventually
from tests.support.controlplane import COMPONENTS, ControlPlane, ControlPlaneError

pytestmark = [pytest.mark.local, pytest.mark.long]


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    return controlplane._start_ticks(pid) is not None


def pids(control_plane: ControlPlane) -> dict[str, int]:
    found = {component: control_plane.pid(component) for component in COMPONENTS}
    return {component: pid for component, pid in found.items() if pid is not None}


@pytest.fixture(scope="module")
def own() -> Iterator[Cluster]:
    """One for the tests in here that kill parts of it."""
    with Cluster.local() as opened:
        yield opened


@pytest.fixture
def plane(own: Cluster) -> ControlPlane:
    """With all its components, whatever the test before did to them."""
    assert own.control_plane is not None
    for component in COMPONENTS:
        own.control_plane.start_component(component)
    own.control_plane.wait_ready()
    return own.control_plane


# The binary ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return Path(shutil.copytree(binary.SOURCE, tmp_path / "source"))


def test_the_key_of_the_binary_is_that_of_its_content(source: Path) -> None:
    assert binary.content_key(source) == binary.content_key()


@pytest.mark.parametrize("name", ["main.go", "go.mod", "go.sum"])
def test_a_changed_source_changes_the_key(source: Path, name: str) -> None:
    before = binary.content_key(source, go="go1.26.8 linux/amd64")
    with (source / name).open("a") as handle:
        handle.write("\n// changed\n")
    assert binary.content_key(source, go="go1.26.8 linux/amd64") != before


def test_a_new_source_another_toolchain_and_other_flags_change_the_key(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [
        binary.content_key(source, go="go1.26.8 linux/amd64"),
        binary.content_key(source, go="go1.27.0 linux/amd64"),
    ]
    (source / "more.go").write_text("package main\n")
    keys.append(binary.content_key(source, go="go1.26.8 linux/amd64"))
    monkeypatch.setattr(binary, "BUILD_FLAGS", ("-trimpath",))
    keys.append(binary.content_key(source, go="go1.26.8 linux/amd64"))
    assert len(set(keys)) == len(keys)


def test_the_binary_is_cached_outside_the_repository(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert REPOSITORY not in binary.cache_root().parents
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert binary.cache_root() == tmp_path / "tenure" / "controlplane"


# Starting and ending -------------------------------------------------------------------------------------------------


def test_is_a_working_cluster(cluster: Cluster, namespace: str) -> None:
    version = cluster.rest.expect("GET", "/version")
    assert (version["gitVersion"], version["emulationMinor"]) == (binary.KUBERNETES_VERSION, "36")
    assert cluster.get("configmaps", "kube-root-ca.crt", "default")
    assert cluster.token_works(cluster.token(namespace, "default"))


def test_users_have_their_groups_and_no_rights(own: Cluster) -> None:
    kubeconfig = own.user("jane@example.com", ["team-a", "team-b"])
    review = json.loads(own.kubectl("auth", "whoami", "-o", "json", kubeconfig=kubeconfig).stdout)
    assert review["status"]["userInfo"]["username"] == "jane@example.com"
    assert {"team-a", "team-b"} < set(review["status"]["userInfo"]["groups"])
    refused = own.kubectl("get", "secrets", "-A", kubeconfig=kubeconfig, check=False)
    assert "forbidden" in refused.stderr


def test_a_service_account_has_a_kubeconfig(own: Cluster, plane: ControlPlane) -> None:
    kubeconfig = plane.token_kubeconfig("default", "default")
    review = json.loads(own.kubectl("auth", "whoami", "-o", "json", kubeconfig=kubeconfig).stdout)
    assert review["status"]["userInfo"]["username"] == "system:serviceaccount:default:default"


def legacy_token(cluster: Cluster) -> str:
    """A token Secret's token; the Secret always has the same name."""
    cluster.delete("secrets", "token", "default")
    metadata = {
        "name": "token",
        "namespace": "default",
        "annotations": {"kubernetes.io/service-account.name": "default"},
    }
    kind = "kubernetes.io/service-account-token"
    cluster.create({"apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": metadata})
    secret = eventually(
        lambda: (found := cluster.get("secrets", "token", "default")) and "token" in found.get("data", {}) and found
    )
    assert isinstance(secret, dict)
    return base64.b64decode(secret["data"]["token"]).decode()


def test_two_at_once_with_either_signing_key(own: Cluster, fresh_cluster: Callable[..., Cluster]) -> None:
    other = fresh_cluster(signing_key="ecdsa", audit=False)
    assert other.control_plane is not None
    assert own.control_plane is not None
    assert own.control_plane.server != other.control_plane.server
    namespace = own.namespace("here")
    assert own.get("namespaces", namespace)
    assert other.get("namespaces", namespace) is None
    # What the choice of a key is for: an RSA signature is deterministic.
    assert legacy_token(own) == legacy_token(own)
    assert legacy_token(other) != legacy_token(other)


def test_leaves_nothing_behind(tmp_path: Path) -> None:
    for directory in (None, tmp_path / "given"):
        with ControlPlane.start(directory) as control_plane:
            where, processes = control_plane.directory, pids(control_plane)
            assert len(processes) == 3
            assert all(alive(pid) for pid in processes.values())
        assert not where.exists()
        assert not any(alive(pid) for pid in processes.values())
        control_plane.stop()  # a second time is no failure


def test_dies_with_its_supervisor() -> None:
    """Also when that is killed; the next supervisor removes the directory that it could not remove."""
    program = (
        "import sys; from tests.support.controlplane import *\n"
        "plane = ControlPlane.start()\n"
        "print(plane.directory, *(plane.pid(component) for component in COMPONENTS), flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as supervisor:
        assert supervisor.stdout is not None
        directory, *processes = supervisor.stdout.readline().split()
        assert all(alive(int(pid)) for pid in processes)
        supervisor.send_signal(signal.SIGKILL)
    eventually(lambda: not any(alive(int(pid)) for pid in processes))
    shutil.rmtree(controlplane._temporary_directory())
    assert not Path(directory).exists()


def test_a_port_taken_by_somebody_else_is_chosen_again(monkeypatch: pytest.MonkeyPatch) -> None:
    choose, chosen = controlplane.free_ports, 0

    def first_a_taken_one(count: int) -> list[int]:
        nonlocal chosen
        chosen += 1
        ports = choose(count)
        return [*ports[:-1], taken.getsockname()[1]] if chosen == 1 else ports

    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(controlplane, "free_ports", first_a_taken_one)
        with ControlPlane.start() as control_plane:
            assert control_plane.is_ready()
    assert chosen == 2


def test_a_failed_start_says_why_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "here"
    with pytest.raises(ControlPlaneError, match=r"emulates 1\.33"):
        ControlPlane.start(directory, version="1.20")
    monkeypatch.setattr(controlplane, "CONTROLLERS", ("no-such",))
    with pytest.raises(ControlPlaneError, match=r"(?s)kube-controller-manager ended.*no-such"):
        ControlPlane.start(directory)
    assert not directory.exists()


# Killing parts of it -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("component", COMPONENTS)
def test_each_component_can_be_killed_and_started_again(
    own: Cluster, plane: ControlPlane, component: controlplane.Component
) -> None:
    before, server, namespace = pids(plane), plane.server, own.namespace("kept")
    plane.kill(component)
    assert not alive(before[component])
    others = {name: pid for name, pid in before.items() if name != component}
    assert pids(plane) == others, "nothing else was touched"
    if component == "kube-controller-manager":
        assert plane.is_ready()
    else:
        eventually(lambda: not plane.is_ready())
    plane.start_component(component)
    plane.wait_ready()
    after = pids(plane)
    assert after[component] != before[component]
    assert plane.server == server
    assert own.get("namespaces", namespace), "its data is still there"
    # Read, written, and seen by the controllers, which make the ServiceAccount that this waits for:
    eventually(lambda: own.namespace("after"))


def test_components_end_in_order_when_asked_to(plane: ControlPlane) -> None:
    process = plane._processes["kube-apiserver"]
    plane.stop_component("kube-apiserver")
    assert process.returncode == 0, "by itself, not by SIGKILL"
    plane.restart("kube-apiserver")
    assert plane.is_ready()


def test_says_which_component_ended(plane: ControlPlane) -> None:
    pid = plane.pid("etcd")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    try:
        with pytest.raises(ControlPlaneError, match="etcd ended with status -9"):
            plane.wait_ready()
    finally:
        plane.restart("etcd")


# Versions ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "watch_list", "policies"), [("1.33", 422, False), ("1.34", 200, False), ("1.36", 200, True)]
)
def test_emulates_a_version(
    fresh_cluster: Callable[..., Cluster], version: str, watch_list: int, policies: bool
) -> None:
    made = fresh_cluster(version=version, audit=False)
    assert f"1.{made.rest.expect('GET', '/version')['emulationMinor']}" == version
    query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    assert made.request("GET", f"/api/v1/namespaces?{query}&timeoutSeconds=1")[0] == watch_list
    found = made.request("GET", "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies")[0]
    assert found == (200 if policies else 404)


# Audit log -----------------------------------------------------------------------------------------------------------


def configmap(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}}


def test_reads_the_audit_log_as_events(own: Cluster, plane: ControlPlane) -> None:
    own.create(configmap("earlier"))
    position = plane.audit_position()
    own.create(configmap("audited"))
    status, _ = own.request("DELETE", own.path("configmaps", "audited", "default"), user="jane", groups=["team"])
    assert status == 403
    watch = "/api/v1/namespaces?watch=true&timeoutSeconds=1"
    own.request("GET", watch)
    events = plane.audit_events(position)
    seen = [
        (event["verb"], event["objectRef"].get("name"), event["responseStatus"]["code"])
        for event in events
        if event.get("objectRef", {}).get("resource") == "configmaps"
        and event["user"]["username"] == "tenure-test-admin"
        and event["objectRef"].get("namespace") == "default"
    ]
    assert seen == [("create", "audited", 201), ("delete", "audited", 403)]
    [refused] = [event for event in events if event["responseStatus"]["code"] == 403]
    assert refused["impersonatedUser"]["username"] == "jane"
    assert {event["level"] for event in events} == {"Metadata"}
    assert "RequestReceived" not in {event["stage"] for event in events}
    watches = [event["stage"] for event in events if event["requestURI"] == watch]
    assert watches == ["ResponseStarted", "ResponseComplete"]


def test_a_half_written_audit_event_is_left_out(own: Cluster, plane: ControlPlane) -> None:
    position = plane.audit_position()
    own.create(configmap("before-the-half"))
    plane.kill("kube-apiserver")
    try:
        complete = plane.audit_events(position)
        with plane.audit_log.open("ab") as log:
            log.write(b'{"kind":"Event","lev')
        assert plane.audit_events(position) == complete
        assert any(event.get("objectRef", {}).get("name") == "before-the-half" for event in complete)
    finally:
        with plane.audit_log.open("ab") as log:
            log.truncate(log.tell() - len(b'{"kind":"Event","lev'))
        plane.restart("kube-apiserver")


# The seam ------------------------------------------------------------------------------------------------------------


def collect(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What pytest would run on another kind of cluster; nothing is started."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "tests/cluster/test_proxy.py", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_current_context_is_refused_unless_named() -> None:
    refused = collect("--cluster=current")
    assert refused.returncode == pytest.ExitCode.USAGE_ERROR
    assert "--cluster=current also needs --context=NAME" in refused.stderr
    assert collect("--cluster=current", "--context=mine").returncode == 0


def test_an_existing_context_is_a_cluster_too(own: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(own.kubeconfig))
    with pytest.raises(ValueError, match="no-such"):
        Cluster.current("no-such")
    with Cluster.current("tenure-test") as found:
        assert found.control_plane is None
        namespace = found.namespace("current")
        whoami = found.kubectl("auth", "whoami", "-o", "json", kubeconfig=found.user("jane", ["team"]))
        assert json.loads(whoami.stdout)["status"]["userInfo"]["username"] == "jane"
        as_itself = found.token_kubeconfig(namespace, "default")
        whoami = found.kubectl("auth", "whoami", "-o", "json", kubeconfig=as_itself)
        user = f"system:serviceaccount:{namespace}:default"
        assert json.loads(whoami.stdout)["status"]["userInfo"]["username"] == user
    eventually(lambda: own.get("namespaces", namespace) is None)
    assert not as_itself.exists()


# The command ---------------------------------------------------------------------------------------------------------


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.support.controlplane", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_command_starts_one_in_the_background_and_stops_it(tmp_path: Path) -> None:
    directory = tmp_path / "cluster"
    try:
        started = command("start", "--dir", str(directory), "--version", "1.35")
        assert started.returncode == 0, started.stderr
        variable, _, kubeconfig = started.stdout.splitlines()[-1].partition("=")
        assert variable == "export KUBECONFIG"
        with Cluster(Path(kubeconfig)) as found:
            assert found.rest.expect("GET", "/version")["emulationMinor"] == "35"
        state = json.loads((directory / "state.json").read_text())
        processes = [entry["pid"] for entry in state["processes"].values()]
        assert len(processes) == 3

        again = command("start", "--dir", str(directory), "--version", "1.35")
        assert again.stdout == started.stdout, "a running one is used again"
        other = command("start", "--dir", str(directory))
        assert other.returncode == 1
        assert "stop it first" in other.stderr
    finally:
        stopped = command("stop", "--dir", str(directory))
    assert stopped.returncode == 0
    assert not directory.exists()
    assert not any(alive(pid) for pid in processes)
    assert command("stop", "--dir", str(directory)).returncode == 0, "there is none: no failure"


def test_stop_ends_only_what_it_recorded(tmp_path: Path) -> None:
    """A pid that belongs to something else by now is left alone, and so are files that are not the supervisor's."""
    with subprocess.Popen(["sleep", "60"]) as bystander:
        state = {"processes": {"etcd": {"pid": bystander.pid, "started": 1}}, "kubeconfig": "", "version": None}
        (tmp_path / "state.json").write_text(json.dumps(state))
        (tmp_path / "mine.txt").write_text("kept")
        assert controlplane.stop_detached(tmp_path)
        assert bystander.poll() is None
        bystander.kill()
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
