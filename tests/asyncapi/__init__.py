"""The official parser of AsyncAPI documents, which runs in Node."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.servers import npm

HERE = Path(__file__).parent
WHAT = "the parser of AsyncAPI documents"
VALIDATE_SECONDS = 60


def validate(document: Path) -> dict[str, Any]:
    """What the parser says: ``channels``, the addresses that it understood, and ``diagnostics``; of those severity 0 is
    an error, 1 a warning, 2 and 3 are remarks.

    Raises:
        NotInstalled: Node or npm is not there, or npm could not fetch the parser.
    """
    folder = npm.installed(HERE / "package.json", WHAT)
    done = subprocess.run(
        [npm.tool("node", WHAT), HERE / "validate.cjs", document],
        env={**os.environ, "NODE_PATH": str(folder / "node_modules")},
        capture_output=True,
        check=True,
        timeout=VALIDATE_SECONDS,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found
