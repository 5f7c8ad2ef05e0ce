"""``config``: the effective settings, secrets redacted."""

from typing import Annotated

import typer
import yaml

from connector.cli.columns import table
from connector.cli.options import File
from connector.cli.output import is_unicode, print_json
from connector.settings import Settings

_DEFAULT = "default"


def config(
    *,
    file: File = None,
    changed: Annotated[
        bool, typer.Option("--changed", help="Show only what is set, and where; without --json as a table.")
    ] = False,
    origin: Annotated[
        bool, typer.Option("--origin", help="Show every setting and where its value comes from, as a table.")
    ] = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of the file instead.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of YAML.")] = False,
) -> None:
    """Show the effective settings, secrets redacted.

    The environment wins over the file. --origin names the variable or the file that a value comes from.

    \b
    Examples:
      weda-connector config
      weda-connector config --changed
      weda-connector config --origin --config connector.yaml
      weda-connector config --config connector.yaml --json
      weda-connector config --schema > connector.schema.json

    Exit codes: 0 shown, 2 bad usage or configuration.
    """
    if schema:
        print_json(Settings.json_schema(), indent=2)
        return
    settings = Settings.load(file=file)
    if changed or origin:
        _print_origins(settings, only_changed=changed, as_json=json)
    elif json:
        print_json(settings.redacted())
    else:
        print(yaml.safe_dump(settings.redacted(), sort_keys=False, allow_unicode=is_unicode()), end="")


def _print_origins(settings: Settings, *, only_changed: bool, as_json: bool) -> None:
    shown = {name: setting for name, setting in settings.shown().items() if setting.origins or not only_changed}
    if as_json:
        print_json({name: {"value": setting.value, "origin": list(setting.origins)} for name, setting in shown.items()})
        return
    rows = [(setting.variable, ", ".join(setting.origins) or _DEFAULT, setting.text) for setting in shown.values()]
    print("\n".join(table([("SETTING", "ORIGIN", "VALUE"), *rows]) if rows else ["every setting has its default"]))
