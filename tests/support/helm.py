"""Helm, both majors: built once per version by `go install`, kept outside the repository as the control plane is."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from tests.support.binary import BuildError, cache_root, exclusive
from tests.support.cluster import REPOSITORY, Cluster
from tests.support.rest import Json

CHART: Final = REPOSITORY / "charts" / "tenure"
HELMS: Final = {"3": "helm.sh/helm/v3/cmd/helm@v3.17.4", "4": "helm.sh/helm/v4/cmd/helm@v4.2.4"}
"""The oldest and the newest Helm that the chart is tested with."""
STAMPS: Final = "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy"


YAML: Final = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
"""A rendered chart is 400 KB: the pure parser takes seconds."""


class HelmFailed(AssertionError):
    """Helm ended with another status than 0; the message is what it said."""


def ensure_helm(major: str) -> Path:
    """The path of that Helm, built when it is not cached (about 2 minutes on 2 cores). Raises BuildError."""
    package = HELMS[major]
    directory = cache_root().parent / "helm" / package.rpartition("@v")[2]
    binary = directory / "helm"
    if binary.exists():
        return binary
    with exclusive(directory / "lock", sys.stderr):
        if not binary.exists():
            print(f"helm: {package} is not cached, building (about 2 minutes on 2 cores)", file=sys.stderr, flush=True)
            built = directory / "built"
            done = subprocess.run(
                ["go", "install", "-trimpath", "-ldflags", "-s -w", package],
                cwd="/",
                env={**os.environ, "GOTOOLCHAIN": "local", "CGO_ENABLED": "0", "GOBIN": str(built)},
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                raise BuildError(f"go install {package} failed:\n{done.stderr[-3000:]}")
            (built / "helm").replace(binary)
            built.rmdir()
    return binary


class Helm:
    """One Helm. Its caches and settings are its own; `cluster` None: nothing but what needs no cluster."""

    def __init__(self, major: str, home: Path, cluster: Cluster | None = None) -> None:
        self.major = major
        self._binary = ensure_helm(major)
        names = ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME")
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("HELM_", "KUBE"))},
            **{name: str(home / name.lower()) for name in names},
            "KUBECONFIG": str(cluster.kubeconfig) if cluster else os.devnull,
        }

    def run(self, *arguments: str, timeout: float = 180.0) -> subprocess.CompletedProcess[str]:
        """Its output, whatever the status."""
        return subprocess.run(
            [str(self._binary), *arguments],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def __call__(self, *arguments: str, timeout: float = 180.0) -> str:
        """What it prints. Raises HelmFailed."""
        done = self.run(*arguments, timeout=timeout)
        if done.returncode != 0:
            raise HelmFailed(f"helm {self.major} {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def render(
        self,
        values: Iterable[Path] = (),
        sets: Mapping[str, Any] | None = None,
        *,
        kubernetes: str = "1.36",
        namespace: str = "tenure-system",
        chart: Path = CHART,
    ) -> list[Json]:
        """The documents of `helm template` on that Kubernetes. Raises HelmFailed."""
        arguments = ["template", "tenure", str(chart), "-n", namespace, "--kube-version", kubernetes]
        if kubernetes >= "1.36":
            arguments += ["--api-versions", STAMPS]
        for file in values:
            arguments += ["--values", str(file)]
        for name, value in (sets or {}).items():
            arguments += ["--set-json", f"{name}={json.dumps(value)}"]
        return [document for document in yaml.load_all(self(*arguments), YAML) if document]


OPERATOR_FILE: Final = REPOSITORY / "deploy" / "operator.yaml"
"""What the default chart has beyond the rest of deploy/: what runs the operator."""
_HELMS_OWN: Final = ("app.kubernetes.io/managed-by", "app.kubernetes.io/instance", "helm.sh/chart")
_HEADER: Final = """\
# What runs the operator, for clusters without Helm. `make manifests IMAGE=registry.example.com/tenure@sha256:…` writes
# it from the chart. Everything else of the default chart is crds/ and the other files here. After install.sh:
# kubectl apply --server-side -f deploy/operator.yaml
"""


def without_helm(document: Json) -> Json:
    """A rendered document without the labels and annotations that are Helm's own."""
    document = copy.deepcopy(document)
    document["metadata"].get("annotations", {}).pop("helm.sh/resource-policy", None)
    for where in (document["metadata"], document.get("spec", {}).get("template", {}).get("metadata", {})):
        for label in _HELMS_OWN:
            where.get("labels", {}).pop(label, None)
    return document


def operator_file(image: str = "") -> str:
    """deploy/operator.yaml, byte for byte."""
    repository, _, digest = image.partition("@")
    sets = {name: value for name, value in {"image.repository": repository, "image.digest": digest}.items() if value}
    with tempfile.TemporaryDirectory() as home:
        documents = Helm("4", Path(home)).render(sets=sets)
    own = [
        without_helm(document)
        for document in documents
        if document["kind"] in ("Deployment", "Service") and "helm.sh/hook" not in str(document["metadata"])
    ]
    return _HEADER + "---\n".join(yaml.safe_dump(document, sort_keys=False, width=130) for document in own)


if __name__ == "__main__":
    OPERATOR_FILE.write_text(operator_file(*sys.argv[1:]))
