from __future__ import annotations

import asyncio

from orderwire.brokers.xts.checklist import first_day
from scripted_xts import OPEN, ScriptedXts, error, serving, stay_connected, success, welcome
from xts_desk import DeskXts, adapter_of, profile_at

LOGIN = success(
    {"token": "REAL-TOKEN", "userID": "JN0042", "isInvestorClient": True, "clientCodes": ["JN0042"]}
)


def answer_to(asked):
    """The real token's book is empty; any other token is refused."""
    if asked.token == "REAL-TOKEN":
        return error("e-orders-0005", "Data Not Available")
    return error("e-session-0007", "Invalid Token")


def findings(talk=stay_connected, more=None):
    async def story():
        replies = {
            ("POST", "/interactive/user/session"): LOGIN,
            ("GET", "/interactive/orders"): answer_to,
            ("GET", "/interactive/orders/trades"): success([]),
            ("GET", "/interactive/portfolio/positions"): success({"positionList": []}),
            ("GET", "/interactive/user/balance"): success({"BalanceList": []}),
        }
        scripted = ScriptedXts(answers={**replies, **(more or {})}, talk=talk)
        async with serving(scripted) as host, adapter_of(DeskXts, profile_at(host.url)) as (adapter, _):
            return [finding async for finding in first_day(adapter, seconds=0.1)], adapter

    return asyncio.run(asyncio.wait_for(story(), 20))


def test_a_host_that_behaves_as_documented_passes_and_tells_its_facts():
    found, adapter = findings()

    told = {finding.name: finding.detail for finding in found}
    assert all(finding.ok for finding in found)
    assert "empty" in told["order book"]
    assert '"pingInterval":25000' in told["stream"]
    assert "Engine.IO 3" in told["stream"]
    assert "joined 1" in told["events"]
    assert "recognised" in told["stale token"]
    assert adapter.session.secrets["token"] == "REAL-TOKEN"
    assert not any("REAL-TOKEN" in finding.detail for finding in found)


def test_a_refused_login_is_all_there_is():
    refused = {("POST", "/interactive/user/session"): error("e-user-1", "no such key")}

    (login,), _ = findings(more=refused)

    assert (login.name, login.ok) == ("login", False)
    assert "no such key" in login.detail


def test_a_failing_read_is_a_finding_and_the_list_goes_on():
    found, _ = findings(more={("GET", "/interactive/user/balance"): error("e-x", "boom", status=500)})

    assert [finding.name for finding in found if not finding.ok] == ["balance"]
    assert found[-1].name == "stale token"


def test_a_stream_that_never_joins_is_told_for_both_revisions():
    async def talk(line):
        await line.say(OPEN, "1")
        await line.deaf()

    found, _ = findings(talk)

    streams = [finding for finding in found if finding.name == "stream"]
    assert [finding.ok for finding in streams] == [False, False]
    assert "BrokerUnreachableError" in streams[0].detail


def test_a_stream_that_ends_early_is_told():
    async def talk(line):
        await welcome(line)
        await line.say("41")
        await line.deaf()

    found, _ = findings(talk)

    (events,) = [finding for finding in found if finding.name == "events"]
    assert not events.ok
    assert "ended early" in events.detail


def test_a_host_that_takes_any_token_is_told():
    found, _ = findings(more={("GET", "/interactive/orders"): success([])})

    assert [finding.name for finding in found if not finding.ok] == ["stale token"]
