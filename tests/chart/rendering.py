"""Renders the chart with Helm's own engine, and reads what it made."""

import copy
from pathlib import Path
from typing import Any

import helm_python
import yaml
from yaml import CSafeLoader as SafeLoader  # in C: every test of the chart reads all that it makes

CHART = Path(__file__).parents[2] / "helm"
RELEASE, NAMESPACE = "rel", "ns"
BROKERS = "kafka:9092"
NAME = f"{RELEASE}-weda-connector"
CLAIM = f"journal-{NAME}-2"

EVERYTHING: dict[str, Any] = {
    "replicaCount": 2,
    "acceptReorderingInOutages": True,
    "commonLabels": {"team": "workflows"},
    "settings": {"registry": {"url": "http://registry:8081"}, "repeats": {"max_entries": 2_000_000}},
    "certificates": {"kafka": {"existingSecret": "kafka-user"}},
    "ingress": {"enabled": True, "hosts": ["weda.example.com"], "tls": [{"secretName": "tls"}]},
    "httpRoute": {"enabled": True, "parentRefs": [{"name": "gateway"}]},
    "serviceMonitor": {"enabled": True},
    "prometheusRule": {"enabled": True},
    "dashboards": {"enabled": True},
    "setup": {"enabled": True},
    "drain": {"claims": [CLAIM]},
    "extraEnv": [{"name": "TZ", "value": "UTC"}],
    "extraEnvFrom": [{"secretRef": {"name": "more"}}],
    "extraVolumes": [{"name": "more", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
    "extraContainers": [{"name": "proxy", "image": "envoy:v1"}],
    "extraInitContainers": [{"name": "first", "image": "busybox:1"}],
    "podAnnotations": {"a": "b"},
    "podLabels": {"c": "d"},
    "priorityClassName": "high",
    "nodeSelector": {"disk": "local"},
    "tolerations": [{"key": "dedicated", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {}}
    ],
    "imagePullSecrets": [{"name": "pull"}],
}
"""Values that switch on all there is."""

SHARED: dict[str, Any] = {
    **EVERYTHING,
    "acceptReorderingInOutages": False,
    "sharedJournal": {
        "enabled": True,
        "existingSecret": "journal",
        "migration": {"existingSecret": "journal-owner", "key": "owner-url"},
    },
    "autoscaling": {"enabled": True},
    "topologySpreadConstraints": [],
}
"""The same, for replicas that share a journal."""

NOTHING: dict[str, Any] = {
    "secretSettings": {
        "WEDA_TOKEN": {"existingSecret": ""},
        "WEDA_OPERATIONS__TOKEN": {"existingSecret": ""},
    },
    "settings": {"auth": "none"},
    "networkPolicy": {"enabled": False},
    "podDisruptionBudget": {"enabled": False},
    "serviceAccount": {"create": False},
}
"""Values that switch off all that can be."""

Object = dict[str, Any]


def complete(values: Object) -> Object:
    """The values, with `BROKERS` where they name none."""
    made = copy.deepcopy(values)
    if isinstance(settings := made.setdefault("settings", {}), dict):
        kafka = settings.setdefault("kafka", {})
        if isinstance(kafka, dict):
            kafka.setdefault("bootstrap_servers", BROKERS)
    return made


def texts(values: Object, chart: Path = CHART, release: str = RELEASE, namespace: str = NAMESPACE) -> dict[str, str]:
    """What each template makes of the complete values, by its name without the chart's."""
    with helm_python.Chart.load(chart) as loaded:
        rendered = loaded.render(complete(values), name=release, namespace=namespace)
    return {name.partition("/templates/")[2]: text for name, text in rendered.items()}


def objects(values: Object, chart: Path = CHART, release: str = RELEASE) -> list[Object]:
    """Every object that the chart makes."""
    made = texts(values, chart, release)
    read = (yaml.load_all(text, SafeLoader) for name, text in made.items() if name != "NOTES.txt")
    return [each for file in read for each in file if each]


def only(kind: str, values: Object, name: str = "") -> Object:
    """The one object of a kind, or the one that has the name too."""
    [found] = [
        each for each in objects(values) if each["kind"] == kind and (not name or each["metadata"]["name"] == name)
    ]
    return found


def pod_specs(values: Object) -> dict[str, Object]:
    """The specification of each pod, by the component that it is."""
    found = {}
    for each in objects(values):
        template = each if each["kind"] == "Pod" else each["spec"].get("template") if "spec" in each else None
        if template is not None:
            found[template["metadata"]["labels"]["app.kubernetes.io/component"]] = template["spec"]
    return found


def containers(spec: Object) -> list[Object]:
    """All containers of a pod that are the chart's own."""
    every = [*spec.get("initContainers", ()), *spec["containers"]]
    return [each for each in every if each["name"] not in {"proxy", "first"}]


def connector(values: Object) -> Object:
    """The connector's container."""
    return pod_specs(values)["connector"]["containers"][0]
