"""Clocks that jump: the operator's own, and the API server's as its answers tell it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support import scenario
from tests.support.cluster import Cluster, eventually
from tests.support.operator import Operator
from tests.support.proxy import FaultProxy
from tests.support.scenario import HOME, claim, deadline, exception, finding_of, owner, phase_of, policy

Json = dict[str, Any]

WRONG_CLOCK = """import time
_right = time.time
time.time = lambda: _right() + {seconds}
"""
"""A sitecustomize.py: Python then tells this time wherever the program asks it for the machine's."""


@pytest.fixture
def place(installed: Cluster, namespace: str) -> Iterator[str]:
    """A namespace with an owner whose ladder has steps after one and five of the ten hours that a decision may take,
    and where a token is due for quarantine then; another token of it is waived for three hours."""
    installed.patch("namespaces", namespace, {"metadata": {"labels": {"test": namespace}}})
    classes = [{"class": "Migration", "approvals": []}]
    installed.create(
        policy(
            namespace,
            deadline(within="10h"),
            labels={"test": namespace},
            precedence=70,
            exceptions={"classes": classes},
        )
    )
    team = namespace[-20:].strip("-")
    steps = [{"after": "10%", "to": f"{team}-second"}, {"after": "50%", "to": f"{team}-third"}]
    for name, spec in ((team, {"escalation": steps}), (f"{team}-second", {}), (f"{team}-third", {})):
        installed.apply(owner(name, **spec))
    scenario.identity(installed, namespace, "ci", ["open", "waived"])
    installed.create(claim(namespace, team))
    end = (datetime.now(UTC) + timedelta(hours=3)).strftime("%Y-%m-%dT%H:%M:%SZ")
    spec = {"owner": team, "expiresAt": end, "requestedBy": installed.username()}
    installed.create(exception(namespace, "Secret", "waived", "LegacyToken", **spec))
    yield namespace
    installed.delete("governancepolicies", namespace)


def status(cluster: Cluster, place: str, name: str) -> Json:
    found = finding_of(cluster, place, "LegacyToken", name)
    return dict(found["status"]) if found else {}


def settled(cluster: Cluster, place: str) -> Json:
    """The status of the open one, once both are as they should be."""
    eventually(lambda: phase_of(cluster, place, "LegacyToken", "waived") == "Excepted", 60, what="the waiver")
    return eventually(lambda: status(cluster, place, "open"), what="a finding")


@pytest.mark.parametrize("years", [3, -3])
def test_a_machine_whose_clock_is_wrong_by_years_keeps_every_date(
    installed: Cluster, place: str, tmp_path: Path, years: int
) -> None:
    """In a process of its own: a forked one has read its clock before."""
    wrong = timedelta(days=365 * years)
    (tmp_path / "sitecustomize.py").write_text(WRONG_CLOCK.format(seconds=wrong.total_seconds()))
    with Operator(installed.kubeconfig, environment={"PYTHONPATH": str(tmp_path)}) as running:
        keeps_every_date(running, installed, place, wrong)


def keeps_every_date(running: Operator, installed: Cluster, place: str, wrong: timedelta) -> None:
    assert str((datetime.now(UTC) + wrong).year) in running.logs(), "its clock is wrong"
    found = settled(installed, place)
    assert abs(datetime.fromisoformat(found["detected"]) - datetime.now(UTC)) < timedelta(minutes=5)
    left = datetime.fromisoformat(found["due"]) - datetime.fromisoformat(found["detected"])
    assert timedelta(hours=10) <= left <= timedelta(hours=10, seconds=1)
    assert (found["phase"], found["accountable"]["step"]) == ("Open", 0)
    waived = installed.get("identityexceptions", "exception", place)
    assert waived is not None
    assert waived["status"]["phase"] == "Active"
    assert installed.list("quarantines", place) == []


