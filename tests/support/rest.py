"""A small synchronous client of the Kubernetes API for tests: JSON over kept connections, no model of any kind.

Tests assert the state of the world through this, not through the operator's own client.
"""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import urllib3
import yaml

Json = dict[str, Any]

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"


class ApiError(Exception):
    """An answer that the caller did not expect: HTTP `status`, `reason` and `message` of the Status object."""

    def __init__(self, method: str, path: str, status: int, body: Any) -> None:
        self.status = status
        self.body = body
        self.reason: str = body.get("reason", "") if isinstance(body, dict) else ""
        self.message: str = body.get("message", "") if isinstance(body, dict) else str(body)
        super().__init__(f"{method} {path}: {status} {self.reason}: {self.message}")


@dataclass(frozen=True)
class Credentials:
    """How to reach one API server, as one user. `certificate` is (certificate file, key file)."""

    server: str
    ca_file: str | None = None
    certificate: tuple[str, str] | None = None
    token: str | None = field(default=None, repr=False)

    @classmethod
    def from_kubeconfig(cls, path: Path, *, context: str | None = None, directory: Path | None = None) -> Credentials:
        """Reads client certificates and tokens, inline or as files; inline ones become files in `directory`.

        Raises ValueError for exec plugins, which only kubectl runs.
        """
        config = yaml.safe_load(path.read_text())
        name = context or config["current-context"]
        chosen = next(entry["context"] for entry in config["contexts"] if entry["name"] == name)
        cluster = next(entry["cluster"] for entry in config["clusters"] if entry["name"] == chosen["cluster"])
        user = next(entry["user"] for entry in config["users"] if entry["name"] == chosen["user"])
        if "exec" in user or "auth-provider" in user:
            raise ValueError(f"context {name}: exec and auth-provider credentials are not supported by these tests")

        def as_file(section: Mapping[str, Any], key: str) -> str | None:
            if f"{key}-data" in section:
                if directory is None:
                    raise ValueError(f"{path}: {key}-data needs a directory to become a file in")
                file = directory / key
                file.touch(mode=0o600)
                file.write_bytes(base64.b64decode(section[f"{key}-data"]))
                return str(file)
            return str((path.parent / section[key]).resolve()) if key in section else None

        certificate, key = as_file(user, "client-certificate"), as_file(user, "client-key")
        return cls(
            server=cluster["server"],
            ca_file=as_file(cluster, "certificate-authority"),
            certificate=(certificate, key) if certificate and key else None,
            token=user.get("token"),
        )


class Rest:
    """Requests with one set of credentials. Safe for several threads; connections are kept and re-opened."""

    def __init__(self, credentials: Credentials, *, connections: int = 16) -> None:
        self.credentials = credentials
        context = ssl.create_default_context(cafile=credentials.ca_file)
        # A second pool without the client certificate: a request with another token must not fall back on it.
        anonymous = ssl.create_default_context(cafile=credentials.ca_file)
        if credentials.certificate:
            context.load_cert_chain(*credentials.certificate)
        split = urlsplit(credentials.server)
        host, port = split.hostname or "", split.port or 443
        self._pool = urllib3.HTTPSConnectionPool(host, port, maxsize=connections, ssl_context=context)
        self._anonymous_pool = urllib3.HTTPSConnectionPool(host, port, maxsize=connections, ssl_context=anonymous)

    def close(self) -> None:
        """Closes the kept connections."""
        self._pool.close()
        self._anonymous_pool.close()

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        user: str | None = None,
        groups: Iterable[str] = (),
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30.0,
    ) -> tuple[int, Any]:
        """One request: (HTTP status, parsed JSON, or the text when it is none). Never raises for a status.

        `user` and `groups` impersonate (admission sees the impersonated user); `token` replaces the credentials;
        `token=""` asks anonymously. `timeout` in seconds. Raises urllib3 errors when no answer came.
        """
        send = urllib3.HTTPHeaderDict(headers or {})
        send.setdefault("Accept", "application/json")
        payload: bytes | None = None
        if body is not None:
            send["Content-Type"] = content_type
            payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        if user is not None:
            send["Impersonate-User"] = user
            for group in groups:
                send.add("Impersonate-Group", group)
        bearer = self.credentials.token if token is None else token
        if bearer:
            send["Authorization"] = f"Bearer {bearer}"
        pool = self._pool if token is None else self._anonymous_pool
        answer = pool.request(method, path, body=payload, headers=send, timeout=timeout, retries=False)
        if not answer.data:
            return answer.status, None
        try:
            return answer.status, json.loads(answer.data)
        except ValueError:
            return answer.status, answer.data.decode(errors="replace")

    def expect(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """Like `request`, but returns the body alone and raises ApiError for a status of 300 and more."""
        status, answer = self.request(method, path, body, **options)
        if status >= 300:
            raise ApiError(method, path, status, answer)
        return answer
