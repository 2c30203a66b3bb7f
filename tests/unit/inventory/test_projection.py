"""Raw objects to records."""

from __future__ import annotations

import copy
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from tenure.api.finding import IdentityFindingStatus
from tenure.decide.lever import commit, lever
from tenure.inventory import projection
from tenure.inventory.projection import LAST_APPLIED, PROJECTIONS
from tenure.model.records import Authored, ManagedBy, Subject, Unprocessable
from tenure.telemetry.metrics import MANAGERS

Raw = dict[str, Any]
T1, T2, T3 = "2026-11-01T08:00:00Z", "2026-11-02T08:00:00Z", "2026-11-03T08:00:00Z"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def meta(name: str = "a", namespace: str = "ns", **more: Any) -> Raw:
    return {"name": name, "namespace": namespace, "uid": "u-1", "creationTimestamp": T1, **more}


def wrote(manager: str, time: str, subresource: str = "", **fields: Any) -> Raw:
    entry = {"manager": manager, "time": time, "fieldsV1": {f"f:{field}": value for field, value in fields.items()}}
    return {**entry, "subresource": subresource} if subresource else entry


# --- observed kinds -------------------------------------------------------------------------------------------------


def test_the_resource_version_is_kept_and_no_part_of_equality() -> None:
    for kind in ("Namespace", "ServiceAccount", "Secret", "RoleBinding", "Role"):
        first = PROJECTIONS[kind]({"metadata": meta(resourceVersion="7")})
        second = PROJECTIONS[kind]({"metadata": meta(resourceVersion="8")})
        assert (first.resource_version, second.resource_version) == (7, 8)
        assert first == second
        assert PROJECTIONS[kind]({"metadata": meta(resourceVersion="odd")}).resource_version == 0


def test_a_namespace() -> None:
    raw = {"metadata": {"name": "payments", "uid": "u", "creationTimestamp": T1, "labels": {"b": "2", "a": "1"}}}
    record = PROJECTIONS["Namespace"](raw)
    assert (record.name, record.uid, record.created, record.deleting) == ("payments", "u", at(T1), False)
    assert record.labels == (("a", "1"), ("b", "2"))
    assert PROJECTIONS["Namespace"]({"metadata": {**raw["metadata"], "deletionTimestamp": T2}}).deleting


@pytest.mark.parametrize(
    "key", ["eks.amazonaws.com/role-arn", "iam.gke.io/gcp-service-account", "azure.workload.identity/client-id"]
)
def test_a_service_account_with_a_cloud_role(key: str) -> None:
    record = PROJECTIONS["ServiceAccount"]({"metadata": meta(annotations={key: "x", "other": "y"})})
    assert record.cloud_role == key
    assert PROJECTIONS["ServiceAccount"]({"metadata": meta()}).cloud_role == ""


def test_a_secret_without_its_values() -> None:
    raw = {
        "type": "Opaque",
        "metadata": meta(
            labels={"kubernetes.io/legacy-token-last-used": "2026-11-20"},
            managedFields=[
                wrote("helm", T1, data={".": {}, "f:password": {}, "f:user": {}}, type={}),
                wrote("rotator", T2, data={"f:password": {}}),
                wrote("labeller", T3, metadata={"f:labels": {}}),
            ],
        ),
    }
    record = PROJECTIONS["Secret"](raw)
    assert record.keys == ("password", "user")
    assert (record.data_changed, record.data_writer, record.rotated) == (at(T2), "rotator", at(T2))
    assert record.last_used == "2026-11-20"
    assert record.invalid_since == ""


def test_string_data_given_by_server_side_apply_is_data() -> None:
    entry = wrote("argocd", T2, data={"f:o": {}}, stringData={"f:kk": {}})
    record = PROJECTIONS["Secret"]({"metadata": meta(managedFields=[entry])})
    assert record.keys == ("kk", "o")
    assert record.data_changed == at(T2)


def test_a_status_writer_is_no_data_writer() -> None:
    entry = wrote("odd", T2, subresource="status", data={"f:a": {}})
    assert PROJECTIONS["Secret"]({"metadata": meta(managedFields=[entry])}).data_changed is None


def test_a_token_secret_names_its_identity() -> None:
    annotations = {"kubernetes.io/service-account.name": "ci", "kubernetes.io/service-account.uid": "u-9"}
    token = {"type": "kubernetes.io/service-account-token", "metadata": meta(annotations=dict(annotations))}
    record = PROJECTIONS["Secret"](token)
    assert (record.service_account, record.service_account_uid) == ("ci", "u-9")
    opaque = PROJECTIONS["Secret"]({"type": "Opaque", "metadata": meta(annotations=dict(annotations))})
    assert opaque.service_account == ""


