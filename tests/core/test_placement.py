from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orderwire.core.placement import rank, share, surplus

WORKERS = st.sets(st.text("abcdef0123", min_size=1, max_size=6), min_size=1, max_size=9)


@given(accounts=st.integers(0, 5_000), workers=WORKERS)
def test_the_shares_add_up_and_differ_by_one_at_most(accounts, workers):
    shares = [share(accounts, sorted(workers), one) for one in workers]

    assert sum(shares) == accounts
    assert max(shares) - min(shares) <= 1


@given(accounts=st.integers(0, 100), workers=WORKERS)
def test_the_order_in_which_workers_are_listed_changes_nothing(accounts, workers):
    one = min(workers)

    assert share(accounts, sorted(workers), one) == share(accounts, sorted(workers, reverse=True), one)


def test_a_worker_that_is_not_listed_owns_nothing():
    assert share(10, ["a", "b"], "c") == 0


@given(owned=st.sets(st.text("abc", min_size=1), max_size=20), fair=st.integers(0, 20))
def test_only_what_is_above_the_share_is_given_up(owned, fair):
    given_up = surplus(sorted(owned), fair)

    assert len(owned) - len(given_up) == min(len(owned), fair)
    assert set(given_up) <= owned


def test_a_worker_at_its_share_gives_nothing_up():
    assert surplus(["a", "b"], 2) == []


@given(workers=st.lists(st.text(min_size=1), min_size=1, max_size=9, unique=True), shard=st.integers(0, 63))
def test_every_shard_has_an_order_of_all_workers(workers, shard):
    assert sorted(rank(shard, workers, me) for me in workers) == list(range(len(workers)))


def test_shards_spread_over_the_workers_and_few_move_when_one_comes():
    def first_choices(workers):
        return [next(me for me in workers if rank(shard, workers, me) == 0) for shard in range(64)]

    before, after = first_choices(["f1", "f2", "f3"]), first_choices(["f1", "f2", "f3", "f4"])

    assert min(map(before.count, set(before))) >= 10
    assert all(new in {old, "f4"} for old, new in zip(before, after, strict=True))


def test_what_others_would_rather_have_is_given_up_first():
    ranks = {"a": 1, "b": 0, "c": 2, "d": 0}

    assert surplus("abcd", 2, rank_of=ranks.__getitem__) == ["a", "c"]
