"""The image's health check, ``python -m connector.admin.liveness``: whether the connector in this container is alive.

It requests ``/livez`` from the operations listener, with TLS if the listener uses TLS. The settings are those of the
container's first process: the environment, and the file that its ``--config`` names.
"""

import ssl
import sys
import urllib.request
from itertools import pairwise
from pathlib import Path
from typing import Final

from connector.errors import ConfigurationError
from connector.settings import Operations, Settings

_TIMEOUT_SECONDS: Final = 4.0  # below the timeout of the image's HEALTHCHECK, which would show no reason
_SETTINGS: Final = ("operations.host", "operations.port", "operations.tls_certificate", "operations.tls_key")
_FIRST_PROCESS: Final = Path("/proc/1/cmdline")
_CONFIG: Final = "--config"
_SAME_MACHINE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def url(operations: Operations) -> str:
    """Return the address of ``/livez``, as this machine reaches it."""
    scheme = "http" if operations.tls_certificate is None else "https"
    host = _SAME_MACHINE.get(operations.host, operations.host)
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{operations.port}/livez"


def config_of(command: Path) -> Path | None:
    """Return the file that a process was given with ``--config``, or None.

    Args:
        command: The process's ``cmdline`` in ``/proc``.
    """
    # A health check is a process of its own, without the arguments of the container's command.
    words = command.read_text(encoding="utf-8", errors="surrogateescape").split("\0") if command.exists() else []
    for word, following in pairwise(words):
        name, _, value = word.partition("=")
        if name == _CONFIG:
            return Path(value or following)
    return None


def failure(operations: Operations) -> str:
    """Return why the connector is not alive, or an empty text if it is."""
    unverified = ssl.create_default_context()  # the certificate names the host that others use
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    try:
        urllib.request.urlopen(url(operations), timeout=_TIMEOUT_SECONDS, context=unverified).close()  # noqa: S310 - ours, http
    except (OSError, ValueError) as error:  # of urllib, ssl and the socket; 503 where a part has stopped
        return f"{url(operations)}: {error}"
    return ""


def main(first_process: Path = _FIRST_PROCESS) -> int:
    """Return 0 if the connector is alive; otherwise write the reason to standard error and return 1."""
    try:
        # Only these: a check needs neither the secrets nor the files that other settings name.
        reason = failure(Settings.load(file=config_of(first_process), only=_SETTINGS).operations)
    except ConfigurationError as error:
        reason = error.message
    if reason:
        sys.stderr.write(f"{reason}\n")
    return bool(reason)


if __name__ == "__main__":
    sys.exit(main())
