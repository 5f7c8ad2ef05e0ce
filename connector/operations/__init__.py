"""The operations listener: metrics, probes, and the API and pages for those who run the connector."""

from connector.operations.context import Context, Running
from connector.operations.history import SECONDS_BETWEEN, History
from connector.operations.kafka_reader import KafkaReader
from connector.operations.listener import operations_app

__all__ = ["SECONDS_BETWEEN", "Context", "History", "KafkaReader", "Running", "operations_app"]
