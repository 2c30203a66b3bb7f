"""What holds the operator itself: of a Secret one label, and of Tenure's own kinds only those it writes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster.tenure_objects import (
    OFF,
    OPERATOR,
    Json,
    claim,
    exception,
    finding,
    guard,
    owner,
    policy,
    quarantine,
    service_account,
    token_secret,
)
from tests.support.cluster import JSON_PATCH, ApiError, Cluster, eventually


@pytest.fixture(scope="module")
def token(installed: Cluster) -> str:
    """The operator's own token: RBAC and admission both judge it."""
    return installed.token("tenure-system", "tenure")


@pytest.fixture
def secret(installed: Cluster, namespace: str) -> Json:
    """A token Secret that the token controller has filled."""
    service_account(installed, namespace)
    installed.create(token_secret(namespace, "ci-token", "ci", labels={"app": "ci"}))

    def filled() -> Json | None:
        found = installed.get("secrets", "ci-token", namespace)
        return found if found and "token" in found.get("data", {}) else None

    found = eventually(filled, what="token")
    assert found is not None
    return found


def test_the_label_that_switches_a_token_off_and_on(
    installed: Cluster, namespace: str, secret: Json, token: str
) -> None:
    for value in ("2026-12-04", None):
        body = {"metadata": {"labels": {OFF: value}, "uid": secret["metadata"]["uid"]}}
        changed = installed.patch("secrets", "ci-token", body, namespace, token=token)
        assert changed["metadata"]["labels"].get(OFF) == value
        assert changed["metadata"]["labels"]["app"] == "ci"


def test_by_server_side_apply_too(installed: Cluster, namespace: str, secret: Json, token: str) -> None:
    manifest = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "ci-token", "namespace": namespace, "labels": {OFF: "2026-12-04"}},
    }
    assert installed.apply(manifest, manager="tenure", token=token)["metadata"]["labels"][OFF] == "2026-12-04"
    del manifest["metadata"]["labels"]  # type: ignore[attr-defined]
    assert OFF not in installed.apply(manifest, manager="tenure", token=token)["metadata"]["labels"]


CHANGES: dict[str, tuple[Json, str]] = {
    "a value": ({"data": {"token": "eA=="}}, "never changes a Secret's data"),
    "a value in clear": ({"stringData": {"token": "x"}}, "never changes a Secret's data"),
    "another key": ({"data": {"more": "eA=="}}, "never changes a Secret's data"),
    "no data": ({"data": None}, "never changes a Secret's data"),
    "immutability": ({"immutable": True}, "type or immutability"),
    "an annotation": ({"metadata": {"annotations": {"a": "b"}}}, "annotations, finalizers or owners"),
    "the account": (
        {"metadata": {"annotations": {"kubernetes.io/service-account.name": "default"}}},
        "annotations, finalizers or owners",
    ),
    "a finalizer": ({"metadata": {"finalizers": ["tenure.dev/restore"]}}, "annotations, finalizers or owners"),
    "an owner": (
        {"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": "6d0f1a2b"}]}},
        "annotations, finalizers or owners",
    ),
    "another label": ({"metadata": {"labels": {"b": "c"}}}, "kubernetes.io/legacy-token-invalid-since alone"),
    "another label's value": ({"metadata": {"labels": {"app": "x"}}}, "kubernetes.io/legacy-token-invalid-since alone"),
    "another label's end": ({"metadata": {"labels": {"app": None}}}, "kubernetes.io/legacy-token-invalid-since alone"),
    "the right label with more": (
        {"metadata": {"labels": {OFF: "2026-12-04", "app": "x"}}},
        "kubernetes.io/legacy-token-invalid-since alone",
    ),
}


@pytest.mark.parametrize(("change", "why"), CHANGES.values(), ids=CHANGES)
def test_nothing_else_of_a_secret(
    installed: Cluster, namespace: str, secret: Json, token: str, change: Json, why: str
) -> None:
    with pytest.raises(ApiError, match=why) as refused:
        installed.patch("secrets", "ci-token", change, namespace, token=token)
    assert refused.value.status == 403
    assert installed.get("secrets", "ci-token", namespace) == secret


