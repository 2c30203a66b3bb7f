"""Secrets that hold no ServiceAccount's token: kept from new pods, given back, deleted; never deleted while somebody
writes them back. By a real operator, on the oldest and the newest Kubernetes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tests.support import scenario
from tests.support.cluster import ApiError, Cluster, eventually
from tests.support.operator import Operator
from tests.support.rest import Json
from tests.support.scenario import (
    RBAC,
    RESTORE,
    claim,
    claimant,
    deadline,
    finding_of,
    owner,
    phase_of,
    policy,
    quarantine_of,
    releaser,
    rule,
)

pytestmark = pytest.mark.local

MARKS: dict[str, tuple[Json, str]] = {
    "argocd": (
        {"annotations": {"argocd.argoproj.io/tracking-id": "shop:/Secret:x/argocd"}},
        "source of Application shop",
    ),
    "externalsecrets": ({"labels": {"reconcile.external-secrets.io/managed": "true"}}, "Delete ExternalSecret"),
    "helm": (
        {"annotations": {"meta.helm.sh/release-name": "shop", "meta.helm.sh/release-namespace": "x"}},
        "values of release x/shop",
    ),
}
"""What a manager leaves on what it writes, and what the finding names as the change that lasts."""


@pytest.fixture(scope="module", params=["1.33", "1.36"])
def governed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster: Cluster = request.getfixturevalue("oldest" if request.param == "1.33" else "installed")
    cluster.apply(owner("team"))
    claimant(cluster, "carla", "team")
    releaser(cluster, "rita")
    with Operator(cluster.kubeconfig, directory=tmp_path_factory.mktemp("operator")) as operator:
        cluster.operator = operator  # type: ignore[attr-defined]
        yield cluster


@pytest.fixture
def place(governed: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    name = governed.namespace(request.node.name.removeprefix("test_")[:40])
    governed.patch("namespaces", name, {"metadata": {"labels": {"test": name}}})
    yield name
    governed.delete("governancepolicies", name)
    governed.delete_namespace(name)


def govern(cluster: Cluster, place: str, spec: Json | None = None, **more: Any) -> None:
    found = policy(place, deadline("Unowned", **more), labels={"test": place}, precedence=83, **(spec or {}))
    scenario.govern(cluster, found)


def manifest(place: str, name: str = "api-key", **metadata: Any) -> Json:
    about = {"name": name, "namespace": place, **metadata}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": about, "stringData": {"api_key": "none"}}


def secret(cluster: Cluster, place: str, name: str = "api-key", **metadata: Any) -> Json:
    return cluster.create(manifest(place, name, **metadata))


def reads(cluster: Cluster, place: str, user: str, names: Sequence[str]) -> None:
    """Lets the user read these Secrets of the namespace, or all."""
    about = {"apiVersion": f"{RBAC}/v1", "metadata": {"name": user, "namespace": place}}
    cluster.create({**about, "kind": "Role", "rules": [rule("", ["secrets"], ["get"], names)]})
    to = {"apiGroup": RBAC, "kind": "Role", "name": user}
    subject = {"kind": "User", "apiGroup": RBAC, "name": user}
    cluster.create({**about, "kind": "RoleBinding", "roleRef": to, "subjects": [subject]})


def runs(cluster: Cluster, place: str, name: str, consumed: str = "api-key") -> bool:
    """Whether a pod that consumes the Secret is let in."""
    container = {"name": "main", "image": "registry.example/none", "envFrom": [{"secretRef": {"name": consumed}}]}
    spec = {"serviceAccountName": "app", "containers": [container]}
    try:
        cluster.create(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": place}, "spec": spec}
        )
    except ApiError as error:
        if "is quarantined and no new pod may consume it" not in error.message:
            raise
        return False
    return True


def quarantined(cluster: Cluster, place: str, name: str = "api-key") -> Json:
    def there() -> Json | None:
        found = finding_of(cluster, place, "Unowned", name)
        return (
            found if found and found["status"]["phase"] == "Quarantined" and found["status"].get("verified") else None
        )

    return eventually(there, what=f"{name} quarantined")


def blocked(cluster: Cluster, place: str, name: str) -> Json | None:
    """The finding, once it says that another controller keeps its Secret from being deleted."""
    found = finding_of(cluster, place, "Unowned", name)
    said = {c["type"]: c for c in found["status"]["conditions"]} if found else {}
    return found if said.get("Blocked", {}).get("reason") == "ManagedByController" else None


GATEWAY = "gateway.networking.k8s.io"


def gateways(cluster: Cluster) -> None:
    """Serves the Gateways of the Gateway API, with a schema that lets everything pass."""
    open_schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": open_schema}}
    names = {"plural": "gateways", "singular": "gateway", "kind": "Gateway", "listKind": "GatewayList"}
    approved = {"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/gateway-api/pull/2466"}
    cluster.create(
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"gateways.{GATEWAY}", "annotations": approved},
            "spec": {"group": GATEWAY, "scope": "Namespaced", "names": names, "versions": [version]},
        }
    )


def gateway(place: str, name: str, reference: Json) -> Json:
    listener = {"name": "https", "port": 443, "protocol": "HTTPS", "tls": {"certificateRefs": [reference]}}
    about = {"name": name, "namespace": place}
    return {"apiVersion": f"{GATEWAY}/v1", "kind": "Gateway", "metadata": about, "spec": {"listeners": [listener]}}


def ingress(place: str, name: str, used: str) -> Json:
    backend = {"service": {"name": "web", "port": {"number": 80}}}
    spec = {"defaultBackend": backend, "tls": [{"hosts": ["shop.example"], "secretName": used}]}
    about = {"name": name, "namespace": place}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": about, "spec": spec}


def account(cluster: Cluster, place: str) -> None:
    """A ServiceAccount that somebody owns, for the pods."""
    metadata = {"name": "app", "namespace": place}
    cluster.create(claim(place, "team", name="app", accounts=["app"]), user="carla")
    cluster.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})


def test_no_new_pod_consumes_it_until_somebody_claims_it(governed: Cluster, place: str) -> None:
    govern(governed, place, within="4s", stages=["Guard", "DisableTokens"])
    account(governed, place)
    for who, names in (("reader", ()), ("of-this", ("api-key",)), ("of-another", ("another",))):
        reads(governed, place, who, names)
    secret(governed, place)
    assert runs(governed, place, "before")
    found = quarantined(governed, place)
    held = quarantine_of(governed, place, "api-key")
    assert held is not None
    assert held["spec"]["stages"] == ["Guard"]  # there is no token to switch off
    assert held["spec"]["subject"]["type"] == "Opaque"
    assert not runs(governed, place, "after")
    assert runs(governed, place, "another", consumed="other")
    assert "pod before keeps the content it consumed" in found["status"]["residual"]
    assert any("may read Secrets of the namespace" in line for line in found["status"]["residual"])
    named = sorted(line for line in found["status"]["residual"] if "may read it (RoleBinding" in line)
    assert named == [f"User {who} may read it (RoleBinding {who})" for who in ("of-this", "reader")]
    stands = governed.get("secrets", "api-key", place)
    assert stands is not None
    assert "labels" not in stands["metadata"]  # nothing of it was touched
    governed.create(claim(place, "team"), user="carla")
    eventually(lambda: quarantine_of(governed, place, "api-key") is None, what="released")
    eventually(lambda: runs(governed, place, "after"), what="pods let in again")


def test_ingresses_and_gateways_that_go_on_using_it_are_named(governed: Cluster, place: str) -> None:
    """As they are at the act. Where Gateways are not served there are none; where the right to list them is missing
    that is said, and the Secret is quarantined all the same."""

    def told(name: str) -> list[str]:
        secret(governed, place, name)
        lines = quarantined(governed, place, name)["status"]["residual"]
        assert any("may read Secrets of the namespace" in line for line in lines), "in general words too"
        return [line for line in lines if line.startswith(("still used by", "which "))]

    govern(governed, place)
    for number in range(6):
        governed.create(ingress(place, f"web-{number}", "first"))
    governed.create(ingress(place, "another", "second"))
    assert told("first") == ["still used by Ingress web-0, web-1, web-2, web-3 and 2 more"]
    gateways(governed)
    role = governed.get("clusterroles", "tenure")
    assert role is not None
    try:
        elsewhere = gateway(place, "elsewhere", {"name": "second", "namespace": "elsewhere"})
        eventually(lambda: served(governed, elsewhere), what="Gateways served")
        governed.create(gateway(place, "edge", {"kind": "Secret", "name": "second"}))
        assert told("second") == ["still used by Ingress another", "still used by Gateway edge"]
        rules = [rule for rule in role["rules"] if rule["apiGroups"] != [GATEWAY]]
        assert len(rules) == len(role["rules"]) - 1
        governed.patch("clusterroles", "tenure", {"rules": rules})
        operator = "system:serviceaccount:tenure-system:tenure"
        eventually(lambda: not governed.can(operator, "list", "gateways", group=GATEWAY), what="the right gone")
        assert told("third") == ["which gateways go on using it could not be looked up (Forbidden)"]
    finally:
        governed.patch("clusterroles", "tenure", {"rules": role["rules"]})
        governed.delete("customresourcedefinitions", f"gateways.{GATEWAY}")


def served(cluster: Cluster, found: Json) -> bool:
    """Whether the kind is there: its object is created."""
    try:
        cluster.create(found)
    except (ApiError, KeyError, LookupError):
        return False
    return True


def test_a_person_releases_it(governed: Cluster, place: str) -> None:
    govern(governed, place)
    account(governed, place)
    secret(governed, place)
    quarantined(governed, place)
    governed.patch("governancepolicies", place, {"spec": {"suspend": True}})
    held = quarantine_of(governed, place, "api-key")
    assert held is not None
    governed.delete("quarantines", held["metadata"]["name"], place, user="rita")
    eventually(lambda: quarantine_of(governed, place, "api-key") is None, what="released")
    eventually(lambda: runs(governed, place, "after"), what="pods let in again")
    assert phase_of(governed, place, "Unowned", "api-key") == "Open"


def test_revocation_deletes_it_and_refuses_no_name(governed: Cluster, place: str) -> None:
    govern(governed, place, revoke_after="1s")
    account(governed, place)
    made = secret(governed, place)

    def revoked() -> bool:
        found = finding_of(governed, place, "Unowned", "api-key")
        acts = found["status"]["acts"] if found else ()
        return any(act["verdict"] == "Revoke" and act.get("verified") for act in acts)

    eventually(revoked, what="revoked")
    assert governed.get("secrets", "api-key", place) is None
    assert phase_of(governed, place, "Unowned", "api-key") == "Resolved"

    def recorded() -> bool:
        record = quarantine_of(governed, place, "api-key")
        assert record is not None
        return RESTORE not in record["metadata"].get("finalizers", ())

    eventually(recorded, what="its record, without a finalizer")
    governed.patch("governancepolicies", place, {"spec": {"suspend": True}})
    again = secret(governed, place)  # another one of that name is another credential, and starts with a finding
    assert again["metadata"]["uid"] != made["metadata"]["uid"]
    eventually(lambda: phase_of(governed, place, "Unowned", "api-key") == "Open", what="its finding open again")
    assert runs(governed, place, "new")


def test_a_token_that_slips_in_under_a_revoked_name_does_not_stay(governed: Cluster, place: str) -> None:
    """The guard that refuses the name fails open, and can be away. A ServiceAccount that a controller writes stays when
    its tokens are revoked: so it could have the next one."""
    govern(governed, place, revoke_after="1s", stages=["Guard", "DisableTokens"])
    governed.create(scenario.service_account(place, "ci", **MARKS["helm"][0]))
    token = scenario.token_secret(place, "ci-a", "ci")
    governed.create(token)

    def revoked() -> bool:
        held = quarantine_of(governed, place, "ci") or {}
        return any(entry.get("done") for entry in held.get("status", {}).get("revoked", ()))

    def slipped_in() -> bool:
        try:
            governed.create(token)
        except ApiError as error:
            if "its name stays refused" not in error.message:
                raise
            return False
        return True

    eventually(revoked, what="its token revoked")
    binding = governed.get("validatingadmissionpolicybindings", "tenure-guard-secrets")
    assert binding is not None
    governed.delete("validatingadmissionpolicybindings", "tenure-guard-secrets")
    try:
        eventually(slipped_in, what="a token under the revoked name")
    finally:
        metadata = {name: binding["metadata"][name] for name in ("name", "labels")}
        governed.create({**binding, "metadata": metadata})
    eventually(lambda: governed.get("secrets", "ci-a", place) is None, 60, what="it revoked as well")


@pytest.mark.parametrize("manager", list(MARKS))
def test_what_somebody_writes_back_is_never_deleted(governed: Cluster, place: str, manager: str) -> None:
    metadata, change = MARKS[manager]
    govern(governed, place, revoke_after="1s")
    account(governed, place)
    secret(governed, place, manager, **metadata)

    found = eventually(lambda: blocked(governed, place, manager), what="revocation held")
    assert any(change in said["message"] for said in found["status"]["conditions"] if said["type"] == "Blocked")
    assert change in found["status"]["managedBy"]["lever"]
    assert found["status"]["phase"] == "Quarantined"
    assert governed.get("secrets", manager, place) is not None
    assert not runs(governed, place, "after", consumed=manager)


def test_a_controllers_secret_without_a_known_mark_is_not_deleted_either(governed: Cluster, place: str) -> None:
    govern(governed, place, revoke_after="1s")
    account(governed, place)
    parent = governed.create(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "parent", "namespace": place}}
    )
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "parent", "uid": parent["metadata"]["uid"]}
    secret(governed, place, ownerReferences=[{**reference, "controller": True}])

    eventually(lambda: blocked(governed, place, "api-key"), what="revocation held")
    assert governed.get("secrets", "api-key", place) is not None


def test_one_that_only_a_field_manager_tells_of_is_not_deleted_either(governed: Cluster, place: str) -> None:
    """Argo CD that tracks by a label alone."""
    govern(governed, place, revoke_after="1s")
    account(governed, place)
    governed.apply(manifest(place), manager="argocd-controller")
    found = eventually(lambda: blocked(governed, place, "api-key"), what="revocation held")
    assert found["status"]["managedBy"]["manager"] == "ArgoCD"
    assert governed.get("secrets", "api-key", place) is not None


def test_what_comes_back_after_its_deletion_is_not_called_revoked(governed: Cluster, place: str) -> None:
    """By a writer that no mark tells of. It is deleted again, as often as the policy allows; then it stays, withheld
    from pods, and the finding says so."""
    metrics = governed.operator.metrics  # type: ignore[attr-defined]
    before = metrics().value("tenure_enforcement_reverted_total", manager="Other")
    wide = {"blastRadius": {"window": "1s"}}
    govern(governed, place, {"contention": {"maxReverts": 2}, **wide}, revoke_after="1s")
    account(governed, place)
    uids = []
    for _ in range(3):
        uids.append(governed.apply(manifest(place), manager="sync-tool")["metadata"]["uid"])
        if len(uids) < 3:
            eventually(lambda: governed.get("secrets", "api-key", place) is None, what="deleted")

    def contended() -> str:
        found = finding_of(governed, place, "Unowned", "api-key")
        said = {c["type"]: c["message"] for c in found["status"]["conditions"]} if found else {}
        return said.get("Contended", "")

    said = eventually(contended, what="contended")
    assert "Secret/api-key" in said
    assert "2 times by sync-tool" in said
    found = finding_of(governed, place, "Unowned", "api-key")
    assert found is not None
    assert found["spec"]["subject"]["uid"] == uids[2]
    assert [act["verdict"] for act in found["status"]["acts"]] == ["Quarantine"], "nobody calls it revoked"
    stands = governed.get("secrets", "api-key", place)
    assert stands is not None
    assert stands["metadata"]["uid"] == uids[2]
    assert not runs(governed, place, "after"), "it stays withheld"
    told = [r for q in governed.list("quarantines", place) for r in q["status"].get("reverts", ())]
    assert [(r["object"], r["manager"], r["count"]) for r in told] == [("Secret/api-key", "sync-tool", 1)] * 2
    assert metrics().value("tenure_enforcement_reverted_total", manager="Other") == before + 2


def test_where_the_guards_do_not_look_nothing_is_claimed(governed: Cluster) -> None:
    """The one stage of another Secret is not to be had in a platform namespace, though a policy names it."""
    place = governed.namespace("kube-secrets")
    govern(governed, place, {"platformNamespaces": [place]})
    secret(governed, place)

    def reason() -> str:
        found = finding_of(governed, place, "Unowned", "api-key")
        said = {c["type"]: c["reason"] for c in found["status"]["conditions"]} if found else {}
        return said.get("Blocked", "")

    eventually(lambda: reason() == "PlatformNamespace", what="Blocked: PlatformNamespace")
    assert quarantine_of(governed, place, "api-key") is None
    governed.delete("governancepolicies", place)
    governed.delete_namespace(place)
