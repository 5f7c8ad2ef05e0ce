"""The main job at a glance: a connector, a simulated WeDa platform and a reader of its events, in one process.

``run`` plays the demo; its ``Scene`` holds the ledger of what was sent against what appeared in Kafka.
"""

from connector.demo.options import Options
from connector.demo.performance import run
from connector.demo.scene import Scene
from connector.demo.view import summary

__all__ = ["Options", "Scene", "run", "summary"]
