"""`/metrics`, `/healthz` and `/readyz` on one port, served by the loop they speak for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from tenure.settings import host_and_port
from tenure.telemetry.metrics import Metrics

Check = Callable[[], str | None]
"""What is wrong, in words for the person who reads a probe's answer; None when nothing is."""

_SHUTDOWN_TIMEOUT: Final = 2.0
"""Seconds that requests under way may take when the server stops: a scrape is not worth a slow end."""
_IN_A_THREAD: Final = 64 * 1024


class Server:
    """A running server; `address` is what it listens on, `host:port` with the real port."""

    def __init__(self, runner: web.AppRunner) -> None:
        self._runner = runner

    @property
    def address(self) -> str:
        host, port, *_ = self._runner.addresses[0]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def stop(self) -> None:
        """Closes the port and ends what is under way."""
        await self._runner.cleanup()


async def serve(address: str, metrics: Metrics, alive: Check, ready: Check) -> Server:
    """Listens on `address` (`:9464`, `127.0.0.1:0`). Both checks run on the event loop, so that a loop that stands
    still answers no probe at all: that, too, is an answer. Raises SettingsError for an address that is none, OSError
    for one that is taken."""
    host, port = host_and_port(address)

    async def scrape(request: web.Request) -> web.Response:
        body, content_type = await metrics.exposition(request.headers.get("Accept", ""))
        # A scrape of 10,000 findings is 5 MB: above this many bytes the compression leaves the loop's thread.
        response = web.Response(body=body, headers={"Content-Type": content_type}, zlib_executor_size=_IN_A_THREAD)
        response.enable_compression()
        return response

    app = web.Application()
    app.router.add_get("/metrics", scrape)
    app.router.add_get("/healthz", _probe(alive))
    app.router.add_get("/readyz", _probe(ready))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_TIMEOUT)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError:
        await runner.cleanup()
        raise
    return Server(runner)


def _probe(check: Check) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        wrong = check()
        return web.Response(text=f"{wrong or 'ok'}\n", status=503 if wrong else 200)

    return answer
