"""Who is accountable now, and since when, as an owner comes and goes: real objects, real users, the operator."""

from __future__ import annotations

import json
import random
import string
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.cluster.tenure_objects import grant
from tests.cluster.test_commands import tenure
from tests.support import scenario
from tests.support.cluster import ApiError, Cluster, eventually
from tests.support.operator import Operator
from tests.support.scenario import claim, deadline, finding_of, owner, phase_of, policy

Json = dict[str, Any]


@pytest.fixture(scope="module")
def running(installed: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    with Operator(installed.kubeconfig, directory=tmp_path_factory.mktemp("operator")) as operator:
        yield operator


@pytest.fixture
def place(installed: Cluster, running: Operator, request: pytest.FixtureRequest) -> Iterator[str]:
    name = installed.namespace(request.node.name.removeprefix("test_")[:30])
    installed.patch("namespaces", name, {"metadata": {"labels": {"test": name}}})
    yield name
    if installed.get("governancepolicies", name):
        installed.delete("governancepolicies", name)
    installed.delete_namespace(name)


@pytest.fixture
def team(installed: Cluster, place: str) -> Iterator[str]:
    """An owner of this test alone, `X`, with the backup `X-backup`."""
    name = "o" + "".join(random.Random(place).choices(string.ascii_lowercase, k=8))
    installed.apply(owner(f"{name}-backup"))
    installed.apply(owner(name, backup=f"{name}-backup"))
    yield name
    for gone in (name, f"{name}-backup"):
        installed.delete("identityowners", gone)


def govern(cluster: Cluster, place: str, *deadlines: Json, **spec: Any) -> None:
    scenario.govern(cluster, policy(place, *deadlines, labels={"test": place}, precedence=40, **spec))


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def accountable(cluster: Cluster, place: str, name: str, who: str) -> datetime:
    """Since when that owner answers for the claim, once it does."""

    def there() -> str | None:
        status = (cluster.get("ownedidentities", name, place) or {}).get("status", {})
        assert status.get("accountable") == who, status
        since: str | None = status.get("accountableSince")
        return since

    return instant(eventually(there, what=f"{who} answers for {name}"))


def later(than: datetime) -> None:
    eventually(lambda: datetime.now(UTC) > than + timedelta(seconds=2), what="a stamp that is later")


def test_a_lost_owner_is_succeeded_by_its_backup_and_everybody_sees_since_when(
    installed: Cluster, running: Operator, place: str, team: str
) -> None:
    govern(
        installed,
        place,
        deadline("OwnerVacant", within="2h", action="Nothing"),
        deadline(within="9h", action="Nothing"),
    )
    names = [f"app-{number}" for number in range(4)]
    for name in names:
        scenario.identity(installed, place, name, [f"{name}-token"])
        installed.create(claim(place, team, name=name, accounts=[name]))
    began = accountable(installed, place, "app-0", team)
    first = eventually(lambda: finding_of(installed, place, "LegacyToken", "app-0-token"), what="a finding")
    later(began)

    installed.patch("identityowners", team, {"spec": {"suspended": True}})
    lost = accountable(installed, place, "app-0", f"{team}-backup")
    # The operator's clock is the API server's Date, which has whole seconds: two readings may differ by one.
    assert lost >= began + timedelta(seconds=1)
    wide = installed.kubectl("get", "ownedidentities", "app-0", "-n", place, "-o", "wide").stdout
    assert "ACCOUNTABLE SINCE" in wide
    assert f"{team}-backup" in wide.split()
    assert lost in [instant(word) for word in wide.split() if word.startswith("20")], wide
    for name in names:
        vacant = eventually(lambda name=name: finding_of(installed, place, "OwnerVacant", name), what="OwnerVacant")  # type: ignore[misc]
        status = vacant["status"]
        assert (status["phase"], status["accountable"]["owner"]) == ("Open", f"{team}-backup")
        within = instant(status["due"]) - instant(status["detected"])
        assert timedelta(hours=2) <= within <= timedelta(hours=2, seconds=1), "its own clock"

    def passed_on() -> Json | None:
        status: Json = finding_of(installed, place, "LegacyToken", "app-0-token")["status"]  # type: ignore[index]
        return status if status["accountable"]["owner"] == f"{team}-backup" else None

    legacy = eventually(passed_on, what="the claim's findings are the backup's")
    assert instant(legacy["accountable"]["since"]) >= lost - timedelta(seconds=2)
    assert legacy["due"] == first["status"]["due"], "which moves no deadline"

    # One line for all that one lost owner leaves behind.
    listed = tenure(installed.kubeconfig, "pending", "-n", place, "-o", "json")
    assert listed.returncode == 0, listed.stderr
    [group] = [item for item in json.loads(listed.stdout)["items"] if item["sort"] == "Group"]
    assert (group["owner"], group["answers"], group["count"]) == (team, f"{team}-backup", 4)
    table = tenure(installed.kubeconfig, "pending", "-n", place).stdout
    assert table.count("OwnerVacant") == 1
    assert f"owner {team} leaves 4 claims behind" in table
    said = installed.get("identityowners", team)
    assert said is not None
    assert (said["status"]["claims"], said["status"]["vacant"]) == (4, True)

    running.restart()
    installed.patch("ownedidentities", "app-0", {"metadata": {"labels": {"touched": "true"}}}, place)
    assert accountable(installed, place, "app-0", f"{team}-backup") == lost, "a restart begins nothing anew"

    later(lost)
    installed.patch("identityowners", team, {"spec": {"suspended": False}})
    assert accountable(installed, place, "app-0", team) > lost
    for name in names:
        eventually(lambda name=name: phase_of(installed, place, "OwnerVacant", name) == "Resolved", what="it is back")  # type: ignore[misc]


@pytest.mark.parametrize("how", ["missing", "a cycle of backups", "a cycle of escalations"])
def test_whoever_cannot_answer_leaves_a_finding_on_the_claim(
    installed: Cluster, place: str, team: str, how: str
) -> None:
    stands_in, named, reason = f"{team}-backup", team, "OwnerCyclic"
    if how == "missing":
        named, reason = f"{team}-gone", "OwnerMissing"
    elif how == "a cycle of backups":
        installed.patch("identityowners", stands_in, {"spec": {"backup": team}})
    else:
        ladder = [{"after": "50%", "to": stands_in}]
        installed.patch("identityowners", team, {"spec": {"backup": None, "escalation": ladder}})
        installed.patch("identityowners", stands_in, {"spec": {"escalation": [{"after": "50%", "to": team}]}})
    installed.create(scenario.service_account(place, "ci"))
    installed.create(claim(place, named))
    found = eventually(lambda: finding_of(installed, place, "OwnerVacant", "claim"), what="OwnerVacant")
    assert (found["status"]["phase"], found["status"]["onDeadline"]) == ("Open", "Nothing")

    def vacant() -> Json:
        conditions = (installed.get("ownedidentities", "claim", place) or {}).get("status", {}).get("conditions", ())
        return next((said for said in conditions if said["type"] == "Vacant"), {})

    said = eventually(vacant, what="the claim says so")
    assert said["reason"] == reason
    assert named in said["message"]
    # Seen before its claim, it had a finding for a moment.
    eventually(lambda: phase_of(installed, place, "Unowned", "ci") in ("", "Resolved"), what="it stays declared")


def test_a_label_on_the_object_tells_and_resolves_nothing(installed: Cluster, place: str, team: str) -> None:
    """Whoever may write a ServiceAccount may label it, and silences nothing with it, unless the policy says so."""
    grant(installed, place, "eve", ["create", "get", "patch"], ["serviceaccounts"], groups=("",))
    labelled = scenario.service_account(place, "ci", labels={"tenure.dev/owner": team})
    installed.create(labelled, user="eve")

    def told() -> Json | None:
        found = finding_of(installed, place, "Unowned", "ci")
        return found["status"] if found and found["status"]["accountable"].get("owner") == team else None

    assert eventually(told, what="the owner is told")["phase"] == "Open"
    govern(installed, place, deadline(action="Nothing", within="1h"), ownership={"objectLabelsCount": True})
    eventually(lambda: phase_of(installed, place, "Unowned", "ci") == "Resolved", what="where it counts")


def test_a_claim_where_the_owner_may_not_be_claimed_for_silences_nothing(
    installed: Cluster, place: str, team: str
) -> None:
    """Refused at admission with the reason, though the claimant holds the verb."""
    installed.patch("identityowners", team, {"spec": {"namespaceSelector": {"matchLabels": {"test": "elsewhere"}}}})
    grant(installed, place, "eve", ["create", "get"], ["ownedidentities"])
    grant(installed, place, "eve", ["claim"], ["identityowners"], names=[team])
    installed.create(scenario.service_account(place, "ci"))

    def refused() -> str:
        with pytest.raises(ApiError) as answer:
            installed.create(claim(place, team), user="eve")
        return str(answer.value)

    said = f"IdentityOwner {team} may not be claimed for in namespace {place}"
    eventually(lambda: said in refused(), what=said)
    eventually(lambda: phase_of(installed, place, "Unowned", "ci") == "Open", what="it stays unowned")
