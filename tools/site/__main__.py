"""``python -m tools.site build``, ``serve``, or ``publish VERSION``: the documents as a site."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tools.site import CONFIGURATION, ROOT, stage

_BIN: Final = Path(sys.executable).parent


def main(words: Sequence[str]) -> int:
    """Stage the documents and hand over to MkDocs, or to mike, which keeps the documents of each version."""
    stage()
    if words[0] == "publish":
        [version] = words[1:]
        command: list[str | Path] = [_BIN / "mike", "deploy", "--push", "--update-aliases", version, "latest"]
    else:
        command = [_BIN / "mkdocs", *words]
    return subprocess.run([*command, "--config-file", CONFIGURATION], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
