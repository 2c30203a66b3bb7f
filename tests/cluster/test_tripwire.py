"""The tripwire by instant: the operator follows the audit log that the API server writes, and rotates. On the oldest
and the newest Kubernetes, with real tokens."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.test_inventory_command import objects
from tests.support import scenario
from tests.support.cluster import ApiError, Cluster, eventually
from tests.support.forked import ForkedOperator, ForkServer
from tests.support.operator import Operator
from tests.support.rest import Json
from tests.support.scenario import (
    HOME,
    LAST_USED,
    RBAC,
    deadline,
    finding_of,
    identity,
    policy,
    quarantine_of,
    token_of,
)

pytestmark = [pytest.mark.local, pytest.mark.long]

HOLD = timedelta(seconds=7)


@pytest.fixture(scope="module", params=["1.33", "1.36"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """With an operator that follows the audit log, which the API server rotates at a megabyte."""
    with Cluster.local(version=request.param, audit_megabytes=1) as made:
        made.install()
        made.create(scenario.owner("team"))
        assert made.control_plane is not None
        directory = tmp_path_factory.mktemp("operator")
        log = directory / "log" / made.control_plane.audit_log.name  # by a way that a test can close
        log.parent.symlink_to(made.control_plane.audit_log.parent)
        arguments = ["--audit-log", str(log)]
        with (
            ForkServer() as server,
            ForkedOperator(made.kubeconfig, server=server, arguments=arguments, directory=directory) as operator,
        ):
            made.operator = operator  # type: ignore[attr-defined]
            made.log = log  # type: ignore[attr-defined]
            yield made


def govern(cluster: Cluster, place: str, **more: Any) -> None:
    scenario.govern(cluster, policy(place, deadline("Unowned", **more), labels={"test": place}, precedence=len(place)))


def namespace(cluster: Cluster, prefix: str) -> str:
    place = cluster.namespace(prefix)
    cluster.patch("namespaces", place, {"metadata": {"labels": {"test": place}}})
    return place


def status(cluster: Cluster, place: str, name: str) -> Json:
    found = quarantine_of(cluster, place, name)
    given: Json = found.get("status", {}) if found else {}
    return given


def quarantined(cluster: Cluster, place: str, *names: str) -> None:
    def done() -> bool:
        return all(
            [stage["name"] for stage in status(cluster, place, name).get("stages", ()) if stage.get("verified")]
            == ["Guard", "DisableTokens"]
            for name in names
        )

    eventually(done, what=f"{names} quarantined")


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def attempted(cluster: Cluster, place: str, name: str) -> Json:
    def told() -> Json | None:
        return status(cluster, place, name).get("attempt")

    return eventually(told, what=f"the attempted use of {name}")


def attempts(cluster: Cluster) -> float:
    return float(cluster.operator.metrics().value("tenure_tripwire_attempts_total"))  # type: ignore[attr-defined]


def test_attempts_are_told_by_instant_and_by_whom_and_postpone_revocation(cluster: Cluster) -> None:
    place, names = namespace(cluster, "attempts"), ("bound", "asked", "switched", "quiet")
    before = attempts(cluster)
    govern(cluster, place, within="3s", revoke_after="5s", hold=f"{HOLD.seconds}s")
    # The blast radius is a share of the namespace's subjects, which revocation makes fewer.
    spare = [f"spare-{number}" for number in range(8)]
    cluster.create(scenario.claim(place, "team", accounts=spare))
    for name in spare:
        identity(cluster, place, name)
    for name in names:
        identity(cluster, place, name, [f"{name}-token"])
    bound, switched = cluster.token(place, "bound"), token_of(cluster, place, "switched-token")
    quarantined(cluster, place, *names)
    begun = datetime.now(UTC).replace(microsecond=0)
    path = f"/api/v1/namespaces/{place}/configmaps"

    code, _ = cluster.request("GET", path, token=bound, headers={"User-Agent": "job/7"})
    assert code == 403, "it may do nothing, and its token still works"
    with pytest.raises(ApiError, match="gets no new token"):
        cluster.rest.expect(
            "POST",
            f"/api/v1/namespaces/{place}/serviceaccounts/asked/token",
            {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}},
            user="ann",
            groups=["system:masters"],
        )
    code, _ = cluster.request("GET", path, token=switched, headers={"User-Agent": "cron/3"})
    assert code == 401

    found = {name: attempted(cluster, place, name) for name in names[:3]}
    for name, told in found.items():
        # The label tells the day; this is the instant.
        assert begun <= instant(told["at"]) <= datetime.now(UTC), name
        assert status(cluster, place, name)["lastAttempt"] == told["at"]
        assert told["source"] == "127.0.0.1", "where it came from is told of each, of the refused token too"
    assert found["bound"]["by"] == f"system:serviceaccount:{place}:bound"
    assert (found["bound"]["userAgent"], found["bound"]["what"]) == ("job/7", f"list configmaps {place}: 403")
    assert found["asked"]["by"].endswith(" as ann")
    assert found["asked"]["what"] == f"create serviceaccounts/token {place}/asked: refused by admission"
    assert not found["switched"]["by"], "no event of a refused token names it"
    assert found["switched"]["userAgent"] == "cron/3"
    assert "switched-token" in found["switched"]["what"]
    # One each; the label of the same day is no second one.
    assert (cluster.get("secrets", "switched-token", place) or {})["metadata"]["labels"][LAST_USED]
    assert attempts(cluster) == before + 3

    told_on = [
        (event["involvedObject"]["kind"], event["message"])
        for event in eventually(lambda: events(cluster, place, 6), what="six Events")
    ]
    assert {kind for kind, _ in told_on} == {"ServiceAccount", "IdentityFinding"}
    assert all("is alive" in message for _, message in told_on)

    eventually(lambda: gone(cluster, place, "quiet-token"), what="the one that nobody used is revoked")
    assert not gone(cluster, place, "bound-token")
    for name in names[:3]:
        eventually(lambda name=name: blocked(cluster, place, name) == "RecentlyUsed", what=f"{name} waits")  # type: ignore[misc]
    for name in ("bound", "asked"):
        eventually(lambda name=name: gone(cluster, place, f"{name}-token"), what=f"{name} revoked")  # type: ignore[misc]
        revoked = status(cluster, place, name)["revoked"]
        assert min(instant(entry["intended"]) for entry in revoked) >= instant(found[name]["at"]) + HOLD
    # Of later attempts with a token that is off the log does not tell: there the day goes on counting to its end.
    assert not gone(cluster, place, "switched-token")


def gone(cluster: Cluster, place: str, secret: str) -> bool:
    return cluster.get("secrets", secret, place) is None


def events(cluster: Cluster, place: str, number: int) -> list[Json] | None:
    found = [event for event in cluster.list("events", place) if event["reason"] == "AttemptedUse"]
    return found if len(found) >= number else None


def blocked(cluster: Cluster, place: str, name: str) -> str:
    found = finding_of(cluster, place, "Unowned", name)
    return next((c["reason"] for c in found["status"]["conditions"] if c["type"] == "Blocked"), "") if found else ""


def test_what_happened_while_nobody_listened_is_told_after_a_rotation(cluster: Cluster) -> None:
    place = namespace(cluster, "away")
    govern(cluster, place, within="2s")
    identity(cluster, place, "ci", ["ci-token"])
    bound = cluster.token(place, "ci")
    quarantined(cluster, place, "ci")
    operator: Operator = cluster.operator  # type: ignore[attr-defined]
    operator.kill()
    at = datetime.now(UTC).replace(microsecond=0)
    path = f"/api/v1/namespaces/{place}/configmaps"
    cluster.request("GET", path, token=bound, headers={"User-Agent": "while/away"})
    before = len(rotated(cluster))

    def rotates() -> bool:
        for _ in range(20):
            cluster.request("GET", "/version", headers={"User-Agent": "x" * 6000})
        return len(rotated(cluster)) > before

    eventually(rotates, 60, what="the API server rotates its log")
    operator.start().wait_ready()
    told = attempted(cluster, place, "ci")
    assert told["userAgent"] == "while/away"
    assert at <= instant(told["at"]) <= at + timedelta(seconds=5)
    assert operator.metrics().value("tenure_tripwire_attempts_total") >= 1
    # Killed once more, it reads some of it again and tells nothing twice.
    seen = events(cluster, place, 2)
    operator.restart()
    eventually(
        lambda: operator.metrics().value("tenure_inventory_sources", state="Fresh") == 2, what="both sources read"
    )
    assert operator.metrics().value("tenure_tripwire_attempts_total") == 0
    assert events(cluster, place, 2) == seen
    state = cluster.get("configmaps", "tenure-state", HOME) or {}
    assert "+" in state["data"]["audit"]


def test_nothing_is_revoked_while_the_log_cannot_be_read(cluster: Cluster) -> None:
    place = namespace(cluster, "deaf")
    govern(cluster, place, within="2s", revoke_after="4s")
    identity(cluster, place, "ci", ["ci-token"])
    quarantined(cluster, place, "ci")
    way: Path = cluster.log.parent  # type: ignore[attr-defined]
    target = way.readlink()
    way.unlink()
    try:
        eventually(lambda: blocked(cluster, place, "ci") == "InventoryStale", what="revocation waits for the log")
        assert not gone(cluster, place, "ci-token")
    finally:
        way.symlink_to(target)
    eventually(lambda: gone(cluster, place, "ci-token"), what="it goes on once the log is read again")


def rotated(cluster: Cluster) -> list[Path]:
    assert cluster.control_plane is not None
    return list(cluster.control_plane.directory.glob("audit-2*.log"))


def test_the_inventory_tells_exact_last_use(cluster: Cluster) -> None:
    place = namespace(cluster, "used")
    identity(cluster, place, "ci", ["ci-token"])
    identity(cluster, place, "idle", ["idle-token"])
    for name, role in (("reads", "view"), ("never", "edit")):
        cluster.create(
            {
                "apiVersion": f"{RBAC}/v1",
                "kind": "RoleBinding",
                "metadata": {"name": name, "namespace": place},
                "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role},
                "subjects": [{"kind": "ServiceAccount", "name": "ci" if name == "reads" else "idle"}],
            }
        )
    key = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "key", "namespace": place},
        "stringData": {"apiKey": "x"},
    }
    cluster.create(key)
    token, at = token_of(cluster, place, "ci-token"), datetime.now(UTC)
    path = f"/api/v1/namespaces/{place}/configmaps"
    eventually(lambda: cluster.request("GET", path, token=token, headers={"User-Agent": "app/2"})[0] == 200)
    cluster.get("secrets", "key", place, user="ann", groups=["system:masters"])
    assert cluster.control_plane is not None
    cluster.control_plane.audit_position()  # what happened so far is written
    seen = objects(cluster.kubeconfig, "-n", place, "--audit-log", str(cluster.control_plane.audit_log))
    identities = {entry["name"]: entry for entry in seen["identities"]}
    ci, idle = identities["ci"], identities["idle"]
    [credential], [entitlement] = ci["credentials"], ci["entitlements"]
    for used in (ci["lastUse"], credential["lastUse"], entitlement["lastUse"]):
        assert at <= instant(used["at"]) <= datetime.now(UTC)
        assert (used["by"], used["userAgent"]) == (f"system:serviceaccount:{place}:ci", "app/2")
    assert entitlement["binding"]["name"] == "reads"
    assert [idle["lastUse"], idle["credentials"][0]["lastUse"], idle["entitlements"][0]["lastUse"]] == [None] * 3
    [read] = seen["credentials"]
    assert read["lastUse"]["by"].endswith(" as ann")
    assert instant(seen["usedSince"]) < at
