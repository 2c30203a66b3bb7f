"""Store + key -> the frozen facts of one subject, and from them its evaluation.

What one subject costs does not grow with the cluster: its own bindings, the claims and exceptions of its namespace.
What many subjects share (a namespace's governance, the order of its claims, grades, which namespaces hold a Critical
ServiceAccount) is worked out once and forgotten when something it rests on changes: see `Shared`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from types import MappingProxyType
from typing import Final, cast

from tenure.api.finding import Debt, IdentityFindingStatus
from tenure.api.names import Rule
from tenure.inventory import entitlements
from tenure.inventory.store import Held, Store, service_account_of, subject_key
from tenure.model.evaluation import Decision, Evaluation, ExceptionRecord, Governance, RiskGrade
from tenure.model.facts import NO_DEBTS, UNGRADED, Claim, Covered, Facts, Grant, Owner, Record
from tenure.model.keys import Key
from tenure.model.namespaced import Namespaced
from tenure.model.records import Authored, Binding, Namespace, Pod, Secret, ServiceAccount, Subject
from tenure.rules import evaluation, exceptions, risk
from tenure.rules.coverage import rank
from tenure.rules.governance import Installation, govern
from tenure.rules.secrets import is_token


class Stored(Enum):
    """The default of `live`: judge the record that is in the store."""

    RECORD = "record"


STORED: Final = Stored.RECORD


def evaluate(
    store: Store,
    key: Key,
    now: datetime,
    installation: Installation,
    *,
    live: Record | Stored | None = STORED,
) -> Evaluation:
    """Judges one subject. `live` replaces the stored record of this very key by one freshly read (None = gone), so that
    what is about to be destroyed is judged again by the same rules. Raises KeyError for a kind that is not judged."""
    return evaluation.evaluate(gather(store, key, installation, live=live), now)


def gather(store: Store, key: Key, installation: Installation, *, live: Record | Stored | None = STORED) -> Facts:
    """The facts of one subject; `record` is None when there is none. Raises KeyError for a kind that is not judged."""
    if key.kind not in evaluation.KINDS:
        raise KeyError(f"{key.kind} is no kind the rules judge")
    record = cast("Record | None", store.get(key)) if isinstance(live, Stored) else live
    around = _around(Shared.of(store), key, record, installation, replaced=not isinstance(live, Stored))
    if isinstance(record, ServiceAccount):
        return _service_account(around, record)
    if isinstance(record, Secret):
        return _secret(around, record)
    if isinstance(record, Binding):
        return _entitlement(around, record)
    if record is None:
        return around.facts(None)
    if key.kind == "OwnedIdentity":
        return _claim(around, cast(Claim, record))
    return _exception(around, cast(ExceptionRecord, record))


def subjects(store: Store) -> Iterator[Key]:
    """Every key there is to evaluate: ServiceAccounts, Secrets (those that are no credentials too, for the inventory),
    entitlements, claims, exceptions. Objects this version cannot read are not among them: what they say is unknown, not
    judged. The store may change meanwhile: then some keys are of what is gone, or those of what came are missing."""
    for kind, table in (
        ("ServiceAccount", store.service_accounts),
        ("Secret", store.secrets),
        ("OwnedIdentity", store.claims),
        ("IdentityException", store.exceptions),
    ):
        for namespace, name in list(table):
            yield Key(kind, namespace, name)
    yield from (key for key, _ in entitlements.every(store))


# --- what subjects share


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every subject of one namespace has in common."""

    installation: Installation
    namespace: Namespace | None
    governance: Governance
    claims: tuple[Claim, ...]
    exceptions: tuple[ExceptionRecord, ...]
    decisions: Mapping[str, tuple[Decision, ...]]
    """By the uid they are about, each in the order in which they were made."""
    debts: Mapping[Key, Mapping[Rule, Debt]]
    """What findings say of earlier waivers, by what they are about, where they say anything."""
    quarantined: frozenset[Key]
    """The subjects of its Quarantines."""


