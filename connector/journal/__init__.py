"""What is accepted and not yet published: durable, bounded, in order.

- `connector.journal.model`: the `Journal` that delivery works with, and its values. `connector.replicas.journal` is the
  other implementation.
- `connector.journal.sqlite`: a thread, and group commit; `connector.journal.file`: the file and its SQL.
- `connector.journal.open_files`: whether the open files are still those at their paths.
- `connector.journal.paths`: the names of the files beside a journal.
- `connector.journal.offline`: a journal that no process holds, read as it is.
- `connector.journal.recovery`: what can be read of a damaged one.
"""
