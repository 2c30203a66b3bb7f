"""Raw objects, as the API server or a manifest has them, to records. Everything a rule does not need ends here.

Pure: no clock, no I/O. What goes first is `kubectl.kubernetes.io/last-applied-configuration`, which on a Secret holds
its values. Of managedFields only the writer and time of the last data (or spec) change and the key names are read.

Records stay for the life of the process, so strings that repeat are interned, equal label sets, key names and
managers are shared, and a timestamp is parsed once per distinct second. The caches that do the sharing are bounded:
they are emptied when full, which costs memory for later equals and nothing else.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from sys import intern
from typing import Any, Final, Literal, TypeVar

from pydantic import ValidationError

from tenure.api.base import ApiModel
from tenure.api.claim import OwnedIdentitySpec, OwnedIdentityStatus
from tenure.api.decision import IdentityDecisionSpec, IdentityDecisionStatus
from tenure.api.exception import IdentityExceptionSpec, IdentityExceptionStatus
from tenure.api.finding import IdentityFindingSpec, IdentityFindingStatus
from tenure.api.guard import QuarantineGuardSpec
from tenure.api.names import (
    ANNOTATION_SERVICE_ACCOUNT_NAME,
    ANNOTATION_SERVICE_ACCOUNT_UID,
    LABEL_TOKEN_INVALID_SINCE,
    LABEL_TOKEN_LAST_USED,
    TYPE_SERVICE_ACCOUNT_TOKEN,
)
from tenure.api.owner import IdentityOwnerSpec, IdentityOwnerStatus
from tenure.api.policy import GovernancePolicySpec, GovernancePolicyStatus
from tenure.api.quarantine import QuarantineSpec, QuarantineStatus
from tenure.inventory.grading import decides, grade
from tenure.model.records import (
    Authored,
    Binding,
    Labels,
    ManagedBy,
    Namespace,
    Pod,
    Role,
    Secret,
    ServiceAccount,
    Subject,
    Unprocessable,
)

Raw = Mapping[str, Any]

LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
BOOTSTRAPPING: Final = "kubernetes.io/bootstrapping"
CLOUD_ROLES: Final = (
    "eks.amazonaws.com/role-arn",
    "iam.gke.io/gcp-service-account",
    "azure.workload.identity/client-id",
)
"""ServiceAccount annotations that give it a cloud role (ecosystem.md §5.4)."""

EXPIRIES: Final = (
    "auth.openshift.io/certificate-not-after",
    "service.beta.openshift.io/expiry",
    "service.alpha.openshift.io/expiry",
)
"""Secret annotations, RFC 3339, in which OpenShift's issuers write the end of the certificate they put there. (Of
cert-manager's, none says it.)"""

_CACHE: Final = 16_384
_EPOCH: Final = datetime.fromtimestamp(0, UTC)
_ERROR_LIMIT: Final = 300

T = TypeVar("T")
M = TypeVar("M", bound=ApiModel)


# --- what every object has ----------------------------------------------------------------------------------------


@lru_cache(maxsize=_CACHE)
def instant(text: str) -> datetime:
    """RFC 3339 as the API server writes it, UTC; equal texts give one object. Raises ValueError."""
    parsed = datetime.fromisoformat(text)
    return parsed if parsed.tzinfo is UTC else parsed.astimezone(UTC)


class _Shared(dict[Any, Any]):
    """Equal values become one object."""

    def __init__(self, limit: int = _CACHE) -> None:
        self._limit = limit

    def share(self, value: T) -> T:
        if len(self) >= self._limit:
            self.clear()
        shared: T = self.setdefault(value, value)
        return shared


