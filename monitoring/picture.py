"""Draws a dashboard without Grafana: the same panels and queries, answered by a real Prometheus, as a page that a
headless Chromium takes a picture of. The data are made up: 90 days of a fictitious cluster.

    python -m monitoring.picture docs/images/executive-scorecard.png

Needs prometheus, promtool and chromium (Debian has them); takes a minute or two. It is run when the scorecard changes.
"""

from __future__ import annotations

import html
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import urllib3
import yaml

from monitoring.dashboards import FOLDER

Json = dict[str, Any]
Labels = dict[str, str]

HOUR, DAY = 3600, 86400
END: Final = 1798675200  # 2026-12-31: the picture does not change with the day it is drawn
DAYS: Final = 90
PORT: Final = 19090
SHOWN: Final = 30 * DAY
BUCKETS: Final = (60, 300, 900, 3600, 14400, 28800, 86400, 172800, 259200, 604800, 1209600, 2592000, 5184000, 7776000)
RULES: Final = FOLDER.parent / "rules" / "tenure.yaml"

# Made-up history ------------------------------------------------------------------------------------------------------


def history() -> Iterator[str]:
    """OpenMetrics text: hourly samples of a programme that gets better. A fixed seed, so always the same."""
    chance = random.Random(7)
    counts: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}

    def count(name: str, by: float = 1, **labels: str) -> None:
        key = (name, tuple(labels.items()))
        counts[key] = counts.get(key, 0) + by

    def observe(name: str, seconds: float | None, **labels: str) -> None:
        """None: only makes the series, at 0."""
        for edge in (*BUCKETS, float("inf")):
            le = "+Inf" if edge == float("inf") else f"{edge:.1f}"
            count(f"{name}_bucket", float(seconds is not None and seconds <= edge), **labels, le=le)
        count(f"{name}_count", float(seconds is not None), **labels)

    sources = ("Claim", "Exception", "Verdict", "Fix", "SubjectGone", "Policy")
    kinds = {source: "Migration" if source == "Exception" else "Standard" for source in sources}
    for source in sources:
        observe("tenure_decision_latency_seconds", None, risk="Medium", source=source, **{"class": kinds[source]})
    causes = {"LegacyToken": 1.0, "CredentialTooOld": 1.8, "Unowned": 2.4}
    for cause in causes:
        observe("tenure_revocation_latency_seconds", None, cause=cause, **{"class": "Standard"})
    for risk in ("Low", "Medium", "High", "Critical"):
        for outcome in ("met", "missed"):
            count("tenure_decisions_due_total", 0, risk=risk, outcome=outcome)
    for kind in ("BreakGlass", "VendorManaged", "Migration", "AcceptedRisk"):
        count("tenure_exception_renewals_total", 0, **{"class": kind})

    for hour in range(DAYS * 24):
        now, done = END - (DAYS * 24 - hour) * HOUR, hour / (DAYS * 24)
        for _ in range(chance.choice((0, 0, 0, 1, 1, 2))):
            late = chance.random() < 0.22 - 0.19 * done
            source = "Policy" if late else chance.choices(sources[:5], (6, 2, 2, 3, 1))[0]
            took = chance.lognormvariate(0, 0.9) * DAY * (4.5 - 3.2 * done) * (2 if source == "Exception" else 1)
            labels = {"risk": "Medium", "source": source, "class": kinds[source]}
            observe("tenure_decision_latency_seconds", 7 * DAY if late else took, **labels)
            risk = chance.choices(("Low", "Medium", "High", "Critical"), (5, 4, 2, 1))[0]
            count("tenure_decisions_due_total", risk=risk, outcome="missed" if late else "met")
        if chance.random() < 0.08:
            cause = chance.choice(list(causes))
            took = chance.lognormvariate(0, 0.6) * DAY * causes[cause] * (9 - 6 * done)
            observe("tenure_revocation_latency_seconds", took, cause=cause, **{"class": "Standard"})
        if chance.random() < 0.006:
            kind = chance.choice(("Migration", "Migration", "VendorManaged", "AcceptedRisk"))
            count("tenure_exception_renewals_total", 1, **{"class": kind})
        yield from lines(now, ((name, dict(labels), value) for (name, labels), value in counts.items()))
        yield from lines(now, state(now, done, hour))


