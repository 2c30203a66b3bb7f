"""Who answers for a subject (declared, derived, none, each with its reason), and the rules on claims and owners."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from tenure.api.base import format_timestamp
from tenure.api.conditions import Reason
from tenure.api.names import LABEL_OWNER, IdentityClass, Risk, Rule
from tenure.model.evaluation import Evidence, ExceptionRecord, Governance, Ownership, Violation
from tenure.model.facts import Claim, Facts, Owner
from tenure.model.keys import Key
from tenure.model.records import Secret, ServiceAccount
from tenure.rules import coverage, owners, risk
from tenure.rules.case import Case
from tenure.rules.coverage import Cover
from tenure.rules.governance import terms_of
from tenure.rules.owners import Answer
from tenure.rules.secrets import is_credential

DEFAULT_SERVICE_ACCOUNT: Final = "default"

State = Literal["declared", "derived", "none"]


def changed(authored: Claim | ExceptionRecord | Owner) -> datetime:
    """When the object's spec last changed, by the API server's stamp; its creation when none is known."""
    return authored.spec_changed or authored.created


# --- who answers


def of_claim(facts: Facts, claim: Claim, how: str = "") -> Ownership:
    """What a claim in force declares, while its owner is vacant too: OwnerVacant has a clock of its own, and the backup
    answers meanwhile. An owner's namespaceSelector is judged when a claim is admitted, not here: a namespace that is
    relabelled later must not take the owner away from what was claimed rightly."""
    answer = owners.answer(claim.spec.owner, facts.owners)
    return _answered(facts.governance, "declared", answer, f"claim {claim.namespace}/{claim.name}{how}", claim=claim)


def of_exception(facts: Facts) -> Ownership:
    """Who answers for an exception: the owner it names."""
    exception = facts.exception
    answer = owners.answer(exception.spec.owner, facts.owners)
    return _answered(facts.governance, "declared", answer, f"named by exception {exception.namespace}/{exception.name}")


def of_subject(facts: Facts, cover: Cover) -> Ownership:
    """Who answers for a ServiceAccount or Secret: the claim in force, else a label, else nobody."""
    if cover.claim is not None:
        on = f" on ServiceAccount {cover.through}" if cover.through else ""
        return of_claim(facts, cover.claim, f"{on}, by {'name' if cover.named else 'selector'}")
    terms = terms_of(facts.governance).ownership
    on_namespace = list(_on_namespace(facts, (LABEL_OWNER, *terms.namespace_labels)))
    on_object = list(_on_object(facts, (LABEL_OWNER, *terms.object_labels)))
    counting = on_object + on_namespace if terms.object_labels_count else on_namespace
    derived = next((named for named in counting if named.answer.vacant is None), None)
    if derived is not None:
        return _answered(facts.governance, "derived", derived.answer, derived.where)
    # An owner that a label names and that cannot answer gives no ownership: no claim would carry its vacancy, so
    # Unowned has to. Whoever stands in for it is told.
    told = next((named for named in (*on_object, *on_namespace) if named.answer.accountable), None)
    why = _nobody(cover, on_namespace, on_object)
    if told is None:
        return Ownership("none", why=why, class_=_class(facts.governance), vacant=bool(on_namespace or on_object))
    return _answered(facts.governance, "none", told.answer, why)


def _answered(
    governance: Governance, state: State, answer: Answer, why: str, *, claim: Claim | None = None
) -> Ownership:
    vacant = answer.vacant is not None
    return Ownership(
        state=state,
        owner=answer.accountable,
        why=f"{why}; {answer.words}" if vacant and state == "declared" else why,
        claim=Key("OwnedIdentity", claim.namespace, claim.name) if claim is not None else None,
        claim_changed=changed(claim) if claim is not None else None,
        class_=_class(governance, claim.spec.class_ if claim is not None else IdentityClass.WORKLOAD),
        vacant=vacant,
        escalation=answer.escalation,
        contact=answer.contact,
        ladder=answer.ladder,
    )


def _class(governance: Governance, claimed: IdentityClass = IdentityClass.WORKLOAD) -> IdentityClass:
    return IdentityClass.PLATFORM if governance.platform else claimed


@dataclass(frozen=True, slots=True)
class _Named:
    """An owner that a label names."""

    answer: Answer
    where: str


def _on_namespace(facts: Facts, keys: tuple[str, ...]) -> Iterable[_Named]:
    if facts.namespace is not None and facts.namespace.labels:
        place = f"namespace {facts.namespace.name}"
        yield from _named(dict(facts.namespace.labels), keys, place, facts.owners)


def _on_object(facts: Facts, keys: tuple[str, ...]) -> Iterable[_Named]:
    """An identity's credentials follow it: its labels come before the Secret's own."""
    if facts.identity is not None and facts.identity.labels:
        yield from _named(dict(facts.identity.labels), keys, f"ServiceAccount {facts.identity.name}", facts.owners)
    if facts.record is not None and facts.record.labels:
        yield from _named(dict(facts.record.labels), keys, "the object itself", facts.owners)


def _named(
    labels: Mapping[str, str], keys: tuple[str, ...], place: str, known: Mapping[str, Owner]
) -> Iterable[_Named]:
    for key in dict.fromkeys(keys):
        value = labels.get(key)
        if value:
            yield _Named(owners.answer(value, known), f"label {key}={value} on {place}")


def _nobody(cover: Cover, on_namespace: list[_Named], on_object: list[_Named]) -> str:
    """Why ownership is none, the nearest miss first."""
    end = cover.lapsed.spec.expires_at if cover.lapsed is not None else None
    if cover.lapsed is not None and end is not None:
        return f"claim {cover.lapsed.namespace}/{cover.lapsed.name} expired at {format_timestamp(end)}"
    for named in on_namespace:
        return f"{named.where}: {named.answer.words}"
    for named in on_object:
        if named.answer.vacant is not None:
            return f"{named.where}: {named.answer.words}"
        return f"no claim covers it; {named.where} tells {named.answer.named} but does not count as ownership"
    return "no claim covers it, and no label names an owner"


# --- Unowned


def unowned(case: Case) -> Violation | None:
    """Holds when ownership is none, or only derived for a risk in ownership.requireDeclared."""
    facts, ownership = case.facts, case.ownership
    if ownership.state == "declared" or not _may_be_unowned(facts):
        return None
    graded = risk.of_violation(Rule.UNOWNED, facts.risk)
    if ownership.state == "none":
        since = _since_uncovered(facts, case.cover)
        message = f"Nobody owns {facts.key}: {ownership.why}."
    elif graded.level in terms_of(facts.governance).ownership.require_declared:
        since = _since_graded(facts, graded.level)
        message = f"{facts.key} is {graded.level.value}: {ownership.why} is not enough for that, it needs a claim."
    else:
        return None
    return Violation(
        rule=Rule.UNOWNED,
        observable=since,
        message=message,
        risk=graded,
        evidence=(Evidence(source="metadata", since=since, detail=ownership.why),),
    )


def _may_be_unowned(facts: Facts) -> bool:
    """Not: what belongs to the platform (whose owners are the cluster's), unless a policy names its namespace; a
    credential that follows a known identity, or is none; a namespace's `default` ServiceAccount that nothing uses."""
    record = facts.record
    if facts.governance.platform and not facts.governance.platform_named:
        return False
    if isinstance(record, Secret):
        return facts.identity is None and is_credential(record)
    return not (isinstance(record, ServiceAccount) and record.name == DEFAULT_SERVICE_ACCOUNT and not in_use(facts))


def in_use(facts: Facts) -> bool:
    """Whether somebody gave the ServiceAccount something: a binding that names it, a token Secret, a pod. What every
    ServiceAccount of the namespace gets through a group is no use of this one."""
    return facts.running or bool(facts.tokens) or any(not grant.through.startswith("Group ") for grant in facts.grants)


def _since_uncovered(facts: Facts, cover: Cover) -> datetime:
    assert facts.record is not None
    end = cover.lapsed.spec.expires_at if cover.lapsed is not None else None
    return max(facts.record.created, end) if end is not None else facts.record.created


def _since_graded(facts: Facts, level: Risk) -> datetime:
    """When the first of the bindings came that give this level, as far as their creation tells."""
    assert facts.record is not None
    bound = [grant.binding.created for grant in facts.grants if risk.grade((grant,)).level is level]
    return max(facts.record.created, min(bound)) if bound else facts.record.created


# --- rules on claims


def owner_vacant(case: Case) -> Violation | None:
    """Holds when the claim's owner is missing, suspended or cyclic. When a missing owner went is stamped nowhere: then
    the claim's own last change is the earliest it can have been."""
    claim = case.facts.claim
    known = case.facts.owners
    answer = owners.answer(claim.spec.owner, known)
    if answer.vacant is None:
        return None
    since = changed(claim)
    if answer.vacant is Reason.OWNER_SUSPENDED:
        since = max(since, changed(known[claim.spec.owner]))
    elif answer.vacant is Reason.OWNER_CYCLIC:
        since = max(since, *(changed(known[name]) for name in owners.cycle(claim.spec.owner, known)))
    return Violation(
        rule=Rule.OWNER_VACANT,
        observable=since,
        message=f"Nobody answers as {case.facts.key} says: {answer.words}.",
        risk=risk.of_violation(Rule.OWNER_VACANT, case.facts.risk),
        evidence=(Evidence(source="metadata", since=since, detail=answer.vacant.value),),
    )


def claim_conflict(case: Case) -> Violation | None:
    """Holds while an earlier claim, just as specific, counts on one of the claim's subjects."""
    claim = case.facts.claim
    found = list(coverage.overlaps(claim, case.facts, case.now))
    if not found:
        return None
    first = found[0]
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    what = f"{type(first.subject).__name__} {first.subject.name}{more}"
    since = min(max(changed(claim), changed(overlap.earlier), overlap.subject.created) for overlap in found)
    return Violation(
        rule=Rule.CLAIM_CONFLICT,
        observable=since,
        message=(
            f"{case.facts.key} does not count on {what}: the earlier claim {first.earlier.name} covers it just as "
            "specifically. Name it in one of them, or narrow one."
        ),
        risk=risk.of_violation(Rule.CLAIM_CONFLICT, case.facts.risk),
        evidence=(Evidence(source="metadata", since=since, detail=f"earlier claim {first.earlier.name}"),),
    )


def ownership_expired(case: Case) -> Violation | None:
    """Holds from the claim's expiresAt on; what it covered is then judged without it."""
    claim = case.facts.claim
    end = claim.spec.expires_at
    if end is None or case.now < end:
        return None
    return Violation(
        rule=Rule.OWNERSHIP_EXPIRED,
        observable=end,
        message=f"{case.facts.key} expired at {format_timestamp(end)} and covers nothing any more.",
        risk=risk.of_violation(Rule.OWNERSHIP_EXPIRED, case.facts.risk),
        evidence=(Evidence(source="spec.expiresAt", since=end),),
    )
