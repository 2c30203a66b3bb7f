"""Findings, guards, Quarantines and statuses are the operator's; who else may touch a Quarantine, and how."""

from __future__ import annotations

import pytest

from tests.cluster.tenure_objects import (
    OPERATOR,
    UID,
    Json,
    claim,
    decision,
    exception,
    finding,
    grant,
    guard,
    owner,
    policy,
    quarantine,
)
from tests.support.cluster import ApiError, Cluster, eventually
from tests.support.rest import Credentials, Rest

JANE = "jane"
MASTERS = {"user": "root", "groups": ["system:masters"]}
AT = "2026-12-04T09:12:00Z"


@pytest.fixture
def rights(installed: Cluster, namespace: str) -> str:
    """The namespace, where Jane may do everything to Tenure's kinds but release."""
    grant(installed, namespace, JANE, ["create", "get", "list", "update", "patch", "delete", "deletecollection"], ["*"])
    return namespace


@pytest.fixture
def releaser(installed: Cluster, rights: str) -> str:
    """The same, with the verb `release`."""
    grant(installed, rights, JANE, ["release"], ["quarantines"])
    return rights


@pytest.mark.parametrize("who", ["jane", "masters", "admin"])
def test_findings_and_guards_are_the_operators(installed: Cluster, rights: str, who: str) -> None:
    by = {"jane": {"user": JANE}, "masters": MASTERS, "admin": {}}[who]
    for resource, manifest in (
        ("identityfindings", finding(rights)),
        ("quarantineguards", guard(rights, secrets={"s": {"quarantine": "a/b"}})),
    ):
        name = manifest["metadata"]["name"]
        changed = {"spec": {"revision": 2} if resource == "identityfindings" else {"secrets": {}}}
        with pytest.raises(ApiError, match=f"only the operator of Tenure .* writes {resource}") as refused:
            installed.create(manifest, **by)
        assert refused.value.status == 403
        installed.create(manifest, user=OPERATOR)
        for change in ({"metadata": {"labels": {"a": "b"}}}, {"metadata": {"finalizers": ["a/b"]}}, changed):
            with pytest.raises(ApiError, match="only the operator of Tenure"):
                installed.patch(resource, name, change, rights, **by)
        with pytest.raises(ApiError, match="only the operator of Tenure"):
            installed.delete(resource, name, rights, **by)
        with pytest.raises(ApiError, match="only the operator of Tenure"):
            installed.rest.expect("DELETE", installed.path(resource, namespace=rights), **by)
        assert installed.get(resource, name, rights) is not None


def test_the_refusal_of_a_finding_says_what_to_do(installed: Cluster, rights: str) -> None:
    with pytest.raises(ApiError, match=r"claim the identity \(OwnedIdentity\) or except it"):
        installed.create(finding(rights), user=JANE)


def test_a_client_certificate_of_the_masters_is_refused_too(installed: Cluster, rights: str) -> None:
    """Nobody is impersonated here: the group that authorisation never asks is still asked by admission."""
    rest = Rest(Credentials.from_kubeconfig(installed.user("root", ["system:masters"])))
    try:
        status, answer = rest.request("POST", installed.path("identityfindings", namespace=rights), finding(rights))
    finally:
        rest.close()
    assert (status, "only the operator of Tenure" in answer["message"]) == (403, True), answer


@pytest.mark.parametrize(
    ("resource", "manifest"),
    [
        ("identityowners", owner("status-owner")),
        ("governancepolicies", policy("status-policy")),
        ("ownedidentities", claim("")),
        ("identityexceptions", exception("", requestedBy="root")),
        ("identitydecisions", decision("", by="root")),
        ("quarantines", quarantine("", finalizer=False)),
    ],
)
def test_every_status_is_the_operators(installed: Cluster, rights: str, resource: str, manifest: Json) -> None:
    namespaced = "namespace" in manifest["metadata"]
    where = rights if namespaced else None
    made = {**manifest, "metadata": {**manifest["metadata"], **({"namespace": rights} if namespaced else {})}}
    name = made["metadata"]["name"]
    installed.create(made, **({"user": OPERATOR} if resource == "quarantines" else MASTERS))
    try:
        for by in ({"user": JANE}, MASTERS) if namespaced else (MASTERS,):
            with pytest.raises(ApiError, match=f"only the operator of Tenure .* writes {resource}/status"):
                installed.patch(
                    resource, name, {"status": {"observedGeneration": 7}}, where, subresource="status", **by
                )
        # Through the object itself, a status is not written at all.
        if resource != "quarantines":
            installed.patch(resource, name, {"status": {"observedGeneration": 7}}, where)
        stored = installed.get(resource, name, where)
        assert stored is not None
        assert stored["status"] == {"observedGeneration": -1}
    finally:
        installed.delete(resource, name, where, **({"user": OPERATOR} if resource == "identitydecisions" else {}))


