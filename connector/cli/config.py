"""``config``: the effective settings, secrets redacted."""

from pathlib import Path
from typing import Annotated

import typer
import yaml

from connector.cli.output import is_unicode, print_json
from connector.settings import Settings


def config(
    *,
    file: Annotated[Path | None, typer.Option("--config", help="YAML file with settings.")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of the file instead.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of YAML.")] = False,
) -> None:
    """Show the effective settings, secrets redacted.

    \b
    Examples:
      weda-connector config
      weda-connector config --config connector.yaml --json
      weda-connector config --schema > connector.schema.json
    """
    if schema:
        print_json(Settings.json_schema(), indent=2)
        return
    settings = Settings.load(file=file).redacted()
    if json:
        print_json(settings)
        return
    print(yaml.safe_dump(settings, sort_keys=False, allow_unicode=is_unicode()), end="")
