"""A real browser for the console: Debian's Chromium, driven by Playwright, and the rules of axe-core.

``python -m tests.browser`` installs Chromium where it is missing and apt-get may be used.
"""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from playwright.async_api import Browser, async_playwright

from tests.servers import NotInstalled, apt, npm

PACKAGES = ("chromium", "fonts-noto-cjk")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--no-first-run", "--disable-dev-shm-usage"),
)


def executable() -> str:
    """Chromium's path; ``NotInstalled`` names the package."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        raise NotInstalled(f"the console's tests need Chromium: apt-get install {' '.join(PACKAGES)}")
    return found


def install() -> None:
    """Install Chromium if it is missing and this user may; whether it worked shows when it is looked for."""
    if shutil.which("chromium") is None:
        apt.install(*PACKAGES)


def rules() -> str:
    """The script of axe-core."""
    here = Path(__file__).parent / "package.json"
    folder = npm.installed(here, "axe-core")
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A browser without a window."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable(), args=[*FLAGS])
        yield browser
        await browser.close()
