"""A connector in this process, as the integration tests have it."""

from tests.integration.conftest import start

__all__ = ["start"]
