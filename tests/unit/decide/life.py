"""One finding's life without a cluster: each step is stored as the operator would store it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from tenure.api.decision import IdentityDecisionSpec
from tenure.api.finding import IdentityFindingStatus
from tenure.api.names import Mode, OnDeadline, Risk, Rule, Verdict
from tenure.decide.finding import Finding, Step, finding_name, step
from tenure.decide.hold import Hold
from tenure.decide.terms import Terms
from tenure.model.evaluation import Decision, Evaluation, Governance, Ownership, RiskGrade, Violation, Waiver
from tenure.model.keys import Key
from tenure.model.records import Authored

T0 = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
KEY = Key("ServiceAccount", "payments", "ci")
DAY = timedelta(days=1)

TERMS = Terms(
    decide_within=10 * DAY,
    on_deadline=OnDeadline.QUARANTINE,
    mode=Mode.ENFORCE,
    reference="GovernancePolicy/default",
)


def at(days: float) -> datetime:
    return T0 + timedelta(days=days)


def violation(rule: Rule = Rule.UNOWNED, risk: Risk = Risk.LOW, observable: datetime = T0 - DAY) -> Violation:
    return Violation(rule, observable, "because", RiskGrade(risk, ("a reason",)))


def evaluation(
    *violations: Violation, ownership: Ownership | None = None, waiver: Waiver | None = None, uid: str = "u1"
) -> Evaluation:
    return Evaluation(
        key=KEY,
        uid=uid,
        exists=bool(uid),
        created=T0 - DAY,
        deleting=False,
        governance=Governance(),
        ownership=ownership or Ownership("none"),
        risk=RiskGrade(Risk.LOW),
        violations=violations,
        waivers={Rule.UNOWNED: waiver} if waiver else {},
    )


OPEN = evaluation(violation())
CLAIMED = evaluation(
    ownership=Ownership("declared", "payments", claim=Key("OwnedIdentity", "payments", "all"), claim_changed=at(4))
)


class Life:
    """One finding's history: each call stores the step, and what it says of decisions, as the API server would."""

    def __init__(self, terms: Terms = TERMS, key: Key = KEY, rule: Rule = Rule.UNOWNED) -> None:
        self.rule = rule
        self.terms = terms
        self.key = key
        self.stored: Finding | None = None
        self.decisions: dict[str, Decision] = {}
        self.last = Step()

    def __call__(
        self, now: datetime, judged: Evaluation | None = None, hold: Hold | None = None, first: datetime = T0 - 5 * DAY
    ) -> Finding:
        judged = replace(judged or OPEN, key=self.key)
        self.last = self._step(judged, hold, first, now)
        assert self.last.spec is not None
        assert self.last.status is not None
        name = finding_name(self.key, self.rule)
        spec, status = self.last.spec, self.last.status
        self.stored = Authored("IdentityFinding", "payments", name, "f1", 1, "1", T0, spec, status)
        for made, said in self.last.rulings.items():
            self.decisions[made] = replace(self.decisions[made], status=said)
        again = self._step(judged, hold, first, now)
        assert (again.spec, again.status) == (spec, status), "the same facts twice change nothing"
        assert not again.rulings, "what was said once is not said again"
        return self.stored

    def _step(self, judged: Evaluation, hold: Hold | None, first: datetime, now: datetime) -> Step:
        made = tuple(self.decisions.values())
        return step(self.rule, judged, self.stored, self.terms, hold, first_inventory=first, now=now, decisions=made)

    @property
    def status(self) -> IdentityFindingStatus:
        assert self.stored is not None
        assert self.stored.status is not None
        return self.stored.status

    def decide(
        self, verdict: Verdict, when: datetime, name: str = "d1", by: str = "bob", revision: int = 1, **target: str
    ) -> None:
        """A verdict as a person writes it about the finding, at an instant that the API server cuts to a second."""
        about = {"kind": "IdentityFinding", "name": finding_name(self.key, self.rule), "uid": "f1", **target}
        spec = IdentityDecisionSpec.read(
            {"target": {**about, "revision": revision}, "verdict": verdict.value, "reason": "tests", "by": by}
        )
        created = when.replace(microsecond=0)
        self.decisions[name] = Authored("IdentityDecision", "payments", name, f"uid-{name}", 1, "1", created, spec)

    def said(self, name: str = "d1") -> tuple[str, str]:
        """What became of a decision: outcome and reason."""
        status = self.decisions[name].status
        return (status.outcome.value, status.reason) if status is not None else ("", "")


WAIVER = Waiver(Key("IdentityException", "payments", "w"), "Migration", at(2), at(20))


def hold_of_policy(enforced: datetime | None = None, **more: object) -> Hold:
    return Hold("Quarantine/q", Verdict.QUARANTINE, at(10), enforced=enforced, verified=enforced, **more)  # type: ignore[arg-type]