def test_a_token_that_was_switched_off() -> None:
    labels = {"kubernetes.io/legacy-token-invalid-since": "2026-11-21"}
    assert PROJECTIONS["Secret"]({"metadata": meta(labels=labels)}).invalid_since == "2026-11-21"


@pytest.mark.parametrize(
    ("annotations", "end"),
    [
        ({"auth.openshift.io/certificate-not-after": "2027-03-16T05:08:42Z"}, "2027-03-16T05:08:42+00:00"),
        ({"service.beta.openshift.io/expiry": "2027-03-16T07:08:42+02:00"}, "2027-03-16T05:08:42+00:00"),
        (
            {
                "service.beta.openshift.io/expiry": "soon",
                "service.alpha.openshift.io/expiry": "2027-03-16T05:08:42Z",
            },
            "2027-03-16T05:08:42+00:00",
        ),
        ({"service.beta.openshift.io/expiry": "2027-03-16T05:08:42"}, None),  # of which zone?
        ({"service.beta.openshift.io/expiry": "0001-01-01T00:00:00+14:00"}, None),
        ({"cert-manager.io/certificate-name": "web"}, None),
        ({}, None),
    ],
)
def test_a_credentials_own_end_is_what_its_issuer_annotated(annotations: dict[str, str], end: str | None) -> None:
    record = PROJECTIONS["Secret"]({"type": "kubernetes.io/tls", "metadata": meta(annotations=annotations)})
    assert (record.expires.isoformat() if record.expires else None) == end


def test_a_manifest_gives_its_key_names_and_nothing_else() -> None:
    canary = "c2VjcmV0"
    manifest = {"kind": "Secret", "metadata": {"name": "a"}, "data": {"b": canary}, "stringData": {"a": canary}}
    record = PROJECTIONS["Secret"](manifest)
    assert record.keys == ("a", "b")
    assert record.type == "Opaque"
    assert canary not in repr(record)


@pytest.mark.parametrize("kind", sorted(PROJECTIONS))
def test_last_applied_configuration_is_dropped_first(kind: str) -> None:
    raw: Raw = {"metadata": meta(annotations={LAST_APPLIED: "s3cr3t", "keep": "this"})}
    record = PROJECTIONS[kind](raw)
    assert raw["metadata"]["annotations"] == {"keep": "this"}
    assert "s3cr3t" not in repr(record)


def test_a_binding() -> None:
    raw = {
        "metadata": meta(labels={"kubernetes.io/bootstrapping": "rbac-defaults"}),
        "roleRef": {"kind": "ClusterRole", "name": "edit"},
        "subjects": [
            {"kind": "ServiceAccount", "name": "here"},
            {"kind": "ServiceAccount", "name": "ci", "namespace": "other"},
            {"kind": "User", "name": "system:serviceaccount:ns:x", "apiGroup": "rbac.authorization.k8s.io"},
            {"kind": "Group", "name": "system:authenticated"},
        ],
    }
    record = PROJECTIONS["RoleBinding"](raw)
    assert record.subjects == (
        Subject("ServiceAccount", "ns", "here"),
        Subject("ServiceAccount", "other", "ci"),
        Subject("User", "", "system:serviceaccount:ns:x"),
        Subject("Group", "", "system:authenticated"),
    )
    assert (record.role_kind, record.role_name, record.bootstrap) == ("ClusterRole", "edit", True)
    cluster = PROJECTIONS["ClusterRoleBinding"]({"metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole"}})
    assert (cluster.namespace, cluster.subjects, cluster.bootstrap) == ("", (), False)


