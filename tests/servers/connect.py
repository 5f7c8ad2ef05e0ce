"""Kafka Connect as a plain process: one worker on the loopback that runs what files of properties say."""

import json
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError

from tests.servers.artifacts import CONNECT, ICEBERG, PLUGINS, installed
from tests.servers.errors import DidNotStart
from tests.servers.java import JavaServer
from tests.servers.ports import LOOPBACK, free_ports

READY = "Kafka Connect started"
ANSWER_SECONDS = 10

JVM_OPTIONS = (
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config.AbstractConfig=warn",
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config.logAll=warn",
    "-Dorg.slf4j.simpleLogger.log.org.reflections=error",
)


class Connect(JavaServer):
    """One worker and its connectors.

    Args:
        folder: Where its files and its log are.
        worker: The worker's properties; port, plugins and the place of offsets are set here.
        connectors: The text of the connectors' properties.
    """

    def __init__(self, folder: Path, worker: str, connectors: Mapping[str, str]) -> None:
        [port] = free_ports(1)
        self._url = f"http://{LOOPBACK}:{port}"
        own = {
            "listeners": self._url,
            "plugin.path": ",".join(str(installed(pom)) for pom in (PLUGINS, ICEBERG)),
            "offset.storage.file.filename": str(folder / "connect.offsets"),
            "offset.flush.interval.ms": "1000",
        }
        files = [_written(folder / "worker.properties", worker, own)]
        files += [_written(folder / f"{name}.properties", text, {}) for name, text in connectors.items()]
        classes = ("-cp", f"{installed(CONNECT)}/connect/*", "org.apache.kafka.connect.cli.ConnectStandalone")
        super().__init__("connect", [*JVM_OPTIONS, *classes, *map(str, files)], folder, ready=READY)

    def check(self, name: str) -> None:
        """``DidNotStart`` with the trace where a task of a connector has failed."""
        for task in self._status(name)["tasks"]:
            if task["state"] == "FAILED":
                raise DidNotStart(f"{name} failed:\n{task['trace']}")

    def _status(self, name: str) -> Any:
        try:
            with urllib.request.urlopen(f"{self._url}/connectors/{name}/status", timeout=ANSWER_SECONDS) as answer:
                return json.load(answer)
        except (URLError, TimeoutError):
            return {"tasks": []}


def _written(path: Path, text: str, own: Mapping[str, str]) -> Path:
    """A file of properties with some of them replaced, or added."""
    kept: Sequence[str] = [line for line in text.splitlines() if line.partition("=")[0] not in own]
    path.write_text("\n".join([*kept, *(f"{name}={value}" for name, value in own.items())]) + "\n", encoding="utf-8")
    return path
