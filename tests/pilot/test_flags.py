"""The draw, by flagd's own evaluation: sticky, nested, its shares right, and frozen by vectors."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from openfeature.exception import GeneralError

from orderwire.config import load
from orderwire.core.rollout import FLAG, STAGES, Draw, Rollout, flags
from orderwire.errors import ConfigurationError
from orderwire.pilot.flags import DatabaseProvider, Flag, open_provider

VECTORS = Path(__file__).parent.parent / "data" / "rollout" / "draws.json"


@pytest.fixture
def flag():
    flag = Flag(DatabaseProvider())
    yield flag
    flag.close()


def drawn(flag, stage, users):
    flag.keep(Rollout(stage=stage))
    return {user for user in users if flag.draw(user, "paisa") is Draw.IN}


def test_who_is_in_at_one_stage_is_in_at_every_higher_one(flag):
    users = [f"user-{number}" for number in range(2000)]

    nested = [drawn(flag, stage, users) for stage in STAGES]

    assert nested[0] == set()
    assert nested[-1] == set(users)
    assert all(lower < higher for lower, higher in pairwise(nested))


def test_a_user_draws_the_same_whatever_the_broker_and_the_time(flag):
    flag.keep(Rollout(stage=50))

    assert {flag.draw("asha", broker) for broker in ("a", "b") for _ in range(3)} == {flag.draw("asha", "a")}


def test_the_draw_is_the_one_written_down(flag):
    """A library that draws otherwise would move users in and out of the pilot: these vectors must never change."""
    vectors = json.loads(VECTORS.read_text())

    assert {
        user: [stage for stage in STAGES if user in drawn(flag, stage, [user])] for user in vectors
    } == vectors


def test_nobody_is_in_before_the_rollout_is_known(flag):
    assert flag.draw("asha", "paisa") is Draw.OUT


class _Broken(DatabaseProvider):
    def resolve_boolean_details(self, *_args, **_named):
        raise GeneralError("the server is away")


def test_a_provider_that_fails_says_so_and_lets_nobody_in():
    assert Flag(_Broken()).draw("asha", "paisa") is Draw.FAILED


def test_a_flag_that_is_not_there_lets_nobody_in(flag, monkeypatch):
    monkeypatch.setattr("orderwire.pilot.flags.FLAG", "another")

    assert flag.draw("asha", "paisa") is Draw.FAILED


def test_flagd_draws_as_we_do(flag, tmp_path, monkeypatch):
    document = tmp_path / "flags.json"
    document.write_text(json.dumps(flags(Rollout(stage=25))))
    monkeypatch.setenv("FLAGD_RESOLVER", "file")
    monkeypatch.setenv("FLAGD_OFFLINE_FLAG_SOURCE_PATH", str(document))
    users = [f"user-{number}" for number in range(300)]

    theirs = Flag(open_provider(load(flag_provider="flagd")))

    try:
        while theirs.draw("asha", "paisa") is Draw.FAILED:
            """It reads its file in a thread of its own."""
        assert {user for user in users if theirs.draw(user, "paisa") is Draw.IN} == drawn(flag, 25, users)
    finally:
        theirs.close()


def test_unleash_needs_an_address():
    with pytest.raises(ConfigurationError, match="ORDERWIRE_UNLEASH_URL"):
        open_provider(load(flag_provider="unleash"))


@pytest.mark.parametrize("extra", ["flagd", "unleash"])
def test_a_missing_package_is_named(extra, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, f"openfeature.contrib.provider.{extra}", None)

    with pytest.raises(ConfigurationError, match=rf"pip install 'orderwire\[{extra}\]'"):
        open_provider(load(flag_provider=extra))


def test_the_flag_has_one_name():
    assert list(flags(Rollout())["flags"]) == [FLAG]