def test_a_role_is_graded_and_its_rules_are_dropped() -> None:
    raw = {"metadata": meta(), "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]}]}
    record = PROJECTIONS["Role"](raw)
    assert [found.row for found in record.grades] == ["R07"]
    assert PROJECTIONS["ClusterRole"]({"metadata": {"name": "r"}, "rules": None}).grades == ()


def test_every_way_a_pod_can_name_a_secret() -> None:
    def container(n: int) -> Raw:
        return {
            "envFrom": [{"secretRef": {"name": f"from{n}"}}, {"configMapRef": {"name": "no"}}],
            "env": [
                {"name": "A", "valueFrom": {"secretKeyRef": {"name": f"key{n}", "key": "k"}}},
                {"name": "B", "value": "no"},
                {"name": "C", "valueFrom": {"fieldRef": {"fieldPath": "x"}}},
            ],
        }

    raw = {
        "metadata": meta(),
        "spec": {
            "serviceAccountName": "ci",
            "imagePullSecrets": [{"name": "pull"}, {}],
            "containers": [container(1), {}],
            "initContainers": [container(2)],
            "ephemeralContainers": [container(3)],
            "volumes": [
                {"name": "v1", "secret": {"secretName": "volume"}},
                {"name": "v2", "projected": {"sources": [{"secret": {"name": "projected"}}, {"configMap": {}}]}},
                {"name": "v3", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "csi"}}},
                {"name": "v4", "azureFile": {"secretName": "azure"}},
                {"name": "v5", "cephfs": {"secretRef": {"name": "ceph"}}},
                {"name": "v6", "emptyDir": {}},
                {"name": "v7", "configMap": {"name": "no"}},
            ],
        },
        "status": {"phase": "Running"},
    }
    record = PROJECTIONS["Pod"](raw)
    named = {"pull", "volume", "projected", "csi", "azure", "ceph"}
    assert set(record.secrets) == named | {f"{way}{n}" for way in ("from", "key") for n in (1, 2, 3)}
    assert list(record.secrets) == sorted(record.secrets)
    assert (record.service_account, record.finished) == ("ci", False)


@pytest.mark.parametrize(
    ("spec", "account"),
    [
        ({}, "default"),
        ({"serviceAccount": "old"}, "old"),
        ({"serviceAccountName": "new", "serviceAccount": "x"}, "new"),
    ],
)
def test_a_pods_account(spec: Raw, account: str) -> None:
    assert PROJECTIONS["Pod"]({"metadata": meta(), "spec": spec}).service_account == account


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_finished_pod(phase: str) -> None:
    assert PROJECTIONS["Pod"]({"metadata": meta(), "status": {"phase": phase}}).finished


# --- who writes it back ---------------------------------------------------------------------------------------------

TRACKING = "argocd.argoproj.io/tracking-id"
HELM = {"meta.helm.sh/release-name": "web", "meta.helm.sh/release-namespace": "apps"}
CERTIFICATE = {"cert-manager.io/certificate-name": "tls"}


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({}, None),
        ({"labels": {"app": "x"}, "annotations": {"a": "b"}}, None),
        ({"annotations": HELM}, ManagedBy("Helm", "apps/web")),
        ({"labels": {"app.kubernetes.io/managed-by": "Helm"}}, ManagedBy("Helm", "")),
        (
            {"name": "sh.helm.release.v1.web.v3", "labels": {"owner": "helm", "name": "web"}},
            ManagedBy("Helm", "ns/web"),
        ),
        ({"annotations": {TRACKING: "shop:/Secret:ns/a"}}, ManagedBy("ArgoCD", "shop")),
        ({"labels": {"argocd.argoproj.io/instance": "shop"}}, ManagedBy("ArgoCD", "shop")),
        (
            {"labels": {"kustomize.toolkit.fluxcd.io/name": "apps", "kustomize.toolkit.fluxcd.io/namespace": "flux"}},
            ManagedBy("Flux", "flux/apps", "Kustomization"),
        ),
        (
            {
                "labels": {"helm.toolkit.fluxcd.io/name": "web", "helm.toolkit.fluxcd.io/namespace": "flux"},
                "annotations": HELM,
            },
            ManagedBy("Flux", "flux/web", "HelmRelease"),
        ),
        ({"annotations": CERTIFICATE}, ManagedBy("CertManager", "ns/tls")),
        ({"labels": {"controller.cert-manager.io/fao": "true"}}, ManagedBy("CertManager", "")),
        ({"annotations": {**CERTIFICATE, TRACKING: "shop:/Secret:ns/a"}}, ManagedBy("CertManager", "ns/tls")),
        ({"ownerReferences": [{"kind": "ExternalSecret", "name": "es"}]}, ManagedBy("ExternalSecrets", "ns/es")),
        ({"labels": {"reconcile.external-secrets.io/managed": "true"}}, ManagedBy("ExternalSecrets", "")),
        ({"ownerReferences": [{"kind": "SealedSecret", "name": "a"}]}, ManagedBy("SealedSecrets", "ns/a")),
        ({"annotations": {"sealedsecrets.bitnami.com/managed": "true"}}, ManagedBy("SealedSecrets", "ns/a")),
        (
            {
                "labels": {"secrets.hashicorp.com/vso-ownerRefUID": "u"},
                "ownerReferences": [
                    {"apiVersion": "secrets.hashicorp.com/v1beta1", "kind": "VaultStaticSecret", "name": "vss"}
                ],
            },
            ManagedBy("VaultSecretsOperator", "ns/vss", "VaultStaticSecret"),
        ),
        ({"labels": {"app.kubernetes.io/managed-by": "hashicorp-vso"}}, ManagedBy("VaultSecretsOperator", "")),
        ({"labels": {"secrets-store.csi.k8s.io/managed": "true"}}, ManagedBy("SecretsStoreCSI", "")),
        ({"ownerReferences": [{"kind": "ReplicaSet", "name": "x"}]}, None),
        (
            {"ownerReferences": [{"kind": "Postgres", "name": "db", "controller": True}]},
            ManagedBy("Controller", "ns/db", "Postgres"),
        ),
        ({"managedFields": [{"manager": "kubectl-edit"}, {"manager": "argocd-controller"}]}, ManagedBy("ArgoCD", "")),
        ({"managedFields": [{"manager": "kustomize-controller"}]}, ManagedBy("Flux", "", "Kustomization")),
    ],
)
def test_managers(metadata: Raw, expected: ManagedBy | None) -> None:
    assert projection.managed_by(copy.deepcopy({**meta(), **metadata})) == expected
    if expected is not None:  # each is counted by its name, and has a change that lasts
        assert expected.manager in MANAGERS
        assert lever(expected)
        assert commit("x", expected, "").startswith("Commit to the ") or expected.manager == "Controller"


