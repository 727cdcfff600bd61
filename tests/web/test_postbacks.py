from __future__ import annotations

import threading

import msgspec
import pytest
from werkzeug.test import create_environ, run_wsgi_app

from orderwire.brokers.registry import BrokerRegistry
from orderwire.brokers.zerodha.adapter import ZerodhaAdapter
from orderwire.brokers.zerodha.postbacks import postback_checksum
from orderwire.core.events import Event, EventType
from orderwire.core.orders import AccountId, Channel, OrderId
from orderwire.core.recovery import BookRead
from orderwire.errors import ProtocolViolationError, StoreBusyError
from orderwire.store import inbox
from orderwire.testing.desk import FakeClock
from orderwire.web.claims import MISMATCH
from orderwire.web.postbacks import MOST_ASKED, Sparing
from web.house import WiredAdapter, a_house, order, settle

SECRET = "s3cret"
ORDER = OrderId("261124000000001")
STAMP = "2026-11-24 09:30:01"


@pytest.fixture
def house(tmp_path):
    both = BrokerRegistry(classes={"zerodha": ZerodhaAdapter, "wired": WiredAdapter})
    with a_house(tmp_path, brokers=both) as built:
        built.user("asha")
        add(built, "acc", "key")
        yield built


def add(house, name, api_key, *, secret=SECRET):
    credentials = {"api_key": api_key, "api_secret": secret, "user_id": ""}
    house.services.accounts.add(name, broker="zerodha", owner="asha", credentials=credentials)


def path_of(house, name="acc"):
    return f"/postback/zerodha/{house.services.accounts.get(name).postback_segment}"


def body_of(*, secret=SECRET, **fields):
    said = {"order_id": ORDER, "order_timestamp": STAMP, "status": "COMPLETE", "user_id": "AB1234"}
    checksum = postback_checksum(order_id=ORDER, order_timestamp=STAMP, api_secret=secret)
    return msgspec.json.encode(said | {"checksum": checksum} | fields)


def kept(house, account="acc"):
    return inbox.timeline(house.services.database, AccountId(account), ORDER)


def post(house, body, **how):
    return house.client().post(path_of(house), data=body, **how)


@pytest.mark.parametrize("kind", ["application/json", "application/x-www-form-urlencoded", "text/plain", ""])
def test_a_postback_is_in_the_inbox_when_it_is_answered_whatever_its_content_type(house, kind):
    answer = post(house, body_of(), content_type=kind)

    assert (answer.status_code, answer.text) == (200, "")
    (entry,) = kept(house)
    assert (entry.channel, entry.raw) == (Channel.POSTBACK, body_of())


def test_it_is_checked_with_the_broker_and_shown_as_being_checked(house):
    seen = []
    house.services.engine.register(EventType.ORDER_UPDATE, lambda event: seen.append(event.data))

    post(house, body_of())
    settle(house)

    assert house.fleet.hints == [("acc", ORDER, "hint: a postback came")]
    (claim,) = seen
    assert (claim.order_id, claim.channel, claim.status) == (ORDER, Channel.POSTBACK, None)
    assert (claim.raw_status, claim.quantity, claim.filled_quantity) == ("", 0, 0)


def test_the_same_postback_again_is_answered_alike_and_changes_nothing(house):
    codes = [post(house, body_of()).status_code for _ in range(3)]

    assert codes == [200, 200, 200]
    assert len(kept(house)) == len(house.fleet.hints) == 1


def test_a_replayer_fills_eight_places_and_is_then_sent_away(house):
    codes = [post(house, body_of(filled_quantity=number)).status_code for number in range(10)]

    assert codes == [200] * 8 + [429] * 2
    assert len(kept(house)) == 8
    assert house.web.postbacks.counts == {"stored": 8, "full": 2}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"not json",
        b"\xff\xfe",
        b'{"order_id": NaN}',
        b"[" * 60_000,
        b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
        body_of(secret="another"),
        body_of(checksum="0" * 64),
        body_of(order_id="261124000000002"),
        body_of(order_timestamp="2026-11-24 09:30:02"),
        body_of(order_timestamp=None),
        body_of(order_id=261124000000001),
        body_of(order_id=ORDER[:-1], order_timestamp=ORDER[-1] + STAMP),
        body_of()[:-1] + b',"order_id":"9"}',
    ],
)
def test_anything_that_is_not_perfect_is_refused_without_a_word(house, body):
    answer = post(house, body)

    assert (answer.status_code, answer.text) == (400, "")
    assert kept(house) == []
    assert house.fleet.hints == []


def test_more_than_64_kb_is_refused_before_it_is_read(house):
    answer = post(house, b" " * 65_537)

    assert (answer.status_code, answer.text) == (413, "")
    assert post(house, b"\0" * 65_536).status_code == 400


class Endless:
    """A body without an end."""

    taken = 0

    def read(self, size=-1):
        assert 0 <= size < 10**6
        self.taken += size
        return b" " * size


