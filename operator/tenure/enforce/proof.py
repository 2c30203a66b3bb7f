"""The operator proves to itself that what enforces is in force, before it says that anything is quarantined.

Two things are looked at, live: whether the admission policies are bound and as they ship, and whether the API server
really refuses what a guard names, on a synthetic identity in the operator's own namespace, by a dry run. The watch on
the policies says when to look again; without a word from it, every hour.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from datetime import timedelta
from typing import Any, Final

from tenure.api.names import PROOF_ACCOUNT, Stage
from tenure.enforce.guards import Guards
from tenure.enforce.policies import is_as_shipped, shipped, stages_of
from tenure.kube.client import Kube
from tenure.kube.errors import Forbidden, NotFound
from tenure.kube.informer import Informer
from tenure.kube.resources import (
    SERVICE_ACCOUNTS,
    VALIDATING_ADMISSION_POLICIES,
    VALIDATING_ADMISSION_POLICY_BINDINGS,
)

log = logging.getLogger(__name__)

EVERY: Final = timedelta(hours=1)
AGAIN: Final = timedelta(seconds=2)
"""While something is not effective; the watch is faster where a policy was changed."""
NEEDED: Final = (Stage.GUARD, Stage.DISABLE_TOKENS)
"""Without them nothing is acted on."""
PROVEN: Final = (*NEEDED, Stage.DENY_WRITES)
_OURS: Final = {"labelSelector": "app.kubernetes.io/part-of=tenure"}
_TOKEN: Final = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}


class Proof:
    """What is wrong with each stage, and the watch that says when to look again."""

    def __init__(self, kube: Kube, guards: Guards, home: str, changed: Callable[[], None]) -> None:
        """`changed` is called when a policy or a binding changes."""
        self._kube = kube
        self._guards = guards
        self._home = home
        self._changed = changed
        self._said = ""
        self.faults: dict[Stage, str] = dict.fromkeys(PROVEN, "it was not proven yet")
        """Why a stage is not effective, "" when it is."""

    @property
    def fault(self) -> str:
        """The first thing that is wrong, "" when every stage that is needed is effective."""
        return next((self.faults[stage] for stage in NEEDED if self.faults[stage]), "")

    async def prove(self) -> str:
        """Looks at all of it now. Returns what is wrong, "" when every stage that is needed is effective. Raises
        ApiError when the API server cannot be asked."""
        faults = dict.fromkeys(PROVEN, "")
        try:
            for name, wrong in (await self._policies()).items():
                for stage in stages_of(name):
                    faults[stage] = faults[stage] or wrong
            faults[Stage.GUARD] = faults[Stage.GUARD] or await self._guard()
        except Forbidden as error:
            faults = dict.fromkeys(PROVEN, f"a right to prove it is missing: {error}")
        self.faults = faults
        if self.fault != self._said:
            if self.fault:
                log.error("enforcement is held, nothing is acted on: %s; `make install` puts it back", self.fault)
            elif self._said:
                log.info("enforcement is effective again")
            self._said = self.fault
        return self.fault

    async def _policies(self) -> dict[str, str]:
        """What is wrong, by `kind/name`."""
        found: dict[str, Any] = {}
        for resource in (VALIDATING_ADMISSION_POLICIES, VALIDATING_ADMISSION_POLICY_BINDINGS):
            async for page in self._kube.pages(resource, params=_OURS):
                for raw in page.get("items") or ():
                    found[f"{resource.kind}/{raw['metadata']['name']}"] = raw["spec"]
        wrong = {}
        for name, wanted in shipped().items():
            if name not in found:
                wrong[name] = f"{name} is missing"
            elif not is_as_shipped(found[name], wanted):
                wrong[name] = f"{name} is not as it was installed"
        return wrong

    async def _guard(self) -> str:
        """Whether the API server refuses a token to the synthetic identity, which the guard always names."""
        await self._guards.rebuild(self._home)
        path = SERVICE_ACCOUNTS.path(self._home, PROOF_ACCOUNT, "token")
        try:
            await self._kube.request("POST", path, body=_TOKEN, params={"dryRun": "All"})
        except Forbidden as error:
            if "tenure-guard-tokens" in str(error):
                return ""
            return f"a right to prove it is missing: {error}"
        except NotFound:
            return f"ServiceAccount {self._home}/{PROOF_ACCOUNT} is missing, on which the guard is proven"
        return f"the API server gave ServiceAccount {self._home}/{PROOF_ACCOUNT} a token that the guard refuses"

    def watch(self) -> list[asyncio.Task[Any]]:
        """Starts to watch policies and bindings; the caller ends the tasks."""
        return [
            asyncio.create_task(
                Informer(self._kube, resource, _Notice(self._changed), _version, params=_OURS).run(),
                name=f"proof-{resource.plural}",
            )
            for resource in (VALIDATING_ADMISSION_POLICIES, VALIDATING_ADMISSION_POLICY_BINDINGS)
        ]


def _version(raw: Any) -> tuple[str, int]:
    """What changes when the specification does; the API server writes a policy's status by itself."""
    metadata = raw["metadata"]
    return str(metadata["name"]), int(metadata.get("generation") or 0)


class _Notice:
    """A sink that keeps names and generations, and tells that something changed."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._held: dict[str, int] = {}

    def names(self) -> Collection[tuple[str, str]]:
        return [("", name) for name in self._held]

    def upsert(self, record: tuple[str, int], *, force: bool) -> None:
        name, generation = record
        if self._held.get(name) != generation:
            self._held[name] = generation
            self._changed()

    def remove(self, namespace: str, name: str, *, resource_version: int) -> None:
        if self._held.pop(name, None) is not None:
            self._changed()