def test_every_version_of_every_kind_is_covered(installed: Cluster, rights: str) -> None:
    """As the API server serves them, and whatever comes later: what the operator writes nobody else writes."""
    made: dict[str, Json] = {
        "identityowners": owner("every-version"),
        "governancepolicies": policy("every-version"),
        "ownedidentities": claim(rights),
        "identityexceptions": exception(rights, requestedBy="root"),
        "identitydecisions": decision(rights, by="root"),
        "identityfindings": finding(rights),
        "quarantines": quarantine(rights, finalizer=False),
        "quarantineguards": guard(rights, secrets={}),
    }
    served = [
        (found["spec"]["names"]["plural"], version)
        for found in installed.list("customresourcedefinitions")
        if found["spec"]["group"] == "tenure.dev"
        for version in found["spec"]["versions"]
        if version["served"]
    ]
    assert {plural for plural, _ in served} == made.keys()
    operators = ("identityfindings", "quarantines", "quarantineguards")
    for plural, manifest in made.items():
        installed.create(manifest, **({"user": OPERATOR} if plural in operators else MASTERS))
    try:
        for plural, version in served:
            namespace = made[plural]["metadata"].get("namespace")
            path = installed.path(plural, made[plural]["metadata"]["name"], namespace)
            path = path.replace("/v1alpha1/", f"/{version['name']}/")
            attempts: list[tuple[str, Json]] = []
            if "status" in version.get("subresources", {}):
                attempts.append((f"{path}/status", {"status": {"observedGeneration": 7}}))
            if plural in operators:
                attempts.append((path, {"metadata": {"labels": {"a": "b"}}}))
            assert attempts, plural
            for where, body in attempts:
                status, answer = installed.request(
                    "PATCH", where, body, content_type="application/merge-patch+json", **MASTERS
                )
                assert (status, "operator of Tenure" in answer["message"]) == (403, True), (where, answer)
    finally:
        for plural in ("identityowners", "governancepolicies"):
            installed.delete(plural, "every-version")


def test_quarantines_are_created_by_the_operator_alone(installed: Cluster, releaser: str) -> None:
    for by in ({"user": JANE}, MASTERS, {}):
        with pytest.raises(ApiError, match="only the operator of Tenure creates Quarantines") as refused:
            installed.create(quarantine(releaser), **by)
        assert refused.value.status == 403


@pytest.mark.parametrize(
    "change",
    [
        {"spec": {"stages": []}},
        {"metadata": {"labels": {"a": "b"}}},
        {"metadata": {"annotations": {"a": "b"}}},
        {"metadata": {"finalizers": ["tenure.dev/restore", "example.com/mine"]}},
        {"metadata": {"finalizers": ["example.com/mine"]}},
        {"metadata": {"finalizers": None, "labels": {"a": "b"}}},
        {"metadata": {"finalizers": None}, "spec": {"reason": "x"}},
        {"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": UID}]}},
    ],
)
def test_quarantines_are_changed_by_the_operator_alone(installed: Cluster, releaser: str, change: Json) -> None:
    installed.create(quarantine(releaser), user=OPERATOR)
    for by in ({"user": JANE}, MASTERS):
        with pytest.raises(ApiError, match="is changed by the operator of Tenure alone") as refused:
            installed.patch("quarantines", "serviceaccount-ci", change, releaser, **by)
        assert f"kubectl delete quarantine serviceaccount-ci -n {releaser}" in refused.value.message


