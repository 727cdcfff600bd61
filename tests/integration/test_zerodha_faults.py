"""Every fault switch of the simulated Kite, each on an account of its own, all at once, under the running service.

The page must come to equal the broker's book whatever goes wrong; how long that took is printed, and judged by its bound
where nothing else runs (`make bench-weather`).
"""

from __future__ import annotations

import contextlib
import os

import httpx2
import pytest

from brokersim.faults import FaultKind
from faulty_accounts import LATER, WAIT, Trader, faulty_house, told, unstruck_faults, weather, weathered
from house import eventually
from orderwire.errors import BrokerUnreachableError

pytestmark = [pytest.mark.timeout(600)]

JUDGED = os.environ.get("ORDERWIRE_GATES", "") == "1"

PUSHES = (
    weather("fair"),
    weather("by the stream alone", postbacks=False),
    weather("drop half", ("drop", {"probability": 0.5})),
    weather("drop all", ("drop", {})),
    weather("stream drops all, postbacks come", ("drop", {"channel": "ws"})),
    weather("postbacks lost, stream lives", ("drop", {"channel": "postback"})),
    weather("duplicate", ("duplicate", {"params": {"times": 3, "gap": 0.02}})),
    weather("reorder", ("reorder", {"params": {"wait": 0.3}})),
    weather("delay", ("delay", {"probability": 0.5, "params": {"seconds": 1.0}})),
    weather("corrupt", ("corrupt", {"probability": 0.4})),
    weather("truncate", ("truncate", {"probability": 0.4, "channel": "ws"})),
    weather("truncated postbacks", ("truncate", {"channel": "postback"})),
    weather("push before the answer", ("push_before_response", {})),
    weather("stale OPEN after the end", ("stale_open", {})),
    weather("CANCELLED twice", ("double_cancelled", {})),
    weather("UPDATE after COMPLETE", ("update_after_complete", {})),
    weather("COMPLETE before OPEN", ("complete_before_open", {})),
    weather("unknown status", ("unknown_status", {"probability": 0.4})),
    weather("unknown frames", ("unknown_frame", {})),
    weather(
        "error and message frames", frames=('{"type":"error","data":"x"}', '{"type":"message","data":"y"}')
    ),
    weather("other spellings", ("field_variants", {})),
    weather("altered postbacks", ("postback_altered", {})),
    weather("replayed postbacks", ("postback_replayed", {"params": {"seconds": 0.5}})),
    weather("postbacks altered, stream drops all", ("postback_altered", {}), ("drop", {"channel": "ws"})),
)
CONNECTIONS = (
    weather("half-open", ("silence", {"operation": "heartbeat", "count": 1}), within=LATER),
    weather("cut", ("disconnect", {"channel": "ws", "operation": "UPDATE", "count": 2}), within=LATER),
    weather(
        "closed",
        ("disconnect", {"channel": "ws", "operation": "UPDATE", "count": 2, "params": {"mode": "close"}}),
        within=LATER,
    ),
    *(
        weather(
            f"cut, then refused with {status}",
            ("disconnect", {"channel": "ws", "operation": "COMPLETE", "count": 1}),
            ("refuse_handshake", {"count": 2, "params": {"status": status}}),
            within=LATER,
        )
        for status in (403, 429, 503)
    ),
    weather("token dies", ("token_death", {"operation": "orders.book", "count": 1}), login_needed=True),
    weather("token refused", ("unauthorized", {"operation": "orders.book", "count": 1}), login_needed=True),
)
ANSWERS = (
    weather("429 on reads", ("rate_limit", {"operation": "orders.book", "count": 4})),
    weather("429 on orders", ("rate_limit", {"operation": "orders.place", "count": 1})),
    weather(
        "429 with a time", ("rate_limit", {"operation": "orders.book", "count": 1, "params": {"retry_after": 2}})
    ),
    weather("503", ("server_error", {"operation": "orders.book", "count": 4})),
    weather("500", ("server_error", {"operation": "orders.book", "count": 4, "params": {"status": 500}})),
    weather("502 HTML", ("html_error", {"operation": "orders.book", "count": 4})),
    weather("404 HTML", ("html_error", {"operation": "orders.book", "count": 4, "params": {"status": 404}})),
    weather("no answer", ("timeout", {"operation": "orders.book", "count": 1})),
    weather("slow answers", ("slow", {"params": {"seconds": 0.4}})),
    weather("book lags the stream", ("rest_lag", {"params": {"seconds": 1.0}})),
    weather("book lags, pushes lost", ("rest_lag", {"params": {"seconds": 1.0}}), ("drop", {"probability": 0.5})),
    weather("shuffled book", ("shuffled_book", {})),
    weather(
        "pushes lost, book away", ("drop", {"probability": 0.5}), ("html_error", {"operation": "orders.book", "count": 3}),
        within=LATER,
    ),
)  # fmt: skip
ORDERS = (
    weather("placed, answer lost", ("server_error", {"operation": "orders.place", "params": {"done": True}})),
    weather(
        "placed, no answer",
        ("timeout", {"operation": "orders.place", "count": 1, "params": {"seconds": 9, "done": True}}),
    ),
    weather("stuck before the risk check", held=("RECEIVED",)),
    weather("stuck in OPEN PENDING", held=("SENT",)),
    weather("not placed, 503", ("server_error", {"operation": "orders.place", "count": 1})),
    weather("refused by RMS", ("reject_risk", {"count": 1})),
    weather("refused by the exchange", ("reject_exchange", {"count": 1})),
    weather("modification refused", ("refuse_modify", {"params": {"message": "16346 : no"}})),
    weather("cancellation refused", ("refuse_cancel", {"params": {"message": "16346 : no"}})),
)
ALL = (*PUSHES, *CONNECTIONS, *ANSWERS, *ORDERS)

