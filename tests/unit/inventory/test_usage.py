"""Exact last use per identity, credential and entitlement."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tenure.audit.event import request
from tenure.inventory import usage as usage_module
from tenure.inventory.store import Store
from tenure.inventory.usage import Usage
from tenure.model.records import Binding, Secret, ServiceAccount, Subject
from tests.unit.audit.events import START, event

BEFORE = START - timedelta(days=1)
CI = ServiceAccount("shop", "ci", "uid-ci", BEFORE)
TOKEN = Secret("shop", "ci-token", "uid-token", BEFORE, "kubernetes.io/service-account-token", service_account="ci")
KEY = Secret("shop", "stripe", "uid-stripe", BEFORE, "Opaque", keys=("apiKey",))
BOUND = Binding("shop", "b", "uid-b", BEFORE, "ClusterRole", "edit", (Subject("ServiceAccount", "shop", "ci"),))
LEGACY = {"authentication.k8s.io/legacy-token-manual-secret": "ci-token", "authorization.k8s.io/decision": "allow"}


@pytest.fixture
def store() -> Store:
    found = Store()
    for kind, record in (("ServiceAccount", CI), ("Secret", TOKEN), ("Secret", KEY), ("RoleBinding", BOUND)):
        found.upsert(kind, record)
    return found


def noted(store: Store, *lines: bytes) -> Usage:
    usage = Usage()
    for line in lines:
        found = request(line)
        assert found is not None
        usage.note(found, store)
    return usage


def test_a_request_is_a_use_of_the_identity_its_token_and_what_entitled_it(store: Store) -> None:
    usage = noted(store, event("a"), event("b", after=5, annotations=LEGACY), event("a"))
    used, proved, entitled = usage.of(CI), usage.of(TOKEN), usage.of_entitlement(BOUND, CI)
    assert used is not None
    assert proved is not None
    assert entitled is not None
    # By the instant, and the latest whatever order they come in.
    assert used.at == proved.at == START + timedelta(seconds=5, milliseconds=7)
    assert entitled.at == START + timedelta(milliseconds=7)
    assert (used.by, used.source, used.agent) == ("system:serviceaccount:shop:ci", "10.1.2.3", "curl/8.5.0")
    assert (usage.since, usage.until) == (START, used.at)


def test_what_was_refused_by_rbac_used_the_identity_and_no_entitlement(store: Store) -> None:
    notes = {"authorization.k8s.io/decision": "forbid", "authorization.k8s.io/reason": ""}
    usage = noted(store, event("a", code=403, annotations=notes))
    assert usage.of(CI)
    assert usage.of_entitlement(BOUND, CI) is None


def test_a_namesake_inherits_nothing(store: Store) -> None:
    other = noted(store, event("a", user={"username": "system:serviceaccount:shop:ci", "uid": "uid-earlier"}))
    assert other.of(CI) is None
    usage = noted(store, event("a", after=-90_000, user={"username": "system:serviceaccount:shop:ci"}))
    assert usage.of(CI) is None, "before it was created"
    again = replace(CI, uid="uid-again")
    assert noted(store, event("a")).of(again) is None


def test_another_secret_is_used_when_it_is_read_by_its_name(store: Store) -> None:
    about = {"resource": "secrets", "namespace": "shop", "name": "stripe"}
    node = noted(store, event("a", username="system:node:one", verb="get", objectRef=about))
    used = node.of(KEY)
    assert used is not None
    assert used.by == "system:node:one"
    for unlike in (
        {"username": "system:serviceaccount:tenure-system:tenure"},
        {"verb": "patch"},
        {"code": 403},
        {"objectRef": {"resource": "secrets", "namespace": "shop"}},
    ):
        given = {"username": "system:node:one", "verb": "get", "objectRef": about, **unlike}
        assert noted(store, event("a", **given)).of(KEY) is None  # type: ignore[arg-type]


def test_the_operator_is_known_wherever_it_is_installed() -> None:
    elsewhere = Store("elsewhere")
    for kind, record in (("ServiceAccount", CI), ("Secret", KEY)):
        elsewhere.upsert(kind, record)
    about = {"resource": "secrets", "namespace": "shop", "name": "stripe"}
    for name, counted in (("elsewhere", False), ("tenure-system", True)):
        user = f"system:serviceaccount:{name}:tenure"
        seen = noted(elsewhere, event("a", username=user, verb="get", objectRef=about)).of(KEY)
        assert (seen is not None) is counted


def test_it_holds_no_more_than_the_inventory(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_module, "_SLACK", 2)
    usage = Usage()
    for number in range(200):
        account = ServiceAccount("shop", "ci", f"uid-{number}", BEFORE)
        store.upsert("ServiceAccount", account)
        store.upsert("RoleBinding", replace(BOUND, uid=f"uid-{number}"))
        user = {"username": "system:serviceaccount:shop:ci", "uid": f"uid-{number}"}
        found = request(event(str(number), user=user))
        assert found is not None
        usage.note(found, store)
        assert usage.of(account) is not None
    assert len(usage._identities) <= 4
    assert len(usage._entitlements) <= 100
