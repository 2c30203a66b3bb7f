"""What goes missing under the operator: rights, the installation, kinds, the API server, etcd, half a line of a watch.

It says what is missing where people look (its log, /readyz), waits without ending, loses nothing, and goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import urllib3

from tests.cluster.tenure_objects import claim, owner, pod
from tests.support import scenario
from tests.support.cluster import Cluster, eventually
from tests.support.controlplane import Component, ControlPlane
from tests.support.operator import Operator
from tests.support.proxy import CutMidLine, FaultProxy, Hang
from tests.support.scenario import HOME, deadline, finding_of, phase_of, policy, quarantine_of, switched_off

pytestmark = [pytest.mark.local, pytest.mark.long]

Json = dict[str, Any]
Operators = Callable[..., Operator]

PATIENCE = 90.0  # seconds; the operator's pauses grow to half a minute
KINDS = (
    "governancepolicies",
    "identitydecisions",
    "identityexceptions",
    "identityfindings",
    "identityowners",
    "ownedidentities",
    "quarantineguards",
    "quarantines",
)


@pytest.fixture(scope="module")
def shared() -> Iterator[Cluster]:
    """One installed cluster of this file alone, whose processes may be killed; each test leaves it whole."""
    with Cluster.local() as cluster:
        cluster.install()
        yield cluster


@pytest.fixture
def place(shared: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    name = shared.namespace(request.node.name.removeprefix("test_")[:40])
    shared.patch("namespaces", name, {"metadata": {"labels": {"test": name}}})
    yield name
    shared.delete("governancepolicies", name)
    shared.delete_namespace(name)


def readyz(operator: Operator) -> tuple[int, str]:
    answer = urllib3.request("GET", f"{operator.url}/readyz", retries=False, timeout=5)
    return answer.status, answer.data.decode().strip()


def not_ready(operator: Operator, text: str) -> None:
    """Waits until /readyz answers 503 and says this. The process must live and answer /healthz."""

    def said() -> bool:
        status, body = readyz(operator)
        return status == 503 and text in body

    eventually(said, what=f"/readyz 503 with {text!r}")
    operator.check()
    assert operator.probe("/healthz") == 200


def lines(operator: Operator, text: str) -> list[str]:
    return [line for line in operator.logs().splitlines() if text in line]


def opened(cluster: Cluster, place: str, rule: str, name: str, phase: str = "Open", timeout: float = 30.0) -> Json:
    def there() -> Json | None:
        found = finding_of(cluster, place, rule, name)
        return found if found and found["status"]["phase"] == phase else None

    return eventually(there, timeout, what=f"{rule} of {name} {phase}")


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def back(control_plane: ControlPlane, component: Component) -> None:
    """Starts what was killed. The controllers' own patience with an outage is not the subject: they start anew. Nor is
    that an API server refuses claims until it has found the kind of its policy's parameters again."""
    control_plane.start_component(component)
    control_plane.wait_ready()
    control_plane.restart("kube-controller-manager")
    scenario.await_policies(control_plane.rest)


def sources(operator: Operator, state: str) -> bool:
    return operator.metrics().value("tenure_inventory_sources", state=state) == 1


def role(cluster: Cluster, change: Callable[[list[Json]], list[Json]]) -> Callable[[], None]:
    """Changes the rules of the operator's ClusterRole; gives back what undoes that."""
    found = cluster.get("clusterroles", "tenure")
    assert found is not None
    rules = found["rules"]
    cluster.patch("clusterroles", "tenure", {"rules": change(json.loads(json.dumps(rules)))})
    return lambda: cluster.patch("clusterroles", "tenure", {"rules": rules}) and None


def taking(verb: str, resource: str) -> Callable[[list[Json]], list[Json]]:
    def change(rules: list[Json]) -> list[Json]:
        for rule in list(rules):
            if resource in rule["resources"] and verb in rule["verbs"]:
                rule["resources"].remove(resource)
                left = [v for v in rule["verbs"] if v != verb]
                if left:
                    rules.append({"apiGroups": rule["apiGroups"], "resources": [resource], "verbs": left})
        return [rule for rule in rules if rule["resources"]]

    return change


# --- rights


