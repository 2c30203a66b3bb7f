"""From finding to refusal on a real API server: the operator as its own ServiceAccount, real tokens, real users.

One operator governs the session's cluster for all tests of this file; each test has a namespace and, where it needs
one, a policy of its own that selects that namespace alone.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.tenure_objects import (
    OFF,
    claim,
    exception,
    grant,
    owner,
    pod,
    policy,
    service_account,
    token_secret,
)
from tests.support import scenario
from tests.support.cluster import ApiError, Cluster, eventually
from tests.support.operator import Operator

Json = dict[str, Any]

_precedence = itertools.count(100)
FREE = {"maxActions": 10_000, "maxPercentPerNamespace": 100}
"""A blast radius that stands in no test's way."""


@pytest.fixture(scope="module")
def governed(installed: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The installed cluster with a running operator."""
    directory: Path = tmp_path_factory.mktemp("operator")
    with Operator(installed.kubeconfig, directory=directory) as operator:
        installed.operator = operator  # type: ignore[attr-defined]
        yield installed


@pytest.fixture
def metrics(governed: Cluster) -> Callable[[], Any]:
    return governed.operator.metrics  # type: ignore[attr-defined, no-any-return]


@pytest.fixture
def place(governed: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of this test, labelled with its own name."""
    name = governed.namespace(request.node.name.removeprefix("test_")[:40])
    governed.patch("namespaces", name, {"metadata": {"labels": {"test": name}}})
    yield name
    for found in governed.list("governancepolicies"):
        if found["metadata"]["name"] == name:
            governed.delete("governancepolicies", name)
    governed.delete_namespace(name)


def govern(cluster: Cluster, place: str, *deadlines: Json, enforce: bool = True, **spec: Any) -> None:
    """A policy for this namespace alone."""
    given: Json = {
        "namespaceSelector": {"matchLabels": {"test": place}},
        "precedence": next(_precedence),
        "adoptionGrace": "0s",
        "deadlines": list(deadlines),
        "blastRadius": FREE,
    }
    if enforce:
        given["enforceIn"] = {}
    scenario.govern(cluster, policy(place, **{**given, **spec}))


def quarantine_after(within: str, **more: Any) -> Json:
    return {"decideWithin": within, "onDeadline": "Quarantine", "holdAfterUse": "0s", **more}


def finding(cluster: Cluster, place: str, rule: str, subject: str) -> Json | None:
    """The finding of a rule about `Kind/name`."""
    for found in cluster.list("identityfindings", place):
        if found["spec"]["rule"] == rule and found["status"]["subject"] == subject:
            return found
    return None


def wait_finding(cluster: Cluster, place: str, rule: str, subject: str, phase: str = "Open", **within: Any) -> Json:
    def there() -> Json | None:
        found = finding(cluster, place, rule, subject)
        return found if found and found["status"]["phase"] == phase else None

    return eventually(there, what=f"{rule} of {subject} {phase}", **within)


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def token_of(cluster: Cluster, place: str, name: str) -> str:
    """The token that the token controller put into a Secret."""

    def filled() -> str | None:
        secret = cluster.get("secrets", name, place)
        value = (secret or {}).get("data", {}).get("token")
        return base64.b64decode(value).decode() if value else None

    return eventually(filled, what=f"a token in {name}")


def refused(attempt: Callable[[], Any]) -> str:
    with pytest.raises(ApiError) as caught:
        attempt()
    assert caught.value.status == 403
    return str(caught.value)


# --- rules


def test_an_unowned_identity_is_a_finding_and_its_credentials_follow_it(governed: Cluster, place: str) -> None:
    service_account(governed, place)
    governed.create(token_secret(place, "ci-token", "ci"))
    found = wait_finding(governed, place, "Unowned", "ServiceAccount/ci")
    assert found["status"]["mode"] == "Audit"
    assert found["status"]["onDeadline"] == "Nothing"
    assert found["status"]["risk"]["level"] == "Low"
    assert found["metadata"]["labels"]["tenure.dev/rule"] == "Unowned"
    within = instant(found["status"]["due"]) - instant(found["status"]["detected"])
    assert timedelta(days=90) <= within < timedelta(days=90, seconds=1), "no policy: the documented default of Low"
    legacy = wait_finding(governed, place, "LegacyToken", "Secret/ci-token")
    assert legacy["status"]["risk"]["level"] == "Medium"
    assert finding(governed, place, "Unowned", "Secret/ci-token") is None


def test_a_credential_of_no_identity_is_unowned_itself_and_other_secrets_raise_nothing(
    governed: Cluster, place: str
) -> None:
    def secret(name: str, **data: str) -> Json:
        metadata = {"name": name, "namespace": place}
        return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data}

    governed.create(secret("stripe", **{"api-key": "x"}))
    governed.create(secret("settings", **{"config.yaml": "x"}))
    wait_finding(governed, place, "Unowned", "Secret/stripe")
    # A claim made later proves that both were looked at: the plain Secret never had a finding.
    governed.create(secret("later", password="x"))
    wait_finding(governed, place, "Unowned", "Secret/later")
    assert finding(governed, place, "Unowned", "Secret/settings") is None


