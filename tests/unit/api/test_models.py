"""The objects of the contract as models: api.md's own examples, documented defaults, vocabularies, sizes."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from tenure.api import KINDS
from tenure.api.claim import OwnedIdentitySpec
from tenure.api.conditions import Condition
from tenure.api.decision import IdentityDecisionSpec
from tenure.api.finding import FITTED_BYTES, FindingRisk, IdentityFindingStatus
from tenure.api.names import (
    LABEL_CLASS,
    OPERATOR_NAMESPACE,
    DueOutcome,
    ExceptionClass,
    IdentityClass,
    Mode,
    OnDeadline,
    Phase,
    Risk,
    Rule,
    Stage,
    operator_user,
)
from tenure.api.owner import IdentityOwnerSpec
from tenure.api.policy import DEFAULT_DECIDE_WITHIN, ExceptionsPolicy, GovernancePolicySpec
from tenure.api.quarantine import QuarantineStatus

# The examples of the contract, word for word but for their comments and ellipses.
EXAMPLES: dict[str, str] = {
    "IdentityOwner": """
        displayName: Payments platform
        contacts:
        - {type: Email, value: payments@example.com}
        - {type: Chat, value: "#payments"}
        groups: [team-payments]
        backup: platform
        escalation:
        - {after: 50%, to: platform}
        - {after: 80%, to: security}
        namespaceSelector: {matchLabels: {team: payments}}
        suspended: false
    """,
    "OwnedIdentity": """
        owner: payments
        purpose: Issues invoices and posts them to the ledger
        system: billing
        class: Workload
        subjects:
          selector: {matchLabels: {app.kubernetes.io/name: invoice-api}}
          serviceAccounts: {names: [invoice-api], selector: {matchLabels: {part: worker}}}
          secrets: {names: [stripe-api-key]}
          external: [{provider: github, id: app/12345}]
        entitlements:
        - {roleRef: {kind: Role, name: invoice-reader}, reason: reads its configuration}
        - {roleRef: {kind: ClusterRole, name: view}, namespace: ledger, reason: reads ledger's services}
        - {roleRef: {kind: ClusterRole, name: node-reader}, scope: Cluster, reason: status page}
        credentials: {maxAge: 90d}
        expiresAt: "2027-06-30T00:00:00Z"
        review: {interval: 180d}
    """,
    "IdentityException": """
        target: {kind: Secret, name: ci-token}
        rules: [LegacyToken, CredentialTooOld]
        class: Migration
        owner: payments
        justification: The build server moves to OIDC in January
        ticket: PAY-1234
        expiresAt: "2027-01-31T00:00:00Z"
        reviewBy: "2026-12-15T00:00:00Z"
        requestedBy: system:serviceaccount:argocd:argocd-application-controller
        onBehalfOf: alice@example.com
    """,
    "IdentityDecision": """
        target: {kind: IdentityException, name: ci-token-until-oidc, uid: 6d0f, generation: 1}
        verdict: Approve
        verb: approve
        reason: Agreed in the change board
        by: bob@example.com
        grantedBy: 'RBAC: allowed by RoleBinding "payments/approvers"'
    """,
    "GovernancePolicy": """
        suspend: false
        namespaceSelector: {}
        platformNamespaces: []
        precedence: 0
        enforceIn: {matchLabels: {tenure.dev/mode: enforce}}
        effectiveFrom: "2026-12-01T00:00:00Z"
        adoptionGrace: 30d
        ownership:
          namespaceLabels: [team]
          objectLabels: [team]
          objectLabelsCount: false
          requireDeclared: [Critical]
        deadlines:
        - {rules: [Unowned], risks: [High, Critical], decideWithin: 72h, onDeadline: Quarantine, revokeAfter: 14d,
           stages: [Guard, DisableTokens], stageInterval: 0s, holdAfterUse: 48h}
        - {classes: [Agent], decideWithin: 24h, onDeadline: Quarantine}
        - {decideWithin: 30d, onDeadline: Nothing}
        exceptions:
          classes:
          - {class: BreakGlass, maxDuration: 24h, maxRenewals: 0, approvals: [{verb: approve, count: 1}]}
          - class: VendorManaged
            maxDuration: 180d
            maxRenewals: 1
            approvals: [{verb: approve, count: 1}, {verb: approve-security, count: 1}]
            consult: [{verb: consult, wait: 24h}]
            veto: {verb: reject-security, within: 24h}
          requireOnBehalfOf: false
          onLapse: ContinueClock
        credentials: {maxAge: 365d}
        reviews: [{classes: [Agent], interval: 90d}, {interval: 365d}]
        contention: {maxReverts: 3}
        blastRadius: {maxActions: 10, window: 1h, maxPercentPerNamespace: 20}
        inventory: {expectedSources: [{name: github, maxAge: 7d}]}
        retention: {resolved: 90d, decisions: 400d}
    """,
    "IdentityFinding": """
        rule: Unowned
        revision: 1
        subject: {apiVersion: v1, kind: ServiceAccount, namespace: payments, name: ci, uid: 6d0f}
    """,
    "Quarantine": """
        subject: {kind: ServiceAccount, name: ci, uid: 6d0f}
        findings: [unowned-3f9c1a7e42d05b86aa41]
        stages: [Guard, DisableTokens, RemoveEntitlements]
        revokeAt: "2026-12-04T09:12:00Z"
    """,
    "QuarantineGuard": """
        serviceAccounts: {ci: {quarantine: payments/serviceaccount-ci-6d0f1a, owner: payments, contact: a@example.com}}
        secrets: {ci-token: {quarantine: payments/secret-ci-token, owner: "", contact: "", serviceAccount: ci}}
        revokedNames: {}
        subjects: {"system:serviceaccount:payments:ci": {quarantine: payments/serviceaccount-ci-6d0f1a}}
        groups: {"system:serviceaccounts:payments": {quarantine: payments/serviceaccount-ci-6d0f1a}}
    """,
}
AT = datetime(2026, 12, 1, 9, 12, tzinfo=UTC)


def subset(small: Any, big: Any) -> bool:
    if isinstance(small, dict):
        return isinstance(big, dict) and all(key in big and subset(value, big[key]) for key, value in small.items())
    if isinstance(small, list):
        return isinstance(big, list) and len(small) == len(big) and all(map(subset, small, big))
    return bool(small == big)


def test_there_is_an_example_of_every_kind() -> None:
    assert {kind.kind for kind in KINDS} == set(EXAMPLES)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_the_contracts_example_comes_back_as_it_was_written(kind: Any) -> None:
    written = yaml.safe_load(EXAMPLES[kind.kind])
    model = kind.spec.read(written)
    assert subset(written, model.wire())
    assert kind.spec.read(model.wire()) == model
    assert kind.spec.read(json.loads(json.dumps(model.wire()))) == model


def test_the_finding_status_of_the_contract_is_read() -> None:
    status = IdentityFindingStatus.read(
        yaml.safe_load("""
        subject: ServiceAccount/ci
        phase: Open
        risk: {level: High, reasons: ["bound to ClusterRole edit in 3 namespaces"]}
        accountable: {owner: "", since: 2026-12-01T09:12:00+00:00, step: 0}
        due: 2026-12-04T09:12:00+00:00
        onDeadline: Quarantine
        acts: [{verdict: Quarantine, decided: 2026-12-04T09:12:00+00:00, error: ""}]
        residual: ["pod invoice-7d9 holds a bound token until it ends"]
        decision: {verdict: Quarantine, source: Policy, by: "", reference: GovernancePolicy/default, late: false}
        evidence: [{source: metadata, since: 2026-12-01T09:12:00+00:00}]
        debt: {renewals: 0, exemptSeconds: 0}
        managedBy: {manager: Helm, name: payments/build-server}
        conditions: []
    """)
    )
    assert status.phase is Phase.OPEN
    assert status.wire()["due"] == "2026-12-04T09:12:00Z"
    assert status.mode is Mode.AUDIT
    assert status.due_outcome is DueOutcome.PENDING


def full_status(words: str, count: int) -> IdentityFindingStatus:
    """A status with `count` of everything that is a list, in words as long as they are allowed to be."""
    at = AT.replace(microsecond=123456)
    act = {"decided": at, "started": at, "enforced": at, "verified": at, "error": words}
    condition = {"status": "True", "reason": "AwaitingDecision", "message": words, "lastTransitionTime": at}
    return IdentityFindingStatus(
        subject="ServiceAccount/" + "n" * 253,
        risk=FindingRisk(level=Risk.CRITICAL, reasons=[words] * count),
        accountable={"owner": "o" * 63, "since": at, "step": 2},
        message=words,
        **dict.fromkeys(("observable", "detected", "due", "decided", "enforced", "verified", "opened"), at),
        on_deadline=OnDeadline.QUARANTINE,
        acts=[{"verdict": "Quarantine", **act}] * count,
        residual=[words] * count,
        decision={"source": "Verdict", "by": "b" * 253, "reference": "r" * 320},
        evidence=[{"source": "metadata", "since": at, "detail": words}] * count,
        managed_by={"manager": "Helm", "name": "m" * 253},
        conditions=[Condition.read({**condition, "type": f"Type{number}"}) for number in range(min(count, 5))],
    )


@pytest.mark.parametrize("words", ["w" * 600, "ü" * 600])
def test_a_finding_fits_whatever_was_put_into_it(words: str) -> None:
    full = full_status(words, 8)
    assert full.size() > FITTED_BYTES
    fitted = full.fitted()
    assert fitted.size() <= FITTED_BYTES
    assert fitted.risk.level is Risk.CRITICAL
    assert fitted.due == full.due
    assert fitted.decision is not None
    assert fitted.decision.source == "Verdict"


def test_an_ordinary_finding_is_not_cut() -> None:
    ordinary = full_status("as long as a sentence about a binding", 1)
    assert ordinary.fitted() == ordinary


def test_lists_that_restore_something_are_never_cut() -> None:
    token = {"name": "t", "uid": "u"}
    with pytest.raises(ValidationError, match="at most 2000"):
        QuarantineStatus.read({"disabledTokens": [token] * 2001})


def test_risks_have_an_order_of_their_own() -> None:
    assert sorted([Risk.CRITICAL, Risk.LOW, Risk.HIGH, Risk.MEDIUM]) == [
        Risk.LOW,
        Risk.MEDIUM,
        Risk.HIGH,
        Risk.CRITICAL,
    ]
    assert max(Risk.CRITICAL, Risk.MEDIUM) is Risk.CRITICAL
    assert Risk.LOW < Risk.MEDIUM <= Risk.MEDIUM < Risk.HIGH
    assert Risk.CRITICAL > Risk.HIGH >= Risk.HIGH
    assert Risk("High") == "High"


RULES = """
    Unowned OwnerVacant ClaimConflict OwnershipExpired ReviewOverdue ExceptionLapsed LegacyToken CredentialTooOld
    CredentialExpired CredentialExpiring Unused Orphaned EntitlementUndeclared EntitlementExcessive Exposed
    IdentityShared DefaultIdentityUsed ShadowIntegration
"""


def test_the_rules_of_the_contract() -> None:
    assert [rule.value for rule in Rule] == RULES.split()


def test_documented_defaults_of_a_policy_that_says_nothing() -> None:
    policy = GovernancePolicySpec()
    assert policy.enforce_in is None  # audit
    assert policy.namespace_selector is None
    assert policy.adoption_grace == timedelta(days=30)
    assert policy.ownership.require_declared == (Risk.CRITICAL,)
    assert policy.credentials.max_age == timedelta(days=365)
    assert policy.blast_radius.wire() == {"maxActions": 10, "window": "1h", "maxPercentPerNamespace": 20}
    assert policy.retention.wire() == {"resolved": "90d", "decisions": "400d"}
    assert policy.contention.max_reverts == 3
    assert policy.exceptions.on_lapse == "ContinueClock"
    assert DEFAULT_DECIDE_WITHIN[Risk.CRITICAL] == timedelta(hours=72)
    assert DEFAULT_DECIDE_WITHIN[Risk.LOW] == timedelta(days=90)


def test_documented_defaults_of_a_deadline() -> None:
    deadline = GovernancePolicySpec.read({"deadlines": [{}]}).deadlines[0]
    assert deadline.decide_within is None  # the risk's own
    assert deadline.on_deadline is OnDeadline.NOTHING
    assert deadline.revoke_after is None
    assert deadline.stages == (Stage.GUARD, Stage.DISABLE_TOKENS)
    assert deadline.stage_interval == timedelta(0)
    assert deadline.hold_after_use == timedelta(hours=48)


def test_no_approval_is_asked_for_only_where_the_policy_says_so() -> None:
    said = ExceptionsPolicy.read({"classes": [{"class": "Migration", "approvals": []}, {"class": "AcceptedRisk"}]})
    assert said.of(ExceptionClass.MIGRATION).approvals == ()
    assert [a.verb for a in said.of(ExceptionClass.ACCEPTED_RISK).approvals] == ["approve"]
    assert [a.verb for a in said.of(ExceptionClass.BREAK_GLASS).approvals] == ["approve"]
    assert said.of(ExceptionClass.BREAK_GLASS).longest == timedelta(hours=24)
    assert said.of(ExceptionClass.BREAK_GLASS).most_renewals == 0
    assert said.of(ExceptionClass.VENDOR_MANAGED).longest == timedelta(days=180)
    assert said.of(ExceptionClass.MIGRATION).most_renewals == 1


def test_class_is_written_as_class() -> None:
    claim = OwnedIdentitySpec.read({"owner": "p", "purpose": "x", "subjects": {"selector": {}}, "class": "Agent"})
    assert claim.class_ is IdentityClass.AGENT
    assert claim.wire()["class"] == "Agent"
    assert OwnedIdentitySpec(owner="p", purpose="x", subjects={"selector": {}}, class_="Agent") == claim


def test_the_verb_of_a_decision_defaults_to_the_verdict() -> None:
    spec = yaml.safe_load(EXAMPLES["IdentityDecision"])
    del spec["verb"]
    assert IdentityDecisionSpec.read(spec).used_verb == "approve"
    assert IdentityDecisionSpec.read({**spec, "verb": "approve-security"}).used_verb == "approve-security"


def test_an_escalation_step_knows_its_share() -> None:
    owner = IdentityOwnerSpec.read({"escalation": [{"after": "50%", "to": "platform"}]})
    assert owner.escalation[0].share == 0.5


def test_the_past_is_accepted() -> None:
    spec = yaml.safe_load(EXAMPLES["IdentityException"]) | {"expiresAt": "2001-01-01T00:00:00Z"}
    kind = next(kind for kind in KINDS if kind.kind == "IdentityException")
    assert kind.spec.read(spec).wire()["expiresAt"] == "2001-01-01T00:00:00Z"


def test_names_that_the_admission_policies_carry_as_literals() -> None:
    assert operator_user(OPERATOR_NAMESPACE) == "system:serviceaccount:tenure-system:tenure"
    assert LABEL_CLASS == "tenure.dev/class"
