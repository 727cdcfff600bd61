"""A restart, clean or not, goes on with the same books; a file that is not ours is refused and kept."""

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from dataclasses import replace
from decimal import Decimal

import pytest

from brokersim.kite.app import Kite
from brokersim.orders import OrderType, Stage
from brokersim.state import FORMAT, VERSION, Keeper, StateError
from brokersim.users import KiteApp, KiteUser, XtsKind, XtsLogin
from brokersim.world import Settings, World
from brokersim.xts.app import XtsFront

START = 1_786_953_200.0  # Monday 17 August 2026, 13:23:20 in India
SBIN = "NSE:SBIN"
INFY = "NSE:INFY"
LIMIT = {
    "exchange": "NSE",
    "tradingsymbol": "SBIN",
    "transaction_type": "BUY",
    "quantity": "10",
    "product": "CNC",
    "order_type": "LIMIT",
    "price": "800",
}
XTS_LIMIT = {
    "exchangeSegment": "NSECM",
    "exchangeInstrumentID": 3045,
    "productType": "MIS",
    "orderType": "LIMIT",
    "orderSide": "BUY",
    "timeInForce": "DAY",
    "disclosedQuantity": 0,
    "orderQuantity": 50,
    "limitPrice": 800,
    "stopPrice": 0,
    "orderUniqueIdentifier": "sim-0001",
}


class Brokers:
    """Both brokers on one world whose time stands still, and their keeper."""

    def __init__(self, path, at=START, **options):
        defaults = {"liquidity": False, "walking": False}
        self.world = World(settings=Settings(reply_delay=0, push_delay=0), start=at, **(defaults | options))
        self.kite, self.xts = Kite(self.world), XtsFront(self.world)
        self.keeper = Keeper(self.world, path, period=0.01)
        self.path = path
        self.keeper.restore()
        self.exchange = self.world.exchange

    def session(self, user="ZD0001", api_key="demokite"):
        return self.kite.sessions.open(api_key, user, self.world.timeline.date)

    def place(self, user="ZD0001", variety="regular", **form):
        return self.kite.desk.place(self.session(user), variety, LIMIT | form)["order_id"]

    def place_xts(self, client="JN0001", **fields):
        return self.xts.desk.place_from_terminal(client, XTS_LIMIT | fields).order_id

    def pass_time(self, seconds=1.0):
        self.world.timeline.advance_by(seconds)

    async def restarted(self, after=0.0):
        await self.keeper.save()
        await self.world.shut_down()
        return Brokers(self.path, self.world.timeline.now + after)

    def xts_views(self, order_id):
        return self.xts.desk.book.lives[order_id]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "brokers.json"


def on_a_loop(story):
    def run(path):
        asyncio.run(asyncio.wait_for(story(path), 30))

    run.__name__, run.__doc__ = story.__name__, story.__doc__
    return run


def by_owner(accounts):
    return {
        owner: (each.cash, each.used, each.blocked, dict(each.holdings)) for owner, each in accounts.items()
    }


@on_a_loop
async def test_every_order_history_and_trade_is_as_before(path):
    before = Brokers(path)
    filled, resting, refused = before.place(), before.place(price="799.9"), before.place(quantity="1000000")
    stop = before.place(order_type="SL", price="835", trigger_price="834.5", tag="mine")
    xts = before.place_xts()
    before.pass_time()
    before.exchange.fill(f"kite:{filled}", 4, Decimal("799.5"))
    before.exchange.fill(f"kite:{filled}", 6)
    before.exchange.fill(f"xts:{xts}", 20)
    before.kite.desk.modify(before.session(), "regular", resting, {"price": "799.8"})
    before.pass_time()

    after = await before.restarted()

    assert after.exchange.orders() == before.exchange.orders()
    for uid in [f"kite:{each}" for each in (filled, resting, refused, stop)] + [f"xts:{xts}"]:
        assert after.exchange.history(uid) == before.exchange.history(uid)
        assert after.exchange.trades_of(uid) == before.exchange.trades_of(uid)
    assert after.exchange.order(f"kite:{refused}").stage is Stage.REJECTED
    assert after.xts_views(xts) == before.xts_views(xts)
    assert [each.status for each in after.xts_views(xts).views] == ["PendingNew", "New", "PartiallyFilled"]
    assert after.xts.desk.positions.of("JN0001") == before.xts.desk.positions.of("JN0001")
    assert by_owner(after.world.users.accounts) == by_owner(before.world.users.accounts)


