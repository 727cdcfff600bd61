"""The host application. Two lines of it are orderwire's; without them it is the same as before."""

from __future__ import annotations

import os

from blueprints.pages import pages
from blueprints.postback import postback
from blueprints.witness import witness
from extensions import bus, csrf, limiter, socketio
from flask import Flask, Response, abort, request


def create_app() -> Flask:
    app = Flask(__name__)
    app.config["SECRET_KEY"] = os.environ.get("HOST_SECRET_KEY", "only-for-the-example")
    app.extensions["taken_by_the_host"] = []
    csrf.init_app(app)
    limiter.init_app(app)
    socketio.init_app(app)
    for blueprint in (pages, postback, witness):
        app.register_blueprint(blueprint)

    @socketio.on("connect")
    def connect() -> None:
        """Let everybody in, as before."""

    @app.after_request
    def restrict(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = (
            "default-src 'self'; connect-src 'self' ws: wss:; object-src 'none'"
        )
        return response

    strangers: dict[str, int] = {}

    @app.errorhandler(404)
    def not_found(_error: Exception) -> tuple[str, int]:
        """Ban addresses that ask for what is not there, as real hosts do."""
        address = request.remote_addr or ""
        strangers[address] = strangers.get(address, 0) + 1
        return "There is nothing here.", 404

    @app.before_request
    def banned() -> None:
        if strangers.get(request.remote_addr or "", 0) > 20:
            abort(403)

    from orderwire.openalgo import init_app  # noqa: PLC0415 - the two lines

    init_app(app, socketio, bus)
    return app
