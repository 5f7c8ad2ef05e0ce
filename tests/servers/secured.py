"""A broker that speaks TLS alone and asks who is there, by every mechanism; and one that asks for a certificate."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from confluent_kafka.admin import (  # type: ignore[attr-defined] # the package exports them without a word to mypy
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography.hazmat.primitives import serialization

from tests.servers.access import ROOT, USER, grant
from tests.servers.gate import Certificates
from tests.servers.kafka import ADMIN_SECONDS, KafkaCluster
from tests.servers.tokens import AUDIENCE, CLIENT, ISSUER, TokenService

SCRAM: Mapping[str, ScramMechanism] = MappingProxyType(
    {"SCRAM-SHA-256": ScramMechanism.SCRAM_SHA_256, "SCRAM-SHA-512": ScramMechanism.SCRAM_SHA_512}
)
MECHANISMS = ("PLAIN", *SCRAM, "OAUTHBEARER")
AUTHORIZER = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
SIGNED = "SIGNED"
"""The listener that takes signed tokens alone."""

LATE, OTHER = "LATE", "OTHER"
"""The listeners that show a certificate whose time is over, and another host's."""

_MODULES = "org.apache.kafka.common.security"


def over_tls(certificates: Certificates, mechanism: str, *, name: str = USER, password: str = USER) -> dict[str, str]:
    """A client's properties for a mechanism; every user's password is its name."""
    known = {
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": str(certificates.authority),
        "ssl.endpoint.identification.algorithm": "https",
        "sasl.mechanism": mechanism,
    }
    if mechanism == "OAUTHBEARER":
        return known | {
            "enable.sasl.oauthbearer.unsecure.jwt": "true",
            "sasl.oauthbearer.config": f"principal={name} lifeSeconds=3600",
        }
    return known | {"sasl.username": name, "sasl.password": password}


def by_signed_token(certificates: Certificates, tokens: TokenService) -> dict[str, str]:
    """A client's properties to come in by `SIGNED`: librdkafka fetches its tokens from the endpoint."""
    return {
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": str(certificates.authority),
        "https.ca.location": str(certificates.authority),
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.client.id": CLIENT,
        "sasl.oauthbearer.client.secret": tokens.secret,
        "sasl.oauthbearer.scope": "produce",
        "sasl.oauthbearer.token.endpoint.url": tokens.endpoint,
    }


def by_certificate(certificates: Certificates) -> dict[str, str]:
    """A client's properties with a certificate of its own."""
    return {
        "security.protocol": "SSL",
        "ssl.ca.location": str(certificates.authority),
        "ssl.certificate.location": str(certificates.client),
        "ssl.key.location": str(certificates.client_key),
    }


def start_with_every_mechanism(certificates: Certificates, tokens: TokenService, prefix: str) -> KafkaCluster:
    """A broker on which `USER` has the least that the connector needs, on topics that start with ``prefix``."""
    signed = f"listener.name.{SIGNED.lower()}"
    users = " ".join(f'user_{name}="{name}"' for name in (ROOT, USER))
    server = {
        **_tls(certificates),
        "authorizer.class.name": AUTHORIZER,
        "super.users": f"User:{ROOT};User:ANONYMOUS",  # the controllers' listener asks nobody
        "listener.security.protocol.map": f"PLAINTEXT:SASL_SSL,CONTROLLER:PLAINTEXT,{SIGNED}:SASL_SSL",
        "sasl.enabled.mechanisms": ",".join(MECHANISMS),
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "listener.name.plaintext.plain.sasl.jaas.config": (
            f'{_MODULES}.plain.PlainLoginModule required username="{ROOT}" password="{ROOT}" {users};'
        ),
        "listener.name.plaintext.oauthbearer.sasl.jaas.config": (
            f'{_MODULES}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="{ROOT}";'
        ),
    }
    server |= {
        f"listener.name.plaintext.{each.lower()}.sasl.jaas.config": f"{_MODULES}.scram.ScramLoginModule required;"
        for each in SCRAM
    }
    server |= {
        f"{signed}.sasl.enabled.mechanisms": "OAUTHBEARER",
        f"{signed}.oauthbearer.sasl.jaas.config": f"{_MODULES}.oauthbearer.OAuthBearerLoginModule required;",
        f"{signed}.oauthbearer.sasl.server.callback.handler.class": (
            f"{_MODULES}.oauthbearer.OAuthBearerValidatorCallbackHandler"
        ),
        f"{signed}.sasl.oauthbearer.jwks.endpoint.url": tokens.keys_address,
        f"{signed}.sasl.oauthbearer.expected.audience": AUDIENCE,
        f"{signed}.sasl.oauthbearer.expected.issuer": ISSUER,
        f"{signed}.sasl.oauthbearer.clock.skew.seconds": "0",
        f"{signed}.oauthbearer.connections.max.reauth.ms": "3600000",
    }
    cluster = KafkaCluster.start(
        1,
        server,
        client_properties=over_tls(certificates, "PLAIN", name=ROOT, password=ROOT),
        jvm_options=[f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={tokens.keys_address}"],
        listeners=[SIGNED],
    )
    try:
        set_password(cluster, USER)
        grant(cluster, prefix)
    except BaseException:
        cluster.stop()
        raise
    return cluster


def start_with_certificates(certificates: Certificates) -> KafkaCluster:
    """A broker that only lets in who shows a certificate of the authority."""
    server = {
        **_tls(certificates),
        "ssl.client.auth": "required",
        "listener.security.protocol.map": f"PLAINTEXT:SSL,CONTROLLER:PLAINTEXT,{LATE}:SSL,{OTHER}:SSL",
    }
    for name, shown in ((LATE, certificates.late_server), (OTHER, certificates.other_server)):
        server |= {f"listener.name.{name.lower()}.{key}": value for key, value in _tls(certificates, shown).items()}
    # the broker talks to itself by its own certificate, which is a client's as well
    return KafkaCluster.start(1, server, client_properties=by_certificate(certificates), listeners=[LATE, OTHER])


def set_password(cluster: KafkaCluster, password: str) -> None:
    """Give `USER` a password for SCRAM."""
    admin = cluster.admin()
    changes = [
        UserScramCredentialUpsertion(USER, ScramCredentialInfo(mechanism, 4096), password=password.encode())
        for mechanism in SCRAM.values()
    ]
    for change in changes:
        for answer in admin.alter_user_scram_credentials([change]).values():
            answer.result(ADMIN_SECONDS)


def _tls(certificates: Certificates, shown: Path | None = None) -> dict[str, str]:
    shown = shown or certificates.server
    store = shown.with_name(f"{shown.stem}-keystore.pem")
    _write_as_pkcs8(shown, store)
    return {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(store),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(certificates.authority),
    }


def _write_as_pkcs8(source: Path, store: Path) -> None:
    """Java reads keys in PKCS #8 alone."""
    pem = source.read_bytes()
    key = serialization.load_pem_private_key(pem, None)
    rewritten = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    store.write_bytes(rewritten + pem[pem.index(b"-----BEGIN CERTIFICATE") :])
