"""Audit events as the API server writes them, at level Metadata, on 1.33 and 1.36 alike."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

START = datetime(2026, 11, 26, 12, 55, 20, 872808, tzinfo=UTC)
CI = "system:serviceaccount:shop:ci"


def stamp(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def event(
    id_: str, *, after: float = 0.0, took: float = 0.007, username: str = CI, code: int = 200, **fields: Any
) -> bytes:
    """One line without its end; `after` is in seconds since START."""
    received = START + timedelta(seconds=after)
    body: dict[str, Any] = {
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": "Metadata",
        "auditID": id_,
        "stage": "ResponseComplete",
        "requestURI": "/api/v1/namespaces/shop/configmaps",
        "verb": "list",
        "user": {"username": username, "uid": f"uid-{username.rpartition(':')[2]}", "groups": ["system:authenticated"]},
        "sourceIPs": ["10.1.2.3"],
        "userAgent": "curl/8.5.0",
        "objectRef": {"resource": "configmaps", "namespace": "shop", "apiVersion": "v1"},
        "responseStatus": {"metadata": {}, "code": code},
        "requestReceivedTimestamp": stamp(received),
        "stageTimestamp": stamp(received + timedelta(seconds=took)),
        "annotations": {
            "authorization.k8s.io/decision": "allow",
            "authorization.k8s.io/reason": 'RBAC: allowed by RoleBinding "b/shop" of ClusterRole "edit" '
            'to ServiceAccount "ci/shop"',
        },
    }
    return json.dumps({**body, **fields}, separators=(",", ":")).encode()


def unauthorized(id_: str, *, after: float = 0.0, took: float = 0.004, **fields: Any) -> bytes:
    """What a refused token leaves: no user, no annotation."""
    status = {"metadata": {}, "status": "Failure", "message": "Unauthorized", "reason": "Unauthorized", "code": 401}
    return event(
        id_,
        after=after,
        took=took,
        **{"stage": "ResponseStarted", "user": {}, "responseStatus": status, "annotations": {}, **fields},
    )


def stamped(id_: str, secret: str, *, after: float = 0.0) -> bytes:
    """The API server writes the day of a token's use onto its Secret."""
    about = {"resource": "secrets", "namespace": "shop", "name": secret, "apiVersion": "v1"}
    notes = {"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": ""}
    return event(
        id_, after=after, took=0.003, username="system:apiserver", verb="patch", objectRef=about, annotations=notes
    )


def refused(id_: str, quarantine: str = "shop/q", *, after: float = 0.0, username: str = "ann", **fields: Any) -> bytes:
    """A guard of Tenure's refuses a token request."""
    message = (
        "serviceaccounts \"ci\" is forbidden: ValidatingAdmissionPolicy 'tenure-guard-tokens' with binding "
        "'tenure-guard-tokens' denied request: ServiceAccount shop/ci is quarantined and gets no new token (Quarantine "
        f"{quarantine}, owner nobody, contact none). To release it, a holder of the verb release runs: kubectl …"
    )
    about = {
        "resource": "serviceaccounts",
        "namespace": "shop",
        "name": "ci",
        "apiVersion": "v1",
        "subresource": "token",
    }
    status = {"metadata": {}, "status": "Failure", "message": message, "reason": "Forbidden", "code": 403}
    given = {"verb": "create", "objectRef": about, "responseStatus": status, **fields}
    return event(id_, after=after, username=username, **given)
