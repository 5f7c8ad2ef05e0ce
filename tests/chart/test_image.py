"""The image: its instructions are run here one by one, without an engine, and what they made works."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from connector.message.schemas import ALL
from tests.servers.ports import free_ports

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "Dockerfile"
CONTINUED = re.compile(r"\\\n\s*")


def instructions() -> list[tuple[str, str]]:
    """Word and the rest of each instruction, comments and line ends gone."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    return [tuple(line.split(" ", 1)) for line in CONTINUED.sub("", "\n".join(lines)).splitlines() if line]


def values(word: str) -> list[str]:
    return [rest for found, rest in instructions() if found == word]


def copied() -> list[tuple[str, str]]:
    """What is copied from the checkout: each source with its target."""
    words = [shlex.split(rest) for rest in values("COPY") if not rest.startswith("--from")]
    return [(source, each[-1]) for each in words for source in each[:-1]]


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Path:
    """A folder in which the build stage's instructions were run; below it are /src and /opt."""
    root = tmp_path_factory.mktemp("image")
    (root / "src").mkdir()
    (root / "opt").mkdir()
    build = instructions()[: [rest for _, rest in instructions()].index("python:${PYTHON}")]
    for word, rest in build:
        if word == "COPY":
            *sources, target = shlex.split(rest)
            for source in sources:
                copy(ROOT / source, root / "src" / target / ("" if source.endswith("/") else source))
        elif word == "RUN":
            moved = re.sub(r"(?<![\w.])/(opt|src)/", rf"{root}/\1/", rest)
            python = f"{sys.base_prefix}/bin/python{sys.version_info.major}.{sys.version_info.minor}"
            command = re.sub(r"(^|&& )python ", rf"\1{python} ", moved)
            subprocess.run(["sh", "-ec", command], cwd=root / "src", check=True, env=clean(), capture_output=True)
    return root


def copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


def clean(**more: str) -> dict[str, str]:
    """An environment without the tests' own Python and settings."""
    kept = {name: text for name, text in os.environ.items() if name in {"PATH", "HOME", "LANG", "SSL_CERT_FILE"}}
    kept |= {name: text for name, text in os.environ.items() if name.startswith(("PIP_", "HTTP", "NO_PROXY"))}
    return kept | more


def test_the_instructions_make_a_connector_with_its_schemas(image):
    """The wheel brings avro/; the environment is complete, with what a shared journal and traces need."""
    python = image / "opt" / "weda-connector" / "bin" / "python"
    program = (
        "from connector.message import schemas; print(*(schemas.load(name).name for name in schemas.ALL), sep='\\n')"
    )
    program += "; from connector.replicas import database, migrate"
    program += (
        "; from opentelemetry.exporter.otlp.proto.http import trace_exporter; from opentelemetry.sdk import trace"
    )

    loaded = subprocess.run([python, "-c", program], cwd="/", env=clean(), check=True, capture_output=True, text=True)
    packages = subprocess.run(
        [image / "opt" / "builder" / "bin" / "python", "-m", "pip", "--python", python, "check"],
        env=clean(),
        check=True,
        capture_output=True,
        text=True,
    )

    assert len(loaded.stdout.splitlines()) == len(ALL)
    assert "No broken requirements" in packages.stdout


def test_it_serves_from_a_working_directory_that_is_read_only(image, tmp_path):
    """As in Kubernetes: the journal's folder is all that can be written; the health check of the image sees it live."""
    read_only, written = tmp_path / "read-only", tmp_path / "written"
    read_only.mkdir(mode=0o555)
    written.mkdir()
    port, operations = free_ports(2)
    [entry] = [json.loads(text) for text in values("ENTRYPOINT")]
    [command] = [json.loads(text) for text in values("CMD")]
    environment = clean(
        PATH=f"{image}/opt/weda-connector/bin:{os.environ['PATH']}",
        WEDA_KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:1",
        WEDA_JOURNAL__PATH=str(written / "journal.db"),
        WEDA_TOKEN="a-token",
        WEDA_RECEIVER__HOST="127.0.0.1",
        WEDA_RECEIVER__PORT=str(port),
        WEDA_OPERATIONS__PORT=str(operations),
        PYTHONDONTWRITEBYTECODE="1",
    )
    with subprocess.Popen([*entry, *command], cwd=read_only, env=environment, stderr=subprocess.PIPE) as serving:
        try:
            wait_for(f"http://127.0.0.1:{operations}/readyz")
            check = json.loads(" ".join(values("HEALTHCHECK")).partition(" CMD ")[2])
            healthy = subprocess.run(check, cwd=read_only, env=environment, check=False)
        finally:
            serving.terminate()
            _, said = serving.communicate(timeout=40)

    assert serving.returncode == 0, said
    assert healthy.returncode == 0
    assert list(read_only.iterdir()) == []
    assert (written / "journal.db").exists()
    unhealthy = subprocess.run(check, cwd=read_only, env=environment, check=False, capture_output=True)
    assert unhealthy.returncode == 1


def wait_for(url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_what_is_copied_exists_and_nothing_else_is_sent_to_the_engine():
    ignore = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    let_in = {line.removeprefix("!") for line in ignore if line.startswith("!")}

    assert ignore[0] == "*"
    assert {source.rstrip("/") for source, _ in copied()} == let_in
    assert all((ROOT / source).exists() for source, _ in copied())


def test_it_runs_as_nobody_in_particular_and_says_what_it_is():
    [user] = values("USER")
    labels = " ".join(values("LABEL"))

    assert user == "10001:10001"
    for name in ("title", "description", "licenses", "version", "revision"):
        assert f"org.opencontainers.image.{name}=" in labels
    assert all(rest.startswith(("[", "--")) for word, rest in instructions() if word in {"CMD", "ENTRYPOINT"})
    assert f'version = "{values("ARG")[1].partition("=")[2]}"' in (ROOT / "pyproject.toml").read_text()


def test_it_has_the_python_of_the_tests():
    [base] = re.findall(r"^ARG PYTHON=(\S+)$", DOCKERFILE.read_text(), re.MULTILINE)

    assert base.startswith(f"{sys.version_info.major}.{sys.version_info.minor}-slim") or sys.version_info[:2] != (3, 11)
