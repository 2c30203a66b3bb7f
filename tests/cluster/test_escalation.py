"""The escalation ladder on a real API server: accountability climbs while nobody decides, each step once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.support import scenario
from tests.support.cluster import Cluster, eventually
from tests.support.operator import Operator
from tests.support.rest import Json
from tests.support.scenario import claim, claimant, deadline, decider, finding_of, owner, policy, verdict


@pytest.fixture(scope="module")
def operator(installed: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    with Operator(installed.kubeconfig, directory=tmp_path_factory.mktemp("operator")) as started:
        yield started


@pytest.fixture
def place(installed: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace with a label of its own, and owners named after it: `X-owner`, `X-backup`, `X-platform`, …"""
    name = installed.namespace(request.node.name.removeprefix("test_")[:30])
    installed.patch("namespaces", name, {"metadata": {"labels": {"test": name}}})
    yield name
    installed.delete("governancepolicies", name)
    installed.delete_namespace(name)


def owned_token(cluster: Cluster, place: str, within: str, *steps: tuple[str, str], action: str = "Nothing") -> None:
    """A token whose owner has this ladder, under a policy that gives it so long to be decided."""
    entry = deadline("LegacyToken", within=within, action=action)
    scenario.govern(cluster, policy(place, entry, labels={"test": place}, precedence=30))
    for _, to in steps:
        cluster.apply(owner(f"{place}-{to}", contacts=[{"type": "Chat", "value": f"#{to}"}]))
    ladder = [{"after": after, "to": f"{place}-{to}"} for after, to in steps]
    cluster.apply(owner(f"{place}-owner", escalation=ladder))
    claimant(cluster, f"{place}-carla", f"{place}-owner")
    scenario.identity(cluster, place, "ci")
    cluster.create(claim(place, f"{place}-owner"), user=f"{place}-carla")
    cluster.create(scenario.token_secret(place, "ci-token", "ci"))


def status(cluster: Cluster, place: str) -> Json:
    found = finding_of(cluster, place, "LegacyToken", "ci-token")
    return dict(found["status"]) if found else {}


def await_step(cluster: Cluster, place: str, step: int) -> Json:
    def taken() -> Json | None:
        found = status(cluster, place)
        return found if found and found["accountable"]["step"] == step else None

    return eventually(taken, 60, 0.1, what=f"step {step}")


def steps(found: Json) -> list[Json]:
    return [line for line in found["evidence"] if line["source"] == "Escalation"]


def told(cluster: Cluster, place: str) -> Counter[tuple[str, str]]:
    """How often each step was told, by the kind of the object: (kind, "step 1"), …"""
    return Counter(
        (event["involvedObject"]["kind"], event["message"].partition("; ")[2][:6])
        for event in cluster.list("events", place)
        if event["reason"] == "Escalated"
    )


def once(*numbers: int) -> Counter[tuple[str, str]]:
    return Counter((kind, f"step {n}") for n in numbers for kind in ("IdentityFinding", "Secret"))


def test_silence_climbs_from_the_owner_to_the_act(installed: Cluster, operator: Operator, place: str) -> None:
    before = operator.metrics()
    owned_token(installed, place, "8s", ("25%", "platform"), ("60%", "security"), action="Quarantine")
    first = await_step(installed, place, 0)
    assert first["accountable"]["owner"] == f"{place}-owner"
    pending = next(c["message"] for c in first["conditions"] if c["type"] == "DecisionPending")
    assert f"{place}-owner is accountable" in pending
    assert f"-n {place} --reason" in pending

    second = await_step(installed, place, 1)
    assert second["accountable"]["owner"] == f"{place}-platform"
    assert second["due"] == first["due"]
    pending = next(c["message"] for c in second["conditions"] if c["type"] == "DecisionPending")
    assert f"{place}-platform (Chat #platform) is accountable" in pending
    assert await_step(installed, place, 2)["accountable"]["owner"] == f"{place}-security"

    def acted() -> Json | None:
        found = status(installed, place)
        return found if found["phase"] == "Quarantined" else None

    done = eventually(acted, 60, what="the policy's act at the deadline")
    assert done["decision"]["source"] == "Policy"
    assert [line["detail"] for line in steps(done)] == [
        f"step 1 at 25% of the time: {place}-platform",
        f"step 2 at 60% of the time: {place}-security",
    ]
    assert done["accountable"] == {"owner": f"{place}-security", "since": steps(done)[1]["since"], "step": 2}
    assert done["due"] == first["due"]
    eventually(lambda: told(installed, place) == once(1, 2), what="each step told on finding and subject, once")
    after = operator.metrics()
    for step in ("1", "2"):
        risen = after.value("tenure_escalations_total", step=step) - before.value("tenure_escalations_total", step=step)
        assert risen == 1


@pytest.mark.long
def test_a_restart_repeats_no_step_and_misses_none(installed: Cluster, operator: Operator, place: str) -> None:
    owned_token(installed, place, "20s", ("5%", "platform"), ("30%", "security"), ("40%", "board"), ("90%", "last"))
    first = await_step(installed, place, 1)
    eventually(lambda: told(installed, place) == once(1), what="step 1 told")
    operator.kill()
    since = [line["since"] for line in steps(first)]
    operator.start()
    operator.wait_ready()
    third = await_step(installed, place, 3)
    assert [line["since"] for line in steps(third)][:1] == since
    assert len(steps(third)) == 3
    last = await_step(installed, place, 4)
    assert steps(last)[:3] == steps(third)
    eventually(lambda: told(installed, place) == once(1, 2, 3, 4), what="each step told once, over both lives")
    assert last["due"] == first["due"]


def test_a_decision_ends_the_climb(installed: Cluster, operator: Operator, place: str) -> None:
    decider(installed, f"{place}-judy")
    owned_token(installed, place, "5s", ("10%", "platform"), ("90%", "security"))
    await_step(installed, place, 1)
    found = finding_of(installed, place, "LegacyToken", "ci-token")
    assert found is not None
    installed.create(verdict(found, "Quarantine", by=f"{place}-judy"), user=f"{place}-judy")

    def quarantined() -> bool:
        return status(installed, place)["phase"] == "Quarantined"

    eventually(quarantined, what="the verdict's act")
    # A later subject of the same policy comes due: so the first one's second rung has passed too.
    installed.create(scenario.token_secret(place, "later", "ci"))

    def overdue() -> bool:
        later = finding_of(installed, place, "LegacyToken", "later")
        return later is not None and later["status"]["dueOutcome"] == "missed"

    eventually(overdue, 60, what="the later token's deadline")
    found = status(installed, place)
    assert (found["accountable"]["step"], found["decision"]["source"]) == (1, "Verdict")
    assert len(steps(found)) == 1


def test_where_the_next_in_line_is_away_its_stand_in_answers(
    installed: Cluster, operator: Operator, place: str
) -> None:
    installed.apply(owner(f"{place}-backup"))
    owned_token(installed, place, "10s", ("20%", "platform"))
    installed.apply(owner(f"{place}-platform", suspended=True, backup=f"{place}-backup"))
    assert await_step(installed, place, 1)["accountable"]["owner"] == f"{place}-backup"
