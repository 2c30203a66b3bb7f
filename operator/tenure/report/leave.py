"""`tenure leave`: what must be done before Tenure is taken out of a cluster, in the order in which it harms nothing.

The operator ends first, or it would put back what is taken off; then the bindings of the admission policies, the
policies, and the finalizers of Quarantines. Nothing is released: what is out of use stays so, and is named."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, Final

from tenure.api.names import FINALIZER
from tenure.kube.client import Kube
from tenure.kube.errors import ApiError, Forbidden, NotFound
from tenure.kube.resources import (
    MUTATING_ADMISSION_POLICIES,
    MUTATING_ADMISSION_POLICY_BINDINGS,
    PODS,
    QUARANTINES,
    VALIDATING_ADMISSION_POLICIES,
    VALIDATING_ADMISSION_POLICY_BINDINGS,
    Resource,
)
from tenure.report.connection import Failure, connect, explained
from tenure.report.render import clean
from tenure.settings import Settings

DEPLOYMENT: Final = "tenure"
DEPLOYMENTS: Final = Resource("apps", "v1", "deployments", "Deployment", True)
_PODS_OF_THE_OPERATOR: Final = {"labelSelector": "app.kubernetes.io/name=tenure,app.kubernetes.io/component=operator"}
_INTERVAL: Final = 0.5  # seconds between two looks

Json = dict[str, Any]


def leave(settings: Settings, policies: Iterable[str], timeout: float) -> None:
    """Prints each step. policies are the names of those to take off, with their bindings; timeout, in seconds, is for
    each wait. Raises Failure."""

    async def all_of_it() -> None:
        kube = await connect(settings)
        try:
            with explained(kube.server):
                await _leave(kube, settings.operator_namespace, tuple(policies), timeout)
        finally:
            await kube.close()

    asyncio.run(all_of_it())


async def _leave(kube: Kube, home: str, policies: tuple[str, ...], patience: float) -> None:
    await _end_the_operator(kube, home, patience)
    for resource in (
        VALIDATING_ADMISSION_POLICY_BINDINGS,
        MUTATING_ADMISSION_POLICY_BINDINGS,
        VALIDATING_ADMISSION_POLICIES,
        MUTATING_ADMISSION_POLICIES,
    ):
        gone = [name for name in policies if await _delete(kube, resource, name)]
        print(f"{resource.plural}: {len(gone)} taken off", flush=True)
    await _until(
        lambda: _no_finalizer(kube),
        patience,
        "Quarantines still have their finalizer: somebody writes it back, or refuses that it goes",
    )
    stays = [line for quarantine in await _quarantines(kube) for line in _stays(quarantine)]
    print("Nothing was released." + (" What stays:" if stays else " Nothing was out of use."), flush=True)
    for line in stays:
        print(clean(line), flush=True)


async def _end_the_operator(kube: Kube, home: str, patience: float) -> None:
    try:
        await kube.merge_patch(DEPLOYMENTS, DEPLOYMENT, home, {"spec": {"replicas": 0}})
    except NotFound:
        print(f"There is no Deployment {home}/{DEPLOYMENT}.", flush=True)

    async def gone() -> bool:
        pages = kube.pages(PODS, home, params=_PODS_OF_THE_OPERATOR)
        return not [item async for page in pages for item in page.get("items") or ()]

    await _until(
        gone, patience, f"the operator's Pod in {home} does not end: nothing else was touched; see what holds it"
    )
    print("The operator has ended.", flush=True)


async def _delete(kube: Kube, resource: Resource, name: str) -> bool:
    """Whether it was there."""
    try:
        await kube.delete(resource, name, "")
    except NotFound:  # the object, or, before Kubernetes 1.36, the resource
        return False
    return True


async def _quarantines(kube: Kube) -> list[Json]:
    try:
        return [item async for page in kube.pages(QUARANTINES) for item in page.get("items") or ()]
    except NotFound:
        return []  # without the kind there are none


async def _no_finalizer(kube: Kube) -> bool:
    """Takes it off all that have it; whether none is left."""
    held = [one for one in await _quarantines(kube) if FINALIZER in one["metadata"].get("finalizers", ())]
    for quarantine in held:
        metadata = quarantine["metadata"]
        rest = [name for name in metadata["finalizers"] if name != FINALIZER]
        try:
            await kube.merge_patch(
                QUARANTINES,
                metadata["name"],
                metadata["namespace"],
                {"metadata": {"finalizers": rest or None}},
                uid=metadata["uid"],
                resource_version=metadata["resourceVersion"],
            )
        except NotFound:
            continue
        except Forbidden as error:
            # A policy is in force for about a second after its binding is gone.
            if "tenure-own-quarantines" not in error.message:
                raise
            return False
    return not held


def _stays(quarantine: Json) -> Iterator[str]:
    """What this one keeps out of use, a line each."""
    metadata, status = quarantine["metadata"], quarantine.get("status", {})
    where = f"(Quarantine {metadata['namespace']}/{metadata['name']})"
    for token in status.get("disabledTokens", ()):
        name = f"{metadata['namespace']}/{token['name']}"
        yield f"- token Secret {name} stays switched off {where}; on again: see docs/enforcement.md, Stop it"
    for binding in status.get("preImages", ()):
        place = f"{binding['namespace']}/{binding['name']}" if binding.get("namespace") else binding["name"]
        for entry in binding.get("removed", ()):
            subject = entry.get("subject", {})
            yield f"- {subject.get('kind')} {subject.get('name')} stays out of {binding['kind']} {place} {where}"


async def _until(condition: Callable[[], Awaitable[bool]], patience: float, otherwise: str) -> None:
    """Raises Failure with `otherwise` when it did not come true within so many seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    while not await _holds(condition):
        if loop.time() > deadline:
            raise Failure(f"{otherwise} (after {patience:g} s).")
        await asyncio.sleep(_INTERVAL)


async def _holds(condition: Callable[[], Awaitable[bool]]) -> bool:
    try:
        return await condition()
    except ApiError as error:
        if error.status == 409:  # somebody wrote in between: look again
            return False
        raise
