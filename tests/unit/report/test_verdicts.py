"""What the words of a command mean, and what is told before anything is asked."""

from __future__ import annotations

import pytest
import yaml

from tenure.api.decision import IdentityDecisionSpec
from tenure.api.names import TargetKind, Verdict
from tenure.report.connection import Failure
from tenure.report.verdicts import FITS, Target, check, decision, fits, target, verdict_of

EXCEPTION = Target(TargetKind.IDENTITY_EXCEPTION, "payments", "ci-token")
STAMP = {"uid": "6d0f1a2b", "generation": 2}


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("identityexception", "IdentityException"),
        ("identityexceptions", "IdentityException"),
        ("IdentityException", "IdentityException"),
        ("IDEX", "IdentityException"),
        ("identityexceptions.tenure.dev", "IdentityException"),
        ("owned", "OwnedIdentity"),
        ("OwnedIdentities", "OwnedIdentity"),
        ("idf", "IdentityFinding"),
        ("identityfinding", "IdentityFinding"),
        ("quar", "Quarantine"),
        ("quarantines", "Quarantine"),
    ],
)
def test_a_kind_in_every_spelling_kubectl_takes(word: str, kind: str) -> None:
    assert target(f"{word}/ci.token", "payments") == Target(TargetKind(kind), "payments", "ci.token")


@pytest.mark.parametrize("text", ["ci", "idex/", "/ci", "idex/a/b", ""])
def test_what_is_no_kind_and_name(text: str) -> None:
    with pytest.raises(Failure, match="is not KIND/NAME"):
        target(text, "payments")


def test_a_kind_that_nothing_is_decided_about_names_those_that_are() -> None:
    with pytest.raises(Failure, match=r"about a secret\. .*identityexception \(idex\).*quarantine \(quar\)"):
        target("secret/ci", "payments")


@pytest.mark.parametrize(
    ("verb", "verdict", "expected"),
    [
        ("approve", Verdict.APPROVE, True),
        ("approve-security", Verdict.APPROVE, True),
        ("consult", Verdict.APPROVE, True),
        ("consult-legal", Verdict.REJECT, True),
        ("force", Verdict.APPROVE, True),
        ("reject-security", Verdict.REJECT, True),
        ("quarantine-soc", Verdict.QUARANTINE, True),
        ("force", Verdict.REJECT, False),
        ("consult", Verdict.ATTEST, False),
        ("approve", Verdict.REJECT, False),
        ("approved", Verdict.APPROVE, False),
        ("approve-", Verdict.APPROVE, False),
        ("Approve", Verdict.APPROVE, False),
        ("*", Verdict.APPROVE, False),
        ("approve-" + "x" * 60, Verdict.APPROVE, False),
    ],
)
def test_a_verb_fits_a_verdict(verb: str, verdict: Verdict, expected: bool) -> None:
    assert fits(verb, verdict) is expected


@pytest.mark.parametrize("verdict", list(Verdict))
@pytest.mark.parametrize("kind", list(TargetKind))
def test_a_verdict_fits_exactly_the_kinds_that_the_schema_lets_it(verdict: Verdict, kind: TargetKind) -> None:
    """The command refuses exactly what the CRD's rule would."""
    about = Target(kind, "payments", "x")
    if kind in FITS[verdict]:
        check(verdict, verdict.lower(), about)
        return
    with pytest.raises(Failure, match=f"{verdict.value} is about an?") as refused:
        check(verdict, verdict.lower(), about)
    instead = next(other for other, kinds in FITS.items() if kind in kinds)
    assert f"`tenure {instead.lower()} {kind.value.lower()}/x -n payments --reason TEXT`" in str(refused.value)


def test_a_verb_that_does_not_fit_is_told_with_those_that_do() -> None:
    with pytest.raises(Failure, match=r"takes approve, or approve- and a party's name.*or consult, or force"):
        check(Verdict.APPROVE, "reject", EXCEPTION)
    with pytest.raises(Failure, match="takes attest, or attest- and a party's name such as attest-security"):
        check(Verdict.ATTEST, "approve", EXCEPTION)


def test_what_a_verb_gives() -> None:
    given = {verb: verdict_of(verb) for verb in ("approve-security", "consult", "force", "reject-soc", "nonsense")}
    assert given == {
        "approve-security": Verdict.APPROVE,
        "consult": Verdict.APPROVE,
        "force": Verdict.APPROVE,
        "reject-soc": Verdict.REJECT,
        "nonsense": None,
    }


def test_the_decision_is_about_what_was_shown() -> None:
    made = decision(EXCEPTION, STAMP, Verdict.APPROVE, "approve", reason="contract 4711", by="bob", mark="a1b2c3")
    assert made["metadata"] == {"name": "approve-ci-token-a1b2c3", "namespace": "payments"}
    assert made["spec"] == {
        "target": {"kind": "IdentityException", "name": "ci-token", "uid": "6d0f1a2b", "generation": 2},
        "verdict": "Approve",
        "verb": "approve",
        "reason": "contract 4711",
        "by": "bob",
    }
    assert IdentityDecisionSpec.read(yaml.safe_load(yaml.safe_dump(made))["spec"]).used_verb == "approve"


@pytest.mark.parametrize("length", [1, 230, 237, 238, 253])
def test_a_long_name_is_cut_and_stays_a_name(length: int) -> None:
    long = Target(TargetKind.QUARANTINE, "payments", ("a." * 127)[:length])
    made = decision(long, {"uid": "u"}, Verdict.RELEASE, "release", reason="r", by="bob", mark="a1b2c3")
    name = made["metadata"]["name"]
    assert len(name) <= 253
    assert name.endswith("-a1b2c3")
    assert not set(".-") & set(name.removesuffix("-a1b2c3")[-1])


@pytest.mark.parametrize(("reason", "by"), [("", "bob"), ("x" * 1025, "bob")])
def test_a_reason_out_of_bounds_names_the_flag(reason: str, by: str) -> None:
    with pytest.raises(Failure, match=r"^--reason: "):
        decision(EXCEPTION, STAMP, Verdict.APPROVE, "approve", reason=reason, by=by, mark="a1b2c3")
