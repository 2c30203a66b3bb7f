"""A small cluster for tests of the rules: objects in a real Store, written as shortly as a test can say them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from tenure.api.claim import OwnedIdentitySpec
from tenure.api.decision import IdentityDecisionSpec
from tenure.api.exception import IdentityExceptionSpec, IdentityExceptionStatus
from tenure.api.finding import IdentityFindingSpec, IdentityFindingStatus
from tenure.api.owner import IdentityOwnerSpec
from tenure.api.policy import GovernancePolicySpec
from tenure.api.quarantine import QuarantineSpec
from tenure.inventory.snapshot import STORED, Stored, evaluate, gather
from tenure.inventory.store import Store
from tenure.model.evaluation import Evaluation, Violation
from tenure.model.facts import Facts, Record
from tenure.model.keys import Key
from tenure.model.records import (
    Authored,
    Binding,
    Grade,
    Namespace,
    Pod,
    Role,
    Secret,
    ServiceAccount,
    Subject,
)

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
NOW = BEGIN + timedelta(days=100)
DAY = timedelta(days=1)
NS = "payments"

ROWS = {
    "R01": Grade("R01", "Critical", "High", "every verb on every resource"),
    "R02": Grade("R02", "Critical", "Critical", "escalate roles"),
    "R07": Grade("R07", "Critical", "High", "get secrets"),
    "R11": Grade("R11", "High", "High", "create pods"),
    "R12": Grade("R12", "High", "Medium", "create pods/exec"),
}


@dataclass(frozen=True)
class Installation:
    operator_namespace: str = "tenure-system"
    platform_namespaces: tuple[str, ...] = ("ingress",)


class World:
    def __init__(self) -> None:
        self.store = Store()
        self.installation = Installation()
        self._numbers = count(1)
        self.namespace(NS)

    def _uid(self) -> str:
        return f"uid-{next(self._numbers)}"

    def put(self, kind: str, record: Any) -> Any:
        self.store.upsert(kind, record)
        return record

    def namespace(self, name: str, labels: Mapping[str, str] | None = None, *, deleting: bool = False) -> Namespace:
        pairs = tuple(sorted((labels or {}).items()))
        return self.put("Namespace", Namespace(name, self._uid(), BEGIN, pairs, deleting))

    def account(self, name: str = "ci", ns: str = NS, labels: Mapping[str, str] | None = None) -> ServiceAccount:
        return self.put(
            "ServiceAccount", ServiceAccount(ns, name, self._uid(), BEGIN, tuple(sorted((labels or {}).items())))
        )

    def token(self, name: str = "ci-token", account: str = "ci", ns: str = NS, **more: Any) -> Secret:
        return self.secret(
            name, ns=ns, type="kubernetes.io/service-account-token", service_account=account, keys=("token",), **more
        )

    def secret(
        self,
        name: str,
        ns: str = NS,
        type: str = "Opaque",
        keys: tuple[str, ...] = (),
        labels: Mapping[str, str] | None = None,
        created: datetime = BEGIN,
        **more: Any,
    ) -> Secret:
        pairs = tuple(sorted((labels or {}).items()))
        return self.put("Secret", Secret(ns, name, self._uid(), created, type, keys, pairs, **more))

    def role(self, name: str, *rows: str, ns: str = "") -> Role:
        kind = "Role" if ns else "ClusterRole"
        return self.put(kind, Role(ns, name, self._uid(), tuple(ROWS[row] for row in rows)))

    def bind(
        self,
        role: str,
        to: str | Subject = "ci",
        ns: str = NS,
        *,
        name: str = "",
        role_kind: Any = "ClusterRole",
        created: datetime = BEGIN,
        bootstrap: bool = False,
    ) -> Binding:
        """A RoleBinding, or with ns="" a ClusterRoleBinding; a bare name is a ServiceAccount of NS."""
        subject = Subject("ServiceAccount", NS, to) if isinstance(to, str) else to
        kind = "RoleBinding" if ns else "ClusterRoleBinding"
        made = Binding(
            ns, name or f"{role}-{subject.name}", self._uid(), created, role_kind, role, (subject,), bootstrap
        )
        return self.put(kind, made)

    def pod(self, name: str, account: str = "ci", ns: str = NS, *, finished: bool = False, **more: Any) -> Pod:
        return self.put("Pod", Pod(ns, name, account, finished, **more))

    def _authored(self, kind: str, ns: str, name: str, spec: Any, **more: Any) -> Any:
        fields: dict[str, Any] = {"generation": 1, "resource_version": str(next(self._numbers)), "created": BEGIN}
        fields.update(more)
        return self.put(kind, Authored(kind=kind, namespace=ns, name=name, uid=self._uid(), spec=spec, **fields))

    def owner(self, name: str = "payments", spec: Mapping[str, Any] | None = None, **more: Any) -> Any:
        return self._authored("IdentityOwner", "", name, IdentityOwnerSpec.read(spec or {}), **more)

    def claim(
        self, name: str = "claim", subjects: Mapping[str, Any] | None = None, *, ns: str = NS, **more: Any
    ) -> Any:
        """`spec` adds to or replaces fields of the spec; the rest goes to the record."""
        spec: dict[str, Any] = {"owner": "payments", "purpose": "test", "subjects": subjects or {"selector": {}}}
        spec.update(more.pop("spec", {}))
        return self._authored("OwnedIdentity", ns, name, OwnedIdentitySpec.read(spec), **more)

    def exception(
        self, name: str = "waiver", target: Mapping[str, Any] | None = None, rules: tuple[str, ...] = (), **more: Any
    ) -> Any:
        spec: dict[str, Any] = {
            "target": target or {"kind": "Secret", "name": "ci-token"},
            "rules": list(rules) or ["LegacyToken"],
            "class": "AcceptedRisk",
            "owner": "payments",
            "justification": "test",
            "requestedBy": "alice@example.com",
            "expiresAt": (NOW + 30 * DAY).isoformat(),
        }
        spec.update(more.pop("spec", {}))
        more.setdefault("spec_changed", NOW - DAY)
        return self._authored("IdentityException", NS, name, IdentityExceptionSpec.read(spec), **more)

    def decision(
        self,
        about: Any,
        verdict: str = "Approve",
        by: str | None = "bob@example.com",
        *,
        verb: str | None = None,
        at: datetime = NOW,
        generation: int | None = None,
        name: str = "",
        **more: Any,
    ) -> Any:
        """A decision about the state of the object as it is handed in; `generation` names another one."""
        target: dict[str, Any] = {"kind": about.kind, "name": about.name, "uid": about.uid}
        if about.kind == "IdentityFinding":
            target["revision"] = generation or about.spec.revision
        elif about.kind != "Quarantine":
            target["generation"] = generation or about.generation
        spec: dict[str, Any] = {"target": target, "verdict": verdict, "reason": "test"}
        spec.update({field: value for field, value in (("by", by), ("verb", verb)) if value is not None})
        made = name or f"decision-{next(self._numbers):05d}"
        fields = {"created": at, **more}
        return self._authored("IdentityDecision", about.namespace, made, IdentityDecisionSpec.read(spec), **fields)

    def policy(self, name: str = "default", spec: Mapping[str, Any] | None = None, **more: Any) -> Any:
        return self._authored("GovernancePolicy", "", name, GovernancePolicySpec.read(spec or {}), **more)

    def finding(self, record: Any, rule: str, status: Mapping[str, Any] | None = None, **more: Any) -> Any:
        """A finding on the object, with this much of a status."""
        key = key_of(record)
        subject = {"kind": key.kind, "namespace": key.namespace, "name": key.name, "uid": record.uid}
        spec = IdentityFindingSpec.read({"rule": rule, "subject": subject, **more.pop("spec", {})})
        told = IdentityFindingStatus.read({"risk": {"level": "Low"}, **(status or {})})
        name = f"{rule.lower()}-{key.name}"
        return self._authored("IdentityFinding", key.namespace, name, spec, status=told, **more)

    def quarantine(self, record: ServiceAccount | Secret) -> Any:
        subject = {"kind": type(record).__name__, "name": record.name, "uid": record.uid}
        return self._authored("Quarantine", record.namespace, "quar", QuarantineSpec.read({"subject": subject}))

    # --- asking

    def judge(
        self,
        record: Any,
        now: datetime = NOW,
        *,
        live: Record | Stored | None = STORED,
    ) -> Evaluation:
        return evaluate(self.store, key_of(record), now, self.installation, live=live)

    def facts(self, record: Any) -> Facts:
        return gather(self.store, key_of(record), self.installation)


def key_of(record: Any) -> Key:
    if isinstance(record, Key):
        return record
    kind = record.kind if isinstance(record, Authored) else type(record).__name__
    return Key(kind, record.namespace, record.name)


def active(record: Any, *targets: Any, **more: Any) -> IdentityExceptionStatus:
    """The status the operator writes when the exception becomes active for these targets."""
    return IdentityExceptionStatus.read(
        {
            "observedGeneration": record.generation,
            "phase": "Active",
            "activeSince": NOW - DAY,
            "matched": [{"kind": key_of(t).kind, "name": t.name, "uid": t.uid} for t in targets],
            **more,
        }
    )


def rules_of(evaluation: Evaluation) -> list[str]:
    return [violation.rule.value for violation in evaluation.violations]


def violation(evaluation: Evaluation, rule: str) -> Violation:
    return next(found for found in evaluation.violations if found.rule == rule)
