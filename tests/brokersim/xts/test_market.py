import pytest

from brokersim.world import Settings
from brokersim.xts.settings import XtsSettings
from xts_harness import serving, story

ROOTS = ["/apibinarymarketdata", "/apimarketdata"]
MASTER = {"exchangeSegmentList": ["NSECM", "NSEFO"]}
LOGIN = {"appKey": "demoxts", "secretKey": "demoxts-secret", "source": "WEBAPI"}


async def market_token(desk):
    return (await desk.ok("POST", "/auth/login", json=LOGIN))["token"]


@pytest.mark.parametrize("root", ROOTS)
@story
async def test_master_has_rows_of_every_kind(root):
    async with serving() as desk:
        desk.base = root
        rows = [
            row.split("|") for row in (await desk.ok("POST", "/instruments/master", json=MASTER)).split("\n")
        ]

        assert {(row[2], len(row)) for row in rows} == {("8", 22), ("2", 23), ("1", 21), ("4", 21)}
        assert {row[0] for row in rows} == {"NSECM", "NSEFO"}


@story
async def test_empty_segment_is_an_empty_text():
    async with serving() as desk:
        desk.base = ROOTS[0]
        assert await desk.ok("POST", "/instruments/master", json={"exchangeSegmentList": ["NCDEX"]}) == ""
        assert (await desk.refused("POST", "/instruments/master", json={}))[0] == 400


@story
async def test_master_behind_a_token():
    async with serving(xts=XtsSettings(master_needs_token=True)) as desk:
        interactive = await desk.log_in()
        desk.base = ROOTS[0]
        call = ("POST", "/instruments/master")

        assert await desk.refused(*call, json=MASTER) == (400, "e-token-0002")
        assert await desk.refused(*call, json=MASTER, token=interactive) == (400, "e-session-0007")
        assert await desk.ok(*call, json=MASTER, token=await market_token(desk))


@story
async def test_index_list():
    async with serving() as desk:
        desk.base = ROOTS[0]
        result = await desk.ok("GET", "/instruments/indexlist", params={"exchangeSegment": "1"})

        assert "NIFTY 50_26000" in result["indexList"]
        assert (await desk.refused("GET", "/instruments/indexlist", params={"exchangeSegment": "5"}))[
            0
        ] == 400


@story
async def test_search():
    async with serving() as desk:
        desk.base = ROOTS[0]
        token = await market_token(desk)

        hits = await desk.ok("GET", "/search/instruments", token=token, params={"searchString": "nifty"})
        asked = [
            {"exchangeSegment": 1, "exchangeInstrumentID": "2885"},
            {"exchangeSegment": 2, "exchangeInstrumentID": 2885},
        ]
        by_id = await desk.ok(
            "POST", "/search/instrumentsbyid", token=token, json={"source": "WEBAPI", "instruments": asked}
        )

        assert {each["Name"] for each in hits} == {"NIFTY", "BANKNIFTY"}
        assert [each["DisplayName"] for each in by_id] == ["RELIANCE"]
        option = next(each for each in hits if each["ExchangeInstrumentID"] == 61720)
        assert (option["OptionType"], option["ContractExpirationString"]) == (3, "25Aug2026")
        refused = await desk.refused("GET", "/search/instruments", params={"searchString": "x"})
        assert refused == (400, "e-token-0002")


@story
async def test_second_day_reuses_numbers():
    async with serving(settings=Settings(reply_delay=0, push_delay=0, second_day=True)) as desk:
        desk.base = ROOTS[0]

        text = await desk.ok("POST", "/instruments/master", json=MASTER)

        assert "NSECM|20017|8|INFY|INFY-BE|BE|" in text
