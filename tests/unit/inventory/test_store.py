"""The store: indexes, listeners, and the order of what we wrote and what the watch brings."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenure.inventory.projection import PROJECTIONS
from tenure.inventory.store import Store, service_account_of
from tenure.model.keys import Key
from tenure.model.records import Binding, Namespace, Pod, Role, Secret, ServiceAccount, Subject, Unprocessable

NOW = datetime(2026, 11, 1, tzinfo=UTC)


def account(name: str, namespace: str = "ns") -> ServiceAccount:
    return ServiceAccount(namespace, name, f"uid-{name}", NOW)


def secret(name: str, of: str = "", namespace: str = "ns") -> Secret:
    return Secret(namespace, name, f"uid-{name}", NOW, "Opaque", service_account=of)


def pod(name: str, account: str = "default", secrets: tuple[str, ...] = (), namespace: str = "ns") -> Pod:
    return Pod(namespace, name, account, secrets=secrets)


def binding(
    name: str, *subjects: Subject, namespace: str = "ns", role: tuple[str, str] = ("ClusterRole", "edit")
) -> Binding:
    return Binding(namespace, name, f"uid-{name}", NOW, role[0], role[1], subjects)  # type: ignore[arg-type]


def authored(kind: str, name: str, version: int = 1, uid: str = "u", namespace: str = "ns", **spec: Any) -> Any:
    metadata: dict[str, Any] = {"name": name, "uid": uid, "resourceVersion": str(version)}
    if kind not in ("IdentityOwner", "GovernancePolicy"):
        metadata["namespace"] = namespace
    return PROJECTIONS[kind]({"metadata": metadata, "spec": spec})


def claim(name: str, version: int = 1, owner: str = "payments", **more: Any) -> Any:
    return authored("OwnedIdentity", name, version, owner=owner, purpose="p", subjects={"selector": {}}, **more)


def names(records: tuple[Any, ...]) -> list[str]:
    return [record.name for record in records]


SA = Subject("ServiceAccount", "ns", "ci")
USER = Subject("User", "", "system:serviceaccount:ns:ci")


# --- indexes --------------------------------------------------------------------------------------------------------


def test_tokens_of_an_account_follow_a_change_of_annotation() -> None:
    store = Store()
    for name in ("t2", "t1"):
        store.upsert("Secret", secret(name, "ci"))
    store.upsert("Secret", secret("plain"))
    assert names(store.tokens_of("ns", "ci")) == ["t1", "t2"]
    store.upsert("Secret", secret("t1", "other"))
    assert names(store.tokens_of("ns", "ci")) == ["t2"]
    assert names(store.tokens_of("ns", "other")) == ["t1"]
    store.remove("Secret", "ns", "t2")
    assert store.tokens_of("ns", "ci") == ()
    assert names(store.secrets_in("ns")) == ["plain", "t1"]


def test_bindings_name_an_account_in_two_ways_and_groups_apart() -> None:
    store = Store()
    store.upsert("RoleBinding", binding("as-account", SA))
    store.upsert("RoleBinding", binding("as-both", SA, USER))
    store.upsert("RoleBinding", binding("elsewhere", SA, namespace="other"))
    store.upsert("ClusterRoleBinding", binding("as-user", USER, namespace=""))
    store.upsert(
        "ClusterRoleBinding", binding("group", Subject("Group", "", "system:serviceaccounts:ns"), namespace="")
    )
    store.upsert("ClusterRoleBinding", binding("all", Subject("Group", "", "system:serviceaccounts"), namespace=""))
    everyone = (Subject("Group", "", "system:authenticated"), Subject("Group", "", "system:serviceaccounts"))
    store.upsert("RoleBinding", binding("anyone", *everyone))
    store.upsert("RoleBinding", binding("others", Subject("Group", "", "system:serviceaccounts:other")))
    assert names(store.bindings_of("ns", "ci")) == ["as-user", "as-account", "as-both", "elsewhere"]
    assert names(store.group_bindings("ns")) == ["all", "group", "anyone"]
    assert names(store.group_bindings("other")) == ["all", "anyone", "others"]


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        (SA, ("ns", "ci")),
        (USER, ("ns", "ci")),
        (Subject("User", "", "system:serviceaccount:ns"), None),
        (Subject("User", "", "system:serviceaccount:ns:"), None),
        (Subject("User", "", "alice"), None),
        (Subject("Group", "", "system:serviceaccounts:ns"), None),
    ],
)
def test_the_account_of_a_subject(subject: Subject, expected: tuple[str, str] | None) -> None:
    assert service_account_of(subject) == expected


def test_bindings_of_a_role() -> None:
    store = Store()
    store.upsert("RoleBinding", binding("a", role=("Role", "x")))
    store.upsert("RoleBinding", binding("b", role=("ClusterRole", "x")))
    store.upsert("RoleBinding", binding("c", namespace="other", role=("Role", "x")))
    store.upsert("ClusterRoleBinding", binding("d", namespace="", role=("ClusterRole", "x")))
    assert names(store.bindings_of_role("Role", "ns", "x")) == ["a"]
    assert names(store.bindings_of_role("ClusterRole", "", "x")) == ["d", "b"]


def test_pods_by_account_and_by_secret() -> None:
    store = Store()
    store.upsert("Pod", pod("p1", "ci", ("a", "b")))
    store.upsert("Pod", pod("p2", "ci", ("b",)))
    assert names(store.pods_of("ns", "ci")) == ["p1", "p2"]
    assert names(store.pods_using_secret("ns", "b")) == ["p1", "p2"]
    store.upsert("Pod", pod("p1", "ci", ("a",)))
    assert names(store.pods_using_secret("ns", "b")) == ["p2"]
    store.remove("Pod", "ns", "p1")
    assert store.pods_using_secret("ns", "a") == ()


def test_our_own_kinds() -> None:
    store = Store()
    store.upsert("OwnedIdentity", claim("c1"))
    store.upsert("OwnedIdentity", claim("c2", owner="platform"))
    subject = {"kind": "ServiceAccount", "namespace": "ns", "name": "ci", "uid": "u"}
    store.upsert("IdentityFinding", authored("IdentityFinding", "f1", rule="Unowned", subject=subject))
    role = "ClusterRole/edit/ServiceAccount:ns:ci"
    cluster_wide = {"kind": "ClusterRoleBinding", "name": "ci", "entitlement": role}
    store.upsert(
        "IdentityFinding", authored("IdentityFinding", "f2", rule="EntitlementUndeclared", subject=cluster_wide)
    )
    assert names(store.claims_in("ns")) == ["c1", "c2"]
    assert names(store.claims_of_owner("platform")) == ["c2"]
    assert names(store.findings_about(Key("ServiceAccount", "ns", "ci"))) == ["f1"]
    assert names(store.findings_about(Key("ClusterRoleBinding", "ns", "ci", role))) == ["f2"]
    assert names(store.findings_in("ns")) == ["f1", "f2"]


def test_get_by_key() -> None:
    store = Store()
    store.upsert("Namespace", Namespace("ns", "u", NOW, (("team", "a"),)))
    store.upsert("IdentityOwner", authored("IdentityOwner", "payments"))
    store.upsert("ClusterRole", Role("", "edit", "u"))
    assert store.get(Key("Namespace", "", "ns")) is store.namespaces["ns"]
    assert store.get(Key("IdentityOwner", "", "payments")) is store.owners["payments"]
    assert store.get(Key("ClusterRole", "", "edit")) is store.roles[("", "edit")]
    assert store.get(Key("Secret", "ns", "none")) is None
    assert store.get(Key("Unheard", "ns", "of")) is None
    assert names(store.namespaces_labelled("team", "a")) == ["ns"]
    assert store.namespaces_labelled("team", "b") == ()


def test_kinds_that_share_a_table_are_listed_apart() -> None:
    store = Store()
    store.upsert("RoleBinding", binding("a"))
    store.upsert("RoleBinding", binding("b", namespace="other"))
    store.upsert("ClusterRoleBinding", binding("a", namespace=""))
    store.upsert("Namespace", Namespace("ns", "u", NOW))
    assert store.names("RoleBinding") == [("ns", "a"), ("other", "b")]
    assert store.names("RoleBinding", "other") == [("other", "b")]
    assert store.names("ClusterRoleBinding") == [("", "a")]
    assert store.names("Namespace") == [("", "ns")]


def test_results_are_the_same_tuple_until_something_changes() -> None:
    store = Store()
    for n in range(5):
        store.upsert("Secret", secret(f"s{n}"))
    first = store.secrets_in("ns")
    assert store.secrets_in("ns") is first
    store.upsert("Secret", secret("s9"))
    assert names(store.secrets_in("ns")) == ["s0", "s1", "s2", "s3", "s4", "s9"]


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["put", "remove"]),
        st.sampled_from(["p0", "p1", "p2", "p3"]),
        st.sampled_from(["a", "b"]),
        st.sets(st.sampled_from(["s", "t"]), max_size=2),
    ),
    max_size=30,
)


@given(OPERATIONS)
@settings(deadline=None)
def test_indexes_agree_with_the_table_after_any_changes(operations: list[tuple[str, str, str, set[str]]]) -> None:
    store = Store()
    for what, name, run_as, secrets in operations:
        if what == "put":
            store.upsert("Pod", pod(name, run_as, tuple(sorted(secrets))))
        else:
            store.remove("Pod", "ns", name)
        everything = [store.pods[key] for key in sorted(store.pods)]
        for value in ("a", "b"):
            assert list(store.pods_of("ns", value)) == [one for one in everything if one.service_account == value]
        for value in ("s", "t"):
            assert list(store.pods_using_secret("ns", value)) == [one for one in everything if value in one.secrets]


# --- listeners ------------------------------------------------------------------------------------------------------


class Heard(list[tuple[str, str | None, str | None]]):
    def __init__(self, store: Store) -> None:
        super().__init__()
        store.listeners.append(self.hear)

    def hear(self, kind: str, old: Any, new: Any) -> None:
        self.append((kind, old and old.name, new and new.name))


def test_listeners_hear_each_change_once_and_nothing_else() -> None:
    store = Store()
    heard = Heard(store)
    assert store.upsert("ServiceAccount", account("a")) is None
    assert store.upsert("ServiceAccount", account("a")) == account("a")
    store.upsert("ServiceAccount", replace(account("a"), deleting=True))
    store.remove("ServiceAccount", "ns", "a")
    assert store.remove("ServiceAccount", "ns", "a") is None
    assert heard == [("ServiceAccount", None, "a"), ("ServiceAccount", "a", "a"), ("ServiceAccount", "a", None)]


def test_a_listener_sees_the_change_complete() -> None:
    store = Store()
    seen: list[list[str]] = []
    store.listeners.append(lambda kind, old, new: seen.append(names(store.tokens_of("ns", "ci"))))
    store.upsert("Secret", secret("t", "ci"))
    store.remove("Secret", "ns", "t")
    assert seen == [["t"], []]


def test_a_mere_resource_version_is_kept_without_a_word() -> None:
    store = Store()
    store.upsert("OwnedIdentity", claim("c", 5))
    heard = Heard(store)
    store.upsert("OwnedIdentity", claim("c", 6))
    assert heard == []
    assert store.claims[("ns", "c")].resource_version == "6"


# --- our writes and the watch's echo --------------------------------------------------------------------------------


def test_an_older_event_does_not_roll_back_what_we_wrote() -> None:
    store = Store()
    store.upsert("OwnedIdentity", claim("c", 9, owner="platform"))  # the answer to our write
    held = store.upsert("OwnedIdentity", claim("c", 7))  # the watch, late
    assert held is store.claims[("ns", "c")]
    assert store.claims[("ns", "c")].spec.owner == "platform"
    assert names(store.claims_of_owner("payments")) == []


def test_a_late_deletion_leaves_what_was_created_again() -> None:
    store = Store()
    store.upsert("OwnedIdentity", claim("c", 9, uid="new"))
    assert store.remove("OwnedIdentity", "ns", "c", resource_version=8) is None
    assert store.claims[("ns", "c")].uid == "new"
    assert store.remove("OwnedIdentity", "ns", "c", resource_version=10) is not None


def test_what_we_removed_does_not_come_back_with_a_late_event() -> None:
    store = Store()
    store.upsert("OwnedIdentity", claim("c", 5))
    store.remove("OwnedIdentity", "ns", "c")
    store.upsert("OwnedIdentity", claim("c", 6))
    assert store.claims == {}
    store.upsert("OwnedIdentity", claim("c", 7, uid="new"))
    assert store.claims[("ns", "c")].uid == "new"


def test_a_live_read_ahead_of_the_watch_is_not_rolled_back() -> None:
    store = Store()
    store.upsert("Secret", replace(secret("t", "ci"), resource_version=5))
    heard = Heard(store)
    store.upsert("Secret", replace(secret("t", "ci"), invalid_since="2026-11-20", resource_version=9))
    store.upsert("Secret", replace(secret("t", "ci"), last_used="2026-11-19", resource_version=7))  # the watch, late
    assert store.secrets[("ns", "t")].invalid_since == "2026-11-20"
    store.upsert("Secret", replace(secret("t", "ci"), invalid_since="2026-11-20", resource_version=9))
    assert len(heard) == 1
    store.upsert("Secret", replace(secret("t", "ci"), resource_version=10))
    assert store.secrets[("ns", "t")].invalid_since == ""


def test_a_secret_that_we_deleted_does_not_come_back_with_a_late_event() -> None:
    store = Store()
    store.upsert("Secret", replace(secret("t", "ci"), resource_version=5))
    store.remove("Secret", "ns", "t")
    store.upsert("Secret", replace(secret("t", "ci"), labels=(("x", "y"),), resource_version=6))
    assert store.secrets == {}
    store.upsert("Secret", replace(secret("t", "ci"), uid="another", resource_version=8))
    assert store.remove("Secret", "ns", "t", resource_version=7) is None
    assert ("ns", "t") in store.secrets


def test_a_record_without_a_version_is_taken() -> None:
    store = Store()
    store.upsert("Secret", replace(secret("t"), resource_version=5))
    store.upsert("Secret", replace(secret("t"), deleting=True))
    assert store.secrets[("ns", "t")].deleting


def test_history_that_went_back_is_taken_by_force() -> None:
    store = Store()
    store.upsert("OwnedIdentity", claim("c", 50))
    store.upsert("OwnedIdentity", claim("d", 51, uid="d"))
    store.remove("OwnedIdentity", "ns", "d")
    store.upsert("OwnedIdentity", claim("c", 3, owner="platform"), force=True)
    store.upsert("OwnedIdentity", claim("d", 4, uid="d"), force=True)
    assert store.claims[("ns", "c")].spec.owner == "platform"
    assert ("ns", "d") in store.claims


# --- what cannot be read --------------------------------------------------------------------------------------------


def broken(name: str = "c", version: int = 6) -> Unprocessable:
    record = authored("OwnedIdentity", name, version, novel=1)
    assert isinstance(record, Unprocessable)
    return record


def test_an_unreadable_object_leaves_the_tables_and_is_kept_apart() -> None:
    store = Store()
    store.upsert("OwnedIdentity", claim("c", 5))
    heard: list[tuple[Any, Any]] = []
    store.listeners.append(lambda kind, old, new: heard.append((type(old).__name__, type(new).__name__)))
    store.upsert("OwnedIdentity", broken())
    assert store.claims == {}
    assert store.claims_of_owner("payments") == ()
    assert names(store.unprocessable_in("ns")) == ["c"]
    assert store.get(Key("OwnedIdentity", "ns", "c")) is None
    assert store.names("OwnedIdentity") == [("ns", "c")]
    store.upsert("OwnedIdentity", claim("c", 5))  # late
    assert store.claims == {}
    store.upsert("OwnedIdentity", claim("c", 7))
    assert store.unprocessable == {}
    assert names(store.claims_in("ns")) == ["c"]
    store.upsert("OwnedIdentity", broken(version=8))
    store.remove("OwnedIdentity", "ns", "c", resource_version=9)
    assert store.unprocessable == {}
    assert heard == [
        ("Authored", "Unprocessable"),
        ("Unprocessable", "Authored"),
        ("Authored", "Unprocessable"),
        ("Unprocessable", "NoneType"),
    ]


def test_a_kind_without_a_table_is_an_error() -> None:
    with pytest.raises(KeyError):
        Store().upsert("ConfigMap", account("a"))


# --- Quarantines and their further objects --------------------------------------------------------------------------


def held(name: str, *bindings: str, version: int = 1, continues: str | None = None) -> Any:
    """A Quarantine that took ns/ci out of these bindings."""
    subject = {"kind": "ServiceAccount", "name": "ci", "namespace": "ns"}
    images = [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "namespace": "ns",
            "name": binding,
            "uid": f"uid-{binding}",
            "roleRef": {"kind": "Role", "name": "r"},
            "removed": [{"index": 0, "subject": subject}],
        }
        for binding in bindings
    ]
    spec = {"subject": {**subject, "uid": "uid-ci"}, **({"continues": continues} if continues else {})}
    metadata = {"name": name, "namespace": "ns", "uid": f"uid-{name}", "resourceVersion": str(version)}
    return PROJECTIONS["Quarantine"]({"metadata": metadata, "spec": spec, "status": {"preImages": images}})


def remembered(store: Store) -> list[str]:
    """What the one Quarantine there is remembers, wherever it stands."""
    [found] = store.quarantines.values()
    assert found.status is not None
    assert store.quarantines_in("ns") == (found,)
    assert store.get(Key("Quarantine", "ns", found.name)) == found
    for image in found.status.pre_images:
        assert store.quarantines_holding(image.uid) == (found,)
    return [image.name for image in found.status.pre_images]


def test_a_quarantine_is_read_with_its_further_objects_whichever_comes_first() -> None:
    for order in ((0, 1, 2), (2, 1, 0), (1, 0, 2)):
        store, told = Store(), []
        store.listeners.append(lambda kind, old, new, told=told: told.append(new))  # type: ignore[misc]
        objects = [held("q", "a", "b"), held("q-2", "c", continues="q"), held("q-3", "d", continues="q")]
        for place in order:
            store.upsert("Quarantine", objects[place])
        assert remembered(store) == ["a", "b", "c", "d"]
        assert told == [objects[place] for place in order]  # each as it is stored
        assert store.stored_quarantines[("ns", "q")].status.pre_images == objects[0].status.pre_images  # type: ignore[union-attr]
        assert store.names("Quarantine", "ns") == [("ns", objects[place].name) for place in order]
        assert store.counts()["Quarantine"] == 1
        assert store.orphans() == []


def test_a_further_object_that_changes_or_goes_changes_its_quarantine() -> None:
    store = Store()
    for made in (held("q", "a"), held("q-2", "b", continues="q")):
        store.upsert("Quarantine", made)
    store.upsert("Quarantine", held("q-2", "b", "c", version=2, continues="q"))
    assert remembered(store) == ["a", "b", "c"]
    assert store.quarantines_removing("ns", "ci") == store.quarantines_in("ns")
    store.remove("Quarantine", "ns", "q-2")
    assert remembered(store) == ["a"]
    assert store.quarantines_holding("uid-b") == ()


def test_further_objects_of_what_is_gone_are_orphans_and_no_quarantines() -> None:
    store = Store()
    for made in (held("q", "a"), held("q-2", "b", continues="q"), held("q-3", "c", continues="q")):
        store.upsert("Quarantine", made)
    store.remove("Quarantine", "ns", "q")
    assert not store.quarantines
    assert names(tuple(store.orphans())) == ["q-2", "q-3"]
    assert store.quarantines_holding("uid-b") == ()
    store.upsert("Quarantine", replace(held("q", "a", version=9), uid="another"))
    assert remembered(store) == ["a", "b", "c"]
    assert store.orphans() == []


def test_what_cannot_be_read_makes_no_orphans() -> None:
    store = Store()
    store.upsert("Quarantine", held("q", "a"))
    store.upsert("Quarantine", held("q-2", "b", continues="q"))
    store.upsert("Quarantine", Unprocessable("Quarantine", "ns", "q", "uid-q", 1, "2", "spec: unknown"))
    assert not store.quarantines
    assert store.orphans() == []
    store.upsert("Quarantine", held("q", "a", version=3))
    assert remembered(store) == ["a", "b"]
    store.upsert("Quarantine", Unprocessable("Quarantine", "ns", "q-2", "uid-q-2", 1, "4", "spec: unknown"))
    assert remembered(store) == ["a"]
