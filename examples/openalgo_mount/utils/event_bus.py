"""An in-process bus with topics: ten threads call back, and what is too much is dropped."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any

MOST_WAITING = 1_000

_log = logging.getLogger(__name__)


class EventBus:
    """`subscribe(topic, callback)`, `publish(event)`; an event names its topic."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(10, thread_name_prefix="bus")
        self._callbacks: defaultdict[str, list[Callable[[Any], None]]] = defaultdict(list)
        self._lock = Lock()
        self._waiting = 0
        self.dropped = 0

    def subscribe(self, topic: str, callback: Callable[[Any], None]) -> None:
        self._callbacks[topic].append(callback)

    def publish(self, event: Any) -> None:
        for callback in self._callbacks[event.topic]:
            with self._lock:
                if self._waiting >= MOST_WAITING:
                    self.dropped += 1
                    continue
                self._waiting += 1
            self._pool.submit(callback, event).add_done_callback(self._done)

    def _done(self, call: Future[None]) -> None:
        with self._lock:
            self._waiting -= 1
        if call.exception() is not None:
            _log.error("a subscriber failed", exc_info=call.exception())
