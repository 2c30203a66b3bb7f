"""Each thing the fault proxy can do, with a client of a few lines."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import urllib3
from yarl import URL

from tests.support import proxy as faults
from tests.support.cluster import APPLY, Cluster, Json, eventually
from tests.support.proxy import FaultProxy
from tests.support.rest import Credentials, Rest

LOST = urllib3.exceptions.HTTPError


class Client:
    """What the operator would be: a ServiceAccount's token, and the proxy as its API server."""

    def __init__(self, cluster: Cluster, proxy: FaultProxy, namespace: str) -> None:
        self.cluster, self.namespace = cluster, namespace
        self.rest = Rest(Credentials.from_kubeconfig(cluster.token_kubeconfig(namespace, "default", server=proxy.url)))
        self.configmaps = f"/api/v1/namespaces/{namespace}/configmaps"

    def create(self, name: str) -> int:
        return self.rest.request("POST", self.configmaps, {"metadata": {"name": name}})[0]

    def apply(self, name: str, value: str) -> int:
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"key": value}}
        path = f"{self.configmaps}/{name}?fieldManager=test"
        return self.rest.request("PATCH", path, body, content_type=APPLY)[0]

    def exists(self, name: str) -> bool:
        return self.cluster.get("configmaps", name, self.namespace) is not None


class Watch:
    """One watch on the ConfigMaps of a namespace, read in a thread. `names` are those of the events that came."""

    def __init__(self, client: Client) -> None:
        self.names: list[str] = []
        self.events: list[Json] = []
        self.rest_of_line = b""
        self.end: BaseException | str | None = None
        self.ended = threading.Event()
        version = client.rest.expect("GET", client.configmaps)["metadata"]["resourceVersion"]
        url = f"{client.rest.credentials.server}{client.configmaps}?watch=true&resourceVersion={version}"
        headers = {"Authorization": f"Bearer {client.rest.credentials.token}"}
        self._pool = urllib3.PoolManager(ca_certs=client.rest.credentials.ca_file, retries=False)
        self._answer = self._pool.request("GET", url, headers=headers, preload_content=False)
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        try:
            for chunk in self._answer.stream(amt=None):
                *lines, self.rest_of_line = (self.rest_of_line + chunk).split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    self.events.append(event)
                    self.names.append(event["object"].get("metadata", {}).get("name", ""))
            self.end = "orderly"
        except LOST as error:
            self.end = error
        finally:
            self.ended.set()

    def close(self) -> None:
        self._answer.close()
        self._pool.clear()


@pytest.fixture
def client(cluster: Cluster, proxy: FaultProxy, namespace: str) -> Iterator[Client]:
    rules = [{"apiGroups": [""], "resources": ["configmaps", "events"], "verbs": ["*"]}]
    about: Json = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "test", "namespace": namespace}}
    cluster.create({**about, "kind": "Role", "rules": rules})
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "test"}
    subject = {"kind": "ServiceAccount", "name": "default", "namespace": namespace}
    cluster.create({**about, "kind": "RoleBinding", "roleRef": role, "subjects": [subject]})
    made = Client(cluster, proxy, namespace)
    eventually(lambda: made.rest.request("GET", made.configmaps)[0] == 200)
    proxy.reset()
    yield made
    made.rest.close()


@pytest.fixture
def watch(client: Client, proxy: FaultProxy) -> Iterator[Watch]:
    made = Watch(client)
    proxy.wait_watches("watch configmaps")
    yield made
    proxy.cut_watches()  # a response cannot be closed while another thread reads it
    assert made.ended.wait(10)
    made.close()


@pytest.fixture
def background() -> Iterator[Callable[..., Future[Any]]]:
    """Runs a call in a thread, for those that are made to hang."""
    with ThreadPoolExecutor(4) as pool:
        yield pool.submit


@pytest.mark.parametrize(
    ("method", "path", "content_type", "title", "name"),
    [
        ("GET", "/api/v1/secrets?limit=500", "", "list secrets", ""),
        ("GET", "/api/v1/secrets?watch=true", "", "watch secrets", ""),
        ("GET", "/api/v1/namespaces/a", "", "get namespaces", "a"),
        ("PUT", "/api/v1/namespaces/a/finalize", "application/json", "update namespaces/finalize", "a"),
        ("DELETE", "/api/v1/namespaces/a/secrets/b", "", "delete secrets", "b"),
        ("DELETE", "/api/v1/namespaces/a/secrets", "", "deletecollection secrets", ""),
        (
            "PATCH",
            "/apis/tenure.dev/v1alpha1/namespaces/a/quarantines/b/status",
            APPLY,
            "apply quarantines/status",
            "b",
        ),
        ("PATCH", "/api/v1/namespaces/a/secrets/b", "application/merge-patch+json", "patch secrets", "b"),
        (
            "POST",
            "/api/v1/namespaces/a/serviceaccounts/b/token",
            "application/json",
            "create serviceaccounts/token",
            "b",
        ),
        ("GET", "/version", "", "get /version", ""),
    ],
)
def test_names_requests_as_the_api_server_does(
    method: str, path: str, content_type: str, title: str, name: str
) -> None:
    request = faults.describe(method, URL(path), content_type)
    assert (request.title, request.name) == (title, name)
    assert request.namespace == ("a" if "/namespaces/a/" in path and "finalize" not in path else "")


