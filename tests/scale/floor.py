"""The floor: what a client that does nothing else needs to list the same objects from the same API server.

aiohttp and json, nothing of Tenure; every kind at once, each in pages of 500, Secrets as Table, a tuple kept per row.
Run in a process of its own, so that its processor time and memory are nobody else's: prints one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import ssl
import sys
import time
from typing import Any

import aiohttp

PAGE = 500
TABLE = "application/json;as=Table;g=meta.k8s.io;v=v1"
CORE, RBAC, OWN = "/api/v1", "/apis/rbac.authorization.k8s.io/v1", "/apis/tenure.dev/v1alpha1"
PATHS = (
    *(f"{CORE}/{plural}" for plural in ("secrets", "pods", "serviceaccounts", "namespaces")),
    *(f"{RBAC}/{plural}" for plural in ("rolebindings", "clusterrolebindings", "roles", "clusterroles")),
    *(
        f"{OWN}/{plural}"
        for plural in (
            "identityowners",
            "ownedidentities",
            "identityexceptions",
            "identitydecisions",
            "identityfindings",
            "quarantines",
            "quarantineguards",
            "governancepolicies",
        )
    ),
)
"""The kinds of Tenure's inventory."""

Row = tuple[Any, ...]


def row(item: dict[str, Any]) -> Row:
    """What is kept of an object: who it is, of which age, and the one field beside that a question would be about."""
    metadata = item["metadata"]
    spec = item.get("spec") or {}
    about = spec.get("serviceAccountName") or (item.get("roleRef") or {}).get("name")
    return (metadata.get("namespace"), metadata["name"], metadata["uid"], metadata["creationTimestamp"], about)


async def listed(session: aiohttp.ClientSession, path: str) -> list[Row]:
    """Every object of one kind."""
    table = path.endswith("/secrets")
    rows: list[Row] = []
    token = ""
    while True:
        query = {"limit": str(PAGE)} | ({"continue": token} if token else {})
        headers = {"Accept": TABLE if table else "application/json", "Accept-Encoding": "identity"}
        async with session.get(path, params=query, headers=headers) as answer:
            answer.raise_for_status()
            page = json.loads(await answer.read())
        if table:
            rows += [(*row(entry["object"])[:4], entry["cells"][1]) for entry in page["rows"]]
        else:
            rows += [row(item) for item in page["items"] or ()]
        token = page["metadata"].get("continue", "")
        if not token:
            return rows


async def everything(server: str, context: ssl.SSLContext) -> dict[str, list[Row]]:
    connector = aiohttp.TCPConnector(ssl=context)
    async with aiohttp.ClientSession(server, connector=connector, trust_env=False) as session:
        found = await asyncio.gather(*(listed(session, path) for path in PATHS))
    return dict(zip(PATHS, found, strict=True))


def main() -> None:
    """Arguments: the server's URL, its CA file, and the client's certificate and key files."""
    server, ca_file, certificate, key = sys.argv[1:]
    context = ssl.create_default_context(cafile=ca_file)
    context.load_cert_chain(certificate, key)
    started = time.time()
    found = asyncio.run(everything(server, context))
    ended = time.time()
    used = resource.getrusage(resource.RUSAGE_SELF)
    figures = {
        "ended": ended,
        "listing": ended - started,
        "cpu": used.ru_utime + used.ru_stime,
        "peak_mib": used.ru_maxrss / 1024,
        "objects": sum(len(rows) for rows in found.values()),
    }
    print(json.dumps(figures), flush=True)
    os._exit(0)  # what the end of an interpreter takes with a hundred thousand tuples is nobody's question


if __name__ == "__main__":
    main()
