"""The documents as a site: every link leads somewhere, and nothing is loaded from another host."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools import site

BIN = Path(sys.executable).parent
LOADED = re.compile(r"<(?:script|img|iframe)[^>]* src=[\"']?([^\"' >]+)|<link[^>]* href=[\"']?([^\"' >]+)[^>]*>")


@pytest.fixture(scope="module")
def staged(tmp_path_factory):
    site.stage()
    return Path(shutil.copytree(site.SOURCE, tmp_path_factory.mktemp("site") / "source"))


def build(source: Path) -> subprocess.CompletedProcess[str]:
    """Build a copy of what was staged, beside it."""
    configuration = source.with_name("mkdocs.yml")
    configuration.write_text(
        f"INHERIT: {site.CONFIGURATION}\ndocs_dir: {source}\nsite_dir: {source.with_name('built')}\n"
    )
    command = [BIN / "mkdocs", "build", "--config-file", configuration]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def built(staged):
    done = build(staged)
    assert done.returncode == 0, done.stderr
    return staged.with_name("built")


def test_every_document_is_a_page(built):
    """Strictly: a link that leads nowhere, or a page that the navigation leaves out, ends the build."""
    pages = {str(page.relative_to(built)) for page in built.rglob("*.html")}

    assert {
        "index.html",
        "README.zh-CN.html",
        "docs/consuming.html",
        "docs/adr/0001-keep-wedas-field-names.html",
    } <= pages


def test_nothing_is_loaded_from_another_host(built):
    loaded = {
        one or other
        for page in built.rglob("*.html")
        for one, other in LOADED.findall(page.read_text(encoding="utf-8"))
    }

    assert loaded
    assert [each for each in loaded if each.startswith(("http:", "https:", "//"))] == []


@pytest.mark.parametrize("viewer", ["asyncapi", "openapi"])
def test_the_viewers_find_what_they_show(built, viewer):
    page = built / "viewers" / viewer / "index.html"
    files = re.findall(r"(?:src|href)=\"([^\"]+)\"|url: \"([^\"]+)\"", page.read_text(encoding="utf-8"))

    assert len(files) == 3
    for one, other in files:
        assert (page.parent / (one or other)).is_file()


def test_a_link_that_leads_nowhere_ends_the_build(staged, tmp_path):
    source = Path(shutil.copytree(staged, tmp_path / "source"))
    with (source / "README.md").open("a", encoding="utf-8") as page:
        page.write("\n[nowhere](docs/nowhere.md)\n")

    done = build(source)

    assert done.returncode != 0
    assert "docs/nowhere.md" in done.stderr
