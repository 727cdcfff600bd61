"""Settings: read from the environment (`ORDERWIRE_…`) and a `.env` file, checked at start, all errors at once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from orderwire.errors import ConfigurationError

SHORTEST_SECRET = 16
"""Characters of the secret that a host and the service share."""


class Settings(BaseSettings):
    """Everything an operator may set. `variable` says which environment variable each one is."""

    model_config = SettingsConfigDict(
        env_prefix="ORDERWIRE_", env_file=".env", extra="ignore", frozen=True, populate_by_name=True
    )

    data_dir: Path = Field(
        default=Path("orderwire-data"),
        description="Folder of the database, the sealing key and the logs; made by `orderwire init`.",
    )
    database_url: str = Field(
        default="",
        validation_alias=AliasChoices("ORDERWIRE_DATABASE_URL", "DATABASE_URL"),
        description="SQLAlchemy address of the database (also DATABASE_URL); empty: SQLite in the data folder.",
    )
    redis_url: str = Field(
        default="",
        repr=False,
        validation_alias=AliasChoices("ORDERWIRE_REDIS_URL", "REDIS_URL"),
        description="Address of Redis (also REDIS_URL), the bus between several processes; empty: they look in the database.",
    )
    host: str = Field(default="127.0.0.1", description="Address the web server listens on.")
    port: int = Field(default=5080, ge=0, le=65535, description="Port the web server listens on.")
    subscriptions_port: int = Field(
        default=0,
        ge=0,
        le=65535,
        description="A further port for OpenAlgo's order subscription alone (its SDK dials 8765); 0: none, "
        "the web server's own port serves it too.",
    )
    public_url: str = Field(
        default="",
        description="How browsers reach us, e.g. https://orders.example.in; empty: http://host:port.",
    )
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Further web origins that may open the Socket.IO stream, separated by commas.",
    )
    trusted_proxies: int = Field(
        default=0,
        ge=0,
        le=5,
        description="How many reverse proxies in front of us set X-Forwarded-* headers.",
    )
    clients: int = Field(default=200, ge=1, description="Browsers served at once; sizes the thread pool.")
    keep_days: int = Field(
        default=90,
        ge=0,
        le=36_500,
        description="Session days kept besides today's; live orders and the audit stay. 0 keeps everything.",
    )
    private_targets: bool = Field(
        default=False,
        description="Users may have notifications sent to this machine and its network (webhooks on 127.0.0.1).",
    )
    host_url: str = Field(
        default="",
        description="The host application (OpenAlgo) whose mounted part is told of changes by signed webhooks.",
    )
    host_secret: SecretStr = Field(
        default=SecretStr(""), description="Secret of those webhooks; the host is given the same."
    )
    leave_with_parent: bool = Field(
        default=False,
        description="Stop when standard input ends: set by the mounted part for the service it starts.",
    )
    log_level: str = Field(default="INFO", description="DEBUG, INFO, WARNING or ERROR.")
    log_json: bool = Field(default=False, description="One JSON object a line instead of readable text.")
    use_event_driven_orders: bool = Field(
        default=True,
        validation_alias="USE_EVENT_DRIVEN_ORDERS",
        description="Master switch of real-time updates, read at start; false wins over everything.",
    )
    flag_provider: Literal["database", "flagd", "unleash"] = Field(
        default="database",
        description="Where the rollout's share is decided: database (ours), flagd or unleash (extras).",
    )
    unleash_url: str = Field(
        default="", description="Address of Unleash's client API (flag provider unleash)."
    )
    unleash_token: SecretStr = Field(default=SecretStr(""), description="Unleash's client token.")
    guard: Literal["off", "step down", "kill"] = Field(
        default="off",
        description="What the guard does when the pilot hurts for minutes: off, step down or kill.",
    )
    guard_latency_p95: float = Field(
        default=1.0, gt=0, description="Guard: seconds from placing to paint, p95 of a minute."
    )
    guard_error_rate: float = Field(default=0.01, ge=0, le=1, description="Guard: errors per event.")
    guard_disconnects: float = Field(
        default=6.0, ge=0, description="Guard: stream disconnections an hour and account, over 30 minutes."
    )
    guard_minutes: int = Field(
        default=5, ge=1, description="Guard: minutes in a row that must be too slow or err too often."
    )
    market_always_open: bool = Field(
        default=False,
        description="Poll and reconnect as in market hours whatever the clock says (simulators).",
    )

    market_calendar: Path | None = Field(
        default=None,
        description="JSON file with the exchanges' hours and holidays; empty: the list of this release.",
    )

    metrics_port: int = Field(
        default=0,
        ge=0,
        le=65535,
        description="Port on which Prometheus and probes are answered without a login, on the same host; 0: none.",
    )
    alert_urls: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        repr=False,
        description="Apprise addresses the operator is told of alerts at, separated by commas.",
    )
    alert_webhook: str = Field(default="", description="URL that alerts are posted to, signed.")
    alert_webhook_secret: SecretStr = Field(
        default=SecretStr(""), description="Secret of the signature (Standard Webhooks, HMAC-SHA256)."
    )
    alert_limits: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Other limits for alerts, e.g. QueueBacklog=2000,SlowProcessing=0.2; see docs/runbook.md.",
    )
    alert_pace: float = Field(
        default=1.0, gt=0, description="Stretches every duration of the alerts; below 1 for drills."
    )

    @field_validator("allowed_origins", "alert_urls", "alert_limits", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("alert_limits")
    @classmethod
    def _numbers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            name, _, limit = text.partition("=")
            if not name or not limit.replace(".", "", 1).isdigit():
                raise ValueError(f"{text!r} is not Name=number")
        return value

    @model_validator(mode="after")
    def _signed(self) -> Settings:
        if self.alert_webhook and not self.alert_webhook_secret.get_secret_value():
            raise ValueError("ORDERWIRE_ALERT_WEBHOOK needs ORDERWIRE_ALERT_WEBHOOK_SECRET")
        if self.host_url and len(self.host_secret.get_secret_value()) < SHORTEST_SECRET:
            raise ValueError(
                f"ORDERWIRE_HOST_URL needs ORDERWIRE_HOST_SECRET of {SHORTEST_SECRET} characters or more, the host too"
            )
        return self

    @field_validator("market_calendar", mode="before")
    @classmethod
    def _none_when_empty(cls, value: Any) -> Any:
        return value or None

    @field_validator("log_level")
    @classmethod
    def _known_level(cls, value: str) -> str:
        level = value.upper()
        if level not in {"DEBUG", "INFO", "WARNING", "ERROR"}:
            raise ValueError("use DEBUG, INFO, WARNING or ERROR")
        return level

    def as_environment(self) -> dict[str, str]:
        """Return an environment in which a child process has these settings, and everything else it needs."""
        mine = {variable(name): _as_text(value) for name, value in self.model_dump().items()}
        return {**os.environ, **mine}

    @property
    def database(self) -> str:
        """The database's address, the default filled in."""
        return self.database_url or f"sqlite:///{(self.data_dir / 'orderwire.db').absolute()}"

    @property
    def url(self) -> str:
        """How a browser reaches the service."""
        return self.public_url.rstrip("/") or f"http://{self.host}:{self.port}"


