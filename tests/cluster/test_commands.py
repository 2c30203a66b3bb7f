"""`tenure approve` and its like on a real API server, as real users: what they make, what they say, how they end."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.tenure_objects import (
    OPERATOR,
    claim,
    exception,
    finding,
    grant,
    owner,
    quarantine,
    service_account,
    token_secret,
)
from tests.support.cluster import REPOSITORY, Cluster, eventually, kubectl_binary
from tests.support.operator import Operator

Json = dict[str, Any]

ALL_KINDS = ["identityexceptions", "ownedidentities", "identityfindings", "quarantines"]


def environment(kubeconfig: Path) -> dict[str, str]:
    found = {name: value for name, value in os.environ.items() if not name.startswith("TENURE_")}
    found |= {"PYTHONPATH": str(REPOSITORY / "operator"), "KUBECONFIG": str(kubeconfig)}
    found.pop("COLUMNS", None)
    return found


def tenure(kubeconfig: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tenure", *arguments],
        env=environment(kubeconfig),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def squeezed(text: str) -> str:
    return re.sub(r"\s+", " ", text)


@pytest.fixture
def decider(installed: Cluster, namespace: str) -> str:
    """A user who may read, write decisions, and give every verdict in the namespace."""
    user = f"decider-{namespace[-6:]}"
    grant(installed, namespace, user, ["get", "list"], [*ALL_KINDS, "identitydecisions"])
    grant(installed, namespace, user, ["create"], ["identitydecisions"])
    grant(installed, namespace, user, ["approve", "approve-security", "reject", "attest"], ["identityexceptions"])
    grant(installed, namespace, user, ["attest"], ["ownedidentities"])
    grant(installed, namespace, user, ["quarantine", "revoke"], ["identityfindings"])
    grant(installed, namespace, user, ["release"], ["quarantines"])
    return user


@pytest.fixture
def waiver(installed: Cluster, namespace: str) -> Json:
    """A pending exception that somebody else asked for."""
    return installed.create(exception(namespace, requestedBy=installed.username()))


def decisions(cluster: Cluster, namespace: str) -> list[Json]:
    return cluster.list("identitydecisions", namespace)


def test_approve_makes_a_decision_about_what_was_shown(
    installed: Cluster, namespace: str, decider: str, waiver: Json
) -> None:
    at_once = ("-n", namespace, "--reason", "contract 4711", "--timeout", "0")
    done = tenure(installed.user(decider), "approve", "idex/exception", *at_once)
    assert done.returncode == 0, done.stderr
    [made] = decisions(installed, namespace)
    assert made["spec"] == made["spec"] | {
        "target": {
            "kind": "IdentityException",
            "name": "exception",
            "uid": waiver["metadata"]["uid"],
            "generation": waiver["metadata"]["generation"],
        },
        "verdict": "Approve",
        "verb": "approve",
        "reason": "contract 4711",
        "by": decider,
    }
    assert re.fullmatch(r"approve-exception-[0-9a-f]{6}", made["metadata"]["name"])
    shown = squeezed(done.stdout)
    for words in (
        "IdentityException",
        "generation 1",
        "waives LegacyToken",
        "for Secret ci-token",
        f"You decide Approve with the verb approve, as {decider}: contract 4711",
        f"identitydecision/{made['metadata']['name']} made.",
    ):
        assert words in shown
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 120


def test_each_verdict_about_its_kind(installed: Cluster, namespace: str, decider: str, waiver: Json) -> None:
    """Findings and Quarantines are the operator's to write."""
    claims = installed.create(claim(namespace, owner="payments"))
    found = installed.create(finding(namespace, revision=3), user=OPERATOR)
    held = installed.create(quarantine(namespace, finalizer=False), user=OPERATOR)
    kubeconfig = installed.user(decider)
    given: list[tuple[str, str, Mapping[str, Any]]] = [
        ("reject", "identityexceptions/exception", waiver),
        ("attest", "OwnedIdentity/claim", claims),
        ("attest", "idex/exception", waiver),
        ("quarantine", "idf/unowned-0", found),
        ("revoke", "IDF/unowned-0", found),
        ("release", "quar/serviceaccount-ci", held),
    ]
    for word, target, _ in given:
        done = tenure(kubeconfig, word, target, "-n", namespace, "--reason", "tests", "--timeout", "0")
        assert done.returncode == 0, done.stderr
    made = {
        (d["spec"]["verdict"].lower(), d["spec"]["target"]["kind"]): d["spec"] for d in decisions(installed, namespace)
    }
    assert len(made) == len(given)
    for word, _, target in given:
        named = made[word, target["kind"]]["target"]
        assert named["uid"] == target["metadata"]["uid"]
        if target["kind"] in ("IdentityException", "OwnedIdentity"):
            assert named["generation"] == target["metadata"]["generation"]
    assert made["revoke", "IdentityFinding"]["target"]["revision"] == 3
    assert set(made["release", "Quarantine"]["target"]) == {"kind", "name", "uid"}


