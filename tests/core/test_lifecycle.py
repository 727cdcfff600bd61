from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import msgspec
import pytest
from msgspec.structs import replace

from core.lifecycles import CANCEL, KITE_LIVES, MODIFY, T0, S, rest, said
from orderwire.core.lifecycle import (
    EXPECTED,
    TRANSITIONS,
    Ending,
    Facts,
    Fill,
    OrderState,
    OrderView,
    Outcome,
    agree,
    contradicts,
    correct,
    join,
    lift,
    observe,
    overlay_of,
    poison,
    status_of,
    view,
)
from orderwire.core.orders import AccountId, Channel, OrderId, OrderStatus, Overlay

FILLED = said(S.FILLED, at=1, filled_quantity=10, average_price=Decimal(1500))
CANCELLING = said(None, at=1, phase=5, overlay=CANCEL, raw_status="CANCEL PENDING")
MODIFYING = said(None, at=1, phase=4, overlay=MODIFY, raw_status="MODIFY PENDING")
MODIFIED = said(None, at=1, phase=6, raw_status="MODIFIED")
PLACED = said(S.PENDING_NEW, at=None, phase=0, channel=Channel.PLACE, exchange_order_id="", raw_status="")
STRANGE = said(S.UNKNOWN, at=1, phase=-1, raw_status="PARKED")


def told(*updates):
    """Return the last outcome of observing the updates one after the other."""
    outcome = Outcome(state=None)
    for update in updates:
        outcome = observe(outcome.state, update)
    return outcome


def seen(*updates):
    return view(told(*updates).state)


# --- what an observation does -----------------------------------------------------------------------------


def test_the_first_observation_is_a_change():
    outcome = observe(None, said())

    assert outcome == Outcome(state=lift(said()), changed=True)


def test_a_fill_moves_an_open_order():
    outcome = told(said(), FILLED)

    assert outcome == Outcome(state=join(lift(said()), lift(FILLED)), changed=True)
    assert view(outcome.state).status is S.FILLED


def test_the_same_again_changes_nothing():
    before = lift(said())

    outcome = observe(before, said())

    assert outcome == Outcome(state=before)
    assert outcome.state is before


def test_rest_confirming_a_push_changes_nothing_to_be_seen():
    outcome = told(said(), rest())

    assert outcome.changed is False
    assert outcome.state.read == lift(said()).terms.moment


def test_a_late_open_does_not_revive_a_filled_order():
    outcome = told(FILLED, said())

    assert outcome.changed is False
    assert status_of(outcome.state) is S.FILLED


def test_a_fill_that_comes_late_raises_filled_and_keeps_a_cancelled_order_cancelled():
    cancelled = said(S.CANCELLED, at=2, filled_quantity=3)
    late = said(S.PARTIALLY_FILLED, at=1, filled_quantity=5)

    outcome = told(cancelled, late)

    assert (outcome.changed, outcome.surprising) == (True, True)
    assert (view(outcome.state).status, view(outcome.state).filled_quantity) == (S.CANCELLED, 5)


def test_filled_in_full_is_not_filled_until_the_broker_says_so():
    outcome = told(said(), said(S.PARTIALLY_FILLED, at=1, filled_quantity=10))

    assert view(outcome.state).status is S.PARTIALLY_FILLED
    assert view(outcome.state).pending_quantity == 0
    assert outcome.verify == "filled in full without a final status"


@pytest.mark.parametrize("filled", [0, 9])
def test_what_is_not_filled_in_full_asks_for_nothing(filled):
    assert told(said(), said(S.PARTIALLY_FILLED, at=1, filled_quantity=filled)).verify == ""
    assert told(said(S.OPEN, quantity=0)).verify == ""


def test_filled_in_full_by_rest_asks_for_nothing_more():
    assert told(said(), rest(S.PARTIALLY_FILLED, at=1, filled_quantity=10)).verify == ""


def test_a_change_of_terms_is_a_change():
    outcome = told(said(), said(at=1, price=Decimal(1490)))

    assert (outcome.changed, outcome.surprising) == (True, False)
    assert view(outcome.state).price == Decimal(1490)


@pytest.mark.parametrize(
    ("change", "value"),
    [("order_id", OrderId("2")), ("account", AccountId("B")), ("broker", "x"), ("trading_date", T0.date())],
)
def test_states_of_two_orders_are_not_joined(change, value):
    other = replace(lift(said(trading_date=T0.date() - timedelta(days=1))), **{change: value})

    with pytest.raises(ValueError, match="order 260105000000001 cannot be joined with"):
        join(lift(said(trading_date=T0.date() - timedelta(days=1))), other)


def test_an_observation_of_another_order_is_an_error():
    with pytest.raises(
        ValueError, match=r"^zerodha order 260105000000001 cannot be joined with zerodha order 2$"
    ):
        observe(lift(said()), said(order_id=OrderId("2")))


# --- which statement wins ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ({"at": 1, "phase": 9, "filled_quantity": 9, "history_index": 9}, {"at": 2}),
        ({"at": None, "phase": 9}, {"at": 0}),
        ({"filled_quantity": 1, "phase": 9, "history_index": 9}, {"filled_quantity": 2}),
        ({"phase": 7, "history_index": 9, "quantity": 99}, {"phase": 8}),
        ({"history_index": -1, "quantity": 99}, {"history_index": 0}),
        ({"history_index": 3, "quantity": 99}, {"history_index": 4}),
        ({"quantity": 10, "price": Decimal(99999)}, {"quantity": 11}),
        ({"price": Decimal(9), "trigger_price": Decimal(5)}, {"price": Decimal(10)}),
        ({"trigger_price": Decimal(9), "order_type": "SL"}, {"trigger_price": Decimal(10)}),
        ({"order_type": "LIMIT", "raw_status": "Z"}, {"order_type": "MARKET"}),
        ({"raw_status": "OPEN"}, {"raw_status": "UPDATE"}),
    ],
)
def test_the_key_decides_in_its_order(less, more):
    small, great = lift(said(**less)), lift(said(**more))

    assert join(small, great).terms == join(great, small).terms == great.terms


