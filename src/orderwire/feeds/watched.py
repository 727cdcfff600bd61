"""Drives an adapter's coroutine and measures each step, so that one that blocks the loop is known by name."""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")

BLOCKED = 1.0
"""Seconds of one step between two awaits, after which the whole loop was held up."""


@types.coroutine
def watched(
    work: Coroutine[Any, Any, T], *, time: Callable[[], float], told: Callable[[float], None]
) -> Generator[Any, Any, T]:
    """Await `work`; `told` hears of each step that took longer than `BLOCKED`, in seconds of `time`.

    Nothing else changes: values, exceptions and cancellation pass through in both directions.
    """
    error: BaseException | None = None
    try:
        while True:
            began = time()
            try:
                waits = work.send(None) if error is None else work.throw(error)
            except StopIteration as end:
                value: T = end.value
                return value
            finally:
                held = time() - began
                if held >= BLOCKED:
                    told(held)
            try:
                yield waits
                error = None
            except BaseException as raised:  # noqa: BLE001 - handed to the coroutine, which may catch or raise it
                error = raised
    finally:
        work.close()
