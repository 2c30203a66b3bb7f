"""What the operator did, judged by the API server's own audit log."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from tests.support.rest import Json
from tests.support.scenario import HOME

READS: Final = frozenset({"get", "list", "watch"})
REVIEWS: Final = frozenset(
    {"selfsubjectreviews", "selfsubjectaccessreviews", "selfsubjectrulesreviews", "subjectaccessreviews"}
)
PROVEN: Final = frozenset({"serviceaccounts", "pods", "secrets", "configmaps"})
"""What the operator's dry runs are about."""
AUTHORED: Final = frozenset(
    {"identityowners", "ownedidentities", "identityexceptions", "identitydecisions", "governancepolicies"}
)


def written(event: Json) -> str:
    """What a request wrote, such as `patch quarantines/status`; "" for a read and for a dry run."""
    if event["verb"] in READS or dry(event):
        return ""
    about = event.get("objectRef", {})
    sub = f"/{about['subresource']}" if about.get("subresource") else ""
    return f"{event['verb']} {about.get('resource', event['requestURI'])}{sub}"


def dry(event: Json) -> bool:
    """Whether it was to write nothing, whatever the answer."""
    return "dryRun=All" in event.get("requestURI", "")


def succeeded(event: Json) -> bool:
    """Whether the API server did what was asked."""
    return int(event.get("responseStatus", {}).get("code", 0)) < 300


def violations(events: Iterable[Json]) -> list[str]:
    """What the operator may never do, one line each; empty when it held to the contract.

    It writes findings, Quarantines with their status and finalizer, guards, the status of the kinds people author,
    Events, the ConfigMap `tenure-state`, reviews of its own access, and Secrets: a label, or the end, of those that a
    Quarantine of their namespace had named before; the end of a ServiceAccount that one had named; and, with the opt-in
    right, bindings, which a policy of their own holds it to. Its dry runs are about its synthetic identity alone.
    Requests that were refused count too: it should not even try.
    """
    found: list[str] = []
    quarantined: dict[str, set[str]] = {}
    for event in events:
        what = written(event)
        about = event.get("objectRef", {})
        namespace, name = about.get("namespace", ""), about.get("name", "")
        if dry(event) and (about.get("resource") not in PROVEN or (namespace, name) != (HOME, "tenure-proof")):
            found.append(f"a dry run of {event['verb']} {about.get('resource')} {namespace}/{name}")
        if not what:
            continue
        if what == "patch quarantines" and succeeded(event):
            quarantined.setdefault(namespace, set()).add(name.rpartition("-")[0])
        if not _allowed(what, about, quarantined.get(namespace, set())):
            code = event.get("responseStatus", {}).get("code")
            found.append(f"{what} {namespace}/{name} ({code})")
    return found


def _allowed(what: str, about: Json, quarantined: set[str]) -> bool:
    verb, _, resource = what.partition(" ")
    group, name = about.get("apiGroup", ""), about.get("name", "")
    if group == "tenure.dev":
        plural, _, subresource = resource.partition("/")
        if plural in AUTHORED:
            return verb == "patch" and subresource == "status"
        return verb in ("patch", "delete") and plural in ("identityfindings", "quarantines", "quarantineguards")
    if resource in REVIEWS or resource == "events":
        return verb == "create"
    if resource == "configmaps":
        return verb == "patch" and about.get("namespace") == HOME and name == "tenure-state"
    if resource in ("rolebindings", "clusterrolebindings"):
        # What it may change of one, a policy holds it to.
        return verb in ("patch", "delete")
    if resource == "serviceaccounts":
        return verb == "delete" and f"serviceaccount-{name}" in quarantined
    if resource == "secrets":
        # Its own Quarantine, or its ServiceAccount's: which of these that is, the metadata of a request does not say.
        own = f"secret-{name}" in quarantined
        return verb in ("patch", "delete") and (own or any(q.startswith("serviceaccount-") for q in quarantined))
    return False
