"""The chart: every toggle does what its sentence says, and Kubernetes takes what comes out."""

import copy
import json
import re
import shutil
import subprocess
import tomllib
from functools import reduce
from operator import getitem

import helm_python
import pytest
import yaml

from tests.chart import rendering, tools
from tests.chart.rendering import CHART, CLAIM, EVERYTHING, NAME, NOTHING, SHARED, connector, objects, only, pod_specs

ROOT = CHART.parent
SETS = {"defaults": {}, "everything": EVERYTHING, "shared journal": SHARED, "nothing": NOTHING}
FOUND = {"app.kubernetes.io/name": "weda-connector", "app.kubernetes.io/instance": rendering.RELEASE}
BROKERS = {"bootstrap_servers": rendering.BROKERS}
OF_THE_RELEASE = f'{{namespace="{rendering.NAMESPACE}",job="{NAME}-headless",'
OF_THE_NOTIFIER = f'{{namespace="{rendering.NAMESPACE}",job="{NAME}-notify",'
PODS = {"connector", "setup", "drain", "test"}


def kinds(values):
    return {(each["kind"], each["metadata"]["name"]) for each in objects(values)}


def container_of(component, values=EVERYTHING):
    return rendering.containers(pod_specs(values)[component])[-1]


# --- the chart as a whole ---


@pytest.mark.parametrize("values", SETS.values(), ids=SETS)
def test_helm_finds_nothing_to_complain_of(values):
    report = helm_python.lint(CHART, values, strict=True)

    assert report["total_charts_linted"] == 1
    assert [each for each in report["messages"] if "icon" not in each["error"]] == []


@pytest.mark.parametrize("version", [tools.OLDEST, tools.NEWEST])
@pytest.mark.parametrize("values", SETS.values(), ids=SETS)
def test_kubernetes_schemas_hold(values, version, tmp_path):
    """Strictly: a name that Kubernetes does not know is an error."""
    made = objects(values)

    report = held_against_schemas(made, version, tmp_path / "made.yaml")

    assert report["resources"] == []
    assert report["summary"] == {"valid": len(made), "invalid": 0, "errors": 0, "skipped": 0}


def test_the_schemas_refuse_what_is_wrong(tmp_path):
    """The test above can fail."""
    service = only("Service", {}, NAME)
    service["spec"]["selectr"] = {}

    report = held_against_schemas([service], tools.NEWEST, tmp_path / "made.yaml")

    assert report["summary"]["invalid"] == 1
    assert "selectr" in report["resources"][0]["msg"]


def held_against_schemas(made, version, file):
    file.write_text(yaml.safe_dump_all(made))
    own = "{{ .NormalizedKubernetesVersion }}-standalone{{ .StrictSuffix }}/{{ .ResourceKind }}{{ .KindSuffix }}.json"
    places = [tools.schemas() / own, tools.schemas() / "custom" / "{{ .ResourceKind }}-{{ .ResourceAPIVersion }}.json"]
    locations = [option for place in places for option in ("-schema-location", str(place))]
    options = ["-strict", "-summary", "-output", "json", "-kubernetes-version", version]
    command = [tools.KUBECONFORM.installed(), *options, *locations, file]
    return json.loads(subprocess.run(command, capture_output=True, check=False).stdout)


def test_the_versions_are_the_project_s():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())

    assert (chart["version"], chart["appVersion"]) == (project, project)
    assert chart["kubeVersion"] == f">={tools.OLDEST}-0"


@pytest.mark.parametrize("values", SETS.values(), ids=SETS)
def test_null_in_place_of_any_value_is_nothing_or_named_in_the_error(values, tmp_path):
    """Null takes a default away; what the templates make of that must be an object of Kubernetes all the same."""
    made, refused = {}, {}
    for path in paths(yaml.safe_load((CHART / "values.yaml").read_text())):
        changed = copy.deepcopy(values)
        section = reduce(lambda at, name: at.setdefault(name, {}), path[:-1], changed)
        section[path[-1]] = None
        try:
            made |= {json.dumps(each): each for each in objects(changed)}  # most are as without the null
        except (helm_python.HelmValuesError, helm_python.HelmRenderError) as error:
            refused[path] = str(error)

    assert [
        path for path, why in refused.items() if f"'{path[-1]}'" not in why and "execution error at" not in why
    ] == []
    assert held_against_schemas(made.values(), tools.NEWEST, tmp_path / "made.yaml")["resources"] == []


