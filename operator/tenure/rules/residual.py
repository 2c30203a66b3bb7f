"""What stays possible while a subject is quarantined: listed, never hidden."""

from __future__ import annotations

from typing import Final

from tenure.model.facts import Facts
from tenure.model.records import Secret, ServiceAccount
from tenure.rules.secrets import is_credential, is_token

PODS: Final = 3
"""Pods named one by one; the rest is counted."""

_UNBOUND: Final = "bound tokens issued before work until they expire"
_RUNNING: Final = "running pods hold bound tokens until they end"
_IMPERSONATED: Final = "whoever may impersonate it acts as it; `tenure inventory` names them"
_READERS: Final = "whoever may read Secrets of the namespace, Ingress and Gateway controllers too, still can"
_CONSUMERS: Final = "running pods keep the content they consumed"


def of(facts: Facts) -> tuple[str, ...]:
    """One line each, in a fixed order. Of a token Secret nothing stays: the API server refuses its token. Pods are
    named while the subject is quarantined; before, it only counts that there are any (pods come and go, and every
    line is stored)."""
    record = facts.record
    if isinstance(record, ServiceAccount):
        groups = sorted({grant.through for grant in facts.grants if grant.through.startswith("Group ")})
        pods = _named(facts.pods, "holds a bound token until it ends") or ((_RUNNING,) if facts.running else ())
        return (*pods, _UNBOUND, _IMPERSONATED, *(f"rights through {group}" for group in groups))
    if isinstance(record, Secret) and is_credential(record) and not is_token(record):
        pods = _named(facts.pods, "keeps the content it consumed") or ((_CONSUMERS,) if facts.running else ())
        return (_READERS, *pods)  # of many lines, those of the act before them too, the first are kept
    return ()


def _named(pods: tuple[str, ...], what: str) -> tuple[str, ...]:
    lines = tuple(f"pod {name} {what}" for name in pods[:PODS])
    return (*lines, f"and {len(pods) - PODS} more pods") if len(pods) > PODS else lines
