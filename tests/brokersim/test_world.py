"""The shared object: time that flows, work in the background, money and planned refusals."""

import asyncio
from dataclasses import replace
from decimal import Decimal

import pytest

from brokersim.exchange import Moment
from brokersim.world import World
from sim_orders import order


def fixed():
    return World(start=1_786_953_200.0, walking=False)


def test_an_earlier_action_wakes_the_sleeping_pump():
    async def story():
        world, ran = World(walking=False), asyncio.Event()
        world.spawn(world.run())
        await asyncio.sleep(0)
        world.timeline.after(3600, list)
        world.timeline.after(0.01, ran.set)
        await asyncio.wait_for(ran.wait(), 5)
        await world.shut_down()
        return True

    assert asyncio.run(story())


def test_a_fixed_time_does_not_flow():
    async def story():
        world, ran = fixed(), []
        world.spawn(world.run())
        world.timeline.after(0.0, lambda: ran.append(1))
        await asyncio.sleep(0.02)
        world.sync()
        before = list(ran)
        world.timeline.advance_by(1)
        await world.shut_down()
        return before, ran

    assert asyncio.run(story()) == ([], [1])


def test_background_work_is_cancelled_at_the_end():
    async def story():
        world, done = fixed(), []

        async def never():
            try:
                await asyncio.Event().wait()
            finally:
                done.append("ended")

        async def note():
            done.append("ran")

        world.spawn(never())
        world.later(3600, note())
        world.later(0, note())
        await asyncio.sleep(0.01)
        await world.shut_down()
        return done

    assert asyncio.run(story()) == ["ran", "ended"]


@pytest.mark.parametrize(
    ("moment", "kind"),
    [
        (Moment.RISK, "reject_risk"),
        (Moment.EXCHANGE, "reject_exchange"),
        (Moment.MODIFY, "refuse_modify"),
        (Moment.CANCEL, "refuse_cancel"),
    ],
)
def test_a_planned_refusal_strikes_at_its_moment(moment, kind):
    world = fixed()
    world.faults.add(kind, channel="exchange", params={"message": "planned"})

    refusals = {each: world.exchange.judge(each, order()) for each in Moment}

    assert {each for each, reason in refusals.items() if reason} == {moment}
    assert refusals[moment].text == "planned"


def test_lack_of_margin_is_judged_only_when_it_is_checked():
    world = fixed()
    world.users.account("kite", "ZD0001").cash = Decimal(100)

    reason = world.exchange.judge(Moment.RISK, order())
    world.settings = replace(world.settings, check_margin=False)

    assert reason.text == "Insufficient funds. Required margin is 8200.00 but available margin is 100.00."
    assert reason.raw.startswith(
        "RMS:Margin Exceeds,Required:8200.00, Available:100.00 for entity account-ZD0001"
    )
    assert world.exchange.judge(Moment.RISK, order()) is None
