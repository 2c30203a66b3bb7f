"""One look: what is listed where, what becomes a gap, and what ends it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from tenure.kube.errors import ApiError, Forbidden, Gone, NotFound, Unauthorized, Unreachable
from tenure.kube.resources import Resource
from tenure.report.collect import Collected, collect, objects
from tests.unit.report.scene import SCENE, account, raw

NOW = datetime(2026, 12, 4, 9, tzinfo=UTC)


class Cluster:
    """Answers lists from SCENE, page by page; `errors` maps (plural, namespace) to what is raised instead."""

    def __init__(self, *more: dict[str, Any], errors: dict[tuple[str, str], list[ApiError]] | None = None) -> None:
        self.objects = [*SCENE, *more]
        self.errors = errors or {}
        self.asked: list[tuple[str, str]] = []
        self.clock = SimpleNamespace(now=lambda: NOW)

    async def pages(self, resource: Resource, namespace: str = "") -> AsyncIterator[dict[str, Any]]:
        self.asked.append((resource.plural, namespace))
        found = [o for o in self.objects if o["kind"] == resource.kind]
        found = [o for o in found if not namespace or o["metadata"].get("namespace") == namespace]
        if resource.plural == "secrets":
            yield table(found[:1])
        else:
            yield {"kind": f"{resource.kind}List", "items": found[:1]}
        waiting = self.errors.get((resource.plural, namespace))
        if waiting:
            raise waiting.pop(0)
        if resource.plural == "secrets":
            yield table(found[1:])
        else:
            yield {"kind": f"{resource.kind}List", "items": found[1:]}

    async def get(self, resource: Resource, name: str) -> dict[str, Any]:
        self.asked.append((f"{resource.plural}/{name}", ""))
        waiting = self.errors.get((resource.plural, name))
        if waiting:
            raise waiting.pop(0)
        return raw("Namespace", name)


def table(secrets: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "kind": "Table",
        "columnDefinitions": [{"name": "Name"}, {"name": "Type"}, {"name": "Data"}],
        "rows": [
            {"cells": [s["metadata"]["name"], s["type"], 1], "object": {"metadata": s["metadata"]}} for s in secrets
        ],
    }


async def look(cluster: Cluster, namespace: str | None = None) -> Collected:
    return await collect(cluster, namespace)  # type: ignore[arg-type]


def refusal(plural: str) -> Forbidden:
    return Forbidden(403, "Forbidden", f"list {plural}: forbidden")


def missing(kind_missing: bool) -> NotFound:
    error = NotFound(404, "NotFound", "not found")
    error.kind_missing = kind_missing
    return error


async def test_everything_is_listed_once() -> None:
    cluster = Cluster()
    seen = await look(cluster)
    assert seen.now == NOW
    assert seen.gaps == ()
    assert len(cluster.asked) == len(set(cluster.asked)) == 15
    assert {place for _, place in cluster.asked} == {""}
    assert len(seen.store.service_accounts) == 4
    assert seen.store.secrets["payments", "ci-token"].type == "kubernetes.io/service-account-token"


async def test_of_one_namespace_only_what_bears_on_it() -> None:
    cluster = Cluster()
    await look(cluster, "payments")
    asked = dict(cluster.asked)
    assert {plural for plural, place in asked.items() if place == "payments"} == {
        "secrets",
        "pods",
        "ownedidentities",
        "identityexceptions",
        "identitydecisions",
        "identityfindings",
        "quarantines",
    }
    assert asked["rolebindings"] == ""
    assert "namespaces" not in asked
    assert "namespaces/payments" in asked


async def test_a_missing_right_is_a_gap_with_its_name() -> None:
    seen = await look(Cluster(errors={("secrets", ""): [refusal("secrets")]}))
    [gap] = seen.gaps
    assert (gap.kind, gap.where) == ("Secret", "the cluster")
    assert gap.why == "you may not list secrets in all namespaces"
    assert gap.unknown == "credentials are missing"
    assert seen.unseen("Secret")
    assert not seen.unseen("Pod")


async def test_rights_in_one_namespace_are_used_and_the_rest_is_named() -> None:
    seen = await look(
        Cluster(account("elsewhere", "web"), errors={("serviceaccounts", ""): [refusal("serviceaccounts")]}), "payments"
    )
    assert ("payments", "ci") in seen.store.service_accounts
    [gap] = seen.gaps
    assert (gap.kind, gap.where) == ("ServiceAccount", "other namespaces")
    assert gap.unknown.startswith("risks may be higher")


async def test_cluster_scoped_rights_are_named_without_a_namespace() -> None:
    seen = await look(Cluster(errors={("clusterroles", ""): [refusal("clusterroles")]}), "payments")
    assert seen.gaps[0].why == "you may not list clusterroles.rbac.authorization.k8s.io"


async def test_kinds_that_are_not_installed_are_no_gap() -> None:
    seen = await look(Cluster(errors={("identityfindings", ""): [missing(True)]}))
    assert seen.gaps == ()
    assert seen.not_installed == ("IdentityFinding",)


async def test_an_expired_list_is_begun_anew_a_few_times() -> None:
    gone = Gone(410, "Expired", "list pods: too old")
    assert (await look(Cluster(errors={("pods", ""): [gone, gone]}))).gaps == ()
    [gap] = (await look(Cluster(errors={("pods", ""): [gone, gone, gone]}))).gaps
    assert gap.why == "list pods: too old"


async def test_any_other_failure_is_told_in_the_servers_words() -> None:
    [gap] = (await look(Cluster(errors={("pods", ""): [ApiError(500, "InternalError", "list pods: boom")]}))).gaps
    assert gap.why == "list pods: boom"


async def test_no_such_namespace_and_no_right_to_look() -> None:
    with pytest.raises(NotFound):
        await look(Cluster(errors={("namespaces", "payments"): [missing(False)]}), "payments")
    [gap] = (await look(Cluster(errors={("namespaces", "payments"): [refusal("namespaces")]}), "payments")).gaps
    assert gap.why == "you may not get namespaces"


@pytest.mark.parametrize("error", [Unauthorized(401, "Unauthorized", "no"), Unreachable(0, "", "refused")])
async def test_without_a_connection_there_is_no_report(error: ApiError) -> None:
    with pytest.raises(type(error)):
        await look(Cluster(errors={("pods", ""): [error]}))


async def test_what_cannot_be_read_is_a_gap() -> None:
    broken = raw("OwnedIdentity", "odd", "payments", spec={"owner": "payments", "colour": "blue"})
    [gap] = (await look(Cluster(broken))).gaps
    assert (gap.kind, gap.where, gap.unknown) == ("OwnedIdentity", "payments", "who owns what is unknown")
    assert re.match(r"OwnedIdentity payments/odd cannot be read: spec\.", gap.why)


def test_a_table_without_a_type_column_is_refused() -> None:
    with pytest.raises(ValueError):
        list(objects({"kind": "Table", "columnDefinitions": [{"name": "Name"}], "rows": []}))
