"""The order page in a real browser, before a small web of memory: what it shows, says and survives."""

from __future__ import annotations

import threading
import time
from decimal import Decimal

import pytest
from axe_playwright_python.sync_playwright import Axe
from msgspec.structs import replace
from playwright.sync_api import expect

from orderwire.core.events import Event, EventType
from orderwire.core.evidence import RECEIVED
from orderwire.core.lifecycle import SubmissionState
from orderwire.core.orders import AccountId, OrderStatus
from orderwire.core.recovery import Freshness
from web.house import PASSWORD, a_server, order, settle

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.timeout(300)]

ACC = AccountId("acc")
PHONE = {"width": 390, "height": 844}


@pytest.fixture
def house(tmp_path):
    with a_server(tmp_path, assets=None) as built:
        built.user("asha")
        built.account("acc", "asha", title="Wired")
        yield built


@pytest.fixture
def page(house, browser_page):
    enter(house, browser_page)
    expect(browser_page.locator(".pill-word")).to_have_text("Live")
    return browser_page


def enter(house, page, *, name="asha"):
    page.goto(f"{house.url}/login")
    page.get_by_label("User name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(f"{house.url}/")


def row(page, name):
    return page.locator(f'#grid-orders [data-key$="{name}"]:not([hidden])')


def show(house, freshness, **facts):
    status = house.fleet.show(ACC, freshness, **facts)
    house.services.engine.put(Event(EventType.FEED_STATUS, status))


# --- what it shows ----------------------------------------------------------------------------------------


def test_a_change_moves_its_row_without_a_reload(house, page):
    (first,) = house.publish(order())
    expect(row(page, "r1")).to_contain_text("Open")

    house.publish(
        replace(
            first.order,
            status=OrderStatus.PARTIALLY_FILLED,
            filled_quantity=4,
            average_price=Decimal("1500.45"),
        )
    )

    expect(row(page, "r1")).to_contain_text("Partly filled")
    expect(row(page, "r1")).to_contain_text("4 / 10")
    expect(row(page, "r1")).to_contain_text("1,500.45")
    expect(page.locator('[data-state="working"]')).to_have_text("1")
    assert page.evaluate("performance.getEntriesByType('navigation').length") == 1


@pytest.mark.parametrize("status", list(OrderStatus))
def test_every_state_is_told_by_a_word_and_a_sign(house, page, status):
    house.publish(order(status=status, reason="Because." if status is OrderStatus.REJECTED else ""))

    said = row(page, "r1").locator(".status")

    expect(said).to_be_visible()
    assert said.inner_text().strip()
    assert said.locator("use").get_attribute("href").startswith("#i-")


def test_what_the_broker_says_is_text_and_never_markup(house, page):
    house.publish(
        order(status=OrderStatus.REJECTED, reason="<img src=x onerror=alert(1)>", symbol="<b>X</b>")
    )

    expect(row(page, "r1")).to_contain_text("<img src=x onerror=alert(1)>")
    assert row(page, "r1").locator("img, b").count() == 0


def test_the_filter_and_the_states_narrow_the_rows(house, page):
    house.publish(order(number=1), order(number=2, symbol="TCS"), order(number=3, status=OrderStatus.FILLED))
    expect(page.locator("#shown")).to_have_text("3 orders")

    page.keyboard.press("/")
    page.keyboard.type("tcs")
    expect(page.locator("#shown")).to_have_text("1 of 3 orders")
    page.keyboard.press("Escape")
    page.get_by_role("radio", name="Filled").check()

    expect(page.locator("#shown")).to_have_text("1 of 3 orders")
    expect(row(page, "r3")).to_be_visible()
    house.publish(order(number=1, status=OrderStatus.FILLED))
    expect(page.locator("#shown")).to_have_text("2 of 3 orders")


def test_columns_sort_both_ways_and_say_so(house, page):
    house.publish(*(order(number=n, symbol=s) for n, s in enumerate(("TCS", "INFY", "SBIN"))))
    expect(page.locator("#shown")).to_have_text("3 orders")
    header = page.locator("#grid-orders").get_by_role("columnheader", name="Symbol")

    header.get_by_role("button").click()
    assert symbols(page) == ["INFY", "SBIN", "TCS"]
    assert header.get_attribute("aria-sort") == "ascending"
    header.get_by_role("button").click()

    assert symbols(page) == ["TCS", "SBIN", "INFY"]


def symbols(page):
    return page.evaluate(
        """() => [...document.querySelectorAll('#grid-orders .grid-row:not([hidden])')]
            .sort((a, b) => a.getAttribute('aria-rowindex') - b.getAttribute('aria-rowindex'))
            .map((row) => row.querySelector('.t-symbol').textContent)"""
    )


def test_what_is_shown_is_saved_as_csv(house, page):
    house.publish(order(number=1), order(number=2, symbol="TCS"))
    expect(page.locator("#shown")).to_have_text("2 orders")
    page.locator("#filter").fill("tcs")
    expect(page.locator("#shown")).to_have_text("1 of 2 orders")

    with page.expect_download() as saved:
        page.get_by_role("button", name="CSV").click()

    head, line = saved.value.path().read_text().splitlines()
    assert head.startswith("time,broker_time,account,orderid")
    assert ",acc,261124000000002,BUY,TCS,NSE,10,0,LIMIT,MIS,1500.5,0,0,OPEN," in line


def test_the_address_says_what_is_shown_so_that_a_reload_and_a_link_show_the_same(house, page):
    house.account("other", "asha", title="Other")
    house.publish(
        order(number=1),
        order(number=2, symbol="TCS"),
        order(number=3, symbol="TCS", status=OrderStatus.REJECTED),
        order("other", number=4, symbol="TCS"),
    )
    page.reload()
    expect(page.locator("#shown")).to_have_text("4 orders")
    page.locator("#filter").fill("tcs")
    page.get_by_role("radio", name="Working").check()
    page.locator("#account").select_option("acc")
    expect(page.locator("#shown")).to_have_text("1 of 4 orders")
    page.wait_for_url("**/?account=acc&state=working&q=tcs")

    page.reload()

    expect(page.locator("#shown")).to_have_text("1 of 4 orders")
    expect(page.locator("#filter")).to_have_value("tcs")
    expect(page.locator("#account")).to_have_value("acc")
    expect(page.locator('#states [value="working"]')).to_be_checked()
    assert symbols(page) == ["TCS"]

    page.get_by_role("tab", name="Trades").click()
    page.wait_for_url("**/?book=trades&account=acc&state=working&q=tcs")
    page.reload()
    expect(page.get_by_role("tab", name="Trades")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#panel-orders")).to_be_hidden()


@pytest.mark.parametrize("size", [{"width": 1280, "height": 800}, PHONE], ids=["window", "phone"])
def test_a_busy_day_does_not_push_the_new_order_button_onto_a_line_of_its_own(house, page, size):
    page.set_viewport_size(size)
    for number in range(120):
        house.log.change(order(number=number))
    page.reload()
    expect(page.locator("#shown")).to_have_text("120 orders")

    def top(selector):
        return page.locator(selector).bounding_box()["y"]

    assert abs(top("#new-order") - top("#refresh")) < 5


def test_an_address_of_somebody_elses_account_shows_ones_own(house, page):
    house.publish(order(number=1))
    page.goto(f"{house.url}/?account=of-ravi&state=lost&book=holdings")

    expect(page.locator("#shown")).to_have_text("1 order")


def test_a_row_leads_to_the_orders_own_page(house, page):
    house.publish(order(number=1))
    expect(row(page, "r1").locator("a.t-symbol")).to_have_attribute("href", "/orders/acc/r1")
    row(page, "r1").focus()
    page.keyboard.press("o")

    page.wait_for_url("**/orders/acc/r1")


# --- how fresh it is --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("freshness", "word"),
    [
        (Freshness.LIVE, "Live"),
        (Freshness.RECONCILING, "Reconciling"),
        (Freshness.DEGRADED, "Polling"),
        (Freshness.STALE, "Stale"),
        (Freshness.AUTH_REQUIRED, "Log in"),
        (Freshness.MANUAL, "Manual"),
    ],
)
def test_the_pill_says_how_fresh_the_data_is_and_why(house, page, freshness, word):
    show(house, freshness, detail="The reason why.")

    pill = page.locator(".pill-menu")
    expect(pill.locator(".pill-word")).to_have_text(word)
    expect(pill.locator(".pill-age")).to_have_text("now")
    pill.locator("summary").click()
    expect(pill).to_contain_text("The reason why.")


def test_a_page_that_lost_its_connection_says_so_and_finds_back(house, page):
    house.publish(order())
    expect(row(page, "r1")).to_contain_text("Open")

    page.evaluate(
        "window.lost = []; new MutationObserver(() => window.lost.push(document.querySelector('.pill-word').textContent)).observe(document.querySelector('.pill-word'), {childList: true, characterData: true, subtree: true})"
    )
    house.web.realtime.close()
    expect(page.locator("#lost")).to_be_visible()
    expect(page.locator(".pill-word")).to_have_text("Offline")
    house.publish(order(status=OrderStatus.FILLED, filled_quantity=10))

    expect(row(page, "r1")).to_contain_text("Filled")
    expect(page.locator("#lost")).to_be_hidden()
    expect(page.locator(".pill-word")).to_have_text("Live")
    assert house.log.snapshots == 1  # it came back with its cursor


def test_an_outdated_tab_is_told_to_reload(house, page):
    house.web.realtime._version = "newer"
    house.web.realtime.close()

    expect(page.locator("#toasts")).to_contain_text("newer version of this page")


def test_a_session_that_ended_leads_to_the_login_and_back(house, page):
    house.services.users.set_password("asha", "another password")
    house.web.realtime.cut(user="asha")

    page.wait_for_url("**/login?next=**")
    page.get_by_label("User name").fill("asha")
    page.get_by_label("Password").fill("another password")
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("#grid-orders")).to_be_visible()


