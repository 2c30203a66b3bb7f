"""The state of one namespace under governance, in a form in which two namespaces with the same history are equal.

Names that carry a namespace or a uid are put in words, instants become "TIME" (whether one is set counts, not when),
and what only says how often something was written is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from tests.support.cluster import Cluster
from tests.support.rest import Json
from tests.support.scenario import HOME

_INSTANT: Final = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|\+00:00)")
_UID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_GONE: Final = re.compile(r"\b(serviceaccount|secret|rolebinding)-([a-z0-9.-]+)-[0-9a-f]{6,10}\b")
_KINDS: Final = (
    "serviceaccounts",
    "secrets",
    "ownedidentities",
    "identityexceptions",
    "identitydecisions",
    "identityfindings",
    "quarantines",
    "quarantineguards",
    "rolebindings",
)


def snapshot(cluster: Cluster, namespace: str) -> Json:
    """Everything Tenure says about a namespace and did in it, and what it acts on."""
    found = {kind: cluster.list(kind, namespace) for kind in _KINDS}
    words = _words(namespace, found)
    state: Json = {
        "serviceAccounts": [o["metadata"]["name"] for o in found["serviceaccounts"]],
        "secrets": {
            o["metadata"]["name"]: {
                "labels": o["metadata"].get("labels", {}),
                "finalizers": o["metadata"].get("finalizers", []),
            }
            for o in found["secrets"]
        },
        "bindings": {
            o["metadata"]["name"]: {
                "subjects": json.dumps(o.get("subjects", [])),  # in their order
                "annotations": o["metadata"].get("annotations", {}),
            }
            for o in found["rolebindings"]
        },
        "claims": {o["metadata"]["name"]: o.get("status") for o in found["ownedidentities"]},
        "exceptions": {o["metadata"]["name"]: o.get("status") for o in found["identityexceptions"]},
        "decisions": {o["metadata"]["name"]: o.get("status") for o in found["identitydecisions"]},
        "findings": {o["metadata"]["name"]: _finding(o) for o in found["identityfindings"]},
        "quarantines": {o["metadata"]["name"]: _quarantine(o) for o in found["quarantines"]},
        "guard": _spec_of(found["quarantineguards"], "guard"),
        "decisionsGuard": _spec_of(found["quarantineguards"], "decisions"),
        "bindingsGuard": _of_namespace(cluster.get("quarantineguards", "guard", HOME), namespace),
        "memory": memory(cluster, namespace),
    }
    text = json.dumps(state)
    for name, word in words:
        text = text.replace(name, word)
    text = _GONE.sub(r"former quarantine of \1 \2", text)
    normal: Json = _sorted(json.loads(_DAY.sub("DAY", _INSTANT.sub("TIME", text))))
    return normal


def _spec_of(objects: list[Json], name: str) -> Json | None:
    return next((o["spec"] for o in objects if o["metadata"]["name"] == name), None)


def _words(namespace: str, found: Mapping[str, list[Json]]) -> list[tuple[str, str]]:
    """What is replaced by what, the longest first: a Quarantine's name holds a part of a uid, a finding's a hash."""
    words = {namespace: "NAMESPACE"}
    for kind in ("serviceaccounts", "secrets", "ownedidentities", "identityexceptions", "rolebindings"):
        for obj in found[kind]:
            words[obj["metadata"]["uid"]] = f"uid of {kind}/{obj['metadata']['name']}"
    for obj in found["quarantines"]:
        subject = obj["spec"]["subject"]
        further = f" ({obj['metadata']['name'][-1]})" if obj["spec"].get("continues") else ""
        words[obj["metadata"]["name"]] = f"quarantine of {subject['kind']}/{subject['name']}{further}"
        words[obj["metadata"]["uid"]] = f"uid of quarantine of {subject['kind']}/{subject['name']}{further}"
        words.setdefault(subject["uid"], f"uid of {subject['kind']}/{subject['name']}, gone")
    for obj in found["identityfindings"]:
        subject = obj["spec"]["subject"]
        words[obj["metadata"]["name"]] = f"{obj['spec']['rule']} of {subject['kind']}/{subject['name']}"
        words[obj["metadata"]["uid"]] = f"uid of {obj['spec']['rule']} of {subject['kind']}/{subject['name']}"
        if subject.get("uid"):
            words.setdefault(subject["uid"], f"uid of {subject['kind']}/{subject['name']}, gone")
    return sorted(words.items(), key=lambda pair: -len(pair[0]))


def _finding(obj: Json) -> Json:
    status = {key: value for key, value in obj["status"].items() if key != "usedSeconds"}
    return {"labels": obj["metadata"].get("labels", {}), "spec": obj["spec"], "status": status}


def _quarantine(obj: Json) -> Json:
    metadata, status = obj["metadata"], dict(obj.get("status") or {})
    # How often the spec was written says nothing; that the status speaks of the newest one does.
    status["observedGeneration"] = status.get("observedGeneration") == metadata["generation"]
    return {
        "finalizers": metadata.get("finalizers", []),
        "deleting": "deletionTimestamp" in metadata,
        "spec": obj["spec"],
        "status": status,
    }


def _of_namespace(guard: Json | None, namespace: str) -> Json:
    """The part of the guard on bindings that is about identities of one namespace."""
    spec = (guard or {}).get("spec", {})
    return {
        part: {name: entry for name, entry in spec.get(part, {}).items() if namespace in re.split("[:/]", name)}
        for part in ("subjects", "writers", "groups", "entitlements")
    }


def memory(cluster: Cluster, namespace: str) -> Json:
    """What `tenure-state` remembers of a namespace: its turn, the acts begun, how many openings were counted."""
    data = state(cluster)
    acts = [act["id"] for act in data["acts"] if act["namespace"] == namespace]
    return {
        "turn": namespace in data["turns"],
        # What it is about and which opening; uids and their beginnings differ with every run.
        "acts": sorted(_UID.sub("UID", re.sub(r"-[0-9a-f]{6,10}@", "@", act)) for act in acts),
        "counted": sum(opening.startswith(f"{namespace}/") for opening in data["counted"]),
    }


def state(cluster: Cluster) -> Json:
    """`tenure-state`, parsed; empty parts where there is none yet."""
    found = cluster.get("configmaps", "tenure-state", HOME)
    data = (found or {}).get("data", {})
    empty = {"turns": "{}", "counters": "{}", "counted": "[]", "acts": "[]"}
    return {name: json.loads(data.get(name, text)) for name, text in empty.items()}


_MOVING: Final = ("conditions", "accountable")  # what holds, and who answers, may change within an opening


def instants(cluster: Cluster, namespace: str) -> dict[str, str]:
    """Every instant that is set in findings (by opening) and Quarantines, by its place. Once set, it never moves."""
    found: dict[str, str] = {}
    for kind in ("identityfindings", "quarantines"):
        for obj in cluster.list(kind, namespace):
            status = {key: value for key, value in (obj.get("status") or {}).items() if key not in _MOVING}
            _collect(status, f"{kind}/{obj['metadata']['name']}#{status.get('opening', 0)}", found)
    return found


def _collect(value: Any, place: str, found: dict[str, str]) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            _collect(inner, f"{place}.{key}", found)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            named = inner.get("name") or inner.get("type") or inner.get("verdict") if isinstance(inner, dict) else None
            _collect(inner, f"{place}[{named or index}]", found)
    elif isinstance(value, str) and _INSTANT.fullmatch(value):
        found[place] = value


def difference(expected: Any, seen: Any, place: str = "") -> list[str]:
    """What differs between two snapshots, one line each; empty when they are equal."""
    if isinstance(expected, dict) and isinstance(seen, dict):
        lines: list[str] = []
        for key in sorted(expected.keys() | seen.keys()):
            lines += difference(expected.get(key), seen.get(key), f"{place}.{key}".lstrip("."))
        return lines
    return [] if expected == seen else [f"{place}: expected {_short(expected)}, is {_short(seen)}"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 400 else f"{text[:400]}…"


def _sorted(value: Any) -> Any:
    """Lists in an order that no generated name decides."""
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        items: Iterable[Any] = (_sorted(item) for item in value)
        return sorted(items, key=lambda item: json.dumps(item, sort_keys=True))
    return value