def test_while_the_operator_is_away_the_decision_stands(
    installed: Cluster, namespace: str, decider: str, waiver: Json
) -> None:
    done = tenure(
        installed.user(decider), "approve", "idex/exception", "-n", namespace, "--reason", "r", "--timeout", "1"
    )
    assert done.returncode == 1
    assert "It stands, and the operator has not taken it up within 1 s." in done.stdout
    [made] = decisions(installed, namespace)
    assert f"kubectl get identitydecision {made['metadata']['name']} -n {namespace}" in done.stdout


def test_print_writes_what_kubectl_applies(installed: Cluster, namespace: str, decider: str, waiver: Json) -> None:
    kubeconfig = installed.user(decider)
    order = (
        "approve",
        "idex/exception",
        "-n",
        namespace,
        "--verb",
        "approve-security",
        "--reason",
        "it's: fine\n# really",
    )
    printed = tenure(kubeconfig, *order, "--print")
    assert (printed.returncode, printed.stderr) == (0, "")
    assert decisions(installed, namespace) == []
    manifest = yaml.safe_load(printed.stdout)
    assert (manifest["spec"]["by"], manifest["spec"]["verb"]) == (decider, "approve-security")
    installed.kubectl("create", "-f", "-", input=printed.stdout, kubeconfig=kubeconfig)
    [made] = decisions(installed, namespace)
    assert made["metadata"]["name"] == manifest["metadata"]["name"]
    assert made["spec"] == made["spec"] | manifest["spec"]


def test_what_changed_after_it_was_shown_is_not_what_was_decided(
    installed: Cluster, namespace: str, decider: str, waiver: Json
) -> None:
    """The question is open while the exception changes under it."""
    terminal = Terminal(
        installed.user(decider), "approve", "idex/exception", "-n", namespace, "--reason", "r", "--timeout", "0"
    )
    with terminal:
        terminal.wait_for("Decide this? [y/N]")
        installed.patch("identityexceptions", "exception", {"spec": {"expiresAt": "2027-01-30T00:00:00Z"}}, namespace)
        terminal.answer("y\n")
        assert terminal.end() == 0, terminal.text
    [made] = decisions(installed, namespace)
    assert made["spec"]["target"]["generation"] == 1
    now = installed.get("identityexceptions", "exception", namespace)
    assert now is not None
    assert now["metadata"]["generation"] == 2


# --- with the operator


@pytest.fixture
def governed(installed: Cluster, namespace: str, tmp_path: Path) -> Iterator[Cluster]:
    """The installed cluster with a running operator."""
    installed.apply(owner("payments"))
    service_account(installed, namespace)
    installed.create(token_secret(namespace, "ci-token", "ci"))
    with Operator(installed.kubeconfig, directory=tmp_path / "operator"):
        yield installed


