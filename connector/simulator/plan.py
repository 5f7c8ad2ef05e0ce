"""The plan of a simulation: all its options, checked once."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from connector.errors import ConfigurationError
from connector.simulator.shapes import Shape

DELIVER_PATH: Final = "/messageDeliver"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The options of one simulation; raises ``ConfigurationError`` if an option makes no sense.

    Attributes:
        url: The whole address, or a base to which ``/messageDeliver`` is added.
        seed: The seed of the instances; the same seed plays the same ones.
        token: The bearer token; None: no credential.
        instances: The number of instances; None: no end.
        rate: Messages a second over all instances, reached after ``ramp_seconds``; 0: as fast as answers come.
        ramp_seconds: How long the rate rises from 0.
        seconds: The seconds after which nothing new is sent; None: no limit.
        shape: The shape of the request bodies.
        concurrency: The number of instances in flight.
        repeats: The share (0 to 1) of accepted messages that are sent again.
        overlaps: The share (0 to 1) of messages that are sent together with the next one of their instance.
        retries: The number of attempts that may follow the first one.
        timeout_seconds: How long one attempt may take.
        ledger: The file of the ledger; None: no ledger.
        start_ms: The start of the first instance in epoch milliseconds; None: a day ago.
        since_seconds: If set, instances start at any time within the last ``since_seconds``. Messages that would be in
            the future are not sent, so that some instances stay open.
    """

    url: str
    seed: int
    token: str | None = field(default=None, repr=False)
    instances: int | None = 20
    rate: float = 0.0
    ramp_seconds: float = 0.0
    seconds: float | None = None
    shape: Shape = Shape.TEXT
    concurrency: int = 64
    repeats: float = 0.0
    overlaps: float = 0.0
    retries: int = 5
    timeout_seconds: float = 10.0
    ledger: Path | None = None
    start_ms: int | None = None
    since_seconds: float | None = None

    def __post_init__(self) -> None:
        # The dataclass is frozen; this is its only attribute that is not kept as given.
        object.__setattr__(self, "url", deliver_url(self.url))
        _require("instances", fits=self.instances is None or self.instances >= 0, wanted="0 or more")
        _require("rate", fits=self.rate >= 0, wanted="0 or more messages a second")
        _require("ramp", fits=self.ramp_seconds == 0 or self.rate > 0, wanted="used together with a rate")
        _require("ramp", fits=self.ramp_seconds >= 0, wanted="0 or more seconds")
        _require("seconds", fits=self.seconds is None or self.seconds > 0, wanted="more than 0")
        _require("concurrency", fits=self.concurrency >= 1, wanted="1 or more instances")
        _require("repeats", fits=0 <= self.repeats <= 1, wanted="a share from 0 to 1")
        _require("overlaps", fits=0 <= self.overlaps <= 1, wanted="a share from 0 to 1")
        _require("since", fits=self.since_seconds is None or self.since_seconds >= 1, wanted="a time in the past")
        _require("retries", fits=self.retries >= 0, wanted="0 or more")
        _require("timeout", fits=self.timeout_seconds > 0, wanted="more than 0 seconds")


def deliver_url(url: str) -> str:
    """Return the address to send to; raises ``ConfigurationError`` if ``url`` is not an HTTP address."""
    try:
        parts = urlsplit(url)
        port_fits = parts.port is None or parts.port > 0
    except ValueError:
        port_fits = False
    _require("url", fits=port_fits and parts.scheme in {"http", "https"} and bool(parts.hostname), wanted=_AN_ADDRESS)
    _require("url", fits=not parts.query and not parts.fragment, wanted="an address without query or fragment")
    return urlunsplit(parts._replace(path=DELIVER_PATH)) if parts.path in {"", "/"} else url


_AN_ADDRESS: Final = "an address such as http://127.0.0.1:8080"


def _require(option: str, *, fits: bool, wanted: str) -> None:
    if not fits:
        raise ConfigurationError(f"--{option} must be {wanted}")
