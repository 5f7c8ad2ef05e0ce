"""The command ``python -m tools.descriptions``: prints one description, of the default settings or of a file's."""

import argparse
import sys
from pathlib import Path

from connector.errors import ConfigurationError
from connector.settings import Settings
from tools.descriptions import asyncapi, openapi
from tools.descriptions.notation import generated


def main() -> int:
    """Print what is asked for; 2 and a line on stderr where the configuration is bad."""
    arguments = _parser().parse_args()
    try:
        settings = asyncapi.EVERY_STREAM if arguments.config is None else _load(arguments.config)
    except ConfigurationError as error:
        sys.stderr.write(f"{error.message}\n")
        return 2
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]  # whatever the locale says
    sys.stdout.write(generated(_DOCUMENTS[arguments.what](settings)))
    return 0


def _load(file: Path) -> Settings:
    """The settings of a file alone: what the environment says is one connector's, a description is for others."""
    return Settings.load(environment={}, file=file)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.descriptions", description=__doc__)
    parser.add_argument("what", choices=sorted(_DOCUMENTS))
    parser.add_argument("--config", type=Path, metavar="FILE", help="describe the topics and limits of these settings")
    return parser


_DOCUMENTS = {"asyncapi": asyncapi.document, "openapi": openapi.document}

if __name__ == "__main__":
    sys.exit(main())
