"""What people get wrong, on a real API server: an answer where they look, nothing lost, nothing enforced by mistake.

What admission and the schemas refuse is in test_kinds.py and test_admission_*.py; here is what gets past them. One
operator governs the session's cluster for most tests; those that change a CRD have a cluster of their own.
"""

from __future__ import annotations

import itertools
import json
import random
import string
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.cluster.tenure_objects import claim, exception, owner, pod, token_secret
from tests.support import scenario
from tests.support.cluster import REPOSITORY, ApiError, Cluster, eventually
from tests.support.operator import Operator
from tests.support.scenario import OFF, deadline, finding_of, phase_of, policy, quarantine_of, switched_off

Json = dict[str, Any]

NOWHERE: Json = {"matchLabels": {"never": "true"}}
BULK = {f"example.com/note-{number}": "x" * 49_900 for number in range(5)}
"""250 kB of annotations, just below what the API server takes."""
LONG = ".".join(["a" * 62, "b" * 62, "c" * 62, "d" * 62, "e"])
"""A name of 253 characters, the longest there is."""


@pytest.fixture(scope="module")
def running(installed: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    with Operator(installed.kubeconfig, directory=tmp_path_factory.mktemp("operator")) as operator:
        yield operator


@pytest.fixture
def governed(installed: Cluster, running: Operator) -> Iterator[Cluster]:
    """The installed cluster under a running operator, which no input may make stumble."""
    begun = len(running.logs())
    yield installed
    running.check()
    assert running.probe() == 200
    said = running.logs()[begun:]
    assert "Traceback" not in said
    assert "could not be judged" not in said


@pytest.fixture
def place(governed: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of this test, labelled with its own name."""
    name = governed.namespace(request.node.name.removeprefix("test_")[:40])
    governed.patch("namespaces", name, {"metadata": {"labels": {"test": name}}})
    yield name
    governed.delete("governancepolicies", name)
    governed.delete_namespace(name)


@pytest.fixture
def named(place: str) -> str:
    """A prefix for owners of this test alone: they are cluster-scoped, and names of owners are short."""
    return "o" + "".join(random.Random(place).choices(string.ascii_lowercase, k=8))


def opened(cluster: Cluster, place: str, rule: str, name: str, phase: str = "Open") -> Json:
    def there() -> Json | None:
        found = finding_of(cluster, place, rule, name)
        return found if found and found["status"]["phase"] == phase else None

    return eventually(there, what=f"{rule} of {name} {phase}")


def conditions(found: Json | None) -> dict[str, Json]:
    """By type those of an object whose present spec was looked at."""
    status = (found or {}).get("status", {})
    if found is None or status.get("observedGeneration") != found["metadata"]["generation"]:
        return {}
    return {c["type"]: c for c in status.get("conditions", ()) if c["status"] == "True"}


def wait_condition(cluster: Cluster, resource: str, name: str, kind: str, namespace: str | None = None) -> Json:
    return eventually(
        lambda: conditions(cluster.get(resource, name, namespace)).get(kind), what=f"{kind} on {resource} {name}"
    )


def opaque(place: str, name: str, **data: str) -> Json:
    metadata = {"name": name, "namespace": place}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data or {"password": "x"}}


def size(found: Json) -> int:
    return len(json.dumps(found))


# --- claims


def test_of_two_claims_the_earlier_counts_until_it_goes(governed: Cluster, place: str, named: str) -> None:
    for name in ("one", "two"):
        governed.create(owner(f"{named}-{name}"))
    scenario.identity(governed, place, "ci", ["ci-token"])
    subjects = {"serviceAccounts": {"names": ["ci"]}}
    governed.create(claim(place, "earlier", f"{named}-one", subjects=subjects))
    wait_condition(governed, "ownedidentities", "earlier", "Ready", place)
    governed.create(claim(place, "later", f"{named}-two", subjects=subjects))
    conflict = wait_condition(governed, "ownedidentities", "later", "Conflict", place)
    assert "earlier" in conflict["message"]
    assert "Conflict" not in conditions(governed.get("ownedidentities", "earlier", place))
    assert {"Ready"} <= conditions(governed.get("ownedidentities", "later", place)).keys(), "processed, not compliant"
    opened(governed, place, "ClaimConflict", "later")
    legacy = opened(governed, place, "LegacyToken", "ci-token")
    assert legacy["status"]["accountable"]["owner"] == f"{named}-one"
    assert phase_of(governed, place, "Unowned", "ci") in ("", "Resolved"), "a conflict opens nothing"

    governed.delete("ownedidentities", "earlier", place)

    def taken_over() -> bool:
        found = finding_of(governed, place, "LegacyToken", "ci-token")
        return found is not None and found["status"]["accountable"]["owner"] == f"{named}-two"

    eventually(taken_over, what="the later claim counts")
    eventually(
        lambda: "Conflict" not in conditions(governed.get("ownedidentities", "later", place)), what="no conflict left"
    )
    opened(governed, place, "ClaimConflict", "later", "Resolved")


@pytest.mark.parametrize(
    ("owners", "reason", "owner_too"),
    [
        ([], "OwnerMissing", False),
        ([("team", {"suspended": True})], "OwnerSuspended", True),
        ([("team", {"backup": "other"}), ("other", {"backup": "team"})], "OwnerCyclic", True),
    ],
    ids=["missing", "suspended", "cyclic"],
)
def test_an_owner_who_is_not_there_makes_its_claim_vacant(
    governed: Cluster, place: str, named: str, owners: list[tuple[str, Json]], reason: str, owner_too: bool
) -> None:
    for name, spec in owners:
        given = {**spec, "backup": f"{named}-{spec['backup']}"} if "backup" in spec else spec
        governed.create(owner(f"{named}-{name}", **given))
    governed.create(scenario.service_account(place, "ci"))
    governed.create(claim(place, owner=f"{named}-team"))
    vacant = wait_condition(governed, "ownedidentities", "claim", "Vacant", place)
    assert vacant["reason"] == reason
    assert f"{named}-team" in vacant["message"]
    found = opened(governed, place, "OwnerVacant", "claim")
    assert found["status"]["onDeadline"] == "Nothing", "what is about a claim enforces nothing"
    if owner_too:
        assert wait_condition(governed, "identityowners", f"{named}-team", "Vacant")["reason"] == reason
    governed.apply(owner(f"{named}-team", suspended=False))
    if reason == "OwnerCyclic":
        governed.delete("identityowners", f"{named}-other")
        governed.patch("identityowners", f"{named}-team", {"spec": {"backup": None}})
    opened(governed, place, "OwnerVacant", "claim", "Resolved")
    eventually(lambda: "Vacant" not in conditions(governed.get("ownedidentities", "claim", place)))


def test_a_claim_on_nothing_yet_says_so_and_counts_when_something_comes(
    governed: Cluster, place: str, named: str
) -> None:
    governed.create(owner(named))
    governed.create(claim(place, owner=named, subjects={"serviceAccounts": {"names": ["later"]}}))
    wait_condition(governed, "ownedidentities", "claim", "Ready", place)
    found = governed.get("ownedidentities", "claim", place)
    assert found is not None
    assert found["status"]["matched"]["serviceAccounts"] == 0
    governed.create(scenario.service_account(place, "later"))

    def counted() -> bool:
        now = governed.get("ownedidentities", "claim", place)
        return bool(now) and now["status"]["matched"]["serviceAccounts"] == 1

    eventually(counted, what="the claim counts one")
    governed.create(scenario.service_account(place, "other"))
    opened(governed, place, "Unowned", "other")
    assert finding_of(governed, place, "Unowned", "later") is None


def test_a_claim_with_a_field_nobody_knows_is_a_claim(governed: Cluster, place: str, named: str) -> None:
    """Without strict validation the API server prunes the field; what is left is processed."""
    governed.create(owner(named))
    governed.create(scenario.service_account(place, "ci"))
    opened(governed, place, "Unowned", "ci")
    governed.create(claim(place, owner=named, colour="red", subjects={"selector": {}, "shape": "round"}))
    opened(governed, place, "Unowned", "ci", "Resolved")


# --- exceptions


def test_an_exception_about_nothing_waives_nothing_that_comes_later(governed: Cluster, place: str) -> None:
    governed.create(
        policy(
            place,
            labels={"test": place},
            exceptions={"classes": [{"class": "Migration", "approvals": []}]},
            enforceIn=NOWHERE,
        )
    )
    soon = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    governed.create(
        exception(
            place, expiresAt=soon, target={"kind": "Secret", "name": "not-there"}, requestedBy=governed.username()
        )
    )

    def answered() -> Json | None:
        found = governed.get("identityexceptions", "exception", place)
        status = (found or {}).get("status", {})
        return status if status.get("observedGeneration") == 1 and status.get("phase") else None

    status = eventually(answered, what="an answer to the exception")
    assert status.get("matched", []) == []
    said = f"{status.get('message', '')} {status.get('failing', '')}"
    assert "0 subject" in said or "nothing" in said, "its author reads that it is about nothing"
    governed.create(scenario.service_account(place, "ci"))
    governed.create(token_secret(place, "not-there", "ci"))
    opened(governed, place, "LegacyToken", "not-there")


# --- names and sizes


def test_a_name_that_is_too_long_is_refused_by_the_api_server(governed: Cluster, place: str) -> None:
    for manifest in (
        scenario.service_account(place, "n" * 300),
        opaque(place, "n" * 300),
        claim(place, "n" * 300),
        owner("n" * 300),
        exception(place, "n" * 300),
    ):
        with pytest.raises(ApiError, match=r"no more than 253|may not be more than 253|must be no more") as refused:
            governed.create(manifest)
        assert refused.value.status == 422


def test_the_longest_names_are_quarantined_refused_and_released(governed: Cluster, place: str, named: str) -> None:
    """Findings and Quarantines of subjects with 253 characters have valid names, and every guard knows them."""
    assert len(LONG) == 253
    token_name = "t" + LONG[1:]
    governed.create(owner(named))
    scenario.govern(governed, policy(place, deadline("Unowned", within="6s"), labels={"test": place}))
    scenario.identity(governed, place, LONG, [token_name])
    value = scenario.token_of(governed, place, token_name)
    assert governed.token_works(value)
    found = opened(governed, place, "Unowned", LONG, "Quarantined")
    assert size(found) < 4096
    assert found["spec"]["subject"]["name"] == LONG
    assert size(opened(governed, place, "LegacyToken", token_name)) < 4096
    quarantine = quarantine_of(governed, place, LONG)
    assert quarantine is not None
    assert len(quarantine["metadata"]["name"]) <= 253
    assert switched_off(governed, place, token_name)
    with pytest.raises(ApiError, match="is quarantined"):
        governed.token(place, LONG)
    with pytest.raises(ApiError, match="is quarantined"):
        governed.create(pod(place, "p", LONG))
    with pytest.raises(ApiError, match="is quarantined"):
        governed.create(token_secret(place, "second", LONG))
    eventually(lambda: not governed.token_works(value), what="401")
    governed.create(claim(place, owner=named, subjects={"serviceAccounts": {"names": [LONG]}}))
    opened(governed, place, "Unowned", LONG, "Resolved")
    eventually(lambda: governed.token_works(value), what="it works again")
    eventually(lambda: quarantine_of(governed, place, LONG) is None, what="the Quarantine is gone")


def test_names_with_dots_are_told_apart(governed: Cluster, place: str) -> None:
    for name in ("a.b", "a-b", "a.b.c"):
        governed.create(scenario.service_account(place, name))
    governed.create(opaque(place, "db.prod.password"))
    names = {opened(governed, place, "Unowned", name)["metadata"]["name"] for name in ("a.b", "a-b", "a.b.c")}
    names.add(opened(governed, place, "Unowned", "db.prod.password")["metadata"]["name"])
    assert len(names) == 4


def test_a_quarter_of_a_megabyte_of_annotations_breaks_nothing(governed: Cluster, place: str, named: str) -> None:
    """On the subject, its token, the claim and the owner; none of it reaches a finding or a Quarantine."""
    governed.create({**owner(named), "metadata": {"name": named, "annotations": BULK}})
    scenario.govern(governed, policy(place, deadline("Unowned", within="2s"), labels={"test": place}))
    governed.create(scenario.service_account(place, "ci", annotations=BULK))
    secret = scenario.token_secret(place, "ci-token", "ci")
    note = dict(list(BULK.items())[1:])  # the API server's own annotations need room
    secret["metadata"]["annotations"] |= note
    governed.create(secret)
    found = opened(governed, place, "Unowned", "ci", "Quarantined")
    legacy = opened(governed, place, "LegacyToken", "ci-token")
    quarantine = quarantine_of(governed, place, "ci")
    assert quarantine is not None
    assert max(size(found), size(legacy), size(quarantine)) < 4096
    assert switched_off(governed, place, "ci-token")
    made = claim(place, owner=named)
    made["metadata"]["annotations"] = BULK
    governed.create(made)
    opened(governed, place, "Unowned", "ci", "Resolved")
    eventually(lambda: not switched_off(governed, place, "ci-token"), what="the token is given back")
    kept = governed.get("secrets", "ci-token", place)
    account = governed.get("serviceaccounts", "ci", place)
    assert kept is not None
    assert account is not None
    assert {k: v for k, v in kept["metadata"]["annotations"].items() if k in BULK} == note
    assert account["metadata"]["annotations"] == BULK
    assert OFF not in kept["metadata"].get("labels", {})


# --- odd objects


def test_helm_releases_raise_nothing_whatever_their_keys_are_called(governed: Cluster, place: str) -> None:
    for number, data in enumerate(({"release": "H4sI"}, {"password": "x"})):
        made = opaque(place, f"sh.helm.release.v1.app.v{number}", **data)
        governed.create({**made, "type": "helm.sh/release.v1"})
    governed.create(opaque(place, "later"))
    opened(governed, place, "Unowned", "later")  # proves that the two before it were looked at
    found = {f["spec"]["subject"]["name"] for f in governed.list("identityfindings", place)}
    assert found == {"later"}


def test_labels_of_every_shape_on_an_identity(governed: Cluster, place: str) -> None:
    labels = {
        "tenure.dev/owner": "nobody-knows-this-team",
        "tenure.dev/rule": "",
        f"{'d' * 60}.example.com/{'n' * 63}": "v" * 63,
        "empty": "",
        "a.b-c_d": "A.b-C_d",
        **{f"l{number}": str(number) for number in range(200)},
    }
    governed.create(scenario.service_account(place, "ci", labels=labels))
    found = opened(governed, place, "Unowned", "ci")
    assert size(found) < 4096
    account = governed.get("serviceaccounts", "ci", place)
    assert account is not None
    assert account["metadata"]["labels"] == labels, "what is observed is never written to"


def test_a_secret_whose_managed_fields_were_wiped_is_as_old_as_itself(governed: Cluster, place: str) -> None:
    scenario.govern(governed, policy(place, labels={"test": place}, credentials={"maxAge": "1s"}, enforceIn=NOWHERE))
    governed.create(opaque(place, "before"))
    token = scenario.token_secret(place, "wiped", "ci")
    governed.create(scenario.service_account(place, "ci"))
    governed.create(token)
    scenario.token_of(governed, place, "wiped")
    governed.patch("secrets", "wiped", {"metadata": {"managedFields": [{}]}}, place)
    stored = governed.get("secrets", "wiped", place)
    assert stored is not None
    assert "managedFields" not in stored["metadata"]
    opened(governed, place, "CredentialTooOld", "wiped")
    opened(governed, place, "LegacyToken", "wiped")
    opened(governed, place, "CredentialTooOld", "before")


def test_a_token_of_an_identity_that_is_not_there_raises_no_alarm_of_ours(governed: Cluster, place: str) -> None:
    """The API server deletes it by and by; until then it is a token without identity, and no defect."""
    governed.create(token_secret(place, "stray", "nobody"))
    governed.create(opaque(place, "later"))
    opened(governed, place, "Unowned", "later")
    eventually(
        lambda: (
            governed.get("secrets", "stray", place) is None
            or finding_of(governed, place, "LegacyToken", "stray") is not None
        ),
        what="it is gone or a finding",
    )


def test_a_policy_that_uses_every_bound(governed: Cluster, place: str) -> None:
    """64 entries that name every rule, risk, class and stage, the longest durations, the largest numbers."""
    schema = governed.get("customresourcedefinitions", "governancepolicies.tenure.dev")
    assert schema is not None
    spec = schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    entry = spec["deadlines"]["items"]["properties"]

    def every(field: str) -> list[str]:
        values: list[str] = entry[field]["items"]["enum"]
        return values

    full: Json = {
        "rules": every("rules"),
        "risks": every("risks"),
        "classes": every("classes"),
        "decideWithin": "3650d",
        "onDeadline": "Revoke",
        "revokeAfter": "3650d",
        "stages": every("stages"),
        "stageInterval": "3650d",
        "holdAfterUse": "3650d",
    }
    assert spec["deadlines"]["maxItems"] == 64
    least: Json = {"rules": ["Unowned"], "risks": ["Low"], "decideWithin": "1s", "holdAfterUse": "0s"}
    governed.create(
        policy(
            place,
            {**least, "onDeadline": "Quarantine", "stages": ["Guard"], "stageInterval": "0s"},
            *[full] * 63,
            labels={"test": place},
            precedence=1_000_000,
            adoptionGrace="0s",
            blastRadius={"maxActions": 1_000_000, "window": "3650d", "maxPercentPerNamespace": 100},
            credentials={"maxAge": "3650d"},
            retention={"resolved": "3650d", "decisions": "3650d"},
            contention={"maxReverts": 1000},
            inventory={"expectedSources": [{"name": f"s{n}", "maxAge": "3650d"} for n in range(32)]},
        )
    )
    wait_condition(governed, "governancepolicies", place, "Ready")
    scenario.identity(governed, place, "ci", ["ci-token"])
    legacy = opened(governed, place, "LegacyToken", "ci-token")
    due = datetime.fromisoformat(legacy["status"]["due"].replace("Z", "+00:00"))
    assert due - datetime.now(UTC) > timedelta(days=3649), "the second entry's"
    assert legacy["status"]["onDeadline"] == "Revoke"
    opened(governed, place, "Unowned", "ci", "Quarantined")
    quarantine = quarantine_of(governed, place, "ci")
    assert quarantine is not None
    assert quarantine["spec"]["stages"] == ["Guard"], "the first entry's"
    assert not switched_off(governed, place, "ci-token")


# --- CRDs of another version


Change = Callable[[Json], None]


def alter(cluster: Cluster, plural: str, change: Change) -> None:
    """Changes a CRD's schema as another version of Tenure would have it."""
    stored = cluster.get("customresourcedefinitions", f"{plural}.tenure.dev")
    assert stored is not None
    version = stored["spec"]["versions"][0]
    version.pop("selectableFields", None)
    change(version["schema"]["openAPIV3Schema"])
    cluster.patch("customresourcedefinitions", f"{plural}.tenure.dev", {"spec": {"versions": [version]}})


def wait_served(cluster: Cluster, found: Json, plural: str, changed: Callable[[Json], bool]) -> None:
    """Until the API server shows the object as the altered schema has it."""
    name, namespace = found["metadata"]["name"], found["metadata"].get("namespace")

    def shown() -> bool:
        now = cluster.get(plural, name, namespace)
        return now is not None and changed(now["spec"])

    eventually(shown, what=f"{plural} {name} of another version")


def put_back(cluster: Cluster, *names: str) -> None:
    files = [f"--filename={REPOSITORY / 'crds' / f'{name}.tenure.dev.yaml'}" for name in names]
    cluster.kubectl("apply", "--server-side", "--force-conflicts", *files)


def unknown_field(schema: Json) -> None:
    """A newer version: every object has a field that this operator does not know."""
    schema["properties"]["spec"]["properties"]["scope"] = {"type": "string", "default": "wide"}


def without(*path: str) -> Change:
    """An older version: this field of the schema is not there, so the API server prunes it from every object."""

    def change(schema: Json) -> None:
        at = schema
        for part in path[:-1]:
            at = at["properties"][part]
        at["properties"].pop(path[-1])
        at["required"] = [name for name in at.get("required", ()) if name != path[-1]]
        for rules in (schema, at):
            rules.pop("x-kubernetes-validations", None)

    return change


@pytest.fixture(scope="module")
def altered() -> Iterator[Cluster]:
    """A cluster beside the session's, whose CRDs may be changed; each test leaves them as they are installed."""
    with Cluster.local() as cluster:
        cluster.install()
        yield cluster


@pytest.fixture
def own(altered: Cluster, operator: Callable[..., Operator]) -> Iterator[tuple[Cluster, Operator, str]]:
    """That cluster, an operator there, and a namespace whose policy quarantines after a while what nobody owns."""
    place = altered.namespace("place")
    altered.patch("namespaces", place, {"metadata": {"labels": {"test": place}}})
    altered.apply(owner("payments"))
    altered.create(policy("quarantine", deadline("Unowned", within="3s"), labels={"test": place}))
    started = operator(altered.kubeconfig)
    yield altered, started, place
    put_back(altered, "governancepolicies", "identityfindings", "ownedidentities", "quarantines")
    altered.delete("governancepolicies", "quarantine")
    altered.request("DELETE", altered.path("ownedidentities", namespace=place))  # at once: nobody reads them again
    altered.delete_namespace(place)
    started.check()
    assert "Traceback" not in started.logs()


@pytest.mark.local
@pytest.mark.parametrize(
    ("kind", "plural", "change"),
    [
        ("OwnedIdentity", "ownedidentities", unknown_field),
        ("OwnedIdentity", "ownedidentities", without("spec", "owner")),
        ("GovernancePolicy", "governancepolicies", unknown_field),
    ],
    ids=["a claim says more", "a claim says less", "a policy says more"],
)
def test_what_this_version_cannot_read_holds_every_act(
    own: tuple[Cluster, Operator, str], kind: str, plural: str, change: Change
) -> None:
    """It might be what spares the subject. It says so itself, the log does, and so does what waits for it."""
    cluster, operator, place = own
    where = place if kind == "OwnedIdentity" else None
    if where:
        cluster.create(claim(place, "known"))
    name = "known" if where else "quarantine"
    wait_condition(cluster, plural, name, "Ready", where)
    found = cluster.get(plural, name, where)
    assert found is not None
    alter(cluster, plural, change)
    wait_served(
        cluster, found, plural, lambda spec: ("scope" in spec) if change is unknown_field else "owner" not in spec
    )
    operator.restart()  # objects that did not change are read anew at a start
    operator.wait_log(f"{kind} {place}/known cannot be read" if where else f"{kind} {name} cannot be read")
    if change is unknown_field:
        stalled = wait_condition(cluster, plural, name, "Stalled", where)
        assert stalled["reason"] == "InvalidSpec"
        assert "scope" in stalled["message"]
        assert "Ready" not in conditions(cluster.get(plural, name, where))
    cluster.create(scenario.service_account(place, "ci"))

    def blocked() -> bool:
        found = finding_of(cluster, place, "Unowned", "ci")
        return found is not None and any(
            c["type"] == "Blocked" and c["reason"] == "Unreadable" for c in found["status"]["conditions"]
        )

    if where:
        eventually(blocked, what="Blocked: Unreadable")
    else:
        opened(cluster, place, "Unowned", "ci")  # the documented defaults: 90 days, and no act
    assert cluster.list("quarantines") == []
    assert operator.logs().count("cannot be read") == 1, "said once"
    put_back(cluster, plural)
    wait_served(cluster, found, plural, lambda spec: spec == found["spec"])
    operator.restart()
    wait_condition(cluster, plural, name, "Ready", where)
    eventually(lambda: "Stalled" not in conditions(cluster.get(plural, name, where)), what="no longer stalled")
    if where:
        opened(cluster, place, "Unowned", "ci", "Resolved")
        assert cluster.list("quarantines") == []


@pytest.mark.local
def test_a_finding_and_a_quarantine_this_version_cannot_read_are_left_as_they_are(
    own: tuple[Cluster, Operator, str],
) -> None:
    """The clocks are in the one, what to give back in the other: neither is written anew, released or forgotten."""
    cluster, operator, place = own
    scenario.identity(cluster, place, "ci", ["ci-token"])
    first = opened(cluster, place, "Unowned", "ci", "Quarantined")
    eventually(lambda: switched_off(cluster, place, "ci-token"))
    quarantine = quarantine_of(cluster, place, "ci")
    assert quarantine is not None
    alter(cluster, "identityfindings", without("spec", "rule"))
    alter(cluster, "quarantines", without("spec", "subject", "kind"))
    wait_served(cluster, first, "identityfindings", lambda spec: "rule" not in spec)
    wait_served(cluster, quarantine, "quarantines", lambda spec: "kind" not in spec["subject"])
    operator.restart()
    operator.wait_log(f"IdentityFinding {place}/{first['metadata']['name']} cannot be read")
    operator.wait_log(f"Quarantine {place}/{quarantine['metadata']['name']} cannot be read")
    cluster.patch("serviceaccounts", "ci", {"metadata": {"labels": {"touched": "true"}}}, place)
    cluster.create(claim(place))
    # Nobody is answered while kinds are older. But this one is judged, and after the touch and the claim.
    numbers = itertools.count()

    def judged() -> bool:
        """Their number also falls, while namespaces of other tests end: then the next one shows it."""
        before = operator.metrics().value("tenure_identities")
        cluster.create(scenario.service_account(place, f"later-{next(numbers)}"))
        return eventually(lambda: operator.metrics().value("tenure_identities") > before, 5)

    eventually(judged, what="a later one is judged")
    with pytest.raises(ApiError, match="is quarantined"):
        cluster.token(place, "ci")
    assert switched_off(cluster, place, "ci-token")
    cluster.delete("ownedidentities", "claim", place)
    put_back(cluster, "identityfindings", "quarantines")
    wait_served(cluster, first, "identityfindings", lambda spec: spec == first["spec"])
    wait_served(cluster, quarantine, "quarantines", lambda spec: spec == quarantine["spec"])
    operator.restart()

    def unchanged() -> bool:
        now, held = finding_of(cluster, place, "Unowned", "ci"), quarantine_of(cluster, place, "ci")
        assert now is not None
        assert held is not None
        assert held["metadata"]["uid"] == quarantine["metadata"]["uid"]
        assert held["metadata"].get("deletionTimestamp") is None
        assert now["metadata"]["uid"] == first["metadata"]["uid"]
        kept = ("opened", "detected", "due", "opening", "phase")
        assert {k: now["status"][k] for k in kept} == {k: first["status"][k] for k in kept}
        return True

    eventually(unchanged, what="both as before")
    with pytest.raises(ApiError, match="is quarantined"):
        cluster.token(place, "ci")
    cluster.create(claim(place))
    opened(cluster, place, "Unowned", "ci", "Resolved")
    eventually(lambda: not switched_off(cluster, place, "ci-token"), what="given back")