@on_a_loop
async def test_what_is_written_twice_is_read_the_same(path):
    """The second save adds to orders that the first one wrote."""
    before = Brokers(path)
    order_id = before.place()
    before.pass_time()
    await before.keeper.save()
    before.exchange.fill(f"kite:{order_id}", 3)
    before.kite.desk.cancel(before.session(), "regular", order_id)
    before.pass_time()

    once = await before.restarted()
    twice = await once.restarted()

    assert twice.exchange.history(f"kite:{order_id}") == before.exchange.history(f"kite:{order_id}")
    assert twice.exchange.order(f"kite:{order_id}").stage is Stage.CANCELLED


@on_a_loop
async def test_live_orders_are_modified_filled_and_cancelled_afterwards(path):
    before = Brokers(path)
    one, other, xts = before.place(), before.place(), before.place_xts()
    before.pass_time()

    after = await before.restarted(after=60)
    after.kite.desk.modify(after.session(), "regular", one, {"price": "801"})
    after.kite.desk.cancel(after.session(), "regular", other)
    after.exchange.fill(f"xts:{xts}", 50)
    after.pass_time()
    seller = after.place("ZD0002", transaction_type="SELL", price="801")
    after.pass_time()

    assert [after.exchange.order(f"kite:{each}").stage for each in (one, other, seller)] == [
        Stage.FILLED,
        Stage.CANCELLED,
        Stage.FILLED,
    ]
    assert after.xts_views(xts).now.status == "Filled"


@pytest.mark.parametrize("style", ["19", "15", "mixed"])
def test_ids_never_come_again_even_if_the_last_orders_were_not_saved(path, style):
    async def story():
        brokers, seen, numbers = Brokers(path), [], []
        for _ in range(3):
            brokers.world.settings = replace(brokers.world.settings, kite_order_ids=style)
            seen += [brokers.place() for _ in range(3)] + [brokers.place_xts()]
            brokers.pass_time()
            await brokers.keeper.save()
            unsaved = [brokers.place(), brokers.place_xts()]
            brokers.pass_time(0.05)
            seen += unsaved
            numbers += [
                each.exchange_order_id for each in brokers.exchange.orders() if each.order_id in seen[-6:]
            ]
            await brokers.world.shut_down()
            brokers = Brokers(path, START)  # and the clock was set back
            assert not {each.order_id for each in brokers.exchange.orders()} & set(unsaved)
        assert len(set(seen)) == len(seen)
        assert "" not in numbers
        assert len(set(numbers)) == len(numbers)

    asyncio.run(story())


@on_a_loop
async def test_added_users_apps_and_changed_money_are_there_again(path):
    before = Brokers(path)
    users = before.world.users
    users.add_kite_app(KiteApp(api_key="another", api_secret="s", app_id=7, allowed_ips=("10.0.0.1",)))
    users.change_kite_app("demokite", api_secret="new", old_secret="demokite-secret")
    users.add_kite_user(KiteUser(user_id="NEW001", password="p", name="New"), cash=Decimal("1234.50"))
    users.add_xts_login(
        XtsLogin(kind=XtsKind.DEALER, app_key="k", secret_key="s", login_id="D", clients=("A", "B"))
    )

    after = (await before.restarted()).world.users

    assert (after.kite_apps, after.kite_users, after.xts_logins, after.accounts) == (
        users.kite_apps,
        users.kite_users,
        users.xts_logins,
        users.accounts,
    )


@on_a_loop
async def test_everybody_is_logged_out(path):
    before = Brokers(path)
    token = before.session().access_token

    after = await before.restarted()

    assert token not in path.read_text()
    assert not list(after.xts.sessions.living(after.world.timeline.now))


