"""Asks the one feature flag, through OpenFeature: from our database by default, from flagd or Unleash when told."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import structlog
from openfeature import api
from openfeature.contrib.tools.flagd.core import FlagdCore
from openfeature.evaluation_context import EvaluationContext
from openfeature.event import ProviderEvent
from openfeature.exception import OpenFeatureError
from openfeature.flag_evaluation import FlagResolutionDetails, Reason
from openfeature.provider import AbstractProvider, FeatureProvider, Metadata

from orderwire.config import Settings
from orderwire.core.rollout import FLAG, Draw, Rollout, flags
from orderwire.errors import ConfigurationError

_log = structlog.get_logger(__name__)

_domains = itertools.count()
"""OpenFeature keeps providers by domain for the whole process; each asker gets its own."""


class DatabaseProvider(AbstractProvider):
    """An OpenFeature provider over flagd's own evaluation of flagd-format JSON that we hold; no server."""

    def __init__(self) -> None:
        super().__init__()
        self._core = FlagdCore()
        self.keep(Rollout(stage=0))

    def keep(self, rollout: Rollout) -> None:
        """Replace the flag. Any thread; whoever asks gets the old or the new one, whole."""
        self._core.set_flags(flags(rollout))

    def get_metadata(self) -> Metadata:
        return Metadata(name="orderwire database")

    def resolve_boolean_details(
        self, flag_key: str, default_value: bool, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[bool]:
        return self._core.resolve_boolean_value(flag_key, default_value, evaluation_context)

    def resolve_string_details(
        self, flag_key: str, default_value: str, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[str]:
        return self._core.resolve_string_value(flag_key, default_value, evaluation_context)

    def resolve_integer_details(
        self, flag_key: str, default_value: int, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[int]:
        return self._core.resolve_integer_value(flag_key, default_value, evaluation_context)

    def resolve_float_details(
        self, flag_key: str, default_value: float, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[float]:
        return self._core.resolve_float_value(flag_key, default_value, evaluation_context)

    def resolve_object_details(
        self,
        flag_key: str,
        default_value: Sequence[Any] | Any,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[Any]:
        return self._core.resolve_object_value(flag_key, default_value, evaluation_context)


def drawn_by(rollout: Rollout) -> Callable[[str], Draw]:
    """Return how users would be drawn under `rollout`, by our own provider and without asking the one in use."""
    provider = DatabaseProvider()
    provider.keep(rollout)

    def draw(user: str) -> Draw:
        answer = provider.resolve_boolean_details(FLAG, False, EvaluationContext(user))
        return Draw.IN if answer.value else Draw.OUT

    return draw


class Flag:
    """The flag as the code asks it: one question, three answers. Any thread."""

    def __init__(self, provider: FeatureProvider) -> None:
        """Ask `provider` from now on; one that needs a server gets ready by itself, until then nobody is drawn."""
        self._provider = provider
        domain = f"orderwire-{next(_domains)}"
        ours = isinstance(provider, DatabaseProvider)
        (api.set_provider_and_wait if ours else api.set_provider)(provider, domain)
        self._client = api.get_client(domain=domain)

    def draw(self, user: str, broker: str) -> Draw:
        """Say whether the user is in the share that is on; FAILED when the provider cannot say. Never raises."""
        about = EvaluationContext(targeting_key=user, attributes={"broker": broker})
        try:
            answer = self._client.get_boolean_details(FLAG, False, about)
        except OpenFeatureError as error:
            return _failed(str(error))
        if answer.error_code is not None or answer.reason == Reason.ERROR:
            return _failed(answer.error_message or str(answer.error_code))
        return Draw.IN if answer.value else Draw.OUT

    def keep(self, rollout: Rollout) -> None:
        """Tell the provider what the operators decided; one that is steered elsewhere takes no notice."""
        if isinstance(self._provider, DatabaseProvider):
            self._provider.keep(rollout)

    def on_change(self, heard: Callable[[], None]) -> None:
        """Call `heard` when the provider says that the flag changed, or that it can, or cannot, be read; its thread."""
        for event in (
            ProviderEvent.PROVIDER_READY,
            ProviderEvent.PROVIDER_CONFIGURATION_CHANGED,
            ProviderEvent.PROVIDER_ERROR,
            ProviderEvent.PROVIDER_STALE,
        ):
            self._client.add_handler(event, lambda _details: heard())

    def close(self) -> None:
        """Shut the provider down."""
        self._provider.shutdown()


def _failed(why: str) -> Draw:
    _log.warning("flag not readable", error=why)
    return Draw.FAILED


def open_provider(settings: Settings) -> FeatureProvider:
    """Make the provider that the settings name. Raises ConfigurationError when its package is not installed.

    flagd is reached as its own variables say (`FLAGD_HOST`, `FLAGD_PORT`, `FLAGD_RESOLVER` …).
    """
    return _MAKERS[settings.flag_provider](settings)


def _flagd(_settings: Settings) -> FeatureProvider:
    try:
        from openfeature.contrib.provider.flagd import FlagdProvider  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise _missing("flagd") from error
    return FlagdProvider()


def _unleash(settings: Settings) -> FeatureProvider:
    try:
        from openfeature.contrib.provider.unleash import UnleashProvider  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise _missing("unleash") from error
    if not settings.unleash_url:
        raise ConfigurationError("ORDERWIRE_FLAG_PROVIDER=unleash needs ORDERWIRE_UNLEASH_URL.")
    token = settings.unleash_token.get_secret_value()
    return UnleashProvider(url=settings.unleash_url, app_name="orderwire", api_token=token)


def _missing(extra: str) -> ConfigurationError:
    return ConfigurationError(
        f"ORDERWIRE_FLAG_PROVIDER={extra} needs a package that is not installed: pip install 'orderwire[{extra}]'."
    )


_MAKERS: Final[Mapping[str, Callable[[Settings], FeatureProvider]]] = MappingProxyType(
    {"database": lambda _settings: DatabaseProvider(), "flagd": _flagd, "unleash": _unleash}
)
