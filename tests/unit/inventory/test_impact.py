"""What a change dirties: enough, by a property over random histories; and not too much, by examples."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tenure.api.claim import OwnedIdentitySpec
from tenure.api.decision import IdentityDecisionSpec, IdentityDecisionStatus
from tenure.api.exception import IdentityExceptionSpec, IdentityExceptionStatus
from tenure.api.finding import IdentityFindingSpec, IdentityFindingStatus
from tenure.api.owner import IdentityOwnerSpec
from tenure.api.policy import GovernancePolicySpec
from tenure.api.quarantine import QuarantineSpec
from tenure.inventory import entitlements
from tenure.inventory.impact import affected
from tenure.inventory.snapshot import Shared, evaluate, subjects
from tenure.inventory.store import Store
from tenure.model.evaluation import Evaluation
from tenure.model.keys import Key
from tenure.model.records import (
    Authored,
    Binding,
    Namespace,
    Pod,
    Role,
    Secret,
    ServiceAccount,
    Subject,
    Unprocessable,
)
from tests.unit.rules.world import BEGIN, DAY, NOW, NS, ROWS, Installation, World

INSTALLATION = Installation()
NAMESPACES = ("a", "b", "kube-system")
ACCOUNTS = ("default", "x", "y")
SECRETS = ("t", "u", "o")
OWNERS = ("team", "backup", "ghost")
LABELS = ((), (("app", "one"),), (("app", "two"), ("tenure.dev/owner", "team")), (("team", "backup"),))

namespaces = st.sampled_from(NAMESPACES)
labels = st.sampled_from(LABELS)
created = st.sampled_from((BEGIN, BEGIN + DAY, BEGIN + 2 * DAY))
decided = st.sampled_from((NOW - 3 * DAY, NOW - DAY))
instants = st.sampled_from((NOW - DAY, NOW + DAY, NOW + 40 * DAY))
selectors = st.sampled_from(({}, {"matchLabels": {"app": "one"}}, {"matchLabels": {"app": "two"}}))


@st.composite
def _subject_set(draw: st.DrawFn, names: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {"names": draw(st.lists(st.sampled_from(names), unique=True, max_size=2))}
    if draw(st.booleans()):
        found["selector"] = draw(selectors)
    return found


@st.composite
def _claim(draw: st.DrawFn) -> dict[str, Any]:
    subjects: dict[str, Any] = {
        "serviceAccounts": draw(_subject_set(ACCOUNTS)),
        "secrets": draw(_subject_set(SECRETS)),
    }
    if draw(st.booleans()):
        subjects["selector"] = draw(selectors)
    spec: dict[str, Any] = {"owner": draw(st.sampled_from(OWNERS)), "purpose": "p", "subjects": subjects}
    if draw(st.booleans()):
        spec["expiresAt"] = draw(instants)
    if draw(st.booleans()):
        spec["credentials"] = {"maxAge": "50d"}
    if draw(st.booleans()):
        role = {"kind": "ClusterRole", "name": draw(st.sampled_from(("r", "s")))}
        where: dict[str, Any] = draw(st.sampled_from(({}, {"namespace": "b"}, {"scope": "Cluster"})))
        spec["entitlements"] = [{"roleRef": role, **where}]
    return spec


@st.composite
def _exception(draw: st.DrawFn) -> dict[str, Any]:
    kind, names = draw(
        st.sampled_from(
            (
                ("ServiceAccount", ACCOUNTS),
                ("Secret", SECRETS),
                ("OwnedIdentity", ("c", "d")),
                ("RoleBinding", ("m", "n")),
                ("ClusterRoleBinding", ("m", "n")),
            )
        )
    )
    target: dict[str, Any] = {"kind": kind}
    if draw(st.booleans()):
        target["name"] = draw(st.sampled_from(names))
    else:
        target["selector"] = draw(selectors)
    rules = draw(
        st.lists(
            st.sampled_from(
                ("Unowned", "LegacyToken", "CredentialTooOld", "OwnerVacant", "ClaimConflict", "EntitlementUndeclared")
            ),
            min_size=1,
            unique=True,
        )
    )
    return {
        "target": target,
        "rules": rules,
        "class": "AcceptedRisk",
        "owner": draw(st.sampled_from(OWNERS)),
        "justification": "j",
        "requestedBy": "alice",
        "expiresAt": draw(instants),
    }


@st.composite
def _policy(draw: st.DrawFn) -> dict[str, Any]:
    spec: dict[str, Any] = {"precedence": draw(st.integers(0, 1))}
    if draw(st.booleans()):
        spec["namespaceSelector"] = draw(selectors)
    if draw(st.booleans()):
        spec["platformNamespaces"] = ["kube-system"]
    if draw(st.booleans()):
        spec["enforceIn"] = draw(selectors)
    spec["ownership"] = draw(
        st.sampled_from(
            (
                {},
                {"namespaceLabels": ["team"], "requireDeclared": ["High"]},
                {"objectLabels": ["team"], "objectLabelsCount": True, "requireDeclared": []},
                {"objectLabels": ["team"]},
            )
        )
    )
    if draw(st.booleans()):
        asked: list[Any] = draw(st.sampled_from(([], [{"verb": "approve"}])))
        spec["exceptions"] = {"classes": [{"class": "AcceptedRisk", "approvals": asked, "maxRenewals": 1}]}
    if draw(st.booleans()):
        spec["reviews"] = [{"interval": "30d"}]
    spec["credentials"] = {"maxAge": draw(st.sampled_from(("90d", "200d")))}
    return spec


_OWNER_SPECS = st.fixed_dictionaries(
    {"suspended": st.booleans()},
    optional={
        "backup": st.sampled_from(OWNERS),
        "escalation": st.lists(
            st.fixed_dictionaries({"after": st.just("50%"), "to": st.sampled_from(OWNERS)}), max_size=2
        ),
        "contacts": st.just([{"type": "Email", "value": "a@example.com"}]),
    },
)


def _bound(draw: st.DrawFn) -> Subject:
    namespace = draw(namespaces)
    return draw(
        st.sampled_from(
            (
                Subject("ServiceAccount", namespace, draw(st.sampled_from(ACCOUNTS))),
                Subject("ServiceAccount", namespace, draw(st.sampled_from(ACCOUNTS))),
                Subject("User", "", f"system:serviceaccount:{namespace}:x"),
                Subject("Group", "", f"system:serviceaccounts:{namespace}"),
                Subject("Group", "", "system:serviceaccounts"),
                Subject("Group", "", "somebody"),
            )
        )
    )


class History:
    """A store under random changes, with an evaluation of everything kept up by `affected` alone."""

    def __init__(self) -> None:
        self.store = Store()
        self.kept: dict[Key, Evaluation] = {}
        self.dirty: set[Key] = set()
        self.store.listeners.append(lambda kind, old, new: self.dirty.update(affected(self.store, kind, old, new)))
        self.number = 0
        self.namespaces: st.SearchStrategy[str] = namespaces
        self.born: dict[str, Any] = {}
        """creation by uid: neither changes without the other"""

    def next(self) -> int:
        self.number += 1
        return self.number

    def uid(self, kind: str, namespace: str, name: str, fresh: bool) -> str:
        old = self.store.get(Key(kind, namespace, name))
        if old is None:
            old = self.store.unprocessable.get(Key(kind, namespace, name))
        return f"uid-{self.next()}" if old is None or fresh else old.uid  # type: ignore[union-attr]

    def settle(self) -> None:
        for key in self.dirty:
            judged = evaluate(self.store, key, NOW, INSTALLATION)
            if judged.exists:
                self.kept[key] = judged
            else:
                self.kept.pop(key, None)
        self.dirty.clear()
        for key in self.store.unprocessable:
            self.kept.pop(key, None)  # the last evaluation of what cannot be read stands, and is compared with nothing

    def afresh(self) -> dict[Key, Evaluation]:
        """Everything judged without anything remembered."""
        listeners = self.store.listeners[:]
        self.store.listeners[:] = [found for found in listeners if not isinstance(found, Shared)]
        try:
            return {key: evaluate(self.store, key, NOW, INSTALLATION) for key in subjects(self.store)}
        finally:
            self.store.listeners[:] = listeners


def _comparable(evaluation: Evaluation) -> tuple[Any, ...]:
    """A policy's status moves without changing anybody's evaluation; its spec is what counts."""
    policy = evaluation.governance.policy
    governed = (policy.uid, policy.spec) if policy is not None else None
    return replace(evaluation, governance=replace(evaluation.governance, policy=None)), governed


KINDS = (
    "Namespace",
    "ServiceAccount",
    "Secret",
    "Binding",
    "Role",
    "Pod",
    "IdentityOwner",
    "OwnedIdentity",
    "IdentityException",
    "GovernancePolicy",
    "Quarantine",
    "IdentityDecision",
    "IdentityFinding",
)


def _neighbours(history: History) -> None:
    """Who may run pods in two namespaces, and somebody there: what a Critical grant has to meet to elevate."""
    for namespace, name in (("a", "x"), ("b", "y")):
        history.store.upsert("ServiceAccount", ServiceAccount(namespace, name, f"uid-{namespace}", BEGIN))
    for name, row in (("r", "R11"), ("s", "R02")):
        history.store.upsert("ClusterRole", Role("", name, f"uid-{name}", (ROWS[row],)))
    for namespace in ("a", "b"):
        bound = tuple(Subject("ServiceAccount", where, name) for where in ("a", "b") for name in ("x", "y"))
        made = Binding(namespace, "m", f"uid-m-{namespace}", BEGIN, "ClusterRole", "r", bound)
        history.store.upsert("RoleBinding", made)


RIGHTS = ("ServiceAccount", "Binding", "Binding", "Role", "Role", "Secret", "OwnedIdentity")
WAIVERS = ("IdentityException", "IdentityDecision", "IdentityDecision", "IdentityFinding", "Secret", "GovernancePolicy")
USE = ("Pod", "Pod", "Quarantine", "ServiceAccount", "Secret")
MIXES = {"everything": (100, KINDS), "rights": (100, RIGHTS), "use": (80, USE), "waivers": (200, WAIVERS)}
"""(examples, kinds): rare coincidences, such as a namespace's only Critical ServiceAccount, need a denser history"""


