"""Where the demo runs: on a control plane of its own, or, with CLUSTER=current, beside whatever a cluster holds."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import urllib3
import yaml
from kubernetes import client as kubernetes_client
from kubernetes import config as kubernetes_config

from tests.demo.examples import FOLDER, Json, Names, in_seconds, read
from tests.demo.narrator import Narrator
from tests.support.binary import ensure_binary
from tests.support.cluster import REPOSITORY, ApiError, Cluster, NotYet, eventually, kubectl_binary
from tests.support.operator import Operator

OPERATOR_NAMESPACE = "tenure-system"
HIGHEST_PRECEDENCE = 1_000_000
MERGE_AWAY = {"metadata": {"finalizers": None}}

NEEDED = (
    ("create", "", "namespaces"),
    ("delete", "", "namespaces"),
    ("create", "tenure.dev", "identityowners"),
    ("delete", "tenure.dev", "identityowners"),
    ("create", "tenure.dev", "governancepolicies"),
    ("delete", "tenure.dev", "governancepolicies"),
    ("create", "", "serviceaccounts"),
    ("create", "", "secrets"),
    ("get", "", "secrets"),
    ("create", "rbac.authorization.k8s.io", "rolebindings"),
    ("impersonate", "", "users"),
    ("impersonate", "", "groups"),
)
"""(verb, group, resource) that the demo uses on somebody's cluster; `kubectl auth can-i` answers the same."""


class CannotBegin(Exception):
    """Something the demo needs is not there; the message says what to do."""


class NotClean(Exception):
    """Something the demo made could not be removed; the message names it and the command that does."""


class Ground:
    """One cluster, the operator on it, and everything the demo put there. `close` removes all of it, once."""

    whole = True
    """Whether the whole cluster is ours: then kube-system too is written to and observed."""

    def __init__(self, narrator: Narrator) -> None:
        self.narrator = narrator
        self.names = Names()
        self.cluster: Cluster
        self.operator: Operator | None = None
        self.directory = Path(tempfile.mkdtemp(prefix="tenure-demo-"))
        """Private; what processes write while the demo runs lies here."""

    @property
    def arguments(self) -> list[str]:
        """Of `tenure run`."""
        return []

    def prepare(self) -> None:
        """Brings the cluster to the point where Tenure is installed. Raises CannotBegin."""
        raise NotImplementedError

    def policy(self, manifest: Json) -> Json:
        """The policy as it is applied here."""
        return in_seconds(manifest)

    def run_operator(self) -> Operator:
        """Starts `tenure run` and waits until its inventory is complete."""
        directory = self.directory / "operator"
        operator = Operator(
            self.cluster.kubeconfig,
            arguments=self.arguments,
            environment={"TMPDIR": str(directory)},  # a client key may pass through a temporary file
            directory=directory,
            wait=False,
        )
        self.operator = operator
        operator.start()
        with self.narrator.waiting("waiting for the operator's first complete inventory"):
            operator.wait_ready()
        return operator

    def apply(self, file: str) -> list[Json]:
        """Applies one file of examples/ under this ground's names; the objects."""
        manifests = read(FOLDER / file, self.names)
        for number, manifest in enumerate(manifests):
            if manifest["kind"] == "GovernancePolicy":
                manifests[number] = manifest = self.policy(manifest)
            if manifest["kind"] == "IdentityException":  # before Kubernetes 1.36 nobody stamps it
                manifest["spec"]["requestedBy"] = self.cluster.username()
            eventually(lambda manifest=manifest: self.cluster.apply(manifest), 10, what=_title(manifest))  # type: ignore[misc]
        return manifests

    def close(self) -> None:
        """Ends the operator and removes what was made. Raises NotClean."""
        if self.operator is not None:
            self.operator.close()
        if hasattr(self, "cluster"):
            self.cluster.close()
        shutil.rmtree(self.directory, ignore_errors=True)


def _title(manifest: Json) -> str:
    return f"apply {manifest['kind']}/{manifest['metadata']['name']}"


class OwnGround(Ground):
    """A control plane in a private directory; ending it removes everything."""

    def prepare(self) -> None:
        ensure_binary()  # says itself how far it is
        with self.narrator.waiting("starting etcd, kube-apiserver and kube-controller-manager"):
            self.cluster = Cluster.local(audit=False)
        version = self.cluster.request("GET", "/version")[1]["gitVersion"]
        self.narrator.said(f"Kubernetes {version} runs on loopback: etcd, API server, controller manager, no node")
        with self.narrator.waiting("installing Tenure: CRDs, RBAC, admission policies"):
            self.cluster.install()
        self.narrator.said("Tenure is installed: its kinds, the operator's rights, the admission policies")