def test_counts_and_names_every_write(client: Client, proxy: FaultProxy) -> None:
    assert client.create("a") == 201
    assert client.apply("a", "1") == 200
    assert client.rest.request("DELETE", f"{client.configmaps}/b")[0] == 404
    assert client.rest.request("GET", f"{client.configmaps}/a")[0] == 200
    writes = proxy.writes()
    assert [(write.n, write.title, write.name, write.status) for write in writes] == [
        (1, "create configmaps", "a", 201),
        (2, "apply configmaps", "a", 200),
        (3, "delete configmaps", "b", 404),
    ]
    assert {write.namespace for write in writes} == {client.namespace}
    assert proxy.requests["get configmaps"] == 1


def test_events_and_reviews_are_writes_but_not_durable_ones(client: Client, proxy: FaultProxy) -> None:
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    assert client.rest.request("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", review)[0] == 201
    event = {"metadata": {"generateName": "e-"}, "involvedObject": {"namespace": client.namespace}}
    assert client.rest.request("POST", f"/api/v1/namespaces/{client.namespace}/events", event)[0] == 201
    assert client.create("a") == 201
    assert len(proxy.writes()) == 3
    assert [write.title for write in proxy.writes(faults.durable)] == ["create configmaps"]


def test_stops_before_a_write_is_forwarded(
    client: Client, proxy: FaultProxy, background: Callable[..., Future[Any]]
) -> None:
    proxy.stop_before(2, "create configmaps")
    assert client.create("a") == 201
    hanging = background(client.create, "b")
    stopped_at = proxy.wait_stopped()
    assert (stopped_at.title, stopped_at.name, stopped_at.forwarded) == ("create configmaps", "b", False)
    reading = background(client.rest.request, "GET", client.configmaps)
    writing = background(client.create, "c")
    proxy.wait_requests("list configmaps")
    eventually(lambda: len(proxy.writes()) == 3)
    proxy.resume()
    for call in (hanging, reading, writing):
        with pytest.raises(LOST):
            call.result()
    assert not client.exists("b"), "what hung is cut, never forwarded"
    assert not client.exists("c")
    assert client.create("b") == 201


def test_stops_after_a_write_was_answered(
    client: Client, proxy: FaultProxy, background: Callable[..., Future[Any]]
) -> None:
    proxy.stop_after(1)
    assert client.create("a") == 201, "its answer is passed on"
    assert proxy.wait_stopped().name == "a"
    hanging = background(client.create, "b")
    eventually(lambda: len(proxy.writes()) == 2)
    proxy.resume()
    with pytest.raises(LOST):
        hanging.result()
    assert client.exists("a")
    assert not client.exists("b")


def test_a_stop_lets_no_write_overtake(
    client: Client, proxy: FaultProxy, background: Callable[..., Future[Any]]
) -> None:
    proxy.stop_after(2)
    calls = [background(client.create, f"c-{index}") for index in range(4)]
    proxy.wait_stopped()
    eventually(lambda: len(proxy.writes()) == 4)
    assert len(client.cluster.list("configmaps", client.namespace)) == 2 + 1  # and kube-root-ca.crt
    proxy.resume()
    done = [call for call in calls if call.exception() is None]
    assert len(done) == 2
    assert len(client.cluster.list("configmaps", client.namespace)) == 2 + 1


def test_a_stopped_operator_can_be_refused(client: Client, proxy: FaultProxy) -> None:
    proxy.stop_now(refuse=True)
    with pytest.raises(LOST):
        client.create("a")
    proxy.resume()
    assert client.create("a") == 201


@pytest.mark.parametrize(
    ("action", "status"), [(faults.CONFLICT, 409), (faults.TOO_MANY_REQUESTS, 429), (faults.SERVER_ERROR, 500)]
)
def test_answers_instead_of_the_api_server(
    client: Client, proxy: FaultProxy, action: faults.Answer, status: int
) -> None:
    fault = proxy.fault("apply configmaps", action)
    assert client.create("other") == 201, "only what matches"
    assert client.apply("a", "1") == status
    assert not client.exists("a")
    assert client.apply("a", "1") == 201, "once"
    assert fault.hits == 1
    assert [write.forwarded for write in proxy.writes("apply *")] == [False, True]


