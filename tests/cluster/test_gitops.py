"""What GitOps tools read in Tenure's objects, as a live operator wrote them: kstatus (Flux, Helm 4), Argo CD's Lua,
Flux's CEL.

One cluster for all of it, with a namespace in every state that people wait in.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from gitops.customizations import TARGET, customizations
from tests.support import scenario
from tests.support.cluster import MERGE, REPOSITORY, Cluster, eventually
from tests.support.forked import ForkedOperator, ForkServer
from tests.support.gitops import EXAMPLES, GITOPS, Lua, documents, patched, without_ignored
from tests.support.helm import Helm, HelmFailed
from tests.support.kstatus import Status, compute
from tests.support.operator import Operator
from tests.support.scenario import allow, claim, deadline, exception, finding_of, owner, phase_of, policy, rule

pytestmark = [pytest.mark.local, pytest.mark.long]

Json = dict[str, Any]

AUTHORED = {
    "IdentityOwner": "identityowners",
    "OwnedIdentity": "ownedidentities",
    "IdentityException": "identityexceptions",
    "IdentityDecision": "identitydecisions",
    "GovernancePolicy": "governancepolicies",
}
TRACKING: Json = {
    "labels": {"app.kubernetes.io/instance": "shop", "kustomize.toolkit.fluxcd.io/name": "shop"},
    "annotations": {"argocd.argoproj.io/tracking-id": "shop:/ServiceAccount:shop/ci"},
}
"""How Argo CD and Flux mark what is theirs."""


STAGES = ["Guard", "DisableTokens", "RemoveEntitlements"]
ARGO_CD = "argocd-controller"
"""The field manager of its syncs."""


def bound(namespace: str, *users: str) -> Json:
    """What Git says of a binding: the ServiceAccount `ci` and these users."""
    rbac = "rbac.authorization.k8s.io"
    people = [{"kind": "User", "apiGroup": rbac, "name": user} for user in users]
    return {
        "apiVersion": f"{rbac}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "ci", "namespace": namespace},
        "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "ServiceAccount", "name": "ci", "namespace": namespace}, *people],
    }


def ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Scene:
    """A cluster, its operator, and the objects of it as the API server answered their creation."""

    cluster: Cluster
    operator: Operator
    place: str = ""
    created: dict[str, Json] = field(default_factory=dict)

    def create(self, called: str, manifest: Json, **options: Any) -> Json:
        made = self.cluster.create(manifest, **options)
        self.created[called] = made
        return made

    def live(self, called: str) -> Json:
        """That object as it is now."""
        made = self.created[called]
        found = self.cluster.get(AUTHORED[made["kind"]], made["metadata"]["name"], made["metadata"].get("namespace"))
        assert found is not None, called
        return found

    def settled(self, called: str, status: Status = Status.CURRENT) -> Json:
        """The object once a wait for it would end so."""

        def there() -> Json:
            found = self.live(called)
            assert compute(found) is status, found.get("status")
            return found

        return eventually(there, what=f"{called} {status}")

    def says(self, called: str, kind: str) -> Json:
        """The condition of that type, once it stands."""

        def there() -> Json | None:
            conditions = self.live(called)["status"].get("conditions", ())
            return next((found for found in conditions if found["type"] == kind), None)

        return eventually(there, what=f"{kind} on {called}")


def asked(scene: Scene, called: str, target: str, **spec: Any) -> Json:
    """An exception for that token, asked for by the administrator."""
    by = scene.cluster.username()
    manifest = exception(scene.place, "Secret", target, "LegacyToken", called=called, requestedBy=by, **spec)
    return scene.create(called, manifest)


def decide(scene: Scene, called: str, about: str, verdict: str) -> Json:
    metadata = scene.created[about]["metadata"]
    target = {"kind": "IdentityException", "name": metadata["name"], "uid": metadata["uid"], "generation": 1}
    spec = {"target": target, "verdict": verdict, "reason": "tests", "by": "judy"}
    manifest = {
        "apiVersion": scenario.API,
        "kind": "IdentityDecision",
        "metadata": {"name": called, "namespace": scene.place},
        "spec": spec,
    }
    return scene.create(called, manifest, user="judy")


@pytest.fixture(scope="module", params=["1.36", "1.33"])
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with Cluster.local(version=request.param, audit=False) as cluster, ForkServer() as server:
        cluster.install(entitlements=True)
        allow(cluster, "judy", "judy", rule("tenure.dev", ["identityexceptions"], ["approve", "reject"]),
              rule("tenure.dev", ["identitydecisions"], ["create"]))  # fmt: skip
        directory = tmp_path_factory.mktemp("operator")
        operator = ForkedOperator(cluster.kubeconfig, server=server, directory=directory, wait=False)
        made = Scene(cluster, operator)
        _write(made)
        before = {called: made.live(called) for called in made.created}
        made.created.update(before)
        with operator:
            operator.wait_ready()
            yield made
            operator.check()
            assert "Traceback" not in operator.logs()


def _write(scene: Scene) -> None:
    """All that the tests look at, written before there is an operator."""
    cluster = scene.cluster
    scene.place = place = cluster.namespace("shop", labels={"test": "shop"})
    held = cluster.namespace("held", labels={"test": "held"})
    scene.create("team", owner("team", backup="backup"))
    scene.create("backup", owner("backup"))
    scene.create("away", owner("away", suspended=True, backup="backup"))
    for one, other in (("ring", "circle"), ("circle", "ring")):
        scene.create(one, owner(one, backup=other))
    scene.create("audit", policy("audit", deadline(within="1s", action="Nothing"), labels={"test": "shop"}))
    scene.create("enforce", policy("enforce", deadline("Unowned", stages=STAGES), labels={"test": "held"}))
    for name in ("even", "equal"):
        scene.create(name, policy(name, deadline(action="Nothing"), labels={"test": "nowhere"}, precedence=7))
    scene.create("paused", policy("paused", deadline(), labels={"test": "none"}, suspend=True))

    scenario.identity(cluster, place, "app", [f"app-{number}" for number in range(5)])
    scene.create("claim", claim(place, "team", name="claim", accounts=["app"]))
    eventually(lambda: ago(0) > scene.created["claim"]["metadata"]["creationTimestamp"], what="another second")
    scene.create("second", claim(place, "backup", name="second", accounts=["app"]))
    scene.create("vacant", claim(place, "nobody", name="vacant", accounts=["other"]))
    scene.create("over", claim(place, "team", name="over", accounts=["old"], expiresAt="2001-01-01T00:00:00Z"))
    asked(scene, "pending", "app-0")
    asked(scene, "active", "app-1")
    asked(scene, "rejected", "app-2")
    asked(scene, "lapsed", "app-3", expiresAt="2001-01-01T00:00:00Z")
    asked(scene, "unneeded", "gone")
    decide(scene, "yes", "active", "Approve")
    decide(scene, "no", "rejected", "Reject")
    decide(scene, "yes-again", "active", "Approve")
    # Nobody's, and marked as an Application's and a Kustomization's.
    cluster.create(scenario.service_account(place, "ci", **TRACKING))
    cluster.create(scenario.service_account(held, "ci", **TRACKING))
    cluster.create(scenario.token_secret(held, "ci-token", "ci"))
    cluster.apply(bound(held, "ann"), manager=ARGO_CD)


# --- kstatus


def test_a_wait_ends_once_the_spec_was_processed_whatever_it_says(scene: Scene) -> None:
    """Also where it waits for an approval, has lapsed, was rejected, is vacant, in conflict, or names what is not."""
    kinds = {made["kind"] for made in scene.created.values()}
    assert kinds == AUTHORED.keys()
    for called, made in scene.created.items():
        assert made["status"] == {"observedGeneration": -1}, called
        assert compute(made) is Status.IN_PROGRESS, called
    for called in scene.created:
        scene.settled(called)
    phases = {"pending": "Pending", "active": "Active", "rejected": "Rejected", "lapsed": "Expired"}
    for called, phase in phases.items():
        eventually(lambda c=called, p=phase: scene.live(c)["status"]["phase"] == p, what=phase)  # type: ignore[misc]
        scene.settled(called)
    for called, kind in {
        "pending": "DecisionPending",
        "vacant": "Vacant",
        "second": "Conflict",
        "away": "Vacant",
    }.items():
        assert scene.says(called, kind)["status"] == "True"
        scene.settled(called)
    eventually(lambda: finding_of(scene.cluster, scene.place, "ExceptionLapsed", "lapsed"), what="ExceptionLapsed")
    scene.settled("lapsed")


def test_a_change_is_in_progress_until_it_is_processed(scene: Scene) -> None:
    changes: dict[str, Json] = {
        "backup": {"displayName": "Backup"},
        "over": {"purpose": "another"},
        "unneeded": {"justification": "another"},
        "even": {"adoptionGrace": "1d"},
    }
    for called, change in changes.items():
        scene.settled(called)
        metadata = scene.created[called]["metadata"]
        resource = AUTHORED[scene.created[called]["kind"]]
        answer = scene.cluster.patch(resource, metadata["name"], {"spec": change}, metadata.get("namespace"))
        assert answer["metadata"]["generation"] == 2
        assert compute(answer) is Status.IN_PROGRESS, called
        assert scene.settled(called)["status"]["observedGeneration"] == 2
    # What is no change of the spec is nothing to wait for.
    answer = scene.cluster.patch("identityowners", "backup", {"metadata": {"labels": {"touched": "true"}}})
    assert compute(answer) is Status.CURRENT


def test_nothing_the_operator_writes_is_unhealthy_or_part_of_an_application(scene: Scene) -> None:
    """A finding that is overdue, a Quarantine, a guard: none is bad by kstatus, none has a health in Argo CD, and none
    carries what would make it somebody's: an owner reference or the marks of the object that it is about."""
    cluster = scene.cluster

    def overdue() -> Json | None:
        found = finding_of(cluster, scene.place, "Unowned", "ci")
        return found if found and found["status"].get("dueOutcome") == "missed" else None

    assert eventually(overdue, what="an overdue finding")["status"]["phase"] == "Open"
    [held] = [found["metadata"]["name"] for found in cluster.list("namespaces", selector="test=held")]
    eventually(lambda: phase_of(cluster, held, "Unowned", "ci") == "Quarantined", what="quarantined")
    seen = {kind: cluster.list(kind) for kind in ("identityfindings", "quarantines", "quarantineguards")}
    assert all(seen.values())
    for found in (found for several in seen.values() for found in several):
        metadata = found["metadata"]
        assert compute(found) in (Status.CURRENT, Status.IN_PROGRESS)
        assert found["kind"] == "Quarantine" or compute(found) is Status.CURRENT
        assert "ownerReferences" not in metadata
        assert not metadata.get("annotations")
        assert all(label.startswith("tenure.dev/") for label in metadata.get("labels", ()))
        assert f"resource.customizations.health.tenure.dev_{found['kind']}" not in customizations()
    for quarantine in cluster.list("quarantines"):
        name, place = quarantine["metadata"]["name"], quarantine["metadata"]["namespace"]
        eventually(lambda n=name, p=place: compute(cluster.get("quarantines", n, p) or {}) is Status.CURRENT, what="it")  # type: ignore[misc]
    for called in scene.created:
        scene.settled(called)
    for kind in ("serviceaccounts", "secrets"):
        for found in cluster.list(kind, held):
            assert "ownerReferences" not in found["metadata"]


