"""The REST calls, called from their own OpenAPI document: no fault of ours, no answer that is not in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import checks

from orderwire.core.notifications import Notification, Occasion
from orderwire.core.orders import AccountId, Holding, OrderStatus
from orderwire.core.recovery import Freshness
from orderwire.store.notifications import TargetKind
from orderwire.store.users import Scope
from orderwire.web import api
from orderwire.web.api import CALLS
from web.house import House, a_house, order
from web.making import position, trade

EXAMPLES = int(os.environ.get("ORDERWIRE_SCHEMA_EXAMPLES", "12"))
"""For each call; `make schema EXAMPLES=500` for a long look."""

CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]

LIKELY: dict[str, list[Any]] = {
    "symbol": ["INFY", "TCS", "NIFTY29DEC26FUT"],
    "exchange": ["NSE", "NFO"],
    "action": ["BUY", "SELL"],
    "pricetype": ["MARKET", "LIMIT", "SL", "SL-M"],
    "product": ["MIS", "CNC", "NRML"],
    "validity": ["DAY", "IOC"],
    "orderid": ["261124000000001", "261124000000002"],
    "account": ["", "acc"],
    "quantity": [1, "75", 10],
    "splitsize": [1, "5", 75],
    "id": [1, 2],
    "choice": ["in", "out", "none"],
}


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> Iterator[House]:
    with (
        a_house(tmp_path_factory.mktemp("schema")) as built,
        pytest.MonkeyPatch.context() as patched,
    ):
        patched.setattr(api, "PACE", 0)
        built.user("asha")
        account = built.account("acc", "asha")
        for limiter in built.app.extensions["limiter"]:
            limiter.enabled = False
        built.log.change(order(number=1))
        built.log.change(order(number=2, status=OrderStatus.FILLED, filled_quantity=10))
        built.log.change(trade())
        built.log.change(position())
        built.desk.held = [position()]
        built.desk.owned = [
            Holding(account=account, symbol="TCS", exchange="NSE", quantity=3, average_price=Decimal(3000))
        ]
        built.fleet.show(account, Freshness.DEGRADED, detail="The stream is away.")
        kept = built.services.notifications
        kept.add_target("asha", kind=TargetKind.WEBHOOK, address="https://algo.example/hook")
        for number in range(40):
            at = datetime.now(UTC)
            kept.queue(
                "asha",
                Notification(
                    key=str(number),
                    occasion=Occasion.REJECTED,
                    account=AccountId("acc"),
                    at=at,
                    title="Rejected",
                    text="No margin",
                ),
            )
        kept.failed(kept.waiting(), error="gone", dead=True)
        yield built


@pytest.fixture(scope="module")
def key(house: House) -> str:
    return house.services.users.add_key("asha", scope=Scope.TRADE)[1]


@pytest.fixture(scope="module")
def document(house: House) -> Any:
    return schemathesis.openapi.from_wsgi("/api/v1/openapi.json", house.app)


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)
def test_every_answer_is_in_the_document(call, document, key):
    operation = document[f"/api/v1/{call.name}"][call.method]

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(case=operation.as_strategy())
    def answers(case):
        made_likely(case.body, key)
        response = case.call(headers={"X-API-KEY": key})
        case.validate_response(response, checks=CHECKS)

    answers()


def made_likely(body: Any, key: str) -> None:
    """Give every other generated value one that means something, so that the calls are got through, too."""
    if not isinstance(body, dict):
        return
    if isinstance(body.get("apikey"), str) and len(body["apikey"]) != 1:
        body["apikey"] = key
    for name, values in LIKELY.items():
        if name in body and len(repr(body[name])) % 2 == 0:
            body[name] = values[len(repr(body[name])) % len(values)]
    for one in body.get("orders", []) if isinstance(body.get("orders"), list) else []:
        made_likely(one, key)


def test_the_document_lists_every_call_and_nothing_else(document):
    paths = {path.removeprefix("/api/v1/") for path in document.raw_schema["paths"]}

    assert paths == {call.name for call in CALLS}
