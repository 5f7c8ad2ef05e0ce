"""The official parser of AsyncAPI documents, which runs in Node.

npm fetches it once into the tests' cache, into a folder named by the versions in ``package.json``.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.servers import NotInstalled
from tests.servers.artifacts import cache_folder

HERE = Path(__file__).parent
PACKAGE = HERE / "package.json"
INSTALL_SECONDS = 240
VALIDATE_SECONDS = 60


def validate(document: Path) -> dict[str, Any]:
    """What the parser says: ``channels``, the addresses that it understood, and ``diagnostics``; of those severity 0 is
    an error, 1 a warning, 2 and 3 are remarks.

    Raises:
        NotInstalled: Node or npm is not there, or npm could not fetch the parser.
    """
    environment = {**os.environ, "NODE_PATH": str(installed() / "node_modules")}
    done = subprocess.run(
        [_tool("node"), HERE / "validate.cjs", document],
        env=environment,
        capture_output=True,
        check=True,
        timeout=VALIDATE_SECONDS,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def installed() -> Path:
    """The folder that has the parser; fetches it where it is missing."""
    folder = cache_folder() / _versions()
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="fetching-") as part:
        complete = Path(part) / "complete"
        _fetch(complete)
        try:
            complete.rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another run was quicker, with the same versions
                raise
    return folder


def _fetch(folder: Path) -> None:
    folder.mkdir()
    shutil.copy(PACKAGE, folder)
    sys.stderr.write("fetching the parser of AsyncAPI documents with npm (once, half a minute)\n")
    command = [_tool("npm"), "install", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=INSTALL_SECONDS,
    )
    if done.returncode:
        raise NotInstalled(f"npm could not fetch the parser of AsyncAPI documents:\n{done.stdout}")


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise NotInstalled(f"checking docs/asyncapi.yaml needs Node.js 18 or newer: {name} is not on the PATH")
    return found


def _versions() -> str:
    """``asyncapi-avro-schema-parser-3.0.24-asyncapi-parser-3.6.3`` from the dependencies."""
    dependencies = json.loads(PACKAGE.read_text(encoding="utf-8"))["dependencies"]
    return "-".join(f"{name.lstrip('@').replace('/', '-')}-{text}" for name, text in dependencies.items())
