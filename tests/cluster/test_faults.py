"""What goes wrong on the way to the API server, and what people with great rights do, ends in the same state.

Refused, postponed, failed and lost writes; an API server or etcd that is away when a deadline passes; watches that lag
while a person decides; and every object of Tenure's own changed or deleted in the operator's own name.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.audit import violations
from tests.support.cluster import ApiError, Cluster, eventually
from tests.support.ground import Ground, ground, of_namespace
from tests.support.proxy import SERVER_ERROR
from tests.support.rest import Json
from tests.support.scenario import (
    HOME,
    OFF,
    OPERATOR,
    await_policies,
    claim,
    deadline,
    finding_of,
    identity,
    phase_of,
    policy,
    quarantine_of,
    service_account,
    switched_off,
    token_of,
    token_secret,
)
from tests.support.snapshot import state

pytestmark = [pytest.mark.local, pytest.mark.long]

LATER = "90d"
LONG = 60.0  # seconds; two are usual, the rest is for a busy machine


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with ground(tmp_path_factory.mktemp("operator")) as made:
        tokens = deadline("LegacyToken", within=LATER, action="Nothing")
        accounts = deadline("Unowned", within=LATER, action="Nothing")
        for title, spec in {
            "now": (deadline("Unowned"), tokens),
            "soon": (deadline("Unowned", within="4s"), tokens),
            "revoke": (deadline("Unowned", revoke_after="4s"), tokens),
            "legacy": (deadline("LegacyToken"), accounts),
            "audit": (accounts, tokens),
        }.items():
            made.cluster.create(policy(title, *spec, labels={"policy": title}))
        yield made
        assert not violations(made.audit())


@pytest.fixture(autouse=True)
def untroubled(here: Ground) -> Iterator[None]:
    """No test leaves a fault behind; of one that fails, pytest shows what the operator said."""
    yield
    here.proxy.reset()
    print(here.operator.log_tail(60))


def place(here: Ground, title: str, name: str = "t") -> str:
    """A namespace under the policy of that title."""
    return here.cluster.namespace(name, labels={"policy": title})


def status_of(here: Ground, namespace: str, rule: str = "Unowned", name: str = "ci") -> Json:
    """That finding's status; {} while there is none."""
    found = finding_of(here.cluster, namespace, rule, name)
    return found["status"] if found else {}


def opened(here: Ground, namespace: str) -> Json:
    """The status of the finding on `ci`, once it is there."""
    return eventually(lambda: status_of(here, namespace), LONG, what=f"a finding in {namespace}")


def quarantined(here: Ground, namespace: str, rule: str = "Unowned", name: str = "ci") -> None:
    eventually(
        lambda: phase_of(here.cluster, namespace, rule, name) == "Quarantined", LONG, what=f"{namespace} quarantined"
    )


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def pass_by(moment: datetime) -> None:
    """Waits until an instant is over."""
    eventually(lambda: datetime.now(UTC) > moment, LONG, what=f"{moment} is over")


# Writes that fail, besides test_failing_writes.py --------------------------------------------------------------------


def test_one_subject_that_cannot_be_quarantined_holds_up_no_other(here: Ground) -> None:
    stuck, free = place(here, "now", "stuck"), place(here, "now", "free")
    fault = here.proxy.fault(
        lambda request: request.title == "apply quarantines" and request.namespace == stuck, SERVER_ERROR, times=None
    )
    identity(here.cluster, stuck, "ci")
    fault.wait(7, LONG)  # its pauses have grown beyond ten seconds
    identity(here.cluster, free, "ci")
    quarantined(here, free)
    status = status_of(here, free)
    waited = instant(status["verified"]) - instant(status["decided"])
    assert waited < timedelta(seconds=8), f"it waited {waited} for the other"
    assert not here.cluster.list("quarantines", stuck)
    fault.remove()
    quarantined(here, stuck)


# Servers that are away -----------------------------------------------------------------------------------------------


def test_a_deadline_that_passes_while_the_api_server_is_away(here: Ground) -> None:
    plane = here.cluster.control_plane
    assert plane is not None
    namespace = place(here, "soon", "away")
    identity(here.cluster, namespace, "ci", ["ci-a"])
    token = token_of(here.cluster, namespace, "ci-a")
    before = opened(here, namespace)
    plane.kill("kube-apiserver")
    pass_by(instant(before["due"]) + timedelta(seconds=1))
    plane.start_component("kube-apiserver")
    plane.wait_ready()
    await_policies(here.cluster.rest)
    quarantined(here, namespace)
    after = status_of(here, namespace)
    assert [after[name] for name in ("observable", "detected", "opened", "due")] == [
        before[name] for name in ("observable", "detected", "opened", "due")
    ]
    assert after["dueOutcome"] == "missed"
    assert instant(after["decided"]) == instant(after["due"])
    assert sum(opening.startswith(f"{namespace}/") for opening in state(here.cluster)["counted"]) == 1
    eventually(lambda: not here.cluster.token_works(token), what="the token is refused")


