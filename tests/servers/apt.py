"""Debian packages that tests need on the machine: installed where this user may, else named by those tests."""

import os
import shutil
import subprocess

SECONDS = 600


def install(*packages: str) -> None:
    """Install them, if apt-get is there and this is root; whether it worked shows when they are looked for."""
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
        subprocess.run([apt, "-q", *command], env=environment, check=True, timeout=SECONDS)
