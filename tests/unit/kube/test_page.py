"""Pages parsed object by object: the same objects as the standard library's, and no text in an error."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tenure.kube import page
from tenure.kube.errors import BrokenStream
from tenure.kube.page import Elements

CANARY = "canary-7c1e"

LIST: dict[str, Any] = {
    "kind": "PodList",
    "apiVersion": "v1",
    "metadata": {"resourceVersion": "5", "continue": "x"},
    "items": [{"metadata": {"name": 'a\u2026\n"]}'}, "n": [1, {}]}, {}, {"last": None}],
}
TABLE: dict[str, Any] = {
    "kind": "Table",
    "metadata": {"resourceVersion": "5"},
    "columnDefinitions": [{"name": "Type"}],
    "rows": [{"cells": ["t"]}],
}


def whole(text: str) -> dict[str, Any]:
    found = page.parse("list pods", text)
    return {key: list(value) if isinstance(value, Elements) else value for key, value in found.items()}


@pytest.mark.parametrize("indent", [None, 0, 2])
@pytest.mark.parametrize("raw", [LIST, TABLE, {**LIST, "items": []}, {**LIST, "items": None}, {"kind": "Status"}])
def test_says_what_the_standard_library_says(raw: dict[str, Any], indent: int | None) -> None:
    for text in (json.dumps(raw, indent=indent), json.dumps(raw, indent=indent, ensure_ascii=False) + "\n"):
        assert whole(text) == raw


def test_elements_come_one_by_one() -> None:
    found = page.parse("list pods", '{"metadata": {}, "items": [{"a": 1}, {"b": 2}, broken')
    elements = iter(found["items"])
    assert [next(elements), next(elements)] == [{"a": 1}, {"b": 2}]
    with pytest.raises(BrokenStream):
        next(elements)


def test_metadata_is_there_before_the_elements() -> None:
    """No API server writes it behind them; were one to, the page would be parsed at once."""
    assert page.parse("list pods", '{"items": [{"a": 1}], "metadata": {"resourceVersion": "5"}}') == {
        "items": [{"a": 1}],
        "metadata": {"resourceVersion": "5"},
    }


@pytest.mark.parametrize(
    "text", ["", " ", "[]", "null", "7", '{"kind"', '{"kind":', '{"kind":"PodList"', "{", "{}x"[:1]]
)
def test_what_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        page.parse("list pods", text)


@pytest.mark.parametrize("rest", ["", "{", '{"a"', "{}", "{},", "{}]", "{} {}]}", "{};{}]}", ",{}]}", "{},]}"])
def test_a_cut_or_broken_array_is_refused_without_its_text(rest: str) -> None:
    found = page.parse("list pods", f'{{"metadata": {{}}, "items": [{{"secret": "{CANARY}"}}, {rest}')
    with pytest.raises(BrokenStream) as caught:
        list(found["items"])
    assert "list pods" in str(caught.value)
    assert CANARY not in str(caught.value)
    assert caught.value.__cause__ is None


def test_what_stands_behind_the_elements_is_not_needed() -> None:
    assert whole('{"metadata": {}, "items": [{}], "more": 1}') == {"metadata": {}, "items": [{}]}
