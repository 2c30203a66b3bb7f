"""`examples/` as the demo applies it: the same objects, days as seconds and, on somebody's cluster, other names."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from tests.support.cluster import REPOSITORY

Json = dict[str, Any]

FOLDER = REPOSITORY / "examples"
NAMESPACE, PAYMENTS, PLATFORM = "shop", "payments", "platform"
GROUP = "system:serviceaccounts:"

DECIDE_WITHIN = 20
REVOKE_AFTER = 30
"""Seconds. After the deadline the token gets its 401 within 10 s (the API server's cache) and is then claimed: that has
to happen before `revokeAfter` is over, on a busy machine too."""


@dataclass(frozen=True)
class Names:
    """What the namespace (and the policy, which is for it alone) and the owners are called."""

    namespace: str = NAMESPACE
    payments: str = PAYMENTS
    platform: str = PLATFORM
    labels: Mapping[str, str] = field(default_factory=dict)
    """Put on what is cluster-scoped, so that whatever stays behind can be found."""

    @classmethod
    def own(cls, suffix: str) -> Names:
        """Names that nobody else uses, for a cluster that is not ours."""
        name = f"tenure-demo-{suffix}"
        return cls(name, f"{PAYMENTS}-{name}", f"{PLATFORM}-{name}", {"tenure.dev/demo": suffix})


def read(path: Path, names: Names) -> list[Json]:
    """The objects of one file, under these names."""
    translated = {NAMESPACE: names.namespace, PAYMENTS: names.payments, PLATFORM: names.platform}
    translated[f"{GROUP}{NAMESPACE}"] = f"{GROUP}{names.namespace}"
    manifests: list[Json] = [_translate(document, translated) for document in yaml.safe_load_all(path.read_text())]
    for manifest in manifests:
        if names.labels and "namespace" not in manifest["metadata"]:
            manifest["metadata"].setdefault("labels", {}).update(names.labels)
    return manifests


def _translate(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _translate(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_translate(item, names) for item in value]
    return names.get(value, value) if isinstance(value, str) else value


def a_month_from_now(exception: Json) -> Json:
    """The waiver with an end that is near enough on whatever day the demo runs."""
    end = (datetime.now(UTC) + timedelta(days=30)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {**exception, "spec": {**exception["spec"], "expiresAt": end}}


def in_seconds(policy: Json) -> Json:
    """The policy with days as seconds, and with room for every act of a namespace as small as this one."""
    shortened = copy.deepcopy(policy)
    spec = shortened["spec"]
    spec["adoptionGrace"] = "0s"
    for entry in spec["deadlines"]:
        if entry["onDeadline"] != "Nothing":
            entry |= {"decideWithin": f"{DECIDE_WITHIN}s", "revokeAfter": f"{REVOKE_AFTER}s", "holdAfterUse": "0s"}
    spec["blastRadius"] |= {"maxPercentPerNamespace": 100}
    return shortened
