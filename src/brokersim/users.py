"""Who may log in at the simulated brokers, with which secrets, and how much money they have.

The demo credentials are fixed and public (docs/brokersim.md); more users come through the control API.
Sessions and tokens are each broker's own business and not kept here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from enum import StrEnum
from typing import Final

from brokersim.orders import OrderSnapshot, OrderType, Side, Stage

DEMO_CASH: Final = Decimal(10_000_000)
DEMO_HOLDINGS: Final[Mapping[str, tuple[int, Decimal]]] = {
    "NSE:SBIN": (100, Decimal("781.35")),
    "NSE:INFY": (20, Decimal("1466.2")),
}
# Fraction of an order's value that must be there: all of it in cash, a fifth on margin.
_MARGIN_SHARE: Final = {"CNC": Decimal(1)}
_LEVERAGED_SHARE: Final = Decimal("0.2")

_BEFORE_RISK: Final = frozenset({Stage.AMO_RECEIVED, Stage.RECEIVED, Stage.VALIDATING})


class UnknownUserError(LookupError):
    """There is no such user."""


class Plan(StrEnum):
    """What a Kite app may do: the free plan has no WebSocket."""

    CONNECT = "connect"
    PERSONAL = "personal"


class XtsKind(StrEnum):
    """The three kinds of XTS login, which differ in the clientID rules."""

    INVESTOR = "investor"
    DEALER = "dealer"
    PRO = "pro"


@dataclass(frozen=True, slots=True, kw_only=True)
class KiteApp:
    """An app of Kite's developer console: one api_key, used by any number of users.

    `old_secret` is the one before the last regeneration: it signs nothing but forged postbacks. `allowed_ips`
    matters only while the static-IP rule is switched on.
    """

    api_key: str
    api_secret: str
    app_id: int
    redirect_url: str = "http://127.0.0.1/"
    postback_url: str = ""
    old_secret: str = ""
    plan: Plan = Plan.CONNECT
    allowed_ips: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class KiteUser:
    """A Zerodha client and the password of the login page."""

    user_id: str
    password: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class XtsLogin:
    """An XTS app key and who is behind it.

    `clients` are the client codes whose orders it may touch: the investor itself, a dealer's mapped clients, or
    a pro dealer's one own account. `login_id` is the userID of the session.
    """

    kind: XtsKind
    app_key: str
    secret_key: str
    login_id: str
    clients: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class Account:
    """One client's money at one broker, in rupees.

    `blocked` is what open orders hold, by order uid; `used` what positions hold; `holdings` are shares of
    earlier days, by contract key: quantity and average price. Written by one thread only.
    """

    broker: str
    user: str
    cash: Decimal = DEMO_CASH
    used: Decimal = Decimal(0)
    blocked: dict[str, Decimal] = field(default_factory=dict)
    holdings: Mapping[str, tuple[int, Decimal]] = field(default_factory=lambda: DEMO_HOLDINGS)

    @property
    def available(self) -> Decimal:
        """What is left for new orders."""
        return self.cash - self.used - sum(self.blocked.values(), Decimal(0))

    def follow(self, order: OrderSnapshot, price: Decimal, *, checked: bool = False) -> None:
        """Block what the unfilled part of an order needs once risk control let it pass, until it is done.

        With `checked` it has passed before it was booked.
        """
        passed = order.live and (checked or order.stage not in _BEFORE_RISK)
        if passed and order.side is Side.BUY:
            self.blocked[order.uid] = required(order, price=price, quantity=order.remaining)
        else:
            self.blocked.pop(order.uid, None)

    def book(self, order: OrderSnapshot, *, quantity: int, price: Decimal) -> None:
        """Move money for a fill: a purchase takes its margin, a sale gives it back."""
        amount = price * quantity * share(order.request.product) * order.instrument.multiplier
        self.used += amount if order.side is Side.BUY else -amount


def share(product: str) -> Decimal:
    """Give the fraction of an order's value that a product needs as margin."""
    return _MARGIN_SHARE.get(product, _LEVERAGED_SHARE)


