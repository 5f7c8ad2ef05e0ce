"""Receives WeDa workflow messages and publishes them to Kafka, in order per instance."""
