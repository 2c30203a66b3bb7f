"""What the chart renders, in every combination of its ci/: the same as deploy/, and refused where it could not work."""

from __future__ import annotations

import functools
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tenure import __version__
from tenure.api import KINDS
from tenure.enforce.policies import but_for, is_as_shipped, shipped
from tenure.rights import needed
from tests.support.cluster import REPOSITORY
from tests.support.helm import (
    CHART,
    HELMS,
    OPERATOR_FILE,
    STAMPS,
    YAML,
    Helm,
    HelmFailed,
    operator_file,
    without_helm,
)

Json = dict[str, Any]
Key = tuple[str, str, str]

COMBINATIONS = sorted((CHART / "ci").glob("*-values.yaml"))
combination = pytest.mark.parametrize("values", COMBINATIONS, ids=lambda path: path.stem.removesuffix("-values"))
OPTIONAL = {"deny-writes.yaml", "entitlements.yaml", "entitlements-limits.yaml", "stamps.yaml"}
CLUSTER_SCOPED = {
    "namespaces",
    "clusterroles",
    "clusterrolebindings",
    "customresourcedefinitions",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
    "identityowners",
    "governancepolicies",
    "selfsubjectaccessreviews",
    "selfsubjectrulesreviews",
    "selfsubjectreviews",
    "subjectaccessreviews",
}


@pytest.fixture(scope="module", params=list(HELMS))
def helm(request: pytest.FixtureRequest) -> Iterator[Helm]:
    with tempfile.TemporaryDirectory() as home:
        yield Helm(request.param, Path(home))


@pytest.fixture(scope="module")
def newest() -> Iterator[Helm]:
    with tempfile.TemporaryDirectory() as home:
        yield Helm("4", Path(home))


@pytest.fixture(scope="module")
def rendered(newest: Helm) -> Callable[..., dict[Key, Json]]:
    """`rendered(name="value", …)`, and by a file of ci/: documents of the newest Helm by kind, namespace, name."""

    @functools.cache
    def render(values: Path | None, sets: str, kubernetes: str) -> dict[Key, Json]:
        return keyed(newest.render([values] if values else [], json.loads(sets), kubernetes=kubernetes))

    def ask(values: Path | None = None, *, kubernetes: str = "1.36", **sets: Any) -> dict[Key, Json]:
        named = {name.replace("__", "."): value for name, value in sets.items()}
        return render(values, json.dumps(named), kubernetes)

    return ask


def keyed(documents: list[Json]) -> dict[Key, Json]:
    found = {key(document): document for document in documents}
    assert len(found) == len(documents), "two documents of one name"
    return found


def key(document: Json) -> Key:
    return document["kind"], document["metadata"].get("namespace", ""), document["metadata"]["name"]


def deployed(*without: str) -> dict[Key, Json]:
    files = [path for path in (REPOSITORY / "deploy").glob("*.yaml") if path.name not in without]
    files += (REPOSITORY / "crds").glob("*.yaml")
    return keyed([document for path in files for document in yaml.load_all(path.read_text(), YAML) if document])


def of_hooks(document: Json) -> bool:
    return "helm.sh/hook" in document["metadata"].get("annotations", {})


def test_the_default_chart_is_deploy_object_by_object(helm: Helm) -> None:
    """But for the namespace, which Helm makes, and for hooks, which Helm runs."""
    wanted = deployed(*OPTIONAL)
    del wanted["Namespace", "", "tenure-system"]
    found = [without_helm(document) for document in helm.render(kubernetes="1.33") if not of_hooks(document)]
    for document in found:
        if document["kind"] == "CustomResourceDefinition":
            assert document["metadata"].pop("annotations", {}) == {}
    assert keyed(found) == wanted


def test_make_manifests_has_written_what_runs_the_operator() -> None:
    assert OPERATOR_FILE.read_text() == operator_file()
    digest = "sha256:" + "0" * 64
    assert f"image: registry.example.com/tenure@{digest}\n" in operator_file(f"registry.example.com/tenure@{digest}")
    assert "helm" not in operator_file().partition("---")[0].partition("apiVersion")[2].lower()


