"""Every metric that this slice feeds, at 0 from the start and after what it counts; the diff of a write; the scrape."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as classic_families

from tenure.api.exception import IdentityExceptionSpec, IdentityExceptionStatus
from tenure.api.finding import IdentityFindingSpec, IdentityFindingStatus
from tenure.api.names import (
    DecisionSource,
    ExceptionClass,
    ExceptionPhase,
    IdentityClass,
    Phase,
    Risk,
    Stage,
)
from tenure.api.quarantine import QuarantineSpec, QuarantineStatus
from tenure.model.keys import Key
from tenure.model.records import Authored
from tenure.telemetry import metrics as m
from tenure.telemetry.metrics import Metrics
from tenure.telemetry.observed import (
    Credential,
    CredentialEnd,
    Entitlement,
    ExceptionEnd,
    Identity,
    Nothing,
    credential_type,
)

T0 = datetime(2026, 12, 4, 9, 0, tzinfo=UTC)
SPEC = IdentityFindingSpec.read({"rule": "Unowned", "subject": {"kind": "ServiceAccount", "name": "ci", "uid": "u"}})
OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"

Finding = Authored[IdentityFindingSpec, IdentityFindingStatus]


def at(minutes: float) -> datetime:
    return T0 + timedelta(minutes=minutes)


def status(**changes: Any) -> IdentityFindingStatus:
    fields: dict[str, Any] = {
        "risk": {"level": "High"},
        "observable": at(-10),
        "detected": at(0),
        "opened": at(0),
        "due": at(60),
        "on_deadline": "Quarantine",
        "mode": "Enforce",
        "accountable": {"owner": "payments"},
    }
    return IdentityFindingStatus.model_validate({**fields, **changes})


def authored(kind: str, name: str, spec: Any, state: Any, namespace: str = "payments") -> Authored[Any, Any]:
    return Authored(kind, namespace, name, f"uid-{name}", 1, "1", T0, spec, state)


def finding(name: str, state: IdentityFindingStatus | None, spec: IdentityFindingSpec = SPEC) -> Finding:
    return authored("IdentityFinding", name, spec, state)


class Engine(Nothing):
    """What the collector reads, as plain attributes."""

    def __init__(self, findings: Iterable[Finding] = ()) -> None:
        self.held = list(findings)
        self.waivers: list[Any] = []
        self.holds: list[Any] = []
        self.durable: dict[str, dict[tuple[str, ...], int]] = {}
        self.waiting: dict[str, int] = {}
        self.synced: dict[str, datetime] = {}
        self.expected: dict[str, int] = {}
        self.due: dict[str, int] = {}

    def findings(self) -> Iterable[Finding]:
        return self.held

    def exceptions(self) -> Iterable[Any]:
        return self.waivers

    def quarantines(self) -> Iterable[Any]:
        return self.holds

    def totals(self) -> Mapping[str, Mapping[tuple[str, ...], int]]:
        return self.durable

    def reviews(self) -> Mapping[str, int]:
        return self.due

    def queue(self) -> Mapping[str, int]:
        return self.waiting

    def last_sync(self) -> Mapping[str, datetime]:
        return self.synced

    def sources(self) -> Mapping[str, int]:
        return self.expected


def scrape(metrics: Metrics, accept: str = "") -> str:
    return asyncio.run(whole(metrics.exposition(accept)[1])).decode()


async def whole(parts: AsyncIterator[bytes]) -> bytes:
    return b"".join([part async for part in parts])


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in classic_families(scrape(metrics))
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, /, **labels: str) -> float | None:
    wanted = f"tenure_{name}"
    lines = "".join(f"{line}\n" for line in scrape(metrics).split("\n") if line.startswith(wanted))
    parsed = (sample for family in classic_families(lines) for sample in family.samples)
    return next((s.value for s in parsed if s.name == wanted and s.labels == labels), None)


# --- from the start -------------------------------------------------------------------------------------------------


def test_bounded_label_sets_exist_at_zero_from_the_start() -> None:
    found = {key: v for key, v in samples(Metrics(observed=Nothing())).items() if key[0].startswith("tenure_")}
    assert set(found.values()) == {0.0}
    by_name: dict[str, int] = {}
    for name, _ in found:
        by_name[name] = by_name.get(name, 0) + 1
    rules = len(m.RULES)
    assert by_name["tenure_findings"] == rules * len(Risk) * len(IdentityClass) * len(Phase)
    assert by_name["tenure_decision_latency_seconds_count"] == len(Risk) * (len(DecisionSource) + len(ExceptionClass))
    assert by_name["tenure_revocation_latency_seconds_count"] == rules * (len(ExceptionClass) + 1)
    assert by_name["tenure_decisions_due_total"] == len(Risk) * 2
    assert by_name["tenure_exception_renewals_total"] == len(ExceptionClass)
    assert by_name["tenure_exceptions"] == len(ExceptionClass) * len(ExceptionPhase)
    assert by_name["tenure_quarantines"] == len(Stage)
    assert by_name["tenure_identities"] == len(IdentityClass) * 3 * 2
    assert by_name["tenure_credentials"] == 7 * 2 * 3
    assert by_name["tenure_entitlements"] == 4
    assert by_name["tenure_inventory_sources"] == 3
    assert by_name["tenure_enforcement_actions_total"] == 3 * 4 * 2
    for name in (
        "detection_latency_seconds_count",
        "enforcement_latency_seconds_count",
        "quarantines_released_early_total",
        "tripwire_attempts_total",
    ):
        assert by_name[f"tenure_{name}"] == 1
    for name in ("enforcement_reverted_total", "actions_blocked_total", "enforcement_queue_length"):
        assert by_name[f"tenure_{name}"] > 1
    assert not any(name.endswith("_created") for name in by_name)


def test_buckets_are_the_contracts() -> None:
    edges = {
        float(dict(labels)["le"])
        for (name, labels) in samples(Metrics(observed=Nothing()))
        if name == "tenure_detection_latency_seconds_bucket"
    }
    assert sorted(edges)[:-1] == [
        60, 300, 900, 3600, 14400, 28800, 86400, 172800, 259200, 604800, 1209600, 2592000, 5184000, 7776000,
    ]  # fmt: skip
    assert max(edges) == float("inf")


def test_the_process_is_told_of_too() -> None:
    names = {name for name, _ in samples(Metrics(observed=Nothing()))}
    assert {"process_resident_memory_bytes", "python_info", "python_gc_collections_total"} <= names


def test_two_instances_share_nothing() -> None:
    one, other = Metrics(observed=Nothing()), Metrics(observed=Nothing())
    one.tripwire()
    assert value(one, "tripwire_attempts_total") == 1
    assert value(other, "tripwire_attempts_total") == 0


# --- what a write stamped -------------------------------------------------------------------------------------------


def test_an_opening_observes_detection_once() -> None:
    metrics = Metrics(observed=Nothing())
    first = status()
    metrics.finding_written(None, SPEC, first)
    metrics.finding_written(first, SPEC, first.model_copy(update={"message": "else"}))
    assert value(metrics, "detection_latency_seconds_count") == 1
    assert value(metrics, "detection_latency_seconds_sum") == 600
    metrics.finding_written(first, SPEC, status(detected=at(300), observable=at(299), opening=2))
    assert value(metrics, "detection_latency_seconds_count") == 2
    assert value(metrics, "detection_latency_seconds_sum") == 660


def test_an_observable_instant_after_detection_counts_as_at_once() -> None:
    metrics = Metrics(observed=Nothing())
    metrics.finding_written(None, SPEC, status(observable=at(1)))
    assert value(metrics, "detection_latency_seconds_sum") == 0


@pytest.mark.parametrize("source", list(DecisionSource))
def test_a_decision_is_observed_once_with_risk_and_source(source: DecisionSource) -> None:
    metrics = Metrics(observed=Nothing())
    before = status()
    after = status(decided=at(30), decision={"source": source})
    metrics.finding_written(before, SPEC, after)
    metrics.finding_written(after, SPEC, after.model_copy(update={"phase": Phase.QUARANTINED}))
    labels = {"risk": "High", "source": source.value, "class": "Standard"}
    assert value(metrics, "decision_latency_seconds_count", **labels) == 1
    assert value(metrics, "decision_latency_seconds_sum", **labels) == 1800
    assert value(metrics, "decision_latency_seconds_bucket", **labels, le="900.0") == 0
    assert value(metrics, "decision_latency_seconds_bucket", **labels, le="3600.0") == 1


def test_only_an_exceptions_own_decision_carries_its_class() -> None:
    metrics = Metrics(observed=Nothing())
    excepted = status(decided=at(5), decision={"source": "Exception"}, phase="Excepted")
    metrics.finding_written(None, SPEC, excepted, exception_class="Migration")
    metrics.finding_written(
        excepted,
        SPEC,
        status(detected=at(90), opening=2, decided=at(150), decision={"source": "Policy"}),
        exception_class="Migration",
    )
    count = "decision_latency_seconds_count"
    assert value(metrics, count, risk="High", source="Exception", **{"class": "Migration"}) == 1
    assert value(metrics, count, risk="High", source="Exception", **{"class": "Standard"}) == 0
    assert value(metrics, count, risk="High", source="Policy", **{"class": "Standard"}) == 1
    assert value(metrics, count, risk="High", source="Policy", **{"class": "Migration"}) is None


def test_a_second_decision_of_the_same_opening_is_observed_too() -> None:
    metrics = Metrics(observed=Nothing())
    first = status(decided=at(5), decision={"source": "Policy"})
    metrics.finding_written(first, SPEC, status(decided=at(10), decision={"source": "Claim"}))
    assert value(metrics, "decision_latency_seconds_sum", risk="High", source="Claim", **{"class": "Standard"}) == 600


def act(verdict: str, decided: float, verified: float | None) -> dict[str, Any]:
    return {"verdict": verdict, "decided": at(decided), "verified": None if verified is None else at(verified)}


def test_enforcement_is_the_first_acts_and_revocation_the_revoke_acts() -> None:
    metrics = Metrics(observed=Nothing())
    decided: dict[str, Any] = {"decided": at(60), "decision": {"source": "Policy"}}
    started = status(**decided, acts=[act("Quarantine", 60, None)])
    quarantined = status(**decided, acts=[act("Quarantine", 60, 61)])
    revoking = status(**decided, acts=[act("Quarantine", 60, 61), act("Revoke", 120, None)])
    revoked = status(**decided, acts=[act("Quarantine", 60, 61), act("Revoke", 120, 122)])
    for before, after in ((None, started), (started, quarantined), (quarantined, revoking), (revoking, revoked)):
        metrics.finding_written(before, SPEC, after)
    metrics.finding_written(revoked, SPEC, revoked)
    assert value(metrics, "enforcement_latency_seconds_count") == 1
    assert value(metrics, "enforcement_latency_seconds_sum") == 60
    labels = {"cause": "Unowned", "class": "Standard"}
    assert value(metrics, "revocation_latency_seconds_count", **labels) == 1
    assert value(metrics, "revocation_latency_seconds_sum", **labels) == 132 * 60


def test_a_revocation_at_once_is_both() -> None:
    metrics = Metrics(observed=Nothing())
    after = status(decided=at(60), decision={"source": "Verdict"}, acts=[act("Revoke", 60, 65)])
    metrics.finding_written(status(), SPEC, after, exception_class="Migration")
    assert value(metrics, "enforcement_latency_seconds_sum") == 300
    assert value(metrics, "revocation_latency_seconds_sum", cause="Unowned", **{"class": "Migration"}) == 75 * 60


# --- counters -------------------------------------------------------------------------------------------------------


def test_counters_of_our_own_acts() -> None:
    metrics = Metrics(observed=Nothing())
    metrics.action("Quarantine", "ServiceAccount", "verified")
    metrics.blocked("BlastRadius")
    metrics.blocked("BlastRadius")
    metrics.reverted("Flux")
    metrics.reverted("some-controller-abc12")
    metrics.reverted("")
    metrics.released_early()
    metrics.tripwire(3)
    counted = value(
        metrics, "enforcement_actions_total", action="Quarantine", kind="ServiceAccount", outcome="verified"
    )
    assert counted == 1
    assert value(metrics, "actions_blocked_total", cause="BlastRadius") == 2
    assert value(metrics, "enforcement_reverted_total", manager="Flux") == 1
    assert value(metrics, "enforcement_reverted_total", manager="Other") == 2
    assert value(metrics, "quarantines_released_early_total") == 1
    assert value(metrics, "tripwire_attempts_total") == 3


def test_durable_totals_stand_right_at_the_first_scrape() -> None:
    engine = Engine()
    engine.durable = {
        "decisions_due_total": {("Critical", "missed"): 4},
        "exception_renewals_total": {("Migration",): 2},
    }
    metrics = Metrics(observed=engine)
    assert value(metrics, "decisions_due_total", risk="Critical", outcome="missed") == 4
    assert value(metrics, "decisions_due_total", risk="Critical", outcome="met") == 0
    assert value(metrics, "exception_renewals_total", **{"class": "Migration"}) == 2
    engine.durable["decisions_due_total"]["Critical", "missed"] = 5
    assert value(metrics, "decisions_due_total", risk="Critical", outcome="missed") == 5


# --- gauges ---------------------------------------------------------------------------------------------------------


def test_tallies_follow_the_objects() -> None:
    metrics = Metrics(observed=Nothing())
    key = Key("ServiceAccount", "payments", "ci")
    metrics.tally(key, Identity("ServiceAccount", IdentityClass.WORKLOAD, "none", False))
    unowned = {"kind": "ServiceAccount", "class": "Workload", "ownership": "none", "escalation": "false"}
    owned = {"kind": "ServiceAccount", "class": "Agent", "ownership": "declared", "escalation": "true"}
    assert value(metrics, "identities", **unowned) == 1
    metrics.tally(key, Identity("ServiceAccount", IdentityClass.AGENT, "declared", True))
    assert value(metrics, "identities", **unowned) == 0
    assert value(metrics, "identities", **owned) == 1
    metrics.tally(key, None)
    assert value(metrics, "identities", **owned) == 0
    metrics.tally(key, None)
    assert value(metrics, "identities", **owned) == 0


def test_a_credential_and_a_bindings_subjects() -> None:
    metrics = Metrics(observed=Nothing())
    metrics.tally(Key("Secret", "a", "b"), Credential("TLS", "Usable", "derived"))
    binding = Key("ClusterRoleBinding", "", "c")
    metrics.tally(binding, [Entitlement("Cluster", "Effective"), Entitlement("Cluster", "Dangling")])
    assert value(metrics, "credentials", type="TLS", state="Usable", ownership="derived") == 1
    assert value(metrics, "entitlements", scope="Cluster", state="Effective") == 1
    metrics.tally(binding, [Entitlement("Cluster", "Effective"), Entitlement("Cluster", "Effective")])
    assert value(metrics, "entitlements", scope="Cluster", state="Effective") == 2
    assert value(metrics, "entitlements", scope="Cluster", state="Dangling") == 0
    metrics.tally(binding, ())
    assert value(metrics, "entitlements", scope="Cluster", state="Effective") == 0


def test_types_of_credentials_are_bounded() -> None:
    assert credential_type("kubernetes.io/service-account-token") == "ServiceAccountToken"
    assert credential_type("Opaque") == "APIKey"
    assert credential_type("example.com/whatever") == "APIKey"


def test_exceptions_quarantines_queue_sources_and_sync() -> None:
    engine = Engine()
    spec = IdentityExceptionSpec.read(
        {
            "target": {"kind": "Secret", "name": "t"},
            "rules": ["LegacyToken"],
            "class": "Migration",
            "owner": "payments",
            "justification": "j",
            "expiresAt": "2027-01-31T00:00:00Z",
        }
    )
    engine.waivers = [
        authored("IdentityException", "new", spec, None),
        authored("IdentityException", "old", spec, IdentityExceptionStatus(phase=ExceptionPhase.EXPIRED)),
    ]
    quarantine = QuarantineSpec.read({"subject": {"kind": "ServiceAccount", "name": "ci", "uid": "u"}})
    stages = QuarantineStatus.read(
        {
            "stages": [
                {"name": "Guard", "done": "2026-12-04T09:00:00Z", "verified": "2026-12-04T09:00:00Z"},
                {
                    "name": "DisableTokens",
                    "done": "2026-12-04T09:00:00Z",
                    "verified": "2026-12-04T09:00:00Z",
                    "error": "no",
                },
            ]
        }
    )
    engine.holds = [
        authored("Quarantine", "one", quarantine, stages),
        authored("Quarantine", "two", quarantine, None),
    ]
    engine.waiting = {"BlastRadius": 7}
    engine.expected = {"Missing": 1}
    engine.synced = {"Secret": T0}
    metrics = Metrics(observed=engine)
    assert value(metrics, "exceptions", **{"class": "Migration"}, phase="Pending") == 1
    assert value(metrics, "exceptions", **{"class": "Migration"}, phase="Expired") == 1
    assert value(metrics, "quarantines", stage="Guard") == 1
    assert value(metrics, "quarantines", stage="DisableTokens") == 0
    assert value(metrics, "enforcement_queue_length", reason="BlastRadius") == 7
    assert value(metrics, "enforcement_queue_length", reason="Ready") == 0
    assert value(metrics, "inventory_sources", state="Missing") == 1
    assert value(metrics, "inventory_last_sync_timestamp_seconds", kind="Secret") == T0.timestamp()


# --- findings -------------------------------------------------------------------------------------------------------

LABELS = {
    "namespace": "payments",
    "name": "unowned-1",
    "rule": "Unowned",
    "risk": "High",
    "class": "Workload",
    "owner": "payments",
    "on_deadline": "Quarantine",
    "mode": "enforce",
}


def test_an_open_findings_series_live_and_die_with_it() -> None:
    engine = Engine([finding("unowned-1", status())])
    metrics = Metrics(observed=engine)
    opened, deadline = "finding_opened_timestamp_seconds", "finding_decision_deadline_timestamp_seconds"
    group = {"rule": "Unowned", "risk": "High", "class": "Workload"}
    assert value(metrics, opened, **LABELS) == at(0).timestamp()
    assert value(metrics, deadline, **LABELS) == at(60).timestamp()
    assert value(metrics, "oldest_undecided_timestamp_seconds") == at(0).timestamp()
    assert value(metrics, "findings", **group, phase="Open") == 1

    engine.held = [finding("unowned-1", status(phase="Quarantined", decided=at(60), decision={"source": "Policy"}))]
    assert value(metrics, opened, **LABELS) is None
    assert value(metrics, deadline, **LABELS) is None
    assert value(metrics, "oldest_undecided_timestamp_seconds") is None
    assert value(metrics, "findings", **group, phase="Open") == 0
    assert value(metrics, "findings", **group, phase="Quarantined") == 1

    engine.held = []
    assert value(metrics, "findings", **group, phase="Quarantined") == 0


def test_a_changed_finding_has_one_series() -> None:
    engine = Engine([finding("unowned-1", status())])
    metrics = Metrics(observed=engine)
    scrape(metrics)
    engine.held = [finding("unowned-1", status(risk={"level": "Critical"}, accountable={"owner": "security"}))]
    opened = [labels for name, labels in samples(metrics) if name == "tenure_finding_opened_timestamp_seconds"]
    assert opened == [frozenset({**LABELS, "risk": "Critical", "owner": "security"}.items())]


def test_the_oldest_undecided_is_neither_decided_nor_closed() -> None:
    engine = Engine(
        [
            finding("a", status(detected=at(-100), phase="Excepted")),
            finding("b", status(detected=at(-90), decided=at(-80), decision={"source": "Policy"})),
            finding("c", status(detected=at(-50))),
            finding("d", status(detected=at(-40))),
            finding("e", None),
        ]
    )
    assert value(Metrics(observed=engine), "oldest_undecided_timestamp_seconds") == at(-50).timestamp()


def test_an_exempt_findings_series_tells_all_its_exempt_time_and_ends_with_it() -> None:
    decision = {"source": "Exception", "class": "Migration", "reference": "IdentityException/w"}
    debt = {"exempt_seconds": 3600, "since": at(5), "renewals": 1}
    engine = Engine([finding("unowned-1", status(phase="Excepted", decided=at(5), decision=decision, debt=debt))])
    metrics = Metrics(observed=engine)
    labels = {name: LABELS[name] for name in ("namespace", "name", "rule", "risk", "owner")}
    exempt = "finding_exempt_since_timestamp_seconds"
    assert value(metrics, exempt, **labels, **{"class": "Migration"}) == at(-55).timestamp()
    assert value(metrics, "finding_opened_timestamp_seconds", **LABELS) is None

    policys = status(phase="Excepted", decided=at(4), decision={"source": "Policy"}, debt={**debt, "exempt_seconds": 0})
    engine.held = [finding("unowned-1", policys)]
    assert value(metrics, exempt, **labels, **{"class": "Standard"}) == at(5).timestamp()
    engine.held = [finding("unowned-1", status(debt={**debt, "since": None}))]
    assert "finding_exempt_since_timestamp_seconds{" not in scrape(metrics), "open again: it stands in the finding"


def test_ends_follow_the_objects() -> None:
    metrics = Metrics(observed=Nothing())
    secret, waiver = Key("Secret", "payments", "web-tls"), Key("IdentityException", "payments", "w")
    metrics.end(secret, CredentialEnd("TLS", IdentityClass.WORKLOAD, Risk.MEDIUM, "", at(1)))
    metrics.end(waiver, ExceptionEnd(ExceptionClass.MIGRATION, Risk.HIGH, "payments", True, at(2)))
    credential = {"namespace": "payments", "name": "web-tls", "type": "TLS", "class": "Workload", "risk": "Medium"}
    exception = {"namespace": "payments", "name": "w", "class": "Migration", "risk": "High", "owner": "payments"}
    assert value(metrics, "credential_expiry_timestamp_seconds", **credential, owner="") == at(1).timestamp()
    assert value(metrics, "exception_expiry_timestamp_seconds", **exception, needed="true") == at(2).timestamp()
    metrics.end(secret, CredentialEnd("TLS", IdentityClass.WORKLOAD, Risk.MEDIUM, "payments", at(3)))
    metrics.end(waiver, None)
    assert value(metrics, "credential_expiry_timestamp_seconds", **credential, owner="payments") == at(3).timestamp()
    assert [line for line in scrape(metrics).splitlines() if line.startswith("tenure_exception_expiry")] == []
    metrics.end(secret, None)
    metrics.end(secret, None)
    assert [line for line in scrape(metrics).splitlines() if line.startswith("tenure_credential_expiry")] == []


def test_owner_names_are_escaped() -> None:
    odd = 'a"b\\c\nd'
    metrics = Metrics(observed=Engine([finding("unowned-1", status(accountable={"owner": odd}))]))
    assert value(metrics, "finding_opened_timestamp_seconds", **{**LABELS, "owner": odd}) == at(0).timestamp()


def many(count: int) -> list[Finding]:
    return [
        Authored("IdentityFinding", "payments", f"unowned-{n:020x}", str(n), 1, "1", T0, SPEC, status())
        for n in range(count)
    ]


def test_both_ways_to_collect_say_the_same() -> None:
    engine = Engine([*many(1500), finding("x", status(phase="Resolved"))])
    engine.held.append(finding("y", status(phase="Excepted", decided=at(5))))
    metrics = Metrics(observed=engine)
    metrics.tripwire()
    metrics.end(Key("Secret", "a", "b"), CredentialEnd("TLS", IdentityClass.PLATFORM, Risk.HIGH, 'odd "owner', at(1)))
    metrics.end(Key("IdentityException", "a", "b"), ExceptionEnd(ExceptionClass.MIGRATION, Risk.LOW, "o", False, at(2)))

    quick, usual = scrape(metrics), generate_latest(metrics.registry).decode()

    def heads(text: str) -> list[str]:
        return sorted(line for line in text.splitlines() if line.startswith("# ") and "tenure_" in line)

    def values(text: str) -> set[tuple[Any, ...]]:
        parsed = (s for family in classic_families(text) for s in family.samples if s.name.startswith("tenure_"))
        return {(s.name, *sorted(s.labels.items()), s.value) for s in parsed}

    assert heads(quick) == heads(usual)
    assert values(quick) == values(usual)
    assert sum(name.startswith("tenure_finding_") for name, *_ in values(quick)) == 3001
    assert sum("_expiry_" in name for name, *_ in values(quick)) == 2


def test_openmetrics_where_asked_for() -> None:
    metrics = Metrics(observed=Engine(many(3)))
    metrics.tripwire(2)
    assert metrics.exposition(OPENMETRICS)[0].startswith("application/openmetrics-text")
    body = scrape(metrics, OPENMETRICS)
    assert body.endswith("# EOF\n")
    assert body.count("# EOF") == 1
    found = {
        s.name: s.value
        for family in openmetrics_families(body)  # type: ignore[no-untyped-call]
        for s in family.samples
    }
    assert found["tenure_tripwire_attempts_total"] == 2
    assert found["tenure_finding_opened_timestamp_seconds"] == at(0).timestamp()


async def test_a_scrape_of_ten_thousand_findings_lets_the_loop_turn() -> None:
    """No clock here: what counts is that others get their turn every thousand findings, in each of its three passes."""
    engine = Engine(many(10_000))
    metrics = Metrics(observed=engine)
    turns = 0
    done = asyncio.Event()

    async def others() -> None:
        nonlocal turns
        while not done.is_set():
            turns += 1
            await asyncio.sleep(0)

    waiting = asyncio.create_task(others())
    scraping = asyncio.create_task(whole(metrics.exposition()[1]))
    await asyncio.sleep(0)
    engine.held.clear()  # the index changes while the scrape is under way
    body = await scraping
    done.set()
    await waiting
    assert body.count(b"tenure_finding_opened_timestamp_seconds{") == 10_000
    assert turns >= 30


def test_promtool_has_nothing_to_say() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (apt-get install prometheus)")
    engine = Engine(many(5))
    engine.synced = {"Secret": T0}
    metrics = Metrics(observed=engine)
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=scrape(metrics), capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_steps_of_escalation_are_counted_each_by_its_number() -> None:
    metrics = Metrics(observed=Engine())
    assert [value(metrics, "escalations_total", step=str(n)) for n in range(1, 9)] == [0] * 8
    metrics.escalated(1)
    metrics.escalated(2)
    metrics.escalated(1)
    assert [value(metrics, "escalations_total", step=str(n)) for n in (1, 2, 3)] == [2, 1, 0]
    assert value(metrics, "escalations_total", step="9") is None


def test_reviews_stand_at_zero_until_there_are_some() -> None:
    engine = Engine()
    metrics = Metrics(observed=engine)
    assert [value(metrics, "reviews", state=state) for state in ("Scheduled", "Due", "Overdue")] == [0, 0, 0]
    engine.due = {"Due": 3}
    assert [value(metrics, "reviews", state=state) for state in ("Scheduled", "Due", "Overdue")] == [0, 3, 0]


def test_a_persons_verdict_has_a_latency_of_its_own_source() -> None:
    metrics = Metrics(observed=Engine())
    decided = status(decided=at(30), decision={"verdict": "Quarantine", "source": "Verdict", "by": "bob"})
    metrics.finding_written(status(), SPEC, decided)
    labels = {"risk": "High", "source": "Verdict", "class": "Standard"}
    assert value(metrics, "decision_latency_seconds_count", **labels) == 1
    assert value(metrics, "decision_latency_seconds_sum", **labels) == 1800
