"""The options of a demo, from which the connector's settings and the simulator's plan follow."""

import os
import socket
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from connector.settings import EMBEDDED, Settings, environment_name
from connector.simulator import Plan, Shape, runs

READABLE_RATE: Final = 20.0
"""Messages a second that people can follow on the screen."""

BRISK_RATE: Final = 50.0
"""Messages a second of a demo with a number of instances but no end in time."""

_HOST: Final = "127.0.0.1"
_PORT: Final = 8080
_OPERATIONS_PORT: Final = 9464
_SENDING_SHARE: Final = 0.5  # of the demo's seconds, in which all messages are to be sent
_SAMPLED_RUNS: Final = 20
_MIN_CONCURRENCY: Final = 4
_MAX_CONCURRENCY: Final = 64
_SHUTDOWN_SECONDS: Final = 5
_PROPERTIES: Final = environment_name("kafka.properties")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of one demo.

    Attributes:
        seed: The seed of the instances; the same seed plays the same ones.
        instances: The number of instances in total; None: no end.
        rate: Messages a second; 0: as fast as possible; None: chosen from the other options.
        seconds: The seconds after which the demo stops; None: it stops only on a signal.
        bootstrap_servers: The brokers as ``host:port``; None: the embedded broker.
        shape: The shape of the request bodies.
        port: The receiver's port; None: the default port if it is free, otherwise any free one.
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
        """Return the connector's settings, with the journal in ``folder``.

        Of the user's environment only the Kafka properties apply, and only to the user's own brokers.

        Raises:
            ConfigurationError: A property or an address is wrong.
        """
        kafka_properties = {name: text for name, text in os.environ.items() if name.startswith(_PROPERTIES)}
        return Settings.load(
            environment={} if self.is_embedded else kafka_properties,
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
        """Return the plan of the platform that is simulated against the address ``url``.

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
        return max(READABLE_RATE, self._messages_expected(self.instances) / (self.seconds * _SENDING_SHARE))

    def _messages_expected(self, instances: int) -> float:
        """Estimate the number of messages of some instances; exact for a few."""
        lengths = [len(run.messages) for run in islice(runs(self.seed, instances, 0), _SAMPLED_RUNS)]
        return instances * sum(lengths) / max(len(lengths), 1)


def _instances_at_once(rate: float) -> int:
    """Return enough instances to reach the rate at about two messages a second each."""
    if rate == 0:
        return _MAX_CONCURRENCY
    return min(max(int(rate / 2), _MIN_CONCURRENCY), _MAX_CONCURRENCY)


def _free_or_any(port: int) -> int:
    """Return the port, or 0 (any free one) if it is in use."""
    try:
        socket.create_server((_HOST, port)).close()
    except OSError:
        return 0
    return port