def test_with_everything_on_it_is_all_of_deploy_but_for_what_was_listed(helm: Helm) -> None:
    wanted = deployed("operator.yaml")
    del wanted["Namespace", "", "tenure-system"]
    sets = {"crds.keep": False, "denyWrites.enabled": True, "entitlements.enabled": True}
    found = keyed(helm.render(sets=sets))
    decisions = found["ValidatingAdmissionPolicy", "", "tenure-own-decisions"]["spec"]["variables"]
    [stamped] = [variable for variable in decisions if variable["name"] == "stamped"]
    assert stamped["expression"] == "true"
    stamped["expression"] = "false"  # as the file has it
    assert {name: found.get(name) for name in wanted} == wanted


@combination
def test_lint_is_content(helm: Helm, values: Path) -> None:
    helm("lint", "--strict", str(CHART), "-n", "tenure-system", "--kube-version", "1.36", "--values", str(values))


@combination
def test_both_helms_render_the_same(newest: Helm, values: Path, tmp_path: Path) -> None:
    assert Helm("3", tmp_path).render([values]) == newest.render([values])


def test_what_is_packaged_is_what_is_rendered(helm: Helm, tmp_path: Path) -> None:
    """The chart's links into deploy/ and crds/ are files in the package."""
    helm("package", str(CHART), "--destination", str(tmp_path))
    [package] = tmp_path.glob("*.tgz")
    assert package.name == f"tenure-{__version__}.tgz"
    assert helm.render(chart=package) == helm.render()


def test_its_versions_are_the_programs() -> None:
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert about["version"] == about["appVersion"] == __version__
    listed = {entry["kind"] for entry in yaml.safe_load(about["annotations"]["artifacthub.io/crds"])}
    assert listed == {kind.kind for kind in KINDS}


