import pytest

from feed_desk import ACCOUNT, order, trade
from orderwire.core.events import Event, EventType
from orderwire.core.orders import AccountId, Channel
from orderwire.feeds.valve import Valve
from orderwire.testing import RecordingPublisher


def said(channel, **fields):
    return Event(EventType.ORDER_UPDATE, order(channel=channel, **fields))


@pytest.mark.parametrize(
    ("push", "opened", "passed"),
    [(True, True, ["stream", "rest"]), (False, True, ["rest"]), (True, False, []), (False, False, [])],
)
def test_what_is_switched_off_does_not_pass_and_is_counted(push, opened, passed):
    published = RecordingPublisher()
    valve = Valve(ACCOUNT, published)
    valve.push, valve.open = push, opened

    valve.put(said(Channel.STREAM))
    valve.put(said(Channel.REST))

    assert [update.channel for update in published.of(EventType.ORDER_UPDATE)] == passed
    assert valve.held_back == 2 - len(passed)


def test_another_accounts_observation_never_passes():
    published = RecordingPublisher()
    valve = Valve(ACCOUNT, published)
    told = []
    valve.on_foreign = lambda: told.append(1)

    valve.put(said(Channel.REST, account=AccountId("other")))

    assert (published.events, valve.foreign, told) == ([], 1, [1])


def test_only_what_passes_counts_as_pushed():
    valve = Valve(ACCOUNT, None)
    pushed = []
    valve.on_pushed = pushed.append

    valve.put(said(Channel.STREAM))
    valve.put(said(Channel.REST))
    valve.push = False
    valve.put(said(Channel.STREAM))

    assert len(pushed) == 1


def test_executions_of_the_stream_are_told_where_they_pass():
    valve = Valve(ACCOUNT, None)
    executed = []
    valve.on_executed = executed.append

    valve.put(Event(EventType.TRADE_UPDATE, trade(channel=Channel.STREAM)))
    valve.put(Event(EventType.TRADE_UPDATE, trade(channel=Channel.REST)))
    valve.push = False
    valve.put(Event(EventType.TRADE_UPDATE, trade(channel=Channel.STREAM)))

    assert executed == [trade(channel=Channel.STREAM)]


def test_events_that_are_no_observations_pass():
    published = RecordingPublisher()

    Valve(ACCOUNT, published).put(Event("eAnything", 1))

    assert len(published.events) == 1
