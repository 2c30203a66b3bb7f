"""The three paths, over a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest

from tenure.settings import SettingsError
from tenure.telemetry.health import Server, serve
from tenure.telemetry.metrics import Metrics
from tenure.telemetry.observed import Nothing


def fine() -> None:
    return None


@asynccontextmanager
async def running(
    alive: Callable[[], str | None] = fine, ready: Callable[[], str | None] = fine
) -> AsyncIterator[tuple[Server, aiohttp.ClientSession]]:
    server = await serve("127.0.0.1:0", Metrics(observed=Nothing()), alive, ready)
    async with aiohttp.ClientSession(f"http://{server.address}") as session:
        yield server, session
    await server.stop()


async def test_metrics_as_text_and_as_openmetrics() -> None:
    async with running() as (_, session):
        async with session.get("/metrics") as answer:
            assert answer.status == 200
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            assert "tenure_tripwire_attempts_total 0" in await answer.text()
        async with session.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}) as answer:
            assert answer.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
            assert answer.headers["Content-Encoding"] in ("gzip", "deflate")
            assert (await answer.text()).endswith("# EOF\n")


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_a_probe_says_what_is_wrong(path: str) -> None:
    wrong: list[str] = []
    async with running(lambda: wrong[0] if wrong else None, lambda: wrong[0] if wrong else None) as (_, session):
        async with session.get(path) as answer:
            assert (answer.status, await answer.text()) == (200, "ok\n")
        wrong.append("secrets: not listed yet (forbidden: list secrets)")
        async with session.get(path) as answer:
            assert (answer.status, await answer.text()) == (503, "secrets: not listed yet (forbidden: list secrets)\n")


async def test_each_probe_has_its_own_check() -> None:
    async with running(ready=lambda: "no") as (_, session):
        async with session.get("/healthz") as answer:
            assert answer.status == 200
        async with session.get("/readyz") as answer:
            assert answer.status == 503


async def test_a_taken_port_and_no_address() -> None:
    async with running() as (server, _):
        with pytest.raises(OSError):
            await serve(server.address, Metrics(observed=Nothing()), fine, fine)
    with pytest.raises(SettingsError):
        await serve("9464", Metrics(observed=Nothing()), fine, fine)
