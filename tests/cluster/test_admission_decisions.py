"""Who may decide, about what: judged by the API server when the decision is created, on 1.33 as on 1.36."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.cluster.tenure_objects import OPERATOR, UID, Json, claim, decision, exception, grant, service_account, thing
from tests.support.cluster import REPOSITORY, ApiError, Cluster, eventually

pytestmark = pytest.mark.local

Person = Callable[..., Cluster]

BOB = "bob@example.com"
MASTERS: Json = {"user": "root", "groups": ["system:masters"]}
AS_OPERATOR: Json = {"user": OPERATOR, "groups": ["system:masters"]}

TARGETS = {
    "Approve": ("IdentityException", "identityexceptions"),
    "Reject": ("IdentityException", "identityexceptions"),
    "Attest": ("OwnedIdentity", "ownedidentities"),
    "Quarantine": ("IdentityFinding", "identityfindings"),
    "Revoke": ("IdentityFinding", "identityfindings"),
    "Release": ("Quarantine", "quarantines"),
}


def stamps(cluster: Cluster) -> bool:
    """Whether this API server writes `by`, `grantedBy` and `requestedBy` itself."""
    served = cluster.rest.expect("GET", "/apis/admissionregistration.k8s.io/v1")["resources"]
    return any(resource["name"] == "mutatingadmissionpolicies" for resource in served)


def decider(cluster: Cluster, namespace: str, user: str, *verbs: str, resource: str = "identityexceptions") -> None:
    grant(cluster, namespace, user, ["create"], ["identitydecisions"])
    if verbs:
        grant(cluster, namespace, user, list(verbs), [resource])


def verdict(namespace: str, verdict: str = "Approve", name: str = "exception", *, by: str = BOB, **spec: Any) -> Json:
    """A decision about a target of that name, which need not be there: the operator asks whether it is."""
    kind, _ = TARGETS[verdict]
    target = {"kind": spec.pop("kind", kind), "name": name, "uid": spec.pop("uid", UID)}
    if target["kind"] in ("IdentityException", "OwnedIdentity"):
        target["generation"] = spec.pop("generation", 1)
    elif target["kind"] == "IdentityFinding":
        target["revision"] = spec.pop("revision", 1)
    made = decision(namespace, target=target, verdict=verdict, by=by, **spec)
    del made["metadata"]["name"]
    made["metadata"]["generateName"] = "d-"
    return made


def guarded(cluster: Cluster, namespace: str, **maps: Json) -> None:
    """The operator's map of what stands in the namespace, in force."""
    probe = {"uid": "probe", "generation": 1}
    maps["exceptions"] = {**maps.get("exceptions", {}), "probe": probe}
    cluster.apply(thing("QuarantineGuard", "decisions", maps, namespace), manager="tenure", **AS_OPERATOR)

    def in_force() -> bool:
        path = f"{cluster.path('identitydecisions', namespace=namespace)}?dryRun=All"
        status, answer = cluster.request("POST", path, verdict(namespace, name="probe", by="root"), **MASTERS)
        return status == 403 and "another object by now" in answer["message"]

    eventually(in_force, what="the guard on decisions")


# In one's own name, with a right of one's own -------------------------------------------------------------------------


def test_a_holder_of_the_verb_decides(api: Cluster, room: str, person: Person) -> None:
    decider(api, room, BOB, "approve")
    made = person(BOB).create(verdict(room))
    assert made["spec"]["by"] == BOB
    if stamps(api):
        assert made["spec"]["grantedBy"].startswith(f'RBAC: allowed by RoleBinding "{BOB}-approve-identityexceptions/')
    else:
        assert "grantedBy" not in made["spec"]


