"""Exceptions as people decide them: real users with real roles, the operator as its own ServiceAccount.

Who may decide is admission's to say and tested with it; here is what a decision comes to once it exists. What admission
may refuse and the operator voids is tested for its effect alone. Deadlines are of seconds.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.tenure_objects import grant, owner
from tests.cluster.test_commands import tenure
from tests.support import scenario
from tests.support.cluster import REPOSITORY, ApiError, Cluster, eventually, kubectl_binary
from tests.support.operator import Operator
from tests.support.scenario import OPERATOR, claim, deadline, finding_of, phase_of, policy

Json = dict[str, Any]

ALICE, BOB, ANN, SAM = "alice@example.com", "bob@example.com", "ann@example.com", "sam@example.com"
"""Who asks; two of the team; security."""

TEAM: list[Json] = [{"verb": "approve", "count": 1}]
BOTH: list[Json] = [*TEAM, {"verb": "approve-security", "count": 1}]


@pytest.fixture(scope="module")
def running(installed: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    installed.apply(owner("team"))
    with Operator(installed.kubeconfig, directory=tmp_path_factory.mktemp("operator")) as operator:
        yield operator


@pytest.fixture
def governed(installed: Cluster, running: Operator) -> Iterator[Cluster]:
    begun = len(running.logs())
    yield installed
    running.check()
    said = running.logs()[begun:]
    assert "Traceback" not in said
    assert "could not be judged" not in said


@pytest.fixture
def place(governed: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of this test, with everybody's rights in it, labelled with its own name."""
    name = governed.namespace(request.node.name.removeprefix("test_")[:40])
    governed.patch("namespaces", name, {"metadata": {"labels": {"test": name}}})
    grant(governed, name, ALICE, ["create", "get", "patch", "update", "delete"], ["identityexceptions"])
    for person, verbs in {
        ALICE: ["approve"],
        BOB: ["approve", "approve-security", "reject", "attest"],
        ANN: ["approve", "reject", "consult"],
        SAM: ["approve-security", "reject-security", "force"],
    }.items():
        grant(governed, name, person, verbs, ["identityexceptions"])
        grant(governed, name, person, ["create"], ["identitydecisions"])
    grant(governed, name, BOB, ["attest"], ["ownedidentities"])
    yield name
    governed.delete("governancepolicies", name)
    governed.delete_namespace(name)


def asking(cluster: Cluster, place: str, approvals: list[Json], *, spec: Json | None = None, **more: Any) -> None:
    """A policy for this namespace that asks for these approvals of a Migration, and quarantines nothing soon."""
    classes = [{"class": "Migration", "approvals": approvals, **more}]
    given: Json = {"exceptions": {"classes": classes}, "precedence": 500, **(spec or {})}
    deadlines = given.pop("deadlines", [deadline(within="1h", action="Nothing")])
    scenario.govern(cluster, policy(place, *deadlines, labels={"test": place}, **given))


def ask(cluster: Cluster, place: str, called: str = "exception", **spec: Any) -> Json:
    """Alice asks for a waiver of LegacyToken for Secret ci-token."""
    made = scenario.exception(place, "Secret", "ci-token", "LegacyToken", called=called, requestedBy=ALICE, **spec)
    return cluster.create(made, user=ALICE)


def decide(
    cluster: Cluster,
    about: Json,
    verdict: str,
    by: str,
    verb: str | None = None,
    *,
    called: str | None = None,
) -> Json:
    """A decision about this very state of the object."""
    metadata = about["metadata"]
    target = {"kind": about["kind"], "name": metadata["name"], "uid": metadata["uid"]}
    spec: Json = {
        "target": {**target, "generation": metadata["generation"]},
        "verdict": verdict,
        "reason": "tests",
        "by": by,
        **({"verb": verb} if verb else {}),
    }
    named = {"name": called} if called else {"generateName": f"{verdict.lower()}-"}
    manifest = {
        "apiVersion": scenario.API,
        "kind": "IdentityDecision",
        "metadata": {**named, "namespace": metadata["namespace"]},
        "spec": spec,
    }
    return cluster.create(manifest, user=by)


def attempt(cluster: Cluster, about: Json, verdict: str, by: str) -> Json | None:
    """The decision, or None where admission refuses it, as it may do before the operator voids it."""
    try:
        return decide(cluster, about, verdict, by)
    except ApiError:
        return None


def status_of(cluster: Cluster, about: Json) -> Json:
    """The status that the operator wrote for the present spec; {} while there is none."""
    plural = {"OwnedIdentity": "ownedidentities"}.get(about["kind"], f"{about['kind'].lower()}s")
    found = cluster.get(plural, about["metadata"]["name"], about["metadata"]["namespace"]) or {}
    status: Json = found.get("status", {})
    return status if status.get("observedGeneration") == found.get("metadata", {}).get("generation") else {}


def wait_status(cluster: Cluster, about: Json, **fields: Any) -> Json:
    """Waits until these fields of the status have these values."""

    def there() -> Json:
        status = status_of(cluster, about)
        seen = {name: status.get(name) for name in fields}
        assert seen == fields, status
        return status

    what = f"{about['kind']} {about['metadata']['name']}: {fields}"
    return eventually(there, what=what)


def condition(status: Json, kind: str) -> Json:
    return next((found for found in status.get("conditions", ()) if found["type"] == kind), {})


