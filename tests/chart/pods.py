"""What a container of the chart finds in its pod: its environment, and its volumes as files in a folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tests.chart.rendering import Object, only, pod_specs

Secrets = Mapping[str, Mapping[str, str]]
"""Each Secret of the namespace: its keys with their values."""


@dataclass(frozen=True)
class Pod:
    """What a connector's settings are read from.

    Attributes:
        environment: The container's variables.
        file: The file that its `--config` names; None without.
    """

    environment: dict[str, str]
    file: Path | None


def lay_out(values: Object, secrets: Secrets, folder: Path, component: str = "connector") -> Pod:
    """Lay out the volumes of the first container of a component in a folder, and change the paths to lead there."""
    spec = pod_specs(values)[component]
    container = spec["containers"][0]
    volumes = {each["name"]: each for each in spec["volumes"]}
    for mount in container["volumeMounts"]:
        place = folder / mount["mountPath"].removeprefix("/")
        place.mkdir(parents=True)
        for name, text in files_of(volumes.get(mount["name"], {}), values, secrets).items():
            (place / name).write_text(text.replace("/etc/", f"{folder}/etc/"))
    environment = {
        each["name"]: each["value"].replace("/etc/", f"{folder}/etc/")
        if each["name"].endswith(("_FILE", "WEDA_CONFIG"))
        else each["value"]
        for each in container.get("env", ())
    }
    config = dict(pairwise(container["args"])).get("--config")
    return Pod(environment, folder / config.removeprefix("/") if config else None)


def files_of(volume: Object, values: Object, secrets: Secrets) -> dict[str, str]:
    """The files of a volume: of the chart's ConfigMap, or of Secrets."""
    if "configMap" in volume:
        return only("ConfigMap", values, volume["configMap"]["name"])["data"]
    if "secret" in volume:
        return dict(secrets[volume["secret"]["secretName"]])
    sources = [each["secret"] for each in volume.get("projected", {}).get("sources", ())]
    return {item["path"]: secrets[each["name"]][item["key"]] for each in sources for item in each["items"]}
