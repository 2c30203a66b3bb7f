"""What Argo CD and Flux would make of objects: Lua as Argo CD runs it, its differences, manifests as kustomize builds
them."""

from __future__ import annotations

import copy
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from lupa import lua51

from tests.support.cluster import REPOSITORY, kubectl_binary
from tests.support.rest import Json

GITOPS: Final = REPOSITORY / "gitops"
EXAMPLES: Final = REPOSITORY / "examples" / "gitops"
_CLOSED: Final = ("package", "require", "module", "string", "math", "io", "debug", "coroutine", "python")


# --- Lua


class Lua:
    """A script as Argo CD runs it unless an administrator opens the libraries: Lua 5.1 with the base functions and
    `table`, the object in the global `obj`."""

    def __init__(self, script: str) -> None:
        self._script = script

    def __call__(self, obj: Json) -> Any:
        """What the script returns, as JSON. Raises LuaError."""
        runtime = lua51.LuaRuntime(register_eval=False, register_builtins=False, unpack_returned_tuples=True)
        runtime.execute("getmetatable('').__index = nil")
        for name in _CLOSED:
            runtime.globals()[name] = None
        runtime.globals()["obj"] = _to_lua(runtime, obj)
        return _to_json(runtime.execute(self._script))


def _to_lua(runtime: Any, value: Any) -> Any:
    if isinstance(value, Mapping):
        return runtime.table_from({name: _to_lua(runtime, item) for name, item in value.items()})
    if isinstance(value, list):
        return runtime.table_from([_to_lua(runtime, item) for item in value])
    return value


def _to_json(value: Any) -> Any:
    """As gopher-json encodes it: a table without names is a list, an empty one too."""
    if lua51.lua_type(value) != "table":
        return value
    found = dict(value.items())
    if all(isinstance(key, int) for key in found):
        return [_to_json(found[key]) for key in sorted(found)]
    return {str(name): _to_json(item) for name, item in found.items()}


def patched(returned: Any, obj: Any) -> Any:
    """What an action returned, with Argo CD's own repair: what was an empty map is one again."""
    if isinstance(obj, dict) and returned == []:
        return copy.deepcopy(obj)
    if isinstance(obj, dict) and isinstance(returned, dict):
        return {name: patched(item, obj.get(name)) for name, item in returned.items()}
    if isinstance(obj, list) and isinstance(returned, list) and len(obj) == len(returned):
        return [patched(item, was) for item, was in zip(returned, obj, strict=True)]
    return returned


# --- differences


def without_ignored(found: Json, rules: list[Json]) -> Json:
    """An object without what an Application's `ignoreDifferences` leave out of comparison and, with
    RespectIgnoreDifferences, out of syncs."""
    group = found["apiVersion"].rpartition("/")[0]
    left = copy.deepcopy(found)
    for rule in rules:
        if rule["kind"] != found["kind"] or rule.get("group", "") != group:
            continue
        for pointer in rule.get("jsonPointers", ()):
            _drop(left, [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]])
        for entry in found["metadata"].get("managedFields", ()):
            if entry["manager"] in rule.get("managedFieldsManagers", ()):
                for path in _owned(entry["fieldsV1"]):
                    _drop(left, path)
    return left


def _owned(fields: Json, *above: str) -> Iterator[list[str]]:
    for name, below in fields.items():
        if name.startswith("f:"):
            path = (*above, name[2:])
            if any(key.startswith("f:") for key in below):
                yield from _owned(below, *path)
            else:
                yield list(path)


def _drop(found: Json, path: list[str]) -> None:
    *above, last = path
    place: Any = found
    for part in above:
        place = place.get(part)
        if not isinstance(place, dict):
            return
    place.pop(last, None)


# --- kustomize


def build(directory: Path) -> list[Json]:
    """What `kubectl kustomize` makes of a directory."""
    done = subprocess.run(
        [kubectl_binary(), "kustomize", str(directory)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def documents(*files: Path) -> list[Json]:
    """All documents of YAML files."""
    return [document for file in files for document in yaml.safe_load_all(file.read_text()) if document]
