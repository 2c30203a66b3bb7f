"""`tenure approve`, `reject`, `attest`, `quarantine`, `revoke`, `release`: show, ask, write one IdentityDecision, wait.

The decision names the state that was shown. It is read once: what changes while somebody reads makes the decision
stale, which admission or the operator then says, instead of a decision about something nobody saw.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TextIO

import yaml

from tenure.api.decision import DecisionOutcome, IdentityDecisionStatus
from tenure.api.names import TargetKind, Verdict
from tenure.inventory.projection import PROJECTIONS
from tenure.kube.client import Kube
from tenure.kube.errors import (
    ApiError,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    Unreachable,
)
from tenure.kube.resources import (
    IDENTITY_DECISIONS,
    IDENTITY_FINDINGS,
    OWNED_IDENTITIES,
    SECRETS,
    SERVICE_ACCOUNTS,
    Resource,
)
from tenure.model.records import Authored
from tenure.report import brief as briefing
from tenure.report import verdicts
from tenure.report.brief import Brief
from tenure.report.collect import Gap, listed
from tenure.report.connection import Failure, connect, explained
from tenure.report.render import clean
from tenure.report.verdicts import Target
from tenure.settings import Settings

DONE = 0
UNDONE = 1
"""Refused, void, not confirmed, or not taken up within the time."""

_PAUSE: Final = (0.1, 2.0)
"""Seconds between two looks at the decision's status: the first, and the longest. Polled, since a decider's role needs
`get` on decisions for it and no `watch`."""
_RELISTED: Final = {
    IDENTITY_FINDINGS: "which findings it bears on is unknown",
    SERVICE_ACCOUNTS: "which ServiceAccounts it covers is unknown",
    SECRETS: "which Secrets it covers is unknown",
    OWNED_IDENTITIES: "which claims it covers is unknown",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the command line asks for."""

    verdict: Verdict
    target: str
    namespace: str
    reason: str
    verb: str = ""
    """"" = the verdict in lower case."""
    only_print: bool = False
    yes: bool = False
    timeout: float = 30.0
    """Seconds to wait for the decision's effect; 0 = not at all."""


class _Refused(Exception):
    """The API server's answer is no."""


def decide(settings: Settings, order: Order, ask: Callable[[str], str] | None) -> int:
    """The exit status: DONE or UNDONE. `ask` shows a question and returns the answer; None where nobody can be asked.
    Raises Failure for wrong usage, a target that is not there, and where no API server answers."""
    about = verdicts.target(order.target, order.namespace)
    verb = order.verb or order.verdict.lower()
    verdicts.check(order.verdict, verb, about)
    # One loop, in pieces: while the question waits for its answer no loop runs, so that Ctrl-C ends it at once.
    with asyncio.Runner() as runner:
        kube = runner.run(connect(settings))
        try:
            with explained(kube.server):
                brief, by = runner.run(_read(kube, about))
                written = verdicts.decision(
                    about, brief.stamp, order.verdict, verb, reason=order.reason, by=by, mark=secrets.token_hex(3)
                )
                shown: TextIO = sys.stderr if order.only_print else sys.stdout
                if not order.only_print or sys.stderr.isatty():
                    briefing.show(brief, shown, verdict=order.verdict, verb=verb, by=by, reason=order.reason)
                if order.only_print:
                    yaml.safe_dump(written, sys.stdout, sort_keys=False, allow_unicode=True)
                    return DONE
                if ask is not None and not order.yes and not confirmed(ask, "Decide this? [y/N] "):
                    print("Nothing was decided.")
                    return UNDONE
                return runner.run(_carry_out(kube, written, order.timeout))
        except _Refused as refusal:
            print(f"tenure: {clean(str(refusal))}", file=sys.stderr)
            return UNDONE
        finally:
            runner.run(kube.close())


def confirmed(ask: Callable[[str], str], question: str) -> bool:
    """Only yes is yes."""
    try:
        return ask(question).strip().lower() in ("y", "yes")
    except (EOFError, KeyboardInterrupt):
        print()
        return False


# --- reading


async def _read(kube: Kube, about: Target) -> tuple[Brief, str]:
    """The brief, and who we are to the API server."""
    by, record = await asyncio.gather(kube.self_user(), _target(kube, about))
    seen, (decisions, gaps) = await asyncio.gather(
        listed(kube, about.namespace, {resource: _RELISTED[resource] for resource in _beside(about, record)}),
        _history(kube, about),
    )
    return briefing.brief(about, record, seen.store, decisions, kube.clock.now(), (*seen.gaps, *gaps)), by


