"""The main job at a glance: a connector, a simulated WeDa platform and a reader of its events, in one process.

``run`` plays the demo, ``Ledger`` holds what was sent against what appeared in Kafka, and a view tells it.
"""

from connector.demo.ledger import Ledger
from connector.demo.options import Options
from connector.demo.run import run

__all__ = ["Ledger", "Options", "run"]
