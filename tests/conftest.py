"""Fixtures. `cluster` is the one seam to a cluster; see tests/support/cluster.py."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import Cluster
from tests.support.forked import ForkedOperator, ForkServer
from tests.support.operator import Operator
from tests.support.proxy import FaultProxy

# With --cluster=kind, unless --kind-image, --kind-bin or $KIND_VERSION say otherwise. A kind on PATH is used first.
KIND_VERSION = "v0.30.0"
KIND_IMAGE = "kindest/node:v1.34.0"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("tenure")
    group.addoption(
        "--cluster",
        choices=("local", "kind", "current"),
        default="local",
        help="local: our own control plane (default); kind: through pytest-kind, needs Docker; current: see --context",
    )
    group.addoption(
        "--kubernetes",
        default=None,
        metavar="VERSION",
        help="with --cluster=local: the version that is emulated (1.33)",
    )
    group.addoption("--context", default=None, help="the kubeconfig context that --cluster=current may write to")


def pytest_configure(config: pytest.Config) -> None:
    kind = config.getoption("--cluster")
    Cluster.emulated = config.getoption("--kubernetes")
    if Cluster.emulated and kind != "local":
        raise pytest.UsageError(f"--kubernetes emulates a version on our own control planes, not with --cluster={kind}")
    if kind == "current" and not config.getoption("--context"):
        raise pytest.UsageError("--cluster=current also needs --context=NAME: the tests write to that cluster")
    if kind == "kind":
        # pytest-kind's own defaults are a Kubernetes older than any that Tenure supports.
        config.option.kind_image = config.option.kind_image or KIND_IMAGE
        config.option.kind_bin = config.option.kind_bin or shutil.which("kind")
        if config.option.kind_bin is None and "KIND_VERSION" not in os.environ:
            import pytest_kind.cluster

            pytest_kind.cluster.KIND_VERSION = KIND_VERSION


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        call = getattr(item, "callspec", None)
        if call is not None and "1.33" in call.params.values():
            item.add_marker("long")
    kind = config.getoption("--cluster")
    if kind == "local":
        return
    skip = pytest.mark.skip(reason=f"kills processes or reads the audit log: not with --cluster={kind}")
    for item in items:
        if "local" in item.keywords or "fresh_cluster" in getattr(item, "fixturenames", ()):
            item.add_marker(skip)


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The cluster of this session, as its administrator."""
    kind = request.config.getoption("--cluster")
    if kind == "local":
        opened = Cluster.local()
    elif kind == "current":
        opened = Cluster.current(request.config.getoption("--context"))
    else:  # asked for by name, since it needs Docker
        opened = Cluster(Path(request.getfixturevalue("kind_cluster").kubeconfig_path).resolve())
    with opened:
        yield opened


@pytest.fixture(scope="session")
def installed(cluster: Cluster) -> Iterator[Cluster]:
    """The same cluster, with CRDs, RBAC and admission policies installed once."""
    cluster.install()
    yield cluster
    if cluster.control_plane is None:  # somebody else's: leave nothing in it
        cluster.uninstall()


@pytest.fixture(scope="session")
def oldest() -> Iterator[Cluster]:
    """Tenure on a control plane of the oldest Kubernetes that it supports, beside the session's."""
    with Cluster.local(version="1.33", audit=False) as made:
        made.install()
        yield made


@pytest.fixture(params=["1.33", "1.36"])
def api(request: pytest.FixtureRequest) -> Cluster:
    """Tenure on the oldest and on the newest Kubernetes, for tests marked `local`; the newest stamps."""
    found: Cluster = request.getfixturevalue("oldest" if request.param == "1.33" else "installed")
    return found


@pytest.fixture
def room(api: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace there, of this test alone."""
    name = api.namespace(request.node.name.removeprefix("test_"))
    yield name
    api.delete_namespace(name)


@pytest.fixture
def person(api: Cluster) -> Iterator[Callable[..., Cluster]]:
    """`person("bob", ["security"])`: the same cluster as that user, who has a certificate of their own."""
    with ExitStack() as stack:
        yield lambda name, groups=(): stack.enter_context(Cluster(api.user(name, groups)))


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of this test alone, named after it."""
    name = cluster.namespace(request.node.name.removeprefix("test_"))
    yield name
    cluster.delete_namespace(name)


@pytest.fixture
def fresh_cluster() -> Iterator[Callable[..., Cluster]]:
    """Makes local clusters of this test alone, for tests that kill processes: `fresh_cluster(version="1.34")`.

    `installed=True` also installs Tenure. The other options are those of `Cluster.local`.
    """
    with ExitStack() as stack:

        def make(*, installed: bool = False, **options: Any) -> Cluster:
            made = stack.enter_context(Cluster.local(**options))
            if installed:
                made.install()
            return made

        yield make


@pytest.fixture
def proxy(cluster: Cluster) -> Iterator[FaultProxy]:
    """A FaultProxy in front of the session's cluster."""
    with FaultProxy.to(cluster) as opened:
        yield opened


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    """What starts operators quickly, for all tests of this session."""
    with ForkServer() as server:
        yield server


@pytest.fixture
def operator(tmp_path: Path, fork_server: ForkServer) -> Iterator[Callable[..., Operator]]:
    """Makes operators that end with the test: `operator(kubeconfig, arguments=[…])`, started and ready."""
    with ExitStack() as stack:
        made = 0

        def make(kubeconfig: Path, *, wait: bool = True, **options: Any) -> Operator:
            nonlocal made
            made += 1
            directory = tmp_path / f"operator-{made}"
            started = ForkedOperator(kubeconfig, server=fork_server, directory=directory, wait=wait, **options)
            return stack.enter_context(started)

        yield make
