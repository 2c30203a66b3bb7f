"""examples/ as an API server takes them, and as the demo renames them for a cluster that is not its own."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.demo.examples import FOLDER, Names, in_seconds, read
from tests.demo.ground import OwnGround
from tests.demo.narrator import Narrator
from tests.demo.story import Story
from tests.support.cluster import Cluster, eventually
from tests.support.operator import Operator
from tests.support.prometheus import DASHBOARDS, MISSING, Prometheus

FILES = [
    "1-teams.yaml",
    "2-policy.yaml",
    "3-identities.yaml",
    "claims/build-server.yaml",
    "claims/log-shipper.yaml",
    "exceptions/build-server-until-oidc.yaml",
]


@pytest.fixture
def names(installed: Cluster) -> Iterator[Names]:
    """Names of this test alone; what is cluster-scoped under them is removed."""
    given = Names.own(uuid.uuid4().hex[:6])
    yield given
    installed.delete("governancepolicies", given.namespace)
    for owner in (given.payments, given.platform):
        installed.delete("identityowners", owner)
    installed.delete_namespace(given.namespace)


def test_the_api_server_takes_every_example(installed: Cluster, names: Names) -> None:
    for file in FILES:
        for manifest in read(FOLDER / file, names):
            installed.apply(manifest)
            if manifest["kind"] == "GovernancePolicy":
                installed.apply(in_seconds(manifest))
    found = installed.list("ownedidentities", names.namespace)
    assert {claim["spec"]["owner"] for claim in found} == {names.payments, names.platform}


def test_every_example_is_known_here() -> None:
    there = {str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*.yaml")}
    # Those are for test_adoption.py, test_decision_roles.py, test_gitops_examples.py and test_monitoring.py.
    elsewhere = ("brownfield/", "decision-rights/", "gitops/", "monitoring/")
    there = {path for path in there if not path.startswith(elsewhere)}
    assert there == {*FILES, "4-platform.yaml"}, "4-platform.yaml writes to kube-system: only `make demo` applies it"


def test_own_names_leave_nothing_of_the_readable_ones() -> None:
    names = Names.own("abc123")
    for file in FILES:
        for manifest in read(FOLDER / file, names):
            metadata = manifest["metadata"]
            assert metadata.get("namespace", names.namespace) == names.namespace
            written = json.dumps(manifest)
            for readable in ('"shop"', '"payments"', '"platform"'):
                assert readable not in written, f"{file}: {metadata['name']}"
            if "namespace" not in metadata:
                assert "tenure-demo-abc123" in metadata["name"]
                assert metadata["labels"]["tenure.dev/demo"] == "abc123"


class Watched(OwnGround):
    """`make demo`'s ground, with a Prometheus that watches from the first instant on."""

    def __init__(self, narrator: Narrator, directory: Path) -> None:
        super().__init__(narrator)
        self._place = directory
        self.prometheus: Prometheus

    def run_operator(self) -> Operator:
        operator = super().run_operator()
        self.prometheus = Prometheus(self._place, target=operator.url.removeprefix("http://")).__enter__()
        recorded = "sum(risk_outcome:tenure_decisions_due_total:max)"
        eventually(lambda: self.prometheus.query(recorded), what="the first recorded values")
        return operator

    def close(self) -> None:
        if hasattr(self, "prometheus"):
            self.prometheus.__exit__()
        super().close()


@pytest.mark.long
@pytest.mark.local
@pytest.mark.skipif(bool(MISSING), reason=f"not on PATH: {', '.join(MISSING)} (.ci/run installs them)")
def test_the_demo_is_told_and_no_panel_of_a_dashboard_is_empty_on_its_data(tmp_path: Path) -> None:
    narrator = Narrator()
    ground = Watched(narrator, tmp_path)
    story = Story(ground, narrator)
    try:
        story.tell()

        def filled() -> bool:
            assert [query for board in DASHBOARDS for query in ground.prometheus.empty(board)] == []
            return True

        eventually(filled, what="every panel filled")
    finally:
        story.stop()
        ground.close()
