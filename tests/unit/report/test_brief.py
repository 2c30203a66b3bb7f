"""What a decider is shown: the object in words, what it bears on, what was decided before; and within the line."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest

from tenure.api.names import TargetKind, Verdict
from tenure.inventory.projection import PROJECTIONS
from tenure.model.keys import Key
from tenure.model.records import Authored
from tenure.report import brief as briefing
from tenure.report.brief import Brief, brief, cautions
from tenure.report.collect import Gap
from tenure.report.verdicts import Target
from tests.unit.report.scene import NOW, account, claim, exception, finding, quarantine, raw, seen, token


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COLUMNS", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


def about(
    kind: str, name: str, *objects: dict[str, Any], history: tuple[dict[str, Any], ...] = (), **more: Any
) -> Brief:
    """The brief on one of the objects."""
    store = seen(*objects).store
    record = store.get(Key(kind, "payments", name))
    assert isinstance(record, Authored)
    decisions = [PROJECTIONS["IdentityDecision"](made) for made in history]
    return brief(Target(TargetKind(kind), "payments", name), record, store, decisions, NOW, **more)


def decided(
    name: str, verdict: str, by: str, *, uid: str = "uid-x", generation: int = 1, **status: Any
) -> dict[str, Any]:
    target = {"kind": "IdentityException", "name": "x", "uid": uid, "generation": generation}
    spec = {"target": target, "verdict": verdict, "reason": "because", "by": by}
    return raw("IdentityDecision", name, "payments", spec=spec, status=status)


def shown(found: Brief, verdict: Verdict = Verdict.APPROVE, verb: str = "approve", by: str = "bob") -> str:
    out = io.StringIO()
    briefing.show(found, out, verdict=verdict, verb=verb, by=by, reason="contract 4711")
    return out.getvalue()


def said(found: Brief, **how: Any) -> str:
    return re.sub(r"\s+", " ", shown(found, **how))


PENDING = {"phase": "Pending", "failing": "approvals: approve 0 of 1, approve-security 0 of 1"}


def test_an_exception_in_words() -> None:
    found = about(
        "IdentityException",
        "x",
        exception("x", "ci-token", PENDING, ticket="PAY-1", requestedBy="argocd", onBehalfOf="alice"),
    )
    lines = dict(found.lines)
    assert lines["waives"] == "LegacyToken"
    assert lines["for"] == "Secret ci-token"
    assert lines["until"] == "2027-01-03T09:00:00Z, in 30d"
    assert lines["because"] == "later (PAY-1)"
    assert lines["requested by"] == "argocd, on behalf of alice (unverified)"
    assert lines["still asks for"] == PENDING["failing"]
    assert "review by" not in lines


def test_what_is_named_is_the_state_that_was_shown() -> None:
    edited = exception("x", "ci-token")
    edited["metadata"]["generation"] = 7
    assert about("IdentityException", "x", edited).stamp == {"uid": "uid-x", "generation": 7}
    revised = finding("f", "Unowned", "ServiceAccount", "ci")
    revised["spec"]["revision"] = 3
    assert about("IdentityFinding", "f", revised).stamp == {"uid": "uid-f", "revision": 3}
    held = about("Quarantine", "serviceaccount-ci", quarantine("ServiceAccount", "ci"))
    assert held.stamp == {"uid": "uid-serviceaccount-ci"}


def test_an_earlier_verdict_on_another_state_is_no_status_of_this_one() -> None:
    edited = exception("x", "ci-token", {**PENDING, "observedGeneration": 1})
    edited["metadata"]["generation"] = 2
    lines = dict(about("IdentityException", "x", edited).lines)
    assert lines["now"].startswith("not judged yet")
    assert "still asks for" not in lines


def test_the_findings_an_exception_bears_on() -> None:
    found = about(
        "IdentityException",
        "x",
        exception("x", "ci-token", PENDING),
        finding("this", "LegacyToken", "Secret", "ci-token", debt={"renewals": 1, "exemptSeconds": 864_000}),
        finding("other-rule", "CredentialTooOld", "Secret", "ci-token"),
        finding("other-secret", "LegacyToken", "Secret", "other"),
        finding("over", "LegacyToken", "Secret", "ci-token", phase="Resolved"),
    )
    assert [entry.name for entry in found.findings] == ["this"]
    assert "1 renewal, exempt for 10d" in said(found)


def test_what_a_selector_matches_is_listed_by_name() -> None:
    selected = exception(
        "x", "", target={"kind": "ServiceAccount", "selector": {"matchLabels": {"app": "datadog"}}}, rules=["Unowned"]
    )
    found = about(
        "IdentityException",
        "x",
        selected,
        account("agent", labels={"app": "datadog"}),
        account("other"),
        finding("unowned-1", "Unowned", "ServiceAccount", "agent"),
        finding("unowned-2", "Unowned", "ServiceAccount", "other"),
    )
    assert dict(found.lines)["for"] == "every ServiceAccount with app=datadog: agent"
    assert [entry.name for entry in found.findings] == ["unowned-1"]


def test_a_claim_names_what_it_covers_and_its_findings() -> None:
    found = about(
        "OwnedIdentity",
        "batch",
        claim("batch", {"subjects": {"serviceAccounts": {"names": ["ci"]}, "secrets": {"names": ["ci-token"]}}}),
        token("ci-token", "ci"),
        finding("legacy-1", "LegacyToken", "Secret", "ci-token"),
        finding("conflict-1", "ClaimConflict", "OwnedIdentity", "batch"),
        finding("unowned-1", "Unowned", "ServiceAccount", "default"),
    )
    assert dict(found.lines)["covers"] == "ServiceAccount ci, Secret ci-token"
    assert sorted(entry.name for entry in found.findings) == ["conflict-1", "legacy-1"]


def test_a_quarantine_names_the_findings_that_want_it() -> None:
    held = quarantine("ServiceAccount", "ci", stages=[{"name": "Guard", "done": "2026-12-04T08:00:00Z"}])
    held["spec"]["findings"] = ["unowned-1"]
    found = about(
        "Quarantine",
        "serviceaccount-ci",
        held,
        finding("unowned-1", "Unowned", "ServiceAccount", "ci", phase="Quarantined"),
        finding("unowned-2", "Unowned", "ServiceAccount", "default"),
    )
    assert dict(found.lines)["in force"] == "Guard"
    assert [entry.name for entry in found.findings] == ["unowned-1"]


def test_the_history_tells_a_namesakes_apart() -> None:
    found = about(
        "IdentityException",
        "x",
        exception("x", "ci-token", PENDING),
        history=(
            decided("approve-x-1", "Approve", "carol", uid="uid-earlier"),
            decided("reject-x-1", "Reject", "dan", outcome="Counted", reason="Rejected"),
        ),
    )
    text = said(found)
    assert "Reject by dan with reject, generation 1: because. Counted: Rejected." in text
    assert "Approve by carol with approve, generation 1 (of an earlier object of that name): because." in text


@pytest.mark.parametrize(
    ("fields", "verdict", "verb", "by", "caution"),
    [
        ({"requestedBy": "bob"}, Verdict.APPROVE, "approve", "bob", "You asked for this yourself"),
        ({"onBehalfOf": "bob"}, Verdict.APPROVE, "approve", "bob", "You asked for this yourself"),
        ({"requestedBy": "bob"}, Verdict.APPROVE, "approve", "carol", ""),
        ({"requestedBy": "bob"}, Verdict.REJECT, "reject", "bob", ""),
        ({"requestedBy": "bob"}, Verdict.REJECT, "consult", "bob", "You asked for this yourself"),
        ({}, Verdict.APPROVE, "force", "bob", "Forced: active at once"),
    ],
)
def test_cautions(fields: dict[str, Any], verdict: Verdict, verb: str, by: str, caution: str) -> None:
    found = list(cautions(about("IdentityException", "x", exception("x", "ci-token", **fields)), verdict, verb, by))
    assert [line[: len(caution)] for line in found] == ([caution] if caution else [])


def test_who_decided_about_this_very_state_is_told() -> None:
    history = (decided("approve-x-1", "Approve", "bob"),)
    found = about("IdentityException", "x", exception("x", "ci-token"), history=history)
    assert "You decided about this state before (approve-x-1)" in said(found)
    assert "You decided about this state before" not in said(found, by="carol")
    edited = exception("x", "ci-token")
    edited["metadata"]["generation"] = 2
    anew = about("IdentityException", "x", edited, history=history)
    assert "You decided about this state before" not in said(anew)


def test_revocation_says_that_it_cannot_be_undone() -> None:
    found = about("IdentityFinding", "f", finding("f", "LegacyToken", "Secret", "ci-token"))
    assert "cannot be undone" in said(found, verdict=Verdict.REVOKE, verb="revoke")
    assert "cannot be undone" not in said(found, verdict=Verdict.QUARANTINE, verb="quarantine")


@pytest.mark.parametrize("width", [80, 120])
def test_it_keeps_within_the_line_and_cuts_no_rule(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    found = about(
        "IdentityException",
        "x",
        exception(
            "x", "ci-token", PENDING, justification="word " * 100, requestedBy="system:serviceaccount:a:" + "b" * 90
        ),
        finding("this", "LegacyToken", "Secret", "ci-token", due="2026-12-07T10:00:00Z"),
        history=(decided("reject-x-1", "Reject", "dan" * 40),),
        gaps=(Gap("Secret", "payments", "you may not list secrets in payments", "unknown"),),
    )
    text = shown(found)
    assert max(map(len, text.splitlines())) <= width
    assert "LegacyToken" in text
    assert "\x1b" not in text


def test_words_of_others_move_no_cursor() -> None:
    found = about("IdentityException", "x", exception("x", "ci-token", justification="fine\x1b[2Jnothing"))
    assert "\x1b" not in shown(found, by="bob\x1b[1m")
    assert "fine" in shown(found)


def test_more_than_fits_is_counted() -> None:
    many = [finding(f"f-{n:02}", "LegacyToken", "Secret", "ci-token") for n in range(14)]
    history = tuple(decided(f"d-{n:02}", "Reject", "dan") for n in range(13))
    text = said(about("IdentityException", "x", exception("x", "ci-token"), *many, history=history))
    assert "and 4 more" in text
    assert "and 3 more: kubectl get identitydecisions -n payments" in text
