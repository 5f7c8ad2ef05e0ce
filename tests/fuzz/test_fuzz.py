"""A short run of each fuzzer; `make fuzz` is the long one."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or sys.version_info >= (3, 14),
    reason="there is no atheris for this machine or Python",
)


@pytest.mark.parametrize(("target", "runs"), [("message", 20_000), ("http", 3_000)])
def test_the_fuzzer_finds_nothing(target, runs, seed):
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", target, "--runs", str(runs), "--seed", str(seed)],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=240,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-5000:]
    assert f"Done {runs} runs" in done.stderr


def test_the_fuzzer_sees_what_it_is_to_find(tmp_path):
    """A defect that only a guided search comes upon: it must end the run."""
    defective = tmp_path / "defective.py"
    defective.write_text(
        "import sys, atheris\n"
        "@atheris.instrument_func\n"
        "def execute(data):\n"
        "    if data[:1] == b'W' and data[1:2] == b'e' and data[2:3] == b'D':\n"
        "        raise RuntimeError('found')\n"
        "atheris.Setup([sys.argv[0], '-runs=200000', '-seed=1', f'-artifact_prefix={sys.argv[1]}/'], execute)\n"
        "atheris.Fuzz()\n"
    )
    done = subprocess.run(
        [sys.executable, defective, tmp_path], capture_output=True, encoding="utf-8", timeout=240, check=False
    )

    assert done.returncode != 0
    assert "RuntimeError: found" in done.stderr + done.stdout
