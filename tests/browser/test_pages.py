"""Every page in a real browser: nobody is put off, nothing is asked of others, forms answer in place."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from orderwire.core.events import Event, EventType
from orderwire.core.orders import Channel
from orderwire.store.book import OrderBook
from orderwire.store.users import Role
from store.making import update
from web.house import PASSWORD, a_server, settle

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.timeout(120)]

PHONE = {"width": 390, "height": 844}

ORDER = "/orders/acc/260817000000001"

PAGES = ("/accounts", "/accounts/new", "/accounts/new?broker=wired", ORDER, "/nowhere")
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
        yield built


def say(house, word, **given):
    """Let the broker say something about the order of the order's page."""
    house.services.engine.put(Event(EventType.ORDER_UPDATE, update(word, account="acc", **given)))
    settle(house)


@pytest.fixture
def page(house, browser_page):
    browser_page.set_default_timeout(8000)
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
