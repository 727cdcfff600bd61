from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import text

from orderwire.core.health import FeedHealth
from orderwire.core.orders import AccountId
from orderwire.core.recovery import FeedStatus, Freshness
from orderwire.store import feedstates
from orderwire.store.database import Database
from orderwire.store.feedstates import FeedState, FeedStates
from orderwire.store.leases import FEEDS, Leases

ONE, TWO = AccountId("A1"), AccountId("A2")
SINCE = datetime(2026, 8, 17, tzinfo=UTC)


@pytest.fixture
def database(postgres, clock):
    database = Database(postgres.url, clock=clock)
    database.write(
        lambda connection: [
            connection.execute(text(statement))
            for statement in (
                "INSERT INTO users (name, password, role, disabled, created_ns) VALUES ('u', '', 'trader', 0, 0)",
                """
                INSERT INTO accounts (id, broker, title, owner, addresses, allow_plaintext, app, postback_segment,
                created_ns) SELECT 'A' || n, 'b', '', 'u', '{}', 0, '', 's' || n, 0 FROM generate_series(1, 2) n
                """,
            )
        ]
    )
    yield database
    database.close()
    postgres.empty()


def worker(database, name: str) -> Leases:
    leases = Leases(
        database, name, ttl=600.0
    )  # nothing here is to run out by itself, however slow the machine
    leases.enter(role=FEEDS, place="here", version="1")
    return leases


def tell(database, leases: Leases, *accounts: AccountId, detail: str = "") -> None:
    states = {
        account: FeedState(
            worker=leases.worker,
            status=FeedStatus(
                account=account, freshness=Freshness.LIVE, since=SINCE, detail=detail, connected=True
            ),
            health=FeedHealth(account=account, broker="b", freshness=Freshness.LIVE, since=SINCE),
            redirects=False,
        )
        for account in accounts
    }
    feedstates.tell(database, leases.worker, states)


def dies(database, leases: Leases) -> None:
    database.write(
        lambda connection: connection.execute(
            text("UPDATE workers SET expires_ns = 1 WHERE id = :me"), {"me": leases.worker}
        )
    )


def freshness(states: FeedStates, account: AccountId = ONE) -> Freshness | None:
    state = states.get(account)
    assert state == states.all().get(account)
    return state.status.freshness if state else None


def looking(database) -> FeedStates:
    """Looks each time it is asked."""
    return FeedStates(database, fresh=-1.0)


def test_what_an_owner_told_is_seen_and_what_it_tells_next(database):
    owner, states = worker(database, "f1"), looking(database)
    assert states.all() == {}
    owner.take(2)
    tell(database, owner, ONE, TWO)
    assert (freshness(states, ONE), freshness(states, TWO)) == (Freshness.LIVE, Freshness.LIVE)

    tell(database, owner, ONE, detail="news")

    assert (states.get(ONE).status.detail, states.get(TWO).status.detail) == ("news", "")


def test_an_account_whose_owner_died_is_stale_until_another_took_it_over_and_told(database):
    first, states = worker(database, "f1"), looking(database)
    first.take(2)
    tell(database, first, ONE, TWO)
    assert freshness(states) is Freshness.LIVE

    dies(database, first)
    assert freshness(states) is Freshness.STALE
    assert states.get(ONE).status.detail == feedstates.NOBODY

    second = worker(database, "f2")
    second.take(2)
    assert freshness(states) is Freshness.RECONCILING

    tell(database, second, ONE)
    assert freshness(states) is Freshness.LIVE
    assert states.get(ONE).worker == "f2"
    assert freshness(states, TWO) is Freshness.RECONCILING


def test_an_account_that_was_given_up_is_stale_at_once(database):
    owner, states = worker(database, "f1"), looking(database)
    owner.take(2)
    tell(database, owner, ONE, TWO)
    assert freshness(states) is Freshness.LIVE

    owner.release([ONE])

    assert (freshness(states, ONE), freshness(states, TWO)) == (Freshness.STALE, Freshness.LIVE)


def test_a_former_owner_tells_nothing(database):
    first, states = worker(database, "f1"), looking(database)
    first.take(2)
    dies(database, first)
    second = worker(database, "f2")
    second.take(2)

    tell(database, first, ONE)

    assert states.all() == {}


def test_what_was_told_earlier_and_committed_later_is_seen(database):
    owner, states = worker(database, "f1"), looking(database)
    owner.take(2)
    tell(database, owner, TWO)
    assert freshness(states, ONE) is None
    tell(database, owner, ONE)
    database.write(
        lambda connection: connection.execute(
            text("UPDATE feed_states SET changed_ns = changed_ns - 2000000000 WHERE account = 'A1'")
        )
    )

    assert freshness(states, ONE) is Freshness.LIVE


def test_what_is_gone_goes_with_the_next_whole_look(database, clock):
    owner, states = worker(database, "f1"), looking(database)
    owner.take(2)
    tell(database, owner, ONE, TWO)
    assert freshness(states) is Freshness.LIVE
    database.write(
        lambda connection: connection.execute(text("DELETE FROM feed_states WHERE account = 'A1'"))
    )
    assert freshness(states) is Freshness.LIVE

    clock.advance(10.1)

    assert (freshness(states, ONE), freshness(states, TWO)) == (None, Freshness.LIVE)