def required(order: OrderSnapshot, *, price: Decimal, quantity: int | None = None) -> Decimal:
    """Compute the margin of an order in rupees; `price` is the market's, for orders without a limit.

    Selling needs none here: the simulator does not model short margins.
    """
    if order.side is Side.SELL:
        return Decimal(0)
    terms = order.terms
    at = terms.price if terms.type in {OrderType.LIMIT, OrderType.SL} else price
    units = terms.quantity if quantity is None else quantity
    return (at * units * order.instrument.multiplier * share(order.request.product)).quantize(Decimal("0.01"))


class Users:
    """Every app, login and account of both brokers."""

    def __init__(self) -> None:
        self.kite_apps: dict[str, KiteApp] = {}
        self.kite_users: dict[str, KiteUser] = {}
        self.xts_logins: dict[str, XtsLogin] = {}
        self.accounts: dict[tuple[str, str], Account] = {}

    def add_kite_app(self, app: KiteApp) -> None:
        """Register an app, or replace the one with its api_key."""
        self.kite_apps[app.api_key] = app

    def change_kite_app(self, api_key: str, **changes: object) -> KiteApp:
        """Change fields of an app. Raises UnknownUserError, TypeError for an unknown field."""
        if api_key not in self.kite_apps:
            raise UnknownUserError(api_key)
        app = self.kite_apps[api_key] = replace(self.kite_apps[api_key], **changes)  # type: ignore[arg-type]  # names and values come from the control API, which checks them
        return app

    def add_kite_user(self, user: KiteUser, *, cash: Decimal = DEMO_CASH) -> None:
        """Register a client with so much money."""
        self.kite_users[user.user_id] = user
        self._open("kite", user.user_id, cash)

    def add_xts_login(self, login: XtsLogin, *, cash: Decimal = DEMO_CASH) -> None:
        """Register an app key and open an account for each of its clients that has none."""
        self.xts_logins[login.app_key] = login
        for client in login.clients:
            self._open("xts", client, cash)

    def account(self, broker: str, user: str) -> Account:
        """Find a client's account. Raises UnknownUserError."""
        try:
            return self.accounts[broker, user]
        except KeyError:
            raise UnknownUserError(f"{broker}:{user}") from None

    def _open(self, broker: str, user: str, cash: Decimal) -> None:
        self.accounts.setdefault((broker, user), Account(broker=broker, user=user, cash=cash))


def demo_users() -> Users:
    """Create the documented demo apps, logins and clients."""
    users = Users()
    users.add_kite_app(KiteApp(api_key="demokite", api_secret="demokite-secret", app_id=1001))  # noqa: S106 - public demo secret
    users.add_kite_app(
        KiteApp(api_key="demofree", api_secret="demofree-secret", app_id=1002, plan=Plan.PERSONAL)  # noqa: S106 - public demo secret
    )
    users.add_kite_user(KiteUser(user_id="ZD0001", password="demo", name="Demo Trader"))  # noqa: S106 - public demo secret
    users.add_kite_user(KiteUser(user_id="ZD0002", password="demo", name="Second Trader"))  # noqa: S106 - public demo secret
    for kind, app_key, login_id, clients in _DEMO_XTS:
        users.add_xts_login(
            XtsLogin(
                kind=kind,
                app_key=app_key,
                secret_key=f"{app_key}-secret",
                login_id=login_id,
                clients=clients,
            )
        )
    return users


_DEMO_XTS: Final = (
    (XtsKind.INVESTOR, "demoxts", "JN0001", ("JN0001",)),
    (XtsKind.DEALER, "demodealer", "DLL01234", ("JD001", "JD002")),
    (XtsKind.PRO, "demopro", "ZZJ00001", ("PRO012",)),
)
