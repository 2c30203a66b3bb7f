"""Entitlements: taken out of bindings, given back exactly, revoked for good; with the opt-in right and without it. By a
real operator, on the oldest and the newest Kubernetes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support import scenario
from tests.support.cluster import REPOSITORY, ApiError, Cluster, eventually
from tests.support.operator import Operator
from tests.support.rest import Json
from tests.support.scenario import (
    HOME,
    OPERATOR,
    RBAC,
    REMOVED,
    claim,
    claimant,
    deadline,
    decider,
    identity,
    owner,
    policy,
    quarantine_of,
    releaser,
    rule,
    service_account,
    verdict,
)

pytestmark = pytest.mark.local

UNDECLARED = "EntitlementUndeclared"
ALICE = {"kind": "User", "apiGroup": RBAC, "name": "alice"}
BOB = {"kind": "User", "apiGroup": RBAC, "name": "bob"}
LATER = deadline(within="90d", action="Nothing")


@pytest.fixture(scope="module", params=["1.33", "1.36"])
def governed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster: Cluster = request.getfixturevalue("oldest" if request.param == "1.33" else "installed")
    cluster.apply(owner("team"))
    claimant(cluster, "carla", "team")
    releaser(cluster, "rita")
    decider(cluster, "judy")
    cluster.install(entitlements=True)
    with Operator(cluster.kubeconfig, directory=tmp_path_factory.mktemp("operator")) as operator:
        cluster.operator = operator  # type: ignore[attr-defined]
        yield cluster
    opt_out(cluster)


def opt_out(cluster: Cluster) -> None:
    subprocess.run(
        ["bash", str(REPOSITORY / "deploy" / "install.sh")],
        env={**cluster.environment(), "ENTITLEMENTS": "0"},
        check=True,
        capture_output=True,
        timeout=300,
    )


@pytest.fixture
def place(governed: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    name = governed.namespace(request.node.name.removeprefix("test_").partition("[")[0][:40])
    governed.patch("namespaces", name, {"metadata": {"labels": {"test": name}}})
    yield name
    governed.delete("governancepolicies", name)
    for found in governed.list("clusterrolebindings"):
        if found["metadata"]["name"].startswith(name):
            governed.delete("clusterrolebindings", found["metadata"]["name"])
    governed.delete_namespace(name)


def govern(cluster: Cluster, place: str, *deadlines: Json) -> None:
    scenario.govern(cluster, policy(place, *deadlines, LATER, labels={"test": place}, precedence=91))


def revocations_told(cluster: Cluster, cause: str) -> float:
    operator: Operator = cluster.operator  # type: ignore[attr-defined]
    return operator.metrics().value("tenure_revocation_latency_seconds_count", cause=cause)


def role(cluster: Cluster, place: str, *verbs: str, name: str = "reader") -> Json:
    made = {
        "apiVersion": f"{RBAC}/v1",
        "kind": "Role",
        "metadata": {"name": name, "namespace": place},
        "rules": [rule("", ["configmaps"], verbs or ["get"])],
    }
    return cluster.apply(made)


def bind(cluster: Cluster, place: str | None, name: str, subjects: list[Json], to: str = "reader", **meta: Any) -> Json:
    """A RoleBinding to the Role; without a place a ClusterRoleBinding to the ClusterRole of the name."""
    where = {"namespace": place} if place else {}
    made: Json = {
        "apiVersion": f"{RBAC}/v1",
        "kind": "RoleBinding" if place else "ClusterRoleBinding",
        "metadata": {"name": name, **where, **meta},
        "roleRef": {"apiGroup": RBAC, "kind": "Role" if place else "ClusterRole", "name": to},
        "subjects": subjects,
    }
    return cluster.create(made)


def account(place: str, name: str = "ci") -> Json:
    return {"kind": "ServiceAccount", "name": name, "namespace": place}


def user(place: str, name: str = "ci") -> Json:
    return {"kind": "User", "apiGroup": RBAC, "name": f"system:serviceaccount:{place}:{name}"}


def subjects(cluster: Cluster, place: str | None, name: str) -> list[Json] | None:
    found = cluster.get("rolebindings" if place else "clusterrolebindings", name, place)
    return None if found is None else found.get("subjects", [])


def finding(cluster: Cluster, place: str, name: str) -> Json:
    found = scenario.finding_of(cluster, place, UNDECLARED, name)
    assert found is not None
    return found


def quarantined(cluster: Cluster, place: str, name: str) -> Json:
    """The finding, once its subject is out and that is verified."""

    def there() -> Json | None:
        found = scenario.finding_of(cluster, place, UNDECLARED, name)
        return (
            found if found and found["status"]["phase"] == "Quarantined" and found["status"].get("verified") else None
        )

    return eventually(there, 30, what=f"{name} quarantined")


def may(cluster: Cluster, place: str, name: str = "ci", verb: str = "get", resource: str = "configmaps") -> bool:
    return cluster.can(f"system:serviceaccount:{place}:{name}", verb, resource, namespace=place)


def declare(cluster: Cluster, place: str, **entry: Any) -> None:
    listed = [{"roleRef": {"kind": "Role", "name": "reader"}, **entry}]
    cluster.create(claim(place, "team", accounts=["ci"], entitlements=listed), user="carla")


def gone(cluster: Cluster, place: str, name: str) -> None:
    eventually(lambda: quarantine_of(cluster, place, name) is None, 30, what=f"the Quarantine of {name} is gone")


def test_what_no_claim_lists_is_taken_out_and_a_claim_gives_it_back(governed: Cluster, place: str) -> None:
    govern(governed, place, deadline(UNDECLARED))
    role(governed, place)
    before = [ALICE, account(place), {"kind": "ServiceAccount", "name": "other", "namespace": place}]
    bind(governed, place, "reader", before)
    declare(governed, place, namespace="elsewhere")
    identity(governed, place, "ci")
    assert eventually(lambda: quarantine_of(governed, place, "reader"), 30, what="a Quarantine")
    eventually(lambda: subjects(governed, place, "reader") == [ALICE], 30, what="both are out")
    for made in governed.list("identityfindings", place):
        if made["spec"]["rule"] == UNDECLARED:
            assert made["spec"]["subject"]["entitlement"].startswith(f"Role/reader/ServiceAccount:{place}:")
            assert made["spec"]["subject"]["uid"]
    eventually(lambda: len(held(governed, place)) == 2, 30, what="one Quarantine for each")
    eventually(lambda: not may(governed, place), what="its right is gone")
    image = next(found for found in held(governed, place) if found["spec"]["subject"]["entitlement"].endswith(":ci"))
    assert image["spec"]["stages"] == ["Guard", "RemoveEntitlements"]
    [remembered] = image["status"]["preImages"]
    assert remembered["removed"] == [{"index": 1, "subject": account(place)}]
    assert remembered["roleRef"] == {"apiGroup": RBAC, "kind": "Role", "name": "reader"}
    assert len(remembered["roleRulesDigest"]) == 64
    with pytest.raises(ApiError, match="was taken out of this binding and stays out"):
        governed.patch("rolebindings", "reader", {"subjects": [ALICE, account(place)]}, place)
    governed.patch("rolebindings", "reader", {"metadata": {"labels": {"a": "b"}}}, place)
    # An entitlement of its own, in the other form: it is let in and has its own clock.
    governed.patch("ownedidentities", "claim", {"spec": {"entitlements": [
        {"roleRef": {"kind": "Role", "name": "reader"}}]}}, place, user="carla")  # fmt: skip
    eventually(lambda: subjects(governed, place, "reader") == before[:2], 30, what="ci is back")
    found = eventually(lambda: resolved(governed, place, "reader", ":ci"), 30, what="its finding is resolved")
    assert found["status"]["decision"]["source"] == "Policy"  # it came first; the claim ends what it led to
    eventually(lambda: len(held(governed, place)) == 1, 30, what="its Quarantine is gone")
    other = held(governed, place)[0]["metadata"]["name"]
    governed.delete("quarantines", other, place, user="rita")
    eventually(lambda: subjects(governed, place, "reader") == before, 30, what="in its old place")
    annotations = governed.get("rolebindings", "reader", place)["metadata"].get("annotations", {})  # type: ignore[index]
    assert REMOVED not in annotations


def held(cluster: Cluster, place: str) -> list[Json]:
    return cluster.list("quarantines", place)


def resolved(cluster: Cluster, place: str, name: str, ends: str) -> Json | None:
    for found in cluster.list("identityfindings", place):
        about = found["spec"]["subject"]
        if about["name"] == name and about.get("entitlement", "").endswith(ends):
            return found if found["status"]["phase"] == "Resolved" else None
    return None


def test_release_merges_what_others_changed_and_says_what_it_does_not_put_back(governed: Cluster, place: str) -> None:
    govern(governed, place, deadline(UNDECLARED))
    role(governed, place)
    role(governed, place, name="widened")
    bind(governed, place, "merged", [ALICE, account(place), BOB])
    bind(governed, place, "widened", [account(place)], "widened")
    bind(governed, place, "another", [account(place)])
    bind(governed, place, "unlisted", [account(place)])
    identity(governed, place, "ci")
    names = ("merged", "widened", "another", "unlisted")
    for name in names:
        quarantined(governed, place, name)
    assert subjects(governed, place, "widened") == []  # emptied, it stays
    carol = {"kind": "User", "apiGroup": RBAC, "name": "carol"}
    governed.patch("rolebindings", "merged", {"subjects": [carol, BOB]}, place)
    role(governed, place, "get", "delete", name="widened")
    governed.delete("rolebindings", "another", place)
    bind(governed, place, "another", [ALICE])
    governed.patch("rolebindings", "unlisted", {"metadata": {"annotations": {REMOVED: None}}}, place)
    for found in held(governed, place):
        governed.delete("quarantines", found["metadata"]["name"], place, user="rita")
    eventually(lambda: not held(governed, place), 30, what="all are released")
    assert subjects(governed, place, "merged") == [carol, account(place), BOB]
    assert subjects(governed, place, "widened") == []
    assert subjects(governed, place, "another") == [ALICE]
    assert subjects(governed, place, "unlisted") == []

    def told() -> str:
        return "\n".join(
            event["message"]
            for event in governed.list("events", place)
            if event["reason"] == "QuarantineReleased" and event["involvedObject"]["kind"] == "RoleBinding"
        )

    eventually(lambda: "grants something else by now" in told(), what="the widened role is told")
    assert "kubectl patch rolebinding widened" in told()
    assert 'apply {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding"' in told()
    assert "the annotation that listed it is gone" in told()


def test_revoked_it_stays_out_for_good_and_release_is_refused(governed: Cluster, place: str) -> None:
    told = revocations_told(governed, UNDECLARED)
    govern(governed, place, deadline(UNDECLARED, revoke_after="1s"))
    role(governed, place)
    for number in range(4):  # of so many subjects the blast radius lets six acts happen
        identity(governed, place, f"spare-{number}")
    bind(governed, place, "emptied", [account(place)])
    bind(governed, place, "charted", [account(place)], annotations={"meta.helm.sh/release-name": "shop"})
    bind(governed, place, "shared", [account(place), ALICE])
    identity(governed, place, "ci")
    for name in ("emptied", "charted", "shared"):
        eventually(lambda name=name: resolved(governed, place, name, ":ci"), 40, what=f"{name} is revoked")
        acts = finding(governed, place, name)["status"]["acts"]
        assert [act["verdict"] for act in acts] == ["Quarantine", "Revoke"]
        assert all(act.get("verified") for act in acts)
    eventually(lambda: revocations_told(governed, UNDECLARED) == told + 3, what="how long each took")
    assert subjects(governed, place, "emptied") is None
    assert subjects(governed, place, "charted") == []
    assert subjects(governed, place, "shared") == [ALICE]
    assert REMOVED not in governed.get("rolebindings", "shared", place)["metadata"].get("annotations", {})  # type: ignore[index]
    record = eventually(lambda: without_finalizer(governed, place, "shared"), 30, what="a record")
    with pytest.raises(ApiError, match="cannot be released"):
        governed.delete("quarantines", record["metadata"]["name"], place, user="rita")
    governed.create(verdict(record, "Release", by="judy"), user="judy")

    def answered() -> Json | None:
        status = (governed.get("identitydecisions", "release", place) or {}).get("status", {})
        return status if status.get("outcome") else None

    said = eventually(answered, what="an answer")
    assert (said["outcome"], said["reason"]) == ("Void", "AlreadyDecided")
    with pytest.raises(ApiError, match="stays out"):
        governed.patch("rolebindings", "shared", {"subjects": [ALICE, account(place)]}, place)
    with pytest.raises(ApiError, match="stays out"):
        bind(governed, place, "emptied", [account(place)])


def without_finalizer(cluster: Cluster, place: str, name: str) -> Json | None:
    found = quarantine_of(cluster, place, name)
    return found if found and not found["metadata"].get("finalizers") else None


def test_a_service_account_is_taken_out_of_every_binding_in_every_form(governed: Cluster, place: str) -> None:
    govern(governed, place, deadline("Unowned", stages=["Guard", "DisableTokens", "RemoveEntitlements"]))
    role(governed, place)
    elsewhere = governed.namespace(f"{place[:40]}-b")
    role(governed, elsewhere)
    cluster_role = f"{place}-lists"
    governed.apply({"apiVersion": f"{RBAC}/v1", "kind": "ClusterRole", "metadata": {"name": cluster_role},
                    "rules": [rule("", ["nodes"], ["list"])]})  # fmt: skip
    bare = {"kind": "ServiceAccount", "name": "ci"}
    forms: dict[tuple[str | None, str], list[Json]] = {
        (place, "forms"): [user(place), ALICE, bare],
        (elsewhere, "far"): [BOB, account(place)],
        (None, place): [account(place), user(place), ALICE],
    }
    made = {}
    for (where, name), given in forms.items():
        made[where, name] = bind(governed, where, name, given, "reader" if where else cluster_role)["subjects"]
    group = {"kind": "Group", "apiGroup": RBAC, "name": f"system:serviceaccounts:{place}"}
    bind(governed, place, "group", [group])
    identity(governed, place, "ci")

    def verified() -> bool:
        stages = (quarantine_of(governed, place, "ci") or {}).get("status", {}).get("stages", [])
        return len(stages) == 3 and all(stage.get("verified") for stage in stages)

    eventually(verified, 40, what="all stages")
    people = [[ALICE], [BOB], [ALICE]]
    assert [subjects(governed, *at) for at in forms] == people
    assert not governed.can(f"system:serviceaccount:{place}:ci", "list", "nodes")
    assert not governed.can(f"system:serviceaccount:{place}:ci", "get", "configmaps", namespace=elsewhere)

    def told() -> Json | None:
        found = scenario.finding_of(governed, place, "Unowned", "ci")
        return found if found and found["status"]["phase"] == "Quarantined" else None

    found = eventually(told, what="a finding that says so")
    [still] = [line for line in found["status"]["residual"] if "still allowed" in line]
    assert f'RoleBinding "group/{place}"' in still
    with pytest.raises(ApiError, match="is quarantined and gets no new binding"):
        governed.patch("rolebindings", "far", {"subjects": [BOB, account(place)]}, elsewhere)
    governed.delete("quarantines", quarantine_of(governed, place, "ci")["metadata"]["name"], place, user="rita")  # type: ignore[index]
    gone(governed, place, "ci")
    assert {at: subjects(governed, *at) for at in forms} == made
    governed.delete_namespace(elsewhere)


@pytest.mark.long
def test_of_more_bindings_than_one_quarantine_holds_all_are_remembered_before_one_is_changed(
    governed: Cluster, place: str
) -> None:
    """A further object holds the rest. A person who takes that away alone takes nothing away."""
    govern(governed, place, deadline("Unowned", stages=["Guard", "RemoveEntitlements"]))
    role(governed, place)
    names = [f"reader-{number:03}" for number in range(510)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: bind(governed, place, name, [ALICE, account(place), BOB]), names))

    def standing() -> list[list[str]]:
        found = governed.list("rolebindings", place)
        return [[subject["name"] for subject in binding.get("subjects", ())] for binding in found]

    before = standing()
    identity(governed, place, "ci")

    def verified() -> bool:
        stages = (quarantine_of(governed, place, "ci") or {}).get("status", {}).get("stages", [])
        return len(stages) == 2 and all(stage.get("verified") for stage in stages)

    eventually(verified, 120, what="all stages")
    assert standing() == [["alice", "bob"]] * len(names)
    first, further = sorted(held(governed, place), key=lambda found: len(found["metadata"]["name"]))
    name = first["metadata"]["name"]
    assert further["metadata"]["name"] == f"{name}-2"
    assert first["status"]["continuedIn"] == [f"{name}-2"]
    assert further["spec"]["continues"] == name
    assert further["spec"]["subject"] == first["spec"]["subject"]
    assert further["metadata"]["finalizers"] == first["metadata"]["finalizers"]
    assert [len(found["status"]["preImages"]) for found in (first, further)] == [500, 10]
    remembered = [image["name"] for found in (first, further) for image in found["status"]["preImages"]]
    assert sorted(remembered) == names
    selected = ("--field-selector", f"spec.continues={name}")
    said = governed.kubectl("get", "quarantines", "-n", place, "-o", "name", *selected).stdout
    assert said.split() == [f"quarantine.tenure.dev/{name}-2"]

    governed.delete("quarantines", f"{name}-2", place, user="rita")
    stays = governed.get("quarantines", f"{name}-2", place)
    assert stays is not None
    assert stays["metadata"]["deletionTimestamp"]
    assert stays["status"]["preImages"] == further["status"]["preImages"]
    governed.delete("quarantines", name, place, user="rita")
    eventually(lambda: not held(governed, place), 120, what="the Quarantine and its further object are gone")
    assert standing() == before
    assert not any(
        REMOVED in found["metadata"].get("annotations", {}) for found in governed.list("rolebindings", place)
    )


def test_too_much_to_remember_is_taken_out_of_nothing(governed: Cluster, place: str) -> None:
    govern(governed, place, deadline("Unowned", stages=["Guard", "RemoveEntitlements"]))
    role(governed, place)
    bind(governed, place, "reader", [ALICE, account(place)])
    bind(governed, place, "endless", [account(place)] * 257)
    identity(governed, place, "ci")

    def blocked() -> bool:
        found = scenario.finding_of(governed, place, "Unowned", "ci")
        conditions = found["status"]["conditions"] if found else []
        return any((c["type"], c["reason"]) == ("Blocked", "TooLarge") for c in conditions)

    eventually(blocked, 40, what="the stage is blocked")
    assert subjects(governed, place, "reader") == [ALICE, account(place)]
    assert len(subjects(governed, place, "endless") or ()) == 257
    assert not (quarantine_of(governed, place, "ci") or {})["status"].get("preImages")
    governed.patch("rolebindings", "endless", {"subjects": [account(place)] * 256}, place)
    eventually(lambda: subjects(governed, place, "endless") == [], 40, what="it is taken out once there is room")
    eventually(lambda: subjects(governed, place, "reader") == [ALICE], what="and of the other one")


def test_a_revoked_service_account_is_gone_and_its_namesake_inherits_nothing(governed: Cluster, place: str) -> None:
    told = revocations_told(governed, "Unowned")
    govern(governed, place, deadline("Unowned", revoke_after="1s"))
    role(governed, place)
    bind(governed, place, "reader", [account(place), user(place)])
    bind(governed, place, "people", [ALICE, {"kind": "ServiceAccount", "name": "ci"}])
    identity(governed, place, "ci", ("ci-token",))
    eventually(lambda: governed.get("serviceaccounts", "ci", place) is None, 40, what="it is gone")
    assert governed.get("secrets", "ci-token", place) is None
    gone(governed, place, "ci")
    found = scenario.finding_of(governed, place, "Unowned", "ci")
    assert found is not None
    assert found["status"]["phase"] == "Resolved"
    assert [(act["verdict"], bool(act.get("verified"))) for act in found["status"]["acts"]] == [
        ("Quarantine", True),
        ("Revoke", True),
    ]
    eventually(lambda: revocations_told(governed, "Unowned") == told + 1, what="how long it took")
    assert subjects(governed, place, "reader") is None  # emptied, and nobody else's
    assert subjects(governed, place, "people") == [ALICE]
    scenario.govern(governed, policy(place, LATER, labels={"test": place}, precedence=91))
    governed.create(service_account(place, "ci"))
    assert not may(governed, place)


def test_a_stolen_token_of_the_operator_adds_nobody_and_widens_nothing(governed: Cluster, place: str) -> None:
    """While something is out, when the annotation lists somebody."""
    govern(governed, place, deadline(UNDECLARED))
    role(governed, place)
    bind(governed, place, "reader", [account(place), ALICE])
    identity(governed, place, "ci")
    quarantined(governed, place, "reader")
    stolen = governed.token(HOME, "tenure")
    mallory = {"kind": "User", "apiGroup": RBAC, "name": "mallory"}
    for change in (
        {"subjects": [ALICE, mallory]},
        {"subjects": [ALICE, account(place, "other")]},
        {"subjects": [ALICE, mallory], "metadata": {"annotations": {REMOVED: "User:mallory"}}},
        {"metadata": {"annotations": {REMOVED: "User:mallory"}}},
    ):
        with pytest.raises(ApiError, match=r"operator of Tenure adds no subject|lists only subjects"):
            governed.patch("rolebindings", "reader", change, place, token=stolen)
    with pytest.raises(ApiError):
        governed.patch("rolebindings", "reader", {"roleRef": {"name": "other"}}, place, token=stolen)
    with pytest.raises(ApiError, match="deletes no binding but one that it has emptied"):
        governed.delete("rolebindings", "reader", place, token=stolen)
    with pytest.raises(ApiError, match=r"cannot (update|patch)|forbidden"):
        governed.patch("roles", "reader", {"rules": []}, place, token=stolen)
    with pytest.raises(ApiError, match=r"creates no binding|cannot create"):
        governed.create(
            {"apiVersion": f"{RBAC}/v1", "kind": "RoleBinding", "metadata": {"name": "new", "namespace": place},
             "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": "reader"}, "subjects": [mallory]},
            token=stolen,
        )  # fmt: skip


def test_without_the_right_the_stage_is_blocked_and_the_others_stand(governed: Cluster, place: str) -> None:
    """The last test of this file: it takes the right away."""
    opt_out(governed)
    eventually(lambda: not governed.can(OPERATOR, "bind", "clusterroles", group=RBAC), what="the right is gone")
    stages = ["Guard", "DisableTokens", "RemoveEntitlements"]
    govern(governed, place, deadline("Unowned", stages=stages, revoke_after="1s"), deadline(UNDECLARED))
    role(governed, place)
    bind(governed, place, "reader", [account(place)])
    for name in ("ci", "unbound"):
        identity(governed, place, name, (f"{name}-token",))

    def blocked(rule: str, name: str) -> bool:
        found = scenario.finding_of(governed, place, rule, name)
        conditions = found["status"]["conditions"] if found else []
        return any((c["type"], c["reason"]) == ("Blocked", "MissingRight") for c in conditions)

    eventually(lambda: blocked(UNDECLARED, "reader"), 30, what="the entitlement's act is blocked")
    eventually(lambda: blocked("Unowned", "ci"), 30, what="the ServiceAccount's stage is blocked")
    assert quarantine_of(governed, place, "reader") is None
    eventually(lambda: governed.get("secrets", "ci-token", place) is None, 30, what="its token is revoked")
    done = {stage["name"] for stage in quarantine_of(governed, place, "ci")["status"]["stages"] if stage["verified"]}  # type: ignore[index]
    assert done == {"Guard", "DisableTokens"}
    # What is bound nowhere can be deleted; what is bound would leave its rights to a namesake.
    eventually(lambda: governed.get("serviceaccounts", "unbound", place) is None, 30, what="the unbound one is gone")
    assert governed.get("serviceaccounts", "ci", place) is not None
    assert subjects(governed, place, "reader") == [account(place)]
    acts = scenario.finding_of(governed, place, "Unowned", "ci")["status"]["acts"]  # type: ignore[index]
    assert not any(act["verdict"] == "Revoke" and act.get("verified") for act in acts)
    with pytest.raises(AssertionError):
        eventually(lambda: governed.get("serviceaccounts", "ci", place) is None, 2)
