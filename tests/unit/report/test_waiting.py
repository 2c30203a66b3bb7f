"""What waits, in which order, what decides it, and what of it is mine."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tenure.kube.resources import IDENTITY_DECISIONS, IDENTITY_EXCEPTIONS, IDENTITY_OWNERS
from tenure.report.waiting import Group, Reach, Right, Waiting, grouped, mine, rights, waiting
from tests.unit.report.scene import NOW, claim, exception, finding, quarantine, seen

ALL = Reach(every=True)
NONE = Reach()
PENDING = {"phase": "Pending", "failing": "approvals: approve 0 of 1"}


def rows(*objects: dict[str, Any]) -> tuple[Waiting, ...]:
    return waiting(seen(*objects).store, NOW)


def row(*objects: dict[str, Any], about: str) -> Waiting:
    [found] = [entry for entry in rows(*objects) if entry.about.startswith(about)]
    return found


def unowned(name: str, subject: str = "ci", **status: Any) -> dict[str, Any]:
    return finding(name, "Unowned", "ServiceAccount", subject, **status)


def vacant(name: str, of: str, **status: Any) -> dict[str, Any]:
    return finding(name, "OwnerVacant", "OwnedIdentity", of, onDeadline="Nothing", **status)


def test_nothing_waits_where_nothing_is_undecided() -> None:
    assert rows() == ()
    settled = (
        unowned("a", phase="Excepted"),
        unowned("b", decided="2026-12-01T00:00:00Z"),
        unowned("c", phase="Resolved"),
    )
    assert rows(*settled) == ()


def test_the_most_urgent_comes_first_and_what_has_no_deadline_last() -> None:
    found = rows(
        unowned("late", due="2026-12-01T00:00:00Z"),
        unowned("low", due="2026-12-10T00:00:00Z", risk={"level": "Low"}),
        unowned("high", due="2026-12-10T00:00:00Z", risk={"level": "High"}),
        unowned("never"),
        quarantine("ServiceAccount", "ci"),
        exception("until-oidc", "ci-token", PENDING),
    )
    assert [entry.name for entry in found] == ["late", "high", "low", "never", "serviceaccount-ci", "until-oidc"]


def test_a_finding_is_decided_by_a_claim_or_a_verdict() -> None:
    found = row(unowned("unowned-1"), about="Unowned")
    assert [(way.right.verb, way.right.name) for way in found.ways] == [
        ("claim", ""),
        ("quarantine", "unowned-1"),
        ("revoke", "unowned-1"),
    ]
    claimed, contained, _ = found.ways
    assert contained.command == "tenure quarantine identityfinding/unowned-1 -n payments --reason TEXT"
    manifest = json.loads(claimed.command.partition("<<<")[2].strip("'"))
    assert manifest["spec"] == {"owner": "OWNER", "purpose": "TEXT", "subjects": {"serviceAccounts": {"names": ["ci"]}}}
    told = row(unowned("unowned-1", accountable={"owner": "payments"}), about="Unowned")
    assert told.ways[0].right == Right("claim", IDENTITY_OWNERS, "payments", "payments")


def test_verdicts_are_not_offered_on_claims() -> None:
    found = row(finding("conflict-1", "ClaimConflict", "OwnedIdentity", "invoice-api"), about="ClaimConflict")
    assert [way.command for way in found.ways] == ["kubectl edit ownedidentity invoice-api -n payments"]


def test_what_happens_when_nobody_decides() -> None:
    assert row(unowned("a"), about="Unowned").then == "quarantine"
    assert row(unowned("a", mode="Audit"), about="Unowned").then == "quarantine (audit)"
    assert row(unowned("a", onDeadline="Nothing"), about="Unowned").then == "overdue"


@pytest.mark.parametrize(
    ("failing", "verbs"),
    [
        ("approvals: approve 0 of 1", ["approve", "reject"]),
        (
            "approvals: approve 1 of 1, approve-security 0 of 2; missing approve-security",
            ["approve-security", "reject"],
        ),
        ("consult: an answer with consult-legal is waited for until 2026-12-05T00:00:00Z", ["consult-legal", "reject"]),
        ("veto: reject-security may object until 2026-12-05T00:00:00Z", ["reject-security", "reject"]),
        ("expiresAt: Migration may last 90d from the last change of its spec", ["reject"]),
    ],
)
def test_an_exception_offers_the_verbs_it_still_asks_for(failing: str, verbs: list[str]) -> None:
    found = row(exception("x", "ci-token", {"phase": "Pending", "failing": failing}), about="Migration")
    assert [way.right.verb for way in found.ways] == verbs
    assert found.missing == failing


def test_a_partys_verb_stands_in_the_command() -> None:
    failing = "approvals: approve-security 0 of 1"
    found = row(exception("x", "ci-token", {"phase": "Pending", "failing": failing}), about="Migration")
    assert found.ways[0].command == (
        "tenure approve identityexception/x -n payments --verb approve-security --reason TEXT"
    )


def test_verbs_that_the_condition_offers_count_too() -> None:
    condition = {
        "type": "DecisionPending",
        "status": "True",
        "reason": "AwaitingApproval",
        "message": "Run `tenure approve identityexception/x -n payments --verb consult --reason TEXT`.",
        "lastTransitionTime": "2026-12-01T00:00:00Z",
    }
    found = row(exception("x", "ci-token", {**PENDING, "conditions": [condition]}), about="Migration")
    assert [way.right.verb for way in found.ways] == ["approve", "consult", "reject"]


def test_an_exception_the_operator_has_not_judged_asks_for_the_documented_default() -> None:
    found = row(exception("x", "ci-token"), about="Migration")
    assert [way.right.verb for way in found.ways] == ["approve", "reject"]
    stale = exception("x", "ci-token", {"phase": "Active"})
    stale["metadata"]["generation"] = 2  # its spec was changed, and the operator has not seen that yet
    edited = row(stale, about="Migration")
    assert ([way.right.verb for way in edited.ways], edited.missing) == (["approve", "reject"], "")


def test_an_exception_is_needed_by_the_earliest_deadline_it_would_waive() -> None:
    found = row(
        exception("x", "ci-token", PENDING),
        finding("legacy-1", "LegacyToken", "Secret", "ci-token", due="2026-12-09T00:00:00Z"),
        finding("old-1", "CredentialTooOld", "Secret", "ci-token", due="2026-12-05T00:00:00Z"),
        about="Migration",
    )
    assert found.due is not None
    assert found.due.isoformat() == "2026-12-09T00:00:00+00:00"


@pytest.mark.parametrize("status", [{"phase": "Active"}, {"phase": "Rejected"}, {"phase": "Withdrawn"}])
def test_an_exception_that_is_decided_does_not_wait(status: dict[str, Any]) -> None:
    assert rows(exception("x", "ci-token", status)) == ()


def test_an_expired_exception_does_not_wait() -> None:
    assert rows(exception("x", "ci-token", PENDING, expiresAt="2026-12-01T00:00:00Z")) == ()


def test_reviews_that_are_due_wait_for_an_attestation() -> None:
    due = claim("invoice-api", {"subjects": {"serviceAccounts": {"names": ["invoice-api"]}}})
    later = {**due, "status": {"observedGeneration": 1, "reviewDue": "2027-01-01T00:00:00Z"}}
    assert rows(later) == ()
    past = {**due, "status": {"observedGeneration": 1, "reviewDue": "2026-12-01T00:00:00Z"}}
    [found] = rows(past)
    assert (found.sort, found.ways[0].command) == (
        "Review",
        "tenure attest ownedidentity/invoice-api -n payments --reason TEXT",
    )
    overdue = finding("review-1", "ReviewOverdue", "OwnedIdentity", "invoice-api", onDeadline="Nothing")
    [once] = rows(past, overdue)
    assert (once.sort, once.ways[0].right.verb) == ("Finding", "attest")


def test_a_quarantine_waits_for_its_release_until_it_is_revoked() -> None:
    [found] = rows(quarantine("ServiceAccount", "ci"))
    assert found.ways[0].command == "tenure release quarantine/serviceaccount-ci -n payments --reason TEXT"
    gone = {"kind": "Secret", "name": "ci-token", "uid": "u", "done": "2026-12-01T00:00:00Z"}
    assert rows(quarantine("Secret", "ci-token", revoked=[gone])) == ()


# --- mine


def only(*held: tuple[str, str]) -> Any:
    """Somebody who holds these (verb, name), and may create what it takes."""
    names = {verb: frozenset(name for other, name in held if other == verb) for verb, _ in held}
    return lambda right: ALL if right.verb == "create" else Reach(names=names.get(right.verb, frozenset()))


def test_mine_is_what_i_hold_a_verb_for() -> None:
    found = rows(unowned("a"), unowned("b", subject="default"), exception("x", "ci-token", PENDING))
    own = list(mine(found, only(("quarantine", "b"), ("approve", "x")), "bob"))
    assert [(entry.name, [way.right.verb for way in entry.ways]) for entry in own] == [
        ("b", ["quarantine"]),
        ("x", ["approve"]),
    ]
    assert list(mine(found, lambda right: NONE, "bob")) == []
    assert [entry.name for entry in mine(found, lambda right: ALL, "bob")] == ["a", "b", "x"]


def test_a_verb_without_the_right_to_write_the_decision_decides_nothing() -> None:
    found = rows(unowned("a"), exception("x", "ci-token", PENDING))
    assert list(mine(found, lambda right: NONE if right.verb == "create" else ALL, "bob")) == []
    [claimable] = mine(found, lambda right: NONE if right.resource is IDENTITY_DECISIONS else ALL, "bob")
    assert [way.right.verb for way in claimable.ways] == ["claim"]


@pytest.mark.parametrize("field", ["requestedBy", "onBehalfOf"])
def test_what_i_asked_for_is_not_mine_to_decide(field: str) -> None:
    found = rows(exception("x", "ci-token", PENDING, **{field: "bob"}))
    assert list(mine(found, lambda right: ALL, "bob")) == []
    assert [entry.name for entry in mine(found, lambda right: ALL, "carol")] == ["x"]


def test_what_i_have_decided_waits_for_others() -> None:
    counted = [{"verb": "approve", "verdict": "Approve", "by": "bob"}]
    status = {"phase": "Pending", "failing": "approvals: approve 1 of 2", "counted": counted}
    found = rows(exception("x", "ci-token", status))
    assert list(mine(found, lambda right: ALL, "bob")) == []
    assert [entry.name for entry in mine(found, lambda right: ALL, "carol")] == ["x"]


def test_the_claim_is_filled_with_an_owner_that_i_may_claim_for() -> None:
    [own] = mine(rows(unowned("a")), only(("claim", "payments"), ("claim", "ledger")), "bob")
    assert '"owner": "ledger"' in own.ways[0].command
    [any_] = mine(rows(unowned("a")), lambda right: ALL, "bob")
    assert '"owner": "OWNER"' in any_.ways[0].command


def test_the_rights_that_are_asked_about_are_few() -> None:
    found = rows(*(unowned(f"a-{n}", subject=f"s-{n}") for n in range(50)), exception("x", "ci-token", PENDING))
    wanted = rights(found)
    assert {(verb, resource.plural) for verb, resource, _ in wanted} == {
        ("claim", "identityowners"),
        ("quarantine", "identityfindings"),
        ("revoke", "identityfindings"),
        ("approve", "identityexceptions"),
        ("reject", "identityexceptions"),
        ("create", "identitydecisions"),
        ("create", "ownedidentities"),
    }
    assert wanted["approve", IDENTITY_EXCEPTIONS, "payments"] == frozenset({"x"})


# --- groups


def lost(count: int) -> list[dict[str, Any]]:
    """Claims of an owner that is gone, each with its finding."""
    found: list[dict[str, Any]] = []
    for n in range(count):
        found.append(claim(f"app-{n}", {"owner": "gone", "subjects": {"serviceAccounts": {"names": [f"app-{n}"]}}}))
        found.append(vacant(f"vacant-{n}", f"app-{n}", due=f"2026-12-{10 + n % 10}T00:00:00Z"))
    return found


def test_one_lost_owner_of_500_claims_is_one_row() -> None:
    [group] = grouped(rows(*lost(500)))
    assert isinstance(group, Group)
    assert (group.owner, group.answers, len(group.items)) == ("gone", "", 500)
    assert group.due is not None
    assert group.due.day == 10
    [way] = group.ways
    assert way.right == Right("patch", IDENTITY_OWNERS, "", "gone")
    assert '"name": "gone"' in way.command


def test_two_lost_owners_are_two_rows_and_one_claim_stays_itself() -> None:
    other = claim("other", {"owner": "also-gone", "subjects": {"selector": {}}}), vacant("vacant-x", "other")
    found = grouped(rows(*lost(3), *other, unowned("a", due="2026-12-05T00:00:00Z")))
    assert [(type(entry).__name__, entry.rule) for entry in found] == [
        ("Waiting", "Unowned"),
        ("Group", "OwnerVacant"),
        ("Waiting", "OwnerVacant"),
    ]


def test_who_may_not_restore_the_owner_gets_the_claims() -> None:
    held = only(*(("patch", f"app-{n}") for n in range(3)))
    [group] = grouped(mine(rows(*lost(3)), held, "bob"))
    assert isinstance(group, Group)
    assert [way.command for way in group.ways] == ["kubectl edit ownedidentity app-0 -n payments"]
