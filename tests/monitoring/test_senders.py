import base64
import hashlib
import hmac

import pytest

from house import free_port
from monitoring.receiver import Receiver
from orderwire.core.webhooks import make_secret, signature
from orderwire.monitoring.senders import DeliveryError, notify, post

SECRET = "a-secret-of-the-receiver"


@pytest.fixture
def receiver(request):
    made = Receiver(*getattr(request, "param", ()))
    yield made
    made.close()


def send(receiver, **other):
    post(receiver.url, b'{"a":1}', **{"secret": SECRET, "message_id": "m1", "at": 1_700_000_000} | other)


def test_a_receiver_can_tell_who_sent_it_and_when(receiver):
    send(receiver)

    ((headers, body),) = receiver.taken
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()).decode()
    assert (headers["webhook-id"], headers["webhook-timestamp"]) == ("m1", "1700000000")
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert headers["content-type"] == "application/json"
    assert body == b'{"a":1}'


def test_the_signature_is_the_one_of_the_standard():
    """The example of the specification (github.com/standard-webhooks, libraries' own test)."""
    given = signature(
        b'{"test": 2432232314}',
        secret="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        message_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        at=1614265330,
    )

    assert given == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_secret_we_make_stands_for_its_bytes_and_an_operators_own_for_its_text():
    given = {"message_id": "m1", "at": 1}

    def by(key):
        return f"v1,{base64.b64encode(hmac.new(key, b'm1.1.{}', hashlib.sha256).digest()).decode()}"

    assert signature(b"{}", secret=make_secret(b"\x00\xff"), **given) == by(b"\x00\xff")
    assert signature(b"{}", secret="whsec_not base64", **given) == by(b"whsec_not base64")


@pytest.mark.parametrize(
    "other", [{"body": b"{}"}, {"secret": "another"}, {"message_id": "m2"}, {"at": 1_700_000_001}]
)
def test_whatever_is_changed_changes_the_signature(other):
    given = {"body": b'{"a":1}', "secret": SECRET, "message_id": "m1", "at": 1_700_000_000}

    def sign(body, **rest):
        return signature(body, **rest)

    assert sign(**given) != sign(**given | other)


@pytest.mark.parametrize(
    ("receiver", "permanent"),
    [((500,), False), ((429,), False), ((404,), True), ((302,), False)],
    indirect=["receiver"],
)
def test_what_a_receiver_refuses_is_not_delivered(receiver, permanent):
    with pytest.raises(DeliveryError) as caught:
        send(receiver)

    assert caught.value.permanent is permanent
    assert SECRET not in str(caught.value)


def test_nobody_there_is_a_delivery_that_may_be_tried_again():
    with pytest.raises(DeliveryError) as caught:
        post(f"http://127.0.0.1:{free_port()}/x?token=t", b"", secret=SECRET, message_id="m", at=1)

    assert not caught.value.permanent
    assert "token" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what Apprise imports
def test_people_are_told_by_apprise(receiver):
    address = receiver.url.replace("http://", "json://")
    notify([address], title="orderwire: QueueBacklog raised", body="2000 events", urgent=True)

    (told,) = receiver.bodies
    assert (told["title"], told["message"], told["type"]) == (
        "orderwire: QueueBacklog raised",
        "2000 events",
        "warning",
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_address_apprise_does_not_know_is_not_delivered():
    with pytest.raises(DeliveryError):
        notify(["nonsense"], title="t", body="b")
