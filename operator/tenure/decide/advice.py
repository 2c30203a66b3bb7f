"""What a reader of an undecided finding can do, with the command."""

from __future__ import annotations

from tenure.api.names import Rule
from tenure.model.keys import Key

_WAIVER = "or waive it with an IdentityException that names the rule {rule}"


def advice(rule: Rule, key: Key) -> str:
    """One line of at most a few hundred characters; stable as long as the finding is about the same subject."""
    where = f"-n {key.namespace} " if key.namespace else ""
    text = {
        Rule.UNOWNED: (
            f"Nobody has decided. Claim it with an OwnedIdentity that selects {key.kind}/{key.name}, or "
            f"`kubectl label namespace {key.namespace} tenure.dev/owner=OWNER`, {_WAIVER}."
        ),
        Rule.OWNER_VACANT: (
            f"Nobody has decided. Restore the owner or name another: `kubectl edit ownedidentity {key.name} {where}`."
        ),
        Rule.CLAIM_CONFLICT: (
            f"Nobody has decided. An earlier claim covers the same subjects: narrow or delete ownedidentity/{key.name}."
        ),
        Rule.OWNERSHIP_EXPIRED: (
            f"Nobody has decided. Set a later expiresAt on ownedidentity/{key.name}, or have its subjects claimed anew."
        ),
        Rule.REVIEW_OVERDUE: (
            f"Nobody has reviewed it. `tenure attest {key.kind.lower()}/{key.name} {where}--reason …`, or change it."
        ),
        Rule.EXCEPTION_LAPSED: (
            f"Nobody has decided. Fix what identityexception/{key.name} waived, then delete it, or renew it."
        ),
        Rule.LEGACY_TOKEN: (
            "Nobody has decided. Move its user to bound tokens (`kubectl create token`) and delete the Secret, "
            f"{_WAIVER}."
        ),
        Rule.CREDENTIAL_TOO_OLD: f"Nobody has decided. Rotate it under a new name and delete this one, {_WAIVER}.",
    }.get(rule, f"Nobody has decided. Fix it, {_WAIVER}.")
    return text.format(rule=rule.value) if "{rule}" in text else text