@on_a_loop
async def test_prices_and_a_stopped_market_are_as_before(path):
    before = Brokers(path)
    before.exchange.set_price(SBIN, Decimal("815.05"))
    before.exchange.pause(SBIN)
    before.exchange.close()

    after = await before.restarted()

    assert after.exchange.quote(SBIN) == before.exchange.quote(SBIN)
    assert after.exchange.books() == replace(
        before.exchange.books(), order_numbers=100_000, trade_numbers=after.exchange.books().trade_numbers
    )


@on_a_loop
async def test_an_iceberg_a_cover_order_and_a_gtt_go_on(path):
    before = Brokers(path)
    first = before.place(variety="iceberg", quantity="20", iceberg_legs="2", iceberg_quantity="10")
    cover = before.place(variety="co", product="MIS", trigger_price="790")
    trigger = {
        "type": "single",
        "condition": json.dumps(
            {"exchange": "NSE", "tradingsymbol": "SBIN", "trigger_values": [830], "last_price": 820}
        ),
        "orders": json.dumps(
            [{key: value for key, value in LIMIT.items() if key != "price"} | {"price": 830}]
        ),
    }
    before.kite.triggers.place(before.session(), trigger)
    before.pass_time()

    after = await before.restarted()
    for each in (first, cover):
        after.exchange.fill(f"kite:{each}", 10)
    after.exchange.set_price(SBIN, Decimal(831))
    after.pass_time()

    orders = after.exchange.orders()
    assert [each.request.parent_id for each in orders] == ["", "", first, cover, ""]
    assert orders[3].terms.type is OrderType.SLM
    (gtt,) = after.kite.triggers.listing(after.session())
    assert (gtt["id"], gtt["status"]) == (1, "triggered")
    assert gtt["orders"][0]["result"]["order_result"]["order_id"] == orders[4].order_id


@on_a_loop
async def test_converted_positions_stay_converted(path):
    before = Brokers(path)
    order_id = before.place_xts()
    before.pass_time()
    before.exchange.fill(f"xts:{order_id}", 50)
    positions = before.xts.desk.positions
    positions.convert("JN0001", positions.of("JN0001")[0], "CNC", 20)

    after = await before.restarted()

    rows = {each.product: each.quantity for each in after.xts.desk.positions.of("JN0001")}
    assert rows == {"MIS": 30, "CNC": 20}


@on_a_loop
async def test_the_next_session_day_begins_with_an_empty_book_and_settled_money(path):
    before = Brokers(path)
    delivery, intraday, sold = (
        before.place(),
        before.place(product="MIS"),
        before.place_xts(orderSide="SELL", limitPrice=830),
    )
    open_order = before.place(product="NRML")
    before.pass_time()
    for uid, quantity in ((f"kite:{delivery}", 10), (f"kite:{intraday}", 4), (f"xts:{sold}", 50)):
        before.exchange.fill(uid, quantity, Decimal(800))
    before.exchange.close()
    before.exchange.set_price(SBIN, Decimal(810))

    after = await before.restarted(after=86_400)

    assert after.exchange.orders() == []
    assert list(after.xts.desk.book.of(("JN0001",))) == []
    assert after.xts.desk.positions.of("JN0001") == []
    kite = after.world.users.account("kite", "ZD0001")
    assert (kite.cash, kite.used, kite.blocked) == (10_000_000 - 8_000 + 40, 0, {})
    assert kite.holdings == {INFY: (20, Decimal("1466.2")), SBIN: (110, Decimal("783.0455"))}
    xts = after.world.users.account("xts", "JN0001")
    assert (xts.cash, xts.used) == (10_000_000 - 500, 0)
    fresh = after.place()
    after.pass_time()
    assert fresh not in {delivery, intraday, open_order}
    assert after.exchange.order(f"kite:{fresh}").stage is Stage.OPEN


