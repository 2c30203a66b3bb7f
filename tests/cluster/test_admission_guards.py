"""What a quarantine refuses, what it lets pass, and what every refusal says."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.cluster.tenure_objects import (
    ACCOUNT,
    OFF,
    OPERATOR,
    Json,
    entry,
    guard,
    pod,
    service_account,
    thing,
    token_secret,
)
from tests.support.cluster import ApiError, Cluster, eventually

RBAC = "rbac.authorization.k8s.io"
LAST_USED = "kubernetes.io/legacy-token-last-used"
NODE = {"user": "system:node:node-1", "groups": ["system:nodes"]}
QUARANTINE = "serviceaccount-ci-6d0f1a"


def set_guard(cluster: Cluster, namespace: str, **maps: Mapping[str, Any]) -> None:
    """Writes the namespace's guard, as the operator does, and returns once a token request sees it."""
    service = f"probe-{len(str(maps))}-{abs(hash(str(maps))) % 10**6}"
    probed = {**maps, "serviceAccounts": {**maps.get("serviceAccounts", {}), service: entry(f"{namespace}/probe")}}
    service_account(cluster, namespace, service)
    cluster.apply(guard(namespace, **probed), manager="tenure", user=OPERATOR)
    eventually(lambda: token(cluster, namespace, service)[0] == 403, what="guard in force")
    cluster.delete("serviceaccounts", service, namespace)


def token(cluster: Cluster, namespace: str, account: str, bound: Json | None = None, **by: Any) -> tuple[int, str]:
    """A token request: the status and the message."""
    spec = {"boundObjectRef": bound} if bound else {}
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    status, answer = cluster.request(
        "POST", cluster.path("serviceaccounts", account, namespace, "token"), request, **by
    )
    return status, answer.get("message", "")


def says(message: str, namespace: str) -> bool:
    """What every refusal names: the Quarantine, the owner's contact, and how to release."""
    return (
        f"Quarantine {namespace}/{QUARANTINE}, owner payments, contact payments@example.com" in message
        and f"kubectl delete quarantine {QUARANTINE} -n {namespace}" in message
    )


@pytest.fixture
def accounts(installed: Cluster, namespace: str) -> str:
    """The namespace, with ServiceAccounts `ci`, to be quarantined, and `other`."""
    service_account(installed, namespace, "ci")
    service_account(installed, namespace, "other")
    return namespace


@pytest.fixture
def quarantined(installed: Cluster, accounts: str) -> str:
    """The same, with `ci` quarantined."""
    set_guard(installed, accounts, serviceAccounts={"ci": entry(f"{accounts}/{QUARANTINE}")})
    return accounts


# Tokens ---------------------------------------------------------------------------------------------------------------


def test_no_token_for_a_quarantined_account(installed: Cluster, quarantined: str) -> None:
    status, message = token(installed, quarantined, "ci")
    assert status == 403
    assert f"ServiceAccount {quarantined}/ci is quarantined and gets no new token" in message
    assert says(message, quarantined), message
    assert token(installed, quarantined, "other")[0] == 201
    assert token(installed, quarantined, "default")[0] == 201


def test_whoever_asks(installed: Cluster, quarantined: str) -> None:
    masters = {"user": "root", "groups": ["system:masters"]}
    assert token(installed, quarantined, "ci", **masters)[0] == 403
    asked = installed.kubectl("create", "token", "ci", "-n", quarantined, check=False)
    assert asked.returncode != 0
    assert says(asked.stderr, quarantined)


def test_lifting_it_is_enough(installed: Cluster, quarantined: str) -> None:
    installed.delete("quarantineguards", "guard", quarantined, user=OPERATOR)
    eventually(lambda: token(installed, quarantined, "ci")[0] == 201)


def test_an_entry_without_owner_and_contact_still_makes_a_sentence(installed: Cluster, accounts: str) -> None:
    set_guard(installed, accounts, serviceAccounts={"ci": {"quarantine": f"{accounts}/{QUARANTINE}"}})
    _, message = token(installed, accounts, "ci")
    assert f"(Quarantine {accounts}/{QUARANTINE}, owner nobody, contact none)" in message