def _change(draw: st.DrawFn, history: History, kinds: tuple[str, ...]) -> None:
    kind = draw(st.sampled_from(kinds))
    plain = {"Namespace": _namespace, "ServiceAccount": _account, "Secret": _secret, "Pod": _pod}
    if kind in plain:
        _put_or_remove(draw, history, kind, *plain[kind](draw, history))
    elif kind == "Role":
        namespace = draw(st.sampled_from(("", "a")))
        grades = draw(st.sampled_from(((), ("R07",), ("R11",), ("R11",), ("R02",), ("R02",), ("R01", "R11"), ("R12",))))
        name = draw(st.sampled_from(("r", "s")))
        record = Role(namespace, name, f"uid-{history.next()}", tuple(ROWS[row] for row in grades))
        _put_or_remove(draw, history, "Role" if namespace else "ClusterRole", namespace, name, record)
    elif kind == "Binding":
        namespace = draw(st.sampled_from(("", "a", "a", "b", "kube-system")))
        name = draw(st.sampled_from(("m", "n")))
        role_kind = draw(st.sampled_from(("Role", "ClusterRole"))) if namespace else "ClusterRole"
        bound = tuple(_bound(draw) for _ in range(draw(st.integers(1, 2))))
        role = draw(st.sampled_from(("r", "s")))
        made = Binding(namespace, name, f"uid-{history.next()}", draw(created), role_kind, role, bound,
                       draw(st.booleans()))  # fmt: skip
        _put_or_remove(draw, history, "RoleBinding" if namespace else "ClusterRoleBinding", namespace, name, made)
    else:
        _own_kind(draw, history, kind)


