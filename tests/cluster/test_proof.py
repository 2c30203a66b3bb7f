"""What the operator proves of its own enforcement before it acts, and that it acts on nothing while the proof fails.
By a real operator, on the oldest and the newest Kubernetes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from tests.support import scenario
from tests.support.cluster import REPOSITORY, Cluster, eventually
from tests.support.operator import Operator
from tests.support.rest import Json
from tests.support.scenario import (
    HOME,
    LAST_USED,
    OFF,
    deadline,
    finding_of,
    phase_of,
    policy,
    quarantine_of,
    token_of,
)

pytestmark = [pytest.mark.local, pytest.mark.long]

POLICIES = "validatingadmissionpolicies"
BINDINGS = "validatingadmissionpolicybindings"
STAGES = ("Guard", "DisableTokens")
PROOF = "tenure-proof"


@pytest.fixture(scope="module", params=["1.33", "1.36"])
def governed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    with Cluster.local(version=request.param, audit=False) as cluster:  # its policies are taken away
        cluster.install()
        with Operator(cluster.kubeconfig, directory=tmp_path_factory.mktemp("operator")) as operator:
            operator.cluster = cluster  # type: ignore[attr-defined]
            yield operator


@pytest.fixture
def cluster(governed: Operator) -> Cluster:
    return governed.cluster  # type: ignore[attr-defined, no-any-return]


@pytest.fixture
def place(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    name = cluster.namespace(request.node.name.removeprefix("test_")[:40])
    cluster.patch("namespaces", name, {"metadata": {"labels": {"test": name}}})
    yield name
    cluster.delete("governancepolicies", name)


@pytest.fixture
def effective(governed: Operator) -> Callable[[str], float]:
    return lambda stage: governed.metrics()["tenure_enforcement_effective", frozenset({("stage", stage)})]


def reason(cluster: Cluster, place: str) -> str:
    """Why the act on the identity is held."""
    found = finding_of(cluster, place, "Unowned", "ci")
    said = {c["type"]: c["reason"] for c in found["status"]["conditions"]} if found else {}
    return said.get("Blocked", "")


def remove(cluster: Cluster, resource: str, name: str) -> Callable[[], Any]:
    """Takes it away; what is returned puts it back."""
    found = cluster.get(resource, name)
    assert found is not None
    again = {**found, "metadata": {k: found["metadata"][k] for k in ("name", "labels")}}
    again.pop("status", None)
    cluster.delete(resource, name)
    return lambda: cluster.create(again)


def change(resource: str, name: str, patch: Json, back: Json) -> Callable[[Cluster], Callable[[], Any]]:
    def changed(cluster: Cluster) -> Callable[[], Any]:
        cluster.patch(resource, name, patch)
        return lambda: cluster.patch(resource, name, back)

    return changed


def synthetic(cluster: Cluster) -> None:
    """The synthetic identity as `make install` puts it back."""
    for manifest in yaml.safe_load_all((REPOSITORY / "deploy" / "00-namespace.yaml").read_text()):
        if manifest["metadata"]["name"] == PROOF:
            cluster.apply(manifest)


def without_account(cluster: Cluster) -> Callable[[], Any]:
    """Its token Secret goes with it."""
    cluster.delete("serviceaccounts", PROOF, HOME)
    eventually(lambda: cluster.get("secrets", PROOF, HOME) is None, what="its token gone")
    return lambda: synthetic(cluster)


def without_token(cluster: Cluster) -> Callable[[], Any]:
    cluster.delete("secrets", PROOF, HOME)
    return lambda: synthetic(cluster)


def switched_on(cluster: Cluster) -> Callable[[], Any]:
    cluster.patch("secrets", PROOF, {"metadata": {"labels": {OFF: None}}}, HOME)
    return lambda: cluster.patch("secrets", PROOF, {"metadata": {"labels": {OFF: "2000-01-01"}}}, HOME)


def another_token(cluster: Cluster) -> Callable[[], Any]:
    """The API server refuses it too, but not for its label: it is not the one that it knows."""
    cluster.patch("secrets", PROOF, {"metadata": {"labels": {LAST_USED: None}}, "stringData": {"token": "x.y.z"}}, HOME)

    def back() -> None:
        cluster.delete("secrets", PROOF, HOME)
        synthetic(cluster)

    return back


FAULTS: dict[str, tuple[Callable[[Cluster], Callable[[], Any]], tuple[str, ...]]] = {
    "a guard is not bound": (lambda cluster: remove(cluster, BINDINGS, "tenure-guard-tokens"), ("Guard",)),
    "a guard is missing": (lambda cluster: remove(cluster, POLICIES, "tenure-guard-secrets"), STAGES),
    "a guard only warns": (
        change(
            BINDINGS,
            "tenure-guard-pods",
            {"spec": {"validationActions": ["Warn"]}},
            {"spec": {"validationActions": ["Deny"]}},
        ),
        ("Guard",),
    ),
    "a guard is narrower": (
        change(
            BINDINGS,
            "tenure-guard-pods",
            {"spec": {"matchResources": {"namespaceSelector": {"matchLabels": {"a": "b"}}}}},
            {"spec": {"matchResources": None}},
        ),
        ("Guard",),
    ),
    "nobody holds the operator": (lambda cluster: remove(cluster, BINDINGS, "tenure-limit-operator"), STAGES),
    "nobody holds its pods to dry runs": (lambda cluster: remove(cluster, POLICIES, "tenure-limit-proof"), STAGES),
    "the synthetic identity is gone": (without_account, STAGES),
    "the synthetic token is gone": (without_token, STAGES),
    "the synthetic token is switched on": (switched_on, STAGES),
    "the synthetic token is refused for another reason": (another_token, ("DisableTokens",)),
}


def test_in_peace_every_stage_is_effective(effective: Callable[[str], float]) -> None:
    for stage in STAGES:
        eventually(lambda stage=stage: effective(stage) == 1, what=f"{stage} effective")  # type: ignore[misc]


@pytest.mark.parametrize("fault", list(FAULTS))
def test_while_the_proof_fails_nothing_is_acted_on_and_then_it_goes_on(
    cluster: Cluster, place: str, effective: Callable[[str], float], fault: str
) -> None:
    break_it, stages = FAULTS[fault]
    eventually(lambda: all(effective(stage) == 1 for stage in STAGES), what="effective before")
    mend = break_it(cluster)
    try:
        scenario.govern(cluster, policy(place, deadline("Unowned"), labels={"test": place}))
        scenario.identity(cluster, place, "ci", ["ci-token"])
        token = token_of(cluster, place, "ci-token")
        eventually(lambda: reason(cluster, place) == "NotEffective", what="the act held")
        for stage in STAGES:
            assert effective(stage) == (0 if stage in stages else 1), stage
        assert quarantine_of(cluster, place, "ci") is None
        assert cluster.token_works(token)
    finally:
        mend()
    eventually(lambda: phase_of(cluster, place, "Unowned", "ci") == "Quarantined", what="acted on once mended")
    assert all(effective(stage) == 1 for stage in STAGES)


def test_a_policy_taken_away_is_noticed_by_itself(
    cluster: Cluster, effective: Callable[[str], float], governed: Operator
) -> None:
    """No act is due: the watch alone says so, and what is wrong stands in the log."""
    eventually(lambda: effective("Guard") == 1, what="effective before")
    mend = remove(cluster, BINDINGS, "tenure-guard-bindings")
    try:
        eventually(lambda: effective("Guard") == 0, what="noticed")
        said = "ValidatingAdmissionPolicyBinding/tenure-guard-bindings is missing; `make install` puts it back"
        assert said in governed.log_tail(40)
    finally:
        mend()
    eventually(lambda: effective("Guard") == 1, what="noticed again")


def test_nothing_is_revoked_while_the_proof_fails(cluster: Cluster, place: str) -> None:
    scenario.govern(cluster, policy(place, deadline("Unowned", revoke_after="4s"), labels={"test": place}))
    scenario.identity(cluster, place, "ci", ["ci-token"])
    eventually(lambda: phase_of(cluster, place, "Unowned", "ci") == "Quarantined", what="quarantined")
    mend = remove(cluster, BINDINGS, "tenure-guard-secrets")
    try:
        eventually(lambda: reason(cluster, place) == "NotEffective", what="revocation held")
        assert cluster.get("secrets", "ci-token", place) is not None
    finally:
        mend()
    eventually(lambda: cluster.get("secrets", "ci-token", place) is None, what="revoked once mended")
