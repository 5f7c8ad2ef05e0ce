"""The chart on a real API server: whatever Helm does to a release, the volume of the journal stays."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import helm_python
import pytest
import yaml

from tests.chart.rendering import CHART, EVERYTHING, SHARED
from tests.chart.test_knobs import OWN, SCALED
from tests.chart.test_notify import RULES
from tests.kubernetes.cluster import volume
from tests.kubernetes.conftest import LOCAL, NAME
from tests.waiting import wait_until

CLAIM = f"journal-{NAME}-0"
SECOND = f"journal-{NAME}-1"
TWO = {"replicaCount": 2, "acceptReorderingInOutages": True}
THREE_SHARING = {
    "replicaCount": 3,
    "sharedJournal": {"enabled": True, "existingSecret": "journal", "migration": {"existingSecret": "owner"}},
}
NOT_HERE = {
    "drain": {"claims": []},
    "priorityClassName": "",
    "nodeSelector": {},
    "extraContainers": [],
    "extraInitContainers": [],
}
"""What a pod of these tests cannot have: a claim of before, labels of nodes, images."""


DIGEST = f"sha256:{'0' * 64}"
ADJUSTED = {
    **LOCAL,
    **NOT_HERE,
    "schedulerName": "",  # a second scheduler is not here
    "image": {"digest": DIGEST},
    "podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None},
    "secretSettings": {
        "WEDA_KAFKA__PROPERTIES__SASL_PASSWORD": {"existingSecret": "kafka", "key": "password"},
        "WEDA_SOURCES__HR__TOKENS": {"existingSecret": "hr", "key": "tokens"},
    },
    "service": {
        "type": "NodePort",
        "externalTrafficPolicy": "Local",
        "internalTrafficPolicy": "Cluster",
        "ipFamilyPolicy": "SingleStack",
        "ipFamilies": ["IPv4"],
    },
    "notify": {"enabled": True, "rules": RULES, "targetsSecret": "targets", "storageClassName": "local"},
}
KNOBS = {
    "own journals": (OWN | ADJUSTED | {"persistence": {"storageClassName": "-"}}, "statefulsets", "servicemonitors"),
    "shared journal": (SCALED | ADJUSTED, "deployments", "podmonitors"),
}


def image_of(pod):
    return pod["spec"]["containers"][0]["image"]


def claim_of(pod):
    [name] = [
        each["persistentVolumeClaim"]["claimName"] for each in pod["spec"]["volumes"] if each["name"] == "journal"
    ]
    return name


def test_an_install_ends_with_a_pod_that_has_its_volume(releases):
    releases.install()

    [pod] = releases.pods().values()
    assert pod["status"]["phase"] == "Running"
    assert claim_of(pod) == CLAIM
    assert set(releases.claims()) == {CLAIM}
    assert releases.revisions() == ["deployed"]


def test_an_upgrade_and_a_rollback_keep_the_volume(releases, tmp_path):
    """The next version of the chart and its image come, and the one before comes back."""
    chart = tmp_path / "helm"
    shutil.copytree(CHART, chart)
    (chart / "Chart.yaml").write_text((CHART / "Chart.yaml").read_text().replace("0.1.0", "0.2.0"))
    releases.install()
    before = releases.claims()

    releases.upgrade({"settings": {"log": {"level": "debug"}}, "commonLabels": {"team": "a"}}, chart)
    assert [image_of(pod) for pod in releases.pods().values()] == ["weda-connector:0.2.0"]
    assert releases.claims() == before
    releases.roll_back()

    [pod] = releases.pods().values()
    assert (image_of(pod), claim_of(pod)) == ("weda-connector:0.1.0", CLAIM)
    assert releases.claims() == before
    assert releases.revisions() == ["superseded", "superseded", "deployed"]


def test_a_new_configuration_makes_a_new_pod_and_an_equal_one_does_not(releases):
    releases.install()
    [first] = releases.pods().values()

    releases.upgrade()
    [same] = releases.pods().values()
    releases.upgrade({"settings": {"log": {"level": "debug"}}})
    [other] = releases.pods().values()

    assert same["metadata"]["uid"] == first["metadata"]["uid"]
    assert other["metadata"]["uid"] != first["metadata"]["uid"]


def test_a_volume_of_a_replica_that_was_scaled_away_stays_is_drained_and_is_taken_up_again(releases):
    releases.install(TWO)
    before = releases.claims()
    assert set(before) == {CLAIM, SECOND}

    releases.upgrade({"drain": {"claims": [SECOND]}})
    wait_until(lambda: set(releases.pods()) == {f"{NAME}-0"})
    [job] = releases.get("jobs")
    wait_until(lambda: releases.one("jobs", job["metadata"]["name"])["status"].get("succeeded") == 1)
    [drained] = [each for each in releases.get("pods") if each["metadata"]["name"].startswith(job["metadata"]["name"])]
    assert claim_of(drained) == SECOND
    assert releases.claims() == before
    releases.upgrade(TWO)

    assert claim_of(releases.pods()[f"{NAME}-1"]) == SECOND
    assert releases.claims() == before


def test_an_uninstall_keeps_the_volume_and_the_next_install_takes_it_up(releases):
    releases.install()
    before = releases.claims()

    releases.uninstall()
    assert releases.get("statefulsets") == []
    assert releases.claims() == before
    releases.install()

    [pod] = releases.pods().values()
    assert claim_of(pod) == CLAIM
    assert releases.claims() == before


def test_everything_at_once_is_taken_by_the_api_server(releases):
    """Hooks run to their end, and the objects of other operators are what those define."""
    releases.install({**EVERYTHING, **LOCAL, **NOT_HERE})

    assert len(releases.pods()) == 2
    for kind in ("servicemonitors", "prometheusrules", "httproutes", "ingresses"):
        assert len(releases.get(kind)) == 1, kind
    assert len(releases.get("networkpolicies")) == 2, "the connector's, and that of the test's pod"
    assert [each["metadata"]["name"] for each in releases.get("jobs")] == [], "the set-up has ended and is gone"
    [rule] = releases.get("prometheusrules")
    plain = yaml.safe_load((CHART / "rules" / "weda-connector.rules.yaml").read_text())
    assert [each["name"] for each in rule["spec"]["groups"]] == [each["name"] for each in plain["groups"]]


def test_an_eviction_takes_one_replica_at_most(releases):
    releases.install(TWO)
    wait_until(lambda: releases.one("poddisruptionbudgets", NAME)["status"].get("disruptionsAllowed") == 1)

    assert releases.one("poddisruptionbudgets", NAME)["status"]["currentHealthy"] == 2


def test_a_pod_that_is_not_restricted_would_be_refused(releases):
    """So that the tests above show that ours are."""
    with pytest.raises(helm_python.HelmError):
        releases.install({"securityContext": {"allowPrivilegeEscalation": True}}, seconds=10)

    events = releases.cluster.kubectl("get", "events", "--namespace", releases.namespace).stdout
    assert 'violates PodSecurity "restricted' in events


def test_a_larger_volume_comes_by_the_way_that_the_guide_shows(releases):
    """Kubernetes lets nobody change a StatefulSet's claims: the set is replaced, pods and volumes stay."""
    releases.install()
    before = releases.claims()
    with pytest.raises(helm_python.HelmError, match=r"persistence\.size was 8Gi"):
        releases.upgrade({"persistence": {"storageClassName": "local", "size": "16Gi"}})

    deleted = releases.cluster.kubectl(
        "delete", "statefulset", NAME, "--cascade=orphan", "--namespace", releases.namespace
    )
    assert deleted.returncode == 0
    assert len(releases.pods()) == 1
    releases.upgrade({"persistence": {"storageClassName": "local", "size": "16Gi"}})

    assert releases.claims() == before
    assert len(releases.pods()) == 1


