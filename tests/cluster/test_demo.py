"""examples/ as an API server takes them, and as the demo renames them for a cluster that is not its own."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator

import pytest

from tests.demo.examples import FOLDER, Names, in_seconds, read
from tests.support.cluster import Cluster

FILES = [
    "1-teams.yaml",
    "2-policy.yaml",
    "3-identities.yaml",
    "claims/build-server.yaml",
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
    # Those are for test_decision_roles.py and test_monitoring.py.
    there = {path for path in there if not path.startswith(("decision-rights/", "monitoring/"))}
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
