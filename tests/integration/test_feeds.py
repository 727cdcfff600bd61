"""Feeds against the running simulators, as the service runs them: what they promise when the line is bad."""

from __future__ import annotations

from decimal import Decimal

import pytest

from feed_figures import dropped_together, half_open, silent_loss, switching
from feed_floor import floor
from orderwire.core.orders import AccountId, OrderId, OrderRequest
from orderwire.core.recovery import Freshness

KITE, XTS = AccountId("k0"), AccountId("x0")


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    folder = tmp_path_factory.mktemp("floor")
    with floor(folder, kite=3, xts=3, through_proxies=True) as running:
        running.until(running.all_live)
        yield running


@pytest.fixture
def calm(few):
    few.sim.ask("DELETE", "/faults")
    few.until(few.all_live)
    yield few
    few.sim.ask("DELETE", "/faults")


@pytest.mark.parametrize(("account", "most"), [(KITE, 5.0), (XTS, 8.0)])
def test_a_line_that_is_open_and_dead_is_noticed_by_its_deadline(calm, account, most, gate):
    gate(f"{calm.broker(account)}: open and dead → the page knows", half_open(calm, account), most=most)


def test_a_fill_the_stream_lost_is_found_by_the_next_read(calm):
    found = silent_loss(calm, [KITE, XTS])

    assert len(found) == 2
    assert calm.differences() == []


def test_streams_cut_together_come_back_live_and_reconciled(calm):
    drop = dropped_together(calm, "kite")

    assert len(drop.back) == 3
    assert calm.differences() == []


def test_switching_off_and_on_in_the_middle_of_trading_loses_nothing(calm, gate):
    found = switching(calm, switches=6)

    assert found.lost == []
    assert found.passed_after == 0
    gate("real-time off under load, returned", max(found.returned), most=1)
    assert found.updates > 20


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        ("server_error", {}),
        ("rate_limit", {"retry_after": 1}),
        ("rate_limit", {}),
        ("reset", {}),
        ("truncate", {}),
        ("corrupt", {}),
        ("unauthorized", {"status": 429}),
    ],
)
def test_whatever_the_wire_does_to_reads_the_book_ends_as_the_brokers(calm, kind, params):
    calm.sim.ask(
        "POST", "/faults", kind=kind, channel="wire", operation="GET /", params=params, probability=0.5
    )
    calm.sim.ask("POST", "/faults", kind="drop", channel="wire", operation="frame text", probability=0.5)
    orders = {account: calm.place(account) for account in (KITE, XTS)}
    for account, order_id in orders.items():
        calm.fill(account, order_id, 7)
    calm.sim.ask("DELETE", "/faults")

    calm.until(lambda: not calm.differences(), seconds=40)
    calm.until(calm.all_live)


@pytest.mark.parametrize(
    "kind", ["drop", "duplicate", "reorder", "delay", "truncate", "corrupt", "slow_loris", "reset"]
)
def test_whatever_the_wire_does_to_frames_the_book_ends_as_the_brokers(calm, kind):
    calm.sim.ask("POST", "/faults", kind=kind, channel="wire", operation="frame text", probability=0.5)
    orders = {account: calm.place(account) for account in (KITE, XTS)}
    for account, order_id in orders.items():
        calm.fill(account, order_id, 7)
        calm.fill(account, order_id, 7)
    calm.sim.ask("DELETE", "/faults")

    calm.until(lambda: not calm.differences(), seconds=40)


def test_a_refused_handshake_means_polling_and_then_live_again(calm):
    calm.sim.ask(
        "POST",
        "/faults",
        kind="refuse_handshake",
        channel="wire",
        operation="upgrade",
        params={"status": 503},
    )
    calm.sim.ask("POST", "/sockets/disconnect", broker="kite", user=calm.user(KITE), mode="abort")
    calm.until(lambda: calm.fleet.status(KITE).freshness is Freshness.DEGRADED)
    order_id = calm.place(KITE)
    calm.until(lambda: calm.book.current(KITE, order_id))
    calm.sim.ask("DELETE", "/faults")

    calm.until(lambda: calm.fleet.status(KITE).freshness is Freshness.LIVE)


def test_accounts_of_one_key_share_its_limit_and_all_become_live(tmp_path):
    with floor(tmp_path, kite=24, one_key=True) as many:
        many.until(many.all_live, seconds=120)
        shares = {feed.adapter.book_share() for feed in many.fleet.feeds()}

    assert max(shares) == pytest.approx(24 / 10 / 0.6)


@pytest.mark.parametrize("account", [KITE, XTS])
@pytest.mark.parametrize(
    ("kind", "done"), [("server_error", True), ("server_error", False), ("reset", True), ("reset", False)]
)
def test_an_order_whose_answer_was_lost_is_looked_for_and_never_sent_again(calm, account, kind, done):
    price = Decimal(790) if account == KITE else Decimal(780)
    before = len(calm.truth())
    calm.sim.ask(
        "POST", "/faults", kind=kind, channel="wire", operation="POST /", params={"done": done, "status": 502}
    )
    sent = calm.desk.place(
        account,
        OrderRequest(
            exchange="NSE",
            symbol="SBIN",
            side="BUY",
            quantity=10,
            order_type="LIMIT",
            product="MIS",
            price=price,
        ),
    )
    calm.sim.ask("DELETE", "/faults")

    if done:
        calm.until(lambda: _of_tag(calm, account, sent.id))
    assert len(calm.truth()) - before == int(done)
    calm.until(lambda: not calm.differences())


def _of_tag(running, account, tag):
    return [
        order_id
        for (name, order_id), row in running.truth().items()
        if name == account
        and (view := running.book.current(account, OrderId(order_id))) is not None
        and view.submission == tag
        and row["tag"] == tag
    ]