# Values ---------------------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[Json, str]] = {
    "a value that is none": ({"enforcment": False}, "enforcment"),
    "a nested value that is none": ({"metrics.servicemonitor": {"enabled": True}}, "servicemonitor"),
    "another type": ({"enforcement": "off"}, "enforcement"),
    "no digest": ({"image.digest": "latest"}, "digest"),
    "a pattern for a namespace": ({"scopedNamespaces": ["team-*"]}, "scopedNamespaces"),
    "a person as a pipeline": ({"deciders": ["alice"]}, "deciders"),
    "what would end the expression": ({"deciders": ["system:serviceaccount:ci:x'] || ['"]}, "deciders"),
    "the operator as a pipeline": ({"deciders": ["system:serviceaccount:tenure-system:tenure"]}, "makes none"),
    "a word for stamps": ({"stamps": "yes"}, "stamps"),
    "a quota on findings": ({"quotas.hard": {"count/identityfindings.tenure.dev": "1"}}, "hard"),
    "runbooks nowhere": ({"metrics.rules.runbookURL": "runbooks"}, "runbookURL"),
    "what would end the annotation": ({"metrics.rules.runbookURL": "https://x/\n  evil: /"}, "runbookURL"),
    "bindings where little is seen": (
        {"scopedNamespaces": ["shop"], "entitlements.enabled": True},
        "entitlements.enabled needs rights on every binding",
    ),
    "two monitors": (
        {"metrics.serviceMonitor.enabled": True, "metrics.podMonitor.enabled": True},
        "scrape the same Pod twice",
    ),
    "a label that the operator is found by": ({"podLabels": {"app.kubernetes.io/component": "web"}}, "podLabels"),
    "a registry with a slash too many": ({"image.registry": "registry.example.com/"}, "registry"),
    "a repository in capitals": ({"image.repository": "Tenure"}, "repository"),
    "two priority classes": (
        {"priorityClass.create": True, "priorityClass.name": "system-cluster-critical"},
        "priorityClass: create makes one",
    ),
    "a test where nobody looks": (
        {"scopedNamespaces": ["shop"], "test.namespace": "default"},
        "test.namespace: the operator observes shop alone",
    ),
    "a test where nobody is asked to own anything": ({"test.namespace": "tenure-system"}, "is the platform's"),
    "and another": ({"test.namespace": "kube-system"}, "is the platform's"),
    "and one of theirs": ({"test.namespace": "ingress", "platformNamespaces": ["ingress"]}, "is the platform's"),
    "a monitor of no Service": (
        {"metrics.serviceMonitor.enabled": True, "metrics.service.enabled": False},
        "needs metrics.service.enabled",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_values_that_cannot_work_are_refused(helm: Helm, name: str) -> None:
    sets, said = REFUSED[name]
    with pytest.raises(HelmFailed, match=re.escape(said)):
        helm.render(sets=sets)


@pytest.mark.parametrize("namespace", ["default", "kube-system", "kube-tenure"])
def test_a_namespace_in_which_nothing_could_be_proven_is_refused(helm: Helm, namespace: str) -> None:
    with pytest.raises(HelmFailed, match="Add -n tenure-system --create-namespace"):
        helm.render(namespace=namespace)
    with pytest.raises(HelmFailed, match="security is the operator's own namespace"):
        helm.render(namespace="security", sets={"platformNamespaces": ["ingress", "security"]})
    with pytest.raises(HelmFailed, match="makes none"):
        helm.render(namespace="security", sets={"deciders": ["system:serviceaccount:security:tenure"]})


@combination
def test_in_another_namespace_it_is_the_same_under_that_name(helm: Helm, values: Path) -> None:
    """Expressions, references, rights, hooks, settings: everywhere, and nowhere the other name."""
    there = json.dumps(helm.render([values], namespace="elsewhere-9"))
    assert "tenure-system" not in there
    here = helm.render([values])
    assert json.loads(there.replace("elsewhere-9", "tenure-system")) == here
    own = "ValidatingAdmissionPolicy/tenure-own-kinds"
    policies = {f"{one['kind']}/{one['metadata']['name']}": one["spec"] for one in json.loads(there) if "spec" in one}
    platform = yaml.safe_load(values.read_text()) or {}
    for name, wanted in shipped("elsewhere-9").items():
        if name in policies:
            assert is_as_shipped(but_for(platform.get("platformNamespaces", ()), policies[name]), wanted), name
    assert not is_as_shipped(policies[own], shipped()[own])


def test_every_value_has_a_place_in_the_schema_and_a_comment() -> None:
    text = (CHART / "values.yaml").read_text()
    schema = json.loads((CHART / "values.schema.json").read_text())

    def compare(values: Json, said: Json, path: str) -> None:
        if said.get("additionalProperties") is not False or "properties" not in said:
            return  # a map of the user's
        assert values.keys() == said["properties"].keys(), path
        for name, value in values.items():
            if isinstance(value, dict):
                compare(value, said["properties"][name], f"{path}.{name}")

    compare(yaml.safe_load(text), schema, "")
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if re.match(r"[a-zA-Z]+:", line):  # of a group of several that belong together, the first
            above = number
            while above and re.match(r"[a-zA-Z]+:", lines[above - 1]):
                above -= 1
            inside = number + 1 < len(lines) and lines[number + 1].lstrip().startswith("#")
            assert lines[above - 1].startswith("#") or inside, line


# What it means --------------------------------------------------------------------------------------------------------


def operator_of(found: dict[Key, Json]) -> Json:
    spec: Json = found["Deployment", "tenure-system", "tenure"]["spec"]["template"]["spec"]
    return spec


@combination
def test_pods_are_as_restricted_as_can_be(rendered: Callable[..., dict[Key, Json]], values: Path) -> None:
    pods = {name: document["spec"] for name, document in rendered(values).items() if name[0] in ("Deployment", "Job")}
    assert len(pods) == (1 if values.stem == "gitops-values" else 3)
    for spec in (document["template"]["spec"] for document in pods.values()):
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] > 10_000
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        [container] = spec["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]
        assert "command" not in container


def test_one_operator_and_never_two(rendered: Callable[..., dict[Key, Json]]) -> None:
    spec = rendered()["Deployment", "tenure-system", "tenure"]["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_a_digest_wins_over_a_tag(rendered: Callable[..., dict[Key, Json]]) -> None:
    def image(**sets: Any) -> str:
        return str(operator_of(rendered(**sets))["containers"][0]["image"])

    digest = "sha256:" + "0" * 64
    assert image() == f"tenure:{__version__}"
    assert image(image__registry="r.example", image__tag="9") == "r.example/tenure:9"
    assert image(image__registry="r.example", image__tag="9", image__digest=digest) == f"r.example/tenure@{digest}"


def test_stamps_only_where_they_are_served(rendered: Callable[..., dict[Key, Json]]) -> None:
    def stamped(**options: Any) -> tuple[int, str]:
        found = rendered(**options)
        variables = found["ValidatingAdmissionPolicy", "", "tenure-own-decisions"]["spec"]["variables"]
        [said] = [variable["expression"] for variable in variables if variable["name"] == "stamped"]
        return sum(name[0] == "MutatingAdmissionPolicy" for name in found), said

    assert stamped(kubernetes="1.36") == (2, "true")
    assert stamped(kubernetes="1.33") == (0, "false")
    assert stamped(kubernetes="1.33", stamps="Always") == (2, "true")
    assert stamped(kubernetes="1.36", stamps="Never") == (0, "false")
    assert "MutatingAdmissionPolicy" in STAMPS


def test_pipelines_are_listed_where_the_expressions_read_them(rendered: Callable[..., dict[Key, Json]]) -> None:
    listed = ["system:serviceaccount:ci:a", "system:serviceaccount:ci:b"]
    policy = rendered(deciders=listed)["ValidatingAdmissionPolicy", "", "tenure-own-decisions"]
    assert policy["metadata"]["annotations"]["tenure.dev/deciders"] == ",".join(listed)
    [said] = [entry["expression"] for entry in policy["spec"]["variables"] if entry["name"] == "deciders"]
    assert said == f"'{','.join(listed)}'.split(',')"


def test_platform_namespaces_are_skipped_by_the_guards(rendered: Callable[..., dict[Key, Json]]) -> None:
    plain, listed = rendered(), rendered(platformNamespaces=["ingress", "on", "123", "kube-system"])
    changed = {name for name in plain if listed[name] != plain[name]}
    guards = {("ValidatingAdmissionPolicy", "", f"tenure-guard-{what}") for what in ("pods", "tokens", "secrets")}
    assert changed - {("Deployment", "tenure-system", "tenure")} == guards
    for name in guards:
        [one] = listed[name]["spec"]["matchConstraints"]["namespaceSelector"]["matchExpressions"]
        assert one["values"] == ["kube-system", "kube-public", "kube-node-lease", "ingress", "on", "123"]
        wanted, found = plain[name]["spec"], listed[name]["spec"]
        assert is_as_shipped(but_for(["ingress", "on", "123", "kube-system"], found), wanted)
        assert not is_as_shipped(but_for(["ingress"], found), wanted), "a namespace that the operator knows nothing of"
        assert is_as_shipped(but_for(["ingress"], wanted), wanted), "as `make install` has it"


@pytest.mark.parametrize(
    ("sets", "where"),
    [
        ({}, "default"),
        ({"scopedNamespaces": ["ingress", "shop"], "platformNamespaces": ["ingress"]}, "shop"),
        ({"test__namespace": "canary"}, "canary"),
        ({"test__enabled": False, "scopedNamespaces": ["kube-system"]}, None),
    ],
)
def test_the_test_is_where_the_operator_looks(
    rendered: Callable[..., dict[Key, Json]], sets: dict[str, Any], where: str | None
) -> None:
    found = rendered(**sets)
    if where is None:
        assert not [name for name in found if name[2] == "tenure-test"]
        return
    assert ("Role", where, "tenure-test") in found
    assert ("RoleBinding", where, "tenure-test") in found
    [container] = found["Job", "tenure-system", "tenure-test"]["spec"]["template"]["spec"]["containers"]
    assert container["args"][:3] == ["check", "--namespace", where]


def test_names_that_yaml_reads_as_something_else_stay_names(rendered: Callable[..., dict[Key, Json]]) -> None:
    names = {
        "scopedNamespaces": ["123", "on"],
        "metrics__tls__secretName": "0x1",
        "metrics__podMonitor__enabled": True,
        "priorityClass__name": "1e3",
        "quotas__namespaces": ["no"],
        "test__namespace": "123",
    }
    found = rendered(**names)
    for namespace in ("123", "on"):
        assert ("RoleBinding", namespace, "tenure-scoped") in found
    assert ("RoleBinding", "123", "tenure-test") in found
    assert ("ResourceQuota", "no", "tenure") in found
    pod = operator_of(found)
    assert pod["priorityClassName"] == "1e3"
    assert pod["volumes"][0]["secret"]["secretName"] == "0x1"


def test_notes_tell_what_is_so(newest: Helm) -> None:
    """Each line only where it holds, and a command as it can be typed."""

    def notes(**sets: Any) -> str:
        arguments = [f"--set-json={name.replace('__', '.')}={json.dumps(value)}" for name, value in sets.items()]
        command = ("install", "tenure", str(CHART), "-n", "security", "--dry-run=client")
        return newest(*command, *arguments).partition("NOTES:")[2]

    plain = notes()
    assert "helm test tenure -n security" in plain
    assert 'tenure release --all --reason "…"' in plain
    assert "the CRDs and all that people wrote stay" in plain
    assert "helm test" not in notes(test__enabled=False)
    alone = notes(crds__keep=False)
    assert "deletes every claim" in alone
    assert "with all that people wrote" in alone
    theirs = notes(crds__keep=False, crds__enabled=False)  # of another release
    assert "deletes every claim" not in theirs
    assert "the CRDs and all that people wrote stay" in theirs
    assert "observes shop, and acts" in notes(scopedNamespaces=["shop"])


def test_settings_reach_the_operator(rendered: Callable[..., dict[Key, Json]]) -> None:
    found = rendered(enforcement=False, scopedNamespaces=["shop"], platformNamespaces=["ingress", "monitoring"])
    given = {entry["name"]: entry["value"] for entry in operator_of(found)["containers"][0]["env"]}
    assert given["TENURE_ENFORCEMENT"] == "off"
    assert given["TENURE_NAMESPACES"] == "shop"
    assert given["TENURE_PLATFORM_NAMESPACES"] == "ingress,monitoring"


def rules_of(document: Json) -> set[tuple[str, str]]:
    return {
        (verb, resource.partition("/")[0])
        for rule in document["rules"]
        for resource in rule.get("resources", ())
        for verb in rule["verbs"]
    }


def test_scoped_rights_are_roles_in_those_namespaces(rendered: Callable[..., dict[Key, Json]]) -> None:
    """The whole cluster's: what has no namespace, and nothing else. In each namespace, and at home: all the rest."""
    whole, scoped = rendered(), rendered(scopedNamespaces=["shop", "payments"])
    everywhere = rules_of(whole["ClusterRole", "", "tenure"])
    wide = rules_of(scoped["ClusterRole", "", "tenure"])
    assert {resource for _, resource in wide} <= CLUSTER_SCOPED
    for namespace in ("shop", "payments", "tenure-system"):
        narrow = rules_of(scoped["Role", namespace, "tenure-scoped"])
        assert not {resource for _, resource in narrow} & CLUSTER_SCOPED
        assert wide | narrow == everywhere
        assert scoped["RoleBinding", namespace, "tenure-scoped"]["subjects"][0]["namespace"] == "tenure-system"
    needed_wide = {(right.verb, right.resource.plural) for right in needed() if not right.resource.namespaced}
    assert needed_wide <= wide | {("create", "selfsubjectaccessreviews")}


@combination
def test_rights_are_written_out_and_nothing_but_reading_reaches_view(
    rendered: Callable[..., dict[Key, Json]], values: Path
) -> None:
    for (kind, _, name), document in rendered(values).items():
        if kind not in ("ClusterRole", "Role"):
            continue
        assert "*" not in str(
            [rule.get("verbs") for rule in document["rules"]] + [r.get("resources") for r in document["rules"]]
        )
        if "rbac.authorization.k8s.io/aggregate-to-view" in document["metadata"]["labels"]:
            assert name == "tenure-view"
            assert {verb for verb, _ in rules_of(document)} == {"get", "list", "watch"}
        if any(label.startswith("rbac.authorization.k8s.io/") for label in document["metadata"]["labels"]):
            assert not {verb for verb, _ in rules_of(document)} & {
                "approve",
                "reject",
                "attest",
                "release",
                "quarantine",
            }


def test_what_is_off_by_default_comes_with_its_switch(rendered: Callable[..., dict[Key, Json]]) -> None:
    everything = next(path for path in COMBINATIONS if path.stem == "everything-values")
    new = {name[0] for name in rendered(everything)} - {name[0] for name in rendered()}
    assert new >= {"PriorityClass", "NetworkPolicy", "FlowSchema", "ResourceQuota", "ServiceMonitor"}
    assert operator_of(rendered(everything))["priorityClassName"] == "tenure"
    assert ("certificates") in str(rendered(everything)["ClusterRole", "", "tenure"]["rules"])


def test_scrapes_keep_our_labels(rendered: Callable[..., dict[Key, Json]]) -> None:
    service = rendered(metrics__serviceMonitor={"enabled": True, "labels": {"release": "kps"}, "interval": "1m"})
    monitor = service["ServiceMonitor", "tenure-system", "tenure"]
    assert monitor["metadata"]["labels"]["release"] == "kps"
    assert monitor["spec"]["endpoints"] == [{"port": "metrics", "interval": "1m", "honorLabels": True}]
    pod = rendered(metrics__podMonitor__enabled=True)["PodMonitor", "tenure-system", "tenure"]
    assert pod["spec"]["podMetricsEndpoints"][0]["honorLabels"] is True


def test_metrics_over_tls(rendered: Callable[..., dict[Key, Json]]) -> None:
    def container(found: dict[Key, Json]) -> Json:
        made: Json = operator_of(found)["containers"][0]
        return made

    plain = rendered()
    assert "volumes" not in operator_of(plain)
    assert "scheme" not in str([container(plain)[probe] for probe in ("livenessProbe", "readinessProbe")])
    found = rendered(metrics__tls__secretName="own", metrics__serviceMonitor__enabled=True)
    given = {entry["name"]: entry["value"] for entry in container(found)["env"]}
    [mount] = container(found)["volumeMounts"]
    [volume] = operator_of(found)["volumes"]
    assert volume == {"name": mount["name"], "secret": {"secretName": "own", "defaultMode": 0o440}}
    assert mount["readOnly"] is True
    assert given["TENURE_METRICS_CERTIFICATE"] == f"{mount['mountPath']}/tls.crt"
    assert given["TENURE_METRICS_KEY"] == f"{mount['mountPath']}/tls.key"
    for probe in ("livenessProbe", "readinessProbe"):
        assert container(found)[probe]["httpGet"]["scheme"] == "HTTPS"
    [endpoint] = found["ServiceMonitor", "tenure-system", "tenure"]["spec"]["endpoints"]
    assert endpoint["scheme"] == "https"
    assert endpoint["tlsConfig"] == {
        "serverName": "tenure.tenure-system.svc",
        "ca": {"secret": {"name": "own", "key": "ca.crt"}},
    }
    mine = {"insecureSkipVerify": True}
    pods = rendered(metrics__tls={"secretName": "own", "clientConfig": mine}, metrics__podMonitor__enabled=True)[
        "PodMonitor", "tenure-system", "tenure"
    ]["spec"]["podMetricsEndpoints"]
    assert [(one["scheme"], one["tlsConfig"]) for one in pods] == [("https", mine)]


def test_rules_and_dashboards_ship_as_they_are(rendered: Callable[..., dict[Key, Json]]) -> None:
    found = rendered(metrics__rules__enabled=True, metrics__dashboards__enabled=True)
    files = CHART / "files"
    specs = [document["spec"] for name, document in found.items() if name[0] == "PrometheusRule"]
    raw = [yaml.safe_load(path.read_text()) for place in ("rules", "alerts") for path in (files / place).glob("*.yaml")]
    assert sorted(map(str, specs)) == sorted(map(str, raw))
    mine = "https://git.example.com/tenure/blob/main/docs/runbooks/"
    elsewhere = rendered(metrics__rules={"enabled": True, "runbookURL": mine})
    texts = [str(document["spec"]) for name, document in elsewhere.items() if name[0] == "PrometheusRule"]
    assert sorted(text.replace(mine, "docs/runbooks/") for text in texts) == sorted(map(str, raw))
    assert sum(text.count(mine) for text in texts) == str(raw).count("docs/runbooks/") > 15
    boards = {}
    for name, document in found.items():
        if name[0] == "ConfigMap":
            boards |= document["data"]
    assert boards == {path.name: path.read_text() for path in (files / "dashboards").glob("*.json")}


def test_the_hook_may_take_off_our_policies_and_no_other(rendered: Callable[..., dict[Key, Json]]) -> None:
    found = rendered()
    role = found["ClusterRole", "", "tenure-uninstall"]
    policies = {
        document["metadata"]["name"]
        for path in (REPOSITORY / "deploy").glob("*.yaml")
        for document in yaml.load_all(path.read_text(), YAML)
        if document and document["kind"].endswith("AdmissionPolicy")
    }
    [named] = [rule for rule in role["rules"] if "validatingadmissionpolicies" in rule["resources"]]
    assert set(named["resourceNames"]) == policies
    assert named["verbs"] == ["delete"]
    arguments = found["Job", "tenure-system", "tenure-uninstall"]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert set(arguments[arguments.index("--policies") + 1].split(",")) == policies


def test_crds_are_kept_unless_told_otherwise(rendered: Callable[..., dict[Key, Json]]) -> None:
    def policies(**sets: Any) -> list[str | None]:
        found = [document for name, document in rendered(**sets).items() if name[0] == "CustomResourceDefinition"]
        return [document["metadata"].get("annotations", {}).get("helm.sh/resource-policy") for document in found]

    assert policies() == ["keep"] * len(KINDS)
    assert policies(crds__keep=False) == [None] * len(KINDS)
    assert policies(crds__enabled=False) == []