def test_a_user_without_any_right(shared: Cluster, place: str, operator: Operators) -> None:
    """Outside the cluster the operator needs one right of the person who starts it, and names it."""
    started = operator(shared.user("nobody"), wait=False)
    started.wait_log("missing right: create serviceaccounts/token tenure in namespace tenure-system, for nobody")
    not_ready(started, "missing right: create serviceaccounts/token")
    metadata = {"name": "starter", "namespace": HOME}
    rbac = scenario.RBAC
    rule = scenario.rule("", ["serviceaccounts/token"], ["create"], ["tenure"])
    shared.create({"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": metadata, "rules": [rule]})
    shared.create(
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "starter"},
            "subjects": [{"kind": "User", "apiGroup": rbac, "name": "nobody"}],
        }
    )
    started.wait_ready(PATIENCE)
    assert len(lines(started, "missing right")) == 1, "said once, however often it was tried"
    shared.create(scenario.service_account(place, "ci"))
    opened(shared, place, "Unowned", "ci")


def test_an_operator_without_any_right_names_each(shared: Cluster, place: str, operator: Operators) -> None:
    binding, namespaced = shared.get("clusterrolebindings", "tenure"), shared.get("rolebindings", "tenure", HOME)
    assert binding is not None
    assert namespaced is not None
    shared.delete("clusterrolebindings", "tenure")
    shared.delete("rolebindings", "tenure", HOME)
    try:
        eventually(lambda: not shared.can(scenario.OPERATOR, "list", "secrets"))
        started = operator(shared.kubeconfig, wait=False)
        for right in ("list secrets", "watch pods", "patch secrets", "create identityfindings.tenure.dev"):
            started.wait_log(f"missing right: {right} (needed for ")
        started.wait_log("missing right: get configmaps tenure-state (needed for the installation's memory)")
        said = [line.partition("missing right: ")[2] for line in lines(started, "missing right: ")]
        assert len(said) == len(set(said)), "one line each"
        assert not any("deploy/60-rbac.yaml" not in line for line in said), "and where they are written out"
        not_ready(started, "not synced")
        assert started.probe("/healthz") == 200
    finally:
        for kept in (binding, namespaced):
            metadata = {k: v for k, v in kept["metadata"].items() if k in ("name", "namespace", "labels")}
            shared.create({**kept, "metadata": metadata})
    started.wait_ready(PATIENCE)
    shared.create(scenario.service_account(place, "ci"))
    opened(shared, place, "Unowned", "ci")


def test_one_missing_right_to_read_is_named_once_and_keeps_it_from_being_ready(
    shared: Cluster, place: str, operator: Operators
) -> None:
    give_back = role(shared, taking("list", "secrets"))
    try:
        eventually(lambda: not shared.can(scenario.OPERATOR, "list", "secrets"))
        started = operator(shared.kubeconfig, wait=False)
        started.wait_log("missing right: list secrets (needed for the inventory)")
        not_ready(started, "not synced: Secret (list secrets: forbidden: the right list on secrets is missing)")
        assert len(lines(started, "missing right: ")) == 1
        # It says so when it failed twice, and only what it said it takes back.
        started.wait_log("list secrets: forbidden: the right list on secrets is missing")
        shared.create(scenario.service_account(place, "ci"))
        assert started.metrics().value("tenure_inventory_sources", state="Missing") == 1
        assert finding_of(shared, place, "Unowned", "ci") is None, "half an inventory judges nobody"
    finally:
        give_back()
    started.wait_ready(PATIENCE)
    started.wait_log("list secrets: works again")
    opened(shared, place, "Unowned", "ci")


def test_one_missing_right_to_act_blocks_the_act_and_says_so(shared: Cluster, place: str, operator: Operators) -> None:
    give_back = role(shared, taking("patch", "secrets"))
    try:
        eventually(lambda: not shared.can(scenario.OPERATOR, "patch", "secrets"))
        started = operator(shared.kubeconfig)
        started.wait_log("missing right: patch secrets (needed for switching a token off and on)")
        assert len(lines(started, "missing right: ")) == 1
        shared.create(policy(place, deadline("Unowned"), labels={"test": place}))
        scenario.identity(shared, place, "ci", ["ci-token"])
        token = scenario.token_of(shared, place, "ci-token")

        def blocked() -> bool:
            found = finding_of(shared, place, "Unowned", "ci")
            return found is not None and any(
                c["type"] == "Blocked" and c["reason"] == "MissingRight" for c in found["status"]["conditions"]
            )

        eventually(blocked, what="Blocked: MissingRight")
        assert started.metrics().value("tenure_enforcement_effective", stage="DisableTokens") == 0
        assert scenario.quarantine_of(shared, place, "ci") is None, "nothing begins that cannot be ended"
        assert shared.token_works(token)
        found = finding_of(shared, place, "Unowned", "ci")
        assert found is not None
        assert all(act.get("verified") is None for act in found["status"].get("acts", ()))
    finally:
        give_back()
    opened(shared, place, "Unowned", "ci", "Quarantined", PATIENCE)
    eventually(lambda: switched_off(shared, place, "ci-token"), PATIENCE)


