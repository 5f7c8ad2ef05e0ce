"""Brokers that ask for credentials."""

from collections.abc import Iterator

import pytest

from tests.servers import KafkaCluster
from tests.servers.gate import Certificates
from tests.servers.secured import start_with_certificates, start_with_every_mechanism
from tests.servers.tokens import TokenService, token_service

PREFIX = "guarded"
"""What the topics' names begin with on a broker that asks for credentials."""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.issue(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def service(certificates: Certificates) -> Iterator[TokenService]:
    with token_service(certificates) as service:
        yield service


@pytest.fixture
def tokens(service: TokenService) -> Iterator[TokenService]:
    """The endpoint of tokens, which is as it was once a test is over."""
    right = dict(vars(service))
    yield service
    vars(service).update(right)


@pytest.fixture(scope="module")
def guarded(certificates: Certificates, service: TokenService) -> Iterator[KafkaCluster]:
    with start_with_every_mechanism(certificates, service, PREFIX) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def by_certificates(certificates: Certificates) -> Iterator[KafkaCluster]:
    with start_with_certificates(certificates) as cluster:
        yield cluster
