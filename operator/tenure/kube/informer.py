"""List and watch one resource into a sink, for as long as the process lives.

A list in pages, then a watch from its resourceVersion. Whatever goes wrong is told apart by what it puts in doubt.
The connection (refused, cut between two lines, silent): the watch goes on from the last resourceVersion. The stream
(an ERROR event, 410 among them, a cut or unreadable line): the list is taken anew and *compared with what the sink
holds*, so that what was deleted in the gap is found. Until that list is complete the sink keeps what it has.

The loop ends by cancellation alone; every failure is tried again after a growing pause, without end.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import aclosing
from datetime import datetime
from typing import Any, Final, Generic, NoReturn, Protocol, TypeVar

from tenure.kube.client import JSON, TABLE, Json, Params
from tenure.kube.clock import ServerClock
from tenure.kube.errors import ApiError, BrokenStream, Forbidden, Gone, NotFound, UnexpectedKind, Unreachable
from tenure.kube.page import Elements
from tenure.kube.resources import GROUP, Resource

logger = logging.getLogger(__name__)

SERVER_TIMEOUT: Final = (300.0, 600.0)
"""Seconds after which the server ends a watch: drawn anew each time, so that they do not all end together."""
INACTIVITY: Final = 90.0
"""Seconds without a line after which a watch counts as dead. The API server sends a bookmark each minute."""
FIRST_PAUSE: Final = 0.25
LONGEST_PAUSE: Final = 10.0
"""Seconds. Sixteen kinds make at most three tries a second, and an API server that is back is found soon."""
_PAGE: Final = 500
_HEALTHY_AFTER: Final = 5.0  # seconds a watch must have been open, where no event says so earlier
_BREATH: Final = 100  # events after which others on the loop get their turn
_NAMED_UNREADABLE: Final = 1_000
_DOUBTFUL: Final = (Gone, BrokenStream, UnexpectedKind)  # after these only a list tells what there is

Name2 = tuple[str, str]
Raw = Mapping[str, Any]
R = TypeVar("R")
R_in = TypeVar("R_in", contravariant=True)


class Sink(Protocol[R_in]):
    """Where an informer's records go. It alone decides what is a change; equal records change nothing."""

    def names(self) -> Collection[Name2]:
        """(namespace, name) of what it holds of this informer's objects."""

    def upsert(self, record: R_in, *, force: bool) -> None:
        """A record as listed or watched; force when it may be older than what is held (history went back)."""

    def remove(self, namespace: str, name: str, *, resource_version: int) -> None:
        """An object that is gone since resource_version, or at it was not in the list; 0 when history went back."""


class Source(Protocol):
    """The part of `Kube` that an informer uses."""

    clock: ServerClock

    def pages(
        self,
        resource: Resource,
        namespace: str = ...,
        *,
        limit: int = ...,
        accept: str | None = ...,
        params: Params | None = ...,
        gradual: bool = ...,
    ) -> AsyncIterator[Json]: ...

    def watch(
        self,
        resource: Resource,
        namespace: str,
        resource_version: str,
        *,
        accept: str | None = ...,
        params: Params | None = ...,
        server_timeout: float = ...,
        inactivity: float = ...,
        opened: Callable[[], None] | None = ...,
    ) -> AsyncIterator[Json]: ...


class Objects:
    """Plain objects: a List's items, an event's object."""

    accept = JSON

    def listed(self, page: Raw) -> Iterable[Raw]:
        """The raw objects of one page. Raises BrokenStream for what is none."""
        items = page.get("items")
        return items if isinstance(items, list | Elements) else ()  # a list without objects has `null`

    def of_event(self, obj: Raw) -> Raw:
        """The raw object of one event."""
        return obj


