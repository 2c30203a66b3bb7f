"""What the operator must be allowed to do, and which of it is missing: named at start, one line each."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from tenure.api.names import PROOF_ACCOUNT, STATE_CONFIG_MAP, Stage
from tenure.kube.client import Kube
from tenure.kube.resources import (
    CONFIG_MAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    EVENTS,
    GATEWAYS,
    GOVERNANCE_POLICIES,
    IDENTITY_DECISIONS,
    IDENTITY_EXCEPTIONS,
    IDENTITY_FINDINGS,
    IDENTITY_OWNERS,
    INGRESSES,
    OBSERVED_RESOURCES,
    OWN_RESOURCES,
    OWNED_IDENTITIES,
    PODS,
    QUARANTINE_GUARDS,
    QUARANTINES,
    SECRETS,
    SERVICE_ACCOUNTS,
    VALIDATING_ADMISSION_POLICIES,
    VALIDATING_ADMISSION_POLICY_BINDINGS,
    Resource,
)


@dataclass(frozen=True, slots=True)
class Right:
    """One verb on one resource, and what does not work without it."""

    verb: str
    resource: Resource
    needed_for: str
    subresource: str = ""
    name: str = ""
    home: bool = False
    """Needed in the operator's own namespace only."""
    stages: tuple[Stage, ...] = ()
    """The stages that are not to be had without it."""

    def __str__(self) -> str:
        what = self.resource.qualified + (f"/{self.subresource}" if self.subresource else "")
        return f"{self.verb} {what}" + (f" {self.name}" if self.name else "")


def needed() -> tuple[Right, ...]:
    """Every right of deploy/60-rbac.yaml that the operator uses."""
    rights = [
        Right(verb, resource, "the inventory")
        for resource in (*OBSERVED_RESOURCES, *OWN_RESOURCES)
        for verb in ("list", "watch", "get")
    ]
    rights += [
        Right("patch", resource, "answering in the status", subresource="status")
        for resource in (
            IDENTITY_OWNERS,
            OWNED_IDENTITIES,
            IDENTITY_EXCEPTIONS,
            IDENTITY_DECISIONS,
            GOVERNANCE_POLICIES,
        )
    ]
    rights += [
        Right(verb, resource, "findings and quarantines", stages=tuple(Stage))
        for resource in (IDENTITY_FINDINGS, QUARANTINES, QUARANTINE_GUARDS)
        for verb in ("create", "patch", "delete")
    ]
    rights += [
        Right("patch", QUARANTINES, "quarantines", subresource="status", stages=tuple(Stage)),
        Right("patch", SECRETS, "switching a token off and on", stages=(Stage.DISABLE_TOKENS,)),
        Right("delete", SECRETS, "revocation"),
        Right("delete", SERVICE_ACCOUNTS, "revocation"),
        Right("delete", IDENTITY_DECISIONS, "the end of the ledger's retention"),
        *(
            Right(verb, resource, "proving that kinds and admission policies are as this version needs them")
            for resource in (
                CUSTOM_RESOURCE_DEFINITIONS,
                VALIDATING_ADMISSION_POLICIES,
                VALIDATING_ADMISSION_POLICY_BINDINGS,
            )
            for verb in ("list", "watch")
        ),
        *(
            Right("list", resource, "naming what goes on using a quarantined Secret")
            for resource in (INGRESSES, GATEWAYS)
        ),
        Right("create", SERVICE_ACCOUNTS, "proving that the guards are in force", "token", PROOF_ACCOUNT, home=True),
        Right("create", PODS, "proving that the guards are in force", home=True),
        Right("create", EVENTS, "telling people through Events"),
        Right("create", CONFIG_MAPS, "the installation's memory", home=True),
        Right("get", CONFIG_MAPS, "the installation's memory", name=STATE_CONFIG_MAP, home=True),
        Right("patch", CONFIG_MAPS, "the installation's memory", name=STATE_CONFIG_MAP, home=True),
    ]
    return tuple(rights)


async def missing(
    kube: Kube, operator_namespace: str, namespaces: tuple[str, ...], rights: tuple[Right, ...] | None = None
) -> tuple[Right, ...]:
    """Those (of all that are needed) that the API server says are not there; in a restricted installation those missing
    in any of its namespaces. Raises ApiError when it cannot be asked."""

    async def has(right: Right) -> bool:
        if right.home:
            places: tuple[str, ...] = (operator_namespace,)
        elif right.resource.namespaced and namespaces:
            places = namespaces
        else:
            places = ("",)
        return all(
            [
                await kube.can(right.verb, right.resource, place, right.name, subresource=right.subresource)
                for place in places
            ]
        )

    rights = needed() if rights is None else rights
    answers = await asyncio.gather(*(has(right) for right in rights))
    return tuple(right for right, granted in zip(rights, answers, strict=True) if not granted)