def test_without_the_verb_release_nobody_releases(installed: Cluster, rights: str) -> None:
    installed.create(quarantine(rights), user=OPERATOR)
    for attempt in (
        lambda: installed.delete("quarantines", "serviceaccount-ci", rights, user=JANE),
        lambda: installed.rest.expect("DELETE", installed.path("quarantines", namespace=rights), user=JANE),
        lambda: installed.patch(
            "quarantines", "serviceaccount-ci", {"metadata": {"finalizers": None}}, rights, user=JANE
        ),
    ):
        with pytest.raises(ApiError, match=r"the verb release on quarantines\.tenure\.dev is missing") as refused:
            attempt()
        assert refused.value.status == 403
        assert f"user jane may not release Quarantine {rights}/serviceaccount-ci" in refused.value.message
    stored = installed.get("quarantines", "serviceaccount-ci", rights)
    assert stored is not None
    assert "deletionTimestamp" not in stored["metadata"]


def test_a_holder_of_release_deletes_one(installed: Cluster, releaser: str) -> None:
    """The finalizer keeps it until the operator has given everything back."""
    installed.create(quarantine(releaser), user=OPERATOR)
    installed.delete("quarantines", "serviceaccount-ci", releaser, user=JANE)
    stored = installed.get("quarantines", "serviceaccount-ci", releaser)
    assert stored is not None
    assert "deletionTimestamp" in stored["metadata"]
    installed.patch("quarantines", "serviceaccount-ci", {"metadata": {"finalizers": None}}, releaser, user=OPERATOR)
    assert installed.get("quarantines", "serviceaccount-ci", releaser) is None


def test_a_holder_of_release_deletes_several(installed: Cluster, releaser: str) -> None:
    for number in range(3):
        installed.create(quarantine(releaser, f"q-{number}", finalizer=False), user=OPERATOR)
    installed.rest.expect("DELETE", installed.path("quarantines", namespace=releaser), user=JANE)
    assert installed.list("quarantines", releaser) == []


def test_release_may_be_granted_for_one_by_name(installed: Cluster, rights: str) -> None:
    for name in ("mine", "theirs"):
        installed.create(quarantine(rights, name, finalizer=False), user=OPERATOR)
    grant(installed, rights, JANE, ["release"], ["quarantines"], names=["mine"])
    installed.delete("quarantines", "mine", rights, user=JANE)
    with pytest.raises(ApiError, match="the verb release"):
        installed.delete("quarantines", "theirs", rights, user=JANE)


def test_where_the_operator_is_gone_a_holder_of_release_takes_the_finalizer_off(
    installed: Cluster, releaser: str
) -> None:
    installed.create(quarantine(releaser), user=OPERATOR)
    installed.delete("quarantines", "serviceaccount-ci", releaser, user=JANE)
    done = installed.kubectl(
        "patch",
        "quarantine",
        "serviceaccount-ci",
        "-n",
        releaser,
        "--type=merge",
        "-p",
        '{"metadata":{"finalizers":null}}',
        as_user=JANE,
    )
    assert "patched" in done.stdout
    assert installed.get("quarantines", "serviceaccount-ci", releaser) is None


def test_a_foreground_deletion_ends(installed: Cluster, releaser: str) -> None:
    """The garbage collector takes its own finalizer off, and is let through."""
    installed.create(quarantine(releaser, finalizer=False), user=OPERATOR)
    options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Foreground"}
    installed.delete("quarantines", "serviceaccount-ci", releaser, options, user=JANE)
    eventually(lambda: installed.get("quarantines", "serviceaccount-ci", releaser) is None)


def test_the_garbage_collector_follows_an_owner_reference(installed: Cluster, namespace: str) -> None:
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owner", "namespace": namespace}}
    uid = installed.create(config_map)["metadata"]["uid"]
    for resource, made in (
        ("identityfindings", finding(namespace)),
        ("quarantines", quarantine(namespace, finalizer=False)),
    ):
        made["metadata"]["ownerReferences"] = [{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}]
        installed.create(made, user=OPERATOR)
        assert installed.list(resource, namespace)
    installed.delete("configmaps", "owner", namespace)
    eventually(
        lambda: not installed.list("identityfindings", namespace) and not installed.list("quarantines", namespace)
    )


