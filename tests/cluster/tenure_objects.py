"""Tenure's objects as minimal manifests for the tests of this folder, and who writes them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

from tests.support.cluster import Cluster, eventually

OPERATOR = "system:serviceaccount:tenure-system:tenure"
UID = "6d0f1a2b-0000-4000-8000-000000000000"
API = "tenure.dev/v1alpha1"
OFF = "kubernetes.io/legacy-token-invalid-since"
ACCOUNT = "kubernetes.io/service-account.name"

Json = dict[str, Any]


def thing(kind: str, name: str, spec: Mapping[str, Any], namespace: str | None = None, **metadata: Any) -> Json:
    """An object of one of Tenure's kinds."""
    if namespace is not None:
        metadata["namespace"] = namespace
    return {"apiVersion": API, "kind": kind, "metadata": {"name": name, **metadata}, "spec": dict(spec)}


def owner(name: str, **spec: Any) -> Json:
    return thing("IdentityOwner", name, spec)


def claim(namespace: str, name: str = "claim", owner: str = "payments", **spec: Any) -> Json:
    return thing(
        "OwnedIdentity", name, {"owner": owner, "purpose": "tests", "subjects": {"selector": {}}, **spec}, namespace
    )


def exception(namespace: str, name: str = "exception", **spec: Any) -> Json:
    given = {
        "target": {"kind": "Secret", "name": "ci-token"},
        "rules": ["LegacyToken"],
        "class": "Migration",
        "owner": "payments",
        "justification": "tests",
        "expiresAt": "2027-01-31T00:00:00Z",
    }
    return thing("IdentityException", name, {**given, **spec}, namespace)


def decision(namespace: str, name: str = "decision", **spec: Any) -> Json:
    given = {
        "target": {"kind": "IdentityException", "name": "exception", "uid": UID, "generation": 1},
        "verdict": "Approve",
        "reason": "tests",
    }
    return thing("IdentityDecision", name, {**given, **spec}, namespace)


def finding(namespace: str, name: str = "unowned-0", **spec: Any) -> Json:
    subject = {"apiVersion": "v1", "kind": "ServiceAccount", "namespace": namespace, "name": "ci", "uid": UID}
    return thing("IdentityFinding", name, {"rule": "Unowned", "subject": subject, **spec}, namespace)


def quarantine(namespace: str, name: str = "serviceaccount-ci", *, finalizer: bool = True, **spec: Any) -> Json:
    given = {"subject": {"kind": "ServiceAccount", "name": "ci", "uid": UID}, "stages": ["Guard"]}
    finalizers = ["tenure.dev/restore"] if finalizer else []
    return thing("Quarantine", name, {**given, **spec}, namespace, finalizers=finalizers)


def policy(name: str, **spec: Any) -> Json:
    return thing("GovernancePolicy", name, spec)


def guard(namespace: str, **maps: Mapping[str, Any]) -> Json:
    return thing("QuarantineGuard", "guard", maps, namespace)


def entry(quarantine: str, **more: str) -> Json:
    """A guard's entry: who is asked, and what is released."""
    return {"quarantine": quarantine, "owner": "payments", "contact": "payments@example.com", **more}


def grant(
    cluster: Cluster,
    namespace: str,
    user: str,
    verbs: list[str],
    resources: list[str],
    *,
    names: list[str] | None = None,
    groups: tuple[str, ...] = ("tenure.dev",),
) -> None:
    """A Role and a RoleBinding that give `user` those verbs in the namespace; returns once the API server knows."""
    name = f"{user.replace(':', '-')}-{verbs[0]}-{resources[0].replace('/', '-').replace('*', 'all')}".replace(
        "*", "any"
    )
    rule: Json = {"apiGroups": list(groups), "resources": resources, "verbs": verbs}
    if names:
        rule["resourceNames"] = names
    metadata = {"name": name, "namespace": namespace}
    rbac = "rbac.authorization.k8s.io"
    cluster.apply({"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": metadata, "rules": [rule]})
    cluster.apply(
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": name},
            "subjects": [{"kind": "User", "apiGroup": rbac, "name": user}],
        }
    )
    for group, verb, resource, named in itertools.product(groups, verbs, resources, names or [""]):
        eventually(_known(cluster, namespace, user, group, verb, resource, named), what=f"{user} may {verb} {named}")


def _known(
    cluster: Cluster, namespace: str, user: str, group: str, verb: str, resource: str, name: str
) -> Callable[[], bool]:
    plural, _, subresource = resource.partition("/")
    return lambda: cluster.can(user, verb, plural, group=group, namespace=namespace, name=name, subresource=subresource)


def service_account(cluster: Cluster, namespace: str, name: str = "ci") -> Json:
    return cluster.create(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}
    )


def token_secret(namespace: str, name: str, account: str, **metadata: Any) -> Json:
    """A service-account-token Secret, which the token controller fills."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/service-account-token",
        "metadata": {"name": name, "namespace": namespace, "annotations": {ACCOUNT: account}, **metadata},
    }


def pod(namespace: str, name: str, account: str = "ci") -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"serviceAccountName": account, "containers": [{"name": "main", "image": "registry.example/none"}]},
    }
