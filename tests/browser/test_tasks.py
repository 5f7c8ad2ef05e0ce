"""What people come to the console for, done as they do it: in both languages, on a desktop and on a phone.

``WEDA_TEST_SCREENSHOTS=1`` writes a picture of each page into ``docs/console``.
"""

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from connector.intake.dead_letters import Selection
from connector.lookup.instances import Instance
from connector.operations.history import Point
from connector.simulator import Plan, play
from tests.browser import rules
from tests.browser.pages import Watched, findings, log_in, opened
from tests.integration.test_dead_letters import message
from tests.running import TOKEN, Running
from tests.waiting import equals, until

PICTURES = Path(__file__).parents[2] / "docs" / "console"
DESKTOP = {"viewport": {"width": 1280, "height": 800}, "locale": "en-GB"}
PHONE = {"viewport": {"width": 390, "height": 844}, "locale": "zh-CN", "color_scheme": "dark"}
WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
HOUR = 3_600_000
DAY = 24 * HOUR
WAITED_FOR = "欧阳修远"


@pytest.fixture(params=[DESKTOP, PHONE], ids=["desktop", "phone"])
def device(request: pytest.FixtureRequest) -> dict[str, object]:
    return request.param


def task(instance: str, number: int, **fields: object) -> dict[str, object]:
    return {
        "msgId": f"{instance}-{number}",
        "msgType": "Task",
        "instanceId": instance,
        "envType": "pre",
        "processName": "费用报销",
        "flowTitle": f"{instance}的差旅费",
        **fields,
    }


async def post_an_approval(running: Running, instance: str, waited_for: str, now: int) -> None:
    """Two hours at the first node, five hours at the second one, one hour so far at the third."""
    start = now - 8 * HOUR
    first = {"elementId": "n1", "elementName": "部门经理审批", "taskStartTime": start}
    second = {"elementId": "n2", "elementName": "财务复核", "taskStartTime": start + 2 * HOUR}
    third = {"elementId": "n3", "elementName": "出纳付款", "taskStartTime": start + 7 * HOUR}
    someone, another = [{"userId": "u1", "userName": "王芳"}], [{"userId": "u2", "userName": "李娜"}]
    last = [{"userId": "u3", "userName": waited_for}]
    steps = (
        first | {"action": 0, "approverMap": someone},
        first | {"action": 2, "approverMap": someone, "taskEndTime": start + 2 * HOUR},
        second | {"action": 0, "approverMap": another},
        second | {"action": 2, "approverMap": another, "taskEndTime": start + 7 * HOUR},
        third | {"action": 0, "approverMap": last},
    )
    for number, step in enumerate(steps):
        fields = {"startTime": start, "startUserMap": [{"userId": "u9", "userName": "陈静"}], **step}
        assert (await running.post(task(instance, number, **fields)))[0] == 200


async def test_an_approval_is_found_by_who_it_waits_for_and_shows_where_it_waited_longest(
    browser, start, operations_token, device
):
    running = await start(operations__token=operations_token)
    now = int(time.time() * 1000)
    for instance, person in (("报销-7", WAITED_FOR), ("报销-8", "赵敏")):
        await post_an_approval(running, instance, person, now)
    watched = await opened(browser, running, **device)
    page = watched.page
    await log_in(watched)

    await page.keyboard.press("/")
    assert await page.evaluate("document.activeElement.name") == "q"
    await page.keyboard.type(WAITED_FOR)
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/instances?q=*")
    assert await page.locator(".event").count() == 1
    assert WAITED_FOR in await page.inner_text(".event")
    assert await findings(page, rules()) == []
    await page.get_by_role("link", name="报销-7的差旅费").click()

    facts = await watched.text_with(rf"{WAITED_FOR} (since|自)", ".facts")
    assert re.search(r"财务复核 5 (h|小时)\n", facts)
    assert "陈静" in facts
    assert await page.locator(".longest .node").inner_html() == "财务复核"
    widths = [float((await bar.get_attribute("width") or "0").strip("%")) for bar in await page.locator(".wait").all()]
    assert widths[0] / widths[1] == pytest.approx(2 / 5, rel=0.02)
    assert widths[2] / widths[1] == pytest.approx(1 / 5, rel=0.05)
    assert await page.evaluate(WIDE) <= 0
    assert await findings(page, rules()) == []
    await page.wait_for_load_state()
    await page.keyboard.press("Control+k")
    await page.keyboard.type("费用 李娜")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/instances?q=*")
    assert await page.locator(".event").count() == 2
    await watched.go("business")
    assert WAITED_FOR in await page.inner_text("main")
    assert "财务复核" in await page.inner_text("main")
    assert watched.complaints == []


