"""The informers that keep the store: one per kind, and per namespace where the installation is held to some."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from tenure.inventory.projection import PROJECTIONS
from tenure.inventory.store import Held, Record, Store
from tenure.kube.client import Kube, Params
from tenure.kube.errors import NotFound
from tenure.kube.informer import INACTIVITY, SERVER_TIMEOUT, Informer, Rows
from tenure.kube.resources import BY_KIND, NAMESPACES, OBSERVED_RESOURCES, OWN_RESOURCES, Resource
from tenure.model.keys import Key
from tenure.model.namespaced import Name2
from tenure.model.records import Unprocessable

RESOURCES: tuple[Resource, ...] = (*OWN_RESOURCES, *OBSERVED_RESOURCES)
"""Every kind of the inventory. Our own, which are few, come first in the queue for a place."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGE_BUFFER = 256 * 1024  # bytes


class _Kind:
    """The part of the store that one informer keeps: a kind, in one namespace or by one name where it is narrowed."""

    def __init__(self, store: Store, kind: str, namespace: str | None = None, name: str | None = None) -> None:
        self._store = store
        self._kind = kind
        self._namespace = namespace
        self._name = name

    def names(self) -> Collection[Name2]:
        held = self._store.names(self._kind, self._namespace)
        return held if self._name is None else [key for key in held if key[1] == self._name]

    def upsert(self, record: Held, *, force: bool) -> None:
        self._store.upsert(self._kind, record, force=force)

    def remove(self, namespace: str, name: str, *, resource_version: int) -> None:
        self._store.remove(self._kind, namespace, name, resource_version=resource_version)


class Informers:
    """All informers of one store.

    namespaces holds the inventory to some: namespaced kinds are listed and watched in each, Namespace objects by
    name (so a right narrowed to these names does), cluster-scoped kinds as always. Bindings in other namespaces that
    name an identity of these are then not seen. Empty = the whole cluster."""

    def __init__(
        self,
        kube: Kube,
        store: Store,
        *,
        namespaces: Sequence[str] = (),
        resources: Sequence[Resource] = RESOURCES,
        server_timeout: tuple[float, float] = SERVER_TIMEOUT,
        inactivity: float = INACTIVITY,
    ) -> None:
        self._tasks: list[asyncio.Task[None]] = []
        self._informers: list[Informer[Held]] = []
        chosen = sorted(set(namespaces))

        def add(resource: Resource, sink: _Kind, namespace: str = "", params: Params | None = None) -> None:
            informer: Informer[Held] = Informer(
                kube,
                resource,
                sink,
                PROJECTIONS[resource.kind],
                namespace=namespace,
                params=params,
                server_timeout=server_timeout,
                inactivity=inactivity,
            )
            self._informers.append(informer)

        for resource in resources:
            if not chosen or (not resource.namespaced and resource is not NAMESPACES):
                add(resource, _Kind(store, resource.kind))
            elif resource is NAMESPACES:
                for name in chosen:
                    add(
                        resource,
                        _Kind(store, resource.kind, name=name),
                        params={"fieldSelector": f"metadata.name={name}"},
                    )
            else:
                for name in chosen:
                    add(resource, _Kind(store, resource.kind, namespace=name), namespace=name)

    def start(self) -> None:
        """Starts them, as tasks of the running loop. They go on until `stop`."""
        for informer in self._informers:
            name = f"informer {informer.resource.qualified} {informer.namespace}".rstrip()
            self._tasks.append(asyncio.create_task(informer.run(), name=name))

    async def stop(self) -> None:
        """Cancels them and waits until they are gone."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    def ended(self) -> str | None:
        """What is wrong when one of them has died, None when all is well."""
        dead = [task.get_name() for task in self._tasks if task.done()]
        return f"ended: {', '.join(dead)}" if dead else None

    @property
    def synced(self) -> bool:
        """Whether every one has completed its first list."""
        return all(informer.synced.is_set() for informer in self._informers)

    async def wait_synced(self) -> None:
        """Returns when `synced`; waits without end for a kind that cannot be listed (see `failing`)."""
        for informer in self._informers:
            await informer.synced.wait()

    @property
    def unsynced(self) -> tuple[str, ...]:
        """Kinds whose first list is not complete, in the order of `RESOURCES`."""
        waiting = {informer.resource.kind: None for informer in self._informers if not informer.synced.is_set()}
        return tuple(waiting)

    @property
    def last_sync(self) -> Mapping[str, datetime | None]:
        """Per kind the oldest of its informers' last proof of freshness; None as long as one has none."""
        found: dict[str, datetime | None] = {}
        for informer in self._informers:
            kind, last = informer.resource.kind, informer.last_sync
            before = found.get(kind, last)
            found[kind] = None if before is None or last is None else min(before, last)
        return found

    @property
    def failing(self) -> Mapping[str, str]:
        """Per kind that fails what fails, one line for people; the first of its namespaces stands for all."""
        found: dict[str, str] = {}
        for informer in self._informers:
            if informer.failing:
                found.setdefault(informer.resource.kind, informer.failing)
        return found


def calm_collector() -> None:
    """Makes the cyclic garbage collector rare until the inventory is set aside; call it at the start.

    What a list leaves behind has no cycles and goes by reference counts, while each full collection walks every
    record: with Python's own thresholds it took half the CPU of a first inventory of 130,000 objects, and stopped the
    loop for 0.6 s at a time."""
    gc.set_threshold(100_000, 50, 1_000)
    _hand_back_pages()


def _hand_back_pages() -> None:
    """Has glibc give the buffer of each page back as soon as it is free. By itself it takes the first one, megabytes in
    size, as the measure of what to keep: 10 MiB for the life of the process. Other C libraries have no such call."""
    with contextlib.suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        for parameter in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD):
            libc.mallopt(parameter, _LARGE_BUFFER)


def set_inventory_aside() -> None:
    """Collects once and then leaves everything that lives now out of later collections; call it once the inventory
    is synced. A record is still freed when it is replaced: none is part of a cycle. Takes about 5 µs an object.

    What is left to walk is little, so collections may be frequent again: put off as before, they let 12 MiB of what
    requests leave behind in cycles pile up."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


async def read_live(kube: Kube, key: Key) -> Record | Unprocessable | None:
    """The object as the API server has it this instant, through the same projection as the inventory's; None when it
    is gone. A Secret is read as a Table row, without values. Raises ApiError, KeyError for a kind not in the
    inventory."""
    resource = BY_KIND[key.kind]
    try:
        if resource.sensitive:
            raw = next(iter(Rows().listed(await kube.row(resource, key.name, key.namespace))), None)
        else:
            raw = await kube.get(resource, key.name, key.namespace)
    except NotFound as error:
        if error.kind_missing:
            raise
        return None
    if raw is None:
        return None
    record: Record | Unprocessable = PROJECTIONS[key.kind](raw)
    return record
