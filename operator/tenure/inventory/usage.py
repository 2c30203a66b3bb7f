"""Exact last use per identity, credential and entitlement, from the requests that an audit source tells of.

By uid, so that a namesake inherits none; bounded by what the inventory holds.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from tenure.api.names import TYPE_SERVICE_ACCOUNT_TOKEN
from tenure.model.records import Binding, Secret, ServiceAccount
from tenure.model.usage import Request, Use

if TYPE_CHECKING:
    from tenure.inventory.store import Store

K = TypeVar("K", bound=Hashable)

READS = ("get", "list", "watch")
_SLACK = 1_000
"""Entries of objects that are gone, before they are looked for."""
_API_SERVER = "system:apiserver"


class Usage:
    """What was seen used, and in which time it was looked."""

    def __init__(self) -> None:
        self.since: datetime | None = None
        self.until: datetime | None = None
        self._identities: dict[str, Use] = {}
        self._credentials: dict[str, Use] = {}
        self._entitlements: dict[tuple[str, str], Use] = {}

    def of(self, record: ServiceAccount | Secret) -> Use | None:
        """The last use of an identity, or of a credential: of a token Secret that its token was accepted, of any other
        Secret that somebody read it by its name."""
        return (self._identities if isinstance(record, ServiceAccount) else self._credentials).get(record.uid)

    def of_entitlement(self, binding: Binding, account: ServiceAccount) -> Use | None:
        """The last request of the ServiceAccount that RBAC allowed because of the binding. Of several that would allow
        a request it names the first it finds, so one that is never named may only be redundant."""
        return self._entitlements.get((binding.uid, account.uid))

    def note(self, request: Request, store: Store) -> None:
        """Takes one request in; the same again changes nothing."""
        self.since = min(self.since or request.received, request.received)
        self.until = max(self.until or request.ended, request.ended)
        if read := secret_read(request, store):
            _later(self._credentials, read.uid, request)
        held = request.account
        account = store.service_accounts.get(held) if held else None
        if account is None or (request.uid and request.uid != account.uid) or request.received < account.created:
            return
        _later(self._identities, account.uid, request)
        if request.secret and (token := store.secrets.get((account.namespace, request.secret))):
            _later(self._credentials, token.uid, request)
        if request.binding is not None:
            binding = store.bindings.get((request.binding.namespace, request.binding.name))
            if binding is not None and binding.created <= request.received:
                _later(self._entitlements, (binding.uid, account.uid), request)
        self._bound(store)

    def _bound(self, store: Store) -> None:
        _only(self._identities, len(store.service_accounts), lambda: {a.uid for a in store.service_accounts.values()})
        _only(self._credentials, len(store.secrets), lambda: {s.uid for s in store.secrets.values()})
        if len(self._entitlements) > 20 * (len(store.bindings) + len(store.service_accounts) + _SLACK):
            bindings = {b.uid for b in store.bindings.values()}
            accounts = {a.uid for a in store.service_accounts.values()}
            for pair in [p for p in self._entitlements if p[0] not in bindings or p[1] not in accounts]:
                del self._entitlements[pair]


def secret_read(request: Request, store: Store) -> Secret | None:
    """The Secret, no token's, that was read by its name: by a node for a pod, or by whoever may."""
    if request.resource != "secrets" or not request.name or request.verb not in READS or request.code >= 300:
        return None
    secret = store.secrets.get((request.namespace, request.name))
    if (
        secret is None
        or secret.type == TYPE_SERVICE_ACCOUNT_TOKEN
        or request.requester in (_API_SERVER, store.operator)
    ):
        return None
    return secret if request.received >= secret.created else None


def _later(uses: dict[K, Use], key: K, request: Request) -> None:
    known = uses.get(key)
    if known is None or known.at < request.ended:
        uses[key] = request.use()


def _only(uses: dict[str, Use], living: int, uids: Callable[[], set[str]]) -> None:
    if len(uses) > living + _SLACK:
        known = uids()
        for uid in [uid for uid in uses if uid not in known]:
            del uses[uid]
