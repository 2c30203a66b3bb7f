"""What the benchmark's cluster holds, as manifests: pure, deterministic, and in the proportions of the contract.

A namespace is one team's: ten applications with five ServiceAccounts each. Of twenty namespaces sixteen are claimed
application by application, three belong to an owner by their label, and one belongs to nobody. Every application has
one legacy token. So the findings are those of an installation that is well under way: few identities without an
owner, many tokens that somebody still has to replace.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

Json = dict[str, Any]

NAMESPACES: Final = 40
"""Per unit of scale; everything below is per namespace, so that scale 1 has 2,000 ServiceAccounts and so on."""
APPLICATIONS: Final = 10
ACCOUNTS: Final = 50
SECRETS: Final = 150
ROLE_BINDINGS: Final = 22
CLUSTER_ROLE_BINDINGS: Final = 3
BOUND: Final = (
    ("Role", "read-configuration"),
    ("Role", "lead"),
    ("ClusterRole", "view"),
    ("Role", "read-credentials"),
)
LAST_BOUND: Final = ("ClusterRole", "edit")
STATUS: Final = ("ClusterRole", "scale-status")
"""Roles: what RoleBindings bind in turn, what the last of them does, and what ClusterRoleBindings bind."""
PODS: Final = 75

API: Final = "tenure.dev/v1alpha1"
RBAC: Final = "rbac.authorization.k8s.io"
APPLICATION: Final = "app.kubernetes.io/name"
CHANGES: Final = "scale-changes"
"""A namespace without owner or claim, for the objects whose findings are waited for."""
GUARDED: Final = "scale-guarded"
OPEN: Final = "scale-open"
"""Two namespaces that differ in their QuarantineGuard alone."""

SECRET_KINDS: Final = (
    "token",
    *["password"] * 4,
    *["tls"] * 4,
    "registry",
    *["plain"] * 4,
    "helm",
)
"""The Secrets of one application."""
CREDENTIALS: Final = frozenset({"password", "tls", "registry"})
"""Those that are credentials of no ServiceAccount: without an owner each is a finding."""


@dataclass(frozen=True, slots=True)
class Wave:
    """Objects that may be created in any order, once those of the earlier waves exist."""

    what: str
    objects: Iterator[tuple[str, Json]]
    """(path of the collection, manifest)"""


def waves(scale: int) -> Iterator[Wave]:
    """Everything, in the order in which it can be created."""
    names = namespaces(scale)
    yield Wave("namespaces, owners, roles", _first(scale, names))
    yield Wave("service accounts", (found for name in names for found in _accounts(name)))
    yield Wave("everything else", (found for name in names for found in _rest(name, _team(name, scale))))


def namespaces(scale: int) -> list[str]:
    return [f"team-{number:03d}" for number in range(NAMESPACES * scale)]


def owned(namespace: str) -> str:
    """How a namespace is owned: "claims", "label" or ""."""
    place = int(namespace.rpartition("-")[2]) % 20
    return "" if place == 0 else "label" if place <= 3 else "claims"


def counts(scale: int) -> dict[str, int]:
    """How many objects of each kind the contract counts."""
    per = NAMESPACES * scale
    return {
        "ServiceAccounts": ACCOUNTS * per,
        "Secrets": SECRETS * per,
        "bindings": (ROLE_BINDINGS + CLUSTER_ROLE_BINDINGS) * per,
        "Pods": PODS * per,
    }


def findings(scale: int) -> int:
    """How many findings the rules must come to."""
    tokens = APPLICATIONS * NAMESPACES * scale
    unowned = sum(not owned(name) for name in namespaces(scale))
    credentials = APPLICATIONS * sum(kind in CREDENTIALS for kind in SECRET_KINDS)
    unclaimed = sum(owned(name) != "claims" for name in namespaces(scale))
    undeclared = unclaimed * (ROLE_BINDINGS + CLUSTER_ROLE_BINDINGS)
    return tokens + unowned * (ACCOUNTS + credentials) + undeclared


# --- first


def _first(scale: int, names: list[str]) -> Iterator[tuple[str, Json]]:
    for name in names:
        team = _team(name, scale)
        labels = {"team": team} | ({"tenure.dev/owner": team} if owned(name) == "label" else {})
        yield "/api/v1/namespaces", _namespace(name, **labels)
    for name in (CHANGES, GUARDED, OPEN):
        yield "/api/v1/namespaces", _namespace(name)
    for number in range(_teams(scale)):
        yield f"/apis/{API}/identityowners", _owner(f"team-{number}")
    yield f"/apis/{API}/identityowners", _owner("platform", escalates=False)
    yield f"/apis/{API}/governancepolicies", _policy()
    cluster_role: Json = {
        "apiVersion": f"{RBAC}/v1",
        "kind": "ClusterRole",
        "metadata": {"name": STATUS[1]},
        "rules": [{"apiGroups": [""], "resources": ["nodes", "namespaces"], "verbs": ["get", "list", "watch"]}],
    }
    yield f"/apis/{RBAC}/v1/clusterroles", cluster_role


def _teams(scale: int) -> int:
    return 10 + 10 * scale


def _team(namespace: str, scale: int) -> str:
    return f"team-{int(namespace.rpartition('-')[2]) % _teams(scale)}"


def _namespace(name: str, **labels: str) -> Json:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def _owner(name: str, *, escalates: bool = True) -> Json:
    spec: Json = {
        "displayName": name.capitalize(),
        "contacts": [{"type": "Email", "value": f"{name}@example.com"}],
        "groups": [name],
    }
    if escalates:
        spec |= {"backup": "platform", "escalation": [{"after": "50%", "to": "platform"}]}
    return {"apiVersion": API, "kind": "IdentityOwner", "metadata": {"name": name}, "spec": spec}


def _policy() -> Json:
    """Audit everywhere: nothing is acted on. Accepted risks need no approval, so that there are active exceptions."""
    spec: Json = {
        "deadlines": [
            {"rules": ["Unowned"], "risks": ["High", "Critical"], "decideWithin": "72h", "onDeadline": "Quarantine"},
            {"rules": ["LegacyToken"], "decideWithin": "30d", "onDeadline": "Quarantine"},
            {"decideWithin": "30d", "onDeadline": "Nothing"},
        ],
        "exceptions": {"classes": [{"class": "AcceptedRisk", "maxDuration": "90d", "approvals": []}]},
    }
    return {"apiVersion": API, "kind": "GovernancePolicy", "metadata": {"name": "default"}, "spec": spec}


# --- service accounts


def _accounts(namespace: str) -> Iterator[tuple[str, Json]]:
    for number in range(ACCOUNTS):
        metadata = _metadata(namespace, account(number), number % APPLICATIONS)
        yield (
            f"/api/v1/namespaces/{namespace}/serviceaccounts",
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        )


def account(number: int) -> str:
    """The name of a namespace's ServiceAccount; its application is `number` modulo ten."""
    return f"app-{number % APPLICATIONS}-{('api', 'worker', 'cron', 'migrate', 'proxy')[number // APPLICATIONS]}"


