"""examples/gitops/ on a real API server, as Argo CD and as Flux would apply it: in order, and all at once in the wrong
order; and the manifests of the two tools against the kinds of the tools."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import toolkinds
from tests.support.cluster import ApiError, Cluster, eventually
from tests.support.gitops import EXAMPLES, GITOPS, build, documents
from tests.support.helm import Helm
from tests.support.kstatus import Status, compute
from tests.support.kubelet import Kubelet
from tests.support.scenario import HOME, finding_of, phase_of

pytestmark = pytest.mark.local

Json = dict[str, Any]

NAMESPACE: Json = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": HOME}}
TEAM = "system:serviceaccount:orders:gitops"
OURS = "tenure.dev/v1alpha1"


def of(found: list[Json], kind: str, name: str) -> Json:
    [one] = [d for d in found if d["kind"] == kind and d["metadata"]["name"] == name]
    return one


def rendered(tmp_path: Path, tool: str, version: str) -> list[Json]:
    """The chart with the values of that tool's example, as the tool would render it, and the namespace it makes."""
    if tool == "argocd":
        [application] = documents(EXAMPLES / "argocd" / "platform.yaml")
        values = application["spec"]["source"]["helm"]["valuesObject"]
        if version == "1.33":
            values["stamps"] = "Never"  # as the example's comment says
    else:
        values = of(documents(EXAMPLES / "flux" / "platform.yaml"), "HelmRelease", "tenure")["spec"]["values"]
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    found = Helm("4", tmp_path / "helm").render([file], kubernetes=version)
    return [NAMESPACE, *(d for d in found if "helm.sh/hook" not in d["metadata"].get("annotations", {}))]


def wave(document: Json) -> int:
    return int(document["metadata"].get("annotations", {}).get("argocd.argoproj.io/sync-wave", 0))


def applied(cluster: Cluster, document: Json, by: str | None = None) -> Json | None:
    """One object, applied by the tool or in that ServiceAccount's name; None where the API server refuses it now."""
    try:
        return cluster.apply(document, manager="gitops", **({"user": by} if by else {}))
    except (ApiError, KeyError):  # no such kind yet
        return None


def live(cluster: Cluster, document: Json) -> Json | None:
    metadata = document["metadata"]
    return cluster.get(f"{document['apiVersion']}/{document['kind']}", metadata["name"], metadata.get("namespace"))


def apply(cluster: Cluster, found: list[Json], by: str | None = None) -> None:
    """Each of them, tried again while the API server does not know its kind, or the right to it, yet."""
    for document in found:
        eventually(lambda d=document: applied(cluster, d, by), 20, what=str(document["metadata"]))  # type: ignore[misc]


def current(cluster: Cluster, found: list[Json]) -> bool:
    """Whether a wait for all of them would end."""
    for document in found:
        there = live(cluster, document)
        assert there is not None, document["metadata"]
        if document["apiVersion"] == OURS:
            assert compute(there) is Status.CURRENT, (document["metadata"], there.get("status"))
    return True


def at_the_end(cluster: Cluster, governance: list[Json], team: list[Json]) -> None:
    """All that people wrote was processed, and what is found is what the team asks an exception for."""
    eventually(lambda: current(cluster, [*governance, *team]), 60, what="all of it is current")

    def undecided() -> set[tuple[str, str]]:
        found = cluster.list("identityfindings", "orders")
        return {(f["spec"]["rule"], f["spec"]["subject"]["name"]) for f in found if f["status"]["phase"] != "Resolved"}

    eventually(lambda: undecided() == {("LegacyToken", "checkout-partner")}, 60, what="nothing but the token")
    asked = cluster.get("identityexceptions", "checkout-partner", "orders")
    assert asked is not None
    assert asked["spec"]["requestedBy"] == TEAM
    # Applied once more, nothing changes: neither tool sees drift.
    for document, by in [*((d, None) for d in governance), *((d, TEAM) for d in team)]:
        metadata = document["metadata"]
        before = live(cluster, document)
        after = applied(cluster, document, by)
        assert before is not None
        assert after is not None
        assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"], metadata


@pytest.mark.parametrize("version", ["1.36", "1.33"])
@pytest.mark.long
def test_in_order_every_step_is_healthy_before_the_next(
    fresh_cluster: Callable[..., Cluster], tmp_path: Path, version: str
) -> None:
    cluster = fresh_cluster(version=version, audit=False)
    governance, team = build(EXAMPLES / "governance"), build(EXAMPLES / "teams" / "orders")
    with Kubelet(cluster, HOME) as kubelet:
        apply(cluster, rendered(tmp_path, "argocd", version))
        eventually(lambda: "governing" in kubelet.log_of("tenure-"), 60, what="a ready operator")
        for step, by in ((governance, None), (team, TEAM)):
            for number in sorted({wave(document) for document in step}):
                now = [document for document in step if wave(document) == number]
                # Within a wave Argo CD goes by kinds: namespaces first, then what it knows, then the rest.
                apply(cluster, sorted(now, key=lambda d: (d["kind"] != "Namespace", d["apiVersion"] == OURS)), by)
                eventually(lambda n=now: current(cluster, n), what=f"wave {number}")  # type: ignore[misc]
        at_the_end(cluster, governance, team)
        assert "missing right" not in kubelet.log_of("tenure-")
        assert not finding_of(cluster, "orders", "OwnerVacant", "checkout"), "the owner came first"