def _put_or_remove(draw: st.DrawFn, history: History, kind: str, namespace: str, name: str, record: Any) -> None:
    if draw(st.integers(0, 3)) == 0:
        history.store.remove(kind, namespace, name)
    else:
        history.store.upsert(kind, record)


def _namespace(draw: st.DrawFn, history: History) -> tuple[str, str, Any]:
    name = draw(namespaces)
    return "", name, Namespace(name, f"uid-{history.next()}", BEGIN, draw(labels), draw(st.booleans()))


def _account(draw: st.DrawFn, history: History) -> tuple[str, str, Any]:
    namespace, name = draw(history.namespaces), draw(st.sampled_from(ACCOUNTS))
    uid = history.uid("ServiceAccount", namespace, name, draw(st.booleans()))
    return namespace, name, ServiceAccount(namespace, name, uid, draw(created), draw(labels))


def _secret(draw: st.DrawFn, history: History) -> tuple[str, str, Any]:
    namespace, name = draw(history.namespaces), draw(st.sampled_from(SECRETS))
    token = draw(st.booleans())
    account = draw(st.sampled_from(ACCOUNTS))
    known = history.store.service_accounts.get((namespace, account))
    uid = history.uid("Secret", namespace, name, draw(st.booleans()))
    return (
        namespace,
        name,
        Secret(
            namespace,
            name,
            uid,
            draw(created),
            "kubernetes.io/service-account-token" if token else "Opaque",
            draw(st.sampled_from((("token",), ("ca.crt",)))),
            draw(labels),
            data_changed=draw(st.sampled_from((None, NOW - 60 * DAY, NOW - DAY))),
            service_account=account if token else "",
            service_account_uid=draw(st.sampled_from(("", known.uid if known else "gone"))) if token else "",
        ),
    )