_LABELS: Final = _Shared()
_KEYS: Final = _Shared()
_MANAGERS: Final = _Shared()
_SUBJECTS: Final = _Shared()
_FIELD_SETS: Final[dict[frozenset[str], set[str]]] = {}
_INSTANTS: Final = _Shared()
_WORDS: Final = _Shared(1_024)
"""What stands in models beside names: phrases that repeat, and what is said of one object alone, for which a place in
the interpreter's table of strings would cost as much as the string."""
_NAMES: Final = frozenset({"name", "namespace", "owner", "kind"})
"""Fields whose text stands in other objects too."""
_PARTS: Final = _Shared(1_024)
"""Nested models: few are equal, but those are in every finding (no debt, the same manager); hence small."""


def _labels(metadata: Raw) -> Labels:
    raw = metadata.get("labels")
    if not raw:
        return ()
    return _LABELS.share(tuple(sorted((intern(key), intern(value)) for key, value in raw.items())))


def _metadata(raw: Raw) -> Raw:
    """The metadata of a raw object, out of which last-applied-configuration is taken before anything is read."""
    metadata: Raw = raw["metadata"]
    annotations = metadata.get("annotations")
    if annotations:
        annotations.pop(LAST_APPLIED, None)
    return metadata


def _annotations(metadata: Raw) -> Raw:
    return metadata.get("annotations") or {}


def _version(metadata: Raw) -> int:
    text = metadata.get("resourceVersion")
    return int(text) if isinstance(text, str) and text.isdecimal() else 0  # a manifest may say anything


def _created(metadata: Raw) -> datetime:
    text = metadata.get("creationTimestamp")
    return instant(text) if text else _EPOCH  # only in a manifest: its reader puts in what it takes for the age


# --- who writes it back -------------------------------------------------------------------------------------------


def managed_by(metadata: Raw) -> ManagedBy | None:
    """Who writes the object back when it is changed, by the markers of kubernetes.md §h; None when nobody shows.

    An object may carry several (a Certificate's Secret in an Argo CD application): the one nearest to the object
    wins, so first the operators that produce it, then those that apply it."""
    labels: Raw = metadata.get("labels") or {}
    annotations = _annotations(metadata)
    owners = metadata.get("ownerReferences")
    found = None
    if labels or annotations or owners:
        found = _producer(metadata, labels, annotations, owners or ()) or _applier(metadata, labels, annotations)
    found = found or _writer(metadata)
    return _MANAGERS.share(found) if found else None


def _producer(metadata: Raw, labels: Raw, annotations: Raw, owners: Iterable[Raw]) -> ManagedBy | None:
    namespace = metadata.get("namespace", "")

    def named(name: str | None) -> str:
        return f"{namespace}/{name}" if name else ""

    owner = {reference.get("kind"): reference for reference in owners}
    if labels.get("controller.cert-manager.io/fao") or "cert-manager.io/certificate-name" in annotations:
        return ManagedBy("CertManager", named(annotations.get("cert-manager.io/certificate-name")))
    if "ExternalSecret" in owner or labels.get("reconcile.external-secrets.io/managed") == "true":
        return ManagedBy("ExternalSecrets", named(owner.get("ExternalSecret", {}).get("name")))
    if "SealedSecret" in owner or annotations.get("sealedsecrets.bitnami.com/managed") == "true":
        return ManagedBy("SealedSecrets", named(owner.get("SealedSecret", {}).get("name") or metadata.get("name")))
    if (
        "secrets.hashicorp.com/vso-ownerRefUID" in labels
        or labels.get("app.kubernetes.io/managed-by") == "hashicorp-vso"
    ):
        vault = next((ref for ref in owners if ref.get("apiVersion", "").startswith("secrets.hashicorp.com/")), {})
        return ManagedBy("VaultSecretsOperator", named(vault.get("name")), vault.get("kind", ""))
    if labels.get("secrets-store.csi.k8s.io/managed") == "true":
        return ManagedBy("SecretsStoreCSI", "")
    controller = next((reference for reference in owners if reference.get("controller")), None)
    if controller is not None:
        return ManagedBy("Controller", named(controller.get("name")), controller.get("kind", ""))
    return None


