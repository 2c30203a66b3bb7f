"""The benchmark: Tenure beside a bare client, on one loaded control plane, in one run.

    python -m tests.scale.bench --scale 1        # a few minutes
    python -m tests.scale.bench --scale 10       # the size the contract names; half an hour

Every figure that has an aim is a ratio of two things measured in turns in this run, or a count, since the same machine
is twice as fast at another hour. Prints Markdown tables; the figures also go to build/bench.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import aiohttp
import yaml

from tests.scale import figures, objects
from tests.scale.figures import Requests, median, number, percentile
from tests.scale.load import load, tls
from tests.support.cluster import REPOSITORY, Cluster, eventually
from tests.support.operator import Operator
from tests.support.rest import Credentials

OPERATOR: Final = "system:serviceaccount:tenure-system:tenure"
MIB: Final = 1024.0  # in KiB, as /proc counts
CHANGES: Final = 200
BURST: Final = 200
DISTURBED: Final = 20
"""Changes while everything is judged again: so few that they end before that does."""
ENTRIES: Final = 1_000
TOKENS: Final = 400
WRITES: Final = 100
"""In each of four turns."""
SCRAPES: Final = 20
SETTLE: Final = 20.0
"""Seconds between the last work and a reading of memory: kept-alive connections are closed by then."""
_COMPLETE: Final = re.compile(r"^(\S+Z) .*inventory complete", re.MULTILINE)
_BUSY: Final = 0.03  # processor seconds a second, above which somebody works


@dataclass
class Usage:
    """One process at one instant."""

    cpu: float
    rss: float
    peak: float

    @classmethod
    def of(cls, pid: int) -> Usage:
        """Seconds and MiB. Raises OSError when the process is gone."""
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        status = dict(re.findall(r"^(Vm\w+):\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE))
        ticks = os.sysconf("SC_CLK_TCK")
        return cls((int(stat[11]) + int(stat[12])) / ticks, int(status["VmRSS"]) / MIB, int(status["VmHWM"]) / MIB)


@dataclass
class Floor:
    """The bare client, once."""

    seconds: float
    """From the start of the process to the last row."""
    cpu: float
    peak: float
    objects: int


@dataclass
class Start:
    """The operator, started once."""

    inventory: float
    """Seconds from the start of the process to the complete inventory."""
    inventory_cpu: float
    settled: float
    """Seconds until it had nothing more to do."""
    settled_cpu: float
    memory: float
    peak: float
    requests: Requests


@dataclass
class Run:
    """Everything observed."""

    scale: int
    idle: float = 0.0
    idle_start: float = 0.0
    loaded: float = 0.0
    floors: list[Floor] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)
    findings: int = 0
    findings_seconds: float = 0.0
    quiet: Requests = field(default_factory=Requests)
    quiet_seconds: float = 0.0
    forced: Requests = field(default_factory=Requests)
    forced_seconds: float = 0.0
    changes: list[float] = field(default_factory=list)
    disturbed: list[float] = field(default_factory=list)
    burst: list[float] = field(default_factory=list)
    scrapes: list[float] = field(default_factory=list)
    scrape_bytes: int = 0
    open_tokens: list[float] = field(default_factory=list)
    guarded_tokens: list[float] = field(default_factory=list)
    free_writes: list[float] = field(default_factory=list)
    passed_writes: dict[int, list[float]] = field(default_factory=lambda: {1: [], ENTRIES: []})
    """By how many identities the policy holds."""

    def figures(self) -> dict[str, float]:
        """The named figures. Times are medians over the rounds, the ratio the median of the rounds' own."""
        restarts = self.starts[1:]
        return {
            "inventory_seconds": median(start.inventory for start in self.starts),
            "floor_seconds": median(floor.seconds for floor in self.floors),
            "inventory_ratio": median(s.inventory / f.seconds for s, f in zip(self.starts, self.floors, strict=True)),
            "findings_seconds": self.findings_seconds,
            "memory_above_idle_mib": max(start.memory for start in self.starts) - self.idle,
            "floor_memory_mib": median(floor.peak for floor in self.floors),
            "change_to_finding_p50_seconds": percentile(self.changes, 0.50),
            "change_to_finding_p99_seconds": percentile(self.changes, 0.99),
            "unchanged_pass_writes": sum(
                figures.writes(found).total() for found in (self.quiet, *(start.requests for start in restarts))
            ),
            "unchanged_pass_lists": figures.lists(self.quiet).total() + figures.lists(self.forced).total(),
            "scrape_seconds": median(self.scrapes),
            "guard_ratio": median(self.guarded_tokens) / median(self.open_tokens),
            "deny_writes_ratio": median(self.passed_writes[ENTRIES]) / median(self.passed_writes[1]),
        }


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


