from __future__ import annotations

from brokersim.written import Written


def test_a_row_is_written_once_for_each_thing_and_way():
    written, made = Written(), []

    def write():
        made.append(1)
        return {"n": len(made)}

    first, equal = [1], [1]
    assert written.row(first, write) == {"n": 1}
    assert written.row(first, write) == {"n": 1}
    assert written.row(equal, write) == {"n": 2}
    assert written.row(first, write, how="old") == {"n": 3}
    assert len(made) == 3
