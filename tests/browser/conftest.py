"""A browser, and the console with a token and without."""

from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser

from tests.browser import chromium
from tests.browser.pages import OPERATIONS_TOKEN


@pytest.fixture(params=[OPERATIONS_TOKEN, None], ids=["with a token", "without"])
def operations_token(request: pytest.FixtureRequest) -> str | None:
    """Both ways in which the console is open: by default there is no token."""
    return request.param


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser
