import os
import pwd

import pytest

from orderwire.console import who
from test_cli import made, run

__all__ = ["made", "run"]


def test_a_pilot_is_steered_from_the_command_line(made):
    assert "In force: 10 %" in made("rollout", "set", "10", "--why", "week 1", "--yes")
    assert "In force: 10 %, stopped" in made("rollout", "kill", "--why", "alert", "--yes")
    assert "In force: 10 %" in made("rollout", "resume", "--why", "mended", "--yes")
    assert "jainam off" in made("rollout", "broker", "jainam", "off", "--why", "tokens", "--yes")

    shown = made("rollout", "show")
    assert "Stage 10 %" in shown
    assert "Switched off: jainam" in shown
    history = made("rollout", "history")
    assert [word in history for word in ("week 1", "alert", "mended", "tokens", "cli:")] == [True] * 5


def test_a_step_is_asked_with_the_numbers_beside_it(made):
    said = made("rollout", "set", "25", typed="steady\ny\n")

    assert "placed → painted p95" in said
    assert "Let 25 % of the users in?" in said
    assert "In force: 25 %" in said


def test_a_step_that_is_not_confirmed_is_not_taken(made):
    made("rollout", "kill", typed="a slip\nn\n", fails=True)

    assert "Stage 100 %" in made("rollout", "show")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("set", "33", "--why", "x"), "The stages are 0, 10, 25, 50, 100 percent, not 33."),
        (("broker", "other", "off", "--why", "x"), "There is no broker 'other'"),
        (("kill",), "Say why"),
    ],
)
def test_a_wrong_step_says_what_is_wrong(made, words, said):
    assert said in made("rollout", *words, "--yes", fails=True)


def test_the_master_switch_is_shown(made, monkeypatch):
    monkeypatch.setenv("USE_EVENT_DRIVEN_ORDERS", "false")

    assert "USE_EVENT_DRIVEN_ORDERS is false" in made("rollout", "show")


def test_a_users_choice_is_taken_for_them(made):
    assert "asha: out" in made("rollout", "choose", "asha", "out")
    assert "There is no user ravi" in made("rollout", "choose", "ravi", "in", fails=True)


def test_the_history_names_who_sat_at_the_command_line(made, monkeypatch):
    """Under sudo too: the terminal's login stays. Without a terminal it is whoever the process runs as."""
    monkeypatch.setattr(os, "getlogin", lambda: "ravi")
    made("rollout", "set", "10", "--why", "week 1", "--yes")

    def no_terminal():
        raise OSError("no terminal")

    monkeypatch.setattr(os, "getlogin", no_terminal)
    made("rollout", "set", "25", "--why", "week 3", "--yes")

    history = made("rollout", "history")
    assert "cli:ravi" in history
    assert f"cli:{pwd.getpwuid(os.geteuid()).pw_name}" in history


def test_a_user_without_a_name_is_named_by_number(monkeypatch):
    def no_terminal():
        raise OSError("no terminal")

    monkeypatch.setattr(os, "getlogin", no_terminal)
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000_000)

    assert who() == "cli:4000000000"
