"""Every page in a real browser: nobody is put off, nothing is asked of others, forms answer in place."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from house import eventually
from orderwire.core.events import Event, EventType
from orderwire.core.orders import Channel
from orderwire.store.book import OrderBook
from orderwire.store.invitations import Invitations
from orderwire.store.users import Role
from store.making import update
from web.house import PASSWORD, a_server, settle

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.timeout(300)]

PHONE = {"width": 390, "height": 844}

ORDER = "/orders/acc/260817000000001"

PAGES = (
    "/accounts",
    "/accounts/new",
    "/accounts/new?broker=wired",
    ORDER,
    "/settings",
    "/people",
    "/rollout",
    "/audit",
    "/audit?text=nosuchdeed",
    "/setup",
    "/password/guess",
    "/nowhere",
)
"""Every page but the live ones of test_order_page.py; a new page adds its path here."""


@pytest.fixture
def house(tmp_path):
    with a_server(tmp_path, assets=None) as built:
        built.user("asha", Role.OWNER)
        built.account("acc", "asha", title="Wired")
        book = OrderBook(built.services.database, clock=built.services.clock)
        book.attach(built.services.engine)
        say(built, "open")
        say(built, "part", channel=Channel.REST)
        eventually(lambda: book.tallies().get("observations", 0) == 2, what="the commit")
        yield built


def say(house, word, **given):
    """Let the broker say something about the order of the order's page."""
    house.services.engine.put(Event(EventType.ORDER_UPDATE, update(word, account="acc", **given)))
    settle(house)


@pytest.fixture
def page(house, browser_page):
    browser_page.goto(f"{house.url}/login")
    log_in(browser_page)
    browser_page.wait_for_url(f"{house.url}/")
    return browser_page


def log_in(page):
    page.get_by_label("User name").fill("asha")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()


def violations(page):
    found = Axe().run(page).response["violations"]
    return [(one["id"], [node["html"][:160] for node in one["nodes"][:3]]) for one in found]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [None, PHONE], ids=["desk", "phone"])
def test_no_page_puts_anyone_off_or_scrolls_sideways(house, page, theme, size):
    page.emulate_media(color_scheme=theme, reduced_motion="reduce")
    if size:
        page.set_viewport_size(size)
    for path in PAGES:
        page.goto(house.url + path)

        assert (path, violations(page)) == (path, [])
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_ways_in_put_nobody_off(house, browser_page, theme):
    browser_page.emulate_media(color_scheme=theme, reduced_motion="reduce")
    link = Invitations(house.services.database, house.services.users).password("asha", by="test")
    for path in ("/login", f"/password/{link}", "/setup"):
        browser_page.goto(house.url + path)

        assert (path, violations(browser_page)) == (path, [])


def test_a_key_is_made_copied_down_and_revoked_without_leaving_the_page(house, page):
    page.goto(f"{house.url}/settings")
    page.evaluate("window.same = true")
    page.get_by_label("What it is for").fill("my algo")
    page.get_by_label("It may").select_option("trade")
    page.get_by_role("button", name="Make a key").click()

    plain = page.locator("#secret").inner_text()
    assert house.services.users.key(plain).label == "my algo"
    assert violations(page) == []
    page.locator("#keys").get_by_role("button", name="Revoke").click()
    page.get_by_role("button", name="Revoke it").click()
    expect(page.get_by_text("The key was revoked.")).to_be_visible()
    assert house.services.users.key(plain) is None
    assert page.evaluate("window.same")


def test_two_devices_of_one_user_end_each_other_at_will(house, page, browser):
    other = browser.new_context().new_page()
    other.goto(f"{house.url}/login")
    log_in(other)
    other.wait_for_url(f"{house.url}/")
    expect(other.locator(".pill-word")).to_have_text("Live")

    page.goto(f"{house.url}/settings")
    page.get_by_role("button", name="End", exact=True).click()
    expect(page.get_by_text("That session ended.")).to_be_visible()

    other.wait_for_url("**/login?next=**")
    other.context.close()


