"""Verdicts by people on a real API server: decided with its stamp, carried out at once, held where nothing enforces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support import scenario
from tests.support.cluster import ApiError, Cluster, eventually
from tests.support.operator import Operator
from tests.support.rest import Json
from tests.support.scenario import (
    claim,
    claimant,
    deadline,
    decider,
    exception,
    finding_of,
    owner,
    policy,
    quarantine_of,
    token_of,
    token_secret,
    verdict,
)

LATER = "90d"
NO_APPROVAL = {"classes": [{"class": "Migration", "approvals": []}]}


@pytest.fixture(scope="module")
def operator(installed: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """One operator; judy may give every verdict on findings and Quarantines, carla may claim for `judged`."""
    installed.apply(owner("judged"))
    claimant(installed, "verdicts-carla", "judged")
    decider(installed, "judy")
    with Operator(installed.kubeconfig, directory=tmp_path_factory.mktemp("operator")) as started:
        yield started


@pytest.fixture
def place(installed: Cluster, operator: Operator, request: pytest.FixtureRequest) -> Iterator[str]:
    name = installed.namespace(request.node.name.removeprefix("test_")[:30])
    installed.patch("namespaces", name, {"metadata": {"labels": {"test": name}}})
    yield name
    if installed.get("governancepolicies", name):
        installed.delete("governancepolicies", name)
    installed.delete_namespace(name)


def govern(cluster: Cluster, place: str, *deadlines: Json, **spec: Any) -> None:
    scenario.govern(cluster, policy(place, *deadlines, labels={"test": place}, precedence=31, **spec))


def await_finding(cluster: Cluster, place: str, rule: str, name: str, phase: str = "Open") -> Json:
    def there() -> Json | None:
        found = finding_of(cluster, place, rule, name)
        return found if found and found["status"]["phase"] == phase else None

    return eventually(there, 60, 0.1, what=f"{rule} of {name} {phase}")


def judge(cluster: Cluster, target: Json, kind: str, called: str | None = None, **about: Any) -> Json:
    return cluster.create(verdict(target, kind, by="judy", called=called, **about), user="judy")


def said(cluster: Cluster, made: Json) -> Callable[[], tuple[str, str]]:
    """What the decision's status says, as a question to ask again: outcome and reason."""

    def ask() -> tuple[str, str]:
        found = cluster.get("identitydecisions", made["metadata"]["name"], made["metadata"]["namespace"]) or {}
        status = found.get("status", {})
        return (status.get("outcome", ""), status.get("reason", ""))

    return ask


def await_said(cluster: Cluster, made: Json, outcome: str, reason: str) -> Json:
    eventually(lambda: said(cluster, made)() == (outcome, reason), 60, what=f"{outcome}, {reason}")
    found = cluster.get("identitydecisions", made["metadata"]["name"], made["metadata"]["namespace"])
    assert found is not None
    return dict(found["status"])


def identity(cluster: Cluster, place: str) -> Json:
    """An unowned ServiceAccount `ci` with a token: its finding, open."""
    scenario.identity(cluster, place, "ci", ["ci-token"])
    await_finding(cluster, place, "LegacyToken", "ci-token")
    return await_finding(cluster, place, "Unowned", "ci")


def blocked(found: Json | None) -> list[str]:
    return [c["reason"] for c in (found or {}).get("status", {}).get("conditions", ()) if c["type"] == "Blocked"]


def test_a_quarantine_by_a_person_comes_at_once(installed: Cluster, place: str) -> None:
    """Months before the deadline, and for a subject that the adoption grace would spare."""
    govern(installed, place, deadline(within=LATER, action="Nothing"), adoptionGrace="30d")
    found = identity(installed, place)
    token = token_of(installed, place, "ci-token")
    made = judge(installed, found, "Quarantine")
    done = await_finding(installed, place, "Unowned", "ci", "Quarantined")["status"]
    eventually(lambda: not installed.token_works(token), 60, what="401 for the token")
    # The operator's clock is the API server's Date, which has whole seconds: it may be a moment behind the stamp.
    decided, stamped = (datetime.fromisoformat(at) for at in (done["decided"], made["metadata"]["creationTimestamp"]))
    assert stamped - timedelta(seconds=1) < decided <= stamped
    assert done["decision"]["source"] == "Verdict"
    assert (done["decision"]["by"], done["decision"]["reference"]) == ("judy", "IdentityDecision/quarantine")
    assert (done["dueOutcome"], done["decision"]["late"]) == ("met", False)
    assert done["due"] == found["status"]["due"]
    status = await_said(installed, made, "Counted", "Enforced")
    quarantine = quarantine_of(installed, place, "ci")
    assert quarantine is not None
    eventually(lambda: effect(installed, made) == f"Quarantine/{quarantine['metadata']['name']}", what="its effect")
    assert (status["deadline"], status.get("late", False)) == (done["due"], False)
    assert quarantine["spec"].get("revokeAt") is None, "nobody asked for revocation"