def test_helm_4_waits_as_kstatus_has_it(scene: Scene, tmp_path: Path) -> None:
    """By kstatus itself: without an operator it waits, with one it ends, though an approval and an owner are absent."""
    chart = tmp_path / "objects"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("{apiVersion: v2, name: objects, version: 1.0.0}")
    by = scene.cluster.username()
    written = [
        owner("helm"),
        policy("helm", deadline(), labels={"test": "helm"}),
        claim(scene.place, "missing", name="helm", accounts=["helm"]),
        exception(scene.place, "Secret", "helm", "LegacyToken", called="helm", requestedBy=by),
    ]
    (chart / "templates" / "all.yaml").write_text(yaml.safe_dump_all(written))
    helm = Helm("4", tmp_path / "helm", scene.cluster)
    scene.operator.kill()
    with pytest.raises(HelmFailed, match=r"InProgress|not ready|deadline"):
        helm("install", "objects", str(chart), "--wait", "--timeout", "2s")
    scene.operator.start().wait_ready()
    helm("upgrade", "objects", str(chart), "--wait", "--timeout", "60s")
    asked = scene.cluster.get("identityexceptions", "helm", scene.place)
    assert asked is not None
    assert asked["status"]["phase"] == "Pending"
    helm("uninstall", "objects")


