"""Makes the pictures of the README: runs the demo, places orders, and photographs the page. Needs Chromium."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

IMAGES = Path(__file__).resolve().parent / "images"
PORT, SIM_PORT = 15080, 18100
URL = f"http://127.0.0.1:{PORT}"
ARGUMENTS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
]

SHOTS = {
    "orders-light": {"color_scheme": "light", "viewport": {"width": 1280, "height": 720}},
    "orders-dark": {"color_scheme": "dark", "viewport": {"width": 1280, "height": 720}},
    "orders-phone": {
        "color_scheme": "light",
        "viewport": {"width": 390, "height": 844},
        "device_scale_factor": 2,
        "is_mobile": True,
    },
}


def main() -> None:
    """Write every picture to docs/images."""
    chromium = next(
        (path for name in ("chromium", "google-chrome", "chrome") if (path := shutil.which(name))), None
    )
    if chromium is None:
        sys.exit("screenshots need Chromium (Debian: apt-get install chromium)")
    IMAGES.mkdir(exist_ok=True)
    with running_demo(), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        for name, context in SHOTS.items():
            photograph(browser, name, context)
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


def photograph(browser: Browser, name: str, context: dict[str, object]) -> None:
    """Log in as a trader, wait until the page is full and live, take the picture."""
    page = browser.new_context(**context).new_page()
    log_in(page)
    expect(page.locator(".pill-word")).to_have_text("Live", timeout=30_000)
    page.locator("#grid-orders .grid-row").nth(11).wait_for(timeout=60_000, state="attached")
    page.screenshot(path=IMAGES / f"{name}.png")
    print(IMAGES / f"{name}.png")
    page.context.close()


def log_in(page: Page) -> None:
    """Open the page once the demo serves it."""
    for _ in range(200):
        try:
            page.goto(f"{URL}/login")
            break
        except Exception:  # noqa: BLE001 - Playwright's own error class for a refused connection is its base
            page.wait_for_timeout(100)
    page.get_by_label("User name").fill("asha")
    page.get_by_label("Password").fill("orderwire-demo")
    page.get_by_role("button", name="Log in").click()


if __name__ == "__main__":
    main()