async def test_what_the_index_does_not_have_is_looked_up_in_kafka(browser, start):
    running = await start()
    await running.post(task("报销-9", 0, action=0, elementName="财务复核"))
    watched = await opened(browser, running)
    await watched.page.goto(f"{watched.home}instances?q=报销-9-0")

    assert "id=" in watched.page.url
    assert "报销-9" in await watched.page.inner_text(".found")


async def test_one_dead_letter_is_replayed_and_the_others_wait(browser, start, operations_token, device):
    sources = {"default": {"tokens": [TOKEN], "env_types": ["prod"]}}
    running = await start(sources=sources, operations__token=operations_token)
    for number in range(3):
        assert (await running.post(message(f"late-{number}", number)))[0] == 422
    await running.connector.stop()
    mended = await start(sources={"default": {"tokens": [TOKEN]}}, operations__token=operations_token)
    watched = await opened(browser, mended, **device)
    page = watched.page
    await log_in(watched)

    await watched.go("dead-letters")
    assert re.search("3 (waiting|待处理)", await page.inner_text(".cause"))
    assert await findings(page, rules()) == []
    row = page.locator("tbody tr").filter(has_text="late-1")
    await row.get_by_role("link").click()
    await watched.text_with("late-1", "dl.pairs")
    await page.locator("button.main").click()
    await watched.text_with(r"(accepted|已接收)\s+1\b")
    await page.locator("button.main").click()
    await page.locator(".verdict-good").wait_for()
    await watched.go("dead-letters")
    assert re.search("2 (waiting|待处理) · 1 (replayed|已重放)", await page.inner_text(".cause"))
    waiting, replayed = await page.locator("table").all_inner_texts()
    assert "late-1" in replayed
    assert "late-1" not in waiting
    assert await page.evaluate(WIDE) <= 0
    assert watched.complaints == []


async def test_yesterdays_outage_is_seen(browser, start, device):
    running = await start()
    history, now = running.connector.context.history, int(time.time() * 1000)
    for minute in range(30 * 60, 0, -1):
        at = now - minute * 60_000
        is_away = 25 * 60 < minute <= 25 * 60 + 20
        rate = 0.0 if is_away else 12.0
        backlog = 12 * 60 * (25 * 60 + 20 - minute) if is_away else 0
        history.coarse.append(
            Point(at, 60.0, 12.0, rate, 0.0, backlog, 4.0, 30.0, is_published=not is_away, is_accepted=True)
        )
    watched = await opened(browser, running, **device)
    page = watched.page
    await watched.go("")
    await page.locator(".ranges a").nth(3).click()

    await page.locator(".plot").first.locator(".outage-fair").first.wait_for(state="attached")
    await page.wait_for_load_state()
    assert await page.locator(".plot").first.locator(".outage-fair").count() == 1
    [reported] = await page.locator("#outages + ul li").all_inner_texts()
    assert re.search("20 (min|分钟)", reported)
    ticks = await page.locator(".plot").nth(1).locator(".tick.end").all_text_contents()
    assert max(float(tick) for tick in ticks) >= 12 * 60 * 19
    await page.locator(".plot").first.hover()
    assert re.search(r"\d\d:\d\d:\d\d · .+ 12", await page.inner_text("[data-readout] >> nth=0"))
    assert await findings(page, rules()) == []
    assert await page.evaluate(WIDE) <= 0
    assert watched.complaints == []


