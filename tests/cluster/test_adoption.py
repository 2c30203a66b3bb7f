"""docs/adoption.md, walked from its first command to its last on an old cluster (examples/brownfield), with the live
operator and people who have certificates of their own. Only its times are shorter (`TIMES`), and the old cluster is
smaller in `make test`."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import prometheus
from tests.support.audit import succeeded, violations, written
from tests.support.cluster import REPOSITORY, Cluster, eventually, kubectl_binary
from tests.support.helm import ensure_helm
from tests.support.kubelet import Kubelet
from tests.support.operator import Operator
from tests.support.page import Shell, blocks
from tests.support.prometheus import Prometheus
from tests.support.rest import Json
from tests.support.scenario import HOME, OPERATOR, phase_of, quarantine_of, switched_off, token_of

pytestmark = pytest.mark.local

PAGE = REPOSITORY / "docs" / "adoption.md"
BROWNFIELD = REPOSITORY / "examples" / "brownfield"
TIMES = {"DECIDE_WITHIN": "12s", "GRACE": "12s"}
WAYS = ("helm", "plain")
PLATFORM = ("kube-system", "monitoring", "ingress")
PEOPLE = {"dana": "team-logistics", "omar": "logistics-leads"}
PLACE = "warehouse"
PRINTER = "label-printer"

Name = tuple[str, str]


class Walk:
    """Follows the page in a directory of its own, in which the repository lies as in a clone."""

    def __init__(self, cluster: Cluster, directory: Path, stack: ExitStack, way: str, accounts: int) -> None:
        self.cluster, self.way, self._stack, self._directory = cluster, way, stack, directory
        self.said: dict[str, str] = {}
        """What the commands of each section printed."""
        self._values = {**TIMES, "ACCOUNTS": str(accounts)}
        self._left = blocks(PAGE)
        self._prometheus: Prometheus | None = None
        self._target: Callable[[], str] = lambda: ""
        clone = directory / "clone"
        clone.mkdir()
        for entry in REPOSITORY.iterdir():
            if entry.name not in (".git", "build"):
                (clone / entry.name).symlink_to(entry)
        helm = directory / "helm"
        programs = [str(Path(kubectl_binary()).parent), str(Path(sys.executable).parent)]
        environment = {name: value for name, value in cluster.environment().items() if not name.startswith("HELM_")}
        if way == "helm":
            kubelet = stack.enter_context(Kubelet(cluster, HOME))
            self._target = lambda: f"127.0.0.1:{kubelet.port_of('tenure-')}"
            programs.append(str(ensure_helm("4").parent))
            names = ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME")
            environment |= {name: str(helm / name.lower()) for name in names}
        environment["PATH"] = os.pathsep.join([*programs, environment["PATH"]])
        self.shell = Shell(clone, environment)

    def section(self, title: str) -> str:
        """Runs the blocks up to the next heading, and asks the queries among them. What the commands printed."""
        printed = []
        while self._left and self._left[0].section == title:
            block = self._left.pop(0)
            if set(WAYS) & {*block.words} - {self.way}:
                continue
            if block.language == "promql":
                self._ask(block.text)
            elif "terminal" in block.words:
                self._start(block.text)
            else:
                assert block.language == "sh", f"{block.language}: nobody runs this"
                printed.append(self.shell.run(self._shortened(block.text)))
        assert printed, f"no section {title}, or not here"
        self.said[title] = "".join(printed)
        return self.said[title]

    def end(self) -> None:
        """Nothing of the page was left out."""
        assert self._left == []
        assert self._values == {}

    def _shortened(self, text: str) -> str:
        for name, value in list(self._values.items()):
            text, count = re.subn(rf"^export {name}=\S+", f"export {name}={value}", text, flags=re.M)
            if count:
                del self._values[name]
        return text

    def _start(self, command: str) -> None:
        """What the page has in another terminal: `tenure run` with its options."""
        program, verb, *arguments = shlex.split(command)
        assert (program, verb) == ("tenure", "run")
        directory = self._directory / "operator"
        running = self._stack.enter_context(Operator(self.cluster.kubeconfig, arguments=arguments, directory=directory))
        self._target = lambda: running.url.removeprefix("http://")

    def _ask(self, query: str) -> None:
        """A query of the page has an answer, where there is a Prometheus."""
        if prometheus.MISSING:
            return
        if self._prometheus is None:
            self._prometheus = self._stack.enter_context(Prometheus(self._directory, target=self._target()))
        asked = self._prometheus
        eventually(lambda: asked.query(query), what=query)


def manifests(accounts: int) -> list[Json]:
    """The old cluster."""
    generator = [sys.executable, str(BROWNFIELD / "generate.py"), "--accounts", str(accounts)]
    made = subprocess.run(generator, capture_output=True, text=True, check=True).stdout
    found: list[Json] = [json.loads(line) for line in made.splitlines() if line != "---"]
    return [*yaml.safe_load_all((BROWNFIELD / "cluster.yaml").read_text()), *found]


def named(found: list[Json], kind: str, **fields: Any) -> set[Name]:
    """(namespace, name) of the manifests of a kind, outside the platform."""
    about = (one for one in found if one["kind"] == kind and fields.items() <= one.items())
    names = {(one["metadata"]["namespace"], one["metadata"]["name"]) for one in about}
    return {name for name in names if name[0] not in PLATFORM}


def subjects(findings: list[Json], rule: str, kind: str, *phases: str) -> set[Name]:
    """(namespace, name) of what the findings of a rule are about."""
    return {
        (one["metadata"]["namespace"], one["spec"]["subject"]["name"])
        for one in findings
        if one["spec"]["rule"] == rule and one["spec"]["subject"]["kind"] == kind and one["status"]["phase"] in phases
    }


def versions(cluster: Cluster) -> dict[str, tuple[str, str]]:
    """uid and resourceVersion of everything that Tenure observes, but what is in its own namespace."""
    return {
        f"{kind} {one['metadata'].get('namespace', '')}/{one['metadata']['name']}": (
            one["metadata"]["uid"],
            one["metadata"]["resourceVersion"],
        )
        for kind in ("serviceaccounts", "secrets", "roles", "rolebindings", "clusterrolebindings")
        for one in cluster.list(kind)
        if one["metadata"].get("namespace") != HOME
    }


def filled(cluster: Cluster) -> bool:
    """Whether the token controller has filled every token Secret: from then on nobody writes to them."""
    tokens = [one for one in cluster.list("secrets") if one["type"] == "kubernetes.io/service-account-token"]
    return all("token" in one.get("data", {}) for one in tokens)


def resolved(cluster: Cluster, place: str, name: str) -> Callable[[], bool]:
    return lambda: phase_of(cluster, place, "Unowned", name) == "Resolved"


def waiting(cluster: Cluster) -> list[Json]:
    """What is due and may not begin yet."""
    return [
        one
        for one in cluster.list("identityfindings", PLACE)
        if any(c["type"] == "Blocked" and c["reason"] == "BlastRadius" for c in one["status"].get("conditions", ()))
    ]


THOUSANDS = 240
"""What the page says."""


@pytest.mark.parametrize(
    ("version", "way", "accounts"),
    [
        pytest.param("1.36", "helm", 24, id="1.36", marks=pytest.mark.long),
        pytest.param("1.36", "helm", THOUSANDS, id="thousands", marks=pytest.mark.long),
        pytest.param("1.33", "plain", THOUSANDS, id="1.33"),
    ],
)
def test_the_page_leads_to_one_enforced_namespace(
    fresh_cluster: Callable[..., Cluster], tmp_path: Path, version: str, way: str, accounts: int
) -> None:
    cluster = fresh_cluster(version=version)
    with ExitStack() as stack:
        walk = Walk(cluster, tmp_path, stack, way, accounts)
        old = manifests(accounts)

        # What the page calls a rehearsal. Its two people are impersonated; from here on they are real.
        assert "Warning" not in walk.section("The times")
        for who, group in PEOPLE.items():
            asked = "kubectl auth whoami -o jsonpath='{.status.userInfo.username} {.status.userInfo.groups[0]}'"
            assert walk.shell.run(f"{asked} --kubeconfig {who}.kubeconfig") == f"{who} {group}"
            file = walk.shell.directory / f"{who}.kubeconfig"
            assert file.stat().st_mode & 0o077 == 0
            file.write_bytes(cluster.user(who, [group]).read_bytes())
        eventually(lambda: filled(cluster), 60, what="every token Secret is filled")
        token = token_of(cluster, PLACE, f"{PRINTER}-token")
        assert cluster.token_works(token)
        before = versions(cluster)
        labels = (cluster.get("secrets", f"{PRINTER}-token", PLACE) or {})["metadata"]["labels"]

        said = walk.section("Day 0: install, in audit")
        assert "Found: identityfinding/" in said
        assert "and its finding has ended" in said
        cluster._resources.clear()

        # The whole backlog: every ServiceAccount, and the two `default` ones that somebody bound to something.
        accounts_unowned = named(old, "ServiceAccount") | {("reports", "default"), ("sandbox", "default")}
        tokens = named(old, "Secret", type="kubernetes.io/service-account-token")

        def complete() -> list[Json]:
            found = cluster.list("identityfindings")
            assert subjects(found, "Unowned", "ServiceAccount", "Open") == accounts_unowned
            assert subjects(found, "LegacyToken", "Secret", "Open") >= tokens
            return found

        backlog = eventually(complete, 120, 0.5, what="the whole backlog")
        assert len(accounts_unowned) > (2600 if accounts == THOUSANDS else 260)
        assert {one["status"]["subject"] for one in backlog if one["status"]["risk"]["level"] == "Critical"} >= {
            "ServiceAccount/build-server",
            "ServiceAccount/legacy-sync",
        }
        said = walk.section("Day 1: read the backlog")
        assert "No resources found" in said
        assert re.search(r"^ *\d+ Unowned +Low$", said, re.M)
        assert (walk.shell.directory / "inventory.csv").read_text().count("\n") > len(accounts_unowned)

        # Labels take most of it away. What they cannot say is open: nobody's, several teams', and what is critical.
        walk.section("Week 1: owners, and labels that name them")

        def labelled() -> list[Json]:
            found = cluster.list("identityfindings")
            left = [one for one in found if one["spec"]["rule"] == "Unowned" and one["status"]["phase"] == "Open"]
            assert {one["metadata"]["namespace"] for one in left if one["status"]["risk"]["level"] != "Critical"} == {
                "sandbox",
                PLACE,
            }
            return left

        left = eventually(labelled, 120, 0.5, what="labels count")
        assert any("is not enough for that, it needs a claim" in one["status"]["message"] for one in left)
        assert len(left) < len(accounts_unowned) / 3

        # Claims and an exception, by two people who may do just that.
        assert "cluster-admin" not in walk.section("Week 2: claims")
        claimed = {PLACE: ("stock-api", "picking-planner", "weighbridge"), "ci": ("build-server",)}
        for place, names in claimed.items():
            for name in names:
                eventually(resolved(cluster, place, name), what=f"{name} resolved")
        walk.section("Week 3: exceptions")
        eventually(lambda: phase_of(cluster, PLACE, "LegacyToken", "weighbridge-token") == "Excepted", what="waived")
        assert cluster.list("quarantines") == []

        # The turn.
        said = walk.section("Week 4: enforce in one namespace")
        assert said.count("Quarantine") >= 6
        assert cluster.list("quarantines") == []
        walk.section("During the grace, every day")
        eventually(lambda: phase_of(cluster, PLACE, "Unowned", "returns-import") == "Resolved", what="claimed in time")

        # The end of the grace: the worst first, as many as the policy says, and nowhere else.
        eventually(lambda: len(cluster.list("quarantines")) == 3, 60, what="three quarantines")
        assert {one["metadata"]["namespace"] for one in cluster.list("quarantines")} == {PLACE}
        assert quarantine_of(cluster, PLACE, PRINTER)
        assert quarantine_of(cluster, PLACE, "returns-import") is None
        eventually(lambda: switched_off(cluster, PLACE, f"{PRINTER}-token"), what="the token is off")
        eventually(lambda: not cluster.token_works(token), what="the API server refuses it")
        eventually(lambda: len(waiting(cluster)) == 2, what="two wait for the blast radius")
        said = walk.section("The day it acts")
        assert f"ServiceAccount {PLACE}/{PRINTER} is quarantined and runs no new pod" in said
        assert said.count("BlastRadius") == 2
        eventually(lambda: cluster.token_works(token), what="it works again")
        eventually(lambda: phase_of(cluster, PLACE, "Unowned", PRINTER) == "Resolved", what="claimed")
        assert len(cluster.list("quarantines")) == 2

        # And back, all of it.
        walk.section("Stop and go back")
        walk.end()
        after = versions(cluster)
        changed = {name for name, was in before.items() if after.get(name) != was}
        assert changed <= {f"secrets {PLACE}/{PRINTER}-token"}
        found = cluster.get("secrets", f"{PRINTER}-token", PLACE) or {}
        assert found["metadata"]["labels"] == labels
        assert cluster.token_works(token)
        cluster._resources.clear()
        assert not [one for one in cluster.list("customresourcedefinitions") if one["spec"]["group"] == "tenure.dev"]

        # What the API server says that the operator did.
        assert cluster.control_plane is not None
        did = [
            event
            for event in cluster.control_plane.audit_events(0)
            if event["user"].get("username") == OPERATOR and "impersonatedUser" not in event
        ]
        assert violations(did) == []
        written_to = {event["objectRef"].get("namespace") for event in did if written(event) and succeeded(event)}
        assert {event["objectRef"]["namespace"] for event in did if written(event).endswith(" secrets")} == {PLACE}
        assert PLACE in written_to
    if prometheus.MISSING:
        pytest.skip(f"all but its queries, for want of {', '.join(prometheus.MISSING)} (.ci/run installs them)")
