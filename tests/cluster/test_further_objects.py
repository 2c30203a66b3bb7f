"""A Quarantine whose pre-images continue in a further object: whatever somebody does to one of the two, nothing of what
they remember is lost, and after a reinstallation they alone suffice."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.cluster.test_commands import tenure
from tests.cluster.test_removal import ours
from tests.support import scenario
from tests.support.cluster import Cluster, eventually
from tests.support.operator import Operator
from tests.support.rest import Json
from tests.support.scenario import HOME, RBAC, REMOVED, RESTORE, allow, deadline, policy, quarantine_of, rule

pytestmark = [pytest.mark.local, pytest.mark.long]

NAMES = tuple(f"often-{number:02}" for number in range(17))


@pytest.fixture(scope="module", params=["1.33", "1.36"])
def governed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Cluster, Operator]]:
    """A cluster of this file alone: its operator ends and starts, and Tenure is taken out of it and installed again."""
    with Cluster.local(version=request.param, audit=False) as cluster:
        cluster.install(entitlements=True)
        rights = ["get", "list", "delete", "patch", "release"]
        allow(cluster, "rita", "test-release-rita", rule("tenure.dev", ["quarantines"], rights))
        with Operator(cluster.kubeconfig, directory=tmp_path_factory.mktemp("operator")) as operator:
            yield cluster, operator


@pytest.fixture
def place(governed: tuple[Cluster, Operator], request: pytest.FixtureRequest) -> Iterator[str]:
    """A ServiceAccount that is bound so often, as often as one binding may name it, that one object has no room for
    what is to be remembered of it. Its policy is suspended."""
    cluster, _ = governed
    place = cluster.namespace("bound-often")
    cluster.patch("namespaces", place, {"metadata": {"labels": {"test": place}}})
    about = {"name": "reader", "namespace": place}
    rules = [rule("", ["configmaps"], ["get"])]
    cluster.create({"apiVersion": f"{RBAC}/v1", "kind": "Role", "metadata": about, "rules": rules})
    user = {"kind": "User", "apiGroup": RBAC, "name": f"system:serviceaccount:{place}:ci"}
    role = {"apiGroup": RBAC, "kind": "Role", "name": "reader"}
    for name in NAMES:
        binding: Json = {"apiVersion": f"{RBAC}/v1", "kind": "RoleBinding", "roleRef": role}
        cluster.create({**binding, "metadata": {"name": name, "namespace": place}, "subjects": [user] * 256})
    revoked = {"revoke_after": "1s"} if "revoked" in request.node.name else {}
    taken = deadline("Unowned", stages=["Guard", "RemoveEntitlements"], **revoked)
    scenario.govern(cluster, policy(place, taken, labels={"test": place}, suspend=True))
    cluster.create(scenario.service_account(place, "ci"))
    yield place
    cluster.delete("governancepolicies", place)
    cluster.delete_namespace(place)


def act(cluster: Cluster, place: str) -> tuple[Json, Json]:
    """Lets it be quarantined, and no more after that; the Quarantine and its further object."""
    cluster.patch("governancepolicies", place, {"spec": {"suspend": False}})

    def verified() -> bool:
        stages = (quarantine_of(cluster, place, "ci") or {}).get("status", {}).get("stages", [])
        return len(stages) == 2 and all(stage.get("verified") for stage in stages)

    eventually(verified, 60, what="quarantined")
    cluster.patch("governancepolicies", place, {"spec": {"suspend": True}})
    assert standing(cluster, place) == [0] * len(NAMES)
    first, further = held(cluster, place)
    assert (len(first["status"]["preImages"]), len(further["status"]["preImages"])) == (14, 3)
    return first, further


def held(cluster: Cluster, place: str) -> list[Json]:
    return sorted(cluster.list("quarantines", place), key=lambda found: len(found["metadata"]["name"]))


def standing(cluster: Cluster, place: str) -> list[int]:
    """How often each binding names it."""
    return [len(binding.get("subjects") or ()) for binding in cluster.list("rolebindings", place)]


def all_back(cluster: Cluster, place: str) -> None:
    eventually(lambda: not held(cluster, place), 60, what="nothing is left of the Quarantine")
    assert standing(cluster, place) == [256] * len(NAMES)
    found = cluster.list("rolebindings", place)
    assert not any(REMOVED in binding["metadata"].get("annotations", {}) for binding in found)


def take_away(cluster: Cluster, one: Json) -> None:
    """As somebody who may release, by the line for where the operator is gone."""
    name, place = one["metadata"]["name"], one["metadata"]["namespace"]
    cluster.patch("quarantines", name, {"metadata": {"finalizers": None}}, place, user="rita")
    cluster.delete("quarantines", name, place, user="rita")


def test_whichever_object_somebody_takes_away_nothing_is_lost(governed: tuple[Cluster, Operator], place: str) -> None:
    cluster, operator = governed
    first, further = act(cluster, place)
    take_away(cluster, further)

    def again() -> bool:
        there = held(cluster, place)
        return (
            len(there) == 2
            and there[1]["metadata"]["uid"] != further["metadata"]["uid"]
            and there[1].get("status", {}).get("preImages") == further["status"]["preImages"]
            and there[1]["metadata"]["finalizers"] == [RESTORE]
        )

    eventually(again, 30, what="it is written again")
    assert standing(cluster, place) == [0] * len(NAMES)

    take_away(cluster, first)
    all_back(cluster, place)

    # While the operator is away what the first one remembered goes with it, which docs/enforcement.md says.
    first, further = act(cluster, place)
    operator.kill()
    take_away(cluster, first)
    operator.start()
    operator.wait_ready()
    eventually(lambda: not held(cluster, place), 60, what="the further object is gone too")
    back = {image["name"] for image in further["status"]["preImages"]}
    assert standing(cluster, place) == [256 if name in back else 0 for name in NAMES]


def test_after_a_reinstallation_the_objects_alone_suffice(governed: tuple[Cluster, Operator], place: str) -> None:
    cluster, operator = governed
    first, further = act(cluster, place)
    told = tenure(cluster.user("rita"), "release", "--all", "--reason", "tests", "-n", place)
    assert "Nobody can be asked" in told.stdout
    assert f"{first['metadata']['name']}:" in told.stdout
    assert f"{further['metadata']['name']}:" not in told.stdout
    named = f"quarantine/{further['metadata']['name']}"
    refused = tenure(cluster.user("rita"), "release", named, "--reason", "tests", "-n", place)
    assert "goes with it: decide on that one" in " ".join(refused.stderr.split())
    operator.kill()
    left = tenure(cluster.kubeconfig, "leave", "--policies", ",".join(ours(cluster, "validatingadmissionpolicies")))
    assert left.returncode == 0, left.stderr
    said = " ".join(left.stdout.split())
    assert all(f"stays out of RoleBinding {place}/{name} (Quarantine" in said for name in NAMES)
    assert not any(one["metadata"].get("finalizers") for one in held(cluster, place))

    cluster.delete("configmaps", "tenure-state", HOME)
    with ThreadPoolExecutor(8) as pool:
        for kind in ("identityfindings", "quarantineguards"):
            found = [one["metadata"]["name"] for one in cluster.list(kind, place)]
            list(pool.map(lambda name, kind=kind: cluster.delete(kind, name, place), found))
    cluster.install(entitlements=True)
    operator.start()
    operator.wait_ready()
    cluster.delete("quarantines", first["metadata"]["name"], place, user="rita")
    all_back(cluster, place)


def test_neither_object_outlives_what_was_revoked(governed: tuple[Cluster, Operator], place: str) -> None:
    cluster, _ = governed
    cluster.patch("governancepolicies", place, {"spec": {"suspend": False}})
    eventually(lambda: cluster.get("serviceaccounts", "ci", place) is None, 90, what="it is revoked")
    eventually(lambda: not held(cluster, place), 60, what="nothing is left of the Quarantine")
    assert standing(cluster, place) == []  # emptied, and nobody else's
    found = scenario.finding_of(cluster, place, "Unowned", "ci")
    assert found is not None
    assert [act["verdict"] for act in found["status"]["acts"]] == ["Quarantine", "Revoke"]


def test_a_namespace_takes_both_objects_with_it(governed: tuple[Cluster, Operator], place: str) -> None:
    cluster, _ = governed
    act(cluster, place)
    cluster.delete("namespaces", place)
    eventually(lambda: cluster.get("namespaces", place) is None, 90, what="its end")
