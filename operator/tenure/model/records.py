"""Records of the observed objects, trimmed to what a rule, a guard or a report needs.

One record per object stays in memory for the life of the process, so each field is paid for
120,000 times on the size Tenure is made for: strings that repeat are interned by the projection,
empty collections are the shared empty tuple, and nothing is kept "in case".

`resource_version` of the observed kinds (0 = unknown) orders what was read live and what the watch brings; it is no
part of a record's equality, since it moves with changes that are of no interest here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar, Generic, Literal, TypeVar

from tenure.api.names import TYPE_SERVICE_ACCOUNT_TOKEN

Spec = TypeVar("Spec")
Status = TypeVar("Status")

Labels = tuple[tuple[str, str], ...]
"""Label pairs in key order; equal sets share one tuple (see inventory.projection)."""


@dataclass(frozen=True, slots=True)
class ManagedBy:
    """Who writes the object back if it is changed: manager is a product (Helm, ArgoCD, Flux, CertManager,
    ExternalSecrets, SealedSecrets, VaultSecretsOperator, SecretsStoreCSI, TokenController; Controller for one that only
    an owner reference tells), name its release, app or custom resource."""

    manager: str
    name: str
    kind: str = ""
    """The kind of that, where the product has several."""


@dataclass(frozen=True, slots=True)
class Namespace:
    name: str
    uid: str
    created: datetime
    labels: Labels = ()
    deleting: bool = False
    resource_version: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    namespace: str
    name: str
    uid: str
    created: datetime
    labels: Labels = ()
    managed_by: ManagedBy | None = None
    deleting: bool = False
    cloud_role: str = ""
    """The cloud role annotation's key (ecosystem.md §5.4), "" when it has none."""
    resource_version: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Secret:
    """A Secret without its values: what a Table row's PartialObjectMetadata tells."""

    namespace: str
    name: str
    uid: str
    created: datetime
    type: str
    keys: tuple[str, ...] = ()
    """Names of the data keys, from managedFields, sorted; () when no manager recorded any."""
    labels: Labels = ()
    data_changed: datetime | None = None
    """Time of the last write of `data` (managedFields); None = unknown, then `created` counts."""
    data_writer: str = ""
    """The field manager that last wrote `data`."""
    service_account: str = ""
    """For service-account-token Secrets: the annotation kubernetes.io/service-account.name."""
    service_account_uid: str = ""
    marked_by: ManagedBy | None = None
    """Who writes it back by its marks; see `managed_by`."""
    invalid_since: str = ""
    """Value of the label kubernetes.io/legacy-token-invalid-since; "" = the token works."""
    last_used: str = ""
    """Value of the label kubernetes.io/legacy-token-last-used, YYYY-MM-DD (day granularity)."""
    expires: datetime | None = None
    """Its own end, as whoever issued it annotated it; None = it says nothing (its values are not read)."""
    deleting: bool = False
    resource_version: int = field(default=0, compare=False)

    @property
    def managed_by(self) -> ManagedBy | None:
        """Who writes it back; where no mark says otherwise, a token is its ServiceAccount's token controller's."""
        if self.marked_by is None and self.type == TYPE_SERVICE_ACCOUNT_TOKEN:
            return ManagedBy("TokenController", f"{self.namespace}/{self.service_account}")
        return self.marked_by

    @property
    def rotated(self) -> datetime:
        """When the data last changed, as far as it is known."""
        return self.data_changed or self.created


@dataclass(frozen=True, slots=True)
class Subject:
    """One subject of a binding. kind: ServiceAccount | User | Group; namespace only for ServiceAccount,
    already defaulted to the RoleBinding's own."""

    kind: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Binding:
    """A RoleBinding, or a ClusterRoleBinding (namespace == "")."""

    namespace: str
    name: str
    uid: str
    created: datetime
    role_kind: Literal["Role", "ClusterRole"]
    role_name: str
    subjects: tuple[Subject, ...] = ()
    bootstrap: bool = False
    """Carries the label kubernetes.io/bootstrapping: the API server restores it at start."""
    managed_by: ManagedBy | None = None
    labels: Labels = ()
    resource_version: int = field(default=0, compare=False)

    @property
    def kind(self) -> str:
        return "RoleBinding" if self.namespace else "ClusterRoleBinding"


@dataclass(frozen=True, slots=True)
class Grade:
    """One row of ecosystem.md §6 that a role's rules fulfil. `cluster` and `namespaced` are the levels
    ("" = not applicable, else Low|Medium|High|Critical) the row gives in that scope."""

    row: str
    cluster: str
    namespaced: str
    what: str
    """In words for a person: "create serviceaccounts/token"."""


@dataclass(frozen=True, slots=True)
class Role:
    """A Role, or a ClusterRole (namespace == ""). Its rules are graded when projected and then dropped."""

    namespace: str
    name: str
    uid: str
    grades: tuple[Grade, ...] = ()
    decides: tuple[str, ...] = ()
    """The decision verbs that its rules name (see inventory.grading.decides), sorted; equal ones share one tuple."""
    resource_version: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Pod:
    namespace: str
    name: str
    service_account: str
    finished: bool = False
    """Phase Succeeded or Failed: its bound token no longer works."""
    secrets: tuple[str, ...] = ()
    """Names of Secrets it mounts, takes environment from or pulls images with; sorted."""
    uid: ClassVar[str] = ""
    resource_version: ClassVar[int] = 0
    """Neither is kept: no pod is read live or written, so its watch alone tells of it, in order."""


@dataclass(frozen=True, slots=True)
class Authored(Generic[Spec, Status]):
    """One object of Tenure's own kinds: the parsed spec beside what the API server stamped."""

    kind: str
    namespace: str
    name: str
    uid: str
    generation: int
    resource_version: str
    created: datetime
    spec: Spec
    status: Status | None = None
    spec_changed: datetime | None = None
    """The latest time in managedFields at which `spec` was written; None = unknown, then `created` counts."""
    labels: Labels = ()
    deletion: datetime | None = None
    finalizers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Unprocessable:
    """One object of Tenure's own kinds whose spec this version cannot read (an older CRD without a bound, a newer
    one with a field more). It is kept apart from the parsed ones (`Store.unprocessable`), so that no rule takes it
    for absent without knowing: where one stands, what it might have said is unknown."""

    kind: str
    namespace: str
    name: str
    uid: str
    generation: int
    resource_version: str
    error: str
    """Which field and why, one line, bounded; no value."""
    cut: bool = False
    """A field is missing that every such object has: an older CRD hides it, and any write to the object would lose it
    for good."""
    spec_changed: datetime | None = None
    """As of Authored."""
