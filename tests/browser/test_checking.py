"""A postback in a real browser: the row says that it is being checked, never what was claimed, and how long it took."""

import statistics
import time

import pytest
from playwright.sync_api import expect

from house import PASSWORD, ZERODHA, eventually, running_house
from orderwire.client import OrderStream

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.timeout(240)]

REST = 0.3
"""Seconds the broker's REST takes, so that *checking* can be seen."""

FILLS = 15
STAGES = ("received", "queued", "joined", "committed", "emitted")

WATCH = """
() => {
  window.seen = [];
  const painted = (take) => requestAnimationFrame(() => {
    const after = new MessageChannel();
    after.port1.onmessage = take;
    after.port2.postMessage(0);
  });
  const grid = document.getElementById("grid-orders");
  new MutationObserver((changes) => {
    const rows = new Set(changes.map((change) => change.target.parentElement?.closest("[data-status]")));
    rows.delete(null);
    for (const row of rows) {
      const said = [row.dataset.status, row.querySelector(".t-filled").textContent, row.querySelector(".t-overlay").textContent];
      painted(() => window.seen.push([Date.now(), ...said]));
    }
  }).observe(grid, {subtree: true, childList: true, characterData: true, attributes: true});
}
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    with running_house(tmp_path_factory.mktemp("house")) as house:
        yield house


@pytest.fixture
def page(house, browser_page):
    page = browser_page
    page.goto(f"{house.url}/login")
    page.get_by_label("User name").fill("asha")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.locator(".pill-word")).to_have_text("Live", timeout=15_000)
    page.evaluate(WATCH)
    return page


def rest(house, quantity):
    order_id = house.place(ZERODHA, order_type="LIMIT", price="1440", quantity=quantity)["order_id"]
    eventually(lambda: house.broker_orders("kite")[order_id]["stage"] == "OPEN", what="an open order")
    return order_id


def row_of(page, quantity):
    return page.locator("#grid-orders [data-status]").filter(has_text=f"/ {quantity}")


def test_an_altered_postback_shows_as_being_checked_and_never_as_what_it_claims(house, page):
    order_id = rest(house, 61)
    row = row_of(page, 61)
    expect(row.locator(".t-status")).to_have_text("Open")
    before = house.book("asha")
    page.evaluate("window.seen = []")
    house.sims.ask("POST", "/faults", {"kind": "slow", "operation": "orders", "params": {"seconds": REST}})

    house.sims.ask(
        "POST",
        "/kite/postbacks/forge",
        {"order_id": order_id, "kind": "altered", "fields": {"status": "REJECTED"}},
    )

    seen = eventually(lambda: painted_and_cleared(page, 61), what="the mark painted, then painted away")
    assert {status for status, *_ in seen} == {"OPEN"}
    assert house.book("asha") == before
    eventually(lambda: "postback mismatch" in house.log(), what="the alarm")
    house.sims.ask("DELETE", "/faults")


def painted_and_cleared(page, quantity):
    """What was painted in that order's row once *checking* has come and gone; None before."""
    seen = [tuple(said) for _, *said in page.evaluate("window.seen") if said[1].endswith(f"/ {quantity}")]
    overlays = [overlay for *_, overlay in seen]
    return seen if "checking" in overlays and overlays[-1] == "" else None


def test_each_channel_is_measured_stage_by_stage(house, page, record_property):
    """First by the WebSocket; then without it, so that what a postback tells is believed once the book says so."""
    with OrderStream(house.url, apikey=house.keys["asha"]) as stream:
        told = measured(house, page, stream, quantity=500)
        lose_the_stream(house)
        house.sims.ask("POST", "/faults", {"kind": "slow", "operation": "orders", "params": {"seconds": 0.1}})
        hinted = measured(house, page, stream, quantity=700)
    house.sims.ask("DELETE", "/faults")
    house.sims.ask("PATCH", "/kite/apps/demokite", {"plan": "connect"})
    house.log_in()

    for channel, rows in (("WebSocket", told), ("postback, verified by REST answering in 100 ms", hinted)):
        record_property("figure", f"Zerodha by {channel}, filled → painted: {by_stage(rows)}")
    assert len(told) == len(hinted) == FILLS
    assert any("checking" in row for row in hinted)


def lose_the_stream(house):
    house.sims.ask("PATCH", "/kite/apps/demokite", {"plan": "personal"})
    house.sims.ask("POST", "/sockets/disconnect", {"broker": "kite", "user": "ZD0001", "mode": "close"})
    house.await_freshness(ZERODHA, "DEGRADED")


def measured(house, page, stream, *, quantity):
    """Fill an order share by share; of each fill the milliseconds each stage took."""
    order_id = rest(house, quantity)
    expect(row_of(page, quantity).locator(".t-status")).to_have_text("Open")
    return [
        one_fill(house, page, stream, order_id=order_id, quantity=quantity, filled=filled)
        for filled in range(1, FILLS + 1)
    ]


def one_fill(house, page, stream, *, order_id, quantity, filled):
    page.evaluate("window.seen = []")
    began = time.time() * 1000
    house.sims.ask("POST", "/market/fill", {"uid": f"kite:{order_id}", "quantity": 1, "price": "1440"})
    stamps = eventually(lambda: stamps_of(stream, order_id, filled), what="the fill at a program")
    painted = eventually(
        lambda: when(page, "filled", f"{filled} / {quantity}"), what="the fill on the screen"
    )
    moments = [began, *(stamps[name] for name in STAGES), painted]
    row = {
        name: after - before
        for name, before, after in zip((*STAGES, "painted"), moments[:-1], moments[1:], strict=True)
    }
    checked = when(page, "overlay", "checking")
    return row | {"in all": painted - began} | ({"checking": checked - began} if checked else {})


def stamps_of(stream, order_id, filled):
    event = stream.next(timeout=0.2)
    if event is None or event.kind != "order" or event.fields["orderid"] != order_id:
        return None
    return event.fields["stamps"] if event.fields["filled_quantity"] >= filled else None


def by_stage(rows):
    def middle(name):
        return statistics.median([row[name] for row in rows if name in row] or [0.0])

    whole = sorted(row["in all"] for row in rows)
    stages = ", ".join(f"{name} {middle(name):.1f}" for name in (*STAGES, "painted"))
    checking = (
        f"; checking painted {middle('checking'):.0f}" if any("checking" in row for row in rows) else ""
    )
    return f"p50 {middle('in all'):.0f} ms, p95 {whole[int(len(whole) * 0.95)]:.0f} ms; by stage (p50, ms): {stages}{checking}"


def when(page, what, text):
    """When that text was first painted in a row, in the page's clock; None before."""
    at = {"filled": 2, "overlay": 3}[what]
    return next((row[0] for row in page.evaluate("window.seen") if row[at] == text), None)
