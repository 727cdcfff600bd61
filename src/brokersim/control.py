"""The control API: reads the truth and steers market, users, faults and sockets. For tests and demos, loopback only.

JSON in, JSON out; prices are strings. A bad request is answered 400 with what is wrong. Every path is described
in docs/brokersim.md.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, fields, replace
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from aiohttp import web

from brokersim.exchange import UnknownOrderError
from brokersim.faults import Fault
from brokersim.kite.app import Kite
from brokersim.kite.errors import KiteError
from brokersim.kite.postbacks import FORGERIES, forge
from brokersim.kite.rows import STATUS
from brokersim.kite.sessions import Session
from brokersim.ledger import Message, Truth
from brokersim.orders import OrderSnapshot, Stage, Trade
from brokersim.proxy import Proxies
from brokersim.users import DEMO_CASH, KiteApp, KiteUser, Plan, UnknownUserError, XtsKind, XtsLogin
from brokersim.world import Settings, World
from brokersim.xts.app import XtsFront
from brokersim.xts.errors import XtsError

Body = Mapping[str, Any]
_PAGE: Final = 10_000


MOST_FILLS: Final = 1000
"""Fills of one call to `POST /market/fill`."""


class Control:
    """The handlers, on one world and its Kite host. Each takes the request's body and query as one mapping."""

    def __init__(self, world: World, kite: Kite, proxies: Proxies) -> None:
        """Steer this world."""
        self._world = world
        self._kite = kite
        self._proxies = proxies

    def table(self) -> list[tuple[str, str, Callable[[Body], Any]]]:
        """List method, path and handler of every call."""
        return [
            ("GET", "/health", self.health),
            ("GET", "/settings", self.settings),
            ("PATCH", "/settings", self.change_settings),
            ("GET", "/users", self.users),
            ("POST", "/users/kite", self.add_kite_users),
            ("POST", "/users/xts", self.add_xts_logins),
            ("POST", "/kite/apps", self.add_kite_app),
            ("PATCH", "/kite/apps/{api_key}", self.change_kite_app),
            ("POST", "/kite/sessions", self.open_kite_session),
            ("POST", "/kite/orders/{variety}", self.place_from_terminal),
            ("POST", "/kite/frames", self.send_frame),
            ("POST", "/kite/postbacks/forge", self.forge_postback),
            ("GET", "/xts/settings", self.xts_settings),
            ("PATCH", "/xts/settings", self.change_xts_settings),
            ("POST", "/xts/orders", self.place_xts_order),
            ("GET", "/orders", self.orders),
            ("GET", "/orders/{uid}", self.history),
            ("GET", "/ledger/totals", lambda _: self._world.ledger.totals()),
            ("GET", "/ledger/truths", self.truths),
            ("GET", "/ledger/messages", self.messages),
            ("GET", "/market", self.market),
            ("POST", "/market/price", self.set_price),
            ("POST", "/market/pause", lambda body: self._world.exchange.pause(body.get("key"))),
            ("POST", "/market/resume", lambda body: self._world.exchange.resume(body.get("key"))),
            ("POST", "/market/fill", self.fill),
            ("POST", "/market/cancel", self.cancel),
            ("POST", "/market/freeze", self.freeze),
            ("POST", "/market/thaw", lambda _: self._world.exchange.thaw()),
            ("POST", "/market/close", lambda _: self._world.exchange.close()),
            ("POST", "/market/open", lambda _: self._world.exchange.open()),
            ("POST", "/market/end-day", lambda _: {"expired": self._world.exchange.end_day()}),
            ("GET", "/faults", self.faults),
            ("POST", "/faults", self.add_fault),
            ("DELETE", "/faults", lambda _: self._world.faults.clear()),
            ("DELETE", "/faults/{id}", self.remove_fault),
            ("GET", "/proxies", lambda _: [each.described() for each in self._proxies.all()]),
            ("POST", "/proxies", self.add_proxy),
            ("DELETE", "/proxies/{name}", self.remove_proxy),
            ("GET", "/sockets", self.sockets),
            ("POST", "/sockets/disconnect", self.disconnect),
            ("POST", "/tokens/kill", self.kill_tokens),
        ]

    # --- state -------------------------------------------------------------------------------------------

    def health(self, _: Body) -> Any:
        """Say that the program lives, and its time."""
        return {"time": self._world.timeline.date.isoformat(), "orders": len(self._world.exchange.orders())}

    def settings(self, _: Body) -> Any:
        """Show the settings."""
        return asdict(self._world.settings)

    def change_settings(self, body: Body) -> Any:
        """Change some settings; a wrong name or type changes nothing."""
        known = {field.name: getattr(self._world.settings, field.name) for field in fields(Settings)}
        for name, value in body.items():
            if name not in known:
                raise ValueError(f"unknown setting {name}")
            if not _same_kind(value, known[name]):
                raise ValueError(f"{name} must be like {known[name]!r}")
        self._world.settings = replace(self._world.settings, **body)
        return asdict(self._world.settings)

    def users(self, _: Body) -> Any:
        """List accounts with what is left in them, and apps and logins with their secrets (they are fake)."""
        users = self._world.users
        return {
            "accounts": [
                {"broker": each.broker, "user": each.user, "cash": each.cash, "available": each.available}
                for each in users.accounts.values()
            ],
            "kite_apps": [asdict(each) for each in users.kite_apps.values()],
            "kite_users": [asdict(each) for each in users.kite_users.values()],
            "xts_logins": [asdict(each) for each in users.xts_logins.values()],
        }

    def add_kite_users(self, body: Body) -> Any:
        """Add users: `{"users": [{"user_id", "password", "name", "cash"}, ...]}`; only user_id is needed."""
        added = []
        for each in body["users"]:
            user_id = str(each["user_id"])
            password, name = str(each.get("password", "demo")), str(each.get("name", user_id))
            cash = Decimal(str(each.get("cash", DEMO_CASH)))
            user = KiteUser(user_id=user_id, password=password, name=name)
            self._world.users.add_kite_user(user, cash=cash)
            added.append(user_id)
        return {"added": added}

    def add_xts_logins(self, body: Body) -> Any:
        """Add app keys: `{"logins": [{"kind", "app_key", "secret_key", "login_id", "clients", "cash"}, ...]}`."""
        added = []
        for each in body["logins"]:
            app_key = str(each["app_key"])
            login = XtsLogin(
                kind=XtsKind(each.get("kind", "investor")),
                app_key=app_key,
                secret_key=str(each.get("secret_key", f"{app_key}-secret")),
                login_id=str(each["login_id"]),
                clients=tuple(each.get("clients") or (str(each["login_id"]),)),
            )
            self._world.users.add_xts_login(login, cash=Decimal(str(each.get("cash", DEMO_CASH))))
            added.append(app_key)
        return {"added": added}

    # --- Kite --------------------------------------------------------------------------------------------

    def add_kite_app(self, body: Body) -> Any:
        """Register an app: the fields of `KiteApp`; api_key and api_secret are needed."""
        app_id = int(body.get("app_id", 2000 + len(self._world.users.kite_apps)))
        self._world.users.add_kite_app(KiteApp(**{**_app_fields(body), "app_id": app_id}))
        return {"app_id": app_id}

    def change_kite_app(self, body: Body) -> Any:
        """Change an app: postback_url, redirect_url, plan, secrets, allowed_ips.

        A new api_secret keeps the present one as old_secret.
        """
        changes = _app_fields(body)
        api_key = changes.pop("api_key")
        old = self._world.users.kite_apps.get(api_key)
        if "api_secret" in changes and old is not None:
            changes.setdefault("old_secret", old.api_secret)
        return asdict(self._world.users.change_kite_app(api_key, **changes))

    def open_kite_session(self, body: Body) -> Any:
        """Log a user in without the login page."""
        api_key, user = str(body["api_key"]), str(body["user_id"])
        if api_key not in self._world.users.kite_apps:
            raise UnknownUserError(api_key)
        self._world.users.account("kite", user)
        session = self._kite.sessions.open(api_key, user, self._world.timeline.date)
        return {"access_token": session.access_token, "user_id": user, "api_key": api_key}

    def place_from_terminal(self, body: Body) -> Any:
        """Place an order as if on Kite's own web page: no app, so no postback. Fields as in Kite's form, plus user."""
        now = self._world.timeline.date
        user = self._world.users.account("kite", str(body["user"])).user
        terminal = Session(
            api_key="", user=user, access_token="", login_time=now, expires=now + timedelta(days=1)
        )
        form = {key: str(value) for key, value in body.items()}
        return self._kite.desk.place(terminal, str(body["variety"]), form)

    def send_frame(self, body: Body) -> Any:
        """Send a text frame as it is to a user's WebSockets ("" for all)."""
        return {"sent": self._kite.hub.send_raw(str(body.get("user", "")), str(body["text"]))}

    async def forge_postback(self, body: Body) -> Any:
        """Send a forged postback about an order to its app's URL, or to `url`; give what the receiver answered."""
        order = self._world.exchange.order(f"kite:{body['order_id']}")
        app = self._world.users.kite_apps[str(body.get("api_key") or order.request.app)]
        kind = str(body["kind"])
        if kind not in FORGERIES:
            raise ValueError(f"kind must be one of {sorted(FORGERIES)}")
        status = str(body.get("status") or STATUS[order.resting_stage if order.live else order.stage])
        forged = forge(kind, order, status, app, body)
        url = str(body.get("url") or app.postback_url)
        if not url:
            raise ValueError("the app has no postback_url")
        answers = [
            await self._kite.postman.send(url, forged, order=order, what=f"forged:{kind}", faults=("forged",))
            for _ in range(int(body.get("count", 1)))
        ]
        return {"answers": answers}

    def xts_settings(self, _: Body) -> Any:
        """Show the settings of XTS alone."""
        return asdict(self._xts.settings)

    def change_xts_settings(self, body: Body) -> Any:
        """Change some settings of XTS; a wrong name or mode changes nothing."""
        return asdict(self._xts.configure(**body))

    def place_xts_order(self, body: Body) -> Any:
        """Place an order as if at XTS's own terminal (GeneratedBy TWS). Fields as in XTS's body, plus user."""
        client = self._world.users.account("xts", str(body["user"])).user
        return snapshot(self._xts.desk.place_from_terminal(client, body))

    @property
    def _xts(self) -> XtsFront:
        front = self._world.controls["xts"]
        if not isinstance(front, XtsFront):
            raise TypeError("no XTS host on this world")
        return front

    # --- orders and ledger -------------------------------------------------------------------------------

    def orders(self, body: Body) -> Any:
        """List orders as they are, of one broker and user if given."""
        found = self._world.exchange.orders(broker=body.get("broker"), user=body.get("user"))
        return [snapshot(each) for each in found]

    def history(self, body: Body) -> Any:
        """Show every step and trade of an order, named broker:order_id."""
        uid = str(body["uid"])
        return {
            "history": [snapshot(each) for each in self._world.exchange.history(uid)],
            "trades": [_trade(each) for each in self._world.exchange.trades_of(uid)],
        }

    def truths(self, body: Body) -> Any:
        """List truths numbered above `after`, at most 10,000; ask again with the last number for more."""
        found = self._world.ledger.truths(after=int(body.get("after", 0)), **_named(body, _TRUTH_FILTERS))
        return [_truth(each) for each, _ in zip(found, range(_PAGE), strict=False)]

    def messages(self, body: Body) -> Any:
        """List messages numbered above `after`, at most 10,000."""
        found = self._world.ledger.messages(after=int(body.get("after", 0)), **_named(body, _MESSAGE_FILTERS))
        return [_message(each) for each, _ in zip(found, range(_PAGE), strict=False)]

    # --- market ------------------------------------------------------------------------------------------

    def market(self, _: Body) -> Any:
        """Show every contract's prices."""
        exchange = self._world.exchange
        return {each.key: asdict(exchange.quote(each.key)) for each in exchange.instruments}

    def set_price(self, body: Body) -> Any:
        """Move a contract's price: key, price, hold (default true: it stays)."""
        key = str(body["key"])
        self._world.exchange.set_price(key, Decimal(str(body["price"])), hold=bool(body.get("hold", True)))
        return asdict(self._world.exchange.quote(key))

    def fill(self, body: Body) -> Any:
        """Fill some of an order now: uid, quantity, price (optional), times (optional): so many fills, each told."""
        price = Decimal(str(body["price"])) if body.get("price") is not None else None
        times = int(body.get("times", 1))
        if not 1 <= times <= MOST_FILLS:
            raise ValueError(f"times must be from 1 to {MOST_FILLS}")
        fills = [
            self._world.exchange.fill(str(body["uid"]), int(body["quantity"]), price) for _ in range(times)
        ]
        return snapshot(fills[-1])

    def cancel(self, body: Body) -> Any:
        """Cancel an order unasked, as the exchange does for self trades: uid."""
        return snapshot(self._world.exchange.cancel_by_exchange(str(body["uid"])))

    def freeze(self, body: Body) -> Any:
        """Hold orders in the named stages (of one user, if given): stages, user."""
        stages = [Stage(each) for each in body["stages"]]
        self._world.exchange.freeze(stages, user=str(body.get("user", "")))
        return {"stages": stages}

    # --- faults, sockets, tokens -------------------------------------------------------------------------

    def faults(self, _: Body) -> Any:
        """List the switches that are on."""
        return [_fault(fault, struck) for fault, struck in self._world.faults.listing()]

    def add_fault(self, body: Body) -> Any:
        """Switch a fault on: the fields of `Fault`."""
        return _fault(self._world.faults.add(**body), 0)

    def remove_fault(self, body: Body) -> Any:
        """Switch a fault off."""
        return {"removed": self._world.faults.remove(int(body["id"]))}

    async def add_proxy(self, body: Body) -> Any:
        """Lay a line on which everything can go wrong: target `kite`, `xts` or 127.0.0.1:port, name (optional)."""
        proxy = await self._proxies.add(str(body["target"]), str(body.get("name", "")))
        return proxy.described()

    async def remove_proxy(self, body: Body) -> Any:
        """Cut a line."""
        return {"removed": await self._proxies.remove(str(body["name"]))}

    def sockets(self, _: Body) -> Any:
        """List the sockets of both brokers."""
        return {name: controls.sockets() for name, controls in self._world.controls.items()}

    async def disconnect(self, body: Body) -> Any:
        """Cut sockets: broker, user ("" for all), mode abort or close."""
        controls = self._world.controls[str(body["broker"])]
        abort = str(body.get("mode", "abort")) == "abort"
        return {"cut": await controls.disconnect(str(body.get("user", "")), abort=abort)}

    def kill_tokens(self, body: Body) -> Any:
        """Let tokens die as at the day's end: broker, user ("" for all)."""
        controls = self._world.controls[str(body["broker"])]
        return {"killed": controls.kill_tokens(str(body.get("user", "")))}


