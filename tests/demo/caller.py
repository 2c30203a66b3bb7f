"""Somebody who uses a token: asks the API server for ConfigMaps a few times a second and keeps what it answered."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import urllib3

from tests.support.cluster import Cluster

INTERVAL = 0.25  # seconds between two requests


@dataclass
class Stretch:
    """So many equal answers in a row."""

    status: int
    since: float  # seconds, time.monotonic
    answers: int = 1


class Caller(threading.Thread):
    """Runs until `stop`. `stretches` is its history."""

    def __init__(self, cluster: Cluster, name: str, namespace: str, token: str) -> None:
        super().__init__(name=name, daemon=True)
        self.stretches: list[Stretch] = []
        self._cluster = cluster
        self._path = f"/api/v1/namespaces/{namespace}/configmaps?limit=1"
        self._token = token
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.is_set():
            asked = time.monotonic()
            status = self._ask()
            if status and not self._ended.is_set():  # no answer at all is a busy machine, not a refusal
                self._note(status, asked)
            self._ended.wait(INTERVAL)

    def _ask(self) -> int:
        try:
            return self._cluster.request("GET", self._path, token=self._token, timeout=10)[0]
        except urllib3.exceptions.HTTPError:
            return 0

    def _note(self, status: int, asked: float) -> None:
        if self.stretches and self.stretches[-1].status == status:
            self.stretches[-1].answers += 1
        else:
            self.stretches.append(Stretch(status, asked))

    @property
    def status(self) -> int:
        """The last answer, 0 before the first."""
        return self.stretches[-1].status if self.stretches else 0

    def answered(self, status: int) -> bool:
        """True when the last answer was this status; else raises AssertionError."""
        assert self.status == status, f"{self.name} is answered {self.status}"
        return True

    def always(self, status: int) -> None:
        """Raises AssertionError unless every answer was this status."""
        seen = [stretch.status for stretch in self.stretches]
        assert seen == [status], f"{self.name} was answered {seen}, not {status} all the time"

    def history(self) -> str:
        """`200 × 84, then 401 × 3, then 200 × 12`."""
        return ", then ".join(f"{stretch.status} × {stretch.answers}" for stretch in self.stretches)

    def stop(self) -> None:
        """Ends it, and waits for its last request."""
        self._ended.set()
        if self.is_alive():
            self.join(15)