def what_is_wrong_with(values, file):
    """What Helm says, or a check of the chart's own (an execution error); else what the schemas find."""
    try:
        made = objects(values)
    except (helm_python.HelmValuesError, helm_python.HelmRenderError) as error:
        return [str(error)]
    return [found["msg"] for found in held_against_schemas(made, tools.NEWEST, file)["resources"]]


def paths(tree, above=()):
    """Where sections and values stand; what is below some of them the connector or Kubernetes knows."""
    for name, under in tree.items():
        yield (*above, name)
        if isinstance(under, dict) and name not in {"settings", "resources", "podSecurityContext", "securityContext"}:
            yield from paths(under, (*above, name))


def rows_of_the_readme():
    """Each value's name, its default and its sentence."""
    rows = re.findall(r"^\| ([\w.]+) \| \w+ \| `(.*)` \| (.*) \|$", (CHART / "README.md").read_text(), re.MULTILINE)
    return [
        (name.split("."), None if default == "nil" else json.loads(default), sentence)  # helm-docs writes Go
        for name, default, sentence in rows
    ]


def test_every_value_has_its_sentence_and_its_default_in_the_readme():
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    undocumented = copy.deepcopy(values)
    for path, default, sentence in reversed(rows_of_the_readme()):
        assert reduce(getitem, path, values) == default
        assert sentence.endswith(".")
        reduce(getitem, path[:-1], undocumented).pop(path[-1])

    assert without_empty(undocumented) == {}


def without_empty(tree):
    return {
        name: without_empty(under)
        for name, under in tree.items()
        if not isinstance(under, dict) or without_empty(under)
    }


@pytest.mark.parametrize(
    "values",
    [
        {"typo": 1},
        {"replicaCount": -1},
        {"service": {"port": 0}},
        {"service": {"nodePort": 65536}},
        {"autoscaling": {"minReplicas": 0}},
        {"podDisruptionBudget": {"maxUnavailable": "all"}},
        {"podDisruptionBudget": {"maxUnavailable": -1}},
        {"probes": {"liveness": {"periodSeconds": 0}}},
        {"preStopSeconds": 2**31},
        {"settings": {"receiver": {"port": 0}}},
        {"settings": {"receiver": {"tls_certificate": ""}}},
        {"settings": {"registry": {"ca_location": ""}}},
        {"settings": {"operations": {"port": 65536}}},
        {"settings": {"receiver": {"shutdown_grace_seconds": -1}}},
        {"settings": {"receiver": {"reply_deadline_seconds": 0}}},
        {"settings": {"receiver": {"max_body_bytes": 1023}}},
        {"settings": {"journal": {"max_bytes": 1_048_575}}},
        {"settings": {"topics": {"replication_factor": 0}}},
        {"settings": {"sources": {"hr": {"rate": 0}}}},
        {"nameOverride": "My_Hook"},
        {"fullnameOverride": "a.b"},
        {"podLabels": {"a": "not a label"}},
        {"image": {"tagg": "1"}},
        {"settings": {"recieiver": {}}},
        {"settings": {"receiver": {"prot": 1}}},
        {"secretSettings": {"WEDA_TOKENN": {"existingSecret": "s", "key": "k"}}},
        {"secretSettings": {"WEDA_REGISTRY__URL": {"existingSecret": "s"}}},
        {"certificates": {"kafka": {"secret": "s"}}},
        {"imagePullSecrets": [{}]},
        {"persistence": {"size": "much"}},
        {"ingress": {"enabled": True}},
        {"httpRoute": {"enabled": True}},
    ],
    ids=json.dumps,
)
def test_a_value_that_is_unknown_or_wrong_is_refused(values):
    with pytest.raises(helm_python.HelmValuesError):
        objects(values)


# --- as a part of another chart ---


@pytest.fixture
def umbrella(tmp_path):
    """A chart that has this one as a part, twice: once under another name, and each only if it is enabled."""
    dependency = {"name": "weda-connector", "version": "0.1.0", "repository": "file://../helm"}
    parts = [
        {**dependency, "condition": "weda-connector.enabled"},
        {**dependency, "alias": "second", "condition": "second.enabled"},
    ]
    chart = tmp_path / "platform"
    shutil.copytree(CHART, chart / "charts" / "weda-connector")
    given = {"apiVersion": "v2", "name": "platform", "version": "1.0.0", "dependencies": parts}
    (chart / "Chart.yaml").write_text(yaml.safe_dump(given))
    return chart


