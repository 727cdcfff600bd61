from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

import pytest

from house import eventually
from orderwire.core.books import BookRows
from orderwire.core.events import Event, EventType
from orderwire.core.lifecycle import SubmissionState
from orderwire.core.orders import (
    IST,
    AccountId,
    Funds,
    Holding,
    OrderStatus,
)
from orderwire.core.recovery import Freshness
from orderwire.errors import (
    BrokerUnreachableError,
    OrderRefusedError,
    ProtocolViolationError,
    RateLimitedError,
    SessionExpiredError,
)
from orderwire.store.book import OrderBook
from orderwire.store.users import Scope
from orderwire.web import api
from store.making import update
from web.house import House, order, settle
from web.making import position, trade


class Program:
    """Calls the API as a program does."""

    def __init__(self, house: House, owner="asha", scope=Scope.TRADE):
        self.house = house
        self.key = house.services.users.add_key(owner, scope=scope)[1]
        self.client = house.app.test_client()

    def call(self, name, *, headers=None, **fields):
        body = {"apikey": self.key, "strategy": "test", **fields}
        return self.client.post(f"/api/v1/{name}", json=body, headers=headers)

    def ask(self, name, **query):
        return self.client.get(f"/api/v1/{name}", query_string=query, headers={"X-API-KEY": self.key})

    def place(self, **fields):
        known = {"symbol": "INFY", "exchange": "NSE", "action": "BUY", "quantity": "10"}
        return self.call("placeorder", **(known | fields))


@pytest.fixture
def program(house):
    return Program(house)


def said(answer, code=200):
    assert answer.status_code == code, answer.text
    return answer.get_json()


class TestKeys:
    def test_an_unknown_key_is_refused_in_openalgos_words(self, house, program):
        program.key = "guess"

        assert said(program.call("orderbook"), 403) == {
            "status": "error",
            "message": "Invalid openalgo apikey",
        }

    def test_no_key_at_all_is_named(self, program):
        answer = said(program.client.post("/api/v1/orderbook", json={}), 400)

        assert set(answer["problems"]) == {"apikey"}

    def test_a_revoked_key_ends_at_once(self, house, program):
        assert program.call("orderbook").status_code == 200
        (key,) = house.services.users.keys("asha")

        house.services.users.revoke_key(key.id, owner="asha")

        said(program.call("orderbook"), 403)

    def test_a_key_for_reading_reads_and_does_not_trade(self, house):
        reader = Program(house, scope=Scope.READ)

        said(reader.call("orderbook"))
        answer = said(reader.place(), 403)
        assert "only read" in answer["message"]
        assert house.desk.placed == []

    def test_a_session_of_the_pages_is_no_key(self, house):
        client = house.client("asha")

        assert client.get("/api/v1/feeds").status_code == 403

    def test_a_get_takes_its_key_from_the_header_alone(self, program):
        answer = program.client.get("/api/v1/feeds", query_string={"apikey": program.key})

        assert answer.status_code == 403


class TestAccounts:
    def test_a_strangers_account_is_as_unknown_as_none(self, house, program):
        house.user("ravi")
        house.account("his", "ravi")

        theirs = said(program.place(account="his"), 404)
        none = said(program.place(account="none"), 404)

        assert theirs["message"].replace("his", "none") == none["message"]

    def test_who_has_several_names_one_for_placing_and_sees_all_in_the_books(self, house, program):
        house.account("two", "asha")
        house.publish(order("acc", 1), order("two", 2))

        answer = said(program.place(), 400)
        assert "acc, two" in answer["problems"]["account"]
        said(program.place(account="two"))
        assert house.desk.placed[-1][0] == "two"
        book = said(program.call("orderbook"))["data"]
        assert {row["account"] for row in book["orders"]} == {"acc", "two"}

    def test_nobodys_order_of_another_is_told(self, house, program):
        house.user("ravi")
        house.account("his", "ravi")
        house.publish(order("his", 7))

        said(program.call("orderstatus", orderid="261124000000007"), 404)
        said(program.call("cancelorder", orderid="261124000000007"), 404)
        assert said(program.call("orderbook"))["data"]["orders"] == []


