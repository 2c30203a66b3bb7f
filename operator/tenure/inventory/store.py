"""The inventory in memory: one record per object, and the few indexes that questions about one subject need.

One event loop, no locks: a change is complete before anything else runs. Every table may be read
directly; it is written through `upsert` and `remove` alone, which keep the indexes and tell the listeners.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import replace
from typing import Any, Final, Generic, TypeVar, cast

from tenure.api.claim import OwnedIdentitySpec, OwnedIdentityStatus
from tenure.api.decision import IdentityDecisionSpec, IdentityDecisionStatus
from tenure.api.finding import IdentityFindingSpec, IdentityFindingStatus
from tenure.api.guard import QuarantineGuardSpec
from tenure.api.names import OPERATOR_NAMESPACE, operator_user
from tenure.api.owner import IdentityOwnerSpec, IdentityOwnerStatus
from tenure.api.quarantine import QuarantineSpec, QuarantineStatus
from tenure.inventory.usage import Usage
from tenure.model.evaluation import ExceptionRecord, Policy
from tenure.model.keys import Key
from tenure.model.namespaced import Name2, Namespaced
from tenure.model.records import Authored, Binding, Namespace, Pod, Role, Secret, ServiceAccount, Subject, Unprocessable

Owner = Authored[IdentityOwnerSpec, IdentityOwnerStatus]
Claim = Authored[OwnedIdentitySpec, OwnedIdentityStatus]
Decision = Authored[IdentityDecisionSpec, IdentityDecisionStatus]
Finding = Authored[IdentityFindingSpec, IdentityFindingStatus]
QuarantineRecord = Authored[QuarantineSpec, QuarantineStatus]
Guard = Authored[QuarantineGuardSpec, None]

Record = Namespace | ServiceAccount | Secret | Binding | Role | Pod | Authored[Any, Any]
Held = Record | Unprocessable
Listener = Callable[[str, Held | None, Held | None], None]
_USER_PREFIX: Final = "system:serviceaccount:"
_REMEMBERED_REMOVALS: Final = 20_000  # uids; the last events of older ones have long arrived
_FEW: Final = 16  # records under one index key; more are a dict

K = TypeVar("K", bound=Hashable)
T = TypeVar("T", bound=Hashable)
R = TypeVar("R")


class _Group(dict[Any, R]):
    """Many records under one index key, with their sorted tuple while nothing changes."""

    __slots__ = ("ordered",)

    def __init__(self, records: Iterable[R]) -> None:
        super().__init__((_key_of(record), record) for record in records)
        self.ordered: tuple[R, ...] | None = None


class _Index(Generic[T, R]):
    """Records by what `terms` says of them. Most terms have one record, which stands there itself, or a few, which are
    a sorted tuple: a dict for each of a hundred thousand terms would weigh as much as the records."""

    def __init__(
        self,
        terms: Callable[[R], Iterable[T]],
        groups: MutableMapping[T, _Group[R] | tuple[R, ...] | R] | None = None,
    ) -> None:
        """groups: an empty mapping to hold them in, where another than a dict is lighter."""
        self._terms = terms
        self._groups = {} if groups is None else groups

    def __iter__(self) -> Iterator[T]:
        return iter(self._groups)

    def of(self, term: T) -> tuple[R, ...]:
        """The records of a term in the order of their keys; equal calls give the same tuple until one changes."""
        group = self._groups.get(term)
        if group is None:
            return ()
        if isinstance(group, tuple):
            return group
        if not isinstance(group, _Group):
            return (group,)
        if group.ordered is None:
            group.ordered = tuple(group[key] for key in sorted(group))
        return group.ordered

    def change(self, key: Name2, old: R | None, new: R | None) -> None:
        before = () if old is None else tuple(self._terms(old))
        after = () if new is None else tuple(self._terms(new))
        for term in before:
            if term not in after:
                self._take(term, key)
        if new is not None:
            for term in after:
                self._put(term, key, new)

    def _put(self, term: T, key: Name2, record: R) -> None:
        group = self._groups.get(term)
        if isinstance(group, _Group):
            group[key] = record
            group.ordered = None
            return
        records = (*self._others(group, key), record)
        if len(records) == 1:
            self._groups[term] = record
        elif len(records) <= _FEW:
            self._groups[term] = tuple(sorted(records, key=_key_of))
        else:
            self._groups[term] = _Group(records)

    def _take(self, term: T, key: Name2) -> None:
        group = self._groups.get(term)
        if isinstance(group, _Group):
            group.pop(key, None)
            group.ordered = None
            if len(group) <= _FEW // 2:
                self._groups[term] = self.of(term)
            return
        records = self._others(group, key)
        if records:
            self._groups[term] = records if len(records) > 1 else records[0]
        else:
            self._groups.pop(term, None)

    @staticmethod
    def _others(group: tuple[R, ...] | R | None, key: Name2) -> tuple[R, ...]:
        if group is None:
            return ()
        records = group if isinstance(group, tuple) else (group,)
        return tuple(record for record in records if _key_of(record) != key)


class _Table(Generic[K, R]):
    """The records of one kind and their indexes."""

    def __init__(self, rows: MutableMapping[K, R], key: Callable[[str, str], K], *indexes: _Index[Any, R]) -> None:
        self.rows = rows
        """As stored."""
        self.shown: Mapping[K, R] = rows
        """As read."""
        self.key = key
        self.indexes = indexes

    def set(self, key: K, new: R | None) -> None:
        old = self.rows.get(key)
        if new is None:
            self.rows.pop(key, None)
        else:
            self.rows[key] = new
        for index in self.indexes:
            index.change(cast(Name2, key), old, new)  # a table with indexes has such keys


class _Quarantines(_Table[Name2, QuarantineRecord]):
    """Quarantines as they are stored: pre-images for which one has no room continue in further objects, which name it
    (`spec.continues`). What is read is each with all its pre-images, whichever object holds them; the further ones are
    no Quarantines of their own."""

    def __init__(self, whole: Namespaced[QuarantineRecord], *indexes: _Index[Any, QuarantineRecord]) -> None:
        self.further: _Index[Name2, QuarantineRecord] = _Index(_continued)
        super().__init__(Namespaced(), _pair, self.further)
        self._whole = _Table(whole, _pair, *indexes)
        self.shown = whole

    def set(self, key: Name2, new: QuarantineRecord | None) -> None:
        old = self.rows.get(key)
        super().set(key, new)
        for name in {side.spec.continues or side.name for side in (old, new) if side is not None}:
            first = self.rows.get((key[0], name))
            is_one = first is not None and first.spec.continues is None
            self._whole.set((key[0], name), self._complete(first) if first is not None and is_one else None)

    def _complete(self, first: QuarantineRecord) -> QuarantineRecord:
        further = self.further.of((first.namespace, first.name))
        if not further:
            return first
        images = [image for one in (first, *further) for image in (one.status.pre_images if one.status else ())]
        status = (first.status or QuarantineStatus()).model_copy(update={"pre_images": tuple(images)})
        return replace(first, status=status)


def _pair(namespace: str, name: str) -> Name2:
    return (namespace, name)


def _key_of(record: Any) -> Name2:
    """The key of an indexed record: only tables by (namespace, name) have indexes."""
    return (record.namespace, record.name)


def _name(namespace: str, name: str) -> str:
    return name


def service_account_of(subject: Subject) -> Name2 | None:
    """The ServiceAccount (namespace, name) that a binding's subject names, as itself or as the user
    `system:serviceaccount:<namespace>:<name>`; None for every other subject, groups included."""
    if subject.kind == "ServiceAccount":
        return (subject.namespace, subject.name)
    if subject.kind == "User" and subject.name.startswith(_USER_PREFIX):
        namespace, separator, name = subject.name[len(_USER_PREFIX) :].partition(":")
        if separator and namespace and name:
            return (namespace, name)
    return None


def _bound_accounts(binding: Binding) -> Iterable[Name2]:
    return {account for subject in binding.subjects if (account := service_account_of(subject))}


def _bound_groups(binding: Binding) -> Iterable[str]:
    return {subject.name for subject in binding.subjects if subject.kind == "Group"}


def _role_of(binding: Binding) -> tuple[tuple[str, str, str]]:
    return ((binding.role_kind, binding.namespace if binding.role_kind == "Role" else "", binding.role_name),)


def _deciding(role: Role) -> tuple[()] | tuple[bool]:
    return (True,) if role.decides else ()


def _token_owner(secret: Secret) -> Iterable[Name2]:
    return ((secret.namespace, secret.service_account),) if secret.service_account else ()


def _decided_about(decision: Decision) -> tuple[Name2]:
    return ((decision.namespace, decision.spec.target.uid),)


def subject_key(held: Finding | QuarantineRecord) -> Key:
    """What a finding or Quarantine is about. It lies in its subject's namespace, a cluster-scoped one's in the
    operator's."""
    subject = held.spec.subject
    return Key(subject.kind, held.namespace, subject.name, subject.entitlement or "")