def test_it_can_be_a_part_of_another_chart(umbrella):
    values = {
        "global": {"imageRegistry": "registry.example.com"},
        "weda-connector": {"enabled": True, "settings": {"kafka": BROKERS}},
        "second": {"enabled": True, "secretSettings": None, "settings": {"auth": "none", "kafka": BROKERS}},
    }

    made = made_as_a_part(umbrella, values)

    assert [name for kind, name in made if kind == "StatefulSet"] == ["rel-second", NAME]
    assert {name for _, name in made_as_a_part(umbrella, {**values, "second": {"enabled": False}})} == {
        name for _, name in kinds({})
    }


def test_its_values_are_held_against_its_schema_there_too(umbrella):
    with pytest.raises(helm_python.HelmValuesError, match="'typo'"):
        made_as_a_part(umbrella, {"second": {"typo": 1}})


def made_as_a_part(chart, values):
    with helm_python.Chart.load(chart) as loaded:
        rendered = loaded.render(values, name=rendering.RELEASE, namespace=rendering.NAMESPACE)
    texts = [text for name, text in rendered.items() if not name.endswith(".txt")]
    made = [each for text in texts for each in yaml.safe_load_all(text) if each]
    return sorted((each["kind"], each["metadata"]["name"]) for each in made)


# --- toggles: what is made ---


@pytest.mark.parametrize(
    ("values", "kind", "name"),
    [
        (EVERYTHING["ingress"], "Ingress", NAME),
        (EVERYTHING["httpRoute"], "HTTPRoute", NAME),
        ({"enabled": True}, "ServiceMonitor", NAME),
        ({"enabled": True}, "PrometheusRule", NAME),
        ({"enabled": True}, "ConfigMap", f"{NAME}-dashboards"),
        ({"enabled": True}, "Job", f"{NAME}-setup"),
    ],
)
def test_what_is_off_by_default_is_made_when_it_is_switched_on(values, kind, name):
    toggle = {"ConfigMap": "dashboards", "Job": "setup"}.get(kind) or kind.replace("HTTPR", "httpR")

    assert (kind, name) not in kinds({})
    assert (kind, name) in kinds({toggle[0].lower() + toggle[1:]: values})


@pytest.mark.parametrize("kind", ["NetworkPolicy", "PodDisruptionBudget", "ServiceAccount"])
def test_what_is_on_by_default_can_be_switched_off(kind):
    assert (kind, NAME) in kinds({})
    assert (kind, NAME) not in kinds(NOTHING)


def test_by_default_there_is_one_replica():
    assert only("StatefulSet", {})["spec"]["replicas"] == 1


def test_more_replicas_need_a_word_that_order_may_be_lost():
    with pytest.raises(helm_python.HelmRenderError, match="acceptReorderingInOutages=true"):
        objects({"replicaCount": 2})

    accepted = {"replicaCount": 2, "acceptReorderingInOutages": True}
    assert only("StatefulSet", accepted)["spec"]["replicas"] == 2
    assert "order of an instance holds within a replica only" in rendering.texts(accepted)["NOTES.txt"]