class MountSettings(BaseSettings):
    """What the part mounted in a host application (OpenAlgo) reads of that application's environment."""

    model_config = SettingsConfigDict(
        env_prefix="ORDERWIRE_", env_file=".env", extra="ignore", frozen=True, populate_by_name=True
    )

    mount: Literal["inside", "beside"] = Field(
        default="inside",
        description="inside: the host starts the service and stops it; beside: the service is started by somebody else.",
    )
    data_dir: Path = Field(
        default=Path("orderwire-data"),
        description="The service's data folder; its control socket there is how the two speak.",
    )
    python: Path | None = Field(
        default=None,
        description="The Python that runs the service, where it is installed apart from the host; empty: the host's.",
    )
    host_secret: SecretStr = Field(
        default=SecretStr(""),
        description="Beside: secret of the service's webhooks; without it the control socket is used.",
    )
    host_user: str = Field(default="", description="The host's user; empty: as the host says.")
    take_over: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Brokers whose postbacks to the host's own address go to the service, e.g. zerodha.",
    )
    broker_addresses: Annotated[dict[str, str], NoDecode] = Field(
        default={},
        description="Addresses of the broker that differ from the usual: base=https://…,name=value.",
    )
    order_updates_enabled: str = Field(
        default="TRUE",
        validation_alias="ORDER_UPDATES_ENABLED",
        description="The host's own: its order feeds are on unless FALSE.",
    )
    broker_api_key: SecretStr = Field(
        default=SecretStr(""),
        validation_alias="BROKER_API_KEY",
        description="The host's own: the broker app's key.",
    )
    broker_api_secret: SecretStr = Field(
        default=SecretStr(""),
        validation_alias="BROKER_API_SECRET",
        description="The host's own: the broker app's secret.",
    )
    flask_debug: str = Field(default="", validation_alias="FLASK_DEBUG", description="The host's own.")
    werkzeug_run_main: str = Field(
        default="",
        validation_alias="WERKZEUG_RUN_MAIN",
        description="Set by Werkzeug's reloader in what it runs.",
    )

    @field_validator("take_over", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip().lower() for part in value.split(",") if part.strip())
        return value

    @field_validator("broker_addresses", mode="before")
    @classmethod
    def _pairs(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        pairs = [part.partition("=") for part in value.split(",") if part.strip()]
        if any(not equals for _, equals, _ in pairs):
            raise ValueError("write name=value, separated by commas")
        return {name.strip(): address.strip() for name, _, address in pairs}

    def child_environment(self) -> dict[str, str]:
        """Return the environment of the service that the host starts: it leaves when the host does."""
        return {
            **os.environ,
            "ORDERWIRE_DATA_DIR": str(self.data_dir.absolute()),
            "ORDERWIRE_LEAVE_WITH_PARENT": "true",
        }


def load_mount(**overrides: Any) -> MountSettings:
    """Read what the mounted part needs. Raises ConfigurationError as `load` does."""
    try:
        return MountSettings(**overrides)
    except ValidationError as error:
        raise ConfigurationError(_told(error)) from error


def load(**overrides: Any) -> Settings:
    """Read the settings; `overrides` (None left out) win over the environment.

    Raises ConfigurationError naming every wrong setting and its variable.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        raise ConfigurationError(_told(error)) from error


def _told(error: ValidationError) -> str:
    return "; ".join(
        ": ".join([*(variable(str(name)) for name in e["loc"][:1]), e["msg"]]) for e in error.errors()
    )


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    field = Settings.model_fields.get(name)
    if field is None:
        return name if name.isupper() else f"ORDERWIRE_{name.upper()}"
    alias = field.validation_alias
    first = alias.choices[0] if isinstance(alias, AliasChoices) else alias
    return str(first or f"ORDERWIRE_{name.upper()}")


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ",".join(value)
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)