class Rows:
    """Secrets as Table rows: PartialObjectMetadata and the column `Type`, given on as `{"metadata", "type"}`.

    Only the first event of a watch has the column definitions, so their order is remembered from the list."""

    accept = TABLE

    def __init__(self) -> None:
        self._type_column = -1

    def listed(self, page: Raw) -> Iterable[Raw]:
        self._look_at_columns(page)
        return (self._row(row) for row in page.get("rows") or ())

    def of_event(self, obj: Raw) -> Raw:
        self._look_at_columns(obj)
        rows = obj.get("rows")
        if not isinstance(rows, list) or len(rows) != 1:
            raise BrokenStream(0, "BrokenStream", "an event's Table has no row, or several")
        return self._row(rows[0])

    def _look_at_columns(self, table: Raw) -> None:
        names = [column.get("name") for column in table.get("columnDefinitions") or ()]
        if names:
            if "Type" not in names:
                raise UnexpectedKind(200, "UnexpectedKind", "the Table of Secrets has no column Type")
            self._type_column = names.index("Type")

    def _row(self, row: Raw) -> Raw:
        obj, cells = row.get("object"), row.get("cells")
        if not isinstance(obj, dict) or obj.get("kind") != "PartialObjectMetadata" or self._type_column < 0:
            raise UnexpectedKind(200, "UnexpectedKind", "a row of the Table carries no PartialObjectMetadata")
        if not isinstance(cells, list) or len(cells) <= self._type_column:
            raise BrokenStream(0, "BrokenStream", "a row of the Table has too few cells")
        return {"metadata": obj.get("metadata") or {}, "type": cells[self._type_column]}


class Form(Protocol):
    """How objects come over the wire: `Objects` or `Rows`."""

    accept: str

    def listed(self, page: Raw) -> Iterable[Raw]: ...

    def of_event(self, obj: Raw) -> Raw: ...


def pauses(first: float = FIRST_PAUSE, longest: float = LONGEST_PAUSE) -> Iterator[float]:
    """Seconds to wait before each further try: doubled up to `longest`, each shortened by up to half at random so
    that a thousand clients do not come back at once. Endless."""
    pause = first
    while True:
        yield pause * random.uniform(0.5, 1.0)
        pause = min(longest, pause * 2)


