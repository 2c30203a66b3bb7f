"""What deploy/ says, read as data: which policies may fail closed, what they cover, and the operator's rights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tenure.api import KINDS
from tenure.api.crd import definition
from tenure.api.names import (
    ANNOTATION_REMOVED_SUBJECTS,
    API_VERSION,
    FINALIZER,
    GROUP,
    GUARD_NAME,
    OPERATOR_USER,
    STATE_CONFIG_MAP,
)

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"
OPERATOR_ONLY = {"identityfindings", "quarantineguards", "quarantines"}
PLATFORM = {"kube-system", "kube-public", "kube-node-lease", "tenure-system"}

Json = dict[str, Any]


def documents() -> list[Json]:
    return [
        document
        for path in sorted(DEPLOY.glob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text())
        if document
    ]


def of(kind: str) -> dict[str, Json]:
    return {document["metadata"]["name"]: document for document in documents() if document["kind"] == kind}


WARNINGS = {name: found for name, found in of("ValidatingAdmissionPolicy").items() if name.startswith("tenure-warn-")}
POLICIES = {name: found for name, found in of("ValidatingAdmissionPolicy").items() if name not in WARNINGS}
BINDINGS = of("ValidatingAdmissionPolicyBinding")
every_policy = pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)


def rules(policy: Json) -> list[Json]:
    found: list[Json] = policy["spec"]["matchConstraints"]["resourceRules"]
    return found


def covers(policy: Json, resource: str, version: str, operation: str) -> bool:
    """Whether a rule of the policy matches, as the API server reads `*` and `*/status`."""
    for rule in rules(policy):
        resources = set(rule["resources"])
        named = resource in resources or ("/" in resource and f"*/{resource.partition('/')[2]}" in resources)
        if (
            GROUP in rule["apiGroups"]
            and ({version, "*"} & set(rule["apiVersions"]))
            and operation in rule["operations"]
            and named
        ):
            return True
    return False


def served() -> list[tuple[str, str, bool]]:
    """(plural, version, has a status subresource) of everything that crds/ serves."""
    return [
        (made["spec"]["names"]["plural"], version["name"], "status" in version.get("subresources", {}))
        for made in map(definition, KINDS)
        for version in made["spec"]["versions"]
        if version["served"]
    ]


@pytest.mark.parametrize("operation", ["CREATE", "UPDATE", "DELETE"])
@pytest.mark.parametrize(("plural", "version", "status"), served(), ids=lambda value: str(value))
def test_every_version_of_our_kinds_is_covered(plural: str, version: str, status: bool, operation: str) -> None:
    fail_closed = [policy for policy in POLICIES.values() if policy["spec"]["failurePolicy"] == "Fail"]
    if plural in OPERATOR_ONLY:
        assert any(covers(policy, plural, version, operation) for policy in fail_closed)
    if plural == "ownedidentities" and operation != "DELETE":
        assert any(covers(policy, plural, version, operation) for policy in fail_closed)
    if status:
        assert any(covers(policy, f"{plural}/status", version, operation) for policy in fail_closed)


def test_a_version_that_comes_later_is_covered_too() -> None:
    for plural in OPERATOR_ONLY:
        assert any(covers(policy, plural, "v1", "UPDATE") for policy in POLICIES.values())


@every_policy
def test_whoever_has_parameters_never_fails_closed(policy: Json) -> None:
    """With a missing CRD such a policy refuses everything it matches, whatever its matchConditions say."""
    if "paramKind" in policy["spec"]:
        assert policy["spec"]["failurePolicy"] == "Ignore"
        assert policy["spec"]["paramKind"] == {"apiVersion": API_VERSION, "kind": "QuarantineGuard"}
    else:
        assert policy["spec"]["failurePolicy"] == "Fail"


@every_policy
def test_no_guard_on_delete_has_parameters(policy: Json) -> None:
    if any("DELETE" in rule["operations"] for rule in rules(policy)):
        assert "paramKind" not in policy["spec"]
        said = str(policy["spec"]["variables"])
        assert "namespaceObject.metadata.deletionTimestamp" in said
        assert "generic-garbage-collector" in said


@every_policy
def test_guards_with_parameters_never_look_at_ends(policy: Json) -> None:
    if "paramKind" in policy["spec"]:
        assert {operation for rule in rules(policy) for operation in rule["operations"]} <= {"CREATE", "UPDATE"}


@every_policy
def test_guards_on_pods_tokens_and_secrets_skip_the_platform(policy: Json) -> None:
    if "paramKind" not in policy["spec"] or policy["metadata"]["name"] == "tenure-guard-bindings":
        return
    [expression] = policy["spec"]["matchConstraints"]["namespaceSelector"]["matchExpressions"]
    assert (expression["key"], expression["operator"]) == ("kubernetes.io/metadata.name", "NotIn")
    assert set(expression["values"]) == PLATFORM
    conditions = [condition["expression"] for condition in policy["spec"]["matchConditions"]]
    assert "!request.namespace.startsWith('kube-')" in conditions


@every_policy
def test_every_policy_is_bound_once_and_denies(policy: Json) -> None:
    name = policy["metadata"]["name"]
    binding = BINDINGS[name]["spec"]
    assert binding["policyName"] == name
    assert binding["validationActions"] == ["Deny"]
    assert "matchResources" not in binding
    if "paramKind" in policy["spec"]:
        assert binding["paramRef"]["name"] == GUARD_NAME  # by name: one parameter, whatever stands in the namespace
        assert binding["paramRef"]["parameterNotFoundAction"] == "Allow"
    else:
        assert "paramRef" not in binding
    assert BINDINGS.keys() == POLICIES.keys() | WARNINGS.keys()


@pytest.mark.parametrize("policy", WARNINGS.values(), ids=WARNINGS)
def test_a_warning_never_refuses(policy: Json) -> None:
    assert policy["spec"]["failurePolicy"] == "Ignore"
    assert BINDINGS[policy["metadata"]["name"]]["spec"]["validationActions"] == ["Warn"]
    assert "paramKind" not in policy["spec"]


@every_policy
def test_every_refusal_has_a_message_and_is_forbidden(policy: Json) -> None:
    for validation in policy["spec"]["validations"]:
        assert validation["message"]
        assert validation["reason"] == "Forbidden"
        if "paramKind" in policy["spec"]:
            said = validation["messageExpression"]
            assert ".quarantine" in said
            assert "contact" in said
            assert "kubectl delete quarantine" in said or "cannot be released" in said


@every_policy
def test_no_expression_asks_the_authorizer_more_than_twice(policy: Json) -> None:
    """Two checks are the cost limit of an expression; a third fails at run time only."""
    for validation in policy["spec"]["validations"]:
        assert validation["expression"].count(".check(") <= 2
        assert "authorizer" not in validation.get("messageExpression", "")


@every_policy
def test_a_variable_uses_only_those_before_it(policy: Json) -> None:
    known: set[str] = set()
    for variable in policy["spec"].get("variables", []):
        assert set(re.findall(r"variables\.(\w+)", variable["expression"])) <= known, variable["name"]
        known.add(variable["name"])


def test_literals_are_the_programs() -> None:
    text = "".join(path.read_text() for path in DEPLOY.glob("*.yaml"))
    users = set(re.findall(r"system:serviceaccount:tenure-system:[\w-]+", text))
    assert users == {OPERATOR_USER}
    assert FINALIZER in text
    assert set(re.findall(r"tenure\.dev/removed[\w-]*", text)) == {ANNOTATION_REMOVED_SUBJECTS}


def test_policies_of_a_group_of_another_project_are_not_ours() -> None:
    for document in documents():
        assert document["metadata"]["labels"]["app.kubernetes.io/part-of"] == "tenure"


def grants(role: Json) -> set[tuple[str, str, str]]:
    return {
        (verb, resource, group)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_rights_are_written_out() -> None:
    for role in (*of("ClusterRole").values(), *of("Role").values()):
        for verb, resource, group in grants(role):
            assert "*" not in verb + resource + group
        assert "aggregationRule" not in role
        assert not any(key.startswith("rbac.authorization.k8s.io/aggregate") for key in role["metadata"]["labels"])


def test_what_the_operator_changes() -> None:
    """Everything but reading, by group: nothing of what it only observes but a Secret's label and a Secret's end."""
    changing = {grant for grant in grants(of("ClusterRole")["tenure"]) if grant[0] not in ("get", "list", "watch")}
    outside = {
        (verb, resource)
        for verb, resource, group in changing
        if group not in (GROUP, "authorization.k8s.io", "authentication.k8s.io")
    }
    assert outside == {("patch", "secrets"), ("delete", "secrets"), ("create", "events"), ("patch", "events")}
    own = {(verb, resource) for verb, resource, group in changing if group == GROUP}
    for kind in KINDS:
        verbs = {verb for verb, resource in own if resource == kind.plural}
        if kind.plural in OPERATOR_ONLY:
            assert {"create", "patch", "delete"} <= verbs
        else:
            # The ledger ends with its retention; nothing else that people write is the operator's to end.
            assert verbs == ({"delete"} if kind.kind == "IdentityDecision" else set())
        if kind.status_subresource:
            assert ("patch", f"{kind.plural}/status") in own
    assert not {verb for verb, _, _ in changing} & {
        "bind",
        "escalate",
        "impersonate",
        "release",
        "claim",
        "deletecollection",
    }


def test_its_state_is_one_config_map() -> None:
    rules_ = of("Role")["tenure"]["rules"]
    named = [rule for rule in rules_ if rule.get("resourceNames")]
    assert [rule["resourceNames"] for rule in named] == [[STATE_CONFIG_MAP]]
    assert [rule["verbs"] for rule in rules_ if not rule.get("resourceNames")] == [["create"]]


def test_the_right_to_bind_is_opt_in() -> None:
    holders = {
        path.name
        for path in DEPLOY.glob("*.yaml")
        for document in yaml.safe_load_all(path.read_text())
        if document and any("bind" in rule["verbs"] for rule in document.get("rules", []))
    }
    assert holders == {"entitlements.yaml"}


def test_numbered_files_come_in_an_order_that_gives_no_right_early() -> None:
    numbered = sorted(path.name for path in DEPLOY.glob("[0-9]*.yaml"))
    assert numbered[0] == "00-namespace.yaml"
    assert numbered[-1] == "60-rbac.yaml"
    assert [name for name in numbered if name.startswith("5")] == ["50-own-kinds.yaml"]