def _applier(metadata: Raw, labels: Raw, annotations: Raw) -> ManagedBy | None:
    if tracking := annotations.get("argocd.argoproj.io/tracking-id"):
        return ManagedBy("ArgoCD", tracking.partition(":")[0])
    if instance := labels.get("argocd.argoproj.io/instance"):
        return ManagedBy("ArgoCD", instance)
    for flux, kind in (("kustomize.toolkit.fluxcd.io", "Kustomization"), ("helm.toolkit.fluxcd.io", "HelmRelease")):
        if name := labels.get(f"{flux}/name"):
            return ManagedBy("Flux", f"{labels.get(f'{flux}/namespace', '')}/{name}", kind)
    if release := annotations.get("meta.helm.sh/release-name"):
        namespace = annotations.get("meta.helm.sh/release-namespace") or metadata.get("namespace", "")
        return ManagedBy("Helm", f"{namespace}/{release}")
    if labels.get("owner") == "helm" and metadata.get("name", "").startswith("sh.helm.release.v1."):
        return ManagedBy("Helm", f"{metadata.get('namespace', '')}/{labels.get('name', '')}")
    if labels.get("app.kubernetes.io/managed-by") == "Helm":
        return ManagedBy("Helm", "")  # rendered by Helm, applied by something that left no mark
    return None


_WRITERS: Final = {
    "argocd-controller": ManagedBy("ArgoCD", ""),
    "helm-controller": ManagedBy("Flux", "", "HelmRelease"),
    "kustomize-controller": ManagedBy("Flux", "", "Kustomization"),
}


def _writer(metadata: Raw) -> ManagedBy | None:
    """A manager that only its field manager tells (Argo CD with label tracking leaves nothing else)."""
    entries = metadata.get("managedFields") or ()
    return next((_WRITERS[writer] for entry in entries if (writer := entry.get("manager")) in _WRITERS), None)


# --- observed kinds -----------------------------------------------------------------------------------------------


def namespace(raw: Raw) -> Namespace:
    metadata = _metadata(raw)
    return Namespace(
        name=intern(metadata["name"]),
        uid=metadata.get("uid", ""),
        created=_created(metadata),
        labels=_labels(metadata),
        deleting="deletionTimestamp" in metadata,
        resource_version=_version(metadata),
    )


def service_account(raw: Raw) -> ServiceAccount:
    metadata = _metadata(raw)
    annotations = _annotations(metadata)
    return ServiceAccount(
        namespace=intern(metadata.get("namespace", "")),
        name=intern(metadata["name"]),
        uid=metadata.get("uid", ""),
        created=_created(metadata),
        labels=_labels(metadata),
        managed_by=managed_by(metadata),
        deleting="deletionTimestamp" in metadata,
        cloud_role=next((key for key in CLOUD_ROLES if key in annotations), "") if annotations else "",
        resource_version=_version(metadata),
    )


def secret(raw: Raw) -> Secret:
    """A Secret from its metadata and `type` (a Table row as `kube.informer.Rows` gives it, or a manifest, of whose
    data the key names alone are read).

    data_changed is an upper bound: a manager that wrote data and later only a label carries the later time."""
    metadata = _metadata(raw)
    annotations = _annotations(metadata)
    labels: Raw = metadata.get("labels") or {}
    type_ = intern(raw.get("type") or "Opaque")
    keys, changed, writer = _data(metadata.get("managedFields") or ())
    if not keys and ("data" in raw or "stringData" in raw):
        names = {*(raw.get("data") or ()), *(raw.get("stringData") or ())}
        keys = tuple(sorted(intern(name) for name in names))
    token = type_ == TYPE_SERVICE_ACCOUNT_TOKEN
    return Secret(
        namespace=intern(metadata.get("namespace", "")),
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        created=_created(metadata),
        type=type_,
        keys=_KEYS.share(keys),
        labels=_labels(metadata),
        data_changed=changed,
        data_writer=writer,
        service_account=intern(annotations.get(ANNOTATION_SERVICE_ACCOUNT_NAME, "")) if token else "",
        service_account_uid=annotations.get(ANNOTATION_SERVICE_ACCOUNT_UID, "") if token else "",
        marked_by=managed_by(metadata),
        invalid_since=intern(labels.get(LABEL_TOKEN_INVALID_SINCE, "")),
        last_used=intern(labels.get(LABEL_TOKEN_LAST_USED, "")),
        expires=_expiry(annotations) if annotations else None,
        deleting="deletionTimestamp" in metadata,
        resource_version=_version(metadata),
    )


