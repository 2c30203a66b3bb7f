"""How a decision is carried out: what is shown is what is named, and every end says what is so."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from tenure.api.names import Verdict
from tenure.kube.errors import ApiError, Forbidden, Invalid, NotFound, Unavailable, Unreachable
from tenure.kube.resources import Resource
from tenure.report import decide as deciding
from tenure.report.connection import Failure
from tenure.report.decide import Order, decide
from tenure.settings import Settings
from tests.unit.report.scene import NOW, exception, finding

COUNTED = {
    "outcome": "Counted",
    "reason": "Approved",
    "message": "Nothing is missing.",
    "effect": "IdentityException/x",
}


class Cluster:
    """One namespace. `answers` are the statuses (or errors) that reading the decision gives, one after the other."""

    def __init__(self, *answers: dict[str, Any] | ApiError, refusal: ApiError | None = None) -> None:
        self.objects = [exception("x", "ci-token"), finding("legacy-1", "LegacyToken", "Secret", "ci-token")]
        self.answers = list(answers)
        self.refusal = refusal
        self.made: list[dict[str, Any]] = []
        self.server = "https://api.example"
        self.clock = SimpleNamespace(now=lambda: NOW)

    async def self_user(self) -> str:
        return "bob"

    async def close(self) -> None:
        pass

    async def pages(self, resource: Resource, namespace: str = "", **_: Any) -> AsyncIterator[dict[str, Any]]:
        yield {"items": [found for found in self.objects if found["kind"] == resource.kind]}

    async def get(self, resource: Resource, name: str, namespace: str) -> dict[str, Any]:
        if resource.kind == "IdentityDecision":
            [made] = self.made
            answer = self.answers.pop(0) if self.answers else {}
            if isinstance(answer, ApiError):
                raise answer
            metadata = {**made["metadata"], "uid": "uid-d", "creationTimestamp": "2026-12-04T09:00:00Z"}
            return {**made, "metadata": metadata, "status": answer}
        for found in self.objects:
            if (found["kind"], found["metadata"]["name"]) == (resource.kind, name):
                return {**found, "metadata": {**found["metadata"]}}
        raise NotFound(404, "NotFound", "not found")

    async def create(self, resource: Resource, obj: dict[str, Any]) -> dict[str, Any]:
        assert resource.kind == "IdentityDecision"
        if self.refusal is not None:
            raise self.refusal
        self.made.append(obj)
        return obj


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deciding, "_PAUSE", (0.001, 0.01))


def run(monkeypatch: pytest.MonkeyPatch, cluster: Cluster, answer: str | None = None, **more: Any) -> int:
    async def connect(settings: Settings) -> Cluster:
        return cluster

    monkeypatch.setattr(deciding, "connect", connect)
    given: dict[str, Any] = {"verdict": Verdict.APPROVE, "target": "idex/x", "namespace": "payments", "reason": "r"}
    order = Order(**{**given, "timeout": 0.2, **more})
    return decide(Settings(), order, None if answer is None else lambda question: answer)


def test_what_counts_is_told_with_its_effect(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = Cluster({}, {}, COUNTED)
    assert run(monkeypatch, cluster) == 0
    [made] = cluster.made
    assert made["spec"]["target"] == {"kind": "IdentityException", "name": "x", "uid": "uid-x", "generation": 1}
    said = capsys.readouterr().out
    assert said.endswith("Counted: Approved. Nothing is missing.\nEffect: IdentityException/x\n")
    assert "LegacyToken" in said


def test_void_is_no_success(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    void = {"outcome": "Void", "reason": "StaleTarget", "message": "It names generation 1.", "late": True}
    assert run(monkeypatch, Cluster(void)) == 1
    assert "Void: StaleTarget (after the deadline). It names generation 1." in capsys.readouterr().out


def test_an_api_server_that_is_away_for_a_moment_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = Unreachable(0, "Unreachable", "no answer")
    assert run(monkeypatch, Cluster(gone, Unavailable(503, "", "busy"), COUNTED)) == 0


def test_a_decision_nobody_takes_up_stands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    cluster = Cluster()
    assert run(monkeypatch, cluster) == 1
    assert "It stands, and the operator has not taken it up within 0.2 s." in capsys.readouterr().out
    assert len(cluster.made) == 1


def test_no_wait_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, Cluster(), timeout=0) == 0


@pytest.mark.parametrize(
    "error", [Forbidden(403, "Forbidden", "no verb approve"), Invalid(422, "Invalid", "no verb approve")]
)
def test_a_refusal_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: ApiError
) -> None:
    assert run(monkeypatch, Cluster(refusal=error)) == 1
    assert capsys.readouterr().err == "tenure: no verb approve\n"


def test_an_unknown_end_says_how_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        Failure, match=r"Whether the decision was made is unknown: `kubectl get identitydecision approve-x-"
    ):
        run(monkeypatch, Cluster(refusal=Unreachable(0, "Unreachable", "no answer")))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Forbidden(403, "Forbidden", "no"), "the decision stands, but you may not get identitydecisions.tenure.dev"),
        (NotFound(404, "NotFound", "no"), "is gone again"),
    ],
)
def test_an_effect_that_cannot_be_seen_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: ApiError, said: str
) -> None:
    assert run(monkeypatch, Cluster(error)) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(("answer", "made"), [("y", 1), ("YES", 1), ("n", 0), ("", 0), ("no", 0), ("yess", 0)])
def test_only_yes_is_yes(monkeypatch: pytest.MonkeyPatch, answer: str, made: int) -> None:
    cluster = Cluster(COUNTED)
    assert run(monkeypatch, cluster, answer) == (0 if made else 1)
    assert len(cluster.made) == made


def test_who_said_yes_beforehand_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(COUNTED)
    assert run(monkeypatch, cluster, "n", yes=True) == 0
    assert len(cluster.made) == 1


def test_print_makes_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    cluster = Cluster()
    assert run(monkeypatch, cluster, "n", only_print=True, reason="a: b\n# c") == 0
    assert cluster.made == []
    manifest = yaml.safe_load(capsys.readouterr().out)
    assert (manifest["spec"]["by"], manifest["spec"]["reason"]) == ("bob", "a: b\n# c")


def test_an_object_that_this_version_cannot_read_is_not_decided_about(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster()
    cluster.objects[0]["spec"]["unheardOf"] = 1
    with pytest.raises(Failure, match="cannot read identityexception/x, so it cannot show what is decided"):
        run(monkeypatch, cluster)
    assert cluster.made == []