def revoke(cluster: Cluster, namespace: str, name: str, uid: str, *, done: bool = True) -> None:
    entry = {"kind": "Secret", "name": "ci-token", "uid": uid, "intended": AT, **({"done": AT} if done else {})}
    body = {"status": {"revoked": [entry]}}
    cluster.patch("quarantines", name, body, namespace, subresource="status", user=OPERATOR)


def test_a_revoked_one_stays_and_says_why(installed: Cluster, releaser: str) -> None:
    installed.create(quarantine(releaser, finalizer=False), user=OPERATOR)
    revoke(installed, releaser, "serviceaccount-ci", "another-uid")
    for by in ({"user": JANE}, MASTERS):
        with pytest.raises(ApiError, match="cannot be released: its subject was revoked") as refused:
            installed.delete("quarantines", "serviceaccount-ci", releaser, **by)
        assert "keeps the revoked names refused" in refused.value.message
        with pytest.raises(ApiError, match="cannot be released: its subject was revoked"):
            installed.rest.expect("DELETE", installed.path("quarantines", namespace=releaser), **by)
    installed.delete("quarantines", "serviceaccount-ci", releaser, user=OPERATOR)
    assert installed.get("quarantines", "serviceaccount-ci", releaser) is None


def test_one_whose_subject_was_revoked_stays_even_before_its_finalizer_is_off(
    installed: Cluster, releaser: str
) -> None:
    """Between the deletion of the subject and the end of the finalizer the operator may have crashed."""
    installed.create(quarantine(releaser), user=OPERATOR)
    revoke(installed, releaser, "serviceaccount-ci", UID)
    with pytest.raises(ApiError, match="cannot be released: its subject was revoked"):
        installed.delete("quarantines", "serviceaccount-ci", releaser, user=JANE)


def test_one_that_only_lost_a_token_for_good_can_be_released(installed: Cluster, releaser: str) -> None:
    installed.create(quarantine(releaser), user=OPERATOR)
    revoke(installed, releaser, "serviceaccount-ci", "a-token-of-it")
    installed.delete("quarantines", "serviceaccount-ci", releaser, user=JANE)


def test_one_whose_revocation_was_only_intended_can_be_released(installed: Cluster, releaser: str) -> None:
    installed.create(quarantine(releaser, finalizer=False), user=OPERATOR)
    revoke(installed, releaser, "serviceaccount-ci", UID, done=False)
    installed.delete("quarantines", "serviceaccount-ci", releaser, user=JANE)


def test_a_terminating_namespace_ends_with_everything_in_it(installed: Cluster) -> None:
    """Findings, guards and a revoked Quarantine go with it; one with the finalizer waits for the operator."""
    name = installed.namespace("ends")
    installed.create(finding(name), user=OPERATOR)
    installed.create(guard(name, secrets={"s": {"quarantine": "a/b"}}), user=OPERATOR)
    installed.create(quarantine(name, "revoked", finalizer=False), user=OPERATOR)
    revoke(installed, name, "revoked", UID)
    installed.create(quarantine(name, "held"), user=OPERATOR)
    installed.delete_namespace(name)

    def only_the_finalizer_holds_it() -> bool:
        left = installed.list("quarantines", name)
        return (
            [item["metadata"]["name"] for item in left] == ["held"]
            and "deletionTimestamp" in left[0]["metadata"]
            and not installed.list("identityfindings", name)
            and not installed.list("quarantineguards", name)
        )

    eventually(only_the_finalizer_holds_it)
    installed.patch("quarantines", "held", {"metadata": {"finalizers": None}}, name, user=OPERATOR)
    eventually(lambda: installed.get("namespaces", name) is None, 60)


def test_in_a_terminating_namespace_the_finalizer_needs_no_right_of_ours(installed: Cluster) -> None:
    name = installed.namespace("stuck")
    grant(installed, name, JANE, ["get", "patch"], ["quarantines"])
    installed.create(quarantine(name), user=OPERATOR)
    installed.delete_namespace(name)
    eventually(
        lambda: (
            "deletionTimestamp" in (installed.get("quarantines", "serviceaccount-ci", name) or {}).get("metadata", {})
        )
    )
    # Jane's Role may be gone already: what is asked is admission.
    installed.patch("quarantines", "serviceaccount-ci", {"metadata": {"finalizers": None}}, name, **MASTERS)
    eventually(lambda: installed.get("namespaces", name) is None, 60)
