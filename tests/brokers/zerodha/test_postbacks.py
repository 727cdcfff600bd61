from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orderwire.brokers.zerodha.postbacks import MOST_POSTBACK_BYTES, postback_checksum, read_postback
from orderwire.errors import ProtocolViolationError

DATA = Path(__file__).resolve().parents[2] / "data" / "kite"
BODY = (DATA / "postback.json").read_bytes().strip()
GENUINE = json.loads(BODY)
SECRET = "API_SECRET"
VECTOR = "aa389e3f151b51d34809d96299463207da0353105274d9495bad54a38ec227c1"


def altered(**fields):
    return json.dumps({**GENUINE, **fields}).encode()


def signed(order_id, stamp, **fields):
    checksum = postback_checksum(order_id=str(order_id), order_timestamp=str(stamp), api_secret=SECRET)
    return altered(order_id=order_id, order_timestamp=stamp, checksum=checksum, **fields)


def without(name):
    return json.dumps({key: value for key, value in GENUINE.items() if key != name}).encode()


def nested(levels):
    return altered(meta=json.loads('{"a":' * levels + "1" + "}" * levels))


def test_the_checksum_is_the_published_one():
    checksum = postback_checksum(
        order_id="220303000308932", order_timestamp="2022-03-03 09:24:25", api_secret="API_SECRET"
    )

    assert checksum == VECTOR


def test_a_genuine_postback_becomes_a_hint():
    hint = read_postback(BODY, secrets=[SECRET])

    assert (hint.order_id, hint.broker_time) == ("220303000308932", "2022-03-03 09:24:25")
    assert hint.claims["status"] == "COMPLETE"
    assert hint.claims["average_price"] == "812.25"
    assert hint.claims["user_id"] == "OW1234"


@pytest.mark.parametrize("secrets", [["API_SECRET", "old"], ["new", "API_SECRET"], ["", "API_SECRET"]])
def test_during_a_rotation_either_secret_verifies(secrets):
    assert read_postback(BODY, secrets=secrets).order_id == "220303000308932"


@pytest.mark.parametrize("secrets", [[], [""], ["api_secret"], ["old", "older"]])
def test_no_other_secret_verifies(secrets):
    with pytest.raises(ProtocolViolationError, match="checksum is wrong"):
        read_postback(BODY, secrets=secrets)


def test_an_empty_secret_never_verifies_what_was_signed_with_it():
    checksum = postback_checksum(
        order_id="220303000308932", order_timestamp="2022-03-03 09:24:25", api_secret=""
    )

    with pytest.raises(ProtocolViolationError, match="checksum is wrong"):
        read_postback(altered(checksum=checksum), secrets=["", SECRET])


def test_characters_that_wander_between_the_fields_are_refused():
    shifted = altered(order_id="22030300030893", order_timestamp="22022-03-03 09:24:25")
    assert (
        postback_checksum(
            order_id="22030300030893", order_timestamp="22022-03-03 09:24:25", api_secret=SECRET
        )
        == VECTOR
    )

    with pytest.raises(ProtocolViolationError, match="order_timestamp"):
        read_postback(shifted, secrets=[SECRET])


def test_altered_claims_still_verify_which_is_why_they_are_only_claims():
    hint = read_postback(altered(status="REJECTED", filled_quantity=0, user_id="XX9999"), secrets=[SECRET])

    assert hint.claims["status"] == "REJECTED"