# --- Argo CD


HEALTH: dict[str, tuple[str, str]] = {
    "team": ("Healthy", "Named by 2 claims."),
    "away": ("Suspended", "Set spec.suspended to false"),
    "ring": ("Healthy", "Change spec.backup and spec.escalation"),
    "claim": ("Healthy", "It covers 1 ServiceAccounts and 5 Secrets."),
    "second": ("Healthy", "the earlier claim claim covers it"),
    "vacant": ("Healthy", "Apply that IdentityOwner, or name another one."),
    "over": ("Healthy", "Set a later spec.expiresAt, or delete it."),
    "pending": ("Healthy", "Decide with `tenure approve identityexception/pending"),
    "active": ("Healthy", "Waives the named rules for 1 subject(s)"),
    "rejected": ("Healthy", "Delete it, or change its spec and ask again."),
    "lapsed": ("Healthy", "ask again with a later spec.expiresAt"),
    "yes": ("Healthy", "Counted: "),
    "yes-again": ("Healthy", "Void: It was not needed"),
    "audit": ("Healthy", "It applies to 1 namespaces and enforces in 1."),
    "even": ("Healthy", "To enforce, label a namespace"),
    "paused": ("Suspended", "use the action resume"),
}


def health_of(found: Json) -> Json:
    script = customizations()[f"resource.customizations.health.tenure.dev_{found['kind']}"]
    result: Json = Lua(script)(found)
    return result


