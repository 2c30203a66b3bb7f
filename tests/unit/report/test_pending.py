"""The list of what waits, for people and for pipelines."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from tenure.report import pending
from tenure.report.collect import Gap
from tenure.report.pending import Pending
from tenure.report.waiting import grouped, waiting
from tests.unit.report.scene import NOW, claim, exception, finding, quarantine, seen


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COLUMNS", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


def lost(count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for n in range(count):
        found.append(claim(f"app-{n}", {"owner": "gone", "subjects": {"selector": {}}}))
        found.append(finding(f"vacant-{n}", "OwnerVacant", "OwnedIdentity", f"app-{n}", due="2026-12-08T09:00:00Z"))
    return found


OBJECTS = (
    *lost(500),
    finding("unowned-1", "Unowned", "ServiceAccount", "ci", due="2026-12-04T07:30:00Z"),
    exception("x", "ci-token", {"phase": "Pending", "failing": "approvals: approve 0 of 1"}),
    quarantine("ServiceAccount", "ci"),
)


def found(*, mine: bool = False, gaps: tuple[Gap, ...] = (), namespace: str | None = None) -> Pending:
    rows = grouped(waiting(seen(*OBJECTS).store, NOW))
    return Pending(NOW, namespace, "bob", mine, rows, gaps)


def written(what: Pending, output: str) -> str:
    out = io.StringIO()
    pending.write(what, output, out)
    return out.getvalue()


def test_people_see_what_waits_by_deadline_with_the_command() -> None:
    text = written(found(), "table")
    lines = [line.rstrip() for line in text.splitlines()]
    assert lines[0] == "Waits for a decision, all namespaces: 503"
    heads = [line for line in lines[1:] if line and not line.startswith(" ")]
    assert heads == [
        "overdue by 1h 30m, then quarantine  Unowned: ServiceAccount/ci  High",
        "in 4d, then quarantine  OwnerVacant: owner gone leaves 500 claims behind  High",
        "no deadline  quarantine of ServiceAccount/ci",
        "no deadline  Migration x: LegacyToken for Secret/ci-token",
    ]
    assert "  $ tenure release quarantine/serviceaccount-ci -n payments --reason TEXT" in lines
    assert "  in payments, nobody answers; each: tenure pending -o json" in lines
    assert "\x1b" not in text


@pytest.mark.parametrize("width", [80, 120])
def test_only_commands_are_longer_than_the_line(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    for line in written(found(), "table").splitlines():
        assert len(line) <= width or line.startswith("  $ ")


def test_mine_shows_every_way_that_is_mine() -> None:
    text = written(found(mine=True, namespace="payments"), "table")
    assert text.startswith("Waits for bob, namespace payments: 503\n")
    assert "  $ tenure approve identityexception/x" in text
    assert "  $ tenure reject identityexception/x" in text
    assert "reject" not in written(found(), "table")


def test_pipelines_get_every_item_of_a_group() -> None:
    body = json.loads(written(found(), "json"))
    assert (body["schema"], body["count"], body["complete"]) == ("tenure.dev/pending/v1", 503, True)
    assert [item["sort"] for item in body["items"]] == ["Finding", "Group", "Quarantine", "Exception"]
    group = body["items"][1]
    assert (group["owner"], group["answers"], group["count"]) == ("gone", None, 500)
    assert len({item["name"] for item in group["items"]}) == 500
    assert body["items"][0]["ways"][1] == {
        "verb": "quarantine",
        "resource": "identityfindings.tenure.dev",
        "command": "tenure quarantine identityfinding/unowned-1 -n payments --reason TEXT",
    }


def test_what_could_not_be_seen_is_named() -> None:
    gap = Gap("Quarantine", "the cluster", "you may not list quarantines.tenure.dev in all namespaces", "are missing")
    assert "you may not list quarantines.tenure.dev in all namespaces: are missing" in written(
        found(gaps=(gap,)), "table"
    )
    body = json.loads(written(found(gaps=(gap,)), "json"))
    assert (body["complete"], body["unseen"][0]["kind"]) == (False, "Quarantine")


def test_nothing_waits() -> None:
    assert written(Pending(NOW, None, "bob", True, (), ()), "table") == "Waits for bob, all namespaces: 0\n"