def test_by_is_who_asks(api: Cluster, room: str, person: Person) -> None:
    """Left out or forged: written by the API server where it can, refused elsewhere."""
    decider(api, room, BOB, "approve")
    bob = person(BOB)
    unnamed = verdict(room)
    del unnamed["spec"]["by"]
    for attempt, seen in ((unnamed, "missing"), (verdict(room, by="alice@example.com"), "alice@example.com")):
        if stamps(api):
            assert bob.create(attempt)["spec"]["by"] == BOB
            continue
        with pytest.raises(ApiError, match=f"spec.by is {seen}, and you are {BOB}. Write by: {BOB}") as refused:
            bob.create(attempt)
        assert refused.value.status == 403


def test_granted_by_is_what_the_api_server_says(api: Cluster, room: str, person: Person) -> None:
    decider(api, room, BOB, "approve")
    forged = verdict(room, grantedBy="the board")
    if stamps(api):
        assert "RBAC: allowed by RoleBinding" in person(BOB).create(forged)["spec"]["grantedBy"]
        return
    with pytest.raises(ApiError, match=r"so spec\.grantedBy stays empty; leave it out"):
        person(BOB).create(forged)
    assert person(BOB).create(verdict(room, grantedBy=""))["spec"]["grantedBy"] == ""


def test_a_reason_longer_than_its_field_is_cut(api: Cluster, room: str) -> None:
    user = "u" * 1000
    group = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}
    rule = {"apiGroups": ["tenure.dev"], "resources": ["*"], "verbs": ["create", "approve"]}
    rbac = "rbac.authorization.k8s.io/v1"
    api.create({"apiVersion": rbac, "kind": "Role", "metadata": {"name": "r", "namespace": room}, "rules": [rule]})
    api.create(
        {
            "apiVersion": rbac,
            "kind": "RoleBinding",
            "metadata": {"name": "b", "namespace": room},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
            "subjects": [group],
        }
    )
    eventually(lambda: api.can(user, "approve", "identityexceptions", group="tenure.dev", namespace=room))
    made = api.create(verdict(room, by=user), user=user)
    assert len(made["spec"].get("grantedBy", "")) == (1024 if stamps(api) else 0)


def test_two_rights_to_the_same_verb_do_no_harm(api: Cluster, room: str, person: Person) -> None:
    """The API server names one of them, not always the same one."""
    decider(api, room, BOB, "approve")
    grant(api, room, BOB, ["reject", "approve"], ["identityexceptions"])
    grant(api, room, BOB, ["attest", "approve"], ["identityexceptions"])
    bob = person(BOB)
    reasons = {bob.create(verdict(room))["spec"].get("grantedBy", "") for _ in range(30)}
    assert all(reason.startswith("RBAC: allowed by RoleBinding") for reason in reasons) or not stamps(api)


@pytest.mark.parametrize(
    ("given", "verb"), [*((v, v.lower()) for v in TARGETS), ("Approve", "force"), ("Reject", "consult")]
)
def test_each_verdict_needs_its_verb(api: Cluster, room: str, person: Person, given: str, verb: str) -> None:
    kind, resource = TARGETS[given]
    others = sorted({"approve", "reject", "attest", "quarantine", "revoke", "release", "force", "consult"} - {verb})
    decider(api, room, BOB, *others, resource=resource)
    bob = person(BOB)
    attempt = verdict(room, given, "target", **({} if verb == given.lower() else {"verb": verb}))
    with pytest.raises(ApiError, match=f"user {BOB} may not {verb} {kind} {room}/target") as refused:
        bob.create(attempt)
    assert refused.value.status == 403
    assert f"the verb {verb} on {resource}.tenure.dev is missing in namespace {room}" in refused.value.message
    assert f"resources: [{resource}], verbs: [{verb}]" in refused.value.message
    grant(api, room, BOB, [verb], [resource])
    assert bob.create(attempt)["spec"]["verdict"] == given


def test_an_exception_is_attested_with_the_verb_on_exceptions(api: Cluster, room: str, person: Person) -> None:
    decider(api, room, BOB, "attest", resource="ownedidentities")
    with pytest.raises(ApiError, match=r"the verb attest on identityexceptions\.tenure\.dev is missing"):
        person(BOB).create(verdict(room, "Attest", kind="IdentityException"))


