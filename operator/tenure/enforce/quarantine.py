"""What a Quarantine says of itself, as it is stored."""

from __future__ import annotations

from datetime import datetime

from tenure.api.names import FINALIZER, TYPE_SERVICE_ACCOUNT_TOKEN, Stage, Verdict
from tenure.api.quarantine import DisabledToken, QuarantineStatus, RemovedSubject, Revoked, StageStatus
from tenure.decide.hold import Quarantine
from tenure.inventory.store import Store, subject_key
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
    """A revoked Secret's or entitlement's Quarantine, kept without finalizer so that its names stay refused."""
    return (
        FINALIZER not in quarantine.finalizers
        and quarantine.spec.subject.kind != "ServiceAccount"
        and quarantine.status is not None
        and any(r.done for r in quarantine.status.revoked)
    )


def is_being_revoked(quarantine: Quarantine) -> bool:
    """What it is about was set out to be revoked, itself (of a ServiceAccount, its tokens do not count)."""
    uid, revoked = quarantine.spec.subject.uid, quarantine.status.revoked if quarantine.status else ()
    return any(quarantine.spec.subject.kind == "Secret" or entry.uid == uid for entry in revoked)


def is_itself_revoked(quarantine: Quarantine) -> bool:
    """A ServiceAccount's or an entitlement's, or a Secret's, that is gone by our doing."""
    uid, revoked = quarantine.spec.subject.uid, quarantine.status.revoked if quarantine.status else ()
    return any(entry.done and entry.uid == uid for entry in revoked)


def others_out(store: Store, binding: str, but: Quarantine) -> list[RemovedSubject]:
    """What Quarantines that stand, but this one, hold out of the binding of that uid, each once."""
    found: dict[RemovedSubject, None] = {}
    for quarantine in store.quarantines_holding(binding):
        if quarantine.uid == but.uid or not stands(quarantine) or is_itself_revoked(quarantine):
            continue
        for image in quarantine.status.pre_images if quarantine.status else ():
            if image.uid == binding:
                found |= dict.fromkeys(image.removed)
    return list(found)


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
