"""Programs of Debian's: those on the PATH, else unpacked into the cache folder. Nothing is installed on the machine."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.servers.artifacts import INSTALL, cache_folder
from tests.servers.errors import NotInstalled

KCAT, HAPROXY = "kcat", "haproxy"
"""Each is a package and its program."""


def program(name: str) -> list[str]:
    """The command; ``NotInstalled`` where there is none."""
    if on_path := shutil.which(name):
        return [on_path]
    root = _folder(name)
    if not root.is_dir():
        raise NotInstalled(f"{name} is not on this machine yet: {INSTALL}, or apt-get install {name}")
    libraries = sorted({str(each.parent) for each in root.glob("usr/lib/**/*.so*")})
    [path] = root.glob(f"usr/*bin/{name}")
    return ["env", f"LD_LIBRARY_PATH={':'.join(libraries)}", str(path)]


def fetch(name: str) -> None:
    """Have ``program`` find one; ``NotInstalled`` where neither the PATH nor Debian's archive has it."""
    root = _folder(name)
    if shutil.which(name) or root.is_dir():
        return
    sys.stderr.write(f"fetching {name} for the tests with apt-get (once)\n")
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent, prefix="fetching-") as part:
        unpacked = _unpack(name, Path(part), _download(name, Path(part)))
        if not root.is_dir():
            unpacked.rename(root)


def _download(name: str, part: Path) -> list[Path]:
    """The package and what it needs that is not here; lists and locks of its own, so that nobody need be root."""
    for folder in ("lists/partial", "cache/archives/partial"):
        (part / folder).mkdir(parents=True)
    places = {"Dir::State::lists": part / "lists", "Dir::Cache": part / "cache", "Debug::NoLocking": "1"}
    apt_get = ["apt-get", "-q", "-y", *(f"-o{option}={value}" for option, value in places.items())]
    _run(name, [*apt_get, "update"])
    _run(name, [*apt_get, "install", "--download-only", "--no-install-recommends", name])
    return sorted((part / "cache" / "archives").glob("*.deb"))


def _unpack(name: str, part: Path, packages: list[Path]) -> Path:
    target = part / "root"
    for package in packages:
        _run(name, ["dpkg", "--extract", str(package), str(target)])
    return target


def _folder(name: str) -> Path:
    return cache_folder() / f"debian-{name}"


def _run(name: str, command: list[str]) -> None:
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
        reason = f"{name} could not be fetched ({error}), get it by apt-get install {name}"
        raise NotInstalled(f"{reason}:\n{said}") from error
