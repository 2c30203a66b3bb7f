"""The opt-in stage DenyWrites: every write of a quarantined identity is refused, whatever group grants it. By a real
operator, on the oldest and the newest Kubernetes, with a token that was issued before and is bound to cluster-admin."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.test_admission_decisions import install
from tests.support import scenario
from tests.support.cluster import ApiError, Cluster, eventually
from tests.support.operator import Operator
from tests.support.rest import Json
from tests.support.scenario import RBAC, claim, claimant, deadline, finding_of, owner, policy, quarantine_of

pytestmark = [pytest.mark.local, pytest.mark.long]


@pytest.fixture(scope="module", params=["1.33", "1.36"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster.local(version=request.param, audit=False) as made:  # installing it is for a whole cluster
        made.install()
        made.create(owner("team"))
        claimant(made, "carla", "team")
        with Operator(made.kubeconfig, directory=tmp_path_factory.mktemp("operator")):
            yield made


def stages(cluster: Cluster, place: str) -> dict[str, bool]:
    """Of the Quarantine of `ci`: whether each stage that it knows of is verified."""
    held = quarantine_of(cluster, place, "ci") or {}
    return {stage["name"]: bool(stage.get("verified")) for stage in held.get("status", {}).get("stages", ())}


def blocked(cluster: Cluster, place: str) -> Json:
    found = finding_of(cluster, place, "Unowned", "ci")
    return next((c for c in found["status"]["conditions"] if c["type"] == "Blocked"), {}) if found else {}


def writes(cluster: Cluster, place: str, name: str, token: str, kind: str = "ConfigMap") -> str:
    """ "" when the identity may create it, else what the API server says."""
    metadata = {"name": name} if kind == "Namespace" else {"name": name, "namespace": place}
    try:
        cluster.create({"apiVersion": "v1", "kind": kind, "metadata": metadata}, token=token)
    except ApiError as error:
        return str(error)
    return ""


def test_it_refuses_every_write_and_no_read_where_it_is_installed(cluster: Cluster) -> None:
    place = cluster.namespace("writers")
    cluster.patch("namespaces", place, {"metadata": {"labels": {"test": place}}})
    for account in ("ci", "other"):
        cluster.create(scenario.service_account(place, account))
        binding = {
            "apiVersion": f"{RBAC}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": f"{place}-{account}"},
            "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": place}],
        }
        cluster.create(binding)
    token, others = cluster.token(place, "ci"), cluster.token(place, "other")
    eventually(lambda: not writes(cluster, place, "before", token), what="the binding known")
    cluster.create(claim(place, "team", name="other", accounts=["other"]), user="carla")
    entry = deadline("Unowned", stages=["Guard", "DisableTokens", "DenyWrites"])
    cluster.delete("serviceaccounts", "ci", place)  # its finding was opened before the policy was there
    scenario.govern(cluster, policy(place, entry, labels={"test": place}))
    cluster.create(scenario.service_account(place, "ci"))
    token = cluster.token(place, "ci")

    def waits() -> Json | None:
        said = blocked(cluster, place)
        return said if said.get("reason") == "DenyWritesMissing" else None

    # Without it the other stages stand, and the finding says what to do.
    said = eventually(waits, what="the stage missed")
    assert "make install DENYWRITES=1" in said["message"]
    assert stages(cluster, place) == {"Guard": True, "DisableTokens": True}
    assert writes(cluster, place, "missing", token) == ""

    assert "the stage DenyWrites (DENYWRITES=1)" in install(cluster, DENYWRITES="1")
    eventually(lambda: stages(cluster, place).get("DenyWrites"), what="the stage in force")
    eventually(lambda: blocked(cluster, place) == {}, what="nothing blocked any more")
    held = quarantine_of(cluster, place, "ci")
    assert held is not None
    for kind in ("ConfigMap", "Namespace"):
        answer = writes(
            cluster, place, f"after-{kind.lower()}", token, kind
        )  # at once: verified says that it is in force
        assert f"system:serviceaccount:{place}:ci is quarantined and writes nothing" in answer
        assert f"kubectl delete quarantine {held['metadata']['name']} -n {place}" in answer
    with pytest.raises(ApiError, match="is quarantined and writes nothing"):
        cluster.patch("configmaps", "before", {"data": {"a": "b"}}, place, token=token)
    with pytest.raises(ApiError, match="is quarantined and writes nothing"):
        cluster.delete("configmaps", "before", place, token=token)
    assert cluster.rest.expect("GET", cluster.path("configmaps", "before", place), token=token)["kind"] == "ConfigMap"
    assert writes(cluster, place, "others", others) == ""

    # A claim gives it back, and taking the stage away leaves nothing of it.
    cluster.create(claim(place, "team", name="ci", accounts=["ci"]), user="carla")
    eventually(lambda: quarantine_of(cluster, place, "ci") is None, what="released")
    eventually(lambda: not writes(cluster, place, "again", token), what="writes let in again")
    assert "taking away the stage DenyWrites" in install(cluster, DENYWRITES="0")
    assert cluster.get("validatingadmissionpolicies", "tenure-deny-writes") is None
    assert cluster.get("validatingadmissionpolicybindings", "tenure-deny-writes") is None


def test_installing_again_leaves_it_as_it_is(cluster: Cluster) -> None:
    install(cluster, DENYWRITES="1")
    install(cluster)
    assert cluster.get("validatingadmissionpolicies", "tenure-deny-writes") is not None
    assert "DENYWRITES is 1, 0 or unset" in install(cluster, DENYWRITES="yes")
    install(cluster, DENYWRITES="0")
