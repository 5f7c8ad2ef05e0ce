"""The connector's settings: typed, immutable, and read from the environment nowhere else.

A flag wins over the environment, the environment over the file, and the file over the default.

- `connector.settings.models`: the settings; `connector.settings.types`: the types of their values.
- `connector.settings.load`: reads them; `connector.settings.parts`: reads variables that set a part of a setting.
- `connector.settings.librdkafka`: checks the properties of the Kafka clients.
- `connector.settings.signing_secrets`: the secrets of signed requests.
"""

from connector.settings.librdkafka import check_properties
from connector.settings.load import environment_name
from connector.settings.models import (
    Canary,
    Journal,
    Kafka,
    Log,
    Operations,
    Privacy,
    Receiver,
    Registry,
    Repeats,
    Settings,
    Source,
    Topics,
    Tracing,
)
from connector.settings.types import EMBEDDED, REDACTED, is_loopback
from connector.values import DEFAULT_SOURCE

__all__ = [
    "DEFAULT_SOURCE",
    "EMBEDDED",
    "REDACTED",
    "Canary",
    "Journal",
    "Kafka",
    "Log",
    "Operations",
    "Privacy",
    "Receiver",
    "Registry",
    "Repeats",
    "Settings",
    "Source",
    "Topics",
    "Tracing",
    "check_properties",
    "environment_name",
    "is_loopback",
]
