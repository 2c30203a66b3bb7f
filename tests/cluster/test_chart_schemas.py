"""Every document of every combination fits the schemas of every Kubernetes that the chart is for, and is clean YAML."""

from __future__ import annotations

from pathlib import Path

import kubernetes_validate
import pytest
from yamllint import linter
from yamllint.config import YamlLintConfig

from tests.support.cluster import REPOSITORY
from tests.support.helm import CHART, Helm

KUBERNETES = ("1.33", "1.34", "1.35", "1.36", "1.37")


@pytest.mark.long
@pytest.mark.parametrize("values", sorted((CHART / "ci").glob("*-values.yaml")), ids=lambda path: path.stem)
def test_it_fits(values: Path, tmp_path: Path) -> None:
    helm = Helm("4", tmp_path)
    unknown: set[str] = set()
    for version in KUBERNETES:
        checked = 0
        for document in helm.render([values], kubernetes=version):
            try:
                kubernetes_validate.validate(document, version, strict=True)
                checked += 1
            except kubernetes_validate.SchemaNotFoundError:
                unknown.add(document["kind"])
        assert checked > 30
    # The Prometheus operator's, which bring no schema; and where stamps are asked for, on Kubernetes that has none.
    stamps = {"MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"}
    assert unknown <= {"ServiceMonitor", "PodMonitor", "PrometheusRule", "CustomResourceDefinition", *stamps}


LINT = YamlLintConfig(
    """
extends: default
rules:
  line-length: disable       # expressions
  document-start: disable    # Helm writes one before each document, and one more where a file begins with its own
  empty-lines: disable       # where a template rendered nothing
  comments-indentation: disable
  comments: {min-spaces-from-content: 1}
  indentation: {indent-sequences: whatever}
  braces: {max-spaces-inside: 1}
"""
)


@pytest.mark.long
@pytest.mark.parametrize("values", sorted((CHART / "ci").glob("*-values.yaml")), ids=lambda path: path.stem)
def test_yamllint_finds_no_fault_with_what_is_rendered(values: Path, tmp_path: Path) -> None:
    text = Helm("4", tmp_path)(
        "template", "tenure", str(CHART), "-n", "tenure-system", "--kube-version", "1.36", "--values", str(values)
    )
    assert [f"{fault} in {text.splitlines()[fault.line - 1]!r}" for fault in linter.run(text, LINT)] == []


def test_yamllint_finds_no_fault_with_what_is_written() -> None:
    """All YAML of the repository but for templates."""
    files = [
        path for folder in ("charts", "crds", "deploy", "examples") for path in (REPOSITORY / folder).rglob("*.yaml")
    ]
    written = [path for path in files if "templates" not in path.parts]
    assert len(written) > 40
    assert [f"{path}: {fault}" for path in written for fault in linter.run(path.read_text(), LINT)] == []