def test_argo_cd_says_of_each_how_it_is_and_what_to_do(scene: Scene) -> None:
    for made in scene.created.values():
        assert health_of(made)["status"] == "Progressing"
        assert "kubectl get pods -A -l app.kubernetes.io/name=tenure" in health_of(made)["message"]
        assert health_of({**made, "status": None})["status"] == "Progressing"
    for called, (status, text) in HEALTH.items():
        scene.settled(called)

        def said(called: str = called, status: str = status, text: str = text) -> bool:
            found = health_of(scene.live(called))
            assert found["status"] == status, found
            assert text in found["message"], found
            return True

        eventually(said, what=f"health of {called}")
    assert {scene.created[called]["kind"] for called in HEALTH} == AUTHORED.keys()


def test_argo_cd_suspends_and_resumes_a_policy(scene: Scene) -> None:
    """An action changes the object and nothing else: who decides is not asked here, so nothing is decided."""
    said = yaml.safe_load(customizations()["resource.customizations.actions.tenure.dev_GovernancePolicy"])
    definitions = {entry["name"]: entry["action.lua"] for entry in said["definitions"]}
    discover = Lua(said["discovery.lua"])
    assert [name for name in customizations() if ".actions." in name] == [
        "resource.customizations.actions.tenure.dev_GovernancePolicy"
    ]
    for action, suspended in (("suspend", False), ("resume", True)):
        found = scene.settled("enforce")
        offered = discover(found)
        assert offered.keys() == definitions.keys()
        assert {name for name, about in offered.items() if not about["disabled"]} == {action}
        wanted = patched(Lua(definitions[action])(found), found)
        assert {**wanted, "spec": {**wanted["spec"], "suspend": suspended}} == {
            **found,
            "spec": {**found["spec"], "suspend": suspended},
        }, "nothing else"
        path = scene.cluster.path("governancepolicies", "enforce")
        scene.cluster.rest.expect("PUT", path, wanted)
        expected = "Suspended" if action == "suspend" else "Healthy"
        eventually(lambda e=expected: health_of(scene.settled("enforce"))["status"] == e, what=expected)  # type: ignore[misc]


