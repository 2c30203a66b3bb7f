"""The one seam between a test and a cluster, whichever `--cluster` asks for (tests/conftest.py).

Tests ask the `cluster` fixture for everything and never know which it is, but for those marked `local`, which kill
processes or read the audit log through `cluster.control_plane`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
import weakref
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import urllib3
import yaml

from tests.support.controlplane import ControlPlane, write_kubeconfig
from tests.support.pki import SigningKey
from tests.support.rest import APPLY, JSON_PATCH, MERGE, STRATEGIC, ApiError, Credentials, Json, Rest

__all__ = ["APPLY", "JSON_PATCH", "MERGE", "REPOSITORY", "STRATEGIC", "ApiError", "Cluster", "eventually"]

T = TypeVar("T")
Jsons = list[Json]  # inside the class, `list` is its method

REPOSITORY = Path(__file__).resolve().parent.parent.parent
FIELD_MANAGER = "tenure-test"
NAMESPACE_LIMIT = 63

_DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


class NotYet(AssertionError):
    """A condition did not come true in time; the message carries the last value or error seen."""


def eventually(
    condition: Callable[[], T], timeout: float = 30.0, interval: float = 0.05, *, what: str | None = None
) -> T:
    """Calls `condition` until it returns something true, and returns that. `timeout` and `interval` in seconds.

    A falsy value, an AssertionError, an ApiError and a lost connection all mean "not yet". Raises NotYet.
    """
    deadline = time.monotonic() + timeout
    seen: object = None
    while True:
        try:
            value = condition()
            if value:
                return value
            seen = value
        except (AssertionError, ApiError, urllib3.exceptions.HTTPError) as error:
            seen = error
        if time.monotonic() > deadline:
            name = what or getattr(condition, "__name__", "condition")
            raise NotYet(f"{name}: not within {timeout:g} s; last: {seen!r}")
        time.sleep(interval)


def kubectl_binary() -> str:
    """The environment's kubectl, else the one on PATH."""
    beside = Path(sys.executable).with_name("kubectl")
    return str(beside) if beside.exists() else (shutil.which("kubectl") or "kubectl")


