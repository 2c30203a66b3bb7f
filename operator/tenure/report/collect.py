"""One look at a cluster with the user's own rights: every kind listed once, page by page, into a Store.

What cannot be listed is never left out silently: each gap is named, with the right that is missing and what is unknown
for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from tenure.api.names import OPERATOR_NAMESPACE
from tenure.inventory.projection import PROJECTIONS
from tenure.inventory.store import Store
from tenure.kube.client import Kube
from tenure.kube.errors import ApiError, Forbidden, Gone, NotFound, Unauthorized, Unreachable
from tenure.kube.resources import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    GOVERNANCE_POLICIES,
    IDENTITY_DECISIONS,
    IDENTITY_EXCEPTIONS,
    IDENTITY_FINDINGS,
    IDENTITY_OWNERS,
    NAMESPACES,
    OWNED_IDENTITIES,
    PODS,
    QUARANTINES,
    ROLE_BINDINGS,
    ROLES,
    SECRETS,
    SERVICE_ACCOUNTS,
    Resource,
)

_IN_NAMESPACE: Final = (
    SECRETS,
    PODS,
    OWNED_IDENTITIES,
    IDENTITY_EXCEPTIONS,
    IDENTITY_DECISIONS,
    IDENTITY_FINDINGS,
    QUARANTINES,
)
"""Listed in the one namespace that was asked for: nothing elsewhere bears on it."""
_EVERYWHERE: Final = (SERVICE_ACCOUNTS, ROLE_BINDINGS, ROLES)
"""Listed in every namespace, since rights may come from any; in the one asked for where that is all the user may
see."""
_CLUSTER: Final = (NAMESPACES, CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, IDENTITY_OWNERS, GOVERNANCE_POLICIES)

_THE_CLUSTER: Final = "the cluster"
_ELSEWHERE: Final = "other namespaces"

_UNKNOWN: Final[Mapping[str, str]] = {
    "ServiceAccount": "identities are missing",
    "Secret": "credentials are missing",
    "Pod": "who uses an identity or a Secret is unknown",
    "Namespace": "owners that namespace labels name, and which policy applies, are unknown",
    "RoleBinding": "entitlements are missing and risks may be higher",
    "ClusterRoleBinding": "cluster-wide entitlements are missing and risks may be higher",
    "Role": "risks may be higher",
    "ClusterRole": "risks may be higher",
    "IdentityOwner": "who answers for a claim or label is unknown",
    "OwnedIdentity": "who owns what is unknown",
    "IdentityException": "waivers are missing",
    "IdentityDecision": "approvals and verdicts are missing",
    "IdentityFinding": "deadlines and decisions are missing; what holds now is shown without them",
    "Quarantine": "what is quarantined is unknown",
    "GovernancePolicy": "the documented defaults are assumed",
}
_UNKNOWN_ELSEWHERE: Final[Mapping[str, str]] = {
    "ServiceAccount": "risks may be higher: who may run pods beside a Critical identity may become it",
    "RoleBinding": "entitlements there are missing and risks may be higher",
    "Role": "risks may be higher",
}
_ATTEMPTS: Final = 3
"""How often a list is begun anew whose snapshot the API server no longer keeps."""


@dataclass(frozen=True, slots=True, order=True)
class Gap:
    """Something that could not be seen. `kind` is what is missing, `where` a namespace, "the cluster" or, where only
    the rest of the cluster is missing, "other namespaces"; `why` names the right or the error; `unknown` what that
    leaves open."""

    kind: str
    where: str
    why: str
    unknown: str


@dataclass(frozen=True, slots=True)
class Collected:
    """One look. `now` is the API server's time."""

    store: Store
    now: datetime
    gaps: tuple[Gap, ...] = ()
    not_installed: tuple[str, ...] = ()
    """Kinds of Tenure's own that the cluster does not serve: nothing of the kind exists."""

    def unseen(self, *kinds: str) -> bool:
        """Whether anything of one of these kinds could not be seen."""
        return any(gap.kind in kinds for gap in self.gaps)


async def collect(kube: Kube, namespace: str | None, home: str = OPERATOR_NAMESPACE) -> Collected:
    """Lists what the evaluation of one namespace, or of all (None), rests on. Raises Unauthorized and Unreachable, and
    NotFound when the namespace does not exist; every other refusal becomes a Gap."""
    look = _Look(kube, namespace, _UNKNOWN, home)
    return await _all(look, (look.see(resource) for resource in (*_IN_NAMESPACE, *_EVERYWHERE, *_CLUSTER)))


