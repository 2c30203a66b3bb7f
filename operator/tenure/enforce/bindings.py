"""Subjects of bindings: taken out and put back, each in its place.

What is woven and cut is pure. Places are those in the binding with everything in it that Quarantines hold out of it:
so in whichever order they take and give back, the binding ends as it was. Each write carries uid and resourceVersion,
and says in an annotation what is out: that is what the policy on the operator's own writes lets it put back.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final

from tenure.api.names import ANNOTATION_REMOVED_SUBJECTS
from tenure.api.quarantine import BindingSubject, PreImage, PreImageRoleRef, RemovedSubject
from tenure.enforce.means import Means
from tenure.inventory import entitlements
from tenure.inventory.projection import PROJECTIONS, managed_by
from tenure.kube.client import Kube
from tenure.kube.errors import Forbidden, NotFound
from tenure.kube.resources import BY_KIND

Raw = dict[str, Any]

LIMIT: Final = "tenure-limit-entitlements"
"""The policy that holds the operator to removing subjects and putting them back."""


# --- pure ---------------------------------------------------------------------------------------------------------


def form(subject: Raw, namespace: str) -> str:
    """`ServiceAccount:<namespace>:<name>` or `<kind>:<name>`, as the annotation lists it."""
    return entitlements.form(entitlements.subject_of(_stored(subject), namespace))


def cut(
    subjects: Sequence[Raw], forms: Collection[str], namespace: str, out: Iterable[RemovedSubject] = ()
) -> tuple[list[Raw], list[RemovedSubject]]:
    """The subjects that stay, and those of these forms with their places; among them what is `out` already."""
    removed = [
        RemovedSubject(index=index, subject=_stored(subject))
        for index, subject in enumerate(woven(subjects, out))
        if form(subject, namespace) in forms
    ]
    return [subject for subject in subjects if form(subject, namespace) not in forms], removed


def woven(subjects: Sequence[Raw], out: Iterable[RemovedSubject]) -> list[Raw]:
    """The subjects with those that are out, each in its place, or as near as there are places. One of the same form
    that somebody put in again is not doubled: it is moved nowhere either."""
    found = list(subjects)
    for entry in sorted(dict.fromkeys(out), key=lambda entry: entry.index):
        if raw(entry.subject) not in subjects:
            found.insert(min(entry.index, len(found)), raw(entry.subject))
    return found


def mended(
    subjects: Sequence[Raw], mine: Sequence[RemovedSubject], others: Sequence[RemovedSubject], namespace: str
) -> list[Raw]:
    """The subjects with mine back in their places, without what others hold out."""
    there = {form(subject, namespace) for subject in subjects}
    back = [entry for entry in mine if form(raw(entry.subject), namespace) not in there]
    wanted = [*subjects, *(raw(entry.subject) for entry in back)]
    return [subject for subject in woven(subjects, [*back, *others]) if subject in wanted]


def raw(stored: BindingSubject) -> Raw:
    """A stored subject as the API server had it."""
    fields = {"kind": stored.kind, "apiGroup": stored.api_group, "name": stored.name, "namespace": stored.namespace}
    return {name: value for name, value in fields.items() if value is not None}


def _stored(subject: Raw) -> BindingSubject:
    return BindingSubject(
        kind=subject.get("kind", ""),
        api_group=subject.get("apiGroup"),
        namespace=subject.get("namespace"),
        name=subject.get("name", ""),
    )


def listed(binding: Raw) -> list[str]:
    """What the annotation says is out."""
    text = (binding["metadata"].get("annotations") or {}).get(ANNOTATION_REMOVED_SUBJECTS) or ""
    return [found for found in text.split(",") if found]


def command(image: PreImage, subjects: Sequence[Raw]) -> str:
    """What a person runs to put the subjects back."""
    where = f" -n {image.namespace}" if image.namespace else ""
    added = json.dumps([{"op": "add", "path": "/subjects/-", "value": subject} for subject in subjects])
    return f"kubectl patch {image.kind.lower()} {image.name}{where} --type=json -p '{added}'"


def manifest(image: PreImage, subjects: Sequence[Raw]) -> str:
    """The binding that is gone, with the subjects that were taken out of it."""
    metadata = {"name": image.name} | ({"namespace": image.namespace} if image.namespace else {})
    role = {"apiGroup": image.role_ref.api_group, "kind": image.role_ref.kind, "name": image.role_ref.name}
    made = {"apiVersion": image.api_version, "kind": image.kind, "metadata": metadata, "roleRef": role}
    return json.dumps({**made, "subjects": list(subjects)})


# --- on the wire --------------------------------------------------------------------------------------------------


async def read(kube: Kube, kind: str, namespace: str, name: str) -> Raw | None:
    """The binding as it is now; None when it is gone."""
    try:
        return await kube.get(BY_KIND[kind], name, namespace)
    except NotFound:
        return None


async def pre_image(m: Means, binding: Raw, forms: Collection[str], out: Iterable[RemovedSubject]) -> PreImage | None:
    """What is to be remembered of the binding before it is changed; None where there is nothing to take out."""
    metadata, role = binding["metadata"], binding["roleRef"]
    namespace = metadata.get("namespace", "")
    _, removed = cut(binding.get("subjects") or [], forms, namespace, out)
    if not removed:
        return None
    image = PreImage(
        api_version=binding["apiVersion"],
        kind=binding["kind"],
        namespace=namespace or None,
        name=metadata["name"],
        uid=metadata["uid"],
        role_ref=PreImageRoleRef(api_group=role.get("apiGroup", ""), kind=role["kind"], name=role["name"]),
        role_rules_digest=await digest(m.kube, namespace, role["kind"], role["name"]),
    )
    # Not bounded here: too many are refused where there is to be room for them (tenure.enforce.room).
    return image.model_copy(update={"removed": tuple(removed)})


async def digest(kube: Kube, namespace: str, kind: str, name: str) -> str:
    """Of the role's rules, in any order; "" where there is no such role. `deploy/uninstall.sh` computes the same."""
    role = await role_of(kube, namespace, kind, name)
    if role is None:
        return ""
    rules = sorted(
        json.dumps(rule, sort_keys=True, separators=(",", ":"), ensure_ascii=False) for rule in role.get("rules") or ()
    )
    return hashlib.sha256("".join(f"{rule}\n" for rule in rules).encode()).hexdigest()


