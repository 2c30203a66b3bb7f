"""The world changes, and no watch tells of it: every act, and every next stage, is judged again on what stands live.

Every watch is held, as if it lagged for minutes, while somebody claims, excepts or deletes the subject, suspends the
policy or takes the namespace out of it, or releases: then the act falls due. One place of each act is left as it is:
there it is done, with all watches held, so that what stops the others is what was read. Half of the cases; all of them
with SWEEP=full. An approval and an escalation take nothing away: of them nothing is lost, nothing done twice, and the
same stands in the end, whichever watch lags.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from tests.cluster.test_crash_deciding import PATHS, people
from tests.cluster.test_crash_deny_writes import opted_in
from tests.support.audit import violations
from tests.support.cluster import Cluster, eventually
from tests.support.crash import FULL, LATER, LEGACY
from tests.support.ground import Ground, ground
from tests.support.proxy import Write, durable
from tests.support.rest import Json
from tests.support.scenario import (
    claim,
    deadline,
    exception,
    finding_of,
    identity,
    policy,
    quarantine_of,
    token_of,
    verdict,
)
from tests.support.sweep import name_of

pytestmark = [pytest.mark.local, pytest.mark.long]

LONG = 60.0  # seconds
WAITS = (15, 40, 90)  # seconds until the act is due: everything is prepared before, or again with more time
ALL = "watch *"

ACCOUNT, TOKEN, SECRET = ("ServiceAccount", "ci"), ("Secret", "ci-a"), ("Secret", "api-key")


@dataclass(frozen=True)
class Act:
    """What falls due. `done` is how its writes are named, in tests/support/sweep.py, where it is begun."""

    rule: str
    subject: tuple[str, str]
    done: tuple[str, ...]
    terms: Callable[[str], Json]
    """The policy's, with so long until it is due."""
    standing: bool = False
    """Whether it is a next step of a Quarantine that stands."""

    def due(self, cluster: Cluster, namespace: str, wait: int) -> datetime | None:
        """When, once all is there that comes before it."""
        found = finding_of(cluster, namespace, self.rule, self.subject[1])
        if found is None:
            return None
        if not self.standing:
            return datetime.fromisoformat(found["status"]["due"])
        held = quarantine_of(cluster, namespace, self.subject[1]) or {}
        stages = held.get("status", {}).get("stages", ())
        at = held.get("spec", {}).get("revokeAt")
        if not all(stage.get("verified") for stage in stages) or len(stages) < (2 if at else 1):
            return None
        return datetime.fromisoformat(at or stages[0]["done"]) + timedelta(seconds=0 if at else wait)


def by_deadline(rule: str) -> Callable[[str], Json]:
    return lambda wait: deadline(rule, within=wait)


BEGUN = ("quarantine of ", "guard of namespace", "guard of bindings: named", "secret ")
WRITERS = "guard of bindings: named, held from writing"
ACTS = {
    "quarantine": Act("Unowned", ACCOUNT, BEGUN, by_deadline("Unowned")),
    "token": Act("LegacyToken", TOKEN, BEGUN, by_deadline("LegacyToken")),
    "secret": Act("Unowned", SECRET, BEGUN, by_deadline("Unowned")),
    "disable": Act(
        "Unowned",
        ACCOUNT,
        ("secret ci-a: off",),
        lambda wait: deadline("Unowned", stageInterval=wait),
        standing=True,
    ),
    "deny": Act(
        "Unowned",
        ACCOUNT,
        (WRITERS,),
        lambda wait: deadline("Unowned", stages=["Guard", "DenyWrites"], stageInterval=wait),
        standing=True,
    ),
    "revoke": Act(
        "Unowned",
        ACCOUNT,
        ("secret ci-a: deleted",),
        lambda wait: deadline("Unowned", revoke_after=wait),
        standing=True,
    ),
}


def claimed(made: Ground, namespace: str, act: Act) -> None:
    made.cluster.create(claim(namespace, "team", accounts=["ci"] if act.subject == ACCOUNT else ()), user="carla")


def excepted(made: Ground, namespace: str, act: Act) -> None:
    made.cluster.create(exception(namespace, *act.subject, act.rule))


def fixed(made: Ground, namespace: str, act: Act) -> None:
    made.cluster.delete(
        {"ServiceAccount": "serviceaccounts", "Secret": "secrets"}[act.subject[0]], act.subject[1], namespace
    )


