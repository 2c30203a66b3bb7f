"""Killed at any write of what is done to a Secret that is no token. tests/support/crash.py says how."""

from __future__ import annotations

import pytest

from tests.support.crash import QUARANTINED, Path, Sweep, ended, held, let_go, plain
from tests.support.ground import Ground
from tests.support.scenario import claim, deadline, finding_of, quarantine_of

pytestmark = [pytest.mark.local, pytest.mark.long]

FOUND = "finding Unowned of Secret/api-key"
OTHER = "quarantine of secret-api-key"


def api_key(ground: Ground, namespace: str) -> None:
    metadata = {"name": "api-key", "namespace": namespace}
    ground.cluster.create(
        {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"api_key": "none"}}
    )


def withheld(ground: Ground, namespace: str) -> bool:
    """Whether its Quarantine is in force and its finding says so."""
    found = finding_of(ground.cluster, namespace, "Unowned", "api-key")
    return found is not None and found["status"]["phase"] == "Quarantined" and bool(found["status"].get("verified"))


def on_record(ground: Ground, namespace: str) -> bool:
    """Whether the Secret is gone, its finding resolved, and only the record of it is left."""
    held = quarantine_of(ground.cluster, namespace, "api-key")
    found = finding_of(ground.cluster, namespace, "Unowned", "api-key")
    return bool(
        held
        and not held["metadata"].get("finalizers")
        and found
        and found["status"]["phase"] == "Resolved"
        and ground.cluster.get("secrets", "api-key", namespace) is None
    )


def claim_it(ground: Ground, namespace: str) -> None:
    ground.cluster.create(claim(namespace, "team"), user="carla")


PATHS = (
    Path(
        "secret",
        policies=(plain("secret", deadline("Unowned")),),
        trigger=api_key,
        done=withheld,
        counted=1,
        writes=frozenset(
            {
                f"{FOUND}: Open",
                "memory: turned, 1 counted, 0 acts",
                f"{FOUND}: Open, missed",
                "memory: turned, 1 counted, 1 acts",
                f"{OTHER}: intent",
                "guard of namespace: 1 withheld",
                f"{OTHER}: Guard verified",
                f"{FOUND}: Quarantined, {QUARANTINED}",
            }
        ),
        sometimes=frozenset({f"{FOUND}: Open, missed, by Policy, Quarantine started"}),
    ),
    Path(
        "secret-revocation",
        policies=(
            plain("secret-revocation", deadline("Unowned", revoke_after="3s")),
            held("secret-revocation", deadline("Unowned", revoke_after="3s"), suspend=True),
        ),
        prepare=api_key,
        ready=withheld,
        hold=True,
        trigger=let_go,
        done=on_record,
        counted=0,
        writes=frozenset(
            {
                "memory: turned, 1 counted, 2 acts",
                f"{OTHER}: Guard verified, 0 of 1 revoked",
                "secret api-key: deleted",
                f"{OTHER}: Guard verified, 1 of 1 revoked",
                "guard of namespace: deleted",
                f"{OTHER}: finalizer off",
                f"{FOUND}: Resolved, {QUARANTINED}, Revoke verified",
            }
        ),
        sometimes=frozenset(
            {
                f"{FOUND}: Quarantined, {QUARANTINED}",
                f"{FOUND}: Quarantined, {QUARANTINED}, Revoke started",
                f"{FOUND}: Resolved, {QUARANTINED}, Revoke started",
            }
        ),
    ),
    Path(
        "secret-claim",
        policies=(plain("secret-claim", deadline("Unowned")),),
        prepare=api_key,
        ready=withheld,
        trigger=claim_it,
        done=ended,
        counted=0,
        writes=frozenset(
            {
                f"{FOUND}: Resolved, {QUARANTINED}, owner team",
                "apply identityowners/status",
                "apply ownedidentities/status",
                f"{OTHER}: Guard verified, releasing",
                f"{OTHER}: deleted",
                "guard of namespace: deleted",
                f"{OTHER}: finalizer off",
            }
        ),
        # The owner is named in the guard where the claim is seen before the release.
        sometimes=frozenset({f"{FOUND}: Quarantined, {QUARANTINED}", "guard of namespace: 1 withheld"}),
    ),
)


def test_a_crash_at_any_write_ends_in_the_same_state(sweep: Sweep, path: Path) -> None:
    sweep.run(path)