def test_the_journal_s_volume_stays_whatever_goes():
    spec = only("StatefulSet", {})["spec"]

    assert spec["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    [claim] = spec["volumeClaimTemplates"]
    assert claim["metadata"]["name"] == "journal"
    assert {"name": "journal", "mountPath": "/var/lib/weda-connector"} in connector({})["volumeMounts"]


def test_what_kubernetes_never_lets_change_does_not_change_with_version_or_labels(tmp_path):
    """An upgrade that touched these would be refused by the API server."""
    chart = tmp_path / "helm"
    shutil.copytree(CHART, chart)
    (chart / "Chart.yaml").write_text((CHART / "Chart.yaml").read_text().replace("0.1.0", "0.2.0"))
    [before] = [each["spec"] for each in objects({}) if each["kind"] == "StatefulSet"]
    labelled = {"commonLabels": {"a": "b"}, "podLabels": {"c": "d"}}
    [after] = [each["spec"] for each in objects(labelled, chart) if each["kind"] == "StatefulSet"]

    for name in ("selector", "serviceName", "volumeClaimTemplates", "podManagementPolicy"):
        assert after[name] == before[name]


def test_persistence_says_how_large_and_where():
    [claim] = only(
        "StatefulSet",
        {"persistence": {"size": "20Gi", "storageClassName": "local", "accessModes": ["ReadWriteOncePod"]}},
    )["spec"]["volumeClaimTemplates"]

    assert claim["spec"] == {
        "accessModes": ["ReadWriteOncePod"],
        "storageClassName": "local",
        "resources": {"requests": {"storage": "20Gi"}},
    }


def test_selectors_find_the_connector_and_nothing_else():
    """The Jobs' and the test's pods carry other components."""
    selectors = [
        only("Service", EVERYTHING, NAME)["spec"]["selector"],
        only("Service", EVERYTHING, f"{NAME}-headless")["spec"]["selector"],
        only("PodDisruptionBudget", EVERYTHING)["spec"]["selector"]["matchLabels"],
        only("StatefulSet", EVERYTHING)["spec"]["selector"]["matchLabels"],
    ]

    assert all(selector["app.kubernetes.io/component"] == "connector" for selector in selectors)
    assert set(pod_specs(EVERYTHING)) == PODS


V6 = {"settings": {"receiver": {"host": "::"}, "operations": {"host": "::"}}}
"""Listeners that have addresses of both families."""


def test_the_service_is_reached_as_the_values_say(tmp_path):
    given = {
        "type": "LoadBalancer",
        "externalTrafficPolicy": "Local",
        "internalTrafficPolicy": "Cluster",
        "loadBalancerClass": "example.com/inner",
        "loadBalancerSourceRanges": ["10.0.0.0/8"],
        "ipFamilyPolicy": "RequireDualStack",
        "ipFamilies": ["IPv6", "IPv4"],
    }
    values = {**V6, "service": {**given, "nodePort": 30080}}

    public, headless = only("Service", values, NAME)["spec"], only("Service", values, f"{NAME}-headless")["spec"]

    assert given.items() <= public.items()
    assert public["ports"][0]["nodePort"] == 30080
    families = {name: given[name] for name in ("ipFamilyPolicy", "ipFamilies")}
    assert families.items() <= headless.items()
    assert given.keys() & headless.keys() == set(families)
    assert what_is_wrong_with(values, tmp_path / "made.yaml") == []


def test_no_cloud_makes_a_health_check_of_the_protocol():
    """On a path of its own choice, to which the public listener says 404: the balancer would send to no pod."""
    [port] = only("Service", {"service": {"type": "LoadBalancer"}}, NAME)["spec"]["ports"]

    assert "appProtocol" not in port
    assert only("Service", {}, NAME)["spec"]["ports"][0]["appProtocol"] == "http"


def test_what_is_not_said_of_the_service_the_cluster_decides():
    assert set(only("Service", {}, NAME)["spec"]) == {"type", "selector", "ports"}
    assert "nodePort" not in only("Service", {"service": {"type": "NodePort"}}, NAME)["spec"]["ports"][0]


@pytest.mark.parametrize(
    ("service", "said"),
    [
        ({"nodePort": 30080}, "service.nodePort is only for service.type NodePort or LoadBalancer"),
        ({"externalTrafficPolicy": "Local"}, "service.externalTrafficPolicy is only for service.type NodePort or"),
        (
            {"type": "NodePort", "loadBalancerClass": "c"},
            "service.loadBalancerClass is only for",
        ),
        (
            {"type": "NodePort", "loadBalancerSourceRanges": ["10.0.0.0/8"]},
            "loadBalancerSourceRanges is only for",
        ),
        ({"ipFamilies": ["IPv6"]}, "settings.receiver.host is 0.0.0.0, which accepts no IPv6"),
        ({"ipFamilyPolicy": "PreferDualStack"}, "settings.receiver.host is 0.0.0.0, which accepts no IPv6"),
    ],
    ids=str,
)
def test_what_the_service_cannot_be_is_refused(service, said):
    with pytest.raises(helm_python.HelmRenderError, match=re.escape(said)):
        objects({"service": service})


def test_the_service_monitor_finds_the_port_of_the_operations_listener():
    monitor = only("ServiceMonitor", {"serviceMonitor": {"enabled": True, "labels": {"release": "p"}}})
    service = only("Service", {}, f"{NAME}-headless")

    assert monitor["metadata"]["labels"]["release"] == "p"
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["spec"]["endpoints"][0]["port"] in {each["name"] for each in service["spec"]["ports"]}
    assert monitor["spec"]["selector"]["matchLabels"].items() - only("Service", {}, NAME)["metadata"]["labels"].items()


def test_the_alerts_are_those_of_the_plain_rule_file():
    spec = only("PrometheusRule", {"prometheusRule": {"enabled": True}})["spec"]

    plain = yaml.safe_load((CHART / "rules" / "weda-connector.rules.yaml").read_text())
    for rule in (rule for group in spec["groups"] for rule in group["rules"]):
        own = OF_THE_NOTIFIER if "weda_notify_" in rule["expr"] else OF_THE_RELEASE
        assert own in rule["expr"]
        rule["expr"] = rule["expr"].replace(own, "{").replace("{}", "")
    assert spec == plain
    assert spec["groups"]


def test_whatever_dashboards_there_are_go_into_the_config_map(tmp_path):
    chart = tmp_path / "helm"
    shutil.copytree(CHART, chart)
    (chart / "dashboards" / "one.json").write_text('{"title": "{{ $labels.x }}"}')
    [made] = [
        each
        for each in objects({"dashboards": {"enabled": True}}, chart)
        if each["metadata"]["name"].endswith("-dashboards")
    ]

    assert made["data"]["one.json"] == '{"title": "{{ $labels.x }}"}'
    assert set(made["data"]) == {"one.json", *(each.name for each in (CHART / "dashboards").glob("*.json"))}
    assert made["metadata"]["labels"]["grafana_dashboard"] == "1"


@pytest.mark.parametrize("kind", ["Ingress", "HTTPRoute"])
def test_from_outside_only_the_two_paths_of_sources_are_reached(kind):
    text = json.dumps(only(kind, EVERYTHING)["spec"])

    assert set(re.findall(r'"(/[^"]*)"', text)) == {"/messageDeliver", "/sources"}
    assert "operations" not in text


TESTER = {"podSelector": {"matchLabels": {**FOUND, "app.kubernetes.io/component": "test"}}}


def test_the_network_policy_lets_only_named_peers_and_the_test_in():
    peers = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    policy = only(
        "NetworkPolicy", {"networkPolicy": {"operationsFrom": peers, "egress": [{"ports": [{"port": 9093}]}]}}, NAME
    )
    public, operations = policy["spec"]["ingress"]

    assert public == {"ports": [{"port": 8080, "protocol": "TCP"}]}
    assert operations == {"ports": [{"port": 9464, "protocol": "TCP"}], "from": [*peers, TESTER]}
    assert policy["spec"]["egress"] == [{"ports": [{"port": 9093}]}]
    closed = only("NetworkPolicy", {"networkPolicy": {"operationsFrom": [], "from": peers}}, NAME)["spec"]["ingress"]
    assert [each["from"] for each in closed] == [[*peers, TESTER], [TESTER]]


def test_the_test_s_pod_reaches_the_connector_however_narrow_the_policy_is():
    """Egress of one policy adds to that of the other; names of Services need the cluster's DNS."""
    kafka = [{"ports": [{"port": 9093}]}]
    narrow = {"networkPolicy": {"from": [{"podSelector": {}}], "operationsFrom": [], "egress": kafka}}
    policy = only("NetworkPolicy", narrow, f"{NAME}-test")["spec"]
    tester = next(each for each in objects(narrow) if each["kind"] == "Pod")["metadata"]["labels"]
    serving = only("StatefulSet", narrow)["spec"]["template"]["metadata"]["labels"]
    connecting, naming = policy["egress"]

    assert policy["podSelector"]["matchLabels"].items() <= tester.items()
    assert not policy["podSelector"]["matchLabels"].items() <= serving.items()
    assert connecting["to"][0]["podSelector"]["matchLabels"].items() <= serving.items()
    assert [each["port"] for each in connecting["ports"]] == [8080, 9464]
    assert {(each["port"], each["protocol"]) for each in naming["ports"]} == {(53, "UDP"), (53, "TCP")}


# --- pods ---


@pytest.mark.parametrize("values", [EVERYTHING, SHARED], ids=["everything", "shared journal"])
def test_every_pod_is_restricted(values):
    """The profile `restricted` of Pod Security, and a root file system that is read only."""
    for spec in pod_specs(values).values():
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in rendering.containers(spec):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]