@on_a_loop
async def test_the_day_breaks_at_six_in_india_also_for_a_program_that_ran_on(path):
    six = START - (7 * 60 + 23) * 60 - 20
    before = Brokers(path, six - 2)
    early, early_xts = before.place(), before.place_xts()
    before.pass_time(3)
    late, late_xts = before.place(), before.place_xts()
    before.pass_time()
    for uid in (f"xts:{early_xts}", f"xts:{late_xts}"):
        before.exchange.fill(uid, 50, Decimal(800))

    after = await before.restarted()

    assert {each.order_id for each in after.exchange.orders()} == {late, late_xts}
    assert early not in after.world.users.account("kite", "ZD0001").blocked
    assert [each.quantity for each in after.xts.desk.positions.of("JN0001")] == [50]
    assert after.world.users.account("xts", "JN0001").used == 50 * 800 * Decimal("0.2")


@on_a_loop
async def test_it_saves_by_itself_soon_after_a_change(path):
    brokers = Brokers(path)
    brokers.keeper.begin()
    order_id = brokers.place()

    await until(lambda: order_id in path.read_text())
    brokers.world.users.add_kite_user(KiteUser(user_id="LATER1", password="p", name="Later"))
    await until(lambda: "LATER1" in path.read_text())
    await brokers.world.shut_down()
    brokers.pass_time()
    await brokers.keeper.finish()

    assert Brokers(path).exchange.order(f"kite:{order_id}").stage is Stage.OPEN
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert path.stat().st_mode & 0o077 == 0


@on_a_loop
async def test_it_does_not_write_when_nothing_but_prices_moved(path):
    brokers = Brokers(path)
    brokers.keeper.begin()
    written = path.stat().st_ino
    looks = []
    is_due = brokers.keeper._is_due
    brokers.keeper._is_due = lambda: looks.append(is_due()) or looks[-1]

    brokers.exchange._markets[SBIN].wander(2)
    await until(lambda: len(looks) > 3)
    await brokers.world.shut_down()

    assert not any(looks)
    assert path.stat().st_ino == written


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what is waited for is a file on the disk
            await asyncio.sleep(0.005)


@on_a_loop
async def test_a_failing_disk_is_told_once_and_the_state_written_later(path):
    brokers = Brokers(path)
    brokers.keeper.begin()
    (path.parent / f"{path.name}.new").mkdir()
    order_id = brokers.place()
    await until(lambda: brokers.keeper._failing)

    (path.parent / f"{path.name}.new").rmdir()
    await until(lambda: order_id in path.read_text())
    await brokers.world.shut_down()

    assert f"kite:{order_id}" in {each.uid for each in Brokers(path).exchange.orders()}


def saved(path):
    async def story():
        brokers = Brokers(path)
        order_id = brokers.place()
        brokers.pass_time()
        brokers.exchange.fill(f"kite:{order_id}", 4)
        await brokers.keeper.save()
        await brokers.world.shut_down()

    asyncio.run(story())
    return json.loads(path.read_text())


def cut(document, *where):
    for key in where[:-1]:
        document = document[key]
    del document[where[-1]]


def put(document, *where, value):
    for key in where[:-1]:
        document = document[key]
    document[where[-1]] = value


