"""The steps of escalation that an ownership brings along."""

from __future__ import annotations

from tenure.model.evaluation import Rung
from tests.unit.rules.world import NS, World

STEPS = [{"after": "80%", "to": "security"}, {"after": "50%", "to": "platform"}]


def made(**owners: dict[str, object]) -> World:
    """A ServiceAccount `ci` in a namespace whose label names the owner payments."""
    world = World()
    world.namespace(NS, {"tenure.dev/owner": "payments"})
    world.account()
    for name, spec in owners.items():
        world.owner(name, spec)
    return world


def ladder(world: World) -> tuple[Rung, ...]:
    account = world.store.service_accounts[(NS, "ci")]
    return world.judge(account).ownership.ladder


def test_the_rungs_are_the_owners_steps_by_share_with_whom_to_reach() -> None:
    contact = {"contacts": [{"type": "Chat", "value": "#platform"}]}
    world = made(payments={"escalation": STEPS}, platform=contact, security={})
    assert ladder(world) == (Rung(0.5, "platform", "Chat #platform"), Rung(0.8, "security"))


def test_where_a_step_leads_to_somebody_vacant_the_stand_in_answers_and_else_it_is_left_out() -> None:
    world = made(payments={"escalation": STEPS}, platform={"suspended": True, "backup": "ops"}, ops={})
    assert ladder(world) == (Rung(0.5, "ops"),)


def test_a_vacant_owners_backup_brings_its_own_ladder() -> None:
    world = made(payments={"suspended": True, "backup": "web", "escalation": STEPS}, web={"escalation": STEPS[:1]})
    world.claim("all")
    world.owner("security")
    assert ladder(world) == (Rung(0.8, "security"),)


def test_nobody_has_no_ladder() -> None:
    assert ladder(made()) == ()