def _expiry(annotations: Raw) -> datetime | None:
    """The end that an annotation tells; one that is no instant tells nothing."""
    for name in EXPIRIES:
        try:
            found = datetime.fromisoformat(annotations[name])
            if found.tzinfo is not None:
                return _INSTANTS.share(found.astimezone(UTC))
        except (KeyError, ValueError, OverflowError):
            continue
    return None


def _data(entries: Iterable[Raw]) -> tuple[tuple[str, ...], datetime | None, str]:
    """Key names, time and field manager of the last write of a Secret's data.

    f:stringData stands where server-side apply was given stringData: the API server stores it as data but keeps the
    applier's own words in managedFields (seen on 1.36)."""
    names: set[str] = set()
    latest, writer = "", ""
    for entry in entries:
        fields = entry.get("fieldsV1")
        if not fields or entry.get("subresource"):
            continue
        written = False
        for part in ("f:data", "f:stringData"):
            if part in fields:
                written = True
                names.update(fields[part])
        time = entry.get("time", "")
        if written and time >= latest:  # RFC 3339 in UTC sorts as text
            latest, writer = time, entry.get("manager", "")
    if not names and not latest:
        return (), None, ""
    keys = tuple(sorted(intern(name[2:]) for name in names if name.startswith("f:")))
    return keys, instant(latest) if latest else None, intern(writer)


def _subject(raw: Raw, namespace: str) -> Subject:
    kind = raw.get("kind", "")
    own = raw.get("namespace") or namespace if kind == "ServiceAccount" else ""
    return _SUBJECTS.share(Subject(intern(kind), intern(own), intern(raw.get("name", ""))))


def binding(raw: Raw) -> Binding:
    """A RoleBinding or ClusterRoleBinding. A ServiceAccount without namespace is of the RoleBinding's own."""
    metadata = _metadata(raw)
    role = raw.get("roleRef") or {}
    here = intern(metadata.get("namespace", ""))
    role_kind: Literal["Role", "ClusterRole"] = "Role" if role.get("kind") == "Role" else "ClusterRole"
    return Binding(
        namespace=here,
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        created=_created(metadata),
        role_kind=role_kind,
        role_name=intern(role.get("name", "")),
        subjects=tuple(_subject(subject, here) for subject in raw.get("subjects") or ()),
        bootstrap=BOOTSTRAPPING in (metadata.get("labels") or ()),
        managed_by=managed_by(metadata),
        labels=_labels(metadata),
        resource_version=_version(metadata),
    )


def role(raw: Raw) -> Role:
    """A Role or ClusterRole. An aggregated one carries the rules that its controller put together."""
    metadata = _metadata(raw)
    return Role(
        namespace=intern(metadata.get("namespace", "")),
        name=intern(metadata["name"]),
        uid=metadata.get("uid", ""),
        grades=grade(raw.get("rules")),
        decides=decides(raw.get("rules")),
        resource_version=_version(metadata),
    )


def pod(raw: Raw) -> Pod:
    metadata, spec = _metadata(raw), raw.get("spec") or {}
    account = spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
    names = _secrets_used(spec)
    return Pod(
        namespace=intern(metadata.get("namespace", "")),
        name=metadata["name"],
        service_account=intern(account),
        finished=(raw.get("status") or {}).get("phase") in ("Succeeded", "Failed"),
        secrets=_KEYS.share(tuple(sorted(names))) if names else (),
    )


