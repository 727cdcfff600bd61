"""The simulated Kite Connect host: routes, authentication, limits, faults, and the pushes that follow orders."""

import asyncio
import json
import random
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from aiohttp import web

from brokersim.deliveries import PUSH_FAULTS, Delivery, deliveries
from brokersim.faults import Fault, FaultKind, Situation
from brokersim.instruments import INSTRUMENTS, kite_csv, second_day
from brokersim.kite import accounts, login, rows, stories
from brokersim.kite.desk import BROKER, Desk, own_order
from brokersim.kite.errors import KiteError, bad_input, bad_token, no_permission, too_many, wrong_address
from brokersim.kite.gtt import Triggers
from brokersim.kite.postbacks import Postman
from brokersim.kite.sessions import Session, Sessions
from brokersim.kite.sockets import Hub, order_frame
from brokersim.kite.stories import Push
from brokersim.ledger import Fate
from brokersim.limits import Limit, Windows
from brokersim.orders import ExchangeEvent, OrderSnapshot, Trade
from brokersim.portfolio import positions
from brokersim.users import KiteApp, Plan
from brokersim.world import World
from brokersim.written import Row, Written

# Orders are counted per account, everything else per session (a switch makes it per api_key).
_LIMITS: Final = {
    "order": {"second": Limit(calls=10, seconds=1), "minute": Limit(calls=400, seconds=60)},
    "quote": {"second": Limit(calls=1, seconds=1)},
    "other": {"second": Limit(calls=10, seconds=1)},
}
_PLACED_A_DAY: Final = {"day": Limit(calls=5_000, seconds=86_400)}
_ANSWER_FAULTS: Final = (FaultKind.SERVER_ERROR, FaultKind.TIMEOUT, FaultKind.HTML_ERROR)
_HTML: Final = "<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"


@dataclass(frozen=True, slots=True)
class Call:
    """One authenticated call: who asks, in which situation, with which form."""

    session: Session
    situation: Situation
    request: web.Request
    form: dict[str, str]

    def path(self, name: str) -> str:
        """Give a part of the path."""
        return self.request.match_info[name]


Answer = Callable[[Call], Any]


@dataclass(frozen=True, slots=True)
class Route:
    """One REST call of an authenticated user: its operation (for faults and ledger) and its rate limit."""

    method: str
    path: str
    operation: str
    limit: str
    answer: Answer