def test_no_pod_gets_the_variables_of_services():
    """They begin with WEDA_ where a Service is called so, and an unknown setting stops the start."""
    specs = [*pod_specs(EVERYTHING).values(), *pod_specs(SHARED).values()]

    assert {spec["enableServiceLinks"] for spec in specs} == {False}


def test_the_service_account_has_no_token():
    assert only("ServiceAccount", {})["automountServiceAccountToken"] is False
    assert pod_specs({})["connector"]["serviceAccountName"] == NAME
    assert pod_specs(NOTHING)["connector"]["serviceAccountName"] == "default"
    other = {"serviceAccount": {"create": False, "name": "other"}}
    assert pod_specs(other)["connector"]["serviceAccountName"] == "other"


def test_the_probes_are_three_and_only_readiness_looks_at_more_than_the_process():
    container = connector({})

    assert {
        probe: container[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")
    } == {
        "startupProbe": "/livez",
        "livenessProbe": "/livez",
        "readinessProbe": "/readyz",
    }
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 300


@pytest.mark.parametrize(("grace", "pre_stop", "expected"), [(25, 5, 40), (2.5, 0, 13), (120, 30, 160)])
def test_the_grace_period_holds_pre_stop_and_the_connector_s_own(grace, pre_stop, expected):
    values = {"settings": {"receiver": {"shutdown_grace_seconds": grace}}, "preStopSeconds": pre_stop}

    assert pod_specs(values)["connector"]["terminationGracePeriodSeconds"] == expected
    assert connector(values)["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", str(pre_stop)]


def test_another_configuration_is_another_pod():
    def checksum(values):
        return only("StatefulSet", values)["spec"]["template"]["metadata"]["annotations"]["checksum/config"]

    assert checksum({}) == checksum({"podAnnotations": {"a": "b"}})
    assert checksum({}) != checksum({"settings": {"log": {"level": "debug"}}})


def test_the_image_is_named_by_tag_or_digest():
    digest = f"sha256:{'0' * 64}"

    assert connector({})["image"] == "weda-connector:0.1.0"
    assert connector({"image": {"repository": "a/b", "tag": "2"}})["image"] == "a/b:2"
    assert connector({"image": {"tag": "2", "digest": digest}})["image"] == f"weda-connector@{digest}"


def test_what_is_extra_is_in_the_connector_s_pod():
    spec = pod_specs(EVERYTHING)["connector"]
    container = connector(EVERYTHING)

    assert {"name": "TZ", "value": "UTC"} in container["env"]
    assert container["envFrom"] == EVERYTHING["extraEnvFrom"]
    assert EVERYTHING["extraVolumes"][0] in spec["volumes"]
    assert EVERYTHING["extraVolumeMounts"][0] in container["volumeMounts"]
    assert EVERYTHING["extraContainers"][0] in spec["containers"]
    assert EVERYTHING["extraInitContainers"] == spec["initContainers"]
    for name in ("priorityClassName", "nodeSelector", "tolerations", "affinity", "topologySpreadConstraints"):
        assert spec[name] == EVERYTHING[name]
    assert spec["imagePullSecrets"] == EVERYTHING["imagePullSecrets"]
    template = only("StatefulSet", EVERYTHING)["spec"]["template"]["metadata"]
    assert template["annotations"]["a"] == "b"
    assert template["labels"]["c"] == "d"


@pytest.mark.parametrize("values", [EVERYTHING, SHARED], ids=["everything", "shared journal"])
def test_common_labels_are_on_every_object(values):
    bare = [each["kind"] for each in objects(values) if each["metadata"]["labels"].get("team") != "workflows"]

    assert bare == []


OWN_LABELS = [
    "app.kubernetes.io/name",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/component",
    "app.kubernetes.io/version",
    "app.kubernetes.io/managed-by",
    "helm.sh/chart",
]


@pytest.mark.parametrize("label", OWN_LABELS)
@pytest.mark.parametrize(
    "value", ["commonLabels", "podLabels", "serviceMonitor.labels", "prometheusRule.labels", "dashboards.labels"]
)
def test_labels_by_which_objects_are_found_cannot_be_replaced(value, label):
    section, _, name = value.partition(".")
    labels = {label: "other"}

    with pytest.raises(helm_python.HelmRenderError, match=f"{value}: the chart sets the label {label} itself"):
        objects({section: {name: labels} if name else labels})


def test_a_label_of_an_object_wins_over_the_common_one_and_is_there_once():
    labels = {"team": "other"}
    values = {
        "commonLabels": {"team": "workflows"},
        "podLabels": labels,
        **{name: {"enabled": True, "labels": labels} for name in ("serviceMonitor", "prometheusRule", "dashboards")},
    }
    given = [
        only("StatefulSet", values)["spec"]["template"]["metadata"]["labels"],
        *(only(kind, values)["metadata"]["labels"] for kind in ("ServiceMonitor", "PrometheusRule")),
        only("ConfigMap", values, f"{NAME}-dashboards")["metadata"]["labels"],
    ]

    assert {each["team"] for each in given} == {"other"}
    assert only("StatefulSet", values)["metadata"]["labels"]["team"] == "workflows"


@pytest.mark.parametrize("values", SETS.values(), ids=SETS)
def test_nothing_is_written_twice(values):
    """Of two equal names in a YAML file one wins, and which one is nobody's promise."""
    crowded = {"commonLabels": {"a": "b"}, "podLabels": {"a": "c"}, "podAnnotations": {"checksum/config": "mine"}}
    for name, text in rendering.texts({**values, **crowded}).items():
        for node in [] if name == "NOTES.txt" else yaml.compose_all(text, Loader=yaml.SafeLoader):
            assert repeated(node) == []


def repeated(node):
    """Names that a mapping has more than once, there or below."""
    if isinstance(node, yaml.SequenceNode):
        return [name for each in node.value for name in repeated(each)]
    if not isinstance(node, yaml.MappingNode):
        return []
    names = [key.value for key, _ in node.value]
    below = [name for _, under in node.value for name in repeated(under)]
    return [*below, *(name for name in names if names.count(name) > 1)]


def test_names_can_be_replaced():
    assert ("StatefulSet", "rel-hook") in kinds({"nameOverride": "hook"})
    assert ("StatefulSet", "hook") in kinds({"fullnameOverride": "hook"})
    long = {"fullnameOverride": "x" * 80}
    names = {name for _, name in kinds({**EVERYTHING, **long}) | kinds({**SHARED, **long})}
    assert max(map(len, names)) <= 63


@pytest.mark.parametrize("word", ["1e3", "on", "0x1f", "null"])
@pytest.mark.parametrize("values", [EVERYTHING, SHARED], ids=["everything", "shared journal"])
def test_a_name_that_looks_like_a_number_or_a_switch_is_text(values, word):
    """For Helm's YAML `1e3` is a thousand, and the API server takes no numbers for names and labels."""
    anywhere = {
        "nameOverride": word,
        "fullnameOverride": word if word.isalpha() else "",
        "commonLabels": {"a": word},
        "podLabels": {"b": word},
        "podAnnotations": {"c": word},
        "nodeSelector": {"d": word},
        "priorityClassName": word,
        "serviceAccount": {"create": False, "name": word},
        "persistence": {"storageClassName": word, "size": "8589934592", "annotations": {"e": word}},
        "service": {"annotations": {"f": word}},
        "ingress": {**EVERYTHING["ingress"], "className": word, "hosts": [word]},
        "autoscaling": {**values.get("autoscaling", {}), "targetCPU": "1"},
        "certificates": {word: {"existingSecret": word}},
        "secretSettings": {"WEDA_TOKEN": {"existingSecret": word, "key": word}},
        "drain": {"claims": [word]},
        "extraEnv": [{"name": word, "value": word}],
        "settings": {"kafka": {"properties": {"client.id": word}}},
    }
    release = f"a.{word}" if word.isalpha() else "a"
    made = rendering.texts({**values, **anywhere}, release=release, namespace=word)

    for name, text in made.items():
        bare = re.findall(rf"^.*(?:[:,-] |[\[{{]){word} *(?:$|[,}}\]]).*$", text, re.MULTILINE)
        assert name in {"NOTES.txt", "dashboards.yaml", "prometheusrule.yaml"} or bare == []


def test_a_release_of_any_name_makes_names_that_kubernetes_takes():
    """Of 53 letters at most, dots among them; what cannot be is said before the install."""
    for release in ("a.b", "x" * 53, f"{'x' * 49}.--y", "weda-connector", f"{'x' * 38}-weda-connector"):
        for each in (*objects(EVERYTHING, release=release), *objects(SHARED, release=release)):
            assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", each["metadata"]["name"])
    with pytest.raises(helm_python.HelmRenderError, match="name 1e3: the objects would be called 1e3-weda-connector"):
        objects({}, release="1e3")
    named = objects({"fullnameOverride": "weda"}, release="1e3")
    assert {each["metadata"]["labels"]["app.kubernetes.io/instance"] for each in named} == {"1e3"}


# --- jobs ---


def test_topics_and_schemas_are_there_before_the_connector():
    job = only("Job", {"setup": {"enabled": True}}, f"{NAME}-setup")
    settings = only("ConfigMap", {"setup": {"enabled": True}}, f"{NAME}-setup")

    for each in (job, settings):
        assert each["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert int(settings["metadata"]["annotations"]["helm.sh/hook-weight"]) < int(
        job["metadata"]["annotations"]["helm.sh/hook-weight"]
    )
    assert settings["data"] == only("ConfigMap", {}, NAME)["data"]
    assert container_of("setup", {"setup": {"enabled": True}})["args"][:2] == ["topics", "apply"]


def test_schemas_are_registered_where_there_is_a_registry():
    spec = pod_specs(EVERYTHING)["setup"]

    assert spec["initContainers"][0]["args"][:2] == ["schemas", "register"]
    assert "initContainers" not in pod_specs({"setup": {"enabled": True}})["setup"]
    for elsewhere in (
        {"extraEnv": [{"name": "WEDA_REGISTRY__URL", "value": "http://registry:8081"}]},
        {"extraEnv": [{"name": "WEDA_REGISTRY__URL_FILE", "value": "/registry"}]},
        {"secretSettings": {"WEDA_REGISTRY__URL": {"existingSecret": "registry", "key": "url"}}},
    ):
        assert "initContainers" in pod_specs({"setup": {"enabled": True}, **elsewhere})["setup"]


@pytest.mark.parametrize("component", ["setup", "migration"])
def test_before_the_install_a_job_has_the_service_account_that_exists_by_then(component):
    """Which the chart's own does not."""
    existing = {"serviceAccount": {"create": False, "name": "of-the-cloud"}}

    assert "serviceAccountName" not in pod_specs(SHARED)[component]
    assert pod_specs({**SHARED, **existing})[component]["serviceAccountName"] == "of-the-cloud"
    assert pod_specs({**SHARED, **existing})["connector"]["serviceAccountName"] == "of-the-cloud"


def test_a_detached_volume_is_drained_by_a_job():
    spec = pod_specs(EVERYTHING)["drain"]
    [volume] = [each for each in spec["volumes"] if each["name"] == "journal"]

    assert volume["persistentVolumeClaim"]["claimName"] == CLAIM
    assert {"name": "journal", "mountPath": "/var/lib/weda-connector"} in spec["containers"][0]["volumeMounts"]
    assert spec["containers"][0]["args"][:2] == ["journal", "drain"]


def test_a_claim_that_a_replica_has_is_not_drained():
    own = f"journal-{NAME}-0"

    with pytest.raises(helm_python.HelmRenderError, match=f"{own} belongs to replica 0"):
        objects({"drain": {"claims": [own]}})
    with pytest.raises(helm_python.HelmValuesError):
        objects({"drain": {"claims": [CLAIM, CLAIM]}})
    assert objects({"drain": {"claims": [own]}, "replicaCount": 0})
    assert objects({**SHARED, "drain": {"claims": [own]}})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"extraVolumes": [{"name": "tmp", "emptyDir": {}}]}, "extraVolumes: the chart has a volume called tmp itself"),
        (
            {"extraVolumes": [{"name": "certificates-a", "emptyDir": {}}]},
            "the chart has a volume called certificates-a",
        ),
        (
            {"extraVolumeMounts": [{"name": "more", "mountPath": "/tmp/"}]},
            "the chart itself mounts a volume at /tmp/",
        ),
        (
            {"extraContainers": [{"name": "connector", "image": "a:1"}]},
            "the chart's own container is called connector",
        ),
    ],
    ids=str,
)
def test_what_is_extra_takes_no_place_of_the_chart_s_own(values, said):
    """Which the API server would say in the middle of an install."""
    with pytest.raises(helm_python.HelmRenderError, match=said):
        objects(values)


def test_a_drain_of_another_kind_is_another_job():
    """A Job cannot be changed."""

    def name(**values):
        return only("Job", {"drain": {"claims": [CLAIM]}, **values})["metadata"]["name"]

    assert name() == name(commonLabels={"a": "b"})
    assert len({name(), name(image={"tag": "2"}), name(drain={"claims": ["other"]})}) == 3


@pytest.mark.parametrize("values", [EVERYTHING, SHARED], ids=["everything", "shared journal"])
@pytest.mark.parametrize("component", ["setup", "drain"])
def test_the_jobs_have_the_connector_s_settings(component, values):
    """The same files in the same places, the same variables."""
    job, serving = container_of(component, values), connector(values)
    own = {"journal", "cache"}

    assert job["env"] == serving["env"]
    assert job["envFrom"] == serving["envFrom"]
    mounts = [each for each in serving["volumeMounts"] if each["name"] not in own]
    assert [each for each in job["volumeMounts"] if each["name"] not in own] == mounts
    config = serving["args"][serving["args"].index("--config") + 1]
    assert config in job["args"]