def unowned(name: str) -> Json:
    """A ServiceAccount whose finding is waited for."""
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": CHANGES}}


def _metadata(namespace: str, name: str, application: int) -> Json:
    return {
        "name": name,
        "namespace": namespace,
        "labels": {
            APPLICATION: f"app-{application}",
            "app.kubernetes.io/instance": f"app-{application}-{namespace}",
            "app.kubernetes.io/managed-by": "Helm",
            "helm.sh/chart": f"app-{application}-1.4.2",
        },
        "annotations": {
            "meta.helm.sh/release-name": f"app-{application}",
            "meta.helm.sh/release-namespace": namespace,
        },
    }


# --- everything else


def _rest(namespace: str, team: str) -> Iterator[tuple[str, Json]]:
    if owned(namespace) == "claims":
        yield from _authored(namespace, team)
    yield from _secrets(namespace)
    yield from _bindings(namespace)
    yield from _pods(namespace)


def _authored(namespace: str, team: str) -> Iterator[tuple[str, Json]]:
    for application in range(APPLICATIONS):
        spec: Json = {
            "owner": team,
            "purpose": f"Runs application {application} of {team}",
            "system": f"app-{application}",
            "subjects": {"selector": {"matchLabels": {APPLICATION: f"app-{application}"}}},
            "entitlements": [_declared(*role) for role in (*BOUND, LAST_BOUND)] + [_declared(*STATUS, scope="Cluster")],
            "review": {"interval": "180d"},
        }
        yield (
            f"/apis/{API}/namespaces/{namespace}/ownedidentities",
            {
                "apiVersion": API,
                "kind": "OwnedIdentity",
                "metadata": {"name": f"app-{application}", "namespace": namespace},
                "spec": spec,
            },
        )
    spec = {
        "target": {"kind": "Secret", "name": "app-0-token-0"},
        "rules": ["LegacyToken"],
        "class": "AcceptedRisk",
        "owner": team,
        "justification": "The build server moves to OIDC",
        "expiresAt": _in_sixty_days(),
    }
    yield (
        f"/apis/{API}/namespaces/{namespace}/identityexceptions",
        {
            "apiVersion": API,
            "kind": "IdentityException",
            "metadata": {"name": "app-0-token", "namespace": namespace},
            "spec": spec,
        },
    )


def _declared(kind: str, name: str, **scope: str) -> Json:
    return {"roleRef": {"kind": kind, "name": name}, "reason": "Its work", **scope}


def _in_sixty_days() -> str:
    return (datetime.now(UTC) + timedelta(days=60)).strftime("%Y-%m-%dT00:00:00Z")


def _blob(size: int) -> str:
    return base64.b64encode(b"x" * size).decode()


_SMALL, _CERTIFICATE, _RELEASE = _blob(32), _blob(1_300), _blob(12_000)


def _secrets(namespace: str) -> Iterator[tuple[str, Json]]:
    path = f"/api/v1/namespaces/{namespace}/secrets"
    for application in range(APPLICATIONS):
        for number, kind in enumerate(SECRET_KINDS):
            yield path, _secret(namespace, application, number, kind)