class Bench:
    """One run on one control plane of its own."""

    def __init__(self, cluster: Cluster, scale: int, rounds: int, quiet: float) -> None:
        assert cluster.control_plane is not None
        self.cluster = cluster
        self.plane = cluster.control_plane
        self.credentials = Credentials.from_kubeconfig(cluster.kubeconfig)
        self.rounds = rounds
        self.quiet = quiet
        self.run = Run(scale)

    def all(self) -> Run:
        run = self.run
        say("an idle operator on an empty cluster")
        with self.operator() as operator:
            run.idle, run.idle_start = self.idle(operator)
        say(f"loading {', '.join(f'{count:,} {kind}' for kind, count in objects.counts(run.scale).items())}")
        run.loaded = asyncio.run(load(self.cluster.kubeconfig, run.scale, say))
        for number_ in range(self.rounds - 1):
            self.round(number_)
        say(f"round {self.rounds}: the bare client")
        run.floors.append(self.floor())
        with self.operator() as operator:
            run.starts.append(self.start(operator))
            self.while_it_runs(operator)
        say("token requests, with and without a guard")
        self.guard()
        say("writes, without DenyWrites, with it, and with a thousand names in it")
        self.deny_writes()
        return run

    def round(self, number_: int) -> None:
        say(f"round {number_ + 1}: the bare client")
        self.run.floors.append(self.floor())
        with self.operator() as operator:
            self.run.starts.append(self.start(operator))

    def while_it_runs(self, operator: Operator) -> None:
        run = self.run
        say(f"an unchanged cluster, for {self.quiet:.0f} s")
        position = self.plane.audit_position()
        time.sleep(self.quiet)
        run.quiet, run.quiet_seconds = self.requests(position), self.quiet
        say("everything judged again, since the policy's precedence changed")
        self.force(operator)
        say(f"{CHANGES} changes one by one, {DISTURBED} while everything is judged again, {BURST} at once")
        run.changes = asyncio.run(self.changes("one", CHANGES, at_once=False))
        self.settle(operator)
        self.cluster.patch("governancepolicies", "default", {"spec": {"precedence": 2}})
        run.disturbed = asyncio.run(self.changes("amid", DISTURBED, at_once=False))
        self.settle(operator)
        run.burst = asyncio.run(self.changes("burst", BURST, at_once=True))
        self.settle(operator)
        say("scrapes")
        for _ in range(SCRAPES):
            began = time.perf_counter()
            run.scrape_bytes = len(operator.metrics_text())
            run.scrapes.append(time.perf_counter() - began)

    # --- the operator ----------------------------------------------------------------------------------------------

    @contextmanager
    def operator(self) -> Iterator[Operator]:
        """`tenure run`, not started yet; ended at the end."""
        operator = Operator(self.cluster.kubeconfig, wait=False)
        try:
            yield operator
        finally:
            operator.close()

    def idle(self, operator: Operator) -> tuple[float, float]:
        """(MiB after settling, seconds to the complete inventory) where there is nothing to govern."""
        began = time.time()
        operator.start()
        complete = self.complete(operator)
        self.settle(operator)
        return self.at_rest(operator).rss, complete - began

    def at_rest(self, operator: Operator) -> Usage:
        """Its memory some time after the last work, with what a scrape leaves behind: Prometheus comes all the time."""
        operator.metrics_text()
        time.sleep(SETTLE)
        return Usage.of(operator.pid)

    def start(self, operator: Operator) -> Start:
        """One start, until there is nothing left to do."""
        first = not self.run.starts
        say("the operator" if first else "the operator, started again")
        position = self.plane.audit_position()
        began = time.time()
        operator.start()
        complete = self.complete(operator)
        at_inventory = Usage.of(operator.pid)
        say(f"  inventory complete after {complete - began:.1f} s")
        settled = self.settle(operator)
        at_end = Usage.of(operator.pid)
        say(f"  nothing more to do after {settled - began:.1f} s")
        memory = self.at_rest(operator)
        if first:
            self.run.findings = self.count_findings()
            self.run.findings_seconds = self.last_finding(position) - began
            wanted = objects.findings(self.run.scale)
            if self.run.findings != wanted:
                say(f"  {self.run.findings} findings where the rules must come to {wanted}\n{operator.log_tail(20)}")
        return Start(
            inventory=complete - began,
            inventory_cpu=at_inventory.cpu,
            settled=settled - began,
            settled_cpu=at_end.cpu,
            memory=memory.rss,
            peak=memory.peak,
            requests=self.requests(position),
        )

    def complete(self, operator: Operator, timeout: float = 900.0) -> float:
        """When the inventory was complete, by the log line's own time."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            operator.check()
            found = _COMPLETE.search(operator.logs())
            if found:
                return datetime.fromisoformat(found[1]).timestamp()
            time.sleep(0.02)
        raise TimeoutError(f"no complete inventory within {timeout:.0f} s\n{operator.log_tail()}")

    def settle(self, operator: Operator, timeout: float = 3600.0) -> float:
        """Waits until it has been idle for three seconds; when that began."""
        deadline = time.monotonic() + timeout
        since, before = time.time(), Usage.of(operator.pid).cpu
        while time.time() - since < 3.0:
            if time.monotonic() > deadline:
                raise TimeoutError(f"still busy after {timeout:.0f} s\n{operator.log_tail()}")
            time.sleep(0.5)
            now = Usage.of(operator.pid).cpu
            if now - before > _BUSY * 0.5:
                since = time.time()
            before = now
        return since

    def force(self, operator: Operator) -> None:
        """Has every subject judged again: a policy's new precedence may change anything, and here changes nothing."""
        position = self.plane.audit_position()
        before = Usage.of(operator.pid).cpu
        self.cluster.patch("governancepolicies", "default", {"spec": {"precedence": 1}})
        self.settle(operator)
        self.run.forced = self.requests(position)
        self.run.forced_seconds = Usage.of(operator.pid).cpu - before

    # --- the API server's view -------------------------------------------------------------------------------------

    def requests(self, position: int) -> Requests:
        return figures.requests(self.plane.audit_events(position), OPERATOR)

    def count_findings(self) -> int:
        path = f"{self.cluster.path('identityfindings')}?limit=1"
        answer = self.cluster.rest.expect("GET", path)
        return len(answer["items"]) + int(answer["metadata"].get("remainingItemCount", 0))

    def last_finding(self, position: int) -> float:
        """When the last finding was written."""
        written = (
            event["stageTimestamp"]
            for event in self.plane.audit_events(position)
            if event["user"].get("username") == OPERATOR
            and event["verb"] == "patch"
            and event["objectRef"]["resource"] == "identityfindings"
        )
        return max(datetime.fromisoformat(at).timestamp() for at in written)

    def floor(self) -> Floor:
        certificate = self.credentials.certificate
        assert certificate is not None
        began = time.time()
        done = subprocess.run(
            [sys.executable, "-m", "tests.scale.floor", self.plane.server, str(self.plane.ca_file), *certificate],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=600,
            check=True,
        )
        told = json.loads(done.stdout)
        say(f"  {told['objects']:,} objects in {told['ended'] - began:.1f} s")
        return Floor(told["ended"] - began, told["cpu"], told["peak_mib"], told["objects"])

    # --- changes ---------------------------------------------------------------------------------------------------

    async def changes(self, prefix: str, count: int, *, at_once: bool) -> list[float]:
        """Seconds from sending each new, unowned ServiceAccount until a watch shows its finding."""
        path = self.cluster.path("identityfindings", namespace=objects.CHANGES)
        connector = aiohttp.TCPConnector(limit=0, ssl=tls(self.credentials))
        async with aiohttp.ClientSession(self.credentials.server, connector=connector, trust_env=False) as session:
            async with session.get(path, params={"limit": "1"}) as answer:
                version = (await answer.json())["metadata"]["resourceVersion"]
            seen: dict[str, asyncio.Future[float]] = {}
            watching = asyncio.create_task(_watch(session, path, version, seen))
            try:
                names = [f"{prefix}-{number_:03d}" for number_ in range(count)]
                if at_once:
                    return await asyncio.gather(*(_change(session, name, seen) for name in names))
                found = []
                for name in names:
                    found.append(await _change(session, name, seen))
                    await asyncio.sleep(0.03)
                return found
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)

    # --- guards ----------------------------------------------------------------------------------------------------

    def guard(self) -> None:
        """Token requests in two namespaces in turns, of which one has a guard with a thousand names in it."""
        entries = {
            f"held-{number_:04d}": {
                "quarantine": f"{objects.GUARDED}/serviceaccount-held-{number_:04d}",
                "owner": "platform",
                "contact": "Email platform@example.com",
            }
            for number_ in range(ENTRIES)
        }
        self.cluster.apply(
            {
                "apiVersion": objects.API,
                "kind": "QuarantineGuard",
                "metadata": {"name": "guard", "namespace": objects.GUARDED},
                "spec": {"serviceAccounts": entries, "secrets": entries},
            },
            user=OPERATOR,
            groups=["system:masters"],
        )
        for namespace in (objects.OPEN, objects.GUARDED):
            for name in ("free", "held-0000"):
                metadata = {"name": name, "namespace": namespace}
                self.cluster.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
        eventually(lambda: self.token(objects.GUARDED, "held-0000")[0] >= 400, what="a held ServiceAccount is refused")
        for number_ in range(TOKENS + 20):
            for namespace, times in (
                (objects.OPEN, self.run.open_tokens),
                (objects.GUARDED, self.run.guarded_tokens),
            ):
                status, seconds = self.token(namespace, "free")
                assert status == 201, f"a token for {namespace}/free: {status}"
                if number_ >= 20:  # the first ones warm the connections and the API server's caches
                    times.append(seconds)

    def token(self, namespace: str, name: str) -> tuple[int, float]:
        path = self.cluster.path("serviceaccounts", name, namespace, "token")
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 600}}
        began = time.perf_counter()
        status, _ = self.cluster.rest.request("POST", path, body)
        return status, time.perf_counter() - began

    def deny_writes(self) -> None:
        """Writes of a ServiceAccount that nothing holds, in three settings in turns: without the policy of the stage
        DenyWrites, where it holds one other, and where it holds a thousand."""
        documents = list(yaml.safe_load_all((REPOSITORY / "deploy" / "deny-writes.yaml").read_text()))
        kinds = ("validatingadmissionpolicies", "validatingadmissionpolicybindings")
        for _ in range(4):
            for kind in reversed(kinds):
                self.cluster.delete(kind, documents[0]["metadata"]["name"])
            eventually(lambda: self.write(0)[0] == 201, what="without the policy")
            self.write_often(self.run.free_writes)
            for document in documents:
                self.cluster.apply(document)
            for names, times in self.run.passed_writes.items():
                entries = {_user(number_): {"quarantine": f"{objects.OPEN}/held"} for number_ in range(names)}
                guard = {"apiVersion": objects.API, "kind": "QuarantineGuard", "spec": {"writers": entries}}
                about = {"name": "guard", "namespace": "tenure-system"}
                self.cluster.apply({**guard, "metadata": about}, user=OPERATOR, groups=["system:masters"])
                eventually(
                    lambda names=names: (self.write(names - 1)[0], self.write(names)[0]) == (403, 201),
                    what=f"a policy that holds {names}",
                )
                self.write_often(times)

    def write_often(self, times: list[float]) -> None:
        for number_ in range(WRITES + 20):
            status, seconds = self.write(ENTRIES)
            assert status == 201, f"a write: {status}"
            if number_ >= 20:
                times.append(seconds)

    def write(self, number_: int) -> tuple[int, float]:
        """A dry run, so that nothing grows, by the ServiceAccount of this number."""
        path = self.cluster.path("configmaps", namespace=objects.OPEN)
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "write"}, "data": {"a": "b"}}
        began = time.perf_counter()
        status, _ = self.cluster.rest.request(
            "POST", f"{path}?dryRun=All", body, user=_user(number_), groups=["system:masters"]
        )
        return status, time.perf_counter() - began