OTHERWISE = {
    "kite_ws_sends_open": False,
    "kite_postback_sends_open": True,
    "kite_pushes_risk_rejections": False,
    "kite_market_as_limit": False,
    "kite_order_ids": "mixed",
    "kite_postback_json_type": True,
    "kite_tick_noise": True,
    "kite_echo_protection": True,
}
"""What is not known of Kite, each the other way round."""

NOT_KITES = {
    FaultKind.BLACK_HOLE, FaultKind.RESET, FaultKind.SLOW_LORIS,  # the wire's, of any broker: tests/simulation
    FaultKind.EARLY_HISTORY, FaultKind.CLOCK_SKEW, FaultKind.OLD_FORMAT, FaultKind.MISSING_FIELDS,
    FaultKind.DICT_PAYLOAD, FaultKind.TRADE_BEFORE_ORDER, FaultKind.BOOLEAN_TYPE, FaultKind.EMPTY_SUCCESS,
}  # fmt: skip


class ZerodhaTrader(Trader):
    """An account at Zerodha, with an app of its own: its user logs in at the login page."""

    broker = "kite"

    def join(self) -> None:
        number = self.account.rpartition("-")[2]
        self.client, kite = f"FZ{number:0>4}", self.house.sims.ready["kite"]
        key = f"fzkey{number:0>4}"
        added = self.house.command(
            "accounts.add",
            id=self.account,
            broker="zerodha",
            owner="asha",
            credentials={"api_key": key, "api_secret": f"{key}-secret"},
            addresses={
                "api": kite,
                "stream": kite.replace("http", "ws", 1),
                "login": f"{kite}/connect/login",
            },
        )
        app = {"api_key": key, "api_secret": f"{key}-secret", "redirect_url": f"{self.house.url}/callback"}
        if self.weather.postbacks:
            app["postback_url"] = f"{self.house.url}{added['postback_path']}"
        self.house.sims.ask("POST", "/users/kite", {"users": [{"user_id": self.client}]})
        self.house.sims.ask("POST", "/kite/apps", app)
        self.log_in()

    def go_wrong(self) -> None:
        super().go_wrong()
        for text in self.weather.frames:
            sent = self.house.sims.ask("POST", "/kite/frames", {"user": self.client, "text": text})
            assert sent["sent"] == 1

    def log_in(self) -> None:
        """Log in, again where the account is changing hands just now: then nothing was sent."""
        eventually(self._logged_in, within=WAIT, what="a login")

    def _logged_in(self) -> bool:
        with contextlib.suppress(BrokerUnreachableError):
            self._try_to_log_in()
            return True
        return False

    def _try_to_log_in(self) -> None:
        address = self.house.command("accounts.login", id=self.account)["login_url"]
        form = dict(httpx2.URL(address).params) | {"user_id": self.client, "password": "demo"}
        reply = httpx2.post(address, data=form, trust_env=False)
        grant = dict(httpx2.URL(reply.headers["location"]).params)
        self.house.command("accounts.login", id=self.account, grant=grant)


def test_no_fault_switch_of_kite_is_left_out():
    tried = {FaultKind(kind) for each in ALL for kind, _ in each.faults}

    assert tried == set(FaultKind) - NOT_KITES


@pytest.mark.parametrize(
    ("settings", "weathers"), [({}, ALL), (OTHERWISE, (*CONNECTIONS, *PUSHES[:6], *ORDERS[3:5]))]
)
def test_under_every_fault_the_page_comes_to_equal_the_brokers_book(
    tmp_path, settings, weathers, record_property
):
    with faulty_house(tmp_path, settings=settings) as house:
        traders = [ZerodhaTrader(house, number, conditions) for number, conditions in enumerate(weathers, 1)]
        seconds = weathered(house, "asha", traders)
        unstruck = unstruck_faults(house)
    record_property("figure", told(f"Kite faults ({'otherwise' if settings else 'as assumed'})", seconds))
    late = {each.name: seconds[each.name] for each in weathers if seconds[each.name] > each.within}
    assert not late or not JUDGED, f"later than their bounds: {late}"
    assert not unstruck
