"""A real Prometheus and a real Alertmanager on loopback, as Debian ships them, with the rules of the chart.

with Inbox() as inbox, Alertmanager(directory, config) as alertmanager:
    with Prometheus(directory, target="127.0.0.1:9464", alertmanager=alertmanager) as prometheus:
        prometheus.query('tenure_findings{phase="Open"}')
"""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import urllib3
import yaml

from tests.support.cluster import REPOSITORY, eventually
from tests.support.controlplane import free_ports

Json = dict[str, Any]
Sample = tuple[dict[str, str], float]

FILES: Final = REPOSITORY / "charts" / "tenure" / "files"
RULES: Final = tuple(sorted([*FILES.glob("rules/*.yaml"), *FILES.glob("alerts/*.yaml")]))
DASHBOARDS: Final = tuple(sorted(FILES.glob("dashboards/*.json")))
MISSING: Final = [
    name for name in ("prometheus", "promtool", "prometheus-alertmanager", "amtool") if shutil.which(name) is None
]
"""Programs that are not on PATH; .ci/run installs them."""


def hastened(text: str) -> str:
    """A rule file that is looked at every second and waits for nothing; expressions, labels and words as they ship."""
    content: Json = yaml.safe_load(text)
    for group in content["groups"]:
        group.pop("interval", None)
        for rule in group["rules"]:
            rule.pop("for", None)
    return yaml.safe_dump(content)


def queries() -> Iterator[tuple[str, str]]:
    """Every expression that ships, with where it stands."""
    for path in RULES:
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                yield f"{path.name}/{rule.get('record') or rule['alert']}", rule["expr"]
    for path in DASHBOARDS:
        board = json.loads(path.read_text())
        variables = {v["name"]: v["current"]["value"] for v in board["templating"]["list"] if v["type"] == "custom"}
        for panel in board["panels"]:
            for target in panel.get("targets", ()):
                text = re.sub(r"\$(\w+)", lambda named: variables[named[1]], target["expr"])  # noqa: B023
                yield f"{path.name}/{panel['title']}", text


class _Server:
    """A process that answers on a port of its own; ends with the context."""

    def __init__(self, directory: Path, program: str) -> None:
        self.directory = directory / program
        self.directory.mkdir(parents=True)
        [port] = free_ports(1)
        self.address = f"127.0.0.1:{port}"
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        self._http = urllib3.PoolManager(retries=False)

    def _start(self, *arguments: str) -> None:
        log = self.directory / "log"
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                [self._program, *arguments], cwd=self.directory, stdout=file, stderr=file, stdin=subprocess.DEVNULL
            )

        def ready() -> bool:
            assert self._process is not None
            if self._process.poll() is not None:
                raise RuntimeError(f"{self._program} ended\n{log.read_text()[-2000:]}")
            return self._http.request("GET", f"http://{self.address}/-/ready", timeout=2).status == 200

        eventually(ready, what=f"{self._program} ready")

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._http.clear()


class Inbox:
    """Where Alertmanager's webhooks arrive, by the last part of their path."""

    def __init__(self) -> None:
        self.received: list[tuple[str, Json]] = []
        inbox = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                inbox.received += [(self.path.strip("/"), alert) for alert in body["alerts"]]
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def of(self, receiver: str) -> list[Json]:
        """The alerts that this receiver was told of, with labels and annotations."""
        return [alert for name, alert in self.received if name == receiver]

    def __enter__(self) -> Inbox:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class Alertmanager(_Server):
    """With a configuration as it ships, but for addresses (the inbox's) and the time it waits before it tells."""

    def __init__(self, directory: Path, config: Path, inbox: Inbox) -> None:
        super().__init__(directory, "prometheus-alertmanager")
        content: Json = yaml.safe_load(config.read_text())
        content["route"] |= {"group_wait": "1s", "group_interval": "1s"}
        for receiver in content["receivers"]:
            for webhook in receiver["webhook_configs"]:
                webhook["url"] = f"{inbox.url}/{receiver['name']}"
        (self.directory / "config.yaml").write_text(yaml.safe_dump(content))

    def __enter__(self) -> Alertmanager:
        self._start(
            "--config.file=config.yaml",
            "--storage.path=data",
            f"--web.listen-address={self.address}",
            "--cluster.listen-address=",
        )
        return self


class Prometheus(_Server):
    """Scrapes one operator every second, `honor_labels` as in the chart, and evaluates the chart's rules. With an
    `authority` it scrapes over TLS, and trusts that one alone."""

    def __init__(
        self,
        directory: Path,
        *,
        target: str,
        alertmanager: Alertmanager | None = None,
        authority: Path | None = None,
    ) -> None:
        super().__init__(directory, "prometheus")
        for path in RULES:
            (self.directory / f"rules-{path.parent.name}-{path.name}").write_text(hastened(path.read_text()))
        config: Json = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules-*.yaml"],
            "scrape_configs": [
                {
                    "job_name": "tenure",
                    "honor_labels": True,
                    # As in a cluster, where the target has a namespace too.
                    "static_configs": [{"targets": [target], "labels": {"namespace": "tenure-system"}}],
                }
            ],
        }
        if authority is not None:
            config["scrape_configs"][0] |= {"scheme": "https", "tls_config": {"ca_file": str(authority)}}
        if alertmanager is not None:
            config["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [alertmanager.address]}]}]}
        (self.directory / "config.yaml").write_text(yaml.safe_dump(config))

    def __enter__(self) -> Prometheus:
        self._start("--config.file=config.yaml", "--storage.tsdb.path=data", f"--web.listen-address={self.address}")
        return self

    def ask(self, path: str, **fields: str) -> Any:
        """What its API answers under /api/v1. Raises AssertionError with its message, for a query that it cannot
        parse above all."""
        answer = self._http.request("GET", f"http://{self.address}/api/v1/{path}", fields=fields, timeout=30)
        body = json.loads(answer.data)
        assert body["status"] == "success", f"{fields}: {body.get('error')}"
        return body["data"]

    def query(self, expression: str) -> list[Sample]:
        """An instant query now: labels and value of each sample."""
        data = self.ask("query", query=expression)
        if data["resultType"] == "scalar":
            return [({}, float(data["result"][1]))]
        return [(found["metric"], float(found["value"][1])) for found in data["result"]]

    def value(self, expression: str) -> float:
        """The one sample of a query. Raises AssertionError when there is none, or more, or NaN."""
        found = self.query(expression)
        assert len(found) == 1, f"{expression}: {found}"
        assert not math.isnan(found[0][1]), f"{expression}: NaN"
        return found[0][1]

    def empty(self, board: Path) -> list[str]:
        """The queries of a dashboard that answer nothing, or nothing but NaN, with where they stand."""
        asked = [(place, text) for place, text in queries() if place.startswith(f"{board.name}/")]
        assert len(asked) >= 10
        return [
            f"{place}: {text}"
            for place, text in asked
            if not [value for _, value in self.query(text) if not math.isnan(value)]
        ]

    def firing(self, alert: str, **labels: str) -> list[Json]:
        """Alerts of that name that fire, with these labels."""
        return [
            found
            for found in self.ask("alerts")["alerts"]
            if found["state"] == "firing"
            and found["labels"]["alertname"] == alert
            and labels.items() <= found["labels"].items()
        ]
