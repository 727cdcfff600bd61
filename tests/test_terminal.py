import io

from rich.console import Console

from orderwire.client import StreamEvent
from orderwire.terminal import OrdersOnScreen

ORDER = {
    "row": "r1",
    "orderid": "1",
    "account": "a",
    "symbol": "INFY",
    "exchange": "NSE",
    "action": "BUY",
    "pricetype": "LIMIT",
    "quantity": 10,
    "filled_quantity": 0,
    "price": 1500.0,
    "average_price": 0.0,
    "status": "OPEN",
    "first_seen": 1,
    "timestamp": "2026-08-17 10:00:00",
    "pending_modify": False,
    "pending_cancel": False,
    "conflict": False,
    "checking": False,
}


def told(screen, kind, **fields):
    screen.take(StreamEvent(kind=kind, account="a", fields=fields))


def drawn(screen):
    console = Console(width=160, file=io.StringIO())
    console.print(screen.render())
    return console.file.getvalue()


def test_an_order_is_drawn_with_its_state_and_what_is_under_way():
    screen = OrdersOnScreen()
    told(
        screen,
        "order",
        **ORDER | {"status": "PARTIALLY_FILLED", "filled_quantity": 4, "pending_cancel": True},
    )

    text = drawn(screen)

    assert "NSE INFY" in text
    assert "4/10" in text
    assert "PARTIALLY FILLED · pending_cancel" in text


def test_the_newest_orders_come_first_and_the_rest_is_left_out():
    screen = OrdersOnScreen(most=2)
    for number in (1, 3, 2):
        told(screen, "order", **ORDER | {"row": f"r{number}", "orderid": str(number), "first_seen": number})

    assert [row["orderid"] for row in screen.rows()] == ["3", "2"]


def test_a_snapshot_replaces_the_accounts_orders_and_tells_its_freshness():
    screen = OrdersOnScreen()
    told(screen, "order", **ORDER)
    feed = {"freshness": "STALE", "detail": "the broker does not answer"}
    told(screen, "snapshot", orders=[ORDER | {"row": "r9", "orderid": "9"}], feed=feed)

    assert [row["orderid"] for row in screen.rows()] == ["9"]
    assert "STALE the broker does not answer" in drawn(screen)


def test_an_order_found_to_be_ours_takes_the_place_of_its_line_by_order_id():
    screen = OrdersOnScreen()
    told(screen, "order", **ORDER | {"row": "1"})
    told(screen, "order", **ORDER | {"row": "OWTAG"})

    assert [row["row"] for row in screen.rows()] == ["OWTAG"]
