"""Prometheus and its tools: those on the PATH, else Debian's packages, unpacked into the cache without root."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.servers.artifacts import INSTALL, cache_folder
from tests.servers.errors import NotInstalled

PACKAGES = ("prometheus", "prometheus-alertmanager")
TOOLS = ("prometheus", "promtool", "amtool")
HOW_TO_GET = f"apt-get install {' '.join(PACKAGES)}, or put {', '.join(TOOLS)} on the PATH"


def tool(name: str) -> Path:
    """The program of that name; ``NotInstalled`` where it was never fetched."""
    ours = _folder() / "usr" / "bin" / name
    if ours.exists():
        return ours
    on_path = shutil.which(name)
    if on_path is None:
        raise NotInstalled(f"{name} is not on this machine yet: {INSTALL}")
    return Path(on_path)


def fetch_tools() -> None:
    """Unpack the packages once, unless the PATH has all of them; ``NotInstalled`` where apt cannot get them."""
    if _folder().is_dir() or all(map(shutil.which, TOOLS)):
        return
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise NotInstalled(f"the tests of alerts need Prometheus, and there is no apt to fetch it: {HOW_TO_GET}")
    sys.stderr.write("fetching Prometheus for the tests of alerts with apt (once, 30 MB)\n")
    _folder().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_folder().parent, prefix="fetching-") as part:
        _download(Path(part))
        for package in sorted(Path(part).glob("*.deb")):
            _run(Path(part), "dpkg-deb", "-x", package.name, "unpacked")
        if not _folder().is_dir():  # else another run was quicker
            Path(part, "unpacked").rename(_folder())


def _download(target: Path) -> None:
    """With the machine's lists of packages; where it has none, with lists of our own, for which no root is needed."""
    try:
        _run(target, "apt-get", "download", *PACKAGES)
    except NotInstalled:
        own = ("-o", f"Dir::State::Lists={_made(target / 'lists')}", "-o", f"Dir::Cache={_made(target / 'cache')}")
        _run(target, "apt-get", *own, "-o", "Debug::NoLocking=true", "-q", "update")
        _run(target, "apt-get", *own, "download", *PACKAGES)


def _made(folder: Path) -> Path:
    (folder / "partial").mkdir(parents=True)
    return folder


def _run(where: Path, *command: str) -> None:
    environment = os.environ | {"LC_ALL": "C"}
    done = subprocess.run(
        command,
        cwd=where,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise NotInstalled(f"`{' '.join(command[:2])}` failed; without it: {HOW_TO_GET}\n{done.stdout}")


def _folder() -> Path:
    return cache_folder() / "monitoring"