def test_an_ending_beats_what_lives_within_a_second_and_not_beyond():
    ending = said(S.CANCELLED, at=1, filled_quantity=0, phase=9)

    assert told(ending, said(at=1, phase=8, filled_quantity=1)).state.terms == lift(ending).terms
    assert told(ending, said(at=2)).state.terms == lift(said(at=2)).terms
    assert status_of(told(ending, said(at=2)).state) is S.CANCELLED


def test_fractions_of_a_second_do_not_count():
    update = said()
    later = replace(update, broker_time=update.broker_time + timedelta(microseconds=999_999))

    assert lift(update) == lift(later)


@pytest.mark.parametrize(
    ("weak", "strong"), [(S.REJECTED, S.EXPIRED), (S.EXPIRED, S.CANCELLED), (S.CANCELLED, S.FILLED)]
)
def test_the_stronger_ending_wins_though_it_is_older(weak, strong):
    older = lift(said(strong, at=0, filled_quantity=10, reason="strong"))
    newer = lift(said(weak, at=1, filled_quantity=10, reason="weak"))

    for state in (join(older, newer), join(newer, older)):
        assert (status_of(state), view(state).reason, view(state).raw_status) == (
            strong,
            "strong",
            strong.value,
        )


def test_of_equal_endings_the_later_one_speaks():
    first = lift(said(S.REJECTED, at=0, reason="zzz"))
    last = lift(said(S.REJECTED, at=1, reason="aaa"))

    assert join(first, last).ending == Ending(0, lift(said(at=1)).terms.time, "REJECTED", "aaa")


@pytest.mark.parametrize(
    ("less", "more"),
    [
        (rest(S.PARTIALLY_FILLED, at=5, filled_quantity=1, average_price=Decimal(9)), (2, "0", 0)),
        (said(S.PARTIALLY_FILLED, at=5, filled_quantity=2), (2, "7", 0)),
        (said(S.PARTIALLY_FILLED, at=5, filled_quantity=2, average_price=Decimal(9)), (2, "7", 0)),
    ],
)
def test_the_average_price_belongs_to_the_greatest_fill(less, more):
    filled, average, at = more
    great = rest(S.PARTIALLY_FILLED, at=at, filled_quantity=filled, average_price=Decimal(average))

    for state in (join(lift(less), lift(great)), join(lift(great), lift(less))):
        assert (state.fill.filled, state.fill.average_price) == (filled, Decimal(average))


def test_of_two_pushed_averages_the_later_one_counts():
    early = lift(said(S.PARTIALLY_FILLED, at=1, filled_quantity=2, average_price=Decimal(9)))
    late = lift(said(S.PARTIALLY_FILLED, at=2, filled_quantity=2, average_price=Decimal(7)))

    assert join(early, late).fill.average_price == Decimal(7)


def test_nothing_filled_has_no_average():
    assert lift(said(average_price=Decimal(5))).fill == lift(said(at=9)).fill


def test_a_new_average_is_a_change():
    pushed = said(S.PARTIALLY_FILLED, filled_quantity=2, average_price=Decimal(9))

    assert told(pushed, rest(S.PARTIALLY_FILLED, filled_quantity=2, average_price=Decimal(8))).changed
    assert not told(pushed, rest(S.PARTIALLY_FILLED, filled_quantity=2, average_price=Decimal(9))).changed


def test_facts_are_as_the_most_telling_observation_gave_them():
    bare = said(known_symbol=False, symbol="ZZZ", exchange="ZZ", exchange_order_id="", quantity=12)
    full = said(tag="a1", parent_order_id="9", at=1)

    for state in (join(lift(bare), lift(full)), join(lift(full), lift(bare))):
        shown = view(state)
        assert (shown.symbol, shown.exchange, shown.known_symbol) == ("INFY", "NSE", True)
        assert (state.facts.tag, shown.parent_order_id) == ("a1", "9")
        assert shown.exchange_order_id == "1300000015536862"
        assert state.facts.most_quantity == 12


def test_a_broker_time_that_moves_is_seen():
    assert seen(said(), said(at=7)).broker_time == T0 + timedelta(seconds=7)
    assert seen(said(), CANCELLING).broker_time == T0 + timedelta(seconds=1)
    assert seen(said(), STRANGE).broker_time == T0 + timedelta(seconds=1)
    assert seen(PLACED).broker_time is None
    assert seen(rest(at=0)).broker_time.utcoffset() == timedelta(hours=5, minutes=30)


# --- hints, poison, holds ---------------------------------------------------------------------------------


def test_a_postback_is_a_hint_and_nothing_else():
    assert observe(None, said(channel=Channel.POSTBACK)) == Outcome(
        state=None, verify="hint: a postback came"
    )


def test_a_postback_with_poison_is_still_only_a_hint():
    before = lift(said())

    assert observe(before, said(channel=Channel.POSTBACK, quantity=-1)).state is before


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"order_id": OrderId("")}, "it names no order"),
        ({"quantity": -1}, "a number is negative"),
        ({"filled_quantity": -1}, "a number is negative"),
        ({"disclosed_quantity": -1}, "a number is negative"),
        ({"price": Decimal("-0.05")}, "a number is negative"),
        ({"trigger_price": Decimal(-1)}, "a number is negative"),
        ({"average_price": Decimal(-1)}, "a number is negative"),
        ({"price": Decimal("NaN")}, "a price is not a number"),
        ({"trigger_price": Decimal("sNaN")}, "a price is not a number"),
        ({"average_price": Decimal("Infinity")}, "a price is not a number"),
        ({"quantity": 10**12 + 1}, "a quantity is beyond any order"),
        ({"filled_quantity": 11}, "filled 11 is above any quantity seen"),
    ],
)
@pytest.mark.parametrize("channel", [Channel.STREAM, Channel.REST])
def test_poison_is_refused_from_whatever_channel(change, why, channel):
    before = lift(said())

    outcome = observe(before, said(channel=channel, **change))

    assert outcome == Outcome(state=before, refused=why)