def test_the_outcome_and_what_it_led_to_are_told(governed: Cluster, namespace: str, decider: str) -> None:
    governed.create(exception(namespace, requestedBy=governed.username()))
    done = tenure(
        governed.user(decider), "approve", "idex/exception", "-n", namespace, "--reason", "r", "--timeout", "30"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Counted: Approved." in done.stdout
    [made] = decisions(governed, namespace)
    assert made["status"]["outcome"] == "Counted"


def test_a_void_decision_is_no_success(governed: Cluster, namespace: str, decider: str) -> None:
    """No policy asks for a second party."""
    governed.create(exception(namespace, requestedBy=governed.username()))
    order = ("approve", "idex/exception", "-n", namespace, "--verb", "approve-security", "--reason", "r")
    done = tenure(governed.user(decider), *order)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Void: NotAsked." in done.stdout


# --- what is refused


def test_what_the_api_server_refuses_is_told_in_its_words(installed: Cluster, namespace: str, waiver: Json) -> None:
    user = f"reader-{namespace[-6:]}"
    grant(installed, namespace, user, ["get", "list"], [*ALL_KINDS, "identitydecisions"])
    done = tenure(installed.user(user), "approve", "idex/exception", "-n", namespace, "--reason", "r")
    assert done.returncode == 1
    assert f'User "{user}" cannot create resource "identitydecisions"' in done.stderr
    assert len(done.stderr.splitlines()) == 1
    grant(installed, namespace, user, ["create"], ["identitydecisions"])
    done = tenure(installed.user(user), "approve", "idex/exception", "-n", namespace, "--reason", "r")
    assert done.returncode == 1
    assert f"user {user} may not approve IdentityException {namespace}/exception" in done.stderr
    assert decisions(installed, namespace) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("approve", "idex/nothing"), "there is no identityexception/nothing in namespace"),
        (("approve", "exception"), "'exception' is not KIND/NAME"),
        (("approve", "secret/ci"), "nothing is decided about a secret"),
        (("approve", "idf/unowned-0"), "Approve is about an IdentityException"),
        (("approve", "idex/exception", "--verb", "reject"), "the verb 'reject' does not give the verdict Approve"),
        (("attest", "quar/x"), "Attest is about an OwnedIdentity or an IdentityException"),
        (("approve", "idex/exception", "--reason", ""), "--reason: "),
    ],
)
def test_wrong_usage_is_told_with_what_to_do(
    installed: Cluster, namespace: str, decider: str, waiver: Json, arguments: tuple[str, ...], said: str
) -> None:
    more = () if "--reason" in arguments else ("--reason", "r")
    done = tenure(installed.user(decider), *arguments, "-n", namespace, *more)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert decisions(installed, namespace) == []


def test_nothing_is_decided_unseen(installed: Cluster, namespace: str, waiver: Json) -> None:
    user = f"blind-{namespace[-6:]}"
    grant(installed, namespace, user, ["create"], ["identitydecisions"])
    done = tenure(installed.user(user), "approve", "idex/exception", "-n", namespace, "--reason", "r")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"you may not get identityexceptions.tenure.dev in {namespace}, and nothing is decided unseen" in done.stderr


def test_what_cannot_be_seen_beside_it_is_named(installed: Cluster, namespace: str, waiver: Json) -> None:
    user = f"narrow-{namespace[-6:]}"
    grant(installed, namespace, user, ["get"], ["identityexceptions", "identitydecisions"])
    grant(installed, namespace, user, ["create"], ["identitydecisions"])
    grant(installed, namespace, user, ["approve"], ["identityexceptions"])
    done = tenure(installed.user(user), "approve", "idex/exception", "-n", namespace, "--reason", "r", "--timeout", "0")
    assert done.returncode == 0, done.stderr
    shown = squeezed(done.stdout)
    assert (
        f"you may not list identityfindings.tenure.dev in {namespace}: which findings it bears on is unknown" in shown
    )
    assert f"you may not list identitydecisions.tenure.dev in {namespace}: what was decided before is unknown" in shown


