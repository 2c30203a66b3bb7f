"""The operator's settings: one frozen object, made from flags and environment once, at the composition root."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from tenure.api.names import OPERATOR_NAMESPACE, OPERATOR_SERVICE_ACCOUNT

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

_DNS_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_DNS_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?")


class SettingsError(ValueError):
    """A setting that cannot work; the text names the flag and says what would."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Raises SettingsError when made from values that cannot work."""

    kubeconfig: str | None = None
    context: str | None = None
    operator_namespace: str = OPERATOR_NAMESPACE
    service_account: str = OPERATOR_SERVICE_ACCOUNT
    namespaces: tuple[str, ...] = ()
    """Observe only these; () = the whole cluster."""
    platform_namespaces: tuple[str, ...] = ()
    """Graded as the platform's beside kube-*; never acted on unless a policy names them."""
    enforcement: bool = True
    """False: no act whatever a policy says; guards and clocks stay."""
    audit_log: str | None = None
    """A file of audit events to follow; None: attempted use is noticed by day."""
    metrics_address: str = ":9464"
    metrics_certificate: str | None = None
    """PEM file of the certificate, and its chain, with which metrics and probes are served; None: plain HTTP."""
    metrics_key: str | None = None
    log_level: LogLevel = "info"
    log_format: LogFormat = "text"

    def __post_init__(self) -> None:
        _name("--operator-namespace", self.operator_namespace, _DNS_LABEL)
        _name("--service-account", self.service_account, _DNS_SUBDOMAIN)
        for flag, names in (("--namespaces", self.namespaces), ("--platform-namespaces", self.platform_namespaces)):
            for name in names:
                _name(flag, name, _DNS_LABEL)
        if self.log_format not in ("text", "json"):
            raise SettingsError(f"--log-format: {self.log_format!r} is neither text nor json")
        if self.log_level not in ("debug", "info", "warning", "error"):
            raise SettingsError(f"--log-level: {self.log_level!r} is none of debug, info, warning, error")
        host_and_port(self.metrics_address)
        if (self.metrics_certificate is None) != (self.metrics_key is None):
            raise SettingsError("--metrics-certificate and --metrics-key go together: give both, or neither")


def _name(flag: str, value: str, form: re.Pattern[str]) -> None:
    if not form.fullmatch(value):
        raise SettingsError(
            f"{flag}: {value!r} is no name (lower-case letters, digits and '-', at most 63; no patterns)"
        )


def host_and_port(address: str) -> tuple[str | None, int]:
    """Host (None = every interface) and port of `:9464`, `127.0.0.1:9464` or `[::1]:9464`; port 0 lets the system
    choose. Raises SettingsError."""
    host, separator, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not separator or not port.isdecimal() or int(port) > 65_535:
        raise SettingsError(f"--metrics-address: {address!r} is not host:port (:9464, 127.0.0.1:9464, [::1]:9464)")
    return host or None, int(port)


def names(values: Iterable[str]) -> tuple[str, ...]:
    """Names from a repeated flag or from one text, separated by commas or blanks, without repeats and in order."""
    return tuple(dict.fromkeys(name for value in values for name in re.split(r"[,\s]+", value) if name))
