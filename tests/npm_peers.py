"""Test peers that only npm has: installed into .cache/ once for each state of their lock file."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

CACHE = Path(__file__).resolve().parent.parent / ".cache"


def installed(here: Path, *, name: str) -> Path:
    """Return the node_modules that the package.json in `here` asks for; skips where npm's registry is away."""
    state = hashlib.sha256((here / "package-lock.json").read_bytes()).hexdigest()[:16]
    home = CACHE / f"{name}-{state}"
    if not home.exists():
        _install(here, home, name)
    return home / "node_modules"


def _install(here: Path, home: Path, name: str) -> None:
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        for file in ("package.json", "package-lock.json"):
            shutil.copy(here / file, folder)
        npm = shutil.which("npm") or "npm"
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=150, check=False)
        if done.returncode:
            pytest.skip(f"needs npm's registry to install {name}: {done.stderr[-300:]}")
        if not home.exists():
            Path(folder).rename(home)
            Path(folder).mkdir()
