"""One subject judged at one instant: the evaluation, each finding's next state, and what they want done.

The loop writes what this says, and enforcement asks it again over freshly read facts before each destructive step:
one evaluator, one set of deadlines, whoever asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from tenure.api.names import Phase, Rule
from tenure.decide.finding import Finding, Step, finding_name, step
from tenure.decide.hold import Hold, Quarantine, hold_of
from tenure.decide.terms import terms
from tenure.decide.wish import Wish
from tenure.inventory.snapshot import Shared, evaluate
from tenure.inventory.store import Store, subject_key
from tenure.model.evaluation import Evaluation
from tenure.model.keys import Key
from tenure.reconcile.ledger import Ledger
from tenure.rules.governance import Installation


@dataclass(frozen=True, slots=True)
class Moved:
    """One finding, before and after."""

    name: str
    rule: Rule
    previous: Finding | None
    step: Step


@dataclass(frozen=True, slots=True)
class Judgement:
    key: Key
    evaluation: Evaluation
    findings: tuple[Moved, ...]
    wishes: tuple[Wish, ...]
    next: datetime | None


class Judge:
    """Reads store and ledger; writes nothing. `enforcement` is the process's own switch."""

    def __init__(self, store: Store, ledger: Ledger, installation: Installation, *, enforcement: bool) -> None:
        self.store = store
        self.installation = installation
        self._ledger = ledger
        self._enforcement = enforcement

    def judge(self, key: Key, now: datetime, blocked: str = "") -> Judgement:
        """Raises RuntimeError before the first complete inventory is recorded: no clock may start before it."""
        first = self._ledger.first_inventory
        if first is None:
            raise RuntimeError("judged before the first complete inventory")
        evaluation = evaluate(self.store, key, now, self.installation)
        previous = {f.spec.rule: f for f in self.store.findings_about(key)}
        holds = quarantines_about(self.store, key)
        moved: list[Moved] = []
        wishes: list[Wish] = []
        instants = [evaluation.next_change]
        for rule in sorted({v.rule for v in evaluation.violations} | previous.keys()):
            name = finding_name(key, rule)
            violation = next((v for v in evaluation.violations if v.rule is rule), None)
            before = previous.get(rule)
            risk = (
                violation.risk.level if violation else (before.status.risk.level if before and before.status else None)
            )
            if risk is None:
                continue
            t = terms(
                evaluation.governance,
                rule=rule,
                risk=risk,
                class_=evaluation.ownership.class_,
                key=key,
                created=evaluation.created,
                turn=self._ledger.turns.get(evaluation.governed or key.namespace),
                enforcement=self._enforcement,
            )
            hold = _hold(holds, name, evaluation.uid, self.store.operator)
            next_step = step(
                rule,
                evaluation,
                before,
                t,
                hold,
                first_inventory=first,
                now=now,
                blocked=blocked,
                decisions=self.store.decisions_about(key.namespace, before.uid) if before else (),
            )
            moved.append(Moved(name, rule, before, next_step))
            instants.append(next_step.next)
            status = next_step.status
            if next_step.wants and status is not None and status.phase is not Phase.RESOLVED:
                wishes.append(
                    Wish(
                        finding=name,
                        rule=rule,
                        risk=status.risk.level,
                        act=next_step.act,
                        due=status.due or now,
                        opening=status.opening,
                        terms=t,
                        owner=evaluation.ownership.owner,
                        contact=evaluation.ownership.contact,
                        message=status.message,
                        by_person=next_step.by_person,
                        revoke=next_step.revoke,
                    )
                )
        return Judgement(
            key=key,
            evaluation=evaluation,
            findings=tuple(moved),
            wishes=tuple(wishes),
            next=min((i for i in instants if i is not None), default=None),
        )

    def enforcing(self, namespace: str) -> bool:
        """Whether the effective policy's enforceIn matches the namespace now."""
        return Shared.of(self.store).surroundings(namespace, self.installation).governance.enforcing


def quarantines_about(store: Store, key: Key) -> tuple[Quarantine, ...]:
    """Every Quarantine of a subject of this kind and name, whatever its uid, oldest first."""
    return tuple(
        sorted(
            (q for q in store.quarantines_in(key.namespace) if subject_key(q) == key),
            key=lambda q: (q.created, q.name),
        )
    )


def _hold(quarantines: tuple[Quarantine, ...], finding: str, uid: str, operator: str) -> Hold | None:
    """The Quarantine that lists the finding: the living subject's, or the last one of a subject that is gone."""
    listing = [q for q in quarantines if finding in q.spec.findings and (not uid or q.spec.subject.uid == uid)]
    return hold_of(listing[-1], operator) if listing else None
