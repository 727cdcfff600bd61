"""A web server as orderwire runs it, around a small application: `python line_server.py threads|greenlets PORT`."""

from __future__ import annotations

import sys

if sys.argv[1] == "greenlets":
    from gevent import monkey

    monkey.patch_all()

from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from engineio.async_drivers import gevent as greenlets
from engineio.async_drivers import threading as threads
from gunicorn.app.base import BaseApplication
from gunicorn.workers.ggevent import GeventWorker

from orderwire.threadworker import Worker
from orderwire.web.lines import browsers_line

MOST_BYTES = 65_536
WORKERS: dict[str, Any] = {"threads": Worker, "greenlets": GeventWorker}
DRIVERS = {"threads": threads, "greenlets": greenlets}


class Counting(WORKERS[sys.argv[1]]):  # type: ignore[misc]
    """Tells how many connections it believes to have."""

    here: Any = None

    def init_process(self) -> None:
        Counting.here = self
        super().init_process()


def converse(line: Any) -> list[bytes]:
    """Send as many bytes as asked for, until nothing is asked any more."""
    while (asked := line.wait()) is not None:
        line.send("x" * int(asked))
    line.close()
    return []


LINE = browsers_line(DRIVERS[sys.argv[1]]._async["websocket"], most_bytes=MOST_BYTES)


def application(environ: Any, start_response: Any) -> Any:
    if environ["PATH_INFO"] == "/line":
        return LINE(converse, None)(environ, start_response)
    asked = parse_qs(environ["QUERY_STRING"])
    if "begun" in asked:  # a request that takes until the test lets it go on
        Path(asked["begun"][0]).touch()
        while not Path(asked["until"][0]).exists():
            DRIVERS[sys.argv[1]]._async["sleep"](0.01)
    body = str(getattr(Counting.here, "nr_conns", 0)).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


class Application(BaseApplication):  # type: ignore[misc]
    def load_config(self) -> None:
        settings = {
            "bind": f"127.0.0.1:{sys.argv[2]}",
            "threads": 8,
            "worker_class": Counting,
            "graceful_timeout": 20,
            "loglevel": "warning",
            "control_socket_disable": True,
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        return application


if __name__ == "__main__":
    Application().run()