@pytest.fixture
def node(installed: Cluster) -> Iterator[None]:
    """The right of a kubelet to ask for tokens (the node authorizer, absent here, grants it for its own pods)."""
    rule = {"apiGroups": [""], "resources": ["serviceaccounts/token"], "verbs": ["create"]}
    metadata = {"name": "tenure-test-kubelet"}
    subject = {"kind": "Group", "apiGroup": RBAC, "name": "system:nodes"}
    other = {"kind": "User", "apiGroup": RBAC, "name": "jane"}
    ref = {"apiGroup": RBAC, "kind": "ClusterRole", "name": "tenure-test-kubelet"}
    installed.apply({"apiVersion": f"{RBAC}/v1", "kind": "ClusterRole", "metadata": metadata, "rules": [rule]})
    installed.apply(
        {
            "apiVersion": f"{RBAC}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": metadata,
            "roleRef": ref,
            "subjects": [subject, other],
        }
    )
    yield
    installed.delete("clusterrolebindings", "tenure-test-kubelet")
    installed.delete("clusterroles", "tenure-test-kubelet")


@pytest.mark.usefixtures("node")
def test_the_kubelet_goes_on_for_pods_that_run_already(installed: Cluster, accounts: str) -> None:
    running = installed.create(pod(accounts, "running"))
    set_guard(installed, accounts, serviceAccounts={"ci": entry(f"{accounts}/{QUARANTINE}")})
    bound = {"apiVersion": "v1", "kind": "Pod", "name": "running", "uid": running["metadata"]["uid"]}
    assert token(installed, accounts, "ci", bound, **NODE)[0] == 201
    # Neither a kubelet that binds to nothing, or to a Secret, nor anybody else who binds to the pod.
    assert token(installed, accounts, "ci", **NODE)[0] == 403
    made = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": accounts}}
    handle = {"apiVersion": "v1", "kind": "Secret", "name": "s", "uid": installed.create(made)["metadata"]["uid"]}
    assert token(installed, accounts, "ci", handle, **NODE)[0] == 403
    assert token(installed, accounts, "ci", bound, user="jane")[0] == 403
    assert token(installed, accounts, "ci", bound)[0] == 403


# Pods -----------------------------------------------------------------------------------------------------------------


def test_no_new_pod(installed: Cluster, quarantined: str) -> None:
    with pytest.raises(
        ApiError, match=f"ServiceAccount {quarantined}/ci is quarantined and runs no new pod"
    ) as refused:
        installed.create(pod(quarantined, "new"))
    assert refused.value.status == 403
    assert says(refused.value.message, quarantined)
    installed.create(pod(quarantined, "new", "other"))


def test_no_new_pod_as_the_default_account_that_nobody_named(installed: Cluster, accounts: str) -> None:
    set_guard(installed, accounts, serviceAccounts={"default": entry(f"{accounts}/{QUARANTINE}")})
    unnamed = pod(accounts, "new")
    del unnamed["spec"]["serviceAccountName"]
    with pytest.raises(ApiError, match=f"ServiceAccount {accounts}/default is quarantined"):
        installed.create(unnamed)


def test_no_new_container_in_a_pod_that_runs(installed: Cluster, accounts: str) -> None:
    installed.create(pod(accounts, "running"))
    installed.create(pod(accounts, "innocent", "other"))
    set_guard(installed, accounts, serviceAccounts={"ci": entry(f"{accounts}/{QUARANTINE}")})
    debug = {"spec": {"ephemeralContainers": [{"name": "debug", "image": "registry.example/none"}]}}
    strategic = "application/strategic-merge-patch+json"
    with pytest.raises(ApiError, match="is quarantined and runs no new container") as refused:
        installed.patch("pods", "running", debug, accounts, subresource="ephemeralcontainers", content_type=strategic)
    assert says(refused.value.message, accounts)
    installed.patch("pods", "innocent", debug, accounts, subresource="ephemeralcontainers", content_type=strategic)


def test_a_pod_that_runs_is_left_alone(installed: Cluster, accounts: str) -> None:
    installed.create(pod(accounts, "running"))
    set_guard(installed, accounts, serviceAccounts={"ci": entry(f"{accounts}/{QUARANTINE}")})
    installed.patch("pods", "running", {"metadata": {"labels": {"a": "b"}}}, accounts)
    status = {"status": {"phase": "Running"}}
    installed.patch("pods", "running", status, accounts, subresource="status")
    installed.delete("pods", "running", accounts)


