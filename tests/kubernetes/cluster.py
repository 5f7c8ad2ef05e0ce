"""A control plane of plain processes: etcd, API server, controllers, scheduler, and kwok, which plays the nodes."""

import json
import secrets
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.kubernetes.programs import program, stages
from tests.servers.errors import DidNotStart
from tests.servers.ports import LOOPBACK, free_ports
from tests.servers.processes import ServerProcess
from tests.waiting import NotInTime, wait_until

NODES = ("node-1", "node-2")
VOLUMES = 6

Object = dict[str, Any]

PATIENCE = "--node-monitor-grace-period=24h"
"""A heartbeat that is late on a busy machine must not count: the controller marks the node's pods as not ready, which a
kubelet would take back and kwok does not, so that whoever waits for them waits for ever."""


class Kubernetes:
    """A running cluster with two nodes and some volumes of the class `local`.

    Attributes:
        kubeconfig: File for clients, with every right.
    """

    def __init__(self, state: Path) -> None:
        self._state = state
        self._processes: list[ServerProcess] = []
        self.kubeconfig = state / "kubeconfig"
        self._etcd, self._peers, self._api, self._kwok = free_ports(4)

    def start(self) -> None:
        """Start every part; ``DidNotStart`` names the one that did not come up."""
        self._write_credentials()
        self._run("etcd", *self._etcd_options())
        self._run("kube-apiserver", *self._api_options())
        self._until("kube-apiserver", lambda: self.kubectl("get", "--raw", "/readyz").returncode == 0)
        kubeconfig = f"--kubeconfig={self.kubeconfig}"
        self._run(
            "kube-controller-manager",
            kubeconfig,
            f"--service-account-private-key-file={self._state / 'accounts.key'}",
            "--leader-elect=false",
            "--secure-port=0",
            "--bind-address=" + LOOPBACK,
            PATIENCE,
        )
        self._run("kube-scheduler", kubeconfig, "--leader-elect=false", "--secure-port=0")
        self._run(
            "kwok",
            kubeconfig,
            f"--config={stages()}",
            "--manage-all-nodes=true",
            f"--server-address={LOOPBACK}:{self._kwok}",
        )
        for name in NODES:
            self.apply(_node(name))
        self.apply(_storage_class(), *map(self._volume, range(VOLUMES)))
        self._until("kwok", lambda: all(_is_ready(each) for each in self.get("nodes")))

    def stop(self) -> None:
        """End every part."""
        for process in reversed(self._processes):
            process.kill()

    def kubectl(self, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        """What kubectl says."""
        command = [Path(sys.executable).with_name("kubectl"), f"--kubeconfig={self.kubeconfig}", *arguments]
        return subprocess.run(command, input=given, capture_output=True, text=True, check=False)

    def apply(self, *objects: Object) -> None:
        """Create or change objects."""
        done = self.kubectl("apply", "--server-side", "-f", "-", given=yaml.safe_dump_all(objects))
        assert done.returncode == 0, done.stderr

    def get(self, kind: str, namespace: str = "default") -> list[Object]:
        """All objects of a kind."""
        found = self.kubectl("get", kind, "--namespace", namespace, "--output", "json")
        assert found.returncode == 0, found.stderr
        items: list[Object] = json.loads(found.stdout)["items"]
        return items

    def one(self, kind: str, name: str, namespace: str) -> Object:
        """The object of a kind that has the name."""
        [found] = [each for each in self.get(kind, namespace) if each["metadata"]["name"] == name]
        return found

    # --- the parts ---

    def _volume(self, number: int) -> Object:
        name = f"volume-{number}"
        return volume(name, str(self._state / name))

    def _run(self, name: str, *options: str) -> None:
        process = ServerProcess(name, [str(program(name)), *options], self._state, detached=False)
        process.start()
        self._processes.append(process)

    def _until(self, name: str, true: Callable[[], bool]) -> None:
        def dead() -> list[ServerProcess]:
            return [each for each in self._processes if not each.running]

        with suppress(NotInTime):
            wait_until(lambda: dead() or true())
        if dead() or not true():
            [process, *_] = dead() or [each for each in self._processes if each.name == name]
            raise DidNotStart(f"{process.name} did not come up; its log ends:\n{process.last_lines()}")

    def _write_credentials(self) -> None:
        """A token with every right, and the key that signs those of service accounts."""
        token = secrets.token_hex()
        (self._state / "tokens.csv").write_text(f'{token},admin,admin,"system:masters"\n')
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        text = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
        (self._state / "accounts.key").write_bytes(text)
        certificate = self._state / "certificates" / "apiserver.crt"
        cluster = {"server": f"https://{LOOPBACK}:{self._api}", "certificate-authority": str(certificate)}
        context = {"cluster": "test", "user": "admin"}
        kubeconfig = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "admin", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": context}],
        }
        self.kubeconfig.write_text(yaml.safe_dump(kubeconfig))

    def _etcd_options(self) -> tuple[str, ...]:
        clients, peers = f"http://{LOOPBACK}:{self._etcd}", f"http://{LOOPBACK}:{self._peers}"
        return (
            f"--data-dir={self._state / 'etcd'}",
            f"--listen-client-urls={clients}",
            f"--advertise-client-urls={clients}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
            "--unsafe-no-fsync",
        )

    def _api_options(self) -> tuple[str, ...]:
        key = self._state / "accounts.key"
        return (
            f"--etcd-servers=http://{LOOPBACK}:{self._etcd}",
            f"--bind-address={LOOPBACK}",
            f"--advertise-address={LOOPBACK}",
            f"--secure-port={self._api}",
            f"--cert-dir={self._state / 'certificates'}",
            f"--token-auth-file={self._state / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--endpoint-reconciler-type=none",
        )


def _node(name: str) -> Object:
    """A node with room; kwok's own have no disk, and no pod that asks for some would find a place."""
    room = {"cpu": "16", "memory": "64Gi", "pods": "110", "ephemeral-storage": "100Gi"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "annotations": {"kwok.x-k8s.io/node": "fake"}},
        "status": {"allocatable": room, "capacity": room},
    }


def _storage_class() -> Object:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "local"},
        "provisioner": "kubernetes.io/no-provisioner",
        "reclaimPolicy": "Retain",
    }


def volume(name: str, path: str, *, storage_class: str = "local") -> Object:
    """A volume for one claim; without a class for a claim that wants none."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "8Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": storage_class,
            "hostPath": {"path": path},
        },
    }


def _is_ready(node: Object) -> bool:
    conditions = {each["type"]: each["status"] for each in node["status"].get("conditions", ())}
    return conditions.get("Ready") == "True"
