"""The operator's page in a real browser: charts are drawn, parts stay fresh, it fits a phone."""

from __future__ import annotations

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from monitoring.watched import feed
from orderwire.core.recovery import Freshness
from web.house import PASSWORD, a_server
from web.watching import watch

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.timeout(120)]

PHONE = {"width": 390, "height": 844}
PAGES = ("/operator", "/operator?span=6h", "/operator/alerts", "/operator/accounts/acc")


@pytest.fixture
def house(tmp_path):
    with a_server(tmp_path, assets=None) as built:
        built.user("asha")
        built.account("acc", "asha", title="Wired")
        watch(built, tmp_path)
        for _ in range(20):
            built.station.watchdog.look()
        yield built


@pytest.fixture
def page(house, browser_page):
    browser_page.set_default_timeout(8000)
    browser_page.goto(f"{house.url}/login")
    browser_page.get_by_label("User name").fill("ops")
    browser_page.get_by_label("Password").fill(PASSWORD)
    browser_page.get_by_role("button", name="Log in").click()
    browser_page.wait_for_url(f"{house.url}/")
    return browser_page


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [None, PHONE], ids=["desk", "phone"])
def test_no_page_puts_anyone_off_or_scrolls_sideways(house, page, theme, size):
    house.free = 0
    house.station.watchdog.look()
    page.emulate_media(color_scheme=theme, reduced_motion="reduce")
    if size:
        page.set_viewport_size(size)
    for path in PAGES:
        page.goto(house.url + path)
        found = Axe().run(page).response["violations"]

        assert (path, [(one["id"], one["nodes"][0]["html"][:160]) for one in found]) == (path, [])
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path


def test_the_charts_are_drawn_and_say_their_last_values(house, page):
    page.goto(f"{house.url}/operator")

    for title in ("Waiting: queue", "Received to clients", "Latency by stage", "Rates", "Connections"):
        figure = page.locator("figure.chart", has_text=title)
        expect(figure.locator("canvas")).to_be_visible()
        expect(figure.locator(".chart-plot")).to_have_attribute("aria-label", re.compile("now"))


def test_the_page_follows_what_happens_without_a_reload(house, page):
    page.goto(f"{house.url}/operator")
    page.evaluate("window.same = true")
    house.free = 0
    house.feeds = [feed("acc", freshness=Freshness.STALE, detail="The broker does not answer.")]
    house.station.watchdog.look()

    expect(page.locator("#now")).to_contain_text("DiskNearlyFull")
    expect(page.locator("#now")).to_contain_text("The broker does not answer.")
    assert page.evaluate("window.same")


def test_one_click_leads_to_an_accounts_timeline_and_one_back(house, page):
    page.goto(f"{house.url}/operator")
    page.get_by_role("link", name="acc", exact=True).click()
    expect(page.get_by_role("heading", name="Timeline")).to_be_visible()
    page.locator("a.back").click()

    expect(page.get_by_role("heading", name="Operator")).to_be_visible()


def test_an_alert_is_silenced_by_a_click(house, page):
    page.goto(f"{house.url}/operator")
    page.get_by_label("Alert", exact=True).select_option("ErrorRate")
    page.get_by_label("Why").fill("a known fault")
    page.get_by_role("button", name="Silence").click()
    expect(page.get_by_text("ErrorRate is silent for 1 h.")).to_be_visible()
    house.station.watchdog.look()

    expect(page.locator("#now")).to_contain_text("a known fault")
