"""Killed at any write of a quarantine, or of the exception that spares one. tests/support/crash.py says how."""

from __future__ import annotations

import pytest

from tests.support.cluster import eventually
from tests.support.crash import (
    ACCOUNT,
    ACCOUNTS_LATER,
    BOTH,
    LEGACY,
    QUARANTINED,
    RECOVERY,
    SECRET,
    TOKENS_LATER,
    UNOWNED,
    Path,
    Sweep,
    account,
    account_with_token,
    account_with_tokens,
    claimed_and_excepted,
    excepted,
    held,
    let_go,
    named,
    outcomes,
    overdue,
    plain,
    quarantined,
    waived,
)
from tests.support.ground import of_namespace
from tests.support.scenario import deadline, policy
from tests.support.snapshot import difference, snapshot

pytestmark = pytest.mark.local

PATHS = (
    Path(
        "quarantine",
        policies=(plain("quarantine", deadline("Unowned"), TOKENS_LATER),),
        trigger=account_with_tokens,
        done=quarantined(),
        counted=1,
        writes=frozenset(
            {
                f"{UNOWNED}: Open",
                "finding LegacyToken of Secret/ci-a: Open",
                "finding LegacyToken of Secret/ci-b: Open",
                "memory: turned, 1 counted, 0 acts",
                f"{UNOWNED}: Open, missed",
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
                f"{UNOWNED}: Quarantined, {QUARANTINED}",
            }
        ),
        sometimes=frozenset({f"{UNOWNED}: Open, missed, by Policy, Quarantine started"}),
    ),
    Path(
        "legacy",
        policies=(
            plain("legacy", deadline("LegacyToken"), ACCOUNTS_LATER),
            held("legacy", deadline("LegacyToken"), ACCOUNTS_LATER, suspend=True),
        ),
        prepare=account_with_token,
        ready=overdue,
        held=True,
        trigger=let_go,
        done=quarantined("ci-a"),
        writes=frozenset(
            {
                f"{LEGACY}: Open, missed",  # no longer blocked by the suspension
                "memory: turned, 1 counted, 1 acts",
                f"{SECRET}: intent",
                "guard of namespace: 1 secrets",
                f"{SECRET}: Guard verified",
                f"{SECRET}: Guard verified, 1 remembered",
                "secret ci-a: off",
                f"{SECRET}: {BOTH}, 1 remembered",
                f"{LEGACY}: Quarantined, {QUARANTINED}",
            }
        ),
        sometimes=frozenset({f"{LEGACY}: Open, missed, by Policy, Quarantine started"}),
    ),
    Path(
        "exception",  # opened, and decided, by one write
        policies=(
            plain(
                "exception",
                ACCOUNTS_LATER,
                TOKENS_LATER,
                exceptions={"classes": [{"class": "Migration", "approvals": []}]},
            ),
        ),
        prepare=claimed_and_excepted,
        ready=waived,
        trigger=lambda ground, namespace: ground.cluster.delete("ownedidentities", "claim", namespace),
        done=excepted,
        counted=1,
        writes=frozenset(
            {
                "apply identityowners/status",
                "memory: turned, 2 counted, 0 acts",
                f"{UNOWNED}: Excepted, met, by Exception",
                "apply identityexceptions/status",  # it is needed now
            }
        ),
    ),
)


def test_a_crash_at_any_write_ends_in_the_same_state(sweep: Sweep, path: Path) -> None:
    sweep.run(path)


@pytest.mark.long
def test_processes_that_live_for_one_write_each_get_there_too(sweep: Sweep) -> None:
    """The whole quarantine path, killed after every single write, one after the other."""
    path = next(path for path in PATHS if path.title == "quarantine")
    expected, recorded = sweep.undisturbed(path)
    [namespace] = sweep.namespaces(path, 1)
    before, lives = outcomes(sweep.cluster), 1
    sweep.proxy.reset()
    sweep.proxy.stop_after(1, of_namespace(namespace))
    path.trigger(sweep.ground, namespace)
    while True:
        if sweep.proxy.stopped.wait(0.5):
            sweep.operator.kill()
            sweep.proxy.resume()
            sweep.proxy.stop_after(1, of_namespace(namespace))
            sweep.operator.start()
            lives += 1
        elif not difference(expected, snapshot(sweep.cluster, namespace)):
            break
        assert lives <= 2 * len(recorded), f"no end: {sweep.names(namespace)}"
    sweep.proxy.resume()
    assert outcomes(sweep.cluster) - before == path.counted
    print(f"\n{lives} processes")


def test_an_act_that_was_entered_before_a_crash_needs_no_second_place(sweep: Sweep) -> None:
    """The blast radius allows one act an hour, and the crash came between its entry and the Quarantine."""
    cap = {"maxActions": 1, "maxPercentPerNamespace": 100}
    sweep.cluster.create(policy("capped", deadline("Unowned"), labels={"path": "capped"}, blastRadius=cap))
    namespace = sweep.cluster.namespace("capped", labels={"path": "capped"})
    sweep.proxy.reset()
    sweep.proxy.stop_after(1, named("memory: turned, 1 counted, 1 acts", namespace))
    account(sweep.ground, namespace)
    sweep.proxy.wait_stopped(RECOVERY)
    sweep.operator.kill()
    sweep.proxy.resume()
    sweep.operator.start()
    eventually(lambda: quarantined()(sweep.ground, namespace), RECOVERY, what="quarantined")
