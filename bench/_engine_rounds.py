"""Measures one Python's engines against each other in alternated rounds; prints every round as JSON.

Run by bench/engine.py in an environment that holds vnpy, msgspec and structlog, with `src` on the path.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import SimpleQueue
from statistics import median
from typing import Any, TypeVar

import structlog
from vnpy.event import Event as VnpyEvent
from vnpy.event import EventEngine as VnpyEngine

from orderwire import engine as engine_module
from orderwire.core.events import Event
from orderwire.engine import EventEngine

OURS, VNPY, RAW = "orderwire", "vn.py", "SimpleQueue"
ENGINES = {OURS: (EventEngine, Event), VNPY: (VnpyEngine, VnpyEvent)}
PATIENCE = 60.0
SPEED_TURNS = 3
WAIT_TURNS = 20
DISTURBED = 0.1
SWITCH = 0.0005

T = TypeVar("T")
Round = dict[str, float]


class Calm:
    """Repeats what other programs disturbed, as long as its patience lasts; then takes it as it is."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self.turns = self.disturbed = self.repeated = 0

    def __call__(self, measure: Callable[[], T]) -> T:
        while True:
            begun, busy, own = time.monotonic(), machine_seconds(), time.process_time()
            value = measure()
            elapsed = time.monotonic() - begun
            others = machine_seconds() - busy - (time.process_time() - own)
            disturbed = others > 0.02 + DISTURBED * elapsed * (os.cpu_count() or 1)
            if not disturbed or self._patience <= 0:
                self.turns += 1
                self.disturbed += disturbed
                return value
            self._patience -= elapsed
            self.repeated += 1