def test_a_token_is_filled_by_the_token_controller_unless_somebody_applies_it() -> None:
    def token(**metadata: Any) -> ManagedBy | None:
        given = {**meta(), "annotations": {"kubernetes.io/service-account.name": "ci", **metadata}}
        return projection.secret({"type": "kubernetes.io/service-account-token", "metadata": given}).managed_by

    filled = token()
    assert filled == ManagedBy("TokenController", "ns/ci")
    assert filled.manager in MANAGERS
    assert lever(filled)
    assert token(**HELM) == ManagedBy("Helm", "apps/web")


# --- sharing --------------------------------------------------------------------------------------------------------


def test_what_repeats_is_one_object() -> None:
    def one(n: int) -> Raw:
        return {
            "type": "".join(["Opa", "que"]),
            "metadata": meta(
                f"s{n}",
                "".join(["n", "s"]),
                labels={"a": "".join(["x", "y"])},
                annotations=dict(HELM),
                managedFields=[wrote("helm", "".join(T1), data={"f:k": {}})],
            ),
        }

    first, second = PROJECTIONS["Secret"](one(1)), PROJECTIONS["Secret"](one(2))
    for field in ("namespace", "type", "labels", "keys", "data_writer", "managed_by", "created", "data_changed"):
        assert getattr(first, field) is getattr(second, field), field


@pytest.mark.parametrize("text", ["2026-11-01T08:00:00Z", "2026-11-01T09:00:00+01:00", "2026-11-01T08:00:00.000000Z"])
def test_instants_are_utc(text: str) -> None:
    parsed = projection.instant(text)
    assert parsed == at(T1)
    assert parsed.tzinfo is UTC


# --- our own kinds --------------------------------------------------------------------------------------------------

CLAIM: Raw = {"owner": "payments", "purpose": "p", "subjects": {"selector": {}}}
FINDING: Raw = {
    "spec": {"rule": "Unowned", "subject": {"kind": "ServiceAccount", "namespace": "ns", "name": "ci", "uid": "u"}},
    "status": {"phase": "Open", "risk": {"level": "High"}, "detected": T1, "opened": T1},
}


def own(**more: Any) -> Raw:
    return meta(generation=3, resourceVersion="77", **more)


def test_a_claim() -> None:
    raw = {
        "metadata": own(
            finalizers=["x/y"],
            deletionTimestamp=T3,
            managedFields=[
                wrote("kubectl", T1, spec={"f:owner": {}}),
                wrote("argocd", T2, spec={"f:purpose": {}}),
                wrote("tenure", T3, subresource="status", status={}),
                wrote("labeller", T3, metadata={}),
            ],
        ),
        "spec": CLAIM,
        "status": {"observedGeneration": 2, "unheardOf": {"a": 1}},
    }
    record = PROJECTIONS["OwnedIdentity"](raw)
    assert isinstance(record, Authored)
    assert (record.kind, record.generation, record.resource_version) == ("OwnedIdentity", 3, "77")
    assert record.spec.owner == "payments"
    assert record.status is not None
    assert record.status.observed_generation == 2
    assert (record.spec_changed, record.deletion, record.finalizers) == (at(T2), at(T3), ("x/y",))


