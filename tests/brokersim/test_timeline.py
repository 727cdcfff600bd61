"""Time that tests move."""

from brokersim.timeline import Timeline


def test_actions_run_in_order_of_time_and_then_of_arrival():
    timeline, ran = Timeline(100.0), []
    for name, delay in (("b", 2), ("c", 2), ("a", 1)):
        timeline.after(delay, lambda name=name: ran.append((name, timeline.now)))

    assert timeline.advance_by(1.5) == 1
    timeline.advance(110)

    assert ran == [("a", 101), ("b", 102), ("c", 102)]
    assert timeline.now == 110


def test_an_action_can_add_one_that_is_due_in_the_same_advance():
    timeline, ran = Timeline(0.0), []
    timeline.after(1, lambda: timeline.after(1, lambda: ran.append(timeline.now)))

    timeline.advance(5)

    assert ran == [2.0]


def test_time_never_goes_back():
    timeline = Timeline(100.0)

    timeline.advance(50)

    assert timeline.now == 100


def test_a_sleeper_is_woken_only_by_an_earlier_action():
    timeline, woken = Timeline(0.0), []
    timeline.on_earlier = lambda: woken.append(timeline.next_due)

    timeline.after(5, list)
    timeline.after(9, list)
    timeline.after(2, list)

    assert woken == [5, 2]


def test_dates_are_indian():
    assert Timeline(1_786_953_200.0).date.isoformat() == "2026-08-17T13:23:20+05:30"
