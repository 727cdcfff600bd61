"""The operator's commands: carried out by the running service, reached over its local control socket."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx2
import msgspec
from flask import Blueprint, Response, abort, request

from orderwire.decoding import convert, decode
from orderwire.errors import UNDECODABLE, InvalidRequestError, NotFoundError, OrderwireError
from orderwire.web.operations import accounts, pilot, users, watch
from orderwire.web.operations.office import Command, Office

COMMANDS: Mapping[str, type[Command]] = {
    **users.COMMANDS,
    **accounts.COMMANDS,
    **pilot.COMMANDS,
    **watch.COMMANDS,
}


def perform(office: Office, command: str, arguments: Mapping[str, Any]) -> Any:
    """Carry out a command and return its plain (JSON-ready) result.

    Raises NotFoundError for an unknown command, InvalidRequestError for wrong arguments, and what it raises.
    """
    kind = COMMANDS.get(command)
    if kind is None:
        raise NotFoundError(f"There is no command {command!r}.")
    try:
        asked = convert(dict(arguments), kind, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidRequestError({"arguments": str(error)}) from error
    return msgspec.to_builtins(asked.perform(office))


def ask(path: Path, command: str, arguments: Mapping[str, Any], *, patience: float = 60.0) -> Any:
    """Have the running service carry out a command, over its control socket at `path`, within `patience` seconds.

    Raises OrderwireError with the service's words, or because it did not answer; httpx2.ConnectError when none listens.
    """
    _knock(path)
    transport = httpx2.HTTPTransport(uds=str(path))
    with httpx2.Client(
        transport=transport, timeout=httpx2.Timeout(patience, connect=2.0), trust_env=False
    ) as client:
        try:
            reply = client.post(f"http://localhost/control/{command}", content=msgspec.json.encode(arguments))
        except httpx2.TransportError as error:
            raise OrderwireError(
                f"The service did not answer ({type(error).__name__}): look whether {command} was done before you ask again."
            ) from error
    answer = reply.raise_for_status().json()
    if answer["status"] != "success":
        raise OrderwireError(answer["message"])
    return answer["result"]


def _knock(path: Path) -> None:
    """See that somebody listens: the library forgets the socket with which it finds nobody, and leaves it open."""
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(2.0)
        try:
            line.connect(str(path))
        except (TimeoutError, BlockingIOError) as error:
            raise OrderwireError(
                f"The service at {path} takes no calls now; nothing was done. Try again."
            ) from error
        except OSError as error:
            raise httpx2.ConnectError(f"{path}: {error.strerror}") from error


def blueprint(office: Callable[[], Office]) -> Blueprint:
    """Serve the commands to whoever may open the control socket; to the network they do not exist."""
    routes = Blueprint("control", __name__, url_prefix="/control")

    @routes.before_request
    def only_from_the_control_socket() -> None:
        connection = request.environ.get("gunicorn.socket")
        if getattr(connection, "family", None) != socket.AF_UNIX:
            abort(404)

    @routes.post("/<command>")
    def carry_out(command: str) -> Response:
        try:
            answer = {
                "status": "success",
                "result": perform(office(), command, _arguments(request.get_data())),
            }
        except OrderwireError as error:
            answer = {"status": "error", "error": type(error).__name__, "message": str(error)}
        return Response(msgspec.json.encode(answer), mimetype="application/json")

    return routes


def _arguments(body: bytes) -> Mapping[str, Any]:
    try:
        return decode(body or b"{}", dict[str, Any])
    except UNDECODABLE as error:
        raise InvalidRequestError({"arguments": str(error)}) from error
