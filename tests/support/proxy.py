"""A reverse proxy between the operator and the API server that counts, stops and breaks what passes.

    with FaultProxy.to(cluster) as proxy:
        kubeconfig = cluster.token_kubeconfig("tenure-system", "tenure", server=proxy.url)
        proxy.fault("apply identityfindings", CONFLICT)
        proxy.stop_before(3)
        ...
        proxy.wait_stopped()

Requests are named `verb resource`, such as `apply identityfindings`, `patch secrets`, `apply quarantines/status`,
`watch secrets`, `get /version`. Where a `match` is asked for, it is such a name with wildcards, a predicate, or None
for all. Everything public may be called from any thread. The proxy lives in a thread with a loop of its own, so that a
test that blocks does not block it, and the operator contains no hook for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import ssl
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from email.utils import format_datetime, parsedate_to_datetime
from fnmatch import fnmatchcase
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

if TYPE_CHECKING:
    from tests.support.cluster import Cluster

WRITE_VERBS: Final = frozenset({"create", "update", "patch", "apply", "delete", "deletecollection"})
REVIEW_GROUPS: Final = frozenset({"authentication.k8s.io", "authorization.k8s.io"})
LARGEST_BODY: Final = 16 << 20  # bytes; the API server itself refuses more than 3 MiB
START_TIMEOUT: Final = 10.0  # seconds

# Headers that belong to one connection, or that the next writer computes itself.
_HOP_BY_HOP: Final = frozenset(
    {"connection", "content-length", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)


# What passes ---------------------------------------------------------------------------------------------------------


@dataclass
class Request:
    """One request, as the API server will understand it. `verb` is Kubernetes' one, and `apply` for a server-side
    apply; `resource` is the plural, or the path where it is no resource. Empty strings where something is absent.
    """

    verb: str
    group: str
    resource: str
    namespace: str
    name: str
    subresource: str
    path: str  # with the query

    @property
    def title(self) -> str:
        """How it is named and matched: `apply quarantines/status`."""
        return f"{self.verb} {self.resource}" + (f"/{self.subresource}" if self.subresource else "")

    @property
    def is_write(self) -> bool:
        """Whether the API server might change something. Events and reviews count; see `durable`."""
        return self.verb in WRITE_VERBS


@dataclass
class Write(Request):
    """A write: the `n`-th since the proxy started or was reset, counted from 1 in order of arrival."""

    n: int
    body: Any = field(repr=False, default=None)  # parsed JSON
    status: int | None = None  # what was answered, by the API server or by a fault; None while there is no answer
    forwarded: bool = False


Match = str | Callable[[Request], bool] | None


def durable(request: Request) -> bool:
    """Whether a write leaves something of meaning behind: no Event, review, token request, lease or dry run."""
    return (
        request.is_write
        and request.group not in REVIEW_GROUPS
        and request.resource not in ("events", "leases")
        and request.subresource != "token"
        and "dryRun=All" not in request.path
    )


def _matches(match: Match, request: Request) -> bool:
    if match is None:
        return True
    if isinstance(match, str):
        return fnmatchcase(request.title, match)
    return match(request)


def describe(method: str, url: URL, content_type: str, body: Any = None) -> Request:
    """Reads a request the way the API server does. A name that is not in the path is taken from the body."""
    parts = [part for part in url.path.split("/") if part]
    group = resource = namespace = name = subresource = ""
    rest: list[str] = []
    if len(parts) > 2 and parts[0] == "api":
        rest = parts[2:]
    elif len(parts) > 3 and parts[0] == "apis":
        group, rest = parts[1], parts[3:]
    if rest[:1] == ["namespaces"] and len(rest) > 2 and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    if rest:
        resource, name, subresource = [*rest, "", "", ""][:3]
    if method == "GET":
        if not resource:
            verb = "get"
        elif url.query.get("watch") in ("true", "1"):
            verb = "watch"
        else:
            verb = "get" if name else "list"
    elif method == "DELETE":
        verb = "delete" if name else "deletecollection"
    elif method == "PATCH":
        verb = "apply" if content_type.startswith("application/apply-patch") else "patch"
    else:
        verb = {"POST": "create", "PUT": "update"}.get(method, method.lower())
    if not name and isinstance(body, dict):
        metadata = body.get("metadata")
        name = str(metadata.get("name", "")) if isinstance(metadata, dict) else ""
    return Request(verb, group, resource or url.path, namespace, name, subresource, url.raw_path_qs)


# What happens to it --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """Answers with a Status object; nothing is forwarded. `retry_after` in whole seconds."""

    status: int
    reason: str
    retry_after: int | None = None


@dataclass(frozen=True)
class LoseAnswer:
    """Forwards, waits for the answer, and cuts the connection instead of passing it on: a write that was done."""


@dataclass(frozen=True)
class Refuse:
    """Cuts the connection; nothing is forwarded: an API server that is away."""


@dataclass(frozen=True)
class Hang:
    """Never answers and forwards nothing, until the client gives up or the rule is removed."""


@dataclass(frozen=True)
class Delay:
    """Forwards after so many seconds."""

    seconds: float


@dataclass(frozen=True)
class CutMidLine:
    """For watches, open ones too: the next event is passed on to its half, then the connection is cut."""


Action = Answer | LoseAnswer | Refuse | Hang | Delay | CutMidLine

CONFLICT: Final = Answer(409, "Conflict")
TOO_MANY_REQUESTS: Final = Answer(429, "TooManyRequests", retry_after=1)
SERVER_ERROR: Final = Answer(500, "InternalError")
GONE: Final = Answer(410, "Expired")
FORBIDDEN: Final = Answer(403, "Forbidden")


class Fault:
    """A rule that was set. `hits` counts what it caught; `remove` ends it."""

    def __init__(self, proxy: FaultProxy, match: Match, action: Action, times: int | None) -> None:
        self._proxy = proxy
        self.match = match
        self.action = action
        self.left = times
        self.hits = 0
        self.removed = asyncio.Event()  # only touched in the proxy's loop

    def remove(self) -> None:
        """Ends the rule; what hangs because of it is cut."""
        self._proxy._remove(self)

    def wait(self, hits: int = 1, timeout: float = 30.0) -> None:
        """Waits until it caught that many. Raises TimeoutError."""
        self._proxy._wait(lambda: self.hits >= hits, timeout, f"{self.match} caught {hits} times, not {self.hits}")


@dataclass
class _Stop:
    """Where the operator is to be stopped."""

    n: int
    match: Match
    when: Literal["before", "after"]
    seen: int = 0


@dataclass
class _Lag:
    match: Match
    seconds: float


# An event of a watch and when it arrived, by the loop's clock; at last whether the watch had an orderly end.
_Line = tuple[float, bytes] | bool


@dataclass(eq=False)
class _Stream:
    """One open watch. Commands come from tests: `cut`, `half` (cut in the middle of a line), or a line to send."""

    request: Request
    commands: asyncio.Queue[bytes | Literal["cut", "half"]]
    holds: bool = False  # an event that a stop keeps back


class FaultProxy:
    """The proxy. A context manager; `url` is what the operator's kubeconfig names as its server.

    With `certificate` (certificate file, key file) it serves TLS, else plain HTTP.
    """

    def __init__(
        self,
        server: str,
        *,
        ca_file: str | None = None,
        certificate: tuple[Path, Path] | None = None,
        upstream_certificate: tuple[str, str] | None = None,
    ) -> None:
        self._server = URL(server)
        self._upstream_tls = ssl.create_default_context(cafile=ca_file)
        if upstream_certificate:
            self._upstream_tls.load_cert_chain(*upstream_certificate)
        self._tls: ssl.SSLContext | None = None
        if certificate:
            self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self._tls.load_cert_chain(*certificate)
        self.url = ""
        self.skew = timedelta(0)
        """By how much the API server's clock, as its answers tell it, is off from now on."""
        self.stopped = threading.Event()
        self.stopped_at: Write | None = None
        self._changed = threading.Condition(threading.RLock())  # guards everything below
        self._writes: list[Write] = []
        self._requests: Counter[str] = Counter()
        self._faults: list[Fault] = []
        self._lags: list[_Lag] = []
        self._streams: list[_Stream] = []
        self._stop: _Stop | None = None
        self._refuse_when_stopped = False
        self._resumptions = 0
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        # Made in the loop's thread:
        self._loop: asyncio.AbstractEventLoop
        self._quit: asyncio.Event
        self._resumed: asyncio.Event
        self._lag_changed: asyncio.Event
        self._one_at_a_time: asyncio.Lock
        self._session: aiohttp.ClientSession

    @classmethod
    def to(cls, cluster: Cluster) -> FaultProxy:
        """A proxy to this cluster; over TLS with the cluster's own CA where that is ours."""
        credentials = cluster.rest.credentials
        certificate = None
        if cluster.control_plane is not None:
            certificate = cluster.control_plane.serving_certificate("proxy")
        return cls(credentials.server, ca_file=credentials.ca_file, certificate=certificate)

    # Life ----------------------------------------------------------------------------------------------------------

    def start(self) -> FaultProxy:
        """Starts to serve on a free port of 127.0.0.1."""
        self._thread = threading.Thread(target=self._run, name="fault-proxy", daemon=True)
        self._thread.start()
        if not self._ready.wait(START_TIMEOUT) or self._failure is not None:
            raise RuntimeError("the proxy did not start") from self._failure
        return self

    def close(self) -> None:
        """Cuts everything and ends the thread."""
        if self._thread is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._quit.set)
            self._thread.join(START_TIMEOUT)
        self._thread = None

    def __enter__(self) -> FaultProxy:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._failure = error
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._quit, self._resumed, self._lag_changed = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        application = web.Application(client_max_size=LARGEST_BODY)
        application.router.add_route("*", "/{path:.*}", self._handle)
        connector = aiohttp.TCPConnector(ssl=self._upstream_tls, limit=0)
        async with aiohttp.ClientSession(
            connector=connector, auto_decompress=False, timeout=aiohttp.ClientTimeout(total=None)
        ) as self._session:
            # Handlers end with their connection, so that what a killed operator left hanging is not forwarded later.
            runner = web.AppRunner(application, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self._tls)
            await site.start()
            assert site._server is not None
            port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
            self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{port}"
            self._ready.set()
            await self._quit.wait()
            with self._changed:
                for stream in self._streams:
                    stream.commands.put_nowait("cut")
            await runner.cleanup()

    # What tests see ------------------------------------------------------------------------------------------------

    def writes(self, match: Match = None) -> list[Write]:
        """The writes so far, in order of arrival."""
        with self._changed:
            return [write for write in self._writes if _matches(match, write)]

    @property
    def requests(self) -> Counter[str]:
        """How many requests arrived, by name: `proxy.requests["list secrets"]`."""
        with self._changed:
            return Counter(self._requests)

    def watches(self, match: Match = None) -> list[Request]:
        """The watches that are open now."""
        with self._changed:
            return [stream.request for stream in self._streams if _matches(match, stream.request)]

    def wait_writes(self, match: Match = None, count: int = 1, timeout: float = 30.0) -> list[Write]:
        """Waits until so many matching writes were answered, and returns them. Raises TimeoutError."""

        def answered() -> list[Write]:
            return [write for write in self.writes(match) if write.status is not None]

        self._wait(lambda: len(answered()) >= count, timeout, f"{count} writes {match or ''}")
        return answered()

    def wait_watches(self, match: Match = None, count: int = 1, timeout: float = 30.0) -> None:
        """Waits until so many matching watches are open. Raises TimeoutError."""
        self._wait(lambda: len(self.watches(match)) >= count, timeout, f"{count} watches {match or ''}")

    def wait_held(self, match: Match = None, timeout: float = 30.0) -> None:
        """Waits until a stop keeps back an event of a matching watch. Raises TimeoutError."""

        def held() -> bool:
            return any(stream.holds and _matches(match, stream.request) for stream in self._streams)

        self._wait(held, timeout, f"an event held on {match or 'a watch'}")

    def wait_requests(self, title: str, count: int = 1, timeout: float = 30.0) -> None:
        """Waits until so many requests of that name arrived. Raises TimeoutError."""
        self._wait(lambda: self._requests[title] >= count, timeout, f"{count} requests {title}")

    def wait_stopped(self, timeout: float = 30.0) -> Write:
        """Waits until the operator is stopped at a write, and returns that. Raises TimeoutError."""
        if not self.stopped.wait(timeout):
            raise TimeoutError(f"no write stopped the operator within {timeout:g} s; so far: {self._summary()}")
        assert self.stopped_at is not None
        return self.stopped_at

    def reset(self) -> None:
        """Forgets counts, rules, lags and stops, and lets everything pass again."""
        with self._changed:
            self._writes.clear()
            self._requests.clear()
            for fault in list(self._faults):
                self._remove(fault)
            self._lags.clear()
            self._changed.notify_all()
        self._in_loop(self._lag_changed.set)
        self.resume()

    def _summary(self) -> str:
        return ", ".join(write.title for write in self.writes(durable)) or "none"

    def _wait(self, condition: Callable[[], bool], timeout: float, what: str) -> None:
        with self._changed:
            if not self._changed.wait_for(condition, timeout):
                raise TimeoutError(f"{what}: not within {timeout:g} s; writes so far: {self._summary()}")

    def _in_loop(self, function: Callable[[], object]) -> None:
        if self._thread is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(function)

    # Stopping ------------------------------------------------------------------------------------------------------

    def stop_before(self, n: int, match: Match = durable, *, refuse: bool = False) -> None:
        """Stops the operator when its n-th matching write from now on arrives: that one is not forwarded.

        From then on nothing passes until `resume`: requests hang (or are cut, with `refuse`) and watches are silent.
        While a stop is set, matching writes pass one at a time, so that none overtakes the n-th.
        """
        self._arm(_Stop(n, match, "before"), refuse)

    def stop_after(self, n: int, match: Match = durable, *, refuse: bool = False) -> None:
        """Like `stop_before`, but the n-th is forwarded and its answer passed on; nothing after it is."""
        self._arm(_Stop(n, match, "after"), refuse)

    def stop_now(self, *, refuse: bool = False) -> None:
        """Lets nothing pass from now on."""
        with self._changed:
            self._refuse_when_stopped = refuse
            self.stopped.set()

    def resume(self) -> None:
        """Lets requests pass again. Those that hung meanwhile are cut, never forwarded: their sender may be dead."""
        with self._changed:
            self._resumptions += self.stopped.is_set()
            self._stop = None
            self.stopped_at = None
            self.stopped.clear()

        def wake() -> None:
            self._resumed.set()
            self._resumed = asyncio.Event()

        self._in_loop(wake)

    def _arm(self, stop: _Stop, refuse: bool) -> None:
        assert stop.n > 0, "writes are counted from 1"
        with self._changed:
            self._stop = stop
            self._refuse_when_stopped = refuse

    def _halt(self, write: Write) -> None:
        with self._changed:
            self.stopped_at = write
            self._stop = None
            self.stopped.set()
            self._changed.notify_all()

    # Faults --------------------------------------------------------------------------------------------------------

    def fault(self, match: Match, action: Action, times: int | None = 1) -> Fault:
        """Sets a rule for the next `times` matching requests (None: until removed). The oldest rule that fits acts."""
        fault = Fault(self, match, action, times)
        with self._changed:
            self._faults.append(fault)
        return fault

    def lag(self, match: Match, seconds: float) -> None:
        """Delivers events of matching watches so many seconds late; 0 ends it and delivers what was held at once."""
        with self._changed:
            self._lags = [lag for lag in self._lags if lag.match != match]
            if seconds:
                self._lags.append(_Lag(match, seconds))
        self._in_loop(self._lag_changed.set)

    def hold(self, match: Match = None) -> None:
        """Delivers no event of matching watches until `lag(match, 0)`."""
        self.lag(match, math.inf)

    def cut_watches(self, match: Match = None) -> int:
        """Cuts matching watches that are open now; how many."""
        return self._command(match, "cut")

    def cut_watches_mid_line(self, match: Match = None) -> int:
        """Sends the first half of an event on matching open watches, then cuts them; how many.

        For the half of a real event see `CutMidLine`.
        """
        return self._command(match, "half")

    def fail_watches(self, match: Match = None, status: int = 410, reason: str = "Expired") -> int:
        """Sends an ERROR event on matching open watches and ends them; how many."""
        line = json.dumps({"type": "ERROR", "object": _status(status, reason)}).encode() + b"\n"
        return self._command(match, line)

    def _command(self, match: Match, command: bytes | Literal["cut", "half"]) -> int:
        with self._changed:
            streams = [stream for stream in self._streams if _matches(match, stream.request)]
        for stream in streams:
            self._in_loop(lambda stream=stream: stream.commands.put_nowait(command))  # type: ignore[misc]
        return len(streams)

    def _remove(self, fault: Fault) -> None:
        with self._changed:
            if fault in self._faults:
                self._faults.remove(fault)
        self._in_loop(fault.removed.set)

    def _take(self, request: Request, *kinds: type[Any]) -> Fault | None:
        """The oldest rule of these kinds that fits, used up by one."""
        with self._changed:
            for fault in self._faults:
                if isinstance(fault.action, kinds) and _matches(fault.match, request):
                    fault.hits += 1
                    if fault.left is not None:
                        fault.left -= 1
                        if fault.left <= 0:
                            self._faults.remove(fault)
                    self._changed.notify_all()
                    return fault
        return None

    # The path of a request -----------------------------------------------------------------------------------------

    async def _handle(self, incoming: web.Request) -> web.StreamResponse:
        try:
            return await self._receive(incoming)
        except ConnectionError:
            return _cut(incoming)  # the client went away, which a killed operator does

    async def _receive(self, incoming: web.Request) -> web.StreamResponse:
        body = await incoming.read()
        parsed: Any = None
        if body:
            with contextlib.suppress(ValueError):
                parsed = json.loads(body)
        request = describe(incoming.method, incoming.rel_url, incoming.headers.get("Content-Type", ""), parsed)
        with self._changed:
            self._requests[request.title] += 1
            if request.is_write:
                request = Write(**vars(request), n=len(self._writes) + 1, body=parsed)
                self._writes.append(request)
            stop, resumptions = self._stop, self._resumptions
            self._changed.notify_all()
        if isinstance(request, Write) and stop is not None and _matches(stop.match, request):
            async with self._one_at_a_time:
                if resumptions != self._resumptions:
                    return _cut(incoming)  # it waited behind the write that stopped the operator
                return await self._pass_write(incoming, body, request)
        return await self._pass(incoming, body, request)

    async def _pass_write(self, incoming: web.Request, body: bytes, write: Write) -> web.StreamResponse:
        """A write that a stop counts; only one is in here at a time."""
        with self._changed:
            stop = None if self.stopped.is_set() else self._stop
            if stop is not None:
                stop.seen += 1
            reached = stop is not None and stop.seen == stop.n
        if reached and stop is not None and stop.when == "before":
            self._halt(write)
        after = write if reached and stop is not None and stop.when == "after" else None
        return await self._pass(incoming, body, write, halt_after=after)

    async def _pass(
        self, incoming: web.Request, body: bytes, request: Request, *, halt_after: Write | None = None
    ) -> web.StreamResponse:
        if self.stopped.is_set():
            if not self._refuse_when_stopped:
                await self._resumed.wait()
            return _cut(incoming)
        fault = self._take(request, Answer, LoseAnswer, Refuse, Hang, Delay)
        action = fault.action if fault is not None else None
        if fault is not None and isinstance(action, Hang):
            await fault.removed.wait()
            return _cut(incoming)
        if isinstance(action, Refuse):
            return _cut(incoming)
        if isinstance(action, Delay):
            await asyncio.sleep(action.seconds)
        if isinstance(action, Answer):
            if halt_after is not None:
                self._halt(halt_after)
            self._answered(request, action.status, forwarded=False)
            headers = {"Retry-After": str(action.retry_after)} if action.retry_after is not None else None
            return web.json_response(_status(action.status, action.reason), status=action.status, headers=headers)
        try:
            upstream = await self._session.request(
                incoming.method,
                URL(f"{str(self._server).rstrip('/')}{incoming.raw_path}", encoded=True),
                data=body or None,
                headers=_end_to_end(incoming.headers),
                allow_redirects=False,
                skip_auto_headers=("User-Agent", "Accept-Encoding", "Content-Type", "Accept"),
            )
        except aiohttp.ClientError:
            return _cut(incoming)  # the API server is away: for the client it is just that
        async with upstream:
            if request.verb == "watch" and upstream.status == 200:
                return await self._stream(incoming, upstream, request)
            try:
                content = await upstream.read()
            except aiohttp.ClientError:
                return _cut(incoming)
        if halt_after is not None:
            self._halt(halt_after)  # before the answer goes out: the client's next request may be that fast
        self._answered(request, upstream.status, forwarded=True)
        if isinstance(action, LoseAnswer):
            return _cut(incoming)
        return web.Response(body=content, status=upstream.status, headers=self._told(upstream.headers))

    def _told(self, headers: Any) -> CIMultiDict[str]:
        told = _end_to_end(headers)
        if self.skew and "Date" in told:
            told["Date"] = format_datetime(parsedate_to_datetime(told["Date"]) + self.skew, usegmt=True)
        return told

    def _answered(self, request: Request, status: int, *, forwarded: bool) -> None:
        if isinstance(request, Write):
            with self._changed:
                request.status, request.forwarded = status, forwarded
                self._changed.notify_all()

    # Watches -------------------------------------------------------------------------------------------------------

    async def _stream(
        self, incoming: web.Request, upstream: aiohttp.ClientResponse, request: Request
    ) -> web.StreamResponse:
        """Passes a watch on, event by event, as each arrives."""
        response = web.StreamResponse(status=upstream.status, headers=self._told(upstream.headers))
        await response.prepare(incoming)
        stream = _Stream(request, asyncio.Queue())
        lines: asyncio.Queue[_Line] = asyncio.Queue()
        reader = asyncio.create_task(self._read_lines(upstream, lines))
        with self._watching(stream):
            command = asyncio.create_task(stream.commands.get())
            line: asyncio.Task[_Line] = asyncio.create_task(lines.get())
            waiting: set[asyncio.Task[Any]] = {command, line}
            try:
                while True:
                    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                    if command.done():
                        return await self._obey(command.result(), incoming, response)
                    if line.done() and not await self._wait_for_lag(line.result(), stream.request, command):
                        continue  # a command came first
                    arrived = line.result()
                    if self.stopped.is_set():
                        with self._changed:
                            stream.holds = True
                            self._changed.notify_all()
                        await self._resumed.wait()
                        return _cut(incoming, response)
                    if isinstance(arrived, bool):
                        if not arrived:
                            return _cut(incoming, response)
                        await response.write_eof()
                        return response
                    if self._take(request, CutMidLine) is not None:
                        await response.write(arrived[1][: len(arrived[1]) // 2])
                        return _cut(incoming, response, gently=True)
                    await response.write(arrived[1])
                    line = asyncio.create_task(lines.get())
                    waiting = {command, line}
            finally:
                for task in (reader, command, line):
                    task.cancel()

    @contextlib.contextmanager
    def _watching(self, stream: _Stream) -> Iterator[None]:
        with self._changed:
            self._streams.append(stream)
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._streams.remove(stream)
                self._changed.notify_all()

    async def _read_lines(self, upstream: aiohttp.ClientResponse, lines: asyncio.Queue[_Line]) -> None:
        """Puts each event with its time of arrival into the queue, at last whether the end was an orderly one."""
        try:
            async for line in _split(upstream):
                lines.put_nowait((self._loop.time(), line))
        except aiohttp.ClientError:
            lines.put_nowait(False)
        else:
            lines.put_nowait(True)

    async def _wait_for_lag(self, arrived: _Line, request: Request, command: asyncio.Task[Any]) -> bool:
        """Waits until an event is due under the lag as it is then; False when a command interrupts that."""
        while not isinstance(arrived, bool):
            with self._changed:
                lag = max((lag.seconds for lag in self._lags if _matches(lag.match, request)), default=0.0)
            left = arrived[0] + lag - self._loop.time()
            if left <= 0:
                break
            self._lag_changed.clear()
            changed = asyncio.create_task(self._lag_changed.wait())
            try:
                await asyncio.wait(
                    {changed, command},
                    timeout=None if math.isinf(left) else left,
                    return_when=asyncio.FIRST_COMPLETED,
                )
            finally:
                changed.cancel()
            if command.done():
                return False
        return True

    async def _obey(
        self, command: bytes | Literal["cut", "half"], incoming: web.Request, response: web.StreamResponse
    ) -> web.StreamResponse:
        if isinstance(command, bytes):
            await response.write(command)
            await response.write_eof()
            return response
        if command == "half":
            await response.write(b'{"type":"MODIFIED","object":{"kind":')
        return _cut(incoming, response, gently=command == "half")


async def _split(upstream: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Lines of any length, each with its newline."""
    rest = b""
    async for chunk in upstream.content.iter_any():
        *complete, rest = (rest + chunk).split(b"\n")
        for line in complete:
            yield line + b"\n"
    if rest:
        yield rest


def _cut(
    incoming: web.Request, response: web.StreamResponse | None = None, *, gently: bool = False
) -> web.StreamResponse:
    """Ends the connection without an orderly end of the answer; `gently` still sends what was written before."""
    if incoming.transport is not None:
        if gently:
            incoming.transport.close()
        else:
            incoming.transport.abort()
    return response if response is not None else web.Response(status=500)


def _end_to_end(headers: Any) -> CIMultiDict[str]:
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in _HOP_BY_HOP)


def _status(code: int, reason: str) -> dict[str, Any]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": f"injected by the fault proxy: {reason}",
        "reason": reason,
        "code": code,
    }
