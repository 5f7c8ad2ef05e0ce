"""The dashboard: the file is what its builder gives, and every query of it finds something in a real Prometheus."""

import asyncio
import json
import math
import operator
from collections.abc import Iterator
from functools import partial

import pytest
import trustme

from connector.simulator import Plan, play
from tests.integration import test_notify
from tests.monitoring.rules import ROOT
from tests.running import TOKEN
from tests.servers import Prometheus
from tests.servers.monitoring import tool
from tests.waiting import until
from tools import dashboard, dashboard_picture

SECONDS = 12
PICTURE = ROOT / "docs" / "dashboard.svg"
platforms, notifiers = test_notify.platforms, test_notify.notifiers


def panels() -> list[dict]:
    return [
        panel for panel in json.loads(dashboard.FILE.read_text(encoding="utf-8"))["panels"] if panel["type"] != "row"
    ]


def numbers(prometheus: Prometheus, query: str) -> list[float]:
    """What a query of the dashboard finds now, without what is no number."""
    found = prometheus.query(dashboard_picture.asked(query))
    return [value for one in found if math.isfinite(value := float(one["value"][1]))]


@pytest.fixture
def prometheus() -> Iterator[Prometheus]:
    with Prometheus.start(scrape_seconds=0.5) as started:
        yield started


def test_every_panel_says_what_it_shows_and_in_which_unit():
    for panel in panels():
        assert panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["type"] == "state-timeline" or panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"], panel["title"]


def test_panels_do_not_overlap_and_fit_the_grid():
    taken = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_the_picture_has_every_panel():
    picture = PICTURE.read_text(encoding="utf-8")

    assert [panel["title"] for panel in panels() if dashboard_picture.shown(panel["title"]) not in picture] == []


async def test_every_query_finds_something_under_load(start, prometheus, platforms, notifiers, tmp_path):
    """Each target of each panel, and each choice of the variables, after some seconds of a simulated WeDa."""
    shown_to_kafka = tmp_path / "client.pem"
    trustme.CA().issue_cert("weda").private_key_and_cert_chain_pem.write_to_path(shown_to_kafka)
    running = await start(
        canary__enabled=True,
        canary__interval_seconds=1,
        kafka__properties={"ssl.certificate.location": str(shown_to_kafka)},
    )
    notifier = notifiers(running, test_notify.rules_for(platforms()))
    notifier.start()
    prometheus.scrape([running.connector.operations_url, f"127.0.0.1:{notifier.port}"])
    plan = Plan(url=running.url, token=TOKEN, seed=7, instances=None, rate=30, seconds=SECONDS, repeats=0.1)
    await asyncio.gather(asyncio.to_thread(asyncio.run, _play(plan)), *(running.post(b"no JSON") for _ in range(3)))
    await running.post(b"again", authorization="Bearer wrong")

    def empty() -> list[str]:
        return [
            f"{panel['title']}: {target['expr']}"
            for panel in panels()
            for target in panel["targets"]
            if not numbers(prometheus, target["expr"])
        ]

    await until(partial(asyncio.to_thread, empty), operator.not_)


async def test_what_a_connector_exposes_is_what_promtool_expects(start):
    """`promtool check metrics`: names, units, types and help texts."""
    running = await start()
    await running.post({"msgType": "Task", "instanceId": "i-1", "action": 2})
    text = await running.exposed()

    checker = await asyncio.create_subprocess_exec(
        tool("promtool"), "check", "metrics",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    reported, _ = await checker.communicate(text.encode())

    assert (checker.returncode, reported.decode()) == (0, "")


async def _play(plan: Plan) -> None:
    await play(plan)
