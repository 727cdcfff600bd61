"""Settings: read from the environment (`ORDERWIRE_…`) and a `.env` file, checked at start, all errors at once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from orderwire.errors import ConfigurationError


class Settings(BaseSettings):
    """Everything an operator may set. Each name is an environment variable with the prefix `ORDERWIRE_`."""

    model_config = SettingsConfigDict(env_prefix="ORDERWIRE_", env_file=".env", extra="ignore", frozen=True)

    data_dir: Path = Field(
        default=Path("orderwire-data"),
        description="Folder of the database, the sealing key and the logs; made by `orderwire init`.",
    )
    database_url: str = Field(
        default="",
        description="SQLAlchemy address of the database; empty: SQLite in the data folder.",
    )
    host: str = Field(default="127.0.0.1", description="Address the web server listens on.")
    port: int = Field(default=5080, ge=0, le=65535, description="Port the web server listens on.")
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
    log_level: str = Field(default="INFO", description="DEBUG, INFO, WARNING or ERROR.")
    log_json: bool = Field(default=False, description="One JSON object a line instead of readable text.")
    market_always_open: bool = Field(
        default=False,
        description="Poll and reconnect as in market hours whatever the clock says (simulators).",
    )

    @field_validator("allowed_origins", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("log_level")
    @classmethod
    def _known_level(cls, value: str) -> str:
        level = value.upper()
        if level not in {"DEBUG", "INFO", "WARNING", "ERROR"}:
            raise ValueError("use DEBUG, INFO, WARNING or ERROR")
        return level

    def as_environment(self) -> dict[str, str]:
        """Return an environment in which a child process has these settings, and everything else it needs."""
        mine = {
            f"ORDERWIRE_{name.upper()}": ",".join(value) if isinstance(value, tuple) else str(value)
            for name, value in self.model_dump().items()
        }
        return {**os.environ, **mine}

    @property
    def database(self) -> str:
        """The database's address, the default filled in."""
        return self.database_url or f"sqlite:///{(self.data_dir / 'orderwire.db').absolute()}"

    @property
    def url(self) -> str:
        """How a browser reaches the service."""
        return self.public_url.rstrip("/") or f"http://{self.host}:{self.port}"


def load(**overrides: Any) -> Settings:
    """Read the settings; `overrides` (None left out) win over the environment.

    Raises ConfigurationError naming every wrong setting and its variable.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        lines = [f"ORDERWIRE_{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors()]
        raise ConfigurationError("; ".join(lines)) from error