def _secret(namespace: str, application: int, number: int, kind: str) -> Json:
    name = f"app-{application}-{kind}-{number}"
    metadata = _metadata(namespace, name, application)
    secret: Json = {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": metadata}
    match kind:
        case "token":
            metadata["annotations"]["kubernetes.io/service-account.name"] = account(application)
            return secret | {"type": "kubernetes.io/service-account-token"}
        case "password":
            return secret | {"data": {"username": _SMALL, "password": _SMALL, "api-token": _SMALL}}
        case "tls":
            metadata["annotations"]["cert-manager.io/certificate-name"] = name
            data = {"tls.crt": _CERTIFICATE, "tls.key": _CERTIFICATE, "ca.crt": _CERTIFICATE}
            return secret | {"type": "kubernetes.io/tls", "data": data}
        case "registry":
            data = {".dockerconfigjson": base64.b64encode(b'{"auths":{}}').decode()}
            return secret | {"type": "kubernetes.io/dockerconfigjson", "data": data}
        case "helm":
            metadata["name"] = f"sh.helm.release.v1.app-{application}.v1"
            metadata["labels"] = {"name": f"app-{application}", "owner": "helm", "status": "deployed", "version": "1"}
            return secret | {"type": "helm.sh/release.v1", "data": {"release": _RELEASE}}
    return secret | {"data": {"config.yaml": _SMALL, "log-level": _SMALL}}


def _bindings(namespace: str) -> Iterator[tuple[str, Json]]:
    roles = f"/apis/{RBAC}/v1/namespaces/{namespace}/roles"
    for name, resources, verbs in (
        ("read-configuration", ["configmaps"], ["get", "list", "watch"]),
        ("lead", ["leases", "events"], ["get", "create", "update"]),
        ("read-credentials", ["secrets"], ["get"]),
    ):
        yield (
            roles,
            {
                "apiVersion": f"{RBAC}/v1",
                "kind": "Role",
                "metadata": {"name": name, "namespace": namespace},
                "rules": [{"apiGroups": ["", "coordination.k8s.io"], "resources": resources, "verbs": verbs}],
            },
        )
    for number in range(ROLE_BINDINGS):
        kind, role = BOUND[number % len(BOUND)] if number < ROLE_BINDINGS - 1 else LAST_BOUND
        yield (
            f"/apis/{RBAC}/v1/namespaces/{namespace}/rolebindings",
            _binding("RoleBinding", namespace, f"app-{number % APPLICATIONS}-{role}-{number}", kind, role, number),
        )
    for number in range(CLUSTER_ROLE_BINDINGS):
        yield (
            f"/apis/{RBAC}/v1/clusterrolebindings",
            _binding("ClusterRoleBinding", namespace, f"{namespace}-{number}", *STATUS, number),
        )


def _binding(kind: str, namespace: str, name: str, role_kind: str, role: str, number: int) -> Json:
    metadata = _metadata(namespace, name, number % APPLICATIONS)
    if kind == "ClusterRoleBinding":
        del metadata["namespace"]
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": kind,
        "metadata": metadata,
        "roleRef": {"apiGroup": RBAC, "kind": role_kind, "name": role},
        "subjects": [{"kind": "ServiceAccount", "namespace": namespace, "name": account(number)}],
    }


def _pods(namespace: str) -> Iterator[tuple[str, Json]]:
    for number in range(PODS):
        yield f"/api/v1/namespaces/{namespace}/pods", _pod(namespace, number)


def _pod(namespace: str, number: int) -> Json:
    application, runs_as = number % APPLICATIONS, account(number % ACCOUNTS)
    variables: list[Json] = [
        {"name": "NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "LOG_LEVEL", "value": "info"},
        {"name": "LISTEN", "value": "0.0.0.0:8080"},
        {
            "name": "PASSWORD",
            "valueFrom": {"secretKeyRef": {"name": f"app-{application}-password-1", "key": "password"}},
        },
    ]
    container: Json = {
        "name": "main",
        "image": "registry.example/team/app:1.4.2",
        "args": ["serve", "--listen=:8080"],
        "env": variables,
        "envFrom": [{"secretRef": {"name": f"app-{application}-password-2"}}],
        "ports": [{"containerPort": 8080, "name": "http"}],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http"}},
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "http"}},
        "volumeMounts": [{"name": "tls", "mountPath": "/etc/tls", "readOnly": True}],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    sidecar: Json = {
        "name": "proxy",
        "image": "registry.example/mesh/proxy:2.1.0",
        "env": variables[:3],
        "ports": [{"containerPort": 15090, "name": "proxy"}],
    }
    name = f"{runs_as}-{number:03d}-7d9f8b6c5d-x{number:03d}"
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": _metadata(namespace, name, application),
        "spec": {
            "serviceAccountName": runs_as,
            "containers": [container, sidecar],
            "imagePullSecrets": [{"name": f"app-{application}-registry-9"}],
            "volumes": [{"name": "tls", "secret": {"secretName": f"app-{application}-tls-5"}}],
        },
    }