class TestPlacing:
    def test_an_order_as_the_sdk_sends_it_is_placed(self, house, program):
        answer = said(program.place(pricetype="LIMIT", price="1500.5", product="CNC", trigger_price="0"))

        account, request, _ = house.desk.placed[0]
        assert answer["orderid"] == "261124000000001"
        assert (account, request.price, request.quantity) == ("acc", Decimal("1500.5"), 10)

    def test_every_wrong_field_is_named_in_openalgos_words(self, program):
        answer = said(program.place(action="HOLD", quantity="ten", pricetype="LIMIT"), 400)

        assert set(answer["problems"]) == {"quantity"}
        answer = said(program.place(action="HOLD", pricetype="LIMIT"), 400)
        assert set(answer["problems"]) == {"action", "price"}

    @pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b'{"apikey": 1}', b'"x"', b"null"])
    def test_what_is_no_request_is_refused(self, program, body):
        answer = program.client.post("/api/v1/placeorder", data=body, content_type="application/json")

        assert said(answer, 400)["status"] == "error"

    def test_a_refusal_comes_in_the_brokers_own_words(self, house, program):
        house.desk.state = SubmissionState.REFUSED
        house.desk.reason = "Insufficient funds. Required margin is 15000.00"

        answer = said(program.place(), 400)

        assert answer["message"] == "Insufficient funds. Required margin is 15000.00"
        assert answer["state"] == "REFUSED"

    def test_an_order_in_doubt_is_never_called_placed(self, house, program, monkeypatch):
        monkeypatch.setattr(api, "DOUBT_WAIT", 0.1)
        house.desk.state = SubmissionState.UNKNOWN

        answer = said(program.place(), 500)

        assert answer["state"] == "UNKNOWN"
        assert "Do not place it again" in answer["message"]

    def test_an_idempotency_key_reaches_the_desk(self, house, program):
        program.place(headers={"Idempotency-Key": "algo-0001"})

        assert house.desk.placed[0][2] == "algo-0001"

    def test_a_bad_idempotency_key_is_refused(self, program):
        said(program.place(headers={"Idempotency-Key": "no spaces allowed"}), 400)

    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (SessionExpiredError("Log in to Wired first."), 403),
            (RateLimitedError("Slow down.", retry_after=2.0), 429),
            (BrokerUnreachableError("The broker does not answer."), 500),
            (OrderRefusedError("No."), 400),
        ],
    )
    def test_what_keeps_an_order_from_being_placed_has_its_code(self, house, program, error, code):
        house.desk.fail = error

        answer = program.place()

        assert said(answer, code)["message"] == str(error)
        if code == 429:
            assert answer.get_json()["retry_after"] == 2.0

    def test_too_many_orders_a_second_are_refused_with_when_to_come_again(self, program):
        answers = [program.place() for _ in range(11)]

        assert [answer.status_code for answer in answers[:10]] == [200] * 10
        assert said(answers[10], 429)["retry_after"] > 0


class TestSmartOrders:
    @pytest.mark.parametrize(
        ("held", "wanted", "order"),
        [
            (0, "5", ("BUY", 5)),
            (10, "0", ("SELL", 10)),
            (10, "-5", ("SELL", 15)),
            (-10, "5", ("BUY", 15)),
        ],
    )
    def test_the_order_brings_the_position_where_it_is_wanted(self, house, program, held, wanted, order):
        house.desk.held = [position(quantity=held)] if held else []

        said(self.smart(program, position_size=wanted))

        request = house.desk.placed[0][1]
        assert (request.side, request.quantity) == order

    def test_a_position_that_is_there_already_needs_no_order(self, house, program):
        house.desk.held = [position(quantity=5)]

        answer = said(self.smart(program, position_size="5"))

        assert answer["orderid"] == ""
        assert "Already Matched" in answer["message"]
        assert house.desk.placed == []

    def smart(self, program, **fields):
        known = {"symbol": "INFY", "exchange": "NSE", "action": "BUY", "quantity": "1", "product": "MIS"}
        return program.call("placesmartorder", **(known | fields))


