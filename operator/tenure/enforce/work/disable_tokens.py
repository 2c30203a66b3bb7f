"""DisableTokens: pre-image in status -> guard with the tokens' names -> label."""

from __future__ import annotations

from tenure.api.quarantine import QuarantineStatus, Tripwire
from tenure.decide.hold import Quarantine
from tenure.enforce import tokens
from tenure.enforce.means import Means
from tenure.model.records import Secret


def held(m: Means, /) -> str:
    return ""


async def carry_out(m: Means, quarantine: Quarantine, /) -> tuple[Quarantine, bool]:
    quarantine = await _remember(m, quarantine)
    await m.guards.rebuild(quarantine.namespace)
    assert quarantine.status is not None
    held = quarantine.status.disabled_tokens
    today = m.now().strftime("%Y-%m-%d")
    for token in held:
        await tokens.disable(m.kube, m.store, quarantine.namespace, token, today)
    return quarantine, all([await tokens.is_disabled(m.kube, quarantine.namespace, token) for token in held])


def undone(m: Means, quarantine: Quarantine, /) -> bool:
    """A new token, or one whose label was taken off."""
    return bool(_lit(m, quarantine))


def reverts(m: Means, quarantine: Quarantine, /) -> list[str]:
    """Of those whose label we had set and somebody took off; a new token is no revert."""
    known = {t.uid for t in quarantine.status.disabled_tokens} if quarantine.status else set()
    return [
        secret.managed_by.manager if secret.managed_by else "" for secret in _lit(m, quarantine) if secret.uid in known
    ]


async def give_back(m: Means, quarantine: Quarantine, /) -> list[str]:
    status = quarantine.status or QuarantineStatus()
    held = {t.uid for q in m.others(quarantine) if q.status for t in q.status.disabled_tokens}
    revoked = {r.uid for r in status.revoked}
    kept = []
    for token in status.disabled_tokens:
        if token.uid in revoked:
            continue
        if token.uid in held:
            kept.append(f"{token.name} (held by another Quarantine)")
        elif not await tokens.restore(m.kube, m.store, quarantine.namespace, token):
            kept.append(f"{token.name} (gone)")
    return kept


def _lit(m: Means, quarantine: Quarantine) -> list[Secret]:
    gone = {r.name for r in quarantine.status.revoked} if quarantine.status else set()
    known = {t.uid for t in quarantine.status.disabled_tokens} if quarantine.status else set()
    return [
        secret
        for secret in m.tokens_of(quarantine)
        if (secret.uid not in known or not secret.invalid_since) and secret.name not in gone and not secret.deleting
    ]


async def _remember(m: Means, quarantine: Quarantine) -> Quarantine:
    """Stores the pre-image of every token before the first of them is changed."""
    status = quarantine.status or QuarantineStatus()
    known = {t.uid for t in status.disabled_tokens}
    identity = quarantine.spec.subject.uid if quarantine.spec.subject.kind == "ServiceAccount" else ""
    found = [s for s in m.tokens_of(quarantine) if s.uid not in known]
    if not found and status.tripwire is not None:
        return quarantine
    others = {t.uid: t for q in m.others(quarantine) if q.status for t in q.status.disabled_tokens}
    fresh = []
    for secret in sorted(found, key=lambda s: s.name):
        image = tokens.pre_image(secret, identity)
        # Where another Quarantine holds the token already, the pre-image is the one taken before that.
        fresh.append(
            image.model_copy(update={"label_before": others[secret.uid].label_before})
            if secret.uid in others
            else image
        )
    used = max([s.last_used for s in found] + [status.tripwire.last_used_before if status.tripwire else ""])
    return await m.write_status(
        quarantine,
        status.model_copy(
            update={
                "disabled_tokens": (*status.disabled_tokens, *fresh),
                "tripwire": Tripwire(last_used_before=used),
            }
        ),
    )
