"""Every document of every combination fits the schemas of every Kubernetes that the chart is for."""

from __future__ import annotations

from pathlib import Path

import kubernetes_validate
import pytest

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
