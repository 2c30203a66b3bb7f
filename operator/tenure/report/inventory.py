"""What the inventory says, as one frozen report: per identity its owner, credentials, entitlements, exceptions and
findings.

Pure: the collected Store in, the report out. Judged by the operator's own evaluator; the findings that the operator has
recorded are laid over what holds now, so that a deadline is shown where there is one and a violation is shown even
where there is none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from tenure.api.base import format_timestamp
from tenure.api.names import ExceptionPhase, Phase, Risk, Rule
from tenure.inventory.snapshot import gather
from tenure.inventory.store import Finding, QuarantineRecord, Store
from tenure.model.evaluation import Evaluation, ExceptionRecord, Violation, Waiver
from tenure.model.facts import Grant
from tenure.model.keys import Key
from tenure.model.records import Binding, ManagedBy, Secret, ServiceAccount
from tenure.model.usage import Use
from tenure.report.collect import Collected, Gap
from tenure.rules import evaluation, exceptions, risk
from tenure.rules.governance import Installation, is_platform
from tenure.rules.ownership import DEFAULT_SERVICE_ACCOUNT, in_use
from tenure.rules.secrets import HELM_RELEASE, is_credential, is_token
from tenure.telemetry.observed import CredentialState, CredentialType, credential_type

OwnershipView = Literal["declared", "derived", "none", "unknown"]
"""unknown: nobody is seen to own it, but claims or namespaces could not be seen."""

_OWNERSHIP_SOURCES: Final = ("OwnedIdentity", "Namespace", "IdentityOwner")
_RISK_SOURCES: Final = ("RoleBinding", "ClusterRoleBinding", "Role", "ClusterRole", "ServiceAccount")


@dataclass(frozen=True, slots=True)
class Owned:
    """Who answers, and why."""

    state: OwnershipView
    owner: str
    why: str
    contact: str
    vacant: bool


@dataclass(frozen=True, slots=True)
class Found:
    """One rule that holds, or a finding that is not resolved. `name`, `due`, `on_deadline` and `mode` are the recorded
    finding's; "" and None where the operator has recorded none."""

    rule: str
    risk: Risk
    phase: Phase
    name: str
    due: datetime | None
    on_deadline: str
    mode: str
    message: str
    holds: bool
    """The rule holds now; False: it was recorded and is about to be resolved."""


@dataclass(frozen=True, slots=True)
class Waived:
    """One exception that targets the subject. `failing` is the clause that keeps it from being active."""

    name: str
    class_: str
    phase: ExceptionPhase
    rules: tuple[str, ...]
    expires: datetime
    failing: str
    covers: bool
    """It waives something for this very subject now."""


@dataclass(frozen=True, slots=True)
class Entitled:
    """One binding that gives the identity a role."""

    binding_kind: str
    namespace: str
    """"" = cluster-wide."""
    binding: str
    role_kind: str
    role: str
    through: str
    """Where it is not bound itself: "Group system:serviceaccounts:payments"."""
    risk: Risk | None
    """None: the role does not exist, or could not be seen."""
    rights: tuple[str, ...]
    """Those that the risk table grades, in words."""
    managed_by: ManagedBy | None
    last_use: Use | None
    """The last request that RBAC allowed for it, where an audit log was given."""


@dataclass(frozen=True, slots=True)
class Held:
    """A Quarantine on the subject: its stages in force."""

    name: str
    verdict: str
    stages: tuple[str, ...]
    revoked: bool
    ending: bool


@dataclass(frozen=True, slots=True)
class Credential:
    """A Secret that proves an identity. `owned` is its own: it may differ from its identity's."""

    namespace: str
    name: str
    uid: str
    type: CredentialType
    secret_type: str
    created: datetime
    changed: datetime
    """Last change of its data, or creation where that is unknown."""
    state: CredentialState
    invalid_since: str
    last_used: str
    """The API server's day; it stamps refused attempts too."""
    last_use: Use | None
    """Exactly, where an audit log was given: that its token was accepted, or that it was read by its name."""
    service_account: str
    """The ServiceAccount that a token names, also when there is none of that name and uid."""
    owned: Owned
    managed_by: ManagedBy | None
    findings: tuple[Found, ...]
    waivers: tuple[Waived, ...]
    quarantine: Held | None
    platform: bool


