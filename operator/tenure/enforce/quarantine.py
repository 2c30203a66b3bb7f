"""What a Quarantine says of itself, as it is stored."""

from __future__ import annotations

from datetime import datetime

from tenure.api.names import FINALIZER, TYPE_SERVICE_ACCOUNT_TOKEN, Stage, Verdict
from tenure.api.quarantine import DisabledToken, QuarantineStatus, Revoked, StageStatus
from tenure.decide.hold import Quarantine
from tenure.inventory.store import subject_key
from tenure.model.keys import Key


def subject_of(quarantine: Quarantine) -> Key:
    return subject_key(quarantine)


def is_other_secret(quarantine: Quarantine) -> bool:
    """Whether it is about a Secret that holds no ServiceAccount's token: that one is kept from new pods."""
    subject = quarantine.spec.subject
    return subject.kind == "Secret" and subject.type not in (None, TYPE_SERVICE_ACCOUNT_TOKEN)


def stands(quarantine: Quarantine) -> bool:
    """It holds something: neither ending nor a mere record."""
    release = quarantine.status.release if quarantine.status else None
    return quarantine.deletion is None and release is None and not is_record(quarantine)


def is_record(quarantine: Quarantine) -> bool:
    """A revoked subject's Quarantine, kept without finalizer so that its names stay refused."""
    return (
        FINALIZER not in quarantine.finalizers
        and quarantine.spec.subject.kind == "Secret"
        and quarantine.status is not None
        and any(r.done for r in quarantine.status.revoked)
    )


def is_being_revoked(quarantine: Quarantine) -> bool:
    """A Secret's, whose deletion was set out on: it becomes a record, and its name stays refused."""
    return quarantine.spec.subject.kind == "Secret" and bool(quarantine.status and quarantine.status.revoked)


def is_unfinished(quarantine: Quarantine) -> bool:
    """A record that does not say yet what it is to keep refused."""
    revoked = quarantine.status.revoked if quarantine.status else ()
    asked = bool(quarantine.spec.findings) or FINALIZER in quarantine.finalizers
    return not asked and quarantine.spec.verdict is Verdict.REVOKE and not revoked


def stage_of(quarantine: Quarantine, stage: Stage) -> StageStatus | None:
    return next((s for s in quarantine.status.stages if s.name is stage), None) if quarantine.status else None


def unrevoked(quarantine: Quarantine) -> list[DisabledToken]:
    """The Secrets that its revocation deletes and that are still there, as far as it knows."""
    status = quarantine.status or QuarantineStatus()
    done = {r.uid for r in status.revoked if r.done}
    subject = quarantine.spec.subject
    itself = (DisabledToken(name=subject.name, uid=subject.uid),) if is_other_secret(quarantine) else ()
    return [secret for secret in (*status.disabled_tokens, *itself) if secret.uid not in done]


def revoked_entry(token: DisabledToken, intended: datetime | None = None) -> Revoked:
    return Revoked(
        kind="Secret",
        name=token.name,
        uid=token.uid,
        service_account=token.service_account,
        service_account_uid=token.service_account_uid,
        intended=intended,
    )