def test_an_unused_default_identity_raises_nothing_and_a_used_one_does(governed: Cluster, place: str) -> None:
    service_account(governed, place, "other")
    wait_finding(governed, place, "Unowned", "ServiceAccount/other")
    assert finding(governed, place, "Unowned", "ServiceAccount/default") is None
    governed.create(pod(place, "user", "default"))
    wait_finding(governed, place, "Unowned", "ServiceAccount/default")


def test_platform_identities_raise_nothing(governed: Cluster) -> None:
    assert governed.list("serviceaccounts", "kube-system")
    assert governed.list("identityfindings", "kube-system") == []
    assert governed.list("identityfindings", "tenure-system") == []


def test_risk_is_the_worst_binding_with_its_reason(governed: Cluster, place: str) -> None:
    service_account(governed, place)
    rbac = "rbac.authorization.k8s.io"
    governed.create(
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "ci-edit", "namespace": place},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "edit"},
            "subjects": [{"kind": "ServiceAccount", "name": "ci"}],
        }
    )

    def graded() -> Json | None:
        found = finding(governed, place, "Unowned", "ServiceAccount/ci")
        return found if found and found["status"]["risk"]["level"] == "High" else None

    found = eventually(graded, what="risk High")
    reasons = " ".join(found["status"]["risk"]["reasons"])
    assert "edit" in reasons
    assert f"{place}/ci-edit" in reasons


def test_a_namespace_label_gives_a_derived_owner(governed: Cluster, place: str) -> None:
    governed.apply(owner("derived-owner"))
    service_account(governed, place)
    wait_finding(governed, place, "Unowned", "ServiceAccount/ci")
    governed.patch("namespaces", place, {"metadata": {"labels": {"tenure.dev/owner": "derived-owner"}}})
    found = wait_finding(governed, place, "Unowned", "ServiceAccount/ci", "Resolved")
    assert found["status"]["decision"]["source"] == "Claim"
    assert found["status"]["accountable"]["owner"] == "derived-owner"


def test_findings_on_claims_escalate_and_enforce_nothing(governed: Cluster, place: str) -> None:
    govern(governed, place, quarantine_after("1s"))
    governed.apply(owner("first-owner"))
    names = {"serviceAccounts": {"names": ["ci"]}}
    governed.create(claim(place, "earlier", "first-owner", subjects=names))
    governed.create(claim(place, "later", "no-such-owner", subjects=names))
    service_account(governed, place)
    past = (datetime.now(UTC) - timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    governed.create(claim(place, "over", "first-owner", subjects={"secrets": {"names": ["x"]}}, expiresAt=past))
    conflict = wait_finding(governed, place, "ClaimConflict", "OwnedIdentity/later")
    vacant = wait_finding(governed, place, "OwnerVacant", "OwnedIdentity/later")
    expired = wait_finding(governed, place, "OwnershipExpired", "OwnedIdentity/over")
    for found in (conflict, vacant, expired):
        assert found["status"]["onDeadline"] == "Nothing"
    later = governed.get("ownedidentities", "later", place)
    assert later is not None
    assert {"Conflict", "Vacant"} <= {c["type"] for c in later["status"]["conditions"]}
    assert finding(governed, place, "Unowned", "ServiceAccount/ci") is None, "a conflict never opens Unowned"
    assert governed.list("quarantines", place) == []


def test_a_credential_too_old_and_its_rotation(governed: Cluster, place: str) -> None:
    govern(governed, place, enforce=False, credentials={"maxAge": "2s"})
    governed.create(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "db", "namespace": place},
            "stringData": {"password": "x"},
        }
    )
    found = wait_finding(governed, place, "CredentialTooOld", "Secret/db")
    assert instant(found["status"]["observable"]) <= instant(found["status"]["detected"])
    govern(governed, place, enforce=False, credentials={"maxAge": "1h"})
    wait_finding(governed, place, "CredentialTooOld", "Secret/db", "Resolved")


