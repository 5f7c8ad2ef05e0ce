"""The order of each instance: straight to Kafka, or through the journal and replay.

- `connector.delivery.lanes`: the rules of order, and the state of a lane by which they are kept.
- `connector.delivery.delivery`: enforces them: publishes, writes to the journal, publishes again, removes.
- `connector.delivery.replay`: hands over the rows of the journal, some of each lane at a time.
- `connector.delivery.alone`: publishes a record alone, to find out whether Kafka rejects it for its own sake.
- `connector.delivery.order`: who gives a message its position; `LocalOrder` here, `connector.replicas.order` among
  replicas.
- `connector.delivery.duplicates`: the deduplication window.
- `connector.delivery.completion`: the outcome of an admission, which comes later.
- `connector.delivery.failures` and `connector.delivery.ages`: back-off, and how long messages have waited.
"""
