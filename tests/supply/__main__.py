"""``python -m tests.supply licences | weaknesses | materials FILE``: looks at what the image is made of.

Exit code 1: a licence that is not on the list, or a known weakness. A service that cannot be asked is no pass: it is
said in capitals, and the exit code is 0 only because a machine without a network must be able to go on.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
REQUIREMENTS = tuple(ROOT / "requirements" / name for name in ("postgresql.txt", "otlp.txt", "notify.txt"))
"""What the image is installed from: each has the connector's own parts, and those of an extra."""

LICENCES = (
    *("Apache", "MIT", "BSD", "ISC", "PSF", "Python Software Foundation", "Mozilla Public License 2.0", "MPL-2.0"),
    *("any-OSI", "Public Domain", "Unlicense", "0BSD"),
    "LGPL-3.0-only",
)
"""What may stand in the licence of a part: terms that a service under Apache 2.0 can keep.

The LGPL is psycopg's, which is installed as it is and can be replaced.
"""
PART = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==\S+(.*)(?:\n[ \t]+.*)*", re.MULTILINE)

BIN = Path(sys.executable).parent
SECONDS = 120
UNREACHABLE = re.compile(
    r"ConnectionError|ServiceError|Max retries|timed out|NewConnectionError|HTTPError", re.IGNORECASE
)


def main(arguments: list[str]) -> int:
    """Run the check that is asked for."""
    match arguments:
        case ["licences"]:
            return licences()
        case ["weaknesses"]:
            return weaknesses()
        case ["materials", path]:
            return materials(Path(path))
    sys.stderr.write(__doc__ or "")
    return 2


def parts() -> list[str]:
    """The distributions of it that are installed on this machine."""
    return [name for name, part in _pinned().items() if "win32'" not in part[2] or "!=" in part[2]]


def _pinned() -> dict[str, re.Match[str]]:
    """Each distribution once, as the files pin it: its name, what may follow it, its hashes."""
    texts = [path.read_text(encoding="utf-8") for path in REQUIREMENTS]
    return {part[1]: part for text in texts for part in PART.finditer(text)}


def licences() -> int:
    """Whether each part's licence is one of ours."""
    command = [BIN / "pip-licenses", "--from=mixed", "--partial-match", f"--allow-only={';'.join(LICENCES)}"]
    done = subprocess.run([*command, "--packages", *parts()], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.stderr.write(f"licences: {done.stderr.strip() or done.stdout.strip()}\n")
        return 1
    return 0


def weaknesses() -> int:
    """Whether a weakness of a part is known; says so loudly where that could not be asked, of all parts or of some."""
    options = ["--require-hashes", "--disable-pip", "--progress-spinner=off", "--format=json", "--timeout=10"]
    try:
        done = subprocess.run(
            [BIN / "pip-audit", *options, *(option for path in REQUIREMENTS for option in ("-r", path))],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        reported = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        reported = []
    asked = [part for part in reported if "skip_reason" not in part]
    weak = [part for part in asked if part["vulns"]]
    for part in weak:
        ids = ", ".join(one["id"] for one in part["vulns"])
        sys.stderr.write(f"weaknesses: {part['name']} {part['version']}: {ids}\n")
    unasked = max(len(reported), len(parts())) - len(asked)
    if unasked:
        sys.stderr.write(
            f"KNOWN WEAKNESSES WERE NOT CHECKED for {unasked} parts: pip-audit's service has no answer from here\n"
        )
    return 1 if weak else 0


def materials(path: Path) -> int:
    """Write the bill of materials."""
    path.parent.mkdir(parents=True, exist_ok=True)
    command = [BIN / "cyclonedx-py", "requirements", "-", "--pyproject", ROOT / "pyproject.toml"]
    pinned = "\n".join(part[0] for part in _pinned().values())
    done = subprocess.run([*command, "--output-reproducible", "-o", path], input=pinned, text=True, check=False)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
