"""Reads live what a judgement rests on, into the inventory, so that the evaluator judges again on it.

A watch may lag, and a claim made a second ago must stop an act that is a second away. What is read here is what can
end a finding: the subject, its namespace, the claims and exceptions there, the owners and the policies, and what people
decided about the findings, the exceptions on the subject and its Quarantine.
"""

from __future__ import annotations

from collections.abc import Collection

from tenure.api.names import TYPE_SERVICE_ACCOUNT_TOKEN
from tenure.inventory import entitlements
from tenure.inventory.projection import PROJECTIONS
from tenure.inventory.sources import read_live
from tenure.inventory.store import Store
from tenure.kube.client import Kube
from tenure.kube.informer import Rows
from tenure.kube.resources import (
    GOVERNANCE_POLICIES,
    IDENTITY_DECISIONS,
    IDENTITY_EXCEPTIONS,
    IDENTITY_OWNERS,
    OWNED_IDENTITIES,
    SECRETS,
    Resource,
)
from tenure.model.keys import Key
from tenure.model.records import Binding, Secret, ServiceAccount
from tenure.rules import exceptions

_FEW = 8
"""Objects whose decisions are read one by one; of more, the whole namespace's are."""


async def refresh(kube: Kube, store: Store, key: Key) -> None:
    """Raises ApiError when anything of it cannot be read: then nothing may be done."""
    await one(kube, store, Key("Namespace", "", key.namespace))
    await one(kube, store, key)
    if key.kind == "ServiceAccount":
        await _tokens(kube, store, key.namespace)
    record = store.get(key)
    if isinstance(record, Secret) and record.service_account:
        await one(kube, store, Key("ServiceAccount", key.namespace, record.service_account))
    claimed = key.namespace
    if isinstance(record, Binding):
        await one(kube, store, Key(record.role_kind, record.namespace, record.role_name))
        account = entitlements.within(store, record).get(key)
        if account is not None:
            claimed = account[0]
            await one(kube, store, Key("Namespace", "", claimed))
            await one(kube, store, Key("ServiceAccount", *account))
    for resource, namespace in (
        (OWNED_IDENTITIES, claimed),
        (IDENTITY_EXCEPTIONS, key.namespace),
        (IDENTITY_OWNERS, ""),
        (GOVERNANCE_POLICIES, ""),
    ):
        await _all(kube, store, resource, namespace)
    await _decisions(kube, store, key)


async def one(kube: Kube, store: Store, key: Key) -> None:
    """Brings one record to what the API server has this instant."""
    record = await read_live(kube, key)
    if record is None:
        store.remove(key.kind, key.namespace, key.name)
    else:
        store.upsert(key.kind, record)


async def decisions(kube: Kube, store: Store, namespace: str, uids: Collection[str]) -> None:
    """Every decision that names one of these uids, as it stands now."""
    if len(uids) > _FEW:
        await _all(kube, store, IDENTITY_DECISIONS, namespace)
        return
    for uid in sorted(uids):
        held = {made.name for made in store.decisions_about(namespace, uid)}
        version = 0
        async for page in kube.pages(IDENTITY_DECISIONS, namespace, params={"fieldSelector": f"spec.target.uid={uid}"}):
            version = int(page["metadata"].get("resourceVersion") or 0)
            for raw in page.get("items") or ():
                record = PROJECTIONS["IdentityDecision"](raw)
                store.upsert("IdentityDecision", record)
                held.discard(record.name)
        for name in held:
            store.remove("IdentityDecision", namespace, name, resource_version=version)


async def _tokens(kube: Kube, store: Store, namespace: str) -> None:
    """Every service-account-token Secret of the namespace as it stands now."""
    rows, found = Rows(), set()
    selector = {"fieldSelector": f"type={TYPE_SERVICE_ACCOUNT_TOKEN}"}
    async for page in kube.pages(SECRETS, namespace, params=selector):
        for raw in rows.listed(page):
            record = PROJECTIONS["Secret"](raw)
            store.upsert("Secret", record)
            found.add(record.name)
    for held in store.secrets_in(namespace):
        if held.type == TYPE_SERVICE_ACCOUNT_TOKEN and held.name not in found:
            store.remove("Secret", namespace, held.name)


async def _decisions(kube: Kube, store: Store, key: Key) -> None:
    """What was decided about the subject's findings, and about the exceptions that target it, as it stands now."""
    uids = {finding.uid for finding in store.findings_about(key)}
    record = store.get(key)
    if isinstance(record, ServiceAccount | Secret | Binding):
        uids |= {found.uid for found in exceptions.about(store.exceptions_in(key.namespace), key.kind, record)}
    await decisions(kube, store, key.namespace, uids)


async def _all(kube: Kube, store: Store, resource: Resource, namespace: str) -> None:
    held = {name for _, name in store.names(resource.kind, namespace if resource.namespaced else None)}
    version = 0
    async for page in kube.pages(resource, namespace):
        version = int(page["metadata"].get("resourceVersion") or 0)
        for raw in page.get("items") or ():
            record = PROJECTIONS[resource.kind](raw)
            store.upsert(resource.kind, record)
            held.discard(record.name)
    for name in held:
        store.remove(resource.kind, namespace if resource.namespaced else "", name, resource_version=version)
