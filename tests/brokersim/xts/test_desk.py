import pytest

from brokersim.faults import FaultKind
from brokersim.world import Settings
from brokersim.xts.settings import XtsSettings
from xts_harness import LIMIT_ORDER, next_event, nothing_more, serving, story

MODIFICATION = {
    "modifiedProductType": "MIS",
    "modifiedOrderType": "LIMIT",
    "modifiedOrderQuantity": 60,
    "modifiedDisclosedQuantity": 0,
    "modifiedLimitPrice": 799.5,
    "modifiedStopPrice": 0,
    "modifiedTimeInForce": "DAY",
    "orderUniqueIdentifier": "sim-0001",
}
PRO = {"clientID": "*****"}


async def filled_position(desk, token, quantity=50, **changes):
    order_id = await desk.place(token, orderQuantity=quantity, **changes)
    desk.pass_time()
    desk.world.exchange.fill(f"xts:{order_id}", quantity)
    return order_id


@story
async def test_place_answers_request_sent_and_the_outcome_comes_later():
    async with serving() as desk:
        token = await desk.log_in()

        status, body = await desk.call("POST", "/orders", token=token, json=LIMIT_ORDER)

        order_id = body["result"]["AppOrderID"]
        assert (status, body) == (
            200,
            {
                "type": "success",
                "code": "s-orders-0001",
                "description": "Request sent",
                "result": {"AppOrderID": order_id, "OrderUniqueIdentifier": "sim-0001", "ClientID": "JN0001"},
            },
        )
        assert await desk.statuses(token, order_id) == ["PendingNew"]
        desk.pass_time()
        assert await desk.statuses(token, order_id) == ["PendingNew", "New"]


@story
async def test_identifier_is_absent_if_none_was_sent():
    async with serving() as desk:
        token = await desk.log_in()

        result = await desk.ok(
            "POST", "/orders", token=token, json=LIMIT_ORDER | {"orderUniqueIdentifier": None}
        )

        assert sorted(result) == ["AppOrderID", "ClientID"]


@story
async def test_app_order_ids_go_on_growing():
    async with serving() as desk:
        token = await desk.log_in()

        first, second = await desk.place(token), await desk.place(token)

        assert 1_100_000_000 < first < second < 10_000_000_000


@story
async def test_unlisted_contract_and_bad_fields_are_refused_at_once():
    async with serving() as desk:
        token = await desk.log_in()
        for changes, code in (
            ({"exchangeInstrumentID": 999}, "e-instrument-0003"),
            ({"orderQuantity": 0}, "e-property-validation-failed"),
            ({"orderSide": "Buy"}, "e-property-validation-failed"),
        ):
            body = LIMIT_ORDER | changes
            assert await desk.refused("POST", "/orders", token=token, json=body) == (400, code)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"limitPrice": 800.03}, "tick size [0.1]"),
        ({"limitPrice": 0}, "Limit price is missing"),
        ({"orderType": "STOPMARKET"}, "Stop price is missing"),
        ({"exchangeSegment": "NSEFO", "exchangeInstrumentID": 58072, "limitPrice": 24450}, "lot size [65]"),
        ({"limitPrice": 1}, "price range"),
        ({"orderQuantity": 89_000, "limitPrice": 800, "productType": "CNC"}, "Margin Exceeds :  - Set Limit"),
    ],
)
@story
async def test_other_flaws_are_rejections_after_request_sent(changes, reason):
    async with serving() as desk:
        token = await desk.log_in()
        order_id = await desk.place(token, **changes)
        desk.pass_time()

        row = (await desk.history(token, order_id))[-1]

        assert (row["OrderStatus"], row["ExchangeOrderID"]) == ("Rejected", "")
        assert reason in row["CancelRejectReason"]
        assert row["LeavesQuantity"] == row["OrderQuantity"]


@story
async def test_modify():
    async with serving() as desk:
        token = await desk.log_in()
        order_id = await desk.place(token)
        desk.pass_time()

        body = MODIFICATION | {"appOrderID": order_id}
        result = await desk.ok("PUT", "/orders", token=token, json=body)
        pending = (await desk.history(token, order_id))[-1]
        desk.pass_time()
        replaced = (await desk.history(token, order_id))[-1]

        assert result["AppOrderID"] == order_id
        assert (pending["OrderStatus"], pending["OrderQuantity"]) == ("PendingReplace", 60)
        assert (replaced["OrderStatus"], replaced["OrderPrice"]) == ("Replaced", 799.5)


