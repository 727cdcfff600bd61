from __future__ import annotations

import pytest

from orderwire.core.rollout import Choice, Rollout
from orderwire.errors import FeedsBusyError
from orderwire.store.users import Role, Scope
from web.house import csrf


@pytest.fixture
def gate(house):
    return house.services.pilot.gate


@pytest.fixture
def ops(house):
    house.user("ops", Role.OPERATOR)
    return house.client("ops")


def step(client, **fields):
    return client.post("/rollout", data={"csrf_token": csrf(client, "/rollout"), **fields})


def confirm(client, **fields):
    return step(client, confirmed="yes", **fields)


def test_a_step_is_asked_first_and_taken_when_confirmed(ops, gate):
    asked = step(ops, action="stage", stage="25", why="first week went well")

    assert asked.status_code == 200
    assert "Let 25 % of the users in?" in asked.text
    assert gate.rollout == Rollout()

    assert confirm(ops, action="stage", stage="25", why="first week went well").status_code == 302
    assert gate.rollout == Rollout(stage=25)
    change = gate.records.history()[0]
    assert (change.who, change.why) == ("ops", "first week went well")


def test_the_question_says_how_many_accounts_there_will_be(house, ops):

    assert "Afterwards: <b>0</b>" in step(ops, action="stage", stage="0", why="test").text


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"action": "stage", "stage": "33", "why": "x"}, "The stages are 0, 10, 25, 50, 100 percent."),
        ({"action": "stage", "stage": "", "why": "x"}, "The stages are"),
        ({"action": "kill", "why": "  "}, "Say why"),
        ({"action": "fly", "why": "x"}, "Choose what to do."),
        ({"action": "broker-off", "broker": "other", "why": "x"}, "Choose an installed broker."),
    ],
)
def test_a_wrong_step_says_what_is_wrong(ops, gate, fields, said):
    answer = confirm(ops, **fields)

    assert answer.status_code == 400
    assert said in answer.text
    assert gate.rollout == Rollout()


def test_a_step_asked_of_another_state_is_refused(ops, gate):
    gate.kill(who="night", why="alert")

    answer = confirm(ops, action="stage", stage="50", why="all fine", seen="100 %")

    assert answer.status_code == 409
    assert "Somebody changed the rollout meanwhile" in answer.text
    assert gate.rollout == Rollout(killed=True)


@pytest.mark.parametrize(
    ("fields", "after"),
    [
        ({"action": "kill"}, Rollout(killed=True)),
        ({"action": "broker-off", "broker": "wired"}, Rollout(brokers_off=("wired",))),
    ],
)
def test_stops_reach_the_feeds(house, ops, fields, after):
    confirm(ops, why="alert", **fields)

    assert house.services.pilot.gate.rollout == after
    assert house.fleet.pushing == {"acc": False}


def test_a_step_and_a_choice_that_busy_feeds_follow_later_say_so(house, ops, gate):
    gate.on_change = busy

    answer = confirm(ops, action="kill", why="alert")
    said = ops.get(answer.location).text
    token = csrf(ops, "/settings")
    chosen = ops.post(
        "/settings/realtime", data={"csrf_token": token, "choice": "out"}, follow_redirects=True
    )

    assert gate.rollout == Rollout(killed=True)
    assert "stopped. It is decided and written down, but the feeds are too busy to follow at once" in said
    assert gate.choice("ops") is Choice.OUT
    assert "too busy to follow at once" in chosen.text


def busy():
    raise FeedsBusyError


def test_a_stop_is_ended(ops, gate):
    gate.kill(who="night", why="alert")

    confirm(ops, action="resume", why="mended")

    assert gate.rollout == Rollout()


def test_a_trader_neither_sees_nor_steers_the_rollout(house, gate):
    client = house.client("asha")

    assert client.get("/rollout").status_code == 403
    answer = client.post(
        "/rollout", data={"csrf_token": csrf(client, "/"), "action": "kill", "why": "x", "confirmed": "yes"}
    )
    assert answer.status_code == 403
    assert "Rollout" not in client.get("/").text
    assert not gate.rollout.killed


def test_a_stranger_is_sent_to_log_in(house, gate):
    client = house.client()

    assert client.get("/rollout").status_code in {302, 401}
    client.post(
        "/rollout", data={"csrf_token": csrf(client), "action": "kill", "why": "x", "confirmed": "yes"}
    )
    assert not gate.rollout.killed


def test_another_sites_form_is_refused(ops, gate):
    answer = ops.post("/rollout", data={"action": "kill", "why": "x", "confirmed": "yes"})

    assert answer.status_code == 400
    assert not gate.rollout.killed


# --- the user's own choice ----------------------------------------------------------------------------


def test_a_user_chooses_and_the_feed_follows(house, gate):
    client = house.client("asha")

    client.post("/settings/realtime", data={"csrf_token": csrf(client, "/"), "choice": "out"})

    assert gate.choice("asha") is Choice.OUT
    assert house.fleet.pushing == {"acc": False}
    mine = client.get("/ui/realtime").json
    assert mine["choice"] == "out"
    assert mine["accounts"]["acc"] == {
        "enabled": False,
        "reason": "switched off by you",
        "said": "You switched real-time updates off.",
    }


def test_a_program_chooses_for_its_user_alone(house, gate):
    house.user("ravi")
    house.account("his", "ravi")
    trade, read = (
        house.services.users.add_key("asha", scope=scope)[1] for scope in (Scope.TRADE, Scope.READ)
    )
    program = house.app.test_client()

    def ask(name, key, **fields):
        return program.post(f"/api/v1/{name}", json={"apikey": key, **fields})

    assert ask("realtime/choose", read, choice="out").status_code == 403
    assert ask("realtime/choose", trade, choice="maybe").status_code == 400
    assert gate.choice("asha") is Choice.NONE

    chosen = ask("realtime/choose", trade, choice="out").json

    assert house.fleet.pushing == {"acc": False, "his": True}
    assert chosen["data"] == [
        {
            "account": "acc",
            "enabled": False,
            "reason": "switched off by you",
            "said": "You switched real-time updates off.",
        }
    ]
    assert ask("realtime", read).json == chosen
    assert ask("realtime/choose", trade, choice="none").json["data"][0]["enabled"]


def test_a_choice_that_is_none_changes_nothing(house, gate):
    client = house.client("asha")

    client.post("/settings/realtime", data={"csrf_token": csrf(client, "/"), "choice": "maybe"})

    assert gate.choice("asha") is Choice.NONE