def suspended(made: Ground, namespace: str, act: Act) -> None:
    made.cluster.patch("governancepolicies", namespace, {"spec": {"suspend": True}})


def let_out(made: Ground, namespace: str, act: Act) -> None:
    made.cluster.patch("namespaces", namespace, {"metadata": {"labels": {"case": None}}})


def released(made: Ground, namespace: str, act: Act) -> None:
    held = quarantine_of(made.cluster, namespace, act.subject[1])
    assert held is not None
    made.cluster.delete("quarantines", held["metadata"]["name"], namespace, user="rita")


def judged(made: Ground, namespace: str, act: Act) -> None:
    held = quarantine_of(made.cluster, namespace, act.subject[1])
    assert held is not None
    made.cluster.create(verdict(held, "Release", by="judy"), user="judy")


def untouched(made: Ground, namespace: str, act: Act) -> None:
    """The one of each act that is done."""


Change = Callable[[Ground, str, Act], None]
BEFORE: tuple[Change, ...] = (untouched, claimed, excepted, fixed, suspended, let_out)
EVERY = [
    (title, change)
    for title, act in ACTS.items()
    for change in (*BEFORE, *((released, judged) if act.standing else ()))
    if (title, change) != ("token", claimed)  # a claim decides nothing about a token that should not be there
]
CASES = [case for n, case in enumerate(EVERY) if FULL or n % 2 or case[1] is untouched]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with ground(tmp_path_factory.mktemp("operator")) as found:
        opted_in(found)
        yield found
        assert not violations(found.audit())


def prepared(made: Ground, title: str, change: Change, wait: int) -> tuple[str, datetime]:
    """A namespace under a policy of its own in which nothing is missing but the act, and when that is due."""
    act, cluster = ACTS[title], made.cluster
    called = f"{title}-{change.__name__}".replace("_", "-")
    namespace = cluster.namespace(called)
    others = deadline("Unowned", "LegacyToken", within=LATER, action="Nothing")
    waivers = {"classes": [{"class": "Migration", "approvals": []}]}
    cluster.create(policy(namespace, act.terms(f"{wait}s"), others, labels={"case": namespace}, exceptions=waivers))

    def taken_in() -> bool:
        found = cluster.get("governancepolicies", namespace) or {}
        return found.get("status", {}).get("observedGeneration") == 1

    eventually(taken_in, LONG, 0.3, what=f"policy {namespace} taken in")
    cluster.patch("namespaces", namespace, {"metadata": {"labels": {"case": namespace}}})
    if act.subject == SECRET:
        metadata = {"name": "api-key", "namespace": namespace}
        cluster.create({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"api_key": "none"}})
    else:
        identity(cluster, namespace, "ci", ["ci-a"])
        token_of(cluster, namespace, "ci-a")
    due = eventually(lambda: act.due(cluster, namespace, wait), LONG, 0.3, what=f"{namespace} ready")
    return namespace, due


def acted(made: Ground, namespace: str, act: Act) -> list[str]:
    """The writes of this act in the namespace since the watches are held."""
    writes: list[Write] = made.proxy.writes(durable)
    names = [name_of(w, namespace) for w in writes if w.namespace in (namespace, "tenure-system")]
    return [name for name in names if name.startswith(act.done)]


def changed(made: Ground, wait: int) -> list[tuple[str, datetime]]:
    """Prepares all cases, holds the watches, and makes the changes."""
    made.proxy.reset()
    with ThreadPoolExecutor(16) as pool:
        places = list(pool.map(lambda case: prepared(made, *case, wait), CASES))
        made.proxy.reset()
        made.proxy.hold(ALL)
        if datetime.now(UTC) < min(due for _, due in places):
            list(pool.map(lambda place, case: case[1](made, place[0], ACTS[case[0]]), places, CASES))
    return places


def test_what_no_watch_has_told_of_yet_stops_every_act(made: Ground) -> None:
    for wait in WAITS:
        places = changed(made, wait)
        if in_time := datetime.now(UTC) < min(due for _, due in places):
            break
    assert in_time, "changed too late for what is tested here"
    cases = [(place, ACTS[title], change) for (place, _), (title, change) in zip(places, CASES, strict=True)]
    control = [(place, act) for place, act, change in cases if change is untouched]
    eventually(lambda: all(acted(made, *each) for each in control), LONG, what="what nobody touched is done")
    made.settle()
    still = {
        place: names for place, act, change in cases if change is not untouched and (names := acted(made, place, act))
    }
    assert not still, still
    made.proxy.lag(ALL, 0)
    made.settle()
    for place, act, change in cases:
        if change in (untouched, released, judged):
            continue  # what was released is open again, and due
        assert not acted(made, place, act), f"{place}: once the watches have told"
        found = finding_of(made.cluster, place, act.rule, act.subject[1])
        assert found is not None
        phase = {claimed: "Resolved", fixed: "Resolved", excepted: "Excepted"}.get(change)
        assert phase in (None, found["status"]["phase"]), place


