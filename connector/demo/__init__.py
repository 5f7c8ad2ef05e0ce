"""The demo: a connector, a simulated WeDa platform and a reader of its events, in one process.

``run`` runs it; its ``DemoState`` has the ledger of what was sent against what appeared in Kafka.
"""

from connector.demo.options import Options
from connector.demo.runner import run
from connector.demo.state import DemoState
from connector.demo.view import summary

__all__ = ["DemoState", "Options", "run", "summary"]