class Kite:
    """One simulated Kite host. Everything happens on the loop that serves `build_app`."""

    def __init__(self, world: World) -> None:
        """Set up on a world; it begins to follow the exchange at once."""
        self.world = world
        self.sessions = Sessions(world.users)
        self.desk = Desk(world)
        self.hub = Hub(world)
        self.postman = Postman(world)
        self.triggers = Triggers(world, self.desk)
        self._windows = Windows()
        self._written = Written()
        self._shuffle = random.Random(0)  # noqa: S311 - order of rows, not a secret
        world.exchange.subscribe(self._follow)
        world.controls[BROKER] = self

    def routes(self) -> list[Route]:
        """List every REST call of a logged-in user."""
        book, desk = self._book, self.desk
        return [
            Route("GET", "/user/profile", "user.profile", "other", self._profile),
            Route("GET", "/user/margins", "user.margins", "other", self._margins),
            Route("GET", "/user/margins/{segment}", "user.margins", "other", self._margins),
            Route("GET", "/orders", "orders.book", "other", book),
            Route("GET", "/orders/{order_id}", "orders.history", "other", self._history),
            Route("GET", "/orders/{order_id}/trades", "orders.trades", "other", self._order_trades),
            Route(
                "POST",
                "/orders/{variety}",
                "orders.place",
                "order",
                lambda call: desk.place(call.session, call.path("variety"), call.form),
            ),
            Route(
                "PUT",
                "/orders/{variety}/{order_id}",
                "orders.modify",
                "order",
                lambda call: desk.modify(
                    call.session, call.path("variety"), call.path("order_id"), call.form
                ),
            ),
            Route(
                "DELETE",
                "/orders/{variety}/{order_id}",
                "orders.cancel",
                "order",
                lambda call: desk.cancel(call.session, call.path("variety"), call.path("order_id")),
            ),
            Route("GET", "/trades", "trades", "other", self._trades),
            Route("GET", "/portfolio/positions", "positions", "other", self._positions),
            Route("GET", "/portfolio/holdings", "holdings", "other", self._holdings),
            Route("GET", "/quote", "quote", "quote", partial(self._quote, full=True)),
            Route("GET", "/quote/ohlc", "quote", "quote", partial(self._quote, full=True)),
            Route("GET", "/quote/ltp", "quote", "quote", partial(self._quote, full=False)),
            *self._gtt_routes(),
        ]

    def _gtt_routes(self) -> list[Route]:
        triggers, path = self.triggers, "/gtt/triggers/{trigger_id}"
        return [
            Route("GET", "/gtt/triggers", "gtt.list", "other", lambda call: triggers.listing(call.session)),
            Route("POST", "/gtt/triggers", "gtt.place", "other", lambda c: triggers.place(c.session, c.form)),
            Route("GET", path, "gtt.read", "other", lambda c: triggers.read(c.session, c.path("trigger_id"))),
            Route(
                "PUT",
                path,
                "gtt.modify",
                "other",
                lambda c: triggers.modify(c.session, c.path("trigger_id"), c.form),
            ),
            Route(
                "DELETE",
                path,
                "gtt.delete",
                "other",
                lambda c: triggers.delete(c.session, c.path("trigger_id")),
            ),
        ]

    # --- what the control API asks -----------------------------------------------------------------------

    async def disconnect(self, user: str, *, abort: bool) -> int:
        """Cut sockets; see `BrokerControls`."""
        return await self.hub.disconnect(user, abort=abort)

    def kill_tokens(self, user: str) -> int:
        """End sessions; open sockets live on, as the real ones do; see `BrokerControls`."""
        return self.sessions.kill(user)

    def sockets(self) -> list[dict[str, Any]]:
        """Describe the sockets; see `BrokerControls`."""
        return self.hub.listing()

    async def close(self, _app: web.Application) -> None:
        """Close sockets and the postback client, at the program's end."""
        await self.hub.close_all()
        await self.postman.close()

    # --- from order to push ------------------------------------------------------------------------------

    def _follow(self, event: ExchangeEvent) -> None:
        if event.order.broker != BROKER:
            return
        history = self.world.exchange.history(event.order.uid)[: event.order.number + 1]
        for channel in ("ws", "postback"):
            self._push(channel, history)

    def _push(self, channel: str, history: Sequence[OrderSnapshot]) -> None:
        order = history[-1]
        push = stories.first_push(history, self.world.settings, channel)
        url = self._postback_url(order)
        if push is None or (channel == "postback" and not url):
            return
        struck = self.world.faults.strike(_about(channel, push), *stories.STORY_FAULTS)
        for each in stories.told(push, history, struck):
            self._deliver(channel, each)

    def _deliver(self, channel: str, push: Push) -> None:
        situation = _about(channel, push)
        payload = self._payload(channel, push)
        struck = self.world.faults.strike(situation, *PUSH_FAULTS)
        planned = deliveries(payload, struck, self._shuffle)
        if not planned:
            names = tuple(fault.kind.value for fault in struck)
            self._note_dropped(channel, push, payload, names)
        for each in planned:
            delay = self.world.settings.push_delay + push.delay + each.delay
            self.world.timeline.after(delay, partial(self._send, channel, push, each))

    def _payload(self, channel: str, push: Push) -> str:
        if channel == "ws":
            data = rows.socket_data(push.order, push.status)
        else:
            data = rows.postback_body(push.order, push.status, self._app_of(push.order))
            data |= self._alterations(push)
        data = stories.with_variants(data) if push.variants else data
        return order_frame(data) if channel == "ws" else json.dumps(data)

    def _alterations(self, push: Push) -> dict[str, Any]:
        fault = self.world.faults.first(_about("postback", push), FaultKind.POSTBACK_ALTERED)
        if fault is None:
            return {}
        return dict(fault.params.get("fields") or {"status": "COMPLETE", "filled_quantity": 1})

    def _send(self, channel: str, push: Push, delivery: Delivery) -> None:
        if channel == "postback":
            self._post(push, delivery)
            return
        order = push.order
        if self.world.faults.first(_about("ws", push), FaultKind.UNKNOWN_FRAME):
            self.hub.send_raw(order.user, json.dumps({"type": "weather", "data": {"sky": "clear"}}))
            self.hub.send_raw(order.user, "this is not JSON")
        self.hub.push(
            order.user, delivery.payload, order_id=order.order_id, what=push.status, faults=delivery.faults
        )

    def _post(self, push: Push, delivery: Delivery) -> None:
        url = self._postback_url(push.order)
        body = delivery.payload.encode()
        send = partial(
            self.postman.send, url, body, order=push.order, what=push.status, faults=delivery.faults
        )
        self.world.spawn(_done(send()))
        if fault := self.world.faults.first(_about("postback", push), FaultKind.POSTBACK_REPLAYED):
            self.world.later(fault.seconds(1.0), _done(send()))

    def _note_dropped(self, channel: str, push: Push, payload: str, faults: tuple[str, ...]) -> None:
        self.world.ledger.message(
            payload,
            at=self.world.timeline.now,
            broker=BROKER,
            channel=channel,
            user=push.order.user,
            what=push.status,
            fate=Fate.DROPPED,
            order_id=push.order.order_id,
            faults=faults,
        )

    def _postback_url(self, order: OrderSnapshot) -> str:
        app = self.world.users.kite_apps.get(order.request.app)
        return app.postback_url if app else ""

    def _app_of(self, order: OrderSnapshot) -> KiteApp:
        return self.world.users.kite_apps[order.request.app]

    # --- reading -----------------------------------------------------------------------------------------

    def _profile(self, call: Call) -> Any:
        return accounts.profile(self.world.users.kite_users[call.session.user])

    def _margins(self, call: Call) -> Any:
        found = accounts.margins(self.world, call.session.user)
        segment = call.request.match_info.get("segment")
        if segment is None:
            return found
        if segment not in found:
            raise bad_input("Invalid `segment`.")
        return found[segment]

    def _book(self, call: Call) -> Any:
        orders = self.world.exchange.orders(broker=BROKER, user=call.session.user)
        book = [rows.order_row(each) for each in self._as_of(orders, call)]
        if self.world.faults.first(call.situation, FaultKind.SHUFFLED_BOOK):
            self._shuffle.shuffle(book)
        return book

    def _history(self, call: Call) -> Any:
        order = own_order(self.world, call.session, call.path("order_id"))
        history = rows.visible(self.world.exchange.history(order.uid), self._until(call))
        return rows.history_rows(history)

    def _order_trades(self, call: Call) -> Any:
        order = own_order(self.world, call.session, call.path("order_id"))
        until = self._until(call)
        return [self._trade(each) for each in self.world.exchange.trades_of(order.uid) if each.at <= until]

    def _trades(self, call: Call) -> Any:
        until = self._until(call)
        trades = self.world.exchange.trades_by(broker=BROKER, user=call.session.user)
        return [self._trade(each) for each in trades if each.at <= until]

    def _trade(self, trade: Trade) -> Row:
        return self._written.row(trade, lambda: rows.trade_row(trade))

    def _positions(self, call: Call) -> Any:
        until = self._until(call)
        trades = self.world.exchange.trades_by(broker=BROKER, user=call.session.user)
        found = positions((each for each in trades if each.at <= until), self.world.last_price)
        day = [rows.position_row(each) for each in found]
        return {"net": day, "day": day}

    def _holdings(self, call: Call) -> Any:
        return accounts.holdings(self.world, call.session.user)

    def _quote(self, call: Call, *, full: bool) -> Any:
        if self.world.users.kite_apps[call.session.api_key].plan is Plan.PERSONAL:
            raise no_permission()
        return accounts.quotes(self.world, call.request.query.getall("i", []), full=full)

    def _as_of(self, orders: Sequence[OrderSnapshot], call: Call) -> Sequence[OrderSnapshot]:
        until = self._until(call)
        if until == self.world.timeline.date:
            return orders
        histories = (self.world.exchange.history(each.uid) for each in orders)
        return [seen[-1] for each in histories if (seen := rows.visible(each, until))]

    def _until(self, call: Call) -> datetime:
        fault = self.world.faults.first(call.situation, FaultKind.REST_LAG)
        return self.world.timeline.date - timedelta(seconds=fault.seconds(1.0) if fault else 0)

    # --- calls -------------------------------------------------------------------------------------------

    def handler(self, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """Make aiohttp's handler of a route."""

        async def handle(request: web.Request) -> web.StreamResponse:
            return await self._handle(route, request)

        return handle

    async def _handle(self, route: Route, request: web.Request) -> web.StreamResponse:
        self.world.sync()
        situation = Situation(
            broker=BROKER,
            channel="rest",
            operation=route.operation,
            order_id=request.match_info.get("order_id", ""),
        )
        try:
            session = self._authenticate(request)
            situation = replace(situation, user=session.user)
            response = await self._perform(route, session, situation, request)
        except KiteError as error:
            response = _refused(error)
        await self.world.reply_delay()
        self._note_reply(situation, response)
        return response

    async def _perform(
        self, route: Route, session: Session, situation: Situation, request: web.Request
    ) -> web.Response:
        form = {key: str(value) for key, value in (await request.post()).items()}
        self.world.sync()
        if refusal := self._refusal(route, session, situation, request):
            return refusal
        if fault := self.world.faults.first(situation, FaultKind.SLOW):
            await asyncio.sleep(fault.seconds(2.0))
            self.world.sync()
        broken = self.world.faults.first(situation, *_ANSWER_FAULTS)
        if broken is not None and not broken.params.get("done", False):
            return await _broken(broken, request)
        data = route.answer(Call(session, situation, request, form))
        if broken is not None:
            return await _broken(broken, request)
        if fault := self.world.faults.first(situation, FaultKind.PUSH_BEFORE_RESPONSE):
            await asyncio.sleep(fault.seconds(0.3))
        return _success(data)

    def _authenticate(self, request: web.Request) -> Session:
        scheme, _, pair = request.headers.get("Authorization", "").partition(" ")
        api_key, _, token = pair.partition(":")
        if scheme != "token":
            raise bad_token()
        return self.sessions.check(api_key, token, self.world.timeline.date)

    def _refusal(
        self, route: Route, session: Session, situation: Situation, request: web.Request
    ) -> web.Response | None:
        """Find the reason to refuse a call before it is looked at: a switch, a limit, a wrong address."""
        if self.world.faults.first(situation, FaultKind.TOKEN_DEATH):
            self.sessions.close(session.access_token)
            raise bad_token()
        if fault := self.world.faults.first(situation, FaultKind.UNAUTHORIZED):
            return _refused(bad_token(), status=int(fault.params.get("status", 403)))
        if fault := self.world.faults.first(situation, FaultKind.RATE_LIMIT):
            return _refused(too_many(), retry_after=fault.params.get("retry_after"))
        self._check_limits(route, session)
        if route.limit == "order":
            self._check_address(session, request.remote or "")
        return None

    def _check_limits(self, route: Route, session: Session) -> None:
        if not self.world.settings.rate_limits:
            return
        now = self.world.timeline.now
        whole_key = self.world.settings.kite_limits_per_key
        key = session.api_key if whole_key else session.access_token
        owner = session.user if route.limit == "order" else key
        if not self._windows.allows(f"{route.limit}:{owner}", _LIMITS[route.limit], now):
            raise too_many()
        if route.operation == "orders.place" and not self._windows.allows(session.user, _PLACED_A_DAY, now):
            raise bad_input("Maximum allowed order requests exceeded.")

    def _check_address(self, session: Session, address: str) -> None:
        allowed = self.world.users.kite_apps[session.api_key].allowed_ips
        if self.world.settings.kite_static_ip and address not in allowed:
            raise wrong_address(address, configured=bool(allowed))

    def _note_reply(self, situation: Situation, response: web.Response) -> None:
        self.world.ledger.message(
            response.text or "",
            at=self.world.timeline.now,
            broker=BROKER,
            channel="rest",
            user=situation.user,
            what=situation.operation,
            order_id=situation.order_id,
            detail=f"HTTP {response.status}",
        )

    # --- calls without a session -------------------------------------------------------------------------

    async def root(self, request: web.Request) -> web.StreamResponse:
        """Answer the host's root: the WebSocket handshake, or a word for people."""
        self.world.sync()
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return _success({"service": "brokersim, a simulated Kite Connect v3"})
        query = request.query
        try:
            session = self.sessions.check(
                query.get("api_key", ""), query.get("access_token", ""), self.world.timeline.date
            )
        except KiteError as error:
            return _refused(error)
        if status := self.hub.refusal(session):
            return _refused(too_many() if status == 429 else bad_token(), status=status)
        return await self.hub.serve(request, session)

    async def login_page(self, request: web.Request) -> web.StreamResponse:
        """Show the login form."""
        api_key = request.query.get("api_key", "")
        known = api_key in self.world.users.kite_apps
        text = login.page(
            api_key, request.query.get("redirect_params", ""), "" if known else "Unknown api_key."
        )
        return web.Response(text=text, content_type="text/html", status=200 if known else 400)

    async def log_in(self, request: web.Request) -> web.StreamResponse:
        """Take the login form; send the browser back to the app with a request token."""
        self.world.sync()
        form = {key: str(value) for key, value in (await request.post()).items()}
        api_key, params = form.get("api_key", ""), form.get("redirect_params", "")
        now = self.world.timeline.date
        token = self.sessions.log_in(api_key, form.get("user_id", ""), form.get("password", ""), now)
        if token is None:
            text = login.page(api_key, params, "Invalid user id or password.")
            return web.Response(text=text, content_type="text/html", status=403)
        url = self.world.users.kite_apps[api_key].redirect_url
        return web.Response(status=302, headers={"Location": login.redirect(url, token, params)})

    async def open_session(self, request: web.Request) -> web.StreamResponse:
        """Exchange a request token for a session."""
        self.world.sync()
        form = {key: str(value) for key, value in (await request.post()).items()}
        situation = Situation(broker=BROKER, channel="rest", operation="session.open")
        if fault := self.world.faults.first(situation, *_ANSWER_FAULTS):
            return await _broken(fault, request)
        try:
            session = self.sessions.exchange(
                form.get("api_key", ""),
                form.get("request_token", ""),
                form.get("checksum", ""),
                self.world.timeline.date,
            )
            response = _success(accounts.session(self.world.users.kite_users[session.user], session))
        except KiteError as error:
            response = _refused(error)
        await self.world.reply_delay()
        return response

    async def close_session(self, request: web.Request) -> web.StreamResponse:
        """Log out; the parameters are in the query."""
        self.world.sync()
        query = request.query
        try:
            token = query.get("access_token", "")
            self.sessions.check(query.get("api_key", ""), token, self.world.timeline.date)
            self.sessions.close(token)
            response = _success(data=True)
        except KiteError as error:
            response = _refused(error)
        await self.world.reply_delay()
        return response

    async def instruments(self, request: web.Request) -> web.StreamResponse:
        """Serve the instrument list, gzipped if the client takes it; credentials are not looked at."""
        self.world.sync()
        situation = Situation(broker=BROKER, channel="rest", operation="instruments")
        if fault := self.world.faults.first(situation, *_ANSWER_FAULTS):
            return await _broken(fault, request)
        listed = second_day() if self.world.settings.second_day else INSTRUMENTS
        text = kite_csv(listed, exchange=request.match_info.get("exchange"))
        if fault := self.world.faults.first(situation, FaultKind.TRUNCATE):
            text = text[: int(len(text) * float(fault.params.get("keep", 0.5)))]
        response = web.Response(text=text, content_type="text/csv")
        response.enable_compression()
        return response


def build_app(world: World) -> web.Application:
    """Build the host: REST and WebSocket on one root, as the official clients expect with `root=`."""
    kite = Kite(world)
    app = web.Application(middlewares=[_envelope], client_max_size=1 << 20)
    app.router.add_get("/", kite.root)
    app.router.add_get("/connect/login", kite.login_page)
    app.router.add_post("/connect/login", kite.log_in)
    app.router.add_post("/session/token", kite.open_session)
    app.router.add_delete("/session/token", kite.close_session)
    app.router.add_get("/instruments", kite.instruments)
    app.router.add_get("/instruments/{exchange}", kite.instruments)
    for route in kite.routes():
        app.router.add_route(route.method, route.path, kite.handler(route))
    app.on_shutdown.append(kite.close)
    app[KITE] = kite
    return app


KITE: Final = web.AppKey("kite", Kite)


@web.middleware
async def _envelope(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Give aiohttp's own refusals (unknown path, wrong method, body too large) Kite's envelope."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        kind = {404: "Route not found", 405: "Method not allowed"}.get(error.status, error.reason)
        return _refused(KiteError(error.status, "GeneralException", str(kind)))
    except ConnectionResetError:  # the client went before its answer, which nobody reads
        return web.Response()


def _success(data: Any) -> web.Response:
    return web.json_response({"status": "success", "data": data})


def _refused(error: KiteError, *, status: int | None = None, retry_after: Any = None) -> web.Response:
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return web.json_response(error.body(), status=status or error.status, headers=headers)


async def _broken(fault: Fault, request: web.Request) -> web.Response:
    """Answer as a broken server does."""
    if fault.kind is FaultKind.TIMEOUT:
        await asyncio.sleep(fault.seconds(30.0))
        if fault.params.get("cut", True) and request.transport is not None:
            request.transport.close()
        text = f"request {secrets.token_urlsafe(24)} timed out"
        return _refused(KiteError(504, "NetworkException", text))
    status = int(fault.params.get("status", 502 if fault.kind is FaultKind.HTML_ERROR else 503))
    if fault.kind is FaultKind.HTML_ERROR or fault.params.get("html", False):
        return web.Response(text=_HTML, content_type="text/html", status=status)
    return _refused(KiteError(status, "NetworkException", "Request failed (kitetrade-oms)"))


def _about(channel: str, push: Push) -> Situation:
    return Situation(
        broker=BROKER,
        channel=channel,
        user=push.order.user,
        order_id=push.order.order_id,
        operation=push.status,
    )


async def _done(work: Awaitable[Any]) -> None:
    await work
