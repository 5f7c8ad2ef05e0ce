"""What users of charts adjust: each value reaches its object, and Kubernetes takes what comes out."""

import copy
import re
import shutil

import helm_python
import pytest
import yaml

from tests.chart import rendering, tools
from tests.chart.rendering import (
    CHART,
    CLAIM,
    EVERYTHING,
    NAME,
    NAMESPACE,
    SHARED,
    containers,
    objects,
    only,
    pod_specs,
)
from tests.chart.test_chart import held_against_schemas

COMMON = {"owner.example.com/team": "workflows"}
MONITOR = {
    "enabled": True,
    "namespace": "monitoring",
    "interval": "1m",
    "scrapeTimeout": "55s500ms",
    "labels": {"release": "p"},
    "jobLabel": "app.kubernetes.io/instance",
    "relabelings": [{"targetLabel": "zone", "replacement": "a"}],
    "metricRelabelings": [{"sourceLabels": ["__name__"], "regex": "python_.*", "action": "drop"}],
}
POD = {
    "dnsPolicy": "None",
    "dnsConfig": {"nameservers": ["10.0.0.10"]},
    "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["kafka-1"]}],
    "runtimeClassName": "gvisor",
    "schedulerName": "volcano",
}
ALL = {
    **POD,
    "commonAnnotations": COMMON,
    "jobs": {
        "annotations": {"a": "job"},
        "podAnnotations": {"sidecar.istio.io/inject": "false"},
        "podLabels": {"sidecar.istio.io/inject": "false"},
    },
    "prometheusRule": {
        "enabled": True,
        "namespace": "monitoring",
        "disabled": {"WedaConnectorDurabilityDegraded": True, "WedaConnectorAbsent": False},
        "additionalRules": [{"alert": "Mine", "expr": "up == 0", "annotations": {"summary": "{{ $labels.job }}"}}],
    },
    "podDisruptionBudget": {"minAvailable": "50%", "unhealthyPodEvictionPolicy": "AlwaysAllow"},
    "extraObjects": [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-more"}, "data": {"a": "b"}},
        'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ include "weda-connector.fullname" . }}-text}',
    ],
    "global": {"imageRegistry": "mirror.example.com/hub", "imagePullSecrets": ["one", {"name": "two"}]},
}
OWN = {
    **EVERYTHING,
    **ALL,
    "serviceMonitor": MONITOR,
    "updateStrategy": {"type": "OnDelete"},
    "persistence": {"storageClassName": "-"},
}
SCALED = {
    **SHARED,
    **ALL,
    "replicaCount": None,
    "serviceMonitor": {"enabled": False},
    "podMonitor": MONITOR,
    "updateStrategy": {"type": "Recreate"},
    "autoscaling": {
        "enabled": True,
        "targetCPU": "",
        "metrics": [
            {
                "type": "Pods",
                "pods": {"metric": {"name": "requests"}, "target": {"type": "AverageValue", "averageValue": "50"}},
            }
        ],
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 600}},
    },
}
SETS = {"own journals": OWN, "shared journal": SCALED}


@pytest.mark.parametrize("version", [tools.OLDEST, tools.NEWEST])
@pytest.mark.parametrize("values", SETS.values(), ids=SETS)
def test_kubernetes_schemas_hold_with_every_knob(values, version, tmp_path):
    made = objects(values)

    report = held_against_schemas(made, version, tmp_path / "made.yaml")

    assert report["resources"] == []
    assert report["summary"]["valid"] == len(made)


# --- annotations and labels ---


@pytest.mark.parametrize("values", SETS.values(), ids=SETS)
def test_every_object_has_the_common_annotations_and_no_pod_has(values):
    """A change of them must not replace pods."""
    ours = [each for each in objects(values) if not each["metadata"]["name"].endswith(("-more", "-text"))]
    annotations = {(each["kind"], each["metadata"]["name"]): each["metadata"].get("annotations", {}) for each in ours}
    without = {name for name, found in annotations.items() if not COMMON.items() <= found.items()}

    assert without == {("Pod", f"{NAME}-test")}
    for each in ours:
        template = each.get("spec", {}).get("template", {}).get("metadata", {})
        assert not COMMON.keys() & template.get("annotations", {}).keys()


