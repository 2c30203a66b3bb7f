"""The admission policies that enforcement rests on, as they ship: generated from deploy/ into policies.json, which goes
with the program, so that a running operator can tell whether the cluster's are still those."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Final

import yaml

from tenure.api.names import OPERATOR_NAMESPACE, Stage

FILE: Final = "policies.json"
_DEPLOY: Final = Path(__file__).resolve().parents[3] / "deploy"
_SOURCES: Final = (
    "20-limit-operator.yaml",
    "22-own-quarantines.yaml",
    "30-guard-tokens.yaml",
    "31-guard-pods.yaml",
    "32-guard-secrets.yaml",
    "33-guard-bindings.yaml",
    "50-own-kinds.yaml",
    "deny-writes.yaml",
    "entitlements-limits.yaml",
)
_OF_STAGE: Final[Mapping[str, Stage]] = {
    "tenure-guard-tokens": Stage.GUARD,
    "tenure-guard-pods": Stage.GUARD,
    "tenure-guard-bindings": Stage.GUARD,
    "tenure-guard-secrets": Stage.DISABLE_TOKENS,
    "tenure-deny-writes": Stage.DENY_WRITES,
    "tenure-limit-entitlements": Stage.REMOVE_ENTITLEMENTS,
    "tenure-own-removed-subjects": Stage.REMOVE_ENTITLEMENTS,
}
"""The stage that a policy carries; what is not listed holds the operator or its records: every stage rests on it."""

_DEFAULTS: Final[tuple[object, ...]] = ({}, "*", None, [])
"""What the API server adds to a specification by itself."""


@lru_cache
def shipped(home: str = OPERATOR_NAMESPACE) -> Mapping[str, Any]:
    """`kind/name` -> specification, of each policy and binding as it is installed with the operator in `home`."""
    text = resources.files(__package__).joinpath(FILE).read_text()
    loaded: Mapping[str, Any] = json.loads(text.replace(OPERATOR_NAMESPACE, home))
    return loaded


def stages_of(name: str) -> tuple[Stage, ...]:
    """The stages that are not effective without the policy, or its binding, of this name."""
    first = name.partition("/")[2]
    for policy, stage in _OF_STAGE.items():
        if first == policy or first.startswith(f"{policy}-"):
            # A token's label stays on by the guard on Secrets, which also refuses new ones: both stages rest on it.
            return (Stage.GUARD, Stage.DISABLE_TOKENS) if stage is Stage.DISABLE_TOKENS else (stage,)
    return tuple(Stage)


def is_as_shipped(found: Any, wanted: Any) -> bool:
    """Whether a specification in the cluster is the one that ships, but for what the API server fills in."""
    if isinstance(wanted, dict):
        if not isinstance(found, dict) or any(key not in found for key in wanted):
            return False
        added = [value for key, value in found.items() if key not in wanted]
        return all(value in _DEFAULTS for value in added) and all(is_as_shipped(found[k], wanted[k]) for k in wanted)
    if isinstance(wanted, list):
        return isinstance(found, list) and len(found) == len(wanted) and all(map(is_as_shipped, found, wanted))
    return bool(found == wanted)


def but_for(platform: Collection[str], found: Any) -> Any:
    """A policy's specification as it would be if no platform namespace of this installation were rendered into it: the
    guards on pods, tokens and Secrets skip them, where chart or install.sh list them; kube-* they skip anyway."""
    constraints = found.get("matchConstraints") or {}
    selector = constraints.get("namespaceSelector") or {}
    if not platform or not selector.get("matchExpressions"):
        return found
    expressions = [
        {**one, "values": [name for name in one["values"] if name not in platform or name.startswith("kube-")]}
        if _skips(one)
        else one
        for one in selector["matchExpressions"]
    ]
    narrowed = {**constraints, "namespaceSelector": {**selector, "matchExpressions": expressions}}
    return {**found, "matchConstraints": narrowed}


def _skips(expression: Mapping[str, Any]) -> bool:
    return expression.get("key") == "kubernetes.io/metadata.name" and expression.get("operator") == "NotIn"


def render(directory: Path = _DEPLOY) -> str:
    """policies.json, byte for byte."""
    found = {}
    for name in _SOURCES:
        for document in yaml.safe_load_all((directory / name).read_text()):
            found[f"{document['kind']}/{document['metadata']['name']}"] = document["spec"]
    return json.dumps(found, indent=1, sort_keys=True) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the file, or with `--check` says whether it is stale."""
    parser = argparse.ArgumentParser(prog="python -m tenure.enforce.policies", description="Generate policies.json.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the file is stale")
    check = parser.parse_args(arguments).check
    path = Path(__file__).with_name(FILE)
    if check:
        if not path.exists() or path.read_text() != render():
            print(f"{FILE} is not what deploy/ says: run `python -m tenure.enforce.policies`", file=sys.stderr)
            return 1
        return 0
    path.write_text(render())
    return 0


if __name__ == "__main__":
    sys.exit(main())
