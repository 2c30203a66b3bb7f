"""The chart's whole life on a real API server, with both Helms: installed as an older version, upgraded, rolled back,
taken out and put back. The operator and the hooks run as processes with their Pods' own ServiceAccounts."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import urllib3
import yaml

from tenure.enforce.policies import is_as_shipped, shipped
from tests.support import scenario
from tests.support.cluster import ApiError, Cluster, eventually
from tests.support.helm import CHART, Helm
from tests.support.kubelet import Kubelet
from tests.support.pki import Authority
from tests.support.rest import Json
from tests.support.scenario import HOME, RESTORE, deadline, phase_of, policy, quarantine_of, switched_off

pytestmark = pytest.mark.local

RELEASE = ("tenure", "-n", HOME)
WAIT = ("--wait", "--timeout", "120s")
POLICIES = ("validatingadmissionpolicies", "mutatingadmissionpolicies")
BINDINGS = ("validatingadmissionpolicybindings", "mutatingadmissionpolicybindings")
KINDS = ("customresourcedefinitions",)
MASTERS = ["system:masters"]
ADDED = "displayName"
"""The field of an owner that the older version does not know."""


def older(directory: Path) -> Path:
    """The version before: an owner has no displayName, one policy says something else and in another order, one is not
    there yet. Files instead of links, as in a package."""
    chart = directory / "older"
    shutil.copytree(CHART, chart)
    about = yaml.safe_load((chart / "Chart.yaml").read_text())
    (chart / "Chart.yaml").write_text(yaml.safe_dump({**about, "version": "0.0.9", "appVersion": "0.0.9"}))
    kind = chart / "files" / "crds" / "identityowners.tenure.dev.yaml"
    found = yaml.safe_load(kind.read_text())
    del found["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"][ADDED]
    found["spec"]["versions"][0]["additionalPrinterColumns"].pop(0)
    kind.write_text(yaml.safe_dump(found, sort_keys=False))
    guard = chart / "files" / "deploy" / "22-own-quarantines.yaml"
    documents = list(yaml.safe_load_all(guard.read_text()))
    variables = documents[0]["spec"]["variables"]
    variables[0], variables[1] = variables[1], variables[0]
    variables.insert(0, {"name": "once", "expression": "'there was another variable'"})
    guard.write_text(yaml.safe_dump_all(documents, sort_keys=False))
    (chart / "files" / "deploy" / "27-claim-namespaces.yaml").unlink()
    return chart


def knows(cluster: Cluster, field: str) -> bool:
    found = cluster.get("customresourcedefinitions", "identityowners.tenure.dev")
    assert found is not None
    schema = found["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return field in schema["properties"]["spec"]["properties"]


def there(cluster: Cluster, resource: str) -> set[str]:
    """Names of ours."""
    try:
        found = cluster.list(resource)
    except KeyError:  # before Kubernetes 1.36 there is no such resource
        return set()
    return {
        item["metadata"]["name"]
        for item in found
        if item["metadata"].get("labels", {}).get("app.kubernetes.io/part-of") == "tenure"
    }


class Told:
    """What the API server was asked to write since then, in its order, as (verb, resource)."""

    def __init__(self, cluster: Cluster) -> None:
        assert cluster.control_plane is not None
        self._plane = cluster.control_plane
        self._since = self._plane.audit_position()

    def places(self, verbs: tuple[str, ...], resources: tuple[str, ...]) -> list[int]:
        """Where such requests stand that changed something."""
        return [
            place
            for place, event in enumerate(self._plane.audit_events(self._since))
            if event["verb"] in verbs
            and event.get("objectRef", {}).get("resource") in resources
            and "subresource" not in event["objectRef"]
            and event["responseStatus"]["code"] < 300
            and "dryRun" not in event["requestURI"]
        ]


def as_shipped(cluster: Cluster) -> list[str]:
    """Policies and bindings that are not what ships."""
    wrong = []
    for name, wanted in shipped().items():
        kind, _, called = name.partition("/")
        if called.startswith(("tenure-deny-writes", "tenure-limit-entitlements", "tenure-own-removed")):
            continue  # opt-in
        found = cluster.get(kind, called)
        if found is None or not is_as_shipped(found["spec"], wanted):
            wrong.append(name)
    return wrong


def refused(cluster: Cluster, manifest: Json) -> str:
    """What admission says to a dry run, "" when it passes."""
    try:
        path = f"{cluster.path_of(manifest).rpartition('/')[0]}?dryRun=All"
        cluster.rest.expect("POST", path, manifest)
    except ApiError as error:
        return error.message
    return ""


def pod(namespace: str, account: str) -> Json:
    spec = {"serviceAccountName": account, "containers": [{"name": "main", "image": "registry.example/none"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "new", "namespace": namespace}, "spec": spec}


def taken(cluster: Cluster, helm: Helm, version: str) -> list[str]:
    """The combinations of ci/ that the API server takes whole: as an apply, which changes nothing. Left out are those
    that ask for stamps of one that has none. Raises where it refuses a document."""
    names = []
    for values in sorted((CHART / "ci").glob("*-values.yaml")):
        if version < "1.36" and "stamps: Always" in values.read_text():
            continue
        foreign = ("ServiceMonitor", "PodMonitor", "PrometheusRule")
        documents = [one for one in helm.render([values], kubernetes=version) if one["kind"] not in foreign]
        text = "\n---\n".join(map(json.dumps, documents))
        done = cluster.kubectl("apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f-", input=text)
        assert len(done.stdout.splitlines()) == len(documents)
        names.append(values.stem)
    return names


def owner_named(cluster: Cluster, name: str) -> Json:
    found = cluster.get("identityowners", name)
    assert found is not None
    return found


@pytest.mark.long
@pytest.mark.parametrize(("major", "version"), [("4", "1.36"), ("3", "1.33")])
def test_a_whole_life(fresh_cluster: Callable[..., Any], tmp_path: Path, major: str, version: str) -> None:
    cluster: Cluster = fresh_cluster(version=version)
    helm = Helm(major, tmp_path / "helm", cluster)
    with Kubelet(cluster, HOME) as kubelet:
        # Installed: kinds, policies, bindings.
        told = Told(cluster)
        said = helm("install", *RELEASE, "--create-namespace", str(older(tmp_path)), *WAIT)
        assert "helm test tenure" in said
        assert "WARNING: image.digest is empty" in said
        orders = [told.places(("create", "patch"), what) for what in (KINDS, POLICIES, BINDINGS)]
        assert all(orders)
        assert max(orders[0]) < min(orders[1])
        for before, after in zip(POLICIES, BINDINGS, strict=True):
            made = [told.places(("create", "patch"), (resource,)) for resource in (before, after)]
            assert max(made[0], default=0) < min(made[1], default=1)
        assert there(cluster, "mutatingadmissionpolicies") == (
            {"tenure-stamp-decisions", "tenure-stamp-exceptions"} if version == "1.36" else set()
        )
        cluster._resources.clear()
        assert not knows(cluster, ADDED)
        assert as_shipped(cluster)  # an older one

        # Upgraded while something is written and something is out of use: all of it stays.
        place = cluster.namespace("held", labels={"test": "held"})
        cluster.create(scenario.owner("team"))
        cluster.create(scenario.claim("default", "team", accounts=["nobody"]))
        helm("upgrade", *RELEASE, str(CHART), *WAIT)
        assert knows(cluster, ADDED)
        assert as_shipped(cluster) == []
        assert "tenure-claim-namespaces" in there(cluster, "validatingadmissionpolicies")
        cluster.patch("identityowners", "team", {"spec": {ADDED: "The team"}})
        scenario.govern(cluster, policy("held", deadline("Unowned"), labels={"test": "held"}))
        scenario.identity(cluster, place, "ci", ["ci-token"])
        eventually(lambda: phase_of(cluster, place, "Unowned", "ci") == "Quarantined", 60, what="quarantined")
        eventually(lambda: switched_off(cluster, place, "ci-token"), what="the token is off")
        assert "is quarantined" in refused(cluster, pod(place, "ci"))

        for name in ("shop", "payments"):  # where the scoped combination has Roles
            cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        assert len(taken(cluster, helm, version)) == (5 if version == "1.36" else 4)

        # What it needs it has, and it is seen at work.
        helm("test", *RELEASE, "--timeout", "120s")
        assert "Found: identityfinding/" in kubelet.log_of("tenure-test-")
        assert "its finding has ended" in kubelet.log_of("tenure-test-")
        assert "missing right" not in kubelet.log_of("tenure-")
        assert cluster.get("serviceaccounts", "tenure-test-identity", "default") is None

        # Rolled back: the older kinds and policies, and every object.
        told = Told(cluster)
        helm("rollback", *RELEASE, "1", *WAIT)
        assert not knows(cluster, ADDED)
        assert "tenure-claim-namespaces" not in there(cluster, "validatingadmissionpolicies")
        assert "tenure-claim-namespaces" not in there(cluster, "validatingadmissionpolicybindings")
        assert told.places(("delete",), KINDS) == []
        # Helm takes away what the older version lacks in the order in which it came, the policy before its binding:
        # that is no half of a guard, since what binds no policy refuses nothing (test_upgrades.py). No kind goes.
        [unbound], [gone] = (told.places(("delete",), (what,)) for what in (BINDINGS[0], POLICIES[0]))
        assert gone < unbound
        assert owner_named(cluster, "team")["metadata"]["uid"]
        assert cluster.get("ownedidentities", "claim", "default")
        found = quarantine_of(cluster, place, "ci")
        assert found is not None
        assert found["metadata"]["finalizers"] == [RESTORE]
        helm("upgrade", *RELEASE, str(CHART), *WAIT)
        assert as_shipped(cluster) == []

        # Taken out: the operator, bindings, policies; kinds and objects stay, and nothing is released.
        told = Told(cluster)
        helm("uninstall", *RELEASE, *WAIT)
        hook = kubelet.log_of("tenure-uninstall-")
        assert "The operator has ended." in hook
        assert f"token Secret {place}/ci-token stays switched off" in hook
        [scaled, *_] = told.places(("patch",), ("deployments",))
        assert scaled < min(told.places(("delete",), BINDINGS))
        assert max(told.places(("delete",), BINDINGS)) < min(told.places(("delete",), POLICIES))
        assert max(told.places(("delete",), POLICIES)) < min(told.places(("patch",), ("quarantines",)))
        assert told.places(("delete",), KINDS) == []
        for resource in (*POLICIES, *BINDINGS, "clusterroles", "clusterrolebindings"):
            assert there(cluster, resource) == set(), resource
        assert cluster.list("pods", HOME) == []
        assert refused(cluster, pod(place, "ci")) == ""
        found = quarantine_of(cluster, place, "ci")
        assert found is not None
        assert "finalizers" not in found["metadata"]
        assert switched_off(cluster, place, "ci-token")
        assert owner_named(cluster, "team")["spec"][ADDED] == "The team"  # nobody wrote while the kind did not know it

        # Put back over what stayed: the Quarantine is in force again.
        helm("install", *RELEASE, str(CHART), "--set", "crds.keep=false", *WAIT)
        eventually(lambda: "is quarantined" in refused(cluster, pod(place, "ci")), what="in force again")

        # Taken out with all that people wrote: bindings, policies, kinds.
        told = Told(cluster)
        helm("uninstall", *RELEASE, *WAIT)
        places = [told.places(("delete",), what) for what in (BINDINGS, POLICIES, KINDS)]
        assert max(places[0]) < min(places[1])
        assert max(places[1]) < min(places[2])
        eventually(lambda: there(cluster, "customresourcedefinitions") == set(), 60, what="the kinds' end")
        cluster.delete("namespaces", place)
        eventually(lambda: cluster.get("namespaces", place) is None, 60, what="a namespace's end")


@pytest.mark.long
@pytest.mark.parametrize(("major", "version"), [("4", "1.36"), ("3", "1.33")])
def test_in_another_namespace(fresh_cluster: Callable[..., Any], tmp_path: Path, major: str, version: str) -> None:
    """Installed as the platform's habits say: what enforces is in force and proves it, an identity is quarantined and
    given back, and what is taken out leaves nothing."""
    cluster: Cluster = fresh_cluster(version=version)
    helm = Helm(major, tmp_path / "helm", cluster)
    home, release = "security", ("tenure", "-n", "security")
    with Kubelet(cluster, home) as kubelet:
        every = ["--set=crds.keep=false", "--set=denyWrites.enabled=true", "--set=entitlements.enabled=true"]
        said = helm("install", *release, "--create-namespace", str(CHART), *every, *WAIT)
        assert "kubectl label namespace security pod-security" in said
        cluster._resources.clear()
        cluster.patch(
            "namespaces", home, {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
        )
        assert cluster.get("namespaces", HOME) is None

        def effective() -> set[str]:
            answer = urllib3.request("GET", f"http://127.0.0.1:{kubelet.port_of('tenure-')}/metrics").data.decode()
            return set(re.findall(r'tenure_enforcement_effective\{stage="(\w+)"\} 1.0', answer))

        stages = {"Guard", "DisableTokens", "RemoveEntitlements", "DenyWrites"}
        eventually(lambda: effective() == stages, 30, what="every stage is proven")
        helm("test", *release, "--timeout", "120s")
        assert "missing right" not in kubelet.log_of("tenure-")

        place = cluster.namespace("held", labels={"test": "held"})
        scenario.govern(cluster, policy("held", deadline("Unowned", within="5s"), labels={"test": "held"}))
        scenario.identity(cluster, place, "ci", ["ci-token"])
        token = scenario.token_of(cluster, place, "ci-token")
        scenario.allow(cluster, f"system:serviceaccount:{place}:ci", "reader", scenario.rule("", ["pods"], ["list"]))
        path = cluster.path("pods", namespace=place)
        assert cluster.rest.request("GET", path, token=token)[0] == 200
        eventually(lambda: phase_of(cluster, place, "Unowned", "ci") == "Quarantined", 60, what="quarantined")
        eventually(lambda: cluster.rest.request("GET", path, token=token)[0] == 401, what="the token is refused")
        assert "is quarantined" in refused(cluster, pod(place, "ci"))
        found = quarantine_of(cluster, place, "ci")
        assert found is not None
        assert all("verified" in stage for stage in found["status"]["stages"])

        # What holds the operator holds it under this name, and nobody under the other.
        stolen = cluster.token(home, "tenure")
        body = {"data": {"more": "eA=="}}
        with pytest.raises(ApiError, match="never changes a Secret's data"):
            cluster.patch("secrets", "ci-token", body, place, token=stolen)
        with pytest.raises(ApiError, match=f"system:serviceaccount:{home}:tenure"):
            cluster.delete(
                "identityfindings", found["spec"]["findings"][0], place, user=scenario.OPERATOR, groups=MASTERS
            )

        # A claim releases it, and the operator says that it did.
        cluster.create(scenario.owner("team"))
        cluster.create(scenario.claim(place, "team"))
        eventually(lambda: quarantine_of(cluster, place, "ci") is None, 30, what="released")
        eventually(lambda: cluster.rest.request("GET", path, token=token)[0] == 200, what="the token works again")
        assert refused(cluster, pod(place, "ci")) == ""
        assert effective() == stages

        helm("uninstall", *release, *WAIT)
        assert "The operator has ended." in kubelet.log_of("tenure-uninstall-")
        for resource in (*POLICIES, *BINDINGS, "clusterroles", "clusterrolebindings", "roles", "rolebindings"):
            assert there(cluster, resource) == set(), resource
        eventually(lambda: there(cluster, "customresourcedefinitions") == set(), 60, what="the kinds' end")
        left = [one["metadata"]["name"] for one in cluster.list("secrets", home)]
        assert [name for name in left if not name.startswith("sh.helm")] == []


@pytest.mark.long
def test_scoped_to_some_namespaces(fresh_cluster: Callable[..., Any], tmp_path: Path) -> None:
    """With Roles in those namespaces it has what it needs, and sees nothing of others; a missing right is named."""
    cluster: Cluster = fresh_cluster(version="1.36")
    helm = Helm("4", tmp_path / "helm", cluster)
    for name in ("shop", "payments", "elsewhere"):
        cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": HOME}})
    authority = Authority(tmp_path / "authority")
    pair = authority.issue("metrics", "tenure.tenure-system.svc", addresses=["127.0.0.1", "tenure.tenure-system.svc"])
    files = zip(("tls.crt", "tls.key", "ca.crt"), (*pair, authority.certificate_file), strict=True)
    metadata = {"name": "tenure-metrics", "namespace": HOME}
    data = {name: base64.b64encode(file.read_bytes()).decode() for name, file in files}
    cluster.create(
        {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": metadata, "data": data}
    )
    with Kubelet(cluster, HOME) as kubelet:
        values = {
            "scopedNamespaces": ["shop", "payments"],
            "platformNamespaces": ["payments"],
            "metrics": {"tls": {"secretName": "tenure-metrics"}},
            "test": {"namespace": "shop"},
        }
        given = [f"--set-json={name}={json.dumps(value)}" for name, value in values.items()]
        said = helm("install", *RELEASE, "--create-namespace", str(CHART), *given, *WAIT)
        assert "It observes shop, payments" in said
        cluster._resources.clear()
        for namespace in ("shop", "elsewhere"):
            scenario.identity(cluster, namespace, "ci")
        helm("test", *RELEASE, "--timeout", "120s")
        assert "missing right" not in kubelet.log_of("tenure-")
        assert scenario.finding_of(cluster, "shop", "Unowned", "ci")
        assert cluster.list("identityfindings", "elsewhere") == []
        for namespace, seen in {"shop": True, "payments": True, "elsewhere": False, "": False}.items():
            assert cluster.can(scenario.OPERATOR, "list", "secrets", namespace=namespace) is seen

        # Its guards skip the platform's namespace, and are still those that it knows and proves.
        # What its metrics say so with is the certificate of the Secret, as the ServiceMonitor would ask for it.
        asked = {"ca_certs": str(authority.certificate_file), "server_hostname": "tenure.tenure-system.svc"}
        https = urllib3.PoolManager(**asked, assert_hostname=asked["server_hostname"])  # type: ignore[arg-type]

        def effective() -> bool:
            answer = https.request("GET", f"https://127.0.0.1:{kubelet.port_of('tenure-')}/metrics")
            return 'tenure_enforcement_effective{stage="Guard"} 1.0' in answer.data.decode()

        eventually(effective, 30, what="the guards are effective")
        guarded = cluster.get("validatingadmissionpolicies", "tenure-guard-pods")
        assert guarded is not None
        [skipped] = guarded["spec"]["matchConstraints"]["namespaceSelector"]["matchExpressions"]
        assert skipped["values"][-1] == "payments"
        scenario.govern(cluster, policy("scoped", deadline("Unowned"), platformNamespaces=["payments"]))
        for namespace in ("shop", "payments"):
            scenario.identity(cluster, namespace, "bot", ["bot-token"])
            scenario.token_of(cluster, namespace, "bot-token")
        eventually(lambda: phase_of(cluster, "shop", "Unowned", "bot") == "Quarantined", what="shop/bot quarantined")
        assert "is quarantined" in refused(cluster, pod("shop", "bot"))
        eventually(lambda: switched_off(cluster, "payments", "bot-token"), what="the other stage works there")
        assert refused(cluster, pod("payments", "bot")) == ""

        def said() -> bool:
            found = scenario.finding_of(cluster, "payments", "Unowned", "bot")
            return found is not None and "PlatformNamespace" in str(found["status"]["conditions"])

        eventually(said, what="why the guard is not to be had")

        assert len(taken(cluster, helm, "1.36")) == 5

        [role] = [one for one in cluster.list("roles", "payments") if one["metadata"]["name"] == "tenure-scoped"]
        less = [rule for rule in role["rules"] if not {"patch", "delete"} <= set(rule["verbs"])]
        assert less != role["rules"]
        cluster.patch("roles", "tenure-scoped", {"rules": less}, "payments")
        cluster.delete("pods", cluster.list("pods", HOME)[0]["metadata"]["name"], HOME)
        eventually(lambda: "missing right: patch secrets" in kubelet.log_of("tenure-"), what="the right is named")
