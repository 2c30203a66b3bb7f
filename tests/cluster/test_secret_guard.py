"""A quarantined Secret is consumed by no new pod, whatever place of the pod names it. The API server's own schema says
which places there are: one that this test does not know fails it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.cluster.tenure_objects import OPERATOR, Json, entry, guard, service_account
from tests.support.cluster import STRATEGIC, ApiError, Cluster, eventually

pytestmark = [pytest.mark.local]

SECRET = "api-key"
QUARANTINE = "secret-api-key-6d0f1a"
PORTAL = {"targetPortal": "10.0.0.1:3260", "iqn": "iqn.2001-04.com.example:disk", "lun": 0}
SCALE = {"gateway": "https://10.0.0.1", "system": "s", "volumeName": "v"}

Change = Callable[[Json], Any]


def volume(**source: Any) -> Change:
    return lambda spec: spec.update(volumes=[{"name": "v", **source}])


def container(kind: str, **more: Any) -> Change:
    """`more` on the first container, on an init container, or on an ephemeral one."""

    def change(spec: Json) -> None:
        if kind == "containers":
            spec["containers"][0].update(more)
        else:
            spec[kind] = [{"name": "extra", "image": "registry.example/none", **more}]

    return change


def reference(name: str = SECRET) -> Json:
    return {"name": name}


KEY = [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": SECRET, "key": "k"}}}]
ALL = [{"secretRef": {"name": SECRET}}]
PLACES: dict[str, Change] = {
    "volumes[].secret.secretName": volume(secret={"secretName": SECRET}),
    "volumes[].projected.sources[].secret.name": volume(projected={"sources": [{"secret": {"name": SECRET}}]}),
    "volumes[].azureFile.secretName": volume(azureFile={"secretName": SECRET, "shareName": "s"}),
    "volumes[].csi.nodePublishSecretRef.name": volume(
        csi={"driver": "d.example.com", "nodePublishSecretRef": reference()}
    ),
    "volumes[].cephfs.secretRef.name": volume(cephfs={"monitors": ["10.0.0.1"], "secretRef": reference()}),
    "volumes[].cinder.secretRef.name": volume(cinder={"volumeID": "v", "secretRef": reference()}),
    "volumes[].flexVolume.secretRef.name": volume(flexVolume={"driver": "example.com/d", "secretRef": reference()}),
    "volumes[].iscsi.secretRef.name": volume(iscsi={**PORTAL, "chapAuthSession": True, "secretRef": reference()}),
    "volumes[].rbd.secretRef.name": volume(rbd={"monitors": ["10.0.0.1"], "image": "i", "secretRef": reference()}),
    "volumes[].scaleIO.secretRef.name": volume(scaleIO={**SCALE, "secretRef": reference()}),
    "volumes[].storageos.secretRef.name": volume(storageos={"volumeName": "v", "secretRef": reference()}),
    "imagePullSecrets[].name": lambda spec: spec.update(imagePullSecrets=[reference()]),
    "containers[].env[].valueFrom.secretKeyRef.name": container("containers", env=KEY),
    "containers[].envFrom[].secretRef.name": container("containers", envFrom=ALL),
    "initContainers[].env[].valueFrom.secretKeyRef.name": container("initContainers", env=KEY),
    "initContainers[].envFrom[].secretRef.name": container("initContainers", envFrom=ALL),
    "ephemeralContainers[].env[].valueFrom.secretKeyRef.name": container("ephemeralContainers", env=KEY),
    "ephemeralContainers[].envFrom[].secretRef.name": container("ephemeralContainers", envFrom=ALL),
}
"""Place -> how a pod names the Secret there."""
EPHEMERAL = tuple(place for place in PLACES if place.startswith("ephemeral"))


def places(schemas: Json, name: str, path: str = "") -> Iterator[str]:
    """Every place below a schema that names a Secret: what is called so, and names within what is called so."""
    for field, schema in schemas[name].get("properties", {}).items():
        items = schema.get("items", {})
        below = items or schema
        ref = below.get("$ref") or next((part["$ref"] for part in below.get("allOf", ()) if "$ref" in part), "")
        here = f"{path}.{field}".lstrip(".") + ("[]" if items else "")
        kind = ref.rpartition("/")[2]
        if not kind:
            if re.search("secretname", field, re.IGNORECASE) or (
                field == "name" and re.search("secret", path, re.IGNORECASE)
            ):
                yield here
        else:
            yield from places(schemas, kind, here)


@pytest.fixture
def quarantined(api: Cluster, room: str) -> str:
    """The namespace, with the Secret quarantined as the operator's guard says it."""
    service_account(api, room, "probe")
    entries = {SECRET: entry(f"{room}/{QUARANTINE}")}
    api.apply(guard(room, withheld=entries), manager="tenure", user=OPERATOR)
    eventually(lambda: not passes(api, room, PLACES["volumes[].secret.secretName"]), what="the guard in force")
    return room


