"""A change of the store -> the keys whose evaluation it may change.

Too few would leave a finding wrong until something else happens; too many cost evaluations that find nothing new. A
property test holds the first to exactly none; the second is kept small where changes are frequent (pods, Secrets,
ServiceAccounts, bindings) and left coarse where they are rare (policies, owners, namespaces).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, TypeVar, cast

from tenure.api.names import LABEL_OWNER, SubjectKind, TargetKind
from tenure.api.policy import GovernancePolicySpec
from tenure.inventory import entitlements
from tenure.inventory.snapshot import Shared, identity_of, is_about, owed, subjects, tokens_of
from tenure.inventory.store import (
    Claim,
    Decision,
    Finding,
    Held,
    Owner,
    QuarantineRecord,
    Store,
    service_account_of,
    subject_key,
)
from tenure.model.evaluation import ExceptionRecord, Policy
from tenure.model.facts import Record
from tenure.model.keys import Key
from tenure.model.records import Authored, Binding, Namespace, Pod, Role, Secret, ServiceAccount, Unprocessable
from tenure.rules import KINDS, exceptions, owners, risk
from tenure.rules.coverage import rank
from tenure.rules.secrets import is_credential, is_token

R = TypeVar("R")
_NEVER: Final = datetime.fromtimestamp(0, UTC)


def affected(store: Store, kind: str, old: Held | None, new: Held | None) -> set[Key]:
    """The subjects whose evaluation may differ now; called from a listener of the store, after the change. Among them
    are keys of what is gone. Objects that this version cannot read are not judged, so their own keys are left out.
    Kinds that no evaluation looks at give the empty set. Ask once per change: the answer also settles, for the next
    one, which namespaces hold a Critical ServiceAccount."""
    Shared.of(store)(kind, old, new)
    if old is None and new is None:
        return set()
    if isinstance(old, Unprocessable) or isinstance(new, Unprocessable):
        return set(_unreadable(store, kind, old, new))
    reach = _REACH.get(kind)
    if reach is None:
        return set()
    found = {key for key in reach(store, old, new) if key.kind in KINDS}
    return found.union(_exceptions_from(store, found)) if _concerns_exceptions(kind, old, new) else found


def _concerns_exceptions(kind: str, old: Any, new: Any) -> bool:
    """Whether what subjects violate may have moved, or what findings say of earlier waivers. An exception, and what is
    decided about one, moves neither: two thousand from one object leave each other alone."""
    if kind == "IdentityFinding":
        return owed(old) != owed(new)
    if kind == "IdentityDecision":
        return any(made.spec.target.kind is TargetKind.OWNED_IDENTITY for made in _both(old, new))
    return kind not in ("IdentityException", "Quarantine")


def _exceptions_from(store: Store, keys: set[Key]) -> Iterator[Key]:
    """Exceptions from what the keys may have begun or ceased to violate."""
    if not store.exceptions:
        return
    for namespace in {key.namespace for key in keys}:
        if store.exceptions_in(namespace):
            records = (store.get(key) for key in keys if key.namespace == namespace and key.kind != "IdentityException")
            yield from _exceptions_about(store, namespace, [cast(Record, found) for found in records if found])


def _unreadable(store: Store, kind: str, old: Held | None, new: Held | None) -> Iterator[Key]:
    """What may no longer act, or may again, because an object can no longer be read, or can again, or is gone."""
    if kind in ("GovernancePolicy", "IdentityOwner"):
        yield from subjects(store)
    elif kind in KINDS or kind == "IdentityDecision":
        held = new if new is not None else old
        if isinstance(held, Authored | Unprocessable):
            yield from _everything_in(store, held.namespace)
            if new is None and kind in KINDS:
                yield Key(kind, held.namespace, held.name)
    elif kind == "Quarantine":
        held = new if new is not None else old
        if isinstance(held, Authored | Unprocessable):
            yield from _everything_in(store, held.namespace)


def _both(old: R | None, new: R | None) -> Iterator[R]:
    """The change's two sides, as far as there are any."""
    if old is not None:
        yield old
    if new is not None:
        yield new


