from datetime import UTC, date, datetime

import pytest

from orderwire.core.evidence import Tally, minute_of
from orderwire.pilot.draft import WeeklyDraft
from orderwire.store.survey import Voices

MONDAY = date(2026, 11, 9)


@pytest.fixture
def draft(records, database, clock, tmp_path):
    return WeeklyDraft(records, Voices(database), folder=tmp_path, owners=lambda: 3, clock=clock)


def minute(day):
    return minute_of(datetime(2026, 11, day, 6, tzinfo=UTC))


def test_without_data_there_is_no_draft(draft):
    assert draft.write(MONDAY) is None


def test_a_week_that_is_over_is_written_once(draft, records, tmp_path):
    records.keep([Tally(minute=minute(4), broker="paisa", cohort="realtime", placed=(90_000,))])

    page = draft.write(MONDAY)

    assert page == tmp_path / "reports/draft-2026-11-08.html"
    assert "90 ms" in page.read_text()
    assert page.with_suffix(".md").exists()
    assert draft.write(date(2026, 11, 12)) is None


def test_the_running_week_waits(draft, records):
    records.keep([Tally(minute=minute(9), broker="paisa", cohort="realtime", placed=(90_000,))])

    assert draft.write(MONDAY) is None


def test_the_service_looks_by_its_clock(draft, records, clock, tmp_path):
    clock.advance((datetime(2026, 11, 16, 3, tzinfo=UTC) - clock.now()).total_seconds())
    records.keep([Tally(minute=minute(9), broker="paisa", cohort="realtime", placed=(90_000,))])

    draft.on_timer(None)

    assert (tmp_path / "reports/draft-2026-11-15.html").exists()
