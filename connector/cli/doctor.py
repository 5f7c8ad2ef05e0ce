"""``doctor``: what keeps a connector from its work, and what to do about it."""

import sys
from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated, Final, Self

import typer
from rich.console import Console

from connector.admin.doctor import Finding, examine
from connector.cli.output import print_json
from connector.cli.topics import File, Json, Servers
from connector.settings import Settings

EXIT_CHECK_FAILED: Final = 1
_COLOURS: Final = {"ok": "green", "warning": "yellow", "failed": "red", "skipped": "dim"}


def doctor(
    *,
    file: File = None,
    bootstrap_servers: Servers = None,
    url: Annotated[
        str | None, typer.Option("--url", help="Send one marked message through the connector that listens there.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check settings, brokers, rights, topics, registry, the journal's disk and the clock; say what to do.

    One record is written to a topic of its own, whose name ends in .doctor, and read back. With --url one message is
    sent through a running connector as well: it stands in the topics for good, with an instanceId that starts with
    doctor- and the processKey weda-connector-doctor.

    \b
    Examples:
      weda-connector doctor
      weda-connector doctor --config connector.yaml --url http://127.0.0.1:8080
      weda-connector doctor --json

    Exit codes: 0 nothing failed, 1 a check failed (brokers that cannot be reached are one), 2 bad usage, or settings
    that cannot be read.
    """
    settings = Settings.load(file=file, flags={"kafka.bootstrap_servers": bootstrap_servers})
    with _Progress() as progress:
        findings = list(_printed(examine(settings, url, progress.begin), progress, aloud=not as_json))
    failed = [one for one in findings if one.verdict == "failed"]
    if as_json:
        print_json({"failed": len(failed), "checks": [asdict(one) for one in findings]})
    else:
        print(f"{len(findings)} checks, {len(failed)} failed")
    raise typer.Exit(EXIT_CHECK_FAILED if failed else 0)


class _Progress:
    """Says on standard error which check runs: in a line that the next one overwrites, or in lines."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def begin(self, check: str) -> None:
        """A check begins."""
        self.clear()
        print(f"checking: {check}", file=sys.stderr, end="" if self._is_terminal else "\n", flush=True)

    def clear(self) -> None:
        """Take the line away."""
        if self._is_terminal:
            print("\r\x1b[K", file=sys.stderr, end="", flush=True)


def _printed(findings: Iterable[Finding], progress: _Progress, *, aloud: bool) -> Iterable[Finding]:
    """Print each finding as soon as it is known."""
    console = Console(highlight=False, soft_wrap=True)
    for each in findings:
        progress.clear()
        if aloud:
            verdict = f"[{_COLOURS[each.verdict]}]{each.verdict:<8}[/]" if sys.stdout.isatty() else f"{each.verdict:<8}"
            console.print(f"{verdict} {each.check}: ", end="")
            console.print(each.found, markup=False)
            if each.to_do:
                console.print(f"         do: {each.to_do}", markup=False)
        yield each
