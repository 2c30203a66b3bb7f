"""Namespaced is a dict by (namespace, name) that also answers for one namespace."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.model.namespaced import Name2, Namespaced

KEYS = st.tuples(st.sampled_from(["", "payments", "shop"]), st.sampled_from(["ci", "deploy", "web"]))
CHANGES = st.lists(st.tuples(KEYS, st.none() | st.integers()))


@given(CHANGES)
def test_it_holds_what_a_dict_would_hold(changes: list[tuple[Name2, int | None]]) -> None:
    held: Namespaced[int] = Namespaced()
    wanted: dict[Name2, int] = {}
    for key, value in changes:
        if value is None:
            assert held.pop(key, None) == wanted.pop(key, None)
        else:
            held[key] = wanted[key] = value
        of_place = sorted((name, number) for (namespace, name), number in wanted.items() if namespace == key[0])
        assert held.within(key[0]) == tuple(number for _, number in of_place)
        assert held.within(key[0]) is held.within(key[0])
    assert dict(held.items()) == wanted
    assert len(held) == len(wanted)
    assert sorted(held) == sorted(wanted)
    assert sorted(held.values()) == sorted(wanted.values())
    assert held.namespaces() == {namespace for namespace, _ in wanted}
    assert all(key in held and held[key] == value for key, value in wanted.items())


def test_what_is_not_there_is_named() -> None:
    held: Namespaced[int] = Namespaced()
    held["payments", "ci"] = 1
    with pytest.raises(KeyError, match=r"\('payments', 'web'\)"):
        held["payments", "web"]
    with pytest.raises(KeyError, match=r"\('shop', 'ci'\)"):
        del held["shop", "ci"]
    assert ("shop", "ci") not in held
    assert "ci" not in held
    assert held.get(("shop", "ci")) is None
