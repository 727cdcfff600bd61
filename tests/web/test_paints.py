from __future__ import annotations

from datetime import UTC, datetime

from msgspec.structs import replace

from orderwire.core.evidence import PLACED, RECEIVED
from orderwire.core.latency import Stamps
from orderwire.core.orders import OrderStatus
from orderwire.web.paints import PaintTimes, times_of
from orderwire.web.realtime import Painted
from web.house import MemoryLog, order

BASE = 1_795_501_815_000_000_000
MS = 1_000_000
SEEN = datetime.fromtimestamp(BASE / 1e9, tz=UTC)


def a_paint(*, hidden=False, was=None, **facts):
    change = MemoryLog().change(order(first_seen=SEEN, **facts))
    stamps = Stamps(
        received=BASE + 10 * MS, committed=BASE + 12 * MS, emitted=BASE + 13 * MS, painted=BASE + 25 * MS
    )
    return Painted(change=replace(change, was=was), stamps=stamps, hidden=hidden)


def test_each_stage_is_counted_and_the_whole():
    assert times_of(a_paint()) == {
        "committed": 2 * MS,
        "emitted": MS,
        "painted": 12 * MS,
        RECEIVED: 15 * MS,
    }


def test_the_first_confirmed_state_of_our_own_order_tells_how_long_placing_took():
    assert times_of(a_paint(submission="OW1", was=OrderStatus.PENDING_NEW))[PLACED] == 25 * MS


def test_later_states_and_orders_of_others_tell_nothing_of_placing():
    assert PLACED not in times_of(a_paint(submission="OW1", was=OrderStatus.OPEN))
    assert PLACED not in times_of(a_paint(submission="OW1", status=OrderStatus.PENDING_NEW))
    assert PLACED not in times_of(a_paint())


def test_only_what_somebody_could_see_counts():
    paints = PaintTimes(lambda _account, _durations: None)

    paints(a_paint(hidden=True))
    paints(a_paint())

    assert paints.snapshot()[RECEIVED].count == 1
    assert paints.snapshot()[RECEIVED].max == 15 * MS


def test_whoever_collects_hears_of_every_visible_paint():
    heard = []
    paints = PaintTimes(lambda account, durations: heard.append((account, durations[RECEIVED])))

    paints(a_paint())
    paints(a_paint(hidden=True))

    assert heard == [(a_paint().change.account, 15 * MS)]
