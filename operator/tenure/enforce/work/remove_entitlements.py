"""RemoveEntitlements: pre-images of all bindings stored -> out of each binding -> asked whether it may still.

Of a ServiceAccount every binding that names it, in every form; of an entitlement the one subject of the one binding.
What Kubernetes keeps bound itself (bootstrap bindings) is left alone: it would be put back.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from tenure.api.names import Stage
from tenure.api.quarantine import PreImage, QuarantineStatus
from tenure.decide.hold import Quarantine
from tenure.enforce import bindings
from tenure.enforce.contention import Reverted, stopped
from tenure.enforce.means import Means
from tenure.enforce.quarantine import is_itself_revoked, others_out, subject_of
from tenure.inventory import entitlements
from tenure.inventory.store import service_account_of
from tenure.kube.resources import SUBJECT_ACCESS_REVIEWS
from tenure.model.keys import Key
from tenure.model.namespaced import Name2
from tenure.model.records import Binding, Subject

_PROBES: Final = 3  # rules of one role that are asked about
_LINES: Final = 8
_PATIENCE: Final = 3.0  # seconds until the API server's authorizer has seen a binding's change
_PAUSE: Final = 0.1


def held(m: Means, /) -> str:
    return "MissingRight" if m.proof.faults[Stage.REMOVE_ENTITLEMENTS] else ""


async def carry_out(m: Means, quarantine: Quarantine, /) -> tuple[Quarantine, bool]:
    quarantine = await _remember(m, quarantine)
    images = quarantine.status.pre_images if quarantine.status else ()
    out = all([await bindings.take_out(m, image, only_look=stopped(m, quarantine, _key(image))) for image in images])
    residual, settled = await _still_granted(m, images)
    status = (quarantine.status or QuarantineStatus()).model_copy(update={"residual": tuple(residual[:_LINES])})
    return replace(quarantine, status=status), out and settled


def undone(m: Means, quarantine: Quarantine, /) -> bool:
    """It is bound again, or somewhere else."""
    return any(not stopped(m, quarantine, _key(binding)) for binding in _bound(m, quarantine))


def reverts(m: Means, quarantine: Quarantine, /) -> list[Reverted]:
    """The very bindings it was taken out of and is in again; another binding is no revert."""
    known = {image.uid for image in quarantine.status.pre_images} if quarantine.status else set()
    forms = " or ".join(sorted(forms_of(subject_of(quarantine))))
    return [
        Reverted(
            key=_key(binding),
            what="what was taken out is a subject again",
            want=f"subjects without {forms}.",
            field=("f:subjects",),
            managed=binding.managed_by,
        )
        for binding in _bound(m, quarantine)
        if binding.uid in known
    ]


async def give_back(m: Means, quarantine: Quarantine, /) -> list[str]:
    status = quarantine.status or QuarantineStatus()
    if is_itself_revoked(quarantine):
        return []
    key, kept = subject_of(quarantine), []
    if key.kind == "ServiceAccount" and m.is_gone(key, quarantine) and status.pre_images:
        why = "its ServiceAccount is gone, and a namesake inherits nothing; to bind that, run "
        return [
            f"{image.kind} {image.name}: {why}"
            + bindings.command(image, [bindings.raw(entry.subject) for entry in image.removed])
            for image in status.pre_images
        ]
    for image in reversed(status.pre_images):
        kept.append(await bindings.put_back(m, image, others_out(m.store, image.uid, quarantine)))
    return [line for line in kept if line]


def _key(found: Binding | PreImage) -> Key:
    """Of the binding as an object."""
    return Key(found.kind, found.namespace or "", found.name)


def _bound(m: Means, quarantine: Quarantine) -> list[Binding]:
    """The bindings that name it now, as the inventory has them."""
    key = subject_of(quarantine)
    if key.kind == "ServiceAccount":
        return [found for found in m.store.bindings_of(key.namespace, key.name) if not found.bootstrap]
    found = m.store.get(key)
    if not isinstance(found, Binding) or found.uid != quarantine.spec.subject.uid:
        return []
    return [found] if key in entitlements.of(found, m.store.home) else []


def forms_of(key: Key) -> frozenset[str]:
    """Every form in which bindings may name it."""
    if key.kind != "ServiceAccount":
        return frozenset({key.form})
    user = f"system:serviceaccount:{key.namespace}:{key.name}"
    return frozenset({f"ServiceAccount:{key.namespace}:{key.name}", f"User:{user}"})


async def _remember(m: Means, quarantine: Quarantine) -> Quarantine:
    """Stores the pre-images of all bindings before the first of them is changed. One that another Quarantine took it
    out of already counts too: what two hold is given back when the last one goes. Raises Held for too many of them."""
    key, status = subject_of(quarantine), quarantine.status or QuarantineStatus()
    known = {image.uid: image for image in status.pre_images}
    images = dict(known)
    for kind, namespace, name in _places(m, quarantine):
        binding = await bindings.read(m.kube, kind, namespace, name)
        if binding is None:
            continue
        uid = binding["metadata"]["uid"]
        if key.part and uid != quarantine.spec.subject.uid:
            continue
        out = [*others_out(m.store, uid, quarantine), *(known[uid].removed if uid in known else ())]
        found = await bindings.pre_image(m, binding, forms_of(key), out)
        if found is None:
            continue
        if uid not in known:
            images[uid] = found
        else:
            had = {json.dumps(bindings.raw(entry.subject)) for entry in known[uid].removed}
            more = [entry for entry in found.removed if json.dumps(bindings.raw(entry.subject)) not in had]
            if more:
                images[uid] = known[uid].model_copy(update={"removed": (*known[uid].removed, *more)})
    if images == known:
        return quarantine
    return await m.remember(quarantine, images.values())


def _places(m: Means, quarantine: Quarantine) -> Iterable[tuple[str, str, str]]:
    """Kind, namespace and name of the bindings to look at: those that name it, and those that did until another
    Quarantine came."""
    key = subject_of(quarantine)
    if key.part:
        return [(key.kind, "" if key.kind == "ClusterRoleBinding" else key.namespace, key.name)]
    found = {(binding.kind, binding.namespace, binding.name) for binding in _bound(m, quarantine)}
    for other in m.store.quarantines_removing(key.namespace, key.name):
        if not is_itself_revoked(other) and other.status is not None:
            found |= {(image.kind, image.namespace or "", image.name) for image in other.status.pre_images}
    return sorted(found)


# --- the effect -----------------------------------------------------------------------------------------------------


async def _still_granted(m: Means, images: Iterable[PreImage]) -> tuple[list[str], bool]:
    """What the API server still allows of what was taken, each with the binding that does; and whether it has taken
    notice of all that was done."""
    residual: dict[str, None] = {}
    for image in images:
        for account in {account for account in map(service_account_of, _subjects(image)) if account is not None}:
            for attributes in await _probes(m, image):
                line, settled = await _asked(m, image, account, attributes)
                if not settled:
                    return list(residual), False
                if line:
                    residual[line] = None
    return list(residual), True


def _subjects(image: PreImage) -> list[Subject]:
    return [entitlements.subject_of(entry.subject, image.namespace or "") for entry in image.removed]


async def _probes(m: Means, image: PreImage) -> list[dict[str, Any]]:
    """A question for each of the role's first rules: what the rule itself names."""
    role = await bindings.role_of(m.kube, image.namespace or "", image.role_ref.kind, image.role_ref.name)
    found: list[dict[str, Any]] = []
    for rule in (role or {}).get("rules") or ():
        if rule.get("resources"):
            plural, _, subresource = rule["resources"][0].partition("/")
            asked = {"verb": rule["verbs"][0], "group": (rule.get("apiGroups") or [""])[0], "resource": plural}
            asked |= {"subresource": subresource, "namespace": image.namespace or ""}
            asked["name"] = (rule.get("resourceNames") or [""])[0]
            found.append({"resourceAttributes": {name: value for name, value in asked.items() if value}})
        elif rule.get("nonResourceURLs") and not image.namespace:
            found.append({"nonResourceAttributes": {"path": rule["nonResourceURLs"][0], "verb": rule["verbs"][0]}})
    return found[:_PROBES]


