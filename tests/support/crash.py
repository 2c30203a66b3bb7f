"""Killed at any write of an act, and started again, the operator ends where it would have ended undisturbed.

Each path (quarantine, revocation, release …) runs once undisturbed; its writes are recorded by name. Then it runs again
for every write n, with the operator killed once the n-th was answered; and once more, killed before the first was
forwarded. What the server holds at that instant is all that is left; the next process must make of it what the first
would have made. Writes pass one at a time meanwhile: what a crash before the n-th leaves is what one after the one
before it leaves. With SWEEP=full it is swept all the same: every write is stopped at before and after.

A server that is killed and starts again at that instant, while the operator goes on, ends in the same state too.

A path's `writes` list every write that may occur in it. One that is not listed fails the sweep, and one that is listed
must have been stopped at: whoever adds a write adds it to its path and sees it swept.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path as Directory
from typing import Any, Literal

from tests.support.audit import dry, violations
from tests.support.cluster import Cluster, eventually
from tests.support.controlplane import Component
from tests.support.ground import Ground, ground, of_namespace
from tests.support.proxy import CONFLICT, SERVER_ERROR, TOO_MANY_REQUESTS, Answer, Fault, LoseAnswer, Request, Write
from tests.support.rest import Json
from tests.support.scenario import (
    await_policies,
    claim,
    deadline,
    exception,
    finding_of,
    policy,
    quarantine_of,
    service_account,
    token_secret,
    verdict,
)
from tests.support.snapshot import difference, instants, snapshot, state
from tests.support.sweep import name_of

When = Literal["before", "after"]
WHENS: tuple[When, When] = ("before", "after")
Point = tuple[int, When]
"""At which write of a path, counted from 1."""
FULL = os.environ.get("SWEEP") == "full"
RECOVERY = 60.0  # seconds; one is usual, the rest is for a busy machine
PREPARED = 300.0  # seconds; acts come one after the other, and sixteen namespaces are made ready at once
TOGETHER = 16  # namespaces in which something fails at once; acts come one after the other, and all have to be in time
POLL = 0.3  # seconds; many namespaces are waited for at once, and the operator needs the processor

LATER = "90d"
FAULTS: dict[str, Answer | LoseAnswer] = {
    "conflict": CONFLICT,
    "too-many-requests": TOO_MANY_REQUESTS,
    "server-error": SERVER_ERROR,
    "lost-answer": LoseAnswer(),
}


@dataclass(frozen=True)
class Path:
    """One path. `prepare` makes what has to be there before, `ready` says when it is; `trigger` sets the path off,
    `done` says when it is at its end. `writes` are named as in tests/support/sweep.py."""

    title: str
    policies: tuple[Json, ...]
    """Those of its namespaces, made with `plain` and `held`."""
    trigger: Callable[[Ground, str], object]
    done: Callable[[Ground, str], bool]
    writes: frozenset[str]
    prepare: Callable[[Ground, str], object] = lambda ground, namespace: None
    ready: Callable[[Ground, str], bool] = lambda ground, namespace: True
    hold: bool = False
    """Once ready, its policy is suspended there (or eased) until it is set off; `held`: from the beginning."""
    held: bool = False
    sometimes: frozenset[str] = frozenset()
    """Writes that two runs may put together into one: swept when they occur, not missed when they do not."""
    counted: int = 0
    """How many openings reach their deadline or decision in it."""
    check: Callable[[Ground, str], object] = lambda ground, namespace: None
    arrange: Callable[[Ground], object] | None = None
    """What has to be in its cluster besides: people, opt-ins."""
    follow: bool = False
    """The operator follows the cluster's audit log (`ground`)."""
    fails: Callable[[str], bool] = lambda name: True
    """Which of its writes fail, too. They do in many namespaces at once: where one takes long, those alone that no
    other path has."""


def identity(ground: Ground, namespace: str, tokens: tuple[str, ...]) -> None:
    """A ServiceAccount, and its tokens once the operator knows of it: two watches keep no order between them."""
    ground.cluster.create(service_account(namespace, "ci"))

    def known() -> bool:
        return ground.proxy.stopped.is_set() or finding_of(ground.cluster, namespace, "Unowned", "ci") is not None

    eventually(known, 60, POLL, what=f"a finding on ServiceAccount {namespace}/ci")
    for token in tokens:
        ground.cluster.create(token_secret(namespace, token, "ci"))


def account_with_tokens(ground: Ground, namespace: str) -> None:
    identity(ground, namespace, ("ci-a", "ci-b"))


def account_with_token(ground: Ground, namespace: str) -> None:
    identity(ground, namespace, ("ci-a",))


def account(ground: Ground, namespace: str) -> None:
    identity(ground, namespace, ())


def quarantined(name: str = "ci") -> Callable[[Ground, str], bool]:
    """Whether all stages of the subject's Quarantine are verified and its finding says so."""

    def ready(ground: Ground, namespace: str) -> bool:
        found = quarantine_of(ground.cluster, namespace, name)
        stages = (found or {}).get("status", {}).get("stages", ())
        finding = finding_of(ground.cluster, namespace, "Unowned" if name == "ci" else "LegacyToken", name)
        return (
            len(stages) == 2
            and all(stage.get("verified") for stage in stages)
            and finding is not None
            and finding["status"]["phase"] == "Quarantined"
        )

    return ready


def overdue(ground: Ground, namespace: str) -> bool:
    """Whether the token's deadline has passed, and nothing but the suspension holds the act."""
    finding = finding_of(ground.cluster, namespace, "LegacyToken", "ci-a")
    return finding is not None and finding["status"]["dueOutcome"] == "missed"


def revoked(ground: Ground, namespace: str) -> bool:
    """Whether the tokens of the ServiceAccount were revoked and its finding says so."""
    finding = finding_of(ground.cluster, namespace, "Unowned", "ci")
    acts = finding["status"]["acts"] if finding else ()
    return any(act["verdict"] == "Revoke" and act.get("verified") for act in acts)


def on_record(ground: Ground, namespace: str) -> bool:
    """Whether the token is gone, its finding resolved, and only the record of its name is left."""
    found = quarantine_of(ground.cluster, namespace, "ci-a")
    finding = finding_of(ground.cluster, namespace, "LegacyToken", "ci-a")
    return (
        found is not None
        and not found["metadata"].get("finalizers")
        and finding is not None
        and finding["status"]["phase"] == "Resolved"
    )


def released(ground: Ground, namespace: str) -> bool:
    """Whether the ServiceAccount's Quarantine is gone."""
    return quarantine_of(ground.cluster, namespace, "ci") is None


def ended(ground: Ground, namespace: str) -> bool:
    """Whether no Quarantine is left."""
    return not ground.cluster.list("quarantines", namespace)


def let_go(ground: Ground, namespace: str) -> None:
    """Takes the namespace out of the suspended policy: what waits there is due at once."""
    ground.cluster.patch("namespaces", namespace, {"metadata": {"labels": {"hold": None}}})


def claim_it(ground: Ground, namespace: str) -> None:
    ground.cluster.create(claim(namespace, "team", accounts=["ci"]), user="carla")


def release_it(ground: Ground, namespace: str) -> None:
    found = quarantine_of(ground.cluster, namespace, "ci")
    assert found is not None
    ground.cluster.delete("quarantines", found["metadata"]["name"], namespace, user="rita")


def judge(kind: str, rule: str = "Unowned", name: str = "ci") -> Callable[[Ground, str], object]:
    """judy gives a verdict on the finding."""

    def given(ground: Ground, namespace: str) -> None:
        found = finding_of(ground.cluster, namespace, rule, name)
        assert found is not None
        ground.cluster.create(verdict(found, kind, by="judy"), user="judy")

    return given


def judge_release(ground: Ground, namespace: str) -> None:
    found = quarantine_of(ground.cluster, namespace, "ci")
    assert found is not None
    ground.cluster.create(verdict(found, "Release", by="judy"), user="judy")


def opened(ground: Ground, namespace: str) -> bool:
    """Whether the identity and its tokens have their findings."""
    return all(
        finding_of(ground.cluster, namespace, *about) is not None
        for about in (("Unowned", "ci"), ("LegacyToken", "ci-a"), ("LegacyToken", "ci-b"))
    )


def said(name: str, effect: str) -> Callable[[Ground, str], bool]:
    """Whether the decision says that it counted, and what it led to."""

    def told(ground: Ground, namespace: str) -> bool:
        found = ground.cluster.get("identitydecisions", name, namespace)
        status = (found or {}).get("status", {})
        return bool(status.get("outcome") == "Counted" and str(status.get("effect", "")).startswith(effect))

    return told


def both(*conditions: Callable[[Ground, str], bool]) -> Callable[[Ground, str], bool]:
    return lambda ground, namespace: all(condition(ground, namespace) for condition in conditions)


def claimed_and_excepted(ground: Ground, namespace: str) -> None:
    """A ServiceAccount with a claim, and a waiver in force that would be needed without it."""
    account(ground, namespace)
    claim_it(ground, namespace)
    ground.cluster.create(exception(namespace, "ServiceAccount", "ci", "Unowned"))


def waived(ground: Ground, namespace: str) -> bool:
    found = ground.cluster.get("identityexceptions", "exception", namespace)
    finding = finding_of(ground.cluster, namespace, "Unowned", "ci")
    return bool(
        found
        and found.get("status", {}).get("phase") == "Active"
        and finding is not None
        and finding["status"]["phase"] == "Resolved"
    )


def excepted(ground: Ground, namespace: str) -> bool:
    finding = finding_of(ground.cluster, namespace, "Unowned", "ci")
    return finding is not None and finding["status"]["phase"] == "Excepted"


def reopened_in_time(ground: Ground, namespace: str) -> None:
    """After a person's release: due = release + decideWithin, to the second."""
    finding = finding_of(ground.cluster, namespace, "Unowned", "ci")
    assert finding is not None
    status = finding["status"]
    due, since = (datetime.fromisoformat(status[instant]) for instant in ("due", "released"))
    assert (due - since).total_seconds() == 3600


UNOWNED = "finding Unowned of ServiceAccount/ci"
LEGACY = "finding LegacyToken of Secret/ci-a"
ACCOUNT = "quarantine of serviceaccount-ci"
SECRET = "quarantine of secret-ci-a"
BOTH = "Guard verified, DisableTokens verified"
QUARANTINED = "missed, by Policy, Quarantine verified"
JUDGED = "met, by Verdict, Quarantine verified"


TOKENS_LATER = deadline("LegacyToken", within=LATER, action="Nothing")
ACCOUNTS_LATER = deadline("Unowned", within=LATER, action="Nothing")


def plain(title: str, *deadlines: Json, **spec: Any) -> Json:
    """The policy of a path's namespaces."""
    return policy(title, *deadlines, labels={"path": title}, **spec)


def held(title: str, *deadlines: Json, **spec: Any) -> Json:
    """The policy that comes before it where the label `hold` stands."""
    return policy(f"{title}-held", *deadlines, labels={"path": title, "hold": "yes"}, precedence=1, **spec)


