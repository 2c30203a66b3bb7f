"""A small cluster as manifests, and the report of it: what these tests are about stands in one place."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tenure.inventory.projection import PROJECTIONS
from tenure.inventory.store import Store
from tenure.report.collect import Collected, Gap
from tenure.report.inventory import Identity, Report, report
from tenure.settings import Settings

NOW = datetime(2026, 12, 4, 9, 0, tzinfo=UTC)
CREATED = "2026-11-01T00:00:00Z"
EMAIL = {"type": "Email", "value": "payments@example.com"}


def raw(kind: str, name: str, namespace: str = "", **fields: Any) -> dict[str, Any]:
    """An object as the API server gives it; `metadata` is laid over what every object has."""
    metadata: dict[str, Any] = {"name": name, "uid": f"uid-{name}", "creationTimestamp": CREATED, "generation": 1}
    if namespace:
        metadata["namespace"] = namespace
    metadata.update(fields.pop("metadata", {}))
    return {"kind": kind, "metadata": metadata, **fields}


def account(name: str, namespace: str = "payments", **metadata: Any) -> dict[str, Any]:
    return raw("ServiceAccount", name, namespace, metadata=metadata)


def token(name: str, of: str, namespace: str = "payments", **metadata: Any) -> dict[str, Any]:
    marks = {"kubernetes.io/service-account.name": of, "kubernetes.io/service-account.uid": f"uid-{of}"}
    return raw(
        "Secret",
        name,
        namespace,
        type="kubernetes.io/service-account-token",
        metadata={"annotations": marks, **metadata},
    )


def binding(name: str, role: str, of: str, namespace: str = "payments", subject_namespace: str = "payments") -> Any:
    return raw(
        "RoleBinding" if namespace else "ClusterRoleBinding",
        name,
        namespace,
        roleRef={"kind": "ClusterRole", "name": role},
        subjects=[{"kind": "ServiceAccount", "name": of, "namespace": subject_namespace}],
    )


def claim(name: str, spec: dict[str, Any], namespace: str = "payments") -> dict[str, Any]:
    return raw("OwnedIdentity", name, namespace, spec={"owner": "payments", "purpose": "p", **spec})


def exception(name: str, secret: str, status: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    return raw(
        "IdentityException",
        name,
        "payments",
        spec={
            "target": {"kind": "Secret", "name": secret},
            "rules": ["LegacyToken"],
            "class": "Migration",
            "owner": "payments",
            "justification": "later",
            "requestedBy": "alice@example.com",
            "expiresAt": "2027-01-03T09:00:00Z",
            **spec,
        },
        **({"status": {"observedGeneration": 1, **status}} if status else {}),
    )


def active(secret: str) -> dict[str, Any]:
    """The status of an exception that covers this Secret."""
    return {"phase": "Active", "matched": [{"kind": "Secret", "name": secret, "uid": f"uid-{secret}"}]}


def finding(name: str, rule: str, kind: str, subject: str, **status: Any) -> dict[str, Any]:
    return raw(
        "IdentityFinding",
        name,
        "payments",
        spec={"rule": rule, "subject": {"kind": kind, "namespace": "payments", "name": subject}},
        status={"risk": {"level": "High"}, "phase": "Open", "onDeadline": "Quarantine", "mode": "Enforce", **status},
    )


def quarantine(kind: str, subject: str, **status: Any) -> dict[str, Any]:
    return raw(
        "Quarantine",
        f"{kind.lower()}-{subject}",
        "payments",
        spec={"subject": {"kind": kind, "name": subject, "uid": f"uid-{subject}"}, "stages": ["Guard"]},
        status=status,
    )


SCENE: tuple[dict[str, Any], ...] = (
    raw("Namespace", "payments"),
    raw("Namespace", "kube-system"),
    raw("IdentityOwner", "payments", spec={"contacts": [EMAIL]}),
    raw("ClusterRole", "edit", rules=[{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list"]}]),
    account("default"),
    account("invoice-api"),
    account("ci", annotations={"meta.helm.sh/release-name": "build", "meta.helm.sh/release-namespace": "payments"}),
    account("coredns", "kube-system"),
    token("ci-token", "ci", labels={"kubernetes.io/legacy-token-last-used": "2026-12-01"}),
    raw("Secret", "stripe", "payments", type="Opaque", data={"apiKey": "CANARY"}),
    raw("Secret", "settings", "payments", type="Opaque", data={"colour": "CANARY"}),
    binding("ci-edit", "edit", "ci"),
    binding("ci-gone", "nope", "ci"),
    claim("invoice-api", {"class": "Agent", "subjects": {"serviceAccounts": {"names": ["invoice-api"]}}}),
)


def seen(*more: dict[str, Any], gaps: tuple[Gap, ...] = (), without: tuple[str, ...] = ()) -> Collected:
    """What was collected: SCENE, with `more` laid over it and the kinds in `without` left out."""
    store = Store()
    for found in (*SCENE, *more):
        if found["kind"] not in without:
            store.upsert(found["kind"], PROJECTIONS[found["kind"]]({**found, "metadata": {**found["metadata"]}}))
    return Collected(store, NOW, gaps)


def reported(*more: dict[str, Any], namespace: str | None = None, **options: Any) -> Report:
    return report(seen(*more, **options), namespace, Settings())


def identity(found: Report, name: str) -> Identity:
    return next(entry for entry in found.identities if entry.name == name)
