"""What ships for Prometheus and Grafana, by itself: promtool on the very bytes, words, pages. With a live operator:
tests/cluster/test_monitoring.py."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

HERE = Path(__file__).parent
REPOSITORY = HERE.parent.parent.parent
FILES = REPOSITORY / "charts" / "tenure" / "files"
RULES = sorted([*FILES.glob("rules/*.yaml"), *FILES.glob("alerts/*.yaml")])
BOARDS = sorted(FILES.glob("dashboards/*.json"))
SUITES = sorted(HERE.glob("*.yaml"))
RUNBOOKS = REPOSITORY / "docs" / "runbooks"
SEVERITIES = {"critical", "warning", "info"}

promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not on PATH (.ci/run installs it: Debian's prometheus)"
)

Json = dict[str, Any]


def rules() -> list[Json]:
    return [rule for path in RULES for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}


@promtool
def test_promtool_finds_no_fault_with_the_rules() -> None:
    checked = subprocess.run(
        ["promtool", "check", "rules", "--lint-fatal", *map(str, RULES)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


@promtool
@pytest.mark.parametrize("suite", SUITES, ids=lambda path: path.stem)
def test_rules_in_promtool(suite: Path) -> None:
    tested = subprocess.run(["promtool", "test", "rules", str(suite)], capture_output=True, text=True, check=False)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_every_alert_is_tested_firing_and_not_firing_and_every_record_is_tested() -> None:
    fired: set[str] = set()
    silent: set[str] = set()
    seen = ""
    for suite in SUITES:
        content = yaml.safe_load(suite.read_text())
        loaded = {(suite.parent / path).resolve() for path in content["rule_files"]}
        here = {
            rule["alert"]
            for path in loaded
            for group in yaml.safe_load(path.read_text())["groups"]
            for rule in group["rules"]
            if "alert" in rule
        }
        for test in content["tests"]:
            fired |= {t["alertname"] for t in test.get("alert_rule_test", ()) if t["exp_alerts"]}
            for asked in test.get("promql_expr_test", ()):
                seen += asked["expr"]
                if asked["exp_samples"] == [] and "ALERTS" in asked["expr"]:
                    named = re.search(r'alertname="(\w+)"', asked["expr"])
                    silent |= {named[1]} if named else here
    assert fired == set(ALERTS)
    assert silent == set(ALERTS)
    for record in (rule["record"] for rule in rules() if "record" in rule):
        assert record in seen or any(record in rule["expr"] for rule in rules()), record


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_it_is_how_bad_and_where_to_read_on(name: str) -> None:
    alert = ALERTS[name]
    assert re.fullmatch(r"Tenure[A-Z]\w+", name)
    words = alert["annotations"]
    assert set(words) == {"summary", "description", "runbook_url"}
    assert words["runbook_url"] == f"docs/runbooks/{name}.md", "a path in this repository: the pages stand nowhere else"
    assert (REPOSITORY / words["runbook_url"]).is_file()
    assert all(text.rstrip().endswith((".", "`.")) for key, text in words.items() if key != "runbook_url")
    severity = alert["labels"]["severity"]
    assert set(re.findall(r"\b(critical|warning|info)\b", severity)) <= SEVERITIES
    assert severity in SEVERITIES or ".risk" in severity, "a word of its own, or by the risk"


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_has_a_page(name: str) -> None:
    page = (RUNBOOKS / f"{name}.md").read_text()
    assert page.startswith(f"# {name}\n")
    parts = re.split(r"(?m)^## (.+)$", page)
    assert parts[1::2] == ["What it means", "What to do", "How to undo"]
    assert all(len(part.strip()) > 60 for part in parts[2::2])


def test_there_is_no_page_without_its_alert_and_the_index_names_each() -> None:
    pages = {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"}
    assert pages == set(ALERTS)
    index = (RUNBOOKS / "README.md").read_text()
    assert [name for name in ALERTS if f"({name}.md)" not in index] == []


def test_each_recorded_value_is_explained() -> None:
    text = (REPOSITORY / "docs" / "monitoring.md").read_text()
    assert [rule["record"] for rule in rules() if "record" in rule and f"`{rule['record']}`" not in text] == []


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_a_dashboard_fits_any_grafana_and_explains_itself(path: Path) -> None:
    board = json.loads(path.read_text())
    assert {"name": "datasource", "type": "datasource", "query": "prometheus"}.items() <= board["templating"]["list"][
        0
    ].items()
    assert re.fullmatch(r"[a-z-]{1,40}", board["uid"])
    assert "id" not in board, "the number is the receiving Grafana's to give"
    taken: set[tuple[int, int]] = set()
    ids, titles = set(), set()
    for panel in board["panels"]:
        ids.add(panel["id"])
        titles.add(panel["title"])
        assert panel["description"].endswith(".")
        assert panel["targets"]
        for target in (panel, *panel["targets"]):
            assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, f"{panel['title']} lies on another panel"
        assert all(0 <= x < 24 for x, _ in cells)
        taken |= cells
    assert len(ids) == len(titles) == len(board["panels"]) >= 10