def test_etcd_restarted(here: Ground) -> None:
    plane = here.cluster.control_plane
    assert plane is not None
    old = place(here, "now", "before")
    identity(here.cluster, old, "ci", ["ci-a"])
    quarantined(here, old)
    here.settle()
    stood = {found["metadata"]["uid"] for found in here.cluster.list("identityfindings")}
    plane.restart("etcd")
    namespace = place(here, "now", "after")
    identity(here.cluster, namespace, "ci", ["ci-a"])
    quarantined(here, namespace)
    assert stood <= {found["metadata"]["uid"] for found in here.cluster.list("identityfindings")}
    assert switched_off(here.cluster, old, "ci-a")
    eventually(lambda: here.operator.probe("/readyz") == 200, what="ready")


# Watches that lag ----------------------------------------------------------------------------------------------------


def claimed(here: Ground, namespace: str) -> None:
    here.cluster.create(claim(namespace, "team", accounts=["ci"]), user="carla")


def labelled(here: Ground, namespace: str) -> None:
    here.cluster.patch("namespaces", namespace, {"metadata": {"labels": {"tenure.dev/owner": "team"}}})


@pytest.mark.parametrize(
    ("watch", "decide"),
    [("watch ownedidentities", claimed), ("watch namespaces", labelled)],
    ids=["claim", "namespace-label"],
)
def test_a_decision_that_the_watch_has_not_brought_yet_stops_the_act(
    here: Ground, watch: str, decide: Callable[[Ground, str], None]
) -> None:
    namespace = place(here, "soon", "lag")
    identity(here.cluster, namespace, "ci", ["ci-a"])
    due = instant(opened(here, namespace)["due"])
    here.proxy.hold(watch)
    decide(here, namespace)
    assert datetime.now(UTC) < due, "decided too late for what is tested here"
    pass_by(due)
    eventually(lambda: phase_of(here.cluster, namespace, "Unowned", "ci") == "Resolved", LONG)
    here.settle(match=of_namespace(namespace))
    assert status_of(here, namespace)["decision"]["source"] == "Claim"
    here.proxy.lag(watch, 0)
    here.settle(match=of_namespace(namespace))
    written = {write.resource for write in here.proxy.writes(of_namespace(namespace)) if write.namespace == namespace}
    assert not written & {"quarantines", "quarantineguards", "secrets"}, written


def test_a_suspension_that_the_watch_has_not_brought_yet_stops_the_act(here: Ground) -> None:
    namespace = place(here, "own", "lag")
    own = policy("own", deadline("Unowned", within="4s"), labels={"policy": "own"})
    here.cluster.create(own)
    # Until its watch has brought the policy (a watch that was cut comes back after a pause), other terms hold.
    eventually(
        lambda: (here.cluster.get("governancepolicies", "own") or {}).get("status", {}).get("namespaces") == 1, LONG
    )
    identity(here.cluster, namespace, "ci")
    due = instant(opened(here, namespace)["due"])
    here.proxy.hold("watch governancepolicies")
    here.cluster.patch("governancepolicies", "own", {"spec": {"suspend": True}})
    assert datetime.now(UTC) < due, "suspended too late for what is tested here"
    pass_by(due)

    def says_so() -> bool:
        conditions = {c["type"]: c["reason"] for c in status_of(here, namespace)["conditions"]}
        return conditions.get("Blocked") == "Suspended"

    eventually(says_so, LONG, what="Blocked: Suspended")
    assert not here.cluster.list("quarantines", namespace)
    here.cluster.patch("governancepolicies", "own", {"spec": {"suspend": False}})
    here.proxy.lag("watch governancepolicies", 0)
    quarantined(here, namespace)


def test_a_release_that_the_watch_has_not_brought_yet_stops_the_revocation(here: Ground) -> None:
    namespace = place(here, "revoke", "lag")
    identity(here.cluster, namespace, "ci", ["ci-a"])
    quarantined(here, namespace)
    found = quarantine_of(here.cluster, namespace, "ci")
    assert found is not None
    due = instant(found["spec"]["revokeAt"])
    here.proxy.hold("watch quarantines")
    here.cluster.delete("quarantines", found["metadata"]["name"], namespace, user="rita")
    assert datetime.now(UTC) < due, "released too late for what is tested here"
    pass_by(due + timedelta(seconds=1))
    here.settle(match=of_namespace(namespace))
    assert here.cluster.get("secrets", "ci-a", namespace) is not None
    here.proxy.lag("watch quarantines", 0)
    here.settle(match=of_namespace(namespace))
    assert not [w for w in here.proxy.writes("delete secrets") if w.namespace == namespace]


# What others touch ---------------------------------------------------------------------------------------------------


def as_operator(cluster: Cluster, method: str, path: str, body: Any = None, **options: Any) -> None:
    """A request in the operator's own name: nobody else gets past admission."""
    cluster.rest.expect(method, path, body, user=OPERATOR, **options)


