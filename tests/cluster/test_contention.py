"""Somebody writes back what we did, by server-side apply as Argo CD's and Flux's field managers do, with rights of
their own: told, counted per manager, repeated up to the policy's limit, and then left alone with the change to commit.

Where the guards look, such a write is refused: there is nothing to fight about. A fight takes a place where they do not
look: a platform namespace that a policy names. On the oldest and the newest Kubernetes, by a real operator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.support import scenario
from tests.support.cluster import MERGE, ApiError, Cluster, eventually
from tests.support.operator import Operator
from tests.support.rest import Json
from tests.support.scenario import (
    API,
    HOME,
    OFF,
    OPERATOR,
    allow,
    deadline,
    finding_of,
    policy,
    quarantine_of,
    rule,
    service_account,
    switched_off,
    token_of,
    token_secret,
)

pytestmark = [pytest.mark.local, pytest.mark.long]

REVERTED = "tenure_enforcement_reverted_total"


@dataclass
class Ground:
    cluster: Cluster
    operator: Operator
    writers: dict[str, str]
    """Field manager -> the token of the ServiceAccount that applies in its name."""

    def writes(self, manager: str, manifest: Json) -> Json:
        return self.cluster.apply(manifest, manager=manager, token=self.writers[manager])

    def reverted(self, product: str) -> float:
        return self.operator.metrics().value(REVERTED, manager=product)


@pytest.fixture(scope="module", params=["1.33", "1.36"])
def ground(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    cluster: Cluster = request.getfixturevalue("oldest" if request.param == "1.33" else "installed")
    gitops = cluster.namespace("gitops")
    writers = {}
    for account, manager in (("argocd", "argocd-controller"), ("flux", "kustomize-controller")):
        cluster.create(service_account(gitops, account))
        user = f"system:serviceaccount:{gitops}:{account}"
        allow(cluster, user, f"test-{account}", rule("", ["secrets"], ["get", "create", "patch", "update"]))
        writers[manager] = cluster.token(gitops, account)
    with Operator(cluster.kubeconfig, directory=tmp_path_factory.mktemp("operator")) as operator:
        yield Ground(cluster, operator, writers)
    cluster.delete_namespace(gitops)


@pytest.fixture
def place(ground: Ground, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace with ServiceAccount `ci`; a platform one where the fixture `platform` asks for it."""
    prefix = "kube-" if "platform" in request.fixturenames else ""
    name = ground.cluster.namespace(f"{prefix}{request.node.name.removeprefix('test_')[:30]}")
    ground.cluster.patch("namespaces", name, {"metadata": {"labels": {"test": name}}})
    ground.cluster.create(service_account(name, "ci"))
    yield name
    ground.cluster.delete("governancepolicies", name)
    ground.cluster.delete_namespace(name)


@pytest.fixture
def platform(place: str) -> str:
    """One that the guards do not look at, and that a policy may name."""
    return place


def in_git(place: str, product: str, **labels: str) -> Json:
    """The token Secret `ci-token` as a repository has it, with what its manager adds."""
    manifest = token_secret(place, "ci-token", "ci")
    if product == "ArgoCD":
        manifest["metadata"]["annotations"]["argocd.argoproj.io/tracking-id"] = f"shop:/Secret:{place}/ci-token"
    else:
        labels |= {"kustomize.toolkit.fluxcd.io/name": "shop", "kustomize.toolkit.fluxcd.io/namespace": "flux-system"}
    manifest["metadata"]["labels"] = labels
    return manifest


def govern(cluster: Cluster, place: str, *stages: str, **spec: object) -> None:
    entry = deadline("LegacyToken", stages=list(stages))
    later = deadline("Unowned", within="90d", action="Nothing")
    named = [place] if place.startswith("kube-") else []
    found = policy(place, entry, later, labels={"test": place}, precedence=86, platformNamespaces=named, **spec)
    scenario.govern(cluster, found)


def finding(cluster: Cluster, place: str) -> Json:
    found = finding_of(cluster, place, "LegacyToken", "ci-token")
    assert found is not None
    return found


def conditions(found: Json) -> dict[str, str]:
    return {c["type"]: c["message"] for c in found["status"]["conditions"]}


def in_force(cluster: Cluster, place: str) -> bool:
    """Whether the finding says that its subject is quarantined, and its stages are in force."""
    held = quarantine_of(cluster, place, "ci-token")
    stages = (held or {}).get("status", {}).get("stages", ())
    standing = bool(stages) and all(stage.get("verified") and not stage.get("error") for stage in stages)
    found = finding_of(cluster, place, "LegacyToken", "ci-token")
    return standing and found is not None and found["status"]["phase"] == "Quarantined"


def reverts(cluster: Cluster, place: str) -> list[Json]:
    held = quarantine_of(cluster, place, "ci-token")
    found: list[Json] = (held or {}).get("status", {}).get("reverts", [])
    return found


