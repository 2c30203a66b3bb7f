"""The API resources Tenure reads or writes, each as group, version, plural and kind.

Nothing is discovered: the set is closed, and a missing one (a CRD that is not installed) is told apart
by the API server's 404 where it is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

GROUP = "tenure.dev"
VERSION = "v1alpha1"


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource of the API. group is "" for the core group."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool
    sensitive: bool = False
    """Its objects hold secret values: the client asks for metadata only unless told otherwise in so many words."""

    @property
    def api_version(self) -> str:
        """`v1`, `tenure.dev/v1alpha1`, as in an object's apiVersion."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """The plural as people write it in rights: `secrets`, `identityfindings.tenure.dev`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The URL path, quoted: of one object, or without name of the collection (of every namespace when
        namespace is ""). The namespace is left out for a cluster-scoped resource. Raises ValueError for a
        namespaced object without its namespace, which would otherwise address something else."""
        base = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        if self.namespaced and namespace:
            base = f"{base}/namespaces/{quote(namespace, safe='')}"
        elif self.namespaced and name:
            raise ValueError(f"{self.plural} {name}: no namespace given")
        path = f"{base}/{self.plural}"
        if name:
            path = f"{path}/{quote(name, safe=':')}"
            if subresource:
                path = f"{path}/{quote(subresource, safe='')}"
        return path


def _core(plural: str, kind: str, namespaced: bool = True, sensitive: bool = False) -> Resource:
    return Resource("", "v1", plural, kind, namespaced, sensitive)


def _rbac(plural: str, kind: str, namespaced: bool) -> Resource:
    return Resource("rbac.authorization.k8s.io", "v1", plural, kind, namespaced)


def _own(plural: str, kind: str, namespaced: bool = True) -> Resource:
    return Resource(GROUP, VERSION, plural, kind, namespaced)


NAMESPACES = _core("namespaces", "Namespace", namespaced=False)
SERVICE_ACCOUNTS = _core("serviceaccounts", "ServiceAccount")
SECRETS = _core("secrets", "Secret", sensitive=True)
PODS = _core("pods", "Pod")
CONFIG_MAPS = _core("configmaps", "ConfigMap")
EVENTS = _core("events", "Event")

ROLES = _rbac("roles", "Role", True)
CLUSTER_ROLES = _rbac("clusterroles", "ClusterRole", False)
ROLE_BINDINGS = _rbac("rolebindings", "RoleBinding", True)
CLUSTER_ROLE_BINDINGS = _rbac("clusterrolebindings", "ClusterRoleBinding", False)

INGRESSES = Resource("networking.k8s.io", "v1", "ingresses", "Ingress", True)
GATEWAYS = Resource("gateway.networking.k8s.io", "v1", "gateways", "Gateway", True)
"""Not of Kubernetes itself: many clusters do not serve it."""

IDENTITY_OWNERS = _own("identityowners", "IdentityOwner", namespaced=False)
OWNED_IDENTITIES = _own("ownedidentities", "OwnedIdentity")
IDENTITY_EXCEPTIONS = _own("identityexceptions", "IdentityException")
IDENTITY_DECISIONS = _own("identitydecisions", "IdentityDecision")
IDENTITY_FINDINGS = _own("identityfindings", "IdentityFinding")
QUARANTINES = _own("quarantines", "Quarantine")
QUARANTINE_GUARDS = _own("quarantineguards", "QuarantineGuard")
GOVERNANCE_POLICIES = _own("governancepolicies", "GovernancePolicy", namespaced=False)

OWN_RESOURCES = (
    IDENTITY_OWNERS,
    OWNED_IDENTITIES,
    IDENTITY_EXCEPTIONS,
    IDENTITY_DECISIONS,
    IDENTITY_FINDINGS,
    QUARANTINES,
    QUARANTINE_GUARDS,
    GOVERNANCE_POLICIES,
)
"""Tenure's own kinds."""

OBSERVED_RESOURCES = (
    NAMESPACES,
    SERVICE_ACCOUNTS,
    SECRETS,
    ROLES,
    CLUSTER_ROLES,
    ROLE_BINDINGS,
    CLUSTER_ROLE_BINDINGS,
    PODS,
)
"""What the inventory observes of others."""

TOKEN_REVIEWS = Resource("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", False)
SELF_SUBJECT_REVIEWS = Resource("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview", False)
SUBJECT_ACCESS_REVIEWS = Resource("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", False)
SELF_SUBJECT_ACCESS_REVIEWS = Resource(
    "authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", False
)
SELF_SUBJECT_RULES_REVIEWS = Resource(
    "authorization.k8s.io", "v1", "selfsubjectrulesreviews", "SelfSubjectRulesReview", False
)
CUSTOM_RESOURCE_DEFINITIONS = Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", False
)
_ADMISSION = "admissionregistration.k8s.io"
VALIDATING_ADMISSION_POLICIES = Resource(
    _ADMISSION, "v1", "validatingadmissionpolicies", "ValidatingAdmissionPolicy", False
)
VALIDATING_ADMISSION_POLICY_BINDINGS = Resource(
    _ADMISSION, "v1", "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding", False
)
MUTATING_ADMISSION_POLICIES = Resource(_ADMISSION, "v1", "mutatingadmissionpolicies", "MutatingAdmissionPolicy", False)
MUTATING_ADMISSION_POLICY_BINDINGS = Resource(
    _ADMISSION, "v1", "mutatingadmissionpolicybindings", "MutatingAdmissionPolicyBinding", False
)

BY_KIND = {resource.kind: resource for resource in (*OBSERVED_RESOURCES, *OWN_RESOURCES)}
