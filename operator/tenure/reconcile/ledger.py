"""The installation's own memory: ConfigMap `tenure-state` in the operator's namespace.

It holds what no single object can: when the inventory was first complete, when each namespace turned to enforcing,
the counters that must survive a restart, and the acts of the blast-radius window. Everything else is rebuilt from
the objects themselves.

Counters are exact across crashes: an outcome is entered here, with the opening it belongs to, *before* that opening
is stamped on its finding. A crash in between leaves a finding without stamp whose opening is still listed in
`counted`, and it is stamped without being counted again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from tenure.api.base import format_timestamp, parse_timestamp
from tenure.api.names import STATE_CONFIG_MAP
from tenure.kube.client import Kube
from tenure.kube.errors import NotFound
from tenure.kube.resources import CONFIG_MAPS

DUE = "decisions_due_total"
RENEWALS = "exception_renewals_total"

_KEPT_OPENINGS = 2_000
"""Openings remembered as counted: more than can be between their count and their stamp (one per writer, and those of
a crash), and few enough that the ConfigMap stays far below its 1 MiB."""
_KEPT_ACTS = 2_000
_LONGEST_WINDOW = timedelta(days=31)


@dataclass(frozen=True, slots=True)
class RecordedAct:
    """One act that began: what the blast radius counts."""

    id: str
    at: datetime
    namespace: str
    policy: str


class Ledger:
    """Loads once, then writes behind: `flush` returns when everything entered before the call is durable."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self._kube = kube
        self._namespace = namespace
        self.first_inventory: datetime | None = None
        self.turns: dict[str, datetime] = {}
        self.counters: dict[str, dict[tuple[str, ...], int]] = {DUE: {}, RENEWALS: {}}
        self.audit = ""
        """The position up to which the audit log is known; it goes with whatever else is written."""
        self._counted: dict[str, None] = {}
        self._acts: dict[str, RecordedAct] = {}
        self._version = 0
        self._durable = 0
        self._writing = asyncio.Lock()

    async def load(self) -> None:
        """Reads the ConfigMap; a missing one is an empty ledger. Raises ApiError, and ValueError for an unreadable one:
        guessing here could make deadlines or counters move, so the operator stops and says which key is damaged."""
        try:
            raw = await self._kube.get(CONFIG_MAPS, STATE_CONFIG_MAP, self._namespace)
        except NotFound:
            return
        stored: Mapping[str, str] = raw.get("data") or {}
        try:
            first = stored.get("firstInventory")
            self.first_inventory = parse_timestamp(first) if first else None
            self.turns = {ns: parse_timestamp(at) for ns, at in json.loads(stored.get("turns", "{}")).items()}
            for name, values in json.loads(stored.get("counters", "{}")).items():
                self.counters[name] = {tuple(key.split("|")): int(value) for key, value in values.items()}
            self.audit = stored.get("audit", "")
            self._counted = dict.fromkeys(json.loads(stored.get("counted", "[]")))
            self._acts = {
                act["id"]: RecordedAct(act["id"], parse_timestamp(act["at"]), act["namespace"], act["policy"])
                for act in json.loads(stored.get("acts", "[]"))
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"ConfigMap {self._namespace}/{STATE_CONFIG_MAP} cannot be read ({error}). Restore it from a backup, "
                "or delete it: then counters begin at 0 and every enforced namespace gets its adoption grace anew."
            ) from error

    # --- entering ----------------------------------------------------------------------------------------------

    def begin(self, instant: datetime) -> None:
        """Enters the first complete inventory, once."""
        if self.first_inventory is None:
            self.first_inventory = instant
            self._version += 1

    def turn(self, namespace: str, enforcing: bool, now: datetime) -> bool:
        """Enters that a namespace turned to enforcing, or left it (a return is a new turn). Whether that is news."""
        if enforcing == (namespace in self.turns):
            return False
        if enforcing:
            self.turns[namespace] = now
        else:
            del self.turns[namespace]
        self._version += 1
        return True

    def count(self, counter: str, labels: tuple[str, ...], opening: str) -> None:
        """Counts one opening's outcome; the same opening again changes nothing."""
        if opening in self._counted:
            return
        self._counted[opening] = None
        while len(self._counted) > _KEPT_OPENINGS:
            del self._counted[next(iter(self._counted))]
        values = self.counters[counter]
        values[labels] = values.get(labels, 0) + 1
        self._version += 1

    def act(self, act: RecordedAct) -> None:
        """Enters an act before its intent is written; an act resumed after a crash is entered once."""
        if act.id in self._acts:
            return
        self._acts[act.id] = act
        horizon = act.at - _LONGEST_WINDOW
        recent = sorted((a for a in self._acts.values() if a.at >= horizon), key=lambda a: a.at)[-_KEPT_ACTS:]
        self._acts = {a.id: a for a in recent}
        self._version += 1

    def acts(self, policy: str, since: datetime) -> tuple[RecordedAct, ...]:
        """The acts of a policy's window, oldest first."""
        return tuple(
            sorted((a for a in self._acts.values() if a.policy == policy and a.at > since), key=lambda a: a.at)
        )

    def has_act(self, id_: str) -> bool:
        """Whether this act was entered (it then needs no second place in the blast radius)."""
        return id_ in self._acts

    def remember_audit(self) -> None:
        """Makes the position part of what the next flush has to store."""
        self._version += 1

    # --- writing -----------------------------------------------------------------------------------------------

    async def flush(self) -> None:
        """Returns when everything entered before this call is stored. Callers that wait at once share a write.
        Raises ApiError; what was entered stays entered and goes with the next write."""
        wanted = self._version
        while self._durable < wanted:
            async with self._writing:
                if self._durable >= wanted:
                    return
                version = self._version
                await self._kube.apply(CONFIG_MAPS, self._object())
                self._durable = version

    def _object(self) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": STATE_CONFIG_MAP,
                "namespace": self._namespace,
                "labels": {"app.kubernetes.io/part-of": "tenure"},
            },
            "data": {
                "firstInventory": format_timestamp(self.first_inventory) if self.first_inventory else "",
                "turns": _json({ns: format_timestamp(at) for ns, at in sorted(self.turns.items())}),
                "counters": _json({name: _joined(values) for name, values in sorted(self.counters.items())}),
                "counted": _json(list(self._counted)),
                "acts": _json(_acts(self._acts.values())),
                **({"audit": self.audit} if self.audit else {}),
            },
        }


def _acts(acts: Iterable[RecordedAct]) -> list[dict[str, str]]:
    return [{"id": a.id, "at": format_timestamp(a.at), "namespace": a.namespace, "policy": a.policy} for a in acts]


def _joined(values: Mapping[tuple[str, ...], int]) -> dict[str, int]:
    return {"|".join(labels): value for labels, value in sorted(values.items())}


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
