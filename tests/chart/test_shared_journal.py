"""The chart for replicas that share a journal: each toggle of that mode, and what it leaves of the other one."""

import json

import helm_python
import pytest

from tests.chart import rendering
from tests.chart.rendering import CLAIM, EVERYTHING, NAME, SHARED, connector, objects, only, pod_specs

ONLY = {"sharedJournal": {"enabled": True, "existingSecret": "journal"}}
"""The mode by itself, without what can be added."""

ONE_S_OWN = {"persistentVolumeClaim", "hostPath", "ephemeral"}
"""Kinds of volumes that outlive a pod, or may."""


def kinds(values):
    return {(each["kind"], each["metadata"]["name"]) for each in objects(values)}


def shared(**more):
    return {**ONLY, "sharedJournal": {**ONLY["sharedJournal"], **more}}


# --- the replicas ---


def test_a_deployment_stands_in_place_of_the_stateful_set():
    assert ("StatefulSet", NAME) in kinds({})
    assert ("Deployment", NAME) not in kinds({})
    assert ("Deployment", NAME) in kinds(ONLY)
    assert ("StatefulSet", NAME) not in kinds(ONLY)


def test_it_has_no_volume_that_outlives_a_pod():
    """What is written is an empty folder: the ids of schemas, and temporary files."""
    volumes = pod_specs(ONLY)["connector"]["volumes"]
    written = {each["name"] for each in volumes if "emptyDir" in each}

    assert [each for each in volumes if each.keys() & ONE_S_OWN] == []
    assert written == {"cache", "tmp"}
    assert all(each["emptyDir"]["sizeLimit"] for each in volumes if each["name"] in written)
    assert {"name": "cache", "mountPath": "/var/lib/weda-connector"} in connector(ONLY)["volumeMounts"]


def test_all_other_of_the_pod_is_as_with_a_journal_of_its_own():
    """Probes, preStop, grace period, resources, security, extras."""

    def spec(values):
        made = pod_specs({**values, "topologySpreadConstraints": EVERYTHING["topologySpreadConstraints"]})["connector"]
        container = made["containers"][0]
        for each in (container["env"], made["volumes"], container["volumeMounts"]):
            each[:] = [
                one for one in each if one["name"] not in {"WEDA_JOURNAL__URL_FILE", "cache", "journal", "secrets"}
            ]
        return made

    assert spec(SHARED) == spec(EVERYTHING)


def test_a_replica_goes_only_when_another_one_takes_messages():
    strategy = only("Deployment", ONLY)["spec"]["strategy"]

    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}


def test_any_number_of_replicas_keeps_the_order():
    """Nothing is to be accepted, and no warning is given."""
    three = {**ONLY, "replicaCount": 3}

    assert only("Deployment", three)["spec"]["replicas"] == 3
    notes = rendering.texts(three)["NOTES.txt"]
    assert "keep the order of each instance among them" in notes
    assert "within a replica only" not in notes
    assert f"exec deployment/{NAME} --" in notes


def test_services_budget_and_monitor_find_the_replicas():
    labels = only("Deployment", SHARED)["spec"]["template"]["metadata"]["labels"]
    selectors = [
        only("Deployment", SHARED)["spec"]["selector"]["matchLabels"],
        only("Service", SHARED, NAME)["spec"]["selector"],
        only("Service", SHARED, f"{NAME}-headless")["spec"]["selector"],
        only("PodDisruptionBudget", SHARED)["spec"]["selector"]["matchLabels"],
    ]

    assert all(selector.items() <= labels.items() for selector in selectors)
    assert all(selector["app.kubernetes.io/component"] == "connector" for selector in selectors)
    assert set(pod_specs(SHARED)) == {"connector", "setup", "migration", "drain", "test"}
    assert only("ServiceMonitor", SHARED)["spec"] == only("ServiceMonitor", EVERYTHING)["spec"]


def test_replicas_spread_where_they_can_unless_they_are_set_otherwise():
    spread = pod_specs(ONLY)["connector"]["topologySpreadConstraints"]
    labels = only("Deployment", ONLY)["spec"]["template"]["metadata"]["labels"]

    assert [each["topologyKey"] for each in spread] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
    assert {each["whenUnsatisfiable"] for each in spread} == {"ScheduleAnyway"}
    assert all(each["labelSelector"]["matchLabels"].items() <= labels.items() for each in spread)
    assert "topologySpreadConstraints" not in pod_specs({})["connector"]
    own = EVERYTHING["topologySpreadConstraints"]
    assert pod_specs({**ONLY, "topologySpreadConstraints": own})["connector"]["topologySpreadConstraints"] == own


def test_without_an_address_there_is_no_shared_journal():
    with pytest.raises(helm_python.HelmValuesError):
        objects({"sharedJournal": {"enabled": True}})


# --- how many there are ---


