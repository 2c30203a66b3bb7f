"""Killed at any write of a revocation, and of what is left of it in the end. tests/support/crash.py says how."""

from __future__ import annotations

import pytest

from tests.support.crash import (
    ACCOUNT,
    ACCOUNTS_LATER,
    BOTH,
    LEGACY,
    QUARANTINED,
    SECRET,
    TOKENS_LATER,
    UNOWNED,
    Path,
    Sweep,
    account_with_token,
    account_with_tokens,
    ended,
    held,
    let_go,
    on_record,
    plain,
    quarantined,
    revoked,
)
from tests.support.scenario import deadline

pytestmark = [pytest.mark.local, pytest.mark.long]

REVOKING, REVOKING_TOKENS = deadline("Unowned", revoke_after="3s"), deadline("LegacyToken", revoke_after="3s")

PATHS = (
    Path(
        "revocation",
        policies=(
            plain("revocation", REVOKING, TOKENS_LATER),
            held("revocation", REVOKING, TOKENS_LATER, suspend=True),
        ),
        prepare=account_with_tokens,
        ready=quarantined(),
        hold=True,
        trigger=let_go,
        done=lambda ground, namespace: revoked(ground, namespace) and ended(ground, namespace),
        counted=2,  # the tokens' own findings end with them
        writes=frozenset(
            {
                f"{ACCOUNT}: {BOTH}, 2 remembered, 2 of 3 revoked",
                "account ci: deleted",
                f"{ACCOUNT}: {BOTH}, 2 remembered, 3 of 3 revoked",
                f"{ACCOUNT}: {BOTH}, 2 remembered, 3 of 3 revoked, releasing",
                f"{ACCOUNT}: deleted",
                f"{ACCOUNT}: finalizer off",
                "guard of namespace: 2 revoked",
                "guard of bindings: not named",
                "guard of namespace: deleted",
                "memory: turned, 1 counted, 2 acts",
                f"{ACCOUNT}: {BOTH}, 2 remembered, 0 of 2 revoked",
                "guard of namespace: 1 accounts, 2 revoked",
                "secret ci-a: deleted",
                "secret ci-b: deleted",
                "memory: turned, 3 counted, 2 acts",
                f"{LEGACY}: Resolved, met, by SubjectGone",
                "finding LegacyToken of Secret/ci-b: Resolved, met, by SubjectGone",
                f"{ACCOUNT}: {BOTH}, 2 remembered, 2 of 2 revoked",
                f"{UNOWNED}: Resolved, {QUARANTINED}, Revoke verified",
            }
        ),
        sometimes=frozenset(
            {
                f"{UNOWNED}: Resolved, {QUARANTINED}, Revoke started",
                "memory: turned, 2 counted, 2 acts",
                f"{UNOWNED}: Quarantined, {QUARANTINED}",
                f"{UNOWNED}: Quarantined, {QUARANTINED}, Revoke started",
            }
        ),
    ),
    Path(
        "legacy-revocation",
        policies=(
            plain("legacy-revocation", REVOKING_TOKENS, ACCOUNTS_LATER),
            held("legacy-revocation", REVOKING_TOKENS, ACCOUNTS_LATER, suspend=True),
        ),
        prepare=account_with_token,
        ready=quarantined("ci-a"),
        hold=True,
        trigger=let_go,
        done=on_record,
        counted=0,
        writes=frozenset(
            {
                "memory: turned, 1 counted, 2 acts",
                f"{SECRET}: {BOTH}, 1 remembered, 0 of 1 revoked",
                "guard of namespace: 1 revoked",
                "secret ci-a: deleted",
                f"{SECRET}: {BOTH}, 1 remembered, 1 of 1 revoked",
                f"{SECRET}: finalizer off",
                f"{LEGACY}: Resolved, {QUARANTINED}, Revoke verified",
            }
        ),
        sometimes=frozenset(
            {
                f"{LEGACY}: Quarantined, {QUARANTINED}",
                f"{LEGACY}: Quarantined, {QUARANTINED}, Revoke started",
                f"{LEGACY}: Resolved, {QUARANTINED}, Revoke started",
            }
        ),
    ),
    Path(
        "deleted-by-others",
        policies=(plain("deleted-by-others", deadline("LegacyToken"), ACCOUNTS_LATER),),
        prepare=account_with_token,
        ready=quarantined("ci-a"),
        trigger=lambda ground, namespace: ground.cluster.delete("secrets", "ci-a", namespace),
        done=on_record,
        counted=0,
        writes=frozenset(
            {
                f"{LEGACY}: Resolved, {QUARANTINED}",
                f"{SECRET}: {BOTH}, 1 remembered, 1 of 1 revoked",
                "guard of namespace: 1 revoked",
                f"{SECRET}: finalizer off",
            }
        ),
    ),
    Path(
        "end-of-record",
        policies=(plain("end-of-record", deadline("LegacyToken", revoke_after="1s"), ACCOUNTS_LATER),),
        prepare=account_with_token,
        ready=on_record,
        trigger=lambda ground, namespace: ground.cluster.delete("serviceaccounts", "ci", namespace),
        done=ended,
        counted=1,
        writes=frozenset(
            {
                "memory: turned, 2 counted, 2 acts",
                f"{UNOWNED}: Resolved, met, by SubjectGone",
                f"{SECRET}: deleted",
                "guard of namespace: deleted",
            }
        ),
    ),
)


def test_a_crash_at_any_write_ends_in_the_same_state(sweep: Sweep, path: Path) -> None:
    sweep.run(path)