def test_refresh_always_works(house, page):
    page.keyboard.press("r")

    expect(page.locator("#toasts")).to_contain_text("Reading the order book")
    assert house.fleet.refreshed == ["acc"]


def let_no_stream_through(house, what):
    """Stand in for a proxy that answers certain requests itself."""
    inner = house.app.wsgi_app

    def proxy(environ, start_response):
        if what in f"{environ['PATH_INFO']}?{environ['QUERY_STRING']}":
            start_response("502 Bad Gateway", [("Content-Type", "text/plain")])
            return [b""]
        return inner(environ, start_response)

    house.app.wsgi_app = proxy


def test_refresh_works_without_a_stream_and_the_stream_goes_on_from_there(house, browser_page):
    let_no_stream_through(house, "socket.io")
    enter(house, browser_page)
    expect(browser_page.locator(".pill-word")).to_have_text("Offline")
    house.publish(order())

    browser_page.keyboard.press("r")
    expect(row(browser_page, "r1")).to_contain_text("Open")
    expect(browser_page.locator("#lost")).to_be_visible()
    expect(browser_page.locator(".pill-word")).to_have_text("Offline")


def test_where_no_websocket_gets_through_the_page_is_live_all_the_same(house, browser_page):
    let_no_stream_through(house, "transport=websocket")
    enter(house, browser_page)
    house.publish(order())

    expect(row(browser_page, "r1")).to_contain_text("Open")
    expect(browser_page.locator(".pill-word")).to_have_text("Live")


