"""Names of Quarantines: one per subject uid, readable, and within the API server's bound."""

from __future__ import annotations

import hashlib
import re

from tenure.model.keys import Key

_LONGEST = 253
_UID = 6
_HASH = 10


def quarantine_name(key: Key, uid: str) -> str:
    """`serviceaccount-ci-6d0f1a`; of a long name the end is cut and a hash of the whole ends it. So it does for an
    entitlement, of which a binding may have many, and whose binding may have a name that no other object could have."""
    if key.part:
        name = re.sub("[^a-z0-9.-]", "-", f"{key.kind}-{key.name}".lower())
        digest = hashlib.sha256(f"{key.kind}/{key.name}/{key.part}/{uid}".encode()).hexdigest()[:_HASH]
        return f"{name[: _LONGEST - _HASH - 1].rstrip('-.')}-{digest}"
    name = f"{key.kind.lower()}-{key.name}-{uid[:_UID]}"
    if len(name) <= _LONGEST:
        return name
    digest = hashlib.sha256(f"{key.kind}/{key.name}/{uid}".encode()).hexdigest()[:_HASH]
    return f"{name[: _LONGEST - _HASH - 1].rstrip('-.')}-{digest}"


def further_name(name: str, number: int) -> str:
    """Of the second (2), third … object of a Quarantine, up to the ninth. No Quarantine's own name ends so."""
    return f"{name[: _LONGEST - 2].rstrip('-.')}-{number}"