def test_an_object_s_own_annotation_wins():
    values = {
        "commonAnnotations": {"a": "common", "b": "{{ .Release.Name }}"},
        "service": {"annotations": {"a": "own"}},
    }

    assert only("Service", values, NAME)["metadata"]["annotations"] == {"a": "own", "b": "rel"}


@pytest.mark.parametrize(("values", "jobs"), [(OWN, {"setup", "drain"}), (SCALED, {"setup", "drain", "migration"})])
def test_jobs_and_their_pods_have_annotations_and_labels(values, jobs):
    """A service mesh is configured there to inject no sidecar: a Job with one never ends."""
    found = {}
    for each in objects(values):
        if each["kind"] == "Job":
            assert each["metadata"]["annotations"]["a"] == "job"
            pod = each["spec"]["template"]["metadata"]
        elif each["kind"] == "Pod":
            pod = each["metadata"]
        else:
            continue
        found[pod["labels"]["app.kubernetes.io/component"]] = pod

    assert found.keys() == {*jobs, "test"}
    for pod in found.values():
        assert ALL["jobs"]["podAnnotations"].items() <= pod["annotations"].items()
        assert ALL["jobs"]["podLabels"].items() <= pod["labels"].items()
    assert "helm.sh/hook" in found["test"]["annotations"]


CHANGES_NOTHING = [
    {"commonAnnotations": {"a": "b"}},
    {"service": {"annotations": {"a": "b"}, "type": "NodePort"}},
    {"serviceMonitor": {"enabled": True}},
    {"prometheusRule": {"enabled": True}},
    {"dashboards": {"enabled": True}},
    {"networkPolicy": {"enabled": False}},
    {"podDisruptionBudget": {"enabled": False}},
    {"jobs": {"podLabels": {"a": "b"}, "podAnnotations": {"a": "b"}, "annotations": {"a": "b"}}},
    {"setup": {"enabled": True}},
    {"drain": {"claims": [CLAIM]}},
    {"extraObjects": ALL["extraObjects"]},
    {"replicaCount": 0},
    {"podMonitor": {"enabled": True}},
]


@pytest.mark.parametrize("change", CHANGES_NOTHING, ids=str)
def test_what_changes_nothing_in_the_pod_replaces_no_pod(change):
    assert template(objects(change)) == template(objects({}))


def test_another_version_of_the_chart_with_the_same_image_replaces_no_pod(tmp_path):
    """The version is a label of the objects, and not of the pods."""
    chart = tmp_path / "helm"
    shutil.copytree(CHART, chart)
    (chart / "Chart.yaml").write_text((CHART / "Chart.yaml").read_text().replace("0.1.0", "0.2.0"))
    pinned = {"image": {"tag": "0.1.0"}}

    assert template(objects(pinned, chart)) == template(objects(pinned))
    assert template(objects({}, chart)) != template(objects({}))


def test_what_the_connector_reads_replaces_the_pod():
    assert template(objects({"settings": {"log": {"level": "debug"}}})) != template(objects({}))


def template(made):
    [found] = [each["spec"]["template"] for each in made if each["kind"] in {"StatefulSet", "Deployment"}]
    return found


# --- pods ---


@pytest.mark.parametrize("values", SETS.values(), ids=SETS)
def test_every_pod_has_what_is_said_of_pods(values):
    for spec in pod_specs(values).values():
        assert POD.items() <= spec.items()
        assert spec["imagePullSecrets"] == [{"name": name} for name in ("pull", "one", "two")]
        for container in containers(spec):
            assert container["image"] == "mirror.example.com/hub/weda-connector:0.1.0"


@pytest.mark.parametrize(
    ("image", "mirrored"),
    [
        ({"repository": "registry.example.com/team/weda-connector"}, "mirror:5000/team/weda-connector:0.1.0"),
        ({"repository": "localhost/weda-connector", "tag": "1"}, "mirror:5000/weda-connector:1"),
        ({"repository": "team/weda-connector"}, "mirror:5000/team/weda-connector:0.1.0"),
        ({"digest": f"sha256:{'0' * 64}"}, f"mirror:5000/weda-connector@sha256:{'0' * 64}"),
    ],
)
def test_the_global_registry_replaces_the_image_s_own(image, mirrored):
    assert rendering.connector({"image": image, "global": {"imageRegistry": "mirror:5000"}})["image"] == mirrored