async def _target(kube: Kube, about: Target) -> Authored[Any, Any]:
    resource = about.resource
    try:
        raw = await kube.get(resource, about.name, about.namespace)
    except NotFound as error:
        if error.kind_missing:
            raise Failure(
                f"{kube.server} does not serve {resource.qualified}: Tenure is not installed there."
            ) from error
        raise Failure(
            f"there is no {about} in namespace {about.namespace}. "
            f"`kubectl get {resource.plural} -n {about.namespace}` shows those that are."
        ) from error
    except Forbidden as error:
        raise Failure(
            f"you may not get {resource.qualified} in {about.namespace}, and nothing is decided unseen. "
            f"Ask for a role that lets you read them there."
        ) from error
    record = PROJECTIONS[resource.kind](raw)
    if not isinstance(record, Authored):
        raise Failure(f"this version cannot read {about}, so it cannot show what is decided: {record.error}.")
    first = record.spec.continues if about.kind is TargetKind.QUARANTINE else None
    if first is not None:
        raise Failure(f"{about} holds what quarantine/{first} has no room for, and goes with it: decide on that one.")
    return record


def _beside(about: Target, record: Authored[Any, Any]) -> list[Resource]:
    """What has to be listed to say what the decision bears on."""
    found = [IDENTITY_FINDINGS]
    if about.kind is TargetKind.OWNED_IDENTITY:
        found += [SERVICE_ACCOUNTS, SECRETS]
    elif about.kind is TargetKind.IDENTITY_EXCEPTION and record.spec.target.selector is not None:
        kind = record.spec.target.kind.value
        found += [resource for resource in (SERVICE_ACCOUNTS, SECRETS, OWNED_IDENTITIES) if resource.kind == kind]
    return found


async def _history(kube: Kube, about: Target) -> tuple[list[Any], tuple[Gap, ...]]:
    """The decisions about objects of this kind and name."""
    selector = f"spec.target.kind={about.kind.value},spec.target.name={about.name}"
    found: list[Any] = []
    try:
        async for page in kube.pages(IDENTITY_DECISIONS, about.namespace, params={"fieldSelector": selector}):
            found += [PROJECTIONS["IdentityDecision"](raw) for raw in page.get("items") or ()]
    except (Unauthorized, Unreachable):
        raise
    except ApiError as error:
        right = f"you may not list {IDENTITY_DECISIONS.qualified} in {about.namespace}"
        why = right if isinstance(error, Forbidden) else error.message
        return [], (Gap("IdentityDecision", about.namespace, why, "what was decided before is unknown"),)
    return [made for made in found if isinstance(made, Authored)], ()


# --- deciding


async def _carry_out(kube: Kube, written: dict[str, Any], patience: float) -> int:
    name, namespace = written["metadata"]["name"], written["metadata"]["namespace"]
    try:
        await kube.create(IDENTITY_DECISIONS, written)
    except (Forbidden, Invalid, Conflict, TooManyRequests) as error:
        raise _Refused(error.message) from error
    except Unavailable as error:
        raise Failure(
            f"{error}. Whether the decision was made is unknown: `kubectl get identitydecision {name} -n {namespace}`."
        ) from error
    print(f"identitydecision/{name} made.")
    if not patience:
        return DONE
    status = await outcome(kube, name, namespace, patience)
    if status is None:
        print(
            f"It stands, and the operator has not taken it up within {patience:g} s. It counts from now, also if the "
            f"operator comes back later: `kubectl get identitydecision {name} -n {namespace} -o wide`."
        )
        return UNDONE
    late = " (after the deadline)" if status.late else ""
    print(clean(f"{status.outcome.value}: {status.reason}{late}. {status.message}".rstrip()))
    if status.effect:
        print(clean(f"Effect: {status.effect}"))
    return DONE if status.outcome is DecisionOutcome.COUNTED else UNDONE


async def outcome(kube: Kube, name: str, namespace: str, patience: float) -> IdentityDecisionStatus | None:
    """What the operator made of the decision; None when nothing came of it within the time."""
    loop = asyncio.get_running_loop()
    end = loop.time() + patience
    pause, longest = _PAUSE
    while True:
        found = None
        try:
            found = PROJECTIONS["IdentityDecision"](await kube.get(IDENTITY_DECISIONS, name, namespace))
        except Forbidden as error:
            raise _Refused(
                f"the decision stands, but you may not get {IDENTITY_DECISIONS.qualified} in {namespace}, so its "
                f"effect cannot be seen."
            ) from error
        except NotFound as error:
            raise _Refused(f"identitydecision/{name} is gone again: somebody deleted it.") from error
        except (TooManyRequests, Unavailable):
            pass  # the decision stands; there is time to ask again
        status: IdentityDecisionStatus | None = getattr(found, "status", None)
        if status is not None and status.outcome is not DecisionOutcome.UNDECIDED:
            return status
        left = end - loop.time()
        if left <= 0:
            return None
        await asyncio.sleep(min(pause, left))
        pause = min(pause * 1.5, longest)
