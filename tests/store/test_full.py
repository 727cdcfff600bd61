"""A disk that is really full. Where nobody may mount one, `test_book.py` has files that may not grow."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from store import full

TESTS = Path(__file__).resolve().parent.parent
MOUNT = 'mount -t tmpfs -o size=2m tmpfs "$1"'


def in_a_small_file_system(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    words = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        f'{MOUNT} && shift && exec "$@"',
        "sh",
    ]
    return subprocess.run(
        [*words, str(folder), *command],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def permitted(folder: Path) -> bool:
    try:
        return in_a_small_file_system(folder, "true").returncode == 0
    except FileNotFoundError:
        return False


def test_what_comes_while_the_disk_is_full_is_committed_once_there_is_room(tmp_path, record_property):
    if not permitted(tmp_path):
        record_property("figure", "full disk: not tried, no file system may be mounted here")
        return

    done = in_a_small_file_system(tmp_path, sys.executable, full.__file__, str(tmp_path))

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"kept {full.ORDERS}"
