"""The informers and the store on the real API server: what is there, what changes, and what breaks on the way."""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tenure.inventory.projection import LAST_APPLIED
from tenure.inventory.sources import Informers, read_live
from tenure.inventory.store import Store
from tenure.kube import resources as r
from tenure.kube.client import Kube
from tenure.kube.informer import Informer
from tenure.model.keys import Key
from tenure.model.records import Subject
from tests.support.cluster import Cluster
from tests.support.proxy import CutMidLine, FaultProxy, Refuse

CANARY = "canary-77d1c2b0"
CANARY64 = base64.b64encode(CANARY.encode()).decode()
RBAC = "rbac.authorization.k8s.io"


async def until(condition: Callable[[], Any], what: str = "", timeout: float = 60.0) -> Any:  # noqa: ASYNC109
    """Lets the loop turn until the condition holds; returns its value."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {timeout} s: {what or condition}"
        await asyncio.sleep(0.01)
    return value


@asynccontextmanager
async def observing(
    kubeconfig: Path, context: str | None = None, **options: Any
) -> AsyncIterator[tuple[Store, Informers]]:
    """A store fed by informers until the block ends."""
    kube = await Kube.connect(str(kubeconfig), context)
    store = Store()
    informers = Informers(kube, store, **options)
    informers.start()
    try:
        yield store, informers
    finally:
        await informers.stop()
        await kube.close()


@pytest.fixture
async def observed(installed: Cluster) -> AsyncIterator[tuple[Store, Informers]]:
    async with observing(installed.kubeconfig, installed.context) as pair:
        await asyncio.wait_for(pair[1].wait_synced(), 60)
        yield pair


def secret(namespace: str, name: str, **more: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "stringData": {"password": CANARY},
        **more,
    }


def account(namespace: str, name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}


def role_binding(namespace: str, name: str, role: str, *accounts: str, kind: str = "ClusterRole") -> dict[str, Any]:
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": name, "namespace": namespace},
        "roleRef": {"apiGroup": RBAC, "kind": kind, "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": one} for one in accounts],
    }


def claim(namespace: str, name: str, owner: str = "payments") -> dict[str, Any]:
    return {
        "apiVersion": "tenure.dev/v1alpha1",
        "kind": "OwnedIdentity",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"owner": owner, "purpose": "p", "subjects": {"selector": {}}},
    }


# --- what is there --------------------------------------------------------------------------------------------------


async def test_the_first_lists_hold_what_the_server_holds(
    installed: Cluster, observed: tuple[Store, Informers]
) -> None:
    store, informers = observed
    assert informers.synced
    assert informers.unsynced == ()
    # Right after a CRD is installed the server refuses its watch for a moment ("storage is (re)initializing").
    await until(lambda: not informers.failing)
    assert all(informers.last_sync.values())
    for resource in (*r.OBSERVED_RESOURCES, *r.OWN_RESOURCES):

        def equal(resource: r.Resource = resource) -> bool:
            there = {
                (obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
                for obj in installed.list(resource.qualified)
            }
            return set(store.names(resource.kind)) == there

        await until(equal, resource.qualified)


async def test_changes_of_every_kind_arrive(
    installed: Cluster, namespace: str, observed: tuple[Store, Informers]
) -> None:
    store, _ = observed
    role = {
        "apiVersion": f"{RBAC}/v1",
        "kind": "Role",
        "metadata": {"name": "reader", "namespace": namespace},
        "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]}],
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": namespace},
        "spec": {
            "serviceAccountName": "ci",
            "containers": [{"name": "c", "image": "i", "envFrom": [{"secretRef": {"name": "s"}}]}],
        },
    }
    token = secret(namespace, "t", type="kubernetes.io/service-account-token", stringData={})
    token["metadata"]["annotations"] = {"kubernetes.io/service-account.name": "ci"}
    owner = {"apiVersion": "tenure.dev/v1alpha1", "kind": "IdentityOwner", "metadata": {"name": namespace}, "spec": {}}
    manifests = [
        account(namespace, "ci"),
        secret(namespace, "s"),
        token,
        role,
        role_binding(namespace, "b", "reader", "ci", kind="Role"),
        pod,
        owner,
        claim(namespace, "c", namespace),
    ]
    for manifest in manifests:
        await asyncio.to_thread(installed.create, manifest)
    await until(lambda: store.get(Key("OwnedIdentity", namespace, "c")))
    await until(lambda: store.get(Key("Pod", namespace, "p")))
    assert store.namespaces[namespace].uid
    bound = await until(lambda: store.bindings_of(namespace, "ci"))
    assert bound[0].subjects == (Subject("ServiceAccount", namespace, "ci"),)
    assert [grade.row for grade in store.roles[(namespace, "reader")].grades] == ["R07"]
    # The token controller fills the Secret a moment later: data, and the identity's uid.
    tokens = await until(lambda: [one for one in store.tokens_of(namespace, "ci") if one.keys])
    assert tokens[0].service_account_uid == store.service_accounts[(namespace, "ci")].uid
    assert set(tokens[0].keys) == {"ca.crt", "namespace", "token"}
    assert store.pods_of(namespace, "ci") == store.pods_using_secret(namespace, "s")
    assert [one.name for one in store.claims_of_owner(namespace)] == ["c"]

    change = {"stringData": {"api_key": CANARY}}
    await asyncio.to_thread(installed.patch, "secrets", "s", change, namespace)
    await until(lambda: store.secrets[(namespace, "s")].keys == ("api_key", "password"))
    await asyncio.to_thread(installed.delete, "serviceaccounts", "ci", namespace)
    await until(lambda: (namespace, "ci") not in store.service_accounts)
    await until(lambda: store.tokens_of(namespace, "ci") == (), "the token controller's deletion")
    await asyncio.to_thread(installed.delete, "identityowners", namespace)
    await until(lambda: namespace not in store.owners)


async def test_secrets_come_without_their_values(
    installed: Cluster, namespace: str, observed: tuple[Store, Informers]
) -> None:
    store, _ = observed
    applied = secret(namespace, "applied")
    applied["metadata"]["annotations"] = {LAST_APPLIED: f'{{"data":{{"password":"{CANARY64}"}}}}'}
    await asyncio.to_thread(installed.create, applied)
    await asyncio.to_thread(installed.create, secret(namespace, "tls", type="example.com/odd"))
    await asyncio.to_thread(installed.apply, secret(namespace, "ssa"))
    await until(lambda: len(store.secrets_in(namespace)) == 3)
    record = store.secrets[(namespace, "applied")]
    assert (record.type, record.keys, record.data_writer != "") == ("Opaque", ("password",), True)
    assert record.data_changed == record.created
    assert store.secrets[(namespace, "tls")].type == "example.com/odd"
    assert store.secrets[(namespace, "ssa")].keys == ("password",)
    everything = repr(store.secrets)
    assert CANARY not in everything
    assert CANARY64 not in everything


async def test_a_live_read_is_the_inventorys_record(
    installed: Cluster, namespace: str, observed: tuple[Store, Informers]
) -> None:
    store, _ = observed
    await asyncio.to_thread(installed.create, secret(namespace, "s", type="example.com/odd"))
    await asyncio.to_thread(installed.create, account(namespace, "ci"))
    await until(lambda: store.get(Key("Secret", namespace, "s")) and store.get(Key("ServiceAccount", namespace, "ci")))
    kube = await Kube.connect(str(installed.kubeconfig), installed.context)
    for key in (Key("Secret", namespace, "s"), Key("ServiceAccount", namespace, "ci"), Key("Namespace", "", namespace)):
        assert await read_live(kube, key) == store.get(key)
    assert await read_live(kube, Key("Secret", namespace, "none")) is None
    await kube.close()


async def test_nothing_is_said_when_nothing_of_interest_changed(
    installed: Cluster, namespace: str, observed: tuple[Store, Informers]
) -> None:
    store, _ = observed
    await asyncio.to_thread(installed.create, account(namespace, "ci"))
    await until(lambda: (namespace, "ci") in store.service_accounts)
    heard: list[Any] = []
    store.listeners.append(lambda kind, old, new: heard.append(new) if new and new.name in ("ci", "after") else None)
    await asyncio.to_thread(
        installed.patch, "serviceaccounts", "ci", {"metadata": {"annotations": {"of-no": "interest"}}}, namespace
    )
    await asyncio.to_thread(installed.create, account(namespace, "after"))
    await until(lambda: (namespace, "after") in store.service_accounts)
    assert [record.name for record in heard] == ["after"]


# --- what is missing ------------------------------------------------------------------------------------------------


@contextmanager
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    with caplog.at_level(logging.INFO, logger="tenure.kube.informer"):
        yield lambda: [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


async def test_a_missing_right_is_named_and_found_again(
    installed: Cluster, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    rules = [{"apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["list", "watch"]}]
    role = {
        "apiVersion": f"{RBAC}/v1",
        "kind": "Role",
        "metadata": {"name": "inventory", "namespace": namespace},
        "rules": rules,
    }
    await asyncio.to_thread(installed.create, account(namespace, "reader"))
    await asyncio.to_thread(installed.create, role)
    await asyncio.to_thread(installed.create, role_binding(namespace, "inventory", "inventory", "reader", kind="Role"))
    kubeconfig = await asyncio.to_thread(installed.token_kubeconfig, namespace, "reader")
    options = {"namespaces": [namespace], "resources": [r.SERVICE_ACCOUNTS, r.SECRETS]}
    with logged(caplog) as warnings:
        async with observing(kubeconfig, **options) as (store, informers):
            await until(lambda: store.service_accounts)
            await until(lambda: informers.failing)
            text = f"list secrets in {namespace}: forbidden: the right list on secrets is missing"
            assert informers.failing == {"Secret": text}
            await until(
                lambda: informers.unsynced == ("Secret",)
            )  # a list counts when it is complete, after its objects
            assert informers.last_sync["Secret"] is None
            await until(lambda: warnings() == [text])  # at its second failure; the further ones add nothing
            listed = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]}]
            await asyncio.to_thread(installed.patch, f"roles.{RBAC}", "inventory", {"rules": rules + listed}, namespace)
            watch = f"watch secrets in {namespace}: forbidden: the right watch on secrets is missing"
            await until(lambda: informers.failing == {"Secret": watch})
            await until(lambda: warnings() == [text, watch])
            both = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["list", "watch"]}]
            await asyncio.to_thread(installed.patch, f"roles.{RBAC}", "inventory", {"rules": rules + both}, namespace)
            await asyncio.to_thread(installed.create, secret(namespace, "s"))
            await until(lambda: store.secrets_in(namespace))
            await until(lambda: not informers.failing)
            assert warnings() == [text, watch]


async def test_a_missing_crd_is_named(installed: Cluster) -> None:
    kube = await Kube.connect(str(installed.kubeconfig), installed.context)
    missing = r.Resource(r.GROUP, r.VERSION, "nonsuches", "NonSuch", True)
    informer: Informer[Any] = Informer(kube, missing, Nowhere(), lambda raw: raw)
    task = asyncio.create_task(informer.run())
    text = "list nonsuches.tenure.dev: the CRD nonsuches.tenure.dev is not installed"
    await until(lambda: informer.failing == text)
    assert not informer.synced.is_set()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await kube.close()


class Nowhere:
    def names(self) -> list[tuple[str, str]]:
        return []

    def upsert(self, record: Any, *, force: bool) -> None: ...

    def remove(self, namespace: str, name: str, *, resource_version: int) -> None: ...


async def test_an_installation_held_to_one_namespace_needs_rights_there_alone(
    installed: Cluster, namespace: str
) -> None:
    reader = f"reader-{namespace}"
    await asyncio.to_thread(installed.create, account(namespace, "reader"))
    await asyncio.to_thread(installed.create, role_binding(namespace, "reader", "cluster-admin", "reader"))
    role = {
        "apiVersion": f"{RBAC}/v1",
        "kind": "ClusterRole",
        "metadata": {"name": reader},
        "rules": [
            {
                "apiGroups": [""],
                "resources": ["namespaces"],
                "resourceNames": [namespace],
                "verbs": ["get", "list", "watch"],
            }
        ],
    }
    binding = {
        "apiVersion": f"{RBAC}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": reader},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": reader},
        "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": namespace}],
    }
    for manifest in (role, binding):
        await asyncio.to_thread(installed.create, manifest)
    kubeconfig = await asyncio.to_thread(installed.token_kubeconfig, namespace, "reader")
    kinds = [r.NAMESPACES, r.SERVICE_ACCOUNTS, r.SECRETS, r.ROLE_BINDINGS, r.OWNED_IDENTITIES, r.IDENTITY_FINDINGS]
    try:
        async with observing(kubeconfig, namespaces=[namespace], resources=kinds) as (store, informers):
            await asyncio.wait_for(informers.wait_synced(), 60)
            assert list(store.namespaces) == [namespace]
            assert {key[0] for key in store.service_accounts} == {namespace}
            labels = {"metadata": {"labels": {"tenure.dev/owner": "payments"}}}
            await asyncio.to_thread(installed.patch, "namespaces", namespace, labels)
            await until(lambda: store.namespaces_labelled("tenure.dev/owner", "payments"))
    finally:
        for kind in ("clusterrolebindings", "clusterroles"):
            await asyncio.to_thread(installed.delete, f"{kind}.{RBAC}", reader)


# --- what breaks ----------------------------------------------------------------------------------------------------


@contextmanager
def administrator(cluster: Cluster, namespace: str, server: str) -> Iterator[Path]:
    """The kubeconfig of a cluster administrator with a token, as a proxy can pass on."""
    binding = {
        "apiVersion": f"{RBAC}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": f"admin-{namespace}"},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "admin", "namespace": namespace}],
    }
    cluster.create(account(namespace, "admin"))
    cluster.create(binding)
    yield cluster.token_kubeconfig(namespace, "admin", server=server)
    cluster.delete(f"clusterrolebindings.{RBAC}", f"admin-{namespace}")


@pytest.fixture
async def broken(
    installed: Cluster, proxy: FaultProxy, namespace: str
) -> AsyncIterator[tuple[Store, Informers, FaultProxy]]:
    """Secrets and ServiceAccounts observed through a proxy, two of them there."""
    with administrator(installed, namespace, proxy.url) as kubeconfig:
        for name in ("s1", "s2"):
            installed.create(secret(namespace, name))
        async with observing(kubeconfig, resources=[r.SECRETS, r.SERVICE_ACCOUNTS]) as (store, informers):
            await asyncio.wait_for(informers.wait_synced(), 60)
            await asyncio.to_thread(proxy.wait_watches, "watch secrets")
            assert [one.name for one in store.secrets_in(namespace)] == ["s1", "s2"]
            yield store, informers, proxy


def names_in(store: Store, namespace: str) -> list[str]:
    return [one.name for one in store.secrets_in(namespace)]


async def test_a_watch_cut_in_the_middle_of_a_line_loses_nothing(
    installed: Cluster, namespace: str, broken: tuple[Store, Informers, FaultProxy]
) -> None:
    store, informers, proxy = broken
    fault = proxy.fault("watch secrets", CutMidLine(), times=2)
    await asyncio.to_thread(installed.delete, "secrets", "s1", namespace)
    await asyncio.to_thread(installed.create, secret(namespace, "s3"))
    await until(lambda: names_in(store, namespace) == ["s2", "s3"])
    await asyncio.to_thread(fault.wait, 1)
    for _ in range(3):
        await asyncio.to_thread(proxy.cut_watches_mid_line, "watch secrets")
        await asyncio.to_thread(proxy.wait_watches, "watch secrets")
    await asyncio.to_thread(installed.delete, "secrets", "s2", namespace)
    await until(lambda: names_in(store, namespace) == ["s3"])
    await until(lambda: not informers.failing)


@pytest.mark.parametrize(("status", "reason"), [(410, "Expired"), (500, "InternalError"), (504, "Timeout")])
async def test_an_error_in_the_stream_finds_the_deletions_it_swallowed(
    installed: Cluster, namespace: str, broken: tuple[Store, Informers, FaultProxy], status: int, reason: str
) -> None:
    store, informers, proxy = broken
    lists = proxy.requests["list secrets"]
    proxy.hold("watch secrets")
    await asyncio.to_thread(installed.delete, "secrets", "s1", namespace)
    await asyncio.to_thread(installed.delete, "secrets", "s2", namespace)
    await asyncio.to_thread(installed.create, secret(namespace, "s2"))
    old = store.secrets[(namespace, "s2")].uid
    assert names_in(store, namespace) == ["s1", "s2"]
    await asyncio.to_thread(proxy.fail_watches, "watch secrets", status, reason)
    await until(lambda: names_in(store, namespace) == ["s2"])
    assert store.secrets[(namespace, "s2")].uid != old
    assert proxy.requests["list secrets"] > lists
    proxy.lag("watch secrets", 0)
    await asyncio.to_thread(installed.create, secret(namespace, "s4"))
    await until(lambda: names_in(store, namespace) == ["s2", "s4"])
    await until(lambda: not informers.failing)


async def test_a_lost_connection_costs_no_list(
    installed: Cluster, namespace: str, broken: tuple[Store, Informers, FaultProxy]
) -> None:
    store, _, proxy = broken
    lists = proxy.requests["list secrets"]
    refused = proxy.fault("watch secrets", Refuse(), times=3)
    proxy.cut_watches("watch secrets")
    await asyncio.to_thread(installed.delete, "secrets", "s1", namespace)
    await asyncio.to_thread(refused.wait, 3)
    await until(lambda: names_in(store, namespace) == ["s2"])
    assert proxy.requests["list secrets"] == lists


async def test_a_silent_watch_is_given_up(installed: Cluster, namespace: str) -> None:
    """The server sends a bookmark each minute; here the patience is shorter than that."""
    options = {"resources": [r.SERVICE_ACCOUNTS], "namespaces": [namespace], "inactivity": 0.2}
    async with observing(installed.kubeconfig, installed.context, **options) as (store, informers):
        await until(lambda: "nothing from" in informers.failing.get("ServiceAccount", ""))
        await asyncio.to_thread(installed.create, account(namespace, "late"))
        await until(lambda: (namespace, "late") in store.service_accounts)


@pytest.mark.local
async def test_the_oldest_supported_version_is_read_alike(fresh_cluster: Callable[..., Cluster]) -> None:
    cluster = await asyncio.to_thread(fresh_cluster, installed=True, version="1.33")
    namespace = await asyncio.to_thread(cluster.namespace, "old")
    cluster.create(secret(namespace, "s1", type="example.com/odd"))
    async with observing(cluster.kubeconfig) as (store, informers):
        await asyncio.wait_for(informers.wait_synced(), 60)
        assert store.secrets[(namespace, "s1")].type == "example.com/odd"
        await asyncio.to_thread(cluster.create, secret(namespace, "s2", type="example.com/even"))
        await asyncio.to_thread(cluster.create, claim(namespace, "c"))
        await until(lambda: store.claims_in(namespace) and names_in(store, namespace) == ["s1", "s2"])
        assert store.secrets[(namespace, "s2")].type == "example.com/even"
        assert store.secrets[(namespace, "s2")].keys == ("password",)
        await asyncio.to_thread(cluster.delete, "secrets", "s1", namespace)
        await until(lambda: names_in(store, namespace) == ["s2"])
        assert CANARY64 not in repr(store.secrets)


@pytest.mark.long
@pytest.mark.local
async def test_the_api_server_and_etcd_go_and_come_back(fresh_cluster: Callable[..., Cluster]) -> None:
    """Three ways of being away in one control plane: killed with a watch that then is too old, etcd restarted, and a
    start of ours while nothing answers."""
    cluster = await asyncio.to_thread(fresh_cluster, installed=True)
    control_plane = cluster.control_plane
    assert control_plane is not None
    namespace = await asyncio.to_thread(cluster.namespace, "outage")
    with FaultProxy.to(cluster) as proxy, administrator(cluster, namespace, proxy.url) as kubeconfig:
        for name in ("s1", "s2"):
            cluster.create(secret(namespace, name))
        async with observing(kubeconfig) as (store, informers):
            await asyncio.wait_for(informers.wait_synced(), 60)
            before = store.counts()

            # Deleted while nobody watched; the restarted server's watch cache begins after that: a genuine 410.
            # No list may see it before the server goes either.
            watches, relists = (proxy.fault(what, Refuse(), times=None) for what in ("watch *", "list *"))
            proxy.cut_watches()
            await asyncio.to_thread(cluster.delete, "secrets", "s1", namespace)
            await asyncio.to_thread(cluster.create, secret(namespace, "s3"))
            await asyncio.to_thread(control_plane.kill, "kube-apiserver")
            await until(lambda: informers.failing)
            assert names_in(store, namespace) == ["s1", "s2"]
            assert store.counts() == before
            await asyncio.to_thread(control_plane.start_component, "kube-apiserver")
            await asyncio.to_thread(control_plane.wait_ready)
            watches.remove()
            lists = proxy.requests["list secrets"]
            relists.remove()
            await until(lambda: names_in(store, namespace) == ["s2", "s3"])
            assert proxy.requests["list secrets"] == lists + 1
            await until(lambda: not informers.failing, "all well again", 90)

            await asyncio.to_thread(control_plane.kill, "etcd")
            await asyncio.to_thread(control_plane.start_component, "etcd")
            await asyncio.to_thread(control_plane.wait_ready)
            await asyncio.to_thread(cluster.delete, "secrets", "s2", namespace)
            await until(lambda: names_in(store, namespace) == ["s3"])
            await until(lambda: not informers.failing, "all well again", 90)

        await asyncio.to_thread(control_plane.kill, "kube-apiserver")
        async with observing(kubeconfig) as (store, informers):
            await until(lambda: len(informers.failing) == len(informers.unsynced) > 0)
            await asyncio.to_thread(control_plane.start_component, "kube-apiserver")
            await asyncio.wait_for(informers.wait_synced(), 90)
            assert names_in(store, namespace) == ["s3"]