def test_a_body_without_a_length_is_read_no_further_than_64_kb(house):
    environ = create_environ(path_of(house), method="POST")
    environ |= {"wsgi.input": Endless(), "wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}

    _, status, _ = run_wsgi_app(house.app, environ)

    assert status.startswith("413")
    assert environ["wsgi.input"].taken <= 2 * 65_537


@pytest.mark.parametrize("path", ["/postback/zerodha/guess", "/postback/none/guess", "/postback/wired/guess"])
def test_a_path_that_is_not_ours_is_unknown(house, path):
    answer = house.client().post(path, data=body_of())

    assert (answer.status_code, answer.text) == (404, "")


def test_a_segment_belongs_to_its_broker_alone(house):
    path = path_of(house).replace("zerodha", "wired")

    assert house.client().post(path, data=body_of()).status_code == 404


def test_only_posting_is_possible(house):
    assert house.client().get(path_of(house)).status_code == 405


def test_of_accounts_that_share_an_app_our_own_record_says_whose_order_it_is(house):
    add(house, "other", "key")
    house.log.change(order("other", 1, order_id=ORDER))

    post(house, body_of(user_id="somebody the checksum does not cover"))

    assert [account for account, *_ in house.fleet.hints] == ["other"]
    assert (len(kept(house)), len(kept(house, "other"))) == (0, 1)


def test_an_order_nobody_knows_yet_is_looked_for_where_an_order_is_in_flight(house):
    for name in ("idle", "waits", "waits-too"):
        add(house, name, "key")
    add(house, "stranger", "another key")
    house.services.book.open = {"waits": 1, "waits-too": 2, "stranger": 1}

    post(house, body_of())

    assert {account for account, *_ in house.fleet.hints} == {"waits", "waits-too"}
    assert len(kept(house, "waits")) == 1
    assert kept(house) == []


def test_an_order_placed_elsewhere_is_looked_for_in_the_few_accounts_of_its_app(house):
    for number in range(20):
        add(house, f"acc{number}", "key")

    post(house, body_of())

    assert len({account for account, *_ in house.fleet.hints}) == MOST_ASKED


def test_a_secret_that_was_replaced_counts_for_a_day_and_one_of_another_app_does_not(house):
    change = house.services.accounts.change
    change("acc", credentials={"api_key": "key", "api_secret": "rotated", "user_id": ""})

    assert post(house, body_of(secret=SECRET)).status_code == 200
    assert post(house, body_of(secret="rotated", filled_quantity=1)).status_code == 200

    change("acc", credentials={"api_key": "new key", "api_secret": "third", "user_id": ""})
    assert [one["api_secret"] for one in house.services.accounts.verifying(["acc"])] == ["third"]


def test_accounts_of_one_app_may_know_different_secrets(house):
    add(house, "newer", "key", secret="rotated")

    assert post(house, body_of(secret=SECRET)).status_code == 200
    assert post(house, body_of(secret="rotated", filled_quantity=1)).status_code == 200


def test_a_replayed_body_does_not_touch_the_database_again(house, monkeypatch):
    for number in range(9):
        post(house, body_of(filled_quantity=number))
    monkeypatch.setattr(house.services.database, "write", None)

    codes = [post(house, body_of(filled_quantity=number)).status_code for number in range(9)]

    assert codes == [200] * 8 + [429]


def test_what_a_postback_says_of_its_user_is_compared_and_never_followed(house):
    class Feed:
        def read_claim(self, request):
            raise ProtocolViolationError("another account's order")

    house.fleet.adapters["acc"] = Feed()
    house.log.change(order("acc", 1, order_id=ORDER))
    alarms = []
    house.services.engine.register(EventType.ALERT, lambda event: alarms.append(event.data))

    post(house, body_of())
    for seconds in (1, 3):
        asked_ns = house.services.clock.time_ns() + seconds * 10**9
        read = BookRead(account=AccountId("acc"), asked_ns=asked_ns)
        house.services.engine.put(Event(EventType.BOOK_VERIFIED, read))
    settle(house)

    assert [(alarm.kind, alarm.account, alarm.order_id) for alarm in alarms] == [(MISMATCH, "acc", ORDER)]
    assert [reason for *_, reason in house.fleet.hints] == [
        "hint: a postback came",
        "conflict: a postback claims otherwise",
    ]


def test_a_flood_of_forgeries_does_not_fill_the_log(house):
    clock = FakeClock()
    sparing = Sparing(clock, most=2)

    said = [sparing.take() for _ in range(5)]
    clock.advance(1)

    assert (said, sparing.take()) == ([0, 0, None, None, None], 3)


def test_a_database_that_is_busy_asks_the_broker_to_try_again(house, monkeypatch):
    def busy(work):
        raise StoreBusyError

    monkeypatch.setattr(house.services.database, "write", busy)

    answer = post(house, body_of())

    assert (answer.status_code, answer.text) == (429, "")
    assert house.fleet.hints == []


def test_many_at_once_are_each_kept_once(house):
    bodies = [body_of(filled_quantity=number) for number in range(6)] * 3
    codes = []

    def send(body):
        codes.append(post(house, body).status_code)

    threads = [threading.Thread(target=send, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert codes == [200] * 18
    assert len(kept(house)) == len(house.fleet.hints) == 6
