"""Kinds come and go in versions, by `make install` and by the chart; what people and the operator wrote stays. And
while the kinds are older than the operator, it says so and acts on nothing."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tenure.enforce.policies import is_as_shipped
from tests.cluster import tenure_objects as objects
from tests.support import scenario
from tests.support.cluster import REPOSITORY, Cluster, eventually
from tests.support.helm import CHART, Helm
from tests.support.older import GONE, UNKNOWN, older_chart, older_deploy, older_policies
from tests.support.operator import Operator
from tests.support.rest import Json
from tests.support.scenario import HOME, OPERATOR, deadline, finding_of, policy, quarantine_of

pytestmark = pytest.mark.local

Step = Callable[[], None]
VALUES: dict[str, Any] = {
    "identityowners": "The team",
    "ownedidentities": {"interval": "90d"},
    "identityexceptions": "PAY-1",
    "identitydecisions": {"generation": 1},
    "identityfindings": ["a token"],
    "quarantines": "36h",
    "quarantineguards": {"here/b ServiceAccount system:serviceaccount:here:ci": {"quarantine": "here/q"}},
    "governancepolicies": True,
}
"""What is written into the fields of UNKNOWN."""
ARGO_CD = "argocd-controller"
"""The field manager of its syncs."""
STAGES = ("Guard", "DisableTokens", "DenyWrites")
ADMISSION = {
    "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
    "MutatingAdmissionPolicyBinding": "mutatingadmissionpolicybindings",
    "MutatingAdmissionPolicy": "mutatingadmissionpolicies",
}
WRITTEN_BY_THE_OPERATOR = ("identitydecisions", "identityfindings", "quarantines", "quarantineguards")


def by_script(cluster: Cluster, directory: Path) -> tuple[Step, Step, Step]:
    """Older kinds, today's, and back, by `make install`."""
    script = older_deploy(directory)

    def install(path: Path) -> None:
        done = subprocess.run(
            ["bash", str(path)], env=cluster.environment(), capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def backward() -> None:
        install(script)

    return backward, lambda: install(REPOSITORY / "deploy" / "install.sh"), backward


def by_helm(major: str) -> Callable[[Cluster, Path], tuple[Step, Step, Step]]:
    """The same by the chart: installed, upgraded, rolled back. There is no kubelet, so no operator runs."""

    def steps(cluster: Cluster, directory: Path) -> tuple[Step, Step, Step]:
        helm = Helm(major, directory / "helm", cluster)
        chart = older_chart(directory)
        release = ("tenure", "-n", HOME)
        return (
            lambda: void(helm("install", *release, "--create-namespace", str(chart))),
            lambda: void(helm("upgrade", *release, str(CHART))),
            lambda: void(helm("rollback", *release, "1")),
        )

    return steps


def listed(cluster: Cluster, resource: str) -> list[Json]:
    """Those of ours; none where the API server has no such resource."""
    try:
        found = cluster.list(resource)
    except KeyError:
        return []
    return [one for one in found if one["metadata"].get("labels", {}).get("app.kubernetes.io/part-of") == "tenure"]


def void(_: str) -> None:
    pass


def known(cluster: Cluster) -> set[str]:
    """Which kinds know the field, by the API server's own discovery of what it serves: a dry run of a field that is
    unknown is warned about."""
    found = set()
    for plural, (part, field) in UNKNOWN.items():
        definition = cluster.get("customresourcedefinitions", f"{plural}.tenure.dev") or {}
        schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
        if field in schema[part]["properties"]:
            found.add(plural)
    return found


def make(cluster: Cluster, place: str) -> None:
    """One object of each kind, without the fields that the older ones do not know."""
    me = {"requestedBy": cluster.username()}
    cluster.create(objects.owner("payments", contacts=[{"type": "Email", "value": "payments@example.com"}]))
    cluster.create(objects.policy("default", deadlines=[{"decideWithin": "30d", "onDeadline": "Nothing"}]))
    # The policies on these compare with kinds that have just come, or were just replaced.
    eventually(lambda: cluster.apply(objects.claim(place)), 90, what="a claim")
    eventually(lambda: cluster.apply(objects.exception(place, **me)), 90, what="an exception")
    found = cluster.get("identityexceptions", "exception", place) or {}
    target = {"kind": "IdentityException", "name": "exception", "uid": found["metadata"]["uid"], "generation": 1}
    verdict = objects.decision(place, target=target, verdict="Reject", by="judy")
    eventually(lambda: cluster.create(verdict, user="judy"), 90, what="a decision")
    status = {"subject": "ServiceAccount/ci", "phase": "Open", "risk": {"level": "Low"}, "residual": []}
    cluster.create({**objects.finding(place), "status": status}, user=OPERATOR)
    cluster.create(objects.quarantine(place, finalizer=False), user=OPERATOR)
    cluster.create(objects.guard(place, serviceAccounts={"ci": objects.entry(f"{place}/q")}), user=OPERATOR)


def stored(cluster: Cluster) -> dict[str, Json]:
    """Every object of ours: its uid and what was written."""
    return {
        f"{plural}/{one['metadata']['name']}": {
            "uid": one["metadata"]["uid"],
            "spec": one["spec"],
            **({"status": one.get("status", {})} if UNKNOWN[plural][0] == "status" else {}),
        }
        for plural in UNKNOWN
        for one in cluster.list(plural)
        if one["metadata"].get("namespace") != HOME
    }


def without(found: dict[str, Json]) -> dict[str, Json]:
    """The same as the older kinds show it."""
    shown = {}
    for name, one in found.items():
        part, field = UNKNOWN[name.partition("/")[0]]
        kept = {key: value for key, value in one[part].items() if key != field}
        shown[name] = {**one, part: kept}
    return shown


def change(cluster: Cluster, place: str, plural: str, body: Json) -> None:
    name = next(one for one in cluster.list(plural) if one["metadata"].get("namespace") != HOME)["metadata"]["name"]
    namespaced = plural not in ("identityowners", "governancepolicies")
    user = OPERATOR if plural in WRITTEN_BY_THE_OPERATOR else None
    options = {"user": user} if user else {}
    if plural == "identitydecisions":  # nobody changes one; the operator answers in its status
        options["subresource"] = "status"
    where = place if namespaced else None
    eventually(lambda: cluster.patch(plural, name, body, where, **options), 90, what=f"{plural} changed")


@pytest.mark.parametrize(
    ("version", "way"),
    [
        pytest.param("1.36", by_script, id="install-1.36", marks=pytest.mark.long),
        pytest.param("1.33", by_script, id="install-1.33"),
        pytest.param("1.36", by_helm("4"), id="helm4-1.36", marks=pytest.mark.long),
        pytest.param("1.33", by_helm("3"), id="helm3-1.33"),
    ],
)
def test_objects_of_every_kind_outlive_an_upgrade_and_the_way_back(
    fresh_cluster: Callable[..., Cluster],
    tmp_path: Path,
    version: str,
    way: Callable[[Cluster, Path], tuple[Step, Step, Step]],
) -> None:
    cluster = fresh_cluster(version=version)
    first, forward, back = way(cluster, tmp_path)
    first()
    cluster._resources.clear()
    assert known(cluster) == set()
    scenario.allow(
        cluster,
        "judy",
        "judy",
        scenario.rule("tenure.dev", ["identitydecisions"], ["create"]),
        scenario.rule("tenure.dev", ["identityexceptions"], ["reject"]),
    )
    place = cluster.namespace("here")
    make(cluster, place)
    before = stored(cluster)
    assert {name.partition("/")[0] for name in before} == set(UNKNOWN)

    # Upgraded: everything is as it was, and knows more.
    forward()
    assert known(cluster) == set(UNKNOWN)
    before["governancepolicies/default"]["spec"]["suspend"] = False  # the API server's default of the new field
    eventually(lambda: stored(cluster) == before, what="shown as it was")
    for plural, value in VALUES.items():
        part, field = UNKNOWN[plural]
        change(cluster, place, plural, {part: {field: value}})
    written = stored(cluster)
    assert without(written) != written

    # Back: every object, without the fields that the older kinds do not know; nothing is lost of what nobody writes.
    back()
    assert known(cluster) == set()
    eventually(lambda: stored(cluster) == without(written), what="shown as the older kinds know it")
    forward()
    eventually(lambda: stored(cluster) == written, what="shown as it was written")

    # Back, and somebody writes: of that object the unknown field is gone for good, and nothing else.
    back()
    eventually(lambda: stored(cluster) == without(written), what="shown as the older kinds know it")
    for plural in VALUES:
        body = {"metadata": {"labels": {"written": "meanwhile"}}}
        change(cluster, place, plural, {"status": {"message": "no"}} if plural == "identitydecisions" else body)
    forward()
    lost = without(written)
    lost["identitydecisions/decision"]["status"]["message"] = "no"
    lost["governancepolicies/default"]["spec"]["suspend"] = False
    eventually(lambda: stored(cluster) == lost, what="what was written meanwhile has lost the field")


@pytest.mark.long
@pytest.mark.parametrize("version", ["1.33", "1.36"])
def test_policies_upgraded_by_a_gitops_tool_end_as_they_ship(
    fresh_cluster: Callable[..., Cluster], tmp_path: Path, version: str
) -> None:
    """Argo CD applies server-side as one manager, which merges lists by name: what the version before had more goes,
    the order is the new one, and the operator says what it saw at each step."""
    cluster = fresh_cluster(version=version)
    stamps = "Always" if version == "1.36" else "Never"
    sets = {"stamps": stamps, "preDelete.enabled": False, "test.enabled": False, "denyWrites.enabled": True}
    documents = [
        one for one in Helm("4", tmp_path / "helm").render(sets=sets, kubernetes=version) if one["kind"] != "Deployment"
    ]
    before = older_policies(documents)
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": HOME}})

    def sync(found: list[Json]) -> None:
        text = "\n---\n".join(map(json.dumps, sorted(found, key=lambda one: one["kind"] != "CustomResourceDefinition")))
        flags = ("apply", "--server-side", "--force-conflicts", f"--field-manager={ARGO_CD}", "-f-")
        cluster.kubectl(*flags, input=text)

    def ours() -> dict[str, Json]:
        cluster._resources.clear()
        return {
            f"{kind}/{one['metadata']['name']}": one for kind in ADMISSION for one in listed(cluster, ADMISSION[kind])
        }

    sync(before)
    with Operator(cluster.kubeconfig, directory=tmp_path / "operator") as operator:

        def effective() -> list[float]:
            return [operator.metrics().value("tenure_enforcement_effective", stage=stage) for stage in STAGES]

        operator.wait_log("is not as it was installed")
        assert effective() == [0.0] * len(STAGES)
        for _ in ("upgraded", "synced again"):
            sync(documents)
            eventually(lambda: effective() == [1.0] * len(STAGES), what="proven")
        wanted = {
            f"{one['kind']}/{one['metadata']['name']}": one["spec"] for one in documents if "Admission" in one["kind"]
        }
        pruned = ours().keys() - wanted.keys()
        assert {name.partition("/")[2] for name in pruned} == {GONE}
        for name in sorted(pruned, reverse=True):  # as Argo CD does, the binding first
            kind, _, called = name.partition("/")
            cluster.delete(ADMISSION[kind], called)
        found = ours()
        assert found.keys() == wanted.keys()
        assert [name for name in found if not is_as_shipped(found[name]["spec"], wanted[name])] == []
        for name, one in found.items():
            writers = {
                entry["manager"] for entry in one["metadata"]["managedFields"] if entry.get("subresource") != "status"
            }
            assert writers == {ARGO_CD}, name

        # And back, as `git revert` has it.
        sync(before)
        eventually(lambda: effective() == [0.0] * len(STAGES), what="held")
        sync(documents)
        eventually(lambda: effective() == [1.0] * len(STAGES), what="proven again")


@pytest.mark.long
@pytest.mark.parametrize("version", ["1.33", "1.36"])
def test_a_binding_whose_policy_is_gone_refuses_nothing(fresh_cluster: Callable[..., Cluster], version: str) -> None:
    """As a rollback of Helm's leaves it in between: every policy gone, every binding there. What was refused passes,
    nothing else is refused or changed, and the bindings go as they came."""
    cluster = fresh_cluster(version=version, installed=True)
    kinds = {kind: name for kind, name in ADMISSION.items() if listed(cluster, name)}
    assert len(kinds) == (4 if version == "1.36" else 2)
    place = cluster.namespace("held")
    scenario.identity(cluster, place, "ci")
    quarantined = {"ci": objects.entry(f"{place}/q")}
    cluster.create(objects.guard(place, serviceAccounts=quarantined), user=OPERATOR)
    cluster.create(objects.owner("payments"))
    scenario.allow(cluster, "judy", "judy", scenario.rule("tenure.dev", ["*"], ["create"]))
    as_judy: Json = {"user": "judy"}
    tried: dict[str, tuple[Json, Json]] = {
        "is quarantined": (objects.pod(place, "new"), {}),  # Ignore, with parameters in the namespace
        "may not claim": (objects.claim(place), as_judy),  # Fail
        "only the operator of Tenure": (objects.finding(place), as_judy),  # Fail, whoever it is
    }

    def said(manifest: Json, options: Json) -> str:
        path = f"{cluster.path_of(manifest).rpartition('/')[0]}?dryRun=All"
        status, answer = cluster.rest.request("POST", path, manifest, **options)
        return "" if status < 300 else str(answer["message"])

    for words, attempt in tried.items():
        eventually(lambda w=words, a=attempt: w in said(*a), 90, what=words)  # type: ignore[misc]
    for kind in kinds:
        if not kind.endswith("Binding"):
            for one in listed(cluster, kinds[kind]):
                cluster.delete(kinds[kind], one["metadata"]["name"])
    bindings = [
        (name, one) for kind, name in kinds.items() if kind.endswith("Binding") for one in listed(cluster, name)
    ]
    assert len(bindings) > 10
    for words, attempt in tried.items():
        eventually(lambda a=attempt: said(*a) == "", what=f"not: {words}")  # type: ignore[misc]
    # Nothing else is held up by them either: other objects, other writes, an end.
    asked = objects.exception(place, requestedBy="whoever")
    path = f"{cluster.path_of(asked).rpartition('/')[0]}?dryRun=All"

    def stamped() -> str:
        return str(cluster.rest.expect("POST", path, asked, user="judy")["spec"]["requestedBy"])

    eventually(lambda: stamped() == "whoever", what="no stamp either")
    cluster.create(asked, user="judy")
    cluster.create(objects.pod(place, "other"))
    cluster.patch("serviceaccounts", "ci", {"metadata": {"labels": {"changed": "yes"}}}, place)
    cluster.token(place, "ci")
    for name, one in bindings:
        cluster.delete(name, one["metadata"]["name"])
    for attempt in tried.values():
        assert said(*attempt) == ""
    cluster.delete_namespace(place, wait=True)


@pytest.mark.long
@pytest.mark.parametrize("version", ["1.33", "1.36"])
def test_with_older_kinds_nothing_is_enforced(
    fresh_cluster: Callable[..., Cluster], tmp_path: Path, version: str
) -> None:
    """A policy that is suspended stays so where its kind does not know the field: it would read as one that acts."""
    cluster = fresh_cluster(version=version, installed=True)
    script = older_deploy(tmp_path, ("governancepolicies",))
    kind = REPOSITORY / "crds" / "governancepolicies.tenure.dev.yaml"
    apply = ("apply", "--server-side", "--force-conflicts", "--field-manager=tenure-install", "-f")

    def blocked(name: str) -> str:
        found = finding_of(cluster, place, "Unowned", name) or {}
        conditions = found.get("status", {}).get("conditions", [])
        return next((str(one["reason"]) for one in conditions if one["type"] == "Blocked"), "")

    with Operator(cluster.kubeconfig, directory=tmp_path / "operator") as operator:
        place = cluster.namespace("held", labels={"test": "held"})
        scenario.govern(cluster, policy("held", deadline("Unowned"), labels={"test": "held"}, suspend=True))
        scenario.identity(cluster, place, "ci", ["ci-token"])
        eventually(lambda: blocked("ci") == "Suspended", what="held by its policy")

        cluster.kubectl(*apply, str(script.parent.parent / "crds" / kind.name))
        operator.wait_log("governancepolicies.tenure.dev is older than this version: spec.suspend unknown")
        eventually(lambda: "suspend" not in cluster.list("governancepolicies")[0]["spec"], what="as if nobody wrote it")
        # What would change the policy's status, and so write it: the field would be gone for good.
        cluster.namespace("more", labels={"test": "held"})
        scenario.identity(cluster, place, "later")
        eventually(lambda: blocked("later") == "NotEffective", what="found, and held for another reason")
        eventually(lambda: blocked("ci") == "NotEffective", what="the other one too")
        assert operator.metrics().value("tenure_enforcement_effective", stage="Guard") == 0
        assert cluster.list("governancepolicies")[0]["status"]["namespaces"] == 1
        assert operator.probe("/healthz") == operator.probe("/readyz") == 200
        assert cluster.list("quarantines") == []
        # kubectl refuses what the kind does not know.
        for way, words in {(): "unknown field", ("--server-side",): "field not declared in schema"}.items():
            wanted = policy("held", deadline("Unowned"), labels={"test": "held"}, suspend=True)
            refused = cluster.kubectl("apply", *way, "-f-", input=wanted, check=False)
            assert refused.returncode == 1
            assert words in refused.stderr

        cluster.kubectl(*apply, str(kind))
        operator.wait_log("enforcement is effective again")
        eventually(lambda: blocked("ci") == blocked("later") == "Suspended", what="held by its policy again")
        assert cluster.list("quarantines") == []
        eventually(lambda: cluster.list("governancepolicies")[0]["status"]["namespaces"] == 2, what="answered again")
        assert cluster.list("governancepolicies")[0]["spec"]["suspend"]
        cluster.patch("governancepolicies", "held", {"spec": {"suspend": False}})
        eventually(lambda: quarantine_of(cluster, place, "ci"), what="and only now acted on")


@pytest.mark.long
@pytest.mark.parametrize("version", ["1.33", "1.36"])
def test_with_every_kind_older_the_operator_says_so_and_goes_on_once_they_are_upgraded(
    fresh_cluster: Callable[..., Cluster], tmp_path: Path, version: str
) -> None:
    cluster = fresh_cluster(version=version)
    first, forward, _ = by_script(cluster, tmp_path)
    first()
    cluster._resources.clear()
    with Operator(cluster.kubeconfig, directory=tmp_path / "operator") as operator:
        place = cluster.namespace("here", labels={"test": "held"})
        cluster.apply(policy("held", deadline("Unowned"), labels={"test": "held"}))
        scenario.identity(cluster, place, "ci", ["ci-token"])
        # Kind and field, and what cannot be written meanwhile.
        operator.wait_log("CustomResourceDefinition/identityowners.tenure.dev is older than this version")
        operator.wait_log(".status.residual: field not declared in schema")
        assert operator.probe("/healthz") == operator.probe("/readyz") == 200
        assert cluster.list("quarantines") == []
        forward()
        eventually(lambda: quarantine_of(cluster, place, "ci"), 60, what="found and acted on")
        operator.check()
