"""Killed at any write of a quarantine with the stage DenyWrites. tests/support/crash.py says how."""

from __future__ import annotations

import pytest
import yaml

from tests.support.cluster import REPOSITORY
from tests.support.crash import ACCOUNT, QUARANTINED, UNOWNED, Path, Sweep, account, plain
from tests.support.ground import Ground
from tests.support.scenario import deadline, finding_of, quarantine_of

pytestmark = [pytest.mark.local, pytest.mark.long]

DENIED = "Guard verified, DenyWrites verified"


def denied(ground: Ground, namespace: str) -> bool:
    """Whether both stages are verified and the finding says so."""
    held = quarantine_of(ground.cluster, namespace, "ci") or {}
    stages = held.get("status", {}).get("stages", ())
    found = finding_of(ground.cluster, namespace, "Unowned", "ci")
    return len(stages) == 2 and bool(found and found["status"].get("verified"))


def opted_in(ground: Ground) -> None:
    """As with `make install DENYWRITES=1`."""
    for manifest in yaml.safe_load_all((REPOSITORY / "deploy" / "deny-writes.yaml").read_text()):
        ground.cluster.create(manifest)


PATHS = (
    Path(
        "deny-writes",
        policies=(plain("deny-writes", deadline("Unowned", stages=["Guard", "DenyWrites"])),),
        arrange=opted_in,
        trigger=account,
        done=denied,
        counted=1,
        writes=frozenset(
            {
                f"{UNOWNED}: Open",
                "memory: turned, 1 counted, 0 acts",
                f"{UNOWNED}: Open, missed",
                "memory: turned, 1 counted, 1 acts",
                f"{ACCOUNT}: intent",
                "guard of namespace: 1 accounts",
                "guard of bindings: named",
                f"{ACCOUNT}: Guard verified",
                f"{ACCOUNT}: Guard verified, DenyWrites begun",
                "guard of bindings: named, held from writing",
                f"{ACCOUNT}: {DENIED}",
                f"{UNOWNED}: Quarantined, {QUARANTINED}",
            }
        ),
        sometimes=frozenset({f"{UNOWNED}: Open, missed, by Policy, Quarantine started"}),
    ),
)


def test_a_crash_at_any_write_ends_in_the_same_state(sweep: Sweep, path: Path) -> None:
    sweep.run(path)
