"""Why an act that is due does not begin or go on, in the words of the condition `Blocked`."""

from __future__ import annotations

from typing import Final

HELD: Final = {
    "Audit": "No policy enforces here, so no act begins and no further step is taken. What was done stays.",
    "BlastRadius": "The act is due and waits: the policy's blast radius is used up for now. It is taken up by itself.",
    "DenyWritesMissing": "The stage DenyWrites is not installed, so the identity's own writes go on where a token "
    "still works; the other stages stand. `make install DENYWRITES=1` installs it.",
    "EnforcementOff": "The operator runs with --enforcement=off. No act begins; the clock goes on.",
    "InventoryStale": "The act is due and waits for a fresh inventory. It is taken up once the API server answers.",
    "ManagedByController": "Another controller writes this object back. Change its source; nothing is deleted.",
    "MissingRight": "The operator lacks a right this act needs; its log names it.",
    "NotEffective": "What enforces is not in force as it was installed, so nothing is acted on; the operator's log "
    "says what is missing. `make install` puts it back.",
    "PlatformNamespace": "Platform identities are acted on only where a policy names their namespace, and there "
    "without the stage Guard: the guards skip it. The other stages work.",
    "PolicyConflict": "Two policies of equal precedence match the namespace. No act begins until one of them yields.",
    "RecentlyUsed": "Revocation waits: use was attempted within holdAfterUse.",
    "Retry": "The last attempt failed; it is repeated by itself.",
    "TooLarge": "It is bound in more places than a Quarantine and its further objects can remember, so it is taken out "
    "of none. Unbind some by hand.",
    "Suspended": "The policy says suspend: true. No act begins until that is taken back; the clock goes on.",
    "TurnNotRecorded": "When this namespace turned to enforcing is not recorded yet. The operator retries by itself.",
    "Unreadable": "A policy, owner, claim, exception or Quarantine here is of another version: see the operator's log.",
}
"""Reason -> message, for people. Enforcement and the terms give reasons out of this set alone."""


class Held(Exception):
    """What was to be done cannot be, and nothing of it was."""

    def __init__(self, reason: str, what: str) -> None:
        """`reason` is a key of HELD; `what` says more, for the log."""
        super().__init__(f"{reason}: {what}")
        self.reason = reason
