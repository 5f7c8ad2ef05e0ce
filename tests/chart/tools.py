"""Programs in Go and definitions of other people's objects that the chart is held against, built and fetched once.

``python -m tests.chart.tools install`` does it for the quick tests; those on a real API server build more.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from tests.servers.artifacts import cache_folder
from tests.servers.errors import NotInstalled, ServerError

INSTALL = "python -m tests.chart.tools install"
OLDEST, NEWEST = "1.27.0", "1.37.0"
"""Kubernetes versions that the chart is held against: what Chart.yaml asks for, and the newest there are schemas of."""

OPERATOR = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
GATEWAY = "sigs.k8s.io/gateway-api@v1.4.0"
DEFINITIONS = {
    "ServiceMonitor": (OPERATOR, "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml"),
    "PodMonitor": (OPERATOR, "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml"),
    "PrometheusRule": (OPERATOR, "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml"),
    "HTTPRoute": (GATEWAY, "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml"),
}


@dataclass(frozen=True)
class GoProgram:
    """A program that ``go install`` builds."""

    package: str
    version: str

    @property
    def path(self) -> Path:
        """Where it is once it is built."""
        name = self.package.rpartition("/")[2]
        return cache_folder() / f"{name}-{self.version}" / name

    def installed(self) -> Path:
        """As ``path``; ``NotInstalled`` where it was never built."""
        if not self.path.is_file():
            raise NotInstalled(f"{self.path.name} {self.version} is not built on this machine yet: {INSTALL}")
        return self.path

    def install(self) -> None:
        """Build it, unless that was done."""
        if self.path.is_file():
            return
        sys.stderr.write(f"building {self.path.name} {self.version} for the tests (once)\n")
        with building(self.path.parent) as part:
            run_go("install", f"{self.package}@{self.version}", GOBIN=str(part))


KUBECONFORM = GoProgram("github.com/yannh/kubeconform/cmd/kubeconform", "v0.8.0")
KUBE_SCORE = GoProgram("github.com/zegl/kube-score/cmd/kube-score", "v1.20.0")
HELM_DOCS = GoProgram("github.com/norwoodj/helm-docs/cmd/helm-docs", "v1.14.2")


def write_readme(chart: Path) -> None:
    """Write the chart's README.md by helm-docs, which must be built."""
    command = [HELM_DOCS.installed(), "--chart-search-root", chart, "--sort-values-order", "file"]
    subprocess.run(command, capture_output=True, check=True)


@contextmanager
def building(folder: Path) -> Iterator[Path]:
    """A folder to fill, which is put in its place in one step: it is complete wherever it exists."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="building-") as part:
        complete = Path(part) / "complete"
        complete.mkdir()
        yield complete
        try:
            complete.rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another run was quicker, with the same versions
                raise


def run_go(*arguments: str, folder: Path | None = None, **environment: str) -> str:
    """What ``go`` prints; ``NotInstalled`` where there is none, ``ServerError`` where it fails."""
    go = shutil.which("go")
    if not go:
        raise NotInstalled("the chart's tests need Go 1.26 or newer on the PATH (Debian: golang-go)")
    known = {**os.environ, "CGO_ENABLED": "0", **environment}
    done = subprocess.run([go, *arguments], cwd=folder, env=known, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ServerError(f"go {' '.join(arguments)} failed:\n{done.stderr}")
    return done.stdout


def downloaded(module: str) -> Path:
    """The folder of a Go module's sources; ``module`` is ``path@version``."""
    return Path(json.loads(run_go("mod", "download", "-json", module))["Dir"])


# --- schemas ---


def schemas() -> Path:
    """The folder with JSON Schemas for kubeconform; ``NotInstalled`` where they were never written."""
    folder = _schema_folder()
    if not folder.is_dir():
        raise NotInstalled(f"the schemas of Kubernetes are not on this machine yet: {INSTALL}")
    return folder


def custom_definitions() -> list[Path]:
    """The CustomResourceDefinitions of the objects that the chart can make and Kubernetes does not bring."""
    return [schemas() / "definitions" / f"{kind}.yaml" for kind in DEFINITIONS]


def install_schemas() -> None:
    """Write the schemas of Kubernetes and of the others' objects into the cache, unless that was done."""
    folder = _schema_folder()
    if folder.is_dir():
        return
    with building(folder) as part:
        for version in (OLDEST, NEWEST):
            _write_own_schemas(version, part)
        (part / "definitions").mkdir()
        (part / "custom").mkdir()
        for kind, (module, file) in DEFINITIONS.items():
            _write_custom_schema(kind, downloaded(module) / file, part)


def _write_own_schemas(version: str, part: Path) -> None:
    """kubernetes-validate brings them; their names and references lead to a server, ours to the file beside."""
    target = part / f"v{version}-standalone-strict"
    target.mkdir()
    bundled = resources.files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}-local-strict"
    for file in bundled.iterdir():
        schema = json.loads(file.read_text(encoding="utf-8").replace('"/api/_definitions.json#', '"_definitions.json#'))
        schema.pop("$id", None)
        (target / file.name).write_text(json.dumps(schema), encoding="utf-8")


def _write_custom_schema(kind: str, definition: Path, part: Path) -> None:
    text = definition.read_text(encoding="utf-8")
    (part / "definitions" / f"{kind}.yaml").write_text(text, encoding="utf-8")
    [version] = [each for each in yaml.safe_load(text)["spec"]["versions"] if each["storage"]]
    schema = _closed(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}  # Kubernetes' own, which a definition leaves out
    (part / "custom" / f"{kind.lower()}-{version['name']}.json").write_text(json.dumps(schema), encoding="utf-8")


def _closed(node: Any) -> Any:
    """A schema that refuses what it does not know, as the API server does when asked to."""
    if isinstance(node, list):
        return [_closed(each) for each in node]
    if not isinstance(node, dict):
        return node
    closed = {name: _closed(each) for name, each in node.items()}
    is_open = node.get("type") == "object" and isinstance(node.get("properties"), dict)
    return {"additionalProperties": False, **closed} if is_open else closed


def _schema_folder() -> Path:
    versions = [OLDEST, NEWEST, *sorted({module.rpartition("@")[2] for module, _ in DEFINITIONS.values()})]
    return cache_folder() / f"kubernetes-schemas-{'-'.join(versions)}-of-{len(DEFINITIONS)}"


def install() -> None:
    """All that the quick tests need."""
    KUBECONFORM.install()
    install_schemas()


if __name__ == "__main__":
    if sys.argv[1:] != ["install"]:
        sys.exit(f"usage: {INSTALL}")
    try:
        install()
    except ServerError as error:
        sys.exit(f"tests.chart.tools: {error}")