def test_nobody_answers(installed: Cluster, namespace: str, tmp_path: Path) -> None:
    config = yaml.safe_load(installed.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    elsewhere = tmp_path / "kubeconfig"
    elsewhere.write_text(yaml.safe_dump(config))
    done = tenure(elsewhere, "approve", "idex/exception", "-n", namespace, "--reason", "r")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("tenure: https://127.0.0.1:1 does not answer")


# --- as kubectl's plugin, and on a terminal


def test_kubectl_runs_it_as_a_plugin(installed: Cluster, namespace: str, decider: str, waiver: Json) -> None:
    beside = Path(sys.executable).with_name("kubectl-tenure")
    assert beside.exists(), "make setup installs it"
    kubeconfig = installed.user(decider)
    done = subprocess.run(
        [kubectl_binary(), "tenure", "approve", "idex/exception", "-n", namespace, "--reason", "r", "--timeout", "0"],
        env=environment(kubeconfig) | {"PATH": f"{beside.parent}{os.pathsep}{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [made["spec"]["by"] for made in decisions(installed, namespace)] == [decider]


class Terminal:
    """The command on a pseudo-terminal, as a person has it."""

    def __init__(self, kubeconfig: Path, *arguments: str) -> None:
        self._master, slave = pty.openpty()
        self.text = ""
        self.closed = False
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tenure", *arguments],
            env=environment(kubeconfig) | {"TERM": "dumb", "COLUMNS": "100"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(slave)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)

    def _read(self, seconds: float) -> bool:
        """Whether something came within the time, or the other side closed (then `closed`)."""
        ready, _, _ = select.select([self._master], [], [], max(0.0, seconds))
        if not ready:
            return False
        try:
            piece = os.read(self._master, 4096)
        except OSError:  # how Linux says that the other side is closed
            piece = b""
        self.closed = not piece
        self.text += piece.decode()
        return True

    def wait_for(self, text: str, timeout: float = 60.0) -> None:
        deadline = time.monotonic() + timeout
        while text not in self.text:
            assert self._read(deadline - time.monotonic()), f"nothing more came: {self.text}"
            assert not self.closed, f"it ended: {self.text}"

    def answer(self, text: str) -> None:
        os.write(self._master, text.encode())

    def end(self, timeout: float = 60.0, *, insisting: str = "") -> int:
        """The exit status. `insisting` is typed every second again: a signal that arrives after the question is
        shown and before it is waited for is seen only with the next key."""
        deadline = time.monotonic() + timeout
        while not self.closed:
            if not self._read(1.0):
                assert time.monotonic() < deadline, f"it does not end: {self.text}"
                self.answer(insisting)
        return self._process.wait(timeout)


def _take_terminal() -> None:
    """Makes the pseudo-terminal the process's own, so that Ctrl-C typed into it is a signal; one that counts, also
    where these tests were started in the background of a shell, whose children ignore it."""
    import fcntl
    import signal
    import termios

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.mark.parametrize("answer", ["n\n", "\n", "\x03", "\x04"], ids=["no", "enter", "ctrl-c", "ctrl-d"])
def test_only_yes_is_yes(installed: Cluster, namespace: str, decider: str, waiver: Json, answer: str) -> None:
    with Terminal(installed.user(decider), "approve", "idex/exception", "-n", namespace, "--reason", "r") as terminal:
        terminal.wait_for("Decide this? [y/N]")
        assert "waives" in terminal.text
        terminal.answer(answer)
        assert terminal.end(insisting=answer) == 1
        assert "Nothing was decided." in terminal.text
        assert "Traceback" not in terminal.text
    assert decisions(installed, namespace) == []


def test_yes_on_a_terminal_asks_nothing(installed: Cluster, namespace: str, decider: str, waiver: Json) -> None:
    more = ("--reason", "r", "--yes", "--timeout", "0")
    with Terminal(installed.user(decider), "approve", "idex/exception", "-n", namespace, *more) as terminal:
        assert terminal.end() == 0, terminal.text
        assert "Decide this?" not in terminal.text
    assert len(decisions(installed, namespace)) == 1


# --- an owner for whom nobody may decide


@pytest.mark.local
def test_an_owner_for_whom_nobody_may_decide_says_so(fresh_cluster: Callable[..., Cluster], tmp_path: Path) -> None:
    """On a cluster of its own: a cluster-wide binding of another test would be somebody."""
    cluster = fresh_cluster(installed=True)
    place = cluster.namespace("nobody")
    cluster.apply(owner("payments"))
    service_account(cluster, place)
    cluster.create(claim(place))

    def condition() -> str:
        found = cluster.get("identityowners", "payments") or {}
        conditions = found.get("status", {}).get("conditions", [])
        assert not conditions or [c["status"] for c in conditions if c["type"] == "Ready"] == ["True"]
        return next((c["message"] for c in conditions if c["type"] == "NobodyMayDecide"), "")

    with Operator(cluster.kubeconfig, directory=tmp_path / "operator"):
        eventually(lambda: f"Accountable in {place}, where no binding" in condition(), what="NobodyMayDecide")
        bind(cluster, place, "wildcard", {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]})
        approving = {"apiGroups": ["tenure.dev"], "resources": ["identityexceptions"], "verbs": ["approve"]}
        bind(cluster, place, "approvers", approving)
        eventually(lambda: condition() == "", what="a bound group is somebody")
        cluster.delete("rolebindings", "approvers", place)
        eventually(lambda: condition() != "", what="the wildcard binding alone is nobody")


def bind(cluster: Cluster, namespace: str, name: str, rule: Json) -> None:
    """A Role with this rule, bound to a group."""
    rbac = "rbac.authorization.k8s.io"
    metadata = {"name": name, "namespace": namespace}
    cluster.apply({"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": metadata, "rules": [rule]})
    cluster.apply(
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": name},
            "subjects": [{"kind": "Group", "apiGroup": rbac, "name": "team-payments"}],
        }
    )