class CurrentGround(Ground):
    """The current kubeconfig's cluster: a namespace of the demo's own, its owners, and a policy for that namespace."""

    whole = False

    def __init__(self, narrator: Narrator, context: str | None) -> None:
        super().__init__(narrator)
        self._context = context
        self._precedence = 0
        self._wrote = False

    @property
    def arguments(self) -> list[str]:
        return ["--namespaces", self.names.namespace]

    def prepare(self) -> None:
        tempfile.tempdir = str(self.directory)  # kubeconfigs of the demo's users, kubectl's cache
        kubeconfig, context = static_kubeconfig(self.directory, self._context)
        self.cluster = Cluster(kubeconfig)
        try:
            self._check(context)
        except urllib3.exceptions.HTTPError as error:
            raise CannotBegin(f"context {context}: the API server does not answer: {error}") from error
        self.names = Names.own(uuid.uuid4().hex[:6])
        self._wrote = True
        self.narrator.said(
            f"context {context}: everything happens in the namespace {self.names.namespace}, which is new; outside it "
            f"only the IdentityOwners {self.names.payments} and {self.names.platform}, the GovernancePolicy "
            f"{self.names.namespace} (precedence {self._precedence}, for that namespace alone) and the installation's "
            "own state are written"
        )

    def _check(self, context: str) -> None:
        for file in sorted((REPOSITORY / "crds").glob("*.yaml")):
            self._installed(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{file.stem}", context)
        self._installed("/apis/rbac.authorization.k8s.io/v1/clusterroles/tenure", context)
        for policy in ("tenure-own-kinds", "tenure-own-claims", "tenure-guard-tokens", "tenure-guard-secrets"):
            self._installed(
                f"/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/{policy}", context
            )
        self._installed(f"/api/v1/namespaces/{OPERATOR_NAMESPACE}/serviceaccounts/tenure", context)
        missing = [f"{verb} {plural}" for verb, group, plural in NEEDED if not self._may(verb, group, plural)]
        if missing:
            raise CannotBegin(f"context {context}: you may not {', '.join(missing)}: the demo needs an administrator")
        # A kind that was installed a moment ago is answered 429 for a second or two.
        [policies] = eventually(lambda: [self.cluster.list("governancepolicies")], 30, what="list of policies")
        self._precedence = 1 + max((policy["spec"].get("precedence", 0) for policy in policies), default=-1)
        if self._precedence > HIGHEST_PRECEDENCE:
            highest = [p["metadata"]["name"] for p in policies if p["spec"].get("precedence") == HIGHEST_PRECEDENCE]
            raise CannotBegin(
                f"GovernancePolicy {', '.join(highest)} has the highest precedence there is: lower it first"
            )

    def _installed(self, path: str, context: str) -> None:
        status, answer = self.cluster.request("GET", path)
        if status == 404:
            raise CannotBegin(
                f"Tenure is not installed where context {context} points ({path} is missing): make install"
            )
        if status != 200:
            message = answer.get("message", "") if isinstance(answer, dict) else answer
            raise CannotBegin(f"context {context}: {status} on {path}: {message}")

    def _may(self, verb: str, group: str, resource: str) -> bool:
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {"verb": verb, "group": group, "resource": resource}},
        }
        status, answer = self.cluster.request("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
        return status == 201 and bool(answer["status"]["allowed"])

    def policy(self, manifest: Json) -> Json:
        shortened = in_seconds(manifest)
        shortened["spec"]["precedence"] = self._precedence
        return shortened

    # Cleaning up ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        left: list[str] = []
        try:
            if self._wrote:
                left = self._remove()
        finally:
            super().close()
        if left:
            raise NotClean("; ".join(left))

    def _remove(self) -> list[str]:
        """Removes it all, as far as it can; what is left. The operator still runs: it lifts its finalizers itself."""
        guard = f"entries of {self.names.namespace} in QuarantineGuard {OPERATOR_NAMESPACE}/guard"
        left = []
        for what, remove in (
            ("the operator's end", self._revive_operator),
            (f"namespace {self.names.namespace}", self._remove_namespace),
            (f"GovernancePolicy {self.names.namespace} and its IdentityOwners", self._remove_cluster_scoped),
            (f"{guard}, which the next `tenure run` takes out", self._await_guard),
        ):
            try:
                remove()
            except (ApiError, AssertionError, urllib3.exceptions.HTTPError) as error:
                left.append(f"{what} ({error})")
        return left

    def _revive_operator(self) -> None:
        """One that has ended by itself is needed once more: what it holds, it alone gives back."""
        if self.operator is not None and self.operator.returncode is not None:
            self.narrator.said("the operator has ended: it is started again to give back what it holds")
            self.operator.start().wait_ready()

    def _remove_namespace(self) -> None:
        name = self.names.namespace
        self.cluster.delete("namespaces", name)
        with self.narrator.waiting(f"waiting for the end of namespace {name}"):
            try:
                eventually(lambda: self.cluster.get("namespaces", name) is None, 30, what=f"end of namespace {name}")
            except NotYet:
                # The operator is gone, or cannot: what is left in the namespace are Quarantines that wait for it.
                for quarantine in self.cluster.list("quarantines", name):
                    self.cluster.patch("quarantines", quarantine["metadata"]["name"], MERGE_AWAY, name)
                eventually(lambda: self.cluster.get("namespaces", name) is None, 60, what=f"end of namespace {name}")
        self.narrator.said(f"namespace {name} is gone")

    def _remove_cluster_scoped(self) -> None:
        self.cluster.delete("governancepolicies", self.names.namespace)
        for owner in (self.names.payments, self.names.platform):
            self.cluster.delete("identityowners", owner)
        self.narrator.said("so are its GovernancePolicy and IdentityOwners")

    def _await_guard(self) -> None:
        def clean() -> bool:
            guard = self.cluster.get("quarantineguards", "guard", OPERATOR_NAMESPACE)
            return guard is None or self.names.namespace not in json.dumps(guard["spec"])

        eventually(clean, 15, what="the guard of bindings without the demo's entries")


def static_kubeconfig(directory: Path, context: str | None) -> tuple[Path, str]:
    """The context in a file of its own, and its name. What an exec plugin answers is written down: everything in the
    demo, kubectl and the operator included, then works with the same credentials. Raises CannotBegin."""
    command = [kubectl_binary(), "config", "view", "--raw", "--flatten", "--minify", "--output=json"]
    if context:
        command.append(f"--context={context}")
    viewed = subprocess.run(command, capture_output=True, text=True, check=False)
    if viewed.returncode != 0:
        raise CannotBegin(f"no usable kubeconfig: {viewed.stderr.strip()}")
    config: dict[str, Any] = json.loads(viewed.stdout)
    path = directory / "kubeconfig"
    _write(path, config)
    user = config["users"][0]["user"]
    if "exec" in user or "auth-provider" in user:
        answered = kubernetes_client.Configuration()
        try:
            kubernetes_config.load_kube_config(str(path), client_configuration=answered)  # type: ignore[no-untyped-call]
        except kubernetes_config.ConfigException as error:
            raise CannotBegin(f"context {config['current-context']}: {error}") from error
        user.clear()
        if answered.cert_file and answered.key_file:
            user |= {"client-certificate": answered.cert_file, "client-key": answered.key_file}
        for header in (answered.api_key or {}).values():  # its key has changed between versions of the package
            user["token"] = header.partition(" ")[2]
        if not user:
            raise CannotBegin(f"context {config['current-context']}: its exec plugin gave no credentials")
        _write(path, config)
    return path, config["current-context"]


def _write(path: Path, config: dict[str, Any]) -> None:
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(config))


@contextlib.contextmanager
def ground(narrator: Narrator) -> Iterator[Ground]:
    """The ground that $CLUSTER asks for, not yet prepared; closed in the end. Raises CannotBegin and NotClean."""
    asked = os.environ.get("CLUSTER") or "own"
    if asked not in ("own", "local", "current"):
        raise CannotBegin(
            f"CLUSTER={asked}: the demo knows CLUSTER=current; without it, it starts a cluster of its own"
        )
    chosen: Ground
    if asked == "current":
        chosen = CurrentGround(narrator, os.environ.get("CONTEXT") or None)
    else:
        chosen = OwnGround(narrator)
    try:
        yield chosen
    finally:
        chosen.close()
