from __future__ import annotations

import asyncio

from orderwire.brokers.checklist import first_day
from orderwire.brokers.xts import checklist
from scripted_xts import (
    JOINED,
    OPEN,
    OPEN_4,
    Reply,
    ScriptedXts,
    error,
    serving,
    stay_connected,
    success,
    until,
    welcome,
)
from xts_desk import DeskXts, adapter_of, listening, logged_in, profile_at

LOGIN = success(
    {"token": "REAL-TOKEN", "userID": "JN0042", "isInvestorClient": True, "clientCodes": ["JN0042"]}
)


def answer_to(asked):
    """The real token's book is empty; any other token is refused."""
    if asked.token == "REAL-TOKEN":
        return error("e-orders-0005", "Data Not Available")
    return error("e-session-0007", "Invalid Token")


def balance_of(asked):
    return success({"BalanceList": []}) if asked.token == "REAL-TOKEN" else answer_to(asked)


MASTER = (
    "NSECM|3045|8|SBIN|SBIN-EQ|EQ|SBIN-EQ|1100100003045|912.5|747.5|100000|0.05|1|1|SBIN|INE062A01020|1|1|SBI"
)
REPLIES = {
    ("POST", "/interactive/user/session"): LOGIN,
    ("GET", "/interactive/orders"): answer_to,
    ("GET", "/interactive/orders/trades"): success([]),
    ("GET", "/interactive/portfolio/positions"): success({"positionList": []}),
    ("GET", "/interactive/user/balance"): balance_of,
    ("POST", "/apibinarymarketdata/instruments/master"): success(MASTER),
    ("GET", "/apibinarymarketdata/instruments/indexlist"): success({"indexList": []}),
}


async def known_only(line):
    """Join whoever has the real token, refuse the others."""
    if line.query["token"] == "REAL-TOKEN":
        await stay_connected(line)
    else:
        await line.say(OPEN, '44"Invalid Token"')
        await line.deaf()


def run(work):
    return asyncio.run(asyncio.wait_for(work, 20))


def findings(talk=known_only, more=None, seconds=0.1):
    async def story():
        scripted = ScriptedXts(answers={**REPLIES, **(more or {})}, talk=talk)
        async with serving(scripted) as host, adapter_of(DeskXts, profile_at(host.url)) as (adapter, _):
            found = first_day(adapter, seconds=seconds, log_in=lambda: adapter.login({}))
            return [finding async for finding in found], adapter

    return run(story())


def wrong(found):
    return [finding.name for finding in found if not finding.ok]


def test_a_host_that_behaves_as_documented_passes_and_tells_its_facts():
    found, adapter = findings()

    told = {finding.name: finding.detail for finding in found}
    assert wrong(found) == []
    assert "client_codes JN0042" in told["login"]
    assert told["order book"] == 'empty: HTTP 400, "Data Not Available" (e-orders-0005)'
    assert told["trade book"] == 'empty: HTTP 200, "ok" (s-x)'
    assert told["instruments"] == "1 instruments"
    assert told["stale login"] == 'refused: HTTP 400, "Invalid Token" (e-session-0007)'
    assert "the stream ended: Invalid Token" in told["stale login at the socket"]
    assert '"pingInterval":25000,"pingTimeout":20000' in told["stream"]
    assert told["stream"].startswith("Engine.IO 3, open packet ")
    assert told["events"] == "in 0.1 s: joined 1; unreadable 0"
    assert adapter.session.secrets["token"] == "REAL-TOKEN"
    assert not any("REAL-TOKEN" in finding.detail for finding in found)


def test_a_refused_login_is_all_there_is():
    refused = {("POST", "/interactive/user/session"): error("e-user-1", "no such key")}

    (login,), _ = findings(more=refused)

    assert (login.name, login.ok) == ("login", False)
    assert "no such key" in login.detail


def test_a_failing_read_is_a_finding_and_the_list_goes_on():
    found, _ = findings(more={("GET", "/interactive/user/balance"): error("e-x", "boom", status=500)})

    assert wrong(found) == ["funds"]
    assert found[-1].name == "events"


def test_an_html_page_instead_of_a_book_is_told():
    found, _ = findings(
        more={("GET", "/interactive/orders/trades"): Reply(status=404, body="<html>nginx</html>")}
    )

    assert wrong(found) == ["trade book"]


def test_a_stream_that_never_joins_is_told_for_both_revisions():
    async def talk(line):
        await line.say(OPEN, "1")
        await line.deaf()

    found, _ = findings(talk)

    assert wrong(found) == ["stale login at the socket", "stream"]
    assert found[-1].detail.count("BrokerUnreachableError") == 2


def test_a_host_of_the_newer_generation_is_found_out():
    async def talk(line):
        if line.query["token"] != "REAL-TOKEN":
            await known_only(line)
        elif line.query["EIO"] == "3":
            await line.say("garbage")
        else:
            await line.say(OPEN_4)
            await line.hear()
            await line.say('40{"sid":"S2"}', JOINED)
            await line.deaf()

    found, _ = findings(talk)

    (stream,) = [finding for finding in found if finding.name == "stream"]
    assert stream.ok
    assert "Engine.IO 4" in stream.detail
    assert '"maxPayload":1000000' in stream.detail


def test_a_stream_that_ends_early_is_told():
    async def talk(line):
        if line.query["token"] != "REAL-TOKEN":
            await known_only(line)
            return
        await welcome(line)
        await line.say("41")
        await line.deaf()

    found, _ = findings(talk, seconds=5)

    (events,) = [finding for finding in found if finding.name == "events"]
    assert not events.ok
    assert "ended early" in events.detail


def test_events_that_cannot_be_read_are_told():
    async def talk(line):
        if line.query["token"] != "REAL-TOKEN":
            await known_only(line)
            return
        await welcome(line)
        await line.event("order", "{broken")
        await line.say("41")
        await line.deaf()

    found, _ = findings(talk, seconds=5)

    assert "unreadable 1" in found[-1].detail


def test_a_host_that_takes_any_token_is_told(monkeypatch):
    monkeypatch.setattr(checklist, "_REFUSED_WITHIN", 0.2)

    found, _ = findings(stay_connected, more={("GET", "/interactive/orders"): success([])})

    assert wrong(found) == ["stale login", "stale login at the socket"]


def test_a_running_feed_is_looked_at_and_left_alone():
    async def story():
        scripted = ScriptedXts(answers=REPLIES, talk=known_only)
        async with serving(scripted) as host, adapter_of(DeskXts, profile_at(host.url)) as (adapter, _):
            adapter.session = logged_in(host.url, token="REAL-TOKEN")
            told = []
            adapter.on_listening = told.append
            async with listening(adapter) as feed:
                await until(lambda: adapter.listening)
                found = [finding async for finding in first_day(adapter, seconds=0.05)]
                return found, list(told), feed.done(), scripted, adapter.session

    found, told, ended, scripted, session = run(story())

    assert wrong(found) == []
    assert (told, ended, session.secrets["token"]) == ([True], False, "REAL-TOKEN")
    assert scripted.calls("/interactive/user/session") == []
    assert [line.query["token"] for line in scripted.lines] == ["REAL-TOKEN", "0"]


def test_a_running_feed_without_a_login_is_told_what_to_do():
    async def story():
        async with adapter_of(DeskXts, profile_at("http://127.0.0.1:9")) as (adapter, _):
            return [finding async for finding in first_day(adapter, seconds=0)]

    (login,) = run(story())

    assert not login.ok
    assert "orderwire accounts login acc" in login.detail