def test_a_second_party_is_a_verb_of_its_own(api: Cluster, room: str, person: Person) -> None:
    decider(api, room, BOB, "approve")
    decider(api, room, "sue", "approve-security")
    with pytest.raises(ApiError, match=f"user {BOB} may not approve-security"):
        person(BOB).create(verdict(room, verb="approve-security"))
    with pytest.raises(ApiError, match="user sue may not approve IdentityException"):
        person("sue").create(verdict(room, by="sue"))
    person("sue").create(verdict(room, by="sue", verb="approve-security"))


def test_a_verb_in_another_namespace_or_for_another_name_is_none(api: Cluster, room: str, person: Person) -> None:
    elsewhere = api.namespace("elsewhere")
    decider(api, room, BOB)
    decider(api, elsewhere, BOB, "approve")
    with pytest.raises(ApiError, match=f"missing in namespace {room}"):
        person(BOB).create(verdict(room))
    person(BOB).create(verdict(elsewhere))
    grant(api, room, BOB, ["approve"], ["identityexceptions"], names=["mine"])
    person(BOB).create(verdict(room, name="mine"))
    with pytest.raises(ApiError, match=f"may not approve IdentityException {room}/theirs"):
        person(BOB).create(verdict(room, name="theirs"))
    api.delete_namespace(elsewhere)


def test_the_verb_through_a_group(api: Cluster, room: str, person: Person) -> None:
    rbac = "rbac.authorization.k8s.io"
    api.create(
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "leads", "namespace": room},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "tenure-owner"},
            "subjects": [{"apiGroup": rbac, "kind": "Group", "name": "leads"}],
        }
    )
    lead = person("lea", ["leads"])
    made = eventually(lambda: lead.create(verdict(room, by="lea")))
    assert made["spec"].get("grantedBy", "").endswith('to Group "leads"') or not stamps(api)


# Service accounts -----------------------------------------------------------------------------------------------------


@pytest.fixture
def pipeline(api: Cluster, room: str) -> Iterator[tuple[str, str]]:
    """A pipeline that may do everything: its user name and a real token."""
    service_account(api, room, "pipeline")
    user = f"system:serviceaccount:{room}:pipeline"
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": f"pipeline-{room}"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "pipeline", "namespace": room}],
    }
    api.create(binding)
    eventually(lambda: api.can(user, "approve", "identityexceptions", group="tenure.dev", namespace=room))
    yield user, api.token(room, "pipeline")
    api.delete("clusterrolebindings", f"pipeline-{room}")