def test_what_a_quarantine_changes_is_what_the_example_ignores(scene: Scene) -> None:
    """The label on a token Secret, a binding's subjects and annotation: without them the live object is what Git says.
    What somebody else changes is still seen, in the same fields too."""
    [rules] = [d["spec"]["ignoreDifferences"] for d in documents(EXAMPLES / "argocd" / "orders.yaml")]
    cluster = scene.cluster
    [held] = [found["metadata"]["name"] for found in cluster.list("namespaces", selector="test=held")]
    eventually(lambda: scenario.switched_off(cluster, held, "ci-token"), what="the token is off")
    secret = cluster.get("secrets", "ci-token", held)
    assert secret is not None
    assert secret["metadata"]["labels"].keys() >= {scenario.OFF}
    assert not without_ignored(secret, rules)["metadata"]["labels"].keys() & {scenario.OFF}
    secret["metadata"]["labels"]["somebody"] = "else"
    assert without_ignored(secret, rules)["metadata"]["labels"]["somebody"] == "else"

    def binding() -> Json:
        found = cluster.get("rolebindings", "ci", held)
        assert found is not None
        return found

    eventually(
        lambda: scenario.REMOVED in binding()["metadata"].get("annotations", {}), what="it is out of the binding"
    )
    live = binding()
    assert [subject["name"] for subject in live["subjects"]] == ["ann"]
    wanted, seen = bound(held, "ann"), without_ignored(live, rules)
    assert "subjects" not in seen
    assert not seen["metadata"].get("annotations")
    assert all(seen[part] == wanted[part] for part in wanted.keys() - {"subjects", "metadata"})
    cluster.patch("rolebindings", "ci", {"subjects": bound(held, "eve")["subjects"][1:]}, held)
    assert [subject["name"] for subject in without_ignored(binding(), rules)["subjects"]] == ["eve"]


def test_exclusions_name_what_the_operator_alone_writes() -> None:
    [entry] = yaml.safe_load((GITOPS / "argocd" / "exclusions.yaml").read_text())
    written = {"IdentityFinding", "Quarantine", "QuarantineGuard"}
    kinds = {found["spec"]["names"]["kind"] for found in documents(*(REPOSITORY / "crds").glob("*.yaml"))}
    assert set(entry["kinds"]) == written == kinds - AUTHORED.keys()
    assert entry["apiGroups"] == ["tenure.dev"]
    assert yaml.safe_load(TARGET.read_text())["data"] == customizations()


# --- Flux


def expressions(folder: str) -> dict[str, Json]:
    [patch] = yaml.safe_load((GITOPS / "flux" / folder / f"{folder}.yaml").read_text())
    assert patch["path"] == "/spec/healthCheckExprs"
    return {entry["kind"]: entry for entry in patch["value"]}