def effect(cluster: Cluster, made: Json) -> str:
    found = cluster.get("identitydecisions", made["metadata"]["name"], made["metadata"]["namespace"]) or {}
    return str(found.get("status", {}).get("effect", ""))


def test_a_revoke_after_a_quarantine_takes_the_token_for_good(installed: Cluster, place: str) -> None:
    govern(installed, place, deadline(within=LATER, action="Nothing"))
    identity(installed, place)
    found = await_finding(installed, place, "LegacyToken", "ci-token")
    judge(installed, found, "Quarantine")
    await_finding(installed, place, "LegacyToken", "ci-token", "Quarantined")
    made = judge(installed, found, "Revoke")
    eventually(lambda: installed.get("secrets", "ci-token", place) is None, 60, what="the Secret is gone")
    done = await_finding(installed, place, "LegacyToken", "ci-token", "Resolved")["status"]
    assert done["decision"]["reference"] == "IdentityDecision/quarantine", "the first remains what decided"
    revoke = done["acts"][1]
    assert (revoke["verdict"], revoke["decided"]) == ("Revoke", made["metadata"]["creationTimestamp"])
    await_said(installed, made, "Counted", "Enforced")
    with pytest.raises(ApiError, match="revoked"):
        installed.create(token_secret(place, "ci-token", "ci"))

    record = quarantine_of(installed, place, "ci-token")
    assert record is not None
    refused = judge(installed, record, "Release")
    status = await_said(installed, refused, "Void", "AlreadyDecided")
    assert "revoked" in status["message"]
    assert quarantine_of(installed, place, "ci-token") is not None


def test_a_recent_use_holds_a_persons_revoke_too(installed: Cluster, place: str) -> None:
    govern(installed, place, deadline(within=LATER, action="Nothing", hold="48h"))
    identity(installed, place)
    assert installed.token_works(token_of(installed, place, "ci-token"))
    eventually(lambda: (installed.get("secrets", "ci-token", place) or {})["metadata"].get("labels"), what="its use")
    judge(installed, await_finding(installed, place, "LegacyToken", "ci-token"), "Revoke")
    found = await_finding(installed, place, "LegacyToken", "ci-token", "Quarantined")
    assert found["status"]["decision"]["verdict"] == "Revoke"
    assert installed.get("secrets", "ci-token", place) is not None


def test_a_release_by_verdict_is_a_release(installed: Cluster, place: str) -> None:
    govern(installed, place, deadline("Unowned", within="2s"), deadline(within=LATER, action="Nothing"))
    scenario.identity(installed, place, "ci", ["ci-token"])
    token = token_of(installed, place, "ci-token")
    await_finding(installed, place, "Unowned", "ci", "Quarantined")
    govern(installed, place, deadline("Unowned", within="1h"), deadline(within=LATER, action="Nothing"))
    quarantine = quarantine_of(installed, place, "ci")
    assert quarantine is not None
    made = judge(installed, quarantine, "Release")
    eventually(lambda: quarantine_of(installed, place, "ci") is None, 60, what="the Quarantine is gone")
    status = await_said(installed, made, "Counted", "Released")
    assert status["effect"] == f"Quarantine/{quarantine['metadata']['name']}"
    found = await_finding(installed, place, "Unowned", "ci")["status"]
    assert datetime.fromisoformat(found["due"]) - datetime.fromisoformat(found["released"]) == timedelta(hours=1)
    assert (found["opening"], found.get("decision")) == (2, None)
    eventually(lambda: installed.token_works(token), 60, what="the token works again")
    again = judge(installed, quarantine, "Release", "release-again")
    await_said(installed, again, "Void", "TargetGone")