@pytest.mark.long
@pytest.mark.parametrize("version", ["1.36", "1.33"])
def test_all_at_once_in_the_wrong_order_it_comes_to_the_same(
    fresh_cluster: Callable[..., Cluster], tmp_path: Path, version: str
) -> None:
    """The operator before its kinds, claims before their owners, each refused object tried again, as both tools do."""
    cluster = fresh_cluster(version=version, audit=False)
    governance, team = build(EXAMPLES / "governance"), build(EXAMPLES / "teams" / "orders")
    platform = rendered(tmp_path, "flux", version)
    kinds = [document for document in platform if document["kind"] == "CustomResourceDefinition"]
    rest = [document for document in reversed(platform) if document["kind"] != "CustomResourceDefinition"]
    left: list[tuple[Json, str | None]] = [
        (NAMESPACE, None),
        (of(governance, "Namespace", "orders"), None),
        *((document, TEAM) for document in reversed(team)),
        *((document, None) for document in reversed(governance)),
        *((document, None) for document in rest),
    ]

    def attempt() -> bool:
        left[:] = [(document, by) for document, by in left if applied(cluster, document, by) is None]
        return not left

    def vacant() -> dict[str, str]:
        return {name: phase_of(cluster, "orders", "OwnerVacant", name) for name in ("checkout", "gitops")}

    with Kubelet(cluster, HOME) as kubelet:
        attempt()
        refused = {document["kind"] for document, _ in left}
        assert refused >= {"IdentityOwner", "OwnedIdentity", "IdentityException", "GovernancePolicy"}
        waits = "the CRD identityowners.tenure.dev is not installed"
        eventually(lambda: waits in kubelet.log_of("tenure-"), 60, what=waits)
        apply(cluster, kinds)
        owners = [document for document, _ in left if document["kind"] == "IdentityOwner"]
        left[:] = [(document, by) for document, by in left if document["kind"] != "IdentityOwner"]
        eventually(attempt, 90, 0.5, what="all but the owners")
        ours = [document for document in team if document["apiVersion"] == OURS]
        eventually(lambda: current(cluster, ours), 60, what="claims are current")
        eventually(lambda: vacant() == {"checkout": "Open", "gitops": "Open"}, what="OwnerVacant")
        apply(cluster, owners)
        eventually(lambda: vacant() == {"checkout": "Resolved", "gitops": "Resolved"}, what="it ends by itself")
        # The tools' next round: Kubernetes itself deletes a token Secret that came before its ServiceAccount.
        apply(cluster, team, TEAM)
        at_the_end(cluster, governance, team)
        assert len([name for name, _ in kubelet.logs if name.startswith("tenure-")]) == 1, "one process throughout"


# --- the tools' own objects


@pytest.mark.long
@pytest.mark.parametrize("tool", ["argocd", "flux"])
def test_the_tools_take_what_is_written_for_them(fresh_cluster: Callable[..., Cluster], tool: str) -> None:
    """By their own CRDs, strictly: nothing is misspelled, missing or of another type."""
    cluster = fresh_cluster(audit=False)
    for document in toolkinds.argo_cd() if tool == "argocd" else toolkinds.flux():
        cluster.apply(document)
    if tool == "argocd":
        found = documents(*sorted((EXAMPLES / "argocd").glob("*.yaml")))
    else:
        found = [*build(EXAMPLES / "flux"), *build(EXAMPLES / "flux" / "teams")]
        assert {len(d["spec"].get("healthCheckExprs", ())) for d in found if d["kind"] == "Kustomization"} == {5}
    for name in {document["metadata"]["namespace"] for document in found}:
        cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    def taken(*sent: Json) -> str:
        text = "\n---\n".join(map(json.dumps, sent))
        strictly = ("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f-")
        done = cluster.kubectl(*strictly, input=text, check=False)
        return done.stderr if done.returncode else ""

    eventually(lambda: taken(*found) == "", what="every object")
    for document in found:
        wrong = json.loads(json.dumps(document))
        wrong["spec"]["intervall"] = "1h"
        assert "intervall" in taken(wrong)


