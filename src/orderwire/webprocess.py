"""The web role's process: gevent's patch comes before everything else, so this module imports next to nothing.

`orderwire web` checks the settings, binds the sockets and then becomes this, with the sockets' numbers as arguments:
a lock made before the patch would stop every greenlet at once.
"""

from __future__ import annotations

import sys
from typing import Any

CONNECTIONS = 10_000
"""Sockets one process takes; each browser has one, and a few for its calls."""

GRACE = 5
"""Seconds for which calls that were begun may go on at a stop."""


def main() -> None:
    """Serve on the inherited sockets until TERM. Arguments: the worker's name, then file descriptors."""
    from gunicorn.app.base import BaseApplication  # noqa: PLC0415 - after the caller's check, before any of ours
    from gunicorn.workers.ggevent import GeventWorker  # noqa: PLC0415 - see above

    name, *sockets = sys.argv[1:]
    held: list[Any] = []

    class Worker(GeventWorker):  # type: ignore[misc]  # gunicorn ships no types
        """Lets the browsers go before it waits for them."""

        def handle_exit(self, sig: int, frame: Any) -> None:
            from orderwire.feeds.loop import spawn  # noqa: PLC0415 - after the patch

            for service in held:
                spawn("farewell", service.close_clients)
            super().handle_exit(sig, frame)

    class Application(BaseApplication):  # type: ignore[misc]  # gunicorn ships no types
        """Built in the worker, after the patch."""

        def load_config(self) -> None:
            for setting, value in _gunicorn_settings(sockets).items():
                self.cfg.set(setting, value)
            self.cfg.set("worker_class", Worker)
            self.cfg.set("worker_exit", lambda _server, _worker: [service.stop() for service in held])

        def load(self) -> Any:
            from orderwire import logs  # noqa: PLC0415 - after the patch
            from orderwire.config import load  # noqa: PLC0415 - after the patch
            from orderwire.webrole import WebService  # noqa: PLC0415 - after the patch

            settings = load()
            logs.set_up(level=settings.log_level, as_json=settings.log_json)
            service = WebService(settings, name=name)
            held.append(service)
            service.start()
            return service.app

    Application().run()


def _gunicorn_settings(sockets: list[str]) -> dict[str, Any]:
    return {
        "bind": [f"fd://{number}" for number in sockets],
        "workers": 1,
        "worker_connections": CONNECTIONS,
        "graceful_timeout": GRACE,
        "timeout": 60,
        "keepalive": 75,
        "control_socket_disable": True,  # gunicorn's own
        "accesslog": None,
        "loglevel": "warning",
        "proc_name": "orderwire-web",
    }


if __name__ == "__main__":
    main()
