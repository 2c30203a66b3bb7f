"""What a reader of an undecided finding can do, with the command."""

from __future__ import annotations

from tenure.api.names import Rule
from tenure.decide.terms import ENFORCEABLE
from tenure.model.keys import Key

_WAIVER = "or waive it with an IdentityException that names the rule {rule}"


def advice(rule: Rule, key: Key, name: str, owner: str, contact: str = "") -> str:
    """One line: who is accountable now ("" = nobody), and the commands that decide; `name` is the finding's. Stable as
    long as the finding is about the same subject and the same owner answers."""
    who = f"{owner}{f' ({contact})' if contact else ''} is accountable" if owner else "nobody is accountable"
    act = ""
    if key.kind in ENFORCEABLE:
        act = f" To act now: `tenure quarantine identityfinding/{name} -n {key.namespace} --reason WHY`."
    return f"Nobody has decided; {who}. {_way_out(rule, key)}{act}"


def _way_out(rule: Rule, key: Key) -> str:
    where = f"-n {key.namespace} " if key.namespace else ""
    text = {
        Rule.UNOWNED: (
            f"Claim it with an OwnedIdentity that selects {key.kind}/{key.name}, or "
            f"`kubectl label namespace {key.namespace} tenure.dev/owner=OWNER`, {_WAIVER}."
        ),
        Rule.OWNER_VACANT: (
            f"Restore the owner or name another: `kubectl edit ownedidentity {key.name} -n {key.namespace}`."
        ),
        Rule.CLAIM_CONFLICT: (f"An earlier claim covers the same subjects: narrow or delete ownedidentity/{key.name}."),
        Rule.OWNERSHIP_EXPIRED: (
            f"Set a later expiresAt on ownedidentity/{key.name}, or have its subjects claimed anew."
        ),
        Rule.REVIEW_OVERDUE: (
            f"Look at what it covers: `tenure attest {key.kind.lower()}/{key.name} {where}--reason WHY`."
        ),
        Rule.EXCEPTION_LAPSED: (
            f"Fix what identityexception/{key.name} waived, then delete it, or renew it with a later expiresAt."
        ),
        Rule.LEGACY_TOKEN: (
            f"Move its user to bound tokens (`kubectl create token`) and delete the Secret, {_WAIVER}."
        ),
        Rule.ENTITLEMENT_UNDECLARED: (
            f"List it in spec.entitlements of a claim on {key.form}, or take the subject out of {key.kind}/{key.name}, "
            f"{_WAIVER}."
        ),
        Rule.CREDENTIAL_TOO_OLD: f"Rotate it under a new name and delete this one, {_WAIVER}.",
    }.get(rule, f"Fix it, {_WAIVER}.")
    return text.format(rule=rule.value) if "{rule}" in text else text
