"""Writes `gitops/argocd/argocd-cm.yaml`, what Argo CD has to know of the kinds that people write, out of the Lua files
beside it: `python -m gitops.customizations [--check]`.

The files lie as in Argo CD's own repository (`resource_customizations/<group>/<kind>/`), but that every health check
begins with `processed.lua`, whether the spec was processed: Argo CD's Lua loads no second file.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Final

import yaml

from tenure.api.names import GROUP

FOLDER: Final = Path(__file__).resolve().parent / "argocd"
TARGET: Final = FOLDER / "argocd-cm.yaml"
HEADER: Final = """\
# Generated from the Lua files beside it by `python -m gitops.customizations`. Do not edit.
# kubectl patch configmap argocd-cm -n argocd --patch-file gitops/argocd/argocd-cm.yaml
"""


class _Dumper(yaml.SafeDumper):
    """Scripts as blocks, as people read them."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def _dump(found: Any) -> str:
    return yaml.dump(found, Dumper=_Dumper, sort_keys=False, width=140)


def customizations() -> dict[str, str]:
    """The keys of the ConfigMap `argocd-cm`, and what they say."""
    found, processed = {}, (FOLDER / "processed.lua").read_text()
    for kind in sorted((FOLDER / "resource_customizations" / GROUP).iterdir()):
        found[f"resource.customizations.health.{GROUP}_{kind.name}"] = processed + (kind / "health.lua").read_text()
        discovery = kind / "actions" / "discovery.lua"
        if discovery.exists():
            actions = sorted(discovery.parent.glob("*/action.lua"))
            definitions = [{"name": path.parent.name, "action.lua": path.read_text()} for path in actions]
            said = {"discovery.lua": discovery.read_text(), "definitions": definitions}
            found[f"resource.customizations.actions.{GROUP}_{kind.name}"] = _dump(said)
    return found


def main() -> int:
    """Writes the file, or with `--check` says whether it is stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when the file is not what this says")
    text = HEADER + _dump({"data": customizations()})
    if TARGET.exists() and TARGET.read_text() == text:
        return 0
    if parser.parse_args().check:
        print(f"{TARGET.name} is not what the Lua files say: run `python -m gitops.customizations`", file=sys.stderr)
        return 1
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