async def role_of(kube: Kube, namespace: str, kind: str, name: str) -> Raw | None:
    """The role that a binding refers to, None when there is none."""
    try:
        return await kube.get(BY_KIND[kind], name, namespace if kind == "Role" else "")
    except NotFound:
        return None


async def take_out(m: Means, image: PreImage, *, only_look: bool = False) -> bool:
    """Takes what the pre-image lists out of the binding, if it is still that one. True when nothing of it is in there
    now. Raises ApiError."""
    binding = await _that(m.kube, image)
    if binding is None:
        return True
    namespace, forms = image.namespace or "", _forms(image)
    subjects = binding.get("subjects") or []
    left, _ = cut(subjects, forms, namespace)
    if len(left) != len(subjects) and not only_look:
        binding = await _write(m, binding, left, sorted({*listed(binding), *forms}))
    return not any(form(subject, namespace) in forms for subject in binding.get("subjects") or ())


async def put_back(m: Means, image: PreImage, others: Sequence[RemovedSubject]) -> str:
    """Puts back what the pre-image lists and no other Quarantine holds. Returns what was not put back, why, and how to
    do it by hand; "" when all is back. Raises ApiError."""
    where = f"{image.kind} {image.namespace + '/' if image.namespace else ''}{image.name}"
    namespace = image.namespace or ""
    held = {form(raw(entry.subject), namespace) for entry in others}
    mine = [entry for entry in image.removed if form(raw(entry.subject), namespace) not in held]
    kept = f"{where}: held by another Quarantine" if len(mine) < len(image.removed) else ""
    if not mine:
        return kept
    subjects = [raw(entry.subject) for entry in mine]
    place = m.store.namespaces.get(namespace)
    if namespace and place is not None and place.deleting:
        return f"{where}: its namespace is being deleted"
    binding = await _that(m.kube, image)
    if binding is None:
        return f"{where}: it is gone, or another one has its name; to bind again, apply {manifest(image, subjects)}"
    role = image.role_ref
    if await digest(m.kube, namespace, role.kind, role.name) != image.role_rules_digest:
        why = f"{role.kind} {role.name} grants something else by now"
        return f"{where}: {why}; to bind all the same, run {command(image, subjects)}"
    before = binding.get("subjects") or []
    after = mended(before, mine, others, namespace)
    left = [found for found in listed(binding) if found not in _forms(image) - held]
    if after == before and left == listed(binding):
        return kept
    try:
        await _write(m, binding, after, left)
    except Forbidden as error:
        if LIMIT not in str(error):
            raise
        return f"{where}: the annotation that listed it is gone; to bind again, run {command(image, subjects)}"
    return kept


async def finish(m: Means, image: PreImage, others: Sequence[RemovedSubject]) -> None:
    """After revocation: nothing of it may be put back any more. A binding that is empty by then goes, unless somebody
    manages it, or another Quarantine may have to give something back. Raises ApiError."""
    binding = await _that(m.kube, image)
    if binding is None:
        return
    metadata = binding["metadata"]
    held = {form(raw(entry.subject), image.namespace or "") for entry in others}
    left = [found for found in listed(binding) if found not in _forms(image) - held]
    managed = managed_by(metadata) is not None or metadata.get("ownerReferences") or metadata.get("finalizers")
    if not binding.get("subjects") and not left and not managed and listed(binding):
        with contextlib.suppress(NotFound):
            version = metadata["resourceVersion"]
            resource = BY_KIND[image.kind]
            await m.kube.delete(resource, image.name, image.namespace or "", uid=image.uid, resource_version=version)
        m.store.remove(image.kind, image.namespace or "", image.name)
    elif left != listed(binding):
        await _write(m, binding, binding.get("subjects") or [], left)


def _forms(image: PreImage) -> set[str]:
    return {form(raw(entry.subject), image.namespace or "") for entry in image.removed}


async def _that(kube: Kube, image: PreImage) -> Raw | None:
    """The very binding, with the very role."""
    binding = await read(kube, image.kind, image.namespace or "", image.name)
    if binding is None or binding["metadata"]["uid"] != image.uid:
        return None
    role = binding["roleRef"]
    same = (role["kind"], role["name"]) == (image.role_ref.kind, image.role_ref.name)
    return binding if same else None


async def _write(m: Means, binding: Raw, subjects: list[Raw], out: Sequence[str]) -> Raw:
    metadata = binding["metadata"]
    written = await m.kube.merge_patch(
        BY_KIND[binding["kind"]],
        metadata["name"],
        metadata.get("namespace", ""),
        {"metadata": {"annotations": {ANNOTATION_REMOVED_SUBJECTS: ",".join(out) or None}}, "subjects": subjects},
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
    )
    m.store.upsert(binding["kind"], PROJECTIONS[binding["kind"]](written))
    return written
