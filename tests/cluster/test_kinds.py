"""The kinds on a real API server: bounds, rules and messages of the schemas, columns, names, defaults."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tenure.api.names import Rule
from tests.cluster.tenure_objects import (
    OPERATOR,
    Json,
    claim,
    decision,
    exception,
    finding,
    guard,
    owner,
    policy,
    quarantine,
    thing,
)
from tests.support.cluster import ApiError, Cluster

NS = "default"


def attempt(cluster: Cluster, manifest: Json, **options: Any) -> tuple[int, str]:
    """Creates it as a dry run: the status, and what a refused user reads."""
    path = cluster.path_of(manifest).rpartition("/")[0]
    status, answer = cluster.request("POST", f"{path}?dryRun=All", manifest, **options)
    return status, answer.get("message", "")


ACCEPTED: dict[str, Json] = {
    "an owner with everything": owner(
        "payments",
        displayName="Payments",
        contacts=[{"type": "Email", "value": "a@example.com"}],
        groups=["team-payments"],
        backup="platform",
        escalation=[{"after": "50%", "to": "platform"}, {"after": "100%", "to": "security"}],
        namespaceSelector={"matchExpressions": [{"key": "team", "operator": "Exists"}]},
        suspended=True,
    ),
    "an owner of 63 characters": owner("o" * 63),
    "an owner that says nothing": owner("quiet"),
    "a claim on a namespace": claim(NS),
    "a claim on external accounts alone": claim(NS, subjects={"external": [{"provider": "github", "id": "app/1"}]}),
    "a claim on Secrets by name alone": claim(NS, subjects={"secrets": {"names": ["a"]}}),
    "a claim that expired long ago": claim(NS, expiresAt="2001-01-01T00:00:00Z"),
    "a claim with an offset in its date": claim(NS, expiresAt="2027-01-01T00:00:00+02:00"),
    "an exception by name": exception(NS),
    "an exception by selector": exception(NS, target={"kind": "Secret", "selector": {}}),
    "an exception that ended": exception(NS, expiresAt="2001-01-01T00:00:00Z", reviewBy="2000-01-01T00:00:00Z"),
    "a decision": decision(NS),
    "a decision by a second party": decision(NS, verb="approve-security"),
    "a decision in its own words": decision(NS, verb="force"),
    "a policy that says nothing": policy("empty"),
    "a policy whose zeros mean none": policy(
        "zeros", adoptionGrace="0s", deadlines=[{"stageInterval": "0s", "holdAfterUse": "0s"}]
    ),
    "a policy for every rule": policy("all", deadlines=[{"rules": [rule.value for rule in Rule]}]),
    "a policy that began long ago": policy("past", effectiveFrom="2001-01-01T00:00:00Z"),
    "a policy without approvals, in so many words": policy(
        "free", exceptions={"classes": [{"class": "Migration", "approvals": []}]}
    ),
}


@pytest.mark.parametrize("manifest", ACCEPTED.values(), ids=ACCEPTED)
def test_accepted(installed: Cluster, manifest: Json) -> None:
    status, message = attempt(installed, manifest)
    assert (status, message) == (201, "")


NOT_NEGATIVE = "longer than nothing and not negative"
NOT_BELOW_ZERO = "not negative; 0s says none"

REFUSED: dict[str, tuple[Json, str]] = {
    # Durations.
    "a negative deadline": (policy("p", deadlines=[{"decideWithin": "-1h"}]), NOT_NEGATIVE),
    "a deadline of zero": (policy("p", deadlines=[{"decideWithin": "0s"}]), NOT_NEGATIVE),
    "a deadline of zero days": (policy("p", deadlines=[{"decideWithin": "0d"}]), NOT_NEGATIVE),
    "revoking after zero": (policy("p", deadlines=[{"revokeAfter": "0s"}]), NOT_NEGATIVE),
    "a negative grace": (policy("p", adoptionGrace="-30d"), NOT_BELOW_ZERO),
    "a negative interval": (policy("p", deadlines=[{"stageInterval": "-5m"}]), NOT_BELOW_ZERO),
    "a negative hold": (policy("p", deadlines=[{"holdAfterUse": "-5m"}]), NOT_BELOW_ZERO),
    "a window of zero": (policy("p", blastRadius={"window": "0s"}), NOT_NEGATIVE),
    "an age of zero": (policy("p", credentials={"maxAge": "0s"}), NOT_NEGATIVE),
    "a retention of zero": (policy("p", retention={"resolved": "0s"}), NOT_NEGATIVE),
    "a veto of zero": (
        policy(
            "p", exceptions={"classes": [{"class": "Migration", "veto": {"verb": "reject-security", "within": "0s"}}]}
        ),
        NOT_NEGATIVE,
    ),
    "a longest exception of zero": (
        policy("p", exceptions={"classes": [{"class": "Migration", "maxDuration": "0h"}]}),
        NOT_NEGATIVE,
    ),
    "a duration without a unit": (policy("p", adoptionGrace="30"), NOT_BELOW_ZERO),
    "a duration in two units": (policy("p", deadlines=[{"decideWithin": "1h30m"}]), NOT_NEGATIVE),
    "a duration of a thousand years": (policy("p", deadlines=[{"decideWithin": "365000d"}]), NOT_NEGATIVE),
    "a review of zero": (claim(NS, review={"interval": "0s"}), NOT_NEGATIVE),
    "a claim's age of zero": (claim(NS, credentials={"maxAge": "0s"}), NOT_NEGATIVE),
    # Vocabularies.
    "an unknown rule": (policy("p", deadlines=[{"rules": ["Unowend"]}]), 'Unsupported value: "Unowend"'),
    "an unknown rule in an exception": (exception(NS, rules=["*"]), 'Unsupported value: "*"'),
    "no rule": (exception(NS, rules=[]), "should have at least 1 items"),
    "a rule twice": (exception(NS, rules=["Unowned", "Unowned"]), "Duplicate value"),
    "an unknown risk": (policy("p", deadlines=[{"risks": ["Severe"]}]), 'Unsupported value: "Severe"'),
    "an unknown stage": (policy("p", deadlines=[{"stages": ["Delete"]}]), 'Unsupported value: "Delete"'),
    "an unknown action": (policy("p", deadlines=[{"onDeadline": "Delete"}]), 'Unsupported value: "Delete"'),
    "a claim on the platform's class": (claim(NS, **{"class": "Platform"}), 'Unsupported value: "Platform"'),
    "an exception from an exception": (
        exception(NS, target={"kind": "IdentityException", "name": "x"}),
        'Unsupported value: "IdentityException"',
    ),
    "a class of exception twice": (
        policy("p", exceptions={"classes": [{"class": "Migration"}, {"class": "Migration"}]}),
        "Duplicate value",
    ),
    # Owners.
    "an owner of 64 characters": (owner("o" * 64), "at most 63 characters"),
    "an owner as its own backup": (owner("payments", backup="payments"), "cannot be its own backup"),
    "an owner in its own escalation": (
        owner("payments", escalation=[{"after": "50%", "to": "payments"}]),
        "cannot stand in its own escalation",
    ),
    "an escalation after everything": (
        owner("payments", escalation=[{"after": "101%", "to": "b"}]),
        "from 1% to 100%",
    ),
    "a name of 300 characters": (owner("n" * 300), "at most 63 characters"),
    "a claim for an owner of 64 characters": (claim(NS, owner="o" * 64), "may not be more than 63"),
    # Claims.
    "a claim by a name of 300 characters": (claim(NS, "n" * 300), "must be no more than 253"),
    "a claim on a name of 300 characters": (
        claim(NS, subjects={"serviceAccounts": {"names": ["n" * 300]}}),
        "may not be more than 253",
    ),
    "a claim on nothing": (claim(NS, subjects={}), "a claim on nothing"),
    "a claim on no names": (claim(NS, subjects={"serviceAccounts": {"names": []}}), "a claim on nothing"),
    "a claim on empty sets": (
        claim(NS, subjects={"serviceAccounts": {}, "secrets": {}, "external": []}),
        "a claim on nothing",
    ),
    "a claim without subjects": (
        thing("OwnedIdentity", "c", {"owner": "p", "purpose": "x"}, NS),
        "spec.subjects: Required value",
    ),
    "a claim without a purpose": (
        thing("OwnedIdentity", "c", {"owner": "p", "subjects": {"selector": {}}}, NS),
        "spec.purpose: Required value",
    ),
    "a claim without a spec": ({**claim(NS), "spec": None}, "spec: Required value"),
    "a cluster-wide Role": (
        claim(NS, entitlements=[{"roleRef": {"kind": "Role", "name": "r"}, "scope": "Cluster"}]),
        "needs a ClusterRole",
    ),
    "a selector with nothing to be in": (
        claim(NS, subjects={"selector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}),
        "In and NotIn need values",
    ),
    "a selector of no operator": (
        claim(NS, subjects={"selector": {"matchExpressions": [{"key": "a", "operator": "Equals", "values": ["b"]}]}}),
        'Unsupported value: "Equals"',
    ),
    "a date that is none": (claim(NS, expiresAt="next year"), "must be of type date-time"),
    "a date that says never": (claim(NS, expiresAt="9999-12-31T23:59:59Z"), "between the years 1970 and 3000"),
    "a date before all": (claim(NS, expiresAt="0000-01-01T00:00:00Z"), "between the years 1970 and 3000"),
    # Exceptions.
    "an exception of nothing": (exception(NS, target={"kind": "Secret"}), "either name or selector"),
    "an exception of both": (
        exception(NS, target={"kind": "Secret", "name": "a", "selector": {}}),
        "either name or selector",
    ),
    "an exception of a selection's uid": (
        exception(NS, target={"kind": "Secret", "selector": {}, "uid": "u"}),
        "uid goes with name",
    ),
    "an exception without an end": (
        {**exception(NS), "spec": {k: v for k, v in exception(NS)["spec"].items() if k != "expiresAt"}},
        "spec.expiresAt: Required value",
    ),
    # Decisions.
    "a verdict on the wrong kind": (
        decision(NS, verdict="Revoke"),
        "the verdict does not fit the target",
    ),
    "a verb of another verdict": (decision(NS, verb="reject"), "the verb does not fit the verdict"),
    "a verb that only begins alike": (decision(NS, verb="approved"), "the verb does not fit the verdict"),
    "a decision on no generation": (
        decision(NS, target={"kind": "IdentityException", "name": "x", "uid": "u"}),
        "name the target's generation",
    ),
    "a decision on no revision": (
        decision(NS, verdict="Revoke", target={"kind": "IdentityFinding", "name": "x", "uid": "u"}),
        "name the finding's revision",
    ),
    # Bounds.
    "a purpose of 2,000 characters": (claim(NS, purpose="p" * 2000), "may not be more than 1024"),
    "300 names": (
        claim(NS, subjects={"secrets": {"names": [f"s{n}" for n in range(300)]}}),
        "must have at most 256 items",
    ),
    "a label value of 64 characters": (
        claim(NS, subjects={"selector": {"matchLabels": {"a": "b" * 64}}}),
        "may not be more than 63",
    ),
    "a label key of 400 characters": (
        claim(NS, subjects={"selector": {"matchLabels": {"a" * 400: "b"}}}),
        "a label key has 1 to 317 characters",
    ),
    "100 deadlines": (policy("p", deadlines=[{}] * 100), "must have at most 64 items"),
    "more than all of a namespace": (
        policy("p", blastRadius={"maxPercentPerNamespace": 101}),
        "less than or equal to 100",
    ),
    "a blast radius of nothing": (policy("p", blastRadius={"maxActions": 0}), "greater than or equal to 1"),
}


@pytest.mark.parametrize(("manifest", "why"), REFUSED.values(), ids=REFUSED)
def test_refused_with_a_reason(installed: Cluster, manifest: Json, why: str) -> None:
    status, message = attempt(installed, manifest)
    assert (status, why in message) == (422, True), message


@pytest.mark.parametrize(
    ("manifest", "why"),
    [
        (quarantine(NS, stageInterval="-1s"), NOT_BELOW_ZERO),
        (quarantine(NS, verdict="Approve"), 'Unsupported value: "Approve"'),
        (finding(NS, rule="Unowend"), 'Unsupported value: "Unowend"'),
        (guard(NS, secrets={"s": {"quarantine": ""}}), "at least 3 chars long"),
    ],
)
def test_what_the_operator_writes_is_checked_too(installed: Cluster, manifest: Json, why: str) -> None:
    status, message = attempt(installed, manifest, user=OPERATOR)
    assert (status, why in message) == (422, True), message


def test_the_longest_guard_is_accepted(installed: Cluster, namespace: str) -> None:
    """8,000 entries in every map would outgrow etcd; 8,000 in one is what a namespace can have."""
    entries = {f"account-{n:05}": {"quarantine": f"{namespace}/q-{n:05}", "owner": "p"} for n in range(8000)}
    installed.create(guard(namespace, serviceAccounts=entries), user=OPERATOR, timeout=60)
    too_many = {**entries, "one-more": {"quarantine": "a/b"}}
    status, message = attempt(installed, guard(namespace, serviceAccounts=too_many), user=OPERATOR)
    assert (status, "must have at most 8000 items" in message) == (422, True), message


@pytest.mark.parametrize(
    ("manifest", "field"),
    [
        (claim(NS, subejcts={}), "spec.subejcts"),
        (owner("o", bakcup="b"), "spec.bakcup"),
        (policy("p", deadlines=[{"decideWithn": "1h"}]), "spec.deadlines[0].decideWithn"),
        (exception(NS, target={"kind": "Secret", "name": "a", "namespace": "b"}), "spec.target.namespace"),
    ],
)
def test_kubectl_names_an_unknown_field(installed: Cluster, manifest: Json, field: str) -> None:
    answer = installed.kubectl("create", "--dry-run=server", "-f", "-", input=manifest, check=False)
    assert answer.returncode == 1
    assert f'unknown field "{field}"' in answer.stderr


def test_an_unknown_field_is_pruned_where_the_client_does_not_ask(installed: Cluster, namespace: str) -> None:
    stored = installed.create(claim(namespace, colour="red"))
    assert "colour" not in stored["spec"]


def test_a_quarter_of_a_megabyte_of_annotations(installed: Cluster, namespace: str) -> None:
    """Below the API server's own limit it is stored, and all goes on working; above it the API server says so."""
    big = claim(namespace, "big")
    big["metadata"]["annotations"] = {"example.com/notes": "x" * 250_000}
    assert installed.create(big)["spec"]["owner"] == "payments"
    patched = installed.patch("ownedidentities", "big", {"spec": {"purpose": "another"}}, namespace)
    assert patched["metadata"]["generation"] == 2
    big["metadata"]["annotations"]["example.com/notes"] += "x" * 50_000
    status, message = attempt(installed, {**big, "metadata": {**big["metadata"], "name": "bigger"}})
    assert (status, "may not be more than 262144 bytes" in message) == (422, True), message
    installed.delete("ownedidentities", "big", namespace)


