"""Everything that talks to Kafka and the schema registry.

- `connector.kafka.publisher`: the producer and its thread.
- `connector.kafka.topics`: topics as the settings ask for them, and as they are.
- `connector.kafka.limits`: the records and timestamps that each topic takes.
- `connector.kafka.consumer`: functions that all consumers share.
- `connector.kafka.reader`: reads one topic without a group.
- `connector.kafka.subscription`: reads one or more topics, with or without a group.
- `connector.kafka.owned`: the partitions of a subscription, and how far it has read; `connector.kafka.merge` merges the
  records of several topics into one order.
- `connector.kafka.registry`: the schema registry.
- `connector.kafka.deadline`: deadlines for Kafka's answers.
- `connector.kafka.errors` and `connector.kafka.explain`: translate librdkafka's errors, and find their cause.
- `connector.kafka.partitions`: the partition of a key.
- `connector.kafka.embedded`: the broker in memory.
"""
