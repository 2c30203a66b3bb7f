"""Killed at any write of a quarantine with the stage DenyWrites. tests/support/crash.py says how."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml

from tests.support.cluster import REPOSITORY
from tests.support.crash import ACCOUNT, QUARANTINED, UNOWNED, Path, Sweep, account, plain, sweeping
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


PATHS = (
    Path(
        "deny-writes",
        policies=(plain("deny-writes", deadline("Unowned", stages=["Guard", "DenyWrites"])),),
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


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sweep]:
    with sweeping(tmp_path_factory.mktemp("operator"), PATHS) as made:
        for manifest in yaml.safe_load_all((REPOSITORY / "deploy" / "deny-writes.yaml").read_text()):
            made.cluster.create(manifest)
        yield made


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.title)
def test_a_crash_at_any_write_ends_in_the_same_state(sweep: Sweep, path: Path) -> None:
    sweep.run(path)
