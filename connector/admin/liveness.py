"""Whether the connector in this container is alive; ``python -m connector.admin.liveness`` is the image's health check.

It asks ``/livez`` at the address of the operations listener, as the settings have it, by TLS if the listener uses TLS.
The settings are those of the container's first process: the environment, and the file that its ``--config`` names.
"""

import ssl
import sys
import urllib.request
from itertools import pairwise
from pathlib import Path
from typing import Final

from connector.errors import ConfigurationError
from connector.settings import Operations, Settings

_SECONDS: Final = 4.0
_NEEDED: Final = ("operations.host", "operations.port", "operations.tls_certificate", "operations.tls_key")
_FIRST_PROCESS: Final = Path("/proc/1/cmdline")
_CONFIG: Final = "--config"
_SAME_MACHINE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def url(operations: Operations) -> str:
    """The address of ``/livez``, as this machine reaches it."""
    scheme = "http" if operations.tls_certificate is None else "https"
    host = _SAME_MACHINE.get(operations.host, operations.host)
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{operations.port}/livez"


def config_of(command: Path) -> Path | None:
    """The file that a process was given by ``--config``; None if it was given none.

    Args:
        command: The process's ``cmdline`` in ``/proc``.
    """
    words = command.read_text(encoding="utf-8", errors="surrogateescape").split("\0") if command.exists() else []
    for word, following in pairwise(words):
        name, _, value = word.partition("=")
        if name == _CONFIG:
            return Path(value or following)
    return None


def failure(operations: Operations) -> str:
    """Why the connector is not alive; empty if it is."""
    unverified = ssl.create_default_context()  # the certificate names the host that others use
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    try:
        urllib.request.urlopen(url(operations), timeout=_SECONDS, context=unverified).close()  # noqa: S310 - ours, http
    except (OSError, ValueError) as error:  # of urllib, ssl and the socket; 503 where a part has stopped
        return f"{url(operations)}: {error}"
    return ""


def main(first_process: Path = _FIRST_PROCESS) -> int:
    """0 if it is alive, 1 if not, with the reason on standard error."""
    try:
        said = failure(Settings.load(file=config_of(first_process), only=_NEEDED).operations)
    except ConfigurationError as error:
        said = error.message
    if said:
        sys.stderr.write(f"{said}\n")
    return bool(said)


if __name__ == "__main__":
    sys.exit(main())