# --- exceptions


def test_an_exception_stays_pending_unless_the_policy_asks_for_no_approval(governed: Cluster, place: str) -> None:
    governed.apply(owner("payments"))
    service_account(governed, place)
    governed.create(token_secret(place, "ci-token", "ci"))
    wait_finding(governed, place, "LegacyToken", "Secret/ci-token")
    soon = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    governed.create(exception(place, expiresAt=soon, requestedBy=governed.username()))

    def status() -> Json:
        found = governed.get("identityexceptions", "exception", place)
        assert found is not None
        given: Json = found["status"]
        return given

    pending = eventually(lambda: status() if status().get("phase") == "Pending" else None)
    assert "approv" in pending["failing"]
    found = finding(governed, place, "LegacyToken", "Secret/ci-token")
    assert found is not None
    assert found["status"]["phase"] == "Open"

    govern(governed, place, enforce=False, exceptions={"classes": [{"class": "Migration", "approvals": []}]})
    active = eventually(lambda: status() if status()["phase"] == "Active" else None)
    uid = governed.get("secrets", "ci-token", place)["metadata"]["uid"]  # type: ignore[index]
    assert active["matched"] == [{"kind": "Secret", "name": "ci-token", "uid": uid}]
    excepted = wait_finding(governed, place, "LegacyToken", "Secret/ci-token", "Excepted")
    assert excepted["status"]["decision"]["source"] == "Exception"
    assert excepted["status"]["decision"]["class"] == "Migration"


def test_an_exception_longer_than_its_class_allows_names_the_clause(governed: Cluster, place: str) -> None:
    govern(governed, place, enforce=False, exceptions={"classes": [{"class": "Migration", "approvals": []}]})
    far = (datetime.now(UTC) + timedelta(days=91)).strftime("%Y-%m-%dT%H:%M:%SZ")
    governed.create(exception(place, expiresAt=far, requestedBy=governed.username()))

    def failing() -> str | None:
        found = governed.get("identityexceptions", "exception", place)
        return (found or {}).get("status", {}).get("failing")

    assert "90d" in eventually(failing, what="the failing clause")


def test_an_exception_that_lapses_reopens_what_it_covered(governed: Cluster, place: str) -> None:
    govern(governed, place, enforce=False, exceptions={"classes": [{"class": "Migration", "approvals": []}]})
    service_account(governed, place)
    governed.create(token_secret(place, "ci-token", "ci"))
    end = (datetime.now(UTC) + timedelta(seconds=4)).strftime("%Y-%m-%dT%H:%M:%SZ")
    governed.create(exception(place, expiresAt=end, requestedBy=governed.username()))
    first = wait_finding(governed, place, "LegacyToken", "Secret/ci-token", "Excepted")
    again = wait_finding(governed, place, "LegacyToken", "Secret/ci-token", "Open")
    assert again["status"]["opening"] == first["status"]["opening"] + 1
    assert instant(again["status"]["detected"]) >= instant(end)
    lapsed = wait_finding(governed, place, "ExceptionLapsed", "IdentityException/exception")
    assert lapsed["status"]["onDeadline"] == "Nothing"


# --- from finding to refusal