class Informer(Generic[R]):
    """Keeps a sink equal to one resource (of one namespace, or of all when namespace is "").

    project makes a record of a raw object, or None for one that is not wanted. An object that it cannot read is
    logged once and skipped: what the sink holds of it stays, and the others go on. params narrows list and watch
    (a field selector); the sink's `names` must be narrowed alike."""

    def __init__(
        self,
        kube: Source,
        resource: Resource,
        sink: Sink[R],
        project: Callable[[Raw], R | None],
        *,
        namespace: str = "",
        form: Form | None = None,
        params: Params | None = None,
        page: int = _PAGE,
        server_timeout: tuple[float, float] = SERVER_TIMEOUT,
        inactivity: float = INACTIVITY,
        first_pause: float = FIRST_PAUSE,
        longest_pause: float = LONGEST_PAUSE,
    ) -> None:
        self.resource = resource
        self.namespace = namespace
        self.synced = asyncio.Event()
        """Set when the first list is complete in the sink; stays set."""
        self.last_sync: datetime | None = None
        """API-server time of the last proof that the sink is fresh: a complete list, an event or a bookmark."""
        self.failing = ""
        """What fails now, one line for people; "" when nothing does. Logged once, when it fails so twice in a row."""
        self.relists = 0
        """How many lists were completed."""
        self._kube = kube
        self._sink = sink
        self._project = project
        self._form: Form = form or (Rows() if resource.sensitive else Objects())
        self._params = params
        self._page = page
        self._server_timeout = server_timeout
        self._inactivity = inactivity
        self._pause_range = (first_pause, longest_pause)
        self._pauses = pauses(*self._pause_range)
        self._version = ""  # where the watch goes on; "" = a list is needed
        self._highest = 0  # the highest resourceVersion the server told us
        self._fails_open = False  # whether the last failure was of a watch that the server had accepted
        self._silences = 0  # watches in a row that died of silence
        self._lists_in_vain = False  # whether no watch worked since a 410 made us list
        self._said = ""  # the failure that stands in the log
        self._unreadable: set[tuple[str, str, str]] = set()  # (namespace, name, uid) already logged

    async def run(self) -> NoReturn:
        """Lists and watches until cancelled."""
        while True:
            doing = "list"
            try:
                if not self._version:
                    await self._list()
                    self._recovered(doing)
                doing = "watch"
                await self._watch()
            except Exception as error:
                await asyncio.sleep(self._judge(doing, error))

    def _judge(self, doing: str, error: Exception) -> float:
        """Notes what a failure puts in doubt; how many seconds to wait before going on."""
        if isinstance(error, Unreachable) and isinstance(error.__cause__, TimeoutError) and doing == "watch":
            # A silent stream is a dead connection, unless the server waits for a resourceVersion that it will never
            # reach since its etcd was restored from a backup: then a list is the way out.
            self._silences += 1
            if self._silences > 1:
                self._version = ""
        elif not isinstance(error, ApiError) or error.in_stream or isinstance(error, _DOUBTFUL):
            self._version = ""
        if isinstance(error, Gone) and doing == "watch" and not self._lists_in_vain:
            # However long the pauses have grown: the server is there, and a list is what it asks for.
            self._lists_in_vain = True
            logger.info("%s: the server no longer keeps what came since; listing again", self._where())
            return 0.0
        if not isinstance(error, ApiError):
            logger.exception("%s %s: a fault of our own", doing, self._where())
        self._failed(describe(doing, self.resource, self.namespace, error))
        return next(self._pauses)

    # --- list --------------------------------------------------------------------------------------------------

    async def _list(self) -> None:
        # At the first list nothing can be missing in it, and sixty thousand names need not be remembered.
        anything_held = bool(self._sink.names())
        seen: set[Name2] = set()
        version, back = "", False
        pages = self._kube.pages(
            self.resource,
            self.namespace,
            limit=self._page,
            accept=self._form.accept,
            params=self._params,
            gradual=True,
        )
        async with aclosing(pages) as walk:  # type: ignore[type-var]  # an async generator, as Kube's is
            async for page in walk:
                if not version:
                    version = _version(page)
                    # A list shows the newest state. One that is older than what we saw means that the server's
                    # history was set back, and that its numbers no longer say what is newer.
                    back = int(version) < self._highest
                for raw in self._form.listed(page):
                    key = self._take(raw, force=back)
                    if anything_held:
                        seen.add(key)
                await asyncio.sleep(0)
        for namespace, name in set(self._sink.names()) - seen if anything_held else ():
            self._sink.remove(namespace, name, resource_version=0 if back else int(version))
        self._version, self._highest = version, int(version)
        self.relists += 1
        self._fresh()
        self.synced.set()

    def _take(self, raw: Raw, *, force: bool = False) -> Name2:
        """One object into the sink. Raises BrokenStream when it is none."""
        key = _key(raw)
        try:
            record = self._project(raw)
        except Exception as error:
            uid = (*key, str(raw["metadata"].get("uid", "")))
            if uid not in self._unreadable and len(self._unreadable) < _NAMED_UNREADABLE:
                self._unreadable.add(uid)
                # The error's text may quote the object: its type alone is said.
                logger.error(
                    "%s %s/%s cannot be read and is skipped: %s", self.resource.kind, *key, type(error).__name__
                )
            return key
        if record is None:
            self._sink.remove(*key, resource_version=0)
        else:
            self._sink.upsert(record, force=force)
        return key

    # --- watch -------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """One watch, until the server ends it in good order."""
        loop = asyncio.get_running_loop()
        healthy: asyncio.TimerHandle | None = None
        accepted = False

        def opened() -> None:
            nonlocal healthy, accepted
            accepted = True
            if not self._fails_open:
                self._recovered("open")
            healthy = loop.call_later(_HEALTHY_AFTER, self._recovered, "watch")

        events = self._kube.watch(
            self.resource,
            self.namespace,
            self._version,
            accept=self._form.accept,
            params=self._params,
            server_timeout=random.uniform(*self._server_timeout),
            inactivity=self._inactivity,
            opened=opened,
        )
        started = loop.time()
        count = 0
        try:
            async with aclosing(events) as stream:  # type: ignore[type-var]
                async for event in stream:
                    self._event(event)
                    del event  # a deleted object's is not trimmed, and would be kept until the next one
                    count += 1
                    if count % _BREATH == 0:
                        # Lines that came in one piece are handed out without a pause: a burst would hold the loop.
                        await asyncio.sleep(0)
        except Exception:
            self._fails_open = accepted
            raise
        finally:
            if healthy:
                healthy.cancel()
        if count == 0 and loop.time() - started < _HEALTHY_AFTER:
            # A server that accepts and ends at once, as one that is shutting down does, is no reason to spin.
            await asyncio.sleep(next(self._pauses))

    def _event(self, event: Json) -> None:
        kind, obj = event.get("type"), event["object"]
        version = _version(obj)
        if kind == "BOOKMARK":
            pass
        elif kind in ("ADDED", "MODIFIED"):
            self._take(self._form.of_event(obj))
        elif kind == "DELETED":
            namespace, name = _key(self._form.of_event(obj))
            self._sink.remove(namespace, name, resource_version=int(version))
        else:
            raise BrokenStream(0, "BrokenStream", f"an event of type {kind!r}")
        self._version = version
        self._highest = max(self._highest, int(version))
        self._silences = 0
        self._fresh()
        self._recovered("watch")

    # --- how it goes -------------------------------------------------------------------------------------------

    def _where(self) -> str:
        return f"{self.resource.qualified} in {self.namespace}" if self.namespace else self.resource.qualified

    def _fresh(self) -> None:
        self.last_sync = self._kube.clock.now()

    def _failed(self, text: str) -> None:
        """Says a failure when it comes a second time: connections are cut, and a server that starts refuses for a
        moment what it grants later."""
        if text == self.failing != self._said:
            self._said = text
            logger.warning("%s", text)
        self.failing = text

    def _recovered(self, doing: str) -> None:
        """A list that worked says nothing about a watch that failed, nor does an accepted watch about one that broke
        while it was open; a watch that works ends every failure."""
        if doing == "watch":
            self._lists_in_vain = False
            self._pauses = pauses(*self._pause_range)
        if self.failing and (doing != "list" or self.failing.startswith("list ")):
            if self._said:
                logger.info("%s: works again", self._said.partition(":")[0])
            self.failing = self._said = ""


