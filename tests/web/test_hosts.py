"""The line to a host application, over a real database; the fleet is a stub that notes what it is handed."""

from __future__ import annotations

import re
import threading

import pytest

from orderwire.core.events import Event, EventType
from orderwire.core.hosts import (
    GONE_AFTER,
    MOST_TOLD,
    PROTOCOL,
    HostLogin,
    HostState,
    Place,
)
from orderwire.errors import (
    BrokerUnreachableError,
    ConfigurationError,
    SessionExpiredError,
)
from orderwire.store import hosts as kept
from orderwire.store.accounts import Login
from orderwire.web.hosts import ASK_AGAIN, name_of, shared_apps
from web.hosts_world import JAINAM, KEY, ZERODHA, World


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world
    world.database.close()


def test_the_first_word_of_a_host_makes_its_user_its_account_and_hands_its_token_over(world):
    told = world.take(ZERODHA, api_key=KEY)

    account = world.accounts.get("zerodha-trader")
    assert (account.owner, account.broker) == ("trader", "zerodha")
    assert world.accounts.credentials("zerodha-trader") == {
        "api_key": "kitekey",
        "api_secret": "kite-secret",
        "session": "host",
    }
    assert world.fleet.handed == [("zerodha-trader", "kitekey:one")]
    assert world.users.key(KEY).owner == "trader"
    assert told.problems == []
    assert [a["postback_path"] for a in told.accounts] == [f"/postback/zerodha/{account.postback_segment}"]


def test_an_account_without_a_feed_is_told_whole_and_the_same_each_time(world):
    first, second = (world.take(ZERODHA).accounts[0] for _ in range(2))

    assert first == second
    assert (first["freshness"], first["detail"]) == ("STALE", "Its orders are not followed yet.")
    assert (first["since"], first["connected"]) == (0, False)


def test_only_a_token_that_changed_is_handed_over_again(world):
    world.take(ZERODHA)
    world.take(ZERODHA)
    world.take(HostLogin(broker="zerodha", token="kitekey:two", app_key="kitekey", app_secret="kite-secret"))

    assert [token for _, token in world.fleet.handed] == ["kitekey:one", "kitekey:two"]
    assert world.fleet.added == ["zerodha-trader"]


def test_a_host_that_logs_out_ends_the_login(world):
    world.take(ZERODHA)
    world.accounts.set_login("zerodha-trader", Login(user_id="AB1234", secrets={"access_token": "one"}))
    world.take(HostLogin(broker="zerodha", app_key="kitekey", app_secret="kite-secret"))

    assert world.fleet.handed[-1] == ("zerodha-trader", "")
    assert world.accounts.login("zerodha-trader") is None


def test_a_new_app_key_of_the_host_counts_from_then_on(world):
    world.take(ZERODHA)
    world.take(HostLogin(broker="zerodha", token="other:one", app_key="other", app_secret="kite-secret"))

    assert world.accounts.credentials("zerodha-trader")["api_key"] == "other"
    assert world.fleet.added == ["zerodha-trader", "zerodha-trader"]


def test_changes_are_told_in_order_from_where_the_host_stands_and_a_restart_goes_on_there(world):
    first = world.take(ZERODHA)
    world.move("open", "part", "filled")

    told = world.take(ZERODHA, places=first.places)
    world.take(ZERODHA, places=told.places)
    world.move("open", order="2")
    world.line = world.make_line()
    again = world.take(ZERODHA)

    assert [e.name for e in first.events] == ["snapshot"]
    assert [(e.name, e.data["sequence"]) for e in told.events] == [("order_update", n) for n in (1, 2, 3)]
    assert [e.data["order_status"] for e in told.events] == ["open", "open", "complete"]
    assert [(e.name, e.data["orderid"]) for e in again.events] == [("order_update", "2")]


