"""Known secrets go through the whole service, its faults too; afterwards they are looked for everywhere."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path

import httpx2

from house import JAINAM, PASSWORD, ZERODHA, eventually, running_house
from orderwire.core.orders import AccountId
from orderwire.service import open_records

PAGES = (
    "/",
    "/accounts",
    "/accounts/new?broker=zerodha",
    "/settings",
    "/ui/feeds",
    f"/ui/snapshot?account={ZERODHA}",
)
TARGET = "tgram://canary-bot-token/canary-chat"


def test_no_secret_is_found_in_logs_tracebacks_answers_metrics_or_the_database(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("ORDERWIRE_LOG_LEVEL", "DEBUG")
    answers: list[str] = []

    with running_house(tmp_path) as house, ExitStack() as stack:
        http = stack.enter_context(
            httpx2.Client(base_url=house.url, trust_env=False, follow_redirects=True, timeout=20)
        )
        canaries = {"password": PASSWORD, **{f"key of {user}": key for user, key in house.keys.items()}}
        log_in(http)
        canaries["web session"] = http.cookies["orderwire"]
        add_target(http)
        house.place(ZERODHA, order_type="MARKET")
        house.place(JAINAM, order_type="MARKET")
        make_trouble(house, http)
        answers += [http.get(path).text for path in PAGES]
        answers.append(httpx2.get(f"{house.url}/metrics", trust_env=False).text)
        house.command("keys.rotate")
        answers.append(http.get("/settings").text)
        house.stop()
        records = open_records(house.settings)
        for account in (ZERODHA, JAINAM):
            found = (
                records.accounts.credentials(AccountId(account)),
                records.accounts.login(AccountId(account)),
            )
            secrets = {"api_secret", "secret_key"} & found[0].keys()
            canaries |= {f"{account} {name}": found[0][name] for name in secrets}
            canaries |= {f"{account} {name}": value for name, value in found[1].secrets.items()}
        records.database.close()
    canaries["target"] = TARGET

    places = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    places |= {f"answer {number}": text.encode() for number, text in enumerate(answers)}
    places.pop("brokersim.log")  # the brokers' own side
    assert len(canaries) >= 8
    assert all(len(value) >= 8 for value in canaries.values()), canaries.keys()
    assert b"login refused" in places["orderwire.log"]
    leaks = [
        (what, where)
        for what, value in canaries.items()
        for where, held in places.items()
        if value.encode() in held
    ]
    assert leaks == []


def test_the_search_would_find_a_leak(tmp_path: Path) -> None:
    """The key file is looked at as everything is; a secret written in the clear into the folder is seen."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "leak.txt").write_text(f"x{PASSWORD}x")

    found = [
        path for path in tmp_path.rglob("*") if path.is_file() and PASSWORD.encode() in path.read_bytes()
    ]

    assert [path.name for path in found] == ["leak.txt"]


def log_in(http: httpx2.Client) -> None:
    http.post("/login", data={"name": "asha", "password": PASSWORD, "csrf_token": token(http, "/login")})
    assert http.get("/settings").status_code == 200


def token(http: httpx2.Client, path: str) -> str:
    return re.search(r'name="csrf-token" content="([^"]+)"', http.get(path).text).group(1)


def add_target(http: httpx2.Client) -> None:
    fields = {"kind": "apprise", "address": TARGET, "target_label": "Telegram"}
    answer = http.post("/settings/targets", data=fields | {"csrf_token": token(http, "/settings")})
    assert answer.status_code == 200


def make_trouble(house, http: httpx2.Client) -> None:
    """Everything that may make a log talk: wrong logins, wrong bodies, a broker that fails, a token that dies."""
    for password in (PASSWORD + "x", "x" + PASSWORD):
        with httpx2.Client(base_url=house.url, trust_env=False, follow_redirects=True) as other:
            other.post(
                "/login", data={"name": "jay", "password": password, "csrf_token": token(other, "/login")}
            )
    http.post("/api/v1/orderbook", json={"apikey": house.keys["asha"], "more": ["wrong"]})
    http.post("/api/v1/placeorder", json={"apikey": house.keys["asha"], "quantity": "none"})
    http.get(f"/accounts/{ZERODHA}/callback", params={"request_token": "canary-request", "state": "wrong"})
    house.sims.ask("POST", "/faults", {"kind": "corrupt", "broker": "kite", "count": 3})
    house.sims.ask("POST", "/faults", {"kind": "server_error", "broker": "kite", "count": 3})
    http.post("/ui/refresh", json={}, headers={"X-CSRFToken": token(http, "/")})
    eventually(lambda: house.freshness(ZERODHA) in {"LIVE", "STALE", "DEGRADED"}, what="a freshness")
