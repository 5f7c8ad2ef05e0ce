"""The local journal: messages that are accepted and not yet published; durable, bounded, in order.

In reading order:

1. `connector.journal.model`: the `Journal` that delivery works with, and its values. `connector.replicas.journal` is
   the other implementation.
2. `connector.journal.sqlite`: a thread, and group commit.
3. `connector.journal.file`: the file and its SQL; `connector.journal.paths`: the names of the files beside it.
4. `connector.journal.open_files`: whether the open files are still those at their paths.
5. `connector.journal.offline`: reads a journal that no process holds, without changing it.
6. `connector.journal.recovery`: reads a damaged journal (`connector.journal.recovery.salvage`) and its write-ahead log
   (`connector.journal.recovery.write_ahead_log`).
"""