def test_pods_are_replaced_as_the_values_say():
    assert only("StatefulSet", OWN)["spec"]["updateStrategy"] == {"type": "OnDelete"}
    assert only("Deployment", SCALED)["spec"]["strategy"] == {"type": "Recreate"}
    assert "updateStrategy" not in only("StatefulSet", {})["spec"]


# --- how many ---


def test_an_external_scaler_sets_the_number_of_replicas():
    values = {**SHARED, "replicaCount": None, "autoscaling": {"enabled": False}}

    assert "replicas" not in only("Deployment", values)["spec"]
    assert rendering.texts(values)["NOTES.txt"]


def test_the_autoscaler_measures_and_behaves_as_the_values_say():
    spec = only("HorizontalPodAutoscaler", SCALED)["spec"]
    both = {**SCALED, "autoscaling": {**SCALED["autoscaling"], "targetCPU": "500m"}}

    assert [each["type"] for each in spec["metrics"]] == ["Pods"]
    assert spec["behavior"] == {"scaleDown": {"stabilizationWindowSeconds": 600}}
    metrics = only("HorizontalPodAutoscaler", both)["spec"]["metrics"]
    assert [each["type"] for each in metrics] == ["ContainerResource", "Pods"]


def test_a_budget_says_how_many_stay_or_how_many_go():
    spec = only("PodDisruptionBudget", OWN)["spec"]

    assert (spec["minAvailable"], spec["unhealthyPodEvictionPolicy"]) == ("50%", "AlwaysAllow")
    assert "maxUnavailable" not in spec
    assert only("PodDisruptionBudget", {})["spec"].keys() == {"maxUnavailable", "selector"}
    assert only("PodDisruptionBudget", {"podDisruptionBudget": {"minAvailable": 0}})["spec"]["minAvailable"] == 0
    without = {"podDisruptionBudget": {"minAvailable": 1, "maxUnavailable": None}}
    assert only("PodDisruptionBudget", without)["spec"]["minAvailable"] == 1


# --- volumes ---


def test_a_claim_that_exists_is_used_and_none_is_made():
    values = {"persistence": {"existingClaim": "{{ .Release.Name }}-old"}}
    made = only("StatefulSet", values)["spec"]
    [volume] = [each for each in made["template"]["spec"]["volumes"] if each["name"] == "journal"]

    assert volume["persistentVolumeClaim"] == {"claimName": "rel-old"}
    assert "volumeClaimTemplates" not in made
    assert {"name": "journal", "mountPath": "/var/lib/weda-connector"} in rendering.connector(values)["volumeMounts"]


@pytest.mark.parametrize(
    ("written", "made"), [("-", {"storageClassName": ""}), ("", {}), ("b", {"storageClassName": "b"})]
)
def test_a_dash_is_no_storage_class_at_all(written, made):
    """As in many charts: empty means the cluster's default, which Kubernetes takes from a name that is not there."""
    [claim] = only("StatefulSet", {"persistence": {"storageClassName": written}})["spec"]["volumeClaimTemplates"]

    assert {name: value for name, value in claim["spec"].items() if name == "storageClassName"} == made


@pytest.mark.parametrize(
    ("size", "journal"),
    [("2Gi", "100GiB"), ("4095Mi", "1GiB"), ("1Gi", 1073741824), ("3.9Gi", "1 GiB"), ("4G", "1GiB"), ("8", "1MiB")],
)
def test_a_volume_that_is_too_small_for_its_journal_is_refused(size, journal):
    values = {"persistence": {"size": size}, "settings": {"journal": {"max_bytes": journal}}}

    with pytest.raises(
        helm_python.HelmRenderError, match=rf"persistence\.size is {size} and settings\.journal\.max_by"
    ):
        objects(values)
    assert objects({**SHARED, **values}), "there is no volume"
    assert objects({**values, "persistence": {"size": size, "existingClaim": "c"}}), "nobody knows its size"


