"""The report's figures, made again from the raw stamps by other code; and what it looks like in each form."""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from math import ceil
from random import Random

import msgspec
import pytest

from orderwire.core.evidence import PLACED, RECEIVED, Tally, minute_of
from orderwire.core.health import FleetHealth
from orderwire.core.orders import IST, AccountId
from orderwire.core.rollout import Choice
from orderwire.core.survey import Answers
from orderwire.core.verdict import Verdict
from orderwire.errors import InvalidRequestError
from orderwire.pilot import rendering
from orderwire.pilot.evidence import Evidence
from orderwire.pilot.report import Report, asked_days, make_report
from orderwire.pilot.simulation import GOOD, play
from orderwire.store.survey import Severity, Voices

FIRST = date(2026, 11, 2)


@pytest.fixture
def voices(database):
    return Voices(database)


def at(day, hour=10, minute=0):
    moment = datetime(day.year, day.month, day.day, hour, minute, tzinfo=IST)
    return minute_of(moment.astimezone(UTC))


def a_report(records, voices, *, days=14, owners=10):
    until = FIRST + timedelta(days=days - 1)
    return make_report(records, voices, since=FIRST, until=until, owners=owners)


def nearest_rank(values, percent):
    ordered = sorted(values)
    return ordered[max(ceil(len(ordered) * percent / 100), 1) - 1]