def told(cluster: Cluster, place: str, finding: str) -> Counter[str]:
    """How often a step of the open token was told, by the kind of the object."""
    mine = {("Secret", "open"), ("IdentityFinding", finding)}
    return Counter(
        event["involvedObject"]["kind"]
        for event in cluster.list("events", place)
        if event["reason"] == "Escalated" and (event["involvedObject"]["kind"], event["involvedObject"]["name"]) in mine
    )


def test_an_api_server_whose_clock_jumps_ahead_and_back_repeats_no_step_and_moves_no_deadline(
    installed: Cluster, operator: Callable[..., Operator], place: str
) -> None:
    """Four hours ahead, twice: the first step is taken once, and the waiver that is over by then waives again after."""
    made = 0

    def jump(by: timedelta) -> None:
        """Sets the clock. The operator reads it off the answers to its writes, and stamps something new with it."""
        proxy.skew = by

        def seen() -> bool:
            nonlocal made
            made += 1
            name = f"new-{made}"
            installed.create(scenario.token_secret(place, name, "ci"))
            detected = eventually(lambda: status(installed, place, name).get("detected"), what="a finding")
            return abs(datetime.fromisoformat(detected) - datetime.now(UTC) - by) < timedelta(minutes=5)

        eventually(seen, 60, what="the operator has seen the jump")
        poke = {"metadata": {"labels": {"poke": str(made)}}}
        for kind, name in (("secrets", "open"), ("secrets", "waived"), ("identityexceptions", "exception")):
            installed.patch(kind, name, poke, place)

    def is_phase(waived: str, exempted: str) -> bool:
        found = installed.get("identityexceptions", "exception", place)
        assert found is not None
        return (phase_of(installed, place, "LegacyToken", "waived"), found["status"]["phase"]) == (waived, exempted)

    with FaultProxy.to(installed) as proxy:
        operator(installed.token_kubeconfig(HOME, "tenure", server=proxy.url))
        first = settled(installed, place)
        steps = []
        for _ in range(2):
            jump(timedelta(hours=4))
            eventually(lambda: is_phase("Open", "Expired"), 60, what="the waiver is over by that clock")
            eventually(lambda: status(installed, place, "open")["accountable"]["step"] == 1, 60, what="step 1")
            steps.append(status(installed, place, "open")["accountable"])
            jump(timedelta(0))
            eventually(lambda: is_phase("Excepted", "Active"), 60, what="it waives again")
            steps.append(status(installed, place, "open")["accountable"])
        last = status(installed, place, "open")
        assert steps == [steps[0]] * 4, "one step, since its own instant"
        assert (last["phase"], last["due"], last["opening"]) == ("Open", first["due"], 1)
        assert [line["source"] for line in last["evidence"]].count("Escalation") == 1
        debt = status(installed, place, "waived")["debt"]
        assert debt["renewals"] == 0, "the same waiver is none anew"
        name = finding_of(installed, place, "LegacyToken", "open")["metadata"]["name"]  # type: ignore[index]
        eventually(lambda: told(installed, place, name) == Counter(Secret=1, IdentityFinding=1), what="told once")
        assert installed.list("quarantines", place) == []


def test_what_is_due_in_months_is_noticed_then(
    installed: Cluster, operator: Callable[..., Operator], place: str
) -> None:
    """No instant so far ahead is kept, and nothing happens to it meanwhile: it is everything's turn that comes."""
    installed.create(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/basic-auth",
            "metadata": {"name": "far", "namespace": place},
            "stringData": {"username": "far", "password": "example"},
        }
    )
    with FaultProxy.to(installed) as proxy:
        operator(installed.token_kubeconfig(HOME, "tenure", server=proxy.url))
        settled(installed, place)
        assert not [f for f in installed.list("identityfindings", place) if f["spec"]["subject"]["name"] == "far"]
        proxy.skew = timedelta(days=366)

        # The operator reads the clock off the answers to its writes, such as to that of a finding.
        installed.create(scenario.token_secret(place, "new", "ci"))
        eventually(lambda: finding_of(installed, place, "CredentialTooOld", "far"), 60, what="its age is noticed")
