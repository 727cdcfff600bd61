"""Zerodha, over Kite Connect v3: REST, the WebSocket's order frames, and postbacks as hints (kite.md)."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from functools import partial
from types import MappingProxyType, TracebackType
from typing import ClassVar, NoReturn, Self, TypeVar
from urllib.parse import quote, urlencode

from msgspec import Raw
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.http11 import Response

from orderwire.brokers.adapter import (
    SESSION_FIELD,
    AccountProfile,
    AdapterTools,
    BrokerAdapter,
    BrokerSession,
    Field,
    PostbackHint,
    PostbackRequest,
    plaintext_refusal,
)
from orderwire.brokers.checklist import Question, twin
from orderwire.brokers.http import DAY, MINUTE, Bucket, Budget, retry_after_seconds
from orderwire.brokers.parsing import parsed
from orderwire.brokers.zerodha import checklist, instruments, messages, postbacks
from orderwire.brokers.zerodha.messages import Reading
from orderwire.core.books import TradeRows
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
    BrokerUnreachableError,
    ConfigurationError,
    InvalidRequestError,
    OrderRefusedError,
    PermissionRefusedError,
    ProtocolViolationError,
    SessionExpiredError,
)

_PER_SECOND = Budget(rate=10, scope="account", name="zerodha orders")
_PER_MINUTE = Budget(rate=400, per_seconds=MINUTE, scope="account", name="zerodha orders")
_PER_DAY = Budget(rate=5000, per_seconds=DAY, scope="account", name="zerodha placements")
_READS = Budget(rate=10, scope="api_key", name="zerodha reads")

_INSTRUMENT_BYTES = 64 * 2**20
_FRAME_BYTES = 2**20
_LARGEST_UNREADABLE_RUN = 10
_OUR_PROTOCOL_CLOSES = frozenset({1002, 1007, 1009})
"""Codes with which our side ends a connection whose bytes are not WebSocket."""


_SILENT = logging.Logger("zerodha stream", level=logging.CRITICAL + 1)  # noqa: LOG001 - of no tree, so no handler
"""The library would log the address it dials, and the token is part of that."""

_T = TypeVar("_T")


class ZerodhaAdapter(BrokerAdapter):
    """One Zerodha account. Its app's `api_key` and `api_secret` are credentials, its token is the session."""

    name = "zerodha"
    title = "Zerodha"
    credential_fields = (
        Field(name="api_key", label="API key"),
        Field(name="api_secret", label="API secret", secret=True),
        Field(name="user_id", label="Client id (refuses the login of another one)", required=False),
        SESSION_FIELD,
    )
    app_fields = ("api_key", "api_secret")
    address_fields = (
        Field(name="api", label="REST root", default="https://api.kite.trade"),
        Field(name="stream", label="WebSocket root", default="wss://ws.kite.trade"),
        Field(name="login", label="Login page", default="https://kite.zerodha.com/connect/login"),
    )
    budgets: ClassVar[Mapping[str, Bucket]] = MappingProxyType(
        {
            "zerodha.place": Bucket(budgets=(_PER_SECOND, _PER_MINUTE, _PER_DAY), patience=1.1, breaks=False),
            "zerodha.amend": Bucket(budgets=(_PER_SECOND, _PER_MINUTE), patience=1.1, breaks=False),
            "zerodha.read": Bucket(budgets=(_READS,), patience=5.0),
        }
    )
    """kite.md §6.1: orders count per account, everything else together per api_key."""
    has_stream = True
    has_postback = True
    api_version = "3"

    silence = 4.5
    """Seconds without a byte after which the stream counts as dead; Kite's heartbeat comes every 1-2 s.

    Closing a dead line takes up to 0.4 s more, and within 5 s of the last byte the page is to know.
    """

    def __init__(self, profile: AccountProfile, tools: AdapterTools) -> None:
        """Raise ConfigurationError when a credential is missing or an address is not encrypted."""
        super().__init__(profile, tools)
        self._addresses = {
            field.name: (profile.addresses.get(field.name) or field.default).rstrip("/")
            for field in self.address_fields
        }
        self._frames: Counter[str] = Counter()
        self._trades = TradeRows()
        self._check_profile()

    def _check_profile(self) -> None:
        for field in self.credential_fields:
            if field.required and not self.profile.credentials.get(field.name):
                raise ConfigurationError(f"{self.title} account {self.profile.account} has no {field.name}")
        for address in self._addresses.values():
            refusal = plaintext_refusal(address, allow_plaintext=self.profile.allow_plaintext)
            if refusal:
                raise ConfigurationError(refusal)

    # --- logging in -----------------------------------------------------------------------------------

    def login_url(self, *, state: str = "") -> str:
        query = {"v": self.api_version, "api_key": self.profile.credentials["api_key"]}
        if state:
            query["redirect_params"] = f"state={quote(state, safe='')}"
        return f"{self._addresses['login']}?{urlencode(query)}"

    async def login(self, grant: Mapping[str, str]) -> BrokerSession:
        """Exchange the redirect's `request_token`; the session ends at 06:00 IST (kite.md §1)."""
        request_token = grant.get("request_token", "")
        if not request_token:
            raise SessionExpiredError(
                "Zerodha's login was not completed: there is no request_token. Log in again."
            )
        granted = messages.read_session(await self._exchange(request_token))
        self._check_user(granted.user_id)
        return BrokerSession(
            user_id=granted.user_id,
            secrets={"access_token": granted.access_token},
            expires_at=messages.token_dies(self.tools.clock.now()),
            facts={"user_name": granted.user_name},
        )

    async def _exchange(self, request_token: str) -> Raw:
        form = self._login_form(request_token)
        try:
            return await self._call("POST", "/session/token", purpose="login", form=form, signed=False)
        except (OrderRefusedError, PermissionRefusedError) as error:
            raise SessionExpiredError(f"Zerodha refused the login: {error}") from error

    def _login_form(self, request_token: str) -> dict[str, str]:
        api_key = self.profile.credentials["api_key"]
        checksum = messages.session_checksum(
            api_key=api_key, request_token=request_token, api_secret=self.profile.credentials["api_secret"]
        )
        return {"api_key": api_key, "request_token": request_token, "checksum": checksum}

    def _check_user(self, user_id: str) -> None:
        wanted = self.profile.credentials.get("user_id", "")
        if wanted and wanted.upper() != user_id.upper():
            raise SessionExpiredError(
                f"You logged in to Zerodha as {user_id}, but this account is {wanted}. Log in as {wanted}."
            )

    async def adopt(self, token: str) -> BrokerSession:
        """Use an access token that another program of the user obtained, alone or as `api_key:access_token`."""
        api_key, _, access_token = token.strip().rpartition(":")
        if api_key not in {"", self.profile.credentials["api_key"]}:
            raise SessionExpiredError(
                "The host's Zerodha login is of another app; give this account the api_key that the host uses."
            )
        session = BrokerSession(
            user_id="",
            secrets={"access_token": access_token},
            expires_at=messages.token_dies(self.tools.clock.now()),
        )
        whose = messages.read_profile(
            await twin(self, session)._call("GET", "/user/profile", purpose="profile")  # noqa: SLF001 - one of us
        )
        self._check_user(whose.user_id)
        return replace(session, user_id=whose.user_id, facts={"user_name": whose.user_name})

    async def logout(self) -> None:
        """End the API session; Kite web and the app stay logged in (kite.md §1)."""
        query = {"api_key": self.profile.credentials["api_key"], "access_token": self._access_token()}
        await self._call("DELETE", "/session/token", purpose="logout", query=query)

    def broker_now(self) -> datetime | None:
        return self.tools.http.broker_time(self._addresses["api"])

    def book_share(self) -> float:
        return self.tools.http.share("zerodha.read", keys=self._keys())

    # --- REST -----------------------------------------------------------------------------------------

    async def place_order(self, request: OrderRequest) -> OrderId:
        """Send one order of variety `regular`; of an autosliced one, return the parent's id."""
        form = messages.place_form(request, self._tradable(request))
        data = await self._call("POST", "/orders/regular", purpose="place", bucket="zerodha.place", form=form)
        return messages.read_placed(data).order_id

    async def modify_order(self, request: ModifyRequest, *, current: OrderUpdate | None = None) -> OrderId:
        """Ask for new terms; Kite takes 25 modifications of one order."""
        data = await self._call(
            "PUT",
            _order_path(request.order_id, current),
            purpose="modify",
            bucket="zerodha.amend",
            form=messages.modify_form(request),
        )
        return messages.read_placed(data).order_id

    async def cancel_order(self, order_id: OrderId, *, current: OrderUpdate | None = None) -> OrderId:
        data = await self._call(
            "DELETE",
            _order_path(order_id, current),
            purpose="cancel",
            bucket="zerodha.amend",
            query=_cover_parent(current),
        )
        return messages.read_placed(data).order_id

    async def order_book(self) -> Sequence[OrderUpdate]:
        return await self._read("/orders", messages.read_orders, purpose="order_book")

    async def order_history(self, order_id: OrderId) -> Sequence[OrderUpdate]:
        """Read one order's states; an order Zerodha does not know has none."""
        try:
            return await self._read(
                f"/orders/{quote(order_id, safe='')}",
                messages.read_history,
                purpose="order_history",
                channel=Channel.HISTORY,
            )
        except OrderRefusedError:
            return []

    async def trade_book(self) -> Sequence[Trade]:
        return await self._read(
            "/trades", partial(messages.read_trades, seen=self._trades), purpose="trade_book"
        )

    async def positions(self) -> Sequence[Position]:
        return await self._read("/portfolio/positions", messages.read_positions, purpose="positions")

    async def holdings(self) -> Sequence[Holding]:
        return await self._read("/portfolio/holdings", messages.read_holdings, purpose="holdings")

    async def funds(self) -> Funds:
        data = await self._call("GET", "/user/margins", purpose="funds")
        return messages.read_funds(data, self.profile.account)

    async def instruments_of_the_day(self) -> Sequence[Instrument]:
        """Download the list of all exchanges; rows that cannot be read are left out."""
        reply = await self.tools.http.request(
            "GET",
            f"{self._addresses['api']}/instruments",
            purpose="instruments",
            bucket="zerodha.read",
            keys=self._keys(),
            headers=self._headers(signed=self.session is not None),
            timeout=60.0,
            most_bytes=_INSTRUMENT_BYTES,
        )
        if reply.status != 200 or reply.content_type == "application/json":
            messages.read_reply(reply.body, status=reply.status)
        found = await asyncio.to_thread(instruments.read_instruments, reply.body)
        return found.instruments

    # --- events ---------------------------------------------------------------------------------------

    async def listen(self) -> None:
        """Follow the account's order frames; no subscription is needed, and ticks are only signs of life.

        Ends after `silence` seconds without a byte. A 403 at the handshake is a dead token or a plan without
        the WebSocket; one read of the order book tells which. Frames that cannot be read are counted and left
        out, until ten in a row cannot.
        """
        refusal = await self._listen()
        await self._explain(refusal.status_code, refusal.headers.get("Retry-After", ""))

    async def _listen(self) -> Response:
        """Run the stream; return only a refused handshake, raise everything else."""
        watch = _Watch(self._hear, seconds=self.silence)
        try:
            async with watch, self._dial(watch) as stream:
                watch.begin()
                self.listening = True
                await self._follow(stream)
        except TimeoutError:
            raise BrokerUnreachableError(f"Zerodha's stream was silent for {self.silence:g} s") from None
        except InvalidStatus as error:
            return error.response
        except ConnectionClosed as error:
            raise _closed(error) from None
        except InvalidURI:
            raise ConfigurationError("Zerodha's stream address is not a WebSocket address") from None
        except (OSError, InvalidHandshake, EOFError) as error:
            raise BrokerUnreachableError(
                f"Zerodha's stream cannot be reached ({type(error).__name__})"
            ) from None
        finally:
            self.listening = False

    def _hear(self) -> None:
        self.heard_at = self.tools.clock.monotonic()

    def _dial(self, watch: _Watch) -> _Dial:
        query = urlencode(
            {"api_key": self.profile.credentials["api_key"], "access_token": self._access_token()}
        )
        return _Dial(
            f"{self._addresses['stream']}/?{query}",
            additional_headers={"X-Kite-Version": self.api_version},
            user_agent_header="orderwire",
            create_connection=watch.connection(),
            compression=None,
            proxy=None,
            open_timeout=7,
            close_timeout=0.4,
            ping_interval=None,
            max_size=_FRAME_BYTES,
            logger=_SILENT,
        )

    async def _follow(self, stream: ClientConnection) -> NoReturn:
        unreadable = 0
        while True:
            message = await stream.recv()
            if isinstance(message, bytes):
                self._frames["heartbeat" if len(message) <= 1 else "ticks"] += 1
                continue
            try:
                unreadable = 0 if self._take(message) else unreadable
            except ProtocolViolationError as error:
                self.note_violation(error)
                unreadable += 1
                if unreadable >= _LARGEST_UNREADABLE_RUN:
                    raise ProtocolViolationError(
                        f"Zerodha's stream cannot be read any more: {error}", raw=error.raw
                    ) from None

    def _take(self, text: str) -> bool:
        """Publish what an order frame says; return whether the frame was one."""
        frame = messages.read_frame(text)
        self._frames[frame.kind if frame.kind in messages.FRAME_KINDS else "unknown"] += 1
        if frame.kind == "error":
            raise ProtocolViolationError(f"Zerodha's stream says: {messages.read_words(frame.data)}")
        if frame.kind != "order":
            return False
        owner = self.session.user_id if self.session is not None else ""
        reading = self._reading(Channel.STREAM, owner=owner)
        self.on_order(messages.read_order(frame.data, reading))
        return True

    async def _explain(self, status: int, retry_after: str) -> NoReturn:
        """Say why the handshake was refused (kite.md §5.1)."""
        if status in {401, 403}:
            await self._call("GET", "/orders", purpose="token_check")
            raise PermissionRefusedError(
                "Zerodha refuses the live stream although the login is valid: an app on the free Personal plan has "
                "none, the paid Connect plan does. The order book is read every few seconds; the stream is asked for "
                "again from time to time."
            )
        wait = retry_after_seconds(retry_after, now=self.tools.clock.now())
        if status == 429:
            raise BrokerUnreachableError(
                "Zerodha allows three live streams for each API key, and all three are in use: close another "
                "program that uses this key, or give this account its own app.",
                retry_after=wait,
            )
        raise BrokerUnreachableError(f"Zerodha refused the stream (HTTP {status})", retry_after=wait)

    @classmethod
    def read_postback(cls, request: PostbackRequest, *, secrets: Sequence[str]) -> PostbackHint:
        """Verify and read a postback, whatever its Content-Type (kite.md §4.4)."""
        return postbacks.read_postback(request.body, secrets=secrets)

    def read_claim(self, request: PostbackRequest) -> OrderUpdate:
        owner = self.session.user_id if self.session is not None else ""
        return messages.read_order(request.body, self._reading(Channel.POSTBACK, owner=owner))

    # --- the first day --------------------------------------------------------------------------------

    def questions(self) -> Mapping[str, Question]:
        """Add what only a live login can settle: histories' interim rows, and how a dead token is refused."""
        return {**super().questions(), **checklist.questions(self)}

    def reached(self) -> tuple[str, str]:
        """Return where REST and the stream are, for an operator's eyes."""
        return self._addresses["api"], self._addresses["stream"]

    def stream_facts(self) -> str:
        return f"Kite Connect version {self.api_version}, dead after {self.silence:g} s of silence"

    def stream_counts(self) -> Mapping[str, int]:
        return dict(self._frames)

    # --- underneath -----------------------------------------------------------------------------------

    async def _read(
        self,
        path: str,
        parse: Callable[[Raw, Reading], list[_T]],
        *,
        purpose: str,
        channel: Channel = Channel.REST,
    ) -> list[_T]:
        trading_date = session_date(self.tools.clock.now())
        data = await self._call("GET", path, purpose=purpose)
        reading = self._reading(channel, trading_date=trading_date)
        return await parsed(memoryview(data).nbytes, lambda: parse(data, reading))

    async def _call(
        self,
        method: str,
        path: str,
        *,
        purpose: str,
        bucket: str = "zerodha.read",
        form: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        signed: bool = True,
    ) -> Raw:
        reply = await self.tools.http.request(
            method,
            f"{self._addresses['api']}{path}",
            purpose=purpose,
            bucket=bucket,
            keys=self._keys(),
            headers=self._headers(signed=signed),
            params=query,
            data=form,
        )
        return messages.read_reply(reply.body, status=reply.status)

    def _headers(self, *, signed: bool) -> dict[str, str]:
        headers = {"X-Kite-Version": self.api_version}
        if signed:
            api_key = self.profile.credentials["api_key"]
            headers["Authorization"] = f"token {api_key}:{self._access_token()}"
        return headers

    def _keys(self) -> dict[str, str]:
        client = self.session.user_id if self.session is not None else ""
        return {"account": client or self.profile.account, "api_key": self.profile.credentials["api_key"]}

    def _access_token(self) -> str:
        token = self.session.secrets.get("access_token", "") if self.session is not None else ""
        if not token:
            raise SessionExpiredError("Log in to Zerodha first.")
        return token

    def _reading(self, channel: Channel, *, trading_date: date | None = None, owner: str = "") -> Reading:
        clock = self.tools.clock
        return Reading(
            account=self.profile.account,
            channel=channel,
            trading_date=trading_date or session_date(clock.now()),
            received_ns=clock.time_ns(),
            instruments=self.tools.instruments,
            owner=owner,
        )

    def _tradable(self, request: OrderRequest) -> Instrument:
        instrument = self.tools.instruments.by_symbol(request.exchange, request.symbol)
        if instrument is None:
            raise InvalidRequestError(
                {"symbol": f"Zerodha has no {request.symbol} on {request.exchange} today."}
            )
        if not instrument.tradable:
            raise InvalidRequestError(
                {"symbol": f"{request.symbol} is an index: it cannot be traded itself."}
            )
        return instrument


