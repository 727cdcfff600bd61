"""The stream's two promises at length: after any disconnects a client holds the snapshot, and nobody is told a stranger's.

Sizes: `make stream-truth` runs 10,000 disconnects and 100,000 deliveries.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from contextlib import ExitStack

import pytest

from orderwire.client import OrderStream
from orderwire.core.orders import AccountId, OrderStatus
from orderwire.store.users import Scope
from web.follower import Follower
from web.house import order

DISCONNECTS = int(os.environ.get("ORDERWIRE_DISCONNECTS", "1000"))
DELIVERIES = int(os.environ.get("ORDERWIRE_DELIVERIES", "10000"))
ROWS = 12
ACC = AccountId("acc")


@pytest.mark.timeout(3600)
def test_after_any_disconnects_the_clients_view_is_the_snapshot(server, record_property):
    chance = random.Random(1)
    follower = Follower([server.url], server.services.users.add_key("asha", scope=Scope.READ)[1], ACC, chance)
    done = threading.Event()

    def trade():
        """Changes go on while the client comes and goes, paced so that its log can be replayed now and then."""
        mine, number = random.Random(2), 0
        while not done.is_set():
            number += 1
            status = OrderStatus.OPEN if number % 5 else OrderStatus.FILLED
            server.publish(order(number=mine.randrange(ROWS), filled_quantity=number % 10, status=status))
            done.wait(mine.random() * 0.004)

    server.publish(*(order(number=number) for number in range(ROWS)))
    trader = threading.Thread(target=trade)
    trader.start()
    started = time.monotonic()
    try:
        for round_ in range(DISCONNECTS):
            follower.live_a_while(events=chance.randrange(4))
            if round_ % 97 == 0:
                follower.cursor = {}  # a program that kept nothing
    finally:
        done.set()
        trader.join()
    follower.catch_up(server.log.heads[ACC])

    held = {row["row"]: row for row in server.web.realtime.snapshot(ACC)["orders"]}
    fields = ("status", "filled_quantity", "pending_quantity", "order_status")
    assert {row: [line[f] for f in fields] for row, line in follower.rows.items()} == {
        row: [line[f] for f in fields] for row, line in held.items()
    }
    record_property(
        "figure",
        f"stream: {DISCONNECTS} disconnects at random moments, {follower.taken} deliveries taken, "
        f"{follower.snapshots} snapshots: the client's view equals the snapshot "
        f"({time.monotonic() - started:.0f} s)",
    )


@pytest.mark.timeout(1800)
def test_nobody_is_told_a_strangers_order(server, record_property):
    users = {"asha": ["acc", "acc2"], "ravi": ["his"], "jay": ["jays", "jays2", "jays3"]}
    for name in ("ravi", "jay"):
        server.user(name)
    for name, accounts in users.items():
        for account in accounts:
            if account != "acc":
                server.account(account, name)
    every = [account for accounts in users.values() for account in accounts]
    told: Counter[tuple[str, str]] = Counter()
    chance = random.Random(3)

    with ExitStack() as opened:
        streams = [
            (name, opened.enter_context(OrderStream(server.url, apikey=key)))
            for name in users
            for key in [server.services.users.add_key(name, scope=Scope.READ)[1]]
            for _ in range(3)
        ]
        while sum(told.values()) < DELIVERIES:
            for _ in range(20):
                server.publish(*(order(account, chance.randrange(400)) for account in every))
            for name, stream in streams:
                while (event := stream.next(timeout=0.001)) is not None:
                    told[name, event.fields["account"]] += 1

    strangers = {pair: number for pair, number in told.items() if pair[1] not in users[pair[0]]}
    assert strangers == {}
    assert {account for _, account in told} == set(every)
    record_property(
        "figure", f"stream: {sum(told.values())} deliveries to 9 clients of 3 users, 0 to the wrong account"
    )
