"""A real Prometheus that scrapes what a test starts."""

import json
import operator
import shutil
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import yaml

from tests.servers.monitoring import tool
from tests.servers.ports import LOOPBACK, free_ports
from tests.servers.processes import Server, ServerProcess
from tests.waiting import wait_until

ANSWER_SECONDS = 60
JOB = "weda"


class Prometheus(Server):
    """One Prometheus on the loopback; it ends with this process.

    Attributes:
        url: Of its web interface and API.
    """

    def __init__(self, state: Path, *, rules: Mapping[str, Any] | None, scrape_seconds: float) -> None:
        (port,) = free_ports(1)
        self._state = state
        self._targets = state / "targets.json"
        self.url = f"http://{LOOPBACK}:{port}"
        (state / "rules.yaml").write_text(yaml.safe_dump(rules or {"groups": []}, allow_unicode=True))
        (state / "prometheus.yaml").write_text(yaml.safe_dump(_configuration(state, scrape_seconds)))
        self._process = ServerProcess("prometheus", _command(state, f"{LOOPBACK}:{port}"), state, detached=False)

    @classmethod
    def start(cls, *, rules: Mapping[str, Any] | None = None, scrape_seconds: float = 1) -> Self:
        """Start one with these rules and no targets, and wait until it serves; ``DidNotStart`` otherwise."""
        started = cls(
            Path(tempfile.mkdtemp(prefix="weda-test-prometheus-")), rules=rules, scrape_seconds=scrape_seconds
        )
        try:
            started._targets.write_text("[]")
            started._process.start()
            started._process.wait_for_log_line("Server is ready to receive web requests")
        except BaseException:
            started.stop()
            raise
        return started

    def scrape(self, addresses: Iterable[str]) -> None:
        """Scrape these from now on (``host:port``, or URLs), and nothing else."""
        targets = [address.removeprefix("http://") for address in addresses]
        part = self._targets.with_suffix(".part")
        part.write_text(json.dumps([{"targets": targets, "labels": {"job": JOB}}] if targets else []))
        part.rename(self._targets)

    def query(self, expression: str, **more: str) -> list[dict[str, Any]]:
        """The result of an instant query: a ``metric`` and a ``value`` each."""
        return self._ask("query", query=expression, **more)["result"]

    def query_range(self, expression: str, *, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """The result of a query over a time: a ``metric`` and ``values`` each."""
        return self._ask("query_range", query=expression, start=start, end=end, step=step)["result"]

    def firing(self) -> dict[str, list[dict[str, Any]]]:
        """The alerts that fire now, by name."""
        found: dict[str, list[dict[str, Any]]] = {}
        for alert in self._ask("alerts")["alerts"]:
            if alert["state"] == "firing":
                found.setdefault(alert["labels"]["alertname"], []).append(alert)
        return found

    def wait_for(self, *names: str) -> dict[str, list[dict[str, Any]]]:
        """Wait until each of these alerts has fired; each as it was when it first did."""
        seen: dict[str, list[dict[str, Any]]] = {}

        def not_fired() -> set[str]:
            for name, alerts in self.firing().items():
                seen.setdefault(name, alerts)
            return set(names) - set(seen)

        wait_until(not_fired, operator.not_)
        return seen

    def wait_for_end(self, *names: str) -> None:
        """Wait until none of these alerts fires any more."""
        wait_until(lambda: set(names) & set(self.firing()), operator.not_)

    def stop(self) -> None:
        """Kill it and remove its folder."""
        self._process.kill()
        shutil.rmtree(self._state, ignore_errors=True)

    def _ask(self, what: str, **parameters: Any) -> Any:
        url = f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=ANSWER_SECONDS) as answer:
            return json.load(answer)["data"]


def _configuration(state: Path, scrape_seconds: float) -> dict[str, Any]:
    every = f"{round(scrape_seconds * 1000)}ms"
    return {
        "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
        "rule_files": [str(state / "rules.yaml")],
        "scrape_configs": [{"job_name": JOB, "file_sd_configs": [{"files": [str(state / "targets.json")]}]}],
    }


def _command(state: Path, address: str) -> list[str]:
    return [
        str(tool("prometheus")),
        f"--config.file={state / 'prometheus.yaml'}",
        f"--storage.tsdb.path={state / 'data'}",
        f"--web.listen-address={address}",
        "--log.level=info",
    ]
