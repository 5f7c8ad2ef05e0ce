"""Everything that talks to Kafka and the schema registry: publisher, topics, consumers."""
