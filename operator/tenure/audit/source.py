"""What an audit source is. There is one, `audit.file`; another (a webhook, an export of a managed cluster) has
this form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from tenure.model.usage import Request


@dataclass(frozen=True, slots=True)
class Batch:
    """Some requests, in the source's order, and the position after them; `more` when there are more right now."""

    requests: tuple[Request, ...]
    position: str
    more: bool = False
    size: int = 0
    """Bytes that were read for it."""
    malformed: int = 0
    """Lines that were no audit event, or too long for one."""
    lost: str = ""
    """Why something may be missing before these, "" when nothing is."""


class Source(Protocol):
    """Delivers each request at least once: the same position yields the same again, and what follows."""

    def read(self, position: str) -> Batch:
        """What follows the position, bounded; "" stands for the beginning of what is being written now. Blocks.
        Raises OSError when nothing can be read."""