async def test_events_are_filtered_and_a_failure_outlives_what_came_after(browser, start, device):
    running = await start()
    assert (await running.post(b'{"msgContext": "{"msgId": "1", "msgType": "Task"}"}'))[0] == 400
    for number in range(25):
        approver = [{"u1": "王芳"}] if number % 5 == 0 else [{"u2": "李娜"}]
        fields = {"action": 6 if number == 0 else 2, "elementName": "财务复核", "approverMap": approver}
        assert (await running.post(task(f"报销-{number}", number, **fields)))[0] == 200
    watched = await opened(browser, running, **device)
    page = watched.page
    await watched.go("events?person=王芳")
    assert await page.locator(".event").count() == 5
    assert await page.locator(".event-bad").count() == 1
    await page.fill("[name=action]", "回退")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**action=*")
    assert await page.locator(".event").count() == 1
    await watched.go("requests?failed=1")
    assert await page.locator("article").count() == 1
    assert "40003" in await page.inner_text("article")
    assert await findings(page, rules()) == []
    assert watched.complaints == []


async def test_the_wizard_gives_what_to_copy_and_shows_the_first_request(browser, start):
    running = await start(sources={"default": {"tokens": [TOKEN]}, "hr": {"tokens": ["a-token-for-hr"]}})
    watched = await opened(browser, running)
    page = watched.page
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await watched.go("setup?source=hr&address=https://weda.example/")

    await page.locator(".copy").first.click()
    copied = await page.evaluate("navigator.clipboard.readText()")
    assert copied == "https://weda.example/sources/hr/messageDeliver"
    assert await page.locator(".waiting").count() == 1
    await page.evaluate("document.activeElement.blur()")
    url = running.url.replace("/messageDeliver", "/sources/hr/messageDeliver")
    async with aiohttp.ClientSession(headers={"x-weda-token": "a-token-for-hr"}) as session:
        await (await session.post(url, json={"msgContext": task("first", 0, action=0)})).read()
    await page.locator("article").get_by_role("link", name="first").wait_for()
    assert watched.complaints == []


async def test_a_page_that_is_not_there_wears_the_consoles_dress_and_the_root_leads_to_it(browser, start, device):
    running = await start()
    watched = await opened(browser, running, **device)
    await watched.page.goto(running.connector.operations_url)
    assert watched.page.url == watched.home
    answer = await watched.page.goto(f"{watched.home}nonsense")
    assert answer is not None
    assert answer.status == 404
    assert await watched.page.locator("header nav").count() == 1
    assert re.search("there is no such page|没有这个页面", await watched.page.inner_text("main"))


async def test_topics_have_counts_rates_replicas_in_sync_and_lag(browser, start, topic_prefix):
    running = await start()
    for number in range(4):
        await running.post(task("lag", number, action=0))
    watched = await opened(browser, running)
    page = watched.page
    row = page.locator("tr").filter(has_text=f"{topic_prefix}.events")

    async def shown(path: str, label: str) -> str:
        await watched.go(path)  # again and again: a broker that does not answer in time leaves a dash, or no table
        cell = row.locator(f"[data-label='{label}']")
        return await cell.inner_text() if await cell.count() else ""

    await until(partial(shown, "topics?groups=nobody", "Records"), equals("4"))
    assert await row.locator("[data-label='In sync']").inner_text() == "1 / 1 · min 1"
    assert await row.locator("[data-label='Lag of nobody']").inner_text() == "–"
    await until(partial(shown, "topics", "a second"), equals("0.0"))
    assert watched.complaints == []