def test_a_token_in_use_is_refused_after_the_deadline_and_works_again_after_a_claim(
    governed: Cluster, place: str
) -> None:
    governed.apply(owner("payments", contacts=[{"type": "Email", "value": "payments@example.com"}]))
    govern(governed, place, {**quarantine_after("4s"), "rules": ["Unowned"]})
    service_account(governed, place)
    governed.create(token_secret(place, "ci-token", "ci"))
    token = token_of(governed, place, "ci-token")
    assert governed.token_works(token)
    done = wait_finding(governed, place, "Unowned", "ServiceAccount/ci", "Quarantined")
    eventually(lambda: not governed.token_works(token), timeout=30, what="401 for the quarantined token")
    status = done["status"]
    act = status["acts"][0]
    assert act["verdict"] == "Quarantine"
    assert instant(act["started"]) >= instant(status["enforceNotBefore"])
    assert instant(act["verified"]) - instant(status["due"]) < timedelta(seconds=5)
    assert (status["decision"]["source"], status["dueOutcome"]) == ("Policy", "missed")
    assert status["decided"] == status["enforceNotBefore"], "the policy decides at the deadline, to the second"

    said = refused(lambda: governed.token(place, "ci"))
    [quarantine] = governed.list("quarantines", place)
    assert f"{place}/{quarantine['metadata']['name']}" in said
    assert "kubectl delete quarantine" in said
    said = refused(lambda: governed.create(pod(place, "p")))
    assert "quarantined" in said

    grant(governed, place, "paula", ["create", "get"], ["ownedidentities"])
    grant(governed, place, "paula", ["claim"], ["identityowners"], names=["payments"])
    governed.create(claim(place, owner="payments"), user="paula")
    wait_finding(governed, place, "Unowned", "ServiceAccount/ci", "Resolved")
    eventually(lambda: governed.token_works(token), what="the released token works again")
    eventually(lambda: governed.list("quarantines", place) == [], what="no Quarantine left")
    secret = governed.get("secrets", "ci-token", place)
    assert secret is not None
    assert OFF not in secret["metadata"].get("labels", {})
    governed.token(place, "ci")


def test_an_attempt_on_a_quarantined_token_trips_the_wire(
    governed: Cluster, place: str, metrics: Callable[[], Any]
) -> None:
    govern(governed, place, {**quarantine_after("3s"), "rules": ["Unowned"]})
    service_account(governed, place)
    governed.create(token_secret(place, "ci-token", "ci"))
    token = token_of(governed, place, "ci-token")
    wait_finding(governed, place, "Unowned", "ServiceAccount/ci", "Quarantined")
    before = metrics().value("tenure_tripwire_attempts_total")
    assert not governed.token_works(token)

    def noticed() -> str | None:
        [quarantine] = governed.list("quarantines", place)
        return quarantine["status"].get("lastAttempt")

    assert eventually(noticed, what="the last attempt").startswith(datetime.now(UTC).strftime("%Y-%m"))
    assert metrics().value("tenure_tripwire_attempts_total") == before + 1


def test_every_form_of_binding_a_quarantined_identity_is_refused_from_anywhere(governed: Cluster, place: str) -> None:
    govern(governed, place, quarantine_after("1s"))
    service_account(governed, place)
    wait_finding(governed, place, "Unowned", "ServiceAccount/ci", "Quarantined")
    elsewhere = governed.namespace("elsewhere")
    rbac = "rbac.authorization.k8s.io"
    forms = [
        {"kind": "ServiceAccount", "name": "ci", "namespace": place},
        {"kind": "User", "apiGroup": rbac, "name": f"system:serviceaccount:{place}:ci"},
        {"kind": "Group", "apiGroup": rbac, "name": f"system:serviceaccounts:{place}"},
    ]
    for form in forms:
        for kind, metadata in (
            ("RoleBinding", {"name": "new", "namespace": elsewhere}),
            ("ClusterRoleBinding", {"name": f"new-{place}"}),
        ):
            manifest = {
                "apiVersion": f"{rbac}/v1",
                "kind": kind,
                "metadata": metadata,
                "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "view"},
                "subjects": [form],
            }
            assert "quarantined" in refused(lambda manifest=manifest: governed.create(manifest))  # type: ignore[misc]
    governed.delete_namespace(elsewhere)


