"""Records by (namespace, name), held namespace by namespace: what lies in one is asked for all the time.

On the size Tenure is made for, one dict of all with a tuple per record as its key, and an index by namespace beside it,
would weigh about as much as the records.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, MutableMapping, ValuesView
from typing import Generic, TypeVar

Name2 = tuple[str, str]
"""(namespace, name); namespace "" for cluster-scoped objects."""

R = TypeVar("R")


class _Place(dict[str, R]):
    """The records of one namespace by name, with their sorted tuple while nothing changes."""

    __slots__ = ("ordered",)

    def __init__(self) -> None:
        super().__init__()
        self.ordered: tuple[R, ...] | None = None


class Namespaced(MutableMapping[Name2, R], Generic[R]):
    """A mapping by (namespace, name). As with a dict, it must not change while it is iterated over."""

    def __init__(self) -> None:
        self._places: dict[str, _Place[R]] = {}

    def within(self, namespace: str) -> tuple[R, ...]:
        """The records of a namespace in the order of their names; equal calls give the same tuple until one changes."""
        place = self._places.get(namespace)
        if place is None:
            return ()
        if place.ordered is None:
            place.ordered = tuple(place[name] for name in sorted(place))
        return place.ordered

    def namespaces(self) -> frozenset[str]:
        """Those in which there is a record."""
        return frozenset(self._places)

    def __getitem__(self, key: Name2) -> R:
        namespace, name = key
        try:
            return self._places[namespace][name]
        except KeyError:
            raise KeyError(key) from None

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, tuple):
            return False
        namespace, name = key
        return name in self._places.get(namespace, ())

    def __setitem__(self, key: Name2, record: R) -> None:
        namespace, name = key
        place = self._places.get(namespace)
        if place is None:
            place = self._places[namespace] = _Place()
        place[name] = record
        place.ordered = None

    def __delitem__(self, key: Name2) -> None:
        namespace, name = key
        place = self._places.get(namespace)
        if place is None or name not in place:
            raise KeyError(key)
        del place[name]
        place.ordered = None
        if not place:
            del self._places[namespace]

    def __len__(self) -> int:
        return sum(map(len, self._places.values()))

    def __iter__(self) -> Iterator[Name2]:
        for namespace, place in self._places.items():
            for name in place:
                yield (namespace, name)

    def values(self) -> ValuesView[R]:
        return _Values(self)

    def items(self) -> ItemsView[Name2, R]:
        return _Items(self)


class _Values(ValuesView[R]):
    """Without asking for each record by its key."""

    _mapping: Namespaced[R]

    def __iter__(self) -> Iterator[R]:
        for place in self._mapping._places.values():
            yield from place.values()


class _Items(ItemsView[Name2, R]):
    _mapping: Namespaced[R]

    def __iter__(self) -> Iterator[tuple[Name2, R]]:
        for namespace, place in self._mapping._places.items():
            for name, record in place.items():
                yield (namespace, name), record
