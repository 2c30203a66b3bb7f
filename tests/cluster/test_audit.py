"""What the operator asks of the API server, proved by the audit log of a whole run.

A full life (findings, quarantine, revocation, release by claim and by a person, exceptions, a restart) happens in some
namespaces, beside one that is only observed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.support.audit import dry, succeeded, violations, written
from tests.support.cluster import Cluster, eventually
from tests.support.ground import Ground, ground
from tests.support.proxy import durable
from tests.support.rest import Json
from tests.support.scenario import (
    HOME,
    RBAC,
    claim,
    deadline,
    exception,
    finding_of,
    identity,
    phase_of,
    policy,
    quarantine_of,
)

pytestmark = [pytest.mark.local]

LONG = 60.0  # seconds
OBSERVED = ("serviceaccounts", "secrets", "pods", "rolebindings", "roles", "configmaps")
KOPF = frozenset({"identityowners", "ownedidentities", "identityexceptions", "identitydecisions", "governancepolicies"})
LISTED = KOPF | {
    "namespaces",
    "serviceaccounts",
    "secrets",
    "pods",
    "roles",
    "rolebindings",
    "clusterroles",
    "clusterrolebindings",
    "identityfindings",
    "quarantines",
    "quarantineguards",
}


@dataclass
class Life:
    """One run: the ground, the operator's requests, and what was only observed, before and after."""

    ground: Ground
    namespaces: dict[str, str] = field(default_factory=dict)
    events: list[Json] = field(default_factory=list)
    before: dict[str, str] = field(default_factory=dict)
    after: dict[str, str] = field(default_factory=dict)


def bystanders(cluster: Cluster) -> str:
    """A namespace of everything that the operator observes, findings included, under no policy."""
    namespace = cluster.namespace("observed")
    identity(cluster, namespace, "app", ["app-token"])
    metadata = {"namespace": namespace}
    cluster.create(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "api-key", **metadata},
            "stringData": {"api_key": "x"},
        }
    )
    cluster.create(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "app", **metadata},
            "spec": {"serviceAccountName": "app", "containers": [{"name": "main", "image": "registry.example/none"}]},
        }
    )
    cluster.create(
        {
            "apiVersion": f"{RBAC}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "app", **metadata},
            "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "edit"},
            "subjects": [{"kind": "ServiceAccount", "name": "app", "namespace": namespace}],
        }
    )
    return namespace


def versions(cluster: Cluster, namespace: str) -> dict[str, str]:
    """The resourceVersion of everything observed in a namespace, and of the namespace."""
    found = {f"{kind}/{o['metadata']['name']}": o for kind in OBSERVED for o in cluster.list(kind, namespace)}
    found["namespace"] = cluster.get("namespaces", namespace) or {}
    return {name: obj["metadata"]["resourceVersion"] for name, obj in found.items()}


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    with ground(tmp_path_factory.mktemp("operator")) as made:
        cluster, life = made.cluster, Life(made)
        later = deadline("LegacyToken", within="90d", action="Nothing")
        legacy = deadline("LegacyToken", revoke_after="1s")
        paths = {
            "claimed": (deadline("Unowned"), later),
            "released": (deadline("Unowned", within="2s"), later),
            "revoked": (deadline("Unowned", revoke_after="1s"), later),
            "legacy": (legacy, deadline("Unowned", within="90d", action="Nothing")),
            "excepted": (later,),
            # Due for revocation, and suspended before: it waits to the end of the run.
            "waiting": (deadline("Unowned", revoke_after="3s"), later),
        }
        approved = {"classes": [{"class": "Migration", "approvals": []}]}
        for path, entries in paths.items():
            cluster.create(policy(path, *entries, labels={"path": path}, exceptions=approved))
        observed = bystanders(cluster)
        eventually(lambda: finding_of(cluster, observed, "LegacyToken", "app-token") is not None, LONG)
        life.before = versions(cluster, observed)
        for path in paths:
            namespace = life.namespaces[path] = cluster.namespace(path, labels={"path": path})
            # Two acts on each of two tokens were more than the 100 % of subjects that a window allows.
            identity(cluster, namespace, "ci", ["ci-a"] if path == "legacy" else ["ci-a", "ci-b"])
            if path == "excepted":
                for name in ("ci-a", "ci-b"):
                    cluster.create(exception(namespace, "Secret", name, "LegacyToken", called=name))
        for path in ("claimed", "released", "waiting"):
            eventually(lambda: quarantined(life, path), LONG, what=f"{path} quarantined")  # noqa: B023
        cluster.patch("governancepolicies", "waiting", {"spec": {"suspend": True}})
        cluster.create(claim(life.namespaces["claimed"], "team", accounts=["ci"]), user="carla")
        held = quarantine_of(cluster, life.namespaces["released"], "ci")
        assert held is not None
        cluster.patch("governancepolicies", "released", {"spec": {"suspend": True}})
        cluster.delete("quarantines", held["metadata"]["name"], life.namespaces["released"], user="rita")
        for path in ("claimed", "released"):
            eventually(lambda: not cluster.list("quarantines", life.namespaces[path]), LONG, what=f"{path} released")  # noqa: B023
        for path in ("revoked", "legacy"):
            eventually(lambda: gone(life, path), LONG, what=f"{path} revoked")  # noqa: B023
        eventually(lambda: cluster.get("serviceaccounts", "ci", life.namespaces["revoked"]) is None, LONG)
        cluster.delete("serviceaccounts", "ci", life.namespaces["legacy"])
        eventually(lambda: not cluster.list("quarantines", life.namespaces["legacy"]), LONG)
        excepted = life.namespaces["excepted"]
        eventually(lambda: phase_of(cluster, excepted, "LegacyToken", "ci-b") == "Excepted", LONG)
        made.operator.restart()
        made.settle()
        life.after = versions(cluster, observed)
        life.events = made.audit()
        yield life
        print(made.operator.log_tail(40))


