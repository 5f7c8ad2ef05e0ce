"""A cluster for the run, and a namespace for each test that takes restricted pods only."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import helm_python
import pytest
import yaml

from tests.chart import tools
from tests.chart.rendering import CHART, complete
from tests.kubernetes.cluster import Kubernetes, Object
from tests.servers import NotInstalled
from tests.waiting import wait_until

SECONDS = 120
RELEASE = "weda"
NAME = "weda-weda-connector"
LOCAL = {"persistence": {"storageClassName": "local"}}


class Releases:
    """What Helm does to one release in one namespace."""

    def __init__(self, cluster: Kubernetes, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self._helm = helm_python.Config(kubeconfig_path=cluster.kubeconfig, namespace=namespace)

    def install(self, values: Object | None = None, chart: Path = CHART, seconds: int = SECONDS) -> None:
        options = {"namespace": self.namespace, "wait": "legacy", "timeout": seconds}
        with self._explained():
            self._helm.install(str(chart), RELEASE, complete({**LOCAL, **(values or {})}), **options)

    def upgrade(self, values: Object | None = None, chart: Path = CHART) -> None:
        options = {"namespace": self.namespace, "wait": "legacy", "timeout": SECONDS}
        with self._explained():
            self._helm.upgrade(str(chart), RELEASE, complete({**LOCAL, **(values or {})}), **options)

    def roll_back(self) -> None:
        with self._explained():
            self._helm.rollback(RELEASE, wait="legacy", timeout=SECONDS)

    def uninstall(self) -> None:
        with self._explained():
            self._helm.uninstall(RELEASE, wait="legacy", timeout=SECONDS)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What Helm waited for in vain is shown by the objects and the events, not by its error."""
        try:
            yield
        except helm_python.HelmError as error:
            for what in ("statefulsets,deployments,jobs,pods,persistentvolumeclaims", "events"):
                error.add_note(self.cluster.kubectl("get", what, "--namespace", self.namespace, "-o", "wide").stdout)
            raise

    def revisions(self) -> list[str]:
        return [each["status"] for each in self._helm.history(RELEASE)]

    def get(self, kind: str) -> list[Object]:
        return self.cluster.get(kind, self.namespace)

    def one(self, kind: str, name: str) -> Object:
        return self.cluster.one(kind, name, self.namespace)

    def claims(self) -> dict[str, tuple[str, str]]:
        """Each volume claim with its identity and its volume."""
        return {
            each["metadata"]["name"]: (each["metadata"]["uid"], each["spec"]["volumeName"])
            for each in self.get("persistentvolumeclaims")
        }

    def pods(self) -> dict[str, Object]:
        """The connector's pods that are not going."""
        return {
            each["metadata"]["name"]: each
            for each in self.get("pods")
            if each["metadata"]["labels"]["app.kubernetes.io/component"] == "connector"
            and "deletionTimestamp" not in each["metadata"]
        }


@pytest.fixture(scope="session")
def cluster(tmp_path_factory) -> Iterator[Kubernetes]:
    """A control plane for the run, with the definitions of the objects that other operators bring."""
    kubernetes = Kubernetes(tmp_path_factory.mktemp("kubernetes"))
    try:
        kubernetes.start()
        for path in tools.custom_definitions():
            kubernetes.apply(yaml.safe_load(path.read_text()))
        wait_until(
            lambda: kubernetes.kubectl("get", "servicemonitors,podmonitors,prometheusrules,httproutes").returncode == 0
        )
        yield kubernetes
    except NotInstalled as error:
        pytest.fail(str(error), pytrace=False)
    finally:
        kubernetes.stop()


@pytest.fixture
def releases(cluster, request) -> Iterator[Releases]:
    """A namespace of its own, which refuses every pod that is not restricted; its volumes are free again afterwards."""
    namespace = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[:60].strip("-")
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}})
    wait_until(lambda: bool(cluster.get("serviceaccounts", namespace)))
    yield Releases(cluster, namespace)
    cluster.kubectl("delete", "namespace", namespace, "--wait=true")
    wait_until(lambda: all(each["status"]["phase"] == "Released" for each in _volumes_of(namespace, cluster)))
    for volume in _volumes_of(namespace, cluster):
        name, freed = volume["metadata"]["name"], '[{"op": "remove", "path": "/spec/claimRef"}]'
        cluster.kubectl("patch", "persistentvolume", name, "--type=json", "--patch", freed)


def _volumes_of(namespace: str, cluster: Kubernetes) -> list[Object]:
    """The volumes that claims of a namespace have, or had."""
    return [
        each
        for each in cluster.get("persistentvolumes")
        if each["spec"].get("claimRef", {}).get("namespace") == namespace
    ]
