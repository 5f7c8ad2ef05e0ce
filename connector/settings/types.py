"""The types of single settings: which values each takes, and the message when a value is rejected."""

import difflib
import ipaddress
import math
import re
import zoneinfo
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    WithJsonSchema,
)

from connector.errors import ConfigurationError
from connector.settings.signing_secrets import SECRET_PREFIX, secret_bytes
from connector.text import printable
from connector.values import CANARY_SOURCE, FINGERPRINT, UNKNOWN_SOURCE, Network

REDACTED: Final = "********"
EMBEDDED: Final = "embedded"
KIB: Final = 1024
_SIZE: Final = re.compile(r"(\d{1,19})\s*(?:([KMGT])iB?)?", re.ASCII)
_SOURCE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_VISIBLE: Final = re.compile(r"[!-~]+")  # characters that an HTTP header carries unchanged, and C does not cut at
_MIN_KEY_BYTES: Final = 16
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_REQUIRED_FIELDS: Final = frozenset({"msgType", "envType"})
INT32: Final = 2**31 - 1
INT64: Final = 2**63 - 1


def reject_boolean(value: object) -> object:
    """Reject true and false where a number is wanted: pydantic would convert them to 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")  # noqa: TRY004 - pydantic only translates ValueError
    return value


def _parse_size(value: object) -> object:
    """The bytes of a text such as ``512MiB``; any other value passes through, to be checked as a number."""
    if not isinstance(value, str):
        return reject_boolean(value)
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise ValueError("must be a number of bytes, or text such as 512KiB, 512MiB or 1GiB")
    digits, unit = match.groups()
    return int(digits) * KIB ** " KMGT".index(unit or " ")


def _check_scalar(value: object) -> object:
    if not isinstance(value, str | int | float) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError("must be text, a number, true or false")
    # The Python client crashes on a lone surrogate and cuts text at NUL.
    if isinstance(value, str) and ("\0" in value or not _is_unicode(value)):
        raise ValueError("must be Unicode text without NUL")
    return value


def _check_property_name(name: str) -> str:
    if _VISIBLE.fullmatch(name) is None:
        raise ValueError("must be the name of a librdkafka property, such as `linger.ms`")
    return name


def _check_environment(name: str) -> str:
    if _SOURCE_NAME.fullmatch(name) is None:
        raise ValueError("must be 1 to 64 letters, digits, `_` and `-`")
    return name


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)  # surrogates, which JSON escapes can make


def _check_filled(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text


def _check_secret(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    if not text:
        raise ValueError("must not be empty")
    if text == REDACTED:  # somebody has copied the settings that the connector shows
        raise ValueError("is the mask of a redacted output, not a secret")
    return secret


def _check_token(token: SecretStr) -> SecretStr:
    text = _check_secret(token).get_secret_value()
    if _VISIBLE.fullmatch(text) is None:
        raise ValueError("must hold visible ASCII characters only, without spaces: an HTTP header carries it")
    return token


def _check_webhook_secret(secret: SecretStr) -> SecretStr:
    text = _check_secret(secret).get_secret_value()
    if not text.startswith(SECRET_PREFIX) or len(secret_bytes(text)) < _MIN_KEY_BYTES:
        raise ValueError(f"must be {SECRET_PREFIX} and the Base64 of {_MIN_KEY_BYTES} bytes or more")
    return secret


def _check_key(secret: SecretStr) -> SecretStr:
    if len(_check_secret(secret).get_secret_value().encode()) < _MIN_KEY_BYTES:
        raise ValueError(f"must have {_MIN_KEY_BYTES} bytes or more")
    return secret


def _parse_network(value: object) -> object:
    try:
        return ipaddress.ip_network(str(value), strict=True)  # 10.0.0.5/8 is more likely a typing error than a network
    except ValueError:
        raise ValueError("must be an address or a network such as 10.0.0.0/8, without bits beside its mask") from None


def _check_certificate_name(name: str) -> str:
    if name.startswith(FINGERPRINT) and _SHA256.fullmatch(name.removeprefix(FINGERPRINT)) is None:
        raise ValueError(f"must have 64 lower-case hexadecimal digits after {FINGERPRINT}")
    return _check_filled(name)


def _check_field_name(name: str) -> str:
    if name in _REQUIRED_FIELDS:
        raise ValueError(f"must not be {name}: without it there is neither a record nor its topic")
    return _check_filled(name)


def _check_source_name(name: str) -> str:
    if _SOURCE_NAME.fullmatch(name) is None:
        raise ValueError("must be 1 to 64 letters, digits, `_` or `-`, and start with a letter or digit")
    if name == UNKNOWN_SOURCE:
        raise ValueError("is reserved for requests of no known source")
    if name == CANARY_SOURCE:
        raise ValueError("is reserved for the connector's own messages")
    return name


def check_timezone(name: str) -> str:
    """Reject a name that is not in the time zone database."""
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"is no time zone; {nearest(name, zoneinfo.available_timezones())}") from None
    return name


def check_url(url: str) -> str:
    """Reject a text that is not an HTTP URL, or that holds a credential."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("must be an http or https URL") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be an http or https URL")
    if "@" in parts.netloc:
        # The URL is shown on the console and in error messages, where a password would be readable.
        raise ValueError("must not hold a credential; there are settings for it")
    return url


