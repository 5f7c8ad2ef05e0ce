"""Pages as tests open them: what goes wrong in them is noted, and axe-core looks at them."""

import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from playwright.async_api import Browser, Page, Request

from tests.running import Running
from tests.waiting import PATIENCE_SECONDS, until

OPERATIONS_TOKEN = "a-token-for-the-console"
SERIOUS = {"serious", "critical"}


@dataclass
class Watched:
    """A page, and what went wrong in it."""

    page: Page
    home: str
    complaints: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def watch(self) -> None:
        self.page.on("console", lambda said: self._complain(said.type, said.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._asked)

    async def go(self, path: str) -> None:
        answer = await self.page.goto(f"{self.home}{path}")
        assert answer is not None
        assert answer.status == 200, await answer.text()

    async def text_with(self, words: str, selector: str = "main") -> str:
        """The text of the page once it holds these words (a regular expression): a click may lead to another page."""
        return await until(lambda: self.page.inner_text(selector), lambda text: re.search(words, text))

    def _complain(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"}:
            self.complaints.append(f"{kind}: {text}")

    def _asked(self, request: Request) -> None:
        self.hosts.add(urlsplit(request.url).netloc)


async def opened(browser: Browser, running: Running, **how: object) -> Watched:
    context = await browser.new_context(**{"viewport": {"width": 1280, "height": 800}, "locale": "en-GB", **how})
    context.set_default_timeout(PATIENCE_SECONDS * 1000)
    watched = Watched(await context.new_page(), f"{running.connector.operations_url}/console/")
    watched.watch()
    return watched


async def log_in(watched: Watched) -> None:
    """Give the token, where one is asked for."""
    page = watched.page
    await page.goto(watched.home)
    if not await page.locator("#token").count():
        return
    await page.fill("#token", OPERATIONS_TOKEN)
    await page.click("button.main")
    await page.wait_for_url(watched.home)


OF_SWAGGER_UI = {"nested-interactive"}
"""What axe-core finds in the rows of Swagger UI, which writes them itself."""


async def findings(page: Page, script: str, only: str | None = None) -> list[str]:
    """What axe-core finds serious; run beside the page's own script, which its CSP forbids to load others."""
    await page.evaluate(script)
    chosen = {"resultTypes": ["violations"]} | ({"runOnly": [only]} if only else {})
    found = await page.evaluate("chosen => axe.run(document, chosen)", chosen)
    return [
        f"{one['id']}: {one['help']}: {[node['html'][:160] for node in one['nodes'][:3]]}"
        for one in found["violations"]
        if one["impact"] in SERIOUS
        and not (one["id"] in OF_SWAGGER_UI and all(".opblock-summary" in str(node["target"]) for node in one["nodes"]))
    ]
