"""The demo: a connector, a simulated WeDa platform and a reader of its events, in one process.

- `connector.demo.options`: the options, and the settings and the plan that follow from them.
- `connector.demo.runner`: starts the parts, and stops them in order; `connector.demo.reader`: follows the events.
- `connector.demo.state`: the state to show; `connector.demo.ledger`: compares what was sent with what is in Kafka.
- `connector.demo.view`: prints the output.
"""

from connector.demo.options import Options
from connector.demo.runner import run
from connector.demo.state import DemoState
from connector.demo.view import summary

__all__ = ["DemoState", "Options", "run", "summary"]
