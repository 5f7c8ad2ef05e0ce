"""``serve``: run the connector."""

import asyncio
from functools import partial

import uvloop

from connector.app.reload import Reload
from connector.app.run import run
from connector.cli.options import File
from connector.settings import Settings
from connector.telemetry import logs


def serve(config: File = None) -> None:
    """Run the connector until SIGTERM, SIGHUP or Ctrl-C.

    \b
    Examples:
      WEDA_KAFKA__BOOTSTRAP_SERVERS=kafka:9092 WEDA_TOKEN=... weda-connector serve
      weda-connector serve --config connector.yaml

    Exit codes: 0 stopped, 2 bad configuration, 3 another process holds the journal.
    """
    # Through Reload: it notes the state of the files before reading them, so that a change during the start is seen.
    reload = Reload(partial(Settings.load, file=config), Settings.files(file=config))
    settings = reload.load()
    logs.configure(settings.log.level, settings.log.format)
    logs.take_uncaught()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(settings, reload))