@pytest.mark.parametrize(
    "body",
    [
        signed("12345678", "2026-08-17 10:00:00"),
        signed("1" * 21, "2026-08-17 10:00:00"),
        signed("26081700000000\u0661", "2026-08-17 10:00:00"),
        signed("260817000000001 ", "2026-08-17 10:00:00"),
        signed("260817000000001\n", "2026-08-17 10:00:00"),
        signed(260817000000001, "2026-08-17 10:00:00"),
        signed("260817000000001", "2026-02-30 10:00:00"),
        signed("260817000000001", "2026-08-17 25:00:00"),
        signed("260817000000001", "2026-08-17T10:00:00"),
        signed("260817000000001", "2026-08-17 10:00:00\n"),
        signed("260817000000001", "2026-08-17 10:00:0\u0661"),
        signed("260817000000001", None),
        altered(checksum=VECTOR.upper()),
        altered(checksum=VECTOR[:-1]),
        altered(checksum=VECTOR + "\n"),
        altered(checksum=None),
        altered(checksum=[VECTOR]),
        altered(order_id="220303000308933"),
        altered(order_timestamp="2022-03-03 09:24:26"),
        without("order_id"),
        without("order_timestamp"),
        without("checksum"),
    ],
)
def test_a_field_of_another_form_is_refused(body):
    with pytest.raises(ProtocolViolationError):
        read_postback(body, secrets=[SECRET])


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "strict JSON"),
        (b"order_id=1&status=COMPLETE", "strict JSON"),
        (b"\xff\xfe" + BODY, "strict JSON"),
        (b"\xef\xbb\xbf" + BODY, "strict JSON"),
        (BODY + b"{}", "strict JSON"),
        (b"[" + BODY + b"]", "not a JSON object"),
        (b'"text"', "not a JSON object"),
        (b"null", "not a JSON object"),
        (BODY[:-1] + b',"status":"REJECTED"}', "strict JSON"),
        (BODY[:-1] + b',"meta":{"a":1,"a":2}}', "strict JSON"),
        (BODY.replace(b"812.25", b"NaN"), "strict JSON"),
        (BODY.replace(b"812.25", b"Infinity"), "strict JSON"),
        (BODY.replace(b"812.25", b"-Infinity"), "strict JSON"),
        (BODY.replace(b"812.25", b"1e999999999"), "strict JSON"),
        (BODY.replace(b"812.25", b"9" * 5000), "strict JSON"),
        (BODY.replace(b"812.25", b"1." + b"9" * 5000), "strict JSON"),
        (nested(6), "too deeply"),
        (b'{"a":' * 60_000, "larger than"),
        (b'{"a":' * 10_000, "too deeply"),
        (b"[" * 10_000, "too deeply"),
        (b"{" + b" " * MOST_POSTBACK_BYTES + BODY[1:], "larger than"),
    ],
)
def test_a_body_that_is_not_perfect_is_refused(body, why):
    with pytest.raises(ProtocolViolationError, match=why):
        read_postback(body, secrets=[SECRET])


def test_a_body_as_large_and_as_deep_as_a_real_one_may_be_passes():
    body = altered(meta={"iceberg": {"leg": 1, "legs": 5}}, tags=["a", "b"], status_message="[1] {2}")
    padded = body + b" " * (MOST_POSTBACK_BYTES - len(body))

    assert read_postback(padded, secrets=[SECRET]).order_id == "220303000308932"


def test_claims_are_always_text_that_can_be_stored():
    body = BODY.replace(b'"COMPLETE"', b'"\\ud800\\u0000x"')

    hint = read_postback(body, secrets=[SECRET])

    assert hint.claims["status"].encode() == b"??x"


def test_a_refusal_says_nothing_of_the_body():
    with pytest.raises(ProtocolViolationError) as caught:
        read_postback(altered(order_id="not-an-id-OW1234"), secrets=[SECRET])

    assert "OW1234" not in str(caught.value)
    assert caught.value.raw == b""


@given(st.binary(max_size=400))
def test_no_bytes_make_it_raise_anything_but_a_violation(body):
    with pytest.raises(ProtocolViolationError):
        read_postback(body, secrets=[SECRET])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(sorted(GENUINE)), json_values, max_size=6))
def test_no_alteration_of_a_genuine_body_makes_it_raise_anything_but_a_violation(fields):
    with contextlib.suppress(ProtocolViolationError):
        hint = read_postback(altered(**fields), secrets=[SECRET])
        assert hint.order_id == "220303000308932"


@given(st.data())
def test_no_flipped_byte_of_id_time_or_checksum_verifies(data):
    field = data.draw(st.sampled_from(["order_id", "order_timestamp", "checksum"]))
    value = GENUINE[field]
    place = data.draw(st.integers(0, len(value) - 1))
    other = data.draw(st.characters().filter(lambda letter: letter != value[place]))

    with pytest.raises(ProtocolViolationError):
        read_postback(altered(**{field: value[:place] + other + value[place + 1 :]}), secrets=[SECRET])
