"""Tools that run in Node: npm fetches them once into the tests' cache, into a folder named by their versions."""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.servers.artifacts import cache_folder
from tests.servers.errors import NotInstalled

INSTALL_SECONDS = 240


def installed(package: Path, what: str) -> Path:
    """The folder that has the dependencies of a ``package.json``; fetches them where they are missing.

    ``what`` names them for people. ``NotInstalled`` where npm is not there, or could not fetch them.
    """
    folder = cache_folder() / _versions(package)
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="fetching-") as part:
        complete = Path(part) / "complete"
        _fetch(package, what, complete)
        try:
            complete.rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another run was quicker, with the same versions
                raise
    return folder


def tool(name: str, what: str) -> str:
    """The path of ``node`` or ``npm``; ``NotInstalled`` where it is not on the PATH."""
    found = shutil.which(name)
    if found is None:
        raise NotInstalled(f"{what} needs Node.js 18 or newer: {name} is not on the PATH")
    return found


def _fetch(package: Path, what: str, folder: Path) -> None:
    folder.mkdir()
    shutil.copy(package, folder)
    sys.stderr.write(f"fetching {what} with npm (once, half a minute at most)\n")
    command = [tool("npm", what), "install", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund"]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=INSTALL_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise NotInstalled(f"npm could not fetch {what} within {INSTALL_SECONDS} s") from error
    if done.returncode:
        raise NotInstalled(f"npm could not fetch {what}:\n{done.stdout}")


def _versions(package: Path) -> str:
    """``asyncapi-avro-schema-parser-3.0.24-asyncapi-parser-3.6.3`` from the dependencies."""
    dependencies = json.loads(package.read_text(encoding="utf-8"))["dependencies"]
    return "-".join(f"{name.lstrip('@').replace('/', '-')}-{text}" for name, text in dependencies.items())
