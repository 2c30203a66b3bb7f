"""A cluster of one's own with Tenure in it, a FaultProxy before it, and one operator that starts quickly."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.cluster import Cluster
from tests.support.forked import ForkedOperator, ForkServer
from tests.support.proxy import FaultProxy, Request, durable
from tests.support.rest import Json
from tests.support.scenario import HOME, OPERATOR, claimant, decider, owner, releaser

QUIET = 0.6  # seconds without a write after which a path counts as settled


@dataclass
class Ground:
    """carla may claim for the owner `team`, rita may release, judy may give every verdict; nobody else is special."""

    cluster: Cluster
    proxy: FaultProxy
    operator: ForkedOperator

    def settle(self, quiet: float = QUIET, timeout: float = 60.0, match: Callable[[Request], bool] = durable) -> None:
        """Waits until the operator has written nothing for so many seconds."""
        deadline = time.monotonic() + timeout
        seen, since = -1, time.monotonic()
        while time.monotonic() - since < quiet:
            assert time.monotonic() < deadline, "the operator does not come to rest"
            count = len(self.proxy.writes(match))
            if count != seen:
                seen, since = count, time.monotonic()
            time.sleep(0.02)

    def audit(self, since: int = 0) -> list[Json]:
        """What the operator asked of the API server, by the audit log; not what a test did in its name."""
        assert self.cluster.control_plane is not None
        return [
            event
            for event in self.cluster.control_plane.audit_events(since)
            if event["user"].get("username") == OPERATOR and "impersonatedUser" not in event
        ]

    def position(self) -> int:
        """Where the audit log ends now."""
        assert self.cluster.control_plane is not None
        return self.cluster.control_plane.audit_position()


@contextlib.contextmanager
def ground(
    directory: Path, *, arguments: tuple[str, ...] = (), follow: bool = False, **options: Any
) -> Iterator[Ground]:
    """Starts all of it; the operator is ready. With `follow` it follows the API server's audit log. `options` are those
    of `Cluster.local`."""
    with (
        Cluster.local(**options) as cluster,
        ForkServer() as server,
        FaultProxy.to(cluster) as proxy,
    ):
        cluster.install()
        cluster.create(owner("team"))
        claimant(cluster, "carla", "team")
        releaser(cluster, "rita")
        decider(cluster, "judy")
        if follow:
            assert cluster.control_plane is not None
            arguments += ("--audit-log", str(cluster.control_plane.audit_log))
        kubeconfig = cluster.token_kubeconfig(HOME, "tenure", server=proxy.url)
        with ForkedOperator(kubeconfig, server=server, directory=directory, arguments=arguments) as operator:
            yield Ground(cluster, proxy, operator)


def of_namespace(namespace: str) -> Callable[[Request], bool]:
    """Durable writes in a namespace, or to what all namespaces share; but for a policy's status, which counts
    namespaces a second after whatever changed them."""
    shared = ("", HOME)

    def matches(request: Request) -> bool:
        here = request.namespace == namespace or request.namespace in shared
        return durable(request) and here and request.resource != "governancepolicies"

    return matches