def _everything_in(store: Store, namespace: str) -> Iterator[Key]:
    yield from (Key("ServiceAccount", namespace, found.name) for found in store.service_accounts_in(namespace))
    yield from (Key("Secret", namespace, found.name) for found in store.secrets_in(namespace))
    yield from (Key("OwnedIdentity", namespace, found.name) for found in store.claims_in(namespace))
    yield from (Key("IdentityException", namespace, found.name) for found in store.exceptions_in(namespace))
    yield from entitlements.around(store, namespace)


# --- ServiceAccounts and Secrets


def _service_account(store: Store, old: ServiceAccount | None, new: ServiceAccount | None) -> Iterator[Key]:
    sides = list(_both(old, new))
    namespace, name = sides[0].namespace, sides[0].name
    tokens = store.tokens_of(namespace, name)
    yield Key("ServiceAccount", namespace, name)
    yield from (Key("Secret", namespace, token.name) for token in tokens)
    yield from entitlements.of_account(store, namespace, name)
    yield from _claims_on(store, namespace, (*sides, *tokens))
    yield from _exceptions_about(store, namespace, sides)
    yield from _indebted(store, Key("ServiceAccount", namespace, name), sides)
    if len(sides) == 1:
        yield from _elevated(store, {namespace})


def _secret(store: Store, old: Secret | None, new: Secret | None) -> Iterator[Key]:
    sides = list(_both(old, new))
    namespace, name = sides[0].namespace, sides[0].name
    yield Key("Secret", namespace, name)
    yield from _exceptions_about(store, namespace, sides)
    yield from _indebted(store, Key("Secret", namespace, name), sides)
    if len(sides) == 1 or _shape(sides[0]) != _shape(sides[1]):
        accounts = [found for side in sides if (found := identity_of(store, side)) is not None]
        yield from (Key("ServiceAccount", namespace, account.name) for account in accounts)
        yield from _claims_on(store, namespace, (*sides, *accounts))


def _shape(secret: Secret) -> tuple[object, ...]:
    """What others than the Secret itself see of it."""
    belongs = (is_token(secret), secret.service_account, secret.service_account_uid)
    return (secret.uid, secret.labels, is_credential(secret), belongs)


def _claims_on(store: Store, namespace: str, records: Iterable[ServiceAccount | Secret]) -> Iterator[Key]:
    """Claims that cover any of the records. Whether the namespace is the platform's is not asked: where it is, that
    takes a few claims too many."""
    records = tuple(records)
    for claim in store.claims_in(namespace):
        if any(rank(claim, record, platform=False) for record in records):
            yield Key("OwnedIdentity", namespace, claim.name)


def _exceptions_about(store: Store, namespace: str, records: Iterable[Record]) -> Iterator[Key]:
    """Exceptions that any of the records is a target of, or is pinned in; of the changed object both sides count."""
    found = store.exceptions_in(namespace)
    if not found:
        return
    sides = [(_kind(record), record) for record in records]
    for exception in found:
        if any(_targets(exception, kind, record) for kind, record in sides):
            yield Key("IdentityException", namespace, exception.name)


def _indebted(store: Store, key: Key, sides: Sequence[Record]) -> Iterator[Key]:
    """What a waiver for many waits for: a subject that was waived too often holds the exception up for all it selects,
    from when it is selected until it no longer is."""
    if not any(owed(finding) for finding in store.findings_about(key)):
        return
    for exception in store.exceptions_in(key.namespace):
        if exceptions.active_since(exception) is None and any(_targets(exception, key.kind, side) for side in sides):
            yield from _with_targets(store, [exception])


def _kind(record: Record) -> str:
    if isinstance(record, Binding):
        return record.kind
    return record.kind if isinstance(record, Authored) else type(record).__name__


