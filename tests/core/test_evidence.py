from hypothesis import given
from hypothesis import strategies as st

from orderwire.core import evidence
from orderwire.core.evidence import Tally


def tally(**given):
    return Tally(**({"minute": 1, "broker": "paisa", "cohort": "realtime"} | given))


counts = st.integers(0, 1000)
tallies = st.builds(
    tally,
    accounts=counts,
    events=counts,
    errors=counts,
    queue_high=counts,
    placed=st.lists(counts, max_size=4).map(tuple),
    changes=st.dictionaries(st.integers(0, 5), counts, max_size=3),
    stages=st.dictionaries(st.sampled_from(["joined", "painted"]), st.tuples(counts, counts)),
)


def sums(given):
    whole = evidence.merged(given, minute=1, broker="paisa", cohort="realtime")
    return (whole.events, whole.errors, sorted(whole.placed), whole.changes, whole.stages, whole.queue_high)


@given(st.lists(tallies, max_size=6), st.integers(0, 6))
def test_adding_up_in_two_steps_is_adding_up_once(some, cut):
    parts = [
        evidence.merged(part, minute=1, broker="paisa", cohort="realtime")
        for part in (some[:cut], some[cut:])
    ]

    assert sums(parts) == sums(some)


def test_accounts_and_the_queue_are_the_most_of_any_minute():
    whole = evidence.merged(
        [tally(accounts=3, queue_high=5), tally(accounts=2, queue_high=9)],
        minute=7,
        broker="paisa",
        cohort="manual",
    )

    assert (whole.accounts, whole.queue_high, whole.minute, whole.cohort) == (3, 9, 7, "manual")


def test_a_minute_is_crowded_above_a_thousand_events():
    assert not tally(queue_high=1000).crowded
    assert tally(queue_high=1001).crowded


def test_percentiles_are_the_nearest_rank():
    hundred = list(range(100, 0, -1))

    assert [evidence.percentile(hundred, p) for p in (1, 50, 95, 99, 100)] == [1, 50, 95, 99, 100]
    assert evidence.percentile([7], 50) == 7
    assert evidence.percentile([], 50) == 0


def test_the_share_below_is_never_too_good():
    at = [evidence.bucket_of_change(int(ms * 1e6)) for ms in (1, 40, 95, 400)]
    changes = dict.fromkeys(at, 1)

    assert evidence.share_below(changes, 0.5) == 1
    assert evidence.share_below(changes, 0.1) == 0.5  # 95 ms shares its bucket with some above 100
    assert evidence.share_below({}, 0.1) == 0