@pytest.mark.parametrize(
    "change",
    [
        {"quantity": 10**12},
        {"quantity": 0, "price": Decimal(0)},
        {"filled_quantity": 10},
        {"price": Decimal(0), "trigger_price": Decimal(0), "average_price": Decimal(0)},
    ],
)
def test_what_could_be_true_is_no_poison(change):
    assert poison(said(**change)) == ""


def test_a_fill_may_reach_any_quantity_ever_seen():
    reduced = said(S.PARTIALLY_FILLED, at=2, quantity=5, filled_quantity=8)

    assert told(said(), said(at=1, quantity=5), reduced).refused == ""
    assert observe(None, reduced).refused == "filled 8 is above any quantity seen"
    assert observe(None, reduced, quantity_seen=8).refused == ""
    assert observe(None, reduced, quantity_seen=7).refused == "filled 8 is above any quantity seen"
    assert observe(lift(said(quantity=5)), reduced, quantity_seen=8).refused == ""


def test_the_future_is_refused_from_a_push_and_flagged_from_rest():
    now = T0 - timedelta(minutes=5)
    why = "its time is more than 5 minutes ahead of the broker's clock"

    assert observe(None, said(), broker_now=now) == Outcome(state=lift(said()), changed=True)
    assert observe(None, said(at=1), broker_now=now) == Outcome(state=None, refused=why)
    assert observe(None, said(at=None), broker_now=now).refused == ""
    flagged = observe(None, rest(at=1), broker_now=now)
    assert (flagged.refused, flagged.flag, flagged.surprising, flagged.changed) == ("", why, True, True)
    again = observe(lift(rest()), rest(at=1), broker_now=now)
    assert (again.flag, again.surprising) == (why, True)


@pytest.mark.parametrize("status", [S.OPEN, S.TRIGGER_PENDING, S.PARTIALLY_FILLED])
def test_a_rejection_of_an_order_known_to_be_live_waits_for_rest(status):
    before = lift(rest(status))
    pushed = said(S.REJECTED, at=1)

    outcome = observe(before, pushed)

    why = "REJECTED for an order known to be live"
    assert outcome == Outcome(state=before, held=why, verify=f"held: {why}")
    assert status_of(observe(before, replace(pushed, channel=Channel.REST)).state) is S.REJECTED


def test_a_rejection_of_an_order_not_known_to_be_live_counts_at_once():
    pushed = said(S.REJECTED, at=1)

    assert status_of(observe(None, pushed).state) is S.REJECTED
    assert status_of(observe(lift(said(S.PENDING_NEW)), pushed).state) is S.REJECTED
    assert observe(lift(pushed), pushed).held == ""
    assert observe(lift(FILLED), pushed).held == ""


def test_a_rejection_after_a_request_on_a_live_order_waits_too():
    assert told(CANCELLING, said(S.REJECTED, at=2)).held


def test_complete_with_less_filled_than_ordered_waits_for_rest():
    short = said(S.FILLED, at=1, filled_quantity=9)
    why = "complete with less filled than ordered"

    assert observe(None, short) == Outcome(state=None, held=why, verify=f"held: {why}")
    assert observe(lift(said()), short).held == why
    assert observe(lift(said(S.CANCELLED)), short).held == why
    assert status_of(observe(lift(said()), replace(short, channel=Channel.REST)).state) is S.FILLED
    assert observe(lift(FILLED), short).held == ""
    assert observe(None, said(S.FILLED, filled_quantity=10)).held == ""


@pytest.mark.parametrize("order_type", ["SL", "SL-M"])
def test_a_push_that_may_be_a_modified_stop_order_waits_for_rest(order_type):
    pending = rest(S.TRIGGER_PENDING, order_type=order_type, phase=7)
    update = said(at=1, order_type=order_type, raw_status="UPDATE")
    why = "a stop order that triggered, or one that was modified"

    assert told(pending, update) == Outcome(state=lift(pending), held=why, verify=f"held: {why}")
    assert observe(None, update).held == why
    assert told(pending, replace(update, channel=Channel.REST)).held == ""
    assert told(pending, rest(at=1, order_type=order_type), update).held == ""
    assert told(pending, replace(update, filled_quantity=1, status=S.PARTIALLY_FILLED)).held == ""
    assert told(pending, said(at=1, order_type=order_type, filled_quantity=1)).held == ""
    assert told(rest(S.PARTIALLY_FILLED, filled_quantity=1), update).held == ""
    assert told(rest(S.CANCELLED), update).held == ""


def test_a_plain_order_that_opens_is_not_doubted():
    assert told(rest(S.TRIGGER_PENDING, order_type="SL"), said(at=1, order_type="LIMIT")).held == ""


# --- requests and remarks ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "flags"), [(CANCELLING, (False, True)), (MODIFYING, (True, False))], ids=["cancel", "modify"]
)
def test_a_request_is_shown_beside_the_state(request_, flags):
    shown = seen(said(), request_)

    assert (shown.pending_modify, shown.pending_cancel) == flags
    assert (shown.status, shown.raw_status, shown.price) == (S.OPEN, request_.raw_status, said().price)


def test_the_terms_of_a_request_do_not_hold_yet():
    assert seen(said(), replace(MODIFYING, price=Decimal(1))).price == said().price


