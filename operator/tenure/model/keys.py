"""Names of objects: what a dirty mark, a schedule entry and an index agree on."""

from __future__ import annotations

from typing import NamedTuple


class Key(NamedTuple):
    """kind is the API kind ("ServiceAccount", "Secret", "OwnedIdentity", …); namespace is "" for cluster-scoped."""

    kind: str
    namespace: str
    name: str
    part: str = ""
    """Which entitlement of a binding is meant (see tenure.inventory.entitlements), "" for what is an object of its own.
    The namespace of a ClusterRoleBinding's is the operator's, where its findings and Quarantines are."""

    @property
    def form(self) -> str:
        """Of an entitlement the subject that is bound, as `ServiceAccount:payments:ci`; else ""."""
        return self.part.split("/", 2)[-1]

    def __str__(self) -> str:
        where = f"{self.namespace}/" if self.namespace and self.kind != "ClusterRoleBinding" else ""
        return f"{self.kind} {where}{self.name}{f' of {self.form}' if self.part else ''}"