def _user(number_: int) -> str:
    return f"system:serviceaccount:{objects.OPEN}:held-{number_:04d}"


async def _watch(
    session: aiohttp.ClientSession, path: str, version: str, seen: dict[str, asyncio.Future[float]]
) -> None:
    """Notes when each finding first shows, by its subject's name."""
    query = {"watch": "true", "resourceVersion": version, "timeoutSeconds": "900"}
    timeout = aiohttp.ClientTimeout(total=None, sock_read=600)
    async with session.get(path, params=query, timeout=timeout, headers={"Accept-Encoding": "identity"}) as answer:
        rest = b""
        async for piece in answer.content.iter_any():
            at = time.perf_counter()
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                waiting = seen.get(json.loads(line)["object"]["spec"]["subject"]["name"])
                if waiting is not None and not waiting.done():
                    waiting.set_result(at)


async def _change(session: aiohttp.ClientSession, name: str, seen: dict[str, asyncio.Future[float]]) -> float:
    found = seen[name] = asyncio.get_running_loop().create_future()
    path = f"/api/v1/namespaces/{objects.CHANGES}/serviceaccounts"
    began = time.perf_counter()
    async with session.post(path, json=objects.unowned(name)) as answer:
        answer.raise_for_status()
    return float(await asyncio.wait_for(found, 120)) - began


