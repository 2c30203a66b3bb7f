"""HTTP answers to typed errors."""

from __future__ import annotations

import pytest

from tenure.kube import errors
from tenure.kube.errors import from_status


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        (400, "BadRequest", errors.ApiError),
        (401, "Unauthorized", errors.Unauthorized),
        (403, "Forbidden", errors.Forbidden),
        (404, "NotFound", errors.NotFound),
        (409, "Conflict", errors.Conflict),
        (409, "AlreadyExists", errors.AlreadyExists),
        (410, "Expired", errors.Gone),
        (422, "Invalid", errors.Invalid),
        (429, "TooManyRequests", errors.TooManyRequests),
        (500, "InternalError", errors.Unavailable),
        (503, "ServiceUnavailable", errors.Unavailable),
    ],
)
def test_each_status_has_its_class(code: int, reason: str, expected: type[errors.ApiError]) -> None:
    error = from_status("patch secrets payments/ci", code, {"reason": reason, "message": "because"})
    assert type(error) is expected
    assert (error.status, error.reason) == (code, reason)


def test_the_text_says_what_was_tried_and_why_it_failed() -> None:
    assert str(from_status("get pods a/b", 403, {"message": "no"})) == "get pods a/b: no"
    assert str(from_status("get pods a/b", 502, None)) == "get pods a/b: HTTP 502"


def test_a_message_is_bounded() -> None:
    assert len(str(from_status("get x", 422, {"message": "x" * 100_000}))) < 1_100


def test_a_patch_against_another_uid_is_a_conflict() -> None:
    status = {"reason": "Invalid", "details": {"causes": [{"reason": "FieldValueInvalid", "field": "metadata.uid"}]}}
    assert isinstance(from_status("patch secrets a/b", 422, status), errors.Conflict)


def test_a_missing_kind_is_told_from_a_missing_object() -> None:
    missing_object = from_status("get x a/b", 404, {"reason": "NotFound", "details": {"name": "b", "kind": "x"}})
    missing_kind = from_status("list x", 404, {"message": "Not Found"})
    assert isinstance(missing_object, errors.NotFound)
    assert not missing_object.kind_missing
    assert isinstance(missing_kind, errors.NotFound)
    assert missing_kind.kind_missing


def test_causes_and_the_wait_asked_for_are_kept() -> None:
    error = from_status(
        "create x a/b",
        403,
        {"details": {"retryAfterSeconds": 3, "causes": [{"reason": "NamespaceTerminating", "message": "m"}, "odd"]}},
    )
    assert error.has_cause("NamespaceTerminating")
    assert not error.has_cause("Other")
    assert error.retry_after == 3.0


@pytest.mark.parametrize("status", [{"details": "no"}, {"message": 7, "reason": None}, {"details": {"causes": None}}])
def test_a_malformed_status_is_still_an_error(status: dict[str, object]) -> None:
    assert from_status("get x", 500, status).status == 500
