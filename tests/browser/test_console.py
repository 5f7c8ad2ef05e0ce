"""The console in a real browser, on a connector with a real broker: what people see, and what a browser minds."""

import asyncio
import re
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from connector.lookup import timeline
from connector.message.weda import TEMPLATE
from connector.operations import translations
from connector.simulator import Plan, play
from connector.telemetry.recent import MAX_FAILURES
from tests.browser import rules
from tests.browser.pages import OPERATIONS_TOKEN, findings, log_in, opened
from tests.contract.test_guide import GUIDES, blocks
from tests.integration.test_dead_letters import message, numbers, records
from tests.running import TOKEN, Running

ROOT = Path(__file__).parents[2]
SOURCES = {
    "default": {"tokens": [TOKEN]},
    "hr": {"tokens": ["a-token-for-hr"], "env_types": ["prod"]},
}
INSTANCES, SEED = 3, 2
"""Few, and one of them is sent back."""
PAGES = {
    "overview": "",
    "instances": "instances",
    "events": "events",
    "processes": "business",
    "setup": "setup?source=hr",
    "requests": "requests?source=hr",
    "dead-letters": "dead-letters",
    "topics": "topics",
    "settings": "settings",
    "api": "api",
}


@pytest.fixture
async def running(start, operations_token) -> Running:
    """A connector that has seen a simulated WeDa, and requests that it could not read."""
    running = await start(sources=SOURCES, operations__token=operations_token)
    await play(Plan(url=running.connector.url, token=TOKEN, instances=INSTANCES, rate=50.0, seed=SEED))
    hr = running.url.replace("/messageDeliver", "/sources/hr/messageDeliver")
    async with aiohttp.ClientSession(headers={"x-weda-token": "a-token-for-hr"}) as session:
        for number in range(9):
            text = message(f"hr-{number % 3}", number, comment="加班申请")
            while await status_of(session.post(hr, json=text)) == 503:
                await asyncio.sleep(0.1)  # a busy machine: as a source would, send it again
        quoted = b'{"msgContext": "{"msgId": "1", "msgType": "Task"}"}'
        assert await status_of(session.post(hr, data=quoted, headers={"content-type": "application/json"})) == 400
    return running


async def status_of(asking) -> int:
    async with asking as answer:
        return answer.status


