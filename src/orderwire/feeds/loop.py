"""The one asyncio loop, in its one thread, on which all feeds live."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Final, TypeVar

import structlog

_log = structlog.get_logger(__name__)

T = TypeVar("T")

AGAIN_AFTER: Final = 1.0
"""Seconds after which what ended by an error begins again."""

_ENDED: Final = "ended by an error; it begins again"


def spawn(name: str, function: Callable[[], None]) -> threading.Thread:
    """Do something once in a thread of its own; a greenlet where gevent has patched threads."""
    thread = threading.Thread(target=function, name=name, daemon=True)
    thread.start()
    return thread


def spawn_loop(name: str, function: Callable[[], None]) -> threading.Thread:
    """Run a loop that waits by itself, in a thread as `spawn` makes it, until it returns.

    An error that ends it is logged, and a second later it begins again: what hangs on it is told of nothing else.
    """

    def kept() -> None:
        while True:
            try:
                function()
            except Exception:  # noqa: BLE001 - whatever it is, nobody else would ever hear of it
                _log.exception(_ENDED, task=name)
                time.sleep(AGAIN_AFTER)
            else:
                return

    return spawn(name, kept)


async def keep(name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine until it returns; after an error, as `spawn_loop` does it."""
    while True:
        try:
            await work()
        except Exception:  # noqa: BLE001 - see above
            _log.exception(_ENDED, task=name)
            await asyncio.sleep(AGAIN_AFTER)
        else:
            return


async def leave_with_parent() -> None:
    """Wait until whoever started this program lets go of its standard input, then end it as TERM does.

    The pipe ends however the parent ended, `kill -9` included; nothing is left behind on its machine.
    """
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def look() -> None:
        if not os.read(0, 4096):
            ended.set()

    loop.add_reader(0, look)
    await ended.wait()
    loop.remove_reader(0)
    os.kill(os.getppid(), signal.SIGTERM)


class FeedLoop:
    """An asyncio loop in the thread `feed-loop`. Start and stop from any other thread; restartable."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The running loop. Raises RuntimeError before `start` and after `stop`."""
        if self._loop is None:
            raise RuntimeError("the feed loop is not running")
        return self._loop

    @property
    def running(self) -> bool:
        """Whether coroutines are taken."""
        return self._loop is not None

    def start(self) -> None:
        """Start the thread and return once the loop takes coroutines. No effect when running."""
        if self._loop is not None:
            return
        ready = threading.Event()
        self._thread = threading.Thread(target=self._main, args=(ready,), name="feed-loop", daemon=True)
        self._thread.start()
        ready.wait()

    def stop(self, timeout: float = 3.0) -> bool:
        """Cancel every task, let each finish, end the thread; False when it took longer than `timeout` s."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return True
        self._loop = None
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout)
        return not thread.is_alive()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine on the loop; the result comes as a concurrent future. From any other thread."""
        loop = self._loop
        if loop is None:
            work.close()
            raise RuntimeError("the feed loop is not running")
        return asyncio.run_coroutine_threadsafe(work, loop)

    def keep(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run what is to run until `stop`, whatever goes wrong in it."""
        self.submit(keep(name, work))

    def _main(self, ready: threading.Event) -> None:
        with asyncio.Runner() as runner:
            self._loop = runner.get_loop()
            self._loop.call_soon(ready.set)
            self._loop.run_forever()