def test_a_workload_carries_the_refusal_where_people_look(installed: Cluster, quarantined: str) -> None:
    template = {"metadata": {"labels": {"app": "ci"}}, "spec": pod(quarantined, "x")["spec"]}
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": "ci"}}, "template": template}
    metadata = {"name": "ci", "namespace": quarantined}
    installed.create({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": metadata, "spec": spec})

    def failure() -> str | None:
        found = installed.get("replicasets", "ci", quarantined) or {}
        conditions = found.get("status", {}).get("conditions", [])
        return next((c["message"] for c in conditions if c["type"] == "ReplicaFailure"), None)

    assert says(eventually(failure) or "", quarantined)


# Secrets --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def disabled(installed: Cluster, accounts: str) -> str:
    """`ci` and its token Secret `ci-token` quarantined, the token switched off, another's left alone."""
    for name, account in (("ci-token", "ci"), ("other-token", "other")):
        installed.create(token_secret(accounts, name, account))
        eventually(lambda name=name: "token" in secret(installed, accounts, name).get("data", {}), what="token")
    switched = {"metadata": {"labels": {OFF: "2026-12-04"}}}
    installed.patch("secrets", "ci-token", switched, accounts, user=OPERATOR)
    set_guard(
        installed,
        accounts,
        serviceAccounts={"ci": entry(f"{accounts}/{QUARANTINE}")},
        secrets={"ci-token": entry(f"{accounts}/{QUARANTINE}", serviceAccount="ci")},
        revokedNames={"gone-token": entry(f"{accounts}/{QUARANTINE}", serviceAccount="ci")},
    )
    return accounts


def secret(cluster: Cluster, namespace: str, name: str) -> Json:
    found = cluster.get("secrets", name, namespace)
    assert found is not None
    return found


@pytest.mark.parametrize(
    "change",
    [
        {"metadata": {"labels": {OFF: None}}},
        {"metadata": {"labels": None}},
        {"metadata": {"labels": {OFF: ""}}},
        {"metadata": {"labels": {OFF: "2027-01-01"}}},
    ],
)
def test_the_label_stays_on(installed: Cluster, disabled: str, change: Json) -> None:
    for by in ({}, {"user": "root", "groups": ["system:masters"]}):
        with pytest.raises(
            ApiError, match=f"Secret {disabled}/ci-token is quarantined: its label {OFF} stays"
        ) as refused:
            installed.patch("secrets", "ci-token", change, disabled, **by)
        assert refused.value.status == 403
        assert says(refused.value.message, disabled)


def test_the_label_stays_on_when_only_the_account_is_quarantined(installed: Cluster, disabled: str) -> None:
    set_guard(installed, disabled, serviceAccounts={"ci": entry(f"{disabled}/{QUARANTINE}")}, secrets={})
    with pytest.raises(ApiError, match="stays as it is"):
        installed.patch("secrets", "ci-token", {"metadata": {"labels": {OFF: None}}}, disabled)


def test_the_label_stays_on_by_replacing_the_object(installed: Cluster, disabled: str) -> None:
    changed = secret(installed, disabled, "ci-token")
    del changed["metadata"]["labels"]
    status, answer = installed.request("PUT", installed.path("secrets", "ci-token", disabled), changed)
    assert (status, "stays as it is" in answer["message"]) == (403, True), answer


def test_the_operator_switches_it_on_again(installed: Cluster, disabled: str) -> None:
    back = installed.patch("secrets", "ci-token", {"metadata": {"labels": {OFF: None}}}, disabled, user=OPERATOR)
    assert OFF not in back["metadata"].get("labels", {})


def test_a_quarantined_secret_may_change_otherwise_and_may_be_deleted(installed: Cluster, disabled: str) -> None:
    installed.patch("secrets", "ci-token", {"metadata": {"annotations": {"a": "b"}, "labels": {"c": "d"}}}, disabled)
    installed.delete("secrets", "ci-token", disabled)


@pytest.mark.parametrize("kind", ["kubernetes.io/service-account-token", "Opaque"])
def test_its_name_is_refused_while_it_is_quarantined(installed: Cluster, disabled: str, kind: str) -> None:
    installed.delete("secrets", "ci-token", disabled)
    again = {**token_secret(disabled, "ci-token", "other"), "type": kind}
    with pytest.raises(ApiError, match=f"Secret {disabled}/ci-token is quarantined and cannot be created") as refused:
        installed.create(again)
    assert says(refused.value.message, disabled)


def test_a_revoked_name_is_refused_to_everybody(installed: Cluster, disabled: str) -> None:
    for by in ({}, {"user": "root", "groups": ["system:masters"]}):
        with pytest.raises(ApiError, match="its name stays refused") as refused:
            installed.create(token_secret(disabled, "gone-token", "other"), **by)
        assert refused.value.status == 403
        assert f"Quarantine {disabled}/{QUARANTINE}, owner payments, contact payments@" in refused.value.message
        assert "A revocation cannot be released: use another name" in refused.value.message
    # The operator, were it ever given the right, is refused by what holds it as well.
    with pytest.raises(ApiError) as refused:
        installed.create(token_secret(disabled, "gone-token", "other"), user=OPERATOR, groups=["system:masters"])
    assert refused.value.status == 403


def test_no_second_token_secret(installed: Cluster, disabled: str) -> None:
    with pytest.raises(ApiError, match=f"ServiceAccount {disabled}/ci is quarantined and gets no new token") as refused:
        installed.create(token_secret(disabled, "second", "ci"))
    assert refused.value.status == 403
    assert says(refused.value.message, disabled)
    generated = token_secret(disabled, "", "ci", generateName="second-")
    del generated["metadata"]["name"]
    with pytest.raises(ApiError, match="gets no new token Secret"):
        installed.create(generated)


def test_no_other_token_secret_is_annotated_to_it(installed: Cluster, disabled: str) -> None:
    change = {"metadata": {"annotations": {ACCOUNT: "ci"}}}
    with pytest.raises(ApiError, match="is quarantined and gets no other token Secret") as refused:
        installed.patch("secrets", "other-token", change, disabled)
    assert says(refused.value.message, disabled)
    # Put back to where it belongs, it is unchanged.
    installed.patch("secrets", "other-token", {"metadata": {"annotations": {ACCOUNT: "other"}}}, disabled)


def test_everything_else_in_the_namespace_goes_on(installed: Cluster, disabled: str) -> None:
    installed.create(token_secret(disabled, "third", "other"))
    installed.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "plain", "namespace": disabled}})
    generated: Json = {"apiVersion": "v1", "kind": "Secret", "metadata": {"generateName": "g-", "namespace": disabled}}
    installed.create(generated)
    # The annotation alone means nothing on a Secret of another type.
    opaque = {**token_secret(disabled, "opaque", "ci"), "type": "Opaque"}
    installed.create(opaque)
    installed.patch("secrets", "other-token", {"metadata": {"labels": {OFF: "x"}}}, disabled)
    installed.patch("secrets", "other-token", {"metadata": {"labels": {OFF: None}}}, disabled)