class Evaluator:
    """Evaluates Flux's expressions in the API server's own CEL: a policy on objects of one kind whose refusal says what
    they came to. Flux gives an expression the object's top-level fields as variables."""

    _numbers = itertools.count()

    def __init__(self, cluster: Cluster, kind: str, entry: Json) -> None:
        self._cluster = cluster
        self._kind = kind
        self._name = f"flux-tests-{next(self._numbers)}"  # of its own, and asked by a user of its own
        said = [f"'{name}=' + ({self._bound(entry[name])} ? 'true' : 'false')" for name in ("failed", "current")]
        self._apply(
            "ValidatingAdmissionPolicy",
            {
                "failurePolicy": "Fail",
                "matchConstraints": {
                    "resourceRules": [
                        {
                            "apiGroups": ["tenure.dev"],
                            "apiVersions": ["v1alpha1"],
                            "operations": ["UPDATE"],
                            "resources": [AUTHORED[kind]],
                        }
                    ]
                },
                "matchConditions": [{"name": "asked", "expression": f"request.userInfo.username == '{self._name}'"}],
                "validations": [{"expression": "false", "messageExpression": " + ' ' + ".join(["'flux'", *said])}],
            },
        )
        self._apply("ValidatingAdmissionPolicyBinding", {"policyName": self._name, "validationActions": ["Deny"]})

    @staticmethod
    def _bound(expression: str) -> str:
        return f"[object.status].exists(status, [object.metadata].exists(metadata, {expression}))"

    def _apply(self, kind: str, spec: Json) -> None:
        group = "admissionregistration.k8s.io/v1"
        self._cluster.apply({"apiVersion": group, "kind": kind, "metadata": {"name": self._name}, "spec": spec})

    def __call__(self, found: Json) -> Status:
        """As Flux does it: the generation first, then failed, then current."""
        status = found.get("status", {})
        if status.get("observedGeneration", found["metadata"]["generation"]) != found["metadata"]["generation"]:
            return Status.IN_PROGRESS
        metadata = found["metadata"]
        path = self._cluster.path(AUTHORED[self._kind], metadata["name"], metadata.get("namespace"))
        note = {"metadata": {"labels": {"flux-tests": "true"}}}
        options: Json = {"content_type": MERGE, "user": self._name, "groups": ["system:masters"]}

        def told() -> str:
            _, answer = self._cluster.request("PATCH", f"{path}?dryRun=All", note, **options)
            said = str(answer.get("message", ""))
            assert "flux failed=" in said, answer
            return said

        message = eventually(told, what="the API server's CEL")
        if "failed=true" in message:
            return Status.FAILED
        return Status.CURRENT if "current=true" in message else Status.IN_PROGRESS


def test_flux_s_expressions_say_what_kstatus_says(scene: Scene) -> None:
    checks = expressions("health-checks")
    assert checks.keys() == AUTHORED.keys()
    for called in ("team", "vacant", "pending", "lapsed", "audit", "yes"):
        found = scene.settled(called)
        evaluate = Evaluator(scene.cluster, found["kind"], checks[found["kind"]])
        if called == "yes":  # nobody may change one, so another policy may answer first
            continue
        assert evaluate(found) is Status.CURRENT


def test_a_kustomization_can_wait_for_an_approval(scene: Scene) -> None:
    evaluate = Evaluator(scene.cluster, "IdentityException", expressions("wait-for-approval")["IdentityException"])
    wanted = {
        "pending": Status.IN_PROGRESS,
        "active": Status.CURRENT,
        "rejected": Status.FAILED,
        "lapsed": Status.FAILED,
    }
    for called, status in wanted.items():
        eventually(lambda c=called, s=status: evaluate(scene.settled(c)) is s, what=f"{called} {status}")  # type: ignore[misc]


# --- what cannot be processed: last, since it changes the kinds


