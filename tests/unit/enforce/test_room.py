"""How pre-images are laid out over a Quarantine and its further objects."""

from __future__ import annotations

import json

import pytest

from tenure.api.quarantine import (
    MOST_BINDINGS,
    MOST_FURTHER,
    MOST_SUBJECTS,
    BindingSubject,
    PreImage,
    PreImageRoleRef,
    RemovedSubject,
)
from tenure.decide.held import HELD, Held
from tenure.enforce.room import MOST_BYTES, laid_out


def image(number: int, subjects: int = 1, name: str = "ci") -> PreImage:
    subject = BindingSubject(kind="ServiceAccount", namespace="payments", name=name)
    found = PreImage(
        api_version="rbac.authorization.k8s.io/v1",
        kind="RoleBinding",
        namespace=f"team-{number}",
        name="reader",
        uid=f"uid-{number}",
        role_ref=PreImageRoleRef(kind="Role", name="reader"),
    )
    removed = tuple(RemovedSubject(index=index, subject=subject) for index in range(subjects))
    return found.model_copy(update={"removed": removed})


def size(images: tuple[PreImage, ...]) -> int:
    return len(json.dumps([found.wire() for found in images]))


@pytest.mark.parametrize(
    ("count", "sizes"), [(0, [0]), (1, [1]), (500, [500]), (501, [500, 1]), (1_200, [500, 500, 200])]
)
def test_what_one_has_no_room_for_continues_in_the_next(count: int, sizes: list[int]) -> None:
    images = [image(number) for number in range(count)]
    objects = laid_out([()], images)
    assert [len(part) for part in objects] == sizes
    assert [found for part in objects for found in part] == images


def test_large_ones_fill_an_object_earlier() -> None:
    images = [image(number, MOST_SUBJECTS, "x" * 253) for number in range(20)]
    objects = laid_out([()], images)
    assert len(objects) > 2
    assert [found for part in objects for found in part] == images
    for part in objects:
        assert size(part) <= MOST_BYTES + 2 * len(part)  # brackets and commas
    one = size(objects[0]) // len(objects[0])
    assert all(size(part) + one > MOST_BYTES for part in objects[:-1])


def test_what_is_held_stays_where_it_is_whatever_comes() -> None:
    """Also what only a later object holds, since a crash came, or somebody took one away; and what grew."""
    images = [image(number) for number in range(1_100)]
    held = [tuple(images[:500]), (), tuple(images[600:700])]
    grown = image(1, 2)
    first, second, third = laid_out(held, [*images[:1], grown, *images[2:]])
    assert first == (images[0], grown, *images[2:500])
    assert third[:100] == tuple(images[600:700])
    assert len(second) == 500
    assert {found.uid for part in (first, second, third) for found in part} == {found.uid for found in images}
    assert laid_out([first, second, third], ()) == [first, second, third]  # nothing is forgotten


def test_past_the_last_object_nothing_is_laid_out() -> None:
    room = MOST_BINDINGS * (1 + MOST_FURTHER)
    assert len(laid_out([()], map(image, range(room)))) == 1 + MOST_FURTHER
    with pytest.raises(Held, match="4501 bindings would take 10 objects; none was taken out") as refused:
        laid_out([()], map(image, range(room + 1)))
    assert refused.value.reason in HELD


def test_of_one_binding_no_more_subjects_than_an_object_may_list() -> None:
    assert laid_out([()], [image(1, MOST_SUBJECTS)])
    for held in ((), (image(1),)):
        with pytest.raises(Held, match="257 subjects of RoleBinding reader"):
            laid_out([held], [image(1, MOST_SUBJECTS + 1)])
