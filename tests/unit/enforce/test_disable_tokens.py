"""Which tokens of a quarantined identity are not switched off, without a cluster."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from tenure.api.quarantine import DisabledToken, QuarantineStatus, Revoked
from tenure.enforce.work import disable_tokens
from tenure.model.records import Secret
from tests.unit.enforce import test_revoke
from tests.unit.enforce.test_revoke import T0

HELD: Any = replace(
    test_revoke.HELD,
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
