"""The adapters of Kafka and its schema registry."""
