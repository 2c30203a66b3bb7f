"""Very many findings that fall due in the same second: the blast radius holds, whoever tries to fill it with decoys.

A thousand in `make test`, ten thousand with SWEEP=full. Which of a namespace comes first, the worst, is pick's: see
tests/unit/enforce/test_blast.py. Here acts begin while the last are still being judged."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.cluster import eventually
from tests.support.crash import FULL
from tests.support.ground import ground
from tests.support.rest import Json
from tests.support.scenario import deadline, policy, service_account

pytestmark = [pytest.mark.local, pytest.mark.long]

NAMESPACES, DECOYS, OTHERS = (20, 900, 479) if FULL else (20, 500, 26)
CAP = 12
LONG = 300.0  # seconds


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

        def fill(place: str) -> None:
            for number in range(DECOYS if place == decoys else OTHERS):
                cluster.create(service_account(place, f"ci-{number:04}"))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(fill, places))
        count = DECOYS + OTHERS * len(others)

        def written() -> list[Json]:
            return [f for place in places for f in cluster.list("identityfindings", place)]

        eventually(lambda: len(written()) == count, LONG, 1.0, what=f"{count} findings")
        began = time.monotonic()
        cluster.patch("governancepolicies", "flood", {"spec": {"effectiveFrom": "2026-01-01T00:00:00Z"}})

        def waiting() -> bool:
            seen = made.operator.metrics()
            return seen.value("tenure_enforcement_queue_length", reason="BlastRadius") == count - CAP

        eventually(waiting, LONG, 0.5, what="the rest waits for the blast radius")
        took = time.monotonic() - began
        held = [q for place in places for q in cluster.list("quarantines", place)]
        assert len(held) == CAP
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