# --- the installation


def test_not_installed_then_half_then_whole(fresh_cluster: Callable[..., Cluster], operator: Operators) -> None:
    """Each step is waited for with a line that says what to do; the process is the same one throughout."""
    cluster = fresh_cluster()
    started = operator(cluster.kubeconfig, wait=False)
    pid = started.pid
    started.wait_log("install Tenure first (make install)")
    not_ready(started, f"ServiceAccount {HOME}/tenure does not exist: install Tenure first (make install)")
    assert len(lines(started, "install Tenure first")) == 1

    cluster.install()
    started.wait_ready(PATIENCE)
    place = cluster.namespace("place")
    cluster.create(scenario.service_account(place, "ci"))
    opened(cluster, place, "Unowned", "ci")
    started.kill()

    for kind in KINDS:
        cluster.delete("customresourcedefinitions", f"{kind}.tenure.dev")
    eventually(lambda: not [d for d in cluster.list("customresourcedefinitions") if "tenure.dev" in str(d)], PATIENCE)
    begun = len(started.logs())
    started.start()
    assert started.pid != pid
    for kind in KINDS:
        started.wait_log(f"list {kind}.tenure.dev: the CRD {kind}.tenure.dev is not installed")
    not_ready(started, "the CRD identityowners.tenure.dev is not installed")
    said = started.logs()[begun:].splitlines()
    for kind in KINDS:
        assert sum(f"the CRD {kind}.tenure.dev is not installed" in line for line in said) == 1, "once each"
    cluster.install()
    started.wait_ready(PATIENCE)
    opened(cluster, place, "Unowned", "ci")


def test_kinds_deleted_under_standing_quarantines_block_nothing_and_come_back(
    fresh_cluster: Callable[..., Cluster], operator: Operators
) -> None:
    cluster = fresh_cluster(installed=True)
    place = cluster.namespace("place")
    enforced = policy("all", deadline("Unowned"))
    cluster.create(enforced)
    started = operator(cluster.kubeconfig)
    pid = started.pid
    for where in ("default", place):
        scenario.identity(cluster, where, "ci", [f"ci-token-{where}"])
        opened(cluster, where, "Unowned", "ci", "Quarantined")
        assert eventually(lambda where=where: cluster.get("quarantineguards", "guard", where))  # type: ignore[misc]
    for kind in KINDS:
        cluster.delete("customresourcedefinitions", f"{kind}.tenure.dev")
    eventually(
        lambda: not [d for d in cluster.list("customresourcedefinitions") if "tenure.dev" in d["metadata"]["name"]],
        PATIENCE,
        what="the operator lets its Quarantines go, so that their CRD ends",
    )
    for where in ("default", "kube-system", place):
        cluster.create(pod(where, "after", "default"))
        cluster.token(where, "default")
    for where in ("default", place):
        eventually(lambda where=where: not switched_off(cluster, where, f"ci-token-{where}"))  # type: ignore[misc]
        cluster.create(pod(where, "as-ci"))
        cluster.token(where, "ci")
    started.wait_log("the CRD identityfindings.tenure.dev is not installed", PATIENCE)
    assert started.pid == pid
    assert started.probe("/healthz") == 200
    assert cluster.list("pods", place), "and none was deleted"
    # Kopf gives up without the kinds, and cancels whatever shares its loop: none of ours may.
    started.wait_log("Kopf ended", PATIENCE)
    assert started.probe("/healthz") == 200

    cluster.install()
    opened(cluster, place, "Unowned", "ci", timeout=PATIENCE)
    opened(cluster, "default", "Unowned", "ci", timeout=PATIENCE)
    assert cluster.list("quarantines") == [], "no policy, no act"
    cluster.create(enforced)
    # A finding that opens before the operator has seen the policy keeps the documented deadline.
    eventually(lambda: cluster.get("governancepolicies", "all")["status"].get("conditions"), PATIENCE)  # type: ignore[index]
    scenario.identity(cluster, place, "later")
    opened(cluster, place, "Unowned", "later", "Quarantined", PATIENCE)
    eventually(lambda: started.probe() == 200)
    assert started.pid == pid
    assert started.stop() == 0


