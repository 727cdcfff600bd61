import asyncio

import pytest

from orderwire.feeds.watched import watched


class Steps:
    """A clock that each step of the work moves by what it says."""

    def __init__(self):
        self.now = 0.0
        self.told = []

    def run(self, work):
        return asyncio.run(self._await(work))

    async def _await(self, work):
        return await watched(work, time=lambda: self.now, told=self.told.append)


def test_each_step_that_held_the_loop_is_told():
    steps = Steps()

    async def work():
        steps.now += 0.5
        await asyncio.sleep(0)
        steps.now += 2.0
        await asyncio.sleep(0)
        steps.now += 3.0
        return "done"

    assert steps.run(work()) == "done"
    assert steps.told == [2.0, 3.0]


def test_waiting_is_not_blocking():
    steps = Steps()

    async def work():
        turn = asyncio.get_running_loop().create_future()

        def later():
            steps.now += 100.0
            turn.set_result(7)

        asyncio.get_running_loop().call_soon(later)
        return await turn

    assert steps.run(work()) == 7
    assert steps.told == []


def test_an_error_passes_and_its_step_counts():
    steps = Steps()

    async def work():
        await asyncio.sleep(0)
        steps.now += 2.0
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        steps.run(work())

    assert steps.told == [2.0]


def test_cancelling_reaches_the_work_and_what_it_does_then_counts():
    steps, seen = Steps(), []

    async def work():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            await asyncio.sleep(0)
            steps.now += 4.0
            raise

    async def story():
        task = asyncio.create_task(steps._await(work()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(story())

    assert seen == ["cancelled"]
    assert steps.told == [4.0]


def test_a_time_limit_inside_and_outside_works_as_ever():
    steps = Steps()

    async def work():
        try:
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        except TimeoutError:
            return "inner"

    assert steps.run(work()) == "inner"

    async def outside():
        async with asyncio.timeout(0.01):
            await steps._await(asyncio.Event().wait())

    with pytest.raises(TimeoutError):
        asyncio.run(outside())
