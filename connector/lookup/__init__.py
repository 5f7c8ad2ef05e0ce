"""Where a message is: in which topic, partition and offset; in the journal; a dead letter, and why; or nowhere.

- `connector.lookup.model`: what is looked for, and what was found.
- `connector.lookup.topics` and `connector.lookup.journal`: the two places.
- `connector.lookup.instances`: instances by title, person or state; `connector.lookup.timeline`: the steps of one.
- `connector.lookup.fixes`: what to do about a request that was not accepted.
"""
