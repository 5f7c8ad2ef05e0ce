"""The programs of the control plane, built once from their own Go modules.

``python -m tests.kubernetes.programs install`` takes some twenty minutes of one core the first time.
"""

import hashlib
import re
import sys
from pathlib import Path

from tests.chart import tools
from tests.servers.artifacts import cache_folder
from tests.servers.errors import NotInstalled, ServerError

INSTALL = "python -m tests.kubernetes.programs install"
MODULE = Path(__file__).with_name("control_plane")
PACKAGES = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
}
STAGES = ("node/fast/node-initialize", "node/heartbeat-with-lease/node-heartbeat-with-lease", "pod/fast/pod-ready")
STAGES += ("pod/fast/pod-complete", "pod/fast/pod-delete")
"""What kwok plays, of the stages that come with it: nodes that live, pods that are ready at once, Jobs that end."""

VERSION = re.search(r"k8s\.io/kubernetes (v\S+)", (MODULE / "go.mod").read_text(encoding="utf-8"))[1]
_FLAGS = f"-s -w -X k8s.io/component-base/version.gitVersion={VERSION}"
"""A server that is built from its module does not know its version, and charts ask for it."""

KWOK = tools.GoProgram("sigs.k8s.io/kwok/cmd/kwok", "v0.8.0")


def program(name: str) -> Path:
    """Where a program is; ``NotInstalled`` where it was never built."""
    path = KWOK.path if name == "kwok" else _folder() / name
    if not path.is_file():
        raise NotInstalled(f"{name} is not built on this machine yet: {INSTALL}")
    return path


def stages() -> Path:
    """The file with the stages that kwok plays."""
    return _folder() / "stages.yaml"


def install() -> None:
    """Build what is missing."""
    tools.install()
    for each in (tools.KUBE_SCORE, tools.HELM_DOCS, KWOK):
        each.install()
    folder = _folder()
    if folder.is_dir():
        return
    with tools.building(folder) as part:
        for name, package in PACKAGES.items():
            sys.stderr.write(f"building {name} for the tests (once, some minutes)\n")
            tools.run_go("build", "-trimpath", f"-ldflags={_FLAGS}", "-o", str(part / name), package, folder=MODULE)
        _write_stages(part / "stages.yaml")


def _write_stages(target: Path) -> None:
    module = tools.downloaded(f"sigs.k8s.io/kwok@{KWOK.version}")
    texts = [(module / "kustomize" / "stage" / f"{name}.yaml").read_text(encoding="utf-8") for name in STAGES]
    target.write_text("\n---\n".join(texts), encoding="utf-8")


def _folder() -> Path:
    """Named by the exact versions of all that goes into the programs."""
    sums = hashlib.sha256((MODULE / "go.sum").read_bytes() + _FLAGS.encode()).hexdigest()
    return cache_folder() / f"kubernetes-{sums[:12]}"


if __name__ == "__main__":
    if sys.argv[1:] != ["install"]:
        sys.exit(f"usage: {INSTALL}")
    try:
        install()
    except ServerError as error:
        sys.exit(f"tests.kubernetes.programs: {error}")