def test_the_api_servers_own_stamp_passes(installed: Cluster, disabled: str) -> None:
    """It patches the date of an attempted use onto the disabled token: the tripwire."""
    value = base64.b64decode(secret(installed, disabled, "ci-token")["data"]["token"]).decode()
    assert not installed.token_works(value)
    eventually(lambda: secret(installed, disabled, "ci-token")["metadata"]["labels"].get(LAST_USED))
    assert secret(installed, disabled, "ci-token")["metadata"]["labels"][OFF] == "2026-12-04"


def test_the_token_controllers_writes_pass(installed: Cluster, disabled: str) -> None:
    """It fills in what somebody took out of the quarantined Secret."""
    installed.patch("secrets", "ci-token", {"data": {"ca.crt": None}}, disabled)
    eventually(lambda: "ca.crt" in secret(installed, disabled, "ci-token")["data"])


# Bindings -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def bound(installed: Cluster, accounts: str) -> Iterator[str]:
    """`ci` quarantined for bindings: the one guard in the operator's namespace."""
    user, group = f"system:serviceaccount:{accounts}:ci", f"system:serviceaccounts:{accounts}"
    release = entry(f"{accounts}/{QUARANTINE}")
    made = guard("tenure-system", subjects={user: release}, groups={group: release})
    installed.apply(made, manager="tenure", user=OPERATOR)
    probe = binding("probe", [{"kind": "User", "apiGroup": RBAC, "name": user}])
    path = f"{installed.path('clusterrolebindings')}?dryRun=All"
    eventually(lambda: installed.request("POST", path, probe)[0] == 403, what="guard in force")
    yield accounts
    installed.delete("quarantineguards", "guard", "tenure-system", user=OPERATOR)