def _secrets_used(spec: Raw) -> set[str]:
    """Every way a pod can name a Secret, ephemeral containers and CSI volumes included."""
    names: set[str | None] = {reference.get("name") for reference in spec.get("imagePullSecrets") or ()}
    for kind in ("containers", "initContainers", "ephemeralContainers"):
        for container in spec.get(kind) or ():
            for source in container.get("envFrom") or ():
                names.add((source.get("secretRef") or {}).get("name"))
            for variable in container.get("env") or ():
                if "valueFrom" in variable:
                    names.add((variable["valueFrom"].get("secretKeyRef") or {}).get("name"))
    for volume in spec.get("volumes") or ():
        for source in volume.values():
            if isinstance(source, dict):  # the other value is the volume's name
                names.update(_secrets_of_volume(source))
    return {intern(name) for name in names if name}


def _secrets_of_volume(source: Raw) -> Iterable[str | None]:
    yield source.get("secretName")  # secret, azureFile
    for reference in ("secretRef", "nodePublishSecretRef"):  # the older network volumes; csi
        yield (source.get(reference) or {}).get("name")
    for projected in source.get("sources") or ():
        yield (projected.get("secret") or {}).get("name")


# --- our own kinds ------------------------------------------------------------------------------------------------


def _spec_changed(metadata: Raw) -> datetime | None:
    """The latest time at which a manager wrote `spec`; an upper bound, as for a Secret's data."""
    times = [
        entry.get("time", "")
        for entry in metadata.get("managedFields") or ()
        if not entry.get("subresource") and "f:spec" in (entry.get("fieldsV1") or ())
    ]
    latest = max(times, default="")
    # Whoever may write the object may write its managedFields; nobody can set the time of its creation.
    return max(instant(latest), _created(metadata)) if latest else None


def _without_unknown(raw: Any, error: ValidationError) -> Any:
    """A copy of raw without the fields that the model does not know."""
    trimmed = copy.deepcopy(raw)
    for problem in error.errors(include_url=False, include_context=False, include_input=False):
        if problem["type"] != "extra_forbidden":
            continue
        *path, last = problem["loc"]
        place = trimmed
        for step in path:
            place = place[step]
        place.pop(last, None)
    return trimmed


def _read(model: type[M], raw: Any, *, lenient: bool) -> M:
    """Raises ValidationError. lenient drops unknown fields, as a newer version of Tenure may have written them."""
    try:
        return model.read(raw)
    except ValidationError as error:
        if not lenient:
            raise
        try:
            trimmed = _without_unknown(raw, error)
        except (KeyError, IndexError, TypeError, AttributeError):
            raise error from None
        return model.read(trimmed)


