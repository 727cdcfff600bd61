"""Has four threads at once meet types that no thread has met, 300 times: `python decoding_crowd.py decode`."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from orderwire.decoding import convert, decode

TIMES, THREADS, DEPTH, FIELDS = 300, 4, 20, 15
GIVEN = {"f1": 1, "inner": {"f2": "a", "inner": {"f3": None}}}
READERS: dict[str, Callable[[Any], Any]] = {
    "decode": lambda kind: decode(msgspec.json.encode(GIVEN), kind),
    "convert": lambda kind: convert(GIVEN, kind),
    "msgspec.convert": lambda kind: msgspec.convert(GIVEN, kind),
}


def new_type(number: int) -> type[msgspec.Struct]:
    """Make a type that holds a type that holds a type …, none of them met before."""
    made: type[msgspec.Struct] | None = None
    for depth in range(DEPTH):
        fields: list[Any] = [(f"f{each}", int | str | None, None) for each in range(FIELDS)]
        if made is not None:
            fields.append(("inner", made | None, None))
        made = msgspec.defstruct(f"Type{number}In{depth}", fields)
    assert made is not None
    return made


def main() -> None:
    read = READERS[sys.argv[1]]
    sys.setswitchinterval(1e-6)
    together = threading.Barrier(THREADS)
    with ThreadPoolExecutor(THREADS) as pool:
        for number in range(TIMES):
            kind = new_type(number)

            def meet(_thread: int, kind: type[msgspec.Struct] = kind) -> Any:
                together.wait(30)
                return read(kind)

            for value in pool.map(meet, range(THREADS)):
                assert (value.f1, value.inner.f2, value.inner.inner.f3) == (1, "a", None)
    print("all read")


if __name__ == "__main__":
    main()