@story
async def test_cancel():
    async with serving() as desk:
        token = await desk.log_in()
        order_id = await desk.place(token)
        desk.pass_time()

        await desk.ok("DELETE", "/orders", token=token, params={"appOrderID": order_id})
        desk.pass_time()

        statuses = await desk.statuses(token, order_id)
        assert statuses == ["PendingNew", "New", "PendingCancel", "Cancelled"]


@story
async def test_cancel_answers_a_list_on_some_servers():
    async with serving(xts=XtsSettings(cancel_as_list=True)) as desk:
        token = await desk.log_in()
        order_id = await desk.place(token)
        desk.pass_time()

        result = await desk.ok("DELETE", "/orders", token=token, params={"appOrderID": order_id})

        assert [each["AppOrderID"] for each in result] == [order_id]


@story
async def test_what_does_not_rest_can_be_neither_modified_nor_cancelled():
    async with serving() as desk:
        token = await desk.log_in()
        order_id = await desk.place(token)
        query = {"appOrderID": order_id}

        assert await desk.refused("DELETE", "/orders", token=token, params=query) == (400, "e-orders-0004")
        body = MODIFICATION | query
        assert await desk.refused("PUT", "/orders", token=token, json=body) == (400, "e-orders-0004")
        unknown = {"appOrderID": 1}
        assert await desk.refused("DELETE", "/orders", token=token, params=unknown) == (400, "e-orders-0001")


@story
async def test_cancel_all_of_a_segment_or_one_contract():
    async with serving() as desk:
        token = await desk.log_in()
        sbin = await desk.place(token)
        infy = await desk.place(token, exchangeInstrumentID=1594, limitPrice=1500)
        desk.pass_time()

        body = {"exchangeSegment": "NSECM", "exchangeInstrumentID": 1594}
        await desk.ok("POST", "/orders/cancelall", token=token, json=body)
        desk.pass_time()
        assert (await desk.statuses(token, infy))[-1] == "Cancelled"
        assert (await desk.statuses(token, sbin))[-1] == "New"

        await desk.ok("POST", "/orders/cancelall", token=token, json=body | {"exchangeInstrumentID": 0})
        desk.pass_time()
        assert (await desk.statuses(token, sbin))[-1] == "Cancelled"


@story
async def test_empty_books_are_http_400():
    async with serving() as desk:
        token = await desk.log_in()
        positions = {"dayOrNet": "NetWise"}

        for path, params, code in (
            ("/orders", {}, "e-orders-0005"),
            ("/orders/trades", {}, "e-tradeBook-0005"),
            ("/portfolio/positions", positions, "e-portfolio-0005"),
            ("/portfolio/holdings", {}, "e-holdings-0005"),
        ):
            assert await desk.refused("GET", path, token=token, params=params) == (400, code)

        desk.world.faults.add(FaultKind.EMPTY_SUCCESS)
        desk.pass_time(10)
        result = await desk.ok("GET", "/portfolio/positions", token=token, params=positions)
        assert result == {"positionList": []}


@story
async def test_trade_book_has_a_row_per_execution():
    async with serving() as desk:
        token = await desk.log_in()
        order_id = await desk.place(token)
        desk.pass_time()
        desk.world.exchange.fill(f"xts:{order_id}", 20)
        desk.world.exchange.fill(f"xts:{order_id}", 30)

        rows = await desk.ok("GET", "/orders/trades", token=token)

        assert [(row["LastTradedQuantity"], row["OrderStatus"]) for row in rows] == [
            (20, "PartiallyFilled"),
            (30, "Filled"),
        ]
        assert {row["MessageCode"] for row in rows} == {9005}


@story
async def test_positions_add_up():
    async with serving() as desk:
        token = await desk.log_in()
        await filled_position(desk, token)

        result = await desk.ok("GET", "/portfolio/positions", token=token, params={"dayOrNet": "DayWise"})

        assert [(row["Quantity"], row["BuyAmount"]) for row in result["positionList"]] == [
            ("50", "40,000.00")
        ]


@story
async def test_square_off_places_the_closing_order():
    async with serving() as desk:
        token = await desk.log_in()
        await filled_position(desk, token)

        body = {
            "exchangeSegment": "NSECM",
            "exchangeInstrumentID": 3045,
            "productType": "MIS",
            "squareoffMode": "NetWise",
            "squareOffQtyValue": 40,
            "positionSquareOffQuantityType": "Percentage",
        }
        await desk.ok("PUT", "/portfolio/squareoff", token=token, json=body)
        await desk.ok("PUT", "/portfolio/squareoffall", token=token, json={"squareoffMode": "NetWise"})

        rows = (await desk.ok("GET", "/orders", token=token))[1:]
        assert [(row["OrderSide"], row["OrderType"], row["OrderQuantity"]) for row in rows] == [
            ("SELL", "Market", 20),
            ("SELL", "Market", 50),
        ]


