"""One HTTP client for every broker: budgets, time limits, call counts and what a failed call means.

Nothing here retries. A read waits for its budget; an order call is refused at once when its budget is spent,
because a price that was right two seconds ago is not right now.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx2

from orderwire.clock import Clock
from orderwire.core.offset import ClockOffset, observe
from orderwire.errors import (
    BrokerUnreachableError,
    ConfigurationError,
    ProtocolViolationError,
    RateLimitedError,
)

SECOND, MINUTE, DAY = 1.0, 60.0, 86_400.0

MOST_BYTES = 64 * 2**20
"""Of a reply, unless said otherwise: a day of some 50,000 executions at XTS, where each is a kilobyte or more."""

_SLACK = 0.05
"""Calls that leave evenly arrive unevenly: each window is kept open this much longer, in seconds."""
_DEFAULT_PENALTY = 1.0
"""Seconds of silence after a 429 that names no Retry-After (kite.md §6.1: until the window resets)."""
_LONGEST_PENALTY = 60.0
_USER_LASTS = 60.0
"""Seconds after its last call for which an account still counts as one that shares a budget."""
_FOR_THE_BOOK = 0.6
"""Of a shared budget, what reads of the order book may take together; trades, positions and users have the rest."""
_CONNECT_SHARE = 0.45
"""Of a call's time, for TCP and again for TLS: the library must give up first, or it leaves the socket behind."""
_UNSENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)
_FAULTS = frozenset({502, 503, 504})

Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """At most `rate` calls in any `per_seconds`, counted together for everyone of one `scope`."""

    rate: int
    per_seconds: float = SECOND
    scope: str = "account"
    """Whom the broker counts: `account`, `api_key`, `address` … ; `keys` of a call says which one it is."""
    name: str = ""
    """Two buckets that name the same budget share it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """A kind of call: what it costs, and how long it may wait for its turn."""

    budgets: tuple[Budget, ...] = ()
    patience: float = 10.0
    """Seconds a call waits at most; then RateLimitedError."""
    breaks: bool = True
    """Refused at once while the broker's address is known to be down. Orders are not: they try it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpReply:
    """What came back, whatever its status; the body is complete and within its cap."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes = field(repr=False)
    content_type: str
    """Without parameters, in lower case; empty when absent."""
    received_ns: int
    """Wall time in ns at which the body was complete."""
    date: datetime | None = None
    """The broker's own clock (`Date`), aware."""


@dataclass(slots=True)
class _Window:
    """The moments at which one budget was, or is going to be, spent; in order."""

    budget: Budget
    spent: deque[float]
    closed_until: float = 0.0
    users: dict[str, float] = field(default_factory=dict)
    """When each account last took a turn; kept only where several may share the budget."""

    def opens_at(self, now: float) -> float:
        """Return when the next call may leave: never before one that waits already."""
        moment = max(now, self.closed_until)
        if self.spent:
            moment = max(moment, self.spent[-1])
        if len(self.spent) == self.budget.rate:
            moment = max(moment, self.spent[0] + self.budget.per_seconds + _SLACK)
        return moment


class Budgets:
    """Who may call when: rolling windows, shared by everything that uses the same budget and key. Loop only."""

    def __init__(self) -> None:
        self._windows: dict[tuple[Budget, str], _Window] = {}

    def reserve(self, bucket: Bucket, *, keys: Mapping[str, str], now: float) -> float:
        """Take the next free turn and return the seconds until it comes.

        Raises RateLimitedError, taking nothing, when that is more than the bucket's patience.
        """
        windows = self._of(bucket, keys)
        moment = max((window.opens_at(now) for window in windows), default=now)
        if moment - now > bucket.patience:
            raise RateLimitedError(
                f"too many calls for now; the next one may leave in {moment - now:.0f} s",
                retry_after=moment - now,
            )
        for window in windows:
            window.spent.append(moment)
            if window.budget.scope != "account":
                window.users[keys.get("account", "")] = now
        return moment - now

    def share(self, bucket: Bucket, *, keys: Mapping[str, str], now: float) -> float:
        """Return the seconds between reads that one account may take of what it shares with others."""
        return max((_share(window, now) for window in self._of(bucket, keys)), default=0.0)

    def close(self, bucket: Bucket, *, keys: Mapping[str, str], until: float) -> None:
        """Let nothing of this bucket's shortest budget leave before `until`: the broker said 429."""
        for window in sorted(self._of(bucket, keys), key=lambda window: window.budget.per_seconds)[:1]:
            window.closed_until = max(window.closed_until, until)

    def _of(self, bucket: Bucket, keys: Mapping[str, str]) -> list[_Window]:
        found = []
        for budget in bucket.budgets:
            key = (budget, keys.get(budget.scope, ""))
            if key not in self._windows:
                self._windows[key] = _Window(budget, deque(maxlen=budget.rate))
            found.append(self._windows[key])
        return found


