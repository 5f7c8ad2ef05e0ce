"""Finds a message: in a topic, in the journal, among the dead letters, or nowhere.

- `connector.lookup.model`: the query, its matches, and the report.
- `connector.lookup.topics` and `connector.lookup.journal`: search the two places.
- `connector.lookup.instances`: instances by title, person or state; `connector.lookup.timeline`: the steps of one.
- `connector.lookup.fixes`: advice on a request that was not accepted.
"""