@story
async def test_conversion_moves_the_position_and_tells_it():
    async with serving() as desk:
        token = await desk.log_in()
        await filled_position(desk, token)
        body = {
            "exchangeSegment": "NSECM",
            "exchangeInstrumentID": 3045,
            "oldProductType": "MIS",
            "newProductType": "NRML",
            "isDayWise": False,
            "targetQty": "20",
        }
        async with desk.socket(token) as socket:
            await next_event(socket, "joined")
            await desk.ok("PUT", "/portfolio/positions/convert", token=token, json=body)
            _, told = await next_event(socket, "tradeConversion")

        result = await desk.ok("GET", "/portfolio/positions", token=token, params={"dayOrNet": "NetWise"})
        assert [(row["ProductType"], row["Quantity"]) for row in result["positionList"]] == [
            ("MIS", "30"),
            ("NRML", "20"),
        ]
        assert (told["Status"], told["TargetQty"], told["MessageCode"]) == ("PositionConverted", 20, 9007)


@story
async def test_balance_profile_and_enums():
    async with serving() as desk:
        token = await desk.log_in()
        await filled_position(desk, token)

        balance = await desk.ok("GET", "/user/balance", token=token)
        limits = balance["BalanceList"][0]["limitObject"]["RMSSubLimits"]
        assert (limits["cashAvailable"], limits["marginUtilized"]) == ("10000000.00", "8000.00")
        assert (await desk.ok("GET", "/user/profile", token=token))["ClientId"] == "JN0001"
        assert "positionSqureOffMode" in await desk.ok("GET", "/user/enums", token=token)


@story
async def test_pro_dealer_has_three_spellings():
    async with serving() as desk:
        token = await desk.log_in("demopro")
        async with desk.socket(token) as socket:
            await next_event(socket, "joined")

            placed = await desk.ok("POST", "/orders", token=token, json=LIMIT_ORDER | PRO)
            _, event = await next_event(socket, "order")

        rows = await desk.ok("GET", "/orders", token=token, params=PRO)
        assert placed["ClientID"] == "*****"
        assert (rows[0]["ClientID"], rows[0]["LoginID"]) == ("Pro", "ZZJ00001")
        assert (event["ClientID"], event["LoginID"]) == ("PRO012", "ZZJ00001")


@story
async def test_dealer_names_the_client_on_every_call_and_hears_all():
    async with serving() as desk:
        token = await desk.log_in("demodealer")
        investor = await desk.log_in("demoxts")
        async with desk.socket(token) as socket, desk.socket(investor) as other:
            await next_event(socket, "joined")
            await next_event(other, "joined")
            for client in ("JD001", "JD002"):
                await desk.place(token, clientID=client)
                assert (await next_event(socket, "order"))[1]["ClientID"] == client
            await nothing_more(other)

        assert await desk.refused("GET", "/orders", token=token) == (400, "e-property-validation-failed")
        stranger = {"clientID": "JN0001"}
        assert await desk.refused("GET", "/orders", token=token, params=stranger) == (400, "e-trade-00002")
        one = await desk.ok("GET", "/orders", token=token, params={"clientID": "JD002"})
        both = await desk.ok("GET", "/orders/dealerorderbook", token=token)
        assert [row["ClientID"] for row in one] == ["JD002"]
        assert [row["ClientID"] for row in both] == ["JD001", "JD002"]
        assert all("GeneratedBy" not in row for row in both)


@story
async def test_dealer_trades_and_positions():
    async with serving() as desk:
        token = await desk.log_in("demodealer")
        await filled_position(desk, token, clientID="JD002")

        trades = await desk.ok("GET", "/orders/dealertradebook", token=token)
        query = {"dayOrNet": "NetWise", "clientID": "JD002"}
        positions = await desk.ok("GET", "/portfolio/dealerpositions", token=token, params=query)

        assert [row["ClientID"] for row in trades] == ["JD002"]
        assert [row["AccountID"] for row in positions["positionList"]] == ["JD002"]


@story
async def test_order_from_the_terminal_is_in_the_book():
    async with serving() as desk:
        token = await desk.log_in()
        desk.front.desk.place_from_terminal("JN0001", LIMIT_ORDER)

        assert [row["GeneratedBy"] for row in await desk.ok("GET", "/orders", token=token)] == ["TWS"]


