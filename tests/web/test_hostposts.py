"""Webhooks to a host: signed, in order, each until it is taken; the line is the real one over a real database."""

from __future__ import annotations

import msgspec
import pytest

from monitoring.mailbox import receiving
from orderwire.brokers.adapter import AccountProfile
from orderwire.config import load
from orderwire.core import webhooks
from orderwire.core.events import Event, EventType
from orderwire.core.hosts import PROTOCOL, WAIT, FromHost, HostState, ToHost, mark
from orderwire.engine import EventEngine
from orderwire.errors import ConfigurationError
from orderwire.feeds.fleet import FeedAccount
from orderwire.web.hostposts import BACK_OFF, LANE, PATH, HostPosts
from web.hosts_world import ZERODHA, World

SECRET = "a secret of the host and the service"
NEWS, TIMER = Event(EventType.ORDER_CHANGED), Event(EventType.TIMER)


class AnsweringHost:
    """What the mounted part says: where it stands after each message, and its state while that is not held."""

    def __init__(self, receiver):
        self.receiver = receiver
        self.state = HostState(user="Trader", logins=[ZERODHA])
        receiver.answer = self.answer

    def answer(self, body):
        told = msgspec.json.decode(body, type=ToHost)
        holds = told.state_mark == mark(self.state)
        said = FromHost(
            protocol=PROTOCOL,
            version="1.0",
            host="openalgo",
            instance="process 1",
            user="Trader",
            state_mark=mark(self.state),
            state=None if holds else self.state,
            places=told.places,
        )
        return msgspec.json.encode(said)

    @property
    def told(self):
        return [msgspec.json.decode(body, type=ToHost) for _, body in self.receiver.got]

    @property
    def events(self):
        return [(event.name, event.data["sequence"]) for told in self.told for event in told.events]


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world
    world.database.close()


@pytest.fixture
def host():
    with receiving() as receiver:
        yield AnsweringHost(receiver)


@pytest.fixture
def posts(world, host):
    url = host.receiver.url.removesuffix("/hook")
    posts = HostPosts(world.line, settings=load(host_url=url, host_secret=SECRET), clock=world.clock)
    yield posts
    posts.close()


def test_the_first_message_brings_the_hosts_login_and_the_next_its_accounts(world, host, posts):
    posts.on_news(NEWS)

    assert world.fleet.handed == [("zerodha-trader", "kitekey:one")]
    assert [len(told.accounts) for told in host.told[-1:]] == [1]
    assert host.events == [("snapshot", 0)]


def test_each_change_is_posted_once_in_order_and_signed(world, host, posts):
    posts.on_news(NEWS)
    world.move("open", "part")
    posts.on_news(NEWS)
    world.move("filled")
    posts.on_news(NEWS)

    assert host.events[1:] == [("order_update", 1), ("order_update", 2), ("order_update", 3)]
    numbers = [told.number for told in host.told]
    assert numbers == sorted(set(numbers))
    for headers, body in host.receiver.got:
        at = int(headers[webhooks.TIMESTAMP])
        signed = webhooks.signature(body, secret=SECRET, message_id=headers[webhooks.ID], at=at)
        assert headers[webhooks.SIGNATURE] == signed


def test_what_was_not_taken_is_told_again_after_a_pause(world, host, posts):
    posts.on_news(NEWS)
    world.move("open")
    host.receiver.codes = [503]
    posts.on_news(NEWS)
    posts.on_timer(TIMER)
    before = len(host.receiver.got)
    world.clock.advance(BACK_OFF[0])
    posts.on_timer(TIMER)

    assert len(host.receiver.got) > before
    assert host.events[1:] == [("order_update", 1), ("order_update", 1)]


def test_a_quiet_host_is_told_now_and_then_that_we_are_here(world, host, posts):
    posts.on_news(NEWS)
    first = len(host.receiver.got)
    posts.on_timer(TIMER)
    assert len(host.receiver.got) == first

    world.clock.advance(WAIT)
    posts.on_timer(TIMER)

    assert len(host.receiver.got) == first + 1


def test_a_host_that_follows_another_service_ends_what_uses_its_login_here_until_it_is_ours(
    world, host, posts
):
    posts.on_news(NEWS)
    answer, host.receiver.answer = (
        host.receiver.answer,
        lambda _body: b'{"message":"It is one\'s.","taken":true}',
    )
    host.receiver.codes = [409]
    followed = FeedAccount(
        broker="zerodha",
        profile=AccountProfile(
            account="zerodha-trader", credentials=world.accounts.credentials("zerodha-trader")
        ),
    )
    posts.on_news(NEWS)
    refused, told = world.line.wrong, world.line.refusal(followed)
    host.receiver.answer = answer
    world.clock.advance(BACK_OFF[0])
    posts.on_timer(TIMER)

    assert refused == told == "It is one's."
    assert world.fleet.added == ["zerodha-trader"] * 3  # made, refused, begun again
    assert (world.line.wrong, world.line.refusal(followed)) == ("", "")


@pytest.mark.parametrize("body", [b"<html>", b'{"message":"That was said before."}', b'{"taken":true}'])
def test_any_other_refusal_ends_nothing(world, host, posts, body):
    posts.on_news(NEWS)
    host.receiver.answer, host.receiver.codes = lambda _body: body, [409]
    posts.on_news(NEWS)

    assert "is not told: OrderwireError: it answered 409: " in world.line.wrong
    assert world.fleet.added == ["zerodha-trader"]


def test_an_answer_that_is_none_counts_as_not_taken(world, host, posts):
    host.receiver.answer = lambda _body: b"<html>not a host</html>"
    posts.on_news(NEWS)

    assert world.fleet.handed == []
    assert len(host.receiver.got) == 1


def test_an_address_that_is_not_encrypted_is_refused_off_this_machine(world):
    settings = load(host_url="http://openalgo.example", host_secret=SECRET)

    with pytest.raises(
        ConfigurationError, match=r"ORDERWIRE_HOST_URL: http://openalgo\.example is not encrypted"
    ):
        HostPosts(world.line, settings=settings, clock=world.clock)


@pytest.mark.parametrize("secret", ["", "short"])
def test_a_host_without_a_secret_is_refused_at_start(secret):
    with pytest.raises(ConfigurationError, match="ORDERWIRE_HOST_URL needs ORDERWIRE_HOST_SECRET of 16"):
        load(host_url="http://127.0.0.1:5000", host_secret=secret)


def test_one_of_several_processes_tells_no_host(world):
    settings = load(host_url="http://127.0.0.1:5000", host_secret=SECRET)

    with pytest.raises(ConfigurationError, match="for `orderwire serve`"):
        HostPosts(world.line, settings=settings, clock=world.clock, alone=False)


def test_without_a_host_there_is_no_lane(world):
    engine = EventEngine()
    posts = HostPosts(world.line, settings=load(), clock=world.clock)
    posts.attach(engine)
    posts.close()

    assert LANE not in engine.statistics().lanes
    assert PATH == "/orderwire/exchange"
