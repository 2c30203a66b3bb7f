"""Very many findings that fall due in the same second: the blast radius holds, whoever tries to fill it with decoys.

A thousand in `make test`, ten thousand with SWEEP=full. The first act of each namespace is on the worst that fell due
there, wherever among the others that was judged; and what a person decides meanwhile waits for none of them."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, eventually
from tests.support.crash import FULL
from tests.support.ground import ground
from tests.support.rest import Json
from tests.support.scenario import RBAC, deadline, finding_of, policy, quarantine_of, service_account, verdict

pytestmark = [pytest.mark.local, pytest.mark.long]

NAMESPACES, DECOYS, OTHERS = (20, 900, 477) if FULL else (20, 500, 26)
CAP = 12
LONG = 900.0 if FULL else 300.0  # seconds


def admin(cluster: Cluster, namespace: str, name: str) -> None:
    """Makes it a risk that no other is."""
    cluster.create(
        {
            "apiVersion": f"{RBAC}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "admin", "namespace": namespace},
            "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
        }
    )


def test_the_blast_radius_holds_when_everything_falls_due_at_once(tmp_path: Path) -> None:
    with ground(tmp_path) as made:
        cluster = made.cluster
        cap = {"maxActions": CAP, "window": "1h", "maxPercentPerNamespace": 100}
        # The policy comes to enforce when all of it is there: everything is due in the same second.
        start = (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        cluster.create(
            policy("flood", deadline("Unowned"), labels={"flood": "yes"}, blastRadius=cap, effectiveFrom=start)
        )
        places = [cluster.namespace(f"flood-{number:02}", labels={"flood": "yes"}) for number in range(NAMESPACES)]
        decoys, others = places[0], places[1:]
        cluster.create(policy("calm", deadline("Unowned", within="90d"), labels={"calm": "yes"}))
        calm = cluster.namespace("calm", labels={"calm": "yes"})
        cluster.create(service_account(calm, "ci"))

        def fill(place: str) -> None:
            count = DECOYS if place == decoys else OTHERS
            for number in range(count):
                cluster.create(service_account(place, f"ci-{number:04}"))
            admin(cluster, place, f"ci-{count // 2:04}")

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(fill, places))
        count = DECOYS + OTHERS * len(others)

        def written() -> list[Json]:
            found = (f for place in places for f in cluster.list("identityfindings", place))
            return [f for f in found if f["spec"]["rule"] == "Unowned"]  # besides, the bindings are undeclared

        eventually(lambda: len(written()) == count, LONG, 1.0, what=f"{count} findings")
        began = time.monotonic()
        cluster.patch("governancepolicies", "flood", {"spec": {"effectiveFrom": "2026-01-01T00:00:00Z"}})
        found = finding_of(cluster, calm, "Unowned", "ci")
        assert found is not None
        cluster.create(verdict(found, "Quarantine", by="judy"), user="judy")
        eventually(lambda: quarantine_of(cluster, calm, "ci"), LONG, what="what a person decided is done")
        assert not [q for place in places for q in cluster.list("quarantines", place)], "it waits for no flood"

        def waiting() -> bool:
            seen = made.operator.metrics()
            return seen.value("tenure_enforcement_queue_length", reason="BlastRadius") == count - CAP

        eventually(waiting, LONG, 0.5, what="the rest waits for the blast radius")
        took = time.monotonic() - began
        held = [q for place in places for q in cluster.list("quarantines", place)]
        assert len(held) == CAP
        worst = {place: f"ci-{(DECOYS if place == decoys else OTHERS) // 2:04}" for place in places}
        assert {q["metadata"]["namespace"]: q["spec"]["subject"]["name"] for q in held}.items() <= worst.items()
        # Round robin over namespaces: a namespace full of decoys gets no more than its turn.
        assert max(Counter(q["metadata"]["namespace"] for q in held).values()) == 1

        def told() -> bool:
            found = [{c["reason"] for c in f["status"]["conditions"] if c["type"] == "Blocked"} for f in written()]
            return sum("BlastRadius" in reasons for reasons in found) == count - CAP

        eventually(told, LONG, 1.0, what="every finding that waits says so")
        assert len(written()) == count  # none was displaced
        made.settle(2.0, LONG)
        assert sum(len(cluster.list("quarantines", place)) for place in places) == CAP
        print(
            f"\n{count} findings due at once: {CAP} acts, the rest waits; {took:.0f} s until the last is in the queue"
        )
