"""A service on `Events` that tests kill: it writes down what it handles, and ends itself by SIGKILL where it is set to.

    python service.py '{"bootstrap_servers": …, "prefix": …, "folder": …, "stage": …, "at": 7, "effects": "store"}'

``effects``: ``store`` writes them by the store's own connection, ``file`` appends to a file beside it. ``stage``: where
it dies: ``given`` (an event is given, nothing is done), ``handled`` (done, not committed), ``stored`` (in the store,
not in Kafka), ``committed``; or ``none``. ``at``: at which event of this run.
"""

import json
import os
import signal
import sqlite3
import sys
from pathlib import Path

from connector.consuming import Events, SqliteStore
from connector.kafka.subscription import Subscription


def main() -> None:
    how = json.loads(sys.argv[1])
    folder = Path(how["folder"])
    database = sqlite3.connect(folder / "effects.db")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("CREATE TABLE IF NOT EXISTS effect (message TEXT NOT NULL)")
    database.commit()
    count = 0

    def die(stage: str) -> None:
        if how["stage"] == stage and count == how["at"]:
            os.kill(os.getpid(), signal.SIGKILL)

    commit = Subscription.commit

    def commit_or_die(self, offsets):
        die("stored")
        commit(self, offsets)

    Subscription.commit = commit_or_die
    reading = {"group": f"{how['prefix']}-service", "member": "one", "auto_commit": False, "idle_seconds": how["idle"]}
    with (
        Events(how["bootstrap_servers"], prefix=how["prefix"], store=SqliteStore(database), **reading) as events,
        (folder / "effects.txt").open("a", encoding="utf-8") as file,
    ):
        for event in events:
            count += 1
            die("given")
            if how["effects"] == "store":
                database.execute("INSERT INTO effect VALUES (?)", (event.value["msgId"],))
            else:
                file.write(event.value["msgId"] + "\n")
                file.flush()
            die("handled")
            events.commit()
            die("committed")


if __name__ == "__main__":
    main()
