"""The client on the real API server: preconditions, server-side apply, Secrets without values, errors, tokens."""

from __future__ import annotations

import asyncio
import base64
import json
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from tenure.kube import errors
from tenure.kube import resources as r
from tenure.kube.client import METADATA_LIST, TABLE, Kube
from tests.support.cluster import Cluster
from tests.support.proxy import TOO_MANY_REQUESTS, FaultProxy, LoseAnswer

CANARY = "canary-4f1f9f0c"
CANARY64 = base64.b64encode(CANARY.encode()).decode()
OTHER_UID = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
async def kube(cluster: Cluster) -> AsyncIterator[Kube]:
    connected = await Kube.connect(str(cluster.kubeconfig), cluster.context)
    yield connected
    await connected.close()


def config_map(namespace: str, name: str = "a", **data: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        "data": data or {"k": "v"},
    }


def secret(namespace: str, name: str = "a", **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace, **metadata},
        "stringData": {"password": CANARY},
    }


# --- preconditions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resource", [r.CONFIG_MAPS, r.SECRETS], ids=str)
async def test_a_patch_goes_through_only_while_its_preconditions_hold(
    kube: Kube, namespace: str, resource: r.Resource
) -> None:
    made = await kube.create(resource, secret(namespace) if resource is r.SECRETS else config_map(namespace))
    uid, version = made["metadata"]["uid"], made["metadata"]["resourceVersion"]
    label = {"metadata": {"labels": {"x": "y"}}}
    for conditions in ({"uid": OTHER_UID}, {"resource_version": "1"}, {"uid": uid, "resource_version": "1"}):
        with pytest.raises(errors.Conflict):
            await kube.merge_patch(resource, "a", namespace, label, **conditions)
    assert "labels" not in (await kube.get(resource, "a", namespace))["metadata"]
    changed = await kube.merge_patch(resource, "a", namespace, label, uid=uid, resource_version=version)
    assert changed["metadata"]["labels"] == {"x": "y"}
    with pytest.raises(errors.NotFound) as caught:
        await kube.merge_patch(resource, "gone", namespace, label, uid=uid)
    assert not caught.value.kind_missing


async def test_a_delete_goes_through_only_while_its_preconditions_hold(kube: Kube, namespace: str) -> None:
    made = await kube.create(r.SECRETS, secret(namespace))
    uid, version = made["metadata"]["uid"], made["metadata"]["resourceVersion"]
    for conditions in ({"uid": OTHER_UID}, {"resource_version": "1"}):
        with pytest.raises(errors.Conflict):
            await kube.delete(r.SECRETS, "a", namespace, **conditions)
    await kube.delete(r.SECRETS, "a", namespace, uid=uid, resource_version=version)
    with pytest.raises(errors.NotFound):
        await kube.delete(r.SECRETS, "a", namespace, uid=uid)


async def test_a_create_over_another_says_so(kube: Kube, namespace: str) -> None:
    await kube.create(r.CONFIG_MAPS, config_map(namespace))
    with pytest.raises(errors.AlreadyExists):
        await kube.create(r.CONFIG_MAPS, config_map(namespace))


# --- server-side apply ----------------------------------------------------------------------------------------------


async def test_apply_owns_what_it_says_and_gives_up_what_it_leaves_out(kube: Kube, namespace: str) -> None:
    first = await kube.apply(r.CONFIG_MAPS, config_map(namespace, one="1", two="2"))
    entries = first["metadata"]["managedFields"]
    assert [(entry["manager"], entry["operation"]) for entry in entries] == [("tenure", "Apply")]
    again = await kube.apply(r.CONFIG_MAPS, config_map(namespace, one="1", two="2"))
    assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    second = await kube.apply(r.CONFIG_MAPS, config_map(namespace, one="1"))
    assert second["data"] == {"one": "1"}


