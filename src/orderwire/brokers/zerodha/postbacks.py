"""Verifies and reads Kite's postbacks, which are only ever a hint; pure (kite.md §4)."""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

from orderwire.brokers.adapter import PostbackHint
from orderwire.brokers.zerodha.messages import moment, sha256_hex
from orderwire.core.orders import OrderId
from orderwire.errors import ProtocolViolationError

MOST_POSTBACK_BYTES = 65_536

_POSTBACK_ID = re.compile(r"\d{9,20}", re.ASCII)
_STAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", re.ASCII)
_CHECKSUM = re.compile(r"[0-9a-f]{64}", re.ASCII)
_DEEPEST = 5
"""A real body has three levels: body, meta, iceberg."""
_MOST_BRACKETS = 200
_LONGEST_NUMBER = 30
_LONGEST_CLAIM = 500
_CLAIMS = (
    "status",
    "status_message",
    "exchange",
    "tradingsymbol",
    "transaction_type",
    "order_type",
    "quantity",
    "filled_quantity",
    "cancelled_quantity",
    "price",
    "trigger_price",
    "average_price",
    "exchange_update_timestamp",
    "tag",
    "user_id",
    "app_id",
)


def read_postback(body: bytes, *, secrets: Sequence[str]) -> PostbackHint:
    """Verify and read a postback, exactly as kite.md §4.4 asks; pure.

    Raises ProtocolViolationError, and nothing else, for a body that is not perfect in every respect or that
    no secret in `secrets` verifies; the message says why, for the log, and holds nothing of the body.
    """
    claims = _read_hardened(body)
    order_id = _matching(claims, "order_id", _POSTBACK_ID)
    stamp = _matching(claims, "order_timestamp", _STAMP)
    checksum = _matching(claims, "checksum", _CHECKSUM)
    _real_moment(stamp)
    if not _verifies(order_id, stamp, checksum, secrets):
        raise ProtocolViolationError("the postback's checksum is wrong")
    return PostbackHint(order_id=OrderId(order_id), broker_time=stamp, claims=_claims(claims))


def _read_hardened(body: bytes) -> dict[str, Any]:
    if len(body) > MOST_POSTBACK_BYTES:
        raise ProtocolViolationError("the postback is larger than 64 kB")
    if body.count(b"{") + body.count(b"[") > _MOST_BRACKETS:
        raise ProtocolViolationError("the postback is nested too deeply")
    try:
        value = _strict.decode(body.decode("utf-8"))
    except (ValueError, RecursionError, InvalidOperation) as error:
        raise ProtocolViolationError(f"the postback is not strict JSON ({type(error).__name__})") from None
    if not isinstance(value, dict):
        raise ProtocolViolationError("the postback is not a JSON object")
    if _depth(value) > _DEEPEST:
        raise ProtocolViolationError("the postback is nested too deeply")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate keys")
    return found


def _refuse_constant(_text: str) -> NoReturn:
    raise ValueError("NaN or Infinity")


def _short_int(text: str) -> int:
    if len(text) > _LONGEST_NUMBER:
        raise ValueError("absurdly long number")
    return int(text)


def _short_decimal(text: str) -> Decimal:
    number = Decimal(text) if len(text) <= _LONGEST_NUMBER else Decimal("NaN")
    if not number.is_finite() or abs(number.adjusted()) > _LONGEST_NUMBER:
        raise ValueError("absurd number")
    return number


_strict = json.JSONDecoder(
    object_pairs_hook=_unique,
    parse_constant=_refuse_constant,
    parse_int=_short_int,
    parse_float=_short_decimal,
)


def _depth(value: object) -> int:
    level, depth = [value], 0
    while level := [part for part in level if isinstance(part, dict | list)]:
        depth += 1
        level = [inner for part in level for inner in (part.values() if isinstance(part, dict) else part)]
    return depth


def _matching(claims: Mapping[str, Any], name: str, form: re.Pattern[str]) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not form.fullmatch(value):
        raise ProtocolViolationError(f"the postback's {name} has the wrong form")
    return value


def _real_moment(stamp: str) -> None:
    try:
        moment(stamp)
    except ValueError:
        raise ProtocolViolationError("the postback's order_timestamp is not a date") from None


def _verifies(order_id: str, stamp: str, checksum: str, secrets: Sequence[str]) -> bool:
    """Compare with every secret in force, each in constant time; an empty secret verifies nothing."""
    expected = (
        postback_checksum(order_id=order_id, order_timestamp=stamp, api_secret=secret)
        for secret in secrets
        if secret
    )
    return sum(hmac.compare_digest(one, checksum) for one in expected) > 0


def _claims(body: Mapping[str, Any]) -> dict[str, str]:
    return {name: _claim(body[name]) for name in _CLAIMS if body.get(name) is not None}


def _claim(value: object) -> str:
    text = str(value)[:_LONGEST_CLAIM]
    return text.encode("utf-8", "replace").decode().replace("\x00", "?")


def postback_checksum(*, order_id: str, order_timestamp: str, api_secret: str) -> str:
    """Return the checksum a postback must carry; it covers neither status nor quantities (kite.md §4.3)."""
    return sha256_hex(order_id + order_timestamp + api_secret)
