"""RBAC rules to rows of the risk table."""

from __future__ import annotations

from typing import Any

import pytest

from tenure.inventory.grading import decides, grade

RBAC = "rbac.authorization.k8s.io"


def rule(verbs: str, resources: str, group: str = "", names: str = "") -> dict[str, Any]:
    made: dict[str, Any] = {"apiGroups": group.split(","), "resources": resources.split(","), "verbs": verbs.split(",")}
    if names:
        made["resourceNames"] = names.split(",")
    return made


def rows(*rules: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {found.row: (found.cluster, found.namespaced) for found in grade(list(rules))}


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        # R01
        ([rule("*", "*", "*")], {"R01": ("Critical", "High"), "R11": ("High", "High")}),
        # R02
        ([rule("escalate", "roles", RBAC)], {"R02": ("Critical", "Critical")}),
        ([rule("escalate", "clusterroles", RBAC)], {"R02": ("Critical", "")}),
        ([rule("*", "roles", RBAC)], {"R02": ("Critical", "Critical"), "R03": ("Critical", "High")}),
        ([rule("escalate", "roles", "")], {}),
        # R03
        ([rule("bind", "clusterroles", RBAC)], {"R03": ("Critical", "High")}),
        ([rule("bind", "roles", RBAC, "viewer")], {"R03": ("Critical", "High")}),
        ([rule("create", "rolebindings", RBAC)], {}),
        # R04
        ([rule("impersonate", "users,groups")], {"R04": ("Critical", "")}),
        ([rule("impersonate", "serviceaccounts")], {"R04": ("Critical", "High")}),
        ([rule("impersonate", "userextras/scopes", "authentication.k8s.io")], {"R04": ("Critical", "")}),
        ([rule("impersonate", "uids", "authentication.k8s.io")], {"R04": ("Critical", "")}),
        # R05
        ([rule("create", "serviceaccounts/token")], {"R05": ("Critical", "High")}),
        ([rule("create", "*/token")], {"R05": ("Critical", "High")}),
        ([rule("create", "serviceaccounts/token", "", "ci")], {"R05": ("Low", "Low")}),
        ([rule("create", "serviceaccounts")], {}),
        ([rule("create", "serviceaccounts/*")], {}),
        # R06
        (
            [rule("create,get", "secrets")],
            {"R06": ("Critical", "High"), "R07": ("Critical", "High")},
        ),
        (
            [rule("create", "secrets"), rule("get", "secrets", "", "mine")],
            {"R06": ("Critical", "High"), "R07": ("Medium", "Medium")},
        ),
        ([rule("create", "secrets")], {}),
        ([rule("create,get", "secrets", "", "mine")], {"R07": ("Medium", "Medium")}),
        # R07
        ([rule("watch", "secrets")], {"R07": ("Critical", "High")}),
        ([rule("list", "secrets", "", "a,b")], {"R07": ("Medium", "Medium")}),
        ([rule("get", "secrets", "", "a"), rule("list", "secrets")], {"R07": ("Critical", "High")}),
        ([rule("get", "secrets", "apps")], {}),
        (
            [rule("get", "*", "")],
            {"R07": ("Critical", "High"), "R12": ("High", "Medium"), "R16": ("High", "Medium")},
        ),
        ([rule("update,patch,delete", "secrets")], {}),
        # R11
        ([rule("create", "pods")], {"R11": ("High", "High")}),
        ([rule("create", "deployments", "apps")], {"R11": ("High", "High")}),
        ([rule("create", "deployments", "extensions")], {}),
        ([rule("*", "*", "batch")], {"R11": ("High", "High")}),
        ([rule("get,list,patch", "pods")], {}),
        ([rule("create", "pods", "", "one")], {}),
        # R12
        ([rule("create", "pods/exec")], {"R12": ("High", "Medium")}),
        ([rule("get", "pods/attach")], {"R12": ("High", "Medium")}),
        ([rule("patch", "pods/ephemeralcontainers", "", "one")], {"R12": ("High", "Medium")}),
        ([rule("create", "*/portforward", "*")], {"R12": ("High", "Medium")}),
        ([rule("create", "pods/eviction,pods/binding")], {}),
        # R15, R16
        ([rule("delete", "*", "*")], {"R15": ("High", "Medium")}),
        ([rule("deletecollection", "*")], {"R15": ("High", "Medium")}),
        ([rule("delete", "*", "apps")], {}),
        ([rule("delete", "pods", "*")], {}),
        (
            [rule("get,list", "*", "*")],
            {"R07": ("Critical", "High"), "R12": ("High", "Medium"), "R16": ("High", "Medium")},
        ),
        ([rule("get,list", "*", "apps")], {}),
        # none
        ([rule("get,list,watch", "configmaps,pods")], {}),
        ([{"nonResourceURLs": ["*"], "verbs": ["*"]}], {}),
    ],
)
def test_rows(rules: list[dict[str, Any]], expected: dict[str, tuple[str, str]]) -> None:
    assert rows(*rules) == expected