def test_decisions_are_immutable(installed: Cluster, namespace: str) -> None:
    installed.create(decision(namespace))
    for change in ({"verdict": "Reject"}, {"reason": "another"}, {"by": "somebody"}, {"verb": "approve-security"}):
        with pytest.raises(ApiError, match="a decision is immutable"):
            installed.patch("identitydecisions", "decision", {"spec": change}, namespace)
    with pytest.raises(ApiError, match="a decision is never changed, its labels and annotations included"):
        installed.patch("identitydecisions", "decision", {"metadata": {"labels": {"a": "b"}}}, namespace)


AUTHORED: dict[str, Callable[[str], Json]] = {
    "identityowners": lambda ns: owner(f"owner-{ns}"),
    "ownedidentities": claim,
    "identityexceptions": exception,
    "identitydecisions": decision,
    "governancepolicies": lambda ns: policy(f"policy-{ns}"),
}


@pytest.mark.parametrize("resource", AUTHORED)
def test_a_new_object_was_not_observed_yet(installed: Cluster, namespace: str, resource: str) -> None:
    """As kstatus reads it: in progress, until the operator has looked."""
    manifest = AUTHORED[resource](namespace)
    try:
        assert installed.create(manifest)["status"] == {"observedGeneration": -1}
    finally:
        by = {"user": OPERATOR} if resource == "identitydecisions" else {}
        installed.delete(resource, manifest["metadata"]["name"], manifest["metadata"].get("namespace"), **by)


