"""The pages' own tests and types, where Node.js is at hand (it is, after `make pages`)."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FRONTEND = ROOT / "frontend"
BUILD = ROOT / "src" / "orderwire" / "web" / "static" / "build"


def builder():
    spec = importlib.util.spec_from_file_location("build", FRONTEND / "build.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["build"] = module
    spec.loader.exec_module(module)
    return module


def run(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, FRONTEND / "build.py", *options], capture_output=True, text=True, check=False
    )


def test_the_pages_type_check_and_pass_their_own_tests():
    done = run("--check", "--test")

    assert done.returncode == 0, done.stderr


def test_building_again_without_a_change_does_nothing():
    run()

    assert run().stdout == "The pages are up to date.\n"


def test_without_node_the_reason_is_one_clear_line(monkeypatch):
    build = builder()
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: None)

    with pytest.raises(build.BuildError, match=r"^Node\.js 20 or newer is missing\."):
        build.find_node()


def test_a_node_that_is_too_old_is_passed_over(monkeypatch, tmp_path):
    build = builder()
    old = tmp_path / "node"
    old.write_text("#!/bin/sh\necho v18.2.0\n")
    old.chmod(0o755)
    monkeypatch.setattr(build.shutil, "which", lambda name: str(old))
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: None)

    with pytest.raises(build.BuildError):
        build.find_node()


def test_an_incomplete_wheel_is_named(tmp_path):
    build = builder()

    with pytest.raises(build.BuildError, match="incomplete"):
        build.from_wheel(tmp_path)


def test_the_lock_file_holds_no_address_of_a_registry():
    lock = (FRONTEND / "package-lock.json").read_text()

    assert '"resolved"' not in lock
    assert '"integrity": "sha512-' in lock


def test_built_pages_ask_nothing_of_another_host():
    built = "".join(path.read_text() for path in BUILD.iterdir() if path.suffix in {".js", ".css"})
    hosts = set(re.findall(r"https?://[a-zA-Z0-9.-]+", built))

    assert hosts <= {"http://www.w3.org", "https://tailwindcss.com", "http://localhost", "https://socket.io"}
