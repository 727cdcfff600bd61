"""Photographs every page, light, dark and on a phone, from the running demo. Needs Chromium.

`python docs/screenshots.py` writes docs/images; `python docs/screenshots.py order settings` only those pages.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Error, Page, expect, sync_playwright

IMAGES = Path(__file__).resolve().parent / "images"
PORT, SIM_PORT = 15080, 18100
URL = f"http://127.0.0.1:{PORT}"
PASSWORD = "orderwire-demo"
ARGUMENTS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
]

CONTEXTS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light", "viewport": {"width": 1280, "height": 800}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1280, "height": 800}},
    "phone": {
        "color_scheme": "light",
        "viewport": {"width": 390, "height": 844},
        "device_scale_factor": 1.5,
        "is_mobile": True,
    },
}


@dataclass(frozen=True)
class Shot:
    """One page: who looks at it, where it is, and what has to be done before the picture."""

    name: str
    path: str
    user: str = "asha"
    prepare: Callable[[Page], None] | None = None
    whole: bool = True
    """The whole page, however long; otherwise what a window shows."""


def live(page: Page) -> None:
    """Wait until the order page is full and live."""
    expect(page.locator(".pill-word").first).to_have_text("Live", timeout=30_000)
    page.locator("#grid-orders .grid-row").nth(11).wait_for(timeout=90_000, state="attached")


def ticket(page: Page) -> None:
    """Fill a ticket."""
    live(page)
    page.locator("#new-order").click()
    page.get_by_role("combobox", name="Symbol").fill("INFY")
    page.locator("#t-found [role=option]").first.click()
    page.locator("#t-quantity").fill("25")
    page.locator("#t-price").fill("1480")


def story(page: Page) -> None:
    """Place an order, see it move, and open its page."""
    live(page)
    page.locator("#new-order").click()
    page.get_by_role("combobox", name="Symbol").fill("SBIN")
    page.locator("#t-found [role=option]").first.click()
    page.locator("#t-quantity").fill("40")
    page.get_by_role("radio", name="Market", exact=True).check()
    page.locator("#ticket-send").click()
    toast = page.locator(".toast-card", has_text="40 SBIN").first
    expect(toast).to_contain_text("Filled", timeout=30_000)
    page.locator("#grid-orders .grid-row", has_text="40 / 40").filter(has_text="SBIN").first.locator(
        "a.t-symbol"
    ).click()
    page.locator(".stages li", has_text="on the screen").first.wait_for()


def tab(name: str) -> Callable[[Page], None]:
    """Open one of the books."""

    def open_tab(page: Page) -> None:
        live(page)
        page.get_by_role("tab", name=name).click()

    return open_tab


SHOTS = (
    Shot("login", "/login", user=""),
    Shot("orders", "/", prepare=live, whole=False),
    Shot("trades", "/", prepare=tab("Trades"), whole=False),
    Shot("positions", "/", prepare=tab("Positions"), whole=False),
    Shot("ticket", "/", prepare=ticket, whole=False),
    Shot("order", "/", prepare=story),
    Shot("accounts", "/accounts"),
    Shot("account-new", "/accounts/new?broker=zerodha"),
    Shot("settings", "/settings"),
    Shot("people", "/people", user="maya"),
    Shot("audit", "/audit", user="maya"),
    Shot("operator", "/operator", user="ops"),
    Shot("operator-alerts", "/operator/alerts", user="ops"),
    Shot("operator-account", "/operator/accounts/zerodha-asha", user="ops", whole=False),
    Shot("rollout", "/rollout", user="ops"),
    Shot("error", "/nowhere"),
)


def main(wanted: list[str]) -> None:
    """Write the pictures to docs/images."""
    chromium = next(
        (path for name in ("chromium", "google-chrome", "chrome") if (path := shutil.which(name))), None
    )
    if chromium is None:
        sys.exit("screenshots need Chromium (Debian: apt-get install chromium)")
    IMAGES.mkdir(exist_ok=True)
    shots = [shot for shot in SHOTS if not wanted or shot.name in wanted]
    with running_demo(), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        for kind in CONTEXTS:
            photograph_all(browser, kind, shots)
        browser.close()


@contextmanager
def running_demo() -> Iterator[None]:
    """Run the demo on ports of its own until it has something to show."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "orderwire",
            "demo",
            "--port",
            str(PORT),
            "--sim-port",
            str(SIM_PORT),
        ]
        command += ["--data-dir", f"{folder}/demo", "--orders-per-minute", "120"]
        demo = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            yield
        finally:
            demo.send_signal(signal.SIGINT)
            demo.wait(10)


def photograph_all(browser: Browser, kind: str, shots: list[Shot]) -> None:
    """Log each user in once, and go through their pages."""
    for user in dict.fromkeys(shot.user for shot in shots):
        page = browser.new_context(**CONTEXTS[kind]).new_page()
        wait_for_the_demo(page)
        if user:
            log_in(page, user)
        for shot in shots:
            if shot.user == user:
                photograph(page, shot, IMAGES / f"{shot.name}-{kind}.png")
        page.context.close()


def photograph(page: Page, shot: Shot, path: Path) -> None:
    """Open a page, make it ready, take the picture."""
    page.goto(URL + shot.path)
    if shot.prepare is not None:
        shot.prepare(page)
    page.wait_for_load_state("load")
    page.wait_for_timeout(400)  # animations
    page.screenshot(path=path, full_page=shot.whole)
    print(path)


def wait_for_the_demo(page: Page) -> None:
    """Open the login page once the demo serves it."""
    for _ in range(300):
        with suppress(Error):  # refused: not yet
            page.goto(f"{URL}/login")
            return
        page.wait_for_timeout(100)
    sys.exit("the demo did not start")


def log_in(page: Page, user: str) -> None:
    """Log a user of the demo in."""
    page.get_by_label("User name").fill(user)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(f"{URL}/")


if __name__ == "__main__":
    main(sys.argv[1:])
