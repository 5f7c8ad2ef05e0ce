"""What tools other than Helm and Kubernetes say of the chart; too long to build for the quick tests."""

import json
import shutil
import subprocess

import pytest
import yaml

from tests.chart import tools
from tests.chart.rendering import CHART, EVERYTHING, SHARED, objects

EXCEPTIONS = {
    "container-image-pull-policy": "an image of a version never changes, and starts while its registry is away",
    "deployment-has-host-podantiaffinity": "its replicas spread by constraints, which count zones and versions too",
    "statefulset-has-host-podantiaffinity": "there is one replica by default; for more there is the value `affinity`",
}
"""Checks that the chart does not meet, each with the reason."""

OPTIONS = ("--ignore-container-cpu-limit",)
"""A limit on CPU would throttle answers that have a deadline, where a request keeps a share."""


@pytest.mark.parametrize("values", [EVERYTHING, SHARED], ids=["everything", "shared journal"])
def test_kube_score_has_nothing_else_to_say(values, tmp_path):
    made = objects({**values, "extraContainers": [], "extraInitContainers": []})
    (tmp_path / "made.yaml").write_text(yaml.safe_dump_all(made))
    ignored = [option for name in EXCEPTIONS for option in ("--ignore-test", name)]

    scored = subprocess.run(
        [tools.KUBE_SCORE.installed(), "score", *OPTIONS, *ignored, "--output-format", "json", tmp_path / "made.yaml"],
        capture_output=True,
        text=True,
        check=False,
    )

    complaints = [
        (each["object_name"], check["check"]["id"], check["comments"])
        for each in json.loads(scored.stdout)
        for check in each["checks"]
        if check["grade"] not in {0, 10} and not check["skipped"]
    ]
    assert complaints == []


def test_the_readme_is_what_helm_docs_makes(tmp_path):
    chart = tmp_path / "helm"
    shutil.copytree(CHART, chart)
    (chart / "README.md").unlink()

    tools.write_readme(chart)

    assert (chart / "README.md").read_text() == (CHART / "README.md").read_text()
