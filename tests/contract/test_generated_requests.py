"""Requests made from the OpenAPI document, fit and unfit: the receiver answers each as the document says, never 5xx."""

import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from connector.settings import Settings
from tests.running import PATIENT_ENVIRONMENT
from tests.servers.ports import free_ports
from tests.waiting import PATIENCE_SECONDS, wait_until
from tools.descriptions import openapi

TOKEN = "a-token-for-tests"
CHECKS = (
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
)
"""What a document promises of answers; whether a body is a message is more than its schema says."""

document = schemathesis.openapi.from_dict(openapi.document(Settings()))


@pytest.fixture(scope="module")
def url(kafka, tmp_path_factory) -> Iterator[str]:
    """The address of a connector in a process of its own, on the run's broker."""
    public, operations = free_ports(2)
    folder: Path = tmp_path_factory.mktemp("generated")
    environment = {
        "PATH": os.environ["PATH"],
        "WEDA_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "WEDA_TOPICS__PREFIX": folder.name,
        "WEDA_TOKEN": TOKEN,
        "WEDA_RECEIVER__HOST": "127.0.0.1",
        "WEDA_RECEIVER__PORT": str(public),
        "WEDA_OPERATIONS__PORT": str(operations),
        **PATIENT_ENVIRONMENT,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "connector", "serve"], cwd=folder, env=environment, stderr=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: _is_ready(f"http://127.0.0.1:{operations}/readyz"))
        yield f"http://127.0.0.1:{public}"
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)


def _is_ready(address: str) -> bool:
    try:
        urllib.request.urlopen(address).close()
    except OSError:
        return False
    return True


@document.parametrize()
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_generated_request_is_answered_as_the_document_says(case, url):
    answer = case.call(base_url=url, headers={"X-WeDa-Token": TOKEN}, timeout=PATIENCE_SECONDS)

    case.validate_response(answer, checks=[*CHECKS])
