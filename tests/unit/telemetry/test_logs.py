"""Logs: fields, formats, and what never gets into them."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from tenure.model.keys import Key
from tenure.settings import LogFormat, LogLevel
from tenure.telemetry.logs import about, configure

KEY = Key("Secret", "payments", "ci-token")
TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJjaSJ9.c2lnbmF0dXJl"


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    names = ("tenure", "kopf", "kubernetes", "aiohttp", "asyncio", "kopf.objects")
    levels = {name: logging.getLogger(name).level for name in names}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, kept in levels.items():
        logging.getLogger(name).setLevel(kept)
    logging.captureWarnings(False)


def log(level: LogLevel = "info", form: LogFormat = "text") -> io.StringIO:
    stream = io.StringIO()
    configure(level, form, stream)
    return stream


def test_text_has_the_fields_at_the_end() -> None:
    stream = log()
    logging.getLogger("tenure.enforce").info("label set", extra=about(KEY, "6d0f"))
    line = stream.getvalue()
    assert line.endswith("tenure.enforce  label set  kind=Secret namespace=payments name=ci-token uid=6d0f\n")
    assert line[10] == "T"
    assert line.split()[1] == "INFO"


def test_json_has_them_as_fields() -> None:
    stream = log(form="json")
    logging.getLogger("tenure.enforce").warning("label %s", "set", extra=about(KEY, "6d0f"))
    entry = json.loads(stream.getvalue())
    assert entry.pop("time").endswith("Z")
    assert entry == {
        "level": "warning",
        "logger": "tenure.enforce",
        "message": "label set",
        "kind": "Secret",
        "namespace": "payments",
        "name": "ci-token",
        "uid": "6d0f",
    }


def test_kopfs_object_loggers_give_the_same_fields() -> None:
    stream = log(form="json")
    reference = {"apiVersion": "v1", "kind": "Secret", "namespace": "payments", "name": "x", "uid": "u"}
    logging.getLogger("kopf.objects").warning("seen", extra={"k8s_ref": reference})
    assert json.loads(stream.getvalue())["name"] == "x"


@pytest.mark.parametrize("form", ["text", "json"])
def test_an_exception_is_told_in_one_record(form: LogFormat) -> None:
    stream = log(form=form)
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("tenure").exception("it failed")
    assert "ValueError: broken" in stream.getvalue()
    if form == "json":
        assert "ValueError: broken" in json.loads(stream.getvalue())["error"]


def test_levels() -> None:
    stream = log("warning")
    logging.getLogger("tenure.x").info("no")
    logging.getLogger("kopf").info("no")
    logging.getLogger("kopf").warning("yes")
    assert stream.getvalue().count("\n") == 1


@pytest.mark.parametrize(
    "name", ["kopf", "kopf.objects", "kopf.new.child", "kubernetes.aio.client.rest", "aiohttp.client"]
)
def test_bodies_in_others_debug_lines_never_pass(name: str) -> None:
    stream = log("debug")
    logging.getLogger("tenure.x").debug("ours")
    foreign = logging.getLogger(name)
    before = foreign.level
    foreign.setLevel(logging.DEBUG)  # as Kopf, or somebody who looks for a bug, may do
    foreign.debug("response body: %s", {"data": {"token": "c2VjcmV0"}})
    foreign.setLevel(before)
    assert "ours" in stream.getvalue()
    assert "c2VjcmV0" not in stream.getvalue()


@pytest.mark.parametrize("form", ["text", "json"])
def test_tokens_are_taken_out_wherever_they_stand(form: LogFormat) -> None:
    stream = log(form=form)
    logging.getLogger("tenure").info("header %s", f"Authorization: Bearer {TOKEN}")
    try:
        raise ValueError(f"cannot parse {TOKEN}")
    except ValueError:
        logging.getLogger("tenure").exception("failed")
    assert "eyJ" not in stream.getvalue()
    assert stream.getvalue().count("(removed)") >= 2


def test_a_line_break_forges_no_line() -> None:
    stream = log()
    logging.getLogger("tenure").info("justification: %s", "a\n2026-12-04T09:00:00Z INFO tenure  released")
    assert stream.getvalue().count("\n") == 1


def test_configured_twice_it_logs_once() -> None:
    log()
    stream = log()
    logging.getLogger("tenure").info("once")
    assert stream.getvalue().count("once") == 1
