"""The parameters of the admission guards, rebuilt from the Quarantines: one object per namespace, one for bindings.

Nothing is ever added to a guard or taken from it: it is compared with what the Quarantines say and written whole when
it differs. That is also the answer to anybody who edits or deletes one.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import Any

from tenure.api.guard import GuardEntry, QuarantineGuardSpec
from tenure.api.names import (
    API_VERSION,
    FIELD_MANAGER,
    GUARD_NAME,
    PROOF_ACCOUNT,
    PROOF_TOKEN,
    Stage,
)
from tenure.decide.hold import Quarantine
from tenure.enforce.quarantine import is_other_secret, stage_of
from tenure.inventory.projection import PROJECTIONS
from tenure.inventory.store import Store, subject_key
from tenure.kube.client import Kube
from tenure.kube.errors import NotFound
from tenure.kube.resources import QUARANTINE_GUARDS
from tenure.model.keys import Key
from tenure.model.records import Authored
from tenure.rules import owners

log = logging.getLogger(__name__)

KIND = "QuarantineGuard"
Guard = Authored[QuarantineGuardSpec, Any]
_MAPS = ("service_accounts", "secrets", "withheld", "revoked_names", "subjects", "writers", "groups", "entitlements")


class Guards:
    """`observed` limits the cluster's object to namespaces this operator sees; entries of others are left alone."""

    def __init__(
        self,
        kube: Kube,
        store: Store,
        operator_namespace: str,
        observed: tuple[str, ...],
        touched: Callable[[str], None] = lambda writer: None,
        platform: tuple[str, ...] = (),
    ) -> None:
        """`touched` is told the field manager ("" where nothing tells it) of whoever changed or deleted a guard;
        `platform` are the installation's platform namespaces beside kube-*."""
        self._touched = touched
        self._ours: dict[str, str] = {}
        """resourceVersion of each namespace's guard as we last wrote it, or found it to be right."""
        self._kube = kube
        self._store = store
        self._home = operator_namespace
        self._observed = frozenset(observed)
        self._platform = frozenset((operator_namespace, *platform))

    def overlook(self, key: Key) -> bool:
        """Whether the guards on tokens, pods and Secrets skip its namespace: the stage `Guard` is not to be had there.
        That on bindings, which is an entitlement's, looks everywhere."""
        return not key.part and (key.namespace.startswith("kube-") or key.namespace in self._platform)

    async def rebuild(self, namespace: str) -> None:
        """Brings the namespace's guard and the cluster's to what the Quarantines say. Raises ApiError."""
        if namespace != self._home:
            await self._write(namespace, self._with_unreadable(namespace, namespace_guard(self._store, namespace)))
        if self._observed:
            await self._read(self._home)  # others write it too, and our informers do not watch this namespace
        await self._write(self._home, self._bindings_guard())

    def lacks(self, quarantine: Quarantine) -> bool:
        """Whether the guards as the inventory has them do not say all that this Quarantine wants."""
        wanted = entries_of(quarantine, self._store)
        here, home = (self._store.guards.get((place, GUARD_NAME)) for place in (quarantine.namespace, self._home))
        none = QuarantineGuardSpec()
        near, far = here.spec if here else none, home.spec if home else none
        return not (
            wanted.service_accounts.items() <= near.service_accounts.items()
            and wanted.secrets.items() <= near.secrets.items()
            and wanted.withheld.items() <= near.withheld.items()
            and wanted.revoked_names.items() <= near.revoked_names.items()
            and wanted.subjects.items() <= far.subjects.items()
            and wanted.writers.items() <= far.writers.items()
            and wanted.entitlements.items() <= far.entitlements.items()
            and wanted.groups.keys() <= far.groups.keys()
        )

    async def in_force(self, namespace: str, quarantine: Quarantine) -> bool:
        """Live: whether both guards name everything this Quarantine wants refused."""
        wanted = entries_of(quarantine, self._store)
        here = await self._read(namespace)
        home = await self._read(self._home)
        return (
            wanted.service_accounts.keys() <= here.service_accounts.keys()
            and wanted.secrets.keys() <= here.secrets.keys()
            and wanted.withheld.keys() <= here.withheld.keys()
            and wanted.revoked_names.keys() <= here.revoked_names.keys()
            and wanted.subjects.keys() <= home.subjects.keys()
            and wanted.writers.keys() <= home.writers.keys()
            and wanted.entitlements.keys() <= home.entitlements.keys()
            and wanted.groups.keys() <= home.groups.keys()
        )

    async def _read(self, namespace: str) -> QuarantineGuardSpec:
        try:
            raw = await self._kube.get(QUARANTINE_GUARDS, GUARD_NAME, namespace)
        except NotFound:
            return QuarantineGuardSpec()
        record = PROJECTIONS[KIND](raw)
        self._store.upsert(KIND, record)
        held = self._store.guards.get((namespace, GUARD_NAME))
        return held.spec if held else QuarantineGuardSpec()

    def _bindings_guard(self) -> QuarantineGuardSpec:
        """Every namespace's quarantined identities, for bindings that may come from anywhere; and the synthetic
        identity on which the guard is proven."""
        subjects: dict[str, GuardEntry] = {}
        writers: dict[str, GuardEntry] = {}
        groups: dict[str, GuardEntry] = {}
        entitlements: dict[str, GuardEntry] = {}
        proof = GuardEntry(quarantine=f"{self._home}/{PROOF_ACCOUNT}")
        if self._observed:
            held = self._store.guards.get((self._home, GUARD_NAME))
            if held is not None:
                for name, entry in held.spec.subjects.items():
                    if name.split(":")[2] not in self._observed:
                        subjects[name] = entry
                for name, entry in held.spec.writers.items():
                    if name.split(":")[2] not in self._observed:
                        writers[name] = entry
                for name, entry in held.spec.groups.items():
                    if name.rsplit(":", 1)[1] not in self._observed:
                        groups[name] = entry
                for name, entry in held.spec.entitlements.items():
                    if entry.quarantine.partition("/")[0] not in self._observed:
                        entitlements[name] = entry
        for quarantine in sorted(self._store.quarantines.values(), key=lambda q: (q.namespace, q.name)):
            entries = entries_of(quarantine, self._store)
            subjects.update(entries.subjects)
            writers.update(entries.writers)
            groups.update(entries.groups)
            entitlements.update(entries.entitlements)
        writers[f"system:serviceaccount:{self._home}:{PROOF_ACCOUNT}"] = proof
        wanted = QuarantineGuardSpec(
            service_accounts={PROOF_ACCOUNT: proof},
            secrets={PROOF_TOKEN: proof},
            subjects=subjects,
            writers=writers,
            groups=groups,
            entitlements=entitlements,
        )
        return self._with_unreadable(self._home, wanted)

    def _with_unreadable(self, namespace: str, wanted: QuarantineGuardSpec) -> QuarantineGuardSpec:
        """The same with what the guard holds for Quarantines that this version cannot read: what they want is unknown,
        which is no reason to let go."""
        unknown = {f"{k.namespace}/{k.name}" for k in self._store.unprocessable if k.kind == "Quarantine"}
        held = self._store.guards.get((namespace, GUARD_NAME)) if unknown else None
        if held is None:
            return wanted
        kept = {
            field: {name: entry for name, entry in getattr(held.spec, field).items() if entry.quarantine in unknown}
            | getattr(wanted, field)
            for field in _MAPS
        }
        return wanted.model_copy(update=kept)

    async def _write(self, namespace: str, wanted: QuarantineGuardSpec) -> None:
        held = self._store.guards.get((namespace, GUARD_NAME))
        if held is None and wanted == QuarantineGuardSpec():
            self._ours.pop(namespace, None)
            return
        if held is not None and held.spec == wanted:
            self._ours[namespace] = held.resource_version  # whoever wrote it, it says what it should
            return
        by = await self._by_others(namespace, held)
        if wanted == QuarantineGuardSpec() and held is not None:
            with contextlib.suppress(NotFound):
                await self._kube.delete(QUARANTINE_GUARDS, GUARD_NAME, namespace, uid=held.uid)
            self._store.remove(KIND, namespace, GUARD_NAME)
            self._ours.pop(namespace, None)
            self._tell(namespace, by)
            return
        # A map that only somebody else wrote is theirs: an apply that says nothing of it leaves it.
        emptied: dict[str, Any] = {key: {} for key in held.spec.wire()} if by is not None and held is not None else {}
        try:
            stored = await self._kube.apply(
                QUARANTINE_GUARDS,
                {
                    "apiVersion": API_VERSION,
                    "kind": KIND,
                    "metadata": {"name": GUARD_NAME, "namespace": namespace},
                    "spec": {**emptied, **wanted.wire()},
                },
            )
        except NotFound as error:
            if not error.kind_missing:
                raise
            return  # somebody deleted the CRD: nothing is in force, which no release waits for and `in_force` sees
        self._store.upsert(KIND, PROJECTIONS[KIND](stored))
        self._ours[namespace] = stored["metadata"]["resourceVersion"]
        self._tell(namespace, by)

    def _tell(self, namespace: str, by: str | None) -> None:
        if by is not None:
            log.warning("the guard of namespace %s was touched by %s and is rebuilt", namespace, by or "somebody")
            self._touched(by)

    async def _by_others(self, namespace: str, held: Guard | None) -> str | None:
        """The field manager of whoever else wrote the guard that is to be replaced, "" for one who deleted it; None
        where nobody did. Our own apply leaves no other in it, so each is told once."""
        if held is None:
            record = self._store.namespaces.get(namespace)
            leaving = record is not None and record.deleting
            return "" if not leaving and (namespace in self._ours or self._stood(namespace)) else None
        if held.resource_version == self._ours.get(namespace):
            return None
        try:
            raw = await self._kube.get(QUARANTINE_GUARDS, GUARD_NAME, namespace)
        except NotFound:
            return ""
        entries = raw["metadata"].get("managedFields") or ()
        others = [e for e in entries if e.get("manager") != FIELD_MANAGER and "f:spec" in (e.get("fieldsV1") or ())]
        last = max(others, key=lambda e: str(e.get("time", "")), default=None)
        if last is None:  # who only takes entries away leaves no trace but the version
            several = bool(self._observed) and namespace == self._home  # operators, under one name
            return "" if namespace in self._ours and not several else None
        return str(last.get("manager", ""))

    def _stood(self, namespace: str) -> bool:
        """Whether a Quarantine that wants it says that it was there: only after a restart does nothing else tell."""
        quarantines = (
            self._store.quarantines.values() if namespace == self._home else self._store.quarantines_in(namespace)
        )
        none = QuarantineGuardSpec()
        return any(
            (stage := stage_of(quarantine, Stage.GUARD)) is not None
            and stage.verified is not None
            and entries_of(quarantine, self._store) != none
            for quarantine in quarantines
        )


