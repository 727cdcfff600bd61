"""The host's own pages in a real browser: the book moves when an order moves, and says when it does not."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import expect

from house import Simulators
from openalgo_host import EXAMPLE, ExampleHost, eventually, zerodha_token

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.timeout(480)]

WATCH = """
() => {
  window.seen = [];
  const place = document.querySelector(".freshness");
  const why = () => [...document.querySelectorAll("[data-orderwire-detail]")].find((one) => !one.hidden);
  new MutationObserver(() => window.seen.push([place.textContent, place.title, why()?.textContent ?? ""]))
    .observe(place, {subtree: true, childList: true, characterData: true, attributes: true});
}
"""
"""Keeps what the page said, however short a time it said it."""

FRONTEND = EXAMPLE.parents[1] / "frontend"


def node() -> Path:
    spec = importlib.util.spec_from_file_location("build", FRONTEND / "build.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["build"] = module
    spec.loader.exec_module(module)
    return module.find_node().node


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    subprocess.run([node(), EXAMPLE / "build.mjs"], check=True, capture_output=True)
    folder = tmp_path_factory.mktemp("host")
    sims = Simulators(folder)
    host = ExampleHost(folder, sims)
    host.start()
    try:
        host.log_in_to_broker("zerodha", zerodha_token(sims))
        host.await_freshness("zerodha", "LIVE")
        yield host
    finally:
        host.stop()
        sims.stop()


@pytest.fixture
def page(host, browser_page):
    browser_page.goto(f"{host.url}/login")
    browser_page.get_by_label("User").fill("trader")
    browser_page.get_by_label("Password").fill("trader")
    browser_page.get_by_role("button", name="Log in").click()
    expect(browser_page.get_by_text("Logged in to zerodha.")).to_be_visible()
    return browser_page


def seen(page):
    return page.evaluate("window.seen")


@pytest.mark.parametrize("path", ["/orderbook", "/react"])
def test_the_book_moves_with_its_orders_and_says_when_it_is_not_live(host, page, path):
    page.goto(f"{host.url}{path}")
    fresh = page.locator(".freshness")
    expect(fresh).to_have_text("Live")

    order_id = host.place("zerodha-trader", order_type="LIMIT", price="1400")
    row = page.locator(f'tr[data-order="{order_id}"] .status')
    expect(row).to_have_text("open")
    host.sims.ask("POST", "/market/cancel", {"uid": f"kite:{order_id}"})
    expect(row).to_have_text("cancelled")

    page.evaluate(WATCH)
    host.kill_service()
    told = eventually(lambda: [said for words, *said in seen(page) if words == "Not live"], what="Not live")
    eventually(lambda: seen(page)[-1][0] == "Live", what="live again")
    assert all(title.startswith("orderwire is away: ") for title, _ in told)
    assert all(shown == title for title, shown in told)
