"""What the words of a command mean: which kind, which verdict about it, with which verb; and the decision they make.

Pure. What does not fit is told here, before the API server is asked for anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from tenure.api import claim, exception, finding, quarantine
from tenure.api.base import Kind
from tenure.api.decision import IdentityDecisionSpec
from tenure.api.names import API_VERSION, TargetKind, Verdict
from tenure.kube.resources import BY_KIND, Resource
from tenure.report.connection import Failure

KINDS: Final[Mapping[TargetKind, Kind]] = {
    TargetKind.IDENTITY_EXCEPTION: exception.KIND,
    TargetKind.OWNED_IDENTITY: claim.KIND,
    TargetKind.IDENTITY_FINDING: finding.KIND,
    TargetKind.QUARANTINE: quarantine.KIND,
}
"""What decisions are about."""

FITS: Final[Mapping[Verdict, tuple[TargetKind, ...]]] = {
    Verdict.APPROVE: (TargetKind.IDENTITY_EXCEPTION,),
    Verdict.REJECT: (TargetKind.IDENTITY_EXCEPTION,),
    Verdict.ATTEST: (TargetKind.OWNED_IDENTITY, TargetKind.IDENTITY_EXCEPTION),
    Verdict.QUARANTINE: (TargetKind.IDENTITY_FINDING,),
    Verdict.REVOKE: (TargetKind.IDENTITY_FINDING,),
    Verdict.RELEASE: (TargetKind.QUARANTINE,),
}
"""Which kinds each verdict is about (contract §3)."""

CONSULT: Final = "consult"
FORCE: Final = "force"

_NAMES: Final = {
    word: kind
    for kind, known in KINDS.items()
    for word in (known.kind.lower(), known.plural, known.singular, known.short_name)
}
_VERB: Final = re.compile("[a-z]+(-[a-z0-9]+)*")
_LONGEST_NAME: Final = 253


@dataclass(frozen=True, slots=True)
class Target:
    """What a command names, and what it wants decided about it."""

    kind: TargetKind
    namespace: str
    name: str

    @property
    def resource(self) -> Resource:
        return BY_KIND[self.kind.value]

    def __str__(self) -> str:
        return f"{self.resource.kind.lower()}/{self.name}"

    def command(self, verdict: Verdict, verb: str = "") -> str:
        """The command that gives this verdict; the reason is left to fill in."""
        used = f" --verb {verb}" if verb and verb != verdict.lower() else ""
        return f"tenure {verdict.lower()} {self} -n {self.namespace}{used} --reason TEXT"


def target(text: str, namespace: str) -> Target:
    """`idex/ci-token`, `IdentityException/ci-token`, `identityexceptions.tenure.dev/ci-token`. Raises Failure."""
    word, slash, name = text.partition("/")
    if not slash or not word or not name or "/" in name:
        raise Failure(
            f"{text!r} is not KIND/NAME, such as identityexception/ci-token or idf/unowned-3f9c1a7e42d05b86aa41."
        )
    kind = _NAMES.get(word.lower().removesuffix(".tenure.dev"))
    if kind is None:
        known = ", ".join(f"{found.singular} ({found.short_name})" for found in KINDS.values())
        raise Failure(f"nothing is decided about a {word}. Decisions are about {known}.")
    return Target(kind, namespace, name)


def check(verdict: Verdict, verb: str, about: Target) -> None:
    """Raises Failure where the verdict is not about this kind, or the verb does not give it."""
    if about.kind not in FITS[verdict]:
        kinds = " or ".join(_article(kind) for kind in FITS[verdict])
        instead = " or ".join(f"`{about.command(other)}`" for other, kinds_of in FITS.items() if about.kind in kinds_of)
        raise Failure(f"{verdict} is about {kinds}. What {_article(about.kind)} waits for is {instead}.")
    if not fits(verb, verdict):
        more = f", or {CONSULT}" if verdict in (Verdict.APPROVE, Verdict.REJECT) else ""
        more += f", or {FORCE}" if verdict is Verdict.APPROVE else ""
        word = verdict.lower()
        raise Failure(
            f"the verb {verb!r} does not give the verdict {verdict}: that takes {word}, or {word}- and a party's name "
            f"such as {word}-security{more}."
        )


def fits(verb: str, verdict: Verdict) -> bool:
    """Whether the verb may give the verdict: it is the verdict in lower case, or that with a party's name; `consult`
    goes with Approve and Reject, `force` with Approve."""
    if not _VERB.fullmatch(verb) or len(verb) > 63:
        return False
    word = verdict.lower()
    if verb == word or verb.startswith(f"{word}-"):
        return True
    if verb == CONSULT or verb.startswith(f"{CONSULT}-"):
        return verdict in (Verdict.APPROVE, Verdict.REJECT)
    return verb == FORCE and verdict is Verdict.APPROVE


def verdict_of(verb: str) -> Verdict | None:
    """The verdict that a verb gives when it agrees: `approve-security`, `consult` and `force` give Approve."""
    return next((verdict for verdict in Verdict if fits(verb, verdict)), None)


def _article(kind: TargetKind) -> str:
    return f"{'a' if kind is TargetKind.QUARANTINE else 'an'} {kind.value}"


def decision(
    about: Target, stamp: Mapping[str, Any], verdict: Verdict, verb: str, *, reason: str, by: str, mark: str
) -> dict[str, Any]:
    """The IdentityDecision as it is written. `stamp` is the very state that was shown: uid, and generation or revision;
    `mark` tells it from other decisions of this name. Raises Failure where a word breaks a bound."""
    spec = {
        "target": {"kind": about.kind.value, "name": about.name, **stamp},
        "verdict": verdict.value,
        "verb": verb,
        "reason": reason,
        "by": by,
    }
    try:
        written = IdentityDecisionSpec.read(spec).wire()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        flag = {"reason": "--reason", "verb": "--verb"}.get(where, where)
        raise Failure(f"{flag}: {first['msg']}.") from error
    stem = f"{verdict.lower()}-{about.name}"[: _LONGEST_NAME - 1 - len(mark)].rstrip("-.")
    return {
        "apiVersion": API_VERSION,
        "kind": "IdentityDecision",
        "metadata": {"name": f"{stem}-{mark}", "namespace": about.namespace},
        "spec": written,
    }
