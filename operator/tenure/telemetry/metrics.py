"""The metrics of the contract (DESIGN §7), as far as this slice can feed them; docs/metrics.md lists them all.

Three sources, by what they are about. *Our own work* (latencies, acts) is counted by ordinary instruments, which start
with the process. *Totals that must outlive it* are read from the engine's durable state. *Everything about objects* is
read at scrape time from the in-memory index, so that a series dies with its object: a labelled gauge would go on
exporting what was deleted.

Ten thousand open findings make 20,000 lines, a third of a second through the client library and with the event loop at
a stand. So the text of a finding's labels is kept for as long as its record is the same object, and `exposition` yields
between chunks.
"""

from __future__ import annotations

import asyncio
from collections import Counter as Tally
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import product
from typing import Final, NamedTuple, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from tenure.api.conditions import Reason
from tenure.api.finding import IdentityFindingSpec, IdentityFindingStatus
from tenure.api.names import (
    DecisionSource,
    ExceptionClass,
    ExceptionPhase,
    IdentityClass,
    Phase,
    Risk,
    Rule,
    Stage,
    Verdict,
)
from tenure.model.keys import Key
from tenure.model.namespaced import Namespaced
from tenure.model.records import Authored
from tenure.telemetry.observed import (
    Bucket,
    Credential,
    CredentialEnd,
    CredentialState,
    CredentialType,
    Entitlement,
    EntitlementScope,
    EntitlementState,
    ExceptionEnd,
    Identity,
    IdentityKind,
    Observed,
    OwnershipState,
)

T = TypeVar("T")

PREFIX: Final = "tenure_"

BUCKETS: Final = (60, 300, 900, 3600, 14400, 28800, 86400, 172800, 259200, 604800, 1209600, 2592000, 5184000, 7776000)
"""Seconds, 1 minute to 90 days; every deadline an SLO may name is an edge."""

STANDARD: Final = "Standard"
"""`class` of a latency that no exception stretched."""

RULES: Final = (
    Rule.UNOWNED,
    Rule.OWNER_VACANT,
    Rule.CLAIM_CONFLICT,
    Rule.OWNERSHIP_EXPIRED,
    Rule.REVIEW_OVERDUE,
    Rule.CREDENTIAL_TOO_OLD,
    Rule.LEGACY_TOKEN,
    Rule.EXCEPTION_LAPSED,
    Rule.ENTITLEMENT_UNDECLARED,
)
"""The rules that exist so far: their series stand at 0 from the start. A rule added later gets its line here."""

LATENCY_CLASSES: Final = (STANDARD, *(c.value for c in ExceptionClass))
ACTIONS: Final = (Verdict.QUARANTINE.value, Verdict.RELEASE.value, Verdict.REVOKE.value)
ACTION_KINDS: Final = ("ServiceAccount", "Secret", "RoleBinding", "ClusterRoleBinding")
OUTCOMES: Final = ("verified", "failed")
BLOCKED_CAUSES: Final = (
    "Audit",
    Reason.BLAST_RADIUS.value,
    Reason.CEILING.value,
    "DenyWritesMissing",
    "EnforcementOff",
    Reason.INVENTORY_STALE.value,
    Reason.MANAGED_BY_CONTROLLER.value,
    Reason.MISSING_RIGHT.value,
    "NotEffective",
    Reason.PLATFORM_NAMESPACE.value,
    Reason.POLICY_CONFLICT.value,
    Reason.RECENTLY_USED.value,
    Reason.SUBJECT_CHANGED.value,
    Reason.SUSPENDED.value,
    "TooLarge",
    "Unreadable",
)
"""What decide.terms and enforce give as a reason for not acting."""
MANAGERS: Final = (
    "ArgoCD",
    "CertManager",
    "Controller",
    "ExternalSecrets",
    "Flux",
    "Helm",
    "Other",
    "SealedSecrets",
    "SecretsStoreCSI",
    "TokenController",
    "VaultSecretsOperator",
)
QUEUE_REASONS: Final = (
    "Ready",
    "Retry",
    "StageInterval",
    *(cause for cause in BLOCKED_CAUSES if cause != Reason.CEILING.value),
)
"""Why an act waits in the queue. Ready: for nothing but its turn."""
REVIEW_STATES: Final = ("Scheduled", "Due", "Overdue")
STEPS: Final = tuple(str(step) for step in range(1, 9))
"""Steps of escalation: an owner has no more."""
SOURCE_STATES: Final = ("Fresh", "Stale", "Missing")
DUE_OUTCOMES: Final = ("met", "missed")