class TestSeveralOrders:
    def test_a_basket_says_what_became_of_each(self, house, program):
        orders = [
            {"symbol": symbol, "exchange": "NSE", "action": "BUY", "quantity": "1"}
            for symbol in ("INFY", "NOPE", "TCS")
        ]

        results = said(program.call("basketorder", orders=orders))["results"]

        assert [(one["symbol"], one["status"]) for one in results] == [
            ("INFY", "success"),
            ("NOPE", "error"),
            ("TCS", "success"),
        ]
        assert "NOPE" in results[1]["message"]

    def test_each_order_of_a_basket_has_its_own_idempotency_key(self, house, program):
        orders = [{"symbol": "INFY", "exchange": "NSE", "action": "BUY", "quantity": 1}] * 2

        program.call("basketorder", orders=orders, headers={"Idempotency-Key": "basket-01"})

        assert [key for _, _, key in house.desk.placed] == ["basket-01-1", "basket-01-2"]

    def test_a_split_order_is_placed_in_parts(self, house, program):
        answer = said(
            program.call(
                "splitorder", symbol="INFY", exchange="NSE", action="SELL", quantity="25", splitsize="10"
            )
        )

        assert [one["quantity"] for one in answer["results"]] == [10, 10, 5]
        assert [one["order_num"] for one in answer["results"]] == [1, 2, 3]
        assert (answer["split_size"], answer["total_quantity"]) == (10, 25)
        assert [request.quantity for _, request, _ in house.desk.placed] == [10, 10, 5]

    @pytest.mark.parametrize(("quantity", "size"), [("10", "0"), ("1001", "10")])
    def test_a_split_that_cannot_be_is_refused_before_anything_is_placed(
        self, house, program, quantity, size
    ):
        fields = {"symbol": "INFY", "exchange": "NSE", "action": "SELL"}

        answer = said(program.call("splitorder", quantity=quantity, splitsize=size, **fields), 400)

        assert set(answer["problems"]) == {"splitsize"}
        assert house.desk.placed == []


class TestChanging:
    def test_new_terms_keep_the_orders_validity(self, house, program):
        house.publish(order(validity="IOC"))

        answer = program.call(
            "modifyorder",
            orderid="261124000000001",
            symbol="INFY",
            exchange="NSE",
            action="BUY",
            product="MIS",
            pricetype="LIMIT",
            price="1501",
            quantity="9",
            trigger_price="0",
            disclosed_quantity="0",
        )

        assert said(answer)["orderid"] == "261124000000001"
        terms = house.desk.modified[0][1]
        assert (terms.price, terms.quantity, terms.validity) == (Decimal(1501), 9, "IOC")

    def test_an_order_is_cancelled(self, house, program):
        house.publish(order())

        assert said(program.call("cancelorder", orderid="261124000000001"))["orderid"] == "261124000000001"
        assert house.desk.cancelled == [("acc", "261124000000001")]

    def test_all_live_orders_are_cancelled_and_no_other(self, house, program):
        house.publish(order(number=1), order(number=2, status=OrderStatus.FILLED), order(number=3))

        answer = said(program.call("cancelallorder"))

        assert answer["canceled_orders"] == ["261124000000001", "261124000000003"]
        assert answer["message"] == "Canceled 2 orders. Failed to cancel 0 orders."

    def test_what_cannot_be_cancelled_is_listed(self, house, program):
        house.publish(order(number=1))
        house.desk.fail = OrderRefusedError("It is gone.")

        assert said(program.call("cancelallorder"))["failed_cancellations"] == ["261124000000001"]

    def test_every_position_is_closed_by_its_opposite(self, house, program):
        house.desk.held = [
            position(quantity=10),
            position(quantity=-75, symbol="NIFTY29DEC26FUT", exchange="NFO"),
        ]

        assert said(program.call("closeposition"))["message"] == "All Open Positions Squared Off"

        assert [(r.symbol, r.side, r.quantity) for _, r, _ in house.desk.placed] == [
            ("INFY", "SELL", 10),
            ("NIFTY29DEC26FUT", "BUY", 75),
        ]

    def test_a_position_that_cannot_be_closed_is_said_in_the_brokers_words(self, house, program):
        house.desk.held = [position(quantity=10)]
        house.desk.state, house.desk.reason = SubmissionState.REFUSED, "Market is closed"

        answer = said(program.call("closeposition"), 400)

        assert answer["message"] == "0 of 1 orders placed. INFY: Market is closed"