# --- the API server and etcd


def test_an_api_server_that_is_away_at_start_is_waited_for(shared: Cluster, place: str, operator: Operators) -> None:
    control_plane = shared.control_plane
    assert control_plane is not None
    shared.create(scenario.service_account(place, "ci"))
    control_plane.kill("kube-apiserver")
    try:
        started = operator(shared.kubeconfig, wait=False)
        pid = started.pid
        started.wait_log("cannot connect as the operator: ")
        not_ready(started, "refused")
        assert started.metrics().value("tenure_inventory_sources", state="Missing") == 1
    finally:
        back(control_plane, "kube-apiserver")
    started.wait_ready(PATIENCE)
    assert len(lines(started, "cannot connect as the operator")) <= 3, "each reason once, not each try"
    opened(shared, place, "Unowned", "ci")
    assert started.pid == pid


def test_a_deadline_that_passes_while_the_api_server_is_away_is_kept_afterwards(
    shared: Cluster, place: str, operator: Operators
) -> None:
    """SIGKILL, more than 20 s of nothing, back: what was due is done, what was decided stands, what is open stays."""
    control_plane = shared.control_plane
    assert control_plane is not None
    shared.create(policy(place, deadline("Unowned", within="8s"), labels={"test": place}))
    started = operator(shared.kubeconfig)
    pid = started.pid
    scenario.identity(shared, place, "ci", ["ci-token"])
    scenario.identity(shared, place, "claimed")
    shared.create(owner("payments"))
    before = opened(shared, place, "Unowned", "ci")
    legacy = opened(shared, place, "LegacyToken", "ci-token")
    opened(shared, place, "Unowned", "claimed")
    shared.create(claim(place, subjects={"serviceAccounts": {"names": ["claimed"]}}))
    opened(shared, place, "Unowned", "claimed", "Resolved")
    due = instant(before["status"]["due"])
    assert phase_of(shared, place, "Unowned", "ci") == "Open"
    control_plane.kill("kube-apiserver")
    try:
        away = datetime.now(UTC)
        eventually(lambda: sources(started, "Stale"), what="the inventory counts as stale")
        eventually(lambda: datetime.now(UTC) > max(due, away) + timedelta(seconds=22), 60, 0.5)
        assert started.pid == pid
        assert started.probe("/healthz") == 200
    finally:
        back(control_plane, "kube-apiserver")
    done = opened(shared, place, "Unowned", "ci", "Quarantined", PATIENCE)
    eventually(lambda: switched_off(shared, place, "ci-token"))
    assert done["metadata"]["uid"] == before["metadata"]["uid"]
    assert done["status"]["due"] == before["status"]["due"], "an outage moves no deadline"
    assert instant(done["status"]["acts"][0]["started"]) > due
    still = finding_of(shared, place, "LegacyToken", "ci-token")
    assert still is not None
    for field in ("opened", "detected", "due", "phase"):
        assert still["status"][field] == legacy["status"][field]
    assert phase_of(shared, place, "Unowned", "claimed") == "Resolved"
    eventually(lambda: sources(started, "Fresh"), PATIENCE, what="fresh again")
    assert started.pid == pid
    assert "Traceback" not in started.logs()


def test_etcd_restarted(shared: Cluster, place: str, operator: Operators) -> None:
    control_plane = shared.control_plane
    assert control_plane is not None
    shared.create(policy(place, deadline("Unowned", within="3s"), labels={"test": place}))
    started = operator(shared.kubeconfig)
    pid = started.pid
    shared.create(scenario.service_account(place, "before"))
    first = opened(shared, place, "Unowned", "before")
    control_plane.kill("etcd")
    back(control_plane, "etcd")
    scenario.identity(shared, place, "after", ["after-token"])
    opened(shared, place, "Unowned", "after", "Quarantined", PATIENCE)
    again = opened(shared, place, "Unowned", "before", "Quarantined", PATIENCE)
    assert again["metadata"]["uid"] == first["metadata"]["uid"]
    assert again["status"]["due"] == first["status"]["due"]
    assert started.pid == pid
    assert "Traceback" not in started.logs()