_OWNERSHIP: Final[tuple[OwnershipState, ...]] = ("declared", "derived", "none")
_IDENTITY_KINDS: Final[tuple[IdentityKind, ...]] = ("ServiceAccount",)
_CREDENTIAL_TYPES: Final[tuple[CredentialType, ...]] = (
    "ServiceAccountToken",
    "TLS",
    "RegistryLogin",
    "BasicAuth",
    "SSHKey",
    "BootstrapToken",
    "APIKey",
)
_CREDENTIAL_STATES: Final[tuple[CredentialState, ...]] = ("Usable", "Invalidated")
_SCOPES: Final[tuple[EntitlementScope, ...]] = ("Namespace", "Cluster")
_ENTITLEMENT_STATES: Final[tuple[EntitlementState, ...]] = ("Effective", "Dangling")

_CHUNK: Final = 1000
"""Objects rendered between two turns of the event loop: about 10 ms when none is known yet, 1 ms when all are."""

Finding = Authored[IdentityFindingSpec, IdentityFindingStatus]


class Metrics:
    """The process's metrics. Every method is to be called on the event loop's thread."""

    def __init__(self, *, observed: Observed, rules: Sequence[Rule] = RULES) -> None:
        """Builds a registry of its own with every bounded label set at 0; nothing global but one switch of the client
        library, which would otherwise add a `_created` gauge to every counter and histogram."""
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._few = CollectorRegistry()
        """Everything that is about no single object: so few series that the client library's own rendering is quick
        enough."""
        ProcessCollector(registry=self._few)
        PlatformCollector(registry=self._few)
        GCCollector(registry=self._few)
        self._tallies = _Tallies()
        self._few.register(_State(observed, self._tallies))
        self._objects = ObjectCollector(observed, rules)
        self.registry = CollectorRegistry()
        """All of it, for whoever wants to collect the usual way; `exposition` is the way that does not stall the
        loop."""
        self.registry.register(self._few)
        self.registry.register(self._objects)

        self._decision = self._histogram(
            "decision_latency_seconds",
            "From detection of a risk to something enforceable being decided about it.",
            ("risk", "source", "class"),
        )
        for risk, source in product(Risk, DecisionSource):
            # Only an exception's own decision carries its class: the other combinations cannot happen and are not
            # exported.
            for class_ in LATENCY_CLASSES if source is DecisionSource.EXCEPTION else (STANDARD,):
                self._decision.labels(risk.value, source.value, class_)
        self._detection = self._histogram(
            "detection_latency_seconds", "From the instant a rule first held to its detection."
        )
        self._enforcement = self._histogram(
            "enforcement_latency_seconds", "From a decision to the verified effect of its first act."
        )
        self._revocation = self._histogram(
            "revocation_latency_seconds",
            "From the instant a rule first held to the verified removal of the credential or entitlement.",
            ("cause", "class"),
        )
        for rule, class_ in product(rules, LATENCY_CLASSES):
            self._revocation.labels(rule.value, class_)

        self._actions = self._counter(
            "enforcement_actions_total", "Acts of enforcement that ended.", ("action", "kind", "outcome")
        )
        for labels in product(ACTIONS, ACTION_KINDS, OUTCOMES):
            self._actions.labels(*labels)
        self._blocked = self._counter("actions_blocked_total", "Acts that were due and could not happen.", ("cause",))
        for cause in BLOCKED_CAUSES:
            self._blocked.labels(cause)
        self._reverted = self._counter(
            "enforcement_reverted_total", "Acts that somebody else undid, by the product that did.", ("manager",)
        )
        for manager in MANAGERS:
            self._reverted.labels(manager)
        self._released_early = self._counter(
            "quarantines_released_early_total", "Quarantines that a person ended while a finding wanted them."
        )
        self._escalated = self._counter(
            "escalations_total", "Steps of escalation that undecided findings took.", ("step",)
        )
        for step in STEPS:
            self._escalated.labels(step)
        self._tripwire = self._counter("tripwire_attempts_total", "Attempted uses of quarantined credentials.")

    def _histogram(self, name: str, text: str, labels: Sequence[str] = ()) -> Histogram:
        return Histogram(PREFIX + name, text, labels, buckets=BUCKETS, registry=self._few)

    def _counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter:
        return Counter(PREFIX + name, text, labels, registry=self._few)

    def finding_written(
        self,
        before: IdentityFindingStatus | None,
        spec: IdentityFindingSpec,
        after: IdentityFindingStatus,
        *,
        exception_class: str = "",
    ) -> None:
        """Observes the instants that this write stamped; to be called once after each successful write of a finding.

        `exception_class` is the class of the exception that decides the finding, or that had stretched the opening in
        which it is now revoked; "" = none. It is read for decisions whose source is Exception and for revocations.
        """
        if before is not None and before.detected != after.detected:
            before = None  # a new opening: none of the earlier one's instants count any more
        class_ = exception_class or STANDARD
        if before is None:
            _observe(self._detection, after.observable, after.detected)
        if (
            after.decided is not None
            and after.decision is not None
            and (before is None or before.decided != after.decided)
        ):
            source = after.decision.source
            of = class_ if source is DecisionSource.EXCEPTION else STANDARD
            _observe(self._decision.labels(after.risk.level.value, source.value, of), after.detected, after.decided)
        known = before.acts if before else ()
        for index, act in enumerate(after.acts):
            if act.verified is None or (index < len(known) and known[index].verified is not None):
                continue
            if index == 0:
                _observe(self._enforcement, act.decided or after.decided, act.verified)
            if act.verdict is Verdict.REVOKE:
                _observe(self._revocation.labels(spec.rule.value, class_), after.observable, act.verified)

    def action(self, action: str, kind: str, outcome: str) -> None:
        """One act ended: action Quarantine | Release | Revoke, kind ServiceAccount | Secret, outcome verified |
        failed."""
        self._actions.labels(action, kind, outcome).inc()

    def blocked(self, cause: str) -> None:
        """One act that was due could not happen; to be called when it becomes blocked, not at every attempt."""
        self._blocked.labels(cause).inc()

    def reverted(self, manager: str) -> None:
        """Somebody undid an act; "" and products unknown to MANAGERS count as Other, for field managers have no
        bound."""
        self._reverted.labels(manager if manager in MANAGERS else "Other").inc()

    def released_early(self) -> None:
        """A person deleted a Quarantine that a finding still wanted."""
        self._released_early.inc()

    def escalated(self, step: int) -> None:
        """A finding took its step of this number, from 1 on."""
        self._escalated.labels(str(step)).inc()

    def tripwire(self, n: int = 1) -> None:
        """Attempted uses of quarantined credentials."""
        self._tripwire.inc(n)

    def tally(self, key: Key, bucket: Bucket | Sequence[Bucket] | None) -> None:
        """Where the object `key` counts now: an identity or credential in one bucket, a binding in one per subject;
        None or () when it is gone. O(1): the gauges never walk the inventory."""
        self._tallies.put(key, bucket)

    def end(self, key: Key, end: CredentialEnd | ExceptionEnd | None) -> None:
        """When the credential or active exception `key` ends by itself; None when it has no such end, or is gone."""
        self._objects.end(key, end)

    def exposition(self, accept: str = "") -> tuple[str, AsyncGenerator[bytes, None]]:
        """One scrape: content type and body, OpenMetrics 1.0 where `accept` asks for it, else the classic text. The
        body comes in parts, between which the event loop turns: that of 10,000 findings is 5 MB, and is never there as
        a whole. What it says of findings is what stood when it was asked."""
        encode, content_type = choose_encoder(accept)
        end = _EOF if "openmetrics" in content_type else b""
        return content_type, self._exposed(encode, self._objects.snapshot(), end)

    async def _exposed(
        self, encode: Callable[[Collector], bytes], findings: tuple[Finding, ...], end: bytes
    ) -> AsyncGenerator[bytes, None]:
        for family in self._few.collect():
            yield encode(_Only(family)).removesuffix(_EOF)
        await asyncio.sleep(0)
        async for part in self._objects.render(findings):
            yield part
        yield end


