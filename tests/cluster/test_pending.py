"""`tenure pending` on a real API server: everything that waits, and for each user exactly what the API server lets them
decide."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.tenure_objects import API, OPERATOR, claim, exception, grant, quarantine
from tests.cluster.test_commands import tenure
from tests.support.cluster import Cluster

Json = dict[str, Any]
DUE = "2027-01-01T00:00:00Z"


def open_finding(namespace: str, name: str, rule: str, kind: str, subject: str, due: str = DUE, **status: Any) -> Json:
    """An undecided finding as the operator writes it."""
    return {
        "apiVersion": API,
        "kind": "IdentityFinding",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"rule": rule, "subject": {"kind": kind, "namespace": namespace, "name": subject}},
        "status": {"phase": "Open", "risk": {"level": "High"}, "due": due, "onDeadline": "Quarantine", **status},
    }


@pytest.fixture
def scene(installed: Cluster, namespace: str) -> str:
    """One of everything that waits, and three claims of an owner that is gone."""
    for made in (
        open_finding(namespace, "unowned-a", "Unowned", "ServiceAccount", "a", due="2027-01-02T00:00:00Z"),
        open_finding(namespace, "unowned-b", "Unowned", "ServiceAccount", "b"),
        open_finding(namespace, "legacytoken-a", "LegacyToken", "Secret", "a-token", due="2027-01-03T00:00:00Z"),
        open_finding(namespace, "over", "Unowned", "ServiceAccount", "c", phase="Resolved"),
        quarantine(namespace, finalizer=False),
        *(open_finding(namespace, f"ownervacant-{n}", "OwnerVacant", "OwnedIdentity", f"app-{n}") for n in range(3)),
    ):
        installed.create(made, user=OPERATOR)
    for n in range(3):
        installed.create(claim(namespace, f"app-{n}", owner=f"gone-{namespace[-6:]}"))
    for name in ("first", "second"):
        installed.create(exception(namespace, name, requestedBy=installed.username()))
    return namespace


def pending(kubeconfig: Path, namespace: str, *arguments: str, status: int = 0) -> Json:
    done = tenure(kubeconfig, "pending", "-n", namespace, "-o", "json", *arguments)
    assert done.returncode == status, done.stdout + done.stderr
    found: Json = json.loads(done.stdout)
    return found


def flat(found: Json) -> list[Json]:
    """The items, those of groups one by one."""
    return [item for entry in found["items"] for item in entry.get("items", [entry])]


def test_everything_that_waits_by_deadline(installed: Cluster, scene: str) -> None:
    found = pending(installed.kubeconfig, scene)
    assert found["complete"]
    assert found["count"] == 9
    assert [(item["sort"], item.get("name") or item["count"]) for item in found["items"]] == [
        ("Group", 3),
        ("Finding", "unowned-b"),
        ("Finding", "unowned-a"),
        ("Finding", "legacytoken-a"),
        ("Exception", "first"),
        ("Exception", "second"),
        ("Quarantine", "serviceaccount-ci"),
    ]
    table = tenure(installed.kubeconfig, "pending", "-n", scene)
    assert table.returncode == 0
    assert "leaves 3 claims behind" in table.stdout
    assert f"$ tenure release quarantine/serviceaccount-ci -n {scene} --reason TEXT" in table.stdout


READING = ["identityfindings", "identityexceptions", "ownedidentities", "quarantines"]


Grants = list[tuple[list[str], list[str], list[str] | None]]
"""(verbs, resources, names) in the namespace."""

FINDINGS = {"unowned-a", "unowned-b", "legacytoken-a"}
LOST = {f"ownervacant-{n}" for n in range(3)}
CLAIMING = (["claim"], ["identityowners"], ["payments"])
USERS: dict[str, tuple[Grants, set[str]]] = {
    "nothing": ([], set()),
    "quarantine": ([(["quarantine"], ["identityfindings"], None)], FINDINGS),
    "by name": ([(["revoke"], ["identityfindings"], ["unowned-b", "over"])], {"unowned-b"}),
    "approve one": ([(["approve"], ["identityexceptions"], ["second"])], {"second"}),
    "reject": ([(["reject"], ["identityexceptions"], None)], {"first", "second"}),
    "not asked for": ([(["approve-security"], ["identityexceptions"], None)], set()),
    "release": ([(["release"], ["quarantines"], None)], {"serviceaccount-ci"}),
    "edit": ([(["patch"], ["ownedidentities"], ["app-1"])], {"ownervacant-1"}),
    "claim": ([CLAIMING, (["create"], ["ownedidentities"], None)], {"unowned-a", "unowned-b"}),
    "claim, but write none": ([CLAIMING], set()),
    "all": ([(["*"], ["*"], None)], FINDINGS | LOST | {"first", "second", "serviceaccount-ci"}),
}


@pytest.mark.parametrize(("rights", "expected"), USERS.values(), ids=USERS.keys())
def test_mine_is_exactly_what_the_api_server_allows(
    installed: Cluster, scene: str, rights: Grants, expected: set[str]
) -> None:
    user = f"user-{scene[-6:]}"
    grant(installed, scene, user, ["list"], READING)
    grant(installed, scene, user, ["create"], ["identitydecisions"])
    for verbs, resources, names in rights:
        grant(installed, scene, user, verbs, resources, names=names)
    mine = flat(pending(installed.user(user), scene, "--mine"))
    assert {item["name"] for item in mine} == expected
    for item in flat(pending(installed.kubeconfig, scene)):
        allowed = {(way["verb"], way["resource"]) for way in item["ways"] if may(installed, user, scene, way, item)}
        shown = {(way["verb"], way["resource"]) for own in mine if own["name"] == item["name"] for way in own["ways"]}
        assert shown == allowed, item["name"]


def may(cluster: Cluster, user: str, namespace: str, way: Json, item: Json) -> bool:
    """What a SubjectAccessReview says of one way."""
    plural, _, group = way["resource"].partition(".")
    on = {"ownedidentities": item["about"].partition("/")[2], "identityowners": "payments"}.get(plural, item["name"])
    if way["verb"] == "patch" and plural == "identityowners":
        return cluster.can(user, "patch", plural, group=group, name=f"gone-{namespace[-6:]}")
    makes = "ownedidentities" if way["verb"] == "claim" else "identitydecisions"
    writes = way["verb"] == "patch" or cluster.can(user, "create", makes, group=group, namespace=namespace)
    return writes and cluster.can(user, way["verb"], plural, group=group, namespace=namespace, name=on)


def test_who_holds_a_verb_in_the_whole_cluster(installed: Cluster, scene: str) -> None:
    mine = flat(pending(installed.kubeconfig, scene, "--mine"))
    assert {item["name"] for item in mine} >= {"unowned-a", "serviceaccount-ci"}


def test_what_i_requested_is_not_mine(installed: Cluster, scene: str) -> None:
    user = f"author-{scene[-6:]}"
    grant(installed, scene, user, ["list", "get", "create", "patch"], ["identityexceptions"])
    grant(installed, scene, user, ["approve", "reject"], ["identityexceptions"])
    grant(installed, scene, user, ["list"], READING)
    grant(installed, scene, user, ["create"], ["identitydecisions"])
    installed.create(exception(scene, "own", requestedBy=user), user=user)
    installed.create(exception(scene, "behalf", requestedBy=installed.username(), onBehalfOf=user))
    mine = pending(installed.user(user), scene, "--mine")
    assert {item["name"] for item in mine["items"] if item["sort"] == "Exception"} == {"first", "second"}


def test_what_may_not_be_seen_is_named(installed: Cluster, scene: str) -> None:
    user = f"narrow-{scene[-6:]}"
    grant(installed, scene, user, ["list"], ["identityexceptions"])
    found = pending(installed.user(user), scene, status=1)
    assert {item["name"] for item in found["items"]} == {"first", "second"}
    assert {gap["kind"] for gap in found["unseen"]} == {"IdentityFinding", "OwnedIdentity", "Quarantine"}
    table = tenure(installed.user(user), "pending", "-n", scene)
    assert table.returncode == 1
    assert f"you may not list identityfindings.tenure.dev in {scene}: undecided findings are missing" in table.stdout
    everywhere = tenure(installed.user(user), "pending")
    assert "ask for that one: tenure pending -n NAME" in everywhere.stdout


def test_no_such_namespace(installed: Cluster) -> None:
    done = tenure(installed.kubeconfig, "pending", "-n", "no-such-namespace")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "tenure: there is no namespace no-such-namespace.\n"