def _continued(quarantine: QuarantineRecord) -> Iterable[Name2]:
    """The Quarantine of which it is a further object."""
    return ((quarantine.namespace, quarantine.spec.continues),) if quarantine.spec.continues else ()


def _subject_of(finding: Finding) -> tuple[Key]:
    return (subject_key(finding),)


def _bound_in(binding: Binding) -> Iterable[str]:
    return {account[0] for account in _bound_accounts(binding)}


def _taken_from(quarantine: QuarantineRecord) -> Iterable[tuple[str, ...]]:
    """The uids of the bindings it took subjects out of, the ServiceAccounts it took out, and the namespaces of both."""
    found: set[tuple[str, ...]] = set()
    for image in quarantine.status.pre_images if quarantine.status else ():
        found |= {("uid", image.uid), ("in", image.namespace or "")}
        for entry in image.removed:
            stored = entry.subject
            own = (stored.namespace or image.namespace or "") if stored.kind == "ServiceAccount" else ""
            account = service_account_of(Subject(stored.kind, own, stored.name))
            if account is not None:
                found |= {("account", *account), ("in", account[0])}
    return found


class Store:
    """The inventory. Tuples come back in the order of (namespace, name). Belongs to one event loop."""

    def __init__(self, home: str = OPERATOR_NAMESPACE) -> None:
        self.home = home
        """The operator's namespace, where findings on cluster-scoped subjects are."""
        self.operator = operator_user(home)
        self.namespaces: dict[str, Namespace] = {}
        self.service_accounts: Namespaced[ServiceAccount] = Namespaced()
        self.secrets: Namespaced[Secret] = Namespaced()
        self.bindings: Namespaced[Binding] = Namespaced()
        self.roles: Namespaced[Role] = Namespaced()
        self.pods: Namespaced[Pod] = Namespaced()
        self.owners: dict[str, Owner] = {}
        self.policies: dict[str, Policy] = {}
        self.claims: Namespaced[Claim] = Namespaced()
        self.exceptions: Namespaced[ExceptionRecord] = Namespaced()
        self.decisions: Namespaced[Decision] = Namespaced()
        self.findings: Namespaced[Finding] = Namespaced()
        self.quarantines: Namespaced[QuarantineRecord] = Namespaced()
        """Each with all its pre-images, also those that stand in further objects, which are not in here."""
        self.guards: Namespaced[Guard] = Namespaced()
        self.usage = Usage()
        """What an audit source, where there is one, tells of the use of these."""
        self.unprocessable: dict[Key, Unprocessable] = {}
        """Objects of our own kinds that this version cannot read; they stand in no other table. What such a claim,
        exception or policy says is unknown, which is not the same as its being absent."""
        self.listeners: list[Listener] = []
        """Called after each change as (kind, old, new), None for absent, with the change complete in every table.
        old or new is an Unprocessable where the object could not be read. Not called when only the
        resourceVersion moved."""

        self._removed: dict[str, None] = {}  # uids, oldest first

        self._tokens: _Index[Name2, Secret] = _Index(_token_owner, Namespaced())
        self._bound: _Index[Name2, Binding] = _Index(_bound_accounts, Namespaced())
        self._groups: _Index[str, Binding] = _Index(_bound_groups)
        self._bound_in: _Index[str, Binding] = _Index(_bound_in)
        self._by_role: _Index[tuple[str, str, str], Binding] = _Index(_role_of)
        self._deciding: _Index[bool, Role] = _Index(_deciding)
        self._run_as: _Index[Name2, Pod] = _Index(lambda pod: ((pod.namespace, pod.service_account),), Namespaced())
        self._consumers: _Index[Name2, Pod] = _Index(
            lambda pod: tuple((pod.namespace, secret) for secret in pod.secrets), Namespaced()
        )
        self._claims_of: _Index[str, Claim] = _Index(lambda claim: (claim.spec.owner,))
        self._decisions_about: _Index[Name2, Decision] = _Index(_decided_about, Namespaced())
        self._about: _Index[Key, Finding] = _Index(_subject_of)
        self._taken: _Index[tuple[str, ...], QuarantineRecord] = _Index(_taken_from)

        self._stored = _Quarantines(self.quarantines, self._taken)
        self.stored_quarantines: Mapping[Name2, QuarantineRecord] = self._stored.rows
        """Quarantines and their further objects, each with what it holds itself."""

        bindings = _Table(self.bindings, _pair, self._bound, self._groups, self._by_role, self._bound_in)
        roles: _Table[Name2, Role] = _Table(self.roles, _pair, self._deciding)
        self._tables: dict[str, _Table[Any, Any]] = {
            "Namespace": _Table(self.namespaces, _name),
            "ServiceAccount": _Table(self.service_accounts, _pair),
            "Secret": _Table(self.secrets, _pair, self._tokens),
            "RoleBinding": bindings,
            "ClusterRoleBinding": bindings,
            "Role": roles,
            "ClusterRole": roles,
            "Pod": _Table(self.pods, _pair, self._run_as, self._consumers),
            "IdentityOwner": _Table(self.owners, _name),
            "GovernancePolicy": _Table(self.policies, _name),
            "OwnedIdentity": _Table(self.claims, _pair, self._claims_of),
            "IdentityException": _Table(self.exceptions, _pair),
            "IdentityDecision": _Table(self.decisions, _pair, self._decisions_about),
            "IdentityFinding": _Table(self.findings, _pair, self._about),
            "Quarantine": self._stored,
            "QuarantineGuard": _Table(self.guards, _pair),
        }

    # --- writing -----------------------------------------------------------------------------------------------

    def upsert(self, kind: str, record: Held, *, force: bool = False) -> Held | None:
        """Takes a record in and returns what stood there before (or None).

        What we read live or were answered to our own write is stored at once, and the watch brings it again, late. So
        a record with a lower resourceVersion than the held one, or with a uid that was removed, is ignored and the
        held one returned; a record that names no version is taken. force takes all the same: the API server's own
        history went back (etcd restored from a backup). Raises KeyError for a kind that has no table."""
        table = self._tables[kind]
        namespace = getattr(record, "namespace", "")
        key, held_as = table.key(namespace, record.name), Key(kind, namespace, record.name)
        old: Held | None = table.rows.get(key) or self.unprocessable.get(held_as)
        if force:
            self._removed.pop(record.uid, None)
        elif record.uid in self._removed or 0 < _version(record) < _version(old):
            return old
        if not force:
            record = _as_first_stamped(old, record)
        if _equal(old, record):
            if not isinstance(record, Unprocessable) and _version(record):
                table.set(key, record)  # for its resourceVersion alone
            return old
        if isinstance(record, Unprocessable):
            self.unprocessable[held_as] = record
            table.set(key, None)
        else:
            self.unprocessable.pop(held_as, None)
            table.set(key, record)
        self._tell(kind, old, record)
        return old

    def remove(self, kind: str, namespace: str, name: str, *, resource_version: int = 0) -> Held | None:
        """Takes a record out and returns it (None if there was none).

        resource_version is that of the deletion, or of the list in which the object was missing; an object that is
        newer (created again, and stored from our own write) stays; 0 removes whatever is there. Neither a late event
        nor a live read that was under way brings the removed uid back. Raises KeyError for a kind without a table."""
        table = self._tables[kind]
        namespace = "" if kind in _CLUSTER_SCOPED else namespace
        key, held_as = table.key(namespace, name), Key(kind, namespace, name)
        old: Held | None = table.rows.get(key) or self.unprocessable.get(held_as)
        if old is None or (resource_version and _version(old) > resource_version):
            return None
        self.unprocessable.pop(held_as, None)
        table.set(key, None)
        if old.uid:
            self._removed[old.uid] = None
            if len(self._removed) > _REMEMBERED_REMOVALS:
                del self._removed[next(iter(self._removed))]
        self._tell(kind, old, None)
        return old

    def _tell(self, kind: str, old: Held | None, new: Held | None) -> None:
        for listener in self.listeners:
            listener(kind, old, new)

    # --- reading -----------------------------------------------------------------------------------------------

    def get(self, key: Key) -> Record | None:
        """The record of a key; None when there is none, when it is Unprocessable, or for an unknown kind."""
        table = self._tables.get(key.kind)
        if table is None:
            return None
        # The key of a ClusterRoleBinding's entitlement names the namespace of its findings.
        namespace = "" if key.kind in _CLUSTER_SCOPED else key.namespace
        return cast("Record | None", table.shown.get(table.key(namespace, key.name)))

    def names(self, kind: str, namespace: str | None = None) -> list[Name2]:
        """(namespace, name) of every held object of a kind, unreadable ones included; of one namespace if given.
        Kinds that share a table are told apart: RoleBindings have a namespace, ClusterRoleBindings none."""
        table = self._tables[kind]
        clusterwide = kind in _CLUSTER_SCOPED
        found: list[Name2]
        if table.key is _name:
            found = [("", name) for name in table.rows]
        else:
            found = [key for key in table.rows if (key[0] == "") == clusterwide]
        found += [(key.namespace, key.name) for key in self.unprocessable if key.kind == kind]
        return found if namespace is None else [key for key in found if key[0] == namespace]

    def was_removed(self, uid: str) -> bool:
        """Whether an object of this uid was held and is gone. The longest gone are forgotten."""
        return uid in self._removed

    def tokens_of(self, namespace: str, service_account: str) -> tuple[Secret, ...]:
        """service-account-token Secrets annotated to the ServiceAccount, whether it exists or not."""
        return self._tokens.of((namespace, service_account))

    def bindings_of(self, namespace: str, service_account: str) -> tuple[Binding, ...]:
        """Bindings that name it, as ServiceAccount or as `User system:serviceaccount:…`; not through groups."""
        return self._bound.of((namespace, service_account))

    def bindings_in(self, namespace: str) -> tuple[Binding, ...]:
        """The RoleBindings of a namespace; the ClusterRoleBindings for ""."""
        return self.bindings.within(namespace)

    def bindings_naming(self, namespace: str) -> tuple[Binding, ...]:
        """Bindings anywhere that name a ServiceAccount of the namespace, not through groups."""
        return self._bound_in.of(namespace)

    def quarantines_holding(self, uid: str) -> tuple[QuarantineRecord, ...]:
        """Quarantines that took subjects out of the binding of this uid."""
        return self._taken.of(("uid", uid))

    def quarantines_removing(self, namespace: str, service_account: str) -> tuple[QuarantineRecord, ...]:
        """Quarantines that took the ServiceAccount out of bindings."""
        return self._taken.of(("account", namespace, service_account))

    def quarantines_removing_in(self, namespace: str) -> tuple[QuarantineRecord, ...]:
        """Quarantines that took subjects out of the namespace's bindings, or its ServiceAccounts out of any."""
        return self._taken.of(("in", namespace))

    def group_bindings(self, namespace: str) -> tuple[Binding, ...]:
        """Bindings whose subject is a group every ServiceAccount of the namespace is in."""
        groups = (f"system:serviceaccounts:{namespace}", "system:serviceaccounts", "system:authenticated")
        found = {(binding.namespace, binding.name): binding for group in groups for binding in self._groups.of(group)}
        return tuple(found[key] for key in sorted(found))

    def bindings_of_role(self, kind: str, namespace: str, name: str) -> tuple[Binding, ...]:
        """Bindings that refer to the Role (of its namespace) or ClusterRole (namespace "")."""
        return self._by_role.of((kind, namespace if kind == "Role" else "", name))

    def deciding_roles(self) -> tuple[Role, ...]:
        """Roles and ClusterRoles whose rules name a decision verb: few among many."""
        return self._deciding.of(True)

    def pods_of(self, namespace: str, service_account: str) -> tuple[Pod, ...]:
        """Pods that run as the ServiceAccount, finished ones included."""
        return self._run_as.of((namespace, service_account))

    def pods_using_secret(self, namespace: str, name: str) -> tuple[Pod, ...]:
        """Pods that mount the Secret, take environment from it or pull images with it, finished ones included."""
        return self._consumers.of((namespace, name))

    def service_accounts_in(self, namespace: str) -> tuple[ServiceAccount, ...]:
        return self.service_accounts.within(namespace)

    def secrets_in(self, namespace: str) -> tuple[Secret, ...]:
        return self.secrets.within(namespace)

    def claims_in(self, namespace: str) -> tuple[Claim, ...]:
        return self.claims.within(namespace)

    def exceptions_in(self, namespace: str) -> tuple[ExceptionRecord, ...]:
        return self.exceptions.within(namespace)

    def decisions_in(self, namespace: str) -> tuple[Decision, ...]:
        return self.decisions.within(namespace)

    def decisions_about(self, namespace: str, uid: str) -> tuple[Decision, ...]:
        """The decisions that name this uid as their target."""
        return self._decisions_about.of((namespace, uid))

    def findings_in(self, namespace: str) -> tuple[Finding, ...]:
        return self.findings.within(namespace)

    def quarantines_in(self, namespace: str) -> tuple[QuarantineRecord, ...]:
        return self.quarantines.within(namespace)

    def further_objects(self, namespace: str, name: str) -> tuple[QuarantineRecord, ...]:
        """Those in which the Quarantine of this name continues, whether it is there or not."""
        return self._stored.further.of((namespace, name))

    def orphans(self) -> list[QuarantineRecord]:
        """Further objects of Quarantines that are gone."""
        gone = [at for at in self._stored.further if at not in self.quarantines]
        unread = (Key("Quarantine", *at) in self.unprocessable for at in gone)
        return [one for at, there in zip(gone, unread, strict=True) if not there for one in self.further_objects(*at)]

    def findings_about(self, key: Key) -> tuple[Finding, ...]:
        """Findings whose spec.subject is this kind, namespace and name, whatever its uid and their phase."""
        return self._about.of(key)

    def claims_of_owner(self, owner: str) -> tuple[Claim, ...]:
        """Claims of every namespace whose spec.owner is this name, whether the owner exists or not."""
        return self._claims_of.of(owner)

    def namespaces_labelled(self, label: str, value: str) -> tuple[Namespace, ...]:
        """Namespaces that carry the label with this value. Looks at every namespace."""
        pair = (label, value)
        found = [namespace for namespace in self.namespaces.values() if pair in namespace.labels]
        return tuple(sorted(found, key=lambda namespace: namespace.name))

    def unprocessable_in(self, namespace: str) -> tuple[Unprocessable, ...]:
        """Unreadable objects of the namespace ("" = cluster-scoped), in the order of kind and name."""
        found = [key for key in self.unprocessable if key.namespace == namespace]
        return tuple(self.unprocessable[key] for key in sorted(found))

    def counts(self) -> Mapping[str, int]:
        """Held objects by table, for logs and metrics; bindings and roles count both scopes."""
        shared = ("ClusterRole", "ClusterRoleBinding")
        return {kind: len(table.shown) for kind, table in self._tables.items() if kind not in shared}


