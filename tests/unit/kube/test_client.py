"""The client against a scripted HTTP server: what a real API server cannot be made to show at will."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st
from kubernetes.aio.client import Configuration

from tenure.kube import client, errors
from tenure.kube import resources as r
from tenure.kube.client import Kube, Lines, token_expiry
from tenure.kube.clock import ServerClock

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
CANARY = "c2VjcmV0LWNhbmFyeQ"


class Certificate:
    """Credentials of a client certificate: no header."""

    async def header(self) -> str | None:
        return None

    async def renew(self, refused: str | None) -> bool:
        return False


class Server:
    """Answers by the handlers given, in turn; the last one for all that follow."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str], Any]] = []
        self.handlers: list[Handler] = []
        self.server: TestServer

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = dict(request.headers)
        self.requests.append((request.method, request.path_qs, headers, json.loads(body) if body else None))
        handler = self.handlers.pop(0) if len(self.handlers) > 1 else self.handlers[0]
        return await handler(request)

    @property
    def url(self) -> str:
        return str(self.server.make_url("/")).rstrip("/")


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    scripted = Server()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", scripted.handle)
    scripted.server = TestServer(application)
    await scripted.server.start_server()
    yield scripted
    await scripted.server.close()


@pytest.fixture
async def kube(server: Server) -> AsyncIterator[Kube]:
    connected = Kube(Configuration(host=server.url), Certificate(), ServerClock(), 4)
    yield connected
    await connected.close()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses between tries take no time; what was asked for is noted."""
    waits: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        waits.append(seconds)
        await sleep(0)

    monkeypatch.setattr(client.asyncio, "sleep", note)
    return waits


def answer(body: Any, status: int = 200, **headers: str) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        text = body if isinstance(body, str) else json.dumps(body)
        return web.Response(text=text, status=status, headers=headers, content_type="application/json")

    return handler


def failure(code: int, reason: str, **headers: str) -> Handler:
    return answer({"kind": "Status", "code": code, "reason": reason, "message": reason}, code, **headers)


def stream(*pieces: bytes, end: bool = True) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
        if end:
            await response.write_eof()
        else:
            assert request.transport is not None
            request.transport.abort()
        return response

    return handler


async def drop(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


# --- lines ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=30).filter(lambda line: b"\n" not in line)), st.data())
def test_lines_are_the_same_wherever_the_stream_is_split(lines: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(line + b"\n" for line in lines)
    splitter, found, rest = Lines(), [], whole
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        found += splitter.feed(rest[:size])
        rest = rest[size:]
    assert found == [line for line in lines if line.strip()]
    assert not splitter.pending


def test_a_long_line_in_many_pieces() -> None:
    splitter = Lines()
    piece = b"x" * 1_000
    for _ in range(3_000):
        assert splitter.feed(piece) == []
    assert splitter.pending
    assert splitter.head(10) == b"x" * 10
    assert [len(line) for line in splitter.feed(b"\nrest")] == [3_000_000]
    assert splitter.head(10) == b"rest"


# --- requests -------------------------------------------------------------------------------------------------------


async def test_429_is_waited_out_as_asked_and_repeated(kube: Kube, server: Server, no_waiting: list[float]) -> None:
    busy = failure(429, "TooManyRequests", **{"Retry-After": "2"})
    server.handlers = [busy, busy, answer({"kind": "ConfigMap"})]
    assert await kube.get(r.CONFIG_MAPS, "a", "b") == {"kind": "ConfigMap"}
    assert len(server.requests) == 3
    assert all(2.0 <= wait <= 2.5 for wait in no_waiting)


async def test_429_without_end_is_given_back(kube: Kube, server: Server) -> None:
    server.handlers = [failure(429, "TooManyRequests", **{"Retry-After": "1"})]
    with pytest.raises(errors.TooManyRequests) as caught:
        await kube.delete(r.SECRETS, "a", "b")
    assert len(server.requests) == 5
    assert caught.value.retry_after == 1.0


async def test_an_absurd_retry_after_is_bounded(kube: Kube, server: Server, no_waiting: list[float]) -> None:
    server.handlers = [failure(429, "TooManyRequests", **{"Retry-After": "86400"}), answer({})]
    await kube.get(r.CONFIG_MAPS, "a", "b")
    assert max(no_waiting) < 60


async def test_a_create_is_never_repeated_but_a_review_is(kube: Kube, server: Server) -> None:
    server.handlers = [failure(429, "TooManyRequests"), answer({"status": {"allowed": True}})]
    with pytest.raises(errors.TooManyRequests):
        await kube.create(r.CONFIG_MAPS, {"metadata": {"name": "a", "namespace": "b"}})
    assert len(server.requests) == 1
    server.handlers = [failure(429, "TooManyRequests"), answer({"status": {"allowed": True}})]
    assert await kube.can("list", r.SECRETS)
    assert len(server.requests) == 3


@pytest.mark.parametrize("code", [500, 503, 504])
async def test_other_failures_are_not_repeated(kube: Kube, server: Server, code: int) -> None:
    server.handlers = [failure(code, "InternalError")]
    with pytest.raises(errors.Unavailable):
        await kube.get(r.CONFIG_MAPS, "a", "b")
    assert len(server.requests) == 1


async def test_a_write_whose_answer_is_lost_goes_out_once(kube: Kube, server: Server) -> None:
    # The first request leaves a kept-alive connection, on which aiohttp by itself would repeat a DELETE.
    server.handlers = [answer({}), drop]
    await kube.get(r.CONFIG_MAPS, "a", "b")
    for write in (
        kube.delete(r.SECRETS, "a", "b", uid="u"),
        kube.merge_patch(r.SECRETS, "a", "b", {}),
        kube.create(r.CONFIG_MAPS, {"metadata": {"name": "a", "namespace": "b"}}),
    ):
        before = len(server.requests)
        with pytest.raises(errors.Unreachable):
            await write
        assert len(server.requests) == before + 1


async def test_no_answer_says_so_without_the_bowels_of_the_library(kube: Kube, server: Server) -> None:
    await server.server.close()
    with pytest.raises(errors.Unreachable) as caught:
        await kube.get(r.CONFIG_MAPS, "a", "b")
    assert str(caught.value) == f"get configmaps b/a: no answer from {kube.server}: connection refused"


async def test_an_answer_that_takes_too_long(kube: Kube, server: Server) -> None:
    release = asyncio.Event()

    async def hang(request: web.Request) -> web.StreamResponse:
        await release.wait()
        return web.Response()

    server.handlers = [hang]
    with pytest.raises(errors.Unreachable, match="no answer in time"):
        await kube.request("GET", "/version", timeout=0.05)
    release.set()


async def test_the_bound_on_requests_in_flight(kube: Kube, server: Server) -> None:
    flying, most = 0, 0
    arrived, release = asyncio.Semaphore(0), asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        nonlocal flying, most
        flying += 1
        most = max(most, flying)
        arrived.release()
        await release.wait()
        flying -= 1
        return web.json_response({})

    server.handlers = [slow]
    tasks = [asyncio.create_task(kube.get(r.CONFIG_MAPS, str(n), "b")) for n in range(12)]
    for _ in range(4):
        await arrived.acquire()
    release.set()
    await asyncio.gather(*tasks)
    assert most == 4


async def test_an_error_page_of_a_proxy_is_not_kept(kube: Kube, server: Server) -> None:
    server.handlers = [answer("<html>secret inner life</html>", 502)]
    with pytest.raises(errors.Unavailable) as caught:
        await kube.get(r.CONFIG_MAPS, "a", "b")
    assert "inner" not in str(caught.value)


async def test_the_clock_hears_every_answer(kube: Kube, server: Server) -> None:
    server.handlers = [failure(404, "NotFound", Date="Mon, 23 Nov 2026 15:21:45 GMT")]
    with pytest.raises(errors.NotFound):
        await kube.get(r.CONFIG_MAPS, "a", "b")
    assert abs(kube.clock.now().timestamp() - 1795447305.5) < 2


# --- credentials ----------------------------------------------------------------------------------------------------


def token(expiry: float) -> str:
    payload = base64.urlsafe_b64encode(json.dumps({"exp": expiry}).encode()).decode().rstrip("=")
    return f"e30.{payload}.signature"


@pytest.mark.parametrize("text", ["", "opaque", "a.b.c", "a.e30.c", "a.W10.c"])
def test_a_token_without_a_readable_end(text: str) -> None:
    assert token_expiry(text) is None


async def test_as_token_presents_the_token_alone_and_renews_it_on_401(kube: Kube, server: Server) -> None:
    given = [token(0), token(1)]
    asked = 0

    async def provider() -> str:
        nonlocal asked
        asked += 1
        return given[min(asked, 2) - 1]

    kube._configuration.cert_file = "/nonexistent/admin.crt"
    kube._configuration.api_key = {"BearerToken": "Bearer admin"}
    other = kube.as_token(provider)
    other._credentials._clock = ServerClock(steady=lambda: 0.0)  # type: ignore[attr-defined]  # no renewal by age here
    server.handlers = [failure(401, "Unauthorized"), answer({})]
    await other.get(r.CONFIG_MAPS, "a", "b")
    await other.get(r.CONFIG_MAPS, "a", "b")
    await other.close()
    assert [headers["Authorization"] for _, _, headers, _ in server.requests] == [
        f"Bearer {given[0]}",
        f"Bearer {given[1]}",
        f"Bearer {given[1]}",
    ]
    assert other._configuration.cert_file is None
    assert other.clock is kube.clock


async def test_401_twice_is_given_back(kube: Kube, server: Server) -> None:
    async def provider() -> str:
        return token(2_000_000_000)

    other = kube.as_token(provider)
    server.handlers = [failure(401, "Unauthorized")]
    with pytest.raises(errors.Unauthorized):
        await other.get(r.CONFIG_MAPS, "a", "b")
    assert len(server.requests) == 2
    await other.close()


async def test_a_token_is_renewed_before_it_ends(kube: Kube, server: Server) -> None:
    now = [0.0]
    other_clock = ServerClock(steady=lambda: now[0], local=lambda: now[0])
    kube.clock = other_clock
    asked = 0

    async def provider() -> str:
        nonlocal asked
        asked += 1
        return token(now[0] + 600)

    other = kube.as_token(provider)
    server.handlers = [answer({}, Date="not a date")]
    for at, expected in ((0, 1), (400, 1), (490, 2), (900, 2), (1000, 3)):
        now[0] = at
        await other.get(r.CONFIG_MAPS, "a", "b")
        assert asked == expected, at
    await other.close()


# --- metadata and Tables --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Secret", "SecretList", "List"])
async def test_a_full_secret_in_place_of_metadata_is_refused_and_dropped(kube: Kube, server: Server, kind: str) -> None:
    body = {"kind": kind, "apiVersion": "v1", "metadata": {"name": "a"}, "data": {"password": CANARY}}
    server.handlers = [answer(body)]
    for call in (
        kube.get(r.SECRETS, "a", "b"),
        kube.merge_patch(r.SECRETS, "a", "b", {}),
        kube.row(r.SECRETS, "a", "b"),
        anext(kube.pages(r.SECRETS)),
    ):
        with pytest.raises(errors.UnexpectedKind) as caught:
            await call
        assert CANARY not in str(caught.value)
        assert "Secret" not in str(caught.value).split(": ", 1)[1]


async def test_an_answer_that_names_its_kind_late_is_refused(kube: Kube, server: Server) -> None:
    server.handlers = [answer({"data": {"password": CANARY}, "kind": "PartialObjectMetadata"})]
    with pytest.raises(errors.UnexpectedKind):
        await kube.get(r.SECRETS, "a", "b")


async def test_secrets_are_asked_for_without_values(kube: Kube, server: Server) -> None:
    server.handlers = [answer({"kind": "PartialObjectMetadata", "metadata": {}})]
    await kube.get(r.SECRETS, "a", "b")
    await kube.merge_patch(r.SECRETS, "a", "b", {}, uid="u", resource_version="7")
    await kube.create(r.SECRETS, {"metadata": {"name": "a", "namespace": "b"}})
    await kube.delete(r.SECRETS, "a", "b")
    assert {headers["Accept"] for _, _, headers, _ in server.requests} == {client.METADATA}
    assert server.requests[1][3] == {"metadata": {"uid": "u", "resourceVersion": "7"}}


async def test_an_unreadable_answer_is_not_kept_in_the_error(kube: Kube, server: Server) -> None:
    server.handlers = [answer('{"kind":"ConfigMap","data":"' + CANARY)]
    with pytest.raises(errors.ApiError) as caught:
        await kube.get(r.CONFIG_MAPS, "a", "b")
    assert CANARY not in str(caught.value)
    assert caught.value.__cause__ is None


# --- pages and watches ----------------------------------------------------------------------------------------------


async def test_pages_follow_the_continue_token(kube: Kube, server: Server) -> None:
    first = {"kind": "PodList", "metadata": {"resourceVersion": "5", "continue": "a+b/c=="}, "items": [1]}
    server.handlers = [answer(first), answer({"kind": "PodList", "metadata": {"resourceVersion": "5"}, "items": [2]})]
    pages = [page["items"] async for page in kube.pages(r.PODS, "ns", limit=1, params={"labelSelector": "a=b,c"})]
    assert pages == [[1], [2]]
    assert server.requests[0][1] == "/api/v1/namespaces/ns/pods?labelSelector=a%3Db%2Cc&limit=1"
    assert server.requests[1][1].endswith("&limit=1&continue=a%2Bb%2Fc%3D%3D")


EVENT = b'{"type":"ADDED","object":{"kind":"ConfigMap","metadata":{"name":"a","resourceVersion":"6"}}}\n'
TABLE_EVENT = b'{"type":"ADDED","object":{"kind":"Table","metadata":{"resourceVersion":"6"},"rows":[]}}\n'


async def watched(
    kube: Kube, resource: r.Resource = r.CONFIG_MAPS, into: list[dict[str, Any]] | None = None, **options: Any
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [] if into is None else into
    async with aclosing(kube.watch(resource, "", "5", **options)) as events:
        async for event in events:
            found.append(event)
    return found


async def test_events_come_whole_however_they_are_cut(kube: Kube, server: Server) -> None:
    large = json.dumps(
        {"type": "ADDED", "object": {"kind": "ConfigMap", "metadata": {"name": "b"}, "data": "y" * 3_000_000}}
    ).encode()
    server.handlers = [stream(EVENT[:40], EVENT[40:] + EVENT, large[:1_000_000], large[1_000_000:] + b"\n")]
    events = await watched(kube)
    assert [event["object"]["metadata"]["name"] for event in events] == ["a", "a", "b"]
    assert "resourceVersion=5" in server.requests[0][1]
    assert "allowWatchBookmarks=true" in server.requests[0][1]


async def test_a_watch_says_when_it_is_open(kube: Kube, server: Server) -> None:
    opened: list[bool] = []
    server.handlers = [stream()]
    assert await watched(kube, opened=lambda: opened.append(True)) == []
    assert opened == [True]


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ((EVENT, EVENT[:50]), errors.BrokenStream),
        ((EVENT, b"not json\n"), errors.BrokenStream),
        ((EVENT, b"[]\n"), errors.BrokenStream),
        ((EVENT, b'{"type":"ADDED","object":null}\n'), errors.BrokenStream),
        ((EVENT, b'{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired"}}\n'), errors.Gone),
        ((EVENT, b'{"type":"ERROR","object":{"kind":"Status","code":500}}\n'), errors.Unavailable),
        ((EVENT, b'{"type":"ERROR","object":{"kind":"Status"}}\n'), errors.ApiError),
    ],
)
async def test_a_broken_stream(
    kube: Kube, server: Server, pieces: tuple[bytes, ...], expected: type[errors.ApiError]
) -> None:
    server.handlers = [stream(*pieces)]
    found: list[Any] = []
    with pytest.raises(expected) as caught:
        await watched(kube, into=found)
    assert len(found) == 1
    assert caught.value.in_stream is (expected is not errors.BrokenStream)


async def test_a_connection_cut_in_a_watch(kube: Kube, server: Server) -> None:
    server.handlers = [stream(EVENT, EVENT[:50], end=False)]
    with pytest.raises(errors.Unreachable):
        await watched(kube)


async def test_a_silent_watch(kube: Kube, server: Server) -> None:
    silent = asyncio.Event()

    async def quiet(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await silent.wait()
        return response

    server.handlers = [quiet]
    with pytest.raises(errors.Unreachable) as caught:
        await watched(kube, inactivity=0.05)
    assert isinstance(caught.value.__cause__, TimeoutError)
    silent.set()


@pytest.mark.parametrize("ends", [True, False])
async def test_a_full_secret_in_a_watch_is_dropped_before_it_is_whole(kube: Kube, server: Server, ends: bool) -> None:
    full = b'{"type":"MODIFIED","object":{"kind":"Secret","data":{"a":"' + b"x" * 100_000
    server.handlers = [stream(TABLE_EVENT, full + b'"}}}\n' if ends else full, end=ends)]
    found: list[Any] = []
    with pytest.raises(errors.UnexpectedKind) as caught:
        await watched(kube, r.SECRETS, into=found)
    assert len(found) == 1
    assert "xxx" not in str(caught.value)


# --- configuration --------------------------------------------------------------------------------------------------


async def test_a_missing_kubeconfig_is_named(tmp_path: Any) -> None:
    with pytest.raises(errors.ConfigurationError, match="nowhere"):
        await Kube.connect(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("text", ["", "a: b", "[]", "clusters: 7", "{"])
async def test_a_kubeconfig_that_is_none(tmp_path: Any, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(errors.ConfigurationError, match="config"):
        await Kube.connect(str(path))


async def test_no_configuration_at_all(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(errors.ConfigurationError, match="no kubeconfig"):
        await Kube.connect(None)