async def test_apply_takes_over_what_others_set(kube: Kube, cluster: Cluster, namespace: str) -> None:
    await asyncio.to_thread(cluster.create, config_map(namespace, k="theirs", other="theirs"))
    changed = await kube.apply(r.CONFIG_MAPS, config_map(namespace, k="ours"))
    assert changed["data"] == {"k": "ours", "other": "theirs"}


async def test_apply_with_the_uid_of_another_is_a_conflict(kube: Kube, namespace: str) -> None:
    await kube.create(r.CONFIG_MAPS, config_map(namespace))
    for place in ({"name": "a"}, {"name": "none"}):
        obj = config_map(namespace)
        obj["metadata"] = {"namespace": namespace, **place, "uid": OTHER_UID}
        with pytest.raises(errors.Conflict):
            await kube.apply(r.CONFIG_MAPS, obj)


# --- Secrets without values -----------------------------------------------------------------------------------------


async def test_no_value_comes_with_any_answer_about_a_secret(kube: Kube, namespace: str) -> None:
    answers = [
        await kube.create(r.SECRETS, secret(namespace, finalizers=["example.com/hold"])),
        await kube.get(r.SECRETS, "a", namespace),
        await kube.row(r.SECRETS, "a", namespace),
        await kube.merge_patch(r.SECRETS, "a", namespace, {"metadata": {"labels": {"x": "y"}}}),
        await kube.apply(r.SECRETS, secret(namespace, "b")),
        *[page async for page in kube.pages(r.SECRETS, namespace)],
        *[page async for page in kube.pages(r.SECRETS, namespace, accept=METADATA_LIST)],
    ]
    # With a finalizer the answer to DELETE is the whole object: it is not even read.
    await kube.delete(r.SECRETS, "a", namespace)
    answers.append(await kube.merge_patch(r.SECRETS, "a", namespace, {"metadata": {"finalizers": None}}))
    text = json.dumps(answers)
    assert CANARY not in text
    assert CANARY64 not in text
    assert {answer["kind"] for answer in answers} == {"PartialObjectMetadata", "Table", "PartialObjectMetadataList"}


async def test_a_table_names_types_and_the_watch_says_the_same(kube: Kube, namespace: str) -> None:
    await kube.create(r.SECRETS, secret(namespace))
    (page,) = [page async for page in kube.pages(r.SECRETS, namespace)]
    assert [column["name"] for column in page["columnDefinitions"]] == ["Name", "Type", "Data", "Age"]
    assert [row["cells"][:3] for row in page["rows"]] == [["a", "Opaque", 1]]
    async with aclosing(kube.watch(r.SECRETS, namespace, page["metadata"]["resourceVersion"])) as events:
        await kube.merge_patch(r.SECRETS, "a", namespace, {"metadata": {"labels": {"x": "y"}}})
        event = await anext(events)
    assert event["type"] == "MODIFIED"
    assert event["object"]["kind"] == "Table"
    assert CANARY64 not in json.dumps(event)


async def test_pages_hold_every_object_once_at_one_version(kube: Kube, namespace: str) -> None:
    names = [f"s{n}" for n in range(7)]
    await asyncio.gather(*(kube.create(r.SECRETS, secret(namespace, name)) for name in names))
    pages = [page async for page in kube.pages(r.SECRETS, namespace, limit=3)]
    assert [len(page["rows"]) for page in pages] == [3, 3, 1]
    assert [row["object"]["metadata"]["name"] for page in pages for row in page["rows"]] == names
    assert len({page["metadata"]["resourceVersion"] for page in pages}) == 1


async def test_an_accept_that_the_server_ignores_is_noticed(kube: Kube, namespace: str) -> None:
    # The API server answers a single object as Table, never as a list of metadata: the kind is not the one asked for.
    with pytest.raises(errors.ApiError):
        await kube.request("GET", r.SECRETS.path(namespace, "a"), accept=METADATA_LIST)
    await kube.create(r.SECRETS, secret(namespace))
    assert (await kube.request("GET", r.SECRETS.path(namespace, "a"), accept=TABLE))["kind"] == "Table"