def test_a_fight_ends_with_the_patch_to_commit(ground: Ground, platform: str) -> None:
    cluster, manager, place = ground.cluster, "argocd-controller", platform
    govern(cluster, place, "DisableTokens", contention={"maxReverts": 3})
    ground.writes(manager, in_git(place, "ArgoCD", **{OFF: ""}))  # Git says that it is on
    token = token_of(cluster, place, "ci-token")
    eventually(lambda: in_force(cluster, place), what="quarantined")
    due = finding(cluster, place)["status"]["due"]
    proved = quarantine_of(cluster, place, "ci-token")["status"]["stages"][0]["verified"]  # type: ignore[index]
    before = ground.reverted("ArgoCD")

    for times in (1, 2):
        assert switched_off(cluster, place, "ci-token")
        ground.writes(manager, in_git(place, "ArgoCD", **{OFF: ""}))
        eventually(lambda n=times: [r["count"] for r in reverts(cluster, place)] == [n], what=f"{times} counted")  # type: ignore[misc]
        eventually(lambda: in_force(cluster, place), what="repeated, and in force again")
    [entry] = reverts(cluster, place)
    assert (entry["object"], entry["manager"]) == ("Secret/ci-token", manager)
    assert OFF in entry["what"]
    assert ground.reverted("ArgoCD") == before + 2

    ground.operator.restart()  # what was counted stands in the Quarantine
    ground.operator.wait_ready()
    ground.writes(manager, in_git(place, "ArgoCD", **{OFF: ""}))
    eventually(lambda: "Contended" in conditions(finding(cluster, place)), what="contended")
    found = finding(cluster, place)
    assert "Commit to the source of Application shop" in conditions(found)["Contended"]
    assert f"metadata.labels: {{{OFF}:" in conditions(found)["Contended"]
    assert [r["count"] for r in reverts(cluster, place)] == [3]
    assert found["status"]["phase"] == "Open", "nobody should take it for quarantined"
    assert found["status"]["due"] == due
    assert not in_force(cluster, place)
    series = "tenure_finding_decision_deadline_timestamp_seconds"
    eventually(lambda: ground.operator.metrics().has(series, namespace=place, rule="LegacyToken"), what="its clock")

    ground.writes(manager, in_git(place, "ArgoCD", **{OFF: "", "sync": "again"}))
    cluster.patch("secrets", "ci-token", {"metadata": {"annotations": {"looked": "again"}}}, place)
    ground.operator.restart()
    ground.operator.wait_ready()
    eventually(lambda: ground.operator.metrics().has(series, namespace=place, rule="LegacyToken"), what="judged again")
    assert not switched_off(cluster, place, "ci-token"), "acting on it has stopped"
    assert [r["count"] for r in reverts(cluster, place)] == [3]
    assert cluster.token_works(token)

    ground.writes(manager, in_git(place, "ArgoCD", **{OFF: "2026-12-04"}))  # committed
    eventually(lambda: in_force(cluster, place), what="in force by what was committed")
    assert "Contended" not in conditions(finding(cluster, place))
    stage = quarantine_of(cluster, place, "ci-token")["status"]["stages"][0]  # type: ignore[index]
    assert stage["verified"] == proved, "an instant is stamped once"


def test_what_an_apply_takes_away_because_it_owned_it_is_told_too(ground: Ground, platform: str) -> None:
    """Flux had applied the label itself; then it is gone from Git. Once: after that the label is ours, and an apply
    that does not speak of it leaves it."""
    cluster, manager, place = ground.cluster, "kustomize-controller", platform
    govern(cluster, place, "DisableTokens")
    ground.writes(manager, in_git(place, "Flux", **{OFF: "2026-01-01"}))
    eventually(lambda: in_force(cluster, place), what="quarantined, as it stood")
    before = ground.reverted("Flux")
    ground.writes(manager, in_git(place, "Flux"))
    eventually(lambda: reverts(cluster, place), what="counted")
    eventually(lambda: in_force(cluster, place) and switched_off(cluster, place, "ci-token"), what="repeated")
    [entry] = reverts(cluster, place)
    assert (entry["manager"], entry["count"]) == (manager, 1)
    assert ground.reverted("Flux") == before + 1
    again = ground.writes(manager, in_git(place, "Flux"))
    assert again["metadata"]["labels"].get(OFF)
    assert "Contended" not in conditions(finding(cluster, place))


