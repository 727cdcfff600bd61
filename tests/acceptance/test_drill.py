"""Every alert, raised by a fault, delivered to a webhook and cleared again: by the service itself and by Prometheus.

The simulated brokers, the service, Prometheus and Alertmanager are the real programs. Durations of the rules are a
twenty-fifth of the usual (`ORDERWIRE_ALERT_PACE`), in the rules for Prometheus as in the service.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import subprocess
import sys
import time
from math import isnan
from pathlib import Path

import httpx2
import pytest
import socketio
import yaml

from house import JAINAM, ZERODHA, House, answers, eventually, free_port, run_python
from monitoring.receiver import Receiver
from orderwire.config import load
from orderwire.core.alerts import RULES
from orderwire.core.promrules import rules_file
from orderwire.monitoring.station import rules_of

OPS = Path(__file__).resolve().parent.parent.parent / "ops"
PACE = 0.04
LIMITS = "QueueBacklog=20,StreamDisconnected=3"
SECRET = "the-drill's-secret"
PATIENCE = 90.0

pytestmark = [
    pytest.mark.long,
    pytest.mark.needs("prometheus", "alertmanager", "promtool", "amtool"),
    pytest.mark.timeout(900),
]


class DrilledHouse(House):
    """A house whose service can be hurt, and that tells a webhook."""

    def __init__(self, folder: Path, webhook: str) -> None:
        super().__init__(folder)
        self.faults = folder / "faults"
        self.faults.mkdir()
        self.metrics_port = free_port()
        self.settings = load(
            data_dir=self.settings.data_dir,
            host="127.0.0.1",
            port=self.settings.port,
            market_always_open=True,
            metrics_port=self.metrics_port,
            alert_pace=PACE,
            alert_limits=LIMITS,
            alert_webhook=webhook,
            alert_webhook_secret=SECRET,
        )

    def start(self) -> None:
        log = self.folder / "orderwire.log"
        self.process = run_python(
            str(Path(__file__).with_name("drill_service.py")), log=log, env=self.settings.as_environment()
        )
        eventually(lambda: answers(self.process, f"{self.url}/healthz", log=log), what="the service's health")

    def hurt(self, what: str, value: str = "") -> None:
        (self.faults / what).write_text(value)

    def heal(self, what: str) -> None:
        (self.faults / what).unlink()


class Watchers:
    """Prometheus and Alertmanager with the files of ops/, on free ports and in a hurry."""

    def __init__(self, folder: Path, house: DrilledHouse, webhook: str) -> None:
        self.folder = folder
        self.url = f"http://127.0.0.1:{free_port()}"
        self.alertmanager = f"http://127.0.0.1:{free_port()}"
        self._configure(house, webhook)
        self._programs = [
            self._run(
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address={self.url.removeprefix('http://')}",
                "--rules.alert.resend-delay=1s",
            ),
            self._run(
                "prometheus-alertmanager",
                f"--config.file={folder / 'alertmanager.yml'}",
                f"--storage.path={folder / 'alertmanager'}",
                f"--web.listen-address={self.alertmanager.removeprefix('http://')}",
                "--cluster.listen-address=",
            ),
        ]
        for address in (self.url, self.alertmanager):
            eventually(lambda address=address: self._ready(address), what=address)

    def _configure(self, house: DrilledHouse, webhook: str) -> None:
        config = yaml.safe_load((OPS / "prometheus" / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["scrape_configs"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{house.metrics_port}"]}]
        manager = self.alertmanager.removeprefix("http://")
        config["alerting"]["alertmanagers"][0]["static_configs"] = [{"targets": [manager]}]
        (self.folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        rules = rules_file(rules_of(house.settings), interval=1)
        (self.folder / "orderwire.rules.yml").write_text(rules)
        told = yaml.safe_load((OPS / "alertmanager" / "alertmanager.yml").read_text())
        told["route"] |= {"group_wait": "200ms", "group_interval": "500ms"}
        for route in told["route"]["routes"]:
            del route["active_time_intervals"]  # the drill may be held on a Sunday
        told["receivers"][0]["webhook_configs"][0]["url"] = webhook
        (self.folder / "alertmanager.yml").write_text(yaml.safe_dump(told))

    def _run(self, *command: str) -> subprocess.Popen[bytes]:
        log = (self.folder / f"{command[0]}.log").open("wb")
        with log:
            return subprocess.Popen([shutil.which(command[0]), *command[1:]], stdout=log, stderr=log)

    def _ready(self, address: str) -> bool:
        with contextlib.suppress(httpx2.HTTPError):
            return httpx2.get(f"{address}/-/ready", trust_env=False, timeout=2).is_success
        return False

    def ask(self, expression: str) -> list[float]:
        """The values an expression has now; NaN left out."""
        reply = httpx2.get(f"{self.url}/api/v1/query", params={"query": expression}, trust_env=False)
        assert reply.is_success, reply.text
        values = [float(row["value"][1]) for row in reply.json()["data"]["result"]]
        return [value for value in values if not isnan(value)]

    def close(self) -> None:
        for program in self._programs:
            program.terminate()
        for program in self._programs:
            program.wait(20)


class Drill:
    """The two ways people are told, and how long each took."""

    def __init__(self, folder: Path) -> None:
        self.built_in, self.by_prometheus = Receiver(), Receiver()
        self.house = DrilledHouse(folder, self.built_in.url)
        self.times: list[str] = []
        self._seen = (0, 0)

    def begin(self, folder: Path) -> None:
        self.house.start()
        self.house.log_in()
        self.watchers = Watchers(folder, self.house, self.by_prometheus.url)
        eventually(lambda: self.watchers.ask("orderwire_ready") == [1], what="a first scrape")

    def close(self) -> None:
        for what in list(self.house.faults.iterdir()):
            what.unlink()
        if hasattr(self, "watchers"):
            self.watchers.close()
        self.house.close()
        self.built_in.close()
        self.by_prometheus.close()

    def told(self) -> tuple[set[tuple[str, bool]], set[tuple[str, bool]]]:
        """What each way has told since the last fault: alert, and whether it was raised."""
        ours = self.built_in.bodies[self._seen[0] :]
        theirs = self.by_prometheus.bodies[self._seen[1] :]
        return (
            {(row["alert"], row["state"] != "cleared") for body in ours for row in body["alerts"]},
            {
                (row["labels"]["alertname"], row["status"] == "firing")
                for body in theirs
                for row in body["alerts"]
            },
        )

    def await_told(self, alerts: set[str], *, raised: bool, ours: bool = True) -> None:
        began = time.monotonic()
        wanted = {(alert, raised) for alert in alerts}
        word = "raised" if raised else "cleared"
        took: dict[str, float] = {}

        def both() -> bool:
            mine, theirs = self.told()
            for name, heard in (("built in", mine if ours else wanted), ("Prometheus", theirs)):
                if wanted <= heard:
                    took.setdefault(name, time.monotonic() - began)
            return len(took) == 2

        try:
            eventually(both, within=PATIENCE, what=f"{sorted(alerts)} {word}")
        except AssertionError as error:
            raise AssertionError(
                f"{error}; told: {self.told()}; {self.house.command('status')['alerts']}"
            ) from None
        names = " ".join(sorted(alerts))
        self.times.append(
            f"{names} {word}: "
            + ", ".join(f"{k} {v:.1f} s" for k, v in took.items() if ours or k != "built in")
        )

    def raised(self, alerts: set[str]) -> bool:
        """Whether an earlier fault still has one of these alerts raised, here or there."""
        ours = {row["alert"] for row in self.house.command("status")["alerts"]}
        theirs = [self.watchers.ask(f'ALERTS{{alertname="{name}"}}') for name in sorted(alerts)]
        return bool(ours & alerts) or any(theirs)

    @contextlib.contextmanager
    def fault(self, *alerts: str):
        """While the block's fault lasts the alerts are raised and told; after it they are cleared and told."""
        eventually(lambda: not self.raised(set(alerts)), within=PATIENCE, what=f"quiet before {alerts}")
        self._seen = (len(self.built_in.bodies), len(self.by_prometheus.bodies))
        with contextlib.ExitStack() as healing:
            yield healing
            self.await_told(set(alerts), raised=True)
        self.await_told(set(alerts), raised=False)