def test_the_number_follows_the_cpu_where_that_is_wanted():
    values = {**ONLY, "autoscaling": {"enabled": True, "minReplicas": 3, "maxReplicas": 9, "targetCPU": "500m"}}
    scaler, scaled = only("HorizontalPodAutoscaler", values)["spec"], only("Deployment", values)
    [metric] = scaler["metrics"]

    assert scaler["scaleTargetRef"] == {"apiVersion": scaled["apiVersion"], "kind": "Deployment", "name": NAME}
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (3, 9)
    assert metric["containerResource"]["container"] == connector(values)["name"]
    assert metric["containerResource"]["target"] == {"type": "AverageValue", "averageValue": "500m"}
    assert "replicas" not in scaled["spec"], "an upgrade would set it back"
    assert ("HorizontalPodAutoscaler", NAME) not in kinds(ONLY)


def test_replicas_with_journals_of_their_own_do_not_come_and_go():
    """One that went would leave its backlog on its volume."""
    with pytest.raises(helm_python.HelmRenderError, match=r"autoscaling\.enabled needs sharedJournal\.enabled"):
        objects({"autoscaling": {"enabled": True}})


def test_there_are_not_more_at_least_than_at_most():
    crossed = {**ONLY, "autoscaling": {"enabled": True, "minReplicas": 6}}

    with pytest.raises(
        helm_python.HelmRenderError, match=r"minReplicas \(6\) must not exceed autoscaling\.maxReplicas \(5\)"
    ):
        objects(crossed)
    assert objects({**crossed, "autoscaling": {"minReplicas": 6}}), "which matters once it is enabled"


# --- the database ---


def test_the_tables_are_made_before_the_replicas_that_need_them():
    """By a Job before each install and upgrade, and before the topics are."""
    job = only("Job", SHARED, f"{NAME}-migration")
    setup = only("Job", SHARED, f"{NAME}-setup")
    weights = [int(each["metadata"]["annotations"]["helm.sh/hook-weight"]) for each in (job, setup)]

    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert weights == sorted(set(weights))
    assert pod_specs(SHARED)["migration"]["containers"][0]["args"] == ["journal", "migrate"]


def test_the_owner_s_address_is_the_migration_s_alone():
    """Which has no other secret of ours."""
    elsewhere = json.dumps([each for each in objects(SHARED) if each["metadata"]["name"] != f"{NAME}-migration"])
    [volume] = [each for each in pod_specs(SHARED)["migration"]["volumes"] if each["name"] == "secrets"]
    [source] = volume["projected"]["sources"]

    assert "journal-owner" not in elsewhere
    assert source["secret"] == {
        "name": "journal-owner",
        "items": [{"key": "owner-url", "path": "WEDA_JOURNAL__URL"}],
    }


def test_the_migration_reaches_the_database_by_the_same_certificates_and_variables():
    container = pod_specs(SHARED)["migration"]["containers"][0]

    assert "/etc/weda-connector/certificates/kafka" in {each["mountPath"] for each in container["volumeMounts"]}
    assert EVERYTHING["extraEnv"][0] in container["env"]
    assert container["envFrom"] == EVERYTHING["extraEnvFrom"]


def test_without_the_owner_s_address_somebody_else_migrates():
    assert ("Job", f"{NAME}-migration") not in kinds(ONLY)
    assert "weda-connector journal migrate" in rendering.texts(ONLY)["NOTES.txt"]
    assert "No Job creates its tables" not in rendering.texts(SHARED)["NOTES.txt"]


def test_a_migration_that_hangs_or_fails_ends_the_upgrade():
    spec = only("Job", shared(migration={"existingSecret": "o", "backoffLimit": 1, "activeDeadlineSeconds": 9}))["spec"]

    assert (spec["backoffLimit"], spec["activeDeadlineSeconds"]) == (1, 9)


def test_the_network_policy_lets_the_pods_to_the_database_too():
    kafka = [{"ports": [{"port": 9093}]}]
    narrow = {"networkPolicy": {"egress": kafka}}
    elsewhere = [{"to": [{"ipBlock": {"cidr": "10.0.0.7/32"}}], "ports": [{"port": 6432}]}]

    def egress(values):
        return only("NetworkPolicy", values, NAME)["spec"]["egress"]

    assert egress(narrow) == kafka
    assert egress({**ONLY, **narrow}) == [*kafka, {"ports": [{"port": 5432, "protocol": "TCP"}]}]
    assert egress({**shared(egress=elsewhere), **narrow}) == [*kafka, *elsewhere]
    assert egress({**shared(egress=[]), **narrow}) == kafka


# --- from one mode to the other ---


def test_what_a_journal_of_before_holds_is_drained_from_its_volume():
    """Though the settings name a database: the file is named on the command line."""
    spec = pod_specs(SHARED)["drain"]
    [volume] = [each for each in spec["volumes"] if each["name"] == "journal"]
    arguments = spec["containers"][0]["args"]

    assert volume["persistentVolumeClaim"]["claimName"] == CLAIM
    assert arguments[arguments.index("--journal") + 1] == "/var/lib/weda-connector/journal.db"
    assert "drain.claims={journal-" in rendering.texts(ONLY)["NOTES.txt"]
