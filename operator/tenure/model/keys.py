"""Names of objects: what a dirty mark, a schedule entry and an index agree on."""

from __future__ import annotations

from typing import NamedTuple


class Key(NamedTuple):
    """kind is the API kind ("ServiceAccount", "Secret", "OwnedIdentity", …); namespace is "" for cluster-scoped."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        where = f"{self.namespace}/" if self.namespace else ""
        return f"{self.kind} {where}{self.name}"
