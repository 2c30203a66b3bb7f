"""Kinds and admission policies as a version before this one had them: each kind lacks one field that it has today, and
in each policy something else stands, in another order."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from tests.support.cluster import REPOSITORY
from tests.support.helm import CHART
from tests.support.rest import Json

UNKNOWN: Final[Mapping[str, tuple[str, str]]] = {
    "identityowners": ("spec", "displayName"),
    "ownedidentities": ("spec", "review"),
    "identityexceptions": ("spec", "ticket"),
    "identitydecisions": ("status", "attested"),
    "identityfindings": ("status", "residual"),
    "quarantines": ("spec", "holdAfterUse"),
    "quarantineguards": ("spec", "entitlements"),
    "governancepolicies": ("spec", "suspend"),
}
"""Plural -> where the field stands that the older kind does not know, and its name."""

LAST: Final = "tenure-claim-namespaces"
GONE: Final = "tenure-once"


def older_kinds(directory: Path, plurals: tuple[str, ...] = tuple(UNKNOWN)) -> None:
    """Rewrites the CRDs in a directory, which must be a copy."""
    for plural in plurals:
        part, field = UNKNOWN[plural]
        path = directory / f"{plural}.tenure.dev.yaml"
        found: dict[str, Any] = yaml.safe_load(path.read_text())
        [version] = found["spec"]["versions"]
        properties = version["schema"]["openAPIV3Schema"]["properties"][part]["properties"]
        del properties[field]
        columns = version.get("additionalPrinterColumns", [])
        version["additionalPrinterColumns"] = [one for one in columns if one["jsonPath"] != f".{part}.{field}"]
        path.write_text(yaml.safe_dump(found, sort_keys=False))


def older_policies(documents: list[Json]) -> list[Json]:
    """The same, but in each policy a variable and a condition more, at the front of others in another order, the first
    validation missing or saying something else; and without the policy that came last, but with one that is gone."""
    found = []
    for document in copy.deepcopy(documents):
        if document["kind"] == "ValidatingAdmissionPolicy":
            spec = document["spec"]
            variables = spec.get("variables", [])
            free = [one for one in variables if "variables." not in one["expression"]]
            bound = [one for one in variables if "variables." in one["expression"]]
            spec["variables"] = [{"name": "once", "expression": "'there was another'"}, *reversed(free), *bound]
            spec["matchConditions"] = [{"name": "once", "expression": "true"}, *spec.get("matchConditions", [])]
            first, *rest = spec["validations"]
            spec["validations"] = rest or [{"expression": first["expression"], "message": "something else"}]
        if document["metadata"]["name"] == LAST:
            document = json.loads(json.dumps(document).replace(LAST, GONE))
        found.append(document)
    return found


def older_deploy(directory: Path, plurals: tuple[str, ...] = tuple(UNKNOWN)) -> Path:
    """`deploy/install.sh` beside older kinds; everything else is today's."""
    shutil.copytree(REPOSITORY / "deploy", directory / "deploy")
    shutil.copytree(REPOSITORY / "crds", directory / "crds")
    older_kinds(directory / "crds", plurals)
    return directory / "deploy" / "install.sh"


def older_chart(directory: Path) -> Path:
    """The chart as version 0.0.9, with older kinds. Files instead of links, as in a package."""
    chart = directory / "older"
    shutil.copytree(CHART, chart)
    about = yaml.safe_load((chart / "Chart.yaml").read_text())
    (chart / "Chart.yaml").write_text(yaml.safe_dump({**about, "version": "0.0.9", "appVersion": "0.0.9"}))
    older_kinds(chart / "files" / "crds")
    return chart
