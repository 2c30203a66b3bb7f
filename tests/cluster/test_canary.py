"""Values of Secrets that are planted, and looked for everywhere the operator leaves something.

Two kinds. Some stand in `data` alone: the operator never asks for them, so they are not even in its memory, all of
which is searched. The others were also applied by `kubectl apply`, which copies them into an annotation that the API
server sends with the metadata: of these nothing is written anywhere, and no object of the running program holds one
(what the allocator has freed may still hold them, as SECURITY.md says).
"""

from __future__ import annotations

import base64
import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.cluster import REPOSITORY, Cluster, eventually
from tests.support.ground import Ground, ground
from tests.support.memory import Walked, scan
from tests.support.rest import Json
from tests.support.scenario import (
    HOME,
    claim,
    deadline,
    finding_of,
    identity,
    phase_of,
    policy,
    quarantine_of,
    token_of,
    token_secret,
)

pytestmark = [pytest.mark.local, pytest.mark.long]

LONG = 60.0  # seconds
KINDS = (
    "identityowners",
    "ownedidentities",
    "identityexceptions",
    "identitydecisions",
    "identityfindings",
    "quarantines",
    "quarantineguards",
    "governancepolicies",
)


@dataclass
class Canaries:
    """Planted values by name, each as it is and in base64."""

    in_data: dict[str, bytes] = field(default_factory=dict)
    in_annotations: dict[str, bytes] = field(default_factory=dict)

    def value(self, name: str, *, annotated: bool = False) -> str:
        """A new value, to be looked for under that name."""
        value = f"canary-{secrets.token_hex(16)}"
        self.plant(name, value, annotated=annotated)
        return value

    def plant(self, name: str, value: str, *, annotated: bool = False) -> None:
        into = self.in_annotations if annotated else self.in_data
        into[name] = value.encode()
        into[f"{name}, base64"] = base64.b64encode(value.encode()).rstrip(b"=")

    @property
    def all(self) -> dict[str, bytes]:
        return {**self.in_data, **self.in_annotations}


@dataclass
class Scene:
    """A ground on which everything has happened."""

    ground: Ground
    canaries: Canaries
    marker: str
    namespaces: dict[str, str]

    def find(self, text: str | bytes, where: str) -> list[str]:
        """Which canaries stand in a text."""
        raw = text.encode() if isinstance(text, str) else text
        return [f"{name} in {where}" for name, needle in self.canaries.all.items() if needle in raw]


def applied(scene: Scene, manifest: Json) -> None:
    """Client-side `kubectl apply`, which puts the whole manifest into an annotation."""
    scene.ground.cluster.kubectl("apply", "-f", "-", input=manifest)


def opaque(namespace: str, name: str, value: str) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "stringData": {"password": value},
    }


def planted(cluster: Cluster, path: str) -> str:
    """A namespace in which deadlines pass and nothing is acted on yet."""
    return cluster.namespace(path, labels={"path": path, "planting": "yes"})


