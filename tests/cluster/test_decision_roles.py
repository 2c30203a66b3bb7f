"""The roles that come with Tenure, and the four patterns of docs/decision-rights.md, with real users."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from tests.cluster.tenure_objects import Json, claim, exception, owner
from tests.cluster.test_admission_decisions import verdict
from tests.support.cluster import REPOSITORY, ApiError, Cluster, eventually

pytestmark = pytest.mark.local

Person = Callable[..., Cluster]

RBAC = "rbac.authorization.k8s.io"
PATTERNS = sorted((REPOSITORY / "examples" / "decision-rights").glob("*.yaml"))
READABLE = ("ownedidentities", "identityexceptions", "identitydecisions", "identityfindings", "quarantines")
DECIDES = {
    ("approve", "identityexceptions"),
    ("reject", "identityexceptions"),
    ("attest", "identityexceptions"),
    ("attest", "ownedidentities"),
    ("approve-security", "identityexceptions"),
    ("reject-security", "identityexceptions"),
    ("consult", "identityexceptions"),
    ("force", "identityexceptions"),
    ("quarantine", "identityfindings"),
    ("revoke", "identityfindings"),
    ("release", "quarantines"),
    ("create", "identitydecisions"),
    ("delete", "identitydecisions"),
    ("claim", "identityowners"),
}
"""Whatever decides, and `claim`, which no role gives for all owners."""


def bound(cluster: Cluster, namespace: str, user: str, role: str) -> None:
    cluster.create(
        {
            "apiVersion": f"{RBAC}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": f"{user}-{role}", "namespace": namespace},
            "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": RBAC, "kind": "User", "name": user}],
        }
    )
    eventually(lambda: may(cluster, namespace, user, "list", "identityfindings"), what=f"{user} is {role}")


def may(cluster: Cluster, namespace: str, user: str, verb: str, resource: str) -> bool:
    return cluster.can(user, verb, resource, group="tenure.dev", namespace=namespace)


def decides(cluster: Cluster, namespace: str, user: str) -> set[tuple[str, str]]:
    return {(verb, resource) for verb, resource in DECIDES if may(cluster, namespace, user, verb, resource)}


@pytest.mark.parametrize("role", ["view", "edit", "admin"])
def test_the_built_in_roles_see_and_request_and_never_decide(
    api: Cluster, room: str, person: Person, role: str
) -> None:
    bound(api, room, "ina", role)
    for resource in READABLE:
        assert all(may(api, room, "ina", verb, resource) for verb in ("get", "list", "watch"))
    assert not any(may(api, room, "ina", verb, "quarantineguards") for verb in ("get", "list", "watch", "create"))
    requests = {
        (verb, resource)
        for verb in ("create", "update", "patch", "delete")
        for resource in ("identityexceptions", "ownedidentities")
        if may(api, room, "ina", verb, resource)
    }
    assert len(requests) == (0 if role == "view" else 8)
    assert decides(api, room, "ina") == set()
    ina = person("ina")
    if role != "view":
        ina.create(exception(room, requestedBy="ina"))
        with pytest.raises(ApiError, match="user ina may not claim for IdentityOwner payments"):
            ina.create(claim(room))
    with pytest.raises(ApiError, match='cannot create resource "identitydecisions"'):
        ina.create(verdict(room, by="ina"))


def test_a_namespaces_admin_gives_no_right_to_decide(api: Cluster, room: str, person: Person) -> None:
    """Neither by a binding to a role of ours, nor by a role of their own."""
    bound(api, room, "ada", "admin")
    ada = person("ada")
    binding = {
        "apiVersion": f"{RBAC}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "mine", "namespace": room},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "tenure-owner"},
        "subjects": [{"apiGroup": RBAC, "kind": "User", "name": "ada"}],
    }
    with pytest.raises(ApiError, match="attempting to grant RBAC permissions not currently held"):
        ada.create(binding)
    for verbs, resource in ((["approve"], "identityexceptions"), (["create"], "identitydecisions")):
        rules = [{"apiGroups": ["tenure.dev"], "resources": [resource], "verbs": verbs}]
        role = {"apiVersion": f"{RBAC}/v1", "kind": "Role", "metadata": {"name": "mine", "namespace": room}}
        with pytest.raises(ApiError, match="attempting to grant RBAC permissions not currently held"):
            ada.create({**role, "rules": rules})


CREATE = ("create", "identitydecisions")
PARTIES: dict[str, set[tuple[str, str]]] = {
    "tenure-team-member": set(),
    "tenure-auditor": set(),
    "tenure-owner": {
        CREATE,
        ("approve", "identityexceptions"),
        ("reject", "identityexceptions"),
        ("attest", "identityexceptions"),
        ("attest", "ownedidentities"),
        ("release", "quarantines"),
    },
    "tenure-security-reviewer": {
        CREATE,
        ("approve-security", "identityexceptions"),
        ("reject-security", "identityexceptions"),
        ("consult", "identityexceptions"),
    },
    "tenure-incident-responder": {
        CREATE,
        ("force", "identityexceptions"),
        ("quarantine", "identityfindings"),
        ("revoke", "identityfindings"),
        ("release", "quarantines"),
    },
}


@pytest.mark.parametrize("role", PARTIES)
def test_what_each_party_may(api: Cluster, room: str, role: str) -> None:
    bound(api, room, "pat", role)
    assert decides(api, room, "pat") == PARTIES[role]
    for resource in READABLE:
        assert may(api, room, "pat", "list", resource)
    assert not may(api, room, "pat", "get", "quarantineguards")
    requests = role in ("tenure-team-member", "tenure-owner")
    for resource in ("identityexceptions", "ownedidentities"):
        assert may(api, room, "pat", "create", resource) == requests


@pytest.fixture(scope="module")
def applied() -> Iterator[Callable[[Cluster], None]]:
    """Applies the four patterns once to a cluster, and takes them out at the end."""
    done: list[Cluster] = []

    def apply(cluster: Cluster) -> None:
        if cluster not in done:
            cluster.kubectl("apply", "-f", str(PATTERNS[0].parent))
            done.append(cluster)

    yield apply
    for cluster in done:
        cluster.kubectl("delete", "-f", str(PATTERNS[0].parent), "--wait=false")


TEAM, LEAD, LEAD2, SECURITY, RESPONDER = "tom", "lea", "leo", "sue", "ian"
GROUPS = {
    TEAM: ["team-payments"],
    LEAD: ["team-payments", "payments-leads"],
    LEAD2: ["payments-leads"],
    SECURITY: ["security"],
    RESPONDER: ["incident-response"],
}
VERBS = ("approve", "reject", "approve-security", "reject-security", "force", "attest")
HOLDS = {
    "team-decides": {LEAD: {"approve", "reject", "attest"}},
    "security-may-veto": {
        LEAD: {"approve", "reject", "attest"},
        SECURITY: {"approve-security", "reject-security"},
    },
    "both-approve": {
        LEAD: {"approve", "reject", "attest"},
        SECURITY: {"approve-security", "reject-security"},
    },
    "security-may-force": {LEAD: {"approve", "reject", "attest"}, RESPONDER: {"force"}},
}


def manifests(namespace: str) -> list[Json]:
    [path] = [path for path in PATTERNS if path.stem.partition("-")[2] == namespace]
    return list(yaml.safe_load_all(path.read_text()))


def attempt(person: Cluster, namespace: str, made: Json, verb: str, **more: Any) -> Json:
    """The decision with that verb about that exception, as the person."""
    given = {"force": "Approve", "attest": "Attest"}.get(verb) or verb.partition("-")[0].capitalize()
    metadata = made["metadata"]
    more |= {"kind": "IdentityException"} if verb == "attest" else {}
    return person.create(
        verdict(
            namespace,
            given,
            metadata["name"],
            uid=metadata["uid"],
            generation=metadata["generation"],
            verb=verb,
            **more,
        )
    )


@pytest.mark.parametrize("namespace", HOLDS)
def test_a_pattern_gives_each_party_its_verbs(
    api: Cluster, person: Person, applied: Callable[[Cluster], None], namespace: str
) -> None:
    """Real users of the groups that the manifests name: the team requests, each decides with what it holds."""
    applied(api)
    people = {name: person(name, groups) for name, groups in GROUPS.items()}
    eventually(
        lambda: api.can(
            LEAD, "approve", "identityexceptions", group="tenure.dev", namespace=namespace, groups=GROUPS[LEAD]
        )
    )
    made = eventually(lambda: people[TEAM].create(_request(namespace, TEAM)))
    for name, user in people.items():
        held = HOLDS[namespace].get(LEAD if name == LEAD2 else name, set())
        for verb in VERBS:
            if verb in held:
                assert attempt(user, namespace, made, verb, by=name)["spec"]["by"] == name
            else:
                with pytest.raises(ApiError, match=r"may not|cannot create resource") as refused:
                    attempt(user, namespace, made, verb, by=name)
                assert refused.value.status == 403
    for name in (SECURITY, RESPONDER):
        with pytest.raises(ApiError, match='cannot create resource "identityexceptions"'):
            people[name].create(_request(namespace, name))
    # The files stand for all that is asked: a policy of their own, for their own namespace.
    [policy] = [item for item in manifests(namespace) if item["kind"] == "GovernancePolicy"]
    stored = api.get("governancepolicies", policy["metadata"]["name"])
    assert stored is not None
    assert stored["spec"]["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": namespace}}


def _request(namespace: str, by: str) -> Json:
    made = exception(namespace, requestedBy=by)
    made["metadata"] = {"namespace": namespace, "generateName": "e-"}
    return made


def test_an_owner_claims_with_the_verb_that_is_granted_by_name(api: Cluster, room: str, person: Person) -> None:
    """tenure-owner writes claims, and claims for nobody: the verb is granted per owner."""
    bound(api, room, LEAD, "tenure-owner")
    api.create(owner(room))
    try:
        with pytest.raises(ApiError, match=f"user {LEAD} may not claim for IdentityOwner {room}"):
            person(LEAD).create(claim(room, owner=room))
    finally:
        api.delete("identityowners", room)