# --- the ticket -------------------------------------------------------------------------------------------


def fill(page, *, symbol="infy", quantity="10", price="1500.50"):
    page.keyboard.press("n")
    page.get_by_role("combobox", name="Symbol").fill(symbol)
    page.locator("#t-found [role=option]").first.click()
    page.locator("#t-quantity").fill(quantity)
    page.locator("#t-price").fill(price)


def test_an_order_is_placed_by_keyboard_alone(house, page):
    page.keyboard.press("n")
    page.keyboard.type("inf")
    expect(page.locator("#t-found [role=option]")).to_have_count(1)
    page.keyboard.press("Enter")
    page.keyboard.type("10")
    page.locator("#t-price").focus()
    page.keyboard.type("1500.50")
    expect(page.locator("#ticket-promise")).to_have_text("Buy 10 INFY")
    page.keyboard.press("Enter")

    expect(page.locator("#ticket")).to_be_hidden()
    expect(page.locator("#toasts")).to_contain_text("Sent: Buy 10 INFY")
    expect(row(page, "OW00000000000001")).to_contain_text("Pending")
    ((account, request, key),) = house.desk.placed
    assert (account, request.symbol, request.quantity, request.price) == (
        "acc",
        "INFY",
        10,
        Decimal("1500.50"),
    )
    assert len(key) == 36


