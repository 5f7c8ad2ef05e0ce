"""Plays a WeDa platform: whole process runs, sent over HTTP as WeDa would send them.

- `connector.simulator.plan`: the options of a simulation.
- `connector.simulator.runs`: generates the messages of instances, the same for the same seed, from
  `connector.simulator.processes`, `connector.simulator.scenarios` and `connector.simulator.dictionaries`, written by
  `connector.simulator.messages`.
- `connector.simulator.shapes`: writes a message in one of WeDa's body shapes.
- `connector.simulator.sender`: sends the messages, at the pace of `connector.simulator.pace`.
- `connector.simulator.ledger`: records what was sent and answered.
"""

from connector.simulator.plan import Plan
from connector.simulator.runs import Run, runs
from connector.simulator.sender import Answer, Outcome, Summary, play
from connector.simulator.shapes import OutgoingRequest, Shape, render

__all__ = [
    "Answer",
    "Outcome",
    "OutgoingRequest",
    "Plan",
    "Run",
    "Shape",
    "Summary",
    "play",
    "render",
    "runs",
]
