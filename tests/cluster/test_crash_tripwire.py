"""Killed at the write that says an attempted use. tests/support/crash.py says how."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.crash import ACCOUNT, BOTH, Path, Sweep, account, plain, quarantined, sweeping
from tests.support.ground import Ground
from tests.support.scenario import deadline, quarantine_of

pytestmark = [pytest.mark.local, pytest.mark.long]


def use(ground: Ground, namespace: str) -> None:
    """By impersonation, which no quarantine ends."""
    user = f"system:serviceaccount:{namespace}:ci"
    ground.cluster.request("GET", f"/api/v1/namespaces/{namespace}/configmaps", user=user)


def told(ground: Ground, namespace: str) -> bool:
    held = quarantine_of(ground.cluster, namespace, "ci") or {}
    return bool(held.get("status", {}).get("attempt"))


PATHS = (
    Path(
        "tripwire",
        policies=(plain("tripwire", deadline("Unowned")),),
        prepare=account,
        ready=quarantined(),
        trigger=use,
        done=told,
        writes=frozenset({f"{ACCOUNT}: {BOTH}, used"}),
    ),
)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sweep]:
    with sweeping(tmp_path_factory.mktemp("operator"), PATHS, follow=True) as made:
        yield made


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.title)
def test_a_crash_at_any_write_ends_in_the_same_state(sweep: Sweep, path: Path) -> None:
    sweep.run(path)
