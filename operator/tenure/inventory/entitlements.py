"""Entitlements: what a binding gives to one ServiceAccount, and what a Quarantine has taken out of one.

An entitlement is no object: its key is the binding's with a part, `ClusterRole/edit/ServiceAccount:payments:ci`, that
says which role (another role under the binding's name is another entitlement) and whom, in the form in which it is
named: a ServiceAccount that is bound as `User system:serviceaccount:…` too has two. What a Quarantine took out goes on
being one, so that it is judged on: it would else count as mended, and be given back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final

from tenure.api.quarantine import BindingSubject, PreImage
from tenure.inventory.store import QuarantineRecord, Store, service_account_of
from tenure.model.keys import Key
from tenure.model.namespaced import Name2
from tenure.model.records import Binding, Subject

KINDS: Final = ("RoleBinding", "ClusterRoleBinding")
LONGEST_NAME: Final = 253
"""Bindings of longer names, which RBAC allows, are not judged: no Quarantine could name one."""
_LONGEST_PART: Final = 512
_HASH: Final = 20


def form(subject: Subject) -> str:
    """`ServiceAccount:<namespace>:<name>` or `User:<name>`, as the annotation tenure.dev/removed-subjects lists it."""
    if subject.kind == "ServiceAccount":
        return f"ServiceAccount:{subject.namespace}:{subject.name}"
    return f"{subject.kind}:{subject.name}"


def part(role_kind: str, role_name: str, subject: Subject) -> str:
    """Which entitlement of the binding. No role's name holds a slash."""
    text = f"{role_kind}/{role_name}/{form(subject)}"
    if len(text) <= _LONGEST_PART:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:_HASH]
    return f"{text[: _LONGEST_PART - _HASH - 1]}-{digest}"


def of(binding: Binding, home: str) -> dict[Key, Name2]:
    """The entitlements in the binding, each with its ServiceAccount, there or not. home: the operator's namespace."""
    if len(binding.name) > LONGEST_NAME:
        return {}
    return {
        Key(
            binding.kind, binding.namespace or home, binding.name, part(binding.role_kind, binding.role_name, subject)
        ): account
        for subject in binding.subjects
        if (account := service_account_of(subject)) is not None
    }


def within(store: Store, binding: Binding) -> dict[Key, Name2]:
    """The same with those that Quarantines took out of this very binding."""
    found = of(binding, store.home)
    for quarantine in store.quarantines_holding(binding.uid):
        found |= {key: account for key, account in removed(quarantine, store.home) if _names(key, binding, store.home)}
    return found


def of_account(store: Store, namespace: str, name: str) -> Iterator[Key]:
    """What the ServiceAccount, there or not, is entitled to, what Quarantines took out included."""
    for binding in store.bindings_of(namespace, name):
        yield from (key for key, account in of(binding, store.home).items() if account == (namespace, name))
    for quarantine in store.quarantines_removing(namespace, name):
        yield from (key for key, account in removed(quarantine, store.home) if account == (namespace, name))


def every(store: Store) -> Iterator[tuple[Key, Name2]]:
    """All of them, each with its ServiceAccount. The store may change meanwhile."""
    for binding in list(store.bindings.values()):
        yield from of(binding, store.home).items()
    for quarantine in list(store.quarantines.values()):
        yield from removed(quarantine, store.home)


def of_accounts_in(store: Store, namespace: str) -> Iterator[tuple[Key, Name2]]:
    """What the namespace's ServiceAccounts, there or not, are entitled to anywhere."""
    for binding in store.bindings_naming(namespace):
        yield from (found for found in of(binding, store.home).items() if found[1][0] == namespace)
    for quarantine in store.quarantines_removing_in(namespace):
        yield from (found for found in removed(quarantine, store.home) if found[1][0] == namespace)


def around(store: Store, namespace: str) -> Iterator[Key]:
    """Every entitlement in the namespace's bindings, and those of its ServiceAccounts anywhere. To the operator's
    namespace belong those of the cluster."""
    yield from (key for key, _ in of_accounts_in(store, namespace))
    bindings = store.bindings_in(namespace) + (store.bindings_in("") if namespace == store.home else ())
    for binding in bindings:
        yield from within(store, binding)


def removed(quarantine: QuarantineRecord, home: str) -> Iterator[tuple[Key, Name2]]:
    """The entitlements that the Quarantine took out, each with its ServiceAccount."""
    for image in quarantine.status.pre_images if quarantine.status else ():
        for entry in image.removed:
            subject = subject_of(entry.subject, image.namespace or "")
            account = service_account_of(subject)
            if account is not None:
                yield of_image(image, subject, home), account


def of_image(image: PreImage, subject: Subject, home: str) -> Key:
    """The key of one entitlement of a binding as it stood."""
    which = part(image.role_ref.kind, image.role_ref.name, subject)
    return Key(image.kind, image.namespace or home, image.name, which)


def subject_of(stored: BindingSubject, namespace: str) -> Subject:
    """A stored subject as the inventory has it: a ServiceAccount without namespace is of the binding's own."""
    own = (stored.namespace or namespace) if stored.kind == "ServiceAccount" else ""
    return Subject(stored.kind, own, stored.name)


def _names(key: Key, binding: Binding, home: str) -> bool:
    return key[:3] == (binding.kind, binding.namespace or home, binding.name)
