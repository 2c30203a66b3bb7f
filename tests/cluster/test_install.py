"""deploy/install.sh and deploy/uninstall.sh: again and again, from any state, leaving nothing that blocks anything."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.tenure_objects import (
    OFF,
    OPERATOR,
    UID,
    Json,
    claim,
    decision,
    entry,
    exception,
    finding,
    guard,
    owner,
    pod,
    policy,
    quarantine,
    service_account,
    token_secret,
)
from tests.support.cluster import REPOSITORY, ApiError, Cluster, eventually
from tests.support.operator import Operator

SKIPPING = ("tenure-guard-pods", "tenure-guard-tokens", "tenure-guard-secrets")
# Everything cluster-wide that an installation could leave behind.
CLUSTER_WIDE = (
    "customresourcedefinitions",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
    "mutatingadmissionpolicies",
    "mutatingadmissionpolicybindings",
    "mutatingwebhookconfigurations",
    "validatingwebhookconfigurations",
    "clusterroles",
    "clusterrolebindings",
    "namespaces",
    "apiservices",
)


def script(
    cluster: Cluster, name: str, *, kubeconfig: Path | None = None, **extra: str
) -> subprocess.CompletedProcess[str]:
    """Runs it as a person would: the status is for the test to judge."""
    return subprocess.run(
        ["bash", str(REPOSITORY / "deploy" / name)],
        env={**cluster.environment(kubeconfig), **extra},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def inventory(cluster: Cluster) -> dict[str, set[str]]:
    found = {}
    for resource in CLUSTER_WIDE:
        with contextlib.suppress(KeyError):  # before Kubernetes 1.36 there is nothing that stamps
            found[resource] = {item["metadata"]["name"] for item in cluster.list(resource)}
    return found


def refuses_a_finding(cluster: Cluster, namespace: str = "default") -> bool:
    try:
        cluster.create(finding(namespace, "by-hand"))
    except ApiError as error:
        return "only the operator of Tenure" in error.message
    return False


def disabled_token(cluster: Cluster, namespace: str, name: str, before: str | None = None) -> Json:
    """A token Secret that a quarantine switched off; as its status remembers it."""
    cluster.create(token_secret(namespace, name, "ci", **({"labels": {OFF: before}} if before else {})))

    def filled() -> Json | None:
        found = cluster.get("secrets", name, namespace)
        return found if found and "token" in found.get("data", {}) else None

    made = eventually(filled, what="token")
    assert made is not None
    cluster.patch("secrets", name, {"metadata": {"labels": {OFF: "2026-12-04"}}}, namespace, user=OPERATOR)
    return {"name": name, "uid": made["metadata"]["uid"], **({"labelBefore": before} if before else {})}


def taken_out(cluster: Cluster, namespace: str) -> list[Json]:
    """Two bindings and what a quarantine took out of them: one goes on granting what it did, one by now grants more."""
    rbac = "rbac.authorization.k8s.io"
    user = {"kind": "User", "apiGroup": rbac, "name": f"system:serviceaccount:{namespace}:ci"}
    images = []
    for name, role, left in (
        ("kept", "wide", [{"kind": "User", "apiGroup": rbac, "name": "alice"}]),
        ("widened", "narrow", []),
    ):
        rules = [
            {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["one"], "verbs": ["get"]},
            {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["list"]},
        ]
        about = {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": {"name": role, "namespace": namespace}}
        cluster.create({**about, "rules": rules if role == "wide" else rules[:1]})
        ref = {"apiGroup": rbac, "kind": "Role", "name": role}
        removed = [{"kind": "ServiceAccount", "name": "ci"}, *([user] if left else [])]
        before = [*left, *removed]
        metadata = {"name": name, "namespace": namespace}
        binding = {"apiVersion": f"{rbac}/v1", "kind": "RoleBinding", "metadata": metadata, "roleRef": ref}
        uid = cluster.create({**binding, "subjects": before})["metadata"]["uid"]
        listed = f"ServiceAccount:{namespace}:ci" + (f",User:{user['name']}" if left else "")
        change = {"subjects": left, "metadata": {"annotations": {"tenure.dev/removed-subjects": listed}}}
        cluster.patch("rolebindings", name, change, namespace, user=OPERATOR)
        lines = sorted(
            json.dumps(rule, sort_keys=True, separators=(",", ":")) for rule in (rules if left else rules[:1])
        )
        images.append(
            {
                "apiVersion": f"{rbac}/v1",
                "kind": "RoleBinding",
                "namespace": namespace,
                "name": name,
                "uid": uid,
                "roleRef": ref,
                "roleRulesDigest": hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest(),
                "removed": [{"index": len(left) + n, "subject": subject} for n, subject in enumerate(removed)],
            }
        )
    cluster.patch("roles", "narrow", {"rules": rules}, namespace)
    return images


@pytest.mark.long
@pytest.mark.local
def test_a_whole_life(fresh_cluster: Callable[..., Any]) -> None:
    """Installed, used, uninstalled: the cluster is as before. Then again, and uninstalled from what is half there."""
    cluster: Cluster = fresh_cluster()
    before = inventory(cluster)

    nothing = script(cluster, "uninstall.sh")
    assert nothing.returncode == 0, nothing.stdout + nothing.stderr

    cluster.install(entitlements=True)
    assert refuses_a_finding(cluster)  # at once: it has waited

    namespace = cluster.namespace("used")
    service_account(cluster, namespace, "ci")
    tokens = [disabled_token(cluster, namespace, "ci-token"), disabled_token(cluster, namespace, "older", "2020-01-01")]
    value = base64.b64decode((cluster.get("secrets", "ci-token", namespace) or {})["data"]["token"]).decode()
    eventually(lambda: not cluster.token_works(value))
    namesake = {**disabled_token(cluster, namespace, "namesake"), "uid": "of-the-one-before"}
    for made in (owner("payments"), policy("default"), claim(namespace), exception(namespace), decision(namespace)):
        cluster.create(made)
    cluster.create(finding(namespace), user=OPERATOR)
    quarantined = {"ci": entry(f"{namespace}/serviceaccount-ci")}
    cluster.create(guard(namespace, serviceAccounts=quarantined), user=OPERATOR)
    eventually(lambda: _refused(cluster, pod(namespace, "early")))
    for name in ("serviceaccount-ci", "another", "revoked"):
        cluster.create(quarantine(namespace, name), user=OPERATOR)
        further = quarantine(namespace, f"{name}-2")
        further["spec"]["continues"] = name
        cluster.create(further, user=OPERATOR)
    kept, widened = taken_out(cluster, namespace)
    status = {
        "disabledTokens": [*tokens, namesake],
        "preImages": [
            {
                "apiVersion": "v1",
                "kind": "RoleBinding",
                "name": "b",
                "uid": UID,
                "roleRef": {"kind": "Role", "name": "r"},
                "removed": [{"index": 0, "subject": {"kind": "ServiceAccount", "name": "ci"}}],
            },
            widened,
        ],
    }
    cluster.patch(
        "quarantines", "serviceaccount-ci", {"status": status}, namespace, subresource="status", user=OPERATOR
    )

    # The rest of what one took out continues in a further object; nothing is put back of what was revoked.
    gone = {"kind": "ServiceAccount", "name": "ci", "uid": UID, "done": "2026-12-04T00:00:00Z"}
    emptied = [{**kept, "name": name, "uid": f"uid-{name}"} for name in ("emptied-a", "emptied-b")]
    for name, part in (
        ("serviceaccount-ci-2", {"preImages": [kept]}),
        ("revoked", {"revoked": [gone], "preImages": emptied[:1]}),
        ("revoked-2", {"preImages": emptied[1:]}),
    ):
        cluster.patch("quarantines", name, {"status": part}, namespace, subresource="status", user=OPERATOR)

    done = script(cluster, "uninstall.sh")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "emptied" not in done.stdout
    assert f"token Secret {namespace}/ci-token works again" in done.stdout
    assert "ServiceAccount ci is not put back into RoleBinding b: that binding is gone" in done.stdout
    assert f"ServiceAccount ci is back in RoleBinding {namespace}/kept" in done.stdout
    why = "Role narrow grants something else by now"
    assert f"ServiceAccount ci is not put back into RoleBinding {namespace}/widened: {why}" in done.stdout
    after = inventory(cluster)
    after["namespaces"] -= {namespace}
    assert after == before

    # What was quarantined works again, exactly as it did.
    kept, widened = (cluster.get("rolebindings", name, namespace) or {} for name in ("kept", "widened"))
    assert [subject["name"] for subject in kept["subjects"]] == ["alice", "ci", f"system:serviceaccount:{namespace}:ci"]
    assert "tenure.dev/removed-subjects" not in kept["metadata"].get("annotations", {})
    assert "subjects" not in widened
    cluster._resources.clear()
    assert cluster.token_works(value)
    labels = {
        name: (cluster.get("secrets", name, namespace) or {})["metadata"].get("labels", {}).get(OFF)
        for name in ("ci-token", "older", "namesake")
    }
    assert labels == {"ci-token": None, "older": "2020-01-01", "namesake": "2026-12-04"}
    cluster.create(pod(namespace, "late"))
    cluster.token(namespace, "ci")
    cluster.delete_namespace(namespace, wait=True)

    # Nothing of the first life disturbs the next.
    cluster.install()
    assert refuses_a_finding(cluster)
    service_account(cluster, "default", "ci")
    cluster.create(guard("default", serviceAccounts=quarantined), user=OPERATOR)
    eventually(lambda: _refused(cluster, pod("default", "early")))

    # And its end, from what is half there.
    cluster.create(quarantine("default"), user=OPERATOR)
    cluster.delete("customresourcedefinitions", "identityfindings.tenure.dev")
    cluster.delete("validatingadmissionpolicybindings", "tenure-own-quarantines")
    cluster.delete_namespace("tenure-system")
    cluster.delete("customresourcedefinitions", "quarantines.tenure.dev")  # held by the finalizer
    halfway = script(cluster, "uninstall.sh")
    assert halfway.returncode == 0, halfway.stdout + halfway.stderr
    assert inventory(cluster) == before


def _refused(cluster: Cluster, manifest: Json) -> bool:
    path = f"{cluster.path_of(manifest).rpartition('/')[0]}?dryRun=All"
    status, answer = cluster.request("POST", path, manifest)
    return status == 403 and "is quarantined" in answer["message"]


def test_installing_again_changes_nothing(installed: Cluster) -> None:
    def versions() -> dict[str, tuple[str, int]]:
        return {
            f"{resource}/{item['metadata']['name']}": (item["metadata"]["uid"], item["metadata"].get("generation", 0))
            for resource in (
                "customresourcedefinitions",
                "validatingadmissionpolicies",
                "mutatingadmissionpolicies",
                "clusterroles",
            )
            for item in installed.list(resource)
        }

    before = versions()
    done = script(installed, "install.sh")
    assert done.returncode == 0, done.stderr
    assert "tenure: stamps: this API server writes by, grantedBy and requestedBy itself" in done.stdout
    assert done.stdout.splitlines()[-1] == "tenure: installed"
    assert done.stderr == ""
    assert versions() == before


@pytest.mark.long
@pytest.mark.local
def test_before_stamps_it_says_so_and_goes_without_a_trace(fresh_cluster: Callable[..., Any]) -> None:
    cluster: Cluster = fresh_cluster(version="1.33", audit=False)
    older = tuple(resource for resource in CLUSTER_WIDE if not resource.startswith("mutatingadmission"))

    def there() -> dict[str, set[str]]:
        return {resource: {item["metadata"]["name"] for item in cluster.list(resource)} for resource in older}

    before = there()
    done = script(cluster, "install.sh")
    assert done.returncode == 0, done.stderr
    assert "tenure: no stamps: this API server has none" in done.stdout
    with pytest.raises(ApiError, match=r"spec\.requestedBy is missing"):
        cluster.create(exception("default"))
    done = script(cluster, "uninstall.sh")
    assert done.returncode == 0, done.stderr
    assert there() == before


@pytest.mark.long
@pytest.mark.local
@pytest.mark.parametrize("version", ["1.36", "1.33"])
def test_elsewhere_and_beside_a_platform_of_its_own(
    fresh_cluster: Callable[..., Any], operator: Callable[..., Operator], version: str
) -> None:
    """In a namespace of another name, and with namespaces that the guards skip: kept when unset, proven, gone."""
    cluster: Cluster = fresh_cluster(version=version, audit=False)
    before = inventory(cluster)
    taken, platform, used = (cluster.namespace(name) for name in ("taken", "cattle", "used"))
    where = {"TENURE_OPERATOR_NAMESPACE": "security"}
    skipped = {"TENURE_PLATFORM_NAMESPACES": f"kube-system,{platform}"}

    def said(**extra: str) -> str:
        done = script(cluster, "install.sh", **extra)
        return done.stdout + done.stderr

    for name, why in {"default": "no name for a namespace of its own", "kube-x": "own", taken: "not Tenure's"}.items():
        assert why in said(TENURE_OPERATOR_NAMESPACE=name)
    assert "no patterns" in said(TENURE_PLATFORM_NAMESPACES="cattle-*")
    assert "the operator's own" in said(**where, TENURE_PLATFORM_NAMESPACES="security")
    assert inventory(cluster)["customresourcedefinitions"] == before["customresourcedefinitions"]

    told = said(**where, **skipped, DENYWRITES="1", ENTITLEMENTS="1")
    assert "the operator is told its namespace: TENURE_OPERATOR_NAMESPACE=security" in told
    assert f"the guards skip {platform}; " in told
    assert "Tenure is installed in security, not in tenure-system" in said(TENURE_OPERATOR_NAMESPACE="tenure-system")
    cluster._resources.clear()
    assert cluster.get("namespaces", "tenure-system") is None
    again = {name: cluster.get("validatingadmissionpolicies", name) for name in SKIPPING}
    assert f"the guards skip {platform}; " in said()  # unset: as it is, namespace and platform
    assert {name: cluster.get("validatingadmissionpolicies", name) for name in SKIPPING} == again

    own = "system:serviceaccount:security:tenure"
    for place in (platform, used):
        service_account(cluster, place, "ci")
        quarantined = {"ci": entry(f"{place}/serviceaccount-ci")}
        cluster.create(guard(place, serviceAccounts=quarantined), user=own)
    eventually(lambda: _refused(cluster, pod(used, "new")), what="the guard is in force")
    assert not _refused(cluster, pod(platform, "new"))

    started = operator(cluster.kubeconfig, environment={**where, **skipped})
    stages = ("Guard", "DisableTokens", "RemoveEntitlements", "DenyWrites")

    def effective() -> list[float]:
        return [started.metrics().value("tenure_enforcement_effective", stage=stage) for stage in stages]

    eventually(lambda: effective() == [1.0] * 4, what="every stage is proven")
    assert f"the guards skip {platform}" not in said(TENURE_PLATFORM_NAMESPACES="")
    eventually(lambda: cluster.get("quarantineguards", "guard", platform) is None, what="what no Quarantine says goes")
    started.kill()
    cluster.create(guard(platform, serviceAccounts=quarantined), user=own)
    eventually(lambda: _refused(cluster, pod(platform, "new")), what="nobody's platform any more")

    done = script(cluster, "uninstall.sh")
    assert done.returncode == 0, done.stdout + done.stderr
    after = inventory(cluster)
    after["namespaces"] -= {taken, platform, used}
    assert after == before


def test_a_changed_policy_is_put_back_whole(installed: Cluster) -> None:
    """An upgrade replaces: variables keep the file's order, whatever stood there."""
    found = installed.get("validatingadmissionpolicies", "tenure-guard-bindings")
    assert found is not None
    spec = found["spec"]
    changed = [*reversed([v for v in spec["variables"] if "variables." not in v["expression"]])]
    installed.patch(
        "validatingadmissionpolicies",
        "tenure-guard-bindings",
        {"spec": {"variables": changed, "validations": [{"expression": "true"}]}},
    )
    assert script(installed, "install.sh").returncode == 0
    again = installed.get("validatingadmissionpolicies", "tenure-guard-bindings")
    assert again is not None
    assert again["spec"] == spec


def test_without_rights_it_says_which_one_is_missing(installed: Cluster) -> None:
    nobody = installed.user("nobody")
    for name in ("install.sh", "uninstall.sh"):
        done = script(installed, name, kubeconfig=nobody)
        assert done.returncode != 0
        assert "nobody" in done.stderr
        assert "forbidden" in done.stderr.lower()
    assert refuses_a_finding(installed)  # nothing was taken away


def test_without_an_api_server_it_says_so(installed: Cluster, tmp_path: Path) -> None:
    nowhere = tmp_path / "kubeconfig"
    nowhere.write_text(
        "apiVersion: v1\nkind: Config\nclusters: [{name: a, cluster: {server: 'https://127.0.0.1:1'}}]\n"
        "contexts: [{name: a, context: {cluster: a, user: a}}]\ncurrent-context: a\nusers: [{name: a, user: {}}]\n"
    )
    for name in ("install.sh", "uninstall.sh"):
        done = script(installed, name, kubeconfig=nowhere)
        assert done.returncode != 0
        assert "tenure: no API server answers" in done.stderr
