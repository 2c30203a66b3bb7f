"""Rules on entitlements: EntitlementUndeclared."""

from __future__ import annotations

from datetime import datetime

from tenure.api.claim import DeclaredEntitlement
from tenure.api.names import EntitlementScope, Rule
from tenure.model.evaluation import Evidence, Violation
from tenure.model.facts import Claim, Facts
from tenure.model.records import Binding
from tenure.rules import risk
from tenure.rules.case import Case
from tenure.rules.coverage import in_force, rank
from tenure.rules.ownership import changed


def entitlement_undeclared(case: Case) -> Violation | None:
    """Holds while no claim in force that covers the ServiceAccount lists the role where it is bound. Where several
    cover it any of them may: which one answers is ClaimConflict's question. An identity that nobody has claimed has
    declared nothing, so all it is entitled to is undeclared too.

    Not: what Kubernetes binds itself, and platform identities, whose rights are the cluster's."""
    facts, binding = case.facts, case.facts.record
    assert isinstance(binding, Binding)
    assert facts.entitled is not None
    if binding.bootstrap or (facts.entitled.platform and not facts.entitled.platform_named):
        return None
    if case.listed is not None:
        return None
    counting = case.cover.claim
    who = f"claim {counting.namespace}/{counting.name} does not list it" if counting else "no claim covers the identity"
    where = f"in namespace {binding.namespace}" if binding.namespace else "in the whole cluster"
    return Violation(
        rule=Rule.ENTITLEMENT_UNDECLARED,
        observable=binding.created,
        message=f"{case.facts.key.form} is bound to {binding.role_kind} {binding.role_name} {where}: {who}.",
        risk=risk.of_violation(Rule.ENTITLEMENT_UNDECLARED, facts.risk),
        evidence=(Evidence(source="metadata", since=binding.created, detail=f"{facts.key}"),),
    )


def listing(facts: Facts, now: datetime) -> Claim | None:
    """The claim in force that declares it; of several the one that did first."""
    binding = facts.record
    assert isinstance(binding, Binding)
    return min((claim for claim in covering(facts, now) if lists(claim, binding)), key=changed, default=None)


def covering(facts: Facts, now: datetime) -> list[Claim]:
    """The claims in force that cover the entitlement's ServiceAccount."""
    identity, entitled = facts.identity, facts.entitled
    assert identity is not None
    assert entitled is not None
    return [
        claim for claim in facts.claims if in_force(claim, now) and rank(claim, identity, platform=entitled.platform)
    ]


def lists(claim: Claim, binding: Binding) -> bool:
    """Whether the claim declares the binding's role where it is bound."""
    return any(_declares(declared, claim, binding) for declared in claim.spec.entitlements)


def _declares(declared: DeclaredEntitlement, claim: Claim, binding: Binding) -> bool:
    role = declared.role_ref
    if (role.kind.value, role.name) != (binding.role_kind, binding.role_name):
        return False
    if declared.scope is EntitlementScope.CLUSTER:
        return not binding.namespace
    return binding.namespace == (declared.namespace or claim.namespace)