def test_what_was_told_and_not_yet_taken_is_told_again(world):
    first = world.take(ZERODHA)
    world.take(ZERODHA, places=first.places)
    world.move("open")
    world.take(ZERODHA, places=first.places)
    world.line = world.make_line()

    assert [e.data["sequence"] for e in world.take(ZERODHA).events] == [1]


def test_a_host_far_behind_is_told_in_portions(world):
    first = world.take(ZERODHA)
    for number in range(MOST_TOLD + 5):
        world.move("open", order=str(number))

    told = world.take(ZERODHA, places=first.places)
    rest = world.take(ZERODHA, places=told.places)

    assert (len(told.events), len(rest.events)) == (MOST_TOLD, 5)
    assert rest.events[-1].data["sequence"] == MOST_TOLD + 5


def test_a_place_in_another_log_is_answered_with_everything(world):
    world.take(ZERODHA)
    world.move("open")

    told = world.take(ZERODHA, places={"zerodha-trader": Place("a log of before the restore", 7)})

    assert [e.name for e in told.events] == ["snapshot"]
    assert [row["orderid"] for row in told.events[0].data["orders"]] == ["1"]


def test_a_second_process_is_refused_with_the_name_of_the_first_until_that_is_gone(world):
    world.take(ZERODHA)
    with pytest.raises(
        ConfigurationError, match=r"trader .* openalgo \(process 1\) already; openalgo \(process 2\)"
    ):
        world.take(ZERODHA, instance="process 2")

    world.clock.advance(GONE_AFTER)
    world.take(ZERODHA, instance="process 2")

    with pytest.raises(ConfigurationError, match=r"\(process 2\) already"):
        world.take(ZERODHA)


def test_a_process_that_says_good_bye_gives_its_place_away_at_once(world):
    world.take(ZERODHA)
    world.line.leave("Trader", "process 9")  # a stranger's good-bye
    with pytest.raises(ConfigurationError):
        world.take(ZERODHA, instance="process 2")

    world.line.leave("Trader", "process 1")

    world.take(ZERODHA, instance="process 2")


def test_another_protocol_is_refused_with_both_versions(world):
    with pytest.raises(ConfigurationError, match=r"orderwire 9\.9, the service is 1\.0"):
        world.take(ZERODHA, protocol=PROTOCOL + 1, version="9.9")


@pytest.mark.parametrize(
    ("login", "says"),
    [
        (HostLogin(broker="zerodha", token="t", app_secret="s"), r"no app key for Zerodha \(BROKER_API_KEY"),
        (HostLogin(broker="zerodha", token="t"), "no app key and no secret"),
        (
            HostLogin(broker="angel", token="t", app_key="k", app_secret="s"),
            "angel, which orderwire does not know",
        ),
    ],
)
def test_what_is_missing_is_told_and_makes_nothing(world, login, says):
    told = world.take(login)

    assert len(told.problems) == 1
    assert re.search(says, told.problems[0])
    assert world.accounts.all() == []


def test_a_guessable_key_of_the_host_is_not_let_in(world):
    told = world.take(ZERODHA, api_key="short")

    assert told.problems == ["The host's API key is too short to be let in."]
    assert world.users.key("short") is None


def test_a_key_that_was_revoked_here_stays_revoked_and_a_new_one_replaces_the_old(world):
    world.take(ZERODHA, api_key=KEY)
    world.users.revoke_key(world.users.key(KEY).id, owner="trader")
    world.take(ZERODHA, api_key=KEY)
    assert world.users.key(KEY) is None

    world.take(ZERODHA, api_key="e" * 64)
    world.take(ZERODHA, api_key="d" * 64)

    assert world.users.key("e" * 64) is None
    assert world.users.key("d" * 64).owner == "trader"