def namespace_guard(store: Store, namespace: str) -> QuarantineGuardSpec:
    """What the Quarantines of a namespace want refused in it."""
    accounts: dict[str, GuardEntry] = {}
    secrets: dict[str, GuardEntry] = {}
    withheld: dict[str, GuardEntry] = {}
    revoked: dict[str, GuardEntry] = {}
    for quarantine in sorted(store.quarantines_in(namespace), key=lambda q: q.name):
        entries = entries_of(quarantine, store)
        accounts.update(entries.service_accounts)
        secrets.update(entries.secrets)
        withheld.update(entries.withheld)
        revoked.update(entries.revoked_names)
    return QuarantineGuardSpec(service_accounts=accounts, secrets=secrets, withheld=withheld, revoked_names=revoked)


def entries_of(quarantine: Quarantine, store: Store) -> QuarantineGuardSpec:
    """What one Quarantine wants refused. One that is ending wants nothing any more, except that revoked names stay
    refused until its finalizer goes (then a record of their own keeps them)."""
    spec, status = quarantine.spec, quarantine.status
    subject, namespace = spec.subject, quarantine.namespace
    ending = quarantine.deletion is not None or (status is not None and status.release is not None)
    owner, contact = _owner(quarantine, store)
    reference = f"{namespace}/{quarantine.name}"
    entry = GuardEntry(quarantine=reference, owner=owner or None, contact=contact or None)
    if is_other_secret(quarantine):
        gone = status is not None and any(r.done for r in status.revoked)
        return QuarantineGuardSpec(withheld={} if ending or gone else {subject.name: entry})
    if subject.entitlement:
        # The subject stays out of the binding that it was taken out of, after a revocation too.
        kind, _, named = subject_key(quarantine).form.partition(":")
        user = f"system:serviceaccount:{named}" if kind == "ServiceAccount" else named
        place = f"{subject.namespace or ''}/{subject.name} {kind} {user}"
        return QuarantineGuardSpec(entitlements={} if ending else {place: entry})
    tokens_gone = [r for r in status.revoked if r.kind == "Secret"] if status else []
    revoked = {r.name: _with(entry, r.service_account) for r in tokens_gone}
    if ending:
        return QuarantineGuardSpec(revoked_names=revoked)
    tokens = {t.name: _with(entry, t.service_account) for t in status.disabled_tokens} if status else {}
    if subject.kind != "ServiceAccount":
        gone = subject.name in revoked
        return QuarantineGuardSpec(
            secrets={} if gone else {subject.name: entry, **tokens},
            revoked_names=revoked,
        )
    user = f"system:serviceaccount:{namespace}:{subject.name}"
    return QuarantineGuardSpec(
        service_accounts={subject.name: entry},
        secrets={name: e for name, e in tokens.items() if name not in revoked},
        revoked_names=revoked,
        subjects={user: entry},
        # From the moment that the stage's turn has come, which its status says first.
        writers={user: entry} if stage_of(quarantine, Stage.DENY_WRITES) is not None else {},
        groups={f"system:serviceaccounts:{namespace}": entry},
    )


def _with(entry: GuardEntry, service_account: str) -> GuardEntry:
    return entry.model_copy(update={"service_account": service_account or None})


def _owner(quarantine: Quarantine, store: Store) -> tuple[str, str]:
    """The accountable owner of the findings that want it, and its first contact."""
    for name in quarantine.spec.findings:
        finding = store.findings.get((quarantine.namespace, name))
        if finding is None or finding.status is None or not finding.status.accountable.owner:
            continue
        owner = finding.status.accountable.owner
        record = store.owners.get(owner)
        return owner, owners.contact(record)[:253] if record else ""
    return "", ""