def test_a_push_does_not_clear_a_request():
    assert seen(said(), CANCELLING, said(at=2)).pending_cancel
    assert seen(said(), MODIFYING, MODIFIED).pending_modify
    assert seen(said(), CANCELLING, STRANGE).pending_cancel


def test_a_later_rest_row_clears_a_request():
    outcome = told(said(), CANCELLING, rest(at=1))

    assert outcome.changed
    assert not view(outcome.state).pending_cancel
    assert view(outcome.state).raw_status == "OPEN"


@pytest.mark.parametrize("channel", [Channel.REST, Channel.HISTORY])
def test_the_end_of_a_request_read_by_rest_clears_it(channel):
    outcome = told(said(), MODIFYING, replace(MODIFIED, channel=channel))

    assert outcome.changed
    assert overlay_of(outcome.state) is Overlay.NONE
    assert outcome.verify == ""


def test_an_older_rest_row_clears_nothing():
    assert seen(said(), CANCELLING, rest(at=0)).pending_cancel


def test_a_rest_row_that_shows_the_request_keeps_it():
    assert seen(said(), CANCELLING, replace(CANCELLING, channel=Channel.REST)).pending_cancel
    assert lift(replace(CANCELLING, channel=Channel.REST)).read is None


def test_a_rest_row_with_an_unknown_word_clears_nothing():
    assert lift(replace(STRANGE, channel=Channel.REST)).read is None
    assert lift(rest()).read is not None


def test_our_own_place_response_clears_nothing():
    assert lift(PLACED).read is None


def test_an_ended_order_has_no_request():
    shown = seen(said(), CANCELLING, FILLED)

    assert (shown.pending_cancel, shown.raw_status) == (False, "FILLED")


def test_a_status_that_bears_a_state_and_a_request_does_both():
    shown = seen(said(overlay=CANCEL))

    assert (shown.status, shown.pending_cancel) == (S.OPEN, True)
    assert lift(rest(overlay=CANCEL)).read is None


@pytest.mark.parametrize(
    ("update", "status"),
    [
        (CANCELLING, S.OPEN),
        (replace(CANCELLING, exchange_order_id=""), S.PENDING_NEW),
        (replace(CANCELLING, order_type="SL"), S.TRIGGER_PENDING),
        (replace(CANCELLING, order_type="SL-M"), S.TRIGGER_PENDING),
        (replace(CANCELLING, filled_quantity=1), S.PARTIALLY_FILLED),
        (replace(CANCELLING, order_type="SL", filled_quantity=1), S.PARTIALLY_FILLED),
        (MODIFIED, S.OPEN),
        (replace(MODIFIED, order_type="SL"), S.TRIGGER_PENDING),
    ],
)
def test_an_order_first_seen_with_a_request_pending_has_its_history_read(update, status):
    outcome = observe(None, update)

    assert view(outcome.state).status is status
    assert outcome.verify == ("" if update.filled_quantity else "tie: first seen with a request pending")
    assert outcome.tie is False


def test_a_request_tells_more_than_our_own_place_response():
    outcome = told(PLACED, replace(CANCELLING, quantity=7))

    assert (view(outcome.state).status, view(outcome.state).quantity) == (S.OPEN, 7)
    assert outcome.verify == "tie: first seen with a request pending"


def test_history_gives_the_state_under_a_request():
    outcome = told(CANCELLING, said(channel=Channel.HISTORY, history_index=2))

    assert (view(outcome.state).status, view(outcome.state).pending_cancel) == (S.OPEN, True)
    assert outcome.verify == ""


def test_an_unknown_word_changes_no_state_and_is_shown():
    outcome = told(said(), STRANGE)

    assert (view(outcome.state).status, view(outcome.state).raw_status) == (S.OPEN, "PARKED")
    assert (outcome.changed, outcome.surprising, outcome.verify) == (True, False, "unknown status")
    assert told(said(), replace(STRANGE, channel=Channel.REST)).verify == ""


def test_an_unknown_word_that_is_older_is_not_shown():
    assert seen(said(at=2), STRANGE).raw_status == "OPEN"
    assert seen(FILLED, replace(STRANGE, broker_time=T0 + timedelta(seconds=9))).raw_status == "FILLED"


def test_an_order_of_which_only_an_unknown_word_is_known_is_unknown():
    outcome = observe(None, replace(STRANGE, filled_quantity=1))

    assert (view(outcome.state).status, view(outcome.state).raw_status) == (S.UNKNOWN, "PARKED")
    assert (outcome.surprising, outcome.verify) == (True, "unknown status")
    assert view(outcome.state).quantity == 10


def test_a_word_after_an_unknown_one_is_no_surprise():
    outcome = told(STRANGE, said(at=2))

    assert (view(outcome.state).status, outcome.surprising) == (S.OPEN, False)


def test_a_request_that_ended_by_push_is_verified():
    outcome = told(said(), MODIFIED)

    assert (outcome.verify, outcome.changed) == ("a request ended", True)  # the broker's time moved
    assert view(outcome.state).raw_status == "OPEN"


# --- reasons ----------------------------------------------------------------------------------------------

REFUSED = replace(MODIFIED, raw_status="NOT MODIFIED", reason="16346 : Order cannot be modified")


def test_the_reason_of_a_refused_modification_stands_while_the_terms_do():
    assert seen(said(), MODIFYING, REFUSED).reason == REFUSED.reason
    assert seen(said(), MODIFYING, REFUSED, said(at=1)).reason == REFUSED.reason
    assert seen(said(), MODIFYING, REFUSED, said(at=5)).reason == REFUSED.reason
    assert seen(said(), REFUSED, said(S.PARTIALLY_FILLED, at=5, filled_quantity=1)).reason == REFUSED.reason


def test_the_reason_goes_with_the_next_request_or_new_terms():
    again = replace(MODIFYING, broker_time=T0 + timedelta(seconds=2))

    assert seen(said(), MODIFYING, REFUSED, again).reason == ""
    assert seen(said(), REFUSED, said(at=2, price=Decimal(1490))).reason == ""
    assert seen(said(), REFUSED, said(at=1, price=Decimal(1490))).reason == REFUSED.reason


