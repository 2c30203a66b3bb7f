"""What tests of whole lives are made of: manifests with deadlines of seconds, people with rights, tokens that work."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from tests.support.cluster import Cluster, eventually
from tests.support.rest import Json, Rest

API: Final = "tenure.dev/v1alpha1"
RBAC: Final = "rbac.authorization.k8s.io"
KINDS: Final = (
    "identityowners",
    "ownedidentities",
    "identityexceptions",
    "identitydecisions",
    "identityfindings",
    "quarantines",
    "quarantineguards",
    "governancepolicies",
)
OPERATOR: Final = "system:serviceaccount:tenure-system:tenure"
HOME: Final = "tenure-system"
OFF: Final = "kubernetes.io/legacy-token-invalid-since"
LAST_USED: Final = "kubernetes.io/legacy-token-last-used"
ACCOUNT: Final = "kubernetes.io/service-account.name"
REMOVED: Final = "tenure.dev/removed-subjects"
RESTORE: Final = "tenure.dev/restore"
TOKEN: Final = "kubernetes.io/service-account-token"


def deadline(
    *rules: str,
    within: str = "1s",
    action: str = "Quarantine",
    revoke_after: str | None = None,
    hold: str = "0s",
    **more: Any,
) -> Json:
    """One entry of a policy's deadlines; without rules it is about all of them."""
    entry: Json = {"decideWithin": within, "onDeadline": action, "holdAfterUse": hold, **more}
    if rules:
        entry["rules"] = list(rules)
    if revoke_after is not None:
        entry["revokeAfter"] = revoke_after
    return entry


def policy(name: str, *deadlines: Json, labels: Mapping[str, str] | None = None, **spec: Any) -> Json:
    """A GovernancePolicy that enforces at once and without a cap, in namespaces with these labels (None: all)."""
    given: Json = {
        "enforceIn": {},
        "adoptionGrace": "0s",
        "blastRadius": {"maxActions": 1000, "maxPercentPerNamespace": 100},
        "deadlines": list(deadlines),
    }
    if labels is not None:
        given["namespaceSelector"] = {"matchLabels": dict(labels)}
    return {"apiVersion": API, "kind": "GovernancePolicy", "metadata": {"name": name}, "spec": {**given, **spec}}


def govern(cluster: Cluster, policy: Json) -> None:
    """Applies a policy, and returns once the operator has taken it in. Its watch and those of what it governs keep no
    order: a finding that is opened before the policy is seen keeps the deadline it got without one."""
    name, generation = policy["metadata"]["name"], cluster.apply(policy)["metadata"]["generation"]

    def taken_in() -> bool:
        found = cluster.get("governancepolicies", name)
        return found is not None and found.get("status", {}).get("observedGeneration") == generation

    eventually(taken_in, what=f"policy {name} taken in")


def owner(name: str, **spec: Any) -> Json:
    return {"apiVersion": API, "kind": "IdentityOwner", "metadata": {"name": name}, "spec": spec}


def claim(namespace: str, owner: str, *, name: str = "claim", accounts: Sequence[str] = (), **spec: Any) -> Json:
    """A claim on these ServiceAccounts by name, on everything without any."""
    subjects: Json = {"serviceAccounts": {"names": list(accounts)}} if accounts else {"selector": {}}
    return {
        "apiVersion": API,
        "kind": "OwnedIdentity",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"owner": owner, "purpose": "tests", "subjects": subjects, **spec},
    }


def service_account(namespace: str, name: str, **metadata: Any) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": name, "namespace": namespace, **metadata},
    }


def token_secret(namespace: str, name: str, account: str, *, data: Mapping[str, str] | None = None) -> Json:
    """A service-account-token Secret, which the token controller fills; `data` are further values, as text."""
    manifest: Json = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": TOKEN,
        "metadata": {"name": name, "namespace": namespace, "annotations": {ACCOUNT: account}},
    }
    if data:
        manifest["stringData"] = dict(data)
    return manifest


def identity(cluster: Cluster, namespace: str, name: str, tokens: Iterable[str] = ()) -> Json:
    """Creates a ServiceAccount with token Secrets of these names."""
    created = cluster.create(service_account(namespace, name))
    for token in tokens:
        cluster.create(token_secret(namespace, token, name))
    return created