_CLUSTER_SCOPED: Final = frozenset(
    {"Namespace", "ClusterRole", "ClusterRoleBinding", "IdentityOwner", "GovernancePolicy"}
)


def _as_first_stamped(old: Held | None, new: Held) -> Held:
    """The record with the stamp that its generation came with. A manager that also owns a label moves the stamp with
    every change of that label, and whoever may write the object may set or wipe its managedFields: what runs from the
    stamp must not move with it."""
    if (
        isinstance(old, Authored)
        and isinstance(new, Authored)
        and (old.uid, old.generation) == (new.uid, new.generation)
        and old.spec_changed not in (None, new.spec_changed)
    ):
        return replace(new, spec_changed=old.spec_changed)
    return new


def _version(record: Held | None) -> int:
    """The resourceVersion as a number, which the API server's are; 0 when unknown."""
    return int(record.resource_version or 0) if record else 0


def _equal(old: Held | None, new: Held) -> bool:
    """Equal but for the resourceVersion, which moves with every write, our own no-ops included."""
    if isinstance(old, Authored) and isinstance(new, Authored):
        return (
            old.uid == new.uid
            and old.generation == new.generation
            and old.spec == new.spec
            and old.status == new.status
            and old.labels == new.labels
            and old.deletion == new.deletion
            and old.finalizers == new.finalizers
            and old.spec_changed == new.spec_changed
        )
    return old == new