def test_a_live_statement_gives_its_own_reason():
    assert seen(said(reason="17070 : cannot be cancelled")).reason == "17070 : cannot be cancelled"
    assert seen(said(reason="17070"), said(at=1)).reason == ""
    assert seen(said(reason="17070"), MODIFIED).reason == "17070"
    assert seen(CANCELLING, replace(REFUSED, reason="")).reason == ""


def test_the_reason_of_an_ending_stays():
    ending = said(S.CANCELLED, at=1, reason="17071")

    assert seen(said(), REFUSED, ending, said(at=9)).reason == "17071"
    assert seen(said(reason="live"), said(S.CANCELLED, at=1)).reason == ""


# --- ties -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"price": Decimal(1490)},
        {"quantity": 11},
        {"trigger_price": Decimal(1)},
        {"order_type": "MARKET"},
        {"status": S.PARTIALLY_FILLED},
    ],
)
def test_two_statements_of_one_moment_that_differ_are_a_tie(change):
    outcome = told(said(), replace(said(), **change))

    assert (outcome.tie, outcome.verify) == (True, "tie: two statements of one second differ")


@pytest.mark.parametrize(
    "change",
    [
        {"raw_status": "UPDATE"},
        {"reason": "words"},
        {"channel": Channel.REST},
        {"broker_time": T0 + timedelta(seconds=1), "price": Decimal(1490)},
        {"filled_quantity": 1, "price": Decimal(1490)},
        {"phase": 7, "price": Decimal(1490)},
        {"status": None, "overlay": MODIFY, "price": Decimal(1490)},
    ],
)
def test_what_says_the_same_or_speaks_of_another_moment_is_no_tie(change):
    assert not told(said(), replace(said(), **change)).tie


def test_the_first_statement_is_no_tie():
    assert not told(CANCELLING, said()).tie


def test_history_breaks_a_tie_by_position():
    old = said(price=Decimal(9999))
    new = said(price=Decimal(1490))
    history = [replace(row, channel=Channel.HISTORY, history_index=n) for n, row in enumerate((old, new))]

    tied = told(new, old)
    settled = told(new, old, *history)

    assert tied.tie
    assert view(settled.state).price == Decimal(1490)
    assert not settled.tie
    assert not observe(settled.state, history[0]).tie
    assert not observe(settled.state, replace(new, channel=Channel.REST)).tie
    assert observe(settled.state, replace(old, channel=Channel.REST)).tie


def test_one_place_in_the_history_that_says_two_things_is_a_tie():
    row = said(channel=Channel.HISTORY, history_index=0)

    assert told(row, replace(row, price=Decimal(1))).tie


# --- conflicts and corrections ----------------------------------------------------------------------------

CLAIM = said(S.REJECTED, at=1)
"""A push that turns out to be untrue."""
TRUTH = rest(at=1, phase=10)


def refuted(**changes):
    return rest(**({"at": 2} | changes))


@pytest.mark.parametrize(
    ("held", "row"),
    [
        (CLAIM, rest(at=0)),
        (CLAIM, rest(at=5)),
        (FILLED, rest(S.PARTIALLY_FILLED, at=0, filled_quantity=9)),
        (FILLED, rest(S.CANCELLED, at=5, filled_quantity=10)),
        (FILLED, rest(S.CANCELLED, at=0, filled_quantity=10)),
        (said(at=1), rest(price=Decimal(1))),
        (said(at=1), rest(quantity=11)),
        (said(at=1), rest(trigger_price=Decimal(1))),
        (said(at=1), rest(S.TRIGGER_PENDING)),
        (said(S.PARTIALLY_FILLED, filled_quantity=3), rest(at=4)),
        (CLAIM, replace(CANCELLING, channel=Channel.REST)),
        (CLAIM, replace(STRANGE, channel=Channel.REST)),
    ],
)
def test_a_rest_row_that_says_otherwise_is_a_conflict(held, row):
    outcome = told(held, row)

    assert outcome.conflict
    assert outcome.verify == "conflict: the order book says otherwise"


@pytest.mark.parametrize(
    ("held", "row"),
    [
        (said(), rest()),
        (said(), rest(at=1, price=Decimal(1))),
        (said(at=1), rest(at=0)),
        (said(S.PARTIALLY_FILLED, filled_quantity=3), rest(S.OPEN, filled_quantity=3)),
        (FILLED, rest(S.FILLED, at=0, filled_quantity=10)),
        (said(), replace(CANCELLING, channel=Channel.REST)),
        (said(), replace(STRANGE, channel=Channel.REST)),
        (CLAIM, said(at=5)),
        (CLAIM, said(at=0, channel=Channel.HISTORY)),
        (STRANGE, rest(at=0)),
    ],
)
def test_a_row_that_agrees_or_is_no_row_of_the_book_is_no_conflict(held, row):
    outcome = told(held, row)

    assert not outcome.conflict
    assert not outcome.verify.startswith("conflict")


def test_a_tie_is_settled_before_it_is_called_a_conflict():
    outcome = told(said(price=Decimal(9999)), rest())

    assert (outcome.tie, outcome.conflict) == (True, True)
    assert outcome.verify == "tie: two statements of one second differ"


def test_two_agreeing_rest_rows_correct_a_state():
    wrong = join(lift(said()), lift(CLAIM))

    corrected = correct(wrong, refuted(), refuted(), seconds_apart=1.0)

    assert corrected is not None
    assert corrected.revision == 1
    assert (view(corrected).status, view(corrected).revision) == (S.OPEN, 1)
    assert corrected.facts == wrong.facts
    assert corrected.floor == lift(refuted()).terms.moment


