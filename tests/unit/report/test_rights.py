"""What I may do: exactly what the API server allows, in a bounded number of requests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from tenure.kube.errors import ApiError, Forbidden, Unreachable
from tenure.kube.resources import IDENTITY_EXCEPTIONS, IDENTITY_FINDINGS, IDENTITY_OWNERS, Resource
from tenure.report.rights import MOST_NAMES, Answers, ask
from tenure.report.waiting import Right

Grant = tuple[str, str, str, str]
"""(verb, plural, namespace or "" for everywhere, name or "" for every)"""


class Server:
    """Answers as an API server with RBAC: a grant without a name covers every name."""

    def __init__(self, *grants: Grant, incomplete: bool = False, refused: ApiError | None = None) -> None:
        self.grants = grants
        self.incomplete = incomplete
        self.refused = refused
        self.asked: list[Any] = []

    async def can(self, verb: str, resource: Resource, namespace: str = "", name: str = "") -> bool:
        self.asked.append((verb, resource.plural, namespace, name))
        return any(
            (verb, resource.plural) == (granted, plural) and where in ("", namespace) and only in ("", name)
            for granted, plural, where, only in self.grants
        )

    async def rules(self, namespace: str) -> dict[str, Any]:
        self.asked.append(namespace)
        if self.refused:
            raise self.refused
        here = [grant for grant in self.grants if grant[2] in ("", namespace)]
        return {"incomplete": self.incomplete, "resourceRules": [] if self.incomplete else [*map(rule, here)]}


def rule(grant: Grant) -> dict[str, Any]:
    verb, plural, _, name = grant
    return {"verbs": [verb], "apiGroups": ["tenure.dev"], "resources": [plural]} | (
        {"resourceNames": [name]} if name else {}
    )


def wanted(verb: str, resource: Resource, names: Iterable[str], *namespaces: str) -> dict[Any, frozenset[str]]:
    return {(verb, resource, namespace): frozenset(names) for namespace in namespaces}


def holds(answers: Answers, verb: str, resource: Resource, namespace: str, name: str) -> bool:
    return answers.held(Right(verb, resource, namespace, name)).covers(name)


async def test_who_holds_a_verb_everywhere_costs_one_request() -> None:
    server = Server(("quarantine", "identityfindings", "", ""))
    namespaces = [f"ns-{n}" for n in range(200)]
    answers = await ask(server, wanted("quarantine", IDENTITY_FINDINGS, {"a", "b"}, *namespaces))
    assert holds(answers, "quarantine", IDENTITY_FINDINGS, "ns-7", "a")
    assert len(server.asked) == 1


async def test_who_holds_nothing_costs_one_request_per_verb_and_namespace() -> None:
    server = Server()
    names = {f"f-{n}" for n in range(1_000)}
    answers = await ask(server, wanted("quarantine", IDENTITY_FINDINGS, names, "a", "b"))
    assert not holds(answers, "quarantine", IDENTITY_FINDINGS, "a", "f-1")
    assert len(server.asked) == 3


async def test_a_verb_in_one_namespace_is_none_in_another() -> None:
    server = Server(("approve", "identityexceptions", "a", ""))
    answers = await ask(server, wanted("approve", IDENTITY_EXCEPTIONS, {"x"}, "a", "b"))
    assert holds(answers, "approve", IDENTITY_EXCEPTIONS, "a", "x")
    assert not holds(answers, "approve", IDENTITY_EXCEPTIONS, "b", "x")


async def test_a_verb_on_one_name_is_none_on_another() -> None:
    server = Server(("approve", "identityexceptions", "a", "x"))
    answers = await ask(server, wanted("approve", IDENTITY_EXCEPTIONS, {"x", "y"}, "a"))
    assert holds(answers, "approve", IDENTITY_EXCEPTIONS, "a", "x")
    assert not holds(answers, "approve", IDENTITY_EXCEPTIONS, "a", "y")
    assert ("approve", "identityexceptions", "a", "y") not in server.asked


async def test_any_name_at_all_is_found_in_the_rules() -> None:
    server = Server(("claim", "identityowners", "a", "payments"))
    answers = await ask(server, wanted("claim", IDENTITY_OWNERS, {""}, "a", "b"))
    assert answers.held(Right("claim", IDENTITY_OWNERS, "a", "")).names == {"payments"}
    assert holds(answers, "claim", IDENTITY_OWNERS, "a", "")
    assert not holds(answers, "claim", IDENTITY_OWNERS, "b", "")


async def test_the_rules_are_a_hint_and_the_review_decides() -> None:
    """An authorizer before RBAC may deny what the rules list."""

    class Denying(Server):
        async def can(self, verb: str, resource: Resource, namespace: str = "", name: str = "") -> bool:
            await super().can(verb, resource, namespace, name)
            return False

    server = Denying(("approve", "identityexceptions", "a", "x"), ("approve", "identityexceptions", "a", ""))
    answers = await ask(server, wanted("approve", IDENTITY_EXCEPTIONS, {"x"}, "a"))
    assert not holds(answers, "approve", IDENTITY_EXCEPTIONS, "a", "x")


@pytest.mark.parametrize("server", [{"incomplete": True}, {"refused": Forbidden(403, "Forbidden", "no")}])
async def test_where_rules_cannot_be_listed_names_are_asked_about_up_to_a_bound(server: dict[str, Any]) -> None:
    asked = Server(("approve", "identityexceptions", "a", "x-0001"), **server)
    names = {f"x-{n:04}" for n in range(MOST_NAMES + 5)}
    answers = await ask(asked, wanted("approve", IDENTITY_EXCEPTIONS, names, "a"))
    assert holds(answers, "approve", IDENTITY_EXCEPTIONS, "a", "x-0001")
    assert answers.cut == (("approve", IDENTITY_EXCEPTIONS, "a"),)
    assert len(asked.asked) == MOST_NAMES + 3


async def test_an_api_server_that_does_not_answer_is_no_missing_right() -> None:
    server = Server(refused=Unreachable(0, "Unreachable", "no answer"))
    with pytest.raises(Unreachable):
        await ask(server, wanted("approve", IDENTITY_EXCEPTIONS, {"x"}, "a"))