def _share(window: _Window, now: float) -> float:
    for account in [name for name, at in window.users.items() if now - at > _USER_LASTS]:
        del window.users[account]
    budget = window.budget
    return len(window.users) * budget.per_seconds / (budget.rate * _FOR_THE_BOOK)


class CircuitBreaker:
    """Remembers which addresses do not answer, so that nobody queues at a closed door. Loop only."""

    def __init__(self, *, failures: int = 5, pause: float = 2.0) -> None:
        """After `failures` in a row an address is left alone for `pause` seconds, then one call tries it."""
        self._failures = failures
        self._pause = pause
        self._in_a_row: Counter[str] = Counter()
        self._retry_at: dict[str, float] = {}

    def refuse_seconds(self, origin: str, *, now: float) -> float:
        """Return for how long the address is still left alone; 0 means: call. Taking the 0 is the one try."""
        if self._in_a_row[origin] < self._failures:
            return 0.0
        wait = self._retry_at.get(origin, now) - now
        if wait > 0:
            return wait
        self._retry_at[origin] = now + self._pause
        return 0.0

    def heard(self, origin: str) -> None:
        """Note an answer."""
        self._in_a_row.pop(origin, None)
        self._retry_at.pop(origin, None)

    def failed(self, origin: str, *, now: float) -> None:
        """Note a call that brought no answer."""
        self._in_a_row[origin] += 1
        self._retry_at[origin] = now + self._pause