@pytest.mark.parametrize(
    ("first", "second", "apart"),
    [
        (refuted(), refuted(), 0.99),
        (refuted(), refuted(price=Decimal(1)), 2.0),
        (refuted(), refuted(quantity=11), 2.0),
        (refuted(), refuted(filled_quantity=1), 2.0),
        (refuted(), refuted(average_price=Decimal(1)), 2.0),
        (refuted(), refuted(overlay=CANCEL), 2.0),
        (refuted(), refuted(account=AccountId("B")), 2.0),
        (refuted(), refuted(order_id=OrderId("2")), 2.0),
        (refuted(channel=Channel.STREAM), refuted(), 2.0),
        (refuted(), refuted(channel=Channel.HISTORY), 2.0),
        (refuted(at=0), refuted(), 2.0),
        (refuted(), refuted(at=0), 2.0),
        (refuted(at=1), refuted(at=1), 2.0),
        (refuted(status=None, overlay=CANCEL), refuted(status=None, overlay=CANCEL), 2.0),
        (refuted(status=S.UNKNOWN), refuted(status=S.UNKNOWN), 2.0),
        (rest(S.REJECTED, at=2), rest(S.REJECTED, at=2), 2.0),
    ],
)
def test_anything_less_corrects_nothing(first, second, apart):
    assert correct(lift(CLAIM), first, second, seconds_apart=apart) is None


def test_rest_rows_of_the_very_moment_may_correct():
    assert correct(lift(CLAIM), TRUTH, TRUTH, seconds_apart=1.5) is None
    short = lift(said(S.PARTIALLY_FILLED, at=1, filled_quantity=3, price=Decimal(1)))
    row = rest(S.PARTIALLY_FILLED, at=1, filled_quantity=3)

    corrected = correct(short, row, row, seconds_apart=1.5)

    assert view(corrected).price == row.price


@pytest.mark.parametrize("at", [2, 3])
def test_rows_of_before_a_fill_that_came_with_a_pending_request_correct_nothing(at):
    """Found by seed 39114 of 100,000: a pending request bears no terms, but it told the fill."""
    requested = replace(CANCELLING, filled_quantity=3, broker_time=T0 + timedelta(seconds=3))
    state = join(lift(said()), lift(requested))
    assert view(state).status == S.PARTIALLY_FILLED

    assert correct(state, rest(at=at), rest(at=at), seconds_apart=2.0) is None
    later = correct(state, rest(at=4), rest(at=4), seconds_apart=2.0)
    assert view(later).filled_quantity == 0


def test_a_state_without_terms_can_be_corrected():
    state = replace(lift(CLAIM), terms=None)

    assert correct(state, refuted(), refuted(), seconds_apart=1.0).revision == 1


def test_rows_of_another_order_correct_nothing():
    other = refuted(order_id=OrderId("2"))

    with pytest.raises(ValueError, match="cannot be joined"):
        correct(lift(CLAIM), other, other, seconds_apart=2.0)


def test_agreeing_needs_a_second_between():
    assert agree(refuted(), refuted(), seconds_apart=1.0)
    assert not agree(refuted(), refuted(), seconds_apart=0.999)
    assert agree(refuted(), refuted(raw_status="UPDATE", at=3), seconds_apart=5)


def corrected_state():
    wrong = join(lift(said()), lift(CLAIM))
    return correct(wrong, refuted(), refuted(), seconds_apart=1.0)


def test_what_was_corrected_does_not_come_back():
    state = corrected_state()

    for stale in (said(S.CANCELLED, at=1), said(), said(phase=7, at=2), said(at=2, price=Decimal(1))):
        outcome = observe(state, replace(stale, tag="t"))
        assert (status_of(outcome.state), view(outcome.state).price) == (S.OPEN, said().price)
        assert outcome.state.facts.tag == "t"
        assert outcome.state.revision == 1
    assert observe(state, rest(S.REJECTED, at=1)).conflict


def test_what_comes_after_a_correction_counts():
    state = corrected_state()

    assert (
        view(observe(state, replace(FILLED, broker_time=T0 + timedelta(seconds=3))).state).status is S.FILLED
    )
    assert view(observe(state, rest(at=2, price=Decimal(9999))).state).price == Decimal(9999)
    assert view(observe(state, said(at=3, price=Decimal(1))).state).price == Decimal(1)
    assert view(
        observe(state, replace(CANCELLING, broker_time=T0 + timedelta(seconds=3))).state
    ).pending_cancel


def test_a_correction_can_be_corrected():
    state = corrected_state()
    ended = rest(S.CANCELLED, at=3)
    state = observe(state, ended).state
    again = correct(state, refuted(at=9), refuted(at=9), seconds_apart=2)

    assert (again.revision, status_of(again)) == (2, S.OPEN)


def test_a_higher_revision_wins_and_keeps_the_facts_of_both():
    low = lift(replace(FILLED, tag="t"))
    high = lift(said(), revision=1)

    for state in (join(low, high), join(high, low)):
        assert (status_of(state), state.facts.tag, state.revision) == (S.OPEN, "t", 1)
    assert join(high, lift(FILLED)) is high


def test_contradiction_is_about_what_is_seen():
    assert not contradicts(lift(said()), rest(reason="words", raw_status="UPDATE", order_type="MARKET"))
    assert contradicts(replace(lift(said()), terms=None, remark=lift(said()).terms), rest())


# --- the expected course ----------------------------------------------------------------------------------


KNOWN = [status for status in OrderStatus if status is not S.UNKNOWN]
LIVE = [status for status in KNOWN if not status.terminal]
FILLS = {S.PARTIALLY_FILLED: 1, S.FILLED: 10}


