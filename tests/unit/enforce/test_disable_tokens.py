"""Which tokens of a quarantined identity are not switched off, without a cluster."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from tenure.api.quarantine import DisabledToken, QuarantineSpec, QuarantineStatus, QuarantineSubject, Revoked
from tenure.enforce.work import disable_tokens
from tenure.model.records import Authored, Secret

T0 = datetime(2026, 11, 1, 12, tzinfo=UTC)
HELD: Any = Authored(
    kind="Quarantine",
    namespace="payments",
    name="q",
    uid="uid-q",
    generation=1,
    resource_version="1",
    created=T0,
    spec=QuarantineSpec(subject=QuarantineSubject(kind="ServiceAccount", name="ci", uid="uid-ci")),
    status=QuarantineStatus(
        disabled_tokens=(DisabledToken(name="ci-token", uid="uid-t", service_account="ci"),),
        revoked=(Revoked(kind="Secret", name="ci-token", uid="uid-t", service_account="ci", intended=T0),),
    ),
)


def undone(uid: str) -> bool:
    token = Secret("payments", "ci-token", uid, T0, "kubernetes.io/service-account-token", service_account="ci")
    means: Any = SimpleNamespace(
        tokens_of=lambda quarantine: (token,), store=SimpleNamespace(quarantines={}), others=lambda quarantine: []
    )
    return disable_tokens.undone(means, HELD)


def test_what_is_being_revoked_is_not_switched_off_again() -> None:
    assert not undone("uid-t")


def test_another_token_under_a_revoked_name_is_switched_off_too() -> None:
    """The guard that refuses the name fails open: what slipped in must not work."""
    assert undone("uid-another")
