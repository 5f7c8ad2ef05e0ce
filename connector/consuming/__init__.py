"""Read the topics from Python: typed events, decoded, without duplicates, and in order per instance.

::

    from connector.consuming import Events

    with Events("localhost:9092", group="reports") as events:
        for event in events:
            print(event.instance_id, event.value["actionName"])

`connector.consuming.events` reads the events, `connector.consuming.event` defines their type,
`connector.consuming.stores` remembers which were handled, and `connector.consuming.arrow` makes tables of them.
"""

from connector.consuming.event import Event, Mark
from connector.consuming.events import PREFIX, REPEATS_KEPT, Events, by_instance
from connector.consuming.stores import MemoryStore, Parked, SqliteStore, Store, TooManyParked
from connector.kafka.subscription import PartitionsLost
from connector.message.persons import Person, persons

__all__ = [
    "PREFIX",
    "REPEATS_KEPT",
    "Event",
    "Events",
    "Mark",
    "MemoryStore",
    "Parked",
    "PartitionsLost",
    "Person",
    "SqliteStore",
    "Store",
    "TooManyParked",
    "by_instance",
    "persons",
]
