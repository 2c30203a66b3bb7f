"""What an Ingress's and a Gateway's `spec` say of the Secrets they use, and how those that use one are listed."""

from __future__ import annotations

from typing import Any

import pytest

from tenure.enforce import consumers


def test_an_ingress_names_secrets_of_its_namespace() -> None:
    assert list(consumers.ingress_uses({"tls": [{"secretName": "web"}, {"hosts": ["x"]}]})) == ["web", "None"]
    assert list(consumers.ingress_uses({"rules": []})) == []


def test_a_gateway_names_secrets_of_its_namespace_and_others_that_are_left_out() -> None:
    references: list[Any] = [
        {"name": "web"},
        {"group": "", "kind": "Secret", "name": "api"},
        {"kind": "ConfigMap", "name": "no-secret"},
        {"group": "example.dev", "kind": "Secret", "name": "no-secret"},
    ]
    spec = {"listeners": [{"tls": {"certificateRefs": references}}, {"name": "plain"}]}
    assert list(consumers.gateway_uses(spec)) == ["web", "api"]
    references[0]["namespace"] = "elsewhere"
    assert list(consumers.gateway_uses(spec, "here")) == ["api"]
    references[0]["namespace"] = "here"
    assert list(consumers.gateway_uses(spec, "here")) == ["web", "api"]


@pytest.mark.parametrize("spec", [None, "text", {"listeners": "text"}, {"listeners": [None, {"tls": [1]}]}])
def test_no_shape_of_a_foreign_kind_is_taken_for_granted(spec: Any) -> None:
    assert list(consumers.gateway_uses(spec)) == []


def test_a_line_names_the_first_and_counts_the_rest() -> None:
    assert consumers.listed(["a"]) == "a"
    assert consumers.listed(list("abcdef")) == "a, b, c, d and 2 more"
    long = consumers.listed([letter * 253 for letter in "ab"])
    assert long.endswith("a… and 1 more")
    assert len(long) < 170
    assert consumers.listed(["a" * 100, "b" * 100]) == "a" * 100 + " and 1 more"