def test_nothing_of_a_secret_without_labels_and_data(installed: Cluster, namespace: str, token: str) -> None:
    installed.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "bare", "namespace": namespace}})
    with pytest.raises(ApiError, match="never changes a Secret's data"):
        installed.patch("secrets", "bare", {"data": {"a": "eA=="}}, namespace, token=token)
    changed = installed.patch("secrets", "bare", {"metadata": {"labels": {OFF: "x"}}}, namespace, token=token)
    assert changed["metadata"]["labels"] == {OFF: "x"}
    changed = installed.patch(
        "secrets",
        "bare",
        [{"op": "remove", "path": "/metadata/labels"}],
        namespace,
        content_type=JSON_PATCH,
        token=token,
    )
    assert "labels" not in changed["metadata"]


def test_no_secret_is_created(installed: Cluster, namespace: str, token: str) -> None:
    """RBAC says it first; were the right ever granted, admission would."""
    made = token_secret(namespace, "second", "default")
    with pytest.raises(ApiError, match='cannot create resource "secrets"'):
        installed.create(made, token=token)
    with pytest.raises(ApiError, match="creates no Secret"):
        installed.create(made, user=OPERATOR, groups=["system:masters"])


def test_it_deletes_a_secret_by_uid(installed: Cluster, namespace: str, secret: Json, token: str) -> None:
    def options(uid: str) -> Json:
        return {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}}

    with pytest.raises(ApiError) as refused:
        installed.delete("secrets", "ci-token", namespace, options("another"), token=token)
    assert refused.value.status == 409
    installed.delete("secrets", "ci-token", namespace, options(secret["metadata"]["uid"]), token=token)
    assert installed.get("secrets", "ci-token", namespace) is None


def test_everybody_else_changes_secrets_as_before(installed: Cluster, namespace: str, secret: Json) -> None:
    installed.patch("secrets", "ci-token", {"metadata": {"annotations": {"a": "b"}}}, namespace)
    installed.patch("secrets", "ci-token", {"data": {"more": "eA=="}}, namespace)


def test_it_writes_what_is_its_own(installed: Cluster, namespace: str, token: str) -> None:
    for resource, manifest in (
        ("identityfindings", finding(namespace)),
        ("quarantines", quarantine(namespace)),
        ("quarantineguards", guard(namespace, secrets={})),
    ):
        name = manifest["metadata"]["name"]
        installed.apply(manifest, manager="tenure", token=token)
        installed.patch(resource, name, {"metadata": {"labels": {"a": "b"}}}, namespace, token=token)
    stamp = {"status": {"lastAttempt": "2026-12-04T09:12:00Z"}}
    installed.patch("quarantines", "serviceaccount-ci", stamp, namespace, subresource="status", token=token)
    installed.patch("quarantines", "serviceaccount-ci", {"metadata": {"finalizers": None}}, namespace, token=token)
    for resource, name in (
        ("identityfindings", "unowned-0"),
        ("quarantines", "serviceaccount-ci"),
        ("quarantineguards", "guard"),
    ):
        installed.delete(resource, name, namespace, token=token)
        assert installed.get(resource, name, namespace) is None


def test_it_answers_in_the_status_of_what_people_write_and_no_more(
    installed: Cluster, namespace: str, token: str
) -> None:
    cluster_wide = [("identityowners", owner("status-of-owner")), ("governancepolicies", policy("status-of-policy"))]
    for resource, manifest in [
        *cluster_wide,
        ("ownedidentities", claim(namespace)),
        ("identityexceptions", exception(namespace)),
    ]:
        name, where = manifest["metadata"]["name"], manifest["metadata"].get("namespace")
        installed.create(manifest)
        body: dict[str, Any] = {"status": {"observedGeneration": 1}}
        patched = installed.patch(resource, name, body, where, subresource="status", token=token)
        assert patched["status"]["observedGeneration"] == 1
        with pytest.raises(ApiError, match=f'cannot patch resource "{resource}"'):
            installed.patch(resource, name, {"metadata": {"labels": {"a": "b"}}}, where, token=token)
        with pytest.raises(ApiError, match=f'cannot delete resource "{resource}"'):
            installed.delete(resource, name, where, token=token)
        installed.delete(resource, name, where)


