from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orderwire.decoding import convert, decode

CROWD = Path(__file__).parent / "decoding_crowd.py"


def met_by_a_crowd(how):
    """How a process ends in which several threads at once meet types that none has met, hundreds of times."""
    return subprocess.run([sys.executable, str(CROWD), how], capture_output=True, timeout=110, check=False)


@pytest.mark.parametrize("how", ["decode", "convert"])
def test_types_that_several_threads_meet_at_once_are_read_rightly(how):
    done = met_by_a_crowd(how)

    assert (done.returncode, done.stdout.strip()) == (0, b"all read"), done.stderr[-2000:]


def test_without_it_the_process_ends_by_a_fault():
    """Once msgspec survives this, decoding.py can go."""
    assert met_by_a_crowd("msgspec.convert").returncode == -signal.SIGSEGV


def test_what_is_read_is_of_the_kind_asked_for():
    assert decode(b'{"a": [1, 2]}', dict[str, list[int]]) == {"a": [1, 2]}
    assert decode('"5"', str | list[str]) == "5"
    assert convert({"a": "5"}, dict[str, int], strict=False) == {"a": 5}
    with pytest.raises(ValueError, match="Expected `int`"):
        convert({"a": "5"}, dict[str, int])