async def listed(kube: Kube, namespace: str | None, unknown: Mapping[Resource, str]) -> Collected:
    """Lists these kinds in one namespace, or in all (None). The value of each is what a gap leaves open. Raises
    Unauthorized and Unreachable."""
    look = _Look(kube, namespace, {resource.kind: open_ for resource, open_ in unknown.items()})
    return await _all(
        look, (look.take_all(resource, namespace or "", namespace or _THE_CLUSTER) for resource in unknown)
    )


async def _all(look: _Look, lists: Iterable[Coroutine[Any, Any, object]]) -> Collected:
    try:
        async with asyncio.TaskGroup() as group:
            for one in lists:
                group.create_task(one)
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None  # the same failure, as many times as there were lists under way
    for broken in look.store.unprocessable.values():
        why = f"{broken.kind} {broken.namespace}/{broken.name} cannot be read: {broken.error}".replace(" /", " ")
        look.gaps.append(Gap(broken.kind, broken.namespace or _THE_CLUSTER, why, look.unknown[broken.kind]))
    return Collected(
        look.store, look.kube.clock.now(), tuple(sorted(look.gaps)), tuple(sorted(set(look.not_installed)))
    )


class _Look:
    def __init__(
        self, kube: Kube, namespace: str | None, unknown: Mapping[str, str], home: str = OPERATOR_NAMESPACE
    ) -> None:
        self.kube = kube
        self.unknown = unknown
        self._namespace = namespace
        self.store = Store(home)
        self.gaps: list[Gap] = []
        self.not_installed: list[str] = []

    async def see(self, resource: Resource) -> None:
        """Lists one kind as far as the user may."""
        only = self._namespace or ""
        if resource in _IN_NAMESPACE:
            await self.take_all(resource, only, only or _THE_CLUSTER)
        elif resource is NAMESPACES and only:
            await self._one_namespace(only)
        elif resource in _EVERYWHERE and only:
            if not await self.take_all(resource, "", _ELSEWHERE):
                await self.take_all(resource, only, only)
        else:
            await self.take_all(resource, "", _THE_CLUSTER)

    async def _one_namespace(self, name: str) -> None:
        try:
            self._take(NAMESPACES, await self.kube.get(NAMESPACES, name))
        except (Unauthorized, Unreachable, NotFound):
            raise
        except ApiError as error:
            self._gap(NAMESPACES, name, error, "get")

    async def take_all(self, resource: Resource, namespace: str, where: str) -> bool:
        """Whether it was seen (or is no kind of this cluster)."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                async for page in self.kube.pages(resource, namespace):
                    for raw in objects(page):
                        self._take(resource, raw)
                return True
            except (Unauthorized, Unreachable):
                raise
            except Gone as error:
                if attempt == _ATTEMPTS:
                    self._gap(resource, where, error, "list")
            except ApiError as error:
                if isinstance(error, NotFound) and error.kind_missing:
                    self.not_installed.append(resource.kind)
                    return True
                self._gap(resource, where, error, "list")
                return False
        return False

    def _take(self, resource: Resource, raw: dict[str, Any]) -> None:
        self.store.upsert(resource.kind, PROJECTIONS[resource.kind](raw))

    def _gap(self, resource: Resource, where: str, error: ApiError, verb: str) -> None:
        scope = f" in {where}" if where not in (_THE_CLUSTER, _ELSEWHERE) else " in all namespaces"
        right = f"you may not {verb} {resource.qualified}{scope if resource.namespaced else ''}"
        unknown = (_UNKNOWN_ELSEWHERE if where == _ELSEWHERE else self.unknown)[resource.kind]
        why = right if isinstance(error, Forbidden) else error.message
        self.gaps.append(Gap(resource.kind, where, why, unknown))


def objects(page: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The objects of a List, or of a Table of Secrets: a row's metadata, with the type that only its cells tell."""
    if page.get("kind") != "Table":
        yield from page.get("items") or ()
        return
    columns = [column.get("name") for column in page.get("columnDefinitions") or ()]
    type_ = columns.index("Type")
    for row in page.get("rows") or ():
        yield {**row["object"], "type": row["cells"][type_]}