def test_two_tabs_of_one_user_both_move(house, page):
    second = page.context.new_page()
    for tab in (page, second):
        tab.goto(house.url + ORDER)
        expect(tab.locator(".status.is-big")).to_have_text("Partly filled")

    say(house, "filled")

    for tab in (page, second):
        expect(tab.locator(".status.is-big")).to_have_text("Filled")


def test_a_plot_is_drawn_follows_its_source_and_says_its_last_values(house, page):
    said = {"time": [1, 2, 3], "series": [{"label": "p50", "values": [4, None, 6]}], "unit": "ms"}
    figure = (
        '<main id="main"><h1>A plot</h1><figure class="chart" data-source="/plot" data-every="1"><figcaption>Latency</figcaption>'
        '<div class="chart-plot" role="img" aria-label="Latency"></div></figure></main>'
    )
    page.route("**/plot", lambda route: route.fulfill(json=said))
    script = next(name for name in house.web.assets.files.values() if name.startswith("charts-"))
    page.goto(f"{house.url}/accounts")
    page.evaluate("(html) => { document.querySelector('#main').outerHTML = html; }", figure)
    page.add_script_tag(url=f"/static/build/{script}")

    expect(page.locator(".chart-plot")).to_have_attribute("aria-label", "Latency: now p50 6 ms")
    expect(page.locator(".chart canvas")).to_have_count(1)
    said["series"][0]["values"][-1] = 9
    expect(page.locator(".chart-plot")).to_have_attribute("aria-label", "Latency: now p50 9 ms")
    page.locator("#theme").click()
    expect(page.locator(".chart canvas")).to_have_count(1)
    assert violations(page) == []


def test_a_form_that_is_wrong_is_answered_in_place_and_the_focus_goes_to_the_field(house, page):
    page.goto(f"{house.url}/accounts/new?broker=wired")
    page.evaluate("window.same = true")
    page.get_by_label("Short id").fill("acc")
    page.get_by_label("API key").fill("k")
    page.get_by_label("API secret").fill("s")
    page.get_by_role("button", name="Connect").click()

    expect(page.get_by_text("There is an account acc already.")).to_be_visible()
    expect(page.get_by_label("Short id")).to_be_focused()
    expect(page.get_by_label("API key")).to_have_value("k")
    assert page.evaluate("window.same")


def test_a_session_that_ended_under_a_form_leads_to_the_login_and_back_to_the_form(house, page):
    page.goto(f"{house.url}/accounts/new?broker=wired")
    house.services.users.set_role("asha", Role.OWNER)  # ends the sessions
    for label in ("Short id", "API key", "API secret"):
        page.get_by_label(label).fill("second")
    page.get_by_role("button", name="Connect").click()
    page.wait_for_url("**/login?next=**")
    log_in(page)

    page.wait_for_url("**/accounts/new?broker=wired")


def test_removing_asks_first_in_our_own_words(house, page):
    page.goto(f"{house.url}/accounts")
    page.get_by_role("button", name="Remove").click()
    expect(page.locator("#confirm")).to_contain_text("Orders at the broker are not touched.")
    page.get_by_role("button", name="Keep it").click()
    assert [account.id for account in house.services.accounts.all()] == ["acc"]

    page.get_by_role("button", name="Remove").click()
    page.get_by_role("button", name="Remove it").click()

    expect(page.get_by_text("No account yet")).to_be_visible()
    assert house.services.accounts.all() == []


def test_the_orders_page_moves_by_itself_and_says_when_it_cannot(house, page):
    page.goto(house.url + ORDER)
    expect(page.locator(".status.is-big")).to_have_text("Partly filled")

    say(house, "filled")
    expect(page.locator(".status.is-big")).to_have_text("Filled")

    page.context.set_offline(True)
    expect(page.locator("#away")).to_contain_text("Not connected to orderwire. What you see is as of")
    page.context.set_offline(False)
    expect(page.locator("#away")).to_be_hidden()