def test_a_quarantined_token_secret_cannot_be_undone_or_doubled(governed: Cluster, place: str) -> None:
    govern(governed, place, {**quarantine_after("3s"), "rules": ["Unowned"]})
    governed.create(claim(place, subjects={"serviceAccounts": {"names": ["free"]}}))
    service_account(governed, place)
    service_account(governed, place, "free")
    governed.create(token_secret(place, "ci-token", "ci"))
    governed.create(token_secret(place, "free-token", "free"))
    wait_finding(governed, place, "Unowned", "ServiceAccount/ci", "Quarantined")
    refused(lambda: governed.patch("secrets", "ci-token", {"metadata": {"labels": {OFF: None}}}, place))
    refused(lambda: governed.create(token_secret(place, "second", "ci")))
    annotations = {"metadata": {"annotations": {"kubernetes.io/service-account.name": "ci"}}}
    refused(lambda: governed.patch("secrets", "free-token", annotations, place))
    governed.delete("secrets", "ci-token", place)
    refused(lambda: governed.create(token_secret(place, "ci-token", "ci")))


def test_revocation_deletes_the_token_and_its_name_stays_refused(
    governed: Cluster, place: str, metrics: Callable[[], Any]
) -> None:
    before = metrics().value("tenure_revocation_latency_seconds_count", cause="LegacyToken")
    govern(governed, place, {**quarantine_after("2s", revokeAfter="1s"), "rules": ["LegacyToken"]})
    governed.apply(owner("payments"))
    governed.create(claim(place))
    service_account(governed, place)
    governed.create(token_secret(place, "ci-token", "ci"))
    token = token_of(governed, place, "ci-token")
    gone = wait_finding(governed, place, "LegacyToken", "Secret/ci-token", "Resolved")
    assert governed.get("secrets", "ci-token", place) is None

    def told() -> list[str] | None:
        acts = finding(governed, place, "LegacyToken", "Secret/ci-token")["status"]["acts"]  # type: ignore[index]
        return [a["verdict"] for a in acts] if all(a.get("verified") for a in acts) else None

    assert eventually(told) == ["Quarantine", "Revoke"]
    assert gone["status"]["decision"]["source"] == "Policy"
    eventually(lambda: not governed.token_works(token), what="401 for the revoked token")
    said = refused(lambda: governed.create(token_secret(place, "ci-token", "ci")))
    assert "revoked" in said
    said = refused(
        lambda: governed.create(
            token_secret(place, "ci-token", "ci"), user="system:serviceaccount:tenure-system:tenure"
        )
    )
    eventually(
        lambda: metrics().value("tenure_revocation_latency_seconds_count", cause="LegacyToken") == before + 1,
        what="the revocation latency",
    )
    [record] = governed.list("quarantines", place)
    assert record["metadata"].get("finalizers", []) == []
    said = refused(lambda: governed.delete("quarantines", record["metadata"]["name"], place))
    assert "revoked" in said
    # The names stay refused while their ServiceAccount lives, and no longer.
    governed.delete("serviceaccounts", "ci", place)
    eventually(lambda: governed.list("quarantines", place) == [], what="the record goes with its ServiceAccount")
    eventually(lambda: governed.get("quarantineguards", "guard", place) is None, what="the guard goes too")


def test_the_tokens_of_a_quarantined_identity_are_revoked_and_stay_so_after_its_release(
    governed: Cluster, place: str
) -> None:
    governed.apply(owner("payments"))
    govern(governed, place, {**quarantine_after("3s", revokeAfter="1s"), "rules": ["Unowned"]})
    service_account(governed, place)
    # Bound, and bindings may not be changed here: then its tokens go, and it stays itself.
    grant(governed, place, f"system:serviceaccount:{place}:ci", ["get"], ["identityfindings"])
    governed.create(token_secret(place, "one", "ci"))
    governed.create(token_secret(place, "two", "ci"))
    wait_finding(governed, place, "Unowned", "ServiceAccount/ci", "Quarantined")
    eventually(lambda: governed.list("secrets", place) == [], what="both tokens deleted")
    assert governed.get("serviceaccounts", "ci", place) is not None
    governed.create(claim(place))
    wait_finding(governed, place, "Unowned", "ServiceAccount/ci", "Resolved")
    eventually(lambda: governed.token(place, "ci"), what="the released identity gets tokens again")
    for name in ("one", "two"):
        assert "revoked" in refused(lambda name=name: governed.create(token_secret(place, name, "ci")))  # type: ignore[misc]
    governed.create(token_secret(place, "three", "ci"))


