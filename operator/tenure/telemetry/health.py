"""`/metrics`, `/healthz` and `/readyz` on one port, served by the loop they speak for, with TLS where it is given a
certificate."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from aiohttp import web

from tenure.settings import SettingsError, host_and_port
from tenure.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

Check = Callable[[], str | None]
"""What is wrong, in words for the person who reads a probe's answer; None when nothing is."""

_SHUTDOWN_TIMEOUT: Final = 2.0
"""Seconds that requests under way may take when the server stops: a scrape is not worth a slow end."""
RENEWED_WITHIN: Final = 30.0
"""Seconds after which a certificate that was replaced is served: issuers replace them days before their end."""


class Certificate:
    """What the server proves itself with: a chain and its key, in files that are replaced when they are renewed."""

    def __init__(self, chain: Path, key: Path) -> None:
        """Raises SettingsError when there is no certificate with its key."""
        self._chain, self._key = chain, key
        self.context = _empty()
        self._seen: tuple[int, ...] = ()
        self._seen = self._stamp()
        try:
            self._load(self.context)
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"--metrics-certificate {chain}, --metrics-key {key}: no certificate with its key in PEM ({error})"
            ) from error

    def renew(self) -> None:
        """Takes up files that were replaced, for connections from now on; those that cannot be used are logged, and the
        certificate before stays."""
        now = self._stamp()
        if now == self._seen:
            return
        self._seen = now
        try:
            self._load(_empty())  # a half of a pair must not get into the one in use
            self._load(self.context)
        except (OSError, ValueError) as error:
            log.error("the new certificate %s cannot be used, the one before stays: %s", self._chain, error)
        else:
            log.info("serving with the new certificate %s", self._chain)

    def _load(self, context: ssl.SSLContext) -> None:
        # Without a password OpenSSL would ask the terminal for that of an encrypted key.
        context.load_cert_chain(self._chain, self._key, password=lambda: "")

    def _stamp(self) -> tuple[int, ...]:
        """Changes when a file does; while one is missing, as it is being replaced, nothing has changed."""
        try:
            return tuple(value for file in (self._chain, self._key) for value in _identity(file))
        except OSError:
            return self._seen


def _identity(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_ino, found.st_mtime_ns


def _empty() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class Server:
    """A running server; `address` is what it listens on, `host:port` with the real port."""

    def __init__(self, runner: web.AppRunner, renewing: asyncio.Task[None] | None) -> None:
        self._runner = runner
        self._renewing = renewing

    @property
    def address(self) -> str:
        host, port, *_ = self._runner.addresses[0]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def stop(self) -> None:
        """Closes the port and ends what is under way."""
        if self._renewing is not None:
            self._renewing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._renewing
        await self._runner.cleanup()


async def serve(
    address: str, metrics: Metrics, alive: Check, ready: Check, certificate: Certificate | None = None
) -> Server:
    """Listens on `address` (`:9464`, `127.0.0.1:0`), with TLS where there is a certificate. Both checks run on the
    event loop, so that a loop that stands still answers no probe at all: that, too, is an answer. Raises SettingsError
    for an address that is none, OSError for one that is taken."""
    host, port = host_and_port(address)

    async def scrape(request: web.Request) -> web.StreamResponse:
        content_type, body = metrics.exposition(request.headers.get("Accept", ""))
        response = web.StreamResponse(headers={"Content-Type": content_type})
        response.enable_compression()
        with contextlib.suppress(ConnectionResetError):  # whoever asked does not want the rest
            await response.prepare(request)
            async with contextlib.aclosing(body) as parts:
                async for part in parts:
                    await response.write(part)
            await response.write_eof()
        return response

    app = web.Application()
    app.router.add_get("/metrics", scrape)
    app.router.add_get("/healthz", _probe(alive))
    app.router.add_get("/readyz", _probe(ready))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_TIMEOUT)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, ssl_context=certificate.context if certificate else None).start()
    except OSError:
        await runner.cleanup()
        raise
    return Server(runner, asyncio.create_task(_renewing(certificate)) if certificate else None)


async def _renewing(certificate: Certificate) -> None:
    while True:
        await asyncio.sleep(RENEWED_WITHIN)
        certificate.renew()


def _probe(check: Check) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        wrong = check()
        return web.Response(text=f"{wrong or 'ok'}\n", status=503 if wrong else 200)

    return answer
