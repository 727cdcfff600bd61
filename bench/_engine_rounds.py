"""Measures one Python's engines against each other in alternated rounds; prints every round as JSON.

Run by bench/engine.py in an environment that holds vnpy, msgspec and structlog, with `src` on the path.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue

import structlog
from vnpy.event import Event as VnpyEvent
from vnpy.event import EventEngine as VnpyEngine

from orderwire import engine as engine_module
from orderwire.core.events import Event
from orderwire.engine import EventEngine

OURS, VNPY, RAW = "orderwire", "vn.py", "SimpleQueue"
ENGINES = {OURS: (EventEngine, Event), VNPY: (VnpyEngine, VnpyEvent)}
PATIENCE = 60.0
SWITCH = 0.0005

Round = dict[str, float]


class Count:
    """A handler that does as little as a handler can, and says when it has been called often enough."""

    def __init__(self, wanted: int) -> None:
        self.done = threading.Event()
        self._left = wanted

    def make(self) -> Callable[[object], None]:
        left, done = self._left, self.done

        def count(_event: object) -> None:
            nonlocal left
            left -= 1
            if not left:
                done.set()

        return count


@contextmanager
def started(name: str, *handlers: Callable[..., object], interval: float = 1) -> Iterator[object]:
    engine = ENGINES[name][0](interval)
    for handler in handlers:
        engine.register("x", handler)
    engine.start()
    try:
        yield engine
    finally:
        engine.stop()


def timed(producers: list[Callable[[], None]], done: threading.Event) -> float:
    threads = [threading.Thread(target=producer) for producer in producers]
    gc.collect()
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if not done.wait(PATIENCE):
        raise RuntimeError("events were lost")
    return time.perf_counter() - begun


def throughput(name: str, *, events: int, producers: int, handlers: int) -> float:
    """Return events per second from the first put to the last handler call."""
    count = Count(events)
    make = ENGINES[name][1]
    idle = [(lambda _event, _n=n: None) for n in range(handlers - 1)]
    data = [object() for _ in range(events // producers)]
    with started(name, *idle, count.make()) as engine:

        def produce() -> None:
            put = engine.put
            for item in data:
                put(make("x", item))

        return events / timed([produce] * producers, count.done)


def raw(*, events: int, stamped: bool) -> float:
    """Return events per second of a queue that does nothing else: make, (stamp,) put, get, call."""
    queue: SimpleQueue[Event] = SimpleQueue()
    count = Count(events)
    data = [object() for _ in range(events)]
    now = time.monotonic

    def consume() -> None:
        get, handler = queue.get, count.make()
        for _ in range(events):
            handler(get())

    def produce_stamped() -> None:
        put = queue.put
        for item in data:
            event = Event("x", item)
            event.queued = now()
            put(event)

    def produce() -> None:
        put = queue.put
        for item in data:
            put(Event("x", item))

    threading.Thread(target=consume, daemon=True).start()
    return events / timed([produce_stamped if stamped else produce], count.done)


def bare(*, events: int) -> float:
    """Return events per second of the queue alone: objects made before, nothing called."""
    queue: SimpleQueue[Event] = SimpleQueue()
    done = threading.Event()
    made = [Event("x", n) for n in range(events)]

    def consume() -> None:
        get = queue.get
        for _ in range(events):
            get()
        done.set()

    def produce() -> None:
        put = queue.put
        for event in made:
            put(event)

    threading.Thread(target=consume, daemon=True).start()
    return events / timed([produce], done)


def latencies(name: str, *, events: int, gap: float) -> list[float]:
    """Return the seconds from put to handler of events put every `gap` seconds."""
    clock = time.perf_counter
    seen: list[float] = []
    count = Count(events)
    counting = count.make()

    def handler(event: Event) -> None:
        seen.append(clock() - event.data)
        counting(event)

    make = ENGINES[name][1]
    with started(name, handler) as engine:
        deadline = clock()
        for _ in range(events):
            deadline += gap
            if (rest := deadline - clock()) > 0:
                time.sleep(rest)
            engine.put(make("x", clock()))
        count.done.wait(PATIENCE)
    return seen


@contextmanager
def busy_thread() -> Iterator[None]:
    stopping = False

    def spin() -> None:
        n = 0
        while not stopping:
            n += 1

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping = True
        thread.join()


@contextmanager
def switch_interval(seconds: float) -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(seconds)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def latency_under_load(name: str, *, events: int, gap: float, switch: float) -> float:
    with switch_interval(switch), busy_thread():
        return quantile(latencies(name, events=events, gap=gap), 0.99)


def bytes_per_event(name: str, *, events: int) -> float:
    engine_type, make = ENGINES[name]
    engine = engine_type(1)
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(events):
        engine.put(make("x", None))
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return used / events


def drift(name: str, *, ticks: int, interval: float, switch: float) -> float:
    """Return how many milliseconds the last of `ticks` comes late."""
    count = Count(ticks)
    counting = count.make()
    last = 0.0

    def tick(event: object) -> None:
        nonlocal last
        if not count.done.is_set():
            last = time.perf_counter()
        counting(event)

    engine = ENGINES[name][0](interval)
    engine.register("eTimer", tick)
    with switch_interval(switch), busy_thread():
        begun = time.perf_counter()
        engine.start()
        count.done.wait(PATIENCE)
        engine.stop()
    return (last - begun - ticks * interval) * 1e3


def raising(name: str) -> Round:
    """Return how many of 1,000 events still reached their handler, which raises on the tenth, and the dead letters."""
    called = 0
    finished = threading.Event()

    def handler(event: Event) -> None:
        nonlocal called
        called += 1
        if event.data == 10:
            raise ValueError
        if event.data == 1000:
            finished.set()

    make = ENGINES[name][1]
    with started(name, handler) as engine:
        for n in range(1, 1001):
            engine.put(make("x", n))
        finished.wait(1)
    return {"called": called, "dead": len(getattr(engine, "dead_letters", ()))}


def stopping(name: str, *, events: int = 3000) -> int:
    """Return how many of the events queued when `stop` was called were handled (100 µs each)."""
    handled = 0

    def handler(_event: object) -> None:
        nonlocal handled
        until = time.perf_counter() + 1e-4
        while time.perf_counter() < until:
            pass
        handled += 1

    make = ENGINES[name][1]
    with started(name, handler) as engine:
        for n in range(events):
            engine.put(make("x", n))
    return handled


def alternate(number: int, names: tuple[str, ...], measure: Callable[[str], float]) -> Round:
    """Measure each name once, beginning with another one each round."""
    order = names[number % len(names) :] + names[: number % len(names)]
    return {name: measure(name) for name in order}


def one_round(number: int, *, scale: float) -> dict[str, Round]:
    both = (OURS, VNPY)
    events = int(100_000 * scale)

    def single(name: str) -> float:
        if name == RAW:
            return raw(events=events, stamped=True)
        return throughput(name, events=events, producers=1, handlers=1)

    def many(name: str) -> float:
        return throughput(name, events=events // 4 * 4, producers=4, handlers=5)

    def switch_of(name: str) -> float:
        return SWITCH if name == OURS else 0.005

    thousand: dict[str, list[float]] = {}

    def at_1k(name: str) -> float:
        thousand[name] = latencies(name, events=int(1000 * scale), gap=1e-3)
        return quantile(thousand[name], 0.5)

    result = {
        "throughput": alternate(number, (*both, RAW), single),
        "fan": alternate(number, both, many),
        "p50_1k": alternate(number, both, at_1k),
        "p50_10k": alternate(
            number, both, lambda name: quantile(latencies(name, events=int(5000 * scale), gap=1e-4), 0.5)
        ),
        "p99_idle": alternate(
            number, both, lambda name: quantile(latencies(name, events=int(400 * scale), gap=3e-3), 0.99)
        ),
        "p99_busy": alternate(
            number,
            both,
            lambda name: latency_under_load(name, events=int(200 * scale), gap=5e-3, switch=switch_of(name)),
        ),
        "bytes": alternate(number, both, lambda name: bytes_per_event(name, events=int(50_000 * scale))),
        "info": {
            "unstamped": raw(events=events, stamped=False),
            "bare": bare(events=events),
            "fast_switch": fast_switch(events),
            "lock_bell": lock_bell(events),
            "lock_bell_p50": lock_bell_p50(int(1000 * scale)),
        },
        "cdf_" + OURS: dict(spread(thousand[OURS])),
        "cdf_" + VNPY: dict(spread(thousand[VNPY])),
    }
    if number < 3:
        result["drift"] = alternate(
            number, both, lambda name: drift(name, ticks=100, interval=0.05, switch=switch_of(name))
        )
        result["stop"] = alternate(number, both, stopping)
        result["raise"] = {f"{name} {key}": value for name in both for key, value in raising(name).items()}
    return result


def spread(values: list[float]) -> Iterator[tuple[str, float]]:
    for percent in range(1, 100):
        yield str(percent), quantile(values, percent / 100)


def fast_switch(events: int) -> float:
    with switch_interval(SWITCH):
        return throughput(OURS, events=events, producers=1, handlers=1)


@contextmanager
def without_eventfd() -> Iterator[None]:
    make = engine_module._make_bell  # noqa: SLF001 - the fallback is measured where it would not be used
    engine_module._make_bell = engine_module._LockBell  # noqa: SLF001 - same
    try:
        yield
    finally:
        engine_module._make_bell = make  # noqa: SLF001 - same


def lock_bell(events: int) -> float:
    with without_eventfd():
        return throughput(OURS, events=events, producers=1, handlers=1)


def lock_bell_p50(events: int) -> float:
    with without_eventfd():
        return quantile(latencies(OURS, events=events, gap=1e-3), 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--scale", type=float, default=1.0)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    threading.excepthook = lambda _arguments: None  # vn.py's dispatcher dies of the handler that raises
    one_round(0, scale=min(options.scale, 0.1))  # warm the interpreter, count nothing
    for number in range(options.rounds):
        print(json.dumps(one_round(number, scale=options.scale)), flush=True)


if __name__ == "__main__":
    main()
