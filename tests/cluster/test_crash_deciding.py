"""Killed at any write of an exception's approval, and of an escalation. tests/support/crash.py says how."""

from __future__ import annotations

import pytest

from tests.support.crash import LEGACY, Path, Sweep, account_with_token, plain
from tests.support.ground import Ground
from tests.support.scenario import allow, claim, deadline, exception, finding_of, owner, rule, token_secret

pytestmark = [pytest.mark.local, pytest.mark.long]


def requested(ground: Ground, namespace: str) -> None:
    """A token, and somebody's request to waive its finding."""
    account_with_token(ground, namespace)
    ground.cluster.create(exception(namespace, "Secret", "ci-a", "LegacyToken", requestedBy="carla"), user="carla")


def waits(ground: Ground, namespace: str) -> bool:
    found = ground.cluster.get("identityexceptions", "exception", namespace) or {}
    return found.get("status", {}).get("phase") == "Pending" and open_(ground, namespace)


def open_(ground: Ground, namespace: str) -> bool:
    found = finding_of(ground.cluster, namespace, "LegacyToken", "ci-a")
    return found is not None and found["status"]["phase"] == "Open"


def approve(ground: Ground, namespace: str) -> None:
    """anna approves what she sees."""
    found = ground.cluster.get("identityexceptions", "exception", namespace)
    assert found is not None
    metadata = found["metadata"]
    target = {
        "kind": "IdentityException",
        "name": "exception",
        "uid": metadata["uid"],
        "generation": metadata["generation"],
    }
    ground.cluster.create(
        {
            "apiVersion": found["apiVersion"],
            "kind": "IdentityDecision",
            "metadata": {"name": "approve", "namespace": namespace},
            "spec": {"target": target, "verdict": "Approve", "reason": "tests", "by": "anna"},
        },
        user="anna",
    )


def approved(ground: Ground, namespace: str) -> bool:
    """Whether the exception is active, its finding waived, and the decision told what it led to."""
    exception_ = ground.cluster.get("identityexceptions", "exception", namespace) or {}
    decision = ground.cluster.get("identitydecisions", "approve", namespace) or {}
    finding = finding_of(ground.cluster, namespace, "LegacyToken", "ci-a")
    return bool(
        exception_.get("status", {}).get("phase") == "Active"
        and decision.get("status", {}).get("outcome") == "Counted"
        and finding
        and finding["status"]["phase"] == "Excepted"
    )


def owned(ground: Ground, namespace: str) -> None:
    """An identity with an owner whose ladder has one step."""
    ground.cluster.create(claim(namespace, "climbing", accounts=["ci"]), user="carla")
    metadata = {"name": "ci", "namespace": namespace}
    ground.cluster.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})


def claimed(ground: Ground, namespace: str) -> bool:
    found = ground.cluster.get("ownedidentities", "claim", namespace) or {}
    covered = found.get("status", {}).get("covered", {})
    return bool(covered.get("serviceAccounts") or found.get("status", {}).get("observedGeneration") == 1)


def token(ground: Ground, namespace: str) -> None:
    ground.cluster.create(token_secret(namespace, "ci-a", "ci"))


def climbed(ground: Ground, namespace: str) -> bool:
    """Whether the second in line answers, and the deadline is over."""
    found = finding_of(ground.cluster, namespace, "LegacyToken", "ci-a")
    status = found["status"] if found else {}
    return status.get("accountable", {}).get("owner") == "second" and status.get("dueOutcome") == "missed"


def people(ground: Ground) -> None:
    """anna approves exceptions; carla claims for an owner whose ladder has one step, at half the time."""
    cluster = ground.cluster
    allow(
        cluster,
        "anna",
        "test-approve-anna",
        rule("tenure.dev", ["identitydecisions"], ["create", "get", "list"]),
        rule("tenure.dev", ["identityexceptions"], ["approve"]),
    )
    allow(cluster, "carla", "test-request-carla", rule("tenure.dev", ["identityexceptions"], ["create"]))
    allow(cluster, "carla", "test-claim-climbing", rule("tenure.dev", ["identityowners"], ["claim"], ["climbing"]))
    cluster.create(owner("second"))
    cluster.create(owner("climbing", escalation=[{"after": "50%", "to": "second"}]))


PATHS = (
    Path(
        "approval",
        policies=(plain("approval", deadline("LegacyToken", "Unowned", within="90d", action="Nothing")),),
        arrange=people,
        prepare=requested,
        ready=waits,
        trigger=approve,
        done=approved,
        counted=1,
        writes=frozenset(
            {
                "apply identityexceptions/status",
                "memory: turned, 1 counted, 0 acts",
                f"{LEGACY}: Excepted, met, by Exception",
                "decision approve: Counted",
            }
        ),
    ),
    Path(
        "escalation",
        policies=(plain("escalation", deadline("LegacyToken", within="4s", action="Nothing")),),
        arrange=people,
        prepare=owned,
        ready=claimed,
        trigger=token,
        done=climbed,
        counted=1,
        writes=frozenset(
            {
                f"{LEGACY}: Open, owner climbing",
                "apply ownedidentities/status",
                f"{LEGACY}: Open, owner second",
                "memory: turned, 1 counted, 0 acts",
                f"{LEGACY}: Open, missed, owner second",
            }
        ),
    ),
)


def test_a_crash_at_any_write_ends_in_the_same_state(sweep: Sweep, path: Path) -> None:
    sweep.run(path)
