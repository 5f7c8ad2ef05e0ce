"""Builds the Grafana dashboard, helm/dashboards/weda-connector.json.

Its rows follow a message: how it goes as a whole, then hop by hop, what waits, what it means to the business, and the
process itself. It asks for nothing that a connector does not expose by itself: it works without the rules.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    DynamicConfigValue,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
    VariableRefresh,
    VariableSort,
)

from connector.message.events import DICTIONARIES
from connector.simulator.dictionaries import ACTION_NAMES

FILE: Final = Path(__file__).parents[1] / "helm" / "dashboards" / "weda-connector.json"
DATA_SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")
HIGH: Final = 7
_Panel = TypeVar("_Panel", stat.Panel, timeseries.Panel, statetimeline.Panel)
"""Of a panel with a graph, in Grafana's units."""

PLACE: Final = 'cluster=~"$cluster", namespace=~"$namespace"'
"""Labels that a Prometheus may add; where it does not, All stands for none."""

OF: Final = f'{PLACE}, job="$job", pod=~"$pod", instance=~"$instance"'
OF_SOURCE: Final = f'{OF}, source=~"$source"'
RECORDS: Final = f'{OF}, stream!~"dead-letters|canary"'
INSTANCES: Final = f'{OF_SOURCE}, msg_type="Instance"'
EVERY: Final = "$__rate_interval"

Panel = stat.Panel | timeseries.Panel | statetimeline.Panel

Steps = tuple[tuple[float | None, str], ...]
"""From which value on which colour; None for the lowest."""

Queries = Mapping[str, str]
"""Legend → PromQL."""

PLAIN: Final[Steps] = ((None, "green"),)


def rows() -> Mapping[str, Sequence[Panel]]:
    """The panels of each row, from left to right."""
    return {
        "Overview": _overview(),
        "The way of the data, hop by hop": _hops(),
        "Backlog": _backlog(),
        "Business": _business(),
        "Process": _process(),
        "Notifications": _notifications(),
    }