def binding(name: str, subjects: list[Json], namespace: str | None = None, **metadata: Any) -> Json:
    """A RoleBinding, or without a namespace a ClusterRoleBinding, to `view`."""
    if namespace:
        metadata["namespace"] = namespace
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": "RoleBinding" if namespace else "ClusterRoleBinding",
        "metadata": {"name": name, **metadata},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "view"},
        "subjects": subjects,
    }


def forms(namespace: str) -> dict[str, Json]:
    """The three forms a subject can take."""
    return {
        "account": {"kind": "ServiceAccount", "name": "ci", "namespace": namespace},
        "user": {"kind": "User", "apiGroup": RBAC, "name": f"system:serviceaccount:{namespace}:ci"},
        "group": {"kind": "Group", "apiGroup": RBAC, "name": f"system:serviceaccounts:{namespace}"},
    }


ALICE = {"kind": "User", "apiGroup": RBAC, "name": "alice"}


@pytest.mark.parametrize("form", ["account", "user", "group"])
@pytest.mark.parametrize("where", ["its own namespace", "another", "kube-system", "the cluster"])
def test_no_new_binding(installed: Cluster, bound: str, form: str, where: str) -> None:
    namespace = {"its own namespace": bound, "another": "default", "kube-system": "kube-system"}.get(where)
    made = binding(f"new-{bound}"[:60], [ALICE, forms(bound)[form]], namespace)
    with pytest.raises(ApiError, match="is quarantined and gets no new binding") as refused:
        installed.create(made)
    assert refused.value.status == 403
    assert says(refused.value.message, bound)
    masters = {"user": "root", "groups": ["system:masters"]}
    with pytest.raises(ApiError, match="is quarantined and gets no new binding"):
        installed.create(made, **masters)


@pytest.mark.parametrize("form", ["account", "user", "group"])
@pytest.mark.parametrize("clusterwide", [False, True])
def test_no_subject_is_added_to_a_binding_that_stands(
    installed: Cluster, bound: str, form: str, clusterwide: bool
) -> None:
    resource, namespace = ("clusterrolebindings", None) if clusterwide else ("rolebindings", bound)
    name = f"standing-{bound}"[:60]
    installed.create(binding(name, [ALICE], namespace))
    try:
        with pytest.raises(ApiError, match="is quarantined and gets no new binding") as refused:
            installed.patch(resource, name, {"subjects": [ALICE, forms(bound)[form]]}, namespace)
        assert says(refused.value.message, bound)
        installed.patch(resource, name, {"subjects": [ALICE, {**ALICE, "name": "bob"}]}, namespace)
    finally:
        installed.delete(resource, name, namespace)


def test_a_subject_without_a_namespace_is_of_the_bindings(installed: Cluster, bound: str) -> None:
    bare = {"kind": "ServiceAccount", "name": "ci"}
    with pytest.raises(ApiError, match=f"system:serviceaccount:{bound}:ci is quarantined"):
        installed.create(binding("bare", [bare], bound))
    elsewhere = installed.namespace("elsewhere")
    installed.create(binding("bare", [bare], elsewhere))  # a namesake there
    installed.delete_namespace(elsewhere)


def test_what_was_bound_before_stays_writable(
    installed: Cluster, accounts: str, request: pytest.FixtureRequest
) -> None:
    """GitOps goes on applying it; another subject may come or go; the quarantined one may go, and then stays out."""
    before = [forms(accounts)["account"], {"kind": "ServiceAccount", "name": "ci"}, forms(accounts)["group"], ALICE]
    installed.create(binding("old", before, accounts))
    bound = request.getfixturevalue("bound")

    def write(subjects: list[Json], **metadata: Any) -> None:
        installed.patch("rolebindings", "old", {"metadata": metadata, "subjects": subjects}, bound)

    write(before, labels={"a": "b"})
    write([*before, {**ALICE, "name": "bob"}])
    write(before[::-1])
    write([{"kind": "ServiceAccount", "name": "ci"}, before[2]])  # the namespace left out, or written: the same
    write([forms(bound)["account"], before[2]])
    with pytest.raises(ApiError, match="is quarantined and gets no new binding"):
        write([forms(bound)["account"], forms(bound)["user"]])  # another form is another subject
    write([ALICE])
    with pytest.raises(ApiError, match="is quarantined and gets no new binding"):
        write([ALICE, forms(bound)["account"]])
    installed.delete("rolebindings", "old", bound)


