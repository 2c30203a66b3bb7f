"""The generated definitions: up to date, structural, bounded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import Field

from tenure.api import KINDS
from tenure.api.base import ApiModel, Kind
from tenure.api.crd import CRDS, Unbounded, definition, files, main, stale, structural
from tenure.api.names import GROUP

REPOSITORY = Path(__file__).resolve().parents[3]


def schemas(kind: Kind) -> dict[str, Any]:
    [version] = definition(kind)["spec"]["versions"]
    schema: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return schema


def nodes(schema: dict[str, Any], where: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield where, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{where}.{name}")
    for key, suffix in (("items", "[]"), ("additionalProperties", "{}")):
        if isinstance(schema.get(key), dict):
            yield from nodes(schema[key], where + suffix)


every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)


def test_the_committed_definitions_are_what_the_models_say() -> None:
    assert stale(CRDS) == []
    assert REPOSITORY / "crds" == CRDS


def test_check_names_what_is_stale_missing_or_left_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--directory", str(tmp_path)]) == 0
    assert main(["--check", "--directory", str(tmp_path)]) == 0
    changed, missing, *_ = sorted(files())
    (tmp_path / changed).write_text("kind: Nothing\n")
    (tmp_path / missing).unlink()
    (tmp_path / "leftovers.tenure.dev.yaml").write_text("kind: Nothing\n")
    assert main(["--check", "--directory", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert [line.split()[0] for line in said.splitlines()] == [changed, missing, "leftovers.tenure.dev.yaml"]
    assert main(["--directory", str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(files())


def test_generating_twice_gives_the_same_bytes() -> None:
    assert files() == files()


@every_kind
def test_every_string_list_and_map_has_a_bound(kind: Kind) -> None:
    for where, node in nodes(
        {"properties": {k: v for k, v in schemas(kind)["properties"].items() if k in ("spec", "status")}}
    ):
        match node.get("type"):
            case "string":
                assert "maxLength" in node or "enum" in node, where
            case "array":
                assert "maxItems" in node, where
                assert "x-kubernetes-list-type" in node, where
            case "object" if "additionalProperties" in node:
                assert "maxProperties" in node, where


@every_kind
def test_schemas_are_structural(kind: Kind) -> None:
    for where, node in nodes(schemas(kind)):
        assert "type" in node, where
        assert not {"$ref", "$defs", "anyOf", "oneOf", "allOf", "const", "title", "prefixItems"} & node.keys(), where
        assert not ("properties" in node and "additionalProperties" in node), where


@every_kind
def test_every_rule_has_a_message_of_one_line(kind: Kind) -> None:
    for where, node in nodes(schemas(kind)):
        for rule in node.get("x-kubernetes-validations", []):
            assert rule["message"], where
            assert "\n" not in rule["message"], where


@every_kind
def test_no_default_stands_inside_a_list(kind: Kind) -> None:
    """There it would show up as drift: server-side apply and GitOps compare list items whole."""
    for where, node in nodes(schemas(kind)):
        if "[]" in where or "{}" in where:
            assert "default" not in node, where


@every_kind
def test_columns_end_with_the_age(kind: Kind) -> None:
    [version] = definition(kind)["spec"]["versions"]
    assert version["additionalPrinterColumns"][-1] == {
        "name": "Age",
        "type": "date",
        "jsonPath": ".metadata.creationTimestamp",
    }


@every_kind
def test_columns_and_selectable_fields_exist(kind: Kind) -> None:
    known = {where for where, _ in nodes(schemas(kind))}
    [version] = definition(kind)["spec"]["versions"]
    paths = [column["jsonPath"] for column in version["additionalPrinterColumns"]]
    paths += [field["jsonPath"] for field in version.get("selectableFields", [])]
    for path in paths:
        plain = path.partition("[?")[0].replace("[*]", "[]")
        assert plain in known or plain.startswith(".metadata."), path
    assert len(version.get("selectableFields", [])) <= 8


def test_kinds_that_the_operator_writes_in_one_piece_have_no_status_subresource() -> None:
    without = {kind.kind for kind in KINDS if "subresources" not in definition(kind)["spec"]["versions"][0]}
    assert without == {"IdentityFinding", "QuarantineGuard"}


def test_names() -> None:
    for kind in KINDS:
        made = definition(kind)
        assert made["metadata"]["name"] == f"{kind.plural}.{GROUP}"
        assert made["spec"]["names"]["categories"] == ["tenure"]
    assert {kind.kind for kind in KINDS if not kind.namespaced} == {"IdentityOwner", "GovernancePolicy"}


@pytest.mark.parametrize(
    ("annotation", "what"),
    [(str, "a string"), (tuple[int, ...], "a list"), (dict[str, int], "a map"), (tuple[int, ...] | None, "a list")],
)
def test_a_field_without_a_bound_is_not_generated(annotation: Any, what: str) -> None:
    model = type("Loose", (ApiModel,), {"__annotations__": {"field": annotation}})
    with pytest.raises(Unbounded, match=r"Loose\.field.*" + what + "|" + what):
        structural(model)


def test_rules_of_a_field_and_of_its_model_are_both_kept() -> None:
    claim = next(kind for kind in KINDS if kind.kind == "OwnedIdentity")
    subjects = schemas(claim)["properties"]["spec"]["properties"]["subjects"]
    assert len(subjects["x-kubernetes-validations"]) == 1
    decision = next(kind for kind in KINDS if kind.kind == "IdentityDecision")
    assert "self == oldSelf" in {r["rule"] for r in schemas(decision)["properties"]["spec"]["x-kubernetes-validations"]}


def test_the_files_are_plain_yaml() -> None:
    for name, content in files().items():
        loaded = yaml.safe_load(content)
        assert f"{loaded['metadata']['name']}.yaml" == name
        assert "&id" not in content


def test_defaults_are_written_as_the_wire_has_them() -> None:
    class Model(ApiModel):
        count: int = Field(default=3, ge=0, le=9)

    assert structural(Model)["properties"]["count"] == {"type": "integer", "minimum": 0, "maximum": 9}
    policy = next(kind for kind in KINDS if kind.kind == "GovernancePolicy")
    assert schemas(policy)["properties"]["spec"]["properties"]["adoptionGrace"]["default"] == "30d"