class TestAsking:
    def test_an_orders_status_has_openalgos_fields_and_ours(self, house, program):
        house.publish(order(filled_quantity=4, pending_quantity=6, status=OrderStatus.PARTIALLY_FILLED))
        settle(house)

        data = said(program.call("orderstatus", orderid="261124000000001"))["data"]

        openalgo = {
            "action": "BUY",
            "exchange": "NSE",
            "order_status": "open",
            "orderid": "261124000000001",
            "price": 1500.5,
            "pricetype": "LIMIT",
            "product": "MIS",
            "quantity": 10,
            "symbol": "INFY",
            "timestamp": "2026-11-24 15:00:00",
            "trigger_price": 0.0,
        }
        ours = {"filled_quantity": 4, "pending_quantity": 6, "sequence": 1, "freshness": "LIVE"}
        assert data | openalgo | ours == data

    def test_an_order_of_a_day_before_tells_how_it_ended(self, house, program):
        """The book holds a session day; what is kept is more."""
        house.user("ravi")
        house.account("his", "ravi")
        book = OrderBook(house.services.database, clock=house.services.clock)
        book.attach(house.services.engine)
        before = datetime.now(IST).replace(microsecond=0) - timedelta(days=4)
        for account, word, at in (
            ("acc", "open", before - timedelta(days=1)),
            ("acc", "filled", before),
            ("his", "filled", before),
        ):
            told = update(word, order=f"of-{account}", account=account, at=at)
            house.services.engine.put(Event(EventType.ORDER_UPDATE, told))
        eventually(lambda: book.tallies().get("observations", 0) == 3, what="the commits")

        data = said(program.call("orderstatus", orderid="of-acc"))["data"]

        assert (data["order_status"], data["filled_quantity"], data["account"]) == ("complete", 10, "acc")
        assert data["freshness"] == "LIVE"
        said(program.call("orderstatus", orderid="of-his"), 404)
        said(program.call("cancelorder", orderid="of-acc"), 404)

    def test_an_order_nobody_has_is_not_found_in_openalgos_words(self, program):
        assert said(program.call("orderstatus", orderid="404"), 404)["message"] == "Order 404 not found"

    def test_the_book_counts_what_it_lists(self, house, program):
        house.publish(
            order(number=1),
            order(number=2, side="SELL", status=OrderStatus.FILLED),
            order(number=3, status=OrderStatus.REJECTED, reason="No margin"),
            order(number=4, status=OrderStatus.TRIGGER_PENDING),
        )

        data = said(program.call("orderbook"))["data"]

        assert [row["order_status"] for row in data["orders"]] == [
            "open",
            "complete",
            "rejected",
            "trigger pending",
        ]
        assert data["statistics"] == {
            "total_buy_orders": 3,
            "total_sell_orders": 1,
            "total_completed_orders": 1,
            "total_open_orders": 2,
            "total_rejected_orders": 1,
        }
        assert data["accounts"] == [{"account": "acc", "freshness": "LIVE", "sequence": 4, "cursor": "e1:4"}]

    def test_trades_and_positions_have_openalgos_fields(self, house, program):
        house.publish(trade(), position())
        house.desk.held = [position()]

        (row,) = said(program.call("tradebook"))["data"]
        assert (row["average_price"], row["trade_value"], row["action"]) == (1500.5, 15005.0, "BUY")
        (row,) = said(program.call("positionbook"))["data"]
        assert (row["average_price"], row["ltp"], row["pnl"]) == ("1500.50", 1510.0, 95.0)
        asked = {"symbol": "INFY", "exchange": "NSE", "product": "MIS"}
        assert said(program.call("openposition", **asked))["quantity"] == 10
        assert said(program.call("openposition", **(asked | {"symbol": "TCS"})))["quantity"] == 0

    def test_holdings_are_added_up(self, house, program):
        house.desk.owned = [
            Holding(
                account=AccountId("acc"),
                symbol="TCS",
                exchange="NSE",
                quantity=10,
                average_price=Decimal(100),
                last_price=Decimal(110),
                pnl=Decimal(100),
            )
        ]

        data = said(program.call("holdings"))["data"]

        assert data["holdings"][0]["pnlpercent"] == 10.0
        assert data["statistics"] == {
            "totalholdingvalue": 1100.0,
            "totalinvvalue": 1000.0,
            "totalprofitandloss": 100.0,
            "totalpnlpercentage": 10.0,
        }
        assert data["unreadable"] == 0

    @pytest.mark.parametrize(
        ("call", "fields"),
        [
            ("closeposition", {}),
            (
                "placesmartorder",
                {
                    "symbol": "INFY",
                    "exchange": "NSE",
                    "action": "BUY",
                    "quantity": 10,
                    "position_size": 10,
                    "product": "MIS",
                },
            ),
        ],
    )
    def test_nothing_is_sent_on_positions_that_cannot_all_be_read(self, house, program, call, fields):
        """The one that cannot be read may be the one that is meant."""
        odd = [ProtocolViolationError("a position without a quantity")]
        house.desk.positions = lambda account: BookRows([position()], odd=odd)

        answer = said(program.call(call, **fields), 500)

        assert "1 of the positions of acc cannot be read (a position without a quantity)" in answer["message"]
        assert house.desk.placed == []
        assert said(program.call("positionbook"))["unreadable"] == 1

    def test_holdings_that_could_not_be_read_are_counted(self, house, program):
        house.desk.holdings = lambda account: BookRows([], odd=[ProtocolViolationError("a row of nothing")])

        assert said(program.call("holdings"))["data"]["unreadable"] == 1

    def test_money_is_text_as_openalgo_sends_it(self, house, program):
        house.desk.money = Funds(account=AccountId("acc"), available=Decimal("100000.5"))

        data = said(program.call("funds"))["data"]

        assert data["availablecash"] == "100000.50"
        assert set(data) == {"availablecash", "collateral", "m2mrealized", "m2munrealized", "utiliseddebits"}

    def test_feeds_say_how_fresh_each_account_is(self, house, program):
        house.user("ravi")
        house.account("his", "ravi")
        house.fleet.show(AccountId("acc"), Freshness.AUTH_REQUIRED, detail="Log in again.")

        (feed,) = said(program.ask("feeds"))["data"]

        assert (feed["account"], feed["freshness"], feed["detail"]) == (
            "acc",
            "AUTH_REQUIRED",
            "Log in again.",
        )


