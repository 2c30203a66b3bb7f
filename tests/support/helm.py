"""Helm, both majors: built once per version by `go install`, kept outside the repository as the control plane is."""

from __future__ import annotations

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


def main(image: str = "") -> None:
    """Prints the default chart, without what is Helm's own: hooks, its labels and annotations."""
    with tempfile.TemporaryDirectory() as home:
        documents = Helm("4", Path(home)).render(sets={"image.repository": image} if image else {})
    for document in documents:
        metadata = document["metadata"]
        annotations = metadata.get("annotations", {})
        if "helm.sh/hook" in annotations:
            continue
        annotations.pop("helm.sh/resource-policy", None)
        for where in (metadata, document.get("spec", {}).get("template", {}).get("metadata", {})):
            for label in ("app.kubernetes.io/managed-by", "app.kubernetes.io/instance", "helm.sh/chart"):
                where.get("labels", {}).pop(label, None)
        print("---\n" + yaml.safe_dump(document, sort_keys=False, width=140), end="")


if __name__ == "__main__":
    main(*sys.argv[1:])
