"""Writes the CustomResourceDefinitions in `crds/` from the models: `python -m tenure.api.crd [--check]`.

Structural schemas are stricter and poorer than the JSON Schema pydantic speaks: no `$ref`, no `anyOf` with null, no
`additionalProperties: false` beside properties. The translation is done here and nowhere else; everything a schema
*says* stands on the models. `--check` writes nothing and exits 1 when a file is stale, missing or left over.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic.json_schema import GenerateJsonSchema

from tenure.api import KINDS
from tenure.api.base import CRD_DEFAULT, VALIDATIONS, ApiModel, Column, Kind, format_duration
from tenure.api.names import CATEGORY, GROUP, VERSION

CRDS: Final = Path(__file__).resolve().parents[3] / "crds"
HEADER: Final = "# Generated from operator/tenure/api by `python -m tenure.api.crd`. Do not edit.\n"

# Keys of JSON Schema that a structural schema takes as they are.
_PASSED: Final = (
    "type",
    "format",
    "pattern",
    "enum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "minimum",
    "maximum",
    "required",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
)


class _Schema(GenerateJsonSchema):
    """Pydantic's generator, with defaults as the wire has them (it would write a duration as ISO 8601)."""

    def encode_default(self, dft: Any) -> Any:
        return format_duration(dft) if isinstance(dft, timedelta) else super().encode_default(dft)


class Unbounded(Exception):
    """A string, list or map without a bound: the CEL cost estimator and etcd both need one."""


def structural(model: type[ApiModel]) -> dict[str, Any]:
    """The structural schema of a model. Raises Unbounded, naming the field."""
    schema = model.model_json_schema(by_alias=True, mode="validation", schema_generator=_Schema)
    return _translate(schema, schema.get("$defs", {}), model.__name__)


def _translate(node: Mapping[str, Any], definitions: Mapping[str, Any], where: str) -> dict[str, Any]:
    node = _resolved(node, definitions)
    out: dict[str, Any] = {}
    description = node.get("description")
    if description:
        out["description"] = " ".join(str(description).split())
    if "const" in node:
        out |= {"type": "string", "enum": [node["const"]]}
    out |= {key: node[key] for key in _PASSED if key in node}
    if "properties" in node:
        out["properties"] = {
            name: _translate(child, definitions, f"{where}.{name}") for name, child in node["properties"].items()
        }
    elif isinstance(node.get("additionalProperties"), Mapping):
        out["additionalProperties"] = _translate(node["additionalProperties"], definitions, f"{where}.*")
    if "items" in node:
        out["items"] = _translate(node["items"], definitions, f"{where}[]")
    if node.get(CRD_DEFAULT):
        out["default"] = node["default"]
    if node.get(VALIDATIONS):
        out[VALIDATIONS] = node[VALIDATIONS]
    _require_bounds(out, where)
    return out


def _resolved(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """The node with its `$ref` and its `X | None` folded in; rules on both sides are kept."""
    merged = dict(node)
    while True:
        if "$ref" in merged:
            base = definitions[merged.pop("$ref").removeprefix("#/$defs/")]
        elif "anyOf" in merged:
            [base] = [option for option in merged.pop("anyOf") if option.get("type") != "null"]
        else:
            return merged
        if "enum" in base:  # its docstring is about the Python class
            base = {key: value for key, value in base.items() if key != "description"}
        validations = [*base.get(VALIDATIONS, []), *merged.get(VALIDATIONS, [])]
        merged = {**base, **merged}
        if validations:
            merged[VALIDATIONS] = validations


def _require_bounds(schema: Mapping[str, Any], where: str) -> None:
    kind = schema.get("type")
    if kind == "string" and "maxLength" not in schema and "enum" not in schema:
        raise Unbounded(f"{where}: a string without max_length")
    if kind == "array" and "maxItems" not in schema:
        raise Unbounded(f"{where}: a list without max_length")
    if kind == "object" and "additionalProperties" in schema and "maxProperties" not in schema:
        raise Unbounded(f"{where}: a map without max_length")


def definition(kind: Kind) -> dict[str, Any]:
    """The CustomResourceDefinition of a kind."""
    properties: dict[str, Any] = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object", "properties": {"name": {"type": "string"}}},
        "spec": structural(kind.spec),
    }
    if kind.status is not None:
        properties["status"] = structural(kind.status)
        if kind.status_subresource:
            # kstatus then reads an object that nobody has looked at as "in progress", not as "done".
            properties["status"]["default"] = {"observedGeneration": -1}
    schema: dict[str, Any] = {
        "description": kind.description,
        "type": "object",
        "required": ["spec"],
        "properties": properties,
    }
    if kind.rules:
        schema[VALIDATIONS] = [rule.entry() for rule in kind.rules]
    version: dict[str, Any] = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": [_column(column) for column in kind.columns],
        "schema": {"openAPIV3Schema": schema},
    }
    if kind.selectable:
        version["selectableFields"] = [{"jsonPath": path} for path in kind.selectable]
    if kind.status_subresource:
        version["subresources"] = {"status": {}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}", "labels": {"app.kubernetes.io/part-of": "tenure"}},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "names": {
                "kind": kind.kind,
                "listKind": f"{kind.kind}List",
                "plural": kind.plural,
                "singular": kind.singular,
                "shortNames": [kind.short_name],
                "categories": [CATEGORY],
            },
            "versions": [version],
        },
    }


def _column(column: Column) -> dict[str, Any]:
    out: dict[str, Any] = {"name": column.name, "type": column.type, "jsonPath": column.path}
    if column.description:
        out["description"] = column.description
    if column.wide:
        out["priority"] = 1
    return out


class _Dumper(yaml.SafeDumper):
    """Plain YAML: no anchors, so that two equal pieces stay readable on their own."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def render(kind: Kind) -> str:
    """The file of a kind, byte for byte."""
    return HEADER + yaml.dump(definition(kind), Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


def files() -> dict[str, str]:
    """File name -> content, for every kind."""
    return {f"{kind.plural}.{GROUP}.yaml": render(kind) for kind in KINDS}


def stale(directory: Path) -> list[str]:
    """Names of files that differ from the models, are missing, or belong to no kind."""
    wanted = files()
    present = {path.name: path.read_text() for path in directory.glob("*.yaml")} if directory.is_dir() else {}
    return sorted(name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name))


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the files, or with `--check` says which are stale."""
    parser = argparse.ArgumentParser(prog="python -m tenure.api.crd", description="Generate the CRDs from the models.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file is stale")
    parser.add_argument("--directory", type=Path, default=CRDS)
    options = parser.parse_args(arguments)
    directory: Path = options.directory
    out_of_date = stale(directory)
    if options.check:
        for name in out_of_date:
            print(f"{name} is not what the models say: run `python -m tenure.api.crd`", file=sys.stderr)
        return 1 if out_of_date else 0
    directory.mkdir(parents=True, exist_ok=True)
    wanted = files()
    for name in out_of_date:
        if name in wanted:
            (directory / name).write_text(wanted[name])
        else:
            (directory / name).unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
