"""The three outputs: complete, within the line, and harmless to a terminal and a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import Any

import pytest
from rich.table import Table

from tenure.report import render
from tenure.report.collect import Gap
from tenure.report.inventory import Report
from tests.unit.report.scene import (
    account,
    active,
    claim,
    exception,
    finding,
    quarantine,
    raw,
    reported,
    token,
)


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COLUMNS", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


def written(report: Report, output: str, *, platform: bool = False) -> str:
    out = io.StringIO()
    render.write(report, output, out, platform=platform)
    return out.getvalue()


def squeezed(text: str) -> str:
    return re.sub(r"\s+", " ", text)


FULL = (
    finding("unowned-1", "Unowned", "ServiceAccount", "ci", due="2026-12-07T10:00:00Z"),
    finding("legacy-1", "LegacyToken", "Secret", "ci-token", due="2026-12-02T09:00:00Z", mode="Audit"),
    exception("until-oidc", "ci-token"),
    token("left-over", "gone"),
    account("a" * 60),
    claim("batch", {"owner": "nobody", "subjects": {"serviceAccounts": {"names": ["x"]}}}),
    quarantine("ServiceAccount", "ci", stages=[{"name": "Guard", "done": "2026-12-04T08:00:00Z"}]),
)


def test_the_table_fits_120_columns_and_says_it_all() -> None:
    text = written(reported(*FULL), "table")
    assert max(map(len, text.splitlines())) <= 120
    assert "\x1b" not in text
    said = squeezed(text)
    for words in (
        "Workload identities, all namespaces: 4 (1 declared, 2 without owner, 1 unused default)",
        "Open findings: 3 High",
        "due in 3d 1h, then quarantine",
        "overdue by 2d, then quarantine (audit)",
        "Helm payments/build",
        "quarantined: Guard",
        "claim payments/invoice-api",
        "nope role not found",
        "Credentials that belong to no identity",
        "refused: ServiceAccount gone is gone",
        "OwnedIdentity payments/batch",
        "Not shown: 1 of the platform's own (--platform shows them).",
    ):
        assert words.split()[-1] in said, words
    for words in ("Open findings:", "Credentials that belong to no identity", "unused default"):
        assert words in said


def test_nothing_open_is_said_too() -> None:
    text = squeezed(written(reported(namespace="web"), "table"))
    assert "Open findings: none" in text
    assert "No identities to show." in text


def test_without_recorded_findings_the_table_says_why_there_are_no_deadlines() -> None:
    assert "none is recorded here" in squeezed(written(reported(), "table"))
    assert "none is recorded here" not in squeezed(written(reported(*FULL), "table"))


def test_what_could_not_be_seen_stands_before_the_rest() -> None:
    gap = Gap("Secret", "the cluster", "you may not list secrets in all namespaces", "credentials are missing")
    text = written(reported(gaps=(gap,), without=("Secret",)), "table")
    assert text.index("you may not list secrets in all namespaces: credentials are missing") < text.index("IDENTITY")
    assert "tenure inventory -n NAME" in text
    assert "not visible" in text


def test_platform_and_default_identities_are_folded_in_the_table() -> None:
    assert "coredns" not in written(reported(), "table")
    assert "coredns" in written(reported(), "table", platform=True)
    assert "\n default" not in written(reported(), "table")
    assert "\n default" in written(reported(namespace="payments"), "table")


def test_long_lists_are_cut_in_the_table_alone() -> None:
    many = [token(f"ci-token-{n}", "ci") for n in range(10)]
    text = written(reported(*many), "table")
    assert "and 5 more" in squeezed(text)
    [row] = [row for row in json.loads(written(reported(*many), "json"))["identities"] if row["name"] == "ci"]
    assert len(row["credentials"]) == 11


def test_no_author_moves_the_cursor() -> None:
    owner = raw("IdentityOwner", "payments", spec={"contacts": [{"type": "Email", "value": "x\x1b[2J\u202e"}]})
    waiver = exception("w\x1b[31m", "ci-token", {"phase": "Pending", "failing": "\x9b2Jtext"})
    found = reported(owner, waiver)
    for output in ("table", "csv"):
        text = written(found, output)
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
    assert "\x1b" not in written(found, "json")  # JSON escapes it


def test_a_spreadsheet_runs_no_formula() -> None:
    owner = raw("IdentityOwner", "payments", spec={"contacts": [{"type": "E", "value": "x"}]})
    label = raw("Namespace", "payments", metadata={"labels": {"tenure.dev/owner": "payments"}})
    rows = list(csv.DictReader(io.StringIO(written(reported(owner, label), "csv"))))
    assert not any(value.startswith(("=", "+", "-", "@")) for row in rows for value in row.values())
    assert render._csv_cell("=cmd()") == "'=cmd()"
    assert render._csv_cell("-1+1") == "'-1+1"


def test_csv_has_one_row_per_identity_and_one_per_credential_without() -> None:
    rows = list(csv.DictReader(io.StringIO(written(reported(*FULL), "csv"))))
    assert [(row["kind"], row["name"]) for row in rows] == [
        ("ServiceAccount", "a" * 60),
        ("ServiceAccount", "ci"),
        ("ServiceAccount", "default"),
        ("ServiceAccount", "invoice-api"),
        ("Secret", "left-over"),
        ("Secret", "stripe"),
    ]
    ci = rows[1]
    assert tuple(ci) == render.COLUMNS
    assert (ci["ownership"], ci["risk"], ci["credentials"], ci["working_tokens"]) == ("none", "High", "ci-token", "1")
    assert ci["entitlements"] == "ClusterRole/edit@payments=High ClusterRole/nope@payments=missing"
    assert ci["findings"] == "Unowned=High/Open LegacyToken=High/Open"
    assert ci["exceptions"] == "until-oidc"
    assert ci["quarantine"] == "serviceaccount-ci"
    assert ci["managed_by"] == "Helm:payments/build"


def test_csv_marks_what_could_not_be_seen() -> None:
    gaps = tuple(Gap(kind, "the cluster", "w", "u") for kind in ("Secret", "RoleBinding"))
    found = reported(gaps=gaps, without=("Secret", "RoleBinding"))
    rows = {row["name"]: row for row in csv.DictReader(io.StringIO(written(found, "csv")))}
    assert (rows["ci"]["credentials"], rows["ci"]["working_tokens"], rows["ci"]["entitlements"]) == ("?", "?", "?")
    assert rows["ci"]["risk"] == ">=Low"


def shape(value: Any) -> Any:
    """Field names all the way down."""
    if isinstance(value, dict):
        return {name: shape(item) for name, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value[:1]]
    return None


def test_json_shape_is_what_the_docs_promise() -> None:
    waived = exception("until-oidc", "ci-token", active("ci-token"))
    body = json.loads(written(reported(*FULL, waived), "json"))
    assert body["schema"] == "tenure.dev/inventory/v1"
    assert body["generatedAt"] == "2026-12-04T09:00:00Z"
    assert (body["namespace"], body["complete"], body["platformIdentities"]) == (None, True, 1)
    ci = next(entry for entry in body["identities"] if entry["name"] == "ci")
    found = {
        "rule": None, "risk": None, "phase": None, "holds": None, "finding": None, "due": None, "onDeadline": None,
        "mode": None, "message": None,
    }  # fmt: skip
    waiver = {
        "name": None,
        "class": None,
        "phase": None,
        "rules": [None],
        "expiresAt": None,
        "failing": None,
        "covers": None,
    }
    owned = {"state": None, "owner": None, "why": None, "contact": None, "vacant": None}
    assert shape(ci["ownership"]) == owned
    assert shape(ci["findings"]) == [found]
    assert shape(ci["quarantine"]) == {"name": None, "verdict": None, "stages": [None], "revoked": None, "ending": None}
    assert shape(ci["entitlements"]) == [
        {
            "binding": {"kind": None, "namespace": None, "name": None},
            "role": {"kind": None, "name": None},
            "scope": None,
            "through": None,
            "risk": None,
            "rights": [None],
            "managedBy": None,
            "lastUse": None,
        }
    ]
    assert shape(ci["credentials"]) == [
        {
            "kind": None, "namespace": None, "name": None, "uid": None, "type": None, "secretType": None,
            "serviceAccount": None, "createdAt": None, "changedAt": None, "state": None, "invalidSince": None,
            "lastUsed": None, "lastUse": None, "platform": None, "ownership": owned,
            "managedBy": {"manager": None, "name": None}, "findings": [found], "exceptions": [waiver],
            "quarantine": None,
        }
    ]  # fmt: skip
    assert set(ci) == {
        "kind", "namespace", "name", "uid", "createdAt", "class", "platform", "unusedDefault", "ownership", "risk",
        "managedBy", "cloudRole", "lastUse", "credentials", "entitlements", "findings", "exceptions", "quarantine",
        "residual",
    }  # fmt: skip
    assert shape(body["documents"]) == [
        {"kind": None, "namespace": None, "name": None, "owner": None, "findings": [found]}
    ]


def test_json_leaves_the_platform_out_and_counts_it() -> None:
    names = [entry["name"] for entry in json.loads(written(reported(), "json"))["identities"]]
    assert names == ["ci", "default", "invoice-api"]
    names = [entry["name"] for entry in json.loads(written(reported(), "json", platform=True))["identities"]]
    assert "coredns" in names


@pytest.mark.parametrize("output", ["table", "json", "csv"])
def test_no_value_of_a_secret_is_in_any_output(output: str) -> None:
    assert "CANARY" not in written(reported(*FULL), output, platform=True)


def acting_as(name: str, namespace: str = "", *, bootstrap: bool = False) -> tuple[dict[str, Any], ...]:
    labels = {"kubernetes.io/bootstrapping": "rbac-defaults"} if bootstrap else {}
    rule = {"apiGroups": [""], "resources": ["users", "serviceaccounts"], "verbs": ["impersonate"]}
    return (
        raw("ClusterRole", name, rules=[rule]),
        raw(
            "RoleBinding" if namespace else "ClusterRoleBinding",
            name,
            namespace,
            metadata={"labels": labels},
            roleRef={"kind": "ClusterRole", "name": name},
            subjects=[{"kind": "User", "name": f"user-of-{name}"}],
        ),
    )


def test_who_may_impersonate_has_a_section_of_its_own() -> None:
    objects = (*acting_as("helpdesk"), *acting_as("local", "payments"), *acting_as("masters", bootstrap=True))
    text = squeezed(written(reported(*objects), "table"))
    assert "May impersonate others, and so decide in their name" in text
    assert "User user-of-helpdesk cluster-wide ClusterRole helpdesk" in text
    assert "user-of-local" not in text
    assert "In 1 namespaces somebody may impersonate their ServiceAccounts" in text
    assert "user-of-masters" not in text
    assert "1 of the platform's own may impersonate others (--platform shows them)." in text
    assert "user-of-local" in written(reported(*objects, namespace="payments"), "table")
    assert "user-of-masters" in written(reported(*objects), "table", platform=True)
    body = json.loads(written(reported(*objects), "json"))
    assert [(one["name"], one["scope"], one["platform"]) for one in body["impersonators"]] == [
        ("user-of-helpdesk", "Cluster", False),
        ("user-of-masters", "Cluster", True),
        ("user-of-local", "Namespace", False),
    ]
    assert "May impersonate" not in written(reported(), "table")


def test_what_is_piped_has_no_blanks_at_the_ends_of_lines() -> None:
    out = io.StringIO()
    console = render.console_on(out)
    grid = Table.grid(expand=True)
    grid.add_row("a  b", "c")
    console.print(grid)
    assert console.width > len("a  b c")
    assert [line for line in out.getvalue().splitlines() if line != line.rstrip()] == []
    assert "a  b" in out.getvalue()