@pytest.fixture
def unreadable(scene: Scene) -> Iterator[Callable[[], None]]:
    """Gives every kind a field that this operator does not know, as a newer version's CRDs would; puts them back."""
    cluster = scene.cluster

    def alter() -> None:
        for plural in AUTHORED.values():
            stored = cluster.get("customresourcedefinitions", f"{plural}.tenure.dev")
            assert stored is not None
            version = stored["spec"]["versions"][0]
            spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
            spec["properties"]["scope"] = {"type": "string", "default": "wide"}
            body = {"spec": {"versions": [version]}}
            cluster.patch("customresourcedefinitions", f"{plural}.tenure.dev", body)
        for called in scene.created:
            eventually(lambda c=called: "scope" in scene.live(c)["spec"], what="the newer kind is served")  # type: ignore[misc]

    yield alter
    files = [f"--filename={REPOSITORY / 'crds' / f'{plural}.tenure.dev.yaml'}" for plural in AUTHORED.values()]
    cluster.kubectl("apply", "--server-side", "--force-conflicts", *files)
    for called in scene.created:
        eventually(lambda c=called: "scope" not in scene.live(c)["spec"], what="the kind is as before")  # type: ignore[misc]
    scene.operator.restart()
    for called in scene.created:
        scene.settled(called)


def test_a_spec_that_cannot_be_processed_has_failed(scene: Scene, unreadable: Callable[[], None]) -> None:
    """At once, for objects that stood there, that are changed then, and that are new; nothing about it is lost."""
    cluster = scene.cluster
    for called, phase in {"active": "Active", "pending": "Pending"}.items():
        eventually(lambda c=called, p=phase: scene.live(c)["status"]["phase"] == p, what=phase)  # type: ignore[misc]
    pins = scene.settled("active")["status"]["matched"]
    assert pins
    unreadable()
    scene.operator.restart()
    for called in scene.created:
        found = scene.settled(called, Status.FAILED)
        told = health_of(found)
        assert told["status"] == "Degraded"
        assert "spec.scope" in told["message"]
        assert "bring operator and kinds to one version" in told["message"]
    assert scene.live("active")["status"]["matched"] == pins, "what was approved is approved"
    checks = expressions("health-checks")
    for called in ("team", "claim", "pending", "audit"):
        found = scene.live(called)
        assert Evaluator(cluster, found["kind"], checks[found["kind"]])(found) is Status.FAILED

    # Changed and still unreadable: failed for this generation too, and what was approved is void with the old spec.
    for called, change in {"active": {"justification": "x"}, "team": {"displayName": "x"}}.items():
        made = scene.created[called]
        namespace = made["metadata"].get("namespace")
        answer = cluster.patch(AUTHORED[made["kind"]], made["metadata"]["name"], {"spec": change}, namespace)
        assert compute(answer) is Status.IN_PROGRESS
        assert scene.settled(called, Status.FAILED)["status"]["observedGeneration"] == 2
    assert "matched" not in scene.live("active")["status"]
    asked(scene, "new", "app-4")
    scene.settled("new", Status.FAILED)


def test_after_that_all_are_current_and_a_changed_exception_asks_anew(scene: Scene) -> None:
    if "new" not in scene.created:
        pytest.skip("follows on the test before it")
    for called in scene.created:
        scene.settled(called)
        assert "Stalled" not in str(scene.live(called)["status"]["conditions"])
    active = scene.live("active")
    assert active["status"]["phase"] == "Pending"
    assert active["status"]["stamped"] > active["metadata"]["creationTimestamp"]


# --- an operator that is held to some namespaces: after all others, since the other one ends


def test_held_to_some_namespaces_it_answers_for_what_nobody_uses_there(scene: Scene) -> None:
    """An owner whom nobody names there and a policy that matches nothing there are in Git all the same. What another
    operator counted stays."""
    scene.settled("team")
    before = scene.live("team")["status"]["claims"]
    assert before
    scene.operator.kill()
    scene.operator.arguments = ["--namespaces", "default"]
    scene.operator.start().wait_ready()
    scene.create("elsewhere", owner("elsewhere"))
    scene.create("nothing", policy("nothing", deadline(), labels={"test": "nothing"}))
    for called in ("elsewhere", "nothing"):
        scene.settled(called)
    scene.cluster.patch("identityowners", "backup", {"metadata": {"labels": {"touched": "again"}}})
    assert scene.live("team")["status"]["claims"] == before
