"""The order of each instance: straight to Kafka, or through the journal and replay."""
