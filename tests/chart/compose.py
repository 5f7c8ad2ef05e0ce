"""docker-compose.yml, read by the real tool."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[2] / "docker-compose.yml"
COMMAND = [Path(sys.executable).with_name("docker-compose"), "-f", FILE]


@cache
def read() -> dict[str, Any]:
    """All of it, whatever the profile: services, configurations, volumes."""
    printed = subprocess.run(
        [*COMMAND, "--profile", "*", "config", "--format", "json"], capture_output=True, text=True, check=True
    )
    return json.loads(printed.stdout)


def content(name: str) -> str:
    """The text of a configuration."""
    return read()["configs"][name]["content"]
