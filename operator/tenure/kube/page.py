"""One page of a list, parsed object by object.

Five hundred Pods are 3 MB of JSON and ten times that as dicts. Parsed at once they set the process's peak, which it
then keeps (what stays of them lies scattered among what goes), and take twice the CPU of one after the other, each
gone before the next: the processor's caches hold one Pod, not five hundred.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from tenure.kube.errors import BrokenStream

LAST: Final = ("items", "rows")
"""What a List and a Table end with: the API server writes kind, version and metadata first."""

_DECODER: Final = json.JSONDecoder()
_SPACE: Final = re.compile(r"[ \t\n\r]*")


class Elements:
    """The elements of an array, each parsed when it is asked for. Walked once; the text goes with the last element.

    Raises BrokenStream on the way for what is not JSON."""

    def __init__(self, what: str, text: str, start: int) -> None:
        self._what = what
        self._text = text
        self._at = start  # behind the opening bracket

    def __iter__(self) -> Iterator[Any]:
        text, at = self._text, _skip(self._text, self._at)
        self._text = ""
        try:
            if text[at] != "]":
                while True:
                    element, at = _DECODER.raw_decode(text, at)
                    yield element
                    del element  # before the next one is parsed
                    at = _skip(text, at)
                    if _expect(text, at, ",]") == "]":
                        break
                    at = _skip(text, at + 1)
            _expect(text, _skip(text, at + 1), ",}")
        except (ValueError, IndexError):
            # Without its cause: a JSONDecodeError keeps the whole text.
            raise BrokenStream(0, "BrokenStream", f"{self._what}: the answer is not JSON") from None


def parse(what: str, text: str) -> dict[str, Any]:
    """The page as a dict in which `items` or `rows` are Elements, or a list where the metadata stands behind them.
    Raises ValueError for what is no JSON object."""
    found: dict[str, Any] = {}
    at = _skip(text, 0)
    try:
        _expect(text, at, "{")
        while True:
            key, at = _DECODER.raw_decode(text, _skip(text, at + 1))
            at = _skip(text, at)
            _expect(text, at, ":")
            at = _skip(text, at + 1)
            if key in LAST and text[at] == "[" and "metadata" in found:
                found[key] = Elements(what, text, at + 1)
                return found
            found[key], at = _DECODER.raw_decode(text, at)
            at = _skip(text, at)
            if _expect(text, at, ",}") == "}":
                return found
    except IndexError:
        raise ValueError("cut off") from None


def _skip(text: str, at: int) -> int:
    """Where the next thing stands that is no white space."""
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _expect(text: str, at: int, expected: str) -> str:
    if text[at] not in expected:
        raise ValueError(expected)
    return text[at]
