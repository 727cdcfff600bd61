"""Finds what tests need from outside PyPI, and makes every skip a failure where everything must be there."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")

ROOT = Path(__file__).resolve().parent.parent
JUDGED = os.environ.get("ORDERWIRE_GATES", "") == "1"
"""Times are judged only where nothing else runs; everywhere they are told."""
REQUIRE_ALL = os.environ.get("ORDERWIRE_TEST_REQUIRE", "") == "all"


def find_samples() -> Path | None:
    folder = os.environ.get("ORDERWIRE_SAMPLES", "")
    return Path(folder) if folder and Path(folder).is_dir() else None


def find_chromium() -> Path | None:
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    macos = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
    found = next((path for name in names if (path := shutil.which(name))), None)
    return Path(found) if found else macos if macos.exists() else None


def find_peers() -> Path | None:
    python = Path(os.environ.get("ORDERWIRE_PEERS", ROOT / ".venv-peers")) / "bin" / "python"
    return python if python.exists() else None


def find_vnpy() -> Path | None:
    python = Path(os.environ.get("ORDERWIRE_VNPY", ROOT / ".venv-vnpy")) / "bin" / "python"
    return python if python.exists() else None


def find_openalgo() -> Path | None:
    python = ROOT / ".venv-openalgo" / "bin" / "python"
    return python if python.exists() else None


def find_openalgo2() -> Path | None:
    python = ROOT / ".venv-openalgo2" / "bin" / "python"
    return python if python.exists() else None


def find_python312() -> Path | None:
    """A Python that OpenAlgo's SDK 2 runs on."""
    homes = sorted((Path.home() / ".pyenv" / "versions").glob("3.1[2-9]*/bin/python"))
    if sys.version_info >= (3, 12):
        return Path(sys.executable)
    found = [path for version in ("3.12", "3.13") if (path := shutil.which(f"python{version}"))]
    working = [
        p for p in found if subprocess.run([p, "-c", ""], capture_output=True, check=False).returncode == 0
    ]
    return next(iter([*map(Path, working), *homes]), None)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the long files; leave out what no Python of this machine can run: it is not skipped, it is not there."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)
    needs = [item for item in items if any("openalgo2" in mark.args for mark in item.iter_markers("needs"))]
    if needs and find_openalgo2() is None and find_python312() is None:
        config.hook.pytest_deselected(items=needs)
        items[:] = [item for item in items if item not in needs]


def find_program(name: str) -> Callable[[], Path | None]:
    def find() -> Path | None:
        found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
        return Path(found) if found else None

    return find


def find_atheris() -> Path | None:
    found = importlib.util.find_spec("atheris")
    return Path(found.origin) if found and found.origin else None


NEEDS: dict[str, tuple[Callable[[], Path | None], str]] = {
    "atheris": (find_atheris, "atheris (wheels for Linux on x86-64 alone)"),
    "chromium": (find_chromium, "Chromium (Debian: apt-get install chromium)"),
    "openalgo": (find_openalgo, "the environment of OpenAlgo's SDK (make sdk)"),
    "openalgo2": (find_openalgo2, "the environment of OpenAlgo's SDK 2 (make sdk)"),
    "nginx": (find_program("nginx"), "nginx (Debian: apt-get install nginx-light)"),
    "npm": (find_program("npm"), "Node.js with npm (>= 20)"),
    "peers": (find_peers, "the environment of the brokers' own client libraries (make peers)"),
    "alertmanager": (
        find_program("prometheus-alertmanager"),
        "Alertmanager (Debian: apt-get install prometheus-alertmanager)",
    ),
    "amtool": (find_program("amtool"), "amtool (Debian: apt-get install prometheus-alertmanager)"),
    "prometheus": (find_program("prometheus"), "Prometheus (Debian: apt-get install prometheus)"),
    "pgbouncer": (find_program("pgbouncer"), "PgBouncer (Debian: apt-get install pgbouncer)"),
    "systemd-analyze": (find_program("systemd-analyze"), "systemd-analyze (Debian: apt-get install systemd)"),
    "promtool": (find_program("promtool"), "promtool (Debian: apt-get install prometheus)"),
    "vnpy": (find_vnpy, "the environment of vn.py (make vnpy)"),
    "samples": (find_samples, "third-party samples: set ORDERWIRE_SAMPLES to their folder"),
}


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs"):
        for what in mark.args:
            find, how = NEEDS[what]
            if find() is None:
                pytest.skip(f"needs {how}")


@pytest.fixture
def gate(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Tell a time in seconds among the figures; with ORDERWIRE_GATES=1 it fails above `most`."""

    def judge(what: str, seconds: float, *, most: float) -> None:
        record_property("figure", f"{what}: {seconds:.2f} s (gate {most:g} s)")
        assert seconds <= most or not JUDGED

    return judge


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if REQUIRE_ALL and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, and ORDERWIRE_TEST_REQUIRE=all: {report.longrepr}"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what the tests measured: everything recorded with `record_property("figure", …)`."""
    figures = [
        value
        for report in terminalreporter.getreports("passed")
        for name, value in report.user_properties
        if name == "figure"
    ]
    if figures:
        terminalreporter.section("figures")
        for figure in sorted(figures):
            terminalreporter.write_line(figure)


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of third-party payloads; use together with `needs("samples")`."""
    folder = find_samples()
    if folder is None:
        pytest.skip("needs third-party samples: set ORDERWIRE_SAMPLES to their folder")
    return folder


@pytest.fixture(scope="session")
def chromium() -> Path:
    """Path of a Chromium; use together with `needs("chromium")`."""
    path = find_chromium()
    if path is None:
        pytest.skip("needs Chromium (Debian: apt-get install chromium)")
    return path


@pytest.fixture(scope="session")
def peers() -> Path:
    """The Python of the environment that holds the brokers' own client libraries."""
    path = find_peers()
    if path is None:
        pytest.skip("needs the environment of the brokers' own client libraries (make peers)")
    return path


@pytest.fixture(scope="session")
def vnpy() -> Path:
    """The Python of the environment that holds vn.py; use together with `needs("vnpy")`."""
    path = find_vnpy()
    if path is None:
        pytest.skip("needs the environment of vn.py (make vnpy)")
    return path
