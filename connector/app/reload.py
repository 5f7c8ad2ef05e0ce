"""Applies changes that need no restart: credentials, certificates and the properties of the Kafka clients."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import structlog

from connector.app.files import WatchedFiles, stamp
from connector.errors import ConfigurationError
from connector.receiver.tls import ServerTls, TlsFiles
from connector.settings import Settings
from connector.telemetry.health import Health
from connector.telemetry.metrics import Metrics

_LOG = structlog.get_logger()


class Reload:
    """Reads the settings, and remembers them for all connectors that this process runs one after another.

    Args:
        load: Reads the settings; raises ConfigurationError.
        files: The files that the settings come from.

    Attributes:
        files: The files that the settings come from.
        stamp: The files' stamp before they were last read.
        latest: The settings last read, including those that need a restart; None before `load`.
    """

    def __init__(self, load: Callable[[], Settings], files: tuple[Path, ...]) -> None:
        self._load = load
        self.files = files
        self.stamp = stamp(files)
        self.latest: Settings | None = None

    def load(self) -> Settings:
        """Read the settings.

        Raises:
            ConfigurationError: The settings cannot be read; `latest` is unchanged.
        """
        before = stamp(self.files)  # not after: a change in between would never be noticed
        self.latest = self._load()
        self.stamp = before
        return self.latest


class Reloader:
    """Reads changed files, and passes the new settings to the parts that can apply them.

    A file that cannot be read changes nothing; the failure is counted and shown as a problem.

    Args:
        settings: The settings at the start.
        reload: Reads the settings again; None if they never change.
        health: Shows problems.
        metrics: Counts reloads.

    Attributes:
        settings: The settings in effect now.
    """

    def __init__(self, settings: Settings, reload: Reload | None, health: Health, metrics: Metrics) -> None:
        self.settings = settings
        self._health = health
        self._metrics = metrics
        self._files = WatchedFiles()
        self._failing: set[str] = set()
        metrics.reload_failing.set(0)
        metrics.restart_needed.set(0)
        self._on_settings: list[Callable[[Settings], None]] = []
        self._on_properties: list[Callable[[], None]] = []
        if reload is not None:
            take = partial(self._reloading, "settings", partial(self._take, reload))
            # Since the last read, not since now: files may have changed while the previous connector stopped.
            self._files.watch(lambda: reload.files, take, since=reload.stamp)
            self._show_restart_needed(settings if reload.latest is None else reload.latest)
        self._files.watch(self._files_of_clients, self._replace_properties)

    def on_settings(self, take: Callable[[Settings], None]) -> None:
        """Call ``take`` with the new settings after each change."""
        self._on_settings.append(take)

    def on_properties(self, replace: Callable[[], None]) -> None:
        """Call ``replace`` when the Kafka clients must be rebuilt, for new properties or new certificates."""
        self._on_properties.append(replace)

    def tls(self, files: TlsFiles | None) -> ServerTls | None:
        """The TLS of a listener, reloaded when its files change; None if there are no files."""
        if files is None:
            return None
        tls = ServerTls(files)
        self._files.watch(lambda: files.all, partial(self._reloading, files.setting, tls.reload))
        return tls

    async def run(self) -> None:
        """Check the files until cancelled."""
        await self._files.run()

    def _reloading(self, about: str, act: Callable[[], None]) -> None:
        try:
            act()
        except ConfigurationError as error:
            self._metrics.reloads.labels("failed").inc()
            self._set_failing({*self._failing, about})
            self._health.set_problem(about, error.message)
            return
        self._metrics.reloads.labels("applied").inc()
        self._set_failing(self._failing - {about})
        self._health.set_problem(about, "")
        _LOG.info("changed files were read", about=about)

    def _take(self, reload: Reload) -> None:
        before, newer = self.settings, reload.load()
        self.settings = settings = before.rotated(newer)  # settings that need a restart keep their old values
        for take in self._on_settings:
            take(settings)
        if settings.kafka.properties != before.kafka.properties:
            self._replace_properties()
        self._show_restart_needed(newer)

    def _show_restart_needed(self, newer: Settings) -> None:
        changed = ", ".join(self.settings.changed(newer))
        problem = f"changed, and in effect only after a restart: {changed}" if changed else ""
        self._metrics.restart_needed.set(bool(changed))
        self._health.restart_needed = changed
        self._health.set_problem("restart", problem)

    def _set_failing(self, failing: set[str]) -> None:
        self._failing = failing
        self._metrics.reload_failing.set(bool(failing))
        self._health.reload_failing = tuple(sorted(failing))

    def _files_of_clients(self) -> list[Path]:
        """The certificates and keys that the Kafka clients read when they are built, and never again."""
        properties = self.settings.kafka.properties
        return [Path(str(path)) for name, path in properties.items() if name.endswith(".location")]

    def _replace_properties(self) -> None:
        for replace in self._on_properties:
            replace()