@pytest.mark.parametrize(
    ("size", "journal"),
    [("4Gi", "1GiB"), ("4096Mi", "1Gi"), ("4294967296", 1073741824), ("1.5Ti", "256GiB"), ("5G", None)],
)
def test_a_volume_of_four_times_its_journal_is_enough(size, journal):
    assert objects({"persistence": {"size": size}, "settings": {"journal": {"max_bytes": journal}}})


# --- what Kubernetes would refuse in the middle of an upgrade ---

PERSISTENCE = {"size": "8Gi", "annotations": {"a": "b"}, "storageClassName": "local"}


@pytest.fixture
def upgraded(tmp_path):
    """Render an upgrade of a release whose StatefulSet was made with other values, and is in the cluster."""
    chart = tmp_path / "helm"
    shutil.copytree(CHART, chart)
    check = '{{- include "weda-connector.checkClaims" (dict "root" . "live" (.Files.Get "live.yaml" | fromYaml)) }}\n'

    def upgraded(before, after):
        live = only("StatefulSet", before)
        for claim in live["spec"]["volumeClaimTemplates"]:  # as the API server completes them
            claim["spec"]["volumeMode"] = "Filesystem"
            claim["status"] = {"phase": "Pending"}
        (chart / "live.yaml").write_text(yaml.safe_dump(live))
        (chart / "templates" / "live.yaml").write_text(check)
        return objects(after, chart)

    return upgraded


@pytest.mark.parametrize(
    ("persistence", "said"),
    [
        ({"size": "16Gi"}, "persistence.size was 8Gi"),
        ({"annotations": {"a": "c"}}, 'persistence.annotations were {"a":"b"}'),
        ({"annotations": {"a": None}}, 'persistence.annotations were {"a":"b"}'),
        ({"storageClassName": ""}, 'persistence.storageClassName was "local"'),
        ({"accessModes": ["ReadWriteOncePod"]}, 'persistence.accessModes were ["ReadWriteOnce"]'),
        ({"existingClaim": "c"}, "persistence.existingClaim was set or removed"),
    ],
    ids=str,
)
def test_a_change_of_claims_is_refused_before_the_upgrade(persistence, said, upgraded):
    """With the place that says how to do it; without a cluster (`helm template`) nothing is compared."""
    changed = copy.deepcopy(PERSISTENCE) | persistence
    changed["annotations"] = {name: text for name, text in changed["annotations"].items() if text}

    with pytest.raises(helm_python.HelmRenderError, match=re.escape(said)) as refused:
        upgraded({"persistence": PERSISTENCE}, {"persistence": changed})
    assert 'see "A larger volume" in docs/kubernetes.md' in str(refused.value)
    assert objects({"persistence": changed})


def test_the_same_claims_in_other_words_are_no_change(upgraded):
    assert upgraded({"persistence": PERSISTENCE}, {"persistence": {**PERSISTENCE, "size": "8192Mi"}})
    assert upgraded({"persistence": PERSISTENCE}, SHARED)


# --- monitoring ---


@pytest.mark.parametrize(("kind", "values"), [("ServiceMonitor", OWN), ("PodMonitor", SCALED)])
def test_a_monitor_is_what_the_values_say(kind, values):
    monitor = only(kind, values)
    spec = monitor["spec"]
    [endpoint] = spec.get("endpoints") or spec["podMetricsEndpoints"]

    assert monitor["metadata"]["namespace"] == "monitoring"
    assert monitor["metadata"]["labels"]["release"] == "p"
    assert spec["namespaceSelector"] == {"matchNames": [NAMESPACE]}
    assert spec["jobLabel"] == MONITOR["jobLabel"]
    for name in ("interval", "scrapeTimeout", "relabelings", "metricRelabelings"):
        assert endpoint[name] == MONITOR[name]


def test_the_pod_monitor_finds_the_pods_and_their_port():
    values = {"podMonitor": {"enabled": True}}
    spec = only("PodMonitor", values)["spec"]

    assert spec["selector"]["matchLabels"].items() <= template(objects(values))["metadata"]["labels"].items()
    assert spec["podMetricsEndpoints"][0]["port"] in {each["name"] for each in rendering.connector(values)["ports"]}
    assert "namespaceSelector" not in spec