def built() -> dashboard.Dashboard:
    """The whole dashboard."""
    board = (
        dashboard.Dashboard("WeDa → Kafka connector")
        .uid("weda-connector")
        .description("From WeDa's workflow messages to Kafka: accepted, waiting, published, and what they show.")
        .tags(["weda", "kafka"])
        .readonly()
        .timezone("browser")
        .time("now-6h", "now")
        .refresh("30s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(_link_to_alerts())
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(_choice("cluster", "Cluster", _labels_of("cluster")))
        .with_variable(_choice("namespace", "Namespace", _labels_of("namespace", 'cluster=~"$cluster"')))
        .with_variable(_choice("job", "Job", _labels_of("job", PLACE), several=False))
        .with_variable(_choice("pod", "Pod", _labels_of("pod", f'{PLACE}, job="$job"')))
        .with_variable(_choice("instance", "Instance", _labels_of("instance", f'{PLACE}, job="$job", pod=~"$pod"')))
        .with_variable(_choice("source", "Source", f"label_values(weda_connector_requests_total{{{OF}}}, source)"))
    )
    for title, panels in rows().items():
        board.with_row(dashboard.Row(title))
        for panel in panels:
            board.with_panel(panel)
    return board


def rendered() -> str:
    """The text of the file."""
    return json.dumps(built().build(), cls=JSONEncoder, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


# --- rows ---


def _overview() -> Sequence[Panel]:
    requests, published = "weda_connector_requests_total", "weda_connector_publish_duration_seconds_bucket"
    failed, all_of_them = f'{OF_SOURCE}, outcome=~"refused|failed"', f'{OF_SOURCE}, outcome!="rejected"'
    return (
        _number(
            "Ready",
            "Connectors that can accept a message durably now; the rest of them answer 503.",
            f"sum(weda_connector_ready{{{OF}}})",
            steps=((None, "red"), (1, "green")),
        ),
        _number(
            "Accepted",
            "Messages a second that were answered with code 0, repeats included.",
            f'sum(rate({requests}{{{OF_SOURCE}, outcome=~"accepted|duplicate"}}[{EVERY}]))',
            unit="reqps",
        ),
        _number(
            "Refused or failed",
            "Share of the requests that could have been accepted and were answered 429, 503 or 500, over the time that "
            "is shown. The objective is 0.1 % at most.",
            f"sum(increase({requests}{{{failed}}}[$__range])) / sum(increase({requests}{{{all_of_them}}}[$__range]))",
            unit="percentunit",
            steps=((None, "green"), (0.001, "red")),
        ),
        _number(
            "Fresh",
            "Of 100 records, 99 were acknowledged by Kafka this soon after their message was received.",
            _quantile(0.99, f"{published}{{{RECORDS}}}"),
            unit="s",
            steps=((None, "green"), (1, "orange"), (30, "red")),
        ),
        _number(
            "Waiting",
            "Messages in the journals: accepted, and not yet in Kafka.",
            f"sum(weda_connector_journal_messages{{{OF_SOURCE}}})",
            steps=((None, "green"), (1, "orange")),
        ),
        _number(
            "Oldest waiting",
            "Age of the oldest message that is not in Kafka.",
            f"max(weda_connector_journal_oldest_age_seconds{{{OF}}})",
            unit="s",
            steps=((None, "green"), (60, "orange"), (300, "red")),
        ),
        _graph(
            "Requests by outcome",
            "Requests a second by what became of them: accepted, a repeat, a dead letter, turned away (rejected), "
            "refused for now, failed.",
            {"{{outcome}}": _rate(requests, OF_SOURCE, "outcome")},
            unit="reqps",
            stacked=True,
        ),
        _states(
            "State",
            "What each connector sees of itself and of the outside; red is what an alert waits for.",
            {
                "{{pod}} {{instance}} accepts": f"weda_connector_ready{{{OF}}}",
                "{{pod}} {{instance}} journal": f"weda_connector_journal_up{{{OF}}}",
                "{{pod}} {{instance}} brokers": f"weda_connector_broker_up{{{OF}}}",
                "{{pod}} {{instance}} registry": f"weda_connector_registry_up{{{OF}}}",
                "{{pod}} {{instance}} durable topics": f"1 - weda_connector_durability_degraded{{{OF}}}",
                "{{pod}} {{instance}} settings read": f"1 - weda_connector_reload_failing{{{OF}}}",
                "{{pod}} {{instance}} no restart needed": f"1 - weda_connector_restart_needed{{{OF}}}",
                "{{pod}} {{instance}} same partitions": f"1 - weda_connector_partition_count_changed{{{OF}}}",
            },
        ),
    )


def _hops() -> Sequence[Panel]:
    requests, letters = "weda_connector_requests_total", "weda_connector_dead_letters_total"
    refused = f'{OF}, source=~"$source|unknown"'
    answered = f'weda_connector_request_duration_seconds_bucket{{{OF_SOURCE}, outcome="accepted"}}'
    return (
        _graph(
            "1 · Received",
            "Requests a second by source; `unknown` showed no credential of ours.",
            {"{{source}}": _rate(requests, f'{OF}, source=~"$source|unknown"', "source")},
            unit="reqps",
        ),
        _graph(
            "2 · Not taken",
            "A second: turned away at the door (401 to 415), and what could not become a record, by stage and code.",
            {
                "at the door": f'sum(rate({requests}{{{OF}, outcome="rejected"}}[{EVERY}]))',
                "{{stage}} {{code}}": _rate(letters, OF_SOURCE, "stage, code"),
            },
            unit="reqps",
        ),
        _graph(
            "Refused credentials",
            "An hour, by source and reason; `unknown` names none of the sources. And the same at the operations "
            "listener.",
            {
                "{{source}} {{reason}}": (
                    f"3600 * {_rate('weda_connector_credentials_refused_total', refused, 'source, reason')}"
                ),
                "operations {{reason}}": (f"3600 * {_rate('weda_connector_operations_refused_total', OF, 'reason')}"),
            },
        ),
        _graph(
            "Dead letters that wait",
            "In Kafka, and not replayed by anybody; each connector counts those of all sources.",
            {"": f"max(weda_connector_dead_letters_waiting{{{OF}}})"},
            steps=((None, "transparent"), (1, "orange")),
        ),
        _graph(
            "3 · Answered",
            "Received to answered, of accepted messages: an answer waits for Kafka or for the journal, at most 0.8 s.",
            _quantiles(answered),
            unit="s",
            steps=((None, "transparent"), (0.8, "red")),
        ),
        _graph(
            "Answered from the journal",
            "Messages a second that Kafka had not acknowledged in time, so that the journal made them safe.",
            {"{{source}}": _rate("weda_connector_answers_from_journal_total", OF_SOURCE, "source")},
            unit="cps",
        ),
        _graph(
            "4 · Into the journal, and out",
            "Messages a second by which the backlog grows, by source; below zero it shrinks.",
            {"{{source}}": f"sum by (source) (deriv(weda_connector_journal_messages{{{OF_SOURCE}}}[{EVERY}]))"},
            unit="cps",
        ),
        _graph(
            "5 · In Kafka",
            "Records a second that all in-sync replicas have, by stream.",
            {"{{stream}}": _rate("weda_connector_records_published_total", OF, "stream")},
            unit="cps",
        ),
        _graph(
            "6 · Received to acknowledged",
            "How old a record is when Kafka has it, backlog included.",
            _quantiles(f"weda_connector_publish_duration_seconds_bucket{{{RECORDS}}}"),
            unit="s",
            steps=((None, "transparent"), (30, "red")),
        ),
        _graph(
            "Event loop",
            "How late the event loop comes to what is due: no answer leaves meanwhile.",
            _quantiles(f"weda_connector_event_loop_lag_seconds_bucket{{{OF}}}"),
            unit="s",
            steps=((None, "transparent"), (0.5, "red")),
        ),
        _graph(
            "Canary",
            "A message of our own, from its sending to its record read back, and how long ago the last one that came "
            "back was sent. Empty unless WEDA_CANARY__ENABLED is true.",
            {
                **_quantiles(f"weda_connector_canary_round_trip_seconds_bucket{{{OF}}}"),
                "{{pod}} {{instance}} last": f"weda_connector_canary_age_seconds{{{OF}}}",
            },
            unit="s",
        ),
        _graph(
            "Ledger",
            "Accepted less published, dead-lettered and journaled, and what a damaged journal lost. Anything but 0 "
            "that stays is an alarm.",
            {
                "{{source}} imbalance": f"sum by (source) (weda_connector_ledger_imbalance{{{OF_SOURCE}}})",
                "{{source}} lost": f"sum by (source) (weda_connector_journal_lost_messages{{{OF_SOURCE}}})",
            },
            steps=((None, "transparent"), (1, "red")),
        ),
    )


def _backlog() -> Sequence[Panel]:
    room, used = f"weda_connector_journal_room_bytes{{{OF}}}", f"weda_connector_journal_bytes{{{OF}}}"
    return (
        _graph(
            "Waiting messages",
            "In the journal, by source.",
            {"{{source}}": f"sum by (source) (weda_connector_journal_messages{{{OF_SOURCE}}})"},
            stacked=True,
        ),
        _graph(
            "Age of the oldest",
            "Of the messages that are not in Kafka, and the same by Prometheus' clock: since the time up to which "
            "everything is published. The alert waits at 5 minutes.",
            {
                "{{pod}} {{instance}}": f"weda_connector_journal_oldest_age_seconds{{{OF}}}",
                "{{pod}} {{instance}} published": (
                    f"time() - weda_connector_published_through_timestamp_seconds{{{OF}}}"
                ),
            },
            unit="s",
            steps=((None, "transparent"), (300, "red")),
        ),
        _graph(
            "Journal",
            "Bytes in use, and the bound; what is kept for deletions is not room. Of a shared journal each replica "
            "tells the whole.",
            {
                "{{pod}} {{instance}} used": used,
                "{{pod}} {{instance}} bound": f"weda_connector_journal_limit_bytes{{{OF}}}",
            },
            unit="bytes",
        ),
        _graph(
            "Waiting, by connector",
            "Of a shared journal: messages that this replica alone publishes. One that stays up while the others fall "
            "holds them back.",
            {"{{pod}} {{instance}}": f"sum by (pod, instance) (weda_connector_journal_messages{{{OF_SOURCE}}})"},
            stacked=True,
        ),
        _graph(
            "Published, by connector",
            "Records a second that all in-sync replicas have. Behind a balancer each has its share.",
            {"{{pod}} {{instance}}": _rate("weda_connector_records_published_total", OF, "pod, instance")},
            unit="cps",
            stacked=True,
        ),
        _graph(
            "Producers rebuilt",
            "Kafka clients that were rebuilt after a fatal error, since the start.",
            {"{{pod}} {{instance}}": f"weda_connector_producer_rebuilds_total{{{OF}}}"},
        ),
        _graph(
            "Bytes",
            "Bytes a second of the records' values, by stream, before compression.",
            {"{{stream}}": _rate("weda_connector_record_bytes_total", OF, "stream")},
            unit="Bps",
        ),
        _graph(
            "Time until the journal is full",
            "At the pace of the last 10 minutes. A day stands for anything longer.",
            {"{{pod}} {{instance}}": f"clamp_max({room} / clamp_min(deriv({used}[10m]), 0.001), 86400)"},
            unit="s",
            steps=((None, "red"), (3600, "transparent")),
        ),
    )


def _business() -> Sequence[Panel]:
    messages, conflicts = "weda_connector_messages_total", "weda_connector_message_id_conflicts_total"
    return (
        _graph(
            "Instances started and ended",
            "An hour: action 22 (触发流程实例); and 23, 8, 16 or 18 (流程实例结束, 终止, 废弃流程, 删除流程实例).",
            {
                "started": f'3600 * sum(rate({messages}{{{INSTANCES}, action="22"}}[{EVERY}]))',
                "ended": f'3600 * sum(rate({messages}{{{INSTANCES}, action=~"23|8|16|18"}}[{EVERY}]))',
            },
        ),
        _graph(
            "Actions",
            "Accepted messages an hour by what was done; a code that WeDa's dictionary does not have is `other`.",
            {"{{action}}": f"3600 * {_rate(messages, OF_SOURCE, 'action')}"},
            stacked=True,
            names={
                str(int(code)): f"{code:d} {name}"
                for code, name in ACTION_NAMES.items()
                if code in DICTIONARIES["action"]
            },
        ),
        _graph(
            "Environments",
            "Accepted messages an hour of trial (pre) and real (prod) processes.",
            {"{{env_type}}": f"3600 * {_rate(messages, OF_SOURCE, 'env_type')}"},
        ),
        _graph(
            "New to us",
            "An hour: fields that no schema has, codes that no dictionary has, and msgIds that came again with other "
            "content. All of it is kept.",
            {
                "field {{field}}": f"3600 * {_rate('weda_connector_unknown_fields_total', OF, 'field')}",
                "code of {{field}}": f"3600 * {_rate('weda_connector_unknown_codes_total', OF, 'field')}",
                "msgId of {{source}}": f"3600 * {_rate(conflicts, OF_SOURCE, 'source')}",
            },
        ),
    )


def _process() -> Sequence[Panel]:
    up_for = f"time() - process_start_time_seconds{{{OF}}}"
    return (
        _graph(
            "CPU",
            "Cores in use. One process uses one core: run another replica before it is full.",
            {"{{pod}} {{instance}}": f"rate(process_cpu_seconds_total{{{OF}}}[{EVERY}])"},
            steps=((None, "transparent"), (0.9, "red")),
        ),
        _graph(
            "Memory",
            "Resident memory.",
            {"{{pod}} {{instance}}": f"process_resident_memory_bytes{{{OF}}}"},
            unit="bytes",
        ),
        _graph(
            "Open files",
            "File descriptors: connections of sources and brokers, and the journal.",
            {"{{pod}} {{instance}}": f"process_open_fds{{{OF}}}"},
        ),
        _graph(
            "Up for",
            "Since the start, by version; a fall is a restart.",
            {
                "{{pod}} {{instance}} {{version}}": (
                    f"({up_for}) * on (cluster, namespace, job, pod, instance) group_left (version) "
                    f"weda_connector_build_info{{{OF}}}"
                )
            },
            unit="s",
        ),
        _graph(
            "Certificates",
            "Time until a certificate expires: of a listener, or the one shown to Kafka or the registry. The alert "
            "comes 14 days before. Empty without certificates.",
            {"{{pod}} {{instance}} {{use}}": f"weda_connector_certificate_expiry_timestamp_seconds{{{OF}}} - time()"},
            unit="s",
            steps=((None, "red"), (14 * 86_400, "transparent")),
        ),
    )


def _notifications() -> Sequence[Panel]:
    """Of the notifier, which is another job: only cluster and namespace choose it."""
    return (
        _graph(
            "Notifications",
            "An hour, by target and by what became of them; `failed` are attempts that are made again.",
            {
                "{{target}} {{outcome}}": (
                    f"3600 * {_rate('weda_notify_notifications_total', PLACE, 'target, outcome')}"
                )
            },
        ),
        _graph(
            "Waiting and parked",
            "Notifications that are to be sent, and those that failed for good.",
            {
                "{{pod}} {{instance}} waiting": f"weda_notify_waiting{{{PLACE}}}",
                "{{pod}} {{instance}} parked": f"weda_notify_parked{{{PLACE}}}",
            },
        ),
        _graph(
            "Oldest that is due",
            "How long the oldest notification could have been sent. In quiet hours it grows by design.",
            {"{{pod}} {{instance}}": f"weda_notify_oldest_due_age_seconds{{{PLACE}}}"},
            unit="s",
        ),
        _graph(
            "Records not read",
            "Records of the topic that the notifier has not read yet. The alert waits at 1,000.",
            {"{{pod}} {{instance}}": f"weda_notify_lag_records{{{PLACE}}}"},
            steps=((None, "transparent"), (1000, "red")),
        ),
    )


# --- panels ---


def _number(title: str, description: str, query: str, *, unit: str = "short", steps: Steps = PLAIN) -> stat.Panel:
    panel = stat.Panel().unit(unit).thresholds(_thresholds(steps)).height(4).span(4).no_value("no data")
    return _described(panel, title, description, {"": query})


def _graph(
    title: str,
    description: str,
    queries: Queries,
    *,
    unit: str = "short",
    steps: Steps = PLAIN,
    stacked: bool = False,
    names: Mapping[str, str] | None = None,
) -> timeseries.Panel:
    panel = timeseries.Panel().unit(unit).thresholds(_thresholds(steps)).height(HIGH).span(12)
    panel.legend(_legend()).tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    panel.fill_opacity(10).axis_soft_min(0)
    if len(steps) > 1:
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED))
    if stacked:
        panel.fill_opacity(40).stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    for name, shown in (names or {}).items():
        panel.override_by_name(name, [DynamicConfigValue(id_val="displayName", value=shown)])
    return _described(panel, title, description, queries)


