"""Paths of resources."""

from __future__ import annotations

import pytest

from tenure.kube import resources as r


@pytest.mark.parametrize(
    ("resource", "arguments", "path"),
    [
        (r.SECRETS, (), "/api/v1/secrets"),
        (r.SECRETS, ("payments",), "/api/v1/namespaces/payments/secrets"),
        (r.SECRETS, ("payments", "ci"), "/api/v1/namespaces/payments/secrets/ci"),
        (r.NAMESPACES, ("", "payments"), "/api/v1/namespaces/payments"),
        (r.SERVICE_ACCOUNTS, ("a", "b", "token"), "/api/v1/namespaces/a/serviceaccounts/b/token"),
        (
            r.CLUSTER_ROLES,
            ("", "system:node"),
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node",
        ),
        (r.ROLES, ("a", "b/../c"), "/apis/rbac.authorization.k8s.io/v1/namespaces/a/roles/b%2F..%2Fc"),
        (
            r.IDENTITY_EXCEPTIONS,
            ("a", "b", "status"),
            "/apis/tenure.dev/v1alpha1/namespaces/a/identityexceptions/b/status",
        ),
        (r.GOVERNANCE_POLICIES, ("ignored", "default"), "/apis/tenure.dev/v1alpha1/governancepolicies/default"),
    ],
)
def test_paths(resource: r.Resource, arguments: tuple[str, ...], path: str) -> None:
    assert resource.path(*arguments) == path


def test_a_namespaced_object_without_its_namespace_has_no_path() -> None:
    with pytest.raises(ValueError, match="no namespace"):
        r.SECRETS.path("", "ci")


def test_only_secrets_are_sensitive() -> None:
    assert [resource.kind for resource in r.BY_KIND.values() if resource.sensitive] == ["Secret"]


def test_names_for_rights() -> None:
    assert r.SECRETS.qualified == "secrets"
    assert r.IDENTITY_FINDINGS.qualified == "identityfindings.tenure.dev"
    assert r.IDENTITY_FINDINGS.api_version == "tenure.dev/v1alpha1"
