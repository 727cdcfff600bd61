from __future__ import annotations

import threading

import msgspec
import pytest
from werkzeug.test import create_environ, run_wsgi_app

from orderwire.brokers.registry import BrokerRegistry
from orderwire.brokers.zerodha.adapter import ZerodhaAdapter
from orderwire.brokers.zerodha.postbacks import postback_checksum
from orderwire.core.events import EventType
from orderwire.core.orders import AccountId, Channel, OrderId
from orderwire.errors import StoreBusyError
from orderwire.store import inbox
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


def test_an_order_nobody_knows_yet_is_looked_for_in_every_account_of_the_app(house):
    add(house, "other", "key")
    add(house, "stranger", "another key")

    post(house, body_of())

    assert {account for account, *_ in house.fleet.hints} == {"acc", "other"}


def test_during_a_change_of_the_secret_the_old_one_still_counts(house):
    add(house, "newer", "key", secret="rotated")

    assert post(house, body_of(secret=SECRET)).status_code == 200
    assert post(house, body_of(secret="rotated", filled_quantity=1)).status_code == 200


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
