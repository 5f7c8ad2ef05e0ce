"""A cluster that asks who is there: SASL/PLAIN, and ACLs that a test grants and withdraws."""

from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka.admin import (  # type: ignore[attr-defined] # the package exports them without a word to mypy
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

from tests.servers.kafka import ADMIN_SECONDS, KafkaCluster

ROOT = "root"
"""May do everything."""
USER = "connector"
"""May do what the connector needs on every topic, until that is denied."""
EVERY_TOPIC = "*"

_SERVER = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "listener.security.protocol.map": "PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
    "sasl.enabled.mechanisms": "PLAIN",
    "sasl.mechanism.inter.broker.protocol": "PLAIN",
    "listener.name.plaintext.plain.sasl.jaas.config": (
        "org.apache.kafka.common.security.plain.PlainLoginModule required "
        f'username="{ROOT}" password="{ROOT}" user_{ROOT}="{ROOT}" user_{USER}="{USER}";'
    ),
    "super.users": f"User:{ROOT};User:ANONYMOUS",  # the controllers' listener asks nobody
}
_NEEDED = (AclOperation.WRITE, AclOperation.DESCRIBE, AclOperation.DESCRIBE_CONFIGS, AclOperation.CREATE)


def as_user(name: str) -> dict[str, str]:
    """A client's properties; every user's password is its name."""
    return {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": name,
        "sasl.password": name,
    }


def start_secured(nodes: int = 1) -> KafkaCluster:
    """Start a cluster on which `USER` may describe, create and write every topic, and nothing else."""
    cluster = KafkaCluster.start(nodes, _SERVER, client_properties=as_user(ROOT))
    try:
        _create(cluster, [_binding(EVERY_TOPIC, operation, AclPermissionType.ALLOW) for operation in _NEEDED])
    except BaseException:
        cluster.stop()
        raise
    return cluster


def grant(cluster: KafkaCluster, prefix: str) -> None:
    """Give `USER` what docs/security.md calls the least, on topics that start with ``prefix``."""
    kind = ResourcePatternType.PREFIXED
    allow = AclPermissionType.ALLOW
    _create(
        cluster,
        [AclBinding(ResourceType.TOPIC, prefix, kind, f"User:{USER}", "*", each, allow) for each in _NEEDED],
    )


@contextmanager
def writing_denied(cluster: KafkaCluster, topic: str) -> Iterator[None]:
    """Deny `USER` to write a topic, or `EVERY_TOPIC`, for as long as the context lasts.

    Who may write no topic at all is refused a producer id as well, which is a fatal error to an idempotent producer.
    """
    denial = _binding(topic, AclOperation.WRITE, AclPermissionType.DENY)
    _create(cluster, [denial])
    try:
        yield
    finally:
        _delete(cluster, denial)


def _binding(topic: str, operation: AclOperation, permission: AclPermissionType) -> AclBinding:
    kind = ResourcePatternType.LITERAL
    return AclBinding(ResourceType.TOPIC, topic, kind, f"User:{USER}", "*", operation, permission)


def _create(cluster: KafkaCluster, bindings: list[AclBinding]) -> None:
    admin = cluster.admin()
    for answer in admin.create_acls(bindings).values():
        answer.result(ADMIN_SECONDS)


def _delete(cluster: KafkaCluster, binding: AclBinding) -> None:
    chosen = AclBindingFilter(
        *(binding.restype, binding.name, binding.resource_pattern_type, binding.principal, binding.host),
        *(binding.operation, binding.permission_type),
    )
    admin = cluster.admin()
    for answer in admin.delete_acls([chosen]).values():
        answer.result(ADMIN_SECONDS)