@pytest.mark.parametrize("raw", [None, [], "rules", [None], [{}], [{"resources": "secrets", "verbs": ["get"]}]])
def test_no_rules_and_broken_ones_grade_nothing(raw: object) -> None:
    assert grade(raw) == ()


def test_the_words_name_verbs_resources_and_names() -> None:
    words = {found.row: found.what for found in grade([
        rule("get,list", "secrets", "", "a,b,c,d"),
        rule("create", "pods,serviceaccounts/token"),
        rule("bind", "clusterroles", RBAC, "view"),
    ])}  # fmt: skip
    assert words == {
        "R03": "bind clusterroles (view)",
        "R05": "create serviceaccounts/token",
        "R07": "get, list secrets (a, b, c, …)",
        "R11": "create pods",
    }


def test_equal_roles_share_their_grades() -> None:
    first, second = grade([rule("create", "pods")]), grade([rule("create", "pods"), rule("get", "configmaps")])
    assert first is second


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([rule("approve", "identityexceptions", "tenure.dev")], ("approve",)),
        ([rule("get,approve-security,reject", "identityexceptions", "tenure.dev")], ("approve-security", "reject")),
        ([rule("quarantine,revoke", "identityfindings", "tenure.dev")], ("quarantine", "revoke")),
        ([rule("approve", "*", "tenure.dev")], ("approve",)),
        ([rule("release", "quarantines", "*")], ("release",)),
        (
            [rule("attest", "ownedidentities", "tenure.dev"), rule("force", "identityexceptions", "tenure.dev")],
            ("attest", "force"),
        ),
        ([rule("approve", "identityexceptions", "tenure.dev", "only-this")], ("approve",)),
        # The verb * asks nobody to decide, whatever else the role says.
        ([rule("*", "identityexceptions", "tenure.dev")], ()),
        ([rule("*", "*", "*")], ()),
        # Verbs that decide nothing, or nothing about this kind.
        ([rule("consult,consult-legal,claim,get", "identityexceptions,identityowners", "tenure.dev")], ()),
        ([rule("approve", "identityfindings", "tenure.dev")], ()),
        ([rule("approve", "identityexceptions", "example.com")], ()),
        ([rule("approved,force-it", "identityexceptions", "tenure.dev")], ()),
    ],
)
def test_decision_verbs(rules: list[dict[str, Any]], expected: tuple[str, ...]) -> None:
    assert decides(rules) == expected


@pytest.mark.parametrize("raw", [None, [], "rules", [None], [{}]])
def test_no_rules_and_broken_ones_decide_nothing(raw: object) -> None:
    assert decides(raw) == ()


def test_equal_roles_share_their_decision_verbs() -> None:
    one = [rule("reject,approve", "identityexceptions", "tenure.dev")]
    other = [rule("approve", "identityexceptions", "tenure.dev"), rule("reject", "*", "*"), rule("get", "pods")]
    assert decides(one) == ("approve", "reject")
    assert decides(one) is decides(other)