def test_others_are_bound_as_before(installed: Cluster, bound: str) -> None:
    others = [
        {"kind": "ServiceAccount", "name": "other", "namespace": bound},
        {"kind": "ServiceAccount", "name": "ci", "namespace": "default"},
        {"kind": "User", "apiGroup": RBAC, "name": f"system:serviceaccount:{bound}:other"},
        {"kind": "User", "apiGroup": RBAC, "name": "ci"},
        {"kind": "Group", "apiGroup": RBAC, "name": "system:serviceaccounts:default"},
        {"kind": "Group", "apiGroup": RBAC, "name": f"system:serviceaccount:{bound}:ci"},
    ]
    installed.create(binding("others", others, bound))
    empty = binding("empty", [], bound)
    del empty["subjects"]
    installed.create(empty)
    installed.patch("rolebindings", "empty", {"metadata": {"labels": {"a": "b"}}}, bound)


def test_a_large_binding_hides_nobody(installed: Cluster, bound: str) -> None:
    """An expression over its cost limit would be ignored with the guard: it must stay below, or refuse."""
    crowd = [{"kind": "ServiceAccount", "name": f"account-{n}", "namespace": f"namespace-{n}"} for n in range(3000)]
    made = binding("crowd", [*crowd, forms(bound)["account"]], bound)
    with pytest.raises(ApiError, match="is quarantined and gets no new binding"):
        installed.create(made)
    installed.create({**made, "subjects": crowd})
    twins = [forms(bound)["account"]] * 200
    with pytest.raises(ApiError, match="too many subjects to tell which are new"):
        installed.patch("rolebindings", "crowd", {"subjects": [*crowd, *twins]}, bound)
    installed.delete("rolebindings", "crowd", bound)


def test_the_operator_gives_back_what_it_took(installed: Cluster, bound: str) -> None:
    masters = {"user": OPERATOR, "groups": ["system:masters"]}
    installed.create(binding("taken", [ALICE], bound))
    back = {"subjects": [ALICE, forms(bound)["account"]]}
    installed.patch("rolebindings", "taken", back, bound, **masters)


# Where they look, and where not ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("platform", ["kube-system", "tenure-system", "kube-tenure-test"])
def test_platform_namespaces_are_skipped(installed: Cluster, platform: str) -> None:
    if platform == "kube-tenure-test":
        installed.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": platform}})
    account = "tenure-test"
    service_account(installed, platform, account)
    entries = {account: entry(f"{platform}/q")}
    made = guard(platform, serviceAccounts=entries, secrets={"tenure-test": entry(f"{platform}/q")})
    installed.apply(made, manager="tenure", user=OPERATOR)
    try:
        seen = installed.namespace("seen")
        service_account(installed, seen, "ci")
        set_guard(installed, seen, serviceAccounts={"ci": entry(f"{seen}/q")})  # guards are in force
        # In its own namespace the operator proves the guard on tokens; it names its synthetic identity alone there.
        assert token(installed, platform, account)[0] == (403 if platform == "tenure-system" else 201)
        path = f"{installed.path('pods', namespace=platform)}?dryRun=All"
        status, answer = installed.request("POST", path, pod(platform, "tenure-test", account))
        # tenure-system enforces the restricted pod security standard.
        assert status == 201 or "is quarantined" not in answer["message"]
        installed.create(token_secret(platform, "tenure-test", account))
        installed.delete("secrets", "tenure-test", platform)
    finally:
        installed.delete("quarantineguards", "guard", platform, user=OPERATOR)
        installed.delete("serviceaccounts", account, platform)
        installed.delete_namespace(seen)
        if platform == "kube-tenure-test":
            installed.delete_namespace(platform)


def test_a_guard_reaches_its_own_namespace_alone(installed: Cluster, quarantined: str) -> None:
    elsewhere = installed.namespace("elsewhere")
    service_account(installed, elsewhere, "ci")
    assert token(installed, elsewhere, "ci")[0] == 201
    installed.create(pod(elsewhere, "new"))
    installed.delete_namespace(elsewhere)


