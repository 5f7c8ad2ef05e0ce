"""kcat: the one on the PATH, else Debian's, unpacked into the cache folder. Nothing is installed on the machine."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.servers.artifacts import INSTALL, cache_folder
from tests.servers.errors import NotInstalled

HOW_TO_GET = "apt-get install kcat"
PACKAGE = "kcat"
FOLDER = "debian-kcat"


def kcat() -> list[str]:
    """The command; ``NotInstalled`` where there is none."""
    if on_path := shutil.which(PACKAGE):
        return [on_path]
    root = cache_folder() / FOLDER
    if not root.is_dir():
        raise NotInstalled(f"kcat is not on this machine yet: {INSTALL}, or {HOW_TO_GET}")
    libraries = sorted({str(each.parent) for each in root.glob("usr/lib/**/*.so*")})
    return ["env", f"LD_LIBRARY_PATH={':'.join(libraries)}", str(root / "usr" / "bin" / PACKAGE)]


def fetch() -> None:
    """Have ``kcat`` find one; ``NotInstalled`` where neither the PATH nor Debian's archive has it."""
    root = cache_folder() / FOLDER
    if shutil.which(PACKAGE) or root.is_dir():
        return
    sys.stderr.write("fetching kcat for the tests with apt-get (once)\n")
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent, prefix="fetching-") as part:
        unpacked = _unpack(Path(part), _download(Path(part)))
        if not root.is_dir():
            unpacked.rename(root)


def _download(part: Path) -> list[Path]:
    """The package and what it needs that is not here; lists and locks of its own, so that nobody need be root."""
    for folder in ("lists/partial", "cache/archives/partial"):
        (part / folder).mkdir(parents=True)
    places = {"Dir::State::lists": part / "lists", "Dir::Cache": part / "cache", "Debug::NoLocking": "1"}
    apt_get = ["apt-get", "-q", "-y", *(f"-o{name}={value}" for name, value in places.items())]
    _run([*apt_get, "update"])
    _run([*apt_get, "install", "--download-only", "--no-install-recommends", PACKAGE])
    return sorted((part / "cache" / "archives").glob("*.deb"))


def _unpack(part: Path, packages: list[Path]) -> Path:
    target = part / "root"
    for package in packages:
        _run(["dpkg", "--extract", str(package), str(target)])
    return target


def _run(command: list[str]) -> None:
    try:
        subprocess.run(
            command,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "output", "")
        raise NotInstalled(f"kcat could not be fetched ({error}), get it by {HOW_TO_GET}:\n{said}") from error
