"""docs/spec: a page per kind, whose examples the models accept and whose fields are all there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tenure.api import KINDS
from tenure.api.base import Kind
from tenure.api.names import API_VERSION

PAGES = Path(__file__).resolve().parents[3] / "docs" / "spec"
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)


def page(kind: Kind) -> str:
    return (PAGES / f"{kind.singular}.md").read_text()


def examples(text: str) -> list[dict[str, Any]]:
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    return [document for block in blocks for document in yaml.safe_load_all(block)]


def fields(kind: Kind) -> set[str]:
    return set(kind.spec.model_json_schema(by_alias=True)["properties"])


def test_there_is_no_page_without_a_kind() -> None:
    assert {path.stem for path in PAGES.glob("*.md")} == {kind.singular for kind in KINDS}


@every_kind
def test_every_field_of_the_spec_is_named(kind: Kind) -> None:
    named = set(re.findall(r"(?<=[`.])[a-zA-Z]+(?=[`.])", page(kind)))
    assert fields(kind) <= named


@every_kind
def test_the_short_name_is_told(kind: Kind) -> None:
    assert f"`{kind.short_name}`" in " ".join(page(kind).split())


@every_kind
def test_examples_are_valid(kind: Kind) -> None:
    for example in examples(page(kind)):
        if example["apiVersion"] == API_VERSION:
            assert example["kind"] == kind.kind
            kind.spec.read(example["spec"])