# --- what is printed -------------------------------------------------------------------------------------------------


def report(run: Run) -> str:
    """The tables, as Markdown."""
    named = run.figures()
    parts = [
        _headline(run),
        figures.table(
            ("list everything", "wall s", "CPU s", "peak MiB", "wall ÷ client", "CPU ÷ client"),
            [
                row
                for number_, (floor, start) in enumerate(zip(run.floors, run.starts, strict=True), 1)
                for row in (
                    (f"{number_}. bare client", number(floor.seconds), number(floor.cpu), number(floor.peak), "", ""),
                    (
                        f"{number_}. Tenure, {'first start' if number_ == 1 else 'started again'}",
                        number(start.inventory),
                        number(start.inventory_cpu),
                        number(start.peak),
                        f"{start.inventory / floor.seconds:.2f}",
                        f"{start.inventory_cpu / floor.cpu:.2f}",
                    ),
                )
            ],
        ),
        figures.table(
            ("what", "value", "aim"),
            [
                (_WHAT[name], number(named[name]), f"≤ {number(figures.AIMS[name])}" if name in figures.AIMS else "")
                for name in figures.NAMES
            ]
            + [(what, value, "") for what, value in _more(run)],
        ),
        figures.table(
            ("requests of the operator", "first start", "again", "unchanged", "all judged again"), _asked(run)
        ),
    ]
    return "\n\n".join(parts)