class TestChanges:
    def test_without_a_cursor_there_is_everything(self, house, program):
        house.publish(order())

        answer = said(program.ask("orders/changes"))

        assert answer["cursor"] == "e1:1"
        assert [row["orderid"] for row in answer["snapshot"]["orders"]] == ["261124000000001"]

    def test_from_a_cursor_there_is_what_changed_and_nothing_twice(self, house, program):
        house.publish(order())
        cursor = said(program.ask("orders/changes"))["cursor"]
        house.publish(order(status=OrderStatus.FILLED), trade())

        answer = said(program.ask("orders/changes", since=cursor))

        assert answer["snapshot"] is None
        assert [(one["kind"], one["sequence"]) for one in answer["changes"]] == [("order", 2), ("trade", 3)]
        again = said(program.ask("orders/changes", since=answer["cursor"]))
        assert (again["changes"], again["cursor"]) == ([], answer["cursor"])

    def test_a_cursor_of_another_log_gets_everything(self, house, program):
        house.publish(order())

        assert said(program.ask("orders/changes", since="old:1"))["snapshot"]["sequence"] == 1

    @pytest.mark.parametrize("since", ["x", "e1:-1", "e1:1e5", "e1:٣"])
    def test_what_is_no_cursor_is_refused(self, program, since):
        assert "since" in said(program.ask("orders/changes", since=since), 400)["problems"]


def test_a_fault_of_ours_is_counted_and_says_nothing_of_itself(house, program):
    house.desk.fail = ZeroDivisionError("secret")

    answer = said(program.call("funds"), 500)

    assert "secret" not in answer["message"]
    assert house.web.faults.counts == {"ZeroDivisionError": 1}


def test_what_is_not_there_is_said_in_json(house):
    client = house.app.test_client()

    assert said(client.post("/api/v1/nothing", json={}), 404)["status"] == "error"
    assert said(client.get("/api/v1/placeorder"), 405)["status"] == "error"
