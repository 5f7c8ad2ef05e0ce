"""The notifier in the chart: off by default; switched on, it runs the rules that the values hold."""

import copy

import helm_python
import pytest
import yaml

from connector.notify.rules import example, read_rules
from tests.chart import rendering, tools
from tests.chart.rendering import CHART, EVERYTHING, NAME, SHARED, objects, only, pod_specs
from tests.chart.test_chart import held_against_schemas

RULES = yaml.safe_load(example())
ON = {"notify": {"enabled": True, "targetsSecret": "notify-targets", "rules": RULES}}


def test_it_is_off_by_default():
    assert "notify" not in pod_specs({})
    assert [each for each in objects({}) if each["metadata"]["name"] == f"{NAME}-notify"] == []


@pytest.mark.parametrize("values", [ON, EVERYTHING | ON, SHARED | ON], ids=["alone", "everything", "shared"])
def test_kubernetes_takes_it(values, tmp_path):
    made = objects(copy.deepcopy(values))
    report = held_against_schemas(made, tools.NEWEST, tmp_path / "made.yaml")

    assert report["summary"] == {"valid": len(made), "invalid": 0, "errors": 0, "skipped": 0}
    assert all("icon" in each["error"] for each in helm_python.lint(CHART, values, strict=True)["messages"])


def test_the_rules_arrive_as_they_are(tmp_path):
    text = only("ConfigMap", ON, f"{NAME}-notify")["data"]["rules.yaml"]
    (tmp_path / "rules.yaml").write_text(text, encoding="utf-8")

    assert yaml.safe_load(text) == RULES
    assert len(read_rules(tmp_path / "rules.yaml").rules) == 5


def test_its_pod_finds_configuration_rules_targets_and_a_volume_that_stays():
    spec = pod_specs(ON)["notify"]
    mounts = {each["mountPath"]: each["name"] for each in spec["containers"][0]["volumeMounts"]}
    arguments = spec["containers"][0]["args"]

    assert arguments[0] == "notify"
    for file in ("config/config.yaml", "rules/rules.yaml"):
        assert any(argument.endswith(file) and argument.rpartition("/")[0] in mounts for argument in arguments)
    assert mounts["/var/lib/weda-notify"] == "state"
    assert mounts["/etc/weda-notify/targets"] == "targets"
    claim = only("PersistentVolumeClaim", ON)
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    deployment = only("Deployment", ON)["spec"]
    assert (deployment["replicas"], deployment["strategy"]) == (1, {"type": "Recreate"})
    assert deployment["template"]["metadata"]["annotations"]["checksum/rules"]
    assert spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True


def test_no_selector_of_the_connector_finds_it_and_its_own_finds_nothing_else():
    labels = only("Deployment", ON)["spec"]["template"]["metadata"]["labels"]
    selector = only("Service", ON, f"{NAME}-notify")["spec"]["selector"]

    assert labels.items() >= selector.items()
    assert only("Service", ON, NAME)["spec"]["selector"]["app.kubernetes.io/component"] == "connector"
    monitors = [
        each for each in objects(ON | {"serviceMonitor": {"enabled": True}}) if each["kind"] == "ServiceMonitor"
    ]
    assert [each["metadata"]["name"] for each in monitors] == [f"{NAME}-notify", NAME]


@pytest.mark.parametrize(
    ("values", "error", "said"),
    [
        ({"notify": {"enabled": True}}, helm_python.HelmRenderError, "notify.enabled needs notify.rules"),
        ({"notify": {"enabld": True}}, helm_python.HelmValuesError, "enabld"),
        ({"notify": {"size": "much"}}, helm_python.HelmValuesError, "size"),
    ],
    ids=str,
)
def test_what_is_wrong_is_refused(values, error, said):
    with pytest.raises(error, match=said):
        rendering.objects(values)
