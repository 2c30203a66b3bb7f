"""The operator proves to itself that what enforces is in force, before it says that anything is quarantined.

Looked at, live: whether the kinds know every field of this version; whether the admission policies are bound and as
they ship; whether the API server really refuses what the guards name, by dry runs about a synthetic identity in the
operator's own namespace; and whether it really refuses the token of that identity, which is switched off. The watch on
kinds and policies says when to look again; without a word from it, every hour, and then the operator's rights are
looked at too.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from tenure.api.names import LABEL_TOKEN_INVALID_SINCE, LABEL_TOKEN_LAST_USED, PROOF_ACCOUNT, PROOF_TOKEN, Stage
from tenure.enforce import tokens
from tenure.enforce.guards import Guards
from tenure.enforce.kinds import older
from tenure.enforce.policies import but_for, is_as_shipped, shipped, stages_of
from tenure.kube.client import JSON, MERGE_PATCH, METADATA, Kube
from tenure.kube.errors import Forbidden, Invalid, NotFound, Unauthorized
from tenure.kube.informer import Informer
from tenure.kube.resources import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    CONFIG_MAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    PODS,
    ROLE_BINDINGS,
    SECRETS,
    SERVICE_ACCOUNTS,
    VALIDATING_ADMISSION_POLICIES,
    VALIDATING_ADMISSION_POLICY_BINDINGS,
    Resource,
)
from tenure.model.keys import Key
from tenure.rights import missing, needed

log = logging.getLogger(__name__)

PROVE: Final = Key("", "", "prove")
"""Stands in the queue for "look whether what enforces is in force"."""
EVERY: Final = timedelta(hours=1)
AGAIN: Final = timedelta(seconds=2)
"""While something is not effective; the watch is faster where a policy was changed."""
NEEDED: Final = (Stage.GUARD, Stage.DISABLE_TOKENS)
"""Without them nothing is acted on."""
OPT_IN: Final = (Stage.REMOVE_ENTITLEMENTS, Stage.DENY_WRITES)
PROVEN: Final = (*NEEDED, *OPT_IN)
_OURS: Final = {"labelSelector": "app.kubernetes.io/part-of=tenure"}


@dataclass(frozen=True, slots=True)
class Probe:
    """A dry run that a policy must refuse: a creation, or a patch of what has this name."""

    policy: str
    what: str
    resource: Resource
    body: Mapping[str, Any]
    name: str = ""
    subresource: str = ""
    patch: bool = False

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Those that are not effective without the policy."""
        return stages_of(f"{VALIDATING_ADMISSION_POLICIES.kind}/{self.policy}")


PROBES: Final = (
    Probe(
        "tenure-guard-tokens",
        f"a token of ServiceAccount {PROOF_ACCOUNT}",
        SERVICE_ACCOUNTS,
        {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}},
        name=PROOF_ACCOUNT,
        subresource="token",
    ),
    Probe(
        "tenure-guard-pods",
        f"a pod as ServiceAccount {PROOF_ACCOUNT}",
        PODS,
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": PROOF_ACCOUNT},
            # The namespace enforces the pod security standard `restricted`, which is asked first.
            "spec": {
                "serviceAccountName": PROOF_ACCOUNT,
                "automountServiceAccountToken": False,
                "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [
                    {
                        "name": "none",
                        "image": "tenure.invalid/none",
                        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                    }
                ],
            },
        },
    ),
    Probe(
        "tenure-guard-secrets",
        f"the label of Secret {PROOF_TOKEN} taken off",
        SECRETS,
        {"metadata": {"labels": {LABEL_TOKEN_INVALID_SINCE: None}}},
        name=PROOF_TOKEN,
        patch=True,
    ),
    Probe(
        "tenure-deny-writes",
        f"a write by ServiceAccount {PROOF_ACCOUNT}",
        CONFIG_MAPS,
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": PROOF_ACCOUNT}},
    ),
)


