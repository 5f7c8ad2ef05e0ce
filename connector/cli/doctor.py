"""``doctor``: check what a connector needs, and say what to do."""

import sys
from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated, Final

import typer
from rich.console import Console

from connector.admin.doctor import Finding, examine
from connector.cli.exits import failed_if
from connector.cli.options import SERVERS, File, Json, Servers
from connector.cli.output import print_json
from connector.cli.progress import ProgressDisplay
from connector.settings import Settings
from connector.text import counted

_COLOURS: Final = {"ok": "green", "warning": "yellow", "failed": "red", "skipped": "dim"}


def doctor(
    *,
    file: File = None,
    bootstrap_servers: Servers = None,
    url: Annotated[
        str | None,
        typer.Option("--url", metavar="URL", help="Send one marked message through the connector at this address."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check settings, brokers, rights, topics, registry, the journal's disk and the clock; say what to do.

    One record is written to a topic of its own, whose name ends in .doctor, and read back. With --url one message is
    sent through a running connector as well: it stays in the topics, with an instanceId that starts with doctor- and
    the processKey weda-connector-doctor.

    \b
    Examples:
      weda-connector doctor
      weda-connector doctor --config connector.yaml --url http://127.0.0.1:8080
      weda-connector doctor --json

    Exit codes: 0 nothing failed, 1 a check failed (brokers that cannot be reached are one), 2 bad usage, or settings
    that cannot be read.
    """
    settings = Settings.load(file=file, flags={SERVERS: bootstrap_servers})
    # Without a pause between lines: each names a check, and the one that hangs must be seen.
    with ProgressDisplay(stays=False, seconds_between_lines=0) as progress:
        checks = examine(settings, url, lambda check: progress.show(f"checking: {check}", 0, None))
        findings = list(_shown(checks, progress, prints=not as_json))
    failed = [finding for finding in findings if finding.verdict == "failed"]
    if as_json:
        print_json({"failed": len(failed), "checks": [asdict(finding) for finding in findings]})
    else:
        print(f"{counted(len(findings), 'check')}, {len(failed)} failed")
    raise typer.Exit(failed_if(failed))


def _shown(findings: Iterable[Finding], progress: ProgressDisplay, *, prints: bool) -> Iterable[Finding]:
    """Yield the findings; with ``prints``, each is printed as soon as its check has ended."""
    console = Console(highlight=False, soft_wrap=True)
    for finding in findings:
        if prints:
            progress.hide()  # its bar would be mixed up with the line on standard output
            _print(console, finding)
        yield finding


def _print(console: Console, finding: Finding) -> None:
    verdict = f"{finding.verdict:<8}"
    if sys.stdout.isatty():
        verdict = f"[{_COLOURS[finding.verdict]}]{verdict}[/]"
    console.print(f"{verdict} {finding.check}: ", end="")
    console.print(finding.found, markup=False)  # brackets in a broker's answer are no markup
    if finding.to_do:
        console.print(f"         do: {finding.to_do}", markup=False)