_TRUTH_FILTERS: Final = ("broker", "user", "order_id")
_MESSAGE_FILTERS: Final = (*_TRUTH_FILTERS, "channel", "fate")
_MISTAKES: Final = (
    KeyError,
    TypeError,
    ValueError,
    InvalidOperation,
    UnknownOrderError,
    UnknownUserError,
    KiteError,
    XtsError,
)


def build_app(world: World, kite: Kite, proxies: Proxies) -> web.Application:
    """Build the control application."""
    app = web.Application(client_max_size=1 << 24, middlewares=[_no_browsers])
    for method, path, handler in Control(world, kite, proxies).table():
        app.router.add_route(method, path, _handler(world, handler))
    return app


@web.middleware
async def _no_browsers(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Refuse what a web page sends, so that no page open in the user's browser can steer the market."""
    if "Origin" in request.headers:
        return web.json_response({"status": "error", "message": "not for browsers"}, status=403)
    return await handler(request)


def _handler(world: World, handle: Callable[[Body], Any]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        world.sync()
        try:
            found = handle(await _body(request))
            if isinstance(found, Awaitable):
                found = await found
        except _MISTAKES as error:
            message = f"{type(error).__name__}: {error}"
            return web.json_response({"status": "error", "message": message}, status=400)
        return web.json_response({"status": "ok", "data": found}, dumps=_dumps)

    return answer


async def _body(request: web.Request) -> Body:
    body: Any = await request.json() if request.can_read_body else {}
    if not isinstance(body, dict):
        raise TypeError("the body must be an object")
    return {**dict(request.query), **body, **request.match_info}


def _dumps(value: Any) -> str:
    return json.dumps(value, default=str)


def _same_kind(value: Any, present: Any) -> bool:
    if isinstance(present, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, type(present))


def _app_fields(body: Body) -> dict[str, Any]:
    found = {name.name: body[name.name] for name in fields(KiteApp) if name.name in body}
    if "plan" in found:
        found["plan"] = Plan(found["plan"])
    if "allowed_ips" in found:
        found["allowed_ips"] = tuple(found["allowed_ips"])
    return found


def _named(body: Body, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: body[name] for name in names if name in body}


def snapshot(order: OrderSnapshot) -> dict[str, Any]:
    """Write an order as the control API shows it, the same for both brokers. Prices are decimal strings."""
    request, terms = order.request, order.terms
    return {
        "uid": order.uid,
        "broker": order.broker,
        "order_id": order.order_id,
        "user": order.user,
        "app": request.app,
        "instrument": order.instrument.key,
        "side": order.side,
        "product": request.product,
        "variety": request.variety,
        "tag": request.tag,
        "parent_id": request.parent_id,
        "number": order.number,
        "stage": order.stage,
        "cause": order.cause,
        "live": order.live,
        "type": terms.type,
        "validity": terms.validity,
        "quantity": terms.quantity,
        "price": str(terms.price),
        "trigger_price": str(terms.trigger_price),
        "filled": order.filled,
        "average": str(order.average),
        "exchange_order_id": order.exchange_order_id,
        "reason": order.reason.text if order.reason else "",
        "received_at": order.received_at.isoformat(),
        "updated_at": order.updated_at.isoformat(),
    }


def _trade(trade: Trade) -> dict[str, Any]:
    return {
        "trade_id": trade.trade_id,
        "uid": trade.uid,
        "instrument": trade.order.instrument.key,
        "quantity": trade.quantity,
        "price": str(trade.price),
        "at": trade.at.isoformat(),
    }


def _truth(truth: Truth) -> dict[str, Any]:
    trade = _trade(truth.trade) if truth.trade else None
    return {"number": truth.number, "at": truth.at, "order": snapshot(truth.order), "trade": trade}


def _message(message: Message) -> dict[str, Any]:
    return asdict(message)


def _fault(fault: Fault, struck: int) -> dict[str, Any]:
    return {
        **{field.name: getattr(fault, field.name) for field in fields(Fault)},
        "params": dict(fault.params),
        "struck": struck,
    }