def _check_database(secret: SecretStr) -> SecretStr:
    text = _check_secret(secret).get_secret_value()
    if not text.startswith(("postgresql://", "postgres://")) or not text.isprintable():
        raise ValueError("must be an address that begins with postgresql://")
    return secret


def check_file_name(path: Path) -> Path:
    """Reject a path without a file name, such as ``/``."""
    if not path.name:
        raise ValueError("must name a file")
    return path


SIZE_READER: Final = BeforeValidator(_parse_size)
Number = Annotated[int, BeforeValidator(reject_boolean)]
Seconds = Annotated[float, Field(le=INT32), BeforeValidator(reject_boolean)]
Size = Annotated[
    int,
    SIZE_READER,
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": r"^\s*[0-9]+\s*([KMGT]iB?)?\s*$"}]}
    ),
]
Text = Annotated[str, AfterValidator(_check_filled)]
Port = Annotated[int, Field(ge=0, le=65535), BeforeValidator(reject_boolean)]
Masked = PlainSerializer(lambda _: REDACTED, return_type=str, when_used="json")
Secret = Annotated[SecretStr, AfterValidator(_check_secret), Masked]
Token = Annotated[SecretStr, AfterValidator(_check_token), Masked]
WebhookSecret = Annotated[SecretStr, AfterValidator(_check_webhook_secret), Masked]
Key = Annotated[SecretStr, AfterValidator(_check_key), Masked]
NetworkName = Annotated[
    Network, BeforeValidator(_parse_network), PlainSerializer(str, return_type=str), WithJsonSchema({"type": "string"})
]
CertificateName = Annotated[str, AfterValidator(_check_certificate_name)]
FieldName = Annotated[str, AfterValidator(_check_field_name)]
DatabaseUrl = Annotated[SecretStr, AfterValidator(_check_database), Masked]
Environment = Annotated[str, AfterValidator(_check_environment)]
_MIN_SIMILARITY: Final = 0.75
"""Similarity, from 0 to 1, from which a name is suggested for a misspelt one; high, because all of ours begin alike."""

SourceName = Annotated[str, AfterValidator(_check_source_name)]
PropertyName = Annotated[str, AfterValidator(_check_property_name)]
Property = Annotated[str | int | float | bool, BeforeValidator(_check_scalar)]
Stream = Literal["events", "instances", "tasks", "state", "flat", "flat-state"]


class Group(BaseModel):
    """A group of settings: unknown names are rejected, and instances are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)


def nearest(name: str, known: Iterable[str]) -> str:
    """The part of an error message that suggests the name that was probably meant, if one is similar enough."""
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=_MIN_SIMILARITY)
    return f"the nearest known one is {close[0]}" if close else "no known one is similar"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address, given as an IP address or a name."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def rejection(name: str, problem: str) -> ConfigurationError:
    """An error about a setting, in one line without control characters, whatever the user's names hold."""
    return ConfigurationError(" ".join(printable(f"{name}: {problem}").split()))