def test_the_button_says_why_it_cannot_be_pressed(house, page):
    page.keyboard.press("n")
    expect(page.locator("#ticket-why")).to_have_text("Choose a symbol.")
    show(house, Freshness.AUTH_REQUIRED)

    expect(page.locator("#ticket-why")).to_contain_text("Log in to Wired first")
    page.locator("#ticket-send").click(force=True)

    expect(page.locator("#ticket")).to_be_visible()
    assert house.desk.placed == []


@pytest.mark.parametrize(
    ("typed", "field", "words"),
    [
        ({"price": "1500.123"}, "price", "more decimals than the tick"),
        ({"quantity": "0"}, "quantity", "at least 1"),
        ({"quantity": "-5"}, "quantity", "at least 1"),
        ({"price": "abc"}, "price", "is a number"),
    ],
)
def test_a_bad_field_says_what_is_wrong_and_keeps_what_was_typed(house, page, typed, field, words):
    fill(page, **typed)
    page.locator("#ticket-send").click()

    expect(page.locator(f"#p-{field}")).to_contain_text(words)
    expect(page.locator(f"#t-{field}")).to_be_focused()
    expect(page.locator(f"#t-{field}")).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#t-symbol")).to_have_value("INFY")
    assert house.desk.placed == []


def test_an_unknown_symbol_is_said_at_its_field(house, page):
    page.keyboard.press("n")
    page.get_by_role("combobox", name="Symbol").fill("INFFY")
    page.locator("#t-quantity").fill("1")
    page.locator("#t-price").fill("10")
    page.locator("#ticket-send").click()

    expect(page.locator("#p-symbol")).not_to_be_empty()
    expect(page.locator("#t-symbol")).to_have_attribute("aria-invalid", "true")


def test_a_refusal_is_told_in_the_brokers_words_and_the_ticket_stays(house, page):
    house.desk.state, house.desk.reason = SubmissionState.REFUSED, "Insufficient funds."
    fill(page)
    page.locator("#ticket-send").click()

    expect(page.locator("#ticket-problem")).to_contain_text("Insufficient funds.")
    expect(page.locator("#ticket")).to_be_visible()


def test_an_order_in_doubt_is_said_to_be_in_doubt(house, page):
    house.desk.state = SubmissionState.UNKNOWN
    fill(page)
    page.locator("#ticket-send").click()

    expect(page.locator("#toasts")).to_contain_text("In doubt: Buy 10 INFY")
    expect(row(page, "OW00000000000001")).to_contain_text("checking")


def test_an_order_that_fills_before_the_answer_comes_is_said_to_be_filled(house, page):
    done = {"status": OrderStatus.FILLED, "filled_quantity": 10, "average_price": Decimal(1499)}
    house.desk.then = lambda view: (house.publish(replace(view, **done)), settle(house))
    fill(page)
    page.locator("#ticket-send").click()

    expect(page.locator("#toasts")).to_contain_text("Filled: Buy 10 INFY")
    expect(page.locator("#toasts")).to_contain_text("Average price 1,499.00")
    expect(page.locator("#toasts")).not_to_contain_text("Sent")


def test_orders_of_programs_move_rows_and_nothing_else(house, page):
    (first,) = house.publish(order(submission="OW1"))
    expect(row(page, "r1")).to_contain_text("Open")

    house.publish(replace(first.order, status=OrderStatus.FILLED, filled_quantity=10))

    expect(row(page, "r1")).to_contain_text("Filled")
    expect(page.locator(".toast-card")).to_have_count(0)