class _Dial(connect):
    """Dials once: a redirect, which could lead our token elsewhere, is a refusal."""

    def process_redirect(self, exc: Exception) -> Exception:
        return exc


class _Watch:
    """Ends the block it guards with TimeoutError when no byte came for so many seconds."""

    def __init__(self, hear: Callable[[], None], *, seconds: float) -> None:
        self._hear = hear
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()
        self._timeout = asyncio.timeout(None)
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self._timeout.__aexit__(kind, error, trace)

    def begin(self) -> None:
        """Count silence from now on; before, the handshake has a time limit of its own."""
        self.heard()
        self._check()

    def heard(self) -> None:
        """Note a sign of life; called for every piece of bytes, on the loop, even after the block has ended."""
        self._last = self._loop.time()
        self._hear()

    def _check(self) -> None:
        due = self._last + self._seconds
        if due > self._loop.time():
            self._timer = self._loop.call_at(due, self._check)
        else:
            self._timeout.reschedule(self._loop.time())

    def connection(self) -> type[ClientConnection]:
        """Return a connection class that notes every piece of bytes, also of a message not yet complete."""
        heard = self.heard

        class HeardConnection(ClientConnection):
            def data_received(self, data: bytes) -> None:
                heard()
                super().data_received(data)

        return HeardConnection


def _closed(error: ConnectionClosed) -> BrokerUnreachableError | ProtocolViolationError:
    code = error.rcvd.code if error.rcvd is not None else None
    if code is None and error.sent is not None and error.sent.code in _OUR_PROTOCOL_CLOSES:
        return ProtocolViolationError(
            f"Zerodha's stream is no WebSocket any more (close code {error.sent.code})"
        )
    return BrokerUnreachableError(
        f"Zerodha closed the stream ({'abruptly' if code is None else f'code {code}'})"
    )


def _order_path(order_id: OrderId, current: OrderUpdate | None) -> str:
    return f"/orders/{messages.variety_of(current)}/{quote(order_id, safe='')}"


def _cover_parent(current: OrderUpdate | None) -> dict[str, str] | None:
    """Only a cover order's leg is cancelled together with its parent's id (kite.md §2.2)."""
    if current is None or not current.parent_order_id or messages.variety_of(current) != "co":
        return None
    return {"parent_order_id": current.parent_order_id}
