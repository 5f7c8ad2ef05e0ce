"""Flink's SQL client as a command that needs no cluster."""

import shlex
from pathlib import Path
from typing import Final

from tests.servers.artifacts import READERS, installed
from tests.servers.java import find_java

JVM_OPTIONS: Final = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


def sql_client(folder: Path) -> dict[str, str]:
    """Put the command ``sql-client.sh`` into a folder, and say what its environment must have; ``NotInstalled``."""
    jars = f"{installed(READERS)}/flink/*"
    client = ("-cp", jars, "org.apache.flink.table.client.SqlClient", "-hist", str(folder / "history"))
    command = folder / "sql-client.sh"
    command.write_text(f'#!/bin/sh\nexec {shlex.join([str(find_java().path), *JVM_OPTIONS, *client])} "$@"\n')
    command.chmod(0o755)
    (folder / "config.yaml").write_text("execution.target: local\n", encoding="utf-8")
    return {"FLINK_CONF_DIR": str(folder)}
