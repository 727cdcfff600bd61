"""Who is there, and what their money does."""

from decimal import Decimal

import pytest

from brokersim.orders import Side, Stage
from brokersim.users import (
    Account,
    KiteUser,
    UnknownUserError,
    XtsKind,
    XtsLogin,
    demo_users,
    required,
)
from sim_orders import order


def test_the_documented_demo_logins_are_there():
    users = demo_users()

    assert users.kite_apps["demokite"].api_secret == "demokite-secret"
    assert users.kite_users["ZD0001"].password == "demo"
    kinds = {
        login.app_key: (login.kind, login.login_id, login.clients) for login in users.xts_logins.values()
    }
    assert kinds == {
        "demoxts": (XtsKind.INVESTOR, "JN0001", ("JN0001",)),
        "demodealer": (XtsKind.DEALER, "DLL01234", ("JD001", "JD002")),
        "demopro": (XtsKind.PRO, "ZZJ00001", ("PRO012",)),
    }
    assert all(login.secret_key == f"{key}-secret" for key, login in users.xts_logins.items())


def test_every_client_has_one_account():
    users = demo_users()
    users.add_xts_login(
        XtsLogin(kind=XtsKind.DEALER, app_key="b", secret_key="s", login_id="D", clients=("JD001", "JD009")),
        cash=Decimal(5),
    )
    users.add_kite_user(KiteUser(user_id="ZD0001", password="new", name="x"), cash=Decimal(1))

    assert users.account("xts", "JD009").cash == 5
    assert users.account("xts", "JD001").cash > 5
    assert users.account("kite", "ZD0001").cash > 1
    with pytest.raises(UnknownUserError):
        users.account("kite", "NOBODY")


@pytest.mark.parametrize(
    ("product", "side", "expected"),
    [("CNC", Side.BUY, "8200.00"), ("MIS", Side.BUY, "1640.00"), ("CNC", Side.SELL, "0")],
)
def test_margin_is_all_in_cash_and_a_fifth_otherwise(product, side, expected):
    assert required(order("820", side, product=product), price=Decimal(1)) == Decimal(expected)


def test_a_market_order_needs_the_markets_price():
    assert required(order(None), price=Decimal(821)) == Decimal("8210.00")


def test_an_order_blocks_from_the_risk_check_until_it_is_done():
    account = Account(broker="kite", user="ZD0001", cash=Decimal(10_000))
    price = Decimal(820)

    seen = []
    for stage in (Stage.RECEIVED, Stage.SENT, Stage.OPEN, Stage.CANCELLED):
        account.follow(order(stage=stage), price)
        seen.append(account.available)

    assert seen == [10_000, 1_800, 1_800, 10_000]


def test_an_order_checked_beforehand_blocks_at_once():
    account = Account(broker="kite", user="ZD0001", cash=Decimal(10_000))

    account.follow(order(stage=Stage.RECEIVED), Decimal(820), checked=True)

    assert account.available == 1_800


def test_a_fill_takes_money_and_a_sale_gives_it_back():
    account = Account(broker="kite", user="ZD0001", cash=Decimal(10_000))

    account.book(order(), quantity=4, price=Decimal(820))
    account.book(order(side=Side.SELL), quantity=4, price=Decimal(830))

    assert account.available == 10_040