DECIDING = {path.title: path for path in PATHS}
LAGGING = {
    "approval": ("watch identitydecisions", "watch identityexceptions", "watch identityfindings", ALL),
    "escalation": ("watch secrets", "watch ownedidentities", "watch identityfindings", ALL),
}
UNTOLD = frozenset({"watch identitydecisions", "watch secrets", ALL})
"""Those that tell of the beginning: as long as they lag, nothing can be done yet."""


@pytest.fixture(scope="module")
def peopled(made: Ground) -> Ground:
    people(made)
    for path in PATHS:
        for each in path.policies:
            made.cluster.create(each)
    return made


def ended(made: Ground, namespace: str) -> tuple[object, ...]:
    """What stands of the finding, but for its instants, and how often it was told that it climbed."""
    found = finding_of(made.cluster, namespace, "LegacyToken", "ci-a")
    assert found is not None
    status = found["status"]
    accountable, decided = status["accountable"], status.get("decision", {})
    told = Counter(
        event["involvedObject"]["kind"]
        for event in made.cluster.list("events", namespace)
        if event["reason"] == "Escalated"
        for _ in range(event.get("count") or 1)
    )
    climbed = [line["detail"] for line in status.get("evidence", ()) if line["source"] == "Escalation"]
    return (
        status["phase"],
        status.get("dueOutcome"),
        (accountable.get("owner"), accountable.get("step")),
        decided.get("source"),
        climbed,
        told,
    )


def decided(made: Ground, title: str, watch: str, *, begun: bool = False) -> tuple[object, ...]:
    """The path's end, with this watch held from before its beginning ("": none), or once its finding is open."""
    path, cluster = DECIDING[title], made.cluster
    named = watch.replace("watch ", "").replace("*", "all") or "none"
    namespace = cluster.namespace(f"{title}-{named}{'-begun' if begun else ''}")
    cluster.patch("namespaces", namespace, {"metadata": {"labels": {"path": title}}})
    path.prepare(made, namespace)
    eventually(lambda: path.ready(made, namespace), LONG, what=f"{namespace} ready")
    made.settle()
    made.proxy.reset()
    if watch and not begun:
        made.proxy.hold(watch)
    path.trigger(made, namespace)
    if begun:
        eventually(lambda: finding_of(cluster, namespace, "LegacyToken", "ci-a"), LONG, 0.05, what="its finding")
        made.proxy.hold(watch)
    if watch in UNTOLD and not begun:
        made.settle(quiet=2)
        assert not path.done(made, namespace)
        made.proxy.lag(watch, 0)
    eventually(lambda: path.done(made, namespace), LONG, what=f"{namespace} done")
    made.settle()
    if watch:
        made.proxy.lag(watch, 0)
        made.settle()
    assert path.done(made, namespace), f"{namespace}: once the watches have told"
    writes = [w for w in made.proxy.writes(durable) if w.namespace == namespace]
    wrote = Counter(name for w in writes if (name := name_of(w, namespace)).startswith((LEGACY, "decision ")))
    assert wrote.keys() == {name for name in path.writes if name.startswith((LEGACY, "decision "))}, namespace
    again = {name: n for name, n in wrote.items() if n > 1 and name.startswith(LEGACY)}
    assert not again, f"{namespace}: done twice"
    same = Counter((w.resource, json.dumps(w.body, sort_keys=True)) for w in writes)
    assert max(same.values()) == 1, f"{namespace}: {same.most_common(1)} said twice"
    return ended(made, namespace)


@pytest.mark.parametrize("title", list(LAGGING))
def test_of_a_decision_nothing_is_lost_or_done_twice(peopled: Ground, title: str) -> None:
    wanted = decided(peopled, title, "")
    for watch in LAGGING[title]:
        assert decided(peopled, title, watch) == wanted, watch
    if title == "escalation":
        assert wanted[-1] == {"IdentityFinding": 1, "Secret": 1}, "told once of each"
        assert decided(peopled, title, ALL, begun=True) == wanted, "what falls due climbs without any watch"