def test_what_was_released_is_not_taken_again_by_the_same_verdict(
    installed: Cluster, operator: Operator, place: str
) -> None:
    govern(installed, place, deadline(within=LATER, action="Nothing"))
    judge(installed, identity(installed, place), "Quarantine")
    await_finding(installed, place, "Unowned", "ci", "Quarantined")
    quarantine = quarantine_of(installed, place, "ci")
    assert quarantine is not None
    judge(installed, quarantine, "Release")
    eventually(lambda: quarantine_of(installed, place, "ci") is None, 60, what="the Quarantine is gone")
    operator.kill()
    operator.start()
    operator.wait_ready()
    found = await_finding(installed, place, "Unowned", "ci")
    assert (found["status"].get("decided"), quarantine_of(installed, place, "ci")) == (None, None)
    judge(installed, found, "Quarantine", "once-more")
    await_finding(installed, place, "Unowned", "ci", "Quarantined")


def test_where_no_policy_enforces_a_verdict_waits_and_says_why(installed: Cluster, place: str) -> None:
    found = identity(installed, place)  # no policy at all
    made = judge(installed, found, "Quarantine")
    eventually(lambda: blocked(finding_of(installed, place, "Unowned", "ci")) == ["Audit"], 60, what="Blocked: Audit")
    decided = finding_of(installed, place, "Unowned", "ci")
    assert decided is not None
    assert (decided["status"]["phase"], decided["status"]["dueOutcome"]) == ("Open", "met")
    status = await_said(installed, made, "Counted", "Enforced")
    assert "Audit" in status["message"]
    assert not effect(installed, made)
    assert quarantine_of(installed, place, "ci") is None

    govern(installed, place, deadline(within=LATER, action="Nothing"), suspend=True)
    eventually(lambda: blocked(finding_of(installed, place, "Unowned", "ci")) == ["Suspended"], 60, what="Suspended")
    assert quarantine_of(installed, place, "ci") is None
    govern(installed, place, deadline(within=LATER, action="Nothing"))
    await_finding(installed, place, "Unowned", "ci", "Quarantined")
    eventually(lambda: effect(installed, made).startswith("Quarantine/"), what="its effect")


def test_a_verdict_given_while_the_operator_was_down_was_in_time(
    installed: Cluster, operator: Operator, place: str
) -> None:
    govern(installed, place, deadline("Unowned", within="6s"), deadline(within=LATER, action="Nothing"))
    found = identity(installed, place)
    operator.kill()
    made = judge(installed, found, "Quarantine")
    due = datetime.fromisoformat(found["status"]["due"])
    eventually(lambda: datetime.now(UTC) > due + timedelta(seconds=1), 60, what="the deadline has passed")
    operator.start()
    operator.wait_ready()
    done = await_finding(installed, place, "Unowned", "ci", "Quarantined")["status"]
    assert (done["decision"]["source"], done["dueOutcome"]) == ("Verdict", "met")
    assert done["decided"] == made["metadata"]["creationTimestamp"]
    assert datetime.fromisoformat(done["acts"][0]["started"]) > due


def test_a_verdict_after_the_deadline_is_late(installed: Cluster, place: str) -> None:
    govern(installed, place, deadline(within="1s", action="Nothing"))
    identity(installed, place)

    def overdue() -> Json | None:
        found = finding_of(installed, place, "Unowned", "ci")
        return found if found and found["status"]["dueOutcome"] == "missed" else None

    late = eventually(overdue, 60, what="overdue")
    due = datetime.fromisoformat(late["status"]["due"])
    eventually(lambda: datetime.now(UTC) > due + timedelta(seconds=1), what="a whole second later")
    made = judge(installed, late, "Quarantine")
    done = await_finding(installed, place, "Unowned", "ci", "Quarantined")["status"]
    assert (done["decision"]["late"], done["dueOutcome"]) == (True, "missed")
    assert await_said(installed, made, "Counted", "Enforced")["late"]


def refused_or_void(cluster: Cluster, found: Json, reason: str, called: str, **about: Any) -> str:
    """What a verdict about what is no longer so is told: the API server refuses it once the operator has told it what
    stands there, which may take a second; until then the operator voids it."""
    try:
        made = judge(cluster, found, "Revoke", called, **about)
    except ApiError as refused:
        return str(refused)
    return str(await_said(cluster, made, "Void", reason)["message"])