@dataclass(frozen=True, slots=True)
class Identity:
    """A ServiceAccount with everything about it. credentials and entitlements are None where they could not be seen."""

    namespace: str
    name: str
    uid: str
    created: datetime
    class_: str
    owned: Owned
    risk: Risk
    risk_at_least: bool
    """Something that may raise the risk could not be seen."""
    risk_reasons: tuple[str, ...]
    managed_by: ManagedBy | None
    cloud_role: str
    last_use: Use | None
    """Its last request, where an audit log was given."""
    credentials: tuple[Credential, ...] | None
    entitlements: tuple[Entitled, ...] | None
    findings: tuple[Found, ...]
    waivers: tuple[Waived, ...]
    quarantine: Held | None
    residual: tuple[str, ...]
    """What stays possible while it is quarantined; () while it is not."""
    platform: bool
    idle_default: bool
    """A namespace's `default` ServiceAccount that nothing uses, as far as that could be seen."""


@dataclass(frozen=True, slots=True)
class Document:
    """A claim or an exception that has findings of its own."""

    kind: str
    namespace: str
    name: str
    owner: str
    findings: tuple[Found, ...]


@dataclass(frozen=True, slots=True)
class Impersonator:
    """Who may act as somebody else, and so decide in that one's name: admission sees the impersonated user alone."""

    kind: str
    """User, Group or ServiceAccount."""
    subject: str
    """Its name; of a ServiceAccount namespace/name."""
    namespace: str
    """Where; "" = in the whole cluster."""
    binding: str
    role_kind: str
    role: str
    whom: str
    """In words: "impersonate users, groups"; "every verb on every resource"."""
    platform: bool
    """Bound by Kubernetes itself, or a ServiceAccount of the platform's."""


@dataclass(frozen=True, slots=True)
class Report:
    """All of it, sorted by namespace and name; platform identities and credentials are among them, marked."""

    now: datetime
    namespace: str | None
    identities: tuple[Identity, ...]
    credentials: tuple[Credential, ...]
    """Those that belong to no identity."""
    documents: tuple[Document, ...]
    impersonators: tuple[Impersonator, ...] | None
    """Cluster-wide first; None where bindings or roles could not be seen and none is known."""
    gaps: tuple[Gap, ...]
    notes: tuple[str, ...]
    used_since: datetime | None = None
    """Since when use is known exactly: the first event of the audit log; None without one."""

    @property
    def complete(self) -> bool:
        """Whether everything that was asked for could be seen."""
        return not self.gaps


def report(seen: Collected, namespace: str | None, installation: Installation) -> Report:
    """The report of one look, of one namespace or of all (None)."""
    return _Reporter(seen, namespace, installation).report()


