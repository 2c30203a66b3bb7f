"""The metrics of a live operator, with findings in every phase, against the contract and docs/metrics.md."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest
import urllib3

from tests.cluster.tenure_objects import claim, decision, exception, grant, owner
from tests.support import scenario
from tests.support.cluster import REPOSITORY, Cluster, eventually
from tests.support.operator import Metrics, Operator
from tests.support.proxy import FaultProxy, Hang
from tests.support.scenario import HOME, deadline, finding_of, policy

Json = dict[str, Any]

RISKS = ("Low", "Medium", "High", "Critical")
PHASES = ("Open", "Excepted", "Quarantined", "Resolved")
RULES = (
    "Unowned",
    "OwnerVacant",
    "ClaimConflict",
    "OwnershipExpired",
    "CredentialTooOld",
    "LegacyToken",
    "ExceptionLapsed",
    "ReviewOverdue",
    "EntitlementUndeclared",
)
CLASSES = ("Workload", "Agent", "Pipeline", "Integration", "VendorManaged", "BreakGlass", "Migration", "Platform")
EXCEPTIONS = ("BreakGlass", "VendorManaged", "Migration", "AcceptedRisk")
PER_OBJECT = {"tenure_finding_opened_timestamp_seconds", "tenure_finding_decision_deadline_timestamp_seconds"}
EXEMPT = "tenure_finding_exempt_since_timestamp_seconds"
ENDS = {"tenure_exception_expiry_timestamp_seconds", "tenure_credential_expiry_timestamp_seconds"}

BOUNDED: dict[str, tuple[tuple[str, ...], list[tuple[str, ...]]]] = {
    "tenure_findings": (("rule", "risk", "class", "phase"), list(product(RULES, RISKS, CLASSES, PHASES))),
    "tenure_decisions_due_total": (("risk", "outcome"), list(product(RISKS, ("met", "missed")))),
    "tenure_exception_renewals_total": (("class",), [(name,) for name in EXCEPTIONS]),
    "tenure_escalations_total": (("step",), [(str(step),) for step in range(1, 9)]),
    "tenure_reviews": (("state",), [("Scheduled",), ("Due",), ("Overdue",)]),
    "tenure_exceptions": (
        ("class", "phase"),
        list(product(EXCEPTIONS, ("Pending", "Active", "Rejected", "Expired", "Withdrawn"))),
    ),
    "tenure_enforcement_actions_total": (
        ("action", "kind", "outcome"),
        list(product(("Quarantine", "Release", "Revoke"), ("ServiceAccount", "Secret"), ("verified", "failed"))),
    ),
    "tenure_actions_blocked_total": (
        ("cause",),
        [
            (cause,)
            for cause in ("Audit", "BlastRadius", "Suspended", "PolicyConflict", "MissingRight", "InventoryStale")
        ],
    ),
    "tenure_enforcement_reverted_total": (("manager",), [(name,) for name in ("Flux", "ArgoCD", "Helm", "Other")]),
    "tenure_decision_latency_seconds_count": (
        ("risk", "source", "class"),
        [
            *product(RISKS, ("Claim", "Verdict", "Fix", "SubjectGone", "Policy"), ("Standard",)),
            *product(RISKS, ("Exception",), EXCEPTIONS),
        ],
    ),
    "tenure_revocation_latency_seconds_count": (
        ("cause", "class"),
        list(product(RULES, ("Standard", *EXCEPTIONS))),
    ),
    "tenure_identities": (
        ("kind", "class", "ownership", "escalation"),
        list(product(("ServiceAccount",), CLASSES, ("declared", "derived", "none"), ("true", "false"))),
    ),
    "tenure_credentials": (
        ("type", "state", "ownership"),
        list(
            product(
                ("ServiceAccountToken", "TLS", "RegistryLogin", "BasicAuth", "SSHKey", "APIKey"),
                ("Usable", "Invalidated"),
                ("declared", "derived", "none"),
            )
        ),
    ),
    "tenure_entitlements": (("scope", "state"), list(product(("Namespace", "Cluster"), ("Effective", "Dangling")))),
    "tenure_quarantines": (("stage",), [("Guard",), ("DisableTokens",)]),
    "tenure_enforcement_queue_length": (("reason",), [("Ready",), ("Retry",), ("BlastRadius",), ("RecentlyUsed",)]),
    "tenure_inventory_sources": (("state",), [("Fresh",), ("Stale",), ("Missing",)]),
}
"""Label sets with a bound, as the contract writes them down; none may wait for its first event to be born."""


class Scene:
    """One operator, and one namespace with a finding of every phase; the metrics before and after."""

    def __init__(self, cluster: Cluster, operator: Operator, place: str, before: Metrics) -> None:
        self.cluster = cluster
        self.operator = operator
        self.place = place
        self.before = before

    def phase(self, rule: str, name: str) -> str:
        return scenario.phase_of(self.cluster, self.place, rule, name)

    def await_phase(self, rule: str, name: str, phase: str) -> Json:
        def there() -> Json | None:
            found = finding_of(self.cluster, self.place, rule, name)
            return found if found and found["status"]["phase"] == phase else None

        return eventually(there, what=f"{rule} of {name} {phase}")


@pytest.fixture(scope="module")
def scene(installed: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    cluster = installed
    with Operator(cluster.kubeconfig, directory=tmp_path_factory.mktemp("operator")) as operator:
        before = operator.metrics()
        place = cluster.namespace("metrics")
        cluster.patch("namespaces", place, {"metadata": {"labels": {"test": place}}})
        made = Scene(cluster, operator, place, before)
        steps = [{"after": "10%", "to": "metrics-stand-by"}, {"after": "50%", "to": "metrics-security"}]
        cluster.apply(owner("metrics-owner", escalation=steps))
        cluster.apply(owner("metrics-stand-by"))
        cluster.apply(owner("metrics-security"))
        scenario.govern(
            cluster,
            policy(
                place,
                deadline("Unowned", within="3s"),
                deadline("LegacyToken", within="3s", action="Nothing"),
                labels={"test": place},
                precedence=7,
                exceptions={"classes": [{"class": "Migration", "approvals": []}]},
            ),
        )
        soon = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        scenario.identity(cluster, place, "taken", ["taken-token"])
        scenario.identity(cluster, place, "claimed", ["waived-token"])
        cluster.create(claim(place, owner="metrics-owner", subjects={"serviceAccounts": {"names": ["claimed"]}}))
        target = {"kind": "Secret", "name": "waived-token"}
        cluster.create(
            exception(place, owner="metrics-owner", expiresAt=soon, target=target, requestedBy=cluster.username())
        )
        scenario.identity(cluster, place, "gone")
        made.await_phase("Unowned", "gone", "Open")
        cluster.delete("serviceaccounts", "gone", place)
        made.await_phase("Unowned", "gone", "Resolved")
        made.await_phase("Unowned", "taken", "Quarantined")
        made.await_phase("LegacyToken", "waived-token", "Excepted")
        # Owned, and still undecided: its time of 3 s passes both rungs.
        cluster.create(scenario.token_secret(place, "owned-token", "claimed"))
        made.await_phase("LegacyToken", "owned-token", "Open")
        later = (datetime.now(UTC) + timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%SZ")
        cluster.apply(
            exception(place, owner="metrics-owner", expiresAt=later, target=target, requestedBy=cluster.username())
        )  # renewed
        scenario.identity(cluster, place, "judged")
        decide(cluster, made.await_phase("Unowned", "judged", "Open"), "Quarantine")
        made.await_phase("Unowned", "judged", "Quarantined")
        made.await_phase("LegacyToken", "taken-token", "Open")
        eventually(lambda: scenario.switched_off(cluster, place, "taken-token"))
        yield made
        cluster.delete("governancepolicies", place)
        cluster.delete_namespace(place)


def decide(cluster: Cluster, found: Json, verdict: str) -> None:
    """A verdict by somebody who may."""
    place = found["metadata"]["namespace"]
    grant(cluster, place, "metrics-judge", ["create"], ["identitydecisions"])
    grant(cluster, place, "metrics-judge", [verdict.lower()], ["identityfindings"])
    target = {
        "kind": "IdentityFinding",
        "name": found["metadata"]["name"],
        "uid": found["metadata"]["uid"],
        "revision": found["spec"]["revision"],
    }
    made = decision(place, f"{verdict.lower()}-1", target=target, verdict=verdict, by="metrics-judge")
    cluster.create(made, user="metrics-judge")


def documented() -> dict[str, bool]:
    """Contract metric -> whether docs/metrics.md says that this version feeds it."""
    text = (REPOSITORY / "docs" / "metrics.md").read_text()
    table = text.partition("## What is there, and what comes later")[2].partition("## Cost")[0]
    found: dict[str, bool] = {}
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 2 and cells[0].startswith("`"):
            for name in re.findall(r"`([a-z_]+)(?:\{[^}]*\})?`", cells[0]):
                found[name] = cells[1].startswith("yes")
    return found


def families(text: str) -> dict[str, str]:
    """Family -> type of one scrape in the classic format."""
    return dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))


def label_names(metrics: Metrics, sample: str) -> set[str]:
    return {name for labels in metrics.samples(sample) for name, _ in labels}


def about(metrics: Metrics, sample: str, found: Json) -> float | None:
    """The value of a finding's own series, None when it has none."""
    mine = {("namespace", found["metadata"]["namespace"]), ("name", found["metadata"]["name"])}
    values = [value for labels, value in metrics.samples(sample).items() if mine <= labels]
    assert len(values) <= 1
    return values[0] if values else None


