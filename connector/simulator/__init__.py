"""Plays a WeDa platform: whole process runs, sent over HTTP as WeDa would send them.

``runs`` generates them (the same for the same seed), ``render`` gives a message one of WeDa's body shapes, ``play``
sends them and keeps count.
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
