"""What I may do, according to the API server, in few requests.

One SelfSubjectAccessReview per verb settles those who hold it in the whole cluster. For the others one
SelfSubjectRulesReview per namespace says which verbs they hold there, and on which names; each of those is then asked
about in a SelfSubjectAccessReview, since the rules are a hint and the review is the API server's word. A user without
rights costs one request per verb and one per namespace in which something waits, however much waits there. Where the
rules are incomplete (an authorizer that cannot list them, such as a webhook) names are asked about, up to a bound.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tenure.kube.client import Kube
from tenure.kube.errors import ApiError, Unauthorized, Unreachable
from tenure.kube.resources import Resource
from tenure.report.waiting import Reach, Right

MOST_NAMES: Final = 200
"""Names asked about one by one, per verb and namespace."""

Wanted = Mapping[tuple[str, Resource, str], frozenset[str]]
_Asked = tuple[str, Resource, str]
_NOTHING: Final = Reach()


@dataclass(frozen=True, slots=True)
class Answers:
    """What the API server said. `cut` are the (verb, resource, namespace) of which not every name was asked about."""

    reaches: Mapping[_Asked, Reach]
    cut: tuple[_Asked, ...]

    def held(self, right: Right) -> Reach:
        """On which objects the right is held."""
        return self.reaches.get((right.verb, right.resource, right.namespace), _NOTHING)


async def ask(kube: Kube, wanted: Wanted) -> Answers:
    """Which of the wanted rights we hold; names "" ask for any at all. Raises ApiError."""
    everywhere = await _everywhere(kube, wanted)
    rest = {asked: names for asked, names in wanted.items() if asked[:2] not in everywhere}
    namespaces = sorted({namespace for _, _, namespace in rest if namespace})
    rules = dict(zip(namespaces, await asyncio.gather(*(_rules(kube, name) for name in namespaces)), strict=True))
    several = list(rest)
    found = await asyncio.gather(*(_reach(kube, asked, rest[asked], rules.get(asked[2])) for asked in several))
    reaches = {asked: Reach(every=True) for asked in wanted if asked[:2] in everywhere}
    reaches |= {asked: reach for asked, (reach, _) in zip(several, found, strict=True)}
    return Answers(reaches, tuple(asked for asked, (_, cut) in zip(several, found, strict=True) if cut))


async def _everywhere(kube: Kube, wanted: Wanted) -> set[tuple[str, Resource]]:
    kinds = list(dict.fromkeys((verb, resource) for verb, resource, _ in wanted))
    answers = await asyncio.gather(*(kube.can(verb, resource) for verb, resource in kinds))
    return {kind for kind, allowed in zip(kinds, answers, strict=True) if allowed}


async def _rules(kube: Kube, namespace: str) -> Mapping[str, Any] | None:
    """The rules that hold for us in a namespace; None where they cannot be told."""
    try:
        status = await kube.rules(namespace)
    except (Unauthorized, Unreachable):
        raise
    except ApiError:
        return None
    return None if status.get("incomplete") else status


async def _reach(
    kube: Kube, asked: _Asked, names: frozenset[str], rules: Mapping[str, Any] | None
) -> tuple[Reach, bool]:
    """How far we hold one verb in one namespace, and whether names were left out."""
    verb, resource, namespace = asked
    candidates: Iterable[str] = names - {""}
    if rules is not None:
        every, listed = _granted(rules, verb, resource)
        if not every and not listed:
            return _NOTHING, False
        candidates = listed if "" in names else listed & names
        if not every and not candidates:
            return _NOTHING, False
    if await kube.can(verb, resource, namespace):
        return Reach(every=True), False
    few = sorted(candidates)[:MOST_NAMES]
    answers = await asyncio.gather(*(kube.can(verb, resource, namespace, name) for name in few))
    allowed = frozenset(name for name, may in zip(few, answers, strict=True) if may)
    return Reach(names=allowed), len(few) < len(set(candidates))


def _granted(rules: Mapping[str, Any], verb: str, resource: Resource) -> tuple[bool, frozenset[str]]:
    """Whether a rule grants the verb on every object, and the names on which others grant it."""
    every, names = False, set[str]()
    for rule in rules.get("resourceRules") or ():
        if not (
            {verb, "*"} & set(rule.get("verbs") or ())
            and {resource.group, "*"} & set(rule.get("apiGroups") or ())
            and {resource.plural, "*"} & set(rule.get("resources") or ())
        ):
            continue
        every = every or not rule.get("resourceNames")
        names.update(rule.get("resourceNames") or ())
    return every, frozenset(names)
