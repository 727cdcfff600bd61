"""An exchange without liquidity, in the test's hand, and XTS's book that listens to it."""

from decimal import Decimal
from random import Random

from brokersim.exchange import Exchange
from brokersim.orders import OrderRequest, OrderType, Side, Terms
from brokersim.timeline import Timeline
from brokersim.xts.lives import Book

SBIN = "NSE:SBIN"


class Floor:
    def __init__(self):
        self.timeline = Timeline(1_799_123_400.25)
        self.exchange = Exchange(self.timeline, Random(1), liquidity=False, walking=False)
        self.exchange.set_price(SBIN, Decimal(800))
        self.book = Book()
        self.shown = []
        self.exchange.subscribe(self._listen)

    def _listen(self, event):
        if view := self.book.take(event):
            self.shown.append(view)

    def place(self, **changes):
        terms = {"type": OrderType.LIMIT, "quantity": 50, "price": Decimal(800)} | changes
        request = OrderRequest(
            broker="xts",
            order_id="1",
            user="C1",
            placed_by="C1",
            app="key",
            instrument=self.exchange.instrument(SBIN),
            side=Side.BUY,
            product="MIS",
            terms=Terms(**terms),
        )
        self.exchange.submit(request)
        self.timeline.advance_by(1)

    def told(self):
        return [(view.status, view.order.filled) for view in self.shown]