class _Reporter:
    def __init__(self, seen: Collected, namespace: str | None, installation: Installation) -> None:
        self._seen = seen
        self._store: Store = seen.store
        self._namespace = namespace
        self._installation = installation
        self._usage = seen.store.usage
        self._ownership_unseen = seen.unseen(*_OWNERSHIP_SOURCES)
        self._risk_unseen = seen.unseen(*_RISK_SOURCES)
        self._bindings_unseen = seen.unseen("RoleBinding", "ClusterRoleBinding")

    def report(self) -> Report:
        accounts = [record for record in self._store.service_accounts.values() if self._asked_for(record.namespace)]
        secrets = [record for record in self._store.secrets.values() if self._asked_for(record.namespace)]
        identities = tuple(self._identity(record) for record in sorted(accounts, key=_place))
        attached = {(c.namespace, c.name) for identity in identities for c in identity.credentials or ()}
        loose = [s for s in secrets if is_credential(s) and (s.namespace, s.name) not in attached]
        return Report(
            now=self._seen.now,
            namespace=self._namespace,
            identities=identities,
            credentials=tuple(self._credential(record) for record in sorted(loose, key=_place)),
            documents=tuple(self._documents()),
            impersonators=self._impersonators(),
            gaps=self._seen.gaps,
            notes=tuple(self._notes(secrets)),
            used_since=self._usage.since,
        )

    def _asked_for(self, namespace: str) -> bool:
        return self._namespace is None or namespace == self._namespace

    def _notes(self, secrets: Iterable[Secret]) -> Iterator[str]:
        if self._seen.not_installed:
            names = ", ".join(self._seen.not_installed)
            yield f"Not installed in this cluster, so there are none: {names}."
        if since := self._usage.since:
            yield f"Use is known exactly since {format_timestamp(since.replace(microsecond=0))}, from the audit log."
        nameless = sum(not s.keys and not is_credential(s) and s.type != HELM_RELEASE for s in secrets)
        if nameless == 1:
            yield "1 Secret whose key names nobody recorded is not judged: it may be a credential."
        elif nameless:
            yield f"{nameless} Secrets whose key names nobody recorded are not judged: they may be credentials."

    # --- subjects ----------------------------------------------------------------------------------------------

    def _identity(self, record: ServiceAccount) -> Identity:
        key = Key("ServiceAccount", record.namespace, record.name)
        facts = gather(self._store, key, self._installation)
        judged = evaluation.evaluate(facts, self._seen.now)
        tokens = (self._store.get(Key("Secret", record.namespace, name)) for name in facts.tokens)
        credentials = tuple(self._credential(token) for token in tokens if isinstance(token, Secret))
        entitlements = tuple(
            _entitled(grant, self._usage.of_entitlement(grant.binding, record))
            for grant in sorted(facts.grants, key=_grant_order)
        )
        quarantine = self._quarantine(key, record.uid)
        return Identity(
            namespace=record.namespace,
            name=record.name,
            uid=record.uid,
            created=record.created,
            class_=judged.ownership.class_.value,
            owned=self._owned(judged),
            risk=judged.risk.level,
            risk_at_least=self._risk_unseen and judged.risk.level is not Risk.CRITICAL,
            risk_reasons=judged.risk.reasons,
            managed_by=record.managed_by,
            cloud_role=record.cloud_role,
            last_use=self._usage.of(record),
            credentials=credentials if credentials or not self._seen.unseen("Secret") else None,
            entitlements=entitlements if entitlements or not self._bindings_unseen else None,
            findings=self._findings(key, judged.violations, judged.waivers),
            waivers=self._waivers(judged),
            quarantine=quarantine,
            residual=judged.residual if quarantine else (),
            platform=judged.governance.platform,
            idle_default=record.name == DEFAULT_SERVICE_ACCOUNT and not in_use(facts) and not self._seen.unseen("Pod"),
        )

    def _credential(self, record: Secret) -> Credential:
        key = Key("Secret", record.namespace, record.name)
        facts = gather(self._store, key, self._installation)
        judged = evaluation.evaluate(facts, self._seen.now)
        # The API server refuses a token whose ServiceAccount, of that very uid, is gone.
        orphaned = facts.identity is None and not self._seen.unseen("ServiceAccount")
        return Credential(
            namespace=record.namespace,
            name=record.name,
            uid=record.uid,
            type=credential_type(record.type),
            secret_type=record.type,
            created=record.created,
            changed=record.rotated,
            state="Invalidated" if is_token(record) and (record.invalid_since or orphaned) else "Usable",
            invalid_since=record.invalid_since,
            last_used=record.last_used,
            last_use=self._usage.of(record),
            service_account=record.service_account,
            owned=self._owned(judged),
            managed_by=record.managed_by,
            findings=self._findings(key, judged.violations, judged.waivers),
            waivers=self._waivers(judged),
            quarantine=self._quarantine(key, record.uid),
            platform=judged.governance.platform,
        )

    def _documents(self) -> Iterator[Document]:
        claims = [(Key("OwnedIdentity", *place), claim.spec.owner) for place, claim in self._store.claims.items()]
        waivers = [
            (Key("IdentityException", *place), held.spec.owner) for place, held in self._store.exceptions.items()
        ]
        for key, owner in sorted(
            claims + waivers, key=lambda entry: (entry[0].namespace, entry[0].kind, entry[0].name)
        ):
            judged = evaluation.evaluate(gather(self._store, key, self._installation), self._seen.now)
            found = self._findings(key, judged.violations, judged.waivers)
            if found and self._asked_for(key.namespace):
                yield Document(key.kind, key.namespace, key.name, owner, found)

    def _impersonators(self) -> tuple[Impersonator, ...] | None:
        bindings = [
            found for found in self._store.bindings.values() if not found.namespace or self._asked_for(found.namespace)
        ]
        found = sorted(
            (one for held in bindings for one in self._impersonating(held)),
            key=lambda one: (bool(one.namespace), one.namespace, one.role, one.kind, one.subject),
        )
        unseen = self._seen.unseen("RoleBinding", "ClusterRoleBinding", "Role", "ClusterRole")
        return None if unseen and not found else tuple(found)

    def _impersonating(self, binding: Binding) -> Iterator[Impersonator]:
        role = self._store.roles.get((binding.namespace if binding.role_kind == "Role" else "", binding.role_name))
        grade = next((row for row in role.grades if row.row in risk.IMPERSONATING), None) if role is not None else None
        # Users and groups belong to the cluster: within a namespace only its ServiceAccounts can be impersonated.
        if grade is None or not (grade.namespaced if binding.namespace else grade.cluster):
            return
        for subject in binding.subjects:
            yield Impersonator(
                kind=subject.kind,
                subject=f"{subject.namespace}/{subject.name}" if subject.namespace else subject.name,
                namespace=binding.namespace,
                binding=binding.name,
                role_kind=binding.role_kind,
                role=binding.role_name,
                whom=grade.what,
                platform=binding.bootstrap or is_platform(subject.namespace, self._installation),
            )

    # --- parts -------------------------------------------------------------------------------------------------

    def _owned(self, judged: Evaluation) -> Owned:
        ownership = judged.ownership
        state: OwnershipView = ownership.state
        why = ownership.why
        if state == "none" and self._ownership_unseen:
            state, why = "unknown", "claims, namespaces or owners could not be seen"
        return Owned(state, ownership.owner, why, ownership.contact, ownership.vacant)

    def _findings(self, key: Key, violations: Iterable[Violation], waivers: Mapping[Rule, Waiver]) -> tuple[Found, ...]:
        holding = {violation.rule: violation for violation in violations}
        recorded: dict[Rule, Finding] = {}
        for finding in self._store.findings_about(key):
            if finding.status is not None and finding.status.phase is not Phase.RESOLVED:
                recorded[finding.spec.rule] = finding
        found = [
            _found(rule, holding.get(rule), recorded.get(rule), rule in waivers)
            for rule in sorted({*holding, *recorded})
        ]
        return tuple(sorted(found, key=lambda entry: (-entry.risk.rank, entry.rule)))

    def _waivers(self, judged: Evaluation) -> tuple[Waived, ...]:
        covering = {waiver.exception for waiver in judged.waivers.values()}
        held = ((key, self._store.exceptions.get((key.namespace, key.name))) for key in judged.exceptions)
        return tuple(
            self._waived(exception, judged, key in covering) for key, exception in held if exception is not None
        )

    def _waived(self, exception: ExceptionRecord, judged: Evaluation, covers: bool) -> Waived:
        # What the operator wrote counts (approvals are recorded there), but for the end, which is checked at every use.
        standing = exceptions.state(exception, judged.governance, self._seen.now)
        status = exception.status
        current = status is not None and status.observed_generation == exception.generation
        phase = status.phase if status is not None and current else ExceptionPhase.PENDING
        failing = status.failing if status is not None and current else standing.failing
        if standing.phase is ExceptionPhase.EXPIRED:
            phase, failing = ExceptionPhase.EXPIRED, ""
        return Waived(
            name=exception.name,
            class_=exception.spec.class_.value,
            phase=phase,
            rules=tuple(rule.value for rule in exception.spec.rules),
            expires=exception.spec.expires_at,
            failing=failing,
            covers=covers,
        )

    def _quarantine(self, key: Key, uid: str) -> Held | None:
        for quarantine in self._store.quarantines_in(key.namespace):
            subject = quarantine.spec.subject
            if (subject.kind, subject.name, subject.uid) == (key.kind, key.name, uid):
                return _held(quarantine)
        return None