def test_a_broker_that_is_away_is_asked_again_and_one_that_refuses_is_not(world):
    world.fleet.fail = BrokerUnreachableError("it is away")
    assert world.take(ZERODHA).problems == ["zerodha-trader: it is away"]
    world.line.on_timer(Event(EventType.TIMER))
    assert len(world.fleet.handed) == 1

    world.clock.advance(ASK_AGAIN)
    world.fleet.fail = SessionExpiredError("it says no")
    world.line.on_timer(Event(EventType.TIMER))
    world.clock.advance(10 * ASK_AGAIN)
    world.line.on_timer(Event(EventType.TIMER))

    assert len(world.fleet.handed) == 2
    assert world.take(ZERODHA).problems == ["zerodha-trader: it says no"]


def test_a_client_that_is_followed_already_is_refused_with_the_owners_name(world):
    world.users.add("asha", "asha-password")
    world.accounts.add(
        "zerodha-asha", broker="zerodha", owner="asha", credentials={"api_key": "k", "api_secret": "s"}
    )
    world.accounts.set_login("zerodha-asha", Login(user_id="AB1234", secrets={}))

    told = world.take(ZERODHA)

    assert told.problems == [
        "zerodha-trader: AB1234 at zerodha is followed already, as zerodha-asha of asha; it is not followed twice."
    ]


@pytest.fixture
def own_login(world):
    """An account of the host's user that logs in with an app key of its own."""
    world.users.add("trader", "trader-password")

    def make(app_key, account="jainam-own", owner="trader"):
        credentials = {"app_key": app_key, "secret_key": "s"}
        world.accounts.add(account, broker="jainam", owner=owner, credentials=credentials)
        world.fleet.accounts.add(account)

    return make


def test_an_account_with_a_second_app_key_is_left_its_own_login(world, own_login):
    own_login("second")

    told = world.take(JAINAM)

    assert (told.problems, world.fleet.handed, world.fleet.added) == ([], [], [])
    assert shared_apps(world.accounts, world.brokers, world.database) == {}


def test_an_account_that_shares_the_hosts_app_key_is_restarted_to_be_refused(world, own_login):
    own_login("xtskey")  # keys differ in case alone

    world.take(JAINAM)

    assert world.fleet.added == ["jainam-own"]
    assert "the app key that the host of trader uses" in world.line.shares_app(
        world.accounts.get("jainam-own")
    )
    assert list(shared_apps(world.accounts, world.brokers, world.database)) == ["jainam-own"]


def test_two_accounts_with_one_app_key_are_told_apart_from_those_that_may_share(world, own_login):
    own_login("same")
    own_login("same", "jainam-two")

    shared = shared_apps(world.accounts, world.brokers, world.database)

    assert list(shared) == ["jainam-two"]
    assert "jainam-two and jainam-own log in with the same app key of Jainam" in shared["jainam-two"]


def test_a_follower_shares_the_hosts_app_key_by_right(world):
    world.take(JAINAM)

    assert world.accounts.credentials("jainam-trader")["session"] == "host"
    assert shared_apps(world.accounts, world.brokers, world.database) == {}
    assert list(kept.apps(world.database).values()) == ["trader"]


@pytest.mark.parametrize(
    ("user", "name"),
    [("Trader", "trader"), ("a b", "a-b"), ("..", "host"), ("", "host"), ("x" * 99, "x" * 64)],
)
def test_a_hosts_user_is_named_as_users_are_here(user, name):
    assert name_of(user) == name


def test_a_secret_does_not_show_in_what_is_logged():
    state = HostState(user="trader", logins=[ZERODHA], api_key=KEY)

    assert "kite-secret" not in repr(state)
    assert "kitekey:one" not in repr(state)
    assert KEY not in repr(state)


def test_a_question_waits_until_something_happens(world):
    first = world.take(ZERODHA)
    told = []
    waiting = threading.Thread(
        target=lambda: told.append(world.take(ZERODHA, places=first.places, with_state=False, wait=30.0))
    )
    waiting.start()
    world.move("open")
    world.line.ring(Event(EventType.ORDER_CHANGED))
    waiting.join(30)

    assert [e.data["orderid"] for e in told[0].events] == ["1"]