def test_a_verdict_about_what_is_no_longer_so_does_nothing(installed: Cluster, place: str) -> None:
    govern(installed, place, deadline(within=LATER, action="Nothing"))
    found = identity(installed, place)
    govern(installed, place, deadline(within=LATER, action="Revoke"))  # the proposed act changed

    def risen() -> Json | None:
        now = finding_of(installed, place, "Unowned", "ci")
        return now if now and now["spec"]["revision"] > found["spec"]["revision"] else None

    now = eventually(risen, 60, what="a new revision")
    assert "revision" in refused_or_void(installed, found, "StaleTarget", "stale")
    ahead = judge(installed, now, "Revoke", "ahead", revision=99)
    none = "00000000-0000-4000-8000-000000000000"
    assert "uid" in refused_or_void(installed, now, "TargetGone", "gone", uid=none)
    assert said(installed, ahead)() == ("", ""), "nobody knows yet what that revision will be"
    installed.create(claim(place, "judged"), user="verdicts-carla")
    await_finding(installed, place, "Unowned", "ci", "Resolved")
    over = judge(installed, now, "Quarantine", "over")
    await_said(installed, over, "Void", "AlreadyDecided")
    assert quarantine_of(installed, place, "ci") is None


def test_findings_on_claims_ask_for_no_verdict(installed: Cluster, place: str) -> None:
    govern(installed, place, deadline(within=LATER, action="Nothing"))
    past = (datetime.now(UTC) - timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    installed.create(claim(place, "judged", accounts=["nobody"], expiresAt=past), user="verdicts-carla")
    found = await_finding(installed, place, "OwnershipExpired", "claim")
    made = judge(installed, found, "Quarantine")
    await_said(installed, made, "Void", "NotAsked")


def test_a_claim_ends_a_persons_quarantine(installed: Cluster, place: str) -> None:
    govern(installed, place, deadline(within=LATER, action="Nothing"))
    found = identity(installed, place)
    token = token_of(installed, place, "ci-token")
    judge(installed, found, "Quarantine")
    await_finding(installed, place, "Unowned", "ci", "Quarantined")
    installed.create(claim(place, "judged"), user="verdicts-carla")
    done = await_finding(installed, place, "Unowned", "ci", "Resolved")
    assert done["status"]["decision"]["source"] == "Verdict", "what decided first stays what decided"
    eventually(lambda: quarantine_of(installed, place, "ci") is None, 60, what="released")
    eventually(lambda: installed.token_works(token), 60, what="the token works again")


def test_debt_outlives_exceptions_subject_and_operator(installed: Cluster, operator: Operator, place: str) -> None:
    govern(installed, place, deadline(within=LATER, action="Nothing"), exceptions=NO_APPROVAL)
    identity(installed, place)
    seen = await_finding(installed, place, "LegacyToken", "ci-token")["status"]["detected"]
    after = datetime.fromisoformat(seen) + timedelta(seconds=2)
    eventually(lambda: datetime.now(UTC) > after, what="open for a while")

    def waive(called: str, hours: int) -> None:
        end = (datetime.now(UTC) + timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")
        spec = {"owner": "judged", "expiresAt": end, "requestedBy": installed.username()}
        installed.create(exception(place, "Secret", "ci-token", "LegacyToken", called=called, **spec))

    def debt() -> Json:
        found = finding_of(installed, place, "LegacyToken", "ci-token")
        return dict(found["status"]["debt"]) if found else {}

    waive("first", 1)
    began = await_finding(installed, place, "LegacyToken", "ci-token", "Excepted")["status"]["debt"]
    assert (began["renewals"], "since" in began) == (0, True)
    since = datetime.fromisoformat(began["since"])
    eventually(lambda: datetime.now(UTC) > since + timedelta(seconds=2), what="exempt for a while")
    installed.delete("identityexceptions", "first", place)
    await_finding(installed, place, "LegacyToken", "ci-token", "Open")
    exempt = debt()["exemptSeconds"]
    assert exempt >= 1

    installed.delete("secrets", "ci-token", place)
    await_finding(installed, place, "LegacyToken", "ci-token", "Resolved")
    installed.create(token_secret(place, "ci-token", "ci"))
    opened = await_finding(installed, place, "LegacyToken", "ci-token", "Open")
    assert opened["status"]["usedSeconds"] >= 1, "a namesake restarts no clock"
    operator.kill()
    waive("under-another-name", 2)
    operator.start()
    operator.wait_ready()
    renewed = await_finding(installed, place, "LegacyToken", "ci-token", "Excepted")["status"]["debt"]
    assert (renewed["renewals"], renewed["exemptSeconds"]) == (1, exempt)
    counted = operator.metrics().value("tenure_exception_renewals_total", **{"class": "Migration"})
    assert counted >= 1
