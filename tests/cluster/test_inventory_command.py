"""`tenure inventory` on a real API server, as administrator and as people who may see less."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.cluster import REPOSITORY, Cluster

CANARY = "CANARY-tenure-inventory-value"


def inventory(kubeconfig: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TENURE_")}
    environment |= {"PYTHONPATH": str(REPOSITORY / "operator"), "KUBECONFIG": str(kubeconfig)}
    environment.pop("COLUMNS", None)
    return subprocess.run(
        [sys.executable, "-m", "tenure", "inventory", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def objects(kubeconfig: Path, *arguments: str, status: int = 0) -> dict[str, Any]:
    done = inventory(kubeconfig, *arguments, "-o", "json")
    assert done.returncode == status, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def role(kind: str, name: str, namespace: str, rules: list[tuple[str, str]], user: str) -> list[dict[str, Any]]:
    """A role that lets the user list these (group, resource), and its binding."""
    binding = f"{kind}Binding"
    place = {"namespace": namespace} if kind == "Role" else {}
    api = "rbac.authorization.k8s.io"
    return [
        {
            "apiVersion": f"{api}/v1",
            "kind": kind,
            "metadata": {"name": name, **place},
            "rules": [{"apiGroups": [group], "resources": [plural], "verbs": ["list"]} for group, plural in rules],
        },
        {
            "apiVersion": f"{api}/v1",
            "kind": binding,
            "metadata": {"name": name, **place},
            "roleRef": {"apiGroup": api, "kind": kind, "name": name},
            "subjects": [{"kind": "User", "name": user, "apiGroup": api}],
        },
    ]


@pytest.fixture
def scene(installed: Cluster, namespace: str) -> Iterator[str]:
    """A namespace with a claimed identity, and one that nobody owns with a token and rights."""
    owner = f"team-{namespace}"[:63].rstrip("-")
    apply = installed.apply
    apply({"apiVersion": "tenure.dev/v1alpha1", "kind": "IdentityOwner", "metadata": {"name": owner}, "spec": {}})
    for name in ("invoice-api", "ci"):
        apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}})
    for name, kind, marks, values in (
        ("ci-token", "kubernetes.io/service-account-token", {"kubernetes.io/service-account.name": "ci"}, None),
        ("stripe", "Opaque", {}, {"apiKey": CANARY}),
    ):
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": kind,
            "metadata": {"name": name, "namespace": namespace, "annotations": marks},
        }
        apply({**secret, "stringData": values} if values else secret)
    apply(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "ci-edit", "namespace": namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
            "subjects": [{"kind": "ServiceAccount", "name": "ci", "namespace": namespace}],
        }
    )
    apply(
        {
            "apiVersion": "tenure.dev/v1alpha1",
            "kind": "OwnedIdentity",
            "metadata": {"name": "invoice-api", "namespace": namespace},
            "spec": {"owner": owner, "purpose": "tests", "subjects": {"serviceAccounts": {"names": ["invoice-api"]}}},
        }
    )
    yield namespace
    installed.delete("identityowners", owner)


def named(found: dict[str, Any], name: str) -> dict[str, Any]:
    return next(entry for entry in found["identities"] if entry["name"] == name)


def test_what_an_administrator_sees(installed: Cluster, scene: str) -> None:
    found = objects(installed.kubeconfig, "-n", scene)
    assert found["complete"]
    assert found["unseen"] == []
    assert {entry["name"] for entry in found["identities"]} == {"ci", "default", "invoice-api"}

    api = named(found, "invoice-api")
    assert api["ownership"]["state"] == "declared"
    assert api["ownership"]["why"] == f"claim {scene}/invoice-api, by name"
    assert api["findings"] == []

    ci = named(found, "ci")
    assert ci["ownership"]["state"] == "none"
    assert ci["risk"]["level"] == "High"
    assert [(c["name"], c["type"], c["state"]) for c in ci["credentials"]] == [
        ("ci-token", "ServiceAccountToken", "Usable")
    ]
    assert [f["rule"] for f in ci["credentials"][0]["findings"]] == ["LegacyToken"]
    [entitlement] = ci["entitlements"]
    assert (entitlement["role"]["name"], entitlement["scope"], entitlement["risk"]) == ("edit", "Namespace", "High")
    assert [f["rule"] for f in ci["findings"]] == ["Unowned"]
    assert [(c["name"], c["type"]) for c in found["credentials"]] == [("stripe", "APIKey")]


def test_table_and_csv(installed: Cluster, scene: str) -> None:
    table = inventory(installed.kubeconfig, "-n", scene)
    assert table.returncode == 0, table.stderr
    assert max(map(len, table.stdout.splitlines())) <= 120
    assert "\x1b" not in table.stdout
    for words in ("ci-token", "LegacyToken High", "invoice-api", "declared", "edit High", "stripe"):
        assert words in table.stdout
    rows = list(csv.DictReader(io.StringIO(inventory(installed.kubeconfig, "-n", scene, "-o", "csv").stdout)))
    assert [(row["kind"], row["name"]) for row in rows] == [
        ("ServiceAccount", "ci"),
        ("ServiceAccount", "default"),
        ("ServiceAccount", "invoice-api"),
        ("Secret", "stripe"),
    ]


@pytest.mark.parametrize("output", ["table", "json", "csv"])
def test_no_value_in_any_output(installed: Cluster, scene: str, output: str) -> None:
    done = inventory(installed.kubeconfig, "--platform", "-o", output)
    assert done.returncode == 0, done.stderr
    assert scene in done.stdout
    assert CANARY not in done.stdout + done.stderr


def test_the_platforms_own_are_shown_when_asked_for(installed: Cluster, scene: str) -> None:
    assert {e["namespace"] for e in objects(installed.kubeconfig)["identities"]}.isdisjoint({"kube-system"})
    shown = objects(installed.kubeconfig, "--platform")
    assert {e["class"] for e in shown["identities"] if e["namespace"] == "kube-system"} == {"Platform"}
    assert shown["platformIdentities"] > 0


def test_who_may_see_one_namespace_in_part_is_told_what_is_missing(installed: Cluster, scene: str) -> None:
    user = f"viewer-{scene[-6:]}"
    for made in role("Role", "viewer", scene, [("", "serviceaccounts"), ("", "pods")], user):
        installed.apply(made)
    kubeconfig = installed.user(user)

    found = objects(kubeconfig, "-n", scene, status=1)
    assert not found["complete"]
    assert {entry["name"] for entry in found["identities"]} == {"ci", "default", "invoice-api"}
    ci = named(found, "ci")
    assert ci["ownership"]["state"] == "unknown"
    assert (ci["credentials"], ci["entitlements"]) == (None, None)
    assert ci["risk"]["atLeast"]
    unseen = {(gap["kind"], gap["where"]) for gap in found["unseen"]}
    assert ("Secret", scene) in unseen
    assert ("OwnedIdentity", scene) in unseen
    assert ("ServiceAccount", "other namespaces") in unseen
    assert ("ClusterRoleBinding", "the cluster") in unseen
    assert not any(kind == "Pod" for kind, _ in unseen)

    table = inventory(kubeconfig, "-n", scene)
    assert table.returncode == 1
    assert f"you may not list secrets in {scene}: credentials are missing" in table.stdout
    assert "you may not list clusterroles.rbac.authorization.k8s.io" in table.stdout
    csv_ = inventory(kubeconfig, "-n", scene, "-o", "csv")
    assert csv_.returncode == 1
    assert f"you may not list secrets in {scene}" in csv_.stderr


def test_who_may_see_nothing_gets_no_empty_success(installed: Cluster, scene: str) -> None:
    done = inventory(installed.user(f"nobody-{scene[-6:]}"))
    assert done.returncode == 1
    assert "you may not list serviceaccounts in all namespaces: identities are missing" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("name", ["no-such-namespace", "No/Name"])
def test_no_such_namespace(installed: Cluster, name: str) -> None:
    done = inventory(installed.kubeconfig, "-n", name)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"tenure: there is no namespace {name}.\n"


def changed(kubeconfig: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    config = yaml.safe_load(kubeconfig.read_text())
    change(config)
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path


def test_nobody_answers(installed: Cluster, tmp_path: Path) -> None:
    def elsewhere(config: dict[str, Any]) -> None:
        config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"

    done = inventory(changed(installed.kubeconfig, tmp_path, elsewhere))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("tenure: https://127.0.0.1:1 does not answer")
    assert len(done.stderr.splitlines()) == 1


def test_credentials_that_are_refused(installed: Cluster, tmp_path: Path) -> None:
    def stale(config: dict[str, Any]) -> None:
        config["users"][0]["user"] = {"token": "stale"}

    done = inventory(changed(installed.kubeconfig, tmp_path, stale))
    assert (done.returncode, done.stdout) == (2, "")
    assert "does not accept the credentials" in done.stderr


def test_no_such_context(installed: Cluster) -> None:
    done = inventory(installed.kubeconfig, "--context", "nowhere")
    assert (done.returncode, done.stdout) == (2, "")
    assert "nowhere" in done.stderr


@pytest.mark.local
def test_before_tenure_is_installed_it_shows_what_there_is(fresh_cluster: Callable[..., Cluster]) -> None:
    cluster = fresh_cluster()
    name = cluster.namespace("bare")
    found = objects(cluster.kubeconfig, "-n", name)
    assert found["complete"]
    assert any("Not installed in this cluster" in note for note in found["notes"])
    assert [entry["name"] for entry in found["identities"]] == ["default"]


def test_who_may_impersonate_a_decider_is_named(installed: Cluster, namespace: str) -> None:
    user, name = f"helpdesk-{namespace[-6:]}", f"impersonate-{namespace}"
    api = "rbac.authorization.k8s.io"
    rules = [{"apiGroups": [""], "resources": ["users", "groups"], "verbs": ["impersonate"]}]
    subjects = [{"kind": "User", "name": user, "apiGroup": api}, {"kind": "Group", "name": user, "apiGroup": api}]
    installed.apply({"apiVersion": f"{api}/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules})
    installed.apply(
        {
            "apiVersion": f"{api}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": name},
            "subjects": subjects,
        }
    )
    try:
        found = objects(installed.kubeconfig, "-n", namespace)["impersonators"]
        own = [(one["kind"], one["name"], one["scope"], one["may"]) for one in found if one["name"] == user]
        assert own == [
            ("Group", user, "Cluster", "impersonate users, groups"),
            ("User", user, "Cluster", "impersonate users, groups"),
        ]
        assert ("system:masters", True) in [(one["name"], one["platform"]) for one in found]
        table = inventory(installed.kubeconfig, "-n", namespace)
        assert "May impersonate others, and so decide in their name" in table.stdout
        assert user in table.stdout
        # And they can: admission sees the impersonated user alone.
        assert installed.can(user, "impersonate", "users", name="anybody")
    finally:
        installed.delete("clusterrolebindings", name)
        installed.delete("clusterroles", name)
