"""The two Grafana dashboards, written to charts/tenure/files/dashboards.

    python -m monitoring.dashboards [--check]

JSON of a dashboard is long and repeats itself; what differs is a title, a sentence and a query. Each query is run
against a live operator by tests/cluster/test_monitoring.py. The data source is a variable, so that a dashboard fits
whatever Grafana it is put into.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Final

Json = dict[str, Any]

FOLDER: Final = Path(__file__).resolve().parent.parent / "charts" / "tenure" / "files" / "dashboards"
SOURCE: Final[Json] = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS: Final = 24

GOOD, FAIR, BAD, PLAIN = "green", "orange", "red", "blue"

OPERATOR: Final = 'and on (job, instance) tenure_inventory_sources{state="Fresh"}'
"""Narrows what every process exports to the operator, whatever its job is called."""


def panel(title: str, kind: str, says: str, width: int, height: int, queries: dict[str, str], **field: Any) -> Json:
    """One panel; `queries` are legend -> expression. `field` are its defaults: unit, steps (threshold -> colour)."""
    steps: dict[float | None, str] = field.pop("steps", {None: PLAIN})
    options: Json = field.pop("options", {})
    instant = kind not in ("timeseries",)
    defaults: Json = {
        "thresholds": {
            "mode": "absolute",
            "steps": [{"color": color, "value": value} for value, color in steps.items()],
        },
        **field,
    }
    if kind != "timeseries":
        defaults.setdefault("color", {"mode": "thresholds"})
    return {
        "type": kind,
        "title": title,
        "description": says,
        "datasource": SOURCE,
        "gridPos": {"w": width, "h": height},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": SOURCE,
                "expr": expression,
                "legendFormat": legend,
                "instant": instant,
                "range": not instant,
            }
            for number, (legend, expression) in enumerate(queries.items())
        ],
    }


def stat(title: str, says: str, query: str, **field: Any) -> Json:
    """One figure, coloured by its steps."""
    return panel(title, "stat", says, 4, 4, {title: query}, options={"graphMode": "area", **REDUCE}, **field)


def lines(title: str, says: str, queries: dict[str, str], *, width: int = 12, **field: Any) -> Json:
    """Figures over time."""
    options = {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}}
    return panel(title, "timeseries", says, width, 8, queries, options=options, **field)


def bars(title: str, says: str, queries: dict[str, str], *, width: int = 8, **field: Any) -> Json:
    """Figures side by side, one bar each."""
    options = {"orientation": "horizontal", "displayMode": "basic", **REDUCE}
    return panel(title, "bargauge", says, width, 8, queries, options=options, **field)


def ahead(series: str, days: int) -> str:
    """How many of these ends come within so many days."""
    return f"count(max by (namespace, name) ({series}) - time() < {days * 86400}) or vector(0)"


REDUCE: Final[Json] = {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}
SHARE: Final[Json] = {"unit": "percentunit", "min": 0, "max": 1, "decimals": 1}
COUNT: Final[Json] = {"unit": "short", "decimals": 0, "min": 0}


def scorecard() -> Json:
    """For those who answer for the programme: is it decided, how fast, by whom, and what is put off."""
    return board(
        "tenure-scorecard",
        "Tenure / Executive scorecard",
        [
            stat(
                "Ownership coverage",
                "Identities with an owner and an escalation path, of all but the platform's own.",
                "cluster:tenure_ownership_coverage:ratio",
                steps={None: BAD, 0.8: FAIR, 0.95: GOOD},
                **SHARE,
            ),
            stat(
                "Inventory completeness",
                "Fresh inventory sources of those that the policies expect. Below 100 %, coverage speaks of a part.",
                "cluster:tenure_inventory_completeness:ratio",
                steps={None: BAD, 1: GOOD},
                **SHARE,
            ),
            stat(
                "Decisions met, 30 days",
                "Decided in time and not by the policy, of all that came due. Who never decides is in it.",
                "cluster:tenure_decisions_met:ratio_increase30d",
                steps={None: BAD, 0.9: FAIR, 0.95: GOOD},
                **SHARE,
            ),
            stat(
                "Median decision latency",
                "From detection to the decision of a person, 30 days, without exceptions. Read it beside the oldest "
                "undecided risk: what nobody decides is in no median.",
                'class:tenure_decision_latency_seconds:p50_30d{class="Standard"}',
                unit="s",
                decimals=1,
            ),
            stat(
                "Overdue now",
                "Open findings whose time to decide is up.",
                "sum(namespace_owner_risk_mode:tenure_findings_overdue:count) or vector(0)",
                steps={None: GOOD, 1: BAD},
                **COUNT,
            ),
            stat(
                "Oldest undecided risk",
                "For how long the oldest open finding has waited for a decision.",
                "time() - min(tenure_oldest_undecided_timestamp_seconds)",
                unit="s",
                decimals=1,
            ),
            lines(
                "Decision latency against target",
                "Of people's decisions in the 30 days before each point, exceptions apart.",
                {
                    "median": 'class:tenure_decision_latency_seconds:p50_30d{class="Standard"}',
                    "90th percentile": 'class:tenure_decision_latency_seconds:p90_30d{class="Standard"}',
                    "median, exceptions: {{class}}": 'class:tenure_decision_latency_seconds:p50_30d{class!="Standard"}',
                    "target": "vector($target)",
                },
                unit="s",
            ),
            lines(
                "Decisions met",
                "Share of what came due in the 7, 30 and 90 days before each point.",
                {
                    "7 days": "cluster:tenure_decisions_met:ratio_increase7d",
                    "30 days": "cluster:tenure_decisions_met:ratio_increase30d",
                    "90 days": "cluster:tenure_decisions_met:ratio_increase90d",
                    "target": "vector(0.95)",
                },
                **SHARE,
            ),
            bars(
                "Overdue by team",
                "By the owner who is accountable now; without a name, nobody is.",
                {
                    "{{owner}}": "sort_desc(sum by (owner) (namespace_owner_risk_mode:tenure_findings_overdue:count) "
                    "or 0 * count by (owner) (tenure_finding_opened_timestamp_seconds))"
                },
                steps={None: GOOD, 1: BAD},
                **COUNT,
            ),
            bars(
                "Revocation speed by cause",
                "From the instant the rule first held to the verified removal, 90th percentile of 30 days.",
                {"{{cause}} ({{class}})": "sort_desc(cause_class:tenure_revocation_latency_seconds:p90_30d)"},
                unit="s",
                min=0,
            ),
            bars(
                "Who decided, 30 days",
                "Claims, exceptions and verdicts are people's; a fix or the subject's end needed no decision; Policy "
                "means that nobody did in time.",
                {
                    "{{source}}": "sort_desc(sum by (source) (increase(tenure_decision_latency_seconds_count[30d])))",
                },
                **COUNT,
            ),
            bars(
                "Exceptions by class",
                "Waivers in force, waivers that ran out, and ends that were moved on in 90 days.",
                {
                    "{{class}}: active": "class:tenure_exceptions_active:sum",
                    "{{class}}: expired": "class:tenure_exceptions_expired:sum",
                    "{{class}}: renewals": "class:tenure_exception_renewals:increase90d",
                },
                **COUNT,
            ),
            bars(
                "Reviews",
                "Claims and exceptions that have to be looked at again.",
                {"{{state}}": "max by (state) (tenure_reviews)"},
                **COUNT,
            ),
            lines(
                "Open findings by risk",
                "What waits for a decision or for its enforcement.",
                {"{{risk}}": "risk:tenure_findings_open:sum"},
                width=8,
                **COUNT,
            ),
            bars(
                "Exempt time",
                "For how long in all what is exempt now was so, over every exception that it had, by class.",
                {"{{class}}": "class:tenure_finding_exempt_seconds:sum or 0 * class:tenure_exceptions_active:sum"},
                width=12,
                unit="s",
                min=0,
            ),
            bars(
                "Ends ahead",
                "Exceptions that are still needed and end, and credentials whose annotated end is near or past.",
                {
                    "exceptions, 7 days": ahead('tenure_exception_expiry_timestamp_seconds{needed="true"}', 7),
                    "exceptions, 30 days": ahead('tenure_exception_expiry_timestamp_seconds{needed="true"}', 30),
                    "credentials, 7 days": ahead('tenure_credential_expiry_timestamp_seconds{class!="Platform"}', 7),
                    "credentials, 30 days": ahead('tenure_credential_expiry_timestamp_seconds{class!="Platform"}', 30),
                },
                width=12,
                **COUNT,
            ),
        ],
        target=(
            "Target of the decision latency",
            {"1 day": 86400, "3 days": 259200, "7 days": 604800, "30 days": 2592000},
        ),
        since="now-30d",
    )


def operator() -> Json:
    """For those who run Tenure: does it see, does it act, does what it does hold."""
    one = f"max(process_start_time_seconds {OPERATOR})"
    return board(
        "tenure-operator",
        "Tenure / Operator",
        [
            stat(
                "Inventory",
                "Whether the cluster is read completely and the operator hears of changes.",
                'max(tenure_inventory_sources{state="Fresh"})',
                steps={None: BAD, 1: GOOD},
                **COUNT,
            ),
            stat("Running for", "Since the process was started.", f"time() - {one}", unit="s", decimals=0),
            stat("Memory", "Resident.", f"max(process_resident_memory_bytes {OPERATOR})", unit="bytes"),
            stat(
                "CPU",
                "Cores in use.",
                f"sum(rate(process_cpu_seconds_total[5m]) {OPERATOR})",
                unit="short",
                decimals=2,
                min=0,
            ),
            stat(
                "Acts that wait",
                "Due acts that did not happen yet, for whatever reason.",
                "sum(max by (reason) (tenure_enforcement_queue_length))",
                **COUNT,
            ),
            stat(
                "Refused uses, 1 day",
                "Attempted uses of quarantined credentials.",
                "sum(increase(tenure_tripwire_attempts_total[1d]))",
                steps={None: GOOD, 1: BAD},
                **COUNT,
            ),
            bars(
                "Proof of enforcement",
                "1: the stage was tried on a synthetic identity and holds. 0: nothing is acted on (DenyWrites: or "
                "it is not installed).",
                {"{{stage}}": "max by (stage) (tenure_enforcement_effective)"},
                steps={None: BAD, 1: GOOD},
                min=0,
                max=1,
                decimals=0,
            ),
            bars(
                "Quarantines in force",
                "In which the stage was proved and is not known to have been taken back.",
                {"{{stage}}": "max by (stage) (tenure_quarantines)"},
                **COUNT,
            ),
            bars(
                "Inventory sources",
                "That the policies expect, and the cluster itself.",
                {"{{state}}": "max by (state) (tenure_inventory_sources)"},
                **COUNT,
            ),
            lines(
                "Acts",
                "That ended, in the hour before each point.",
                {
                    "{{action}} {{outcome}}": "sum by (action, outcome) "
                    "(increase(tenure_enforcement_actions_total[1h]))",
                },
                **COUNT,
            ),
            lines(
                "Acts that wait, by reason",
                "Ready: for their turn. The others: see docs/enforcement.md.",
                {"{{reason}}": "max by (reason) (tenure_enforcement_queue_length)"},
                **COUNT,
            ),
            lines(
                "Blocked acts",
                "That came due and could not happen, in the hour before each point.",
                {"{{cause}}": "sum by (cause) (increase(tenure_actions_blocked_total[1h]))"},
                **COUNT,
            ),
            lines(
                "Taken back by others",
                "Acts undone and guards changed, by product, in the day before each point; released by people; "
                "steps of escalation.",
                {
                    "{{manager}}": "sum by (manager) (increase(tenure_enforcement_reverted_total[1d]))",
                    "released early": "sum(increase(tenure_quarantines_released_early_total[1d]))",
                    "escalated": "sum(increase(tenure_escalations_total[1d]))",
                },
                **COUNT,
            ),
            lines(
                "Detection and enforcement latency",
                "90th percentile of the day before each point: from when a rule held to its finding, and from a "
                "decision to its verified effect.",
                {
                    "detection": "histogram_quantile(0.9, sum by (le) "
                    "(increase(tenure_detection_latency_seconds_bucket[1d])))",
                    "enforcement": "histogram_quantile(0.9, sum by (le) "
                    "(increase(tenure_enforcement_latency_seconds_bucket[1d])))",
                },
                unit="s",
                min=0,
            ),
            lines(
                "Age of the inventory",
                "Since a kind last agreed with the API server. Over 3 minutes nothing is acted on.",
                {"{{kind}}": "time() - max by (kind) (tenure_inventory_last_sync_timestamp_seconds)"},
                unit="s",
                min=0,
            ),
            lines(
                "What is governed",
                "Objects in the inventory.",
                {
                    "identities": "sum(max by (kind, class, ownership, escalation) (tenure_identities))",
                    "credentials": "sum(max by (type, state, ownership) (tenure_credentials))",
                    "entitlements": "sum(max by (scope, state) (tenure_entitlements))",
                },
                **COUNT,
            ),
            lines(
                "Findings by phase",
                "Resolved ones are kept for the policy's retention.",
                {"{{phase}}": "sum by (phase) (max by (rule, risk, class, phase) (tenure_findings))"},
                **COUNT,
            ),
        ],
        since="now-24h",
    )


def board(
    uid: str, title: str, panels: list[Json], *, target: tuple[str, dict[str, int]] | None = None, since: str
) -> Json:
    """The dashboard around panels, which fill the rows from the left."""
    x = y = height = 0
    for number, one in enumerate(panels):
        place = one["gridPos"]
        if x + place["w"] > COLUMNS:
            x, y, height = 0, y + height, 0
        one["id"] = number + 1
        place |= {"x": x, "y": y}
        x, height = x + place["w"], max(height, place["h"])
    variables: list[Json] = [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}
    ]
    if target is not None:
        label, choices = target
        given = [{"text": text, "value": str(seconds)} for text, seconds in choices.items()]
        variables.append(
            {
                "name": "target",
                "label": label,
                "type": "custom",
                "query": ",".join(f"{text} : {seconds}" for text, seconds in choices.items()),
                "options": given,
                "current": given[2],
            }
        )
    return {
        "uid": uid,
        "title": title,
        "tags": ["tenure"],
        "schemaVersion": 39,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "1m",
        "time": {"from": since, "to": "now"},
        "timezone": "",
        "templating": {"list": variables},
        "links": [{"type": "dashboards", "tags": ["tenure"], "title": "Tenure", "asDropdown": False}],
        "panels": panels,
    }


BOARDS: Final = {"executive-scorecard": scorecard, "operator-health": operator}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file is not what this says")
    check = parser.parse_args().check
    stale = []
    for name, made in BOARDS.items():
        path = FOLDER / f"{name}.json"
        text = json.dumps(made(), indent=2, ensure_ascii=False) + "\n"
        if not path.exists() or path.read_text() != text:
            stale.append(path.name)
            if not check:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
    if stale and check:
        print(
            f"not what monitoring/dashboards.py says: {', '.join(stale)}. python -m monitoring.dashboards writes them"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
