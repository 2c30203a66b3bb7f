"""One subject at one instant, with what several rules would otherwise each work out again: the input of a rule."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from tenure.model.evaluation import Ownership
from tenure.model.facts import Claim, Facts
from tenure.rules.coverage import Cover


@dataclass(frozen=True, slots=True)
class Case:
    facts: Facts
    now: datetime
    cover: Cover
    """Which claim answers for it; an empty Cover for claims and exceptions."""
    ownership: Ownership
    listed: Claim | None = None
    """Of an entitlement: the claim that declares it."""