def test_a_429_says_when_to_come_back(client: Client, proxy: FaultProxy) -> None:
    proxy.fault("list configmaps", faults.TOO_MANY_REQUESTS)
    answer = urllib3.PoolManager(ca_certs=client.rest.credentials.ca_file).request(
        "GET", f"{proxy.url}{client.configmaps}", retries=False
    )
    assert (answer.status, answer.headers["Retry-After"]) == (429, "1")


def test_loses_an_answer_of_a_write_that_was_done(client: Client, proxy: FaultProxy) -> None:
    proxy.fault("create configmaps", faults.LoseAnswer())
    with pytest.raises(LOST):
        client.create("a")
    assert client.exists("a")
    [write] = proxy.writes()
    assert (write.status, write.forwarded) == (201, True)


def test_refuses_until_the_rule_is_removed(client: Client, proxy: FaultProxy) -> None:
    fault = proxy.fault(None, faults.Refuse(), times=None)
    for _ in range(3):
        with pytest.raises(LOST):
            client.create("a")
    assert fault.hits == 3
    fault.remove()
    assert client.create("a") == 201


def test_hangs_until_the_rule_is_removed(
    client: Client, proxy: FaultProxy, background: Callable[..., Future[Any]]
) -> None:
    fault = proxy.fault("create *", faults.Hang())
    hanging = background(client.create, "a")
    fault.wait()
    fault.remove()
    with pytest.raises(LOST):
        hanging.result()
    assert not client.exists("a")


def test_passes_watches_on_as_they_arrive(client: Client, watch: Watch) -> None:
    assert client.create("a") == 201
    eventually(lambda: watch.names == ["a"])


def test_cuts_open_watches(client: Client, proxy: FaultProxy, watch: Watch) -> None:
    assert proxy.cut_watches("watch configmaps") == 1
    assert watch.ended.wait(10)
    assert isinstance(watch.end, LOST)
    assert watch.rest_of_line == b""
    eventually(lambda: not proxy.watches())


def test_cuts_a_watch_in_the_middle_of_an_event(client: Client, proxy: FaultProxy, watch: Watch) -> None:
    proxy.fault("watch configmaps", faults.CutMidLine())
    client.create("a")
    assert watch.ended.wait(10)
    assert isinstance(watch.end, LOST)
    assert watch.names == []
    assert watch.rest_of_line.startswith(b'{"type":"ADDED"')


def test_cuts_an_idle_watch_in_the_middle_of_a_line(proxy: FaultProxy, watch: Watch) -> None:
    assert proxy.cut_watches_mid_line() == 1
    assert watch.ended.wait(10)
    assert isinstance(watch.end, LOST)
    assert watch.rest_of_line.startswith(b'{"type":"MODIFIED"')


def test_ends_a_watch_with_an_error_event(proxy: FaultProxy, watch: Watch) -> None:
    assert proxy.fail_watches(status=410) == 1
    assert watch.ended.wait(10)
    assert watch.end == "orderly"
    assert [(event["type"], event["object"]["code"]) for event in watch.events] == [("ERROR", 410)]


def test_a_lagging_watch_delivers_late_and_in_order(client: Client, proxy: FaultProxy, watch: Watch) -> None:
    proxy.hold("watch configmaps")
    client.create("a")
    client.create("b")
    eventually(lambda: len(proxy.writes()) == 2)
    assert watch.names == []
    proxy.lag("watch configmaps", 0.2)
    eventually(lambda: watch.names == ["a", "b"])
    proxy.lag("watch configmaps", 0)
    client.create("c")
    eventually(lambda: watch.names == ["a", "b", "c"])


def test_a_held_watch_can_be_cut(client: Client, proxy: FaultProxy, watch: Watch) -> None:
    proxy.hold()
    client.create("a")
    assert proxy.cut_watches() == 1
    assert watch.ended.wait(10)
    assert watch.names == []


def test_a_stop_silences_watches(client: Client, proxy: FaultProxy, watch: Watch) -> None:
    proxy.stop_now()
    manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": client.namespace}}
    client.cluster.create(manifest)
    proxy.wait_held("watch configmaps")
    proxy.resume()
    assert watch.ended.wait(10), "what was held is cut with the rest"
    assert watch.names == []


def test_closing_leaves_no_thread(cluster: Cluster) -> None:
    with FaultProxy.to(cluster) as proxy:
        assert any(thread.name == "fault-proxy" for thread in threading.enumerate())
        assert proxy.url.startswith("https://" if cluster.control_plane else "http://")
    assert not any(thread.name == "fault-proxy" for thread in threading.enumerate())
