"""Ways around a deadline that people try with the rights they have: what they come to, with the operator running.

What admission refuses outright is in test_admission_*.py; racing, forging and editing in test_exceptions.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tenure.api.names import Rule
from tests.cluster.tenure_objects import grant
from tests.support import scenario
from tests.support.cluster import ApiError, Cluster, eventually
from tests.support.operator import Operator
from tests.support.scenario import (
    claim,
    claimant,
    deadline,
    decider,
    exception,
    finding_of,
    owner,
    phase_of,
    policy,
    quarantine_of,
    token_secret,
    verdict,
)

Json = dict[str, Any]

ALICE, BOB, SAM, CARLA, JUDY = (f"{name}@attackers.example" for name in ("alice", "bob", "sam", "carla", "judy"))
"""Who asks; who approves; who forces; who claims; who gives verdicts."""


@pytest.fixture(scope="module")
def running(installed: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    installed.apply(owner("attacked"))
    claimant(installed, CARLA, "attacked")
    decider(installed, JUDY)
    with Operator(installed.kubeconfig, directory=tmp_path_factory.mktemp("operator")) as operator:
        yield operator


@pytest.fixture
def place(installed: Cluster, running: Operator, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace where Alice may request, Bob approve and Sam force; ServiceAccount `ci` with the token `ci-token`."""
    name = installed.namespace(request.node.name.removeprefix("test_")[:40])
    installed.patch("namespaces", name, {"metadata": {"labels": {"test": name}}})
    grant(installed, name, ALICE, ["create", "get", "patch", "delete"], ["identityexceptions"])
    for person, verbs in ((BOB, ["approve"]), (SAM, ["force"])):
        grant(installed, name, person, verbs, ["identityexceptions"])
        grant(installed, name, person, ["create"], ["identitydecisions"])
    scenario.identity(installed, name, "ci", ["ci-token"])
    eventually(lambda: phase_of(installed, name, "LegacyToken", "ci-token") == "Open", what="a finding")
    yield name
    installed.delete("governancepolicies", name)
    installed.delete_namespace(name)


def govern(cluster: Cluster, place: str, *deadlines: Json, **spec: Any) -> None:
    scenario.govern(cluster, policy(place, *deadlines, labels={"test": place}, precedence=60, **spec))


def after(**time: float) -> str:
    return (datetime.now(UTC) + timedelta(**time)).strftime("%Y-%m-%dT%H:%M:%SZ")


def ask(cluster: Cluster, place: str, called: str, **spec: Any) -> Json:
    made = exception(place, "Secret", "ci-token", "LegacyToken", called=called, requestedBy=ALICE, **spec)
    return cluster.create(made, user=ALICE)


def decide(cluster: Cluster, about: Json, by: str, verb: str = "approve") -> Json:
    metadata = about["metadata"]
    made = verdict(about, "Approve", by=by, called=f"{verb}-{metadata['name']}", generation=metadata["generation"])
    made["spec"]["verb"] = verb
    return cluster.create(made, user=by)


def wait_status(cluster: Cluster, resource: str, name: str, place: str, **fields: Any) -> Json:
    def there() -> Json:
        status: Json = (cluster.get(resource, name, place) or {}).get("status", {})
        assert {field: status.get(field) for field in fields} == fields, status
        return status

    return eventually(there, 60, what=f"{name}: {fields}")


def test_an_exception_without_an_end_or_for_every_rule_is_none(installed: Cluster, place: str) -> None:
    endless = exception(place, "Secret", "ci-token", "LegacyToken", requestedBy=ALICE)
    del endless["spec"]["expiresAt"]
    for manifest, said in (
        (endless, r"spec\.expiresAt: Required value"),
        (exception(place, "Secret", "ci-token", "*", requestedBy=ALICE), r'Unsupported value: "\*"'),
        (exception(place, "Secret", "ci-token", requestedBy=ALICE), "should have at least 1 items"),
        (exception(place, "*", "ci-token", "LegacyToken", requestedBy=ALICE), r'Unsupported value: "\*"'),
    ):
        with pytest.raises(ApiError, match=said):
            installed.create(manifest, user=ALICE)


def test_an_exception_of_ten_years_waives_nothing_whoever_approves_or_forces_it(installed: Cluster, place: str) -> None:
    asked = ask(installed, place, "decade", expiresAt=after(days=3650))
    decide(installed, asked, BOB)
    decide(installed, asked, SAM, "force")
    status = wait_status(installed, "identityexceptions", "decade", place, phase="Pending", reason="TooLong")
    assert status["failing"].startswith("expiresAt: Migration may last 90d from the last change of its spec")
    short = ask(installed, place, "short")
    decide(installed, short, BOB)  # which is looked at later than the other's
    wait_status(installed, "identityexceptions", "short", place, phase="Active")
    wait_status(installed, "identityexceptions", "decade", place, phase="Pending")
    found = finding_of(installed, place, "LegacyToken", "ci-token")
    assert found is not None
    eventually(lambda: phase_of(installed, place, "LegacyToken", "ci-token") == "Excepted", what="the short one's")
    installed.delete("identityexceptions", "short", place, user=ALICE)
    eventually(lambda: phase_of(installed, place, "LegacyToken", "ci-token") == "Open", what="no waiver is left")


