"""Killed at any write of what is done to entitlements, and to a ServiceAccount that is bound.

tests/support/crash.py says how. A fair sample of the paths; all of them with SWEEP=full."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.crash import FULL, QUARANTINED, Path, Sweep, ended, held, let_go, plain, revoked
from tests.support.ground import Ground
from tests.support.rest import Json
from tests.support.scenario import RBAC, claim, deadline, finding_of, quarantine_of, rule, service_account

pytestmark = [pytest.mark.local, pytest.mark.long]

UNDECLARED = "EntitlementUndeclared"
FOUND = f"finding {UNDECLARED} of RoleBinding/reader"
HELD = "quarantine of rolebinding-reader"
ACCOUNT = "finding Unowned of ServiceAccount/ci"
OF_ACCOUNT = "quarantine of serviceaccount-ci"
ALICE = {"kind": "User", "apiGroup": RBAC, "name": "alice"}
LATER = deadline(within="90d", action="Nothing")
ENTITLEMENTS, ACCOUNTS = deadline(UNDECLARED), deadline("Unowned", stages=["Guard", "RemoveEntitlements"])
BOTH = "Guard verified, RemoveEntitlements verified"
MANY = tuple(f"often-{number:02}" for number in range(15))


def bound(ground: Ground, namespace: str) -> None:
    """Alice and a ServiceAccount that is there by then, bound to a role. The operator has seen the ServiceAccount."""
    cluster = ground.cluster
    rules = [rule("", ["configmaps"], ["get"])]
    about = {"name": "reader", "namespace": namespace}
    cluster.create({"apiVersion": f"{RBAC}/v1", "kind": "Role", "metadata": about, "rules": rules})
    subjects = [ALICE, {"kind": "ServiceAccount", "name": "ci", "namespace": namespace}]
    role = {"apiGroup": RBAC, "kind": "Role", "name": "reader"}
    binding: Json = {"apiVersion": f"{RBAC}/v1", "kind": "RoleBinding", "metadata": about, "roleRef": role}
    cluster.create({**binding, "subjects": subjects})
    cluster.create(service_account(namespace, "ci"))


def taken_out(rule: str, name: str) -> Callable[[Ground, str], bool]:
    """Whether its Quarantine is in force, its finding says so, and Alice alone is bound."""

    def ready(ground: Ground, namespace: str) -> bool:
        found = finding_of(ground.cluster, namespace, rule, name)
        binding = ground.cluster.get("rolebindings", "reader", namespace) or {}
        done = found is not None and found["status"]["phase"] == "Quarantined" and found["status"].get("verified")
        other = finding_of(ground.cluster, namespace, *OTHER[rule])
        return bool(done) and other is not None and binding.get("subjects") == [ALICE]

    return ready


OTHER = {UNDECLARED: ("Unowned", "ci"), "Unowned": (UNDECLARED, "reader")}


def declare(ground: Ground, namespace: str) -> None:
    listed = [{"roleRef": {"kind": "Role", "name": "reader"}}]
    made = claim(namespace, "team", accounts=["ci"], entitlements=listed)
    ground.cluster.create(made, user="carla")


def release(ground: Ground, namespace: str) -> None:
    found = quarantine_of(ground.cluster, namespace, "ci")
    assert found is not None
    ground.cluster.delete("quarantines", found["metadata"]["name"], namespace, user="rita")


def on_record(ground: Ground, namespace: str) -> bool:
    """Whether its finding is resolved, and only the record of it is left."""
    held = quarantine_of(ground.cluster, namespace, "reader")
    found = finding_of(ground.cluster, namespace, UNDECLARED, "reader")
    return bool(held and not held["metadata"].get("finalizers") and found and found["status"]["phase"] == "Resolved")


def wholly_bound(ground: Ground, namespace: str) -> None:
    """In their old places, and nothing says that anything was out."""
    found = ground.cluster.get("rolebindings", "reader", namespace)
    assert found is not None
    assert [subject["name"] for subject in found["subjects"]] == ["alice", "ci"]
    assert not found["metadata"].get("annotations")


def bound_often(ground: Ground, namespace: str) -> None:
    """So many bindings, each with as many subjects as may be taken out of one, that it takes two objects to remember
    them."""
    cluster = ground.cluster
    rules = [rule("", ["configmaps"], ["get"])]
    about = {"name": "reader", "namespace": namespace}
    cluster.create({"apiVersion": f"{RBAC}/v1", "kind": "Role", "metadata": about, "rules": rules})
    user = {"kind": "User", "apiGroup": RBAC, "name": f"system:serviceaccount:{namespace}:ci"}
    for name in MANY:
        cluster.create(
            {
                "apiVersion": f"{RBAC}/v1",
                "kind": "RoleBinding",
                "metadata": {"name": name, "namespace": namespace},
                "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": "reader"},
                "subjects": [user] * 256,
            }
        )


def seen_bound_often(ground: Ground, namespace: str) -> bool:
    """Whether each of the bindings has its finding."""
    return all(finding_of(ground.cluster, namespace, UNDECLARED, name) for name in MANY)


def appear(ground: Ground, namespace: str) -> None:
    ground.cluster.create(service_account(namespace, "ci"))


def appeared_and_bound(ground: Ground, namespace: str) -> None:
    bound_often(ground, namespace)
    appear(ground, namespace)


def out_of_all(ground: Ground, namespace: str) -> bool:
    """Whether its Quarantine is in force, its finding says so, and it stands in none of its bindings."""
    found = finding_of(ground.cluster, namespace, "Unowned", "ci")
    bindings = ground.cluster.list("rolebindings", namespace)
    done = found is not None and found["status"]["phase"] == "Quarantined" and found["status"].get("verified")
    return (
        bool(done) and seen_bound_often(ground, namespace) and not any(binding.get("subjects") for binding in bindings)
    )


def in_all(ground: Ground, namespace: str) -> None:
    bindings = ground.cluster.list("rolebindings", namespace)
    assert [len(binding.get("subjects", ())) for binding in bindings] == [256] * len(MANY)
    assert not any(binding["metadata"].get("annotations") for binding in bindings)


def of_a_further_object(name: str) -> bool:
    return name.startswith(f"{OF_ACCOUNT} (2)")


def both_gone(ground: Ground, namespace: str) -> bool:
    """The ServiceAccount and its Quarantine; the finding tells of it."""
    return revoked(ground, namespace) and ended(ground, namespace)


def opted_in(ground: Ground) -> None:
    """As with `make install ENTITLEMENTS=1`."""
    ground.cluster.install(entitlements=True)


ALL = (
    Path(
        "entitlement",
        arrange=opted_in,
        policies=(plain("entitlement", ENTITLEMENTS, LATER),),
        trigger=bound,
        done=taken_out(UNDECLARED, "reader"),
        counted=1,
        writes=frozenset(
            {
                "binding reader: 1 in, 1 out",
                f"{FOUND}: Open",
                f"{FOUND}: Open, missed",
                f"{FOUND}: Quarantined, {QUARANTINED}",
                f"{ACCOUNT}: Open",
                "guard of bindings: 1 out",
                "memory: turned, 1 counted, 0 acts",
                "memory: turned, 1 counted, 1 acts",
                f"{HELD}: Guard verified",
                f"{HELD}: Guard verified, 1 bindings remembered",
                f"{HELD}: {BOTH}, 1 bindings remembered",
                f"{HELD}: intent",
            }
        ),
        sometimes=frozenset({f"{FOUND}: Open, missed, by Policy, Quarantine started"}),
    ),
    Path(
        "entitlement-claim",
        arrange=opted_in,
        policies=(plain("entitlement-claim", ENTITLEMENTS, LATER),),
        prepare=bound,
        ready=taken_out(UNDECLARED, "reader"),
        trigger=declare,
        done=ended,
        check=wholly_bound,
        counted=1,
        writes=frozenset(
            {
                "apply identityowners/status",
                "apply ownedidentities/status",
                "binding reader: 2 in, 0 out",
                f"{FOUND}: Resolved, {QUARANTINED}, owner team",
                f"{ACCOUNT}: Resolved, met, by Claim, owner team",
                "guard of bindings: not named",
                "memory: turned, 2 counted, 1 acts",
                f"{HELD}: {BOTH}, 1 bindings remembered, releasing",
                f"{HELD}: deleted",
                f"{HELD}: finalizer off",
            }
        ),
        sometimes=frozenset({"guard of bindings: 1 out"}),
    ),
    Path(
        "entitlement-revocation",
        arrange=opted_in,
        policies=(
            plain("entitlement-revocation", deadline(UNDECLARED, revoke_after="1s"), LATER),
            held("entitlement-revocation", deadline(UNDECLARED, revoke_after="1s"), LATER, suspend=True),
        ),
        prepare=bound,
        ready=taken_out(UNDECLARED, "reader"),
        hold=True,
        trigger=let_go,
        done=on_record,
        counted=0,
        writes=frozenset(
            {
                "binding reader: 1 in, 0 out",
                f"{FOUND}: Resolved, {QUARANTINED}, Revoke verified",
                "memory: turned, 1 counted, 2 acts",
                f"{HELD}: {BOTH}, 1 bindings remembered, 0 of 1 revoked",
                f"{HELD}: {BOTH}, 1 bindings remembered, 1 of 1 revoked",
                f"{HELD}: finalizer off",
            }
        ),
        sometimes=frozenset(
            {f"{FOUND}: Quarantined, {QUARANTINED}", f"{FOUND}: Quarantined, {QUARANTINED}, Revoke started"}
        ),
    ),
    Path(
        "account-entitlements",
        arrange=opted_in,
        policies=(plain("account-entitlements", ACCOUNTS, LATER),),
        trigger=bound,
        done=taken_out("Unowned", "ci"),
        counted=1,
        writes=frozenset(
            {
                "binding reader: 1 in, 1 out",
                f"{FOUND}: Open",
                f"{ACCOUNT}: Open",
                f"{ACCOUNT}: Open, missed",
                f"{ACCOUNT}: Quarantined, {QUARANTINED}",
                "guard of bindings: named",
                "guard of namespace: 1 accounts",
                "memory: turned, 1 counted, 0 acts",
                "memory: turned, 1 counted, 1 acts",
                f"{OF_ACCOUNT}: Guard verified",
                f"{OF_ACCOUNT}: Guard verified, 1 bindings remembered",
                f"{OF_ACCOUNT}: {BOTH}, 1 bindings remembered",
                f"{OF_ACCOUNT}: intent",
            }
        ),
        sometimes=frozenset({f"{ACCOUNT}: Open, missed, by Policy, Quarantine started"}),
    ),
    Path(
        "account-release",
        arrange=opted_in,
        policies=(
            plain("account-release", ACCOUNTS, LATER),
            held("account-release", {**ACCOUNTS, "decideWithin": "1h"}, LATER),
        ),
        prepare=bound,
        ready=taken_out("Unowned", "ci"),
        hold=True,
        trigger=release,
        done=ended,
        check=wholly_bound,
        counted=0,
        writes=frozenset(
            {
                "binding reader: 2 in, 0 out",
                f"{ACCOUNT}: Open, released",
                "guard of bindings: not named",
                "guard of namespace: deleted",
                f"{OF_ACCOUNT}: finalizer off",
            }
        ),
    ),
    Path(
        "account-bound-often",
        arrange=opted_in,
        policies=(plain("account-bound-often", ACCOUNTS, LATER),),
        prepare=bound_often,
        ready=seen_bound_often,
        trigger=appear,
        done=out_of_all,
        counted=1,
        writes=frozenset(
            {
                *(f"binding {name}: 0 in, 1 out" for name in MANY),
                f"{ACCOUNT}: Open",
                f"{ACCOUNT}: Open, missed",
                f"{ACCOUNT}: Quarantined, {QUARANTINED}",
                "guard of bindings: named",
                "guard of namespace: 1 accounts",
                "memory: turned, 1 counted, 0 acts",
                "memory: turned, 1 counted, 1 acts",
                f"{OF_ACCOUNT}: Guard verified",
                f"{OF_ACCOUNT} (2): intent",
                f"{OF_ACCOUNT} (2): 2 bindings remembered",
                f"{OF_ACCOUNT}: Guard verified, 13 bindings remembered, continued in 1",
                f"{OF_ACCOUNT}: {BOTH}, 13 bindings remembered, continued in 1",
                f"{OF_ACCOUNT}: intent",
            }
        ),
        sometimes=frozenset({f"{ACCOUNT}: Open, missed, by Policy, Quarantine started"}),
        fails=of_a_further_object,
    ),
    Path(
        "bound-often-release",
        fails=of_a_further_object,
        arrange=opted_in,
        policies=(
            plain("bound-often-release", ACCOUNTS, LATER),
            held("bound-often-release", {**ACCOUNTS, "decideWithin": "1h"}, LATER),
        ),
        prepare=appeared_and_bound,
        ready=out_of_all,
        hold=True,
        trigger=release,
        done=ended,
        check=in_all,
        counted=0,
        writes=frozenset(
            {
                *(f"binding {name}: 256 in, 0 out" for name in MANY),
                f"{ACCOUNT}: Open, released",
                "guard of bindings: not named",
                "guard of namespace: deleted",
                f"{OF_ACCOUNT}: {BOTH}, 13 bindings remembered",
                f"{OF_ACCOUNT} (2): finalizer off",
                f"{OF_ACCOUNT} (2): deleted",
                f"{OF_ACCOUNT}: finalizer off",
            }
        ),
    ),
    Path(
        "account-revocation",
        arrange=opted_in,
        policies=(
            plain("account-revocation", {**ACCOUNTS, "revokeAfter": "1s"}, LATER),
            held("account-revocation", {**ACCOUNTS, "revokeAfter": "1s"}, LATER, suspend=True),
        ),
        prepare=bound,
        ready=taken_out("Unowned", "ci"),
        hold=True,
        trigger=let_go,
        done=both_gone,
        counted=1,
        writes=frozenset(
            {
                "account ci: deleted",
                "binding reader: 1 in, 0 out",
                f"{FOUND}: Resolved, met, by SubjectGone",
                f"{ACCOUNT}: Resolved, {QUARANTINED}, Revoke verified",
                "guard of bindings: not named",
                "guard of namespace: deleted",
                "memory: turned, 1 counted, 2 acts",
                "memory: turned, 2 counted, 2 acts",
                f"{OF_ACCOUNT}: {BOTH}, 1 bindings remembered, 0 of 1 revoked",
                f"{OF_ACCOUNT}: {BOTH}, 1 bindings remembered, 1 of 1 revoked",
                f"{OF_ACCOUNT}: {BOTH}, 1 bindings remembered, 1 of 1 revoked, releasing",
                f"{OF_ACCOUNT}: deleted",
                f"{OF_ACCOUNT}: finalizer off",
            }
        ),
        sometimes=frozenset(
            {
                f"{ACCOUNT}: Quarantined, {QUARANTINED}",
                f"{ACCOUNT}: Quarantined, {QUARANTINED}, Revoke started",
                f"{ACCOUNT}: Resolved, {QUARANTINED}, Revoke started",
            }
        ),
    ),
)


PATHS = ALL if FULL else tuple(path for path in ALL if path.title in ("entitlement-claim", "account-revocation"))


def test_a_crash_at_any_write_ends_in_the_same_state(sweep: Sweep, path: Path) -> None:
    sweep.run(path)