def test_the_figures_are_those_of_the_raw_stamps(records, voices, clock, gate):
    """Stamps go through the collector into the store and the report; here the same stamps are counted by hand."""
    draw = Random(11)
    places = {
        AccountId(f"a{n}"): ("paisa" if n % 2 else "wired", "realtime" if n < 4 else "manual")
        for n in range(6)
    }
    evidence = Evidence(records, clock=clock, place_of=places.get, health=FleetHealth, depth=lambda: 0)
    raw, later, by_day = defaultdict(list), [], defaultdict(list)
    for day in range(5):
        moment = datetime(FIRST.year, FIRST.month, FIRST.day + day, 4, 30, tzinfo=UTC)
        clock.advance((moment - clock.now()).total_seconds())
        evidence.on_timer(None)
        for _ in range(60):
            account = draw.choice(list(places))
            ns = int(draw.lognormvariate(-2 if places[account][1] == "realtime" else 1, 0.5) * 1e9)
            evidence.paint(account, {PLACED: ns, "emitted": ns // 4})
            raw[places[account][1]].append(ns)
            if places[account][1] == "realtime":
                by_day[day].append(ns)
                later.append(int(draw.uniform(0.01, 0.3) * 1e9))
                evidence.paint(account, {RECEIVED: later[-1]})
            clock.advance(20)
            evidence.on_timer(None)
    evidence.flush(everything=True)

    told = a_report(records, voices)

    for cut, cohort in zip(told.cohorts, ("realtime", "manual"), strict=True):
        assert sum(cut.waits.values()) == len(raw[cohort])
        assert cut.latency.value * 1e9 == pytest.approx(nearest_rank(raw[cohort], 95), abs=0.6e6)
        assert cut.latency_p50 * 1e9 == pytest.approx(nearest_rank(raw[cohort], 50), abs=0.6e6)
    ratio = nearest_rank(raw["manual"], 50) / nearest_rank(raw["realtime"], 50)
    assert told.ratio == pytest.approx(ratio, rel=0.02)
    fast = sum(ns <= 0.1e9 for ns in later) / len(later)
    assert told.cohorts[0].updates == len(later)
    assert fast - 0.1 <= told.cohorts[0].fast <= fast
    lines = {line.day: line for line in told.days}
    for day, waits in by_day.items():
        shown = lines[FIRST + timedelta(days=day)].realtime.latency.value
        assert shown * 1e9 == pytest.approx(nearest_rank(waits, 95), abs=0.6e6)


def test_a_day_without_data_is_a_gap_and_a_weekend_is_none(records, voices):
    records.keep([Tally(minute=at(FIRST), broker="paisa", cohort="realtime", accounts=1, placed=(90_000,))])
    records.keep([Tally(minute=at(FIRST, 10, 7), broker="paisa", cohort="realtime", accounts=1)])

    told = a_report(records, voices, days=7)

    assert [line.missing for line in told.days] == [False, True, True, True, True, False, False]
    assert told.days[0].gap_minutes == 6
    assert any("4 working days have no data" in caveat for caveat in told.caveats)
    assert any("6 minutes within days" in caveat for caveat in told.caveats)


def test_the_caveat_of_missing_minutes_says_what_they_could_hide(records, voices):
    minute = {"broker": "paisa", "cohort": "realtime", "accounts": 2, "market_seconds": 120.0}
    records.keep([Tally(minute=at(FIRST, 10, n), live_seconds=120.0, **minute) for n in (0, 1, 2, 4)])

    (caveat,) = [told for told in a_report(records, voices).caveats if "not collected" in told]

    assert "1 minutes within days" in caveat
    assert "live 80.000%" in caveat


def test_a_stop_for_everybody_is_no_gap(records, voices):
    records.keep(
        [
            Tally(minute=at(FIRST, 10, n), broker="paisa", cohort=cohort, accounts=1, market_seconds=60.0)
            for n, cohort in enumerate(("realtime", "manual", "manual", "realtime"))
        ]
    )

    told = a_report(records, voices)

    assert told.days[0].gap_minutes == 0
    assert not any("not collected" in caveat for caveat in told.caveats)


def test_the_same_minutes_written_again_change_nothing(records, voices):
    minutes = [
        Tally(minute=at(FIRST, 10, n), broker="paisa", cohort="realtime", placed=(n * 1000,), events=3)
        for n in range(50)
    ]
    records.keep(minutes)
    once = a_report(records, voices)
    records.keep(minutes[20:])

    assert a_report(records, voices) == once


def test_what_comes_late_is_in_the_next_report(records, voices):
    records.keep([Tally(minute=at(FIRST), broker="paisa", cohort="realtime", placed=(1000,))])
    assert a_report(records, voices).card.latency.count == 1
    records.keep([Tally(minute=at(FIRST) - 30, broker="paisa", cohort="realtime", placed=(1000, 2000))])

    assert a_report(records, voices).card.latency.count == 3


def test_an_empty_pilot_is_not_enough_data(records, voices):
    told = a_report(records, voices)

    assert told.verdict is Verdict.NOT_ENOUGH_DATA
    assert told.ratio is None
    for text in (rendering.as_html(told), rendering.as_markdown(told)):
        assert "NOT ENOUGH DATA" in text


def test_the_survey_shows_who_is_silent(records, voices, gate, clock):
    clock.advance((datetime(2026, 11, 3, tzinfo=UTC) - clock.now()).total_seconds())
    gate.set_stage(0, who="owner", why="the pilot begins")
    answers = Answers(scales={"satisfaction": 4}, words={"next_broker": "Dhan"})
    for owner in ("a", "b"):
        voices.answer("baseline", answers, owner=owner, cohort="manual", anonymous=owner == "a")
    voices.dismiss("baseline", owner="c")

    wave = a_report(records, voices).waves[0]

    assert (wave.asked, wave.answered, wave.dismissed, wave.silent, wave.anonymous) == (10, 2, 1, 7, 1)
    assert wave.response == 0.2
    assert a_report(records, voices).demand == (("Dhan", 2),)


def test_a_wave_that_was_never_opened_has_nobody_silent(records, voices, gate, clock):
    """A fresh service: everybody on real-time updates, no decision, no survey."""
    told = a_report(records, voices)

    assert [(wave.opened, wave.asked, wave.silent) for wave in told.waves] == [(False, 0, 0)] * 2
    assert not any("wave" in caveat for caveat in told.caveats)
    for text in (rendering.as_html(told), rendering.as_markdown(told)):
        assert text.count("not opened yet") == 2

    clock.advance((datetime(2026, 11, 3, tzinfo=UTC) - clock.now()).total_seconds())
    gate.set_stage(0, who="owner", why="the pilot begins")

    assert [(wave.opened, wave.silent) for wave in a_report(records, voices).waves] == [
        (True, 10),
        (False, 0),
    ]


def test_weeks_show_their_stage_and_their_incidents(records, voices, gate, clock):
    clock.advance((datetime(2026, 11, 3, tzinfo=UTC) - clock.now()).total_seconds())
    gate.set_stage(10, who="owner", why="week 1")
    voices.open_incident(Severity.MAJOR, "stream down", who="ops")
    clock.advance(7 * 86400)
    gate.set_stage(25, who="owner", why="week 2")
    gate.choose("a", Choice.OUT, by="a")

    told = a_report(records, voices)

    assert [(week.stage, week.incidents) for week in told.weeks] == [("10 %", 1), ("25 %", 0)]
    assert told.opted_out == 1
    assert told.incidents[0].title == "stream down"


def test_what_people_write_is_text_in_every_form(records, voices):
    voices.open_incident(Severity.MINOR, "<script>alert(1)</script> | x", who="ops")

    told = a_report(records, voices)

    assert "<script>" not in rendering.as_html(told)
    assert "<script>" not in rendering.as_markdown(told)


def test_the_page_needs_nothing_else(records, voices):
    page = rendering.as_html(a_report(records, voices))

    assert "http://" not in page
    assert "https://" not in page
    assert "<script" not in page
    assert "<svg" in page


def test_the_json_is_the_whole_report():
    told = play(GOOD, weeks=3, users=30, minutes=5, seed=1).report
    given = json.loads(rendering.as_json(told))

    assert told.cohorts[0].waits
    assert given.pop("verdict") == told.verdict
    assert msgspec.convert(given, Report, strict=False) == told


@pytest.mark.needs("chromium")
def test_the_pdf_is_printed(records, voices):
    assert rendering.as_pdf(a_report(records, voices)).startswith(b"%PDF-")


def test_without_a_browser_a_pdf_is_refused_in_a_sentence(records, voices, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(Exception, match="printed by Chromium, and none was found"):
        rendering.as_pdf(a_report(records, voices))


@pytest.mark.parametrize(
    ("since", "until", "said"),
    [
        ("yesterday", None, "is no day"),
        ("2026-11-05", "2026-11-04", "is before"),
        ("2020-01-01", None, "at most 400 days"),
    ],
)
def test_wrong_days_are_refused(records, since, until, said):
    with pytest.raises(InvalidRequestError, match=said):
        asked_days(records, since, until, today=date(2026, 11, 20))