# --- who we are, what we may ----------------------------------------------------------------------------------------


async def test_a_service_account_with_its_token(kube: Kube, namespace: str) -> None:
    asked = 0

    async def provider() -> str:
        nonlocal asked
        asked += 1
        token, expiry = await kube.request_token(namespace, "default", 600)
        assert timedelta(minutes=9) < expiry - datetime.now(UTC) < timedelta(minutes=11)
        return token

    account = kube.as_token(provider)
    assert await account.self_user() == f"system:serviceaccount:{namespace}:default"
    assert not await account.can("list", r.SECRETS, namespace)
    assert await kube.can("list", r.SECRETS)
    with pytest.raises(errors.Forbidden) as caught:
        await account.get(r.SECRETS, "a", namespace)
    assert str(caught.value).startswith(f"get secrets {namespace}/a: ")
    assert 'cannot get resource "secrets"' in str(caught.value)
    assert asked == 1
    await account.close()


async def test_a_refused_token_is_renewed_once(kube: Kube, namespace: str) -> None:
    tokens = ["refused", (await kube.request_token(namespace, "default", 600))[0]]

    async def provider() -> str:
        return tokens.pop(0)

    account = kube.as_token(provider)
    users = await asyncio.gather(*(account.self_user() for _ in range(5)))
    assert set(users) == {f"system:serviceaccount:{namespace}:default"}
    assert tokens == []
    await account.close()


async def test_an_exec_plugin_is_run_and_run_again_after_a_401(
    kube: Kube, cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    token, _ = await kube.request_token(namespace, "default", 600)
    (tmp_path / "tokens").write_text(f"refused\n{token}\n")
    plugin = tmp_path / "plugin"
    plugin.write_text(
        f"#!{sys.executable}\n"
        "import json, pathlib\n"
        f"tokens = pathlib.Path({str(tmp_path / 'tokens')!r})\n"
        "first, *rest = tokens.read_text().split()\n"
        "tokens.write_text('\\n'.join(rest or [first]))\n"
        "status = {'token': first, 'expirationTimestamp': '2099-01-01T00:00:00Z'}\n"
        "kind = {'apiVersion': 'client.authentication.k8s.io/v1', 'kind': 'ExecCredential'}\n"
        "print(json.dumps({**kind, 'status': status}))\n"
    )
    plugin.chmod(plugin.stat().st_mode | stat.S_IXUSR)
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    command = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin), "interactiveMode": "Never"}
    for user in config["users"]:
        user["user"] = {"exec": command}
    for entry in config["clusters"]:
        if ca := entry["cluster"].get("certificate-authority"):
            entry["cluster"]["certificate-authority"] = str((cluster.kubeconfig.parent / ca).resolve())
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    through_plugin = await Kube.connect(str(path), cluster.context)
    assert await through_plugin.self_user() == f"system:serviceaccount:{namespace}:default"
    await through_plugin.close()


async def test_the_clock_is_the_servers(kube: Kube, namespace: str) -> None:
    before = kube.clock.now()
    made = await kube.create(r.CONFIG_MAPS, config_map(namespace))
    stamped = datetime.fromisoformat(made["metadata"]["creationTimestamp"])
    assert kube.clock.known
    assert kube.clock.uncertainty <= 1.0
    assert before - timedelta(seconds=2) <= stamped <= kube.clock.now() + timedelta(seconds=1)


# --- errors ---------------------------------------------------------------------------------------------------------


async def test_a_kind_that_is_not_served(kube: Kube, namespace: str) -> None:
    missing = r.Resource(r.GROUP, r.VERSION, "nonsuches", "NonSuch", True)
    for call in (kube.get(missing, "a", namespace), anext(kube.pages(missing)), anext(kube.watch(missing, "", "1"))):
        with pytest.raises(errors.NotFound) as caught:
            await call
        assert caught.value.kind_missing


