"""The options of a demo, and the settings and the plan that follow from them."""

import os
import socket
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from connector.settings import EMBEDDED, Settings, environment_name
from connector.simulator import Plan, Shape, runs

READABLE_RATE: Final = 20.0
"""Messages a second that people can follow."""

BRISK_RATE: Final = 50.0
"""Messages a second of a demo that has a number of instances and no end in time."""

_HOST: Final = "127.0.0.1"
_PORT: Final = 8080
_OPERATIONS_PORT: Final = 9464
_SHARE_FOR_SENDING: Final = 0.5
_SAMPLED_RUNS: Final = 20
_FEWEST_AT_ONCE: Final = 4
_MOST_AT_ONCE: Final = 64
_SHUTDOWN_SECONDS: Final = 5
_PROPERTIES: Final = environment_name("kafka.properties")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """One demo.

    Attributes:
        seed: The same seed plays the same instances.
        instances: How many in total; None: endless.
        rate: Messages a second, 0: as fast as possible; None chooses one.
        seconds: When it stops by itself; None: on a signal only.
        bootstrap_servers: Brokers as ``host:port``; None means the embedded broker.
        shape: Format of the request body.
        port: Port of the receiver; None: the default one if it is free, else any.
    """

    seed: int
    instances: int | None = None
    rate: float | None = None
    seconds: float | None = None
    bootstrap_servers: str | None = None
    shape: Shape = Shape.MIXED
    port: int | None = None

    @property
    def is_embedded(self) -> bool:
        """Whether the broker is in memory and ends with the demo."""
        return self.bootstrap_servers in (None, EMBEDDED)

    def settings(self, folder: Path) -> Settings:
        """The connector's settings, the journal in ``folder``.

        Of the user's environment only the Kafka properties count, and only for brokers of the user's.

        Raises:
            ConfigurationError: A property or an address is wrong.
        """
        of_kafka = {name: text for name, text in os.environ.items() if name.startswith(_PROPERTIES)}
        return Settings.load(
            environment={} if self.is_embedded else of_kafka,
            flags={
                "kafka.bootstrap_servers": self.bootstrap_servers or EMBEDDED,
                "receiver.host": _HOST,
                "receiver.port": _free_or_any(_PORT) if self.port is None else self.port,
                "receiver.shutdown_grace_seconds": _SHUTDOWN_SECONDS,
                "operations.host": _HOST,
                "operations.port": _free_or_any(_OPERATIONS_PORT),
                "journal.path": folder / "journal.db",
                "log.level": "warning",
            },
        )

    def plan(self, url: str) -> Plan:
        """What the simulated platform plays against the address ``url``.

        Raises:
            ConfigurationError: A number is out of range.
        """
        rate = self._chosen_rate() if self.rate is None else self.rate
        return Plan(
            url=url,
            seed=self.seed,
            instances=self.instances,
            rate=rate,
            seconds=self.seconds,
            shape=self.shape,
            concurrency=_instances_at_once(rate),
        )

    def _chosen_rate(self) -> float:
        if self.instances is None:
            return READABLE_RATE
        if self.seconds is None:
            return BRISK_RATE
        return max(READABLE_RATE, self._messages_expected(self.instances) / (self.seconds * _SHARE_FOR_SENDING))

    def _messages_expected(self, instances: int) -> float:
        """About how many messages so many instances have; exact where they are few."""
        lengths = [len(run.messages) for run in islice(runs(self.seed, instances, 0), _SAMPLED_RUNS)]
        return instances * sum(lengths) / max(len(lengths), 1)


def _instances_at_once(rate: float) -> int:
    """Enough instances to reach the rate at about two messages a second each."""
    if rate == 0:
        return _MOST_AT_ONCE
    return min(max(int(rate / 2), _FEWEST_AT_ONCE), _MOST_AT_ONCE)


def _free_or_any(port: int) -> int:
    """The port, or 0 (any free one) if it is in use."""
    try:
        socket.create_server((_HOST, port)).close()
    except OSError:
        return 0
    return port
