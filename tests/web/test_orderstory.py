"""The order's own page: what it tells, to whom, and that asking again costs nothing when nothing happened."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from msgspec.structs import replace

from house import eventually
from orderwire.core.events import Event, EventType
from orderwire.core.lifecycle import Submission, SubmissionState
from orderwire.core.orders import IST, Channel, OrderRequest
from orderwire.errors import OrderRefusedError
from orderwire.store.book import OrderBook
from store.making import update
from web.house import csrf

ORDER = "260817000000001"


@pytest.fixture
def told(house):
    """Let a real book take observations in."""
    book = OrderBook(house.services.database, clock=house.services.clock)
    book.attach(house.services.engine)

    def tell(word="open", **given):
        at = given.pop("at", datetime.now(IST).replace(microsecond=0))
        received = house.services.clock.time_ns()
        seen = update(word, account="acc", at=at, **({"received_ns": received} | given))
        before = book.tallies().get("observations", 0)
        house.services.engine.put(Event(EventType.ORDER_UPDATE, seen))
        eventually(lambda: book.tallies().get("observations", 0) > before, what="the commit")

    tell.book = book
    return tell


@pytest.fixture
def client(house):
    return house.client("asha")


def text_of(answer) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.text)).replace("&#39;", "'")


def test_every_observation_is_there_with_its_source_tier_verdict_and_stages(told, client):
    told("open")
    told("part", channel=Channel.REST)
    told("part", channel=Channel.REST)

    page = text_of(client.get(f"/orders/acc/{ORDER}"))

    assert "broker's stream · tier B new" in page
    assert "order book · tier A new" in page
    assert "UPDATE, 4 of 10 filled at 800.05" in page
    assert "2 observations" in page  # the same again is one
    assert "joined" in page
    assert "committed" in page
    assert '{"order_id": "260817000000001", "status": "OPEN"}' in page.replace("&#34;", '"')


def test_an_order_of_ours_tells_what_was_asked_and_answered(house, told, client):
    now = datetime.now(UTC)
    asked = Submission(
        id="OW00000000000042",
        account="acc",
        broker="wired",
        state=SubmissionState.SENDING,
        request=OrderRequest(
            symbol="SBIN",
            exchange="NSE",
            side="BUY",
            quantity=10,
            order_type="LIMIT",
            product="MIS",
            price=Decimal("800.10"),
        ),
        created=now,
    )
    told.book.submit(asked).result(5)
    told.book.submit(replace(asked, state=SubmissionState.REFUSED, reason="No funds.", decided=now)).result(5)

    page = text_of(client.get("/orders/acc/OW00000000000042"))

    assert "You asked: Buy 10 SBIN, LIMIT at 800.10" in page
    assert "The broker refused it" in page
    assert "No funds." in page


def test_nobody_sees_the_order_of_somebody_else(house, told):
    told("open")
    house.user("ravi")
    ravi = house.client("ravi")

    assert ravi.get(f"/orders/acc/{ORDER}").status_code == 404
    assert ravi.post(f"/orders/acc/{ORDER}/cancel", data={"csrf_token": csrf(ravi, "/")}).status_code == 404
    assert house.desk.cancelled == []


@pytest.mark.parametrize("row", ["nothing", "OW1", "%22", "..", "x" * 300])
def test_an_order_that_is_not_there_is_not_found(client, told, row):
    assert client.get(f"/orders/acc/{row}").status_code == 404


def test_asking_again_costs_nothing_until_something_happened(told, client):
    told("open")
    mark = re.search(r"seen=([^\"]+)", client.get(f"/orders/acc/{ORDER}").text).group(1)

    assert client.get(f"/orders/acc/{ORDER}?seen={mark}").status_code == 204
    told("filled", channel=Channel.REST)

    assert "Filled" in client.get(f"/orders/acc/{ORDER}?seen={mark}").text.title()


def test_cancelling_says_what_came_of_it(house, told, client):
    told("open")
    done = client.post(
        f"/orders/acc/{ORDER}/cancel", data={"csrf_token": csrf(client, "/")}, follow_redirects=True
    )
    house.desk.fail = OrderRefusedError("The order is in the auction.")
    refused = client.post(
        f"/orders/acc/{ORDER}/cancel", data={"csrf_token": csrf(client, "/")}, follow_redirects=True
    )

    assert house.desk.cancelled == [("acc", ORDER)]
    assert "The cancellation was sent" in text_of(done)
    assert "The order is in the auction." in text_of(refused)


def test_what_the_broker_says_is_text_and_never_markup(told, client):
    told("rejected", reason="<script>alert(1)</script>", raw=b"<script>alert(2)</script>")

    assert "<script>alert" not in client.get(f"/orders/acc/{ORDER}").text