def _targets(exception: ExceptionRecord, kind: str, record: Record) -> bool:
    return exceptions.selects(exception, kind, record) or exceptions.pinned(exception, kind, record.name, record.uid)


# --- rights


def deciders_moved(store: Store, kind: str, old: Held | None, new: Held | None) -> bool:
    """Whether a change of roles or bindings gave some namespace its first decider, or took its last. Called as
    `affected` is, after it; only a role that names a decision verb, or a binding to one, costs more than a look."""
    sides = [side for side in _both(old, new) if isinstance(side, Binding | Role)]
    if not any(_decides(store, side) for side in sides):
        return False
    shared = Shared.of(store)
    before = shared.last_deciders()
    return before is not None and before != shared.deciders()


def _decides(store: Store, side: Binding | Role) -> bool:
    role: Role | None
    if isinstance(side, Binding):
        role = store.roles.get((side.namespace if side.role_kind == "Role" else "", side.role_name))
    else:
        role = side
    return role is not None and bool(role.decides)


def _binding(store: Store, old: Binding | None, new: Binding | None) -> Iterator[Key]:
    sides = list(_both(old, new))
    graded = any(_grades(store, side) for side in sides)
    yield from _bound(store, sides, graded=graded)
    yield from _entitlements(store, old, new)
    yield from _exceptions_about(store, sides[0].namespace or store.home, sides)
    for key in {key for side in sides for key in entitlements.of(side, store.home)}:
        yield from _indebted(store, key, sides)


def _entitlements(store: Store, old: Binding | None, new: Binding | None) -> Iterator[Key]:
    """Those that came or went; where the binding is another in anything but its subjects, all of them."""
    before, after = (entitlements.of(side, store.home) if side is not None else {} for side in (old, new))
    if old is not None and new is not None and replace(old, subjects=()) == replace(new, subjects=()):
        yield from before.keys() ^ after.keys()
        return
    yield from before.keys() | after.keys()
    for side in _both(old, new):
        yield from entitlements.within(store, side)


def _role(store: Store, old: Role | None, new: Role | None) -> Iterator[Key]:
    if (old.grades if old is not None else ()) == (new.grades if new is not None else ()):
        return
    for namespace, name in {(role.namespace, role.name) for role in _both(old, new)}:
        kind = "Role" if namespace else "ClusterRole"
        bindings = store.bindings_of_role(kind, namespace, name)
        yield from _bound(store, bindings, graded=True)
        for binding in bindings:
            yield from entitlements.within(store, binding)


def _grades(store: Store, binding: Binding) -> bool:
    role = store.roles.get((binding.namespace if binding.role_kind == "Role" else "", binding.role_name))
    return role is not None and bool(role.grades)


def _bound(store: Store, bindings: Iterable[Binding], *, graded: bool) -> Iterator[Key]:
    """Everybody the bindings reach; graded: it may move their grade, so whatever follows it too."""
    accounts, namespaces = _reached(store, bindings)
    yield from _identities(store, accounts, namespaces, graded=graded)
    if graded:
        yield from _elevated(store, namespaces | {namespace for namespace, _ in accounts})


def _reached(store: Store, bindings: Iterable[Binding]) -> tuple[set[tuple[str, str]], set[str]]:
    """The ServiceAccounts that the bindings name, and the namespaces whose every ServiceAccount a group of theirs
    holds."""
    accounts: set[tuple[str, str]] = set()
    namespaces: set[str] = set()
    for binding in bindings:
        for subject in binding.subjects:
            account = service_account_of(subject)
            if account is not None:
                accounts.add(account)
            elif subject.kind == "Group" and not binding.bootstrap:
                namespaces.update(_group_namespaces(store, subject.name))
    return accounts, namespaces


def _group_namespaces(store: Store, group: str) -> Iterable[str]:
    """The namespaces whose ServiceAccounts are in the group."""
    if group in ("system:serviceaccounts", "system:authenticated"):
        return store.service_accounts.namespaces()
    prefix = "system:serviceaccounts:"
    return (group.removeprefix(prefix),) if group.startswith(prefix) else ()


