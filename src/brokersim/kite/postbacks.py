"""Kite's postbacks: raw JSON, once, with three seconds' patience and no retry, and forgeries on request."""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

import aiohttp

from brokersim.kite.rows import postback_body, postback_checksum
from brokersim.ledger import Fate
from brokersim.orders import OrderSnapshot
from brokersim.users import KiteApp
from brokersim.world import World

CHANNEL: Final = "postback"
PATIENCE: Final = 3.0
FORM: Final = "application/x-www-form-urlencoded"
JSON: Final = "application/json"
OVERSIZE: Final = 70_000


class Postman:
    """Sends postbacks to the apps' URLs."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._client: aiohttp.ClientSession | None = None

    async def send(
        self, url: str, body: bytes, *, order: OrderSnapshot, what: str, faults: tuple[str, ...] = ()
    ) -> int | None:
        """POST one body, enter its fate into the ledger and give the receiver's HTTP code, None without one."""
        status: int | None = None
        detail = "no answer"
        content_type = JSON if self._world.settings.kite_postback_json_type else FORM
        try:
            async with self._session().post(url, data=body, headers={"Content-Type": content_type}) as answer:
                status = answer.status
                detail = f"HTTP {status}"
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            detail = type(error).__name__
        self.note(body, order=order, what=what, sent=status == 200, faults=faults, detail=detail)
        return status

    def note(
        self,
        body: bytes,
        *,
        order: OrderSnapshot,
        what: str,
        sent: bool,
        faults: tuple[str, ...] = (),
        detail: str = "",
    ) -> None:
        """Enter a postback into the ledger."""
        self._world.ledger.message(
            body,
            at=self._world.timeline.now,
            broker="kite",
            channel=CHANNEL,
            user=order.user,
            what=what,
            fate=Fate.SENT if sent else Fate.LOST,
            order_id=order.order_id,
            faults=faults,
            detail=detail,
        )

    async def close(self) -> None:
        """Close the HTTP client."""
        if self._client is not None:
            await self._client.close()

    def _session(self) -> aiohttp.ClientSession:
        if self._client is None:
            self._client = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=PATIENCE),
                connector=aiohttp.TCPConnector(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._client


Forger = Callable[[dict[str, Any], KiteApp, Mapping[str, Any]], bytes]


def forge(kind: str, order: OrderSnapshot, status: str, app: KiteApp, params: Mapping[str, Any]) -> bytes:
    """Write a postback that a careful receiver must not believe. Raises KeyError for an unknown kind.

    Kinds: replay (a true body once more), altered (`params["fields"]` replaced, checksum untouched), shifted
    (the last digit of the id wandered into the time, same checksum), old_secret, wrong_secret, nan,
    duplicate_keys, deep, oversize, not_utf8, not_json, array, truncated.
    """
    return FORGERIES[kind](postback_body(order, status, app), app, params)


def _json(body: Any) -> bytes:
    return json.dumps(body).encode()


def _altered(body: dict[str, Any], _: KiteApp, params: Mapping[str, Any]) -> bytes:
    fields = params.get("fields") or {"status": "COMPLETE", "filled_quantity": body["quantity"]}
    return _json(body | dict(fields))


def _shifted(body: dict[str, Any], _: KiteApp, __: Mapping[str, Any]) -> bytes:
    order_id, time = body["order_id"], body["order_timestamp"]
    return _json(body | {"order_id": order_id[:-1], "order_timestamp": order_id[-1] + time})


def _signed(body: dict[str, Any], secret: str) -> bytes:
    return _json(body | {"checksum": postback_checksum(body["order_id"], body["order_timestamp"], secret)})


def _duplicate_keys(body: dict[str, Any], _: KiteApp, __: Mapping[str, Any]) -> bytes:
    return _json(body)[:-1] + b', "status": "COMPLETE"}'


def _deep(body: dict[str, Any], _: KiteApp, __: Mapping[str, Any]) -> bytes:
    return _json(body)[:-1] + b', "meta": ' + b"[" * 5_000 + b"]" * 5_000 + b"}"


def _oversize(body: dict[str, Any], _: KiteApp, params: Mapping[str, Any]) -> bytes:
    return _json(body | {"padding": "x" * int(params.get("size", OVERSIZE))})


FORGERIES: Final[Mapping[str, Forger]] = {
    "replay": lambda body, _app, _params: _json(body),
    "altered": _altered,
    "shifted": _shifted,
    "old_secret": lambda body, app, _params: _signed(body, app.old_secret),
    "wrong_secret": lambda body, _app, _params: _signed(body, "not-the-secret"),
    "nan": lambda body, _app, _params: _json(body | {"average_price": float("nan")}),
    "duplicate_keys": _duplicate_keys,
    "deep": _deep,
    "oversize": _oversize,
    "not_utf8": lambda body, _app, _params: _json(body) + b"\xff\xfe",
    "not_json": lambda _body, _app, _params: b"order_id=1&status=COMPLETE",
    "array": lambda body, _app, _params: _json([body]),
    "truncated": lambda body, _app, _params: _json(body)[:200],
}
