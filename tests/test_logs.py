import io
import logging

import pytest
import structlog

from orderwire.logs import Redaction, set_up
from orderwire.store.sealing import Keyring


@pytest.fixture
def restored():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:], root.level = handlers, level


@pytest.mark.parametrize(
    "field", ["api_secret", "access_token", "Authorization", "password", "apikey", "api_key"]
)
def test_a_secret_field_is_blanked_whatever_it_holds(field):
    assert Redaction()(None, "info", {field: "value"}) == {field: "[redacted]"}


def test_a_secret_inside_a_url_is_blanked():
    event = Redaction()(None, "info", {"url": "wss://x/?api_key=abc&access_token=def&v=3"})

    assert event["url"] == "wss://x/?api_key=[redacted]&access_token=[redacted]&v=3"


def test_a_registered_value_is_blanked_wherever_it_stands():
    redaction = Redaction()
    redaction.register(["s3cr3t-value"])

    event = redaction(None, "info", {"error": "bad s3cr3t-value", "more": {"deep": ["a s3cr3t-value"]}})

    assert "s3cr3t-value" not in str(event)


def test_what_was_ever_sealed_opened_or_issued_is_concealed(capsys, restored):
    set_up()
    ring = Keyring(keys={"k1": bytes(32)}, newest="k1")
    sealed = ring.seal("s3cr3t-value", account="a", field="f")
    ring.open(sealed, account="a", field="f")

    structlog.get_logger("t").warning("it said s3cr3t-value", more="s3cr3t-value")

    assert "s3cr3t-value" not in capsys.readouterr().err


def test_tracebacks_are_redacted_too(capsys, restored):
    set_up().register(["s3cr3t-value"])

    def leak():
        raise ValueError("s3cr3t-value")

    try:
        leak()
    except ValueError:
        structlog.get_logger("t").exception("failed")
        logging.getLogger("lib").exception("failed in a library")

    said = capsys.readouterr().err
    assert "ValueError" in said
    assert "failed in a library" in said
    assert "s3cr3t-value" not in said


def test_a_logger_used_once_goes_on_when_standard_error_is_replaced(monkeypatch, restored):
    first, second = io.StringIO(), io.StringIO()
    monkeypatch.setattr("sys.stderr", first)
    set_up()
    log = structlog.get_logger("kept")
    log.warning("before")
    first.close()
    monkeypatch.setattr("sys.stderr", second)

    log.warning("after")
    logging.getLogger("other").warning("theirs")

    assert "after" in second.getvalue()
    assert "theirs" in second.getvalue()
