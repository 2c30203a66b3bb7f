"""DisableTokens: pre-image in status -> guard with the tokens' names -> label."""

from __future__ import annotations

from dataclasses import replace

from tenure.api.names import LABEL_TOKEN_INVALID_SINCE, Stage
from tenure.api.quarantine import QuarantineStatus, Tripwire
from tenure.decide.hold import Quarantine
from tenure.enforce import tokens
from tenure.enforce.contention import Reverted, stopped
from tenure.enforce.means import Means
from tenure.enforce.quarantine import stage_of
from tenure.model.keys import Key
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
        if stopped(m, quarantine, Key("Secret", quarantine.namespace, token.name)):
            continue
        await tokens.disable(m.kube, m.store, quarantine.namespace, token, today)
    off = [await tokens.is_disabled(m.kube, quarantine.namespace, token) for token in held]
    seen = tuple(t.model_copy(update={"off": t.off or now}) for t, now in zip(held, off, strict=True))
    status = quarantine.status.model_copy(update={"disabled_tokens": seen})
    return replace(quarantine, status=status), all(off)


def undone(m: Means, quarantine: Quarantine, /) -> bool:
    """A new token, or one whose label was taken off."""
    return any(not stopped(m, quarantine, _key(secret)) for secret in _lit(m, quarantine))


def reverts(m: Means, quarantine: Quarantine, /) -> list[Reverted]:
    """Of those that were switched off and are on again; a new token is no revert."""
    known = {t.uid for t in quarantine.status.disabled_tokens if t.off} if quarantine.status else set()
    stage = stage_of(quarantine, Stage.DISABLE_TOKENS)
    day = ((stage and stage.done) or m.now()).strftime("%Y-%m-%d")
    return [
        Reverted(
            key=_key(secret),
            what=f"its label {LABEL_TOKEN_INVALID_SINCE} is off",
            want=f'metadata.labels: {{{LABEL_TOKEN_INVALID_SINCE}: "{day}"}}, or no such Secret at all.',
            field=("f:metadata", "f:labels", f"f:{LABEL_TOKEN_INVALID_SINCE}"),
            managed=secret.managed_by,
        )
        for secret in _lit(m, quarantine)
        if secret.uid in known
    ]


async def give_back(m: Means, quarantine: Quarantine, /) -> list[str]:
    status = quarantine.status or QuarantineStatus()
    held = {t.uid for q in m.others(quarantine) if q.status for t in q.status.disabled_tokens}
    revoked = {r.uid for r in status.revoked if r.kind == "Secret"}
    kept = []
    for token in status.disabled_tokens:
        if token.uid in revoked:
            continue
        if token.uid in held:
            kept.append(f"{token.name} (held by another Quarantine)")
        elif not await tokens.restore(m.kube, m.store, quarantine.namespace, token):
            kept.append(f"{token.name} (gone)")
    return kept


def _key(secret: Secret) -> Key:
    return Key("Secret", secret.namespace, secret.name)


def _lit(m: Means, quarantine: Quarantine) -> list[Secret]:
    # By uid: the guard that refuses a revoked name fails open, and what slips in under it is a token like any other.
    gone = {r.uid for r in quarantine.status.revoked if r.kind == "Secret"} if quarantine.status else set()
    known = {t.uid for t in quarantine.status.disabled_tokens} if quarantine.status else set()
    return [
        secret
        for secret in m.tokens_of(quarantine)
        if (secret.uid not in known or not secret.invalid_since) and secret.uid not in gone and not secret.deleting
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