DAMAGES = {
    "another format": lambda it: put(it, "format", value="something"),
    "a later version": lambda it: put(it, "version", value=VERSION + 1),
    "no memory": lambda it: cut(it, "memory"),
    "no money": lambda it: cut(it, "memory", "users", "accounts", 0, "cash"),
    "money that is none": lambda it: put(it, "memory", "users", "accounts", 0, "cash", value="NaN"),
    "a number that is none": lambda it: put(it, "memory", "kite", "numbers", value="7"),
    "an unknown field": lambda it: put(it, "memory", "xts", "colour", value=1),
    "an unknown contract": lambda it: put(it, "orders", 0, "request", "instrument", value="NSE:NONE"),
    "an unknown stage": lambda it: put(it, "orders", 0, "steps", 0, "stage", value="SLEEPING"),
    "a time without offset": lambda it: put(it, "saved_at", value="2026-08-17T12:00:00"),
    "an order without steps": lambda it: put(it, "orders", 0, "steps", value=[]),
    "a first step with holes": lambda it: cut(it, "orders", 0, "steps", 0, "terms"),
    "a lost trade": lambda it: put(it, "orders", 0, "trades", value=[]),
    "a changed trade": lambda it: put(it, "orders", 0, "trades", 0, "quantity", value=5),
    "an order twice": lambda it: it["orders"].append(it["orders"][0]),
    "an order in no book": lambda it: put(it, "memory", "exchange", "queued", value={}),
    "orders that are none": lambda it: put(it, "orders", value={"a": 1}),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_document_is_refused_in_one_line_and_kept(path, damage):
    document = saved(path)
    DAMAGES[damage](document)
    path.write_text(json.dumps(document))
    text = path.read_text()

    with pytest.raises(StateError, match="kept as it is") as caught:
        Brokers(path)

    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert path.read_text() == text


@pytest.mark.parametrize("part", [0, 1, 0.3, 0.9, -3])
def test_a_cut_file_is_refused(path, part):
    saved(path)
    text = path.read_text()
    path.write_text(text[: int(part * len(text)) if 0 < part < 1 else int(part)])

    with pytest.raises(StateError, match="kept as it is"):
        Brokers(path)


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00", b"[1, 2]", b"null", b"SQLite format 3\x00", b"[" * 100_000]
)
def test_a_foreign_file_is_refused(path, content):
    path.write_bytes(content)

    with pytest.raises(StateError, match="kept as it is"):
        Brokers(path)

    assert path.read_bytes() == content


# --- the program -----------------------------------------------------------------------------------------


class Program:
    def __init__(self, path, *more):
        ports = ("--kite-port", "0", "--xts-port", "0", "--control-port", "0")
        command = [sys.executable, "-m", "brokersim", "serve", *ports, "--state", str(path), *more]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def ready(self):
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()
        self.url = json.loads(line)["control"]
        return self

    def call(self, method, url, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + url, data, method=method)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read())["data"]

    def stage(self, uid):
        return self.call("GET", f"/orders/{urllib.parse.quote(uid)}")["history"][-1]["stage"]

    def end(self, number):
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        return self.process.communicate(timeout=20)[1]


@pytest.fixture
def program(path):
    started = []

    def start(*more):
        started.append(Program(path, *more))
        return started[-1]

    yield start
    for each in started:
        each.end(signal.SIGKILL)


def eventually(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "not within 20 s"
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_orders_survive_the_program(program, path, number):
    first = program().ready()
    form = LIMIT | {"user": "ZD0001", "price": "780"}
    uid = "kite:" + first.call("POST", "/kite/orders/regular", form)["order_id"]
    eventually(lambda: first.stage(uid) == "OPEN")
    if number == signal.SIGKILL:
        eventually(lambda: '"stage":"OPEN"' in path.read_text())

    assert first.end(number) == ""
    second = program().ready()

    assert second.stage(uid) == "OPEN"
    second.call("POST", "/market/fill", {"uid": uid, "quantity": 10})
    assert second.stage(uid) == "FILLED"
    assert second.end(signal.SIGTERM) == ""
    assert second.process.returncode == 0


def test_a_foreign_file_ends_the_program_with_one_line(program, path):
    path.write_text(json.dumps({"format": FORMAT}))

    said = program()
    error = said.process.communicate(timeout=20)[1]

    assert said.process.returncode == 1
    assert error.startswith(f"brokersim: cannot go on with the state file {path}: its version is None")
    assert error.count("\n") == 1
    assert path.read_text() == json.dumps({"format": FORMAT})


def test_a_file_that_cannot_be_written_ends_the_program_with_one_line(program, path):
    (path.parent / f"{path.name}.new").mkdir()

    said = program()
    error = said.process.communicate(timeout=20)[1]

    assert said.process.returncode == 1
    assert error == f"brokersim: cannot write the state file {path}: Is a directory\n"


def test_the_command_line_wins_over_the_remembered_app(program):
    first = program("--kite-postback-url", "http://127.0.0.1:9/a").ready()
    first.end(signal.SIGTERM)

    second = program("--kite-postback-url", "http://127.0.0.1:9/b").ready()

    apps = {each["api_key"]: each["postback_url"] for each in second.call("GET", "/users")["kite_apps"]}
    assert apps["demokite"] == "http://127.0.0.1:9/b"
