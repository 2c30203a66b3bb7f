"""Claiming in a team's name needs that team's word: the verb `claim` on the owner, in the claim's namespace."""

from __future__ import annotations

import pytest

from tests.cluster.tenure_objects import OPERATOR, claim, grant, service_account
from tests.support.cluster import ApiError, Cluster, eventually

JANE = "jane"
EDIT = ["create", "get", "update", "patch", "delete"]


@pytest.fixture
def editor(installed: Cluster, namespace: str) -> str:
    """The namespace, where Jane may write claims as `edit` would let her."""
    grant(installed, namespace, JANE, EDIT, ["ownedidentities"])
    return namespace


def may_claim(cluster: Cluster, namespace: str, *owners: str, user: str = JANE) -> None:
    grant(cluster, namespace, user, ["claim"], ["identityowners"], names=list(owners))


def test_writing_rights_alone_claim_nothing(installed: Cluster, editor: str) -> None:
    with pytest.raises(ApiError, match="user jane may not claim for IdentityOwner payments") as refused:
        installed.create(claim(editor), user=JANE)
    assert refused.value.status == 403
    message = refused.value.message
    assert "the verb claim on identityowners.tenure.dev/payments is missing there" in message
    assert f"RoleBinding in namespace {editor}" in message
    assert "resourceNames: [payments], verbs: [claim]" in message


def test_with_the_verb_on_the_owner(installed: Cluster, editor: str) -> None:
    may_claim(installed, editor, "payments")
    installed.create(claim(editor), user=JANE)
    installed.patch("ownedidentities", "claim", {"spec": {"purpose": "another"}}, editor, user=JANE)
    with pytest.raises(ApiError, match="may not claim for IdentityOwner platform"):
        installed.create(claim(editor, "other", owner="platform"), user=JANE)


def test_the_right_counts_in_the_claims_namespace_alone(installed: Cluster, editor: str) -> None:
    elsewhere = installed.namespace("elsewhere")
    may_claim(installed, elsewhere, "payments")
    with pytest.raises(ApiError, match="may not claim for IdentityOwner payments"):
        installed.create(claim(editor), user=JANE)
    installed.delete_namespace(elsewhere)


def test_the_verb_on_all_owners(installed: Cluster, editor: str) -> None:
    grant(installed, editor, JANE, ["claim"], ["identityowners"])
    installed.create(claim(editor), user=JANE)
    installed.create(claim(editor, "other", owner="platform"), user=JANE)


def test_changing_what_is_claimed_needs_it_again(installed: Cluster, editor: str) -> None:
    installed.create(claim(editor))
    for change in (
        {"purpose": "x"},
        {"subjects": {"secrets": {"names": ["a"]}}},
        {"expiresAt": "2027-01-01T00:00:00Z"},
    ):
        with pytest.raises(ApiError, match="user jane may not claim for IdentityOwner payments"):
            installed.patch("ownedidentities", "claim", {"spec": change}, editor, user=JANE)


def test_a_write_that_leaves_the_spec_alone_needs_nothing(installed: Cluster, editor: str) -> None:
    """Labels, annotations, and a GitOps tool that applies again what stands there."""
    installed.create(claim(editor))
    installed.patch("ownedidentities", "claim", {"metadata": {"labels": {"a": "b"}}}, editor, user=JANE)
    installed.patch("ownedidentities", "claim", {"spec": {"owner": "payments"}}, editor, user=JANE)
    installed.apply(claim(editor), user=JANE)


def test_taking_a_claim_from_one_owner_to_another_needs_both(installed: Cluster, editor: str) -> None:
    installed.create(claim(editor))
    change = {"spec": {"owner": "platform"}}
    may_claim(installed, editor, "platform")
    with pytest.raises(ApiError, match="may not take this claim away from IdentityOwner payments") as refused:
        installed.patch("ownedidentities", "claim", change, editor, user=JANE)
    assert "identityowners.tenure.dev/payments is missing" in refused.value.message
    may_claim(installed, editor, "payments")
    eventually(
        lambda: (
            not installed.can(JANE, "claim", "identityowners", group="tenure.dev", namespace=editor, name="platform")
        ),
        what="the right is taken back",
    )
    with pytest.raises(ApiError, match="may not claim for IdentityOwner platform"):
        installed.patch("ownedidentities", "claim", change, editor, user=JANE)
    may_claim(installed, editor, "payments", "platform")
    assert installed.patch("ownedidentities", "claim", change, editor, user=JANE)["spec"]["owner"] == "platform"


def test_deleting_a_claim_silences_nothing_and_needs_no_verb(installed: Cluster, editor: str) -> None:
    installed.create(claim(editor))
    installed.delete("ownedidentities", "claim", editor, user=JANE)
    assert installed.get("ownedidentities", "claim", editor) is None


def test_a_pipelines_service_account_claims_with_its_own_token(installed: Cluster, namespace: str) -> None:
    service_account(installed, namespace, "deployer")
    user = f"system:serviceaccount:{namespace}:deployer"
    grant(installed, namespace, user, EDIT, ["ownedidentities"])
    token = installed.token(namespace, "deployer")
    with pytest.raises(ApiError, match=f"user {user} may not claim"):
        installed.create(claim(namespace), token=token)
    may_claim(installed, namespace, "payments", user=user)
    installed.create(claim(namespace), token=token)


def test_the_verb_through_a_group(installed: Cluster, editor: str) -> None:
    rbac = "rbac.authorization.k8s.io"
    metadata = {"name": "team", "namespace": editor}
    rule = {
        "apiGroups": ["tenure.dev"],
        "resources": ["identityowners"],
        "resourceNames": ["payments"],
        "verbs": ["claim"],
    }
    installed.create({"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": metadata, "rules": [rule]})
    installed.create(
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "team"},
            "subjects": [{"kind": "Group", "apiGroup": rbac, "name": "team-payments"}],
        }
    )
    with pytest.raises(ApiError, match="may not claim"):
        installed.create(claim(editor), user=JANE)
    installed.create(claim(editor), user=JANE, groups=["team-payments"])


def test_the_operator_itself_claims_nothing(installed: Cluster, namespace: str) -> None:
    with pytest.raises(ApiError, match=f'"{OPERATOR}" cannot create resource "ownedidentities"'):
        installed.create(claim(namespace), token=installed.token("tenure-system", "tenure"))
