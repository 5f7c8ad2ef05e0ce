"""Signatures as the Standard Webhooks specification has them; its own library is the judge."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from connector.errors import Unauthenticated
from connector.receiver.signatures import MAX_SIGNATURES, Signature
from connector.settings.signing_secrets import WINDOW_SECONDS, secret_bytes

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
WEBHOOK_ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
TIME = 1614265330
BODY = b'{"test": 2432232314}'
SIGNED = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def verify(signatures=SIGNED, body=BODY, *, webhook_id=WEBHOOK_ID, timestamp=str(TIME), secrets=(SECRET,)):
    Signature(webhook_id, timestamp, signatures).verify(body, [secret_bytes(one) for one in secrets])


def test_the_specification_s_vector_is_verified():
    verify()
    assert Webhook(SECRET).sign(WEBHOOK_ID, datetime.fromtimestamp(TIME, UTC), BODY.decode()) == SIGNED


@pytest.mark.parametrize(
    "changed",
    [
        {"body": BODY + b" "},
        {"webhook_id": WEBHOOK_ID + "x"},
        {"timestamp": str(TIME + 1)},
        {"secrets": ["whsec_" + "A" * 32]},
        {"secrets": []},
        {"signatures": SIGNED.replace("v1,", "v2,")},
        {"signatures": SIGNED.removeprefix("v1,")},
        {"signatures": ""},
        {"signatures": "v1,"},
        {"signatures": "v1,é"},
        {"signatures": "v1,####"},
        {"signatures": " ".join(["v1,AAAA"] * MAX_SIGNATURES + [SIGNED])},
    ],
)
def test_anything_else_is_not(changed):
    with pytest.raises(Unauthenticated) as caught:
        verify(**changed)

    assert caught.value.reason == "signature"


def test_one_of_several_signatures_and_secrets_is_enough():
    verify(f"v1a,xyz v1,#### {SIGNED}", secrets=["whsec_" + "A" * 32, SECRET])


@pytest.mark.parametrize(("text", "length"), [(SECRET, 24), ("whsec_QUJDRA", 4), ("whsec_QUJDRA==", 4)])
def test_a_secret_is_the_base64_behind_its_prefix(text, length):
    assert len(secret_bytes(text)) == length


@pytest.mark.parametrize("text", ["whsec_é", "whsec_####", "whsec_A"])
def test_what_is_no_base64_is_no_secret(text):
    with pytest.raises(ValueError, match="Base64"):
        secret_bytes(text)


@pytest.mark.parametrize("age", [0, WINDOW_SECONDS, -WINDOW_SECONDS])
def test_a_time_within_the_window_is_taken(age):
    Signature(WEBHOOK_ID, str(TIME), SIGNED).check_time(TIME + age)


@pytest.mark.parametrize("timestamp", ["", "x", "-1", "1e9", "9" * 400, "١", str(TIME - WINDOW_SECONDS - 1)])
def test_another_time_is_refused(timestamp):
    with pytest.raises(Unauthenticated) as caught:
        Signature(WEBHOOK_ID, timestamp, SIGNED).check_time(TIME)

    assert caught.value.reason == "timestamp"


@given(
    webhook_id=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=64),
    body=st.text(),
    secret=st.binary(min_size=24, max_size=64),
)
def test_what_the_library_signs_is_verified(webhook_id, body, secret):
    signed = Webhook(secret).sign(webhook_id, datetime.fromtimestamp(TIME, UTC), body)

    Signature(webhook_id, str(TIME), signed).verify(body.encode(), [secret])
