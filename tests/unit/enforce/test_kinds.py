"""What the operator says of CustomResourceDefinitions that are not those of this version."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tenure.api import KINDS
from tenure.api.crd import definition
from tenure.enforce.kinds import older

Json = dict[str, Any]
POLICIES = "governancepolicies.tenure.dev"


@pytest.fixture
def served() -> Json:
    return {f"{kind.plural}.tenure.dev": copy.deepcopy(definition(kind)["spec"]) for kind in KINDS}


def properties(spec: Json, part: str = "spec") -> Json:
    found: Json = spec["versions"][0]["schema"]["openAPIV3Schema"]["properties"][part]["properties"]
    return found


def test_those_of_this_version_know_all(served: Json) -> None:
    assert older(served) == ""


def test_a_newer_one_knows_all(served: Json) -> None:
    properties(served[POLICIES])["tomorrow"] = {"type": "string", "maxLength": 10}
    assert older(served) == ""


def test_a_missing_one_is_named(served: Json) -> None:
    del served[POLICIES]
    assert older(served) == f"CustomResourceDefinition/{POLICIES} is missing"


def test_a_field_that_is_unknown_is_named(served: Json) -> None:
    del properties(served[POLICIES])["suspend"]
    assert older(served) == f"CustomResourceDefinition/{POLICIES} is older than this version: spec.suspend unknown"


def test_so_is_one_within_a_list_or_a_map(served: Json) -> None:
    del properties(served[POLICIES])["deadlines"]["items"]["properties"]["stages"]
    assert "spec.deadlines.stages unknown" in older(served)
    guards = "quarantineguards.tenure.dev"
    of_guards = {**served, POLICIES: definition(next(k for k in KINDS if k.kind == "GovernancePolicy"))["spec"]}
    del properties(of_guards[guards])["writers"]["additionalProperties"]["properties"]["contact"]
    assert "spec.writers.contact unknown" in older(of_guards)


def test_of_many_the_first_are_named(served: Json) -> None:
    for name in ("suspend", "enforceIn", "reviews", "retention", "inventory"):
        del properties(served[POLICIES])[name]
    assert older(served).endswith(": spec.suspend, spec.enforceIn, spec.reviews and 2 more unknown")


def test_a_version_that_is_not_served_knows_nothing(served: Json) -> None:
    served[POLICIES]["versions"][0]["served"] = False
    assert f"{POLICIES} is older than this version: apiVersion, kind, metadata" in older(served)