def test_a_person_releases_with_the_verb_and_the_finding_is_open_again(governed: Cluster, place: str) -> None:
    govern(governed, place, {**quarantine_after("3s"), "rules": ["Unowned"]})
    service_account(governed, place)
    governed.create(token_secret(place, "ci-token", "ci"))
    token = token_of(governed, place, "ci-token")
    wait_finding(governed, place, "Unowned", "ServiceAccount/ci", "Quarantined")
    [quarantine] = governed.list("quarantines", place)
    name = quarantine["metadata"]["name"]
    govern(governed, place, {**quarantine_after("600s"), "rules": ["Unowned"]})
    grant(governed, place, "eve", ["delete"], ["quarantines"])
    assert "release" in refused(lambda: governed.delete("quarantines", name, place, user="eve"))
    grant(governed, place, "rita", ["delete", "release"], ["quarantines"])
    governed.delete("quarantines", name, place, user="rita")
    again = wait_finding(governed, place, "Unowned", "ServiceAccount/ci", "Open")
    status = again["status"]
    assert status["opening"] == 2
    assert instant(status["due"]) - instant(status["released"]) == timedelta(seconds=600)
    eventually(lambda: governed.get("quarantines", name, place) is None, what="the Quarantine is gone")
    eventually(lambda: governed.token_works(token), what="the token works again")
    governed.token(place, "ci")


def test_an_emergency_finalizer_removal_by_a_releaser_gives_back_too(governed: Cluster, place: str) -> None:
    govern(governed, place, {**quarantine_after("2s"), "rules": ["Unowned"]})
    service_account(governed, place)
    governed.create(token_secret(place, "ci-token", "ci"))
    wait_finding(governed, place, "Unowned", "ServiceAccount/ci", "Quarantined")
    [quarantine] = governed.list("quarantines", place)
    name = quarantine["metadata"]["name"]
    govern(governed, place, {**quarantine_after("600s"), "rules": ["Unowned"]})
    grant(governed, place, "rita", ["delete", "patch", "release"], ["quarantines"])
    governed.patch("quarantines", name, {"metadata": {"finalizers": []}}, place, user="rita")
    if governed.get("quarantines", name, place) is not None:
        governed.delete("quarantines", name, place, user="rita")

    def on_again() -> bool:
        labels = governed.get("secrets", "ci-token", place)["metadata"].get("labels", {})  # type: ignore[index]
        return OFF not in labels

    eventually(on_again, what="the label is taken off")
    wait_finding(governed, place, "Unowned", "ServiceAccount/ci", "Open")


# --- policy


def test_suspend_holds_the_act_and_the_clock_goes_on(governed: Cluster, place: str) -> None:
    govern(governed, place, quarantine_after("1s"), suspend=True)
    service_account(governed, place)

    def blocked() -> Json | None:
        found = finding(governed, place, "Unowned", "ServiceAccount/ci")
        conditions = {c["type"]: c["reason"] for c in found["status"]["conditions"]} if found else {}
        return found if conditions.get("Blocked") == "Suspended" else None

    found = eventually(blocked, what="Blocked: Suspended")
    assert found["status"]["dueOutcome"] == "missed"
    assert governed.list("quarantines", place) == []
    govern(governed, place, quarantine_after("1s"), suspend=False)
    wait_finding(governed, place, "Unowned", "ServiceAccount/ci", "Quarantined")


