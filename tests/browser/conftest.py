"""The connector of the integration tests, for a browser."""

from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser

from tests.browser import chromium
from tests.browser.pages import OPERATIONS_TOKEN
from tests.integration.conftest import start

__all__ = ["browser", "operations_token", "start"]


@pytest.fixture(params=[OPERATIONS_TOKEN, None], ids=["with a token", "without"])
def operations_token(request: pytest.FixtureRequest) -> str | None:
    """Both ways in which the console is open: by default there is no token."""
    return request.param


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser
