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
from datetime import datetime
from typing import Any, Literal

import pytest

from tests.support.audit import violations
from tests.support.cluster import Cluster, eventually
from tests.support.ground import Ground, ground, of_namespace
from tests.support.proxy import Request, Write
from tests.support.rest import Json
from tests.support.scenario import (
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

pytestmark = [pytest.mark.local, pytest.mark.slow]

When = Literal["before", "after"]
RECOVERY = 60.0  # seconds; one is usual, the rest is for a busy machine

LATER = "90d"
TOKENS = ("ci-a", "ci-b")


@dataclass(frozen=True)
class Path:
    """One path; the policies of its namespaces are those of its title. `prepare` makes what has to be there before,
    `ready` says when it is; `trigger` sets the path off, `done` says when it is at its end."""

    title: str
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


def identity(ground: Ground, namespace: str, tokens: tuple[str, ...]) -> None:
    """A ServiceAccount, and its tokens once the operator knows of it: two watches keep no order between them."""
    ground.cluster.create(service_account(namespace, "ci"))

    def known() -> bool:
        return ground.proxy.stopped.is_set() or finding_of(ground.cluster, namespace, "Unowned", "ci") is not None

    eventually(known, 60, what=f"a finding on ServiceAccount {namespace}/ci")
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

PATHS = (
    Path(
        "quarantine",
        trigger=account_with_tokens,
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
        prepare=account_with_tokens,
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
        prepare=account_with_token,
        ready=overdue,
        held=True,
        trigger=let_go,
        done=quarantined("ci-a"),
        writes=frozenset(
            {
                f"{LEGACY}: Open, missed",  # no longer blocked by the suspension
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
        prepare=account_with_token,
        ready=quarantined("ci-a"),
        hold=True,
        trigger=let_go,
        done=on_record,
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
        prepare=account_with_token,
        ready=quarantined("ci-a"),
        trigger=lambda ground, namespace: ground.cluster.delete("secrets", "ci-a", namespace),
        done=on_record,
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
        prepare=account_with_token,
        ready=on_record,
        trigger=lambda ground, namespace: ground.cluster.delete("serviceaccounts", "ci", namespace),
        done=ended,
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
        "subject-gone",
        prepare=account,
        ready=quarantined(),
        trigger=lambda ground, namespace: ground.cluster.delete("serviceaccounts", "ci", namespace),
        done=ended,
        writes=frozenset(
            {
                f"{UNOWNED}: Resolved, {QUARANTINED}",
                f"{ACCOUNT}: {BOTH}, releasing",
                f"{ACCOUNT}: deleted",
                "guard of namespace: deleted",
                "guard of bindings: not named",
                f"{ACCOUNT}: finalizer off",
            }
        ),
    ),
    Path(
        "exception",  # opened, and decided, by one write
        prepare=claimed_and_excepted,
        ready=waived,
        trigger=lambda ground, namespace: ground.cluster.delete("ownedidentities", "claim", namespace),
        done=excepted,
        counted=1,
        writes=frozenset(
            {
                "apply identityowners/status",
                "memory: turned, 2 counted, 0 acts",
                f"{UNOWNED}: Excepted, met, by Exception",
                "apply identityexceptions/status",  # it is needed now
            }
        ),
    ),
    Path(
        "claim",
        prepare=account_with_tokens,
        ready=quarantined(),
        trigger=claim_it,
        done=ended,
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
        # The new owner's contact, when the crash comes before the release has begun.
        sometimes=frozenset({"guard of namespace: 1 accounts, 2 secrets", "guard of bindings: named"}),
    ),
    Path(
        "claim-after-revocation",
        prepare=account_with_tokens,
        ready=revoked,
        trigger=claim_it,
        done=released,
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
        sometimes=frozenset(
            {
                "guard of namespace: 1 secrets, 2 revoked",  # a record whose second write is missing
                "guard of namespace: 1 accounts, 2 revoked",
                "guard of bindings: named",
            }
        ),
    ),
    Path(
        "person",
        prepare=account_with_tokens,
        ready=quarantined(),
        hold=True,
        trigger=release_it,
        done=ended,
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
    Path(
        "verdict",  # Quarantine: decided and counted by one write, long before the deadline
        prepare=account_with_tokens,
        ready=opened,
        trigger=judge("Quarantine"),
        done=both(quarantined(), said("quarantine", "Quarantine/")),
        counted=1,
        writes=frozenset(
            {
                "memory: turned, 1 counted, 0 acts",
                f"{UNOWNED}: Open, met, by Verdict",
                "decision quarantine: Counted, not begun",
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
                f"{UNOWNED}: Quarantined, {JUDGED}",
                "decision quarantine: Counted",
            }
        ),
        sometimes=frozenset({f"{UNOWNED}: Open, met, by Verdict, Quarantine started"}),
    ),
    Path(
        "verdict-revoke",  # of what the policy quarantined
        prepare=account_with_token,
        ready=quarantined("ci-a"),
        trigger=judge("Revoke", "LegacyToken", "ci-a"),
        done=both(on_record, said("revoke", "Quarantine/")),
        counted=0,
        writes=frozenset(
            {
                "decision revoke: Counted",
                f"{SECRET}: intent",  # revokeAt
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
        "verdict-release",
        prepare=account_with_tokens,
        ready=quarantined(),
        hold=True,
        trigger=judge_release,
        done=both(ended, said("release", "Quarantine/")),
        check=reopened_in_time,
        writes=frozenset(
            {
                f"{ACCOUNT}: {BOTH}, 2 remembered, releasing",
                "decision release: Counted",
                f"{ACCOUNT}: deleted",
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

    def plain(title: str, *deadlines: Json, **spec: Any) -> Json:
        return policy(title, *deadlines, labels={"path": title}, **spec)

    return [
        plain("quarantine", unowned, tokens),
        plain("revocation", revoking, tokens),
        held("revocation", revoking, tokens, suspend=True),
        plain("legacy", legacy, accounts),
        held("legacy", legacy, accounts, suspend=True),
        plain("legacy-revocation", revoking_tokens, accounts),
        held("legacy-revocation", revoking_tokens, accounts, suspend=True),
        plain("deleted-by-others", legacy, accounts),
        plain("end-of-record", deadline("LegacyToken", revoke_after="1s"), accounts),
        plain("subject-gone", unowned, tokens),
        plain("exception", accounts, tokens, exceptions={"classes": [{"class": "Migration", "approvals": []}]}),
        plain("claim", unowned, tokens),
        plain("claim-after-revocation", deadline("Unowned", revoke_after="1s"), tokens),
        plain("person", unowned, tokens),
        held("person", deadline("Unowned", within="1h"), tokens),
        plain("verdict", accounts, tokens),
        plain("verdict-revoke", legacy, accounts),
        plain("verdict-release", unowned, tokens),
        held("verdict-release", deadline("Unowned", within="1h"), tokens),
    ]


class Sweep:
    """Every path of this file runs in one cluster, with one operator at a time."""

    def __init__(self, ground: Ground) -> None:
        self.ground, self.cluster, self.proxy, self.operator = ground, ground.cluster, ground.proxy, ground.operator
        self.points = 0

    def namespaces(self, path: Path, count: int) -> list[str]:
        """So many namespaces in which the path may be set off."""

        def make(_: int) -> str:
            labels = {"path": path.title, **({"hold": "yes"} if path.held else {})}
            namespace = self.cluster.namespace(path.title, labels=labels)
            path.prepare(self.ground, namespace)
            eventually(lambda: path.ready(self.ground, namespace), 120, 0.2, what=f"{namespace} ready")
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
            count = 8

    def undisturbed(self, path: Path) -> tuple[Json, list[str]]:
        """Runs the path in peace: the state it ends in, and its writes by name."""
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
        """Sweeps the path and asserts everything the docstring of this file promises."""
        began = time.monotonic()
        expected, recorded = self.undisturbed(path)
        unknown = sorted(set(recorded) - path.writes - path.sometimes)
        assert not unknown, f"{path.title}: writes that the sweep does not list: {unknown}"
        position = self.ground.position()
        pool = self.pool(path, 2 * len(recorded) + 2)
        used = [next(pool)]
        covered: dict[When, Counter[str]] = {"before": Counter(), "after": Counter()}
        prepared = time.monotonic()
        for n in range(1, len(recorded) + 1):
            for when in covered:
                name = self.point(path, used[-1], expected, n, when, of_namespace(used[-1]))
                if name:
                    covered[when][name] += 1
                used.append(next(pool))
        for when in covered:
            for name in sorted(path.writes - covered[when].keys()):
                hit = self.point(path, used[-1], expected, 1, when, named(name, used[-1]))
                assert hit == name, f"{path.title}: listed, but it does not occur: {name}"
                covered[when][name] += 1
                used.append(next(pool))
        for namespace in used[:-1]:
            lines = difference(expected, snapshot(self.cluster, namespace))
            assert not lines, f"{path.title}: {namespace} changed afterwards:\n" + "\n".join(lines)
        self.acts_once(position, path)
        points = sum(covered["before"].values()) + sum(covered["after"].values())
        self.points += points
        print(
            f"\n{path.title}: {points} points, {len(covered['before'])} writes before, {len(covered['after'])} after; "
            f"{prepared - began:.0f} s to prepare, {time.monotonic() - prepared:.0f} s to sweep"
        )

    def point(
        self, path: Path, namespace: str, expected: Json, n: int, when: When, match: Callable[[Request], bool]
    ) -> str:
        """One crash: the name of the write at which it came, "" when the path ended before its n-th write."""
        cluster, proxy = self.cluster, self.proxy
        before = outcomes(cluster)
        proxy.reset()
        (proxy.stop_before if when == "before" else proxy.stop_after)(n, match)
        path.trigger(self.ground, namespace)
        began = time.monotonic()
        while not proxy.stopped.wait(0.25):
            if time.monotonic() - began > 1 and not difference(expected, snapshot(cluster, namespace)):
                proxy.resume()
                self.unlisted(path, namespace, f"{path.title}: undisturbed")
                return ""
            assert time.monotonic() - began < RECOVERY, f"{path.title}: neither write {n} nor the end"
        name = name_of(proxy.wait_stopped(), namespace)
        where = f"{path.title}: killed {when} write {n}, {name}"
        stamped = instants(cluster, namespace)
        self.operator.kill()
        proxy.resume()
        self.operator.start()
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
        while True:
            self.ground.settle(0.1)
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

    def acts_once(self, position: int, path: Path) -> None:
        """By the audit log: every Secret was switched off or on, or deleted, at most once, every Quarantine and finding
        created and every Quarantine deleted once."""
        done: Counter[tuple[Any, ...]] = Counter()
        for event in self.ground.audit(position):
            about, code = event.get("objectRef", {}), event.get("responseStatus", {}).get("code", 0)
            verb, resource = event["verb"], about.get("resource")
            if verb not in ("patch", "delete") or code >= 300:
                continue
            created = code == 201 and resource in ("quarantines", "identityfindings")
            if resource == "secrets" or created or (resource == "quarantines" and verb == "delete"):
                done[(about["namespace"], verb, resource, about["name"])] += 1
        assert done, f"{path.title}: the audit log shows no act"
        # A Secret is switched off while a namespace is prepared, and on again by the path.
        most = {act: 2 if act[1:3] == ("patch", "secrets") and "secret ci-a: on" in path.writes else 1 for act in done}
        twice = {act: count for act, count in done.items() if count > most[act]}
        assert not twice, f"{path.title}: done more than once: {twice}"


def outcomes(cluster: Cluster) -> int:
    """How many openings `tenure_decisions_due_total` has counted."""
    return sum(state(cluster)["counters"].get("decisions_due_total", {}).values())


def named(name: str, namespace: str) -> Callable[[Request], bool]:
    """The write of that name."""
    here = of_namespace(namespace)
    return lambda request: here(request) and isinstance(request, Write) and name_of(request, namespace) == name


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sweep]:
    with ground(tmp_path_factory.mktemp("operator")) as made:
        for manifest in policies():
            made.cluster.create(manifest)
        swept = Sweep(made)
        yield swept
        assert not violations(made.audit())
        print(f"\n{swept.points} crash points in all")


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.title)
def test_a_crash_at_any_write_ends_in_the_same_state(sweep: Sweep, path: Path) -> None:
    try:
        sweep.run(path)
    except BaseException:
        print(sweep.operator.log_tail(60))
        raise


def test_processes_that_live_for_one_write_each_get_there_too(sweep: Sweep) -> None:
    """The whole quarantine path, killed after every single write, one after the other."""
    path = next(path for path in PATHS if path.title == "quarantine")
    expected, recorded = sweep.undisturbed(path)
    [namespace] = sweep.namespaces(path, 1)
    before, lives = outcomes(sweep.cluster), 1
    sweep.proxy.reset()
    sweep.proxy.stop_after(1, of_namespace(namespace))
    path.trigger(sweep.ground, namespace)
    while True:
        if sweep.proxy.stopped.wait(0.5):
            sweep.operator.kill()
            sweep.proxy.resume()
            sweep.proxy.stop_after(1, of_namespace(namespace))
            sweep.operator.start()
            lives += 1
        elif not difference(expected, snapshot(sweep.cluster, namespace)):
            break
        assert lives <= 2 * len(recorded), f"no end: {sweep.names(namespace)}"
    sweep.proxy.resume()
    assert outcomes(sweep.cluster) - before == path.counted
    print(f"\n{lives} processes")


def test_an_act_that_was_entered_before_a_crash_needs_no_second_place(sweep: Sweep) -> None:
    """The blast radius allows one act an hour, and the crash came between its entry and the Quarantine."""
    cap = {"maxActions": 1, "maxPercentPerNamespace": 100}
    sweep.cluster.create(policy("capped", deadline("Unowned"), labels={"path": "capped"}, blastRadius=cap))
    namespace = sweep.cluster.namespace("capped", labels={"path": "capped"})
    sweep.proxy.reset()
    sweep.proxy.stop_after(1, named("memory: turned, 1 counted, 1 acts", namespace))
    account(sweep.ground, namespace)
    sweep.proxy.wait_stopped(RECOVERY)
    sweep.operator.kill()
    sweep.proxy.resume()
    sweep.operator.start()
    eventually(lambda: quarantined()(sweep.ground, namespace), RECOVERY, what="quarantined")