@pytest.mark.parametrize("was", LIVE)
@pytest.mark.parametrize("now", KNOWN)
def test_a_change_off_the_table_surprises_and_counts(was, now):
    filled = FILLS.get(was, 0)
    before = lift(rest(was, filled_quantity=filled))

    outcome = observe(before, rest(now, at=1, filled_quantity=FILLS.get(now, filled)))

    after = status_of(outcome.state)
    assert after is (was if was is S.PARTIALLY_FILLED and not now.terminal else now)
    assert outcome.surprising == (after is not was and (was, after) not in TRANSITIONS)


@pytest.mark.parametrize("was", [status for status in KNOWN if status.terminal])
@pytest.mark.parametrize("now", LIVE)
def test_nothing_revives_an_ended_order(was, now):
    filled = FILLS.get(was, 0)

    outcome = told(rest(was, filled_quantity=filled), rest(now, at=1, filled_quantity=max(filled, 1)))

    assert status_of(outcome.state) is was
    assert outcome.surprising == (not filled)  # a fill that comes late
    assert outcome.conflict


def test_an_ending_that_is_overruled_surprises():
    outcome = told(said(S.CANCELLED), rest(S.FILLED, at=1, filled_quantity=10))

    assert (outcome.changed, outcome.surprising) == (True, True)


def test_nothing_is_expected_after_an_ending_and_everything_after_ignorance():
    assert all(EXPECTED[status] == frozenset() for status in OrderStatus if status.terminal)
    assert EXPECTED[S.UNKNOWN] == set(OrderStatus) - {S.UNKNOWN}
    assert EXPECTED[None] == set(OrderStatus) - {S.UNKNOWN}
    assert EXPECTED[S.PENDING_NEW] == set(OrderStatus) - {S.UNKNOWN, S.PENDING_NEW}
    assert EXPECTED[S.OPEN] == {S.TRIGGER_PENDING, S.PARTIALLY_FILLED, S.FILLED, S.CANCELLED, S.EXPIRED}


def test_an_order_goes_back_only_by_surprise():
    assert told(rest(S.OPEN), rest(S.PENDING_NEW, at=1)).surprising
    assert not told(rest(S.PENDING_NEW), rest(S.OPEN, at=1)).surprising


# --- the view ---------------------------------------------------------------------------------------------


def test_everything_of_a_statement_is_seen():
    update = rest(
        at=3,
        order_type="SL",
        product="NRML",
        validity="IOC",
        quantity=75,
        filled_quantity=25,
        price=Decimal("10.5"),
        trigger_price=Decimal("10.4"),
        average_price=Decimal("10.45"),
        disclosed_quantity=5,
        side="SELL",
        parent_order_id="p",
        reason="r",
    )

    shown = view(
        lift(update),
        submission="sub1",
        checking=True,
        conflict=True,
        first_seen=T0,
        source=Channel.STREAM,
    )

    assert msgspec.structs.asdict(shown) == {
        "account": "ZA1",
        "broker": "zerodha",
        "row": "sub1",
        "order_id": "260105000000001",
        "submission": "sub1",
        "trading_date": T0.date(),
        "status": S.PARTIALLY_FILLED,
        "raw_status": "OPEN",
        "pending_modify": False,
        "pending_cancel": False,
        "conflict": True,
        "checking": True,
        "symbol": "INFY",
        "exchange": "NSE",
        "known_symbol": True,
        "side": "SELL",
        "order_type": "SL",
        "product": "NRML",
        "validity": "IOC",
        "quantity": 75,
        "filled_quantity": 25,
        "pending_quantity": 50,
        "price": Decimal("10.5"),
        "trigger_price": Decimal("10.4"),
        "average_price": Decimal("10.45"),
        "disclosed_quantity": 5,
        "reason": "r",
        "broker_time": T0 + timedelta(seconds=3),
        "first_seen": T0,
        "exchange_order_id": "1300000015536862",
        "parent_order_id": "p",
        "revision": 0,
        "source": Channel.STREAM,
    }


def test_a_view_alone_is_of_an_order_that_is_not_ours():
    shown = view(lift(said()))

    assert (shown.row, shown.submission) == (shown.order_id, "")
    assert (shown.checking, shown.conflict, shown.first_seen, shown.source) == (
        False,
        False,
        None,
        Channel.REST,
    )


def test_an_ended_order_has_nothing_pending():
    assert seen(said(), said(S.CANCELLED, at=1, filled_quantity=3)).pending_quantity == 0
    assert seen(said(S.PARTIALLY_FILLED, filled_quantity=3)).pending_quantity == 7


def test_nothing_pending_is_never_negative():
    assert (
        seen(
            said(), said(S.PARTIALLY_FILLED, at=1, filled_quantity=9), said(at=2, quantity=5)
        ).pending_quantity
        == 0
    )


@pytest.mark.parametrize("status", [S.PENDING_NEW, S.TRIGGER_PENDING, S.OPEN])
def test_whatever_is_filled_in_part_is_shown_so(status):
    assert seen(said(status, filled_quantity=1)).status is S.PARTIALLY_FILLED
    assert seen(said(status)).status is status


def test_a_place_response_gives_way_to_any_row():
    shown = seen(PLACED, said(S.PENDING_NEW, phase=0, price=Decimal(1), raw_status="PUT ORDER REQ RECEIVED"))

    assert (shown.raw_status, shown.price) == ("PUT ORDER REQ RECEIVED", Decimal(1))
    assert seen(said(), PLACED).status is S.OPEN
    assert seen(PLACED).status is S.PENDING_NEW


def test_kite_shows_the_new_price_only_after_modified():
    life = KITE_LIVES["stop order modified, triggered, filled"]

    prices = [seen(*[replace(row, channel=Channel.REST) for row in life[:n]]).price for n in range(1, 8)]

    assert prices == [Decimal("1500.05")] * 4 + [Decimal("1490.00")] * 3


# --- boundaries -------------------------------------------------------------------------------------------


