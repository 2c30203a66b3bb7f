"""What a request to the API server can end in, by what a caller does about it.

`str(error)` is one line for people: what was tried and why it failed. It never holds a request's or an
answer's body; a message of the API server is cut to a bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_MESSAGE_LIMIT = 1_000  # characters of the API server's message kept; admission messages end well below


@dataclass(frozen=True, slots=True)
class Cause:
    """One entry of `Status.details.causes`: what is wrong with which field."""

    reason: str
    field: str
    message: str


class ConfigurationError(Exception):
    """There is no usable kubeconfig or in-cluster configuration; the text says where it was looked for."""


class ApiError(Exception):
    """A request failed.

    status is the HTTP status (0 when there was no answer), reason the API server's CamelCase word, message a
    line for people that begins with what was tried, retry_after the seconds the server asked to wait (or None).
    """

    in_stream = False
    """Whether a watch that had been accepted carried it as an ERROR event."""

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        causes: tuple[Cause, ...] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.causes = causes
        self.retry_after = retry_after

    def has_cause(self, reason: str) -> bool:
        """Whether the API server names this cause, e.g. `NamespaceTerminating` or `ResourceVersionTooLarge`."""
        return any(cause.reason == reason for cause in self.causes)


class Unauthorized(ApiError):
    """401: the credentials are refused, also after a refresh."""


class Forbidden(ApiError):
    """403: a right is missing, or the namespace is terminating, or an admission plugin says no."""


class NotFound(ApiError):
    """404. `kind_missing`: the resource itself is not served (its CRD is not installed), not just this name."""

    kind_missing = False


class Conflict(ApiError):
    """409: a precondition (uid, resourceVersion) does not hold, or a field belongs to another manager."""


class AlreadyExists(ApiError):
    """409: an object of that name is there."""


class Gone(ApiError):
    """410: the resourceVersion or continue token is too old; list again."""


class Invalid(ApiError):
    """422: the schema or an admission policy refuses the object."""


class TooManyRequests(ApiError):
    """429, after the client's own few tries where the request may be repeated."""


class Unavailable(ApiError):
    """5xx: the server failed or is not ready. Whether a write took effect is unknown."""


class Unreachable(Unavailable):
    """No answer: connection refused or lost, name or certificate not accepted, time over. Whether a write took
    effect is unknown."""


class BrokenStream(ApiError):
    """A watch carried something that is no event: a cut or unreadable line."""


class UnexpectedKind(ApiError):
    """The answer is of another kind than asked for (a full Secret instead of its metadata). It was dropped unread."""


_BY_STATUS: dict[int, type[ApiError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Invalid,
    429: TooManyRequests,
}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def from_status(what: str, code: int, status: Mapping[str, Any] | None, retry_after: float | None = None) -> ApiError:
    """The error for an answer of HTTP status `code`, or for a watch's ERROR event.

    what is what was tried ("patch secrets payments/ci"); status is the `Status` object, None when the body was
    none (a proxy's page), of which then nothing is kept.
    """
    status = status or {}
    raw_details = status.get("details")
    details: Mapping[str, Any] = raw_details if isinstance(raw_details, Mapping) else {}
    causes = tuple(
        Cause(_text(cause.get("reason")), _text(cause.get("field")), _text(cause.get("message"))[:_MESSAGE_LIMIT])
        for cause in details.get("causes") or ()
        if isinstance(cause, Mapping)
    )
    reason = _text(status.get("reason"))
    message = _text(status.get("message"))[:_MESSAGE_LIMIT] or reason or f"HTTP {code}"
    if retry_after is None and isinstance(details.get("retryAfterSeconds"), int):
        retry_after = float(details["retryAfterSeconds"])
    error_class = _BY_STATUS.get(code, Unavailable if code >= 500 else ApiError)
    if code == 409 and reason == "AlreadyExists":
        error_class = AlreadyExists
    elif code == 422 and any(cause.field == "metadata.uid" for cause in causes):
        # A PATCH that names another uid is answered as a change of an immutable field: to us it is a precondition.
        error_class = Conflict
    kind_missing = code == 404 and not details.get("name")
    if kind_missing:
        message = "the API server does not serve this resource"
    error = error_class(code, reason, f"{what}: {message}", causes, retry_after)
    if isinstance(error, NotFound):
        error.kind_missing = kind_missing
    return error