async def session_of(home: str) -> str:
    """The cookie of a new session."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{home}login", data={"token": OPERATIONS_TOKEN}, allow_redirects=False) as answer,
    ):
        return answer.cookies["weda_session"].value


def an_instance_with_a_send_back(running: Running) -> str:
    return next(one.instance_id for one in running.connector.recent.events() if one.fields["action"] == 6)


async def test_each_page_shows_what_it_should_and_a_browser_minds_nothing(browser, running):
    script = rules()
    watched = await opened(browser, running)
    page = watched.page
    await log_in(watched)
    pages = PAGES | {"instance": f"instances?id={an_instance_with_a_send_back(running)}"}

    for name, path in pages.items():
        await watched.go(path)
        assert await findings(page, script) == [], name
        await page.emulate_media(color_scheme="dark")
        assert await findings(page, script, only="color-contrast") == [], name
        await page.emulate_media(color_scheme="light")
        assert "undefined" not in await page.inner_text("body" if name == "api" else "main")

    await watched.go("")
    text = await page.inner_text("main")
    assert "Messages are accepted" in text
    assert re.search(r"Accepted\s+\d+\.\d", text)
    await watched.go("events")
    assert await page.locator(".event").count() == min(len(running.connector.recent.events()), 100) > 30
    await watched.go("requests?source=hr")
    first = page.locator("article").first
    assert "40003" in await first.inner_text()
    assert TEMPLATE in await first.inner_text()
    await first.locator("summary").click()
    assert '"msgType": "Task"' in await first.locator("pre").first.inner_text()
    await watched.go("topics")
    assert await page.locator("tbody").first.locator("tr").count() == 4
    await watched.go("settings")
    shown = await page.inner_text("tbody")
    assert TOKEN not in shown
    assert "********" in shown
    assert watched.complaints == []
    assert watched.hosts == {urlsplit(watched.home).netloc}


async def test_an_instance_is_a_timeline_with_its_send_backs(browser, running):
    instance = an_instance_with_a_send_back(running)
    expected = [one for one in running.connector.recent.events() if one.instance_id == instance]
    watched = await opened(browser, running, locale="zh-CN")
    await log_in(watched)

    await watched.go(f"instances?id={instance}")

    page = watched.page
    steps = await page.locator(".timeline li strong").all_inner_texts()
    assert steps == [str(one.fields["actionName"]) for one in reversed(expected)]
    assert await page.locator(".timeline li.back").count() == await page.locator(".way path.back").count() >= 1
    assert "回退到" in await page.inner_text(".backto >> nth=0")
    assert await page.get_attribute("html", "lang") == "zh-CN"
    await watched.go("instances?id=no-such-instance")
    assert "从未到达" in await page.inner_text("main")
    assert watched.complaints == []


async def test_a_replay_goes_from_click_to_topic(browser, running, start, topic_prefix, operations_token):
    """Dry run first; what is mended is published, once, in order."""
    watched = await opened(browser, running)
    page = watched.page
    await log_in(watched)
    await watched.go("dead-letters")
    await page.locator(".cause a").get_by_text("42201").click()
    await page.click("text=Dry run of a replay")
    text = await watched.text_with(r"A replay would not fix any of these\.")
    assert re.search(r"3 ×\s+42201 envType is not one that the source hr allows", text), text
    await page.set_viewport_size({"width": 390, "height": 844})
    assert await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    await page.set_viewport_size({"width": 1280, "height": 800})
    await running.connector.stop()

    allowed = {**SOURCES, "hr": {**SOURCES["hr"], "env_types": ["prod", "pre"]}}
    mended = await start(sources=allowed, operations__token=operations_token)
    watched = await opened(browser, mended)
    page = watched.page
    await log_in(watched)
    before = len(await records(mended, f"{topic_prefix}.events"))
    await watched.go("dead-letters?code=42201")
    await page.click("text=Dry run of a replay")
    await watched.text_with(r"accepted\s+9")
    assert len(await records(mended, f"{topic_prefix}.events")) == before
    await page.click("text=Replay now")
    await page.get_by_text("The replay has ended.").wait_for()

    found = await records(mended, f"{topic_prefix}.events", before + 9)
    replayed = {lane: ids for lane, ids in numbers(found).items() if lane.startswith("hr-")}
    assert replayed == {f"hr-{lane}": [f"hr-{lane}-{number}" for number in range(lane, 9, 3)] for lane in range(3)}
    await watched.go("dead-letters?code=42201")
    assert re.search(r"\b0 waiting · 9 replayed", await page.inner_text(".cause"))
    await page.locator("tbody a").first.click()
    await watched.text_with("加班申请", "pre >> nth=0")
    assert watched.complaints == []


async def test_a_token_is_refused_and_accepted_and_a_session_can_end(browser, start):
    running = await start(sources=SOURCES, operations__token=OPERATIONS_TOKEN)
    watched = await opened(browser, running)
    page = watched.page
    await page.goto(f"{watched.home}dead-letters?code=42201")
    assert urlsplit(page.url).path == "/console/login"
    await page.fill("#token", "another token")
    await page.click("button.main")
    await watched.text_with(r"This is not the token\.")
    await page.fill("#token", OPERATIONS_TOKEN)
    await page.click("button.main")
    await page.wait_for_url(f"{watched.home}dead-letters?code=42201")
    [cookie] = [one for one in await page.context.cookies() if one["name"] == "weda_session"]
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/console/")
    await page.click("text=Log out")
    await page.wait_for_url("**/login**")
    await page.goto(watched.home)
    assert urlsplit(page.url).path == "/console/login"


async def test_forged_and_foreign_requests_are_refused(start):
    running = await start(sources=SOURCES, operations__token=OPERATIONS_TOKEN)
    home = f"{running.connector.operations_url}/console/"
    cookie = await session_of(home)
    address = f"{home}replays"
    async with aiohttp.ClientSession(headers={"cookie": f"weda_session={cookie}"}) as session:
        async with session.post(address, data={"act": "replay"}) as answer:
            assert answer.status == 403, "no mark"
        async with session.get(home) as answer:
            headers = answer.headers
            mark = re.search(r'name="mark" value="(\w+)"', await answer.text())
        assert mark is not None
        for origin in ("https://other.example", "null"):
            async with session.post(address, data={"mark": mark[1]}, headers={"origin": origin}) as answer:
                assert answer.status == 403, origin
        async with session.post(
            f"{home}login", data={"token": OPERATIONS_TOKEN}, headers={"origin": "null"}, allow_redirects=False
        ) as answer:
            assert answer.status == 403, "a login from nowhere"
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert {name: headers[name] for name in ("x-content-type-options", "x-frame-options", "cache-control")} == {
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "cache-control": "no-store",
    }
    async with aiohttp.ClientSession(headers={"cookie": f"weda_session={cookie[:-1]}x"}) as session:
        async with session.get(f"{home}settings", allow_redirects=False) as answer:
            assert answer.status == 303
        next_elsewhere = {"token": OPERATIONS_TOKEN, "next": "https://other.example/"}
        async with session.post(f"{home}login", data=next_elsewhere, allow_redirects=False) as answer:
            assert answer.headers["location"] == "/console/"


async def test_keyboard_phone_and_language(browser, running, operations_token):
    watched = await opened(browser, running, viewport={"width": 390, "height": 844}, locale="zh-CN")
    page = watched.page
    await page.goto(watched.home)
    if operations_token is not None:
        await page.wait_for_function("document.activeElement.name === 'token'")  # it has the focus by itself
        await page.keyboard.type(OPERATIONS_TOKEN)
        await page.keyboard.press("Enter")
        await page.wait_for_url(watched.home)
    assert "概览" in await page.inner_text("h1")
    an_instance = f"instances?id={an_instance_with_a_send_back(running)}"
    for path in ("", an_instance, *PAGES.values()):
        await watched.go(path)
        wide = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{path} is wider than a phone"
    await page.emulate_media(color_scheme="dark")
    await watched.go("")
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.className") == "skip"
    await page.click("text=English")
    await watched.text_with("Overview", "h1")
    await page.goto(watched.home)
    assert "Overview" in await page.inner_text("h1"), "the choice is kept"


async def test_the_page_on_the_api_shows_all_of_it_and_loads_nothing_from_elsewhere(browser, start):
    running = await start(sources=SOURCES)
    watched = await opened(browser, running)
    origin = running.connector.operations_url
    answer = await watched.page.goto(f"{origin}/api/docs")
    async with aiohttp.ClientSession() as session, session.get(f"{origin}/api/openapi.json") as document:
        paths = (await document.json())["paths"]

    assert answer is not None
    assert "unsafe" not in answer.headers["content-security-policy"]
    page = watched.page
    await page.locator(".opblock").first.wait_for()
    shown = [text.split() for text in await page.locator(".opblock-summary-path-description-wrapper").all_inner_texts()]
    methods = await page.locator(".opblock-summary-method").all_inner_texts()
    assert sorted(
        (method, words[0].replace("\u200b", "")) for method, words in zip(methods, shown, strict=True)
    ) == sorted((method.upper(), path) for path, operations in paths.items() for method in operations)
    await page.locator(".opblock-post .opblock-summary").first.click()
    for word in ("max_attempts", "dry_run", "202", "Reprocess dead letters"):
        await page.locator("#swagger-ui").get_by_text(word).first.wait_for()
    assert watched.complaints == []
    assert watched.hosts == {urlsplit(origin).netloc}


async def test_what_a_sender_wrote_keeps_to_its_place(browser, start):
    """No page gets wider for it, larger than a page should be, or reads in another order than it was written."""
    running = await start(sources=SOURCES)
    known = {"msgType": "Task", "instanceId": "odd", "envType": "pre", "elementName": "finance"}
    long = {
        "comment": f"https://files.example/{'a' * 3_000}",
        "taskStatusName": "A" * 3_000,
        "processName": "B" * 3_000,
    }
    forged = {"actionName": "同意\u202e", "taskStatusName": "REJECTED", "comment": "\u2066hidden\u2069\x9b"}
    for number, more in enumerate((long, forged, {"comment": "<" * 400_000, "elementName": "the boss"})):
        assert (await running.post(known | more | {"msgId": str(number)}))[0] == 200
    for _ in range(MAX_FAILURES):
        deep = b'{"msgContext":' + b"[" * 50 + b"1," * 7_000 + b"1" + b"]" * 50 + b"}"
        assert (await running.post(deep))[0] == 400
    for width in (1280, 390):
        watched = await opened(browser, running, viewport={"width": width, "height": 844})
        page = watched.page
        for path in ("instances?id=odd", "events", "requests", "dead-letters", "topics", "settings"):
            await watched.go(path)
            wide = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wide <= 0, f"{path} is {wide} px wider than {width}"
            assert len(await page.content()) < 500_000, path
        assert watched.complaints == []
    await watched.go("instances?id=odd")
    _, second, third = await page.locator(".timeline li").all_inner_texts()
    assert "同意\\u202e" in second
    assert "\\u2066hidden\\u2069\\u009b" in second
    assert await page.locator(".timeline bdi").count() >= 6
    assert len(third) < 3_000
    await page.locator(".timeline li").nth(2).get_by_text("the whole record").click()
    assert "<" * 400_000 in await page.inner_text("body")
    await watched.go("requests")
    await page.locator("summary").first.click()
    await page.get_by_text("The whole, as far as it is kept").first.click()
    assert len(await page.inner_text("body")) >= len(deep)


async def test_a_long_instance_is_shown_in_pages(browser, start):
    running = await start(sources=SOURCES)
    for number in range(4):
        event = {
            "msgType": "Task",
            "instanceId": "long",
            "msgId": str(number),
            "envType": "pre",
            "actionName": f"a{number}",
        }
        assert (await running.post(event))[0] == 200
    watched = await opened(browser, running)
    timeline.MAX_STEPS, before = 3, timeline.MAX_STEPS
    try:
        await watched.go("instances?id=long")
        assert await watched.page.locator(".timeline li strong").all_inner_texts() == ["a0", "a1", "a2"]
        await watched.page.get_by_text("Later steps").click()
        await watched.page.get_by_text("From the first step").wait_for()
        assert await watched.page.locator(".timeline li strong").all_inner_texts() == ["a3"]
    finally:
        timeline.MAX_STEPS = before


async def test_logging_out_ends_the_session_on_the_server(start):
    """And behind a proxy that speaks TLS, the cookie is for TLS alone."""
    running = await start(sources=SOURCES, operations__token=OPERATIONS_TOKEN)
    home = f"{running.connector.operations_url}/console/"
    proxied = {"x-forwarded-proto": "https"}
    jar = aiohttp.DummyCookieJar()
    async with aiohttp.ClientSession(cookie_jar=jar, headers=proxied) as session:
        token = {"token": OPERATIONS_TOKEN}
        async with session.post(f"{home}login", data=token, allow_redirects=False) as answer:
            set_cookie = answer.headers["set-cookie"]
        assert {"Secure", "HttpOnly", "SameSite=strict"} <= set(set_cookie.split("; "))
        cookie = {"cookie": set_cookie.partition(";")[0]}
        async with session.get(f"{home}settings", headers=cookie, allow_redirects=False) as answer:
            assert answer.status == 200
            mark = re.search(r'name="mark" value="(\w+)"', await answer.text())
        async with session.post(
            f"{home}logout", data={"mark": mark[1]}, headers=cookie, allow_redirects=False
        ) as answer:
            assert answer.status == 303
        async with session.get(f"{home}settings", headers=cookie, allow_redirects=False) as answer:
            assert answer.status == 303, "the cookie opens nothing any more"
        async with session.post(f"{home}login", data={"token": "another"}) as answer:
            assert answer.status == 403
    assert await running.metric("weda_connector_operations_refused_total", reason="unknown") == 1


async def test_what_is_live_renews_itself(browser, start):
    running = await start(sources=SOURCES, operations__token=OPERATIONS_TOKEN)
    watched = await opened(browser, running)
    await log_in(watched)
    await watched.go("events")
    await running.post({"msgType": "Task", "instanceId": "a-new-one", "actionName": "同意", "envType": "pre"})
    await watched.page.get_by_text("a-new-one").wait_for()
    await watched.page.click("text=Pause")
    assert await watched.page.get_attribute("[data-pause]", "aria-pressed") == "true"
    assert watched.complaints == []


async def test_without_a_token_this_machine_may_look(browser, start):
    running = await start(sources=SOURCES)
    watched = await opened(browser, running)
    await watched.go("")
    assert "Log out" not in await watched.page.inner_text("body")
    await watched.go("dead-letters")
    assert "None. Everything" in await watched.page.inner_text("main")


def test_every_word_of_the_pages_is_there_in_chinese():
    folder = ROOT / "connector" / "operations" / "templates"
    shown = [re.findall(r"\bt\(\s*(?:\"([^\"]+)\"|'([^']+)')", path.read_text("utf-8")) for path in folder.iterdir()]
    words = {one or other for found in shown for one, other in found}

    assert len(words) > 80
    assert words - translations.CHINESE.keys() == set()


def test_the_template_to_paste_is_that_of_the_guide():
    assert dict(blocks(GUIDES["en"]))["json"].strip() == TEMPLATE


@pytest.mark.parametrize(
    ("chosen", "accepted", "language"),
    [
        (None, "zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        (None, "fr,en;q=0.5,zh;q=0.7", "zh"),
        (None, "de", "en"),
        (None, None, "en"),
        ("en", "zh", "en"),
        ("xx", "zh;q=bad", "en"),
    ],
)
def test_the_language_is_the_chosen_or_the_browsers(chosen, accepted, language):
    assert translations.language_of(chosen, accepted) == language
