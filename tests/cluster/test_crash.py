"""Killed at any write of an act, and started again, the operator ends where it would have ended undisturbed.

Each path (quarantine, revocation, release …) runs once undisturbed; its writes are recorded by name. Then it runs again
for every write n, once with the operator killed before the n-th is forwarded, once after it was answered. What the
server holds at that instant is all that is left; the next process must make of it what the first would have made.

A path's `writes` list every write that may occur in it. One that is not listed fails the sweep, and one that is listed
must have been stopped at, before and after: whoever adds a write adds it here and sees it swept.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path as File
from typing import Any, Literal

import pytest

from tests.support.cluster import Cluster, eventually
from tests.support.forked import ForkedOperator, ForkServer
from tests.support.operator import Operator
from tests.support.proxy import FaultProxy, Request, Write
from tests.support.rest import Json
from tests.support.scenario import (
    OPERATOR,
    claim,
    claimant,
    deadline,
    finding_of,
    identity,
    owner,
    policy,
    quarantine_of,
    releaser,
)
from tests.support.snapshot import difference, instants, snapshot, state
from tests.support.sweep import lasting, name_of

pytestmark = [pytest.mark.local, pytest.mark.slow]

When = Literal["before", "after"]
RECOVERY = 30.0  # seconds; two are usual, the rest is for a busy machine
QUIET = 0.6  # seconds without a write after which an undisturbed run counts as settled

LATER = "90d"
TOKENS = ("ci-a", "ci-b")


@dataclass(frozen=True)
class Path:
    """One path. `labels` choose the policies of its namespaces; `prepare` makes what has to be there before, `ready`
    says when a namespace is; `trigger` sets the path off, `done` says when it is at its end."""

    title: str
    trigger: Callable[[Cluster, str], object]
    done: Callable[[Cluster, str], bool]
    writes: frozenset[str]
    prepare: Callable[[Cluster, str], object] = lambda cluster, namespace: None
    ready: Callable[[Cluster, str], bool] = lambda cluster, namespace: True
    hold: bool = False
    sometimes: frozenset[str] = frozenset()
    """Writes that two runs may put together into one: swept when they occur, not missed when they do not."""
    counted: int = 0
    """How many openings reach their deadline or decision in it."""
    check: Callable[[Cluster, str], object] = lambda cluster, namespace: None

    @property
    def labels(self) -> dict[str, str]:
        return {"path": self.title}


def subject(cluster: Cluster, namespace: str) -> None:
    identity(cluster, namespace, "ci", TOKENS)


def one_token(cluster: Cluster, namespace: str) -> None:
    identity(cluster, namespace, "ci", ["ci-a"])


def quarantined(name: str = "ci") -> Callable[[Cluster, str], bool]:
    """Whether all stages of the subject's Quarantine are verified and its finding says so."""

    def ready(cluster: Cluster, namespace: str) -> bool:
        found = quarantine_of(cluster, namespace, name)
        stages = (found or {}).get("status", {}).get("stages", ())
        rule = "Unowned" if name == "ci" else "LegacyToken"
        finding = finding_of(cluster, namespace, rule, name)
        return (
            len(stages) == 2
            and all(stage.get("verified") for stage in stages)
            and finding is not None
            and finding["status"]["phase"] == "Quarantined"
        )

    return ready


def revoked(cluster: Cluster, namespace: str) -> bool:
    """Whether the subject's tokens were revoked and its finding says so."""
    finding = finding_of(cluster, namespace, "Unowned", "ci")
    acts = finding["status"]["acts"] if finding else ()
    return any(act["verdict"] == "Revoke" and act.get("verified") for act in acts)


def finalizer_off(name: str) -> Callable[[Cluster, str], bool]:
    """Whether the subject was revoked, and only the record of its name is left, and its finding tells the end."""

    def ready(cluster: Cluster, namespace: str) -> bool:
        found = quarantine_of(cluster, namespace, name)
        finding = finding_of(cluster, namespace, "LegacyToken", name)
        return (
            found is not None
            and not found["metadata"].get("finalizers")
            and finding is not None
            and finding["status"]["phase"] == "Resolved"
        )

    return ready


