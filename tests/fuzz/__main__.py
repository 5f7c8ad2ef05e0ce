"""``python -m tests.fuzz TARGET [--runs N] [--seed K]``: fuzz until so many executions, or a finding (exit code 77).

libFuzzer, by atheris, over the instrumented package. A finding is written to the folder that the run prints; give
that file as an argument to play it again.
"""

import argparse
import resource
import sys
import tempfile
from pathlib import Path

import atheris

LONGEST_INPUT = 4096
MOST_MEGABYTES = 1500
MOST_SECONDS = 10

with atheris.instrument_imports(include=["connector"]):
    from tests.fuzz import http_target, message_target

TARGETS = {"message": message_target, "http": http_target}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("inputs", nargs="*", help="files of findings to play again; none: fuzz")
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0, help="of the mutations; 0: chance")
    asked = parser.parse_args()
    target = TARGETS[asked.target]
    folder = Path(tempfile.mkdtemp(prefix=f"weda-fuzz-{asked.target}-"))
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    words = folder / "words"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.WORDS))
    sys.stderr.write(f"findings of this run: {folder}\n")
    # Linux counts the peak of the process that started this one as this one's own.
    peak_megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    options = [
        f"-runs={asked.runs}",
        f"-seed={asked.seed}",
        f"-max_len={LONGEST_INPUT}",
        f"-rss_limit_mb={peak_megabytes + MOST_MEGABYTES}",
        f"-timeout={MOST_SECONDS}",
        f"-artifact_prefix={folder}/",
        f"-dict={words}",
    ]
    atheris.Setup([sys.argv[0], *options, *(asked.inputs or [str(corpus)])], target.execute)
    atheris.Fuzz()


def _escaped(word: bytes) -> str:
    """A word as libFuzzer's dictionaries write it."""
    return "".join(f"\\x{byte:02x}" for byte in word)


if __name__ == "__main__":
    main()
