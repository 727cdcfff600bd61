"""Runs the host under one of the servers that such hosts have: `python run.py threads|gevent|eventlet PORT`."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def threads(port: int) -> None:
    """Werkzeug's server with a thread for each request: what developers run."""
    from app import create_app  # noqa: PLC0415 - after the choice of a server
    from extensions import socketio  # noqa: PLC0415 - see above

    socketio.run(create_app(), host="127.0.0.1", port=port, allow_unsafe_werkzeug=True)


def gevent(port: int) -> None:
    """One gunicorn worker under gevent, which patches the standard library."""
    from gunicorn.app.wsgiapp import WSGIApplication  # noqa: PLC0415 - see above

    sys.argv = ["gunicorn", "--bind", f"127.0.0.1:{port}", "--worker-class", "gevent", "--workers", "1"]
    sys.argv += ["--no-control-socket", "--graceful-timeout", "2", "--chdir", str(HERE), "wsgi:app"]
    WSGIApplication().run()


def eventlet(port: int) -> None:
    """Eventlet's server: what gunicorn's eventlet worker was until gunicorn 26."""
    import eventlet as green  # noqa: PLC0415 - only here

    green.monkey_patch()
    from app import create_app  # noqa: PLC0415 - after the patching
    from eventlet import wsgi  # noqa: PLC0415 - see above

    wsgi.server(green.listen(("127.0.0.1", port)), create_app(), log_output=False)


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    {"threads": threads, "gevent": gevent, "eventlet": eventlet}[sys.argv[1]](int(sys.argv[2]))
