"""A connector in the tests' own process, on a real broker."""

import json
from collections.abc import Callable
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from connector.app.connector import Connector
from connector.errors import Unavailable
from tests.waiting import until

TOKEN = "a-token-for-tests"

PATIENT = {"kafka.publish_wait_seconds": 4, "receiver.reply_deadline_seconds": 20}
"""What is accepted while Kafka answers is in Kafka, however slow the machine is; the journal answers for outages."""

PATIENT_ENVIRONMENT = {f"WEDA_{name.upper().replace('.', '__')}": str(seconds) for name, seconds in PATIENT.items()}

BY_DEFAULT = {"kafka__publish_wait_seconds": 0.4, "receiver__reply_deadline_seconds": 0.8}
"""For tests of how soon an answer comes while something does not answer."""


class Running:
    """A started connector and the calls that tests make of it."""

    def __init__(self, connector: Connector) -> None:
        self.connector = connector
        self.url = f"{connector.url}/messageDeliver"

    async def post(self, message: Any, **headers: str) -> tuple[int, dict[str, Any]]:
        """Send a message (an object in the default envelope, or bytes as they are); gives status and answer."""
        body = message if isinstance(message, bytes) else json.dumps({"msgContext": json.dumps(message)}).encode()
        known = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"} | headers
        async with aiohttp.ClientSession() as session, session.post(self.url, data=body, headers=known) as answer:
            return answer.status, await answer.json()

    async def ready(self) -> tuple[int, dict[str, Any]]:
        async with aiohttp.ClientSession() as session, session.get(f"{self.connector.operations_url}/readyz") as answer:
            return answer.status, await answer.json()

    async def exposed(self) -> str:
        """The text of `/metrics`."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.connector.operations_url}/metrics") as answer,
        ):
            return await answer.text()

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry the labels."""
        samples = [one for family in text_string_to_metric_families(await self.exposed()) for one in family.samples]
        return sum(one.value for one in samples if one.name == name and labels.items() <= one.labels.items())

    async def drained(self) -> None:
        """Wait until nothing waits for Kafka; of replicas, in the journal that they share."""
        await until(self._is_drained)

    async def _is_drained(self) -> bool:
        # Ask the journal itself: what metrics and probes say of it is up to half a second old, so that they may say 0
        # though an accepted message has been written since.
        try:
            return (await self.connector.context.journal.state()).oldest is None
        except Unavailable:
            return False


Start = Callable[..., Any]