def test_only_the_object_called_guard_counts(installed: Cluster, accounts: str) -> None:
    entries = {"ci": entry(f"{accounts}/{QUARANTINE}")}
    other = thing("QuarantineGuard", "other", {"serviceAccounts": entries}, accounts)
    installed.create(other, user=OPERATOR)
    set_guard(installed, accounts, serviceAccounts={})
    assert token(installed, accounts, "ci")[0] == 201


def test_the_api_server_finds_no_fault_with_the_types(installed: Cluster) -> None:
    """It checks an expression against the schemas it knows, in a controller; a fault would show only there."""
    ours = [
        item
        for item in installed.list("validatingadmissionpolicies")
        if item["metadata"].get("labels", {}).get("app.kubernetes.io/part-of") == "tenure"
    ]
    assert len(ours) >= 8
    for item in ours:
        name = item["metadata"]["name"]

        def checked(name: str = name) -> Json | None:
            found = installed.get("validatingadmissionpolicies", name)
            assert found is not None
            status: Json = found.get("status", {})
            return status if status.get("observedGeneration") == found["metadata"]["generation"] else None

        status = eventually(checked, what=f"type check of {name}")
        assert status is not None
        assert status.get("typeChecking", {}) == {}, status


@pytest.mark.local
def test_a_missing_kind_stops_nothing(fresh_cluster: Any) -> None:
    """Guards in force, and somebody deletes the CRD of their parameters: pods, tokens, Secrets and bindings go on."""
    cluster: Cluster = fresh_cluster(installed=True)
    namespace = cluster.namespace("guarded")
    service_account(cluster, namespace, "ci")
    set_guard(cluster, namespace, serviceAccounts={"ci": entry(f"{namespace}/q")})
    set_guard(cluster, "default", serviceAccounts={"default": entry("default/q")})
    with pytest.raises(ApiError, match="is quarantined"):
        cluster.create(pod("default", "before", "default"))
    cluster.delete("customresourcedefinitions", "quarantineguards.tenure.dev")
    eventually(lambda: cluster.get("customresourcedefinitions", "quarantineguards.tenure.dev") is None)
    for attempt in range(3):
        for where in ("default", "kube-system", namespace):
            cluster.create(pod(where, f"after-{attempt}", "default"))
            assert token(cluster, where, "default")[0] == 201
            made = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": f"s-{attempt}", "namespace": where}}
            cluster.create(made)
            cluster.create(binding(f"b-{attempt}", [ALICE], where))
        cluster.create(binding(f"b-{attempt}", [ALICE]))
    # A workload's pods too, by its controller.
    template = {"metadata": {"labels": {"app": "x"}}, "spec": pod("default", "x", "default")["spec"]}
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": "x"}}, "template": template}
    metadata = {"name": "x", "namespace": "kube-system"}
    cluster.create({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": metadata, "spec": spec})
    eventually(lambda: cluster.list("pods", "kube-system", selector="app=x"))


@pytest.mark.local
@pytest.mark.parametrize("version", ["1.33", "1.34", "1.35"])
def test_guards_on_older_api_servers(fresh_cluster: Any, version: str) -> None:
    cluster: Cluster = fresh_cluster(installed=True, version=version)
    namespace = cluster.namespace("guarded")
    service_account(cluster, namespace, "ci")
    set_guard(cluster, namespace, serviceAccounts={"ci": entry(f"{namespace}/{QUARANTINE}")})
    assert says(token(cluster, namespace, "ci")[1], namespace)
    with pytest.raises(ApiError, match="is quarantined"):
        cluster.create(pod(namespace, "new"))
    with pytest.raises(ApiError, match="is quarantined"):
        cluster.create(token_secret(namespace, "second", "ci"))
    release = entry(f"{namespace}/{QUARANTINE}")
    user = f"system:serviceaccount:{namespace}:ci"
    cluster.apply(guard("tenure-system", subjects={user: release}), manager="tenure", user=OPERATOR)

    def refused() -> bool:
        path = f"{cluster.path('rolebindings', namespace='default')}?dryRun=All"
        return cluster.request("POST", path, binding("new", [forms(namespace)["account"]], "default"))[0] == 403

    eventually(refused)
    with pytest.raises(ApiError, match="only the operator of Tenure"):
        cluster.delete("quarantineguards", "guard", namespace)
    policies = cluster.list("validatingadmissionpolicies")
    assert all(item.get("status", {}).get("typeChecking", {}) == {} for item in policies)