def _explain(error: ValidationError, part: str) -> str:
    """The first problem: where and why, without the value."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(step) for step in (part, *first["loc"]))
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{where}: {first['msg']}{more}"[:_ERROR_LIMIT]


def _compact(model: M) -> M:
    """The same model in less than half the memory: its equal parts are shared with other objects', and its attributes
    set one by one.

    A parsed model carries a set of the fields given, per nested model, which weighs more than the values; thousands of
    findings have the same few sets, dates and phrases. In the dict that pydantic makes at once the names of the
    attributes stand for each object; set one by one they stand once for the class (a finding's status: 832 bytes
    against 288). The models are frozen, so sharing is not seen. The slots are those that `BaseModel.model_construct`
    fills."""
    compact = type(model).__new__(type(model))
    for field, value in model.__dict__.items():
        object.__setattr__(compact, field, _compact_value(field, value))
    given = model.model_fields_set
    if len(_FIELD_SETS) >= _CACHE:
        _FIELD_SETS.clear()
    # A set, though nobody changes it: model_copy(update=…) copies it and adds to the copy.
    object.__setattr__(compact, "__pydantic_fields_set__", _FIELD_SETS.setdefault(frozenset(given), given))
    for slot in ("__pydantic_extra__", "__pydantic_private__"):
        object.__setattr__(compact, slot, getattr(model, slot))
    return compact


def _compact_value(field: str, value: Any) -> Any:
    if type(value) is str:
        return intern(value) if field in _NAMES else _WORDS.share(value)
    if type(value) is datetime:
        return _INSTANTS.share(value)
    if isinstance(value, ApiModel):
        part = _compact(value)
        try:
            return _PARTS.share(part)
        except TypeError:  # it has a map in it
            return part
    if type(value) is tuple:
        return tuple([_compact_value(field, item) for item in value]) if value else ()
    return value


def authored(
    kind: str,
    spec: type[ApiModel],
    status: type[ApiModel] | None,
    *,
    ours: bool = False,
) -> Callable[[Raw], Authored[Any, Any] | Unprocessable]:
    """The projection of one of our own kinds.

    What people write is read strictly: a field this version does not know may say something that matters, so such an
    object is Unprocessable, as is one that misses a field or breaks a bound. What the operator writes (ours) is
    read without the fields it does not know, and both spec and status must be readable, since the clocks are in
    them. An unreadable status of the others is None: it is written anew."""

    def project(raw: Raw) -> Authored[Any, Any] | Unprocessable:
        metadata = _metadata(raw)
        here, name = intern(metadata.get("namespace", "")), metadata["name"]
        uid, generation = metadata.get("uid", ""), metadata.get("generation", 0)
        version = metadata.get("resourceVersion", "")
        part = "spec"
        try:
            parsed = _compact(_read(spec, raw.get("spec"), lenient=ours))
            part = "status"
            state = _status(status, raw.get("status"), strict=ours)
        except ValidationError as error:
            cut = any(found["type"] == "missing" for found in error.errors(include_url=False, include_input=False))
            said = _explain(error, part)
            return Unprocessable(kind, here, name, uid, generation, version, said, cut, _spec_changed(metadata))
        deletion = metadata.get("deletionTimestamp")
        return Authored(
            kind=kind,
            namespace=here,
            name=name,
            uid=uid,
            generation=generation,
            resource_version=version,
            created=_created(metadata),
            spec=parsed,
            status=state,
            spec_changed=_spec_changed(metadata),
            labels=_labels(metadata),
            deletion=instant(deletion) if deletion else None,
            finalizers=tuple(intern(finalizer) for finalizer in metadata.get("finalizers") or ()),
        )

    return project


def _status(model: type[ApiModel] | None, raw: Any, *, strict: bool) -> ApiModel | None:
    if model is None or not raw:
        return None
    try:
        return _compact(_read(model, raw, lenient=True))
    except ValidationError:
        if strict:
            raise
        return None


Projection = Callable[[Raw], Any]

PROJECTIONS: Final[Mapping[str, Projection]] = {
    "Namespace": namespace,
    "ServiceAccount": service_account,
    "Secret": secret,
    "RoleBinding": binding,
    "ClusterRoleBinding": binding,
    "Role": role,
    "ClusterRole": role,
    "Pod": pod,
    "IdentityOwner": authored("IdentityOwner", IdentityOwnerSpec, IdentityOwnerStatus),
    "OwnedIdentity": authored("OwnedIdentity", OwnedIdentitySpec, OwnedIdentityStatus),
    "IdentityException": authored("IdentityException", IdentityExceptionSpec, IdentityExceptionStatus),
    "IdentityDecision": authored("IdentityDecision", IdentityDecisionSpec, IdentityDecisionStatus),
    "GovernancePolicy": authored("GovernancePolicy", GovernancePolicySpec, GovernancePolicyStatus),
    "IdentityFinding": authored("IdentityFinding", IdentityFindingSpec, IdentityFindingStatus, ours=True),
    "Quarantine": authored("Quarantine", QuarantineSpec, QuarantineStatus, ours=True),
    "QuarantineGuard": authored("QuarantineGuard", QuarantineGuardSpec, None, ours=True),
}
"""The projection of each kind in the inventory: raw object -> record, or Unprocessable for one of our own.
Raises KeyError, TypeError or ValueError for what is no object of the kind at all."""
