"""Seats as the kernel keeps them: held once, told to who asks, and gone with the process that held them."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import subprocess
import sys
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from house import eventually
from orderwire.brokers.adapter import AccountProfile
from orderwire.brokers.jainam.adapter import JainamAdapter
from orderwire.brokers.zerodha.adapter import ZerodhaAdapter
from orderwire.core.seats import Holder
from orderwire.feeds.seats import PREFIX, FileSeats, Seats, SocketSeats, names_of

NOW = datetime(2026, 8, 17, 4, 30, tzinfo=UTC)
KINDS = [
    pytest.param(
        "sockets", marks=pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux's")
    ),
    "files",
]


@pytest.fixture(params=KINDS)
def where(request, tmp_path):
    return request.param if request.param == "sockets" else str(tmp_path)


@pytest.fixture
def kind(where):
    return SocketSeats() if where == "sockets" else FileSeats(Path(where))


@pytest.fixture
def name():
    return secrets.token_hex(20)


def seats(kind, home="orderwire at /data/one", process=11):
    return closing(Seats(home, process=process, now=lambda: NOW, kind=kind))


@contextmanager
def another_process(where, name):
    command = [sys.executable, str(Path(__file__).with_name("seat_holder.py")), where, name]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "taken\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_seat_is_held_once_told_to_who_asks_and_free_when_it_is_released(kind, name):
    async def story():
        with seats(kind) as first, seats(kind, "orderwire at /data/two", 22) as second:
            assert await first.take("one", [name]) is None
            told = await second.take("two", [name])
            held = dict(second.held)
            first.release("one")
            return told, held, await second.take("two", [name]), kind.holder(name) is not None

    told, held, later, is_held = asyncio.run(story())

    assert told == Holder(home="orderwire at /data/one", process=11, account="one", since=NOW)
    assert (held, later, is_held) == ({}, None, True)
    assert kind.holder(name) is None  # closed


def test_all_of_them_or_none(kind, name):
    other = secrets.token_hex(20)

    async def story():
        with seats(kind) as first, seats(kind, "orderwire at /data/two") as second:
            await first.take("one", [name])
            told = await second.take("two", [other, name])
            return told, kind.holder(other)

    told, left = asyncio.run(story())

    assert told.home == "orderwire at /data/one"
    assert left is None


def test_accounts_of_one_service_share_a_seat_and_the_last_one_gives_it_up(kind, name):
    async def story():
        with seats(kind) as ours:
            await ours.take("one", [name])
            await ours.take("two", [name])
            ours.release("one")
            still = dict(ours.held)
            await ours.take("two", [])
            return still, dict(ours.held)

    assert asyncio.run(story()) == ({name: frozenset({"two"})}, {})


def test_a_seat_is_gone_with_a_killed_process_and_the_next_takes_it(where, kind, name):
    with another_process(where, name) as process:
        told = kind.holder(name)
        process.kill()
        process.wait()
        eventually(lambda: kind.holder(name) is None, what="the seat given up")

        async def take():
            with seats(kind) as ours:
                return await ours.take("one", [name])

        assert asyncio.run(take()) is None

    assert (told.home, told.process, told.account) == ("orderwire at /data/other", 4242, "theirs")
    assert kind.holder(name) is None


def test_nothing_is_left_behind(where, kind, name, tmp_path):
    async def story():
        with seats(kind) as ours:
            await ours.take("one", [name])
            return sorted(path.name for path in tmp_path.iterdir())

    during = asyncio.run(story())

    assert during == ([] if where == "sockets" else [f"{PREFIX}{name}"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux's")
def test_a_holder_that_says_nothing_is_named_by_its_process(name):
    with another_process("sockets", name) as process:
        process.send_signal(signal.SIGSTOP)
        try:
            told = SocketSeats().holder(name)
        finally:
            process.send_signal(signal.SIGCONT)

    assert told == Holder(process=process.pid)


@pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux's")
def test_a_strange_program_on_the_name_keeps_it_and_is_named_as_one(name):
    with socket.socket(socket.AF_UNIX) as strange:
        strange.bind(f"\0{PREFIX}{name}")  # and never listens

        async def take():
            with seats(SocketSeats()) as ours:
                return await ours.take("one", [name])

        assert asyncio.run(take()) == Holder()


def test_where_no_name_can_be_held_the_account_is_fed_all_the_same(tmp_path, name):
    async def take():
        with seats(FileSeats(tmp_path / "not there")) as ours:
            return await ours.take("one", [name]), dict(ours.held)

    assert asyncio.run(take()) == (None, {})


def test_a_file_that_its_last_holder_just_removed_is_not_taken_for_the_name(tmp_path, name, monkeypatch):
    kind, path = FileSeats(tmp_path), tmp_path / f"{PREFIX}{name}"
    lock = os.stat

    def removed(*given, **more):
        path.unlink(missing_ok=True)
        return lock(*given, **more)

    monkeypatch.setattr(os, "stat", removed)
    assert kind.hold(name, Holder()) is None
    monkeypatch.undo()
    seat = kind.hold(name, Holder())
    assert seat is not None
    seat.close()


def profile(**given):
    credentials = {"app_key": "Xts", "secret_key": "s", "api_key": "k", "api_secret": "s"} | given
    return AccountProfile(account="one", credentials=credentials)


def test_a_jainam_login_is_the_same_by_its_keys_and_by_its_token_and_an_app_has_a_seat_of_its_own():
    by_keys = names_of(JainamAdapter, profile(), user_id="JAY01")
    by_token = names_of(JainamAdapter, profile(session="host"), user_id="JAY01_XTS")
    second_app = names_of(JainamAdapter, profile(app_key="Other"), user_id="JAY01")

    assert by_keys == by_token
    assert len(set(by_keys)) == 2
    assert len(set(by_keys) & set(second_app)) == 1  # whose login it is
    assert len(names_of(JainamAdapter, profile(), user_id="")) == 1  # before the first login: the app


def test_users_of_one_zerodha_app_have_seats_of_their_own():
    assert names_of(ZerodhaAdapter, profile(), user_id="") == ()
    assert names_of(ZerodhaAdapter, profile(user_id="ab1234"), user_id="") == names_of(
        ZerodhaAdapter, profile(), user_id="AB1234"
    )
    assert names_of(ZerodhaAdapter, profile(), user_id="A") != names_of(
        ZerodhaAdapter, profile(), user_id="B"
    )
