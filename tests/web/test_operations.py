from __future__ import annotations

import gc
import socket
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from orderwire.errors import OrderwireError
from orderwire.web import operations


@pytest.mark.parametrize("left_over", [False, True], ids=["no socket", "one that was left"])
def test_where_nobody_listens_it_is_said_and_nothing_stays_open(tmp_path, left_over):
    path = tmp_path / "s"
    if left_over:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))

    with pytest.raises(httpx2.ConnectError, match=r"s: [NC]o"):
        operations.ask(path, "accounts.list", {})

    gc.collect()  # a socket that is found open here fails the test


def test_a_service_that_takes_no_calls_is_not_taken_for_none(tmp_path):
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as waiting:
        listener.bind(str(path))
        listener.listen(0)
        waiting.connect(str(path))

        with pytest.raises(OrderwireError, match="takes no calls now"):
            operations.ask(path, "accounts.list", {})


def test_a_service_that_dies_before_it_answers_leaves_open_whether_it_was_done(tmp_path):
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener, ThreadPoolExecutor(1) as pool:
        listener.bind(str(path))
        listener.listen()
        asked = pool.submit(operations.ask, path, "pilot.stop", {})
        for _ in range(2):  # it knocks, then asks
            line, _ = listener.accept()
            line.recv(4_096)
            line.close()

        with pytest.raises(OrderwireError, match=r"whether pilot\.stop was done"):
            asked.result(10)
