"""The rollout rehearsed in a small size; `make drill-rollout` is the whole of it."""

from __future__ import annotations

import pytest

from feed_floor import floor
from rollout_drill import WHY, a_pilot, shares, toggle


def test_shares_are_right_and_nested():
    found = shares(5_000)

    assert found.nested
    assert found.worst <= 0.02


@pytest.mark.timeout(240)
def test_toggling_under_load_loses_and_doubles_nothing(tmp_path, record_property):
    with floor(tmp_path, kite=2, xts=2) as built:
        pilot = a_pilot(built)
        built.until(built.all_live)
        found = toggle(built, pilot, seconds=6, rate=100, every=0.5)

    assert found.toggles >= 4
    assert found.fills > 20
    assert (found.lost, found.doubled, found.passed_after) == ([], 0, 0)
    worst = max(found.stopped_within)
    record_property(
        "figure",
        f"rollout: stop → no socket left at either broker, worst of {found.toggles // 2}: {worst * 1000:.0f} ms",
    )


@pytest.mark.timeout(240)
def test_one_broker_switched_off_leaves_the_other_live(tmp_path):
    with floor(tmp_path, kite=1, xts=1) as built:
        pilot = a_pilot(built)
        built.until(built.all_live)

        pilot.gate.switch_broker("jainam", on=False, **WHY)

        built.until(lambda: not built.sim.ask("GET", "/sockets")["xts"])
        assert len(built.sim.ask("GET", "/sockets")["kite"]) == 1
        assert (built.fleet.pushes("k0"), built.fleet.pushes("x0")) == (True, False)