def test_the_floor_of_a_correction_stays_whatever_comes_after():
    state = observe(corrected_state(), said(at=3, price=Decimal(1))).state

    assert state.floor == lift(refuted()).terms.moment
    assert observe(state, said(S.CANCELLED, at=1)).state is state


def test_the_higher_of_two_floors_counts():
    low = replace(lift(said(), revision=1), floor=lift(refuted(at=1)).terms.moment)
    high = replace(lift(said(), revision=1), floor=lift(refuted(at=2)).terms.moment)

    assert join(low, high) == join(high, low) == high


def test_the_floor_does_not_look_at_places_in_the_history():
    state = corrected_state()

    pushed = said(at=2, price=Decimal(9999), history_index=5)
    read = replace(pushed, channel=Channel.HISTORY)

    assert view(observe(state, pushed).state).price == said().price
    assert view(observe(state, read).state).price == Decimal(9999)
    indexed = correct(
        join(lift(said()), lift(CLAIM)),
        refuted(history_index=5),
        refuted(history_index=5),
        seconds_apart=1,
    )
    assert view(observe(indexed, rest(at=2, price=Decimal(9999), history_index=6)).state).price == Decimal(
        9999
    )
    lower = observe(indexed, rest(S.PARTIALLY_FILLED, at=2, filled_quantity=1, history_index=-1)).state
    assert lower.fill.filled == 1
    equal = observe(indexed, rest(at=2, tag="t", reason="now", history_index=4))
    assert equal.state.read == indexed.read
    assert (
        observe(
            indexed, replace(CANCELLING, broker_time=T0 + timedelta(seconds=2), channel=Channel.REST)
        ).changed
        is False
    )


def test_whether_rest_is_older_does_not_depend_on_places_in_the_history():
    held = lift(said(S.PARTIALLY_FILLED, at=1, filled_quantity=3, price=Decimal(1), history_index=7))
    row = rest(S.PARTIALLY_FILLED, at=1, filled_quantity=3)

    assert correct(held, row, row, seconds_apart=1.0).revision == 1


def test_fewer_filled_by_rest_is_a_conflict_by_itself():
    outcome = told(
        said(S.PARTIALLY_FILLED, filled_quantity=5), rest(S.PARTIALLY_FILLED, at=4, filled_quantity=3)
    )

    assert outcome.conflict


def test_an_unknown_word_of_the_very_moment_is_shown_only_when_it_is_greater():
    odd = replace(STRANGE, broker_time=T0)

    assert seen(said(), odd).raw_status == "OPEN"
    assert seen(said(S.PENDING_NEW, phase=-1, raw_status="A"), odd).raw_status == "PARKED"


def test_the_lowest_rank_is_a_known_word():
    ended = replace(MODIFIED, phase=0)

    assert seen(ended).status is S.OPEN
    assert seen(said(), replace(ended, raw_status="MODIFIED")).raw_status == "OPEN"


def test_a_rest_row_of_the_very_moment_clears_a_request():
    row = replace(CANCELLING, channel=Channel.REST, overlay=Overlay.NONE)

    assert not seen(said(), CANCELLING, row).pending_cancel


def test_there_is_no_request_unless_one_was_made():
    assert overlay_of(lift(said())) is Overlay.NONE
    assert overlay_of(lift(FILLED)) is Overlay.NONE
    assert overlay_of(told(CANCELLING, FILLED).state) is Overlay.NONE


def test_a_price_of_nothing_states_no_average():
    assert not lift(said(filled_quantity=1)).fill.priced
    assert lift(said(filled_quantity=1, average_price=Decimal("0.05"))).fill.priced
    assert lift(said(filled_quantity=1, average_price=Decimal(1))).fill.priced


def test_a_fill_needs_a_quantity_seen_somewhere():
    assert observe(None, said(quantity=0, filled_quantity=1)).refused == "filled 1 is above any quantity seen"
    assert poison(said(quantity=0, filled_quantity=1)) == "filled 1 is above any quantity seen"


def test_sides_that_differ_unite_the_same_way_from_both_sides():
    buy, sell = lift(said()), lift(said(side="SELL"))

    assert join(buy, sell).facts.side == join(sell, buy).facts.side == "SELL"


def test_a_brokers_own_spelling_is_marked():
    assert not seen(said(known_symbol=False)).known_symbol


def test_a_bare_state_has_nothing_in_it():
    state = OrderState(
        account=AccountId("A"),
        broker="b",
        order_id=OrderId("1"),
        trading_date=T0.date(),
        facts=Facts((True, "NSE", "INFY"), "BUY"),
    )

    assert msgspec.structs.astuple(state.facts)[2:] == ("", "", "", 0)
    assert (state.revision, state.floor, state.ending, state.read) == (0, None, None, None)
    assert state.fill == Fill(0, priced=False, read=False, time=-1)
    assert state.fill.average_price == 0
    assert (state.terms, state.request, state.remark) == (None, None, None)


def test_a_bare_view_says_nothing_it_was_not_told():
    bare = OrderView(
        account=AccountId("A"),
        broker="b",
        row="1",
        order_id=OrderId("1"),
        trading_date=T0.date(),
        status=S.OPEN,
        symbol="INFY",
        exchange="NSE",
        side="BUY",
        order_type="LIMIT",
        product="CNC",
        quantity=1,
    )

    said_nothing = {name: value for name, value in msgspec.structs.asdict(bare).items() if not value}
    assert set(said_nothing) == {
        "submission",
        "raw_status",
        "pending_modify",
        "pending_cancel",
        "conflict",
        "checking",
        "validity",
        "filled_quantity",
        "pending_quantity",
        "price",
        "trigger_price",
        "average_price",
        "disclosed_quantity",
        "reason",
        "broker_time",
        "first_seen",
        "exchange_order_id",
        "parent_order_id",
        "revision",
    }
    assert bare.known_symbol is True
