"""``metrics``: the metrics of a running connector, without curl."""

import re
from typing import Annotated

import typer

from connector.admin.client import OperationsClient, ask
from connector.cli.exits import failed_if
from connector.cli.options import File, OperationsToken, OperationsUrl, operations_settings


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise typer.BadParameter(f"not a regular expression: {error}") from None


def metrics(
    *,
    pattern: Annotated[
        re.Pattern[str] | None,
        typer.Argument(parser=_pattern, metavar="PATTERN", help="Only lines that match this regular expression."),
    ] = None,
    operations_url: OperationsUrl = None,
    token: OperationsToken = None,
    file: File = None,
) -> None:
    """Print the metrics of a running connector, or those that match a regular expression.

    \b
    Examples:
      weda-connector metrics
      weda-connector metrics 'requests_total.*outcome="(refused|failed)"'

    Exit codes: 0 printed, 1 none matches, 2 bad usage or configuration, 3 no connector answers.
    """
    settings = operations_settings(file, operations_url, token)
    lines = ask(settings.operations, OperationsClient.metrics).splitlines()
    if pattern is not None:
        # Without HELP and TYPE: a pattern may match a description, which is not a metric.
        lines = [line for line in lines if not line.startswith("#") and pattern.search(line)]
    print("\n".join(lines))
    raise typer.Exit(failed_if(not lines))
