"""docs/adoption.md names panels, alerts and pages that there are, and every command of it is one that a test runs."""

from __future__ import annotations

import json
import re

import yaml

from tests.support.cluster import REPOSITORY
from tests.support.page import blocks

PAGE = REPOSITORY / "docs" / "adoption.md"
FILES = REPOSITORY / "charts" / "tenure" / "files"
NO_PANEL = {"bold", "You should see", "If not:", "If not,", "To go back:", "To go back"}


def test_its_panels_are_those_of_the_dashboards() -> None:
    panels = {
        panel.get("title")
        for path in FILES.glob("dashboards/*.json")
        for panel in json.loads(path.read_text())["panels"]
    }
    named = {re.sub(r"\s+", " ", name) for name in re.findall(r"\*\*(.+?)\*\*", PAGE.read_text(), re.S)}
    assert len(named - NO_PANEL) >= 8
    assert named - NO_PANEL - panels == set()


def test_its_alerts_and_links_are_there() -> None:
    alerts = {
        rule["alert"]
        for path in FILES.glob("alerts/*.yaml")
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    }
    text = PAGE.read_text()
    named = set(re.findall(r"\bTenure[A-Z]\w+", text))
    assert named
    assert named - alerts == set()
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert (PAGE.parent / target).exists(), target


def test_its_blocks_are_commands_and_queries() -> None:
    assert {block.language for block in blocks(PAGE)} == {"sh", "promql"}
    assert {word for block in blocks(PAGE) for word in block.words} == {"helm", "plain", "terminal"}
