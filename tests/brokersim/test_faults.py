"""Which switches strike when."""

import pytest

from brokersim.faults import Fault, FaultBoard, FaultKind, Situation, decide, fits

PUSH = Situation(broker="kite", channel="ws", user="ZD0001", order_id="7", operation="UPDATE")


def fault(number=1, kind=FaultKind.DROP, **more):
    return Fault(id=number, kind=kind, **more)


def strike(faults, used=None, draws=(), kinds=(FaultKind.DROP,)):
    chances = iter(draws)
    return decide(faults, PUSH, kinds=frozenset(kinds), used=used or {}, draw=lambda: next(chances))


@pytest.mark.parametrize(
    ("selectors", "expected"),
    [
        ({}, True),
        ({"broker": "kite", "channel": "ws", "user": "ZD0001", "order_id": "7"}, True),
        ({"broker": "xts"}, False),
        ({"channel": "postback"}, False),
        ({"user": "ZD0002"}, False),
        ({"order_id": "8"}, False),
        ({"operation": "UP"}, True),
        ({"operation": "COMPLETE"}, False),
    ],
)
def test_empty_selectors_fit_everything_and_others_only_their_own(selectors, expected):
    assert fits(fault(**selectors), PUSH) is expected


def test_only_the_kinds_asked_for_strike():
    both = (fault(1), fault(2, FaultKind.DELAY))

    assert strike(both) == (both[0],)
    assert strike(both, kinds=(FaultKind.DROP, FaultKind.DELAY)) == both


def test_a_probability_draws_and_certainty_does_not():
    half = fault(1, probability=0.5)

    assert strike([half], draws=[0.49]) == (half,)
    assert strike([half], draws=[0.5]) == ()
    assert strike([fault(1, probability=1.0)], draws=[]) != ()


def test_a_count_is_used_up():
    twice = fault(1, count=2)

    assert strike([twice], used={1: 1}) == (twice,)
    assert strike([twice], used={1: 2}) == ()


class Chance:
    def random(self):
        return 0.0


def test_the_board_counts_what_struck_and_forgets_what_is_removed():
    board = FaultBoard(Chance())
    first = board.add("drop", count=1)
    board.add("delay", params={"seconds": 2})

    assert board.strike(PUSH, FaultKind.DROP) == (first,)
    assert board.strike(PUSH, FaultKind.DROP) == ()
    assert [(each.kind.value, struck) for each, struck in board.listing()] == [("drop", 1), ("delay", 0)]
    assert board.remove(first.id)
    assert not board.remove(first.id)
    board.clear()
    assert board.listing() == []


def test_the_first_of_several_is_the_first_kind_asked_for_and_counts_alone():
    board = FaultBoard(Chance())
    board.add("timeout")
    server = board.add("server_error")

    assert board.first(PUSH, FaultKind.SERVER_ERROR, FaultKind.TIMEOUT) is server
    assert [struck for _, struck in board.listing()] == [0, 1]
    assert board.first(PUSH, FaultKind.DROP) is None


def test_unknown_kinds_and_fields_are_refused():
    board = FaultBoard(Chance())

    with pytest.raises(ValueError, match="nonsense"):
        board.add("nonsense")
    with pytest.raises(TypeError):
        board.add("drop", colour="red")


def test_seconds_have_a_default():
    assert fault().seconds(3) == 3
    assert fault(params={"seconds": "0.5"}).seconds(3) == 0.5
