"""`tenure check`: an identity that nobody owns appears, and the operator finds it; it goes, and the finding ends."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final

from tenure.kube.client import Kube
from tenure.kube.errors import AlreadyExists, NotFound
from tenure.kube.resources import IDENTITY_FINDINGS, SERVICE_ACCOUNTS
from tenure.report.connection import Failure, connect, explained
from tenure.settings import Settings

IDENTITY: Final = "tenure-test-identity"
_INTERVAL: Final = 0.5  # seconds between two looks

Json = dict[str, Any]


def check(settings: Settings, namespace: str, timeout: float) -> None:
    """Prints each step; timeout, in seconds, is for each wait. The identity is gone afterwards. Raises Failure."""

    async def all_of_it() -> None:
        kube = await connect(settings)
        try:
            with explained(kube.server):
                await _check(kube, namespace, timeout, settings.operator_namespace)
        finally:
            await kube.close()

    asyncio.run(all_of_it())


async def _check(kube: Kube, namespace: str, patience: float, home: str) -> None:
    about = {"name": IDENTITY, "namespace": namespace, "labels": {"app.kubernetes.io/part-of": "tenure"}}
    identity = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": about, "automountServiceAccountToken": False}
    try:
        with contextlib.suppress(AlreadyExists):
            await kube.create(SERVICE_ACCOUNTS, identity)
        print(f"ServiceAccount {namespace}/{IDENTITY} is there, and nobody owns it.", flush=True)
        found = await _finding(kube, namespace, patience, ended=False)
        if found is None:
            raise Failure(
                f"the operator found nothing about it in {patience:g} s. Does it run, does it observe {namespace} "
                f"(kubectl get pods -n {home}), and does no claim or namespace label own what is there?"
            )
        print(f"Found: identityfinding/{found['metadata']['name']}, {found['spec']['rule']}.", flush=True)
    finally:
        with contextlib.suppress(NotFound):
            await kube.delete(SERVICE_ACCOUNTS, IDENTITY, namespace)
    if await _finding(kube, namespace, patience, ended=True) is None:
        raise Failure(f"the identity is gone, and its finding has not ended in {patience:g} s.")
    print("The identity is gone, and its finding has ended.", flush=True)


async def _finding(kube: Kube, namespace: str, patience: float, *, ended: bool) -> Json | None:
    """The finding Unowned about it, once it is open (or has ended); None when it was not to be seen in time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    while loop.time() < deadline:
        async for page in kube.pages(IDENTITY_FINDINGS, namespace):
            for item in page.get("items") or ():
                spec: Json = item["spec"]
                phase = item.get("status", {}).get("phase")
                if (spec["rule"], spec["subject"]["name"]) == ("Unowned", IDENTITY) and (phase == "Resolved") == ended:
                    return dict(item)
        await asyncio.sleep(_INTERVAL)
    return None