def test_two_policies_of_equal_precedence_say_so_and_nothing_acts(governed: Cluster, place: str) -> None:
    number = next(_precedence)
    selector = {"matchLabels": {"test": place}}
    spec: Json = {
        "precedence": number,
        "namespaceSelector": selector,
        "enforceIn": {},
        "adoptionGrace": "0s",
        "deadlines": [quarantine_after("1s")],
        "blastRadius": FREE,
    }
    governed.apply(policy(place, **spec))
    governed.apply(policy(f"{place}-b", **spec))
    service_account(governed, place)

    def conflict() -> bool:
        found = governed.get("governancepolicies", place)
        return bool(found) and f"{place}-b" in found.get("status", {}).get("conflicts", [])  # type: ignore[union-attr]

    eventually(conflict, what="the conflict in the policy's status")
    found = wait_finding(governed, place, "Unowned", "ServiceAccount/ci")
    assert found["status"]["mode"] == "Audit"
    governed.delete("governancepolicies", f"{place}-b")

    def enforced() -> bool:
        now = finding(governed, place, "Unowned", "ServiceAccount/ci")
        return now is not None and now["status"]["mode"] == "Enforce"

    eventually(enforced, what="the one that is left enforces")
    again = finding(governed, place, "Unowned", "ServiceAccount/ci")
    assert again is not None
    assert again["status"]["due"] == found["status"]["due"], "no deadline moves because policies do"
    service_account(governed, place, "later")
    wait_finding(governed, place, "Unowned", "ServiceAccount/later", "Quarantined")


def test_the_adoption_grace_spares_what_existed_and_not_what_came_later(governed: Cluster, place: str) -> None:
    service_account(governed, place, "old")
    wait_finding(governed, place, "Unowned", "ServiceAccount/old")
    govern(governed, place, quarantine_after("1s"), adoptionGrace="1h")

    def graced() -> Json | None:
        found = finding(governed, place, "Unowned", "ServiceAccount/old")
        return found if found and found["status"].get("enforceNotBefore") else None

    found = eventually(graced, what="enforceNotBefore")
    assert instant(found["status"]["enforceNotBefore"]) > datetime.now(UTC) + timedelta(minutes=50)
    # The creation stamp has whole seconds: what counts as later must be created in a later second than the turn.
    eventually(lambda: datetime.now(UTC) > instant(found["status"]["detected"]) + timedelta(seconds=2))
    service_account(governed, place, "new")
    wait_finding(governed, place, "Unowned", "ServiceAccount/new", "Quarantined")
    still = finding(governed, place, "Unowned", "ServiceAccount/old")
    assert still is not None
    assert still["status"]["phase"] == "Open"


def test_deleting_and_recreating_the_subject_restarts_no_clock(governed: Cluster, place: str) -> None:
    govern(governed, place, {"decideWithin": "100s", "onDeadline": "Nothing"})
    service_account(governed, place)
    first = wait_finding(governed, place, "Unowned", "ServiceAccount/ci")
    governed.delete("serviceaccounts", "ci", place)
    gone = wait_finding(governed, place, "Unowned", "ServiceAccount/ci", "Resolved")
    assert gone["status"]["decision"]["source"] == "SubjectGone"
    service_account(governed, place)
    again = wait_finding(governed, place, "Unowned", "ServiceAccount/ci")
    assert again["metadata"]["uid"] == first["metadata"]["uid"]
    assert again["spec"]["subject"]["uid"] != first["spec"]["subject"]["uid"]
    assert again["spec"]["revision"] > first["spec"]["revision"]
    left = instant(again["status"]["due"]) - instant(again["status"]["detected"])
    assert left <= timedelta(seconds=101 - gone["status"]["usedSeconds"])


def test_the_blast_radius_lets_one_through_and_says_why_the_others_wait(
    governed: Cluster, place: str, metrics: Callable[[], Any]
) -> None:
    govern(governed, place, quarantine_after("2s"), blastRadius={**FREE, "maxActions": 1})
    for number in range(4):
        service_account(governed, place, f"sa-{number}")

    def waiting() -> list[Json] | None:
        found = governed.list("identityfindings", place)
        held = [
            f
            for f in found
            if any(c["type"] == "Blocked" and c["reason"] == "BlastRadius" for c in f["status"]["conditions"])
        ]
        return held if len(held) == 3 else None

    eventually(waiting, what="three that wait")
    assert len(governed.list("quarantines", place)) == 1
    assert metrics().value("tenure_enforcement_queue_length", reason="BlastRadius") >= 3
    assert metrics().value("tenure_actions_blocked_total", cause="BlastRadius") >= 3


