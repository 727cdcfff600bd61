from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from orderwire.core.notifications import DEFAULTS, Loudness, Notification, Occasion
from orderwire.errors import InvalidRequestError, NotFoundError, SealError
from orderwire.store import sealing
from orderwire.store.notifications import MOST_TARGETS, Notifications, Preferences, State, TargetKind
from orderwire.store.users import Users

TELEGRAM = "tgram://123456:TOKEN/9999/"


@pytest.fixture
def keyring(tmp_path):
    return sealing.create(tmp_path / "key.json")


@pytest.fixture
def kept(database, hasher, keyring) -> Notifications:
    users = Users(database, hasher=hasher)
    users.add("asha", "correct horse")
    users.add("ravi", "correct horse")
    return Notifications(database, keyring)


def rejected(key="acc/2026-11-24/r1/rejected", occasion=Occasion.REJECTED):
    at = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
    return Notification(key=key, occasion=occasion, account="acc", at=at, title="Rejected", text="No margin")


def target(kept, owner="asha", kind=TargetKind.APPRISE, address=TELEGRAM):
    return kept.add_target(owner, kind=kind, address=address)[0]


def test_what_a_user_never_set_is_as_by_default_and_the_rest_stays_when_one_is_set(kept):
    kept.set_rules("asha", {Occasion.FILLED: Loudness.OFF})

    assert kept.rules("asha") == {**DEFAULTS, Occasion.FILLED: Loudness.OFF}
    assert kept.rules("ravi") == DEFAULTS


def test_rules_and_preferences_of_nobody_are_refused(kept):
    with pytest.raises(NotFoundError):
        kept.set_rules("nobody", {Occasion.FILLED: Loudness.OFF})
    with pytest.raises(NotFoundError):
        kept.set_preferences("nobody", Preferences())


def test_preferences_are_kept(kept):
    kept.set_preferences("asha", Preferences(digest_seconds=60, per_minute=2, market_hours=True))

    assert kept.preferences("asha") == Preferences(digest_seconds=60, per_minute=2, market_hours=True)
    assert kept.preferences("ravi") == Preferences()


def test_preferences_out_of_range_are_named_by_field(kept):
    with pytest.raises(InvalidRequestError) as refused:
        kept.set_preferences("asha", Preferences(digest_seconds=-1, per_minute=0))

    assert set(refused.value.problems) == {"digest_seconds", "per_minute"}


def test_an_address_is_sealed_and_opens_for_its_owner_only(kept, database):
    made = target(kept)

    with database.read() as connection:
        (stored,) = connection.exec_driver_sql("SELECT * FROM notification_targets").all()
    assert "TOKEN" not in repr(stored)
    assert made.service == "tgram"
    assert kept.address(made.id, owner="asha") == (TELEGRAM, "")
    with pytest.raises(NotFoundError):
        kept.address(made.id, owner="ravi")


def test_a_webhook_is_given_a_secret_to_be_checked_with(kept):
    made, secret = kept.add_target("asha", kind=TargetKind.WEBHOOK, address="https://algo.example/hook")

    assert len(secret) >= 40
    assert kept.address(made.id, owner="asha") == ("https://algo.example/hook", secret)


def test_there_are_only_so_many_targets(kept):
    for _ in range(MOST_TARGETS):
        target(kept)

    with pytest.raises(InvalidRequestError):
        target(kept)


def test_a_new_key_seals_every_address_again(kept, database, tmp_path):
    made = target(kept)
    rotated = sealing.rotate(tmp_path / "key.json")

    assert kept.reseal(rotated) == 1

    newest = sealing.Keyring(keys={rotated.newest: rotated.keys[rotated.newest]}, newest=rotated.newest)
    assert Notifications(database, newest).address(made.id, owner="asha") == (TELEGRAM, "")


def test_an_address_sealed_with_a_lost_key_is_an_error(kept, database):
    made = target(kept)
    other = sealing.Keyring(keys={"k9": bytes(32)}, newest="k9")

    with pytest.raises(SealError):
        Notifications(database, other).address(made.id, owner="asha")


def test_a_notification_waits_once_for_each_target_of_its_owner(kept):
    first, second = target(kept), target(kept)
    target(kept, "ravi")

    assert kept.queue("asha", rejected()) == 2
    assert kept.queue("asha", rejected()) == 0

    assert {delivery.target for delivery in kept.waiting()} == {first.id, second.id}
    assert kept.waiting()[0].notification == rejected()


def test_what_is_off_is_not_queued_and_silent_is_marked(kept):
    target(kept)
    kept.set_rules("asha", {Occasion.REJECTED: Loudness.OFF, Occasion.FILLED: Loudness.SILENT})

    assert kept.queue("asha", rejected()) == 0
    kept.queue("asha", rejected("acc/f", Occasion.FILLED))

    assert [delivery.silent for delivery in kept.waiting()] == [True]


def test_what_was_sent_waits_no_more_and_is_not_told_again(kept):
    target(kept)
    kept.queue("asha", rejected())

    kept.sent(kept.waiting())

    assert kept.waiting() == []
    assert kept.queue("asha", rejected()) == 0
    assert [delivery.state for delivery in kept.recent("asha")] == [State.SENT]


def test_a_failed_attempt_is_counted_and_comes_again_later(kept, clock):
    target(kept)
    kept.queue("asha", rejected())
    later = clock.now() + timedelta(seconds=30)

    kept.attempt(kept.waiting(), again=later)
    kept.failed(kept.waiting(), error="503")

    (delivery,) = kept.waiting()
    assert (delivery.attempts, delivery.error, delivery.due) == (1, "503", later)


def test_a_dead_letter_is_shown_to_its_owner_who_may_retry_or_discard_it(kept):
    target(kept)
    for number in range(2):
        kept.queue("asha", rejected(f"acc/{number}"))
    kept.failed(kept.waiting(), error="gone", dead=True)

    newest, oldest = kept.dead("asha")
    assert kept.dead("ravi") == []
    with pytest.raises(NotFoundError):
        kept.retry(newest.id, owner="ravi")
    kept.retry(newest.id, owner="asha")
    kept.discard(oldest.id, owner="asha")

    assert kept.dead("asha") == []
    assert [(d.id, d.attempts) for d in kept.waiting()] == [(newest.id, 0)]


def test_removing_a_target_removes_what_was_on_its_way_to_it(kept):
    made = target(kept)
    kept.queue("asha", rejected())

    with pytest.raises(NotFoundError):
        kept.remove_target(made.id, owner="ravi")
    kept.remove_target(made.id, owner="asha")

    assert kept.targets("asha") == []
    assert kept.waiting() == []
