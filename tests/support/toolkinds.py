"""The kinds of Argo CD and Flux, as the tools define them, for checking manifests against: from their Go modules, kept
outside the repository as the control plane is."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import yaml

from tests.support.binary import BuildError, cache_root, exclusive
from tests.support.cluster import REPOSITORY
from tests.support.helm import YAML
from tests.support.rest import Json

ARGO_CD: Final = "github.com/argoproj/argo-cd/v3@v3.4.0"
ARGO_CD_SUM: Final = "h1:yZwfaOIzE/aQTA52mOfeZQbribmyxKYvMgirQja4eX0="
FLUX: Final = REPOSITORY / "tests" / "fluxkinds"
FLUX_PACKAGES: Final = ("kustomize-controller/api/v1", "helm-controller/api/v2", "source-controller/api/v1")


def argo_cd() -> list[Json]:
    """Argo CD's CustomResourceDefinitions, as its module ships them. Raises BuildError."""
    found = json.loads(_go("mod", "download", "-json", ARGO_CD, cwd=Path("/")))
    if found.get("Sum") != ARGO_CD_SUM:
        raise BuildError(f"{ARGO_CD} is not what it was: {found.get('Sum')} {found.get('Error', '')}")
    return _read(Path(found["Dir"]) / "manifests" / "crds")


def flux() -> list[Json]:
    """Flux's, generated from its Go types by what Flux itself generates them with (3 minutes on 2 cores, once). Raises
    BuildError."""
    sources = b"".join((FLUX / name).read_bytes() for name in ("go.mod", "go.sum", "kinds.go"))
    directory = cache_root().parent / "fluxkinds" / hashlib.sha256(sources).hexdigest()[:16]
    with exclusive(directory / "lock", sys.stderr):
        made = directory / "crds"
        if not made.exists():
            print("flux: its kinds are not cached, generating (3 minutes on 2 cores)", file=sys.stderr, flush=True)
            generator = "sigs.k8s.io/controller-tools/cmd/controller-gen"
            paths = [f"paths=github.com/fluxcd/{package}" for package in FLUX_PACKAGES]
            _go("run", generator, "crd:maxDescLen=0", *paths, f"output:crd:dir={directory / 'half'}", cwd=FLUX)
            (directory / "half").replace(made)
    return _read(made)


def _go(*arguments: str, cwd: Path) -> str:
    environment = {**os.environ, "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}
    done = subprocess.run(
        ["go", *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=1200, check=False
    )
    if done.returncode != 0:
        raise BuildError(f"go {' '.join(arguments)} failed:\n{done.stdout[-500:]}{done.stderr[-2000:]}")
    return done.stdout


def _read(directory: Path) -> list[Json]:
    loaded: list[Any] = [yaml.load(path.read_text(), YAML) for path in sorted(directory.glob("*.yaml"))]
    return [document for document in loaded if document.get("kind") == "CustomResourceDefinition"]