def state(now: int, done: float, hour: int) -> Iterator[tuple[str, Labels, float]]:
    """What is, at this hour: gauges."""
    total, wave = 420, (hour % 168) / 168
    owned = round(total * (0.38 + 0.57 * done**0.7))
    for ownership, escalation, number in (
        ("declared", "true", round(owned * 0.8)),
        ("derived", "true", owned - round(owned * 0.8)),
        ("declared", "false", round((total - owned) * 0.4)),
        ("none", "false", total - owned - round((total - owned) * 0.4)),
    ):
        labels = {"kind": "ServiceAccount", "class": "Workload", "ownership": ownership, "escalation": escalation}
        yield "tenure_identities", labels, number
    for name, number in (("Fresh", 3 if done < 0.55 else 4), ("Stale", 0), ("Missing", 1 if done < 0.55 else 0)):
        yield "tenure_inventory_sources", {"state": name}, number
    for risk, many, few in (("Low", 96, 31), ("Medium", 71, 19), ("High", 34, 8), ("Critical", 11, 1)):
        number = round(many + (few - many) * done**0.6 + 6 * wave * (risk == "Low"))
        yield "tenure_findings", {"rule": "Unowned", "risk": risk, "class": "Workload", "phase": "Open"}, number
    yield "tenure_oldest_undecided_timestamp_seconds", {}, now - (11 - 5 * done) * DAY - wave * DAY
    for owner, start, end in (("payments", 14, 1), ("data", 19, 4), ("platform", 8, 2), ("", 22, 3)):
        for number in range(round(start + (end - start) * done**0.7)):
            finding = {"namespace": owner or "legacy", "name": f"{owner}-{number}", "rule": "Unowned", "risk": "Medium"}
            labels = {**finding, "class": "Workload", "owner": owner, "on_deadline": "Nothing", "mode": "enforce"}
            yield "tenure_finding_decision_deadline_timestamp_seconds", labels, now - DAY
    for kind, active, expired in (
        ("BreakGlass", 0, 1),
        ("VendorManaged", 7, 0),
        ("Migration", 12, 2),
        ("AcceptedRisk", 4, 0),
    ):
        yield "tenure_exceptions", {"class": kind, "phase": "Active"}, active
        yield "tenure_exceptions", {"class": kind, "phase": "Expired"}, expired
        for number in range(active):
            waived = {"namespace": "shop", "name": f"{kind}-{number}", "class": kind, "risk": "Medium", "owner": "data"}
            exempt = {**waived, "rule": "LegacyToken"}
            yield "tenure_finding_exempt_since_timestamp_seconds", exempt, now - (20 + 4 * number) * DAY * done
            end = END + (3 + 5 * number) * DAY
            yield "tenure_exception_expiry_timestamp_seconds", {**waived, "needed": "true"}, end
    for number in range(9):
        tls = {"namespace": "shop", "name": f"tls-{number}", "type": "TLS", "class": "Workload", "risk": "Medium"}
        yield "tenure_credential_expiry_timestamp_seconds", {**tls, "owner": "data"}, END + (4 + 7 * number) * DAY
    for name, number in (("Scheduled", round(60 + 110 * done)), ("Due", 9), ("Overdue", round(14 - 11 * done))):
        yield "tenure_reviews", {"state": name}, number


def lines(now: int, samples: Iterable[tuple[str, Labels, float]]) -> Iterator[str]:
    for name, labels, value in samples:
        given = ",".join(f'{key}="{text}"' for key, text in {**labels, "job": "tenure", "instance": "tenure"}.items())
        yield f"{name}{{{given}}} {value:g} {now}\n" if value < 1e6 else f"{name}{{{given}}} {value:.0f} {now}\n"


# Prometheus -----------------------------------------------------------------------------------------------------------


