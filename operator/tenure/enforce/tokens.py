"""Service-account-token Secrets: switched off by a label that the API server itself honours, and back on.

Only metadata is ever read or returned. Each write carries uid and resourceVersion as preconditions.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from typing import Any

from tenure.api.names import LABEL_TOKEN_INVALID_SINCE, LABEL_TOKEN_LAST_USED
from tenure.api.quarantine import DisabledToken
from tenure.inventory.store import Store
from tenure.kube.client import Kube
from tenure.kube.errors import NotFound
from tenure.kube.resources import SECRETS
from tenure.model.records import Secret


async def read(kube: Kube, namespace: str, name: str, uid: str) -> dict[str, Any] | None:
    """The Secret's metadata now; None when it is gone or another one has its name."""
    try:
        raw = await kube.get(SECRETS, name, namespace)
    except NotFound:
        return None
    metadata: dict[str, Any] = raw["metadata"]
    return metadata if metadata["uid"] == uid else None


def label(metadata: dict[str, Any], name: str) -> str | None:
    """A label's value, None when it is absent."""
    value = (metadata.get("labels") or {}).get(name)
    return None if value is None else str(value)


async def disable(kube: Kube, store: Store, namespace: str, token: DisabledToken, today: str) -> None:
    """Sets the label where it is absent. A token that is gone needs nothing. Raises ApiError."""
    metadata = await read(kube, namespace, token.name, token.uid)
    if metadata is not None and not label(metadata, LABEL_TOKEN_INVALID_SINCE):
        await _set(kube, store, namespace, metadata, today)


async def restore(kube: Kube, store: Store, namespace: str, token: DisabledToken) -> bool:
    """Puts the label back to what it was. False when there is nothing to put back onto: the Secret is gone or a
    namesake. Raises ApiError."""
    metadata = await read(kube, namespace, token.name, token.uid)
    if metadata is None:
        return False
    if label(metadata, LABEL_TOKEN_INVALID_SINCE) != token.label_before:
        await _set(kube, store, namespace, metadata, token.label_before)
    after = await read(kube, namespace, token.name, token.uid)
    return after is not None and label(after, LABEL_TOKEN_INVALID_SINCE) == token.label_before


async def is_disabled(kube: Kube, namespace: str, token: DisabledToken) -> bool:
    """Live: the label is on, or the token is gone."""
    metadata = await read(kube, namespace, token.name, token.uid)
    return metadata is None or bool(label(metadata, LABEL_TOKEN_INVALID_SINCE))


async def delete(kube: Kube, store: Store, namespace: str, name: str, uid: str) -> bool:
    """Deletes it for good and looks again. True once it is gone. Raises ApiError."""
    metadata = await read(kube, namespace, name, uid)
    if metadata is not None and not metadata.get("deletionTimestamp"):
        with contextlib.suppress(NotFound):
            await kube.delete(SECRETS, name, namespace, uid=uid, resource_version=metadata["resourceVersion"])
    gone = await read(kube, namespace, name, uid) is None
    held = store.secrets.get((namespace, name))
    if gone and held is not None and held.uid == uid:
        store.remove("Secret", namespace, name)
    return gone


async def _set(kube: Kube, store: Store, namespace: str, metadata: dict[str, Any], value: str | None) -> None:
    name: str = metadata["name"]
    answer = await kube.merge_patch(
        SECRETS,
        name,
        namespace,
        {"metadata": {"labels": {LABEL_TOKEN_INVALID_SINCE: value}}},
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
    )
    held = store.secrets.get((namespace, name))
    if held is not None and held.uid == metadata["uid"]:
        version = int(answer["metadata"]["resourceVersion"])
        store.upsert("Secret", replace(held, invalid_since=value or "", resource_version=version))


def pre_image(secret: Secret, identity_uid: str) -> DisabledToken:
    """What is remembered of a token before its first change."""
    return DisabledToken(
        name=secret.name,
        uid=secret.uid,
        service_account=secret.service_account,
        service_account_uid=secret.service_account_uid or identity_uid,
        label_before=secret.invalid_since or None,
    )


def held_until(metadata: dict[str, Any] | None, since: datetime, before: str, hold: timedelta) -> datetime | None:
    """Until when an attempted use postpones revocation, None for not at all.

    The API server stamps the day of the last attempt, refused ones too. A stamp newer than `before` (the one found
    when the quarantine began) is an attempt during it, at some time of that day: its end counts. An older stamp is a
    use before `since`, the quarantine's beginning, and that counts.
    """
    used = label(metadata, LABEL_TOKEN_LAST_USED) if metadata else None
    if not used or not hold:
        return None
    try:
        day = datetime.combine(datetime.strptime(used, "%Y-%m-%d").date(), time.max, tzinfo=UTC)
    except ValueError:
        return since + hold
    return (day if used > before else min(day, since)) + hold
