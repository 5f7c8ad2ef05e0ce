"""``python -m tools.workflows``: actionlint and zizmor over ``.github/``; exit code 1: one has found something."""

import os
import subprocess
import sys
from pathlib import Path

from tests.chart.tools import GoProgram
from tests.servers.errors import ServerError

ROOT = Path(__file__).parents[1]
ACTIONLINT = GoProgram("github.com/rhysd/actionlint/cmd/actionlint", "v1.7.12")
ZIZMOR = Path(sys.executable).with_name("zizmor")


def main() -> int:
    """Ask both, whatever the first one finds; zizmor asks no server."""
    try:
        ACTIONLINT.install()
    except ServerError as error:
        sys.exit(f"tools.workflows: {error}")
    environment = {name: text for name, text in os.environ.items() if name not in {"GH_TOKEN", "GITHUB_TOKEN"}}
    commands: tuple[list[str | Path], ...] = ([ACTIONLINT.path], [ZIZMOR, "--quiet", "--offline", "."])
    ended = [subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode for command in commands]
    return int(any(ended))


if __name__ == "__main__":
    sys.exit(main())
