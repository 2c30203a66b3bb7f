"""A small client for the API server: what Tenure needs of it, and no more.

`kubernetes.aio` gives the connection (kubeconfig, in-cluster files, exec plugins, TLS, proxy) and its aiohttp pool;
its typed models are left alone, since they cost four to five times the CPU of plain JSON on large lists. JSON is the
standard library's: of a page of 500 Table rows, 13 ms with projection and store, orjson would save 0.6 ms.

Nothing here is repeated behind the caller's back, with three exceptions: 429 (the server did nothing yet) for
requests that may be repeated, 401 once with fresh credentials, and aiohttp's own second try of a GET on a
kept-alive connection that the server had just closed. A write goes out once.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import copy
import json
import os
import random
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
import yaml
from kubernetes.aio import config as kube_config
from kubernetes.aio.client import ApiClient, Configuration
from yarl import URL

from tenure.kube import page, resources
from tenure.kube.clock import ServerClock
from tenure.kube.errors import (
    ApiError,
    BrokenStream,
    ConfigurationError,
    TooManyRequests,
    Unauthorized,
    UnexpectedKind,
    Unreachable,
    from_status,
)
from tenure.kube.resources import Resource

JSON: Final = "application/json"
TABLE: Final = "application/json;as=Table;g=meta.k8s.io;v=v1"
METADATA: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
MERGE_PATCH: Final = "application/merge-patch+json"
APPLY_PATCH: Final = "application/apply-patch+yaml"
FIELD_MANAGER: Final = "tenure"

_TRIES_ON_429 = 5
_LONGEST_WAIT_ON_429 = 30.0  # seconds, whatever Retry-After says
_CONNECT_TIMEOUT = 10.0
_PAGE_TIMEOUT = 60.0
_TOKEN_SHARE = 0.8  # a token is renewed after this share of its life, as the kubelet does
_HEAD = 256  # bytes within which an answer must say its kind
_KINDS: Final = {TABLE: "Table", METADATA: "PartialObjectMetadata", METADATA_LIST: "PartialObjectMetadataList"}
_WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})

Json = dict[str, Any]
Params = Mapping[str, str | int | bool]
Headers = tuple[tuple[str, str], ...]
TokenProvider = Callable[[], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Connection:
    """What another client (Kopf's) needs to reach the same API server as the same user."""

    server: str
    ca_file: str | None
    ca_data: str | bytes | None
    insecure: bool
    scheme: str | None
    token: str | None
    certificate_file: str | None
    key_file: str | None
    expires: datetime | None


class _Credentials(Protocol):
    async def header(self) -> str | None:
        """The Authorization header, None when a client certificate (or nothing) is used."""

    async def renew(self, refused: str | None) -> bool:
        """After a 401 on the header `refused`: whether another one can be tried."""


class _FromConfiguration:
    """Credentials as kubernetes.aio loads them; re-read at times, since exec plugins and token files rotate."""

    _EVERY = 60.0  # seconds between two looks at the kubeconfig's token source

    def __init__(self, configuration: Configuration, loader: Any, clock: ServerClock) -> None:
        self._configuration = configuration
        self._loader = loader  # kubernetes.aio's KubeConfigLoader; None in the cluster, where a hook re-reads the file
        self._clock = clock
        self._loaded = clock.steady()
        self._lock = asyncio.Lock()

    async def header(self) -> str | None:
        if self._loader is not None and self._clock.steady() - self._loaded > self._EVERY:
            await self._load(forget=False)
        value: str | None = await self._configuration.get_api_key_with_prefix("BearerToken")
        return value.strip() if value else None

    async def renew(self, refused: str | None) -> bool:
        if self._loader is None:
            return await self.header() != refused
        await self._load(forget=True)
        return await self.header() != refused

    async def _load(self, forget: bool) -> None:
        async with self._lock:
            self._loaded = self._clock.steady()
            if forget and hasattr(self._loader, "exec_plugin_expiry"):
                del self._loader.exec_plugin_expiry  # else the plugin is not run again before its token's end
            try:
                await self._loader.load_and_set(self._configuration)
            except Exception as error:
                if forget:
                    message = f"the server refuses the credentials, and renewing them failed: {error}"
                    raise Unauthorized(401, "Unauthorized", message) from error
                # else the old token may still do: what the server says to it counts


class _FromProvider:
    """A bearer token from a coroutine, renewed before it ends (its own `exp`, unverified) and on 401."""

    def __init__(self, provider: TokenProvider, clock: ServerClock) -> None:
        self._provider = provider
        self._clock = clock
        self._lock = asyncio.Lock()
        self._token = ""
        self._renew_at = float("inf")  # in clock.steady()

    async def header(self) -> str | None:
        if not self._token or self._clock.steady() >= self._renew_at:
            async with self._lock:
                if not self._token or self._clock.steady() >= self._renew_at:
                    await self._fetch()
        return f"Bearer {self._token}"

    async def renew(self, refused: str | None) -> bool:
        async with self._lock:
            if f"Bearer {self._token}" == refused:  # else another request renewed it meanwhile
                await self._fetch()
        return True

    async def _fetch(self) -> None:
        self._token = await self._provider()
        ends = token_expiry(self._token)
        left = float("inf") if ends is None else ends - self._clock.now().timestamp()
        self._renew_at = self._clock.steady() + max(1.0, left * _TOKEN_SHARE)


def token_expiry(token: str) -> float | None:
    """A JWT's `exp` in epoch seconds, unverified; None when the token is none or has no end."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        payload = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError):
        return None
    expiry = payload.get("exp") if isinstance(payload, dict) else None
    return float(expiry) if isinstance(expiry, (int, float)) else None


async def _send_once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """aiohttp repeats idempotent methods, DELETE among them, when a kept-alive connection breaks. A write whose
    answer was lost may have taken effect, so the caller must know: another error type ends aiohttp's repetition."""
    try:
        return await handler(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        if request.method in _WRITES:
            raise _Lost(error) from error
        raise


def _impersonated(loader: Any) -> Headers:
    """Whom the kubeconfig's user is to be taken for, as kubectl reads `as`, `as-uid`, `as-groups` and `as-user-extra`.
    kubernetes.aio passes over these fields, so that whoever restricts a kubeconfig by them would work with all rights
    of the user behind it."""
    user = getattr(getattr(loader, "_user", None), "value", None) or {}
    if not user.get("as"):
        if user.get("as-uid") or user.get("as-groups") or user.get("as-user-extra"):
            raise ConfigurationError("the kubeconfig's user has as-uid, as-groups or as-user-extra without as")
        return ()
    headers = [("Impersonate-User", str(user["as"]))]
    if user.get("as-uid"):
        headers.append(("Impersonate-Uid", str(user["as-uid"])))
    headers += [("Impersonate-Group", str(group)) for group in user.get("as-groups") or ()]
    for name, values in (user.get("as-user-extra") or {}).items():
        headers += [(f"Impersonate-Extra-{quote(str(name), safe='')}", str(value)) for value in values]
    return tuple(headers)


def _taking_for(headers: Headers) -> aiohttp.ClientMiddlewareType:
    async def add(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        for name, value in headers:  # one by one: kubernetes.aio takes a dict, and groups are several headers
            request.headers.add(name, value)
        return await handler(request)

    return add


class _Lost(Exception):
    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def _loopback(host: str) -> bool:
    name = urlsplit(host).hostname or ""
    return name in ("localhost", "::1") or name.startswith("127.")


@dataclass(frozen=True, slots=True)
class _Request:
    """One request as it is repeated: what is tried in words, then the HTTP of it."""

    what: str
    method: str
    path: str
    body: Any = None
    params: Params | None = None
    accept: str = JSON
    content_type: str = JSON
    seconds: float = 30.0
    discard: bool = False
    """Whether a good answer's body is left unread."""
    gradual: bool = False
    """Whether the answer is a page whose objects are parsed one by one (see `tenure.kube.page`)."""

    @property
    def repeatable(self) -> bool:
        """Whether it may be sent again after 429: everything we PATCH or DELETE says the state it wants, and the
        reviews change nothing. A POST that creates is the caller's to repeat."""
        return self.method != "POST" or self.path.endswith("reviews")


class Lines:
    """Cuts a stream of bytes into its lines, wherever the network split it.

    A line may be larger than a megabyte and arrive in hundreds of pieces: each byte is looked at once.
    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def feed(self, piece: bytes) -> list[bytes]:
        """The lines that this piece completes, without their newlines; empty lines are left out."""
        *ends, rest = piece.split(b"\n")
        if ends:
            ends[0] = b"".join([*self._pieces, ends[0]])
            self._pieces = []
        if rest:
            self._pieces.append(rest)
        return [line for line in ends if line.strip()]

    def head(self, size: int) -> bytes:
        """The first bytes of the line that is not complete yet, at most `size`."""
        found, length = [], 0
        for piece in self._pieces:
            found.append(piece)
            length += len(piece)
            if length >= size:
                break
        return b"".join(found)[:size]

    @property
    def pending(self) -> bool:
        """Whether an incomplete line is held."""
        return any(piece.strip() for piece in self._pieces)


def _object_of(kind: str) -> re.Pattern[bytes]:
    """What an answer of this kind begins with. The API server writes kind first, in every format."""
    return re.compile(rb'\s*\{\s*"kind"\s*:\s*"(?:%s|Status)"' % kind.encode())


def _event_of(kind: str) -> re.Pattern[bytes]:
    """What a watch event begins with that carries this kind (or, for ERROR, a Status)."""
    return re.compile(rb'\s*\{\s*"type"\s*:\s*"[A-Z]+"\s*,\s*"object"\s*:' + _object_of(kind).pattern)


def _reason(error: BaseException) -> str:
    """Why there was no answer, in words, without addresses of objects."""
    if isinstance(error, _Lost):
        return _reason(error.error)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is not accepted ({error.certificate_error})"
    if isinstance(error, aiohttp.ClientConnectorError):
        return _reason(error.os_error)
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it closed the connection before answering"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the answer was cut off"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and (error.errno or error.strerror):
        return os.strerror(error.errno).lower() if error.errno and error.errno > 0 else str(error.strerror)
    return type(error).__name__


def _kubeconfig_path() -> str | None:
    """What kubectl would read: $KUBECONFIG, else ~/.kube/config, where one of the files exists."""
    named = os.environ.get("KUBECONFIG")
    if named:
        return named
    default = Path.home() / ".kube" / "config"
    return str(default) if default.is_file() else None


def _exists(paths: str | None) -> bool:
    return any(Path(path).expanduser().is_file() for path in (paths or "").split(os.pathsep) if path)


class Kube:
    """The connection to one API server as one user.

    Errors are those of `tenure.kube.errors`; each method's docstring names only what is special to it. Objects are
    plain dicts as JSON has them. A `Kube` belongs to the event loop that made it.
    """

    def __init__(
        self,
        configuration: Configuration,
        credentials: _Credentials,
        clock: ServerClock,
        concurrency: int,
        taken_for: Headers = (),
    ) -> None:
        self.clock = clock
        """The API server's time, fed by every answer."""
        self.server: str = configuration.host.rstrip("/")
        self._configuration = configuration
        self._credentials = credentials
        self._concurrency = concurrency
        self._places = asyncio.Semaphore(concurrency)
        # The pool itself has no limit: watches hold a connection each, and the places bound the rest.
        configuration.connection_pool_maxsize = 0
        configuration.client_session_kwargs = {
            "middlewares": (_send_once, _taking_for(taken_for)),
            # As Go and so kubectl do: a proxy of the environment is never asked for this machine itself.
            "trust_env": not _loopback(self.server),
        }
        self._api = ApiClient(configuration)
        self._certificate = (configuration.cert_file, configuration.key_file)
        self._replaced: list[ApiClient] = []

    @classmethod
    async def connect(cls, kubeconfig: str | None = None, context: str | None = None, *, concurrency: int = 16) -> Kube:
        """Reads the configuration; sends nothing yet. Without a kubeconfig it is $KUBECONFIG, else ~/.kube/config,
        else the files a Pod has. A user with `as` is taken for that one, as by kubectl. concurrency bounds the requests
        in flight, watches apart. Raises ConfigurationError, naming what was looked for."""
        configuration = Configuration()
        clock = ServerClock()
        path = kubeconfig or _kubeconfig_path()
        loader = None
        try:
            if path is None and context is None:
                kube_config.load_incluster_config(  # type: ignore[no-untyped-call]
                    client_configuration=configuration
                )
            else:
                if not _exists(path):
                    raise ConfigurationError(f"no kubeconfig at {path or '~/.kube/config'}")
                loader = await kube_config.load_kube_config(  # type: ignore[no-untyped-call]
                    config_file=path, context=context, client_configuration=configuration, persist_config=False
                )
            credentials = _FromConfiguration(configuration, loader, clock)
            return cls(configuration, credentials, clock, concurrency, _impersonated(loader))
        except kube_config.ConfigException as error:
            where = path or "the Pod's own files (there is no kubeconfig)"
            raise ConfigurationError(f"no usable configuration in {where}: {error}") from error
        except yaml.YAMLError:
            # Without the parser's words, which quote the file and so perhaps a key.
            raise ConfigurationError(f"no usable configuration in {path}: it is no YAML") from None
        except (OSError, ValueError, TypeError, AttributeError, ssl.SSLError) as error:
            raise ConfigurationError(f"no usable configuration in {path or 'the Pod'}: {error}") from error

    def as_token(self, provider: TokenProvider) -> Kube:
        """A client to the same server over the same TLS that presents the provider's bearer token and nothing else.

        The provider is asked when a token is first needed, when 80 % of its life (its `exp`) is over, and after a
        401. The client certificate is left out: the API server would prefer it to the token; so is whom the kubeconfig
        would be taken for. Close it by itself."""
        configuration = copy.deepcopy(self._configuration)
        configuration.cert_file = configuration.key_file = None
        configuration.api_key = {}
        configuration.refresh_api_key_hook = None
        return Kube(configuration, _FromProvider(provider, self.clock), self.clock, self._concurrency)

    async def close(self) -> None:
        """Closes the connections. Watches under way end with an error."""
        for api in (self._api, *self._replaced):
            await api.close()  # type: ignore[no-untyped-call]

    # --- one request -------------------------------------------------------------------------------------------

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: Params | None = None,
        accept: str = JSON,
        content_type: str = JSON,
        timeout: float = 30.0,  # noqa: ASYNC109 - of the exchange alone, not of the wait for a place
    ) -> Json:
        """One request and its JSON answer ({} for an empty one). timeout is in seconds, for the whole exchange
        without the wait for a place. With an Accept for Table or metadata an answer of another kind raises
        UnexpectedKind and is not read further than its first bytes. 429 is waited out (Retry-After) and repeated a
        few times except for POST; the reviews, which change nothing, are repeated too."""
        what = f"{method} {path}"
        return await self._call(_Request(what, method, path, body, params, accept, content_type, timeout))

    async def _call(self, request: _Request) -> Json:
        pause = 1.0
        for attempt in range(1, _TRIES_ON_429 + 1):
            try:
                async with self._places:
                    return await self._once(request)
            except TooManyRequests as error:
                if not request.repeatable or attempt == _TRIES_ON_429:
                    raise
                asked = pause if error.retry_after is None else error.retry_after
                await asyncio.sleep(min(asked, _LONGEST_WAIT_ON_429) * random.uniform(1.0, 1.25))
                pause *= 2
        raise AssertionError("the last try returns or raises")

    async def _once(self, request: _Request) -> Json:
        limits = aiohttp.ClientTimeout(total=request.seconds, sock_connect=_CONNECT_TIMEOUT)
        response = await self._send(request, limits)
        try:
            return {} if request.discard else await self._read(request, response)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(request.what, error) from error
        finally:
            response.release()

    async def _send(self, request: _Request, limits: aiohttp.ClientTimeout) -> aiohttp.ClientResponse:
        """Sends, checks the status, and gives back a good response with its body unread."""
        header = await self._credentials.header()
        response = await self._exchange(request, limits, header)
        if response.status == 401 and await self._credentials.renew(header):
            response.release()
            self._rebuild_if_certificate_changed()
            response = await self._exchange(request, limits, await self._credentials.header())
        if response.status < 400:
            return response
        try:
            raise await self._failure(request.what, response)
        finally:
            response.release()

    async def _exchange(
        self, request: _Request, limits: aiohttp.ClientTimeout, authorization: str | None
    ) -> aiohttp.ClientResponse:
        headers = {
            "Accept": request.accept,
            "Content-Type": request.content_type,
            "User-Agent": "tenure",
            # The lists are long and the network near: gzip costs both sides more time than it saves.
            "Accept-Encoding": "identity",
        }
        if authorization:
            headers["Authorization"] = authorization
        url = self.server + request.path
        if request.params:
            url = f"{url}?{urlencode({name: _parameter(value) for name, value in request.params.items()})}"
        sent = self.clock.steady()
        try:
            answer = await self._api.call_api(
                request.method,
                URL(url, encoded=True),
                header_params=headers,
                body=request.body,
                _request_timeout=limits,
                _preload_content=False,
            )
        except (aiohttp.ClientError, TimeoutError, OSError, _Lost) as error:
            raise self._unreachable(request.what, error) from error
        response: aiohttp.ClientResponse = answer.response
        self.clock.observe(response.headers.get("Date", ""), sent, self.clock.steady())
        return response

    async def _failure(self, what: str, response: aiohttp.ClientResponse) -> ApiError:
        status: Any = None
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError, ValueError):
            status = json.loads(await response.content.read())
        # else a proxy's page, or nothing: the HTTP status says enough
        if not isinstance(status, dict) or status.get("kind") != "Status":
            status = {"message": response.reason or ""}
        return from_status(what, response.status, status, _seconds(response.headers.get("Retry-After")))

    async def _read(self, request: _Request, response: aiohttp.ClientResponse) -> Json:
        what, kind = request.what, _KINDS.get(request.accept, "")
        pieces: list[bytes] = []
        if kind:
            length = 0
            while length < _HEAD and not response.content.at_eof():
                piece = await response.content.readany()
                pieces.append(piece)
                length += len(piece)
            if not _object_of(kind).match(b"".join(pieces)):
                response.close()
                message = f"{what}: the answer is no {kind}; dropped unread"
                raise UnexpectedKind(response.status, "UnexpectedKind", message)
        pieces.append(await response.content.read())
        text = b"".join(pieces)
        if not text:
            return {}
        try:
            answer = page.parse(what, text.decode()) if request.gradual else json.loads(text)
        except ValueError:
            # Without its cause: a JSONDecodeError keeps the whole text.
            raise ApiError(response.status, "Unreadable", f"{what}: the answer is not JSON") from None
        if not isinstance(answer, dict):
            raise ApiError(response.status, "Unreadable", f"{what}: the answer is no JSON object")
        return answer

    def _unreachable(self, what: str, error: BaseException) -> Unreachable:
        return Unreachable(0, "Unreachable", f"{what}: no answer from {self.server}: {_reason(error)}")

    def _rebuild_if_certificate_changed(self) -> None:
        """An exec plugin may answer with a new client certificate; a TLS context is fixed when its pool is made."""
        certificate = (self._configuration.cert_file, self._configuration.key_file)
        if certificate != self._certificate:
            self._certificate = certificate
            self._replaced.append(self._api)  # requests may be under way on it: closed with the client
            self._api = ApiClient(self._configuration)

    # --- objects -----------------------------------------------------------------------------------------------

    async def get(
        self, resource: Resource, name: str, namespace: str = "", *, metadata_only: bool | None = None
    ) -> Json:
        """One object. metadata_only asks for PartialObjectMetadata; None means so for Secrets alone."""
        accept = METADATA if _metadata(resource, metadata_only) else JSON
        what = _what("get", resource, namespace, name)
        return await self._call(_Request(what, "GET", resource.path(namespace, name), accept=accept))

    async def pages(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        limit: int = 500,
        accept: str | None = None,
        params: Params | None = None,
        gradual: bool = False,
    ) -> AsyncIterator[Json]:
        """The pages of a list, each a List (or Table), all of one resourceVersion. accept None means JSON, and for
        Secrets Table. Raises Gone when the list takes longer than the server keeps its snapshot: start anew.
        gradual: a page's items (or rows) can be walked once, and each is parsed then (`tenure.kube.page`)."""
        accept = accept or (TABLE if resource.sensitive else JSON)
        query: dict[str, str | int | bool] = {**(params or {}), "limit": limit}
        what = _what("list", resource, namespace)
        request = _Request(
            what, "GET", resource.path(namespace), params=query, accept=accept, seconds=_PAGE_TIMEOUT, gradual=gradual
        )
        while True:
            found = await self._call(request)
            yield found
            token = found.get("metadata", {}).get("continue")
            if not token:
                return
            query["continue"] = token

    async def create(self, resource: Resource, obj: Json) -> Json:
        """Creates and returns the object as stored (a Secret: its metadata). Never repeated, not even after 429."""
        namespace, name = _place(obj)
        accept = METADATA if resource.sensitive else JSON
        what = _what("create", resource, namespace, name)
        return await self._call(_Request(what, "POST", resource.path(namespace), obj, accept=accept))

    async def apply(self, resource: Resource, obj: Json, *, subresource: str = "") -> Json:
        """Server-side apply as field manager `tenure`, taking over what others set. obj is all we want to own:
        fields applied before and left out now are removed. A metadata.uid in it must match, else Conflict; so must
        a metadata.resourceVersion."""
        namespace, name = _place(obj)
        what = _what("apply", resource, namespace, name, subresource)
        return await self._call(
            _Request(
                what,
                "PATCH",
                resource.path(namespace, name, subresource),
                obj,
                {"fieldManager": FIELD_MANAGER, "force": True},
                accept=METADATA if resource.sensitive else JSON,
                content_type=APPLY_PATCH,
            )
        )

    async def merge_patch(
        self,
        resource: Resource,
        name: str,
        namespace: str,
        patch: Json,
        *,
        subresource: str = "",
        uid: str = "",
        resource_version: str = "",
        metadata_only: bool | None = None,
    ) -> Json:
        """JSON merge patch. uid and resource_version are preconditions: Conflict when they do not hold, NotFound
        when the object is gone. The answer is metadata only for Secrets, unless told otherwise."""
        conditions = {
            **({"uid": uid} if uid else {}),
            **({"resourceVersion": resource_version} if resource_version else {}),
        }
        if conditions:
            patch = {**patch, "metadata": {**patch.get("metadata", {}), **conditions}}
        what = _what("patch", resource, namespace, name, subresource)
        return await self._call(
            _Request(
                what,
                "PATCH",
                resource.path(namespace, name, subresource),
                patch,
                {"fieldManager": FIELD_MANAGER},
                accept=METADATA if _metadata(resource, metadata_only) else JSON,
                content_type=MERGE_PATCH,
            )
        )

    async def delete(
        self, resource: Resource, name: str, namespace: str, *, uid: str = "", resource_version: str = ""
    ) -> None:
        """Deletes, dependents in the background. Conflict when a precondition does not hold, NotFound when it is
        gone. Returns when the server accepted it: finalizers may keep the object for a while. The answer, which may
        be the object, is not read."""
        conditions = {
            **({"uid": uid} if uid else {}),
            **({"resourceVersion": resource_version} if resource_version else {}),
        }
        options: Json = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if conditions:
            options["preconditions"] = conditions
        what = _what("delete", resource, namespace, name)
        accept = METADATA if resource.sensitive else JSON
        await self._call(_Request(what, "DELETE", resource.path(namespace, name), options, accept=accept, discard=True))

    async def watch(
        self,
        resource: Resource,
        namespace: str,
        resource_version: str,
        *,
        accept: str | None = None,
        params: Params | None = None,
        server_timeout: float = 400.0,
        inactivity: float = 90.0,
        opened: Callable[[], None] | None = None,
    ) -> AsyncIterator[Json]:
        """The events after resource_version, bookmarks among them, each `{"type": …, "object": …}`.

        Ends when the server closes the stream in good order (after server_timeout seconds). Raises what an ERROR
        event says (Gone for a resourceVersion that is too old), BrokenStream for a cut or unreadable line,
        Unreachable when nothing came for `inactivity` seconds (bookmarks come every minute) or the connection
        broke, UnexpectedKind when the events are not in the form asked for. opened is called once the server has
        accepted the watch, which may be long before an event. Holds no place among the requests.
        Close it (`aclosing`) when it is left early."""
        accept = accept or (TABLE if resource.sensitive else JSON)
        kind = _KINDS.get(accept, "")
        expected = _event_of(kind) if kind else None
        what = _what("watch", resource, namespace)
        query = {
            **(params or {}),
            "watch": True,
            "allowWatchBookmarks": True,
            "resourceVersion": resource_version,
            "timeoutSeconds": int(server_timeout),
        }
        limits = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT, sock_read=inactivity)
        request = _Request(what, "GET", resource.path(namespace), params=query, accept=accept)
        response = await self._send(request, limits)
        lines = Lines()
        try:
            if opened:
                opened()
            while not response.content.at_eof():
                # No name keeps a piece or a line: this generator rests here, perhaps for days, and what it would hold
                # meanwhile may be a Secret's last-applied-configuration.
                found = lines.feed(await response.content.readany())[::-1]
                while found:
                    yield self._event(what, found.pop(), expected, kind)
                if expected and len(head := lines.head(_HEAD)) == _HEAD and not expected.match(head):
                    raise _unexpected(what, kind)
            if lines.pending:
                raise BrokenStream(0, "BrokenStream", f"{what}: the stream ended in the middle of a line")
        except TimeoutError as error:
            message = f"{what}: nothing from {self.server} for {inactivity:.0f} s"
            raise Unreachable(0, "Unreachable", message) from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._unreachable(what, error) from error
        finally:
            response.close()

    def _event(self, what: str, line: bytes, expected: re.Pattern[bytes] | None, kind: str) -> Json:
        if expected and not expected.match(line[:_HEAD]):
            raise _unexpected(what, kind)
        try:
            event = json.loads(line)
        except ValueError:
            # Without its cause, which would keep the line, and with it what an object says, in the traceback.
            raise BrokenStream(0, "BrokenStream", f"{what}: an event is not readable") from None
        if not isinstance(event, dict) or not isinstance(event.get("object"), dict):
            raise BrokenStream(0, "BrokenStream", f"{what}: an event has no object")
        if event.get("type") == "ERROR":
            status = event["object"]
            code = status.get("code")
            error = from_status(what, code if isinstance(code, int) else 0, status)
            error.in_stream = True
            raise error
        if kind and event["object"].get("kind") != kind:
            raise _unexpected(what, kind)
        return event

    async def row(self, resource: Resource, name: str, namespace: str) -> Json:
        """One object as a Table of one row: of a Secret its metadata and, unlike `get`, its type. No values."""
        what = _what("get", resource, namespace, name)
        return await self._call(_Request(what, "GET", resource.path(namespace, name), accept=TABLE))

    # --- who and what may we -----------------------------------------------------------------------------------

    async def connection(self) -> Connection:
        """How to connect as this client does; the token is good until `expires` (None = unknown), then ask again."""
        configuration = self._configuration
        header = await self._credentials.header()
        scheme, _, token = header.partition(" ") if header else ("", "", "")
        ends = token_expiry(token) if token else None
        return Connection(
            server=self.server,
            ca_file=configuration.ssl_ca_cert,
            ca_data=None if configuration.ssl_ca_cert else configuration.ca_cert_data,
            insecure=not configuration.verify_ssl,
            scheme=scheme or None,
            token=token or None,
            certificate_file=configuration.cert_file,
            key_file=configuration.key_file,
            expires=datetime.fromtimestamp(ends, UTC) if ends is not None else None,
        )

    async def self_user(self) -> str:
        """The user name the API server takes us for."""
        resource = resources.SELF_SUBJECT_REVIEWS
        body = {"apiVersion": resource.api_version, "kind": resource.kind}
        answer = await self._call(_Request("ask who we are", "POST", resource.path(), body))
        return str(answer["status"]["userInfo"]["username"])

    async def can(
        self, verb: str, resource: Resource, namespace: str = "", name: str = "", subresource: str = ""
    ) -> bool:
        """Whether we have this right now; namespace "" means in all of them (or a cluster-scoped resource)."""
        review = resources.SELF_SUBJECT_ACCESS_REVIEWS
        attributes = {
            "verb": verb,
            "group": resource.group,
            "version": resource.version,
            "resource": resource.plural,
            "subresource": subresource,
            "namespace": namespace,
            "name": name,
        }
        body = {"apiVersion": review.api_version, "kind": review.kind, "spec": {"resourceAttributes": attributes}}
        what = f"ask whether we may {verb} {resource.qualified}"
        answer = await self._call(_Request(what, "POST", review.path(), body))
        return bool(answer["status"]["allowed"])

    async def rules(self, namespace: str) -> Json:
        """The rules that the authorizers list for us in a namespace, as `status` of a SelfSubjectRulesReview:
        `resourceRules`, and `incomplete` where an authorizer cannot list its own. A hint: `can` has the last word."""
        review = resources.SELF_SUBJECT_RULES_REVIEWS
        body = {"apiVersion": review.api_version, "kind": review.kind, "spec": {"namespace": namespace}}
        answer = await self._call(_Request(f"ask what we may do in {namespace}", "POST", review.path(), body))
        status: Json = answer["status"]
        return status

    async def request_token(self, namespace: str, service_account: str, seconds: int) -> tuple[str, datetime]:
        """A bound token for a ServiceAccount and the instant it ends, which the server may have moved.
        Not repeated after 429."""
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": seconds},
        }
        path = resources.SERVICE_ACCOUNTS.path(namespace, service_account, "token")
        what = _what("create", resources.SERVICE_ACCOUNTS, namespace, service_account, "token")
        answer = await self._call(_Request(what, "POST", path, body))
        status = answer["status"]
        return str(status["token"]), datetime.fromisoformat(status["expirationTimestamp"])


def _metadata(resource: Resource, asked: bool | None) -> bool:
    return resource.sensitive if asked is None else asked


def _unexpected(what: str, kind: str) -> UnexpectedKind:
    return UnexpectedKind(200, "UnexpectedKind", f"{what}: an event carries no {kind}; dropped unread")


def _parameter(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _place(obj: Json) -> tuple[str, str]:
    metadata = obj.get("metadata", {})
    return metadata.get("namespace", ""), metadata.get("name", "")


def _what(verb: str, resource: Resource, namespace: str = "", name: str = "", subresource: str = "") -> str:
    """What is tried, for messages: `patch secrets payments/ci`."""
    thing = f"{resource.qualified}/{subresource}" if subresource else resource.qualified
    where = f"{namespace}/{name}" if namespace and name else name or (f"in {namespace}" if namespace else "")
    return f"{verb} {thing} {where}".rstrip()


def _seconds(header: str | None) -> float | None:
    """Retry-After as seconds; the form with a date, which the API server never sends, counts as none."""
    try:
        return max(0.0, float(header)) if header else None
    except ValueError:
        return None
