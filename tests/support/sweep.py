"""Names for the operator's writes that say what each does, so that a sweep can list them and notice a new one.

Two runs of one path may order their writes differently (eight workers judge, one enforces), but each write has its
name: what it changes, and the state it brings that to. Names hold neither a namespace nor a uid.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from tests.support.proxy import Request, Write
from tests.support.scenario import HOME, OFF, REMOVED

_STATE_SHORT = {"quarantineguards": "guard", "identityfindings": "finding", "quarantines": "quarantine"}


def name_of(write: Request, namespace: str) -> str:
    """What a write does, seen from one namespace: `secret ci-a: off`, `quarantine of serviceaccount-ci: intent`."""
    body: Mapping[str, Any] = write.body if isinstance(write, Write) and isinstance(write.body, dict) else {}
    if write.resource == "configmaps":
        return f"memory: {_memory(body.get('data', {}), namespace)}"
    if write.resource == "identityfindings" and write.verb == "apply":
        return f"finding {_finding(body)}"
    if write.resource == "quarantineguards" and write.name == "decisions":
        return f"{write.verb} guard on decisions"
    if write.resource == "quarantineguards":
        where = "bindings" if write.namespace == HOME else "namespace"
        if write.verb == "delete":  # the one for bindings goes with the last quarantined identity of the whole cluster
            return f"guard of {where}: {'not named' if where == 'bindings' else 'deleted'}"
        return f"guard of {where}: {_guard(body.get('spec', {}), namespace, where)}"
    if write.resource == "secrets":
        if write.verb == "delete":
            return f"secret {write.name}: deleted"
        value = body.get("metadata", {}).get("labels", {}).get(OFF)
        return f"secret {write.name}: {'off' if value else 'on'}"
    if write.resource == "identitydecisions":
        said = body.get("status", {})
        begun = "" if said.get("effect") else ", not begun"
        return f"decision {write.name}: {said.get('outcome')}{begun if said.get('outcome') == 'Counted' else ''}"
    if write.resource == "serviceaccounts":
        return f"account {write.name}: deleted"
    if write.resource in ("rolebindings", "clusterrolebindings"):
        return f"binding {write.name}: {_binding(write, body)}"
    if write.resource == "quarantines":
        return f"quarantine of {_held(write.name)}: {_quarantine(write, body)}"
    short = _STATE_SHORT.get(write.resource, write.resource)
    return f"{write.verb} {short}{'/' if write.subresource else ''}{write.subresource}"


def _memory(data: Mapping[str, str], namespace: str) -> str:
    turn = "turned, " if namespace in json.loads(data.get("turns", "{}")) else ""
    counted = sum(opening.startswith(f"{namespace}/") for opening in json.loads(data.get("counted", "[]")))
    acts = sum(act["namespace"] == namespace for act in json.loads(data.get("acts", "[]")))
    return f"{turn}{counted} counted, {acts} acts"


def _finding(body: Mapping[str, Any]) -> str:
    spec, status = body.get("spec", {}), body.get("status", {})
    parts = [status.get("phase", "")]
    if status.get("dueOutcome"):
        parts.append(status["dueOutcome"])
    if status.get("decision"):
        parts.append(f"by {status['decision']['source']}")
    for act in status.get("acts", ()):
        how = next((how for how in ("verified", "enforced", "started") if act.get(how)), "wanted")
        parts.append(f"{act['verdict']} {how}")
    if status.get("released"):
        parts.append("released")
    owner = status.get("accountable", {}).get("owner")
    if owner:
        parts.append(f"owner {owner}")
    subject = spec.get("subject", {})
    return f"{spec.get('rule')} of {subject.get('kind')}/{subject.get('name')}: {', '.join(parts)}"


def _guard(spec: Mapping[str, Any], namespace: str, where: str) -> str:
    if where == "bindings":
        here = [part for part in ("subjects", "writers") if any(namespace in n.split(":") for n in spec.get(part, {}))]
        told = [{"subjects": "named", "writers": "held from writing"}[part] for part in here]
        out = sum(name.startswith(f"{namespace}/") for name in spec.get("entitlements", {}))
        return ", ".join([*told, *([f"{out} out"] if out else [])]) or "not named"
    parts = [
        f"{len(spec[part])} {words}"
        for part, words in (
            ("serviceAccounts", "accounts"),
            ("secrets", "secrets"),
            ("withheld", "withheld"),
            ("revokedNames", "revoked"),
        )
        if spec.get(part)
    ]
    return ", ".join(parts) or "nothing"


def _binding(write: Request, body: Mapping[str, Any]) -> str:
    if write.verb == "delete":
        return "deleted"
    out = (body.get("metadata", {}).get("annotations", {}).get(REMOVED) or "").split(",")
    return f"{len(body.get('subjects') or ())} in, {sum(map(bool, out))} out"


def _held(name: str) -> str:
    """What a Quarantine of that name is about; (2) and so on is a further object of it."""
    found = re.fullmatch("(.+)-[0-9a-f]{6,10}(?:-([2-9]))?", name)
    return (found[1] + (f" ({found[2]})" if found[2] else "")) if found else name


def _quarantine(write: Request, body: Mapping[str, Any]) -> str:
    if write.verb == "delete":
        return "deleted"
    if write.verb == "patch":
        return "finalizer off"
    if not write.subresource:
        return "intent" if body.get("metadata", {}).get("finalizers") else "record"
    status = body.get("status", {})
    parts = [f"{stage['name']} {_stage(stage)}" for stage in status.get("stages", ())]
    for part, words in (("disabledTokens", "remembered"), ("preImages", "bindings remembered")):
        if status.get(part):
            parts.append(f"{len(status[part])} {words}")
    if status.get("continuedIn"):
        parts.append(f"continued in {len(status['continuedIn'])}")
    revoked = status.get("revoked", ())
    done = sum(bool(entry.get("done")) for entry in revoked)
    if revoked:
        parts.append(f"{done} of {len(revoked)} revoked")
    if status.get("attempt"):
        parts.append("used")
    if status.get("release"):
        parts.append("releasing")
    return ", ".join(parts) or "nothing"


def _stage(stage: Mapping[str, Any]) -> str:
    return "verified" if stage.get("verified") else "failed" if stage.get("error") else "begun"