class Sweep:
    """The paths of one file run in one cluster, with one operator at a time."""

    def __init__(self, ground: Ground) -> None:
        self.ground, self.cluster, self.proxy, self.operator = ground, ground.cluster, ground.proxy, ground.operator
        self.points = 0
        self._undisturbed: dict[str, tuple[Json, list[str]]] = {}

    def namespaces(self, path: Path, count: int) -> list[str]:
        """So many namespaces in which the path may be set off."""

        def make(_: int) -> str:
            labels = {"path": path.title, **({"hold": "yes"} if path.held else {})}
            namespace = self.cluster.namespace(path.title, labels=labels)
            path.prepare(self.ground, namespace)
            eventually(lambda: path.ready(self.ground, namespace), PREPARED, POLL, what=f"{namespace} ready")
            if path.hold:
                self.cluster.patch("namespaces", namespace, {"metadata": {"labels": {"hold": "yes"}}})
            return namespace

        with ThreadPoolExecutor(16) as pool:
            made = list(pool.map(make, range(count)))
        self.ground.settle()
        return made

    def pool(self, path: Path, first: int) -> Iterator[str]:
        """Namespaces without end, made many at a time."""
        count = first
        while True:
            yield from self.namespaces(path, count)
            count = 3

    def undisturbed(self, path: Path) -> tuple[Json, list[str]]:
        """Runs the path in peace, once: the state it ends in, and its writes by name."""
        if path.title not in self._undisturbed:
            self._undisturbed[path.title] = self._in_peace(path)
        return self._undisturbed[path.title]

    def _in_peace(self, path: Path) -> tuple[Json, list[str]]:
        [namespace] = self.namespaces(path, 1)
        self.proxy.reset()
        path.trigger(self.ground, namespace)
        eventually(lambda: path.done(self.ground, namespace), RECOVERY, what=f"{path.title} undisturbed")
        self.ground.settle()
        path.check(self.ground, namespace)
        return snapshot(self.cluster, namespace), self.names(namespace)

    def names(self, namespace: str) -> list[str]:
        """The writes since the last reset, as this namespace sees them."""
        return [name_of(write, namespace) for write in self.proxy.writes(of_namespace(namespace))]

    def run(self, path: Path) -> None:
        """Kills the operator at every write of the path, and asserts everything the docstring of this file promises."""

        def killed() -> None:
            self.operator.kill()
            self.proxy.resume()
            self.operator.start()

        with self.telling():
            count = len(self.undisturbed(path)[1])
            points = every(count)
            if FULL:
                points += [(n, "before") for n in range(2, count + 1)]
            self._sweep(path, "killed", killed, points, ("before", "after") if FULL else ("after",))

    def restart(self, path: Path, server: Component, share: float) -> None:
        """The same where a server is killed at every write and starts again, and the operator goes on; without
        SWEEP=full at one write alone, that which stands so far along the path (0 to 1)."""
        plane = self.cluster.control_plane
        assert plane is not None

        def restarted() -> None:
            plane.kill(server)
            self.proxy.resume()  # what the operator asks from now on, it asks in vain
            plane.start_component(server)
            plane.wait_ready()
            await_policies(self.cluster.rest)

        # A server that has just started lets pass for a second what a stage refuses: that is told, and tried again.
        failed = {"failed".join(name.rsplit("verified", 1)) for name in path.writes if name.startswith("quarantine of")}
        path = replace(path, sometimes=path.sometimes | failed)
        with self.telling():
            count = len(self.undisturbed(path)[1])
            if FULL:
                self._sweep(path, f"{server} restarted", restarted, every(count), ("after",))
            else:
                one = (1 + int(share * count), WHENS[server == "etcd"])
                self._sweep(path, f"{server} restarted", restarted, [one], ())

    @contextlib.contextmanager
    def telling(self) -> Iterator[None]:
        """Of a sweep that fails, prints what the operator said last."""
        try:
            yield
        except BaseException:
            print(self.operator.log_tail(60))
            raise

    def _sweep(
        self, path: Path, what: str, strike: Callable[[], None], points: list[Point], whens: tuple[When, ...]
    ) -> None:
        """Strikes at each of these points in a namespace of its own, and further ones until every listed write was
        struck at, each of these `whens`."""
        began = time.monotonic()
        expected, recorded = self.undisturbed(path)
        unknown = sorted(set(recorded) - path.writes - path.sometimes)
        assert not unknown, f"{path.title}: writes that the sweep does not list: {unknown}"
        position = self.ground.position()
        pool = self.pool(path, len(points) + 2)
        used = [next(pool)]
        covered: dict[When, Counter[str]] = {"before": Counter(), "after": Counter()}
        prepared = time.monotonic()
        for n, when in points:
            name = self.point(path, used[-1], expected, (n, when), of_namespace(used[-1]), what, strike)
            if name:
                covered[when][name] += 1
            used.append(next(pool))
        for when in whens:
            for name in sorted(path.writes - covered[when].keys()):
                hit = self.point(path, used[-1], expected, (1, when), named(name, used[-1]), what, strike)
                assert hit == name, f"{path.title}: listed, but it does not occur: {name}"
                covered[when][name] += 1
                used.append(next(pool))
        for namespace in used[:-1]:
            lines = difference(expected, snapshot(self.cluster, namespace))
            assert not lines, f"{path.title}: {namespace} changed afterwards:\n" + "\n".join(lines)
        self.acts_once(position, path, asked=1 if what == "killed" else 2)
        points_ = sum(covered["before"].values()) + sum(covered["after"].values())
        self.points += points_
        print(
            f"\n{path.title}: {what} at {points_} points, {len(covered['before'])} writes before, "
            f"{len(covered['after'])} after; {prepared - began:.0f} s to prepare, "
            f"{time.monotonic() - prepared:.0f} s to sweep"
        )

    def fail(self, path: Path) -> None:
        """Every write of the path fails once, in namespaces of their own and all at once: refused, postponed, failed,
        or its answer lost, one after the other; with SWEEP=full in each of these ways. All end in the same state."""
        with self.telling():
            self._fail(path)

    def _fail(self, path: Path) -> None:
        expected, recorded = self.undisturbed(path)
        names = [name for name in dict.fromkeys([*recorded, *sorted(path.writes)]) if path.fails(name)]
        kinds = list(FAULTS)
        planned = [
            (name, kind) for n, name in enumerate(names) for kind in (kinds if FULL else (kinds[n % len(kinds)],))
        ]
        position = self.ground.position()
        missed: set[str] = set()
        for start in range(0, len(planned), TOGETHER):
            missed |= self._fail_together(path, expected, planned[start : start + TOGETHER])
        assert missed <= path.sometimes, f"{path.title}: writes that did not occur, so did not fail: {sorted(missed)}"
        self.acts_once(position, path)
        self.points += len(planned) - len(missed)
        print(f"\n{path.title}: {len(planned)} failed writes, {len(names)} writes")

    def _fail_together(self, path: Path, expected: Json, planned: list[tuple[str, str]]) -> set[str]:
        """The same for some of them; the names of writes that did not occur."""
        places = self.namespaces(path, len(planned))
        before = outcomes(self.cluster)

        def disturbed(case: tuple[tuple[str, str], str]) -> tuple[str, str, Fault]:
            (name, kind), namespace = case
            fault = self.proxy.fault(named(name, namespace), FAULTS[kind])
            path.trigger(self.ground, namespace)
            return f"{kind} at {name}", namespace, fault

        with ThreadPoolExecutor(8) as pool:
            cases = list(pool.map(disturbed, zip(planned, places, strict=True)))
        missed = set()
        for where, namespace, fault in cases:
            self.converged(namespace, expected, f"{path.title}: {where}")
            path.check(self.ground, namespace)
            if not fault.hits:
                missed.add(where.partition(" at ")[2])
                fault.remove()
        rise = outcomes(self.cluster) - before
        assert rise == path.counted * len(cases), (
            f"{path.title}: {rise} outcomes were counted in {len(cases)} namespaces"
        )
        return missed

    def point(
        self,
        path: Path,
        namespace: str,
        expected: Json,
        at: Point,
        match: Callable[[Request], bool],
        what: str,
        strike: Callable[[], None],
    ) -> str:
        """One strike: the name of the write at which it came, "" when the path ended before its n-th write."""
        cluster, proxy, (n, when) = self.cluster, self.proxy, at
        before = outcomes(cluster)
        proxy.reset()
        (proxy.stop_before if when == "before" else proxy.stop_after)(n, match)
        path.trigger(self.ground, namespace)
        began = time.monotonic()
        while not proxy.stopped.wait(0.25):
            if time.monotonic() - began > 1 and not difference(expected, snapshot(cluster, namespace)):
                if proxy.stopped.wait(1):  # the last write makes the end, which was seen before its answer
                    break
                proxy.resume()
                self.unlisted(path, namespace, f"{path.title}: undisturbed")
                return ""
            assert time.monotonic() - began < RECOVERY, f"{path.title}: neither write {n} nor the end"
        name = name_of(proxy.wait_stopped(), namespace)
        where = f"{path.title}: {what} {when} write {n}, {name}"
        stamped = instants(cluster, namespace)
        strike()
        self.converged(namespace, expected, where)
        later = instants(cluster, namespace)
        moved = {place: (value, later[place]) for place, value in stamped.items() if later.get(place, value) != value}
        assert not moved, f"{where}: instants were stamped twice: {moved}"
        path.check(self.ground, namespace)
        self.unlisted(path, namespace, where)
        rise = outcomes(cluster) - before
        assert rise == path.counted, f"{where}: {rise} outcomes were counted, not {path.counted}"
        eventually(self.metrics_agree, RECOVERY, what=f"{where}: the metrics say what the memory says")
        return name

    def metrics_agree(self) -> bool:
        """Whether the counter is there (it is not before its value is known) and counts what is remembered."""
        name, seen = "tenure_decisions_due_total", self.operator.metrics()
        return seen.has(name) and seen.value(name) == outcomes(self.cluster)

    def converged(self, namespace: str, expected: Json, where: str) -> None:
        """Waits until the namespace is in the state of an undisturbed run."""
        deadline = time.monotonic() + RECOVERY
        self.operator.wait_ready()
        while True:
            self.ground.settle(0.15)
            lines = difference(expected, snapshot(self.cluster, namespace))
            if not lines:
                return
            self.operator.check()
            if time.monotonic() > deadline:
                seen = "\n".join([*lines, f"writes: {self.names(namespace)}"])
                raise AssertionError(f"{where}: it ended elsewhere:\n{seen}")

    def unlisted(self, path: Path, namespace: str, where: str) -> None:
        """Every write since the last reset is one that the path lists."""
        unknown = sorted(set(self.names(namespace)) - path.writes - path.sometimes)
        assert not unknown, f"{where}: writes that the sweep does not list: {unknown}"

    def acts_once(self, position: int, path: Path, asked: int = 1) -> None:
        """By the audit log: every Secret was switched off or on, or deleted, at most once, every Quarantine and
        finding created once and every Quarantine, ServiceAccount and binding deleted once; or a Quarantine's deletion
        `asked` for so often, which does nothing the second time: where a server goes before its answer is read, nobody
        knows."""
        done: Counter[tuple[Any, ...]] = Counter()
        for event in self.ground.audit(position):
            about, code = event.get("objectRef", {}), event.get("responseStatus", {}).get("code", 0)
            verb, resource = event["verb"], about.get("resource")
            if verb not in ("patch", "delete") or code >= 300 or dry(event):
                continue
            created = code == 201 and resource in ("quarantines", "identityfindings")
            ended = verb == "delete" and resource in ("quarantines", "serviceaccounts", "rolebindings")
            if resource == "secrets" or created or ended:
                done[(about["namespace"], verb, resource, about["name"])] += 1
        assert done, f"{path.title}: the audit log shows no act"
        # A Secret is switched off while a namespace is prepared, and on again by the path.
        most = {act: 2 if act[1:3] == ("patch", "secrets") and "secret ci-a: on" in path.writes else 1 for act in done}
        most |= {act: asked for act in done if act[1:3] == ("delete", "quarantines")}
        twice = {act: count for act, count in done.items() if count > most[act]}
        assert not twice, f"{path.title}: done more than once: {twice}"


def every(count: int) -> list[Point]:
    """Every instant between two of so many writes."""
    return [(1, "before"), *((n, "after") for n in range(1, count + 1))]


def outcomes(cluster: Cluster) -> int:
    """How many openings `tenure_decisions_due_total` has counted."""
    return sum(state(cluster)["counters"].get("decisions_due_total", {}).values())


def named(name: str, namespace: str) -> Callable[[Request], bool]:
    """The write of that name."""
    here = of_namespace(namespace)
    return lambda request: here(request) and isinstance(request, Write) and name_of(request, namespace) == name


@contextlib.contextmanager
def sweeping(directory: Directory, paths: Sequence[Path]) -> Iterator[Sweep]:
    """A cluster with the policies of these paths. In the end, the operator must have written nothing but its own."""
    with ground(directory, follow=any(path.follow for path in paths)) as made:
        for path in paths:
            for manifest in path.policies:
                made.cluster.create(manifest)
        for arrange in dict.fromkeys(path.arrange for path in paths if path.arrange):
            arrange(made)
        swept = Sweep(made)
        yield swept
        assert not violations(made.audit())
        print(f"\n{swept.points} points in all, all of them ended in the same state")
