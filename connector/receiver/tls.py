"""TLS of the listeners: reloads certificates when their files change, and reads the names in client certificates.

A connection uses the context that is current when its handshake begins; open connections keep theirs.
"""

import hashlib
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from connector.errors import ConfigurationError
from connector.values import FINGERPRINT

NO_NAMES: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of one listener.

    Attributes:
        certificate: The listener's certificate and the intermediate ones.
        key: The key, if it is not in the same file.
        client_authority: The CAs of client certificates; None means that clients are not asked for one.
        setting: The prefix of the settings that errors name, such as ``WEDA_RECEIVER``.
    """

    certificate: Path
    key: Path | None
    client_authority: Path | None
    setting: str

    @classmethod
    def of(
        cls, certificate: Path | None, key: Path | None, client_authority: Path | None, *, setting: str
    ) -> "TlsFiles | None":
        """The files of a listener; None for a listener with plain HTTP."""
        return None if certificate is None else cls(certificate, key, client_authority, setting)

    @property
    def all(self) -> tuple[Path, ...]:
        """Every file."""
        return tuple(path for path in (self.certificate, self.key, self.client_authority) if path is not None)


class ServerTls:
    """The TLS of a listener.

    Args:
        files: The files with certificate and key.

    Attributes:
        context: The listener's context, which hands each handshake over to the current one.

    Raises:
        ConfigurationError: A file cannot be read, or certificate and key do not match.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._current = _context(files)
        self._trusted, self._trusted_since = _trusted(files), 0.0
        self.context = _context(files)
        # A server keeps the context that it was started with; only this callback can replace it for a connection.
        self.context.sni_callback = self._hand_over

    def reload(self) -> None:
        """Read the files again; if that fails, the current context stays.

        Raises:
            ConfigurationError: A file cannot be read, or certificate and key do not match.
        """
        self._current = _context(self._files)
        if (trusted := _trusted(self._files)) != self._trusted:
            self._trusted, self._trusted_since = trusted, time.time()

    def _hand_over(self, connection: Any, _name: str | None, _context: ssl.SSLContext) -> int | None:
        """Use the current context; reject a session from before the CAs changed: resuming it verifies nothing."""
        connection.context = self._current
        if connection.session_reused and connection.session.time <= self._trusted_since:
            return ssl.ALERT_DESCRIPTION_BAD_CERTIFICATE
        return None


def names_of(connection: Any) -> frozenset[str]:
    """The names of a client in its verified certificate.

    These are the DNS names, URIs and mail addresses in subjectAltName, or the common name if there are none, and
    ``sha256:<fingerprint>`` in lower-case hex.

    Args:
        connection: The transport's ``ssl_object``, or None.
    """
    encoded = None if connection is None else connection.getpeercert(binary_form=True)
    if not encoded:
        return NO_NAMES
    certificate = connection.getpeercert() or {}
    # A CA may sign any text as a name, so one that looks like a fingerprint must not pass for it.
    names = {name for name in _names_in(certificate) if not name.startswith(FINGERPRINT)}
    return frozenset({*names, f"{FINGERPRINT}{hashlib.sha256(encoded).hexdigest()}"})


def _names_in(certificate: dict[str, Any]) -> Iterator[str]:
    alternatives = [value for kind, value in certificate.get("subjectAltName", ()) if kind in {"DNS", "URI", "email"}]
    if alternatives:
        yield from alternatives
        return
    for part in certificate.get("subject", ()):
        yield from (value for name, value in part if name == "commonName")


def _context(files: TlsFiles) -> ssl.SSLContext:
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # Each renegotiation costs a handshake, so a client could keep the connector busy with one connection.
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        context.set_alpn_protocols(["http/1.1"])
        context.load_cert_chain(files.certificate, files.key, password=_no_password)
        if files.client_authority is not None:
            context.load_verify_locations(files.client_authority)
            context.verify_mode = ssl.CERT_OPTIONAL  # sources that send tokens need no certificate
    except (OSError, ssl.SSLError, ValueError) as error:
        raise ConfigurationError(_problem(files, error)) from error
    return context


def _trusted(files: TlsFiles) -> bytes:
    return b"" if files.client_authority is None else files.client_authority.read_bytes()


def _no_password() -> str:
    # Without a callback OpenSSL would ask for the password on the terminal, and wait.
    raise ValueError("the key is encrypted")


def _problem(files: TlsFiles, error: Exception) -> str:
    names = ", ".join(f"{files.setting}__{name}" for name in ("TLS_CERTIFICATE", "TLS_KEY"))
    if files.client_authority is not None:
        names += f", {files.setting}__TLS_CLIENT_CA"
    if isinstance(error, ssl.SSLError):
        why = f"certificate and key are no PEM or do not belong together ({error.reason or 'unreadable'})"
    elif isinstance(error, OSError):
        why = f"a file cannot be read ({error.strerror})"
    else:
        why = str(error)
    return f"{names}: {why}"
