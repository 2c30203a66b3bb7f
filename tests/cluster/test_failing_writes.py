"""Every write of every path that is swept by crashes also fails: 409, 429, 500, and an answer that is lost.

And the API server, and etcd, are killed at a write and start again. It ends in the same state, no act is made twice,
nothing is lost. A sample of the paths, one of each file; all of them, each write in every way, with SWEEP=full."""

from __future__ import annotations

import pytest

from tests.cluster import (
    test_crash_deciding,
    test_crash_deny_writes,
    test_crash_entitlements,
    test_crash_quarantine,
    test_crash_release,
    test_crash_revocation,
    test_crash_secrets,
    test_crash_tripwire,
    test_crash_verdict,
)
from tests.support.controlplane import Component
from tests.support.crash import FULL, Path, Sweep

pytestmark = [pytest.mark.local, pytest.mark.long]

FILES = (
    test_crash_quarantine,
    test_crash_release,
    test_crash_revocation,
    test_crash_verdict,
    test_crash_secrets,
    test_crash_deny_writes,
    test_crash_deciding,
    test_crash_entitlements,
    test_crash_tripwire,
)
ALL = tuple(path for file in FILES for path in file.PATHS)
PATHS = ALL if FULL else tuple(file.PATHS[0] for file in FILES)
GROUPS = tuple(file.PATHS for file in FILES) if FULL else (PATHS,)
"""What shares a cluster: in full the paths of one file, since what one opts in to another does without."""
SERVERS: tuple[Component, Component] = ("kube-apiserver", "etcd")
assert len({path.title for path in ALL}) == len(ALL)


def test_a_failure_at_any_write_ends_in_the_same_state(sweep: Sweep, path: Path) -> None:
    sweep.fail(path)


def test_a_server_restarted_at_any_write_ends_in_the_same_state(sweep: Sweep, path: Path) -> None:
    place = PATHS.index(path)
    for server in SERVERS if FULL else (SERVERS[place % 2],):
        sweep.restart(path, server, share=place / len(PATHS))
