"""Reports when the connector's certificates expire: the listeners', and those for Kafka and the registry."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import structlog
from cryptography import x509

from connector.settings import Settings
from connector.telemetry.metrics import Metrics

LOOK_SECONDS: Final = 60.0
"""Seconds between two readings of the certificates."""

_LOG = structlog.get_logger()


async def watch_certificates(settings: Callable[[], Settings], metrics: Metrics) -> None:
    """Show when each certificate expires, also after it was replaced, until cancelled."""
    while True:
        for use, moment in await asyncio.to_thread(expiries, settings()):
            metrics.certificate_expiry.labels(use).set(moment)
        await asyncio.sleep(LOOK_SECONDS)


def expiries(settings: Settings) -> list[tuple[str, float]]:
    """What each certificate file is used for, and when its first certificate expires, in seconds since the epoch.

    A file that cannot be read is left out: the part that uses it reports the problem.
    """
    moments = []
    for use, pem in _certificates(settings):
        try:
            chain = x509.load_pem_x509_certificates(pem() if callable(pem) else pem)
        except (OSError, ValueError) as error:
            _LOG.debug("a certificate cannot be read", use=use, error=type(error).__name__)
            continue
        # The earliest of the chain: with an expired intermediate the whole file is useless.
        moments.append((use, min(certificate.not_valid_after_utc.timestamp() for certificate in chain)))
    return moments


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
