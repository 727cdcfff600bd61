"""Any broker on Symphony's XTS Interactive API: REST, and the Socket.IO stream through our own codec (xts.md)."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, ClassVar, NoReturn, TypeVar
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from orderwire.brokers.adapter import (
    SESSION_FIELD,
    AccountProfile,
    AdapterTools,
    BrokerAdapter,
    BrokerSession,
    Field,
    plaintext_refusal,
)
from orderwire.brokers.checklist import Question, twin
from orderwire.brokers.http import Bucket, Budget, retry_after_seconds
from orderwire.brokers.parsing import parsed
from orderwire.brokers.xts import answers, checklist, master, messages, socketio
from orderwire.brokers.xts.answers import Answer, Clients
from orderwire.brokers.xts.messages import Reading
from orderwire.brokers.xts.socketio import (
    Connection,
    Ended,
    Ending,
    Ignored,
    Joined,
    Opened,
    Received,
    Signal,
    TransportPing,
    Unreadable,
)
from orderwire.core.books import BookRows, TradeRows, read_rows
from orderwire.core.instruments import Instrument
from orderwire.core.orders import (
    Channel,
    Funds,
    Holding,
    ModifyRequest,
    OrderId,
    OrderRequest,
    OrderUpdate,
    Position,
    Trade,
    session_date,
)
from orderwire.errors import (
    BrokerError,
    BrokerUnreachableError,
    ConfigurationError,
    InvalidRequestError,
    PermissionRefusedError,
    ProtocolViolationError,
    SessionExpiredError,
)

_MASTER_BYTES = 64 * 2**20
_FRAME_BYTES = 4 * 2**20
_LARGEST_UNREADABLE_RUN = 10
_OUR_PROTOCOL_CLOSES = frozenset({1002, 1007, 1009})
"""Codes with which our side ends a connection whose bytes are not WebSocket."""

_SILENT = logging.Logger("xts stream", level=logging.CRITICAL + 1)  # noqa: LOG001 - of no tree, so no handler
"""The library would log the address it dials, and the token is part of that."""

_T = TypeVar("_T")

_BOOKS: Mapping[str, Mapping[str, str]] = {
    "plain": {"orders": "/orders", "trades": "/orders/trades", "positions": "/portfolio/positions"},
    "dealer": {
        "orders": "/orders/dealerorderbook",
        "trades": "/orders/dealertradebook",
        "positions": "/portfolio/dealerpositions",
    },
}

ORDER_CALLS = frozenset({"place", "modify", "cancel"})

GENERIC_LIMITS: Mapping[str, tuple[int, float]] = {
    "place": (10, 1.0),
    "modify": (10, 1.0),
    "cancel": (10, 1.0),
    "books": (1, 1.0),
    "trades": (1, 1.0),
    "positions": (1, 1.0),
    "holdings": (1, 1.0),
    "balance": (1, 1.0),
    "session": (1, 1.0),
    "market": (1, 1.0),
}
"""Calls per so many seconds that XTS's documentation allows (xts.md §7, M); a broker's own notice replaces them."""


def budgets_of(broker: str, limits: Mapping[str, tuple[int, float]]) -> dict[str, Bucket]:
    """Return the buckets of a table of limits; order calls are not made to wait, reads are."""
    return {
        f"{broker}.{call}": Bucket(
            budgets=(Budget(rate=rate, per_seconds=seconds, scope="api_key", name=f"{broker} {call}"),),
            patience=1.0 if call in ORDER_CALLS else max(5.0, 1.5 * seconds),
            breaks=call not in ORDER_CALLS,
        )
        for call, (rate, seconds) in limits.items()
    }


def address_fields(**defaults: str) -> tuple[Field, ...]:
    """Return every host, port and path of an XTS installation, with a broker's own defaults."""
    fields = (
        ("base", "Interactive host", "", ()),
        ("interactive_path", "Path of the interactive API", "/interactive", ()),
        ("hostlookup", "Hostlookup address (empty: plain login)", "", ()),
        ("hostlookup_version", "Version sent with the hostlookup", "interactive_1.0.1", ()),
        ("hostlookup_word", "Access word of the hostlookup (public)", "2021HostLookUpAccess", ()),
        ("source", "Source sent with the login", "WEBAPI", ()),
        ("login_page", "Path of the broker's own login page", "/interactive/thirdparty", ()),
        ("return_url", "Our address that the login page returns to (empty: the keys alone log in)", "", ()),
        ("socket_path", "Socket.IO path (empty: beside the interactive API)", "", ()),
        ("revision", "Engine.IO revision", "auto", socketio.REVISIONS),
        ("transport", "First transport of the socket", "websocket", ("websocket", "polling")),
        ("books", "Books of a dealer login", "plain", tuple(_BOOKS)),
        ("market_base", "Market-data host (empty: as the interactive host)", "", ()),
        ("market_path", "Path of the market-data API", "/apibinarymarketdata", ()),
        ("segments", "Segments whose instruments are loaded", "NSECM,NSEFO,BSECM,BSEFO", ()),
    )
    return tuple(
        Field(
            name=name,
            label=label,
            default=defaults.get(name, default),
            choices=choices,
            required=name == "base",
        )
        for name, label, default, choices in fields
    )