def exception(namespace: str, kind: str, name: str, *rules: str, called: str = "exception", **spec: Any) -> Json:
    """A waiver of rules for one subject until tomorrow, in the name of `team`."""
    given: Json = {
        "target": {"kind": kind, "name": name},
        "rules": list(rules),
        "class": "Migration",
        "owner": "team",
        "justification": "tests",
        "expiresAt": (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return {
        "apiVersion": API,
        "kind": "IdentityException",
        "metadata": {"name": called, "namespace": namespace},
        "spec": {**given, **spec},
    }


def await_policies(rest: Rest) -> None:
    """An API server that has just started refuses claims and decisions until it has found the kinds that its policies
    compare with, which takes up to half a minute, and serves each kind of Tenure's from a moment of its own on."""
    target = {"kind": "IdentityException", "name": "none", "uid": "none", "generation": 1}
    decision = {
        "apiVersion": API,
        "kind": "IdentityDecision",
        "metadata": {"name": "none", "namespace": "default"},
        "spec": {"target": target, "verdict": "Approve", "reason": "tests", "by": "nobody"},
    }
    tried = {"ownedidentities": claim("default", "nobody"), "identitydecisions": decision}

    def configured() -> bool:
        for kind in KINDS:
            rest.expect("GET", f"/apis/{API}/{kind}?limit=1")
        for kind, manifest in tried.items():
            status, answer = rest.request("POST", f"/apis/{API}/namespaces/default/{kind}?dryRun=All", manifest)
            assert status < 500, answer
            assert "failed to configure policy" not in str(answer), answer
        return True

    eventually(configured, 90, what="claims and decisions are judged again")


def token_of(cluster: Cluster, namespace: str, secret: str) -> str:
    """The token in a Secret, once the token controller has put it there."""

    def filled() -> str:
        found = cluster.get("secrets", secret, namespace)
        return str((found or {}).get("data", {}).get("token", ""))

    return base64.b64decode(eventually(filled, what=f"a token in Secret {namespace}/{secret}")).decode()


def allow(cluster: Cluster, user: str, name: str, *rules: Json) -> None:
    """A ClusterRole of that name with these rules, bound to the user everywhere."""
    metadata = {"name": name}
    cluster.apply({"apiVersion": f"{RBAC}/v1", "kind": "ClusterRole", "metadata": metadata, "rules": list(rules)})
    cluster.apply(
        {
            "apiVersion": f"{RBAC}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "User", "apiGroup": RBAC, "name": user}],
        }
    )


def rule(group: str, resources: Sequence[str], verbs: Sequence[str], names: Sequence[str] = ()) -> Json:
    """One rule of a role."""
    found: Json = {"apiGroups": [group], "resources": list(resources), "verbs": list(verbs)}
    if names:
        found["resourceNames"] = list(names)
    return found


def claimant(cluster: Cluster, user: str, owner: str) -> None:
    """Lets a user write claims in this owner's name."""
    allow(
        cluster,
        user,
        f"test-claim-{user}",
        rule("tenure.dev", ["ownedidentities"], ["*"]),
        rule("tenure.dev", ["identityowners"], ["claim"], [owner]),
    )


def releaser(cluster: Cluster, user: str) -> None:
    """Lets a user release Quarantines."""
    allow(
        cluster, user, f"test-release-{user}", rule("tenure.dev", ["quarantines"], ["get", "list", "delete", "release"])
    )


def decider(cluster: Cluster, user: str) -> None:
    """Lets a user write decisions, and give every verdict on findings and Quarantines."""
    allow(
        cluster,
        user,
        f"test-decide-{user}",
        rule("tenure.dev", ["identitydecisions"], ["create", "get", "list"]),
        rule("tenure.dev", ["identityfindings"], ["quarantine", "revoke"]),
        rule("tenure.dev", ["quarantines"], ["release"]),
    )


def verdict(target: Json, verdict: str, *, by: str, called: str | None = None, **about: Any) -> Json:
    """A decision about a finding or Quarantine as it stands; `about` changes what it names."""
    metadata = target["metadata"]
    names: Json = {"kind": target["kind"], "name": metadata["name"], "uid": metadata["uid"]}
    if target["kind"] == "IdentityFinding":
        names["revision"] = target["spec"]["revision"]
    return {
        "apiVersion": API,
        "kind": "IdentityDecision",
        "metadata": {"name": called or verdict.lower(), "namespace": metadata["namespace"]},
        "spec": {"target": {**names, **about}, "verdict": verdict, "reason": "tests", "by": by},
    }


def finding_of(cluster: Cluster, namespace: str, rule: str, name: str) -> Json | None:
    """The finding of a rule on the subject of that name."""
    for found in cluster.list("identityfindings", namespace):
        if found["spec"]["rule"] == rule and found["spec"]["subject"]["name"] == name:
            return found
    return None


def phase_of(cluster: Cluster, namespace: str, rule: str, name: str) -> str:
    """That finding's phase, "" when there is none."""
    found = finding_of(cluster, namespace, rule, name)
    return str(found["status"]["phase"]) if found else ""


def quarantine_of(cluster: Cluster, namespace: str, name: str) -> Json | None:
    """The Quarantine of the subject of that name."""
    for found in cluster.list("quarantines", namespace):
        if found["spec"]["subject"]["name"] == name:
            return found
    return None


def switched_off(cluster: Cluster, namespace: str, secret: str) -> bool:
    """Whether a token Secret carries the label that makes the API server refuse its token."""
    found = cluster.get("secrets", secret, namespace)
    return bool(found and (found["metadata"].get("labels") or {}).get(OFF))