def govern(cluster: Cluster, namespace: str) -> None:
    """Lets what is due there be acted on."""
    cluster.patch("namespaces", namespace, {"metadata": {"labels": {"planting": None}}})


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Quarantine, revocation and release of identities whose Secrets are full of canaries; the operator runs on."""
    with ground(tmp_path_factory.mktemp("operator"), arguments=("--log-level", "debug")) as made:
        cluster = made.cluster
        later = deadline("LegacyToken", "CredentialTooOld", within="90d", action="Nothing")
        # What is revoked is no subject any more: of the few that are left, all acts of an hour would be more than all.
        free = {"maxActions": 1000, "maxPercentPerNamespace": 100, "window": "1s"}
        entry = deadline("Unowned", revoke_after="3s")
        cluster.create(policy("revoked", entry, later, labels={"path": "revoked"}, blastRadius=free))
        cluster.create(policy("claimed", deadline("Unowned"), later, labels={"path": "claimed"}))
        # A quarantined identity gets no further token: nothing is acted on before all is planted.
        planting = policy(
            "planting", deadline("Unowned"), later, labels={"planting": "yes"}, precedence=1, suspend=True
        )
        cluster.create(planting)
        marker = f"marker-{secrets.token_hex(8)}"
        namespaces = {path: planted(cluster, path) for path in ("revoked", "claimed")}
        scene = Scene(made, Canaries(), marker, namespaces)
        canaries = scene.canaries
        for path, namespace in namespaces.items():
            identity(cluster, namespace, marker)
            for number in (1, 2):
                data = {"extra": canaries.value(f"{path} token {number}, extra")}
                cluster.create(token_secret(namespace, f"token-{number}", marker, data=data))
                canaries.plant(f"{path} token {number}", token_of(cluster, namespace, f"token-{number}"))
            cluster.create(opaque(namespace, "plain", canaries.value(f"{path} password")))
            basic = {"username": "ci", "password": canaries.value(f"{path} basic-auth")}
            cluster.create({**opaque(namespace, "basic", ""), "type": "kubernetes.io/basic-auth", "stringData": basic})
            for change in ("first", "second"):
                value = canaries.value(f"{path} applied, {change}", annotated=True)
                applied(scene, opaque(namespace, "applied", value))
                extra = {"extra": canaries.value(f"{path} applied token, {change}", annotated=True)}
                applied(scene, token_secret(namespace, "applied-token", marker, data=extra))
            kept = cluster.get("secrets", "applied-token", namespace)
            assert kept is not None
            assert extra["extra"] in json.dumps(kept["metadata"]["annotations"]), "kubectl no longer does this"
        for namespace in namespaces.values():
            govern(cluster, namespace)
            eventually(lambda: phase_of(cluster, namespace, "Unowned", marker) == "Quarantined", LONG)  # noqa: B023
            cluster.patch("secrets", "plain", {"stringData": {"password": canaries.value("rotated")}}, namespace)
            cluster.patch("secrets", "applied", {"metadata": {"labels": {"touched": "yes"}}}, namespace)

        def revoked() -> bool:
            place = namespaces["revoked"]
            held = quarantine_of(cluster, place, marker)
            return held is None and cluster.get("serviceaccounts", marker, place) is None

        eventually(revoked, LONG, what="revoked")
        cluster.create(claim(namespaces["claimed"], "team"), user="carla")
        eventually(lambda: not cluster.list("quarantines", namespaces["claimed"]), LONG, what="released")
        made.settle()
        yield scene
        print(made.operator.log_tail(40))


def test_no_canary_is_in_what_the_operator_writes(scene: Scene) -> None:
    cluster, found = scene.ground.cluster, list[str]()
    logs = scene.ground.operator.logs()
    assert scene.marker in logs
    found += scene.find(logs, "the log")
    found += scene.find(scene.ground.operator.metrics_text(), "/metrics")
    events = cluster.list("events")
    assert any(event["involvedObject"].get("name") == scene.marker for event in events)
    found += scene.find(json.dumps(events), "Events")
    for kind in KINDS:
        found += scene.find(json.dumps(cluster.list(kind)), kind)
    state = cluster.get("configmaps", "tenure-state", HOME)
    assert state is not None
    found += scene.find(json.dumps(state), "the ConfigMap")
    assert not found


@pytest.mark.parametrize("output", ["table", "json", "csv"])
def test_no_canary_is_in_the_inventory_command(scene: Scene, output: str) -> None:
    program = Path(sys.executable).with_name("tenure")
    done = subprocess.run(
        [str(program), "inventory", "--output", output],
        env=scene.ground.cluster.environment(),
        cwd=REPOSITORY,
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    # The table shows what asks for attention; what is settled stands in the other two.
    assert output == "table" or scene.marker.encode() in done.stdout
    assert not scene.find(done.stdout + done.stderr, f"tenure inventory -o {output}")


def test_no_canary_that_only_stood_in_data_is_in_the_operator_s_memory(scene: Scene) -> None:
    needles = {"marker": scene.marker.encode(), **scene.canaries.all}
    try:
        counts = scan(scene.ground.operator.pid, needles)
    except PermissionError as error:
        pytest.skip(f"this kernel lets nobody look into a process: {error}")
    assert counts["marker"] > 0, "the scan finds what is there"
    assert counts[""] > 50 << 20, "all of it was read"
    present = {name: counts[name] for name in scene.canaries.in_data if counts[name]}
    freed = sum(bool(counts[name]) for name in scene.canaries.in_annotations)
    read, values = counts[""] >> 20, len(scene.canaries.in_data)
    print(f"\n{read} MiB read: the marker {counts['marker']} times, none of {values} values that stood in data alone")
    print(f"{freed} of {len(scene.canaries.in_annotations)} values that stood in an annotation, in freed memory")
    assert not present


def test_no_canary_that_stood_in_an_annotation_is_in_an_object_that_lives(scene: Scene) -> None:
    """The same program, in a process that walks its own objects; nothing but freed memory may hold a canary."""
    cluster = scene.ground.cluster
    scene.ground.operator.stop()  # one at a time
    try:
        with Walked(cluster.token_kubeconfig(HOME, "tenure", server=scene.ground.proxy.url)) as operator:
            namespace = planted(cluster, "claimed")
            identity(cluster, namespace, scene.marker)
            for change in ("first", "second"):
                extra = {"extra": scene.canaries.value(f"walk, {change}", annotated=True)}
                applied(scene, token_secret(namespace, "applied-token", scene.marker, data=extra))
            govern(cluster, namespace)
            eventually(lambda: phase_of(cluster, namespace, "Unowned", scene.marker) == "Quarantined", LONG)
            resting = operator.walk({"marker": scene.marker.encode(), **scene.canaries.all})
            # The last event of a watch is the one whose pieces might be kept.
            other = planted(cluster, "claimed")
            identity(cluster, other, scene.marker)
            tokens = {"token": scene.canaries.value("walk, last", annotated=True)}
            applied(scene, token_secret(other, "last", scene.marker, data=tokens))
            eventually(lambda: finding_of(cluster, other, "LegacyToken", "last") is not None, LONG)
            after = operator.walk({"marker": scene.marker.encode(), **scene.canaries.all})
            cluster.delete("secrets", "last", other)
            eventually(lambda: phase_of(cluster, other, "LegacyToken", "last") == "Resolved", LONG)
            deleted = operator.walk({"marker": scene.marker.encode(), **scene.canaries.all})
        for answer in (resting, after, deleted):
            assert int(answer[""][0]) > 100_000
            assert answer["marker"], "the walk finds what is there"
            held = {name: chains[:3] for name, chains in answer.items() if name in scene.canaries.all and chains}
            assert not held
        print(f"\n{after[''][0]} objects; the marker is in {len(after['marker'])}, no canary in any")
    finally:
        scene.ground.operator.start().wait_ready()
