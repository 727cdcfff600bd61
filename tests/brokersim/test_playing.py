"""Days of orders played in compressed time."""

import json
import subprocess
import sys

import pytest

from brokersim.playing import LineError, play

OPENING = 1_790_000_000


def day(*orders, seconds=600):
    return json.dumps({"opening": OPENING, "seconds": seconds, "orders": orders})


def order(at, *, side="BUY", key="NSE:SBIN", **more):
    return {"at": at, "user": "u", "key": key, "side": side, "quantity": 9} | more


def steps(*lines, seed=1):
    return [json.loads(line)["events"] for line in play(lines, seed=seed)]


def stages(events, number):
    return [stage for of, _, stage, _ in events if of == number]


def test_each_order_walks_through_the_exchange_at_its_moment():
    (events,) = steps(day(order(1), order(2, offset=-2, cancel_after=30), order(3, offset=-0.05)))

    assert stages(events, 0) == ["RECEIVED", "VALIDATING", "SENT", "OPEN", "FILLED"]
    assert stages(events, 1) == ["RECEIVED", "VALIDATING", "SENT", "OPEN", "CANCEL_SENT", "CANCELLED"]
    assert stages(events, 2)[-1] == "FILLED"
    assert stages(events, 2).count("PARTIALLY_FILLED") >= 1
    assert [at for _, at, _, _ in events] == sorted(at for _, at, _, _ in events)
    assert events[0] == [0, 1.0, "RECEIVED", 0]
    assert max(filled for of, _, _, filled in events if of == 2) == 9


def test_what_still_rests_expires_at_the_close():
    (events,) = steps(day(order(1, offset=-3)))

    assert events[-1] == [0, 600.0, "EXPIRED", 0]


def test_a_cancellation_that_comes_too_late_does_nothing():
    (events,) = steps(day(order(1, cancel_after=100)))

    assert stages(events, 0)[-1] == "FILLED"


def test_the_same_days_and_seed_play_the_same_and_another_seed_does_not():
    lines = [day(*(order(n, offset=-0.1) for n in range(50)))] * 2

    assert steps(*lines, seed=4) == steps(*lines, seed=4)
    assert steps(*lines, seed=4) != steps(*lines, seed=5)


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "[]",
        "{}",
        day(order(601)),
        day(order(1), seconds=0),
        day(order(1, side="HOLD")),
        day(order(1, key="NSE:NOBODY")),
        day(order("soon")),
        day(order(1, offset="far")),
    ],
)
def test_a_line_that_is_no_day_is_refused(line):
    with pytest.raises(LineError):
        steps(line)


def test_the_program_answers_a_line_with_a_line_and_refuses_nonsense_in_one():
    command = [sys.executable, "-m", "brokersim", "play", "--seed", "2"]

    good = subprocess.run(command, input=f"{day(order(1))}\n" * 2, capture_output=True, text=True, check=True)
    bad = subprocess.run(command, input="x\n", capture_output=True, text=True, check=False)

    assert [stages(json.loads(line)["events"], 0)[-1] for line in good.stdout.splitlines()] == ["FILLED"] * 2
    assert (bad.returncode, bad.stdout) == (1, "")
    assert bad.stderr.startswith("brokersim: no day of orders")
