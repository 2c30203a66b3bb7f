"""Every write of every path that is swept by crashes also fails: 409, 429, 500, and an answer that is lost.

It ends in the same state, no act is made twice, nothing is lost. A sample of the paths, one of each file; all of them,
and each write in every way, with SWEEP=full."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml

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
from tests.support.cluster import REPOSITORY
from tests.support.crash import FULL, Path, Sweep, sweeping

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


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sweep]:
    assert len({path.title for path in ALL}) == len(ALL)
    with sweeping(tmp_path_factory.mktemp("operator"), PATHS, follow=True) as made:
        for manifest in yaml.safe_load_all((REPOSITORY / "deploy" / "deny-writes.yaml").read_text()):
            made.cluster.create(manifest)
        made.cluster.install(entitlements=True)
        test_crash_deciding.people(made.ground)
        yield made


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.title)
def test_a_failure_at_any_write_ends_in_the_same_state(sweep: Sweep, path: Path) -> None:
    sweep.fail(path)
