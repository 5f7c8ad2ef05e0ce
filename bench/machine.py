"""What a run's figures depend on: processor, versions, disk."""

import os
import platform
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Final

import confluent_kafka

from bench.process import Cores
from tests.servers.artifacts import installed

_SYNCS: Final = 50


def describe(cores: Cores) -> dict[str, str]:
    """Name → value, in the order to be shown."""
    return {
        "processor": _processor(),
        "cores": f"{os.cpu_count()} ({len(cores.server)} for the measured process, {len(cores.others)} for the rest)",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "librdkafka": confluent_kafka.libversion()[0],
        "confluent-kafka": version("confluent-kafka"),
        "uvicorn, httptools, uvloop": ", ".join(version(name) for name in ("uvicorn", "httptools", "uvloop")),
        "Apache Kafka": _kafka(),
        "fsync of 4 KiB, median": f"{1000 * _sync_seconds():.2f} ms",
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _kafka() -> str:
    jars = sorted((installed() / "kafka").glob("kafka_2*.jar"))
    return jars[0].stem.rpartition("-")[2] if jars else "unknown"


def _sync_seconds() -> float:
    with tempfile.TemporaryFile() as file:
        return statistics.median(_one_sync(file.fileno()) for _ in range(_SYNCS))


def _one_sync(descriptor: int) -> float:
    started = time.perf_counter()
    os.write(descriptor, bytes(4096))
    os.fsync(descriptor)
    return time.perf_counter() - started