def quarantined(life: Life, path: str) -> bool:
    return phase_of(life.ground.cluster, life.namespaces[path], "Unowned", "ci") == "Quarantined"


def gone(life: Life, path: str) -> bool:
    secrets = life.ground.cluster.list("secrets", life.namespaces[path])
    return not any(secret["metadata"]["name"].startswith("ci-") for secret in secrets)


def test_the_operator_wrote_nothing_but_what_is_its_own(life: Life) -> None:
    assert not violations(life.events)
    done = Counter(what for event in life.events if (what := written(event)) and succeeded(event))
    print("\n" + ", ".join(f"{count} {what}" for what, count in sorted(done.items())))
    # The run was a full one: each thing it may do is in it.
    assert {
        "patch identityfindings",
        "patch quarantines",
        "patch quarantines/status",
        "delete quarantines",
        "patch quarantineguards",
        "delete quarantineguards",
        "patch secrets",
        "delete secrets",
        "delete serviceaccounts",
        "patch configmaps",
        "create events",
        "create selfsubjectaccessreviews",
        "patch ownedidentities/status",
        "patch identityexceptions/status",
        "patch identityowners/status",
        "patch governancepolicies/status",
    } <= done.keys()


def test_nothing_it_asked_for_was_forbidden(life: Life) -> None:
    refused = [
        f"{event['verb']} {event['requestURI']}"
        for event in life.events
        if event.get("responseStatus", {}).get("code") in (401, 403) and not dry(event)
    ]
    assert not refused


def test_its_proofs_were_dry_runs_that_the_guard_refused(life: Life) -> None:
    """But for those of the first look, perhaps: the guard had just been written."""
    answers = [event["responseStatus"]["code"] for event in life.events if dry(event)]
    assert len(answers) > 3
    assert set(answers[3:]) == {403}


def test_what_it_only_observes_is_untouched(life: Life) -> None:
    assert life.before == life.after


def test_no_secret_is_asked_for_by_name_but_those_that_are_acted_on(life: Life) -> None:
    """All others are listed and watched, as rows without values. In which form an answer was asked for the audit log
    does not say; that no value arrives is what tests/cluster/test_canary.py shows."""
    acted_on = {life.namespaces[path] for path in ("claimed", "released", "revoked", "legacy", "waiting")}
    single = [e for e in life.events if e["verb"] == "get" and e.get("objectRef", {}).get("resource") == "secrets"]
    assert single, "the live checks are in the log"
    asked = {(e["objectRef"]["namespace"], e["objectRef"]["name"]) for e in single}
    # The operator's own synthetic token is the one whose value it reads.
    assert asked - {(HOME, "tenure-proof")} <= {(space, name) for space in acted_on for name in ("ci-a", "ci-b")}


def test_a_start_on_an_unchanged_cluster_lists_each_kind_once_and_writes_nothing(life: Life) -> None:
    made = life.ground

    def held(path: str) -> bool:
        found = finding_of(made.cluster, life.namespaces[path], "Unowned", "ci")
        return any(c["reason"] == "Suspended" for c in found["status"]["conditions"]) if found else False

    for path in ("released", "waiting"):  # their acts fall due seconds after all else: that is no unchanged cluster
        eventually(lambda: held(path), LONG, what=f"{path} held")  # noqa: B023
    made.settle()
    position = made.position()
    before = len(made.proxy.writes(durable))
    made.operator.restart()
    made.settle(1.0)
    events = made.audit(position)
    lists = Counter(
        event["objectRef"]["resource"]
        for event in events
        if event["verb"] == "list" and "limit=" in event["requestURI"]
    )
    # `settle` saw no write of the operator for a second; the reviews of its own rights are the only ones of the start.
    assert not [(write.name, write.body) for write in made.proxy.writes(durable)[before:]]
    writes = Counter(what for event in events if (what := written(event)))
    assert set(writes) <= {"create selfsubjectreviews", "create selfsubjectaccessreviews"}, writes
    assert {kind: lists[kind] for kind in LISTED} == dict.fromkeys(LISTED, 1)


def test_a_pass_over_an_unchanged_cluster_makes_no_write_and_no_list(life: Life) -> None:
    """Every subject is judged again because its policy changed, in a way that changes nothing for any of them."""
    made, cluster = life.ground, life.ground.cluster
    made.settle(1.0)
    position = made.position()
    changed = []
    for path in life.namespaces:
        patched = cluster.patch("governancepolicies", path, {"spec": {"precedence": 7}})
        changed.append((path, patched["metadata"]["generation"]))

    def taken_in() -> bool:
        return all(
            (cluster.get("governancepolicies", name) or {})["status"]["observedGeneration"] == generation
            for name, generation in changed
        )

    eventually(taken_in, LONG, what="the policies are processed")
    made.settle(1.0)
    events = made.audit(position)
    asked = Counter(written(event) or f"{event['verb']} {event['objectRef']['resource']}" for event in events)
    watches = {what for what in asked if what.startswith("watch ")}
    assert set(asked) - watches == {"patch governancepolicies/status"}, asked
    assert asked["patch governancepolicies/status"] == len(changed)