def test_documented_defaults_are_written_into_the_object(installed: Cluster, namespace: str) -> None:
    assert installed.create(claim(namespace))["spec"]["class"] == "Workload"
    path = installed.path("governancepolicies")
    made = installed.rest.expect(
        "POST", f"{path}?dryRun=All", policy("p", credentials={}, blastRadius={}, retention={}, deadlines=[{}])
    )["spec"]
    assert made["adoptionGrace"] == "30d"
    assert made["suspend"] is False
    assert made["credentials"] == {"maxAge": "365d"}
    assert made["blastRadius"] == {"maxActions": 10, "window": "1h", "maxPercentPerNamespace": 20}
    assert made["retention"] == {"resolved": "90d", "decisions": "400d"}
    assert made["deadlines"] == [{}]  # inside lists, defaults would show up as drift


def test_a_finding_stays_below_four_kibibytes_as_stored(installed: Cluster, namespace: str) -> None:
    """With the managedFields of its one writer, who states everything at once."""
    made = finding(namespace, "unowned-3f9c1a7e42d05b86aa41")
    made["metadata"]["labels"] = {f"tenure.dev/{key}": "Unowned" for key in ("rule", "risk", "owner", "class")}
    instant = "2026-12-04T09:12:00.123456Z"
    made["status"] = {
        "subject": "ServiceAccount/ci",
        "phase": "Open",
        "risk": {"level": "High", "reasons": ["r" * 200] * 4},
        "accountable": {"owner": "payments", "since": instant, "step": 1},
        "message": "m" * 200,
        **dict.fromkeys(("observable", "detected", "due", "decided", "enforced", "verified", "opened"), instant),
        "acts": [{"verdict": "Quarantine", "decided": instant, "started": instant, "error": ""}],
        "residual": ["r" * 100] * 2,
        "evidence": [{"source": "metadata", "since": instant}],
        "conditions": [
            {
                "type": "DecisionPending",
                "status": "True",
                "reason": "AwaitingDecision",
                "message": "c" * 200,
                "lastTransitionTime": instant,
            }
        ],
    }
    stored = installed.apply(made, manager="tenure", user=OPERATOR)
    assert len(json.dumps(stored, separators=(",", ":"))) < 4096
    fields = stored["metadata"]["managedFields"][0]["fieldsV1"]
    assert fields["f:status"] == {}
    assert fields["f:spec"] == {}
    del made["status"]["message"]
    assert "message" not in installed.apply(made, manager="tenure", user=OPERATOR)["status"]


