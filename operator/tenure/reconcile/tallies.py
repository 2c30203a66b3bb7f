"""Where each object counts in the inventory's gauges, kept with the changes: no scrape ever walks the inventory."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from tenure.api.names import ExceptionPhase, IdentityClass, Rule
from tenure.inventory.store import Store
from tenure.model.evaluation import Evaluation
from tenure.model.keys import Key
from tenure.model.records import Authored, Binding, Role, Secret, ServiceAccount
from tenure.rules import risk
from tenure.rules.secrets import is_credential
from tenure.telemetry.metrics import Metrics
from tenure.telemetry.observed import (
    Credential,
    CredentialEnd,
    CredentialState,
    Entitlement,
    ExceptionEnd,
    Identity,
    ReviewState,
    credential_type,
)

_NEAR: Final = timedelta(days=14)


@dataclass(frozen=True, slots=True)
class Review:
    """From when its interval runs, and when it is over."""

    since: datetime
    due: datetime

    def state(self, now: datetime) -> ReviewState:
        """Due in the last tenth of the interval, but no longer than 14 days before."""
        if now >= self.due:
            return "Overdue"
        return "Due" if now >= self.due - min((self.due - self.since) / 10, _NEAR) else "Scheduled"


class Tallies:
    """Told of every judgement (identities, credentials) and of every change (entitlements)."""

    def __init__(self, store: Store, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics
        self._reviews: dict[Key, Review] = {}

    def all(self) -> None:
        """Counts every binding once, at start."""
        for binding in self._store.bindings.values():
            self._binding(binding)

    def subject(self, evaluation: Evaluation) -> None:
        """Counts one judged identity or credential."""
        key = evaluation.key
        ownership = evaluation.ownership
        record = self._store.get(key)
        if evaluation.exists and evaluation.review_due is not None and isinstance(record, Authored):
            since = max(filter(None, (record.spec_changed or record.created, evaluation.attested)))
            self._reviews[key] = Review(since, evaluation.review_due)
        else:
            self._reviews.pop(key, None)
        if key.kind in ("Secret", "IdentityException"):
            self._metrics.end(key, _end(evaluation, record))
        if not evaluation.exists or record is None:
            self._metrics.tally(key, None)
        elif isinstance(record, ServiceAccount):
            identity = Identity("ServiceAccount", _class(evaluation), ownership.state, ownership.escalation)
            self._metrics.tally(key, identity)
        elif isinstance(record, Secret):
            state: CredentialState = "Invalidated" if record.invalid_since else "Usable"
            counted = (
                Credential(credential_type(record.type), state, ownership.state) if is_credential(record) else None
            )
            self._metrics.tally(key, counted)

    def reviews(self, now: datetime) -> dict[str, int]:
        """Reviews by state at this instant: what falls due meanwhile needs no event."""
        return Counter(review.state(now) for review in self._reviews.values())

    def changed(self, kind: str, old: Any, new: Any) -> None:
        """A store listener's part: bindings themselves, and those that a role or an identity brings to life."""
        if kind in ("RoleBinding", "ClusterRoleBinding"):
            if new is None:
                self._metrics.tally(Key(kind, old.namespace, old.name), None)
            else:
                self._binding(new)
        elif kind in ("Role", "ClusterRole") and (old is None) != (new is None):
            role: Role = new or old
            for binding in self._store.bindings_of_role(kind, role.namespace, role.name):
                self._binding(binding)
        elif kind == "ServiceAccount" and (old is None) != (new is None):
            account: ServiceAccount = new or old
            for binding in self._store.bindings_of(account.namespace, account.name):
                self._binding(binding)

    def _binding(self, binding: Binding) -> None:
        home = binding.namespace if binding.role_kind == "Role" else ""
        armed = (home, binding.role_name) in self._store.roles
        buckets = [
            Entitlement(
                "Namespace" if binding.namespace else "Cluster",
                "Effective"
                if armed and (subject.namespace, subject.name) in self._store.service_accounts
                else "Dangling",
            )
            for subject in binding.subjects
            if subject.kind == "ServiceAccount"
        ]
        self._metrics.tally(Key(binding.kind, binding.namespace, binding.name), buckets or None)


def _class(evaluation: Evaluation) -> IdentityClass:
    return IdentityClass.PLATFORM if evaluation.governance.platform else evaluation.ownership.class_


def _end(evaluation: Evaluation, record: Any) -> CredentialEnd | ExceptionEnd | None:
    """When the credential, or the exception that is active, ends by itself; None where nothing says so."""
    if not evaluation.exists or record is None:
        return None
    if isinstance(record, Secret):
        if record.expires is None or not is_credential(record):
            return None
        grade = risk.of_violation(Rule.CREDENTIAL_EXPIRING, evaluation.risk)
        type_, owner = credential_type(record.type), evaluation.ownership.owner
        return CredentialEnd(type_, _class(evaluation), grade.level, owner, record.expires)
    standing = evaluation.standing
    if standing is None or standing.phase is not ExceptionPhase.ACTIVE:
        return None
    grade = risk.of_violation(Rule.EXCEPTION_LAPSED, evaluation.risk)
    spec, owner = record.spec, evaluation.ownership.owner
    return ExceptionEnd(spec.class_, grade.level, owner, evaluation.needed, spec.expires_at)
