"""The connector of the integration tests, for a browser."""

from tests.integration.conftest import start

__all__ = ["start"]
