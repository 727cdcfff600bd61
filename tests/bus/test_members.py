from __future__ import annotations

import threading

import pytest
from bidict import bidict
from socketio.manager import Manager
from socketio.server import Server

from house import eventually
from orderwire.bus.members import Members
from orderwire.bus.switchboard import Switchboard

SPACE = "/"


def a_manager(kind=Members, **given):
    server = Server(async_mode="threading", client_manager=kind(**given))
    return server.manager


def enter(manager, eio_sid):
    sid = manager.pre_connect(eio_sid, SPACE)
    manager.connect(sid, SPACE)
    return sid


class Crossroads(bidict):
    """The room of all: somebody else comes at the moment at which the library looks whether it is empty."""

    meet = staticmethod(lambda: None)

    def __len__(self):
        left = super().__len__()
        if left == 0:
            self.meet()
        return left


class Watched:
    """A lock that says when somebody waits for it."""

    def __init__(self, lock):
        self._lock = lock
        self.waits = threading.Event()

    def __enter__(self):
        if not self._lock.acquire(blocking=False):
            self.waits.set()
            self._lock.acquire()

    def __exit__(self, *_):
        self._lock.release()


def meeting(manager, *, lock=None):
    """Let the last client leave while another comes; returns who came, or nobody."""
    came: list[str] = []
    one = enter(manager, "eio-1")
    room = Crossroads(manager.rooms[SPACE][None])
    manager.rooms[SPACE][None] = room
    comer = threading.Thread(target=lambda: came.append(enter(manager, "eio-2")))

    def meet():
        if comer.ident is None:
            comer.start()
            eventually(lambda: not comer.is_alive() or (lock and lock.waits.is_set()), what="the other")

    room.meet = meet
    manager.pre_disconnect(one, SPACE)
    manager.disconnect(one, SPACE, ignore_queue=True)
    comer.join()
    return came[0] if came else None


def test_the_library_alone_loses_who_comes_while_the_last_one_leaves():
    """The fault this is for: when it goes, the lock may go."""
    manager = a_manager(Manager)

    assert not manager.is_connected(meeting(manager), SPACE)


@pytest.mark.parametrize("kind", [Members, lambda: Switchboard(wire=None)], ids=["alone", "on the queue"])
def test_who_comes_while_the_last_one_leaves_is_there(kind):
    manager = a_manager(kind)
    manager.guard = lock = Watched(manager.guard)

    sid = meeting(manager, lock=lock)

    assert manager.is_connected(sid, SPACE)
    assert list(manager.get_participants(SPACE, None)) == [(sid, "eio-2")]
    assert list(manager.get_participants(SPACE, sid)) == [(sid, "eio-2")]


def test_who_is_told_something_is_as_of_now():
    manager = a_manager()
    one, two = enter(manager, "eio-1"), enter(manager, "eio-2")
    told = manager.get_participants(SPACE, None)

    manager.disconnect(one, SPACE)

    assert [sid for sid, _ in told] == [one, two]


def test_nothing_is_kept_of_who_left_while_it_was_told_something():
    manager = a_manager()
    gone, stays = enter(manager, "eio-1"), enter(manager, "eio-2")
    manager.disconnect(gone, SPACE)

    numbers = [manager._generate_ack_id(sid, print) for sid in (gone, stays, stays)]

    assert numbers == [0, 1, 2]
    assert list(manager.callbacks) == [stays]


def test_a_client_that_goes_twice_leaves_nothing_behind():
    """Its own end and the server's are noticed on two threads."""
    manager = a_manager()
    sid = enter(manager, "eio-1")
    manager.pre_disconnect(sid, SPACE)
    manager.disconnect(sid, SPACE)

    assert manager.pre_disconnect(sid, SPACE) is None
    assert (manager.rooms, manager.pending_disconnect, manager.callbacks) == ({}, {}, {})


def test_only_what_was_asked_for_is_acknowledged_and_once():
    manager = a_manager()
    sid = enter(manager, "eio-1")
    heard = []
    number = manager._generate_ack_id(sid, lambda *said: heard.append(said))

    for id_, said in ((0, []), (7, []), (number, [1]), (number, [2])):
        manager.trigger_callback(sid, id_, said)
    again = manager._generate_ack_id(sid, lambda *said: heard.append(said))
    manager.trigger_callback(sid, again, None)

    assert heard == [(1,), ()]


def test_many_come_and_go_and_everybody_is_there_once_they_came():
    manager = a_manager()
    lost = []

    def come_and_go(name):
        for number in range(300):
            sid = enter(manager, f"{name}-{number}")
            if not manager.is_connected(sid, SPACE):
                lost.append(sid)
            manager.pre_disconnect(sid, SPACE)
            manager.disconnect(sid, SPACE)

    threads = [threading.Thread(target=come_and_go, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert lost == []
    assert (manager.rooms, manager.pending_connect, manager.pending_disconnect) == ({}, {}, {})
