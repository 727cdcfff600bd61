"""What the tests run as processes ends with the tests, even where nobody could end it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from house import eventually

TESTS_THAT_RUN_A_PROGRAM = """
import sys
from pathlib import Path
from house import run_python
program = run_python("-c", "import signal; signal.pause()", log=Path(sys.argv[1]))
print(program.pid, flush=True)
sys.stdin.read()
"""


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux ends it")
def test_a_program_ends_with_tests_that_are_killed(tmp_path):
    tests = subprocess.Popen(
        [sys.executable, "-c", TESTS_THAT_RUN_A_PROGRAM, str(tmp_path / "log")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
    )
    with tests:
        pid = int(tests.stdout.readline())
        alive = is_alive(pid)
        tests.kill()

    assert alive
    eventually(lambda: not is_alive(pid), what="the program's end")