def let_go(cluster: Cluster, namespace: str) -> None:
    """Takes the namespace out of the suspended policy: what waits there is due at once."""
    cluster.patch("namespaces", namespace, {"metadata": {"labels": {"hold": None}}})


def claim_it(cluster: Cluster, namespace: str) -> None:
    cluster.create(claim(namespace, "team", accounts=["ci"]), user="carla")


def release_it(cluster: Cluster, namespace: str) -> None:
    found = quarantine_of(cluster, namespace, "ci")
    assert found is not None
    cluster.delete("quarantines", found["metadata"]["name"], namespace, user="rita")


def reopened_in_time(cluster: Cluster, namespace: str) -> None:
    """After a person's release: due = release + decideWithin, to the second."""
    finding = finding_of(cluster, namespace, "Unowned", "ci")
    assert finding is not None
    status = finding["status"]
    assert seconds(status["due"]) - seconds(status["released"]) == 3600


def seconds(instant: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(instant).timestamp()


UNOWNED = "finding Unowned of ServiceAccount/ci"
LEGACY = "finding LegacyToken of Secret/ci-a"
ACCOUNT = "quarantine of serviceaccount-ci"
SECRET = "quarantine of secret-ci-a"
BOTH = "Guard verified, DisableTokens verified"
QUARANTINED = "missed, by Policy, Quarantine verified"

PATHS = (
    Path(
        "quarantine",
        trigger=subject,
        done=quarantined(),
        counted=1,
        writes=frozenset(
            {
                f"{UNOWNED}: Open",
                "finding LegacyToken of Secret/ci-a: Open",
                "finding LegacyToken of Secret/ci-b: Open",
                "memory: turned, 1 counted, 0 acts",
                f"{UNOWNED}: Open, missed",
                "memory: turned, 1 counted, 1 acts",
                f"{ACCOUNT}: intent",
                "guard of namespace: 1 accounts",
                "guard of bindings: named",
                f"{ACCOUNT}: Guard verified",
                f"{ACCOUNT}: Guard verified, 2 remembered",
                "guard of namespace: 1 accounts, 2 secrets",
                "secret ci-a: off",
                "secret ci-b: off",
                f"{ACCOUNT}: {BOTH}, 2 remembered",
                f"{UNOWNED}: Quarantined, {QUARANTINED}",
            }
        ),
        sometimes=frozenset({f"{UNOWNED}: Open, missed, by Policy, Quarantine started"}),
    ),
    Path(
        "revocation",
        prepare=subject,
        ready=quarantined(),
        hold=True,
        trigger=let_go,
        done=revoked,
        counted=2,  # the tokens' own findings end with them
        writes=frozenset(
            {
                "memory: turned, 1 counted, 2 acts",
                f"{ACCOUNT}: {BOTH}, 2 remembered, 0 of 2 revoked",
                "guard of namespace: 1 accounts, 2 revoked",
                "secret ci-a: deleted",
                "secret ci-b: deleted",
                "memory: turned, 3 counted, 2 acts",
                f"{LEGACY}: Resolved, met, by SubjectGone",
                "finding LegacyToken of Secret/ci-b: Resolved, met, by SubjectGone",
                f"{ACCOUNT}: {BOTH}, 2 remembered, 2 of 2 revoked",
                f"{UNOWNED}: Quarantined, {QUARANTINED}, Revoke verified",
            }
        ),
        sometimes=frozenset(
            {
                "memory: turned, 2 counted, 2 acts",
                f"{UNOWNED}: Quarantined, {QUARANTINED}",
                f"{UNOWNED}: Quarantined, {QUARANTINED}, Revoke started",
            }
        ),
    ),
    Path(
        "legacy",
        trigger=one_token,
        done=quarantined("ci-a"),
        counted=1,
        writes=frozenset(
            {
                f"{UNOWNED}: Open",
                f"{LEGACY}: Open",
                "memory: turned, 1 counted, 0 acts",
                f"{LEGACY}: Open, missed",
                "memory: turned, 1 counted, 1 acts",
                f"{SECRET}: intent",
                "guard of namespace: 1 secrets",
                f"{SECRET}: Guard verified",
                f"{SECRET}: Guard verified, 1 remembered",
                "secret ci-a: off",
                f"{SECRET}: {BOTH}, 1 remembered",
                f"{LEGACY}: Quarantined, {QUARANTINED}",
            }
        ),
        sometimes=frozenset({f"{LEGACY}: Open, missed, by Policy, Quarantine started"}),
    ),
    Path(
        "legacy-revocation",
        prepare=one_token,
        ready=quarantined("ci-a"),
        hold=True,
        trigger=let_go,
        done=finalizer_off("ci-a"),
        counted=0,
        writes=frozenset(
            {
                "memory: turned, 1 counted, 2 acts",
                f"{SECRET}: {BOTH}, 1 remembered, 0 of 1 revoked",
                "guard of namespace: 1 revoked",
                "secret ci-a: deleted",
                f"{SECRET}: {BOTH}, 1 remembered, 1 of 1 revoked",
                f"{SECRET}: finalizer off",
                f"{LEGACY}: Resolved, {QUARANTINED}, Revoke verified",
            }
        ),
        sometimes=frozenset(
            {
                f"{LEGACY}: Quarantined, {QUARANTINED}",
                f"{LEGACY}: Quarantined, {QUARANTINED}, Revoke started",
                f"{LEGACY}: Resolved, {QUARANTINED}, Revoke started",
            }
        ),
    ),
    Path(
        "deleted-by-others",
        prepare=one_token,
        ready=quarantined("ci-a"),
        trigger=lambda cluster, namespace: cluster.delete("secrets", "ci-a", namespace),
        done=finalizer_off("ci-a"),
        counted=0,
        writes=frozenset(
            {
                f"{LEGACY}: Resolved, {QUARANTINED}",
                f"{SECRET}: {BOTH}, 1 remembered, 1 of 1 revoked",
                "guard of namespace: 1 revoked",
                f"{SECRET}: finalizer off",
            }
        ),
    ),
    Path(
        "end-of-record",
        prepare=one_token,
        ready=finalizer_off("ci-a"),
        trigger=lambda cluster, namespace: cluster.delete("serviceaccounts", "ci", namespace),
        done=lambda cluster, namespace: not cluster.list("quarantines", namespace),
        counted=1,
        writes=frozenset(
            {
                "memory: turned, 2 counted, 2 acts",
                f"{UNOWNED}: Resolved, met, by SubjectGone",
                f"{SECRET}: deleted",
                "guard of namespace: deleted",
            }
        ),
    ),
    Path(
        "claim",
        prepare=subject,
        ready=quarantined(),
        trigger=claim_it,
        done=lambda cluster, namespace: not cluster.list("quarantines", namespace),
        writes=frozenset(
            {
                "apply ownedidentities/status",
                "apply identityowners/status",
                f"{LEGACY}: Open, owner team",
                "finding LegacyToken of Secret/ci-b: Open, owner team",
                f"{UNOWNED}: Resolved, {QUARANTINED}, owner team",
                f"{ACCOUNT}: {BOTH}, 2 remembered, releasing",
                f"{ACCOUNT}: deleted",
                "secret ci-a: on",
                "secret ci-b: on",
                "guard of namespace: deleted",
                "guard of bindings: not named",
                f"{ACCOUNT}: finalizer off",
            }
        ),
    ),
    Path(
        "claim-after-revocation",
        prepare=subject,
        ready=revoked,
        trigger=claim_it,
        done=lambda cluster, namespace: quarantine_of(cluster, namespace, "ci") is None,
        writes=frozenset(
            {
                "apply ownedidentities/status",
                "apply identityowners/status",
                f"{UNOWNED}: Resolved, {QUARANTINED}, Revoke verified, owner team",
                f"{ACCOUNT}: {BOTH}, 2 remembered, 2 of 2 revoked, releasing",
                f"{ACCOUNT}: deleted",
                "quarantine of secret-ci-a: record",
                "quarantine of secret-ci-a: 1 of 1 revoked",
                "quarantine of secret-ci-b: record",
                "quarantine of secret-ci-b: 1 of 1 revoked",
                "guard of namespace: 2 revoked",
                "guard of bindings: not named",
                f"{ACCOUNT}: finalizer off",
            }
        ),
    ),
    Path(
        "person",
        prepare=subject,
        ready=quarantined(),
        hold=True,
        trigger=release_it,
        done=lambda cluster, namespace: not cluster.list("quarantines", namespace),
        check=reopened_in_time,
        writes=frozenset(
            {
                f"{UNOWNED}: Open, released",
                "secret ci-a: on",
                "secret ci-b: on",
                "guard of namespace: deleted",
                "guard of bindings: not named",
                f"{ACCOUNT}: finalizer off",
            }
        ),
    ),
)


def policies() -> list[Json]:
    """One policy per path; that of `hold` comes before it where the label stands."""
    tokens = deadline("LegacyToken", within=LATER, action="Nothing")
    accounts = deadline("Unowned", within=LATER, action="Nothing")
    unowned, legacy = deadline("Unowned"), deadline("LegacyToken")
    revoking, revoking_tokens = deadline("Unowned", revoke_after="3s"), deadline("LegacyToken", revoke_after="3s")

    def held(title: str, *deadlines: Json, **spec: Any) -> Json:
        return policy(f"{title}-held", *deadlines, labels={"path": title, "hold": "yes"}, precedence=1, **spec)

    def plain(title: str, *deadlines: Json) -> Json:
        return policy(title, *deadlines, labels={"path": title})

    return [
        plain("quarantine", unowned, tokens),
        plain("revocation", revoking, tokens),
        held("revocation", revoking, tokens, suspend=True),
        plain("legacy", legacy, accounts),
        plain("legacy-revocation", revoking_tokens, accounts),
        held("legacy-revocation", revoking_tokens, accounts, suspend=True),
        plain("deleted-by-others", legacy, accounts),
        plain("end-of-record", deadline("LegacyToken", revoke_after="1s"), accounts),
        plain("claim", unowned, tokens),
        plain("claim-after-revocation", deadline("Unowned", revoke_after="1s"), tokens),
        plain("person", unowned, tokens),
        held("person", deadline("Unowned", within="1h"), tokens),
    ]


class Sweep:
    """One cluster, one proxy, one operator at a time; every path of this file runs in it."""

    def __init__(self, cluster: Cluster, proxy: FaultProxy, operator: Operator) -> None:
        self.cluster, self.proxy, self.operator = cluster, proxy, operator
        self.points = 0
        self.starts = 0.0

    def settle(self, quiet: float = QUIET) -> None:
        """Waits until nothing was written for so many seconds."""
        seen, since = -1, time.monotonic()
        while time.monotonic() - since < quiet:
            count = len(self.proxy.writes(lasting))
            if count != seen:
                seen, since = count, time.monotonic()
            time.sleep(0.02)

    def namespaces(self, path: Path, count: int) -> list[str]:
        """So many namespaces in which the path may be set off."""
        labels = {**path.labels, **({"hold": "yes"} if path.hold else {})}

        def make(_: int) -> str:
            namespace = self.cluster.namespace(path.title, labels=path.labels)
            path.prepare(self.cluster, namespace)
            eventually(lambda: path.ready(self.cluster, namespace), 120, 0.2, what=f"{namespace} ready")
            self.cluster.patch("namespaces", namespace, {"metadata": {"labels": labels}})
            return namespace

        with ThreadPoolExecutor(16) as pool:
            made = list(pool.map(make, range(count)))
        self.settle()
        return made

    def undisturbed(self, path: Path) -> tuple[Json, list[str]]:
        """Runs the path in peace: the state it ends in, and its writes by name."""
        [namespace] = self.namespaces(path, 1)
        self.proxy.reset()
        path.trigger(self.cluster, namespace)
        eventually(lambda: path.done(self.cluster, namespace), RECOVERY, what=f"{path.title} undisturbed")
        self.settle()
        path.check(self.cluster, namespace)
        return snapshot(self.cluster, namespace), [name_of(w, namespace) for w in self.proxy.writes(lasting)]

    def run(self, path: Path) -> None:
        """Sweeps the path and asserts everything the docstring of this file promises."""
        began = time.monotonic()
        expected, recorded = self.undisturbed(path)
        unknown = set(recorded) - path.writes - path.sometimes
        assert not unknown, f"{path.title}: writes that the sweep does not list: {sorted(unknown)}"
        pool = iter(self.namespaces(path, 2 * len(recorded) + 6))
        position = self.cluster.control_plane.audit_position() if self.cluster.control_plane else 0
        used: list[str] = []
        covered: dict[When, Counter[str]] = {"before": Counter(), "after": Counter()}
        prepared = time.monotonic()
        for n in range(1, len(recorded) + 1):
            for when in ("before", "after"):
                namespace = next(pool)
                used.append(namespace)
                name = self.point(path, namespace, expected, n, when, lasting)
                if name:
                    covered[when][name] += 1
        for when in ("before", "after"):
            for name in sorted(path.writes - covered[when].keys()):
                namespace = next(pool)
                used.append(namespace)
                hit = self.point(path, namespace, expected, 1, when, named(name, namespace))
                assert hit == name, (
                    f"{path.title}: listed, but it does not occur: {name} {[(w.n, name_of(w, namespace), w.status) for w in self.proxy.writes(lasting)]}"
                )
                covered[when][name] += 1
        for namespace in used:
            differences = difference(expected, snapshot(self.cluster, namespace))
            assert not differences, f"{path.title}: {namespace} changed afterwards:\n" + "\n".join(differences)
        points = sum(sum(counter.values()) for counter in covered.values())
        self.points += points
        self.acts_once(position, used)
        names = len(covered["before"].keys() | covered["after"].keys())
        print(
            f"\n{path.title}: {points} points, {names} writes before and after, "
            f"{prepared - began:.0f} s to prepare, {time.monotonic() - prepared:.0f} s to sweep"
        )

    def point(
        self,
        path: Path,
        namespace: str,
        expected: Json,
        n: int,
        when: When,
        match: Callable[[Request], bool],
    ) -> str:
        """One crash: the name of the write at which it came, "" when the path ended before its n-th write."""
        cluster, proxy = self.cluster, self.proxy
        before = state(cluster)["counters"]
        proxy.reset()
        (proxy.stop_before if when == "before" else proxy.stop_after)(n, match)
        path.trigger(cluster, namespace)
        began = time.monotonic()
        while not proxy.stopped.wait(0.25):
            if time.monotonic() - began > 1 and not difference(expected, snapshot(cluster, namespace)):
                proxy.resume()
                self.unlisted(path, namespace, f"{path.title}: undisturbed")
                return ""
            assert time.monotonic() - began < RECOVERY, f"{path.title}: neither {when} {n} nor the end"
        write = proxy.wait_stopped()
        name = name_of(write, namespace)
        where = f"{path.title}: killed {when} write {n}, {name}"
        stamped = instants(cluster, namespace)
        self.operator.kill()
        proxy.resume()
        self.operator.start()
        self.converged(path, namespace, expected, where)
        later = instants(cluster, namespace)
        moved = {place: (value, later[place]) for place, value in stamped.items() if later.get(place, value) != value}
        assert not moved, f"{where}: instants were stamped twice: {moved}"
        path.check(cluster, namespace)
        self.unlisted(path, namespace, where)
        self.counted_once(path, before, where)
        return name

    def converged(self, path: Path, namespace: str, expected: Json, where: str) -> None:
        """Waits until the namespace is in the state of an undisturbed run."""
        deadline = time.monotonic() + RECOVERY
        while True:
            self.settle(0.1)
            differences = difference(expected, snapshot(self.cluster, namespace))
            if not differences:
                return
            self.operator.check()
            if time.monotonic() > deadline:
                writes = [name_of(w, namespace) for w in self.proxy.writes(lasting)]
                lines = "\n".join(differences)
                raise AssertionError(
                    f"{where}: it ended elsewhere:\n{lines}\nwrites: {writes}\n{self.operator.log_tail(20)}"
                )

    def unlisted(self, path: Path, namespace: str, where: str) -> None:
        """Every write since the last reset is one that the path lists."""
        unknown = {name_of(w, namespace) for w in self.proxy.writes(lasting)} - path.writes - path.sometimes
        assert not unknown, f"{where}: writes that the sweep does not list: {sorted(unknown)}"

    def counted_once(self, path: Path, before: Json, where: str) -> None:
        """`tenure_decisions_due_total` rose by what this path counts, in the memory and in the metrics."""
        counted = {name: sum(values.values()) for name, values in state(self.cluster)["counters"].items()}
        rise = counted.get("decisions_due_total", 0) - sum(before.get("decisions_due_total", {}).values())
        assert rise == path.counted, f"{where}: {rise} outcomes were counted, not {path.counted}"
        eventually(
            lambda: self.operator.metrics().value("tenure_decisions_due_total") == counted["decisions_due_total"],
            what=f"{where}: the metrics say what the memory says",
        )

    def acts_once(self, position: int, namespaces: list[str]) -> None:
        """By the audit log: every Secret was deleted, switched off and on at most once, every Quarantine created and
        ended once."""
        assert self.cluster.control_plane is not None
        done: Counter[tuple[Any, ...]] = Counter()
        for event in self.cluster.control_plane.audit_events(position):
            about, code = event.get("objectRef", {}), event.get("responseStatus", {}).get("code", 0)
            if event["user"]["username"] != OPERATOR or about.get("namespace") not in namespaces or code >= 300:
                continue
            verb, resource = event["verb"], about["resource"]
            once = (
                resource == "secrets"
                or (resource == "quarantines" and verb == "delete")
                or (resource in ("quarantines", "identityfindings") and verb == "patch" and code == 201)
            )
            if once and verb in ("patch", "delete"):
                done[(about["namespace"], verb, resource, about["name"])] += 1
        twice = {act: count for act, count in done.items() if count > 1}
        assert not twice, f"done more than once: {twice}"


def named(name: str, namespace: str) -> Callable[[Request], bool]:
    return lambda request: lasting(request) and isinstance(request, Write) and name_of(request, namespace) == name


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sweep]:
    directory: File = tmp_path_factory.mktemp("operator")
    with Cluster.local() as cluster, ForkServer() as server, FaultProxy.to(cluster) as proxy:
        cluster.install()
        claimant(cluster, "carla", "team")
        releaser(cluster, "rita")
        cluster.create(owner("team"))
        for manifest in policies():
            cluster.create(manifest)
        kubeconfig = cluster.token_kubeconfig("tenure-system", "tenure", server=proxy.url)
        with ForkedOperator(kubeconfig, server=server, directory=directory) as operator:
            made = Sweep(cluster, proxy, operator)
            yield made
        print(f"\n{made.points} crash points in all")


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.title)
def test_a_crash_at_any_write_ends_in_the_same_state(sweep: Sweep, path: Path) -> None:
    try:
        sweep.run(path)
    except BaseException:
        print(sweep.operator.log_tail(60))
        raise
