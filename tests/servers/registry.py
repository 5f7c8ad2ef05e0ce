"""A real schema registry (Apicurio, in memory) that speaks Confluent's API, and that a test can break and mend."""

import json
import os
import shutil
import tempfile
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any, Self
from urllib.error import HTTPError, URLError

from tests.servers.artifacts import installed
from tests.servers.java import find_java
from tests.servers.ports import LOOPBACK, free_ports
from tests.servers.processes import Server, ServerProcess

ANSWER_SECONDS = 60
OLDEST_JAVA = 21
JAR = Path("registry", "quarkus-run.jar")

JVM_OPTIONS = (
    "-Xmx384m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Xlog:cds=off",
    "-Xlog:cds+dynamic=off",
)


class SchemaRegistry(Server):
    """One registry on the loopback. It forgets its schemas when it is killed; it ends with this process.

    Attributes:
        url: Base of Confluent's API.
        native_url: Base of Apicurio's own API, version 3, for clients of its making.
    """

    def __init__(self, state: Path, *jvm_options: str) -> None:
        port, management = free_ports(2)
        self._state = state
        self.url = f"http://{LOOPBACK}:{port}/apis/ccompat/v7"
        self.native_url = f"http://{LOOPBACK}:{port}/apis/registry/v3"
        self._process = ServerProcess(
            "registry", [*_java(*jvm_options), *_program(state, port, management)], state, detached=False
        )

    @classmethod
    def start(cls) -> Self:
        """Start a new registry and wait until it serves; ``DidNotStart`` with the log's end otherwise."""
        installed()
        registry = cls(Path(tempfile.mkdtemp(prefix="weda-test-registry-")))
        try:
            registry.restart()
        except BaseException:
            registry.stop()
            raise
        return registry

    def restart(self) -> None:
        """Kill the registry, where it runs, and start it with nothing in it."""
        self.kill()
        self._process.start()
        self._process.wait_until(self._answers)
        # The first schema that a cold JVM reads takes seconds, which a client may not have.
        with suppress(HTTPError):  # there is no such subject
            self.ask("/subjects/none", method="POST", body={"schema": '"string"'})

    def kill(self) -> None:
        """SIGKILL: connections are refused."""
        self._process.kill()

    def pause(self) -> None:
        """SIGSTOP: connections stay open, nobody answers."""
        self._process.pause()

    def resume(self) -> None:
        """SIGCONT after ``pause``."""
        self._process.resume()

    def shut_down(self) -> None:
        """End it in good order; its folder stays."""
        self._process.terminate()

    def stop(self) -> None:
        """Kill it and remove its folder."""
        self.kill()
        shutil.rmtree(self._state, ignore_errors=True)

    def ask(self, path: str, *, method: str = "GET", body: Any = None) -> Any:
        """One call of Confluent's API; ``urllib``'s errors."""
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
            return json.load(answer)

    def _answers(self) -> bool:
        try:
            self.ask("/subjects")
        except (URLError, TimeoutError, OSError):
            return False
        return True


def archive_classes() -> None:
    """Write down once which classes the registry loads, ready to map: later starts take less CPU time."""
    archive = _archive()
    if archive.exists():
        return
    part = archive.with_suffix(f".{os.getpid()}")
    with tempfile.TemporaryDirectory(prefix="weda-test-registry-") as state:
        registry = SchemaRegistry(Path(state), f"-XX:ArchiveClassesAtExit={part}")
        registry.restart()
        registry.shut_down()
    part.rename(archive)


def _archive() -> Path:
    return installed() / f"registry-java-{find_java(OLDEST_JAVA).version}.jsa"


def _java(*options: str) -> list[str]:
    archive = _archive()
    shared = [f"-XX:SharedArchiveFile={archive}"] if archive.exists() else []
    return [str(find_java(OLDEST_JAVA).path), *JVM_OPTIONS, *shared, *options]


def _program(state: Path, port: int, management: int) -> list[str]:
    properties = {
        "quarkus.http.host": LOOPBACK,
        "quarkus.http.port": port,
        "quarkus.management.host": LOOPBACK,
        "quarkus.management.port": management,
        "quarkus.otel.enabled": "false",
        "apicurio.storage.kind": "sql",
        "apicurio.storage.sql.kind": "h2",
        "apicurio.rules.global.compatibility": "BACKWARD",  # Confluent's default; Apicurio has none
        "apicurio.rules.global.validity": "FULL",
        "java.io.tmpdir": state,
        "java.awt.headless": "true",
    }
    return [*(f"-D{name}={text}" for name, text in properties.items()), "-jar", str(installed() / JAR)]