def _identities(store: Store, accounts: set[tuple[str, str]], namespaces: set[str], *, graded: bool) -> Iterator[Key]:
    for namespace in namespaces:
        yield from _everything_in(store, namespace)
    for namespace, name in accounts:
        account = store.service_accounts.get((namespace, name))
        if account is None or namespace in namespaces:
            continue
        yield Key("ServiceAccount", namespace, name)
        if graded:
            tokens = [store.secrets[namespace, token] for token in tokens_of(store, account)]
            yield from (Key("Secret", namespace, token.name) for token in tokens)
            yield from _claims_on(store, namespace, (account, *tokens))


def _elevated(store: Store, namespaces: Iterable[str]) -> Iterator[Key]:
    """Who may run pods in a namespace that has just got its first Critical ServiceAccount, or lost its last (R11)."""
    shared = Shared.of(store)
    for namespace in namespaces:
        before = shared.last_critical(namespace)
        if before is None or before == shared.critical(namespace):
            continue
        here = store.bindings_in(namespace)
        runners = [binding for binding in here if _runs_pods(store, binding)]
        for binding in runners:
            yield from entitlements.within(store, binding)
        # Being elevated makes nobody Critical by its own grades: this goes one step and ends.
        yield from _identities(store, *_reached(store, runners), graded=True)


def _runs_pods(store: Store, binding: Binding) -> bool:
    role = store.roles.get((binding.namespace if binding.role_kind == "Role" else "", binding.role_name))
    return role is not None and any(row.row == risk.RUN_PODS for row in role.grades)


# --- pods and namespaces


def _pod(store: Store, old: Pod | None, new: Pod | None) -> Iterator[Key]:
    """Pods come and go by the thousand: a subject is judged again only when its first one comes or its last one goes,
    and while it is quarantined, when they are listed by name."""
    sides = list(_both(old, new))
    namespace = sides[0].namespace
    running = [side for side in (old, new) if side is not None and not side.finished]
    for name in {side.service_account for side in sides}:
        uses = [side for side in running if side.service_account == name]
        key = Key("ServiceAccount", namespace, name)
        if len(uses) == 1 and _matters(store, key, sides[0], store.pods_of(namespace, name)):
            yield key
    for name in {name for side in sides for name in side.secrets}:
        uses = [side for side in running if name in side.secrets]
        key = Key("Secret", namespace, name)
        if len(uses) == 1 and _matters(store, key, sides[0], store.pods_using_secret(namespace, name)):
            yield key


def _matters(store: Store, key: Key, pod: Pod, users: Iterable[Pod]) -> bool:
    """Whether it makes a difference to the subject that the pod began or ceased to use it."""
    if all(other.finished or other.name == pod.name for other in users):
        return True
    return any(subject_key(held) == key for held in store.quarantines_in(key.namespace))


def _namespace(store: Store, old: Namespace | None, new: Namespace | None) -> Iterator[Key]:
    if old is not None and new is not None and (old.labels, old.deleting) == (new.labels, new.deleting):
        return
    for name in {namespace.name for namespace in _both(old, new)}:
        yield from _everything_in(store, name)


# --- Tenure's own kinds


def _claim(store: Store, old: Claim | None, new: Claim | None) -> Iterator[Key]:
    sides = list(_both(old, new))
    namespace = sides[0].namespace
    yield Key("OwnedIdentity", namespace, sides[0].name)
    yield from _exceptions_about(store, namespace, sides)
    yield from _indebted(store, Key("OwnedIdentity", namespace, sides[0].name), sides)
    if old is not None and new is not None and _substance(old) == _substance(new):
        return
    covered = list(_covered(store, sides))
    yield from (Key(type(record).__name__, namespace, record.name) for record in covered)
    yield from _entitlements_under(store, sides)
    yield from (Key("OwnedIdentity", namespace, claim.name) for claim in store.claims_in(namespace))