@story
async def test_self_trade_is_cancelled_after_a_partial_fill():
    async with serving() as desk:
        token = await desk.log_in()
        order_id = await desk.place(token)
        desk.pass_time()
        desk.world.exchange.fill(f"xts:{order_id}", 20)
        other = await desk.place(token, orderSide="SELL")
        desk.pass_time()

        row = (await desk.history(token, other))[-1]

        assert (row["OrderStatus"], row["CancelRejectReason"]) == (
            "Cancelled",
            "17071 : The order could have resulted in self trade ",
        )


@story
async def test_rate_limits_are_rolling_and_shared_by_book_and_history():
    async with serving() as desk:
        token = await desk.log_in()
        order_id = await desk.place(token)
        for _ in range(3):
            await desk.ok("GET", "/orders", token=token)
            await desk.history(token, order_id)

        status, body = await desk.call("GET", "/orders", token=token)
        assert (status, body["code"]) == (429, "e-apirl-0004")
        assert "JN0001" in body["description"]

        desk.pass_time(0.5)
        assert (await desk.refused("GET", "/orders", token=token))[0] == 429
        desk.pass_time(0.5)
        await desk.ok("GET", "/orders", token=token)


@story
async def test_rate_limit_counts_after_authentication_and_per_app_key():
    async with serving() as desk:
        token = await desk.log_in()
        other = await desk.log_in("demopro")
        await desk.place(token)
        await desk.place(other, **PRO)
        for _ in range(6):
            await desk.refused("GET", "/orders", token="bad")
            await desk.ok("GET", "/orders", token=other, params=PRO)

        await desk.ok("GET", "/orders", token=token)


@story
async def test_rate_limits_can_be_switched_off():
    async with serving(settings=Settings(reply_delay=0, push_delay=0, rate_limits=False)) as desk:
        token = await desk.log_in()
        await desk.place(token)

        for _ in range(20):
            await desk.ok("GET", "/orders", token=token)


@pytest.mark.parametrize(
    ("kind", "rows"),
    [
        (FaultKind.OLD_FORMAT, {"OrderSide": "Buy", "OrderGeneratedDateTime": "2027-01-05T10:00:00.25"}),
        (FaultKind.CLOCK_SKEW, {"LastUpdateDateTime": "05-01-2027 10:00:01"}),
    ],
)
@story
async def test_formats_by_fault(kind, rows):
    async with serving() as desk:
        token = await desk.log_in()
        await desk.place(token)
        desk.world.faults.add(kind)

        row = (await desk.ok("GET", "/orders", token=token))[0]

        assert row | rows == row


@story
async def test_missing_fields_by_fault():
    async with serving() as desk:
        token = await desk.log_in()
        await filled_position(desk, token)
        desk.world.faults.add(FaultKind.MISSING_FIELDS)

        row = (await desk.ok("GET", "/orders", token=token))[0]
        result = await desk.ok("GET", "/portfolio/positions", token=token, params={"dayOrNet": "NetWise"})

        assert "TradingSymbol" not in row
        assert "StatisticsLevel" not in result["positionList"][0]


@story
async def test_early_history_by_fault():
    async with serving() as desk:
        token = await desk.log_in()
        order_id = await desk.place(token)
        desk.world.faults.add(FaultKind.EARLY_HISTORY)

        query = {"appOrderID": order_id}
        assert await desk.refused("GET", "/orders", token=token, params=query) == (400, "e-orders-0001")
        desk.pass_time(1)
        assert await desk.statuses(token, order_id) == ["PendingNew", "New"]


@story
async def test_rest_lags_by_fault():
    async with serving() as desk:
        token = await desk.log_in()
        order_id = await desk.place(token)
        desk.pass_time(1)
        desk.world.exchange.fill(f"xts:{order_id}", 20)
        desk.world.faults.add(FaultKind.REST_LAG, params={"seconds": 0.5}, operation="orders")

        assert await desk.statuses(token, order_id) == ["PendingNew", "New"]
        assert (await desk.refused("GET", "/orders/trades", token=token))[1] == "e-tradeBook-0005"
        desk.pass_time(0.5)
        assert (await desk.statuses(token, order_id))[-1] == "PartiallyFilled"


@story
async def test_planned_rejections_by_fault():
    async with serving() as desk:
        token = await desk.log_in()
        message = "Gateway:DMA order can't be placed, for PRO Orders"
        desk.world.faults.add(FaultKind.REJECT_RISK, broker="xts", count=1, params={"message": message})
        order_id = await desk.place(token)
        desk.pass_time()

        row = (await desk.history(token, order_id))[-1]

        assert (row["OrderStatus"], row["CancelRejectReason"]) == ("Rejected", message)
