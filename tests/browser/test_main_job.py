"""A real browser: log in, place an order at each broker from the page, watch it move without a reload."""

import statistics
from decimal import Decimal

import pytest
from playwright.sync_api import expect

from house import JAINAM, PASSWORD, ZERODHA, eventually, running_house

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.timeout(180)]

BROKERS = [pytest.param("asha", ZERODHA, id="zerodha"), pytest.param("jay", JAINAM, id="jainam")]

WATCH = """
() => {
  window.seen = [];
  const painted = (take) => requestAnimationFrame(() => {
    const after = new MessageChannel();
    after.port1.onmessage = take;
    after.port2.postMessage(0);
  });
  document.getElementById("ticket-form").addEventListener("submit", () => { window.sent = performance.now(); }, true);
  new MutationObserver((changes) => {
    const rows = new Set(changes.map((change) => change.target.closest("[data-status]")));
    rows.delete(null);
    for (const row of rows) {
      const said = [row.dataset.status, row.querySelector(".t-filled").textContent];
      painted(() => window.seen.push([performance.now(), ...said]));
    }
  }).observe(document.getElementById("grid-orders"), {subtree: true, childList: true, characterData: true, attributes: true});
}
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    with running_house(tmp_path_factory.mktemp("house")) as house:
        yield house


@pytest.fixture
def page(house, browser_page, request):
    page = browser_page
    page.goto(f"{house.url}/login")
    page.get_by_label("User name").fill(request.getfixturevalue("user"))
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.locator(".pill-word")).to_have_text("Live", timeout=15_000)
    page.evaluate(WATCH)
    return page


def market_price(house, key="NSE:INFY"):
    return Decimal(house.sims.ask("GET", "/market")[key]["last"])


def send(page, *, symbol="INFY", quantity, price, kind="LIMIT"):
    page.keyboard.press("n")
    page.get_by_role("combobox", name="Symbol").fill(symbol)
    page.get_by_role("option", name=symbol).first.click()
    page.locator(f"#ticket-form [name=pricetype][value='{kind}']").check(force=True)
    page.locator("#ticket-form [name=quantity]").fill(str(quantity))
    page.locator("#ticket-form [name=price]").fill(str(price))
    page.evaluate("window.seen = []")
    page.locator("#ticket-send").click()


def await_painted(page, status, quantity):
    eventually(
        lambda: status in [seen for _, seen in statuses(page, quantity)], what=f"{status} of {quantity}"
    )


def statuses(page, filled):
    """Each state of the order of that size, in the order painted, without repeats."""
    rows = page.evaluate("window.seen")
    mine = [(at, status) for at, status, text in rows if text.endswith(f"/ {filled}")]
    return [entry for i, entry in enumerate(mine) if i == 0 or mine[i - 1][1] != entry[1]]


@pytest.mark.parametrize(("user", "account"), BROKERS)
def test_an_order_moves_from_pending_to_filled_without_a_reload(house, page, user, account):
    send(page, quantity=37, price=market_price(house))

    await_painted(page, "FILLED", 37)
    path = [status for _, status in statuses(page, 37)]
    assert path == ["PENDING_NEW", "OPEN", "PARTIALLY_FILLED", "FILLED"]
    assert page.evaluate("performance.getEntriesByType('navigation').length") == 1


@pytest.mark.parametrize(("user", "account"), BROKERS)
def test_placed_to_painted_is_measured_for_each_broker(house, page, user, account, record_property):
    latencies = []
    for number in range(12):
        quantity = 101 + number
        send(page, quantity=quantity, price=market_price(house) - 40)
        await_painted(page, "OPEN", quantity)
        confirmed = next(at for at, status in statuses(page, quantity) if status == "OPEN")
        latencies.append(confirmed - page.evaluate("window.sent"))
        page.locator("#ticket").wait_for(state="hidden")

    p50, p95 = statistics.median(latencies), sorted(latencies)[int(len(latencies) * 0.95)]
    record_property(
        "figure",
        f"{account}: placed → painted p50 {p50:.0f} ms, p95 {p95:.0f} ms ({len(latencies)} orders; "
        "simulator: reply 30 ms, push 20 ms)",
    )
    assert len(latencies) == 12