def test_a_kustomization_that_is_to_wait_for_approvals_is_labelled_so(tmp_path: Path) -> None:
    (tmp_path / "orders.yaml").write_text((EXAMPLES / "flux" / "teams" / "orders.yaml").read_text())
    component = os.path.relpath(GITOPS / "flux" / "wait-for-approval", tmp_path)
    for label, checks in ({"tenure.dev/wait-for": "approval"}, ["IdentityException"]), ({"any": "other"}, []):
        kustomization: Json = {"resources": ["orders.yaml"], "components": [component]}
        (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        [labelled] = documents(tmp_path / "orders.yaml")
        labelled["metadata"]["labels"] = label
        (tmp_path / "orders.yaml").write_text(yaml.safe_dump(labelled))
        [found] = build(tmp_path)
        assert [entry["kind"] for entry in found["spec"].get("healthCheckExprs", ())] == checks


# --- kustomize


REFERRING = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: app, labels: {tenure.dev/owner: team}}
---
apiVersion: v1
kind: Secret
metadata: {name: key}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reader}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: claims}
rules:
- {apiGroups: [tenure.dev], resources: [identityowners], resourceNames: [team], verbs: [claim]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: bound}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reader}
subjects: [{kind: ServiceAccount, name: app}]
---
apiVersion: tenure.dev/v1alpha1
kind: IdentityOwner
metadata: {name: spare}
spec: {}
---
apiVersion: tenure.dev/v1alpha1
kind: IdentityOwner
metadata: {name: team}
spec: {backup: spare, escalation: [{after: 50%, to: spare}, {after: 80%, to: elsewhere}]}
---
apiVersion: tenure.dev/v1alpha1
kind: OwnedIdentity
metadata: {name: claim}
spec:
  owner: team
  purpose: tests
  subjects: {serviceAccounts: {names: [app, foreign]}, secrets: {names: [key]}}
  entitlements:
  - {roleRef: {kind: ClusterRole, name: reader}, reason: reads}
  - {roleRef: {kind: Role, name: claims}, reason: claims}
"""
DECISION = """
apiVersion: tenure.dev/v1alpha1
kind: IdentityDecision
metadata: {name: decision}
spec:
  target: {kind: IdentityException, name: about-key, uid: "1", generation: 1}
  verdict: Approve
  reason: tests
  by: judy
"""
TARGETS = {"Secret": "key", "ServiceAccount": "app", "RoleBinding": "bound", "OwnedIdentity": "claim"}


def waiver(kind: str, name: str) -> Json:
    return {
        "apiVersion": OURS,
        "kind": "IdentityException",
        "metadata": {"name": f"about-{name}"},
        "spec": {
            "target": {"kind": kind, "name": name},
            "rules": ["Unowned"],
            "class": "Migration",
            "owner": "team",
            "justification": "tests",
            "expiresAt": "2027-01-31T00:00:00Z",
        },
    }


def prefixed(tmp_path: Path, *, configured: bool) -> dict[str, Json]:
    texts = [REFERRING, DECISION, *(json.dumps(waiver(*target)) for target in TARGETS.items())]
    (tmp_path / "all.yaml").write_text("\n---\n".join(texts))
    kustomization: Json = {"resources": ["all.yaml"], "namePrefix": "eu-", "namespace": "default"}
    if configured:
        references = "name-references.yaml"
        (tmp_path / references).write_text((GITOPS / "kustomize" / references).read_text())
        kustomization["configurations"] = [references]
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return {f"{d['kind']}/{d['metadata']['name']}": d for d in build(tmp_path)}


def references(found: dict[str, Json]) -> dict[str, Any]:
    claim, owner = found["OwnedIdentity/eu-claim"]["spec"], found["IdentityOwner/eu-team"]["spec"]
    waivers = {name: found[f"IdentityException/eu-about-{name}"]["spec"] for name in TARGETS.values()}
    return {
        "owner": claim["owner"],
        "accounts": claim["subjects"]["serviceAccounts"]["names"],
        "secrets": claim["subjects"]["secrets"]["names"],
        "roles": [entry["roleRef"]["name"] for entry in claim["entitlements"]],
        "backup": owner["backup"],
        "escalation": [step["to"] for step in owner["escalation"]],
        "claim's verb": found["Role/eu-claims"]["rules"][0]["resourceNames"],
        "label": found["ServiceAccount/eu-app"]["metadata"]["labels"]["tenure.dev/owner"],
        "decision": found["IdentityDecision/eu-decision"]["spec"]["target"]["name"],
        **{kind: waivers[name]["target"]["name"] for kind, name in TARGETS.items()},
        "exception's owner": waivers["key"]["owner"],
    }


@pytest.mark.long
def test_kustomize_s_prefixes_reach_every_reference(installed: Cluster, tmp_path: Path) -> None:
    found = prefixed(tmp_path, configured=True)
    assert references(found) == {
        "owner": "eu-team",
        "accounts": ["eu-app", "foreign"],
        "secrets": ["eu-key"],
        "roles": ["eu-reader", "eu-claims"],
        "backup": "eu-spare",
        "escalation": ["eu-spare", "elsewhere"],
        "claim's verb": ["eu-team"],
        "label": "eu-team",
        "decision": "eu-about-key",
        **{kind: f"eu-{name}" for kind, name in TARGETS.items()},
        "exception's owner": "eu-team",
    }
    text = "\n---\n".join(json.dumps(d) for name, d in found.items() if not name.startswith("IdentityException"))
    taken = installed.kubectl("apply", "--server-side", "--dry-run=server", "-f-", input=text)
    assert len(taken.stdout.splitlines()) == len(found) - len(TARGETS)
    plain = references(prefixed(tmp_path, configured=False))
    assert plain["owner"] == "team", "without the configuration nothing follows"
    assert plain["decision"] == "about-key"