@pytest.fixture(scope="module")
def drill(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drill")
    drill = Drill(folder)
    try:
        drill.begin(folder)
        yield drill
    finally:
        drill.close()


def sim_fault(drill, **body):
    number = drill.house.sims.ask("POST", "/faults", body)["id"]
    return lambda: drill.house.sims.ask("DELETE", f"/faults/{number}")


def resting(drill, account):
    """Place an order far from the market, and return its number at the broker."""
    made = drill.house.place(account, order_type="LIMIT", price="1400")
    return made["order_id"]


def a_quiet_day_is_quiet(drill):
    """Nothing was told since the start but the logins that were missing then, and those are over."""
    eventually(lambda: drill.house.command("status")["status"] == "ok", what="a quiet service")

    ours, theirs = drill.told()
    assert {name for name, _ in ours | theirs} <= {"LoginRequired", "SlowProcessing"}


def a_broker_that_does_not_answer(drill):
    order = resting(drill, ZERODHA)
    with drill.fault("StaleAccount") as healing:
        healing.callback(
            sim_fault(drill, kind="server_error", broker="kite", channel="rest", operation="orders.book")
        )
    drill.house.await_freshness(ZERODHA, "LIVE")
    drill.house.command("orders.cancel", account=ZERODHA, order_id=order)


def a_stream_that_is_refused(drill):
    with drill.fault("StreamDisconnected") as healing:
        healing.callback(
            sim_fault(
                drill, kind="refuse_handshake", broker="xts", channel="handshake", params={"status": 503}
            )
        )
        drill.house.sims.ask("POST", "/sockets/disconnect", {"broker": "xts", "user": "", "mode": "abort"})
    drill.house.await_freshness(JAINAM, "LIVE")


def what_cannot_be_believed(drill):
    """Frames that are no messages, an order filled seven times over, a postback that somebody altered."""
    order = resting(drill, ZERODHA)
    with drill.fault("ErrorRate", "DeadLetters", "PostbackMismatch"):
        for number in range(20):
            text = f'{{"type":"order","data":{number}}}'
            drill.house.sims.ask("POST", "/kite/frames", {"user": "ZD0001", "text": text})
        impossible(drill)
        drill.house.sims.ask("POST", "/kite/postbacks/forge", {"order_id": order, "kind": "altered"})


def impossible(drill):
    order = resting(drill, ZERODHA)
    session = drill.house.sims.ask("POST", "/kite/sessions", {"api_key": "demokite", "user_id": "ZD0001"})
    reply = httpx2.get(
        f"{drill.house.sims.ready['kite']}/orders",
        headers={"Authorization": f"token demokite:{session['access_token']}", "X-Kite-Version": "3"},
        trust_env=False,
    )
    (row,) = [row for row in reply.json()["data"] if row["order_id"] == order]
    row |= {"filled_quantity": row["quantity"] * 7, "status": "UPDATE"}
    text = json.dumps({"type": "order", "id": "x", "data": row})
    drill.house.sims.ask("POST", "/kite/frames", {"user": "ZD0001", "text": text})


def a_token_that_died(drill):
    with drill.fault("LoginRequired") as healing:
        drill.house.sims.ask("POST", "/tokens/kill", {"broker": "kite", "user": "ZD0001"})
        healing.callback(drill.house.log_in)


def an_account_that_nothing_feeds(drill):
    with drill.fault("FeedWithoutOwner") as healing:
        drill.house.command(
            "accounts.add",
            id="unfed",
            broker="zerodha",
            owner="asha",
            credentials={"api_key": "other", "api_secret": "other-secret"},
            addresses={"api": "http://192.0.2.1:1"},
        )
        healing.callback(drill.house.command, "accounts.remove", id="unfed")


def a_disk_a_clock_and_a_database(drill):
    """Independent of each other, so at the same time."""
    with drill.fault("DiskNearlyFull", "ClockOffset", "CommitFailing") as healing:
        for what, value in (("disk", "3"), ("clock", "30")):
            drill.house.hurt(what, value)
            healing.callback(drill.house.heal, what)
        locker = sqlite3.connect(drill.house.settings.data_dir / "orderwire.db", isolation_level=None)
        locker.execute("BEGIN IMMEDIATE")
        healing.callback(lambda: (locker.execute("COMMIT"), locker.close()))
        sim_order(drill)


def a_handler_that_hangs(drill):
    """It stalls the dispatcher, and a queue grows behind it."""
    stalled = {("DispatcherStalled", True), ("QueueBacklog", True)}
    with drill.fault("DispatcherStalled", "QueueBacklog"):
        drill.house.hurt("slow")
        for _ in range(60):
            sim_order(drill)
        eventually(
            lambda: all(stalled <= heard for heard in drill.told()), within=PATIENCE, what="a stall told"
        )
        drill.house.heal("slow")


def a_handler_that_is_slow(drill):
    slow, placed = {("SlowProcessing", True)}, [time.monotonic()]

    def told_while_orders_come() -> bool:
        if time.monotonic() - placed[-1] > 0.7:  # a few updates a second: late, not a backlog
            placed.append(time.monotonic())
            sim_order(drill)
        return all(slow <= heard for heard in drill.told())

    with drill.fault("SlowProcessing") as healing:
        drill.house.hurt("late")
        healing.callback(drill.house.heal, "late")
        eventually(told_while_orders_come, within=PATIENCE, what="SlowProcessing told")


def sim_order(drill):
    order = {
        "user": "ZD0001",
        "exchange": "NSE",
        "tradingsymbol": "INFY",
        "transaction_type": "BUY",
        "quantity": "1",
    }
    terms = {"order_type": "LIMIT", "price": "1400", "product": "MIS"}
    drill.house.sims.ask("POST", "/kite/orders/regular", order | terms)


def every_panel_of_the_dashboard_has_data(drill):
    dashboard = json.loads((OPS / "grafana" / "dashboards" / "orderwire.json").read_text())
    wanted = {
        target["expr"].replace("$__rate_interval", "30s")
        for panel in dashboard["panels"]
        for target in panel.get("targets", [])
        if "orderwire_bus_" not in target["expr"]  # one process has no bus; tests/monitoring/test_metrics.py
    }
    with a_browser(drill):
        for account in (ZERODHA, JAINAM):
            drill.house.place(account, order_type="MARKET")

        def empty() -> list[str]:
            return sorted(expression for expression in wanted if not drill.watchers.ask(expression))

        missing: list[str] = []

        def complete() -> bool:
            missing[:] = empty()
            return not missing

        try:
            eventually(complete, within=30)
        except AssertionError:
            assert missing == []
    assert len(wanted) > 60


@contextlib.contextmanager
def a_browser(drill):
    """A page that paints at once, as the real one acknowledges."""
    clients = []
    for user in ("asha", "jay"):
        client = socketio.Client()

        def painted(*_):
            return {"painted": time.time() * 1000}

        for name in ("order_update", "trade_update", "position_update", "snapshot", "feed_status"):
            client.on(name, painted)
        client.connect(drill.house.url, auth={"apikey": drill.house.keys[user]}, transports=["websocket"])
        client.call("follow", {})
        clients.append(client)
    try:
        yield
    finally:
        for client in clients:
            client.disconnect()


def the_status_is_told_to_scripts(drill):
    done = subprocess.run(
        [sys.executable, "-m", "orderwire", "status", "--json"],
        env=drill.house.settings.as_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    told = json.loads(done.stdout)

    assert done.returncode == {"ok": 0, "warning": 1, "critical": 2}[told["status"]]
    assert {row["account"] for row in told["accounts"]} == {ZERODHA, JAINAM}
    rules = subprocess.run(
        [sys.executable, "-m", "orderwire", "alerts", "rules", "--interval", "1"],
        env=drill.house.settings.as_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert rules.stdout == (drill.watchers.folder / "orderwire.rules.yml").read_text()


def a_service_that_is_gone(drill):
    drill._seen = (len(drill.built_in.bodies), len(drill.by_prometheus.bodies))
    drill.house.kill()
    drill.await_told({"ServiceDown"}, raised=True, ours=False)
    down = subprocess.run(
        [sys.executable, "-m", "orderwire", "status"],
        env=drill.house.settings.as_environment(),
        check=False,
        capture_output=True,
    )
    drill.house.start()
    drill.await_told({"ServiceDown"}, raised=False, ours=False)

    assert down.returncode == 3


def test_every_alert_is_raised_told_and_cleared_by_both_ways(drill, record_property):
    for story in (
        a_quiet_day_is_quiet,
        a_broker_that_does_not_answer,
        a_stream_that_is_refused,
        what_cannot_be_believed,
        a_token_that_died,
        an_account_that_nothing_feeds,
        a_disk_a_clock_and_a_database,
        a_handler_that_hangs,
        a_handler_that_is_slow,
        every_panel_of_the_dashboard_has_data,
        the_status_is_told_to_scripts,
        a_service_that_is_gone,
    ):
        story(drill)

    for line in drill.times:
        record_property("figure", f"drill: {line}")
    drilled = {word for line in drill.times for word in line.split(":")[0].split()}
    assert {rule.name for rule in RULES} <= drilled