def _headline(run: Run) -> str:
    held = ", ".join(f"{count:,} {kind}" for kind, count in objects.counts(run.scale).items())
    listed = f"{run.floors[-1].objects:,} objects listed, {run.findings:,} findings"
    return f"Scale {run.scale}: {held}; {listed}; {about_the_machine()}."


_WHAT: Final = {
    "inventory_seconds": "process start to complete inventory, s (median)",
    "floor_seconds": "bare client, s (median)",
    "inventory_ratio": "inventory ÷ bare client (median of the rounds)",
    "findings_seconds": "process start to the last finding written, s",
    "memory_above_idle_mib": "memory after settling, above an idle operator, MiB",
    "floor_memory_mib": "bare client's peak memory, MiB",
    "change_to_finding_p50_seconds": f"change to finding, p50 of {CHANGES}, s",
    "change_to_finding_p99_seconds": f"change to finding, p99 of {CHANGES}, s",
    "unchanged_pass_writes": "writes on an unchanged cluster, proofs aside: interval and restarts",
    "unchanged_pass_lists": "lists on an unchanged cluster",
    "scrape_seconds": "one /metrics scrape, s (median)",
    "guard_ratio": f"token request, guard with {ENTRIES:,} names ÷ without (medians)",
    "deny_writes_ratio": f"a write, DenyWrites with {ENTRIES:,} names ÷ with one (medians)",
}