def _states(title: str, description: str, queries: Queries) -> statetimeline.Panel:
    panel = statetimeline.Panel().height(HIGH).span(12).legend(_legend())
    panel.thresholds(_thresholds(((None, "red"), (1, "green"))))
    shown = {"0": ValueMappingResult(text="no", color="red"), "1": ValueMappingResult(text="yes", color="green")}
    return _described(panel.mappings([ValueMap(options=shown)]), title, description, queries)


def _described(panel: _Panel, title: str, description: str, queries: Queries) -> _Panel:
    panel.title(title).description(description).datasource(DATA_SOURCE)
    for number, (legend, query) in enumerate(queries.items()):
        target = prometheus.Dataquery().expr(query).ref_id("ABCDEFGH"[number]).datasource(DATA_SOURCE)
        panel.with_target(target.legend_format(legend).range() if legend else target.instant())
    return panel


def _thresholds(steps: Steps) -> dashboard.ThresholdsConfig:
    stairs = [Threshold(value=value, color=colour) for value, colour in steps]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(stairs)


def _legend() -> common.VizLegendOptions:
    return (
        common.VizLegendOptions()
        .display_mode(LegendDisplayMode.LIST)
        .placement(LegendPlacement.BOTTOM)
        .show_legend(show_legend=True)
    )


def _choice(name: str, label: str, query: str, *, several: bool = True) -> dashboard.QueryVariable:
    variable = (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(DATA_SOURCE)
        .query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
    )
    return variable.multi(multi=True).include_all(include_all=True).all_value(".*") if several else variable


def _labels_of(label: str, selector: str = "") -> str:
    return f"label_values(weda_connector_build_info{f'{{{selector}}}' if selector else ''}, {label})"


def _link_to_alerts() -> dashboard.DashboardLink:
    link = dashboard.DashboardLink("Alerts").type(DashboardLinkType.LINK).icon("bell")
    return link.url("/alerting/list?search=WedaConnector")


# --- PromQL ---


def _rate(counter: str, selector: str, by: str) -> str:
    return f"sum by ({by}) (rate({counter}{{{selector}}}[{EVERY}]))"


def _quantile(quantile: float, buckets: str) -> str:
    return f"histogram_quantile({quantile}, sum by (le) (rate({buckets}[{EVERY}])))"


def _quantiles(buckets: str) -> Queries:
    return {f"{quantile:.0%}": _quantile(quantile, buckets) for quantile in (0.5, 0.95, 0.99)}