class Proof:
    """What is wrong with each stage, and the watch that says when to look again."""

    def __init__(
        self,
        kube: Kube,
        guards: Guards,
        home: str,
        observed: tuple[str, ...],
        changed: Callable[[], None],
        platform: tuple[str, ...] = (),
    ) -> None:
        """`observed` are the namespaces of a restricted installation; `changed` is called when a policy or a binding
        changes; `platform` are the namespaces that the guards may skip beside kube-*."""
        self._kube = kube
        self._guards = guards
        self._home = home
        self._observed = observed
        self._changed = changed
        self._platform = platform
        self._said = ""
        self._lacking: dict[Stage, str] = {}
        self.older_kinds = ""
        """What the cluster's kinds do not know of this version's, "" when they know all."""
        self._absent: frozenset[Stage] = frozenset()
        self.faults: dict[Stage, str] = dict.fromkeys(PROVEN, "it was not proven yet")
        """Why a stage is not effective, "" when it is."""

    @property
    def fault(self) -> str:
        """The first thing that is wrong, "" when every stage that is needed is effective."""
        return next((self.faults[stage] for stage in NEEDED if self.faults[stage]), "")

    @property
    def reason(self) -> str:
        """What kind of thing that is; a key of decide.held.HELD."""
        return "MissingRight" if any(self._lacking.get(stage) for stage in NEEDED) else "NotEffective"

    @property
    def settled(self) -> bool:
        """Whether every stage is effective, but for those that are opt-in and not installed."""
        return not any(fault for stage, fault in self.faults.items() if stage not in self._absent)

    async def look_at_rights(self) -> None:
        """Which rights the stages lack. Raises ApiError when the API server cannot be asked."""
        rights = tuple(right for right in needed() if right.stages)
        lacking: dict[Stage, str] = {}
        for right in await missing(self._kube, self._home, self._observed, rights):
            for stage in right.stages:
                lacking.setdefault(stage, f"the operator lacks the right to {right}")
        self._lacking = lacking

    async def prove(self) -> str:
        """Looks at all else now. Returns what is wrong, "" when every stage that is needed is effective. Raises
        ApiError when the API server cannot be asked."""
        found = list(self._lacking.items())
        try:
            await self.look_at_kinds()
            # With older ones neither guards nor findings can be written as this version means them.
            found += [(stage, self.older_kinds) for stage in PROVEN] if self.older_kinds else await self._enforcing()
        except Forbidden as error:
            found += [(stage, f"a right to prove it is missing: {error}") for stage in PROVEN]
        faults = dict.fromkeys(PROVEN, "")
        for stage, fault in found:
            if stage in faults:
                faults[stage] = faults[stage] or fault
        self.faults = faults
        if self.fault != self._said:
            if self.fault:
                log.error("enforcement is held, nothing is acted on: %s; `make install` puts it back", self.fault)
            elif self._said:
                log.info("enforcement is effective again")
            self._said = self.fault
        return self.fault

    async def _enforcing(self) -> list[tuple[Stage, str]]:
        """What is wrong with what enforces, by stage; "" where nothing is."""
        await self._guards.rebuild(self._home)
        wrong = await self._policies()
        found = [(stage, said) for name, said in wrong.items() for stage in stages_of(name)]
        broken = {stage for stage, _ in [*self._lacking.items(), *found]}
        probes = [probe for probe in PROBES if not broken.issuperset(probe.stages)]
        label = [] if Stage.DISABLE_TOKENS in broken else [self._label()]
        said = await asyncio.gather(*(self._refused(probe) for probe in probes), *label)
        for probe, fault in zip(probes, said, strict=False):
            found += [(stage, fault) for stage in probe.stages]
        found += [(Stage.DISABLE_TOKENS, fault) for fault in said[len(probes) :]]
        if Stage.REMOVE_ENTITLEMENTS not in broken:
            found += [(Stage.REMOVE_ENTITLEMENTS, await self._entitlements())]
        return found

    async def _policies(self) -> dict[str, str]:
        """What is wrong, by `kind/name`."""
        found: dict[str, Any] = {}
        for resource in (VALIDATING_ADMISSION_POLICIES, VALIDATING_ADMISSION_POLICY_BINDINGS):
            async for page in self._kube.pages(resource, params=_OURS):
                for raw in page.get("items") or ():
                    found[f"{resource.kind}/{raw['metadata']['name']}"] = raw["spec"]
        wrong = {}
        as_shipped = shipped(self._home)
        for name, wanted in as_shipped.items():
            if name not in found:
                wrong[name] = f"{name} is missing"
            elif not is_as_shipped(but_for(self._platform, found[name]), wanted):
                wrong[name] = f"{name} is not as it was installed"
        there = {stages_of(name) for name in found if name in as_shipped}
        self._absent = frozenset(stage for stage in OPT_IN if (stage,) not in there)
        return wrong

    async def look_at_kinds(self) -> None:
        """What is wrong with our CustomResourceDefinitions. They are changed before the API server serves objects by
        them: whatever was read by older ones is found out right after. Raises ApiError."""
        found: dict[str, Any] = {}
        async for page in self._kube.pages(CUSTOM_RESOURCE_DEFINITIONS, params=_OURS):
            found |= {raw["metadata"]["name"]: raw["spec"] for raw in page.get("items") or ()}
        self.older_kinds = older(found)

    async def _entitlements(self) -> str:
        """Whether bindings may be changed: opt-in, and only where the policies that hold that right are in force."""
        for verb, resource in (("patch", ROLE_BINDINGS), ("patch", CLUSTER_ROLE_BINDINGS), ("bind", CLUSTER_ROLES)):
            if not await self._kube.can(verb, resource):
                return f"the right to {verb} {resource.qualified} is missing"
        return ""

    async def _refused(self, probe: Probe) -> str:
        """What is wrong when the API server does not refuse the dry run in the policy's name."""
        try:
            await self._kube.request(
                "PATCH" if probe.patch else "POST",
                probe.resource.path(self._home, probe.name, probe.subresource),
                body=probe.body,
                params={"dryRun": "All"},
                accept=METADATA if probe.resource.sensitive else JSON,
                content_type=MERGE_PATCH if probe.patch else JSON,
            )
        except Forbidden as error:
            if f"'{probe.policy}'" in str(error):
                return ""
            return f"{probe.policy} was not seen to refuse {probe.what} in {self._home}: {error}"
        except (NotFound, Invalid) as error:
            return f"{probe.policy} cannot be proven by a dry run of {probe.what} in {self._home}: {error}"
        return f"the API server lets pass, in a dry run, {probe.what} in {self._home}, which {probe.policy} refuses"

    async def _label(self) -> str:
        """Whether the API server refuses the synthetic token for its label, and for nothing else.

        It stamps the day of a refused attempt only after everything else about the token was found right: the stamp
        is what tells this refusal from any other. While the label is on, nothing of it stands in the token cache; so
        it is not tried without. Of all Secrets this one's value is read, and nothing of it is kept."""
        where = f"Secret {self._home}/{PROOF_TOKEN}"
        try:
            raw = await self._kube.get(SECRETS, PROOF_TOKEN, self._home, metadata_only=False)
        except NotFound:
            return f"{where} is missing, on which the label is proven"
        if not tokens.label(raw["metadata"], LABEL_TOKEN_INVALID_SINCE):
            return f"{where} lacks the label {LABEL_TOKEN_INVALID_SINCE}, which is proven on it"
        token = base64.b64decode((raw.get("data") or {}).get("token", "")).decode()
        if not token:
            return f"{where} holds no token yet, on which the label is proven"

        async def give() -> str:
            return token

        attempt = self._kube.as_token(give)
        try:
            await attempt.self_user()
        except Unauthorized:
            pass
        else:
            return f"the API server accepts the token of {where}, though it is switched off"
        finally:
            await attempt.close()
        # The day before is as good: midnight may lie between the two.
        since = (self._kube.clock.now() - timedelta(days=1)).strftime("%Y-%m-%d")
        after = await tokens.read(self._kube, self._home, PROOF_TOKEN, raw["metadata"]["uid"])
        if after is None or (tokens.label(after, LABEL_TOKEN_LAST_USED) or "") < since:
            return f"the API server refuses the token of {where} for another reason than its label"
        return ""

    def watch(self) -> list[asyncio.Task[Any]]:
        """Starts to watch kinds, policies and bindings; the caller ends the tasks."""
        return [
            asyncio.create_task(
                Informer(self._kube, resource, _Notice(self._changed), _version, params=_OURS).run(),
                name=f"proof-{resource.plural}",
            )
            for resource in (
                CUSTOM_RESOURCE_DEFINITIONS,
                VALIDATING_ADMISSION_POLICIES,
                VALIDATING_ADMISSION_POLICY_BINDINGS,
            )
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
