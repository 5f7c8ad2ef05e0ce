"""``python -m tools.release build | check | tag TAG | notes``: makes a release candidate in ``dist/`` and checks it.

``build`` makes the sdist, the wheel from that sdist, the packaged chart, the bill of materials and ``SHA256SUMS``.
``check`` builds a copy of the tree in another folder, compares byte for byte, installs the wheel into a new environment
outside of the checkout and runs the demo there. ``tag`` holds a tag against every place that names the version;
``notes`` prints what the changelog says of this version. Exit code 1: something is not as it should be.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import helm_python
import yaml

from tests.supply.__main__ import materials

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
SUMS = "SHA256SUMS"
BIN = Path(sys.executable).parent
DEMO = ("--instances", "20", "--rate", "200", "--seconds", "5", "--port", "0")
SECONDS = 600


class Refused(Exception):
    """The candidate must not be released; the message says why."""


def main(arguments: Sequence[str]) -> int:
    """Do what is asked for."""
    try:
        match arguments:
            case ["build"]:
                build(ROOT, DIST)
                print("".join(f"{path.stat().st_size:>10,}  dist/{path.name}\n" for path in files(DIST)), end="")
            case ["check"]:
                check(DIST)
            case ["tag", tag]:
                hold_against(tag)
            case ["notes"]:
                print(notes(ROOT))
            case _:
                print(__doc__, file=sys.stderr)
                return 2
    except Refused as error:
        print(f"tools.release: {error}", file=sys.stderr)
        return 1
    return 0


# --- build ---


def build(source: Path, target: Path) -> None:
    """Make the candidate of the tree ``source`` in the folder ``target``, which is emptied first."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    environment = {**os.environ, "SOURCE_DATE_EPOCH": epoch()}
    uv: list[str | Path] = [
        BIN / "uv",
        "build",
        "--quiet",
        "--no-build-isolation",
        "--no-create-gitignore",
        "--python",
        sys.executable,
    ]
    _run(*uv, "--out-dir", target, source, environment=environment)
    _run(BIN / "twine", "check", "--strict", *target.glob("weda_kafka_connector-*"))
    package_chart(source / "helm", target)
    if materials(target / f"weda_kafka_connector-{version(source)}.cdx.json"):
        raise Refused("the bill of materials could not be written")
    lines = [f"{sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files(target)]
    (target / SUMS).write_text("".join(lines), encoding="utf-8")


def epoch() -> str:
    """The time that every file of the artefacts gets, in seconds: ``SOURCE_DATE_EPOCH``, else the last commit's."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    return given or _run("git", "-C", ROOT, "log", "-1", "--format=%ct").strip()


def package_chart(chart: Path, target: Path) -> None:
    """Package a copy of the chart: Helm writes the times of its files, which differ from checkout to checkout."""
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(chart, Path(folder) / "chart")
        for path in copy.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
            os.utime(path, (int(epoch()), int(epoch())))
        helm_python.package(copy, destination=target)


def files(folder: Path) -> list[Path]:
    """The artefacts in it, by name."""
    return sorted(path for path in folder.iterdir() if path.is_file())


# --- check ---


def check(folder: Path) -> None:
    """Hold what ``build`` made against a second build, and use it as its users will."""
    with tempfile.TemporaryDirectory(prefix="weda-release-") as elsewhere:
        again = Path(elsewhere) / "again"
        build(copy_of_the_tree(Path(elsewhere) / "tree"), again)
        differing = differences(folder, again)
        if differing:
            raise Refused(f"a second build differs: {', '.join(differing)}")
        print(f"{len(files(again))} files, equal byte for byte in a second build from another folder")
        [wheel] = folder.glob("*.whl")
        use(wheel, Path(elsewhere))


def copy_of_the_tree(target: Path) -> Path:
    """Copy what git knows, or would add, into a new folder: other times, and nothing that lies about."""
    listed = _run("git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target / name)
    return target


def differences(one: Path, other: Path) -> list[str]:
    """Names of the files that are not in both folders, byte for byte."""
    here, there = ({path.name: path.read_bytes() for path in files(each)} for each in (one, other))
    return sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))


def use(wheel: Path, folder: Path) -> None:
    """Install the wheel into a new environment in ``folder``, with pip's choice of dependencies, and run the demo."""
    venv.create(folder / "venv", with_pip=True)
    bare = {name: text for name, text in os.environ.items() if not name.startswith(("PYTHON", "WEDA_", "VIRTUAL_ENV"))}
    _run(folder / "venv/bin/python", "-m", "pip", "install", "--quiet", wheel, environment=bare, folder=folder)
    command = folder / "venv/bin/weda-connector"
    said = _run(command, "--version", environment=bare, folder=folder).strip()
    if said != version(ROOT):
        raise Refused(f"the installed command says that it is {said!r}")
    counts = json.loads(_run(command, "demo", *DEMO, environment=bare, folder=folder).splitlines()[-1])
    if not counts["published"] or counts["published"] != counts["accepted"] or counts["lost"] or counts["out_of_order"]:
        raise Refused(f"the demo of the installed wheel ended with {counts}")
    print(
        f"{wheel.name} in Python {'.'.join(map(str, sys.version_info[:3]))}: the demo published {counts['published']}"
    )


# --- versions ---


def version(source: Path) -> str:
    """The project's version: pyproject.toml has it, every other place repeats it."""
    found: str = tomllib.loads((source / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    return found


def named_versions(source: Path) -> dict[str, str]:
    """Each place that names the version, and what it names."""
    chart = yaml.safe_load((source / "helm/Chart.yaml").read_text(encoding="utf-8"))
    compose = (source / "docker-compose.yml").read_text(encoding="utf-8")
    return {
        "pyproject.toml": version(source),
        "helm/Chart.yaml, version": chart["version"],
        "helm/Chart.yaml, appVersion": chart["appVersion"],
        "Dockerfile": _only(r"^ARG VERSION=(\S+)$", (source / "Dockerfile").read_text(encoding="utf-8")),
        "docker-compose.yml, image": _only(r"^  image: weda-connector:(\S+)$", compose),
        "docker-compose.yml, VERSION": _only(r"args: \{VERSION: ([^}]+)\}", compose),
        "CHANGELOG.md": _only(r"\A.*?\[Unreleased\]\s+What will be (\d+\.\d+\.\d+)|\A.*?^## \[(\d\S*)\]", _log(source)),
    }


def hold_against(tag: str) -> None:
    """``Refused`` unless ``tag`` is ``v`` and the version that every place names, dated and with frozen schemas."""
    wrong = [place for place, named in named_versions(ROOT).items() if f"v{named}" != tag]
    if wrong:
        raise Refused(f"the tag is {tag}, and another version is in {'; '.join(wrong)}")
    if not re.search(rf"^## \[{re.escape(tag[1:])}\] - \d{{4}}-\d\d-\d\d$", _log(ROOT), re.MULTILINE):
        raise Refused(f"CHANGELOG.md has no heading '## [{tag[1:]}] - YYYY-MM-DD'")
    open_ones = unfrozen_schemas(ROOT)
    if open_ones:
        raise Refused(f"avro/released/{tag[1:]} does not have, as avro/ has it: {', '.join(open_ones)}")


def unfrozen_schemas(source: Path) -> list[str]:
    """Names of the schemas that the folder of the released version lacks, or has otherwise."""
    folder = source / "avro"
    frozen = folder / "released" / version(source)
    return sorted(
        path.name
        for path in folder.glob("*.avsc")
        if not (frozen / path.name).is_file() or (frozen / path.name).read_bytes() != path.read_bytes()
    )


def notes(source: Path) -> str:
    """The changelog's section of this version; the unreleased one as long as there is none."""
    sections = re.split(r"^## ", _log(source), flags=re.MULTILINE)[1:]
    ours = [section for section in sections if section.startswith(f"[{version(source)}]")] or sections[:1]
    return ours[0].partition("\n")[2].strip()


def _log(source: Path) -> str:
    return (source / "CHANGELOG.md").read_text(encoding="utf-8")


def _only(pattern: str, text: str) -> str:
    """What the pattern's group finds in the text; a sentence where it finds nothing."""
    found = re.search(pattern, text, re.MULTILINE | re.DOTALL)
    return next(filter(None, found.groups())) if found else "no version"


def _run(*command: str | Path, environment: dict[str, str] | None = None, folder: Path | None = None) -> str:
    """Standard output; ``Refused`` with all that was said where it fails."""
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    if done.returncode:
        raise Refused(f"{' '.join(map(str, command))} ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
