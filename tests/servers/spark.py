"""Spark as a plain process: a Connect server on the loopback, which programs of Python and SQL are run on."""

from pathlib import Path
from typing import Final

from tests.servers.artifacts import SPARK, SPARK_SOURCES, installed
from tests.servers.java import JavaServer
from tests.servers.ports import LOOPBACK, free_ports

READY = "Spark Connect server started"
MAIN = "org.apache.spark.sql.connect.service.SparkConnectServer"
_OPENED = (
    *("java.lang", "java.lang.invoke", "java.lang.reflect", "java.io", "java.net", "java.nio", "java.util"),
    *("java.util.concurrent", "java.util.concurrent.atomic"),
    *("sun.nio.ch", "sun.nio.cs", "sun.security.action", "sun.util.calendar"),
)
JVM_OPTIONS: Final = (
    "-Xmx1g",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    *(f"--add-opens=java.base/{name}=ALL-UNNAMED" for name in _OPENED),
    "-Djdk.reflect.useDirectMethodHandle=false",
    "-Dio.netty.tryReflectionSetAccessible=true",
)
SETTINGS: Final = {
    "spark.master": "local[2]",
    "spark.driver.bindAddress": LOOPBACK,
    "spark.driver.host": LOOPBACK,
    "spark.ui.enabled": "false",
    "spark.sql.shuffle.partitions": "1",
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.codegen.wholeStage": "false",  # the tests' tables are small: compiling takes longer than running
    "spark.connect.grpc.binding.address": LOOPBACK,
}


class Spark(JavaServer):
    """One server.

    Attributes:
        url: What ``SPARK_REMOTE`` takes.
    """

    def __init__(self, folder: Path) -> None:
        [port] = free_ports(1)
        self.url = f"sc://{LOOPBACK}:{port}"
        settings = SETTINGS | {
            "spark.connect.grpc.binding.port": str(port),
            "spark.sql.warehouse.dir": str(folder / "spark-warehouse"),
            "spark.local.dir": str(folder / "spark-local"),
        }
        jars = f"{installed(SPARK)}/spark/*:{installed(SPARK_SOURCES)}/spark-sources/*"
        options = [*JVM_OPTIONS, *(f"-D{name}={value}" for name, value in settings.items())]
        super().__init__("spark", [*options, "-cp", jars, MAIN], folder, ready=READY)