def _substance(authored: Claim | Owner | Policy) -> tuple[object, ...]:
    """What others see of an authored object: its spec and its stamps, not its status."""
    return (authored.uid, authored.created, authored.spec_changed, authored.spec)


def _entitlements_under(store: Store, claims: Iterable[Claim]) -> Iterator[Key]:
    """Those of the ServiceAccounts that the claims cover. One that is bound before it is there may be covered by its
    name, or by a selector that takes everything."""
    for namespace in {claim.namespace for claim in claims}:
        for key, account in entitlements.of_accounts_in(store, namespace):
            record = store.service_accounts.get(account) or ServiceAccount(*account, uid="", created=_NEVER)
            if any(rank(claim, record, platform=False) for claim in claims if claim.namespace == namespace):
                yield key


def _covered(store: Store, claims: Iterable[Claim]) -> Iterator[ServiceAccount | Secret]:
    """What the claims cover, token Secrets of covered ServiceAccounts included."""
    claims = tuple(claims)
    for namespace in {claim.namespace for claim in claims}:
        for account in store.service_accounts_in(namespace):
            if any(rank(claim, account, platform=False) for claim in claims):
                yield account
                yield from store.tokens_of(namespace, account.name)
        for secret in store.secrets_in(namespace):
            if any(rank(claim, secret, platform=False) for claim in claims):
                yield secret


def _exception(store: Store, old: ExceptionRecord | None, new: ExceptionRecord | None) -> Iterator[Key]:
    yield from _with_targets(store, list(_both(old, new)))


def _with_targets(store: Store, sides: list[ExceptionRecord]) -> Iterator[Key]:
    """An exception, and what it targets, or targeted before."""
    namespace = sides[0].namespace
    yield Key("IdentityException", namespace, sides[0].name)
    kinds = {side.spec.target.kind.value for side in sides}
    kinds.update(match.kind for side in sides if side.status is not None for match in side.status.matched)
    bindings = store.bindings_in(namespace) if SubjectKind.ROLE_BINDING in kinds else ()
    clusterwide = store.bindings_in("") if SubjectKind.CLUSTER_ROLE_BINDING in kinds and namespace == store.home else ()
    targets: tuple[Record, ...] = (
        *store.service_accounts_in(namespace),
        *store.secrets_in(namespace),
        *store.claims_in(namespace),
        *bindings,
        *clusterwide,
    )
    for record in targets:
        kind = _kind(record)
        if any(_targets(exception, kind, record) for exception in sides):
            yield from (
                entitlements.within(store, record)
                if isinstance(record, Binding)
                else (Key(kind, namespace, record.name),)
            )


def _owner(store: Store, old: Owner | None, new: Owner | None) -> Iterator[Key]:
    if old is not None and new is not None and _substance(old) == _substance(new):
        return
    names = _leading_to(store, {owner.name for owner in _both(old, new)})
    claims = [claim for name in names for claim in store.claims_of_owner(name)]
    covered: list[Record] = [*claims, *_covered(store, claims)]
    for record in covered:
        yield Key(_kind(record), record.namespace, record.name)
    yield from _entitlements_under(store, claims)
    yield from _labelled(store, names)
    for (namespace, name), exception in store.exceptions.items():
        if exception.spec.owner in names:
            yield Key("IdentityException", namespace, name)


def _leading_to(store: Store, names: set[str]) -> set[str]:
    """The owners themselves and all whose chain of backups or escalations names one of them."""
    found = set(names)
    grown = True
    while grown:
        more = {
            name
            for name, owner in store.owners.items()
            if name not in found and found.intersection((*owners.backups(owner), *owners.escalations(owner)))
        }
        found |= more
        grown = bool(more)
    return found


