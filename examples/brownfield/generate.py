"""Prints the thousands of an old cluster as a YAML stream, always the same: what teams left behind in ten years.

    python3 examples/brownfield/generate.py | kubectl apply --server-side -f -

Of a namespace's ServiceAccounts every tenth is bound to something, every fifteenth has a token that never expires, and
with every twelfth comes a Secret whose keys are called like credentials. Its values are empty.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]

NAMESPACES = (
    "payments",
    "checkout",
    "storefront",
    "search",
    "recommendations",
    "billing",
    "crm",
    "reports",
    "data-lake",
    "ci",
    "sandbox",
)
"""They and their labels stand in cluster.yaml."""
ACCOUNTS = 240
"""ServiceAccounts in each of them: 2,640 in all."""
PARTS = ("api", "worker", "cron", "migrate", "import", "export", "sync", "report")
ROLES = ("view", "edit", "view", "view")
KEYS = ({"DB_PASSWORD": ""}, {"api-key": ""}, {"username": "", "password": ""}, {"clientSecret": "", "client-id": ""})
TOKEN = "kubernetes.io/service-account-token"


def name(number: int) -> str:
    """Such as app-2017-03-worker: nobody remembers what came of the third application of 2017."""
    application, part = divmod(number, len(PARTS))
    return f"app-{2015 + application % 10}-{application // 10 + 1:02d}-{PARTS[part]}"


def metadata(namespace: str, called: str, number: int, **annotations: str) -> Json:
    """A third of it came with Helm, the rest by hand."""
    found: Json = {"name": called, "namespace": namespace}
    if number // len(PARTS) % 3 == 0:
        release = name(number).rpartition("-")[0]
        found["labels"] = {"app.kubernetes.io/managed-by": "Helm", "app.kubernetes.io/instance": release}
        annotations |= {"meta.helm.sh/release-name": release, "meta.helm.sh/release-namespace": namespace}
    if annotations:
        found["annotations"] = annotations
    return found


def namespace_of(namespace: str, accounts: int) -> Iterator[Json]:
    """What one team left behind."""
    for number in range(accounts):
        account = name(number)
        yield {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(namespace, account, number)}
        if number % 15 == 0:
            about = metadata(namespace, f"{account}-token", number, **{"kubernetes.io/service-account.name": account})
            yield {"apiVersion": "v1", "kind": "Secret", "type": TOKEN, "metadata": about}
        if number % 12 == 0:
            about = metadata(namespace, f"{account}-settings", number)
            yield {"apiVersion": "v1", "kind": "Secret", "metadata": about, "data": KEYS[number // 12 % len(KEYS)]}
        if number % 10 == 0:
            role = ROLES[number // 10 % len(ROLES)]
            yield {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "RoleBinding",
                "metadata": metadata(namespace, f"{account}-{role}", number),
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
                "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accounts", type=int, default=ACCOUNTS, help="in each namespace (%(default)s)")
    accounts = parser.parse_args().accounts
    for namespace in NAMESPACES:
        for manifest in namespace_of(namespace, accounts):
            sys.stdout.write(f"---\n{json.dumps(manifest)}\n")


if __name__ == "__main__":
    main()