@asynccontextmanager
async def lively(start, cluster) -> AsyncIterator[tuple[Running, asyncio.Event]]:
    """A connector in use, with dead letters, a short outage and approvals that wait; the event ends the use."""
    sources = {"default": {"tokens": [TOKEN]}, "hr": {"tokens": ["a-token-for-hr"], "env_types": ["prod"]}}
    running = await start(
        topics__prefix="weda.workflow", kafka__bootstrap_servers=cluster.bootstrap_servers, sources=sources
    )
    history = running.connector.context.history

    stop = asyncio.Event()

    async def sample() -> None:
        while True:
            history.take()
            await asyncio.sleep(0.5)

    plan = Plan(url=running.connector.url, token=TOKEN, instances=None, rate=15.0, ramp_seconds=6.0, seed=11)
    sampling, playing = asyncio.create_task(sample()), asyncio.create_task(play(plan, stop=stop))
    try:
        await asyncio.sleep(12)
        cluster.pause_all()
        await asyncio.sleep(6)
        cluster.resume_all()
        hr = running.url.replace("/messageDeliver", "/sources/hr/messageDeliver")
        async with aiohttp.ClientSession(headers={"x-weda-token": "a-token-for-hr"}) as session:
            for number in range(5):
                leave = {"msgContext": task(f"请假-{number}", number, action=0)}
                await (await session.post(hr, json=leave)).read()
            quoted = b'{"msgContext": "{"msgId": "1", "msgType": "Task"}"}'
            headers = {"content-type": "application/json"}
            await (await session.post(hr, data=quoted, headers=headers)).read()
        await asyncio.sleep(14)
        await until(running.connector.context.catalog_view, lambda view: sum(map(is_shown, view.instances)) > 2)
        yield running, stop
    finally:
        cluster.resume_all()
        stop.set()
        await playing
        sampling.cancel()
        with suppress(asyncio.CancelledError):
            await sampling


DEVICES = {"": DESKTOP, ".zh-CN": {**DESKTOP, "locale": "zh-CN"}, ".phone": PHONE}
"""The suffix of a picture, and on what it is taken."""


async def test_the_pictures_of_the_documents_show_a_connector_in_use(browser, start, cluster):
    async with lively(start, cluster) as (running, stop):
        watched = {suffix: await opened(browser, running, **device) for suffix, device in DEVICES.items()}
        for suffix, each in watched.items():
            text = await taken(each, "overview", "", suffix)
            assert float(re.search(r"(\d+\.\d)\s*(?:a second|条/秒)", text)[1]) > 1
            assert await each.page.locator(".plot").first.locator(".outage").count() >= 1
        stop.set()  # what waits now waits for the rest of the pictures too
        await asyncio.sleep(1)
        pages = await pages_in_use(running)
        for suffix, each in watched.items():
            for name, path in pages.items():
                await taken(each, name, path, suffix)
            assert each.complaints == []


def is_shown(instance: Instance) -> bool:
    """Of an instance whose page is taken there is something to see."""
    return bool(instance.waits_for and instance.send_backs)


async def pages_in_use(running: Running) -> dict[str, str]:
    """What pictures are taken of, but for the overview."""
    view = await running.connector.context.catalog_view()
    waiting = next(one for one in view.instances if is_shown(one))
    [letter] = (await running.connector.context.letters.listed(Selection(), 1)).letters
    return {
        "instances": f"instances?q={waiting.waits_for.partition('、')[0]}",
        "instance": f"instances?id={waiting.instance_id}",
        "events": "events",
        "processes": "business",
        "requests": "requests?source=hr",
        "setup": f"setup?source=hr&since={int(time.time() * 1000) - 60_000}",
        "dead-letters": "dead-letters",
        "dead-letter": f"dead-letters/{letter.letter.topic}/{letter.letter.partition}/{letter.letter.offset}",
        "topics": "topics",
    }


async def taken(watched: Watched, name: str, path: str, suffix: str) -> str:
    """Go to a page, take its picture where the documents have one, and give its text."""
    await watched.go(path)
    text = await watched.page.inner_text("main")
    assert not re.search("test[-_]", text)
    assert await watched.page.evaluate(WIDE) <= 0
    if os.environ.get("WEDA_TEST_SCREENSHOTS") and (not suffix or name in {"overview", "instance"}):
        await watched.page.screenshot(path=PICTURES / f"{name}{suffix}.png")
    return str(text)