def machine_seconds() -> float:
    """Return the seconds all programs have computed; 0 where that is not told."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    except OSError:
        return 0.0
    user, nice, system, _idle, _waiting, irq, softirq, steal = map(int, fields)
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


class Count:
    """Counts calls down and says when the last wanted one has come."""

    def __init__(self, wanted: int) -> None:
        self.done = threading.Event()
        self._left = wanted

    def make(self) -> Callable[[object], None]:
        """Return the handler, which does as little as a handler can."""
        left, done = self._left, self.done

        def count(_event: object) -> None:
            nonlocal left
            left -= 1
            if not left:
                done.set()

        return count


@contextmanager
def started(name: str, *, interval: float = 1) -> Iterator[Any]:
    engine = ENGINES[name][0](interval)
    engine.start()
    try:
        yield engine
    finally:
        engine.stop()


@contextmanager
def handled(engine: Any, *handlers: Callable[..., object]) -> Iterator[None]:
    for handler in handlers:
        engine.register("x", handler)
    try:
        yield
    finally:
        for handler in handlers:
            engine.unregister("x", handler)


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


def throughput(name: str, engine: Any, *, events: int, producers: int = 1, handlers: int = 1) -> float:
    """Return events per second from the first put to the last handler call."""
    count = Count(events)
    make = ENGINES[name][1]
    idle = [(lambda _event, _n=n: None) for n in range(handlers - 1)]
    data = [object() for _ in range(events // producers)]

    def produce() -> None:
        put = engine.put
        for item in data:
            put(make("x", item))

    with handled(engine, *idle, count.make()):
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


def latencies(name: str, engine: Any, *, events: int, gap: float) -> list[float]:
    """Return the seconds from put to handler of events put `gap` seconds apart."""
    clock = time.perf_counter
    seen: list[float] = []
    count = Count(events)
    counting = count.make()

    def handler(event: Any) -> None:
        seen.append(clock() - event.data)
        counting(event)

    make, put = ENGINES[name][1], engine.put
    with handled(engine, handler):
        deadline = clock()
        for _ in range(events):
            deadline += gap
            if (rest := deadline - clock()) > 0:
                time.sleep(rest)
            put(make("x", clock()))
        count.done.wait(PATIENCE)
    return seen


def in_turns(
    engines: dict[str, Any], calm: Calm, *, events: int, gap: float, own_switch: bool = False
) -> dict[str, list[float]]:
    """Return the latencies of each engine, measured in many short turns, so that disturbances fall on both."""
    seen: dict[str, list[float]] = {name: [] for name in engines}
    some = max(events // WAIT_TURNS, 1)
    for turn in range(WAIT_TURNS):
        for name in turned(tuple(engines), turn):
            with switch_interval(switch_of(name) if own_switch else sys.getswitchinterval()):
                seen[name] += calm(lambda name=name: latencies(name, engines[name], events=some, gap=gap))
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


@contextmanager
def awake() -> Iterator[None]:
    """Keep the processors from halting where the system lets us, as cyclictest does.

    One that has halted takes some 10 µs to begin again, whoever waits on it: that is the machine's figure, more than
    the engines' own. It is measured beside.
    """
    try:
        promise = os.open("/dev/cpu_dma_latency", os.O_WRONLY)
    except OSError:
        yield
        return
    try:
        os.write(promise, (0).to_bytes(4, sys.byteorder))
        yield
    finally:
        os.close(promise)


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def switch_of(name: str) -> float:
    return SWITCH if name == OURS else 0.005


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

    def handler(event: Any) -> None:
        nonlocal called
        called += 1
        if event.data == 10:
            raise ValueError
        if event.data == 1000:
            finished.set()

    make = ENGINES[name][1]
    with started(name) as engine, handled(engine, handler):
        for n in range(1, 1001):
            engine.put(make("x", n))
        finished.wait(1)
    return {"called": called, "dead": len(getattr(engine, "dead_letters", ()))}


def stopping(name: str, *, events: int = 3000) -> int:
    """Return how many of the events queued when `stop` was called were handled (100 µs each)."""
    done = 0

    def handler(_event: object) -> None:
        nonlocal done
        until = time.perf_counter() + 1e-4
        while time.perf_counter() < until:
            pass
        done += 1

    make = ENGINES[name][1]
    engine = ENGINES[name][0](1)
    engine.register("x", handler)
    engine.start()
    for n in range(events):
        engine.put(make("x", n))
    engine.stop()
    return done


def turned(names: tuple[str, ...], number: int) -> tuple[str, ...]:
    """Return the names beginning with another one each round."""
    return names[number % len(names) :] + names[: number % len(names)]


def in_the_middle(names: tuple[str, ...], calm: Calm, measure: Callable[[str], float]) -> Round:
    """Measure each name in several turns and return the median of each."""
    found: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(SPEED_TURNS):
        for name in turned(names, turn):
            found[name].append(calm(lambda name=name: measure(name)))
    return {name: median(values) for name, values in found.items()}


def each(names: tuple[str, ...], measure: Callable[[str], float]) -> Round:
    return {name: measure(name) for name in names}


def at(share: float, seen: dict[str, list[float]]) -> Round:
    return {name: quantile(values, share) for name, values in seen.items()}


def one_round(number: int, calm: Calm, *, scale: float) -> dict[str, Round]:
    both = turned((OURS, VNPY), number)
    result = {
        "bytes": each(both, lambda name: bytes_per_event(name, events=int(50_000 * scale))),
        **speeds(number, both, calm, events=int(100_000 * scale)),
        **waits(both, calm, scale=scale),
    }
    if number < 3:
        result["drift"] = each(
            both, lambda name: calm(lambda: drift(name, ticks=100, interval=0.05, switch=switch_of(name)))
        )
        result["stop"] = each(both, stopping)
        result["raise"] = {f"{name} {key}": value for name in both for key, value in raising(name).items()}
    return result


def speeds(number: int, both: tuple[str, ...], calm: Calm, *, events: int) -> dict[str, Round]:
    with ExitStack() as stack:
        engines = {name: stack.enter_context(started(name)) for name in both}

        def single(name: str) -> float:
            return (
                raw(events=events, stamped=True)
                if name == RAW
                else throughput(name, engines[name], events=events)
            )

        def many(name: str) -> float:
            return throughput(name, engines[name], events=events // 4 * 4, producers=4, handlers=5)

        return {
            "throughput": in_the_middle(turned((*both, RAW), number), calm, single),
            "fan": in_the_middle(both, calm, many),
            "info": aside(engines[OURS], events=events),
        }


def waits(both: tuple[str, ...], calm: Calm, *, scale: float) -> dict[str, Round]:
    with ExitStack() as stack:
        engines = {name: stack.enter_context(started(name)) for name in both}
        halting = in_turns(engines, calm, events=int(500 * scale), gap=1e-3)
        idle = in_turns(engines, calm, events=int(1500 * scale), gap=2e-3)
        with awake():
            thousand = in_turns(engines, calm, events=int(1000 * scale), gap=1e-3)
            ten = in_turns(engines, calm, events=int(5000 * scale), gap=1e-4)
            with busy_thread():
                busy = in_turns(engines, calm, events=int(300 * scale), gap=5e-3, own_switch=True)
        return {
            "p50_halting": at(0.5, halting),
            "p50_1k": at(0.5, thousand),
            "p50_10k": at(0.5, ten),
            "p99_idle": at(0.99, idle),
            "p99_busy": at(0.99, busy),
            "cdf_" + OURS: dict(spread(thousand[OURS])),
            "cdf_" + VNPY: dict(spread(thousand[VNPY])),
        }


def spread(values: list[float]) -> Iterator[tuple[str, float]]:
    for percent in range(1, 100):
        yield str(percent), quantile(values, percent / 100)


def aside(engine: EventEngine, *, events: int) -> Round:
    """Return what has no gate: bare queues, the service's switch interval, and life without eventfd."""
    with switch_interval(SWITCH):
        fast = throughput(OURS, engine, events=events)
    with without_eventfd(), started(OURS) as other:
        slow = throughput(OURS, other, events=events)
        p50 = quantile(latencies(OURS, other, events=events // 200, gap=1e-3), 0.5)
    return {
        "unstamped": raw(events=events, stamped=False),
        "bare": bare(events=events),
        "fast_switch": fast,
        "lock_bell": slow,
        "lock_bell_p50": p50,
    }


@contextmanager
def without_eventfd() -> Iterator[None]:
    make = engine_module._make_bell  # noqa: SLF001 - the fallback is measured where it would not be used
    engine_module._make_bell = engine_module._LockBell  # noqa: SLF001 - same
    try:
        yield
    finally:
        engine_module._make_bell = make  # noqa: SLF001 - same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument(
        "--patience", type=float, default=300, help="seconds to spend on repeating disturbed turns"
    )
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    threading.excepthook = lambda _arguments: None  # vn.py's dispatcher dies of the handler that raises
    one_round(0, Calm(0), scale=min(options.scale, 0.1))  # warm the interpreter, count nothing
    calm = Calm(options.patience)
    for number in range(options.rounds):
        print(json.dumps(one_round(number, calm, scale=options.scale)), flush=True)
    print(json.dumps({"calm": {"turns": calm.turns, "disturbed": calm.disturbed, "repeated": calm.repeated}}))


if __name__ == "__main__":
    main()