class BrokerHttp:
    """Sends a broker one request and says what became of it. One per process; feed loop only.

    What was counted, `broker_time` and `offsets` may be asked from any thread; nothing else.
    """

    def __init__(
        self,
        client: httpx2.AsyncClient,
        *,
        clock: Clock,
        budgets: Mapping[str, Bucket],
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """`budgets`: what each bucket may cost, by name; a call must name one of them, or none (``""``)."""
        self._client = client
        self._clock = clock
        self._buckets = {"": Bucket(), **budgets}
        self._budgets = Budgets()
        self._breaker = CircuitBreaker()
        self._sleep = sleep
        self._calls: Counter[tuple[str, str]] = Counter()
        self._outcomes: Counter[tuple[str, str]] = Counter()
        self._offsets: dict[str, ClockOffset] = {}

    def counts(self) -> dict[str, int]:
        """Return how many calls were sent, by purpose (`order_book` is what polling costs)."""
        purposes: Counter[str] = Counter()
        for (_broker, purpose), calls in self.calls().items():
            purposes[purpose] += calls
        return dict(purposes)

    def calls(self) -> dict[tuple[str, str], int]:
        """Return how many calls were sent, by broker (what its buckets' names begin with) and purpose."""
        return dict(self._calls)

    def outcomes(self) -> dict[tuple[str, str], int]:
        """Return what became of the calls, by broker.

        An HTTP class (`2xx` …), `429`, `unanswered`, or `refused`, by ourselves: the budget is spent, or the
        address is known to be down.
        """
        return dict(self._outcomes)

    def limited(self) -> dict[str, int]:
        """Return how many calls the broker refused with 429, by broker."""
        return self._became("429")

    def unanswered(self) -> dict[str, int]:
        """Return how many calls brought no answer, by broker."""
        return self._became("unanswered")

    def _became(self, what: str) -> dict[str, int]:
        return {broker: count for (broker, outcome), count in self.outcomes().items() if outcome == what}

    def broker_time(self, url: str) -> datetime | None:
        """Return what time it is at this address, estimated from the `Date` of its replies; any thread."""
        offset = self._offsets.get(_origin(httpx2.URL(url)))
        return None if offset is None else self._clock.now() + timedelta(seconds=offset.seconds)

    def offsets(self) -> dict[str, ClockOffset]:
        """Return how far each address's clock is from ours, by scheme, host and port; any thread."""
        return dict(self._offsets)

    def share(self, bucket: str, *, keys: Mapping[str, str]) -> float:
        """Return the seconds between reads that an account may take of the budgets it shares with others now."""
        return self._budgets.share(self._buckets[bucket], keys=keys, now=self._clock.monotonic())

    async def request(
        self,
        method: str,
        url: str,
        *,
        purpose: str,
        bucket: str = "",
        keys: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        data: Mapping[str, str] | None = None,
        json: Any = None,
        timeout: float = 7.0,  # noqa: ASYNC109 - part of the contract: callers speak of seconds
        most_bytes: int = MOST_BYTES,
    ) -> HttpReply:
        """Send one request once its budget allows, and return the reply, whatever its status but 429.

        `purpose` is what the call is counted as; `keys` names the account, api_key … that the bucket's budgets
        count. `timeout` bounds the whole call, waiting for the budget excluded. Redirects are not followed.
        Raises RateLimitedError (429, or the budget is spent: nothing was sent, or it was refused),
        BrokerUnreachableError (`sent` says whether the request may have arrived), ProtocolViolationError (a
        body above `most_bytes`, or one that cannot be decompressed). No message holds a query or a header.
        """
        spec, keys, broker = self._buckets[bucket], keys or {}, bucket.partition(".")[0]
        request = self._build(method, url, headers=headers, params=params, data=data, json=json)
        origin = _origin(request.url)
        try:
            self._refuse_while_down(spec, origin)
            await self._take_turn(spec, keys)
        except BrokerUnreachableError:
            self._outcomes[broker, "refused"] += 1
            raise
        self._calls[broker, purpose] += 1
        try:
            reply = await self._exchange(request, origin=origin, seconds=timeout, most_bytes=most_bytes)
        except BrokerUnreachableError:
            self._outcomes[broker, "unanswered"] += 1
            raise
        limited = reply.status == httpx2.codes.TOO_MANY_REQUESTS
        self._outcomes[broker, "429" if limited else f"{reply.status // 100}xx"] += 1
        if limited:
            raise self._too_many(reply, spec, keys, origin)
        return reply

    def _build(self, method: str, url: str, **parts: Any) -> httpx2.Request:
        try:
            request = self._client.build_request(method, url, **parts)
        except httpx2.InvalidURL:
            raise ConfigurationError("a broker address is not a URL; see the account's addresses") from None
        except UnicodeError:
            raise ConfigurationError(
                "a credential or address holds characters that HTTP cannot carry"
            ) from None
        request.url = _QuietURL(request.url)
        return request

    def _refuse_while_down(self, spec: Bucket, origin: str) -> None:
        wait = self._breaker.refuse_seconds(origin, now=self._clock.monotonic()) if spec.breaks else 0.0
        if wait > 0:
            raise BrokerUnreachableError(
                f"{origin} does not answer; next try in {wait:.1f} s", retry_after=wait
            )

    async def _take_turn(self, spec: Bucket, keys: Mapping[str, str]) -> None:
        delay = self._budgets.reserve(spec, keys=keys, now=self._clock.monotonic())
        if delay > 0:
            await self._sleep(delay)

    async def _exchange(
        self,
        request: httpx2.Request,
        *,
        origin: str,
        seconds: float,
        most_bytes: int,
    ) -> HttpReply:
        sent, began_ns = _SentMark(), self._clock.time_ns()
        request.extensions = {
            **request.extensions,
            "trace": sent,
            "timeout": httpx2.Timeout(seconds, connect=seconds * _CONNECT_SHARE).as_dict(),
        }
        try:
            async with asyncio.timeout(seconds):
                reply = await self._read(request, most_bytes=most_bytes)
        except (TimeoutError, httpx2.TransportError) as error:
            self._breaker.failed(origin, now=self._clock.monotonic())
            arrived = sent.mark and not isinstance(error, _UNSENT)
            raise BrokerUnreachableError(_what_happened(origin, error, seconds), sent=arrived) from None
        except httpx2.DecodingError:
            raise ProtocolViolationError(f"{origin} sent a body that cannot be decompressed") from None
        if reply.status in _FAULTS:
            self._breaker.failed(origin, now=self._clock.monotonic())
        else:
            self._breaker.heard(origin)
        if reply.date is not None:
            self._offsets[origin] = observe(
                self._offsets.get(origin),
                told=reply.date.timestamp(),
                sent=began_ns / 1e9,
                received=reply.received_ns / 1e9,
                at=self._clock.monotonic(),
            )
        return reply

    async def _read(self, request: httpx2.Request, *, most_bytes: int) -> HttpReply:
        response = await self._client.send(request, stream=True, follow_redirects=False)
        try:
            body = await _capped(response, most_bytes)
        finally:
            await response.aclose()
        return HttpReply(
            status=response.status_code,
            headers={name.lower(): value for name, value in response.headers.items()},
            body=body,
            content_type=response.headers.get("content-type", "").partition(";")[0].strip().lower(),
            received_ns=self._clock.time_ns(),
            date=http_date(response.headers.get("date", "")),
        )

    def _too_many(
        self, reply: HttpReply, spec: Bucket, keys: Mapping[str, str], origin: str
    ) -> RateLimitedError:
        asked = retry_after_seconds(reply.headers.get("retry-after", ""), now=self._clock.now())
        pause = min(_DEFAULT_PENALTY if asked is None else asked, _LONGEST_PENALTY)
        self._budgets.close(spec, keys=keys, until=self._clock.monotonic() + pause)
        return RateLimitedError(f"{origin} refuses more calls for now (429)", retry_after=pause)


def open_client(*, connections: int = 100) -> httpx2.AsyncClient:
    """Open the client that `BrokerHttp` wants: TLS verified, no redirects, no cookies, no ambient proxy.

    Cookies are refused because one client serves many accounts.
    """
    return httpx2.AsyncClient(
        verify=True,
        follow_redirects=False,
        trust_env=False,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        limits=httpx2.Limits(
            max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=45
        ),
        headers={"user-agent": "orderwire"},
    )


def retry_after_seconds(text: str, *, now: datetime) -> float | None:
    """Read a Retry-After header: seconds or a date; None when absent or nonsense."""
    if text.strip().isascii() and text.strip().isdigit():
        return float(text.strip()[:6])
    until = http_date(text)
    return None if until is None else max(0.0, (until - now) / timedelta(seconds=1))


def http_date(text: str) -> datetime | None:
    """Read an HTTP date as an aware time; None when absent or nonsense."""
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _origin(url: httpx2.URL) -> str:
    return f"{url.scheme}://{url.netloc.decode()}"


class _QuietURL(httpx2.URL):
    """A URL whose text, which the client logs, stops before the query: tokens travel there."""

    def __str__(self) -> str:
        return super().__str__().partition("?")[0]


class _SentMark:
    """Learns from the connection whether the request began to leave."""

    def __init__(self) -> None:
        self.mark = False

    async def __call__(self, name: str, _details: Mapping[str, Any]) -> None:
        if name.endswith("send_request_headers.started"):
            self.mark = True


async def _capped(response: httpx2.Response, most_bytes: int) -> bytes:
    body = bytearray()
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) > most_bytes:
            raise ProtocolViolationError(f"a reply is larger than {most_bytes} bytes", raw=bytes(body[:256]))
    return bytes(body)


def _what_happened(origin: str, error: Exception, seconds: float) -> str:
    if isinstance(error, TimeoutError | httpx2.TimeoutException):
        return f"{origin} did not answer within {seconds:g} s"
    if isinstance(error, httpx2.ConnectError):
        return f"{origin} cannot be reached: {error}"
    return f"the connection to {origin} broke ({type(error).__name__})"
