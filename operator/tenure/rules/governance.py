"""Which policy governs a namespace: the highest precedence that matches wins whole, two equal ones govern nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

from tenure.api.policy import GovernancePolicySpec
from tenure.model.evaluation import Governance, Policy
from tenure.model.records import Labels

DEFAULTS: Final = GovernancePolicySpec()
"""The documented defaults: what holds without a policy, and while two of equal precedence conflict."""


class Installation(Protocol):
    """The part of the settings that evaluation needs (tenure.settings.Settings is one)."""

    @property
    def operator_namespace(self) -> str: ...

    @property
    def platform_namespaces(self) -> tuple[str, ...]: ...


def is_platform(namespace: str, installation: Installation) -> bool:
    """kube-*, what the installation lists, and Tenure's own namespace: graded apart."""
    return (
        namespace.startswith("kube-")
        or namespace == installation.operator_namespace
        or namespace in installation.platform_namespaces
    )


def terms_of(governance: Governance) -> GovernancePolicySpec:
    """The spec in force: the policy's, or the documented defaults."""
    return governance.policy.spec if governance.policy is not None else DEFAULTS


def govern(
    namespace: str,
    labels: Labels,
    policies: Iterable[Policy],
    installation: Installation,
    unreadable: tuple[str, ...] = (),
) -> Governance:
    """The namespace's governance. `unreadable` is passed through. Tenure's own namespace is never governed,
    whatever a policy names: its decisions would be about itself."""
    platform = is_platform(namespace, installation)
    if namespace == installation.operator_namespace:
        return Governance(platform=True, own=True, unreadable=unreadable)
    pairs = dict(labels)
    matching = [policy for policy in policies if _applies(policy.spec, namespace, pairs, platform)]
    if not matching:
        return Governance(platform=platform, unreadable=unreadable)
    highest = max(policy.spec.precedence for policy in matching)
    winners = sorted((policy for policy in matching if policy.spec.precedence == highest), key=lambda found: found.name)
    if len(winners) > 1:
        return Governance(
            conflict=tuple(policy.name for policy in winners),
            platform=platform,
            platform_named=platform,
            unreadable=unreadable,
        )
    spec = winners[0].spec
    return Governance(
        policy=winners[0],
        enforcing=spec.enforce_in is not None and spec.enforce_in.matches(pairs),
        platform=platform,
        platform_named=platform,
        unreadable=unreadable,
    )


def _applies(spec: GovernancePolicySpec, namespace: str, labels: dict[str, str], platform: bool) -> bool:
    if platform:
        # A policy matches a platform namespace by its literal name alone, so every one that matches has named it.
        return namespace in spec.platform_namespaces
    return spec.namespace_selector is None or spec.namespace_selector.matches(labels)