def _more(run: Run) -> list[tuple[str, str]]:
    first, last = run.starts[0], run.starts[-1]
    return [
        ("idle operator: memory, MiB", number(run.idle)),
        ("idle operator: process start to complete inventory, s", number(run.idle_start)),
        ("first start: findings a second", number(run.findings / (run.findings_seconds - first.inventory))),
        ("first start: CPU until settled, s", number(first.settled_cpu)),
        ("first start: memory above idle, MiB", number(first.memory - run.idle)),
        ("restart: process start to settled, s", number(last.settled)),
        ("restart: CPU until settled, s", number(last.settled_cpu)),
        ("restart: memory above idle, MiB", number(last.memory - run.idle)),
        ("everything judged again: CPU, s", number(run.forced_seconds)),
        (f"change to finding while everything is judged again, p50 of {DISTURBED}, s", number(median(run.disturbed))),
        (f"{BURST} changes at once: the last finding after, s", number(max(run.burst))),
        ("a scrape's size, KiB", number(run.scrape_bytes / 1024)),
        ("token request without a guard, ms (median)", number(1000 * median(run.open_tokens))),
        (f"token request, {ENTRIES:,} names, ms (median)", number(1000 * median(run.guarded_tokens))),
        ("a write without DenyWrites, ms (median)", number(1000 * median(run.free_writes))),
        ("a write, DenyWrites with one name, ms (median)", number(1000 * median(run.passed_writes[1]))),
        (f"a write, {ENTRIES:,} names, ms (median)", number(1000 * median(run.passed_writes[ENTRIES]))),
        ("loading, s", number(run.loaded)),
    ]


def _asked(run: Run) -> list[tuple[str, ...]]:
    columns = (run.starts[0].requests, run.starts[-1].requests, run.quiet, run.forced)
    keys = sorted({key for column in columns for key in column})
    return [(f"{verb} {what}", *(str(column[verb, what]) for column in columns)) for verb, what in keys]


def about_the_machine() -> str:
    """Cores, memory, version and how busy it was: what a reader needs to judge absolute times."""
    total = int(re.findall(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[0]) / 1024 / 1024
    busy = f"load average {os.getloadavg()[2]:.1f} over 15 minutes"
    return f"{os.cpu_count()} cores, {total:.0f} GiB, Python {platform.python_version()}, {busy}"


def document(run: Run) -> dict[str, Any]:
    """build/bench.json: the named figures, then what explains them."""
    return {
        "scale": run.scale,
        **{name: round(value, 4) for name, value in run.figures().items()},
        "details": {
            "machine": about_the_machine(),
            "findings": run.findings,
            "objects": run.floors[-1].objects,
            "more": dict(_more(run)),
            "rounds": [
                {
                    "floor_seconds": round(floor.seconds, 3),
                    "floor_cpu_seconds": round(floor.cpu, 3),
                    "inventory_seconds": round(start.inventory, 3),
                    "inventory_cpu_seconds": round(start.inventory_cpu, 3),
                    "settled_seconds": round(start.settled, 3),
                    "settled_cpu_seconds": round(start.settled_cpu, 3),
                    "memory_above_idle_mib": round(start.memory - run.idle, 1),
                    "peak_mib": round(start.peak, 1),
                }
                for floor, start in zip(run.floors, run.starts, strict=True)
            ],
            "requests": {row[0]: row[1:] for row in _asked(run)},
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.scale.bench", description="Tenure beside a bare client.")
    parser.add_argument("--scale", type=int, default=1, help="1: 2,000 ServiceAccounts; 10: the contract's 20,000")
    parser.add_argument("--rounds", type=int, default=3, help="starts of bare client and operator, in turns")
    parser.add_argument(
        "--quiet", type=float, default=75.0, help="seconds to watch an unchanged cluster (bookmarks: each minute)"
    )
    parser.add_argument("--output", type=Path, default=REPOSITORY / "build" / "bench.json")
    options = parser.parse_args()
    with Cluster.local() as cluster:
        cluster.install()
        run = Bench(cluster, options.scale, options.rounds, options.quiet).all()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(document(run), indent=2, ensure_ascii=False) + "\n")
    print(report(run))


if __name__ == "__main__":
    main()
