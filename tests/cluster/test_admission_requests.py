"""Whose request an exception is, and where an owner may be claimed for: judged by admission, on 1.33 as on 1.36."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cluster.tenure_objects import Json, claim, exception, grant, owner, service_account
from tests.cluster.test_admission_decisions import install, stamps
from tests.support.cluster import APPLY, ApiError, Cluster, eventually

pytestmark = pytest.mark.local

Person = Callable[..., Cluster]

ALICE, BOB = "alice@example.com", "bob@example.com"
WRITE = ["create", "get", "update", "patch", "delete"]


@pytest.fixture
def writers(api: Cluster, room: str) -> str:
    """The room, where Alice and Bob may write exceptions as `edit` would let them."""
    for user in (ALICE, BOB):
        grant(api, room, user, WRITE, ["identityexceptions"])
    return room


def requester(cluster: Cluster, namespace: str) -> str | None:
    found = cluster.get("identityexceptions", "exception", namespace)
    assert found is not None
    name: str | None = found["spec"].get("requestedBy")
    return name


def refused_or(cluster: Cluster, said: str, write: Callable[[], object]) -> None:
    """Writes: where the API server stamps it is accepted, elsewhere refused with that."""
    if stamps(cluster):
        write()
        return
    with pytest.raises(ApiError, match=said) as refused:
        write()
    assert refused.value.status == 403


def test_an_exception_is_its_authors_request(api: Cluster, writers: str, person: Person) -> None:
    alice = person(ALICE)
    for attempt, seen in ((exception(writers), "missing"), (exception(writers, requestedBy=BOB), BOB)):
        said = f"spec.requestedBy is {seen}, and you are {ALICE}. Write requestedBy: {ALICE}"
        refused_or(api, said, lambda attempt=attempt: alice.create(attempt))
        if stamps(api):
            assert requester(api, writers) == ALICE
            api.delete("identityexceptions", "exception", writers)
    assert alice.create(exception(writers, requestedBy=ALICE))["spec"]["requestedBy"] == ALICE


def test_an_edit_by_somebody_else_makes_them_the_requester(api: Cluster, writers: str, person: Person) -> None:
    person(ALICE).create(exception(writers, requestedBy=ALICE))
    changes: tuple[Json, ...] = (
        {"justification": "another"},
        {"ticket": "T-1"},
        {"ticket": None},
        {"rules": ["Unowned"]},
        {"target": {"name": "another"}},
        {"onBehalfOf": "carol"},
    )
    for number, change in enumerate(changes):
        user = (BOB, ALICE)[number % 2]
        editor = person(user)
        refused_or(
            api,
            f"and you are {user}. Write requestedBy: {user}",
            lambda change=change, editor=editor: editor.patch(  # type: ignore[misc]
                "identityexceptions", "exception", {"spec": change}, writers
            ),
        )
        editor.patch("identityexceptions", "exception", {"spec": {**change, "requestedBy": user}}, writers)
        assert requester(api, writers) == user
    found = api.get("identityexceptions", "exception", writers)
    assert found is not None
    assert found["metadata"]["generation"] == 1 + len(changes)


def test_an_identical_re_apply_changes_nothing(api: Cluster, writers: str) -> None:
    """A pipeline applies what stands in Git again: the requester stays who wrote it, the generation too."""
    service_account(api, writers, "argocd")
    user = f"system:serviceaccount:{writers}:argocd"
    grant(api, writers, user, WRITE, ["identityexceptions"])
    token = api.token(writers, "argocd")
    manifest = exception(writers) if stamps(api) else exception(writers, requestedBy=ALICE)
    before = api.create(manifest, user=ALICE)
    for _ in range(2):
        api.apply(manifest, manager="argocd", token=token)
    # As a client-side apply and a replacement send it.
    api.patch("identityexceptions", "exception", {"spec": manifest["spec"]}, writers, token=token)
    replaced = {**manifest, "metadata": {**manifest["metadata"], "resourceVersion": ""}}
    found = api.get("identityexceptions", "exception", writers)
    assert found is not None
    replaced["metadata"]["resourceVersion"] = found["metadata"]["resourceVersion"]
    api.rest.expect("PUT", api.path("identityexceptions", "exception", writers), replaced, token=token)
    after = api.get("identityexceptions", "exception", writers)
    assert after is not None
    assert after["spec"] == before["spec"]
    assert after["metadata"]["generation"] == 1
    assert requester(api, writers) == ALICE
    # And what it changes is its own request.
    changed = {**manifest["spec"], "justification": "another", **({} if stamps(api) else {"requestedBy": user})}
    api.apply({**manifest, "spec": changed}, manager="argocd", token=token)
    assert requester(api, writers) == user


def test_the_requester_alone_is_not_changed(api: Cluster, writers: str, person: Person) -> None:
    """Neither to another, nor to oneself, nor away: it follows the request."""
    person(ALICE).create(exception(writers, requestedBy=ALICE))
    for value in (BOB, "carol", None):
        body = {"spec": {"requestedBy": value}}
        refused_or(
            api,
            f"spec.requestedBy changes only with the rest of spec: it stays {ALICE}",
            lambda body=body: person(BOB).patch("identityexceptions", "exception", body, writers),
        )
        assert requester(api, writers) == ALICE
    found = api.get("identityexceptions", "exception", writers)
    assert found is not None
    assert found["metadata"]["generation"] == 1


def test_labels_are_nobodys_request(api: Cluster, writers: str, person: Person) -> None:
    person(ALICE).create(exception(writers, requestedBy=ALICE))
    person(BOB).patch("identityexceptions", "exception", {"metadata": {"labels": {"a": "b"}}}, writers)
    assert requester(api, writers) == ALICE


def test_one_from_before_tenure_asked_keeps_no_requester(api: Cluster, writers: str, person: Person) -> None:
    """Until its spec changes: then its author is known."""
    kinds = ["validatingadmissionpolicybindings", *(["mutatingadmissionpolicybindings"] if stamps(api) else [])]
    try:
        for kind in kinds:
            for item in api.list(kind, selector="app.kubernetes.io/part-of=tenure"):
                if item["metadata"]["name"].endswith("-exceptions"):
                    api.delete(kind, item["metadata"]["name"])

        def written() -> bool:
            api.delete("identityexceptions", "exception", writers)
            return "requestedBy" not in api.create(exception(writers))["spec"]

        eventually(written, what="an exception without a requester")
    finally:
        assert "tenure: installed" in install(api)
    bob = person(BOB)
    bob.apply(exception(writers))
    bob.patch("identityexceptions", "exception", {"metadata": {"labels": {"a": "b"}}}, writers)
    assert requester(api, writers) is None
    said = f"spec.requestedBy is missing, and you are {BOB}"
    change = {"spec": {"justification": "another"}}
    refused_or(api, said, lambda: bob.patch("identityexceptions", "exception", change, writers))
    change["spec"]["requestedBy"] = BOB
    bob.patch("identityexceptions", "exception", change, writers)
    assert requester(api, writers) == BOB


def test_what_the_schema_refuses_says_so(api: Cluster, writers: str, person: Person) -> None:
    """The stamps come before the schema, and leave its messages to it."""
    for broken, said in (
        ({}, "spec: Required value"),
        ({"spec": {"requestedBy": ALICE}}, "spec.target: Required value"),
    ):
        made = {**{key: value for key, value in exception(writers).items() if key != "spec"}, **broken}
        with pytest.raises(ApiError, match=said):
            person(ALICE).create(made)


# Where an owner may be claimed for ------------------------------------------------------------------------------------

SELECTORS: dict[str, tuple[Json | None, bool]] = {
    "absent": (None, True),
    "empty": ({}, True),
    "a label": ({"matchLabels": {"team": "payments"}}, True),
    "another value": ({"matchLabels": {"team": "ledger"}}, False),
    "a label that is not there": ({"matchLabels": {"tier": "payments"}}, False),
    "one of two labels": ({"matchLabels": {"team": "payments", "tier": "gold"}}, False),
    "In": ({"matchExpressions": [{"key": "team", "operator": "In", "values": ["a", "payments"]}]}, True),
    "not In": ({"matchExpressions": [{"key": "team", "operator": "In", "values": ["a"]}]}, False),
    "In, absent": ({"matchExpressions": [{"key": "tier", "operator": "In", "values": ["a"]}]}, False),
    "NotIn": ({"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["a"]}]}, True),
    "NotIn, absent": ({"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["a"]}]}, True),
    "not NotIn": ({"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["payments"]}]}, False),
    "Exists": ({"matchExpressions": [{"key": "team", "operator": "Exists"}]}, True),
    "not Exists": ({"matchExpressions": [{"key": "tier", "operator": "Exists"}]}, False),
    "DoesNotExist": ({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}, True),
    "not DoesNotExist": ({"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]}, False),
    "both": (
        {
            "matchLabels": {"team": "payments"},
            "matchExpressions": [
                {"key": "team", "operator": "Exists"},
                {"key": "kubernetes.io/metadata.name", "operator": "Exists"},
            ],
        },
        True,
    ),
    "a label, but not the expression": (
        {"matchLabels": {"team": "payments"}, "matchExpressions": [{"key": "tier", "operator": "Exists"}]},
        False,
    ),
    "one of two expressions": (
        {"matchExpressions": [{"key": "team", "operator": "Exists"}, {"key": "tier", "operator": "Exists"}]},
        False,
    ),
}


@pytest.fixture
def labelled(api: Cluster, room: str) -> str:
    """The room, labelled for the payments team; whoever writes there may claim for every owner."""
    api.patch("namespaces", room, {"metadata": {"labels": {"team": "payments"}}})
    return room


def test_where_an_owner_may_be_claimed_for(api: Cluster, labelled: str) -> None:
    names = {f"{labelled}-{number}": wanted for number, wanted in enumerate(SELECTORS.values())}
    for name, (selector, _) in names.items():
        api.create(owner(name, **({} if selector is None else {"namespaceSelector": selector})))
    try:
        for (name, (_, allowed)), what in zip(names.items(), SELECTORS, strict=True):
            if allowed:
                api.create(claim(labelled, name, owner=name))
                continue
            said = f"IdentityOwner {name} may not be claimed for in namespace {labelled}: the labels of the namespace"
            with pytest.raises(ApiError, match=said) as refused:
                api.create(claim(labelled, name, owner=name))
            assert refused.value.status == 403, what
    finally:
        for name in names:
            api.delete("identityowners", name)


def test_a_claim_elsewhere_is_refused_to_holders_of_the_verb_and_of_everything(
    api: Cluster, room: str, person: Person
) -> None:
    name = f"owner-{room[-6:]}"
    api.create(owner(name, namespaceSelector={"matchLabels": {"team": "payments"}}))
    try:
        grant(api, room, BOB, WRITE, ["ownedidentities"])
        with pytest.raises(ApiError, match=r"may not claim for|may not be claimed for"):  # both are true
            person(BOB).create(claim(room, owner=name))
        grant(api, room, BOB, ["claim"], ["identityowners"], names=[name])
        for by in ({"user": BOB}, {"user": "root", "groups": ["system:masters"]}):
            with pytest.raises(ApiError, match=f"may not be claimed for in namespace {room}"):
                api.create(claim(room, owner=name), **by)
        # An owner that does not exist is claimed for as ever: the claim is vacant, and a finding says so.
        api.create(claim(room, "vacant", owner=f"{name}-2"))
        with pytest.raises(ApiError, match=f"may not be claimed for in namespace {room}"):
            api.patch("ownedidentities", "vacant", {"spec": {"owner": name}}, room)
    finally:
        api.delete("identityowners", name)


def test_a_claim_that_stands_is_let_be_until_its_spec_changes(api: Cluster, labelled: str) -> None:
    """The selector was narrowed later: labels and a re-apply pass, another spec does not."""
    name = labelled
    api.create(owner(name))
    try:
        api.create(claim(labelled, owner=name))
        api.patch("identityowners", name, {"spec": {"namespaceSelector": {"matchLabels": {"team": "ledger"}}}})
        api.patch("ownedidentities", "claim", {"metadata": {"labels": {"a": "b"}}}, labelled)
        api.rest.expect(
            "PATCH",
            f"{api.path('ownedidentities', 'claim', labelled)}?fieldManager=t&force=true",
            claim(labelled, owner=name),
            content_type=APPLY,
        )
        with pytest.raises(ApiError, match="may not be claimed for in namespace"):
            api.patch("ownedidentities", "claim", {"spec": {"purpose": "another"}}, labelled)
        api.delete("ownedidentities", "claim", labelled)
    finally:
        api.delete("identityowners", name)


def test_a_label_on_an_object_needs_no_claim_and_claims_nothing(api: Cluster, room: str, person: Person) -> None:
    """Whoever may write the object may label it; a claim in that owner's name stays refused."""
    grant(api, room, BOB, WRITE, ["ownedidentities"])
    grant(api, room, BOB, ["create"], ["serviceaccounts"], groups=("",))
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "ci", "namespace": room}}
    account["metadata"]["labels"] = {"tenure.dev/owner": "payments"}  # type: ignore[index]
    person(BOB).create(account)
    with pytest.raises(ApiError, match="may not claim for IdentityOwner payments"):
        person(BOB).create(claim(room))
