"""The image: its instructions are run here one by one, without an engine, and what they made works."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trustme

from connector.admin import liveness
from connector.message.schemas import ALL
from tests.servers.ports import free_ports
from tests.waiting import PATIENCE_SECONDS, wait_until

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
def image(shared_folder) -> Path:
    """A folder in which the build stage's instructions were run; below it are /src and /opt."""
    root = shared_folder / "image"
    root.mkdir()
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
    program += "; from connector.replicas import migrate, postgres"
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


@pytest.fixture
def data(shared_folder) -> Iterator[Path]:
    """The folder of the journal, made by the image's own instruction."""
    [install] = re.findall(r"install --directory (.*) /var/lib/weda-connector", " ".join(values("RUN")))
    folder = shared_folder / "data"
    owners = shlex.split(install) if os.geteuid() == 0 else ["--mode", "0770"]
    subprocess.run(["install", "--directory", *owners, folder], check=True)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def shared_folder() -> Iterator[Path]:
    """A folder that every user of this machine reaches, as every user reaches the root of an image."""
    with TemporaryDirectory(prefix="image-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def as_user(uid: int, gid: int) -> list[str]:
    """What runs a command as another user; nothing where nobody may do that."""
    if os.geteuid() != 0:
        return []
    prefix = ["setpriv", "--reuid", str(uid), "--regid", str(gid), "--clear-groups"]
    interpreter = Path(sys.base_prefix).resolve()
    if all(each.stat().st_mode & 0o001 for each in (interpreter, *interpreter.parents)):
        return prefix
    return [
        *prefix,
        "--inh-caps",
        "+dac_read_search",
        "--ambient-caps",
        "+dac_read_search",
    ]  # to read it, never to write


USERS = {"the image's own": (10001, 10001), "one that OpenShift chose": (1_000_700_000, 0)}
LISTENERS = {
    "plain": {},
    "TLS on every address": {"WEDA_OPERATIONS__HOST": "0.0.0.0", "WEDA_OPERATIONS__TLS_CERTIFICATE": "listener.pem"},
    "IPv6": {"WEDA_OPERATIONS__HOST": "::"},
}


@pytest.mark.parametrize(
    ("user", "listener"),
    [("the image's own", "plain"), ("one that OpenShift chose", "TLS on every address"), ("the image's own", "IPv6")],
)
def test_it_serves_from_a_read_only_root_as_any_user(user, listener, image, data, shared_folder):
    """The journal's folder is all that can be written; the health check finds the listener where the settings say."""
    read_only, certificate = shared_folder / "read-only", shared_folder / "listener.pem"
    read_only.mkdir(mode=0o555, exist_ok=True)
    trustme.CA().issue_cert("weda.example.com").private_key_and_cert_chain_pem.write_to_path(certificate)
    certificate.chmod(0o644)
    port, operations = free_ports(2)
    [entry] = [json.loads(text) for text in values("ENTRYPOINT")]
    [command] = [json.loads(text) for text in values("CMD")]
    settings = {
        name: str(certificate) if text == certificate.name else text for name, text in LISTENERS[listener].items()
    }
    environment = clean(
        PATH=f"{image}/opt/weda-connector/bin:{os.environ['PATH']}",
        HOME="/",
        WEDA_KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:1",
        WEDA_JOURNAL__PATH=str(data / "journal.db"),
        WEDA_TOKEN="a-token",
        WEDA_RECEIVER__HOST="127.0.0.1",
        WEDA_RECEIVER__PORT=str(port),
        WEDA_OPERATIONS__PORT=str(operations),
        PYTHONDONTWRITEBYTECODE="1",
        **settings,
    )
    uid, gid = USERS[user]
    run = as_user(uid, gid)
    check = [*run, *json.loads(" ".join(values("HEALTHCHECK")).partition(" CMD ")[2])]
    examine = partial(subprocess.run, check, cwd=read_only, env=environment, check=False, capture_output=True)
    serve = [*run, *entry, *command]
    with subprocess.Popen(serve, cwd=read_only, env=environment, stderr=subprocess.PIPE) as serving:
        try:
            wait_until(lambda: listens(operations))
            healthy = examine()
        finally:
            serving.terminate()
            _, said = serving.communicate(timeout=PATIENCE_SECONDS)

    assert serving.returncode == 0, said
    assert healthy.returncode == 0, healthy.stderr
    assert list(read_only.iterdir()) == []
    assert (data / "journal.db").stat().st_uid == (uid if run else os.geteuid())
    unhealthy = examine()
    assert (unhealthy.returncode, f":{operations}/livez" in unhealthy.stderr.decode()) == (1, True)


@pytest.mark.parametrize("form", ["--config {}", "--config={}"])
def test_the_health_check_reads_the_file_that_serve_was_given(form, tmp_path, capsys, monkeypatch):
    """The environment of the check does not name it: only the command line of the container's first process does."""
    monkeypatch.delenv("WEDA_CONFIG", raising=False)
    port, operations = free_ports(2)
    file = tmp_path / "connector.yaml"
    settings = {
        "kafka": {"bootstrap_servers": "127.0.0.1:1"},
        "receiver": {"host": "127.0.0.1", "port": port},
        "operations": {"port": operations},
        "journal": {"path": str(tmp_path / "journal.db")},
    }
    file.write_text(json.dumps(settings))
    command = [Path(sys.executable).with_name("weda-connector"), "serve", *form.format(file).split()]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as serving:
        try:
            wait_until(lambda: listens(operations))
            healthy = liveness.main(Path(f"/proc/{serving.pid}/cmdline"))
            serving.send_signal(signal.SIGSTOP)
            unhealthy = liveness.main(Path(f"/proc/{serving.pid}/cmdline"))
        finally:
            serving.send_signal(signal.SIGCONT)
            serving.terminate()

    assert (healthy, unhealthy) == (0, 1)
    assert f":{operations}/livez" in capsys.readouterr().err


def listens(port: int) -> bool:
    try:
        socket.create_connection(("localhost", port)).close()
    except OSError:
        return False
    return True


def test_every_user_may_read_what_is_installed(image):
    installed = image / "opt" / "weda-connector"
    files = [each for each in installed.rglob("*") if not each.is_symlink()]

    assert [each for each in files if not each.stat().st_mode & (0o005 if each.is_dir() else 0o004)] == []


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
    assert re.fullmatch(r"3\.\d+-slim-\w+@sha256:[0-9a-f]{64}", base)
