from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec.structs import replace

from orderwire.core.alerts import Alert, Notice, Severity, Silence
from orderwire.core.orders import AccountId
from orderwire.errors import InvalidRequestError, NotFoundError
from orderwire.store import alerts, audit, retention

SECOND = 10**9
ALERT = Alert(
    rule="StreamDisconnected",
    severity=Severity.CRITICAL,
    labels=(("broker", "wired"),),
    value=12.0,
    limit=10.0,
    unit="s",
    summary="It is down.",
)
OTHER = replace(ALERT, labels=(("broker", "other"),))


def test_the_history_says_when_each_alert_was_raised_and_cleared_newest_first(database, clock):
    at = clock.time_ns()
    database.write(lambda c: alerts.keep_raised(c, ALERT, at))
    database.write(lambda c: alerts.keep_raised(c, OTHER, at + SECOND))
    database.write(lambda c: alerts.keep_cleared(c, ALERT, at + 5 * SECOND))

    newest, oldest = alerts.history(database)

    assert (newest.broker, newest.cleared_at) == ("other", None)
    assert (oldest.broker, oldest.rule, oldest.severity) == ("wired", "StreamDisconnected", "critical")
    assert oldest.cleared_at - oldest.raised_at == timedelta(seconds=5)
    assert "12 s (limit 10)" in oldest.text


def test_the_history_is_read_a_page_at_a_time(database, clock):
    for number in range(5):
        database.write(lambda c, n=number: alerts.keep_raised(c, ALERT, clock.time_ns() + n))

    first, second = alerts.history(database, most=3), alerts.history(database, most=3, skip=3)

    assert [entry.id for entry in first + second] == [5, 4, 3, 2, 1]


def test_what_the_last_process_left_raised_is_cleared_at_the_next_start(database, clock):
    database.write(lambda c: alerts.keep_raised(c, ALERT, clock.time_ns()))

    left = database.write(lambda c: alerts.close_open(c, clock.time_ns() + SECOND))

    assert left == 1
    assert alerts.history(database)[0].cleared_at is not None


def test_notices_are_kept_with_their_account_and_are_never_raised(database, clock):
    notice = Notice(kind="held", text="It waits.", account=AccountId("acc"), order_id="7", broker="wired")
    database.write(lambda c: alerts.keep_notice(c, notice, clock.time_ns()))

    (entry,) = alerts.history(database)

    assert (entry.rule, entry.severity, entry.account) == ("held", alerts.NOTICE, "acc")
    assert entry.text == "It waits. (order 7)"
    assert entry.cleared_at is not None


def test_it_is_kept_who_was_told(database, clock):
    database.write(lambda c: alerts.keep_raised(c, ALERT, clock.time_ns()))
    database.write(lambda c: alerts.keep_raised(c, ALERT, clock.time_ns() + SECOND))
    database.write(lambda c: alerts.keep_told(c, [ALERT], "webhook"))

    assert [entry.told for entry in alerts.history(database)] == ["webhook", ""]


def test_a_silence_lasts_until_its_end_and_is_audited(database, clock):
    until = clock.time_ns() + 60 * SECOND
    alerts.silence(database, Silence(rule="ErrorRate", until_ns=until, by="ops", reason="known"))

    assert [(s.rule, s.reason) for s in alerts.silences(database)] == [("ErrorRate", "known")]
    clock.advance(61)
    assert alerts.silences(database) == []
    assert audit.entries(database)[0].what == "alert silenced"


def test_a_silence_can_be_ended_and_a_second_replaces_the_first(database, clock):
    for hours in (1, 2):
        until = clock.time_ns() + hours * 3600 * SECOND
        alerts.silence(database, Silence(rule="ErrorRate", broker="wired", until_ns=until, by="ops"))

    assert len(alerts.silences(database)) == 1
    assert alerts.unsilence(database, "ErrorRate", broker="wired", by="ops")
    assert not alerts.unsilence(database, "ErrorRate", broker="wired", by="ops")
    assert alerts.silences(database) == []


def test_no_alert_of_another_name_and_no_past_can_be_silenced(database, clock):
    with pytest.raises(NotFoundError, match="Nonsense"):
        alerts.silence(database, Silence(rule="Nonsense", until_ns=clock.time_ns() + 1, by="ops"))
    with pytest.raises(InvalidRequestError):
        alerts.silence(database, Silence(rule="ErrorRate", until_ns=clock.time_ns(), by="ops"))


def test_old_alerts_are_forgotten_and_raised_ones_stay(database, clock):
    at = clock.time_ns()
    database.write(lambda c: alerts.keep_raised(c, ALERT, at))
    database.write(lambda c: alerts.keep_cleared(c, ALERT, at + SECOND))
    database.write(lambda c: alerts.keep_raised(c, OTHER, at))

    retention.forget(database, before=(clock.now() + timedelta(days=3)).date())

    assert [entry.broker for entry in alerts.history(database)] == ["other"]
