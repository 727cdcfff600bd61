from __future__ import annotations

from orderwire.core.hosts import Place, app_mark
from orderwire.store import hosts


def test_nothing_is_remembered_of_a_host_that_never_was(database):
    assert hosts.places(database, "trader") == {}
    assert hosts.apps(database) == {}


def test_how_far_a_host_was_told_and_which_apps_it_uses_are_kept_apart(database):
    hosts.keep_places(database, "trader", {"acc": Place("e1", 7)})
    hosts.keep_apps(database, "trader", {"jainam": app_mark("jainam", "Key")})
    hosts.keep_apps(database, "other", {"zerodha": ""})
    hosts.keep_places(database, "trader", {"acc": Place("e1", 9)})

    assert hosts.places(database, "trader") == {"acc": Place("e1", 9)}
    assert hosts.places(database, "other") == {}
    assert hosts.apps(database) == {app_mark("jainam", " key "): "trader"}
