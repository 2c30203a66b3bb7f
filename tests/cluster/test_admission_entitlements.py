"""The opt-in right to change bindings, and what holds it: subjects are taken out and put back, and nothing else."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.tenure_objects import OPERATOR, Json
from tests.support.cluster import REPOSITORY, ApiError, Cluster

RBAC = "rbac.authorization.k8s.io"
REMOVED = "tenure.dev/removed-subjects"
ALICE = {"kind": "User", "apiGroup": RBAC, "name": "alice"}


@pytest.fixture(scope="module")
def opted_in(installed: Cluster) -> Iterator[Cluster]:
    installed.install(entitlements=True)
    yield installed
    subprocess.run(
        ["bash", str(REPOSITORY / "deploy" / "install.sh")],
        env={**installed.environment(), "ENTITLEMENTS": "0"},
        check=True,
        capture_output=True,
        timeout=300,
    )
    assert not installed.can(OPERATOR, "bind", "clusterroles", group=RBAC)
    assert installed.get("validatingadmissionpolicies", "tenure-limit-entitlements") is None


@pytest.fixture(scope="module")
def token(opted_in: Cluster) -> str:
    return opted_in.token("tenure-system", "tenure")


def account(namespace: str, name: str = "ci") -> Json:
    return {"kind": "ServiceAccount", "name": name, "namespace": namespace}


@pytest.fixture
def binding(opted_in: Cluster, namespace: str) -> Json:
    """A RoleBinding of `ci` and Alice to `view`."""
    return opted_in.create(manifest(namespace, [account(namespace), ALICE]))


def manifest(namespace: str | None, subjects: list[Json], name: str = "view", **metadata: Any) -> Json:
    if namespace:
        metadata["namespace"] = namespace
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": "RoleBinding" if namespace else "ClusterRoleBinding",
        "metadata": {"name": name, **metadata},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "view"},
        "subjects": subjects,
    }


def write(cluster: Cluster, namespace: str, subjects: list[Json] | None, removed: str | None, **by: Any) -> Json:
    body: Json = {"metadata": {"annotations": {REMOVED: removed}}}
    if subjects is not None:
        body["subjects"] = subjects
    return cluster.patch("rolebindings", "view", body, namespace, **by)


@pytest.mark.usefixtures("binding")
def test_a_subject_is_taken_out_and_put_back(opted_in: Cluster, namespace: str, token: str) -> None:
    form = f"ServiceAccount:{namespace}:ci"
    assert write(opted_in, namespace, [ALICE], form, token=token)["subjects"] == [ALICE]
    back = write(opted_in, namespace, [account(namespace), ALICE], None, token=token)
    assert back["subjects"] == [account(namespace), ALICE]
    assert REMOVED not in back["metadata"].get("annotations", {})


@pytest.mark.usefixtures("binding")
def test_it_is_put_back_without_its_namespace_too(opted_in: Cluster, namespace: str, token: str) -> None:
    bare = {"kind": "ServiceAccount", "name": "ci"}
    write(opted_in, namespace, [ALICE], f"ServiceAccount:{namespace}:ci", token=token)
    assert write(opted_in, namespace, [bare, ALICE], None, token=token)["subjects"] == [bare, ALICE]


@pytest.mark.usefixtures("binding")
def test_a_stolen_token_adds_nobody(opted_in: Cluster, namespace: str, token: str) -> None:
    mallory = {"kind": "User", "apiGroup": RBAC, "name": "mallory"}
    for subjects in (
        [account(namespace), ALICE, mallory],
        [mallory],
        [account(namespace, "other")],
        [account("default")],
        [{"kind": "User", "apiGroup": RBAC, "name": f"system:serviceaccount:{namespace}:ci"}],
        [{"kind": "Group", "apiGroup": RBAC, "name": "alice"}],
    ):
        with pytest.raises(ApiError, match="adds no subject to a binding"):
            write(opted_in, namespace, subjects, None, token=token)
        # Listing it in the same request is too late.
        with pytest.raises(ApiError, match="adds no subject to a binding"):
            write(opted_in, namespace, subjects, "User:mallory", token=token)


@pytest.mark.usefixtures("binding")
def test_the_annotation_lists_what_stood_there(opted_in: Cluster, namespace: str, token: str) -> None:
    for listed in ("User:mallory", f"ServiceAccount:{namespace}:other", "User:alice,User:mallory", "alice"):
        with pytest.raises(ApiError, match="lists only subjects that stood in the binding"):
            write(opted_in, namespace, None, listed, token=token)
    write(opted_in, namespace, [], f"User:alice,ServiceAccount:{namespace}:ci", token=token)
    write(opted_in, namespace, [ALICE], f"ServiceAccount:{namespace}:ci", token=token)
    with pytest.raises(ApiError, match="adds no subject to a binding"):
        write(opted_in, namespace, [ALICE, {**ALICE, "name": "bob"}], None, token=token)


def test_a_comma_in_a_name_makes_no_two(opted_in: Cluster, namespace: str, token: str) -> None:
    odd = {"kind": "User", "apiGroup": RBAC, "name": "a,User:mallory"}
    opted_in.create(manifest(namespace, [odd]))
    with pytest.raises(ApiError, match="lists only subjects that stood in the binding"):
        write(opted_in, namespace, [], "User:a,User:mallory", token=token)


@pytest.mark.usefixtures("binding")
@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"metadata": {"annotations": {"a": "b"}}}, "changes tenure.dev/removed-subjects alone"),
        ({"metadata": {"labels": {"a": "b"}}}, "labels, finalizers or owners"),
        ({"metadata": {"finalizers": ["tenure.dev/restore"]}}, "labels, finalizers or owners"),
        ({"roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "edit"}}, "roleRef"),
    ],
)
def test_nothing_else_of_a_binding(opted_in: Cluster, namespace: str, token: str, change: Json, why: str) -> None:
    with pytest.raises(ApiError, match=why.replace(".", r"\.")):
        opted_in.patch("rolebindings", "view", change, namespace, token=token)


def test_no_binding_is_created(opted_in: Cluster, namespace: str, token: str) -> None:
    with pytest.raises(ApiError, match='cannot create resource "rolebindings"'):
        opted_in.create(manifest(namespace, [ALICE]), token=token)
    for where in (namespace, None):
        made = manifest(where, [ALICE], "tenure-test-created")
        with pytest.raises(ApiError, match="the operator of Tenure creates no binding"):
            opted_in.create(made, user=OPERATOR, groups=["system:masters"])


def test_cluster_role_bindings_are_held_too(opted_in: Cluster, namespace: str, token: str) -> None:
    name = f"tenure-test-{namespace}"[:60]
    opted_in.create(manifest(None, [account(namespace), ALICE], name))
    try:
        taken: Json = {
            "metadata": {"annotations": {REMOVED: f"ServiceAccount:{namespace}:ci"}},
            "subjects": [ALICE],
        }
        opted_in.patch("clusterrolebindings", name, taken, token=token)
        more = {"subjects": [ALICE, account(namespace), account("default")]}
        with pytest.raises(ApiError, match="adds no subject to a binding"):
            opted_in.patch("clusterrolebindings", name, more, token=token)
        opted_in.patch("clusterrolebindings", name, {"subjects": [ALICE, account(namespace)]}, token=token)
    finally:
        opted_in.delete("clusterrolebindings", name)


@pytest.mark.usefixtures("binding")
def test_nobody_else_adds_to_the_annotation(opted_in: Cluster, namespace: str, token: str) -> None:
    for by in ({}, {"user": "root", "groups": ["system:masters"]}):
        with pytest.raises(ApiError, match="only the operator of Tenure adds to the annotation"):
            write(opted_in, namespace, None, "User:mallory", **by)
        with pytest.raises(ApiError, match="only the operator of Tenure adds to the annotation"):
            opted_in.create(manifest(namespace, [ALICE], "annotated", annotations={REMOVED: "User:mallory"}), **by)
    listed = f"ServiceAccount:{namespace}:ci"
    write(opted_in, namespace, [ALICE], listed, token=token)
    with pytest.raises(ApiError, match="only the operator of Tenure adds to the annotation"):
        write(opted_in, namespace, None, f"{listed},User:mallory")
    # Everything else of the binding stays everybody's, the annotation's end included.
    opted_in.patch("rolebindings", "view", {"metadata": {"labels": {"a": "b"}}, "subjects": []}, namespace)
    write(opted_in, namespace, None, None)


def test_without_the_right_it_is_refused_by_rbac(installed: Cluster) -> None:
    """Asked of the file that grants it: nothing else of the installation holds `bind`."""
    role = installed.get("clusterroles", "tenure")
    assert role is not None
    assert not any("bind" in rule["verbs"] for rule in role["rules"])
