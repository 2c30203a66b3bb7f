"""Instants that people read."""

from __future__ import annotations

from datetime import datetime, timedelta


def whole(instant: datetime) -> datetime:
    """The next whole second: deadlines and steps are read by people, and never come early."""
    return instant if instant.microsecond == 0 else instant.replace(microsecond=0) + timedelta(seconds=1)
