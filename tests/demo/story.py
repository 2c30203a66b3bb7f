"""The story: an identity is claimed in time, two with legacy tokens are not. One is claimed in the end, the other is
revoked for good."""

from __future__ import annotations

import base64
import contextlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import urllib3
import yaml

from tests.demo.caller import Caller
from tests.demo.examples import DECIDE_WITHIN, FOLDER, REVOKE_AFTER, Json, a_month_from_now, read
from tests.demo.ground import Ground
from tests.demo.narrator import Narrator
from tests.support.cluster import ApiError, Cluster
from tests.support.operator import Metrics, Operator, OperatorEnded

T = TypeVar("T")

CACHE = 10
"""Seconds for which the API server goes on accepting a token that it has just accepted."""
PATIENCE = 60.0
"""Seconds a step may take beyond what it has to: for busy machines."""


class StepFailed(Exception):
    """A step did not come out as told; the message says which, and what was seen instead."""


class Story:
    """Construct, `tell`, and in any case `stop` (it ends the callers)."""

    def __init__(self, ground: Ground, narrator: Narrator) -> None:
        self.ground = ground
        self.narrator = narrator
        self.operator: Operator
        self.callers: dict[str, Caller] = {}
        self._before: Metrics

    @property
    def cluster(self) -> Cluster:
        return self.ground.cluster

    @property
    def namespace(self) -> str:
        return self.ground.names.namespace

    def tell(self) -> None:
        """The whole of it. Raises CannotBegin, StepFailed."""
        self.narrator.title("Tenure: from an unowned token that works to one that the API server refuses")
        with self._step("Setting up"):
            self.ground.prepare()
            self.operator = self.ground.run_operator()
            self._before = self.operator.metrics()
            self.narrator.said("the operator runs: tenure run " + " ".join(self.ground.arguments))
            self._apply_examples()
            self._use_tokens()
        with self._step("1. Findings open, each with a deadline"):
            self._findings_open()
            self._claimed_in_time()
        with self._step("2. Half of the time is over, and another team becomes accountable"):
            self._escalated()
        with self._step("3. The deadline passes, and nobody has decided"):
            self._deadline_passes()
        with self._step("4. The token that worked gets 401"):
            self._refused()
        with self._step("5. An owner claims it, and it works again"):
            self._claimed()
        with self._step("6. Its other finding is waived for a month: one asks, another approves"):
            self._approved()
        with self._step("7. The other one is revoked for good"):
            self._revoked()
        with self._step("8. What was not to be touched was not touched"):
            self._untouched()
        with self._step("9. How long it took, as /metrics tells it"):
            self._metrics()

    def stop(self) -> None:
        """Ends the callers."""
        for caller in self.callers.values():
            caller.stop()

    @contextlib.contextmanager
    def _step(self, title: str) -> Iterator[None]:
        self.narrator.step(title)
        try:
            yield
        except (AssertionError, ApiError, urllib3.exceptions.HTTPError) as error:
            raise StepFailed(str(error)) from error

    def _wait(self, what: str, condition: Callable[[], T], timeout: float) -> T:
        """Returns the condition's first true value. Raises StepFailed when the operator has ended."""

        def alive() -> T:
            try:
                self.operator.check()
            except OperatorEnded as error:
                raise StepFailed("the operator has ended") from error
            return condition()

        return self.narrator.wait(what, alive, timeout)

    def _answered(self, caller: Caller, status: int, timeout: float) -> None:
        self._wait(f"waiting until {caller.name} is answered {status}", lambda: caller.answered(status), timeout)

    # Setting up ----------------------------------------------------------------------------------------------------

    def _apply_examples(self) -> None:
        for path in sorted(FOLDER.glob("*.yaml")):
            if self._is_for_the_platform(path) and not self.ground.whole:
                self.narrator.said(
                    f"examples/{path.name} is left out: it writes to kube-system, which is not ours here"
                )
                continue
            manifests = self.ground.apply(path.name)
            kinds = ", ".join(f"{m['kind']}/{m['metadata']['name']}" for m in manifests if m["kind"] in _WORTH_NAMING)
            self.narrator.said(f"applied examples/{path.name}: {kinds}")
            if path.name.endswith("policy.yaml"):
                self.narrator.said(
                    f"… with seconds instead of days: decideWithin {DECIDE_WITHIN}s, revokeAfter {REVOKE_AFTER}s, "
                    "adoptionGrace and holdAfterUse 0s, all of the namespace within the blast radius"
                )

    @staticmethod
    def _is_for_the_platform(path: Path) -> bool:
        return any(
            document["metadata"].get("namespace") == "kube-system" for document in yaml.safe_load_all(path.read_text())
        )

    def _use_tokens(self) -> None:
        """From here on each token is really in use."""
        for name in ("build-server", "report-mailer"):
            self._call(name, self.namespace, self._legacy_token(self.namespace, f"{name}-token"))
        self._call("invoice-api", self.namespace, self.cluster.token(self.namespace, "invoice-api"))
        if self.ground.whole:
            self._call("etcd-backup", "kube-system", self._legacy_token("kube-system", "etcd-backup-token"))
        for caller in self.callers.values():
            self._answered(caller, 200, PATIENCE)
        self.narrator.proven(f"{', '.join(self.callers)}: each asks the API server with its token, and is answered 200")

    def _legacy_token(self, namespace: str, secret: str) -> str:
        def filled() -> str:
            found = self.cluster.get("secrets", secret, namespace)
            assert found, f"no Secret {namespace}/{secret}"
            return str(found.get("data", {}).get("token", ""))

        what = f"waiting until the token controller has filled Secret {secret}"
        return base64.b64decode(self._wait(what, filled, PATIENCE)).decode()

    def _call(self, name: str, namespace: str, token: str) -> None:
        caller = Caller(self.cluster, name, namespace, token)
        self.callers[name] = caller
        caller.start()

    # Findings ------------------------------------------------------------------------------------------------------

    def _finding(self, rule: str, subject: str, namespace: str | None = None) -> Json | None:
        for finding in self.cluster.list("identityfindings", namespace or self.namespace):
            if finding["spec"]["rule"] == rule and finding["status"]["subject"] == subject:
                return finding
        return None

    def _expect(self, rule: str, subject: str, namespace: str | None = None, **status: Any) -> Json:
        """The finding, when its status has these values. Raises AssertionError."""
        finding = self._finding(rule, subject, namespace)
        assert finding is not None, f"no finding {rule} on {subject}"
        seen = {name: finding["status"].get(name) for name in status}
        assert seen == status, f"{rule} on {subject} has {seen}"
        return finding

    def _findings_open(self) -> None:
        wanted = [
            ("Unowned", "ServiceAccount/build-server", "Quarantine"),
            ("Unowned", "ServiceAccount/report-mailer", "Quarantine"),
            ("Unowned", "ServiceAccount/log-shipper", "Quarantine"),
            ("LegacyToken", "Secret/build-server-token", "Nothing"),
            ("LegacyToken", "Secret/report-mailer-token", "Nothing"),
            ("ExceptionLapsed", "IdentityException/report-mailer-until-january", "Nothing"),
        ]

        def opened() -> list[Json]:
            return [self._expect(rule, subject, phase="Open", onDeadline=action) for rule, subject, action in wanted]

        findings = self._wait("waiting for the findings", opened, PATIENCE)
        self.narrator.proven(f"{len(findings)} findings are open in namespace {self.namespace}")
        rows = [("RULE", "SUBJECT", "RISK", "DUE IN", "AND THEN")]
        rows += [
            (
                finding["spec"]["rule"],
                finding["status"]["subject"],
                finding["status"]["risk"]["level"],
                _span((_instant(finding["status"]["due"]) - _instant(finding["status"]["detected"])).total_seconds()),
                finding["status"]["onDeadline"],
            )
            for finding in findings
        ]
        self.narrator.table(rows)
        build_server = findings[0]["status"]
        seconds = (_instant(build_server["due"]) - _instant(build_server["detected"])).total_seconds()
        assert DECIDE_WITHIN <= seconds <= DECIDE_WITHIN + 1, f"the deadline is {seconds} s away, not {DECIDE_WITHIN}"
        self.narrator.said("what the finding on build-server says:")
        self.narrator.quote(build_server["message"])
        self.narrator.quote("; ".join(build_server["risk"]["reasons"]))
        pending = [c["message"] for c in build_server["conditions"] if c["type"] == "DecisionPending"]
        assert pending, "no condition DecisionPending"
        self.narrator.quote(pending[0])

    def _claimed_in_time(self) -> None:
        """The way it is meant to go: a person decides, and nothing is ever done."""
        file = "claims/log-shipper.yaml"
        [claim] = read(FOLDER / file, self.ground.names)
        sam = self.cluster.user("sam", ["team-payments"])
        self.cluster.kubectl("apply", "-f", "-", input=yaml.safe_dump(claim), kubeconfig=sam)

        def decided() -> Json:
            return self._expect("Unowned", "ServiceAccount/log-shipper", phase="Resolved", dueOutcome="met")

        decision = self._wait("waiting for the end of the finding", decided, PATIENCE)["status"]["decision"]
        assert decision["source"] == "Claim", decision
        self.narrator.proven(
            f"log-shipper is claimed in time: sam of team-payments runs kubectl apply -f examples/{file}, and the "
            "finding is Resolved"
        )

    def _escalated(self) -> None:
        names = self.ground.names
        before = self._expect("Unowned", "ServiceAccount/build-server")["status"]
        half = _instant(before["detected"]) + (_instant(before["due"]) - _instant(before["detected"])) / 2

        def climbed() -> Json:
            found = self._expect("Unowned", "ServiceAccount/build-server", phase="Open")
            accountable = found["status"]["accountable"]
            assert (accountable["step"], accountable["owner"]) == (1, names.platform), f"accountable: {accountable}"
            return found

        finding = self._wait("waiting for half of the time", climbed, DECIDE_WITHIN / 2 + PATIENCE)
        status = finding["status"]
        late = (_instant(status["accountable"]["since"]) - half).total_seconds()
        assert 0 <= late <= 1, f"the step is stamped {late} s after half of the time"
        assert status["due"] == before["due"], "the escalation moved the deadline"
        self.narrator.proven(
            f"until {_instant(status['accountable']['since']):%H:%M:%S} UTC {names.payments} was accountable, whom the "
            f"label on the ServiceAccount names; now it is {names.platform}. The deadline stays where it is"
        )
        steps = [line["detail"] for line in status["evidence"] if line["source"] == "Escalation"]
        assert len(steps) == 1, f"the steps that the finding tells of: {steps}"
        self.narrator.quote(steps[0])

    def _deadline_passes(self) -> None:
        finding = self._expect("Unowned", "ServiceAccount/build-server")
        due = _instant(finding["status"]["enforceNotBefore"])
        build_server = self.callers["build-server"]
        ahead = self._server_ahead()
        before = ""

        def passed() -> bool:
            nonlocal before
            if datetime.now(UTC) + ahead >= due:
                return True
            before = build_server.history()
            return False

        self._wait("waiting for the deadline", passed, DECIDE_WITHIN + PATIENCE)
        assert before.startswith("200 ×"), f"build-server was answered {before!r} before the deadline"
        assert "then" not in before, f"build-server was answered {before} before the deadline"
        self.narrator.proven(f"the deadline was {due:%H:%M:%S} UTC; until then build-server was answered {before}")

        def quarantined() -> Json:
            return self._expect("Unowned", "ServiceAccount/build-server", phase="Quarantined")

        status = self._wait("waiting for the quarantine", quarantined, PATIENCE)["status"]
        decision = status["decision"]
        assert decision["source"] == "Policy", f"decided by {decision['source']}"
        late = (_instant(status["verified"]) - due).total_seconds()
        self.narrator.proven(
            f"{decision['reference']} decided: {decision['verdict']}, enforced and verified {max(late, 0.0):.1f} s "
            "after the deadline"
        )
        self.narrator.said("what stays possible is listed, not hidden: " + "; ".join(status["residual"]))

    def _server_ahead(self) -> timedelta:
        """How far the API server's clock, by which deadlines run, is ahead of ours; at most a second too little."""
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        answer = self.cluster.request("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", review)[1]
        return _instant(answer["metadata"]["creationTimestamp"]) - datetime.now(UTC)

    # Refusal, claim, revocation ------------------------------------------------------------------------------------

    def _refused(self) -> None:
        caller = self.callers["build-server"]
        self._answered(caller, 401, CACHE + PATIENCE)
        worked = caller.stretches[-1].since - caller.stretches[0].since
        self.narrator.proven(
            f"build-server is answered 401 Unauthorized, after {worked:.1f} s of 200 "
            f"(for up to {CACHE} s the API server remembers a token it has just accepted)"
        )
        new = self.cluster.kubectl("create", "token", "build-server", "-n", self.namespace, check=False)
        assert new.returncode != 0, "the API server issued a new token for the quarantined ServiceAccount"
        assert "is quarantined" in new.stderr, new.stderr
        self.narrator.proven("a new token for it is refused too, to a cluster administrator as to everybody:")
        self.narrator.quote(_message(new.stderr))

    def _claimed(self) -> None:
        names, file = self.ground.names, "claims/build-server.yaml"
        [claim] = read(FOLDER / file, names)
        manifest = yaml.safe_dump(claim)
        stranger = self.cluster.user("sam", ["team-payments"])
        refused = self.cluster.kubectl("apply", "-f", "-", input=manifest, kubeconfig=stranger, check=False)
        assert refused.returncode != 0, f"sam of team-payments could claim for {names.platform}"
        assert "verb claim" in refused.stderr, refused.stderr
        self.narrator.proven(f"sam of team-payments cannot claim in the name of {names.platform}:")
        self.narrator.quote(_message(refused.stderr))
        owner = self.cluster.user("dana", ["team-platform"])
        before = self.narrator.elapsed
        answer = self.cluster.kubectl("apply", "-f", "-", input=manifest, kubeconfig=owner)
        self.narrator.proven(f"dana of team-platform can: kubectl apply -f examples/{file}")
        self.narrator.quote(answer.stdout)
        self._answered(self.callers["build-server"], 200, PATIENCE)
        since = self.narrator.elapsed - before
        self.narrator.proven(f"build-server is answered 200 again, {since:.1f} s after the claim")

        def resolved() -> Json:
            return self._expect("Unowned", "ServiceAccount/build-server", phase="Resolved")

        status = self._wait("waiting for the end of the finding", resolved, PATIENCE)["status"]
        assert status["accountable"]["owner"] == names.platform, status["accountable"]

        def released() -> bool:
            return "build-server" not in self._quarantined()

        self._wait("waiting for the end of the quarantine", released, PATIENCE)
        self.narrator.proven(f"the finding is Resolved, {names.platform} answers for it, and its Quarantine is gone")

    def _approved(self) -> None:
        file, name = "exceptions/build-server-until-oidc.yaml", "build-server-until-oidc"
        [waiver] = read(FOLDER / file, self.ground.names)
        waiver = a_month_from_now(waiver)
        waiver["spec"]["requestedBy"] = "sam"  # before Kubernetes 1.36 nobody stamps it
        sam, dana = self.cluster.user("sam", ["team-payments"]), self.cluster.user("dana", ["team-platform"])
        self.cluster.kubectl("apply", "-f", "-", input=yaml.safe_dump(waiver), kubeconfig=sam)

        def pending() -> str:
            found = self.cluster.get("identityexceptions", name, self.namespace)
            assert found, f"no exception {name}"
            status = found.get("status", {})
            assert status.get("phase") == "Pending", status
            return next(c["message"] for c in status["conditions"] if c["type"] == "DecisionPending")

        said = self._wait("waiting until the operator says what it takes", pending, PATIENCE)
        self.narrator.proven(f"sam of team-payments asks: kubectl apply -f examples/{file}. It waives nothing yet:")
        self.narrator.quote(said)
        arguments = ["approve", f"identityexception/{name}", "-n", self.namespace, "--reason", "agreed on Tuesday"]
        refused = self._tenure(sam, *arguments)
        assert refused.returncode == 1, f"sam's approval ended with status {refused.returncode}: {refused.stdout}"
        assert 'User "sam" cannot create' in refused.stderr, refused.stderr
        self.narrator.proven("sam cannot approve it:")
        self.narrator.quote(_message(refused.stderr.splitlines()[-1]))
        approved = self._tenure(dana, *arguments)
        assert approved.returncode == 0, f"dana's approval: {approved.stdout}{approved.stderr}"
        self.narrator.proven(f"dana of team-platform can: tenure {' '.join(arguments[:4])} --reason …")
        self.narrator.quote(approved.stdout.strip())

        def excepted() -> Json:
            return self._expect("LegacyToken", "Secret/build-server-token", phase="Excepted")

        decision = self._wait("waiting for the finding", excepted, PATIENCE)["status"]["decision"]
        assert (decision["source"], decision["by"]) == ("Exception", "dana"), decision
        [entry] = self.cluster.list("identitydecisions", self.namespace)
        assert entry["spec"]["by"] == "dana", entry["spec"]
        self.narrator.proven(
            f"the finding on its token is Excepted, decided by dana; the ledger says who, when and why: "
            f"IdentityDecision/{entry['metadata']['name']}"
        )

    def _tenure(self, kubeconfig: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs the command as whoever the kubeconfig is for."""
        program = [sys.executable, "-m", "tenure", *arguments]
        environment = self.cluster.environment(kubeconfig)
        return subprocess.run(program, env=environment, capture_output=True, text=True, timeout=120, check=False)

    def _quarantined(self) -> list[str]:
        """Names of subjects that a Quarantine of the namespace is about."""
        return [
            quarantine["spec"]["subject"]["name"] for quarantine in self.cluster.list("quarantines", self.namespace)
        ]

    def _revoked(self) -> None:
        caller = self.callers["report-mailer"]
        self._answered(caller, 401, CACHE + PATIENCE)
        self.narrator.proven("report-mailer was quarantined with it and is answered 401 too; nobody claims it")

        def gone() -> bool:
            return self.cluster.get("secrets", "report-mailer-token", self.namespace) is None

        self._wait("waiting for revokeAfter", gone, REVOKE_AFTER + PATIENCE)

        def revoked() -> Json:
            status = self._expect("Unowned", "ServiceAccount/report-mailer", phase="Resolved")["status"]
            acts: list[Json] = [act for act in status["acts"] if act["verdict"] == "Revoke"]
            assert acts, "the finding has no act Revoke"
            assert acts[0].get("verified"), f"the act Revoke is {acts[0]}"
            return acts[0]

        act = self._wait("waiting for the proof of the revocation", revoked, PATIENCE)
        late = (_instant(act["verified"]) - _instant(act["decided"])).total_seconds()
        assert self.cluster.get("serviceaccounts", "report-mailer", self.namespace) is None
        self.narrator.proven(
            f"its Secret was deleted, and then, since it stands in no binding, its ServiceAccount: verified "
            f"{max(late, 0.0):.1f} s after revokeAfter was over"
        )
        again = self.cluster.kubectl("create", "token", "report-mailer", "-n", self.namespace, check=False)
        assert again.returncode != 0, "the API server issued a token for a ServiceAccount that is gone"
        assert "not found" in again.stderr, again.stderr
        self.narrator.proven("there is nobody left to whom a token could be issued; a namesake would be somebody else:")
        self.narrator.quote(_message(again.stderr))
        caller.answered(401)

    def _untouched(self) -> None:
        names = self.ground.names
        self.callers["invoice-api"].always(200)
        unowned = self._finding("Unowned", "ServiceAccount/invoice-api")
        # The operator may have seen the ServiceAccount a moment before its claim; then the claim decided that.
        decided = unowned is None or unowned["status"]["decision"]["source"] == "Claim"
        assert decided, f"a finding on the claimed identity: {unowned}"
        self.narrator.proven(f"invoice-api, claimed by {names.payments}: never acted on, 200 all the time")
        if self.ground.whole:
            self.callers["etcd-backup"].always(200)
            platform = self.cluster.list("identityfindings", "kube-system")
            acted = [f["metadata"]["name"] for f in platform if f["spec"]["rule"] == "Unowned" or f["status"]["acts"]]
            assert not acted, f"acts on, or Unowned findings of, platform identities: {acted}"
            self._expect(
                "LegacyToken", "Secret/etcd-backup-token", "kube-system", phase="Open", **{"class": "Platform"}
            )
            self.narrator.proven("etcd-backup in kube-system, owned by nobody: reported as Platform, 200 all the time")
        self._expect("LegacyToken", "Secret/build-server-token", phase="Excepted", acts=[])
        lapsed = ("ExceptionLapsed", "IdentityException/report-mailer-until-january")
        self._wait("waiting for ExceptionLapsed", lambda: self._expect(*lapsed, phase="Resolved"), PATIENCE)
        self.narrator.proven("the exception that lapsed in January has nothing left to cover: Resolved with its token")
        self.narrator.said(f"build-server in all: {self.callers['build-server'].history()}")
        self.narrator.said(f"report-mailer in all: {self.callers['report-mailer'].history()}")

    # Metrics -------------------------------------------------------------------------------------------------------

    def _metrics(self) -> None:
        def counted() -> Metrics:
            metrics = self.operator.metrics()
            for name, labels, wanted in (
                ("tenure_decision_latency_seconds_count", {"source": "Policy"}, 2),
                ("tenure_decision_latency_seconds_count", {"source": "Exception"}, 1),
                ("tenure_decisions_due_total", {"outcome": "met", "risk": "Low"}, 1),
                ("tenure_escalations_total", {"step": "1"}, 1),
                ("tenure_enforcement_latency_seconds_count", {}, 2),
                ("tenure_revocation_latency_seconds_count", {"cause": "Unowned"}, 1),
                ("tenure_decisions_due_total", {"outcome": "missed"}, 2),
            ):
                assert metrics.has(name, **labels), f"no metric {name} {labels}"
                before = self._before.value(name, **labels) if self._before.has(name, **labels) else 0
                count = metrics.value(name, **labels) - before
                assert count == wanted, f"{name} {labels} rose by {count:.0f}, not by {wanted}"
            return metrics

        metrics = self._wait("waiting for the figures", counted, PATIENCE)
        rows = [("TENURE_…_SECONDS", "FROM → TO", "LABELS", "COUNT", "MEAN")]
        for name, title in (
            ("detection_latency", "observable → detected"),
            ("decision_latency", "detected → decided"),
            ("enforcement_latency", "decided → verified"),
            ("revocation_latency", "observable → verified"),
        ):
            metric = f"tenure_{name}_seconds"
            for labels, count in sorted(metrics.samples(f"{metric}_count").items(), key=lambda item: sorted(item[0])):
                if count:
                    mean = metrics[f"{metric}_sum", labels] / count
                    shown = " ".join(value for key, value in sorted(labels) if key != "class")
                    rows.append((name, title, shown, f"{count:.0f}", f"{mean:.2f} s"))
        self.narrator.proven("the operator serves them as Prometheus histograms; here their counts and means:")
        self.narrator.table(rows)
        self.narrator.said(
            "decided by the policy because nobody did in time: tenure_decisions_due_total"
            '{outcome="missed"} rose by 2; the claim on log-shipper, before its deadline, counts as "met"'
        )


_WORTH_NAMING = frozenset(
    {"Namespace", "IdentityOwner", "GovernancePolicy", "ServiceAccount", "OwnedIdentity", "IdentityException"}
)


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def _span(seconds: float) -> str:
    return f"{seconds // 86400:.0f} days" if seconds >= 86400 else f"{seconds // 1:.0f} s"


def _message(stderr: str) -> str:
    """kubectl's error without kubectl's own words around what the API server said."""
    return re.sub(r'^(error: |Error from server \(\w+\): |error when creating "STDIN": )+', "", stderr.strip())