def soon(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


@pytest.fixture
def token(governed: Cluster, place: str) -> str:
    """ServiceAccount ci with the token Secret ci-token."""
    scenario.identity(governed, place, "ci", ["ci-token"])
    return "ci-token"


# --- four patterns


def test_the_team_alone_decides(governed: Cluster, place: str, token: str) -> None:
    asking(governed, place, TEAM)
    eventually(lambda: phase_of(governed, place, "LegacyToken", token) == "Open", what="a finding")
    asked = ask(governed, place)
    pending = wait_status(governed, asked, phase="Pending", reason="AwaitingApproval")
    assert pending["failing"] == "approvals: approve 0 of 1; missing approve"
    command = f"tenure approve identityexception/exception -n {place} --reason …"
    assert f"`{command}`" in condition(pending, "DecisionPending")["message"]

    approval = decide(governed, asked, "Approve", BOB)
    active = wait_status(governed, asked, phase="Active", reason="Approved")
    assert [(c["by"], c["verb"]) for c in active["counted"]] == [(BOB, "approve")]
    assert active["decided"] == approval["metadata"]["creationTimestamp"]
    assert [(m["kind"], m["name"]) for m in active["matched"]] == [("Secret", token)]
    counted = wait_status(governed, approval, outcome="Counted", reason="Approved")
    assert (counted["late"], counted["effect"]) == (False, "IdentityException/exception")
    eventually(lambda: phase_of(governed, place, "LegacyToken", token) == "Excepted", what="the waiver")

    withdrawn = decide(governed, asked, "Reject", ANN)
    wait_status(governed, asked, phase="Withdrawn")
    wait_status(governed, withdrawn, outcome="Counted", reason="Rejected")
    eventually(lambda: phase_of(governed, place, "LegacyToken", token) == "Open", what="the finding is back")


def test_the_team_decides_and_security_may_veto_within_a_window(governed: Cluster, place: str, token: str) -> None:
    asking(governed, place, TEAM, veto={"verb": "reject-security", "within": "4s"})
    vetoed, passed = ask(governed, place, "vetoed"), ask(governed, place, "passed")
    for asked in (vetoed, passed):
        decide(governed, asked, "Approve", BOB)
    veto = decide(governed, vetoed, "Reject", SAM, "reject-security")
    wait_status(governed, veto, outcome="Counted", reason="Rejected")
    assert SAM in wait_status(governed, vetoed, phase="Rejected")["failing"]
    waiting = status_of(governed, passed)
    assert waiting["phase"] in ("Pending", "Active")
    assert waiting["phase"] == "Active" or waiting["failing"].startswith("veto: reject-security may object until")
    active = wait_status(governed, passed, phase="Active")
    stamped = instant(passed["metadata"]["creationTimestamp"])
    assert instant(active["activeSince"]) == stamped + timedelta(seconds=4)
    # The operator reads the time off the API server's answers, to a part of a second; what counts is its stamp.
    eventually(lambda: datetime.now(UTC) > stamped + timedelta(seconds=5), what="the veto's time is over by any clock")
    late = decide(governed, passed, "Reject", SAM, "reject-security")
    wait_status(governed, late, outcome="Void", reason="VetoOver")
    assert status_of(governed, passed)["phase"] == "Active"


def test_who_wipes_managed_fields_shortens_no_veto(governed: Cluster, place: str, token: str) -> None:
    """The API server lets whoever may edit an object wipe or set them, and no generation tells of it."""
    asking(governed, place, TEAM, veto={"verb": "reject-security", "within": "5s"})
    first = ask(governed, place)
    created = datetime.fromisoformat(first["metadata"]["creationTimestamp"])
    eventually(lambda: datetime.now(UTC) > created + timedelta(seconds=6))
    edited = governed.patch("identityexceptions", "exception", {"spec": {"ticket": "T-1"}}, place, user=ALICE)
    decide(governed, edited, "Approve", BOB)
    governed.patch("identityexceptions", "exception", {"metadata": {"managedFields": [{}]}}, place, user=ALICE)
    written = max(entry["time"] for entry in edited["metadata"]["managedFields"])

    status = wait_status(governed, edited, phase="Active")
    assert status["stamped"] == written
    assert instant(status["activeSince"]) == instant(written) + timedelta(seconds=5)


def test_both_must_approve_and_one_person_is_one(governed: Cluster, place: str, token: str) -> None:
    asking(governed, place, BOTH)
    asked = ask(governed, place)
    decide(governed, asked, "Approve", BOB)
    failing = "approvals: approve 1 of 1, approve-security 0 of 1; missing approve-security"
    pending = wait_status(governed, asked, phase="Pending", failing=failing)
    assert "--verb approve-security" in condition(pending, "DecisionPending")["message"]
    second = decide(governed, asked, "Approve", BOB, "approve-security")
    eventually(lambda: "one person fills one place" in status_of(governed, second).get("message", ""), what="an answer")
    assert status_of(governed, second)["outcome"] == ""
    assert status_of(governed, asked)["failing"] == failing
    last = decide(governed, asked, "Approve", SAM, "approve-security")
    active = wait_status(governed, asked, phase="Active")
    assert active["decided"] == last["metadata"]["creationTimestamp"]
    wait_status(governed, second, outcome="Void", reason="NotAsked")


def test_security_may_force_and_the_team_reviews_it(governed: Cluster, place: str, token: str) -> None:
    asking(governed, place, BOTH, veto={"verb": "reject-security", "within": "1h"})
    asked = ask(governed, place)
    force = decide(governed, asked, "Approve", SAM, "force")
    active = wait_status(governed, asked, phase="Active", reason="Forced")
    forced = instant(force["metadata"]["creationTimestamp"])
    assert instant(active["forced"]) == forced
    assert instant(active["reviewDue"]) == forced + timedelta(days=7)
    eventually(lambda: phase_of(governed, place, "LegacyToken", token) == "Excepted", what="the waiver")
    attest = decide(governed, asked, "Attest", BOB)
    counted = wait_status(governed, attest, outcome="Counted", reason="Attested")
    assert counted["attested"]["seen"] == [f"Secret/{token}"]
    reviewed = wait_status(governed, asked, attested=attest["metadata"]["creationTimestamp"])
    assert "reviewDue" not in reviewed


def test_who_is_consulted_is_heard_or_waited_for(governed: Cluster, place: str, token: str) -> None:
    asking(governed, place, TEAM, consult=[{"verb": "consult", "wait": "1h"}])
    asked = ask(governed, place)
    decide(governed, asked, "Approve", BOB)
    pending = wait_status(governed, asked, phase="Pending", reason="Waiting")
    assert "--verb consult" in condition(pending, "DecisionPending")["message"]
    opinion = decide(governed, asked, "Reject", ANN, "consult")
    wait_status(governed, opinion, outcome="Counted", reason="Opinion")
    wait_status(governed, asked, phase="Active")


def test_a_consultation_that_nobody_answers_ends_with_its_wait(governed: Cluster, place: str, token: str) -> None:
    asking(governed, place, TEAM, consult=[{"verb": "consult", "wait": "5s"}])
    asked = ask(governed, place)
    decide(governed, asked, "Approve", BOB)
    active = wait_status(governed, asked, phase="Active", reason="Approved")
    assert instant(active["activeSince"]) == instant(asked["metadata"]["creationTimestamp"]) + timedelta(seconds=5)


def test_a_pipeline_says_for_whom_it_asks_and_that_person_does_not_approve(
    governed: Cluster, place: str, token: str
) -> None:
    classes = [{"class": "Migration", "approvals": TEAM}]
    asking(governed, place, TEAM, spec={"exceptions": {"classes": classes, "requireOnBehalfOf": True}})
    governed.create(scenario.service_account(place, "pipeline"))
    user = f"system:serviceaccount:{place}:pipeline"
    grant(governed, place, user, ["create", "get", "patch"], ["identityexceptions"])
    bearer = governed.token(place, "pipeline")
    made = scenario.exception(place, "Secret", token, "LegacyToken", requestedBy=user)
    asked = governed.create(made, token=bearer)
    pending = wait_status(governed, asked, phase="Pending", reason="AwaitingOnBehalfOf")
    assert pending["failing"].startswith("onBehalfOf: ")
    asked = governed.patch("identityexceptions", "exception", {"spec": {"onBehalfOf": ANN}}, place, token=bearer)
    wait_status(governed, asked, phase="Pending", reason="AwaitingApproval")
    own = attempt(governed, asked, "Approve", ANN)
    if own is not None:
        wait_status(governed, own, outcome="Void", reason="OwnRequest")
    decide(governed, asked, "Approve", BOB)
    wait_status(governed, asked, phase="Active")


# --- what was approved is what is waived


def test_what_a_selector_matched_is_frozen_at_the_first_approval(governed: Cluster, place: str) -> None:
    asking(governed, place, BOTH)
    governed.create(scenario.service_account(place, "ci"))

    def secret(name: str) -> None:
        made = scenario.token_secret(place, name, "ci")
        made["metadata"]["labels"] = {"app": "ci"}
        governed.create(made)

    secret("old")
    asked = ask(governed, place, target={"kind": "Secret", "selector": {"matchLabels": {"app": "ci"}}})
    decide(governed, asked, "Approve", BOB)
    frozen = eventually(lambda: status_of(governed, asked).get("matched"), what="frozen targets")
    assert [found["name"] for found in frozen] == ["old"]
    secret("new")
    eventually(lambda: phase_of(governed, place, "LegacyToken", "new") == "Open", what="the new one's finding")
    decide(governed, asked, "Approve", SAM, "approve-security")
    wait_status(governed, asked, phase="Active")
    eventually(lambda: phase_of(governed, place, "LegacyToken", "old") == "Excepted", what="the waiver")
    assert phase_of(governed, place, "LegacyToken", "new") == "Open"

    governed.delete("secrets", "old", place)
    eventually(lambda: governed.get("secrets", "old", place) is None, what="it is gone")
    status = eventually(lambda: condition(status_of(governed, asked), "Unneeded"), what="it is unneeded")
    assert status["reason"] == "TargetGone"
    secret("old")
    eventually(lambda: phase_of(governed, place, "LegacyToken", "old") == "Open", what="a namesake is not covered")


def test_an_edit_voids_the_approvals_and_an_identical_apply_changes_nothing(
    governed: Cluster, place: str, token: str
) -> None:
    asking(governed, place, BOTH)
    asked = ask(governed, place)
    first = decide(governed, asked, "Approve", BOB)
    wait_status(governed, first, outcome="Counted")
    again = {"metadata": {"labels": {"pipeline": "1"}}, "spec": asked["spec"]}
    same = governed.patch("identityexceptions", "exception", again, place, user=ALICE)
    assert same["metadata"]["generation"] == 1
    decide(governed, same, "Approve", SAM, "approve-security")
    wait_status(governed, asked, phase="Active")

    change = {"spec": {"justification": "another one"}}
    edited = governed.patch("identityexceptions", "exception", change, place, user=ALICE)
    status = wait_status(governed, edited, phase="Pending")
    assert (status["failing"].split(";")[0], status.get("counted", [])) == (
        "approvals: approve 0 of 1, approve-security 0 of 1",
        [],
    )
    eventually(lambda: phase_of(governed, place, "LegacyToken", token) == "Open", what="the finding is back")
    stale = attempt(governed, asked, "Approve", ANN)
    if stale is not None:
        wait_status(governed, stale, outcome="Void", reason="StaleTarget")
    assert status_of(governed, first)["outcome"] == "Counted", "what it did is not rewritten"


def test_nobody_approves_what_they_requested(governed: Cluster, place: str, token: str) -> None:
    asking(governed, place, TEAM)
    asked = ask(governed, place, onBehalfOf=ANN)
    for author in (ALICE, ANN):
        own = attempt(governed, asked, "Approve", author)
        if own is not None:
            wait_status(governed, own, outcome="Void", reason="OwnRequest")
    assert wait_status(governed, asked, phase="Pending")["failing"].startswith("approvals: approve 0 of 1")


def test_the_operator_judges_what_admission_could_not_know(governed: Cluster, running: Operator, place: str) -> None:
    """While it is down admission knows the state that it was told last. Who edits then, and who approves what is no
    longer so, is told when it is back."""
    asking(governed, place, TEAM)
    grant(governed, place, BOB, ["get", "patch"], ["identityexceptions"])
    stale, own = ask(governed, place, "stale"), ask(governed, place, "own")
    for asked in (stale, own):
        wait_status(governed, asked, phase="Pending")

    def known() -> bool:
        guard = governed.get("quarantineguards", "decisions", place) or {}
        return {"stale", "own"} <= guard.get("spec", {}).get("exceptions", {}).keys()

    eventually(known, what="admission knows of both")
    running.kill()
    governed.patch("identityexceptions", "stale", {"spec": {"justification": "more"}}, place, user=ALICE)
    change = {"spec": {"justification": "mine", "requestedBy": BOB}}
    edited = governed.patch("identityexceptions", "own", change, place, user=BOB)
    late, self_made = decide(governed, stale, "Approve", BOB), decide(governed, edited, "Approve", BOB)
    running.start().wait_ready()
    wait_status(governed, late, outcome="Void", reason="StaleTarget")
    wait_status(governed, self_made, outcome="Void", reason="OwnRequest")
    for name in ("stale", "own"):
        found = governed.get("identityexceptions", name, place)
        assert found is not None
        assert wait_status(governed, found, phase="Pending")["failing"].startswith("approvals: approve 0 of 1")


ROUNDS, AT_ONCE = 50, 20
"""1,000 tries: so many exceptions, and each that often."""


@pytest.mark.long
def test_approvals_racing_edits_never_approve_what_they_did_not_name(governed: Cluster, place: str) -> None:
    asking(governed, place, TEAM)
    standing = [ask(governed, place, f"race-{number}") for number in range(AT_ONCE)]
    seen: dict[tuple[str, int], set[str]] = {}
    """(exception, generation) that was seen Active -> the decisions that counted for it."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.1):
            for found in governed.list("identityexceptions", place):
                status = found.get("status", {})
                if status.get("phase") == "Active":
                    counted = {entry["decision"] for entry in status["counted"]}
                    seen[found["metadata"]["name"], status["observedGeneration"]] = counted

    def approve(asked: Json) -> Json | None:
        return attempt(governed, asked, "Approve", BOB)

    def edit(asked: Json, text: str) -> Json:
        change = {"spec": {"justification": text}}
        return governed.patch("identityexceptions", asked["metadata"]["name"], change, place, user=ALICE)

    made: list[Json | None] = []
    with ThreadPoolExecutor(9) as pool:
        watcher = pool.submit(look)
        for number in range(ROUNDS):
            # Whichever comes first: in every other round the edit is sent before the approval.
            first, second = (approve, edit) if number % 2 else (edit, approve)
            tries = []
            for asked in standing:
                pair = [
                    pool.submit(race, asked, f"edit {number}") if race is edit else pool.submit(race, asked)
                    for race in (first, second)
                ]
                tries.append(pair if number % 2 else pair[::-1])
            made += [approval.result() for approval, _ in tries]
            standing = [edited.result() for _, edited in tries]
        over.set()
        watcher.result()
    assert len(made) == ROUNDS * AT_ONCE

    named = {
        decision["metadata"]["name"]: (decision["spec"]["target"]["name"], decision["spec"]["target"]["generation"])
        for decision in made
        if decision is not None
    }
    assert named, "some came first"
    for state, counted in seen.items():
        assert counted, state
        assert {named[decision] for decision in counted} == {state}, "an approval for what it did not name"
    for asked in standing:
        status = wait_status(governed, asked, phase="Pending")
        assert status["observedGeneration"] == ROUNDS + 1
        assert status["failing"].startswith("approvals: approve 0 of 1"), "the edit came last, and nobody named it"

    def answered() -> bool:
        ledger = governed.list("identitydecisions", place)
        return all(found.get("status", {}).get("outcome") in ("Counted", "Void") for found in ledger)

    eventually(answered, 120, what="an outcome for every decision")
    last = decide(governed, standing[0], "Approve", BOB)
    wait_status(governed, standing[0], phase="Active")
    wait_status(governed, last, outcome="Counted")


def test_renewals_outlive_the_exception_its_name_its_target_and_the_operator(
    governed: Cluster, running: Operator, place: str, token: str
) -> None:
    asking(governed, place, TEAM, maxRenewals=1)
    eventually(lambda: phase_of(governed, place, "LegacyToken", token) == "Open", what="a finding")

    def granted(called: str, days: int) -> Json:
        asked = ask(governed, place, called, expiresAt=soon(days * 86_400))
        decide(governed, asked, "Approve", BOB)
        return asked

    def renewals() -> int:
        found = finding_of(governed, place, "LegacyToken", token)
        assert found is not None
        assert found["status"]["phase"] == "Excepted"
        return int(found["status"]["debt"].get("renewals", 0))

    first = granted("first", 1)
    wait_status(governed, first, phase="Active", renewals=0)
    eventually(lambda: phase_of(governed, place, "LegacyToken", token) == "Excepted", what="the waiver")
    governed.delete("identityexceptions", "first", place, user=ALICE)
    governed.delete("secrets", token, place)
    eventually(lambda: phase_of(governed, place, "LegacyToken", token) == "Resolved", what="its end")
    governed.create(scenario.token_secret(place, token, "ci"))
    eventually(lambda: phase_of(governed, place, "LegacyToken", token) == "Open", what="it is back")
    second = granted("renamed", 2)
    wait_status(governed, second, phase="Active")
    eventually(lambda: renewals() == 1, what="the renewal is counted")
    wait_status(governed, second, renewals=1)
    running.restart()
    governed.delete("identityexceptions", "renamed", place, user=ALICE)
    third = granted("once-more", 3)
    refused = wait_status(governed, third, phase="Pending", reason="TooManyRenewals")
    assert refused["failing"] == f"renewals: LegacyToken of Secret/{token} was renewed 1 times, Migration allows 1"
    shorter = granted("no-later", 1)
    wait_status(governed, shorter, phase="Active")


@pytest.mark.parametrize("choice", ["ContinueClock", "RestartClock"])
def test_when_it_lapses_the_clock_goes_on_or_starts_anew_as_the_policy_says(
    governed: Cluster, place: str, token: str, choice: str
) -> None:
    exceptions = {"classes": [{"class": "Migration", "approvals": TEAM}], "onLapse": choice}
    asking(governed, place, TEAM, spec={"exceptions": exceptions, "deadlines": [deadline(within="100s")]})

    def opened(number: int) -> Json:
        found = finding_of(governed, place, "LegacyToken", token)
        assert found is not None
        status: Json = found["status"]
        assert (status["phase"], status["opening"]) == ("Open", number)
        return status

    first = eventually(lambda: opened(1), what="a finding")
    eventually(lambda: datetime.now(UTC) > instant(first["opened"]) + timedelta(seconds=3), what="open for 3 s")
    end = soon(5)
    decide(governed, ask(governed, place, expiresAt=end), "Approve", BOB)
    eventually(lambda: phase_of(governed, place, "LegacyToken", token) == "Excepted", what="the waiver")
    again = eventually(lambda: opened(2), 60, what="it is back")
    assert instant(again["opened"]) >= instant(end)
    left = instant(again["due"]) - instant(again["detected"])
    used = again["usedSeconds"]
    assert (used >= 2) == (choice == "ContinueClock")
    assert timedelta(seconds=100 - used - 1) <= left <= timedelta(seconds=100 - used + 1)
    lapsed = eventually(lambda: finding_of(governed, place, "ExceptionLapsed", "exception"), what="ExceptionLapsed")
    assert lapsed["status"]["onDeadline"] == "Nothing"


def test_what_no_finding_needs_any_more_says_so(governed: Cluster, place: str, token: str) -> None:
    asking(governed, place, TEAM)
    eventually(lambda: phase_of(governed, place, "Unowned", "ci") == "Open", what="a finding")
    asked = ask(governed, place, target={"kind": "ServiceAccount", "name": "ci"}, rules=["Unowned"])
    decide(governed, asked, "Approve", BOB)
    eventually(lambda: phase_of(governed, place, "Unowned", "ci") == "Excepted", what="the waiver")
    assert not condition(wait_status(governed, asked, phase="Active"), "Unneeded")
    governed.create(claim(place, "team"))
    unneeded = eventually(lambda: condition(status_of(governed, asked), "Unneeded"), what="it is unneeded")
    assert unneeded["reason"] == "NoFinding"
    assert "Delete it" in unneeded["message"]
    assert status_of(governed, asked)["phase"] == "Active", "a condition, not a phase"
    governed.delete("ownedidentities", "claim", place)
    eventually(lambda: not condition(status_of(governed, asked), "Unneeded"), what="it is needed again")


def test_what_the_policy_no_longer_allows_says_so_and_goes_on(governed: Cluster, place: str, token: str) -> None:
    asking(governed, place, TEAM)
    asked = ask(governed, place)
    decide(governed, asked, "Approve", BOB)
    eventually(lambda: phase_of(governed, place, "LegacyToken", token) == "Excepted", what="the waiver")
    for approvals, more, clause in (
        (BOTH, {}, "approvals: approve 1 of 1, approve-security 0 of 1; missing approve-security"),
        (TEAM, {"maxDuration": "1h"}, "expiresAt: Migration may last 1h"),
    ):
        asking(governed, place, approvals, **more)
        disallowed = eventually(
            lambda clause=clause: (  # type: ignore[misc]
                (found := condition(status_of(governed, asked), "Disallowed")) and clause in found["message"] and found
            ),
            what=clause,
        )
        assert disallowed["reason"] == "PolicyChanged"
        assert status_of(governed, asked)["phase"] == "Active"
        assert phase_of(governed, place, "LegacyToken", token) == "Excepted"
    asking(governed, place, TEAM)
    eventually(lambda: not condition(status_of(governed, asked), "Disallowed"), what="it is allowed again")


def test_classes_are_counted_apart(governed: Cluster, running: Operator, place: str, token: str) -> None:
    classes = [{"class": name, "approvals": TEAM} for name in ("Migration", "BreakGlass")]
    asking(governed, place, TEAM, spec={"exceptions": {"classes": classes}})
    governed.create(scenario.token_secret(place, "second", "ci"))
    for name in (token, "second"):
        eventually(lambda name=name: phase_of(governed, place, "LegacyToken", name) == "Open", what="a finding")  # type: ignore[misc]
    before = running.metrics()
    latency = "tenure_decision_latency_seconds_count"

    def risen(name: str, **labels: str) -> float:
        return running.metrics().value(name, **labels) - before.value(name, **labels)

    for name, class_ in ((token, "Migration"), ("second", "BreakGlass")):
        target = {"kind": "Secret", "name": name}
        spec = {"target": target, "class": class_, "expiresAt": soon(3600)}
        decide(governed, ask(governed, place, name, **spec), "Approve", BOB)
        eventually(lambda name=name: phase_of(governed, place, "LegacyToken", name) == "Excepted", what="the waiver")  # type: ignore[misc]
        eventually(lambda class_=class_: risen(latency, source="Exception", **{"class": class_}) == 1, what=class_)  # type: ignore[misc]
        there = {"class": class_, "phase": "Active"}
        eventually(lambda there=there: running.metrics().value("tenure_exceptions", **there) >= 1, what=class_)  # type: ignore[misc]
        found = finding_of(governed, place, "LegacyToken", name)
        assert found is not None
        assert found["status"]["decision"]["class"] == class_
    assert risen(latency, source="Exception", **{"class": "Standard"}) == 0
    assert risen(latency, source="Exception") == 2


# --- time, and the ledger


def test_a_decision_made_while_the_operator_is_down_counts_as_made_in_time(
    governed: Cluster, running: Operator, place: str
) -> None:
    asking(governed, place, TEAM, spec={"deadlines": [deadline("LegacyToken", within="8s")]})
    eventually(
        lambda: (governed.get("governancepolicies", place) or {}).get("status", {}).get("enforcing") == 1,
        what="the policy is in force",
    )
    token = "ci-token"
    governed.create(claim(place, "team"))
    scenario.identity(governed, place, "ci", [token])
    eventually(lambda: phase_of(governed, place, "LegacyToken", token) == "Open", what="a finding")
    asked = ask(governed, place)
    wait_status(governed, asked, phase="Pending")
    due = instant(finding_of(governed, place, "LegacyToken", token)["status"]["due"])  # type: ignore[index]
    running.kill()
    approval = decide(governed, asked, "Approve", BOB)
    assert instant(approval["metadata"]["creationTimestamp"]) <= due
    eventually(lambda: datetime.now(UTC) > due + timedelta(seconds=1), what="the deadline passes")
    running.start().wait_ready()
    eventually(lambda: phase_of(governed, place, "LegacyToken", token) == "Excepted", what="the waiver")
    counted = wait_status(governed, approval, outcome="Counted")
    assert (counted["late"], instant(counted["deadline"])) == (False, due)
    assert not scenario.quarantine_of(governed, place, token), "the decision came first"
    status = wait_status(governed, asked, phase="Active")
    assert status["decided"] == approval["metadata"]["creationTimestamp"]
    assert status["activeSince"] == approval["metadata"]["creationTimestamp"]


def test_the_ledger_says_who_decided_what_and_with_what_effect(governed: Cluster, place: str, token: str) -> None:
    asking(governed, place, TEAM)
    eventually(lambda: phase_of(governed, place, "LegacyToken", token) == "Open", what="a finding")
    asked = ask(governed, place)
    decide(governed, asked, "Approve", BOB, called="yes")
    wait_status(governed, asked, phase="Active")
    decide(governed, asked, "Approve", ANN, called="also")
    eventually(
        lambda: (governed.get("identitydecisions", "also", place) or {}).get("status", {}).get("outcome"), what="it"
    )
    printed = governed.kubectl("get", "identitydecisions", "-n", place).stdout.splitlines()
    heading = printed[0].split()
    assert heading[:2] == ["NAME", "VERDICT"]
    rows = {line.split()[0]: line.split() for line in printed[1:]}
    told = ["Approve", "IdentityException", "exception", BOB, "approve", "Counted", "false", "Approved"]
    assert rows["yes"][1:9] == told, "the right too, though the decision names none"
    assert rows["also"][6:9] == ["Void", "false", "NotAsked"]

    wide = governed.kubectl("get", "identitydecisions", "yes", "-n", place, "-o", "wide").stdout.splitlines()
    starts = [(found.start(), found[0]) for found in re.finditer(r"\S+(?: \S+)*", wide[0])]
    ends = [start for start, _ in starts[1:]] + [None]
    seen = {name: wide[1][start:end].strip() for (start, name), end in zip(starts, ends, strict=True)}
    made = governed.get("identitydecisions", "yes", place)
    found = finding_of(governed, place, "LegacyToken", token)
    assert made is not None
    assert found is not None
    assert seen["DECIDED"] == made["metadata"]["creationTimestamp"], "when, as the API server stamped it"
    assert (seen["DEADLINE"], seen["LATE"]) == (found["status"]["due"], "false")
    assert seen["LED TO"] == "IdentityException/exception"
    assert seen["GRANTED BY"] == made["spec"].get("grantedBy", "")
    assert seen["REASON"] == "tests"


def test_the_ledger_ends_with_its_retention_and_never_before_what_rests_on_it(
    governed: Cluster, place: str, token: str
) -> None:
    asking(governed, place, TEAM, spec={"retention": {"decisions": "3s"}})
    asked = ask(governed, place)
    kept = decide(governed, asked, "Approve", BOB)
    wait_status(governed, asked, phase="Active")
    idle = decide(governed, asked, "Approve", ANN)

    def there(decision: Json) -> bool:
        return governed.get("identitydecisions", decision["metadata"]["name"], place) is not None

    eventually(lambda: not there(idle), what="the void one is gone")
    assert there(kept)
    governed.delete("identityexceptions", "exception", place, user=ALICE)
    eventually(lambda: not there(kept), what="nothing rests on it any more")


def test_the_guard_on_decisions_follows_and_comes_back(governed: Cluster, place: str) -> None:
    asked = ask(governed, place)
    uid = asked["metadata"]["uid"]

    def entry() -> Json:
        guard = governed.get("quarantineguards", "decisions", place) or {}
        found: Json = guard.get("spec", {}).get("exceptions", {}).get("exception", {})
        return found

    eventually(lambda: entry().get("generation") == 1, what="an entry")
    assert (entry()["uid"], entry()["requestedBy"]) == (uid, ALICE)
    governed.patch("identityexceptions", "exception", {"spec": {"justification": "more"}}, place, user=ALICE)
    eventually(lambda: entry().get("generation") == 2, what="the next generation")
    governed.delete("quarantineguards", "decisions", place, user=OPERATOR)
    eventually(lambda: entry().get("generation") == 2, what="it is written again")
    governed.delete("identityexceptions", "exception", place, user=ALICE)
    eventually(lambda: governed.get("quarantineguards", "decisions", place) is None, what="nothing is left to say")


# --- reviews


def test_a_missed_review_of_a_claim_is_a_finding_until_somebody_attests(
    governed: Cluster, running: Operator, place: str
) -> None:
    asking(governed, place, TEAM, spec={"deadlines": [deadline("ReviewOverdue", within="2h", action="Nothing")]})
    governed.create(scenario.service_account(place, "ci"))
    made = governed.create(claim(place, "team", review={"interval": "6s"}))
    due = instant(wait_status(governed, made, accountable="team")["reviewDue"])
    assert due == instant(made["metadata"]["creationTimestamp"]) + timedelta(seconds=6)
    eventually(lambda: phase_of(governed, place, "ReviewOverdue", "claim") == "Open", what="the finding")
    found = finding_of(governed, place, "ReviewOverdue", "claim")
    assert found is not None
    assert (found["status"]["risk"]["level"], found["status"]["onDeadline"]) == ("Low", "Nothing")
    eventually(lambda: running.metrics().value("tenure_reviews", state="Overdue") >= 1, what="it is counted")
    asked = instant(found["status"]["due"]) - instant(found["status"]["detected"])
    assert timedelta(0) <= asked - timedelta(hours=2) <= timedelta(seconds=1), "the policy's entry for that rule"
    pending = condition(wait_status(governed, made, accountable="team"), "DecisionPending")
    assert pending["reason"] == "AwaitingReview"
    assert f"`tenure attest ownedidentity/claim -n {place} --reason …`" in pending["message"]

    eventually(lambda: datetime.now(UTC) >= due + timedelta(seconds=1), what="a stamp that is later by a second")
    attest = decide(governed, governed.get("ownedidentities", "claim", place) or {}, "Attest", BOB)
    counted = wait_status(governed, attest, outcome="Counted", reason="Attested")
    assert (counted["late"], instant(counted["deadline"])) == (True, due)
    assert counted["attested"] == {
        "generation": 1,
        "serviceAccounts": counted["attested"]["serviceAccounts"],
        "secrets": 0,
        "entitlements": 0,
        "seen": counted["attested"]["seen"],
    }
    assert "ServiceAccount/ci" in counted["attested"]["seen"]
    stamp = attest["metadata"]["creationTimestamp"]
    status = wait_status(governed, made, attested=stamp, attestedBy=BOB)
    assert instant(status["reviewDue"]) == instant(stamp) + timedelta(seconds=6)


def test_a_missed_review_of_an_exception_is_a_finding_until_somebody_attests(
    governed: Cluster, place: str, token: str
) -> None:
    asking(governed, place, TEAM)
    asked = ask(governed, place, reviewBy=soon(3))
    decide(governed, asked, "Approve", BOB)
    wait_status(governed, asked, phase="Active")
    eventually(lambda: phase_of(governed, place, "ReviewOverdue", "exception") == "Open", what="the finding")
    assert phase_of(governed, place, "LegacyToken", token) == "Excepted", "it escalates and enforces nothing"
    decide(governed, asked, "Attest", BOB)
    eventually(lambda: phase_of(governed, place, "ReviewOverdue", "exception") == "Resolved", what="reviewed")
    assert "reviewDue" not in status_of(governed, asked)


def test_a_review_falls_due_only_where_there_is_something_to_decide(governed: Cluster, place: str, token: str) -> None:
    asking(governed, place, TEAM)
    for name, accounts in (("empty", ["nobody"]), ("full", ["ci"])):
        governed.create(claim(place, "team", name=name, accounts=accounts, review={"interval": "2s"}))
    pending = ask(governed, place, reviewBy=soon(2))
    eventually(lambda: phase_of(governed, place, "ReviewOverdue", "full") == "Open", what="the finding")
    wait_status(governed, pending, phase="Pending")
    for kind, name in (("ownedidentities", "empty"), ("identityexceptions", "exception")):
        found = governed.get(kind, name, place)
        assert found is not None
        assert "reviewDue" not in found["status"]
        assert phase_of(governed, place, "ReviewOverdue", name) == ""
    # Once it covers something, it is due like the other.
    governed.create(scenario.service_account(place, "nobody"))
    eventually(lambda: phase_of(governed, place, "ReviewOverdue", "empty") == "Open", what="the finding")


def test_the_commands_in_conditions_decide(governed: Cluster, place: str, token: str) -> None:
    """As they stand there, but for the reason: what is undecided, pending, or to be reviewed."""
    asking(governed, place, TEAM)
    for verbs, resources in (
        (["get", "list"], ["identityexceptions", "ownedidentities", "identityfindings", "identitydecisions"]),
        (["quarantine"], ["identityfindings"]),
    ):
        grant(governed, place, BOB, verbs, resources)
    eventually(lambda: phase_of(governed, place, "LegacyToken", token) == "Open", what="a finding")
    governed.create(claim(place, "team", review={"interval": "1s"}))
    asked = ask(governed, place)
    unclaimed = finding_of(governed, place, "LegacyToken", token)
    assert unclaimed is not None
    for kind, name, word in (
        ("identityexceptions", asked["metadata"]["name"], "Approve"),
        ("ownedidentities", "claim", "Attest"),
        ("identityfindings", unclaimed["metadata"]["name"], "Quarantine"),
    ):

        def command(kind: str = kind, name: str = name) -> str:
            found = governed.get(kind, name, place) or {}
            said = condition(found.get("status", {}), "DecisionPending").get("message", "")
            return next((text for text in re.findall(r"`(tenure [^`]+)`", said)), "")

        order = shlex.split(eventually(command, what=f"a command on {name}"))
        assert order[-2:] in (["--reason", "…"], ["--reason", "WHY"])
        done = tenure(governed.user(BOB), *order[1:-1], "tests", "--timeout", "30")
        assert done.returncode == 0, done.stdout + done.stderr
        made = [found for found in governed.list("identitydecisions", place) if found["spec"]["verdict"] == word]
        assert [found["status"]["outcome"] for found in made] == ["Counted"]
        if kind == "identityexceptions":  # so that there is something to quarantine
            governed.delete("identityexceptions", name, place, user=ALICE)
            eventually(lambda: phase_of(governed, place, "LegacyToken", token) == "Open", what="the finding is back")


def test_the_documented_way_with_kubectl_decides(governed: Cluster, place: str, token: str) -> None:
    """The block of docs/decision-rights.md as it stands there, but for the namespace."""
    asking(governed, place, TEAM)
    grant(governed, place, BOB, ["get", "list"], ["identityexceptions", "identitydecisions"])
    asked = ask(governed, place, "ci-token")
    wait_status(governed, asked, phase="Pending")
    text = (REPOSITORY / "docs" / "decision-rights.md").read_text()
    [block] = [found for found in re.findall(r"```sh\n(.*?)```", text, re.S) if "kubectl create -f -" in found]
    path = os.pathsep.join([str(Path(kubectl_binary()).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-euc", re.sub(r"\bpayments\b", place, block)],
        env={**os.environ, "KUBECONFIG": str(governed.user(BOB)), "PATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    wait_status(governed, asked, phase="Active", reason="Approved")
    [made] = governed.list("identitydecisions", place)
    assert made["metadata"]["name"] in done.stdout
    assert made["spec"]["by"] == BOB
