"""The operations listener: metrics, probes, and the API and pages for those who run the connector."""

from connector.operations.desk import Desk, Outside
from connector.operations.history import SECONDS_BETWEEN, History
from connector.operations.listener import operations_app

__all__ = ["SECONDS_BETWEEN", "Desk", "History", "Outside", "operations_app"]
