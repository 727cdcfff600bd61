"""gunicorn's worker of threads, without what goes wrong in it (27.0)."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from gunicorn.util import close_graceful
from gunicorn.workers.gthread import TConn, ThreadWorker


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn ships no types
    """Ends each connection on the thread that served it, and counts it once.

    gunicorn ends them on the thread that takes new ones, and waits there up to two seconds for the client to close: who
    asks for the end and does not close holds everybody up. And it counts twice a connection that was closed meanwhile, as
    every WebSocket's is: below zero it takes any number of them, and waits for no request when it stops.
    """

    def handle(self, conn: TConn) -> Any:
        """Serve a request; returns whether the connection goes on. A thread of the pool."""
        goes_on = super().handle(conn)
        if not goes_on:
            close_graceful(conn.sock)
        return goes_on

    def finish_request(self, conn: TConn, fs: Future[Any]) -> None:
        """Do what is left to do after a request. The thread that takes new connections."""
        if not fs.cancelled() and fs.exception() is None and fs.result():
            super().finish_request(conn, fs)
        else:
            self.nr_conns -= 1
            conn.close()
