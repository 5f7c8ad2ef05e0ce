"""Kafka's and librdkafka's words become one sentence that names the cause and stays the same."""

import pytest

from connector.kafka.explain import sentence, silence

REFUSED = (
    "ssl://127.0.0.1:1/bootstrap: Receive failed: error:0A000412:SSL routines::ssl/tls alert bad certificate: "
    "SSL alert number 42 (after 0ms in state APIVERSION_QUERY)"
)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("kafka:9092/1: Connect failed (after 12ms in state CONNECT)", "kafka:9092/1: Connect failed"),
        ("two\n lines", "two lines"),
        ("x" * 301, "x" * 299 + "…"),
        (
            "Must supply an unexpired token: now=17ms, exp=16ms",
            "Must supply an unexpired token; the one that came has expired: see the endpoint's clock",
        ),
    ],
)
def test_what_changes_each_time_is_left_out(words, expected):
    assert sentence(words, {}) == expected


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({}, "none is shown, name one in ssl.certificate.location"),
        ({"ssl.certificate.location": "/nowhere"}, "it cannot be read"),
        ({"ssl.certificate.pem": "no certificate"}, "it cannot be read"),
    ],
)
def test_a_certificate_of_ours_that_is_refused_is_looked_at(properties, expected):
    assert sentence(REFUSED, properties) == f"127.0.0.1:1 rejects our certificate: {expected}"


@pytest.mark.parametrize("place", ["127.0.0.1:1", "[::1]:1", "no-such-host.invalid:1"])
@pytest.mark.parametrize("properties", [{}, {"ssl.ca.location": "/nowhere"}, {"ssl.ca.pem": "no certificate"}])
def test_a_broker_that_cannot_be_asked_leaves_librdkafkas_words(place, properties):
    words = f"ssl://{place}/bootstrap: SSL handshake failed: certificate verify failed"

    assert sentence(words, properties) == words


def test_where_nothing_is_said_a_token_endpoint_is_named():
    assert not silence({})
    assert (
        silence({"sasl.oauthbearer.token.endpoint.url": "https://a/b"}) == "; perhaps no token comes from https://a/b"
    )
