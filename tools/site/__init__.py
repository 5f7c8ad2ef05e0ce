"""The documents as one browsable site, built strictly: a link that leads nowhere is an error.

The documents are copied with the folders that they have in the repository, so that their links work in both. The
AsyncAPI and OpenAPI documents get the viewers of their projects, served from the site itself.
"""

import shutil
import subprocess
from pathlib import Path
from typing import Final

from tests.servers import npm

ROOT: Final = Path(__file__).parents[2]
SOURCE: Final = ROOT / "dist" / "site-source"
SITE: Final = ROOT / "dist" / "site"
CONFIGURATION: Final = ROOT / "mkdocs.yml"

_HERE: Final = Path(__file__).parent
_DOCUMENTS: Final = (":(glob)*.md", "LICENSE", "docs", "avro", "helm", "bench/*.md", "bench/*.svg", "models", "sinks")
_VIEWERS: Final = {
    "asyncapi": (
        "@asyncapi/react-component",
        ("browser/standalone/index.js", "styles/default.min.css"),
    ),
    "openapi": (
        "swagger-ui-dist",
        ("swagger-ui-bundle.js", "swagger-ui.css"),
    ),
}
"""Each viewer's package in npm, and the files of it that a page loads."""


def stage() -> None:
    """Copy the documents and the viewers to where MkDocs looks for them."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *_DOCUMENTS],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        target = SOURCE / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)
    modules = npm.installed(_HERE / "package.json", "the viewers of the site") / "node_modules"
    for page, (package, files) in _VIEWERS.items():
        folder = SOURCE / "viewers" / page
        folder.mkdir(parents=True)
        for file in files:
            shutil.copyfile(modules / package / file, folder / Path(file).name)
        shutil.copyfile(_HERE / f"{page}.html", folder / "index.html")
        shutil.copyfile(_HERE / f"{page}.md", SOURCE / f"{page}.md")