def test_each_step_is_an_event_on_subject_and_finding(governed: Cluster, place: str) -> None:
    govern(governed, place, quarantine_after("1s"))
    service_account(governed, place)
    wait_finding(governed, place, "Unowned", "ServiceAccount/ci", "Quarantined")

    def said() -> bool:
        seen = {(e["involvedObject"]["kind"], e["reason"]) for e in governed.list("events", place)}
        return {
            ("ServiceAccount", "IdentityQuarantined"),
            ("IdentityFinding", "IdentityQuarantined"),
            ("ServiceAccount", "StageVerified"),
            ("IdentityFinding", "StageVerified"),
            ("IdentityFinding", "DecisionOverdue"),
        } <= seen

    eventually(said, what="Events on subject and finding")


def test_a_touched_guard_is_rebuilt(governed: Cluster, place: str) -> None:
    govern(governed, place, quarantine_after("1s"))
    service_account(governed, place)
    wait_finding(governed, place, "Unowned", "ServiceAccount/ci", "Quarantined")
    operator = "system:serviceaccount:tenure-system:tenure"
    refused(lambda: governed.delete("quarantineguards", "guard", place))
    governed.delete("quarantineguards", "guard", place, user=operator)
    found = eventually(lambda: governed.get("quarantineguards", "guard", place), what="the guard is back")
    assert "ci" in found["spec"]["serviceAccounts"]


def test_a_namespace_that_holds_a_quarantine_ends(governed: Cluster, place: str) -> None:
    govern(governed, place, quarantine_after("1s"))
    service_account(governed, place)
    governed.create(token_secret(place, "ci-token", "ci"))
    wait_finding(governed, place, "Unowned", "ServiceAccount/ci", "Quarantined")
    governed.delete_namespace(place, wait=True)


# --- what is stored and measured


def test_a_finding_is_small_and_each_instant_is_stamped(governed: Cluster, place: str) -> None:
    import json

    service_account(governed, place)
    found = wait_finding(governed, place, "Unowned", "ServiceAccount/ci")
    stored = governed.get("identityfindings", found["metadata"]["name"], place)
    assert len(json.dumps(stored)) < 4096
    status = found["status"]
    assert instant(status["observable"]) <= instant(status["detected"]) < instant(status["due"])
    skew = abs(instant(status["detected"]) - instant(found["metadata"]["creationTimestamp"]))
    assert skew < timedelta(seconds=2), "API-server time"


def test_the_metrics_tell_the_finding_and_its_decision(
    governed: Cluster, place: str, metrics: Callable[[], Any]
) -> None:
    governed.apply(owner("payments"))
    before = metrics()
    service_account(governed, place)
    found = wait_finding(governed, place, "Unowned", "ServiceAccount/ci")
    name = found["metadata"]["name"]

    def deadline() -> float | None:
        samples = metrics().samples("tenure_finding_decision_deadline_timestamp_seconds")
        mine = {("namespace", place), ("name", name)}
        return next((value for labels, value in samples.items() if mine <= labels), None)

    assert eventually(deadline) == instant(found["status"]["due"]).timestamp()
    governed.create(claim(place))
    wait_finding(governed, place, "Unowned", "ServiceAccount/ci", "Resolved")
    after = metrics()
    counted = {"risk": "Low", "source": "Claim", "class": "Standard"}
    assert (
        after.value("tenure_decision_latency_seconds_count", **counted)
        == before.value("tenure_decision_latency_seconds_count", **counted) + 1
    )
    due = {"risk": "Low", "outcome": "met"}
    assert after.value("tenure_decisions_due_total", **due) == before.value("tenure_decisions_due_total", **due) + 1
    assert deadline() is None, "the series dies with the open finding"


def test_durable_counters_stand_right_after_a_restart(governed: Cluster) -> None:
    operator: Operator = governed.operator  # type: ignore[attr-defined]
    before = operator.metrics().samples("tenure_decisions_due_total")
    assert sum(before.values()) > 0
    operator.restart()
    assert operator.metrics().samples("tenure_decisions_due_total") == before
