"""The service as a process: what it listens on, and its life under gunicorn."""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import structlog

from orderwire import arrival
from orderwire.config import Settings
from orderwire.errors import ConfigurationError
from orderwire.service import Service, open_records
from orderwire.store.leases import FEEDS, SERVE, CrowdedError, Leases

_log = structlog.get_logger(__name__)

CONTROL_SOCKET = "control.sock"

HEAPS = 2
"""Of the C library. Left to itself it gives each of the fifty threads one of its own, up to eight for each processor, and
what a thread frees in one no other thread uses: memory rises for hours though nothing is held (docs/decisions/0001)."""

_M_ARENA_MAX = -8

DRAIN_WITHIN = 30
"""Seconds one of several workers may take to hand its accounts over before it is ended."""

GIVE_UP_WITHIN = 8
"""The same for the one process that has pages and all accounts of a shared database."""

END_WITHIN = 2
"""The same where there is nobody to hand anything over to."""


def control_socket(settings: Settings, worker: str = "") -> Path:
    """Return where the running service (or one of several workers) listens for commands: in the data folder."""
    return settings.data_dir / (f"{worker}.sock" if worker else CONTROL_SOCKET)


def open_listener(settings: Settings, *, port: int | None = None, option: str = "--port") -> socket.socket:
    """Bind the web port (or another) now, so that a taken one is one clear line. Raises ConfigurationError."""
    port = settings.port if port is None else port
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, port))
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"Cannot listen on {settings.host}:{port}: {error.strerror}. "
            f"Stop what uses it, or choose another with {option}."
        ) from error
    listener.listen(1024)
    listener.set_inheritable(True)
    return listener


def open_control_listener(settings: Settings, worker: str = "") -> socket.socket:
    """Bind the control socket, readable by its owner alone. Raises ConfigurationError."""
    path = control_socket(settings, worker)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        path.unlink(missing_ok=True)  # left over by a service that was killed: the database's lock is ours
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"Cannot make the control socket {path}: {error.strerror or error}. "
            "A Unix socket's path has at most about 100 characters; choose a shorter data folder."
        ) from error
    finally:
        os.umask(before)
    listener.listen(1024)
    listener.set_inheritable(True)
    return listener


def serve(settings: Settings, *, build: Callable[..., Service] = Service, worker: str = "") -> None:
    """Run the service that `build` makes under one gunicorn worker until it is told to stop (docs/decisions/0001).

    A `worker` of several has no pages: it listens on its control socket, and for probes where that is asked for.
    Raises ConfigurationError when others live on the database that it cannot live beside.
    """
    from gunicorn.app.base import BaseApplication  # noqa: PLC0415 - 0.2 s that no other command needs

    from orderwire.threadworker import Worker  # noqa: PLC0415 - see above

    _share_heaps()
    make, listeners, grace = _arrived(settings, build, worker)
    held: list[Service] = []
    main = os.getpid()

    def stop(_server: object, _worker: object) -> None:
        for service in held:
            service.stop()

    class Polite(Worker):
        """A worker that lets the browsers go before it waits for them."""

        def handle_exit(self, sig: int, frame: Any) -> None:
            for service in held:
                service.close_clients()
            super().handle_exit(sig, frame)

    class Application(BaseApplication):  # type: ignore[misc]  # gunicorn ships no types
        """The service as gunicorn runs it: built in the worker, because threads do not survive a fork."""

        def load_config(self) -> None:
            for name, value in _gunicorn_settings(settings, listeners, grace).items():
                self.cfg.set(name, value)
            self.cfg.set("worker_class", Polite)
            self.cfg.set("worker_exit", stop)

        def load(self) -> Any:
            service = make(settings)
            service.answer_for(main)
            held.append(service)
            _start(service)
            return service.app

    Application().run()


def _share_heaps() -> None:
    """Have all threads to come share the C library's heaps, where it is glibc; see mallopt(3)."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_ARENA_MAX, HEAPS)


def _arrived(
    settings: Settings, build: Callable[..., Service], worker: str
) -> tuple[Callable[..., Service], list[socket.socket], int]:
    """Enter a shared database, bind what is listened on; return how the service is made, that, and how long it may end."""
    records = open_records(settings)
    try:
        if records.database.dialect != "postgresql":
            return build, _listeners(settings, worker), END_WITHIN
        leases = Leases(records.database, worker or arrival.only_name())
        arrival.arrive(leases, role=FEEDS if worker else SERVE, version=version("orderwire"))
        try:
            listeners = _listeners(settings, worker)
        except ConfigurationError:
            leases.leave()
            raise
        made = partial(build, worker=leases.worker, alone=not worker)
        return made, listeners, DRAIN_WITHIN if worker else GIVE_UP_WITHIN
    finally:
        records.database.close()


def _start(service: Service) -> None:
    from gunicorn.arbiter import Arbiter  # noqa: PLC0415 - 0.2 s that no other command needs

    try:
        service.start()
    except CrowdedError as error:  # we took so long to come up that others came
        _log.error("not started", error=str(error))
        raise SystemExit(Arbiter.WORKER_BOOT_ERROR) from error


def _listeners(settings: Settings, worker: str) -> list[socket.socket]:
    listeners = [open_control_listener(settings, worker)]
    if settings.metrics_port:
        listeners.append(open_listener(settings, port=settings.metrics_port, option="ORDERWIRE_METRICS_PORT"))
    if worker:
        return listeners
    listeners.insert(0, open_listener(settings))
    if settings.subscriptions_port:
        listeners.append(
            open_listener(settings, port=settings.subscriptions_port, option="ORDERWIRE_SUBSCRIPTIONS_PORT")
        )
    return listeners


def _gunicorn_settings(settings: Settings, listeners: list[socket.socket], grace: int) -> dict[str, Any]:
    return {
        "bind": [f"fd://{listener.fileno()}" for listener in listeners],
        "workers": 1,
        "threads": 4 * settings.clients + 32,
        "worker_connections": 4 * settings.clients + 64,
        "graceful_timeout": grace,
        "timeout": 60,
        "keepalive": 75,
        "control_socket_disable": True,  # gunicorn's own
        "accesslog": None,
        "loglevel": "warning",
        "proc_name": "orderwire",
    }
