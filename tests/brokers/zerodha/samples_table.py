"""What our parser must make of each third-party Kite sample: the table that issue by issue may only grow.

One line for each order in the files of the samples folder. `trusted=False` marks a capture whose publisher
edited it: only its keys, envelope and times may be relied on, never its status or quantities.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from orderwire.core.orders import IST, OrderStatus, Overlay


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    file: str
    order_id: str
    status: OrderStatus | None
    raw_status: str
    filled: int
    quantity: int
    average_price: str = "0"
    time: str
    overlay: Overlay = Overlay.NONE
    tag: str = ""
    parent: str = ""
    index: int = 0
    trusted: bool = True

    @property
    def moment(self) -> datetime:
        return datetime.fromisoformat(self.time).replace(tzinfo=IST)

    @property
    def average(self) -> Decimal:
        return Decimal(self.average_price)


OPEN, FILLED, CANCELLED, REJECTED = (
    OrderStatus.OPEN,
    OrderStatus.FILLED,
    OrderStatus.CANCELLED,
    OrderStatus.REJECTED,
)

SAMPLES = (
    Expected(
        file="orders.json",
        index=0,
        order_id="100000000000000",
        status=CANCELLED,
        raw_status="CANCELLED",
        filled=0,
        quantity=1,
        time="2021-05-31 09:18:57",
    ),
    Expected(
        file="orders.json",
        index=1,
        order_id="300000000000000",
        status=FILLED,
        raw_status="COMPLETE",
        filled=1,
        quantity=1,
        average_price="109.4",
        time="2021-05-31 15:20:28",
    ),
    Expected(
        file="orders.json",
        index=2,
        order_id="500000000000000",
        status=FILLED,
        raw_status="COMPLETE",
        filled=1,
        quantity=1,
        average_price="109.35",
        time="2021-05-31 15:20:51",
    ),
    Expected(
        file="orders.json",
        index=3,
        order_id="220524001859672",
        status=REJECTED,
        raw_status="REJECTED",
        filled=0,
        quantity=200,
        time="2022-05-24 12:26:52",
        tag="icebergord",
    ),
    Expected(
        file="orders.json",
        index=4,
        order_id="700000000000000",
        status=FILLED,
        raw_status="COMPLETE",
        filled=1,
        quantity=1,
        average_price="4852",
        time="2021-05-31 16:00:36",
        tag="connect test order1",
    ),
    Expected(
        file="orders.json",
        index=5,
        order_id="9000000000000000",
        status=FILLED,
        raw_status="COMPLETE",
        filled=1,
        quantity=1,
        average_price="4852",
        time="2021-05-31 16:08:40",
        tag="connect test order2",
    ),
    Expected(
        file="orders.json",
        index=6,
        order_id="98000000000000000",
        status=CANCELLED,
        raw_status="CANCELLED",
        filled=0,
        quantity=60,
        time="2023-06-12 14:00:58",
    ),
    Expected(
        file="orders.json",
        index=7,
        order_id="250117800776785",
        status=CANCELLED,
        raw_status="CANCELLED",
        filled=0,
        quantity=1,
        time="2025-01-17 11:49:45",
    ),
    Expected(
        file="orders.json",
        index=8,
        order_id="1953341975595868160",
        status=FILLED,
        raw_status="COMPLETE",
        filled=1,
        quantity=1,
        average_price="156.7",
        time="2025-08-07 11:56:33",
    ),
    Expected(
        file="orders.json",
        index=9,
        order_id="1953367517686685697",
        status=FILLED,
        raw_status="COMPLETE",
        filled=150,
        quantity=150,
        average_price="12.3",
        time="2025-08-07 13:38:02",
        parent="1953367517640548352",
    ),
    Expected(
        file="postback.json",
        index=0,
        order_id="220303000308932",
        status=FILLED,
        raw_status="COMPLETE",
        filled=1,
        quantity=1,
        average_price="470",
        time="2022-03-03 09:24:25",
    ),
    Expected(
        file="docs/postback_update_2021.json",
        index=0,
        order_id="210709003691276",
        status=OPEN,
        raw_status="UPDATE",
        filled=0,
        quantity=1,
        time="2021-07-09 15:00:57",
    ),
    Expected(
        file="captures/ws_data_2021-04-29_open_market.json",
        index=0,
        order_id="210429201339323",
        status=OPEN,
        raw_status="OPEN",
        filled=0,
        quantity=1,
        time="2021-04-29 10:06:02",
    ),
    Expected(
        file="captures/ws_data_2023-04-11_a_open_limit.json",
        index=0,
        order_id="230411401989627",
        status=OPEN,
        raw_status="OPEN",
        filled=0,
        quantity=250,
        time="2023-04-11 14:21:05",
    ),
    Expected(
        file="captures/ws_data_2023-04-11_b_complete.json",
        index=0,
        order_id="230411401989627",
        status=FILLED,
        raw_status="COMPLETE",
        filled=250,
        quantity=250,
        average_price="37.25",
        time="2023-04-11 14:21:05",
    ),
    Expected(
        file="captures/ws_frame_envelope_2023-03-24_EDITED.json",
        index=0,
        order_id="230324200948857",
        status=FILLED,
        raw_status="COMPLETE",
        filled=0,
        quantity=175,
        time="2023-03-24 15:24:36",
        trusted=False,
    ),
)
