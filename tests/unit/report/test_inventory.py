"""What the report says of identities, and what it admits not to know."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

import pytest

from tenure.api.names import ExceptionPhase, Phase, Risk
from tenure.audit.event import request
from tenure.report import render
from tenure.report.collect import Gap
from tenure.report.inventory import report, totals
from tenure.settings import Settings
from tests.unit.audit.events import START, event
from tests.unit.report.scene import (
    account,
    active,
    claim,
    exception,
    finding,
    identity,
    quarantine,
    raw,
    reported,
    seen,
    token,
)


def gap(kind: str) -> Gap:
    return Gap(kind, "the cluster", f"you may not list {kind}", "unknown")


def test_an_identity_nobody_owns() -> None:
    ci = identity(reported(), "ci")
    assert (ci.owned.state, ci.class_, ci.risk, ci.risk_at_least) == ("none", "Workload", Risk.HIGH, False)
    assert ci.owned.why == "no claim covers it, and no label names an owner"
    assert ci.managed_by is not None
    assert (ci.managed_by.manager, ci.managed_by.name) == ("Helm", "payments/build")
    assert [(found.rule, found.risk, found.phase, found.name) for found in ci.findings] == [
        ("Unowned", Risk.HIGH, Phase.OPEN, "")
    ]


def test_its_credentials() -> None:
    [credential] = identity(reported(), "ci").credentials or ()
    assert (credential.name, credential.type, credential.state) == ("ci-token", "ServiceAccountToken", "Usable")
    assert credential.last_used == "2026-12-01"
    assert [found.rule for found in credential.findings] == ["LegacyToken"]


def test_its_entitlements_worst_first_and_a_role_that_does_not_exist() -> None:
    first, second = identity(reported(), "ci").entitlements or ()
    assert (first.role, first.binding, first.namespace, first.risk) == ("edit", "ci-edit", "payments", Risk.HIGH)
    assert first.rights
    assert (second.role, second.risk, second.rights) == ("nope", None, ())


def test_a_claimed_identity() -> None:
    api = identity(reported(), "invoice-api")
    assert (api.owned.state, api.owned.owner, api.class_) == ("declared", "payments", "Agent")
    assert api.owned.why == "claim payments/invoice-api, by name"
    assert api.owned.contact == "Email payments@example.com"
    assert api.findings == ()
    assert (api.credentials, api.entitlements) == ((), ())


def test_credentials_that_belong_to_no_identity_and_secrets_that_are_none() -> None:
    found = reported(token("left-over", "gone"))
    assert [credential.name for credential in found.credentials] == ["left-over", "stripe"]
    assert found.credentials[0].service_account == "gone"
    assert found.credentials[0].state == "Invalidated"
    unknown = reported(token("left-over", "gone"), gaps=(gap("ServiceAccount"),))
    assert unknown.credentials[0].state == "Usable"


def test_platform_identities_are_marked() -> None:
    found = reported()
    assert identity(found, "coredns").platform
    assert identity(found, "coredns").class_ == "Platform"
    assert not identity(found, "ci").platform


def test_one_namespace() -> None:
    found = reported(account("other", "web"), namespace="payments")
    assert {entry.namespace for entry in found.identities} == {"payments"}


def test_an_unused_default_is_told_apart() -> None:
    assert identity(reported(), "default").idle_default
    assert identity(reported(), "default").findings == ()
    used = reported(raw("Pod", "p", "payments", spec={}))
    assert not identity(used, "default").idle_default
    unknown = reported(gaps=(gap("Pod"),))
    assert not identity(unknown, "default").idle_default


# --- what the operator recorded -------------------------------------------------------------------------------------


def test_a_recorded_finding_gives_its_deadline() -> None:
    ci = identity(reported(finding("unowned-1", "Unowned", "ServiceAccount", "ci", due="2026-12-07T09:00:00Z")), "ci")
    [found] = ci.findings
    assert (found.name, found.due) == ("unowned-1", datetime(2026, 12, 7, 9, tzinfo=UTC))
    assert (found.on_deadline, found.mode, found.holds) == ("Quarantine", "Enforce", True)


def test_resolved_findings_are_history() -> None:
    resolved = finding("legacytoken-9", "LegacyToken", "Secret", "stripe", phase="Resolved")
    [loose] = reported(resolved).credentials
    assert [found.rule for found in loose.findings] == ["Unowned"]


def test_a_finding_that_no_longer_holds_is_shown_until_it_is_resolved() -> None:
    recorded = finding("unowned-2", "Unowned", "ServiceAccount", "invoice-api", phase="Quarantined", message="was so")
    [found] = identity(reported(recorded), "invoice-api").findings
    assert (found.phase, found.holds, found.message) == (Phase.QUARANTINED, False, "was so")


def test_quarantined() -> None:
    done = [{"name": "Guard", "done": "2026-12-04T08:00:00Z"}, {"name": "DisableTokens"}]
    ci = identity(reported(quarantine("ServiceAccount", "ci", stages=done)), "ci")
    assert ci.quarantine is not None
    assert (ci.quarantine.stages, ci.quarantine.revoked, ci.quarantine.ending) == (("Guard",), False, False)
    assert ci.residual
    assert identity(reported(), "ci").residual == ()


def test_a_namesakes_quarantine_is_not_its_own() -> None:
    other = quarantine("ServiceAccount", "ci")
    other["spec"]["subject"]["uid"] = "an-earlier-one"
    assert identity(reported(other), "ci").quarantine is None


def test_a_token_that_is_switched_off() -> None:
    off = token("ci-token", "ci", labels={"kubernetes.io/legacy-token-invalid-since": "2026-12-02"})
    [credential] = identity(reported(off), "ci").credentials or ()
    assert (credential.state, credential.invalid_since) == ("Invalidated", "2026-12-02")


# --- exceptions -----------------------------------------------------------------------------------------------------


def test_an_active_exception_waives() -> None:
    [credential] = identity(reported(exception("later", "ci-token", active("ci-token"))), "ci").credentials or ()
    [waived] = credential.waivers
    assert (waived.phase, waived.covers, waived.class_) == (ExceptionPhase.ACTIVE, True, "Migration")
    assert [(found.rule, found.phase) for found in credential.findings] == [("LegacyToken", Phase.EXCEPTED)]


def test_a_pending_exception_waives_nothing_and_says_what_is_missing() -> None:
    [credential] = identity(reported(exception("later", "ci-token")), "ci").credentials or ()
    [waived] = credential.waivers
    assert (waived.phase, waived.covers) == (ExceptionPhase.PENDING, False)
    assert waived.failing == "approvals: approve 0 of 1; missing approve"
    assert credential.findings[0].phase is Phase.OPEN


def test_an_expired_exception_is_expired_whatever_its_status_says() -> None:
    late = exception("later", "ci-token", active("ci-token"), expiresAt="2026-12-04T08:59:59Z")
    found = reported(late)
    [credential] = identity(found, "ci").credentials or ()
    assert credential.waivers[0].phase is ExceptionPhase.EXPIRED
    assert credential.findings[0].phase is Phase.OPEN
    assert [(entry.kind, entry.name, entry.findings[0].rule) for entry in found.documents] == [
        ("IdentityException", "later", "ExceptionLapsed")
    ]


def test_a_claim_with_a_vacant_owner_is_among_the_documents() -> None:
    vacant = claim("batch", {"owner": "nobody", "subjects": {"serviceAccounts": {"names": ["x"]}}})
    [document] = reported(vacant).documents
    assert (document.kind, document.owner) == ("OwnedIdentity", "nobody")
    assert [found.rule for found in document.findings] == ["OwnerVacant"]


# --- what could not be seen -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["OwnedIdentity", "Namespace", "IdentityOwner"])
def test_without_claims_ownership_is_unknown_not_none(kind: str) -> None:
    found = reported(gaps=(gap(kind),), without=(kind,))
    assert identity(found, "ci").owned.state == "unknown"
    assert not found.complete


def test_without_secrets_credentials_are_unknown_not_none() -> None:
    found = reported(gaps=(gap("Secret"),), without=("Secret",))
    assert identity(found, "ci").credentials is None


@pytest.mark.parametrize("kind", ["RoleBinding", "ClusterRole"])
def test_without_rights_the_risk_is_a_lower_bound(kind: str) -> None:
    found = reported(gaps=(gap(kind),), without=(kind,))
    assert identity(found, "ci").risk_at_least
    assert (identity(found, "ci").entitlements is None) == (kind == "RoleBinding")


def test_notes_name_what_is_not_installed_and_what_is_not_judged() -> None:
    nameless = raw("Secret", "nameless", "payments", type="Opaque")
    assert reported(nameless).notes == (
        "1 Secret whose key names nobody recorded is not judged: it may be a credential.",
    )
    collected = seen()
    assert not collected.not_installed


def test_totals_leave_the_platform_and_unused_defaults_apart() -> None:
    count = totals(reported(), platform=False)
    assert count["identities"] == 3
    assert (count["declared"], count["none"], count["idle"]) == (1, 1, 1)
    assert (count["High"], count["Low"]) == (2, 1)
    assert totals(reported(), platform=True)["identities"] == 4


def acting_as(
    name: str, subjects: list[dict[str, Any]], namespace: str = "", **rule: Any
) -> tuple[dict[str, Any], ...]:
    """A role that lets somebody impersonate, and its binding."""
    granted = {"apiGroups": [""], "resources": ["users", "groups"], "verbs": ["impersonate"], **rule}
    kind = "RoleBinding" if namespace else "ClusterRoleBinding"
    return (
        raw("ClusterRole", name, rules=[granted]),
        raw(kind, name, namespace, roleRef={"kind": "ClusterRole", "name": name}, subjects=subjects),
    )


BOB = {"kind": "User", "name": "bob"}


def impersonators(*objects: dict[str, Any], **more: Any) -> list[tuple[str, str, str, str]]:
    found = reported(*objects, **more).impersonators or ()
    return [(one.kind, one.subject, one.namespace, one.whom) for one in found]


def test_who_may_impersonate_a_decider_is_named() -> None:
    bot = {"kind": "ServiceAccount", "name": "bot", "namespace": "payments"}
    found = impersonators(
        *acting_as("helpdesk", [BOB, {"kind": "Group", "name": "helpdesk"}, bot]),
        *acting_as("all", [{"kind": "User", "name": "root"}], apiGroups=["*"], resources=["*"], verbs=["*"]),
        *acting_as("one", [{"kind": "User", "name": "carol"}], resources=["users"], resourceNames=["dan"]),
        *acting_as("reader", [{"kind": "User", "name": "eve"}], verbs=["get"]),
    )
    assert found == [
        ("User", "root", "", "every verb on every resource"),
        ("Group", "helpdesk", "", "impersonate users, groups"),
        ("ServiceAccount", "payments/bot", "", "impersonate users, groups"),
        ("User", "bob", "", "impersonate users, groups"),
        ("User", "carol", "", "impersonate users (dan)"),
    ]


def test_within_a_namespace_only_its_service_accounts_can_be_impersonated() -> None:
    users = acting_as("users", [BOB], "payments")
    accounts = acting_as("accounts", [BOB], "payments", resources=["serviceaccounts"])
    assert impersonators(*users, *accounts) == [("User", "bob", "payments", "impersonate serviceaccounts")]
    elsewhere = acting_as("accounts", [BOB], "kube-system", resources=["serviceaccounts"])
    assert impersonators(*elsewhere, namespace="payments") == []


def test_nobody_and_unknown_are_two_answers() -> None:
    assert reported().impersonators == ()
    assert reported(gaps=(gap("ClusterRole"),)).impersonators is None


def test_exact_use_from_an_audit_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the identity, its token and what entitled it; of a namesake's, or of one that tells of nothing, none."""
    monkeypatch.setenv("COLUMNS", "200")
    look = seen()
    notes = {
        "authentication.k8s.io/legacy-token-manual-secret": "ci-token",
        "authorization.k8s.io/decision": "allow",
        "authorization.k8s.io/reason": 'RBAC: allowed by RoleBinding "ci-edit/payments" of ClusterRole "edit" to '
        'ServiceAccount "ci/payments"',
    }
    used = request(
        event("a", user={"username": "system:serviceaccount:payments:ci", "uid": "uid-ci"}, annotations=notes)
    )
    assert used is not None
    look.store.usage.note(used, look.store)
    found = report(look, None, Settings())
    ci = identity(found, "ci")
    [credential], (first, second) = ci.credentials or (), ci.entitlements or ()
    assert ci.last_use == credential.last_use == first.last_use == used.use()
    assert second.last_use is None
    assert identity(found, "invoice-api").last_use is None
    assert found.used_since == START
    assert found.notes[0] == "Use is known exactly since 2026-11-26T12:55:20Z, from the audit log."
    out = io.StringIO()
    render.table(found, out, platform=False)
    assert out.getvalue().count("used 7d 20h ago") == 3
