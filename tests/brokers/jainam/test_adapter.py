from __future__ import annotations

from importlib.metadata import entry_points

import pytest

from orderwire.brokers.adapter import AccountProfile, AdapterTools
from orderwire.brokers.jainam.adapter import PROP_B_LIMITS, JainamAdapter
from orderwire.clock import SystemClock
from orderwire.core.orders import AccountId
from orderwire.errors import ConfigurationError


def make(**addresses):
    profile = AccountProfile(
        account=AccountId("acc"), credentials={"app_key": "k", "secret_key": "s"}, addresses=addresses
    )
    return JainamAdapter(profile, AdapterTools(http=None, instruments=None, clock=SystemClock()))


def test_jainam_is_found_by_its_entry_point():
    (found,) = entry_points(group="orderwire.brokers", name="jainam")

    assert found.load() is JainamAdapter


def test_the_keys_alone_log_in():
    assert make().login_url(state="x") is None


def test_every_address_is_configuration_with_a_default_where_jainam_publishes_one():
    fields = {field.name: field.default for field in JainamAdapter.address_fields}

    assert fields["base"] == "https://jtrade.jainam.in:5000"
    assert (fields["interactive_path"], fields["market_path"]) == ("/interactive", "/apibinarymarketdata")
    assert fields["hostlookup"] == ""


def test_jainams_own_plain_hostlookup_address_needs_consent():
    with pytest.raises(ConfigurationError, match="allow-plaintext"):
        make(hostlookup="http://ctrade.jainam.in:4001/hostlookup")


def test_the_budgets_are_named_after_the_broker():
    assert set(JainamAdapter.budgets) == {f"jainam.{call}" for call in PROP_B_LIMITS}


def test_the_secrets_are_marked():
    secret = {field.name for field in JainamAdapter.credential_fields if field.secret}

    assert secret == {"secret_key", "market_secret_key"}
