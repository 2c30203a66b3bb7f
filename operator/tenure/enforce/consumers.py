"""Who goes on using a Secret that no new pod may consume: the Ingresses and Gateways of its namespace.

They are read live, at the act, since nothing of Tenure's depends on them otherwise. Those of other namespaces that
refer to it (a Gateway may, where a ReferenceGrant lets it) are not looked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, Final

from tenure.kube.client import Kube
from tenure.kube.errors import ApiError, NotFound
from tenure.kube.resources import GATEWAYS, INGRESSES, Resource

NAMED: Final = 4
"""Objects named one by one; the rest is counted."""
_LONGEST: Final = 150
"""Characters of a line's names: with what stands around them it stays below the bound of a stored line."""
_PATIENCE: Final = 5.0
"""Seconds for each list: an act does not wait for what it only tells."""


async def of(kube: Kube, namespace: str, secret: str) -> tuple[str, ...]:
    """A line for the Ingresses, and one for the Gateways, that name this Secret, and none where none does. What cannot
    be read is said to be unknown: the act goes on."""
    lines = []
    for resource, uses in ((INGRESSES, ingress_uses), (GATEWAYS, gateway_uses)):
        try:
            async with asyncio.timeout(_PATIENCE):
                names = await _using(kube, resource, namespace, secret, uses)
        except (ApiError, TimeoutError) as error:
            why = error.reason or f"HTTP {error.status}" if isinstance(error, ApiError) else "no answer in time"
            lines.append(f"which {resource.plural} go on using it could not be looked up ({why})")
            continue
        if names:
            lines.append(f"still used by {resource.kind} {listed(names)}")
    return tuple(lines)


async def _using(
    kube: Kube, resource: Resource, namespace: str, secret: str, uses: Callable[[Any, str], Iterator[str]]
) -> list[str]:
    """Names, sorted; none where the API is not served. Raises ApiError."""
    names = []
    try:
        async for page in kube.pages(resource, namespace):
            names += [
                raw["metadata"]["name"] for raw in page.get("items") or () if secret in uses(raw.get("spec"), namespace)
            ]
    except NotFound as error:
        if not error.kind_missing:
            raise
    return sorted(names)


def ingress_uses(spec: Any, namespace: str = "") -> Iterator[str]:
    """Secrets of its namespace that an Ingress's `spec` names."""
    for tls in _all(spec, "tls"):
        yield str(_of(tls, "secretName"))


def gateway_uses(spec: Any, namespace: str = "") -> Iterator[str]:
    """Secrets of its namespace that a Gateway's listeners name: without one, or with its own. The kind is somebody
    else's: nothing is taken for granted of its shape."""
    for listener in _all(spec, "listeners"):
        for reference in _all(_of(listener, "tls"), "certificateRefs"):
            if _of(reference, "group") or _of(reference, "kind") not in (None, "Secret"):
                continue
            if _of(reference, "namespace") in (None, namespace):
                yield str(_of(reference, "name"))


def _of(raw: Any, key: str) -> Any:
    return raw.get(key) if isinstance(raw, dict) else None


def _all(raw: Any, key: str) -> list[Any]:
    found = _of(raw, key)
    return found if isinstance(found, list) else []


def listed(names: list[str]) -> str:
    """`a, b and 3 more`: the first ones, as many as a line holds, at least one, of which a long name is cut."""
    said = [names[0] if len(names[0]) <= _LONGEST else f"{names[0][: _LONGEST - 1]}…"]
    for name in names[1:NAMED]:
        if len(", ".join((*said, name))) > _LONGEST:
            break
        said.append(name)
    more = len(names) - len(said)
    return ", ".join(said) + (f" and {more} more" if more else "")
