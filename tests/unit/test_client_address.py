"""Where a request comes from: a proxy's word counts only if the proxy is ours."""

from ipaddress import ip_network

import pytest

from connector.receiver.client_address import client_address, is_within

PROXIES = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


def client(peer, *forwarded, trusted=PROXIES):
    return client_address(peer, [(b"x-forwarded-for", each.encode("latin-1")) for each in forwarded], trusted)


@pytest.mark.parametrize(
    ("expected", "peer", "forwarded"),
    [
        ("203.0.113.9", "203.0.113.9", []),
        ("203.0.113.9", "203.0.113.9", ["192.0.2.1"]),  # no proxy of ours: its word is not read
        ("192.0.2.1", "10.0.0.1", ["192.0.2.1"]),
        ("192.0.2.1", "10.0.0.1", ["198.51.100.7, 192.0.2.1"]),  # what the sender claims of itself
        ("192.0.2.1", "10.0.0.1", ["192.0.2.1, 10.0.0.2"]),  # two proxies
        ("192.0.2.1", "10.0.0.1", ["198.51.100.7", "192.0.2.1"]),  # two headers are one list
        ("192.0.2.1", "fd00::1", ["192.0.2.1"]),
        ("192.0.2.1", "10.0.0.1", ["192.0.2.1:51234, 10.0.0.2:80"]),  # proxies that add the port
        ("2001:db8::9", "10.0.0.1", ["[2001:db8::9]:51234, [fd00::3]"]),
        ("2001:db8::9", "10.0.0.1", ['"[2001:db8::9]:51234"']),
        ("2001:db8::9", "10.0.0.1", ["2001:db8::9"]),
        ("10.0.0.1", "10.0.0.1", []),
        ("10.0.0.1", "10.0.0.1", [" , "]),
        ("unknown", "10.0.0.1", ["192.0.2.1, unknown"]),
        (None, None, ["192.0.2.1"]),
    ],
)
def test_the_sender_is_the_first_address_from_the_right_that_is_no_proxy_of_ours(expected, peer, forwarded):
    assert client(peer, *forwarded) == expected


@pytest.mark.parametrize(
    ("expected", "address"),
    [
        (True, "10.1.2.3"),
        (True, "::ffff:10.1.2.3"),
        (True, "fd00::2"),
        (False, "11.0.0.1"),
        (False, "unknown"),
        (False, None),
        (False, ""),
    ],
)
def test_an_address_is_within_a_network(expected, address):
    assert is_within(address, PROXIES) is expected