def test_get_shows_findings_as_the_contract_does(installed: Cluster, namespace: str) -> None:
    made = finding(namespace, "unowned-3f9c1a7e42d05b86aa41")
    made["status"] = {
        "subject": "ServiceAccount/ci",
        "risk": {"level": "High"},
        "phase": "Open",
        "accountable": {"owner": ""},
        "due": "2026-12-04T09:12:00Z",
    }
    installed.create(made, user=OPERATOR)
    header, row = installed.kubectl(
        "get", "idf", "-A", "--field-selector", f"metadata.namespace={namespace}"
    ).stdout.splitlines()
    assert header.split() == ["NAMESPACE", "NAME", "RULE", "SUBJECT", "RISK", "OWNER", "PHASE", "DUE", "AGE"]
    assert row.split()[:7] == [
        namespace,
        "unowned-3f9c1a7e42d05b86aa41",
        "Unowned",
        "ServiceAccount/ci",
        "High",
        "Open",  # nobody is accountable: an empty column
        "2026-12-04T09:12:00Z",
    ]


def test_selectable_fields(installed: Cluster, namespace: str) -> None:
    installed.create(claim(namespace, "one", owner="payments"))
    installed.create(claim(namespace, "two", owner="platform"))
    path = installed.path("ownedidentities", namespace=namespace)
    items = installed.rest.expect("GET", f"{path}?fieldSelector=spec.owner%3Dplatform")["items"]
    assert [item["metadata"]["name"] for item in items] == ["two"]