def install(cluster: Cluster, **extra: str) -> str:
    """Runs install.sh; what it says, refusals too."""
    done = subprocess.run(
        ["bash", str(REPOSITORY / "deploy" / "install.sh")],
        env={**cluster.environment(), **extra},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.stdout + done.stderr


def test_a_wildcard_role_gives_a_service_account_no_decision(
    api: Cluster, room: str, pipeline: tuple[str, str]
) -> None:
    user, token = pipeline
    for given in TARGETS:
        with pytest.raises(ApiError, match=f"{user} may not decide: ServiceAccounts hold many rights") as refused:
            api.create(verdict(room, given, by=user), token=token)
        assert refused.value.status == 403
        assert "make install DECIDERS=" in refused.value.message


def test_a_listed_service_account_decides_with_the_verb(api: Cluster, room: str, pipeline: tuple[str, str]) -> None:
    user, token = pipeline
    service_account(api, room, "other")
    other = f"system:serviceaccount:{room}:other"
    decider(api, room, other)
    try:
        assert "tenure: installed" in install(api, DECIDERS=f"{user},{other}")
        eventually(lambda: api.create(verdict(room, by=user), token=token))
        with pytest.raises(ApiError, match=f"user {other} may not approve"):  # the list gives no right
            api.create(verdict(room, by=other), token=api.token(room, "other"))
        assert "tenure: installed" in install(api)  # unset: as it is
        api.create(verdict(room, by=user), token=token)
    finally:
        assert "tenure: installed" in install(api, DECIDERS="")

    def refused() -> str:
        try:
            api.create(verdict(room, by=user), token=token)
        except ApiError as error:
            return str(error)
        return ""

    assert "may not decide" in eventually(refused, what="the list, empty again, in force")


def test_who_cannot_be_listed(api: Cluster) -> None:
    assert "makes none; leave it out" in install(api, DECIDERS=OPERATOR)
    for nonsense in ("alice", "system:serviceaccount:a:b,", "system:serviceaccount:a:b'+'", "system:serviceaccounts"):
        assert "is no list of ServiceAccounts" in install(api, DECIDERS=nonsense)


def test_the_operator_never_decides(api: Cluster, room: str) -> None:
    with pytest.raises(ApiError, match='cannot create resource "identitydecisions"'):
        api.create(verdict(room, by=OPERATOR), token=api.token("tenure-system", "tenure"))
    with pytest.raises(ApiError, match=f"{OPERATOR} may not decide"):
        api.create(verdict(room, by=OPERATOR), **AS_OPERATOR)


# The ledger -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def recorded(api: Cluster, room: str) -> str:
    """The name of a decision that stands in the room."""
    decider(api, room, BOB, "approve")
    return str(api.create(verdict(room), user=BOB)["metadata"]["name"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"spec": {"reason": "another"}}, "a decision is immutable"),
        ({"spec": {"by": "alice"}}, "a decision is immutable"),
        ({"metadata": {"labels": {"a": "b"}}}, "a decision is never changed, its labels and annotations included"),
        ({"metadata": {"annotations": {"a": "b"}}}, "a decision is never changed"),
        ({"metadata": {"finalizers": ["example.com/hold"]}}, "a decision is never changed"),
        (
            {"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": UID}]}},
            "a decision is never changed",
        ),
    ],
)
def test_nobody_changes_a_decision(api: Cluster, room: str, recorded: str, change: Json, said: str) -> None:
    for by in (MASTERS, AS_OPERATOR):
        with pytest.raises(ApiError, match=said):
            api.patch("identitydecisions", recorded, change, room, **by)


def test_nobody_but_the_operator_answers_in_its_status(api: Cluster, room: str, recorded: str) -> None:
    body = {"status": {"outcome": "Counted"}}
    with pytest.raises(ApiError, match=r"only the operator of Tenure .* writes identitydecisions/status"):
        api.patch("identitydecisions", recorded, body, room, subresource="status", **MASTERS)
    token = api.token("tenure-system", "tenure")
    api.patch("identitydecisions", recorded, body, room, subresource="status", token=token)


def test_applying_a_decision_again_changes_nothing(api: Cluster, room: str) -> None:
    """A manifest that `--print` wrote may be applied twice."""
    decider(api, room, BOB, "approve")
    grant(api, room, BOB, ["patch", "get"], ["identitydecisions"])
    made = verdict(room)
    made["metadata"] = {"name": "printed", "namespace": room}
    first = api.apply(made, user=BOB)
    again = api.apply(made, user=BOB)
    assert (again["spec"], again["metadata"]["generation"]) == (first["spec"], 1)


