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

SCRAM: Mapping[str, ScramMechanism] = MappingProxyType(
    {"SCRAM-SHA-256": ScramMechanism.SCRAM_SHA_256, "SCRAM-SHA-512": ScramMechanism.SCRAM_SHA_512}
)
MECHANISMS = ("PLAIN", *SCRAM, "OAUTHBEARER")
AUTHORIZER = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
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


def by_certificate(certificates: Certificates) -> dict[str, str]:
    """A client's properties with a certificate of its own."""
    return {
        "security.protocol": "SSL",
        "ssl.ca.location": str(certificates.authority),
        "ssl.certificate.location": str(certificates.client),
        "ssl.key.location": str(certificates.client_key),
    }


def start_with_every_mechanism(certificates: Certificates, prefix: str) -> KafkaCluster:
    """A broker on which `USER` has the least that the connector needs, on topics that start with ``prefix``."""
    users = " ".join(f'user_{name}="{name}"' for name in (ROOT, USER))
    server = {
        **_tls(certificates),
        "authorizer.class.name": AUTHORIZER,
        "super.users": f"User:{ROOT};User:ANONYMOUS",  # the controllers' listener asks nobody
        "listener.security.protocol.map": "PLAINTEXT:SASL_SSL,CONTROLLER:PLAINTEXT",
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
    cluster = KafkaCluster.start(1, server, client_properties=over_tls(certificates, "PLAIN", name=ROOT, password=ROOT))
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
        "listener.security.protocol.map": "PLAINTEXT:SSL,CONTROLLER:PLAINTEXT",
    }
    # the broker talks to itself by its own certificate, which is a client's as well
    return KafkaCluster.start(1, server, client_properties=by_certificate(certificates))


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


def _tls(certificates: Certificates) -> dict[str, str]:
    store = certificates.server.with_name("keystore.pem")
    _write_as_pkcs8(certificates.server, store)
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
