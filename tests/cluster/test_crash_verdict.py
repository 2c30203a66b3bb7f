"""Killed at any write of what a person's verdict brings. tests/support/crash.py says how."""

from __future__ import annotations

import pytest

from tests.support.crash import (
    ACCOUNT,
    ACCOUNTS_LATER,
    BOTH,
    JUDGED,
    LEGACY,
    QUARANTINED,
    SECRET,
    TOKENS_LATER,
    UNOWNED,
    Path,
    Sweep,
    account_with_token,
    account_with_tokens,
    both,
    ended,
    held,
    judge,
    judge_release,
    on_record,
    opened,
    plain,
    quarantined,
    reopened_in_time,
    said,
)
from tests.support.scenario import deadline

pytestmark = [pytest.mark.local, pytest.mark.long]

PATHS = (
    Path(
        "verdict",  # Quarantine: decided and counted by one write, long before the deadline
        policies=(plain("verdict", ACCOUNTS_LATER, TOKENS_LATER),),
        prepare=account_with_tokens,
        ready=opened,
        trigger=judge("Quarantine"),
        done=both(quarantined(), said("quarantine", "Quarantine/")),
        counted=1,
        writes=frozenset(
            {
                "memory: turned, 1 counted, 0 acts",
                f"{UNOWNED}: Open, met, by Verdict",
                "decision quarantine: Counted, not begun",
                "memory: turned, 1 counted, 1 acts",
                f"{ACCOUNT}: intent",
                "guard of namespace: 1 accounts",
                "guard of bindings: named",
                f"{ACCOUNT}: Guard verified",
                f"{ACCOUNT}: Guard verified, 2 remembered",
                "guard of namespace: 1 accounts, 2 secrets",
                "secret ci-a: off",
                "secret ci-b: off",
                f"{ACCOUNT}: {BOTH}, 2 remembered",
                f"{UNOWNED}: Quarantined, {JUDGED}",
                "decision quarantine: Counted",
            }
        ),
        sometimes=frozenset({f"{UNOWNED}: Open, met, by Verdict, Quarantine started"}),
    ),
    Path(
        "verdict-revoke",  # of what the policy quarantined
        policies=(plain("verdict-revoke", deadline("LegacyToken"), ACCOUNTS_LATER),),
        prepare=account_with_token,
        ready=quarantined("ci-a"),
        trigger=judge("Revoke", "LegacyToken", "ci-a"),
        done=both(on_record, said("revoke", "Quarantine/")),
        counted=0,
        writes=frozenset(
            {
                "decision revoke: Counted",
                f"{SECRET}: intent",  # revokeAt
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
        "verdict-release",
        policies=(
            plain("verdict-release", deadline("Unowned"), TOKENS_LATER),
            held("verdict-release", deadline("Unowned", within="1h"), TOKENS_LATER),
        ),
        prepare=account_with_tokens,
        ready=quarantined(),
        hold=True,
        trigger=judge_release,
        done=both(ended, said("release", "Quarantine/")),
        check=reopened_in_time,
        writes=frozenset(
            {
                f"{ACCOUNT}: {BOTH}, 2 remembered, releasing",
                "decision release: Counted",
                f"{ACCOUNT}: deleted",
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