@pytest.mark.parametrize(
    ("monitor", "job"),
    [
        ({}, f"{NAME}-headless"),
        ({"serviceMonitor": {"enabled": True, "jobLabel": "app.kubernetes.io/instance"}}, "rel"),
        ({"podMonitor": {"enabled": True}}, f"{NAMESPACE}/{NAME}"),
        ({"podMonitor": {"enabled": True, "namespace": "monitoring"}}, f"monitoring/{NAME}"),
        ({"podMonitor": {"enabled": True, "jobLabel": "c"}, "podLabels": {"c": "d"}}, "d"),
    ],
    ids=str,
)
def test_the_alerts_select_the_job_that_the_monitor_makes(monitor, job):
    """And those of the notifier its own."""
    spec = only("PrometheusRule", {**monitor, "prometheusRule": {"enabled": True}})["spec"]
    selected = {
        found
        for group in spec["groups"]
        for rule in group["rules"]
        for found in re.findall(r'weda_(connector|notify)_\w+(?::\w+)?\{namespace="(.*?)",job="(.*?)"', rule["expr"])
    }

    assert selected == {("connector", NAMESPACE, job), ("notify", NAMESPACE, f"{NAME}-notify")}
    assert only("Service", {"notify": {"enabled": True, "rules": {"rules": []}}}, f"{NAME}-notify")


def test_alerts_are_left_out_and_added_by_name():
    rule = only("PrometheusRule", OWN)
    alerts = [each.get("alert") for group in rule["spec"]["groups"] for each in group["rules"]]

    assert rule["metadata"]["namespace"] == "monitoring"
    assert "WedaConnectorDurabilityDegraded" not in alerts
    assert "WedaConnectorAbsent" in alerts
    assert rule["spec"]["groups"][-1] == {
        "name": "weda-connector-additional",
        "rules": ALL["prometheusRule"]["additionalRules"],
    }


# --- templates in values ---


def test_templates_in_values_are_rendered_where_charts_do_so():
    host = "{{ .Release.Name }}.example.com"
    values = {
        "ingress": {
            "enabled": True,
            "hosts": [host],
            "tls": [{"secretName": "{{ .Release.Name }}-tls", "hosts": [host]}],
        },
        "httpRoute": {"enabled": True, "parentRefs": [{"name": "{{ .Release.Name }}"}], "hostnames": [host]},
        "secretSettings": {"WEDA_TOKEN": {"existingSecret": "{{ .Release.Name }}-token", "key": "token"}},
        "certificates": {"kafka": {"existingSecret": "{{ .Release.Name }}-kafka"}},
        "extraEnv": [{"name": "RELEASE", "value": "{{ .Release.Name }}"}],
        "extraEnvFrom": [{"configMapRef": {"name": "{{ .Release.Name }}"}}],
        "extraVolumes": [{"name": "more", "configMap": {"name": "{{ .Release.Name }}"}}],
        "extraVolumeMounts": [{"name": "more", "mountPath": "/{{ .Release.Name }}"}],
        "extraContainers": [{"name": "proxy", "image": "{{ .Release.Name }}"}],
        "extraInitContainers": [{"name": "first", "image": "{{ .Release.Name }}"}],
        "serviceAccount": {"annotations": {"role": "{{ .Release.Namespace }}"}},
    }
    made = rendering.texts(values)

    assert [name for name, text in made.items() if "{{" in text] == []
    assert only("Ingress", values)["spec"]["tls"] == [{"secretName": "rel-tls", "hosts": ["rel.example.com"]}]
    assert only("HTTPRoute", values)["spec"]["hostnames"] == ["rel.example.com"]
    assert only("ServiceAccount", values)["metadata"]["annotations"] == {"role": NAMESPACE}


def test_templates_of_others_in_annotations_of_pods_stay():
    """Vault's injector has its own there."""
    text = '{{ with secret "kv/weda" }}{{ .Data.token }}{{ end }}'
    values = {
        "podAnnotations": {"vault": text},
        "jobs": {"podAnnotations": {"vault": text}},
        "setup": {"enabled": True},
    }

    assert template(objects(values))["metadata"]["annotations"]["vault"] == text
    job = only("Job", values)
    assert job["spec"]["template"]["metadata"]["annotations"]["vault"] == text