_EOF: Final = b"# EOF\n"


def _observe(histogram: Histogram, start: datetime | None, end: datetime | None) -> None:
    """Instants are stamped by different writers to the second: an end before its start counts as at once."""
    if start is not None and end is not None:
        histogram.observe(max(0.0, (end - start).total_seconds()))


class _Only(Collector):
    """A collector of one family, for encoders that take a registry."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterable[Metric]:
        return (self._family,)


class _Tallies:
    """How many objects are in each bucket, kept up to date change by change."""

    def __init__(self) -> None:
        self._known: dict[Bucket, tuple[Bucket]] = {}
        self._of: defaultdict[str, Namespaced[tuple[Bucket, ...]]] = defaultdict(Namespaced)  # by kind
        self._count: Tally[Bucket] = Tally()

    def put(self, key: Key, bucket: Bucket | Sequence[Bucket] | None) -> None:
        """Moves `key` from the buckets it was in to these."""
        now = () if bucket is None else (bucket,) if isinstance(bucket, Bucket) else tuple(bucket)
        of, at = self._of[key.kind], (key.namespace, key.name)
        for old in of.get(at, ()):
            self._count[old] -= 1
        if not now:
            of.pop(at, None)
            return
        # A hundred thousand keys share a few dozen buckets, most of them the tuple of one too.
        known = [self._known.setdefault(b, (b,)) for b in now]
        of[at] = known[0] if len(known) == 1 else tuple(b for (b,) in known)
        for new in now:
            self._count[new] += 1

    def counts(self) -> Mapping[Bucket, int]:
        return self._count


class _State(Collector):
    """Gauges and durable totals with bounded labels, read from the engine at scrape time."""

    def __init__(self, observed: Observed, tallies: _Tallies) -> None:
        self._observed = observed
        self._tallies = tallies

    def collect(self) -> Iterator[Metric]:
        yield from self._inventory()
        yield from self._enforcement()
        yield from self._totals()

    def _inventory(self) -> Iterator[Metric]:
        identities: dict[tuple[str, ...], float] = {
            (kind, class_.value, ownership, escalation): 0
            for kind, class_, ownership, escalation in product(
                _IDENTITY_KINDS, IdentityClass, _OWNERSHIP, ("false", "true")
            )
        }
        credentials: dict[tuple[str, ...], float] = dict.fromkeys(
            product(_CREDENTIAL_TYPES, _CREDENTIAL_STATES, _OWNERSHIP), 0
        )
        entitlements: dict[tuple[str, ...], float] = dict.fromkeys(product(_SCOPES, _ENTITLEMENT_STATES), 0)
        for bucket, count in self._tallies.counts().items():
            match bucket:
                case Identity(kind, class_, ownership, escalation):
                    identities[kind, class_.value, ownership, "true" if escalation else "false"] = count
                case Credential(type_, state, ownership):
                    credentials[type_, state, ownership] = count
                case Entitlement(scope, state):
                    entitlements[scope, state] = count
        labels = ("kind", "class", "ownership", "escalation")
        yield _gauge("identities", "Identities; escalation: their owner has an escalation path.", labels, identities)
        yield _gauge(
            "credentials",
            "Credentials of identities, and those that belong to none.",
            ("type", "state", "ownership"),
            credentials,
        )
        yield _gauge("entitlements", "Subjects of bindings that name an identity.", ("scope", "state"), entitlements)
        sources = dict.fromkeys(SOURCE_STATES, 0) | dict(self._observed.sources())
        yield _gauge("inventory_sources", "Inventory sources that the policies expect.", ("state",), _single(sources))
        synced = {kind: instant.timestamp() for kind, instant in self._observed.last_sync().items()}
        yield _gauge(
            "inventory_last_sync_timestamp_seconds",
            "When the inventory of a kind last agreed with the API server.",
            ("kind",),
            _single(synced),
        )

    def _enforcement(self) -> Iterator[Metric]:
        exceptions: dict[tuple[str, ...], float] = {
            (c.value, p.value): 0 for c, p in product(ExceptionClass, ExceptionPhase)
        }
        for exception in self._observed.exceptions():
            phase = exception.status.phase if exception.status else ExceptionPhase.PENDING
            exceptions[exception.spec.class_.value, phase.value] += 1
        yield _gauge("exceptions", "Exceptions by phase.", ("class", "phase"), exceptions)
        reviews = dict.fromkeys(REVIEW_STATES, 0) | dict(self._observed.reviews())
        yield _gauge("reviews", "Reviews of claims and exceptions.", ("state",), _single(reviews))
        stages = dict.fromkeys((stage.value for stage in Stage), 0)
        for quarantine in self._observed.quarantines():
            for stage in quarantine.status.stages if quarantine.status else ():
                stages[stage.name.value] += stage.in_force
        yield _gauge("quarantines", "Quarantines in which a stage is in force.", ("stage",), _single(stages))
        effective = _single(self._observed.effective())
        said = "1: the stage was proven to be in force; 0: nothing is acted on."
        yield _gauge("enforcement_effective", said, ("stage",), effective)
        queue = dict.fromkeys(QUEUE_REASONS, 0) | dict(self._observed.queue())
        yield _gauge("enforcement_queue_length", "Acts that wait, by reason.", ("reason",), _single(queue))

    def _totals(self) -> Iterator[Metric]:
        totals = self._observed.totals()
        if totals is None:
            return
        due: dict[tuple[str, ...], int] = {(risk.value, outcome): 0 for risk, outcome in product(Risk, DUE_OUTCOMES)}
        yield _total(
            "decisions_due_total",
            "Openings that came due, once each; met: decided in time, and not by the policy.",
            ("risk", "outcome"),
            due | dict(totals.get("decisions_due_total", {})),
        )
        renewals: dict[tuple[str, ...], int] = {(c.value,): 0 for c in ExceptionClass}
        yield _total(
            "exception_renewals_total",
            "Renewals of exceptions.",
            ("class",),
            renewals | dict(totals.get("exception_renewals_total", {})),
        )


def _single(counts: Mapping[str, float]) -> dict[tuple[str, ...], float]:
    return {(label,): count for label, count in counts.items()}


def _gauge(name: str, text: str, labels: Sequence[str], values: Mapping[tuple[str, ...], float]) -> Metric:
    family = GaugeMetricFamily(PREFIX + name, text, labels=labels)
    for label_values, value in values.items():
        family.add_metric(label_values, value)
    return family


def _total(name: str, text: str, labels: Sequence[str], values: Mapping[tuple[str, ...], int]) -> Metric:
    family = CounterMetricFamily(PREFIX + name, text, labels=labels)
    for label_values, value in values.items():
        family.add_metric(label_values, value)
    return family


_FINDING_LABELS: Final = ("namespace", "name", "rule", "risk", "class", "owner", "on_deadline", "mode")
_EXEMPT_LABELS: Final = ("namespace", "name", "rule", "risk", "class", "owner")
_CREDENTIAL_LABELS: Final = ("namespace", "name", "type", "class", "risk", "owner")
_EXCEPTION_LABELS: Final = ("namespace", "name", "class", "risk", "owner", "needed")
_GROUP_LABELS: Final = ("rule", "risk", "class", "phase")


@dataclass(frozen=True, slots=True)
class _Row:
    """What one finding exports, worked out once per version of its record."""

    finding: Finding
    group: tuple[str, ...]
    text: str
    """Its labels as both text formats write them; "" for a finding that is neither open nor excepted: it is counted,
    and has no series of its own."""
    opened: float | None = None
    deadline: float | None = None
    exempt: float | None = None
    """Of an excepted finding: from when on it would have been exempt without a break for as long as its lineage was."""
    undecided: bool = False


@lru_cache(maxsize=4_096)
def _group(*labels: str) -> tuple[str, ...]:
    """One tuple for equal ones: ten thousand findings are in a few dozen groups."""
    return labels


def _labels(finding: Finding) -> tuple[str, ...]:
    """The values of `_EXEMPT_LABELS` or `_FINDING_LABELS`; () for a finding that has no series of its own."""
    status = finding.status
    if status is None or status.phase not in (Phase.OPEN, Phase.EXCEPTED):
        return ()
    rule, risk, owner = finding.spec.rule.value, status.risk.level.value, status.accountable.owner
    if status.phase is Phase.EXCEPTED:
        decision = status.decision
        waived = decision.class_ if decision is not None and decision.source is DecisionSource.EXCEPTION else STANDARD
        return (finding.namespace, finding.name, rule, risk, waived, owner)
    rest = (status.class_.value, owner, status.on_deadline.value, status.mode.value.lower())
    return (finding.namespace, finding.name, rule, risk, *rest)


def _row(finding: Finding) -> _Row | None:
    status = finding.status
    if status is None:
        return None
    group = _group(finding.spec.rule.value, status.risk.level.value, status.class_.value, status.phase.value)
    if status.phase is Phase.EXCEPTED:
        since = status.debt.since or status.decided
        began = since.timestamp() - status.debt.exempt_seconds if since is not None else None
        return _Row(finding, group, _text(_EXEMPT_LABELS, _labels(finding)), exempt=began)
    if status.phase is not Phase.OPEN:
        return _Row(finding, group, "")
    return _Row(
        finding,
        group,
        _text(_FINDING_LABELS, _labels(finding)),
        opened=status.detected.timestamp() if status.detected else None,
        deadline=status.due.timestamp() if status.due else None,
        undecided=status.decided is None,
    )


class _End(NamedTuple):
    """The end of one object, worked out when it is told of."""

    labels: tuple[str, ...]
    text: str
    at: float


def _end(key: Key, end: CredentialEnd | ExceptionEnd) -> _End:
    if isinstance(end, CredentialEnd):
        names: Sequence[str] = _CREDENTIAL_LABELS
        labels: tuple[str, ...] = (key.namespace, key.name, end.type, end.class_.value, end.risk.value, end.owner)
    else:
        names = _EXCEPTION_LABELS
        needed = "true" if end.needed else "false"
        labels = (key.namespace, key.name, end.class_.value, end.risk.value, end.owner, needed)
    return _End(labels, _text(names, labels), end.at.timestamp())


def _text(names: Sequence[str], values: Sequence[str]) -> str:
    pairs = ",".join(f'{name}="{_escape(value)}"' for name, value in zip(names, values, strict=True))
    return f"{{{pairs}}}"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


class ObjectCollector(Collector):
    """Everything that is about one object, and dies with it: the number of findings and the series of each that is open
    or excepted; the ends of credentials and exceptions."""

    def __init__(self, observed: Observed, rules: Sequence[Rule]) -> None:
        self._observed = observed
        self._zeros: dict[tuple[str, ...], float] = {
            (rule.value, risk.value, class_.value, phase.value): 0
            for rule, risk, class_, phase in product(rules, Risk, IdentityClass, Phase)
        }
        self._group_text = {group: _text(_GROUP_LABELS, group) for group in self._zeros}
        self._known: Namespaced[_Row] = Namespaced()
        self._ends: dict[str, dict[Key, _End]] = {family.name: {} for family in (_CREDENTIAL_END, _EXCEPTION_END)}

    def end(self, key: Key, end: CredentialEnd | ExceptionEnd | None) -> None:
        ends = self._ends[(_EXCEPTION_END if key.kind == "IdentityException" else _CREDENTIAL_END).name]
        if end is None:
            ends.pop(key, None)
        else:
            ends[key] = _end(key, end)

    def collect(self) -> Iterator[Metric]:
        """The client library's way, in one go: for tests and tools."""
        known: Namespaced[_Row] = Namespaced()
        rows = self._rows(self._observed.findings(), known)
        self._known = known
        yield _gauge(*_FINDINGS, _GROUP_LABELS, self._counts(rows))
        yield _gauge(*_OLDEST, (), {(): oldest} if (oldest := _oldest(rows)) is not None else {})
        for family, names, value_of in _PER_FINDING:
            found = {_labels(row.finding): value for row in rows if (value := value_of(row)) is not None}
            yield _gauge(*family, names, found)
        for family, names in ((_CREDENTIAL_END, _CREDENTIAL_LABELS), (_EXCEPTION_END, _EXCEPTION_LABELS)):
            yield _gauge(*family, names, {end.labels: end.at for end in self._ends[family.name].values()})

    def snapshot(self) -> tuple[Finding, ...]:
        """The findings of one scrape: the index may change at every turn of the event loop, its records never do."""
        return tuple(self._observed.findings())

    async def render(self, findings: tuple[Finding, ...]) -> AsyncIterator[bytes]:
        """The same families as text (gauges look alike in both formats), a turn of the event loop between chunks."""
        known: Namespaced[_Row] = Namespaced()
        rows: list[_Row] = []
        for start in range(0, len(findings), _CHUNK):
            rows += self._rows(findings[start : start + _CHUNK], known)
            await asyncio.sleep(0)
        self._known = known
        counts = ((self._group_text.get(g) or _text(_GROUP_LABELS, g), n) for g, n in self._counts(rows).items())
        yield _head(*_FINDINGS) + _lines(_FINDINGS.name, counts)
        oldest = _oldest(rows)
        yield _head(*_OLDEST) + _lines(_OLDEST.name, () if oldest is None else (("", oldest),))
        await asyncio.sleep(0)
        for family, _, value_of in _PER_FINDING:
            yield _head(*family)
            for chunk in _chunks(rows):
                found = ((row.text, value) for row in chunk if (value := value_of(row)) is not None)
                yield _lines(family.name, found)
                await asyncio.sleep(0)
        for family in (_CREDENTIAL_END, _EXCEPTION_END):
            yield _head(*family)
            for ends in _chunks(tuple(self._ends[family.name].values())):
                yield _lines(family.name, ((end.text, end.at) for end in ends))
                await asyncio.sleep(0)

    def _rows(self, findings: Iterable[Finding], known: Namespaced[_Row]) -> list[_Row]:
        """Namespaced of these findings, entered into `known`; what was worked out for the same record before is taken
        over."""
        rows = []
        for finding in findings:
            key = finding.namespace, finding.name
            row = self._known.get(key)
            if row is None or row.finding is not finding:
                row = _row(finding)
            if row is not None:
                known[key] = row
                rows.append(row)
        return rows

    def _counts(self, rows: Iterable[_Row]) -> dict[tuple[str, ...], float]:
        return self._zeros | Tally(row.group for row in rows)


