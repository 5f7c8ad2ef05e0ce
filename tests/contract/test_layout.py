"""The package is laid out as CONTRIBUTING says: imports point downwards, and what is pure stays pure."""

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "connector"

LAYERS = (
    {"errors"},
    {"values"},
    {
        "authentication",
        "avro_writer",
        "compatibility",
        "dead_letters",
        "recent",
        "delivery",
        "dictionary",
        "embedded",
        "encoding",
        "health",
        "ingest",
        "journal",
    }
    | {"lanes", "logs", "messages", "metrics", "publisher", "reading", "records", "registry", "repeats", "salvage"}
    | {"journal_file", "schemas", "settings", "simulator", "streams", "testing", "topics", "write_ahead_log"}
    | {"ages", "deadlines", "detached", "open_file", "supervision", "tallies", "timestamps", "typed_messages"}
    | {"addresses", "causes", "heads", "limits", "privacy", "rotation", "signatures", "tls", "visible"}
    | {"claims", "database", "lease", "migration", "shared_journal"},
    {"pipeline", "single_use"},
    {"replay"},
    {"receiver", "operations", "wire", "protocol", "canary", "tracing"},
    {"app", "backlog", "consuming", "demo", "descriptions", "remote", "draft", "doctor"},
    {"cli"},
    {"__main__"},
)
"""Lowest first: errors, values, steps and adapters; the story; the listeners; the composition root; the commands."""

PURE = {
    "errors": set(),
    "values": set(),
    "addresses": set(),
    "messages": set(),
    "signatures": set(),
    "records": set(),
    "typed_messages": set(),
    "avro_writer": set(),
    "streams": set(),
    "lanes": set(),
    "visible": set(),
}
IMPURE_MODULES = {
    *("asyncio", "threading", "time", "socket", "os", "pathlib", "io", "random", "secrets", "subprocess", "tempfile"),
    *(
        "logging",
        "structlog",
        "prometheus_client",
        "confluent_kafka",
        "apsw",
        "psycopg",
        "sqlite3",
        "aiohttp",
        "fastapi",
        "uvicorn",
    ),
}
IMPURE_CALLS = {"open", "print", "input", "now", "today", "utcnow", "sleep", "create_task"}
THREADS = {"publisher": {"threading"}, "journal": {"threading", "queue"}, "logs": {"threading", "queue"}}
"""The modules that own a thread, and the modules that serve threads which they may import."""
READERS_OF_THE_ENVIRONMENT = {
    "connector/settings.py",
    "connector/demo/options.py",  # chooses which of the user's variables `Settings.load` gets to see
}


def part_of(path: Path) -> str:
    """The module directly under the package that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def files() -> tuple[tuple[str, Path, ast.Module], ...]:
    paths = sorted(PACKAGE.rglob("*.py"))
    return tuple((part_of(path), path, ast.parse(path.read_text(encoding="utf-8"))) for path in paths)


def imported(tree: ast.AST) -> Iterator[str]:
    """Full names of the modules that are imported, wherever in the file; of ``from a import b`` also ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or ""
            yield from (f"{node.module}.{one.name}" for one in node.names)


def ours(tree: ast.AST) -> set[str]:
    """The parts of the package that are imported."""
    parts = {name.split(".")[1] for name in imported(tree) if name.startswith("connector.")}
    return parts & {part for part, _, _ in files()}


def theirs(tree: ast.AST) -> set[str]:
    """The packages outside that are imported."""
    return {name.split(".")[0] for name in imported(tree)} - {"connector"}


def layer(part: str) -> int:
    return next(number for number, parts in enumerate(LAYERS) if part in parts)


def where(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"


def test_every_module_has_its_layer():
    assert {part for part, _, _ in files()} - {"__init__"} - set().union(*LAYERS) == set()


def test_no_import_points_upwards():
    upwards = [
        f"{path.relative_to(ROOT)} imports {other}"
        for part, path, tree in files()
        for other in ours(tree) - {part}
        if part != "__init__" and layer(other) > layer(part)
    ]

    assert upwards == []


@pytest.mark.parametrize(("one", "other"), [("receiver", "operations"), ("operations", "receiver"), ("app", "demo")])
def test_neighbours_do_not_import_each_other(one, other):
    assert [path for part, path, tree in files() if part == one and other in ours(tree)] == []


def test_no_imports_go_in_a_circle():
    graph = {part: set() for part, _, _ in files()}
    for part, _, tree in files():
        graph[part] |= ours(tree) - {part}

    TopologicalSorter(graph).prepare()


def test_the_simulator_knows_nothing_of_the_connector_but_its_errors():
    assert set().union(*(ours(tree) for part, _, tree in files() if part == "simulator")) <= {"errors", "simulator"}


def test_what_is_for_tests_is_used_by_tests_only():
    assert [path for part, path, tree in files() if part != "testing" and "testing" in ours(tree)] == []


def test_settings_alone_reads_the_environment():
    names = {"environ", "environb", "getenv", "getenvb"}
    readers = {
        str(path.relative_to(ROOT))
        for _, path, tree in files()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and node.attr in names)
        or (isinstance(node, ast.alias) and node.name in names)
    }

    assert readers == READERS_OF_THE_ENVIRONMENT


def test_publisher_and_journal_alone_have_threads():
    threaded = {
        f"{path.relative_to(ROOT)} imports {name}"
        for part, path, tree in files()
        for name in theirs(tree) & {"threading", "queue", "multiprocessing", "_thread"}
        if name not in THREADS.get(part, set())
    }

    assert threaded == set()


def test_publisher_alone_makes_a_producer_that_publishes():
    """The embedded broker is owned by a producer too, which produces nothing."""
    produces = {
        part
        for part, _, tree in files()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "produce"
    }

    assert produces == {"publisher"}


@pytest.mark.parametrize("name", PURE)
def test_what_is_pure_has_no_io_clock_log_or_metric(name):
    (tree,) = [tree for part, _, tree in files() if part == name]
    calls = {
        node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    }

    assert theirs(tree) & IMPURE_MODULES <= PURE[name]
    assert calls & IMPURE_CALLS == set()
    assert not any(isinstance(node, ast.AsyncFunctionDef | ast.Await) for node in ast.walk(tree))


def public_definitions(path: Path, tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """The module, its public functions and classes, and their public methods."""
    yield where(path, tree), tree
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    for owner in (tree, *classes):
        for node in owner.body:
            is_definition = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            if is_definition and not node.name.startswith("_"):
                yield where(path, node), node


def test_every_public_module_class_and_function_has_a_docstring():
    bare = [
        place
        for _, path, tree in files()
        for place, node in public_definitions(path, tree)
        if not ast.get_docstring(node)
    ]

    assert bare == []
