"""The order of each instance: straight to Kafka, or through the journal and replay.

- `connector.delivery.lanes`: the rule of order, and the state of a lane by which it is kept.
- `connector.delivery.delivery`: enforces it: publishes, writes to the journal, replays, removes.
- `connector.delivery.order`: who gives a message its position; `LocalOrder` here, `connector.replicas.order` among
  replicas.
- `connector.delivery.duplicates`: the deduplication window.
- `connector.delivery.completion`: the outcome of an admission, which comes later.
- `connector.delivery.failures` and `connector.delivery.ages`: back-off, and how long messages have waited.
"""