def _version(obj: Raw) -> str:
    """The resourceVersion of a list, an event's object or a bookmark. Raises BrokenStream."""
    metadata = obj.get("metadata")
    version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
    if not isinstance(version, str) or not version.isdecimal():
        raise BrokenStream(0, "BrokenStream", "an object or list without a resourceVersion")
    return version


def _key(raw: Raw) -> Name2:
    metadata = raw.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(name, str) or not name:
        raise BrokenStream(0, "BrokenStream", "an object without a name")
    return (raw["metadata"].get("namespace", ""), name)


def describe(doing: str, resource: Resource, namespace: str, error: Exception) -> str:
    """What fails, for people: the missing right by its name, the missing CRD by its name. Equal causes give equal
    texts, so that a repeated failure is logged once."""
    thing = resource.qualified
    what = f"{doing} {thing} in {namespace}" if namespace else f"{doing} {thing}"
    if isinstance(error, Forbidden):
        return f"{what}: forbidden: the right {doing} on {thing} is missing"
    if isinstance(error, NotFound):
        if resource.group == GROUP:
            return f"{what}: the CRD {thing} is not installed"
        return f"{what}: the API server does not serve {thing}"
    if isinstance(error, Gone):
        return f"{what}: the server no longer keeps what came since"  # without its numbers, which differ each time
    if isinstance(error, ApiError):
        text = str(error)
        return text if text.startswith(doing) else f"{what}: {text}"
    return f"{what}: {type(error).__name__}"