def test_trying_again_after_a_lost_answer_is_the_same_order(house, page):
    fill(page)
    page.route("**/ui/orders", lambda route: route.abort())
    page.locator("#ticket-send").click()
    expect(page.locator("#ticket-problem")).to_contain_text("never placed twice")
    keys = []
    page.unroute("**/ui/orders")
    page.on(
        "request",
        lambda asked: (
            keys.append(asked.headers.get("idempotency-key")) if "/ui/orders" in asked.url else None
        ),
    )
    page.locator("#ticket-send").click()
    expect(page.locator("#ticket")).to_be_hidden()
    fill(page)
    page.locator("#ticket-send").click()
    expect(page.locator("#ticket")).to_be_hidden()

    assert len(set(keys)) == 2
    assert house.desk.placed[0][2] == keys[0]


def test_an_order_is_modified_with_its_terms_filled_in(house, page):
    house.publish(order(price=Decimal("1500.50"), filled_quantity=2, status=OrderStatus.PARTIALLY_FILLED))
    row(page, "r1").get_by_role("button", name="Modify").click()

    expect(page.locator("#t-price")).to_have_value("1500.5")
    expect(page.locator("#p-quantity")).to_contain_text("2 filled already")
    page.locator("#t-price").fill("1501")
    page.keyboard.press("Enter")

    expect(page.locator("#ticket")).to_be_hidden()
    assert [(terms.price, terms.quantity) for _, terms in house.desk.modified] == [(1501, 10)]


def test_a_cancellation_asks_first(house, page):
    (change,) = house.publish(order())
    row(page, "r1").get_by_role("button", name="Cancel").click()
    expect(page.locator("#ask")).to_contain_text("Buy 10 INFY at 1,500.50")
    page.get_by_role("button", name="Keep it").click()
    assert house.desk.cancelled == []

    row(page, "r1").focus()
    page.keyboard.press("x")
    page.keyboard.press("Enter")

    expect(page.locator("#toasts")).to_contain_text("Cancellation sent")
    assert house.desk.cancelled == [("acc", change.order.order_id)]


def test_an_order_that_has_ended_cannot_be_touched_and_says_why(house, page):
    house.publish(order(status=OrderStatus.FILLED, filled_quantity=10))
    row(page, "r1").focus()
    page.keyboard.press("x")

    expect(page.locator("#toasts")).to_contain_text("This order is filled.")


def test_changes_are_said_to_people_who_listen(house, page):
    (first,) = house.publish(order())
    expect(page.locator("#shown")).to_have_text(
        "1 order"
    )  # by the stream or by the snapshot, which is not said

    house.publish(
        replace(first.order, status=OrderStatus.FILLED, filled_quantity=10, average_price=Decimal(1500))
    )

    expect(page.locator("#said")).to_contain_text("Buy 10 INFY: filled at 1,500.00")


# --- what it is like --------------------------------------------------------------------------------------


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [None, PHONE], ids=["desk", "phone"])
def test_no_page_puts_anyone_off(house, page, theme, size):
    page.emulate_media(color_scheme=theme, reduced_motion="reduce")
    if size:
        page.set_viewport_size(size)
    house.publish(*(order(number=n, status=status) for n, status in enumerate(OrderStatus)))
    show(house, Freshness.DEGRADED, detail="The stream is down.")
    expect(page.locator("#shown")).to_have_text("9 orders")

    assert violations(page) == []
    page.locator("#new-order").click()
    assert violations(page) == []
    page.keyboard.press("Escape")
    for path in ("/accounts", "/accounts/new", "/accounts/new?broker=wired", "/nowhere"):
        page.goto(house.url + path)
        assert violations(page) == []


def violations(page):
    page.wait_for_timeout(250)  # colours fade in; their contrast counts when they have arrived
    found = Axe().run(page).response["violations"]
    return [(one["id"], [node["html"][:160] for node in one["nodes"][:3]]) for one in found]


def test_a_phone_never_scrolls_sideways(house, page):
    page.set_viewport_size(PHONE)
    house.publish(*(order(number=n, symbol="NIFTY29DEC2624400CE") for n in range(5)))
    expect(page.locator("#shown")).to_have_text("5 orders")

    for path in ("/", "/accounts", "/accounts/new?broker=wired"):
        page.goto(house.url + path)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_reduced_motion_is_respected(house, page):
    page.emulate_media(reduced_motion="reduce")
    (first,) = house.publish(order())
    expect(row(page, "r1")).to_be_visible()
    house.publish(replace(first.order, filled_quantity=1))
    expect(row(page, "r1")).to_contain_text("1 / 10")

    assert row(page, "r1").evaluate("(element) => getComputedStyle(element).animationName") == "none"


