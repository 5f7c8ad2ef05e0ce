"""Finds the address that a request comes from: the peer's, or the one that a trusted proxy reports. Pure."""

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, NamedTuple

from connector.values import Network

Address = IPv4Address | IPv6Address

FORWARDED_FOR: Final = b"x-forwarded-for"
ORIGIN: Final = "origin"
"""The key of the `Origin` in a connection's ASGI state."""


class Origin(NamedTuple):
    """What a connection says about its sender.

    Attributes:
        peer: The address that connected, or None if it is not known.
        certificate: The names in the client's certificate, which the listener has verified.
    """

    peer: str | None
    certificate: frozenset[str]


_WITH_PORT = re.compile(r"\[(?P<v6>[^\]]*)\](?::\d+)?|(?P<v4>[0-9.]+)(?::\d+)?")

NOWHERE: Final = Origin(None, frozenset())
"""The origin of a connection about which nothing is known."""


def client_address(peer: str | None, headers: Iterable[tuple[bytes, bytes]], trusted: Sequence[Network]) -> str | None:
    """The address of the sender, or None if it cannot be known.

    ``X-Forwarded-For`` is read from the right, because each proxy appends the address that called it. Everything to the
    left of the first address that is not a trusted proxy is the claim of that sender, and is ignored.

    Args:
        peer: The address that connected.
        headers: The request's headers in their order.
        trusted: The networks of the trusted proxies.
    """
    if not trusted or not is_within(peer, trusted):
        return peer  # anybody can send the header; it counts only if a trusted proxy does
    claimed = b",".join(value for name, value in headers if name == FORWARDED_FOR).decode("latin-1")
    for hop in reversed([_bare(hop) for hop in claimed.split(",") if hop.strip()]):
        if not is_within(hop, trusted):
            return hop
    return peer


def is_within(address: str | None, networks: Iterable[Network]) -> bool:
    """Whether an address is in one of the networks; a text that is not an address is in none."""
    parsed = _parsed(address)
    return parsed is not None and any(parsed in network for network in networks)


def _bare(hop: str) -> str:
    """The bare address of a hop: some proxies add the port, and brackets around an IPv6 address."""
    match = _WITH_PORT.fullmatch(hop.strip().strip('"'))
    return hop.strip() if match is None else match["v6"] or match["v4"]


def _parsed(address: str | None) -> Address | None:
    try:
        parsed = ip_address(address or "")
    except ValueError:
        return None
    # A dual-stack listener sees IPv4 senders as ::ffff:a.b.c.d.
    return (parsed.ipv4_mapped or parsed) if isinstance(parsed, IPv6Address) else parsed