def test_objects_of_the_user_s_own_are_installed_too():
    names = {each["metadata"]["name"] for each in objects(OWN) if each["kind"] == "ConfigMap"}

    assert {"rel-more", f"{NAME}-text"} <= names


# --- refused ---


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"replicaCount": None},
            "replicaCount is null, which leaves the number of replicas to an external scaler, and",
        ),
        (
            {**SHARED, "autoscaling": {"enabled": True, "targetCPU": ""}},
            "autoscaling.targetCPU and autoscaling.metrics are both empty",
        ),
        ({"networkPolicy": {"egress": []}}, "networkPolicy.egress is empty, so the pods could not even reach Kafka"),
        (
            {**SHARED, "persistence": {"existingClaim": "c"}},
            "persistence.existingClaim and sharedJournal.enabled exclude",
        ),
        (
            {"replicaCount": 2, "acceptReorderingInOutages": True, "persistence": {"existingClaim": "c"}},
            "persistence.existingClaim is one volume, but replicaCount is 2",
        ),
        (
            {"persistence": {"existingClaim": "c"}, "drain": {"claims": ["c"]}},
            "drain.claims: c is persistence.existingClaim",
        ),
        (
            {"updateStrategy": {"type": "Recreate"}},
            "updateStrategy.type is Recreate, but with sharedJournal.enabled=fals",
        ),
        ({**SHARED, "updateStrategy": {"type": "OnDelete"}}, "it can only be RollingUpdate or Recreate"),
        (
            {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}},
            "serviceMonitor.enabled and podMonitor.enabled: with both, everything would be scraped and counted twice",
        ),
        (
            {"serviceMonitor": {"enabled": True, "interval": "59s", "scrapeTimeout": "1m"}},
            "serviceMonitor.scrapeTimeout (1m) must not exceed serviceMonitor.interval (59s)",
        ),
        (
            {"prometheusRule": {"enabled": True, "disabled": {"WedaConnectorGone": True}}},
            "prometheusRule.disabled: there is no alert WedaConnectorGone; there are WedaConnector",
        ),
        (
            {"prometheusRule": {"enabled": True}, "serviceMonitor": {"enabled": True, "jobLabel": "team"}},
            "serviceMonitor.jobLabel: there is no label team; there are app.kubernetes.io/component,",
        ),
        (
            {"extraEnvFrom": [{"secretRef": {"name": "s"}}], "settings": {"kafka": {"bootstrap_servers": "embedded"}}},
            "emb",
        ),
        ({"podDisruptionBudget": {"maxUnavailable": None}}, "minAvailable are both null: set one of them"),
        ({"jobs": {"podLabels": {"app.kubernetes.io/name": "x"}}}, "jobs.podLabels: the chart sets the label"),
    ],
    ids=str,
)
def test_what_would_do_harm_later_is_refused(values, said):
    """In one line that names the value."""
    with pytest.raises(helm_python.HelmRenderError, match=re.escape(said)):
        objects(values)


@pytest.mark.parametrize(
    "values",
    [
        {"extraObjects": [{"kind": "ConfigMap"}]},
        {"global": {"imagePullSecrets": [{"secret": "s"}]}},
        {"podDisruptionBudget": {"unhealthyPodEvictionPolicy": "Always"}},
        {"dnsPolicy": "Mine"},
        {"hostAliases": [{"hostnames": ["a"]}]},
        {"prometheusRule": {"additionalRules": [{"alert": "A"}]}},
        {"serviceMonitor": {"scrapeTimeout": "soon"}},
        {"jobs": {"labels": {}}},
    ],
    ids=str,
)
def test_a_knob_that_is_unknown_or_wrong_is_refused(values):
    with pytest.raises(helm_python.HelmValuesError):
        objects(values)


def test_globals_of_other_charts_are_let_in():
    assert objects({"global": {"storageClass": "fast", "postgresql": {"auth": {}}}})
