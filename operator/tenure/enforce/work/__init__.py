"""What each stage does, undoes and looks for: one file a stage, listed in the order in which they run."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final, Protocol

from tenure.api.names import Stage
from tenure.decide.hold import Quarantine
from tenure.enforce.contention import Reverted
from tenure.enforce.means import Means
from tenure.enforce.work import deny_writes, disable_tokens, guard, remove_entitlements


class Work(Protocol):
    """A module of this package. Each function may raise ApiError; then it is called again."""

    def held(self, m: Means, /) -> str:
        """Why the stage is not to be had in this installation (a key of decide.held.HELD), "" when it is. The other
        stages are carried out without it."""

    async def carry_out(self, m: Means, quarantine: Quarantine, /) -> tuple[Quarantine, bool]:
        """Stores the pre-image, acts, and reads back. The Quarantine as it then stands (its status is stored by the
        caller), and whether the effect was seen. What is done already is left as it is."""

    def undone(self, m: Means, quarantine: Quarantine, /) -> bool:
        """Whether a finished stage lacks something it should hold, as the inventory has it; what acting has stopped on
        (tenure.enforce.contention) does not count."""

    def reverts(self, m: Means, quarantine: Quarantine, /) -> list[Reverted]:
        """The objects on which our act is not in force any more, as the inventory has them."""

    async def give_back(self, m: Means, quarantine: Quarantine, /) -> list[str]:
        """Restores the pre-image. Returns what was not given back, each with the reason."""


WORK: Final = MappingProxyType[Stage, Work](
    {
        Stage.GUARD: guard,
        Stage.DISABLE_TOKENS: disable_tokens,
        Stage.DENY_WRITES: deny_writes,
        Stage.REMOVE_ENTITLEMENTS: remove_entitlements,
    }
)
"""The stages, mildest first."""