class Shared:
    """One store's common facts, as its listener: a change drops what rested on it, the next question builds it anew.

    `rights` counts the changes that may move anybody's grade; a grade or neighbourhood remembered under an earlier
    count is worked out again when asked for. The last answer stays until then: `tenure.inventory.impact` compares
    the two."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.rights = 0
        self._surroundings: dict[str, Surroundings] = {}
        self._owners: MappingProxyType[str, Owner] | None = None
        self._grades: Namespaced[tuple[int, RiskGrade]] = Namespaced()
        self._critical: dict[str, tuple[int, bool]] = {}
        self._groups: dict[str, tuple[int, tuple[tuple[Binding, str], ...]]] = {}
        self._deciders: tuple[int, frozenset[str]] | None = None
        self._labelled: dict[str, set[str]] | None = None

    @classmethod
    def of(cls, store: Store) -> Shared:
        """The store's one Shared; it is among the store's listeners, so it lives and dies with it. A listener that
        stands before it and asks about the change it is told of must tell Shared first (`impact.affected` does)."""
        for listener in store.listeners:
            if isinstance(listener, cls):
                return listener
        shared = cls(store)
        store.listeners.append(shared)
        return shared

    def __call__(self, kind: str, old: Held | None, new: Held | None) -> None:
        """Forgets what rested on the changed object. Harmless when it is called twice for one change."""
        changed = new if new is not None else old
        if changed is None:
            return
        if kind in ("RoleBinding", "ClusterRoleBinding", "Role", "ClusterRole"):
            self.rights += 1
        elif kind == "ServiceAccount":
            self.rights += (old is None) != (new is None)
        elif kind in ("OwnedIdentity", "IdentityException", "IdentityDecision", "Quarantine"):
            self._surroundings.pop(changed.namespace, None)  # type: ignore[union-attr]
        elif kind == "IdentityFinding":
            if owed(old) != owed(new):
                self._surroundings.pop(changed.namespace, None)  # type: ignore[union-attr]
        elif kind == "Namespace":
            self._surroundings.pop(changed.name, None)
            self._labelled = None
        elif kind in ("GovernancePolicy", "IdentityOwner"):
            self._surroundings.clear()
            self._owners = None

    @property
    def owners(self) -> MappingProxyType[str, Owner]:
        """Every owner, as they are now."""
        if self._owners is None:
            self._owners = MappingProxyType(dict(self.store.owners))
        return self._owners

    def labelled(self, value: str) -> frozenset[str]:
        """Names of the namespaces that carry this value under any label."""
        if self._labelled is None:
            self._labelled = {}
            for namespace in self.store.namespaces.values():
                for _, found in namespace.labels:
                    self._labelled.setdefault(found, set()).add(namespace.name)
        return frozenset(self._labelled.get(value, ()))

    def surroundings(self, namespace: str, installation: Installation) -> Surroundings:
        found = self._surroundings.get(namespace)
        if found is None or found.installation is not installation:
            found = self._surroundings[namespace] = self._around(namespace, installation)
        return found

    def _around(self, namespace: str, installation: Installation) -> Surroundings:
        store = self.store
        record = store.namespaces.get(namespace)
        labels = record.labels if record is not None else ()
        quarantines = store.quarantines_in(namespace)
        return Surroundings(
            installation=installation,
            namespace=record,
            governance=govern(namespace, labels, store.policies.values(), installation, unreadable(store, namespace)),
            claims=earlier_first(store.claims_in(namespace)),
            exceptions=store.exceptions_in(namespace),
            decisions=earlier_verdicts_first(store.decisions_in(namespace)),
            debts=_debts(store, namespace),
            quarantined=frozenset(map(subject_key, quarantines)),
        )

    # --- rights

    def deciders(self) -> frozenset[str]:
        """Namespaces in which a binding gives somebody a role that names a decision verb; "" among them: everywhere."""
        known = self._deciders
        if known is None or known[0] != self.rights:
            known = self._deciders = (self.rights, frozenset(self._with_deciders()))
        return known[1]

    def last_deciders(self) -> frozenset[str] | None:
        """What `deciders` last said, before the latest change perhaps; None = nobody asked yet."""
        return None if self._deciders is None else self._deciders[1]

    def _with_deciders(self) -> Iterator[str]:
        for role in self.store.deciding_roles():
            kind = "Role" if role.namespace else "ClusterRole"
            for binding in self.store.bindings_of_role(kind, role.namespace, role.name):
                if binding.subjects:
                    yield binding.namespace

    def grants(self, namespace: str, name: str) -> tuple[Grant, ...]:
        """What the ServiceAccount is bound to: by name, then through groups (bootstrap ones are the cluster's own)."""
        found = [
            (binding, self._through(binding, namespace, name)) for binding in self.store.bindings_of(namespace, name)
        ]
        direct = {(binding.namespace, binding.name) for binding, _ in found}
        found += [
            (binding, through)
            for binding, through in self.group_bindings(namespace)
            if (binding.namespace, binding.name) not in direct
        ]
        return tuple(self.grant(binding, through) for binding, through in found)

    def grant(self, binding: Binding, through: str) -> Grant:
        """What one binding gives to somebody it names in that way."""
        role = self.store.roles.get((binding.namespace if binding.role_kind == "Role" else "", binding.role_name))
        runs = role is not None and any(row.row == risk.RUN_PODS for row in role.grades)
        elevated = runs and binding.namespace not in risk.CLUSTER_NAMESPACES and self.critical(binding.namespace)
        return Grant(binding, role, through, elevated)

    @staticmethod
    def _through(binding: Binding, namespace: str, name: str) -> str:
        for subject in binding.subjects:
            if subject.kind == "ServiceAccount" and (subject.namespace, subject.name) == (namespace, name):
                return ""
        return f"User system:serviceaccount:{namespace}:{name}"

    def group_bindings(self, namespace: str) -> tuple[tuple[Binding, str], ...]:
        """The namespace's group bindings that count, each with the group in words."""
        known = self._groups.get(namespace)
        if known is None or known[0] != self.rights:
            mine = (f"system:serviceaccounts:{namespace}", "system:serviceaccounts", "system:authenticated")
            found = []
            for binding in self.store.group_bindings(namespace):
                if not binding.bootstrap:
                    names = {subject.name for subject in binding.subjects if subject.kind == "Group"}
                    found.append((binding, f"Group {next(group for group in mine if group in names)}"))
            known = self._groups[namespace] = (self.rights, tuple(found))
        return known[1]

    def grade(self, namespace: str, name: str) -> RiskGrade:
        """The ServiceAccount's grade."""
        if not self.store.bindings_of(namespace, name) and not self.group_bindings(namespace):
            return UNGRADED
        known = self._grades.get((namespace, name))
        if known is None or known[0] != self.rights:
            known = self._grades[namespace, name] = (self.rights, risk.grade(self.grants(namespace, name)))
        return known[1]

    def critical(self, namespace: str) -> bool:
        """Whether a ServiceAccount of the namespace is Critical by its own grades: who runs pods there may become
        it."""
        known = self._critical.get(namespace)
        if known is None or known[0] != self.rights:
            known = self._critical[namespace] = (self.rights, self._holds_critical(namespace))
        return known[1]

    def last_critical(self, namespace: str) -> bool | None:
        """What `critical` last said of the namespace, before the latest change perhaps; None = nobody asked yet."""
        known = self._critical.get(namespace)
        return None if known is None else known[1]

    def _holds_critical(self, namespace: str) -> bool:
        accounts = self.store.service_accounts_in(namespace)
        if not accounts:
            return False
        if any(self._makes_critical(binding) for binding, _ in self.group_bindings(namespace)):
            return True
        return any(
            self._makes_critical(binding)
            for account in accounts
            for binding in self.store.bindings_of(namespace, account.name)
        )

    def _makes_critical(self, binding: Binding) -> bool:
        role = self.store.roles.get((binding.namespace if binding.role_kind == "Role" else "", binding.role_name))
        return role is not None and risk.critical((Grant(binding, role),))


def unreadable(store: Store, namespace: str) -> tuple[str, ...]:
    """What might bear on the namespace and cannot be read, as Kind/name: policies and owners of the cluster, claims,
    exceptions, decisions and Quarantines of the namespace."""
    if not store.unprocessable:
        return ()
    cluster = (found for found in store.unprocessable_in("") if found.kind in ("GovernancePolicy", "IdentityOwner"))
    here = (
        found
        for found in store.unprocessable_in(namespace)
        if found.kind in ("OwnedIdentity", "IdentityException", "IdentityDecision", "Quarantine") and namespace
    )
    return tuple(f"{found.kind}/{found.name}" for found in (*cluster, *here))


def earlier_first(claims: Iterable[Claim]) -> tuple[Claim, ...]:
    """Claims in the order in which equally specific ones count: creation, then name."""
    return tuple(sorted(claims, key=lambda claim: (claim.created, claim.name)))


def earlier_verdicts_first(decisions: Iterable[Decision]) -> Mapping[str, tuple[Decision, ...]]:
    """Decisions by the uid they are about, each in the order in which they were made: creation, then name."""
    found: dict[str, list[Decision]] = {}
    for decision in sorted(decisions, key=lambda decision: (decision.created, decision.name)):
        found.setdefault(decision.spec.target.uid, []).append(decision)
    return MappingProxyType({uid: tuple(made) for uid, made in found.items()})


def owed(finding: Held | None) -> tuple[Key, Rule, Debt] | None:
    """What a finding says of earlier waivers, of what and for which rule; None where it says nothing."""
    status = finding.status if isinstance(finding, Authored) else None
    if not isinstance(finding, Authored) or not isinstance(status, IdentityFindingStatus) or status.debt.until is None:
        return None
    return subject_key(finding), finding.spec.rule, status.debt


def _debts(store: Store, namespace: str) -> Mapping[Key, Mapping[Rule, Debt]]:
    found: dict[Key, dict[Rule, Debt]] = {}
    for finding in store.findings_in(namespace):
        if (owes := owed(finding)) is not None:
            key, rule, debt = owes
            found.setdefault(key, {})[rule] = debt
    return MappingProxyType({key: MappingProxyType(debts) for key, debts in found.items()})


def is_about(store: Store, exception: ExceptionRecord, key: Key) -> bool:
    """Whether the exception targets what is, or was, called so: what was waived for an earlier one of the name counts
    for the next."""
    target = exception.spec.target
    if target.kind.value != key.kind or exception.namespace != key.namespace:
        return False
    if exceptions.is_frozen(exception) and exception.status is not None:
        return any((match.kind, match.name) == (key.kind, key.name) for match in exception.status.matched)
    if target.name is not None:
        return target.name == key.name
    record = cast("Record | None", store.get(key))
    return record is not None and exceptions.selects(exception, key.kind, record)


# --- facts by kind


@dataclass(frozen=True, slots=True)
class _Around:
    """What goes into the facts of every kind, with a live claim or exception already in the place of the stored one."""

    key: Key
    shared: Shared
    installation: Installation
    surroundings: Surroundings
    claims: tuple[Claim, ...]
    exceptions: tuple[ExceptionRecord, ...]

    @property
    def platform(self) -> bool:
        return self.surroundings.governance.platform

    def facts(
        self,
        record: Record | None,
        *,
        risk: RiskGrade = UNGRADED,
        grants: tuple[Grant, ...] = (),
        identity: ServiceAccount | None = None,
        tokens: tuple[str, ...] = (),
        pods: tuple[Pod, ...] = (),
        subjects: tuple[Covered, ...] = (),
        targets: tuple[Facts, ...] = (),
    ) -> Facts:
        key, around = self.key, self.surroundings
        name_pods = bool(pods) and key in around.quarantined
        return Facts(
            key=key,
            record=record,
            governance=around.governance,
            namespace=around.namespace,
            claims=self.claims,
            exceptions=self.exceptions,
            decisions=around.decisions,
            debts=self._debts(record),
            owners=self.shared.owners,
            risk=risk,
            grants=grants,
            identity=identity,
            tokens=tokens,
            running=any(not pod.finished for pod in pods),
            pods=tuple(pod.name for pod in pods if not pod.finished) if name_pods else (),
            subjects=subjects,
            targets=targets,
        )

    def _debts(self, record: Record | None) -> Mapping[str, Mapping[Key, Mapping[Rule, Debt]]]:
        """By exception: the subject's, or itself. One that is active was counted when it became so."""
        known = self.surroundings.debts
        if not known or record is None:
            return NO_DEBTS
        store, kind = self.shared.store, self.key.kind
        mine = (
            [exception for exception in self.exceptions if exception.name == record.name]
            if kind == "IdentityException"
            else exceptions.about(self.exceptions, kind, record)
        )
        return {
            exception.name: {key: debts for key, debts in known.items() if is_about(store, exception, key)}
            for exception in mine
            if exceptions.active_since(exception) is None
        }


def _around(shared: Shared, key: Key, record: Record | None, installation: Installation, *, replaced: bool) -> _Around:
    around = shared.surroundings(key.namespace, installation)
    claims, waiving = around.claims, around.exceptions
    if replaced and key.kind == "OwnedIdentity":
        others = [claim for claim in claims if claim.name != key.name]
        claims = earlier_first(others if record is None else [*others, cast(Claim, record)])
    elif replaced and key.kind == "IdentityException":
        kept = [exception for exception in waiving if exception.name != key.name]
        waiving = tuple(kept if record is None else [*kept, cast(ExceptionRecord, record)])
    return _Around(key, shared, installation, around, claims, waiving)


def _service_account(around: _Around, record: ServiceAccount) -> Facts:
    shared, store = around.shared, around.shared.store
    return around.facts(
        record,
        risk=shared.grade(record.namespace, record.name),
        grants=shared.grants(record.namespace, record.name),
        tokens=tokens_of(store, record),
        pods=store.pods_of(record.namespace, record.name),
    )


def _secret(around: _Around, record: Secret) -> Facts:
    shared, store = around.shared, around.shared.store
    identity = identity_of(store, record)
    return around.facts(
        record,
        risk=shared.grade(identity.namespace, identity.name) if identity is not None else UNGRADED,
        grants=shared.grants(identity.namespace, identity.name) if identity is not None else (),
        identity=identity,
        pods=store.pods_using_secret(record.namespace, record.name),
    )


def _entitlement(around: _Around, record: Binding) -> Facts:
    """Ownership comes from the namespace of the ServiceAccount, all else from the binding's; a ClusterRoleBinding is
    governed where its ServiceAccount is."""
    shared, store, key = around.shared, around.shared.store, around.key
    subject = _entitled(store, key, record)
    account = service_account_of(subject) if subject is not None else None
    if subject is None or account is None:
        return around.facts(None)
    identity = store.service_accounts.get(account) or ServiceAccount(*account, uid="", created=record.created)
    there = shared.surroundings(identity.namespace, around.installation)
    form = "" if subject.kind == "ServiceAccount" else f"{subject.kind} {subject.name}"
    grants = (shared.grant(record, form),)
    here = around.surroundings
    return replace(
        around.facts(record, risk=risk.grade(grants), grants=grants, identity=identity),
        governance=_governing(here.governance if record.namespace else there.governance, there.governance),
        entitled=there.governance,
        namespace=there.namespace,
        claims=there.claims,
        leaving=bool(record.namespace) and here.namespace is not None and here.namespace.deleting,
    )


def _entitled(store: Store, key: Key, binding: Binding) -> Subject | None:
    """Whom the key is about: somebody who is bound, or was until a Quarantine that stands took the subject out."""
    for subject in binding.subjects:
        if entitlements.part(binding.role_kind, binding.role_name, subject) == key.part:
            return subject
    for quarantine in store.quarantines_holding(binding.uid):
        status, uid = quarantine.status, quarantine.spec.subject.uid
        if status is None or any(entry.done and entry.uid == uid for entry in status.revoked):
            continue
        for image in status.pre_images:
            for entry in image.removed:
                subject = entitlements.subject_of(entry.subject, image.namespace or "")
                if entitlements.of_image(image, subject, store.home) == key:
                    return subject
    return None


def _governing(acts: Governance, identity: Governance) -> Governance:
    """What governs acts on an entitlement: a platform identity is held back wherever it is bound."""
    return replace(
        acts,
        platform=acts.platform or identity.platform,
        platform_named=(acts.platform or identity.platform)
        and (acts.platform_named or not acts.platform)
        and (identity.platform_named or not identity.platform),
        unreadable=tuple(dict.fromkeys((*acts.unreadable, *identity.unreadable))),
    )


def _claim(around: _Around, record: Claim) -> Facts:
    covered = tuple(_covered(around, record))
    return around.facts(record, risk=risk.worst(found.risk for found in covered), subjects=covered)


def _covered(around: _Around, claim: Claim) -> Iterator[Covered]:
    shared, store = around.shared, around.shared.store
    candidates: tuple[ServiceAccount | Secret, ...] = (*_service_accounts(store, claim), *_secrets(store, claim))
    for record in candidates:
        if not rank(claim, record, platform=around.platform):
            continue
        if isinstance(record, ServiceAccount):
            tokens = tokens_of(store, record)
            yield Covered(record, shared.grade(record.namespace, record.name), tokens=tokens)
        else:
            identity = identity_of(store, record)
            grade = shared.grade(identity.namespace, identity.name) if identity is not None else UNGRADED
            yield Covered(record, grade, identity)


def _service_accounts(store: Store, claim: Claim) -> Iterable[ServiceAccount]:
    """Those that the claim may cover: all of the namespace only where a selector has to be asked."""
    own = claim.spec.subjects.service_accounts
    if claim.spec.subjects.selector is not None or (own is not None and own.selector is not None):
        return store.service_accounts_in(claim.namespace)
    names = sorted(own.names) if own is not None else ()
    found = (store.service_accounts.get((claim.namespace, name)) for name in names)
    return [record for record in found if record is not None]


def _secrets(store: Store, claim: Claim) -> Iterable[Secret]:
    own = claim.spec.subjects.secrets
    if claim.spec.subjects.selector is not None or (own is not None and own.selector is not None):
        return store.secrets_in(claim.namespace)
    names = sorted(own.names) if own is not None else ()
    found = (store.secrets.get((claim.namespace, name)) for name in names)
    return [record for record in found if record is not None]


def _exception(around: _Around, record: ExceptionRecord) -> Facts:
    store = around.shared.store
    keys = sorted({*_selected(store, record), *_pinned(store, record)})
    targets = tuple(gather(store, key, around.installation) for key in keys)
    return around.facts(record, risk=risk.worst(target.risk for target in targets), targets=targets)


TARGETS: Final = ("ServiceAccount", "Secret", "RoleBinding", "ClusterRoleBinding", "OwnedIdentity")
"""Kinds an exception can be about that are judged so far; those of the others waive nothing yet. One about a binding is
about every entitlement in it."""


def _selected(store: Store, exception: ExceptionRecord) -> Iterator[Key]:
    target, namespace = exception.spec.target, exception.namespace
    kind = target.kind.value
    if kind not in TARGETS:
        return
    records: Iterable[Record | None]
    if target.name is not None:
        records = (cast("Record | None", store.get(Key(kind, namespace, target.name))),)
    elif kind == "ServiceAccount":
        records = store.service_accounts_in(namespace)
    elif kind in entitlements.KINDS:
        records = store.bindings_in("" if kind == "ClusterRoleBinding" else namespace)
    else:
        records = store.secrets_in(namespace) if kind == "Secret" else store.claims_in(namespace)
    for record in records:
        if record is not None and exceptions.selects(exception, kind, record):
            yield from _keys_of(store, kind, namespace, record)


def _keys_of(store: Store, kind: str, namespace: str, record: Record) -> Iterator[Key]:
    """What is judged of one target; a ClusterRoleBinding's entitlements in the operator's namespace alone."""
    if not isinstance(record, Binding):
        yield Key(kind, namespace, record.name)
    elif namespace == (record.namespace or store.home):
        yield from entitlements.within(store, record)


def _pinned(store: Store, exception: ExceptionRecord) -> Iterator[Key]:
    """Targets frozen at approval that still exist, whatever their labels say by now."""
    status = exception.status
    if status is None or status.observed_generation != exception.generation:
        return
    for match in status.matched:
        key = Key(match.kind, exception.namespace, match.name)
        record = cast("Record | None", store.get(key)) if match.kind in TARGETS else None
        if record is not None and record.uid == match.uid:
            yield from _keys_of(store, match.kind, exception.namespace, record)


def tokens_of(store: Store, account: ServiceAccount) -> tuple[str, ...]:
    """Names of the ServiceAccount's token Secrets; one annotated to an earlier namesake is not its."""
    return tuple(
        secret.name
        for secret in store.tokens_of(account.namespace, account.name)
        if is_token(secret) and secret.service_account_uid in ("", account.uid)
    )


def identity_of(store: Store, secret: Secret) -> ServiceAccount | None:
    """The ServiceAccount a token Secret belongs to; None for other Secrets, and when it is gone or only a namesake."""
    if not is_token(secret) or not secret.service_account:
        return None
    account = store.service_accounts.get((secret.namespace, secret.service_account))
    return account if account is not None and secret.service_account_uid in ("", account.uid) else None
