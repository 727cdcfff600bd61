"""A process with an engine forks and exits as if it had none: no hang, nothing delivered twice, nothing lost."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import time
import urllib.request
from pathlib import Path

import pytest

import orderwire

PATIENCE = 60
SOURCES = str(Path(orderwire.__file__).parents[1])
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


def environment():
    path = os.pathsep.join(filter(None, [SOURCES, os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def run(script):
    """Run a script to its end in a process of its own; return what it printed."""
    preamble = "import os, sys, threading\nfrom orderwire.core.events import Event\nfrom orderwire.engine import EventEngine\n"
    done = subprocess.run(
        [sys.executable, "-c", preamble + textwrap.dedent(script)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Fatal" not in done.stderr
    return done.stdout.split()


def test_an_engine_never_stopped_delivers_what_is_queued_when_the_interpreter_exits():
    printed = run("""
        engine, seen = EventEngine(0.001), []
        engine.register("a", lambda event: seen.append(event.data))
        engine.register("a", lambda event: event.data == 19_999 and print(len(seen)))
        engine.add_lane("slow", capacity=10)
        engine.register("b", lambda event: print("lane"), lane="slow")
        engine.start()
        for number in range(20_000):
            engine.put(Event("a", number))
        engine.put(Event("b"))
    """)

    assert sorted(printed) == ["20000", "lane"]


def test_a_handler_that_never_returns_does_not_keep_the_process():
    begun = time.monotonic()
    printed = run("""
        engine = EventEngine(0.001)
        engine.register("a", lambda event: threading.Event().wait())
        engine.add_lane("slow", capacity=1)
        engine.register("b", lambda event: threading.Event().wait(), lane="slow")
        engine.start()
        for _ in range(10):
            engine.put(Event("b"))
        engine.put(Event("a"))
        print("end")
    """)

    assert printed == ["end"]
    assert time.monotonic() - begun < 30


def test_threads_that_put_while_the_interpreter_exits_do_no_harm():
    assert run("""
        engine = EventEngine(0.001)
        engine.register_general(lambda event: None)
        engine.start()
        def produce():
            while True:
                engine.put(Event("a"))
        for _ in range(3):
            threading.Thread(target=produce, daemon=True).start()
        print("end")
    """) == ["end"]


def test_stopped_and_never_started_engines_do_not_show_at_exit():
    assert run("""
        engines = [EventEngine() for _ in range(3)]
        engines[0].start()
        engines[0].stop()
        engines[1].put(Event("a"))
        print("end")
    """) == ["end"]


def test_an_exit_inside_a_handler_is_the_handler_s_problem():
    assert run("""
        engine = EventEngine()
        engine.register("a", lambda event: sys.exit(3))
        engine.put(Event("a"))
        engine.start()
        print(engine.stop(), len(engine.dead_letters))
    """)[-2:] == ["0", "1"]


@needs_fork
def test_a_child_begins_stopped_and_empty_and_can_be_started_while_the_parent_goes_on():
    printed = run("""
        seen, gate, entered = [], threading.Event(), threading.Event()
        engine = EventEngine()
        engine.register("gate", lambda event: (entered.set(), gate.wait(10)))
        engine.register("a", lambda event: seen.append(event.data))
        engine.add_lane("slow", capacity=5)
        engine.register("a", lambda event: seen.append(f"lane-{event.data}"), lane="slow")
        engine.start()
        engine.put(Event("gate"))
        entered.wait(10)
        engine.put(Event("a", "parent"))
        child = os.fork()
        if not child:
            statistics = engine.statistics()
            assert (statistics.running, statistics.depth, statistics.delivered) == (False, 0, 0)
            engine.put(Event("a", "child"))
            assert engine.stop() == 1
            engine.start()
            left = engine.stop(10)
            print("child", left, *sorted(seen), flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        gate.set()
        print("parent", engine.stop(10), *sorted(seen))
    """)

    assert " ".join(printed) == "child 0 child lane-child parent 0 lane-parent parent"


@needs_fork
def test_forks_under_load_neither_hang_nor_wake_each_other():
    printed = run("""
        engine, seen = EventEngine(0.001), []
        engine.register("a", lambda event: seen.append(event.data))
        engine.add_lane("slow", capacity=2)
        engine.register("a", lambda event: None, lane="slow")
        engine.start()
        finished = threading.Event()
        def passing(event):
            pass
        def produce():
            number = 0
            while not finished.is_set():
                engine.put(Event("a", number))
                number += 1
                if number % 100 == 0:
                    engine.statistics()
                    engine.register_general(passing)
                    engine.unregister_general(passing)
                    finished.wait(0.001)
        producer = threading.Thread(target=produce)
        producer.start()
        codes = []
        for _ in range(30):
            child = os.fork()
            if not child:
                engine.register("b", lambda event: os._exit(7))
                engine.start()
                engine.put(Event("b"))
                threading.Event().wait(20)
                os._exit(1)
            codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        finished.set()
        producer.join()
        print(engine.stop(10), seen == list(range(len(seen))), set(codes))
    """)

    assert printed == ["0", "True", "{7}"]


@needs_fork
def test_a_child_does_not_take_its_parent_s_wake_ups():
    """Both sleep for the next event, with no timer to wake them: with one bell for both, one would hear the other's."""
    assert run("""
        engine, seen = EventEngine(3600), threading.Semaphore(0)
        engine.register("a", lambda event: seen.release())
        engine.start()
        ready, started = os.pipe()
        ended, over = os.pipe()
        child = os.fork()
        if not child:
            os.close(over)
            engine.start()
            engine.put(Event("a"))
            seen.acquire()
            os.write(started, b".")
            os.read(ended, 1)
            os._exit(0)
        os.read(ready, 1)
        heard = 0
        for _ in range(100):
            engine.put(Event("a"))
            if not seen.acquire(timeout=20):
                break
            heard += 1
        os.close(over)
        os.waitpid(child, 0)
        print(heard)
    """) == ["100"]


@needs_fork
def test_a_fork_inside_a_handler_delivers_nothing_twice():
    printed = run("""
        engine = EventEngine()
        def forking(event):
            if not os.fork():
                return
            os.wait()
        engine.register("fork", forking)
        engine.register("a", lambda event: print(event.data, flush=True))
        engine.put(Event("fork"))
        engine.put(Event("a", "once"))
        engine.start()
        engine.stop(10)
    """)

    assert printed == ["once"]


@needs_fork
def test_a_gunicorn_worker_starts_the_engine_its_master_had_running(tmp_path):
    (tmp_path / "application.py").write_text(
        textwrap.dedent("""
            import threading
            from orderwire.core.events import Event
            from orderwire.engine import EventEngine

            engine = EventEngine()
            engine.start()
            engine.put(Event("master"))

            def application(environ, start_response):
                delivered = threading.Event()
                engine.register("request", lambda event: delivered.set())
                engine.start()
                engine.put(Event("request"))
                ok = delivered.wait(20) and engine.stop(20) == 0
                start_response("200 OK" if ok else "500 Lost", [("Content-Type", "text/plain")])
                return [b"delivered"]
        """)
    )
    command = [sys.executable, "-m", "gunicorn", "--preload", "--workers", "1", "--threads", "2"]
    command += [
        "--no-control-socket",
        "--bind",
        "127.0.0.1:0",
        "--worker-class",
        "gthread",
        "application:application",
    ]
    server = subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True)
    try:
        address = next(
            found[0] for line in server.stderr if (found := re.findall(r"http://127\.0\.0\.1:\d+", line))
        )
        with urllib.request.urlopen(address, timeout=PATIENCE) as reply:
            assert (reply.status, reply.read()) == (200, b"delivered")
    finally:
        server.terminate()
        server.communicate(timeout=PATIENCE)
    assert server.returncode == 0