def test_where_the_guards_do_not_look_the_stage_guard_is_not_claimed(ground: Ground, platform: str) -> None:
    """And the other stages work."""
    cluster, place = ground.cluster, platform
    govern(cluster, place, "Guard", "DisableTokens")
    cluster.create(token_secret(place, "ci-token", "ci"))
    token = token_of(cluster, place, "ci-token")
    eventually(lambda: switched_off(cluster, place, "ci-token"), what="switched off")
    eventually(lambda: not cluster.token_works(token), 30, what="401")

    def told() -> bool:
        reasons = {c["type"]: c["reason"] for c in finding(cluster, place)["status"]["conditions"]}
        return reasons.get("Blocked") == "PlatformNamespace"

    eventually(told, what="Blocked: PlatformNamespace")
    held = quarantine_of(cluster, place, "ci-token")
    assert held is not None
    assert [stage["name"] for stage in held["status"]["stages"]] == ["DisableTokens"]
    assert finding(cluster, place)["status"]["phase"] == "Open"


def test_where_the_guards_look_there_is_nothing_to_fight_about(ground: Ground, place: str) -> None:
    cluster = ground.cluster
    govern(cluster, place, "Guard", "DisableTokens")
    ground.writes("argocd-controller", in_git(place, "ArgoCD", **{OFF: ""}))
    eventually(lambda: in_force(cluster, place), what="quarantined")
    for manager, product in (("argocd-controller", "ArgoCD"), ("kustomize-controller", "Flux")):
        with pytest.raises(ApiError, match="is quarantined: its label") as refused:
            ground.writes(manager, in_git(place, product, **{OFF: ""}))
        assert "kubectl delete quarantine" in refused.value.message
    assert in_force(cluster, place)
    assert reverts(cluster, place) == []
    # What it applies without the label goes on, and leaves the label.
    applied = ground.writes("kustomize-controller", in_git(place, "Flux", part="api"))
    assert applied["metadata"]["labels"][OFF]


def test_a_guard_that_somebody_changes_or_deletes_is_rebuilt_and_counted(ground: Ground, place: str) -> None:
    """Admission keeps everybody but the operator from it, so whoever does this goes by its name, or took the policies
    off first."""
    cluster = ground.cluster
    govern(cluster, place, "Guard", "DisableTokens")
    cluster.create(token_secret(place, "ci-token", "ci"))
    eventually(lambda: in_force(cluster, place), what="quarantined")

    def guard(at: str) -> Json:
        found: Json = (cluster.get("quarantineguards", "guard", at) or {}).get("spec", {})
        return found

    def touched(at: str, **spec: Json) -> Json:
        metadata = {"name": "guard", "namespace": at}
        return {"apiVersion": API, "kind": "QuarantineGuard", "metadata": metadata, "spec": spec}

    def rebuilt(at: str, touch: Callable[[], object], *by: str) -> None:
        wanted, before = guard(at), sum(map(ground.reverted, by))
        touch()
        eventually(lambda: guard(at) == wanted, 15, what=f"{at}: rebuilt")
        eventually(lambda: sum(map(ground.reverted, by)) == before + 1, what=f"{at}: counted")

    with pytest.raises(ApiError):
        cluster.delete("quarantineguards", "guard", place)
    entry = {"default": {"quarantine": "a/b"}}
    here = touched(place, serviceAccounts=entry, secrets={})
    rebuilt(place, lambda: cluster.apply(here, manager="argocd-controller", user=OPERATOR), "ArgoCD")
    rebuilt(place, lambda: cluster.delete("quarantineguards", "guard", place, user=OPERATOR), "Other")
    # The one for bindings stands in the operator's namespace, and names its synthetic identity at least.
    path = f"{cluster.path('quarantineguards', 'guard', HOME)}?fieldManager=argocd-controller"
    gone = {"spec": {"writers": dict.fromkeys(guard(HOME)["writers"])}}
    rebuilt(HOME, lambda: cluster.rest.expect("PATCH", path, gone, user=OPERATOR, content_type=MERGE), "ArgoCD")
    # Who takes away a whole map may leave no trace but the version.
    gone = {"spec": dict.fromkeys(guard(HOME))}
    rebuilt(
        HOME, lambda: cluster.rest.expect("PATCH", path, gone, user=OPERATOR, content_type=MERGE), "ArgoCD", "Other"
    )
    rebuilt(HOME, lambda: cluster.delete("quarantineguards", "guard", HOME, user=OPERATOR), "Other")

    # One that says something where nothing is quarantined goes, and is counted too.
    flux, empty = ground.reverted("Flux"), cluster.namespace("no-guard")
    cluster.apply(touched(empty, serviceAccounts=entry), manager="kustomize-controller", user=OPERATOR)
    eventually(lambda: cluster.get("quarantineguards", "guard", empty) is None, 15, what="taken away again")
    eventually(lambda: ground.reverted("Flux") == flux + 1, what="counted")
    cluster.delete_namespace(empty)

    wanted = guard(place)
    ground.operator.kill()
    cluster.delete("quarantineguards", "guard", place, user=OPERATOR)
    ground.operator.start()
    eventually(lambda: guard(place) == wanted, 30, what="rebuilt by the next operator")
    eventually(lambda: ground.reverted("Other") == 1, what="counted by the next operator")
    assert ground.reverted("ArgoCD") == 0
