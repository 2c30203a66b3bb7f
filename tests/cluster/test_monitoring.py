"""A real Prometheus scrapes a live operator with real findings, evaluates what ships, and tells a real Alertmanager.

Expressions, labels and words are those of charts/tenure/files; only waiting times are shortened
(tests/support/prometheus.py)."""

from __future__ import annotations

import json
import math
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import scenario
from tests.support.cluster import REPOSITORY, Cluster, eventually
from tests.support.operator import Metrics, Operator
from tests.support.prometheus import DASHBOARDS, MISSING, RULES, Alertmanager, Inbox, Prometheus
from tests.support.scenario import claim, deadline, exception, govern, identity, owner, policy

pytestmark = [
    pytest.mark.local,
    pytest.mark.skipif(bool(MISSING), reason=f"not on PATH: {', '.join(MISSING)} (.ci/run installs them)"),
]

CONFIG = REPOSITORY / "examples" / "monitoring" / "alertmanager.yaml"
SELECTOR = re.compile(r"(?<![\w:])((?:\w+:)?(?:tenure|process)_\w+(?::\w+)?)(\{[^}]*\})?")
"""Every series of ours, and a recorded one, with its matchers, as it stands in an expression."""

Json = dict[str, Any]


@dataclass
class Scene:
    cluster: Cluster
    operator: Operator
    prometheus: Prometheus
    inbox: Inbox
    place: str
    audited: str
    before: Metrics

    def phase(self, rule: str, name: str, phase: str, place: str = "") -> Json:
        """The finding, once it is there and in that phase."""

        def there() -> Json | None:
            found = scenario.finding_of(self.cluster, place or self.place, rule, name)
            return found if found and found["status"]["phase"] == phase else None

        return eventually(there, what=f"{rule} of {name} {phase}")


