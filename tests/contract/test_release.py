"""What a release consists of: the same bytes from every checkout, nothing but the connector, one version everywhere."""

import json
import re
import subprocess
import sys
import tarfile
import zipfile
from hashlib import sha256
from importlib.metadata import version as installed_version

import helm_python
import pytest
import yaml

from connector.message import schemas
from tools import release

MOST_BYTES = 1_000_000
IN_THE_WHEEL = {
    "connector/": {"py", "typed"},
    "connector/replicas/migrations/": {"sql"},
    "connector/operations/static/": {"css", "js", "svg"},
    "connector/operations/templates/": {"html"},
    "connector/avro/": {"avsc"},
    "connector/notify/": {"yaml"},
}
"""Which files may be there, by their folder and the end of their name."""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release") / "dist"
    release.build(release.ROOT, folder)
    return folder


@pytest.fixture(scope="module")
def wheel(built):
    [path] = built.glob("*.whl")
    with zipfile.ZipFile(path) as opened:
        yield opened


def only(folder, pattern):
    [path] = folder.glob(pattern)
    return path


def may_be_there(name):
    end = name.rpartition(".")[2]
    return any(name.startswith(folder) and end in ends for folder, ends in IN_THE_WHEEL.items())


def test_every_place_names_the_project_s_version():
    named = release.named_versions(release.ROOT)

    assert named == dict.fromkeys(named, installed_version("weda-kafka-connector"))
    assert len(named) == 7


def test_the_command_says_its_version():
    said = subprocess.run([sys.executable, "-m", "connector", "--version"], capture_output=True, text=True, check=True)

    assert said.stdout == f"{release.version(release.ROOT)}\n"


@pytest.mark.parametrize(
    ("tag", "wrong"),
    [("v9.9.9", "another version is in pyproject.toml"), ("0.1.0", "another version"), ("v0.1.0", "no heading")],
)
def test_a_tag_that_is_not_the_version_is_refused(tag, wrong, tmp_path, monkeypatch):
    monkeypatch.setattr(release, "ROOT", tree_of("## [Unreleased]\n\nWhat will be 0.1.0.\n", tmp_path))

    with pytest.raises(release.Refused, match=wrong):
        release.hold_against(tag)


def test_a_tag_with_its_dated_heading_is_taken(tmp_path, monkeypatch):
    text = "## [Unreleased]\n\n## [0.1.0] - 2026-12-01\n\nThe first.\n\n## [0.0.9] - 2026-01-01\n\nBefore.\n"
    monkeypatch.setattr(release, "ROOT", tree_of(text, tmp_path))

    release.hold_against("v0.1.0")
    assert release.notes(tmp_path) == "The first."


def test_a_version_whose_schemas_are_not_frozen_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(release, "ROOT", tree_of("## [Unreleased]\n\n## [0.1.0] - 2026-12-01\n", tmp_path))
    schema, frozen = tmp_path / "avro/x.Event.avsc", tmp_path / "avro/released/0.1.0/x.Event.avsc"
    frozen.parent.mkdir(parents=True)
    schema.write_text("{}")

    for text in (None, "{} "):
        if text is not None:
            frozen.write_text(text)
        with pytest.raises(release.Refused, match=r"avro/released/0\.1\.0 does not have, .*: x\.Event\.avsc"):
            release.hold_against("v0.1.0")
    frozen.write_text("{}")
    release.hold_against("v0.1.0")


def tree_of(changelog, folder):
    """A tree of version 0.1.0 with this changelog."""
    (folder / "helm").mkdir()
    (folder / "pyproject.toml").write_text('[project]\nversion = "0.1.0"\n')
    (folder / "helm/Chart.yaml").write_text("version: 0.1.0\nappVersion: 0.1.0\n")
    (folder / "Dockerfile").write_text("ARG VERSION=0.1.0\n")
    (folder / "docker-compose.yml").write_text("  image: weda-connector:0.1.0\n      args: {VERSION: 0.1.0}\n")
    (folder / "CHANGELOG.md").write_text(f"# Changelog\n\n{changelog}", encoding="utf-8")
    return folder


def test_a_copy_of_the_tree_makes_the_same_bytes(built, tmp_path):
    """Another folder, other times of the files, an independent run of every tool."""
    release.build(release.copy_of_the_tree(tmp_path / "tree"), tmp_path / "dist")

    assert release.differences(built, tmp_path / "dist") == []


def test_a_byte_that_differs_is_found(built, tmp_path):
    for path in release.files(built):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    other = only(tmp_path, "*.whl")
    other.write_bytes(other.read_bytes() + b"\0")

    assert release.differences(built, tmp_path) == [other.name]


def test_the_wheel_holds_code_schemas_templates_and_migrations_only(wheel):
    names = [name for name in wheel.namelist() if ".dist-info/" not in name]

    assert [name for name in names if not may_be_there(name)] == []
    assert not may_be_there("connector/avro/README.md")
    assert not may_be_there("docs/settings.md")


def test_the_wheel_holds_all_that_runs(wheel):
    """What git knows of the package, each schema, and the way in."""
    listed = ["git", "-C", release.ROOT, "ls-files", "--cached", "--others", "--exclude-standard", "connector", "avro"]
    tracked = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split()
    present = [name for name in tracked if (release.ROOT / name).is_file() and not name.endswith(".md")]

    assert {re.sub("^avro/", "connector/avro/", name) for name in present} <= set(wheel.namelist())
    assert {f"connector/avro/{name}.avsc" for name in schemas.ALL} <= set(wheel.namelist())
    entry_points = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "weda-connector = connector.cli:main" in wheel.read(entry_points).decode()


def test_the_wheel_is_small(built):
    assert only(built, "*.whl").stat().st_size < MOST_BYTES


def test_the_sdist_holds_what_a_wheel_is_built_from(built):
    with tarfile.open(only(built, "*.tar.gz")) as opened:
        tops = {name.split("/")[1] for name in opened.getnames()}

    assert tops == {
        *("connector", "avro", "pyproject.toml", "PKG-INFO"),
        *("README.md", "CHANGELOG.md", "LICENSE", ".gitignore"),
    }


def test_the_chart_is_packaged_whole(built):
    chart = only(built, "weda-connector-*.tgz")
    with tarfile.open(chart) as opened:
        described = yaml.safe_load(opened.extractfile("weda-connector/Chart.yaml"))

    assert chart.name == f"weda-connector-{described['version']}.tgz"
    assert helm_python.lint(chart, {}, strict=True)["total_charts_linted"] == 1


def test_the_bill_of_materials_is_of_this_version(built):
    bill = json.loads(only(built, "*.cdx.json").read_text(encoding="utf-8"))

    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["version"] == release.version(release.ROOT)
    assert {"uvicorn", "confluent-kafka"} <= {each["name"] for each in bill["components"]}


def test_the_sums_are_of_every_other_file(built):
    lines = [line.split("  ") for line in (built / release.SUMS).read_text(encoding="utf-8").splitlines()]

    others = [path for path in release.files(built) if path.name != release.SUMS]
    assert lines == [[sha256(path.read_bytes()).hexdigest(), path.name] for path in others]
