"""Tenure taken out in any order blocks no pod, token, binding or Secret, and no namespace but one that holds a
Quarantine with its finalizer; the documented kubectl line frees that, with the policies there and with them gone."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support import scenario
from tests.support.cluster import REPOSITORY, ApiError, Cluster, eventually
from tests.support.operator import Operator
from tests.support.scenario import HOME, OFF, RBAC, deadline, phase_of, policy, quarantine_of, switched_off, token_of

pytestmark = [pytest.mark.local, pytest.mark.long]

Step = Callable[[Cluster, Operator], Any]
OURS = "app.kubernetes.io/part-of=tenure"
ADMISSION = ("validatingadmissionpolicies", "mutatingadmissionpolicies")
RIGHTS = ("clusterrolebindings", "clusterroles")


def ours(cluster: Cluster, resource: str) -> list[str]:
    """Names of what the installation brought, cluster-wide."""
    return [
        found["metadata"]["name"]
        for found in cluster.list(resource)
        if found["metadata"].get("labels", {}).get("app.kubernetes.io/part-of") == "tenure"
    ]


def no_operator(cluster: Cluster, operator: Operator) -> None:
    operator.kill()


def no_policies(cluster: Cluster, operator: Operator) -> None:
    """The policies before their bindings, which is the wrong way round."""
    for resource in (*ADMISSION, *(f"{name.removesuffix('ies')}ybindings" for name in ADMISSION)):
        if resource.startswith("mutating") and not cluster.control_plane_serves_stamps:  # type: ignore[attr-defined]
            continue
        for name in ours(cluster, resource):
            cluster.delete(resource, name)


def no_kinds(cluster: Cluster, operator: Operator) -> None:
    for name in ours(cluster, "customresourcedefinitions"):
        cluster.delete("customresourcedefinitions", name)


def no_rights(cluster: Cluster, operator: Operator) -> None:
    for resource in RIGHTS:
        for name in ours(cluster, resource):
            cluster.delete(resource, name)


def no_home(cluster: Cluster, operator: Operator) -> None:
    cluster.delete("namespaces", HOME)


ORDERS: dict[str, tuple[Step, ...]] = {
    "kinds first": (no_kinds, no_policies, no_operator, no_rights, no_home),
    "policies first": (no_policies, no_operator, no_kinds, no_rights, no_home),
    "operator first": (no_operator, no_kinds, no_policies, no_rights, no_home),
    # Argo CD prunes in the reverse of its order of kinds: what runs, rights, CRDs, the namespace; others as they come.
    "argo's prune order": (no_operator, no_rights, no_kinds, no_home, no_policies),
    "its namespace": (no_home, no_operator),
}


def works(cluster: Cluster, namespace: str, mark: str) -> None:
    """Pods, tokens, bindings and Secrets where nothing is quarantined, and a new namespace's end."""
    metadata = {"name": mark, "namespace": namespace}
    container = {"name": "main", "image": "registry.example/none"}
    cluster.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
    for where in (namespace, "default", "kube-system"):
        pod = {"containers": [container], "serviceAccountName": mark if where == namespace else "default"}
        cluster.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": mark, "namespace": where}, "spec": pod})
    assert cluster.token(namespace, mark)
    subject = {"kind": "ServiceAccount", "name": mark, "namespace": namespace}
    role = {"apiGroup": RBAC, "kind": "ClusterRole", "name": "view"}
    about = {"apiVersion": f"{RBAC}/v1", "roleRef": role, "subjects": [subject]}
    cluster.create({**about, "kind": "RoleBinding", "metadata": metadata})
    cluster.create({**about, "kind": "ClusterRoleBinding", "metadata": {"name": f"{namespace}-{mark}"}})
    cluster.create({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"api_key": "none"}})
    cluster.delete("secrets", mark, namespace)
    passing = cluster.namespace(mark)
    cluster.delete("namespaces", passing)
    eventually(lambda: cluster.get("namespaces", passing) is None, 60, what="a namespace's end")


