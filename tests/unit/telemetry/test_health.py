"""The three paths, over a real socket."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509

from tenure.settings import SettingsError
from tenure.telemetry import health
from tenure.telemetry.health import Certificate, Server, serve
from tenure.telemetry.metrics import Metrics
from tenure.telemetry.observed import Nothing
from tests.support.pki import Authority
from tests.unit.telemetry.test_metrics import Engine, many


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


# TLS ------------------------------------------------------------------------------------------------------------------


async def served(port: int) -> str:
    """The common name of the certificate that a new connection is shown."""
    shown = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port))
    [name] = x509.load_pem_x509_certificate(shown.encode()).subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(name.value)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_tls_and_a_certificate_that_is_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(health, "RENEWED_WITHIN", 0.02)
    authority = Authority(tmp_path)
    chain, key = authority.issue("tls", "first", addresses=["127.0.0.1"])
    certificate = Certificate(chain, key)
    server = await serve("127.0.0.1:0", Metrics(observed=Nothing()), fine, fine, certificate)
    port = int(server.address.rpartition(":")[2])
    trusting = ssl.create_default_context(cafile=str(authority.certificate_file))
    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting, force_close=True)) as session:
            for path in ("/metrics", "/healthz", "/readyz"):
                async with session.get(f"https://{server.address}{path}") as answer:
                    assert answer.status == 200
            with pytest.raises(aiohttp.ClientError):
                await session.get(f"http://{server.address}/metrics")

            def replace(name: str, *files: Path) -> None:
                """As a Secret's volume does it: the files are others, at once."""
                for old, new in zip(files, authority.issue(name, name, addresses=["127.0.0.1"]), strict=False):
                    new.replace(old)

            caplog.set_level("INFO")
            replace("half", chain)  # the key is still the first one's
            await until(lambda: "cannot be used, the one before stays" in caplog.text)
            assert await served(port) == "first"
            chain.unlink()
            await asyncio.sleep(0.05)
            assert await served(port) == "first"
            replace("second", chain, key)
            await until(lambda: "serving with the new certificate" in caplog.text)
            assert await served(port) == "second"
            async with session.get(f"https://{server.address}/readyz") as answer:
                assert answer.status == 200
    finally:
        await server.stop()


def test_older_tls_is_refused(tmp_path: Path) -> None:
    certificate = Certificate(*Authority(tmp_path).issue("tls", "tls", addresses=["127.0.0.1"]))
    assert certificate.context.minimum_version == ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("wrong", ["missing", "another's key", "no PEM"])
def test_what_is_no_certificate_with_its_key(tmp_path: Path, wrong: str) -> None:
    authority = Authority(tmp_path)
    chain, key = authority.issue("tls", "tls")
    match wrong:
        case "missing":
            chain.unlink()
        case "another's key":
            _, key = authority.issue("other", "other")
        case _:
            key.write_text("no key")
    with pytest.raises(SettingsError, match=r"--metrics-certificate .*tls\.crt, --metrics-key .*: no certificate"):
        Certificate(chain, key)


async def test_a_scraper_that_goes_away_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    server = await serve("127.0.0.1:0", Metrics(observed=Engine(many(10_000))), fine, fine)
    try:
        host, _, port = server.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: tenure\r\n\r\n")
        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        writer.transport.abort()
        async with aiohttp.ClientSession() as session, session.get(f"http://{server.address}/metrics") as answer:
            assert "tenure_finding_opened_timestamp_seconds" in await answer.text()  # the next is answered
    finally:
        await server.stop()
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