def _labelled(store: Store, names: set[str]) -> Iterator[Key]:
    """What a label names one of the owners for: whole namespaces, and single objects."""
    specs = [policy.spec.ownership for policy in store.policies.values()]
    on_namespace = {LABEL_OWNER, *(label for spec in specs for label in spec.namespace_labels)}
    on_object = {LABEL_OWNER, *(label for spec in specs for label in spec.object_labels)}
    for namespace in store.namespaces.values():
        if any(label in on_namespace and value in names for label, value in namespace.labels):
            yield from _everything_in(store, namespace.name)
    for table in (store.service_accounts, store.secrets):
        for record in table.values():
            if any(label in on_object and value in names for label, value in record.labels):
                yield from _followers(store, record)


def _followers(store: Store, record: ServiceAccount | Secret) -> Iterator[Key]:
    tokens = store.tokens_of(record.namespace, record.name) if isinstance(record, ServiceAccount) else ()
    for found in (record, *tokens):
        yield Key(type(found).__name__, found.namespace, found.name)
    if isinstance(record, ServiceAccount):
        yield from entitlements.of_account(store, record.namespace, record.name)


def _policy(store: Store, old: Policy | None, new: Policy | None) -> Iterator[Key]:
    if old is not None and new is not None and _substance(old) == _substance(new):
        return
    specs = [policy.spec for policy in _both(old, new)]
    governed: dict[str, bool] = {}

    def governs(namespace: str) -> bool:
        if namespace not in governed:
            governed[namespace] = any(_may_govern(store, spec, namespace) for spec in specs)
        return governed[namespace]

    yield from (key for key in subjects(store) if governs(key.namespace))
    yield from (key for key, account in entitlements.every(store) if governs(account[0]))


def _may_govern(store: Store, spec: GovernancePolicySpec, namespace: str) -> bool:
    record = store.namespaces.get(namespace)
    labels = dict(record.labels) if record is not None else {}
    selector = spec.namespace_selector
    return namespace in spec.platform_namespaces or selector is None or selector.matches(labels)


def _finding(store: Store, old: Finding | None, new: Finding | None) -> Iterator[Key]:
    """Of findings an evaluation sees nothing but what they say of earlier waivers; whoever touched one is corrected
    when its subject is taken up again."""
    for finding in _both(old, new):
        yield subject_key(finding)
    if owed(old) == owed(new):
        return
    for key in {subject_key(side) for side in _both(old, new)}:
        for exception in store.exceptions_in(key.namespace):
            if exceptions.active_since(exception) is None and is_about(store, exception, key):
                yield from _with_targets(store, [exception])


def _quarantine(store: Store, old: QuarantineRecord | None, new: QuarantineRecord | None) -> Iterator[Key]:
    for quarantine in _both(old, new):
        yield subject_key(quarantine)
        yield from (key for key, _ in entitlements.removed(quarantine, store.home))


def _decision(store: Store, old: Decision | None, new: Decision | None) -> Iterator[Key]:
    """A verdict is about Tenure's own objects: one about an exception touches what that targets, too."""
    for decision in _both(old, new):
        target = decision.spec.target
        key = Key(target.kind.value, decision.namespace, target.name)
        record = cast(Any, store.get(key))
        if record is None or record.uid != target.uid:
            continue
        if key.kind == "IdentityFinding":
            yield from _finding(store, record, record)
        elif key.kind == "Quarantine":
            yield from _quarantine(store, record, None)
        elif key.kind == "IdentityException":
            yield from _with_targets(store, [record])
        else:
            yield key


_REACH: Final[dict[str, Callable[[Store, Any, Any], Iterator[Key]]]] = {
    "ServiceAccount": _service_account,
    "Secret": _secret,
    "RoleBinding": _binding,
    "ClusterRoleBinding": _binding,
    "Role": _role,
    "ClusterRole": _role,
    "Pod": _pod,
    "Namespace": _namespace,
    "OwnedIdentity": _claim,
    "IdentityException": _exception,
    "IdentityOwner": _owner,
    "GovernancePolicy": _policy,
    "IdentityFinding": _finding,
    "Quarantine": _quarantine,
    "IdentityDecision": _decision,
}