@pytest.fixture
def made(
    request: pytest.FixtureRequest, fresh_cluster: Callable[..., Cluster], tmp_path: Any
) -> Iterator[tuple[Cluster, Operator, str]]:
    """A cluster in which Tenure holds an identity in quarantine, and the namespace of that."""
    cluster = fresh_cluster(version=request.param, audit=False, installed=True)
    cluster.control_plane_serves_stamps = request.param == "1.36"  # type: ignore[attr-defined]
    with Operator(cluster.kubeconfig, directory=tmp_path / "operator") as operator:
        place = cluster.namespace("held", labels={"test": "held"})
        scenario.govern(cluster, policy("held", deadline("Unowned"), labels={"test": "held"}))
        scenario.identity(cluster, place, "ci", ["ci-token"])
        eventually(lambda: phase_of(cluster, place, "Unowned", "ci") == "Quarantined", what="quarantined")
        yield cluster, operator, place


def free(cluster: Cluster, place: str) -> None:
    """The line of docs/enforcement.md, by somebody who may release."""
    found = quarantine_of(cluster, place, "ci")
    assert found is not None
    text = (REPOSITORY / "docs" / "enforcement.md").read_text()
    [line] = [line for line in text.splitlines() if line.startswith("kubectl patch quarantine NAME -n NAMESPACE")]
    done = subprocess.run(
        ["bash", "-c", line.replace("NAMESPACE", place).replace("NAME", found["metadata"]["name"])],
        env=cluster.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("made", ["1.33", "1.36"], indirect=True)
@pytest.mark.parametrize("order", list(ORDERS))
def test_in_any_order_nothing_is_blocked(made: tuple[Cluster, Operator, str], order: str) -> None:
    cluster, operator, place = made
    plain = cluster.namespace("plain")
    for number, step in enumerate(ORDERS[order]):
        step(cluster, operator)
        works(cluster, plain, f"after-{number}")
    if cluster.get("customresourcedefinitions", "quarantines.tenure.dev") and quarantine_of(cluster, place, "ci"):
        free(cluster, place)
    cluster.delete("namespaces", place)
    eventually(lambda: cluster.get("namespaces", place) is None, 90, what="the end of the namespace that held one")


@pytest.mark.parametrize("made", ["1.33", "1.36"], indirect=True)
@pytest.mark.parametrize("policies", ["there", "gone"])
def test_the_documented_line_frees_a_namespace_that_holds_a_quarantine(
    made: tuple[Cluster, Operator, str], policies: str
) -> None:
    cluster, operator, place = made
    operator.kill()
    if policies == "gone":
        no_policies(cluster, operator)
    cluster.delete("namespaces", place)

    def waits() -> bool:
        found = cluster.get("namespaces", place) or {}
        said = found.get("status", {}).get("conditions", ())
        return any("tenure.dev/restore" in condition.get("message", "") for condition in said)

    eventually(waits, 60, what="the namespace says what it waits for")
    with pytest.raises(ApiError):  # nothing new in it meanwhile
        cluster.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": place}})
    free(cluster, place)
    eventually(lambda: cluster.get("namespaces", place) is None, 60, what="its end")


@pytest.mark.parametrize("made", ["1.33", "1.36"], indirect=True)
def test_after_a_reinstallation_the_quarantine_alone_suffices(made: tuple[Cluster, Operator, str]) -> None:
    """The operator's memory, its findings and guards are gone, and its policies were installed anew: what stands in the
    Quarantine gives back what was taken, once."""
    cluster, operator, place = made
    operator.kill()
    held = quarantine_of(cluster, place, "ci")
    assert held is not None
    assert switched_off(cluster, place, "ci-token")
    cluster.patch("governancepolicies", "held", {"spec": {"suspend": True}})
    no_policies(cluster, operator)
    cluster.delete("configmaps", "tenure-state", HOME)
    for found in cluster.list("identityfindings", place):
        eventually(lambda name=found["metadata"]["name"]: gone(cluster, name, place))  # type: ignore[misc]
    cluster.delete("quarantineguards", "guard", place)
    cluster.install()
    scenario.releaser(cluster, "rita")
    operator.start()
    operator.wait_ready()
    cluster.delete("quarantines", held["metadata"]["name"], place, user="rita")
    eventually(lambda: quarantine_of(cluster, place, "ci") is None, 60, what="released")
    token = cluster.get("secrets", "ci-token", place)
    assert token is not None
    assert OFF not in token["metadata"].get("labels", {})
    assert cluster.token_works(token_of(cluster, place, "ci-token"))


def gone(cluster: Cluster, name: str, place: str) -> bool:
    """Deletes the finding; the policies that protect it stay in force for a second after they are gone."""
    cluster.delete("identityfindings", name, place)
    return cluster.get("identityfindings", name, place) is None
