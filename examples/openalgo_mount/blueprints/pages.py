"""Logging in, and the pages: the order book as it is at the broker, read when it is asked for."""

from __future__ import annotations

import os
from typing import Any

from database import auth_db, store
from flask import Blueprint, abort, jsonify, redirect, render_template, request, session
from flask.typing import ResponseReturnValue

import brokers

pages = Blueprint("pages", __name__)


@pages.before_request
def only_the_user() -> ResponseReturnValue | None:
    if request.endpoint == "pages.login" or session.get("logged_in"):
        return None
    return redirect("/login") if request.method == "GET" else abort(403)


@pages.route("/login", methods=["GET", "POST"])
def login() -> ResponseReturnValue:
    held = store.read()
    if request.method == "POST":
        if (request.form["user"], request.form["password"]) != (held["user"], held["password"]):
            abort(403)
        session["logged_in"], session["user"] = True, held["user"]
        return redirect("/")
    return render_template("login.html")


@pages.get("/")
def home() -> ResponseReturnValue:
    held = store.read()
    return render_template("home.html", broker=held.get("broker", ""), api_key=held["api_key"])


@pages.post("/broker")
def broker_login() -> ResponseReturnValue:
    """Keep the token of a broker login; a real host gets it from the broker's redirect."""
    auth_db.upsert_auth(request.form["broker"], request.form["token"])
    return redirect("/")


@pages.get("/orderbook")
def orderbook() -> ResponseReturnValue:
    return render_template("orderbook.html", orders=_orders())


@pages.get("/react")
def react() -> ResponseReturnValue:
    return render_template("react.html")


@pages.get("/books/orders")
def orders() -> ResponseReturnValue:
    return jsonify(status="success", orders=_orders())


def _orders() -> list[dict[str, Any]]:
    held = store.read()
    if not held.get("token"):
        return []
    addresses = dict(
        pair.split("=", 1) for pair in os.environ.get("ORDERWIRE_BROKER_ADDRESSES", "").split(",") if pair
    )
    return brokers.orders(held["broker"], held["token"], addresses)
