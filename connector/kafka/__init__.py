"""Everything that talks to Kafka and the schema registry.

- `connector.kafka.publisher`: the producer and its thread.
- `connector.kafka.topics`: topics as the settings ask for them and as they are; `connector.kafka.limits`: what each takes.
- `connector.kafka.reader`: reads a topic without a group; `connector.kafka.subscription`: topics in one order, with a
  group or without (`connector.kafka.merge`).
- `connector.kafka.registry`: the schema registry.
- `connector.kafka.deadline`: by when Kafka has to have answered.
- `connector.kafka.errors` and `connector.kafka.explain`: librdkafka's errors, as the connector's own.
"""
