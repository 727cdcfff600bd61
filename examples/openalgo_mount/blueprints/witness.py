"""What the host's own subscribers and routes saw, for whoever wants to look (and for the tests)."""

from __future__ import annotations

import dataclasses
from typing import Any

from extensions import bus
from flask import Blueprint, current_app, jsonify
from flask.typing import ResponseReturnValue

witness = Blueprint("witness", __name__)
seen: list[dict[str, Any]] = []


def on_order_update(event: Any) -> None:
    """A subscriber of the host's own: an algorithm, an alert."""
    seen.append(dataclasses.asdict(event))


bus.subscribe("order.update", on_order_update)


@witness.get("/witness")
def look() -> ResponseReturnValue:
    return jsonify(bus=seen, postbacks=current_app.extensions["taken_by_the_host"], dropped=bus.dropped)
