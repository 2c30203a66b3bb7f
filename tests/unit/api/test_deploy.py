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
    DECISIONS_NAME,
    FINALIZER,
    GROUP,
    GUARD_NAME,
    OPERATOR_NAMESPACE,
    PROOF_ACCOUNT,
    STATE_CONFIG_MAP,
    operator_user,
)

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"
OPERATOR_USER = operator_user(OPERATOR_NAMESPACE)
OPERATOR_ONLY = {"identityfindings", "quarantineguards", "quarantines"}
PLATFORM = {"kube-system", "kube-public", "kube-node-lease"}

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
STAMPS = of("MutatingAdmissionPolicy")
PARAMETERS = {  # of the policies that have any: kind and reference
    "tenure-claim-namespaces": ("IdentityOwner", {"selector": {}}),
    "tenure-decision-targets": ("QuarantineGuard", {"name": DECISIONS_NAME}),
}
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


GUARDS = {
    "ownedidentities": dict.fromkeys(("CREATE", "UPDATE"), ("tenure-own-claims", "tenure-claim-namespaces")),
    "identityexceptions": dict.fromkeys(("CREATE", "UPDATE"), ("tenure-own-exceptions",)),
    "identitydecisions": {
        "CREATE": ("tenure-own-decisions", "tenure-decision-targets"),
        **dict.fromkeys(("UPDATE", "DELETE"), ("tenure-own-decisions",)),
    },
    "quarantines": dict.fromkeys(("CREATE", "UPDATE", "DELETE"), ("tenure-own-quarantines",)),
    **{
        plural: dict.fromkeys(("CREATE", "UPDATE", "DELETE"), ("tenure-own-kinds",))
        for plural in ("identityfindings", "quarantineguards")
    },
}
"""Which guards hold a kind: what people may write, and in whose name. Owners and policies are their administrator's."""

STAMPED = {
    "identitydecisions": {"CREATE": ("tenure-stamp-decisions",)},
    "identityexceptions": dict.fromkeys(("CREATE", "UPDATE"), ("tenure-stamp-exceptions",)),
}


def test_every_kind_is_either_guarded_or_its_administrators() -> None:
    assert {kind.plural for kind in KINDS} - GUARDS.keys() == {"identityowners", "governancepolicies"}


@pytest.mark.parametrize("operation", ["CREATE", "UPDATE", "DELETE"])
@pytest.mark.parametrize(("plural", "version", "status"), served(), ids=lambda value: str(value))
def test_every_version_of_our_kinds_is_covered(plural: str, version: str, status: bool, operation: str) -> None:
    fail_closed = [policy for policy in POLICIES.values() if policy["spec"]["failurePolicy"] == "Fail"]
    if plural in OPERATOR_ONLY:
        assert any(covers(policy, plural, version, operation) for policy in fail_closed)
    for name in GUARDS.get(plural, {}).get(operation, ()):
        assert POLICIES[name] in fail_closed
        assert covers(POLICIES[name], plural, version, operation)
    for name in STAMPED.get(plural, {}).get(operation, ()):
        assert covers(STAMPS[name], plural, version, operation)
    if status:
        assert any(covers(policy, f"{plural}/status", version, operation) for policy in fail_closed)


def test_a_version_that_comes_later_is_covered_too() -> None:
    for plural, operations in GUARDS.items():
        for operation, names in operations.items():
            assert all(covers(POLICIES[name], plural, "v1", operation) for name in names)
    for plural, operations in STAMPED.items():
        for operation, names in operations.items():
            assert all(covers(STAMPS[name], plural, "v1", operation) for name in names)


@every_policy
def test_whoever_has_parameters_fails_closed_on_our_own_kinds_alone(policy: Json) -> None:
    """With a missing CRD such a policy refuses everything it matches, whatever its matchConditions say."""
    ours = all(rule["apiGroups"] == [GROUP] for rule in rules(policy))
    if "paramKind" in policy["spec"] and not ours:
        assert policy["spec"]["failurePolicy"] == "Ignore"
    else:
        assert policy["spec"]["failurePolicy"] == "Fail"
    if "paramKind" in policy["spec"]:
        kind, _ = PARAMETERS.get(policy["metadata"]["name"], ("QuarantineGuard", {}))
        assert policy["spec"]["paramKind"] == {"apiVersion": API_VERSION, "kind": kind}