# --- replicas that share a journal ---


def test_replicas_that_share_a_journal_need_no_volume(releases):
    """The migration has ended before they come, and is gone."""
    releases.install(THREE_SHARING)

    assert len(releases.pods()) == 3
    assert releases.claims() == {}
    assert releases.get("statefulsets") == releases.get("jobs") == []
    wait_until(lambda: releases.one("poddisruptionbudgets", NAME)["status"].get("disruptionsAllowed") == 1)


def test_an_upgrade_replaces_replicas_and_there_are_never_fewer(releases):
    releases.install(THREE_SHARING)
    before = set(releases.pods())

    with fewest_available(releases) as seen:
        releases.upgrade({**THREE_SHARING, "settings": {"log": {"level": "debug"}}})
    wait_until(lambda: len(releases.pods()) == 3)

    assert set(releases.pods()) & before == set()
    assert min(seen) == 3
    releases.roll_back()
    assert len(releases.pods()) == 3


def test_with_a_shared_journal_the_volume_of_before_stays_and_is_drained(releases):
    """And is taken up again on the way back."""
    releases.install()
    before = releases.claims()

    releases.upgrade({**THREE_SHARING, "drain": {"claims": [CLAIM]}})
    wait_until(lambda: len(releases.pods()) == 3)
    [job] = releases.get("jobs")
    wait_until(lambda: releases.one("jobs", job["metadata"]["name"])["status"].get("succeeded") == 1)
    assert releases.get("statefulsets") == []
    assert releases.claims() == before
    releases.upgrade()
    wait_until(lambda: set(releases.pods()) == {f"{NAME}-0"})

    assert claim_of(releases.pods()[f"{NAME}-0"]) == CLAIM
    assert releases.claims() == before
    assert releases.get("deployments") == []


