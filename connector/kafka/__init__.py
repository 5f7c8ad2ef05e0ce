"""Everything that talks to Kafka and the schema registry.

- `connector.kafka.publisher`: the producer and its thread.
- `connector.kafka.topics`: topics as the settings ask for them, and as they are.
- `connector.kafka.limits`: the records and timestamps that each topic takes.
- `connector.kafka.consumer`: what every consumer needs.
- `connector.kafka.reader`: reads one topic without a group, on `connector.kafka.consumer`.
- `connector.kafka.subscription`: reads several topics, with a group or without.
- `connector.kafka.owned`: the partitions that it reads, and how far; `connector.kafka.merge` puts the records of
  several topics in one order.
- `connector.kafka.registry`: the schema registry.
- `connector.kafka.deadline`: by when Kafka has to have answered.
- `connector.kafka.errors` and `connector.kafka.explain`: librdkafka's errors as the connector's own, with their cause.
- `connector.kafka.partitions`: the partition of a key.
- `connector.kafka.embedded`: the broker in memory.
"""