def test_an_exception_for_everything_is_for_what_stood_there_when_it_was_approved(
    installed: Cluster, place: str
) -> None:
    rules = [rule.value for rule in Rule]
    everything = ask(installed, place, "everything", target={"kind": "Secret", "selector": {}}, rules=rules)
    ahead = ask(installed, place, "ahead", target={"kind": "Secret", "name": "not-yet"})
    for asked in (everything, ahead):
        decide(installed, asked, BOB)
        wait_status(installed, "identityexceptions", asked["metadata"]["name"], place, phase="Active")
    eventually(lambda: phase_of(installed, place, "LegacyToken", "ci-token") == "Excepted", what="the waiver")
    assert phase_of(installed, place, "Unowned", "ci") == "Open", "a waiver for Secrets is none for their owner"
    matched = wait_status(installed, "identityexceptions", "everything", place, phase="Active")["matched"]
    assert [target["name"] for target in matched] == ["ci-token"]
    # Created later: by the name that one of them names, and into the selection of the other.
    installed.create(token_secret(place, "not-yet", "ci"))
    eventually(lambda: phase_of(installed, place, "LegacyToken", "not-yet") == "Open", what="a finding")
    # And a namesake of what is covered.
    installed.delete("secrets", "ci-token", place)
    eventually(lambda: phase_of(installed, place, "LegacyToken", "ci-token") == "Resolved", what="it is gone")
    installed.create(token_secret(place, "ci-token", "ci"))
    eventually(lambda: phase_of(installed, place, "LegacyToken", "ci-token") == "Open", what="a namesake is open")


def test_a_claim_loosens_no_policy(installed: Cluster, place: str) -> None:
    """Neither how old a credential may be, nor a deadline, nor what happens then."""
    govern(
        installed,
        place,
        deadline("CredentialTooOld", within="1h", action="Nothing"),
        deadline(within="9h", action="Nothing"),
        credentials={"maxAge": "2s"},
    )
    loose = {"credentials": {"maxAge": "3650d"}, "review": {"interval": "3650d"}}
    installed.create(claim(place, "attacked", **loose), user=CARLA)
    eventually(lambda: phase_of(installed, place, "Unowned", "ci") == "Resolved", what="the claim counts")
    old = eventually(lambda: finding_of(installed, place, "CredentialTooOld", "ci-token"), what="CredentialTooOld")
    assert old["status"]["phase"] == "Open"
    within = datetime.fromisoformat(old["status"]["due"]) - datetime.fromisoformat(old["status"]["detected"])
    assert within <= timedelta(hours=1, seconds=1)
    # It may tighten.
    govern(installed, place, deadline(within="9h", action="Nothing"), credentials={"maxAge": "3650d"})
    eventually(lambda: phase_of(installed, place, "CredentialTooOld", "ci-token") == "Resolved", what="the policy's")
    installed.patch("ownedidentities", "claim", {"spec": {"credentials": {"maxAge": "1s"}}}, place, user=CARLA)
    eventually(lambda: phase_of(installed, place, "CredentialTooOld", "ci-token") == "Open", what="the claim's")


def test_claiming_and_unclaiming_or_creating_anew_restarts_no_clock(installed: Cluster, place: str) -> None:
    govern(installed, place, deadline(within="100s", action="Nothing"))

    def opened(number: int) -> Json:
        found = finding_of(installed, place, "Unowned", "ci")
        assert found is not None
        status: Json = found["status"]
        assert (status["phase"], status["opening"]) == ("Open", number), status
        return status

    first = opened(1)
    used = 0
    for number, trick in enumerate(("claim", "create anew", "claim"), start=2):
        since = datetime.fromisoformat(opened(number - 1)["opened"])
        eventually(lambda since=since: datetime.now(UTC) > since + timedelta(seconds=2), what="open for 2 s")  # type: ignore[misc]
        if trick == "claim":
            installed.create(claim(place, "attacked"), user=CARLA)
        else:
            installed.delete("serviceaccounts", "ci", place)
        eventually(lambda: phase_of(installed, place, "Unowned", "ci") == "Resolved", what=trick)
        if trick == "claim":
            installed.delete("ownedidentities", "claim", place, user=CARLA)
        else:
            installed.create(scenario.service_account(place, "ci"))
        again = eventually(lambda number=number: opened(number), what=f"opened again after {trick}")  # type: ignore[misc]
        assert again["usedSeconds"] >= used + 1, trick
        used = again["usedSeconds"]
        left = datetime.fromisoformat(again["due"]) - datetime.fromisoformat(again["detected"])
        assert left <= timedelta(seconds=100 - used + 1), trick
    assert first["usedSeconds"] == 0


def test_a_decision_that_comes_after_the_act_does_nothing_and_says_so(installed: Cluster, place: str) -> None:
    govern(installed, place, deadline("LegacyToken", within="1s"), deadline(within="9h", action="Nothing"))
    installed.create(token_secret(place, "late", "ci"))
    eventually(lambda: phase_of(installed, place, "LegacyToken", "late") == "Quarantined", 60, what="the policy's act")
    found = finding_of(installed, place, "LegacyToken", "late")
    held = quarantine_of(installed, place, "late")
    assert found is not None
    assert held is not None
    due = datetime.fromisoformat(found["status"]["due"])
    eventually(lambda: datetime.now(UTC) > due + timedelta(seconds=1), what="a stamp that is later by a second")
    installed.create(verdict(found, "Quarantine", by=JUDY), user=JUDY)
    said = wait_status(
        installed, "identitydecisions", "quarantine", place, outcome="Void", reason="AlreadyDecided", late=True
    )
    assert said["message"]
    now = finding_of(installed, place, "LegacyToken", "late")
    assert now is not None
    assert now["status"]["decision"]["source"] == "Policy"
    assert [act["started"] for act in now["status"]["acts"]] == [act["started"] for act in found["status"]["acts"]]
    still = quarantine_of(installed, place, "late")
    assert still is not None
    assert still["metadata"]["uid"] == held["metadata"]["uid"]
