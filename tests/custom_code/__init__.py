"""WeDa's custom code, which runs in Node with node-fetch built in."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.servers import npm

HERE = Path(__file__).parent
WHAT = "what WeDa's custom code has built in"
CALL_SECONDS = 30


def call(method: Path, params: dict[str, Any]) -> dict[str, Any]:
    """What a method returns for its inputs.

    Raises:
        NotInstalled: Node or npm is not there, or npm could not fetch node-fetch.
    """
    folder = npm.installed(HERE / "package.json", WHAT)
    done = subprocess.run(
        [npm.tool("node", WHAT), HERE / "call.cjs", method],
        input=json.dumps(params),
        env={**os.environ, "NODE_PATH": str(folder / "node_modules")},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=CALL_SECONDS,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found