def _pod(draw: st.DrawFn, history: History) -> tuple[str, str, Any]:
    namespace, name = draw(namespaces), draw(st.sampled_from(("p", "q")))
    account, finished = draw(st.sampled_from(ACCOUNTS)), draw(st.booleans())
    used = draw(st.sampled_from(((), ("o",))))
    return namespace, name, Pod(namespace, name, account, finished, used)


def _own_kind(draw: st.DrawFn, history: History, kind: str) -> None:
    namespaced = kind not in ("IdentityOwner", "GovernancePolicy")
    namespace = draw(history.namespaces) if namespaced else ""
    names = {
        "IdentityOwner": OWNERS,
        "OwnedIdentity": ("c", "d"),
        "GovernancePolicy": ("p", "q"),
        "IdentityException": ("e", "f"),
        "IdentityDecision": ("i", "j", "k"),
        "IdentityFinding": ("m", "n"),
    }.get(kind, ("e",))
    name = draw(st.sampled_from(names))
    uid = history.uid(kind, namespace, name, False)
    action = draw(st.integers(0, 9))
    if action < 3:
        history.store.remove(kind, namespace, name)
        return
    if action == 3 and kind not in ("Quarantine", "IdentityFinding"):
        version = str(history.next())
        history.store.upsert(kind, Unprocessable(kind, namespace, name, uid, 1, version, "cannot be read"))
        return
    generation = draw(st.integers(1, 2))
    history.store.upsert(
        kind,
        Authored(
            kind=kind,
            namespace=namespace,
            name=name,
            uid=uid,
            generation=generation,
            resource_version=str(history.next()),
            created=history.born.setdefault(uid, draw(decided if kind == "IdentityDecision" else created)),
            spec=_spec(draw, history, kind, namespace),
            status=_status(draw, history, kind, namespace, generation),
            spec_changed=draw(st.sampled_from((None, NOW - 2 * DAY))),
            labels=draw(labels),
        ),
    )


