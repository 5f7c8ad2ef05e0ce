"""``python -m tools.smoke compose | kind``: the image as its users start it; simulated messages, then counted in Kafka.

Both need Docker. ``compose`` starts the compose file under a project name of its own; ``kind`` builds the image, loads
it into the cluster of the current context, which must be one of kind's, and installs the chart beside a broker. What
was started is removed again. Exit code 1: a part did not start, or other messages were counted than accepted.
"""

import json
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
COMPOSE = ("docker", "compose", "--project-name", "weda-connector-smoke", "--profile", "simulate")
NAMESPACE = "weda-smoke"
TOPIC = "weda.workflow.events"
COUNT = ("/opt/kafka/bin/kafka-get-offsets.sh", "--bootstrap-server", "kafka:9092", "--topic", TOPIC)
SECONDS = 60
"""How long the last records may take into Kafka; an accepted message is in its journal until then."""


def main(arguments: Sequence[str]) -> int:
    """Play the one that is asked for."""
    try:
        match arguments:
            case ["compose"]:
                compose()
            case ["kind"]:
                kind()
            case _:
                print(__doc__, file=sys.stderr)
                return 2
    except (subprocess.CalledProcessError, ValueError) as error:
        print(f"tools.smoke: {error}", file=sys.stderr)
        return 1
    return 0


def compose() -> None:
    """Start everything of the default profile, play the simulator's service, count."""
    services = [name for name, service in _services().items() if "profiles" not in service]
    try:
        run(*COMPOSE, "up", "--build", "--detach", "--wait", *services)
        played = output(*COMPOSE, "run", "--rm", "-T", "simulator")
        hold(played, lambda: output(*COMPOSE, "exec", "-T", "kafka", *COUNT))
    except (subprocess.CalledProcessError, ValueError):
        subprocess.run([*COMPOSE, "logs", "--tail", "100"], cwd=ROOT, check=False)
        raise
    finally:
        subprocess.run([*COMPOSE, "down", "--volumes"], cwd=ROOT, check=False)


def kind() -> None:
    """Install the chart with Helm's own test, play a simulator inside of the cluster, count."""
    context = output("kubectl", "config", "current-context").strip()
    if not context.startswith("kind-"):
        raise ValueError(f"the current context is {context}, and this is for a cluster of kind's only")
    image, token = _services()["connector"]["image"], secrets.token_hex(24)
    kubectl = ("kubectl", "--context", context, "--namespace", NAMESPACE)
    helm = ("helm", "--kube-context", context, "--namespace", NAMESPACE)
    run("docker", "build", "--tag", image, ".")
    run("kind", "load", "docker-image", image, "--name", context.removeprefix("kind-"))
    try:
        run(*kubectl, "create", "namespace", NAMESPACE)
        run(
            *kubectl,
            "apply",
            "--filename",
            "-",
            stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": broker()}),
        )
        run(*kubectl, "rollout", "status", "deployment/kafka", "--timeout", "5m")
        literals = (f"--from-literal=token={token}", f"--from-literal=operations-token={secrets.token_hex(24)}")
        run(*kubectl, "create", "secret", "generic", "weda-connector", *literals)
        chosen = ("settings.kafka.bootstrap_servers=kafka:9092", "settings.topics.replication_factor=1")
        run(*helm, "install", "weda", "helm", "--wait", "--timeout", "5m", "--set", ",".join(chosen))
        run(*helm, "test", "weda")
        pod = ("run", "simulator", "--image", image, "--restart", "Never")
        words = ("simulate", "--url", "http://weda-weda-connector:8080", "--token", token, "--instances", "20")
        run(*kubectl, *pod, "--", *words)
        run(*kubectl, "wait", "pod/simulator", "--for", "jsonpath={.status.phase}=Succeeded", "--timeout", "2m")
        hold(output(*kubectl, "logs", "simulator"), lambda: output(*kubectl, "exec", "deployment/kafka", "--", *COUNT))
    except (subprocess.CalledProcessError, ValueError):
        subprocess.run([*kubectl, "get", "all,events", "--output", "wide"], check=False)
        raise
    finally:
        subprocess.run([*kubectl, "delete", "namespace", NAMESPACE], check=False)


def broker() -> list[dict[str, Any]]:
    """The compose file's broker as a Deployment with its Service."""
    service, labels = _services()["kafka"], {"app": "kafka"}
    container = {
        "name": "kafka",
        "image": service["image"],
        "env": [{"name": name, "value": value} for name, value in service["environment"].items()],
        "readinessProbe": {
            "exec": {"command": service["healthcheck"]["test"][1:]},
            "timeoutSeconds": 10,
            "failureThreshold": 12,
        },
    }
    # Links of Services would be variables KAFKA_…, and the image takes each of those for a setting of the broker.
    pod = {"enableServiceLinks": False, "containers": [container]}
    deployment = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}}
    ports = [{"name": name, "port": port} for name, port in (("inside", 9092), ("controller", 9093))]
    # The broker finds its own controller by this name, before it is ready.
    reached = {"selector": labels, "ports": ports, "publishNotReadyAddresses": True, "clusterIP": "None"}
    return [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "kafka"}, "spec": deployment},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "kafka"}, "spec": reached},
    ]


def hold(played: str, offsets: Callable[[], str]) -> None:
    """``ValueError`` unless the events in Kafka become as many as the simulator's last JSON says were accepted."""
    accepted = json.loads([line for line in played.splitlines() if line.startswith("{")][-1])["accepted"]
    deadline = time.monotonic() + SECONDS
    while (found := events(offsets())) < accepted and time.monotonic() < deadline:
        time.sleep(1)
    if not accepted or found != accepted:
        raise ValueError(f"{accepted} messages were accepted, and {TOPIC} has {found} events")
    print(f"{accepted} messages were accepted, and {TOPIC} has them")


def events(offsets: str) -> int:
    """The records of a new topic, of lines ``topic:partition:end``."""
    return sum(int(line.rpartition(":")[2]) for line in offsets.split())


def run(*command: str, stdin: str | None = None) -> None:
    """Run it in the checkout; what it says is shown."""
    print(f"+ {' '.join(command[:4])} …", flush=True)
    subprocess.run(command, cwd=ROOT, input=stdin, text=True, check=True)


def output(*command: str) -> str:
    """As ``run``, and gives standard output."""
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout


def _services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
