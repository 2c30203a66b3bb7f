"""Whether the cluster's kinds know every field that this version reads and writes.

A field that a kind does not know is left out of every answer, as if nobody had written it: a policy that is suspended,
or that looks at some namespaces only, would act. Kinds older than the program are what a rollback in two steps, or a
pipeline that brings them by itself, leaves for a while.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final

from tenure.api import KINDS
from tenure.api.crd import definition
from tenure.api.names import GROUP, VERSION

_NAMED: Final = 3
"""Fields that a message names; the rest is counted."""


def older(found: Mapping[str, Mapping[str, Any]]) -> str:
    """What is wrong with the CustomResourceDefinitions, each `spec` by its name; "" when they know all."""
    for name, schema in _wanted().items():
        if name not in found:
            return f"CustomResourceDefinition/{name} is missing"
        fields = list(_unknown(schema, _served(found[name])))
        if fields:
            more = f" and {len(fields) - _NAMED} more" if len(fields) > _NAMED else ""
            unknown = f"{', '.join(fields[:_NAMED])}{more} unknown"
            return f"CustomResourceDefinition/{name} is older than this version: {unknown}"
    return ""


@cache
def _wanted() -> Mapping[str, Mapping[str, Any]]:
    return {f"{kind.plural}.{GROUP}": _served(definition(kind)["spec"]) for kind in KINDS}


def _served(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of our version, {} when it is not served."""
    for version in spec.get("versions") or ():
        if version.get("name") == VERSION and version.get("served"):
            return dict((version.get("schema") or {}).get("openAPIV3Schema") or {})
    return {}


def _unknown(wanted: Mapping[str, Any], served: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Fields, such as `spec.suspend`, that the one has and the other has not, the outermost of each."""
    if served.get("x-kubernetes-preserve-unknown-fields"):
        return
    there = served.get("properties") or {}
    for name, child in (wanted.get("properties") or {}).items():
        if name not in there:
            yield f"{path}{name}"
        else:
            yield from _unknown(child, there[name], f"{path}{name}.")
    for inner in ("items", "additionalProperties"):
        if isinstance(wanted.get(inner), Mapping):
            yield from _unknown(wanted[inner], served.get(inner) or {}, path)