def of_the_operator_alone(policy: Json) -> bool:
    """Whether it looks at the operator's own requests alone: it ends no namespace and collects nothing."""
    conditions = [condition["expression"] for condition in policy["spec"].get("matchConditions", ())]
    return f"request.userInfo.username == '{OPERATOR_USER}'" in conditions


def of_service_accounts_alone(policy: Json) -> bool:
    """Whether it looks at ServiceAccounts outside the platform alone: none of those ends a namespace or collects."""
    conditions = " ".join(condition["expression"] for condition in policy["spec"].get("matchConditions", ()))
    return all(f"startsWith('system:serviceaccount:{name}')" in conditions for name in ("", "kube-", "tenure-system:"))


@every_policy
def test_no_guard_on_delete_has_parameters(policy: Json) -> None:
    if of_service_accounts_alone(policy):
        assert policy["spec"]["failurePolicy"] == "Ignore"
    elif any("DELETE" in rule["operations"] for rule in rules(policy)):
        assert "paramKind" not in policy["spec"]
        if of_the_operator_alone(policy):
            return
        said = str(policy["spec"]["variables"])
        assert "namespaceObject.metadata.deletionTimestamp" in said
        assert "generic-garbage-collector" in said


@every_policy
def test_guards_with_parameters_never_look_at_ends(policy: Json) -> None:
    if "paramKind" in policy["spec"] and not of_service_accounts_alone(policy):
        assert {operation for rule in rules(policy) for operation in rule["operations"]} <= {"CREATE", "UPDATE"}


@every_policy
def test_guards_on_pods_tokens_and_secrets_skip_the_platform(policy: Json) -> None:
    if (
        not policy["metadata"]["name"].startswith("tenure-guard-")
        or policy["metadata"]["name"] == "tenure-guard-bindings"
    ):
        return
    assert "paramKind" in policy["spec"]
    [expression] = policy["spec"]["matchConstraints"]["namespaceSelector"]["matchExpressions"]
    assert (expression["key"], expression["operator"]) == ("kubernetes.io/metadata.name", "NotIn")
    assert set(expression["values"]) == PLATFORM
    conditions = [condition["expression"] for condition in policy["spec"]["matchConditions"]]
    assert "!request.namespace.startsWith('kube-')" in conditions
    # The operator proves them in its own namespace: on tokens of the one account that is named there, else on itself.
    own = [condition for condition in conditions if condition.startswith("request.namespace != 'tenure-system' ||")]
    assert len(own) == (policy["metadata"]["name"] != "tenure-guard-tokens")
    assert all(f"'{OPERATOR_USER}'" in condition and "&& request.dryRun" in condition for condition in own)


@every_policy
def test_every_policy_is_bound_once_and_denies(policy: Json) -> None:
    name = policy["metadata"]["name"]
    binding = BINDINGS[name]["spec"]
    assert binding["policyName"] == name
    assert binding["validationActions"] == ["Deny"]
    assert "matchResources" not in binding
    if "paramKind" in policy["spec"]:
        # By name: one parameter, whatever stands in the namespace. Claims are rare, and owners few: they are all asked.
        _, reference = PARAMETERS.get(name, ("", {"name": GUARD_NAME}))
        asked = {key: value for key, value in binding["paramRef"].items() if key != "namespace"}
        assert asked == {**reference, "parameterNotFoundAction": "Allow"}
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
        if policy["metadata"]["name"].startswith("tenure-guard-"):
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


@pytest.mark.parametrize("stamp", STAMPS.values(), ids=STAMPS)
def test_a_stamp_fails_closed_and_is_bound_once(stamp: Json) -> None:
    """What is not stamped must not pass for stamped."""
    assert stamp["spec"]["failurePolicy"] == "Fail"
    assert all(rule["apiGroups"] == [GROUP] for rule in rules(stamp))
    binding = of("MutatingAdmissionPolicyBinding")[stamp["metadata"]["name"]]["spec"]
    assert binding == {"policyName": stamp["metadata"]["name"]}
    assert {name for stamped in STAMPED.values() for names in stamped.values() for name in names} == STAMPS.keys()


def test_what_install_renders_is_there_to_be_rendered() -> None:
    """install.sh replaces these lines by sed: as files, they list nobody and compare what is not stamped."""
    guard = POLICIES["tenure-own-decisions"]
    variables = {variable["name"]: variable["expression"] for variable in guard["spec"]["variables"]}
    assert guard["metadata"]["annotations"] == {"tenure.dev/deciders": ""}
    assert variables["deciders"] == "''.split(',')"
    assert variables["stamped"] == "false"