class Answers:
    """A Prometheus on these blocks; ends with the context."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"http://127.0.0.1:{PORT}"

    def __enter__(self) -> Answers:
        (self.folder / "config.yaml").write_text("{}\n")
        command = ["prometheus", "--config.file=config.yaml", "--storage.tsdb.path=data", "--log.level=error"]
        command += [f"--web.listen-address=127.0.0.1:{PORT}", "--query.lookback-delta=2h"]
        command += ["--storage.tsdb.retention.time=20y", "--query.timeout=10m"]
        self.process = subprocess.Popen(command, cwd=self.folder)
        while True:
            try:
                if urllib3.request("GET", f"{self.url}/-/ready", retries=False, timeout=2).status == 200:
                    return self
            except urllib3.exceptions.HTTPError:
                if self.process.poll() is not None:
                    raise SystemExit("picture: prometheus ended") from None
            time.sleep(0.1)

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()

    def ask(self, path: str, **fields: str) -> list[Json]:
        answer = urllib3.request("GET", f"{self.url}/api/v1/{path}", fields=fields, timeout=120)
        body = json.loads(answer.data)
        if body["status"] != "success":
            raise SystemExit(f"picture: {fields}: {body.get('error')}")
        found: list[Json] = body["data"]["result"]
        return found

    def over(self, query: str, seconds: int, step: int) -> list[Json]:
        """A query over the last so many seconds of the history."""
        last = END - HOUR
        return self.ask("query_range", query=query, start=str(last - seconds + HOUR), end=str(last), step=str(step))


def fill(folder: Path) -> None:
    """The history, and what the recording rules make of it: first those over raw series, then those over recorded.
    (promtool can record afterwards too, in a thousand blocks per rule.)"""
    blocks(folder, history())
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    for second in (False, True):
        with Answers(folder) as answers:
            recorded = [
                (rule["record"], one["metric"], at, float(value))
                for rule in rules
                if (":tenure_" in rule["expr"]) is second
                for one in answers.over(rule["expr"], DAYS * DAY, HOUR)
                for at, value in one["values"]
            ]
        blocks(folder, (line for name, labels, at, value in recorded for line in lines(at, [(name, labels, value)])))


def blocks(folder: Path, text: Iterator[str]) -> None:
    """Adds samples to the data of the Prometheus that comes next."""
    path = folder / "samples.txt"
    with path.open("w") as file:
        file.writelines(text)
        file.write("# EOF\n")
    command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", "--max-block-duration=2400h", path.name, "data"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


# Drawing --------------------------------------------------------------------------------------------------------------

COLORS: Final = {"green": "#3fa45b", "orange": "#d98324", "red": "#d2453d", "blue": "#3d78c9"}
SERIES: Final = ("#3d78c9", "#d98324", "#3fa45b", "#8b5bc2", "#c9457d", "#2a9d9d")
CELL_W, CELL_H, GAP = 58, 34, 10
STYLE: Final = """
* { box-sizing: border-box }
body { margin: 0; padding: 22px; background: #f4f5f7;
  font: 14px Inter, "DejaVu Sans", sans-serif; color: #24292f }
h1 { font-size: 21px; margin: 0 0 3px }
.sub { color: #66707c; margin-bottom: 14px }
.grid { position: relative }
.p { position: absolute; background: #fff;
  border: 1px solid #dfe3e8; border-radius: 5px; padding: 10px 13px; overflow: hidden }
.t { font-weight: 600; font-size: 13px }
.v { font-size: 33px; font-weight: 600; text-align: center; margin-top: 16px }
.k { display: flex; gap: 14px; flex-wrap: wrap; font-size: 12px; color: #444c56; margin-top: 2px }
.k i { display: inline-block;
  width: 14px; height: 3px; margin: 0 5px 3px 0; vertical-align: middle }
.b { display: grid; white-space: nowrap; grid-template-columns: 42% 1fr 68px; align-items: center;
  gap: 8px; margin-top: 6px; font-size: 12.5px }
.b div:nth-child(1) { text-align: right; white-space: nowrap;
  overflow: hidden; text-overflow: ellipsis }
.b .r { background: #eef0f3; height: 15px; border-radius: 2px }
.b .r div { height: 15px; border-radius: 2px }
"""


def said(value: float, unit: str) -> str:
    """A value as Grafana would write it."""
    if unit == "percentunit":
        return "100%" if value == 1 else f"{value:.1%}"
    if unit == "s":
        for size, name in ((DAY, "days"), (HOUR, "h"), (60, "min")):
            if value >= size:
                return f"{value / size:.1f} {name}"
        return f"{value:.0f} s"
    return f"{value:,.0f}"


def color(value: float, field: Json) -> str:
    steps = field["thresholds"]["steps"]
    return COLORS[[step["color"] for step in steps if step["value"] is None or value >= step["value"]][-1]]


def legend(text: str, labels: Labels) -> str:
    """The legend of one series; what has no owner says so."""
    filled = re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), text)
    return filled or "(nobody)"


def drawn(panel: Json, answers: Answers, chosen: Labels) -> str:
    """A panel as HTML."""
    at, field = panel["gridPos"], panel["fieldConfig"]["defaults"]
    unit = field.get("unit", "short")
    width, height = at["w"] * CELL_W - GAP, at["h"] * CELL_H - GAP
    found: list[tuple[str, Json]] = []
    for target in panel["targets"]:
        query = target["expr"]
        for name, value in chosen.items():
            query = query.replace(f"${name}", value)
        if target["instant"]:
            asked = answers.ask("query", query=query, time=str(END - HOUR))
        else:
            asked = answers.over(query, SHOWN, 3 * HOUR)
        found += [(legend(target["legendFormat"], one["metric"]), one) for one in asked]
    if panel["type"] == "stat":
        figure = float(found[0][1]["value"][1])
        inside = f'<div class="v" style="color:{color(figure, field)}">{said(figure, unit)}</div>'
    elif panel["type"] == "bargauge":
        bars = [(name, float(one["value"][1])) for name, one in found]
        most = field.get("max") or max(value for _, value in bars) or 1
        inside = "".join(
            f'<div class="b"><div>{html.escape(name)}</div><div class="r"><div style="width:{100 * value / most:.1f}%;'
            f'background:{color(value, field)}"></div></div><div>{said(value, unit)}</div></div>'
            for name, value in bars
            if value >= 0.5 or len(bars) <= 6
        )
    else:
        inside = chart(found, unit, width - 26, height - 84, field)
    left, top = at["x"] * CELL_W, at["y"] * CELL_H
    box = f"left:{left}px;top:{top}px;width:{width}px;height:{height}px"
    return f'<div class="p" style="{box}"><div class="t">{html.escape(panel["title"])}</div>{inside}</div>'


def chart(found: list[tuple[str, Json]], unit: str, width: int, height: int, field: Json) -> str:
    """Lines over time, with an axis and their names."""
    lines_ = [(name, [(float(at), float(value)) for at, value in one["values"]]) for name, one in found]
    highest = max(value for _, points in lines_ for _, value in points)
    least, most = float(field.get("min", 0)), float(field.get("max") or 1.08 * highest)
    side, last = 58, float(END - HOUR)

    def x(at: float) -> float:
        return side + (at - last + SHOWN) / SHOWN * (width - side)

    def y(value: float) -> float:
        return height + 8 - (value - least) / (most - least) * height

    small = 'font-size="11" fill="#66707c"'
    marks = [least + (most - least) * share / 4 for share in range(5)]
    axis = "".join(
        f'<line x1="{side}" x2="{width}" y1="{y(mark):.1f}" y2="{y(mark):.1f}" stroke="#e6e9ed"/>'
        f'<text x="{side - 7}" y="{y(mark) + 4:.1f}" text-anchor="end" {small}>{said(mark, unit)}</text>'
        for mark in marks
    )
    days = "".join(
        f'<text x="{x(last - back * DAY):.0f}" y="{height + 25}" text-anchor="middle" {small}>'
        f"{time.strftime('%d %b', time.gmtime(last - back * DAY))}</text>"
        for back in range(25, 0, -5)
    )
    drawn_ = keys = ""
    for number, (name, points) in enumerate(lines_):
        target = name == "target"
        stroke = "#9aa3ad" if target else SERIES[number % len(SERIES)]
        path = " ".join(f"{x(at):.1f},{y(min(value, most)):.1f}" for at, value in points)
        dashed = ' stroke-dasharray="6 5"' if target else ""
        drawn_ += f'<polyline points="{path}" fill="none" stroke="{stroke}" stroke-width="2"{dashed}/>'
        keys += f'<span><i style="background:{stroke}"></i>{html.escape(name)}</span>'
    svg = f'<svg width="{width}" height="{height + 30}">{axis}{days}{drawn_}</svg>'
    return f'{svg}<div class="k">{keys}</div>'


def main(target: Path) -> None:
    board = json.loads((FOLDER / "executive-scorecard.json").read_text())
    chosen = {v["name"]: v["current"]["value"] for v in board["templating"]["list"] if v["type"] == "custom"}
    with tempfile.TemporaryDirectory(prefix="tenure-picture-") as made:
        folder = Path(made)
        fill(folder)
        with Answers(folder) as answers:
            panels = "".join(drawn(panel, answers, chosen) for panel in board["panels"])
        rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"])
        width, height = 24 * CELL_W - GAP + 44, rows * CELL_H + 92
        page = folder / "page.html"
        page.write_text(
            f'<!doctype html><meta charset="utf-8"><style>{STYLE}</style><h1>{board["title"]}</h1>'
            f'<div class="sub">Last 30 days of a made-up cluster with 420 identities</div>'
            f'<div class="grid">{panels}</div>'
        )
        command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += [f"--screenshot={target.resolve()}", f"--window-size={width},{height}", page.as_uri()]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL, timeout=120)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