def test_its_state_is_one_config_map(installed: Cluster, namespace: str, token: str) -> None:
    def config_map(name: str, where: str) -> Json:
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": where}}

    installed.apply(config_map("tenure-state", "tenure-system"), manager="tenure", token=token)
    assert installed.get("configmaps", "tenure-state", "tenure-system", token=token) is not None
    for name, where in (("tenure-state", namespace), ("another", "tenure-system")):
        with pytest.raises(ApiError, match='cannot patch resource "configmaps"'):
            installed.apply(config_map(name, where), manager="tenure", token=token)


def test_its_pods_and_tokens_are_dry_runs(installed: Cluster, token: str) -> None:
    """On which it proves its guards. Whoever steals its token runs nothing with it."""
    allowed = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "stolen", "namespace": "tenure-system"},
        "spec": {
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "main", "image": "registry.example/none", "securityContext": allowed}],
        },
    }
    with pytest.raises(ApiError, match="creates pods and tokens in dry runs alone"):
        installed.create(pod, token=token)
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    path = installed.path("serviceaccounts", "tenure-proof", "tenure-system", "token")
    status, answer = installed.request("POST", path, request, token=token)
    assert status == 403  # by one of the two: where an operator was here before, the guard names the account
    assert "creates pods and tokens in dry runs alone" in answer["message"] or "is quarantined" in answer["message"]


RIGHTS: dict[str, list[tuple[str, str]]] = {
    "get list watch": [
        *(("", name) for name in ("serviceaccounts", "secrets", "pods", "namespaces")),
        *(
            ("rbac.authorization.k8s.io", name)
            for name in ("roles", "rolebindings", "clusterroles", "clusterrolebindings")
        ),
        *(
            ("tenure.dev", name)
            for name in (
                "identityowners",
                "ownedidentities",
                "identityexceptions",
                "identitydecisions",
                "governancepolicies",
                "identityfindings",
                "quarantines",
                "quarantineguards",
            )
        ),
    ],
    "patch delete": [("", "secrets"), ("tenure.dev", "identityfindings"), ("tenure.dev", "quarantines")],
    "delete": [("", "serviceaccounts"), ("tenure.dev", "identitydecisions")],
    "create": [("", "events"), ("events.k8s.io", "events"), ("tenure.dev", "quarantineguards")],
}
NO_RIGHTS = [
    ("create", "", "secrets"),
    ("update", "", "secrets"),
    ("create", "", "serviceaccounts/token"),
    ("impersonate", "", "serviceaccounts"),
    ("patch", "rbac.authorization.k8s.io", "rolebindings"),
    ("bind", "rbac.authorization.k8s.io", "clusterroles"),
    ("create", "", "serviceaccounts"),
    ("patch", "", "serviceaccounts"),
    ("create", "", "pods"),
    ("delete", "", "pods"),
    ("patch", "", "namespaces"),
    ("get", "", "configmaps"),
    ("create", "tenure.dev", "identitydecisions"),
    ("patch", "tenure.dev", "identitydecisions"),
    ("release", "tenure.dev", "quarantines"),
    ("claim", "tenure.dev", "identityowners"),
    ("patch", "admissionregistration.k8s.io", "validatingadmissionpolicies"),
]


def test_rights_verb_by_verb(installed: Cluster) -> None:
    groups = ["system:serviceaccounts", "system:serviceaccounts:tenure-system", "system:authenticated"]

    def may(verb: str, group: str, resource: str) -> bool:
        name, _, subresource = resource.partition("/")
        return installed.can(OPERATOR, verb, name, group=group, subresource=subresource, namespace="x", groups=groups)

    for verbs, resources in RIGHTS.items():
        for verb in verbs.split():
            for group, resource in resources:
                assert may(verb, group, resource), f"{verb} {resource}.{group}"
    for verb, group, resource in NO_RIGHTS:
        assert not may(verb, group, resource), f"{verb} {resource}.{group}"
