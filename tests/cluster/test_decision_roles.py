"""The roles that come with Tenure, and the four patterns of docs/decision-rights.md, with real users."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml

from tests.cluster.tenure_objects import Json, claim, exception, owner
from tests.cluster.test_admission_decisions import verdict
from tests.support import scenario
from tests.support.cluster import REPOSITORY, ApiError, Cluster, eventually
from tests.support.operator import Operator
from tests.support.scenario import phase_of

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


# What the patterns come to, with the operator ------------------------------------------------------------------------

BOTH_HATS = "bea"
"""Leads the team and reviews for security."""


class Pattern:
    """One of the files, applied to a cluster with an operator: its namespace, and its people by their certificates."""

    def __init__(self, cluster: Cluster, namespace: str, person: Person) -> None:
        self.cluster = cluster
        self.namespace = namespace
        groups = {**GROUPS, BOTH_HATS: ["payments-leads", "security"]}
        self._people = {name: person(name, given) for name, given in groups.items()}

    def ask(self, called: str, by: str = TEAM) -> Json:
        """A waiver for a token of its own, asked for by somebody; there is a finding about that token by then."""
        token = f"{called}-token"
        scenario.identity(self.cluster, self.namespace, called, [token])
        eventually(lambda: self.phase(called) == "Open", what=f"a finding on {token}")
        return self._people[by].create(
            scenario.exception(self.namespace, "Secret", token, "LegacyToken", called=called, requestedBy=by)
        )

    def decide(self, made: Json, verb: str, by: str) -> Json:
        return attempt(self._people[by], self.namespace, made, verb, by=by)

    def phase(self, called: str) -> str:
        """Of the finding that the waiver of that name is about."""
        return phase_of(self.cluster, self.namespace, "LegacyToken", f"{called}-token")

    def becomes(self, made: Json, **fields: Any) -> Json:
        """Waits until the exception's status says this."""

        def there() -> Json:
            found = self.cluster.get("identityexceptions", made["metadata"]["name"], self.namespace) or {}
            status: Json = found.get("status", {})
            assert {name: status.get(name) for name in fields} == fields, status
            return status

        return eventually(there, 60, what=f"{made['metadata']['name']}: {fields}")

    def voided(self, made: Json, verb: str, by: str) -> str:
        """Why that decision does nothing: as the API server refuses it, or as the operator voids it."""
        try:
            decision = self.decide(made, verb, by)
        except ApiError as refused:
            return str(refused)

        def said() -> str:
            found = self.cluster.get("identitydecisions", decision["metadata"]["name"], self.namespace) or {}
            status: Json = found.get("status", {})
            return str(status["message"]) if status.get("outcome") == "Void" else ""

        return eventually(said, what=f"{verb} by {by} is void")


@pytest.fixture(scope="module")
def operated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Cluster], None]]:
    """Starts the operator once on a cluster, and ends it after the file."""
    running: dict[Cluster, Operator] = {}

    def start(cluster: Cluster) -> None:
        if cluster not in running:
            operator = Operator(cluster.kubeconfig, directory=tmp_path_factory.mktemp("operator"))
            running[cluster] = operator.__enter__()

    yield start
    for operator in running.values():
        operator.close()


@pytest.fixture
def pattern(
    api: Cluster, person: Person, applied: Callable[[Cluster], None], operated: Callable[[Cluster], None]
) -> Callable[[str], Pattern]:
    applied(api)
    operated(api)
    return lambda namespace: Pattern(api, namespace, person)


def test_the_team_alone_decides(pattern: Callable[[str], Pattern]) -> None:
    team = pattern("team-decides")
    asked = team.ask("app")
    team.becomes(asked, phase="Pending", reason="AwaitingApproval")
    team.decide(asked, "approve", LEAD)
    team.becomes(asked, phase="Active", reason="Approved")
    eventually(lambda: team.phase("app") == "Excepted", what="the waiver")
    # A lead's own request is another lead's to decide.
    own = team.ask("own", LEAD)
    team.becomes(own, phase="Pending")
    assert LEAD in team.voided(own, "approve", LEAD)
    team.becomes(own, phase="Pending")
    team.decide(own, "approve", LEAD2)
    team.becomes(own, phase="Active")


def test_the_team_decides_and_security_may_veto(pattern: Callable[[str], Pattern]) -> None:
    """Within the day that the manifest gives; that it is over after `within` is tested with one of seconds."""
    team = pattern("security-may-veto")
    asked = team.ask("app")
    team.decide(asked, "approve", LEAD)
    waiting = team.becomes(asked, phase="Pending", reason="Waiting")
    until = datetime.fromisoformat(asked["metadata"]["creationTimestamp"]) + timedelta(hours=24)
    assert waiting["failing"] == f"veto: reject-security may object until {until:%Y-%m-%dT%H:%M:%SZ}"
    assert team.phase("app") == "Open", "not before the day is over"
    team.decide(asked, "reject-security", SECURITY)
    assert SECURITY in team.becomes(asked, phase="Rejected")["failing"]
    # The second approval was for nothing, whether the operator says so by the order of their making or by how it ended.
    told = team.voided(asked, "approve", LEAD2)
    assert f"{SECURITY} rejected it" in told or f"{SECURITY} had rejected it" in told
    assert team.phase("app") == "Open"


def test_both_must_approve(pattern: Callable[[str], Pattern]) -> None:
    both = pattern("both-approve")
    asked = both.ask("app")
    for verb in ("approve", "approve-security"):
        both.decide(asked, verb, BOTH_HATS)
    half = both.becomes(asked, phase="Pending", reason="AwaitingApproval")
    eventually(
        lambda: len(both.becomes(asked, phase="Pending").get("counted", ())) == 1, what="one person is one approval"
    )
    assert "1 of 1" in both.becomes(asked, phase="Pending")["failing"], half
    both.decide(asked, "approve-security", SECURITY)
    active = both.becomes(asked, phase="Active", reason="Approved")
    assert sorted(counted["by"] for counted in active["counted"]) == [BOTH_HATS, SECURITY]
    eventually(lambda: both.phase("app") == "Excepted", what="the waiver")


def test_security_may_force_in_an_incident_and_the_team_reviews(pattern: Callable[[str], Pattern]) -> None:
    incident = pattern("security-may-force")
    for called, verb in (("kept", "attest"), ("ended", "reject")):
        asked = incident.ask(called)
        force = incident.decide(asked, "force", RESPONDER)
        active = incident.becomes(asked, phase="Active", reason="Forced")
        forced = datetime.fromisoformat(force["metadata"]["creationTimestamp"])
        assert datetime.fromisoformat(active["reviewDue"]) == forced + timedelta(days=7)
        eventually(lambda called=called: incident.phase(called) == "Excepted", what="the waiver")  # type: ignore[misc]
        # Within one second the force would win.
        eventually(lambda forced=forced: datetime.now(UTC) >= forced + timedelta(seconds=1))  # type: ignore[misc]
        reviewed = incident.decide(asked, verb, LEAD)
        if verb == "attest":
            after = incident.becomes(asked, attested=reviewed["metadata"]["creationTimestamp"], phase="Active")
            assert "reviewDue" not in after
        else:
            incident.becomes(asked, phase="Withdrawn")
            eventually(lambda: incident.phase("ended") == "Open", what="the finding is back")
