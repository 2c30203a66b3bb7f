"""Fills a control plane with the benchmark's objects: concurrent, bounded, and ending by itself.

As a command, to have a loaded cluster to look at: `python -m tests.scale.load --scale 1` with $KUBECONFIG set.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import aiohttp

from tests.scale import objects
from tests.support.rest import Credentials

IN_FLIGHT: Final = 32
"""Requests at once: enough to keep two cores busy, few enough that none waits for seconds."""
_TRIES: Final = 5

Say = Callable[[str], None]


class LoadError(RuntimeError):
    """An object was refused; the message carries the API server's answer."""


def tls(credentials: Credentials) -> ssl.SSLContext:
    """The TLS of a kubeconfig's user."""
    context = ssl.create_default_context(cafile=credentials.ca_file)
    if credentials.certificate:
        context.load_cert_chain(*credentials.certificate)
    return context


async def load(kubeconfig: Path, scale: int, say: Say) -> float:
    """Creates everything; an object that is there already is left as it is. Returns the seconds it took."""
    started = time.monotonic()
    credentials = Credentials.from_kubeconfig(kubeconfig)
    connector = aiohttp.TCPConnector(limit=IN_FLIGHT, ssl=tls(credentials))
    async with aiohttp.ClientSession(credentials.server, connector=connector, trust_env=False) as session:
        for wave in objects.waves(scale):
            began = time.monotonic()
            async with asyncio.TaskGroup() as group:
                workers = [group.create_task(_work(session, wave.objects)) for _ in range(IN_FLIGHT)]
            count = sum(worker.result() for worker in workers)
            spent = time.monotonic() - began
            say(f"{count} objects ({wave.what}) in {spent:.1f} s: {count / spent:.0f} a second")
        await _until_filled(session, scale)
    return time.monotonic() - started


async def _work(session: aiohttp.ClientSession, queue: Iterator[tuple[str, objects.Json]]) -> int:
    done = 0
    for path, manifest in queue:  # shared by the workers: one thread, so each object goes to one of them
        await _create(session, path, manifest)
        done += 1
    return done


async def _create(session: aiohttp.ClientSession, path: str, manifest: objects.Json) -> None:
    body = json.dumps(manifest).encode()
    for attempt in range(_TRIES):
        async with session.post(path, data=body, headers={"Content-Type": "application/json"}) as answer:
            text = await answer.read()
            if answer.status in (201, 409):
                return
            if answer.status not in (429, 500, 503, 504) or attempt == _TRIES - 1:
                name = manifest["metadata"]["name"]
                raise LoadError(f"{path} {name}: {answer.status} {text[:500].decode(errors='replace')}")
        await asyncio.sleep(0.5 * 2**attempt)


async def _until_filled(session: aiohttp.ClientSession, scale: int) -> None:
    """Until the token controller has filled every token Secret: it writes them once more."""
    wanted = objects.APPLICATIONS * objects.NAMESPACES * scale
    filled, deadline = 0, time.monotonic() + 600
    while time.monotonic() < deadline:
        filled = await _filled(session)
        if filled >= wanted:
            return
        await asyncio.sleep(1)
    raise LoadError(f"the token controller filled {filled} of {wanted} token Secrets")


async def _filled(session: aiohttp.ClientSession) -> int:
    filled, query = 0, {"fieldSelector": "type=kubernetes.io/service-account-token", "limit": "500"}
    while True:
        async with session.get("/api/v1/secrets", params=query) as answer:
            page: dict[str, Any] = await answer.json()
        filled += sum("data" in item for item in page["items"])
        if not page["metadata"].get("continue"):
            return filled
        query["continue"] = page["metadata"]["continue"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.scale.load", description=__doc__)
    parser.add_argument("--scale", type=int, default=1)
    options = parser.parse_args()
    seconds = asyncio.run(load(Path(os.environ["KUBECONFIG"]), options.scale, lambda text: print(text, flush=True)))
    print(f"loaded in {seconds:.0f} s")


if __name__ == "__main__":
    main()
