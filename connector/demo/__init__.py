"""The demo: a connector, a simulated WeDa platform and a reader of its events, in one process.

- `connector.demo.options`: its options.
- `connector.demo.runner`: starts the parts, and stops them in order; `connector.demo.reader`: follows the events.
- `connector.demo.state`: what it knows; `connector.demo.ledger`: what was sent against what appeared in Kafka.
- `connector.demo.view`: what it prints.
"""

from connector.demo.options import Options
from connector.demo.runner import run
from connector.demo.state import DemoState
from connector.demo.view import summary

__all__ = ["DemoState", "Options", "run", "summary"]