def test_literals_are_the_programs() -> None:
    text = "".join(path.read_text() for path in DEPLOY.glob("*.yaml"))
    users = set(re.findall(r"system:serviceaccount:tenure-system:[\w-]+", text))
    assert users == {OPERATOR_USER, f"system:serviceaccount:{OPERATOR_NAMESPACE}:{PROOF_ACCOUNT}"}
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


AGGREGATED = {"tenure-view": {"view", "edit", "admin"}, "tenure-request": {"edit", "admin"}}
READING = {"get", "list", "watch"}
WRITING = {"create", "update", "patch", "delete"}


def test_the_built_in_roles_read_and_request_and_never_decide() -> None:
    prefix = "rbac.authorization.k8s.io/aggregate-to-"
    found = {
        role["metadata"]["name"]: {
            key.removeprefix(prefix) for key in role["metadata"]["labels"] if key.startswith(prefix)
        }
        for role in of("ClusterRole").values()
    }
    assert {name: into for name, into in found.items() if into} == AGGREGATED
    readable = {kind.plural for kind in KINDS} - {"quarantineguards"}
    assert grants(of("ClusterRole")["tenure-view"]) == {
        (verb, plural, GROUP) for verb in READING for plural in readable
    }
    assert grants(of("ClusterRole")["tenure-request"]) == {
        (verb, plural, GROUP) for verb in WRITING for plural in ("identityexceptions", "ownedidentities")
    }


PARTIES = {
    "tenure-team-member": set(),
    "tenure-owner": {
        ("create", "identitydecisions"),
        ("approve", "identityexceptions"),
        ("reject", "identityexceptions"),
        ("attest", "identityexceptions"),
        ("attest", "ownedidentities"),
        ("release", "quarantines"),
        ("delete", "quarantines"),
    },
    "tenure-security-reviewer": {
        ("create", "identitydecisions"),
        ("approve-security", "identityexceptions"),
        ("reject-security", "identityexceptions"),
        ("consult", "identityexceptions"),
    },
    "tenure-incident-responder": {
        ("create", "identitydecisions"),
        ("force", "identityexceptions"),
        ("quarantine", "identityfindings"),
        ("revoke", "identityfindings"),
        ("release", "quarantines"),
        ("delete", "quarantines"),
    },
    "tenure-auditor": set(),
}
REQUESTERS = {"tenure-team-member", "tenure-owner"}


@pytest.mark.parametrize("name", PARTIES)
def test_the_usual_parties(name: str) -> None:
    roles = of("ClusterRole")
    expected = grants(roles["tenure-view"]) | {(verb, plural, GROUP) for verb, plural in PARTIES[name]}
    if name in REQUESTERS:
        expected |= grants(roles["tenure-request"])
    assert grants(roles[name]) == expected


def test_no_role_names_guards_but_the_operators() -> None:
    assert {name for name, role in of("ClusterRole").items() if "quarantineguards" in str(role["rules"])} == {"tenure"}


def test_what_the_operator_changes() -> None:
    """Everything but reading, by group: of what it only observes a Secret's label alone, and the end of Secrets and
    ServiceAccounts."""
    changing = {grant for grant in grants(of("ClusterRole")["tenure"]) if grant[0] not in ("get", "list", "watch")}
    outside = {
        (verb, resource)
        for verb, resource, group in changing
        if group not in (GROUP, "authorization.k8s.io", "authentication.k8s.io")
    }
    assert outside == {
        ("patch", "secrets"),
        ("delete", "secrets"),
        ("delete", "serviceaccounts"),
        ("create", "events"),
        ("patch", "events"),
    }
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
    assert [rule["resourceNames"] for rule in named] == [[STATE_CONFIG_MAP], [PROOF_ACCOUNT]]
    unnamed = [(rule["resources"], rule["verbs"]) for rule in rules_ if not rule.get("resourceNames")]
    # RBAC cannot bind `create` to a name; of pods the operator makes dry runs alone (tenure-limit-proof).
    assert unnamed == [(["configmaps"], ["create"]), (["pods"], ["create"])]


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
    assert [name for name in numbered if name >= "6"] == ["60-rbac.yaml", "61-parties.yaml"]
    assert "stamps.yaml" not in numbered  # where the API server has them: install.sh asks
    assert [name for name in numbered if name.startswith("5")] == ["50-own-kinds.yaml"]
