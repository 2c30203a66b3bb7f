"""The command line: quick help, one set of settings, clear refusals."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import tenure
from tenure.cli import app
from tenure.settings import Settings, SettingsError, host_and_port, names

SOURCE = Path(tenure.__file__).parent.parent


def run(*arguments: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "120", "NO_COLOR": "1", **(env or {})})


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """What `tenure run` hands to the application."""
    found: list[Settings] = []
    application = ModuleType("tenure.app")
    application.main = found.append  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tenure.app", application)
    return found


def test_run_without_options_is_the_settings_default(started: list[Settings]) -> None:
    assert run("run").exit_code == 0
    assert started == [Settings()]


def test_every_flag(started: list[Settings]) -> None:
    done = run(
        "run", "--kubeconfig", "k", "--context", "c", "--operator-namespace", "ops", "--service-account", "sa",
        "--namespaces", "a,b", "--namespaces", "c", "--platform-namespaces", "istio-system", "--enforcement", "off",
        "--metrics-address", "127.0.0.1:0", "--metrics-certificate", "c.pem", "--metrics-key", "k.pem",
        "--log-level", "debug", "--log-format", "json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert started == [
        Settings(
            kubeconfig="k",
            context="c",
            operator_namespace="ops",
            service_account="sa",
            namespaces=("a", "b", "c"),
            platform_namespaces=("istio-system",),
            enforcement=False,
            metrics_address="127.0.0.1:0",
            metrics_certificate="c.pem",
            metrics_key="k.pem",
            log_level="debug",
            log_format="json",
        )
    ]


def test_the_environment_gives_the_same(started: list[Settings]) -> None:
    env = {"TENURE_NAMESPACES": "a,b c", "TENURE_ENFORCEMENT": "off", "TENURE_LOG_FORMAT": "json"}
    assert run("run", env=env).exit_code == 0
    assert run("run", "--enforcement", "on", env=env).exit_code == 0
    assert [(s.namespaces, s.enforcement, s.log_format) for s in started] == [
        (("a", "b", "c"), False, "json"),
        (("a", "b", "c"), True, "json"),
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--namespaces", "Web"), "--namespaces: 'Web' is no name"),
        (("--platform-namespaces", "kube-*"), "--platform-namespaces: 'kube-*' is no name"),
        (("--metrics-address", "9464"), "--metrics-address: '9464' is not host:port"),
        (("--metrics-address", ":99999"), "not host:port"),
        (("--metrics-certificate", "c.pem"), "--metrics-certificate and --metrics-key go together"),
        (("--metrics-key", "k.pem"), "--metrics-certificate and --metrics-key go together"),
        (("--enforcement", "maybe"), "--enforcement"),
        (("--log-level", "loud"), "--log-level"),
        (("--nonsense",), "--nonsense"),
    ],
)
def test_what_cannot_work_is_refused_with_its_name(started: list[Settings], arguments: Any, said: str) -> None:
    done = run("run", *arguments)
    assert done.exit_code == 2
    assert said in re.sub(r"\s+", " ", done.output)
    assert started == []


def test_a_certificate_that_is_none_ends_it_before_it_connects() -> None:
    wrong = ["--metrics-certificate", "/none/tls.crt", "--metrics-key", "/none/tls.key"]
    command = [sys.executable, "-m", "tenure", "run", "--kubeconfig", "/none", *wrong]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "--metrics-certificate /none/tls.crt, --metrics-key /none/tls.key: no certificate" in done.stderr


def test_settings_refuse_by_themselves() -> None:
    with pytest.raises(SettingsError, match="log-format"):
        Settings(log_format="xml")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="log-level"):
        Settings(log_level="loud")  # type: ignore[arg-type]


def test_addresses() -> None:
    assert host_and_port(":9464") == (None, 9464)
    assert host_and_port("127.0.0.1:0") == ("127.0.0.1", 0)
    assert host_and_port("[::1]:9464") == ("::1", 9464)


def test_names() -> None:
    assert names(["a,b", "b c", "", " d "]) == ("a", "b", "c", "d")


VERDICTS = ("approve", "reject", "attest", "quarantine", "revoke", "release")


@pytest.fixture
def ordered(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The orders that the deciding commands give, each answered with 1."""
    from tenure.report import decide

    found: list[Any] = []

    def answer(settings: Settings, order: Any, ask: Any) -> int:
        found.append((settings, order, ask))
        return 1

    monkeypatch.setattr(decide, "decide", answer)
    return found


@pytest.mark.parametrize("word", VERDICTS)
def test_each_verdict_is_a_command(ordered: list[Any], word: str) -> None:
    assert run(word, "idex/ci", "-n", "payments", "--reason", "r").exit_code == 1
    [(settings, order, ask)] = ordered
    assert settings == Settings()
    assert (order.verdict.lower(), order.target, order.namespace, order.reason) == (word, "idex/ci", "payments", "r")
    assert (order.verb, order.only_print, order.yes, order.timeout) == ("", False, False, 30.0)
    assert ask is None, "nobody is asked where there is no terminal"


def test_every_option_of_a_verdict(ordered: list[Any]) -> None:
    done = run(
        "approve", "idex/ci", "--namespace", "payments", "--reason", "r", "--verb", "approve-security", "--print",
        "--yes", "--timeout", "5", "--kubeconfig", "k", "--context", "c",
    )  # fmt: skip
    assert done.exit_code == 1, done.output
    [(settings, order, _)] = ordered
    assert settings == Settings(kubeconfig="k", context="c")
    assert (order.verb, order.only_print, order.yes, order.timeout) == ("approve-security", True, True, 5.0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("approve", "idex/ci", "-n", "payments"), "--reason"),
        (("approve", "idex/ci", "--reason", "r"), "--namespace"),
        (("approve", "-n", "payments", "--reason", "r"), "KIND/NAME"),
        (("approve", "idex/ci", "-n", "payments", "--reason", "r", "--timeout", "-1"), "--timeout"),
        (("pending", "-o", "csv"), "--output"),
    ],
)
def test_what_is_left_out_is_named(ordered: list[Any], arguments: tuple[str, ...], said: str) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert said in done.output
    assert ordered == []


def test_version() -> None:
    assert run("version").output == f"{tenure.__version__}\n"


def test_help_imports_nothing_heavy() -> None:
    heavy = ("kopf", "kubernetes", "pydantic", "prometheus_client", "aiohttp")
    code = (
        "import sys\nfrom tenure.cli import app\n"
        "try:\n    app(['--help'], prog_name='tenure')\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=SOURCE, check=True)
    assert done.stderr == "[]\n"
    assert "inventory" in done.stdout


def test_python_m_tenure() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tenure", "version"], capture_output=True, text=True, cwd=SOURCE, check=True
    )
    assert done.stdout == f"{tenure.__version__}\n"


def test_inventory_without_a_cluster_says_what_to_do(tmp_path: Path) -> None:
    done = run("inventory", "--kubeconfig", str(tmp_path / "none"))
    assert done.exit_code == 2
    assert "no kubeconfig at" in done.output
    assert "--kubeconfig" in done.output
    assert done.exception is None or isinstance(done.exception, SystemExit)
