"""`tenure release --all`: for the bad night. A verdict Release on every Quarantine, each with its own outcome."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tenure.api.decision import DecisionOutcome
from tenure.api.names import FINALIZER, TargetKind, Verdict
from tenure.decide.hold import Quarantine
from tenure.inventory.projection import PROJECTIONS
from tenure.kube.client import Kube
from tenure.kube.errors import ApiError, Forbidden, NotFound
from tenure.kube.resources import IDENTITY_DECISIONS, QUARANTINES
from tenure.model.records import Authored
from tenure.report.connection import Failure, connect, explained
from tenure.report.decide import DONE, UNDONE, confirmed, outcome
from tenure.report.render import clean
from tenure.report.verdicts import Target, decision
from tenure.settings import Settings

_AT_ONCE = 8
"""Decisions under way side by side; the API server's priority and fairness is not to be tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Everything:
    """What the command line asks for."""

    namespace: str
    """ "" = every namespace."""
    reason: str
    verb: str = "release"
    yes: bool = False
    timeout: float = 60.0
    """Seconds to wait for each decision's effect; 0 = not at all."""


def release_all(settings: Settings, asked: Everything, ask: Callable[[str], str] | None) -> int:
    """DONE when all that could be released were, else UNDONE; one that fails stops no other. Raises Failure where they
    cannot be listed, and where no API server answers."""
    with asyncio.Runner() as runner:
        kube = runner.run(connect(settings))
        try:
            with explained(kube.server):
                found = runner.run(_quarantines(kube, asked.namespace))
                standing = [one for one in found if FINALIZER in one.finalizers]
                _show(standing, (one for one in found if FINALIZER not in one.finalizers))
                if not standing:
                    return DONE
                if not asked.yes and not _agreed(ask, len(standing)):
                    print("Nothing was decided.")
                    return UNDONE
                return runner.run(_release(kube, standing, asked))
        finally:
            runner.run(kube.close())


def _agreed(ask: Callable[[str], str] | None, count: int) -> bool:
    """So much at once is decided by nobody's oversight: where nobody sits at a terminal, --yes has to say it."""
    if ask is None:
        print("Nobody can be asked here: --yes releases them.")
        return False
    return confirmed(ask, f"Release these {count}? [y/N] ")


async def _quarantines(kube: Kube, namespace: str) -> list[Quarantine]:
    try:
        raw = [item async for page in kube.pages(QUARANTINES, namespace) for item in page.get("items") or ()]
    except NotFound as error:
        raise Failure(
            f"{kube.server} does not serve {QUARANTINES.qualified}: Tenure is not installed there."
        ) from error
    except Forbidden as error:
        where = f"in {namespace}" if namespace else "in all namespaces (-n NAME asks for one)"
        raise Failure(f"you may not list {QUARANTINES.qualified} {where}.") from error
    found: list[Quarantine] = [one for one in map(PROJECTIONS["Quarantine"], raw) if isinstance(one, Authored)]
    found = [one for one in found if one.spec.continues is None]  # what continues another is released with that
    return sorted(found, key=lambda one: (one.namespace, one.name))


def _show(standing: list[Quarantine], records: Iterable[Quarantine]) -> None:
    for one in standing:
        print(clean(f"{one.namespace}/{one.name}: {one.spec.subject.kind} {one.spec.subject.name}. {one.spec.reason}"))
    for one in records:
        print(clean(f"{one.namespace}/{one.name}: its subject was revoked, which cannot be given back; it stays."))
    if not standing:
        print("Nothing is quarantined that could be released.")


async def _release(kube: Kube, standing: list[Quarantine], asked: Everything) -> int:
    by = await kube.self_user()
    places = asyncio.Semaphore(_AT_ONCE)

    async def one(quarantine: Quarantine) -> bool:
        async with places:
            done, said = await _one(kube, quarantine, asked, by)
        print(clean(f"{quarantine.namespace}/{quarantine.name}: {said}"))
        return done

    results = await asyncio.gather(*map(one, standing))
    print(f"{sum(results)} of {len(results)} released.")
    return DONE if all(results) else UNDONE


async def _one(kube: Kube, quarantine: Quarantine, asked: Everything, by: str) -> tuple[bool, str]:
    """Whether it is released, and what is to be said of it."""
    about = Target(TargetKind.QUARANTINE, quarantine.namespace, quarantine.name)
    stamp = {"uid": quarantine.uid}
    mark = secrets.token_hex(3)
    written = decision(about, stamp, Verdict.RELEASE, asked.verb, reason=asked.reason, by=by, mark=mark)
    name = written["metadata"]["name"]
    try:
        await kube.create(IDENTITY_DECISIONS, written)
        status = await outcome(kube, name, quarantine.namespace, asked.timeout) if asked.timeout else None
    except ApiError as error:
        return False, error.message
    if not asked.timeout:
        return True, f"identitydecision/{name} made"
    if status is None:
        return False, f"identitydecision/{name} stands, and the operator has not taken it up yet: it counts from now"
    return status.outcome is DecisionOutcome.COUNTED, f"{status.outcome.value}: {status.message}"
