"""Records: revoked names that stay refused when the Quarantine that refused them goes."""

from __future__ import annotations

from tenure.api.names import API_VERSION, Verdict
from tenure.api.quarantine import QuarantineSpec, QuarantineStatus, QuarantineSubject, Revoked
from tenure.decide.hold import Quarantine
from tenure.enforce import contention
from tenure.enforce.means import Means
from tenure.enforce.names import quarantine_name
from tenure.enforce.quarantine import is_other_secret, is_unfinished, subject_of
from tenure.inventory.projection import PROJECTIONS
from tenure.kube.resources import QUARANTINES
from tenure.model.keys import Key


async def keep_names(m: Means, quarantine: Quarantine) -> None:
    """A released ServiceAccount's revoked tokens stay revoked: each gets a record of its own, without finalizer,
    before the Quarantine that refused their names goes."""
    if quarantine.spec.subject.kind != "ServiceAccount" or quarantine.status is None:
        return
    for entry in quarantine.status.revoked:
        if entry.kind != "Secret":
            continue
        account = m.store.service_accounts.get((quarantine.namespace, entry.service_account))
        if account is None or account.uid != entry.service_account_uid:
            continue
        name = quarantine_name(Key("Secret", quarantine.namespace, entry.name), entry.uid)
        record = m.store.quarantines.get((quarantine.namespace, name))
        if record is None:
            record = await _begin(m, quarantine, entry, name)
        if is_unfinished(record):
            done = entry if entry.done else entry.model_copy(update={"done": m.now()})
            await m.write_status(record, QuarantineStatus(revoked=(done,)))


async def _begin(m: Means, quarantine: Quarantine, entry: Revoked, name: str) -> Quarantine:
    """A record without its status, which takes a second write: until that, the released Quarantine stands."""
    stored = await m.kube.apply(
        QUARANTINES,
        {
            "apiVersion": API_VERSION,
            "kind": "Quarantine",
            "metadata": {"name": name, "namespace": quarantine.namespace},
            "spec": QuarantineSpec(
                subject=QuarantineSubject(
                    kind="Secret", namespace=quarantine.namespace, name=entry.name, uid=entry.uid
                ),
                verdict=Verdict.REVOKE,
                reason=f"revoked under Quarantine {quarantine.name}; the name stays refused",
            ).wire(),
        },
    )
    m.store.upsert("Quarantine", PROJECTIONS["Quarantine"](stored))
    return m.store.quarantines[(quarantine.namespace, name)]


async def keep(m: Means, quarantine: Quarantine) -> None:
    """A revoked token's record keeps its name refused until its ServiceAccount's uid is gone, then it goes; that of
    another Secret, and of an entitlement, stays as long as its findings are kept."""
    assert quarantine.status is not None
    if is_other_secret(quarantine) or quarantine.spec.subject.kind != "Secret":
        if not any((quarantine.namespace, name) in m.store.findings for name in quarantine.spec.findings):
            await m.delete(quarantine)
            await m.guards.rebuild(quarantine.namespace)
        elif m.guards.lacks(quarantine):
            await m.guards.rebuild(quarantine.namespace)
        elif is_other_secret(quarantine) and quarantine == m.about(subject_of(quarantine))[-1]:
            await contention.came_back(m, subject_of(quarantine), quarantine)
        return
    alive = [
        entry
        for entry in quarantine.status.revoked
        if (account := m.store.service_accounts.get((quarantine.namespace, entry.service_account))) is not None
        and account.uid == entry.service_account_uid
    ]
    if not alive:
        await m.delete(quarantine)
        await m.guards.rebuild(quarantine.namespace)
    elif m.guards.lacks(quarantine):
        await m.guards.rebuild(quarantine.namespace)


def pending(m: Means, quarantine: Quarantine) -> bool:
    """A crash came between the two writes of a record, and the Quarantine that revoked its subject still stands."""
    uid = quarantine.spec.subject.uid
    return is_unfinished(quarantine) and any(
        entry.uid == uid
        for other in m.store.quarantines_in(quarantine.namespace)
        if other.name != quarantine.name and other.status
        for entry in other.status.revoked
    )
