"""Each alert has what its reader needs, a test that it fires and resolves, and a section in the runbooks."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from connector.notify.metrics import Metrics as NotifierMetrics
from tests.chart import rendering
from tests.monitoring.rules import ROOT, RULES, RUNBOOKS, alerts, cut_short, rules
from tests.servers.monitoring import tool

TESTS = sorted(Path(__file__).parent.glob("*.test.yaml"))
SEVERITIES = {"critical", "warning"}
AT_ONCE = {
    "WedaConnectorLeaseLost",
    "WedaConnectorJournalLostMessages",
    "WedaConnectorDeadLetters",
    "WedaConnectorPartitionCountChanged",
    "WedaConnectorPartRestarted",
}
"""Alerts that wait for nothing: what they tell of has happened, and does not go away by itself."""

every_alert = pytest.mark.parametrize("alert", list(alerts()), ids=lambda alert: f"{alert['alert']}-{alert.get('for')}")


def cases() -> list[dict]:
    """Every check of an alert in promtool's tests."""
    return [
        check
        for file in TESTS
        for test in yaml.safe_load(file.read_text(encoding="utf-8"))["tests"]
        for check in [{**one, "of": test["name"]} for one in test["alert_rule_test"]]
    ]


def promtool(*words: str | Path, given: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([tool("promtool"), *words], input=given, capture_output=True, text=True, check=False)


def test_promtool_accepts_the_rules():
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.name)
def test_the_alerts_fire_and_resolve(file):
    done = promtool("test", "rules", file)

    assert done.returncode == 0, done.stdout + done.stderr


@every_alert
def test_an_alert_has_what_its_reader_needs(alert):
    annotations = alert["annotations"]

    assert alert["labels"]["severity"] in SEVERITIES
    assert ("for" in alert) == (alert["alert"] not in AT_ONCE)
    assert set(annotations) == {"summary", "description", "runbook_url"}
    assert annotations["summary"].endswith(".")
    assert "{{" not in annotations["summary"], "a summary is the same for all, so that alerts can be grouped by it"


@every_alert
def test_an_alert_is_shown_to_fire_and_to_resolve(alert):
    """In one test of promtool: silent, then firing with these labels, then silent again."""
    of_it = [case for case in cases() if case["alertname"] == alert["alert"]]
    firing = [
        case
        for case in of_it
        if any(alert["labels"].items() <= fired["exp_labels"].items() for fired in case["exp_alerts"])
    ]
    assert firing

    shown = [case["exp_alerts"] for case in of_it if case["of"] == firing[0]["of"]]
    assert shown[0] == []
    assert shown[-1] == []


@every_alert
def test_an_alert_has_its_section_in_the_runbooks(alert):
    base, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    runbooks = (ROOT / "docs" / "runbooks.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", runbooks, re.MULTILINE | re.DOTALL))
    by_anchor = {title.lower().replace(" ", "-"): text for title, text in sections.items()}

    assert base == RUNBOOKS
    assert f"`{alert['alert']}`" in by_anchor[anchor], "the section names its alert"
    assert all(f"**{part}.**" in by_anchor[anchor] for part in ("Meaning", "Diagnosis", "Action"))


def test_what_is_cut_short_for_the_tests_is_still_what_promtool_accepts(tmp_path):
    file = tmp_path / "short.yaml"
    file.write_text(yaml.safe_dump(cut_short()))

    assert promtool("check", "rules", file).returncode == 0
    assert [rule.get("alert") for group in cut_short()["groups"] for rule in group["rules"]] == [
        rule.get("alert") for group in rules()["groups"] for rule in group["rules"]
    ]


def test_the_rules_name_metrics_that_exist():
    known = set(re.findall(r"^\| `(\w+)`", (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8"), re.MULTILINE))
    known |= {sample.name for metric in NotifierMetrics(["room"]).registry.collect() for sample in metric.samples}
    named = set(re.findall(r"(?<!:)\bweda_(?:connector|notify)_[a-z_]+\b", RULES.read_text(encoding="utf-8")))
    recorded = set(re.findall(r"^ +- record: \w+:(\w+):", RULES.read_text(encoding="utf-8"), re.MULTILINE))

    assert {re.sub(r"_(bucket|count|sum)$", "", name) for name in named} - recorded <= known


# --- as the chart installs them ---


def installed(release: str, tmp_path: Path) -> Path:
    """The rules of a release as a file for Prometheus."""
    values = {"prometheusRule": {"enabled": True, "runbookUrl": "https://wiki.example/runbooks/"}}
    [made] = [each for each in rendering.objects(values, release=release) if each["kind"] == "PrometheusRule"]
    groups = [{**group, "name": f"{release}-{group['name']}"} for group in made["spec"]["groups"]]
    file = tmp_path / f"{release}.yaml"
    file.write_text(yaml.safe_dump({"groups": groups}))
    return file


def test_an_installed_alert_links_to_the_runbooks_of_its_users(tmp_path):
    groups = yaml.safe_load(installed("one", tmp_path).read_text())["groups"]
    links = [rule["annotations"]["runbook_url"] for group in groups for rule in group["rules"] if "alert" in rule]

    assert [link.partition("#")[0] for link in links] == ["https://wiki.example/runbooks"] * len([*alerts()])


def test_releases_side_by_side_alert_once_each_and_for_themselves(tmp_path):
    """Two releases in one Prometheus: the rules of the other do not repeat an alert; one that is gone is missed."""
    files = [installed(name, tmp_path) for name in ("one", "two")]
    one, two = ({"namespace": rendering.NAMESPACE, "job": f"{name}-weda-connector-headless"} for name in ("one", "two"))
    of_one = ", ".join(f'{name}="{value}"' for name, value in {**one, "instance": "10.0.0.1:9464"}.items())
    case = {
        "rule_files": [str(file) for file in files],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": f'weda_connector_build_info{{{of_one}, version="0.1.0"}}', "values": "1x20"},
                    {"series": f"weda_connector_ready{{{of_one}}}", "values": "0x20"},
                    {"series": f'weda_connector_journal_messages{{{of_one}, source="hr"}}', "values": "7x20"},
                ],
                "promql_expr_test": [
                    {
                        "expr": "count(instance:weda_connector_journal_messages:sum)",
                        "eval_time": "10m",
                        "exp_samples": [{"value": 1}],
                    },
                    *(
                        {
                            "expr": f'ALERTS{{alertname="{name}", alertstate="firing"}}',
                            "eval_time": "10m",
                            "exp_samples": [
                                {"labels": f'ALERTS{{alertname="{name}", alertstate="firing", {labels}}}', "value": 1}
                            ],
                        }
                        for name, labels in {
                            "WedaConnectorNotReady": f'severity="critical", {of_one}',
                            "WedaConnectorAbsent": 'severity="critical", '
                            + ", ".join(f'{name}="{value}"' for name, value in two.items()),
                        }.items()
                    ),
                ],
            }
        ],
    }
    test = tmp_path / "case.test.yaml"
    test.write_text(yaml.safe_dump(case))

    done = promtool("test", "rules", test)

    assert done.returncode == 0, done.stdout + done.stderr
