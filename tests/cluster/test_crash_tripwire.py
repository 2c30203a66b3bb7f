"""Killed at the write that says an attempted use. tests/support/crash.py says how."""

from __future__ import annotations

import pytest

from tests.support.crash import ACCOUNT, BOTH, QUARANTINED, UNOWNED, Path, Sweep, account, plain, quarantined
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
        follow=True,
        prepare=account,
        ready=quarantined(),
        trigger=use,
        done=told,
        writes=frozenset({f"{ACCOUNT}: {BOTH}, used"}),
        # Where a server goes, a stage may not be seen in force for a moment: the finding says so, and then that it is.
        sometimes=frozenset({f"{UNOWNED}: Quarantined, {QUARANTINED}"}),
    ),
)


def test_a_crash_at_any_write_ends_in_the_same_state(sweep: Sweep, path: Path) -> None:
    sweep.run(path)
