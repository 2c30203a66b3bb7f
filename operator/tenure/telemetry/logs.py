"""Logs: one line per record, namespace, name and uid as fields, and never a value or a body.

Kopf and the API client print whole objects at DEBUG, Secrets among them. Raising the level of their loggers would not
be enough: a child logger may have a level of its own, and Kopf sets some. So the one handler of the process carries the
filter, and whatever is not ours passes only from INFO on, whatever level was asked for.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Mapping
from typing import Any, Final, TextIO

from tenure.model.keys import Key
from tenure.settings import LogFormat, LogLevel

_LEVELS: Final[Mapping[LogLevel, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_OURS: Final = "tenure"
_ABOUT: Final = "about"
_FIELDS: Final = ("kind", "namespace", "name", "uid")

_TOKEN: Final = re.compile(r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*|(?<=Bearer )[^\s'\",]+")
"""A JWT, or whatever stands in an Authorization header: neither is logged on purpose, an exception's text may quote
one."""


def about(key: Key, uid: str = "") -> dict[str, Any]:
    """For `logger.info("…", extra=about(key, uid))`: the object that the line is about, as fields."""
    return {_ABOUT: {"kind": key.kind, "namespace": key.namespace, "name": key.name, "uid": uid}}


def configure(level: LogLevel, form: LogFormat, stream: TextIO | None = None) -> None:
    """Sets up the process's logging, once at start; called again, it replaces what it set up. stream: default standard
    error."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Text())
    handler.addFilter(_only_ours_below_info)
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(max(_LEVELS[level], logging.INFO))
    logging.getLogger(_OURS).setLevel(_LEVELS[level])
    # Their debug lines are dropped by the filter; at this level they are not even built (Kopf formats whole objects).
    for name in ("kopf", "kubernetes", "aiohttp", "asyncio"):
        logging.getLogger(name).setLevel(max(_LEVELS[level], logging.INFO))
    # One line per event of an authored object says nothing that the object does not.
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    logging.captureWarnings(True)


def _only_ours_below_info(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.INFO or record.name == _OURS or record.name.startswith(f"{_OURS}.")


def _fields(record: logging.LogRecord) -> dict[str, str]:
    """What the record is about: our own `about`, or what Kopf's loggers put on theirs."""
    found = getattr(record, _ABOUT, None) or getattr(record, "k8s_ref", None)
    if not isinstance(found, Mapping):
        return {}
    return {field: str(found[field]) for field in _FIELDS if found.get(field)}


def _clean(text: str) -> str:
    return _TOKEN.sub("(removed)", text)


def _time(record: logging.LogRecord) -> str:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.msecs):03d}Z"


class _Text(logging.Formatter):
    """`2026-12-04T09:12:00.123Z INFO    tenure.kube  message  kind=… namespace=… name=… uid=…`, tracebacks below."""

    def format(self, record: logging.LogRecord) -> str:
        # A line break in a message would let the author of an object's text forge a line of the log.
        message = record.getMessage().replace("\r", "\\r").replace("\n", "\\n")
        fields = "".join(f" {field}={value}" for field, value in _fields(record).items())
        line = f"{_time(record)} {record.levelname:<7} {record.name}  {message}{' ' if fields else ''}{fields}"
        if record.exc_info:
            line = f"{line}\n{self.formatException(record.exc_info)}"
        return _clean(line)


class _Json(logging.Formatter):
    """One JSON object per line: time, level, logger, message, the fields, and error (a traceback) where there is
    one."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _clean(record.getMessage()),
            **_fields(record),
        }
        if record.exc_info:
            entry["error"] = _clean(self.formatException(record.exc_info))
        return json.dumps(entry, ensure_ascii=False)
