from decimal import Decimal

import pytest

from brokersim.orders import OrderType, Reason, Terms, Validity
from brokersim.xts.lives import cancel_reject_reason
from xts_floor import SBIN, Floor


@pytest.fixture
def floor():
    return Floor()


def test_two_fills(floor):
    floor.place()
    floor.exchange.fill("xts:1", 20)
    floor.exchange.fill("xts:1", 30)

    assert floor.told() == [("PendingNew", 0), ("New", 0), ("PartiallyFilled", 20), ("Filled", 50)]
    assert [view.report for view in floor.shown] == [1, 2, 3, 4]


def test_modification_shows_the_new_terms_while_pending(floor):
    floor.place()
    floor.exchange.modify("xts:1", Terms(type=OrderType.LIMIT, quantity=60, price=Decimal(790)))
    floor.timeline.advance_by(1)
    floor.exchange.fill("xts:1", 60)

    assert floor.told() == [
        ("PendingNew", 0),
        ("New", 0),
        ("PendingReplace", 0),
        ("Replaced", 0),
        ("Filled", 60),
    ]
    assert [view.terms.quantity for view in floor.shown] == [50, 50, 60, 60, 60]


def test_replaced_keeps_the_fills(floor):
    floor.place()
    floor.exchange.fill("xts:1", 20)
    floor.exchange.modify("xts:1", Terms(type=OrderType.LIMIT, quantity=60, price=Decimal(790)))
    floor.timeline.advance_by(1)

    assert floor.told()[-2:] == [("PendingReplace", 20), ("Replaced", 20)]


@pytest.mark.parametrize("filled", [0, 20])
def test_refused_modification_falls_back_with_the_reason(floor, filled):
    floor.place()
    if filled:
        floor.exchange.fill("xts:1", filled)
    before = floor.told()[-1]
    floor.exchange.judge = lambda *_: Reason(text="no", raw="16346 : no")
    floor.exchange.modify("xts:1", Terms(type=OrderType.LIMIT, quantity=60, price=Decimal(790)))
    floor.timeline.advance_by(1)

    assert floor.told()[-2:] == [("PendingReplace", filled), before]
    last = floor.shown[-1]
    assert (last.reason, last.terms.quantity) == ("16346 : no", 50)


def test_refused_cancellation_falls_back_with_the_reason(floor):
    floor.place()
    floor.exchange.judge = lambda *_: Reason(text="no", raw="16115 : no")
    floor.exchange.cancel("xts:1")
    floor.timeline.advance_by(1)

    assert floor.told()[-2:] == [("PendingCancel", 0), ("New", 0)]
    assert floor.shown[-1].reason == "16115 : no"

    floor.exchange.fill("xts:1", 50)

    assert floor.shown[-1].reason == ""


def test_cancelled_by_the_user_has_no_reason(floor):
    floor.place()
    floor.exchange.fill("xts:1", 20)
    floor.exchange.cancel("xts:1")
    floor.timeline.advance_by(1)

    assert floor.told()[-2:] == [("PendingCancel", 20), ("Cancelled", 20)]
    assert floor.shown[-1].reason == ""


def test_self_trade_cancels_a_partly_filled_order(floor):
    floor.place()
    floor.exchange.fill("xts:1", 20)
    floor.exchange.cancel_by_exchange("xts:1")

    assert floor.told()[-1] == ("Cancelled", 20)
    assert floor.shown[-1].reason == "17071 : The order could have resulted in self trade "


def test_rejected_never_was_at_the_exchange(floor):
    floor.exchange.judge = lambda *_: Reason(
        text="no", raw="Gateway:DMA order can't be placed, for PRO Orders"
    )
    floor.place()

    assert floor.told() == [("PendingNew", 0), ("Rejected", 0)]
    assert floor.shown[-1].order.exchange_order_id == ""
    assert floor.shown[-1].reason == "Gateway:DMA order can't be placed, for PRO Orders"


def test_ioc_is_cancelled_by_the_system(floor):
    floor.place(validity=Validity.IOC)

    assert floor.told()[-1] == ("Cancelled", 0)
    assert floor.shown[-1].reason.startswith("16388 ")


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [(OrderType.SL, "StopLimit", "Limit"), (OrderType.SLM, "StopMarket", "Market")],
)
def test_stop_order_changes_its_type_when_triggered(floor, kind, before, after):
    floor.place(type=kind, trigger_price=Decimal(810), price=Decimal(812))
    assert (floor.shown[-1].status, floor.shown[-1].type_word) == ("New", before)

    floor.exchange.set_price(SBIN, Decimal(811))

    assert (floor.shown[-1].status, floor.shown[-1].type_word) == ("New", after)
    assert floor.shown[-1].terms.trigger_price == 810


def test_day_end_expires(floor):
    floor.place()
    floor.exchange.end_day()

    assert floor.told()[-1] == ("Expired", 0)


def test_as_of_an_earlier_moment(floor):
    floor.place()
    moment = floor.timeline.date
    floor.timeline.advance_by(1)
    floor.exchange.fill("xts:1", 50)

    assert [view.status for view in floor.book.lives["1"].as_of(moment)] == ["PendingNew", "New"]


def test_margin_reason_is_the_captured_text():
    reason = Reason(
        text="", raw="RMS:Margin Exceeds,Required:8200.00, Available:-20.00 for entity account-C1"
    )

    assert cancel_reject_reason(reason, client="C1") == (
        "OEMS:RMS : Margin Exceeds :  - Set Limit:[0] Total Required Margin:[8200] Available Margin[0] "
        "Margin Shortfall[8200] for entity [Client]-[C1] across [ALL|ALL|ALL]"
    )