def _spec(draw: st.DrawFn, history: History, kind: str, namespace: str) -> Any:
    if kind == "IdentityOwner":
        return IdentityOwnerSpec.read(draw(_OWNER_SPECS))
    if kind == "OwnedIdentity":
        return OwnedIdentitySpec.read(draw(_claim()))
    if kind == "IdentityException":
        return IdentityExceptionSpec.read(draw(_exception()))
    if kind == "GovernancePolicy":
        return GovernancePolicySpec.read(draw(_policy()))
    if kind == "IdentityDecision":
        return _decision(draw, history, namespace)
    if kind == "IdentityFinding":
        about = draw(st.sampled_from((("Secret", "o"), ("Secret", "t"), ("ServiceAccount", "x"))))
        rule = draw(st.sampled_from(("LegacyToken", "Unowned")))
        subject = {"kind": about[0], "name": about[1], "namespace": namespace, "uid": "u"}
        return IdentityFindingSpec.read({"rule": rule, "subject": subject})
    subject = draw(st.sampled_from((("ServiceAccount", "x"), ("Secret", "o"))))
    return QuarantineSpec.read({"subject": {"kind": subject[0], "name": subject[1], "uid": "u"}})


def _decision(draw: st.DrawFn, history: History, namespace: str) -> IdentityDecisionSpec:
    """About a claim or exception that is there, mostly; by its author or by others."""
    there: list[Any] = [*history.store.exceptions_in(namespace), *history.store.claims_in(namespace)]
    target: dict[str, Any] = {"kind": "IdentityException", "name": "e", "uid": "u", "generation": 1}
    if there:
        about = draw(st.sampled_from(there))
        target = {"kind": about.kind, "name": about.name, "uid": about.uid, "generation": draw(st.integers(1, 2))}
    verdicts: tuple[tuple[str, str | None], ...] = (("Attest", None),)
    if target["kind"] == "IdentityException":
        verdicts += (("Approve", None), ("Approve", None), ("Approve", "force"), ("Reject", None))
    verdict, verb = draw(st.sampled_from(verdicts))
    spec = {"target": target, "verdict": verdict, "reason": "r", "by": draw(st.sampled_from(("bob", "alice")))}
    return IdentityDecisionSpec.read(spec | ({"verb": verb} if verb else {}))


def _status(draw: st.DrawFn, history: History, kind: str, namespace: str, generation: int) -> Any:
    if kind == "IdentityFinding":
        until = draw(st.sampled_from((None, NOW, NOW + 20 * DAY)))
        debt = {"renewals": draw(st.integers(0, 2)), "until": until}
        return IdentityFindingStatus.read({"risk": {"level": "Low"}, "debt": debt})
    if kind == "IdentityDecision":
        outcome = draw(st.sampled_from(("", "", "Counted", "Void")))
        return IdentityDecisionStatus.read({"outcome": outcome}) if outcome else None
    return _exception_status(draw, history, namespace, generation) if kind == "IdentityException" else None


def _exception_status(draw: st.DrawFn, history: History, namespace: str, generation: int) -> IdentityExceptionStatus:
    there = [key for key in subjects(history.store) if key.namespace == namespace and key.kind != "IdentityException"]
    pinned = draw(st.lists(st.sampled_from(there), unique=True, max_size=2)) if there else []
    return IdentityExceptionStatus.read(
        {
            "observedGeneration": draw(st.sampled_from((generation, 1))),
            "phase": draw(st.sampled_from(("Active", "Active", "Pending", "Pending", "Withdrawn"))),
            "matched": [
                {"kind": key.kind, "name": key.name, "uid": history.store.get(key).uid}  # type: ignore[union-attr]
                for key in pinned
            ],
        }
    )


@pytest.mark.parametrize("mix", MIXES)
def test_judging_only_what_is_affected_equals_judging_everything(mix: str) -> None:
    examples, kinds = MIXES[mix]
    settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))(
        given(st.data())(lambda data: _judged_alike(data, kinds))
    )()


