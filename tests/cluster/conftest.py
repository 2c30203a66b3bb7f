"""What the files share that sweep writes: each has its `PATHS`, and a test of each (tests/support/crash.py)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.crash import FULL, Sweep, sweeping


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "path" in metafunc.fixturenames and "sweep" in metafunc.fixturenames:
        if groups := getattr(metafunc.module, "GROUPS", ()):
            cases = [pytest.param(group, path, id=path.title) for group in groups for path in group]
            metafunc.parametrize(("sweep", "path"), cases, indirect=["sweep"], scope="module")
            return
        first, *others = metafunc.module.PATHS  # one in `make test`, and on the oldest Kubernetes, for a sample
        if metafunc.config.getoption("--kubernetes") and not FULL:
            others = []
        paths = [first, *(pytest.param(path, marks=pytest.mark.long) for path in others)]
        metafunc.parametrize("path", paths, ids=lambda path: path.title)


@pytest.fixture(scope="module")
def sweep(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sweep]:
    """A cluster with the policies of the file's paths, of a group where it has several, and an operator that starts
    quickly."""
    with sweeping(tmp_path_factory.mktemp("operator"), getattr(request, "param", request.module.PATHS)) as made:
        yield made