def _held(quarantine: QuarantineRecord) -> Held:
    status = quarantine.status
    return Held(
        name=quarantine.name,
        verdict=quarantine.spec.verdict.value,
        stages=tuple(stage.name.value for stage in status.stages if stage.done) if status else (),
        revoked=bool(status and any(entry.done for entry in status.revoked)),
        ending=quarantine.deletion is not None,
    )


def _found(rule: Rule, violation: Violation | None, finding: Finding | None, waived: bool) -> Found:
    status = finding.status if finding is not None else None
    level = status.risk.level if status else violation.risk.level if violation else Risk.LOW
    return Found(
        rule=rule.value,
        risk=level,
        phase=status.phase if status else Phase.EXCEPTED if waived else Phase.OPEN,
        name=finding.name if finding is not None else "",
        due=status.due if status else None,
        on_deadline=status.on_deadline.value if status else "",
        mode=status.mode.value if status else "",
        message=violation.message if violation else status.message if status else "",
        holds=violation is not None,
    )


def _grant_order(grant: Grant) -> tuple[int, str, str]:
    return -risk.grade((grant,)).level.rank, grant.binding.namespace, grant.binding.name


def _entitled(grant: Grant, last_use: Use | None) -> Entitled:
    binding, role = grant.binding, grant.role
    graded = [(level, row.what) for row in role.grades if (level := risk.level(row, grant)) is not None] if role else []
    return Entitled(
        binding_kind=binding.kind,
        namespace=binding.namespace,
        binding=binding.name,
        role_kind=binding.role_kind,
        role=binding.role_name,
        through=grant.through,
        risk=max((level for level, _ in graded), default=Risk.LOW) if role else None,
        rights=tuple(what for _, what in sorted(graded, key=lambda pair: -pair[0].rank)),
        managed_by=binding.managed_by,
        last_use=last_use,
    )


def _place(record: ServiceAccount | Secret) -> tuple[str, str]:
    return record.namespace, record.name


def all_findings(report: Report, *, platform: bool = True) -> Iterator[Found]:
    """Every finding in the report, those of credentials, claims and exceptions included."""
    for identity in report.identities:
        if platform or not identity.platform:
            yield from identity.findings
            for credential in identity.credentials or ():
                yield from credential.findings
    for credential in report.credentials:
        if platform or not credential.platform:
            yield from credential.findings
    for document in report.documents:
        yield from document.findings


def totals(report: Report, *, platform: bool) -> Mapping[str, int]:
    """Counts for a headline, of platform identities only if asked for: `identities`, of them by ownership (`declared`,
    `derived`, `none`, `unknown`; `idle` for unused default ServiceAccounts, which nobody has to own), and open findings
    by risk (`Critical`, …)."""
    identities = [identity for identity in report.identities if platform or not identity.platform]
    count: Counter[str] = Counter({"identities": len(identities)})
    count.update("idle" if i.idle_default and not i.findings else i.owned.state for i in identities)
    count.update(f.risk.value for f in all_findings(report, platform=platform) if f.phase is Phase.OPEN)
    return count
