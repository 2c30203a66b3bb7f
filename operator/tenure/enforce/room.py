"""How many pre-images one object has room for, and how they are laid out over several."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

from tenure.api.quarantine import MOST_BINDINGS, MOST_FURTHER, MOST_SUBJECTS, PreImage
from tenure.decide.held import Held

MOST_BYTES: Final = 512 * 1024
"""What a Quarantine's status has room for, beside two thousand tokens."""


def laid_out(images: Iterable[PreImage]) -> list[tuple[PreImage, ...]]:
    """What the Quarantine itself holds, and then each of its further objects, in this order; one that is added at the
    end moves none. Raises Held where it is too much: a pre-image is never cut."""
    objects: list[list[PreImage]] = [[]]
    size = count = 0
    for image in images:
        count += 1
        if len(image.removed) > MOST_SUBJECTS:
            raise Held("TooLarge", f"{len(image.removed)} subjects of {image.kind} {image.name}; none was taken out")
        more = len(json.dumps(image.wire()))
        if len(objects[-1]) == MOST_BINDINGS or size + more > MOST_BYTES:
            objects.append([])
            size = 0
        objects[-1].append(image)
        size += more
    if len(objects) > 1 + MOST_FURTHER:
        raise Held("TooLarge", f"pre-images of {count} bindings would take {len(objects)} objects; none was taken out")
    return [tuple(held) for held in objects]