def _judged_alike(data: st.DataObject, kinds: tuple[str, ...]) -> None:
    history = History()
    if kinds is RIGHTS:
        _neighbours(history)
    if kinds is WAIVERS:
        history.namespaces = st.just("a")
    for _ in range(data.draw(st.integers(10, 60))):
        _change(data.draw, history, kinds)
        if data.draw(st.integers(0, 2)):
            continue  # several changes may come before the dirty keys are judged
        history.settle()
        fresh = history.afresh()
        assert history.kept.keys() == fresh.keys()
        for key, judged in fresh.items():
            assert _comparable(history.kept[key]) == _comparable(judged), key


# --- and not too much


class Watched(World):
    """A world that tells which keys its last change dirtied."""

    def __init__(self) -> None:
        self.last: set[Key] = set()
        super().__init__()

    def put(self, kind: str, record: Any) -> Any:
        before = self.store.get(_key(kind, record))
        super().put(kind, record)
        self.last = affected(self.store, kind, before, record)  # type: ignore[arg-type]
        return record


def _key(kind: str, record: Any) -> Key:
    return Key(kind, getattr(record, "namespace", ""), record.name)


def sa(name: str = "ci", namespace: str = NS) -> Key:
    return Key("ServiceAccount", namespace, name)


def secret(name: str = "ci-token") -> Key:
    return Key("Secret", NS, name)


def claim(name: str) -> Key:
    return Key("OwnedIdentity", NS, name)


def entitlement(binding: Binding, name: str = "ci") -> Key:
    found = replace(binding, subjects=(Subject("ServiceAccount", NS, name),))
    [key] = entitlements.of(found, "tenure-system")
    return key


@pytest.fixture
def watched() -> Watched:
    """Two accounts with a token each, claimed one by one, and an account in another namespace."""
    world = Watched()
    world.owner()
    world.namespace("elsewhere")
    world.account("far", "elsewhere")
    for name in ("ci", "cd"):
        world.account(name)
        world.token(f"{name}-token", name)
        world.claim(f"claim-{name}", {"serviceAccounts": {"names": [name]}})
    return world


def test_a_secrets_new_data_concerns_the_secret_alone(watched: Watched) -> None:
    token = watched.store.secrets[NS, "ci-token"]
    watched.put("Secret", replace(token, data_changed=NOW, last_used="2026-03-01"))
    assert watched.last == {secret()}


def test_a_new_token_concerns_its_account_and_their_claim(watched: Watched) -> None:
    watched.token("another", "ci")
    assert watched.last == {secret("another"), sa(), claim("claim-ci")}


def test_an_account_takes_its_tokens_and_their_claim_along(watched: Watched) -> None:
    account = watched.store.service_accounts[NS, "ci"]
    watched.put("ServiceAccount", replace(account, labels=(("a", "b"),)))
    assert watched.last == {sa(), secret(), claim("claim-ci")}


def test_a_harmless_binding_concerns_its_account_alone(watched: Watched) -> None:
    watched.role("view")
    bound = watched.bind("view")
    assert watched.last == {sa(), entitlement(bound)}
    watched.put("RoleBinding", replace(bound, subjects=(*bound.subjects, Subject("ServiceAccount", NS, "cd"))))
    assert watched.last == {sa(), sa("cd"), entitlement(bound, "cd")}


def test_a_graded_binding_takes_along_what_follows_the_grade(watched: Watched) -> None:
    watched.role("read", "R07")
    bound = watched.bind("read", Subject("User", "", f"system:serviceaccount:{NS}:ci"))
    [entitled] = entitlements.of(bound, "tenure-system")
    assert entitled.form == f"User:system:serviceaccount:{NS}:ci"
    assert watched.last == {sa(), secret(), claim("claim-ci"), entitled}
    watched.role("read", "R01")
    assert watched.last == {sa(), secret(), claim("claim-ci"), entitled}
    watched.role("read", "R01")
    assert watched.last == set()


