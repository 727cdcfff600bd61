"""Makes the environments in which vn.py is measured and run: its engine without its GUI, beside what ours imports.

`python bench/_vnpy_env.py` makes `.venv-vnpy` for this Python; tests/test_engine_vnpy.py runs there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
ENGINE = ("vnpy==4.5.0", "msgspec", "structlog")
MAIN_ENGINE = (
    "ta-lib",
    "numpy",
    "tzlocal",
    "loguru",
    "requests",
    "urllib3",
    "idna",
    "charset-normalizer",
    "certifi",
)


def folder_of(version: str) -> Path:
    """Return where the environment of Python `version` ("3.12") lives."""
    own = "{}.{}".format(*sys.version_info)
    return ROOT / (".venv-vnpy" if version == own else f".venv-vnpy-{version}")


def interpreter(version: str) -> Path | None:
    """Return a working Python of `version`, or None where there is none."""
    own = "{}.{}".format(*sys.version_info)
    if version == own:
        return Path(sys.executable)
    candidates = (shutil.which(f"python{version}"), *_found_by_pyenv(version), _found_by_uv(version))
    return next((Path(found) for found in candidates if found and _runs(found, version)), None)


def _found_by_pyenv(version: str) -> list[str]:
    """pyenv's `python3.12` on the path works only for versions it was told to make global."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    return [str(path) for path in sorted(root.glob(f"versions/{version}.*/bin/python"), reverse=True)]


def _found_by_uv(version: str) -> str:
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv is None:
        return ""
    command = [uv, "python", "find", "--no-python-downloads", "--quiet", version]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _runs(python: str, version: str) -> bool:
    said = subprocess.run([python, "--version"], capture_output=True, text=True, check=False)
    return said.returncode == 0 and said.stdout.startswith(f"Python {version}.")


def make(version: str, *packages: str) -> Path | None:
    """Return the Python of the environment for `version`, made if need be; None where that Python is not here."""
    python = folder_of(version) / "bin" / "python"
    base = interpreter(version)
    if base is None:
        return None
    if not python.exists():
        subprocess.run([base, "-m", "venv", python.parents[1]], check=True)
    names = [package.partition("==")[0].replace("-", "_") for package in packages]
    present = subprocess.run(
        [
            python,
            "-c",
            "import sys, importlib.metadata as m; [m.version(name) for name in sys.argv[1:]]",
            *names,
        ],
        capture_output=True,
        check=False,
    )
    if present.returncode:
        install = [
            sys.executable,
            "-m",
            "pip",
            "--python",
            python,
            "install",
            "--quiet",
            "--no-deps",
            *packages,
        ]
        subprocess.run([str(part) for part in install], check=True)
    return python


if __name__ == "__main__":
    print(make("{}.{}".format(*sys.version_info), *ENGINE, *MAIN_ENGINE))
