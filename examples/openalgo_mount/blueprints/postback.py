"""The broker's callbacks, as the host takes them itself: noted, and no more."""

from __future__ import annotations

from extensions import csrf
from flask import Blueprint, current_app, request
from flask.typing import ResponseReturnValue

postback = Blueprint("postback", __name__)
csrf.exempt(postback)


@postback.post("/postback/<broker>")
def take(broker: str) -> ResponseReturnValue:
    current_app.extensions["taken_by_the_host"].append((broker, request.get_data(as_text=True)))
    return "", 200
