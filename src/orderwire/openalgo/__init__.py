"""The part of orderwire that lives inside a Flask application such as OpenAlgo: `init_app(app, socketio, bus)`.

It starts no thread and no event loop: the service does its work in a process of its own, and one background task
of the host's own kind (a thread, or a green one under gevent and eventlet) speaks with it. See docs/howto/openalgo.md.
"""

from orderwire.core.hosts import HostLogin, HostState
from orderwire.openalgo.mount import Mount, init_app
from orderwire.openalgo.seams import HostSeams

__all__ = ["HostLogin", "HostSeams", "HostState", "Mount", "init_app"]
