"""When the connector's own certificates expire: of its listeners, and those that it shows to Kafka and the registry."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import structlog
from cryptography import x509

from connector.settings import Settings
from connector.telemetry.metrics import Metrics

LOOK_SECONDS: Final = 60.0
"""How often the certificates are read."""

_LOG = structlog.get_logger()


async def watch_certificates(settings: Callable[[], Settings], metrics: Metrics) -> None:
    """Show when each certificate expires, with every one that comes in its place."""
    while True:
        for use, moment in await asyncio.to_thread(expiries, settings()):
            metrics.certificate_expiry.labels(use).set(moment)
        await asyncio.sleep(LOOK_SECONDS)


def expiries(settings: Settings) -> list[tuple[str, float]]:
    """What each certificate is used for, and when the first of its file expires, in seconds since the epoch.

    A file that cannot be read is left out: whoever uses it says so.
    """
    found = []
    for use, pem in _certificates(settings):
        try:
            chain = x509.load_pem_x509_certificates(pem() if callable(pem) else pem)
        except (OSError, ValueError) as error:
            _LOG.debug("a certificate cannot be read", use=use, error=type(error).__name__)
            continue
        found.append((use, min(one.not_valid_after_utc.timestamp() for one in chain)))
    return found


def _certificates(settings: Settings) -> Iterator[tuple[str, bytes | Callable[[], bytes]]]:
    properties = settings.kafka.properties
    files = {
        "receiver": settings.receiver.tls_certificate,
        "operations": settings.operations.tls_certificate,
        "registry": settings.registry.certificate_location,
        "kafka": properties.get("ssl.certificate.location"),
    }
    for use, file in files.items():
        if file:
            yield use, Path(str(file)).read_bytes
    if properties.get("ssl.certificate.pem"):
        yield "kafka", str(properties["ssl.certificate.pem"]).encode()