def test_the_theme_is_remembered(house, page):
    page.emulate_media(color_scheme="light")
    page.locator("#theme").click()
    page.locator("#theme").click()
    page.reload()

    assert page.evaluate("document.documentElement.dataset.theme") == "orderwire-dark"
    assert page.locator("#theme").get_attribute("aria-label") == "Theme: dark"


def test_rows_are_walked_with_the_arrow_keys(house, page):
    house.publish(*(order(number=n) for n in range(200)))
    expect(page.locator("#shown")).to_have_text("200 orders")

    page.locator("#grid-orders .grid-row[tabindex='0']").focus()
    page.keyboard.press("End")

    expect(page.locator("#grid-orders .grid-row:focus")).to_have_attribute("aria-rowindex", "201")
    page.keyboard.press("Home")
    expect(page.locator("#grid-orders .grid-row:focus")).to_have_attribute("aria-rowindex", "2")


def test_ten_thousand_orders_stay_smooth_at_a_thousand_updates_a_second(house, page, record_property):
    orders = [order(number=n) for n in range(10_000)]
    for one in orders:
        house.log.change(one)
    page.reload()
    expect(page.locator("#shown")).to_have_text("10000 orders")
    assert page.locator("#grid-orders .grid-row").count() < 80
    page.evaluate(
        """() => {
          window.long = [];
          new PerformanceObserver((list) => window.long.push(...list.getEntries().map((one) => one.duration)))
            .observe({type: "longtask"});
        }"""
    )
    storm = Storm(house, orders)
    storm.start()
    page.locator("#filter").fill("infy 261124000000123")  # the page is used while it storms
    expect(page.locator("#shown")).to_have_text("1 of 10000 orders")
    page.locator("#filter").fill("")
    expect(page.locator("#shown")).to_have_text("10000 orders")
    page.get_by_role("columnheader", name="Filled").get_by_role("button").click()
    expect(page.get_by_role("columnheader", name="Filled")).to_have_attribute("aria-sort", "ascending")
    storm.join(60)

    (client,) = house.web.realtime.audience
    waited(lambda: client.outbox.outstanding == 0 and len(client.outbox) == 0)
    long = page.evaluate("window.long")
    painted = house.web.paints.snapshot().get(RECEIVED)
    record_property(
        "figure",
        f"a browser with 10,000 orders at {storm.rate:,.0f} updates/s for {storm.seconds:.0f} s: {len(long)} long tasks"
        f" (> 50 ms), the longest {max(long, default=0):.0f} ms, {sum(long) / storm.seconds / 10:.1f} % of the time;"
        f" received → painted p50 {painted.p50 / 1e6:.0f} ms, p99 {painted.p99 / 1e6:.0f} ms",
    )
    assert storm.sent == storm.count
    assert page.locator("#grid-orders .grid-row").count() < 80


class Storm(threading.Thread):
    """Changes of random orders, 1,000 a second by the clock: what is late is made up for."""

    def __init__(self, house, orders, *, count=5000, per_second=1000):
        super().__init__(daemon=True)
        self.house, self.orders, self.count, self.per_second = house, orders, count, per_second
        self.sent = 0
        self.seconds = 0.0

    @property
    def rate(self):
        return self.sent / self.seconds

    def run(self):
        begun = time.monotonic()
        while self.sent < self.count:
            due = min(self.count, int((time.monotonic() - begun) * self.per_second) + 1)
            changed = (
                replace(self.orders[number * 7919 % 10_000], filled_quantity=1 + number % 9)
                for number in range(self.sent, due)
            )
            self.house.publish(*changed)
            self.sent = due
            threading.Event().wait(0.005)
        self.seconds = time.monotonic() - begun


def waited(done):
    ending = time.monotonic() + 20
    while not done():
        assert time.monotonic() < ending
        threading.Event().wait(0.02)
