from __future__ import annotations

import pytest
from msgspec.structs import replace

from monitoring.watched import feed
from orderwire.core.alerts import Alert, Severity
from orderwire.core.latency import Histogram
from orderwire.core.recovery import Freshness
from orderwire.monitoring.metrics import sample
from orderwire.monitoring.muster import described, packed
from orderwire.store import alerts as kept
from orderwire.store import audit
from orderwire.store.leases import Worker
from orderwire.store.users import Scope
from web.house import csrf
from web.watching import watch


class FakeSocket:
    def __init__(self, port):
        self.port = port

    def getsockname(self):
        return ("127.0.0.1", self.port)


@pytest.fixture
def watched(house, tmp_path):
    return watch(house, tmp_path, metrics_port=9464)


def on_port(client, path, port):
    return client.get(path, environ_overrides={"gunicorn.socket": FakeSocket(port)})


PROBES = ("/metrics", "/status.json")


@pytest.mark.parametrize("path", PROBES)
def test_strangers_and_traders_learn_nothing(watched, path):
    trader = watched.services.users.add_key("asha", scope=Scope.TRADE)[1]
    answers = [
        watched.client().get(path),
        watched.client("asha").get(path),
        watched.client().get(path, headers={"Authorization": f"Bearer {trader}"}),
        watched.client().get(path, headers={"Authorization": "Bearer nonsense"}),
        watched.client().get(path, headers={"Host": "127.0.0.1:9464"}),
    ]

    assert {answer.status_code for answer in answers} == {401}
    assert all(b"orderwire_" not in answer.data for answer in answers)


@pytest.mark.parametrize("path", PROBES)
def test_an_operators_key_session_and_the_metrics_port_are_let_in(watched, path):
    key = watched.services.users.add_key("ops", scope=Scope.READ)[1]

    assert watched.client().get(path, headers={"Authorization": f"Bearer {key}"}).status_code == 200
    assert watched.client("ops").get(path).status_code == 200
    assert on_port(watched.client(), path, 9464).status_code == 200
    assert on_port(watched.client(), path, 5080).status_code == 401


def test_a_disabled_operators_key_is_no_key(watched):
    key = watched.services.users.add_key("ops", scope=Scope.READ)[1]
    watched.services.users.disable("ops", by="test")

    assert watched.client().get("/metrics", headers={"Authorization": f"Bearer {key}"}).status_code == 401


@pytest.mark.parametrize("path", ["/", "/login", "/accounts", "/operator", "/static/favicon.svg", "/nowhere"])
def test_nothing_but_probes_is_on_the_metrics_port(watched, path):
    assert on_port(watched.client("ops"), path, 9464).status_code == 404


def test_readiness_is_told_to_anybody_without_naming_anybody(watched):
    watched.feeds = [feed("acc-of-asha", freshness=Freshness.RECONCILING)]
    answer = watched.client().get("/readyz")

    assert answer.status_code == 503
    assert answer.json == {"status": "waiting", "waiting_for": ["1 accounts are being reconciled"]}
    watched.feeds = [feed()]
    assert watched.client().get("/readyz").status_code == 200


def test_of_several_processes_the_page_shows_the_whole_and_who_is_worst(watched, monkeypatch):
    slow, quick = Histogram(), Histogram()
    slow.extend([0.5] * 9)
    quick.extend([0.001] * 9)
    told = {
        "f1": ("feeds", [sample("queue_depth", 7), sample("ready", 0), sample("bus_published_total", 12)]),
        "w1": ("web", [sample("clients", 3), sample("processing_seconds", quick.snapshot())]),
        "w2": ("web", [sample("clients", 5), sample("processing_seconds", slow.snapshot())]),
    }
    workers = [
        Worker(
            id=name,
            role=role,
            place="here:1",
            version="1",
            started_ns=1,
            draining=False,
            live=True,
            report=packed(report),
            owns=2,
        )
        for name, (role, report) in told.items()
    ]
    monkeypatch.setattr(
        "orderwire.web.monitor.processes", lambda _database: [described(each) for each in workers]
    )

    page = watched.client("ops").get("/operator").text

    assert [
        name in page for name in ("not ready: f1", "slowest w2, ", "now most at f1", "most at w2, 5")
    ] == [True] * 4
    assert ">8</p>" in page  # pages and programs
    assert "12 published" in page


@pytest.mark.parametrize(
    "path", ["/operator", "/operator/alerts", "/operator/accounts/acc", "/ui/operator/plots/depth"]
)
def test_the_pages_are_the_operators_alone(watched, path):
    assert watched.client("asha").get(path).status_code == 403
    assert watched.client("ops").get(path).status_code == 200


def test_the_page_shows_the_accounts_that_want_looking_at_first(watched):
    watched.feeds = [
        feed("fine"),
        feed("late", freshness=Freshness.STALE, detail="No answer."),
        feed("lost", freshness=Freshness.STALE, running=False),
    ]
    page = watched.client("ops").get("/operator").text

    assert page.index("/accounts/lost") < page.index("/accounts/late") < page.index("/accounts/fine")
    assert "No answer." in page
    assert "NO FEED" in page


def test_a_raised_alert_is_on_the_page_and_in_the_history(watched):
    watched.free = 0
    watched.station.metrics.on_timer(None)
    watched.station.watchdog.look()
    client = watched.client("ops")

    assert "DiskNearlyFull" in client.get("/operator").text.split("Raised now")[1].split("Accounts</h2>")[0]
    assert "DiskNearlyFull" in client.get("/operator/alerts").text


def test_the_history_has_pages(watched):
    alert = Alert(
        rule="ErrorRate", severity=Severity.WARNING, labels=(), value=1, limit=1, unit="", summary="s"
    )
    for number in range(60):
        one = replace(alert, summary=f"number {number}.")
        watched.services.database.write(lambda c, one=one, n=number: kept.keep_raised(c, one, n))
    client = watched.client("ops")

    assert "number 59." in client.get("/operator/alerts").text
    assert "number 5." in client.get("/operator/alerts?page=2").text


def test_an_alert_can_be_silenced_and_heard_again(watched):
    client = watched.client("ops")
    token = csrf(client, "/operator")
    form = {"rule": "ErrorRate", "hours": "4", "reason": "known", "csrf_token": token}

    assert client.post("/operator/silence", data=form).status_code == 303
    (silence,) = kept.silences(watched.services.database)
    assert (silence.rule, silence.by, silence.reason) == ("ErrorRate", "ops", "known")

    client.post("/operator/unsilence", data={"rule": "ErrorRate", "csrf_token": token})
    assert kept.silences(watched.services.database) == []


@pytest.mark.parametrize("form", [{"rule": "Nonsense"}, {}, {"rule": "ErrorRate' OR 1=1"}])
def test_what_is_no_alert_cannot_be_silenced(watched, form):
    client = watched.client("ops")
    page = client.post(
        "/operator/silence", data=form | {"csrf_token": csrf(client, "/operator")}, follow_redirects=True
    )

    assert "There is no alert" in page.text
    assert kept.silences(watched.services.database) == []


def test_looking_at_an_account_is_written_into_the_audit(watched):
    watched.client("ops").get("/operator/accounts/acc")

    deed = audit.entries(watched.services.database)[0]
    assert (deed.who, deed.what, deed.detail) == ("ops", "account timeline read", {"account": "acc"})


def test_there_is_no_other_account_and_no_other_plot(watched):
    client = watched.client("ops")

    assert client.get("/operator/accounts/nobody").status_code == 404
    assert client.get("/ui/operator/plots/nonsense").status_code == 404