def manifest(namespace: str, change: Change, name: str = "app") -> Json:
    spec: Json = {"serviceAccountName": "probe", "containers": [{"name": "main", "image": "registry.example/none"}]}
    change(spec)
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def passes(cluster: Cluster, namespace: str, change: Change) -> str:
    """ "" when it is refused by us, with everything a refusal says; raises ApiError for any other refusal."""
    pod = manifest(namespace, change)
    status, answer = cluster.request("POST", cluster.path("pods", namespace=namespace) + "?dryRun=All", pod)
    if status == 201:
        return "created"
    said = answer.get("message", "")
    assert status == 403, said
    assert f"Secret {namespace}/{SECRET} is quarantined and no new pod may consume it" in said
    assert f"Quarantine {namespace}/{QUARANTINE}, owner payments, contact payments@example.com" in said
    assert f"kubectl delete quarantine {QUARANTINE} -n {namespace}" in said
    return ""


def test_every_place_of_the_schema_is_known(api: Cluster) -> None:
    schemas = api.rest.expect("GET", "/openapi/v3/api/v1")["components"]["schemas"]
    found = set(places(schemas, "io.k8s.api.core.v1.PodSpec"))
    assert found == set(PLACES)


def test_no_new_pod_consumes_it_whatever_place_names_it(api: Cluster, quarantined: str) -> None:
    free = api.namespace("free")
    service_account(api, free, "probe")
    for place, change in PLACES.items():
        if place in EPHEMERAL:
            continue
        assert passes(api, quarantined, change) == "", place
        assert passes(api, free, change) == "created", place  # by itself the pod is a good one
    assert passes(api, quarantined, lambda spec: None) == "created"
    assert passes(api, quarantined, volume(secret={"secretName": "other"})) == "created"
    api.delete_namespace(free)


def test_no_ephemeral_container_consumes_it(api: Cluster, quarantined: str) -> None:
    """In a pod that runs already, and consumes it already: one that does not name it is let in."""
    held = {SECRET: entry(f"{quarantined}/{QUARANTINE}")}
    mounting = PLACES["volumes[].secret.secretName"]
    api.apply(guard(quarantined, withheld={"other": held[SECRET]}), manager="tenure", user=OPERATOR)
    eventually(lambda: api.create(manifest(quarantined, mounting, "runs")), what="a pod from before")
    api.apply(guard(quarantined, withheld=held), manager="tenure", user=OPERATOR)
    eventually(lambda: not passes(api, quarantined, mounting), what="the guard in force")
    added: dict[str, Any] = {"subresource": "ephemeralcontainers", "content_type": STRATEGIC}
    for place in EPHEMERAL:
        spec: Json = {}
        PLACES[place](spec)
        with pytest.raises(ApiError, match="is quarantined and no new container may consume it"):
            api.patch("pods", "runs", {"spec": spec}, quarantined, **added)
    harmless = {"spec": {"ephemeralContainers": [{"name": "debug", "image": "registry.example/none"}]}}
    api.patch("pods", "runs", harmless, quarantined, **added)
