"""Kopf's part: `on.event` handlers for the kinds people author. They mark a key dirty and write nothing.

What is true of an object comes through our own informers; a mark here only makes the loop look again. Kopf's change
handlers would write annotations and finalizers to what they watch, and its store loses deletions across a 410.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import kopf

from tenure.api.names import GROUP, VERSION
from tenure.model.keys import Key

KINDS = {
    "identityowners": "IdentityOwner",
    "ownedidentities": "OwnedIdentity",
    "identityexceptions": "IdentityException",
    "identitydecisions": "IdentityDecision",
    "governancepolicies": "GovernancePolicy",
}

Login = Callable[[], Awaitable[kopf.ConnectionInfo]]


def registry(mark: Callable[[Key], None], login: Login) -> kopf.OperatorRegistry:
    """A registry of its own (nothing at import time); `mark` is told of every event, `login` gives the connection."""
    found = kopf.OperatorRegistry()

    async def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.posting.enabled = False
        settings.scanning.disabled = True
        settings.peering.standalone = True
        # Together, or a worker keeps its place for seconds (the limit alone makes a start of N objects take N/5 s).
        settings.queueing.worker_limit = 100
        settings.queueing.idle_timeout = 0.01
        settings.watching.server_timeout = 300
        settings.watching.client_timeout = 310
        settings.networking.error_backoffs = (1, 1, 2, 3, 5, 8, 13, 21, *[30] * 1000)
        settings.networking.request_timeout = 60
        settings.process.ultimate_exiting_timeout = None  # Kopf's end is not ours

    async def connect(**_: Any) -> kopf.ConnectionInfo:
        return await login()

    kopf.on.startup(registry=found)(configure)
    kopf.on.login(registry=found)(connect)
    for plural, kind in KINDS.items():
        kopf.on.event(GROUP, VERSION, plural, registry=found)(_marker(kind, mark))
    return found


def _marker(kind: str, mark: Callable[[Key], None]) -> Callable[..., Awaitable[None]]:
    async def changed(name: str | None, namespace: str | None, **_: Any) -> None:
        if name:
            mark(Key(kind, namespace or "", name))

    changed.__name__ = changed.__qualname__ = f"{kind}_changed"
    return changed
