"""A real Prometheus scrapes a live operator with real findings, evaluates what ships, and tells a real Alertmanager.

Expressions, labels and words are those of charts/tenure/files; only waiting times are shortened
(tests/support/prometheus.py)."""

from __future__ import annotations

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

from tests.support import scenario
from tests.support.cluster import REPOSITORY, Cluster, eventually
from tests.support.operator import Metrics, Operator
from tests.support.pki import Authority
from tests.support.prometheus import DASHBOARDS, MISSING, Alertmanager, Inbox, Prometheus, queries
from tests.support.scenario import claim, deadline, exception, govern, identity, owner, policy

pytestmark = [
    pytest.mark.long,
    pytest.mark.local,
    pytest.mark.skipif(bool(MISSING), reason=f"not on PATH: {', '.join(MISSING)} (.ci/run installs them)"),
]

CONFIG = REPOSITORY / "examples" / "monitoring" / "alertmanager.yaml"
SELECTOR = re.compile(r"(?<![\w:])((?:\w+:)?(?:tenure|process)_\w+(?::\w+)?)(\{[^}]*\})?")
"""Every series of ours, and a recorded one, with its matchers, as it stands in an expression."""

ANNOTATED = "service.beta.openshift.io/expiry"

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
        soon = (datetime.now(UTC) + timedelta(days=3)).strftime("%Y-%m-%dT%H:%M:%SZ")
        cluster.create(claim(place, "payments", name="certificates", subjects={"secrets": {"names": ["web-tls"]}}))
        for namespace, name in ((place, "web-tls"), (audited, "old-tls")):
            metadata = {"name": name, "namespace": namespace, "annotations": {ANNOTATED: soon}}
            tls = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": metadata}
            cluster.create({**tls, "data": {"tls.crt": "", "tls.key": ""}})
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

    def exempt() -> bool:
        [waived] = [
            finding
            for finding in scene.cluster.list("identityfindings", scene.place)
            if finding["status"]["phase"] == "Excepted"
        ]
        since = datetime.fromisoformat(waived["status"]["debt"]["since"])
        lasted = (datetime.now(UTC) - since).total_seconds()
        return math.isclose(value('class:tenure_finding_exempt_seconds:sum{class="Migration"}'), lasted, abs_tol=5)

    eventually(exempt, what="exempt time")

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
    assert overdue["annotations"]["runbook_url"] == "docs/runbooks/TenureDecisionOverdue.md"
    mine = ("TenureReviewOverdue", "TenureExceptionLapsed", "TenureExceptionLapsing", "TenureCredentialExpiring")
    owners = {"namespace": scene.place, "owner": "payments"}
    for name in mine:
        eventually(lambda name=name: prometheus.firing(name, **owners), what=name)  # type: ignore[misc]
    nobodys = "TenureCredentialExpiringUnowned"
    [unowned] = eventually(lambda: prometheus.firing(nobodys, namespace=scene.audited), what=nobodys)
    assert "owner" not in unowned["labels"]

    def told(receiver: str, **labels: str) -> list[Json]:
        return [alert for alert in inbox.of(receiver) if labels.items() <= alert["labels"].items()]

    owned = {"alertname": "TenureDecisionOverdue", "namespace": scene.place, "owner": "payments"}
    eventually(lambda: told("payments", **owned), what="payments is told")
    nobody = {"alertname": "TenureDecisionOverdue", "namespace": scene.audited, "severity": "info", "mode": "audit"}
    heard = eventually(lambda: told("platform", **nobody), what="the platform team is told of what nobody owns")
    assert "owner" not in heard[0]["labels"]
    assert heard[0]["annotations"]["summary"].startswith("Nobody has ")
    eventually(lambda: told("platform", alertname=nobodys, namespace=scene.audited), what="and of its credentials")
    assert not told("platform", **owned), "and of nothing that an owner was told"
    assert not told("security", namespace=scene.place, owner="payments")


def test_silent_where_nothing_is_wrong(scene: Scene) -> None:
    """The operator works: of the alerts about it none fires, but for what is still being proven."""
    eventually(lambda: scene.prometheus.value('max(tenure_enforcement_effective{stage="Guard"})') == 1)
    wrong = (
        "ExceptionDebt",
        "OperatorAbsent",
        "InventoryStale",
        "InventoryIncomplete",
        "BlastRadiusTripped",
        "BacklogGrowing",
    )
    for name in (f"Tenure{word}" for word in wrong):
        eventually(lambda name=name: not scene.prometheus.firing(name), 30, what=f"{name} is silent")  # type: ignore[misc]


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
    def filled() -> bool:
        assert scene.prometheus.empty(board) == []
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


def test_ends_of_what_is_gone_are_told_no_more(scene: Scene) -> None:
    """In Prometheus too: the alert ends with its object, not with the lookback."""
    series = f'tenure_credential_expiry_timestamp_seconds{{namespace="{scene.place}"}}'
    [(labels, _)] = scene.prometheus.query(series)
    assert {"name": "web-tls", "type": "TLS", "class": "Workload", "owner": "payments"}.items() <= labels.items()
    scene.cluster.delete("secrets", "web-tls", scene.place)
    eventually(lambda: not scene.prometheus.query(series), what="the end of the series")
    assert len(scene.prometheus.query(f'tenure_exception_expiry_timestamp_seconds{{namespace="{scene.place}"}}')) == 1
    scene.cluster.delete("identityexceptions", "exception", scene.place)
    gone = f'{{__name__=~"tenure_(exception_expiry|finding_exempt_since)_.*",namespace="{scene.place}"}}'
    eventually(lambda: not scene.prometheus.query(gone), what="the end of the waiver's")


def test_scraped_over_tls(scene: Scene, tmp_path: Path) -> None:
    """The last: the operator is started anew, with a certificate. Prometheus trusts its authority and no other."""
    authority = Authority(tmp_path / "authority")
    chain, key = authority.issue("metrics", "tenure.tenure-system.svc", addresses=["127.0.0.1"])
    scene.operator.close()
    arguments = ["--metrics-certificate", str(chain), "--metrics-key", str(key)]
    trusted = authority.certificate_file
    stranger = Authority(tmp_path / "stranger").certificate_file
    with (
        Operator(scene.cluster.kubeconfig, arguments=arguments, authority=trusted) as operator,
        Prometheus(tmp_path / "trusting", target=operator.url.removeprefix("https://"), authority=trusted) as good,
        Prometheus(tmp_path / "doubting", target=operator.url.removeprefix("https://"), authority=stranger) as bad,
    ):
        eventually(lambda: good.value("up") == 1, what="scraped over TLS")
        eventually(lambda: good.value('tenure_inventory_sources{state="Fresh"}') == 1)
        eventually(lambda: bad.value("up") == 0, what="not scraped")
        [target] = bad.ask("targets")["activeTargets"]
        assert "certificate" in target["lastError"]
