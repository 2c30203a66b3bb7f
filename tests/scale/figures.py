"""What the benchmark's raw observations come to: pure functions, and the names that its JSON carries."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from tenure.api.names import PROOF_ACCOUNT, PROOF_TOKEN

NAMES: Final = (
    "inventory_seconds",
    "floor_seconds",
    "inventory_ratio",
    "findings_seconds",
    "memory_above_idle_mib",
    "floor_memory_mib",
    "change_to_finding_p50_seconds",
    "change_to_finding_p99_seconds",
    "unchanged_pass_writes",
    "unchanged_pass_lists",
    "scrape_seconds",
    "guard_ratio",
    "deny_writes_ratio",
)
"""The figures of build/bench.json that others may rely on; everything else there explains them."""

AIMS: Final[Mapping[str, float]] = {
    "inventory_ratio": 3.0,
    "memory_above_idle_mib": 150.0,
    "change_to_finding_p99_seconds": 1.0,
    "unchanged_pass_writes": 0.0,
    "unchanged_pass_lists": 0.0,
    "guard_ratio": 1.5,
    "deny_writes_ratio": 1.1,
}
"""At most this; the memory's at scale 10."""

_WRITES: Final = frozenset({"create", "update", "patch", "delete", "deletecollection"})
_REVIEWS: Final = frozenset(
    {
        "selfsubjectreviews",
        "selfsubjectaccessreviews",
        "subjectaccessreviews",
        "tokenreviews",
        "selfsubjectrulesreviews",
    }
)
"""Created without being stored: questions, not writes."""

PROOF: Final = " (proof)"

Requests = Counter[tuple[str, str]]
"""(verb, resource or resource/subresource, followed by `PROOF` where it is one) -> how many."""


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that `share` of them do not exceed (nearest rank). Raises ValueError for none."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no values")
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def median(values: Iterable[float]) -> float:
    """The middle value, or the mean of the two in the middle. Raises ValueError for none."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no values")
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def requests(events: Iterable[Mapping[str, Any]], user: str) -> Requests:
    """What a user asked of the API server, by the audit log. A watch counts when it begins: it may never end."""
    found: Requests = Counter()
    for event in events:
        if event["user"].get("username") != user:
            continue
        verb, ref = event["verb"], event.get("objectRef") or {}
        if event["stage"] != ("ResponseStarted" if verb == "watch" else "ResponseComplete"):
            continue
        resource = ref.get("resource", event.get("requestURI", "").partition("?")[0])
        what = f"{resource}/{ref['subresource']}" if ref.get("subresource") else resource
        found[verb, what + (PROOF if _proves(event) else "")] += 1
    return found


def _proves(event: Mapping[str, Any]) -> bool:
    """Whether the operator tries there, on its synthetic identity, that its stages work: at each start, each hour."""
    name = (event.get("objectRef") or {}).get("name")
    return "dryRun=All" in event.get("requestURI", "") or name in (PROOF_ACCOUNT, PROOF_TOKEN)


def writes(found: Requests) -> Requests:
    """Those that may change something stored, the proofs aside."""
    return Counter(
        {
            (verb, what): n
            for (verb, what), n in found.items()
            if verb in _WRITES and what not in _REVIEWS and not what.endswith(PROOF)
        }
    )


def lists(found: Requests) -> Requests:
    return Counter({(verb, what): n for (verb, what), n in found.items() if verb == "list"})


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose columns line up; all but the first are set to the right."""
    lines = [list(head), *[list(row) for row in rows]]
    widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(head))]

    def joined(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        padded = [first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([joined(lines[0]), joined(rule), *(joined(line) for line in lines[1:])])


def number(value: float) -> str:
    """Three significant digits, thousands with commas: 12,345 · 123 · 1.23 · 0.0123."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