async def _asked(m: Means, image: PreImage, account: Name2, attributes: dict[str, Any]) -> tuple[str, bool]:
    """What still allows it, "" for nothing. The authorizer sees a change a moment late: asked again until it does not
    name the binding that we took it out of."""
    namespace, name = account
    place = f'{image.kind} "{image.name}{f"/{image.namespace}" if image.namespace else ""}"'
    body = {
        "apiVersion": SUBJECT_ACCESS_REVIEWS.api_version,
        "kind": SUBJECT_ACCESS_REVIEWS.kind,
        "spec": {
            "user": f"system:serviceaccount:{namespace}:{name}",
            "groups": ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"],
            **attributes,
        },
    }
    until = asyncio.get_running_loop().time() + _PATIENCE
    while True:
        answer = (await m.kube.create(SUBJECT_ACCESS_REVIEWS, body))["status"]
        if not answer.get("allowed"):
            return "", True
        reason = str(answer.get("reason", ""))
        if place not in reason or " to Group " in reason:
            what = attributes.get("resourceAttributes") or attributes["nonResourceAttributes"]
            right = f"{what['verb']} {what.get('resource') or what.get('path')}"
            return f"{right} is still allowed: {reason.removeprefix('RBAC: allowed by ')}", True
        if asyncio.get_running_loop().time() > until:
            return "", False
        await asyncio.sleep(_PAUSE)