async def test_a_refusal_of_the_schema_names_the_field(kube: Kube, namespace: str) -> None:
    obj = config_map(namespace)
    obj["metadata"]["labels"] = {"x": "y" * 64}
    with pytest.raises(errors.Invalid) as caught:
        await kube.create(r.CONFIG_MAPS, obj)
    assert [cause.field for cause in caught.value.causes] == ["metadata.labels"]


async def test_a_terminating_namespace_is_named_as_the_cause(kube: Kube, cluster: Cluster) -> None:
    name = await asyncio.to_thread(cluster.namespace, "terminating")
    hold = config_map(name)
    hold["metadata"]["finalizers"] = ["example.com/hold"]
    await kube.create(r.CONFIG_MAPS, hold)
    await kube.delete(r.NAMESPACES, name, "")
    with pytest.raises(errors.Forbidden) as caught:
        await kube.create(r.CONFIG_MAPS, config_map(name, "late"))
    assert caught.value.has_cause("NamespaceTerminating")
    await kube.merge_patch(r.CONFIG_MAPS, "a", name, {"metadata": {"finalizers": None}})


# --- faults on the way ----------------------------------------------------------------------------------------------


@pytest.fixture
async def through_proxy(cluster: Cluster, proxy: FaultProxy, namespace: str) -> AsyncIterator[Kube]:
    """An administrator of the namespace, through the proxy."""
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "admin", "namespace": namespace},
        "roleRef": role,
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": namespace}],
    }
    await asyncio.to_thread(cluster.create, binding)
    path = await asyncio.to_thread(cluster.token_kubeconfig, namespace, "default", server=proxy.url)
    connected = await Kube.connect(str(path))
    yield connected
    await connected.close()


async def test_429_is_waited_out(through_proxy: Kube, proxy: FaultProxy, namespace: str) -> None:
    proxy.fault("apply configmaps", TOO_MANY_REQUESTS, times=1)
    await through_proxy.apply(r.CONFIG_MAPS, config_map(namespace))
    assert [write.status for write in proxy.writes("apply configmaps")] == [429, 201]


async def test_a_write_with_a_lost_answer_went_out_once_and_is_unknown(
    through_proxy: Kube, proxy: FaultProxy, namespace: str
) -> None:
    made = await through_proxy.create(r.SECRETS, secret(namespace))
    proxy.fault("delete secrets", LoseAnswer())
    with pytest.raises(errors.Unreachable):
        await through_proxy.delete(r.SECRETS, "a", namespace, uid=made["metadata"]["uid"])
    assert len(proxy.writes("delete secrets")) == 1
    with pytest.raises(errors.NotFound):
        await through_proxy.get(r.SECRETS, "a", namespace)


# --- who we are taken for -------------------------------------------------------------------------------------------


async def test_a_kubeconfig_with_as_is_taken_for_that_user_and_no_more(cluster: Cluster, tmp_path: Path) -> None:
    """Whoever hands out a kubeconfig restricted by `as` must not hand out the rights of the user behind it."""
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    for entry in config["users"]:
        entry["user"] |= {"as": "nobody-at-all", "as-groups": ["first", "second"], "as-user-extra": {"why/how": ["x"]}}
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    taken = await Kube.connect(str(path), cluster.context)
    try:
        assert await taken.self_user() == "nobody-at-all"
        review = r.SELF_SUBJECT_REVIEWS
        answer = await taken.create(review, {"apiVersion": review.api_version, "kind": review.kind})
        info = answer["status"]["userInfo"]
        assert {"first", "second"} <= set(info["groups"])
        assert info["extra"] == {"why/how": ["x"]}
        assert not await taken.can("get", r.SECRETS)
        with pytest.raises(errors.Forbidden):
            await taken.get(r.SECRETS, "any", "default")
    finally:
        await taken.close()


async def test_a_kubeconfig_with_groups_and_nobody_to_be_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    for entry in config["users"]:
        entry["user"]["as-groups"] = ["first"]
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    with pytest.raises(errors.ConfigurationError, match="without as"):
        await Kube.connect(str(path), cluster.context)