class XtsAdapter(BrokerAdapter):
    """One account at a broker that runs XTS. A broker of its own is a subclass: its name, addresses and limits."""

    credential_fields = (
        Field(name="app_key", label="App key (interactive)"),
        Field(name="secret_key", label="Secret key (interactive)", secret=True),
        Field(
            name="login_kind", label="Kind of login", default="auto", required=False, choices=answers.KINDS
        ),
        Field(name="client_id", label="Client code (dealers; a pro dealer's is *****)", required=False),
        Field(name="client_alias", label="Client code as the socket spells it", required=False),
        Field(name="market_app_key", label="App key (market data)", required=False),
        Field(name="market_secret_key", label="Secret key (market data)", secret=True, required=False),
        SESSION_FIELD,
    )
    app_fields = ("app_key", "secret_key")
    one_login_per_app = True
    has_stream = True
    api_version = "XTS Interactive 1.0.1"
    timers: ClassVar[socketio.Timers] = socketio.Timers()

    def __init__(self, profile: AccountProfile, tools: AdapterTools) -> None:
        """Raise ConfigurationError when a credential is missing, or an address is not one or not encrypted."""
        super().__init__(profile, tools)
        self._addresses = {
            field.name: (profile.addresses.get(field.name) or field.default).strip()
            for field in self.address_fields
        }
        self._check_profile()
        self.segments = {master.CALENDARS.get(name, name) for name in self._segment_names()}
        self.winner: int | None = None
        """The Engine.IO revision that last joined."""
        self.failures = 0
        """Handshakes that reached the server and failed since."""
        self._trades = TradeRows()
        self.foreign = 0
        """Events of other clients of a dealer's login, left out."""
        self.events: Counter[str] = Counter()
        """Events so far, by name; `other` counts the names that xts.md §6.1 does not list."""
        self.master_count = master.MasterCount()
        """What became of the rows of the latest instrument master that are no instruments."""
        self.opened: Opened | None = None
        """The latest open packet: the server's timers and its own words (xts.md §11, first-day check list)."""

    def _check_profile(self) -> None:
        for field in (*self.credential_fields, *self.address_fields):
            value = self.profile.credentials.get(field.name, "") or self._addresses.get(field.name, "")
            if field.required and not value:
                raise ConfigurationError(f"{self.title} account {self.profile.account} has no {field.name}")
            if field.choices and value and value not in field.choices:
                raise ConfigurationError(f"{field.name} is {' | '.join(field.choices)}, not {value!r}")
        if self._credential("login_kind") == "dealer":
            self._clients_of(investor=False)
        for name in ("base", "market_base", "hostlookup"):
            if self._addresses[name]:
                self._check_address(self._addresses[name])

    def _check_address(self, address: str) -> str:
        if not answers.connection_base(address):
            raise ConfigurationError(f"{self.title}: {address!r} is not an http(s) address")
        refusal = plaintext_refusal(address, allow_plaintext=self.profile.allow_plaintext)
        if refusal:
            raise ConfigurationError(refusal)
        return address

    # --- logging in -----------------------------------------------------------------------------------

    def login_url(self, *, state: str = "") -> str | None:
        """Return the broker's login page where `return_url` is set (Jainam retail, xts.md §1.1), else None."""
        back = self._addresses["return_url"]
        if not back:
            return None
        if state:
            back = f"{back}{'&' if '?' in back else '?'}{urlencode({'state': state})}"
        query = urlencode({"appKey": self._credential("app_key"), "returnURL": back})
        return f"{self._joined_address('base', 'login_page')}?{query}"

    async def login(self, grant: Mapping[str, str]) -> BrokerSession:
        """Log in with the keys, through the hostlookup where there is one; ends this app key's older session.

        `grant` may hold what the login page gave: `accessToken`, or `session`, a JSON text that holds it.
        Raises ConfigurationError for a dealer's login that is not told whose orders to handle.
        """
        keys = {
            "appKey": self._credential("app_key"),
            "secretKey": self._credential("secret_key"),
            "source": self._addresses["source"],
            **answers.access_token(grant),
        }
        base = self._joined_address("base", "interactive_path")
        if self._addresses["hostlookup"]:
            lookup = await self._look_up()
            base = self._check_address(lookup.connection)
            keys["uniqueKey"] = lookup.unique_key
        login = answers.read_login(await self._post(f"{base}/user/session", keys, purpose="login"))
        self._clients_of(investor=login.investor)
        return BrokerSession(
            user_id=login.user_id,
            secrets={"token": login.token},
            expires_at=login.expires_at,
            facts={
                "base": base,
                "investor": "yes" if login.investor else "no",
                "client_codes": ",".join(login.client_codes),
            },
        )

    async def adopt(self, token: str) -> BrokerSession:
        """Use an interactive token that another program of the user obtained; whose it is its own claim says.

        The token does not tell an investor's login from a dealer's: without a client code it is an investor's.
        """
        token = token.strip()
        claims = answers.token_claims(token)
        user_id = str(claims.get("userID") or "")
        if not user_id or claims.get("isInteractive") is False:
            raise SessionExpiredError(
                f"The host's {self.title} token is no interactive login's: it names no user. Log in to the host again."
            )
        base = self._joined_address("base", "interactive_path")
        if self._addresses["hostlookup"]:
            base = self._check_address((await self._look_up()).connection)
        dealer = self._credential("login_kind") in {"dealer", "pro"} or self._credential("client_id")
        session = BrokerSession(
            user_id=user_id,
            secrets={"token": token},
            expires_at=answers.token_expiry(token),
            facts={"base": base, "investor": "no" if dealer else "yes", "client_codes": ""},
        )
        await twin(self, session)._probe_token("it was taken over from the host")  # noqa: SLF001 - one of us
        return session

    @classmethod
    def login_name(cls, user_id: str, credentials: Mapping[str, str]) -> str:
        """Leave out what a token's own claim adds to the login's name: the app key, or INTERACTIVE (xts.md §1.3)."""
        name = user_id.upper()
        for added in (credentials.get("app_key", "").upper(), "INTERACTIVE"):
            if added:
                name = name.removesuffix(f"_{added}")
        return name

    async def _look_up(self) -> answers.Lookup:
        body = {
            "accesspassword": self._addresses["hostlookup_word"],
            "version": self._addresses["hostlookup_version"],
        }
        return answers.read_lookup(
            await self._post(self._addresses["hostlookup"], body, purpose="hostlookup")
        )

    async def logout(self) -> None:
        """End the interactive session; market data goes on."""
        await self._call("DELETE", "/user/session", purpose="logout", bucket="session", query=self._client())

    def broker_now(self) -> datetime | None:
        base = self.session.facts.get("base", "") if self.session is not None else ""
        return self.tools.http.broker_time(base or self._joined_address("base", "interactive_path"))

    def book_share(self) -> float:
        return self.tools.http.share(f"{self.name}.books", keys=self._keys())

    # --- REST -----------------------------------------------------------------------------------------

    async def place_order(self, request: OrderRequest) -> OrderId:
        """Send one order. "Request sent" is all XTS says: acceptance comes by the stream or the book."""
        body = messages.place_body(request, self._tradable(request), client_id=self._clients().client_id)
        return await self._order_call("POST", purpose="place", body=body)

    async def modify_order(self, request: ModifyRequest, *, current: OrderUpdate | None = None) -> OrderId:
        """Ask for new terms; XTS wants them all. The order keeps its number."""
        tag = current.tag if current is not None else ""
        body = messages.modify_body(request, tag=tag, client_id=self._clients().client_id)
        return await self._order_call("PUT", purpose="modify", body=body)

    async def cancel_order(self, order_id: OrderId, *, current: OrderUpdate | None = None) -> OrderId:  # noqa: ARG002 - XTS wants the number alone
        query = messages.cancel_query(order_id, client_id=self._clients().client_id)
        return await self._order_call("DELETE", purpose="cancel", query=query)

    async def order_book(self) -> Sequence[OrderUpdate]:
        reading = self._reading(Channel.REST)
        result = await self._read(self._book("orders"), purpose="order_book", bucket="books")
        return await self._rows(result, messages.order_update, reading)

    async def order_history(self, order_id: OrderId) -> Sequence[OrderUpdate]:
        """Read one order's states. Raises BrokerUnreachableError while XTS does not have them yet (xts.md §1.6)."""
        reading = self._reading(Channel.HISTORY)
        result = await self._read(
            "/orders",
            purpose="order_history",
            bucket="books",
            query={"appOrderID": str(messages.app_order_id(order_id))},
        )
        index = itertools.count()

        def parse(row: messages.Row, read: Reading, *, raw: bytes) -> OrderUpdate:
            return messages.order_update(row, read, raw=raw, history_index=next(index))

        return await self._rows(result, parse, reading)

    async def trade_book(self) -> Sequence[Trade]:
        reading = self._reading(Channel.REST)
        result = await self._read(self._book("trades"), purpose="trade_book", bucket="trades")
        return await self._rows(
            result, messages.trade, reading, read=partial(self._trades.read, day=reading.trading_date)
        )

    async def positions(self) -> Sequence[Position]:
        reading, query = self._reading(Channel.REST), {"dayOrNet": "NetWise"}
        result = await self._read(
            self._book("positions"), purpose="positions", bucket="positions", query=query
        )
        return await self._rows(result, messages.position, reading, split=messages.position_rows)

    async def holdings(self) -> Sequence[Holding]:
        result = await self._read("/portfolio/holdings", purpose="holdings", bucket="holdings")
        return messages.holdings(result, self._reading(Channel.REST))

    async def funds(self) -> Funds:
        result = await self._read("/user/balance", purpose="funds", bucket="balance")
        return messages.funds(result, account=self.profile.account)

    async def instruments_of_the_day(self) -> Sequence[Instrument]:
        """Download the master of the configured segments and the index lists; unreadable rows are left out.

        Asks without a token first and then with market-data keys, if there are any (instruments.md §2.1).
        """
        names = self._segment_names()
        body = {"exchangeSegmentList": names}
        result = await self._market("POST", "/instruments/master", body=body)
        self.master_count = count = master.MasterCount()
        found = await asyncio.to_thread(
            lambda: list(master.read_master(master.master_rows(result), broker=self.name, count=count))
        )
        for segment in sorted({"NSECM", "BSECM"} & set(names)):
            query = {"exchangeSegment": str(master.SEGMENT_NUMBERS[segment])}
            listed = await self._market("GET", "/instruments/indexlist", query=query)
            found += master.read_index_list(listed, broker=self.name, segment=segment)
        return found

    def _segment_names(self) -> list[str]:
        return [name.strip() for name in self._addresses["segments"].split(",") if name.strip()]

    # --- events ---------------------------------------------------------------------------------------

    async def listen(self) -> None:
        """Follow the account's orders, trades and positions. Nothing is subscribed: joining is enough.

        Pings of our own notice a half-open connection within `timers`; a `logout` event, after which the socket
        stays open and dead, is told apart from a login that only another holder of this token renewed.
        """
        link = _Link(
            session=self._session(),
            clients=self._clients(),
            revision=socketio.revision_to_try(
                self._addresses["revision"], winner=self.winner, failures=self.failures
            ),
        )
        try:
            end = await self._stream(link)
        finally:
            self.listening = False
        if link.reached and not link.joined:
            self.failures += 1
        await self._explain(end, link)

    async def _stream(self, link: _Link) -> _End:
        """Run one connection and return why it ended; no exception of the library, which knows the address, leaves."""
        now = self.tools.clock.monotonic()
        polling = self._addresses["transport"] == "polling"
        connection = Connection(revision=link.revision, now=now, timers=self.timers, polling=polling)
        sid = ""
        if polling:
            sid, end = await self._poll_handshake(connection, link)
            if end is not None:
                return end
        try:
            async with self._dial(connection, link, sid=sid) as socket:
                link.reached = True
                if polling:
                    await socket.send(connection.upgrade())
                return await self._converse(socket, connection, link)
        except (ConnectionClosed, InvalidHandshake, OSError, EOFError) as error:
            link.reached = link.reached or isinstance(error, InvalidHandshake)
            return _lost(error, now=self.tools.clock.now())

    async def _poll_handshake(self, connection: Connection, link: _Link) -> tuple[str, _End | None]:
        reply = await self.tools.http.request(
            "GET",
            self._socket_url(link, transport="polling"),
            purpose="socket_handshake",
            bucket=f"{self.name}.session",
            keys=self._keys(),
        )
        link.reached = True
        if reply.status != 200:
            return "", _refused(reply.status, reply.body, retry_after=None)
        signals = connection.receive_poll(reply.body, now=self.tools.clock.monotonic())
        end = self._act(signals, link)
        if end is None and (self.opened is None or "websocket" not in self.opened.upgrades):
            end = _End("the server offers no upgrade from polling to a websocket")
        return (self.opened.sid if self.opened is not None else ""), end

    async def _converse(self, socket: ClientConnection, connection: Connection, link: _Link) -> _End:
        clock = self.tools.clock
        while True:
            for frame in connection.frames():
                await (socket.ping() if isinstance(frame, TransportPing) else socket.send(frame))
            deadline = connection.deadline
            try:
                async with asyncio.timeout(None if deadline is None else deadline - clock.monotonic()):
                    message = await socket.recv()
            except TimeoutError:
                signals = connection.tick(clock.monotonic())
            else:
                now = clock.monotonic()
                signals = connection.receive(message, now=now) + connection.tick(now)
            end = self._act(signals, link) or self._outlived(link)
            if end is not None:
                return end

    def _outlived(self, link: _Link) -> _End | None:
        """End the stream of a login that is no longer ours: XTS leaves such a socket open, and silent (xts.md §1.4)."""
        alive = link.session.secrets["token"] == self._current_token()
        return None if alive else _End("a newer login took its place")

    def _act(self, signals: Sequence[Signal], link: _Link) -> _End | None:
        for signal in signals:
            end = self._act_on(signal, link)
            if end is not None:
                return end
        return None

    def _act_on(self, signal: Signal, link: _Link) -> _End | None:
        match signal:
            case Received():
                return self._take(signal, link)
            case Opened():
                self.opened = signal
            case Joined():
                link.joined = True
                self.winner, self.failures = signal.revision, 0
                self.listening = True
            case Unreadable():
                return self._unreadable(signal.error, link)
            case Ended():
                return _ended(signal)
            case Ignored():
                pass
        return None

    def _unreadable(self, error: ProtocolViolationError, link: _Link) -> _End | None:
        self.note_violation(error)
        link.unreadable += 1
        if link.unreadable < _LARGEST_UNREADABLE_RUN:
            return None
        return _End(f"the stream cannot be read any more: {error}", how=Ending.MALFORMED)

    def _take(self, event: Received, link: _Link) -> _End | None:
        self.events[event.name if event.name in _EVENTS else "other"] += 1
        if event.name in _LAST_WORDS:
            words = " ".join(str(argument) for argument in event.arguments)[:200]
            if event.name == "logout" or answers.is_dead_token(words):
                return _End(f"{event.name}: {words}", how=Ending.LEFT, doubted=True)
            return None
        if (
            event.name == "tradeConversion"
        ):  # says neither whose nor which position (xts.md §6.3): the book does
            self.note_positions_moved()
            return None
        publish = self._PUBLISH.get(event.name)
        if publish is None:
            return None
        try:
            for row, raw in messages.event_rows(event.arguments[0] if event.arguments else None):
                if link.clients.owns(_named_client(row, raw, link.clients)):
                    publish(self, row, raw)
                else:
                    self.foreign += 1
        except ProtocolViolationError as error:
            return self._unreadable(error, link)
        link.unreadable = 0
        return None

    def _take_order(self, row: messages.Row, raw: bytes) -> None:
        self.on_order(messages.order_update(row, self._reading(Channel.STREAM), raw=raw))

    def _take_trade(self, row: messages.Row, raw: bytes) -> None:
        """A trade event carries its order's whole row, and may come first (xts.md §6.4)."""
        reading = self._reading(Channel.STREAM)
        execution = messages.trade(row, reading, raw=raw)
        self.on_order(messages.order_update(row, reading, raw=raw))
        self.on_trade(execution)

    def _take_position(self, row: messages.Row, raw: bytes) -> None:
        if messages.is_net_position(row):
            self.on_position(messages.position(row, self._reading(Channel.STREAM), raw=raw))

    _PUBLISH: ClassVar[Mapping[str, Callable[[XtsAdapter, messages.Row, bytes], None]]] = {
        "order": _take_order,
        "trade": _take_trade,
        "position": _take_position,
    }

    async def _explain(self, end: _End, link: _Link) -> NoReturn:
        """Turn the end of a connection into the error that tells the supervisor what to do."""
        if link.session.secrets["token"] != self._current_token():
            raise BrokerUnreachableError(f"{self.title} ended the stream of an older login")
        if end.dead_token:
            raise SessionExpiredError(f"{self.title} no longer accepts this login ({end.words})")
        if end.doubted:
            await self._probe_token(end.words)
        if end.how is Ending.MALFORMED and link.joined:
            raise ProtocolViolationError(f"{self.title}: {end.words}")
        raise BrokerUnreachableError(f"{self.title}: {end.words}", retry_after=end.retry_after)

    async def _probe_token(self, words: str) -> None:
        """Ask by REST whether the token lives: raises SessionExpiredError when it does not (xts.md §7: balance).

        `words`: what made us ask; an operator wants to see them (xts.md §11: how a socket refuses is not known).
        """
        try:
            await self.funds()
        except SessionExpiredError as error:
            raise SessionExpiredError(f"{error}; {words}") from None
        except (ProtocolViolationError, PermissionRefusedError):
            return  # it was let in, whatever it answered

    def _dial(self, connection: Connection, link: _Link, *, sid: str) -> _Dial:
        return _Dial(
            self._socket_url(link, transport="websocket", sid=sid),
            user_agent_header="orderwire",
            create_connection=self._heard_connection(connection),
            compression=None,
            proxy=None,
            open_timeout=7,
            close_timeout=0.4,
            ping_interval=None,
            max_size=_FRAME_BYTES,
            logger=_SILENT,
        )

    def _heard_connection(self, connection: Connection) -> type[ClientConnection]:
        """Return a connection class that notes every piece of bytes, also of a message not yet complete."""

        def hear() -> None:
            self.heard_at = self.tools.clock.monotonic()
            connection.heard(self.heard_at)

        class HeardConnection(ClientConnection):
            def data_received(self, data: bytes) -> None:
                hear()
                super().data_received(data)

        return HeardConnection

    def _socket_url(self, link: _Link, *, transport: str, sid: str = "") -> str:
        base = self._base(link.session)
        return socketio.handshake_url(
            base,
            path=self._addresses["socket_path"] or answers.socket_path(base),
            query={
                "token": link.session.secrets["token"],
                "userID": link.session.user_id,
                "apiType": "INTERACTIVE",
            },
            revision=link.revision,
            transport=transport,
            sid=sid,
        )

    # --- the first day --------------------------------------------------------------------------------

    def questions(self) -> Mapping[str, Question]:
        """Add what xts.md §11 leaves open: the reply for an empty book, and to a stale token, by both ways."""
        return {**super().questions(), **checklist.questions(self)}

    def stream_facts(self) -> str:
        revision = f"Engine.IO {self.winner}, " if self.listening else ""
        opened = f"open packet {self.opened.raw}" if self.opened is not None else "no open packet"
        return f"{revision}{opened}"

    def stream_counts(self) -> Mapping[str, int]:
        return {**self.events, "of other clients": self.foreign}

    async def asked(self, book: str) -> Answer:
        """Read `orders`, `trades` or `positions` and return the answer as it came, an error as well."""
        query = {"dayOrNet": "NetWise"} if book == "positions" else {}
        return await self._call(
            "GET",
            self._book(book),
            purpose=f"{book}_raw",
            bucket="books" if book == "orders" else book,
            query={**query, **self._client()},
        )

    # --- underneath -----------------------------------------------------------------------------------

    async def _read(
        self, path: str, *, purpose: str, bucket: str, query: Mapping[str, str] | None = None
    ) -> bytes:
        """Read a book; an empty one, which XTS reports as an error, is empty bytes."""
        answer = await self._call(
            "GET", path, purpose=purpose, bucket=bucket, query={**(query or {}), **self._client()}
        )
        if answer.ok:
            return answer.result
        if answer.empty:
            return b""
        raise answers.read_error(answer)

    async def _order_call(
        self,
        method: str,
        *,
        purpose: str,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> OrderId:
        answer = await self._call(method, "/orders", purpose=purpose, bucket=purpose, query=query, body=body)
        if not answer.ok:
            raise answers.order_error(answer)
        try:
            return messages.placed_order_id(answer.result)
        except ProtocolViolationError:
            raise BrokerUnreachableError(
                f"{self.title} took the request and gave no order number", sent=True
            ) from None

    async def _call(
        self,
        method: str,
        path: str,
        *,
        purpose: str,
        bucket: str,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Answer:
        token, base = self._token(), self._base(self._session())
        reply = await self.tools.http.request(
            method,
            f"{base}{path}",
            purpose=purpose,
            bucket=f"{self.name}.{bucket}",
            keys=self._keys(),
            headers={"Authorization": token},
            params=query or None,
            json=body,
        )
        answer = answers.read_answer(reply.status, reply.body)
        if answer.dead_token and token != self._current_token():
            raise BrokerUnreachableError("the login was renewed while this call was on its way")
        return answer

    async def _post(self, url: str, body: Mapping[str, str], *, purpose: str) -> Answer:
        reply = await self.tools.http.request(
            "POST", url, purpose=purpose, bucket=f"{self.name}.session", keys=self._keys(), json=body
        )
        return answers.read_answer(reply.status, reply.body)

    async def _market(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> bytes:
        answer = await self._market_call(method, path, query=query, body=body)
        if answer.status in {400, 401} and self._credential("market_app_key"):
            token = await self._market_token()
            answer = await self._market_call(method, path, query=query, body=body, token=token)
        if not answer.ok:
            raise _market_error(answer)
        return answer.result

    async def _market_token(self) -> str:
        keys = {
            "appKey": self._credential("market_app_key"),
            "secretKey": self._credential("market_secret_key"),
            "source": self._addresses["source"],
        }
        url = f"{self._market_root()}/auth/login"
        return answers.read_login(await self._post(url, keys, purpose="market_login")).token

    async def _market_call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None,
        body: Mapping[str, Any] | None,
        token: str = "",
    ) -> Answer:
        reply = await self.tools.http.request(
            method,
            f"{self._market_root()}{path}",
            purpose="instruments",
            bucket=f"{self.name}.market",
            keys=self._keys(),
            headers={"Authorization": token} if token else None,
            params=query,
            json=body,
            timeout=60.0,
            most_bytes=_MASTER_BYTES,
        )
        return answers.read_answer(reply.status, reply.body)

    def _market_root(self) -> str:
        return self._joined_address(
            "market_base" if self._addresses["market_base"] else "base", "market_path"
        )

    def _joined_address(self, base: str, path: str) -> str:
        return f"{self._addresses[base].rstrip('/')}/{self._addresses[path].strip('/')}".rstrip("/")

    async def _rows(
        self,
        result: bytes,
        parse: Callable[..., _T],
        reading: Reading,
        *,
        split: Callable[[bytes], list[bytes]] = messages.list_rows,
        read: Callable[[list[bytes], Callable[[bytes], _T | None]], BookRows[_T]] = read_rows,
    ) -> BookRows[_T]:
        """Read our own rows, each by itself; those of a dealer's other clients are left out."""
        received, clients = self._received(reading), self._clients()

        def own(raw: bytes) -> _T | None:
            row = messages.read_row(raw)
            return parse(row, received, raw=raw) if clients.owns(messages.client_of(row)) else None

        return await parsed(len(result), lambda: read(split(result), own))

    def _received(self, reading: Reading) -> Reading:
        """The book belongs to the day on which it was asked for, and arrived now."""
        return replace(reading, received_ns=self.tools.clock.time_ns())

    def _reading(self, channel: Channel) -> Reading:
        clock = self.tools.clock
        return Reading(
            account=self.profile.account,
            broker=self.name,
            channel=channel,
            trading_date=session_date(clock.now()),
            received_ns=clock.time_ns(),
            instruments=self.tools.instruments,
        )

    def _book(self, name: str) -> str:
        dealer = bool(self._clients().client_id)
        return _BOOKS[self._addresses["books"] if dealer else "plain"][name]

    def _clients(self) -> Clients:
        return self._clients_of(investor=self._session().facts.get("investor") == "yes")

    def _clients_of(self, *, investor: bool) -> Clients:
        return answers.clients(
            kind=self._credential("login_kind") or "auto",
            client_id=self._credential("client_id"),
            investor=investor,
            alias=self._credential("client_alias"),
        )

    def _client(self) -> dict[str, str]:
        client_id = self._clients().client_id
        return {"clientID": client_id} if client_id else {}

    def _tradable(self, request: OrderRequest) -> Instrument:
        instrument = self.tools.instruments.by_symbol(request.exchange, request.symbol)
        if instrument is None:
            raise InvalidRequestError(
                {"symbol": f"{self.title} has no {request.symbol} on {request.exchange} today."}
            )
        if not instrument.tradable:
            raise InvalidRequestError(
                {"symbol": f"{request.symbol} is an index: it cannot be traded itself."}
            )
        return instrument

    def _keys(self) -> dict[str, str]:
        return {"account": self.profile.account, "api_key": self._credential("app_key")}

    def _credential(self, name: str) -> str:
        return self.profile.credentials.get(name, "").strip()

    def _session(self) -> BrokerSession:
        if self.session is None or not self.session.secrets.get("token"):
            raise SessionExpiredError(f"Log in to {self.title} first.")
        return self.session

    def _base(self, session: BrokerSession) -> str:
        """The address that the login gave, as long as this account may use it."""
        base = session.facts.get("base", "")
        refusal = plaintext_refusal(base, allow_plaintext=self.profile.allow_plaintext)
        if refusal:
            raise PermissionRefusedError(refusal)
        return base

    def _token(self) -> str:
        return self._session().secrets["token"]

    def _current_token(self) -> str:
        return self.session.secrets.get("token", "") if self.session is not None else ""


_EVENTS = frozenset(
    {
        "joined",
        "error",
        "warning",
        "success",
        "order",
        "trade",
        "logout",
        "position",
        "tradeConversion",
        "marketStatusUpdate",
        "exchangeAdapterState",
        "gttOrder",
        "gttOrderRejection",
    }
)
"""The events that a login's enums name (xts.md §1.1)."""

_LAST_WORDS = frozenset({"logout", "error", "warning", "message"})
"""Events with a text, in which the end of a session may be told (xts.md §5.1, §6.1)."""


@dataclass(slots=True)
class _Link:
    """What one connection was made with, and how far it came."""

    session: BrokerSession
    clients: Clients
    revision: int
    reached: bool = False
    joined: bool = False
    unreadable: int = 0


@dataclass(frozen=True, slots=True)
class _End:
    """Why a connection is over, in words that hold no token."""

    words: str
    how: Ending | None = None
    doubted: bool = False
    """Perhaps the token is finished: ask by REST."""
    dead_token: bool = False
    retry_after: float | None = None


class _Dial(connect):
    """Dials once: a redirect, which could lead our token elsewhere, is a refusal."""

    def process_redirect(self, exc: Exception) -> Exception:
        return exc


def _named_client(row: messages.Row, raw: bytes, clients: Clients) -> str:
    """Whose event it is; one to a dealer that does not say it is nobody's, for a dealer's socket has many clients."""
    client = messages.client_of(row)
    if clients.own and not client:
        raise ProtocolViolationError("an event to a dealer that names no client", raw=raw[:2000])
    return client


def _ended(signal: Ended) -> _End:
    """A refusal by `44` is about the token until REST says otherwise (xts.md §5.7)."""
    refused = signal.how is Ending.REFUSED
    dead = refused and answers.is_dead_token(signal.detail)
    return _End(f"the stream ended: {signal.detail}", how=signal.how, doubted=refused, dead_token=dead)


def _refused(status: int, body: bytes, *, retry_after: float | None) -> _End:
    answer = answers.read_answer(status, body)
    dead = answer.dead_token or answers.is_dead_token(body[:2000].decode("utf-8", "replace"))
    return _End(
        f"the stream was refused (HTTP {status})",
        doubted=status in {401, 403},
        dead_token=dead and status < 500,
        retry_after=retry_after,
    )


def _lost(error: Exception, *, now: datetime) -> _End:
    if isinstance(error, InvalidStatus):
        response = error.response
        wait = retry_after_seconds(response.headers.get("Retry-After", ""), now=now)
        return _refused(response.status_code, bytes(response.body), retry_after=wait)
    if isinstance(error, ConnectionClosed):
        return _closed(error)
    return _End(f"the stream cannot be reached ({type(error).__name__})")


def _closed(error: ConnectionClosed) -> _End:
    code = error.rcvd.code if error.rcvd is not None else None
    if code is None and error.sent is not None and error.sent.code in _OUR_PROTOCOL_CLOSES:
        return _End(
            f"the stream is no WebSocket any more (close code {error.sent.code})", how=Ending.MALFORMED
        )
    return _End(f"the broker closed the stream ({'abruptly' if code is None else f'code {code}'})")


def _market_error(answer: Answer) -> BrokerError:
    if answer.status in {400, 401, 403}:
        return PermissionRefusedError(
            "the broker does not give its instrument list without market-data keys; "
            "set market_app_key and market_secret_key of this account"
        )
    return answers.read_error(answer)