def test_each_metric_of_the_contract_is_there_or_documented_as_later(scene: Scene) -> None:
    contract = documented()
    assert len(contract) >= 23, "the table in docs/metrics.md was read"
    served = families(scene.operator.metrics_text())
    for name, fed in contract.items():
        assert (f"tenure_{name}" in served) == fed, name
    ours = {name for name in served if name.startswith("tenure_")}
    assert ours == {f"tenure_{name}" for name, fed in contract.items() if fed}, "and none that nobody documented"
    for name, kind in served.items():
        if name.startswith("tenure_"):
            expected = "counter" if name.endswith("_total") else "histogram" if "_latency_" in name else "gauge"
            assert kind == expected, name


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on PATH (.ci/run installs it)")
def test_promtool_finds_no_fault_with_a_live_scrape(scene: Scene) -> None:
    checked = subprocess.run(
        ["promtool", "check", "metrics"],
        input=scene.operator.metrics_text(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_openmetrics_where_it_is_asked_for(scene: Scene) -> None:
    accept = {"Accept": "application/openmetrics-text; version=1.0.0", "Accept-Encoding": "gzip"}
    answer = urllib3.request("GET", f"{scene.operator.url}/metrics", headers=accept, timeout=30)
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
    assert answer.headers["Content-Encoding"] == "gzip"
    assert answer.data.decode().endswith("# EOF\n")


@pytest.mark.parametrize("name", BOUNDED)
def test_bounded_label_sets_exist_from_the_first_scrape(scene: Scene, name: str) -> None:
    """`before` was scraped the moment the operator was ready, when nothing had happened."""
    labels, values = BOUNDED[name]
    assert label_names(scene.before, name) == set(labels)
    there = scene.before.samples(name)
    missing = [given for given in values if frozenset(zip(labels, given, strict=True)) not in there]
    assert missing == []


def test_what_starts_with_the_process_starts_at_zero(scene: Scene) -> None:
    for (sample, labels), value in scene.before.items():
        if sample.endswith(("_latency_seconds_count", "_latency_seconds_sum")):
            assert value == 0, (sample, labels)
        if sample in ("tenure_enforcement_actions_total", "tenure_tripwire_attempts_total"):
            assert value == 0, (sample, labels)


def test_every_phase_is_counted(scene: Scene) -> None:
    """What earlier tests left in this cluster may still be ending, so scrape and list are compared until they agree."""
    for rule, risk, phase in (
        ("Unowned", "Low", "Quarantined"),
        ("Unowned", "Low", "Resolved"),
        ("LegacyToken", "Medium", "Excepted"),
        ("LegacyToken", "Medium", "Open"),
    ):
        labels = {"rule": rule, "risk": risk, "class": "Workload", "phase": phase}

        def counted(labels: dict[str, str] = labels) -> bool:
            found = scene.cluster.list("identityfindings")
            there = sum(matches(one, labels) for one in found)
            assert there > 0, labels
            return scene.operator.metrics().value("tenure_findings", **labels) == there

        eventually(counted, what=str(labels))
    for phase in PHASES:

        def all_of(phase: str = phase) -> bool:
            there = sum(found["status"]["phase"] == phase for found in scene.cluster.list("identityfindings"))
            return scene.operator.metrics().value("tenure_findings", phase=phase) == there

        eventually(all_of, what=phase)


def matches(found: Json, labels: dict[str, str]) -> bool:
    status = found["status"]
    given = (found["spec"]["rule"], status["risk"]["level"], status["class"], status["phase"])
    return given == (labels["rule"], labels["risk"], labels["class"], labels["phase"])


def test_counters_and_latencies_tell_what_happened(scene: Scene) -> None:
    """Told once the write they are about was answered: what the cluster shows, a scrape may show a moment later."""
    done = {"action": "Quarantine", "kind": "ServiceAccount", "outcome": "verified"}
    migration = {"class": "Migration"}
    rises: tuple[tuple[str, dict[str, str], int], ...] = (
        ("tenure_decision_latency_seconds_count", {"risk": "Low", "source": "Policy"}, 1),
        ("tenure_decision_latency_seconds_count", {"risk": "Low", "source": "SubjectGone"}, 1),
        ("tenure_decision_latency_seconds_count", {"risk": "Low", "source": "Verdict", "class": "Standard"}, 1),
        ("tenure_decision_latency_seconds_count", {"risk": "Medium", "source": "Exception", **migration}, 1),
        ("tenure_detection_latency_seconds_count", {}, 4),
        ("tenure_enforcement_latency_seconds_count", {}, 1),
        ("tenure_decisions_due_total", {"outcome": "missed"}, 1),
        ("tenure_decisions_due_total", {"outcome": "met"}, 1),
        ("tenure_enforcement_actions_total", done, 1),
        ("tenure_escalations_total", {"step": "1"}, 1),
        ("tenure_escalations_total", {"step": "2"}, 1),
        ("tenure_exception_renewals_total", migration, 1),
    )
    # Gauges tell what is, and what earlier tests left in this cluster may be on its way out: no rise can be asked for.
    there: tuple[tuple[str, dict[str, str], int], ...] = (
        ("tenure_quarantines", {"stage": "Guard"}, 1),
        ("tenure_quarantines", {"stage": "DisableTokens"}, 1),
        ("tenure_credentials", {"type": "ServiceAccountToken", "state": "Invalidated"}, 1),
        ("tenure_identities", {"ownership": "declared"}, 1),
        ("tenure_exceptions", {**migration, "phase": "Active"}, 1),
    )
    for name, labels, least in (
        *((name, labels, scene.before.value(name, **labels) + more) for name, labels, more in rises),
        *there,
    ):

        def reached(name: str = name, labels: dict[str, str] = labels, least: float = least) -> bool:
            return scene.operator.metrics().value(name, **labels) >= least

        eventually(reached, what=f"{name}{labels} at {least}")
    after = scene.operator.metrics()
    assert after.value("tenure_inventory_sources", state="Fresh") == 1
    assert after.value("tenure_oldest_undecided_timestamp_seconds") <= datetime.now(UTC).timestamp()
    assert len(after.samples("tenure_inventory_last_sync_timestamp_seconds")) == 16


def test_no_counter_or_histogram_names_an_object(scene: Scene) -> None:
    text = scene.operator.metrics_text()
    kinds = families(text)
    names = {scene.place, "taken", "claimed", "gone", "judged", "taken-token", "waived-token", "owned-token"}
    names |= {"metrics-owner", "metrics-stand-by", "metrics-security", "metrics-judge"}
    names |= {found["metadata"]["name"] for found in scene.cluster.list("identityfindings", scene.place)}
    seen = set()
    for (sample, labels), _ in scene.operator.metrics().items():
        family = re.sub(r"_(bucket|count|sum)$", "", sample)
        own = {*PER_OBJECT, EXEMPT, *ENDS}
        assert {"namespace", "name", "owner", "uid"}.isdisjoint(name for name, _ in labels) or family in own
        if kinds.get(family, kinds.get(sample)) in ("counter", "histogram"):
            seen.add(family)
            assert names.isdisjoint(value for _, value in labels), sample
    assert len(seen) > 10


def test_series_about_an_object_die_with_it(scene: Scene) -> None:
    cluster, place = scene.cluster, scene.place
    scenario.identity(cluster, place, "short-lived", ["short-token"])
    found = scene.await_phase("LegacyToken", "short-token", "Open")
    labels = {"namespace", "name", "rule", "risk", "class", "owner", "on_deadline", "mode"}
    for sample in PER_OBJECT:
        eventually(lambda sample=sample: about(scene.operator.metrics(), sample, found))  # type: ignore[misc]
        assert label_names(scene.operator.metrics(), sample) == labels
    cluster.delete("secrets", "short-token", place)
    for sample in PER_OBJECT:
        eventually(lambda sample=sample: about(scene.operator.metrics(), sample, found) is None)  # type: ignore[misc]
    tokens = sum(secret["type"] == scenario.TOKEN for secret in cluster.list("secrets"))
    eventually(lambda: scene.operator.metrics().value("tenure_credentials", type="ServiceAccountToken") == tokens)


def test_per_object_series_are_of_open_findings_alone_and_say_when_they_are_due(scene: Scene) -> None:
    def agree() -> bool:
        stored = scene.cluster.list("identityfindings", scene.place)
        metrics = scene.operator.metrics()
        for found in stored:
            status = found["status"]
            for sample, field in zip(sorted(PER_OBJECT), ("due", "detected"), strict=True):
                value = about(metrics, sample, found)
                if status["phase"] == "Open":
                    assert value == datetime.fromisoformat(status[field].replace("Z", "+00:00")).timestamp()
                else:
                    assert value is None, (found["spec"]["rule"], status["phase"])
            exempt = about(metrics, EXEMPT, found)
            since = status.get("debt", {}).get("since")
            assert exempt == (datetime.fromisoformat(since).timestamp() if status["phase"] == "Excepted" else None)
        return bool(stored)

    eventually(agree, what="the series say what the findings say")  # one may come due between the two looks
    assert label_names(scene.operator.metrics(), EXEMPT) == {"namespace", "name", "rule", "risk", "class", "owner"}


def test_ends_of_credentials_and_exceptions_follow_them(scene: Scene) -> None:
    cluster, place = scene.cluster, scene.place
    credential, waiver = "tenure_credential_expiry_timestamp_seconds", "tenure_exception_expiry_timestamp_seconds"

    def told(sample: str, name: str) -> tuple[dict[str, str], str] | None:
        found = scene.operator.metrics().samples(sample)
        own = [(dict(labels), at) for labels, at in found.items() if {("namespace", place), ("name", name)} <= labels]
        assert len(own) <= 1
        return (own[0][0], datetime.fromtimestamp(own[0][1], UTC).isoformat()) if own else None

    [renewed] = [found for found in cluster.list("identityexceptions", place) if found["status"]["phase"] == "Active"]
    name = renewed["metadata"]["name"]
    labels = {"namespace": place, "name": name, "class": renewed["spec"]["class"], "owner": "metrics-owner"}
    end = datetime.fromisoformat(renewed["spec"]["expiresAt"]).isoformat()
    eventually(lambda: told(waiver, name) == ({**labels, "risk": "Medium", "needed": "true"}, end))
    cluster.delete("secrets", "waived-token", place)
    eventually(lambda: told(waiver, name) == ({**labels, "risk": "Medium", "needed": "false"}, end))
    cluster.delete("identityexceptions", name, place)
    eventually(lambda: told(waiver, name) is None)

    metadata = {"name": "web-tls", "namespace": place, "annotations": {"service.beta.openshift.io/expiry": end}}
    tls = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": metadata}
    cluster.create({**tls, "data": {"tls.crt": "", "tls.key": ""}})
    labels = {"namespace": place, "name": "web-tls", "type": "TLS", "class": "Workload", "risk": "Medium"}
    eventually(lambda: told(credential, "web-tls") == ({**labels, "owner": ""}, end))
    by_name = {"secrets": {"names": ["web-tls"]}}
    cluster.create(claim(place, owner="metrics-owner", subjects=by_name, name="certificates"))
    eventually(lambda: told(credential, "web-tls") == ({**labels, "owner": "metrics-owner"}, end))
    later = "2099-01-01T00:00:00+00:00"
    renewal = {"metadata": {"annotations": {"service.beta.openshift.io/expiry": later}}}
    cluster.patch("secrets", "web-tls", renewal, place)
    eventually(lambda: told(credential, "web-tls") == ({**labels, "owner": "metrics-owner"}, later))
    cluster.delete("secrets", "web-tls", place)
    eventually(lambda: told(credential, "web-tls") is None)


def test_durable_counters_stand_in_the_first_scrape_after_a_restart(scene: Scene) -> None:
    operator = scene.operator

    def settled() -> bool:
        stored = scene.cluster.list("identityfindings", scene.place)
        return all(found["status"]["dueOutcome"] in ("met", "missed") for found in stored)

    eventually(settled, what="every opening came due, so that nothing is counted while we look")
    before = operator.metrics().samples("tenure_decisions_due_total")
    renewed = operator.metrics().samples("tenure_exception_renewals_total")
    assert sum(before.values()) > 0
    assert sum(renewed.values()) > 0
    operator.kill()
    operator.start()

    def first() -> dict[Any, float]:
        assert operator.probe("/healthz") == 200
        return operator.metrics().samples("tenure_decisions_due_total")

    assert eventually(first, what="the first scrape with durable counters") == before
    operator.wait_ready()
    assert operator.metrics().samples("tenure_decisions_due_total") == before
    assert operator.metrics().samples("tenure_exception_renewals_total") == renewed
    assert operator.metrics().value("tenure_detection_latency_seconds_count") == 0, "the others start with the process"


def test_probes_tell_alive_from_ready(installed: Cluster, operator: Any) -> None:
    """While one kind cannot be read: alive, not ready, metrics served. Unknown paths are unknown."""
    with FaultProxy.to(installed) as proxy:
        waits = proxy.fault("list pods", Hang(), times=None)
        started: Operator = operator(installed.token_kubeconfig(HOME, "tenure", server=proxy.url), wait=False)
        waits.wait()
        eventually(lambda: started.metrics().has("tenure_inventory_last_sync_timestamp_seconds", kind="Secret"))

        def body(path: str) -> tuple[int, str]:
            answer = urllib3.request("GET", started.url + path, retries=False, timeout=5)
            return answer.status, answer.data.decode()

        eventually(lambda: body("/readyz") == (503, "not synced: Pod\n"), what="Pods are all that is missing")
        assert body("/healthz") == (200, "ok\n")
        assert started.metrics().value("tenure_inventory_sources", state="Missing") == 1
        assert not started.metrics().has("tenure_inventory_last_sync_timestamp_seconds", kind="Pod")
        assert body("/other")[0] == 404
        waits.remove()
        started.wait_ready()
        assert body("/readyz") == (200, "ok\n")
        assert body("/healthz") == (200, "ok\n")


def test_the_expected_labels_are_the_documented_ones() -> None:
    """What this file takes for the contract's label values stands in docs/metrics.md too."""
    text = (REPOSITORY / "docs" / "metrics.md").read_text()
    for value in itertools.chain(CLASSES, EXCEPTIONS, RISKS, ("met", "missed")):
        assert value in text, value