@pytest.mark.parametrize(
    "metadata",
    [
        {"finalizers": ["example.com/hold"]},
        {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": UID}]},
    ],
)
def test_a_decision_is_born_with_neither_owners_nor_finalizers(api: Cluster, room: str, metadata: Json) -> None:
    decider(api, room, BOB, "approve")
    made = verdict(room)
    made["metadata"].update(metadata)
    for by, name in (({"user": BOB}, BOB), (MASTERS, "root")):
        made["spec"]["by"] = name
        with pytest.raises(ApiError, match="neither owners nor finalizers"):
            api.create(made, **by)


def test_decisions_are_deleted_by_the_operator_alone(api: Cluster, room: str, recorded: str) -> None:
    grant(api, room, BOB, ["delete", "deletecollection"], ["identitydecisions"])
    for by in ({"user": BOB}, MASTERS, {}):
        with pytest.raises(ApiError, match="deleted by the operator of Tenure alone") as refused:
            api.delete("identitydecisions", recorded, room, **by)
        assert refused.value.status == 403
        with pytest.raises(ApiError, match="deleted by the operator of Tenure alone"):
            api.rest.expect("DELETE", api.path("identitydecisions", namespace=room), **by)
    token = api.token("tenure-system", "tenure")
    options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Foreground"}
    api.delete("identitydecisions", recorded, room, options, token=token)
    eventually(lambda: api.get("identitydecisions", recorded, room) is None)


def test_a_terminating_namespace_takes_its_decisions_with_it(api: Cluster) -> None:
    name = api.namespace("ends")
    decider(api, name, BOB, "approve")
    api.create(verdict(name), user=BOB)
    api.delete_namespace(name, wait=True)


# What is decided about ------------------------------------------------------------------------------------------------


def refusal(cluster: Cluster, manifest: Json, **by: Any) -> str:
    """What a dry run of the decision is refused with; empty when it would be accepted."""
    path = f"{cluster.path('identitydecisions', namespace=manifest['metadata']['namespace'])}?dryRun=All"
    status, answer = cluster.request("POST", path, manifest, **(by or {"user": manifest["spec"]["by"]}))
    assert status in (201, 403), answer
    return "" if status == 201 else str(answer["message"])


def test_an_older_state_is_not_decided(api: Cluster, room: str) -> None:
    for verb, resource in (("approve", "identityexceptions"), ("attest", "ownedidentities")):
        decider(api, room, BOB, verb, resource=resource)
    decider(api, room, BOB, "quarantine", resource="identityfindings")
    guarded(
        api,
        room,
        exceptions={"e": {"uid": "u-e", "generation": 3}},
        claims={"c": {"uid": "u-c", "version": 3}},
        findings={"f": {"uid": "u-f", "version": 3}},
    )
    for given, name, field in (
        ("Approve", "e", "generation"),
        ("Attest", "c", "generation"),
        ("Quarantine", "f", "revision"),
    ):
        kind, _ = TARGETS[given]
        about = {"name": name, "uid": f"u-{name}"}
        said = refusal(api, verdict(room, given, **about, **{field: 2}))
        assert f"{kind} {room}/{name} changed since: its {field} is 3, this decision names 2" in said
        assert refusal(api, verdict(room, given, **about, **{field: 3})) == ""
        # The operator's map may be a moment behind.
        assert refusal(api, verdict(room, given, **about, **{field: 4})) == ""
        said = refusal(api, verdict(room, given, name, uid="a-namesake", **{field: 3}))
        assert f"{kind} {room}/{name} is another object by now: its uid is u-{name}" in said
        assert refusal(api, verdict(room, given, "unknown", **{field: 1})) == ""


APPROVALS = (
    {},
    {"verb": "approve-security"},
    {"verb": "force"},
    {"verb": "consult"},
    {"verdict": "Reject", "verb": "consult"},
    {"verdict": "Reject", "verb": "consult-legal"},
)


@pytest.mark.parametrize("field", ["requestedBy", "onBehalfOf"])
def test_nobody_approves_their_own_request(api: Cluster, room: str, field: str) -> None:
    decider(api, room, BOB, "approve", "approve-security", "force", "consult", "consult-legal", "reject")
    mine = {"uid": UID, "generation": 2, "requestedBy": "alice", "onBehalfOf": "alice", field: BOB}
    guarded(api, room, exceptions={"mine": mine, "theirs": {**mine, field: "alice"}})
    for spec in APPROVALS:
        attempt = {"name": "mine", "generation": 2, **spec}
        said = refusal(api, verdict(room, **attempt))
        assert f"IdentityException {room}/mine is the request of {BOB} (spec.{field})" in said
        assert refusal(api, verdict(room, **{**attempt, "name": "theirs"})) == ""
        # About a state that the map does not have yet nothing is known.
        assert refusal(api, verdict(room, **{**attempt, "generation": 3})) == ""
    assert refusal(api, verdict(room, "Reject", "mine", generation=2)) == ""


def test_an_edit_by_a_colleague_makes_it_theirs(api: Cluster, room: str) -> None:
    """Then its first author approves what they did not write, and the colleague does not."""
    for user in ("alice", BOB):
        decider(api, room, user, "approve")
    guarded(api, room, exceptions={"e": {"uid": UID, "generation": 1, "requestedBy": "alice"}})
    assert "is the request of alice" in refusal(api, verdict(room, name="e", by="alice"))
    guarded(api, room, exceptions={"e": {"uid": UID, "generation": 2, "requestedBy": BOB}})
    eventually(lambda: "changed since" in refusal(api, verdict(room, name="e", by="alice")))
    assert refusal(api, verdict(room, name="e", by="alice", generation=2)) == ""
    assert f"is the request of {BOB}" in refusal(api, verdict(room, name="e", generation=2))


def test_without_the_map_decisions_can_be_made(api: Cluster, room: str) -> None:
    decider(api, room, BOB, "approve")
    assert api.get("quarantineguards", "decisions", room) is None
    assert refusal(api, verdict(room)) == ""


def test_an_approval_among_two_thousand_requests(api: Cluster, room: str) -> None:
    """At most 20 ms slower than with one request in the namespace, in the median of interleaved pairs."""
    crowded = api.namespace("crowded")
    entry = {"uid": UID, "generation": 1, "requestedBy": "alice@example.com", "onBehalfOf": "carol@example.com"}
    for namespace, count in ((room, 1), (crowded, 2000)):
        decider(api, namespace, BOB, "approve")
        guarded(api, namespace, exceptions={f"exception-{number}": entry for number in range(count)})
    durations: dict[str, list[float]] = {room: [], crowded: []}
    for _ in range(150):
        for namespace, taken in durations.items():
            start = time.perf_counter()
            assert refusal(api, verdict(namespace, name="exception-0")) == ""
            taken.append(time.perf_counter() - start)
    difference = statistics.median(durations[crowded]) - statistics.median(durations[room])
    api.delete_namespace(crowded)
    assert difference < 0.020, f"{difference * 1000:.1f} ms slower"


# Whatever somebody may do by RBAC -------------------------------------------------------------------------------------


def test_a_wildcard_changes_no_finding_guard_or_status(api: Cluster, room: str, pipeline: tuple[str, str]) -> None:
    """Findings, guards and statuses are held by who asks: */*/* does not help."""
    user, token = pipeline
    api.create(claim(room, owner="payments"))
    api.create(exception(room, requestedBy=user), token=token)
    for resource, name in (("ownedidentities", "claim"), ("identityexceptions", "exception")):
        body = {"status": {"observedGeneration": 7}}
        with pytest.raises(ApiError, match=f"only the operator of Tenure .* writes {resource}/status"):
            api.patch(resource, name, body, room, subresource="status", token=token)
    subject = {"apiVersion": "v1", "kind": "ServiceAccount", "namespace": room, "name": "ci", "uid": UID}
    for manifest in (
        thing("IdentityFinding", "f", {"rule": "Unowned", "subject": subject}, room),
        thing("QuarantineGuard", "decisions", {}, room),
    ):
        with pytest.raises(ApiError, match="only the operator of Tenure"):
            api.create(manifest, token=token)


def test_a_quarantine_goes_with_the_verb_release_alone(api: Cluster, room: str, person: Person) -> None:
    subject = {"kind": "ServiceAccount", "name": "ci", "uid": UID}
    api.create(thing("Quarantine", "q", {"subject": subject, "stages": ["Guard"]}, room), user=OPERATOR)
    grant(api, room, BOB, ["delete"], ["quarantines"])
    with pytest.raises(ApiError, match=r"the verb release on quarantines\.tenure\.dev is missing"):
        person(BOB).delete("quarantines", "q", room)
    grant(api, room, BOB, ["release"], ["quarantines"])
    person(BOB).delete("quarantines", "q", room)
    assert api.get("quarantines", "q", room) is None
