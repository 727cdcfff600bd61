"""The report of a demo run with real paints, as its readers open it: in light, in dark, on a phone, and on paper."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import expect

from house import eventually
from orderwire.demo import PASSWORD
from running_demo import RunningDemo

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
READERS = {
    "light": {"color_scheme": "light", "viewport": {"width": 1280, "height": 800}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1280, "height": 800}},
    "phone": {"color_scheme": "light", "viewport": {"width": 390, "height": 844}, "is_mobile": True},
}


def orders_painted(demo: RunningDemo) -> int:
    return sum(count for cut in demo.command("report.make")["cohorts"] for count in cut["waits"].values())


@pytest.fixture(scope="module")
def written(tmp_path_factory, browser):
    """The report's page and its PDF, written by the command after a demo whose orders a browser has painted."""
    folder = tmp_path_factory.mktemp("demo")
    demo = RunningDemo(folder, "--orders-per-minute", "60")
    try:
        demo.await_page()
        page = browser.new_page()
        page.goto(f"{demo.url}/login")
        page.get_by_label("User name").fill("asha")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        expect(page.locator(".pill-word")).to_have_text("Live")
        eventually(lambda: orders_painted(demo), within=180, what="a minute with painted orders")
        page.close()
    finally:
        demo.stop()
    for kind in ("html", "pdf"):
        command = [
            sys.executable,
            "-m",
            "orderwire",
            "report",
            f"--{kind}",
            "--out",
            str(folder / f"report.{kind}"),
        ]
        subprocess.run([*command, "--data-dir", str(folder / "demo-data")], check=True, timeout=300)
    return folder / "report.html", folder / "report.pdf"


@pytest.mark.parametrize("reader", READERS)
def test_it_is_whole_and_fits_its_reader(written, browser, reader):
    page = browser.new_context(**READERS[reader]).new_page()
    page.goto(written[0].as_uri())

    expect(page.locator(".verdict .word")).to_have_text("NOT ENOUGH DATA")
    expect(page.locator(".tile b").first).to_have_text(re.compile(r"^[\d,]+ ms$"))
    expect(page.locator(".plot")).to_have_count(3)
    assert page.locator(".plot .line.on").count() >= 1
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    room = page.viewport_size["width"]
    for cell in page.locator(".stacked td").all():
        box = cell.bounding_box()
        assert box["x"] + box["width"] <= room
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 24, 28)"
    assert dark is (reader == "dark")
    page.context.close()


def test_it_prints_on_a_few_pages(written):
    printed = written[1].read_bytes()

    assert printed.startswith(b"%PDF-")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", printed)) <= 8


def test_the_owners_page_styles_nothing_of_the_report_by_accident():
    """The report stands on the owner's page too, whose styles must not reach into it by a name that both use."""
    report = "".join(
        (ROOT / "src/orderwire/pilot" / name).read_text()
        for name in ("templates/report_body.html", "plots.py")
    )
    used = {name for names in re.findall(r'class="([^"{]+)', report) for name in names.split()}
    styles = (ROOT / "frontend/styles/app.css").read_text()
    plain = set(re.findall(r"^\s*\.([\w-]+)\s*[,{]", styles, re.MULTILINE))

    assert len(used) > 20
    assert used & plain == {"dim"}  # which means the same there
