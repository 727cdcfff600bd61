"""The manual names everything there is."""

import dataclasses
from pathlib import Path

import pytest

from brokersim import control
from brokersim.faults import FaultKind
from brokersim.kite import app as kite_app
from brokersim.kite.postbacks import FORGERIES
from brokersim.proxy import Proxies
from brokersim.users import demo_users
from brokersim.world import Settings, World

MANUAL = (Path(__file__).resolve().parents[2] / "docs" / "brokersim.md").read_text()
USERS = demo_users()


@pytest.mark.parametrize("kind", [kind.value for kind in FaultKind])
def test_every_fault_switch_is_described(kind):
    assert f"`{kind}`" in MANUAL


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Settings)])
def test_every_setting_is_described(name):
    assert name in MANUAL


@pytest.mark.parametrize("kind", sorted(FORGERIES))
def test_every_forgery_is_described(kind):
    assert f"`{kind}`" in MANUAL


@pytest.mark.parametrize(
    "word",
    [
        *(part for app in USERS.kite_apps.values() for part in (app.api_key, app.api_secret)),
        *(part for user in USERS.kite_users.values() for part in (user.user_id, user.password)),
        *(
            part
            for login in USERS.xts_logins.values()
            for part in (login.app_key, login.secret_key, login.login_id)
        ),
        *(client for login in USERS.xts_logins.values() for client in login.clients),
    ],
)
def test_every_demo_credential_is_there(word):
    assert f"`{word}`" in MANUAL


def test_every_call_of_the_control_api_is_described():
    world = World(start=0.0, walking=False)
    table = control.Control(world, kite_app.Kite(world), Proxies(world.faults)).table()

    missing = [path for _, path, _ in table if f"/{path.split('/', maxsplit=2)[-1]}" not in MANUAL]

    assert missing == []
