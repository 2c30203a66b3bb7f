"""Killed at any write of a release: by a claim, by a person, by the subject's end. tests/support/crash.py says how."""

from __future__ import annotations

import pytest

from tests.support.crash import (
    ACCOUNT,
    BOTH,
    LEGACY,
    QUARANTINED,
    TOKENS_LATER,
    UNOWNED,
    Path,
    Sweep,
    account,
    account_with_tokens,
    claim_it,
    ended,
    held,
    plain,
    quarantined,
    release_it,
    released,
    reopened_in_time,
)
from tests.support.ground import Ground
from tests.support.scenario import RBAC, deadline, finding_of, quarantine_of

pytestmark = [pytest.mark.local, pytest.mark.long]


def bound(ground: Ground, namespace: str) -> None:
    """Bound, without the right to change that: then its tokens are revoked, and it stays."""
    role = {"apiGroup": RBAC, "kind": "ClusterRole", "name": "view"}
    subject = {"kind": "ServiceAccount", "name": "ci", "namespace": namespace}
    about = {"name": "ci", "namespace": namespace}
    ground.cluster.create(
        {"apiVersion": f"{RBAC}/v1", "kind": "RoleBinding", "metadata": about, "roleRef": role, "subjects": [subject]}
    )
    account_with_tokens(ground, namespace)


def tokens_revoked(ground: Ground, namespace: str) -> bool:
    """Whether that is how far it got, and the finding says why."""
    held = quarantine_of(ground.cluster, namespace, "ci") or {}
    finding = finding_of(ground.cluster, namespace, "Unowned", "ci") or {}
    said = {found["type"]: found["reason"] for found in finding.get("status", {}).get("conditions", ())}
    gone = [entry for entry in held.get("status", {}).get("revoked", ()) if entry.get("done")]
    return len(gone) == 2 and said.get("Blocked") == "MissingRight"


PATHS = (
    Path(
        "subject-gone",
        policies=(plain("subject-gone", deadline("Unowned"), TOKENS_LATER),),
        prepare=account,
        ready=quarantined(),
        trigger=lambda ground, namespace: ground.cluster.delete("serviceaccounts", "ci", namespace),
        done=ended,
        writes=frozenset(
            {
                f"{UNOWNED}: Resolved, {QUARANTINED}",
                f"{ACCOUNT}: {BOTH}, releasing",
                f"{ACCOUNT}: deleted",
                "guard of namespace: deleted",
                "guard of bindings: not named",
                f"{ACCOUNT}: finalizer off",
            }
        ),
    ),
    Path(
        "claim",
        policies=(plain("claim", deadline("Unowned"), TOKENS_LATER),),
        prepare=account_with_tokens,
        ready=quarantined(),
        trigger=claim_it,
        done=ended,
        writes=frozenset(
            {
                "apply ownedidentities/status",
                "apply identityowners/status",
                f"{LEGACY}: Open, owner team",
                "finding LegacyToken of Secret/ci-b: Open, owner team",
                f"{UNOWNED}: Resolved, {QUARANTINED}, owner team",
                f"{ACCOUNT}: {BOTH}, 2 remembered, releasing",
                f"{ACCOUNT}: deleted",
                "secret ci-a: on",
                "secret ci-b: on",
                "guard of namespace: deleted",
                "guard of bindings: not named",
                f"{ACCOUNT}: finalizer off",
            }
        ),
        # The new owner's contact, when the crash comes before the release has begun.
        sometimes=frozenset({"guard of namespace: 1 accounts, 2 secrets", "guard of bindings: named"}),
    ),
    Path(
        "claim-after-revocation",
        policies=(plain("claim-after-revocation", deadline("Unowned", revoke_after="1s"), TOKENS_LATER),),
        prepare=bound,
        ready=tokens_revoked,
        trigger=claim_it,
        done=released,
        writes=frozenset(
            {
                "apply ownedidentities/status",
                "apply identityowners/status",
                f"{UNOWNED}: Resolved, {QUARANTINED}, Revoke started, owner team",
                "finding EntitlementUndeclared of RoleBinding/ci: Open, owner team",
                f"{ACCOUNT}: {BOTH}, 2 remembered, 2 of 2 revoked, releasing",
                f"{ACCOUNT}: deleted",
                "quarantine of secret-ci-a: record",
                "quarantine of secret-ci-a: 1 of 1 revoked",
                "quarantine of secret-ci-b: record",
                "quarantine of secret-ci-b: 1 of 1 revoked",
                "guard of namespace: 2 revoked",
                "guard of bindings: not named",
                f"{ACCOUNT}: finalizer off",
            }
        ),
        sometimes=frozenset(
            {
                "guard of namespace: 1 secrets, 2 revoked",  # a record whose second write is missing
                "guard of namespace: 1 accounts, 2 revoked",
                "guard of bindings: named",
            }
        ),
    ),
    Path(
        "person",
        policies=(
            plain("person", deadline("Unowned"), TOKENS_LATER),
            held("person", deadline("Unowned", within="1h"), TOKENS_LATER),
        ),
        prepare=account_with_tokens,
        ready=quarantined(),
        hold=True,
        trigger=release_it,
        done=ended,
        check=reopened_in_time,
        writes=frozenset(
            {
                f"{UNOWNED}: Open, released",
                "secret ci-a: on",
                "secret ci-b: on",
                "guard of namespace: deleted",
                "guard of bindings: not named",
                f"{ACCOUNT}: finalizer off",
            }
        ),
    ),
)


def test_a_crash_at_any_write_ends_in_the_same_state(sweep: Sweep, path: Path) -> None:
    sweep.run(path)
