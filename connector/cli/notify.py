"""``weda-connector notify``: personalised messages to other platforms, by rules."""

import signal
import sys
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from connector.app.signals import INTERRUPTS
from connector.cli.columns import local_time
from connector.cli.options import SERVERS, File, Servers, TopicEnvType, TopicSource, moment_option, servers_of
from connector.cli.output import print_json
from connector.errors import ConfigurationError
from connector.message.routes import expand_prefix
from connector.notify.metrics import Metrics
from connector.notify.outbox import Outbox
from connector.notify.rules import Rules, example, read_rules
from connector.notify.sending import Apprise
from connector.notify.service import ConsumerOptions, Notifier, dry_run
from connector.settings import DEFAULT_SOURCE, Settings
from connector.telemetry import logs


def notify(
    *,
    rules_file: Annotated[
        Path | None, typer.Option("--rules", help="YAML file with targets, people and rules.")
    ] = None,
    state: Annotated[Path, typer.Option(help="File that keeps what is to be sent; one notifier may use it.")] = Path(
        "var/notify.db"
    ),
    group: Annotated[str, typer.Option(help="Consumer group.")] = "weda-notify",
    since: Annotated[int | None, moment_option("Where a first start begins, and --dry-run; now if not given")] = None,
    is_dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the texts for the events so far; nothing is sent.")
    ] = False,
    shows_example: Annotated[bool, typer.Option("--example", help="Print a rules file to start from.")] = False,
    shows_parked: Annotated[
        bool, typer.Option("--parked", help="Print the notifications that failed for good, one a line, as JSON.")
    ] = False,
    retries_parked: Annotated[
        bool, typer.Option("--retry-parked", help="Let the parked notifications be sent again.")
    ] = False,
    discards_parked: Annotated[
        bool, typer.Option("--discard-parked", help="Remove the parked notifications: their people are not told.")
    ] = False,
    metrics_host: Annotated[str, typer.Option(help="Where /metrics listens.")] = "127.0.0.1",
    metrics_port: Annotated[int, typer.Option(min=0, max=65535, help="Its port; 0: none.")] = 9465,
    source: TopicSource = DEFAULT_SOURCE,
    env_type: TopicEnvType = "prod",
    file: File = None,
    bootstrap_servers: Servers = None,
) -> None:
    """Tell people on other platforms what happens in their processes, until SIGTERM or Ctrl-C.

    Needs the extra `notify` (Apprise). A notification is sent at least once.

    \b
    Examples:
      weda-connector notify --example > rules.yaml
      weda-connector notify --rules rules.yaml --dry-run --since 7d
      weda-connector notify --rules rules.yaml --state /var/lib/weda-notify/notify.db
      weda-connector notify --parked

    Exit codes: 0 stopped, 1 sending has ended by an error, 2 bad usage, configuration or rules, 3 Kafka is not
    reachable.
    """
    if shows_example:
        print(example(), end="")
        return
    if shows_parked or retries_parked or discards_parked:
        _parked(state, retries=retries_parked, discards=discards_parked)
        return
    if rules_file is None:
        raise typer.BadParameter("--rules is needed")
    rules = read_rules(rules_file)
    settings = Settings.load(file=file, flags={SERVERS: bootstrap_servers})
    options = _consumer_options(settings, group, since, expand_prefix(settings.topics.prefix, source, env_type))
    if is_dry_run:
        _print_texts(options, rules)
        return
    logs.configure(settings.log.level, settings.log.format)
    # A target that cannot work must stop the start, not park the first notification.
    send = Apprise()
    for name, target in rules.targets.items():
        send.check(name, target, rules.some_address(target))
    metrics = Metrics(list(rules.targets))
    if metrics_port:
        metrics.serve(metrics_host, metrics_port)
    notifier = Notifier(options, rules, state, send, metrics)
    # Not on_interrupt: the notifier is blocking and has no event loop.
    for number in INTERRUPTS:
        signal.signal(number, lambda *_: notifier.stop())
    notifier.run()


def _consumer_options(settings: Settings, group: str, since: int | None, prefix: str) -> ConsumerOptions:
    servers = servers_of(settings)
    reading: dict[str, Any] = {"prefix": prefix, "properties": settings.kafka.properties}
    if settings.registry.url:
        reading["registry"] = settings.registry
    return ConsumerOptions(
        servers, reading, group, datetime.now(UTC) if since is None else datetime.fromtimestamp(since / 1000, UTC)
    )


def _print_texts(options: ConsumerOptions, rules: Rules) -> None:
    for preview in dry_run(options, rules):
        instance = preview.event.instance_id
        if preview.parked is not None:
            print(f"--- EVENT PARKED: {preview.parked} ({instance})", flush=True)
        for draft, missing in preview.drafts:
            where = draft.address or "(room)" if missing is None else f"PARKED: {missing}"
            unless = f", at {local_time(int(draft.due * 1000))} unless it is done by then" if draft.is_reminder else ""
            print(f"--- {draft.rule} → {draft.target} {where} ({instance}){unless}")
            print(f"{draft.title}\n{draft.text}", flush=True)


def _parked(state: Path, *, retries: bool, discards: bool) -> None:
    if not state.exists():
        raise ConfigurationError(f"--state {state}: there is no such file")
    with ExitStack() as stack:
        outbox = Outbox(state)
        stack.callback(outbox.close)
        if retries:
            print_json({"retried": outbox.retry_parked()})
            return
        if discards:
            print_json({"discarded": outbox.discard_parked()})
            return
        parked = outbox.parked()
        for notification in parked:
            print_json(asdict(notification))
        if not parked:
            print("nothing is parked", file=sys.stderr)
