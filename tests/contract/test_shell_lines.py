"""Every command line of every document can be typed: the program it names takes it, or what it names exists.

What a page promises of a command's output is held by the page's own test; here no line of any page is left out.
"""

import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import helm_python
import pytest
import typer
import yaml

from connector.cli import app
from tests.chart import rendering

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "helm" / "README.md", ROOT / "avro" / "README.md"]
)
BIN = Path(sys.executable).parent
NOT_YET = "<!-- after the first publication -->"
"""Marks a block of lines that work once a version is published."""

BLOCK = re.compile(r"^( *)```(?:sh|shell|bash|console)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
YAML = re.compile(r"^ *```yaml\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
ASSIGNMENT = re.compile(r"^[A-Za-z_]\w*=")
OPERATORS = {"|", "||", "&&", ";", "&"}
ROUTES = (
    "/messageDeliver",
    "/sources/",
    "/metrics",
    "/livez",
    "/readyz",
    "/healthz",
    "/api/",
    "/console",
    "/subjects",
    "/balancer",
)
UNREACHABLE = ("refused", "unreachable", "daemon", "docker API", "no such host", "connection")
RUN_BY_THE_PAGE_S_TEST = {
    *("python", "kcat", "java", "mvn", "psql", "jq"),
    *("sql-client.sh", "connect-standalone.sh", "start-connect-server.sh"),  # by the class that they call
}
IN_POD = "$POD"
"""What the runbooks put before a command: nothing on a machine, ``kubectl exec`` of a pod in a cluster."""

OF_THE_SYSTEM = {
    "comm",
    "export",
    "cd",
    "df",
    "ls",
    "ssh",
    "grep",
    "tr",
    "od",
    "sed",
    "echo",
    "awk",
    "head",
    "sort",
    "wc",
    "openssl",
    "uv",
}
OF_KAFKA = {"kafka-acls.sh"}


def lines(document: Path) -> Iterator[str]:
    """Each command line of its shell blocks; one that ends in a backslash goes on."""
    text = re.sub(rf"^{NOT_YET}\n```.*?^```$", "", document.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for _, block in BLOCK.findall(text):
        whole = block.replace("\\\n", " ")
        yield from (line.strip() for line in _without_here_documents(whole) if line.strip())


def _without_here_documents(block: str) -> list[str]:
    return re.sub(r"<<-?\s*'?(\w+)'?(.*?)\n.*?^\s*\1$", r"\2", block, flags=re.DOTALL | re.MULTILINE).splitlines()


def commands(line: str) -> Iterator[list[str]]:
    """The words of each command of a line, without variables before them and redirections behind."""
    if line.startswith("#"):
        return
    line = re.sub(r"^\w+=\$\((.*)\)$", r"\1", line)  # what a variable is made of is a command too
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split, lexer.commenters = True, ""
    words: list[str] = []
    for word in [*_until_a_comment(lexer), ";"]:
        if word in OPERATORS:
            while words and (words[0] in {IN_POD, "env"} or ASSIGNMENT.match(words[0])):
                words = words[1:]
            if words:
                yield words
            words = []
        else:
            words.append(word)


def _until_a_comment(words: Iterator[str]) -> Iterator[str]:
    skip = False
    for word in words:
        if word.startswith("#"):
            return
        if set(word) <= set("<>&0123456789") and set(word) & set("<>"):
            skip = True
        elif skip:
            skip = False
        else:
            yield word


EVERY = [
    pytest.param(document, words, id=f"{document.relative_to(ROOT)}: {' '.join(words)[:70]}")
    for document in DOCUMENTS
    for line in lines(document)
    for words in commands(line)
]


@pytest.mark.parametrize(("document", "words"), EVERY)
def test_a_command_line_of_a_document_can_be_typed(document: Path, words: list[str]):
    program = Path(words[0]).name if words[0].startswith((".venv/", "./")) else words[0]
    check = CHECKS.get(program)

    assert check is not None or program in RUN_BY_THE_PAGE_S_TEST | OF_THE_SYSTEM | OF_KAFKA
    if check is not None:
        check(words[1:], document)


def test_the_lines_are_found():
    programs = {param.values[1][0] for param in EVERY}

    assert {"weda-connector", "helm", "kubectl", "docker", "make", "pip", "curl"} <= programs


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (["weda-connector", "tail", "--from-begining"], "No such option"),
        (["weda-connector", "tial"], "No such command"),
        (["helm", "install", "weda", "helm", "--set", "settings.kafka.bootstrap_servers=a:1,b:2"], "key"),
        (["helm", "install", "weda", "helm", "--set", "replicas=2"], "replicas"),
        (["kubectl", "get", "pods", "--nonsense"], "unknown flag"),
        (["docker", "compose", "--profile", "scale", "up", "--nonsense"], "unknown flag"),
        (["docker", "compose", "up", "nobody"], "nobody"),
        (["make", "nothing"], "nothing"),
        (["pip", "install", "weda-kafka-connector"], "weda-kafka-connector"),
        (["curl", "http://127.0.0.1:9464/nowhere"], "nowhere"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else None,
)
def test_a_line_that_nobody_could_run_is_found(words: list[str], wrong: str):
    """The test above can fail."""
    with pytest.raises(Exception) as found:  # noqa: PT011 - of each program its own kind
        CHECKS[words[0]](words[1:], ROOT / "README.md")
    assert wrong in str(getattr(found.value, "message", found.value))


# --- one check a program ---


def of_ours(words: list[str], _: Path) -> None:
    """Parsed as the command line itself does it, group by group; nothing is run."""
    command, name = typer.main.get_command(app), "weda-connector"
    context = None
    while hasattr(command, "resolve_command"):
        if not words or {"--help", "-h"} & {*words[:1]}:
            return
        context = command.make_context(name, [], parent=context, resilient_parsing=True)
        wanted, (name, command, words) = words[0], command.resolve_command(context, words)
        assert command is not None, f"No such command: {wanted}"
    if not {"--help", "-h"} & {*words}:
        command.make_context(name, list(words), parent=context)


def of_make(words: list[str], _: Path) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for word in words:
        assert ASSIGNMENT.match(word) or word in targets, word


def of_helm(words: list[str], document: Path) -> None:
    """An install or upgrade is rendered, with the values that the page itself shows where it names a file."""
    if words[0] not in {"install", "upgrade", "template"}:
        assert words[0] in {"test", "rollback", "uninstall", "list"}
        return
    assert words[2].startswith("dist/weda-connector-") or (ROOT / words[2] / "Chart.yaml").is_file()
    values: dict[str, Any] = {}
    known = {
        "--namespace": 1,
        "--wait": 0,
        "--reset-then-reuse-values": 0,
        "--create-namespace": 0,
        "--set": 1,
        "--values": 1,
    }
    if words[2].startswith("dist/"):
        return  # shown without its values, which are those of the page on Kubernetes
    rest = words[3:]
    while rest:
        option, rest = rest[0], rest[1:]
        argument, rest = (rest[0], rest[1:]) if known[option] else ("", rest)
        if option == "--set":
            merge(values, helm_python.parse_set_string(argument))
        elif option == "--values":
            merge(values, shown(document, argument))
    rendering.objects(values, release=words[1])


@cache
def shown(document: Path, file: str) -> dict[str, Any]:
    """The values that a page shows under a file's name: the YAML block whose first line is ``# <file>``."""
    blocks = [
        yaml.safe_load(block)
        for block in YAML.findall(document.read_text(encoding="utf-8"))
        if block.startswith(f"# {file}")
    ]
    assert len(blocks) == 1, f"{document.name} shows no block that begins with # {file}"
    return blocks[0]


def merge(into: dict[str, Any], more: dict[str, Any]) -> None:
    for name, value in more.items():
        if isinstance(value, dict) and isinstance(into.get(name), dict):
            merge(into[name], value)
        else:
            into[name] = value


def of_kubectl(words: list[str], _: Path) -> None:
    """No cluster is asked: what kubectl does not know it says before it tries."""
    if "exec" in words:
        ours = words[words.index("--") + 1 :]
        assert ours[0] == "weda-connector"
        of_ours(ours[1:], _)
    offline = ["--dry-run=client"] if "create" in words else []
    said = output([BIN / "kubectl", "--server", "http://127.0.0.1:1", "--request-timeout", "1s", *words, *offline])
    assert not said or any(hint in said for hint in (*UNREACHABLE, "created")), said


def of_docker(words: list[str], _: Path) -> None:
    if words[0] != "compose":
        assert words[0] in {"build", "push", "run"}
        assert (ROOT / "Dockerfile").is_file()
        return
    services = {*yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]}
    action = next(word for word in words[1:] if word in {"up", "down", "logs", "ps", "run"})
    for word in words[words.index(action) + 1 :]:
        assert word.startswith("-") or word in services, word
    said = output([BIN / "docker-compose", "-f", ROOT / "docker-compose.yml", *words[1:]])
    assert any(hint in said for hint in UNREACHABLE), said


def output(command: list[Any]) -> str:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={"HOME": "/nonexistent", "DOCKER_HOST": "tcp://127.0.0.1:1"},
    )
    return done.stdout + done.stderr


def of_pip(words: list[str], _: Path) -> None:
    """From the checkout with an extra that exists, or a dependency of ours; our own name is on no index."""
    assert words[0] == "install"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for word in (word for word in words[1:] if not word.startswith("-")):
        name, _, extras = word.partition("[")
        if name == ".":
            assert {*filter(None, extras.rstrip("]").split(","))} <= {*project["optional-dependencies"]}, word
        else:
            assert re.split(r"[=<>~!\[]", word)[0] != project["name"], word


def of_curl(words: list[str], _: Path) -> None:
    [url] = [word for word in words if word.startswith("http")]
    path = "/" + url.partition("://")[2].partition("/")[2].partition("?")[0]
    assert path == "/" or path.startswith(ROUTES), url


def of_python(words: list[str], _: Path) -> None:
    if words[:1] == ["-m"]:
        name = words[1]
        assert importlib.util.find_spec(name) or (ROOT / f"{name.replace('.', '/')}.py").is_file(), name
    else:
        assert (ROOT / words[0]).is_file(), words[0]


CHECKS: dict[str, Callable[[list[str], Path], None]] = {
    "weda-connector": of_ours,
    "make": of_make,
    "helm": of_helm,
    "kubectl": of_kubectl,
    "docker": of_docker,
    "pip": of_pip,
    "curl": of_curl,
}