def test_short_names_and_the_category(installed: Cluster) -> None:
    answer = installed.kubectl("api-resources", "--api-group=tenure.dev", "--categories=tenure", "--no-headers").stdout
    short = {line.split()[-1]: line.split()[1] for line in answer.splitlines()}
    assert short == {
        "IdentityOwner": "idowner",
        "OwnedIdentity": "owned",
        "IdentityException": "idex",
        "IdentityDecision": "iddec",
        "IdentityFinding": "idf",
        "Quarantine": "quar",
        "QuarantineGuard": "qguard",
        "GovernancePolicy": "govpol",
    }


def test_status_subresources(installed: Cluster) -> None:
    answer = installed.rest.expect("GET", "/apis/tenure.dev/v1alpha1")["resources"]
    served = {entry["name"] for entry in answer}
    for resource in (*AUTHORED, "quarantines"):
        assert f"{resource}/status" in served
    assert "identityfindings/status" not in served
    assert "quarantineguards/status" not in served


def test_conditions_merge_by_type(installed: Cluster, namespace: str) -> None:
    installed.create(claim(namespace))

    def condition(type_: str) -> Json:
        return {
            "type": type_,
            "status": "True",
            "reason": "SpecProcessed",
            "message": "",
            "lastTransitionTime": "2026-12-04T09:12:00Z",
        }

    manifest = {key: claim(namespace)[key] for key in ("apiVersion", "kind", "metadata")}
    for manager, type_ in (("one", "Ready"), ("two", "Conflict")):
        status = {"status": {"conditions": [condition(type_)]}}
        installed.apply({**manifest, **status}, manager=manager, subresource="status", user=OPERATOR)
    stored = installed.get("ownedidentities", "claim", namespace)
    assert stored is not None
    assert {entry["type"] for entry in stored["status"]["conditions"]} == {"Ready", "Conflict"}
    assert stored["metadata"]["generation"] == 1


def test_every_definition_is_structural_and_established(installed: Cluster) -> None:
    for definition in installed.list("customresourcedefinitions"):
        if definition["spec"]["group"] == "tenure.dev":
            conditions = {entry["type"]: entry["status"] for entry in definition["status"]["conditions"]}
            assert conditions["Established"] == "True"
            assert conditions.get("NonStructuralSchema", "False") == "False"