def _oldest(rows: Iterable[_Row]) -> float | None:
    """The earliest detection among open findings that nothing has decided; None (no sample) without any."""
    return min((row.opened for row in rows if row.undecided and row.opened is not None), default=None)


def _chunks(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    return (rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK))


class _Family(NamedTuple):
    name: str
    text: str


_FINDINGS: Final = _Family("findings", "Findings by phase.")
_OLDEST: Final = _Family("oldest_undecided_timestamp_seconds", "Detection of the oldest undecided finding.")
_OPENED: Final = _Family("finding_opened_timestamp_seconds", "When an open finding was detected.")
_DEADLINE: Final = _Family("finding_decision_deadline_timestamp_seconds", "When an open finding's decision is due.")
_EXEMPT: Final = _Family(
    "finding_exempt_since_timestamp_seconds", "Of an excepted finding: now less all the time it was exempt."
)
_CREDENTIAL_END: Final = _Family("credential_expiry_timestamp_seconds", "When a credential ends, where it says so.")
_EXCEPTION_END: Final = _Family("exception_expiry_timestamp_seconds", "When an active exception ends.")

_PER_FINDING: Final[tuple[tuple[_Family, Sequence[str], Callable[[_Row], float | None]], ...]] = (
    (_OPENED, _FINDING_LABELS, lambda row: row.opened),
    (_DEADLINE, _FINDING_LABELS, lambda row: row.deadline),
    (_EXEMPT, _EXEMPT_LABELS, lambda row: row.exempt),
)


def _head(name: str, text: str) -> bytes:
    return f"# HELP {PREFIX}{name} {text}\n# TYPE {PREFIX}{name} gauge\n".encode()


def _lines(name: str, samples: Iterable[tuple[str, float]]) -> bytes:
    return "".join([f"{PREFIX}{name}{labels} {value!r}\n" for labels, value in samples]).encode()