def test_a_group_binding_concerns_its_namespace(watched: Watched) -> None:
    watched.role("read", "R07")
    watched.bind("read", Subject("Group", "", f"system:serviceaccounts:{NS}"))
    assert watched.last == {sa(), sa("cd"), secret(), secret("cd-token"), claim("claim-ci"), claim("claim-cd")}
    watched.bind("read", Subject("Group", "", "developers"), name="people")
    assert watched.last == set()


def test_the_first_critical_account_of_a_namespace_concerns_who_may_run_pods_there(watched: Watched) -> None:
    watched.role("run", "R11")
    watched.bind("run", Subject("ServiceAccount", "elsewhere", "far"))
    watched.judge(sa("far", "elsewhere"))
    watched.role("root", "R02")
    watched.bind("root", "cd")
    assert sa("far", "elsewhere") in watched.last
    watched.bind("root", "ci")
    assert sa("far", "elsewhere") not in watched.last


def test_a_pod_counts_when_it_is_the_first_or_the_last(watched: Watched) -> None:
    watched.pod("one", secrets=("ci-token",))
    assert watched.last == {sa(), secret()}
    watched.pod("two", secrets=("ci-token",))
    assert watched.last == set()
    watched.pod("two", finished=True, secrets=("ci-token",))
    assert watched.last == set()
    watched.pod("one", finished=True, secrets=("ci-token",))
    assert watched.last == {sa(), secret()}


def test_every_pod_of_a_quarantined_account_counts(watched: Watched) -> None:
    watched.pod("one")
    watched.quarantine(watched.store.service_accounts[NS, "ci"])
    assert watched.last == {sa()}
    watched.pod("two")
    assert watched.last == {sa()}


def test_what_the_operator_writes_into_statuses_concerns_no_subject(watched: Watched) -> None:
    for kind, record in (
        ("OwnedIdentity", watched.store.claims[NS, "claim-ci"]),
        ("IdentityOwner", watched.store.owners["payments"]),
        ("GovernancePolicy", watched.policy("p")),
    ):
        watched.put(kind, replace(record, resource_version="1000"))
        assert watched.last <= {claim("claim-ci")}


def test_an_owner_concerns_its_claims_and_their_subjects_and_who_leans_on_it(watched: Watched) -> None:
    watched.owner("other", {"backup": "payments"})
    assert watched.last == set()
    watched.claim("claim-cd", {"serviceAccounts": {"names": ["cd"]}}, spec={"owner": "other"})
    watched.owner("payments", {"suspended": True})
    everything = {sa(), sa("cd"), secret(), secret("cd-token"), claim("claim-ci"), claim("claim-cd")}
    assert watched.last == everything
    watched.owner("stranger")
    assert watched.last == set()


def test_a_policy_concerns_what_it_governs(watched: Watched) -> None:
    watched.policy("p", {"namespaceSelector": {"matchLabels": {"team": "x"}}})
    assert watched.last == set()
    watched.namespace("elsewhere", {"team": "x"})
    assert watched.last == {sa("far", "elsewhere")}
    watched.policy("p", {"namespaceSelector": {"matchLabels": {"team": "x"}}, "suspend": True})
    assert watched.last == {sa("far", "elsewhere")}


def test_an_exception_concerns_its_targets(watched: Watched) -> None:
    watched.exception()
    assert watched.last == {secret(), Key("IdentityException", NS, "waiver")}
    watched.put("Secret", replace(watched.store.secrets[NS, "ci-token"], data_changed=NOW))
    assert watched.last == {secret(), Key("IdentityException", NS, "waiver")}
    watched.put("Secret", replace(watched.store.secrets[NS, "cd-token"], data_changed=NOW))
    assert watched.last == {secret("cd-token")}


def test_kinds_that_no_evaluation_looks_at_concern_nobody(watched: Watched) -> None:
    assert affected(watched.store, "QuarantineGuard", None, watched.policy("p")) == set()
    assert affected(watched.store, "Pod", None, None) == set()
