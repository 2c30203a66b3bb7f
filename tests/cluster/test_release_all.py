"""`tenure release --all`, and the same by kubectl alone, as docs/enforcement.md has it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.cluster.test_commands import tenure
from tests.support import scenario
from tests.support.cluster import REPOSITORY, Cluster, eventually
from tests.support.operator import Operator
from tests.support.rest import Json
from tests.support.scenario import (
    allow,
    deadline,
    decider,
    phase_of,
    policy,
    quarantine_of,
    rule,
    switched_off,
    token_of,
)


@pytest.fixture(scope="module")
def governed(installed: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Operator(installed.kubeconfig, directory=tmp_path_factory.mktemp("operator")):
        yield installed


@pytest.fixture
def places(governed: Cluster) -> Iterator[tuple[str, str, str]]:
    """Two namespaces with a quarantined identity, and one whose token was revoked."""
    made = tuple(governed.namespace(name) for name in ("bad-night-a", "bad-night-b", "bad-night-c"))
    for place in made:
        governed.patch("namespaces", place, {"metadata": {"labels": {"test": place}}})
        revoked = place == made[2]
        entry = deadline("LegacyToken", revoke_after="1s") if revoked else deadline("Unowned")
        later = deadline(within="90d", action="Nothing")
        scenario.govern(governed, policy(place, entry, later, labels={"test": place}, precedence=91))
        scenario.identity(governed, place, "ci", ["ci-token"])
    for place in made[:2]:
        eventually(lambda place=place: phase_of(governed, place, "Unowned", "ci") == "Quarantined")  # type: ignore[misc]
        # Released on a bad night, nothing is to be taken again a second later.
        governed.patch("governancepolicies", place, {"spec": {"suspend": True}})
    eventually(lambda: record(governed, made[2]), what="a record of what was revoked")
    yield made[0], made[1], made[2]
    for place in made:
        governed.delete("governancepolicies", place)
        governed.delete_namespace(place)


def record(cluster: Cluster, place: str) -> Json | None:
    held = quarantine_of(cluster, place, "ci-token")
    return held if held and not held["metadata"].get("finalizers") else None


def test_everything_is_released_and_what_cannot_be_is_named(governed: Cluster, places: tuple[str, str, str]) -> None:
    first, second, gone = places
    decider(governed, "nadia")
    allow(governed, "nadia", "test-list-nadia", rule("tenure.dev", ["quarantines"], ["get", "list"]))
    kubeconfig = governed.user("nadia")
    names = {place: (quarantine_of(governed, place, "ci") or {})["metadata"]["name"] for place in (first, second)}

    asked = tenure(kubeconfig, "release", "--all", "--reason", "bad night")
    assert asked.returncode == 1  # nobody could be asked, and nobody said --yes
    assert "--yes releases them" in asked.stdout
    assert quarantine_of(governed, first, "ci") is not None

    done = tenure(kubeconfig, "release", "--all", "--reason", "bad night", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    said = re.sub(r"\s+", " ", done.stdout)
    for place, name in names.items():
        assert f"{place}/{name}: Counted: What was taken is given back" in said
        eventually(lambda place=place: quarantine_of(governed, place, "ci") is None, what="given back")  # type: ignore[misc]
        assert not switched_off(governed, place, "ci-token")
        assert governed.token_works(token_of(governed, place, "ci-token"))
        assert phase_of(governed, place, "Unowned", "ci") == "Open"
    assert f"{gone}/{(record(governed, gone) or {})['metadata']['name']}: its subject was revoked" in said
    assert record(governed, gone) is not None
    assert "2 of 2 released." in said

    again = tenure(kubeconfig, "release", "--all", "--reason", "bad night", "--yes")
    assert again.returncode == 0
    assert "Nothing is quarantined that could be released." in again.stdout


def test_one_that_may_not_be_released_stops_no_other(governed: Cluster, places: tuple[str, str, str]) -> None:
    first, second, _ = places
    allow(governed, "norma", "test-list-norma", rule("tenure.dev", ["quarantines"], ["get", "list"]))
    allow(governed, "norma", "test-write-norma", rule("tenure.dev", ["identitydecisions"], ["create", "get", "list"]))
    here = {"namespace": second, "name": "norma"}
    role = {"rules": [rule("tenure.dev", ["quarantines"], ["release"])]}
    governed.create({"apiVersion": f"{scenario.RBAC}/v1", "kind": "Role", "metadata": here, **role})
    governed.create(
        {
            "apiVersion": f"{scenario.RBAC}/v1",
            "kind": "RoleBinding",
            "metadata": here,
            "roleRef": {"apiGroup": scenario.RBAC, "kind": "Role", "name": "norma"},
            "subjects": [{"apiGroup": scenario.RBAC, "kind": "User", "name": "norma"}],
        }
    )
    eventually(lambda: governed.can("norma", "release", "quarantines", group="tenure.dev", namespace=second))
    done = tenure(governed.user("norma"), "release", "--all", "--reason", "mine", "--yes")
    assert done.returncode == 1
    assert "1 of 2 released." in done.stdout
    assert "may not release" in re.sub(r"\s+", " ", done.stdout)
    eventually(lambda: quarantine_of(governed, second, "ci") is None, what="given back")
    assert quarantine_of(governed, first, "ci") is not None


def test_the_documented_line_does_the_same_with_kubectl(governed: Cluster, places: tuple[str, str, str]) -> None:
    first, second, gone = places
    text = (REPOSITORY / "docs" / "enforcement.md").read_text()
    [line] = [line for line in text.splitlines() if line.startswith("kubectl delete quarantines --all -n")]
    scenario.releaser(governed, "rita")
    for place in (first, second):
        done = subprocess.run(
            ["bash", "-c", line.replace("NAMESPACE", place)],
            env=governed.environment(governed.user("rita")),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert quarantine_of(governed, place, "ci") is None
        assert not switched_off(governed, place, "ci-token")
    assert record(governed, gone) is not None
