"""What one audit event tells."""

from __future__ import annotations

import json

import pytest

from tenure.audit.event import request
from tenure.model.keys import Key
from tests.unit.audit.events import CI, START, event, refused, stamp, unauthorized

LEGACY = {
    "authentication.k8s.io/legacy-token": CI,
    "authentication.k8s.io/legacy-token-manual-secret": "ci-token",
    "authorization.k8s.io/decision": "allow",
    "authorization.k8s.io/reason": 'RBAC: allowed by ClusterRoleBinding "ops \\"x\\"" of ClusterRole "view" '
    'to Group "system:serviceaccounts:shop"',
}


def test_a_legacy_token_names_its_secret_and_what_allowed_it_its_binding() -> None:
    found = request(event("a", annotations=LEGACY))
    assert found is not None
    assert (found.account, found.uid, found.secret) == (("shop", "ci"), "uid-ci", "ci-token")
    assert found.binding == Key("ClusterRoleBinding", "", 'ops "x"')
    assert (found.received, found.source, found.agent, found.code) == (START, "10.1.2.3", "curl/8.5.0", 200)
    assert found.what == "list configmaps shop"
    within = request(event("a"))
    assert within is not None
    assert within.binding == Key("RoleBinding", "shop", "b")


def test_a_bound_token_names_its_pod_and_an_impersonator_is_named() -> None:
    extra = {"authentication.kubernetes.io/pod-name": ["ci-7d9"]}
    found = request(event("a", user={"username": CI, "uid": "uid-ci", "extra": extra}))
    assert found is not None
    assert found.by == f"{CI} (pod ci-7d9)"
    found = request(event("a", username="ann", impersonatedUser={"username": CI}))
    assert found is not None
    assert (found.by, found.requester, found.account, found.uid) == (f"ann as {CI}", "ann", ("shop", "ci"), "")


def test_a_refusal_of_ours_names_its_quarantine() -> None:
    found = request(refused("a"))
    assert found is not None
    assert (found.quarantine, found.user, found.account) == (("shop", "q"), "ann", None)
    assert found.what == "create serviceaccounts/token shop/ci"


def test_what_only_looks_like_a_refusal_of_ours_is_none() -> None:
    """RBAC's own refusals quote what was asked for, and other policies say what they like."""
    text = json.loads(refused("a"))["responseStatus"]["message"]
    denied = {"authorization.k8s.io/decision": "forbid", "authorization.k8s.io/reason": ""}
    others = text.replace("'tenure-guard-tokens'", "'theirs'")
    for message, notes in ((text, denied), (others, {"authorization.k8s.io/decision": "allow"})):
        found = request(refused("a", annotations=notes, responseStatus={"code": 403, "message": message}))
        assert found is not None
        assert found.quarantine is None
        assert found.binding is None


def test_a_refused_token_leaves_no_user() -> None:
    found = request(unauthorized("a"))
    assert found is not None
    assert (found.user, found.by, found.account, found.code, found.source) == ("", "", None, 401, "10.1.2.3")


def test_an_event_before_the_answer_tells_nothing_yet() -> None:
    assert request(event("a", stage="RequestReceived")) is None


def test_what_a_client_chose_is_cut_and_printable() -> None:
    found = request(event("a", userAgent="\x1b[2J\nforged" + "x" * 5000))
    assert found is not None
    assert found.agent.startswith("�[2J�forged")
    assert len(found.agent) == 256


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b"[]",
        b"{}x",
        b'{"stage":"ResponseComplete"}',
        b"[" * 100_000,
        b"\xff\xfe",
        event("a", auditID=7),
        event("a", user=["x"]),
        event("a", requestReceivedTimestamp="yesterday"),
        event("a", objectRef="x"),
        event("a")[:-20],
    ],
)
def test_what_is_no_event_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError):
        request(line)


def test_the_event_behind_half_a_line_is_found() -> None:
    """An API server was killed while it wrote; the next one goes on in the same line."""
    found = request(event("gone")[:300] + event("next", after=1))
    assert found is not None
    assert found.id == "next"
    assert stamp(found.received).startswith("2026-11-26T12:55:21")
