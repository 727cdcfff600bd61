"""Every fault switch of the simulated XTS, each on an account of its own, all at once, under the running service.

The page must come to equal the broker's book whatever goes wrong; how long that took is printed, and judged by its bound
where nothing else runs (`make bench-weather`).
"""

from __future__ import annotations

import os

import pytest

from faulty_accounts import LATER, Trader, faulty_house, told, weather, weathered

pytestmark = [pytest.mark.timeout(400)]

JUDGED = os.environ.get("ORDERWIRE_GATES", "") == "1"

PUSHES = (
    weather("fair"),
    weather("drop half", ("drop", {"probability": 0.5})),
    weather("drop all", ("drop", {"channel": "sio"})),
    weather("duplicate", ("duplicate", {"params": {"times": 3, "gap": 0.02}})),
    weather("reorder", ("reorder", {"params": {"wait": 0.3}})),
    weather("delay", ("delay", {"probability": 0.5, "params": {"seconds": 1.0}})),
    weather("trade before order", ("trade_before_order", {})),
    weather("stale New after Filled", ("stale_open", {})),
    weather("push before the answer", ("push_before_response", {})),
    weather("corrupt", ("corrupt", {"probability": 0.4})),
    weather("truncate", ("truncate", {"probability": 0.4, "channel": "sio"})),
    weather("object instead of text", ("dict_payload", {})),
    weather("missing fields", ("missing_fields", {})),
    weather("unknown status", ("unknown_status", {"probability": 0.4})),
    weather("clock skew", ("clock_skew", {})),
    weather("old format", ("old_format", {})),
)
CONNECTIONS = (
    weather("half-open", ("silence", {"operation": "order.New", "count": 1}), within=LATER),
    weather("cut", ("disconnect", {"channel": "sio", "operation": "order.New", "count": 2}), within=LATER),
    weather(
        "closed",
        ("disconnect", {"channel": "sio", "operation": "order.New", "count": 2, "params": {"mode": "close"}}),
        within=LATER,
    ),
    weather(
        "cut, then refused",
        ("disconnect", {"channel": "sio", "operation": "order.New", "count": 1}),
        ("refuse_handshake", {"count": 3}),
        within=LATER,
    ),
    weather(
        "token dies", ("token_death", {"channel": "sio", "operation": "order.New", "count": 1}), within=LATER
    ),
    weather("token refused", ("unauthorized", {"operation": "orders.book", "count": 1}), within=LATER),
)
ANSWERS = (
    weather("429", ("rate_limit", {"operation": "orders.book", "count": 4})),
    weather("500", ("server_error", {"operation": "orders.book", "count": 4, "params": {"status": 500}})),
    weather("500 HTML", ("html_error", {"operation": "orders.book", "count": 4, "params": {"status": 500}})),
    weather("404 HTML", ("html_error", {"operation": "orders.book", "count": 4, "params": {"status": 404}})),
    weather("502 HTML", ("html_error", {"operation": "orders.book", "count": 4})),
    weather("no answer", ("timeout", {"operation": "orders.book", "count": 1})),
    weather("slow answers", ("slow", {"params": {"seconds": 0.4}})),
    weather("half an answer", ("truncate", {"channel": "rest", "operation": "orders.book", "count": 4})),
    weather("answers cut off", ("disconnect", {"channel": "rest", "operation": "orders.book", "count": 4})),
    weather("book lags the stream", ("rest_lag", {"params": {"seconds": 1.0}})),
    weather("early history", ("early_history", {})),
    weather("empty book as success", ("empty_success", {})),
    weather("hostlookup of type true", ("boolean_type", {}), addresses={"hostlookup": "{host}/hostlookup"}),
    weather(
        "book lags, pushes lost", ("rest_lag", {"params": {"seconds": 1.0}}), ("drop", {"probability": 0.5})
    ),
    weather(
        "pushes lost, book away", ("drop", {"probability": 0.5}), ("html_error", {"operation": "orders.book", "count": 3}),
        within=LATER,
    ),
)  # fmt: skip
ORDERS = (
    weather("placed, answer lost", ("server_error", {"operation": "orders.place", "params": {"done": True}})),
    weather(
        "placed, connection cut", ("disconnect", {"operation": "orders.place", "params": {"done": True}})
    ),
    weather("not placed, connection cut", ("disconnect", {"operation": "orders.place", "count": 1})),
    weather("refused by RMS", ("reject_risk", {"count": 1})),
    weather("refused by the exchange", ("reject_exchange", {"count": 1})),
    weather("modification refused", ("refuse_modify", {"params": {"message": "17070 : no"}})),
    weather("cancellation refused", ("refuse_cancel", {"params": {"message": "17070 : no"}})),
)
ALL = (*PUSHES, *CONNECTIONS, *ANSWERS, *ORDERS)


class JainamTrader(Trader):
    """An account at Jainam: its keys log it in."""

    broker = "xts"

    def join(self) -> None:
        number = self.account.rpartition("-")[2]
        self.client, xts = f"FT{number:0>4}", self.house.sims.ready["xts"]
        key = f"ftkey{self.client}"
        self.house.sims.ask("POST", "/users/xts", {"logins": [{"app_key": key, "login_id": self.client}]})
        self.house.command(
            "accounts.add",
            id=self.account,
            broker="jainam",
            owner="jay",
            credentials={"app_key": key, "secret_key": f"{key}-secret"},
            addresses={"base": xts}
            | {name: text.replace("{host}", xts) for name, text in self.weather.addresses.items()},
        )


@pytest.mark.parametrize(("mode", "weathers"), [("sio2", ALL), ("sio4_only", (*CONNECTIONS, *PUSHES[:4]))])
def test_under_every_fault_the_page_comes_to_equal_the_brokers_book(
    tmp_path, mode, weathers, record_property
):
    with faulty_house(tmp_path, xts_settings={"socket_mode": mode}) as house:
        traders = [JainamTrader(house, number, conditions) for number, conditions in enumerate(weathers, 1)]
        seconds = weathered(house, "jay", traders)

    record_property("figure", told(f"XTS faults ({mode})", seconds))
    late = {each.name: seconds[each.name] for each in weathers if seconds[each.name] > each.within}
    assert not late or not JUDGED, f"later than their bounds: {late}"