def test_no_spec_is_older_than_its_object() -> None:
    """Anybody who may write it may write its managedFields."""
    forged = [wrote("kubectl", "2001-01-01T00:00:00Z", spec={"f:owner": {}})]
    record = PROJECTIONS["OwnedIdentity"]({"metadata": own(managedFields=forged), "spec": CLAIM})
    assert isinstance(record, Authored)
    assert record.spec_changed == record.created


@pytest.mark.parametrize(
    ("spec", "where"),
    [
        (None, "spec.owner"),
        ({**CLAIM, "exclude": ["x"]}, "spec.exclude"),
        ({**CLAIM, "owner": 7}, "spec.owner"),
        ({**CLAIM, "subjects": {"selector": {"matchLabels": {"a": "s3cr3t" * 20}}}}, "spec.subjects"),
    ],
)
def test_a_claim_that_this_version_cannot_read(spec: Raw | None, where: str) -> None:
    record = PROJECTIONS["OwnedIdentity"]({"metadata": own(), "spec": spec})
    assert isinstance(record, Unprocessable)
    assert (record.kind, record.namespace, record.name, record.uid) == ("OwnedIdentity", "ns", "a", "u-1")
    assert record.error.startswith(where)
    assert "s3cr3t" not in record.error


def test_a_claims_unreadable_status_is_none() -> None:
    record = PROJECTIONS["OwnedIdentity"]({"metadata": own(), "spec": CLAIM, "status": {"observedGeneration": "x"}})
    assert isinstance(record, Authored)
    assert record.status is None


def test_a_finding_of_a_newer_version_is_read_without_what_is_unknown() -> None:
    raw = copy.deepcopy({"metadata": own(), **FINDING})
    raw["spec"]["novel"] = 1
    raw["spec"]["subject"]["novel"] = {"deep": [1]}
    raw["status"]["acts"] = [{"verdict": "Quarantine", "novel": 1}]
    record = PROJECTIONS["IdentityFinding"](raw)
    assert isinstance(record, Authored)
    assert record.spec.subject.name == "ci"
    assert record.status.acts[0].verdict == "Quarantine"
    assert raw["spec"]["novel"] == 1  # the raw object was not touched


def test_a_finding_whose_clock_cannot_be_read_is_not_taken_for_one_without() -> None:
    raw = {"metadata": own(), "spec": FINDING["spec"], "status": {**FINDING["status"], "detected": "yesterday"}}
    record = PROJECTIONS["IdentityFinding"](raw)
    assert isinstance(record, Unprocessable)
    assert record.error.startswith("status.detected")


def test_compact_models_behave_like_the_parsed_ones() -> None:
    parsed = IdentityFindingStatus.read(FINDING["status"])
    record = PROJECTIONS["IdentityFinding"]({"metadata": own(), **copy.deepcopy(FINDING)})
    compact = record.status
    assert compact == parsed
    assert compact.wire() == parsed.wire()
    assert compact.model_dump(exclude_unset=True) == parsed.model_dump(exclude_unset=True)
    changed = compact.model_copy(update={"message": "new"})
    assert changed.model_fields_set == parsed.model_fields_set | {"message"}
    assert compact.model_fields_set == parsed.model_fields_set
    twin = PROJECTIONS["IdentityFinding"]({"metadata": own(), **copy.deepcopy(FINDING)}).status
    assert twin.detected is compact.detected


def test_every_kind_of_the_inventory_has_a_projection() -> None:
    from tenure.inventory.sources import RESOURCES

    assert {resource.kind for resource in RESOURCES} == set(PROJECTIONS)


def test_a_findings_models_name_their_attributes_once_for_the_class() -> None:
    """Also where many were made before the first that is kept: each of those would leave less room for the names."""
    for _ in range(50):
        IdentityFindingStatus.read(FINDING["status"])
    status = PROJECTIONS["IdentityFinding"]({"metadata": own(), **copy.deepcopy(FINDING)}).status
    assert sys.getsizeof(status.__dict__) < sys.getsizeof(dict(status.__dict__)) / 2
    assert status == IdentityFindingStatus.read(FINDING["status"])
