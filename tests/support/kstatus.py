"""How Flux's waits, Helm 4's `--wait` and cli-utils read an object: kstatus, from its documentation."""

from __future__ import annotations

from enum import StrEnum

from tests.support.rest import Json


class Status(StrEnum):
    """What kstatus computes. Only Current ends a wait well; Failed ends it at once."""

    TERMINATING = "Terminating"
    IN_PROGRESS = "InProgress"
    FAILED = "Failed"
    CURRENT = "Current"


def compute(found: Json) -> Status:
    """The status of an object of a kind that kstatus has no rules of its own for, in the documented order: deletion,
    the generation that was observed, `Reconciling`, `Stalled`, `Ready`; without any of them it is current."""
    metadata, status = found["metadata"], found.get("status") or {}
    if metadata.get("deletionTimestamp"):
        return Status.TERMINATING
    if status.get("observedGeneration", metadata.get("generation")) != metadata.get("generation"):
        return Status.IN_PROGRESS
    conditions = status.get("conditions") or []
    for condition in conditions:
        if condition["status"] == "True" and condition["type"] == "Reconciling":
            return Status.IN_PROGRESS
        if condition["status"] == "True" and condition["type"] == "Stalled":
            return Status.FAILED
    for condition in conditions:
        if condition["type"] == "Ready":
            return Status.CURRENT if condition["status"] == "True" else Status.IN_PROGRESS
    return Status.CURRENT
