"""Rolling windows."""

from brokersim.limits import Limit, Windows

PER_SECOND = {"second": Limit(calls=2, seconds=1.0)}


def test_a_call_leaves_the_window_after_its_time():
    windows = Windows()

    allowed = [windows.allows("a", PER_SECOND, now) for now in (0.0, 0.5, 0.9, 1.0, 1.4, 1.5)]

    assert allowed == [True, True, False, True, False, True]


def test_keys_do_not_share_and_a_refused_call_is_not_counted_anywhere():
    windows = Windows()
    both = PER_SECOND | {"minute": Limit(calls=3, seconds=60.0)}

    assert all(windows.allows("a", both, 0.0) for _ in range(2))
    assert not windows.allows("a", both, 0.1)
    assert windows.allows("b", both, 0.1)
    assert windows.allows("a", both, 1.1)
    assert not windows.allows("a", both, 5.0)