class Cluster:
    """One cluster, as its administrator: JSON requests, kubectl, users, namespaces.

    `resource` is a plural ("secrets", "rolebindings", "identityfindings"), a plural with its group
    ("roles.rbac.authorization.k8s.io") or a kind ("Secret").
    """

    emulated: ClassVar[str | None] = None
    """The version that `local` emulates where it is not told one; None: the newest."""

    def __init__(self, kubeconfig: Path, *, context: str | None = None, control_plane: ControlPlane | None = None):
        self.kubeconfig = kubeconfig
        self.control_plane = control_plane
        self.context = context
        self._directory = (
            control_plane.directory / "users"
            if control_plane is not None
            else Path(tempfile.mkdtemp(prefix="tenure-cluster-"))
        )
        if control_plane is None:  # also when the process ends without `close`
            weakref.finalize(self, shutil.rmtree, self._directory, ignore_errors=True)
        self.rest = (
            control_plane.rest
            if control_plane is not None
            else Rest(Credentials.from_kubeconfig(kubeconfig, context=context, directory=self._directory))
        )
        self._resources: dict[str, tuple[str, str, bool]] = {}  # name -> (prefix, plural, namespaced)
        self._namespaces: list[str] = []

    # Life ----------------------------------------------------------------------------------------------------------

    @classmethod
    def local(
        cls,
        *,
        version: str | None = None,
        audit: bool = True,
        audit_megabytes: int = 0,
        signing_key: SigningKey = "rsa",
        directory: Path | None = None,
    ) -> Cluster:
        """A fresh control plane of our own; `close` ends it."""
        emulated = version or cls.emulated
        control_plane = ControlPlane.start(
            directory, version=emulated, audit=audit, audit_megabytes=audit_megabytes, signing_key=signing_key
        )
        return cls(control_plane.kubeconfig, control_plane=control_plane)

    @classmethod
    def current(cls, context: str) -> Cluster:
        """The context of that name in $KUBECONFIG or ~/.kube/config, as a kubeconfig of its own."""
        flattened = subprocess.run(
            [kubectl_binary(), "config", "view", "--raw", "--flatten", "--minify", f"--context={context}"],
            capture_output=True,
            text=True,
            check=False,
        )
        if flattened.returncode != 0:
            raise ValueError(f"context {context}: {flattened.stderr.strip()}")
        with tempfile.NamedTemporaryFile("w", prefix="tenure-", suffix=".kubeconfig") as flat:
            flat.write(flattened.stdout)
            flat.flush()
            cluster = cls(Path(flat.name))
        cluster.kubeconfig = cluster._write("admin", flattened.stdout)
        return cluster

    def close(self) -> None:
        """Deletes the namespaces made here; ends a local control plane with everything in it."""
        if self.control_plane is not None:
            self.control_plane.stop()
        else:
            for name in self._namespaces:
                self.rest.request("DELETE", f"/api/v1/namespaces/{name}")
            self.rest.close()
            shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Requests ------------------------------------------------------------------------------------------------------

    def request(self, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, Any]:
        """One request by path: (HTTP status, JSON). Options: content_type, user, groups, token, headers, timeout."""
        return self.rest.request(method, path, body, **options)

    def path(
        self,
        resource: str,
        name: str | None = None,
        namespace: str | None = None,
        subresource: str | None = None,
    ) -> str:
        """The URL path of an object, or of a collection without `name`. Raises KeyError for an unknown resource."""
        prefix, plural, namespaced = self._resource(resource)
        parts = [prefix]
        if namespaced and namespace is not None:
            parts += ["namespaces", namespace]
        parts.append(plural)
        parts += [part for part in (name, subresource) if part is not None]
        return "/".join(parts)

    def path_of(self, manifest: Mapping[str, Any], subresource: str | None = None) -> str:
        """The URL path of the object that a manifest describes; needs no discovery for the group and version."""
        _, plural, namespaced = self._resource(f"{manifest['apiVersion']}/{manifest['kind']}")
        version = manifest["apiVersion"]
        parts = [f"/apis/{version}" if "/" in version else f"/api/{version}"]
        metadata = manifest["metadata"]
        if namespaced:
            parts += ["namespaces", metadata.get("namespace", "default")]
        parts += [plural, metadata["name"]]
        if subresource:
            parts.append(subresource)
        return "/".join(parts)

    def _resource(self, name: str) -> tuple[str, str, bool]:
        if name not in self._resources:
            self._discover()
        return self._resources[name]

    def _discover(self) -> None:
        """One aggregated answer for the core group and one for the others, instead of one per group."""
        found: dict[str, tuple[str, str, bool]] = {}
        for root in ("/api", "/apis"):
            for group in self.rest.expect("GET", root, headers={"Accept": _DISCOVERY})["items"]:
                group_name = group["metadata"].get("name", "")
                for version in group["versions"]:
                    full = f"{group_name}/{version['version']}" if group_name else version["version"]
                    for entry in version.get("resources", []):
                        plural, kind = entry["resource"], entry.get("responseKind", {}).get("kind", "")
                        value = (f"{root}/{full}", plural, entry["scope"] == "Namespaced")
                        # The first is the group's preferred version, and core comes before all others.
                        for key in (plural, f"{plural}.{group_name}", kind, f"{full}/{kind}"):
                            found.setdefault(key, value)
        self._resources = found

    def get(self, resource: str, name: str, namespace: str | None = None, **options: Any) -> Json | None:
        """The object, None when there is none. Raises ApiError for every other refusal."""
        path = self.path(resource, name, namespace)
        status, answer = self.rest.request("GET", path, **options)
        if status == 404:
            return None
        if status >= 300:
            raise ApiError("GET", path, status, answer)
        result: Json = answer
        return result

    def list(
        self, resource: str, namespace: str | None = None, *, selector: str | None = None, **options: Any
    ) -> Jsons:
        """The objects of a namespace, or of all. `selector` is a label selector."""
        path = self.path(resource, namespace=namespace)
        if selector:
            path += f"?labelSelector={selector}"
        items: list[Json] = self.rest.expect("GET", path, **options)["items"]
        return items

    def create(self, manifest: Mapping[str, Any], **options: Any) -> Json:
        """Creates what the manifest describes (`generateName` works). Raises ApiError."""
        named = {**manifest, "metadata": {"name": "-", **manifest["metadata"]}}
        path = self.path_of(named).rpartition("/")[0]
        created: Json = self.rest.expect("POST", path, manifest, **options)
        return created

    def apply(
        self,
        manifest: Mapping[str, Any],
        *,
        manager: str = FIELD_MANAGER,
        force: bool = True,
        subresource: str | None = None,
        **options: Any,
    ) -> Json:
        """Server-side apply. Raises ApiError."""
        path = f"{self.path_of(manifest, subresource)}?fieldManager={manager}&force={str(force).lower()}"
        applied: Json = self.rest.expect("PATCH", path, manifest, content_type=APPLY, **options)
        return applied

    def apply_yaml(self, text: str, **options: Any) -> Jsons:
        """Applies every document of a YAML text."""
        return [self.apply(document, **options) for document in yaml.safe_load_all(text) if document]

    def patch(
        self,
        resource: str,
        name: str,
        body: Any,
        namespace: str | None = None,
        *,
        subresource: str | None = None,
        content_type: str = MERGE,
        **options: Any,
    ) -> Json:
        """A merge patch, or another by `content_type`. Raises ApiError."""
        path = self.path(resource, name, namespace, subresource)
        patched: Json = self.rest.expect("PATCH", path, body, content_type=content_type, **options)
        return patched

    def delete(
        self, resource: str, name: str, namespace: str | None = None, body: Any = None, **options: Any
    ) -> Json | None:
        """Deletes an object; None when there was none. `body` are DeleteOptions. Raises ApiError."""
        path = self.path(resource, name, namespace)
        status, answer = self.rest.request("DELETE", path, body, **options)
        if status == 404:
            return None
        if status >= 300:
            raise ApiError("DELETE", path, status, answer)
        deleted: Json = answer
        return deleted

    def can(
        self,
        user: str,
        verb: str,
        resource: str,
        *,
        group: str = "",
        namespace: str = "",
        name: str = "",
        subresource: str = "",
        groups: Iterable[str] = (),
    ) -> bool:
        """Whether RBAC allows it, by SubjectAccessReview. `resource` is a plural, `group` its API group."""
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": user,
                "groups": list(groups),
                "resourceAttributes": {
                    "verb": verb,
                    "group": group,
                    "resource": resource,
                    "namespace": namespace,
                    "name": name,
                    "subresource": subresource,
                },
            },
        }
        answer = self.rest.expect("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
        return bool(answer["status"]["allowed"])

    def username(self) -> str:
        """Who asks here, as the API server sees it."""
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        answer = self.rest.expect("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", review)
        return str(answer["status"]["userInfo"]["username"])

    def token_works(self, token: str) -> bool:
        """Whether the API server authenticates this token now (it caches a success for up to 10 s)."""
        status, _ = self.rest.request(
            "POST",
            "/apis/authentication.k8s.io/v1/selfsubjectreviews",
            {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"},
            token=token,
        )
        return status == 201

    eventually = staticmethod(eventually)

    # Namespaces, users, kubectl ------------------------------------------------------------------------------------

    def namespace(
        self,
        prefix: str = "t",
        *,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> str:
        """Makes a namespace named after the prefix and returns its name once its `default` ServiceAccount exists.

        It is deleted in the end.
        """
        stem = re.sub(r"[^a-z0-9-]+", "-", prefix.lower()).strip("-") or "t"
        name = f"{stem[: NAMESPACE_LIMIT - 7]}-{uuid.uuid4().hex[:6]}"
        metadata: Json = {"name": name, "labels": dict(labels or {}), "annotations": dict(annotations or {})}
        self.rest.expect("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        self._namespaces.append(name)
        eventually(
            lambda: self.rest.request("GET", f"/api/v1/namespaces/{name}/serviceaccounts/default")[0] == 200,
            what=f"ServiceAccount default in {name}",
        )
        return name

    def delete_namespace(self, name: str, *, wait: bool = False, timeout: float = 60.0) -> None:
        """Asks for the end of a namespace, and waits for it if told so."""
        path = f"/api/v1/namespaces/{name}"
        self.rest.request("DELETE", path)
        if wait:
            eventually(lambda: self.rest.request("GET", path)[0] == 404, timeout, what=f"namespace {name} gone")

    def user(self, name: str, groups: Iterable[str] = ()) -> Path:
        """The kubeconfig of a user: with a certificate on a local cluster, by impersonation elsewhere."""
        if self.control_plane is not None:
            return self.control_plane.user(name, groups)
        config = yaml.safe_load(self.kubeconfig.read_text())
        for entry in config["users"]:
            entry["user"]["as"] = name
            entry["user"]["as-groups"] = list(groups)
        return self._write("user", yaml.safe_dump(config))

    def token(self, namespace: str, service_account: str, *, seconds: int = 3600, bound: Json | None = None) -> str:
        """A token of a ServiceAccount by TokenRequest. `bound` is a boundObjectRef. Raises ApiError."""
        spec: Json = {"expirationSeconds": seconds}
        if bound is not None:
            spec["boundObjectRef"] = bound
        answer = self.rest.expect(
            "POST",
            f"/api/v1/namespaces/{namespace}/serviceaccounts/{service_account}/token",
            {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec},
        )
        return str(answer["status"]["token"])

    def token_kubeconfig(self, namespace: str, service_account: str, *, server: str | None = None) -> Path:
        """The kubeconfig of a ServiceAccount with a token for a day; `server` may be a FaultProxy's URL."""
        if self.control_plane is not None:
            return self.control_plane.token_kubeconfig(namespace, service_account, server=server)
        path = self._write("token", "")
        ca_file = self.rest.credentials.ca_file
        return write_kubeconfig(
            path,
            server=server or self.rest.credentials.server,
            ca_file=Path(ca_file or "/etc/ssl/certs/ca-certificates.crt"),
            token=self.token(namespace, service_account, seconds=86400),
        )

    def _write(self, stem: str, content: str) -> Path:
        path = self._directory / f"{stem}-{uuid.uuid4().hex[:8]}.kubeconfig"
        path.touch(mode=0o600)
        path.write_text(content)
        return path

    def kubectl(
        self,
        *arguments: str,
        input: str | Json | None = None,
        check: bool = True,
        as_user: str | None = None,
        as_groups: Iterable[str] = (),
        kubeconfig: Path | None = None,
        timeout: float = 120.0,
    ) -> subprocess.CompletedProcess[str]:
        """Runs kubectl. `input` is text, or an object sent as JSON. With `check`, a failure raises with its stderr."""
        command = [kubectl_binary(), *arguments]
        if as_user is not None:
            command.append(f"--as={as_user}")
            command += [f"--as-group={group}" for group in as_groups]
        done = subprocess.run(
            command,
            input=json.dumps(input) if isinstance(input, dict) else input,
            env=self.environment(kubeconfig),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def environment(self, kubeconfig: Path | None = None) -> dict[str, str]:
        """The environment of a command that is to use this cluster."""
        # kubectl caches discovery per host and port, and ports come back with other clusters behind them.
        cache = tempfile.gettempdir() if self.control_plane is None else str(self.control_plane.directory / "tmp")
        return {
            **os.environ,
            "KUBECONFIG": str(kubeconfig or self.kubeconfig),
            "KUBECTL": kubectl_binary(),
            "KUBECACHEDIR": f"{cache}/kubectl",
        }

    # Tenure --------------------------------------------------------------------------------------------------------

    def install(self, *, entitlements: bool = False) -> None:
        """What `make install` does: CRDs, RBAC and admission policies, waiting until they are effective."""
        self._script("install.sh", {"ENTITLEMENTS": "1"} if entitlements else {})
        self._resources.clear()

    def uninstall(self) -> None:
        """What `make uninstall` does."""
        self._script("uninstall.sh", {})
        self._resources.clear()

    def _script(self, name: str, extra: Mapping[str, str]) -> None:
        done = subprocess.run(
            ["bash", str(REPOSITORY / "deploy" / name)],
            env={**self.environment(), **extra},
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"deploy/{name}: status {done.returncode}\n{done.stdout}{done.stderr}")