def test_everything_of_a_shared_journal_is_taken_by_the_api_server(releases):
    releases.install({**SHARED, **LOCAL, **NOT_HERE})

    wait_until(lambda: len(releases.pods()) == 2)
    [scaler] = releases.get("horizontalpodautoscalers")
    assert scaler["spec"]["scaleTargetRef"]["name"] == NAME
    assert releases.get("jobs") == [], "migration and set-up have ended and are gone"


# --- what users adjust ---


@pytest.fixture
def surroundings(releases):
    """What the knobs name and the chart does not bring: a namespace, a runtime class, volumes without a class."""
    names = [f"classless-{number}" for number in range(2)]
    releases.cluster.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "monitoring"}},
        {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "gvisor"}, "handler": "runsc"},
        *(volume(name, f"/{name}", storage_class="") for name in names),
    )
    yield
    releases.cluster.kubectl("delete", "namespace", "monitoring", "--wait=true")


@pytest.mark.parametrize(("knobs", "workload", "monitor"), KNOBS.values(), ids=KNOBS)
def test_every_knob_is_taken_by_the_api_server(releases, surroundings, knobs, workload, monitor):
    """All knobs at once, with the notifier, credentials by property and by source, and an image by digest."""
    releases.install(knobs)

    assert len(releases.pods()) == 2
    [made] = releases.get(workload) if workload == "statefulsets" else [releases.one(workload, NAME)]
    pod = made["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == f"mirror.example.com/hub/weda-connector@{DIGEST}"
    assert (pod["runtimeClassName"], pod["dnsPolicy"]) == ("gvisor", "None")
    assert releases.one("deployments", f"{NAME}-notify")["status"]["availableReplicas"] == 1
    for kind in (monitor, "prometheusrules"):
        assert len(releases.cluster.get(kind, "monitoring")) == 1, kind
    for name in ("weda-more", f"{NAME}-text"):
        assert releases.one("configmaps", name)
    service = releases.one("services", NAME)["spec"]
    assert (service["type"], service["externalTrafficPolicy"], service["ipFamilies"]) == ("NodePort", "Local", ["IPv4"])
    assert releases.one("poddisruptionbudgets", NAME)["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    assert releases.get("jobs") == [], "those of the hooks have ended and are gone"
    if workload == "statefulsets":
        assert {volume for _, volume in releases.claims().values()} >= {"classless-0", "classless-1"}
    else:
        [scaler] = releases.get("horizontalpodautoscalers")
        assert scaler["spec"]["metrics"][0]["type"] == "Pods"


@contextmanager
def fewest_available(releases) -> Iterator[list[int]]:
    """Meanwhile, how many replicas take messages is looked at again and again."""
    seen: list[int] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.1):
            seen.append(releases.one("deployments", NAME)["status"].get("availableReplicas", 0))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield seen
    finally:
        ended.set()
        looking.join()
