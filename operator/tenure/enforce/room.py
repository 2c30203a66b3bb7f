"""How many pre-images one object has room for, and how they are laid out over several."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from typing import Final

from tenure.api.quarantine import MOST_BINDINGS, MOST_FURTHER, MOST_SUBJECTS, PreImage
from tenure.decide.held import Held

MOST_BYTES: Final = 512 * 1024
"""What a Quarantine's status has room for, beside two thousand tokens."""


def laid_out(held: Sequence[tuple[PreImage, ...]], images: Iterable[PreImage]) -> list[tuple[PreImage, ...]]:
    """What the Quarantine itself is to hold, and then each of its further objects. `held` is what they hold now: that
    stays where it is, so that whatever write comes last, nothing of it stands nowhere; what is new goes where there is
    room. Raises Held where it is too much: a pre-image is never cut."""
    new = {image.uid: image for image in images}
    objects = [[new.pop(image.uid, image) for image in part] for part in held]
    sizes = [sum(map(_size, part)) for part in objects]
    for image in new.values():
        more = _size(image)
        for place, part in enumerate(objects):
            if len(part) < MOST_BINDINGS and sizes[place] + more <= MOST_BYTES:
                part.append(image)
                sizes[place] += more
                break
        else:
            objects.append([image])
            sizes.append(more)
    for image in itertools.chain.from_iterable(objects):
        if len(image.removed) > MOST_SUBJECTS:
            raise Held("TooLarge", f"{len(image.removed)} subjects of {image.kind} {image.name}; none was taken out")
    if len(objects) > 1 + MOST_FURTHER:
        count = sum(map(len, objects))
        raise Held("TooLarge", f"pre-images of {count} bindings would take {len(objects)} objects; none was taken out")
    return [tuple(part) for part in objects]


def _size(image: PreImage) -> int:
    return len(json.dumps(image.wire()))