@pytest.fixture(scope="module")
def scene(installed: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Findings that people decided in time, that the policy decided, that are revoked, waived, overdue, in audit."""
    cluster, directory = installed, tmp_path_factory.mktemp("monitoring")
    with ExitStack() as stack:
        inbox = stack.enter_context(Inbox())
        alertmanager = stack.enter_context(Alertmanager(directory, CONFIG, inbox))
        operator = stack.enter_context(Operator(cluster.kubeconfig, directory=directory / "operator"))
        target = operator.url.removeprefix("http://")
        prometheus = stack.enter_context(Prometheus(directory, target=target, alertmanager=alertmanager))
        # What happens before the first sample is no event to Prometheus.
        recorded = "sum(risk_outcome:tenure_decisions_due_total:max)"
        eventually(lambda: prometheus.query(recorded), what="the first recorded values")
        place, audited = cluster.namespace("watched"), cluster.namespace("audited")
        made = Scene(cluster, operator, prometheus, inbox, place, audited, operator.metrics())
        for name in (place, audited):
            cluster.patch("namespaces", name, {"metadata": {"labels": {"test": name}}})
        cluster.apply(owner("payments"))  # without a ladder: what is overdue stays its own
        cluster.apply(owner("security", escalation=[{"after": "50%", "to": "payments"}]))
        classes = {"classes": [{"class": "Migration", "approvals": []}]}
        late = deadline("ReviewOverdue", "ExceptionLapsed", within="1s", action="Nothing")
        token = deadline("LegacyToken", within="5s", revoke_after="1s")
        of_place = {"labels": {"test": place}, "precedence": 61, "exceptions": classes}
        govern(cluster, policy(place, deadline("Unowned", within="4s"), token, late, **of_place))
        watching = policy(audited, deadline(within="1s"), labels={"test": audited}, precedence=62)
        del watching["spec"]["enforceIn"]
        govern(cluster, watching)

        identity(cluster, audited, "nobody")
        identity(cluster, place, "covered")
        cluster.create(claim(place, "security", name="covering", accounts=["covered"]))
        identity(cluster, place, "taken", ["taken-token"])
        identity(cluster, place, "claimed", ["waived-token"])
        waived = exception(place, "Secret", "waived-token", "LegacyToken", owner="payments")
        waived["spec"]["requestedBy"] = cluster.username()
        cluster.create(waived)
        made.phase("Unowned", "claimed", "Open")
        cluster.create(claim(place, "payments", accounts=["claimed"], review={"interval": "2s"}))
        ended = {"expiresAt": (datetime.now(UTC) - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")}
        lapsed = exception(place, "ServiceAccount", "taken", "Unowned", called="lapsed", owner="payments", **ended)
        lapsed["spec"]["requestedBy"] = cluster.username()
        cluster.create(lapsed)
        made.phase("LegacyToken", "waived-token", "Excepted")
        made.phase("Unowned", "claimed", "Resolved")
        made.phase("Unowned", "taken", "Quarantined")
        made.phase("ReviewOverdue", "claim", "Open")
        made.phase("ExceptionLapsed", "lapsed", "Open")
        made.phase("Unowned", "nobody", "Open", audited)
        eventually(lambda: cluster.get("secrets", "taken-token", place) is None, what="taken-token revoked")
        eventually(
            lambda: operator.metrics().value("tenure_revocation_latency_seconds_count") > 0, what="the revocation told"
        )
        yield made
        for name in (place, audited):
            cluster.delete("governancepolicies", name)
            cluster.delete_namespace(name)
        cluster.delete("identityowners", "payments")
        cluster.delete("identityowners", "security")


def test_prometheus_has_every_series_that_the_operator_serves(scene: Scene) -> None:
    def same() -> bool:
        served = {sample for sample, _ in scene.operator.metrics() if sample.startswith("tenure_")}
        found = {labels["__name__"] for labels, _ in scene.prometheus.query('group by (__name__) ({job="tenure"})')}
        return served == {name for name in found if name.startswith("tenure_")}

    eventually(same)
    [up] = scene.prometheus.query("up")
    assert up[1] == 1
    # honor_labels: a finding's namespace is its own, not the operator's.
    eventually(lambda: scene.prometheus.query(f'tenure_finding_opened_timestamp_seconds{{namespace="{scene.place}"}}'))


def test_recorded_values_are_what_the_operator_says(scene: Scene) -> None:
    value = scene.prometheus.value

    def coverage() -> bool:
        metrics = scene.operator.metrics().samples("tenure_identities")
        ours = [(dict(labels), count) for labels, count in metrics.items() if ("class", "Platform") not in labels]
        owned = sum(n for at, n in ours if at["ownership"] != "none" and at["escalation"] == "true")
        assert owned > 0
        expected = owned / sum(n for _, n in ours)
        return math.isclose(value("cluster:tenure_ownership_coverage:ratio"), expected)

    eventually(coverage, what="coverage")
    assert value("cluster:tenure_inventory_completeness:ratio") == 1

    def debts() -> bool:
        metrics = scene.operator.metrics()
        return (
            value('class:tenure_exceptions_active:sum{class="Migration"}')
            == metrics.value("tenure_exceptions", **{"class": "Migration", "phase": "Active"})
            >= 1
        ) and value("cluster:tenure_reviews_overdue:sum") == metrics.value("tenure_reviews", state="Overdue") >= 1

    eventually(debts, what="exception and review debt")

    def met() -> bool:
        now = scene.operator.metrics()
        came = {
            outcome: now.value("tenure_decisions_due_total", outcome=outcome)
            - scene.before.value("tenure_decisions_due_total", outcome=outcome)
            for outcome in ("met", "missed")
        }
        assert min(came.values()) >= 1
        expected = came["met"] / sum(came.values())
        return all(
            math.isclose(value(f"cluster:tenure_decisions_met:ratio_increase{days}d"), expected, abs_tol=0.05)
            for days in (7, 30, 90)
        )

    eventually(met, what="decisions met")
    # All of them took less than a minute, the first bucket: its middle, and nine tenths of it.
    for by, cause in (("class", ""), ("cause_class", 'cause="LegacyToken",')):
        name = "decision" if by == "class" else "revocation"
        for share, seconds in ((50, 30), (90, 54)):
            found = f'{by}:tenure_{name}_latency_seconds:p{share}_30d{{{cause}class="Standard"}}'
            eventually(lambda found=found, seconds=seconds: math.isclose(value(found), seconds), what=found)  # type: ignore[misc]
    apart = 'class:tenure_decision_latency_seconds:p50_30d{class="Migration"}'
    eventually(lambda: value(apart) > 0, what="an exception's decision stands apart")


def test_alerts_fire_and_alertmanager_brings_them_to_the_owner(scene: Scene) -> None:
    prometheus, inbox = scene.prometheus, scene.inbox
    [overdue] = eventually(
        lambda: prometheus.firing("TenureDecisionOverdue", namespace=scene.place, owner="payments", mode="enforce"),
        what="TenureDecisionOverdue",
    )[:1]
    assert overdue["annotations"]["summary"].startswith("payments has not decided about ")
    assert overdue["annotations"]["runbook_url"].endswith("/TenureDecisionOverdue")
    for name in ("TenureReviewOverdue", "TenureExceptionLapsed"):
        eventually(lambda name=name: prometheus.firing(name, namespace=scene.place), what=name)  # type: ignore[misc]

    def told(receiver: str, **labels: str) -> list[Json]:
        return [alert for alert in inbox.of(receiver) if labels.items() <= alert["labels"].items()]

    mine = {"alertname": "TenureDecisionOverdue", "namespace": scene.place, "owner": "payments"}
    eventually(lambda: told("payments", **mine), what="payments is told")
    nobodys = {"alertname": "TenureDecisionOverdue", "namespace": scene.audited, "severity": "info", "mode": "audit"}
    found = eventually(lambda: told("platform", **nobodys), what="the platform team is told of what nobody owns")
    assert "owner" not in found[0]["labels"]
    assert found[0]["annotations"]["summary"].startswith("Nobody has ")
    assert not told("platform", **mine), "and of nothing that an owner was told"
    assert not told("security", namespace=scene.place, owner="payments")


def test_silent_where_nothing_is_wrong(scene: Scene) -> None:
    """The operator works: of the alerts about it none fires, but for what is still being proven."""
    eventually(lambda: scene.prometheus.value('max(tenure_enforcement_effective{stage="Guard"})') == 1)
    wrong = ("OperatorAbsent", "InventoryStale", "InventoryIncomplete", "BlastRadiusTripped", "BacklogGrowing")
    for name in (f"Tenure{word}" for word in wrong):
        eventually(lambda name=name: not scene.prometheus.firing(name), 30, what=f"{name} is silent")  # type: ignore[misc]


def queries() -> Iterator[tuple[str, str]]:
    """Every expression that ships, with where it stands."""
    for path in RULES:
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                yield f"{path.name}/{rule.get('record') or rule['alert']}", rule["expr"]
    for path in DASHBOARDS:
        board = json.loads(path.read_text())
        variables = {v["name"]: v["current"]["value"] for v in board["templating"]["list"] if v["type"] == "custom"}
        for panel in board["panels"]:
            for target in panel.get("targets", ()):
                text = target["expr"]
                for name, chosen in variables.items():
                    text = text.replace(f"${name}", chosen)
                assert "$" not in text, text
                yield f"{path.name}/{panel['title']}", text


def test_every_series_that_is_asked_for_is_produced(scene: Scene) -> None:
    """Name and matchers of each: a label value that does not exist is found too."""
    asked = {(name, matchers) for _, text in queries() for name, matchers in SELECTOR.findall(text)}
    assert len(asked) > 30
    fine = {name for name, _ in asked}
    assert {"tenure_findings", "class:tenure_decision_latency_seconds:p50_30d", "process_resident_memory_bytes"} <= fine
    missing = [name + matchers for name, matchers in sorted(asked) if not scene.prometheus.query(name + matchers)]
    assert missing == []


def test_every_label_that_is_grouped_by_exists(scene: Scene) -> None:
    known = {"le", "job", "instance"} | {label for _, labels in scene.operator.metrics() for label, _ in labels}
    for place, text in queries():
        for group in re.findall(r"\b(?:by|on|without|ignoring) ?\(([^)]*)\)", text):
            assert {label.strip() for label in group.split(",") if label.strip()} <= known, place


@pytest.mark.parametrize("board", DASHBOARDS, ids=lambda path: path.stem)
def test_no_panel_of_a_dashboard_is_empty(scene: Scene, board: Path) -> None:
    asked = [(place, text) for place, text in queries() if place.startswith(f"{board.name}/")]
    assert len(asked) >= 10

    def empty() -> list[str]:
        return [
            f"{place}: {text}"
            for place, text in asked
            if not [value for _, value in scene.prometheus.query(text) if not math.isnan(value)]
        ]

    def filled() -> bool:
        assert empty() == []
        return True

    eventually(filled, what=f"every panel of {board.name} filled")


def test_amtool_finds_no_fault_with_the_example_and_routes_as_it_says() -> None:
    checked = subprocess.run(["amtool", "check-config", str(CONFIG)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    for labels, receivers in (
        (["owner=payments", "severity=warning"], "payments"),
        (["owner=payments", "severity=critical"], "on-call,payments"),
        (["owner=somebody", "severity=warning"], "platform"),
        (["severity=critical"], "on-call"),
    ):
        routed = subprocess.run(
            ["amtool", "config", "routes", "test", f"--config.file={CONFIG}", *labels],
            capture_output=True,
            text=True,
            check=False,
        )
        assert routed.stdout.strip() == receivers, labels
