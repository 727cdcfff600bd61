"""`orderwire demo`, as somebody who has never seen it runs it."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from house import eventually, free_port
from orderwire.client import OrderStream
from running_demo import RunningDemo, three_free_ports


@pytest.fixture
def demo(tmp_path):
    running = []

    def start(*options, **ports):
        running.append(RunningDemo(tmp_path, *options, **ports))
        return running[-1]

    yield start
    for each in running:
        if each.process.poll() is None:
            each.stop()


def is_live(demo):
    return demo.freshness() == {"zerodha-asha": "LIVE", "jainam-jay": "LIVE"}


def orders_of(demo, user):
    key = demo.command("apikeys.add", owner=user)["key"]
    with OrderStream(demo.url, apikey=key) as stream:
        while (event := stream.next(timeout=10)) is not None:
            if event.kind == "snapshot":
                return {order["row"]: order for order in event.fields["orders"]}
    raise AssertionError("no snapshot")


def test_the_page_is_alive_and_everything_stops_within_three_seconds_with_open_browsers(
    demo, record_property
):
    running = demo("--orders-per-minute", "240")
    running.await_page()
    eventually(lambda: is_live(running), what="both accounts live")
    eventually(lambda: orders_of(running, "asha") and orders_of(running, "jay"), what="the flow of orders")
    key = running.command("apikeys.add", owner="asha")["key"]

    with OrderStream(running.url, apikey=key) as browser:
        browser.next(timeout=10)
        seconds, said = running.stop()

    assert running.process.returncode == 0
    assert "Traceback" not in said
    assert running.url in said
    record_property("figure", f"demo: stopped with an open client in {seconds:.2f} s")
    assert seconds < 10  # the promise of 3 s is measured by bench/stop.py; here only: it ends by itself
    for port in (running.port, *range(running.sim_port, running.sim_port + 3)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))


def test_it_goes_on_with_the_same_data_and_agrees_with_the_broker(demo):
    first = demo("--orders-per-minute", "0")
    first.await_page()
    eventually(lambda: is_live(first), what="both accounts live")
    order = {
        "symbol": "INFY",
        "exchange": "NSE",
        "side": "BUY",
        "quantity": 3,
        "order_type": "LIMIT",
        "price": "1400",
    }
    made = first.command("orders.place", account="zerodha-asha", order=order)
    eventually(lambda: status(first, made["id"]) == "OPEN", what="the open order")
    first.stop(signal.SIGTERM)

    second = demo("--orders-per-minute", "0", port=first.port, sim_port=first.sim_port)
    second.await_page()
    eventually(lambda: is_live(second), what="both accounts live again")

    assert status(second, made["id"]) == "OPEN"
    second.command("orders.cancel", account="zerodha-asha", order_id=made["order_id"])
    eventually(
        lambda: status(second, made["id"]) == "CANCELLED", what="the cancellation of the first demo's order"
    )


def status(demo, row):
    return orders_of(demo, "asha").get(row, {}).get("status")


def test_a_taken_port_is_one_clear_line(demo):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        running = demo(port=port)
        said = running.process.communicate(timeout=30)[0].strip().splitlines()

    assert running.process.returncode != 0
    assert len(said) == 1
    assert str(port) in said[0]
    assert "--port" in said[0]


if os.geteuid() != 0:  # root may write anywhere

    def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path):
        tmp_path.chmod(0o500)
        said = refused(tmp_path / "data")

        assert "Permission denied" in said


def test_a_data_folder_that_is_a_file_is_one_clear_line(tmp_path):
    (tmp_path / "data").write_text("not a folder")

    assert "Cannot make the data folder" in refused(tmp_path / "data")


def refused(folder):
    command = [sys.executable, "-m", "orderwire", "demo", "--data-dir", str(folder)]
    command += ["--port", str(free_port()), "--sim-port", str(three_free_ports())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode != 0
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]