@pytest.mark.parametrize("where", ["namespace", "bindings"])
@pytest.mark.parametrize("how", ["emptied", "deleted"])
def test_a_guard_that_somebody_touched_is_rebuilt_within_seconds(here: Ground, where: str, how: str) -> None:
    namespace = place(here, "now", "guard")
    identity(here.cluster, namespace, "ci", ["ci-a"])
    quarantined(here, namespace)
    here.settle()
    at = namespace if where == "namespace" else HOME
    before = here.cluster.get("quarantineguards", "guard", at)
    assert before is not None
    path = here.cluster.path("quarantineguards", "guard", at)
    if how == "deleted":
        as_operator(here.cluster, "DELETE", path)
    else:
        as_operator(
            here.cluster,
            "PATCH",
            path,
            {"spec": dict.fromkeys(before["spec"])},
            content_type="application/merge-patch+json",
        )
    began = time.monotonic()

    def rebuilt() -> bool:
        now = here.cluster.get("quarantineguards", "guard", at)
        return now is not None and now["spec"] == before["spec"]

    eventually(rebuilt, LONG, what="the guard is as it was")
    print(f"\nrebuilt after {time.monotonic() - began:.1f} s")
    with pytest.raises(ApiError, match="quarantined"):
        here.cluster.token(namespace, "ci")


def test_a_finding_that_somebody_deleted_comes_back(here: Ground) -> None:
    namespace = place(here, "now", "lost")
    identity(here.cluster, namespace, "ci", ["ci-a"])
    quarantined(here, namespace)
    here.settle(match=of_namespace(namespace))
    for name, phase in (("ci", "Quarantined"), ("ci-a", "Open")):
        rule = "Unowned" if name == "ci" else "LegacyToken"
        found = finding_of(here.cluster, namespace, rule, name)
        assert found is not None
        as_operator(here.cluster, "DELETE", here.cluster.path("identityfindings", found["metadata"]["name"], namespace))

        def back(rule: str = rule, name: str = name, phase: str = phase, uid: str = found["metadata"]["uid"]) -> bool:
            again = finding_of(here.cluster, namespace, rule, name)
            return again is not None and again["metadata"]["uid"] != uid and again["status"]["phase"] == phase

        eventually(back, LONG, what=f"{rule} is there again, {phase}")
    here.settle(match=of_namespace(namespace))
    assert switched_off(here.cluster, namespace, "ci-a"), "the loss of a finding released nothing"


def test_a_label_taken_off_by_force_is_put_back(here: Ground) -> None:
    for title, rule, name in (("now", "Unowned", "ci"), ("legacy", "LegacyToken", "ci-a")):
        namespace = place(here, title, "force")
        identity(here.cluster, namespace, "ci", ["ci-a"])
        quarantined(here, namespace, rule, name)
        here.settle(match=of_namespace(namespace))
        as_operator(
            here.cluster,
            "PATCH",
            here.cluster.path("secrets", "ci-a", namespace),
            {"metadata": {"labels": {OFF: None}}},
            content_type="application/merge-patch+json",
        )
        eventually(lambda: switched_off(here.cluster, namespace, "ci-a"), LONG, what=f"{title}: off again")  # noqa: B023


@pytest.mark.parametrize(("title", "rule", "name"), [("now", "Unowned", "ci"), ("legacy", "LegacyToken", "ci-a")])
def test_the_name_of_a_quarantined_token_that_was_deleted_stays_refused(
    here: Ground, title: str, rule: str, name: str
) -> None:
    namespace = place(here, title, "name")
    identity(here.cluster, namespace, "ci", ["ci-a"])
    quarantined(here, namespace, rule, name)
    here.settle(match=of_namespace(namespace))
    here.cluster.delete("secrets", "ci-a", namespace)
    with pytest.raises(ApiError, match=r"quarantined|revoked"):
        here.cluster.create(token_secret(namespace, "ci-a", "ci"))
    eventually(lambda: phase_of(here.cluster, namespace, "LegacyToken", "ci-a") == "Resolved", LONG)
    here.settle(match=of_namespace(namespace))
    with pytest.raises(ApiError, match=r"quarantined|revoked"):
        here.cluster.create(token_secret(namespace, "ci-a", "ci"))


def test_a_namesake_goes_on_with_the_clock_of_the_one_before(here: Ground) -> None:
    namespace = place(here, "soon", "namesake")
    identity(here.cluster, namespace, "ci")
    first = opened(here, namespace)
    pass_by(instant(first["opened"]) + timedelta(seconds=2))
    here.cluster.delete("serviceaccounts", "ci", namespace)
    gone = datetime.now(UTC)
    eventually(lambda: phase_of(here.cluster, namespace, "Unowned", "ci") == "Resolved", LONG)
    here.cluster.create(service_account(namespace, "ci"))
    second = eventually(lambda: (s := status_of(here, namespace))["phase"] == "Open" and s, LONG)
    assert second["opening"] == 2
    used = int((gone - instant(first["opened"])).total_seconds())
    assert 2 <= used <= second["usedSeconds"] <= used + 2
    left = instant(second["due"]) - instant(second["opened"])
    assert left <= timedelta(seconds=max(4 - used, 0.4) + 1), "the rest of its time, rounded up to a second"