# --- watches


def test_watches_cut_in_the_middle_of_a_line_lose_nothing(shared: Cluster, place: str, operator: Operators) -> None:
    """A creation, a deletion and a claim fall into the gap; the lists that follow find all three."""
    shared.apply(owner("payments"))
    for name in ("goes", "stays"):
        shared.create(scenario.service_account(place, name))
    with FaultProxy.to(shared) as proxy:
        started = operator(shared.token_kubeconfig(HOME, "tenure", server=proxy.url))
        for name in ("goes", "stays"):
            opened(shared, place, "Unowned", name)
        cuts = [proxy.fault(f"watch {plural}", CutMidLine()) for plural in ("serviceaccounts", "ownedidentities")]
        shared.create(scenario.service_account(place, "comes"))
        shared.delete("serviceaccounts", "goes", place)
        shared.create(claim(place, subjects={"serviceAccounts": {"names": ["stays"]}}))
        for cut in cuts:
            cut.wait()
        opened(shared, place, "Unowned", "comes")
        gone = opened(shared, place, "Unowned", "goes", "Resolved")
        assert gone["status"]["decision"]["source"] == "SubjectGone"
        claimed = opened(shared, place, "Unowned", "stays", "Resolved")
        assert claimed["status"]["decision"]["source"] == "Claim"
        assert proxy.cut_watches_mid_line() >= 16, "all of them at once"
        shared.create(scenario.service_account(place, "last"))
        opened(shared, place, "Unowned", "last")
        assert "Traceback" not in started.logs()


# --- namespaces


def test_a_namespace_deleted_while_the_operator_is_away_ends_when_it_is_back(
    shared: Cluster, place: str, operator: Operators
) -> None:
    """Its Quarantine's finalizer holds it until then, and no longer."""
    shared.create(policy(place, deadline("Unowned"), labels={"test": place}))
    started = operator(shared.kubeconfig)
    scenario.identity(shared, place, "ci", ["ci-token"])
    opened(shared, place, "Unowned", "ci", "Quarantined")
    started.kill()
    shared.delete_namespace(place)

    def held() -> bool:
        found = shared.get("namespaces", place)
        assert found is not None
        held_by = {c["type"] for c in found["status"].get("conditions", ()) if c["status"] == "True"}
        return "NamespaceFinalizersRemaining" in held_by

    eventually(held, 60, what="the namespace waits for the finalizer")
    assert quarantine_of(shared, place, "ci") is not None
    started.start().wait_ready()
    eventually(lambda: shared.get("namespaces", place) is None, 60, what="the namespace is gone")
    assert "Traceback" not in started.logs()


# --- the installation's memory


def test_durable_counters_are_not_shown_before_they_are_known(shared: Cluster, place: str, operator: Operators) -> None:
    """A 0 in between would be a reset to Prometheus, and everything would count twice."""
    shared.create(policy(place, deadline("Unowned", action="Nothing"), labels={"test": place}))
    with FaultProxy.to(shared) as proxy:
        started = operator(shared.token_kubeconfig(HOME, "tenure", server=proxy.url))
        shared.create(scenario.service_account(place, "ci"))

        def overdue() -> bool:
            found = finding_of(shared, place, "Unowned", "ci")
            return found is not None and found["status"].get("dueOutcome") == "missed"

        eventually(overdue, what="a decision that came due")
        before = started.metrics().samples("tenure_decisions_due_total")
        assert sum(before.values()) > 0
        started.kill()
        waits = proxy.fault("get configmaps", Hang(), times=None)
        started.start()
        waits.wait()
        assert started.metrics().samples("tenure_decisions_due_total") == {}
        waits.remove()
        started.wait_ready()
        after = started.metrics().samples("tenure_decisions_due_total")
        assert before.keys() == after.keys()
        assert all(after[labels] >= count for labels, count in before.items())
